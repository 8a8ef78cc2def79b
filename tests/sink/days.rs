//! The tables by day: refreshed by the sink, and equal to the entries.

use creditstream::sink::record::Record;

use crate::samples::charges;
use crate::world::World;

/// What differs between the days and the entries that they sum up.
const DRIFT: &str = "SELECT count() FROM (\
    SELECT toDate(event_time) AS day, asset_type, model, plan, -sum(credits) AS charged, sum(images) AS images FROM ledger_entries FINAL \
    WHERE entry_type = 'charged' GROUP BY ALL) AS e FULL JOIN usage_daily_all AS d USING (day, asset_type, model, plan) \
    WHERE e.charged != d.credits_charged OR e.images != d.images";

/// Charges that happened on another day.
fn on(day: &str, records: Vec<Record>) -> Vec<Record> {
    let moved = |mut record: Record| {
        let value = String::from_utf8(record.value.unwrap().to_vec()).unwrap();
        record.value = Some(
            value
                .replace("event_time\":\"2026-11-03T10", &format!("event_time\":\"{day}T10"))
                .replace("hour\":\"2026-11-03T10", &format!("hour\":\"{day}T10"))
                .as_bytes()
                .into(),
        );
        record
    };
    records.into_iter().map(moved).collect()
}

/// Goal: a day is computed anew whenever an entry touches it, also a day that was long over.
#[tokio::test(flavor = "multi_thread")]
async fn the_days_follow_the_entries() {
    let world = World::whole().await;
    let running = world.start();
    world.produce(&charges("ws_1", 1..=4));
    let days =
        "SELECT day, sum(credits_charged), sum(jobs) > 0 FROM usage_daily_all GROUP BY day ORDER BY day";
    world.until(days, "2026-11-03\t10\t1").await;
    let mut records = charges("ws_1", 5..=5);
    records.extend(on("2026-09-30", charges("ws_2", 1..=3)));
    world.produce(&records);
    world.until(days, "2026-09-30\t6\t1\n2026-11-03\t15\t1").await;
    assert_eq!(world.query(DRIFT).await, "0\n");
    let flow = "SELECT sum(credits_charged), sum(balance_change) FROM credit_flow";
    world.until(flow, "21\t-21").await;
    let text = running.metrics.encode();
    assert!(
        text.contains(r#"creditstream_clickhouse_insert_duration_seconds_count{table="usage_by_day"}"#),
        "{text}"
    );
    assert!(text.contains(r#"creditstream_clickhouse_errors_total{kind="permanent"} 0"#), "{text}");
    running.stop().await;
}

/// Goal: a sink that dies after an insert and before its refresh leaves no day behind. Method: take away what the
/// refresh wrote, and start again with the offsets committed: nothing is read again, and nothing new comes.
#[tokio::test(flavor = "multi_thread")]
async fn a_crash_between_an_insert_and_its_refresh_loses_no_day() {
    let world = World::whole().await;
    world.produce(&charges("ws_1", 1..=4));
    let running = world.start();
    let days = "SELECT sum(credits_charged) FROM usage_daily_all";
    world.until(days, "10").await;
    running.stop().await;
    for table in ["usage_by_day", "credits_by_day", "days_refreshed"] {
        world.query(&format!("TRUNCATE TABLE {table}")).await;
    }
    let running = world.start();
    world.until(days, "10").await;
    assert_eq!(world.query(DRIFT).await, "0\n");
    running.stop().await;
}

/// A table by day that is gone is told, and stops no entry.
#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_that_fails_stops_nothing() {
    let world = World::whole().await;
    world.query("RENAME TABLE usage_by_day TO elsewhere").await;
    let running = world.start();
    world.produce(&charges("ws_1", 1..=4));
    let failed = r#"creditstream_clickhouse_errors_total{kind="permanent"} 1"#;
    let begun = std::time::Instant::now();
    while !running.metrics.encode().contains(failed) {
        assert!(begun.elapsed() < crate::world::PATIENCE);
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    world.produce(&charges("ws_1", 5..=6));
    world.until("SELECT count() FROM ledger_entries FINAL", "6").await;
    world.query("RENAME TABLE elsewhere TO usage_by_day").await;
    world.until("SELECT sum(credits_charged) FROM usage_daily_all", "21").await;
    running.stop().await;
}
