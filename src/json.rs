//! Writes JSON objects into a buffer: what the ledger stage writes for every event goes through here.
//!
//! Several times faster than a generic serializer, because names need no escaping and most texts do not either.
//! Everything that is written here can also be written by serde, and a test holds the two equal to the byte.

use chrono::NaiveDate;

use crate::time::{Timestamp, write_date};

/// An object under construction. What is absent, empty or 0 is the caller's to leave out.
pub struct ObjectWriter<'o> {
    out: &'o mut Vec<u8>,
    is_first: bool,
}

impl<'o> ObjectWriter<'o> {
    /// Opens an object.
    pub fn new(out: &'o mut Vec<u8>) -> ObjectWriter<'o> {
        out.push(b'{');
        ObjectWriter { out, is_first: true }
    }

    /// Closes it.
    pub fn end(self) {
        self.out.push(b'}');
    }

    /// Inlined into its callers, as they are into theirs: then the name's length is known, and writing it is a few moves
    /// instead of a call.
    #[inline(always)]
    fn name(&mut self, name: &'static str) {
        if self.is_first {
            self.is_first = false;
            self.out.push(b'"');
        } else {
            self.out.extend_from_slice(b",\"");
        }
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
    }

    /// A text.
    #[inline(always)]
    pub fn text(&mut self, name: &'static str, value: &str) {
        self.name(name);
        write_text(self.out, value);
    }

    /// A text, unless it is empty.
    #[inline(always)]
    pub fn text_if_any(&mut self, name: &'static str, value: &str) {
        if !value.is_empty() {
            self.text(name, value);
        }
    }

    /// A word of ours, which needs no escaping.
    #[inline(always)]
    pub fn word(&mut self, name: &'static str, value: &str) {
        self.name(name);
        self.out.push(b'"');
        self.out.extend_from_slice(value.as_bytes());
        self.out.push(b'"');
    }

    /// An integer.
    #[inline(always)]
    pub fn integer(&mut self, name: &'static str, value: impl itoa::Integer) {
        self.name(name);
        self.out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
    }

    /// An integer, unless it is 0.
    #[inline(always)]
    pub fn integer_if_any(&mut self, name: &'static str, value: i64) {
        if value != 0 {
            self.integer(name, value);
        }
    }

    /// `true`, unless it is false.
    pub fn flag_if_set(&mut self, name: &'static str, value: bool) {
        if value {
            self.name(name);
            self.out.extend_from_slice(b"true");
        }
    }

    /// A time as RFC 3339 text.
    #[inline(always)]
    pub fn time(&mut self, name: &'static str, value: Timestamp) {
        self.name(name);
        self.out.push(b'"');
        value.write_to(self.out);
        self.out.push(b'"');
    }

    /// A time, if there is one.
    #[inline(always)]
    pub fn time_if_any(&mut self, name: &'static str, value: Option<Timestamp>) {
        if let Some(value) = value {
            self.time(name, value);
        }
    }

    /// A day, as `2026-11-03`.
    pub fn date(&mut self, name: &'static str, value: NaiveDate) {
        self.name(name);
        self.out.push(b'"');
        write_date(value, self.out);
        self.out.push(b'"');
    }

    /// A decimal of `units` of 10^-`scale` as text: `spelt` is only asked where it is no whole number.
    pub fn decimal(&mut self, name: &'static str, units: u64, scale: u32, spelt: &impl std::fmt::Display) {
        let one = 10_u64.pow(scale);
        if !units.is_multiple_of(one) {
            return self.shown(name, spelt);
        }
        self.word(name, itoa::Buffer::new().format(units / one));
    }

    /// 64 bits as 16 hex digits.
    #[inline(always)]
    pub fn hex(&mut self, name: &'static str, value: u64) {
        self.name(name);
        write_hex64(self.out, value);
    }

    /// Something that spells itself without need of escaping, in quotes.
    pub fn shown(&mut self, name: &'static str, value: &impl std::fmt::Display) {
        use std::io::Write;
        self.name(name);
        // Writing into a Vec cannot fail.
        let _ = write!(self.out, "\"{value}\"");
    }

    /// An object inside.
    pub fn object(&mut self, name: &'static str, fill: impl FnOnce(&mut ObjectWriter<'_>)) {
        self.name(name);
        let mut inner = ObjectWriter::new(self.out);
        fill(&mut inner);
        inner.end();
    }

    /// A list of objects.
    pub fn objects<T>(
        &mut self,
        name: &'static str,
        items: impl Iterator<Item = T>,
        mut fill: impl FnMut(&mut ObjectWriter<'_>, T),
    ) {
        self.list(name, items, |out, item| {
            let mut inner = ObjectWriter::new(out);
            fill(&mut inner, item);
            inner.end();
        });
    }

    /// A list of integers.
    pub fn integers<T: itoa::Integer + Copy>(&mut self, name: &'static str, items: &[T]) {
        self.list(name, items.iter(), |out, item| {
            out.extend_from_slice(itoa::Buffer::new().format(*item).as_bytes());
        });
    }

    /// A list of anything.
    pub fn list<T>(
        &mut self,
        name: &'static str,
        items: impl Iterator<Item = T>,
        mut write: impl FnMut(&mut Vec<u8>, T),
    ) {
        self.name(name);
        self.out.push(b'[');
        for (number, item) in items.enumerate() {
            if number > 0 {
                self.out.push(b',');
            }
            write(self.out, item);
        }
        self.out.push(b']');
    }
}

/// 128 bits as 32 hex digits in quotes.
pub fn write_hex128(out: &mut Vec<u8>, value: u128) {
    let digit = |place: usize| hex_digit((value >> (124 - place * 4)) as u8);
    out.push(b'"');
    out.extend_from_slice(&std::array::from_fn::<u8, 32, _>(digit));
    out.push(b'"');
}

fn write_hex64(out: &mut Vec<u8>, value: u64) {
    let digit = |place: usize| hex_digit((value >> (60 - place * 4)) as u8);
    out.push(b'"');
    out.extend_from_slice(&std::array::from_fn::<u8, 16, _>(digit));
    out.push(b'"');
}

/// The lower four bits.
const fn hex_digit(value: u8) -> u8 {
    match value & 0xf {
        digit @ 0..=9 => b'0' + digit,
        letter => b'a' - 10 + letter,
    }
}

fn write_text(out: &mut Vec<u8>, text: &str) {
    if needs_escape(text.as_bytes()) {
        // A string always has a JSON form, and writing into a Vec cannot fail.
        let _ = serde_json::to_writer(out, text);
        return;
    }
    out.push(b'"');
    out.extend_from_slice(text.as_bytes());
    out.push(b'"');
}

/// Whether a quote, a backslash or a control character stands in it. Without early exit: nearly nothing has one.
fn needs_escape(bytes: &[u8]) -> bool {
    let (words, rest) = bytes.as_chunks::<8>();
    let found = words.iter().fold(0, |found, word| found | special_bytes(u64::from_le_bytes(*word)));
    // The last eight bytes, some of them again, instead of the rest one by one.
    match bytes.last_chunk::<8>() {
        Some(last) => found | special_bytes(u64::from_le_bytes(*last)) != 0,
        None => rest.iter().any(|byte| is_special(*byte)),
    }
}

/// What a JSON string cannot hold as it is: quotes, backslashes, control characters.
pub fn is_special(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\'
}

/// [`is_special`] of eight bytes in one go: the high bit is set in each byte that is, and may be in those above it. So
/// the lowest one set is right, and whether any is.
pub fn special_bytes(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = ONES * 0x80;
    let quotes = word ^ (ONES * u64::from(b'"'));
    let backslashes = word ^ (ONES * u64::from(b'\\'));
    let controls = word.wrapping_sub(ONES * 0x20) & !word;
    let found =
        controls | (quotes.wrapping_sub(ONES) & !quotes) | (backslashes.wrapping_sub(ONES) & !backslashes);
    found & HIGHS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_and_hashes_are_written_as_serde_and_std_would() {
        for special in ['"', '\\', '\u{0}', '\u{1f}', '\u{7f}', 'ä', ' '] {
            for (length, place) in (0..20).flat_map(|length| (0..=length).map(move |place| (length, place))) {
                let mut text = "x".repeat(length);
                text.insert(place, special);
                let mut written = Vec::new();
                write_text(&mut written, &text);
                assert_eq!(String::from_utf8_lossy(&written), serde_json::json!(text).to_string());
            }
        }
        for value in [0, 1, 0x0123_4567_89ab_cdef_fedc_ba98_7654_3210, u128::MAX] {
            let mut written = Vec::new();
            write_hex128(&mut written, value);
            write_hex64(&mut written, value as u64);
            let expected = format!("\"{value:032x}\"\"{:016x}\"", value as u64);
            assert_eq!(String::from_utf8_lossy(&written), expected);
        }
    }
}
