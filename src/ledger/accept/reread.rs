//! Books of records that are read again. Pure.
//!
//! **Invariant:** what `verify` holds against the books stays equal. Their posted records are those that the ledger has;
//! `outcomes` alone counts each record up to the position once; what was quarantined stands twice in the quarantine once it
//! is read again, and so it does in the books; what is handed over again is skipped by its shard, and counts once.

use super::super::books::{Books, Outcome};

/// Outcomes that leave nothing in the ledger, but for [`Outcome::HandedOver`].
const LEAVE_NOTHING: [Outcome; 3] = [Outcome::Quarantined, Outcome::Duplicate, Outcome::Free];

/// Where a source's records must be read again, and what is known of them.
pub struct Again {
    /// Of all its records, those that the ledger still has.
    pub found: Books,
    /// Records up to the new position.
    pub kept: u64,
    /// Records after it that were handed over, and will be again.
    pub handed_over: u64,
}

/// The books `(outcomes, earlier)` once the position has gone back; `None`: the ledger has more than they say.
pub fn books_after(outcomes: &Books, earlier: &Books, again: &Again) -> Option<(Books, Books)> {
    let (mut now, mut before) = (Books::default(), *earlier);
    let mut room = again.kept;
    let mut keep = |outcome: Outcome, count: u64, now: &mut Books| {
        let kept = count.min(room);
        room -= kept;
        now.set(outcome, kept);
        count - kept
    };
    for outcome in Outcome::POSTED {
        let found = again.found.get(outcome);
        if found > outcomes.get(outcome) + earlier.get(outcome) {
            return None;
        }
        // Those of earlier topics came first.
        let of_earlier = found.min(earlier.get(outcome));
        let rest = keep(outcome, found - of_earlier, &mut now);
        before.set(outcome, of_earlier + rest);
    }
    let handed_over = outcomes.get(Outcome::HandedOver).saturating_sub(again.handed_over);
    keep(Outcome::HandedOver, handed_over, &mut now);
    for outcome in LEAVE_NOTHING {
        let rest = keep(outcome, outcomes.get(outcome), &mut now);
        before.set(outcome, earlier.get(outcome) + rest);
    }
    now.set(Outcome::Skipped, outcomes.get(Outcome::Skipped));
    Some((now, before))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn books(counts: &[(Outcome, u64)]) -> Books {
        let mut books = Books::default();
        counts.iter().for_each(|(outcome, count)| books.set(*outcome, *count));
        books
    }

    #[test]
    fn books_of_records_that_are_read_again_count_each_of_them_once() {
        use Outcome::{Charged, Duplicate, Free, HandedOver, Noted, Quarantined, Skipped};
        let outcomes = books(&[
            (Charged, 50),
            (Noted, 5),
            (HandedOver, 10),
            (Quarantined, 4),
            (Duplicate, 6),
            (Free, 5),
            (Skipped, 9),
        ]);
        // 80 records were read; the ledger has 30 of the 55 that were posted, the last of them is record 45.
        let again = Again { found: books(&[(Charged, 27), (Noted, 3)]), kept: 45, handed_over: 4 };
        let (now, before) = books_after(&outcomes, &Books::default(), &again).unwrap();
        assert_eq!((now.read_once(), now.posted() + before.posted()), (45, 30));
        assert_eq!((now.get(HandedOver), before.get(HandedOver)), (6, 0));
        assert_eq!(now.get(Quarantined) + before.get(Quarantined), 4);
        assert_eq!(now.get(Skipped), 9);
        // All of it is read again.
        let again = Again { found: books(&[]), kept: 0, handed_over: 10 };
        let (now, before) = books_after(&outcomes, &Books::default(), &again).unwrap();
        assert_eq!((now.read_once(), before.posted(), before.get(Quarantined)), (0, 0, 4));
        // Of an earlier topic everything is there, of this one nothing.
        let again = Again { found: books(&[(Charged, 7)]), kept: 0, handed_over: 10 };
        let (now, before) = books_after(&outcomes, &books(&[(Charged, 7)]), &again).unwrap();
        assert_eq!((now.read_once(), before.posted()), (0, 7));
        // More than was ever counted.
        let again = Again { found: books(&[(Noted, 6)]), kept: 45, handed_over: 0 };
        assert!(books_after(&outcomes, &Books::default(), &again).is_none());
    }
}
