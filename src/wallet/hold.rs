//! Holds: credits reserved by jobs that run.
//!
//! **Invariant:** sorted by deadline, then job, then asset; one hold per job and asset; each holds something.

use compact_str::CompactString;
use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// Credits reserved by a job, or by one asset of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Hold {
    /// When it ends by itself.
    pub deadline: Timestamp,
    /// The job.
    pub job_id: CompactString,
    /// The asset; empty: the whole job.
    pub asset_id: CompactString,
    /// Credits still held.
    pub credits: i64,
}

/// The open holds of a wallet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holds(Vec<Hold>);

impl Holds {
    /// All of them, the first to time out first.
    pub fn iter(&self) -> std::slice::Iter<'_, Hold> {
        self.0.iter()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The hold of a job (`asset_id` empty) or of one of its assets.
    pub fn get(&self, job_id: &str, asset_id: &str) -> Option<&Hold> {
        self.0.iter().find(|hold| *hold.job_id == *job_id && *hold.asset_id == *asset_id)
    }

    /// All holds of a job and its assets.
    pub fn of_job(&self, job_id: &str) -> impl Iterator<Item = &Hold> {
        self.0.iter().filter(move |hold| *hold.job_id == *job_id)
    }

    /// Adds a hold.
    pub fn insert(&mut self, hold: Hold) {
        let place = self.0.partition_point(|other| *other < hold);
        self.0.insert(place, hold);
    }

    /// Takes credits off a hold, and the hold away when none are left. What is left, or `None` where there is no
    /// such hold or it holds less.
    pub fn release(&mut self, job_id: &str, asset_id: &str, credits: i64) -> Option<i64> {
        let place = self.0.iter().position(|hold| *hold.job_id == *job_id && *hold.asset_id == *asset_id)?;
        let hold = self.0.get_mut(place)?;
        let left = hold.credits.checked_sub(credits).filter(|left| *left >= 0)?;
        hold.credits = left;
        if left == 0 {
            self.0.remove(place);
        }
        Some(left)
    }

    /// Credits held by all of them.
    pub fn sum(&self) -> i64 {
        self.0.iter().map(|hold| hold.credits).fold(0, i64::saturating_add)
    }
}
