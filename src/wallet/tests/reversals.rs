//! Reversals: what a failed, rejected or refunded job gives back, where to, and that it does so once.

use super::*;

#[test]
fn a_charge_comes_back_to_the_grants_that_paid_it() {
    for ending in ["failed", "rejected", "refunded"] {
        let mut book = play(
            "topup t1 1                  => granted +10 topup:t1(+10=10)
             topup t2 1                  => granted +10 topup:t2(+10=10)
             adjust a1 5 expires=11-20   => adjusted +5 adjustment:a1(+5=5)
             charge j1 18 images         => charged -18 adjustment:a1(-5=0) topup:t1(-10=0) topup:t2(-3=7)",
        );
        let expiries =
            |book: &Book| book.wallet.grants.iter().map(|grant| grant.expires_at).collect::<Vec<_>>();
        let before = expiries(&book);
        book.play(&format!(
            "{ending} j1 => reversed +18 adjustment:a1(+5=5) topup:t1(+10=10) topup:t2(+3=10)
             = 25 overdraft 0 ok | adjustment:a1 5 | topup:t1 10 | topup:t2 10"
        ));
        assert_eq!(expiries(&book), before, "with those grants' own expiry");
    }
}

#[test]
fn a_cancellation_gives_nothing_back() {
    play(
        "topup t1 1         => granted +10 topup:t1(+10=10)
         charge j1 4 images => charged -4 topup:t1(-4=6)
         cancelled j1       => noted j1
         = 6 overdraft 0 ok | topup:t1 6
         # And stands in no way of a refund.
         refunded j1        => reversed +4 topup:t1(+4=10)",
    );
    // A job that was cancelled first may be charged.
    play(
        "cancelled j1       => noted j1
         charge j1 4 images => charged -4",
    );
}

#[test]
fn a_charge_is_given_back_once() {
    play(
        "topup t1 1                 => granted +10 topup:t1(+10=10)
         charge j1 4 images         => charged -4 topup:t1(-4=6)
         failed j1                  => reversed +4 topup:t1(+4=10)
         failed j1                  => noted j1
         rejected j1                => noted j1
         refunded j1                => noted j1
         refunded j1 asset=a        => noted j1/a
         # Nor charged again.
         charge j1 4 images         => ! job_conflict
         charge j2 1 images asset=a => charged -1 topup:t1(-1=9)
         refunded j2 asset=a        => reversed +1 topup:t1(+1=10)
         refunded j2 asset=a        => noted j2/a
         failed j2                  => noted j2
         = 10 overdraft 0 ok | topup:t1 10",
    );
}

#[test]
fn what_was_refused_or_cost_nothing_has_nothing_to_give_back() {
    play(
        "limits overdraft=0                => limits_changed
         charge j1 4 images                => refused 4
         failed j1                         => noted j1
         charge j2 4 images model=gratis   => charged 0
         failed j2                         => noted j2
         failed j3                         => noted j3
         charge j3 4 images                => refused 4
         = 0 overdraft 0 exhausted",
    );
}

#[test]
fn an_asset_is_given_back_alone_and_a_whole_job_with_all_its_assets() {
    play(
        "topup t1 1                 => granted +10 topup:t1(+10=10)
         topup t2 1                 => granted +10 topup:t2(+10=10)
         charge j1 1 images asset=c => charged -1 topup:t1(-1=9)
         charge j1 2 images asset=a => charged -2 topup:t1(-2=7)
         charge j1 8 images asset=b => charged -8 topup:t1(-7=0) topup:t2(-1=9)
         charge j2 1 images asset=a => charged -1 topup:t2(-1=8)
         failed j1 asset=a          => reversed +2 topup:t1(+2=2)
         # In the order in which they were charged; each once.
         failed j1                  => reversed +1 topup:t1(+1=3); reversed +8 topup:t1(+7=10) topup:t2(+1=9)
         = 19 overdraft 0 ok | topup:t1 10 | topup:t2 9
         failed j1                  => noted j1",
    );
}

#[test]
fn a_reversal_of_the_whole_job_speaks_for_assets_that_come_later() {
    play(
        "topup t1 1                 => granted +10 topup:t1(+10=10)
         charge j1 1 images asset=a => charged -1 topup:t1(-1=9)
         failed j1                  => reversed +1 topup:t1(+1=10)
         charge j1 2 images asset=b => charged -2 topup:t1(-2=8); reversed +2 topup:t1(+2=10)
         = 10 overdraft 0 ok | topup:t1 10
         # Of one asset: for that one alone.
         failed j2 asset=a          => noted j2/a
         charge j2 1 images asset=a => charged -1 topup:t1(-1=9); reversed +1 topup:t1(+1=10)
         charge j2 1 images asset=b => charged -1 topup:t1(-1=9)",
    );
}

#[test]
fn whole_and_asset_do_not_mix() {
    play(
        "topup t1 1                 => granted +10 topup:t1(+10=10)
         # One asset of what was charged as a whole: what is it worth?
         charge j1 4 images         => charged -4 topup:t1(-4=6)
         failed j1 asset=a          => noted j1/a
         # An asset that failed is no whole job that failed.
         failed j2 asset=a          => noted j2/a
         charge j2 4 images         => charged -4 topup:t1(-4=2)
         = 2 overdraft 0 low | topup:t1 2",
    );
}

#[test]
fn a_job_that_failed_before_its_charge_is_charged_and_given_back() {
    for ending in ["failed", "rejected", "refunded"] {
        let mut book = play("topup t1 1 => granted +10 topup:t1(+10=10)");
        book.play(&format!(
            "{ending} j1         => noted j1
             charge j1 15 images => charged -15 topup:t1(-10=0); reversed +15 topup:t1(+10=10)
             = 10 overdraft 0 ok | topup:t1 10
             {ending} j1         => noted j1
             charge j1 15 images => ! job_conflict"
        ));
    }
}

#[test]
fn a_job_that_failed_twice_before_its_charge_is_given_back() {
    for (first, second) in [("failed", "failed"), ("failed", "cancelled"), ("refunded", "rejected")] {
        play(&format!(
            "topup t1 1         => granted +10 topup:t1(+10=10)
             {first} j1         => noted j1
             {second} j1        => noted j1
             charge j1 4 images => charged -4 topup:t1(-4=6); reversed +4 topup:t1(+4=10)"
        ));
    }
}

#[test]
fn a_refund_of_a_job_that_nobody_has_heard_of_says_so() {
    let mut book = play("charge j1 1 images => charged -1");
    for (command, reason) in [
        ("refunded j2", "unknown_job"),
        ("refunded j2", "why"),
        ("refunded j3 asset=a", "unknown_job"),
        ("failed j4", "why"),
        ("refunded j4", "why"),
        ("cancelled j5", "why"),
    ] {
        let records = book.apply(&book::parse(command)).unwrap();
        let record: LedgerRecord<'_> = serde_json::from_str(&records[0]).unwrap();
        let entry = &record.entries[0];
        assert_eq!(
            (entry.entry_type, &*entry.reason, entry.amount),
            (EntryType::Noted, reason, 0),
            "{command}"
        );
        assert_eq!(entry.is_unknown_refund(), reason == "unknown_job", "{command}");
        // A person's reason of another entry may be the same word.
        for (entry_type, event_type) in
            [(EntryType::Noted, "generation.failed"), (EntryType::Reversed, "generation.refunded")]
        {
            let reason = "unknown_job".into();
            let other = Entry { entry_type, event_type: event_type.into(), reason, ..entry.clone() };
            assert!(!other.is_unknown_refund(), "{entry_type:?} {event_type}");
        }
    }
    // One that still holds is known.
    book.play("hold j6 1 images => held +1 j6");
    let records = book.apply(&book::parse("refunded j6")).unwrap();
    assert!(records[0].contains("\"reason\":\"why\""));
}

/// The grant's own expiry, 3 November 11:00, is posted at 12:00.
#[test]
fn what_comes_back_into_a_grant_that_is_over_expires() {
    const CHARGED: &str = "adjust a1 10 expires=11-03T11:00 => adjusted +10 adjustment:a1(+10=10)
         charge j1 6 images               => charged -6 adjustment:a1(-6=4)";
    for (table, expected) in [
        (
            "failed j1 at=11-03T11:59:59.999 => reversed +6 adjustment:a1(+6=10)
             = 10 overdraft 0 ok | adjustment:a1 10
             tick at=11-03T12:00             => expired -10 adjustment:a1(-10=0)",
            0,
        ),
        // It is posted before the event, which finds the grant closed.
        (
            "tick at=11-03T12:00             => expired -4 adjustment:a1(-4=0)
             failed j1 at=11-03T12:00        => reversed +6 adjustment:a1(+6=6); expired -6 adjustment:a1(-6=0)
             tick at=11-04                   =>",
            0,
        ),
        // Even one that happened in time.
        (
            "tick at=11-03T12:00             => expired -4 adjustment:a1(-4=0)
             failed j1 at=11-03T10:59:59.999 => reversed +6 adjustment:a1(+6=6); expired -6 adjustment:a1(-6=0)",
            0,
        ),
    ] {
        let mut book = play(CHARGED);
        book.play(table);
        assert_eq!(book.wallet.balance(), expected);
    }
}

/// Only what comes back to grants that are valid at the event's time repays overdraft.
#[test]
fn what_comes_back_repays_overdraft_out_of_grants_that_are_valid() {
    play(
        "topup t1 1          => granted +10 topup:t1(+10=10)
         charge j1 10 images => charged -10 topup:t1(-10=0)
         charge j2 4 images  => charged -4
         failed j1           => reversed +10 topup:t1(+10=10); overdraft_repaid 4 topup:t1(-4=6)
         = 6 overdraft 0 ok | topup:t1 6
         # And goes back to where it repaid from.
         failed j2           => reversed +4 topup:t1(+4=10)
         = 10 overdraft 0 ok | topup:t1 10",
    );
    for (at, expected) in [
        ("11-03T10:59:59.999", "reversed +10 adjustment:a1(+10=10); overdraft_repaid 4 adjustment:a1(-4=6)"),
        ("11-03T11:00", "reversed +10 adjustment:a1(+10=10)"),
        ("11-03T11:00:00.001", "reversed +10 adjustment:a1(+10=10)"),
    ] {
        let mut book = play(
            "adjust a1 10 expires=11-03T11:00 => adjusted +10 adjustment:a1(+10=10)
             charge j1 10 images              => charged -10 adjustment:a1(-10=0)
             charge j2 4 images               => charged -4",
        );
        assert_eq!(book.enter(&book::parse(&format!("failed j1 at={at}"))), expected, "{at}");
    }
    // One that is closed repays nothing in between.
    play(
        "adjust a1 10 expires=11-03T11:00 => adjusted +10 adjustment:a1(+10=10)
         charge j1 10 images              => charged -10 adjustment:a1(-10=0)
         charge j2 4 images clock=11-03T12:00 => charged -4
         failed j1                        => reversed +10 adjustment:a1(+10=10); expired -10 adjustment:a1(-10=0)
         = -4 overdraft 4 overdrawn | adjustment:a1 0",
    );
    // Several grants: one repayment, in burn-down order of the charge.
    play(
        "adjust a1 3 expires=11-20        => adjusted +3 adjustment:a1(+3=3)
         topup t1 1                       => granted +10 topup:t1(+10=10)
         charge j1 13 images              => charged -13 adjustment:a1(-3=0) topup:t1(-10=0)
         charge j2 5 images               => charged -5
         failed j1                        => reversed +13 adjustment:a1(+3=3) topup:t1(+10=10); overdraft_repaid 5 adjustment:a1(-3=0) topup:t1(-2=8)",
    );
}

#[test]
fn the_share_of_overdraft_that_is_still_open_comes_off_it() {
    play(
        "topup t1 1          => granted +10 topup:t1(+10=10)
         charge j1 15 images => charged -15 topup:t1(-10=0)
         = -5 overdraft 5 overdrawn | topup:t1 0
         failed j1           => reversed +15 topup:t1(+10=10)
         = 10 overdraft 0 ok | topup:t1 10",
    );
    // Overdraft is one: another job's as well.
    play(
        "charge j1 5 images  => charged -5
         charge j2 7 images  => charged -7
         failed j1           => reversed +5
         = -7 overdraft 7 overdrawn
         failed j2           => reversed +7
         = 0 overdraft 0 overdrawn",
    );
}

#[test]
fn the_share_that_was_repaid_since_goes_back_to_the_grants_that_repaid_it() {
    play(
        "topup t1 1          => granted +10 topup:t1(+10=10)
         charge j1 15 images => charged -15 topup:t1(-10=0)
         topup t2 1          => granted +10 topup:t2(+10=10); overdraft_repaid 5 topup:t2(-5=5)
         failed j1           => reversed +15 topup:t1(+10=10) topup:t2(+5=10)
         = 20 overdraft 0 ok | topup:t1 10 | topup:t2 10",
    );
    // Partly: first what is open.
    play(
        "charge j1 15 images => charged -15
         adjust a1 3         => adjusted +3 adjustment:a1(+3=3); overdraft_repaid 3 adjustment:a1(-3=0)
         failed j1           => reversed +15 adjustment:a1(+3=3)
         = 3 overdraft 0 ok | adjustment:a1 3",
    );
    // A smaller charge takes what is open and leaves what repaid where it is.
    play(
        "charge j1 5 images  => charged -5
         charge j2 5 images  => charged -5
         adjust a1 4         => adjusted +4 adjustment:a1(+4=4); overdraft_repaid 4 adjustment:a1(-4=0)
         failed j1           => reversed +5
         = -1 overdraft 1 overdrawn | adjustment:a1 0
         failed j2           => reversed +5 adjustment:a1(+4=4)
         = 4 overdraft 0 ok | adjustment:a1 4",
    );
}

#[test]
fn of_the_grants_that_repaid_the_latest_gets_it_back_first() {
    let book = play(
        "charge j1 5 images  => charged -5
         charge j2 5 images  => charged -5
         charge j3 5 images  => charged -5
         topup t1 1          => granted +10 topup:t1(+10=10); overdraft_repaid 10 topup:t1(-10=0)
         # Older by its own time, later in repaying.
         adjust a1 8 at=11-01 => adjusted +8 adjustment:a1(+8=8); overdraft_repaid 5 adjustment:a1(-5=3)
         failed j1           => reversed +5 adjustment:a1(+5=8)
         failed j3           => reversed +5 topup:t1(+5=5)
         = 13 overdraft 0 ok | adjustment:a1 8 | topup:t1 5
         charge j4 30 images => charged -30 adjustment:a1(-8=0) topup:t1(-5=0)
         failed j2           => reversed +5",
    );
    let repaid: Vec<i64> = book.wallet.grants.iter().map(|grant| grant.repaid).collect();
    assert_eq!(repaid, [0, 5], "what came back is not repaid any more");
    // Made first, but the last to repay, out of what came back to it.
    play(
        "topup t1 1          => granted +10 topup:t1(+10=10)
         charge j1 10 images => charged -10 topup:t1(-10=0)
         charge j2 4 images  => charged -4
         charge j3 4 images  => charged -4
         adjust a1 5         => adjusted +5 adjustment:a1(+5=5); overdraft_repaid 5 adjustment:a1(-5=0)
         failed j1           => reversed +10 topup:t1(+10=10); overdraft_repaid 3 topup:t1(-3=7)
         failed j2           => reversed +4 topup:t1(+3=10) adjustment:a1(+1=1)
         failed j3           => reversed +4 adjustment:a1(+4=5)
         = 15 overdraft 0 ok | adjustment:a1 5 | topup:t1 10",
    );
    // Several at once; each grant as a whole, by its last repayment.
    play(
        "charge j1 25 images => charged -25
         adjust a1 5         => adjusted +5 adjustment:a1(+5=5); overdraft_repaid 5 adjustment:a1(-5=0)
         adjust a2 5         => adjusted +5 adjustment:a2(+5=5); overdraft_repaid 5 adjustment:a2(-5=0)
         topup t1 1          => granted +10 topup:t1(+10=10); overdraft_repaid 10 topup:t1(-10=0)
         topup t2 1          => granted +10 topup:t2(+10=10); overdraft_repaid 5 topup:t2(-5=5)
         failed j1           => reversed +25 topup:t2(+5=10) topup:t1(+10=10) adjustment:a2(+5=5) adjustment:a1(+5=5)
         = 30 overdraft 0 ok | adjustment:a1 5 | adjustment:a2 5 | topup:t1 10 | topup:t2 10",
    );
}

/// One grant may both have paid the charge and repaid its overdraft.
#[test]
fn a_grant_gets_back_what_it_paid_and_what_it_repaid_in_one() {
    let book = play(
        "topup t1 1          => granted +10 topup:t1(+10=10)
         charge j1 6 images  => charged -6 topup:t1(-6=4)
         charge j2 9 images  => charged -9 topup:t1(-4=0)
         failed j1           => reversed +6 topup:t1(+6=6); overdraft_repaid 5 topup:t1(-5=1)
         failed j2           => reversed +9 topup:t1(+9=10)
         = 10 overdraft 0 ok | topup:t1 10",
    );
    assert_eq!((book.wallet.grants[0].repaid, book.wallet.grants[0].remaining), (0, 10));
}

#[test]
fn what_repaid_and_is_over_expires_when_it_comes_back() {
    play(
        "charge j1 5 images                 => charged -5
         adjust a1 8 expires=11-03T11:00    => adjusted +8 adjustment:a1(+8=8); overdraft_repaid 5 adjustment:a1(-5=3)
         tick at=11-03T12:00                => expired -3 adjustment:a1(-3=0)
         failed j1 at=11-03T12:00           => reversed +5 adjustment:a1(+5=5); expired -5 adjustment:a1(-5=0)
         = 0 overdraft 0 exhausted | adjustment:a1 0",
    );
}

#[test]
fn a_whole_jobs_assets_are_each_settled_before_the_next() {
    play(
        "adjust a1 3 expires=11-03T11:00    => adjusted +3 adjustment:a1(+3=3)
         topup t1 1                         => granted +10 topup:t1(+10=10)
         charge j1 3 images asset=b         => charged -3 adjustment:a1(-3=0)
         charge j1 10 images asset=a        => charged -10 topup:t1(-10=0)
         charge j2 4 images clock=11-03T12:00 => charged -4
         failed j1                          => reversed +3 adjustment:a1(+3=3); expired -3 adjustment:a1(-3=0); reversed +10 topup:t1(+10=10); overdraft_repaid 4 topup:t1(-4=6)
         = 6 overdraft 0 ok | adjustment:a1 0 | topup:t1 6",
    );
}

#[test]
fn a_reversal_says_what_was_charged_and_counts_in_the_hour_of_its_own_time() {
    let mut book = play(
        "contract c1 lite 2026-11-01      => contract_started lite; granted +200 plan:c1:0(+200=200)
         charge j1 4 seconds model=veo-3  => charged -18 plan:c1:0(-18=182)
         change c1 capped at=11-03T12:00  => contract_changed capped",
    );
    let records = book.apply(&book::parse("refunded j1 at=11-03T12:30")).unwrap();
    let record: LedgerRecord<'_> = serde_json::from_str(&records[0]).unwrap();
    let entry = &record.entries[0];
    assert_eq!(
        (&*entry.job_id, &*entry.model, &*entry.user_id, &*entry.project_id),
        ("j1", "veo-3", "u1", "p1")
    );
    assert_eq!((&*entry.plan, &*entry.contract_id, &*entry.reason), ("lite", "c1", "why"));
    assert_eq!((entry.images, entry.video_seconds.0), (0, 0), "it used nothing");
    let bucket = entry.bucket.unwrap();
    assert_eq!(bucket.hour, when("11-03T12:00"));
    assert_eq!((bucket.jobs, bucket.credits_charged, bucket.credits_reversed), (0, 0, 18));
    assert!(entry.whole_job);
}
