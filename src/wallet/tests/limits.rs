//! Overdraft limits, the one charge of a job, and the bounds of a wallet.

use super::*;
use crate::config::Config;
use crate::event::Reason;
use crate::time::{EventTime, PostedAt, ShardClock};

/// Plan `capped`: 100 credits, limit 10; from 10 November on limit 20.
#[test]
fn a_charge_may_reach_the_limit_and_is_refused_whole_past_it() {
    play(
        "contract c1 capped 2026-11-01 => contract_started capped; granted +100 plan:c1:0(+100=100)
         charge j1 95 images           => charged -95 plan:c1:0(-95=5)
         charge j2 16 images           => refused 16
         = 5 overdraft 0 critical | plan:c1:0 5
         charge j3 15 images           => charged -15 plan:c1:0(-5=0)
         = -10 overdraft 10 overdrawn | plan:c1:0 0
         charge j4 1 images            => refused 1
         charge j5 1 images model=gratis => charged 0
         topup t1 1                    => granted +10 topup:t1(+10=10); overdraft_repaid 10 topup:t1(-10=0)
         charge j6 11 images           => refused 11
         charge j7 10 images           => charged -10
         = -10 overdraft 10 overdrawn | plan:c1:0 0 | topup:t1 0",
    );
}

#[test]
fn a_limit_of_0_never_overdraws() {
    play(
        "contract c1 strict 2026-11-01 => contract_started strict; granted +100 plan:c1:0(+100=100)
         charge j1 101 images          => refused 101
         charge j2 100 images          => charged -100 plan:c1:0(-100=0)
         charge j3 1 images            => refused 1
         = 0 overdraft 0 exhausted | plan:c1:0 0",
    );
}

#[test]
fn the_limit_is_that_of_the_plan_at_the_events_time() {
    play(
        "contract c1 capped 2026-11-05            => contract_started capped
         # No contract then, no limit.
         charge j0 100 images at=11-04T23:59:59.999 => charged -100
         topup t1 100                             => granted +555 topup:t1(+555=555); overdraft_repaid 100 topup:t1(-100=455)
         charge j1 455 images at=11-05            => charged -455 topup:t1(-455=0); granted +100 plan:c1:0(+100=100)
         charge k1 100 images at=11-05            => charged -100 plan:c1:0(-100=0)
         charge j2 11 images at=11-09T23:59:59.999 => refused 11
         # From the 10th on an image costs 2 and the limit is 20.
         charge j3 10 images at=11-10             => charged -20
         charge j4 1 images at=11-10              => refused 2
         charge j5 1 images at=11-09              => refused 1
         # After its term there is no limit again.
         charge j6 1 images at=2027-11-04T23:59:59.999 clock=11-10 => refused 2
         charge j7 50 images at=2027-11-05 clock=11-10 => charged -100",
    );
}

#[test]
fn a_debit_goes_past_any_limit_and_what_grants_cover_is_never_refused() {
    play(
        "contract c1 strict 2026-11-01 => contract_started strict; granted +100 plan:c1:0(+100=100)
         adjust a1 20 expires=11-03T11:00 => adjusted +20 adjustment:a1(+20=20)
         # That one is over when the debit comes, and pays for what happened before.
         adjust a2 -130 at=11-03T11:00 => adjusted -130 plan:c1:0(-100=0)
         = -10 overdraft 30 overdrawn | plan:c1:0 0 | adjustment:a1 20
         charge j1 1 images at=11-03T11:00 => refused 1
         charge j2 20 images           => charged -20 adjustment:a1(-20=0)
         charge j3 1 images            => refused 1
         = -30 overdraft 30 overdrawn | plan:c1:0 0 | adjustment:a1 0",
    );
}

#[test]
fn a_refusal_says_what_it_would_have_cost_and_touches_nothing() {
    let mut book =
        play("contract c1 strict 2026-11-01 => contract_started strict; granted +100 plan:c1:0(+100=100)");
    let before = book.wallet.clone();
    let records = book.apply(&book::parse("charge j1 50 seconds model=veo-3")).unwrap();
    let record: LedgerRecord<'_> = serde_json::from_str(&records[0]).unwrap();
    let entry = &record.entries[0];
    assert_eq!((entry.entry_type, entry.credits, entry.amount), (EntryType::Refused, 0, 225));
    assert_eq!((&*entry.job_id, &*entry.model, entry.video_seconds.0), ("j1", "veo-3", 50_000));
    assert!(entry.grant_effects.is_empty());
    assert_eq!((book.wallet.balance(), book.wallet.overdraft), (before.balance(), before.overdraft));
    assert_eq!(book.wallet.seq, before.seq + 1);
}

#[test]
fn a_job_is_charged_once_as_a_whole_or_asset_by_asset() {
    play(
        "topup t1 100              => granted +555 topup:t1(+555=555)
         charge j1 4 images         => charged -4 topup:t1(-4=551)
         charge j1 4 images         => ! job_conflict
         charge j1 1 images asset=a => ! job_conflict
         charge j2 1 images asset=a => charged -1 topup:t1(-1=550)
         charge j2 1 images asset=a => ! job_conflict
         charge j2 1 images asset=b => charged -1 topup:t1(-1=549)
         charge j2 1 images         => ! job_conflict
         charge j3 1 images asset=a => charged -1 topup:t1(-1=548)
         = 548 overdraft 0 ok | topup:t1 548",
    );
}

/// Each conflict says what there was, and advises a retry only where the same was reported again.
#[test]
fn a_job_conflict_says_what_was_before_and_what_to_do() {
    let book = play(
        "contract c1 strict 2026-11-01 => contract_started strict; granted +100 plan:c1:0(+100=100)
         charge j1 1 images            => charged -1 plan:c1:0(-1=99)
         charge j2 101 images          => refused 101
         charge j3 1 images asset=a    => charged -1 plan:c1:0(-1=98)
         charge j4 101 images asset=a  => refused 101",
    );
    let retry = "under another event id: a retry must repeat the event's id";
    let own = "nothing more is charged for it, what else was made is a job of its own";
    let by_asset = "asset by asset before: name the asset_id of each";
    for (line, expected) in [
        ("charge j1 1 images", format!("job j1 was charged as a whole before, {retry}")),
        ("charge j1 1 images asset=a", format!("job j1 was charged as a whole before: {own}")),
        (
            "charge j2 1 images",
            format!("job j2 was refused as a whole before, {retry}, and a refusal is final"),
        ),
        ("charge j2 1 images asset=a", format!("job j2 was refused as a whole before: {own}")),
        ("charge j3 1 images asset=a", format!("asset a of job j3 was charged before, {retry}")),
        ("charge j3 1 images", format!("job j3 was charged or refused {by_asset}")),
        (
            "charge j4 1 images asset=a",
            format!("asset a of job j4 was refused before, {retry}, and a refusal is final"),
        ),
        ("charge j4 1 images", format!("job j4 was charged or refused {by_asset}")),
    ] {
        assert_eq!(book.refusal(&book::parse(line)), expected, "{line}");
    }
}

/// The plan's at the event's time, and the wallet's own.
#[test]
fn a_refusal_records_the_limit_that_it_would_have_gone_past() {
    let mut book =
        play("contract c1 capped 2026-11-01 => contract_started capped; granted +100 plan:c1:0(+100=100)");
    let mut limit = |line: &str| {
        let records = book.apply(&book::parse(line)).unwrap();
        let record: LedgerRecord<'_> = serde_json::from_str(&records[0]).unwrap();
        (record.entries[0].entry_type, record.entries[0].overdraft_limit)
    };
    assert_eq!(limit("charge j1 111 images"), (EntryType::Refused, Some(10)));
    assert_eq!(limit("limits overdraft=7"), (EntryType::LimitsChanged, None));
    assert_eq!(limit("charge j2 108 images"), (EntryType::Refused, Some(7)));
    assert_eq!(limit("charge j3 107 images"), (EntryType::Charged, None));
}

#[test]
fn a_refusal_uses_up_the_one_charge() {
    play(
        "contract c1 strict 2026-11-01 => contract_started strict; granted +100 plan:c1:0(+100=100)
         charge j1 101 images          => refused 101
         charge j1 1 images            => ! job_conflict
         charge j2 101 images asset=a  => refused 101
         charge j2 1 images asset=a    => ! job_conflict
         charge j2 1 images asset=b    => charged -1 plan:c1:0(-1=99)",
    );
}

#[test]
fn open_grants_are_bounded_and_spent_ones_do_not_count() {
    play_with(
        |config| config.limits.open_grants_max = 2,
        "topup t1 1                  => granted +10 topup:t1(+10=10)
         adjust a1 10                => adjusted +10 adjustment:a1(+10=10)
         topup t2 1                  => ! bad_value
         adjust a2 10                => ! bad_value
         # A known id is the earlier reason.
         topup t1 1                  => ! id_conflict
         adjust a3 -10               => adjusted -10 adjustment:a1(-10=0)
         topup t2 1                  => granted +10 topup:t2(+10=10)
         adjust a2 10                => ! bad_value
         # A contract's months are granted when they fall due, however many grants there are.
         contract c1 lite 2026-11-01 => contract_started lite; granted +200 plan:c1:0(+200=200)",
    );
}

#[test]
fn business_ids_are_bounded() {
    play_with(
        |config| config.limits.business_ids_max = 2,
        "topup t1 1                  => granted +10 topup:t1(+10=10)
         adjust a1 -5                => adjusted -5 topup:t1(-5=5)
         adjust a2 -5                => ! bad_value
         topup t2 1                  => ! bad_value
         contract c1 lite 2026-11-01 => ! bad_value
         topup t1 1                  => ! id_conflict
         charge j1 1 images          => charged -1 topup:t1(-1=4)",
    );
}

/// They are applied without the checks of a table, which would take long with so many.
#[test]
fn contracts_are_bounded() {
    let policy = Book::new(&Config::default()).policy;
    let mut wallet = Wallet::default();
    let mut enter = |command: String| {
        let line = book::parse(&command);
        let moment = Moment {
            event_time: EventTime(line.at),
            clock: ShardClock(line.clock),
            posted_at: PostedAt(line.at),
        };
        let data = line.data.unwrap();
        book::apply_line(&mut wallet, &policy, &data, JobHistory::default(), "e1", moment)
            .map(|entries| entries[0].entry_type)
            .map_err(|rejection| rejection.reason)
    };
    let start = |number: u32| {
        let starts_at = when("2026-11-01").plus_months(number).unwrap().to_string();
        format!("contract c{number} lite {} months=1", starts_at.trim_end_matches('Z'))
    };
    for number in 1..=999 {
        assert_eq!(enter(start(number)), Ok(EntryType::ContractStarted));
    }
    for (command, expected) in [
        (start(1_000), Ok(EntryType::ContractStarted)),
        (start(1_001), Err(Reason::BadValue)),
        // A known id is the earlier reason.
        (start(1), Err(Reason::IdConflict)),
        ("renew c1000".to_owned(), Ok(EntryType::ContractRenewed)),
    ] {
        assert_eq!(enter(command.clone()), expected, "{command}");
    }
}

#[test]
fn a_wallets_own_limit_goes_over_its_plans_until_it_is_given_up() {
    play(
        "contract c1 capped 2026-11-01 => contract_started capped; granted +100 plan:c1:0(+100=100)
         charge j0 100 images          => charged -100 plan:c1:0(-100=0)
         limits overdraft=5            => limits_changed
         charge j1 6 images            => refused 6
         charge j2 5 images            => charged -5
         charge j3 1 images            => refused 1
         limits overdraft=plan         => limits_changed
         charge j4 6 images            => refused 6
         charge j5 5 images            => charged -5
         limits overdraft=none         => limits_changed
         charge j6 1000 images         => charged -1000
         limits overdraft=0            => limits_changed
         charge j7 1 images            => refused 1
         charge j8 1 images model=gratis => charged 0
         = -1010 overdraft 1010 overdrawn | plan:c1:0 0",
    );
    // Without a contract too.
    play(
        "limits overdraft=0            => limits_changed
         charge j1 1 images            => refused 1
         topup t1 1                    => granted +10 topup:t1(+10=10)
         charge j2 11 images           => refused 11
         charge j3 10 images           => charged -10 topup:t1(-10=0)
         = 0 overdraft 0 exhausted | topup:t1 0",
    );
}

/// Whatever its own time: it is a decision about what happens from now on.
#[test]
fn the_limits_that_arrived_last_hold_for_every_event_that_arrives_after_them() {
    play(
        "limits overdraft=5 at=11-05   => limits_changed
         limits overdraft=0 at=11-04   => limits_changed
         charge j1 1 images at=11-01   => refused 1
         limits overdraft=none         => limits_changed
         charge j2 1 images at=11-01   => charged -1",
    );
}

#[test]
fn limits_that_an_event_does_not_name_stay_as_they_are() {
    let mut book = Book::new(&crate::config::Config::default());
    for (command, overdraft, low, critical) in [
        ("limits overdraft=5 low=30 critical=10", Some(Some(5)), Some(30), Some(10)),
        ("limits low=40", Some(Some(5)), Some(40), Some(10)),
        ("limits overdraft=none", Some(None), Some(40), Some(10)),
        ("limits critical=plan", Some(None), Some(40), None),
        ("limits overdraft=plan", None, Some(40), None),
        ("limits low=plan", None, None, None),
        ("limits overdraft=0 low=0 critical=100", Some(Some(0)), Some(0), Some(100)),
    ] {
        assert_eq!(book.enter(&book::parse(command)), "limits_changed");
        let limits = book.wallet.limits;
        assert_eq!(
            (limits.overdraft, limits.low_percent, limits.critical_percent),
            (overdraft, low, critical),
            "{command}"
        );
    }
}

#[test]
fn the_plan_that_limits_is_the_one_in_force_at_the_events_time_booked_changes_included() {
    play(
        "contract c1 lite 2026-10-15 months=2 at=10-15            => contract_started lite; granted +200 plan:c1:0(+200=200)
         charge j0 200 images at=10-16                            => charged -200 plan:c1:0(-200=0)
         # Lite has no limit, capped one of 10.
         change c1 capped from=11-01 at=10-16                     => contract_changed lite
         charge j1 11 images at=10-31T23:59:59.999 clock=10-16    => charged -11
         charge j2 1 images at=11-01 clock=10-16                  => refused 1
         charge j3 1 images at=11-01T00:00:00.001 clock=10-16     => refused 1
         # Where the contract was cancelled, nothing limits after its end.
         cancel c1 from=11-05 at=10-16                            => contract_changed lite
         charge j4 1 images at=11-04T23:59:59.999 clock=10-16     => refused 1
         charge j5 1 images at=11-05 clock=10-16                  => charged -1",
    );
    // A renewal's plan from the seam on.
    play(
        "contract c1 lite 2026-10-01 months=1 at=10-15            => contract_started lite; granted +200 plan:c1:0(+200=200)
         renew c1 plan=strict at=10-15                            => contract_renewed lite
         charge j1 201 images at=10-31T23:59:59.999 clock=10-15   => charged -201 plan:c1:0(-200=0)
         charge j2 1 images at=11-01 clock=10-15                  => refused 1",
    );
}

#[test]
fn what_is_covered_by_grants_counts_before_the_limit() {
    play(
        "contract c1 capped 2026-11-01  => contract_started capped; granted +100 plan:c1:0(+100=100)
         topup t1 1                     => granted +10 topup:t1(+10=10)
         charge j1 121 images           => refused 121
         charge j2 120 images           => charged -120 plan:c1:0(-100=0) topup:t1(-10=0)
         = -10 overdraft 10 overdrawn | plan:c1:0 0 | topup:t1 0
         # Credits that come back make room again.
         refunded j2                    => reversed +120 plan:c1:0(+100=100) topup:t1(+10=10)
         charge j3 120 images           => charged -120 plan:c1:0(-100=0) topup:t1(-10=0)",
    );
}
