//! Random sequences of commands. [`Book::apply`] checks after each that the sums close, that no grant is below 0,
//! that `seq` has no gap, that the fold of all entries is the wallet (through JSON, packed, and through a snapshot
//! too), that an entry folded twice changes nothing, and that a rejected command changes nothing.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::config::Config;

/// Around the bounds of versions, of expiries, of terms and of the allowed lateness.
fn time() -> impl Strategy<Value = &'static str> {
    proptest::sample::select(vec![
        "10-31",
        "11-01",
        "11-03",
        "11-05",
        "11-05T00:59:59.999",
        "11-05T01:00",
        "11-09T23:59:59.999",
        "11-10",
        "11-20",
        "12-01",
        "12-01T01:00",
        "2027-01-05",
        "2027-02-10",
    ])
}

/// An option of a command, or nothing.
fn option(name: &'static str, value: impl Strategy<Value = &'static str>) -> impl Strategy<Value = String> {
    proptest::option::of(value)
        .prop_map(move |value| value.map_or(String::new(), |value| format!(" {name}={value}")))
}

/// Commands about few ids, so that conflicts, overdraft, refusals and reversals are frequent.
fn command() -> impl Strategy<Value = String> {
    let words = |words: &[&'static str]| proptest::sample::select(words.to_vec());
    let id = || 0_u8..12;
    let contract = || 0_u8..3;
    let plan = || words(&["lite", "capped", "strict", "scale"]);
    let model = || words(&["", " model=half", " model=gratis", " model=veo-3"]);
    let asset = || words(&["", "", " asset=a", " asset=b"]);
    let unit = || words(&["images", "seconds"]);
    let ending = words(&["failed", "rejected", "cancelled", "refunded"]);
    let percent = || words(&["0", "10", "50", "100", "plan"]);
    prop_oneof![
        6 => (0_u8..20, 1_u32..80, unit(), model(), asset(), time(), time())
            .prop_map(|(job, number, unit, model, asset, at, clock)| format!("charge j{job} {number} {unit}{model}{asset} at={at} clock={clock}")),
        4 => (0_u8..20, 1_u32..80, unit(), asset(), time())
            .prop_map(|(job, number, unit, asset, at)| format!("hold j{job} {number} {unit}{asset} at={at} clock=10-31")),
        4 => (ending, 0_u8..20, asset(), time(), time())
            .prop_map(|(ending, job, asset, at, clock)| format!("{ending} j{job}{asset} at={at} clock={clock}")),
        2 => (id(), words(&["1", "100"]), time()).prop_map(|(id, usd, at)| format!("topup t{id} {usd} at={at}")),
        3 => (id(), 1_i64..150, option("expires", time()), time())
            .prop_map(|(id, credits, expires, at)| format!("adjust a{id} {credits}{expires} at={at}")),
        1 => (id(), 1_i64..300, time()).prop_map(|(id, credits, at)| format!("adjust d{id} -{credits} at={at}")),
        2 => (contract(), plan(), time(), 1_u32..3, time())
            .prop_map(|(id, plan, start, months, at)| format!("contract c{id} {plan} {start} months={months} at={at} clock=10-31")),
        2 => (contract(), plan(), option("from", time()), time())
            .prop_map(|(id, plan, from, at)| format!("change c{id} {plan}{from} at={at} clock=10-31")),
        2 => (contract(), option("plan", plan()), option("months", words(&["1", "2"])), time())
            .prop_map(|(id, plan, months, at)| format!("renew c{id}{plan}{months} at={at} clock=10-31")),
        1 => (contract(), option("from", time()), time())
            .prop_map(|(id, from, at)| format!("cancel c{id}{from} at={at} clock=10-31")),
        1 => (option("overdraft", words(&["0", "10", "none", "plan"])), option("low", percent()), option("critical", percent()))
            .prop_map(|(overdraft, low, critical)| format!("limits{overdraft}{low}{critical} at=11-01")),
        2 => time().prop_map(|at| format!("tick at={at}")),
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
            .then(wallet.id_order(a).cmp(&wallet.id_order(b)))
    });
    let mut left: Vec<(String, i64)> =
        grants.iter().map(|grant| (wallet.grant_id(grant).into(), grant.remaining)).collect();
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
        assert!(
            !entry.plan.is_empty() || before.limits.overdraft.is_some(),
            "a plan or the wallet has a limit"
        );
    }
}

/// All entries of a book, in order.
fn entries(book: &Book) -> Vec<Entry<'_>> {
    let records = book.records.iter().map(|record| serde_json::from_str::<LedgerRecord<'_>>(record).unwrap());
    records.flat_map(|record| record.entries).collect()
}

/// Each job and asset is charged or refused once, and given back at most once and at most what it cost.
fn check_jobs(book: &Book) {
    let mut jobs: HashMap<(String, String), (u32, i64, u32)> = HashMap::new();
    for entry in entries(book) {
        let name = (entry.job_id.to_string(), entry.asset_id.to_string());
        let (charges, credits, reversals) = jobs.entry(name.clone()).or_default();
        match entry.entry_type {
            EntryType::Charged | EntryType::Refused => (*charges, *credits) = (*charges + 1, entry.credits),
            EntryType::Reversed => {
                *reversals += 1;
                assert_eq!(entry.credits, -*credits, "{name:?}: as much as was charged");
            }
            _ => {}
        }
        assert!(*charges <= 1 && *reversals <= *charges, "{name:?}");
    }
    let is_whole = |(job, asset): &&(String, String)| !job.is_empty() && asset.is_empty();
    for (job, _) in jobs.keys().filter(is_whole) {
        let charged =
            |(name, (charges, ..)): (&(String, String), &(u32, i64, u32))| name.0 == *job && *charges > 0;
        let by_asset = jobs.iter().filter(|(name, _)| !name.1.is_empty()).any(charged);
        assert!(
            !(by_asset && jobs[&(job.clone(), String::new())].0 > 0),
            "{job} is charged whole or by asset"
        );
    }
}

/// A month is granted at most what the best plan is worth, and once.
fn check_months(book: &Book) {
    let mut months: HashMap<(String, u32), i64> = HashMap::new();
    let mut first_grants = 0;
    for entry in entries(book) {
        let Some(terms) = entry.grant.filter(|terms| terms.month.is_some()) else { continue };
        assert!(entry.credits > 0, "a zero grant posts nothing");
        first_grants += usize::from(!terms.is_difference);
        *months.entry((terms.contract_id.to_string(), terms.month.unwrap())).or_default() += entry.credits;
    }
    assert_eq!(months.len(), first_grants);
    assert!(months.values().all(|credits| (100..=3_300).contains(credits)), "{months:?}");
}

/// A grant expires for what is left of it, and again only for what came back since.
fn check_expiries(book: &Book) {
    for entry in entries(book).iter().filter(|entry| entry.entry_type == EntryType::Expired) {
        let [effect] = &entry.grant_effects[..] else { panic!("{entry:?}") };
        assert!(effect.credits < 0 && effect.remaining_after == 0, "{entry:?}");
        assert!(effect.expires_at.is_some(), "{entry:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_sequence_of_commands_keeps_the_books(commands in proptest::collection::vec(command(), 1..40)) {
        let mut book = Book::new(&Config::default());
        for command in commands {
            let before = book.wallet.clone();
            let line = book::parse(&command);
            let Ok(records) = book.apply(&line) else { continue };
            if line.data.is_some() {
                let record: LedgerRecord<'_> = serde_json::from_str(&records[0]).unwrap();
                record.entries.iter().for_each(|entry| check_draws(&before, entry));
                let incoming = record.entries[0].grant.is_some();
                prop_assert!(!incoming || book.wallet.overdraft <= before.overdraft);
            }
        }
        let mut folded = Wallet::default();
        for record in &book.records {
            let record: LedgerRecord<'_> = serde_json::from_str(record).unwrap();
            folded.fold_record(&record, book.policy.horizon_days).unwrap();
        }
        prop_assert_eq!(&folded, &book.wallet);
        prop_assert_eq!(folded.seq as usize, entries(&book).len());
        check_jobs(&book);
        check_months(&book);
        check_expiries(&book);
    }

    /// When all time has passed nothing is held, no contract runs, and nothing that may expire is left.
    #[test]
    fn in_the_end_nothing_is_due(commands in proptest::collection::vec(command(), 1..40)) {
        let mut book = Book::new(&Config::default());
        for command in commands {
            drop(book.apply(&book::parse(&command)));
        }
        drop(book.apply(&book::parse("tick at=2035-01-01")));
        prop_assert_eq!(next_due(&book.wallet, &book.policy), None);
        prop_assert_eq!(book.wallet.held, 0);
        prop_assert!(book.wallet.contracts.iter().all(|contract| contract.is_ended));
        prop_assert!(book.wallet.grants.iter().all(|grant| grant.expires_at.is_none() || grant.remaining == 0));
    }

    /// Of a job that has both a completion and a failure nothing is left, whatever stands between them.
    #[test]
    fn a_failed_job_costs_nothing(
        mut commands in proptest::collection::vec(command(), 0..20),
        first in 0_usize..20,
        second in 0_usize..20,
        cost in 1_u32..400,
    ) {
        let first = first.min(commands.len());
        commands.insert(first, format!("charge own {cost} images at=11-03 clock=10-31"));
        let second = second.min(commands.len());
        commands.insert(second, "failed own at=11-03 clock=10-31".to_owned());
        let mut book = Book::new(&Config::default());
        for command in commands {
            drop(book.apply(&book::parse(&command)));
        }
        let of_own = |entry: &Entry<'_>| if entry.job_id == "own" { entry.credits } else { 0 };
        prop_assert_eq!(entries(&book).iter().map(of_own).sum::<i64>(), 0);
    }

    /// The parts of a bucket add up to what was charged, given back and refused, whatever was dropped in between.
    #[test]
    fn the_buckets_add_up_to_the_charges(commands in proptest::collection::vec(command(), 1..60), restart in 0_usize..60) {
        let mut book = Book::new(&Config::default());
        for (index, command) in commands.iter().enumerate() {
            if index == restart {
                let clock = crate::time::ShardClock(when("11-03"));
                let holds = book.wallet.holds.clone();
                let restored = WalletSnapshot::of("w1", &book.wallet, clock, &book.policy.pricing).into_wallet();
                book.wallet = Wallet { holds, ..restored };
            }
            drop(book.apply(&book::parse(command)));
        }
        let mut parts = HashMap::new();
        let (mut charged, mut reversed, mut refused, mut images) = (0, 0, 0, 0);
        let entries = entries(&book);
        for entry in &entries {
            match entry.entry_type {
                EntryType::Charged => (charged, images) = (charged - entry.credits, images + u64::from(entry.images)),
                EntryType::Reversed => reversed += entry.credits,
                EntryType::Refused => refused += entry.amount,
                _ => {
                    prop_assert!(entry.bucket.is_none(), "no usage");
                    continue;
                }
            }
            let bucket = entry.bucket.unwrap();
            let key = (bucket.hour, entry.asset_type, entry.model.to_string(), entry.plan.to_string(), bucket.part);
            parts.insert(key, bucket);
        }
        prop_assert_eq!(parts.values().map(|bucket| bucket.credits_charged).sum::<i64>(), charged);
        prop_assert_eq!(parts.values().map(|bucket| bucket.credits_reversed).sum::<i64>(), reversed);
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
