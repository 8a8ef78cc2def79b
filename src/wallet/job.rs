//! What is remembered of jobs: whether and how each was charged, so that it is charged once and can be given back.
//!
//! A memo belongs to a job, or to one asset of it. Like a wallet it is the fold of entries and nothing else
//! ([`remember`]), so that a restored shard knows what the one before it knew. The assets of a job that were
//! charged hang on a chain, the latest first: a job of any size costs one memo more per asset.

use std::borrow::Cow;

use compact_str::CompactString;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::entry::{Entry, EntryType, GrantEffect};
use crate::event::{IdentityKey, JobEnding, JobKeys, job_key};
use crate::packed;
use crate::rate::AssetType;

/// Version of the stored form: its first byte.
const MEMO_FORMAT: u8 = 1;

/// What is remembered of a job, or of one of its assets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobMemo<'a> {
    /// How it was charged or refused; of a job: as a whole.
    pub charge: Option<ChargeMemo<'a>>,
    /// It came to an end: nothing is held for it any more.
    pub is_over: bool,
    /// It failed, was rejected or refunded: whatever is charged for it is given back.
    pub is_void: bool,
    /// Of a job: some charge of it was posted, not only refused: it stands in the rollup's number of jobs.
    pub is_counted: bool,
    /// Of an asset: its id.
    pub asset_id: Cow<'a, str>,
    /// Of a job: its asset that was charged or refused last. Of an asset: the one before it.
    pub latest_asset: Option<IdentityKey>,
}

/// A charge, or its refusal, with what giving it back needs to say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChargeMemo<'a> {
    /// Seq of its entry.
    pub seq: u64,
    /// Day with which it can be given back last, since the epoch: a job may be remembered for longer.
    pub day: i32,
    /// Credits; of a refusal what it would have cost.
    pub cost: i64,
    /// Nothing was drawn.
    pub is_refused: bool,
    /// It was given back.
    pub is_reversed: bool,
    /// What each grant paid: id and credits. What is missing to the cost went into overdraft.
    pub draws: SmallVec<[(CompactString, i64); 1]>,
    /// Kind of asset.
    pub asset_type: Option<AssetType>,
    /// Model that made it.
    pub model: Cow<'a, str>,
    /// Plan and contract that it was charged under.
    pub plan: Cow<'a, str>,
    /// See `plan`.
    pub contract_id: Cow<'a, str>,
    /// User who asked for it.
    pub user_id: Cow<'a, str>,
    /// Project that it is for.
    pub project_id: Cow<'a, str>,
}

/// What is remembered of the job that a command is about. Mostly nothing: so the memos, large ones, are not moved about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobHistory {
    /// Of the job as a whole.
    pub job: Option<Box<JobMemo<'static>>>,
    /// Of the asset that the command names.
    pub asset: Option<Box<JobMemo<'static>>>,
    /// Where the command gives back a whole job: its assets, the latest charged first.
    pub assets: Vec<JobMemo<'static>>,
    /// Charges before this day are not given back any more.
    pub first_day: i32,
}

/// The job, or the asset, that an event or a ledger record is about, with the keys of its memos: they are asked for several
/// times, and hashing is not for nothing.
#[derive(Clone, Copy, Debug)]
pub struct JobName<'n> {
    wallet_id: &'n str,
    job_id: &'n str,
    asset_id: &'n str,
    keys: JobKeys,
}

impl<'n> JobName<'n> {
    /// Of a wallet's job, or of an asset of it (else empty).
    pub fn new(wallet_id: &'n str, job_id: &'n str, asset_id: &'n str) -> JobName<'n> {
        JobName { wallet_id, job_id, asset_id, keys: JobKeys::of(wallet_id, job_id, asset_id) }
    }

    /// The same, where the keys are known.
    pub fn with_keys(wallet_id: &'n str, job_id: &'n str, asset_id: &'n str, keys: JobKeys) -> JobName<'n> {
        JobName { wallet_id, job_id, asset_id, keys }
    }

    /// The key of its job.
    pub fn job_key(&self) -> IdentityKey {
        self.keys.job
    }

    /// The key of an asset of its job; of the job where `asset_id` is empty.
    fn key(&self, asset_id: &str) -> IdentityKey {
        if asset_id.is_empty() {
            self.keys.job
        } else if *asset_id == *self.asset_id {
            self.keys.asset
        } else {
            job_key(self.wallet_id, self.job_id, asset_id)
        }
    }
}

impl JobMemo<'_> {
    /// Appends its stored form.
    pub fn append_to(&self, out: &mut Vec<u8>) {
        out.push(MEMO_FORMAT);
        packed::append(out, self);
    }

    /// Its stored form.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.append_to(&mut bytes);
        bytes
    }

    /// From its stored form; `None` where it is not one.
    pub fn from_bytes(bytes: &[u8]) -> Option<Box<JobMemo<'static>>> {
        let (format, rest) = bytes.split_first()?;
        (*format == MEMO_FORMAT).then(|| packed::read(rest)).flatten().map(Box::new)
    }
}

impl JobHistory {
    /// Looks up what a command about a job needs. `with_assets`: it gives back the whole job.
    ///
    /// # Errors
    /// Those of `get`.
    pub fn find<E>(
        name: &JobName<'_>,
        with_assets: bool,
        first_day: i32,
        mut get: impl FnMut(IdentityKey) -> Result<Option<Box<JobMemo<'static>>>, E>,
    ) -> Result<JobHistory, E> {
        let job = get(name.keys.job)?;
        if !name.asset_id.is_empty() {
            let asset = get(name.keys.asset)?;
            return Ok(JobHistory { job, asset, assets: Vec::new(), first_day });
        }
        let mut assets = Vec::new();
        let mut next = job.as_ref().filter(|_| with_assets).and_then(|job| job.latest_asset);
        let mut last_seq = u64::MAX;
        while let Some(key) = next {
            // An asset that was forgotten and charged anew stands at the head of the chain, and its old place leads to it
            // again: what lies behind that is forgotten as well.
            let seq = |asset: &JobMemo<'_>| asset.charge.as_ref().map_or(0, |charge| charge.seq);
            let Some(asset) = get(key)?.filter(|asset| seq(asset) < last_seq) else { break };
            last_seq = seq(&asset);
            next = asset.latest_asset;
            assets.push(*asset);
        }
        Ok(JobHistory { job, asset: None, assets, first_day })
    }

    /// Whether anything is known of the job or of the asset.
    pub fn is_known(&self) -> bool {
        self.job.is_some() || self.asset.is_some()
    }

    /// The job was charged (or refused) asset by asset.
    pub fn is_by_asset(&self) -> bool {
        self.job.as_ref().is_some_and(|job| job.latest_asset.is_some())
    }

    /// How the job was charged as a whole.
    pub fn whole_charge(&self) -> Option<&ChargeMemo<'static>> {
        self.job.as_ref().and_then(|job| job.charge.as_ref())
    }

    /// How the asset was charged.
    pub fn asset_charge(&self) -> Option<&ChargeMemo<'static>> {
        self.asset.as_ref().and_then(|asset| asset.charge.as_ref())
    }

    /// Whatever is charged must be given back: the job, or the asset, failed before.
    pub fn is_void(&self) -> bool {
        [&self.job, &self.asset].into_iter().flatten().any(|memo| memo.is_void)
    }

    /// Nothing may be held for it any more.
    pub fn is_over(&self) -> bool {
        [&self.job, &self.asset].into_iter().flatten().any(|memo| memo.is_over)
    }

    /// It stands in the rollup's number of jobs.
    pub fn is_counted(&self) -> bool {
        self.job.as_ref().is_some_and(|job| job.is_counted)
    }
}

/// What an entry of that day changes of what is remembered: memos by key. `get` knows what was remembered before, the changes of
/// earlier entries of the same record included. An entry that is met again, after a restart, changes nothing.
///
/// # Errors
/// Those of `get`.
pub fn remember<'e, E>(
    name: &JobName<'_>,
    entry: &'e Entry<'_>,
    day: i32,
    mut get: impl FnMut(IdentityKey) -> Result<Option<Box<JobMemo<'static>>>, E>,
    mut put: impl FnMut(IdentityKey, JobMemo<'e>),
) -> Result<(), E> {
    let ending = ending_of(&entry.event_type);
    let is_charge = matches!(entry.entry_type, EntryType::Charged | EntryType::Refused);
    let is_reversal = entry.entry_type == EntryType::Reversed;
    // What an event does beside its job (an expiry, a repayment) names none.
    if entry.job_id.is_empty() || (ending.is_none() && !is_charge && !is_reversal) {
        return Ok(());
    }
    let mut job: JobMemo<'e> = get(name.keys.job)?.map_or_else(JobMemo::default, |memo| *memo);
    job.is_counted |= entry.entry_type == EntryType::Charged;
    if entry.asset_id.is_empty() {
        job.learn(entry, day, ending);
        put(name.job_key(), job);
        return Ok(());
    }
    let asset_key = name.key(&entry.asset_id);
    let mut asset: JobMemo<'e> = get(asset_key)?.map_or_else(JobMemo::default, |memo| *memo);
    let is_new = asset.learn(entry, day, ending.filter(|_| !entry.whole_job));
    if let Some(ending) = ending.filter(|_| entry.whole_job) {
        job.end(ending);
    }
    asset.asset_id = Cow::Borrowed(&entry.asset_id);
    if is_charge && is_new {
        asset.latest_asset = job.latest_asset.replace(asset_key);
    }
    put(name.job_key(), job);
    put(asset_key, asset);
    Ok(())
}

impl<'e> JobMemo<'e> {
    /// Takes over what an entry says of it. Whether it had no charge before.
    fn learn(&mut self, entry: &'e Entry<'_>, day: i32, ending: Option<JobEnding>) -> bool {
        let is_new = self.charge.as_ref().is_none_or(|known| known.seq < entry.seq);
        if matches!(entry.entry_type, EntryType::Charged | EntryType::Refused) && is_new {
            self.charge = Some(charge_of(entry, day));
            self.is_over = true;
        }
        if entry.entry_type == EntryType::Reversed
            && let Some(charge) = &mut self.charge
        {
            charge.is_reversed = true;
        }
        if let Some(ending) = ending {
            self.end(ending);
        }
        is_new
    }

    fn end(&mut self, ending: JobEnding) {
        self.is_over |= ending != JobEnding::Refunded;
        self.is_void |= ending != JobEnding::Cancelled;
    }
}

fn ending_of(event_type: &str) -> Option<JobEnding> {
    match event_type {
        "generation.failed" => Some(JobEnding::Failed),
        "generation.rejected" => Some(JobEnding::Rejected),
        "generation.cancelled" => Some(JobEnding::Cancelled),
        "generation.refunded" => Some(JobEnding::Refunded),
        _ => None,
    }
}

/// What is remembered of a charge or a refusal.
pub(super) fn charge_of<'e>(entry: &'e Entry<'_>, day: i32) -> ChargeMemo<'e> {
    let is_refused = entry.entry_type == EntryType::Refused;
    let draw = |effect: &GrantEffect| (effect.grant_id.clone(), -effect.credits);
    ChargeMemo {
        seq: entry.seq,
        day,
        cost: if is_refused { entry.amount } else { -entry.credits },
        is_refused,
        is_reversed: false,
        draws: entry.grant_effects.iter().map(draw).collect(),
        asset_type: entry.asset_type,
        model: Cow::Borrowed(&entry.model),
        plan: Cow::Borrowed(&entry.plan),
        contract_id: Cow::Borrowed(&entry.contract_id),
        user_id: Cow::Borrowed(&entry.user_id),
        project_id: Cow::Borrowed(&entry.project_id),
    }
}
