//! Batches of made records against shards, without Kafka: what becomes of each record, what is written, and that
//! nothing depends on how often or in which batches it came. How to read the tables is said at [`bench`].
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod bench;
mod clocks;
mod cost;
mod documentation;
mod identity;
mod independence;
mod needs;
mod oracle;
mod order;
mod overlays;
mod routing;
mod side_by_side;
mod written;

use bench::{
    Bench, GENERATION, INTAKE, Made, WALLET, adjustment, contract, free, is_home, topup, usage, wallet_of,
};
