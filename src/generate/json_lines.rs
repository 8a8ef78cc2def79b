//! Records as JSON, one a line, for files and standard output.

use std::io::Write;
use std::ops::ControlFlow;

use serde::Serialize;

use super::base64;
use super::encode::Record;
use super::generator::Generator;
use super::output::{GenerateError, Pace, Progress, Sent, Topics, drive};

/// One line. A tombstone has `"value": null`; a value that is not UTF-8 is `value_base64` instead.
#[derive(Serialize)]
struct Line<'a> {
    topic: &'a str,
    key: Option<&'a str>,
    /// Pairs of name and value: a name may stand twice.
    headers: &'a [(&'static str, String)],
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<Option<&'a str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
}

/// Writes all records. Give it a buffered writer.
///
/// # Errors
/// Those of the writer.
pub fn to_json_lines(
    generator: &mut Generator,
    topics: &Topics,
    pace: Pace,
    out: &mut dyn Write,
    progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Sent, GenerateError> {
    let sent = drive(generator, pace, progress, |record| write_line(topics, record, out))?;
    out.flush()?;
    Ok(sent)
}

fn write_line(topics: &Topics, record: &Record, out: &mut dyn Write) -> Result<(), GenerateError> {
    let (value, value_base64) =
        match record.value().map(|bytes| std::str::from_utf8(bytes).map_err(|_| bytes)) {
            None => (Some(None), None),
            Some(Ok(text)) => (Some(Some(text)), None),
            Some(Err(bytes)) => (None, Some(base64::encode(bytes))),
        };
    let topic = topics.name(record.source_kind());
    let line = Line { topic, key: record.key(), headers: record.headers(), value, value_base64 };
    serde_json::to_writer(&mut *out, &line).map_err(std::io::Error::from)?;
    out.write_all(b"\n")?;
    Ok(())
}
