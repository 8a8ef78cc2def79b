//! A record of the ledger, as far as it is compared: fields of the published format, read by nobody's rules.

use std::borrow::Cow;
use std::fmt::Write;

use serde::Deserialize;
use xxhash_rust::xxh64::xxh64;

use crate::time::Timestamp;
use crate::wallet::Level;

/// Of a record of the ledger, what is compared.
#[derive(Deserialize)]
pub struct LedgerRecordView<'a> {
    /// Wallet.
    #[serde(borrow)]
    pub wallet_id: Cow<'a, str>,
    /// The entries of one event or of one due posting.
    #[serde(borrow)]
    pub entries: Vec<EntryView<'a>>,
}

/// Of an entry, what is compared.
#[derive(Deserialize)]
pub struct EntryView<'a> {
    /// Number within the wallet.
    pub seq: u64,
    /// What the posting did.
    #[serde(borrow)]
    pub entry_type: Cow<'a, str>,
    /// Signed effect on the balance.
    #[serde(default)]
    pub credits: i64,
    /// Signed effect on what is held.
    #[serde(default)]
    pub held_credits: i64,
    /// Size where both effects are 0.
    #[serde(default)]
    pub amount: i64,
    /// When the ledger wrote it.
    pub posted_at: Timestamp,
    event_time: Timestamp,
    /// Type of the event; empty: it was due by itself.
    #[serde(borrow, default)]
    pub event_type: Cow<'a, str>,
    #[serde(borrow, default)]
    event_id: Cow<'a, str>,
    /// Job.
    #[serde(borrow, default)]
    pub job_id: Cow<'a, str>,
    /// Why.
    #[serde(borrow, default)]
    pub reason: Cow<'a, str>,
    /// Level of the wallet after it.
    #[serde(default)]
    pub level: Level,
    /// Balance after it.
    #[serde(default)]
    pub balance_after: i64,
    /// Held after it.
    #[serde(default)]
    pub held_after: i64,
    /// Overdraft after it.
    #[serde(default)]
    pub overdraft_after: i64,
    /// Topic of the event; empty: it was due by itself.
    #[serde(borrow, default)]
    pub origin_topic: Cow<'a, str>,
    /// Its partition.
    #[serde(default)]
    pub origin_partition: i32,
    /// Its offset.
    #[serde(default)]
    pub origin_offset: i64,
}

/// The same text of an entry, made by ClickHouse from its columns. Its xxHash64 is [`EntryView::hash`].
pub const HASH_SQL: &str = "xxHash64(concat(wallet_id, '\\t', toString(seq), '\\t', entry_type, '\\t', toString(credits), '\\t', \
    toString(held_credits), '\\t', toString(amount), '\\t', toString(toUnixTimestamp64Milli(posted_at)), '\\t', \
    toString(toUnixTimestamp64Milli(event_time)), '\\t', event_id, '\\t', job_id, '\\t', toString(balance_after), '\\t', \
    toString(held_after), '\\t', toString(overdraft_after), '\\t', origin_topic, '\\t', toString(origin_partition), '\\t', \
    toString(origin_offset), '\\t', toString(ledger_offset)))";

impl EntryView<'_> {
    /// Hash of what is compared with ClickHouse, the place in the ledger included.
    pub fn hash(&self, wallet_id: &str, ledger_offset: i64, text: &mut String) -> u64 {
        text.clear();
        // Writing into a String cannot fail.
        let _ = write!(
            text,
            "{wallet_id}\t{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}\t{ledger_offset}",
            self.seq,
            self.entry_type,
            self.credits,
            self.held_credits,
            self.amount,
            self.posted_at.millis(),
            self.event_time.millis(),
            self.event_id,
            self.job_id,
            self.balance_after,
            self.held_after,
            self.overdraft_after,
            self.origin_topic,
            self.origin_partition,
            self.origin_offset,
        );
        xxh64(text.as_bytes(), 0)
    }
}

/// Shows each entry of a ledger record that can be read: the wallet, and the entry.
pub fn each_entry(value: &[u8], mut each: impl FnMut(&str, &EntryView<'_>)) {
    if let Ok(record) = serde_json::from_slice::<LedgerRecordView<'_>>(value) {
        record.entries.iter().for_each(|entry| each(&record.wallet_id, entry));
    }
}
