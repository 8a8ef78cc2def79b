//! Contracts, their first allocation, and the ids that are good once.

use super::*;

#[test]
fn a_contract_grants_its_plans_first_allocation_when_it_has_begun() {
    play(
        "contract c1 lite 2026-11-01 => contract_started lite; granted +200 plan:c1:0(+200=200)
         = 200 overdraft 0 ok | plan:c1:0 200",
    );
    // It begins with the event.
    play("contract c1 lite 2026-11-03T10:15:30 => contract_started lite; granted +200 plan:c1:0(+200=200)");
    // It began long ago: every month since then is granted at its own time.
    let book = play(
        "contract c1 lite 2026-09-15 => contract_started lite; granted +200 plan:c1:0(+200=200); granted +200 plan:c1:1(+200=200)",
    );
    let grant = &book.wallet.grants[1];
    assert_eq!((grant.granted_at, grant.expires_at), (when("2026-10-15"), Some(when("2027-09-15"))));
    assert_eq!(grant.priority, 10);
    assert_eq!(book.wallet.contracts[0].next_allocation_at(), Some(when("2026-11-15")));
}

#[test]
fn a_contract_that_begins_later_grants_nothing_yet() {
    let book = play(
        "contract c1 lite 2026-11-03T10:15:30.001 => contract_started lite
         = 0 overdraft 0 exhausted",
    );
    assert_eq!(book.wallet.contracts[0].next_allocation_at(), Some(when("2026-11-03T10:15:30.001")));
    // The shard is there already, though the event is not.
    play("contract c1 lite 11-04 clock=11-04 => contract_started lite; granted +200 plan:c1:0(+200=200)");
    play("contract c1 lite 11-04 clock=11-03T23:59:59.999 => contract_started lite");
}

#[test]
fn the_terms_of_a_contract_stand_in_its_entries() {
    let book = play(
        "contract c1 lite 2026-10-31 months=4 => contract_started lite; granted +200 plan:c1:0(+200=200)",
    );
    let [started, granted] = &book.records[..] else { panic!() };
    let started = &serde_json::from_str::<LedgerRecord<'_>>(started).unwrap().entries[0];
    let granted = &serde_json::from_str::<LedgerRecord<'_>>(granted).unwrap().entries[0];
    let terms = started.contract.as_ref().unwrap();
    assert_eq!(
        (&*terms.contract_id, &*terms.plan, &terms.terms[..], terms.is_cancelled),
        ("c1", "lite", &[4][..], false)
    );
    assert_eq!((terms.starts_at, terms.ends_at), (when("2026-10-31"), when("2027-02-28")));
    assert_eq!((&*started.business_id, &*granted.business_id), ("contract:c1", ""));
    assert_eq!((started.credits, started.amount), (0, 0));
    let grant = granted.grant.as_ref().unwrap();
    assert_eq!((&*grant.contract_id, grant.month, grant.priority), ("c1", Some(0), 10));
    assert_eq!(granted.grant_effects[0].expires_at, Some(when("2027-02-28")));
    for entry in [started, granted] {
        assert_eq!((&*entry.contract_id, &*entry.plan), ("c1", "lite"));
    }
    assert_eq!((&*started.reference, started.origin_partition, started.origin_offset), ("invoice", 3, 42));
    // What falls due has no event.
    assert_eq!((&*granted.event_id, &*granted.source, granted.event_time), ("", "", when("2026-10-31")));
}

#[test]
fn a_snapshot_says_what_is_in_force_by_the_clock_and_what_is_left_of_each_kind() {
    let book = play(
        "contract c1 lite 2026-10-15 months=2 at=10-15 => contract_started lite; granted +200 plan:c1:0(+200=200)
         contract c2 scale 2027-01-15 at=10-15         => contract_started scale
         topup t1 1 at=10-16                           => granted +10 topup:t1(+10=10)
         adjust a1 5 at=10-16                          => adjusted +5 adjustment:a1(+5=5)",
    );
    for (clock, plan, contract_id, allocation, term) in [
        ("10-14T23:59:59.999", "", "", 0, None),
        ("10-15", "lite", "c1", 200, Some(("10-15", "12-15"))),
        ("12-15", "", "", 0, None),
        ("2027-01-15", "scale", "c2", 3_300, Some(("2027-01-15", "2028-01-15"))),
    ] {
        let at = crate::time::ShardClock(when(clock));
        let snapshot = WalletSnapshot::of(book::WALLET_ID, &book.wallet, at, &book.policy.pricing);
        assert_eq!(
            (&*snapshot.plan, &*snapshot.contract_id, snapshot.allocation),
            (plan, contract_id, allocation),
            "{clock}"
        );
        let of_term = snapshot.term_started_at.zip(snapshot.term_ends_at);
        assert_eq!(of_term, term.map(|(start, end)| (when(start), when(end))), "{clock}");
        assert_eq!(snapshot.next_allocation_at, Some(when("11-15")), "whatever the clock");
        let left = (snapshot.plan_credits, snapshot.topup_credits, snapshot.adjustment_credits);
        assert_eq!(left, (200, 10, 5));
    }
}

#[test]
fn contracts_of_a_wallet_never_overlap_but_may_follow_each_other() {
    play(
        "contract c1 lite 12-01 months=1                      => contract_started lite
         contract c2 lite 2026-12-31T23:59:59.999             => ! contract_conflict
         contract c2 lite 12-01 months=1                      => ! contract_conflict
         contract c2 lite 12-15 months=1                      => ! contract_conflict
         contract c2 lite 2026-11-01T00:00:00.001 months=1    => ! contract_conflict
         contract c2 lite 2026-11-01 months=12                => ! contract_conflict
         contract c2 scale 2027-01-01                         => contract_started scale
         contract c3 lite 2026-11-01 months=1                 => contract_started lite; granted +200 plan:c3:0(+200=200)
         = 200 overdraft 0 ok | plan:c3:0 200",
    );
}

#[test]
fn an_id_names_one_thing_of_its_kind_for_ever() {
    play(
        "contract x lite 2026-11-01 months=1 => contract_started lite; granted +200 plan:x:0(+200=200)
         # Neither the plan nor the time matters; the id comes before the overlap.
         contract x scale 2026-11-01         => ! id_conflict
         contract x lite 2028-01-01          => ! id_conflict
         topup x 100                         => granted +555 topup:x(+555=555)
         topup x 100                         => ! id_conflict
         topup x 1                           => ! id_conflict
         topup X 1                           => granted +10 topup:X(+10=10)
         adjust x 5                          => adjusted +5 adjustment:x(+5=5)
         adjust x 5                          => ! id_conflict
         adjust x -5                         => ! id_conflict
         adjust y -5                         => adjusted -5 plan:x:0(-5=195)
         adjust y 5                          => ! id_conflict
         = 765 overdraft 0 ok | plan:x:0 195 | adjustment:x 5 | topup:X 10 | topup:x 555",
    );
    // A rejected command uses up nothing.
    play(
        "contract c1 lite 2026-11-01 => contract_started lite; granted +200 plan:c1:0(+200=200)
         contract c2 lite 2026-11-01 => ! contract_conflict
         contract c2 lite 2027-11-01 => contract_started lite
         topup t1 99                 => ! unknown_topup
         topup t1 1                  => granted +10 topup:t1(+10=10)",
    );
}

/// The plan, the contract and the first day of its month are those in force at the event's own time.
#[test]
fn usage_is_booked_to_the_contract_and_month_of_its_own_time() {
    let mut book = play(
        "contract c1 lite 2026-08-31 months=3 => contract_started lite; granted +200 plan:c1:0(+200=200); granted +200 plan:c1:1(+200=200); granted +200 plan:c1:2(+200=200)
         contract c2 scale 2026-11-30         => contract_started scale",
    );
    for (at, plan, contract, period_start) in [
        ("2026-08-30T23:59:59.999", "", "", None),
        ("2026-08-31", "lite", "c1", Some("2026-08-31")),
        ("2026-09-29T23:59:59.999", "lite", "c1", Some("2026-08-31")),
        ("2026-09-30", "lite", "c1", Some("2026-09-30")),
        ("2026-10-30T23:59:59.999", "lite", "c1", Some("2026-09-30")),
        ("2026-10-31", "lite", "c1", Some("2026-10-31")),
        ("2026-11-29T23:59:59.999", "lite", "c1", Some("2026-10-31")),
        ("2026-11-30", "scale", "c2", Some("2026-11-30")),
        ("2027-01-29T23:59:59.999", "scale", "c2", Some("2026-12-30")),
        ("2027-11-29T23:59:59.999", "scale", "c2", Some("2027-10-30")),
        ("2027-11-30", "", "", None),
    ] {
        let records = book.apply(&book::parse(&format!("charge j{at} 1 images at={at}"))).unwrap();
        let record: LedgerRecord<'_> = serde_json::from_str(&records[0]).unwrap();
        let entry = &record.entries[0];
        let first_day = entry.period_start.map(|day| day.to_string());
        assert_eq!(
            (&*entry.plan, &*entry.contract_id, first_day.as_deref()),
            (plan, contract, period_start),
            "{at}"
        );
    }
}
