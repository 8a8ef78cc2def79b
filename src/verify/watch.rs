//! The same comparison, again and again, beside the running service: what is new, and what was posted of late.
//!
//! Each instance watches the shards whose ledger its sink reads, so that the figures of all instances add up. The books
//! are compared since the watch of a shard began, ClickHouse for what was posted in the window. What takes reading all of
//! the topics (intake, quarantine, states of wallets that nothing happens to) is left to `verify`.
//!
//! **Invariant:** it never holds up the sink or the ledger stage, and its memory is bounded.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use rdkafka::consumer::BaseConsumer;
use tokio::sync::watch;

use super::fold::{HourTotals, Origin, ShardFold, Window};
use super::report::{Between, Check, Difference};
use super::source::Progress;
use super::stored::Stored;
use super::{VerifyError, committed, sources};
use crate::config::Config;
use crate::kafka::{Clients, KafkaLog, ReadError, Stretch, TopicReader};
use crate::metrics::Metrics;
use crate::time::{HOUR_MS, Timestamp};

/// Entries that wait for the sink are kept up to here, 50 bytes each, the same share for every shard; beyond, a shard is
/// not watched until the sink has come closer.
const AHEAD_MAX: usize = 2_000_000;
/// Differences that a log line names.
const LOGGED_MAX: usize = 20;

/// Watches until dropped. `owned`: the partitions of the ledger that the sink of this instance reads.
pub async fn watch(config: Arc<Config>, metrics: Metrics, owned: watch::Receiver<BTreeSet<i32>>) {
    let Some(interval) = config.drift.interval() else { return };
    let mut watched = None;
    loop {
        tokio::time::sleep(interval).await;
        let shards = owned.borrow().clone();
        match look(&config, &mut watched, &shards).await {
            Ok(found) => publish(&metrics, &found),
            // The time of the last check tells that there was none. What was half read is read anew.
            Err(error) => {
                watched = None;
                tracing::warn!(%error, "drift could not be checked; tried again");
            }
        }
    }
}

async fn look(
    config: &Arc<Config>,
    watch: &mut Option<Watch>,
    shards: &BTreeSet<i32>,
) -> Result<BTreeMap<&'static str, (u64, u64)>, VerifyError> {
    let watch = match watch {
        Some(watch) => watch,
        None => watch.insert(Watch::new(config)?),
    };
    watch.look(shards).await
}

fn publish(metrics: &Metrics, found: &BTreeMap<&'static str, (u64, u64)>) {
    for (between, (records, credits)) in found {
        let to_gauge = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        metrics.drift_records.with_label_values(&[between]).set(to_gauge(*records));
        metrics.drift_credits.with_label_values(&[between]).set(to_gauge(*credits));
        let now = Timestamp::now().millis() as f64 / 1_000.0;
        metrics.drift_checked_timestamp_seconds.with_label_values(&[between]).set(now);
    }
}

/// What is watched, and since when.
struct Watch {
    config: Arc<Config>,
    reader: TopicReader,
    sink_group: BaseConsumer<KafkaLog>,
    stored: Stored,
    shard_count: i32,
    /// Partitions of each source topic.
    sources: Vec<(String, i32)>,
    shards: BTreeMap<i32, Watched>,
    /// Shards that are not watched, for the sink is too far behind.
    waiting: BTreeSet<i32>,
    /// Differences in the ledger itself, until they are older than the window.
    faults: VecDeque<(Instant, Between, u64, u64)>,
    /// What was said last, so that the same is not said every time.
    said: Vec<Difference>,
}

/// One shard.
struct Watched {
    fold: ShardFold,
    next_ledger: i64,
    next_state: i64,
    /// The books when it began.
    base: Progress,
    /// Everything below this offset of the ledger is in those books, or aborted.
    settled: i64,
    /// Records of the sources that were counted since, and the next offset, by topic and partition.
    counted: HashMap<(String, i32), (u64, i64)>,
}

impl Watched {
    /// Whether the books go on from those that it began with, and from what was counted since.
    fn goes_on_in(&self, books: &Progress) -> bool {
        let is_counted = |((topic, partition), (_, next)): (&(String, i32), &(u64, i64))| {
            books.of(topic, *partition).is_none_or(|progress| progress.offset + 1 >= *next)
        };
        self.base.goes_on_in(books) && self.counted.iter().all(is_counted)
    }
}

/// All source topics, with the number of their partitions.
fn with_partitions(config: &Config, reader: &TopicReader) -> Result<Vec<(String, i32)>, ReadError> {
    let topics = sources(config).into_iter();
    topics.map(|topic| reader.partitions(&topic).map(|count| (topic, count))).collect()
}

impl Watch {
    fn new(config: &Arc<Config>) -> Result<Watch, VerifyError> {
        let clients = Clients::new(Arc::clone(config));
        let reader = TopicReader::new(&clients, "drift")?;
        let sink_group = clients.group_reader(&config.sink.group).map_err(ReadError::from)?;
        let shard_count = reader.partitions(&config.topics.ledger)?;
        let sources = with_partitions(config, &reader)?;
        let stored = Stored::new(&config.clickhouse);
        Ok(Watch {
            config: Arc::clone(config),
            reader,
            sink_group,
            stored,
            shard_count,
            sources,
            shards: BTreeMap::new(),
            waiting: BTreeSet::new(),
            faults: VecDeque::new(),
            said: Vec::new(),
        })
    }

    /// Looks at what is new. Records and credits that differ, by what is compared.
    async fn look(
        &mut self,
        owned: &BTreeSet<i32>,
    ) -> Result<BTreeMap<&'static str, (u64, u64)>, VerifyError> {
        self.shards.retain(|shard, _| owned.contains(shard));
        let mut source = tokio::task::block_in_place(|| self.read(owned))?;
        let mut clickhouse = Check::new(Between::LedgerClickhouse);
        self.compare_hours(&mut clickhouse).await?;

        let mut found: BTreeMap<&'static str, (u64, u64)> =
            Between::WATCHED.into_iter().map(|between| (between.as_str(), (0, 0))).collect();
        let mut add = |between: Between, records: u64, credits: u64| {
            let sum = found.entry(between.as_str()).or_default();
            *sum = (sum.0 + records, sum.1.saturating_add(credits));
        };
        for check in [&source, &clickhouse] {
            add(check.between, check.drift_records, check.drift_credits);
        }
        self.faults.iter().for_each(|(_, between, records, credits)| add(*between, *records, *credits));
        source.differences.extend(clickhouse.differences);
        self.say(source.differences);
        Ok(found)
    }

    /// Reads what is new in the topics of these shards; how the books compare.
    fn read(&mut self, owned: &BTreeSet<i32>) -> Result<Check, VerifyError> {
        let topics = self.config.topics.clone();
        let positions = committed(&self.sink_group, &topics.ledger, self.shard_count)?;
        let (mut lasting, mut wallets) =
            (Check::new(Between::SourceLedger), Check::new(Between::LedgerWallets));

        // Asked before the books are read: what stands below is in them.
        let settled = |shard: &i32| Ok((*shard, self.reader.stable(&topics.ledger, *shard)?));
        let settled = owned.iter().map(settled).collect::<Result<BTreeMap<i32, i64>, ReadError>>()?;
        // The books are read before the ledger: what they count stands in it by now.
        let before = self.progress(owned, &mut lasting)?;
        if !self.shards.values().all(|watched| watched.goes_on_in(&before)) {
            tracing::info!("a source is not what it was: the watch begins anew");
            self.shards.clear();
            // They are met again.
            self.faults.clear();
            self.sources = with_partitions(&self.config, &self.reader)?;
        }
        let ahead_max = AHEAD_MAX / owned.len().max(1);
        for (shard, settled) in settled {
            let position = positions.get(&shard).copied().unwrap_or(0);
            if !self.shards.contains_key(&shard) && !self.must_wait(shard, position, ahead_max)? {
                let begun = self.begin(shard, &before, settled)?;
                self.shards.insert(shard, begun);
            }
        }
        self.shards.values_mut().for_each(|watched| watched.fold.ahead_max = ahead_max);
        let mut now = Check::new(Between::SourceLedger);
        // What the ledger held when it was read last, these books must count.
        self.compare_posted(&before, &mut now, |posted, books| posted > books);
        self.read_states(&topics.wallets, &mut wallets)?;
        self.read_ledger(&topics.ledger, &positions, &mut lasting, &mut wallets)?;
        self.compare_posted(&before, &mut now, |posted, books| posted < books);
        self.count_sources(&before, &mut now)?;

        let at = Instant::now();
        for check in [lasting, wallets] {
            if !check.is_equal() {
                self.faults.push_back((at, check.between, check.drift_records, check.drift_credits));
                self.say(check.differences);
            }
        }
        let window = self.config.drift.window();
        while self.faults.front().is_some_and(|(since, ..)| since.elapsed() > window) {
            self.faults.pop_front();
        }
        Ok(now)
    }

    /// Whether the sink is too far behind for a shard to be watched.
    fn must_wait(&mut self, shard: i32, position: i64, ahead_max: usize) -> Result<bool, ReadError> {
        let behind = self.reader.whole(&self.config.topics.ledger, shard)?.to - position;
        if usize::try_from(behind).unwrap_or(0) <= ahead_max {
            self.waiting.remove(&shard);
            return Ok(false);
        }
        if self.waiting.insert(shard) {
            tracing::warn!(shard, behind, "the sink is too far behind: drift in this shard is not watched");
        }
        Ok(true)
    }

    /// The progress of these shards, and of the partitions whose number belongs to them.
    fn progress(&self, owned: &BTreeSet<i32>, check: &mut Check) -> Result<Progress, VerifyError> {
        let topic = &self.config.topics.progress;
        let stretches = owned.iter().map(|shard| self.reader.whole(topic, *shard));
        Ok(Progress::read(&self.reader, topic, &stretches.collect::<Result<Vec<_>, _>>()?, check)?)
    }

    /// Begins with whole hours, so that their totals can be compared.
    fn begin(&self, shard: i32, base: &Progress, settled: i64) -> Result<Watched, VerifyError> {
        let topics = &self.config.topics;
        let from = Timestamp::now().plus_millis(-self.window_ms()).hour();
        let window = Window { from, to: Timestamp::MAX, is_whole: false };
        let fold = ShardFold::new(shard, window, 0);
        let mut ledger = [self.reader.whole(&topics.ledger, shard)?];
        self.reader.begin_at(&topics.ledger, &mut ledger, from.millis())?;
        let [ledger] = ledger;
        let next_state = self.reader.whole(&topics.wallets, shard)?.to;
        let counted = self.sources_of(shard).map(|(topic, partition)| {
            let next = base.of(topic, partition).map_or(0, |progress| progress.offset + 1);
            ((topic.to_owned(), partition), (0, next))
        });
        Ok(Watched {
            fold,
            next_ledger: ledger.from,
            next_state,
            counted: counted.collect(),
            base: base.clone(),
            settled,
        })
    }

    fn window_ms(&self) -> i64 {
        i64::try_from(self.config.drift.window().as_millis()).unwrap_or(i64::MAX)
    }

    /// The partitions of sources whose progress stands in the partition of a shard.
    fn sources_of(&self, shard: i32) -> impl Iterator<Item = (&str, i32)> {
        let step = usize::try_from(self.shard_count).unwrap_or(1).max(1);
        self.sources
            .iter()
            .flat_map(move |(topic, count)| (shard..*count).step_by(step).map(move |at| (topic.as_str(), at)))
    }

    fn read_states(&mut self, topic: &str, check: &mut Check) -> Result<(), VerifyError> {
        let mut stretches = Vec::new();
        for (shard, watched) in &mut self.shards {
            let to = self.reader.whole(topic, *shard)?.to;
            stretches.push(Stretch { partition: *shard, from: watched.next_state, to });
            watched.next_state = to;
        }
        let shards = &mut self.shards;
        self.reader.read(topic, &stretches, |record| {
            let watched = shards.get_mut(&record.partition);
            let (Some(watched), Some(key)) = (watched, record.key) else { return };
            match record.value {
                Some(value) => watched.fold.add_snapshot(key, value, record.offset, check),
                None => watched.fold.remove_snapshot(key),
            }
        })?;
        Ok(())
    }

    fn read_ledger(
        &mut self,
        topic: &str,
        positions: &BTreeMap<i32, i64>,
        source: &mut Check,
        wallets: &mut Check,
    ) -> Result<(), VerifyError> {
        let mut stretches = Vec::new();
        for (shard, watched) in &mut self.shards {
            let to = self.reader.whole(topic, *shard)?.to;
            stretches.push(Stretch { partition: *shard, from: watched.next_ledger, to });
            watched.next_ledger = to;
            watched.fold.advance(positions.get(shard).copied().unwrap_or(0));
        }
        let shards = &mut self.shards;
        self.reader.read(topic, &stretches, |record| {
            let Some(watched) = shards.get_mut(&record.partition) else { return };
            let (fold, base) = (&mut watched.fold, &watched.base);
            let is_settled = record.offset < watched.settled;
            let is_new = |origin: &Origin<'_>| {
                let Origin { topic, partition, offset, .. } = *origin;
                !is_settled && !base.has_come_to(record.partition, topic, partition, offset)
            };
            fold.add(record.value.unwrap_or_default(), record.offset, &is_new, source, wallets);
        })?;
        let oldest = super::fold::hour_of(Timestamp::now().plus_millis(-self.window_ms()));
        self.shards.retain(|shard, watched| {
            watched.fold.forget(oldest);
            if watched.fold.is_overfull {
                tracing::warn!(shard, "the sink falls behind: the watch of this shard begins anew");
            }
            !watched.fold.is_overfull
        });
        Ok(())
    }

    /// Records in the ledger since the watch began against the books, where `is_wrong` (posted, books).
    fn compare_posted(&self, books: &Progress, check: &mut Check, is_wrong: fn(u64, u64) -> bool) {
        let (sources, intake) = (sources(&self.config), &self.config.topics.intake);
        for (shard, watched) in &self.shards {
            let sum = |progress: &Progress| progress.posted(*shard, &sources, intake).values().sum::<u64>();
            let expected = sum(books).saturating_sub(sum(&watched.base));
            let posted: u64 = watched.fold.posted.values().map(|of| of.records).sum();
            if is_wrong(posted, expected) {
                check.differs(Difference {
                    place: format!("shard {shard}"),
                    wallet_id: None,
                    seq: None,
                    what: format!("since the watch began {expected} records were posted by the books; its ledger holds {posted}"),
                    records: posted.abs_diff(expected),
                    credits: 0,
                });
            }
        }
    }

    /// Records of the sources since the watch began against the books.
    fn count_sources(&mut self, books: &Progress, check: &mut Check) -> Result<(), VerifyError> {
        for (topic, _) in &self.sources {
            let mut stretches = Vec::new();
            for ((of, partition), (_, next)) in self.shards.values().flat_map(|watched| &watched.counted) {
                let to = books.of(topic, *partition).map_or(0, |progress| progress.offset + 1);
                if of == topic && *next < to {
                    stretches.push(Stretch { partition: *partition, from: *next, to });
                }
            }
            let mut found: HashMap<i32, u64> = HashMap::new();
            self.reader.read(topic, &stretches, |record| *found.entry(record.partition).or_default() += 1)?;
            for stretch in stretches {
                let shard = stretch.partition.rem_euclid(self.shard_count.max(1));
                let Some(watched) = self.shards.get_mut(&shard) else { continue };
                let Some((counted, next)) = watched.counted.get_mut(&(topic.clone(), stretch.partition))
                else {
                    continue;
                };
                *counted += found.get(&stretch.partition).copied().unwrap_or(0);
                *next = stretch.to;
            }
        }
        for watched in self.shards.values() {
            for ((topic, partition), (counted, _)) in &watched.counted {
                let total = |progress: &Progress| {
                    progress.of(topic, *partition).map_or(0, |progress| progress.outcomes.read_once())
                };
                let expected = total(books).saturating_sub(total(&watched.base));
                if *counted != expected {
                    check.differs(Difference {
                        place: format!("{topic}/{partition}"),
                        wallet_id: None,
                        seq: None,
                        what: format!("since the watch began {expected} records were read by the books; it holds {counted}"),
                        records: counted.abs_diff(expected),
                        credits: 0,
                    });
                }
            }
        }
        Ok(())
    }

    /// What ClickHouse has of the window against the ledger, by shard and hour.
    async fn compare_hours(&mut self, check: &mut Check) -> Result<(), VerifyError> {
        let Some(from) = self.shards.values().filter_map(|watched| watched.fold.hours.keys().next()).min()
        else {
            return Ok(());
        };
        let from = Timestamp::from_millis(from * HOUR_MS);
        let window = Window { from, to: Timestamp::MAX, is_whole: false };
        // Up to where each shard was counted: a group that goes back takes nothing out of ClickHouse.
        let counted = |shard| self.shards.get(&shard).map_or(0, |watched| watched.fold.sink_position());
        let positions = (0..self.shard_count).map(|shard| (shard, counted(shard))).collect();
        let stored = self.stored.hours(&positions, &window).await?;
        for (shard, watched) in &self.shards {
            let of_shard = stored.range((*shard, i64::MIN)..=(*shard, i64::MAX)).map(|((_, hour), _)| *hour);
            let oldest = watched.fold.hours.keys().next().copied().unwrap_or(i64::MAX);
            let hours: BTreeSet<i64> =
                watched.fold.hours.keys().copied().chain(of_shard.filter(|hour| *hour >= oldest)).collect();
            for hour in hours {
                let expected = watched.fold.hours.get(&hour).copied().unwrap_or_default();
                let found = stored.get(&(*shard, hour)).copied().unwrap_or_default();
                if expected != (HourTotals { offsets: expected.offsets, ..found }) {
                    let what = format!(
                        "clickhouse has {} entries with {} credits, the ledger {} with {}: `creditstream verify` names them",
                        found.entries, found.credits, expected.entries, expected.credits
                    );
                    check.differs(Difference {
                        place: format!("shard {shard}, hour {}", Timestamp::from_millis(hour * HOUR_MS)),
                        wallet_id: None,
                        seq: None,
                        what,
                        records: found.entries.abs_diff(expected.entries).max(1),
                        credits: found.credits.abs_diff(expected.credits),
                    });
                }
            }
        }
        Ok(())
    }

    /// Says what differs, unless it was said last.
    fn say(&mut self, differences: Vec<Difference>) {
        for difference in differences.iter().filter(|one| !self.said.contains(one)).take(LOGGED_MAX) {
            let Difference { place, wallet_id, seq, what, .. } = difference;
            tracing::error!(place, wallet_id, seq, what, "drift");
        }
        self.said.extend(differences);
        let surplus = self.said.len().saturating_sub(1_000);
        self.said.drain(..surplus);
    }
}
