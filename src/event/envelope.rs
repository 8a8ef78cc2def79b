//! The CloudEvents envelope, structured (the value is the event) or binary (`ce_*` headers, the value is its
//! data), told apart per record.

use std::borrow::Cow;

use serde::de::IgnoredAny;

use super::decode::IncomingRecord;
use super::members::RawData;
use super::scan::{Fault, Raw, document};
use super::{Reason, Rejection};

/// The attributes that we read, as they came: JSON in structured mode, header text in binary mode.
#[derive(Default)]
pub(super) struct Envelope<'a> {
    pub specversion: Attribute<'a>,
    pub id: Attribute<'a>,
    pub source: Attribute<'a>,
    pub kind: Attribute<'a>,
    pub subject: Attribute<'a>,
    pub time: Attribute<'a>,
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

    fn from_raw(raw: Option<Raw<'a>>) -> Attribute<'a> {
        match raw {
            Some(raw) if !raw.is_null() => raw.text().map_or(Attribute::Other, Attribute::Text),
            _ => Attribute::Absent,
        }
    }
}

/// Attributes as they stand in a structured event.
#[derive(Default)]
struct Structured<'a> {
    specversion: Option<Raw<'a>>,
    id: Option<Raw<'a>>,
    source: Option<Raw<'a>>,
    kind: Option<Raw<'a>>,
    subject: Option<Raw<'a>>,
    time: Option<Raw<'a>>,
}

impl<'a> Structured<'a> {
    fn attribute(&mut self, name: &str) -> Option<&mut Option<Raw<'a>>> {
        Some(match name {
            "specversion" => &mut self.specversion,
            "id" => &mut self.id,
            "source" => &mut self.source,
            "type" => &mut self.kind,
            "subject" => &mut self.subject,
            "time" => &mut self.time,
            _ => return None,
        })
    }
}

/// Splits a record into its envelope and raw data, which is filled.
///
/// # Errors
/// `not_json` or `not_cloudevent`.
pub(super) fn read<'a>(
    record: &IncomingRecord<'a, '_>,
    data: &mut RawData<'a>,
) -> Result<Envelope<'a>, Rejection> {
    let content_type = record.header("content-type");
    let is_of_type = |prefix: &[u8]| {
        content_type
            .and_then(|value| value.get(..prefix.len()))
            .is_some_and(|value| value.eq_ignore_ascii_case(prefix))
    };
    let is_event = is_of_type(b"application/cloudevents");
    if is_of_type(b"application/cloudevents-batch") {
        return Err(Rejection::new(
            Reason::NotCloudevent,
            "batches of events are not supported: send one event per record",
        ));
    }
    let has_attributes = record.headers.iter().any(|(name, _)| name.starts_with("ce_"));
    if has_attributes && !is_event { binary(record, data) } else { structured(record, data) }
}

fn structured<'a>(
    record: &IncomingRecord<'a, '_>,
    data: &mut RawData<'a>,
) -> Result<Envelope<'a>, Rejection> {
    let text = utf8(record.value.unwrap_or_default())?;
    let mut attributes = Structured::default();
    let read = document(text, |scanner| {
        if scanner.peek() != Some(b'{') {
            return Err(Fault::Content("it is no object".to_owned()));
        }
        scanner.object(|scanner, name| {
            let name = name.text().ok_or_else(|| Fault::Content(format!("{} is no name", name.spelt)))?;
            let is_first = if name == "data" {
                let is_first = !data.is_there();
                data.scan(scanner)?;
                is_first
            } else {
                let value = scanner.value()?;
                attributes.attribute(&name).is_none_or(|attribute| attribute.replace(value).is_none())
            };
            if is_first { Ok(()) } else { Err(Fault::Content(format!("{name} stands twice"))) }
        })
    });
    read.map_err(|fault| not_an_event(text, &fault))?;
    Ok(Envelope {
        specversion: Attribute::from_raw(attributes.specversion),
        id: Attribute::from_raw(attributes.id),
        source: Attribute::from_raw(attributes.source),
        kind: Attribute::from_raw(attributes.kind),
        subject: Attribute::from_raw(attributes.subject),
        time: Attribute::from_raw(attributes.time),
    })
}

/// Whether the whole value is JSON is asked first, for that is the earlier reason: reading ends at the first fault,
/// perhaps before a later one of syntax. serde's error says where it is.
fn not_an_event(text: &str, fault: &Fault) -> Rejection {
    match (serde_json::from_str::<IgnoredAny>(text), fault) {
        (Err(_), _) if text.trim().is_empty() => {
            Rejection::new(Reason::NotJson, "the value is empty: expected a CloudEvent as JSON")
        }
        (Err(syntax), _) => Rejection::new(Reason::NotJson, format!("the value is not JSON: {syntax}")),
        (Ok(_), Fault::Syntax) => Rejection::new(Reason::NotJson, "the value is not JSON"),
        (Ok(_), Fault::Content(fault)) => Rejection::new(
            Reason::NotCloudevent,
            format!("the value is JSON but no CloudEvent object: {fault}"),
        ),
    }
}

fn binary<'a>(record: &IncomingRecord<'a, '_>, data: &mut RawData<'a>) -> Result<Envelope<'a>, Rejection> {
    binary_data(record, data)?;
    let mut envelope = Envelope::default();
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

fn binary_data<'a>(record: &IncomingRecord<'a, '_>, data: &mut RawData<'a>) -> Result<(), Rejection> {
    let text = utf8(record.value.unwrap_or_default())?;
    if text.trim().is_empty() {
        return Ok(());
    }
    document(text, |scanner| data.scan(scanner)).map_err(|_| {
        let syntax = serde_json::from_str::<IgnoredAny>(text).err();
        let syntax = syntax.map_or(String::new(), |error| format!(": {error}"));
        Rejection::new(
            Reason::NotJson,
            format!("the value (the event's data in binary mode) is not JSON{syntax}"),
        )
    })
}

fn utf8(value: &[u8]) -> Result<&str, Rejection> {
    std::str::from_utf8(value).map_err(|error| {
        Rejection::new(
            Reason::NotJson,
            format!("the value is not UTF-8: the first bad byte is at {}", error.valid_up_to()),
        )
    })
}
