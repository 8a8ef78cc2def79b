//! The wire form of what is written for every event: ledger records and wallet snapshots.
//!
//! It says the same as the serde attributes of [`super::entry`] and [`super::snapshot`], field by field in the same
//! order; a test holds the two equal to the byte.

use super::entry::{BucketTotals, ContractTerms, Entry, GrantEffect, GrantTerms};
use super::{Contract, Grant, GrantKind, LedgerRecord, SNAPSHOT_FORMAT, Wallet};
use crate::json::{ObjectWriter, write_hex128};
use crate::time::ShardClock;

impl LedgerRecord<'_> {
    /// Appends its JSON.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut record = ObjectWriter::new(out);
        record.integer("v", self.v);
        record.text("wallet_id", &self.wallet_id);
        record.objects("entries", self.entries.iter(), entry);
        record.end();
    }
}

fn entry(json: &mut ObjectWriter<'_>, entry: &Entry<'_>) {
    json.integer("seq", entry.seq);
    json.word("entry_type", entry.entry_type.as_str());
    json.integer_if_any("credits", entry.credits);
    json.integer_if_any("held_credits", entry.held_credits);
    json.integer_if_any("amount", entry.amount);
    json.time("posted_at", entry.posted_at);
    json.time("event_time", entry.event_time);
    json.text_if_any("event_type", &entry.event_type);
    json.text_if_any("source", &entry.source);
    json.text_if_any("event_id", &entry.event_id);
    json.hex("fingerprint", entry.fingerprint.0);
    json.text_if_any("job_id", &entry.job_id);
    json.text_if_any("asset_id", &entry.asset_id);
    if let Some(asset_type) = entry.asset_type {
        json.word("asset_type", asset_type.as_str());
    }
    json.text_if_any("model", &entry.model);
    json.text_if_any("user_id", &entry.user_id);
    json.text_if_any("project_id", &entry.project_id);
    json.integer_if_any("images", i64::from(entry.images));
    if entry.video_seconds.0 > 0 {
        json.decimal("video_seconds", entry.video_seconds.0, 3, &entry.video_seconds);
    }
    json.text_if_any("rate_card", &entry.rate_card);
    if let Some(rate) = entry.rate {
        json.decimal("rate", rate.0, 6, &rate);
    }
    if !entry.grant_effects.is_empty() {
        json.objects("grant_effects", entry.grant_effects.iter(), grant_effect);
    }
    json.integer_if_any("balance_after", entry.balance_after);
    json.integer_if_any("held_after", entry.held_after);
    json.integer_if_any("overdraft_after", entry.overdraft_after);
    json.word("level", entry.level.as_str());
    json.text_if_any("plan", &entry.plan);
    json.text_if_any("contract_id", &entry.contract_id);
    if let Some(period_start) = entry.period_start {
        json.date("period_start", period_start);
    }
    if entry.amount_usd.0 != 0 {
        json.shown("amount_usd", &entry.amount_usd);
    }
    json.text_if_any("reason", &entry.reason);
    json.text_if_any("actor", &entry.actor);
    json.text_if_any("reference", &entry.reference);
    json.text_if_any("origin_topic", &entry.origin_topic);
    json.integer("origin_partition", entry.origin_partition);
    json.integer("origin_offset", entry.origin_offset);
    json.text_if_any("business_id", &entry.business_id);
    if let Some(terms) = &entry.grant {
        json.object("grant", |json| grant_terms(json, terms));
    }
    if let Some(terms) = &entry.contract {
        json.object("contract", |json| contract_terms(json, terms));
    }
    if let Some(totals) = &entry.bucket {
        json.object("bucket", |json| bucket(json, totals));
    }
}

fn grant_effect(json: &mut ObjectWriter<'_>, effect: &GrantEffect<'_>) {
    json.text("grant_id", &effect.grant_id);
    json.word("kind", effect.kind.as_str());
    json.integer("credits", effect.credits);
    json.integer_if_any("remaining_after", effect.remaining_after);
    json.time_if_any("expires_at", effect.expires_at);
}

fn grant_terms(json: &mut ObjectWriter<'_>, terms: &GrantTerms<'_>) {
    json.integer("priority", terms.priority);
    json.time("granted_at", terms.granted_at);
    json.text_if_any("contract_id", &terms.contract_id);
    if let Some(month) = terms.month {
        json.integer("month", month);
    }
}

fn contract_terms(json: &mut ObjectWriter<'_>, terms: &ContractTerms<'_>) {
    json.text("contract_id", &terms.contract_id);
    json.text("plan", &terms.plan);
    json.time("starts_at", terms.starts_at);
    json.time("ends_at", terms.ends_at);
    json.integer("term_months", terms.term_months);
    json.integer("allocation", terms.allocation);
}

fn bucket(json: &mut ObjectWriter<'_>, totals: &BucketTotals) {
    json.time("hour", totals.hour);
    json.integer("part", totals.part);
    json.integer("jobs", totals.jobs);
    if totals.images > 0 {
        json.integer("images", totals.images);
    }
    if totals.video_seconds.0 > 0 {
        json.decimal("video_seconds", totals.video_seconds.0, 3, &totals.video_seconds);
    }
    json.integer_if_any("credits_charged", totals.credits_charged);
    json.integer_if_any("credits_reversed", totals.credits_reversed);
    json.integer_if_any("credits_refused", totals.credits_refused);
}

/// Appends the JSON of [`super::WalletSnapshot::of`] without making it first.
pub fn encode_snapshot(wallet_id: &str, wallet: &Wallet, clock: ShardClock, out: &mut Vec<u8>) {
    let contract = wallet.contract_at(clock.0);
    let mut json = ObjectWriter::new(out);
    json.integer("v", SNAPSHOT_FORMAT);
    json.text("wallet_id", wallet_id);
    json.integer("seq", wallet.seq);
    json.text("plan", contract.map_or("", |contract| &contract.plan));
    json.text("contract_id", contract.map_or("", |contract| &contract.contract_id));
    json.integer("balance", wallet.balance());
    json.integer("held", wallet.held);
    json.integer("available", wallet.available());
    json.integer("overdraft", wallet.overdraft);
    json.integer("plan_credits", wallet.credits_of(GrantKind::Plan));
    json.integer("topup_credits", wallet.credits_of(GrantKind::Topup));
    json.integer("adjustment_credits", wallet.credits_of(GrantKind::Adjustment));
    json.integer("allocation", contract.map_or(0, |contract| contract.allocation));
    json.word("level", wallet.level.as_str());
    json.time_if_any("next_allocation_at", wallet.next_allocation_at());
    json.time_if_any("term_started_at", contract.map(|contract| contract.starts_at));
    json.time_if_any("term_ends_at", contract.map(|contract| contract.ends_at));
    json.time("first_seen_at", wallet.first_seen_at);
    json.time("updated_at", wallet.updated_at);
    json.integer("last_topup", wallet.last_topup);
    if !wallet.contracts.is_empty() {
        json.objects("contracts", wallet.contracts.iter(), contract_state);
    }
    if !wallet.grants.is_empty() {
        json.objects("grants", wallet.grants.iter(), grant_state);
    }
    if !wallet.business_ids.is_empty() {
        json.list("business_ids", wallet.business_ids.iter(), |out, id| write_hex128(out, id.0));
    }
    json.end();
}

fn contract_state(json: &mut ObjectWriter<'_>, contract: &Contract) {
    json.text("contract_id", &contract.contract_id);
    json.text("plan", &contract.plan);
    json.time("starts_at", contract.starts_at);
    json.time("ends_at", contract.ends_at);
    json.integer("term_months", contract.term_months);
    json.integer("allocation", contract.allocation);
    json.integer("months_granted", contract.months_granted);
}

fn grant_state(json: &mut ObjectWriter<'_>, grant: &Grant) {
    json.text("grant_id", &grant.grant_id);
    json.word("kind", grant.kind.as_str());
    json.integer("credits_granted", grant.granted);
    json.integer("credits_remaining", grant.remaining);
    json.integer_if_any("credits_repaid", grant.repaid);
    json.integer("priority", grant.priority);
    json.time("granted_at", grant.granted_at);
    json.time_if_any("expires_at", grant.expires_at);
    json.text_if_any("contract_id", &grant.contract_id);
    if grant.amount_usd.0 != 0 {
        json.shown("amount_usd", &grant.amount_usd);
    }
    json.integer("seq", grant.seq);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::time::Timestamp;
    use crate::wallet::{EntryType, WalletSnapshot};

    const RECORD: &str = r#"{"v":1,"wallet_id":"ws\"1","entries":[
        {"seq":1,"entry_type":"contract_started","posted_at":"2026-11-03T10:15:30.123Z","event_time":"2026-11-03T10:15:30.000Z",
         "event_type":"contract.started","source":"/a","event_id":"e1","fingerprint":"00000000000000ff","level":"ok","plan":"lite",
         "contract_id":"c1","period_start":"2026-11-03","reference":"x\\y","origin_topic":"t","origin_partition":3,"origin_offset":9,
         "business_id":"contract:c1","contract":{"contract_id":"c1","plan":"lite","starts_at":"2026-11-03T00:00:00Z",
         "ends_at":"2027-11-03T00:00:00Z","term_months":12,"allocation":200}},
        {"seq":2,"entry_type":"granted","credits":200,"posted_at":"2026-11-03T10:15:30.123Z","event_time":"2026-11-03T10:15:30.000Z",
         "fingerprint":"00000000000000ff","grant_effects":[{"grant_id":"plan:c1:0","kind":"plan","credits":200,"remaining_after":200,
         "expires_at":"2027-11-03T00:00:00Z"}],"balance_after":200,"level":"ok","amount_usd":"12.5","reason":"r","actor":"é",
         "origin_partition":3,"origin_offset":9,"grant":{"priority":10,"granted_at":"2026-11-03T00:00:00Z","contract_id":"c1","month":0}},
        {"seq":3,"entry_type":"charged","credits":-24,"held_credits":1,"amount":2,"posted_at":"2026-11-03T10:15:30.123Z",
         "event_time":"2026-11-03T10:15:30.000Z","fingerprint":"00000000000000ff","job_id":"j","asset_id":"a","asset_type":"video",
         "model":"m","user_id":"u","project_id":"p","images":4,"video_seconds":"7.25","rate_card":"k","rate":"3.5",
         "grant_effects":[{"grant_id":"plan:c1:0","kind":"plan","credits":-24}],"balance_after":176,"held_after":1,
         "overdraft_after":5,"level":"overdrawn","origin_partition":3,"origin_offset":9,
         "bucket":{"hour":"2026-11-03T10:00:00Z","part":3,"jobs":1,"images":4,"video_seconds":"7.25","credits_charged":24,
         "credits_reversed":1,"credits_refused":2}}]}"#;

    #[test]
    fn records_are_encoded_as_serde_would() {
        let record: LedgerRecord<'_> = serde_json::from_str(RECORD).unwrap();
        assert_eq!(
            record.entries.iter().map(|entry| entry.entry_type).max_by_key(|kind| *kind as u8),
            Some(EntryType::Charged)
        );
        let mut encoded = Vec::new();
        record.encode(&mut encoded);
        assert_eq!(String::from_utf8(encoded).unwrap(), serde_json::to_string(&record).unwrap());
    }

    #[test]
    fn snapshots_are_encoded_as_serde_would() {
        let record: LedgerRecord<'_> = serde_json::from_str(RECORD).unwrap();
        let mut wallet = Wallet { last_topup: 7, ..Wallet::default() };
        for clock in [Timestamp::from_millis(0), Timestamp::parse("2026-11-04T00:00:00Z").unwrap()] {
            let mut encoded = Vec::new();
            encode_snapshot("ws\"1", &wallet, ShardClock(clock), &mut encoded);
            let expected =
                serde_json::to_string(&WalletSnapshot::of("ws\"1", &wallet, ShardClock(clock))).unwrap();
            assert_eq!(String::from_utf8(encoded).unwrap(), expected);
            for entry in record.entries.iter().take(2) {
                let _ = wallet.fold(entry);
            }
        }
        assert!(wallet.seq > 0, "the second look was at a wallet with a contract and a grant");
    }
}
