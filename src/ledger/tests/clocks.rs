//! The time window, and what moves the shard clock.

use super::*;
use crate::time::{ShardClock, Timestamp};

fn clock(text: &str) -> ShardClock {
    ShardClock(Timestamp::parse(text).unwrap())
}

/// Horizon 35 days before the clock, skew 5 minutes after the wall clock; equal is in time.
#[test]
fn the_window_begins_and_ends_with_its_bounds() {
    for (time, expected) in [
        ("2026-09-29T10:15:30.000Z", "charged"),
        ("2026-09-29T10:15:29.999Z", "too_old"),
        ("2026-09-29T10:15:29.9999Z", "too_old"),
        ("2026-11-03T10:20:30.000Z", "charged"),
        ("2026-11-03T10:20:30.0009Z", "charged"),
        ("2026-11-03T10:20:30.001Z", "too_far_ahead"),
        ("0000-01-01T00:00:00Z", "too_old"),
        ("9999-12-31T23:59:59.999Z", "too_far_ahead"),
    ] {
        let mut bench = Bench::new();
        bench.set_clock(bench::NOW);
        bench.table(&[(usage("e1", "j1", 4).at(time), expected)]);
        let mut bench = Bench::new();
        bench.set_clock(bench::NOW);
        let free_expected = if expected == "charged" { "free" } else { expected };
        bench.table(&[(free("e1").at(time), free_expected)]);
    }
}

/// What the shard has seen, or the record's own Kafka timestamp, whichever is later; that one never counts beyond
/// the wall clock.
#[test]
fn the_window_is_measured_from_the_shard_clock_or_the_records_own_timestamp() {
    for (shard_clock, written_at, time, expected) in [
        // A replay of old records into a new shard: their own timestamps are old too.
        (None, "2026-08-01T00:00:00Z", "2026-08-01T00:00:00.000Z", "charged"),
        (None, "2026-08-01T00:00:00Z", "2026-06-27T00:00:00.000Z", "charged"),
        (None, "2026-08-01T00:00:00Z", "2026-06-26T23:59:59.999Z", "too_old"),
        (Some("2026-11-03T10:00:00Z"), "2026-08-01T00:00:00Z", "2026-08-01T00:00:00.000Z", "too_old"),
        // An old event that was written now.
        (None, "2026-11-03T10:15:30Z", "2026-09-29T10:15:30.000Z", "charged"),
        (None, "2026-11-03T10:15:30Z", "2026-09-29T10:15:29.999Z", "too_old"),
        (Some("2026-08-01T00:00:00Z"), "2026-11-03T10:15:30Z", "2026-09-29T10:15:29.999Z", "too_old"),
        // A timestamp of the future is worth no more than the wall clock.
        (None, "2027-11-03T10:15:30Z", "2026-09-29T10:15:30.000Z", "charged"),
        // The wall clock alone bounds the future.
        (None, "2026-08-01T00:00:00Z", "2026-11-03T10:20:30.000Z", "charged"),
        (None, "2027-11-03T10:15:30Z", "2026-11-03T10:20:30.001Z", "too_far_ahead"),
    ] {
        let mut bench = Bench::new();
        if let Some(at) = shard_clock {
            bench.set_clock(at);
        }
        let found = bench.one(&usage("e1", "j1", 4).at(time).written_at(written_at));
        assert_eq!(found, expected, "clock {shard_clock:?}, written at {written_at}, event at {time}");
    }
}

#[test]
fn a_record_without_a_timestamp_is_measured_by_the_shard_clock() {
    let mut bench = Bench::new();
    bench.set_clock(bench::NOW);
    let mut without = usage("e1", "j1", 4).at("2026-09-29T10:15:30.000Z");
    without.timestamp = Timestamp::from_millis(-1);
    bench.table(&[
        (without.clone(), "charged"),
        (without.with("09-29T10:15:30.000", "09-29T10:15:29.999"), "too_old"),
    ]);
}

#[test]
fn accepted_and_free_events_move_the_clock_and_nothing_else_does() {
    let mut bench = Bench::new();
    bench.set_clock("2026-11-03T09:00:00Z");
    let at = |made: Made, minute: u32| made.at(&format!("2026-11-03T10:{minute:02}:00.000Z"));
    for (record, expected, reads) in [
        (at(usage("e1", "j1", 4), 1), "charged", "2026-11-03T10:01:00Z"),
        (at(free("f1"), 2), "free", "2026-11-03T10:02:00Z"),
        // Quarantined, for whatever reason.
        (at(usage("e2", "j2", 0), 10), "bad_value", "2026-11-03T10:02:00Z"),
        (at(usage("e1", "j1", 4), 10), "id_conflict", "2026-11-03T10:02:00Z"),
        (at(usage("e3", "j1", 4), 10), "job_conflict", "2026-11-03T10:02:00Z"),
        (at(usage("e4", "j4", 4), 21), "too_far_ahead", "2026-11-03T10:02:00Z"),
        (at(topup("e5", "t1", 99), 10), "unknown_topup", "2026-11-03T10:02:00Z"),
        (at(usage("e1", "j1", 4), 1), "duplicate", "2026-11-03T10:02:00Z"),
        (at(usage("e6", "j6", 4), 3).at_offset(0), "skipped", "2026-11-03T10:02:00Z"),
        // Earlier events do not turn it back.
        (at(usage("e6", "j6", 4), 1), "charged", "2026-11-03T10:02:00Z"),
        // Two sources are being read now: the slower one leads.
        (at(topup("e7", "t1", 100), 5), "granted", "2026-11-03T10:02:00Z"),
        (at(free("f2"), 8), "free", "2026-11-03T10:05:00Z"),
        // Ahead of the wall clock, inside the skew: the clock goes no further than the wall.
        (at(usage("e8", "j8", 4), 20), "charged", "2026-11-03T10:05:00Z"),
        (at(topup("e9", "t2", 100), 20), "granted", bench::NOW),
    ] {
        assert_eq!(bench.one(&record), expected, "{record:?}");
        assert_eq!(bench.clock(), clock(reads), "after {record:?}");
    }
}

/// While two sources are being read, the slower one holds the clock; at its end it no longer does.
#[test]
fn the_end_of_a_source_is_marked_after_the_records_before_it() {
    let mut bench = Bench::new();
    bench.set_clock("2026-11-03T09:00:00Z");
    let late = topup("e1", "t1", 100).at("2026-11-03T09:30:00.000Z");
    let early = usage("e2", "j2", 4).at("2026-11-03T10:00:00.000Z");
    bench.run(&[late, early]);
    assert_eq!(bench.clock(), clock("2026-11-03T09:30:00Z"), "both are being read");
    bench.ends_at(WALLET, 1);
    bench.run(&[free("f1").at("2026-11-03T10:01:00.000Z")]);
    assert_eq!(bench.clock(), clock("2026-11-03T10:01:00Z"), "the wallet topic is at its end");
}

/// Another source has shown nothing since the assignment, so the clock stands: what is due to a wallet by the time of its own
/// event is there all the same, and nobody else's is posted.
#[test]
fn what_is_due_by_the_time_of_an_event_is_posted_before_it() {
    let mut bench = Bench::with_limit(0);
    let started = |made: Made| made.with("2026-11-01", "2026-10-03").at("2026-10-03T00:00:00.000Z");
    bench.table(&[
        (started(contract("e1", "c1", "lite")), "contract"),
        (started(contract("e2", "c2", "lite")).of_wallet("w2"), "contract"),
        (usage("e3", "j1", 200).at("2026-10-03T00:00:00.000Z"), "charged"),
        (usage("e4", "j2", 1).at("2026-11-02T23:59:59.999Z"), "refused"),
        (usage("e5", "j3", 200).at("2026-11-03T00:00:00.000Z"), "charged"),
        (usage("e6", "j4", 1).at("2026-11-03T00:00:00.000Z"), "refused"),
        // Also where the event is for nothing else; an event that is late turns nothing back.
        (usage("e7", "j5", 1).at("2026-11-01T00:00:00.000Z"), "refused"),
    ]);
    assert!(bench.clock() < clock("2026-11-03T00:00:00Z"), "{:?}", bench.clock());
    assert_eq!((bench.balance("w1"), bench.balance("w2")), (0, 200), "w2 has had no event of November");
}
