//! What the end-to-end tests share: deployments of their own on the real Kafka and ClickHouse, the real binary as
//! processes, and a proof that is computed from the topics and tables alone.
//!
//! Each test has topics, groups and a database of its own, so that tests run side by side. A component that is
//! away fails a test with what to do; it never skips one.
#![allow(dead_code, unused_imports, clippy::unwrap_used, clippy::indexing_slicing)]

pub mod alerts;
pub mod clickhouse;
pub mod commands;
pub mod deployment;
pub mod instance;
pub mod kafka;
pub mod kafka_proxy;
pub mod ledger;
pub mod outcome;
pub mod progress;
pub mod proof;
pub mod proxy;
pub mod receiver;

pub use deployment::{Deployment, usage};
pub use instance::Instance;

use std::time::{Duration, Instant};

use creditstream::time::{DAY_MS, Timestamp};

/// How often a condition is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Waits until `look` gives something; panics with `what` after `patience`.
pub fn wait_for<T>(what: &str, patience: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}: not within {patience:?}");
        std::thread::sleep(LOOK_EVERY);
    }
}

/// The end of a log, for a panic's message.
pub fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    let from = lines.len().saturating_sub(25);
    lines[from..].join("\n")
}

/// Eight hexadecimal digits that no other test has.
pub fn random_name() -> String {
    uuid::Uuid::new_v4().simple().to_string()[..10].to_owned()
}

/// The start of a contract of which a month begins then, and the number of its months before: 2 where the month before has
/// no such day.
pub fn months_before(begins: Timestamp) -> (Timestamp, u32) {
    let starts =
        |months: u32| (28..=62).map(|days| begins.plus_millis(-days * DAY_MS)).map(move |at| (at, months));
    let all = starts(1).chain(starts(2));
    all.into_iter().find(|(at, months)| at.plus_months(*months) == Some(begins)).unwrap()
}
