//! Records as the ledger stage writes them.

use creditstream::sink::record::{Record, Source, SourcePartition};
use creditstream::time::Timestamp;

pub fn record(source: Source, partition: i32, key: &str, value: &str) -> Record {
    Record {
        from: SourcePartition { source, partition },
        offset: 0,
        timestamp: Timestamp::parse("2026-11-03T10:15:32.500Z").unwrap(),
        key: key.as_bytes().into(),
        value: Some(value.as_bytes().into()),
        headers: Vec::new(),
    }
}

/// A wallet's entries from..=to: charges of seq credits in one bucket.
pub fn charges(wallet_id: &str, seqs: std::ops::RangeInclusive<u64>) -> Vec<Record> {
    let charge = |seq: u64| {
        let total: u64 = (1..=seq).sum();
        let value = format!(
            r#"{{"v":1,"wallet_id":"{wallet_id}","entries":[{{"seq":{seq},"entry_type":"charged","credits":-{seq},"posted_at":"2026-11-03T10:15:31.000Z","event_time":"2026-11-03T10:15:30.123Z","event_type":"generation.completed","source":"/render","event_id":"e{seq}","job_id":"j{seq}","asset_type":"image","model":"m","plan":"lite","images":{seq},"rate_card":"2026","rate":"1","level":"ok","balance_after":-{total},"overdraft_after":{total},"origin_topic":"generation.events","bucket":{{"hour":"2026-11-03T10:00:00.000Z","part":1,"jobs":{seq},"images":{total},"credits_charged":{total}}}}}]}}"#
        );
        record(Source::Ledger, 0, wallet_id, &value)
    };
    seqs.map(charge).collect()
}

/// An entry that uses every column.
pub const FULL_ENTRY: &str = r#"{"v":1,"wallet_id":"ws_42","entries":[{"seq":1,"entry_type":"granted","credits":1000,
"held_credits":-3,"amount":7,"posted_at":"2026-11-03T10:15:31.000Z","event_time":"2026-11-03T10:15:30.123Z",
"event_type":"topup.purchased","source":"/shop","event_id":"e1","fingerprint":"00000000000000ff","job_id":"j",
"asset_id":"a","asset_type":"video","model":"veo \"3\"","user_id":"u","project_id":"p","images":4,
"video_seconds":"4.5","rate_card":"2026-01","rate":"4.500001","grant_effects":[
{"grant_id":"topup:t1","kind":"topup","credits":1000,"remaining_after":990},
{"grant_id":"plan:c:0","kind":"plan","credits":-10,"expires_at":"9999-12-31T23:59:59.999Z"}],
"balance_after":990,"held_after":5,"overdraft_after":10,"level":"critical","plan":"lite","contract_id":"c",
"period_start":"2026-11-01","amount_usd":"250.5","reason":"r\u00e4","actor":"ac","reference":"inv","origin_topic":"wallet.events",
"origin_partition":3,"origin_offset":77,"business_id":"topup:t1",
"bucket":{"hour":"2026-11-03T10:00:00.000Z","part":1,"jobs":2,"images":4,"video_seconds":"4.5","credits_charged":20,"credits_reversed":3,"credits_refused":2}}]}"#;

pub const SNAPSHOT: &str = r#"{"v":1,"wallet_id":"ws_42","seq":9,"plan":"lite","contract_id":"c","balance":990,"held":5,"available":985,
"overdraft":10,"plan_credits":3,"topup_credits":990,"adjustment_credits":7,"allocation":1000,"level":"low",
"next_allocation_at":"2026-12-01T00:00:00.000Z","term_started_at":"2026-11-01T00:00:00.000Z",
"first_seen_at":"2026-11-01T00:00:00.001Z","updated_at":"2026-11-03T10:15:31.000Z","grants":[
{"grant_id":"topup:t1","kind":"topup","credits_granted":1000,"credits_remaining":990,"credits_repaid":10,"priority":30,
"granted_at":"2026-11-03T10:15:30.123Z","amount_usd":"250","seq":4},
{"grant_id":"plan:c:0","kind":"plan","credits_granted":5,"credits_remaining":0,"priority":10,
"granted_at":"2026-11-01T00:00:00.000Z","expires_at":"2027-11-01T00:00:00.000Z","contract_id":"c","seq":2}]}"#;

/// Two quarantined records: one as the ledger stage writes it, one that somebody else wrote.
pub fn quarantined() -> Vec<Record> {
    let event = r#"{"specversion":"1.0","id":"e9","source":"/render","subject":"ws_42","data":"ÿ"}"#;
    let mut ours = record(Source::Quarantine, 1, "ws_42", event);
    let headers = [
        ("trace", "t-1"),
        ("cs_reason", "bad_value"),
        ("cs_detail", "seconds: expected a number above 0"),
        ("cs_topic", "generation.events"),
        ("cs_topic_id", "q1"),
        ("cs_partition", "4"),
        ("cs_offset", "12345678901"),
        ("cs_time", "2026-11-03T10:15:30.001Z"),
    ];
    ours.headers = headers.map(|(name, value)| (name.into(), value.as_bytes().into())).to_vec();
    let mut foreign = record(Source::Quarantine, 1, "", "");
    foreign.value = Some([0xff, b'x'].into());
    vec![ours, foreign]
}
