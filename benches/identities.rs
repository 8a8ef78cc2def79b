//! What the store of remembered identities costs: memory, look-ups, sealing, merging, opening.
//!
//! `cargo bench --bench identities` takes 5 million identities in the stores of 12 shards, `-- 100000000` as many as an
//! instance may have, `-- 100000000 1` all of them in one shard. Half have values of 8 bytes and half of 24. They come evenly over 35 days in
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
const DEFAULT_SHARDS: u64 = 12;
const DAYS: u64 = 35;
const BATCH: u64 = 2_000;
const FIRST_DAY: i32 = 20_000;

fn main() {
    let mut numbers = std::env::args().filter_map(|argument| argument.parse::<u64>().ok());
    let count = numbers.next().unwrap_or(DEFAULT_COUNT);
    let shards = numbers.next().unwrap_or(DEFAULT_SHARDS);
    let folder = tempfile::tempdir().unwrap();
    let settings = |shard: u64| StoreSettings {
        folder: Some(folder.path().to_owned()),
        ledger_id: "bench".to_owned(),
        shard: shard as i32,
        recent_max: 1_000_000 / shards as usize,
        horizon_days: DAYS as u32,
    };
    let maintenance = Maintenance::start().unwrap();
    println!(
        "{count} identities of {shards} shards over {DAYS} days, memory before: {} MB",
        memory_mb("VmRSS")
    );

    let new = |shard| IdentityStore::new(settings(shard), &maintenance);
    let mut stores = Stores((0..shards).map(new).collect());
    fill(&mut stores, count);
    report(&stores);
    look_up_new(&stores, count);
    look_up_known(&stores, count);

    let manifests: Vec<String> =
        stores.0.iter().map(|store| serde_json::to_string(&store.manifest()).unwrap()).collect();
    let unsealed = stores.sum(|store| store.unsealed_len() as u64);
    drop(stores);
    let begun = Instant::now();
    let open = |(manifest, shard): (&String, u64)| {
        let manifest: Manifest = serde_json::from_str(manifest).unwrap();
        IdentityStore::open(settings(shard), &maintenance, &manifest).unwrap()
    };
    let stores = Stores(manifests.iter().zip(0..).map(open).collect());
    println!(
        "open: {:.2} s for {} identities ({unsealed} are the checkpoint's), then {} MB resident",
        begun.elapsed().as_secs_f64(),
        stores.sum(IdentityStore::len),
        memory_mb("VmRSS")
    );
    look_up_new(&stores, count);
}

/// One of each shard; a batch belongs to one of them, in turn.
struct Stores(Vec<IdentityStore>);

impl Stores {
    fn place(&self, number: u64) -> usize {
        (number / BATCH % self.0.len() as u64) as usize
    }

    fn of(&self, number: u64) -> &IdentityStore {
        &self.0[self.place(number)]
    }

    fn sum(&self, what: impl Fn(&IdentityStore) -> u64) -> u64 {
        self.0.iter().map(what).sum()
    }

    fn heap_bytes(&self) -> u64 {
        self.sum(|store| store.heap_bytes() as u64)
    }
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
fn fill(stores: &mut Stores, count: u64) {
    let begun = Instant::now();
    let (mut absorbing, mut waiting, mut longest_call) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
    let mut most_heap_bytes = 0;
    for first in (0..count).step_by(BATCH as usize) {
        let mut batch = Recent::new();
        for number in first..(first + BATCH).min(count) {
            let (value, length) = value(number);
            batch.insert(key(number), day(number, count), &value[..length]);
        }
        let place = stores.place(first);
        let store = &mut stores.0[place];
        let call = Instant::now();
        store.absorb(&batch);
        store.forget_before(day(first, count) - DAYS as i32);
        store.maintain().unwrap();
        absorbing += call.elapsed();
        longest_call = longest_call.max(call.elapsed());
        let wait = Instant::now();
        while store.is_behind() {
            std::thread::sleep(Duration::from_millis(1));
            store.maintain().unwrap();
        }
        waiting += wait.elapsed();
        most_heap_bytes = most_heap_bytes.max(stores.heap_bytes());
    }
    println!(
        "absorb: {:.2} million/s, the longest batch {:.1} ms; {:.1} s in all, of them {:.1} s waiting for the disk",
        count as f64 / absorbing.as_secs_f64() / 1e6,
        longest_call.as_secs_f64() * 1e3,
        begun.elapsed().as_secs_f64(),
        waiting.as_secs_f64()
    );
    let settling = Instant::now();
    while stores.0.iter().any(IdentityStore::is_busy) {
        std::thread::sleep(Duration::from_millis(1));
        stores.0.iter_mut().for_each(|store| store.maintain().unwrap());
    }
    println!(
        "settled after another {:.1} s; at most {} MB of heap_bytes, {} MB resident at the peak",
        settling.elapsed().as_secs_f64(),
        most_heap_bytes / 1_000_000,
        memory_mb("VmHWM")
    );
}

fn report(stores: &Stores) {
    let seconds =
        |of: fn(&IdentityStore) -> Duration| stores.0.iter().map(of).sum::<Duration>().as_secs_f64();
    let (sealed, merged) = (stores.sum(|store| store.work().sealed), stores.sum(|store| store.work().merged));
    let (sealing, merging) = (seconds(|store| store.work().sealing), seconds(|store| store.work().merging));
    println!(
        "sealing: {:.2} million/s ({sealing:.1} s); merging: {:.2} million/s ({merging:.1} s), each identity {:.1} times",
        sealed as f64 / sealing / 1e6,
        merged as f64 / merging.max(1e-9) / 1e6,
        merged as f64 / stores.sum(IdentityStore::len) as f64
    );
    let unsealed = stores.sum(|store| store.unsealed_len() as u64);
    let on_disk = stores.sum(IdentityStore::len) - unsealed;
    println!(
        "{} segments, {unsealed} unsealed; files: {:.1} bytes an identity",
        stores.sum(|store| store.segments() as u64),
        stores.sum(|store| store.disk_bytes()) as f64 / on_disk as f64
    );
    println!("memory: {} MB resident, {} MB heap_bytes", memory_mb("VmRSS"), stores.heap_bytes() / 1_000_000);
}

fn look_up_new(stores: &Stores, count: u64) {
    let lookups = count.min(10_000_000);
    let disk_before = stores.sum(IdentityStore::disk_lookups);
    let begun = Instant::now();
    let found = (count..count + lookups)
        .filter(|number| stores.of(*number).get(key(*number)).unwrap().is_some())
        .count();
    let took = begun.elapsed();
    assert_eq!(found, 0);
    println!(
        "new keys: {:.2} million/s on one core, {:.4} % went to disk",
        lookups as f64 / took.as_secs_f64() / 1e6,
        (stores.sum(IdentityStore::disk_lookups) - disk_before) as f64 * 100.0 / lookups as f64
    );
}

fn look_up_known(stores: &Stores, count: u64) {
    let lookups = count.min(300_000);
    let begun = Instant::now();
    for at in 0..lookups {
        let number = mix(at) % count;
        let memo = stores.of(number).get(key(number)).unwrap().unwrap();
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
