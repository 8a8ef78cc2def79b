//! What may be done to a wallet, as tables: one command and its expected entries a line, then the balances.
//!
//! How to read them is said at [`book`]. After every single command of every table the sums, the fold of all
//! entries, and the round trips through JSON are checked as well.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use super::*;

mod book;
mod buckets;
mod calendar;
mod cancellations;
mod contracts;
mod due;
mod expiry;
mod folding;
mod grants;
mod holds;
mod levels;
mod limits;
mod memory;
mod order;
mod plan_changes;
mod prices;
mod properties;
mod renewals;
mod reversals;
mod stored;
mod warnings;

use book::{Book, play, play_warned, play_with, when};
