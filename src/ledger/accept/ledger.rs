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

use super::super::books::Books;
use super::super::process::outcome_of;
use super::super::progress::{PartitionProgress, ShardProgress, partition_key, shard_key};
use super::super::routes::Routes;
use super::{AcceptError, ToWrite, Written, progress_of, refuse_members, write};
use crate::config::Config;
use crate::event::EventKind;
use crate::kafka::{Clients, RecordView, TopicReader};
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
pub(super) type Origin = (String, i32);

/// A wallet's latest state, as far as it is compared.
#[derive(Clone, Copy, Deserialize)]
struct Latest {
    seq: u64,
    balance: i64,
}

/// What a shard's ledger holds.
#[derive(Default)]
pub(super) struct Folded {
    wallets: HashMap<String, Wallet>,
    pub(super) posted: BTreeMap<Origin, Found>,
    entries: u64,
    end: i64,
}

/// What it holds of an origin.
#[derive(Clone, Default)]
pub(super) struct Found {
    pub(super) books: Books,
    /// Offset of the last record.
    pub(super) last: i64,
}

/// What is to be written for a shard, and said.
pub(super) struct Cut {
    pub(super) shard: i32,
    pub(super) head: ShardProgress,
    pub(super) partitions: Vec<(Origin, PartitionProgress)>,
    states: Vec<(String, Option<Vec<u8>>)>,
    pub(super) lines: Vec<String>,
}

pub(super) struct Examiner<'e> {
    config: &'e Config,
    pricing: &'e Pricing,
    pub(super) reader: TopicReader,
    pub(super) routes: Routes,
    heads: BTreeMap<String, ShardProgress>,
    pub(super) known: BTreeMap<String, PartitionProgress>,
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
    let routes = Routes::discover(asked.client(), &config.topics, || false)?;
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
        let read = LedgerRecord::decode(value).map_err(|error| error.to_string())?;
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
