//! The wallets most in need: which they are in a shard, and the series that name the first of them.
//!
//! Most in need first: the worst level, then the least available, then the one that was met first. A wallet whose level is
//! `ok` is in no need. A batch writes down how much in need the wallets are that it touched, which costs next to nothing;
//! once a second that list is looked through for the first. An order that each batch kept up cost a tenth of its time
//! where many wallets are overdrawn.
//!
//! **Invariant:** [`Needs`] name every committed wallet of a shard that is low or worse. At most `alerts.series_limit`
//! wallets of an instance have a series; those in need and without one are counted. Must never unpack all wallets, but
//! where a shard is restored.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::{Mutex, PoisonError};

use super::report::plan_of;
use super::shard::ShardState;
use super::wallets::Handle;
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

/// How much in need the wallets of a shard are.
#[derive(Debug, Default)]
pub struct Needs {
    by_place: Vec<Option<Urgency>>,
    count: usize,
}

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
    /// How much in need a wallet is from now on.
    pub fn set(&mut self, handle: Handle, urgency: Option<Urgency>) {
        if handle.place() >= self.by_place.len() {
            self.by_place.resize(handle.place() + 1, None);
        }
        let Some(place) = self.by_place.get_mut(handle.place()) else { return };
        let before = std::mem::replace(place, urgency);
        self.count = self.count + usize::from(urgency.is_some()) - usize::from(before.is_some());
    }

    /// The first, at most `limit`; in no order.
    fn first(&self, limit: usize) -> impl Iterator<Item = (Urgency, Handle)> {
        // The least in need of those that were found is on top.
        let mut first = BinaryHeap::with_capacity(limit + 1);
        for (urgency, handle) in self.by_place.iter().zip(Handle::all()) {
            let Some(urgency) = urgency else { continue };
            if first.len() < limit || first.peek().is_some_and(|last| (*urgency, handle) < *last) {
                first.push((*urgency, handle));
                if first.len() > limit {
                    first.pop();
                }
            }
        }
        first.into_iter()
    }
}

impl Listed {
    /// The first of all wallets of these shards that are in need, at most `limit`.
    pub fn of<'s>(shards: impl Iterator<Item = &'s ShardState>, limit: usize) -> Listed {
        let mut listed = Listed::default();
        for state in shards {
            listed.count += state.needs.count;
            let with_plan = |(urgency, handle)| {
                let plan = plan_of(&state.wallets.get(handle)?).into();
                Some((Need { urgency, wallet_id: state.wallets.id(handle).into() }, plan))
            };
            listed.first.extend(state.needs.first(limit).filter_map(with_plan));
        }
        listed.first.sort_unstable();
        listed.first.truncate(limit);
        listed
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
