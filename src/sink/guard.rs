//! The fold guard: an entry counts only if its seq is its wallet's last + 1.
//!
//! Owns: for each wallet that was met since the partitions were assigned, the last seq that counted. Kafka
//! transactions through librdkafka are not watertight: an entry can stand in the ledger twice, and then only
//! the first one counts. The sink also reads records again after a restart; those are written again into
//! all tables (a crash may have hit between two of them), which is harmless, for every table is an upsert.
//!
//! **Invariant:** per wallet, what counts is without gap. Pure: what ClickHouse holds is asked for by the
//! caller, of all wallets at once ([`FoldGuard::learn_all`]) or once per wallet ([`FoldGuard::learn`]). Of the
//! last batch every wallet is remembered: what it wrote may still be under way, and asking would tell of less. Must not
//! remember more than [`WALLETS_MAX`] wallets and those of a batch.

use std::mem;

use hashbrown::HashMap;
use thiserror::Error;

/// Most wallets that are remembered, about 100 bytes each. Beyond, those longest not met are forgotten and asked for again.
const WALLETS_MAX: usize = 500_000;
/// Most wallets that may be learnt at once, so that the first ones met are not forgotten for them.
pub const WALLETS_AT_ONCE_MAX: usize = WALLETS_MAX / 2;

/// The last entry of a wallet that ClickHouse holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its seq.
    pub seq: u64,
    /// Its offset in the ledger.
    pub ledger_offset: i64,
}

/// Whether an entry is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is the next one, or it is read again.
    Counts,
    /// It stands in the ledger twice: passed over.
    Double,
}

/// The ledger contradicts itself, or what ClickHouse holds.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum Contradiction {
    /// Entries are missing.
    #[error(
        "wallet {wallet_id:?}: expected entry {expected}, came {seq}: entries between them are missing from the ledger topic or from ClickHouse; compare the two, then let the sink read the ledger from its beginning"
    )]
    Gap {
        /// The wallet.
        wallet_id: String,
        /// The seq that should have come.
        expected: u64,
        /// The seq that came.
        seq: u64,
    },
    /// A later entry stands before an earlier one.
    #[error(
        "wallet {wallet_id:?}: entry {seq} stands at offset {offset}, but ClickHouse holds entry {stored_seq} from offset {stored_offset}: the ledger topic is not the one that ClickHouse was filled from"
    )]
    OtherLedger {
        /// The wallet.
        wallet_id: String,
        /// The seq that came.
        seq: u64,
        /// Its offset.
        offset: i64,
        /// The last seq in ClickHouse.
        stored_seq: u64,
        /// Its offset.
        stored_offset: i64,
    },
}

#[derive(Clone, Copy, Debug)]
enum Position {
    /// Met, but no entry read yet.
    Learnt(Option<Stored>),
    /// The last entry read.
    At(u64),
}

/// What is known of the wallets met so far.
#[derive(Debug, Default)]
pub struct FoldGuard {
    /// Wallets met of late …
    recent: HashMap<Box<str>, Position>,
    /// … and before, and not since.
    older: HashMap<Box<str>, Position>,
    /// Every wallet that ClickHouse holds is among them.
    is_complete: bool,
}

impl FoldGuard {
    /// Whether nothing needs to be asked about this wallet before its entries are checked.
    pub fn has_met(&self, wallet_id: &str) -> bool {
        self.is_complete || self.recent.contains_key(wallet_id) || self.older.contains_key(wallet_id)
    }

    /// Takes in what ClickHouse holds of a wallet; `None`: nothing.
    pub fn learn(&mut self, wallet_id: &str, stored: Option<Stored>) {
        self.recent.insert(wallet_id.into(), Position::Learnt(stored));
    }

    /// Takes in the last entries of all wallets that ClickHouse holds any of.
    pub fn learn_all(&mut self, stored: impl IntoIterator<Item = (String, Stored)>) {
        let learnt =
            stored.into_iter().map(|(wallet_id, stored)| (wallet_id.into(), Position::Learnt(Some(stored))));
        self.recent.extend(learnt);
        self.is_complete = true;
    }

    /// Forgets everything: the partitions were assigned anew, and are read again from the committed offsets.
    pub fn clear(&mut self) {
        *self = FoldGuard::default();
    }

    /// Makes room between two batches.
    pub fn bound(&mut self) {
        if self.recent.len() > WALLETS_MAX / 2 {
            let forgotten = mem::replace(&mut self.older, mem::take(&mut self.recent));
            self.is_complete &= forgotten.is_empty();
        }
    }

    /// Judges the next entry of a wallet. A wallet never learnt has nothing in ClickHouse: its entries must
    /// begin at 1, which needs no asking.
    ///
    /// # Errors
    /// Where entries are missing, or stand in another order than before.
    pub fn check(&mut self, wallet_id: &str, seq: u64, offset: i64) -> Result<Verdict, Contradiction> {
        let position = match self.recent.get_mut(wallet_id) {
            Some(position) => position,
            None => {
                let of_before = self.older.remove(wallet_id).unwrap_or(Position::Learnt(None));
                self.recent.entry(wallet_id.into()).or_insert(of_before)
            }
        };
        let (verdict, last_seq) = match *position {
            Position::Learnt(None) => next(wallet_id, 0, seq)?,
            Position::Learnt(Some(stored)) => resume(wallet_id, stored, seq, offset)?,
            Position::At(last_seq) => next(wallet_id, last_seq, seq)?,
        };
        *position = Position::At(last_seq);
        Ok(verdict)
    }
}

/// The rule: the last + 1 counts, at or below it is a double, beyond is a gap.
fn next(wallet_id: &str, last_seq: u64, seq: u64) -> Result<(Verdict, u64), Contradiction> {
    if seq <= last_seq {
        return Ok((Verdict::Double, last_seq));
    }
    let expected = last_seq.saturating_add(1);
    if seq > expected {
        return Err(Contradiction::Gap { wallet_id: wallet_id.to_owned(), expected, seq });
    }
    Ok((Verdict::Counts, seq))
}

/// The first entry of a wallet since the assignment. What ClickHouse holds already is read again if it stands
/// no later than the last entry that it holds, else it is a double.
fn resume(wallet_id: &str, stored: Stored, seq: u64, offset: i64) -> Result<(Verdict, u64), Contradiction> {
    if offset > stored.ledger_offset {
        return next(wallet_id, stored.seq, seq);
    }
    if seq > stored.seq {
        return Err(Contradiction::OtherLedger {
            wallet_id: wallet_id.to_owned(),
            seq,
            offset,
            stored_seq: stored.seq,
            stored_offset: stored.ledger_offset,
        });
    }
    Ok((Verdict::Counts, seq))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One entry and its expected verdict a line: seq, offset, verdict.
    fn run(stored: Option<Stored>, entries: &[(u64, i64, Verdict)]) -> FoldGuard {
        let mut guard = FoldGuard::default();
        if stored.is_some() {
            guard.learn("ws_1", stored);
        }
        for (seq, offset, verdict) in entries {
            assert_eq!(guard.check("ws_1", *seq, *offset), Ok(*verdict), "seq {seq} at {offset}");
        }
        guard
    }

    use Verdict::{Counts, Double};

    #[test]
    fn a_new_wallet_begins_at_1_and_a_second_copy_is_passed_over() {
        run(None, &[(1, 10, Counts), (2, 10, Counts), (2, 12, Double), (1, 13, Double), (3, 14, Counts)]);
    }

    #[test]
    fn after_a_restart_entries_are_written_again_but_their_doubles_are_not() {
        let stored = Some(Stored { seq: 6, ledger_offset: 30 });
        run(stored, &[(5, 10, Counts), (5, 20, Double), (6, 30, Counts), (7, 31, Counts)]);
        run(stored, &[(7, 31, Counts)]);
        run(stored, &[(6, 31, Double), (7, 32, Counts)]);
    }

    #[test]
    fn wallets_longest_not_met_are_forgotten_but_none_of_the_last_batch() {
        let mut guard = FoldGuard::default();
        let mut meet_half_and_more = |prefix: &str, seq| {
            for number in 0..=WALLETS_MAX / 2 {
                assert_eq!(guard.check(&format!("{prefix}{number}"), seq, 1), Ok(Counts));
            }
            assert!(guard.check("busy", seq, 1).is_ok());
            guard.bound();
            [guard.has_met("busy"), guard.has_met("a0"), guard.has_met("b0"), guard.has_met("c0")]
        };
        assert_eq!(meet_half_and_more("a", 1), [true, true, false, false]);
        assert_eq!(meet_half_and_more("a", 2), [true, true, false, false]);
        assert_eq!(meet_half_and_more("b", 1), [true, false, true, false]);
        assert_eq!(meet_half_and_more("c", 1), [true, false, false, true]);
        assert_eq!(guard.check("busy", 3, 2), Ok(Counts), "what was known of it is known");
    }

    #[test]
    fn once_all_wallets_are_learnt_none_needs_asking_until_one_was_forgotten() {
        let mut guard = FoldGuard::default();
        guard.learn_all([("ws_1".to_owned(), Stored { seq: 6, ledger_offset: 30 })]);
        assert!(guard.has_met("ws_1") && guard.has_met("not in ClickHouse"));
        assert_eq!(guard.check("ws_1", 7, 31), Ok(Counts));
        assert_eq!(guard.check("not in ClickHouse", 1, 32), Ok(Counts));
        let mut meet_half_and_more = |prefix: &str| {
            for number in 0..=WALLETS_MAX / 2 {
                assert_eq!(guard.check(&format!("{prefix}{number}"), 1, 1), Ok(Counts));
            }
            guard.bound();
            guard.has_met("never seen")
        };
        assert!(meet_half_and_more("a"), "ws_1 is older, not forgotten");
        assert!(!meet_half_and_more("b"), "ws_1 is forgotten, and may be the next one");
        guard.clear();
        assert!(!guard.has_met("ws_1"));
    }

    #[test]
    fn a_gap_is_a_contradiction() {
        let gap = |expected, seq| Err(Contradiction::Gap { wallet_id: "ws_1".to_owned(), expected, seq });
        assert_eq!(run(None, &[(1, 1, Counts)]).check("ws_1", 3, 2), gap(2, 3));
        assert_eq!(run(None, &[]).check("ws_1", 2, 2), gap(1, 2));
        let stored = Some(Stored { seq: 6, ledger_offset: 30 });
        assert_eq!(run(stored, &[]).check("ws_1", 8, 31), gap(7, 8));
        assert_eq!(run(stored, &[(4, 9, Counts)]).check("ws_1", 6, 10), gap(5, 6));
    }

    #[test]
    fn a_ledger_that_was_made_anew_is_a_contradiction() {
        let stored = Some(Stored { seq: 6, ledger_offset: 30 });
        let result = run(stored, &[]).check("ws_1", 7, 3);
        assert!(matches!(result, Err(Contradiction::OtherLedger { seq: 7, offset: 3, .. })), "{result:?}");
    }
}
