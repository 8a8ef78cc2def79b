//! Without any fault but the one of the test: shards that stay where they are go on, whatever others wait for.

use std::collections::BTreeMap;

use super::Faults;
use super::broker::Phase;
use super::play::{Plan, Play};
use super::random::Random;
use super::scheduler::{MILLI, Micros, SECOND};

const SHARDS: i32 = 4;
const EVERY: Micros = 100 * MILLI;
/// The demand.
const PAUSE_MAX: Micros = 3 * SECOND;

/// Sends to each shard at home, and knows how long each stood still.
#[derive(Default)]
struct Load {
    sent_at: BTreeMap<i32, Vec<Micros>>,
    /// The longest that a record waited to be committed, by shard.
    longest: BTreeMap<i32, Micros>,
}

impl Load {
    fn send(&mut self, play: &mut Play, shard: i32) {
        let mut state = play.simulation.lock();
        play.workload.send_to(&mut state, ("generation.events", shard), shard);
        self.sent_at.entry(shard).or_default().push(state.now);
    }

    fn go_on(&mut self, play: &mut Play, time: Micros) {
        let until = play.simulation.lock().now + time;
        while play.simulation.lock().now < until {
            for shard in 0..SHARDS {
                self.send(play, shard);
                let state = play.simulation.lock();
                let next = state.broker.group.committed.get(&("generation.events", shard)).copied();
                let waits_since = self.sent_at[&shard][next.unwrap_or(0) as usize..].first().copied();
                let waits = state.now - waits_since.unwrap_or(state.now);
                let longest = self.longest.entry(shard).or_default();
                *longest = waits.max(*longest);
            }
            play.simulation.sleep(EVERY);
        }
    }
}

/// Partitions of a topic that each instance reads.
fn read(play: &Play, topic: &str) -> Vec<Vec<i32>> {
    let state = play.simulation.lock();
    let of = |process: usize| {
        let clients = state.broker.group.clients.iter().filter(|client| client.process == process);
        let positions = clients.flat_map(|client| client.positions.keys());
        positions.filter(|(of, _)| *of == topic).map(|(_, partition)| *partition).collect()
    };
    play.instances.iter().map(|(process, _)| of(*process)).collect()
}

/// The first of two instances dies in a transaction, which stays open for 20 s; the group knows after 5 s that it is gone. Where
/// the progress stands that the transaction has written; which shards stayed, and how long each stood still.
fn killed_in_a_transaction(seed: u64, reads_elsewhere: bool) -> (Vec<i32>, Vec<i32>, BTreeMap<i32, Micros>) {
    let plan = Plan {
        shards: SHARDS,
        instances: 2,
        faults: Faults::default(),
        transaction_timeout_ms: 20_000,
        is_static: false,
    };
    let mut play = Play::new(Random::new(seed), plan, None);
    let mut load = Load::default();
    load.go_on(&mut play, 20 * SECOND);
    let shards = read(&play, "credits.intake");
    assert!(shards.iter().all(|shards| shards.len() == 2), "seed {seed}: {shards:?}");
    let elsewhere = read(&play, "other.events")[0].clone();

    let mut written = shards[0].clone();
    for shard in &shards[0] {
        load.send(&mut play, *shard);
    }
    if reads_elsewhere {
        for partition in elsewhere {
            let state = &mut play.simulation.lock();
            play.workload.send_to(state, ("other.events", partition), shards[0][0]);
            written.push(partition % SHARDS);
        }
    }
    let deadline = play.simulation.lock().now + SECOND;
    let is_open = |play: &Play| {
        let state = play.simulation.lock();
        let known = &state.broker.transactional["instance-0"];
        let is_written = |shard: &i32| known.partitions.contains(&("credits.progress", *shard));
        known.phase == Phase::Ongoing && written.iter().all(is_written)
    };
    while !is_open(&play) {
        assert!(play.simulation.lock().now < deadline, "seed {seed}: no such transaction was begun");
        play.simulation.sleep(MILLI / 10);
    }
    play.simulation.kill(play.instances[0].0);
    load.longest.clear();
    load.go_on(&mut play, 40 * SECOND);
    assert_eq!(read(&play, "credits.intake")[1].len(), SHARDS as usize, "seed {seed}");
    let outcome = play.end();
    assert_eq!(play.finish(outcome).outcome, Ok(()), "seed {seed}");
    (written, shards[1].clone(), load.longest)
}

/// The shards of the killed instance wait for its transaction to run out. Those of the other one do not.
#[test]
fn shards_that_stay_do_not_wait_for_the_transaction_of_a_killed_instance() {
    for seed in 1..=5 {
        let (_, stayed, longest) = killed_in_a_transaction(seed, false);
        for (shard, longest) in longest {
            let expected = if stayed.contains(&shard) { 0..PAUSE_MAX } else { 10 * SECOND..40 * SECOND };
            assert!(expected.contains(&longest), "seed {seed}: shard {shard} stood still for {longest} us");
        }
    }
}

/// Where the killed one kept the progress of a partition that is read at home nowhere, a shard waits though it stays: its own
/// progress is not known. It holds up no other.
#[test]
fn a_shard_that_stays_and_must_wait_holds_up_no_other() {
    for seed in 1..=5 {
        let (written, stayed, longest) = killed_in_a_transaction(seed, true);
        assert!(stayed.iter().any(|shard| written.contains(shard)), "seed {seed}: {written:?}");
        for (shard, longest) in longest {
            let expected = if written.contains(&shard) { 10 * SECOND..40 * SECOND } else { 0..PAUSE_MAX };
            assert!(expected.contains(&longest), "seed {seed}: shard {shard} stood still for {longest} us");
        }
    }
}
