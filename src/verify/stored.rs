//! What ClickHouse answers. It is asked, never assumed.

use std::collections::{BTreeMap, HashMap};

use serde::Deserialize;

use super::alerts::{ByWallet, HASH_SQL as ALERT_HASH_SQL, Totals};
use super::entry::HASH_SQL;
use super::fold::{HourTotals, Snapshot, Window};
use crate::config::ClickHouseConfig;
use crate::sink::client::{bounded, client};
use crate::sink::cluster;
use crate::sink::error::ClickHouseError;
use crate::time::Timestamp;
use std::time::Duration;

/// One scan of all entries may take longer than a request of the sink.
const QUERY_TIMEOUT: Duration = Duration::from_secs(600);
/// Wallets or entries named in one statement.
const NAMED_PER_STATEMENT: usize = 500;

/// One database.
pub struct Stored {
    client: clickhouse::Client,
    cluster: String,
}

/// Totals by shard and hour of posting.
pub type Hours = BTreeMap<(i32, i64), HourTotals>;

/// An entry of one hour: its hash, and its effect on the balance.
pub type OfHour = HashMap<(String, u64), (u64, i64)>;

/// A wallet whose usage does not add up to its entries.
#[derive(clickhouse::Row, Deserialize)]
pub struct UsageDifference {
    /// The wallet.
    pub wallet_id: String,
    /// Credits charged, reversed and refused, by `usage_hourly` …
    pub usage: (i64, i64, i64),
    /// … and by `ledger_entries`.
    pub entries: (i64, i64, i64),
}

/// An alert: its entry, and the hash of all of it.
#[derive(clickhouse::Row, Deserialize)]
pub struct AlertRow {
    /// The wallet.
    pub wallet_id: String,
    /// The alert.
    pub alert_id: String,
    /// Its entry.
    pub seq: u64,
    /// Its hash.
    pub hash: u64,
}

/// The home of a wallet, as the ledger stage computes it: of the shards so many, which.
const HOME_SQL: &str = "modulo(bitAnd(kafkaMurmurHash(wallet_id), 0x7fffffff), ?) = ?";

impl Stored {
    /// The one that is configured.
    pub fn new(config: &ClickHouseConfig) -> Stored {
        Stored {
            client: client(config).with_database(&config.database).with_setting("mutations_sync", "2"),
            cluster: config.cluster.clone(),
        }
    }

    /// Totals of the entries below the sink's position in each shard. A shard that does not exist is one too.
    pub async fn hours(
        &self,
        positions: &BTreeMap<i32, i64>,
        window: &Window,
    ) -> Result<Hours, ClickHouseError> {
        self.hours_of("ledger_entries", positions, window).await
    }

    /// The same of a table like `ledger_entries`.
    pub async fn hours_of(
        &self,
        table: &str,
        positions: &BTreeMap<i32, i64>,
        window: &Window,
    ) -> Result<Hours, ClickHouseError> {
        #[derive(clickhouse::Row, Deserialize)]
        struct Row {
            shard: i32,
            hour: i64,
            entries: u64,
            credits: i64,
            held_credits: i64,
            hash: u64,
        }
        let shards: Vec<i32> = positions.keys().copied().collect();
        let ends: Vec<i64> = positions.values().copied().collect();
        let sql = format!(
            "SELECT shard, hour, count() AS entries, sum(row_credits) AS credits, sum(row_held) AS held_credits, sum(row_hash) AS hash FROM \
             (SELECT ledger_partition AS shard, toInt64(intDiv(toUnixTimestamp64Milli(posted_at), 3600000)) AS hour, \
              credits AS row_credits, held_credits AS row_held, {HASH_SQL} AS row_hash FROM {table} FINAL \
              WHERE {} AND ledger_offset < transform(ledger_partition, ?, ?, toInt64(9223372036854775807))) \
             GROUP BY shard, hour",
            posted_in(window)
        );
        let query = self.client.query(&sql).bind(shards).bind(ends);
        let rows: Vec<Row> = bounded(QUERY_TIMEOUT, query.fetch_all()).await?;
        let totals = |row: Row| {
            let Row { shard, hour, entries, credits, held_credits, hash } = row;
            ((shard, hour), HourTotals { entries, credits, held_credits, hash, offsets: (0, 0) })
        };
        Ok(rows.into_iter().map(totals).collect())
    }

    /// The entries of one shard and hour that lie in the window, below the sink's position.
    pub async fn of_hour(
        &self,
        shard: i32,
        hour: i64,
        position: i64,
        window: &Window,
    ) -> Result<OfHour, ClickHouseError> {
        #[derive(clickhouse::Row, Deserialize)]
        struct Row {
            wallet_id: String,
            seq: u64,
            hash: u64,
            credits: i64,
        }
        let sql = format!(
            "SELECT wallet_id, seq, {HASH_SQL} AS hash, credits FROM ledger_entries FINAL WHERE ledger_partition = ? AND ledger_offset < ? \
             AND toUnixTimestamp64Milli(posted_at) >= ? AND toUnixTimestamp64Milli(posted_at) < ? AND {}",
            posted_in(window)
        );
        let query = self
            .client
            .query(&sql)
            .bind(shard)
            .bind(position)
            .bind(hour * 3_600_000)
            .bind((hour + 1) * 3_600_000);
        let rows: Vec<Row> = bounded(QUERY_TIMEOUT, query.fetch_all()).await?;
        Ok(rows.into_iter().map(|row| ((row.wallet_id, row.seq), (row.hash, row.credits))).collect())
    }

    /// The wallets of a shard as the `wallets` table has them.
    pub async fn wallets(&self, shard: i32, shards: i32) -> Result<Vec<(String, Snapshot)>, ClickHouseError> {
        #[derive(clickhouse::Row, Deserialize)]
        struct Row {
            wallet_id: String,
            seq: u64,
            balance: i64,
            held: i64,
            overdraft: i64,
        }
        let sql =
            format!("SELECT wallet_id, seq, balance, held, overdraft FROM wallets FINAL WHERE {HOME_SQL}");
        let query = self.client.query(&sql).bind(shards).bind(shard);
        let rows: Vec<Row> = bounded(QUERY_TIMEOUT, query.fetch_all()).await?;
        let snapshot = |row: Row| {
            let Row { wallet_id, seq, balance, held, overdraft } = row;
            (wallet_id, Snapshot { seq, balance, held, overdraft, offset: 0 })
        };
        Ok(rows.into_iter().map(snapshot).collect())
    }

    /// The alerts of a shard's wallets, summed up.
    pub async fn alert_totals(&self, shard: i32, shards: i32) -> Result<ByWallet, ClickHouseError> {
        let sql = format!(
            "SELECT wallet_id, count() AS alerts, sum(row_hash) AS hash FROM \
             (SELECT wallet_id, {ALERT_HASH_SQL} AS row_hash FROM alerts FINAL WHERE {HOME_SQL}) GROUP BY wallet_id"
        );
        let query = self.client.query(&sql).bind(shards).bind(shard);
        let rows: Vec<(String, u64, u64)> = bounded(QUERY_TIMEOUT, query.fetch_all()).await?;
        let totals = |(wallet_id, alerts, hash): (String, u64, u64)| {
            (wallet_id.into_boxed_str(), Totals { alerts, hash })
        };
        Ok(rows.into_iter().map(totals).collect())
    }

    /// The alerts of some wallets, one by one.
    pub async fn alerts(&self, wallets: &[String]) -> Result<Vec<AlertRow>, ClickHouseError> {
        let sql = format!(
            "SELECT wallet_id, alert_id, seq, {ALERT_HASH_SQL} AS hash FROM alerts FINAL WHERE wallet_id IN ?"
        );
        let mut found = Vec::new();
        for some in wallets.chunks(NAMED_PER_STATEMENT) {
            let query = self.client.query(&sql).bind(some);
            found.extend(bounded(QUERY_TIMEOUT, query.fetch_all::<AlertRow>()).await?);
        }
        Ok(found)
    }

    /// Wallets whose grants do not add up to their balance: wallet, balance and overdraft together, left in grants.
    pub async fn grant_differences(&self) -> Result<Vec<(String, i64, i64)>, ClickHouseError> {
        // Both tables are filled from one record; while they are, their seq differs.
        let sql = "SELECT wallet_id, w.balance + w.overdraft AS covered, g.remaining AS remaining FROM wallets AS w FINAL \
             LEFT JOIN (SELECT wallet_id, sum(credits_remaining) AS remaining, max(seq) AS seq FROM grants FINAL GROUP BY wallet_id) AS g \
             USING wallet_id WHERE covered != remaining AND (g.seq = 0 OR g.seq = w.seq) ORDER BY wallet_id LIMIT 1000";
        bounded(QUERY_TIMEOUT, self.client.query(sql).fetch_all()).await
    }

    /// Wallets whose usage by hour does not add up to their entries.
    pub async fn usage_differences(&self) -> Result<Vec<UsageDifference>, ClickHouseError> {
        let sql = "SELECT wallet_id, (u.charged, u.reversed, u.refused) AS usage, (e.charged, e.reversed, e.refused) AS entries FROM \
             (SELECT wallet_id, sum(credits_charged) AS charged, sum(credits_reversed) AS reversed, sum(credits_refused) AS refused \
              FROM usage_hourly FINAL GROUP BY wallet_id) AS u FULL JOIN \
             (SELECT wallet_id, -sumIf(credits, entry_type = 'charged') AS charged, sumIf(credits, entry_type = 'reversed') AS reversed, \
              sumIf(amount, entry_type = 'refused') AS refused FROM ledger_entries FINAL GROUP BY wallet_id) AS e \
             USING wallet_id WHERE usage != entries ORDER BY wallet_id LIMIT 1000";
        bounded(QUERY_TIMEOUT, self.client.query(sql).fetch_all()).await
    }

    /// Has the sink compute the tables by day anew, with its next refresh.
    pub async fn forget_refreshed_days(&self) -> Result<(), ClickHouseError> {
        bounded(QUERY_TIMEOUT, self.client.query("TRUNCATE TABLE days_refreshed").execute()).await
    }

    /// All rows of `grants` of these wallets, also those that newer ones will replace: wallet, grant, seq.
    pub async fn grants(&self, wallets: &[String]) -> Result<Vec<(String, String, u64)>, ClickHouseError> {
        let sql = "SELECT DISTINCT wallet_id, grant_id, seq FROM grants WHERE wallet_id IN ?";
        let mut found = Vec::new();
        for some in wallets.chunks(NAMED_PER_STATEMENT) {
            let rows: Vec<(String, String, u64)> =
                bounded(QUERY_TIMEOUT, self.client.query(sql).bind(some).fetch_all()).await?;
            found.extend(rows);
        }
        Ok(found)
    }

    /// Where rows can be deleted: a cluster's front deletes none.
    fn rows_of(&self, table: &str) -> String {
        match self.cluster.as_str() {
            "" => table.to_owned(),
            cluster => format!("{}{}", cluster::local(table), cluster::on(cluster)),
        }
    }

    /// Deletes rows of `ledger_entries` or `wallets`: wallet, seq.
    pub async fn delete_rows(&self, table: &str, rows: &[(String, u64)]) -> Result<(), ClickHouseError> {
        for some in rows.chunks(NAMED_PER_STATEMENT) {
            let sql = format!("DELETE FROM {} WHERE (wallet_id, seq) IN ?", self.rows_of(table));
            bounded(QUERY_TIMEOUT, self.client.query(&sql).bind(some).execute()).await?;
        }
        Ok(())
    }

    /// Deletes rows of `grants`: wallet, grant, seq.
    pub async fn delete_grants(&self, rows: &[(String, String, u64)]) -> Result<(), ClickHouseError> {
        for some in rows.chunks(NAMED_PER_STATEMENT) {
            let sql = format!("DELETE FROM {} WHERE (wallet_id, grant_id, seq) IN ?", self.rows_of("grants"));
            let query = self.client.query(&sql);
            bounded(QUERY_TIMEOUT, query.bind(some).execute()).await?;
        }
        Ok(())
    }

    /// Deletes rows of `alerts`: wallet, alert.
    pub async fn delete_alerts(&self, rows: &[(String, String)]) -> Result<(), ClickHouseError> {
        for some in rows.chunks(NAMED_PER_STATEMENT) {
            let sql = format!("DELETE FROM {} WHERE (wallet_id, alert_id) IN ?", self.rows_of("alerts"));
            bounded(QUERY_TIMEOUT, self.client.query(&sql).bind(some).execute()).await?;
        }
        Ok(())
    }

    /// Deletes all usage of wallets, which is filled again from the ledger.
    pub async fn delete_usage(&self, wallets: &[String]) -> Result<(), ClickHouseError> {
        for some in wallets.chunks(NAMED_PER_STATEMENT) {
            let sql = format!("DELETE FROM {} WHERE wallet_id IN ?", self.rows_of("usage_hourly"));
            let query = self.client.query(&sql).bind(some);
            bounded(QUERY_TIMEOUT, query.execute()).await?;
        }
        Ok(())
    }
}

/// The window as a condition; all months are read where it has no end of its own.
fn posted_in(window: &Window) -> String {
    let instant = |at: Timestamp| format!("fromUnixTimestamp64Milli({})", at.millis());
    let from = (window.from > Timestamp::MIN).then(|| format!("posted_at >= {}", instant(window.from)));
    let to = (window.to < Timestamp::MAX).then(|| format!("posted_at < {}", instant(window.to)));
    let both: Vec<String> = from.into_iter().chain(to).collect();
    if both.is_empty() { "1".to_owned() } else { both.join(" AND ") }
}
