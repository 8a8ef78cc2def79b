//! The background thread of a worker: seals and merges, one after the other, for all its shards.
//!
//! Sealing frees memory and takes less than a second, a merge may take a minute: a merge lets sealing go first.
//!
//! **Invariants:** the queue is bounded and nobody waits for room in it. Work that ends badly, or whose shard is
//! gone, leaves no file behind. What the thread was given is never changed: it reads frozen identities and
//! sealed segments.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tracing::warn;

use super::block::Record;
use super::merge::merge;
use super::recent::Recent;
use super::segment::Segment;
use super::writer::{SegmentWriter, Target};

/// A shard has at most one seal and one merge under way.
const QUEUE_LENGTH: usize = 64;

/// The background thread. It ends when this is dropped, without finishing what was queued: whatever is not sealed
/// is still in memory and in the checkpoint.
#[derive(Debug)]
pub struct Maintenance {
    queue: SyncSender<Job>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Maintenance {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system has no thread to give.
    pub fn start() -> io::Result<Maintenance> {
        let (queue, jobs) = sync_channel(QUEUE_LENGTH);
        let stop = Arc::new(AtomicBool::new(false));
        let worker = Worker { jobs, merges: VecDeque::new(), stop: Arc::clone(&stop) };
        let builder = std::thread::Builder::new().name("identities".to_owned());
        let thread = Some(builder.spawn(move || worker.run())?);
        Ok(Maintenance { queue, stop, thread })
    }

    pub(super) fn queue(&self) -> SyncSender<Job> {
        self.queue.clone()
    }
}

impl Drop for Maintenance {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.queue.send(Job::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A finished piece of work.
#[derive(Debug)]
pub(super) struct Finished {
    /// None where everything was forgotten.
    pub(super) segment: Option<Segment>,
    pub(super) took: Duration,
}

/// What the thread is asked for.
#[derive(Debug)]
pub(super) enum Job {
    Seal(Arc<Recent>, Order),
    /// The newest first.
    Merge(Vec<Arc<Segment>>, Order),
    /// Files that nobody names any longer.
    Remove(Vec<PathBuf>),
    Stop,
}

/// For whom, and where to.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) target: Target,
    /// What is before this day is left out.
    pub(super) first_day: i32,
    /// The shard is gone: nobody waits any longer.
    pub(super) cancelled: Arc<AtomicBool>,
    pub(super) done: SyncSender<io::Result<Finished>>,
}

impl Order {
    fn check(&self, stop: &AtomicBool) -> io::Result<()> {
        if self.cancelled.load(Ordering::Relaxed) || stop.load(Ordering::Relaxed) {
            return Err(io::Error::other("the shard or its worker is gone"));
        }
        Ok(())
    }

    /// Delivers. A segment that nobody takes is removed: no manifest can name it.
    fn deliver(&self, segment: io::Result<Option<Segment>>, took: Duration) {
        let path = segment.as_ref().ok().and_then(Option::as_ref).map(|segment| segment.path.clone());
        let finished = segment.map(|segment| Finished { segment, took });
        if let (Err(_), Some(path)) = (self.done.send(finished), path) {
            let _ = fs::remove_file(path);
        }
    }
}

struct Worker {
    jobs: Receiver<Job>,
    /// Merges wait here while others are sealed; at most one a shard.
    merges: VecDeque<(Vec<Arc<Segment>>, Order)>,
    stop: Arc<AtomicBool>,
}

impl Worker {
    fn run(mut self) {
        loop {
            self.take_waiting();
            // Only now: `Stop` may have been among what waited, and nothing else would come after it.
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            match self.merges.pop_front() {
                Some((segments, order)) => self.merge(&segments, &order),
                None => match self.jobs.recv() {
                    Ok(job) => self.take(job),
                    Err(_) => return,
                },
            }
        }
    }

    fn take_waiting(&mut self) {
        while let Ok(job) = self.jobs.try_recv() {
            self.take(job);
        }
    }

    fn take(&mut self, job: Job) {
        match job {
            Job::Seal(recent, order) => {
                let begun = Instant::now();
                let sealed = order.check(&self.stop).and_then(|()| seal(&recent, &order));
                // Before the answer: whoever takes it frees this memory, and not a thread that still holds it.
                drop(recent);
                order.deliver(sealed, begun.elapsed());
            }
            Job::Merge(segments, order) => self.merges.push_back((segments, order)),
            Job::Remove(paths) => remove(&paths),
            Job::Stop => {}
        }
    }

    fn merge(&mut self, segments: &[Arc<Segment>], order: &Order) {
        let begun = Instant::now();
        let mut others = Duration::ZERO;
        let merged = merge(segments, order.first_day, &order.target, || {
            let turn = Instant::now();
            self.take_waiting();
            others += turn.elapsed();
            order.check(&self.stop)
        });
        order.deliver(merged, begun.elapsed().saturating_sub(others));
    }
}

/// What cannot be removed now is removed when the store is opened.
fn remove(paths: &[PathBuf]) {
    for path in paths {
        if let Err(error) = fs::remove_file(path) {
            warn!(%error, path = %path.display(), "a file of forgotten identities cannot be removed");
        }
    }
}

fn seal(recent: &Recent, order: &Order) -> io::Result<Option<Segment>> {
    let mut writer = SegmentWriter::create(&order.target, recent.len() as u64)?;
    for (key, memo) in recent.iter_sorted().filter(|(_, memo)| memo.day >= order.first_day) {
        writer.push(&Record { key, day: memo.day, value: &memo.value })?;
    }
    writer.finish()
}
