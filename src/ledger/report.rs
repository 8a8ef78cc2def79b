//! From a committed batch to metrics. Nothing here decides anything.

use std::collections::{BTreeMap, HashMap};

use super::books::{Books, Outcome};
use super::process::Tally;
use super::routes::Routes;
use crate::metrics::{Metrics, NO_PLAN};
use crate::time::Timestamp;
use crate::wallet::{Level, Wallet};

/// How many wallets moved from one plan and level to another.
#[derive(Default)]
pub struct LevelChanges(HashMap<(Box<str>, Level), i64>);

impl LevelChanges {
    /// A wallet changed, or came (without `before`).
    pub fn change(&mut self, before: Option<&Wallet>, after: &Wallet) {
        if before.is_some_and(|before| plan_of(before) == plan_of(after) && before.level == after.level) {
            return;
        }
        if let Some(before) = before {
            *self.0.entry((plan_of(before).into(), before.level)).or_default() -= 1;
        }
        *self.0.entry((plan_of(after).into(), after.level)).or_default() += 1;
    }

    /// Wallets of a shard that came (1) or went (-1).
    pub fn shard<'w>(&mut self, wallets: impl Iterator<Item = &'w Wallet>, sign: i64) {
        for wallet in wallets {
            *self.0.entry((plan_of(wallet).into(), wallet.level)).or_default() += sign;
        }
    }

    /// Adds to the gauges.
    pub fn publish(self, metrics: &Metrics) {
        for ((plan, level), change) in self.0 {
            metrics.wallets.with_label_values(&[&*plan, level.as_str()]).add(change);
        }
    }
}

/// The plan that a wallet had last: it does not change with the clock, so that gauges add up.
fn plan_of(wallet: &Wallet) -> &str {
    wallet.contracts.last().map_or(NO_PLAN, |contract| &contract.plan)
}

/// Outcomes by topic.
#[derive(Default)]
pub struct Outcomes(BTreeMap<usize, [u64; Outcome::ALL.len()]>);

impl Outcomes {
    /// What a batch added to a partition's books.
    pub fn add(&mut self, topic: usize, before: &Books, after: &Books) {
        let counts = self.0.entry(topic).or_default();
        for (count, outcome) in counts.iter_mut().zip(Outcome::ALL) {
            *count += after.get(outcome).saturating_sub(before.get(outcome));
        }
    }

    /// Adds to the counters.
    pub fn publish(self, metrics: &Metrics, routes: &Routes) {
        for (topic, counts) in self.0 {
            let Some(topic) = routes.topic(topic) else { continue };
            for (count, outcome) in counts.into_iter().zip(Outcome::ALL).filter(|(count, _)| *count > 0) {
                metrics.events.with_label_values(&[&topic.name, outcome.as_str()]).inc_by(count);
            }
        }
    }
}

/// A committed batch.
pub fn batch(metrics: &Metrics, tally: &Tally, events: usize) {
    let now = Timestamp::now();
    let now_seconds = now.millis() as f64 / 1_000.0;
    metrics.batch_events.observe(events as f64);
    metrics.last_commit_timestamp_seconds.set(now_seconds);
    let to_balance = metrics.event_to_balance_seconds.local();
    for timestamp in &tally.posted {
        to_balance.observe(now.millis().saturating_sub(timestamp.millis()).max(0) as f64 / 1_000.0);
    }
    to_balance.flush();
    for reason in &tally.reasons {
        metrics.quarantined_events.with_label_values(&[reason.as_str()]).inc();
    }
    if !tally.reasons.is_empty() {
        metrics.quarantine_latest_timestamp_seconds.set(now_seconds);
    }
    let flows = &tally.flows;
    for (flow, credits) in [
        ("granted", flows.granted),
        ("charged", flows.charged),
        ("refused", flows.refused),
        ("adjusted_up", flows.adjusted_up),
        ("adjusted_down", flows.adjusted_down),
    ] {
        metrics.credits.with_label_values(&[flow]).inc_by(credits.unsigned_abs());
    }
}
