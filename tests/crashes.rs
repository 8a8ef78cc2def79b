//! Dies at every named point of the code (src/fault.rs), as if it were killed between those two lines, and goes on.
//! Afterwards the proof must hold to the credit.
//!
//! `cargo test --release --features fault-points --test crashes`
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout)]

mod common;

use std::collections::BTreeSet;
use std::path::Path;

use common::Deployment;
use common::deployment::everything;

/// For a process that dies under load, and for what it left behind to be taken up.
const DEATH_PATIENCE: std::time::Duration = std::time::Duration::from_secs(40);

/// A test for each point, and at which time there it dies: where it can, after something was committed.
macro_rules! points {
    ($($test:ident: $point:literal, $time:literal;)*) => {
        const POINTS: &[&str] = &[$($point),*];
        $(
            #[test]
            fn $test() {
                dies_and_goes_on($point, $time);
            }
        )*
    };
}

points! {
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

fn dies_and_goes_on(point: &str, time: u32) {
    let deployment = Deployment::with(&[
        ("ledger.static_membership", "true"),
        ("ledger.batch_events_max", "200"),
        ("store.identities_in_memory", "10000"),
    ]);
    let load = deployment.generate_slowly(&everything(10_000, 100), 3_000);
    let mut instance = deployment.start_at_fault(&format!("{point}:{time}"));
    instance.wait_for_abort(DEATH_PATIENCE);
    let mut instance = deployment.start(&[]);
    let books = load.join().unwrap();
    let ledger = deployment.assert_proof_with_clickhouse(&books);
    assert!(ledger.alerts.len() > 20, "wallets with alerts: {}", ledger.alerts.len());
    instance.terminate();
}

/// The list above is that of the code: a point without a test would be one that nobody has died at.
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
    assert_eq!(found, POINTS.iter().map(|point| (*point).to_owned()).collect());
}
