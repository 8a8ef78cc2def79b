//! Owns the command line: what may be asked, how answers look, and exit codes.
//!
//! Results go to stdout; logs, progress and errors to stderr. Nothing here decides about credits.

mod accept;
mod alerts;
mod args;
mod check_events;
mod estimate;
mod exit;
mod export;
mod generate;
mod inspect;
mod lines;
mod output;
mod price;
mod publish;
mod quarantine;
mod status;
mod topic;
mod verify;

use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;

use crate::app::{self, Role};
use crate::config::{Config, check_plans, process_env};
use crate::telemetry;
use crate::time::Timestamp;
use args::{Arguments, Command};
use exit::Failure;
use output::{Form, Format, Output};

/// Parses the command line, runs the command, and says how it went.
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) if error.use_stderr() && wants_json(std::env::args_os()) => {
            let failure = Failure::usage(error.render().to_string().trim_start_matches("error: ").trim());
            Output { format: Format::Json }.failure(&failure);
            return ExitCode::from(failure.code);
        }
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { exit::USAGE } else { exit::DONE });
        }
    };
    let is_json = arguments.format == Form::Json;
    let output = Output { format: if is_json { Format::Json } else { Format::Table } };
    match dispatch(arguments, output) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            output.failure(&failure);
            ExitCode::from(failure.code)
        }
    }
}

/// Whether a command line that makes no sense asks for JSON all the same.
fn wants_json(arguments: impl Iterator<Item = std::ffi::OsString>) -> bool {
    let texts: Vec<String> = arguments.map(|text| text.to_string_lossy().into_owned()).collect();
    texts.iter().any(|text| text == "--format=json")
        || texts.windows(2).any(|pair| matches!(pair, [name, value] if name == "--format" && value == "json"))
}

fn dispatch(arguments: Arguments, output: Output) -> Result<u8, Failure> {
    let form = arguments.format;
    if matches!(form, Form::Parquet | Form::Csv) && !matches!(arguments.command, Command::Export(_)) {
        return Err(Failure::usage(
            "--format parquet and --format csv are for export; others say table or json",
        ));
    }
    let config = Config::load(arguments.config.as_deref(), process_env()).map_err(Failure::config)?;
    if let Command::CheckConfig = arguments.command {
        return check_config(&config, output);
    }
    telemetry::init(&config.log).map_err(Failure::config)?;
    let config = Arc::new(config);
    let runtime = tokio::runtime::Runtime::new().map_err(|error| Failure::bug(&error))?;
    let done = runtime.block_on(async {
        let config = Arc::clone(&config);
        match arguments.command {
            Command::Run { roles } => {
                let roles = if roles.is_empty() { Role::ALL.to_vec() } else { roles };
                app::run(config, &roles).await.map_err(Failure::from_chain)?;
                Ok(exit::DONE)
            }
            Command::Init => {
                let done = app::init(&config).await.map_err(Failure::from_chain)?;
                output.lines(&done, "nothing to do: topics and tables are as they should be")
            }
            Command::CheckConfig => Ok(exit::DONE),
            Command::CheckEvents(command) => check_events::run(&config, &command, output),
            Command::Generate(command) => generate::run(&config, &command, output),
            Command::Estimate(command) => estimate::run(&config, &command, output),
            Command::Price(command) => price::run(&config, &command, output),
            Command::Wallet(command) => inspect::wallet(&config, &command, output).await,
            Command::Explain(command) => inspect::explain(&config, &command, output).await,
            Command::RebuildClickhouse => verify::rebuild(&config, output).await,
            Command::Accept(command) => accept::run(&config, &command, output),
            Command::Status => status::run(&config, output).await,
            Command::Verify(command) => verify::run(&config, &command, output).await,
            Command::Export(command) => export::run(&config, &command, form).await,
            Command::Contract(command) => publish::contract(&config, &command, output),
            Command::Topup(command) => publish::topup(&config, &command, output),
            Command::Adjust(command) => publish::adjust(&config, &command, output),
            Command::Limits(command) => publish::limits(&config, &command, output),
            Command::Alerts(command) => alerts::run(&config, command, output).await,
            Command::Quarantine(command) => quarantine::run(&config, command, output),
        }
    });
    done.map_err(|failure| failure.looked_for_at(&config))
}

/// The settings in force. Prices must be readable, older than the horizon, and have the plans that settings name.
fn check_config(config: &Config, output: Output) -> Result<u8, Failure> {
    let pricing = app::pricing(config).map_err(|error| Failure::config(format!("{error:#}")))?;
    check_plans(&config.dispatcher.endpoints, &pricing.plan_names()).map_err(Failure::config)?;
    let horizon_ms = i64::try_from(config.clock.horizon().as_millis()).unwrap_or(i64::MAX);
    pricing.check_covers(Timestamp::now().plus_millis(-horizon_ms)).map_err(Failure::config)?;
    output.settings(config)
}
