//! Whatever order events arrive in, the balance is the same in the end.

use super::*;
use crate::config::Config;

/// All orders of `items`.
fn permutations<T: Clone>(items: &[T]) -> Vec<Vec<T>> {
    if items.is_empty() {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for place in 0..items.len() {
        let mut rest = items.to_vec();
        let first = rest.remove(place);
        for mut tail in permutations(&rest) {
            tail.insert(0, first.clone());
            all.push(tail);
        }
    }
    all
}

/// Balance, overdraft and what is held after each order of the commands.
fn outcomes(before: &str, commands: &[&str]) -> Vec<(i64, i64, i64)> {
    let mut outcomes = Vec::new();
    for order in permutations(commands) {
        let mut book = Book::new(&Config::default());
        if !before.is_empty() {
            book.enter(&book::parse(before));
        }
        for command in &order {
            let came = book.enter(&book::parse(command));
            assert!(!came.starts_with('!'), "{order:?}: {command} {came}");
        }
        outcomes.push((book.wallet.balance(), book.wallet.overdraft, book.wallet.held));
    }
    outcomes
}

fn all_are(outcomes: Vec<(i64, i64, i64)>, expected: (i64, i64, i64)) {
    assert!(!outcomes.is_empty());
    for outcome in outcomes {
        assert_eq!(outcome, expected);
    }
}

#[test]
fn a_job_that_completes_and_fails_nets_to_zero_in_any_order() {
    for ending in ["failed j1", "rejected j1", "refunded j1"] {
        // With enough credits, with too few, with none.
        for (before, balance) in [("topup t1 100", 555), ("topup t1 1", 10), ("", 0)] {
            // As large as requested, larger, smaller.
            for completed in ["charge j1 20 images", "charge j1 30 images", "charge j1 4 images"] {
                let outcomes = outcomes(before, &["hold j1 20 images", completed, ending]);
                assert_eq!(outcomes.len(), 6);
                for (after, overdraft, held) in outcomes {
                    assert_eq!((after, overdraft), (balance, 0), "{before} {completed} {ending}");
                    // Where the refund comes first the request may still hold, until its job ends; here it ended.
                    assert_eq!(held, 0, "{before} {completed} {ending}");
                }
            }
        }
    }
}

/// Clocks of two hosts are never compared to decide about money.
#[test]
fn the_times_of_a_completion_and_a_failure_do_not_matter() {
    for (completed, failed) in [("10:00", "11:00"), ("11:00", "10:00"), ("10:00", "10:00")] {
        let commands =
            [format!("charge j1 4 images at=11-03T{completed}"), format!("failed j1 at=11-03T{failed}")];
        all_are(outcomes("topup t1 1", &[&commands[0], &commands[1]]), (10, 0, 0));
    }
}

#[test]
fn a_cancellation_leaves_the_charge_in_any_order() {
    all_are(outcomes("topup t1 1", &["hold j1 4 images", "charge j1 4 images", "cancelled j1"]), (6, 0, 0));
    all_are(
        outcomes("topup t1 1", &["hold j1 4 images", "charge j1 4 images", "cancelled j1", "failed j1"]),
        (10, 0, 0),
    );
}

#[test]
fn the_assets_of_a_job_net_to_what_did_not_fail_in_any_order() {
    all_are(
        outcomes(
            "topup t1 1",
            &[
                "charge j1 1 images asset=a",
                "charge j1 2 images asset=b",
                "failed j1 asset=a",
                "hold j1 1 images asset=a",
            ],
        ),
        (8, 0, 0),
    );
    // A failure of the whole job speaks for all of them.
    all_are(
        outcomes(
            "topup t1 1",
            &[
                "charge j1 1 images asset=a",
                "charge j1 20 images asset=b",
                "failed j1",
                "refunded j1 asset=a",
            ],
        ),
        (10, 0, 0),
    );
}

#[test]
fn credits_may_come_before_or_after_the_usage_that_they_pay() {
    // 200 + 10 + 5 granted, 30 + 4 + 7 used: whichever comes first, each pays at its own time or repays.
    all_are(
        outcomes(
            "",
            &[
                "contract c1 lite 2026-11-01",
                "topup t1 1",
                "adjust a1 5",
                "charge j1 30 images",
                "charge j2 4 images",
                "adjust a2 -7",
            ],
        ),
        (174, 0, 0),
    );
    all_are(
        outcomes(
            "",
            &["contract c1 lite 2026-11-01", "topup t1 1", "charge j1 205 images", "charge j2 20 images"],
        ),
        (-15, 15, 0),
    );
}

#[test]
fn a_failure_between_topups_gives_all_back_in_any_order() {
    all_are(
        outcomes(
            "",
            &["topup t1 1", "charge j1 15 images", "adjust a1 3", "charge j2 6 images", "failed j1"],
        ),
        (7, 0, 0),
    );
}

#[test]
fn a_retry_is_a_new_job() {
    play(
        "topup t1 1         => granted +10 topup:t1(+10=10)
         failed j1          => noted j1
         charge j1 4 images => charged -4 topup:t1(-4=6); reversed +4 topup:t1(+4=10)
         charge j1 4 images => ! job_conflict
         charge j2 4 images => charged -4 topup:t1(-4=6)",
    );
}
