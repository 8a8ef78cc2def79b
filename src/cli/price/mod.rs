//! `price`: what the events of a file would cost, and what they would cost by other prices. Without Kafka.

mod pricer;
mod report;

use std::sync::Arc;

use super::args;
use super::exit::{self, Failure};
use super::lines::Lines;
use super::output::Output;
use crate::app;
use crate::config::Config;
use pricer::Pricer;

/// Prices a file.
pub fn run(config: &Config, command: &args::Price, output: Output) -> Result<u8, Failure> {
    let faulty = |error: anyhow::Error| Failure::config(format!("{error:#}"));
    let pricing = Arc::new(app::pricing(config).map_err(faulty)?);
    let against = command.against.as_deref().map(app::pricing_file).transpose();
    let against = against.map_err(|error| Failure::usage(format!("--against: {error:#}")))?;
    let mut pricer = Pricer::new(config, Arc::clone(&pricing), against.as_ref());
    let mut lines = Lines::open(&command.file)?.with_bar();
    while let Some((number, line)) = lines.next()? {
        pricer.line(number, line).map_err(Failure::bug)?;
    }
    let report = pricer.finish();
    output.object(&report, || report.page())?;
    Ok(exit::DONE)
}
