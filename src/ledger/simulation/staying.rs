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
struct Load {
    sent_at: BTreeMap<i32, Vec<Micros>>,
    /// The longest that a record waited to be committed, by shard.
    longest: BTreeMap<i32, Micros>,
}

impl Load {
    fn go_on(&mut self, play: &mut Play, time: Micros) {
        let until = play.simulation.lock().now + time;
        while play.simulation.lock().now < until {
            let mut state = play.simulation.lock();
            for shard in 0..SHARDS {
                play.workload.send_to(&mut state, shard);
                let sent_at = self.sent_at.entry(shard).or_default();
                sent_at.push(state.now);
                let next = state.broker.group.committed.get(&("generation.events", shard)).copied();
                let waits_since = sent_at[next.unwrap_or(0) as usize..].first().copied();
                let waits = state.now - waits_since.unwrap_or(state.now);
                let longest = self.longest.entry(shard).or_default();
                *longest = waits.max(*longest);
            }
            drop(state);
            play.simulation.sleep(EVERY);
        }
    }
}

/// Shards that each instance serves.
fn served(play: &Play) -> Vec<Vec<i32>> {
    let state = play.simulation.lock();
    let of = |process: usize| {
        let clients = state.broker.group.clients.iter().filter(|client| client.process == process);
        let positions = clients.flat_map(|client| client.positions.keys());
        positions.filter(|(topic, _)| *topic == "credits.intake").map(|(_, shard)| *shard).collect()
    };
    play.instances.iter().map(|(process, _)| of(*process)).collect()
}

/// It dies in a transaction, which stays open for 20 s; the group knows after 5 s that it is gone. Its shards have to wait for
/// the transaction to run out. Those of the other one do not.
#[test]
fn shards_that_stay_do_not_wait_for_the_transaction_of_a_killed_instance() {
    for seed in 1..=5 {
        let plan = Plan {
            shards: SHARDS,
            instances: 2,
            faults: Faults::default(),
            transaction_timeout_ms: 20_000,
            is_static: false,
        };
        let mut play = Play::new(Random::new(seed), plan, None);
        let mut load = Load { sent_at: BTreeMap::new(), longest: BTreeMap::new() };
        load.go_on(&mut play, 20 * SECOND);
        let before = served(&play);
        assert!(before.iter().all(|shards| shards.len() == 2), "seed {seed}: {before:?}");

        let is_open =
            |play: &Play| play.simulation.lock().broker.transactional["instance-0"].phase == Phase::Ongoing;
        for shard in &before[0] {
            play.workload.send_to(&mut play.simulation.lock(), *shard);
            load.sent_at.entry(*shard).or_default().push(play.simulation.lock().now);
        }
        let deadline = play.simulation.lock().now + SECOND;
        while !is_open(&play) {
            assert!(play.simulation.lock().now < deadline, "seed {seed}: no transaction was begun");
            play.simulation.sleep(MILLI / 10);
        }
        play.simulation.kill(play.instances[0].0);
        load.longest.clear();
        load.go_on(&mut play, 40 * SECOND);
        for (shard, longest) in &load.longest {
            let stayed = before[1].contains(shard);
            assert_eq!(
                *longest < PAUSE_MAX,
                stayed,
                "seed {seed}: shard {shard} stood still for {longest} us"
            );
            assert!(stayed || *longest > 10 * SECOND, "seed {seed}: nothing of shard {shard} was open");
        }
        assert_eq!(served(&play)[1].len(), SHARDS as usize, "seed {seed}");
        let outcome = play.end();
        assert_eq!(play.finish(outcome).outcome, Ok(()), "seed {seed}");
    }
}
