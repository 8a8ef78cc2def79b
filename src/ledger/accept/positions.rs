//! How far positions must go back so that what was cut away of a ledger is read again.
//!
//! **Invariant:** they go back to the last record of an origin whose entries are there: within a shard the records of an origin
//! are posted in the order of their offsets. Where that cannot be told, to the beginning: what is there is known.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::super::books::{Books, Outcome};
use super::super::headers;
use super::super::progress::{OriginProgress, PartitionProgress, partition_key};
use super::AcceptError;
use super::ledger::{Cut, Examiner, Folded, Found, Origin};
use super::reread::{Again, books_after};
use crate::kafka::{RecordView, Stretch};

impl Examiner<'_> {
    /// Sets back the positions of all that was posted and is not in the ledger any more; whether there was any.
    pub(super) fn read_again(&self, cut: &mut Cut, folded: &Folded) -> Result<bool, AcceptError> {
        let shard = cut.shard;
        let intake_key = partition_key(&self.routes.out.intake, shard);
        let mut by_intake: BTreeMap<Origin, Books> = BTreeMap::new();
        for books in self.known.get(&intake_key).map_or(&[][..], |intake| &intake.by_origin) {
            let mut all = books.outcomes;
            all.add(&books.earlier);
            by_intake.insert((books.topic.clone(), books.partition), all);
        }
        let mut is_lost = false;
        let none = Found::default();
        let suffix = format!("/{shard}");
        let own = self.known.iter().filter(|(key, _)| **key != intake_key);
        for (topic, progress) in
            own.filter_map(|(key, progress)| Some((key.strip_suffix(&suffix)?, progress)))
        {
            let origin = (topic.to_owned(), shard);
            let found = folded.posted.get(&origin).unwrap_or(&none);
            let posted = progress.outcomes.posted() + progress.earlier.posted();
            // Records of one origin that came both ways are not told apart: intake's share is what is left.
            let is_mixed = by_intake.get(&origin).is_some_and(|books| books.posted() > 0) && posted > 0;
            let share = if is_mixed { at_most(&found.books, progress) } else { found.books };
            if share.posted() >= posted {
                continue;
            }
            is_lost = true;
            let is_known = found.books.posted() > progress.earlier.posted() && !is_mixed;
            let last = if is_known { found.last } else { -1 };
            let lost = posted - share.posted();
            self.read_source_again(cut, &origin, progress, &share, (last, lost))?;
        }
        Ok(self.read_intake_again(cut, folded, &by_intake)? || is_lost)
    }

    /// A source that is read at home goes back to after its last record that is in the ledger.
    fn read_source_again(
        &self,
        cut: &mut Cut,
        origin: &Origin,
        progress: &PartitionProgress,
        found: &Books,
        (last, lost): (i64, u64),
    ) -> Result<(), AcceptError> {
        let (name, shard) = (&origin.0, origin.1);
        let topic = self.routes.topics.iter().find(|topic| topic.name == *name && shard < topic.partitions);
        let Some(topic) = topic.filter(|_| progress.at_home) else {
            cut.lines.push(format!(
                "{name}/{shard}: {lost} records that were posted are not in the ledger; it is not read at home any more: \
                 send them again, what is there is a duplicate"
            ));
            return Ok(());
        };
        if topic.topic_id != progress.topic_id {
            return Err(AcceptError::Refused(format!(
                "topic {name} was deleted and made anew: first `creditstream accept topic {name}`"
            )));
        }
        let whole = self.reader.whole(name, shard)?;
        let next = progress.offset + 1;
        let again = Stretch { partition: shard, from: (last + 1).max(whole.from), to: next.min(whole.to) };
        let mut records = 0;
        self.reader.read(name, &[again], |_| records += 1)?;
        let intake = &self.routes.out.intake;
        let mut handed_over = 0;
        self.reader.read(intake, &self.reader.all(intake)?, |record| {
            let is_of = |of: &HandedOver| of.origin == *origin && of.topic_id == topic.topic_id;
            let is_again = |of: &HandedOver| (last + 1..next).contains(&of.offset);
            handed_over += u64::from(HandedOver::of(record).is_some_and(|of| is_of(&of) && is_again(&of)));
        })?;
        let kept = progress.outcomes.read_once().saturating_sub(records);
        let after =
            books_after(&progress.outcomes, &progress.earlier, &Again { found: *found, kept, handed_over });
        let (outcomes, earlier) = after.ok_or_else(|| more_than_books(origin))?;
        let mut line = format!(
            "{name}/{shard}: {lost} records that were posted are not in the ledger: read again from offset {}",
            last + 1
        );
        if whole.from > last + 1 {
            let _ = write!(line, ", of which it has those from {} on: send the others again", whole.from);
        }
        cut.lines.push(line);
        cut.partitions.push((
            origin.clone(),
            PartitionProgress { offset: last, outcomes, earlier, ..progress.clone() },
        ));
        Ok(())
    }

    /// The shard's intake goes back to before the first record whose entries are gone; whether there is any.
    fn read_intake_again(
        &self,
        cut: &mut Cut,
        folded: &Folded,
        by_intake: &BTreeMap<Origin, Books>,
    ) -> Result<bool, AcceptError> {
        let (shard, intake) = (cut.shard, &self.routes.out.intake);
        let Some(progress) = self.known.get(&partition_key(intake, shard)) else { return Ok(false) };
        let lost = self.lost_of_intake(cut, folded, by_intake);
        if lost.is_empty() {
            return Ok(false);
        }
        let whole = self.reader.whole(intake, shard)?;
        let (mut first, mut again): (Option<i64>, BTreeMap<Origin, u64>) = (None, BTreeMap::new());
        let read = Stretch { to: whole.to.min(progress.offset + 1), ..whole };
        self.reader.read(intake, &[read], |record| {
            let Some(of) = HandedOver::of(record) else { return };
            let is_again = |lost: &&Lost| lost.topic_id == of.topic_id && of.offset > lost.last;
            if lost.get(&of.origin).filter(is_again).is_some() {
                first.get_or_insert(record.offset);
                *again.entry(of.origin).or_default() += 1;
            }
        })?;
        let offset = first.map_or(progress.offset, |first| first - 1);
        let mut after = PartitionProgress { offset, outcomes: Books::default(), ..progress.clone() };
        for books in &mut after.by_origin {
            let origin = (books.topic.clone(), books.partition);
            if let Some(lost) = lost.get(&origin) {
                let records = again.get(&origin).copied().unwrap_or(0);
                let kept = books.outcomes.read_once().saturating_sub(records);
                let of = Again { found: lost.found, kept, handed_over: 0 };
                let split = books_after(&books.outcomes, &books.earlier, &of);
                (books.outcomes, books.earlier) = split.ok_or_else(|| more_than_books(&origin))?;
                cut.lines.push(lost.line(&origin, records));
                for known in cut.head.origins.iter_mut().filter(|known| known.topic_id == lost.topic_id) {
                    if (&known.topic, known.partition) == (&origin.0, origin.1) {
                        known.offset = lost.last;
                    }
                }
            }
            after.outcomes.add(&books.outcomes);
        }
        cut.head.origins.retain(|known| known.offset >= 0);
        cut.partitions.push(((intake.clone(), shard), after));
        Ok(true)
    }

    /// Of what came through intake and was posted, what is not in the ledger any more.
    fn lost_of_intake(
        &self,
        cut: &Cut,
        folded: &Folded,
        by_intake: &BTreeMap<Origin, Books>,
    ) -> BTreeMap<Origin, Lost> {
        let mut lost = BTreeMap::new();
        for (origin, books) in by_intake {
            let mut found = folded.posted.get(origin).cloned().unwrap_or_default();
            let own = self.known.get(&partition_key(&origin.0, origin.1)).filter(|_| origin.1 == cut.shard);
            let own = own.filter(|own| own.outcomes.posted() + own.earlier.posted() > 0);
            if let Some(own) = own {
                found = Found { books: less(&found.books, &at_most(&found.books, own)), last: -1 };
            }
            let missing = books.posted().saturating_sub(found.books.posted());
            let is_of = |known: &&OriginProgress| (&known.topic, known.partition) == (&origin.0, origin.1);
            let ids: Vec<&OriginProgress> = cut.head.origins.iter().filter(is_of).collect();
            let Some(newest) = ids.last().filter(|_| missing > 0) else { continue };
            // Of a topic that was made anew meanwhile offsets do not tell which records are there.
            let last = if ids.len() > 1 || found.books.posted() == 0 { -1 } else { found.last };
            let topic_id = newest.topic_id.clone();
            lost.insert(origin.clone(), Lost { topic_id, last, missing, found: found.books });
        }
        lost
    }
}

/// What was lost of an origin whose records came through intake.
struct Lost {
    topic_id: String,
    /// Its last record that is in the ledger.
    last: i64,
    missing: u64,
    /// What the ledger has of it.
    found: Books,
}

impl Lost {
    /// Says so; so many records will be read again.
    fn line(&self, (topic, partition): &Origin, records: u64) -> String {
        let Lost { last, missing, .. } = self;
        let mut line = format!(
            "{topic}/{partition}: {missing} records that came through intake are not in the ledger: read again, those beyond offset {last}"
        );
        if records < *missing {
            // Writing into a String cannot fail.
            let _ = write!(line, ", but intake keeps {records} of them only: send the others again");
        }
        line
    }
}

/// Where a record of intake came from.
struct HandedOver {
    origin: Origin,
    topic_id: String,
    offset: i64,
}

impl HandedOver {
    fn of(record: &RecordView<'_>) -> Option<HandedOver> {
        let (mut topic, mut topic_id, mut partition, mut offset) = (None, None, None, None);
        record.for_each_header(|name, value| {
            let text = std::str::from_utf8(value).ok();
            match name {
                headers::TOPIC => topic = text.map(str::to_owned),
                headers::TOPIC_ID => topic_id = text.map(str::to_owned),
                headers::PARTITION => partition = text.and_then(|text| text.parse().ok()),
                headers::OFFSET => offset = text.and_then(|text| text.parse().ok()),
                _ => {}
            }
        });
        Some(HandedOver { origin: (topic?, partition?), topic_id: topic_id?, offset: offset? })
    }
}

/// Of what was found, no more than was posted where it was read.
fn at_most(found: &Books, progress: &PartitionProgress) -> Books {
    let mut share = Books::default();
    for outcome in Outcome::POSTED {
        let posted = progress.outcomes.get(outcome) + progress.earlier.get(outcome);
        share.set(outcome, found.get(outcome).min(posted));
    }
    share
}

fn less(all: &Books, share: &Books) -> Books {
    let mut rest = Books::default();
    for outcome in Outcome::POSTED {
        rest.set(outcome, all.get(outcome).saturating_sub(share.get(outcome)));
    }
    rest
}

fn more_than_books((topic, partition): &Origin) -> AcceptError {
    AcceptError::Refused(format!(
        "the ledger has more of {topic}/{partition} than the books in progress say: this is no cut at its end; report it"
    ))
}
