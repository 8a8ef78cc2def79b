//! Owns the sentences that explain an entry to a person: what happened, at which price, who paid, what is left.
//!
//! **Invariant:** everything is told from the one entry, as the ledger's readers have it; nothing is looked up and
//! nothing is guessed. What an entry does not hold is not said. Pure.

mod details;
mod names;
mod summary;
#[cfg(test)]
mod tests;

pub use details::{Detail, details};
pub use names::{Before, before, grant_name};
pub use summary::summary;
