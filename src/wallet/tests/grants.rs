//! Which grants pay, in which order, and what happens where they do not suffice.

use super::*;

#[test]
fn a_topup_needs_no_contract_and_never_expires() {
    let book = play(
        "topup t1 100        => granted +555 topup:t1(+555=555)
         charge j1 4 images  => charged -4 topup:t1(-4=551)
         charge j2 8 seconds => charged -24 topup:t1(-24=527)
         charge j3 8 seconds at=2036-01-01 => charged -24 topup:t1(-24=503)
         = 503 overdraft 0 ok | topup:t1 503",
    );
    let grant = &book.wallet.grants[0];
    assert_eq!((grant.origin.kind(), grant.expires_at, grant.priority), (GrantKind::Topup, None, 30));
    let GrantOrigin::Topup { amount_usd, .. } = &grant.origin else { panic!() };
    assert_eq!((amount_usd.0, grant.granted, grant.seq), (10_000, 555, 4));
}

#[test]
fn a_person_may_grant_and_debit() {
    let book = play(
        "adjust a1 50 expires=12-01 => adjusted +50 adjustment:a1(+50=50)
         adjust a2 -20              => adjusted -20 adjustment:a1(-20=30)
         = 30 overdraft 0 ok | adjustment:a1 30
         adjust a3 -40              => adjusted -40 adjustment:a1(-30=0)
         = -10 overdraft 10 overdrawn | adjustment:a1 0",
    );
    let grant = &book.wallet.grants[0];
    assert_eq!(
        (grant.origin.kind(), grant.expires_at, grant.priority),
        (GrantKind::Adjustment, Some(when("12-01")), 20)
    );
    let record: LedgerRecord<'_> = serde_json::from_str(&book.records[1]).unwrap();
    let entry = &record.entries[0];
    assert_eq!((&*entry.reason, &*entry.actor, &*entry.business_id), ("goodwill", "kim", "adjustment:a2"));
}

/// Priority, then the soonest expiry (never last), then the oldest, then the id.
#[test]
fn grants_pay_in_burn_down_order() {
    play(
        "topup t9 1 at=11-02                 => granted +10 topup:t9(+10=10)
         topup t2 1 at=11-03                 => granted +10 topup:t2(+10=10)
         topup t1 1 at=11-03                 => granted +10 topup:t1(+10=10)
         adjust never 10                     => adjusted +10 adjustment:never(+10=10)
         adjust old 10 at=11-01              => adjusted +10 adjustment:old(+10=10)
         adjust late 10 expires=12-01        => adjusted +10 adjustment:late(+10=10)
         adjust soon 10 expires=11-20        => adjusted +10 adjustment:soon(+10=10)
         contract c1 old 2026-11-01 at=11-04 => contract_started old; granted +5 plan:c1:0(+5=5)
         = 75 overdraft 0 ok | plan:c1:0 5 | adjustment:soon 10 | adjustment:late 10 | adjustment:old 10 | adjustment:never 10 | topup:t9 10 | topup:t1 10 | topup:t2 10
         charge j1 5 images                  => charged -5 plan:c1:0(-5=0)
         charge j2 11 images                 => charged -11 adjustment:soon(-10=0) adjustment:late(-1=9)
         charge j3 30 images                 => charged -30 adjustment:late(-9=0) adjustment:old(-10=0) adjustment:never(-10=0) topup:t9(-1=9)
         charge j4 19 images                 => charged -19 topup:t9(-9=0) topup:t1(-10=0)
         charge j5 12 images                 => charged -12 topup:t2(-10=0)
         = -2 overdraft 2 overdrawn | plan:c1:0 0 | adjustment:soon 0 | adjustment:late 0 | adjustment:old 0 | adjustment:never 0 | topup:t9 0 | topup:t1 0 | topup:t2 0",
    );
}

#[test]
fn priorities_are_configured() {
    play_with(
        |config| (config.pricing.plan_priority, config.pricing.topup_priority) = (30, 10),
        "contract c1 lite 2026-11-01 => contract_started lite; granted +200 plan:c1:0(+200=200)
         topup t1 1                  => granted +10 topup:t1(+10=10)
         adjust a1 5 expires=11-10   => adjusted +5 adjustment:a1(+5=5)
         charge j1 20 images         => charged -20 topup:t1(-10=0) adjustment:a1(-5=0) plan:c1:0(-5=195)",
    );
}

#[test]
fn late_usage_is_paid_by_the_grant_that_was_valid_then() {
    play(
        "adjust a1 10 expires=11-05               => adjusted +10 adjustment:a1(+10=10)
         topup t1 1                               => granted +10 topup:t1(+10=10)
         charge j1 1 images at=11-04T23:59:59.999 => charged -1 adjustment:a1(-1=9)
         charge j2 1 images at=11-05              => charged -1 topup:t1(-1=9)
         charge j3 1 images at=11-05T00:00:00.001 => charged -1 topup:t1(-1=8)
         # It happened before, though the shard is past the expiry; until that is posted the balance counts it.
         charge j4 1 images at=11-04T23:59:59.999 clock=11-05T00:59:59.999 => charged -1 adjustment:a1(-1=8)
         = 16 overdraft 0 ok | adjustment:a1 8 | topup:t1 8
         charge j5 9 images at=11-05              => charged -9 topup:t1(-8=0)
         = 7 overdraft 1 ok | adjustment:a1 8 | topup:t1 0
         adjust a2 -2 at=11-05                    => adjusted -2
         adjust a3 -2 at=11-04                    => adjusted -2 adjustment:a1(-2=6)
         tick at=11-05T01:00                      => expired -6 adjustment:a1(-6=0)",
    );
}

#[test]
fn plan_credits_end_with_the_term() {
    play(
        "contract c1 lite 2026-11-01 months=1     => contract_started lite; granted +200 plan:c1:0(+200=200)
         charge j1 1 images at=2026-11-30T23:59:59.999 => charged -2 plan:c1:0(-2=198)
         charge j2 1 images at=2026-12-01         => charged -2; contract_ended lite
         # The base of the level is gone with the contract.
         = 196 overdraft 2 ok | plan:c1:0 198
         tick at=2026-12-01T00:59:59.999          =>
         tick at=2026-12-01T01:00                 => expired -198 plan:c1:0(-198=0)
         = -2 overdraft 2 overdrawn | plan:c1:0 0",
    );
}

#[test]
fn a_grant_may_pay_for_usage_older_than_itself() {
    play(
        "topup t1 1                         => granted +10 topup:t1(+10=10)
         charge j1 3 images at=2026-10-01   => charged -3 topup:t1(-3=7)
         contract c1 lite 2026-11-01        => contract_started lite; granted +200 plan:c1:0(+200=200)
         charge j2 3 images at=2026-10-01   => charged -3 plan:c1:0(-3=197)",
    );
}

#[test]
fn what_grants_cannot_cover_becomes_overdraft() {
    play(
        "charge j1 4 images => charged -4
         = -4 overdraft 4 overdrawn
         charge j2 4 images => charged -4
         = -8 overdraft 8 overdrawn",
    );
}

#[test]
fn whatever_comes_in_repays_overdraft_at_once_out_of_those_very_credits() {
    let book = play(
        "charge j1 24 images         => charged -24
         topup t1 1                  => granted +10 topup:t1(+10=10); overdraft_repaid 10 topup:t1(-10=0)
         = -14 overdraft 14 overdrawn | topup:t1 0
         adjust a1 4                 => adjusted +4 adjustment:a1(+4=4); overdraft_repaid 4 adjustment:a1(-4=0)
         = -10 overdraft 10 overdrawn | adjustment:a1 0 | topup:t1 0
         topup t2 1                  => granted +10 topup:t2(+10=10); overdraft_repaid 10 topup:t2(-10=0)
         = 0 overdraft 0 overdrawn | adjustment:a1 0 | topup:t1 0 | topup:t2 0
         charge j2 50 images         => charged -50
         contract c1 lite 2026-11-01 => contract_started lite; granted +200 plan:c1:0(+200=200); overdraft_repaid 50 plan:c1:0(-50=150)
         = 150 overdraft 0 ok | plan:c1:0 150 | adjustment:a1 0 | topup:t1 0 | topup:t2 0
         topup t3 1                  => granted +10 topup:t3(+10=10)",
    );
    let repaid: Vec<(String, i64)> =
        book.wallet.grants.iter().map(|grant| (book.wallet.grant_id(grant).into(), grant.repaid)).collect();
    let expected =
        [("plan:c1:0", 50), ("adjustment:a1", 4), ("topup:t1", 10), ("topup:t2", 10), ("topup:t3", 0)];
    assert_eq!(repaid, expected.map(|(id, repaid)| (id.to_owned(), repaid)));
}

#[test]
fn a_debit_repays_nothing_and_an_invalid_grant_neither() {
    play(
        "charge j1 5 images                      => charged -5
         adjust a1 -5                            => adjusted -5
         adjust a2 10 expires=11-03T10:15:30     => adjusted +10 adjustment:a2(+10=10)
         = 0 overdraft 10 overdrawn | adjustment:a2 10
         adjust a3 10 expires=11-03T10:15:30.001 => adjusted +10 adjustment:a3(+10=10); overdraft_repaid 10 adjustment:a3(-10=0)
         = 10 overdraft 0 ok | adjustment:a2 10 | adjustment:a3 0",
    );
}
