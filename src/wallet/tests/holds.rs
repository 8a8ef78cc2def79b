//! Holds: what a running job reserves, and how each ends.

use super::*;

#[test]
fn a_request_holds_its_cost_and_its_completion_charges_what_was_used() {
    // As much, more, less, and nothing held.
    play(
        "topup t1 100       => granted +555 topup:t1(+555=555)
         hold j1 4 images   => held +4 j1
         = 555 overdraft 0 held 4 ok | topup:t1 555
         charge j1 4 images => released -4 j1; charged -4 topup:t1(-4=551)
         = 551 overdraft 0 ok | topup:t1 551
         hold j2 4 images   => held +4 j2
         charge j2 6 images => released -4 j2; charged -6 topup:t1(-6=545)
         hold j3 8 seconds  => held +24 j3
         charge j3 4 seconds => released -24 j3; charged -12 topup:t1(-12=533)
         charge j4 1 images => charged -1 topup:t1(-1=532)
         = 532 overdraft 0 ok | topup:t1 532",
    );
    // Each at the rate of its own time.
    play(
        "topup t1 100 at=11-09T23:59:59.999       => granted +555 topup:t1(+555=555)
         hold j1 4 images at=11-09T23:59:59.999   => held +4 j1
         charge j1 4 images at=11-10              => released -4 j1; charged -8 topup:t1(-8=547)",
    );
}

#[test]
fn a_hold_is_never_refused_blocks_no_charge_and_may_make_available_negative() {
    let book = play(
        "contract c1 strict 2026-11-01 => contract_started strict; granted +100 plan:c1:0(+100=100)
         hold j1 101 images            => held +101 j1
         = 100 overdraft 0 held 101 exhausted | plan:c1:0 100
         hold j2 1000 images           => held +1000 j2
         charge j3 100 images          => charged -100 plan:c1:0(-100=0)
         = 0 overdraft 0 held 1101 exhausted | plan:c1:0 0
         # A refusal ends the hold as well.
         charge j1 101 images          => released -101 j1; refused 101
         = 0 overdraft 0 held 1000 exhausted | plan:c1:0 0",
    );
    assert_eq!(book.wallet.available(), -1000);
}

#[test]
fn an_asset_without_a_hold_of_its_own_draws_from_its_jobs() {
    play(
        "topup t1 100               => granted +555 topup:t1(+555=555)
         hold j1 4 images           => held +4 j1
         charge j1 1 images asset=a => released -1 j1; charged -1 topup:t1(-1=554)
         = 554 overdraft 0 held 3 ok | topup:t1 554
         # What costs nothing draws nothing.
         charge j1 1 images asset=b model=gratis => charged 0
         # The lesser of its cost and what is left.
         charge j1 5 images asset=c => released -3 j1; charged -5 topup:t1(-5=549)
         charge j1 1 images asset=d => charged -1 topup:t1(-1=548)
         = 548 overdraft 0 ok | topup:t1 548",
    );
}

#[test]
fn an_asset_with_a_hold_of_its_own_ends_that_one_and_leaves_its_jobs() {
    play(
        "topup t1 100               => granted +555 topup:t1(+555=555)
         hold j1 4 images           => held +4 j1
         hold j1 2 images asset=a   => held +2 j1/a
         hold j1 2 images asset=b   => held +2 j1/b
         charge j1 3 images asset=a => released -2 j1/a; charged -3 topup:t1(-3=552)
         charge j1 1 images asset=b => released -2 j1/b; charged -1 topup:t1(-1=551)
         = 551 overdraft 0 held 4 ok | topup:t1 551
         # Of another job.
         charge j2 1 images asset=a => charged -1 topup:t1(-1=550)",
    );
}

#[test]
fn a_completion_of_the_whole_job_ends_its_assets_holds_too() {
    play(
        "topup t1 100                             => granted +555 topup:t1(+555=555)
         hold j1 1 images asset=b                 => held +1 j1/b
         hold j1 2 images asset=a                 => held +2 j1/a
         hold j1 4 images at=11-03T11:00          => held +4 j1
         hold j2 1 images                         => held +1 j2
         # The first to time out first, then by asset.
         charge j1 3 images                       => released -2 j1/a; released -1 j1/b; released -4 j1; charged -3 topup:t1(-3=552)
         = 552 overdraft 0 held 1 ok | topup:t1 552",
    );
}

#[test]
fn there_is_one_hold_per_job_and_asset() {
    play(
        "hold j1 4 images           => held +4 j1
         hold j1 4 images           => noted j1
         hold j1 8 images           => noted j1
         hold j1 1 images asset=a   => held +1 j1/a
         hold j1 1 images asset=a   => noted j1/a
         hold j1 1 images asset=b   => held +1 j1/b
         hold j2 4 images           => held +4 j2
         = 0 overdraft 0 held 10 exhausted",
    );
    // At a time: after the first one's timeout a second may hold.
    play(
        "hold j1 4 images at=11-03          => held +4 j1
         tick at=11-04                      => released -4 j1
         hold j1 4 images at=11-04          => held +4 j1",
    );
    // What holds nothing is noted: no credits, or as many holds as are allowed.
    play("hold j1 4 images model=gratis => noted j1");
}

#[test]
fn a_request_holds_nothing_after_the_charge() {
    play(
        "charge j1 1 images         => charged -1
         hold j1 1 images           => noted j1
         hold j1 1 images asset=a   => noted j1/a
         charge j2 1 images asset=a => charged -1
         hold j2 1 images           => noted j2
         hold j2 1 images asset=a   => noted j2/a
         hold j2 1 images asset=b   => held +1 j2/b",
    );
    // A refusal is the charge.
    play(
        "limits overdraft=0         => limits_changed
         charge j1 1 images         => refused 1
         hold j1 1 images           => noted j1
         charge j2 1 images asset=a => refused 1
         hold j2 1 images           => noted j2
         hold j2 1 images asset=b   => held +1 j2/b",
    );
}

#[test]
fn a_request_holds_nothing_after_the_end_of_its_job_or_asset() {
    for ending in ["failed", "rejected", "cancelled"] {
        let mut book = Book::new(&crate::config::Config::default());
        book.play(&format!(
            "{ending} j1                => noted j1
             hold j1 1 images           => noted j1
             hold j1 1 images asset=a   => noted j1/a
             {ending} j2 asset=a        => noted j2/a
             hold j2 1 images asset=a   => noted j2/a
             hold j2 1 images asset=b   => held +1 j2/b
             hold j2 1 images           => held +1 j2"
        ));
    }
    // A refund is no end.
    play(
        "refunded j1              => noted j1
         hold j1 1 images         => held +1 j1",
    );
}

/// What it holds is known of the wallet, and nothing once that is over.
#[test]
fn a_request_alone_is_not_remembered_of_its_job() {
    let mut book = play(
        "hold j1 1 images           => held +1 j1
         hold j1 1 images asset=a   => held +1 j1/a
         tick at=11-05              => released -1 j1; released -1 j1/a",
    );
    assert_eq!((book.memo("j1", ""), book.memo("j1", "a")), (None, None));
    let records = book.apply(&book::parse("refunded j1 at=11-05")).unwrap();
    assert!(records[0].contains("\"reason\":\"unknown_job\""));
}

#[test]
fn a_second_end_of_a_job_opens_nothing_again() {
    for (first, second) in [("failed", "failed"), ("cancelled", "cancelled"), ("rejected", "refunded")] {
        play(&format!(
            "{first} j1        => noted j1
             {second} j1       => noted j1
             hold j1 1 images  => noted j1"
        ));
    }
}

#[test]
fn a_request_holds_nothing_after_its_own_timeout() {
    for (at, expected) in [
        ("11-02T10:15:29.999", "noted j1"),
        ("11-02T10:15:30", "noted j1"),
        ("11-02T10:15:30.001", "held +1 j1"),
    ] {
        let mut book = play("tick at=11-03T10:15:30 =>");
        assert_eq!(book.enter(&book::parse(&format!("hold j1 1 images at={at}"))), expected, "{at}");
    }
}

#[test]
fn a_hold_times_out_a_day_after_its_event() {
    play(
        "topup t1 1                        => granted +10 topup:t1(+10=10)
         hold j1 10 images                 => held +10 j1
         = 10 overdraft 0 held 10 exhausted | topup:t1 10
         tick at=11-04T10:15:29.999        =>
         tick at=11-04T10:15:30            => released -10 j1
         = 10 overdraft 0 ok | topup:t1 10
         # The job may complete all the same.
         charge j1 4 images at=11-04T11:00 => charged -4 topup:t1(-4=6)",
    );
    // By the event's own time, however late it came; what assets drew is gone.
    play(
        "hold j1 4 images at=11-02T12:00 clock=11-03T10:00 => held +4 j1
         charge j1 1 images asset=a at=11-03T09:00         => released -1 j1; charged -1
         tick at=11-03T11:59:59.999                        =>
         tick at=11-03T12:00                               => released -3 j1",
    );
}

#[test]
fn a_job_that_ends_otherwise_releases_its_hold() {
    for ending in ["failed", "rejected", "cancelled"] {
        let mut book = play("topup t1 1 => granted +10 topup:t1(+10=10)");
        book.play(&format!(
            "hold j1 4 images         => held +4 j1
             hold j1 1 images asset=a => held +1 j1/a
             hold j1 2 images asset=b => held +2 j1/b
             # An asset by itself: its own hold, not its job's.
             {ending} j1 asset=a      => released -1 j1/a
             {ending} j1 asset=c      => noted j1/c
             = 10 overdraft 0 held 6 ok | topup:t1 10
             # The whole job: all that are left.
             {ending} j1              => released -4 j1; released -2 j1/b
             = 10 overdraft 0 ok | topup:t1 10
             {ending} j1              => noted j1"
        ));
    }
}

#[test]
fn a_refund_ends_no_hold() {
    play(
        "topup t1 1           => granted +10 topup:t1(+10=10)
         hold j1 4 images     => held +4 j1
         refunded j1          => noted j1
         = 10 overdraft 0 held 4 ok | topup:t1 10
         # The charge is undone for all that.
         charge j1 4 images   => released -4 j1; charged -4 topup:t1(-4=6); reversed +4 topup:t1(+4=10)
         = 10 overdraft 0 ok | topup:t1 10",
    );
}

#[test]
fn open_holds_are_bounded() {
    play_with(
        |config| config.limits.open_holds_max = 2,
        "hold j1 1 images   => held +1 j1
         hold j2 1 images   => held +1 j2
         hold j3 1 images   => noted j3
         = 0 overdraft 0 held 2 exhausted
         # It is charged all the same, and another may hold once there is room.
         charge j3 1 images => charged -1
         cancelled j1       => released -1 j1
         hold j4 1 images   => held +1 j4",
    );
    play_with(|config| config.limits.open_holds_max = 0, "hold j1 1 images => noted j1");
}

#[test]
fn an_entry_says_until_when_a_job_holds_and_at_which_price() {
    let book = play("hold j1 4 seconds model=veo-3 => held +18 j1");
    let record: LedgerRecord<'_> = serde_json::from_str(&book.records[0]).unwrap();
    let entry = &record.entries[0];
    assert_eq!(entry.hold_until, Some(when("11-04T10:15:30")));
    assert_eq!((&*entry.rate_card, entry.rate.unwrap().to_string()), ("card-1", "4.5".to_owned()));
    assert_eq!((&*entry.job_id, &*entry.model, entry.video_seconds.0), ("j1", "veo-3", 4_000));
    assert_eq!((entry.credits, entry.held_after, entry.balance_after), (0, 18, 0));
    assert!(entry.bucket.is_none(), "a hold is no usage");
}
