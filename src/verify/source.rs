//! Every record of the sources has exactly one outcome: the books against the records themselves, the ledger, the
//! intake and the quarantine.
//!
//! The books are totals since the beginning. What is compared with them is therefore read from its beginning, and cut at
//! the position of the very progress record that the books stand in: an instance may go on meanwhile.

use std::collections::{BTreeMap, HashMap};

use super::fold::{Origin, Posted};
use super::report::{Check, Difference};
use crate::kafka::{ReadError, RecordView, Stretch, TopicReader};
use crate::ledger::{
    Books, OriginBooks, OriginProgress, Outcome, PartitionProgress, ShardProgress, headers, partition_key,
    shard_key,
};

/// Records by topic and partition in which they were first written.
pub type ByOrigin = BTreeMap<(String, i32), u64>;

/// What `credits.progress` said at one moment.
#[derive(Clone, Default)]
pub struct Progress {
    partitions: HashMap<String, PartitionProgress>,
    shards: HashMap<String, ShardProgress>,
}

/// The newest id of each origin's topic: a shard meets them one after the other.
fn newest_ids(progress: &ShardProgress) -> HashMap<(&str, i32), &str> {
    progress
        .origins
        .iter()
        .map(|origin| ((origin.topic.as_str(), origin.partition), origin.topic_id.as_str()))
        .collect()
}

/// Records that were posted where they were read, those of earlier topics of that name included.
fn posted_of(progress: &PartitionProgress) -> u64 {
    progress.outcomes.posted() + progress.earlier.posted()
}

impl Progress {
    /// Reads partitions of the topic up to their ends as of now. A record that cannot be read is a difference.
    ///
    /// # Errors
    /// The brokers do not answer.
    pub fn read(
        reader: &TopicReader,
        topic: &str,
        partitions: &[Stretch],
        check: &mut Check,
    ) -> Result<Progress, ReadError> {
        let mut progress = Progress::default();
        reader.read(topic, partitions, |record| {
            let key = record.key.and_then(|key| std::str::from_utf8(key).ok());
            let (Some(key), Some(value)) = (key, record.value) else { return };
            if let Err(error) = progress.add(key, value) {
                check.differs(Difference {
                    place: format!("{topic}/{}, offset {}", record.partition, record.offset),
                    wallet_id: None,
                    seq: None,
                    what: format!("the progress of {key} cannot be read: {error}"),
                    records: 1,
                    credits: 0,
                });
            }
        })?;
        Ok(progress)
    }

    /// Of records as the topic has them.
    #[cfg(test)]
    pub fn of_records<'r>(records: impl IntoIterator<Item = (&'r str, serde_json::Value)>) -> Progress {
        let mut progress = Progress::default();
        for (key, value) in records {
            progress.add(key, value.to_string().as_bytes()).unwrap_or_else(|error| panic!("{error}"));
        }
        progress
    }

    fn add(&mut self, key: &str, value: &[u8]) -> Result<(), serde_json::Error> {
        if key.starts_with("shard/") {
            self.shards.insert(key.to_owned(), serde_json::from_slice(value)?);
        } else {
            self.partitions.insert(key.to_owned(), serde_json::from_slice(value)?);
        }
        Ok(())
    }

    /// Position and books of a partition.
    pub fn of(&self, topic: &str, partition: i32) -> Option<&PartitionProgress> {
        self.partitions.get(&partition_key(topic, partition))
    }

    /// The partitions of a topic that the books know, also those that it has no more.
    pub fn partitions_of(&self, topic: &str) -> Vec<i32> {
        let of = |key: &String| key.rsplit_once('/').filter(|(of, _)| *of == topic)?.1.parse().ok();
        self.partitions.keys().filter_map(of).collect()
    }

    /// Whether the books of a shard count a record of this origin, which is met in the order of its ledger.
    pub fn counts(&self, shard: i32, intake: &str, origin: &Origin<'_>) -> bool {
        let Origin { topic, partition, offset, nth, falls } = *origin;
        if let Some(own) = self.of(topic, partition).filter(|_| partition == shard) {
            // An entry does not say from which topic of that name it comes, but those of earlier ones came first, and
            // the books say how many they were: as many as were posted otherwise than now.
            if own.at_home {
                let earlier = || own.earlier.posted() + self.came_through(intake, shard, topic);
                return offset <= own.offset || nth < earlier();
            }
            if nth < posted_of(own) {
                return true;
            }
        }
        // A topic that was made anew has an origin of its own, behind that of the old one.
        let is_of = |known: &&OriginProgress| known.topic == topic && known.partition == partition;
        let mut of_origin = self.origins(shard).iter().rev().filter(is_of);
        let Some(newest) = of_origin.next() else { return false };
        if offset <= newest.offset {
            return true;
        }
        let earlier: Vec<i64> = of_origin.map(|earlier| earlier.offset).collect();
        falls < earlier.len() && earlier.iter().any(|last| offset <= *last)
    }

    /// Whether the books of a shard count a record of the topic of that name as it is now.
    pub fn has_come_to(&self, shard: i32, topic: &str, partition: i32, offset: i64) -> bool {
        if let Some(own) = self.of(topic, partition).filter(|own| partition == shard && own.at_home) {
            return offset <= own.offset;
        }
        let is_of = |known: &&OriginProgress| known.topic == topic && known.partition == partition;
        self.origins(shard).iter().rev().find(is_of).is_some_and(|newest| offset <= newest.offset)
    }

    /// Whether later books go on from these: the sources are the same topics, split as they were, and read further.
    pub fn goes_on_in(&self, later: &Progress) -> bool {
        let goes_on = |(key, was): (&String, &PartitionProgress)| {
            later.partitions.get(key).is_none_or(|is| {
                (&is.topic_id, is.partitions, is.at_home) == (&was.topic_id, was.partitions, was.at_home)
                    && is.offset >= was.offset
            })
        };
        let has_no_newer = |(key, was): (&String, &ShardProgress)| {
            let known = newest_ids(was);
            let now = later.shards.get(key).map(newest_ids).unwrap_or_default();
            known.iter().all(|(origin, id)| now.get(origin).is_none_or(|newest| newest == id))
        };
        self.partitions.iter().all(goes_on) && self.shards.iter().all(has_no_newer)
    }

    /// How often a cut of the shard's ledger was accepted.
    pub fn cuts(&self, shard: i32) -> u32 {
        self.shards.get(&shard_key(shard)).map_or(0, |progress| progress.cuts)
    }

    fn origins(&self, shard: i32) -> &[OriginProgress] {
        self.shards.get(&shard_key(shard)).map_or(&[][..], |progress| &progress.origins)
    }

    /// Records of the shard's partition of a topic that came through intake, and were posted.
    fn came_through(&self, intake: &str, shard: i32, topic: &str) -> u64 {
        let books = self.of(intake, shard).map_or(&[][..], |progress| &progress.by_origin);
        let of_origin = books.iter().filter(|books| books.topic == topic && books.partition == shard);
        of_origin.map(|books| books.outcomes.posted() + books.earlier.posted()).sum()
    }

    /// Records of each origin that the books of a shard say were posted.
    pub fn posted(&self, shard: i32, sources: &[String], intake: &str) -> ByOrigin {
        let mut posted = ByOrigin::new();
        for topic in sources {
            if let Some(own) = self.of(topic, shard) {
                posted.insert((topic.clone(), shard), posted_of(own));
            }
        }
        for books in self.of(intake, shard).map_or(&[][..], |progress| &progress.by_origin) {
            *posted.entry((books.topic.clone(), books.partition)).or_default() +=
                books.outcomes.posted() + books.earlier.posted();
        }
        posted.retain(|_, records| *records > 0);
        posted
    }

    /// Records of each origin that came through intake, by all its partitions' books.
    fn through_intake(&self, intake: &str, shards: i32, count: impl Fn(&OriginBooks) -> u64) -> ByOrigin {
        let mut found = ByOrigin::new();
        for progress in (0..shards).filter_map(|shard| self.of(intake, shard)) {
            for books in &progress.by_origin {
                *found.entry((books.topic.clone(), books.partition)).or_default() += count(books);
            }
        }
        found
    }

    /// Records of each origin that the books say were quarantined, wherever.
    pub fn quarantined(&self, sources: &[(String, i32)], intake: &str, shards: i32) -> ByOrigin {
        let count = |books: &Books| books.get(Outcome::Quarantined);
        let mut found =
            self.through_intake(intake, shards, |books| count(&books.outcomes) + count(&books.earlier));
        for (topic, partition) in sources {
            if let Some(progress) = self.of(topic, *partition) {
                let quarantined = count(&progress.outcomes) + count(&progress.earlier);
                *found.entry((topic.clone(), *partition)).or_default() += quarantined;
            }
        }
        found.retain(|_, records| *records > 0);
        found
    }
}

/// What a shard's ledger holds of each origin, against its books.
pub fn compare_posted(
    shard: i32,
    posted: &HashMap<(Box<str>, i32), Posted>,
    books: &ByOrigin,
    check: &mut Check,
) {
    let found = posted.iter().map(|((topic, partition), of)| ((topic.to_string(), *partition), of.records));
    let found: ByOrigin = found.collect();
    compare(books, &found, check, |(topic, partition), expected, found| Difference {
        place: format!("{topic}/{partition}"),
        wallet_id: None,
        seq: None,
        what: format!(
            "by the books {expected} of its records were posted in shard {shard}; its ledger holds {found}"
        ),
        records: expected.abs_diff(found),
        credits: 0,
    });
}

fn compare(
    expected: &ByOrigin,
    found: &ByOrigin,
    check: &mut Check,
    difference: impl Fn(&(String, i32), u64, u64) -> Difference,
) {
    let mut origins: Vec<&(String, i32)> = expected.keys().chain(found.keys()).collect();
    origins.sort_unstable();
    origins.dedup();
    for origin in origins {
        let of = |counts: &ByOrigin| counts.get(origin).copied().unwrap_or(0);
        if of(expected) != of(found) {
            check.differs(difference(origin, of(expected), of(found)));
        }
    }
}

/// The origin that a record's headers name: topic, partition, offset.
pub fn origin_of(record: &RecordView<'_>) -> Option<(String, i32, i64)> {
    let (mut topic, mut partition, mut offset) = (None, None, None);
    record.for_each_header(|name, value| {
        let text = std::str::from_utf8(value).ok();
        match name {
            headers::TOPIC => topic = text.map(str::to_owned),
            headers::PARTITION => partition = text.and_then(|text| text.parse().ok()),
            headers::OFFSET => offset = text.and_then(|text| text.parse().ok()),
            _ => {}
        }
    });
    Some((topic?, partition?, offset?))
}

/// Records in the quarantine by origin, twice: up to its end before the books were read, and up to its end after.
#[derive(Default)]
pub struct Quarantined {
    before: ByOrigin,
    after: ByOrigin,
}

impl Quarantined {
    /// Reads the topic; `before` are its ends as they were before the books were read.
    ///
    /// # Errors
    /// The brokers do not answer.
    pub fn read(reader: &TopicReader, topic: &str, before: &[Stretch]) -> Result<Quarantined, ReadError> {
        let ends: HashMap<i32, i64> = before.iter().map(|stretch| (stretch.partition, stretch.to)).collect();
        let mut found = Quarantined::default();
        reader.read(topic, &reader.all(topic)?, |record| {
            // Without an origin it is nothing that the ledger stage wrote.
            let Some((topic, partition, _)) = origin_of(record) else { return };
            if ends.get(&record.partition).is_some_and(|end| record.offset < *end) {
                *found.before.entry((topic.clone(), partition)).or_default() += 1;
            }
            *found.after.entry((topic, partition)).or_default() += 1;
        })?;
        Ok(found)
    }

    /// The books lie between the two counts, which are the same where nothing is written meanwhile.
    pub fn compare(&self, books: &ByOrigin, check: &mut Check) {
        let mut origins: Vec<&(String, i32)> = books.keys().chain(self.after.keys()).collect();
        origins.sort_unstable();
        origins.dedup();
        for origin in origins {
            let of = |counts: &ByOrigin| counts.get(origin).copied().unwrap_or(0);
            let (least, most, expected) = (of(&self.before), of(&self.after), of(books));
            if expected < least || expected > most {
                let nearest = if expected < least { least } else { most };
                check.differs(Difference {
                    place: format!("{}/{}", origin.0, origin.1),
                    wallet_id: None,
                    seq: None,
                    what: format!("by the books {expected} of its records were quarantined; the quarantine holds {nearest}"),
                    records: expected.abs_diff(nearest),
                    credits: 0,
                });
            }
        }
    }
}

/// Counts the records of a source topic up to the position in the books, and compares.
///
/// # Errors
/// The brokers do not answer.
pub fn compare_records(
    reader: &TopicReader,
    progress: &Progress,
    topic: &str,
    check: &mut Check,
    notes: &mut Vec<String>,
) -> Result<(), ReadError> {
    let mut counted: HashMap<i32, u64> = HashMap::new();
    let (mut stretches, mut unread) = (reader.all(topic)?, 0);
    for stretch in &mut stretches {
        let next = progress.of(topic, stretch.partition).map_or(stretch.from, |progress| progress.offset + 1);
        unread += (stretch.to - next.max(stretch.from)).max(0);
        stretch.to = stretch.to.min(next);
    }
    reader.read(topic, &stretches, |record| *counted.entry(record.partition).or_default() += 1)?;
    for stretch in &stretches {
        let Some(progress) = progress.of(topic, stretch.partition) else { continue };
        let books = progress.outcomes.read_once();
        let found = counted.get(&stretch.partition).copied().unwrap_or(0);
        check.compared += books;
        let is_cut = stretch.from > 0;
        if is_cut && found <= books {
            let what = format!(
                "{topic}/{}: {} of {books} records are older than what the topic keeps; for them the books stand alone",
                stretch.partition,
                books - found
            );
            notes.push(what);
        } else if found != books {
            check.differs(Difference {
                place: format!("{topic}/{}", stretch.partition),
                wallet_id: None,
                seq: None,
                what: format!(
                    "up to offset {} it holds {found} records, but by the books {books} were read",
                    progress.offset
                ),
                records: found.abs_diff(books),
                credits: 0,
            });
        }
    }
    if unread > 0 {
        notes.push(format!("{topic}: about {unread} records are not read by the ledger stage yet"));
    }
    Ok(())
}

/// What sources handed over against what intake's books and its unread records say. `earlier` was read before `later`.
///
/// # Errors
/// The brokers do not answer.
pub fn compare_handed_over(
    reader: &TopicReader,
    (earlier, later): (&Progress, &Progress),
    sources: &[(String, i32)],
    intake: &str,
    check: &mut Check,
) -> Result<(), ReadError> {
    let mut stretches = reader.all(intake)?;
    let shards = i32::try_from(stretches.len()).unwrap_or(i32::MAX);
    let mut found = earlier.through_intake(intake, shards, |books| books.outcomes.read_once());
    for stretch in &mut stretches {
        let next = earlier.of(intake, stretch.partition).map_or(stretch.from, |progress| progress.offset + 1);
        stretch.from = stretch.from.max(next);
    }
    reader.read(intake, &stretches, |record| {
        let Some((topic, partition, offset)) = origin_of(record) else { return };
        if later.of(&topic, partition).is_some_and(|progress| offset <= progress.offset) {
            *found.entry((topic, partition)).or_default() += 1;
        }
    })?;
    let mut expected = ByOrigin::new();
    for (topic, partition) in sources {
        if let Some(progress) = later.of(topic, *partition) {
            let handed_over = |books: &Books| books.get(Outcome::HandedOver);
            let books = handed_over(&progress.outcomes) + handed_over(&progress.earlier);
            expected.insert((topic.clone(), *partition), books);
        }
    }
    compare(&expected, &found, check, |(topic, partition), expected, found| Difference {
        place: format!("{topic}/{partition}"),
        wallet_id: None,
        seq: None,
        what: format!(
            "by the books {expected} of its records were handed over; {found} came to their shards or wait for them"
        ),
        records: expected.abs_diff(found),
        credits: 0,
    });
    Ok(())
}
