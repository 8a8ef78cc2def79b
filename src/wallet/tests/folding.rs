//! Entries read back: what does not fit is never folded.

use super::*;

/// A wallet before its last record, and that record.
fn before_last(table: &str) -> (Wallet, String) {
    let mut book = play(table);
    let last = book.records.pop().unwrap();
    let mut wallet = Wallet::default();
    for record in &book.records {
        let record: LedgerRecord<'_> = serde_json::from_str(record).unwrap();
        wallet.fold_record(&record, 35).unwrap();
    }
    (wallet, last)
}

fn first_entry(record: &str) -> Entry<'_> {
    serde_json::from_str::<LedgerRecord<'_>>(record).unwrap().entries.remove(0)
}

const CHARGED: &str = "topup t1 1 => granted +10 topup:t1(+10=10)
     topup t2 1 => granted +10 topup:t2(+10=10)
     charge j1 15 images => charged -15 topup:t1(-10=0) topup:t2(-5=5)";

#[test]
fn a_double_and_a_gap_leave_the_wallet_untouched() {
    let (mut wallet, record) = before_last(CHARGED);
    let entry = first_entry(&record);
    for (seq, expected) in [
        (0, FoldError::Double { seq: 0, last: 2 }),
        (1, FoldError::Double { seq: 1, last: 2 }),
        (2, FoldError::Double { seq: 2, last: 2 }),
        (4, FoldError::Gap { seq: 4, last: 2 }),
        (u64::MAX, FoldError::Gap { seq: u64::MAX, last: 2 }),
    ] {
        let before = format!("{wallet:?}");
        assert_eq!(wallet.fold(&Entry { seq, ..entry.clone() }, 0), Err(expected));
        assert_eq!(format!("{wallet:?}"), before);
    }
    wallet.fold(&entry, 0).unwrap();
    assert_eq!(wallet.fold(&entry, 0), Err(FoldError::Double { seq: 3, last: 3 }));
    assert_eq!(wallet.balance(), 5);
}

/// Every number of an entry that bears on the sums, changed by one.
#[test]
fn an_altered_entry_is_a_breach() {
    let (wallet, record) = before_last(CHARGED);
    let entry = first_entry(&record);
    let mut altered: Vec<(&str, Entry<'_>)> = Vec::new();
    let mut alter = |what, change: &dyn Fn(&mut Entry<'_>)| {
        let mut entry = entry.clone();
        change(&mut entry);
        altered.push((what, entry));
    };
    alter("credits", &|entry| entry.credits -= 1);
    alter("the balance", &|entry| entry.balance_after += 1);
    alter("credits and the balance", &|entry| (entry.credits, entry.balance_after) = (-14, 6));
    alter("overdraft", &|entry| entry.overdraft_after += 1);
    alter("a negative overdraft", &|entry| {
        (entry.overdraft_after, entry.balance_after, entry.credits) = (-1, 6, -14);
    });
    alter("a negative hold", &|entry| entry.held_after = -1);
    alter("an effect", &|entry| entry.grant_effects[1].credits -= 1);
    alter("what an effect leaves", &|entry| entry.grant_effects[1].remaining_after += 1);
    alter("an effect and what it leaves", &|entry| {
        (entry.grant_effects[1].credits, entry.grant_effects[1].remaining_after) = (-4, 6);
    });
    alter("a grant", &|entry| entry.grant_effects[0].grant_id = "topup:t3".into());
    alter("an effect less", &|entry| drop(entry.grant_effects.pop()));
    alter("an effect twice", &|entry| entry.grant_effects.push(entry.grant_effects[1].clone()));
    alter("a grant below 0", &|entry| {
        (entry.grant_effects[0].credits, entry.grant_effects[0].remaining_after) = (-11, -1);
        (entry.grant_effects[1].credits, entry.grant_effects[1].remaining_after) = (-4, 6);
    });
    alter("a grant above what was granted", &|entry| {
        (entry.grant_effects[0].credits, entry.grant_effects[0].remaining_after) = (1, 11);
        (entry.grant_effects[1].credits, entry.grant_effects[1].remaining_after) = (-10, 0);
        (entry.credits, entry.balance_after) = (-9, 11);
    });
    for (what, entry) in altered {
        let folded = wallet.clone().fold(&entry, 0);
        assert!(matches!(folded, Err(FoldError::Breach(Breach { seq: 3, .. }))), "{what}: {folded:?}");
    }
    wallet.clone().fold(&entry, 0).unwrap();
}

/// A hold and its release, changed so that the sums still close.
#[test]
fn an_altered_hold_is_a_breach() {
    let (wallet, held) = before_last(
        "hold j1 4 images => held +4 j1
         hold j2 3 images => held +3 j2",
    );
    let held = first_entry(&held);
    let (holding, released) = before_last(
        "hold j1 4 images => held +4 j1
         cancelled j1     => released -4 j1",
    );
    let released = first_entry(&released);
    fn with_held<'e>(entry: &Entry<'e>, held_credits: i64, held_after: i64) -> Entry<'e> {
        Entry { held_credits, held_after, ..entry.clone() }
    }
    let below_0 = Wallet { held: -5, ..wallet.clone() };
    for (what, wallet, entry) in [
        ("a hold of nothing", &wallet, with_held(&held, 0, 4)),
        ("a hold of less than nothing", &wallet, with_held(&held, -1, 3)),
        ("held below 0", &below_0, with_held(&held, 3, -2)),
        ("a release of nothing", &holding, with_held(&released, 0, 4)),
        ("a release of less than nothing", &holding, with_held(&released, 1, 5)),
        ("a release of more than is held", &holding, with_held(&released, -5, -1)),
        ("of another job", &holding, Entry { job_id: "j2".into(), ..released.clone() }),
        ("of an asset", &holding, Entry { asset_id: "a".into(), ..released.clone() }),
        ("a note that releases", &holding, Entry { entry_type: EntryType::Noted, ..released.clone() }),
    ] {
        let folded = wallet.clone().fold(&entry, 0);
        assert!(matches!(folded, Err(FoldError::Breach(Breach { seq: 2, .. }))), "{what}: {folded:?}");
    }
    wallet.clone().fold(&held, 0).unwrap();
    holding.clone().fold(&released, 0).unwrap();
}

#[test]
fn a_wallet_knows_when_its_first_and_its_last_entry_were_posted() {
    let book = play(CHARGED);
    let mut wallet = Wallet::default();
    for (record, posted) in book.records.iter().zip(["11-03", "11-04", "11-05"]) {
        let entry = Entry { posted_at: when(posted), ..first_entry(record) };
        wallet.fold(&entry, 0).unwrap();
    }
    assert_eq!((wallet.first_seen_at, wallet.updated_at), (when("11-03"), when("11-05")));
}

/// A snapshot holds none of them: a restart takes them from the entries that it covers.
#[test]
fn holds_are_taken_from_entries_that_the_wallet_covers() {
    let book = play(
        "hold j1 4 images           => held +4 j1
         hold j2 8 images asset=a   => held +8 j2/a
         hold j3 2 images           => held +2 j3
         charge j1 1 images asset=b => released -1 j1; charged -1
         cancelled j3               => released -2 j3",
    );
    let clock = crate::time::ShardClock(when("11-03"));
    let mut restored =
        WalletSnapshot::of(book::WALLET_ID, &book.wallet, clock, &book.policy.pricing).into_wallet();
    assert!(restored.holds.is_empty() && !book.wallet.holds.is_empty());
    for record in &book.records {
        let record: LedgerRecord<'_> = serde_json::from_str(record).unwrap();
        record.entries.iter().for_each(|entry| restored.fold_hold_of_known(entry));
    }
    assert_eq!(restored, book.wallet);
}

#[test]
fn an_altered_grant_is_a_breach() {
    let (wallet, record) = before_last("topup t1 1 => granted +10 topup:t1(+10=10)");
    let entry = first_entry(&record);
    let without_terms = Entry { grant: None, ..entry.clone() };
    assert!(
        matches!(wallet.clone().fold(&without_terms, 0), Err(FoldError::Breach(_))),
        "an effect on no grant"
    );
    let without_effect = Entry { grant_effects: Default::default(), ..entry.clone() };
    assert!(matches!(wallet.clone().fold(&without_effect, 0), Err(FoldError::Breach(_))));
    let more = Entry { credits: 11, ..entry };
    assert!(matches!(wallet.clone().fold(&more, 0), Err(FoldError::Breach(_))));
}

/// A sum that does not fit stops the shard; it never wraps.
#[test]
fn a_balance_beyond_64_bits_is_a_breach_and_never_wraps() {
    let mut book = Book::new(&crate::config::Config::default());
    book.wallet.overdraft = i64::MAX - 5;
    let line = book::parse("adjust a1 -10");
    let cost = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let data = line.data.as_ref().unwrap();
        drop(book::apply_line(
            &mut book.wallet,
            &book.policy,
            data,
            JobHistory::default(),
            "e1",
            Moment::default(),
        ));
    }));
    let message = *cost.unwrap_err().downcast::<String>().unwrap();
    assert!(message.contains("breaks conservation"), "{message}");
}

#[test]
fn what_is_absent_is_left_out_and_read_back_as_that() {
    let book = play(CHARGED);
    let charged = &book.records[2];
    for absent in
        ["held_credits", "amount", "reason", "actor", "grant\"", "contract", "plan", "null", "expires_at"]
    {
        assert!(!charged.contains(&format!("\"{absent}")), "{absent} in {charged}");
    }
    for present in ["\"v\":1", "\"seq\":3", "\"credits\":-15", "\"balance_after\":5", "\"bucket\":{"] {
        assert!(charged.contains(present), "{present} not in {charged}");
    }
    assert!(
        serde_json::from_str::<LedgerRecord<'_>>(&charged.replace("\"v\":1", "\"v\":1,\"later\":[1]"))
            .is_ok()
    );
}

#[test]
fn entry_types_and_kinds_are_named_as_they_are_spelt() {
    for entry_type in EntryType::ALL {
        assert_eq!(serde_json::to_string(&entry_type).unwrap(), format!("\"{}\"", entry_type.as_str()));
    }
    for kind in [GrantKind::Plan, GrantKind::Topup, GrantKind::Adjustment] {
        assert_eq!(serde_json::to_string(&kind).unwrap(), format!("\"{}\"", kind.as_str()));
    }
}
