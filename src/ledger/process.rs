//! One record against one shard: the checks that need state, in their order, then the posting.
//!
//! Pure: it reads a view of the shard, writes into the batch's overlay and outbox, and touches no client and no
//! clock; the wall clock's reading is handed in, once per batch.

use rdkafka::message::{Header, OwnedHeaders};

use super::TimeRules;
use super::books::Outcome;
use super::decoding::{Incoming, Source};
use super::headers;
use super::identities::{JobEvent, Memo, event_memo, first_day, job_history, job_memos};
use super::outbox::{HeaderRecord, OutTopic, Outbox};
use super::progress::OriginProgress;
use super::shard::ShardView;
use crate::event::{
    Data, Event, EventKind, EventRules, IdentityKey, Reason, Rejection, event_key, fingerprint,
};
use crate::time::{PostedAt, Timestamp};
use crate::wallet::{
    Breach, Cause, Command, Entry, EntryType, JobHistory, LEDGER_FORMAT, LedgerRecord, Moment, Origin,
    Policy, Refusal, apply,
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
}

/// What a batch did, for the metrics once it is committed.
#[derive(Default)]
pub struct Tally {
    /// Quarantined, by reason.
    pub reasons: Vec<Reason>,
    /// Credits granted, charged, refused, adjusted up, adjusted down.
    pub flows: Flows,
    /// Kafka timestamps of records that were posted.
    pub posted: Vec<Timestamp>,
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
    /// By people.
    pub adjusted_up: i64,
    /// By people.
    pub adjusted_down: i64,
}

impl Flows {
    fn add(&mut self, entry: &Entry<'_>) {
        let (flow, credits) = match entry.entry_type {
            EntryType::Granted => (&mut self.granted, entry.credits),
            EntryType::Charged => (&mut self.charged, -entry.credits),
            EntryType::Refused => (&mut self.refused, entry.amount),
            EntryType::Adjusted if entry.credits >= 0 => (&mut self.adjusted_up, entry.credits),
            EntryType::Adjusted => (&mut self.adjusted_down, -entry.credits),
            EntryType::ContractStarted | EntryType::OverdraftRepaid => return,
        };
        *flow = flow.saturating_add(credits);
    }
}

/// Processes a record whose wallet lives in this shard.
///
/// # Errors
/// Our own sums do not close: the shard stops.
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
    match accept(view, event, incoming, context, outbox, tally) {
        Ok(outcome) => {
            if !matches!(outcome, Outcome::Duplicate) {
                view.current.head.clock.accepted(incoming.record.topic, event.time.0, context.wall);
            }
            Ok(outcome)
        }
        Err(Refusal::Rejected(rejection)) => Ok(quarantine(incoming, &rejection, context, outbox, tally)),
        Err(Refusal::Breach(breach)) => Err(breach),
    }
}

/// Time window, free events, identity, data, price, state: the first that fails names the reason.
fn accept(
    view: &mut ShardView<'_>,
    event: &Event<'_>,
    incoming: &Incoming<'_>,
    context: &Context<'_>,
    outbox: &mut Outbox,
    tally: &mut Tally,
) -> Result<Outcome, Refusal> {
    check_time(view, event, &incoming.origin, context).map_err(Refusal::Rejected)?;
    let Some(data) = &event.data else { return Ok(Outcome::Free) };

    let remembers_from = first_day(view.current.head.clock.now(), &context.time);
    let memo =
        |view: &ShardView<'_>, key: IdentityKey| view.memo(key).filter(|memo| memo.day >= remembers_from);
    let key = event_key(&event.wallet_id, &event.source, &event.id);
    let print = data.as_ref().ok().map(|data| fingerprint(event.kind, event.time, data));
    if let Some(seen) = memo(view, key) {
        if print.is_some_and(|print| print.0 == seen.value) {
            return Ok(Outcome::Duplicate);
        }
        return Err(Refusal::Rejected(id_conflict(event, seen, print.map(|print| print.0))));
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
    let job = match data {
        Data::Completed(usage) => {
            job_history(&event.wallet_id, &usage.job_id, &usage.asset_id, |key| memo(view, key))
        }
        _ => JobHistory::default(),
    };
    let command =
        Command::price(data, event.time, job, &context.policy.pricing).map_err(Refusal::Rejected)?;
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
        moment: Moment {
            event_time: event.time,
            clock: view.current.head.clock.now(),
            posted_at: PostedAt(context.wall),
        },
    };
    let entries = post(view, event, &cause, &command, context, outbox)?;

    view.current.identities.insert(key, event_memo(print, event.time.0));
    if let Data::Completed(usage) = data {
        let is_refused = entries.iter().any(|entry| entry.entry_type == EntryType::Refused);
        let job = JobEvent {
            wallet_id: &event.wallet_id,
            job_id: &usage.job_id,
            asset_id: &usage.asset_id,
            is_refused,
        };
        for (key, memo) in job_memos(&job, event.time.0, |key| memo(view, key)).into_iter().flatten() {
            view.current.identities.insert(key, memo);
        }
    }
    entries.iter().for_each(|entry| tally.flows.add(entry));
    tally.posted.push(incoming.origin.timestamp);
    Ok(outcome_of(event.kind, &entries))
}

/// Applies the command and puts its entries into the outbox.
fn post<'a>(
    view: &mut ShardView<'_>,
    event: &'a Event<'a>,
    cause: &Cause<'a>,
    command: &Command<'a>,
    context: &Context<'_>,
    outbox: &mut Outbox,
) -> Result<Vec<Entry<'a>>, Refusal> {
    // A wallet that this batch has touched is changed in place: a rejected command leaves it as it was, and after a
    // breach the whole batch is dropped.
    let entries = match view.current.wallets.get_mut(&*event.wallet_id) {
        Some(wallet) => apply(wallet, cause, command, context.policy)?,
        None => {
            let mut wallet = view.committed_wallet(&event.wallet_id);
            let entries = apply(&mut wallet, cause, command, context.policy)?;
            view.current.wallets.insert(event.wallet_id.as_ref().into(), wallet);
            entries
        }
    };
    let record = LedgerRecord { v: LEDGER_FORMAT, wallet_id: (&*event.wallet_id).into(), entries };
    let shard = crate::kafka::partition_for(event.wallet_id.as_bytes(), context.shards);
    outbox.push(OutTopic::Ledger, shard, &event.wallet_id, |out| record.encode(out));
    Ok(record.entries)
}

fn check_time(
    view: &ShardView<'_>,
    event: &Event<'_>,
    origin: &Source<'_>,
    context: &Context<'_>,
) -> Result<(), Rejection> {
    let event_time = event.time.0;
    let latest = context.wall.plus_millis(context.time.max_clock_skew_ms);
    let reached = view.current.head.clock.now().0.max(origin.timestamp.min(context.wall));
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

fn id_conflict(event: &Event<'_>, seen: Memo, came: Option<u64>) -> Rejection {
    let came = came.map_or("data that is not valid".to_owned(), |print| format!("fingerprint {print:016x}"));
    let detail = format!(
        "event {} of {} was accepted before with another content (fingerprint {:016x}), now it came with {came}: a new event needs a new id",
        event.id, event.source, seen.value
    );
    Rejection::new(Reason::IdConflict, detail)
}

fn outcome_of(kind: EventKind, entries: &[Entry<'_>]) -> Outcome {
    match kind {
        EventKind::GenerationCompleted
            if entries.iter().any(|entry| entry.entry_type == EntryType::Refused) =>
        {
            Outcome::Refused
        }
        EventKind::GenerationCompleted => Outcome::Charged,
        EventKind::ContractStarted => Outcome::Contract,
        EventKind::TopupPurchased => Outcome::Granted,
        EventKind::WalletAdjusted => Outcome::Adjusted,
        EventKind::Free => Outcome::Free,
    }
}

/// Sends a record to the quarantine as it came, with the reason and where it was first written.
pub fn quarantine(
    incoming: &Incoming<'_>,
    rejection: &Rejection,
    context: &Context<'_>,
    outbox: &mut Outbox,
    tally: &mut Tally,
) -> Outcome {
    tally.reasons.push(rejection.reason);
    let reason = [(headers::REASON, rejection.reason.as_str()), (headers::DETAIL, rejection.detail.as_str())];
    let with_origin = origin_headers(incoming);
    let headers = reason
        .into_iter()
        .fold(with_origin, |headers, (key, value)| headers.insert(Header { key, value: Some(value) }));
    outbox.with_headers.push(HeaderRecord {
        is_quarantine: true,
        partition: incoming.origin.partition.rem_euclid(context.shards.max(1)),
        key: incoming.key.map(<[u8]>::to_vec),
        value: incoming.value.map(<[u8]>::to_vec),
        headers,
    });
    Outcome::Quarantined
}

/// Sends a record on to the shard that owns its wallet.
pub fn hand_over(incoming: &Incoming<'_>, event: &Event<'_>, home: i32, outbox: &mut Outbox) -> Outcome {
    let headers = origin_headers(incoming);
    let headers = match incoming.key {
        Some(key) => headers.insert(Header { key: headers::KEY, value: Some(key) }),
        None => headers,
    };
    outbox.with_headers.push(HeaderRecord {
        is_quarantine: false,
        partition: home,
        key: Some(event.wallet_id.as_bytes().to_vec()),
        value: incoming.value.map(<[u8]>::to_vec),
        headers,
    });
    Outcome::HandedOver
}

/// Its producer's headers, and where it was first written. `cs_` headers that it came with are dropped: of a record
/// that was quarantined, copied and sent again they would name another origin, and that is what its shard guards by.
fn origin_headers(incoming: &Incoming<'_>) -> OwnedHeaders {
    let origin = &incoming.origin;
    let own = incoming.headers.iter().filter(|(name, _)| !name.starts_with("cs_"));
    let headers = own.fold(OwnedHeaders::new(), |headers, (key, value)| {
        headers.insert(Header { key, value: Some(*value) })
    });
    let (partition, offset) = (origin.partition.to_string(), origin.offset.to_string());
    let time = origin.timestamp.to_string();
    let origin = [
        (headers::TOPIC, origin.topic),
        (headers::TOPIC_ID, origin.topic_id),
        (headers::PARTITION, &partition),
        (headers::OFFSET, &offset),
        (headers::TIME, &time),
    ];
    origin
        .into_iter()
        .fold(headers, |headers, (key, value)| headers.insert(Header { key, value: Some(value) }))
}

/// Whether this origin's record was processed before; remembers it if not.
pub fn passes_origin_guard(origins: &mut Vec<OriginProgress>, origin: &Source<'_>) -> bool {
    let is_it = |known: &&mut OriginProgress| {
        known.partition == origin.partition
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
