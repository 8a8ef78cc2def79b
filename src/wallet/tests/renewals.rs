//! Renewals: booked, late, doubled, with another plan or length.

use super::*;

#[test]
fn a_renewal_begins_a_term_where_the_old_one_ends() {
    play(
        "contract c1 lite 2026-11-15 months=1 at=11-15 => contract_started lite; granted +250 plan:c1:0(+250=250)
         renew c1 at=11-20                             => contract_renewed lite
         = 250 overdraft 0 ok | plan:c1:0 250
         tick at=12-14T23:59:59.999                    =>
         # No contract ended; what is left of the old term expires when late usage of it cannot come any more.
         tick at=12-15                                 => granted +250 plan:c1:1(+250=250)
         = 500 overdraft 0 ok | plan:c1:0 250 | plan:c1:1 250
         tick at=12-15T00:59:59.999                    =>
         tick at=12-15T01:00                           => expired -250 plan:c1:0(-250=0)
         tick at=2027-01-14T23:59:59.999               =>
         tick at=2027-01-15                            => contract_ended lite
         tick at=2027-01-15T01:00                      => expired -250 plan:c1:1(-250=0)",
    );
}

#[test]
fn topups_carry_across_a_renewal_and_pay_after_the_new_months() {
    play(
        "contract c1 old 2026-10-15 months=1 at=10-15 => contract_started old; granted +5 plan:c1:0(+5=5)
         topup t1 1 at=10-20                          => granted +10 topup:t1(+10=10)
         renew c1 plan=strict at=10-20                => contract_renewed old
         tick at=11-15T01:00                          => granted +100 plan:c1:1(+100=100); expired -5 plan:c1:0(-5=0)
         charge j1 51 images at=11-15T01:00           => charged -102 plan:c1:1(-100=0) topup:t1(-2=8)",
    );
}

#[test]
fn a_renewal_must_happen_before_the_end() {
    for (at, expected) in [
        ("12-14T23:59:59.999", "contract_renewed lite"),
        ("12-15", "! no_contract"),
        ("12-15T00:00:00.001", "! no_contract"),
    ] {
        let mut book = play(
            "contract c1 lite 2026-11-15 months=1 at=11-15 => contract_started lite; granted +250 plan:c1:0(+250=250)",
        );
        assert_eq!(book.enter(&book::parse(&format!("renew c1 at={at} clock=11-15"))), expected, "{at}");
    }
    play("renew c1 => ! no_contract");
}

#[test]
fn while_one_is_booked_another_is_a_conflict() {
    play(
        "contract c1 lite 2026-11-15 months=1 at=11-15  => contract_started lite; granted +250 plan:c1:0(+250=250)
         renew c1 at=11-20                              => contract_renewed lite
         renew c1 at=11-20                              => ! contract_conflict
         renew c1 plan=scale months=3 at=12-01          => ! contract_conflict
         renew c1 at=12-14T23:59:59.999                 => ! contract_conflict
         # By its own time it is in the new term, though the clock is not: it books the term after that.
         renew c1 at=12-15 clock=11-20                  => contract_renewed lite
         renew c1 at=12-15T00:00:00.001                 => ! contract_conflict
         tick at=2027-02-14T23:59:59.999                => granted +250 plan:c1:1(+250=250); expired -250 plan:c1:0(-250=0); granted +250 plan:c1:2(+250=250); expired -250 plan:c1:1(-250=0)
         tick at=2027-02-15                             => contract_ended lite",
    );
}

#[test]
fn a_late_renewal_that_happened_in_time_restores_the_contract_from_the_seam() {
    let book = play(
        "contract c1 lite 2026-11-15 months=1 at=11-15 => contract_started lite; granted +250 plan:c1:0(+250=250)
         tick at=2027-01-20                            => contract_ended lite; expired -250 plan:c1:0(-250=0)
         charge j1 5 images at=2027-01-20              => charged -10
         # What expired stays expired; the months since the seam are granted at their own times.
         renew c1 months=3 at=12-14T23:59:59.999       => contract_renewed lite; granted +250 plan:c1:1(+250=250); overdraft_repaid 10 plan:c1:1(-10=240); granted +250 plan:c1:2(+250=250)
         = 490 overdraft 0 ok | plan:c1:0 0 | plan:c1:1 240 | plan:c1:2 250
         renew c1 at=12-14T23:59:59.999                => ! contract_conflict
         tick at=2027-02-15                            => granted +250 plan:c1:3(+250=250)
         # The end is posted again when it comes.
         tick at=2027-03-14T23:59:59.999               =>
         tick at=2027-03-15                            => contract_ended lite",
    );
    // The first month's grant was let go of.
    let granted_at: Vec<_> = book.wallet.grants.iter().map(|grant| grant.granted_at).collect();
    assert_eq!(granted_at, [when("12-15"), when("2027-01-15"), when("2027-02-15")]);
}

/// The renewed term may be over already.
#[test]
fn a_renewal_later_than_its_own_term_grants_and_expires_it() {
    play(
        "contract c1 lite 2026-11-15 months=1 at=11-15 => contract_started lite; granted +250 plan:c1:0(+250=250)
         tick at=2027-01-20                            => contract_ended lite; expired -250 plan:c1:0(-250=0)
         renew c1 at=12-14                             => contract_renewed lite; granted +250 plan:c1:1(+250=250); contract_ended lite; expired -250 plan:c1:1(-250=0)
         = 0 overdraft 0 exhausted | plan:c1:0 0 | plan:c1:1 0",
    );
}

#[test]
fn a_renewal_may_bring_another_plan_and_length_and_the_next_keeps_them() {
    play(
        "contract c1 lite 2026-11-15 months=1 at=11-15 => contract_started lite; granted +250 plan:c1:0(+250=250)
         renew c1 plan=gigantic at=11-20               => ! unknown_plan
         renew c1 plan=scale months=2 at=11-20         => contract_renewed lite
         tick at=12-14T23:59:59.999                    =>
         tick at=12-15                                 => granted +3300 plan:c1:1(+3300=3300)
         tick at=2027-01-15                            => expired -250 plan:c1:0(-250=0); granted +3300 plan:c1:2(+3300=3300)
         renew c1 at=2027-01-20                        => contract_renewed scale
         tick at=2027-02-15                            => granted +3300 plan:c1:3(+3300=3300)
         tick at=2027-02-15T01:00                      => expired -3300 plan:c1:1(-3300=0); expired -3300 plan:c1:2(-3300=0)
         tick at=2027-03-15                            => granted +3300 plan:c1:4(+3300=3300)
         tick at=2027-04-14T23:59:59.999               =>
         tick at=2027-04-15                            => contract_ended scale",
    );
}

#[test]
fn without_another_plan_the_one_in_force_at_the_seam_goes_on() {
    play(
        "contract c1 lite 2026-11-15 months=1 at=11-15 => contract_started lite; granted +250 plan:c1:0(+250=250)
         renew c1 at=11-20                             => contract_renewed lite
         change c1 capped from=12-01 at=11-21          => contract_changed lite
         tick at=12-15                                 => granted +100 plan:c1:1(+100=100)",
    );
}

#[test]
fn a_change_booked_for_the_seam_goes_over_the_renewals_plan() {
    for commands in [
        ["change c1 capped from=12-15 at=11-20", "renew c1 plan=scale at=11-20"],
        ["renew c1 plan=scale at=11-20", "change c1 capped from=12-15 at=11-20"],
    ] {
        let mut book = play(
            "contract c1 lite 2026-11-15 months=1 at=11-15 => contract_started lite; granted +250 plan:c1:0(+250=250)",
        );
        for command in commands {
            book.enter(&book::parse(command));
        }
        book.play("tick at=12-15 => granted +100 plan:c1:1(+100=100)");
    }
    // A millisecond before the seam it raises the old term, and the renewal brings its own plan.
    play(
        "contract c1 lite 2026-11-15 months=1 at=11-15         => contract_started lite; granted +250 plan:c1:0(+250=250)
         renew c1 plan=capped at=11-20                         => contract_renewed lite
         change c1 scale from=2026-12-14T23:59:59.999 at=11-20 => contract_changed lite
         tick at=12-15                                         => granted +3050 plan:c1:0+8(+3050=3050); granted +100 plan:c1:1(+100=100)",
    );
}

#[test]
fn a_change_past_the_end_counts_only_if_a_renewal_carries_the_contract_there() {
    play(
        "contract c1 lite 2026-11-15 months=1 at=11-15 => contract_started lite; granted +250 plan:c1:0(+250=250)
         change c1 scale from=12-20 at=11-20           => contract_changed lite
         tick at=12-20                                 => contract_ended lite; expired -250 plan:c1:0(-250=0)
         renew c1 at=12-14                             => contract_renewed lite; granted +250 plan:c1:1(+250=250); granted +3050 plan:c1:1+12(+3050=3050)",
    );
}

#[test]
fn a_cancelled_contract_is_not_renewed() {
    play(
        "contract c1 lite 2026-11-15 months=1 at=11-15 => contract_started lite; granted +250 plan:c1:0(+250=250)
         cancel c1 at=11-20                            => contract_changed lite
         renew c1 at=11-21                             => ! no_contract
         # Not even one that happened before it.
         renew c1 at=11-19                             => ! no_contract",
    );
}

#[test]
fn a_renewed_term_may_not_overlap_another_contract_but_meet_it() {
    play(
        "contract c1 lite 2026-11-15 months=1 at=11-15          => contract_started lite; granted +250 plan:c1:0(+250=250)
         contract c2 lite 2027-01-15 months=1 at=11-15          => contract_started lite
         renew c1 months=2 at=11-20                             => ! contract_conflict
         renew c1 at=11-20                                      => contract_renewed lite
         # It is booked: its term is taken.
         contract c3 lite 12-15 months=1 at=11-20               => ! contract_conflict
         contract c3 lite 2027-01-14T23:59:59.999 months=1 at=11-20 => ! contract_conflict
         # The next one would meet c2.
         renew c1 at=12-20                                      => ! contract_conflict",
    );
}

#[test]
fn a_contract_that_has_not_begun_is_renewed_after_its_first_term() {
    play(
        "contract c1 lite 2026-12-15 months=1 at=11-15 => contract_started lite
         renew c1 plan=scale at=11-20                  => contract_renewed lite
         tick at=12-15                                 => granted +250 plan:c1:0(+250=250)
         tick at=2027-01-15                            => granted +3300 plan:c1:1(+3300=3300)
         tick at=2027-02-15                            => expired -250 plan:c1:0(-250=0); contract_ended scale",
    );
}

#[test]
fn a_term_beyond_the_calendar_is_refused() {
    play(
        "contract c1 lite 9998-01-01 months=1 at=9998-01-01 => contract_started lite; granted +250 plan:c1:0(+250=250)
         renew c1 months=120 at=9998-01-02                  => ! bad_value
         renew c1 months=1 at=9998-01-02                    => contract_renewed lite",
    );
}
