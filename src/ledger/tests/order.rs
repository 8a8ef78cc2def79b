//! The order in which the sources of one batch are merged, and the guards against reading twice.

use super::*;
use crate::ledger::books::Outcome;
use crate::ledger::compute::helpers;
use crate::ledger::process::Tally;
use crate::time::Timestamp;

fn minute(made: Made, minute: u32) -> Made {
    made.at(&format!("2026-11-03T10:{minute:02}:00.000Z"))
}

#[test]
fn sources_are_merged_by_event_time_and_each_keeps_its_own_order() {
    let mut bench = Bench::new();
    let computed = bench.run(&[
        minute(usage("g1", "j1", 1), 1),
        minute(usage("g2", "j2", 1), 5),
        // Late in its own partition: it waits for the one before it.
        minute(usage("g3", "j3", 1), 2),
        minute(usage("g4", "j4", 1), 7),
        minute(topup("w1", "t1", 100), 3),
        minute(topup("w2", "t2", 100), 4),
        minute(topup("w3", "t3", 100), 6),
    ]);
    assert_eq!(computed.posted(), ["g1", "w1", "w2", "g2", "g3", "w3", "g4"]);
}

/// Records are merged a few at a time.
#[test]
fn a_large_batch_is_merged_as_a_small_one_is_and_nothing_of_it_is_left() {
    for records in [1, 63, 64, 65, 128, 129, 2_600] {
        let at =
            |number: i64| Timestamp::parse("2026-11-03T09:00:00.000Z").unwrap().plus_millis(number * 100);
        let mut bench = Bench::new();
        let made: Vec<Made> = (0..records)
            .map(|number: i64| {
                let made = match number % 3 {
                    0 => topup(&format!("e{number}"), &format!("t{number}"), 100),
                    _ => usage(&format!("e{number}"), &format!("j{number}"), 1),
                };
                made.at(&at(number).to_string())
            })
            .collect();
        let computed = bench.run(&made);
        let expected: Vec<String> = (0..records).map(|number| format!("e{number}")).collect();
        assert_eq!(computed.posted(), expected, "{records} records");
        assert_eq!(
            bench.sources[&(GENERATION, 0)].head.next + bench.sources[&(WALLET, 0)].head.next,
            records
        );
    }
}

/// Each of five shards has accepted, rejected and foreign records and wallets with allocations due; a sixth partition is
/// at home nowhere.
#[test]
fn a_batch_computed_by_many_threads_writes_what_one_thread_writes() {
    const SHARDS: i32 = 5;
    let with_threads = |threads| {
        let mut bench = Bench::with_shards(SHARDS);
        bench.helpers = helpers(0, threads).unwrap();
        assert_eq!(bench.helpers.is_some(), threads > 1);
        let elsewhere = bench.source(GENERATION, false);
        bench.sources.insert((GENERATION, SHARDS), elsewhere);
        let mut written = Vec::new();
        for round in 0..5 {
            if round == 4 {
                // A month later allocations are due, and no event touches a wallet.
                bench.wall = Timestamp::parse("2026-12-03T10:15:30.000Z").unwrap();
                bench.set_clock("2026-12-03T10:15:30.000Z");
            }
            let records = (0..300_i32).map(|n| {
                let (id, partition) = (format!("{round}-{n}"), n % (SHARDS + 1));
                let home = if n % 7 == 0 { n % SHARDS } else { partition % SHARDS };
                let made = match n % 11 {
                    _ if round == 4 => free(&id),
                    0 => contract(&id, &id, "scale"),
                    1 => topup(&id, &id, 100),
                    2 => usage(&id, &id, 0),
                    _ => usage(&id, &id, 1),
                };
                let partition = if made.topic == GENERATION { partition } else { home };
                minute(made.of_wallet(&wallet_of(home, SHARDS)), n as u32 % 60).at_partition(partition)
            });
            let computed = bench.run(&records.collect::<Vec<_>>());
            let Tally { posted, reasons, flows, .. } = &computed.tally;
            written.push(format!("{} {posted:?} {reasons:?} {flows:?}", computed.bytes()));
            bench.recycle(computed);
        }
        (written, bench.counts())
    };
    let (alone, counts) = with_threads(1);
    assert!(alone[4].contains("granted"), "{}", alone[4]);
    assert!(counts.iter().filter(|count| **count > 2).count() >= 5, "{counts:?}");
    for threads in [2, 4, 4, 4] {
        assert!(with_threads(threads) == (alone.clone(), counts.clone()), "{threads} threads");
    }
}

/// So that a contract and the first usage of the same instant come in the right order.
#[test]
fn wallet_events_go_first_on_ties() {
    let mut bench = Bench::new();
    let computed = bench.run(&[
        usage("g1", "j1", 1),
        usage("g2", "j2", 1),
        topup("w1", "t1", 100),
        topup("w2", "t2", 100),
    ]);
    assert_eq!(computed.posted(), ["w1", "w2", "g1", "g2"]);
}

/// Also where they come by way of intake, which carries both kinds.
#[test]
fn wallet_events_of_intake_go_first_on_ties_too() {
    let handed_over = |made: Made, topic: &str, offset: i64| {
        Made { topic: INTAKE, ..made }
            .header("cs_topic", topic)
            .header("cs_topic_id", "id")
            .header("cs_partition", "5")
            .header("cs_offset", &offset.to_string())
            .header("cs_time", bench::NOW)
    };
    let mut bench = Bench::new();
    let computed = bench.run(&[
        usage("g1", "j1", 1),
        handed_over(topup("i1", "t1", 100), "wallet.events", 1),
        handed_over(usage("i2", "j2", 1), "generation.events", 1),
        topup("w1", "t2", 100),
    ]);
    let posted = computed.posted();
    let place = |id: &str| posted.iter().position(|posted| posted == id).unwrap();
    assert!(place("i1") < place("g1") && place("w1") < place("g1"), "{posted:?}");
    assert!(place("i1") < place("i2"), "each partition's order is kept: {posted:?}");
}

#[test]
fn what_cannot_be_decoded_holds_nothing_up() {
    let mut bench = Bench::new();
    let computed = bench.run(&[
        Made::new(GENERATION, "nonsense"),
        minute(usage("g1", "j1", 1), 1),
        Made::new(WALLET, "nonsense"),
        minute(topup("w1", "t1", 100), 2),
    ]);
    assert_eq!(computed.posted(), ["g1", "w1"]);
    assert_eq!(computed.sent().len(), 2);
}

/// First of all checks: whatever such a record says, it was read before.
#[test]
fn a_record_at_or_below_the_last_offset_is_skipped_and_counted() {
    let mut bench = Bench::new();
    bench.table(&[
        (usage("e1", "j1", 1).at_offset(10), "charged"),
        (usage("e2", "j2", 1).at_offset(10), "skipped"),
        (usage("e2", "j2", 1).at_offset(9), "skipped"),
        (usage("e2", "j2", 1).at_offset(0), "skipped"),
        (Made::new(GENERATION, "nonsense").at_offset(10), "skipped"),
        // Offsets may have gaps.
        (usage("e3", "j3", 1).at_offset(12), "charged"),
        (usage("e2", "j2", 1).at_offset(11), "skipped"),
        // Each partition has its own.
        (topup("e4", "t1", 100).at_offset(3), "granted"),
        // Quarantined, free and duplicate ones were read as well.
        (Made::new(GENERATION, "nonsense").at_offset(13), "not_json"),
        (usage("e5", "j5", 1).at_offset(13), "skipped"),
        (free("f1").at_offset(14), "free"),
        (usage("e5", "j5", 1).at_offset(14), "skipped"),
        (usage("e1", "j1", 1).at_offset(15), "duplicate"),
        (usage("e5", "j5", 1).at_offset(15), "skipped"),
        (usage("e5", "j5", 1).at_offset(16), "charged"),
    ]);
    assert_eq!(bench.balance("w1"), 552);
    assert_eq!(bench.count(GENERATION, 0, Outcome::Skipped), 8);
    assert_eq!(bench.sources[&(GENERATION, 0)].head.next, 17);
}

/// The consumer group was reset to the beginning.
#[test]
fn reading_everything_again_posts_nothing() {
    let mut bench = Bench::new();
    let records: Vec<Made> =
        (0..20_i64).map(|n| usage(&format!("e{n}"), &format!("j{n}"), 1).at_offset(n)).collect();
    bench.run(&records);
    let again = bench.run(&records);
    assert_eq!(again.entries(), Vec::<String>::new());
    assert_eq!(bench.count(GENERATION, 0, Outcome::Skipped), 20);
    assert_eq!(bench.balance("w1"), -20);
    assert_eq!(again.offsets, [("generation.events".to_owned(), 0, 20)]);
}

/// Once new records have come offsets never go back, unless it is another topic of that name or a log that was cut. What
/// stands there now must not be taken for what was read before: the worker drops the batch, and reads it no more.
#[test]
fn offsets_that_go_back_are_told_apart_from_a_group_that_was_reset() {
    let mut bench = Bench::new();
    let went_back = |bench: &Bench| bench.sources[&(GENERATION, 0)].went_back;
    bench.run(&[usage("e1", "j1", 1).at_offset(5)]);
    bench.run(&[usage("e1", "j1", 1).at_offset(5)]);
    assert_eq!(
        (went_back(&bench), bench.count(GENERATION, 0, Outcome::Skipped)),
        (None, 1),
        "the group was reset"
    );
    let next = bench.batch(&[
        usage("e2", "j2", 1).at_offset(6),
        usage("e3", "j3", 1).at_offset(0),
        usage("e4", "j4", 1),
    ]);
    let computed = bench.compute(&next);
    assert_eq!((went_back(&bench), computed.posted()), (Some(0), vec!["e2".to_owned()]));
}
