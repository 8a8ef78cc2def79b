//! A wallet's life in which every type of entry is posted.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;

use creditstream::config::Config;
use creditstream::event::{Data, EventKind, EventRules, IdentityKey, IncomingRecord, decode, fingerprint};
use creditstream::rate::Pricing;
use creditstream::time::{PostedAt, ShardClock, Timestamp};
use creditstream::wallet::{
    Cause, Command, Entry, JobHistory, JobMemo, JobName, LEDGER_FORMAT, LedgerRecord, Moment, Origin, Policy,
    Wallet, WalletSnapshot, apply, post_due, remember,
};
use serde_json::Value;

use super::{at, to_json};

/// A life that makes every type of entry, and all that a snapshot can show: the ledger records, and the snapshot after
/// each.
pub struct Life {
    policy: Policy,
    rules: EventRules,
    wallet: Wallet,
    /// Memos in their stored form, by key.
    jobs: HashMap<u128, Vec<u8>>,
    pub records: Vec<Value>,
    pub snapshots: Vec<Value>,
}

/// Time, type and data of its events.
pub const EVENTS: [(&str, &str, &str); 27] = [
    (
        "2026-11-03T10:00:00Z",
        "generation.completed",
        r#"{"job_id":"j1","asset":"image","images":4,"user_id":"u","project_id":"p"}"#,
    ),
    (
        "2026-11-03T10:00:01Z",
        "topup.purchased",
        r#"{"topup_id":"t1","amount_usd":100,"reference":"invoice"}"#,
    ),
    (
        "2026-11-03T10:00:02Z",
        "contract.started",
        r#"{"contract_id":"c1","plan":"lite","starts_at":"2026-11-01T00:00:00Z","reference":"x"}"#,
    ),
    (
        "2026-11-03T10:00:03Z",
        "wallet.adjusted",
        r#"{"adjustment_id":"a1","credits":50,"reason":"r","actor":"k","expires_at":"2026-11-05T00:00:00Z"}"#,
    ),
    (
        "2026-11-03T10:00:04Z",
        "wallet.adjusted",
        r#"{"adjustment_id":"a2","credits":-5,"reason":"r","actor":"k","reference":"ticket"}"#,
    ),
    (
        "2026-11-03T10:00:05Z",
        "generation.completed",
        r#"{"job_id":"j2","asset_id":"a","asset":"video","seconds":8.5,"model":"veo-3"}"#,
    ),
    (
        "2026-11-03T10:00:06Z",
        "generation.completed",
        r#"{"job_id":"j3","asset":"image","images":1,"model":"gratis"}"#,
    ),
    ("2026-11-03T10:00:07Z", "generation.completed", r#"{"job_id":"j4","asset":"image","images":9000}"#),
    (
        "2026-11-03T10:00:08Z",
        "wallet.adjusted",
        r#"{"adjustment_id":"a3","credits":-5000,"reason":"r","actor":"k"}"#,
    ),
    ("2026-11-03T10:00:09Z", "topup.purchased", r#"{"topup_id":"t2","amount_usd":100.5}"#),
    ("2026-11-03T10:00:10Z", "generation.requested", r#"{"job_id":"j5","asset":"video","seconds":4}"#),
    ("2026-11-03T10:00:11Z", "generation.completed", r#"{"job_id":"j5","asset":"video","seconds":4.5}"#),
    ("2026-11-03T10:00:12Z", "generation.refunded", r#"{"job_id":"j5","reason":"blurred"}"#),
    ("2026-11-03T10:00:13Z", "generation.refunded", r#"{"job_id":"j2"}"#),
    (
        "2026-11-03T10:00:14Z",
        "generation.requested",
        r#"{"job_id":"j6","asset_id":"a","asset":"image","images":4}"#,
    ),
    ("2026-11-03T10:00:15Z", "generation.failed", r#"{"job_id":"j6","reason":"no GPU"}"#),
    ("2026-11-03T10:00:16Z", "generation.requested", r#"{"job_id":"j7","asset":"image","images":4}"#),
    ("2026-11-03T10:00:17Z", "generation.rejected", r#"{"job_id":"j8"}"#),
    ("2026-11-03T10:00:18Z", "generation.cancelled", r#"{"job_id":"j9","asset_id":"a"}"#),
    (
        "2026-11-03T10:00:19Z",
        "wallet.limits_changed",
        r#"{"overdraft_limit":5,"low_percent":30,"critical_percent":10,"reference":"mail"}"#,
    ),
    ("2026-11-03T10:00:20Z", "wallet.limits_changed", r#"{"overdraft_limit":"none"}"#),
    (
        "2026-11-03T10:00:21Z",
        "contract.plan_changed",
        r#"{"contract_id":"c1","plan":"scale","reference":"order"}"#,
    ),
    (
        "2026-11-03T10:00:22Z",
        "wallet.limits_changed",
        r#"{"overdraft_limit":"plan","low_percent":"plan","critical_percent":"plan"}"#,
    ),
    ("2026-11-06T10:00:00Z", "contract.renewed", r#"{"contract_id":"c1","plan":"lite","term_months":1}"#),
    (
        "2026-11-06T10:00:01Z",
        "contract.cancelled",
        r#"{"contract_id":"c1","effective_at":"2026-11-20T00:00:00Z"}"#,
    ),
    ("2026-12-01T10:00:00Z", "generation.requested", r#"{"job_id":"j10","asset":"image","images":4}"#),
    (
        "2026-12-01T10:00:01Z",
        "generation.completed",
        r#"{"job_id":"j10","asset_id":"a","asset":"image","images":1}"#,
    ),
];

/// Lives it.
pub fn life() -> Life {
    let config = Config::default();
    let mut life = Life {
        policy: Policy::new(&config, Arc::new(pricing())),
        rules: EventRules::new(&config.events),
        wallet: Wallet::default(),
        jobs: HashMap::new(),
        records: Vec::new(),
        snapshots: Vec::new(),
    };
    for (number, (time, kind, data)) in EVENTS.into_iter().enumerate() {
        let value = format!(
            r#"{{"specversion":"1.0","id":"e{number}","source":"/s","type":"{kind}","subject":"w1","time":"{time}","data":{data}}}"#
        );
        life.post_due(at(time));
        life.post_event(&value);
        life.post_due(at(time));
    }
    life
}

impl Life {
    fn post_due(&mut self, clock: Timestamp) {
        while let Some(entries) =
            post_due(&mut self.wallet, clock, ShardClock(clock), PostedAt(clock), &self.policy).unwrap()
        {
            self.record(entries, clock);
        }
    }

    fn post_event(&mut self, value: &str) {
        let named =
            EventKind::NAMED.into_iter().find(|kind| value.contains(&format!("\"{}\"", kind.as_str())));
        let incoming = IncomingRecord {
            source_kind: named.unwrap().source_kind(),
            value: Some(value.as_bytes()),
            headers: &[],
        };
        let event = decode(&incoming, &self.rules).unwrap();
        let data = event.data.as_ref().unwrap().as_ref().unwrap();
        let (job_id, asset_id) = match data {
            Data::Requested(usage) | Data::Completed(usage) => (&*usage.job_id, &*usage.asset_id),
            Data::JobEnded(ended) => (&*ended.job_id, &*ended.asset_id),
            _ => ("", ""),
        };
        let name = JobName::new("w1", job_id, asset_id);
        let job = JobHistory::find(&name, true, event.time.0.day() - 35, |key| {
            Ok::<_, Infallible>(self.jobs.get(&key.0).and_then(|memo| JobMemo::from_bytes(memo)))
        });
        let pricing = Arc::clone(&self.policy.pricing);
        let command = Command::price(data, event.time, job.unwrap(), &pricing).unwrap();
        let clock = event.time.0;
        let cause = Cause {
            event_type: event.kind.as_str(),
            source: &event.source,
            event_id: &event.id,
            fingerprint: fingerprint(event.kind, event.time, data),
            origin: Origin { topic: "generation.events", partition: 0, offset: 0 },
            moment: Moment { event_time: event.time, clock: ShardClock(clock), posted_at: PostedAt(clock) },
        };
        let entries = apply(&mut self.wallet, &cause, &command, &self.policy).unwrap();
        self.record(entries, clock);
    }

    fn record(&mut self, entries: Vec<Entry<'_>>, clock: Timestamp) {
        for entry in &entries {
            let name = JobName::new("w1", &entry.job_id, &entry.asset_id);
            let known = |key: IdentityKey| self.jobs.get(&key.0).and_then(|memo| JobMemo::from_bytes(memo));
            let mut changed = Vec::new();
            let put = |key: IdentityKey, memo: JobMemo<'_>| changed.push((key.0, memo.to_bytes()));
            remember(&name, entry, clock.day(), |key| Ok::<_, Infallible>(known(key)), put).unwrap();
            self.jobs.extend(changed);
        }
        let clock_day = clock.date().filter(|day| entries[0].event_time.date() != Some(*day));
        let record = LedgerRecord { v: LEDGER_FORMAT, wallet_id: "w1".into(), clock_day, entries };
        self.records.push(to_json(&record));
        let pricing = &self.policy.pricing;
        self.snapshots.push(to_json(&WalletSnapshot::of("w1", &self.wallet, ShardClock(clock), pricing)));
    }
}

/// Prices of that life.
pub fn pricing() -> Pricing {
    Pricing::parse(
        r#"
        [[rate_card]]
        id = "card"
        effective_from = "2024-01-01T00:00:00Z"
        rates.image.credits = "1"
        rates.image.models."gratis".credits = "0"
        rates.video.credits = "3"
        rates.video.models."veo-3".credits = "4.5"
        [[plans]]
        effective_from = "2024-01-01T00:00:00Z"
        plan.lite = { credits_per_month = 200, overdraft_limit = 0 }
        plan.scale = { credits_per_month = 3300 }
        [[topups]]
        effective_from = "2024-01-01T00:00:00Z"
        packs = [{ amount_usd = "100", credits = 555 }, { amount_usd = "100.5", credits = 9000 }]
        "#,
    )
    .unwrap()
}
