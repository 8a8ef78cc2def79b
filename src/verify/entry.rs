//! A record of the ledger, as far as it is compared: fields of the published format, read by nobody's rules.

use std::borrow::Cow;

use serde::Deserialize;
use xxhash_rust::xxh64::xxh64;

use crate::json::{ObjectReader, member};
use crate::time::Timestamp;
use crate::wallet::Level;

/// Of a record of the ledger, what is compared.
#[derive(Debug, PartialEq, Deserialize)]
pub struct LedgerRecordView<'a> {
    /// Wallet.
    #[serde(borrow)]
    pub wallet_id: Cow<'a, str>,
    /// The entries of one event or of one due posting.
    #[serde(borrow)]
    pub entries: Vec<EntryView<'a>>,
}

/// Of an entry, what is compared.
#[derive(Debug, PartialEq, Deserialize)]
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

impl LedgerRecordView<'_> {
    /// Reads a record: member by member where it is written as nearly all are, else by serde, which says the same.
    ///
    /// # Errors
    /// It is no JSON, or no record of the ledger.
    pub fn decode(value: &[u8]) -> serde_json::Result<LedgerRecordView<'_>> {
        match std::str::from_utf8(value).ok().and_then(usual) {
            Some(record) => Ok(record),
            None => serde_json::from_slice(value),
        }
    }
}

fn usual(text: &str) -> Option<LedgerRecordView<'_>> {
    ObjectReader::read(text, |json| {
        json.natural::<u64>(member!("v"))?;
        let wallet_id = json.text(member!("wallet_id"))?.into();
        json.text_if_any(member!("clock_day"))?;
        Some(LedgerRecordView { wallet_id, entries: json.objects_if_any(member!("entries"), entry)? })
            .filter(|record| !record.entries.is_empty())
    })
}

/// Members in the order in which they are written; those that are not compared are passed.
fn entry<'t>(json: &mut ObjectReader<'t>) -> Option<EntryView<'t>> {
    let seq = json.natural(member!("seq"))?;
    let entry_type = json.text(member!("entry_type"))?.into();
    let credits = json.integer_if_any(member!("credits"))?;
    let held_credits = json.integer_if_any(member!("held_credits"))?;
    let amount = json.integer_if_any(member!("amount"))?;
    let posted_at = json.time(member!("posted_at"))?;
    let event_time = json.time(member!("event_time"))?;
    let event_type = json.text_if_any(member!("event_type"))?;
    json.text_if_any(member!("source"))?;
    let event_id = json.text_if_any(member!("event_id"))?;
    json.text_if_any(member!("fingerprint"))?;
    let job_id = json.text_if_any(member!("job_id"))?;
    for other in [
        member!("asset_id"),
        member!("asset_type"),
        member!("model"),
        member!("user_id"),
        member!("project_id"),
    ] {
        json.text_if_any(other)?;
    }
    json.natural_if_any::<u64>(member!("images"))?;
    for other in [member!("video_seconds"), member!("rate_card"), member!("rate")] {
        json.text_if_any(other)?;
    }
    json.objects_if_any(member!("grant_effects"), grant_effect)?;
    let balance_after = json.integer_if_any(member!("balance_after"))?;
    let held_after = json.integer_if_any(member!("held_after"))?;
    let overdraft_after = json.integer_if_any(member!("overdraft_after"))?;
    let level = json.spelt(member!("level"), level)??;
    for other in [member!("plan"), member!("contract_id"), member!("period_start")] {
        json.text_if_any(other)?;
    }
    let reason = json.text_if_any(member!("reason"))?;
    json.text_if_any(member!("actor"))?;
    json.text_if_any(member!("reference"))?;
    let origin_topic = json.text_if_any(member!("origin_topic"))?;
    let origin_partition = json.integer_if_any(member!("origin_partition"))?;
    let origin_offset = json.integer_if_any(member!("origin_offset"))?;
    json.text_if_any(member!("business_id"))?;
    json.text_if_any(member!("hold_until"))?;
    json.flag_if_set(member!("whole_job"))?;
    json.object_if_any(member!("bucket"), bucket)?;
    Some(EntryView {
        seq,
        entry_type,
        credits,
        held_credits,
        amount,
        posted_at,
        event_time,
        event_type,
        event_id,
        job_id,
        reason,
        level,
        balance_after,
        held_after,
        overdraft_after,
        origin_topic,
        origin_partition,
        origin_offset,
    })
}

fn grant_effect(json: &mut ObjectReader<'_>) -> Option<()> {
    json.text(member!("grant_id"))?;
    json.text(member!("kind"))?;
    json.integer(member!("credits"))?;
    json.integer_if_any::<i64>(member!("remaining_after"))?;
    json.integer_if_any::<i64>(member!("repaid_after"))?;
    json.text_if_any(member!("expires_at")).map(drop)
}

fn bucket(json: &mut ObjectReader<'_>) -> Option<()> {
    json.text(member!("hour"))?;
    json.natural::<u64>(member!("part"))?;
    json.natural::<u64>(member!("jobs"))?;
    json.natural_if_any::<u64>(member!("images"))?;
    json.text_if_any(member!("video_seconds"))?;
    for credits in [member!("credits_charged"), member!("credits_reversed"), member!("credits_refused")] {
        json.integer_if_any::<i64>(credits)?;
    }
    Some(())
}

fn level(text: &str) -> Option<Level> {
    Level::ALL.into_iter().find(|level| level.as_str() == text)
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
        let mut numbers = itoa::Buffer::new();
        let mut number = |text: &mut String, number: i64| {
            text.push('\t');
            text.push_str(numbers.format(number));
        };
        text.push_str(wallet_id);
        text.push('\t');
        text.push_str(itoa::Buffer::new().format(self.seq));
        text.push('\t');
        text.push_str(&self.entry_type);
        for effect in
            [self.credits, self.held_credits, self.amount, self.posted_at.millis(), self.event_time.millis()]
        {
            number(text, effect);
        }
        for id in [&self.event_id, &self.job_id] {
            text.push('\t');
            text.push_str(id);
        }
        for after in [self.balance_after, self.held_after, self.overdraft_after] {
            number(text, after);
        }
        text.push('\t');
        text.push_str(&self.origin_topic);
        for place in [self.origin_partition.into(), self.origin_offset, ledger_offset] {
            number(text, place);
        }
        xxh64(text.as_bytes(), 0)
    }
}

/// Shows each entry of a ledger record that can be read: the wallet, and the entry.
pub fn each_entry(value: &[u8], mut each: impl FnMut(&str, &EntryView<'_>)) {
    if let Ok(record) = LedgerRecordView::decode(value) {
        record.entries.iter().for_each(|entry| each(&record.wallet_id, entry));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use proptest::prelude::*;

    use super::*;

    /// As nearly all of a ledger's records are.
    const USUAL: [&str; 2] = [
        r#"{"v":1,"wallet_id":"ws_ä","clock_day":"2026-11-04","entries":[{"seq":7,"entry_type":"charged","credits":-24,"posted_at":"2026-11-03T10:15:30.123Z","event_time":"2026-11-03T10:15:30Z","event_type":"generation.completed","source":"/a","event_id":"e1","fingerprint":"00000000000000ff","job_id":"j","asset_id":"a","asset_type":"video","model":"m","user_id":"u","project_id":"p","images":2,"video_seconds":"7.25","rate_card":"k","rate":"3.5","grant_effects":[{"grant_id":"plan:c1:0","kind":"plan","credits":-20,"expires_at":"2027-11-03T00:00:00Z"},{"grant_id":"topup:t","kind":"topup","credits":-4,"remaining_after":176,"repaid_after":3}],"balance_after":-5,"held_after":1,"overdraft_after":5,"level":"overdrawn","plan":"lite","contract_id":"c1","period_start":"2026-11-03","reason":"r","actor":"x","reference":"y","origin_topic":"t","origin_partition":3,"origin_offset":9,"business_id":"b","hold_until":"2026-11-03T10:15:30Z","whole_job":true,"bucket":{"hour":"2026-11-03T10:00:00Z","part":3,"jobs":1,"images":2,"video_seconds":"7.25","credits_charged":24,"credits_reversed":1,"credits_refused":2}}]}"#,
        r#"{"v":1,"wallet_id":"w","entries":[{"seq":1,"entry_type":"released","held_credits":-4,"amount":4,"posted_at":"2026-11-03T10:15:30.123Z","event_time":"2026-11-03T10:15:30.123Z","level":"ok"},{"seq":2,"entry_type":"noted","posted_at":"2026-11-03T10:15:30.123Z","event_time":"2026-11-03T10:15:30.123Z","level":"low"}]}"#,
    ];

    fn says_what_serde_says(text: &str) {
        let decoded = LedgerRecordView::decode(text.as_bytes());
        let expected = serde_json::from_str::<LedgerRecordView<'_>>(text);
        assert_eq!(decoded.map_err(|error| error.to_string()), expected.map_err(|error| error.to_string()));
    }

    #[test]
    fn usual_records_are_read_without_serde() {
        for text in USUAL {
            assert_eq!(usual(text), Some(serde_json::from_str(text).unwrap()), "{text}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]

        /// A record with a piece of it cut out, doubled, or replaced by something that means something to JSON.
        #[test]
        fn whatever_a_record_is_serde_would_read_the_same(
            (record, from, length) in (0..USUAL.len(), 0.0..1.0, 0_usize..40),
            put in proptest::sample::select(vec![
                "", "0", "-", "9", ".5", "\"", "\\", "\\u0041", ",", ":", "{", "}", "[", "]", " ", "null", "true", "-0", "ä",
                "\"credits\":1,", ",\"level\":\"ok\"", ",\"new\":1", "2026-11-03", "99999999999999999999",
            ]),
            is_doubled in any::<bool>(),
        ) {
            let text = USUAL[record];
            let from = (from * text.len() as f64) as usize;
            let to = (from + length).min(text.len());
            prop_assume!(text.is_char_boundary(from) && text.is_char_boundary(to));
            let middle = if is_doubled { text[from..to].repeat(2) } else { put.to_owned() };
            says_what_serde_says(&format!("{}{middle}{}", &text[..from], &text[to..]));
        }
    }
}
