//! `wallet` and `explain`: looks into one wallet. Reads Kafka and ClickHouse, and changes neither.

mod explain;
mod ledger;
mod page;
mod stored;
#[cfg(test)]
mod tests;
mod wallet;

pub use explain::run as explain;
pub use wallet::run as wallet;
