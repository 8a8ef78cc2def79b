//! A restore upon a ledger with faults made by hand: torn, doubled, reordered, missing entries, and one that was cut.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod apart;
mod bench;
mod reading;
mod topics;

use super::begun::{Begun, Folded};
use super::gathered::ReadRecord;
use crate::config::Config;
use crate::event::job_key;
use crate::ledger::identity_store::Maintenance;
use crate::ledger::shard::{Handles, ShardState};
use crate::ledger::store::LocalStore;
use crate::rate::Pricing;
use crate::time::Timestamp;
use crate::wallet::{JobMemo, Policy, Wallet};

const POSTED_AT: &str = "2026-11-03T10:15:31.000Z";

fn posted_at() -> Timestamp {
    Timestamp::parse(POSTED_AT).unwrap()
}

/// A fault, the snapshot's seq, the ledger's entries, and doubles and seq, or the words of the contradiction.
type Case = (&'static str, u64, &'static [u64], Result<(u64, u64), &'static str>);

/// A shard whose wallet `ws_1` has come to an entry, by its snapshot or by what was kept.
fn begun(maintenance: &Maintenance, seq: u64, needs_snapshots: bool) -> Begun {
    let store =
        LocalStore { folder: None, maintenance, recent_max: 1_000, horizon_days: 35, ledger_id: "ledger" };
    let mut state = store.empty_shard(3);
    let handle = state.wallets.handle("ws_1");
    state.wallets.put(handle, &Wallet { seq, updated_at: posted_at(), ..Wallet::default() });
    state.ledger_position = 42;
    Begun {
        state,
        needs_snapshots,
        shown: Handles::default(),
        read_since: Timestamp::from_millis(0),
        cut: None,
        unkept: 0,
        first_day: 0,
        met: None,
        contradiction: None,
        folded: Folded::default(),
    }
}

/// Reads records with these entries, one each: doubles, and where `ws_1` has come to.
fn read(begun: Begun, seqs: &[u64]) -> Result<(u64, u64), String> {
    let entries: Vec<String> = seqs.iter().map(|seq| entry(*seq, POSTED_AT, "noted", "")).collect();
    let (doubles, state) = restored(begun, &entries)?;
    Ok((doubles, state.wallets.get_by_id("ws_1").unwrap().seq))
}

fn entry(seq: u64, posted_at: &str, entry_type: &str, more: &str) -> String {
    format!(
        r#"{{"seq":{seq},"entry_type":"{entry_type}","posted_at":"{posted_at}","event_time":"{POSTED_AT}","level":"ok"{more}}}"#
    )
}

/// Reads records of `ws_1`, each with these entries: doubles, and the shard.
fn restored(mut begun: Begun, records: &[String]) -> Result<(u64, ShardState), String> {
    for (offset, entries) in (0..).zip(records) {
        let value = format!(r#"{{"v":1,"wallet_id":"ws_1","entries":[{entries}]}}"#);
        let (key, value) = (Some(&b"ws_1"[..]), Some(value.as_bytes()));
        begun.fold_records(&[ReadRecord { shard: 3, offset, key, value }], 35)?;
    }
    let doubles = begun.folded.doubles;
    let policy = Policy::new(&Config::default(), Pricing::built_in().unwrap().into());
    Ok((doubles, begun.finish(&policy)?))
}

/// The same with another wallet `ws_1`.
fn with_wallet(mut begun: Begun, change: impl FnOnce(&mut Wallet)) -> Begun {
    let handle = begun.state.wallets.handle("ws_1");
    let mut wallet = begun.state.wallets.get(handle).unwrap();
    change(&mut wallet);
    begun.state.wallets.put(handle, &wallet);
    begun
}

#[test]
fn a_restore_from_the_topics_names_what_is_torn_reordered_or_missing_and_passes_over_doubles() {
    let maintenance = Maintenance::start().unwrap();
    let table: [Case; 6] = [
        ("sound", 2, &[1, 2, 3], Ok((2, 3))),
        ("doubled", 2, &[1, 2, 3, 3, 4, 2], Ok((4, 4))),
        ("missing", 2, &[1, 2, 4], Err("ledger 3/2: wallet ws_1")),
        ("reordered", 2, &[1, 2, 4, 3], Err("ledger 3/2: wallet ws_1")),
        ("torn: the snapshot is there, its entry is not", 4, &[1, 2, 3], Err("ledger ends before it")),
        ("torn: nothing of the wallet is there", 1, &[], Err("latest state covers entry 1")),
    ];
    for (fault, snapshot, entries, expected) in table {
        let found = read(begun(&maintenance, snapshot, true), entries);
        match expected {
            Ok(expected) => assert_eq!(found, Ok(expected), "{fault}"),
            Err(words) => assert!(found.as_ref().is_err_and(|why| why.contains(words)), "{fault}: {found:?}"),
        }
    }
    // What is older than the stretch that is read need not be met; what was posted in its first instant must be.
    let since = |read_since| Begun { read_since, ..begun(&maintenance, 4, true) };
    assert_eq!(read(since(posted_at().plus_millis(1)), &[]), Ok((0, 4)));
    assert!(read(since(posted_at()), &[]).is_err_and(|why| why.contains("latest state covers entry 4")));
}

/// A snapshot says how much is held, not by which jobs: that stands in the ledger, and must be as much.
#[test]
fn what_a_snapshot_says_is_held_must_be_what_is_open_in_the_ledger() {
    let maintenance = Maintenance::start().unwrap();
    let held = |seq| {
        let hold = r#","job_id":"j","held_credits":5,"held_after":5,"hold_until":"2026-11-04T10:15:31.000Z""#;
        entry(seq, POSTED_AT, "held", hold)
    };
    let released = |seq, credits: i64| {
        let release = format!(r#","job_id":"j","held_credits":-{credits},"held_after":{}"#, 5 - credits);
        entry(seq, POSTED_AT, "released", &release)
    };
    let noted =
        |seq, held_after: i64| entry(seq, POSTED_AT, "noted", &format!(r#","held_after":{held_after}"#));
    // Held by a snapshot of entry 2, the entries, and credits of open holds, or the contradiction.
    type Held = (i64, [String; 2], Result<i64, &'static str>);
    let table: [Held; 5] = [
        (5, [held(1), noted(2, 5)], Ok(5)),
        (3, [held(1), released(2, 2)], Ok(3)),
        (
            5,
            [noted(1, 5), noted(2, 5)],
            Err("5 credits are held, its open reservations in the ledger make 0"),
        ),
        (5, [held(1), released(2, 5)], Err("5 credits are held, its open reservations in the ledger make 0")),
        (0, [noted(1, 0), held(2)], Err("0 credits are held, its open reservations in the ledger make 5")),
    ];
    for (credits, entries, expected) in table {
        let begun = with_wallet(begun(&maintenance, 2, true), |wallet| wallet.held = credits);
        let found =
            restored(begun, &entries).map(|(_, state)| state.wallets.get_by_id("ws_1").unwrap().holds.sum());
        match expected {
            Ok(sum) => assert_eq!(found, Ok(sum), "{entries:?}"),
            Err(words) => assert!(found.as_ref().is_err_and(|why| why.contains(words)), "{found:?}"),
        }
    }
    // What was kept has its holds: they are not taken from the ledger a second time.
    let kept = with_wallet(begun(&maintenance, 0, false), |wallet| *wallet = Wallet::default());
    let (_, state) = restored(kept, &[held(1), [held(1), noted(2, 5)].join(",")]).unwrap();
    let wallet = state.wallets.get_by_id("ws_1").unwrap();
    assert_eq!((wallet.seq, wallet.held, wallet.holds.sum()), (2, 5, 5));
}

#[test]
fn a_catch_up_names_what_is_torn_reordered_or_missing_and_passes_over_doubles() {
    let maintenance = Maintenance::start().unwrap();
    let kept = || begun(&maintenance, 2, false);
    assert_eq!(read(kept(), &[3, 3, 2, 4]), Ok((2, 4)));
    for missing_or_reordered in [&[4][..], &[4, 3]] {
        assert!(
            read(kept(), missing_or_reordered).is_err_and(|why| why.starts_with("ledger 3/0: wallet ws_1"))
        );
    }
    // Torn: of a batch that counts as committed nothing is there.
    let mut torn = kept();
    let handle = torn.state.wallets.handle("ws_1");
    torn.state.changed.insert(handle, 1);
    assert!(read(torn, &[]).is_err_and(|why| why.contains("entry 2 as it was kept")));
}

#[test]
fn a_ledger_that_ends_before_what_was_kept_stops_the_shard_and_is_not_read_anew() {
    let maintenance = Maintenance::start().unwrap();
    // First offset and end of the ledger; was it cut at its end, or must the shard be read from the topics?
    for (first, end, is_cut, is_read_anew) in
        [(0, 42, false, false), (0, 41, true, false), (42, 50, false, false), (43, 50, false, true)]
    {
        let mut kept = begun(&maintenance, 2, false);
        kept.compare_with_ends(first, end);
        let found = (kept.cut.is_some(), kept.contradiction.is_some());
        assert_eq!(found, (is_cut, is_read_anew), "{first} to {end}");
        let mut from_topics = begun(&maintenance, 2, true);
        from_topics.compare_with_ends(first, end);
        assert!(from_topics.cut.is_none() && from_topics.contradiction.is_none());
    }
}

/// The entry that a wallet was kept at is compared where it is met in the ledger: once, and in all that it says.
#[test]
fn what_was_kept_must_be_met_in_the_ledger_as_it_is_known() {
    let maintenance = Maintenance::start().unwrap();
    let kept = || {
        let mut kept = begun(&maintenance, 2, false);
        let handle = kept.state.wallets.handle("ws_1");
        kept.state.changed.insert(handle, 1);
        kept
    };
    assert_eq!(read(kept(), &[2]), Ok((1, 2)));
    assert_eq!(read(kept(), &[1, 2, 3, 4]), Ok((2, 4)), "once it was met the wallet goes on");
    assert!(read(kept(), &[1]).is_err_and(|why| why.contains("entry 2 as it was kept")));
    assert!(read(kept(), &[3]).is_err_and(|why| why.contains("entry 2 as it was kept")));
    let later = "2026-11-03T10:15:31.001Z";
    for (posted_at, more) in [
        (later, ""),
        (POSTED_AT, r#","balance_after":1"#),
        (POSTED_AT, r#","held_after":1"#),
        (POSTED_AT, r#","overdraft_after":1"#),
    ] {
        let found = restored(kept(), &[entry(2, posted_at, "noted", more)]).map(drop);
        assert!(found.as_ref().is_err_and(|why| why.contains("entry 2 as it was kept")), "{more}: {found:?}");
    }
}

/// The wallets that went on owe a snapshot, the others do not; and what was compared once is not compared again.
#[test]
fn a_caught_up_shard_owes_snapshots_of_what_went_on_and_has_been_compared() {
    let maintenance = Maintenance::start().unwrap();
    for (entries, owed) in [(&[2][..], 0), (&[2, 3], 1)] {
        let mut kept = begun(&maintenance, 2, false);
        let handle = kept.state.wallets.handle("ws_1");
        kept.state.changed.insert(handle, 1);
        let entries: Vec<String> = entries.iter().map(|seq| entry(*seq, POSTED_AT, "noted", "")).collect();
        let (_, state) = restored(kept, &entries).unwrap();
        assert_eq!((state.unsaved.len(), state.changed.len()), (owed, 0));
    }
}

/// Of two assets of a job one is in what was kept, the other in the ledger's tail: they hang on one chain all the same, or a
/// refund of the job would give back only the second.
#[test]
fn a_caught_up_shard_knows_the_jobs_that_a_restore_from_the_topics_knows() {
    let maintenance = Maintenance::start().unwrap();
    let charged = |seq: u64, asset: &str| {
        let charge = format!(
            r#","job_id":"j","asset_id":"{asset}","asset_type":"image","images":1,"credits":-1,"overdraft_after":{seq},"balance_after":-{seq}"#
        );
        entry(seq, POSTED_AT, "charged", &charge)
    };
    let new = || with_wallet(begun(&maintenance, 0, true), |wallet| *wallet = Wallet::default());
    let (_, of_topics) = restored(new(), &[charged(1, "first"), charged(2, "second")]).unwrap();
    let (_, kept) = restored(new(), &[charged(1, "first")]).unwrap();
    let kept = Begun { state: kept, ..begun(&maintenance, 0, false) };
    let (_, caught_up) = restored(kept, &[charged(2, "second")]).unwrap();
    let memo = |state: &ShardState, asset: &str| {
        let memo = state.identities.get(job_key("ws_1", "j", asset)).unwrap().unwrap();
        (memo.day, JobMemo::from_bytes(&memo.value).unwrap())
    };
    for asset in ["", "first", "second"] {
        assert_eq!(memo(&caught_up, asset), memo(&of_topics, asset), "{asset:?}");
    }
    assert_eq!(memo(&caught_up, "second").1.latest_asset, Some(job_key("ws_1", "j", "first")));
}
