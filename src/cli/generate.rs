//! `generate`: realistic events, and the books of what must come of them.

use std::io::{BufWriter, IsTerminal};
use std::ops::ControlFlow;

use indicatif::{ProgressBar, ProgressStyle};

use super::args;
use super::exit::{self, Failure};
use super::output::Output;
use super::publish::instant;
use crate::config::Config;
use crate::generate::{
    GenerateError, GenerateOptions, Generator, KafkaTarget, Pace, Phase, Progress, Topics, to_json_lines,
    to_kafka,
};
use crate::text::counted;
use crate::time::DAY_MS;

impl From<GenerateError> for Failure {
    fn from(error: GenerateError) -> Failure {
        match error {
            GenerateError::Options(_) => Failure::usage(error),
            GenerateError::Unreachable { .. } | GenerateError::Undelivered { .. } => {
                Failure::unavailable(error)
            }
            GenerateError::Write(_) => Failure::bug(error),
        }
    }
}

/// Makes events and sends or prints them.
pub fn run(config: &Config, command: &args::Generate, output: Output) -> Result<u8, Failure> {
    let mut generator = Generator::new(&options(config, command)?)?;
    let pace = if command.rate == 0 { Pace::Full } else { Pace::RecordsPerSecond(command.rate) };
    let topics = Topics::first_of(&config.topics);
    let bar = progress_bar(generator.records_total());
    let mut progress = |progress: Progress| {
        bar.set_position(progress.records);
        ControlFlow::Continue(())
    };
    let sent = if command.stdout {
        let mut out = BufWriter::new(std::io::stdout().lock());
        to_json_lines(&mut generator, &topics, pace, &mut out, &mut progress)?
    } else {
        let target = KafkaTarget { kafka: config.kafka.clone(), topics };
        to_kafka(&mut generator, &target, pace, &mut progress)?
    };
    bar.finish_and_clear();
    if let Some(path) = &command.books {
        let books = serde_json::to_vec(&generator.books()).map_err(|error| Failure::bug(&error))?;
        std::fs::write(path, books).map_err(|error| {
            Failure::usage(format!("--books {:?} cannot be written: {error}", path.display()))
        })?;
    }
    if command.stdout {
        return Ok(exit::DONE);
    }
    let summary = serde_json::json!({
        "records": sent.records,
        "value_bytes": sent.value_bytes,
        "seconds": sent.elapsed.as_secs_f64(),
        "records_per_second": sent.records_per_second(),
    });
    output.object(&summary, || {
        format!(
            "{} sent in {:.1} s, {:.0} records/s, {} bytes of values",
            counted(sent.records, "record"),
            sent.elapsed.as_secs_f64(),
            sent.records_per_second(),
            sent.value_bytes
        )
    })?;
    Ok(exit::DONE)
}

fn options(config: &Config, command: &args::Generate) -> Result<GenerateOptions, Failure> {
    let mut options = match &command.end {
        Some(end) => GenerateOptions::ending_at(instant("--end", end)?),
        None => GenerateOptions::ending_now(),
    };
    options.start = match &command.start {
        Some(start) => instant("--start", start)?,
        None => options.end.plus_millis(-2 * DAY_MS),
    };
    options.seed = command.seed;
    options.events = command.events;
    options.wallets = command.wallets;
    options.type_prefix.clone_from(&config.events.type_prefix);
    options.phase = match command.phase.as_str() {
        "setup" => Phase::Setup,
        "usage" => Phase::Usage,
        _ => Phase::Both,
    };
    options.duplicates_percent = command.duplicates;
    options.bad_percent = command.bad;
    options.late_percent = command.late;
    options.wrong_key_percent = command.wrong_keys;
    Ok(options)
}

/// On stderr, and only at a terminal.
pub fn progress_bar(total: u64) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} {per_sec} {eta}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(total).with_style(style)
}
