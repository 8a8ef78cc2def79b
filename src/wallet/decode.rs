//! Reads back the wire form of ledger records: the counterpart of [`super::encode`], member by member in the same order.
//!
//! Restores, the sink and whatever else reads the ledger go through here. It says the same as the serde attributes of
//! [`super::entry`], which are asked where a record is not written as [`super::encode`] writes it, or has one of the members
//! that few records have; tests hold the two equal.

use super::Level;
use super::entry::{BucketTotals, Entry, EntryType, GrantEffect, GrantKind, LedgerRecord};
use crate::event::Fingerprint;
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
        grant_effects: json.objects_if_any(member!("grant_effects"), grant_effect)?,
        balance_after: json.integer_if_any(member!("balance_after"))?,
        held_after: json.integer_if_any(member!("held_after"))?,
        overdraft_after: json.integer_if_any(member!("overdraft_after"))?,
        level: json.spelt(member!("level"), level)??,
        plan: json.text_if_any(member!("plan"))?,
        contract_id: json.text_if_any(member!("contract_id"))?,
        period_start: json.date_if_any(member!("period_start"))?,
        amount_usd: UsdCents::default(),
        reason: json.text_if_any(member!("reason"))?,
        actor: json.text_if_any(member!("actor"))?,
        reference: json.text_if_any(member!("reference"))?,
        origin_topic: json.text_if_any(member!("origin_topic"))?,
        origin_partition: json.integer_if_any(member!("origin_partition"))?,
        origin_offset: json.integer_if_any(member!("origin_offset"))?,
        business_id: json.text_if_any(member!("business_id"))?,
        grant: None,
        contract: None,
        hold_until: json.time_if_any(member!("hold_until"))?,
        overdraft_limit: None,
        whole_job: json.flag_if_set(member!("whole_job"))?,
        limits: None,
        bucket: json.object_if_any(member!("bucket"), bucket)?,
        warning: None,
    })
}

fn grant_effect<'t>(json: &mut ObjectReader<'t>) -> Option<GrantEffect<'t>> {
    Some(GrantEffect {
        grant_id: json.text(member!("grant_id"))?.into(),
        kind: json.spelt(member!("kind"), grant_kind)??,
        credits: json.integer(member!("credits"))?,
        remaining_after: json.integer_if_any(member!("remaining_after"))?,
        repaid_after: json.integer_if_any(member!("repaid_after"))?,
        expires_at: json.time_if_any(member!("expires_at"))?,
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

fn rate(text: &str) -> Option<Rate> {
    exact_scaled(text, 6).and_then(|millionths| u64::try_from(millionths).ok()).map(Rate)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use proptest::prelude::*;

    use super::*;

    /// As nearly all of a ledger's records are.
    const USUAL: [&str; 3] = [
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
        r#"{"v":1,"wallet_id":"w","entries":[{"seq":1,"entry_type":"noted","posted_at":"2026-11-03T10:15:30Z","event_time":"2026-11-03T10:15:30Z","level":"ok","amount_usd":"5"}]}"#,
        r#"{"v":1,"wallet_id":"w","entries":[{"seq":1,"entry_type":"noted","credits":-0,"posted_at":"2026-11-03T10:15:30Z","event_time":"2026-11-03T10:15:30Z","level":"ok"}]}"#,
        r#"{"v":1,"wallet_id":"w","entries":[{"seq":01,"entry_type":"noted","posted_at":"2026-11-03T10:15:30Z","event_time":"2026-11-03T10:15:30Z","level":"ok"}]}"#,
        r#"{"v":1,"wallet_id":"w","entries":[{"seq":1,"entry_type":"noted","credits":9223372036854775808,"posted_at":"2026-11-03T10:15:30Z","event_time":"2026-11-03T10:15:30Z","level":"ok"}]}"#,
        r#"{"v":1,"wallet_id":"w","entries":[{"seq":1,"entry_type":"noted","credits":1.5,"posted_at":"2026-11-03T10:15:30Z","event_time":"2026-11-03T10:15:30Z","level":"ok"}]}"#,
        r#"{"v":1,"wallet_id":"w","entries":[{"seq":1,"entry_type":"noted","posted_at":"2026-11-03T10:15:30Z","event_time":"2026-11-03T10:15:30Z","level":"ok","whole_job":false}]}"#,
        r#"{"v":1,"wallet_id":"w","clock_day":"2026-02-30","entries":[{"seq":1,"entry_type":"noted","posted_at":"2026-11-03T10:15:30Z","event_time":"2026-11-03T10:15:30Z","level":"ok"}]}"#,
        r#"{"v":1,"wallet_id":"w","entries":[{"seq":1,"entry_type":"noted","posted_at":"2026-11-03T10:15:30Z","event_time":"2026-11-03T10:15:30Z","level":"ok"}]} "#,
    ];

    fn says_what_serde_says(text: &str) {
        let decoded = LedgerRecord::decode(text.as_bytes());
        let expected = serde_json::from_str::<LedgerRecord<'_>>(text);
        assert_eq!(decoded.map_err(|error| error.to_string()), expected.map_err(|error| error.to_string()));
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

        /// A record with a piece of it cut out, doubled, or replaced by something that means something to JSON.
        #[test]
        fn whatever_a_record_is_serde_would_read_the_same(
            (record, from, length) in (0..USUAL.len(), 0.0..1.0, 0_usize..40),
            put in proptest::sample::select(vec![
                "", "0", "-", "9", ".5", "e1", "\"", "\\", "\\u0041", ",", ":", "{", "}", "[", "]", " ", "null", "true", "false",
                "-0", "00", "ä", "\u{1}", "\"credits\":1,", ",\"level\":\"ok\"", ",\"new\":1", "2026-11-03", "99999999999999999999",
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
