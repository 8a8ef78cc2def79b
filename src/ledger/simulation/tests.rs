//! Seeds without a bug find nothing; seeds with a planted bug find it; a seed plays the same twice.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::Bug;
use super::play::{Happened, Run, play};

/// Seeds where `SIMULATION_SEEDS` does not say how many.
const SEEDS: u64 = 1_000;
/// Most seeds that it may take to find a planted bug.
const SEEDS_FOR_A_BUG: u64 = 300;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|value| value.parse().unwrap())
}

/// Plays seeds on all cores: all of them, or until one fails and those before it are played.
fn play_seeds(seeds: std::ops::Range<u64>, bug: Option<Bug>, until_failure: bool) -> Vec<(u64, Run)> {
    let next = AtomicU64::new(seeds.start);
    let end = AtomicU64::new(seeds.end);
    let played = Mutex::new(Vec::new());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end.load(Ordering::Relaxed) {
                        return;
                    }
                    let run = play(seed, bug);
                    if until_failure && run.outcome.is_err() {
                        end.fetch_min(seed, Ordering::Relaxed);
                    }
                    played.lock().unwrap().push((seed, run));
                }
            });
        }
    });
    let mut played = played.into_inner().unwrap();
    played.sort_by_key(|(seed, _)| *seed);
    played
}

/// The first seed that failed, and why.
fn failure(played: &[(u64, Run)]) -> Option<(u64, &str)> {
    played.iter().find_map(|(seed, run)| Some((*seed, run.outcome.as_ref().err()?.as_str())))
}

#[test]
fn every_run_comes_out_as_the_books_say() {
    if let Some(seed) = number("SIMULATION_SEED") {
        let _ = tracing_subscriber::fmt().with_writer(std::io::stderr).try_init();
        let run = play(seed, None);
        println!("seed {seed}: {:?} {:?}", run.virtual_time, run.happened);
        run.outcome.unwrap();
        return;
    }
    let seeds = number("SIMULATION_SEEDS").unwrap_or(SEEDS);
    let first = number("SIMULATION_FIRST").unwrap_or(1);
    let started = Instant::now();
    let played = play_seeds(first..first + seeds, None, true);
    let minutes = started.elapsed().as_secs_f64() / 60.0;
    println!("{} seeds, {:.0} a minute: {}", played.len(), played.len() as f64 / minutes, sums(&played));
    if let Some((seed, why)) = failure(&played) {
        panic!(
            "seed {seed}: {why}\nplay it again: SIMULATION_SEED={seed} cargo test --release --lib simulation::tests::every_run -- --nocapture"
        );
    }
}

fn sums(played: &[(u64, Run)]) -> String {
    type Of = fn(&Happened) -> u64;
    let all: [(&str, Of); 16] = [
        ("records", |run| run.records),
        ("entries", |run| run.entries),
        ("alerts", |run| run.alerts),
        ("deaths", |run| run.deaths),
        ("pauses", |run| run.pauses),
        ("stalls", |run| run.stalls),
        ("successors", |run| run.replacements),
        ("restarts", |run| run.restarts),
        ("outages", |run| run.outages),
        ("group resets", |run| run.group_resets),
        ("wrong clocks", |run| run.clock_jumps),
        ("days", |run| run.days),
        ("torn files", |run| run.torn_files),
        ("undone commits", |run| run.undone_commits),
        ("generations", |run| run.generations),
        ("epochs", |run| run.epochs),
    ];
    let hours = played.iter().map(|(_, run)| run.virtual_time.as_secs_f64()).sum::<f64>() / 3_600.0;
    let sums = all
        .iter()
        .map(|(name, of)| format!("{} {name}", played.iter().map(|(_, run)| of(&run.happened)).sum::<u64>()));
    format!("{}, {hours:.1} hours of virtual time", sums.collect::<Vec<_>>().join(", "))
}

#[test]
fn a_seed_plays_the_same_twice() {
    for seed in 1..=10 {
        let (first, second) = (play(seed, None), play(seed, None));
        assert_eq!(first.virtual_time, second.virtual_time, "seed {seed}");
        assert_eq!(first.fingerprint, second.fingerprint, "seed {seed}");
    }
}

/// `SIMULATION_BUG_SEEDS=200` plays so many with each bug, and says how many find it; `SIMULATION_BUG=CommitWithoutFlush` plants
/// only that one.
#[test]
fn every_planted_bug_is_found() {
    let all = number("SIMULATION_BUG_SEEDS");
    let only = std::env::var("SIMULATION_BUG").ok();
    for bug in [
        Bug::ApplyBeforeCommit,
        Bug::CommitWithoutFlush,
        Bug::RestoreToLastStable,
        Bug::TimersWithoutOffsets,
        Bug::FreshGroupMetadata,
        Bug::MaxOfOffsets,
        Bug::OneDaysIdentities,
        Bug::TrustWhatIsKept,
        Bug::GoOnAfterAnOutage,
        Bug::AlertsAfterCommit,
        Bug::CommitOverWhatIsOpen,
    ] {
        if only.as_ref().is_some_and(|only| *only != format!("{bug:?}")) {
            continue;
        }
        let played = play_seeds(1..1 + all.unwrap_or(SEEDS_FOR_A_BUG), Some(bug), all.is_none());
        let found = played.iter().filter(|(_, run)| run.outcome.is_err()).count();
        let (seed, why) =
            failure(&played).unwrap_or_else(|| panic!("{bug:?} was not found in {} seeds", played.len()));
        println!("{bug:?}: seed {seed}, {found} of {} seeds: {why}", played.len());
    }
}
