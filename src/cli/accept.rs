//! `accept`: takes up a source that is not what it was.

use std::sync::Arc;

use super::args;
use super::exit::Failure;
use super::output::Output;
use crate::config::Config;
use crate::ledger::{Accept, AcceptError, accept};

/// Accepts it, and says what was done.
pub fn run(config: &Arc<Config>, command: &args::Accept, output: Output) -> Result<u8, Failure> {
    let (what, name) = match command {
        args::Accept::Topic { name } => (Accept::Topic, name),
        args::Accept::Partitions { name } => (Accept::Partitions, name),
    };
    let done = accept(config, what, name).map_err(|error| match error {
        AcceptError::Busy(message) => Failure::try_again(message),
        AcceptError::Refused(message) => Failure::no(message),
        AcceptError::Ledger(error) => Failure::from_chain(error.into()),
        AcceptError::Read(_) | AcceptError::Kafka(_) | AcceptError::Transaction(_) => {
            Failure::unavailable(error)
        }
    })?;
    output.lines(&done, "nothing to do: it is as it was when it was first read")
}
