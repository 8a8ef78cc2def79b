//! How full a wallet is said to be, at each boundary and on the way back.

use super::*;
use crate::config::Config;
use Level::{Critical, Exhausted, Low, Ok as Fine, Overdrawn};

/// Thresholds 20 and 5 %, hysteresis 5 %.
#[test]
fn a_level_is_entered_at_its_threshold_and_left_above_the_hysteresis() {
    let rules = LevelRules::new(&Config::default().alerts);
    for (before, balance, available, base, after) in [
        // On the way down, base 200: low at 40, critical at 10.
        (Fine, 200, 200, 200, Fine),
        (Fine, 41, 41, 200, Fine),
        (Fine, 40, 40, 200, Low),
        (Low, 11, 11, 200, Low),
        (Low, 10, 10, 200, Critical),
        (Critical, 1, 1, 200, Critical),
        (Critical, 0, 0, 200, Exhausted),
        (Exhausted, -1, -1, 200, Overdrawn),
        (Fine, 10, 10, 200, Critical),
        (Fine, 0, 0, 200, Exhausted),
        (Fine, -1, -1, 200, Overdrawn),
        // On the way up: low is left above 50, critical above 20, the others above 0.
        (Low, 50, 50, 200, Low),
        (Low, 51, 51, 200, Fine),
        (Critical, 20, 20, 200, Critical),
        (Critical, 21, 21, 200, Low),
        (Critical, 41, 41, 200, Fine),
        (Critical, 51, 51, 200, Fine),
        (Exhausted, 1, 1, 200, Critical),
        (Exhausted, 11, 11, 200, Low),
        (Exhausted, 41, 41, 200, Fine),
        (Overdrawn, 0, 0, 200, Overdrawn),
        (Overdrawn, 1, 1, 200, Critical),
        (Overdrawn, 41, 41, 200, Fine),
        // What is held is not available; overdrawn asks for the balance alone.
        (Fine, 100, 40, 200, Low),
        (Fine, 100, 0, 200, Exhausted),
        (Fine, 100, -5, 200, Exhausted),
        (Overdrawn, 5, -5, 200, Overdrawn),
        // In integers: 20 % of 555 is 111, 5 % is 27.75.
        (Fine, 112, 112, 555, Fine),
        (Fine, 111, 111, 555, Low),
        (Low, 28, 28, 555, Low),
        (Low, 27, 27, 555, Critical),
        (Low, 138, 138, 555, Low),
        (Low, 139, 139, 555, Fine),
        // Without a base only nothing is little.
        (Fine, 1, 1, 0, Fine),
        (Low, 1, 1, 0, Fine),
        (Critical, 1, 1, 0, Fine),
        (Fine, 0, 0, 0, Exhausted),
        (Fine, i64::MAX, i64::MAX, i64::MAX, Fine),
        (Fine, i64::MAX / 5, i64::MAX / 5, i64::MAX, Low),
    ] {
        assert_eq!(
            rules.level(before, balance, available, base),
            after,
            "{before:?} {balance} {available} {base}"
        );
    }
}

#[test]
fn thresholds_are_configured() {
    let mut config = Config::default().alerts;
    (config.low_percent, config.critical_percent, config.hysteresis_percent) = (50, 10, 0);
    let rules = LevelRules::new(&config);
    for (before, available, after) in
        [(Fine, 51, Fine), (Fine, 50, Low), (Low, 51, Fine), (Low, 10, Critical), (Critical, 11, Low)]
    {
        assert_eq!(rules.level(before, available, available, 100), after, "{before:?} {available}");
    }
}

#[test]
fn the_base_is_the_plans_allocation_and_without_one_the_last_topup() {
    play(
        "adjust a1 1000              => adjusted +1000 adjustment:a1(+1000=1000)
         charge j1 999 images        => charged -999 adjustment:a1(-999=1)
         = 1 overdraft 0 ok | adjustment:a1 1
         topup t1 100                => granted +555 topup:t1(+555=555)
         charge j2 444 images        => charged -444 adjustment:a1(-1=0) topup:t1(-443=112)
         = 112 overdraft 0 ok | adjustment:a1 0 | topup:t1 112
         charge j3 1 images          => charged -1 topup:t1(-1=111)
         = 111 overdraft 0 low | adjustment:a1 0 | topup:t1 111
         # The last top-up is 10 now: 121 is plenty.
         topup t2 1                  => granted +10 topup:t2(+10=10)
         = 121 overdraft 0 ok | adjustment:a1 0 | topup:t1 111 | topup:t2 10
         # 20 % of 3300 is 660.
         contract c1 scale 2026-11-01 months=1 => contract_started scale; granted +3300 plan:c1:0(+3300=3300)
         charge j4 2761 images       => charged -2761 plan:c1:0(-2761=539)
         = 660 overdraft 0 low | plan:c1:0 539 | adjustment:a1 0 | topup:t1 111 | topup:t2 10
         # Its term is over: the last top-up is the base again.
         charge j5 1 images clock=2026-12-01 => charged -1 plan:c1:0(-1=538); contract_ended scale
         = 659 overdraft 0 ok | plan:c1:0 538 | adjustment:a1 0 | topup:t1 111 | topup:t2 10",
    );
}

/// Plan `early`: 100 credits, limit 10, low at 50 %, critical at 10 %; off sale from 10 November on.
#[test]
fn a_plan_keeps_its_allocation_thresholds_and_limit_for_its_contracts_when_it_is_off_sale() {
    play(
        "contract c1 early 2026-11-01 at=11-01 => contract_started early; granted +100 plan:c1:0(+100=100)
         charge j1 49 images at=11-01          => charged -49 plan:c1:0(-49=51)
         = 51 overdraft 0 ok | plan:c1:0 51
         charge j2 1 images at=11-01           => charged -1 plan:c1:0(-1=50)
         = 50 overdraft 0 low | plan:c1:0 50
         contract c2 early 2027-11-01 at=11-10 => ! unknown_plan
         # From the 10th on an image costs 2.
         charge j3 19 images at=11-10          => charged -38 plan:c1:0(-38=12)
         = 12 overdraft 0 low | plan:c1:0 12
         charge j4 1 images at=11-10           => charged -2 plan:c1:0(-2=10)
         = 10 overdraft 0 critical | plan:c1:0 10
         charge j5 10 images at=11-10          => charged -20 plan:c1:0(-10=0)
         charge j6 1 images at=11-10           => refused 2
         tick at=12-01                         => granted +100 plan:c1:1(+100=100); overdraft_repaid 10 plan:c1:1(-10=90)
         = 90 overdraft 0 ok | plan:c1:0 0 | plan:c1:1 90
         # Its own threshold goes over its plan's.
         limits low=90 at=12-01                => limits_changed
         = 90 overdraft 0 low | plan:c1:0 0 | plan:c1:1 90",
    );
}

#[test]
fn all_entries_of_an_event_carry_the_level_after_its_last() {
    let book = play(
        "charge j1 5 images => charged -5
         topup t1 100       => granted +555 topup:t1(+555=555); overdraft_repaid 5 topup:t1(-5=550)",
    );
    let record: LedgerRecord<'_> = serde_json::from_str(&book.records[1]).unwrap();
    assert_eq!(record.entries.iter().map(|entry| entry.level).collect::<Vec<_>>(), [Fine, Fine]);
}

#[test]
fn levels_are_named_and_ordered_from_best_to_worst() {
    let names = Level::ALL.map(Level::as_str);
    assert_eq!(names, ["ok", "low", "critical", "exhausted", "overdrawn"]);
    assert!(Level::ALL.is_sorted());
    for level in Level::ALL {
        assert_eq!(serde_json::to_string(&level).unwrap(), format!("\"{}\"", level.as_str()));
    }
}

#[test]
fn a_wallets_own_thresholds_go_over_the_configured_ones() {
    play(
        "contract c1 strict 2026-11-01  => contract_started strict; granted +100 plan:c1:0(+100=100)
         limits low=50 critical=30      => limits_changed
         charge j1 49 images            => charged -49 plan:c1:0(-49=51)
         = 51 overdraft 0 ok | plan:c1:0 51
         charge j2 1 images             => charged -1 plan:c1:0(-1=50)
         = 50 overdraft 0 low | plan:c1:0 50
         charge j3 20 images            => charged -20 plan:c1:0(-20=30)
         = 30 overdraft 0 critical | plan:c1:0 30
         # They count at once, with the hysteresis of 5 %: critical until 35 before, until 25 now.
         limits critical=20             => limits_changed
         = 30 overdraft 0 low | plan:c1:0 30
         limits low=25                  => limits_changed
         = 30 overdraft 0 low | plan:c1:0 30
         limits low=24                  => limits_changed
         = 30 overdraft 0 ok | plan:c1:0 30
         limits low=plan critical=plan  => limits_changed
         = 30 overdraft 0 ok | plan:c1:0 30
         charge j4 10 images            => charged -10 plan:c1:0(-10=20)
         = 20 overdraft 0 low | plan:c1:0 20",
    );
}

#[test]
fn low_and_critical_are_left_above_the_hysteresis() {
    play(
        "contract c1 strict 2026-11-01  => contract_started strict; granted +100 plan:c1:0(+100=100)
         charge j1 79 images            => charged -79 plan:c1:0(-79=21)
         = 21 overdraft 0 ok | plan:c1:0 21
         charge j2 1 images             => charged -1 plan:c1:0(-1=20)
         = 20 overdraft 0 low | plan:c1:0 20
         adjust a1 5                    => adjusted +5 adjustment:a1(+5=5)
         = 25 overdraft 0 low | plan:c1:0 20 | adjustment:a1 5
         adjust a2 1                    => adjusted +1 adjustment:a2(+1=1)
         = 26 overdraft 0 ok | plan:c1:0 20 | adjustment:a1 5 | adjustment:a2 1
         charge j3 20 images            => charged -20 plan:c1:0(-20=0)
         = 6 overdraft 0 low | plan:c1:0 0 | adjustment:a1 5 | adjustment:a2 1
         charge j4 1 images             => charged -1 adjustment:a1(-1=4)
         = 5 overdraft 0 critical | plan:c1:0 0 | adjustment:a1 4 | adjustment:a2 1
         adjust a3 5                    => adjusted +5 adjustment:a3(+5=5)
         = 10 overdraft 0 critical | plan:c1:0 0 | adjustment:a1 4 | adjustment:a2 1 | adjustment:a3 5
         adjust a4 1                    => adjusted +1 adjustment:a4(+1=1)
         = 11 overdraft 0 low | plan:c1:0 0 | adjustment:a1 4 | adjustment:a2 1 | adjustment:a3 5 | adjustment:a4 1
         charge j5 11 images            => charged -11 adjustment:a1(-4=0) adjustment:a2(-1=0) adjustment:a3(-5=0) adjustment:a4(-1=0)
         = 0 overdraft 0 exhausted | plan:c1:0 0 | adjustment:a1 0 | adjustment:a2 0 | adjustment:a3 0 | adjustment:a4 0
         # Exhausted is left above 0, for what fits then.
         adjust a5 7                    => adjusted +7 adjustment:a5(+7=7)
         = 7 overdraft 0 low | plan:c1:0 0 | adjustment:a1 0 | adjustment:a2 0 | adjustment:a3 0 | adjustment:a4 0 | adjustment:a5 7",
    );
}

#[test]
fn holds_lower_the_level_and_their_end_raises_it() {
    play(
        "contract c1 strict 2026-11-01  => contract_started strict; granted +100 plan:c1:0(+100=100)
         hold j1 80 images              => held +80 j1
         = 100 overdraft 0 held 80 low | plan:c1:0 100
         hold j2 30 images              => held +30 j2
         = 100 overdraft 0 held 110 exhausted | plan:c1:0 100
         cancelled j1                   => released -80 j1
         = 100 overdraft 0 held 30 ok | plan:c1:0 100
         tick at=11-04T10:15:30         => released -30 j2
         = 100 overdraft 0 ok | plan:c1:0 100",
    );
}

#[test]
fn overdrawn_is_left_above_0_only() {
    play(
        "charge j1 10 images  => charged -10
         = -10 overdraft 10 overdrawn
         topup t1 1           => granted +10 topup:t1(+10=10); overdraft_repaid 10 topup:t1(-10=0)
         = 0 overdraft 0 overdrawn | topup:t1 0
         adjust a1 5          => adjusted +5 adjustment:a1(+5=5)
         = 5 overdraft 0 ok | adjustment:a1 5 | topup:t1 0
         hold j2 5 images     => held +5 j2
         = 5 overdraft 0 held 5 exhausted | adjustment:a1 5 | topup:t1 0",
    );
}

/// At the latest event or due time that the wallet has met, whatever other wallets have.
#[test]
fn the_base_follows_the_plan_in_force() {
    play(
        "contract c1 strict 2026-10-15 months=2 at=10-15 => contract_started strict; granted +100 plan:c1:0(+100=100)
         topup t1 100 at=10-15                           => granted +555 topup:t1(+555=555)
         charge j1 600 images at=10-16                   => charged -600 plan:c1:0(-100=0) topup:t1(-500=55)
         = 55 overdraft 0 ok | plan:c1:0 0 | topup:t1 55
         # 20 % of 3300; the difference does not count, the plan does.
         change c1 scale from=11-01 at=10-16             => contract_changed strict
         = 55 overdraft 0 ok | plan:c1:0 0 | topup:t1 55
         tick at=11-01                                   => granted +3200 plan:c1:0+7(+3200=3200)
         charge j2 2595 images at=11-01                  => charged -2595 plan:c1:0+7(-2595=605)
         = 660 overdraft 0 low | plan:c1:0 0 | plan:c1:0+7 605 | topup:t1 55
         # A late event of the time before does not bring the old plan back.
         charge j3 1 images at=10-20                     => charged -1 plan:c1:0+7(-1=604)
         = 659 overdraft 0 low | plan:c1:0 0 | plan:c1:0+7 604 | topup:t1 55
         # At its end the last top-up is the base, 555: 659 are plenty.
         change c1 strict from=11-14 at=11-02            => contract_changed scale
         tick at=12-15                                   => granted +100 plan:c1:1(+100=100); contract_ended strict
         = 759 overdraft 0 ok | plan:c1:0+7 604 | plan:c1:1 100 | topup:t1 55
         tick at=12-15T01:00                             => expired -604 plan:c1:0+7(-604=0); expired -100 plan:c1:1(-100=0)
         = 55 overdraft 0 low | plan:c1:0+7 0 | plan:c1:1 0 | topup:t1 55",
    );
}

#[test]
fn the_last_top_up_is_the_one_that_arrived_last() {
    play(
        "topup t1 100 at=11-05 => granted +555 topup:t1(+555=555)
         topup t2 1 at=11-01   => granted +10 topup:t2(+10=10)
         charge j1 562 images  => charged -562 topup:t2(-10=0) topup:t1(-552=3)
         = 3 overdraft 0 ok | topup:t2 0 | topup:t1 3
         charge j2 1 images    => charged -1 topup:t1(-1=2)
         = 2 overdraft 0 low | topup:t2 0 | topup:t1 2",
    );
}

/// The level that each record says, without those of warnings.
fn levels(book: &Book) -> Vec<Level> {
    let level_of = |record: &String| {
        let record: LedgerRecord<'_> = serde_json::from_str(record).unwrap();
        record.entries.last().filter(|entry| entry.warning_kind().is_none()).map(|entry| entry.level)
    };
    book.records.iter().filter_map(level_of).collect()
}

/// Nobody is exhausted whose credits are due: the posting of the last of them sets the level.
#[test]
fn while_credits_are_due_the_level_stays_what_it_was() {
    for (table, expected) in [
        // A start now, one in the next instant, and one at which the clock is not yet.
        (
            "contract c1 lite 2026-11-03T10:15:30 => contract_started lite; granted +200 plan:c1:0(+200=200)",
            &[Fine, Fine][..],
        ),
        (
            "contract c1 lite 2026-11-03T10:15:30.001 => contract_started lite
             tick at=11-04                            => granted +200 plan:c1:0(+200=200)",
            &[Exhausted, Fine],
        ),
        (
            "contract c1 lite 11-04 at=11-04 clock=11-03 => contract_started lite
             tick at=11-04                               => granted +200 plan:c1:0(+200=200)",
            &[Fine, Fine],
        ),
        // Three months at once: the first leaves the overdraft, the second comes to low, the third to more.
        (
            "charge j1 190 images at=09-15             => charged -190
             contract c1 strict 2026-08-15 at=11-05    => contract_started strict; granted +100 plan:c1:0(+100=100); overdraft_repaid 100 plan:c1:0(-100=0); granted +100 plan:c1:1(+100=100); overdraft_repaid 90 plan:c1:1(-90=10); granted +100 plan:c1:2(+100=100)",
            &[Overdrawn, Overdrawn, Overdrawn, Overdrawn, Fine],
        ),
        // A month's turn: usage in its first instant, and in the one before.
        (
            "contract c1 strict 2026-10-05 at=10-05    => contract_started strict; granted +100 plan:c1:0(+100=100)
             charge j1 100 images at=11-05             => charged -100 plan:c1:0(-100=0); granted +100 plan:c1:1(+100=100)",
            &[Fine, Fine, Fine, Fine],
        ),
        (
            "contract c1 strict 2026-10-05 at=10-05    => contract_started strict; granted +100 plan:c1:0(+100=100)
             charge j1 100 images at=11-04T23:59:59.999 => charged -100 plan:c1:0(-100=0)
             tick at=11-05                             => granted +100 plan:c1:1(+100=100)",
            &[Fine, Fine, Exhausted, Fine],
        ),
        // What is due does not fill it: the level is that of what there is then.
        (
            "contract c1 strict 2026-10-05 at=10-05    => contract_started strict; granted +100 plan:c1:0(+100=100)
             adjust d1 -185 at=11-05                   => adjusted -185 plan:c1:0(-100=0); granted +100 plan:c1:1(+100=100); overdraft_repaid 85 plan:c1:1(-85=15)",
            &[Fine, Fine, Fine, Low],
        ),
        // A difference is waited for from its instant on, a change that brings nothing never.
        (
            "contract c1 strict 2026-10-15 at=10-15    => contract_started strict; granted +100 plan:c1:0(+100=100)
             change c1 scale from=11-01 at=10-16       => contract_changed strict
             charge j1 100 images at=11-01             => charged -100 plan:c1:0(-100=0); granted +3200 plan:c1:0+5(+3200=3200)",
            &[Fine, Fine, Fine, Fine, Fine],
        ),
        (
            "contract c1 strict 2026-10-15 at=10-15    => contract_started strict; granted +100 plan:c1:0(+100=100)
             change c1 scale from=11-01 at=10-16       => contract_changed strict
             charge j1 100 images at=10-31T23:59:59.999 => charged -100 plan:c1:0(-100=0)
             tick at=11-01                             => granted +3200 plan:c1:0+5(+3200=3200)",
            &[Fine, Fine, Fine, Exhausted, Fine],
        ),
        (
            "contract c1 lite 2026-10-15 at=10-15      => contract_started lite; granted +200 plan:c1:0(+200=200)
             change c1 strict from=11-01 at=10-16      => contract_changed lite
             charge j1 200 images at=11-01             => charged -200 plan:c1:0(-200=0)",
            &[Fine, Fine, Fine, Exhausted],
        ),
        // The next contract's first month, while the end of the one before is posted.
        (
            "contract c1 lite 2026-10-01 months=1 at=10-01 => contract_started lite; granted +200 plan:c1:0(+200=200)
             contract c2 lite 2026-11-01 at=10-02      => contract_started lite
             charge j1 150 images at=10-05             => charged -150 plan:c1:0(-150=50)
             charge j2 50 images at=11-01              => charged -50; contract_ended lite; granted +200 plan:c2:0(+200=200); overdraft_repaid 50 plan:c2:0(-50=150)",
            &[Fine, Fine, Fine, Fine, Fine, Fine, Fine],
        ),
        // A month before the first version of the plans is worth nothing: it is posted, and then nothing is due.
        (
            "contract c1 lite 2023-12-15 at=2024-01-05 => contract_started lite; granted +0 plan:c1:0(+0=0)
             tick at=2024-01-15                        => granted +200 plan:c1:1(+200=200)",
            &[Fine, Exhausted, Fine],
        ),
    ] {
        assert_eq!(levels(&play(table)), expected, "{table}");
    }
}
