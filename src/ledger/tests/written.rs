//! What one transaction writes, and what is counted.

use super::bench::event;
use super::*;
use crate::alert::{Alert, AlertKind};
use crate::event::Reason;
use crate::ledger::outbox::OutTopic;
use crate::ledger::process::Flows;
use crate::ledger::{PartitionProgress, ShardProgress};
use crate::time::Timestamp;
use crate::wallet::{Level, WalletSnapshot};

fn batch() -> Vec<Made> {
    let w2 = |made: Made| made.of_wallet(&wallet_of(1, 2)).at_partition(1);
    let here = |made: Made| made.of_wallet(&wallet_of(0, 2));
    vec![
        here(contract("e1", "c1", "lite")),
        here(usage("e2", "j1", 4)),
        here(usage("e3", "j2", 300)),
        here(topup("e4", "t1", 100)),
        here(adjustment("e5", "a1", 9)),
        here(adjustment("e6", "a2", -8)),
        here(usage("e7", "j3", 0)),
        w2(usage("e8", "j1", 5)),
        w2(free("f1")),
        here(usage("e9", "j9", 1)).at_partition(1),
        Made::new(WALLET, "nonsense"),
    ]
}

#[test]
fn entries_snapshots_and_positions_of_all_that_was_touched_are_written_together() {
    let mut bench = Bench::with_shards(2);
    let computed = bench.run(&batch());
    let (here, there) = (wallet_of(0, 2), wallet_of(1, 2));

    let homes: Vec<(i32, String)> =
        computed.records(OutTopic::Ledger).into_iter().map(|(partition, key, _)| (partition, key)).collect();
    assert!(homes.iter().all(|(partition, key)| is_home(key, *partition, 2)), "{homes:?}");

    let mut snapshots = computed.records(OutTopic::Wallets);
    snapshots.sort();
    assert_eq!(snapshots.len(), 2);
    for ((partition, key, value), (home, wallet_id)) in snapshots.iter().zip([(0, &here), (1, &there)]) {
        let snapshot: WalletSnapshot<'_> = serde_json::from_str(value).unwrap();
        assert_eq!((*partition, key, &*snapshot.wallet_id), (home, wallet_id, wallet_id.as_str()));
        assert_eq!(snapshot.into_wallet(), bench.wallet(wallet_id).unwrap());
    }

    let progress = computed.records(OutTopic::Progress);
    let keys: Vec<(i32, &str)> =
        progress.iter().map(|(partition, key, _)| (*partition, key.as_str())).collect();
    assert_eq!(
        keys,
        [
            (0, "shard/0"),
            (0, "generation.events/0"),
            (0, "wallet.events/0"),
            // A shard that was touched commits intake's offset along, read from or not.
            (0, "credits.intake/0"),
            (1, "shard/1"),
            (1, "generation.events/1"),
            (1, "credits.intake/1")
        ]
    );
    let shard: ShardProgress = serde_json::from_str(&progress[0].2).unwrap();
    assert_eq!(
        (shard.batch, shard.group.as_str(), shard.clock.to_string().as_str()),
        (1, "group", bench::NOW)
    );
    assert_eq!(shard.config_hash, bench.policy.hash_up_to(bench.clock()));
    let source: PartitionProgress = serde_json::from_str(&progress[1].2).unwrap();
    assert_eq!(
        (source.offset, source.at_home, source.partitions, &*source.topic_id),
        (2, true, 2, "generation.events-id")
    );
    assert_eq!(serde_json::to_string(&source.outcomes).unwrap(), r#"{"charged":2,"quarantined":1}"#);
    let source: PartitionProgress = serde_json::from_str(&progress[5].2).unwrap();
    assert_eq!(serde_json::to_string(&source.outcomes).unwrap(), r#"{"charged":1,"free":1,"handed_over":1}"#);
    assert_eq!(
        computed.offsets,
        [
            ("generation.events".to_owned(), 0, 3),
            ("generation.events".to_owned(), 1, 3),
            ("wallet.events".to_owned(), 0, 5),
            ("credits.intake".to_owned(), 0, 0),
            ("credits.intake".to_owned(), 1, 0)
        ]
    );
}

#[test]
fn credits_are_counted_by_flow_and_quarantined_records_by_reason() {
    let mut bench = Bench::with_shards(2);
    let tally = bench.run(&batch()).tally;
    assert_eq!(
        tally.flows,
        Flows { granted: 755, charged: 309, adjusted_up: 9, adjusted_down: 8, ..Flows::default() }
    );
    let mut reasons = tally.reasons.clone();
    reasons.sort();
    assert_eq!(reasons, [Reason::NotJson, Reason::BadValue]);
    assert_eq!(tally.posted.len(), 7, "one timestamp for each posted record");
    assert!(tally.posted.iter().all(|at| *at == Timestamp::parse(bench::NOW).unwrap()));
}

#[test]
fn refused_credits_are_counted_as_refused() {
    let mut bench = Bench::with_limit(10);
    bench.run(&[contract("e1", "c1", "lite")]);
    let tally = bench.run(&[usage("e2", "j1", 211)]).tally;
    assert_eq!(tally.flows, Flows { refused: 211, ..Flows::default() });
}

#[test]
fn refunds_of_jobs_that_nobody_has_heard_of_are_counted() {
    let mut bench = Bench::new();
    let refund = |id: &str, job: &str| {
        event(GENERATION, "generation.refunded", id, &format!(r#"{{"job_id":"{job}","reason":"late"}}"#))
    };
    let tally = bench.run(&[usage("e1", "j1", 1), refund("e2", "j1"), refund("e3", "j2")]).tally;
    assert_eq!(tally.unknown_refunds, 1);
    let failed = r#"{"job_id":"j3","reason":"unknown_job"}"#;
    let failed = event(GENERATION, "generation.failed", "e6", failed);
    let tally = bench.run(&[refund("e4", "j2"), refund("e5", "j1"), failed]).tally;
    assert_eq!(tally.unknown_refunds, 0, "noted before, given back before, and no refund");
}

#[test]
fn a_batch_of_records_that_were_read_before_moves_nothing_but_the_books() {
    let mut bench = Bench::new();
    bench.run(&[usage("e1", "j1", 1).at_offset(0)]);
    let computed = bench.run(&[usage("e1", "j1", 1).at_offset(0)]);
    assert!(computed.records(OutTopic::Ledger).is_empty() && computed.records(OutTopic::Wallets).is_empty());
    let keys: Vec<String> = computed.records(OutTopic::Progress).into_iter().map(|(_, key, _)| key).collect();
    assert_eq!(keys, ["generation.events/0"]);
}

/// All that is written keeps to its schema.
#[test]
fn everything_that_is_written_is_valid_by_its_schema() {
    let validator = |text: &str| jsonschema::validator_for(&serde_json::from_str(text).unwrap()).unwrap();
    let schemas = [
        (OutTopic::Ledger, validator(include_str!("../../../config/schemas/ledger-record.schema.json"))),
        (OutTopic::Alerts, validator(include_str!("../../../config/schemas/alert.schema.json"))),
        (OutTopic::Wallets, validator(include_str!("../../../config/schemas/wallet-snapshot.schema.json"))),
        (OutTopic::Progress, validator(include_str!("../../../config/schemas/progress.schema.json"))),
    ];
    let mut bench = Bench::with_shards(2);
    let first = bench.run(&batch());
    let handed_over = bench::through_intake(first.sent().iter().find(|sent| !sent.is_quarantine).unwrap(), 0);
    let mut limited = Bench::with_limit(0);
    limited.run(&[contract("e1", "c1", "lite")]);
    let written = [first, bench.run(&[handed_over]), limited.run(&[usage("e2", "j2/a", 900)])];
    for computed in &written {
        for (topic, schema) in &schemas {
            for (_, _, value) in computed.records(*topic) {
                let value = serde_json::from_str(&value).unwrap();
                let errors: Vec<String> = schema.iter_errors(&value).map(|error| error.to_string()).collect();
                assert!(errors.is_empty(), "{errors:?}\n{value:#}");
            }
        }
    }
}

#[test]
fn alerts_go_where_the_entries_go_that_raise_them_and_are_counted() {
    let mut bench = Bench::with_shards(2);
    let wallet_id = wallet_of(1, 2);
    let there = |made: Made| made.of_wallet(&wallet_id).at_partition(1);
    let first = bench.run(&[there(topup("e1", "t1", 100))]);
    assert!(first.records(OutTopic::Alerts).is_empty() && first.tally.alerts.is_empty(), "it begins at ok");

    // 111 of 555 are a fifth, 27 less than a twentieth; the second is sent twice.
    let burnt = [usage("e2", "j1", 444), usage("e3", "j2", 1), usage("e3", "j2", 1), usage("e4", "j3", 83)];
    let computed = bench.run(&burnt.map(there));
    let ids: Vec<(i32, String, String)> = computed
        .records(OutTopic::Alerts)
        .into_iter()
        .map(|(partition, key, value)| {
            let alert: Alert<'_> = serde_json::from_str(&value).unwrap();
            (partition, key, alert.alert_id.into_owned())
        })
        .collect();
    let expected = |id: &str| (1, wallet_id.clone(), format!("{wallet_id}:{id}"));
    assert_eq!(ids, [expected("low:2"), expected("critical:4")]);
    let level = |level| (AlertKind::Level, level);
    assert_eq!(computed.tally.alerts, [level(Level::Low), level(Level::Critical)]);
}
