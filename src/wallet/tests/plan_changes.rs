//! Plan changes: a month is worth the greatest allocation of any plan in force during it, and whenever that rises for a
//! month already granted, the difference is granted.

use super::*;

#[test]
fn a_better_plan_grants_the_difference_at_once() {
    let book = play(
        "contract c1 lite 2026-09-15 at=09-15 => contract_started lite; granted +200 plan:c1:0(+200=200)
         charge j1 150 images at=09-16        => charged -150 plan:c1:0(-150=50)
         change c1 scale at=09-20             => contract_changed scale; granted +3100 plan:c1:0+5(+3100=3100)
         = 3150 overdraft 0 ok | plan:c1:0 50 | plan:c1:0+5 3100
         tick at=10-14T23:59:59.999           =>
         tick at=10-15                        => granted +3300 plan:c1:1(+3300=3300)",
    );
    let difference = &book.wallet.grants[1];
    assert_eq!((difference.granted_at, difference.expires_at), (when("09-20"), Some(when("2027-09-15"))));
}

/// As asked; without a time from the event's on; no further back than the month under way.
#[test]
fn a_change_records_which_plan_was_asked_for_and_from_when_on() {
    let mut book = play(
        "contract c1 lite 2026-09-15 at=09-15 => contract_started lite; granted +200 plan:c1:0(+200=200)",
    );
    for (line, asked) in [
        ("change c1 scale from=12-20 at=09-20", Some(("scale", "12-20"))),
        ("change c1 capped at=09-21", Some(("capped", "09-21"))),
        ("change c1 strict from=09-01 at=09-22", Some(("strict", "09-15"))),
        ("renew c1 plan=scale at=09-23", None),
        ("cancel c1 at=09-24", None),
    ] {
        let records = book.apply(&book::parse(line)).unwrap();
        let record: LedgerRecord<'_> = serde_json::from_str(&records[0]).unwrap();
        let terms = record.entries[0].contract.as_ref().unwrap();
        let recorded = terms.asked_plan.as_ref().map(|span| (&*span.plan, span.from));
        assert_eq!(recorded, asked.map(|(plan, from)| (plan, when(from))), "{line}");
    }
}

#[test]
fn the_difference_repays_overdraft() {
    play(
        "contract c1 lite 2026-09-15 at=09-15 => contract_started lite; granted +200 plan:c1:0(+200=200)
         charge j1 250 images at=09-16        => charged -250 plan:c1:0(-200=0)
         change c1 scale at=09-20             => contract_changed scale; granted +3100 plan:c1:0+5(+3100=3100); overdraft_repaid 50 plan:c1:0+5(-50=3050)
         = 3050 overdraft 0 ok | plan:c1:0 0 | plan:c1:0+5 3050",
    );
}

#[test]
fn a_lesser_plan_counts_from_the_next_month_and_nothing_is_clawed_back() {
    play(
        "contract c1 scale 2026-09-15 at=09-15 => contract_started scale; granted +3300 plan:c1:0(+3300=3300)
         change c1 lite at=09-20               => contract_changed lite
         = 3300 overdraft 0 ok | plan:c1:0 3300
         tick at=10-15                         => granted +200 plan:c1:1(+200=200)
         = 3500 overdraft 0 ok | plan:c1:0 3300 | plan:c1:1 200",
    );
}

#[test]
fn up_down_up_pays_the_difference_once() {
    play(
        "contract c1 strict 2026-09-15 at=09-15 => contract_started strict; granted +100 plan:c1:0(+100=100)
         change c1 lite at=09-20                => contract_changed lite; granted +100 plan:c1:0+4(+100=100)
         change c1 strict at=09-21              => contract_changed strict
         change c1 lite at=09-22                => contract_changed lite
         # Only what scale is worth more than the best so far.
         change c1 scale at=09-23               => contract_changed scale; granted +3100 plan:c1:0+8(+3100=3100)
         change c1 strict at=09-24              => contract_changed strict
         change c1 scale at=09-25               => contract_changed scale
         = 3300 overdraft 0 ok | plan:c1:0 100 | plan:c1:0+4 100 | plan:c1:0+8 3100
         tick at=10-15                          => granted +3300 plan:c1:1(+3300=3300)",
    );
}

#[test]
fn down_and_up_again_inside_a_month_grants_nothing_but_in_the_next_month_the_difference() {
    play(
        "contract c1 scale 2026-09-15 at=09-15 => contract_started scale; granted +3300 plan:c1:0(+3300=3300)
         change c1 lite at=09-20               => contract_changed lite
         change c1 scale at=09-21              => contract_changed scale
         change c1 lite at=09-22               => contract_changed lite
         tick at=10-15                         => granted +200 plan:c1:1(+200=200)
         change c1 scale at=10-20              => contract_changed scale; granted +3100 plan:c1:1+8(+3100=3100)",
    );
}

#[test]
fn a_booked_change_comes_into_force_at_its_instant() {
    play(
        "contract c1 lite 2026-09-15 at=09-15  => contract_started lite; granted +200 plan:c1:0(+200=200)
         change c1 scale from=10-01 at=09-20   => contract_changed lite
         tick at=09-30T23:59:59.999            =>
         = 200 overdraft 0 ok | plan:c1:0 200
         tick at=10-01                         => granted +3100 plan:c1:0+4(+3100=3100)
         tick at=10-15                         => granted +3300 plan:c1:1(+3300=3300)",
    );
    // Inside a month that is not granted yet it does not raise the allocation at the month's start.
    play(
        "contract c1 lite 2026-09-15 at=09-15  => contract_started lite; granted +200 plan:c1:0(+200=200)
         change c1 scale from=10-20 at=09-20   => contract_changed lite
         tick at=10-15                         => granted +200 plan:c1:1(+200=200)
         tick at=10-19T23:59:59.999            =>
         tick at=10-20                         => granted +3100 plan:c1:1+5(+3100=3100)",
    );
}

#[test]
fn a_change_at_an_anniversary_counts_for_that_month() {
    const STARTED: &str =
        "contract c1 lite 2026-09-15 at=09-15 => contract_started lite; granted +200 plan:c1:0(+200=200)";
    for (from, due) in [
        ("10-14T23:59:59.999", "granted +3100 plan:c1:0+4(+3100=3100); granted +3300 plan:c1:1(+3300=3300)"),
        ("10-15", "granted +3300 plan:c1:1(+3300=3300)"),
        ("10-15T00:00:00.001", "granted +200 plan:c1:1(+200=200); granted +3100 plan:c1:1+5(+3100=3100)"),
    ] {
        let mut book = play(STARTED);
        book.enter(&book::parse(&format!("change c1 scale from={from} at=09-20")));
        assert_eq!(book.enter(&book::parse("tick at=10-16")), due, "{from}");
    }
}

#[test]
fn a_lesser_plan_at_an_anniversary_counts_for_that_month() {
    const STARTED: &str = "contract c1 scale 2026-09-15 at=09-15 => contract_started scale; granted +3300 plan:c1:0(+3300=3300)";
    for (from, due) in [
        ("10-14T23:59:59.999", "granted +200 plan:c1:1(+200=200)"),
        ("10-15", "granted +200 plan:c1:1(+200=200)"),
        ("10-15T00:00:00.001", "granted +3300 plan:c1:1(+3300=3300)"),
    ] {
        let mut book = play(STARTED);
        book.enter(&book::parse(&format!("change c1 lite from={from} at=09-20")));
        assert_eq!(book.enter(&book::parse("tick at=10-16")), due, "{from}");
    }
}

#[test]
fn a_change_that_reaches_back_to_an_anniversary_already_granted_grants_the_difference() {
    let book = play(
        "contract c1 lite 2026-09-15 at=09-15 => contract_started lite; granted +200 plan:c1:0(+200=200)
         tick at=10-20                        => granted +200 plan:c1:1(+200=200)
         change c1 scale from=10-15 at=10-18  => contract_changed scale; granted +3100 plan:c1:1+5(+3100=3100)",
    );
    assert_eq!(book.wallet.grants[2].granted_at, when("10-15"));
    play(
        "contract c1 scale 2026-09-15 at=09-15 => contract_started scale; granted +3300 plan:c1:0(+3300=3300)
         tick at=10-20                         => granted +3300 plan:c1:1(+3300=3300)
         change c1 lite from=10-15 at=10-18    => contract_changed lite
         = 6600 overdraft 0 ok | plan:c1:0 3300 | plan:c1:1 3300",
    );
}

/// "The month under way" is that of the event's own time.
#[test]
fn a_change_reaches_back_at_most_to_the_start_of_the_month_under_way() {
    for (from, at, plan, expected) in [
        // Into the month before: cut to the start of this one.
        ("09-16", "10-20", "scale", "contract_changed scale; granted +3100 plan:c1:1+5(+3100=3100)"),
        (
            "10-14T23:59:59.999",
            "10-20",
            "scale",
            "contract_changed scale; granted +3100 plan:c1:1+5(+3100=3100)",
        ),
        ("10-15", "10-15", "scale", "contract_changed scale; granted +3100 plan:c1:1+5(+3100=3100)"),
        // It happened in the month before, a millisecond before this one: both months are worth more.
        (
            "09-16",
            "10-14T23:59:59.999",
            "scale",
            "contract_changed scale; granted +3100 plan:c1:0+5(+3100=3100); granted +3100 plan:c1:1+6(+3100=3100)",
        ),
        (
            "09-01",
            "09-20",
            "scale",
            "contract_changed scale; granted +3100 plan:c1:0+5(+3100=3100); granted +3100 plan:c1:1+6(+3100=3100)",
        ),
    ] {
        let mut book = play(
            "contract c1 lite 2026-09-15 at=09-15 => contract_started lite; granted +200 plan:c1:0(+200=200)
             tick at=10-20                        => granted +200 plan:c1:1(+200=200)",
        );
        let came = book.enter(&book::parse(&format!("change c1 {plan} from={from} at={at}")));
        assert_eq!(came, expected, "from {from} at {at}");
    }
}

/// Each by the file in force when the plan comes into force in that month: lite grants 250 from 10 November on.
#[test]
fn a_late_change_gives_every_granted_month_that_it_touches_its_own_difference() {
    let book = play(
        "contract c1 lite 2026-09-15 at=09-15 => contract_started lite; granted +200 plan:c1:0(+200=200)
         tick at=11-20                        => granted +200 plan:c1:1(+200=200); granted +250 plan:c1:2(+250=250)
         change c1 scale at=10-01             => contract_changed scale; granted +3100 plan:c1:0+6(+3100=3100); granted +3100 plan:c1:1+7(+3100=3100); granted +3050 plan:c1:2+8(+3050=3050)",
    );
    let granted_at: Vec<_> = book.wallet.grants.iter().map(|grant| grant.granted_at).collect();
    let expected = ["09-15", "10-01", "10-15", "10-15", "11-15", "11-15"];
    assert_eq!(granted_at, expected.map(when), "no difference is older than its month");
    // And another plan was in force again before the last of them.
    play(
        "contract c1 lite 2026-09-15 at=09-15 => contract_started lite; granted +200 plan:c1:0(+200=200)
         change c1 lite from=11-15 at=09-16   => contract_changed lite
         tick at=11-20                        => granted +200 plan:c1:1(+200=200); granted +250 plan:c1:2(+250=250)
         change c1 scale at=10-01             => contract_changed scale; granted +3100 plan:c1:0+7(+3100=3100); granted +3100 plan:c1:1+8(+3100=3100)",
    );
}

#[test]
fn a_new_version_of_the_plans_alone_raises_no_month_but_a_change_in_it_sees_the_version() {
    play(
        "contract c1 lite 2026-11-01 at=11-01     => contract_started lite; granted +200 plan:c1:0(+200=200)
         tick at=11-12                            =>
         change c1 lite at=11-09T23:59:59.999     => contract_changed lite
         change c1 lite at=11-12                  => contract_changed lite; granted +50 plan:c1:0+5(+50=50)
         tick at=12-01                            => granted +250 plan:c1:1(+250=250)",
    );
    play(
        "contract c1 lite 2026-11-01 at=11-01     => contract_started lite; granted +200 plan:c1:0(+200=200)
         change c1 lite from=11-10 at=11-05       => contract_changed lite
         tick at=11-09T23:59:59.999               =>
         tick at=11-10                            => granted +50 plan:c1:0+4(+50=50)",
    );
}

#[test]
fn of_two_changes_for_one_instant_the_later_one_is_the_plan() {
    // The first was in force for no time.
    play(
        "contract c1 lite 2026-09-15 at=09-15 => contract_started lite; granted +200 plan:c1:0(+200=200)
         change c1 scale from=10-01 at=09-20  => contract_changed lite
         change c1 capped from=10-01 at=09-21 => contract_changed lite
         tick at=10-15                        => granted +100 plan:c1:1(+100=100)",
    );
    // What it brought already stays.
    play(
        "contract c1 lite 2026-09-15 at=09-15 => contract_started lite; granted +200 plan:c1:0(+200=200)
         change c1 scale at=09-20             => contract_changed scale; granted +3100 plan:c1:0+4(+3100=3100)
         change c1 capped at=09-20            => contract_changed capped
         = 3300 overdraft 0 ok | plan:c1:0 200 | plan:c1:0+4 3100
         tick at=10-15                        => granted +100 plan:c1:1(+100=100)",
    );
}

#[test]
fn a_change_before_the_start_counts_from_the_start() {
    for from in ["11-05", "12-01"] {
        let mut book = play("contract c1 lite 2026-12-01 => contract_started lite");
        let came = book.enter(&book::parse(&format!("change c1 scale from={from}")));
        assert_eq!(came, "contract_changed scale", "it is the plan of the first month");
        book.play(
            "tick at=11-30T23:59:59.999 =>
             tick at=12-01              => granted +3300 plan:c1:0(+3300=3300)",
        );
    }
}

#[test]
fn a_change_that_happened_before_the_end_is_accepted_even_after_it() {
    play(
        "contract c1 lite 2026-09-15 months=1 at=09-15 => contract_started lite; granted +200 plan:c1:0(+200=200)
         tick at=10-20                                 => contract_ended lite; expired -200 plan:c1:0(-200=0)
         change c1 scale at=10-15                      => ! no_contract
         change c1 scale at=10-15T00:00:00.001         => ! no_contract
         change c1 scale at=10-14T23:59:59.999         => contract_changed scale; granted +3100 plan:c1:0+9(+3100=3100); expired -3100 plan:c1:0+9(-3100=0)
         # Its end is not posted twice.
         = 0 overdraft 0 exhausted | plan:c1:0 0 | plan:c1:0+9 0",
    );
}

#[test]
fn an_unknown_plan_or_contract_cannot_be_changed_to() {
    play(
        "contract c1 lite 2026-09-15 at=09-15 => contract_started lite; granted +200 plan:c1:0(+200=200)
         change c1 gigantic at=09-20          => ! unknown_plan
         change c2 gigantic at=09-20          => ! unknown_plan
         change c2 scale at=09-20             => ! no_contract
         # A plan of the version in force at the event's time.
         change c1 old from=11-12 at=11-09    => contract_changed lite; granted +200 plan:c1:1(+200=200)
         change c1 old at=11-10               => ! unknown_plan",
    );
}

#[test]
fn plan_changes_of_a_contract_are_bounded_and_old_ones_make_room() {
    let mut book = play(
        "contract c1 lite 2026-01-01 months=24 at=2026-01-01 => contract_started lite; granted +200 plan:c1:0(+200=200)",
    );
    // With the plan of its start that is a hundred.
    for minute in 1..100 {
        let line =
            format!("change c1 lite from=2026-01-02T{:02}:{:02} at=2026-01-01", minute / 60, minute % 60);
        assert_eq!(book.enter(&book::parse(&line)), "contract_changed lite");
    }
    book.play(
        "change c1 lite from=2026-01-20 at=2026-01-03   => ! bad_value
         # Another one for the same instant takes no room.
         change c1 scale from=2026-01-02T00:01 at=2026-01-01T12:00 => contract_changed lite",
    );
    // Within the horizon and two months more they may still be asked for; then they are let go of.
    let mut later = play(
        "contract c1 lite 2026-01-01 months=24 at=2026-01-01 => contract_started lite; granted +200 plan:c1:0(+200=200)",
    );
    for minute in 1..100 {
        later.enter(&book::parse(&format!(
            "change c1 lite from=2026-01-02T{:02}:{:02} at=2026-01-01",
            minute / 60,
            minute % 60
        )));
    }
    later.enter(&book::parse("tick at=2026-05-15"));
    assert_eq!(
        later.enter(&book::parse("change c1 scale at=2026-05-15")),
        "contract_changed scale; granted +3100 plan:c1:4+107(+3100=3100)"
    );
    assert_eq!(later.wallet.contracts[0].plans.len(), 2);
}

/// The horizon of 35 days and 62 more before 15 May begin on 7 February.
#[test]
fn only_plans_that_ended_before_the_horizon_and_two_months_make_room_and_only_where_it_is_needed() {
    let mut book = play(
        "contract c1 lite 2026-01-01 months=24 at=2026-01-01 => contract_started lite; granted +200 plan:c1:0(+200=200)",
    );
    let early = (1..=60).map(|minute| format!("2026-01-02T{:02}:{:02}", minute / 60, minute % 60));
    let bound = ["2026-02-07".to_owned(), "2026-02-07T00:00:00.001".to_owned()];
    let late = (1..=36).map(|minute| format!("2026-03-01T00:{minute:02}"));
    for from in early.chain(bound).chain(late) {
        let came = book.enter(&book::parse(&format!("change c1 lite from={from} at=2026-01-01")));
        assert_eq!(came, "contract_changed lite");
    }
    book.enter(&book::parse("tick at=2026-05-15"));
    let mut kept = |from: &str| {
        book.enter(&book::parse(&format!("change c1 lite from={from} at=2026-05-15")));
        let plans = &book.wallet.contracts[0].plans;
        (plans.len(), plans[0].from)
    };
    assert_eq!(kept("2026-05-16"), (100, when("2026-01-01")), "that many are allowed");
    assert_eq!(kept("2026-05-17"), (40, when("2026-02-07")));
}
