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
        (Overdrawn, 0, 0, 200, Exhausted),
        (Overdrawn, 1, 1, 200, Critical),
        (Overdrawn, 41, 41, 200, Fine),
        // What is held is not available; overdrawn asks for the balance alone.
        (Fine, 100, 40, 200, Low),
        (Fine, 100, 0, 200, Exhausted),
        (Fine, 100, -5, 200, Exhausted),
        (Overdrawn, 5, -5, 200, Exhausted),
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
         # Measured against the term that the clock is in: it is over.
         charge j5 1 images clock=2026-12-01 => charged -1 plan:c1:0(-1=538)
         = 659 overdraft 0 ok | plan:c1:0 538 | adjustment:a1 0 | topup:t1 111 | topup:t2 10",
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
