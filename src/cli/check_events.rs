//! `check-events`: what would become of each line of a file, without Kafka and without any wallet's state.

use std::io::{BufRead, BufReader, Read};

use serde::Serialize;

use super::args;
use super::exit::{self, Failure};
use super::output::Output;
use super::publish::instant;
use crate::app;
use crate::config::Config;
use crate::event::{Event, EventRules, IncomingRecord, Reason, Rejection, SourceKind, decode};
use crate::ledger::TimeRules;
use crate::rate::Pricing;
use crate::time::Timestamp;
use crate::wallet::{Command, JobHistory};

/// The answer for one line.
#[derive(Serialize)]
struct Verdict {
    line: usize,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    detail: String,
}

/// Checks a file. Exit 1 where any line would be quarantined.
pub fn run(config: &Config, command: &args::CheckEvents, output: Output) -> Result<u8, Failure> {
    let pricing = app::pricing(config).map_err(|error| Failure::config(format!("{error:#}")))?;
    let checker = Checker {
        rules: EventRules::new(&config.events),
        pricing,
        time: TimeRules::new(&config.clock),
        now: command.now.as_deref().map_or_else(|| Ok(Timestamp::now()), |now| instant("--now", now))?,
        kind: command
            .topic
            .as_deref()
            .map(|kind| if kind == "wallet" { SourceKind::Wallet } else { SourceKind::Generation }),
    };
    let input: Box<dyn Read> =
        if command.file.as_os_str() == "-" {
            Box::new(std::io::stdin())
        } else {
            let open = std::fs::File::open(&command.file);
            Box::new(open.map_err(|error| {
                Failure::usage(format!("{} cannot be read: {error}", command.file.display()))
            })?)
        };
    let mut refused = 0_usize;
    let mut reader = BufReader::new(input);
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        let read = reader
            .read_until(b'\n', &mut line)
            .map_err(|error| Failure::usage(format!("line {number}: {error}")))?;
        if read == 0 {
            break;
        }
        while line.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
            line.pop();
        }
        let verdict = checker.verdict(number, &line);
        refused += usize::from(verdict.reason.is_some());
        output.object(&verdict, || match verdict.reason {
            Some(reason) => format!("{number}: quarantined, {reason}: {}", verdict.detail),
            None => format!(
                "{number}: {}{}{}",
                verdict.outcome,
                if verdict.detail.is_empty() { "" } else { ": " },
                verdict.detail
            ),
        })?;
    }
    Ok(if refused > 0 { exit::NO } else { exit::DONE })
}

struct Checker {
    rules: EventRules,
    pricing: Pricing,
    time: TimeRules,
    now: Timestamp,
    kind: Option<SourceKind>,
}

impl Checker {
    fn verdict(&self, line: usize, value: &[u8]) -> Verdict {
        match self.outcome(value) {
            Ok((outcome, detail)) => Verdict { line, outcome, reason: None, detail },
            Err(rejection) => Verdict {
                line,
                outcome: "quarantined",
                reason: Some(rejection.reason.as_str()),
                detail: rejection.detail,
            },
        }
    }

    fn outcome(&self, value: &[u8]) -> Result<(&'static str, String), Rejection> {
        let event = self.decode(value)?;
        if event.time.0 < self.now.plus_millis(-self.time.horizon_ms) {
            return Err(Rejection::new(
                Reason::TooOld,
                format!("time is {}: before the horizon", event.time.0),
            ));
        }
        if event.time.0 > self.now.plus_millis(self.time.max_clock_skew_ms) {
            return Err(Rejection::new(
                Reason::TooFarAhead,
                format!("time is {}: ahead of the clock", event.time.0),
            ));
        }
        let Some(data) = &event.data else { return Ok(("free", String::new())) };
        let data = data.as_ref().map_err(Clone::clone)?;
        Ok(match Command::price(data, event.time, JobHistory::default(), &self.pricing)? {
            Command::Charge { cost, rate, rate_card, .. } => {
                ("charged", format!("{cost} credits at {rate} by rate card {rate_card}"))
            }
            Command::StartContract { terms, plan } => (
                "contract",
                format!(
                    "{} credits a month from {} to {}",
                    plan.credits_per_month, terms.starts_at, terms.ends_at
                ),
            ),
            Command::TopUp { pack, .. } => {
                ("granted", format!("{} credits for {} US dollars", pack.credits, pack.amount_usd))
            }
            Command::Adjust(adjusted) => ("adjusted", format!("{} credits", adjusted.credits)),
        })
    }

    /// Without a topic given, a line is decoded as of the topic that its type belongs on.
    fn decode<'a>(&self, value: &'a [u8]) -> Result<Event<'a>, Rejection> {
        let of = |source_kind| {
            decode(&IncomingRecord { source_kind, value: Some(value), headers: &[] }, &self.rules)
        };
        match self.kind {
            Some(kind) => of(kind),
            None => of(SourceKind::Generation).or_else(|rejection| match rejection.reason {
                Reason::UnknownType => of(SourceKind::Wallet),
                _ => Err(rejection),
            }),
        }
    }
}
