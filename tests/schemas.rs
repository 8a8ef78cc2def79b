//! The schemas of what we write, held equal to the code: each member of a struct stands in its schema and the other
//! way round, what is always written is required, versions and names are the code's. That real records are valid
//! is tested here for what the wallet makes, and in the ledger's own tests for whole transactions.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

use chrono::NaiveDate;
use creditstream::config::Config;
use creditstream::event::{EventRules, Fingerprint, IncomingRecord, SourceKind, decode, fingerprint};
use creditstream::ledger::{Books, Outcome, PROGRESS_FORMAT, PartitionProgress, ShardProgress};
use creditstream::rate::{AssetType, Pricing, Rate, UsdCents, VideoMillis};
use creditstream::time::{PostedAt, ShardClock, Timestamp};
use creditstream::wallet::{
    BucketTotals, Cause, Command, ContractTerms, Entry, EntryType, GrantEffect, GrantKind, GrantTerms,
    JobHistory, LEDGER_FORMAT, LedgerRecord, Level, Moment, Origin, Policy, SNAPSHOT_FORMAT, Wallet,
    WalletSnapshot, apply,
};
use serde_json::{Value, json};

const LEDGER: &str = include_str!("../config/schemas/ledger-record.schema.json");
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
        grant: Some(GrantTerms { priority: 10, granted_at: now(), contract_id: text("c1"), month: Some(0) }),
        contract: Some(ContractTerms {
            contract_id: text("c1"),
            plan: text("lite"),
            starts_at: now(),
            ends_at: now(),
            term_months: 12,
            allocation: 200,
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
    let full = LedgerRecord { v: LEDGER_FORMAT, wallet_id: "w1".into(), entries: vec![entry.clone()] };
    assert_members(&schema, &schema, &to_json(&full), "record");
    assert_required(&schema, &schema, &to_json(&full), "record");

    let least = r#"{"seq":1,"entry_type":"charged","posted_at":"2026-11-03T10:15:30.000Z","event_time":"2026-11-03T10:15:30.000Z","level":"ok"}"#;
    let least: Entry<'_> = serde_json::from_str(least).unwrap();
    let defs = &schema["$defs"];
    assert_required(&schema, &defs["entry"], &to_json(&least), "entry");
    let effect = GrantEffect { remaining_after: 0, expires_at: None, ..entry.grant_effects[0].clone() };
    assert_required(&schema, &defs["grant_effect"], &to_json(&effect), "grant_effect");
    let terms = GrantTerms { contract_id: "".into(), month: None, ..entry.grant.unwrap() };
    assert_required(&schema, &defs["grant_terms"], &to_json(&terms), "grant_terms");
    assert_required(&schema, &defs["contract_terms"], &to_json(&entry.contract), "contract_terms");
    let none = json!({ "hour": now(), "part": 1, "jobs": 0 });
    let totals: BucketTotals = serde_json::from_value(none.clone()).unwrap();
    assert_eq!(to_json(&totals), none);
    assert_required(&schema, &defs["bucket_totals"], &none, "bucket_totals");
}

/// A wallet that has all that a snapshot can show, and the ledger records that made it.
fn history() -> (Wallet, Vec<Value>) {
    let config = Config::default();
    let policy = Policy::new(&config, Arc::new(pricing()));
    let rules = EventRules::new(&config.events);
    let mut wallet = Wallet::default();
    let mut records = Vec::new();
    for (number, (kind, data)) in [
        ("generation.completed", r#"{"job_id":"j1","asset":"image","images":4,"user_id":"u","project_id":"p"}"#),
        ("topup.purchased", r#"{"topup_id":"t1","amount_usd":100,"reference":"invoice"}"#),
        ("contract.started", r#"{"contract_id":"c1","plan":"lite","starts_at":"2026-11-01T00:00:00Z","reference":"x"}"#),
        ("wallet.adjusted", r#"{"adjustment_id":"a1","credits":50,"reason":"r","actor":"k","expires_at":"2027-01-01T00:00:00Z"}"#),
        ("wallet.adjusted", r#"{"adjustment_id":"a2","credits":-5,"reason":"r","actor":"k","reference":"ticket"}"#),
        ("generation.completed", r#"{"job_id":"j2","asset_id":"a","asset":"video","seconds":8.5,"model":"veo-3"}"#),
        ("generation.completed", r#"{"job_id":"j3","asset":"image","images":1,"model":"gratis"}"#),
        ("generation.completed", r#"{"job_id":"j4","asset":"image","images":9000}"#),
        ("wallet.adjusted", r#"{"adjustment_id":"a3","credits":-5000,"reason":"r","actor":"k"}"#),
        ("topup.purchased", r#"{"topup_id":"t2","amount_usd":100.5}"#),
    ]
    .into_iter()
    .enumerate()
    {
        let value = format!(
            r#"{{"specversion":"1.0","id":"e{number}","source":"/s","type":"{kind}","subject":"w1","time":"2026-11-03T10:15:30Z","data":{data}}}"#
        );
        let source_kind = if kind == "generation.completed" { SourceKind::Generation } else { SourceKind::Wallet };
        let incoming = IncomingRecord { source_kind, value: Some(value.as_bytes()), headers: &[] };
        let event = decode(&incoming, &rules).unwrap();
        let data = event.data.as_ref().unwrap().as_ref().unwrap();
        let command = Command::price(data, event.time, JobHistory::default(), &policy.pricing).unwrap();
        let cause = Cause {
            event_type: event.kind.as_str(),
            source: &event.source,
            event_id: &event.id,
            fingerprint: fingerprint(event.kind, event.time, data),
            origin: Origin { topic: "generation.events", partition: 0, offset: 0 },
            moment: Moment { event_time: event.time, clock: ShardClock(now()), posted_at: PostedAt(now()) },
        };
        let entries = apply(&mut wallet, &cause, &command, &policy).unwrap();
        records.push(to_json(&LedgerRecord { v: LEDGER_FORMAT, wallet_id: "w1".into(), entries }));
    }
    (wallet, records)
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
    let (_, records) = history();
    let mut types = BTreeSet::new();
    let mut members = BTreeSet::new();
    for record in &records {
        assert_valid(&schema, record);
        for entry in record["entries"].as_array().unwrap() {
            types.insert(entry["entry_type"].as_str().unwrap().to_owned());
            members.extend(names(entry).into_iter().map(str::to_owned));
        }
    }
    assert_eq!(types, EntryType::ALL.map(|entry_type| entry_type.as_str().to_owned()).into());
    // Nothing is held before the next release.
    let never: Vec<&str> = names(&schema["$defs"]["entry"]["properties"])
        .into_iter()
        .filter(|name| !members.contains(*name))
        .collect();
    assert_eq!(never, ["held_after", "held_credits"]);
}

#[test]
fn a_record_that_is_wrong_is_not_valid() {
    let schema = schema(LEDGER);
    let (_, records) = history();
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
    let (wallet, _) = history();
    let full = to_json(&WalletSnapshot::of("w1", &wallet, ShardClock(now())));
    assert_valid(&schema, &full);
    // Grants differ in what they have: together they have everything.
    let mut whole = full.clone();
    let merged = full["grants"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|grant| grant.as_object().unwrap().clone())
        .collect();
    whole["grants"] = json!([Value::Object(merged)]);
    assert_members(&schema, &schema, &whole, "snapshot");

    let empty = Wallet { seq: 1, ..Wallet::default() };
    let least = to_json(&WalletSnapshot::of("w1", &empty, ShardClock(now())));
    assert_valid(&schema, &least);
    assert_required(&schema, &schema, &least, "snapshot");
    assert_required(&schema, &schema["$defs"]["contract"], &full["contracts"][0], "contract");
    let topup = wallet.grants.iter().position(|grant| &*grant.grant_id == "topup:t2").unwrap();
    let mut grant = full["grants"][topup].clone();
    // An adjustment without expiry has as little as a grant can have.
    for optional in ["amount_usd", "credits_repaid"] {
        grant.as_object_mut().unwrap().remove(optional);
    }
    assert_required(&schema, &schema["$defs"]["grant"], &grant, "grant");
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
    let partition =
        to_json(&PartitionProgress { by_origin: Vec::new(), outcomes: Books::default(), ..partition });
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
    for text in [LEDGER, SNAPSHOT, PROGRESS, include_str!("../config/schemas/event.schema.json")] {
        jsonschema::meta::validate(&schema(text)).unwrap();
    }
}
