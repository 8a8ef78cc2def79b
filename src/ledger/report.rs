//! From a committed batch to metrics. Nothing here decides anything.

use std::collections::{BTreeMap, HashMap};

use compact_str::CompactString;

use super::books::{Books, Outcome};
use super::process::Tally;
use super::routes::Routes;
use crate::metrics::{Metrics, NO_PLAN};
use crate::time::Timestamp;
use crate::wallet::{Level, Wallet};

/// What a wallet counts as.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Standing {
    /// The plan in force, or [`NO_PLAN`].
    plan: CompactString,
    level: Level,
}

/// How many wallets have which plan and level; or how that changed.
#[derive(Clone, Debug, Default)]
pub struct Standings(HashMap<Standing, i64>);

impl Standing {
    /// What a wallet counts as.
    pub fn of(wallet: &Wallet) -> Standing {
        Standing { plan: plan_of(wallet).into(), level: wallet.level }
    }

    fn is_of(&self, wallet: &Wallet) -> bool {
        self.level == wallet.level && *self.plan == *plan_of(wallet)
    }
}

/// The label of its plan: the one in force by the time by which its level is reckoned. It changes with its entries only,
/// never with the clock, so that gauges add up.
pub fn plan_of(wallet: &Wallet) -> &str {
    let contract = wallet.contract_at(wallet.latest_at);
    contract.map_or(NO_PLAN, |contract| contract.plan_at(wallet.latest_at))
}

impl Standings {
    /// A wallet came (1) or went (-1).
    pub fn count(&mut self, wallet: Option<&Wallet>, sign: i64) {
        if let Some(wallet) = wallet {
            *self.0.entry(Standing::of(wallet)).or_default() += sign;
        }
    }

    /// A wallet changed, or came (without `before`).
    pub fn move_one(&mut self, before: Option<Standing>, after: &Wallet) {
        if before.as_ref().is_some_and(|before| before.is_of(after)) {
            return;
        }
        if let Some(before) = before {
            *self.0.entry(before).or_default() -= 1;
        }
        *self.0.entry(Standing::of(after)).or_default() += 1;
    }

    /// Adds others, or takes them away (-1).
    pub fn add(&mut self, others: &Standings, sign: i64) {
        for (standing, count) in &others.0 {
            *self.0.entry(standing.clone()).or_default() += sign * count;
        }
    }

    /// Adds to the gauges, or takes from them (-1).
    pub fn publish(&self, metrics: &Metrics, sign: i64) {
        for (standing, count) in &self.0 {
            metrics.wallets.with_label_values(&[&*standing.plan, standing.level.as_str()]).add(sign * count);
        }
    }
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
    metrics.unknown_refunds.inc_by(tally.unknown_refunds);
    for (kind, level) in &tally.alerts {
        metrics.alerts.with_label_values(&[kind.as_str(), level.as_str()]).inc();
    }
    if !tally.reasons.is_empty() {
        metrics.quarantine_latest_timestamp_seconds.set(now_seconds);
    }
    let flows = &tally.flows;
    for (flow, credits) in [
        ("granted", flows.granted),
        ("charged", flows.charged),
        ("reversed", flows.reversed),
        ("expired", flows.expired),
        ("refused", flows.refused),
        ("adjusted_up", flows.adjusted_up),
        ("adjusted_down", flows.adjusted_down),
    ] {
        metrics.credits.with_label_values(&[flow]).inc_by(credits.unsigned_abs());
    }
}
