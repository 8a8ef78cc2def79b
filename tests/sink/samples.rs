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
"first_seen_at":"2026-11-01T00:00:00.001Z","updated_at":"2026-11-03T10:15:31.000Z","latest_at":"2026-11-03T10:15:30.123Z","overdrawn_day":0,"last_topup":1000,
"limits":{"overdraft_limit":5,"low_percent":30},"contracts":[{"contract_id":"c","starts_at":"2026-11-01T00:00:00.000Z",
"ends_at":"2027-11-01T00:00:00.000Z","terms":[12],"plans":[{"from":"2026-11-01T00:00:00.000Z","plan":"lite"}],"granted":[5]}],"grants":[
{"grant_id":"topup:t1","kind":"topup","credits_granted":1000,"credits_remaining":990,"credits_repaid":10,"priority":30,
"granted_at":"2026-11-03T10:15:30.123Z","amount_usd":"250","made_seq":3,"repaid_seq":4,"seq":4,"touched_day":20760},
{"grant_id":"plan:c:0","kind":"plan","credits_granted":5,"credits_remaining":0,"priority":10,
"granted_at":"2026-11-01T00:00:00.000Z","expires_at":"2027-11-01T00:00:00.000Z","contract_id":"c","month":0,"made_seq":2,"seq":2,"touched_day":20758}]}"#;

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

/// A change of level, and a warning with all that warnings have.
pub fn alerts() -> Vec<Record> {
    let level = r#"{"v":1,"wallet_id":"ws_42","alert_id":"ws_42:low:1207","kind":"level","level":"low","level_before":"ok","seq":1207,"raised_at":"2026-11-03T10:15:30.123Z","available":40,"allocation":200,"plan":"lite"}"#;
    let warning = r#"{"v":1,"wallet_id":"ws_42","alert_id":"ws_42:expiring:1209","kind":"expiring","level":"low","seq":1209,"raised_at":"2026-11-04T00:00:00.000Z","available":-3,"allocation":200,"plan":"lite","amount":60,"days":30,"expires_at":"2026-12-04T00:00:00.000Z","contract_id":"c_1","job_id":"job_7"}"#;
    [level, warning].map(|value| record(Source::Alerts, 1, "ws_42", value)).into()
}

/// A wallet with every type of entry, in one record; `v` and the rest are as the ledger stage writes them.
pub const EVERY_TYPE: &str = r#"{"v":1,"wallet_id":"ws_7","clock_day":"2026-11-04","entries":[
{"seq":1,"entry_type":"contract_started","posted_at":"2026-11-03T10:15:31.000Z","event_time":"2026-11-03T10:15:30.123Z","fingerprint":"00000000000000ff","level":"ok","origin_partition":3,"origin_offset":9,"plan":"lite","contract_id":"c","period_start":"2026-11-01","business_id":"contract:c","contract":{"contract_id":"c","plan":"lite","starts_at":"2026-11-01T00:00:00.000Z","ends_at":"2027-11-01T00:00:00.000Z","terms":[12],"plans":[{"from":"2026-11-01T00:00:00.000Z","plan":"lite"}]}},
{"seq":2,"entry_type":"granted","posted_at":"2026-11-03T10:15:31.000Z","event_time":"2026-11-03T00:00:00.000Z","fingerprint":"0000000000000000","level":"ok","origin_partition":0,"origin_offset":0,"credits":200,"balance_after":200,"plan":"lite","contract_id":"c","period_start":"2026-11-01","grant_effects":[{"grant_id":"plan:c:0","kind":"plan","credits":200,"remaining_after":200,"expires_at":"2027-11-01T00:00:00.000Z"}],"grant":{"priority":10,"granted_at":"2026-11-01T00:00:00.000Z","contract_id":"c","month":0}},
{"seq":3,"entry_type":"adjusted","posted_at":"2026-11-03T10:15:31.000Z","event_time":"2026-11-03T10:15:30.123Z","fingerprint":"00000000000000ff","level":"ok","origin_partition":3,"origin_offset":9,"credits":-200,"business_id":"adjustment:a","reason":"chargeback","actor":"kim","reference":"t-1","grant_effects":[{"grant_id":"plan:c:0","kind":"plan","credits":-200}]},
{"seq":4,"entry_type":"limits_changed","posted_at":"2026-11-03T10:15:31.000Z","event_time":"2026-11-03T10:15:30.123Z","fingerprint":"00000000000000ff","level":"ok","origin_partition":3,"origin_offset":9,"limits":{"overdraft_limit":4,"low_percent":30},"reference":"t-2"},
{"seq":5,"entry_type":"held","posted_at":"2026-11-03T10:15:31.000Z","event_time":"2026-11-03T10:15:30.123Z","fingerprint":"00000000000000ff","level":"ok","origin_partition":3,"origin_offset":9,"held_credits":4,"held_after":4,"hold_until":"2026-11-04T10:15:30.123Z","images":4,"event_type":"generation.requested","job_id":"j","asset_type":"image","model":"m","plan":"lite","rate_card":"2026","rate":"1"},
{"seq":6,"entry_type":"charged","posted_at":"2026-11-03T10:15:31.000Z","event_time":"2026-11-03T10:15:30.123Z","fingerprint":"00000000000000ff","level":"ok","origin_partition":3,"origin_offset":9,"credits":-4,"balance_after":-4,"held_after":4,"overdraft_after":4,"images":4,"event_type":"generation.completed","job_id":"j","asset_type":"image","model":"m","plan":"lite","rate_card":"2026","rate":"1","bucket":{"hour":"2026-11-03T10:00:00.000Z","part":6,"jobs":1,"images":4,"credits_charged":4}},
{"seq":7,"entry_type":"refused","posted_at":"2026-11-03T10:15:31.000Z","event_time":"2026-11-03T10:15:30.123Z","fingerprint":"00000000000000ff","level":"ok","origin_partition":3,"origin_offset":9,"amount":4,"balance_after":-4,"held_after":4,"overdraft_after":4,"images":4,"job_id":"k","asset_type":"image","model":"m","plan":"lite","rate_card":"2026","rate":"1","bucket":{"hour":"2026-11-03T10:00:00.000Z","part":6,"jobs":1,"images":4,"credits_charged":4,"credits_refused":4}},
{"seq":8,"entry_type":"released","posted_at":"2026-11-03T10:15:31.000Z","event_time":"2026-11-03T10:15:30.123Z","fingerprint":"00000000000000ff","level":"ok","origin_partition":3,"origin_offset":9,"held_credits":-4,"balance_after":-4,"overdraft_after":4,"job_id":"j","whole_job":true,"reason":"user left"},
{"seq":9,"entry_type":"contract_changed","posted_at":"2026-11-03T10:15:31.000Z","event_time":"2026-11-03T10:15:30.123Z","fingerprint":"00000000000000ff","level":"ok","origin_partition":3,"origin_offset":9,"balance_after":-4,"overdraft_after":4,"plan":"lite","contract_id":"c","contract":{"contract_id":"c","plan":"lite","starts_at":"2026-11-01T00:00:00.000Z","ends_at":"2027-11-01T00:00:00.000Z","terms":[12],"plans":[{"from":"2026-11-01T00:00:00.000Z","plan":"lite"}]}},
{"seq":10,"entry_type":"granted","posted_at":"2026-11-03T10:15:31.000Z","event_time":"2026-11-03T00:00:00.000Z","fingerprint":"0000000000000000","level":"ok","origin_partition":0,"origin_offset":0,"credits":10,"balance_after":6,"overdraft_after":4,"plan":"lite","contract_id":"c","period_start":"2026-11-01","grant_effects":[{"grant_id":"plan:c:0+10","kind":"plan","credits":10,"remaining_after":10,"expires_at":"2027-11-01T00:00:00.000Z"}],"grant":{"priority":10,"granted_at":"2026-11-01T00:00:00.000Z","contract_id":"c","month":0,"is_difference":true}},
{"seq":11,"entry_type":"overdraft_repaid","posted_at":"2026-11-03T10:15:31.000Z","event_time":"2026-11-03T00:00:00.000Z","fingerprint":"0000000000000000","level":"ok","origin_partition":0,"origin_offset":0,"amount":4,"balance_after":6,"grant_effects":[{"grant_id":"plan:c:0+10","kind":"plan","credits":-4,"remaining_after":6,"repaid_after":4}]},
{"seq":12,"entry_type":"reversed","posted_at":"2026-11-03T10:15:31.000Z","event_time":"2026-11-03T10:15:30.123Z","fingerprint":"00000000000000ff","level":"ok","origin_partition":3,"origin_offset":9,"credits":4,"balance_after":10,"asset_id":"a","job_id":"j","asset_type":"image","model":"m","plan":"lite","whole_job":true,"reason":"artefacts","grant_effects":[{"grant_id":"plan:c:0+10","kind":"plan","credits":4,"remaining_after":10}],"bucket":{"hour":"2026-11-03T10:00:00.000Z","part":6,"jobs":1,"images":4,"credits_charged":4,"credits_reversed":4,"credits_refused":4}},
{"seq":13,"entry_type":"contract_renewed","posted_at":"2026-11-03T10:15:31.000Z","event_time":"2026-11-03T10:15:30.123Z","fingerprint":"00000000000000ff","level":"ok","origin_partition":3,"origin_offset":9,"balance_after":10,"plan":"lite","contract_id":"c","contract":{"contract_id":"c","plan":"lite","starts_at":"2026-11-01T00:00:00.000Z","ends_at":"2027-11-01T00:00:00.000Z","terms":[12],"plans":[{"from":"2026-11-01T00:00:00.000Z","plan":"lite"}]}},
{"seq":14,"entry_type":"noted","posted_at":"2026-11-03T10:15:31.000Z","event_time":"2026-11-03T10:15:30.123Z","fingerprint":"00000000000000ff","level":"ok","origin_partition":3,"origin_offset":9,"balance_after":10,"job_id":"x","whole_job":true,"reason":"unknown_job","event_type":"generation.refunded"},
{"seq":15,"entry_type":"contract_ended","posted_at":"2026-11-03T10:15:31.000Z","event_time":"2026-11-03T00:00:00.000Z","fingerprint":"0000000000000000","level":"ok","origin_partition":0,"origin_offset":0,"balance_after":10,"plan":"lite","contract_id":"c"},
{"seq":16,"entry_type":"expired","posted_at":"2026-11-03T10:15:31.000Z","event_time":"2026-11-03T00:00:00.000Z","fingerprint":"0000000000000000","level":"ok","origin_partition":0,"origin_offset":0,"credits":-10,"plan":"lite","contract_id":"c","grant_effects":[{"grant_id":"plan:c:0+10","kind":"plan","credits":-10}]}]}"#;
