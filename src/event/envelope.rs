//! The CloudEvents envelope, structured (the value is the event) or binary (`ce_*` headers, the value is its
//! data), told apart per record.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::decode::IncomingRecord;
use super::{Reason, Rejection};

/// The attributes that we read, as they came: raw JSON in structured mode, header text in binary mode.
#[derive(Default)]
pub(super) struct Envelope<'a> {
    pub specversion: Attribute<'a>,
    pub id: Attribute<'a>,
    pub source: Attribute<'a>,
    pub kind: Attribute<'a>,
    pub subject: Attribute<'a>,
    pub time: Attribute<'a>,
    /// The raw JSON of `data`; `None` where it is absent or null.
    pub data: Option<&'a str>,
}

/// One attribute.
#[derive(Default)]
pub(super) enum Attribute<'a> {
    #[default]
    Absent,
    Text(Cow<'a, str>),
    /// Present, but no text.
    Other,
}

impl<'a> Attribute<'a> {
    pub(super) fn text(self) -> Option<Cow<'a, str>> {
        match self {
            Attribute::Text(text) => Some(text),
            Attribute::Absent | Attribute::Other => None,
        }
    }

    fn from_raw(raw: Option<&'a RawValue>) -> Attribute<'a> {
        let Some(raw) = raw else { return Attribute::Absent };
        json_text(raw.get()).map_or(Attribute::Other, Attribute::Text)
    }
}

#[derive(Deserialize)]
struct Structured<'a> {
    #[serde(borrow)]
    specversion: Option<&'a RawValue>,
    id: Option<&'a RawValue>,
    source: Option<&'a RawValue>,
    r#type: Option<&'a RawValue>,
    subject: Option<&'a RawValue>,
    time: Option<&'a RawValue>,
    data: Option<&'a RawValue>,
}

/// Reads raw JSON as a string, borrowed where it has no escapes. `None` where it is no string.
pub(super) fn json_text(raw: &str) -> Option<Cow<'_, str>> {
    let inner = raw.strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') {
        return serde_json::from_str::<String>(raw).ok().map(Cow::Owned);
    }
    Some(Cow::Borrowed(inner))
}

/// Splits a record into its envelope and raw data.
///
/// # Errors
/// `not_json` or `not_cloudevent`.
pub(super) fn read<'a>(record: &IncomingRecord<'a, '_>) -> Result<Envelope<'a>, Rejection> {
    let content_type = record.header("content-type").map(<[u8]>::to_ascii_lowercase);
    let is_event = content_type.as_deref().is_some_and(|value| value.starts_with(b"application/cloudevents"));
    if is_event
        && content_type.as_deref().is_some_and(|value| value.starts_with(b"application/cloudevents-batch"))
    {
        return Err(Rejection::new(
            Reason::NotCloudevent,
            "batches of events are not supported: send one event per record",
        ));
    }
    let has_attributes = record.headers.iter().any(|(name, _)| name.starts_with("ce_"));
    if has_attributes && !is_event { binary(record) } else { structured(record) }
}

fn structured<'a>(record: &IncomingRecord<'a, '_>) -> Result<Envelope<'a>, Rejection> {
    let text = utf8(record.value.unwrap_or_default())?;
    let event: Structured<'a> = serde_json::from_str(text).map_err(|error| not_an_event(text, &error))?;
    // serde would also take an array with the fields in their order.
    if !text.trim_start().starts_with('{') {
        return Err(Rejection::new(Reason::NotCloudevent, "the value is JSON but no object"));
    }
    Ok(Envelope {
        specversion: Attribute::from_raw(event.specversion),
        id: Attribute::from_raw(event.id),
        source: Attribute::from_raw(event.source),
        kind: Attribute::from_raw(event.r#type),
        subject: Attribute::from_raw(event.subject),
        time: Attribute::from_raw(event.time),
        data: event.data.map(RawValue::get),
    })
}

/// serde stops at the first value of a wrong type, perhaps before a later fault of syntax: whether the whole
/// value is JSON is asked first, for that is the earlier reason.
fn not_an_event(text: &str, error: &serde_json::Error) -> Rejection {
    match serde_json::from_str::<IgnoredAny>(text) {
        Err(_) if text.trim().is_empty() => {
            Rejection::new(Reason::NotJson, "the value is empty: expected a CloudEvent as JSON")
        }
        Err(syntax) => Rejection::new(Reason::NotJson, format!("the value is not JSON: {syntax}")),
        Ok(_) => Rejection::new(
            Reason::NotCloudevent,
            format!("the value is JSON but no CloudEvent object: {error}"),
        ),
    }
}

fn binary<'a>(record: &IncomingRecord<'a, '_>) -> Result<Envelope<'a>, Rejection> {
    let mut envelope = Envelope { data: binary_data(record)?, ..Envelope::default() };
    for &(name, value) in record.headers {
        let attribute = match name {
            "ce_specversion" => &mut envelope.specversion,
            "ce_id" => &mut envelope.id,
            "ce_source" => &mut envelope.source,
            "ce_type" => &mut envelope.kind,
            "ce_subject" => &mut envelope.subject,
            "ce_time" => &mut envelope.time,
            _ => continue,
        };
        if !matches!(attribute, Attribute::Absent) {
            return Err(Rejection::new(
                Reason::NotCloudevent,
                format!("header {name} stands twice: each attribute may stand once"),
            ));
        }
        *attribute = match std::str::from_utf8(value) {
            Ok(text) => Attribute::Text(Cow::Borrowed(text)),
            Err(_) => Attribute::Other,
        };
    }
    Ok(envelope)
}

fn binary_data<'a>(record: &IncomingRecord<'a, '_>) -> Result<Option<&'a str>, Rejection> {
    let text = utf8(record.value.unwrap_or_default())?;
    if text.trim().is_empty() {
        return Ok(None);
    }
    let raw: &'a RawValue = serde_json::from_str(text).map_err(|error| {
        Rejection::new(
            Reason::NotJson,
            format!("the value (the event's data in binary mode) is not JSON: {error}"),
        )
    })?;
    Ok((raw.get() != "null").then_some(raw.get()))
}

fn utf8(value: &[u8]) -> Result<&str, Rejection> {
    std::str::from_utf8(value).map_err(|error| {
        Rejection::new(
            Reason::NotJson,
            format!("the value is not UTF-8: the first bad byte is at {}", error.valid_up_to()),
        )
    })
}
