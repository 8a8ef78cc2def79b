//! The form of the schema for a cluster.
//!
//! Method: the engine of the tests has no keeper, and so neither ON CLUSTER nor replicated tables. It parses every statement; then,
//! with these two taken out, it runs them, over one local shard and, for what must not be refused, over two.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use creditstream::config::ClickHouseConfig;
use creditstream::sink::client;
use creditstream::sink::migrate::{MIGRATIONS, MigrationError};
use creditstream::sink::{cluster, migrate};

use crate::blocks_of;
use crate::samples::charges;
use crate::world::{PATIENCE, World};

/// `two` names the same host twice: each answer stands there twice.
const CONFIG: &str = "<clickhouse><tcp_port>9000</tcp_port><remote_servers>\
    <one><shard><replica><host>localhost</host><port>9000</port></replica></shard></one>\
    <two><shard><replica><host>localhost</host><port>9000</port></replica></shard>\
    <shard><replica><host>127.0.0.1</host><port>9000</port></replica></shard></two>\
    </remote_servers></clickhouse>";

const VIEWS: [&str; 16] = [
    "usage_daily(wallet = 'ws_1')",
    "usage_monthly(wallet = 'ws_1')",
    "plan_utilisation(wallet = 'ws_1', at = now())",
    "burn_rate(wallet = 'ws_1', at = now())",
    "runway(wallet = 'ws_1', at = now())",
    "expiring_credits(days = 30, at = now())",
    "credit_flow",
    "wallet_statement(wallet = 'ws_1')",
    "balance_daily(wallet = 'ws_1', at = now())",
    "credits_outstanding(day = '2026-11-03')",
    "topup_revenue",
    "quarantine_summary",
    "upgrade_candidates(at = now())",
    "freshness",
    "open_alerts(at = now())",
    "usage_daily_all",
];

/// An engine of this test's own, with clusters in its configuration.
struct Engine {
    process: Child,
    url: String,
    _folder: tempfile::TempDir,
}

impl Engine {
    fn start() -> Engine {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        let stack = std::env::var_os("CREDITSTREAM_STACK_DIR");
        let stack = stack.map_or_else(|| root.join(".stack"), Into::into);
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("config.xml");
        std::fs::write(&config, CONFIG).unwrap();
        let data = format!("{}?config-file={}", folder.path().join("data").display(), config.display());
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let process = Command::new(stack.join("venv/bin/python"))
            .arg(root.join("stack/clickhouse_front.py"))
            .args(["--data", &data, "--port", &port.to_string()])
            .stderr(Stdio::null())
            .spawn()
            .expect("is the stack installed? python3 stack/stack.py up");
        let begun = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(begun.elapsed() < PATIENCE, "the engine does not come up");
            std::thread::sleep(Duration::from_millis(50));
        }
        Engine { process, url: format!("http://127.0.0.1:{port}"), _folder: folder }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Without what the engine lacks.
fn on_this_engine(statement: &str, cluster: &str) -> String {
    let single = statement.replace(&cluster::on(cluster), "");
    let place = "ReplicatedReplacingMergeTree('/clickhouse/tables/{uuid}/{shard}', '{replica}'";
    single.replace(&format!("{place}, "), "ReplacingMergeTree(").replace(place, "ReplacingMergeTree(")
}

async fn make_tables(world: &World, config: &ClickHouseConfig) {
    for statement in MIGRATIONS.iter().flat_map(|migration| migration.statements_for(config).unwrap()) {
        world.query(&format!("EXPLAIN AST {statement}")).await;
        assert!(statement.contains(" ON CLUSTER `"), "{statement}");
        world.query(&on_this_engine(&statement, &config.cluster)).await;
    }
}

/// A database of that form on the engine, with the topics of a world on the stack.
async fn fronts(engine: &Engine, stack: &World, cluster: &str) -> World {
    let mut config = stack.config.clone();
    config.clickhouse.url = engine.url.clone();
    config.clickhouse.user = "default".to_owned();
    config.clickhouse.database.push_str(cluster);
    config.clickhouse.cluster = cluster.to_owned();
    let create = format!("CREATE DATABASE {}", config.clickhouse.database);
    client::client(&config.clickhouse).query_raw(&create).execute().await.unwrap();
    let world = World { config };
    make_tables(&world, &world.config.clickhouse).await;
    let engines = "SELECT countIf(engine = 'Distributed'), countIf(engine = 'ReplacingMergeTree') FROM system.tables \
                   WHERE database = currentDatabase()";
    assert_eq!(world.query(engines).await, "9\t9\n");
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sink_writes_through_the_fronts_and_every_view_reads_through_them() {
    let (engine, stack) = (Engine::start(), World::whole().await);
    let world = fronts(&engine, &stack, "one").await;
    let inserts = blocks_of(&world, &charges("ws_1", 1..=50));
    for insert in inserts.iter().chain(&inserts) {
        world.clickhouse().try_insert(insert).await.unwrap();
    }
    let stored = "SELECT count() FROM ledger_entries_local";
    assert_eq!(world.query(stored).await, "100\n", "none is taken for known");
    let all = "SELECT count(), sum(credits), max(seq) FROM ledger_entries FINAL";
    assert_eq!(world.query(all).await, "50\t-1275\t50\n");

    world.produce(&charges("ws_1", 1..=60));
    let running = world.start();
    world.until(all, "60\t-1830\t60").await;
    world.until("SELECT sum(credits_charged) FROM usage_daily_all", "1830").await;
    world.until("SELECT sum(credits_charged) FROM usage_daily(wallet = 'ws_1')", "1830").await;
    world.until("SELECT sum(credits_charged) FROM credit_flow", "1830").await;
    running.stop().await;
    for view in VIEWS {
        world.query(&format!("SELECT * FROM {view}")).await;
    }
}

/// ClickHouse refuses joins between two fronts of several shards unless a view says how they are meant.
#[tokio::test(flavor = "multi_thread")]
async fn over_two_shards_no_view_is_refused() {
    let (engine, stack) = (Engine::start(), World::new());
    let world = fronts(&engine, &stack, "two").await;
    for view in VIEWS {
        world.query(&format!("SELECT * FROM {view}")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_of_a_single_server_is_not_taken_for_a_clusters() {
    let world = World::migrated().await;
    let config = ClickHouseConfig { cluster: "one".to_owned(), ..world.config.clickhouse.clone() };
    let error = migrate(&config).await.unwrap_err();
    assert!(matches!(error, MigrationError::OtherForm(_)), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_the_server_does_not_know_is_refused_by_name() {
    let world = World::new();
    let config = ClickHouseConfig { cluster: "elsewhere".to_owned(), ..world.config.clickhouse.clone() };
    let error = migrate(&config).await.unwrap_err();
    assert!(matches!(error, MigrationError::Refused { .. }), "{error}");
    assert!(
        error.to_string().contains("elsewhere") && error.to_string().contains("remote_servers"),
        "{error}"
    );
}
