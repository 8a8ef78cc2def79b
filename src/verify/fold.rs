//! One shard of the ledger, read from its beginning by nobody's rules but those of the published format.
//!
//! Owns what the entries add up to: each wallet's last state, totals by hour, records by origin. It shares no state and
//! no counter with the running service, and reads only the fields that it compares. Pure.

use std::collections::{BTreeMap, HashMap, VecDeque};

use rustc_hash::FxHashMap;
use serde::Deserialize;

use super::alerts::LedgerAlerts;
use super::entry::{EntryView, LedgerRecordView};
use super::report::{Check, Difference};
use crate::time::{HOUR_MS, Timestamp};
use crate::wallet::Level;

/// A snapshot may be so much older than what the ledger holds of its wallet. It is written within seconds while an
/// instance runs; a first of the month takes minutes.
const SNAPSHOT_LAG_MS_MAX: i64 = 10 * 60_000;
/// Wallets of a shard that a watch remembers, about 200 bytes each.
const WALLETS_MAX: usize = 200_000;

/// What the entries of a shard that were posted in one hour add up to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HourTotals {
    /// How many.
    pub entries: u64,
    /// Sum of their effects on balances.
    pub credits: i64,
    /// Sum of their effects on what is held.
    pub held_credits: i64,
    /// Sum of their hashes, modulo 2^64.
    pub hash: u64,
    /// Offsets of the first and of the last in the ledger; of no interest where they come from ClickHouse.
    pub offsets: (i64, i64),
}

/// The start of the hour in which something was posted, hours since the epoch.
pub const fn hour_of(posted_at: Timestamp) -> i64 {
    posted_at.millis().div_euclid(HOUR_MS)
}

/// A wallet's latest state, as `credits.wallets` has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct Snapshot {
    /// Last entry that it covers.
    pub seq: u64,
    /// Balance, credits.
    pub balance: i64,
    /// Held, credits.
    pub held: i64,
    /// Overdraft, credits.
    pub overdraft: i64,
    /// Where it stands in its topic.
    #[serde(skip)]
    pub offset: i64,
}

/// What the entries of a wallet say so far.
#[derive(Clone, Copy, Debug, Default)]
struct Folded {
    seq: u64,
    balance: i64,
    held: i64,
    overdraft: i64,
    level: Level,
    /// When the first entry was posted that the snapshot does not cover.
    uncovered_since: Option<Timestamp>,
}

/// Which entries are looked at, by the time at which they were posted.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// From then on.
    pub from: Timestamp,
    /// Until before then.
    pub to: Timestamp,
    /// It begins with the ledger: every wallet must begin with entry 1.
    pub is_whole: bool,
}

impl Window {
    /// Whether something posted then lies in it.
    pub fn contains(&self, posted_at: Timestamp) -> bool {
        self.from <= posted_at && posted_at < self.to
    }
}

/// Where a record came from that an event made, and what the shard's ledger held of it before.
pub struct Origin<'o> {
    /// Topic.
    pub topic: &'o str,
    /// Partition.
    pub partition: i32,
    /// Offset.
    pub offset: i64,
    /// Records of this topic and partition that were counted before.
    pub nth: u64,
    /// How often its offsets fell before: each time a newer topic of that name began.
    pub falls: usize,
}

/// Whether a record of this origin is in the books that the count is compared with.
pub type Cut<'c> = &'c dyn Fn(&Origin<'_>) -> bool;

/// What a shard's ledger holds of an origin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Posted {
    /// Records that count.
    pub records: u64,
    last_offset: i64,
    falls: usize,
}

/// A shard, as far as it was read.
pub struct ShardFold {
    shard: i32,
    window: Window,
    /// Entries before this offset are in ClickHouse, says the sink's group.
    sink_position: i64,
    /// Wallets' latest states, to be compared with.
    pub snapshots: FxHashMap<Box<str>, Snapshot>,
    wallets: FxHashMap<Box<str>, Folded>,
    /// Entries that ClickHouse must have, by hour of posting.
    pub hours: BTreeMap<i64, HourTotals>,
    /// Records that an event made, by its origin.
    pub posted: HashMap<(Box<str>, i32), Posted>,
    /// All entries that count.
    pub entries: u64,
    /// Entries of these that the sink has not written yet, as far as its group says.
    pub ahead_of_sink: u64,
    newest: Timestamp,
    text: String,
    /// So many entries ahead of the sink are kept until [`ShardFold::advance`] says that it has come to them.
    pub ahead_max: usize,
    ahead: VecDeque<Ahead>,
    /// There were more than that: the totals by hour are not to be relied upon any more.
    pub is_overfull: bool,
    /// What the entries tell of alerts; `None`: nobody asks.
    pub alerts: Option<LedgerAlerts>,
}

/// What is kept of an entry that the sink has not written yet.
struct Ahead {
    offset: i64,
    hour: i64,
    credits: i64,
    held_credits: i64,
    hash: u64,
}

impl ShardFold {
    /// Nothing read yet.
    pub fn new(shard: i32, window: Window, sink_position: i64) -> ShardFold {
        ShardFold {
            shard,
            window,
            sink_position,
            snapshots: FxHashMap::default(),
            wallets: FxHashMap::default(),
            hours: BTreeMap::new(),
            posted: HashMap::new(),
            entries: 0,
            ahead_of_sink: 0,
            newest: Timestamp::from_millis(0),
            text: String::new(),
            ahead_max: 0,
            ahead: VecDeque::new(),
            is_overfull: false,
            alerts: None,
        }
    }

    /// Takes in a record of `credits.wallets`; the last of a wallet stands.
    pub fn add_snapshot(&mut self, key: &[u8], value: &[u8], offset: i64, check: &mut Check) {
        let read = std::str::from_utf8(key).ok().zip(serde_json::from_slice::<Snapshot>(value).ok());
        let Some((wallet_id, snapshot)) = read else {
            let what = format!("the record at offset {offset} of the wallets topic cannot be read");
            check.differs(self.difference(None, None, what, 1, 0));
            return;
        };
        // A watch may have met the entry before.
        if let Some(folded) = self.wallets.get(wallet_id).filter(|folded| folded.seq == snapshot.seq).copied()
        {
            self.compare_state(wallet_id, &snapshot, &folded, check);
        }
        self.snapshots.insert(wallet_id.into(), Snapshot { offset, ..snapshot });
    }

    /// Takes in a tombstone of `credits.wallets`: the wallet's entries were cut away, all of them.
    pub fn remove_snapshot(&mut self, key: &[u8]) {
        if let Ok(wallet_id) = std::str::from_utf8(key) {
            self.snapshots.remove(wallet_id);
        }
    }

    /// Takes in a record of the ledger.
    pub fn add(&mut self, value: &[u8], offset: i64, cut: Cut<'_>, source: &mut Check, wallets: &mut Check) {
        let record: LedgerRecordView<'_> = match LedgerRecordView::decode(value) {
            Ok(record) => record,
            Err(error) => {
                let what = format!("the ledger record at offset {offset} cannot be read: {error}");
                source.differs(self.difference(None, None, what, 1, 0));
                return;
            }
        };
        let wallet_id = &*record.wallet_id;
        let level_before = self.wallets.get(wallet_id).map_or(Level::Ok, |folded| folded.level);
        let mut counts = false;
        for entry in &record.entries {
            if self.window.contains(entry.posted_at) {
                counts |= self.add_entry(wallet_id, entry, offset, source, wallets);
            }
        }
        if let Some(alerts) = self.alerts.as_mut().filter(|_| counts) {
            alerts.add(&record, offset, level_before);
        }
        let Some(first) = record.entries.first().filter(|first| counts && !first.origin_topic.is_empty())
        else {
            return;
        };
        let (topic, partition, offset) = (&*first.origin_topic, first.origin_partition, first.origin_offset);
        let posted = self.posted.entry((topic.into(), partition)).or_default();
        posted.falls += usize::from(offset < posted.last_offset);
        posted.last_offset = offset;
        let origin = Origin { topic, partition, offset, nth: posted.records, falls: posted.falls };
        posted.records += u64::from(cut(&origin));
    }

    /// Whether the entry counts: it is the wallet's next.
    fn add_entry(
        &mut self,
        wallet_id: &str,
        entry: &EntryView<'_>,
        offset: i64,
        source: &mut Check,
        wallets: &mut Check,
    ) -> bool {
        let Some(before) = self.before(wallet_id, entry) else {
            let what =
                format!("entry {} does not follow upon entry 0: entries before it are missing", entry.seq);
            source.differs(self.difference(Some(wallet_id), Some(entry.seq), what, 1, 0));
            self.wallets.insert(wallet_id.into(), Folded { seq: entry.seq, ..after(entry) });
            return true;
        };
        if entry.seq <= before.seq {
            let what = format!(
                "the entry stands in the ledger twice, the second time at offset {offset}: readers pass it over"
            );
            source.differs(self.difference(
                Some(wallet_id),
                Some(entry.seq),
                what,
                1,
                entry.credits.unsigned_abs(),
            ));
            return false;
        }
        if entry.seq > before.seq + 1 {
            let what = format!("entries {} to {} are missing", before.seq + 1, entry.seq - 1);
            let credits = (entry.balance_after - entry.credits).abs_diff(before.balance);
            let missing = entry.seq - before.seq - 1;
            source.differs(self.difference(Some(wallet_id), Some(entry.seq), what, missing, credits));
        } else if entry.balance_after != before.balance.saturating_add(entry.credits)
            || entry.held_after != before.held.saturating_add(entry.held_credits)
        {
            let what = format!(
                "the entry says balance {} and held {} after it; by the entries before it that is {} and {}",
                entry.balance_after,
                entry.held_after,
                before.balance.saturating_add(entry.credits),
                before.held.saturating_add(entry.held_credits)
            );
            let credits = entry.balance_after.abs_diff(before.balance.saturating_add(entry.credits));
            wallets.differs(self.difference(Some(wallet_id), Some(entry.seq), what, 1, credits));
        }
        self.entries += 1;
        self.newest = self.newest.max(entry.posted_at);
        self.count_hour(wallet_id, entry, offset);
        self.keep(wallet_id, before, entry, wallets);
        true
    }

    /// What the wallet's entries said before this one; `None`: it must be the first, and is not.
    fn before(&self, wallet_id: &str, entry: &EntryView<'_>) -> Option<Folded> {
        match self.wallets.get(wallet_id) {
            Some(folded) => Some(*folded),
            None if entry.seq == 1 => Some(Folded::default()),
            None if self.window.is_whole => None,
            // The window begins in the middle of this wallet's life.
            None => Some(Folded {
                seq: entry.seq.saturating_sub(1),
                balance: entry.balance_after.saturating_sub(entry.credits),
                held: entry.held_after.saturating_sub(entry.held_credits),
                overdraft: entry.overdraft_after,
                level: entry.level,
                uncovered_since: None,
            }),
        }
    }

    fn count_hour(&mut self, wallet_id: &str, entry: &EntryView<'_>, offset: i64) {
        let is_ahead = offset >= self.sink_position;
        self.ahead_of_sink += u64::from(is_ahead);
        if is_ahead && self.ahead.len() >= self.ahead_max {
            self.is_overfull = true;
            return;
        }
        let hash = entry.hash(wallet_id, offset, &mut self.text);
        let (hour, credits, held_credits) = (hour_of(entry.posted_at), entry.credits, entry.held_credits);
        let counted = Ahead { offset, hour, credits, held_credits, hash };
        if is_ahead {
            self.ahead.push_back(counted);
        } else {
            self.count(&counted);
        }
    }

    fn count(&mut self, entry: &Ahead) {
        let totals = self.hours.entry(entry.hour).or_default();
        if totals.entries == 0 {
            totals.offsets.0 = entry.offset;
        }
        totals.offsets.1 = entry.offset;
        totals.entries += 1;
        totals.credits = totals.credits.wrapping_add(entry.credits);
        totals.held_credits = totals.held_credits.wrapping_add(entry.held_credits);
        totals.hash = totals.hash.wrapping_add(entry.hash);
    }

    /// The sink has come to this offset. A position that went back, after a reset of its group, changes nothing.
    pub fn advance(&mut self, sink_position: i64) {
        self.sink_position = self.sink_position.max(sink_position);
        while let Some(entry) = self.ahead.pop_front_if(|entry| entry.offset < sink_position) {
            self.count(&entry);
        }
    }

    /// Entries below this offset are counted, and in ClickHouse.
    pub fn sink_position(&self) -> i64 {
        self.sink_position
    }

    /// Last entry of a wallet; 0: it has none.
    pub fn last_seq(&self, wallet_id: &str) -> u64 {
        self.wallets.get(wallet_id).map_or(0, |folded| folded.seq)
    }

    /// How many entries are kept until the sink has come to them.
    #[cfg(test)]
    pub fn ahead(&self) -> usize {
        self.ahead.len()
    }

    /// Forgets hours before this one, and wallets once they are many: they are learnt again from their next entries.
    pub fn forget(&mut self, oldest_hour: i64) {
        self.hours = self.hours.split_off(&oldest_hour);
        if self.wallets.len() > WALLETS_MAX || self.snapshots.len() > WALLETS_MAX {
            self.wallets = FxHashMap::default();
            self.snapshots = FxHashMap::default();
        }
    }

    /// Keeps the wallet's state after the entry, and compares it with the snapshot that covers the wallet up to here.
    fn keep(&mut self, wallet_id: &str, before: Folded, entry: &EntryView<'_>, check: &mut Check) {
        let mut now = after(entry);
        match self.snapshots.get(wallet_id).copied() {
            Some(snapshot) if snapshot.seq == entry.seq => {
                self.compare_state(wallet_id, &snapshot, &now, check)
            }
            Some(snapshot) if snapshot.seq > entry.seq => {}
            _ => now.uncovered_since = Some(before.uncovered_since.unwrap_or(entry.posted_at)),
        }
        match self.wallets.get_mut(wallet_id) {
            Some(folded) => *folded = now,
            None => drop(self.wallets.insert(wallet_id.into(), now)),
        }
    }

    fn compare_state(&self, wallet_id: &str, snapshot: &Snapshot, folded: &Folded, check: &mut Check) {
        check.compared += 1;
        if (snapshot.balance, snapshot.held, snapshot.overdraft)
            != (folded.balance, folded.held, folded.overdraft)
        {
            let what = format!(
                "its latest state says balance {}, held {}, overdraft {}; its entries say {}, {}, {}",
                snapshot.balance,
                snapshot.held,
                snapshot.overdraft,
                folded.balance,
                folded.held,
                folded.overdraft
            );
            let credits = snapshot.balance.abs_diff(folded.balance);
            check.differs(self.difference(Some(wallet_id), Some(snapshot.seq), what, 1, credits));
        }
    }

    /// The shard was read to its end: states that are ahead of it, or far behind.
    pub fn finish(&self, check: &mut Check) {
        // Where the window has an end, a state may be newer than that.
        let states = self.snapshots.iter().filter(|_| self.window.to == Timestamp::MAX);
        for (wallet_id, snapshot) in states {
            let last = self.last_seq(wallet_id);
            if snapshot.seq > last && (self.window.is_whole || last > 0) {
                let what = format!(
                    "its latest state covers entry {}, but the ledger ends with entry {last}",
                    snapshot.seq
                );
                check.differs(self.difference(Some(wallet_id), Some(snapshot.seq), what, 1, 0));
            }
        }
        for (wallet_id, folded) in &self.wallets {
            let Some(since) = folded.uncovered_since else { continue };
            if self.newest.millis() - since.millis() > SNAPSHOT_LAG_MS_MAX {
                let seq = self.snapshots.get(wallet_id).map_or(0, |snapshot| snapshot.seq);
                let what = format!(
                    "its latest state covers entry {seq} only; entry {} is there, and later ones have been since {since}",
                    folded.seq
                );
                let credits = self
                    .snapshots
                    .get(wallet_id)
                    .map_or(0, |snapshot| snapshot.balance)
                    .abs_diff(folded.balance);
                check.differs(self.difference(Some(wallet_id), Some(folded.seq), what, 1, credits));
            }
        }
    }

    fn difference(
        &self,
        wallet_id: Option<&str>,
        seq: Option<u64>,
        what: String,
        records: u64,
        credits: u64,
    ) -> Difference {
        let place = format!("shard {}", self.shard);
        Difference { place, wallet_id: wallet_id.map(str::to_owned), seq, what, records, credits }
    }
}

fn after(entry: &EntryView<'_>) -> Folded {
    Folded {
        seq: entry.seq,
        balance: entry.balance_after,
        held: entry.held_after,
        overdraft: entry.overdraft_after,
        level: entry.level,
        uncovered_since: None,
    }
}
