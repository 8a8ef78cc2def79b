//! The sink against the real engine and the real broker (`stack/`), and against servers that misbehave.
//!
//! Method: each test has a database, topics and a consumer group of its own, with random names. A component
//! that is not there fails the test; nothing is skipped.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod cluster;
mod days;
mod faults;
mod samples;
mod servers;
mod world;

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use creditstream::sink::guard::FoldGuard;
use creditstream::sink::insert::FrozenInsert;
use creditstream::sink::migrate::{MIGRATIONS, Migration, MigrationError, MigrationReport, migrate_with};
use creditstream::sink::record::{Record, Source};
use creditstream::sink::{migrate, rows, tables};
use creditstream::wallet::EntryType;
use rdkafka::producer::Producer;
use samples::{EVERY_TYPE, FULL_ENTRY, SNAPSHOT, alerts, charges, quarantined, record};
use servers::{Fault, FaultyFront, Gate, failing_server};
use tokio::net::TcpListener;
use world::{PATIENCE, World};

fn blocks_of(world: &World, records: &[Record]) -> Vec<FrozenInsert> {
    let none = std::collections::HashSet::new();
    let rows = rows::build(records, &world.config.topics, &mut FoldGuard::default(), &none);
    assert!(rows.stops.is_empty(), "{:?}", rows.stops);
    rows.blocks.iter().map(FrozenInsert::new).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn migrating_twice_and_from_many_places_at_once_ends_as_migrating_once() {
    let world = World::new();
    let config = &world.config.clickhouse;
    let (one, two, three, four) =
        tokio::join!(migrate(config), migrate(config), migrate(config), migrate(config));
    for report in [one, two, three, four] {
        let MigrationReport { applied, present } = report.unwrap();
        assert_eq!(applied.len() + present.len(), MIGRATIONS.len());
    }
    let again = migrate(config).await.unwrap();
    let all = MIGRATIONS.iter().map(|migration| migration.name.to_owned()).collect();
    assert_eq!(again, MigrationReport { applied: vec![], present: all });
    let recorded: String =
        MIGRATIONS.iter().map(|migration| format!("{}\t{}\n", migration.version, migration.name)).collect();
    let sql = "SELECT version, name FROM schema_migrations FINAL ORDER BY version";
    assert_eq!(world.query(sql).await, recorded);
}

/// How a database is made, without its name.
async fn schema_of(world: &World) -> String {
    let sql = "SELECT create_table_query FROM system.tables WHERE database = currentDatabase() ORDER BY name";
    let schema = world.query_as(sql, "TSVRaw").await.unwrap();
    schema.replace(&world.config.clickhouse.database, "credits")
}

/// A database of every earlier version ends as one from scratch does, and keeps what it holds.
#[tokio::test(flavor = "multi_thread")]
async fn from_each_earlier_version_the_schema_becomes_the_same() {
    let from_empty = schema_of(&World::migrated().await).await;
    for version in 1..MIGRATIONS.len() {
        let world = World::new();
        let config = &world.config.clickhouse;
        migrate_with(config, &MIGRATIONS[..version]).await.unwrap();
        for insert in &blocks_of(&world, &charges("ws_1", 1..=3)) {
            world.clickhouse().insert(insert).await.unwrap();
        }
        let report = migrate(config).await.unwrap();
        assert_eq!((report.present.len(), report.applied.len()), (version, MIGRATIONS.len() - version));
        assert_eq!(schema_of(&world).await, from_empty, "from version {version}");
        assert_eq!(world.query("SELECT count(), sum(credits) FROM ledger_entries FINAL").await, "3\t-6\n");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_whose_record_is_missing_is_an_error() {
    let world = World::migrated().await;
    world.query("DELETE FROM schema_migrations WHERE version = 2").await;
    let error = migrate(&world.config.clickhouse).await.unwrap_err();
    assert!(matches!(&error, MigrationError::Missing { name, .. } if name == "0002_days"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_another_build_migrated_is_left_alone() {
    let world = World::migrated().await;
    let edited =
        [Migration { sql: "CREATE TABLE IF NOT EXISTS other (x Int8) ENGINE = Log;\n", ..MIGRATIONS[0] }];
    let error = migrate_with(&world.config.clickhouse, &edited).await.unwrap_err();
    assert!(matches!(error, MigrationError::ChecksumDiffers { .. }), "{error}");
    assert!(error.to_string().contains("0001_tables"), "{error}");
    let error = migrate_with(&world.config.clickhouse, &[]).await.unwrap_err();
    assert!(matches!(error, MigrationError::SchemaIsNewer { version: 1, known: 0, .. }), "{error}");
    assert_eq!(world.query("EXISTS TABLE other").await, "0\n");
}

/// A crash between the statements and the record of a migration: the next run finishes it.
#[tokio::test(flavor = "multi_thread")]
async fn a_migration_that_was_cut_off_is_finished() {
    let world = World::migrated().await;
    world.query("DROP TABLE grants").await;
    world.query("TRUNCATE TABLE schema_migrations").await;
    let applied = migrate(&world.config.clickhouse).await.unwrap().applied;
    assert_eq!(applied.len(), MIGRATIONS.len());
    assert_eq!(world.query("EXISTS TABLE grants").await, "1\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sink_writes_exactly_the_columns_that_the_migrations_make() {
    let world = World::migrated().await;
    for schema in tables::ALL {
        let described = world
            .query(&format!(
                "SELECT name, type, comment != '', compression_codec != '' FROM system.columns \
                 WHERE database = currentDatabase() AND table = '{}' ORDER BY position FORMAT TSVRaw",
                schema.table
            ))
            .await;
        let expected: String = schema
            .columns
            .iter()
            .map(|(name, kind)| format!("{name}\t{}\t1\t1\n", kind.in_table()))
            .collect();
        assert_eq!(described, expected, "{}", schema.table);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_field_arrives_in_its_column_and_the_same_batch_twice_reads_the_same() {
    let world = World::migrated().await;
    let mut records = vec![
        Record { offset: 5, ..record(Source::Ledger, 2, "ws_42", FULL_ENTRY) },
        record(Source::Wallets, 2, "ws_42", SNAPSHOT),
    ];
    records.extend(quarantined());
    records[3].offset = 8;
    records.extend(alerts());
    let clickhouse = world.clickhouse();
    let inserts = blocks_of(&world, &records);
    for insert in &inserts {
        clickhouse.insert(insert).await.unwrap();
    }
    let once = world.everything().await;
    let shown = once.replace(&world.config.topics.quarantine, "credits.quarantine");
    insta::assert_snapshot!("every_field_arrives_in_its_column", shown);
    for insert in &inserts {
        clickhouse.insert(insert).await.unwrap();
    }
    assert_eq!(world.query("SELECT count() FROM ledger_entries").await, "2\n", "the second insert was real");
    assert_eq!(world.everything().await, once);
    for schema in tables::ALL {
        world.query(&format!("OPTIMIZE TABLE {} FINAL", schema.table)).await;
    }
    assert_eq!(world.everything().await, once);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_entries_of_all_wallets_are_asked_for_at_once_where_they_are_not_too_many() {
    let world = World::migrated().await;
    let clickhouse = world.clickhouse();
    let records = (1..=300).flat_map(|number| charges(&format!("ws_{number}"), 1..=2)).collect::<Vec<_>>();
    for insert in &blocks_of(&world, &records) {
        clickhouse.insert(insert).await.unwrap();
    }
    let all = clickhouse.all_last_entries(300).await.unwrap();
    assert_eq!((all.len(), all.iter().all(|(_, stored)| stored.seq == 2)), (300, true));
    let some = clickhouse.last_entries(&["ws_7", "ws_none"]).await.unwrap();
    assert_eq!(some, all.into_iter().filter(|(wallet_id, _)| wallet_id == "ws_7").collect::<Vec<_>>());
    assert_eq!(clickhouse.all_last_entries(299).await, None);
    world.query("DROP TABLE ledger_entries").await;
    assert_eq!(clickhouse.all_last_entries(300).await, None, "whoever asks by the batch then hears why");
}

/// What all wallets have is asked once, before the first batch; no batch after it is worth a question.
#[tokio::test(flavor = "multi_thread")]
async fn a_sink_asks_once_for_the_last_entries_of_all_wallets() {
    let world = World::whole().await;
    let front = FaultyFront::before(&world.config.clickhouse.url, Fault::None).await;
    let mut config = world.config.clone();
    config.clickhouse.url = front.url.clone();
    for (begins, entries) in [("0", 3), ("3", 6)] {
        assert_eq!(world.query("SELECT count() FROM ledger_entries").await.trim_end(), begins);
        let running = world.start_with(config.clone());
        for batch in 1..=3 {
            let seq = entries - 3 + batch;
            world.produce(&charges("ws_1", seq..=seq));
            world.until("SELECT count() FROM ledger_entries", &seq.to_string()).await;
        }
        running.stop().await;
    }
    let questions = front.questions_with("AS last_seq");
    assert_eq!(questions.len(), 2, "one for each start: {questions:#?}");
    assert!(questions.iter().all(|question| !question.contains("WHERE")), "{questions:#?}");
}

/// Goal: no type of entry is one that the sink does not know. Method: a wallet's life with each of them, valid by the
/// schema of the ledger, arrives whole; its sums close, and what was given back stands in the usage.
#[tokio::test(flavor = "multi_thread")]
async fn every_type_of_entry_arrives_and_the_sums_close() {
    let schema =
        serde_json::from_str(include_str!("../../config/schemas/ledger-record.schema.json")).unwrap();
    let faults: Vec<String> = jsonschema::validator_for(&schema)
        .unwrap()
        .iter_errors(&serde_json::from_str(EVERY_TYPE).unwrap())
        .map(|error| format!("{error} at {}", error.instance_path()))
        .collect();
    assert_eq!(faults, Vec::<String>::new());
    let world = World::migrated().await;
    for insert in &blocks_of(&world, &[record(Source::Ledger, 2, "ws_7", EVERY_TYPE)]) {
        world.clickhouse().insert(insert).await.unwrap();
    }
    let types = world.query("SELECT DISTINCT entry_type FROM ledger_entries ORDER BY seq").await;
    let mut known = EntryType::ALL.map(EntryType::as_str);
    let mut found: Vec<&str> = types.lines().collect();
    known.sort_unstable();
    found.sort_unstable();
    assert_eq!(found, known);
    let closes = "SELECT countIf(balance_after != balance), countIf(held_after != held), max(seq) FROM \
                  (SELECT seq, balance_after, held_after, sum(credits) OVER (ORDER BY seq) AS balance, \
                  sum(held_credits) OVER (ORDER BY seq) AS held FROM ledger_entries FINAL)";
    assert_eq!(world.query(closes).await, "0\t0\t16\n");
    let usage = "SELECT jobs, images, credits_charged, credits_reversed, credits_refused, seq FROM usage_hourly FINAL";
    assert_eq!(world.query(usage).await, "1\t4\t4\t4\t4\t12\n");
    let told = "SELECT entry_type, amount, job_id, asset_id, reason, period_start, grant_effects.grant_id, origin_offset \
                FROM ledger_entries FINAL WHERE entry_type IN ('reversed', 'expired', 'released', 'noted', 'held') \
                OR seq = 10 ORDER BY seq";
    assert_eq!(
        world.query(told).await,
        "held\t0\tj\t\t\t\\N\t[]\t9\n\
         released\t0\tj\t\tuser left\t\\N\t[]\t9\n\
         granted\t0\t\t\t\t2026-11-01\t['plan:c:0+10']\t0\n\
         reversed\t0\tj\ta\tartefacts\t\\N\t['plan:c:0+10']\t9\n\
         noted\t0\tx\t\tunknown_job\t\\N\t[]\t9\n\
         expired\t0\t\t\t\t\\N\t['plan:c:0+10']\t0\n"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_kafka_holds_arrives_once_and_a_replay_from_the_beginning_changes_nothing() {
    let world = World::whole().await;
    let mut records = charges("ws_1", 1..=300);
    records.extend(charges("ws_2", 1..=200));
    records.push(record(Source::Wallets, 0, "ws_42", SNAPSHOT));
    records.extend(alerts());
    records.extend(quarantined());
    world.produce(&records);

    let running = world.start();
    world.until("SELECT count(), sum(credits) FROM ledger_entries FINAL", "500\t-65250").await;
    world.until("SELECT count() FROM quarantined_events FINAL", "2").await;
    world.until("SELECT count() FROM grants FINAL", "2").await;
    world.until("SELECT count(), sum(amount) FROM alerts FINAL", "2\t60").await;
    let text = running.metrics.encode();
    assert!(text.contains(r#"creditstream_clickhouse_rows_total{table="ledger_entries"} 500"#), "{text}");
    // What comes later is added; a second copy of an entry is passed over.
    world.produce(&charges("ws_1", 300..=301));
    // Offset 500 is the marker of the first transaction.
    world.until("SELECT count(), max(ledger_offset) FROM ledger_entries", "501\t502").await;
    running.until_no_lag(&world.config.topics.ledger).await;
    let took = running.stop().await;
    assert!(took < Duration::from_secs(2), "{took:?}");
    let once = world.everything().await;
    let usage =
        "SELECT wallet_id, jobs, images, credits_charged, seq FROM usage_hourly FINAL ORDER BY wallet_id";
    assert_eq!(world.query(usage).await, "ws_1\t301\t45451\t45451\t301\nws_2\t200\t20100\t20100\t200\n");

    // The same group goes on where it was: nothing is written again.
    let running = world.start();
    world.produce(&charges("ws_3", 1..=1));
    world.until("SELECT count() FROM ledger_entries", "502").await;
    running.stop().await;

    // Another group reads everything again.
    let mut config = world.config.clone();
    config.sink.group.push_str("-again");
    let running = world.start_with(config);
    world.until("SELECT count() > 900, uniqExact(wallet_id, seq) FROM ledger_entries", "1\t502").await;
    world.until("SELECT count() > 2 FROM quarantined_events", "1").await;
    world.until("SELECT count() > 2 FROM alerts", "1").await;
    running.stop().await;
    let again = world.everything().await;
    let without_ws_3: String =
        again.lines().filter(|line| !line.contains("ws_3")).map(|line| format!("{line}\n")).collect();
    assert_eq!(without_ws_3, once);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_transaction_wrote_counts_only_once_it_is_committed() {
    let world = World::whole().await;
    let running = world.start();
    world.send(&charges("ws_1", 1..=10)).abort_transaction(PATIENCE).unwrap();
    world.produce(&charges("ws_1", 1..=5));
    let open = world.send(&charges("ws_1", 6..=7));
    world.until("SELECT count(), max(seq) FROM ledger_entries", "5\t5").await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(world.query("SELECT count() FROM ledger_entries").await, "5\n");
    open.commit_transaction(PATIENCE).unwrap();
    world.until("SELECT count(), sum(credits) FROM ledger_entries", "7\t-28").await;
    running.stop().await;
}

/// More months in one batch than ClickHouse takes by default: refused, they would be tried for ever.
#[tokio::test(flavor = "multi_thread")]
async fn records_of_many_months_are_taken() {
    let world = World::migrated().await;
    let months = (0..150).map(|month| {
        let mut record = quarantined().remove(0);
        let time = format!("{}-{:02}-01T00:00:00Z", 2000 + month / 12, 1 + month % 12);
        record.headers.push(("cs_time".into(), time.as_bytes().into()));
        record.headers.push(("cs_offset".into(), month.to_string().as_bytes().into()));
        record
    });
    let insert = blocks_of(&world, &months.collect::<Vec<_>>()).remove(0);
    world.clickhouse().insert(&insert).await.unwrap();
    assert_eq!(
        world.query("SELECT count(), uniqExact(_partition_id) FROM quarantined_events").await,
        "150\t150\n"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gap_stops_its_partition_and_the_others_go_on() {
    let world = World::whole().await;
    let mut records = charges("ws_1", 1..=2);
    records.extend(charges("ws_1", 4..=5));
    let elsewhere = |mut record: Record| {
        record.from.partition = 1;
        record
    };
    records.extend(charges("ws_9", 1..=3).into_iter().map(elsewhere));
    world.produce(&records);
    let running = world.start();
    world
        .until("SELECT wallet_id, max(seq) FROM ledger_entries GROUP BY 1 ORDER BY 1", "ws_1\t2\nws_9\t3")
        .await;
    world.produce(&charges("ws_9", 4..=4).into_iter().map(elsewhere).collect::<Vec<_>>());
    world
        .until("SELECT wallet_id, max(seq) FROM ledger_entries GROUP BY 1 ORDER BY 1", "ws_1\t2\nws_9\t4")
        .await;
    let text = running.metrics.encode();
    assert!(text.contains(r#"creditstream_shard_stopped{reason="sink",shard="0"} 1"#), "{text}");
    running.stop().await;
}

/// An alert that an aborted transaction wrote was never raised.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_alert_stops_the_alerts_of_its_partition_and_nothing_else() {
    let world = World::whole().await;
    world.send(&alerts()[1..]).abort_transaction(PATIENCE).unwrap();
    let on = |partition, mut record: Record| {
        record.from.partition = partition;
        record
    };
    let [level, warning]: [Record; 2] = alerts().try_into().unwrap();
    world.produce(&[level, record(Source::Alerts, 1, "ws_42", "{}"), warning.clone()]);
    let running = world.start();
    let found = "SELECT groupArray(alert_id) FROM (SELECT alert_id FROM alerts ORDER BY alert_id)";
    world.until(found, "['ws_42:low:1207']").await;
    let mut records: Vec<Record> = charges("ws_1", 1..=3).into_iter().map(|record| on(1, record)).collect();
    records.push(on(0, warning));
    world.produce(&records);
    world.until("SELECT count() FROM ledger_entries", "3").await;
    world.until(found, "['ws_42:expiring:1209','ws_42:low:1207']").await;
    assert_eq!(world.query("SELECT count() FROM alerts").await, "2\n");
    let text = running.metrics.encode();
    assert!(text.contains(r#"creditstream_shard_stopped{reason="sink",shard="1"} 1"#), "{text}");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_clickhouse_is_away_nothing_is_lost_and_the_sink_catches_up_by_itself() {
    let world = World::whole().await;
    let gate = Gate::before(&world.config.clickhouse.url).await;
    let mut config = world.config.clone();
    config.clickhouse.url = gate.url.clone();
    config.sink.batch_records_max = 50;
    gate.is_open.store(false, Ordering::SeqCst);
    let running = world.start_with(config);
    world.produce(&charges("ws_1", 1..=1000));
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(world.query("SELECT count() FROM ledger_entries").await, "0\n");
    assert!(!running.task.is_finished());
    gate.is_open.store(true, Ordering::SeqCst);
    world.until("SELECT count() > 100 FROM ledger_entries FINAL", "1").await;
    // Again in the middle of it: connections break, whatever they are doing.
    gate.is_open.store(false, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_millis(300)).await;
    gate.is_open.store(true, Ordering::SeqCst);
    world
        .until("SELECT count(), max(seq), sum(credits) FROM ledger_entries FINAL", "1000\t1000\t-500500")
        .await;
    world.until("SELECT credits_charged FROM usage_hourly FINAL", "500500").await;
    let text = running.metrics.encode();
    assert!(!text.contains(r#"clickhouse_errors_total{kind="unreachable"} 0"#), "{text}");
    // Shutdown while it is away again.
    gate.is_open.store(false, Ordering::SeqCst);
    world.produce(&charges("ws_1", 1001..=1100));
    tokio::time::sleep(Duration::from_millis(300)).await;
    let took = running.stop().await;
    assert!(took < Duration::from_secs(2), "{took:?}");
    // What was under way then was not committed: the next one writes it.
    let running = world.start();
    world.until("SELECT count(), max(seq) FROM ledger_entries FINAL", "1100\t1100").await;
    running.stop().await;
    gate.task.abort();
}

/// A second instance takes over half of the partitions, then all: each entry is there, none was lost on the way.
#[tokio::test(flavor = "multi_thread")]
async fn instances_that_come_and_go_lose_nothing() {
    let world = World::whole().await;
    let mut config = world.config.clone();
    config.sink.batch_records_max = 20;
    let on = |partition, mut record: Record| {
        record.from.partition = partition;
        record
    };
    let first = world.start_with(config.clone());
    let produce = |seqs: std::ops::RangeInclusive<u64>| {
        let mut records: Vec<Record> = charges("ws_1", seqs.clone());
        records.extend(charges("ws_2", seqs).into_iter().map(|record| on(1, record)));
        world.produce(&records);
    };
    produce(1..=500);
    let second = world.start_with(config);
    produce(501..=1000);
    world.until("SELECT uniqExact(wallet_id, seq) > 1000 FROM ledger_entries", "1").await;
    first.stop().await;
    produce(1001..=1500);
    world
        .until("SELECT count(), sum(credits), max(seq) FROM ledger_entries FINAL", "3000\t-2251500\t1500")
        .await;
    world
        .until(
            "SELECT wallet_id, credits_charged FROM usage_hourly FINAL ORDER BY 1",
            "ws_1\t1125750\nws_2\t1125750",
        )
        .await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_that_waiting_cannot_mend_stops_the_sink_and_says_what_to_do() {
    let world = World::whole().await;
    world.query("DROP TABLE usage_hourly").await;
    world.produce(&charges("ws_1", 1..=1));
    let running = world.start();
    let error = tokio::time::timeout(PATIENCE, running.task).await.unwrap().unwrap().unwrap_err();
    let text = error.to_string();
    assert!(text.contains("usage_hourly") && text.contains("creditstream init"), "{text}");
    let metrics = running.metrics.encode();
    assert!(metrics.contains(r#"creditstream_clickhouse_errors_total{kind="permanent"} 1"#), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_permanent() {
    let mut world = World::migrated().await;
    let right = world.config.clickhouse.user.clone();
    world.config.clickhouse.user = "nobody".to_owned();
    let insert = blocks_of(&world, &charges("ws_1", 1..=1)).remove(0);
    let error = world.clickhouse().insert(&insert).await.unwrap_err();
    assert_eq!(error.source.code(), Some(516), "{error}");
    let error = migrate(&world.config.clickhouse).await.unwrap_err();
    assert!(matches!(error, MigrationError::Refused { .. }), "{error}");
    world.config.clickhouse.user = right;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_try_sends_the_same_bytes() {
    let mut world = World::new();
    let insert = blocks_of(&world, &charges("ws_1", 1..=5000)).remove(0);
    assert!(insert.body().len() > 1_000_000, "more than one piece");
    let url = std::mem::take(&mut world.config.clickhouse.url);
    let (failing, requests) =
        failing_server(2, "Code: 252. DB::Exception: Too many parts. (TOO_MANY_PARTS)").await;
    world.config.clickhouse.url = failing;
    world.clickhouse().insert(&insert).await.unwrap();
    let requests = requests.lock().unwrap().clone();
    assert_eq!(requests.len(), 3);
    assert!(requests[0].len() > 50_000);
    assert!(requests.iter().all(|request| *request == requests[0]), "a retry sent something else");
    world.config.clickhouse.url = url;
}

/// Neither a server that never answers nor an address that never connects holds a try beyond its timeout.
#[tokio::test(flavor = "multi_thread")]
async fn every_try_is_bounded_in_time() {
    let mut world = World::new();
    let url = world.config.clickhouse.url.clone();
    let insert = blocks_of(&world, &charges("ws_1", 1..=1)).remove(0);
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    world.config.clickhouse.url = format!("http://{}", silent.local_addr().unwrap());
    world.config.clickhouse.request_timeout_ms = 200;
    let begun = Instant::now();
    let error = world.clickhouse().try_insert(&insert).await.unwrap_err();
    assert_eq!(error.to_string(), "no answer within 200 ms");
    assert!(begun.elapsed() < Duration::from_secs(2));
    world.config.clickhouse.url = url;
}

/// Not a test but a measurement: the same entries turned into rows, inserted, and read from Kafka by the sink.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement: cargo test --release --test sink -- --ignored --nocapture"]
#[allow(clippy::print_stdout)]
async fn measure_the_insert_path() {
    const ROUNDS: u64 = 10;
    let world = World::whole().await;
    let clickhouse = world.clickhouse();
    let (mut building, mut inserting, mut bytes) = (Duration::ZERO, Duration::ZERO, 0);
    for round in 0..ROUNDS {
        let wallets = (0..1000).map(|wallet| format!("ws_{wallet:05}_{round}"));
        let records: Vec<Record> = wallets.flat_map(|wallet_id| charges(&wallet_id, 1..=50)).collect();
        world.produce(&records);
        let begun = Instant::now();
        let inserts = blocks_of(&world, &records);
        building += begun.elapsed();
        let begun = Instant::now();
        for insert in &inserts {
            bytes += insert.body().len();
            clickhouse.insert(insert).await.unwrap();
        }
        inserting += begun.elapsed();
    }
    let entries = 50_000 * ROUNDS;
    let rate = |time: Duration| (entries as f64 / time.as_secs_f64()) as u64;
    println!("{entries} entries and their usage, {} bytes each as Native", bytes as u64 / entries);
    println!("turned into rows and serialised: {}/s", rate(building));
    println!("inserted: {}/s", rate(inserting));
    world.query("TRUNCATE TABLE ledger_entries").await;
    let begun = Instant::now();
    let running = world.start();
    world.until("SELECT count() FROM ledger_entries", &entries.to_string()).await;
    println!("from Kafka by the whole sink: {}/s", rate(begun.elapsed()));
    running.stop().await;
}
