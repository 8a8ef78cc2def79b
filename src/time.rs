//! Owns points in time: milliseconds since the Unix epoch, UTC, and their RFC 3339 spelling.
//!
//! Three clocks exist and their readings have types of their own, so that they cannot be mixed up:
//! [`EventTime`] (when something happened, as its producer says), [`PostedAt`] (when the ledger wrote it) and
//! [`ShardClock`] (how far a shard's sources have come). Nothing here reads a clock but [`Timestamp::now`].

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use chrono::{DateTime, Datelike, Months, NaiveDate, Timelike, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Milliseconds in a day.
pub const DAY_MS: i64 = 86_400_000;
/// Milliseconds in an hour.
pub const HOUR_MS: i64 = 3_600_000;

/// A point in time: milliseconds since the Unix epoch, UTC. Years 0 to 9999.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(i64);

/// When something happened, by the event's `time`, cut to the millisecond.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct EventTime(pub Timestamp);

/// When the ledger wrote a posting, by the wall clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PostedAt(pub Timestamp);

/// How far the sources of a shard have come, in event time. Never goes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ShardClock(pub Timestamp);

impl Timestamp {
    /// Before everything.
    pub const MIN: Timestamp = Timestamp(i64::MIN);

    /// From milliseconds since the Unix epoch.
    pub const fn from_millis(millis: i64) -> Timestamp {
        Timestamp(millis)
    }

    /// Milliseconds since the Unix epoch.
    pub const fn millis(self) -> i64 {
        self.0
    }

    /// The wall clock.
    pub fn now() -> Timestamp {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
    }

    /// Reads an RFC 3339 date-time with an offset; what is finer than a millisecond is cut off.
    pub fn parse(text: &str) -> Option<Timestamp> {
        let parsed = DateTime::parse_from_rfc3339(text).ok()?;
        let year = parsed.with_timezone(&Utc).year();
        (0..=9999).contains(&year).then(|| Timestamp(parsed.timestamp_millis()))
    }

    /// This many milliseconds later (or earlier), kept inside what can be represented.
    pub const fn plus_millis(self, millis: i64) -> Timestamp {
        Timestamp(self.0.saturating_add(millis))
    }

    /// `months` calendar months later, clipped to the month's length: 31 Jan + 1 = 28 or 29 Feb.
    pub fn plus_months(self, months: u32) -> Option<Timestamp> {
        let later = self.date_time()?.checked_add_months(Months::new(months))?;
        Some(Timestamp(later.timestamp_millis()))
    }

    /// The UTC day.
    pub fn date(self) -> Option<NaiveDate> {
        Some(self.date_time()?.date_naive())
    }

    /// Start of the UTC hour.
    pub const fn hour(self) -> Timestamp {
        Timestamp(self.0 - self.0.rem_euclid(HOUR_MS))
    }

    /// Days since the Unix epoch.
    pub const fn day_number(self) -> i64 {
        self.0.div_euclid(DAY_MS)
    }

    /// As chrono has it; `None` for what it cannot represent.
    pub fn date_time(self) -> Option<DateTime<Utc>> {
        DateTime::from_timestamp_millis(self.0)
    }

    /// RFC 3339 in UTC with milliseconds, 24 bytes. Written by hand: it stands three times in every entry,
    /// and chrono's formatter takes longer than the rest of the entry.
    fn rfc3339(self) -> Option<[u8; 24]> {
        let at = self.date_time()?;
        let year = u32::try_from(at.year()).ok().filter(|year| *year <= 9999)?;
        let mut text = *b"0000-00-00T00:00:00.000Z";
        let mut put = |from: usize, digits: usize, mut value: u32| {
            for place in text.iter_mut().skip(from).take(digits).rev() {
                *place = b'0' + (value % 10) as u8;
                value /= 10;
            }
        };
        put(0, 4, year);
        put(5, 2, at.month());
        put(8, 2, at.day());
        put(11, 2, at.hour());
        put(14, 2, at.minute());
        put(17, 2, at.second());
        put(20, 3, at.timestamp_subsec_millis());
        Some(text)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.rfc3339() {
            Some(text) => f.write_str(std::str::from_utf8(&text).map_err(|_| fmt::Error)?),
            None => write!(f, "{} ms since the epoch", self.0),
        }
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text = self.rfc3339().ok_or_else(|| serde::ser::Error::custom("time out of range"))?;
        serializer.serialize_str(std::str::from_utf8(&text).map_err(serde::ser::Error::custom)?)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Rfc3339;
        impl serde::de::Visitor<'_> for Rfc3339 {
            type Value = Timestamp;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an RFC 3339 date-time with an offset")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Timestamp, E> {
                Timestamp::parse(text).ok_or_else(|| E::invalid_value(serde::de::Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_str(Rfc3339)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn spelling_round_trips_and_cuts_to_the_millisecond() {
        let at = Timestamp::parse("2026-11-03T11:15:30.123999+01:00").unwrap();
        assert_eq!(at.to_string(), "2026-11-03T10:15:30.123Z");
        assert_eq!(Timestamp::parse(&at.to_string()), Some(at));
        assert_eq!(serde_json::to_string(&at).unwrap(), "\"2026-11-03T10:15:30.123Z\"");
    }

    #[test]
    fn dates_without_an_offset_are_refused() {
        for text in ["2026-11-03T10:15:30", "2026-11-03", "", "yesterday", "2026-13-01T00:00:00Z"] {
            assert_eq!(Timestamp::parse(text), None, "{text}");
        }
    }

    #[test]
    fn months_are_counted_from_the_first_day_and_clipped() {
        let anchor = Timestamp::parse("2027-01-31T08:00:00Z").unwrap();
        let month = |n| anchor.plus_months(n).unwrap().to_string();
        assert_eq!(month(1), "2027-02-28T08:00:00.000Z");
        assert_eq!(month(2), "2027-03-31T08:00:00.000Z");
        assert_eq!(month(13), "2028-02-29T08:00:00.000Z");
    }
}
