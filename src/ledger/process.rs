//! One record against one shard: the checks that need state, in their order, then the posting.
//!
//! Pure: it reads a view of the shard, writes into the batch's overlay and outbox, and touches no client and no
//! clock; the wall clock's reading is handed in, once per batch.

use super::TimeRules;
use super::alerts::alerts_of;
use super::books::Outcome;
use super::decoding::{Incoming, Source};
use super::elsewhere::quarantine;
use super::identity_store::Recent;
use super::memory::{KnownJob, clock_day, day_of, first_day, known, remember_event, remember_job};
use super::outbox::{OutTopic, Outbox};
use super::progress::OriginProgress;
use super::shard::ShardView;
use super::wallets::Handle;
use crate::alert::AlertKind;
use crate::event::{Data, Event, EventKind, EventRules, Fingerprint, Identity, JobEnding, Reason, Rejection};
use crate::fault::planted;
use crate::time::{EventTime, PostedAt, Timestamp};
use crate::wallet::{
    Breach, Cause, Command, Entry, EntryType, JobHistory, JobName, LEDGER_FORMAT, LedgerRecord, Level,
    Moment, Origin, Policy, Refusal, Wallet, apply, next_due, post_due,
};

/// What processing needs, the same for all records of a batch.
pub struct Context<'c> {
    /// Limits of events.
    pub rules: &'c EventRules,
    /// Prices, limits, thresholds.
    pub policy: &'c Policy,
    /// Bounds of time.
    pub time: TimeRules,
    /// The wall clock, read once for the batch.
    pub wall: Timestamp,
    /// Number of shards.
    pub shards: i32,
    /// Consumer group.
    pub group: &'c str,
    /// A record of this batch was too large for a topic of ours: those that may have been it are cut.
    pub cuts_large: bool,
}

/// What a batch did, for the metrics once it is committed.
#[derive(Default)]
pub struct Tally {
    /// Quarantined, by reason.
    pub reasons: Vec<Reason>,
    /// Credits by flow.
    pub flows: Flows,
    /// Refunds of jobs that nobody had heard of.
    pub unknown_refunds: u64,
    /// Alerts: kind and level.
    pub alerts: Vec<(AlertKind, Level)>,
    /// Kafka timestamps of records that were posted.
    pub posted: Vec<Timestamp>,
}

impl Tally {
    /// What another part of the batch did, too.
    pub fn add(&mut self, part: Tally) {
        let Tally { reasons, flows, unknown_refunds, alerts, posted } = part;
        self.reasons.extend(reasons);
        self.flows.add(&flows);
        self.unknown_refunds += unknown_refunds;
        self.alerts.extend(alerts);
        self.posted.extend(posted);
    }
}

/// Credits by flow, each counted upwards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flows {
    /// By plans and top-ups.
    pub granted: i64,
    /// By usage.
    pub charged: i64,
    /// Not charged: past the limit.
    pub refused: i64,
    /// Given back to usage.
    pub reversed: i64,
    /// Taken away at their expiry.
    pub expired: i64,
    /// By people.
    pub adjusted_up: i64,
    /// By people.
    pub adjusted_down: i64,
}

impl Flows {
    fn add(&mut self, other: &Flows) {
        let Flows { granted, charged, refused, reversed, expired, adjusted_up, adjusted_down } = *other;
        for (flow, credits) in [
            (&mut self.granted, granted),
            (&mut self.charged, charged),
            (&mut self.refused, refused),
            (&mut self.reversed, reversed),
            (&mut self.expired, expired),
            (&mut self.adjusted_up, adjusted_up),
            (&mut self.adjusted_down, adjusted_down),
        ] {
            *flow = flow.saturating_add(credits);
        }
    }

    fn add_entry(&mut self, entry: &Entry<'_>) {
        let (flow, credits) = match entry.entry_type {
            EntryType::Granted => (&mut self.granted, entry.credits),
            EntryType::Charged => (&mut self.charged, -entry.credits),
            EntryType::Refused => (&mut self.refused, entry.amount),
            EntryType::Adjusted if entry.credits >= 0 => (&mut self.adjusted_up, entry.credits),
            EntryType::Adjusted => (&mut self.adjusted_down, -entry.credits),
            EntryType::Reversed => (&mut self.reversed, entry.credits),
            EntryType::Expired => (&mut self.expired, -entry.credits),
            EntryType::ContractStarted
            | EntryType::ContractChanged
            | EntryType::ContractRenewed
            | EntryType::ContractEnded
            | EntryType::OverdraftRepaid
            | EntryType::Held
            | EntryType::Released
            | EntryType::LimitsChanged
            | EntryType::Noted => return,
        };
        *flow = flow.saturating_add(credits);
    }
}

/// Processes a record whose wallet lives in this shard: what is due for its wallet is posted before it and after it.
///
/// # Errors
/// Our own sums do not close, or the local store cannot be read: the shard stops.
pub fn process(
    view: &mut ShardView<'_>,
    incoming: &Incoming<'_>,
    context: &Context<'_>,
    outbox: &mut Outbox,
    tally: &mut Tally,
) -> Result<Outcome, Breach> {
    let event = match &incoming.event {
        Ok(event) => event,
        Err(rejection) => return Ok(quarantine(incoming, rejection, context, outbox, tally)),
    };
    let (outcome, wallet) = match accept(view, event, incoming, context, outbox, tally) {
        Ok(accepted) => accepted,
        Err(Refusal::Rejected(rejection)) => {
            return Ok(quarantine(incoming, &rejection, context, outbox, tally));
        }
        Err(Refusal::Breach(breach)) => return Err(breach),
    };
    view.current.head.clock.accepted(incoming.record.topic, event.time.0, context.wall);
    if let Some(handle) = wallet {
        post_due_by(view, handle, moment_of(view, event, context), context, outbox, tally)?;
    }
    Ok(outcome)
}

fn moment_of(view: &ShardView<'_>, event: &Event<'_>, context: &Context<'_>) -> Moment {
    Moment { event_time: event.time, clock: view.clock(), posted_at: PostedAt(context.wall) }
}

/// Time window, free events, identity, data, price, state: the first that fails names the reason. The wallet, where
/// something was posted to it.
fn accept(
    view: &mut ShardView<'_>,
    event: &Event<'_>,
    incoming: &Incoming<'_>,
    context: &Context<'_>,
    outbox: &mut Outbox,
    tally: &mut Tally,
) -> Result<(Outcome, Option<Handle>), Refusal> {
    check_time(view, event, &incoming.origin, context).map_err(Refusal::Rejected)?;
    let Some(data) = &event.data else { return Ok((Outcome::Free, None)) };

    let remembers_from = first_day(view.clock(), &context.time);
    let Identity { key, fingerprint: print, .. } = event.identity;
    let memo = view.memo(key, incoming.may_be_known(key))?;
    if let Some((_, seen)) = memo.filter(|(day, _)| *day >= remembers_from) {
        if print.is_some_and(|print| print.0.to_le_bytes() == *seen) {
            return Ok((Outcome::Duplicate, None));
        }
        return Err(Refusal::Rejected(id_conflict(event, &seen, print)));
    }
    let (data, print) = match (data, print) {
        (Ok(data), Some(print)) => (data, print),
        (Err(rejection), _) => return Err(Refusal::Rejected(rejection.clone())),
        (Ok(_), None) => {
            return Err(Refusal::Breach(Breach {
                seq: 0,
                what: "valid data without a fingerprint".to_owned(),
            }));
        }
    };
    let name = job_name(event, data);
    let (known_job, job) = match &name {
        Some((name, with_assets)) => job_of(view, incoming, name, *with_assets, remembers_from)?,
        None => Default::default(),
    };
    let command =
        Command::price(data, event.time, job, &context.policy.pricing).map_err(Refusal::Rejected)?;
    let handle = view.handle(&event.wallet_id);
    let moment = moment_of(view, event, context);
    post_due_by(view, handle, moment, context, outbox, tally)?;
    let cause = Cause {
        event_type: event.kind.as_str(),
        source: &event.source,
        event_id: &event.id,
        fingerprint: print,
        origin: Origin {
            topic: incoming.origin.topic,
            partition: incoming.origin.partition,
            offset: incoming.origin.offset,
        },
        moment,
    };
    // A rejected command leaves the wallet as it was, and after a breach the whole batch is dropped.
    let wallet = view.touch(handle);
    let level_before = wallet.level;
    let entries = apply(wallet, &cause, &command, context.policy)?;
    let due = next_due(wallet, context.policy);
    view.set_due(handle, due);
    let record = LedgerRecord {
        v: LEDGER_FORMAT,
        wallet_id: (&*event.wallet_id).into(),
        clock_day: clock_day(moment.clock, event.time),
        entries,
    };
    remember_event(&mut view.current.identities, key, print, day_of(&record));
    write(&record, level_before, view.touch(handle), context, outbox, tally)?;
    if let Some((name, _)) = &name {
        let (identities, get) = view.identities();
        let get = |current: &Recent, key| get(current, key, incoming.may_be_known(key));
        remember_job(identities, &record, name, Some(&known_job), remembers_from, get)?;
    }
    tally.posted.push(incoming.origin.timestamp);
    Ok((outcome_of(event.kind, &record.entries), Some(handle)))
}

/// The job that an event is about, and whether it speaks for all assets of it.
fn job_name<'e>(event: &'e Event<'_>, data: &'e Data<'_>) -> Option<(JobName<'e>, bool)> {
    let (job_id, asset_id) = data.job()?;
    let with_assets = matches!(data, Data::JobEnded(ended) if ended.ending != JobEnding::Cancelled);
    Some((JobName::with_keys(&event.wallet_id, job_id, asset_id, event.identity.job?), with_assets))
}

/// What is remembered of a job: of itself, and all that deciding needs.
fn job_of(
    view: &ShardView<'_>,
    incoming: &Incoming<'_>,
    name: &JobName<'_>,
    with_assets: bool,
    remembers_from: i32,
) -> Result<(KnownJob, JobHistory), Breach> {
    let mut itself = None;
    let history = JobHistory::find(name, with_assets, remembers_from, |key| {
        let known = known(view.memo(key, incoming.may_be_known(key))?, remembers_from);
        if key == name.job_key() {
            itself.clone_from(&known);
        }
        Ok::<_, Breach>(known.map(|(_, memo)| memo))
    })?;
    Ok((itself, history))
}

/// Posts all that is due for a wallet by the time that an event of it reaches.
fn post_due_by(
    view: &mut ShardView<'_>,
    handle: Handle,
    moment: Moment,
    context: &Context<'_>,
    outbox: &mut Outbox,
    tally: &mut Tally,
) -> Result<(), Breach> {
    // No event reaches further. Mostly nothing is due by then, and the wallet need not be looked at.
    let furthest = moment.clock.0.max(moment.posted_at.0);
    if view.due(handle).is_some_and(|due| due <= furthest) {
        let reached = moment.reached(view.touch(handle));
        post_due_of(view, handle, reached, context, outbox, tally)?;
    }
    Ok(())
}

/// Posts all that is due for a wallet by then, each as a record of its own.
fn post_due_of(
    view: &mut ShardView<'_>,
    handle: Handle,
    until: Timestamp,
    context: &Context<'_>,
    outbox: &mut Outbox,
    tally: &mut Tally,
) -> Result<u32, Breach> {
    let clock = view.clock();
    let mut records = 0;
    while view.due(handle).is_some_and(|due| due <= until) {
        let posted_at = PostedAt(context.wall);
        let wallet = view.touch(handle);
        let level_before = wallet.level;
        let Some(entries) = post_due(wallet, until, clock, posted_at, context.policy)? else {
            let what = "a timer says that something is due, the wallet does not".to_owned();
            return Err(Breach { seq: 0, what });
        };
        let due = next_due(wallet, context.policy);
        view.set_due(handle, due);
        let due_at = entries.first().map_or(clock.0, |entry| entry.event_time);
        let record = LedgerRecord {
            v: LEDGER_FORMAT,
            wallet_id: view.id(handle).to_owned().into(),
            clock_day: clock_day(clock, EventTime(due_at)),
            entries,
        };
        write(&record, level_before, view.touch(handle), context, outbox, tally)?;
        records += 1;
    }
    Ok(records)
}

/// Posts what is due for wallets that no event is about, up to so many records, and one wallet more.
///
/// # Errors
/// As [`process`].
pub fn post_timers(
    view: &mut ShardView<'_>,
    records_max: u32,
    context: &Context<'_>,
    outbox: &mut Outbox,
    tally: &mut Tally,
) -> Result<(), Breach> {
    let mut records = 0;
    while records < records_max
        && let Some((due, handle)) = view.first_due()
        && due <= view.clock().0
    {
        records += post_due_of(view, handle, view.clock().0, context, outbox, tally)?;
    }
    Ok(())
}

/// Puts a record and its alerts into the outbox. `wallet`: as the record leaves it.
fn write(
    record: &LedgerRecord<'_>,
    level_before: Level,
    wallet: &Wallet,
    context: &Context<'_>,
    outbox: &mut Outbox,
    tally: &mut Tally,
) -> Result<(), Breach> {
    let shard = crate::kafka::partition_for(record.wallet_id.as_bytes(), context.shards);
    outbox.push(OutTopic::Ledger, shard, &record.wallet_id, |out| record.encode(out));
    for entry in &record.entries {
        tally.flows.add_entry(entry);
        tally.unknown_refunds += u64::from(entry.is_unknown_refund());
    }
    for alert in alerts_of(record, level_before, wallet, &context.policy.pricing) {
        outbox.push_json(OutTopic::Alerts, shard, &record.wallet_id, &alert)?;
        tally.alerts.push((alert.kind, alert.level));
    }
    Ok(())
}

fn check_time(
    view: &ShardView<'_>,
    event: &Event<'_>,
    origin: &Source<'_>,
    context: &Context<'_>,
) -> Result<(), Rejection> {
    let event_time = event.time.0;
    let latest = context.wall.plus_millis(context.time.max_clock_skew_ms);
    let reached = view.clock().0.max(origin.timestamp.min(context.wall));
    let earliest = reached.plus_millis(-context.time.horizon_ms);
    if event_time < earliest {
        let detail =
            format!("time is {event_time}: before {earliest}, the horizon; book it as an adjustment");
        return Err(Rejection::new(Reason::TooOld, detail));
    }
    if event_time > latest {
        let detail = format!(
            "time is {event_time}: after {latest}, the wall clock and the allowed skew; mend the producer's clock"
        );
        return Err(Rejection::new(Reason::TooFarAhead, detail));
    }
    Ok(())
}

fn id_conflict(event: &Event<'_>, seen: &[u8], came: Option<Fingerprint>) -> Rejection {
    let seen = Fingerprint(seen.try_into().map_or(0, u64::from_le_bytes));
    let came = came.map_or("data that is not valid".to_owned(), |print| format!("fingerprint {print}"));
    let detail = format!(
        "event {} of {} was accepted before with another content (fingerprint {seen}), now it came with {came}: a new event needs a new id",
        event.id, event.source
    );
    Rejection::new(Reason::IdConflict, detail)
}

/// What became of a record that made these entries.
pub fn outcome_of(kind: EventKind, entries: &[Entry<'_>]) -> Outcome {
    let has = |wanted: EntryType| entries.iter().any(|entry| entry.entry_type == wanted);
    match kind {
        EventKind::GenerationRequested if has(EntryType::Held) => Outcome::Held,
        EventKind::GenerationRequested => Outcome::Noted,
        EventKind::GenerationCompleted if has(EntryType::Refused) => Outcome::Refused,
        EventKind::GenerationCompleted => Outcome::Charged,
        EventKind::GenerationFailed
        | EventKind::GenerationRejected
        | EventKind::GenerationCancelled
        | EventKind::GenerationRefunded => match (has(EntryType::Reversed), has(EntryType::Released)) {
            (true, _) => Outcome::Reversed,
            (false, true) => Outcome::Released,
            (false, false) => Outcome::Noted,
        },
        EventKind::ContractStarted
        | EventKind::ContractPlanChanged
        | EventKind::ContractRenewed
        | EventKind::ContractCancelled => Outcome::Contract,
        EventKind::TopupPurchased => Outcome::Granted,
        EventKind::WalletAdjusted => Outcome::Adjusted,
        EventKind::WalletLimitsChanged => Outcome::Limits,
        EventKind::Free => Outcome::Free,
    }
}

/// Whether this origin's record was processed before; remembers it if not.
pub fn passes_origin_guard(origins: &mut Vec<OriginProgress>, origin: &Source<'_>) -> bool {
    let is_it = |known: &&mut OriginProgress| {
        (known.partition == origin.partition || planted!(MaxOfOffsets))
            && known.topic == origin.topic
            && known.topic_id == origin.topic_id
    };
    if let Some(known) = origins.iter_mut().find(is_it) {
        let is_new = origin.offset > known.offset;
        known.offset = known.offset.max(origin.offset);
        return is_new;
    }
    origins.push(OriginProgress {
        topic: origin.topic.to_owned(),
        topic_id: origin.topic_id.to_owned(),
        partition: origin.partition,
        offset: origin.offset,
    });
    true
}
