//! The wire form of what is written for every event: ledger records and wallet snapshots.
//!
//! It says the same as the serde attributes of [`super::entry`] and [`super::snapshot`], field by field in the same
//! order; a test holds the two equal to the byte.

use super::entry::{
    BucketTotals, ContractTerms, Entry, GrantEffect, GrantTerms, LedgerRecord, PlanTerms, WalletLimits,
};
use super::snapshot::{ContractState, GrantState, WalletSnapshot};
use super::warning::{ExpiryWarning, Overdrawn, Pace};
use crate::json::{ObjectWriter, member, write_hex128};

impl LedgerRecord<'_> {
    /// Appends its JSON.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut record = ObjectWriter::new(out);
        record.integer(member!("v"), self.v);
        record.text(member!("wallet_id"), &self.wallet_id);
        if let Some(day) = self.clock_day {
            record.date(member!("clock_day"), day);
        }
        record.objects(member!("entries"), self.entries.iter(), entry);
        record.end();
    }
}

fn entry(json: &mut ObjectWriter<'_>, entry: &Entry<'_>) {
    json.integer(member!("seq"), entry.seq);
    json.word(member!("entry_type"), entry.entry_type.as_str());
    json.integer_if_any(member!("credits"), entry.credits);
    json.integer_if_any(member!("held_credits"), entry.held_credits);
    json.integer_if_any(member!("amount"), entry.amount);
    json.time(member!("posted_at"), entry.posted_at);
    json.time(member!("event_time"), entry.event_time);
    json.text_if_any(member!("event_type"), &entry.event_type);
    json.text_if_any(member!("source"), &entry.source);
    json.text_if_any(member!("event_id"), &entry.event_id);
    json.hex(member!("fingerprint"), entry.fingerprint.0);
    json.text_if_any(member!("job_id"), &entry.job_id);
    json.text_if_any(member!("asset_id"), &entry.asset_id);
    if let Some(asset_type) = entry.asset_type {
        json.word(member!("asset_type"), asset_type.as_str());
    }
    json.text_if_any(member!("model"), &entry.model);
    json.text_if_any(member!("user_id"), &entry.user_id);
    json.text_if_any(member!("project_id"), &entry.project_id);
    json.integer_if_any(member!("images"), i64::from(entry.images));
    if entry.video_seconds.0 > 0 {
        json.decimal(member!("video_seconds"), entry.video_seconds.0, 3, &entry.video_seconds);
    }
    json.text_if_any(member!("rate_card"), &entry.rate_card);
    if let Some(rate) = entry.rate {
        json.decimal(member!("rate"), rate.0, 6, &rate);
    }
    if !entry.grant_effects.is_empty() {
        json.objects(member!("grant_effects"), entry.grant_effects.iter(), grant_effect);
    }
    json.integer_if_any(member!("balance_after"), entry.balance_after);
    json.integer_if_any(member!("held_after"), entry.held_after);
    json.integer_if_any(member!("overdraft_after"), entry.overdraft_after);
    json.word(member!("level"), entry.level.as_str());
    json.text_if_any(member!("plan"), &entry.plan);
    json.text_if_any(member!("contract_id"), &entry.contract_id);
    if let Some(period_start) = entry.period_start {
        json.date(member!("period_start"), period_start);
    }
    if entry.amount_usd.0 != 0 {
        json.shown(member!("amount_usd"), &entry.amount_usd);
    }
    json.text_if_any(member!("reason"), &entry.reason);
    json.text_if_any(member!("actor"), &entry.actor);
    json.text_if_any(member!("reference"), &entry.reference);
    json.text_if_any(member!("origin_topic"), &entry.origin_topic);
    json.integer(member!("origin_partition"), entry.origin_partition);
    json.integer(member!("origin_offset"), entry.origin_offset);
    json.text_if_any(member!("business_id"), &entry.business_id);
    if let Some(terms) = &entry.grant {
        json.object(member!("grant"), |json| grant_terms(json, terms));
    }
    if let Some(terms) = &entry.contract {
        json.object(member!("contract"), |json| contract_terms(json, terms));
    }
    json.time_if_any(member!("hold_until"), entry.hold_until);
    if let Some(credits) = entry.overdraft_limit {
        json.integer(member!("overdraft_limit"), credits);
    }
    json.flag_if_set(member!("whole_job"), entry.whole_job);
    if let Some(limits) = &entry.limits {
        json.object(member!("limits"), |json| wallet_limits(json, limits));
    }
    if let Some(totals) = &entry.bucket {
        json.object(member!("bucket"), |json| bucket(json, totals));
    }
    if let Some(warning) = &entry.warning {
        json.object(member!("warning"), |json| expiry_warning(json, warning));
    }
}

fn expiry_warning(json: &mut ObjectWriter<'_>, warning: &ExpiryWarning) {
    json.integer(member!("days"), warning.days);
    json.time(member!("expires_at"), warning.expires_at);
}

fn grant_effect(json: &mut ObjectWriter<'_>, effect: &GrantEffect) {
    json.text(member!("grant_id"), &effect.grant_id);
    json.word(member!("kind"), effect.kind.as_str());
    json.integer(member!("credits"), effect.credits);
    json.integer_if_any(member!("remaining_after"), effect.remaining_after);
    json.integer_if_any(member!("repaid_after"), effect.repaid_after);
    json.time_if_any(member!("expires_at"), effect.expires_at);
}

fn grant_terms(json: &mut ObjectWriter<'_>, terms: &GrantTerms<'_>) {
    json.integer(member!("priority"), terms.priority);
    json.time(member!("granted_at"), terms.granted_at);
    json.text_if_any(member!("contract_id"), &terms.contract_id);
    if let Some(month) = terms.month {
        json.integer(member!("month"), month);
    }
    json.flag_if_set(member!("is_difference"), terms.is_difference);
}

fn contract_terms(json: &mut ObjectWriter<'_>, terms: &ContractTerms<'_>) {
    json.text(member!("contract_id"), &terms.contract_id);
    json.text(member!("plan"), &terms.plan);
    json.time(member!("starts_at"), terms.starts_at);
    json.time(member!("ends_at"), terms.ends_at);
    json.integers(member!("terms"), &terms.terms);
    json.objects(member!("plans"), terms.plans.iter(), plan_terms);
    if let Some(asked) = &terms.asked_plan {
        json.object(member!("asked_plan"), |json| plan_terms(json, asked));
    }
    json.flag_if_set(member!("is_cancelled"), terms.is_cancelled);
}

fn wallet_limits(json: &mut ObjectWriter<'_>, limits: &WalletLimits) {
    if let Some(credits) = limits.overdraft_limit {
        json.integer(member!("overdraft_limit"), credits);
    }
    json.flag_if_set(member!("is_unlimited"), limits.is_unlimited);
    if let Some(percent) = limits.low_percent {
        json.integer(member!("low_percent"), percent);
    }
    if let Some(percent) = limits.critical_percent {
        json.integer(member!("critical_percent"), percent);
    }
}

fn bucket(json: &mut ObjectWriter<'_>, totals: &BucketTotals) {
    json.time(member!("hour"), totals.hour);
    json.integer(member!("part"), totals.part);
    json.integer(member!("jobs"), totals.jobs);
    if totals.images > 0 {
        json.integer(member!("images"), totals.images);
    }
    if totals.video_seconds.0 > 0 {
        json.decimal(member!("video_seconds"), totals.video_seconds.0, 3, &totals.video_seconds);
    }
    json.integer_if_any(member!("credits_charged"), totals.credits_charged);
    json.integer_if_any(member!("credits_reversed"), totals.credits_reversed);
    json.integer_if_any(member!("credits_refused"), totals.credits_refused);
}

impl WalletSnapshot<'_> {
    /// Appends its JSON.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut json = ObjectWriter::new(out);
        json.integer(member!("v"), self.v);
        json.text(member!("wallet_id"), &self.wallet_id);
        json.integer(member!("seq"), self.seq);
        json.text(member!("plan"), &self.plan);
        json.text(member!("contract_id"), &self.contract_id);
        json.integer(member!("balance"), self.balance);
        json.integer(member!("held"), self.held);
        json.integer(member!("available"), self.available);
        json.integer(member!("overdraft"), self.overdraft);
        json.integer(member!("plan_credits"), self.plan_credits);
        json.integer(member!("topup_credits"), self.topup_credits);
        json.integer(member!("adjustment_credits"), self.adjustment_credits);
        json.integer(member!("allocation"), self.allocation);
        json.word(member!("level"), self.level.as_str());
        json.time_if_any(member!("next_allocation_at"), self.next_allocation_at);
        json.time_if_any(member!("term_started_at"), self.term_started_at);
        json.time_if_any(member!("term_ends_at"), self.term_ends_at);
        json.time(member!("first_seen_at"), self.first_seen_at);
        json.time(member!("updated_at"), self.updated_at);
        json.integer(member!("overdrawn_day"), self.overdrawn_day);
        json.time(member!("latest_at"), self.latest_at);
        if let Some(open) = &self.overdrawn {
            json.object(member!("overdrawn"), |json| overdrawn(json, open));
        }
        if let Some(known) = &self.pace {
            json.object(member!("pace"), |json| pace(json, known));
        }
        json.integer(member!("last_topup"), self.last_topup);
        if let Some(limits) = &self.limits {
            json.object(member!("limits"), |json| wallet_limits(json, limits));
        }
        if !self.contracts.is_empty() {
            json.objects(member!("contracts"), self.contracts.iter(), contract_state);
        }
        if !self.grants.is_empty() {
            json.objects(member!("grants"), self.grants.iter(), grant_state);
        }
        if !self.business_ids.is_empty() {
            json.list(member!("business_ids"), self.business_ids.iter(), |out, id| write_hex128(out, id.0));
        }
        json.end();
    }
}

fn contract_state(json: &mut ObjectWriter<'_>, contract: &ContractState<'_>) {
    json.text(member!("contract_id"), &contract.contract_id);
    json.time(member!("starts_at"), contract.starts_at);
    json.time(member!("ends_at"), contract.ends_at);
    json.integers(member!("terms"), &contract.terms);
    json.objects(member!("plans"), contract.plans.iter(), plan_terms);
    json.integers(member!("granted"), &contract.granted);
    json.flag_if_set(member!("is_changed"), contract.is_changed);
    json.flag_if_set(member!("is_cancelled"), contract.is_cancelled);
    json.flag_if_set(member!("is_ended"), contract.is_ended);
    if let Some(warned) = &contract.expiry_warned {
        json.object(member!("expiry_warned"), |json| expiry_warning(json, warned));
    }
}

fn overdrawn(json: &mut ObjectWriter<'_>, open: &Overdrawn) {
    json.time(member!("since"), open.since);
    json.flag(member!("is_warned"), open.is_warned);
}

fn pace(json: &mut ObjectWriter<'_>, pace: &Pace) {
    json.integer(member!("first_day"), pace.first_day);
    json.integers(member!("charged"), &pace.charged);
    json.flag(member!("is_warned"), pace.is_warned);
}

fn plan_terms(json: &mut ObjectWriter<'_>, span: &PlanTerms<'_>) {
    json.time(member!("from"), span.from);
    json.text(member!("plan"), &span.plan);
}

fn grant_state(json: &mut ObjectWriter<'_>, grant: &GrantState<'_>) {
    json.text(member!("grant_id"), &grant.grant_id);
    json.word(member!("kind"), grant.kind.as_str());
    json.integer(member!("credits_granted"), grant.credits_granted);
    json.integer(member!("credits_remaining"), grant.credits_remaining);
    json.integer_if_any(member!("credits_repaid"), grant.credits_repaid);
    json.integer(member!("priority"), grant.priority);
    json.time(member!("granted_at"), grant.granted_at);
    json.time_if_any(member!("expires_at"), grant.expires_at);
    json.text_if_any(member!("contract_id"), &grant.contract_id);
    if grant.amount_usd.0 != 0 {
        json.shown(member!("amount_usd"), &grant.amount_usd);
    }
    if let Some(month) = grant.month {
        json.integer(member!("month"), month);
    }
    json.flag_if_set(member!("is_difference"), grant.is_difference);
    json.integer(member!("made_seq"), grant.made_seq);
    if grant.repaid_seq != 0 {
        json.integer(member!("repaid_seq"), grant.repaid_seq);
    }
    json.integer(member!("seq"), grant.seq);
    json.integer(member!("touched_day"), grant.touched_day);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const RECORD: &str = r#"{"v":1,"wallet_id":"ws\"1","clock_day":"2026-11-04","entries":[
        {"seq":1,"entry_type":"contract_started","posted_at":"2026-11-03T10:15:30.123Z","event_time":"2026-11-03T10:15:30.000Z",
         "event_type":"contract.started","source":"/a","event_id":"e1","fingerprint":"00000000000000ff","level":"ok","plan":"lite",
         "contract_id":"c1","period_start":"2026-11-03","reference":"x\\y","origin_topic":"t","origin_partition":3,"origin_offset":9,
         "business_id":"contract:c1","contract":{"contract_id":"c1","plan":"lite","starts_at":"2026-11-03T00:00:00Z",
         "ends_at":"2027-11-03T00:00:00Z","terms":[12,3],"plans":[{"from":"2026-11-03T00:00:00Z","plan":"li\"te"}],
         "asked_plan":{"from":"2026-12-03T00:00:00Z","plan":"scale"},"is_cancelled":true},
         "limits":{"overdraft_limit":0,"is_unlimited":true,"low_percent":0,"critical_percent":1}},
        {"seq":2,"entry_type":"granted","credits":200,"posted_at":"2026-11-03T10:15:30.123Z","event_time":"2026-11-03T10:15:30.000Z",
         "fingerprint":"00000000000000ff","grant_effects":[{"grant_id":"plan:c1:0","kind":"plan","credits":200,"remaining_after":200,
         "expires_at":"2027-11-03T00:00:00Z"}],"balance_after":200,"level":"ok","amount_usd":"12.5","reason":"r","actor":"é",
         "origin_partition":3,"origin_offset":9,"grant":{"priority":10,"granted_at":"2026-11-03T00:00:00Z","contract_id":"c1","month":0,"is_difference":true}},
        {"seq":3,"entry_type":"charged","credits":-24,"held_credits":1,"amount":2,"posted_at":"2026-11-03T10:15:30.123Z",
         "event_time":"2026-11-03T10:15:30.000Z","fingerprint":"00000000000000ff","job_id":"j","asset_id":"a","asset_type":"video",
         "model":"m","user_id":"u","project_id":"p","images":4,"video_seconds":"7.25","rate_card":"k","rate":"3.5",
         "grant_effects":[{"grant_id":"plan:c1:0","kind":"plan","credits":-24,"repaid_after":3}],"balance_after":176,"held_after":1,
         "overdraft_after":5,"level":"overdrawn","origin_partition":3,"origin_offset":9,"hold_until":"2026-11-04T00:00:00Z",
         "overdraft_limit":0,"whole_job":true,"bucket":{"hour":"2026-11-03T10:00:00Z","part":3,"jobs":1,"images":4,"video_seconds":"7.25","credits_charged":24,
         "credits_reversed":1,"credits_refused":2},"warning":{"days":30,"expires_at":"2026-12-03T00:00:00Z"}}]}"#;

    #[test]
    fn records_are_encoded_as_serde_would() {
        let record: LedgerRecord<'_> = serde_json::from_str(RECORD).unwrap();
        let mut encoded = Vec::new();
        record.encode(&mut encoded);
        assert_eq!(String::from_utf8(encoded).unwrap(), serde_json::to_string(&record).unwrap());
    }

    const SNAPSHOT: &str = r#"{"v":1,"wallet_id":"ws\"1","seq":9,"plan":"lite","contract_id":"c1","balance":-3,"held":2,
        "available":-5,"overdraft":4,"plan_credits":1,"topup_credits":2,"adjustment_credits":3,"allocation":200,"level":"low",
        "next_allocation_at":"2026-11-03T10:15:30.123Z","term_started_at":"2026-11-03T10:15:30.123Z",
        "term_ends_at":"2026-11-03T10:15:30.123Z","first_seen_at":"2026-11-03T10:15:30.123Z",
        "updated_at":"2026-11-03T10:15:30.123Z","overdrawn_day":3,"latest_at":"2026-11-03T10:15:30.123Z",
        "overdrawn":{"since":"2026-11-03T10:15:30.123Z","is_warned":true},
        "pace":{"first_day":20760,"charged":[3,0,7],"is_warned":false},"last_topup":7,
        "limits":{"overdraft_limit":5,"low_percent":3},
        "contracts":[{"contract_id":"c1","starts_at":"2026-11-03T10:15:30.123Z","ends_at":"2026-11-03T10:15:30.123Z",
          "terms":[12],"plans":[{"from":"2026-11-03T10:15:30.123Z","plan":"lite"}],"granted":[200,-1],"is_changed":true,"is_cancelled":true,
          "is_ended":true,"expiry_warned":{"days":7,"expires_at":"2026-11-03T10:15:30.123Z"}}],
        "grants":[{"grant_id":"plan:c1:0+4","kind":"plan","credits_granted":5,"credits_remaining":4,"credits_repaid":3,
          "priority":10,"granted_at":"2026-11-03T10:15:30.123Z","expires_at":"2026-11-03T10:15:30.123Z","contract_id":"c1",
          "amount_usd":"12.5","month":0,"is_difference":true,"made_seq":4,"repaid_seq":6,"seq":7,"touched_day":-1}],
        "business_ids":["0000000000000000000000000000000a","ffffffffffffffffffffffffffffffff"]}"#;

    #[test]
    fn snapshots_are_encoded_as_serde_would() {
        let whole: WalletSnapshot<'_> = serde_json::from_str(SNAPSHOT).unwrap();
        let empty = WalletSnapshot {
            limits: None,
            overdrawn: None,
            pace: None,
            contracts: Vec::new(),
            grants: Vec::new(),
            business_ids: Vec::new(),
            next_allocation_at: None,
            term_started_at: None,
            term_ends_at: None,
            ..whole.clone()
        };
        for snapshot in [whole, empty] {
            let mut encoded = Vec::new();
            snapshot.encode(&mut encoded);
            assert_eq!(String::from_utf8(encoded).unwrap(), serde_json::to_string(&snapshot).unwrap());
        }
    }
}
