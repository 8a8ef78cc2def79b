//! The sink against the real engine and the real broker (`stack/`), and against servers that misbehave.
//!
//! Method: each test has a database, topics and a consumer group of its own, with random names. A component
//! that is not there fails the test; nothing is skipped.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use creditstream::config::{Config, process_env};
use creditstream::metrics::Metrics;
use creditstream::sink::block::Block;
use creditstream::sink::guard::FoldGuard;
use creditstream::sink::insert::{self, ClickHouse, FrozenInsert};
use creditstream::sink::migrate::{MIGRATIONS, Migration, MigrationError, MigrationReport, migrate_with};
use creditstream::sink::record::{Record, Source, SourcePartition};
use creditstream::sink::{self, SinkError, migrate, rows, tables};
use creditstream::time::Timestamp;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer, ThreadedProducer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

const PATIENCE: Duration = Duration::from_secs(30);

/// A database, topics and a group that nobody else uses; taken away at the end.
struct World {
    config: Config,
}

impl World {
    fn new() -> World {
        // Logs of a test that fails: RUST_LOG=creditstream=debug.
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        let _ = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
        let mut config = Config::load(None, process_env()).unwrap();
        let id = uuid::Uuid::new_v4().simple().to_string();
        config.clickhouse.database = format!("sink_test_{id}");
        config.topics.ledger = format!("sink-test-{id}.ledger");
        config.topics.wallets = format!("sink-test-{id}.wallets");
        config.topics.quarantine = format!("sink-test-{id}.quarantine");
        config.sink.group = format!("sink-test-{id}");
        config.sink.batch_wait_ms_max = 50;
        config.sink.retry_ms_min = 20;
        config.sink.retry_ms_max = 100;
        World { config }
    }

    /// With tables.
    async fn migrated() -> World {
        let world = World::new();
        migrate(&world.config.clickhouse).await.expect("is the stack up? python3 stack/stack.py up");
        world
    }

    /// With tables and topics.
    async fn whole() -> World {
        let world = World::migrated().await;
        let admin: AdminClient<DefaultClientContext> = world.kafka().create().unwrap();
        let topics = Source::ALL.map(|source| source.topic(&world.config.topics).to_owned());
        let new: Vec<NewTopic<'_>> =
            topics.iter().map(|topic| NewTopic::new(topic, 2, TopicReplication::Fixed(1))).collect();
        let options = AdminOptions::new().operation_timeout(Some(PATIENCE));
        for made in admin.create_topics(&new, &options).await.expect("is the stack up? python3 stack/stack.py up") {
            made.unwrap();
        }
        world
    }

    fn kafka(&self) -> ClientConfig {
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", self.config.kafka.bootstrap_servers());
        client
    }

    fn clickhouse(&self) -> ClickHouse {
        ClickHouse::new(&self.config.clickhouse, &self.config.sink, Metrics::new())
    }

    /// The answer, one row a line, tabs between columns.
    async fn query(&self, sql: &str) -> String {
        self.query_as(sql, "TabSeparated").await.unwrap()
    }

    async fn query_as(&self, sql: &str, format: &str) -> clickhouse::error::Result<String> {
        let client = insert::client(&self.config.clickhouse).with_database(&self.config.clickhouse.database);
        let answer = client.query_raw(sql).fetch_bytes(format)?.collect().await?;
        Ok(String::from_utf8(answer.to_vec()).unwrap())
    }

    /// Waits until a query has this answer.
    async fn until(&self, sql: &str, expected: &str) {
        let begun = Instant::now();
        loop {
            let answer = self.query(sql).await;
            if answer.trim_end() == expected {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "{sql}\nexpected:\n{expected}\ncame:\n{answer}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// All five tables, as they read.
    async fn everything(&self) -> String {
        let mut text = String::new();
        for schema in tables::ALL {
            let sql = format!("SELECT * FROM {} FINAL ORDER BY ALL", schema.table);
            text.push_str(&self.query_as(&sql, "JSONEachRow").await.unwrap());
        }
        text
    }

    fn start(&self) -> Running {
        self.start_with(self.config.clone())
    }

    fn start_with(&self, config: Config) -> Running {
        let (stop, stopped) = oneshot::channel::<()>();
        let metrics = Metrics::new();
        let stage = sink::run(Arc::new(config), metrics.clone(), async {
            let _ = stopped.await;
        });
        Running { stop, task: tokio::spawn(stage), metrics }
    }

    /// Sends records, in order, and waits until the broker has them.
    fn produce(&self, records: &[Record]) {
        let mut client = self.kafka();
        let producer: ThreadedProducer<_> = client.set("enable.idempotence", "true").create().unwrap();
        for record in records {
            let headers = record.headers.iter().fold(OwnedHeaders::new(), |headers, (key, value)| {
                headers.insert(Header { key, value: Some(&**value) })
            });
            let mut message = BaseRecord::to(record.from.source.topic(&self.config.topics))
                .partition(record.from.partition)
                .timestamp(record.timestamp.millis())
                .key(&*record.key)
                .headers(headers);
            if let Some(value) = &record.value {
                message = message.payload(&**value);
            }
            producer.send(message).map_err(|(error, _)| error).unwrap();
        }
        producer.flush(PATIENCE).unwrap();
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let config = self.config.clickhouse.clone();
        // A runtime of its own: the test's may be on its way out.
        let cleaning = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let sql = format!("DROP DATABASE IF EXISTS {}", config.database);
            let _ = runtime.block_on(insert::client(&config).query_raw(&sql).execute());
        });
        let _ = cleaning.join();
    }
}

struct Running {
    stop: oneshot::Sender<()>,
    task: tokio::task::JoinHandle<Result<(), SinkError>>,
    metrics: Metrics,
}

impl Running {
    /// Stops it, and says how long that took.
    async fn stop(self) -> Duration {
        let begun = Instant::now();
        let _ = self.stop.send(());
        self.task.await.unwrap().unwrap();
        begun.elapsed()
    }
}

fn record(source: Source, partition: i32, key: &str, value: &str) -> Record {
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
fn charges(wallet_id: &str, seqs: std::ops::RangeInclusive<u64>) -> Vec<Record> {
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
const FULL_ENTRY: &str = r#"{"v":1,"wallet_id":"ws_42","entries":[{"seq":1,"entry_type":"granted","credits":1000,
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

const SNAPSHOT: &str = r#"{"v":1,"wallet_id":"ws_42","seq":9,"plan":"lite","contract_id":"c","balance":990,"held":5,"available":985,
"overdraft":10,"plan_credits":3,"topup_credits":990,"adjustment_credits":7,"allocation":1000,"level":"low",
"next_allocation_at":"2026-12-01T00:00:00.000Z","term_started_at":"2026-11-01T00:00:00.000Z",
"first_seen_at":"2026-11-01T00:00:00.001Z","updated_at":"2026-11-03T10:15:31.000Z","grants":[
{"grant_id":"topup:t1","kind":"topup","credits_granted":1000,"credits_remaining":990,"credits_repaid":10,"priority":30,
"granted_at":"2026-11-03T10:15:30.123Z","amount_usd":"250","seq":4},
{"grant_id":"plan:c:0","kind":"plan","credits_granted":5,"credits_remaining":0,"priority":10,
"granted_at":"2026-11-01T00:00:00.000Z","expires_at":"2027-11-01T00:00:00.000Z","contract_id":"c","seq":2}]}"#;

/// Two quarantined records: one as the ledger stage writes it, one that somebody else wrote.
fn quarantined() -> Vec<Record> {
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
    let (one, two, three, four) = tokio::join!(migrate(config), migrate(config), migrate(config), migrate(config));
    for report in [one, two, three, four] {
        let MigrationReport { applied, present } = report.unwrap();
        assert_eq!(applied.len() + present.len(), MIGRATIONS.len());
    }
    let again = migrate(config).await.unwrap();
    assert_eq!(again, MigrationReport { applied: vec![], present: vec!["0001_tables".to_owned()] });
    assert_eq!(world.query("SELECT version, name FROM schema_migrations FINAL").await, "1\t0001_tables\n");
    assert_eq!(world.query("SELECT count() FROM system.tables WHERE database = currentDatabase()").await, "6\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_another_build_migrated_is_left_alone() {
    let world = World::migrated().await;
    let edited = [Migration { sql: "CREATE TABLE IF NOT EXISTS other (x Int8) ENGINE = Log;\n", ..MIGRATIONS[0] }];
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
    assert_eq!(migrate(&world.config.clickhouse).await.unwrap().applied, ["0001_tables"]);
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
        let expected: String =
            schema.columns.iter().map(|(name, kind)| format!("{name}\t{}\t1\t1\n", kind.in_table())).collect();
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
async fn what_kafka_holds_arrives_once_and_a_replay_from_the_beginning_changes_nothing() {
    let world = World::whole().await;
    let mut records = charges("ws_1", 1..=300);
    records.extend(charges("ws_2", 1..=200));
    records.push(record(Source::Wallets, 0, "ws_42", SNAPSHOT));
    records.extend(quarantined());
    world.produce(&records);

    let running = world.start();
    world.until("SELECT count(), sum(credits) FROM ledger_entries FINAL", "500\t-65250").await;
    world.until("SELECT count() FROM quarantined_events FINAL", "2").await;
    world.until("SELECT count() FROM grants FINAL", "2").await;
    let text = running.metrics.encode();
    assert!(text.contains(r#"creditstream_clickhouse_rows_total{table="ledger_entries"} 500"#), "{text}");
    // What comes later is added; a second copy of an entry is passed over.
    world.produce(&charges("ws_1", 300..=301));
    world.until("SELECT count(), max(ledger_offset) FROM ledger_entries", "501\t501").await;
    let took = running.stop().await;
    assert!(took < Duration::from_secs(2), "{took:?}");
    let once = world.everything().await;
    let usage = "SELECT wallet_id, jobs, images, credits_charged, seq FROM usage_hourly FINAL ORDER BY wallet_id";
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
    running.stop().await;
    let again = world.everything().await;
    let without_ws_3: String = again.lines().filter(|line| !line.contains("ws_3")).map(|line| format!("{line}\n")).collect();
    assert_eq!(without_ws_3, once);
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
    world.until("SELECT wallet_id, max(seq) FROM ledger_entries GROUP BY 1 ORDER BY 1", "ws_1\t2\nws_9\t3").await;
    world.produce(&charges("ws_9", 4..=4).into_iter().map(elsewhere).collect::<Vec<_>>());
    world.until("SELECT wallet_id, max(seq) FROM ledger_entries GROUP BY 1 ORDER BY 1", "ws_1\t2\nws_9\t4").await;
    let text = running.metrics.encode();
    assert!(text.contains(r#"creditstream_shard_stopped{reason="sink",shard="0"} 1"#), "{text}");
    running.stop().await;
}

/// A proxy before ClickHouse that can be shut: then it cuts what is open and refuses what comes.
struct Gate {
    url: String,
    is_open: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<()>,
}

impl Gate {
    async fn before(url: &str) -> Gate {
        let target = url.trim_start_matches("http://").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let is_open = Arc::new(AtomicBool::new(true));
        let open = Arc::clone(&is_open);
        let task = tokio::spawn(async move {
            loop {
                let (mut client, _) = listener.accept().await.unwrap();
                if !open.load(Ordering::SeqCst) {
                    continue;
                }
                let (target, open) = (target.clone(), Arc::clone(&open));
                tokio::spawn(async move {
                    let mut server = TcpStream::connect(target).await.unwrap();
                    let shut = async {
                        while open.load(Ordering::SeqCst) {
                            tokio::time::sleep(Duration::from_millis(5)).await;
                        }
                    };
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
                        () = shut => {}
                    }
                });
            }
        });
        Gate { url, is_open, task }
    }
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
    world.until("SELECT count(), max(seq), sum(credits) FROM ledger_entries FINAL", "1000\t1000\t-500500").await;
    world.until("SELECT credits_charged FROM usage_hourly FINAL", "500500").await;
    let text = running.metrics.encode();
    assert!(!text.contains(r#"clickhouse_errors_total{kind="unreachable"} 0"#), "{text}");
    // Shutdown while it is away again.
    gate.is_open.store(false, Ordering::SeqCst);
    world.produce(&charges("ws_1", 1001..=1100));
    tokio::time::sleep(Duration::from_millis(300)).await;
    let took = running.stop().await;
    assert!(took < Duration::from_secs(2), "{took:?}");
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
    world.until("SELECT count(), sum(credits), max(seq) FROM ledger_entries FINAL", "3000\t-2251500\t1500").await;
    world.until("SELECT wallet_id, credits_charged FROM usage_hourly FINAL ORDER BY 1", "ws_1\t1125750\nws_2\t1125750").await;
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

/// A server that takes whatever comes, and answers the first requests with an error of ClickHouse's.
async fn failing_server(failures: usize, answer: &'static str) -> (String, Arc<std::sync::Mutex<Vec<Vec<u8>>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let requests = Arc::new(std::sync::Mutex::new(Vec::new()));
    let (seen, count) = (Arc::clone(&requests), Arc::new(AtomicUsize::new(0)));
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            // A chunked body ends with a chunk of no bytes.
            while !request.ends_with(b"\r\n0\r\n\r\n") {
                if stream.read_buf(&mut request).await.unwrap() == 0 {
                    break;
                }
            }
            seen.lock().unwrap().push(request);
            let answer = match count.fetch_add(1, Ordering::SeqCst) < failures {
                true => format!("HTTP/1.1 500 X\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{answer}", answer.len()),
                false => "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_owned(),
            };
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    (url, requests)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_try_sends_the_same_bytes() {
    let mut world = World::new();
    let insert = blocks_of(&world, &charges("ws_1", 1..=5000)).remove(0);
    assert!(insert.body().len() > 1_000_000, "more than one piece");
    let url = std::mem::take(&mut world.config.clickhouse.url);
    let (failing, requests) = failing_server(2, "Code: 252. DB::Exception: Too many parts. (TOO_MANY_PARTS)").await;
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

/// Not a test of speed but of its order of magnitude; prints what it measured.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement: cargo test --release --test sink -- --ignored --nocapture"]
#[allow(clippy::print_stdout)]
async fn measure_the_insert_path() {
    const ROUNDS: u64 = 10;
    let world = World::migrated().await;
    let clickhouse = world.clickhouse();
    let (mut building, mut inserting, mut bytes) = (Duration::ZERO, Duration::ZERO, 0);
    for round in 0..ROUNDS {
        let records: Vec<Record> = (0..1000)
            .flat_map(|wallet| charges(&format!("ws_{wallet:05}_{round}"), 1..=50))
            .collect();
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
    println!("{entries} entries (and their usage rows), {bytes} bytes: built {}/s, inserted {}/s", rate(building), rate(inserting));
    let empty = Block::new(&tables::LEDGER_ENTRIES);
    assert_eq!(empty.rows(), 0);
}
