//! All remembered identities of one shard: the newest in memory, frozen ones on their way to disk, segments.
//!
//! **Invariants:** the newest of a key wins: `recent`, then `frozen`, then `segments`, each from its newest on.
//! Nothing here waits for the disk but a look-up of a key that a filter lets through, and `open`.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use tracing::warn;

use super::maintenance::{Finished, Job, Maintenance, Order};
use super::manifest::{Manifest, SegmentId};
use super::policy::{self, Facts};
use super::recent::Recent;
use super::segment::{self, Segment};
use super::writer::{Target, sync_folder};
use super::{Memo, StoreSettings, WhyNot, Work};
use crate::event::IdentityKey;

/// One is being sealed; a second one waiting means that the disk is behind.
const FROZEN_MAX: usize = 1;
/// The longest values come in thousands, not in millions: memory is bounded by bytes too.
const RECENT_BYTES_MAX: usize = 256 * 1024 * 1024;
/// After a failure the disk is left alone for a while.
const RETRY_AFTER: Duration = Duration::from_secs(10);

/// All remembered identities of one shard.
#[derive(Debug)]
pub struct IdentityStore {
    settings: StoreSettings,
    recent: Recent,
    /// From the oldest to the newest.
    frozen: VecDeque<Arc<Recent>>,
    /// From the oldest to the newest.
    segments: Vec<Arc<Segment>>,
    /// Files that no manifest will name any more, but a durable one may.
    retired: Vec<Retired>,
    /// Grows whenever `segments` changes.
    revision: u64,
    first_day: i32,
    queue: SyncSender<Job>,
    /// The oldest of `frozen` is being sealed.
    sealing: Option<Receiver<io::Result<Finished>>>,
    merging: Option<Merging>,
    pub(super) retry_at: Option<Instant>,
    /// Tells the background thread that nobody waits any longer.
    cancelled: Arc<AtomicBool>,
    disk_lookups: AtomicU64,
    work: Work,
}

/// All identities but the newest.
pub struct Older<'s> {
    frozen: &'s VecDeque<Arc<Recent>>,
    segments: &'s [Arc<Segment>],
    disk_lookups: &'s AtomicU64,
}

#[derive(Debug)]
struct Merging {
    inputs: Vec<SegmentId>,
    done: Receiver<io::Result<Finished>>,
}

/// A file that went at a revision.
#[derive(Debug)]
struct Retired {
    path: PathBuf,
    /// The first revision whose manifest does not name it.
    revision: u64,
}

impl<'s> Older<'s> {
    /// What is remembered under a key, as [`IdentityStore::get`] has it.
    ///
    /// # Errors
    /// As there.
    pub fn get(&self, key: IdentityKey) -> io::Result<Option<Memo<'s>>> {
        if let Some(memo) = self.frozen.iter().rev().find_map(|recent| recent.get(key)) {
            return Ok(Some(memo));
        }
        for segment in self.segments.iter().rev().filter(|segment| segment.may_hold(key)) {
            self.disk_lookups.fetch_add(1, Ordering::Relaxed);
            if let Some((day, value)) = segment.find(key)? {
                return Ok(Some(Memo { day, value: value.into() }));
            }
        }
        Ok(None)
    }
}

impl IdentityStore {
    /// An empty store. Files of the shard that are in the folder are of no use any more and are deleted.
    pub fn new(settings: StoreSettings, maintenance: &Maintenance) -> IdentityStore {
        if let Some(folder) = &settings.folder
            && let Err(error) = clean(folder, settings.shard, &[])
        {
            warn!(%error, folder = %folder.display(), "the folder of remembered identities cannot be cleaned");
        }
        IdentityStore::with(settings, maintenance, Vec::new(), 0)
    }

    /// The store as a checkpoint has it; the caller then absorbs the identities that the checkpoint itself
    /// holds. Files of the shard that the manifest does not name are deleted.
    ///
    /// # Errors
    /// A segment that cannot be read or is in doubt: delete the checkpoint, begin with [`IdentityStore::new`] and
    /// rebuild from the ledger.
    pub fn open(
        settings: StoreSettings,
        maintenance: &Maintenance,
        manifest: &Manifest,
    ) -> Result<IdentityStore, WhyNot> {
        let Some(folder) = settings.folder.clone() else {
            return if manifest.segments.is_empty() {
                Ok(IdentityStore::new(settings, maintenance))
            } else {
                Err(WhyNot::NoFolder)
            };
        };
        let opened = manifest.segments.iter().map(|id| Segment::open(&folder, &settings, *id).map(Arc::new));
        let segments = opened.collect::<Result<Vec<_>, _>>()?;
        clean(&folder, settings.shard, &manifest.segments)
            .map_err(|source| WhyNot::Disk { path: folder.clone(), source })?;
        Ok(IdentityStore::with(settings, maintenance, segments, manifest.revision))
    }

    fn with(
        settings: StoreSettings,
        maintenance: &Maintenance,
        segments: Vec<Arc<Segment>>,
        revision: u64,
    ) -> IdentityStore {
        IdentityStore {
            settings,
            recent: Recent::new(),
            frozen: VecDeque::new(),
            segments,
            retired: Vec::new(),
            revision,
            first_day: i32::MIN,
            queue: maintenance.queue(),
            sealing: None,
            merging: None,
            retry_at: None,
            cancelled: Arc::new(AtomicBool::new(false)),
            disk_lookups: AtomicU64::new(0),
            work: Work::default(),
        }
    }

    /// What is remembered under a key. What was forgotten may still be there: the caller looks at its day.
    ///
    /// # Errors
    /// The disk, or a damaged block: the shard must be rebuilt, for nobody knows what the block said.
    pub fn get(&self, key: IdentityKey) -> io::Result<Option<Memo<'_>>> {
        match self.recent.get(key) {
            Some(memo) => Ok(Some(memo)),
            None => self.older().get(key),
        }
    }

    /// The newest identities, to be added to, and all others. Day and value of a key may be replaced, and its day only grow:
    /// see the module.
    pub fn in_place(&mut self) -> (&mut Recent, Older<'_>) {
        let IdentityStore { recent, frozen, segments, disk_lookups, .. } = self;
        (recent, Older { frozen, segments, disk_lookups })
    }

    fn older(&self) -> Older<'_> {
        Older { frozen: &self.frozen, segments: &self.segments, disk_lookups: &self.disk_lookups }
    }

    /// Reaches for all that memory has of keys which will be looked up. Which of them may be remembered: the others surely
    /// are not.
    pub fn fetch(&self, keys: &[IdentityKey]) -> Vec<bool> {
        let mut may_be = self.fetch_recent(keys);
        self.frozen.iter().for_each(|frozen| frozen.mark(keys, &mut may_be));
        for segment in &self.segments {
            keys.iter().zip(&mut may_be).for_each(|(key, may_be)| *may_be |= segment.may_hold(*key));
        }
        may_be
    }

    /// The same where only the newest are looked at: which of the keys are among them.
    pub fn fetch_recent(&self, keys: &[IdentityKey]) -> Vec<bool> {
        let mut found = vec![false; keys.len()];
        self.recent.mark(keys, &mut found);
        found
    }

    /// Remembers all of a batch. A key's day may only grow: see the module.
    pub fn absorb(&mut self, batch: &Recent) {
        self.recent.absorb(batch);
    }

    /// Forgets what lies before a day: memory at once, segments when all of them is before it.
    pub fn forget_before(&mut self, first_day: i32) {
        if first_day <= self.first_day {
            return;
        }
        self.first_day = first_day;
        self.recent.forget_before(first_day);
        let forgotten: Vec<SegmentId> = self.ids(|segment| segment.header.max_day < first_day);
        self.replace(&forgotten, None);
    }

    /// Takes over finished background work and begins new. Called between batches; never waits.
    ///
    /// # Errors
    /// Background work failed. What it was about is still there, in memory or in its old segments, and it is tried
    /// again later; after `InvalidData` the shard must be rebuilt.
    pub fn maintain(&mut self) -> io::Result<()> {
        self.maintain_by(policy::choose)
    }

    /// The same while a horizon is read back: most of the merging is left for later.
    ///
    /// # Errors
    /// As [`IdentityStore::maintain`].
    pub fn maintain_in_bulk(&mut self) -> io::Result<()> {
        self.maintain_by(policy::choose_in_bulk)
    }

    fn maintain_by(&mut self, choose: policy::Choose) -> io::Result<()> {
        let sealed = self.take_sealed();
        let merged = self.take_merged();
        if sealed.is_err() || merged.is_err() {
            self.retry_at = Some(Instant::now() + RETRY_AFTER);
            return sealed.and(merged);
        }
        self.freeze_if_full();
        if self.retry_at.is_some_and(|at| Instant::now() < at) {
            return Ok(());
        }
        self.retry_at = None;
        self.begin_seal()?;
        self.begin_merge(choose)
    }

    /// The segments that a checkpoint must name; of the same moment as [`IdentityStore::for_each_unsealed`].
    pub fn manifest(&self) -> Manifest {
        Manifest { revision: self.revision, segments: self.ids(|_| true) }
    }

    /// What a checkpoint must hold itself, as it is in no segment yet: the older first, and a key may come twice.
    pub fn for_each_unsealed(&self, mut visit: impl FnMut(IdentityKey, Memo<'_>)) {
        for recent in self.frozen.iter().map(Arc::as_ref).chain(std::iter::once(&self.recent)) {
            recent.iter().for_each(|(key, memo)| visit(key, memo));
        }
    }

    /// A checkpoint with this manifest is on disk and no older one will be read again: files that only older ones
    /// name are deleted, in the background.
    pub fn manifest_is_durable(&mut self, manifest: &Manifest) {
        let may_go = |retired: &Retired| retired.revision <= manifest.revision;
        let paths: Vec<PathBuf> = self
            .retired
            .iter()
            .filter(|retired| may_go(retired))
            .map(|retired| retired.path.clone())
            .collect();
        // With a full queue they stay for the next checkpoint.
        if !paths.is_empty() && self.queue.try_send(Job::Remove(paths)).is_ok() {
            self.retired.retain(|retired| !may_go(retired));
        }
    }

    /// How many identities there are; one that was inserted again counts twice until its segments are merged.
    pub fn len(&self) -> u64 {
        let sealed: u64 = self.segments.iter().map(|segment| segment.header.count).sum();
        sealed + self.unsealed_len() as u64
    }

    /// None.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many [`IdentityStore::for_each_unsealed`] visits.
    pub fn unsealed_len(&self) -> usize {
        self.recent.len() + self.frozen.iter().map(|frozen| frozen.len()).sum::<usize>()
    }

    /// Bytes on the heap, without what background work takes for the time being.
    pub fn heap_bytes(&self) -> usize {
        let frozen: usize = self.frozen.iter().map(|frozen| frozen.heap_bytes()).sum();
        let segments: usize = self.segments.iter().map(|segment| segment.heap_bytes()).sum();
        self.recent.heap_bytes() + frozen + segments
    }

    /// Bytes of the segments' files.
    pub fn disk_bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.header.file_bytes).sum()
    }

    /// How many segments there are.
    pub fn segments(&self) -> usize {
        self.segments.len()
    }

    /// Look-ups in a segment's file so far: hits, and what a filter let through wrongly.
    pub fn disk_lookups(&self) -> u64 {
        self.disk_lookups.load(Ordering::Relaxed)
    }

    /// The background work that was finished so far.
    pub fn work(&self) -> Work {
        self.work
    }

    /// Frozen identities pile up, for they come faster than the disk takes them: the caller must let it catch up
    /// before it absorbs more, or memory grows.
    pub fn is_behind(&self) -> bool {
        self.frozen.len() > FROZEN_MAX
    }

    /// Frozen identities are on their way to the disk.
    pub fn is_sealing(&self) -> bool {
        self.sealing.is_some()
    }

    /// Background work is under way or due.
    pub fn is_busy(&self) -> bool {
        !self.frozen.is_empty() || self.merging.is_some() || self.next_merge(policy::choose).is_some()
    }

    fn ids(&self, of: impl Fn(&Segment) -> bool) -> Vec<SegmentId> {
        self.segments.iter().filter(|segment| of(segment)).map(|segment| segment.header.id).collect()
    }

    fn take_sealed(&mut self) -> io::Result<()> {
        let Some(finished) = take_finished(&mut self.sealing) else { return Ok(()) };
        let finished = finished?;
        if let Some(sealed) = self.frozen.pop_front() {
            self.work.sealed += sealed.len() as u64;
            self.work.sealing += finished.took;
        }
        if let Some(segment) = finished.segment {
            self.segments.push(Arc::new(segment));
            self.revision += 1;
        }
        Ok(())
    }

    fn take_merged(&mut self) -> io::Result<()> {
        let Some(Merging { inputs, done }) = self.merging.take() else { return Ok(()) };
        let mut done = Some(done);
        let Some(finished) = take_finished(&mut done) else {
            self.merging = done.map(|done| Merging { inputs, done });
            return Ok(());
        };
        let finished = finished?;
        self.work.merged += finished.segment.as_ref().map_or(0, |segment| segment.header.count);
        self.work.merging += finished.took;
        self.replace(&inputs, finished.segment);
        Ok(())
    }

    /// Puts a segment in the place of its neighbours. All of them may have been forgotten meanwhile: then it goes
    /// with them.
    fn replace(&mut self, old: &[SegmentId], new: Option<Segment>) {
        let is_old = |segment: &Arc<Segment>| old.contains(&segment.header.id);
        let Some(at) = self.segments.iter().position(is_old) else {
            self.retired.extend(new.map(|new| Retired { path: new.path, revision: self.revision }));
            return;
        };
        self.revision += 1;
        let revision = self.revision;
        let gone = self.segments.extract_if(at.., |segment| old.contains(&segment.header.id));
        self.retired.extend(gone.map(|segment| Retired { path: segment.path.clone(), revision }));
        if let Some(new) = new {
            self.segments.insert(at, Arc::new(new));
        }
    }

    fn freeze_if_full(&mut self) {
        let is_full =
            self.recent.len() > self.settings.recent_max || self.recent.heap_bytes() > RECENT_BYTES_MAX;
        if is_full && self.settings.folder.is_some() {
            // What filled up once will again: its table would be made anew in steps, between two batches.
            let mut next = Recent::new();
            next.reserve(self.recent.len() + self.recent.len() / 8);
            self.frozen.push_back(Arc::new(std::mem::replace(&mut self.recent, next)));
        }
    }

    fn begin_seal(&mut self) -> io::Result<()> {
        let Some(oldest) = self.frozen.front().filter(|_| self.sealing.is_none()) else { return Ok(()) };
        let oldest = Arc::clone(oldest);
        self.sealing = self.ask(|order| Job::Seal(oldest, order))?;
        Ok(())
    }

    fn begin_merge(&mut self, choose: policy::Choose) -> io::Result<()> {
        if self.merging.is_some() {
            return Ok(());
        }
        let chosen = self.next_merge(choose).and_then(|range| self.segments.get(range));
        let Some(chosen) = chosen else { return Ok(()) };
        let inputs = chosen.iter().map(|segment| segment.header.id).collect();
        let newest_first = chosen.iter().rev().map(Arc::clone).collect();
        let done = self.ask(|order| Job::Merge(newest_first, order))?;
        self.merging = done.map(|done| Merging { inputs, done });
        Ok(())
    }

    fn next_merge(&self, choose: policy::Choose) -> Option<std::ops::Range<usize>> {
        let facts =
            |segment: &Arc<Segment>| Facts { count: segment.header.count, max_day: segment.header.max_day };
        let facts: Vec<Facts> = self.segments.iter().map(facts).collect();
        choose(&facts, policy::window_days(self.settings.horizon_days))
    }

    /// Asks the background thread. None if its queue is full: next time.
    fn ask(&self, job: impl FnOnce(Order) -> Job) -> io::Result<Option<Receiver<io::Result<Finished>>>> {
        let Some(folder) = self.settings.folder.clone() else { return Ok(None) };
        let (done, finished) = sync_channel(1);
        let StoreSettings { shard, ledger_id, .. } = &self.settings;
        let target = Target { folder, shard: *shard, ledger_id: ledger_id.clone() };
        let cancelled = Arc::clone(&self.cancelled);
        match self.queue.try_send(job(Order { target, first_day: self.first_day, cancelled, done })) {
            Ok(()) => Ok(Some(finished)),
            Err(TrySendError::Full(_)) => Ok(None),
            Err(TrySendError::Disconnected(_)) => Err(thread_is_gone()),
        }
    }
}

impl Drop for IdentityStore {
    fn drop(&mut self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }
}

/// The outcome, if there is one; then nothing is under way any longer.
fn take_finished(pending: &mut Option<Receiver<io::Result<Finished>>>) -> Option<io::Result<Finished>> {
    let outcome = match pending.as_ref()?.try_recv() {
        Ok(outcome) => outcome,
        Err(TryRecvError::Empty) => return None,
        Err(TryRecvError::Disconnected) => Err(thread_is_gone()),
    };
    *pending = None;
    Some(outcome)
}

fn thread_is_gone() -> io::Error {
    io::Error::other("the thread that seals remembered identities is gone: restart")
}

/// Makes the folder, and deletes the shard's files but those named.
fn clean(folder: &Path, shard: i32, named: &[SegmentId]) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let named: Vec<PathBuf> = named.iter().map(|id| segment::path_of(folder, shard, *id)).collect();
    for file in fs::read_dir(folder)? {
        let file = file?;
        let is_of_shard = file.file_name().to_str().is_some_and(|name| segment::is_of_shard(name, shard));
        if !is_of_shard || named.contains(&file.path()) {
            continue;
        }
        match fs::remove_file(file.path()) {
            // The shard's former owner gave it up first.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            removed => removed?,
        }
    }
    sync_folder(folder)
}
