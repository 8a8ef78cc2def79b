//! Random sequences of commands. [`Book::apply`] checks after each that the sums close, that no grant is below 0,
//! that `seq` has no gap, that the fold of all entries is the wallet (through JSON and through a snapshot too),
//! and that a rejected command changes nothing.

use proptest::prelude::*;

use super::*;
use crate::config::Config;

/// Commands about few ids, so that conflicts, overdraft and refusals are frequent. Times lie around the bounds
/// of versions and of expiries.
fn command() -> impl Strategy<Value = String> {
    let time = || {
        proptest::sample::select(vec![
            "11-01",
            "11-03",
            "11-05",
            "11-09T23:59:59.999",
            "11-10",
            "11-20",
            "12-01",
        ])
    };
    let id = || 0_u8..12;
    let model = proptest::sample::select(vec!["", " model=half", " model=gratis", " model=veo-3"]);
    let asset = proptest::sample::select(vec!["", "", " asset=a", " asset=b"]);
    let unit = proptest::sample::select(vec!["images", "seconds"]);
    prop_oneof![
        6 => (0_u8..40, 1_u32..80, unit, model, asset, time(), time())
            .prop_map(|(job, number, unit, model, asset, at, clock)| format!("charge j{job} {number} {unit}{model}{asset} at={at} clock={clock}")),
        2 => (id(), proptest::sample::select(vec!["1", "100"]), time()).prop_map(|(id, usd, at)| format!("topup t{id} {usd} at={at}")),
        3 => (id(), 1_i64..150, proptest::option::of(time()), time()).prop_map(|(id, credits, expires, at)| {
            let expires = expires.map_or(String::new(), |expires| format!(" expires={expires}"));
            format!("adjust a{id} {credits}{expires} at={at}")
        }),
        1 => (id(), 1_i64..300, time()).prop_map(|(id, credits, at)| format!("adjust d{id} -{credits} at={at}")),
        1 => (id(), proptest::sample::select(vec!["lite", "capped", "strict"]), time(), 1_u32..3, time())
            .prop_map(|(id, plan, start, months, at)| format!("contract c{id} {plan} {start} months={months} at={at}")),
    ]
}

/// What a charge of `cost` must draw, by another implementation: one credit at a time.
fn naive_draws(wallet: &Wallet, cost: i64, at: crate::time::Timestamp) -> Vec<(String, i64)> {
    let mut grants: Vec<&Grant> =
        wallet.grants.iter().filter(|grant| grant.expires_at.is_none_or(|expiry| at < expiry)).collect();
    grants.sort_by(|a, b| {
        let never = |grant: &Grant| grant.expires_at.is_none();
        (a.priority.cmp(&b.priority))
            .then(never(a).cmp(&never(b)))
            .then(a.expires_at.cmp(&b.expires_at))
            .then(a.granted_at.cmp(&b.granted_at))
            .then(a.grant_id.cmp(&b.grant_id))
    });
    let mut left: Vec<(String, i64)> =
        grants.iter().map(|grant| (grant.grant_id.to_string(), grant.remaining)).collect();
    let full = left.clone();
    for _ in 0..cost {
        if let Some((_, remaining)) = left.iter_mut().find(|(_, remaining)| *remaining > 0) {
            *remaining -= 1;
        }
    }
    let drawn = full.into_iter().zip(left).map(|((id, before), (_, after))| (id, before - after));
    drawn.filter(|(_, drawn)| *drawn > 0).collect()
}

/// Draws of an entry that takes credits, and what the naive implementation says.
fn check_draws(before: &Wallet, entry: &Entry<'_>) {
    let takes = matches!(entry.entry_type, EntryType::Charged | EntryType::Adjusted) && entry.grant.is_none();
    if takes {
        let drawn: Vec<(String, i64)> =
            entry.grant_effects.iter().map(|effect| (effect.grant_id.to_string(), -effect.credits)).collect();
        assert_eq!(drawn, naive_draws(before, -entry.credits, entry.event_time));
        let covered: i64 = drawn.iter().map(|(_, drawn)| drawn).sum();
        assert_eq!(
            entry.overdraft_after - before.overdraft,
            -entry.credits - covered,
            "the rest is overdraft"
        );
    }
    if entry.entry_type == EntryType::Refused {
        let covered: i64 =
            naive_draws(before, entry.amount, entry.event_time).iter().map(|(_, drawn)| drawn).sum();
        assert!(before.overdraft + entry.amount - covered > 0 && covered < entry.amount, "{entry:?}");
        assert!(!entry.plan.is_empty(), "only a plan has a limit");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_sequence_of_commands_keeps_the_books(commands in proptest::collection::vec(command(), 1..40)) {
        let mut book = Book::new(&Config::default());
        for command in commands {
            let before = book.wallet.clone();
            if let Ok(json) = book.apply(&book::parse(&command)) {
                let record: LedgerRecord<'_> = serde_json::from_str(&json).unwrap();
                check_draws(&before, &record.entries[0]);
                let incoming = record.entries[0].grant.is_some();
                prop_assert!(!incoming || book.wallet.overdraft <= before.overdraft);
            }
        }
        let mut folded = Wallet::default();
        for record in &book.records {
            let record: LedgerRecord<'_> = serde_json::from_str(record).unwrap();
            for entry in &record.entries {
                folded.fold(entry).unwrap();
            }
        }
        prop_assert_eq!(&folded, &book.wallet);
        prop_assert_eq!(folded.seq as usize, book.records.iter().map(|record| record.matches("\"seq\":").count()).sum::<usize>());
    }

    /// The parts of a bucket add up to what was charged, whatever was dropped in between.
    #[test]
    fn the_buckets_add_up_to_the_charges(commands in proptest::collection::vec(command(), 1..60), restart in 0_usize..60) {
        let mut book = Book::new(&Config::default());
        let mut parts = std::collections::HashMap::new();
        let (mut charged, mut refused, mut images) = (0, 0, 0);
        for (index, command) in commands.iter().enumerate() {
            if index == restart {
                let clock = crate::time::ShardClock(when("11-03"));
                book.wallet = WalletSnapshot::of("w1", &book.wallet, clock).into_wallet();
            }
            let Ok(json) = book.apply(&book::parse(command)) else { continue };
            let record: LedgerRecord<'_> = serde_json::from_str(&json).unwrap();
            for entry in record.entries {
                let Some(bucket) = entry.bucket else { continue };
                let key = (bucket.hour, entry.asset_type, entry.model.to_string(), entry.plan.to_string(), bucket.part);
                parts.insert(key, bucket);
                charged -= entry.credits;
                if entry.entry_type == EntryType::Refused {
                    refused += entry.amount;
                } else {
                    images += u64::from(entry.images);
                }
            }
        }
        prop_assert_eq!(parts.values().map(|bucket| bucket.credits_charged).sum::<i64>(), charged);
        prop_assert_eq!(parts.values().map(|bucket| bucket.credits_refused).sum::<i64>(), refused);
        prop_assert_eq!(parts.values().map(|bucket| bucket.images).sum::<u64>(), images);
    }

    /// From whatever level, a level is what its definition says: never better than its threshold, and worse only
    /// by the hysteresis.
    #[test]
    fn a_level_is_within_the_hysteresis_of_its_threshold(
        before in proptest::sample::select(Level::ALL.to_vec()),
        available in -50_i64..400,
        base in 0_i64..1_000,
    ) {
        let level = LevelRules::new(&Config::default().alerts).level(before, available, available, base);
        let percent = |percent: i64| available * 100 <= percent * base;
        let plain = match available {
            ..0 => Level::Overdrawn,
            0 => Level::Exhausted,
            _ if percent(5) => Level::Critical,
            _ if percent(20) => Level::Low,
            _ => Level::Ok,
        };
        prop_assert!(level >= plain);
        if level > plain {
            prop_assert_eq!(level, before);
            let left_above = if level == Level::Critical { 10 } else { 25 };
            prop_assert!(percent(left_above));
        }
    }
}
