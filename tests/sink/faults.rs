//! Faults of ClickHouse, told apart: what waiting mends is tried again, what it cannot mend stops the sink with a sentence
//! that says what to do. Either way nothing is lost, and nothing counts twice.
//!
//! Method: a proxy before the real engine answers inserts as the faulty server would (codes and words are ClickHouse's own), and
//! then stops doing so.

use std::time::{Duration, Instant};

use creditstream::sink::{MigrationError, migrate};

use crate::samples::charges;
use crate::servers::{Fault, FaultyFront};
use crate::world::{PATIENCE, Running, World};

const ALL: &str = "SELECT count(), sum(credits), max(seq) FROM ledger_entries FINAL";
const ALL_OF_50: &str = "50\t-1275\t50";

fn errors(running: &Running, kind: &str) -> u64 {
    let text = running.metrics.encode();
    let start = format!("creditstream_clickhouse_errors_total{{kind=\"{kind}\"}} ");
    text.lines().find_map(|line| line.strip_prefix(&start)).unwrap().parse().unwrap()
}

async fn until_errors(running: &Running, kind: &str, number: u64) {
    let begun = Instant::now();
    while errors(running, kind) < number {
        assert!(begun.elapsed() < PATIENCE, "{}", running.metrics.encode());
        assert!(!running.task.is_finished(), "the sink stopped");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Tried again while it lasts, and written once it is over; each row once, also before parts merge.
async fn is_waited_out(answer: &'static str) {
    let world = World::whole().await;
    let front = FaultyFront::before(&world.config.clickhouse.url, Fault::Answer(answer)).await;
    let mut config = world.config.clone();
    config.clickhouse.url = front.url.clone();
    world.produce(&charges("ws_1", 1..=50));
    let running = world.start_with(config);
    until_errors(&running, "transient", 4).await;
    assert_eq!(world.query("SELECT count() FROM ledger_entries").await, "0\n");
    front.set(Fault::None);
    world.until(ALL, ALL_OF_50).await;
    world.until("SELECT credits_charged FROM usage_hourly FINAL", "1275").await;
    assert_eq!(world.query("SELECT count() FROM ledger_entries").await, "50\n", "written once");
    assert_eq!(errors(&running, "permanent"), 0);
    running.stop().await;
}

/// The sink stops at once and says `advice`; started again once it is mended, it goes on where it was.
async fn stops_the_sink(answer: &'static str, advice: &str) {
    let world = World::whole().await;
    let front = FaultyFront::before(&world.config.clickhouse.url, Fault::Answer(answer)).await;
    let mut config = world.config.clone();
    config.clickhouse.url = front.url.clone();
    world.produce(&charges("ws_1", 1..=50));
    let running = world.start_with(config.clone());
    let error = tokio::time::timeout(PATIENCE, running.task).await.unwrap().unwrap().unwrap_err().to_string();
    assert!(error.contains(advice), "{error}");
    let metrics = running.metrics.encode();
    assert!(!metrics.contains(r#"clickhouse_errors_total{kind="permanent"} 0"#), "{metrics}");
    front.set(Fault::None);
    let running = world.start_with(config);
    world.until(ALL, ALL_OF_50).await;
    assert_eq!(world.query("SELECT count() FROM ledger_entries").await, "50\n", "written once");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_parts_are_waited_out() {
    is_waited_out("Code: 252. DB::Exception: Too many parts (3001 with average size of 1.00 KiB). Merges are processing significantly slower than inserts. (TOO_MANY_PARTS)").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_waited_out() {
    is_waited_out("Code: 243. DB::Exception: Cannot reserve 1.00 MiB, not enough space. (NOT_ENOUGH_SPACE)")
        .await;
}

/// As a replica is that has lost its keeper: it comes back by itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_read_only_is_waited_out() {
    is_waited_out("Code: 242. DB::Exception: Table is in readonly mode. (TABLE_IS_READ_ONLY)").await;
}

/// Goal: the next batch is frozen while one is refused, and finds no gap though nothing of its wallet is stored yet.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_is_frozen_while_another_is_refused_follows_it() {
    let world = World::whole().await;
    let refusal = Fault::Answer("Code: 252. DB::Exception: Too many parts. (TOO_MANY_PARTS)");
    let front = FaultyFront::before(&world.config.clickhouse.url, refusal).await;
    let mut config = world.config.clone();
    config.clickhouse.url = front.url.clone();
    config.sink.batch_records_max = 10;
    world.produce(&charges("ws_1", 1..=50));
    let running = world.start_with(config);
    until_errors(&running, "transient", 4).await;
    front.set(Fault::None);
    world.until(ALL, ALL_OF_50).await;
    running.until_no_lag(&world.config.topics.ledger).await;
    assert_eq!(world.query("SELECT count() FROM ledger_entries").await, "50\n", "written once");
    assert!(!running.metrics.encode().contains("creditstream_shard_stopped{"), "no partition stops");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_who_may_only_read_stops_the_sink() {
    let answer = "Code: 164. DB::Exception: default: Cannot execute query in readonly mode. (READONLY)";
    stops_the_sink(answer, "this user may only read").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_who_lacks_rights_stops_the_sink() {
    let answer = "Code: 497. DB::Exception: sink: Not enough privileges. To execute this query, it's necessary to have the grant INSERT(wallet_id) ON credits.ledger_entries. (ACCESS_DENIED)";
    stops_the_sink(answer, "the role creditstream_writer").await;
}

/// Somebody renamed a column: the engine's own answer.
#[tokio::test(flavor = "multi_thread")]
async fn another_schema_stops_the_sink() {
    let world = World::whole().await;
    world.query("ALTER TABLE usage_hourly RENAME COLUMN images TO pictures").await;
    world.produce(&charges("ws_1", 1..=50));
    let running = world.start();
    let error = tokio::time::timeout(PATIENCE, running.task).await.unwrap().unwrap().unwrap_err().to_string();
    assert!(error.contains("images") && error.contains("creditstream init"), "{error}");
    let metrics = running.metrics.encode();
    assert!(metrics.contains(r#"clickhouse_errors_total{kind="permanent"} 1"#), "{metrics}");
    world.query("ALTER TABLE usage_hourly RENAME COLUMN pictures TO images").await;
    let running = world.start();
    world.until(ALL, ALL_OF_50).await;
    world.until("SELECT credits_charged FROM usage_hourly FINAL", "1275").await;
    running.stop().await;
}

/// It takes the rows, but its answer comes too late: they are sent again, and count once.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_stays_out_is_asked_for_again_and_counts_once() {
    let world = World::whole().await;
    let front = FaultyFront::before(&world.config.clickhouse.url, Fault::Silence).await;
    let mut config = world.config.clone();
    config.clickhouse.url = front.url.clone();
    config.clickhouse.request_timeout_ms = 1_000;
    world.produce(&charges("ws_1", 1..=50));
    let running = world.start_with(config);
    until_errors(&running, "timeout", 2).await;
    world.until(ALL, ALL_OF_50).await;
    front.set(Fault::None);
    running.until_no_lag(&world.config.topics.ledger).await;
    assert_eq!(world.query("SELECT count() > 50 FROM ledger_entries").await, "1\n", "it was sent again");
    assert_eq!(world.query(ALL).await.trim_end(), ALL_OF_50);
    world.until("SELECT credits_charged FROM usage_hourly FINAL", "1275").await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_too_old_is_refused_by_init_and_stops_the_sink() {
    let world = World::whole().await;
    let mut config = world.config.clone();
    let front = FaultyFront::before(&world.config.clickhouse.url, Fault::OldVersion).await;
    config.clickhouse.url = front.url.clone();
    let expected = "the server has version 24.2.3, expected at least 24.3; upgrade the server";
    let error = migrate(&config.clickhouse).await.unwrap_err();
    assert!(matches!(error, MigrationError::Refused { .. }), "{error}");
    assert!(error.to_string().contains(expected), "{error}");
    let running = world.start_with(config);
    let error = tokio::time::timeout(PATIENCE, running.task).await.unwrap().unwrap().unwrap_err().to_string();
    assert!(error.contains(expected), "{error}");
    let metrics = running.metrics.encode();
    assert!(metrics.contains(r#"clickhouse_errors_total{kind="permanent"} 1"#), "{metrics}");
}
