//! Every way in which a single record can be bad, as tables: what it is made from, how it is altered, and the
//! reason for which it must be refused.

use super::draft::Draft;
use crate::event::Reason::{
    self, BadValue, ContractConflict, MissingField, NoContract, NotCloudevent, NotJson, TooFarAhead,
    TooLarge, TooOld, UnknownPlan, UnknownTopup, UnknownType,
};
use crate::time::{DAY_MS, Timestamp};

/// What a bad record would be if it were good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Base {
    Image,
    Video,
    Free,
    /// The end of a job.
    Ended,
    Contract,
    /// Of a contract that nobody started.
    Renewal,
    Topup,
    Grant,
    Debit,
    Limits,
}

/// What is done to it. Values are raw JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Edit {
    Nothing,
    Attribute(&'static str, &'static str),
    LongAttribute(&'static str, usize),
    NoAttribute(&'static str),
    Data(&'static str, &'static str),
    LongData(&'static str, usize),
    /// A time in the data, days after the event.
    DataDays(&'static str, i64),
    NoData(&'static str),
    WholeData(&'static str),
    /// The event's time, days off.
    Days(i64),
    /// A header more, before all others.
    Header(&'static str, &'static str),
    /// The record's value as a whole.
    Value(&'static [u8]),
    Tombstone,
    /// Only the first half of the value.
    Half,
}

/// One way of being bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub base: Base,
    pub reason: Reason,
    pub edit: Edit,
    pub binary: bool,
}

const fn fault(base: Base, reason: Reason, edit: Edit) -> Fault {
    Fault { base, reason, edit, binary: false }
}

const fn binary(base: Base, reason: Reason, edit: Edit) -> Fault {
    Fault { base, reason, edit, binary: true }
}

/// So far off that no clock, horizon or skew makes it good.
const LONG_AGO_DAYS: i64 = -1_200;
const FAR_AHEAD_DAYS: i64 = 3_650;
/// Above `events.value_bytes_max`.
const TOO_MANY_BYTES: usize = 66_000;

/// As many elements as an event has attributes, and no object all the same.
const ARRAY_OF_ATTRIBUTES: &[u8] = br#"["1.0","1","/render/eu-1","generation.completed","ws_000001","2026-11-20T00:00:00Z",{"job_id":"j","asset":"image","images":1}]"#;

/// Faults of the usage topic.
pub(super) const USAGE_FAULTS: &[Fault] = {
    use Base::{Ended, Free, Image, Video};
    use Edit::*;
    &[
        fault(Image, TooLarge, LongData("note", TOO_MANY_BYTES)),
        binary(Video, TooLarge, LongData("note", TOO_MANY_BYTES)),
        fault(Image, NotJson, Half),
        fault(Image, NotJson, Value(b"")),
        fault(Image, NotJson, Tombstone),
        fault(Image, NotJson, Value(b"{\"id\":\"\xff\xfe\"}")),
        fault(Image, NotJson, Value(b"job finished: 4 images")),
        fault(Image, NotJson, Value(b"{\"specversion\":\"1.0\",}")),
        fault(Image, NotJson, Value(b"{'specversion':'1.0'}")),
        fault(Video, NotJson, Data("seconds", "NaN")),
        fault(Video, NotJson, Data("seconds", "08")),
        binary(Image, NotJson, Half),
        binary(Image, NotJson, Value(b"\xc3\x28")),
        fault(Image, NotCloudevent, Value(b"[]")),
        fault(Image, NotCloudevent, Value(ARRAY_OF_ATTRIBUTES)),
        fault(Image, NotCloudevent, Value(b"42")),
        fault(Image, NotCloudevent, Value(b"\"generation.completed\"")),
        fault(Image, NotCloudevent, Value(b"{}")),
        fault(Image, NotCloudevent, Value(b"{\"job_id\":\"job_7\",\"asset\":\"image\",\"images\":4}")),
        fault(Image, NotCloudevent, NoAttribute("specversion")),
        fault(Image, NotCloudevent, Attribute("specversion", "\"0.3\"")),
        fault(Image, NotCloudevent, Attribute("specversion", "1.0")),
        fault(Image, NotCloudevent, NoAttribute("id")),
        fault(Image, NotCloudevent, Attribute("id", "17")),
        fault(Image, NotCloudevent, Attribute("id", "\"\"")),
        fault(Video, NotCloudevent, Attribute("source", "null")),
        fault(Video, NotCloudevent, NoAttribute("type")),
        fault(Video, NotCloudevent, Header("content-type", "application/cloudevents-batch+json")),
        binary(Image, NotCloudevent, NoAttribute("id")),
        binary(Image, NotCloudevent, NoAttribute("specversion")),
        binary(Image, NotCloudevent, Header("ce_id", "another")),
        fault(Image, UnknownType, Attribute("type", "\"generation.exploded\"")),
        fault(Image, UnknownType, Attribute("type", "\"Generation.Completed\"")),
        fault(Ended, UnknownType, Attribute("type", "\"wallet.limits_changed\"")),
        fault(Ended, UnknownType, Attribute("type", "\"contract.cancelled\"")),
        fault(Image, UnknownType, Attribute("type", "\"topup.purchased\"")),
        fault(Video, UnknownType, Attribute("type", "\"contract.started\"")),
        fault(Video, UnknownType, Attribute("type", "\"wallet.adjusted\"")),
        fault(Image, MissingField, NoAttribute("subject")),
        fault(Image, MissingField, Attribute("subject", "null")),
        fault(Image, MissingField, NoAttribute("time")),
        fault(Free, MissingField, NoAttribute("time")),
        fault(Image, MissingField, WholeData("null")),
        fault(Image, MissingField, NoData("job_id")),
        fault(Image, MissingField, Data("job_id", "null")),
        fault(Image, MissingField, NoData("asset")),
        fault(Image, MissingField, NoData("images")),
        fault(Video, MissingField, NoData("seconds")),
        fault(Image, MissingField, WholeData("{}")),
        fault(Ended, MissingField, NoData("job_id")),
        fault(Ended, BadValue, Data("asset_id", "4")),
        fault(Ended, BadValue, Data("reason", "404")),
        binary(Ended, BadValue, LongData("reason", 1_025)),
        fault(Ended, TooOld, Days(LONG_AGO_DAYS)),
        binary(Image, MissingField, Value(b"")),
        binary(Image, MissingField, NoAttribute("subject")),
        fault(Image, BadValue, LongAttribute("id", 129)),
        fault(Image, BadValue, LongAttribute("source", 257)),
        fault(Image, BadValue, Attribute("subject", "\"\"")),
        fault(Image, BadValue, Attribute("subject", "42")),
        fault(Image, BadValue, Attribute("subject", "\"ws_\\u00e9\"")),
        fault(Image, BadValue, LongAttribute("subject", 129)),
        fault(Image, BadValue, Attribute("time", "\"yesterday\"")),
        fault(Image, BadValue, Attribute("time", "\"2026-11-03T10:15:30\"")),
        fault(Image, BadValue, Attribute("time", "1793700930")),
        fault(Free, BadValue, Attribute("time", "\"2026-02-30T10:15:30Z\"")),
        fault(Image, BadValue, WholeData("[]")),
        fault(Image, BadValue, WholeData("\"images=4\"")),
        fault(Image, BadValue, Data("job_id", "\"\"")),
        fault(Image, BadValue, Data("job_id", "7")),
        fault(Image, BadValue, LongData("job_id", 129)),
        fault(Image, BadValue, Data("asset", "\"audio\"")),
        fault(Image, BadValue, Data("asset", "1")),
        fault(Image, BadValue, Data("images", "0")),
        fault(Image, BadValue, Data("images", "-0")),
        fault(Image, BadValue, Data("images", "-1")),
        fault(Image, BadValue, Data("images", "1.5")),
        fault(Image, BadValue, Data("images", "\"4\"")),
        fault(Image, BadValue, Data("images", "[4]")),
        fault(Image, BadValue, Data("images", "10001")),
        fault(Image, BadValue, Data("images", "4294967297")),
        fault(Image, BadValue, Data("images", "18446744073709551617")),
        fault(Video, BadValue, Data("seconds", "0")),
        fault(Video, BadValue, Data("seconds", "0.0")),
        fault(Video, BadValue, Data("seconds", "-8")),
        fault(Video, BadValue, Data("seconds", "\"8\"")),
        fault(Video, BadValue, Data("seconds", "7.2505")),
        fault(Video, BadValue, Data("seconds", "1e-4")),
        fault(Video, BadValue, Data("seconds", "36000.001")),
        fault(Video, BadValue, Data("seconds", "1e300")),
        fault(Video, BadValue, Data("seconds", "true")),
        fault(Video, BadValue, Data("asset_id", "\"\"")),
        fault(Video, BadValue, Data("model", "{\"name\":\"veo-3\"}")),
        fault(Video, BadValue, LongData("user_id", 129)),
        fault(Video, BadValue, Data("project_id", "3")),
        binary(Video, BadValue, Data("seconds", "-8")),
        fault(Image, TooOld, Days(LONG_AGO_DAYS)),
        fault(Video, TooOld, Days(LONG_AGO_DAYS)),
        fault(Free, TooOld, Days(LONG_AGO_DAYS)),
        fault(Image, TooFarAhead, Days(FAR_AHEAD_DAYS)),
        fault(Free, TooFarAhead, Days(FAR_AHEAD_DAYS)),
        binary(Video, TooFarAhead, Days(FAR_AHEAD_DAYS)),
    ]
};

/// Faults of the wallet topic. Those that no usage record can show stand first: few records suffice for them.
pub(super) const WALLET_FAULTS: &[Fault] = {
    use Base::{Contract, Debit, Grant, Image, Limits, Renewal, Topup};
    use Edit::*;
    &[
        // A second contract of a wallet that has one.
        fault(Contract, ContractConflict, Nothing),
        fault(Contract, UnknownPlan, Data("plan", "\"enterprise\"")),
        fault(Topup, UnknownTopup, Data("amount_usd", "300")),
        fault(Renewal, NoContract, Nothing),
        // Usage on the wrong topic.
        fault(Image, UnknownType, Nothing),
        fault(Topup, BadValue, Data("amount_usd", "-100")),
        fault(Contract, UnknownPlan, Data("plan", "\"Lite\"")),
        fault(Topup, UnknownTopup, Data("amount_usd", "99.999")),
        fault(Renewal, NoContract, Attribute("type", "\"contract.cancelled\"")),
        fault(Renewal, MissingField, Attribute("type", "\"contract.plan_changed\"")),
        fault(Renewal, UnknownPlan, Data("plan", "\"enterprise\"")),
        fault(Renewal, BadValue, Data("term_months", "121")),
        fault(Renewal, MissingField, NoData("contract_id")),
        fault(Limits, UnknownType, Attribute("type", "\"generation.refunded\"")),
        fault(Limits, MissingField, WholeData("{}")),
        fault(Limits, BadValue, Data("overdraft_limit", "-1")),
        fault(Limits, BadValue, Data("overdraft_limit", "\"unlimited\"")),
        fault(Limits, BadValue, Data("low_percent", "101")),
        fault(Limits, BadValue, Data("critical_percent", "\"none\"")),
        fault(Contract, MissingField, NoData("contract_id")),
        fault(Contract, MissingField, NoData("plan")),
        fault(Contract, MissingField, NoData("starts_at")),
        fault(Topup, MissingField, NoData("topup_id")),
        fault(Topup, MissingField, Data("amount_usd", "null")),
        fault(Grant, MissingField, NoData("adjustment_id")),
        fault(Grant, MissingField, NoData("credits")),
        fault(Debit, MissingField, NoData("reason")),
        fault(Debit, MissingField, NoData("actor")),
        fault(Contract, BadValue, Data("plan", "3")),
        fault(Contract, BadValue, Data("starts_at", "\"2026-11-01\"")),
        fault(Contract, BadValue, DataDays("starts_at", 400)),
        fault(Contract, BadValue, DataDays("starts_at", -800)),
        fault(Contract, BadValue, Data("term_months", "0")),
        fault(Contract, BadValue, Data("term_months", "121")),
        fault(Contract, BadValue, Data("term_months", "\"12\"")),
        fault(Contract, BadValue, Data("term_months", "1.5")),
        fault(Topup, BadValue, Data("amount_usd", "\"100\"")),
        fault(Topup, BadValue, Data("amount_usd", "0")),
        fault(Grant, BadValue, Data("credits", "0")),
        fault(Grant, BadValue, Data("credits", "0.5")),
        fault(Grant, BadValue, Data("credits", "1000000001")),
        fault(Debit, BadValue, Data("credits", "-1000000001")),
        fault(Debit, BadValue, Data("credits", "-9223372036854775808")),
        fault(Debit, BadValue, Data("reason", "\"\"")),
        fault(Debit, BadValue, Data("actor", "\"  \"")),
        fault(Debit, BadValue, DataDays("expires_at", 30)),
        fault(Grant, BadValue, DataDays("expires_at", -1)),
        fault(Grant, BadValue, LongData("reference", 1_025)),
        fault(Contract, TooOld, Days(LONG_AGO_DAYS)),
        fault(Topup, TooOld, Days(LONG_AGO_DAYS)),
        fault(Topup, TooFarAhead, Days(FAR_AHEAD_DAYS)),
        fault(Grant, TooFarAhead, Days(FAR_AHEAD_DAYS)),
        fault(Topup, NotJson, Half),
        fault(Topup, NotJson, Tombstone),
        fault(Grant, TooLarge, LongData("note", TOO_MANY_BYTES)),
    ]
};

impl Edit {
    /// Alters the draft of an event that happened at `at`; what concerns the record as a whole is done when it
    /// is put together.
    pub(super) fn apply(self, draft: &mut Draft, at: Timestamp) {
        match self {
            Edit::Attribute(name, value) => draft.attributes.set(name, format_args!("{value}")),
            Edit::LongAttribute(name, bytes) => {
                draft.attributes.set(name, format_args!("\"{}\"", "x".repeat(bytes)))
            }
            Edit::NoAttribute(name) => draft.attributes.remove(name),
            Edit::Data(name, value) => draft.data.set(name, format_args!("{value}")),
            Edit::LongData(name, bytes) => draft.data.set(name, format_args!("\"{}\"", "x".repeat(bytes))),
            Edit::DataDays(name, days) => {
                draft.data.set(name, format_args!("\"{}\"", at.plus_millis(days * DAY_MS)))
            }
            Edit::NoData(name) => draft.data.remove(name),
            Edit::WholeData(raw) => draft.whole_data = Some(raw),
            Edit::Days(days) => {
                draft.attributes.set("time", format_args!("\"{}\"", at.plus_millis(days * DAY_MS)))
            }
            Edit::Nothing | Edit::Header(..) | Edit::Value(_) | Edit::Tombstone | Edit::Half => {}
        }
    }
}
