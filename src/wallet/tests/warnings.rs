//! What a wallet is warned of: when, once, and again.

use super::*;

/// 60 credits a day. With 179 left after three days it is short of three days at the next midnight, not before.
#[test]
fn runway_is_warned_of_at_the_first_midnight_with_which_it_is_short() {
    play_warned(
        "topup t1 100 at=11-01T08:00                       => granted +555 topup:t1(+555=555)
         charge j1 198 images at=11-01T08:00               => charged -198 topup:t1(-198=357)
         # One day of 198: 357 of 594.
         tick at=11-01T23:59:59.999                        =>
         tick at=11-02                                     => noted runway 357
         tick at=11-20                                     =>",
    );
    // Of exactly three days nothing is said; with one credit less it is.
    play_warned(
        "topup t1 1 at=11-01                               => granted +10 topup:t1(+10=10)
         topup t2 1 at=11-01                               => granted +10 topup:t2(+10=10)
         charge j1 5 images at=11-01                       => charged -5 topup:t1(-5=5)
         tick at=11-02                                     =>
         charge j2 1 images at=11-02                       => charged -1 topup:t1(-1=4); noted runway 14
         tick at=11-20                                     =>",
    );
}

/// The pace is that of whole days: of 7, or of as many as there are since the first charge.
#[test]
fn the_pace_is_that_of_the_whole_days_before() {
    let before = "topup t1 1 at=10-01                          => granted +10 topup:t1(+10=10)
         topup t2 1 at=10-01                               => granted +10 topup:t2(+10=10)
         topup t3 1 at=10-01                               => granted +10 topup:t3(+10=10)
         # 24 of a day's 6, then 21 of two days' 9.
         charge j1 6 images at=10-01                       => charged -6 topup:t1(-6=4)
         tick at=10-02                                     =>
         charge j2 3 images at=10-02                       => charged -3 topup:t1(-3=1)";
    // The charge of 7 days ago counts, that of 8 days ago does not.
    for (at, warns) in [("10-09", "; noted runway 1"), ("10-10", "")] {
        play_warned(&format!(
            "{before}
             adjust a1 -20 at={at} => adjusted -20 topup:t1(-1=0) topup:t2(-10=0) topup:t3(-9=1){warns}"
        ));
    }
}

#[test]
fn runway_is_armed_again_by_a_unit_with_which_it_lasts_and_by_no_midnight() {
    play_warned(
        "topup t1 1 at=10-01                               => granted +10 topup:t1(+10=10)
         charge j1 6 images at=10-01                       => charged -6 topup:t1(-6=4)
         tick at=10-02                                     => noted runway 4
         tick at=10-15                                     =>
         # Of the 7 days before nothing was charged.
         charge j2 1 images at=10-15                       => charged -1 topup:t1(-1=3)
         tick at=10-16                                     =>
         charge j3 2 images at=10-16                       => charged -2 topup:t1(-2=1)
         tick at=10-17                                     => noted runway 1
         adjust a1 1 at=10-17                              => adjusted +1 adjustment:a1(+1=1)
         charge j4 1 images at=10-17                       => charged -1 adjustment:a1(-1=0); noted runway 1",
    );
    play_warned(
        "topup t1 100 at=10-01                             => granted +555 topup:t1(+555=555)
         charge j1 500 images at=10-01                     => charged -500 topup:t1(-500=55)
         tick at=10-02                                     => noted runway 55
         adjust a1 100 at=10-02                            => adjusted +100 adjustment:a1(+100=100)
         adjust a2 1344 at=10-02                           => adjusted +1344 adjustment:a2(+1344=1344)
         # Exactly three days are enough.
         adjust a3 1 at=10-02                              => adjusted +1 adjustment:a3(+1=1)
         charge j2 1 images at=10-02                       => charged -1 adjustment:a1(-1=99); noted runway 1499",
    );
}

#[test]
fn nothing_available_is_the_levels_matter() {
    play_warned(
        "topup t1 1 at=11-01                               => granted +10 topup:t1(+10=10)
         charge j1 10 images at=11-01                      => charged -10 topup:t1(-10=0)
         tick at=11-05                                     =>
         adjust a1 3 at=11-05                              => adjusted +3 adjustment:a1(+3=3); noted runway 3",
    );
}

/// The charge of a day that is no longer counted is none; but for the first day it counts.
#[test]
fn a_late_charge_counts_in_its_own_day() {
    play_warned(
        "topup t1 100 at=11-09                             => granted +555 topup:t1(+555=555)
         charge j1 200 images at=11-01 clock=11-09         => charged -200 topup:t1(-200=355)
         tick at=11-09                                     =>
         # 7 days: 353 x 7 of 3 x 2.
         charge j2 2 images at=11-02 clock=11-09           => charged -2 topup:t1(-2=353)
         charge j3 350 images at=11-02 clock=11-09         => charged -350 topup:t1(-350=3); noted runway 3",
    );
}

/// However late it comes: the pace is that of 7 days then, not of the one since the first that came.
#[test]
fn the_earliest_charge_is_that_by_event_time() {
    play_warned(
        "topup t1 100 at=10-09                             => granted +555 topup:t1(+555=555)
         charge j1 300 images at=10-09                     => charged -300 topup:t1(-300=255)
         charge j2 1 images at=10-01 clock=10-09           => charged -1 topup:t1(-1=254)
         tick at=10-10                                     =>",
    );
}

/// Of today and seven days before, and no zeros in the end: a wallet at rest stays small.
#[test]
fn what_is_kept_of_charges_is_bounded() {
    let mut book = Book::new(&crate::config::Config::default());
    for (commands, charged) in [
        ("topup t1 100 at=11-08 => granted +555 topup:t1(+555=555)", None),
        ("charge j1 5 images at=11-08 => charged -5 topup:t1(-5=550)", Some(&[5][..])),
        ("charge j2 2 images at=10-31 clock=11-08 => charged -2 topup:t1(-2=548)", Some(&[5])),
        (
            "charge j3 3 images at=11-01 clock=11-08 => charged -3 topup:t1(-3=545)",
            Some(&[5, 0, 0, 0, 0, 0, 0, 3]),
        ),
        (
            "charge j4 4 images at=11-06 clock=11-08 => charged -4 topup:t1(-4=541)",
            Some(&[5, 0, 4, 0, 0, 0, 0, 3]),
        ),
        ("adjust a1 1 at=11-09 => adjusted +1 adjustment:a1(+1=1)", Some(&[0, 5, 0, 4])),
        ("adjust a2 1 at=11-15 => adjusted +1 adjustment:a2(+1=1)", Some(&[0, 0, 0, 0, 0, 0, 0, 5])),
        ("adjust a3 1 at=11-16 => adjusted +1 adjustment:a3(+1=1)", Some(&[])),
    ] {
        book.play(commands);
        assert_eq!(book.wallet.pace.as_ref().map(|pace| &*pace.charged), charged, "{commands}");
    }
    assert_eq!(book.wallet.pace.unwrap().first_day, when("10-31").day());
}

#[test]
fn nothing_available_arms_nothing() {
    play_warned(
        "topup t1 1 at=10-01                               => granted +10 topup:t1(+10=10)
         charge j1 6 images at=10-01                       => charged -6 topup:t1(-6=4)
         tick at=10-02                                     => noted runway 4
         # Of the 7 days before nothing was charged, and nothing is left.
         adjust a1 -4 at=10-15                             => adjusted -4 topup:t1(-4=0)
         charge j2 20 images at=10-15                      => charged -20
         adjust a2 21 at=10-16                             => adjusted +21 adjustment:a2(+21=21); overdraft_repaid 20 adjustment:a2(-20=1)",
    );
}

#[test]
fn expiring_credits_are_warned_of_30_7_and_1_days_before() {
    play_warned(
        "contract c1 lite 2026-10-01 months=2 at=10-01     => contract_started lite; granted +200 plan:c1:0(+200=200)
         tick at=10-31T23:59:59.999                        =>
         tick at=11-01                                     => granted +200 plan:c1:1(+200=200); noted expiring 400 in 30 days
         topup t1 1 at=11-02                               => granted +10 topup:t1(+10=10)
         charge j1 400 images at=11-02 model=gratis        => charged 0
         tick at=11-24                                     => noted expiring 400 in 7 days
         tick at=11-30                                     => noted expiring 400 in 1 days
         tick at=12-01                                     => contract_ended lite
         tick at=12-02                                     => expired -200 plan:c1:0(-200=0); expired -200 plan:c1:1(-200=0)",
    );
}

/// Of the warnings whose time has passed only the last is given; of nothing there is none.
#[test]
fn expiring_is_said_once_for_what_was_missed() {
    play_warned(
        "contract c1 lite 2026-10-01 months=1 at=10-26     => contract_started lite; granted +200 plan:c1:0(+200=200); noted expiring 200 in 7 days
         charge j1 200 images at=10-26                     => charged -200 plan:c1:0(-200=0)
         tick at=10-31                                     =>
         failed j1 at=10-31T12:00                          => reversed +200 plan:c1:0(+200=200); noted expiring 200 in 1 days
         tick at=12-01                                     => contract_ended lite; expired -200 plan:c1:0(-200=0)",
    );
}

#[test]
fn another_end_is_warned_of_anew_and_so_is_the_next_term() {
    play_warned(
        "contract c1 lite 2026-10-01 months=1 at=10-01     => contract_started lite; granted +200 plan:c1:0(+200=200)
         tick at=10-02                                     => noted expiring 200 in 30 days
         renew c1 at=10-03                                 => contract_renewed lite
         tick at=10-25                                     => noted expiring 200 in 7 days
         tick at=10-31                                     => noted expiring 200 in 1 days
         tick at=11-01                                     => granted +200 plan:c1:1(+200=200); noted expiring 200 in 30 days
         tick at=11-02                                     => expired -200 plan:c1:0(-200=0)
         cancel c1 from=11-20 at=11-05                     => contract_changed lite; noted expiring 200 in 30 days
         tick at=11-13                                     => noted expiring 200 in 7 days",
    );
}

#[test]
fn an_overdraft_is_warned_of_after_7_days_and_once() {
    play_warned(
        "charge j1 5 images at=11-01T10:00                 => charged -5
         charge j2 5 images at=11-03                       => charged -5
         tick at=11-08T09:59:59.999                        =>
         tick at=11-08T10:00                               => noted overdraft_unpaid 10
         tick at=12-20                                     =>
         adjust a1 10 at=12-20                             => adjusted +10 adjustment:a1(+10=10); overdraft_repaid 10 adjustment:a1(-10=0)
         charge j3 1 images at=12-21                       => charged -2
         tick at=12-28                                     => noted overdraft_unpaid 2",
    );
}

#[test]
fn a_hold_that_times_out_is_warned_of_and_others_are_not() {
    play_warned(
        "hold j1 4 images at=11-01                         => held +4 j1
         hold j2 4 images at=11-01 asset=a                 => held +4 j2/a
         charge j2 1 images at=11-01 asset=a               => released -4 j2/a; charged -1
         hold j3 4 images at=11-01                         => held +4 j3
         charge j3 1 images at=11-01 asset=a               => released -1 j3; charged -1
         tick at=11-02                                     => released -4 j1; noted hold_timed_out 4 j1; released -3 j3; noted hold_timed_out 3 j3",
    );
}

#[test]
fn at_one_instant_warnings_come_last_runway_then_expiring_by_contract_then_overdraft() {
    play_warned(
        "contract c1 lite 2026-10-09 months=1 at=10-09     => contract_started lite; granted +200 plan:c1:0(+200=200)
         tick at=10-12                                     => noted expiring 200 in 30 days
         charge j1 100 images at=11-01                     => charged -100 plan:c1:0(-100=100)
         hold j2 1 images at=11-01                         => held +1 j2
         tick at=11-02                                     => released -1 j2; noted hold_timed_out 1 j2; noted runway 100; noted expiring 100 in 7 days",
    );
}

/// A person's reason may read like a kind of warning.
#[test]
fn a_note_of_an_event_warns_of_nothing() {
    let book = play_warned("failed j1 => noted j1");
    let mut record: LedgerRecord<'_> = serde_json::from_str(&book.records[0]).unwrap();
    let entry = &mut record.entries[0];
    entry.reason = "runway".into();
    assert_eq!(entry.warning_kind(), None);
    entry.event_type = "".into();
    assert_eq!(entry.warning_kind(), Some(WarningKind::Runway));
}
