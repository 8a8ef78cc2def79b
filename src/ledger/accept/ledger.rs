//! A ledger that was cut short is taken for the truth, by a person's decision: `creditstream accept ledger`.
//!
//! **Invariant:** latest states of wallets become what their entries say, and positions go back to the last record whose
//! entries are there: what was cut away is read and posted again, the rest is known by its identity. What was kept of the
//! shard before is of another life: the count of cuts says so.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;
use std::sync::Arc;

use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::{Offset, TopicPartitionList};
use serde::Deserialize;

use super::super::books::{Books, Outcome};
use super::super::headers;
use super::super::process::outcome_of;
use super::super::progress::{PartitionProgress, ShardProgress, partition_key, shard_key};
use super::super::routes::Routes;
use super::reread::{Again, books_after};
use super::{AcceptError, ToWrite, Written, progress_of, refuse_members, write};
use crate::config::Config;
use crate::event::EventKind;
use crate::kafka::{Clients, RecordView, Stretch, TopicReader};
use crate::rate::Pricing;
use crate::time::ShardClock;
use crate::wallet::{FoldError, LedgerRecord, Wallet, WalletSnapshot};

/// What was found, and what was done about it.
pub struct Accepted {
    /// In sentences.
    pub lines: Vec<String>,
    /// Something is to be accepted, and was not.
    pub is_left: bool,
}

/// Topic and partition in which a record was first written.
type Origin = (String, i32);

/// A wallet's latest state, as far as it is compared.
#[derive(Clone, Copy, Deserialize)]
struct Latest {
    seq: u64,
    balance: i64,
}

/// What a shard's ledger holds.
#[derive(Default)]
struct Folded {
    wallets: HashMap<String, Wallet>,
    posted: BTreeMap<Origin, Found>,
    entries: u64,
    end: i64,
}

/// What it holds of an origin.
#[derive(Clone, Default)]
struct Found {
    books: Books,
    last: i64,
}

/// What is to be written for a shard, and said.
struct Cut {
    shard: i32,
    head: ShardProgress,
    partitions: Vec<(Origin, PartitionProgress)>,
    states: Vec<(String, Option<Vec<u8>>)>,
    lines: Vec<String>,
}

struct Examiner<'e> {
    config: &'e Config,
    pricing: &'e Pricing,
    reader: TopicReader,
    routes: Routes,
    heads: BTreeMap<String, ShardProgress>,
    known: BTreeMap<String, PartitionProgress>,
}

/// Says which shards' ledgers hold less than latest states and books say, or looks at the one that is named; and accepts
/// that if `is_sure`. One that is named is accepted also where no loss is to be seen in the topics: local stores may know
/// of one.
///
/// # Errors
/// See [`AcceptError`].
pub fn accept_ledger(
    config: &Arc<Config>,
    pricing: &Pricing,
    only: Option<i32>,
    is_sure: bool,
) -> Result<Accepted, AcceptError> {
    let clients = Clients::new(Arc::clone(config));
    let asked = clients.group_reader(&config.ledger.group)?;
    refuse_members(&asked, &config.ledger.group)?;
    let sink = clients.group_reader(&config.sink.group)?;
    refuse_members(&sink, &config.sink.group)?;
    let routes = Routes::discover(asked.client(), &config.topics)?;
    if let Some(shard) = only.filter(|shard| !(0..routes.shards).contains(shard)) {
        return Err(AcceptError::Refused(format!("{} has no partition {shard}", routes.out.ledger)));
    }
    let reader = TopicReader::new(&clients, "accept")?;
    let heads = progress_of(&reader, &routes, |key| key.starts_with("shard/"))?;
    let known = progress_of(&reader, &routes, |key| !key.starts_with("shard/"))?;
    let examiner = Examiner { config, pricing, reader, routes, heads, known };
    let shards = only.map_or(0..examiner.routes.shards, |shard| shard..shard + 1);
    let mut cuts = Vec::new();
    for shard in shards {
        cuts.extend(examiner.examine(shard, only.is_some())?);
    }
    let mut lines: Vec<String> = cuts.iter().flat_map(|cut| cut.lines.iter().cloned()).collect();
    if cuts.is_empty() {
        return Ok(Accepted { lines, is_left: false });
    }
    if !is_sure {
        lines.push("nothing was changed: --yes accepts this".to_owned());
        return Ok(Accepted { lines, is_left: true });
    }
    // Harmless by itself: what the sink reads again it writes again.
    sink.commit(&examiner.sink_positions(&cuts)?, CommitMode::Sync)?;
    write(&clients, config, &examiner.routes, &examiner.written(cuts)?)?;
    lines.push(
        "accepted; ClickHouse still has what was cut away: run `creditstream rebuild-clickhouse`, then start the instances"
            .to_owned(),
    );
    Ok(Accepted { lines, is_left: false })
}

impl Examiner<'_> {
    /// What must be written so that the shard's ledger stands as it is; `None`: nothing is missing in it.
    fn examine(&self, shard: i32, is_named: bool) -> Result<Option<Cut>, AcceptError> {
        let Some(head) = self.heads.get(&shard_key(shard)) else { return Ok(None) };
        if head.group != self.config.ledger.group {
            return Err(AcceptError::Refused(format!(
                "shard {shard} belongs to consumer group {:?}, not to {:?}",
                head.group, self.config.ledger.group
            )));
        }
        let folded = self.fold(shard)?;
        let latest = self.latest_states(shard)?;
        let (states, ahead) = self.states(head, &folded, &latest)?;
        let mut cut = Cut {
            shard,
            head: ShardProgress { cuts: head.cuts + 1, ..head.clone() },
            partitions: Vec::new(),
            states,
            lines: Vec::new(),
        };
        let (wallets, entries) = (folded.wallets.len(), folded.entries);
        let mut line = format!(
            "shard {shard}: its ledger ends at offset {}, with {entries} entries of {wallets} wallets",
            folded.end
        );
        if let Some((wallets, entries, credits)) = ahead {
            // Writing into a String cannot fail.
            let _ = write!(
                line,
                "; of {wallets} wallets {entries} entries at least are gone, with them {credits} credits of their balances"
            );
        }
        cut.lines.push(line);
        let is_lost = self.read_again(&mut cut, &folded)?;
        Ok((is_named || is_lost || ahead.is_some()).then_some(cut))
    }

    /// The whole ledger of a shard, added up.
    fn fold(&self, shard: i32) -> Result<Folded, AcceptError> {
        let topic = &self.routes.out.ledger;
        let whole = self.reader.whole(topic, shard)?;
        if whole.from > 0 {
            return Err(AcceptError::Refused(format!(
                "{topic}/{shard} begins at offset {}: what stood before cannot be added up; bring it back from a backup",
                whole.from
            )));
        }
        let mut folded = Folded { end: whole.to, ..Folded::default() };
        let (mut fault, horizon_days) = (None, self.horizon_days());
        self.reader.read(topic, &[whole], |record| {
            if fault.is_none()
                && let Err(why) = folded.add(record, horizon_days)
            {
                fault = Some(format!(
                    "{topic}/{shard}, offset {}: {why}: this is no cut at the end, and cannot be accepted",
                    record.offset
                ));
            }
        })?;
        fault.map_or(Ok(folded), |fault| Err(AcceptError::Refused(fault)))
    }

    fn horizon_days(&self) -> i32 {
        i32::try_from(self.config.clock.horizon_days).unwrap_or(i32::MAX)
    }

    fn latest_states(&self, shard: i32) -> Result<HashMap<String, Latest>, AcceptError> {
        let topic = &self.routes.out.wallets;
        let (mut latest, mut fault) = (HashMap::new(), None);
        self.reader.read(topic, &[self.reader.whole(topic, shard)?], |record| {
            let Some(wallet_id) = record.key.and_then(|key| std::str::from_utf8(key).ok()) else { return };
            match record.value.map(serde_json::from_slice::<Latest>) {
                Some(Ok(state)) => drop(latest.insert(wallet_id.to_owned(), state)),
                Some(Err(error)) => {
                    fault = Some(format!("{topic}/{shard}, offset {}: {error}", record.offset))
                }
                None => drop(latest.remove(wallet_id)),
            }
        })?;
        fault.map_or(Ok(latest), |fault| Err(AcceptError::Refused(fault)))
    }

    /// States that are not what the ledger says; and wallets, entries and credits that they are ahead of it.
    #[allow(clippy::type_complexity)]
    fn states(
        &self,
        head: &ShardProgress,
        folded: &Folded,
        latest: &HashMap<String, Latest>,
    ) -> Result<(Vec<(String, Option<Vec<u8>>)>, Option<(u64, u64, i64)>), AcceptError> {
        let mut states = Vec::new();
        let mut ahead = (0, 0, 0);
        for (wallet_id, latest) in latest {
            let (seq, balance) =
                folded.wallets.get(wallet_id).map_or((0, 0), |wallet| (wallet.seq, wallet.balance()));
            if latest.seq > seq {
                ahead = (ahead.0 + 1, ahead.1 + latest.seq - seq, ahead.2 + latest.balance - balance);
            }
            if seq == 0 {
                states.push((wallet_id.clone(), None));
            }
        }
        let is_other = |(wallet_id, wallet): &(&String, &Wallet)| {
            latest.get(*wallet_id).is_none_or(|latest| latest.seq != wallet.seq)
        };
        for (wallet_id, wallet) in folded.wallets.iter().filter(is_other) {
            let mut value = Vec::new();
            WalletSnapshot::of(wallet_id, wallet, ShardClock(head.clock), self.pricing).encode(&mut value);
            states.push((wallet_id.clone(), Some(value)));
        }
        Ok((states, Some(ahead).filter(|ahead| ahead.0 > 0)))
    }

    /// Sets back the positions of all that was posted and is not in the ledger any more; whether there was any.
    fn read_again(&self, cut: &mut Cut, folded: &Folded) -> Result<bool, AcceptError> {
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
        // By origin: id of its topic, its last record that is in the ledger, and what the ledger has of it.
        let mut lost: BTreeMap<Origin, (String, i64, Books)> = BTreeMap::new();
        for (origin, books) in by_intake {
            let mut found = folded.posted.get(origin).cloned().unwrap_or_default();
            let own = self.known.get(&partition_key(&origin.0, origin.1)).filter(|_| origin.1 == shard);
            let own = own.filter(|own| own.outcomes.posted() + own.earlier.posted() > 0);
            if let Some(own) = own {
                found = Found { books: less(&found.books, &at_most(&found.books, own)), last: -1 };
            }
            let missing = books.posted().saturating_sub(found.books.posted());
            if missing == 0 {
                continue;
            }
            let ids = cut
                .head
                .origins
                .iter()
                .filter(|known| (&known.topic, known.partition) == (&origin.0, origin.1));
            let ids: Vec<&str> = ids.map(|known| known.topic_id.as_str()).collect();
            let Some(id) = ids.last() else { continue };
            // Of a topic that was made anew meanwhile offsets do not tell which records are there.
            let last = if ids.len() > 1 || found.books.posted() == 0 { -1 } else { found.last };
            cut.lines.push(format!(
                "{}/{}: {missing} records that came through intake are not in the ledger: read again, those beyond offset {last}",
                origin.0, origin.1
            ));
            lost.insert(origin.clone(), ((*id).to_owned(), last, found.books));
        }
        if lost.is_empty() {
            return Ok(false);
        }
        let whole = self.reader.whole(intake, shard)?;
        let (mut first, mut again): (Option<i64>, BTreeMap<Origin, u64>) = (None, BTreeMap::new());
        let read = Stretch { to: whole.to.min(progress.offset + 1), ..whole };
        self.reader.read(intake, &[read], |record| {
            let Some(of) = HandedOver::of(record) else { return };
            let is_again = |(id, last, _): &&(String, i64, Books)| *id == of.topic_id && of.offset > *last;
            if lost.get(&of.origin).filter(is_again).is_some() {
                first.get_or_insert(record.offset);
                *again.entry(of.origin).or_default() += 1;
            }
        })?;
        let mut after = PartitionProgress {
            offset: first.map_or(progress.offset, |first| first - 1),
            ..progress.clone()
        };
        for books in &mut after.by_origin {
            let origin = (books.topic.clone(), books.partition);
            let Some((id, last, found)) = lost.get(&origin) else { continue };
            let records = again.get(&origin).copied().unwrap_or(0);
            let kept = books.outcomes.read_once().saturating_sub(records);
            let of = Again { found: *found, kept, handed_over: 0 };
            let split = books_after(&books.outcomes, &books.earlier, &of);
            (books.outcomes, books.earlier) = split.ok_or_else(|| more_than_books(&origin))?;
            let is_it = |known: &&mut super::super::progress::OriginProgress| {
                known.topic == origin.0 && known.partition == origin.1 && known.topic_id == *id
            };
            if let Some(known) = cut.head.origins.iter_mut().find(is_it) {
                known.offset = *last;
            }
        }
        cut.head.origins.retain(|known| known.offset >= 0);
        after.outcomes = Books::default();
        let skipped = progress.outcomes.get(Outcome::Skipped);
        after.by_origin.iter().for_each(|books| after.outcomes.add(&books.outcomes));
        after.outcomes.set(Outcome::Skipped, skipped);
        cut.partitions.push(((intake.clone(), shard), after));
        Ok(true)
    }

    /// The sink reads those ledgers from their beginning, and of latest states only those that are written now.
    fn sink_positions(&self, cuts: &[Cut]) -> Result<TopicPartitionList, AcceptError> {
        let mut positions = TopicPartitionList::new();
        for Cut { shard, .. } in cuts {
            let end = self.reader.whole(&self.routes.out.wallets, *shard)?.to;
            positions.add_partition_offset(&self.routes.out.ledger, *shard, Offset::Offset(0))?;
            positions.add_partition_offset(&self.routes.out.wallets, *shard, Offset::Offset(end))?;
        }
        Ok(positions)
    }

    fn written(&self, cuts: Vec<Cut>) -> Result<Written, AcceptError> {
        let out = &self.routes.out;
        let mut written = Written::default();
        for Cut { shard, head, partitions, states, .. } in cuts {
            written.add(&out.progress, shard, shard_key(shard), &head)?;
            // A transaction with an offset of the group is fenced by it.
            let mut sent: BTreeSet<Origin> = BTreeSet::new();
            for (origin, progress) in partitions {
                written.add_progress(&self.routes, &origin.0, origin.1, &progress, true)?;
                sent.insert(origin);
            }
            let intake = (out.intake.clone(), shard);
            if let Some(progress) =
                self.known.get(&partition_key(&intake.0, shard)).filter(|_| !sent.contains(&intake))
            {
                written.add_progress(&self.routes, &intake.0, shard, progress, true)?;
            }
            let of_wallet =
                |(key, value)| ToWrite { topic: out.wallets.clone(), partition: shard, key, value };
            written.records.extend(states.into_iter().map(of_wallet));
        }
        Ok(written)
    }
}

impl Folded {
    fn add(&mut self, record: &RecordView<'_>, horizon_days: i32) -> Result<(), String> {
        let value = record.value.ok_or("a tombstone in the ledger")?;
        let read: LedgerRecord<'_> = serde_json::from_slice(value).map_err(|error| error.to_string())?;
        let wallet = self.wallets.entry(read.wallet_id.clone().into_owned()).or_default();
        match wallet.fold_record(&read, horizon_days) {
            Ok(()) => {}
            // It stands there twice.
            Err(FoldError::Double { .. }) => return Ok(()),
            Err(error) => return Err(format!("wallet {}: {error}", read.wallet_id)),
        }
        self.entries += read.entries.len() as u64;
        let Some(first) = read.entries.first().filter(|first| !first.origin_topic.is_empty()) else {
            return Ok(());
        };
        let kind = EventKind::NAMED.into_iter().find(|kind| kind.as_str() == first.event_type);
        let kind = kind.ok_or_else(|| format!("{:?} is no type of an event", first.event_type))?;
        let found =
            self.posted.entry((first.origin_topic.clone().into_owned(), first.origin_partition)).or_default();
        found.books.count(outcome_of(kind, &read.entries));
        found.last = first.origin_offset;
        Ok(())
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
