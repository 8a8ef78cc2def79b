//! One run: a seed decides how many instances there are, what goes wrong, and when.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use super::broker::{Broker, Place};
use super::client::ModelWorld;
use super::group::Group;
use super::random::Random;
use super::scheduler::{MILLI, Micros, Process, SECOND, Simulation, State, leave};
use super::workload::Workload;
use super::{Bug, Faults, check};
use crate::config::Config;
use crate::event::{EventRules, SourceKind};
use crate::http::Health;
use crate::ledger::routes::{Routes, Topic, TopicRole};
use crate::ledger::watch::Board;
use crate::ledger::worker::{Setup, Worker};
use crate::ledger::{LedgerError, TimeRules};
use crate::metrics::Metrics;
use crate::rate::Pricing;
use crate::time::{DAY_MS, HOUR_MS, Timestamp};
use crate::wallet::Policy;

static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::new);
static PRICING: LazyLock<Arc<Pricing>> = LazyLock::new(|| Arc::new(Pricing::built_in().unwrap()));
/// Everything has to be quiet so long after the last fault.
const QUIET_PATIENCE: Micros = 300 * SECOND;

/// What a run came to.
pub struct Run {
    pub outcome: Result<(), String>,
    /// How often each thing happened.
    pub happened: Happened,
    pub virtual_time: Duration,
    /// Hash of all that is in the topics: equal for equal runs.
    pub fingerprint: u64,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Happened {
    pub records: u64,
    pub entries: u64,
    pub alerts: u64,
    pub deaths: u64,
    pub pauses: u64,
    pub replacements: u64,
    pub restarts: u64,
    pub clock_jumps: u64,
    pub days: u64,
    pub torn_files: u64,
    pub outages: u64,
    pub group_resets: u64,
    pub stalls: u64,
    pub generations: u64,
    pub epochs: u64,
    pub undone_commits: u64,
}

/// What a run is made of.
pub struct Plan {
    pub shards: i32,
    pub instances: usize,
    pub faults: Faults,
    pub transaction_timeout_ms: u32,
    pub is_static: bool,
}

/// A run under way.
pub struct Play {
    pub simulation: Arc<Simulation>,
    random: Random,
    config: Arc<Config>,
    routes: Routes,
    pub workload: Workload,
    folder: tempfile::TempDir,
    /// The newest process of each instance, and how to stop it.
    pub instances: Vec<(usize, Arc<AtomicBool>)>,
    /// Processes that have a successor and are alive all the same.
    replaced: Vec<usize>,
    happened: Happened,
}

/// Plays a seed, with a planted bug or without.
pub fn play(seed: u64, bug: Option<Bug>) -> Run {
    let mut random = Random::new(seed);
    let plan = Plan::of(&mut random);
    let mut play = Play::new(random, plan, bug);
    let outcome = play.run();
    play.finish(outcome)
}

impl Play {
    /// Ends all that still lives, and says what the run came to.
    pub fn finish(mut self, outcome: Result<(), String>) -> Run {
        let play = &mut self;
        // Whatever still lives ends.
        let processes = play.simulation.lock().processes.len();
        for process in 0..processes {
            play.simulation.kill(process);
        }
        let state = play.simulation.lock();
        let outcome = match state.violations.first() {
            Some(violation) => Err(violation.clone()),
            None => outcome,
        };
        play.happened.stalls = state.stalls;
        play.happened.undone_commits = state.broker.undone;
        play.happened.generations = state.broker.group.generation as u64;
        play.happened.epochs = state.broker.transactional.values().map(|known| known.epoch as u64).sum();
        if let Ok(wallet) = std::env::var("SIMULATION_WALLET") {
            check::show(&state, &wallet);
        }
        let virtual_time = Duration::from_micros(state.now);
        let fingerprint = check::fingerprint(&state);
        drop(state);
        leave();
        Run { outcome, happened: play.happened, virtual_time, fingerprint }
    }
}

impl Plan {
    fn of(random: &mut Random) -> Plan {
        let shards = random.between(2, 4) as i32;
        let instances = random.between(1, 4) as usize;
        let mut on = |often| random.per_mille(often);
        let faults = Faults {
            late_markers: on(600),
            slow_network: on(500),
            lost_answers: on(500),
            delayed_end: on(500),
            deaths: on(600),
            pauses: on(600),
            restarts: on(500),
            clock_jumps: on(400),
            passing_days: on(600),
            outages: on(400),
            group_resets: on(300),
            local_store: on(500),
            torn_files: on(500),
            undone_commits: on(350),
        };
        let transaction_timeout_ms = 5_000;
        Plan { shards, instances, faults, transaction_timeout_ms, is_static: on(400) }
    }
}

impl Play {
    pub fn new(mut random: Random, plan: Plan, bug: Option<Bug>) -> Play {
        let Plan { shards, instances, faults, .. } = plan;
        let folder = folder();
        let mut config = Config::default();
        config.ledger.batch_events_max = random.between(4, 60) as usize;
        config.ledger.transaction_timeout_ms = plan.transaction_timeout_ms;
        config.ledger.session_timeout_ms = 5_000;
        config.clock.idle_after_seconds = 3;
        config.store.checkpoint_seconds = 2;
        config.store.path = String::new();
        let routes = routes(&config, shards);
        let sources = routes.topics.iter().map(|topic| (super::client::topic(&topic.name), topic.partitions));
        let sources: Vec<(&'static str, i32)> = sources.collect();
        let outputs = super::TOPICS[4..].iter().map(|topic| (*topic, shards));
        let all: Vec<(&'static str, i32)> = sources.iter().copied().chain(outputs).collect();
        let places: Vec<Place> = all
            .iter()
            .flat_map(|(topic, partitions)| (0..*partitions).map(|partition| (*topic, partition)))
            .collect();
        let session_timeout = u64::from(config.ledger.session_timeout_ms) * MILLI;
        let transaction_timeout = u64::from(config.ledger.transaction_timeout_ms) * MILLI;
        let mut group = Group::new(sources, session_timeout);
        group.is_static = plan.is_static;
        let broker = Broker::new(places, group, transaction_timeout);
        let state = State::new(Random::new(random.next()), faults, broker);
        let simulation = Simulation::new(state, bug);
        let wallets = random.between(4, 14);
        let workload = Workload::new(Random::new(random.next()), shards, wallets);
        let mut play = Play {
            simulation,
            random,
            config: Arc::new(config),
            routes,
            workload,
            folder,
            instances: Vec::new(),
            replaced: Vec::new(),
            happened: Happened::default(),
        };
        for instance in 0..instances {
            let started = play.start(instance);
            play.instances.push(started);
        }
        play
    }

    fn faults(&self) -> Faults {
        self.simulation.lock().faults
    }

    /// Starts a process of an instance.
    fn start(&mut self, instance: usize) -> (usize, Arc<AtomicBool>) {
        let mut config = (*self.config).clone();
        if self.faults().local_store {
            config.store.path = self.folder_of(instance).to_string_lossy().into_owned();
        }
        let dies_one_in = if self.faults().deaths && self.random.per_mille(300) {
            self.random.between(20, 2_000)
        } else {
            0
        };
        let stalls_one_in =
            if self.faults().pauses && self.random.per_mille(500) { self.random.between(10, 300) } else { 0 };
        let mut state = self.simulation.lock();
        let process = state.processes.len();
        state.processes.push(Process {
            instance,
            killed: false,
            paused_until: 0,
            clock_error_ms: 0,
            dies_one_in,
            stalls_one_in,
        });
        drop(state);
        let world = ModelWorld { simulation: Arc::clone(&self.simulation), process };
        let setup = Arc::new(Setup {
            rules: EventRules::new(&config.events),
            policy: Policy::new(&config, Arc::clone(&PRICING)),
            time: TimeRules::new(&config.clock),
            config: Arc::new(config),
            world: world.clone(),
            metrics: METRICS.clone(),
            routes: self.routes.clone(),
        });
        let board = Arc::new(Board::default());
        let stopping = Arc::new(AtomicBool::new(false));
        self.spawn_watch(&world, &board, &stopping);
        let stop = Arc::clone(&stopping);
        self.simulation.spawn(process, move || {
            let health = Health::new();
            let heartbeat = health.register_loop("worker", Duration::MAX);
            let readiness = health.register_component("worker");
            let result = Worker::start(&setup, 0, &board, &stopping, &heartbeat)
                .and_then(|mut worker| worker.run(&readiness));
            stopping.store(true, Ordering::Relaxed);
            match result {
                // Another process may try again.
                Ok(()) | Err(LedgerError::Unreachable(_)) => {}
                Err(LedgerError::Setup(why)) if why.starts_with("another instance has the name") => {}
                Err(error) => world.simulation.lock().violations.push(format!("a worker stopped: {error}")),
            }
        });
        (process, stop)
    }

    /// As `watch` does: tells where the ends of the ledger partitions are.
    fn spawn_watch(&self, world: &ModelWorld, board: &Arc<Board>, stopping: &Arc<AtomicBool>) {
        let (simulation, board, stopping) =
            (Arc::clone(&world.simulation), Arc::clone(board), Arc::clone(stopping));
        self.simulation.spawn(world.process, move || {
            while !stopping.load(Ordering::Relaxed) {
                for shard in board.shards() {
                    let end = simulation.lock().broker.logs[&("credits.ledger", shard)].last_stable();
                    board.set_ledger_end(shard, end);
                }
                simulation.sleep(SECOND);
            }
        });
    }

    fn folder_of(&self, instance: usize) -> PathBuf {
        self.folder.path().join(format!("instance-{instance}"))
    }

    fn run(&mut self) -> Result<(), String> {
        let steps = self.random.between(60, 140);
        for _ in 0..steps {
            let records = self.random.below(5);
            for _ in 0..records {
                self.workload.send(&mut self.simulation.lock());
            }
            let time = self.random.below(500 * MILLI);
            self.simulation.sleep(time);
            self.something_happens();
            if !self.simulation.lock().violations.is_empty() {
                return Ok(());
            }
        }
        self.end()
    }

    fn something_happens(&mut self) {
        if !self.replaced.is_empty() && self.random.per_mille(50) {
            self.simulation.kill(self.replaced.remove(0));
        }
        let faults = self.faults();
        let instance = self.random.below(self.instances.len() as u64) as usize;
        let process = self.instances[instance].0;
        let is_running = self.simulation.lock().is_running(process);
        if !is_running {
            if self.random.per_mille(200) {
                self.restart(instance);
            }
            return;
        }
        match self.random.below(100) {
            0..=2 if faults.deaths => {
                self.simulation.kill(process);
                self.happened.deaths += 1;
            }
            3..=6 if faults.pauses => {
                let time = self.random.between(SECOND / 2, 15 * SECOND);
                let mut state = self.simulation.lock();
                state.processes[process].paused_until = state.now + time;
                self.happened.pauses += 1;
            }
            7 if faults.pauses => {
                // Its successor comes while it stands still; then it goes on.
                let time = self.random.between(3 * SECOND, 15 * SECOND);
                let mut state = self.simulation.lock();
                state.processes[process].paused_until = state.now + time;
                drop(state);
                self.instances[instance] = self.start(instance);
                self.replaced.push(process);
                self.happened.replacements += 1;
            }
            8..=9 if faults.restarts => {
                self.instances[instance].1.store(true, Ordering::Relaxed);
                self.simulation.wait_for_end(process, 5 * SECOND);
                self.happened.restarts += 1;
            }
            10..=11 if faults.clock_jumps => {
                let error = self.random.below(24 * HOUR_MS as u64) as i64 - 12 * HOUR_MS;
                self.simulation.lock().processes[process].clock_error_ms = error;
                self.happened.clock_jumps += 1;
            }
            12..=15 if faults.passing_days && self.happened.days < 20 => {
                let days = self.random.between(1, 3);
                self.simulation.lock().passed_ms += days as i64 * DAY_MS;
                self.happened.days += days;
            }
            16..=17 if faults.outages => {
                let time = self.random.between(SECOND / 2, 8 * SECOND);
                let mut state = self.simulation.lock();
                let (now, until) = (state.now, state.now + time);
                state.broker.go_away(until, now);
                self.happened.outages += 1;
            }
            18 if faults.group_resets => {
                self.workload.reset_group(&mut self.simulation.lock());
                self.happened.group_resets += 1;
            }
            _ => {}
        }
    }

    /// The next process of an instance whose last one has ended.
    fn restart(&mut self, instance: usize) {
        if self.faults().torn_files {
            self.happened.torn_files += tear(&self.folder_of(instance), &mut self.random);
        }
        self.instances[instance] = self.start(instance);
    }

    /// No more faults: everything comes to rest, and is compared with the books.
    pub fn end(&mut self) -> Result<(), String> {
        for process in std::mem::take(&mut self.replaced) {
            self.simulation.kill(process);
        }
        let mut state = self.simulation.lock();
        state.faults = Faults { local_store: state.faults.local_store, ..Faults::default() };
        self.workload.end_resets(&mut state);
        for process in &mut state.processes {
            (process.clock_error_ms, process.dies_one_in, process.stalls_one_in) = (0, 0, 0);
        }
        drop(state);
        self.wait_until_read()?;
        // What is due by now, and all that is on hold, is posted once the clocks go on.
        self.simulation.lock().passed_ms += 2 * DAY_MS;
        self.simulation.sleep(10 * SECOND);
        self.wait_until_read()?;
        self.wait_until_still();
        let until = Timestamp::from_millis(self.simulation.lock().wall_ms(None));
        for instance in 0..self.instances.len() {
            self.instances[instance].1.store(true, Ordering::Relaxed);
        }
        for instance in 0..self.instances.len() {
            if !self.simulation.wait_for_end(self.instances[instance].0, 60 * SECOND) {
                return Err(format!("instance {instance} does not stop"));
            }
        }
        let state = self.simulation.lock();
        self.happened.records = self.workload.counts.records;
        let counted = check::check(&state, &self.workload, &PRICING, until)?;
        (self.happened.entries, self.happened.alerts) = (counted.entries, counted.alerts);
        Ok(())
    }

    fn wait_until_read(&mut self) -> Result<(), String> {
        let deadline = self.simulation.lock().now + QUIET_PATIENCE;
        loop {
            for instance in 0..self.instances.len() {
                let process = self.instances[instance].0;
                let is_running = self.simulation.lock().is_running(process);
                if !is_running {
                    self.restart(instance);
                }
            }
            self.simulation.sleep(SECOND);
            let state = self.simulation.lock();
            let unread = state.broker.group.topics.iter().flat_map(|(topic, partitions)| {
                let state = &state;
                (0..*partitions).filter_map(move |partition| {
                    let place = (*topic, partition);
                    let end =
                        state.broker.logs[&place].committed().last().map_or(0, |(offset, _)| offset + 1);
                    let committed = state.broker.group.committed.get(&place).copied().unwrap_or(0);
                    (committed < end).then(|| format!("{topic}/{partition} is read to {committed} of {end}"))
                })
            });
            let unread: Vec<String> = unread.collect();
            if (unread.is_empty() && state.broker.is_settled()) || !state.violations.is_empty() {
                return Ok(());
            }
            if state.now > deadline {
                return Err(format!("not quiet in time: {}", unread.join(", ")));
            }
        }
    }

    /// Waits until nothing is written any more.
    fn wait_until_still(&self) {
        let mut last = 0;
        for _ in 0..60 {
            let written: usize =
                self.simulation.lock().broker.logs.values().map(|log| log.records.len()).sum();
            if written == last {
                return;
            }
            last = written;
            self.simulation.sleep(8 * SECOND);
        }
    }
}

fn routes(config: &Config, shards: i32) -> Routes {
    let topic = |name: &str, partitions, role| Topic {
        name: name.to_owned(),
        topic_id: format!("{name}-id"),
        partitions,
        role,
    };
    Routes {
        topics: vec![
            topic("generation.events", shards, TopicRole::Source(SourceKind::Generation)),
            topic("other.events", shards + 1, TopicRole::Source(SourceKind::Generation)),
            topic("wallet.events", shards, TopicRole::Source(SourceKind::Wallet)),
            topic("credits.intake", shards, TopicRole::Intake),
        ],
        shards,
        out: config.topics.clone(),
        ledger_id: "ledger-id".to_owned(),
    }
}

/// Checkpoints are files; in memory where that is possible.
fn folder() -> tempfile::TempDir {
    let in_memory = Path::new("/dev/shm");
    if in_memory.is_dir() { tempfile::tempdir_in(in_memory).unwrap() } else { tempfile::tempdir().unwrap() }
}

/// What a crash or a bad disk makes of files: cut, flipped, or gone.
fn tear(folder: &Path, random: &mut Random) -> u64 {
    let Ok(files) = std::fs::read_dir(folder) else { return 0 };
    let mut paths: Vec<PathBuf> = files.flatten().map(|file| file.path()).collect();
    paths.sort();
    let mut torn = 0;
    for path in paths.iter().filter(|path| path.is_file()) {
        let mut bytes = std::fs::read(path).unwrap();
        match random.below(6) {
            0 => bytes.truncate(random.below(bytes.len() as u64 + 1) as usize),
            1 if !bytes.is_empty() => {
                let place = random.below(bytes.len() as u64) as usize;
                bytes[place] ^= 1 << random.below(8);
            }
            2 => {
                std::fs::remove_file(path).unwrap();
                torn += 1;
                continue;
            }
            _ => continue,
        }
        std::fs::write(path, bytes).unwrap();
        torn += 1;
    }
    torn
}
