//! Owns inserts into ClickHouse: frozen ones, and what to do when one fails.
//!
//! **Invariant:** an insert is serialised once; every try sends the same bytes. A try is bounded by the
//! request timeout, tries are not: ClickHouse may be away for as long as it likes, and only an error that
//! waiting cannot mend ends them. Must not hold up shutdown: the caller drops the future.

use std::fmt;
use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ExponentialBuilder};
use bytes::Bytes;
use clickhouse::Client;
use clickhouse::query::Query;
use serde::Deserialize;

use super::block::{Block, Schema};
use super::client::{bounded, check_version, client};
use super::error::{ClickHouseError, ErrorKind, Refused};
use super::guard::Stored;
use crate::config::{ClickHouseConfig, SinkConfig};
use crate::fault::fault_point;
use crate::metrics::Metrics;

/// Size of a compressed piece of a body.
const PIECE_BYTES: usize = 1024 * 1024;
/// Wallets asked about in one statement. It reads almost the whole of a table that has fewer granules than it names wallets:
/// 20,000 cost hardly more than 500.
const WALLETS_PER_QUERY: usize = 25_000;
/// Bytes, for so many of the longest ids.
const QUERY_SIZE_MAX: &str = "16777216";

/// How long ClickHouse may look for the last entries of all wallets, seconds.
const ALL_WALLETS_SECONDS_MAX: &str = "10";
const LAST_ENTRIES: &str =
    "SELECT wallet_id, max(seq) AS last_seq, argMax(ledger_offset, seq) AS last_offset FROM ledger_entries";

#[derive(clickhouse::Row, Deserialize)]
struct LastEntry {
    wallet_id: String,
    last_seq: u64,
    last_offset: i64,
}

/// One insert, serialised.
#[derive(Clone)]
pub struct FrozenInsert {
    schema: &'static Schema,
    sql: String,
    /// Pieces, so that one is compressed while the last is on its way.
    body: Bytes,
    rows: u64,
}

impl fmt::Debug for FrozenInsert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} rows for {} in {} bytes", self.rows, self.schema.table, self.body.len())
    }
}

/// The client of one sink.
#[derive(Clone)]
pub struct ClickHouse {
    client: Client,
    request_timeout: Duration,
    retry_min: Duration,
    retry_max: Duration,
    metrics: Metrics,
}

impl FrozenInsert {
    /// Serialises a block, for good.
    pub fn new(block: &Block) -> FrozenInsert {
        FrozenInsert::into_table(block, block.schema().table)
    }

    /// The same, into another table of the same columns.
    pub fn into_table(block: &Block, table: &str) -> FrozenInsert {
        let schema = block.schema();
        let columns: Vec<&str> = schema.columns.iter().map(|(name, _)| *name).collect();
        FrozenInsert {
            schema,
            sql: format!("INSERT INTO {table} ({}) FORMAT Native", columns.join(", ")),
            body: Bytes::from(block.to_bytes()),
            rows: block.rows(),
        }
    }

    /// The table that it goes into.
    pub fn table(&self) -> &'static str {
        self.schema.table
    }

    /// What is sent.
    pub fn body(&self) -> &[u8] {
        &self.body
    }
}

impl ClickHouse {
    /// For the database in the configuration.
    pub fn new(config: &ClickHouseConfig, sink: &SinkConfig, metrics: Metrics) -> ClickHouse {
        let client = client(config)
            .with_database(&config.database)
            // An answer must mean that the rows are there, whatever the user's profile says.
            .with_setting("async_insert", "0")
            .with_setting("wait_end_of_query", "1")
            // Old months in a batch of many wallets: a part each, but never refused for ever.
            .with_setting("max_partitions_per_insert_block", "0")
            .with_setting("max_query_size", QUERY_SIZE_MAX);
        ClickHouse {
            client,
            request_timeout: config.request_timeout(),
            retry_min: sink.retry_min(),
            retry_max: sink.retry_max(),
            metrics,
        }
    }

    /// Waits for an answer, and looks whether the server is new enough.
    ///
    /// # Errors
    /// Only where trying again is no use.
    pub async fn check_version(&self) -> Result<(), Refused> {
        // Without a database: that one may be missing is for the requests to say.
        let server = self.client.clone().with_database("");
        self.until_done(|| "the sink", || check_version(&server, self.request_timeout)).await
    }

    /// Inserts until ClickHouse has acknowledged it.
    ///
    /// # Errors
    /// Only where trying again is no use.
    pub async fn insert(&self, insert: &FrozenInsert) -> Result<(), Refused> {
        self.until_done(|| insert.table(), || self.try_insert(insert)).await
    }

    /// One try.
    ///
    /// # Errors
    /// Whatever comes.
    pub async fn try_insert(&self, insert: &FrozenInsert) -> Result<(), ClickHouseError> {
        let begun = Instant::now();
        bounded(self.request_timeout, async {
            let mut request = self.client.insert_formatted_with(insert.sql.clone());
            let mut rest = insert.body.clone();
            while !rest.is_empty() {
                let piece = rest.split_to(rest.len().min(PIECE_BYTES));
                request.send(piece).await?;
                fault_point!("sink.piece_sent");
            }
            request.end().await
        })
        .await?;
        self.observe_insert(insert.table(), begun.elapsed());
        self.metrics.clickhouse_rows.with_label_values(&[insert.table()]).inc_by(insert.rows);
        Ok(())
    }

    /// For single statements, beside inserts.
    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// Bound of one request.
    pub(super) fn request_timeout(&self) -> Duration {
        self.request_timeout
    }

    /// Counts an insert that was acknowledged.
    pub(super) fn observe_insert(&self, table: &str, took: Duration) {
        let of_table = self.metrics.clickhouse_insert_duration_seconds.with_label_values(&[table]);
        of_table.observe(took.as_secs_f64());
    }

    /// Counts a request that failed.
    pub(super) fn count_error(&self, error: &ClickHouseError) {
        self.metrics.clickhouse_errors.with_label_values(&[error.kind().as_str()]).inc();
    }

    /// The last entry that ClickHouse holds of each of these wallets; those without entries are left out.
    ///
    /// # Errors
    /// Only where trying again is no use.
    pub async fn last_entries(&self, wallets: &[&str]) -> Result<Vec<(String, Stored)>, Refused> {
        let mut found = Vec::with_capacity(wallets.len());
        for some in wallets.chunks(WALLETS_PER_QUERY) {
            let query = || self.try_last_entries(some);
            found.extend(self.until_done(|| "ledger_entries", query).await?);
        }
        Ok(found)
    }

    async fn try_last_entries(&self, wallets: &[&str]) -> Result<Vec<(String, Stored)>, ClickHouseError> {
        let sql = format!("{LAST_ENTRIES} WHERE wallet_id IN ? GROUP BY wallet_id");
        self.fetch_last_entries(self.client.query(&sql).bind(wallets)).await
    }

    /// The same of every wallet, in one try; `None`: they are more than so many, or ClickHouse would take too long.
    pub async fn all_last_entries(&self, wallets_max: usize) -> Option<Vec<(String, Stored)>> {
        // Which ones are left out beyond the limit does not matter: there are too many then.
        let query = self
            .client
            .query(&format!("{LAST_ENTRIES} GROUP BY wallet_id"))
            .with_setting("max_rows_to_group_by", (wallets_max + 1).to_string())
            .with_setting("group_by_overflow_mode", "any")
            .with_setting("max_execution_time", ALL_WALLETS_SECONDS_MAX);
        match self.fetch_last_entries(query).await {
            Ok(found) => (found.len() <= wallets_max).then_some(found),
            Err(error) => {
                tracing::info!(%error, "clickhouse is asked about the wallets of each batch, instead of all at once");
                None
            }
        }
    }

    async fn fetch_last_entries(&self, query: Query) -> Result<Vec<(String, Stored)>, ClickHouseError> {
        let rows: Vec<LastEntry> = bounded(self.request_timeout, query.fetch_all()).await?;
        let stored =
            |row: LastEntry| (row.wallet_id, Stored { seq: row.last_seq, ledger_offset: row.last_offset });
        Ok(rows.into_iter().map(stored).collect())
    }

    /// Tries until it succeeds, with growing pauses that no two sinks share.
    async fn until_done<T, F: Future<Output = Result<T, ClickHouseError>>>(
        &self,
        what: impl Fn() -> &'static str,
        request: impl Fn() -> F,
    ) -> Result<T, Refused> {
        let mut pauses = ExponentialBuilder::default()
            .with_min_delay(self.retry_min)
            .with_max_delay(self.retry_max)
            .with_jitter()
            .without_max_times()
            .build();
        let begun = Instant::now();
        loop {
            let error = match request().await {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            let kind = error.kind();
            self.count_error(&error);
            if kind == ErrorKind::Permanent {
                return Err(Refused { what: what().to_owned(), source: error });
            }
            let pause = pauses.next().unwrap_or(self.retry_max);
            tracing::warn!(
                table = what(), kind = kind.as_str(), %error,
                retry_ms = pause.as_millis() as u64, failing_for_s = begun.elapsed().as_secs(),
                "clickhouse does not take it; the batch is kept and tried again"
            );
            tokio::time::sleep(pause).await;
        }
    }
}
