//! Remembered identities in fjall: one keyspace a day, bulk-loaded; the same identities and look-ups as
//! `benches/identities.rs`, so that the two can be laid side by side.
//!
//! `cargo run --release -- 20000000 35 32`: how many identities, in how many keyspaces (35 days; 8 is what our own
//! segments are merged to), with how many megabytes of block cache. Filters and indexes are pinned in memory, as ours are; a Bloom filter's rate of wrong
//! hits is chosen so that fewer than 0.1 % of look-ups in 35 keyspaces go to disk. Files lie in a temporary folder
//! (`TMPDIR` chooses where) that is removed at the end.

use std::path::Path;
use std::time::{Duration, Instant};

use fjall::config::{
    BloomConstructionPolicy, CompressionPolicy, FilterPolicy, FilterPolicyEntry, PartitioningPolicy,
    PinningPolicy,
};
use fjall::{CompressionType, Database, Keyspace, KeyspaceCreateOptions};

/// As in creditstream.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Of each keyspace.
const WRONG_HITS: f32 = 0.000_02;
/// Of look-ups of one kind.
const LOOKUP_TIME: Duration = Duration::from_secs(10);
const DAYS: u64 = 35;
const FIRST_DAY: i32 = 20_000;

fn main() -> fjall::Result<()> {
    let numbers: Vec<u64> = std::env::args().filter_map(|argument| argument.parse().ok()).collect();
    let count = numbers.first().copied().unwrap_or(5_000_000);
    let keyspaces_count = numbers.get(1).copied().unwrap_or(DAYS);
    let cache_mb = numbers.get(2).copied().unwrap_or(32);
    let folder = tempfile::tempdir()?;
    println!(
        "{count} identities, {keyspaces_count} keyspaces, {cache_mb} MB of cache, memory before: {} MB",
        memory_mb("VmRSS")
    );

    let database = open(folder.path(), cache_mb)?;
    let keyspaces = keyspaces(&database, keyspaces_count)?;
    fill(&keyspaces, count)?;
    println!(
        "{} tables; files: {:.1} bytes an identity; memory: {} MB resident, {} MB at the peak",
        keyspaces.iter().map(Keyspace::table_count).sum::<usize>(),
        keyspaces.iter().map(Keyspace::disk_space).sum::<u64>() as f64 / count as f64,
        memory_mb("VmRSS"),
        memory_mb("VmHWM")
    );
    look_up_new(&keyspaces, count)?;
    look_up_known(&keyspaces, count)?;
    drop((keyspaces, database));

    let begun = Instant::now();
    let database = open(folder.path(), cache_mb)?;
    let keyspaces = self::keyspaces(&database, keyspaces_count)?;
    println!("open: {:.2} s, then {} MB resident", begun.elapsed().as_secs_f64(), memory_mb("VmRSS"));
    look_up_new(&keyspaces, count)?;
    look_up_known(&keyspaces, count)?;
    println!("memory: {} MB resident", memory_mb("VmRSS"));
    Ok(())
}

fn open(folder: &Path, cache_mb: u64) -> fjall::Result<Database> {
    Database::builder(folder).cache_size(cache_mb * 1024 * 1024).worker_threads(1).open()
}

/// From the oldest to the newest.
fn keyspaces(database: &Database, count: u64) -> fjall::Result<Vec<Keyspace>> {
    let bloom = FilterPolicyEntry::Bloom(BloomConstructionPolicy::FalsePositiveRate(WRONG_HITS));
    let options = KeyspaceCreateOptions::default()
        .filter_policy(FilterPolicy::all(bloom))
        .filter_block_pinning_policy(PinningPolicy::all(true))
        .filter_block_partitioning_policy(PartitioningPolicy::all(false))
        .index_block_pinning_policy(PinningPolicy::all(true))
        .index_block_partitioning_policy(PartitioningPolicy::all(false))
        .data_block_compression_policy(CompressionPolicy::all(CompressionType::None));
    (0..count).map(|at| database.keyspace(&format!("days-{at}"), || options.clone())).collect()
}

/// Each keyspace at once, sorted. Generating and sorting is not counted: whoever seals has to do it with either.
fn fill(keyspaces: &[Keyspace], count: u64) -> fjall::Result<()> {
    let mut loading = Duration::ZERO;
    for (at, keyspace) in keyspaces.iter().enumerate() {
        let bound = |at: usize| at as u64 * count / keyspaces.len() as u64;
        let mut identities: Vec<(u128, u64)> =
            (bound(at)..bound(at + 1)).map(|number| (key(number), number)).collect();
        identities.sort_unstable();
        let begun = Instant::now();
        let mut ingestion = keyspace.start_ingestion()?;
        for (key, number) in identities {
            ingestion.write(key.to_be_bytes(), memo(number, count).as_slice())?;
        }
        ingestion.finish()?;
        loading += begun.elapsed();
    }
    println!("bulk load: {:.2} million/s ({:.1} s)", rate(count, loading), loading.as_secs_f64());
    Ok(())
}

fn look_up_new(keyspaces: &[Keyspace], count: u64) -> fjall::Result<()> {
    let blocks_before = block_reads(keyspaces);
    let begun = Instant::now();
    let mut lookups = 0;
    while lookups < 2_000_000 && begun.elapsed() < LOOKUP_TIME {
        assert!(find(keyspaces, count + lookups)?.is_none());
        lookups += 1;
    }
    let took = begun.elapsed();
    let blocks = block_reads(keyspaces) - blocks_before;
    let part = blocks as f64 * 100.0 / lookups as f64;
    println!("new keys: {:.3} million/s on one core, {part:.4} % read a block", rate(lookups, took));
    Ok(())
}

fn look_up_known(keyspaces: &[Keyspace], count: u64) -> fjall::Result<()> {
    let begun = Instant::now();
    let mut lookups = 0;
    while lookups < 300_000 && begun.elapsed() < LOOKUP_TIME {
        let number = mix(lookups) % count;
        assert_eq!(find(keyspaces, number)?.as_deref(), Some(memo(number, count).as_slice()));
        lookups += 1;
    }
    println!("known keys: {:.3} million/s", rate(lookups, begun.elapsed()));
    Ok(())
}

/// Asks every keyspace, the newest first, as an identity may be in any.
fn find(keyspaces: &[Keyspace], number: u64) -> fjall::Result<Option<fjall::UserValue>> {
    let key = key(number).to_be_bytes();
    for keyspace in keyspaces.iter().rev() {
        if let Some(memo) = keyspace.get(key)? {
            return Ok(Some(memo));
        }
    }
    Ok(None)
}

fn block_reads(keyspaces: &[Keyspace]) -> usize {
    let of = |keyspace: &Keyspace| {
        let metrics = keyspace.metrics();
        metrics.data_block_load_count() + metrics.data_block_load_cached_count()
    };
    keyspaces.iter().map(of).sum()
}

/// The day and the value, which is of 8 or of 24 bytes.
fn memo(number: u64, count: u64) -> Vec<u8> {
    let mut memo = (FIRST_DAY + (number * DAYS / count) as i32).to_le_bytes().to_vec();
    memo.extend_from_slice(&mix(number ^ 77).to_le_bytes());
    memo.resize(if number.is_multiple_of(2) { 12 } else { 28 }, 0);
    memo
}

fn key(number: u64) -> u128 {
    u128::from(mix(number)) << 64 | u128::from(mix(!number))
}

/// SplitMix64's finish: spreads numbers as a hash does.
fn mix(number: u64) -> u64 {
    let mut hash = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    hash ^ (hash >> 31)
}

fn rate(count: u64, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64() / 1e6
}

/// Of this process, as Linux counts it.
fn memory_mb(what: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(what)).unwrap_or_default();
    let kilobytes = line.trim_matches(|letter: char| !letter.is_ascii_digit()).parse::<u64>().unwrap_or(0);
    kilobytes * 1024 / 1_000_000
}
