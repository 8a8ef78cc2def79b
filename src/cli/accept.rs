//! `accept`: takes up a source, or the ledger, that is not what it was.

use std::sync::Arc;

use super::args;
use super::exit::{self, Failure};
use super::output::Output;
use crate::app::pricing;
use crate::config::Config;
use crate::ledger::{Accept, AcceptError, accept, accept_ledger};

/// Accepts it, and says what was done.
pub fn run(config: &Arc<Config>, command: &args::Accept, output: Output) -> Result<u8, Failure> {
    let (what, name) = match command {
        args::Accept::Topic { name } => (Accept::Topic, name),
        args::Accept::Partitions { name } => (Accept::Partitions, name),
        args::Accept::Ledger { partition, yes } => {
            let pricing = pricing(config).map_err(Failure::from_chain)?;
            let accepted = accept_ledger(config, &pricing, *partition, *yes).map_err(failure)?;
            output.lines(
                &accepted.lines,
                "nothing to do: the ledger has all that latest states and books say",
            )?;
            return Ok(if accepted.is_left { exit::NO } else { exit::DONE });
        }
    };
    let done = accept(config, what, name).map_err(failure)?;
    output.lines(&done, "nothing to do: it is as it was when it was first read")
}

fn failure(error: AcceptError) -> Failure {
    match error {
        AcceptError::Busy(message) => Failure::try_again(message),
        AcceptError::Refused(message) => Failure::no(message),
        AcceptError::Ledger(error) => Failure::from_chain(error.into()),
        AcceptError::Read(_) | AcceptError::Kafka(_) | AcceptError::Transaction(_) => {
            Failure::unavailable(error)
        }
    }
}
