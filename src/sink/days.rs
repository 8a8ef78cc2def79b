//! Keeps the tables by day up to date: `usage_by_day` and `credits_by_day`, sums over all wallets for panels that would
//! otherwise group all entries.
//!
//! A day is computed anew, from the tables, when an entry that came since the last refresh touches it by its event time
//! or its posted time. Which entries came since is asked of ClickHouse: those from the offset on that `days_refreshed`
//! has, so that a crash between an insert and its refresh loses none.
//!
//! **Invariant:** `days_refreshed` never goes beyond what ClickHouse had acknowledged before its days were computed; of
//! two computations of a day the one that saw more wins, whoever ran it ([`version`](../../migrations/0002_days.sql)).
//! Must not hold up, stop or fail the sink, nor run more than a twentieth of the time: the entries are the books, days a summary.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;

use super::client::bounded;
use super::error::ClickHouseError;
use super::insert::ClickHouse;
use super::record::{Source, SourcePartition};

/// Shortest time from one refresh to the next.
const INTERVAL_MIN: Duration = Duration::from_secs(5);
/// For each second that a refresh took, the next one waits so many.
const REST_FACTOR: u32 = 19;

const USAGE_BY_DAY: &str = include_str!("usage_by_day.sql");
const CREDITS_BY_DAY: &str = include_str!("credits_by_day.sql");

/// What is to be refreshed, and when.
#[derive(Debug)]
pub(super) struct Days {
    /// Offset after the last entry that ClickHouse has acknowledged, by partition of the ledger, since the last refresh.
    acknowledged: BTreeMap<i32, i64>,
    due: Instant,
    /// Whoever wrote before may have died before its refresh: the first one looks at all partitions.
    is_first: bool,
    /// The one under way, if any. It ends with this.
    running: JoinSet<Refresh>,
}

/// A refresh: what it took on, how long it ran, and what it came to.
#[derive(Debug)]
struct Refresh {
    acknowledged: BTreeMap<i32, i64>,
    took: Duration,
    result: Result<(), ClickHouseError>,
}

/// Days of one month, both included, that entries touch.
#[derive(Debug, clickhouse::Row, Deserialize)]
struct Touched {
    by_event_time: bool,
    first: String,
    last: String,
}

impl Days {
    /// The first refresh is due also where nothing is inserted.
    pub fn new() -> Days {
        Days {
            acknowledged: BTreeMap::new(),
            due: Instant::now() + INTERVAL_MIN,
            is_first: true,
            running: JoinSet::new(),
        }
    }

    /// Takes note of what was inserted, and acknowledged for all tables.
    pub fn note(&mut self, positions: &BTreeMap<SourcePartition, i64>) {
        let ledger = positions.iter().filter(|(of, _)| of.source == Source::Ledger);
        self.acknowledged.extend(ledger.map(|(of, next_offset)| (of.partition, *next_offset)));
    }

    /// Waits for the refresh under way, or until the next is due, and begins that one. To be called again and again;
    /// may be dropped at any time.
    pub async fn step(&mut self, clickhouse: &ClickHouse) {
        if let Some(done) = self.running.join_next().await {
            self.take_in(done, clickhouse);
            return;
        }
        if self.acknowledged.is_empty() && !self.is_first {
            return std::future::pending().await;
        }
        tokio::time::sleep_until(self.due).await;
        let (clickhouse, acknowledged) = (clickhouse.clone(), std::mem::take(&mut self.acknowledged));
        let is_first = self.is_first;
        self.running.spawn(async move {
            let begun = Instant::now();
            let result = refresh(&clickhouse, &acknowledged, is_first).await;
            Refresh { acknowledged, took: begun.elapsed(), result }
        });
    }

    /// A failure is told, and tried again with the next one.
    fn take_in(&mut self, done: Result<Refresh, JoinError>, clickhouse: &ClickHouse) {
        let Refresh { acknowledged, took, result } = match done {
            Ok(done) => done,
            Err(error) => {
                // It panicked, and what it took on is lost: the next one looks at all partitions.
                tracing::error!(%error, "the refresh of the tables by day failed; please report this");
                self.is_first = true;
                self.due = Instant::now() + INTERVAL_MIN;
                return;
            }
        };
        self.due = Instant::now() + INTERVAL_MIN.max(took * REST_FACTOR);
        match result {
            Ok(()) => self.is_first = false,
            Err(error) => {
                clickhouse.count_error(&error);
                tracing::warn!(%error, "the tables by day were not refreshed; it is tried again");
                for (partition, next_offset) in acknowledged {
                    // What came since is greater.
                    self.acknowledged.entry(partition).or_insert(next_offset);
                }
            }
        }
    }
}

async fn refresh(
    clickhouse: &ClickHouse,
    acknowledged: &BTreeMap<i32, i64>,
    is_first: bool,
) -> Result<(), ClickHouseError> {
    let from = refreshed(clickhouse, acknowledged, is_first).await?;
    for days in touched(clickhouse, &from).await? {
        let (table, sql) = match days.by_event_time {
            true => ("usage_by_day", USAGE_BY_DAY),
            false => ("credits_by_day", CREDITS_BY_DAY),
        };
        let begun = Instant::now();
        let insert = clickhouse.client().query(sql).param("first", &days.first).param("last", &days.last);
        bounded(clickhouse.request_timeout(), insert.execute()).await?;
        clickhouse.observe_insert(table, begun.elapsed());
    }
    if acknowledged.is_empty() {
        return Ok(());
    }
    let rows = acknowledged.iter().map(|(partition, next_offset)| format!("({partition}, {next_offset})"));
    let sql = format!("INSERT INTO days_refreshed VALUES {}", rows.collect::<Vec<_>>().join(", "));
    bounded(clickhouse.request_timeout(), clickhouse.client().query(&sql).execute()).await
}

/// For each partition to look at, the offset from which on its entries are not in the days yet.
async fn refreshed(
    clickhouse: &ClickHouse,
    acknowledged: &BTreeMap<i32, i64>,
    is_first: bool,
) -> Result<BTreeMap<i32, i64>, ClickHouseError> {
    let ask = async |sql: &str| {
        let rows = clickhouse.client().query(sql).fetch_all::<(i32, i64)>();
        bounded(clickhouse.request_timeout(), rows).await
    };
    let refreshed = ask("SELECT ledger_partition, ledger_offset FROM days_refreshed FINAL").await?;
    let unknown = match is_first {
        true => ask("SELECT DISTINCT ledger_partition, toInt64(0) FROM ledger_entries").await?,
        false => Vec::new(),
    };
    let mut from: BTreeMap<i32, i64> = unknown.into_iter().collect();
    from.extend(acknowledged.keys().map(|partition| (*partition, 0)));
    from.extend(refreshed);
    Ok(from)
}

/// The days that entries from these offsets on touch, by event time (for usage) and by posted time.
async fn touched(
    clickhouse: &ClickHouse,
    from: &BTreeMap<i32, i64>,
) -> Result<Vec<Touched>, ClickHouseError> {
    if from.is_empty() {
        return Ok(Vec::new());
    }
    let news: Vec<String> = from
        .iter()
        .map(|(partition, offset)| format!("ledger_partition = {partition} AND ledger_offset >= {offset}"))
        .collect();
    // One statement a month, so that each reads one partition of its table.
    let sql = format!(
        "SELECT touched.1 AS by_event_time, toString(min(touched.2)) AS first, toString(max(touched.2)) AS last \
         FROM (SELECT DISTINCT arrayJoin([(true, toDate(event_time)), (false, toDate(posted_at))]) AS touched \
         FROM ledger_entries WHERE {}) GROUP BY touched.1, toYYYYMM(touched.2) ORDER BY ALL",
        news.join(" OR ")
    );
    bounded(clickhouse.request_timeout(), clickhouse.client().query(&sql).fetch_all()).await
}
