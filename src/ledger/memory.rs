//! What a shard remembers of events and jobs, for the horizon: drawn from ledger records and nothing else, so that a
//! restored shard decides as the one it replaces.
//!
//! A memo's life ends with its day: the later of the event's own and the shard clock's when it was posted. What lies
//! before the day of clock - horizon counts as forgotten, whether it is still there or not. (Such an event would be
//! `too_old` anyway.)

use chrono::NaiveDate;

use super::TimeRules;
use super::identity_store::Recent;
use crate::event::{Fingerprint, IdentityKey, event_key};
use crate::time::{EventTime, ShardClock};
use crate::wallet::{Breach, JobMemo, JobName, LedgerRecord, remember};

/// A memo of a job, with its day; `None`: nothing is known.
pub type KnownJob = Option<(i32, Box<JobMemo<'static>>)>;
/// A look-up through the identities of a batch: day and value.
pub type Found = Result<Option<(i32, Vec<u8>)>, Breach>;

/// The first day that is remembered at a reading of the clock.
pub fn first_day(clock: ShardClock, rules: &TimeRules) -> i32 {
    clock.0.plus_millis(-rules.horizon_ms).day()
}

/// The day of the shard clock as a record says it: only where it is not that of the event.
pub fn clock_day(clock: ShardClock, event_time: EventTime) -> Option<NaiveDate> {
    if clock.0.day() == event_time.0.day() { None } else { clock.0.date() }
}

/// The day with which what a record says is remembered.
pub fn day_of(record: &LedgerRecord<'_>) -> i32 {
    let of_event = record.entries.first().map_or(0, |entry| entry.event_time.day());
    of_event.max(record.clock_day())
}

/// Remembers an accepted event.
pub fn remember_event(identities: &mut Recent, key: IdentityKey, fingerprint: Fingerprint, day: i32) {
    identities.insert(key, day, &fingerprint.0.to_le_bytes());
}

/// The event that a record is of, if it is of one, and what that said.
pub fn event_of_record(record: &LedgerRecord<'_>) -> Option<(IdentityKey, Fingerprint)> {
    let entry = record.entries.first().filter(|entry| !entry.event_id.is_empty())?;
    Some((event_key(&record.wallet_id, &entry.source, &entry.event_id), entry.fingerprint))
}

/// Remembers what a record says of its job, if it is about one. `get` looks through the identities that it is given;
/// what it finds from before `first_day` is forgotten. `found`: what was found of the job before the record was posted.
///
/// # Errors
/// The local store cannot be read.
pub fn remember_job(
    identities: &mut Recent,
    record: &LedgerRecord<'_>,
    name: &JobName<'_>,
    mut found: Option<&KnownJob>,
    first_day: i32,
    mut get: impl FnMut(&Recent, IdentityKey) -> Found,
) -> Result<(), Breach> {
    let day = day_of(record);
    for entry in &record.entries {
        // A job is remembered as long as the latest of its assets, in whatever order they came.
        let mut last_day = day;
        let mut changes: [Option<(IdentityKey, JobMemo<'_>)>; 2] = [None, None];
        let look_up = |key| {
            let known = match found {
                Some(found) if key == name.job_key() => found.clone(),
                _ => known(get(identities, key)?, first_day),
            };
            let Some((known_day, memo)) = known else { return Ok(None) };
            last_day = last_day.max(known_day);
            Ok::<_, Breach>(Some(memo))
        };
        remember(name, entry, day, look_up, |key, memo| {
            let place = usize::from(changes.first().is_some_and(Option::is_some));
            if let Some(change) = changes.get_mut(place) {
                *change = Some((key, memo));
            }
        })?;
        for (key, memo) in changes.into_iter().flatten() {
            identities.insert_with(key, last_day, |out| memo.append_to(out));
            found = None;
        }
    }
    Ok(())
}

/// The job, and the asset of it (else empty), that a record is about.
pub fn job_of_record<'r>(record: &'r LedgerRecord<'_>) -> Option<(&'r str, &'r str)> {
    let entry = record.entries.iter().find(|entry| !entry.job_id.is_empty())?;
    Some((&entry.job_id, &entry.asset_id))
}

/// A memo of a job that is not forgotten.
pub fn known(found: Option<(i32, Vec<u8>)>, first_day: i32) -> KnownJob {
    let (day, value) = found.filter(|(day, _)| *day >= first_day)?;
    Some((day, JobMemo::from_bytes(&value)?))
}
