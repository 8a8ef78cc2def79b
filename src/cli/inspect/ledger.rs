//! Entries as the ledger topic has them: ClickHouse has no columns for the terms of a contract, the limits of a wallet,
//! the limit of a refusal and the end of a hold.

use super::stored::StoredEntry;
use crate::cli::topic::records;
use crate::config::Config;
use crate::wallet::{Entry, LedgerRecord};

/// Values of ledger records, in the order of the entries that they were asked for.
pub struct LedgerValues(Vec<Option<Vec<u8>>>);

impl LedgerValues {
    /// Of the records that these entries stand in. Where Kafka does not have them now, or is away, there are none.
    pub fn of(config: &Config, stored: &[&StoredEntry<'_>]) -> LedgerValues {
        let places: Vec<(i32, i64)> =
            stored.iter().map(|stored| (stored.ledger_partition, stored.ledger_offset)).collect();
        let values = match records(config, &config.topics.ledger, &places) {
            Ok(values) => values,
            Err(failure) => {
                tracing::debug!(
                    error = failure.message,
                    "the ledger cannot be read: told from clickhouse alone"
                );
                Vec::new()
            }
        };
        LedgerValues(values)
    }

    /// A wallet's entry, if one of the records is the wallet's and has it: a ledger that was made anew has others there.
    pub fn entry(&self, wallet_id: &str, seq: u64) -> Option<Entry<'_>> {
        let records = self.0.iter().flatten().filter_map(|value| serde_json::from_slice(value).ok());
        let mut records = records.filter(|record: &LedgerRecord<'_>| record.wallet_id == wallet_id);
        records.find_map(|record| record.entries.into_iter().find(|entry| entry.seq == seq))
    }
}
