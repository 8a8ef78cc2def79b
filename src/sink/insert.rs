//! Owns the way into ClickHouse: the client, frozen inserts, and what to do when one fails.
//!
//! **Invariant:** an insert is serialised once; every try sends the same bytes. A try is bounded by the
//! request timeout, tries are not: ClickHouse may be away for as long as it likes, and only an error that
//! waiting cannot mend ends them. Must not hold up shutdown: the caller drops the future.

use std::fmt;
use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ExponentialBuilder};
use bytes::Bytes;
use clickhouse::{Client, Compression};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;
use thiserror::Error;

use super::block::{Block, Schema};
use super::guard::Stored;
use crate::config::{ClickHouseConfig, SinkConfig};
use crate::fault::fault_point;
use crate::metrics::Metrics;

/// Idle connections are closed before the server does (it waits 3 s by default).
const IDLE_CONNECTION_MAX: Duration = Duration::from_secs(2);
/// Size of a compressed piece of a body.
const PIECE_BYTES: usize = 1024 * 1024;
/// Wallets asked about in one statement.
const WALLETS_PER_QUERY: usize = 1_000;

/// Oldest version: the first long-term release with views that run with the rights of who made them (`SQL SECURITY`).
const VERSION_MIN: &str = "24.3";

/// A failed request to ClickHouse.
#[derive(Debug, Error)]
pub enum ClickHouseError {
    /// No answer in time.
    #[error("no answer within {} ms", .0.as_millis())]
    Timeout(Duration),
    /// A server that lacks what the migrations use.
    #[error("the server has version {0}, expected at least {min}", min = VERSION_MIN)]
    TooOld(String),
    /// Anything else that the client reports.
    #[error(transparent)]
    Client(#[from] clickhouse::error::Error),
}

/// Code of a user who may only read.
const RIGHTS_READ_ONLY: u32 = 164;
/// Code of a cluster that `remote_servers` does not have.
const CLUSTER_UNKNOWN: u32 = 701;
/// Code of a user who lacks a right.
const RIGHTS_MISSING: u32 = 497;

/// What an error calls for. The names are those of the metric's label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// No connection, or it broke.
    Unreachable,
    /// No answer in time.
    Timeout,
    /// Overload and the like: it passes.
    Transient,
    /// The schema, the rights or the statement are wrong: trying again is no use.
    Permanent,
    /// Not known to be the one or the other: tried again.
    Other,
}

/// ClickHouse refuses, and will go on refusing.
#[derive(Debug, Error)]
#[error("clickhouse refuses {what}: {source}; {}, then start the sink again", .source.advice())]
pub struct Refused {
    /// The request.
    pub what: String,
    /// The answer.
    pub source: ClickHouseError,
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

impl ErrorKind {
    /// The label of `clickhouse_errors_total`.
    pub const fn as_str(self) -> &'static str {
        match self {
            ErrorKind::Unreachable => "unreachable",
            ErrorKind::Timeout => "timeout",
            ErrorKind::Transient => "transient",
            ErrorKind::Permanent => "permanent",
            ErrorKind::Other => "other",
        }
    }

    /// By ClickHouse's error code.
    pub const fn of_code(code: u32) -> ErrorKind {
        match code {
            // Columns, tables, databases and types that do not fit the statement.
            10 | 16 | 20 | 36 | 44 | 47 | 48 | 50 | 53 | 60 | 62 | 70 | 81 | 115 | 117 | 128
            | CLUSTER_UNKNOWN => ErrorKind::Permanent,
            // Rights, users, passwords; a user who may only read.
            RIGHTS_READ_ONLY | RIGHTS_MISSING | 192 | 193 | 194 | 195 | 291 | 452 | 492 | 516 => {
                ErrorKind::Permanent
            }
            // Too many queries, parts, bytes of memory, no room, a replica that is not ready, a table that is
            // locked, a query that was cancelled or took too long, ZooKeeper.
            159 | 160 | 202 | 203 | 225 | 236 | 241 | 242 | 243 | 252 | 285 | 286 | 289 | 319 | 373 | 394
            | 473 | 722 | 999 => ErrorKind::Transient,
            // Sockets of the server's own.
            209 | 210 => ErrorKind::Transient,
            _ => ErrorKind::Other,
        }
    }
}

impl ClickHouseError {
    /// ClickHouse's own code: a bad answer begins with `Code: 60. DB::Exception: …`.
    pub fn code(&self) -> Option<u32> {
        let ClickHouseError::Client(clickhouse::error::Error::BadResponse(text)) = self else {
            return None;
        };
        let digits = text.split_once("Code: ")?.1;
        digits.split(|letter: char| !letter.is_ascii_digit()).next()?.parse().ok()
    }

    /// What it calls for.
    pub fn kind(&self) -> ErrorKind {
        match self {
            ClickHouseError::Timeout(_) | ClickHouseError::Client(clickhouse::error::Error::TimedOut) => {
                ErrorKind::Timeout
            }
            ClickHouseError::Client(clickhouse::error::Error::Network(_)) => ErrorKind::Unreachable,
            ClickHouseError::TooOld(_)
            | ClickHouseError::Client(clickhouse::error::Error::InvalidParams(_)) => ErrorKind::Permanent,
            ClickHouseError::Client(_) => self.code().map_or(ErrorKind::Other, ErrorKind::of_code),
        }
    }
}

impl ClickHouseError {
    /// What a person does about one of `init`'s that is permanent.
    pub(super) fn advice_of_owner(&self) -> &'static str {
        match self {
            ClickHouseError::TooOld(_) => "upgrade the server",
            error if error.code() == Some(CLUSTER_UNKNOWN) => {
                "set clickhouse.cluster to a cluster of the server's remote_servers"
            }
            _ => "check user, password and rights (role creditstream_owner of config/clickhouse/access.sql)",
        }
    }

    /// What a person does about one that is permanent.
    fn advice(&self) -> &'static str {
        if matches!(self, ClickHouseError::TooOld(_)) {
            return "upgrade the server";
        }
        match self.code() {
            Some(RIGHTS_READ_ONLY) => {
                "this user may only read: take the setting readonly from its profile, or set clickhouse.user to one who may insert"
            }
            Some(RIGHTS_MISSING) => {
                "give the user of clickhouse.user the role creditstream_writer (config/clickhouse/access.sql)"
            }
            Some(192..=195 | 291 | 516) => {
                "set clickhouse.user and clickhouse.password to a user that exists"
            }
            Some(10 | 16 | 20 | 36 | 44 | 47 | 50 | 53 | 60 | 70 | 81) => {
                "run `creditstream init` if the schema is not there or older; else somebody changed it: make it again as the message says, or take another database"
            }
            _ => "mend what it says",
        }
    }
}

/// Whether the server has what migrations and statements need.
///
/// # Errors
/// [`ClickHouseError::TooOld`], or what came instead of an answer.
pub async fn check_version(client: &Client, timeout: Duration) -> Result<(), ClickHouseError> {
    let version: String = bounded(timeout, client.query("SELECT version()").fetch_one()).await?;
    let year_and_release = |version: &str| -> Vec<u32> {
        version.split('.').take(2).map(|number| number.parse().unwrap_or(0)).collect()
    };
    match year_and_release(&version) < year_and_release(VERSION_MIN) {
        true => Err(ClickHouseError::TooOld(version)),
        false => Ok(()),
    }
}

/// A client that gives up connecting after the configured time. It names no database.
pub fn client(config: &ClickHouseConfig) -> Client {
    let mut connector = HttpConnector::new();
    connector.set_connect_timeout(Some(config.connect_timeout()));
    connector.set_nodelay(true);
    connector.enforce_http(false);
    let connector = HttpsConnectorBuilder::new()
        .with_webpki_roots()
        .https_or_http()
        .enable_http1()
        .wrap_connector(connector);
    let http = HttpClient::builder(TokioExecutor::new())
        .pool_timer(hyper_util::rt::TokioTimer::new())
        .pool_idle_timeout(IDLE_CONNECTION_MAX)
        .build(connector);
    let client = Client::with_http_client(http)
        .with_url(&config.url)
        .with_user(&config.user)
        .with_password(config.password.expose())
        .with_compression(Compression::Lz4);
    if config.cluster.is_empty() { client } else { for_cluster(client) }
}

fn for_cluster(client: Client) -> Client {
    client
        // An answer must mean that the shards have the rows, not that they are on their way.
        .with_setting("distributed_foreground_insert", "1")
        // Rows that were deleted or lost are written again with the same bytes: a replica must not take them for known.
        .with_setting("insert_deduplicate", "0")
        // The tables by day add up over all shards.
        .with_setting("parallel_distributed_insert_select", "0")
        .with_setting("distributed_product_mode", "global")
        // What was written is read: from the same replica as long as it lives.
        .with_setting("load_balancing", "in_order")
}

/// Bounds a request by the request timeout.
pub async fn bounded<T>(
    timeout: Duration,
    request: impl Future<Output = clickhouse::error::Result<T>>,
) -> Result<T, ClickHouseError> {
    let answered = tokio::time::timeout(timeout, request).await;
    Ok(answered.map_err(|_| ClickHouseError::Timeout(timeout))??)
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
            .with_setting("max_query_size", "1000000");
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
        #[derive(clickhouse::Row, Deserialize)]
        struct LastEntry {
            wallet_id: String,
            last_seq: u64,
            last_offset: i64,
        }
        let query = self.client.query(
            "SELECT wallet_id, max(seq) AS last_seq, argMax(ledger_offset, seq) AS last_offset \
             FROM ledger_entries WHERE wallet_id IN ? GROUP BY wallet_id",
        );
        let rows: Vec<LastEntry> = bounded(self.request_timeout, query.bind(wallets).fetch_all()).await?;
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
