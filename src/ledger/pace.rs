//! How many records a batch may have, so that neither computing nor committing it takes too long.
//!
//! Both are learnt from the batches before, and the slower one bounds. Must not: blame a batch; one that fails is halved
//! elsewhere.

use std::time::Duration;

/// Computing a batch: what comes behind it waits.
const COMPUTED_WITHIN: Duration = Duration::from_millis(500);
/// Committing it may take one in so many of the transaction's timeout.
const TIMEOUT_PARTS: u32 = 4;
/// Records of the first batch.
const FIRST: usize = 20_000;
/// Batches of fewer records say little about how fast all of this is.
const MEASURED_MIN: usize = 1_000;

/// What was learnt.
#[derive(Debug)]
pub struct Pace {
    commit_within: Duration,
    /// Records that can be computed in time.
    computed: usize,
    /// Records that can be committed in time.
    committed: usize,
}

impl Pace {
    /// Nothing yet.
    pub fn new(transaction_timeout: Duration) -> Pace {
        Pace { commit_within: transaction_timeout / TIMEOUT_PARTS, computed: FIRST, committed: FIRST }
    }

    /// Most records of the next batch.
    pub fn records_max(&self) -> usize {
        self.computed.min(self.committed)
    }

    /// So many records were computed in that time.
    pub fn computed(&mut self, records: usize, took: Duration) {
        self.computed = learn(self.computed, records, took, COMPUTED_WITHIN);
    }

    /// So many records were committed in that time.
    pub fn committed(&mut self, records: usize, took: Duration) {
        self.committed = learn(self.committed, records, took, self.commit_within);
    }
}

/// The bound at most doubles: records that cost nothing, duplicates say, tell nothing about those that come next.
fn learn(known: usize, records: usize, took: Duration, within: Duration) -> usize {
    if records < MEASURED_MIN {
        return known;
    }
    let in_time = (records as u128 * within.as_nanos()).checked_div(took.as_nanos());
    let in_time = in_time.and_then(|in_time| usize::try_from(in_time).ok()).unwrap_or(usize::MAX);
    in_time.clamp(MEASURED_MIN, known.saturating_mul(2).max(MEASURED_MIN))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_batch_is_as_large_as_is_computed_in_half_a_second() {
        let mut pace = Pace::new(millis(10_000));
        pace.committed = usize::MAX;
        assert_eq!(pace.records_max(), FIRST);
        pace.computed(20_000, millis(250));
        assert_eq!(pace.records_max(), 40_000);
        pace.computed(40_000, millis(1));
        assert_eq!(pace.records_max(), 80_000, "not 20 millions: these were cheap, the next may not be");
        pace.computed(80_000, millis(2_000));
        assert_eq!(pace.records_max(), 20_000, "too long: fewer");
        pace.computed(999, millis(60_000));
        assert_eq!(pace.records_max(), 20_000, "a hiccup of a small batch says nothing");
        pace.computed(20_000, millis(600_000));
        assert_eq!(pace.records_max(), MEASURED_MIN, "never so few that nothing more would be learnt");
        pace.computed(1_000, Duration::ZERO);
        assert_eq!(pace.records_max(), 2_000);
    }

    #[test]
    fn a_batch_is_as_large_as_is_committed_in_a_quarter_of_the_timeout() {
        let mut pace = Pace::new(millis(10_000));
        pace.computed(20_000, millis(1));
        pace.committed(20_000, millis(1_250));
        assert_eq!(pace.records_max(), 40_000);
        pace.committed(40_000, millis(5_000));
        assert_eq!(pace.records_max(), 20_000, "half the way to the timeout is too near");
    }
}
