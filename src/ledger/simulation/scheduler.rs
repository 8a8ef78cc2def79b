//! One thread at a time, in virtual time: who runs next, and when, only the seed decides.
//!
//! Every thread of the stage is a thread of the system that waits for its turn. It gives the turn away whenever it asks
//! the world something that takes time, and gets it back when the virtual clock has come that far. A killed process's
//! threads unwind at their next turn: nothing of them touches the model any more.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::Thread;

use super::broker::Broker;
use super::random::Random;
use super::{Bug, Faults};

/// Microseconds of virtual time.
pub type Micros = u64;
pub const MILLI: Micros = 1_000;
pub const SECOND: Micros = 1_000_000;

thread_local! {
    static TASK: Cell<usize> = const { Cell::new(0) };
    static SIMULATION: RefCell<Option<Arc<Simulation>>> = const { RefCell::new(None) };
    static BUG: Cell<Option<Bug>> = const { Cell::new(None) };
}

/// What a thread of a killed process unwinds with.
struct Killed;

/// A model world with the threads that live in it.
pub struct Simulation {
    state: Mutex<State>,
    /// The thread whose turn it is.
    running: AtomicUsize,
    pub bug: Option<Bug>,
}

/// All that threads share.
pub struct State {
    pub now: Micros,
    pub random: Random,
    pub faults: Faults,
    pub broker: Broker,
    pub processes: Vec<Process>,
    /// What must not happen, and did.
    pub violations: Vec<String>,
    /// Days that have passed for everybody, milliseconds.
    pub passed_ms: i64,
    pub stalls: u64,
    tasks: Vec<Task>,
}

/// An instance from its start to its end.
pub struct Process {
    /// Whose transactional id and folder it has.
    pub instance: usize,
    pub killed: bool,
    pub paused_until: Micros,
    /// How wrong its wall clock is, milliseconds.
    pub clock_error_ms: i64,
    /// It may die at the next fault points, one in so many.
    pub dies_one_in: u64,
    /// It may stand still there for longer than its session, likewise.
    pub stalls_one_in: u64,
}

struct Task {
    process: Option<usize>,
    wakes_at: Micros,
    /// Another thread of its process may have sent it something.
    waits_for_others: bool,
    is_done: bool,
    thread: Option<Thread>,
}

impl Simulation {
    /// The calling thread becomes its first task, the driver.
    pub fn new(state: State, bug: Option<Bug>) -> Arc<Simulation> {
        let simulation = Arc::new(Simulation { state: Mutex::new(state), running: AtomicUsize::new(0), bug });
        enter(&simulation, 0);
        simulation
    }

    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the turn away for so long.
    pub fn sleep(&self, time: Micros) {
        self.give_way(self.lock(), time, false);
    }

    /// Gives the turn away until another thread of the process may have sent something, or for so long. Others may wait
    /// for what this thread has sent before it `begins` to wait.
    pub fn wait_for_others(&self, time: Micros, begins: bool) {
        let mut state = self.lock();
        if begins {
            let process = state.tasks[TASK.get()].process;
            state.wake_others(process);
        }
        self.give_way(state, time, true);
    }

    fn give_way(&self, mut state: MutexGuard<'_, State>, time: Micros, waits_for_others: bool) {
        let me = TASK.get();
        if std::thread::panicking() {
            return;
        }
        let wakes_at = state.now + time;
        let task = &mut state.tasks[me];
        (task.wakes_at, task.waits_for_others) = (wakes_at, waits_for_others);
        self.pass_turn(state);
        self.wait_for_turn(me);
        let mut state = self.lock();
        state.tasks[me].waits_for_others = false;
        let is_killed = state.tasks[me].process.is_some_and(|process| state.processes[process].killed);
        drop(state);
        if is_killed {
            resume_unwind(Box::new(Killed));
        }
    }

    /// Lets the next thread run: only once nobody holds the state, for it would have to wait for that.
    fn pass_turn(&self, mut state: MutexGuard<'_, State>) {
        let next = state.next_turn();
        let thread = state.tasks[next].thread.clone();
        drop(state);
        self.running.store(next, Ordering::Release);
        if next != TASK.get()
            && let Some(thread) = thread
        {
            thread.unpark();
        }
    }

    fn wait_for_turn(&self, me: usize) {
        while self.running.load(Ordering::Acquire) != me {
            std::thread::park();
        }
    }

    /// Starts a thread of a process; it gets its first turn soon.
    pub fn spawn(self: &Arc<Self>, process: usize, body: impl FnOnce() + Send + 'static) {
        let mut state = self.lock();
        let wakes_at = state.now + state.random.below(MILLI);
        let task = state.tasks.len();
        state.tasks.push(Task {
            process: Some(process),
            wakes_at,
            waits_for_others: false,
            is_done: false,
            thread: None,
        });
        drop(state);
        let simulation = Arc::clone(self);
        let thread = std::thread::spawn(move || {
            enter(&simulation, task);
            simulation.wait_for_turn(task);
            let is_killed = simulation.lock().processes[process].killed;
            let outcome = if is_killed { Ok(()) } else { catch_unwind(AssertUnwindSafe(body)) };
            leave();
            let mut state = simulation.lock();
            if let Err(panic) = outcome
                && !panic.is::<Killed>()
            {
                let words = panic.downcast_ref::<String>().cloned();
                let words = words.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
                state.violations.push(format!("a thread panicked: {}", words.unwrap_or_default()));
            }
            state.tasks[task].is_done = true;
            state.wake_others(Some(process));
            simulation.pass_turn(state);
        });
        self.lock().tasks[task].thread = Some(thread.thread().clone());
    }

    /// Kills a process and waits until nothing of it moves any more.
    pub fn kill(&self, process: usize) {
        let mut state = self.lock();
        state.processes[process].killed = true;
        state.wake_all(process);
        drop(state);
        self.wait_for_end(process, SECOND);
    }

    /// Waits until all threads of a process have ended; whether they have.
    pub fn wait_for_end(&self, process: usize, patience: Micros) -> bool {
        let deadline = self.lock().now + patience;
        loop {
            let state = self.lock();
            if !state.is_running(process) {
                return true;
            }
            if state.now >= deadline {
                return false;
            }
            drop(state);
            self.sleep(10 * MILLI);
        }
    }
}

impl State {
    pub fn new(random: Random, faults: Faults, broker: Broker) -> State {
        let driver = Task {
            process: None,
            wakes_at: 0,
            waits_for_others: false,
            is_done: false,
            thread: Some(std::thread::current()),
        };
        State {
            now: 0,
            random,
            faults,
            broker,
            processes: Vec::new(),
            violations: Vec::new(),
            passed_ms: 0,
            stalls: 0,
            tasks: vec![driver],
        }
    }

    pub fn is_running(&self, process: usize) -> bool {
        self.tasks.iter().any(|task| task.process == Some(process) && !task.is_done)
    }

    /// The processes with a transactional id die at their next turns.
    pub fn kill_instance(&mut self, transactional_id: &str) {
        for process in 0..self.processes.len() {
            if super::producer::transactional_id(self.processes[process].instance) == transactional_id {
                self.processes[process].killed = true;
                self.wake_all(process);
            }
        }
    }

    fn wake_all(&mut self, process: usize) {
        let now = self.now;
        self.processes[process].paused_until = 0;
        for task in self.tasks.iter_mut().filter(|task| task.process == Some(process)) {
            task.wakes_at = now;
        }
    }

    fn wake_others(&mut self, process: Option<usize>) {
        let now = self.now;
        for task in self.tasks.iter_mut().filter(|task| task.process == process && task.waits_for_others) {
            task.wakes_at = task.wakes_at.min(now + self.random.below(2 * MILLI));
        }
    }

    /// Moves the clock to the next thread's time, and does what the brokers do until then.
    fn next_turn(&mut self) -> usize {
        let due = |state: &State, task: &Task| {
            let paused = task.process.map_or(0, |process| state.processes[process].paused_until);
            task.wakes_at.max(paused)
        };
        let mut next = (Micros::MAX, 0);
        let mut ties = 0;
        for (number, task) in self.tasks.iter().enumerate().filter(|(_, task)| !task.is_done) {
            let at = due(self, task).max(self.now);
            if at < next.0 {
                (next, ties) = ((at, number), 1);
            } else if at == next.0 {
                ties += 1;
                if self.random.below(ties) == 0 {
                    next.1 = number;
                }
            }
        }
        self.run_brokers(next.0);
        self.now = next.0;
        next.1
    }
}

fn enter(simulation: &Arc<Simulation>, task: usize) {
    TASK.set(task);
    BUG.set(simulation.bug);
    SIMULATION.with(|place| *place.borrow_mut() = Some(Arc::clone(simulation)));
}

/// The calling thread is in no simulation any more.
pub fn leave() {
    BUG.set(None);
    SIMULATION.with(|place| *place.borrow_mut() = None);
}

/// Whether the calling thread's simulation has planted this bug.
pub fn is_planted(bug: Bug) -> bool {
    BUG.get() == Some(bug)
}

/// The calling thread has reached a fault point: others may run now, and its process may die.
pub fn reached(point: &str) {
    let Some(simulation) = SIMULATION.with(|place| place.borrow().clone()) else { return };
    let mut state = simulation.lock();
    let Some(process) = state.tasks[TASK.get()].process else { return };
    if point == "batch.sent" {
        state.wake_others(Some(process));
    }
    let Process { dies_one_in, stalls_one_in, .. } = state.processes[process];
    if stalls_one_in > 0 && state.random.below(stalls_one_in) == 0 {
        let time = state.random.between(SECOND, 12 * SECOND);
        state.processes[process].paused_until = state.now + time;
        state.stalls += 1;
        drop(state);
        simulation.sleep(0);
        let mut state = simulation.lock();
        if state.random.per_mille(500) {
            // The client's own threads may be the first to go on.
            state.hear(process);
        }
    } else if dies_one_in > 0 && state.random.below(dies_one_in) == 0 {
        state.processes[process].killed = true;
        state.wake_all(process);
        drop(state);
        simulation.sleep(0);
    } else if state.random.below(8) == 0 {
        let time = state.random.below(MILLI);
        drop(state);
        simulation.sleep(time);
    }
}
