//! What producers send, and the books: what must come of it in the end, by plain sums.
//!
//! Whatever the order in which topics are read, whenever timers run and whatever the clocks say, the sums in the end are
//! the same: there are no limits, nothing expires within a run, and every event's time is between one and ten days old.

use std::collections::{BTreeMap, BTreeSet};

use super::broker::{Place, Stored};
use super::random::Random;
use super::scheduler::State;
use crate::kafka::partition_for;
use crate::time::{DAY_MS, HOUR_MS, Timestamp};

/// Plan credits of a month.
const LITE: i64 = 200;
const PACKS: [(u32, i64); 3] = [(100, 555), (250, 1_388), (500, 2_777)];

pub struct Workload {
    pub random: Random,
    pub shards: i32,
    pub wallets: BTreeMap<String, WalletBook>,
    pub counts: Counts,
    /// Ids of events that must be posted, each exactly once.
    pub to_be_posted: BTreeSet<String>,
    /// Records that must be quarantined, each exactly once.
    pub to_be_quarantined: BTreeSet<(Place, i64)>,
    /// Partitions whose committed offset somebody has put back.
    reset: BTreeSet<Place>,
    ids: u32,
    /// Sent events that may be sent once more: topic, wallet, value.
    sent: Vec<(&'static str, String, Vec<u8>)>,
    /// Jobs that may still be completed, ended or refunded.
    requested: Vec<Job>,
    charged: Vec<Job>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Counts {
    pub records: u64,
    pub free: u64,
    pub duplicate: u64,
    pub quarantined: u64,
}

/// What a wallet must come to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WalletBook {
    /// By top-ups, adjustments and usage; allocations are added in the end.
    pub balance: i64,
    pub charges: u64,
    pub charged: i64,
    pub reversed: i64,
    /// When its contract began.
    pub contract: Option<Timestamp>,
}

#[derive(Clone)]
struct Job {
    wallet: String,
    job: String,
    images: i64,
}

impl Workload {
    pub fn new(random: Random, shards: i32, wallets: u64) -> Workload {
        Workload {
            random,
            shards,
            wallets: (0..wallets).map(|number| (format!("w{number}"), WalletBook::default())).collect(),
            counts: Counts::default(),
            to_be_posted: BTreeSet::new(),
            to_be_quarantined: BTreeSet::new(),
            reset: BTreeSet::new(),
            ids: 0,
            sent: Vec::new(),
            requested: Vec::new(),
            charged: Vec::new(),
        }
    }

    /// Appends a record to a source.
    pub fn send(&mut self, state: &mut State) {
        let wall = state.wall_ms(None);
        let at = Timestamp::from_millis(wall - DAY_MS - self.random.below(9 * DAY_MS as u64) as i64);
        let wallets: Vec<String> = self.wallets.keys().cloned().collect();
        let wallet = self.random.one_of(&wallets).clone();
        match self.random.below(100) {
            0..=9 if !self.sent.is_empty() => {
                let (topic, wallet, value) = self.random.one_of(&self.sent).clone();
                self.counts.duplicate += 1;
                self.append(state, topic, &wallet, value);
            }
            10..=13 => {
                self.counts.quarantined += 1;
                let place = self.append(state, "generation.events", &wallet, b"no json".to_vec());
                self.to_be_quarantined.insert(place);
            }
            14..=18 => {
                self.counts.free += 1;
                let value = self.event("ad.created", &wallet, at, "{}");
                self.append(state, "generation.events", &wallet, value);
            }
            _ => self.send_posted(state, &wallet, at),
        }
    }

    /// Appends a record of a wallet of a shard, which costs nothing.
    pub fn send_to(&mut self, state: &mut State, place: Place, shard: i32) {
        let mut wallets = (0..).map(|number| format!("free-{number}"));
        let is_home = |wallet: &String| partition_for(wallet.as_bytes(), self.shards) == shard;
        let wallet = wallets.find(is_home).unwrap();
        let at = Timestamp::from_millis(state.wall_ms(None) - DAY_MS);
        let value = self.event("ad.created", &wallet, at, "{}");
        self.counts.free += 1;
        self.append_at(state, place, &wallet, value);
    }

    /// Somebody puts the group's offsets of some source partitions back to the beginning, or deletes them.
    pub fn reset_group(&mut self, state: &mut State) {
        let places: Vec<Place> = state.broker.group.committed.keys().copied().collect();
        for place in places.into_iter().filter(|(topic, _)| *topic != "credits.intake") {
            match self.random.below(3) {
                0 => drop(state.broker.group.committed.remove(&place)),
                1 => drop(state.broker.group.committed.insert(place, 0)),
                _ => continue,
            }
            self.reset.insert(place);
        }
    }

    /// One more record for each of those partitions: once it is read, the offset is committed again.
    pub fn end_resets(&mut self, state: &mut State) {
        for place in std::mem::take(&mut self.reset) {
            self.counts.quarantined += 1;
            let offset = self.append_at(state, place, "", b"no json".to_vec());
            self.to_be_quarantined.insert((place, offset));
        }
    }

    fn send_posted(&mut self, state: &mut State, wallet: &str, at: Timestamp) {
        let id = self.ids;
        let images = self.random.between(1, 40) as i64;
        let job = format!("j{id}");
        let (topic, wallet, kind, data) = match self.random.below(100) {
            0..=14 => {
                let (usd, credits) = *self.random.one_of(&PACKS);
                self.book(wallet).balance += credits;
                let data = format!(r#"{{"topup_id":"t{id}","amount_usd":{usd}}}"#);
                ("wallet.events", wallet.to_owned(), "topup.purchased", data)
            }
            15..=24 if self.book(wallet).contract.is_none() => {
                let days = self.random.between(5, 300) as i64;
                let starts_at = (at.millis() / DAY_MS - days) * DAY_MS + 3 * HOUR_MS;
                let starts_at = Timestamp::from_millis(starts_at);
                self.book(wallet).contract = Some(starts_at);
                let data = format!(r#"{{"contract_id":"c{id}","plan":"lite","starts_at":"{starts_at}"}}"#);
                ("wallet.events", wallet.to_owned(), "contract.started", data)
            }
            25..=31 => {
                let credits = if self.random.per_mille(500) { images } else { -images };
                self.book(wallet).balance += credits;
                let data =
                    format!(r#"{{"adjustment_id":"a{id}","credits":{credits},"reason":"r","actor":"p"}}"#);
                ("wallet.events", wallet.to_owned(), "wallet.adjusted", data)
            }
            32..=47 => {
                self.requested.push(Job { wallet: wallet.to_owned(), job: job.clone(), images });
                ("generation.events", wallet.to_owned(), "generation.requested", usage(&job, images))
            }
            48..=55 if !self.requested.is_empty() => {
                let place = self.random.below(self.requested.len() as u64) as usize;
                let job = self.requested.swap_remove(place);
                let data = format!(r#"{{"job_id":"{}","reason":"r"}}"#, job.job);
                ("generation.events", job.wallet, "generation.failed", data)
            }
            56..=61 if !self.charged.is_empty() => {
                let place = self.random.below(self.charged.len() as u64) as usize;
                let job = self.charged.swap_remove(place);
                let book = self.book(&job.wallet);
                book.reversed += job.images;
                book.balance += job.images;
                let data = format!(r#"{{"job_id":"{}","reason":"r"}}"#, job.job);
                ("generation.events", job.wallet, "generation.refunded", data)
            }
            choice => {
                let known = choice < 75 && !self.requested.is_empty();
                let job = if known {
                    let place = self.random.below(self.requested.len() as u64) as usize;
                    self.requested.swap_remove(place)
                } else {
                    Job { wallet: wallet.to_owned(), job, images }
                };
                let book = self.book(&job.wallet);
                book.charges += 1;
                book.charged += job.images;
                book.balance -= job.images;
                let data = usage(&job.job, job.images);
                self.charged.push(job.clone());
                ("generation.events", job.wallet, "generation.completed", data)
            }
        };
        let value = self.event(kind, &wallet, at, &data);
        self.to_be_posted.insert(format!("e{}", self.ids));
        self.sent.push((topic, wallet.clone(), value.clone()));
        self.append(state, topic, &wallet, value);
    }

    fn book(&mut self, wallet: &str) -> &mut WalletBook {
        self.wallets.entry(wallet.to_owned()).or_default()
    }

    fn event(&mut self, kind: &str, wallet: &str, at: Timestamp, data: &str) -> Vec<u8> {
        self.ids += 1;
        let id = self.ids;
        format!(
            r#"{{"specversion":"1.0","id":"e{id}","source":"/s","type":"{kind}","subject":"{wallet}","time":"{at}","data":{data}}}"#
        )
        .into_bytes()
    }

    /// Mostly onto the partition of its wallet's shard; some go astray, some through a topic that is split otherwise.
    fn append(
        &mut self,
        state: &mut State,
        topic: &'static str,
        wallet: &str,
        value: Vec<u8>,
    ) -> (Place, i64) {
        let home = partition_for(wallet.as_bytes(), self.shards);
        let place = match self.random.below(10) {
            0 => (topic, self.random.below(self.shards as u64) as i32),
            1 | 2 if topic == "generation.events" => {
                ("other.events", self.random.below(self.shards as u64 + 1) as i32)
            }
            _ => (topic, home),
        };
        let offset = self.append_at(state, place, wallet, value);
        (place, offset)
    }

    fn append_at(&mut self, state: &mut State, place: Place, key: &str, value: Vec<u8>) -> i64 {
        self.counts.records += 1;
        let timestamp = state.wall_ms(None);
        let log = state.broker.logs.entry(place).or_default();
        let offset = log.end();
        let key = Some(key.as_bytes().to_vec());
        log.append(
            Stored { is_marker: false, timestamp, key, value: Some(value), headers: Vec::new() },
            None,
        );
        offset
    }
}

impl WalletBook {
    /// The balance once all months up to then are granted.
    pub fn balance_at(&self, until: Timestamp) -> i64 {
        let months = (0..)
            .map_while(|month| self.contract?.plus_months(month))
            .take_while(|start| *start <= until)
            .count();
        self.balance + LITE * months as i64
    }
}

fn usage(job: &str, images: i64) -> String {
    format!(r#"{{"job_id":"{job}","asset":"image","images":{images}}}"#)
}
