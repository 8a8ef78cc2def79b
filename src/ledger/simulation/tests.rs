//! Seeds without a bug find nothing; seeds with a planted bug find it; a seed plays the same twice.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::Bug;
use super::play::{Happened, play};

/// Seeds where `SIMULATION_SEEDS` does not say how many.
const SEEDS: u64 = 1_000;
/// Most seeds that it may take to find a planted bug.
const SEEDS_FOR_A_BUG: u64 = 400;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|value| value.parse().unwrap())
}

/// Plays seeds on all cores until one fails; the first that failed, and what happened in all.
fn first_failure(seeds: std::ops::Range<u64>, bug: Option<Bug>) -> (Option<(u64, String)>, Vec<Happened>) {
    let next = AtomicU64::new(seeds.start);
    let found = Mutex::new((None::<(u64, String)>, Vec::new()));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    // Those before the failure are played to their ends: the first is the same each time.
                    let is_over = found.lock().unwrap().0.as_ref().is_some_and(|(failed, _)| seed > *failed);
                    if seed >= seeds.end || is_over {
                        return;
                    }
                    let run = play(seed, bug);
                    let mut found = found.lock().unwrap();
                    found.1.push(run.happened);
                    if let Err(why) = run.outcome
                        && found.0.as_ref().is_none_or(|(failed, _)| seed < *failed)
                    {
                        found.0 = Some((seed, why));
                    }
                }
            });
        }
    });
    found.into_inner().unwrap()
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
    let (failure, happened) = first_failure(first..first + seeds, None);
    let minutes = started.elapsed().as_secs_f64() / 60.0;
    println!(
        "{} seeds, {:.0} a minute; {}",
        happened.len(),
        happened.len() as f64 / minutes,
        sums(&happened)
    );
    if let Some((seed, why)) = failure {
        panic!(
            "seed {seed}: {why}\nplay it again: SIMULATION_SEED={seed} cargo test --release --lib simulation::tests::every -- --nocapture"
        );
    }
}

fn sums(happened: &[Happened]) -> String {
    let sum = |of: fn(&Happened) -> u64| happened.iter().map(of).sum::<u64>();
    format!(
        "{} records, {} entries, {} deaths, {} pauses, {} stalls, {} replacements, {} restarts, {} clock jumps, {} days, {} torn files, {} outages, {} group resets, {} generations, {} epochs",
        sum(|run| run.records),
        sum(|run| run.entries),
        sum(|run| run.deaths),
        sum(|run| run.pauses),
        sum(|run| run.stalls),
        sum(|run| run.replacements),
        sum(|run| run.restarts),
        sum(|run| run.clock_jumps),
        sum(|run| run.days),
        sum(|run| run.torn_files),
        sum(|run| run.outages),
        sum(|run| run.group_resets),
        sum(|run| run.generations),
        sum(|run| run.epochs),
    )
}

#[test]
fn a_seed_plays_the_same_twice() {
    for seed in 1..=10 {
        let (first, second) = (play(seed, None), play(seed, None));
        assert_eq!(first.virtual_time, second.virtual_time, "seed {seed}");
        assert_eq!(first.fingerprint, second.fingerprint, "seed {seed}");
    }
}

#[test]
fn every_planted_bug_is_found() {
    for bug in [
        Bug::ApplyBeforeCommit,
        Bug::CommitWithoutFlush,
        Bug::RestoreToLastStable,
        Bug::TimersWithoutOffsets,
        Bug::FreshGroupMetadata,
        Bug::MaxOfOffsets,
        Bug::OneDaysIdentities,
    ] {
        let (failure, _) = first_failure(1..1 + SEEDS_FOR_A_BUG, Some(bug));
        let (seed, why) =
            failure.unwrap_or_else(|| panic!("{bug:?} was not found in {SEEDS_FOR_A_BUG} seeds"));
        println!("{bug:?}: seed {seed}: {why}");
        if let Some(more) = number("SIMULATION_BUG_SEEDS") {
            let found = (1..=more).filter(|seed| play(*seed, Some(bug)).outcome.is_err()).count();
            println!("{bug:?}: found by {found} of {more} seeds");
        }
    }
}
