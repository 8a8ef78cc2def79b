//! Why a record was not applied.

use serde::{Deserialize, Serialize};

/// Machine-readable reasons, in the order in which they are looked for: the first that holds is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The value is longer than `events.value_bytes_max`.
    TooLarge,
    /// The value is not JSON in UTF-8.
    NotJson,
    /// No CloudEvents 1.0 event: no object, or `specversion`, `id`, `source` or `type` absent or no text.
    NotCloudevent,
    /// A type that is unknown or belongs on the other topic.
    UnknownType,
    /// A field that the type needs is absent or null.
    MissingField,
    /// A field of the wrong type, malformed, or outside its limits.
    BadValue,
    /// Event time before the horizon.
    TooOld,
    /// Event time ahead of the wall clock by more than the allowed skew.
    TooFarAhead,
    /// The same source and id, or the same business id, with another content.
    IdConflict,
    /// A plan that the pricing file does not have at the event's time.
    UnknownPlan,
    /// A price that no top-up pack has at the event's time.
    UnknownTopup,
    /// No contract that this could apply to.
    NoContract,
    /// The contract would overlap another one.
    ContractConflict,
    /// The job was charged before under another event id.
    JobConflict,
}

impl Reason {
    /// All reasons, in order.
    pub const ALL: [Reason; 14] = [
        Reason::TooLarge,
        Reason::NotJson,
        Reason::NotCloudevent,
        Reason::UnknownType,
        Reason::MissingField,
        Reason::BadValue,
        Reason::TooOld,
        Reason::TooFarAhead,
        Reason::IdConflict,
        Reason::UnknownPlan,
        Reason::UnknownTopup,
        Reason::NoContract,
        Reason::ContractConflict,
        Reason::JobConflict,
    ];

    /// The name in the header `cs_reason`, in metrics and in tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Reason::TooLarge => "too_large",
            Reason::NotJson => "not_json",
            Reason::NotCloudevent => "not_cloudevent",
            Reason::UnknownType => "unknown_type",
            Reason::MissingField => "missing_field",
            Reason::BadValue => "bad_value",
            Reason::TooOld => "too_old",
            Reason::TooFarAhead => "too_far_ahead",
            Reason::IdConflict => "id_conflict",
            Reason::UnknownPlan => "unknown_plan",
            Reason::UnknownTopup => "unknown_topup",
            Reason::NoContract => "no_contract",
            Reason::ContractConflict => "contract_conflict",
            Reason::JobConflict => "job_conflict",
        }
    }
}

/// A reason, and the sentence that tells a person what to mend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// For machines.
    pub reason: Reason,
    /// For people: what was expected, what came, what to do.
    pub detail: String,
}

/// Longest sentence, bytes. It goes into a header beside the record itself, and may quote what its producer wrote
/// there: longer than this it could make a record that no broker takes.
const DETAIL_BYTES_MAX: usize = 1_000;

impl Rejection {
    /// A rejection with its sentence, cut where it is too long.
    pub fn new(reason: Reason, detail: impl Into<String>) -> Rejection {
        let mut detail = detail.into();
        if detail.len() > DETAIL_BYTES_MAX {
            detail.truncate(detail.floor_char_boundary(DETAIL_BYTES_MAX));
            detail.push('…');
        }
        Rejection { reason, detail }
    }
}
