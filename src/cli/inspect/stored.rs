//! Entries and open holds of one wallet, as ClickHouse has them.
//!
//! Rows come as JSON: an entry's names there are those of the columns, so that it is read as the ledger's readers read it.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::config::ClickHouseConfig;
use crate::sink::client::{bounded, client};
use crate::sink::error::ClickHouseError;
use crate::time::Timestamp;
use crate::wallet::Entry;

/// Holds that are shown at most.
pub const HOLDS_MAX: usize = 100;

/// The columns of an entry, and where it stands in the ledger. What is no usage has neither asset type nor rate.
const ENTRY: &str = "seq, entry_type, credits, held_credits, amount, posted_at, event_time, event_type, source, event_id, \
    leftPad(lower(hex(fingerprint)), 16, '0') AS fingerprint, job_id, asset_id, nullIf(asset_type, '') AS asset_type, model, user_id, project_id, images, video_seconds, rate_card, \
    if(rate_card = '', NULL, rate) AS rate, grant_effects, balance_after, held_after, overdraft_after, level, plan, \
    contract_id, period_start, amount_usd, reason, actor, reference, origin_topic, origin_partition, origin_offset, \
    business_id, ledger_partition, ledger_offset";

/// How the engine spells values, whatever the user's profile says.
const SETTINGS: &str = "SETTINGS date_time_output_format = 'iso', output_format_json_quote_64bit_integers = 0, \
    output_format_json_quote_decimals = 1, output_format_json_named_tuples_as_objects = 1";

/// An entry, and where it stands in the ledger topic.
pub struct StoredEntry<'a> {
    /// The entry.
    pub entry: Entry<'a>,
    /// Partition.
    pub ledger_partition: i32,
    /// Offset.
    pub ledger_offset: i64,
}

/// Credits that a job, or one asset of it, still holds.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct StoredHold {
    /// The job.
    pub job_id: String,
    /// The asset; empty: the whole job.
    pub asset_id: String,
    /// Credits.
    pub credits: i64,
    /// Event time of the request.
    pub since: Timestamp,
}

/// An answer of ClickHouse: one JSON document a line.
pub struct Answer(Bytes);

impl Answer {
    /// The entries in it.
    pub fn entries(&self) -> Result<Vec<StoredEntry<'_>>, serde_json::Error> {
        #[derive(Deserialize)]
        struct Place {
            ledger_partition: i32,
            ledger_offset: i64,
        }
        let read = |line| {
            let entry = serde_json::from_slice(line)?;
            let Place { ledger_partition, ledger_offset } = serde_json::from_slice(line)?;
            Ok(StoredEntry { entry, ledger_partition, ledger_offset })
        };
        self.lines().map(read).collect()
    }

    /// The holds in it.
    pub fn holds(&self) -> Result<Vec<StoredHold>, serde_json::Error> {
        self.lines().map(serde_json::from_slice).collect()
    }

    fn lines(&self) -> impl Iterator<Item = &[u8]> {
        self.0.split(|byte| *byte == b'\n').filter(|line| !line.is_empty())
    }
}

/// One database.
pub struct Store<'c> {
    config: &'c ClickHouseConfig,
    client: clickhouse::Client,
}

impl<'c> Store<'c> {
    /// The one that is configured.
    pub fn new(config: &'c ClickHouseConfig) -> Store<'c> {
        Store { config, client: client(config).with_database(&config.database) }
    }

    /// The last entries of a wallet, the latest first.
    pub async fn last_entries(&self, wallet_id: &str, count: u32) -> Result<Answer, ClickHouseError> {
        let sql = format!(
            "SELECT {ENTRY} FROM ledger_entries FINAL WHERE wallet_id = ? ORDER BY seq DESC LIMIT ? {SETTINGS}"
        );
        self.ask(self.client.query(&sql).bind(wallet_id).bind(count)).await
    }

    /// One entry of a wallet, or none.
    pub async fn entry(&self, wallet_id: &str, seq: u64) -> Result<Answer, ClickHouseError> {
        let sql = format!(
            "SELECT {ENTRY} FROM ledger_entries FINAL WHERE wallet_id = ? AND seq = ? LIMIT 1 {SETTINGS}"
        );
        self.ask(self.client.query(&sql).bind(wallet_id).bind(seq)).await
    }

    /// Seq of the last entry of a wallet; 0: there is none.
    pub async fn last_seq(&self, wallet_id: &str) -> Result<u64, ClickHouseError> {
        let sql = "SELECT max(seq) FROM ledger_entries WHERE wallet_id = ?";
        let query = self.client.query(sql).bind(wallet_id);
        bounded(self.config.request_timeout(), query.fetch_one::<u64>()).await
    }

    /// What is held, the oldest first; one more than [`HOLDS_MAX`] at most.
    pub async fn holds(&self, wallet_id: &str) -> Result<Answer, ClickHouseError> {
        let sql = format!(
            "SELECT job_id, asset_id, sum(held_credits) AS credits, maxIf(event_time, entry_type = 'held') AS since \
             FROM ledger_entries FINAL WHERE wallet_id = ? AND held_credits != 0 \
             GROUP BY job_id, asset_id HAVING credits > 0 ORDER BY since, job_id, asset_id LIMIT ? {SETTINGS}"
        );
        self.ask(self.client.query(&sql).bind(wallet_id).bind(HOLDS_MAX + 1)).await
    }

    async fn ask(&self, query: clickhouse::query::Query) -> Result<Answer, ClickHouseError> {
        let answer = async { query.fetch_bytes("JSONEachRow")?.collect().await };
        Ok(Answer(bounded(self.config.request_timeout(), answer).await?))
    }
}
