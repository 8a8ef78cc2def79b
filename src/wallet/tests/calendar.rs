//! A contract's months and terms: counted from its first instant, for ever, clipped to the length of the month.

use smallvec::smallvec;

use super::*;

/// A contract of such terms, as it stands before its first month is granted.
fn contract(starts_at: &str, terms: &[u32]) -> Contract {
    let starts_at = when(starts_at);
    let mut contract = Contract {
        contract_id: "c1".into(),
        starts_at,
        ends_at: starts_at,
        terms: terms.into(),
        plans: smallvec![PlanSpan { from: starts_at, plan: "lite".into() }],
        granted: Default::default(),
        is_changed: false,
        is_cancelled: false,
        is_ended: false,
        expiry_warned: None,
    };
    contract.ends_at = contract.terms_end();
    contract
}

#[test]
fn a_month_begins_on_the_first_ones_day_clipped_to_its_length() {
    for (starts_at, months) in [
        ("2026-01-28", &[(1, "2026-02-28"), (2, "2026-03-28"), (25, "2028-02-28")][..]),
        ("2026-01-29", &[(1, "2026-02-28"), (2, "2026-03-29"), (13, "2027-02-28"), (25, "2028-02-29")]),
        ("2026-01-30", &[(1, "2026-02-28"), (2, "2026-03-30"), (13, "2027-02-28"), (25, "2028-02-29")]),
        (
            "2026-01-31",
            &[
                (0, "2026-01-31"),
                (1, "2026-02-28"),
                (2, "2026-03-31"),
                (3, "2026-04-30"),
                (11, "2026-12-31"),
                (12, "2027-01-31"),
                (13, "2027-02-28"),
                (25, "2028-02-29"),
                (26, "2028-03-31"),
                (120, "2036-01-31"),
            ],
        ),
        ("2026-12-31", &[(1, "2027-01-31"), (2, "2027-02-28"), (3, "2027-03-31")]),
        // The leap day comes back in leap years only; 2100 is none.
        ("2028-02-29", &[(1, "2028-03-29"), (12, "2029-02-28"), (13, "2029-03-29"), (48, "2032-02-29")]),
        ("2096-02-29", &[(48, "2100-02-28"), (49, "2100-03-29"), (96, "2104-02-29")]),
        ("2024-02-29", &[(120, "2034-02-28")]),
        // The time of day is kept.
        ("2026-01-31T23:59:59.999", &[(1, "2026-02-28T23:59:59.999"), (2, "2026-03-31T23:59:59.999")]),
        ("2026-10-25T01:30", &[(1, "2026-11-25T01:30"), (5, "2027-03-25T01:30")]),
    ] {
        let contract = contract(starts_at, &[12]);
        for (month, expected) in months {
            assert_eq!(contract.month_start(*month), when(expected), "month {month} from {starts_at}");
        }
    }
}

#[test]
fn a_month_lasts_until_the_millisecond_before_the_next() {
    for starts_at in [
        "2026-01-01",
        "2026-01-29",
        "2026-01-30",
        "2026-01-31",
        "2028-02-29T12:00",
        "2026-12-31T23:59:59.999",
    ] {
        let contract = contract(starts_at, &[120]);
        assert_eq!(contract.month_at(contract.starts_at.plus_millis(-1)), 0, "before the start");
        for month in 1..=120 {
            let start = contract.month_start(month);
            assert_eq!(contract.month_at(start.plus_millis(-1)), month - 1, "{start}");
            assert_eq!(contract.month_at(start), month, "{start}");
            assert_eq!(contract.month_at(start.plus_millis(1)), month, "{start}");
        }
    }
}

#[test]
fn a_contract_covers_its_first_instant_and_not_its_end() {
    for (months, end) in [(1, "2026-02-28"), (2, "2026-03-31"), (12, "2027-01-31"), (120, "2036-01-31")] {
        let contract = contract("2026-01-31", &[months]);
        assert_eq!(contract.ends_at, when(end));
        for (at, is_covered) in [
            (contract.starts_at.plus_millis(-1), false),
            (contract.starts_at, true),
            (contract.starts_at.plus_millis(1), true),
            (contract.ends_at.plus_millis(-1), true),
            (contract.ends_at, false),
            (contract.ends_at.plus_millis(1), false),
        ] {
            assert_eq!(contract.covers(at), is_covered, "{months} months at {at}");
        }
    }
}

#[test]
fn a_term_begins_where_the_one_before_it_ends() {
    let contract = contract("2026-01-31", &[1, 1, 12]);
    for (at, starts_at, ends_at, months) in [
        ("2025-06-01", "2026-01-31", "2026-02-28", 1),
        ("2026-01-31", "2026-01-31", "2026-02-28", 1),
        ("2026-02-27T23:59:59.999", "2026-01-31", "2026-02-28", 1),
        ("2026-02-28", "2026-02-28", "2026-03-31", 1),
        ("2026-02-28T00:00:00.001", "2026-02-28", "2026-03-31", 1),
        ("2026-03-30T23:59:59.999", "2026-02-28", "2026-03-31", 1),
        ("2026-03-31", "2026-03-31", "2027-03-31", 12),
        ("2027-03-30T23:59:59.999", "2026-03-31", "2027-03-31", 12),
        // After its end: the last one.
        ("2027-03-31", "2026-03-31", "2027-03-31", 12),
        ("2030-01-01", "2026-03-31", "2027-03-31", 12),
    ] {
        let expected = Term { starts_at: when(starts_at), ends_at: when(ends_at), months };
        assert_eq!(contract.term_at(when(at)), expected, "{at}");
    }
}

#[test]
fn a_cancelled_contract_ends_its_last_term_early_and_has_none_after_it() {
    let mut contract = contract("2026-01-31", &[1, 12]);
    contract.ends_at = when("2026-02-10");
    let first = Term { starts_at: when("2026-01-31"), ends_at: when("2026-02-10"), months: 1 };
    for at in ["2026-01-31", "2026-02-10", "2026-02-28", "2026-05-01"] {
        assert_eq!(contract.term_at(when(at)), first, "{at}");
    }
    contract.ends_at = when("2026-02-28");
    assert_eq!(contract.term_at(when("2026-02-28")).ends_at, when("2026-02-28"));
    assert_eq!(contract.month_expires_at(1), when("2026-02-28"));
}

/// Goal: the calendar is kept by what is posted. Method: a contract of the 31st, a millisecond before and at each bound.
#[test]
fn months_are_granted_on_their_first_instant_and_expire_with_their_term() {
    play(
        "contract c1 lite 2027-01-31 months=3 at=2027-01-31 => contract_started lite; granted +250 plan:c1:0(+250=250)
         tick at=2027-02-27T23:59:59.999 =>
         tick at=2027-02-28              => granted +250 plan:c1:1(+250=250)
         tick at=2027-03-30T23:59:59.999 =>
         tick at=2027-03-31              => granted +250 plan:c1:2(+250=250)
         = 750 overdraft 0 ok | plan:c1:0 250 | plan:c1:1 250 | plan:c1:2 250
         tick at=2027-04-29T23:59:59.999 =>
         tick at=2027-04-30              => contract_ended lite
         tick at=2027-04-30T00:59:59.999 =>
         tick at=2027-04-30T01:00        => expired -250 plan:c1:0(-250=0); expired -250 plan:c1:1(-250=0); expired -250 plan:c1:2(-250=0)
         = 0 overdraft 0 exhausted | plan:c1:0 0 | plan:c1:1 0 | plan:c1:2 0",
    );
    play(
        "contract c1 lite 2028-01-30T12:30 months=2 at=2028-01-30T12:30 => contract_started lite; granted +250 plan:c1:0(+250=250)
         tick at=2028-02-29T12:29:59.999 =>
         tick at=2028-02-29T12:30        => granted +250 plan:c1:1(+250=250)
         tick at=2028-03-30T12:29:59.999 =>
         tick at=2028-03-30T12:30        => contract_ended lite",
    );
}

#[test]
fn the_first_day_is_the_anchor_through_renewals() {
    play(
        "contract c1 lite 2027-01-31 months=1 at=2027-01-31 => contract_started lite; granted +250 plan:c1:0(+250=250)
         renew c1 at=2027-02-01          => contract_renewed lite
         tick at=2027-02-27T23:59:59.999 =>
         tick at=2027-02-28              => granted +250 plan:c1:1(+250=250)
         renew c1 at=2027-03-01          => contract_renewed lite; expired -250 plan:c1:0(-250=0)
         # Not the 28th.
         tick at=2027-03-30T23:59:59.999 =>
         tick at=2027-03-31              => granted +250 plan:c1:2(+250=250)
         tick at=2027-03-31T01:00        => expired -250 plan:c1:1(-250=0)
         tick at=2027-04-29T23:59:59.999 =>
         tick at=2027-04-30              => contract_ended lite",
    );
}

#[test]
fn the_longest_term_grants_every_one_of_its_months() {
    let mut book = play(
        "contract c1 lite 2027-01-31 months=120 at=2027-01-31 => contract_started lite; granted +250 plan:c1:0(+250=250)",
    );
    let months = book.enter(&book::parse("tick at=2037-01-30T23:59:59.999"));
    assert_eq!(months.matches("granted +250").count(), 119);
    assert_eq!(
        book.wallet.balance(),
        120 * 250,
        "what is unused carries into the next month, inside the term"
    );
    assert_eq!(book.enter(&book::parse("tick at=2037-01-31")), "contract_ended lite");
    let expiries = book.enter(&book::parse("tick at=2037-01-31T01:00"));
    assert_eq!(expiries.matches("expired -250").count(), 120);
    assert_eq!(book.wallet.balance(), 0);
}
