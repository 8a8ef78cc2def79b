//! Owns made-up traffic: a seeded stream of wallet and usage events, faults included, and the **books** that
//! say what a correct product must make of it.
//!
//! ```text
//! options -> wallet_plan (wallet topic) --+
//!            usage_plan (usage topic)  ---+-> Generator -> encode -> Record -> Kafka | JSON lines
//!                                                     `-> books
//! ```
//!
//! **Invariant:** the same options give the same records, byte for byte, and every record has exactly one
//! expected outcome, which depends neither on the clock of whoever reads it nor on the order in which
//! partitions and topics are merged. So what must come second (a conflict, a refund, the completion of what was
//! requested, a change of a contract) has the key of what must come first; a duplicate of what does not depend on its
//! place may go anywhere, for of two equal events it does not matter which one is charged. What a clock decides is
//! not left to it: exactly one month of each contract is due, nothing expires, and what is held is younger than 12
//! hours at the end and settled in the stream. (Read it within half a day of its end, then.)
//!
//! Must not use [`crate::wallet`], [`crate::ledger`] or the arithmetic of [`crate::rate`]: books kept by the
//! code that they check prove nothing. The prices stand here a second time.

mod base64;
mod books;
mod chance;
mod curve;
mod draft;
mod encode;
mod faults;
mod generator;
mod item;
mod json_lines;
mod kafka;
mod options;
mod output;
mod population;
#[cfg(test)]
mod tests;
mod usage_plan;
mod wallet_plan;

pub use books::{Books, ChargedByAsset, CreditTotals, OutcomeCounts, WalletBook};
pub use encode::Record;
pub use generator::Generator;
pub use item::{Expected, Plan};
pub use json_lines::to_json_lines;
pub use kafka::{KafkaTarget, to_kafka};
pub use options::{GenerateOptions, Phase};
pub use output::{GenerateError, Pace, Progress, Sent, Topics};
