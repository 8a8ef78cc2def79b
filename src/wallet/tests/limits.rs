//! Overdraft limits, the one charge of a job, and the bounds of a wallet.

use super::*;
use crate::event::Data;

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
         charge j1 455 images at=11-05            => charged -455 topup:t1(-455=0)
         charge j2 11 images at=11-09T23:59:59.999 => refused 11
         # From the 10th on an image costs 2 and the limit is 20.
         charge j3 10 images at=11-10             => charged -20
         charge j4 1 images at=11-10              => refused 2
         charge j5 1 images at=11-09              => refused 1
         # After its term there is no limit again.
         charge j6 50 images at=2027-11-05        => charged -100",
    );
}

#[test]
fn a_debit_goes_past_any_limit_and_what_grants_cover_is_never_refused() {
    play(
        "contract c1 strict 2026-11-01 => contract_started strict; granted +100 plan:c1:0(+100=100)
         adjust a1 -130                => adjusted -130 plan:c1:0(-100=0)
         = -30 overdraft 30 overdrawn | plan:c1:0 0
         charge j1 1 images            => refused 1
         # This one was not valid when the overdraft was made, and pays for what happened before.
         adjust a2 20 expires=11-02 at=11-03 => adjusted +20 adjustment:a2(+20=20)
         charge j2 20 images at=11-01  => charged -20 adjustment:a2(-20=0)
         = -30 overdraft 30 overdrawn | plan:c1:0 0 | adjustment:a2 0",
    );
}

#[test]
fn a_refusal_says_what_it_would_have_cost_and_touches_nothing() {
    let mut book =
        play("contract c1 strict 2026-11-01 => contract_started strict; granted +100 plan:c1:0(+100=100)");
    let before = book.wallet.clone();
    let json = book.apply(&book::parse("charge j1 50 seconds model=veo-3")).unwrap();
    let record: LedgerRecord<'_> = serde_json::from_str(&json).unwrap();
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

#[test]
fn every_history_of_a_job_allows_what_it_must() {
    use JobCharge::{ByAsset, Whole};
    let history = |job, asset_charged| JobHistory { job, asset_charged, is_counted: job.is_some() };
    for (job, whole_allowed, asset_allowed) in [
        (history(None, false), true, true),
        (history(Some(Whole), false), false, false),
        (history(Some(Whole), true), false, false),
        (history(Some(ByAsset), false), false, true),
        (history(Some(ByAsset), true), false, false),
    ] {
        for (command, is_allowed) in
            [("charge j 1 images", whole_allowed), ("charge j 1 images asset=a", asset_allowed)]
        {
            let book = Book::new(&crate::config::Config::default());
            let mut wallet = Wallet::default();
            let line = book::parse(command);
            let applied = book::apply_line(&mut wallet, &book.policy, &line, job, "e1");
            let reason = applied.map(|_| ()).map_err(|rejection| rejection.reason);
            let expected = if is_allowed { Ok(()) } else { Err(crate::event::Reason::JobConflict) };
            assert_eq!(reason, expected, "{job:?} {command}");
        }
    }
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
         contract c1 lite 2026-11-01 => ! bad_value
         # A known id is the earlier reason.
         topup t1 1                  => ! id_conflict
         adjust a3 -10               => adjusted -10 adjustment:a1(-10=0)
         topup t2 1                  => granted +10 topup:t2(+10=10)
         charge j1 99 images         => charged -99 topup:t1(-10=0) topup:t2(-10=0)",
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

/// Goal: wallets are independent. Method: the same commands, alone and in turns with those of another wallet.
#[test]
fn what_happens_in_one_wallet_changes_nothing_in_another() {
    let commands = [
        "topup t1 1",
        "charge j1 15 images",
        "contract c1 capped 2026-11-01",
        "charge j2 300 images",
        "adjust a1 -3",
    ];
    let alone: Vec<Book> = (0..2)
        .map(|first| {
            let mut book = Book::new(&crate::config::Config::default());
            commands
                .iter()
                .cycle()
                .skip(first)
                .take(5)
                .for_each(|command| drop(book.enter(&book::parse(command))));
            book
        })
        .collect();
    let mut turns =
        [Book::new(&crate::config::Config::default()), Book::new(&crate::config::Config::default())];
    for step in 0..5 {
        for (first, book) in turns.iter_mut().enumerate() {
            book.enter(&book::parse(commands[(first + step) % 5]));
        }
    }
    for (alone, in_turns) in alone.iter().zip(&turns) {
        assert_eq!(alone.records, in_turns.records);
        assert_eq!(alone.wallet, in_turns.wallet);
    }
    assert!(matches!(book::parse(commands[1]).data, Data::Completed(_)));
}
