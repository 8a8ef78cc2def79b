//! Records whose wallet lives elsewhere: handed over through intake, and processed once there.

use super::bench::through_intake;
use super::*;
use crate::ledger::books::Outcome;
use crate::ledger::headers;
use crate::ledger::outbox::OutTopic;
use crate::wallet::LedgerRecord;

const SHARDS: i32 = 3;

/// A charge of a wallet of shard `home`, written to partition `partition`.
fn misplaced(id: &str, home: i32, partition: i32) -> Made {
    usage(id, &format!("job-{id}"), 4).of_wallet(&wallet_of(home, SHARDS)).at_partition(partition)
}

#[test]
fn a_record_of_the_right_partition_stays_whatever_its_key() {
    let mut bench = Bench::with_shards(SHARDS);
    for shard in 0..SHARDS {
        let record = misplaced(&format!("e{shard}"), shard, shard);
        assert_eq!(bench.one(&record), "charged");
        assert_eq!(bench.one(&misplaced(&format!("k{shard}"), shard, shard).keyed("anything")), "charged");
        assert_eq!(bench.balance(&wallet_of(shard, SHARDS)), -8);
        assert!(is_home(&wallet_of(shard, SHARDS), shard, SHARDS));
    }
}

#[test]
fn a_record_of_another_shard_is_handed_over_as_it_came_with_its_origin() {
    let mut bench = Bench::with_shards(SHARDS);
    let record = misplaced("e1", 2, 0).keyed("its key").at_offset(7).header("traceparent", "00-1");
    let computed = bench.run(std::slice::from_ref(&record));
    assert_eq!(computed.entries(), Vec::<String>::new());
    assert_eq!(bench.count(GENERATION, 0, Outcome::HandedOver), 1);
    let sent = &computed.sent()[..];
    let [sent] = sent else { panic!("{sent:?}") };
    assert!(!sent.is_quarantine);
    assert_eq!((sent.partition, sent.key.as_deref()), (2, Some(wallet_of(2, SHARDS).as_str())));
    assert_eq!(sent.value, record.value);
    let expected = [
        ("traceparent", "00-1"),
        (headers::TOPIC, "generation.events"),
        (headers::TOPIC_ID, "generation.events-id"),
        (headers::PARTITION, "0"),
        (headers::OFFSET, "7"),
        (headers::TIME, bench::NOW),
        (headers::KEY, "its key"),
    ];
    for (name, value) in expected {
        assert_eq!(sent.header(name), value, "{name}");
    }
    assert_eq!(sent.headers.len(), expected.len());
}

#[test]
fn a_handed_over_record_is_charged_once_under_its_origin() {
    let mut bench = Bench::with_shards(SHARDS);
    let sent = bench.run(&[misplaced("e1", 2, 0).at_offset(7).keyed("k")]).sent().remove(0);
    let computed = bench.run(&[through_intake(&sent, 100)]);
    let (partition, _, value) = computed.records(OutTopic::Ledger).remove(0);
    let record: LedgerRecord<'_> = serde_json::from_str(&value).unwrap();
    let entry = &record.entries[0];
    assert_eq!(partition, 2);
    assert_eq!(
        (&*entry.origin_topic, entry.origin_partition, entry.origin_offset),
        ("generation.events", 0, 7)
    );
    // Handed over a second time, by an instance that did not know that the first had done it.
    assert_eq!(bench.one(&through_intake(&sent, 101)), "skipped");
    assert_eq!(bench.balance(&wallet_of(2, SHARDS)), -4);
    let by_origin = &bench.sources[&(INTAKE, 2)].head.by_origin;
    let [books] = &by_origin[..] else { panic!("{by_origin:?}") };
    assert_eq!((&*books.topic, books.partition), ("generation.events", 0));
    assert_eq!((books.outcomes.get(Outcome::Charged), books.outcomes.get(Outcome::Skipped)), (1, 1));
}

#[test]
fn the_guard_of_origins_knows_topic_topic_id_partition_and_offset() {
    let mut bench = Bench::with_shards(SHARDS);
    let from = |id: &str, topic_id: &str, partition: i32, offset: i64| {
        Made { topic: INTAKE, ..misplaced(id, 1, 1) }
            .header(headers::TOPIC, "generation.events")
            .header(headers::TOPIC_ID, topic_id)
            .header(headers::PARTITION, &partition.to_string())
            .header(headers::OFFSET, &offset.to_string())
            .header(headers::TIME, bench::NOW)
    };
    bench.table(&[
        (from("e1", "id", 0, 5), "charged"),
        (from("e2", "id", 0, 5), "skipped"),
        (from("e2", "id", 0, 4), "skipped"),
        (from("e2", "id", 0, 6), "charged"),
        (from("e3", "id", 2, 5), "charged"),
        // The topic was deleted and made anew: its offsets began again.
        (from("e4", "another", 0, 5), "charged"),
        (from("e5", "id", 0, 6), "skipped"),
        // Whatever its outcome, it was processed.
        (from("e3", "id", 0, 7), "duplicate"),
        (from("e5", "id", 0, 7), "skipped"),
        (from("e5", "id", 0, 8).with("\"images\":4", "\"images\":0"), "bad_value"),
        (from("e5", "id", 0, 8), "skipped"),
        (from("e5", "id", 0, 9), "charged"),
    ]);
    assert_eq!(bench.balance(&wallet_of(1, SHARDS)), -20);
}

/// What a producer wrote into `cs_` headers (a copy of a quarantined record, say) is not taken for our own: it
/// would name another offset, and the record would be skipped there as read before.
#[test]
fn a_producers_own_cs_headers_do_not_survive() {
    let mut bench = Bench::with_shards(SHARDS);
    let forged = |made: Made| {
        made.header(headers::TOPIC, "wallet.events")
            .header(headers::TOPIC_ID, "x")
            .header(headers::PARTITION, "9")
            .header(headers::OFFSET, "0")
            .header(headers::TIME, "2020-01-01T00:00:00Z")
            .header(headers::KEY, "forged")
            .header(headers::REASON, "bad_value")
    };
    let sent = bench.run(&[forged(misplaced("e1", 2, 0)).at_offset(7).keyed("k")]).sent().remove(0);
    assert_eq!(sent.header(headers::TOPIC), "generation.events");
    assert_eq!(sent.header(headers::OFFSET), "7");
    assert_eq!(sent.header(headers::KEY), "k");
    assert_eq!(sent.header(headers::REASON), "");
    assert_eq!(bench.one(&through_intake(&sent, 0)), "charged");
    let quarantined =
        bench.run(&[forged(Made::new(GENERATION, "nonsense")).at_offset(9).keyed("k")]).sent().remove(0);
    assert_eq!(quarantined.header(headers::OFFSET), "9");
    assert_eq!(quarantined.header(headers::REASON), "not_json");
}

#[test]
fn what_cannot_be_decoded_is_quarantined_where_it_was_read() {
    let mut bench = Bench::with_shards(SHARDS);
    let record = Made::new(GENERATION, "nonsense").at_partition(1).at_offset(3).keyed("k").header("h", "v");
    let sent = bench.run(&[record]).sent().remove(0);
    assert!(sent.is_quarantine);
    assert_eq!(
        (sent.partition, sent.key.as_deref(), sent.value.as_deref()),
        (1, Some("k"), Some(&b"nonsense"[..]))
    );
    for (name, value) in [
        ("h", "v"),
        (headers::REASON, "not_json"),
        (headers::TOPIC, "generation.events"),
        (headers::TOPIC_ID, "generation.events-id"),
        (headers::PARTITION, "1"),
        (headers::OFFSET, "3"),
        (headers::TIME, bench::NOW),
    ] {
        assert_eq!(sent.header(name), value, "{name}");
    }
    let tombstone = Made { value: None, ..Made::new(WALLET, "") };
    let sent = bench.run(&[tombstone]).sent().remove(0);
    assert_eq!((sent.key, sent.value), (None, None), "as it came");
}

#[test]
fn intake_takes_only_what_was_handed_over_to_this_very_shard() {
    let mut bench = Bench::with_shards(SHARDS);
    let sent = bench.run(&[misplaced("e1", 2, 0).keyed("k")]).sent().remove(0);
    let stray = Made { partition: 1, ..through_intake(&sent, 0) };
    assert_eq!(bench.one(&stray), "bad_value");
    let quarantined = bench.run(&[Made { offset: 5, ..stray.clone() }.header("x", "y")]);
    assert_eq!(quarantined.entries(), Vec::<String>::new());
    let without = Made { headers: Vec::new(), ..through_intake(&sent, 0) };
    assert_eq!(bench.one(&without), "not_cloudevent");
    assert_eq!(bench.one(&through_intake(&sent, 1)), "charged");
    // In the quarantine it has the key that its producer gave it, and its first origin.
    let spoilt = Made { value: Some(b"nonsense".to_vec()), ..through_intake(&sent, 2) };
    let spoilt = Made {
        headers: spoilt
            .headers
            .into_iter()
            .map(|(name, value)| if name == headers::OFFSET { (name, b"8".to_vec()) } else { (name, value) })
            .collect(),
        ..spoilt
    };
    let sent = bench.run(&[spoilt]).sent().remove(0);
    assert_eq!(
        (sent.key.as_deref(), sent.header(headers::TOPIC), sent.header(headers::OFFSET)),
        (Some("k"), "generation.events", "8")
    );
    assert_eq!(sent.header(headers::KEY), "");
}

/// A producer of usage must not mint credits by way of intake either.
#[test]
fn the_topic_that_a_record_was_first_written_to_decides_which_types_it_may_have() {
    let mut bench = Bench::with_shards(SHARDS);
    let wallet_id = wallet_of(1, SHARDS);
    for (offset, (topic, expected)) in [
        ("generation.events", "unknown_type"),
        ("long.gone", "unknown_type"),
        ("credits.intake", "unknown_type"),
        ("wallet.events", "granted"),
    ]
    .into_iter()
    .enumerate()
    {
        let record = Made { topic: INTAKE, ..topup("e1", "t1", 100) }
            .of_wallet(&wallet_id)
            .at_partition(1)
            .header(headers::TOPIC, topic)
            .header(headers::TOPIC_ID, "id")
            .header(headers::PARTITION, "0")
            .header(headers::OFFSET, &offset.to_string())
            .header(headers::TIME, bench::NOW);
        assert_eq!(bench.one(&record), expected, "{topic}");
    }
}

#[test]
fn the_time_window_of_a_handed_over_record_is_that_of_its_first_writing() {
    let mut bench = Bench::with_shards(SHARDS);
    let old = misplaced("e1", 2, 0).at("2026-08-01T00:00:00.000Z").written_at("2026-08-01T00:00:00Z");
    let sent = bench.run(&[old]).sent().remove(0);
    assert_eq!(sent.header(headers::TIME), "2026-08-01T00:00:00.000Z");
    // Intake wrote it now; it is as late as it was.
    assert_eq!(bench.one(&through_intake(&sent, 0)), "charged");
}

/// A source with another number of partitions than there are shards.
#[test]
fn a_source_that_is_not_at_home_hands_everything_over() {
    let mut bench = Bench::with_shards(SHARDS);
    bench.sources.insert((GENERATION, 0), bench.source(GENERATION, false));
    for home in 0..SHARDS {
        let record = misplaced(&format!("e{home}"), home, 0);
        let sent = bench.run(&[record]).sent().remove(0);
        assert_eq!((sent.is_quarantine, sent.partition), (false, home));
    }
    let sent = bench.run(&[Made::new(GENERATION, "nonsense")]).sent().remove(0);
    assert_eq!(sent.header(headers::REASON), "not_json");
    // Whether it is in time, a duplicate or bad is asked where its wallet lives.
    assert_eq!(bench.one(&misplaced("e9", 0, 0).with("\"images\":4", "\"images\":0")), "handed_over");
    assert_eq!(bench.one(&misplaced("e9", 0, 0).at("2020-01-01T00:00:00.000Z")), "handed_over");
    assert_eq!(bench.one(&misplaced("e9", 0, 0).at_offset(0)), "skipped");
    assert_eq!(bench.count(GENERATION, 0, Outcome::HandedOver), 5);
}

/// Its records wait where they are: nothing is counted, nothing is committed for them.
#[test]
fn a_shard_that_does_not_run_reads_nothing() {
    let mut bench = Bench::with_shards(SHARDS);
    bench.shards.remove(&1);
    let computed = bench.run(&[misplaced("e1", 1, 1), misplaced("e2", 0, 0)]);
    assert_eq!(computed.posted(), ["e2"]);
    assert_eq!(
        computed.offsets,
        [("generation.events".to_owned(), 0, 1), ("credits.intake".to_owned(), 0, 0)]
    );
    assert_eq!(bench.sources[&(GENERATION, 1)].head.next, 0);
}
