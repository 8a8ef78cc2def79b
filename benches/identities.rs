//! What the store of remembered identities costs: memory, look-ups, sealing, merging, opening.
//!
//! `cargo bench --bench identities` takes 5 million identities; `cargo bench --bench identities -- 100000000` the
//! number that a shard may have. Half have values of 8 bytes and half of 24. They come evenly over 35 days in
//! batches, as the ledger stage absorbs them. Files lie in a temporary folder (`TMPDIR` chooses where) that is
//! removed at the end: 40 bytes an identity, and while segments are merged up to 40 % more.
#![allow(clippy::print_stdout, reason = "figures for a person")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failure ends the measurement")]

use std::time::{Duration, Instant};

use creditstream::event::IdentityKey;
use creditstream::ledger::identity_store::{IdentityStore, Maintenance, Manifest, Recent, StoreSettings};

/// As in the binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const DEFAULT_COUNT: u64 = 5_000_000;
const DAYS: u64 = 35;
const BATCH: u64 = 2_000;
const FIRST_DAY: i32 = 20_000;

fn main() {
    let count = std::env::args().filter_map(|argument| argument.parse().ok()).next().unwrap_or(DEFAULT_COUNT);
    let folder = tempfile::tempdir().unwrap();
    let settings = StoreSettings {
        folder: Some(folder.path().to_owned()),
        ledger_id: "bench".to_owned(),
        shard: 0,
        recent_max: 1_000_000,
        horizon_days: DAYS as u32,
    };
    let maintenance = Maintenance::start().unwrap();
    println!("{count} identities over {DAYS} days, memory before: {} MB", memory_mb("VmRSS"));

    let mut store = IdentityStore::new(settings.clone(), &maintenance);
    fill(&mut store, count);
    report(&store);
    look_up_new(&store, count);
    look_up_known(&store, count);

    let manifest = serde_json::to_string(&store.manifest()).unwrap();
    let unsealed = store.unsealed_len();
    drop(store);
    let begun = Instant::now();
    let manifest: Manifest = serde_json::from_str(&manifest).unwrap();
    let store = IdentityStore::open(settings, &maintenance, &manifest).unwrap();
    println!(
        "open: {:.2} s for {} identities ({unsealed} are the checkpoint's), then {} MB resident",
        begun.elapsed().as_secs_f64(),
        store.len(),
        memory_mb("VmRSS")
    );
    look_up_new(&store, count);
}

fn key(number: u64) -> IdentityKey {
    IdentityKey(u128::from(mix(number)) << 64 | u128::from(mix(!number)))
}

/// SplitMix64's finish: spreads numbers as a hash does.
fn mix(number: u64) -> u64 {
    let mut hash = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    hash ^ (hash >> 31)
}

fn value(number: u64) -> ([u8; 24], usize) {
    let mut value = [0; 24];
    value[..8].copy_from_slice(&mix(number ^ 77).to_le_bytes());
    (value, if number.is_multiple_of(2) { 8 } else { 24 })
}

fn day(number: u64, count: u64) -> i32 {
    FIRST_DAY + (number * DAYS / count) as i32
}

/// All batches, then the background work that is left.
fn fill(store: &mut IdentityStore, count: u64) {
    let begun = Instant::now();
    let (mut absorbing, mut waiting, mut longest_call) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
    let mut most_heap_bytes = 0;
    for first in (0..count).step_by(BATCH as usize) {
        let mut batch = Recent::new();
        for number in first..(first + BATCH).min(count) {
            let (value, length) = value(number);
            batch.insert(key(number), day(number, count), &value[..length]);
        }
        let call = Instant::now();
        store.absorb(&batch);
        store.forget_before(day(first, count) - DAYS as i32);
        store.maintain().unwrap();
        absorbing += call.elapsed();
        longest_call = longest_call.max(call.elapsed());
        most_heap_bytes = most_heap_bytes.max(store.heap_bytes());
        let wait = Instant::now();
        while store.is_behind() {
            std::thread::sleep(Duration::from_millis(1));
            store.maintain().unwrap();
        }
        waiting += wait.elapsed();
    }
    println!(
        "absorb: {:.2} million/s, the longest batch {:.1} ms; {:.1} s in all, of them {:.1} s waiting for the disk",
        count as f64 / absorbing.as_secs_f64() / 1e6,
        longest_call.as_secs_f64() * 1e3,
        begun.elapsed().as_secs_f64(),
        waiting.as_secs_f64()
    );
    let settling = Instant::now();
    while store.is_busy() {
        std::thread::sleep(Duration::from_millis(1));
        store.maintain().unwrap();
    }
    println!(
        "settled after another {:.1} s; at most {} MB of heap_bytes, {} MB resident at the peak",
        settling.elapsed().as_secs_f64(),
        most_heap_bytes / 1_000_000,
        memory_mb("VmHWM")
    );
}

fn report(store: &IdentityStore) {
    let work = store.work();
    println!(
        "sealing: {:.2} million/s ({:.1} s); merging: {:.2} million/s ({:.1} s), each identity {:.1} times",
        work.sealed as f64 / work.sealing.as_secs_f64() / 1e6,
        work.sealing.as_secs_f64(),
        work.merged as f64 / work.merging.as_secs_f64().max(1e-9) / 1e6,
        work.merging.as_secs_f64(),
        work.merged as f64 / store.len() as f64
    );
    let sealed = store.len() - store.unsealed_len() as u64;
    println!(
        "{} segments, {} unsealed; files: {:.1} bytes an identity",
        store.segments(),
        store.unsealed_len(),
        store.disk_bytes() as f64 / sealed as f64
    );
    println!("memory: {} MB resident, {} MB heap_bytes", memory_mb("VmRSS"), store.heap_bytes() / 1_000_000);
}

fn look_up_new(store: &IdentityStore, count: u64) {
    let lookups = count.min(10_000_000);
    let disk_before = store.disk_lookups();
    let begun = Instant::now();
    let found = (count..count + lookups).filter(|number| store.get(key(*number)).unwrap().is_some()).count();
    let took = begun.elapsed();
    assert_eq!(found, 0);
    println!(
        "new keys: {:.2} million/s on one core, {:.4} % went to disk",
        lookups as f64 / took.as_secs_f64() / 1e6,
        (store.disk_lookups() - disk_before) as f64 * 100.0 / lookups as f64
    );
}

fn look_up_known(store: &IdentityStore, count: u64) {
    let lookups = count.min(300_000);
    let begun = Instant::now();
    for at in 0..lookups {
        let number = mix(at) % count;
        let memo = store.get(key(number)).unwrap().unwrap();
        let (value, length) = value(number);
        assert_eq!((memo.day, &*memo.value), (day(number, count), &value[..length]));
    }
    println!(
        "known keys: {:.2} million/s, every memo as it was inserted",
        lookups as f64 / begun.elapsed().as_secs_f64() / 1e6
    );
}

/// Of this process, as Linux counts it.
fn memory_mb(what: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(what)).unwrap();
    line.trim_matches(|letter: char| !letter.is_ascii_digit()).parse::<u64>().unwrap() * 1024 / 1_000_000
}
