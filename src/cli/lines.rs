//! Events as lines of a file: read one by one, decoded and priced as the ledger stage does it, without Kafka and
//! without any wallet's state.

use std::fs::File;
use std::io::{BufRead, BufReader, IsTerminal, Read};
use std::path::Path;

use indicatif::{ProgressBar, ProgressStyle};

use super::exit::Failure;
use crate::event::{Event, EventRules, IncomingRecord, Reason, Rejection, SourceKind, decode};
use crate::ledger::TimeRules;
use crate::rate::Pricing;
use crate::time::{EventTime, Timestamp};
use crate::wallet::{Command, JobHistory};

/// What is kept of a line, bytes: more than any record may have. A longer one is too large, whatever follows.
const LINE_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// The lines of a file or of stdin, one at a time.
pub struct Lines {
    reader: BufReader<Box<dyn Read>>,
    line: Vec<u8>,
    number: usize,
    /// Size of the file, where it has one.
    bytes: Option<u64>,
    bar: ProgressBar,
}

impl Lines {
    /// Opens a file; `-` is stdin.
    pub fn open(path: &Path) -> Result<Lines, Failure> {
        let unreadable =
            |error: std::io::Error| Failure::usage(format!("{} cannot be read: {error}", path.display()));
        let (input, bytes): (Box<dyn Read>, Option<u64>) = if path.as_os_str() == "-" {
            (Box::new(std::io::stdin()), None)
        } else {
            let file = File::open(path).map_err(unreadable)?;
            let metadata = file.metadata().map_err(unreadable)?;
            (Box::new(file), metadata.is_file().then_some(metadata.len()))
        };
        let bar = ProgressBar::hidden();
        Ok(Lines { reader: BufReader::new(input), line: Vec::new(), number: 0, bytes, bar })
    }

    /// With a progress bar, on stderr and only at a terminal: for a command that is silent until the end.
    pub fn with_bar(mut self) -> Lines {
        if let Some(bytes) = self.bytes.filter(|_| std::io::stderr().is_terminal()) {
            let style = ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {eta}")
                .unwrap_or_else(|_| ProgressStyle::default_bar());
            self.bar = ProgressBar::new(bytes).with_style(style);
        }
        self
    }

    /// The next line with its number, from 1; `None` at the end.
    pub fn next(&mut self) -> Result<Option<(usize, &[u8])>, Failure> {
        self.line.clear();
        self.number += 1;
        let number = self.number;
        let failed = |error: std::io::Error| Failure::usage(format!("line {number}: {error}"));
        let read =
            (&mut self.reader).take(LINE_BYTES_MAX).read_until(b'\n', &mut self.line).map_err(failed)?;
        if read == 0 {
            self.bar.finish_and_clear();
            return Ok(None);
        }
        let is_cut = read as u64 == LINE_BYTES_MAX && self.line.last() != Some(&b'\n');
        let skipped = if is_cut { self.reader.skip_until(b'\n').map_err(failed)? } else { 0 };
        self.bar.inc((read + skipped) as u64);
        while self.line.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
            self.line.pop();
        }
        Ok(Some((number, &self.line)))
    }
}

/// Decodes a line as of the kind of topic that is given; else of the one that its type belongs on.
pub fn decode_line<'a>(
    value: &'a [u8],
    kind: Option<SourceKind>,
    rules: &EventRules,
) -> Result<Event<'a>, Rejection> {
    let of = |source_kind| decode(&IncomingRecord { source_kind, value: Some(value), headers: &[] }, rules);
    match kind {
        Some(kind) => of(kind),
        None => of(SourceKind::Generation).or_else(|rejection| match rejection.reason {
            Reason::UnknownType => of(SourceKind::Wallet),
            _ => Err(rejection),
        }),
    }
}

/// Whether the ledger stage, with its clock at `now`, would take an event of that time.
///
/// # Errors
/// `too_old`, `too_far_ahead`.
pub fn check_time(time: EventTime, now: Timestamp, rules: &TimeRules) -> Result<(), Rejection> {
    let first = now.plus_millis(-rules.horizon_ms);
    if time.0 < first {
        let detail = format!("time is {}: before the horizon, which begins {first}", time.0);
        return Err(Rejection::new(Reason::TooOld, detail));
    }
    let last = now.plus_millis(rules.max_clock_skew_ms);
    if time.0 > last {
        let detail = format!("time is {}: ahead of the clock, accepted are times up to {last}", time.0);
        return Err(Rejection::new(Reason::TooFarAhead, detail));
    }
    Ok(())
}

/// What an event asks of its wallet, priced as if nothing were known of its job; `None`: it is free.
///
/// # Errors
/// What its data or the prices refuse.
pub fn priced<'a>(event: &'a Event<'a>, pricing: &'a Pricing) -> Result<Option<Command<'a>>, Rejection> {
    let Some(data) = &event.data else { return Ok(None) };
    let data = data.as_ref().map_err(Clone::clone)?;
    Command::price(data, event.time, JobHistory::default(), pricing).map(Some)
}
