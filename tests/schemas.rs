//! The schemas of what we write, held equal to the code: each member of a struct stands in its schema and the other
//! way round, what is always written is required, versions and names are the code's. That real records are valid
//! is tested here for what the wallet makes, and in the ledger's own tests for whole transactions.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::convert::Infallible;
use std::sync::Arc;

use chrono::NaiveDate;
use creditstream::alert::{ALERT_FORMAT, Alert, AlertKind};
use creditstream::config::Config;
use creditstream::event::{
    Data, EventKind, EventRules, Fingerprint, IdentityKey, IncomingRecord, decode, fingerprint,
};
use creditstream::ledger::{Books, Outcome, PROGRESS_FORMAT, PartitionProgress, ShardProgress};
use creditstream::rate::{AssetType, Pricing, Rate, UsdCents, VideoMillis};
use creditstream::time::{PostedAt, ShardClock, Timestamp};
use creditstream::wallet::{
    BucketTotals, Cause, Command, ContractState, ContractTerms, Entry, EntryType, GrantEffect, GrantKind,
    GrantState, GrantTerms, JobHistory, JobMemo, JobName, LEDGER_FORMAT, LedgerRecord, Level, Moment, Origin,
    PlanTerms, Policy, SNAPSHOT_FORMAT, Wallet, WalletLimits, WalletSnapshot, apply, post_due, remember,
};
use serde_json::{Value, json};

const LEDGER: &str = include_str!("../config/schemas/ledger-record.schema.json");
const ALERT: &str = include_str!("../config/schemas/alert.schema.json");
const SNAPSHOT: &str = include_str!("../config/schemas/wallet-snapshot.schema.json");
const PROGRESS: &str = include_str!("../config/schemas/progress.schema.json");

fn schema(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn at(text: &str) -> Timestamp {
    Timestamp::parse(text).unwrap()
}

fn now() -> Timestamp {
    at("2026-11-03T10:15:30Z")
}

fn errors(schema: &Value, value: &Value) -> Vec<String> {
    let validator = jsonschema::options().should_validate_formats(true).build(schema).unwrap();
    validator.iter_errors(value).map(|error| format!("{error} at {}", error.instance_path())).collect()
}

fn assert_valid(schema: &Value, value: &Value) {
    assert_eq!(errors(schema, value), Vec::<String>::new(), "{value:#}");
}

fn names(object: &Value) -> BTreeSet<&str> {
    object.as_object().unwrap().keys().map(String::as_str).collect()
}

/// What a node says, its reference followed.
fn resolved<'s>(schema: &'s Value, node: &'s Value) -> &'s Value {
    match node["$ref"].as_str() {
        Some(reference) => &schema["$defs"][reference.strip_prefix("#/$defs/").unwrap()],
        None => node,
    }
}

/// Goal: schema and code have the same members. Method: of each struct a value with all members and one with as
/// few as possible; the first must have the schema's properties, the second its required ones.
fn assert_members(schema: &Value, node: &Value, full: &Value, place: &str) {
    let node = resolved(schema, node);
    match full {
        Value::Object(members) => {
            assert_eq!(names(&node["properties"]), names(full), "{place}");
            assert_eq!(node["additionalProperties"], json!(false), "{place}");
            for (name, member) in members {
                assert_members(schema, &node["properties"][name], member, &format!("{place}.{name}"));
            }
        }
        Value::Array(items) => assert_members(schema, &node["items"], &items[0], &format!("{place}[]")),
        _ => {}
    }
}

fn assert_required(schema: &Value, node: &Value, least: &Value, place: &str) {
    let node = resolved(schema, node);
    let required: BTreeSet<&str> =
        node["required"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    assert_eq!(required, names(least), "{place}");
}

fn to_json(value: &impl serde::Serialize) -> Value {
    serde_json::to_value(value).unwrap()
}

/// An entry with every member; without `..`, so that a new one cannot be forgotten here.
fn full_entry() -> Entry<'static> {
    let text = |text: &'static str| Cow::Borrowed(text);
    Entry {
        seq: 7,
        entry_type: EntryType::Charged,
        credits: -24,
        held_credits: -24,
        amount: 1,
        posted_at: now(),
        event_time: now(),
        event_type: text("generation.completed"),
        source: text("/s"),
        event_id: text("e1"),
        fingerprint: Fingerprint(0xabc),
        job_id: text("j1"),
        asset_id: text("a1"),
        asset_type: Some(AssetType::Video),
        model: text("m"),
        user_id: text("u"),
        project_id: text("p"),
        images: 4,
        video_seconds: VideoMillis(4_500),
        rate_card: text("card"),
        rate: Some(Rate(4_500_000)),
        grant_effects: vec![GrantEffect {
            grant_id: text("plan:c1:0"),
            kind: GrantKind::Plan,
            credits: -24,
            remaining_after: 176,
            repaid_after: 3,
            expires_at: Some(now()),
        }],
        balance_after: 176,
        held_after: 1,
        overdraft_after: 1,
        level: Level::Ok,
        plan: text("lite"),
        contract_id: text("c1"),
        period_start: NaiveDate::from_ymd_opt(2026, 11, 1),
        amount_usd: UsdCents(10_050),
        reason: text("goodwill"),
        actor: text("kim"),
        reference: text("ticket"),
        origin_topic: text("generation.events"),
        origin_partition: 3,
        origin_offset: 42,
        business_id: text("topup:t1"),
        grant: Some(GrantTerms {
            priority: 10,
            granted_at: now(),
            contract_id: text("c1"),
            month: Some(0),
            is_difference: true,
        }),
        contract: Some(ContractTerms {
            contract_id: text("c1"),
            plan: text("lite"),
            starts_at: now(),
            ends_at: now(),
            terms: vec![12],
            plans: vec![PlanTerms { from: now(), plan: text("lite") }],
            asked_plan: Some(PlanTerms { from: now(), plan: text("lite") }),
            is_cancelled: true,
        }),
        hold_until: Some(now()),
        overdraft_limit: Some(0),
        whole_job: true,
        limits: Some(WalletLimits {
            overdraft_limit: Some(1),
            is_unlimited: true,
            low_percent: Some(20),
            critical_percent: Some(5),
        }),
        bucket: Some(BucketTotals {
            hour: now(),
            part: 7,
            jobs: 1,
            images: 4,
            video_seconds: VideoMillis(4_500),
            credits_charged: 24,
            credits_reversed: 1,
            credits_refused: 1,
        }),
    }
}

#[test]
fn a_ledger_record_and_its_schema_have_the_same_members() {
    let schema = schema(LEDGER);
    let entry = full_entry();
    let full = LedgerRecord {
        v: LEDGER_FORMAT,
        wallet_id: "w1".into(),
        clock_day: NaiveDate::from_ymd_opt(2026, 11, 4),
        entries: vec![entry],
    };
    assert_members(&schema, &schema, &to_json(&full), "record");

    let time = json!(now());
    let required = |of: &str, least: Value| assert_required(&schema, &schema["$defs"][of], &least, of);
    let record = json!({ "v": 1, "wallet_id": "w1", "entries": [] });
    assert_required(&schema, &schema, &written::<LedgerRecord<'_>>(&record), "record");
    let least =
        json!({ "seq": 1, "entry_type": "charged", "posted_at": time, "event_time": time, "level": "ok" });
    required("entry", written::<Entry<'_>>(&least));
    required(
        "grant_effect",
        written::<GrantEffect<'_>>(&json!({ "grant_id": "topup:t", "kind": "topup", "credits": 1 })),
    );
    required("grant_terms", written::<GrantTerms<'_>>(&json!({ "priority": 1, "granted_at": time })));
    let contract = json!({ "contract_id": "c", "plan": "lite", "starts_at": time, "ends_at": time, "terms": [], "plans": [] });
    required("contract_terms", written::<ContractTerms<'_>>(&contract));
    required("plan_terms", written::<PlanTerms<'_>>(&json!({ "from": time, "plan": "lite" })));
    required("wallet_limits", written::<WalletLimits>(&json!({})));
    required("bucket_totals", written::<BucketTotals>(&json!({ "hour": time, "part": 1, "jobs": 0 })));
}

/// What is always written of a struct, read from as little as it takes.
fn written<'a, T: serde::Deserialize<'a> + serde::Serialize>(least: &'a Value) -> Value {
    to_json(&T::deserialize(least).unwrap())
}

/// A life that makes every type of entry, and all that a snapshot can show: the ledger records, and the snapshot after
/// each.
struct Life {
    policy: Policy,
    rules: EventRules,
    wallet: Wallet,
    /// Memos in their stored form, by key.
    jobs: HashMap<u128, Vec<u8>>,
    records: Vec<Value>,
    snapshots: Vec<Value>,
}

const EVENTS: [(&str, &str, &str); 27] = [
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

fn life() -> Life {
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
            post_due(&mut self.wallet, ShardClock(clock), PostedAt(clock), &self.policy).unwrap()
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

fn pricing() -> Pricing {
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

#[test]
fn what_the_wallet_posts_is_valid_and_shows_every_type_of_entry() {
    let schema = schema(LEDGER);
    let records = life().records;
    let mut types = BTreeSet::new();
    let mut members = BTreeSet::new();
    let mut of_records = BTreeSet::new();
    for record in &records {
        assert_valid(&schema, record);
        of_records.extend(names(record));
        for entry in record["entries"].as_array().unwrap() {
            types.insert(entry["entry_type"].as_str().unwrap().to_owned());
            members.extend(names(entry).into_iter().map(str::to_owned));
        }
    }
    assert_eq!(types, EntryType::ALL.map(|entry_type| entry_type.as_str().to_owned()).into());
    assert_eq!(
        members,
        names(&schema["$defs"]["entry"]["properties"]).into_iter().map(str::to_owned).collect()
    );
    assert_eq!(of_records, names(&schema["properties"]));
    let kinds: BTreeSet<&str> = EVENTS.iter().map(|(_, kind, _)| *kind).collect();
    assert_eq!(kinds, EventKind::NAMED.map(EventKind::as_str).into());
}

/// What folding or showing an entry of that type cannot do without.
fn needed_by(entry_type: &str) -> &'static [&'static str] {
    match entry_type {
        "contract_started" => &["contract", "business_id", "plan", "contract_id"],
        "contract_changed" | "contract_renewed" => &["contract", "plan", "contract_id"],
        "contract_ended" => &["plan", "contract_id"],
        "granted" => &["credits", "grant", "grant_effects"],
        "adjusted" => &["credits", "business_id", "reason", "actor"],
        "charged" => &["job_id", "asset_type", "rate_card", "rate", "bucket"],
        "refused" => &["amount", "job_id", "asset_type", "rate_card", "rate", "bucket"],
        "reversed" => &["job_id", "asset_type", "bucket"],
        "expired" => &["credits", "grant_effects"],
        "overdraft_repaid" => &["amount", "grant_effects"],
        "held" => &["held_credits", "hold_until", "job_id", "asset_type", "rate_card", "rate"],
        "released" => &["held_credits", "job_id"],
        "limits_changed" => &["limits"],
        _ => &[],
    }
}

#[test]
fn a_record_that_is_wrong_is_not_valid() {
    let schema = schema(LEDGER);
    let records = life().records;
    let charged = &records[0];
    for (place, value) in [
        ("/v", json!(2)),
        ("/wallet_id", json!("")),
        ("/entries", json!([])),
        ("/entries/0/seq", json!(0)),
        ("/entries/0/seq", json!("1")),
        ("/entries/0/entry_type", json!("spent")),
        ("/entries/0/credits", json!(1.5)),
        ("/entries/0/posted_at", json!("2026-11-03T10:15:30Z")),
        ("/entries/0/fingerprint", json!("xyz")),
        ("/entries/0/rate", json!(1)),
        ("/entries/0/rate", json!("1.50")),
        ("/entries/0/level", json!("fine")),
        ("/entries/0/asset_type", json!("video")),
        ("/entries/0/bucket", json!({})),
        ("/entries/0/job_id", json!("")),
    ] {
        let mut wrong = charged.clone();
        *wrong.pointer_mut(place).unwrap() = value.clone();
        assert!(!errors(&schema, &wrong).is_empty(), "{place} = {value}");
    }
    for entry_type in EntryType::ALL.map(EntryType::as_str) {
        let found = records.iter().flat_map(|record| record["entries"].as_array().unwrap());
        let found = found.filter(|entry| entry["entry_type"] == entry_type).collect::<Vec<_>>();
        for name in needed_by(entry_type) {
            let mut entry = found[0].clone();
            assert!(entry.as_object_mut().unwrap().remove(*name).is_some(), "{entry_type} has {name}");
            let wrong = json!({ "v": 1, "wallet_id": "w1", "entries": [entry] });
            assert!(!errors(&schema, &wrong).is_empty(), "{entry_type} without {name}");
        }
    }
    let mut more = charged.clone();
    more["entries"][0]["x"] = json!(1);
    assert!(!errors(&schema, &more).is_empty());
    for name in ["seq", "job_id", "bucket", "rate_card", "images"] {
        let mut less = charged.clone();
        less["entries"][0].as_object_mut().unwrap().remove(name);
        assert!(!errors(&schema, &less).is_empty(), "without {name}");
    }
}

#[test]
fn a_snapshot_and_its_schema_have_the_same_members() {
    let schema = schema(SNAPSHOT);
    let life = life();
    life.snapshots.iter().for_each(|snapshot| assert_valid(&schema, snapshot));
    // Contracts, grants and moments differ in what they have: together they have everything.
    let members = |of: &str| -> Value {
        let nested =
            life.snapshots.iter().flat_map(|snapshot| snapshot[of].as_array().cloned().unwrap_or_default());
        nested.flat_map(|one| one.as_object().unwrap().clone()).collect::<serde_json::Map<_, _>>().into()
    };
    let mut whole: Value = life
        .snapshots
        .iter()
        .flat_map(|one| one.as_object().unwrap().clone())
        .collect::<serde_json::Map<_, _>>()
        .into();
    whole["contracts"] = json!([members("contracts")]);
    whole["grants"] = json!([members("grants")]);
    whole["limits"] = to_json(&full_entry().limits);
    assert_members(&schema, &schema, &whole, "snapshot");
    let full = life.snapshots.last().unwrap();

    let empty = Wallet { seq: 1, ..Wallet::default() };
    let least = to_json(&WalletSnapshot::of("w1", &empty, ShardClock(now()), &pricing()));
    assert_valid(&schema, &least);
    assert_required(&schema, &schema, &least, "snapshot");
    let time = json!(now());
    let contract = json!({ "contract_id": "c", "starts_at": time, "ends_at": time, "terms": [], "plans": [], "granted": [] });
    assert_required(
        &schema,
        &schema["$defs"]["contract"],
        &written::<ContractState<'_>>(&contract),
        "contract",
    );
    let grant = json!({
        "grant_id": "topup:t", "kind": "topup", "credits_granted": 1, "credits_remaining": 1, "priority": 1,
        "granted_at": time, "made_seq": 1, "seq": 1, "touched_day": 0,
    });
    assert_required(&schema, &schema["$defs"]["grant"], &written::<GrantState<'_>>(&grant), "grant");
    for (name, value) in [
        ("balance", json!("5")),
        ("overdraft", json!(-1)),
        ("v", json!(2)),
        ("level", json!("")),
        ("x", json!(1)),
    ] {
        let mut wrong = full.clone();
        wrong[name] = value;
        assert!(!errors(&schema, &wrong).is_empty(), "{name}");
    }
}

fn all_books() -> Books {
    let mut books = Books::default();
    Outcome::ALL.into_iter().for_each(|outcome| books.count(outcome));
    books
}

#[test]
fn progress_and_its_schema_have_the_same_members() {
    let schema = schema(PROGRESS);
    let origin = json!([{ "topic": "generation.events", "topic_id": "id", "partition": 0, "offset": 7 }]);
    let by_origin = json!([{ "topic": "generation.events", "partition": 0, "outcomes": all_books() }]);
    let shard = ShardProgress {
        v: PROGRESS_FORMAT,
        batch: 1,
        clock: now(),
        group: "group".to_owned(),
        config_hash: "0123456789abcdef".to_owned(),
        origins: serde_json::from_value(origin.clone()).unwrap(),
    };
    let partition = PartitionProgress {
        v: PROGRESS_FORMAT,
        topic_id: "id".to_owned(),
        partitions: 12,
        at_home: true,
        offset: -1,
        outcomes: all_books(),
        by_origin: serde_json::from_value(by_origin.clone()).unwrap(),
        earlier: all_books(),
    };
    // What serde does not know of would be lost on this way.
    assert_eq!((to_json(&shard.origins), to_json(&partition.by_origin)), (origin.clone(), by_origin.clone()));
    let defs = &schema["$defs"];
    for (name, full) in [("shard", to_json(&shard)), ("partition", to_json(&partition))] {
        assert_valid(&schema, &full);
        assert_members(&schema, &defs[name], &full, name);
        let mut wrong = full.clone();
        wrong["x"] = json!(1);
        assert!(!errors(&schema, &wrong).is_empty(), "{name}");
    }
    let shard = to_json(&ShardProgress { origins: Vec::new(), ..shard });
    let partition = to_json(&PartitionProgress {
        by_origin: Vec::new(),
        outcomes: Books::default(),
        earlier: Books::default(),
        ..partition
    });
    for (name, least) in [
        ("shard", shard),
        ("partition", partition),
        ("origin", origin[0].clone()),
        ("origin_books", by_origin[0].clone()),
    ] {
        assert_required(&schema, &defs[name], &least, name);
    }
}

#[test]
fn an_alert_and_its_schema_have_the_same_members() {
    let schema = schema(ALERT);
    let full = to_json(&Alert {
        v: ALERT_FORMAT,
        wallet_id: "w1".into(),
        alert_id: "w1:low:3".into(),
        kind: AlertKind::Level,
        level: Level::Low,
        level_before: Some(Level::Ok),
        seq: 9,
        raised_at: now(),
        available: 40,
        allocation: 200,
        plan: "lite".into(),
    });
    assert_valid(&schema, &full);
    assert_members(&schema, &schema, &full, "alert");
    let least = json!({
        "v": 1, "wallet_id": "w1", "alert_id": "w1:runway:3", "kind": "runway", "level": "ok", "seq": 1,
        "raised_at": now(), "available": 0, "allocation": 0
    });
    assert_required(&schema, &schema, &written::<Alert<'_>>(&least), "alert");
    assert_eq!(schema["properties"]["v"]["const"], json!(ALERT_FORMAT));
    assert_eq!(schema["properties"]["kind"]["enum"], to_json(&AlertKind::ALL));
    assert_eq!(schema["$defs"]["level"]["enum"], json!(Level::ALL.map(Level::as_str)));
}

#[test]
fn every_example_of_an_alert_in_the_documentation_is_one() {
    let (schema, page) = (schema(ALERT), include_str!("../docs/alerts.md"));
    let examples: Vec<&str> =
        page.split("```json").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    let mut kinds = BTreeSet::new();
    for example in examples {
        let value: Value = serde_json::from_str(example).unwrap();
        assert_valid(&schema, &value);
        assert_eq!(
            to_json(&serde_json::from_str::<Alert<'_>>(example).unwrap()),
            value,
            "nothing is left out"
        );
        kinds.insert(value["kind"].as_str().unwrap().to_owned());
    }
    assert_eq!(kinds.len(), AlertKind::ALL.len(), "an example of each kind: {kinds:?}");
}

#[test]
fn versions_and_names_in_the_schemas_are_those_of_the_code() {
    let (ledger, snapshot, progress) = (schema(LEDGER), schema(SNAPSHOT), schema(PROGRESS));
    assert_eq!(ledger["properties"]["v"]["const"], json!(LEDGER_FORMAT));
    assert_eq!(snapshot["properties"]["v"]["const"], json!(SNAPSHOT_FORMAT));
    for of in ["shard", "partition"] {
        assert_eq!(progress["$defs"][of]["properties"]["v"]["const"], json!(PROGRESS_FORMAT));
    }
    let entry = &ledger["$defs"]["entry"]["properties"];
    assert_eq!(entry["entry_type"]["enum"], json!(EntryType::ALL.map(EntryType::as_str)));
    assert_eq!(entry["asset_type"]["enum"], json!([AssetType::Image.as_str(), AssetType::Video.as_str()]));
    let kinds = [GrantKind::Plan, GrantKind::Topup, GrantKind::Adjustment].map(GrantKind::as_str);
    for schema in [&ledger, &snapshot] {
        assert_eq!(schema["$defs"]["level"]["enum"], json!(Level::ALL.map(Level::as_str)));
        assert_eq!(schema["$defs"]["grant_kind"]["enum"], json!(kinds));
    }
    let outcomes: BTreeSet<&str> = Outcome::ALL.map(Outcome::as_str).into();
    assert_eq!(names(&progress["$defs"]["books"]["properties"]), outcomes);
}

#[test]
fn every_schema_is_itself_valid() {
    for text in [ALERT, LEDGER, SNAPSHOT, PROGRESS, include_str!("../config/schemas/event.schema.json")] {
        jsonschema::meta::validate(&schema(text)).unwrap();
    }
}
