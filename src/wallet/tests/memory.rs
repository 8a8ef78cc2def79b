//! What a wallet lets go of beyond the horizon of 35 days, and what it never does.

use std::collections::HashMap;

use super::*;
use crate::config::Config;
use crate::event::{IdentityKey, job_key};

const SPENT: &str = "topup t1 1                     => granted +10 topup:t1(+10=10)
     topup t2 1                     => granted +10 topup:t2(+10=10)
     charge j1 10 images            => charged -10 topup:t1(-10=0)";

/// Touched last on 3 November; memory is kept by the day.
#[test]
fn a_spent_grant_is_kept_for_the_horizon_and_its_id_for_ever() {
    for (clock, is_kept) in [("12-08", true), ("12-08T23:59:59.999", true), ("12-09", false)] {
        let mut book = play(SPENT);
        book.enter(&book::parse(&format!("tick at={clock}")));
        book.play(&format!("adjust a1 -1 at={clock} => adjusted -1 topup:t2(-1=9)"));
        let kept = if is_kept { " | topup:t1 0" } else { "" };
        book.play(&format!("= 9 overdraft 0 ok{kept} | topup:t2 9"));
        book.play(
            "topup t1 1 at=11-04        => ! id_conflict
             topup t1 100 at=2030-01-01 => ! id_conflict
             adjust a1 5 at=2030-01-01  => ! id_conflict
             adjust t1 5                => adjusted +5 adjustment:t1(+5=5)",
        );
    }
}

#[test]
fn a_late_event_touches_a_grant_on_the_day_of_the_clock() {
    play(
        "topup t1 1                                    => granted +10 topup:t1(+10=10)
         tick at=11-20                                 =>
         charge j1 10 images at=11-04                  => charged -10 topup:t1(-10=0)
         tick at=12-25                                 =>
         charge j2 1 images at=12-25                   => charged -2
         = -2 overdraft 2 overdrawn | topup:t1 0
         tick at=12-26                                 =>
         charge j3 1 images at=12-26                   => charged -2
         = -4 overdraft 4 overdrawn",
    );
    // And one ahead of the clock on its own.
    play(
        "topup t1 1                                    => granted +10 topup:t1(+10=10)
         charge j1 5 images at=11-20 clock=11-03       => charged -10 topup:t1(-10=0)
         tick at=12-25                                 =>
         charge j2 1 images at=12-25                   => charged -2
         = -2 overdraft 2 overdrawn | topup:t1 0",
    );
}

#[test]
fn a_grant_with_credits_is_never_let_go_of() {
    play(
        "topup t1 1            => granted +10 topup:t1(+10=10)
         tick at=2036-01-01    =>
         adjust a1 -9 at=2036-01-01 => adjusted -9 topup:t1(-9=1)
         = 1 overdraft 0 low | topup:t1 1",
    );
}

/// It may have to take its credits back as long as a charge that made overdraft can be given back.
#[test]
fn a_grant_that_repaid_overdraft_is_kept_as_long_as_any_of_it_can_come_back() {
    play(
        "charge j1 10 images       => charged -10
         topup t1 1                => granted +10 topup:t1(+10=10); overdraft_repaid 10 topup:t1(-10=0)
         charge j2 3 images at=11-09 => charged -3
         tick at=12-14             =>
         adjust a1 1 at=12-14      => adjusted +1 adjustment:a1(+1=1); overdraft_repaid 1 adjustment:a1(-1=0)
         = -2 overdraft 2 overdrawn | adjustment:a1 0 | topup:t1 0
         tick at=12-15             =>
         topup t2 100 at=12-15     => granted +600 topup:t2(+600=600); overdraft_repaid 2 topup:t2(-2=598)
         = 598 overdraft 0 ok | adjustment:a1 0 | topup:t2 598",
    );
}

/// Past 200 of them they are kept for the horizon only, like any other.
#[test]
fn grants_that_repaid_overdraft_are_kept_beyond_the_horizon_in_bounded_number() {
    for (grants, kept) in [(199, 199), (200, 200), (201, 0)] {
        let mut book = Book::new(&Config::default());
        book.play(&format!("charge j1 {grants} images => charged -{grants}"));
        for number in 1..=grants {
            book.play(&format!(
                "adjust a{number} 1 => adjusted +1 adjustment:a{number}(+1=1); overdraft_repaid 1 adjustment:a{number}(-1=0)"
            ));
        }
        book.play(
            "charge j2 1 images at=11-09 => charged -1
             tick at=12-14               =>
             adjust b1 -1 at=12-14       => adjusted -1",
        );
        assert_eq!(book.wallet.grants.len(), kept, "of {grants}");
        book.play("adjust a1 1 at=12-14 => ! id_conflict");
    }
}

/// A charge is given back for the horizon, and the grants that paid it are kept for as long.
#[test]
fn a_charge_beyond_the_horizon_stays_even_where_its_job_is_remembered() {
    let charge_day = when("11-03").day();
    for (first_day, expected) in [
        (charge_day - 1, "reversed +4 topup:t1(+4=8); reversed +2 topup:t1(+2=10)"),
        (charge_day, "reversed +4 topup:t1(+4=8); reversed +2 topup:t1(+2=10)"),
        (charge_day + 1, "reversed +2 topup:t1(+2=6)"),
        (charge_day + 2, "noted j1"),
    ] {
        let mut book = play(
            "topup t1 1                          => granted +10 topup:t1(+10=10)
             charge j1 4 images asset=a          => charged -4 topup:t1(-4=6)
             charge j1 2 images asset=b at=11-04 => charged -2 topup:t1(-2=4)",
        );
        book.first_day = first_day;
        assert_eq!(book.enter(&book::parse("failed j1 at=11-04")), expected);
    }
}

/// Should a grant be gone before, nothing that was charged is kept: it comes back as one of its own.
#[test]
fn what_belongs_to_a_forgotten_grant_comes_back_as_an_adjustment() {
    let book = play(
        "topup t1 1                => granted +10 topup:t1(+10=10)
         topup t2 1                => granted +10 topup:t2(+10=10)
         charge j1 13 images       => charged -13 topup:t1(-10=0) topup:t2(-3=7)
         tick at=12-09             =>
         adjust a1 -1 at=12-09     => adjusted -1 topup:t2(-1=6)
         = 6 overdraft 0 ok | topup:t2 6
         failed j1 at=12-09        => reversed +13 adjustment:reversal+6(+10=10) topup:t2(+3=9)
         = 19 overdraft 0 ok | adjustment:reversal+6 10 | topup:t2 9",
    );
    let grant = &book.wallet.grants[0];
    assert_eq!((grant.priority, grant.expires_at, grant.granted_at), (20, None, when("12-09")));
}

/// Only those that repaid count against the bound.
#[test]
fn grants_that_repaid_nothing_take_no_room_of_those_that_did() {
    let mut book = play(
        "charge j1 10 images => charged -10
         topup t1 1          => granted +10 topup:t1(+10=10); overdraft_repaid 10 topup:t1(-10=0)",
    );
    for number in 1..=200 {
        book.enter(&book::parse(&format!("adjust a{number} 1 expires=11-05")));
    }
    book.enter(&book::parse("tick at=11-09"));
    book.play("charge j2 1 images at=11-09 => charged -1\n tick at=11-16 =>");
    assert_eq!(book.wallet.grants.len(), 201);
    book.play(
        "tick at=12-15         =>
         adjust b1 -1 at=12-15 => adjusted -1
         = -2 overdraft 2 overdrawn | topup:t1 0",
    );
}

/// After a restart the last records are met again.
#[test]
fn an_entry_that_is_met_again_changes_nothing_of_what_is_remembered() {
    let book = play(
        "charge j1 1 images asset=a => charged -1
         charge j1 2 images asset=b => charged -2
         failed j1 asset=a          => reversed +1
         failed j1                  => reversed +2
         charge j2 1 images         => charged -1
         failed j2                  => reversed +1",
    );
    let records = book.records.iter().map(|record| serde_json::from_str::<LedgerRecord<'_>>(record).unwrap());
    let entries: Vec<Entry<'_>> = records.flat_map(|record| record.entries).collect();
    let mut memos: HashMap<IdentityKey, JobMemo<'static>> = HashMap::new();
    let remember_all = |memos: &mut HashMap<IdentityKey, JobMemo<'static>>| {
        for entry in &entries {
            // As their event named it.
            let asset_id = if entry.whole_job { "" } else { &*entry.asset_id };
            let name = JobName::new(book::WALLET_ID, &entry.job_id, asset_id);
            let mut changes = Vec::new();
            let known = |key: IdentityKey| Ok::<_, ()>(memos.get(&key).cloned().map(Box::new));
            let put =
                |key, memo: JobMemo<'_>| changes.push((key, *JobMemo::from_bytes(&memo.to_bytes()).unwrap()));
            remember(&name, entry, entry.event_time.day(), known, put).unwrap();
            memos.extend(changes);
        }
    };
    remember_all(&mut memos);
    let once = memos.clone();
    remember_all(&mut memos);
    assert_eq!(memos, once);
    for (job, asset) in [("j1", ""), ("j1", "a"), ("j1", "b"), ("j2", "")] {
        assert_eq!(memos.get(&job_key(book::WALLET_ID, job, asset)), book.memo(job, asset), "{job} {asset}");
    }
}

#[test]
fn of_two_charges_of_an_asset_the_later_one_is_remembered_whichever_is_met_last() {
    let book = play("charge j1 1 images asset=a => charged -1");
    let record: LedgerRecord<'_> = serde_json::from_str(&book.records[0]).unwrap();
    let early = &record.entries[0];
    let late = Entry { seq: 9, ..early.clone() };
    let name = JobName::new(book::WALLET_ID, "j1", "a");
    let key = job_key(book::WALLET_ID, "j1", "a");
    for order in [[early, &late], [&late, early]] {
        let mut memos: HashMap<IdentityKey, JobMemo<'_>> = HashMap::new();
        for entry in order {
            let known = memos.clone();
            let get = |key: IdentityKey| {
                let stored = known.get(&key).map(JobMemo::to_bytes);
                Ok::<_, ()>(stored.map(|bytes| JobMemo::from_bytes(&bytes).unwrap()))
            };
            remember(&name, entry, 0, get, |key, memo| drop(memos.insert(key, memo))).unwrap();
        }
        assert_eq!(memos[&key].charge.as_ref().map(|charge| charge.seq), Some(9));
    }
}

/// Its job was remembered for longer, and named it as the latest charged.
#[test]
fn an_asset_that_was_forgotten_and_charged_anew_may_lead_to_itself() {
    let book = play("charge j1 1 images asset=a => charged -1");
    let key = job_key(book::WALLET_ID, "j1", "a");
    let asset = JobMemo { latest_asset: Some(key), ..book.memo("j1", "a").unwrap().clone() };
    let known = |wanted: IdentityKey| {
        let memo = if wanted == key { Some(&asset) } else { book.memo("j1", "") };
        Ok::<_, ()>(memo.cloned().map(Box::new))
    };
    let name = JobName::new(book::WALLET_ID, "j1", "");
    assert_eq!(JobHistory::find(&name, true, 0, known).unwrap().assets, std::slice::from_ref(&asset));
}

/// The share that went into overdraft too.
#[test]
fn what_belongs_to_forgotten_grants_that_repaid_overdraft_comes_back_with_the_rest() {
    play(
        "topup t1 1                => granted +10 topup:t1(+10=10)
         charge j1 15 images       => charged -15 topup:t1(-10=0)
         adjust a1 5               => adjusted +5 adjustment:a1(+5=5); overdraft_repaid 5 adjustment:a1(-5=0)
         tick at=12-09             =>
         topup t2 100 at=12-09     => granted +600 topup:t2(+600=600)
         = 600 overdraft 0 ok | topup:t2 600
         failed j1 at=12-09        => reversed +15 adjustment:reversal+6(+15=15)
         = 615 overdraft 0 ok | adjustment:reversal+6 15 | topup:t2 600",
    );
}

#[test]
fn contracts_never_overlap_however_long_ago_they_were() {
    play(
        "contract c1 lite 2026-10-15 months=1 at=10-15      => contract_started lite; granted +200 plan:c1:0(+200=200)
         charge j1 200 images at=10-16                      => charged -200 plan:c1:0(-200=0)
         tick at=2036-01-01                                 => contract_ended lite
         topup t1 100 at=2036-01-01                         => granted +600 topup:t1(+600=600)
         = 600 overdraft 0 ok | topup:t1 600
         contract c2 lite 2026-11-14T23:59:59.999 months=120 at=2036-01-01 => ! contract_conflict
         contract c2 lite 2026-09-15T00:00:00.001 months=1 at=2036-01-01   => ! contract_conflict
         contract c1 lite 2036-01-01 at=2036-01-01          => ! id_conflict
         contract c2 lite 2035-12-15 at=2036-01-01          => contract_started lite; granted +250 plan:c2:0(+250=250)
         contract c3 lite 2026-11-15 months=1 at=2036-01-01 => contract_started lite; granted +250 plan:c3:0(+250=250); contract_ended lite; expired -250 plan:c3:0(-250=0)",
    );
}

/// A contract that begins before others moves their places in the wallet: its grants keep to their own.
#[test]
fn grants_stay_with_their_contract_when_an_earlier_one_is_put_before_it() {
    let book = play(
        "contract c2 lite 2026-11-01 months=1           => contract_started lite; granted +200 plan:c2:0(+200=200)
         contract c1 strict 2026-10-01 months=1         => contract_started strict; granted +100 plan:c1:0(+100=100); contract_ended strict; expired -100 plan:c1:0(-100=0)
         contract c3 strict 2026-12-01 months=1         => contract_started strict
         cancel c2 from=11-20                           => contract_changed lite
         tick at=11-20T01:00                            => contract_ended lite; expired -200 plan:c2:0(-200=0)
         = 0 overdraft 0 exhausted | plan:c1:0 0 | plan:c2:0 0",
    );
    let contracts: Vec<&str> = book.wallet.contracts.iter().map(|contract| &*contract.contract_id).collect();
    assert_eq!(contracts, ["c1", "c2", "c3"], "by start");
}

#[test]
fn the_history_of_a_long_life_is_bounded_by_its_horizon() {
    let mut book = Book::new(&Config::default());
    book.play("contract c1 strict 2026-01-01 months=120 at=2026-01-01 => contract_started strict; granted +100 plan:c1:0(+100=100)");
    for month in 0_u32..60 {
        let at = when("2026-01-02").plus_months(month).unwrap();
        let at = at.to_string();
        let at = at.trim_end_matches('Z');
        book.enter(&book::parse(&format!("tick at={at}")));
        let came = book.enter(&book::parse(&format!(
            "charge j{month} {} images at={at}",
            if month < 11 { 100 } else { 50 }
        )));
        assert!(came.starts_with("charged -100"), "{came}");
        assert!(book.wallet.grants.len() <= 3, "{at}: {:?}", book.wallet.grants.len());
    }
    assert_eq!(book.wallet.business_ids.len(), 0, "months of a contract leave no id");
}
