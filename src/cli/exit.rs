//! Exit codes, and errors on their way to stderr.

use std::fmt::Display;

use serde::Serialize;

use crate::config::{ConfigErrors, UnknownPlan};
use crate::kafka::TopicError;
use crate::ledger::LedgerError;
use crate::rate::PricingErrors;

/// Done; equal; yes.
pub const DONE: u8 = 0;
/// The answer is no: a line was refused, nothing was found.
pub const NO: u8 = 1;
/// The command line is wrong.
pub const USAGE: u8 = 2;
/// A component cannot be reached.
pub const UNAVAILABLE: u8 = 69;
/// A fault of ours.
pub const BUG: u8 = 70;
/// Not now: somebody or something must come to an end first.
pub const TRY_AGAIN: u8 = 75;
/// A right is missing.
pub const NO_RIGHTS: u8 = 77;
/// A configuration that cannot work.
pub const CONFIG: u8 = 78;

/// A command that failed.
#[derive(Debug, Serialize)]
pub struct Failure {
    /// Exit code.
    #[serde(skip)]
    pub code: u8,
    /// Its name.
    #[serde(rename = "code")]
    pub name: &'static str,
    /// What was expected, what came, what to do.
    pub message: String,
}

impl Failure {
    /// Exit 2.
    pub fn usage(message: impl Display) -> Failure {
        Failure { code: USAGE, name: "usage", message: message.to_string() }
    }

    /// Exit 1.
    pub fn no(message: impl Display) -> Failure {
        Failure { code: NO, name: "no", message: message.to_string() }
    }

    /// Exit 69.
    pub fn unavailable(message: impl Display) -> Failure {
        Failure { code: UNAVAILABLE, name: "unavailable", message: message.to_string() }
    }

    /// Exit 75.
    pub fn try_again(message: impl Display) -> Failure {
        Failure { code: TRY_AGAIN, name: "try_again", message: message.to_string() }
    }

    /// Exit 70.
    pub fn bug(message: impl Display) -> Failure {
        Failure { code: BUG, name: "internal", message: message.to_string() }
    }

    /// Exit 77.
    pub fn no_rights(message: impl Display) -> Failure {
        Failure { code: NO_RIGHTS, name: "no_rights", message: message.to_string() }
    }

    /// Exit 78.
    pub fn config(message: impl Display) -> Failure {
        Failure { code: CONFIG, name: "config", message: message.to_string() }
    }

    /// Exit by the cause that a stage or the set-up names.
    pub fn from_chain(error: anyhow::Error) -> Failure {
        let message = format!("{error:#}");
        for cause in error.chain() {
            if cause.is::<PricingErrors>() || cause.is::<ConfigErrors>() || cause.is::<UnknownPlan>() {
                return Failure::config(message);
            }
            if let Some(ledger) = cause.downcast_ref::<LedgerError>() {
                return match ledger {
                    LedgerError::Unreachable(_) => Failure::unavailable(message),
                    LedgerError::Setup(_) => Failure::config(message),
                    LedgerError::Forbidden(_) => Failure::no_rights(message),
                    LedgerError::Stopped(_) => Failure::bug(message),
                };
            }
            if let Some(topics) = cause.downcast_ref::<TopicError>() {
                return match topics {
                    TopicError::Partitions { .. } => Failure::config(message),
                    TopicError::Kafka(_) | TopicError::Answer(_) => Failure::unavailable(message),
                };
            }
            if cause.is::<rdkafka::error::KafkaError>() {
                return Failure::unavailable(message);
            }
            if let Some(io) = cause.downcast_ref::<std::io::Error>()
                && matches!(
                    io.kind(),
                    std::io::ErrorKind::AddrInUse
                        | std::io::ErrorKind::AddrNotAvailable
                        | std::io::ErrorKind::PermissionDenied
                )
            {
                return Failure::config(message);
            }
        }
        Failure::unavailable(message)
    }
}
