//! What an event costs without Kafka: generated traffic through the shards of one worker, batch by batch, each computed on
//! top of the one before it, as a worker does.
//!
//! `cargo test --release --lib what_an_event_costs -- --ignored --nocapture`; COST_EVENTS, COST_WALLETS and COST_BATCH change its
//! size. What is handed over is not read again.
#![allow(clippy::print_stdout, reason = "figures for a person")]

use std::time::Instant;

use super::bench::{Bench, GENERATION, Made, WALLET};
use crate::event::SourceKind;
use crate::generate::{GenerateOptions, Generator, Record};
use crate::kafka::partition_for;
use crate::ledger::outbox::OutTopic;
use crate::time::Timestamp;

/// As in the binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SHARDS: i32 = 12;
const SNAPSHOTS_EVERY: usize = 8;

/// Time on a core of the whole process, nanoseconds. Source: `/proc`.
fn cpu() -> u64 {
    let of = |path: &str| -> u64 {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.split(' ').next().and_then(|number| number.parse().ok()).unwrap_or(0)
    };
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    tasks.map(|task| of(&format!("{}/schedstat", task.unwrap().path().display()))).sum()
}

fn tenth_and_median(mut micros: Vec<f64>) -> String {
    micros.sort_by(f64::total_cmp);
    let at = |share: usize| micros.get(micros.len() / share).copied().unwrap_or(f64::NAN);
    format!("{:.2} and {:.2}", at(10), at(2))
}

#[test]
#[ignore = "a measurement"]
fn what_an_event_costs() {
    let number = |name: &str, default: u64| {
        std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
    };
    let batch_events = number("COST_BATCH", 20_000) as usize;
    let options = GenerateOptions {
        events: number("COST_EVENTS", 1_000_000),
        wallets: number("COST_WALLETS", 100_000) as u32,
        ..GenerateOptions::ending_now()
    };
    let mut bench = Bench::with_shards(SHARDS);
    bench.wall = Timestamp::now();
    let mut generator = Generator::new(&options).unwrap();
    let mut record = Record::default();
    let mut next = 0_u64;
    let (mut batches, mut events, mut bytes, mut entries) = (0_usize, 0_u64, 0_u64, 0_u64);
    // By batch, CPU time an event: another machine on the same host makes some of them slower, and none faster.
    let (mut computing, mut applying) = (Vec::new(), Vec::new());
    let begun = Instant::now();
    loop {
        let mut made = Vec::with_capacity(batch_events);
        while made.len() < batch_events && generator.next_record(&mut record).is_some() {
            let topic = if record.source_kind() == SourceKind::Wallet { WALLET } else { GENERATION };
            next += 1;
            let partition = record
                .key()
                .map_or((next % SHARDS as u64) as i32, |key| partition_for(key.as_bytes(), SHARDS));
            made.push(Made {
                topic,
                partition,
                offset: -1,
                timestamp: bench.wall,
                key: record.key().map(|key| key.as_bytes().to_vec()),
                value: record.value().map(<[u8]>::to_vec),
                headers: record
                    .headers()
                    .iter()
                    .map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec()))
                    .collect(),
            });
        }
        if made.is_empty() {
            break;
        }
        let batch = bench.batch(&made);
        let is_setup = made.iter().all(|made| made.topic == WALLET);
        drop(made);
        bench.with_snapshots = batches.is_multiple_of(SNAPSHOTS_EVERY);
        let before = cpu();
        let written = bench.compute(&batch);
        let computed = cpu();
        bench.commit();
        bench.send();
        let after = cpu();
        batches += 1;
        if !is_setup {
            let micros = |nanos: u64| nanos as f64 / 1_000.0 / batch.len() as f64;
            computing.push(micros(computed - before));
            applying.push(micros(after - computed));
            events += batch.len() as u64;
            for record in written.outboxes.iter().flat_map(|outbox| outbox.records(OutTopic::Ledger)) {
                entries += 1;
                bytes += record.value.len() as u64;
            }
        }
        bench.recycle(written);
    }
    println!(
        "{events} events in {batches} batches, {:.1} s; µs of CPU an event, the fastest tenth and the median: computing {}, applying {}; {entries} records of {} bytes",
        begun.elapsed().as_secs_f64(),
        tenth_and_median(computing),
        tenth_and_median(applying),
        bytes / entries.max(1),
    );
}
