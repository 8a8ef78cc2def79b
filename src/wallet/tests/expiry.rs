//! Expiry and lateness: who pays is decided by the event's time, what is left is taken away an allowed lateness later.

use super::*;

/// The grant expires at 11:00, and 12:00 is its posting; the shard's clock is somewhere in between.
#[test]
fn a_grant_pays_for_what_happened_before_its_expiry_until_that_is_posted() {
    for (at, clock, payer) in [
        ("10:59:59.999", "10:59:59.999", "adjustment:a1(-1=9)"),
        ("10:59:59.999", "11:00", "adjustment:a1(-1=9)"),
        ("10:59:59.999", "11:59:59.999", "adjustment:a1(-1=9)"),
        ("11:00", "11:00", "topup:t1(-1=9)"),
        ("11:00:00.001", "11:00:00.001", "topup:t1(-1=9)"),
        ("11:00", "10:59:59.999", "topup:t1(-1=9)"),
        ("11:59:59.999", "11:59:59.999", "topup:t1(-1=9)"),
        // Posted: the next grant pays.
        ("10:59:59.999", "12:00", "topup:t1(-1=9)"),
        ("10:59:59.999", "12:00:00.001", "topup:t1(-1=9)"),
    ] {
        let mut book = play(
            "adjust a1 10 expires=11-03T11:00 at=11-03T10:00 => adjusted +10 adjustment:a1(+10=10)
             topup t1 1 at=11-03T10:00                      => granted +10 topup:t1(+10=10)",
        );
        book.enter(&book::parse(&format!("tick at=11-03T{clock}")));
        let came = book.enter(&book::parse(&format!("charge j1 1 images at=11-03T{at}")));
        assert_eq!(came.split("; ").next(), Some(&*format!("charged -1 {payer}")), "{at}, clock {clock}");
    }
}

#[test]
fn only_what_is_left_expires_and_nothing_for_nothing() {
    play(
        "adjust a1 10 expires=11-03T11:00 => adjusted +10 adjustment:a1(+10=10)
         adjust a2 10 expires=11-03T11:00 => adjusted +10 adjustment:a2(+10=10)
         charge j1 14 images              => charged -14 adjustment:a1(-10=0) adjustment:a2(-4=6)
         tick at=11-03T11:59:59.999       =>
         # Until it is posted the balance counts it.
         = 6 overdraft 0 ok | adjustment:a1 0 | adjustment:a2 6
         tick at=11-03T12:00              => expired -6 adjustment:a2(-6=0)
         = 0 overdraft 0 exhausted | adjustment:a1 0 | adjustment:a2 0
         tick at=11-20                    =>",
    );
}

#[test]
fn topups_and_grants_without_an_expiry_never_expire() {
    play(
        "topup t1 1      => granted +10 topup:t1(+10=10)
         adjust a1 10    => adjusted +10 adjustment:a1(+10=10)
         tick at=9000-01-01 =>
         = 20 overdraft 0 ok | adjustment:a1 10 | topup:t1 10",
    );
}

#[test]
fn the_allowed_lateness_is_configured() {
    play_with(
        |config| config.clock.allowed_lateness_seconds = 0,
        "adjust a1 10 expires=11-03T11:00 => adjusted +10 adjustment:a1(+10=10)
         tick at=11-03T10:59:59.999       =>
         tick at=11-03T11:00              => expired -10 adjustment:a1(-10=0)
         charge j1 1 images at=11-03T10:59:59.999 => charged -1",
    );
    play_with(
        |config| config.clock.allowed_lateness_seconds = 7_200,
        "adjust a1 10 expires=11-03T11:00 => adjusted +10 adjustment:a1(+10=10)
         tick at=11-03T12:59:59.999       =>
         tick at=11-03T13:00              => expired -10 adjustment:a1(-10=0)",
    );
}

/// The due time of the posting is not the time of the event behind which it stands.
#[test]
fn an_expiry_stands_at_its_own_time_without_an_event() {
    let book = play(
        "contract c1 lite 2026-10-15 months=1 at=10-15 => contract_started lite; granted +200 plan:c1:0(+200=200)
         charge j1 1 images at=11-20                   => charged -2; contract_ended lite; expired -200 plan:c1:0(-200=0)",
    );
    let times = book.records[2..].iter().map(|record| {
        let record: LedgerRecord<'_> = serde_json::from_str(record).unwrap();
        let entry = &record.entries[0];
        (entry.entry_type, entry.event_time, entry.event_id.is_empty(), record.entries.len())
    });
    let times: Vec<_> = times.collect();
    assert_eq!(
        times,
        [
            (EntryType::Charged, when("11-20"), false, 1),
            (EntryType::ContractEnded, when("11-15"), true, 1),
            (EntryType::Expired, when("11-15T01:00"), true, 1),
        ]
    );
    let expired: LedgerRecord<'_> = serde_json::from_str(&book.records[4]).unwrap();
    assert_eq!((&*expired.entries[0].contract_id, &*expired.entries[0].plan), ("c1", "lite"));
}

/// With the plan of the term that they were granted for, not of the one that begins where they end.
#[test]
fn what_expires_at_a_seam_is_booked_to_the_plan_before_it() {
    let book = play(
        "contract c1 lite 2026-10-15 months=1 at=10-15 => contract_started lite; granted +200 plan:c1:0(+200=200)
         renew c1 plan=strict at=10-20                 => contract_renewed lite
         tick at=11-15T01:00                           => granted +100 plan:c1:1(+100=100); expired -200 plan:c1:0(-200=0)",
    );
    let expired: LedgerRecord<'_> = serde_json::from_str(&book.records[4]).unwrap();
    assert_eq!((&*expired.entries[0].contract_id, &*expired.entries[0].plan), ("c1", "lite"));
}

#[test]
fn usage_across_a_seam_is_paid_by_the_term_that_it_happened_in() {
    play(
        "contract c1 capped 2026-10-15 months=1 at=10-15         => contract_started capped; granted +100 plan:c1:0(+100=100)
         renew c1 at=10-20                                       => contract_renewed capped
         tick at=11-15                                           => granted +100 plan:c1:1(+100=100)
         charge j1 1 images at=11-14T23:59:59.999                => charged -2 plan:c1:0(-2=98)
         # Both may pay: what expires sooner goes first... for what happened before; after it, the new term alone.
         charge j2 1 images at=11-15                             => charged -2 plan:c1:1(-2=98)
         charge j3 1 images at=11-15T00:00:00.001                => charged -2 plan:c1:1(-2=96)
         tick at=11-15T00:59:59.999                              =>
         charge j4 1 images at=11-14T23:59:59.999                => charged -2 plan:c1:0(-2=96)
         tick at=11-15T01:00                                     => expired -96 plan:c1:0(-96=0)
         # Later than the allowed lateness: the next grant pays.
         charge j5 1 images at=11-14T23:59:59.999                => charged -2 plan:c1:1(-2=94)",
    );
}

#[test]
fn unused_credits_carry_from_month_to_month_inside_a_term() {
    play(
        "contract c1 strict 2026-11-15 months=3 at=11-15 => contract_started strict; granted +100 plan:c1:0(+100=100)
         charge j1 20 images at=11-16                    => charged -40 plan:c1:0(-40=60)
         tick at=12-15                                   => granted +100 plan:c1:1(+100=100)
         charge j2 60 images at=12-16                    => charged -120 plan:c1:0(-60=0) plan:c1:1(-60=40)
         tick at=2027-01-15                              => granted +100 plan:c1:2(+100=100)
         tick at=2027-02-15                              => contract_ended strict
         tick at=2027-02-15T01:00                        => expired -40 plan:c1:1(-40=0); expired -100 plan:c1:2(-100=0)",
    );
}

#[test]
fn a_debit_draws_by_its_own_time_as_a_charge_does() {
    play(
        "adjust a1 10 expires=11-03T11:00 => adjusted +10 adjustment:a1(+10=10)
         topup t1 1                       => granted +10 topup:t1(+10=10)
         adjust a2 -1 at=11-03T10:59:59.999 => adjusted -1 adjustment:a1(-1=9)
         adjust a3 -1 at=11-03T11:00      => adjusted -1 topup:t1(-1=9)
         adjust a4 -1 at=11-03T10:59:59.999 => adjusted -1 adjustment:a1(-1=8)
         tick at=11-03T12:00              => expired -8 adjustment:a1(-8=0)
         adjust a5 -20 at=11-03T10:59:59.999 => adjusted -20 topup:t1(-9=0)
         = -11 overdraft 11 overdrawn | adjustment:a1 0 | topup:t1 0",
    );
}
