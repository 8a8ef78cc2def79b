//! When checkpoints are written: one shard at a time, encoded between two batches, written by a thread of its own.
//!
//! A checkpoint must hold every entry below the position that it names. The position is a last stable offset of
//! the shard's ledger partition, sampled a while ago; what was in flight then may be below it and is state only
//! once it is applied, so a sample counts from the commit after it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tracing::{debug, warn};

use super::shard::{ShardSlot, ShardState};
use super::store;
use super::watch::Board;
use crate::config::StoreConfig;

/// The thread that writes: shard and bytes to it, and its handle.
type Writer = (SyncSender<(i32, Vec<u8>)>, JoinHandle<()>);

/// Writes checkpoints of a worker's shards.
pub struct Checkpoints {
    folder: Option<PathBuf>,
    ledger_id: String,
    every: Duration,
    written: BTreeMap<i32, Instant>,
    /// Sampled ledger positions, and the number of commits at the time.
    samples: BTreeMap<i32, (i64, u64)>,
    commits: u64,
    writer: Option<Writer>,
}

impl Checkpoints {
    /// Of shards of that ledger topic, as configured.
    pub fn new(config: &StoreConfig, ledger_id: &str) -> Checkpoints {
        let folder = config.folder().map(PathBuf::from);
        let writer = folder.clone().and_then(spawn_writer);
        Checkpoints {
            folder,
            ledger_id: ledger_id.to_owned(),
            every: config.checkpoint_interval(),
            written: BTreeMap::new(),
            samples: BTreeMap::new(),
            commits: 0,
            writer,
        }
    }

    /// Where they are.
    pub fn folder(&self) -> Option<&std::path::Path> {
        self.folder.as_deref()
    }

    /// A batch became state.
    pub fn committed(&mut self) {
        self.commits += 1;
    }

    /// Takes samples over that count by now, and writes the checkpoint that is due longest.
    pub fn step(&mut self, shards: &mut BTreeMap<i32, ShardSlot>, board: &Board) {
        self.take_samples(shards, board);
        let now = Instant::now();
        let due = shards.keys().copied().find(|shard| {
            let last = *self.written.entry(*shard).or_insert(now);
            now.duration_since(last) >= self.every
        });
        let Some(slot) = due.and_then(|shard| shards.get(&shard)) else { return };
        self.written.insert(slot.state.shard, now);
        self.write(&slot.state);
    }

    fn take_samples(&mut self, shards: &mut BTreeMap<i32, ShardSlot>, board: &Board) {
        for (shard, slot) in shards.iter_mut() {
            let idle = slot.pending.is_none();
            match self.samples.get(shard) {
                // Whatever was in flight when it was sampled has been applied since.
                Some((position, commits)) if *commits < self.commits || idle => {
                    slot.state.ledger_position = slot.state.ledger_position.max(*position);
                    self.samples.remove(shard);
                }
                Some(_) => {}
                None => {
                    if let Some(end) =
                        board.ledger_end(*shard).filter(|end| *end > slot.state.ledger_position)
                    {
                        self.samples.insert(*shard, (end, self.commits));
                    }
                }
            }
        }
    }

    fn write(&self, state: &ShardState) {
        let Some((writer, _)) = &self.writer else { return };
        match store::encode(state, &self.ledger_id) {
            Ok(bytes) => match writer.try_send((state.shard, bytes)) {
                Ok(()) | Err(TrySendError::Disconnected(_)) => {}
                Err(TrySendError::Full(_)) => {
                    debug!(shard = state.shard, "the disk is behind: checkpoint left out")
                }
            },
            Err(error) => warn!(%error, shard = state.shard, "the checkpoint cannot be encoded"),
        }
    }

    /// Forgets samples of shards that are given away or read anew.
    pub fn reset(&mut self) {
        self.samples.clear();
    }

    /// Writes all shards once more and waits for the disk. Nothing may be in flight.
    pub fn finish(&mut self, shards: &mut BTreeMap<i32, ShardSlot>, board: &Board) {
        self.take_samples(shards, board);
        self.take_samples(shards, board);
        let Some((writer, thread)) = self.writer.take() else { return };
        for slot in shards.values() {
            match store::encode(&slot.state, &self.ledger_id) {
                Ok(bytes) => drop(writer.send((slot.state.shard, bytes))),
                Err(error) => warn!(%error, "the checkpoint cannot be encoded"),
            }
        }
        drop(writer);
        let _ = thread.join();
    }
}

fn spawn_writer(folder: PathBuf) -> Option<Writer> {
    let (sender, receiver) = sync_channel::<(i32, Vec<u8>)>(1);
    let thread = std::thread::Builder::new().name("checkpoints".to_owned()).spawn(move || {
        for (shard, bytes) in receiver {
            if let Err(error) = store::write(&folder, shard, &bytes) {
                warn!(%error, shard, "the checkpoint was not written: the next restart reads more of the ledger");
            }
        }
    });
    thread.ok().map(|thread| (sender, thread))
}
