//! Cancellations: now, at an instant, at the end, before the start, twice, late.

use super::*;

#[test]
fn a_cancellation_without_an_instant_lets_the_term_run_out() {
    play(
        "contract c1 lite 2026-10-15 months=2 at=10-15 => contract_started lite; granted +200 plan:c1:0(+200=200)
         cancel c1 at=10-20                            => contract_changed lite
         tick at=11-15                                 => granted +250 plan:c1:1(+250=250)
         tick at=12-14T23:59:59.999                    =>
         tick at=12-15                                 => contract_ended lite
         tick at=12-15T00:59:59.999                    =>
         tick at=12-15T01:00                           => expired -200 plan:c1:0(-200=0); expired -250 plan:c1:1(-250=0)",
    );
}

#[test]
fn at_the_instant_of_a_cancellation_the_contract_ends_and_then_its_credits() {
    let book = play(
        "contract c1 lite 2026-10-15 at=10-15    => contract_started lite; granted +200 plan:c1:0(+200=200)
         topup t1 1 at=10-16                     => granted +10 topup:t1(+10=10)
         charge j1 150 images at=10-17           => charged -150 plan:c1:0(-150=50)
         cancel c1 from=11-20 at=10-20           => contract_changed lite
         = 60 overdraft 0 ok | plan:c1:0 50 | topup:t1 10
         tick at=11-15                           => granted +250 plan:c1:1(+250=250)
         tick at=11-19T23:59:59.999              =>
         tick at=11-20                           => contract_ended lite
         # Usage of the time before is paid by the plan for another hour, other usage by the top-up.
         charge j2 1 images at=11-19T23:59:59.999 clock=11-20T00:59:59.999 => charged -2 plan:c1:0(-2=48)
         charge j3 1 images at=11-20             => charged -2 topup:t1(-2=8)
         tick at=11-20T01:00                     => expired -48 plan:c1:0(-48=0); expired -250 plan:c1:1(-250=0)
         # Nothing that was charged is touched; top-ups stay.
         = 8 overdraft 0 ok | plan:c1:0 0 | plan:c1:1 0 | topup:t1 8
         tick at=12-20                           =>",
    );
    assert!(
        book.wallet.grants.iter().all(|grant| grant.expires_at.is_none_or(|expiry| expiry == when("11-20")))
    );
}

#[test]
fn a_cancellation_may_take_effect_at_once_or_before() {
    play(
        "contract c1 lite 2026-10-15 at=10-15    => contract_started lite; granted +200 plan:c1:0(+200=200)
         cancel c1 from=10-20T08:00 at=10-20T08:00 => contract_changed lite; contract_ended lite
         = 200 overdraft 0 ok | plan:c1:0 200
         tick at=10-20T08:59:59.999              =>
         tick at=10-20T09:00                     => expired -200 plan:c1:0(-200=0)",
    );
    play(
        "contract c1 lite 2026-10-15 at=10-15    => contract_started lite; granted +200 plan:c1:0(+200=200)
         cancel c1 from=10-16 at=10-20           => contract_changed lite; contract_ended lite; expired -200 plan:c1:0(-200=0)",
    );
}

#[test]
fn the_end_is_kept_inside_the_contract() {
    for (from, end) in [
        ("10-01", "10-15"),
        ("10-14T23:59:59.999", "10-15"),
        ("10-15", "10-15"),
        ("10-15T00:00:00.001", "10-15T00:00:00.001"),
        ("11-14T23:59:59.999", "11-14T23:59:59.999"),
        ("11-15", "11-15"),
        ("11-15T00:00:00.001", "11-15"),
        ("2027-06-01", "11-15"),
    ] {
        let mut book = play(
            "contract c1 lite 2026-10-15 months=1 at=10-15 => contract_started lite; granted +200 plan:c1:0(+200=200)",
        );
        book.enter(&book::parse(&format!("cancel c1 from={from} at=10-20 clock=10-15")));
        assert_eq!(book.wallet.contracts[0].ends_at, when(end), "{from}");
        assert_eq!(book.wallet.grants[0].expires_at, Some(when(end)), "{from}");
    }
}

#[test]
fn of_two_cancellations_the_earlier_end_stands() {
    for (first, second) in
        [("from=11-20", "from=12-01"), ("from=12-01", "from=11-20"), ("", "from=11-20"), ("from=11-20", "")]
    {
        let mut book = play(
            "contract c1 lite 2026-10-15 at=10-15 => contract_started lite; granted +200 plan:c1:0(+200=200)",
        );
        for option in [first, second] {
            let came = book.enter(&book::parse(&format!("cancel c1 {option} at=10-20")));
            assert_eq!(came, "contract_changed lite");
        }
        book.play(
            "tick at=11-19T23:59:59.999 => granted +250 plan:c1:1(+250=250)
             tick at=11-20              => contract_ended lite",
        );
    }
}

#[test]
fn a_cancellation_must_happen_before_the_end() {
    for (at, expected) in [
        ("11-19T23:59:59.999", "contract_changed lite"),
        ("11-20", "! no_contract"),
        ("11-20T00:00:00.001", "! no_contract"),
    ] {
        let mut book = play(
            "contract c1 lite 2026-10-15 at=10-15 => contract_started lite; granted +200 plan:c1:0(+200=200)
             cancel c1 from=11-20 at=10-20        => contract_changed lite",
        );
        assert_eq!(book.enter(&book::parse(&format!("cancel c1 at={at} clock=10-20"))), expected, "{at}");
        let change = book.enter(&book::parse(&format!("change c1 lite at={at} clock=10-20")));
        assert_eq!(change, expected, "a change at {at}");
    }
    play("cancel c1 => ! no_contract");
}

#[test]
fn a_booked_renewal_falls_away() {
    play(
        "contract c1 lite 2026-10-15 months=1 at=10-15 => contract_started lite; granted +200 plan:c1:0(+200=200)
         renew c1 at=10-16                             => contract_renewed lite
         cancel c1 at=10-20                            => contract_changed lite
         tick at=11-14T23:59:59.999                    =>
         tick at=11-15                                 => contract_ended lite
         tick at=12-15                                 => expired -200 plan:c1:0(-200=0)",
    );
    // An instant inside the renewed term is beyond the end of the term under way.
    play(
        "contract c1 lite 2026-10-15 months=1 at=10-15 => contract_started lite; granted +200 plan:c1:0(+200=200)
         renew c1 at=10-16                             => contract_renewed lite
         cancel c1 from=12-01 at=10-20                 => contract_changed lite
         tick at=11-15                                 => contract_ended lite",
    );
    // In the renewed term that term is cut.
    play(
        "contract c1 lite 2026-10-15 months=1 at=10-15 => contract_started lite; granted +200 plan:c1:0(+200=200)
         renew c1 at=10-16                             => contract_renewed lite
         cancel c1 from=12-01 at=11-15                 => contract_changed lite; granted +250 plan:c1:1(+250=250)
         tick at=12-01                                 => expired -200 plan:c1:0(-200=0); contract_ended lite",
    );
}

#[test]
fn a_late_cancellation_takes_back_the_term_that_has_begun_since() {
    play(
        "contract c1 lite 2026-10-15 months=1 at=10-15 => contract_started lite; granted +200 plan:c1:0(+200=200)
         renew c1 at=10-16                             => contract_renewed lite
         tick at=11-20                                 => granted +250 plan:c1:1(+250=250); expired -200 plan:c1:0(-200=0)
         charge j1 5 images at=11-20                   => charged -10 plan:c1:1(-10=240)
         cancel c1 at=11-14T23:59:59.999               => contract_changed lite; contract_ended lite; expired -240 plan:c1:1(-240=0)
         = 0 overdraft 0 exhausted | plan:c1:0 0 | plan:c1:1 0",
    );
}

#[test]
fn months_granted_beyond_a_backdated_end_expire_with_the_others() {
    play(
        "contract c1 lite 2026-10-15 at=10-15    => contract_started lite; granted +200 plan:c1:0(+200=200)
         tick at=11-20                           => granted +250 plan:c1:1(+250=250)
         cancel c1 from=11-01 at=11-18           => contract_changed lite; contract_ended lite; expired -200 plan:c1:0(-200=0); expired -250 plan:c1:1(-250=0)",
    );
}

#[test]
fn an_end_that_was_posted_is_not_posted_again_by_an_earlier_one() {
    play(
        "contract c1 lite 2026-10-15 months=1 at=10-15 => contract_started lite; granted +200 plan:c1:0(+200=200)
         tick at=11-20                                 => contract_ended lite; expired -200 plan:c1:0(-200=0)
         cancel c1 from=11-01 at=11-14T23:59:59.999    => contract_changed lite
         tick at=12-20                                 =>",
    );
}

#[test]
fn a_contract_cancelled_before_its_start_never_runs_or_runs_one_term() {
    play(
        "contract c1 lite 2026-12-01 months=2 at=11-03 => contract_started lite
         cancel c1 from=11-10 at=11-04                 => contract_changed lite
         # It has no instant: another may stand there.
         contract c2 scale 2026-12-01 months=2 at=11-05 => contract_started scale
         tick at=11-30T23:59:59.999                    =>
         tick at=12-01                                 => contract_ended lite; granted +3300 plan:c2:0(+3300=3300)
         renew c1 at=11-06                             => ! no_contract",
    );
    play(
        "contract c1 lite 2026-12-01 months=1 at=11-03 => contract_started lite
         renew c1 at=11-03                             => contract_renewed lite
         cancel c1 at=11-04                            => contract_changed lite
         tick at=12-01                                 => granted +250 plan:c1:0(+250=250)
         tick at=2027-01-01                            => contract_ended lite",
    );
}

#[test]
fn a_contract_without_an_instant_may_lie_inside_another() {
    play(
        "contract c1 lite 2026-12-01 months=2 at=11-03  => contract_started lite
         cancel c1 from=11-10 at=11-04                  => contract_changed lite
         contract c2 scale 2026-11-15 months=2 at=11-05 => contract_started scale
         tick at=12-01                                  => granted +3300 plan:c2:0(+3300=3300); contract_ended lite",
    );
}

#[test]
fn another_contract_may_begin_where_one_was_cancelled() {
    play(
        "contract c1 lite 2026-10-15 at=10-15      => contract_started lite; granted +200 plan:c1:0(+200=200)
         cancel c1 from=11-20 at=10-20             => contract_changed lite
         contract c2 lite 2026-11-19T23:59:59.999 at=10-20 => ! contract_conflict
         contract c2 scale 2026-11-20 at=10-20     => contract_started scale
         tick at=11-20                             => granted +250 plan:c1:1(+250=250); contract_ended lite; granted +3300 plan:c2:0(+3300=3300)
         # What is left of the old contract's credits is not the new one's.
         tick at=11-20T01:00                       => expired -200 plan:c1:0(-200=0); expired -250 plan:c1:1(-250=0)",
    );
}

#[test]
fn a_difference_expires_where_its_contract_was_cancelled() {
    play(
        "contract c1 lite 2026-10-15 at=10-15    => contract_started lite; granted +200 plan:c1:0(+200=200)
         change c1 scale from=11-01 at=10-16     => contract_changed lite
         cancel c1 from=11-10 at=10-20           => contract_changed lite
         tick at=11-01                           => granted +3100 plan:c1:0+6(+3100=3100)
         tick at=11-10T01:00                     => contract_ended scale; expired -200 plan:c1:0(-200=0); expired -3100 plan:c1:0+6(-3100=0)",
    );
    // A change booked beyond the new end never comes.
    play(
        "contract c1 lite 2026-10-15 at=10-15    => contract_started lite; granted +200 plan:c1:0(+200=200)
         change c1 scale from=11-10 at=10-16     => contract_changed lite
         cancel c1 from=11-10 at=10-20           => contract_changed lite
         tick at=11-10T01:00                     => contract_ended lite; expired -200 plan:c1:0(-200=0)",
    );
}
