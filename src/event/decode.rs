//! From a record to an event: the checks that need no state, in their order.

use std::borrow::Cow;
use std::collections::HashSet;

use super::envelope::{self, Envelope};
use super::identity::Identity;
use super::members::RawData;
use super::read::{self, DataLimits};
use super::{Data, ID_BYTES_MAX, Reason, Rejection, SOURCE_BYTES_MAX, is_id, is_printable};
use crate::config::EventsConfig;
use crate::time::{EventTime, Timestamp};

/// Of a malformed time so many characters are quoted.
const TIME_SHOWN_CHARS: usize = 40;

/// Which kind of topic a record came from: a producer of usage must not mint credits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceKind {
    /// `generation.*` and the free types.
    Generation,
    /// Contracts, top-ups, adjustments.
    Wallet,
}

/// A record as Kafka delivered it.
#[derive(Clone, Copy, Debug)]
pub struct IncomingRecord<'a, 'h> {
    /// The kind of topic that it was first sent to.
    pub source_kind: SourceKind,
    /// Its value; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    /// Its headers, in order.
    pub headers: &'h [(&'a str, &'a [u8])],
}

impl<'a> IncomingRecord<'a, '_> {
    /// The first header of that name.
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        self.headers.iter().find(|(header, _)| *header == name).map(|(_, value)| *value)
    }
}

/// What an event says happened. The names are those of the types, without a configured prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// `generation.requested`
    GenerationRequested,
    /// `generation.completed`
    GenerationCompleted,
    /// `generation.failed`
    GenerationFailed,
    /// `generation.rejected`
    GenerationRejected,
    /// `generation.cancelled`
    GenerationCancelled,
    /// `generation.refunded`
    GenerationRefunded,
    /// `contract.started`
    ContractStarted,
    /// `contract.plan_changed`
    ContractPlanChanged,
    /// `contract.renewed`
    ContractRenewed,
    /// `contract.cancelled`
    ContractCancelled,
    /// `topup.purchased`
    TopupPurchased,
    /// `wallet.adjusted`
    WalletAdjusted,
    /// `wallet.limits_changed`
    WalletLimitsChanged,
    /// One of the configured types that cost nothing.
    Free,
}

impl EventKind {
    /// The kinds whose types have names of their own.
    pub const NAMED: [EventKind; 13] = [
        EventKind::GenerationRequested,
        EventKind::GenerationCompleted,
        EventKind::GenerationFailed,
        EventKind::GenerationRejected,
        EventKind::GenerationCancelled,
        EventKind::GenerationRefunded,
        EventKind::ContractStarted,
        EventKind::ContractPlanChanged,
        EventKind::ContractRenewed,
        EventKind::ContractCancelled,
        EventKind::TopupPurchased,
        EventKind::WalletAdjusted,
        EventKind::WalletLimitsChanged,
    ];

    /// The type's name; a free type's own name is in the event.
    pub const fn as_str(self) -> &'static str {
        match self {
            EventKind::GenerationRequested => "generation.requested",
            EventKind::GenerationCompleted => "generation.completed",
            EventKind::GenerationFailed => "generation.failed",
            EventKind::GenerationRejected => "generation.rejected",
            EventKind::GenerationCancelled => "generation.cancelled",
            EventKind::GenerationRefunded => "generation.refunded",
            EventKind::ContractStarted => "contract.started",
            EventKind::ContractPlanChanged => "contract.plan_changed",
            EventKind::ContractRenewed => "contract.renewed",
            EventKind::ContractCancelled => "contract.cancelled",
            EventKind::TopupPurchased => "topup.purchased",
            EventKind::WalletAdjusted => "wallet.adjusted",
            EventKind::WalletLimitsChanged => "wallet.limits_changed",
            EventKind::Free => "free",
        }
    }

    /// The kind of topic that it belongs on.
    pub const fn source_kind(self) -> SourceKind {
        match self {
            EventKind::GenerationRequested
            | EventKind::GenerationCompleted
            | EventKind::GenerationFailed
            | EventKind::GenerationRejected
            | EventKind::GenerationCancelled
            | EventKind::GenerationRefunded
            | EventKind::Free => SourceKind::Generation,
            EventKind::ContractStarted
            | EventKind::ContractPlanChanged
            | EventKind::ContractRenewed
            | EventKind::ContractCancelled
            | EventKind::TopupPurchased
            | EventKind::WalletAdjusted
            | EventKind::WalletLimitsChanged => SourceKind::Wallet,
        }
    }
}

/// What decoding needs of the configuration.
#[derive(Clone, Debug)]
pub struct EventRules {
    type_prefix: String,
    free_types: HashSet<String>,
    value_bytes_max: usize,
    pub(super) limits: DataLimits,
}

impl EventRules {
    /// From the `[events]` table.
    pub fn new(config: &EventsConfig) -> EventRules {
        EventRules {
            type_prefix: config.type_prefix.clone(),
            free_types: config.free_types().into_iter().collect(),
            value_bytes_max: config.value_bytes_max,
            limits: DataLimits {
                images: config.images_max,
                video_seconds: config.video_seconds_max,
                adjustment_credits: config.adjustment_credits_max,
                term_months: config.term_months_max,
            },
        }
    }

    fn kind(&self, name: &str, source_kind: SourceKind) -> Result<EventKind, Rejection> {
        let unknown = |detail: String| Rejection::new(Reason::UnknownType, detail);
        let Some(bare) = name.strip_prefix(self.type_prefix.as_str()) else {
            return Err(unknown(format!("type {name:?} lacks the configured prefix {:?}", self.type_prefix)));
        };
        let named = EventKind::NAMED.into_iter().find(|kind| kind.as_str() == bare);
        let free = || self.free_types.contains(bare).then_some(EventKind::Free);
        let kind = named.or_else(free).ok_or_else(|| {
            unknown(format!("type {bare:?} is not known: see docs/events.md for those that are"))
        })?;
        if kind.source_kind() != source_kind {
            let right = match kind.source_kind() {
                SourceKind::Generation => "generation",
                SourceKind::Wallet => "wallet",
            };
            return Err(unknown(format!(
                "type {bare} does not belong on this topic: send it to the {right} topic"
            )));
        }
        Ok(kind)
    }
}

/// A well-formed envelope, with its data read but not yet judged: whether it is a duplicate is asked first.
#[derive(Clone, Debug)]
pub struct Event<'a> {
    /// What happened.
    pub kind: EventKind,
    /// The wallet: the event's `subject`.
    pub wallet_id: Cow<'a, str>,
    /// The producer.
    pub source: Cow<'a, str>,
    /// Unique per source.
    pub id: Cow<'a, str>,
    /// When it happened.
    pub time: EventTime,
    /// The type's own fields; `None` for free types.
    pub data: Option<Result<Data<'a>, Rejection>>,
    /// By what it is found again.
    pub identity: Identity,
}

/// Reads a record.
///
/// # Errors
/// The first of `too_large`, `not_json`, `not_cloudevent`, `unknown_type`, `missing_field`, `bad_value` that
/// its envelope shows. Faults of the data are inside [`Event::data`].
pub fn decode<'a>(record: &IncomingRecord<'a, '_>, rules: &EventRules) -> Result<Event<'a>, Rejection> {
    let value_bytes = record.value.map_or(0, <[u8]>::len);
    if value_bytes > rules.value_bytes_max {
        let detail = format!("the value has {value_bytes} bytes: allowed are {}", rules.value_bytes_max);
        return Err(Rejection::new(Reason::TooLarge, detail));
    }
    let mut raw_data = RawData::default();
    let mut envelope = envelope::read(record, &mut raw_data)?;
    let required =
        |name: &str| Rejection::new(Reason::NotCloudevent, format!("attribute {name} is absent or no text"));
    let specversion =
        std::mem::take(&mut envelope.specversion).text().ok_or_else(|| required("specversion"))?;
    if specversion != "1.0" {
        return Err(Rejection::new(
            Reason::NotCloudevent,
            format!("specversion is {specversion:?}: expected \"1.0\""),
        ));
    }
    let take = |attribute: &mut envelope::Attribute<'a>, name| {
        std::mem::take(attribute).text().filter(|text| !text.is_empty()).ok_or_else(|| required(name))
    };
    let id = take(&mut envelope.id, "id")?;
    let source = take(&mut envelope.source, "source")?;
    let name = take(&mut envelope.kind, "type")?;
    let kind = rules.kind(&name, record.source_kind)?;
    let (wallet_id, time) = context(&mut envelope, &raw_data, &id, &source, kind)?;
    let data = (kind != EventKind::Free).then(|| read::read(kind, &raw_data, time, &rules.limits));
    let valid = data.as_ref().and_then(|data| data.as_ref().ok());
    let identity = Identity::of((kind, time), (&wallet_id, &source, &id), valid);
    Ok(Event { kind, wallet_id, source, id, time, data, identity })
}

/// `subject`, `time` and `data`: first all that is missing, then all that is malformed.
fn context<'a>(
    envelope: &mut Envelope<'a>,
    raw_data: &RawData<'a>,
    id: &str,
    source: &str,
    kind: EventKind,
) -> Result<(Cow<'a, str>, EventTime), Rejection> {
    let missing = |name: &str| Rejection::new(Reason::MissingField, format!("{name} is absent or null"));
    if matches!(envelope.subject, envelope::Attribute::Absent) {
        return Err(missing("subject (the wallet id)"));
    }
    if matches!(envelope.time, envelope::Attribute::Absent) {
        return Err(missing("time"));
    }
    if raw_data.is_absent() {
        return Err(missing("data"));
    }

    let bad = |detail: String| Rejection::new(Reason::BadValue, detail);
    let no_id = |what: &str| bad(format!("{what}: expected 1 to {ID_BYTES_MAX} bytes of printable ASCII"));
    if !is_id(id) {
        return Err(no_id("id is no id"));
    }
    if source.len() > SOURCE_BYTES_MAX || !is_printable(source) {
        return Err(bad(format!(
            "source is malformed: expected 1 to {SOURCE_BYTES_MAX} bytes of printable ASCII"
        )));
    }
    let wallet_id = std::mem::take(&mut envelope.subject).text().filter(|subject| is_id(subject));
    let wallet_id = wallet_id.ok_or_else(|| no_id("subject is no wallet id"))?;
    let text = std::mem::take(&mut envelope.time).text();
    let time = text.as_deref().and_then(Timestamp::parse).ok_or_else(|| {
        let expected = "expected an RFC 3339 date-time with an offset, like 2026-11-03T10:15:30.123Z";
        // Cut where a time cannot go on: the sentence stays short whatever its producer wrote there.
        let came = text.as_deref().map(|text| text.chars().take(TIME_SHOWN_CHARS).collect::<String>());
        bad(match came {
            Some(came) => format!("time is {came:?}: {expected}"),
            None => format!("time is no text: {expected}"),
        })
    })?;
    if kind != EventKind::Free && !raw_data.is_object() {
        return Err(bad("data is no JSON object".to_owned()));
    }
    Ok((wallet_id, EventTime(time)))
}
