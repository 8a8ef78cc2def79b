//! Reads back the wire form of ledger records and wallet snapshots: the counterpart of [`super::encode`], member by member in
//! the same order.
//!
//! Restores, the sink and whatever else reads many of them go through here. It says the same as the serde attributes of
//! [`super::entry`] and [`super::snapshot`], which are asked where a record is not written as [`super::encode`] writes it, or has
//! one of the members that few records have; tests hold the two equal.

use super::Level;
use super::entry::{
    BucketTotals, ContractTerms, Entry, EntryType, GrantEffect, GrantKind, GrantTerms, LedgerRecord,
    PlanTerms,
};
use super::snapshot::{ContractState, GrantState, WalletSnapshot};
use super::warning::{Overdrawn, Pace};
use crate::event::{Fingerprint, IdentityKey};
use crate::json::{ObjectReader, member};
use crate::rate::{AssetType, Rate, UsdCents, VideoMillis, exact_scaled};

impl LedgerRecord<'_> {
    /// Reads its JSON.
    ///
    /// # Errors
    /// It is no JSON, or no ledger record.
    pub fn decode(value: &[u8]) -> serde_json::Result<LedgerRecord<'_>> {
        let text = std::str::from_utf8(value).ok();
        match text.and_then(usual) {
            Some(record) => Ok(record),
            None => serde_json::from_slice(value),
        }
    }
}

fn usual(text: &str) -> Option<LedgerRecord<'_>> {
    ObjectReader::read(text, |json| {
        Some(LedgerRecord {
            v: json.natural(member!("v"))?,
            wallet_id: json.text(member!("wallet_id"))?.into(),
            clock_day: json.date_if_any(member!("clock_day"))?,
            entries: json.objects_if_any(member!("entries"), entry).filter(|entries| !entries.is_empty())?,
        })
    })
}

impl WalletSnapshot<'_> {
    /// Reads its JSON.
    ///
    /// # Errors
    /// It is no JSON, or no wallet snapshot.
    pub fn decode(value: &[u8]) -> serde_json::Result<WalletSnapshot<'_>> {
        let text = std::str::from_utf8(value).ok();
        match text.and_then(usual_snapshot) {
            Some(snapshot) => Ok(snapshot),
            None => serde_json::from_slice(value),
        }
    }
}

fn usual_snapshot(text: &str) -> Option<WalletSnapshot<'_>> {
    ObjectReader::read(text, |json| {
        Some(WalletSnapshot {
            v: json.natural(member!("v"))?,
            wallet_id: json.text(member!("wallet_id"))?.into(),
            seq: json.natural(member!("seq"))?,
            plan: json.text(member!("plan"))?.into(),
            contract_id: json.text(member!("contract_id"))?.into(),
            balance: json.integer(member!("balance"))?,
            held: json.integer(member!("held"))?,
            available: json.integer(member!("available"))?,
            overdraft: json.integer(member!("overdraft"))?,
            plan_credits: json.integer(member!("plan_credits"))?,
            topup_credits: json.integer(member!("topup_credits"))?,
            adjustment_credits: json.integer(member!("adjustment_credits"))?,
            allocation: json.integer(member!("allocation"))?,
            level: json.spelt(member!("level"), level)??,
            next_allocation_at: json.time_if_any(member!("next_allocation_at"))?,
            term_started_at: json.time_if_any(member!("term_started_at"))?,
            term_ends_at: json.time_if_any(member!("term_ends_at"))?,
            first_seen_at: json.time(member!("first_seen_at"))?,
            updated_at: json.time(member!("updated_at"))?,
            overdrawn_day: json.integer_if_any(member!("overdrawn_day"))?,
            latest_at: json.time(member!("latest_at"))?,
            overdrawn: json.object_if_any(member!("overdrawn"), overdrawn)?,
            pace: json.object_if_any(member!("pace"), pace)?,
            last_topup: json.integer_if_any(member!("last_topup"))?,
            limits: None,
            contracts: json.objects_if_any(member!("contracts"), contract_state)?,
            grants: json.objects_if_any(member!("grants"), grant_state)?,
            business_ids: json.spelt_list_if_any(member!("business_ids"), identity_key)?,
        })
    })
}

fn contract_state<'t>(json: &mut ObjectReader<'t>) -> Option<ContractState<'t>> {
    Some(ContractState {
        contract_id: json.text(member!("contract_id"))?.into(),
        starts_at: json.time(member!("starts_at"))?,
        ends_at: json.time(member!("ends_at"))?,
        terms: json.naturals(member!("terms"))?,
        plans: json.objects_if_any(member!("plans"), plan_terms).filter(|plans| !plans.is_empty())?,
        granted: json.integers(member!("granted"))?,
        is_changed: json.flag_if_set(member!("is_changed"))?,
        is_cancelled: json.flag_if_set(member!("is_cancelled"))?,
        is_ended: json.flag_if_set(member!("is_ended"))?,
        expiry_warned: None,
    })
}

fn plan_terms<'t>(json: &mut ObjectReader<'t>) -> Option<PlanTerms<'t>> {
    Some(PlanTerms { from: json.time(member!("from"))?, plan: json.text(member!("plan"))?.into() })
}

fn grant_state<'t>(json: &mut ObjectReader<'t>) -> Option<GrantState<'t>> {
    Some(GrantState {
        grant_id: json.text(member!("grant_id"))?.into(),
        kind: json.spelt(member!("kind"), grant_kind)??,
        credits_granted: json.integer(member!("credits_granted"))?,
        credits_remaining: json.integer(member!("credits_remaining"))?,
        credits_repaid: json.integer_if_any(member!("credits_repaid"))?,
        priority: json.natural(member!("priority"))?,
        granted_at: json.time(member!("granted_at"))?,
        expires_at: json.time_if_any(member!("expires_at"))?,
        contract_id: json.text_if_any(member!("contract_id"))?,
        amount_usd: json.spelt(member!("amount_usd"), usd)?.unwrap_or_default(),
        month: json.natural_or_none(member!("month"))?,
        is_difference: json.flag_if_set(member!("is_difference"))?,
        made_seq: json.natural(member!("made_seq"))?,
        repaid_seq: json.natural_if_any(member!("repaid_seq"))?,
        seq: json.natural(member!("seq"))?,
        touched_day: i32::try_from(json.integer(member!("touched_day"))?).ok()?,
    })
}

fn overdrawn(json: &mut ObjectReader<'_>) -> Option<Overdrawn> {
    Some(Overdrawn { since: json.time(member!("since"))?, is_warned: json.flag(member!("is_warned"))? })
}

fn pace(json: &mut ObjectReader<'_>) -> Option<Pace> {
    Some(Pace {
        first_day: i32::try_from(json.integer(member!("first_day"))?).ok()?,
        charged: json.integers(member!("charged"))?,
        is_warned: json.flag(member!("is_warned"))?,
    })
}

fn identity_key(text: &str) -> Option<IdentityKey> {
    u128::from_str_radix(text, 16).ok().map(IdentityKey)
}

/// Members are read in the order in which they stand here.
fn entry<'t>(json: &mut ObjectReader<'t>) -> Option<Entry<'t>> {
    Some(Entry {
        seq: json.natural(member!("seq"))?,
        entry_type: json.spelt(member!("entry_type"), entry_type)??,
        credits: json.integer_if_any(member!("credits"))?,
        held_credits: json.integer_if_any(member!("held_credits"))?,
        amount: json.integer_if_any(member!("amount"))?,
        posted_at: json.time(member!("posted_at"))?,
        event_time: json.time(member!("event_time"))?,
        event_type: json.text_if_any(member!("event_type"))?,
        source: json.text_if_any(member!("source"))?,
        event_id: json.text_if_any(member!("event_id"))?,
        fingerprint: json.spelt(member!("fingerprint"), fingerprint)?.unwrap_or_default(),
        job_id: json.text_if_any(member!("job_id"))?,
        asset_id: json.text_if_any(member!("asset_id"))?,
        asset_type: json.spelt(member!("asset_type"), asset_type)?,
        model: json.text_if_any(member!("model"))?,
        user_id: json.text_if_any(member!("user_id"))?,
        project_id: json.text_if_any(member!("project_id"))?,
        images: json.natural_if_any(member!("images"))?,
        video_seconds: json.spelt(member!("video_seconds"), video)?.unwrap_or_default(),
        rate_card: json.text_if_any(member!("rate_card"))?,
        rate: json.spelt(member!("rate"), rate)?,
        grant_effects: json.objects_if_any(member!("grant_effects"), grant_effect)?.into(),
        balance_after: json.integer_if_any(member!("balance_after"))?,
        held_after: json.integer_if_any(member!("held_after"))?,
        overdraft_after: json.integer_if_any(member!("overdraft_after"))?,
        level: json.spelt(member!("level"), level)??,
        plan: json.text_if_any(member!("plan"))?.into(),
        contract_id: json.text_if_any(member!("contract_id"))?.into(),
        period_start: json.date_if_any(member!("period_start"))?,
        amount_usd: json.spelt(member!("amount_usd"), usd)?.unwrap_or_default(),
        reason: json.text_if_any(member!("reason"))?,
        actor: json.text_if_any(member!("actor"))?,
        reference: json.text_if_any(member!("reference"))?,
        origin_topic: json.text_if_any(member!("origin_topic"))?,
        origin_partition: json.integer_if_any(member!("origin_partition"))?,
        origin_offset: json.integer_if_any(member!("origin_offset"))?,
        business_id: json.text_if_any(member!("business_id"))?,
        grant: json.object_if_any(member!("grant"), grant_terms)?,
        contract: json.object_if_any(member!("contract"), contract_terms)?.map(Box::new),
        hold_until: json.time_if_any(member!("hold_until"))?,
        overdraft_limit: None,
        whole_job: json.flag_if_set(member!("whole_job"))?,
        limits: None,
        bucket: json.object_if_any(member!("bucket"), bucket)?,
        warning: None,
    })
}

fn grant_effect(json: &mut ObjectReader<'_>) -> Option<GrantEffect> {
    Some(GrantEffect {
        grant_id: json.text(member!("grant_id"))?.into(),
        kind: json.spelt(member!("kind"), grant_kind)??,
        credits: json.integer(member!("credits"))?,
        remaining_after: json.integer_if_any(member!("remaining_after"))?,
        repaid_after: json.integer_if_any(member!("repaid_after"))?,
        expires_at: json.time_if_any(member!("expires_at"))?,
    })
}

fn grant_terms<'t>(json: &mut ObjectReader<'t>) -> Option<GrantTerms<'t>> {
    Some(GrantTerms {
        priority: json.natural(member!("priority"))?,
        granted_at: json.time(member!("granted_at"))?,
        contract_id: json.text_if_any(member!("contract_id"))?,
        month: json.natural_or_none(member!("month"))?,
        is_difference: json.flag_if_set(member!("is_difference"))?,
    })
}

fn contract_terms<'t>(json: &mut ObjectReader<'t>) -> Option<ContractTerms<'t>> {
    Some(ContractTerms {
        contract_id: json.text(member!("contract_id"))?.into(),
        plan: json.text(member!("plan"))?.into(),
        starts_at: json.time(member!("starts_at"))?,
        ends_at: json.time(member!("ends_at"))?,
        terms: json.naturals(member!("terms"))?,
        plans: json.objects_if_any(member!("plans"), plan_terms).filter(|plans| !plans.is_empty())?,
        asked_plan: json.object_if_any(member!("asked_plan"), plan_terms)?,
        is_cancelled: json.flag_if_set(member!("is_cancelled"))?,
    })
}

fn bucket(json: &mut ObjectReader<'_>) -> Option<BucketTotals> {
    Some(BucketTotals {
        hour: json.time(member!("hour"))?,
        part: json.natural(member!("part"))?,
        jobs: json.natural(member!("jobs"))?,
        images: json.natural_if_any(member!("images"))?,
        video_seconds: json.spelt(member!("video_seconds"), video)?.unwrap_or_default(),
        credits_charged: json.integer_if_any(member!("credits_charged"))?,
        credits_reversed: json.integer_if_any(member!("credits_reversed"))?,
        credits_refused: json.integer_if_any(member!("credits_refused"))?,
    })
}

fn entry_type(text: &str) -> Option<EntryType> {
    EntryType::ALL.into_iter().find(|entry_type| entry_type.as_str() == text)
}

fn asset_type(text: &str) -> Option<AssetType> {
    [AssetType::Image, AssetType::Video].into_iter().find(|asset_type| asset_type.as_str() == text)
}

fn grant_kind(text: &str) -> Option<GrantKind> {
    [GrantKind::Plan, GrantKind::Topup, GrantKind::Adjustment].into_iter().find(|kind| kind.as_str() == text)
}

fn level(text: &str) -> Option<Level> {
    Level::ALL.into_iter().find(|level| level.as_str() == text)
}

fn fingerprint(text: &str) -> Option<Fingerprint> {
    u64::from_str_radix(text, 16).ok().map(Fingerprint)
}

fn video(text: &str) -> Option<VideoMillis> {
    exact_scaled(text, 3).and_then(|millis| u64::try_from(millis).ok()).map(VideoMillis)
}

fn usd(text: &str) -> Option<UsdCents> {
    exact_scaled(text, 2).and_then(|cents| i64::try_from(cents).ok()).map(UsdCents)
}

fn rate(text: &str) -> Option<Rate> {
    exact_scaled(text, 6).and_then(|millionths| u64::try_from(millionths).ok()).map(Rate)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use proptest::prelude::*;

    use super::*;

    /// As nearly all of a ledger's records are.
    const USUAL: [&str; 5] = [
        r#"{"v":1,"wallet_id":"w","entries":[{"seq":1,"entry_type":"contract_started","posted_at":"2026-11-03T10:15:30.123Z","event_time":"2026-11-03T10:15:30.123Z","event_type":"contract.started","source":"/a","event_id":"e1","fingerprint":"00000000000000ff","level":"ok","plan":"lite","contract_id":"c1","period_start":"2026-11-03","reference":"x","origin_topic":"t","origin_partition":3,"origin_offset":9,"business_id":"contract:c1","contract":{"contract_id":"c1","plan":"lite","starts_at":"2026-11-03T00:00:00Z","ends_at":"2027-11-03T00:00:00Z","terms":[12,3],"plans":[{"from":"2026-11-03T00:00:00Z","plan":"lite"}],"asked_plan":{"from":"2026-12-03T00:00:00Z","plan":"scale"},"is_cancelled":true}}]}"#,
        r#"{"v":1,"wallet_id":"w","entries":[{"seq":2,"entry_type":"granted","credits":200,"posted_at":"2026-11-03T10:15:30.123Z","event_time":"2026-11-03T10:15:30.123Z","fingerprint":"00000000000000ff","grant_effects":[{"grant_id":"plan:c1:0","kind":"plan","credits":200,"remaining_after":200,"expires_at":"2027-11-03T00:00:00Z"}],"balance_after":200,"level":"ok","amount_usd":"12.5","origin_partition":3,"origin_offset":9,"grant":{"priority":10,"granted_at":"2026-11-03T00:00:00Z","contract_id":"c1","month":0,"is_difference":true}}]}"#,
        r#"{"v":1,"wallet_id":"ws_ä","entries":[{"seq":18446744073709551615,"entry_type":"charged","credits":-24,"posted_at":"2026-11-03T10:15:30.123Z","event_time":"2026-11-03T10:15:30Z","event_type":"generation.completed","source":"/a","event_id":"e1","fingerprint":"00000000000000ff","job_id":"j","asset_id":"a","asset_type":"video","model":"m","user_id":"u","project_id":"p","video_seconds":"7.25","rate_card":"k","rate":"3.5","grant_effects":[{"grant_id":"plan:c1:0","kind":"plan","credits":-20,"expires_at":"2027-11-03T00:00:00Z"},{"grant_id":"topup:t","kind":"topup","credits":-4,"remaining_after":176,"repaid_after":3}],"balance_after":-9223372036854775808,"held_after":1,"overdraft_after":5,"level":"overdrawn","plan":"lite","contract_id":"c1","period_start":"2026-11-03","origin_topic":"t","origin_partition":3,"origin_offset":9,"bucket":{"hour":"2026-11-03T10:00:00Z","part":3,"jobs":1,"video_seconds":"7.25","credits_charged":24,"credits_reversed":1,"credits_refused":2}}]}"#,
        r#"{"v":1,"wallet_id":"w","clock_day":"2026-11-04","entries":[{"seq":1,"entry_type":"released","held_credits":-4,"posted_at":"2026-11-03T10:15:30.123Z","event_time":"2026-11-03T10:15:30.123Z","fingerprint":"ffffffffffffffff","level":"ok","reason":"r","origin_partition":0,"origin_offset":0,"whole_job":true},{"seq":2,"entry_type":"charged","credits":-1,"posted_at":"2026-11-03T10:15:30.123Z","event_time":"2026-11-03T10:15:30.123Z","fingerprint":"ffffffffffffffff","asset_type":"image","images":4,"level":"low","origin_partition":0,"origin_offset":0,"bucket":{"hour":"2026-11-03T10:00:00Z","part":3,"jobs":0,"images":4}}]}"#,
        r#"{"v":1,"wallet_id":"w","entries":[{"seq":9,"entry_type":"held","held_credits":4,"amount":7,"posted_at":"2026-11-03T10:15:30.123Z","event_time":"2026-11-03T10:15:30.123Z","fingerprint":"0000000000000000","held_after":4,"level":"critical","actor":"a","reference":"i","origin_partition":0,"origin_offset":0,"business_id":"topup:1","hold_until":"2026-11-04T10:15:30.123Z"}]}"#,
    ];
    /// These are serde's.
    const UNUSUAL: [&str; 12] = [
        r#"{"v":1,"wallet_id":"w","entries":[]}"#,
        r#"{"v":1,"wallet_id":"w","entries":[{"entry_type":"noted","seq":1,"posted_at":"2026-11-03T10:15:30Z","event_time":"2026-11-03T10:15:30Z","level":"ok"}]}"#,
        r#"{"v":1,"wallet_id":"w\"","entries":[{"seq":1,"entry_type":"noted","posted_at":"2026-11-03T10:15:30Z","event_time":"2026-11-03T10:15:30Z","level":"ok"}]}"#,
        r#"{"v":1,"wallet_id":"w","entries":[{"seq":1,"entry_type":"noted","posted_at":"2026-11-03T10:15:30Z","event_time":"2026-11-03T10:15:30Z","level":"ok","new":{"a":[1]}}]}"#,
        r#"{"v":1,"wallet_id":"w","entries":[{"seq":1,"entry_type":"noted","posted_at":"2026-11-03T10:15:30Z","event_time":"2026-11-03T10:15:30Z","level":"ok","warning":{"days":30,"expires_at":"2026-11-03T10:15:30Z"}}]}"#,
        r#"{"v":1,"wallet_id":"w","entries":[{"seq":1,"entry_type":"noted","credits":-0,"posted_at":"2026-11-03T10:15:30Z","event_time":"2026-11-03T10:15:30Z","level":"ok"}]}"#,
        r#"{"v":1,"wallet_id":"w","entries":[{"seq":01,"entry_type":"noted","posted_at":"2026-11-03T10:15:30Z","event_time":"2026-11-03T10:15:30Z","level":"ok"}]}"#,
        r#"{"v":1,"wallet_id":"w","entries":[{"seq":1,"entry_type":"noted","credits":9223372036854775808,"posted_at":"2026-11-03T10:15:30Z","event_time":"2026-11-03T10:15:30Z","level":"ok"}]}"#,
        r#"{"v":1,"wallet_id":"w","entries":[{"seq":1,"entry_type":"noted","credits":1.5,"posted_at":"2026-11-03T10:15:30Z","event_time":"2026-11-03T10:15:30Z","level":"ok"}]}"#,
        r#"{"v":1,"wallet_id":"w","entries":[{"seq":1,"entry_type":"noted","posted_at":"2026-11-03T10:15:30Z","event_time":"2026-11-03T10:15:30Z","level":"ok","whole_job":false}]}"#,
        r#"{"v":1,"wallet_id":"w","clock_day":"2026-02-30","entries":[{"seq":1,"entry_type":"noted","posted_at":"2026-11-03T10:15:30Z","event_time":"2026-11-03T10:15:30Z","level":"ok"}]}"#,
        r#"{"v":1,"wallet_id":"w","entries":[{"seq":1,"entry_type":"noted","posted_at":"2026-11-03T10:15:30Z","event_time":"2026-11-03T10:15:30Z","level":"ok"}]} "#,
    ];

    /// As nearly all snapshots are.
    const USUAL_SNAPSHOTS: [&str; 2] = [
        r#"{"v":1,"wallet_id":"ws_ä","seq":7,"plan":"","contract_id":"","balance":-1,"held":0,"available":-1,"overdraft":1,"plan_credits":0,"topup_credits":0,"adjustment_credits":0,"allocation":0,"level":"overdrawn","first_seen_at":"2026-11-03T10:15:30.123Z","updated_at":"2026-11-03T10:15:30.123Z","overdrawn_day":20783,"latest_at":"2026-11-03T10:15:30.123Z","overdrawn":{"since":"2026-11-03T10:15:30.123Z","is_warned":false},"pace":{"first_day":-1,"charged":[],"is_warned":true},"last_topup":0}"#,
        r#"{"v":1,"wallet_id":"w","seq":9,"plan":"lite","contract_id":"c1","balance":380,"held":4,"available":376,"overdraft":0,"plan_credits":200,"topup_credits":180,"adjustment_credits":0,"allocation":200,"level":"ok","next_allocation_at":"2026-12-03T00:00:00.000Z","term_started_at":"2026-11-03T00:00:00.000Z","term_ends_at":"2027-11-03T00:00:00.000Z","first_seen_at":"2026-11-03T10:15:30.123Z","updated_at":"2026-11-03T10:15:30.123Z","overdrawn_day":0,"latest_at":"2026-11-03T10:15:30.123Z","pace":{"first_day":20760,"charged":[4,0,-8],"is_warned":false},"last_topup":100,"contracts":[{"contract_id":"c1","starts_at":"2026-11-03T00:00:00.000Z","ends_at":"2027-11-03T00:00:00.000Z","terms":[12,3],"plans":[{"from":"2026-11-03T00:00:00.000Z","plan":"lite"}],"granted":[200],"is_changed":true,"is_ended":true}],"grants":[{"grant_id":"plan:c1:0","kind":"plan","credits_granted":200,"credits_remaining":200,"priority":10,"granted_at":"2026-11-03T00:00:00.000Z","expires_at":"2027-11-03T00:00:00.000Z","contract_id":"c1","month":0,"made_seq":2,"seq":2,"touched_day":20760},{"grant_id":"topup:t1","kind":"topup","credits_granted":200,"credits_remaining":180,"credits_repaid":3,"priority":20,"granted_at":"2026-11-03T00:00:00.000Z","amount_usd":"12.5","made_seq":3,"repaid_seq":4,"seq":9,"touched_day":-1}],"business_ids":["0123456789abcdef0123456789abcdef","ffffffffffffffffffffffffffffffff"]}"#,
    ];

    fn says_what_serde_says(text: &str) {
        let said = |error: serde_json::Error| error.to_string();
        let decoded = LedgerRecord::decode(text.as_bytes());
        assert_eq!(decoded.map_err(said), serde_json::from_str(text).map_err(said));
        let decoded = WalletSnapshot::decode(text.as_bytes());
        assert_eq!(decoded.map_err(said), serde_json::from_str(text).map_err(said));
    }

    #[test]
    fn usual_snapshots_are_read_without_serde_and_as_serde_would() {
        for text in USUAL_SNAPSHOTS {
            let expected: WalletSnapshot<'_> = serde_json::from_str(text).unwrap();
            assert_eq!(usual_snapshot(text), Some(expected.clone()), "{text}");
            let mut encoded = Vec::new();
            expected.encode(&mut encoded);
            assert_eq!(String::from_utf8(encoded).unwrap(), text, "as it is written");
        }
        let limited =
            USUAL_SNAPSHOTS[0].replace(r#","last_topup":0"#, r#","last_topup":0,"limits":{"low_percent":5}"#);
        assert_eq!(usual_snapshot(&limited), None, "serde's");
        says_what_serde_says(&limited);
    }

    #[test]
    fn usual_records_are_read_without_serde_and_as_serde_would() {
        for text in USUAL {
            let expected: LedgerRecord<'_> = serde_json::from_str(text).unwrap();
            assert_eq!(usual(text), Some(expected.clone()), "{text}");
            let mut encoded = Vec::new();
            expected.encode(&mut encoded);
            let times = |text: &str| text.replace(":30Z", ":30.000Z").replace("0:00Z", "0:00.000Z");
            assert_eq!(times(&String::from_utf8(encoded).unwrap()), times(text), "as it is written");
        }
        for text in UNUSUAL {
            assert_eq!(usual(text), None, "{text}");
            says_what_serde_says(text);
        }
        assert!(LedgerRecord::decode(b"{\"v\":1,\"wallet_id\":\"\xff\"").is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]

        /// A record or snapshot with a piece of it cut out, doubled, or replaced by something that means something to JSON.
        #[test]
        fn whatever_a_record_is_serde_would_read_the_same(
            (text, from, length) in (
                proptest::sample::select([&USUAL[..], &USUAL_SNAPSHOTS].concat()), 0.0..1.0, 0_usize..40,
            ),
            put in proptest::sample::select(vec![
                "", "0", "-", "9", ".5", "e1", "\"", "\\", "\\u0041", ",", ":", "{", "}", "[", "]", " ", "null", "true", "false",
                "-0", "00", "ä", "\u{1}", "\"credits\":1,", ",\"level\":\"ok\"", "true,", "[]", "[1]", ",\"new\":1", "2026-11-03", "99999999999999999999",
            ]),
            is_doubled in any::<bool>(),
        ) {
            let from = (from * text.len() as f64) as usize;
            let to = (from + length).min(text.len());
            prop_assume!(text.is_char_boundary(from) && text.is_char_boundary(to));
            let middle = if is_doubled { text[from..to].repeat(2) } else { put.to_owned() };
            says_what_serde_says(&format!("{}{middle}{}", &text[..from], &text[to..]));
        }
    }
}
