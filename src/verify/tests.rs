//! What the fold of a shard finds, on records made by hand.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use serde_json::{Value, json};

use super::fold::{HourTotals, Origin, ShardFold, Window, hour_of};
use super::repair::{ENTRIES_MAX, ToMend, WALLETS_MAX};
use super::report::{Between, Check};
use super::source::Progress;
use crate::time::Timestamp;

fn at(text: &str) -> Timestamp {
    Timestamp::parse(text).unwrap()
}

const HOUR: &str = "2026-11-01T10:00:00.000Z";

/// An entry of `ws_1`, posted in [`HOUR`].
fn entry(seq: u64, credits: i64, balance_after: i64) -> Value {
    json!({
        "seq": seq, "entry_type": "charged", "credits": credits, "posted_at": HOUR, "event_time": HOUR, "level": "ok",
        "balance_after": balance_after, "origin_topic": "usage", "origin_partition": 3, "origin_offset": seq
    })
}

fn record(entries: &[Value]) -> String {
    json!({"v": 1, "wallet_id": "ws_1", "entries": entries}).to_string()
}

struct Run {
    fold: ShardFold,
    source: Check,
    wallets: Check,
}

impl Run {
    fn new(is_whole: bool, sink_position: i64) -> Run {
        let from = if is_whole { Timestamp::MIN } else { at(HOUR) };
        let window = Window { from, to: Timestamp::MAX, is_whole };
        Run {
            fold: ShardFold::new(0, window, sink_position),
            source: Check::new(Between::SourceLedger),
            wallets: Check::new(Between::LedgerWallets),
        }
    }

    /// Reads records, one at each offset from 0 on.
    fn read(mut self, records: &[String]) -> Run {
        for (offset, record) in (0..).zip(records) {
            let (source, wallets) = (&mut self.source, &mut self.wallets);
            self.fold.add(record.as_bytes(), offset, &|_| true, source, wallets);
        }
        self
    }

    fn state(mut self, seq: u64, balance: i64) -> Run {
        let state = json!({"seq": seq, "balance": balance, "held": 0, "overdraft": 0}).to_string();
        self.fold.add_snapshot(b"ws_1", state.as_bytes(), 0, &mut self.wallets);
        self
    }

    /// Sentences, records and credits of both checks.
    fn found(mut self) -> (Vec<String>, u64, u64) {
        self.fold.finish(&mut self.wallets);
        let sum = |of: fn(&Check) -> u64| of(&self.source) + of(&self.wallets);
        let (records, credits) = (sum(|check| check.drift_records), sum(|check| check.drift_credits));
        let all = self.source.differences.into_iter().chain(self.wallets.differences);
        (all.map(|difference| difference.what).collect(), records, credits)
    }
}

#[test]
fn entries_that_follow_upon_each_other_are_no_difference() {
    let records = [record(&[entry(1, 100, 100), entry(2, -8, 92)]), record(&[entry(3, -2, 90)])];
    let run = Run::new(true, i64::MAX).state(3, 90).read(&records);
    assert_eq!(run.fold.posted.values().map(|of| of.records).collect::<Vec<_>>(), [2]);
    assert_eq!((run.fold.entries, run.wallets.compared), (3, 1));
    let totals = run.fold.hours[&hour_of(at(HOUR))];
    let HourTotals { entries, credits, offsets, .. } = totals;
    assert_eq!((entries, credits, offsets), (3, 90, (0, 1)));
    assert_eq!(run.found(), (vec![], 0, 0));
}

#[test]
fn what_is_missing_doubled_or_does_not_add_up_is_named() {
    let first = record(&[entry(1, 100, 100)]);
    // Records, expected words, records and credits that differ.
    let table: &[(&[String], &str, u64, u64)] = &[
        (&[first.clone(), record(&[entry(4, -5, 80)])], "entries 2 to 3 are missing", 2, 15),
        (&[record(&[entry(2, -5, 80)])], "does not follow upon entry 0", 1, 0),
        (&[first.clone(), first.clone()], "stands in the ledger twice, the second time at offset 1", 1, 100),
        (&[first.clone(), record(&[entry(2, -5, 94)])], "by the entries before it that is 95 and 0", 1, 1),
        (&[first.clone(), "{}".to_owned()], "the ledger record at offset 1 cannot be read", 1, 0),
    ];
    for (records, words, differ, credits) in table {
        let found = Run::new(true, i64::MAX).read(records).found();
        assert!(found.0.len() == 1 && found.0[0].contains(words), "{words}: {found:?}");
        assert_eq!((found.1, found.2), (*differ, *credits), "{words}");
    }
}

#[test]
fn what_is_torn_doubled_reordered_or_missing_is_named_by_verify() {
    let charge = |seq: u64| record(&[entry(seq, -5, -5 * seq as i64)]);
    // Entries in the order of the ledger, entry that the latest state covers, expected words of all differences.
    let table: [(&[u64], u64, &[&str]); 5] = [
        (&[1, 2, 3], 3, &[]),
        (&[1, 2], 3, &["covers entry 3, but the ledger ends with entry 2"]),
        (&[1, 2, 2, 3], 3, &["twice, the second time at offset 2"]),
        (&[1, 3, 2], 3, &["entries 2 to 2 are missing", "twice, the second time at offset 2"]),
        (&[1, 3], 3, &["entries 2 to 2 are missing"]),
    ];
    for (seqs, covered, expected) in table {
        let records: Vec<String> = seqs.iter().map(|seq| charge(*seq)).collect();
        let run = Run::new(true, i64::MAX).state(covered, -5 * covered as i64).read(&records);
        let (found, differ, _) = run.found();
        assert_eq!((found.len(), differ), (expected.len(), expected.len() as u64), "{seqs:?}: {found:?}");
        for (what, words) in found.iter().zip(expected) {
            assert!(what.contains(words), "{seqs:?}: {found:?}");
        }
    }
}

#[test]
fn a_double_counts_in_no_total() {
    let first = record(&[entry(1, 100, 100)]);
    let once = Run::new(true, i64::MAX).read(std::slice::from_ref(&first));
    let twice = Run::new(true, i64::MAX).read(&[first.clone(), first]);
    assert_eq!((&once.fold.hours, &once.fold.posted), (&twice.fold.hours, &twice.fold.posted));
}

#[test]
fn a_latest_state_is_compared_at_its_entry_wherever_it_comes() {
    let records = [record(&[entry(1, 100, 100)]), record(&[entry(2, -5, 95)])];
    for (seq, balance, words) in [
        (2, 95, ""),
        (1, 100, ""),
        (2, 96, "its latest state says balance 96, held 0, overdraft 0; its entries say 95, 0, 0"),
        (1, 95, "its latest state says balance 95"),
        (3, 95, "covers entry 3, but the ledger ends with entry 2"),
    ] {
        let found = Run::new(true, i64::MAX).state(seq, balance).read(&records).found().0;
        assert_eq!(found.len(), usize::from(!words.is_empty()), "{seq} {balance}: {found:?}");
        assert!(found.iter().all(|what| what.contains(words)), "{found:?}");
    }
    // A watch meets the state after the entry.
    let found = Run::new(false, i64::MAX).read(&records).state(2, 96).found().0;
    assert!(found.len() == 1 && found[0].contains("its latest state says balance 96"), "{found:?}");
}

#[test]
fn a_state_that_stays_behind_is_named_once_it_is_old() {
    let mut late = entry(3, -1, 94);
    for (minutes, differs) in [(9, false), (11, true)] {
        late["posted_at"] = json!(format!("2026-11-01T10:{minutes:02}:00.001Z"));
        let records = [record(&[entry(1, 100, 100)]), record(&[entry(2, -5, 95)]), record(&[late.clone()])];
        let found = Run::new(true, i64::MAX).state(1, 100).read(&records).found().0;
        assert_eq!(found.len(), usize::from(differs), "{minutes}: {found:?}");
        assert!(found.iter().all(|what| what.contains("covers entry 1 only; entry 3 is there")), "{found:?}");
    }
}

#[test]
fn a_window_begins_in_the_middle_of_a_wallets_life() {
    let mut before = entry(6, -5, 200);
    before["posted_at"] = json!("2026-11-01T09:59:59.999Z");
    let records = [record(&[before]), record(&[entry(7, -5, 195)]), record(&[entry(8, -5, 190)])];
    let run = Run::new(false, i64::MAX).read(&records);
    assert_eq!(run.fold.entries, 2, "posted at or after the beginning");
    assert_eq!(run.found(), (vec![], 0, 0));
}

#[test]
fn entries_ahead_of_the_sink_are_counted_once_it_has_come_to_them() {
    let records = [record(&[entry(1, 100, 100)]), record(&[entry(2, -5, 95)]), record(&[entry(3, -5, 90)])];
    let mut run = Run::new(true, 1);
    run.fold.ahead_max = 2;
    let mut run = run.read(&records);
    let counted = |run: &Run| run.fold.hours.values().map(|totals| totals.entries).sum::<u64>();
    assert_eq!((counted(&run), run.fold.ahead()), (1, 2));
    run.fold.advance(2);
    assert_eq!((counted(&run), run.fold.ahead()), (2, 1));
    // The group was reset: what was written is written.
    run.fold.advance(0);
    assert_eq!(run.fold.sink_position(), 2, "ClickHouse is asked for what was counted");
    run.fold.advance(3);
    assert_eq!((counted(&run), run.fold.ahead(), run.fold.is_overfull), (3, 0, false));
    let at_once = Run::new(true, i64::MAX).read(&records);
    assert_eq!(run.fold.hours, at_once.fold.hours);
}

#[test]
fn no_more_entries_ahead_of_the_sink_are_kept_than_there_is_room_for() {
    let records = [record(&[entry(1, 100, 100), entry(2, -5, 95)]), record(&[entry(3, -5, 90)])];
    let mut run = Run::new(true, 0);
    run.fold.ahead_max = 2;
    let run = run.read(&records);
    assert_eq!((run.fold.ahead(), run.fold.is_overfull), (2, true));
}

#[test]
fn what_is_too_much_to_be_mended_is_not_kept() {
    let mut few = ToMend::default();
    (0..WALLETS_MAX).for_each(|n| few.add_state(0, &format!("ws_{n}")));
    (0..ENTRIES_MAX as i64).for_each(|offset| few.add_record(0, offset));
    few.add_record(0, 7);
    assert!(!few.is_too_much());
    few.add_usage(0, "ws_1");
    assert!(few.is_too_much());
    let mut many = ToMend::default();
    (0..=ENTRIES_MAX as u64).for_each(|seq| many.add_extra_entry("ws_1".to_owned(), seq));
    assert!(many.is_too_much());
    // No more is taken in.
    let kept = many.kept();
    many.add_extra_entry("ws_1".to_owned(), 0);
    assert_eq!(many.kept(), kept);
}

/// Books of `usage/3` in shard 3: a topic of that id, read up to that offset, and what an earlier one had posted.
fn books(id: &str, at_home: bool, offset: i64, earlier: u64, origins: &[(&str, i64)]) -> Progress {
    let origins: Vec<Value> = origins
        .iter()
        .map(|(id, offset)| json!({"topic": "usage", "topic_id": id, "partition": 3, "offset": offset}))
        .collect();
    let mut partition = json!({
        "v": 1, "topic_id": id, "partitions": 4, "at_home": at_home, "offset": offset, "outcomes": {}
    });
    if earlier > 0 {
        partition["earlier"] = json!({"charged": earlier});
    }
    let shard = json!({
        "v": 1, "batch": 1, "clock": HOUR, "group": "g", "config_hash": "h", "origins": origins
    });
    Progress::of_records([("usage/3", partition), ("shard/3", shard)])
}

#[test]
fn only_the_newest_topic_of_a_name_is_cut_at_the_books() {
    // Books, and the offsets of the ledger's records in order, with whether they are in the books.
    let table: [(Progress, &[(i64, bool)]); 5] = [
        (books("a", true, 5, 0, &[]), &[(3, true), (5, true), (6, false)]),
        // Made anew, and nothing of it read: what the old one posted is counted, what comes now is not.
        (books("b", true, -1, 2, &[]), &[(3, true), (9, true), (0, false), (1, false)]),
        (books("b", true, 0, 2, &[]), &[(3, true), (9, true), (0, true), (1, false)]),
        // Through intake: the old topic was read up to offset 9, the new one up to 1.
        (
            books("b", false, 4, 0, &[("a", 9), ("b", 1)]),
            &[(3, true), (9, true), (0, true), (1, true), (2, false)],
        ),
        // At home before, through intake now.
        (books("b", false, 4, 2, &[("b", 1)]), &[(3, true), (9, true), (0, true), (1, true), (2, false)]),
    ];
    for (case, (books, records)) in table.iter().enumerate() {
        let of = |(seq, (offset, _)): (u64, &(i64, bool))| {
            let mut entry = entry(seq, 1, seq as i64);
            entry["origin_offset"] = json!(offset);
            record(&[entry])
        };
        let records_of: Vec<String> = (1..).zip(*records).map(of).collect();
        let mut run = Run::new(true, i64::MAX);
        for (offset, value) in (0..).zip(&records_of) {
            let cut = |origin: &Origin<'_>| {
                let is_counted = books.counts(3, "intake", origin);
                assert_eq!(is_counted, records[offset as usize].1, "case {case}, record {offset}");
                is_counted
            };
            run.fold.add(value.as_bytes(), offset, &cut, &mut run.source, &mut run.wallets);
        }
    }
}

#[test]
fn books_of_another_topic_do_not_go_on_from_those_before() {
    let before = books("a", true, 5, 0, &[("a", 9)]);
    for (later, goes_on) in [
        (books("a", true, 6, 0, &[("a", 10)]), true),
        (books("b", true, 6, 3, &[("a", 10)]), false),
        (books("a", false, 6, 0, &[("a", 10)]), false),
        (books("a", true, 4, 0, &[("a", 10)]), false),
        (books("a", true, 6, 0, &[("a", 10), ("b", 0)]), false),
    ] {
        assert_eq!(before.goes_on_in(&later), goes_on);
    }
    // A watch counts what came after its beginning: of the newest topic alone.
    let base = books("b", false, 6, 0, &[("a", 10), ("b", 0)]);
    assert!(base.has_come_to(3, "usage", 3, 0) && !base.has_come_to(3, "usage", 3, 1));
}
