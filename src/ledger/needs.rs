//! The wallets most in need: which they are in a shard, and the series that name the first of them.
//!
//! Most in need first: the worst level, then the least available, then the wallet id. A wallet whose level is `ok` is in
//! no need. The order is kept up with each committed batch, for the wallets that it touched; from it the first are read
//! off once a second.
//!
//! **Invariant:** [`Needs`] hold every committed wallet of a shard that is low or worse, once. At most
//! `alerts.series_limit` wallets of an instance have a series; those in need and without one are counted. Must never look
//! at all wallets, but where a shard is restored.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use super::report::plan_of;
use super::shard::ShardState;
use crate::metrics::Metrics;
use crate::wallet::{Level, Wallet};

/// How much in need a wallet is: the least is the most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Urgency {
    level: Reverse<Level>,
    available: i64,
}

/// A wallet in need, in the order of needs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Need {
    urgency: Urgency,
    wallet_id: Box<str>,
}

/// The wallets of a shard that are in need.
#[derive(Debug, Default)]
pub struct Needs(BTreeSet<Need>);

/// What a worker exports: the first of its wallets in need with their plans, and how many there are.
#[derive(Debug, Default)]
pub struct Listed {
    first: Vec<(Need, Box<str>)>,
    count: usize,
}

/// The series of an instance. Its workers share them.
#[derive(Default)]
pub struct NeedSeries(Mutex<Exported>);

#[derive(Default)]
struct Exported {
    by_worker: BTreeMap<usize, Listed>,
    /// Labels of the series that there are: wallet, plan, level.
    series: BTreeSet<(Box<str>, Box<str>, Level)>,
}

impl Urgency {
    /// Of a wallet that is low or worse.
    pub fn of(wallet: &Wallet) -> Option<Urgency> {
        let is_in_need = wallet.level > Level::Ok;
        is_in_need.then(|| Urgency { level: Reverse(wallet.level), available: wallet.available() })
    }
}

impl Needs {
    /// Of all wallets of a shard at once.
    pub fn of(wallets: impl Iterator<Item = (Box<str>, Urgency)>) -> Needs {
        Needs(wallets.map(|(wallet_id, urgency)| Need { urgency, wallet_id }).collect())
    }

    /// A wallet changed, or came.
    pub fn move_one(&mut self, wallet_id: &str, before: Option<Urgency>, after: Option<Urgency>) {
        if before == after {
            return;
        }
        let need = |urgency| Need { urgency, wallet_id: wallet_id.into() };
        if let Some(before) = before {
            self.0.remove(&need(before));
        }
        if let Some(after) = after {
            self.0.insert(need(after));
        }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }
}

impl Listed {
    /// The first of all wallets of these shards that are in need, at most `limit`.
    pub fn of<'s>(shards: impl Iterator<Item = &'s ShardState>, limit: usize) -> Listed {
        let mut count = 0;
        let mut first: Vec<(&Need, &ShardState)> = Vec::new();
        for state in shards {
            count += state.needs.count();
            first.extend(state.needs.0.iter().take(limit).map(|need| (need, state)));
        }
        first.sort_unstable_by_key(|(need, _)| *need);
        first.truncate(limit);
        let with_plan = |(need, state): (&Need, &ShardState)| {
            let wallet = state.wallets.find(&need.wallet_id).and_then(|handle| state.wallets.get(handle))?;
            Some((need.clone(), plan_of(&wallet).into()))
        };
        Listed { first: first.into_iter().filter_map(with_plan).collect(), count }
    }
}

impl NeedSeries {
    /// Takes what a worker has now, and exports the first of all workers.
    pub fn publish(&self, worker: usize, listed: Listed, limit: usize, metrics: &Metrics) {
        let mut exported = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        exported.by_worker.insert(worker, listed);
        let workers = exported.by_worker.values();
        let mut first: Vec<&(Need, Box<str>)> = workers.clone().flat_map(|listed| &listed.first).collect();
        first.sort_unstable();
        first.truncate(limit);
        let count: usize = workers.map(|listed| listed.count).sum();

        let gauge = &metrics.wallet_available_credits;
        let mut series = BTreeSet::new();
        for (need, plan) in &first {
            let level = need.urgency.level.0;
            gauge.with_label_values(&[&*need.wallet_id, plan, level.as_str()]).set(need.urgency.available);
            series.insert((need.wallet_id.clone(), plan.clone(), level));
        }
        let omitted = count.saturating_sub(first.len());
        metrics.wallet_series_omitted.set(i64::try_from(omitted).unwrap_or(i64::MAX));
        for (wallet_id, plan, level) in exported.series.difference(&series) {
            // An error says that there is none.
            let _ = gauge.remove_label_values(&[&**wallet_id, plan, level.as_str()]);
        }
        exported.series = series;
    }
}
