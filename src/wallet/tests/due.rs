//! What falls due by itself: in which order, and in which records.

use super::*;

/// The expiry's place is its time and the allowed lateness. A contract that was cancelled to its start ends inside another.
#[test]
fn at_one_instant_expiry_comes_first_then_end_plan_change_and_timeout() {
    play(
        "contract c0 lite 2026-11-01 months=1 at=09-01     => contract_started lite
         cancel c0 from=09-02 at=09-02                     => contract_changed lite
         contract c1 lite 2026-09-15 at=09-15              => contract_started lite; granted +200 plan:c1:0(+200=200)
         change c1 scale from=11-01 at=09-16               => contract_changed lite
         tick at=10-15                                     => granted +200 plan:c1:1(+200=200)
         hold j1 4 images at=10-31                         => held +4 j1
         adjust a1 10 expires=10-31T23:00 at=10-31         => adjusted +10 adjustment:a1(+10=10)
         tick at=10-31T23:59:59.999                        =>
         tick at=11-01                                     => expired -10 adjustment:a1(-10=0); contract_ended lite; granted +3100 plan:c1:1+11(+3100=3100); released -4 j1",
    );
}

#[test]
fn at_one_instant_a_contract_ends_before_another_ones_allocation_and_a_timeout() {
    play(
        "contract c2 lite 2026-09-15 months=2 at=09-15     => contract_started lite; granted +200 plan:c2:0(+200=200)
         # The later one has the earlier id.
         contract c1 scale 2026-11-15 at=09-15             => contract_started scale
         tick at=10-15                                     => granted +200 plan:c2:1(+200=200)
         hold j1 4 images at=11-14                         => held +8 j1
         adjust a1 10 expires=11-14T23:00 at=11-14         => adjusted +10 adjustment:a1(+10=10)
         tick at=11-15                                     => expired -10 adjustment:a1(-10=0); contract_ended lite; granted +3300 plan:c1:0(+3300=3300); released -8 j1
         tick at=11-15T01:00                               => expired -200 plan:c2:0(-200=0); expired -200 plan:c2:1(-200=0)",
    );
}

#[test]
fn different_instants_come_in_their_own_order() {
    play(
        "contract c1 lite 2026-09-15 months=2 at=09-15          => contract_started lite; granted +200 plan:c1:0(+200=200)
         change c1 scale from=10-15T00:00:00.002 at=09-16       => contract_changed lite
         adjust a1 10 expires=10-14T23:00:00.001 at=09-16       => adjusted +10 adjustment:a1(+10=10)
         hold j1 4 images at=10-13T23:59:59.999                 => held +4 j1
         tick at=10-20                                          => released -4 j1; granted +200 plan:c1:1(+200=200); expired -10 adjustment:a1(-10=0); granted +3100 plan:c1:1+10(+3100=3100)",
    );
}

/// One was cancelled to its start, where the other ends.
#[test]
fn contracts_that_end_at_one_instant_end_by_id() {
    for (first, second, ends) in [
        ("a", "b", "contract_ended lite; contract_ended strict"),
        ("b", "a", "contract_ended strict; contract_ended lite"),
    ] {
        play(&format!(
            "contract {first} lite 2026-10-15 months=1 at=10-15    => contract_started lite; granted +200 plan:{first}:0(+200=200)
             contract {second} strict 2026-11-15 months=1 at=10-15 => contract_started strict
             cancel {second} from=10-20 at=10-20                   => contract_changed strict
             tick at=11-15                                         => {ends}"
        ));
    }
}

/// By kind, then contract and month as a number, a month's allocation before its differences; or by their own id.
#[test]
fn expiries_at_one_instant_come_by_id() {
    play(
        "contract c1 old 2026-01-15 months=1 at=2026-01-15      => contract_started old; granted +5 plan:c1:0(+5=5)
         adjust b 10 expires=2026-02-15 at=2026-01-15           => adjusted +10 adjustment:b(+10=10)
         adjust a 10 expires=2026-02-15 at=2026-01-20           => adjusted +10 adjustment:a(+10=10)
         change c1 lite at=2026-01-20                           => contract_changed lite; granted +195 plan:c1:0+7(+195=195)
         change c1 scale at=2026-01-21                          => contract_changed scale; granted +3100 plan:c1:0+9(+3100=3100)
         tick at=2026-02-15T01:00                               => contract_ended scale; expired -10 adjustment:a(-10=0); expired -10 adjustment:b(-10=0); expired -5 plan:c1:0(-5=0); expired -195 plan:c1:0+7(-195=0); expired -3100 plan:c1:0+9(-3100=0)",
    );
    let mut book = play(
        "contract c1 strict 2025-09-15 at=2025-09-15 => contract_started strict; granted +100 plan:c1:0(+100=100)",
    );
    book.enter(&book::parse("tick at=2026-09-15"));
    let expired = book.enter(&book::parse("tick at=2026-09-15T01:00"));
    let months = (0..12).map(|month| format!("expired -100 plan:c1:{month}(-100=0)"));
    assert_eq!(expired, months.collect::<Vec<_>>().join("; "), "the tenth month after the second");
}

#[test]
fn timeouts_at_one_instant_come_by_job_and_a_jobs_own_before_its_assets() {
    play(
        "hold j2 1 images          => held +1 j2
         hold j1 2 images asset=b  => held +2 j1/b
         hold j1 3 images asset=a  => held +3 j1/a
         hold j1 4 images          => held +4 j1
         tick at=11-05             => released -4 j1; released -3 j1/a; released -2 j1/b; released -1 j2",
    );
}

/// What is due before an event is posted before it, so it finds the wallet as it was then.
#[test]
fn the_clock_before_an_event_posts_before_it_and_the_clock_after_it_behind() {
    play(
        "contract c1 strict 2026-10-15 at=10-15  => contract_started strict; granted +100 plan:c1:0(+100=100)
         charge j1 100 images at=10-16           => charged -100 plan:c1:0(-100=0)
         # The month began with this very event: its allocation is posted behind it.
         charge j2 1 images at=11-15             => refused 2; granted +100 plan:c1:1(+100=100)
         charge j3 1 images at=11-15             => charged -2 plan:c1:1(-2=98)
         # It happened before the month began; a grant may pay for usage older than itself.
         charge j4 1 images at=11-14T23:59:59.999 => charged -2 plan:c1:1(-2=96)",
    );
}

#[test]
fn months_that_are_due_at_once_are_each_a_record_of_their_own() {
    let book = play(
        "charge j1 250 images at=09-15                       => charged -250
         contract c1 lite 2026-08-15 months=3 at=11-20       => contract_started lite; granted +200 plan:c1:0(+200=200); overdraft_repaid 200 plan:c1:0(-200=0); granted +200 plan:c1:1(+200=200); overdraft_repaid 50 plan:c1:1(-50=150); granted +200 plan:c1:2(+200=200); contract_ended lite; expired -150 plan:c1:1(-150=0); expired -200 plan:c1:2(-200=0)
         = 0 overdraft 0 exhausted | plan:c1:0 0 | plan:c1:1 0 | plan:c1:2 0",
    );
    let levels = book.records.iter().map(|record| {
        let record: LedgerRecord<'_> = serde_json::from_str(record).unwrap();
        (record.entries.len(), record.entries[0].level.as_str())
    });
    let levels: Vec<_> = levels.collect();
    assert_eq!(
        levels,
        [
            (1, "overdrawn"),
            (1, "overdrawn"),
            (2, "overdrawn"),
            // 150 are there, but more is due.
            (2, "overdrawn"),
            (1, "ok"),
            (1, "ok"),
            (1, "ok"),
            (1, "exhausted"),
        ]
    );
}

#[test]
fn nothing_is_due_twice_or_before_its_time() {
    let book = play(
        "contract c1 lite 2026-10-15 months=2 at=10-15 => contract_started lite; granted +200 plan:c1:0(+200=200)
         tick at=10-15                                 =>
         tick at=11-14T23:59:59.999                    =>
         tick at=11-15                                 => granted +250 plan:c1:1(+250=250)
         tick at=11-15                                 =>
         # The clock never goes back.
         tick at=10-20                                 =>
         tick at=12-16                                 => contract_ended lite; expired -200 plan:c1:0(-200=0); expired -250 plan:c1:1(-250=0)
         tick at=2030-01-01                            =>",
    );
    assert_eq!(next_due(&book.wallet, &book.policy), None);
}

#[test]
fn what_is_due_next_follows_from_the_wallet_alone() {
    let mut book = Book::new(&crate::config::Config::default());
    for (command, next) in [
        ("topup t1 1 at=10-01", None),
        ("adjust a1 10 expires=12-01 at=10-01", Some("12-01T01:00")),
        ("hold j1 1 images at=10-01T10:00", Some("10-02T10:00")),
        ("contract c1 lite 2026-10-02 months=2 at=10-01T10:00", Some("10-02")),
        ("tick at=10-02", Some("10-02T10:00")),
        ("charge j1 1 images at=10-02", Some("11-02")),
        ("change c1 scale from=10-20 at=10-02", Some("10-20")),
        ("cancel c1 from=10-05 at=10-02", Some("10-04")),
        ("tick at=10-05", Some("10-05T01:00")),
        ("tick at=10-05T01:00", Some("12-01T01:00")),
        ("charge j2 10 images at=10-05T01:00", None),
    ] {
        book.enter(&book::parse(command));
        assert_eq!(next_due(&book.wallet, &book.policy), next.map(when), "after {command}");
    }
}
