//! Pure tests: what records come to, and what a block looks like. That ClickHouse reads it so is tested on
//! the engine, in `tests/sink.rs`.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::HashSet;

use super::block::{Block, Kind, Schema};
use super::error::{ClickHouseError, ErrorKind};
use super::guard::FoldGuard;
use super::insert::FrozenInsert;
use super::record::{Record, Source, SourcePartition};
use super::rows::{self, RecordError, Rows};
use crate::config::Config;
use crate::time::Timestamp;

fn record(source: Source, partition: i32, offset: i64, key: &str, value: &str) -> Record {
    Record {
        from: SourcePartition { source, partition },
        offset,
        timestamp: Timestamp::from_millis(1_793_700_000_000),
        key: key.as_bytes().into(),
        value: Some(value.as_bytes().into()),
        headers: Vec::new(),
    }
}

/// A charge of `seq` credits; all of a wallet's charges are in one rollup bucket.
fn charge(offset: i64, wallet_id: &str, seq: u64) -> Record {
    let value = format!(
        r#"{{"v":1,"wallet_id":"{wallet_id}","entries":[{{"seq":{seq},"entry_type":"charged","credits":-{seq},
        "posted_at":"2026-11-03T10:15:31.000Z","event_time":"2026-11-03T10:15:30.123Z","level":"ok",
        "asset_type":"image","model":"m","plan":"lite","images":{seq},
        "bucket":{{"hour":"2026-11-03T10:00:00.000Z","part":1,"jobs":{seq},"credits_charged":{seq}}}}}]}}"#
    );
    record(Source::Ledger, 0, offset, wallet_id, &value)
}

fn snapshot(offset: i64, wallet_id: &str, seq: u64) -> Record {
    let value = format!(
        r#"{{"v":1,"wallet_id":"{wallet_id}","seq":{seq},"balance":5,"held":0,"available":5,"overdraft":0,
        "plan_credits":5,"topup_credits":0,"adjustment_credits":0,"allocation":10,"level":"ok",
        "first_seen_at":"2026-11-03T10:00:00.000Z","updated_at":"2026-11-03T10:15:31.000Z",
        "latest_at":"2026-11-03T10:15:30.123Z","grants":[{{"grant_id":"topup:t1","kind":"topup","credits_granted":10,"credits_remaining":5,
        "priority":30,"granted_at":"2026-11-03T10:00:00.000Z","made_seq":1,"seq":1,"touched_day":20760}}]}}"#
    );
    record(Source::Wallets, 0, offset, wallet_id, &value)
}

fn alert(offset: i64, wallet_id: &str, seq: u64) -> Record {
    let value = format!(
        r#"{{"v":1,"wallet_id":"{wallet_id}","alert_id":"{wallet_id}:low:{seq}","kind":"level","level":"low",
        "level_before":"ok","seq":{seq},"raised_at":"2026-11-03T10:15:31.000Z","available":1,"allocation":10}}"#
    );
    record(Source::Alerts, 0, offset, wallet_id, &value)
}

fn build(records: &[Record]) -> Rows {
    build_with(records, &mut FoldGuard::default())
}

fn build_with(records: &[Record], guard: &mut FoldGuard) -> Rows {
    rows::build(records, &Config::default().topics, guard, &HashSet::new())
}

/// Rows per table.
fn counts(rows: &Rows) -> Vec<(&'static str, u64)> {
    rows.blocks.iter().map(|block| (block.schema().table, block.rows())).collect()
}

fn positions(rows: &Rows) -> Vec<(Source, i32, i64)> {
    rows.positions.iter().map(|(of, next_offset)| (of.source, of.partition, *next_offset)).collect()
}

#[test]
fn a_block_is_laid_out_as_native_has_it() {
    static SCHEMA: Schema = Schema {
        table: "t",
        columns: &[
            ("a", Kind::Name),
            ("n", Kind::U16),
            ("d", Kind::DayOrNull),
            ("l", Kind::List(&[("x", Kind::Text)])),
        ],
    };
    let mut block = Block::new(&SCHEMA);
    for (text, number, items) in [("x", 1, vec!["p", "q"]), ("yz", 258, vec![])] {
        let mut row = block.row();
        row.text("a", text);
        row.u16("n", number);
        row.day_or_null("d", (number == 1).then(|| chrono::NaiveDate::from_ymd_opt(1970, 1, 3).unwrap()));
        row.list("l", items.into_iter(), |field, item| field.text("x", item));
        row.end();
    }
    let mut expected = vec![4, 2];
    expected.extend_from_slice(b"\x01a\x06String\x01x\x02yz");
    expected.extend_from_slice(b"\x01n\x06UInt16\x01\x00\x02\x01");
    expected.extend_from_slice(b"\x01d\x0eNullable(Date)\x00\x01\x02\x00\x00\x00");
    expected
        .extend_from_slice(b"\x01l\x16Array(Tuple(x String))\x02\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\x01p\x01q");
    assert_eq!(block.to_bytes(), expected);
}

#[test]
fn each_topic_goes_into_its_own_tables_and_positions_are_one_past_the_last() {
    let mut odd = record(Source::Quarantine, 3, 70, "", "\u{fffd}not json");
    odd.value = None;
    let rows = build(&[charge(10, "a", 1), charge(12, "b", 1), snapshot(5, "a", 1), alert(4, "a", 1), odd]);
    assert_eq!(
        counts(&rows),
        [
            ("ledger_entries", 2),
            ("usage_hourly", 2),
            ("wallets", 1),
            ("grants", 1),
            ("alerts", 1),
            ("quarantined_events", 1)
        ]
    );
    assert_eq!(
        positions(&rows),
        [
            (Source::Ledger, 0, 13),
            (Source::Wallets, 0, 6),
            (Source::Alerts, 0, 5),
            (Source::Quarantine, 3, 71)
        ]
    );
    assert!(rows.stops.is_empty());
}

#[test]
fn within_a_batch_a_bucket_and_a_wallet_are_written_once_with_their_last_state() {
    let all =
        [charge(1, "a", 1), charge(2, "a", 2), snapshot(1, "a", 1), charge(3, "a", 3), snapshot(2, "a", 3)];
    let rows = build(&all);
    assert_eq!(counts(&rows), [("ledger_entries", 3), ("usage_hourly", 1), ("wallets", 1), ("grants", 1)]);

    // The totals and the snapshot are those of the last entry alone.
    let mut guard = FoldGuard::default();
    build_with(&all[..2], &mut guard);
    let last = build_with(&all[3..], &mut guard);
    for table in 1..4 {
        assert_eq!(rows.blocks[table].to_bytes(), last.blocks[table].to_bytes());
    }
}

#[test]
fn the_same_records_give_the_same_bytes() {
    let records: Vec<Record> = (0..300)
        .flat_map(|number| {
            let wallet_id = format!("w{}", number % 100);
            let seq = 1 + number / 100;
            [charge(number as i64, &wallet_id, seq), snapshot(number as i64, &wallet_id, seq)]
        })
        .collect();
    let bytes = || build(&records).blocks.iter().map(Block::to_bytes).collect::<Vec<_>>();
    assert_eq!(bytes(), bytes());
}

/// A fault, a wallet's entries in the order of the ledger; entries written, doubles, and the offset that it stops at.
type Case = (&'static str, &'static [u64], u64, u64, Option<i64>);

#[test]
fn a_torn_doubled_reordered_or_missing_entry_is_judged_by_the_sink() {
    let table: [Case; 5] = [
        ("sound", &[1, 2, 3], 3, 0, None),
        ("doubled", &[1, 2, 2, 1, 3], 3, 2, None),
        ("reordered", &[1, 3, 2], 1, 0, Some(1)),
        ("missing", &[1, 3], 1, 0, Some(1)),
        // The state that covers entry 2 is there, the entry is not: the wallet's next entry tells.
        ("torn", &[1, 3, 4], 1, 0, Some(1)),
    ];
    for (fault, seqs, written, doubles, stop) in table {
        let mut records: Vec<Record> =
            (0..).zip(seqs).map(|(offset, seq)| charge(offset, "a", *seq)).collect();
        if fault == "torn" {
            records.insert(1, snapshot(0, "a", 2));
        }
        // Another partition goes on.
        let mut other = charge(7, "b", 1);
        other.from.partition = 1;
        records.push(other);
        let rows = build(&records);
        let entries = counts(&rows).iter().find(|(table, _)| *table == "ledger_entries").unwrap().1;
        assert_eq!((entries, rows.doubles), (written + 1, doubles), "{fault}");
        let stops: Vec<i64> = rows.stops.iter().map(|stop| stop.offset).collect();
        assert_eq!(stops, stop.into_iter().collect::<Vec<_>>(), "{fault}");
        assert!(positions(&rows).contains(&(Source::Ledger, 1, 8)), "{fault}");
    }
}

#[test]
fn a_double_is_passed_over_and_counted() {
    let rows = build(&[charge(1, "a", 1), charge(2, "a", 2), charge(9, "a", 2), charge(10, "a", 3)]);
    assert_eq!(counts(&rows), [("ledger_entries", 3), ("usage_hourly", 1)]);
    assert_eq!(rows.doubles, 1);
    assert_eq!(positions(&rows), [(Source::Ledger, 0, 11)]);
}

/// Whatever cannot be read stops its partition before it; what stood before it is written, the others go on.
#[test]
fn a_record_that_cannot_be_read_stops_its_partition_before_it() {
    let is_gap = |reason: &RecordError| matches!(reason, RecordError::Contradiction(_));
    let is_newer = |reason: &RecordError| matches!(reason, RecordError::NewerFormat { found: 2, known: 1 });
    let is_malformed = |reason: &RecordError| matches!(reason, RecordError::Malformed(_));
    let ledger = |value: &str| record(Source::Ledger, 0, 2, "a", value);
    let tombstone = Record { value: None, ..charge(2, "a", 2) };
    type Check = fn(&RecordError) -> bool;
    let cases: [(Record, Check); 5] = [
        (charge(2, "a", 5), is_gap),
        (ledger(r#"{"v":2,"wallet_id":"a","entries":[]}"#), is_newer),
        (ledger(r#"{"v":2,"something":"else"}"#), is_newer),
        (ledger("{"), is_malformed),
        (tombstone, |reason| matches!(reason, RecordError::NoValue)),
    ];
    for (bad, is_right) in cases {
        let elsewhere =
            Record { from: SourcePartition { source: Source::Ledger, partition: 1 }, ..charge(7, "b", 1) };
        let rows = build(&[charge(1, "a", 1), bad, charge(3, "a", 2), elsewhere]);
        assert_eq!(counts(&rows), [("ledger_entries", 2), ("usage_hourly", 2)]);
        assert_eq!(positions(&rows), [(Source::Ledger, 0, 2), (Source::Ledger, 1, 8)]);
        assert_eq!(rows.stops.len(), 1);
        let stop = &rows.stops[0];
        assert_eq!((stop.of.partition, stop.offset), (0, 2));
        assert!(is_right(&stop.reason), "{}", stop.reason);
    }
}

#[test]
fn an_unreadable_snapshot_stops_its_partition_without_moving_it() {
    let rows = build(&[snapshot(1, "a", 1), record(Source::Wallets, 0, 2, "b", "{}"), charge(1, "a", 1)]);
    assert_eq!(positions(&rows), [(Source::Ledger, 0, 2)]);
    assert_eq!(rows.stops.len(), 1);
}

/// As with entries: what stands before it is written, and another partition goes on.
#[test]
fn what_is_no_alert_stops_its_partition_before_it() {
    let value = |value: &str| record(Source::Alerts, 0, 2, "a", value);
    let newer = r#"{"v":2,"wallet_id":"a"}"#;
    let unknown_kind = String::from_utf8(alert(2, "a", 2).value.unwrap().into()).unwrap();
    let unknown_kind = unknown_kind.replace(r#""kind":"level""#, r#""kind":"weather""#);
    let cases = [
        (value("{"), "not a record that the ledger stage writes"),
        (value(&unknown_kind), "unknown variant `weather`"),
        (value(newer), "has format 2, this sink reads up to 1"),
        (Record { value: None, ..alert(2, "a", 2) }, "has no value"),
    ];
    for (bad, said) in cases {
        let elsewhere =
            Record { from: SourcePartition { source: Source::Alerts, partition: 1 }, ..alert(7, "b", 1) };
        let rows = build(&[alert(1, "a", 1), bad, alert(3, "a", 3), elsewhere]);
        assert_eq!(counts(&rows), [("alerts", 2)]);
        assert_eq!(positions(&rows), [(Source::Alerts, 0, 2), (Source::Alerts, 1, 8)]);
        assert_eq!(rows.stops.len(), 1);
        let reason = rows.stops[0].reason.to_string();
        assert!(reason.contains(said), "{reason}");
    }
}

#[test]
fn a_tombstone_of_a_wallet_changes_nothing() {
    let tombstone = Record { value: None, ..snapshot(2, "a", 2) };
    let rows = build(&[snapshot(1, "a", 1), tombstone]);
    assert_eq!(counts(&rows), [("wallets", 1), ("grants", 1)]);
    assert_eq!(positions(&rows), [(Source::Wallets, 0, 3)]);
}

#[test]
fn records_of_a_stopped_partition_are_left_out() {
    let stopped = HashSet::from([SourcePartition { source: Source::Ledger, partition: 0 }]);
    let config = Config::default();
    let rows = rows::build(&[charge(1, "a", 1)], &config.topics, &mut FoldGuard::default(), &stopped);
    assert!(rows.blocks.is_empty() && rows.positions.is_empty());
}

#[test]
fn an_insert_names_its_columns_and_is_frozen() {
    let rows = build(&[snapshot(1, "a", 1)]);
    let insert = FrozenInsert::new(&rows.blocks[1]);
    assert_eq!(insert.table(), "grants");
    assert_eq!(insert.body(), rows.blocks[1].to_bytes());
}

#[test]
fn errors_that_waiting_cannot_mend_are_told_from_those_that_pass() {
    let kind =
        |text: &str| ClickHouseError::from(clickhouse::error::Error::BadResponse(text.to_owned())).kind();
    for code in [16, 47, 60, 81, 192, 193, 497, 516] {
        let text = format!("Code: {code}. DB::Exception: whatever. (NAME) (version 26.9)");
        assert_eq!(kind(&text), ErrorKind::Permanent, "{code}");
    }
    for code in [159, 202, 241, 242, 243, 252, 319, 999] {
        let text = format!("Code: {code}. DB::Exception: whatever");
        assert_eq!(kind(&text), ErrorKind::Transient, "{code}");
    }
    assert_eq!(kind("Code: 4711. DB::Exception: whatever"), ErrorKind::Other);
    assert_eq!(kind("502 Bad Gateway"), ErrorKind::Other);
    assert_eq!(ClickHouseError::Timeout(std::time::Duration::ZERO).kind(), ErrorKind::Timeout);
    let broken = clickhouse::error::Error::Network("connection refused".into());
    assert_eq!(ClickHouseError::from(broken).kind(), ErrorKind::Unreachable);
}

#[test]
fn every_kind_of_error_is_a_label_that_the_metrics_declare() {
    use ErrorKind::{Other, Permanent, Timeout, Transient, Unreachable};
    for kind in [Unreachable, Timeout, Transient, Permanent, Other] {
        assert!(crate::metrics::CLICKHOUSE_ERROR_KINDS.contains(&kind.as_str()));
    }
    for schema in super::tables::ALL {
        assert!(crate::metrics::TABLES.contains(&schema.table));
    }
}
