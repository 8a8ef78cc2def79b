//! What an endpoint has not taken yet: whose turn it is, when a try is due, and how far everything is settled.
//!
//! Pure: time and chance are passed in. Nothing here knows Kafka or HTTP.
//!
//! **Invariant:** of a wallet one alert is under way at a time, the oldest; a position passes an alert only when it is
//! settled (taken, not wanted, or in the topic of dead alerts).

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::time::Timestamp;

/// Longest pause that a receiver may ask for by Retry-After.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(86_400);

/// A topic that is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// `credits.alerts`.
    Alerts,
    /// `credits.alerts.dead`: of it only what a replay sends.
    Dead,
}

/// Where a record stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Topic.
    pub source: Source,
    /// Partition.
    pub partition: i32,
    /// Offset.
    pub offset: i64,
}

/// An alert on its way to the endpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    /// Where it was read.
    pub place: Place,
    /// Kafka's timestamp: from then on the time counts after which it is given up.
    pub since: Timestamp,
    /// Wallet: what is ordered among itself.
    pub wallet: Arc<str>,
    /// `webhook-id`.
    pub id: String,
    /// What is sent.
    pub body: Bytes,
    /// Why it cannot be sent at all, if so.
    pub unreadable: Option<String>,
}

/// What came of a try.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// Taken.
    Delivered,
    /// 410: the endpoint wants nothing any more.
    Gone,
    /// Neither.
    Failed {
        /// What happened, for a person.
        detail: String,
        /// How long the receiver asks to be left alone.
        retry_after: Option<Duration>,
    },
}

/// What follows from an answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// Settled.
    Done,
    /// To be tried again.
    Later(Timestamp),
    /// To be written to the topic of dead alerts, then [`Queue::settle`]d. With the reason.
    GiveUp(String),
}

/// When to try again.
#[derive(Clone, Copy, Debug)]
pub struct Retry {
    /// First pause.
    pub min: Duration,
    /// Longest pause.
    pub max: Duration,
    /// Age of an alert after which there is no further try.
    pub give_up_after: Duration,
}

/// Alerts of one wallet, the oldest first.
#[derive(Default)]
struct Line {
    items: VecDeque<Item>,
    /// Tries of the first one that failed.
    failures: u32,
}

/// A partition: what is unsettled, and the offset after the last that was read.
#[derive(Default)]
struct Progress {
    unsettled: BTreeSet<i64>,
    next: i64,
    said: i64,
}

/// See the module.
pub struct Queue {
    retry: Retry,
    lines: HashMap<Arc<str>, Line>,
    /// Wallets whose first alert is not under way, by when it is due.
    due: BTreeSet<(Timestamp, Place, Arc<str>)>,
    progress: BTreeMap<(Source, i32), Progress>,
    since: BTreeSet<(Timestamp, Place)>,
    /// The receiver asked to be left alone until then.
    not_before: Timestamp,
    is_gone: bool,
}

impl Retry {
    /// The pause after this many failures (1: the first): doubled each time up to the longest, and of it a half and a
    /// random part of the other half. `chance`: 0 to 1.
    pub fn pause(&self, failures: u32, chance: f64) -> Duration {
        let doubled =
            self.min.saturating_mul(1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX));
        doubled.min(self.max).mul_f64(0.5 + chance.clamp(0.0, 1.0) / 2.0)
    }
}

impl Queue {
    /// Empty.
    pub fn new(retry: Retry) -> Queue {
        Queue {
            retry,
            lines: HashMap::new(),
            due: BTreeSet::new(),
            progress: BTreeMap::new(),
            since: BTreeSet::new(),
            not_before: Timestamp::default(),
            is_gone: false,
        }
    }

    /// Takes an alert; it is due at once, or after those of its wallet before it.
    pub fn push(&mut self, item: Item) {
        let place = item.place;
        let progress = self.progress.entry((place.source, place.partition)).or_default();
        progress.unsettled.insert(place.offset);
        progress.next = progress.next.max(place.offset + 1);
        self.since.insert((item.since, place));
        let line = self.lines.entry(Arc::clone(&item.wallet)).or_default();
        if line.items.is_empty() {
            self.due.insert((item.since, place, Arc::clone(&item.wallet)));
        }
        line.items.push_back(item);
    }

    /// Passes a record that the endpoint does not want.
    pub fn pass(&mut self, place: Place) {
        let progress = self.progress.entry((place.source, place.partition)).or_default();
        progress.next = progress.next.max(place.offset + 1);
    }

    /// The next alert that is due; it counts as under way until [`Queue::answered`] or [`Queue::settle`].
    pub fn take_due(&mut self, now: Timestamp) -> Option<Item> {
        if self.next_due()? > now {
            return None;
        }
        let (.., wallet) = self.due.pop_first()?;
        self.lines.get(&wallet)?.items.front().cloned()
    }

    /// When something is due, as things stand.
    pub fn next_due(&self) -> Option<Timestamp> {
        let (first, ..) = self.due.first()?;
        // What goes to the topic of dead alerts waits for nothing.
        Some(if self.is_gone { Timestamp::default() } else { (*first).max(self.not_before) })
    }

    /// Whether the endpoint wants nothing any more: what is due is to be written to the topic of dead alerts.
    pub fn is_gone(&self) -> bool {
        self.is_gone
    }

    /// Takes the answer to a try. `chance`: 0 to 1, for the pause.
    pub fn answered(&mut self, item: &Item, answer: Answer, now: Timestamp, chance: f64) -> Decision {
        let (detail, retry_after) = match answer {
            Answer::Delivered => {
                self.settle(item, now);
                return Decision::Done;
            }
            Answer::Gone => {
                self.is_gone = true;
                return Decision::GiveUp("410 Gone".to_owned());
            }
            Answer::Failed { detail, retry_after } => (detail, retry_after),
        };
        if let Some(asked) = retry_after {
            self.not_before = self.not_before.max(after(now, asked.min(RETRY_AFTER_MAX)));
        }
        let given_up_at = after(item.since, self.retry.give_up_after);
        if now >= given_up_at {
            return Decision::GiveUp(detail);
        }
        let Some(line) = self.lines.get_mut(&item.wallet) else { return Decision::GiveUp(detail) };
        line.failures = line.failures.saturating_add(1);
        // The last try is made at the end of the time, not somewhere before it.
        let at = after(now, self.retry.pause(line.failures, chance)).min(given_up_at);
        self.due.insert((at, item.place, Arc::clone(&item.wallet)));
        Decision::Later(at.max(self.not_before))
    }

    /// An alert that was under way is settled: the next one of its wallet is due.
    pub fn settle(&mut self, item: &Item, now: Timestamp) {
        let place = item.place;
        if let Some(progress) = self.progress.get_mut(&(place.source, place.partition)) {
            progress.unsettled.remove(&place.offset);
        }
        self.since.remove(&(item.since, place));
        let Some(line) = self.lines.get_mut(&item.wallet) else { return };
        line.items.pop_front();
        line.failures = 0;
        match line.items.front() {
            Some(next) => {
                self.due.insert((now.min(next.since), next.place, Arc::clone(&item.wallet)));
            }
            None => {
                self.lines.remove(&item.wallet);
            }
        }
    }

    /// Alerts that are not settled.
    pub fn len(&self) -> usize {
        self.since.len()
    }

    /// Whether everything is settled.
    pub fn is_empty(&self) -> bool {
        self.since.is_empty()
    }

    /// Kafka's timestamp of the oldest alert that is not settled.
    pub fn oldest(&self) -> Option<Timestamp> {
        self.since.first().map(|(since, _)| *since)
    }

    /// Offsets to go on from, of the partitions where they changed since the last call.
    pub fn take_positions(&mut self) -> Vec<(Source, i32, i64)> {
        let mut changed = Vec::new();
        for ((source, partition), progress) in &mut self.progress {
            let position = progress.unsettled.first().copied().unwrap_or(progress.next);
            if position > progress.said {
                progress.said = position;
                changed.push((*source, *partition, position));
            }
        }
        changed
    }

    /// Forgets everything that was read: its partitions are somebody else's now. A pause that was asked for stays.
    pub fn clear(&mut self) {
        self.lines.clear();
        self.due.clear();
        self.progress.clear();
        self.since.clear();
    }
}

fn after(at: Timestamp, pause: Duration) -> Timestamp {
    at.plus_millis(i64::try_from(pause.as_millis()).unwrap_or(i64::MAX))
}
