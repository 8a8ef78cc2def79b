//! Fills ClickHouse anew from the topics, beside the tables that are in use, and exchanges them.
//!
//! **Invariant:** whoever queries sees the old rows or the new ones; what the sink wrote in the last moment before the
//! exchange is missing until it is read again right after it. The sink may run meanwhile: it writes to whichever table has
//! the name. What it wrote to the old ones since they were read is read again after the exchange, and
//! only then the old ones are dropped. Nothing is exchanged unless the new entries are those of the ledger.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

use super::fold::{ShardFold, Window};
use super::report::{Between, Check};
use super::stored::{Hours, Stored};
use super::{Told, VerifyError};
use crate::config::Config;
use crate::kafka::{Clients, ReadError, Stretch, TopicReader};
use crate::metrics::Metrics;
use crate::sink::block::Block;
use crate::sink::client::{bounded, client};
use crate::sink::error::{ClickHouseError, Refused};
use crate::sink::guard::FoldGuard;
use crate::sink::insert::{ClickHouse, FrozenInsert};
use crate::sink::record::{Record, Source, SourcePartition};
use crate::sink::{MigrationError, migrate, rows, tables};
use crate::time::Timestamp;
use crate::wallet::{GrantState, LedgerRecord, Wallet, WalletSnapshot};

/// What the new tables are called until they are exchanged, and the old ones from then on.
const SUFFIX: &str = "_rebuild";
/// Offsets that are read and written together.
const OFFSETS_AT_ONCE: i64 = 50_000;
/// Statements over whole tables.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(600);

/// Why it was given up. The tables in use are as they were, but for [`RebuildError::Incomplete`].
#[derive(Debug, Error)]
pub enum RebuildError {
    /// The topics could not be read.
    #[error(transparent)]
    Kafka(#[from] ReadError),
    /// ClickHouse did not answer, or refused.
    #[error("clickhouse: {0}")]
    ClickHouse(#[from] ClickHouseError),
    /// An insert is of no use.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The tables could not be made.
    #[error(transparent)]
    Migration(#[from] MigrationError),
    /// A record cannot become rows.
    #[error("{topic}/{partition}, offset {offset}: {reason}")]
    Record {
        /// Topic.
        topic: String,
        /// Partition.
        partition: i32,
        /// Offset.
        offset: i64,
        /// Why.
        reason: String,
    },
    /// It knows single servers only.
    #[error(
        "a cluster's tables are not rebuilt in place: set another clickhouse.database and sink.group, run `creditstream init`, and let the sink fill it"
    )]
    OnCluster,
    /// The new tables are not what the ledger says.
    #[error("{0} shards and hours of the new table differ from the ledger: run it again")]
    Differs(usize),
    /// It failed after the first table was exchanged: newest rows may be missing, and old tables may be there still.
    #[error("tables were exchanged, but it is not complete: run it again; {0}")]
    Incomplete(Box<RebuildError>),
}

impl From<VerifyError> for RebuildError {
    fn from(error: VerifyError) -> RebuildError {
        match error {
            VerifyError::Kafka(error) => error.into(),
            VerifyError::ClickHouse(error) => error.into(),
            VerifyError::Repair(error) => error.into(),
        }
    }
}

/// Rebuilds all tables; rows written, by table.
///
/// # Errors
/// See [`RebuildError`].
pub async fn rebuild(
    config: &Arc<Config>,
    told: Told<'_>,
) -> Result<BTreeMap<&'static str, u64>, RebuildError> {
    if !config.clickhouse.cluster.is_empty() {
        return Err(RebuildError::OnCluster);
    }
    migrate(&config.clickhouse).await?;
    let clients = Clients::new(Arc::clone(config));
    let reader = TopicReader::new(&clients, "rebuild")?;
    let shards = reader.partitions(&config.topics.ledger)?;
    let mut rebuild = Rebuild {
        config: Arc::clone(config),
        reader,
        stored: Stored::new(&config.clickhouse),
        statements: client(&config.clickhouse).with_database(&config.clickhouse.database),
        into: ClickHouse::new(&config.clickhouse, &config.sink, Metrics::new()),
        next: HashMap::new(),
        guard: FoldGuard::default(),
        hours: Hours::new(),
        written: BTreeMap::new(),
        suffix: SUFFIX,
    };
    rebuild.make_tables().await?;
    for shard in 0..shards {
        told(&format!("shard {shard} of {shards}"));
        rebuild.fill_shard(shard).await?;
    }
    told("alerts and quarantine");
    for source in [Source::Alerts, Source::Quarantine] {
        rebuild.fill_rest(source).await?;
    }
    told("comparing with the ledger");
    rebuild.compare(shards).await?;
    // So that the new tables are behind the old ones by moments, not by as long as all of this took. What is read first is
    // read for longest, and the entries come last.
    rebuild.fill_all().await?;
    rebuild.fill_rest(Source::Ledger).await?;
    rebuild.take_over(told).await.map_err(|error| RebuildError::Incomplete(Box::new(error)))?;
    Ok(rebuild.written)
}

struct Rebuild {
    config: Arc<Config>,
    reader: TopicReader,
    stored: Stored,
    statements: clickhouse::Client,
    into: ClickHouse,
    /// Where reading goes on.
    next: HashMap<SourcePartition, i64>,
    guard: FoldGuard,
    /// What the ledger says that there must be.
    hours: Hours,
    written: BTreeMap<&'static str, u64>,
    /// After the name of the tables that are written.
    suffix: &'static str,
}

impl Rebuild {
    /// The new tables become those in use, and get what the old ones got meanwhile.
    async fn take_over(&mut self, told: Told<'_>) -> Result<(), RebuildError> {
        told("exchanging");
        self.exchange().await?;
        self.suffix = "";
        self.fill_all().await?;
        self.stored.forget_refreshed_days().await?;
        // What the sink had sent before the exchange may land in the old tables for so long.
        told("waiting for inserts that were under way");
        tokio::time::sleep(self.config.clickhouse.request_timeout()).await;
        self.fill_all().await?;
        // A refresh that was under way may have noted how far it had come in the old tables.
        self.stored.forget_refreshed_days().await?;
        self.drop_tables().await?;
        Ok(())
    }

    async fn execute(&self, sql: &str) -> Result<(), ClickHouseError> {
        bounded(STATEMENT_TIMEOUT, self.statements.query(sql).execute()).await
    }

    async fn make_tables(&self) -> Result<(), ClickHouseError> {
        self.drop_tables().await?;
        for schema in tables::ALL {
            let table = schema.table;
            self.execute(&format!("CREATE TABLE {table}{SUFFIX} AS {table}")).await?;
        }
        Ok(())
    }

    async fn drop_tables(&self) -> Result<(), ClickHouseError> {
        for schema in tables::ALL {
            self.execute(&format!("DROP TABLE IF EXISTS {}{SUFFIX} SYNC", schema.table)).await?;
        }
        Ok(())
    }

    async fn exchange(&self) -> Result<(), ClickHouseError> {
        for schema in tables::ALL {
            let table = schema.table;
            self.execute(&format!("EXCHANGE TABLES {table} AND {table}{SUFFIX}")).await?;
        }
        Ok(())
    }

    /// A shard's entries, usage, latest states, and the grants that ended so long ago that no state holds them.
    async fn fill_shard(&mut self, shard: i32) -> Result<(), RebuildError> {
        let window = Window { from: Timestamp::MIN, to: Timestamp::MAX, is_whole: true };
        let mut fold = ShardFold::new(shard, window, i64::MAX);
        let mut wallets: HashMap<String, Wallet> = HashMap::new();
        let mut fold_record = |record: &Record| {
            let (mut one, mut other) =
                (Check::new(Between::SourceLedger), Check::new(Between::LedgerWallets));
            let value = record.value.as_deref().unwrap_or_default();
            fold.add(value, record.offset, &|_| false, &mut one, &mut other);
            // Nothing is forgotten by so long a horizon. A double is passed over, as by every reader.
            if let Ok(entries) = LedgerRecord::decode(value) {
                let wallet = wallets.entry(entries.wallet_id.clone().into_owned()).or_default();
                let _ = wallet.fold_record(&entries, i32::MAX);
            }
            true
        };
        self.fill(Source::Ledger, &[shard], &mut fold_record).await?;
        self.hours.extend(fold.hours.iter().map(|(hour, totals)| ((shard, *hour), *totals)));
        drop(fold);
        // Of each wallet the last state stands: an earlier one, not compacted away yet, may hold grants that it does not, and
        // be ahead of it where a cut of the ledger was accepted.
        let last = self.last_states(shard)?;
        let mut kept: HashMap<String, HashSet<String>> = HashMap::new();
        self.fill(Source::Wallets, &[shard], &mut |record: &Record| {
            if last.get(&record.key).is_some_and(|last| record.offset < *last) {
                return false;
            }
            let value = record.value.as_deref().unwrap_or_default();
            if let Ok(state) = serde_json::from_slice::<WalletSnapshot<'_>>(value) {
                let grants = state.grants.iter().map(|grant| grant.grant_id.to_string()).collect();
                kept.insert(state.wallet_id.to_string(), grants);
            }
            true
        })
        .await?;
        let mut block = Block::new(&tables::GRANTS);
        for (wallet_id, wallet) in &wallets {
            let kept = kept.get(wallet_id);
            let is_left_out =
                |grant: &GrantState<'_>| kept.is_none_or(|kept| !kept.contains(&*grant.grant_id));
            for grant in wallet.grant_states().filter(is_left_out) {
                rows::append_grant(&mut block, wallet_id, &grant, wallet.seq);
            }
        }
        self.insert(&block).await
    }

    /// Where the last state of each wallet stands, or its tombstone.
    fn last_states(&self, shard: i32) -> Result<HashMap<Box<[u8]>, i64>, RebuildError> {
        let topic = &self.config.topics.wallets;
        let mut last = HashMap::new();
        tokio::task::block_in_place(|| {
            self.reader.read(topic, &[self.reader.whole(topic, shard)?], |record| {
                last.insert(record.key.unwrap_or_default().into(), record.offset);
            })
        })?;
        Ok(last)
    }

    async fn insert(&mut self, block: &Block) -> Result<(), RebuildError> {
        if block.rows() == 0 {
            return Ok(());
        }
        let table = block.schema().table;
        let insert = FrozenInsert::into_table(block, &format!("{table}{}", self.suffix));
        self.into.insert(&insert).await?;
        *self.written.entry(table).or_default() += block.rows();
        Ok(())
    }

    /// All partitions of a topic, from where they were read last.
    async fn fill_rest(&mut self, source: Source) -> Result<(), RebuildError> {
        let partitions = 0..self.reader.partitions(source.topic(&self.config.topics))?;
        self.fill(source, &partitions.collect::<Vec<_>>(), &mut |_| true).await
    }

    async fn fill_all(&mut self) -> Result<(), RebuildError> {
        for source in Source::ALL {
            self.fill_rest(source).await?;
        }
        Ok(())
    }

    /// Reads partitions together from where they were read last to their ends as of now, and inserts the rows of those
    /// records that `keeps` wants.
    async fn fill(
        &mut self,
        source: Source,
        partitions: &[i32],
        keeps: &mut impl FnMut(&Record) -> bool,
    ) -> Result<(), RebuildError> {
        let topic = source.topic(&self.config.topics).to_owned();
        let whole = partitions.iter().map(|partition| self.reader.whole(&topic, *partition));
        let mut left = whole.collect::<Result<Vec<Stretch>, _>>()?;
        for stretch in &mut left {
            let of = SourcePartition { source, partition: stretch.partition };
            stretch.from = self.next.get(&of).copied().unwrap_or(stretch.from).max(stretch.from);
            self.next.insert(of, stretch.to.max(stretch.from));
        }
        loop {
            left.retain(|stretch| stretch.from < stretch.to);
            if left.is_empty() {
                return Ok(());
            }
            let share = OFFSETS_AT_ONCE / i64::try_from(left.len()).unwrap_or(1);
            let part = |stretch: &Stretch| Stretch { to: stretch.to.min(stretch.from + share), ..*stretch };
            let parts: Vec<Stretch> = left.iter().map(part).collect();
            let mut records = Vec::new();
            tokio::task::block_in_place(|| {
                self.reader.read(&topic, &parts, |record| records.push(Record::detach(source, record)))
            })?;
            records.retain(&mut *keeps);
            let rows = rows::build(&records, &self.config.topics, &mut self.guard, &HashSet::new());
            if let Some(stop) = rows.stops.first() {
                return Err(RebuildError::Record {
                    topic,
                    partition: stop.of.partition,
                    offset: stop.offset,
                    reason: stop.reason.to_string(),
                });
            }
            for block in &rows.blocks {
                self.insert(block).await?;
            }
            for (stretch, part) in left.iter_mut().zip(&parts) {
                stretch.from = part.to;
            }
        }
    }

    /// The new entries, as ClickHouse answers, against the ledger.
    async fn compare(&self, shards: i32) -> Result<(), RebuildError> {
        let window = Window { from: Timestamp::MIN, to: Timestamp::MAX, is_whole: true };
        let positions = (0..shards).map(|shard| (shard, i64::MAX)).collect();
        let mut found = self.stored.hours_of(&format!("ledger_entries{SUFFIX}"), &positions, &window).await?;
        for (key, totals) in &mut found {
            totals.offsets = self.hours.get(key).map_or((0, 0), |expected| expected.offsets);
        }
        if found == self.hours {
            return Ok(());
        }
        let differ = |key: &&(i32, i64)| found.get(key) != self.hours.get(key);
        let keys: HashSet<&(i32, i64)> = found.keys().chain(self.hours.keys()).collect();
        Err(RebuildError::Differs(keys.into_iter().filter(differ).count()))
    }
}
