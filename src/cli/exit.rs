//! Exit codes, and errors on their way to stderr.

use std::fmt::Display;

use serde::Serialize;

use crate::config::{Config, ConfigErrors, UnknownPlan};
use crate::kafka::TopicError;
use crate::ledger::LedgerError;
use crate::rate::PricingErrors;
use crate::sink::error::ClickHouseError;

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
        let message = sentence(&error);
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
            if cause.downcast_ref::<ClickHouseError>().is_some_and(ClickHouseError::is_about_rights) {
                return Failure::no_rights(message);
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

    /// Says where the component was looked for that does not answer.
    pub fn looked_for_at(mut self, config: &Config) -> Failure {
        let addresses = [
            ("kafka", "kafka.brokers", config.kafka.bootstrap_servers()),
            ("clickhouse", "clickhouse.url", config.clickhouse.url.clone()),
        ];
        for (component, setting, address) in addresses {
            let is_it = self.code == UNAVAILABLE && self.message.contains(component);
            if is_it && !self.message.contains(&address) {
                self.message.push_str(&format!("; {setting} is {address}"));
            }
        }
        self
    }
}

/// An error and its causes. Some errors say their cause themselves: it is not said again.
fn sentence(error: &anyhow::Error) -> String {
    let mut said = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if said.is_empty() {
            said = cause;
        } else if !said.contains(&cause) {
            said = format!("{said}: {cause}");
        }
    }
    said
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn a_cause_is_said_once() {
        let error = anyhow!("no answer").context("kafka: no answer").context("topics");
        assert_eq!(sentence(&error), "topics: kafka: no answer");
        assert_eq!(sentence(&anyhow!("no answer").context("kafka")), "kafka: no answer");
    }

    #[test]
    fn what_does_not_answer_is_told_with_its_address() {
        let config = Config::default();
        let brokers = config.kafka.bootstrap_servers();
        let failure = Failure::unavailable("kafka: timed out").looked_for_at(&config);
        assert_eq!(failure.message, format!("kafka: timed out; kafka.brokers is {brokers}"));
        let known = format!("kafka at {brokers}: timed out");
        assert_eq!(Failure::unavailable(&known).looked_for_at(&config).message, known);
        assert_eq!(Failure::no("kafka: no").looked_for_at(&config).message, "kafka: no");
    }
}
