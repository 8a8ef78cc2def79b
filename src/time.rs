//! Owns points in time: milliseconds since the Unix epoch, UTC, and their RFC 3339 spelling.
//!
//! Three clocks exist and their readings have types of their own, so that they cannot be mixed up:
//! [`EventTime`] (when something happened, as its producer says), [`PostedAt`] (when the ledger wrote it) and
//! [`ShardClock`] (how far a shard's sources have come). Nothing here reads a clock but [`Timestamp::now`].

use std::cell::Cell;
use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use chrono::{DateTime, Datelike, NaiveDate, Timelike, Utc};
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
    /// After everything.
    pub const MAX: Timestamp = Timestamp(i64::MAX);

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

    /// Reads an RFC 3339 date-time with an offset; what is finer than a millisecond is cut off. `T` stands between date
    /// and time, and a minute has 60 seconds: leap seconds are smeared by those who keep time for computers.
    pub fn parse(text: &str) -> Option<Timestamp> {
        if let Some(usual) = parse_usual(text) {
            return Some(usual);
        }
        let parsed = DateTime::parse_from_rfc3339(text).ok()?;
        if !matches!(text.as_bytes().get(10), Some(b'T' | b't')) || parsed.nanosecond() >= 1_000_000_000 {
            return None;
        }
        let year = parsed.with_timezone(&Utc).year();
        (0..=9999).contains(&year).then(|| Timestamp(parsed.timestamp_millis()))
    }

    /// This many milliseconds later (or earlier), kept inside what can be represented.
    pub const fn plus_millis(self, millis: i64) -> Timestamp {
        Timestamp(self.0.saturating_add(millis))
    }

    /// `months` calendar months later, clipped to the month's length: 31 Jan + 1 = 28 or 29 Feb.
    pub fn plus_months(self, months: u32) -> Option<Timestamp> {
        let (year, month, day) = civil_from_days(self.day_number());
        let months_since_zero = year * 12 + (month - 1) + i64::from(months);
        let (year, month) = (months_since_zero.div_euclid(12), months_since_zero.rem_euclid(12) + 1);
        let mut days = days_from_civil(year, month, 1) + day - 1;
        // Every month has 28.
        if day > 28 {
            days = days.min(days_from_civil(year + month / 12, month % 12 + 1, 1) - 1);
        }
        let later = Timestamp(days * DAY_MS + self.0.rem_euclid(DAY_MS));
        (0..=9999).contains(&year).then_some(later)
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

    /// The UTC day as it is kept in stores; what is out of reach becomes the first or last that can be.
    pub fn day(self) -> i32 {
        let day = self.day_number();
        i32::try_from(day).unwrap_or(if day < 0 { i32::MIN } else { i32::MAX })
    }

    /// As chrono has it; `None` for what it cannot represent.
    pub fn date_time(self) -> Option<DateTime<Utc>> {
        DateTime::from_timestamp_millis(self.0)
    }

    /// RFC 3339 in UTC with milliseconds, 24 bytes; `None` outside the years 0 to 9999. Written by hand: it stands
    /// three times in every entry, and chrono's formatter takes longer than the rest of the entry.
    fn rfc3339(self) -> Option<[u8; 24]> {
        let [y1, y2, y3, y4, _, m1, m2, _, d1, d2] = spelt_date(self.day_number())?;
        // It fits into 32 bits, whose divisions are cheaper than those of 64.
        let of_day = self.0.rem_euclid(DAY_MS) as u32;
        let (seconds, millis) = (of_day / 1_000, of_day % 1_000);
        let ([h1, h2], [i1, i2]) = (two_digits(seconds / 3_600), two_digits(seconds / 60 % 60));
        let ([s1, s2], [_, f1]) = (two_digits(seconds % 60), two_digits(millis / 100));
        let [f2, f3] = two_digits(millis % 100);
        Some([
            y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2, b'T', h1, h2, b':', i1, i2, b':', s1, s2, b'.', f1,
            f2, f3, b'Z',
        ])
    }

    /// Appends its RFC 3339 spelling. What has none (it never comes from an event) is written as the epoch.
    pub fn write_to(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.rfc3339().unwrap_or(*b"1970-01-01T00:00:00.000Z"));
    }
}

/// Appends a day as `2026-11-03`.
pub fn write_date(date: NaiveDate, out: &mut Vec<u8>) {
    let Some(year) = u32::try_from(date.year()).ok().filter(|year| *year <= 9999) else {
        use std::io::Write;
        // Writing into a Vec cannot fail.
        let _ = write!(out, "{date}");
        return;
    };
    let ([y1, y2], [y3, y4]) = (two_digits(year / 100), two_digits(year % 100));
    let ([m1, m2], [d1, d2]) = (two_digits(date.month()), two_digits(date.day()));
    out.extend_from_slice(&[y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2]);
}

/// Days whose spelling is kept, by thread. Every entry spells several times, nearly all of a few days.
const SPELT_DAYS: usize = 16;

/// A day as `2026-11-03`; `None` outside the years 0 to 9999.
fn spelt_date(day: i64) -> Option<[u8; 10]> {
    thread_local! {
        static SPELT: [Cell<(i64, [u8; 10])>; SPELT_DAYS] =
            const { [const { Cell::new((i64::MIN, [0; 10])) }; SPELT_DAYS] };
    }
    SPELT.with(|spelt| {
        let place = spelt.get(day.rem_euclid(SPELT_DAYS as i64) as usize)?;
        let (known, date) = place.get();
        if known == day {
            return Some(date);
        }
        let (year, month, of_month) = civil_from_days(day);
        let year = u32::try_from(year).ok().filter(|year| *year <= 9999)?;
        let ([y1, y2], [y3, y4]) = (two_digits(year / 100), two_digits(year % 100));
        let ([m1, m2], [d1, d2]) = (two_digits(month as u32), two_digits(of_month as u32));
        let date = [y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2];
        place.set((day, date));
        Some(date)
    })
}

/// Two digits of each value from 0 to 99: looking them up takes half as long as dividing.
// Looked up while it is compiled.
#[allow(clippy::indexing_slicing)]
const TWO_DIGITS: [[u8; 2]; 100] = {
    let mut all = [[0; 2]; 100];
    let mut value = 0;
    while value < 100 {
        all[value] = [b'0' + (value / 10) as u8, b'0' + (value % 10) as u8];
        value += 1;
    }
    all
};

/// A value from 0 to 99, as digits.
fn two_digits(value: u32) -> [u8; 2] {
    TWO_DIGITS.get(value as usize).copied().unwrap_or(*b"00")
}

/// Year, month and day of a day since the epoch, in the proleptic Gregorian calendar: years are counted from March,
/// so that the leap day is the last of its year, in eras of 400 years.
const fn civil_from_days(days: i64) -> (i64, i64, i64) {
    const ERA_DAYS: i64 = 146_097;
    let shifted = days + 719_468;
    let era = shifted.div_euclid(ERA_DAYS);
    // What is inside an era is small, and dividing 32 bits is cheaper than 64.
    let day_of_era = shifted.rem_euclid(ERA_DAYS) as u32;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era as i64 + era * 400 + (month <= 2) as i64;
    (year, month as i64, day as i64)
}

/// Days since the epoch of a day that exists; the inverse of [`civil_from_days`].
const fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = year - (month <= 2) as i64;
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let month_from_march = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// The spelling that nearly all producers use, `2026-11-03T10:15:30[.fraction]Z`; `None` for every other one, right
/// or wrong.
fn parse_usual(text: &str) -> Option<Timestamp> {
    let bytes = text.as_bytes();
    let (date_time, rest) = bytes.split_first_chunk::<19>()?;
    let [y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2, b'T', h1, h2, b':', i1, i2, b':', s1, s2] = date_time
    else {
        return None;
    };
    let digits = [y1, y2, y3, y4, m1, m2, d1, d2, h1, h2, i1, i2, s1, s2];
    if !digits.iter().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let two = |tens: &u8, ones: &u8| i64::from(tens - b'0') * 10 + i64::from(ones - b'0');
    let fraction = rest.strip_suffix(b"Z")?;
    let millis = match fraction {
        [] => 0,
        [b'.', a, b, c, ..] if fraction.len() <= 10 && fraction.iter().skip(1).all(u8::is_ascii_digit) => {
            i64::from(a - b'0') * 100 + i64::from(b - b'0') * 10 + i64::from(c - b'0')
        }
        _ => return None,
    };
    let (year, month, day) = (two(y1, y2) * 100 + two(y3, y4), two(m1, m2), two(d1, d2));
    let (hour, minute, second) = (two(h1, h2), two(i1, i2), two(s1, s2));
    let days_of_month = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => return None,
    };
    let is_real = (1..=days_of_month).contains(&day) && hour < 24 && minute < 60 && second < 60;
    let days = days_from_civil(year, month, day);
    is_real.then(|| Timestamp(days * DAY_MS + hour * HOUR_MS + minute * 60_000 + second * 1_000 + millis))
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
        if !serializer.is_human_readable() {
            return serializer.serialize_i64(self.0);
        }
        let text = self.rfc3339().ok_or_else(|| serde::ser::Error::custom("time out of range"))?;
        serializer.serialize_str(std::str::from_utf8(&text).map_err(serde::ser::Error::custom)?)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if !deserializer.is_human_readable() {
            return i64::deserialize(deserializer).map(Timestamp);
        }
        struct Rfc3339;
        impl serde::de::Visitor<'_> for Rfc3339 {
            type Value = Timestamp;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an RFC 3339 date-time with an offset")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Timestamp, E> {
                Timestamp::parse(text)
                    .ok_or_else(|| E::invalid_value(serde::de::Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_str(Rfc3339)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
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
    fn our_own_calendar_agrees_with_chronos() {
        for text in [
            "2026-02-29T00:00:00Z",
            "2026-04-31T00:00:00Z",
            "2026-00-01T00:00:00Z",
            "2026-01-01T24:00:00Z",
            "2026-01-01T00:60:00Z",
            "2026-01-01T07:59:60Z",
            "2026-12-31T23:59:60Z",
            "2026-12-31T23:59:60.5Z",
            "2026-01-01 00:00:00Z",
            "2026-01-01 00:00:00+01:00",
        ] {
            assert_eq!(Timestamp::parse(text), None, "{text}");
        }
        // Every day of the years 1600 to 2400, and the ends of what can be spelt.
        let days = (-135_140..157_000).chain([-719_528, 2_932_896]);
        for day in days {
            let at = Timestamp::from_millis(day * DAY_MS + 45_296_789);
            let expected = at.date_time().unwrap().format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string();
            assert_eq!(at.to_string(), expected);
            assert_eq!(parse_usual(&expected), Some(at), "{expected}");
            let mut date = Vec::new();
            write_date(at.date().unwrap(), &mut date);
            assert_eq!(date, &expected.as_bytes()[..10]);
        }
        assert_eq!(
            Timestamp::parse("2026-11-03T10:15:30.1Z").unwrap().millis() % 1_000,
            100,
            "chrono reads what is unusual"
        );
    }

    #[test]
    fn months_are_counted_from_the_first_day_and_clipped() {
        let anchor = Timestamp::parse("2027-01-31T08:00:00Z").unwrap();
        let month = |n| anchor.plus_months(n).unwrap().to_string();
        assert_eq!(month(1), "2027-02-28T08:00:00.000Z");
        assert_eq!(month(2), "2027-03-31T08:00:00.000Z");
        assert_eq!(month(13), "2028-02-29T08:00:00.000Z");
        for months in 0..200 {
            let expected =
                anchor.date_time().unwrap().checked_add_months(chrono::Months::new(months)).unwrap();
            assert_eq!(anchor.plus_months(months).unwrap().millis(), expected.timestamp_millis());
        }
    }
}
