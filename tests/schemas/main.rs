//! The schemas of what we write, held equal to the code: each member of a struct stands in its schema and the other
//! way round, what is always written is required, versions and names are the code's. That real records are valid
//! is tested here for what the wallet makes, and in the ledger's own tests for whole transactions.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod life;

use std::borrow::Cow;
use std::collections::BTreeSet;

use chrono::NaiveDate;
use creditstream::alert::{ALERT_FORMAT, Alert, AlertKind};
use creditstream::event::{EventKind, Fingerprint};
use creditstream::ledger::{Books, Outcome, PROGRESS_FORMAT, PartitionProgress, ShardProgress};
use creditstream::rate::{AssetType, Rate, UsdCents, VideoMillis};
use creditstream::time::{ShardClock, Timestamp};
use creditstream::wallet::{
    BucketTotals, ContractState, ContractTerms, Entry, EntryType, ExpiryWarning, GrantEffect, GrantKind,
    GrantState, GrantTerms, LEDGER_FORMAT, LedgerRecord, Level, Overdrawn, Pace, PlanTerms, SNAPSHOT_FORMAT,
    Wallet, WalletLimits, WalletSnapshot,
};
use life::{EVENTS, life, pricing};
use serde_json::{Value, json};
use smallvec::smallvec;

const LEDGER: &str = include_str!("../../config/schemas/ledger-record.schema.json");
const ALERT: &str = include_str!("../../config/schemas/alert.schema.json");
const SNAPSHOT: &str = include_str!("../../config/schemas/wallet-snapshot.schema.json");
const PROGRESS: &str = include_str!("../../config/schemas/progress.schema.json");

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
        grant_effects: smallvec![GrantEffect {
            grant_id: "plan:c1:0".into(),
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
        plan: "lite".into(),
        contract_id: "c1".into(),
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
        contract: Some(Box::new(ContractTerms {
            contract_id: text("c1"),
            plan: text("lite"),
            starts_at: now(),
            ends_at: now(),
            terms: vec![12],
            plans: vec![PlanTerms { from: now(), plan: text("lite") }],
            asked_plan: Some(PlanTerms { from: now(), plan: text("lite") }),
            is_cancelled: true,
        })),
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
        warning: Some(ExpiryWarning { days: 30, expires_at: now() }),
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
        written::<GrantEffect>(&json!({ "grant_id": "topup:t", "kind": "topup", "credits": 1 })),
    );
    required("grant_terms", written::<GrantTerms<'_>>(&json!({ "priority": 1, "granted_at": time })));
    let contract = json!({ "contract_id": "c", "plan": "lite", "starts_at": time, "ends_at": time, "terms": [], "plans": [] });
    required("contract_terms", written::<ContractTerms<'_>>(&contract));
    required("plan_terms", written::<PlanTerms<'_>>(&json!({ "from": time, "plan": "lite" })));
    required("wallet_limits", written::<WalletLimits>(&json!({})));
    required("expiry_warning", written::<ExpiryWarning>(&json!({ "days": 1, "expires_at": time })));
    required("bucket_totals", written::<BucketTotals>(&json!({ "hour": time, "part": 1, "jobs": 0 })));
}

/// What is always written of a struct, read from as little as it takes.
fn written<'a, T: serde::Deserialize<'a> + serde::Serialize>(least: &'a Value) -> Value {
    to_json(&T::deserialize(least).unwrap())
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
    let overdrawn = written::<Overdrawn>(&json!({ "since": time, "is_warned": false }));
    assert_required(&schema, &schema["$defs"]["overdrawn"], &overdrawn, "overdrawn");
    let pace = written::<Pace>(&json!({ "first_day": 1, "charged": [], "is_warned": false }));
    assert_required(&schema, &schema["$defs"]["pace"], &pace, "pace");
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
    let by_origin = json!([{
        "topic": "generation.events", "partition": 0, "outcomes": all_books(), "earlier": all_books()
    }]);
    let shard = ShardProgress {
        v: PROGRESS_FORMAT,
        batch: 1,
        clock: now(),
        group: "group".to_owned(),
        config_hash: "0123456789abcdef".to_owned(),
        origins: serde_json::from_value(origin.clone()).unwrap(),
        cuts: 1,
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
    let shard = to_json(&ShardProgress { origins: Vec::new(), cuts: 0, ..shard });
    let mut least_by_origin = by_origin[0].clone();
    least_by_origin.as_object_mut().unwrap().remove("earlier");
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
        ("origin_books", least_by_origin),
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
        alert_id: "w1:low:9".into(),
        kind: AlertKind::Level,
        level: Level::Low,
        level_before: Some(Level::Ok),
        seq: 9,
        raised_at: now(),
        available: 40,
        allocation: 200,
        plan: "lite".into(),
        amount: Some(40),
        days: Some(30),
        expires_at: Some(now()),
        contract_id: "c1".into(),
        job_id: "j1".into(),
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
    let (schema, page) = (schema(ALERT), include_str!("../../docs/alerts.md"));
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
    for text in [ALERT, LEDGER, SNAPSHOT, PROGRESS, include_str!("../../config/schemas/event.schema.json")] {
        jsonschema::meta::validate(&schema(text)).unwrap();
    }
}
