//! When checkpoints are written: one shard at a time, encoded between two batches, written by a thread of its own.
//!
//! A checkpoint must hold every entry below the position that it names, and so must a shard that is parked. The position
//! is a last stable offset of the shard's ledger partition, sampled a while ago. Below it may lie what was in flight
//! then, and, where the group has given the shard away and this instance does not know it yet, what its new owner
//! wrote. So a sample counts only once a batch that was sent after it is committed: what was in flight before is
//! applied by then, and the group has said that the shard was still ours.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use tracing::warn;

use super::identity_store::Manifest;
use super::shard::{ShardSlot, ShardState};
use super::store;
use super::watch::Board;
use super::world::World;
use crate::config::StoreConfig;

/// How often is looked whether the thread that writes has room again.
const DISK_POLL: Duration = Duration::from_millis(1);

/// The thread that writes checkpoints.
struct Writer {
    to_write: SyncSender<(i32, Manifest, Vec<u8>)>,
    /// What was written since: the manifest where it is on disk.
    written: Receiver<(i32, Option<Manifest>)>,
    /// It has one that it has not answered for yet.
    is_busy: bool,
}

/// A ledger position that was asked for.
#[derive(Clone, Copy)]
struct Sample {
    position: i64,
    /// It counts from this commit on.
    counts_from: u64,
    /// Batches of the shard up to this number had been sent by then.
    last_sent: u64,
}

/// Writes checkpoints of a worker's shards.
pub struct Checkpoints {
    folder: Option<PathBuf>,
    ledger_id: String,
    every: Duration,
    written: BTreeMap<i32, Instant>,
    samples: BTreeMap<i32, Sample>,
    commits: u64,
    writer: Option<Writer>,
}

impl Checkpoints {
    /// Of shards of that ledger topic, as configured.
    pub fn new(world: &impl World, config: &StoreConfig, ledger_id: &str) -> Checkpoints {
        let folder = config.folder().map(PathBuf::from);
        let writer = folder.clone().and_then(|folder| spawn_writer(world, folder));
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
    pub fn step(
        &mut self,
        shards: &mut BTreeMap<i32, ShardSlot>,
        board: &Board,
        now: Instant,
        is_in_flight: bool,
    ) {
        self.take_samples(shards, board, is_in_flight);
        self.take_durable(shards);
        // One after the other: those that are due at once wait for the disk, and do not go without.
        if self.writer.as_ref().is_none_or(|writer| writer.is_busy) {
            return;
        }
        let last_written = shards.keys().map(|shard| (*self.written.entry(*shard).or_insert(now), *shard));
        let due = last_written.min().filter(|(last, _)| now.duration_since(*last) >= self.every);
        let Some(slot) = due.and_then(|(_, shard)| shards.get(&shard)) else { return };
        self.written.insert(slot.state.shard, now);
        self.write(&slot.state);
    }

    fn take_samples(&mut self, shards: &mut BTreeMap<i32, ShardSlot>, board: &Board, is_in_flight: bool) {
        for (shard, slot) in shards.iter_mut() {
            match self.samples.get(shard) {
                Some(sample) if self.commits >= sample.counts_from => {
                    slot.state.ledger_position = slot.state.ledger_position.max(sample.position);
                    slot.state.changed.retain(|_, batch| *batch > sample.last_sent);
                    slot.state.saved.retain(|_, batch| *batch > sample.last_sent);
                    self.samples.remove(shard);
                }
                Some(_) => {}
                None => {
                    if let Some(position) =
                        board.ledger_end(*shard).filter(|end| *end > slot.state.ledger_position)
                    {
                        let counts_from = self.commits + 1 + u64::from(is_in_flight);
                        let last_sent = slot.last_sent();
                        self.samples.insert(*shard, Sample { position, counts_from, last_sent });
                    }
                }
            }
        }
    }

    /// Files that no checkpoint names any more may go.
    fn take_durable(&mut self, shards: &mut BTreeMap<i32, ShardSlot>) {
        let Some(writer) = &mut self.writer else { return };
        while let Ok((shard, manifest)) = writer.written.try_recv() {
            writer.is_busy = false;
            if let Some((slot, manifest)) = shards.get_mut(&shard).zip(manifest) {
                slot.state.identities.manifest_is_durable(&manifest);
            }
        }
    }

    fn write(&mut self, state: &ShardState) {
        let Some(writer) = &mut self.writer else { return };
        match store::encode(state, &self.ledger_id) {
            Ok(bytes) => {
                let job = (state.shard, state.identities.manifest(), bytes);
                writer.is_busy = writer.to_write.try_send(job).is_ok();
            }
            Err(error) => warn!(%error, shard = state.shard, "the checkpoint cannot be encoded"),
        }
    }

    /// Deletes the checkpoint of a shard that is not to be trusted.
    pub fn discard(&self, shard: i32) {
        if let Some(folder) = &self.folder {
            store::discard(folder, shard);
        }
    }

    /// Forgets samples of shards that are given away or read anew.
    pub fn reset(&mut self) {
        self.samples.clear();
    }

    /// Whether another commit would let checkpoints cover more. Nothing may be in flight.
    pub fn waits_for_commit(&mut self, shards: &mut BTreeMap<i32, ShardSlot>, board: &Board) -> bool {
        self.take_samples(shards, board, false);
        self.writer.is_some() && !self.samples.is_empty()
    }

    /// Writes all shards once more and waits for the disk. Nothing may be in flight.
    pub fn finish(&mut self, world: &impl World, shards: &mut BTreeMap<i32, ShardSlot>, board: &Board) {
        self.take_samples(shards, board, false);
        let Some(Writer { to_write, written, .. }) = self.writer.take() else { return };
        for slot in shards.values() {
            match store::encode(&slot.state, &self.ledger_id) {
                Ok(bytes) => {
                    let mut job = (slot.state.shard, slot.state.identities.manifest(), bytes);
                    while let Err(TrySendError::Full(again)) = to_write.try_send(job) {
                        job = again;
                        world.sleep(DISK_POLL);
                    }
                }
                Err(error) => warn!(%error, "the checkpoint cannot be encoded"),
            }
        }
        drop(to_write);
        // It ends once everything is written.
        while world.receive(&written, None).is_ok() {}
    }
}

fn spawn_writer<W: World>(world: &W, folder: PathBuf) -> Option<Writer> {
    let (to_write, jobs) = sync_channel::<(i32, Manifest, Vec<u8>)>(1);
    let (done, written) = std::sync::mpsc::channel();
    let inside = world.clone();
    let spawned = world.spawn("checkpoints", move || {
        while let Ok((shard, manifest, bytes)) = inside.receive(&jobs, None) {
            let is_written = store::write(&folder, shard, &bytes).inspect_err(|error| {
                warn!(%error, shard, "the checkpoint was not written: the next restart reads more of the ledger");
            });
            // At the end nobody may be left to ask.
            let _ = done.send((shard, is_written.ok().map(|()| manifest)));
        }
    });
    spawned.ok()?;
    Some(Writer { to_write, written, is_busy: false })
}
