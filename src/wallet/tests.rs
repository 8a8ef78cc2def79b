//! What may be done to a wallet, as tables: one command and its expected entries a line, then the balances.
//!
//! How to read them is said at [`book`]. After every single command of every table the sums, the fold of all
//! entries, and the round trips through JSON are checked as well.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use super::*;

mod book;
mod buckets;
mod contracts;
mod folding;
mod grants;
mod levels;
mod limits;
mod prices;
mod properties;

use book::{Book, play, play_with, when};
