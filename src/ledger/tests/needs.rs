//! The wallets most in need: in order, as many as are allowed, gone when they recover or their shard leaves; and what
//! that costs with 1,000,000 of them.
#![allow(clippy::print_stdout)]

use std::time::{Duration, Instant};

use super::*;
use crate::ledger::needs::{Listed, NeedSeries, Needs, Urgency};
use crate::ledger::shard::{ShardSlot, ShardState};
use crate::metrics::Metrics;
use crate::wallet::{Level, Wallet};

/// An instance with one worker.
struct Instance {
    series: NeedSeries,
    metrics: Metrics,
    limit: usize,
}

impl Instance {
    fn new(limit: usize) -> Instance {
        Instance { series: NeedSeries::default(), metrics: Metrics::new(), limit }
    }

    /// What is exported after these shards were looked at: wallet, plan, level and credits, then what is omitted.
    fn export<'s>(
        &self,
        worker: usize,
        shards: impl IntoIterator<Item = &'s ShardSlot>,
    ) -> (Vec<String>, i64) {
        let states = shards.into_iter().map(|slot| &slot.state);
        self.series.publish(worker, Listed::of(states, self.limit), self.limit, &self.metrics);
        let text = self.metrics.encode();
        let prefix = "creditstream_wallet_available_credits{";
        let label = |line: &str, name: &str| {
            let (_, after) = line.split_once(&format!("{name}=\"")).unwrap();
            after.split('"').next().unwrap().to_owned()
        };
        let told = |line: &str| {
            let credits = line.rsplit(' ').next().unwrap();
            format!("{} {} {} {credits}", label(line, "wallet"), label(line, "plan"), label(line, "level"))
        };
        let mut series: Vec<String> =
            text.lines().filter(|line| line.starts_with(prefix)).map(told).collect();
        series.sort();
        (series, self.metrics.wallet_series_omitted.get())
    }
}

/// A bench of one shard in which each wallet has used so much of its plan: of 200 credits, or of 3,300 for `big`.
fn wallets(used: &[(&str, u32)]) -> Bench {
    let mut bench = Bench::with_shards(1);
    for (wallet, images) in used {
        let id = |what: &str| format!("{wallet}-{what}");
        let plan = if *wallet == "big" { "scale" } else { "lite" };
        bench.run(&[
            contract(&id("c"), &id("c"), plan).of_wallet(wallet),
            usage(&id("u"), &id("j"), *images).of_wallet(wallet),
        ]);
    }
    bench
}

#[test]
fn the_worst_levels_come_first_then_the_least_available_then_the_first_met() {
    let used = [
        ("ok", 10),
        ("low", 170),
        ("critical", 195),
        ("b", 200),
        ("a", 200),
        ("over", 230),
        ("worse", 260),
        ("big", 3_200),
    ];
    let bench = wallets(&used);
    let in_order = [
        "worse lite overdrawn -60",
        "over lite overdrawn -30",
        "b lite exhausted 0",
        "a lite exhausted 0",
        "critical lite critical 5",
        "big scale critical 100",
        "low lite low 30",
    ];
    for limit in 0..=in_order.len() + 1 {
        let (mut found, omitted) = Instance::new(limit).export(0, bench.shards.values());
        let mut expected: Vec<&str> = in_order.iter().copied().take(limit).collect();
        found.sort();
        expected.sort_unstable();
        assert_eq!(found, expected, "limit {limit}");
        assert_eq!(omitted as usize, in_order.len().saturating_sub(limit), "limit {limit}");
    }
}

#[test]
fn a_series_goes_when_its_wallet_recovers_and_makes_room_for_the_next() {
    let mut bench = wallets(&[("a", 200), ("b", 230), ("c", 170)]);
    let instance = Instance::new(2);
    let export = |bench: &Bench| instance.export(0, bench.shards.values());
    assert_eq!(export(&bench), (vec!["a lite exhausted 0".into(), "b lite overdrawn -30".into()], 1));
    bench.run(&[topup("t", "t1", 100).of_wallet("b")]);
    assert_eq!(export(&bench), (vec!["a lite exhausted 0".into(), "c lite low 30".into()], 0));
    // The level changes: a series with other labels, and the old one gone.
    bench.run(&[usage("u2", "j2", 10).of_wallet("a")]);
    assert_eq!(export(&bench), (vec!["a lite overdrawn -10".into(), "c lite low 30".into()], 0));
    // What was computed and not committed changes nothing.
    let batch = bench.batch(&[usage("u3", "j3", 100).of_wallet("c")]);
    bench.compute(&batch);
    assert_eq!(export(&bench).0.len(), 2);
    bench.abort();
    assert_eq!(export(&bench), (vec!["a lite overdrawn -10".into(), "c lite low 30".into()], 0));
}

/// Two workers share the series of their instance; a shard that leaves takes its own with it.
#[test]
fn series_vanish_with_their_shard_and_those_of_another_worker_stay() {
    let one = wallets(&[("a", 200), ("b", 200)]);
    let other = wallets(&[("c", 230)]);
    let instance = Instance::new(2);
    instance.export(0, one.shards.values());
    let (both, omitted) = instance.export(1, other.shards.values());
    assert_eq!(
        (both.as_slice(), omitted),
        (&["a lite exhausted 0".into(), "c lite overdrawn -30".into()][..], 1)
    );
    let (left, omitted) = instance.export(0, []);
    assert_eq!((left.as_slice(), omitted), (&["c lite overdrawn -30".into()][..], 0));
    assert_eq!(instance.export(1, []), (vec![], 0));
}

/// A restored shard finds the same as the one that it replaces; a contract that has ended is no plan any more.
#[test]
fn what_was_kept_up_is_what_a_restored_shard_finds() {
    let mut bench = wallets(&[("a", 200), ("b", 230), ("c", 170), ("d", 195), ("e", 1)]);
    bench.run(&[topup("t", "t1", 100).of_wallet("b"), usage("u", "j", 300).of_wallet("e")]);
    let kept_up = Instance::new(10).export(0, bench.shards.values());
    let policy = bench.policy.clone();
    for slot in bench.shards.values_mut() {
        slot.state.needs = Needs::default();
        slot.state.index(&policy);
    }
    assert_eq!(Instance::new(10).export(0, bench.shards.values()), kept_up);
    assert_eq!(kept_up.0.len(), 4);
}

#[test]
fn a_wallet_whose_contract_has_ended_has_no_plan() {
    let mut bench = wallets(&[("a", 200)]);
    let slot = bench.shards.values_mut().next().unwrap();
    let handle = slot.state.wallets.find("a").unwrap();
    let mut wallet = slot.state.wallets.get(handle).unwrap();
    assert_eq!(crate::ledger::report::plan_of(&wallet), "lite");
    wallet.latest_at = wallet.contracts[0].ends_at;
    assert_eq!(crate::ledger::report::plan_of(&wallet), "none");
}

/// Goal: with 1,000,000 wallets all exhausted the metrics stay small, and keeping up costs next to nothing. Method: they
/// are restored into 12 shards, exported, and touched as by batches. Times are printed; bounds are those of the contract.
#[test]
fn a_million_exhausted_wallets_have_few_series_and_a_quick_scrape() {
    const WALLETS: usize = 1_000_000;
    let bench = Bench::with_shards(1);
    let exhausted = Wallet { seq: 1, level: Level::Exhausted, ..Wallet::default() };
    let mut slots: Vec<ShardSlot> = (0..12).map(|shard| ShardSlot::new(bench::empty_shard(shard))).collect();
    for number in 0..WALLETS {
        let state: &mut ShardState = &mut slots[number % 12].state;
        let handle = state.wallets.handle(&format!("ws_{number:07}"));
        state.wallets.put(handle, &exhausted);
    }
    let instance = Instance::new(200);
    instance.metrics.declare_topics(["generation.events", "wallet.events", "credits.intake"]);
    instance.metrics.declare_plans(["lite", "performance", "scale"]);
    let begun = Instant::now();
    for slot in &mut slots {
        slot.state.index(&bench.policy);
        slot.state.standings.publish(&instance.metrics, 1);
    }
    let restored = begun.elapsed();

    let begun = Instant::now();
    let listed = Listed::of(slots.iter().map(|slot| &slot.state), 200);
    instance.series.publish(0, listed, 200, &instance.metrics);
    let published = begun.elapsed();
    let begun = Instant::now();
    let text = instance.metrics.encode();
    let scraped = begun.elapsed();
    let series = text.lines().filter(|line| !line.starts_with('#')).count();

    let state = &mut slots[0].state;
    let urgency = |available: i64| {
        let mut wallet = exhausted.clone();
        wallet.overdraft = -available;
        Urgency::of(&wallet)
    };
    let (touched, begun) = (10_000, Instant::now());
    for number in 0..touched {
        let handle = state.wallets.find(&format!("ws_{:07}", number * 12)).unwrap();
        state.needs.set(handle, urgency(-(number as i64)));
    }
    let kept_up = begun.elapsed() / touched as u32;
    println!(
        "1,000,000 wallets exhausted: {series} series, {} bytes, scrape {scraped:?}; indexed in {restored:?}, \
         listed in {published:?}, kept up in {kept_up:?} a wallet",
        text.len()
    );
    let named =
        text.lines().filter(|line| line.starts_with("creditstream_wallet_available_credits{")).count();
    assert_eq!((named, instance.metrics.wallet_series_omitted.get()), (200, 999_800));
    assert!(series < 1_000, "{series} series");
    assert!(scraped < Duration::from_millis(100), "{scraped:?}");
}
