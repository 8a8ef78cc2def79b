//! Dies at every named point of the code (src/fault.rs), as if it were killed between those two lines, and goes on.
//! Afterwards the proof must hold to the credit, and every alert have arrived.
//!
//! `cargo test --release --features fault-points --test crashes`
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use common::alerts::{LOCAL, by_wallet, endpoint, lives, post};
use common::deployment::everything;
use common::receiver::{Receiver, Reply};
use common::{Deployment, kafka};

/// For a process that dies under load, and for what it left behind to be taken up.
const DEATH_PATIENCE: Duration = Duration::from_secs(40);

/// A test for each point, and at which time there it dies: where it can, after something was committed.
macro_rules! points {
    ($list:ident, $check:ident: $($test:ident: $point:literal, $time:literal;)*) => {
        const $list: &[&str] = &[$($point),*];
        $(
            #[test]
            fn $test() {
                $check($point, $time);
            }
        )*
    };
}

points! { POINTS, dies_and_goes_on:
    shards_assigned: "shards.assigned", 1;
    shards_restored: "shards.restored", 1;
    batch_computed: "batch.computed", 5;
    batch_sent: "batch.sent", 5;
    batch_applied: "batch.applied", 5;
    commit_before_begin: "commit.before_begin", 5;
    commit_begun: "commit.begun", 5;
    commit_entries_queued: "commit.entries_queued", 5;
    commit_alerts_queued: "commit.alerts_queued", 5;
    commit_progress_queued: "commit.progress_queued", 5;
    commit_handed_over: "commit.handed_over", 5;
    commit_flushed: "commit.flushed", 5;
    commit_offsets_sent: "commit.offsets_sent", 5;
    commit_settled: "commit.settled", 5;
    checkpoint_created: "checkpoint.created", 3;
    checkpoint_without_checksum: "checkpoint.without_checksum", 3;
    checkpoint_written: "checkpoint.written", 3;
    checkpoint_renamed: "checkpoint.renamed", 3;
    segment_before_sync: "segment.before_sync", 2;
    segment_written: "segment.written", 2;
    segment_renamed: "segment.renamed", 2;
    sink_frozen: "sink.frozen", 3;
    sink_piece_sent: "sink.piece_sent", 5;
    sink_one_table_inserted: "sink.one_table_inserted", 5;
    sink_inserted: "sink.inserted", 3;
    sink_offsets_committed: "sink.offsets_committed", 3;
}

points! { DISPATCHER_POINTS, dies_and_delivers:
    // Both endpoints have one then.
    dispatcher_group_placed: "dispatcher.group_placed", 2;
    dispatcher_read: "dispatcher.read", 9;
    dispatcher_before_request: "dispatcher.before_request", 9;
    dispatcher_answered: "dispatcher.answered", 9;
    dispatcher_settled: "dispatcher.settled", 4;
    dispatcher_positions_committed: "dispatcher.positions_committed", 2;
    dispatcher_before_dead: "dispatcher.before_dead", 9;
    dispatcher_dead_written: "dispatcher.dead_written", 9;
}

fn dies_and_goes_on(point: &str, time: u32) {
    let deployment = Deployment::with(&[
        ("ledger.static_membership", "true"),
        ("ledger.batch_events_max", "200"),
        ("store.identities_in_memory", "10000"),
    ]);
    let load = deployment.generate_slowly(&everything(10_000, 100), 3_000);
    let mut instance = deployment.start_at_fault(&[], &format!("{point}:{time}"));
    instance.wait_for_abort(DEATH_PATIENCE);
    let mut instance = deployment.start(&[]);
    let books = load.join().unwrap();
    let ledger = deployment.assert_proof_with_clickhouse(&books);
    assert!(ledger.alerts.len() > 20, "wallets with alerts: {}", ledger.alerts.len());
    instance.terminate();
}

/// One endpoint takes what it is sent, another is gone: each alert is taken by the one, always under the same id, and
/// dead for the other, both in the order of its wallet.
fn dies_and_delivers(point: &str, time: u32) {
    let good = Receiver::start(|_, _| Reply::Slow(Duration::from_millis(20)));
    let gone = Receiver::start(|_, _| Reply::Status(410));
    let endpoints = [endpoint("good", &good.url(), LOCAL), endpoint("gone", &gone.url(), LOCAL)];
    let deployment = Deployment::with(&[("dispatcher.endpoints", &format!("[{}]", endpoints.join(", ")))]);
    let alerts = lives(6, 5);
    let mut instance = deployment.start_at_fault(&["dispatcher"], &format!("{point}:{time}"));
    post(&deployment, &alerts);
    instance.wait_for_abort(DEATH_PATIENCE);
    let dead_before = dead_of(&deployment, "gone");
    let mut instance = deployment.start(&["dispatcher"]);
    let all: BTreeSet<String> = alerts.iter().map(ToString::to_string).collect();
    let dead = common::wait_for("every alert to be taken and dead", DEATH_PATIENCE, || {
        let taken: BTreeSet<String> = good.requests().into_iter().map(|request| request.body).collect();
        let dead = dead_of(&deployment, "gone");
        let bodies: BTreeSet<&String> = dead.iter().map(|(_, body)| body).collect();
        (taken == all && bodies.len() == all.len()).then_some(dead)
    });
    let requests = good.requests();
    common::alerts::assert_in_order(&by_wallet(&requests));
    let ids: BTreeSet<(&str, &str)> =
        requests.iter().map(|request| (request.id(), request.body.as_str())).collect();
    assert_eq!(ids.len(), all.len(), "an alert came under two ids");
    assert!(dead_before.iter().all(|record| dead.contains(record)), "a dead alert is lost");
    let mut seqs: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for (_, body) in &dead {
        let alert: serde_json::Value = serde_json::from_str(body).unwrap();
        let wallet = alert["wallet_id"].as_str().unwrap().to_owned();
        seqs.entry(wallet).or_default().push(alert["seq"].as_u64().unwrap());
    }
    common::alerts::assert_in_order(&seqs);
    assert_eq!(dead_of(&deployment, "good"), [], "what was taken is not dead");
    instance.terminate();
}

/// Dead alerts of an endpoint: where they stand, and what they say.
fn dead_of(deployment: &Deployment, endpoint: &str) -> Vec<((i32, i64), String)> {
    let records = kafka::read_all(&deployment.config, &deployment.config.topics.alerts_dead);
    let of = |record: &kafka::Record| record.header("cs_endpoint").as_deref() == Some(endpoint);
    let told = |record: kafka::Record| ((record.partition, record.offset), record.json().to_string());
    records.into_iter().filter(of).map(told).collect()
}

/// The lists above are those of the code: a point without a test would be one that nobody has died at.
#[test]
fn every_point_of_the_code_has_its_test() {
    let mut found = BTreeSet::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = std::fs::read_to_string(path).unwrap();
            for after in text.split("fault_point!(\"").skip(1) {
                let point = after.split('"').next().unwrap().to_owned();
                assert!(found.insert(point.clone()), "{point} stands twice in the code");
            }
        }
    }
    let tested = POINTS.iter().chain(DISPATCHER_POINTS).map(|point| (*point).to_owned());
    assert_eq!(found, tested.collect());
}
