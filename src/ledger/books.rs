//! What became of records: exactly one outcome each, counted per partition.

use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What became of a record. Exactly one for every record read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Usage was debited.
    Charged,
    /// Usage would have gone past the overdraft limit.
    Refused,
    /// Credits were reserved.
    Held,
    /// A reservation ended.
    Released,
    /// A charge was given back.
    Reversed,
    /// Accepted and remembered, nothing else.
    Noted,
    /// A top-up.
    Granted,
    /// A contract began or changed.
    Contract,
    /// A person changed the balance.
    Adjusted,
    /// A wallet's limits changed.
    Limits,
    /// A type that costs nothing.
    Free,
    /// Seen before with the same content.
    Duplicate,
    /// At or below the last offset processed: read again after a reset of the group.
    Skipped,
    /// Could not be applied.
    Quarantined,
    /// Sent on to the shard that owns its wallet; counted again there.
    HandedOver,
}

/// Number of outcomes.
const OUTCOMES: usize = 15;

impl Outcome {
    /// All outcomes.
    pub const ALL: [Outcome; OUTCOMES] = [
        Outcome::Charged,
        Outcome::Refused,
        Outcome::Held,
        Outcome::Released,
        Outcome::Reversed,
        Outcome::Noted,
        Outcome::Granted,
        Outcome::Contract,
        Outcome::Adjusted,
        Outcome::Limits,
        Outcome::Free,
        Outcome::Duplicate,
        Outcome::Skipped,
        Outcome::Quarantined,
        Outcome::HandedOver,
    ];

    /// Outcomes that write a record to the ledger.
    pub const POSTED: [Outcome; 10] = [
        Outcome::Charged,
        Outcome::Refused,
        Outcome::Held,
        Outcome::Released,
        Outcome::Reversed,
        Outcome::Noted,
        Outcome::Granted,
        Outcome::Contract,
        Outcome::Adjusted,
        Outcome::Limits,
    ];

    /// The name in metrics and books.
    pub const fn as_str(self) -> &'static str {
        match self {
            Outcome::Charged => "charged",
            Outcome::Refused => "refused",
            Outcome::Held => "held",
            Outcome::Released => "released",
            Outcome::Reversed => "reversed",
            Outcome::Noted => "noted",
            Outcome::Granted => "granted",
            Outcome::Contract => "contract",
            Outcome::Adjusted => "adjusted",
            Outcome::Limits => "limits",
            Outcome::Free => "free",
            Outcome::Duplicate => "duplicate",
            Outcome::Skipped => "skipped",
            Outcome::Quarantined => "quarantined",
            Outcome::HandedOver => "handed_over",
        }
    }
}

/// Records by outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Books([u64; OUTCOMES]);

impl Books {
    /// One more.
    pub fn count(&mut self, outcome: Outcome) {
        if let Some(count) = self.0.get_mut(outcome as usize) {
            *count += 1;
        }
    }

    /// How many of an outcome.
    pub fn get(&self, outcome: Outcome) -> u64 {
        self.0.get(outcome as usize).copied().unwrap_or_default()
    }

    /// Whether nothing was counted.
    pub fn is_empty(&self) -> bool {
        *self == Books::default()
    }

    /// Counts so many of an outcome, whatever was counted before.
    pub fn set(&mut self, outcome: Outcome, count: u64) {
        if let Some(place) = self.0.get_mut(outcome as usize) {
            *place = count;
        }
    }

    /// Records that were read once: all but those that were read again after a reset of the group.
    pub fn read_once(&self) -> u64 {
        self.0.iter().sum::<u64>() - self.get(Outcome::Skipped)
    }

    /// Records that an entry was written for.
    pub fn posted(&self) -> u64 {
        Outcome::POSTED.iter().map(|outcome| self.get(*outcome)).sum()
    }

    /// Adds other books.
    pub fn add(&mut self, other: &Books) {
        for (count, more) in self.0.iter_mut().zip(other.0) {
            *count += more;
        }
    }
}

impl Serialize for Books {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for outcome in Outcome::ALL {
            if self.get(outcome) > 0 {
                map.serialize_entry(outcome.as_str(), &self.get(outcome))?;
            }
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Books {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let counts = std::collections::BTreeMap::<String, u64>::deserialize(deserializer)?;
        let mut books = Books::default();
        for (name, count) in counts {
            let outcome = Outcome::ALL.into_iter().find(|outcome| outcome.as_str() == name);
            let outcome =
                outcome.ok_or_else(|| serde::de::Error::custom(format!("{name:?} is no outcome")))?;
            if let Some(place) = books.0.get_mut(outcome as usize) {
                *place = count;
            }
        }
        Ok(books)
    }
}
