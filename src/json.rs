//! Writes JSON objects into a buffer, and reads them back: what the ledger stage writes for every event goes through here.
//!
//! Several times faster than a generic serializer, because names need no escaping and most texts do not either.
//! Everything that is written here can also be written by serde, and a test holds the two equal to the byte.

mod read;

pub use read::ObjectReader;

use chrono::NaiveDate;
use wide::u8x16;

use crate::bytes;
use crate::time::{Timestamp, write_date};

/// The name of a member with all that stands around it: in one piece, writing it is one move instead of three.
macro_rules! member {
    ($name:literal) => {
        $crate::json::Member(concat!(",\"", $name, "\":\""))
    };
}
pub(crate) use member;

/// A member's name as [`member!`] makes it.
#[derive(Clone, Copy)]
pub struct Member(pub &'static str);

/// An object under construction. What is absent, empty or 0 is the caller's to leave out.
pub struct ObjectWriter<'o> {
    out: &'o mut Vec<u8>,
    /// Where it begins: at the comma of its first member, until it is closed.
    start: usize,
}

// Names are inlined into their callers, and these into theirs: then the name's length is known, and writing it is a few
// moves instead of a call.
impl<'o> ObjectWriter<'o> {
    /// Opens an object.
    pub fn new(out: &'o mut Vec<u8>) -> ObjectWriter<'o> {
        let start = out.len();
        ObjectWriter { out, start }
    }

    /// Closes it.
    pub fn end(self) {
        match self.out.get_mut(self.start) {
            Some(comma) => *comma = b'{',
            None => self.out.push(b'{'),
        }
        self.out.push(b'}');
    }

    #[inline(always)]
    fn name(&mut self, name: Member) {
        let with_quote = name.0.as_bytes();
        self.out.extend_from_slice(with_quote.split_last().map_or(with_quote, |(_, name)| name));
    }

    #[inline(always)]
    fn name_and_quote(&mut self, name: Member) {
        self.out.extend_from_slice(name.0.as_bytes());
    }

    /// A text.
    #[inline(always)]
    pub fn text(&mut self, name: Member, value: &str) {
        self.name_and_quote(name);
        write_rest_of_text(self.out, value);
    }

    /// A text, unless it is empty.
    #[inline(always)]
    pub fn text_if_any(&mut self, name: Member, value: &str) {
        if !value.is_empty() {
            self.text(name, value);
        }
    }

    /// A word of ours, which needs no escaping.
    #[inline(always)]
    pub fn word(&mut self, name: Member, value: &str) {
        self.name_and_quote(name);
        self.out.extend_from_slice(value.as_bytes());
        self.out.push(b'"');
    }

    /// An integer.
    #[inline(always)]
    pub fn integer(&mut self, name: Member, value: impl itoa::Integer) {
        self.name(name);
        self.out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
    }

    /// An integer, unless it is 0.
    #[inline(always)]
    pub fn integer_if_any(&mut self, name: Member, value: i64) {
        if value != 0 {
            self.integer(name, value);
        }
    }

    /// `true` or `false`.
    pub fn flag(&mut self, name: Member, value: bool) {
        self.name(name);
        self.out.extend_from_slice(if value { b"true" } else { b"false" });
    }

    /// `true`, unless it is false.
    pub fn flag_if_set(&mut self, name: Member, value: bool) {
        if value {
            self.flag(name, value);
        }
    }

    /// A time as RFC 3339 text.
    #[inline(always)]
    pub fn time(&mut self, name: Member, value: Timestamp) {
        self.name_and_quote(name);
        value.write_to(self.out);
        self.out.push(b'"');
    }

    /// A time, if there is one.
    #[inline(always)]
    pub fn time_if_any(&mut self, name: Member, value: Option<Timestamp>) {
        if let Some(value) = value {
            self.time(name, value);
        }
    }

    /// A day, as `2026-11-03`.
    pub fn date(&mut self, name: Member, value: NaiveDate) {
        self.name_and_quote(name);
        write_date(value, self.out);
        self.out.push(b'"');
    }

    /// A decimal of `units` of 10^-`scale` as text: `spelt` is only asked where it is no whole number.
    pub fn decimal(&mut self, name: Member, units: u64, scale: u32, spelt: &impl std::fmt::Display) {
        let one = 10_u64.pow(scale);
        if !units.is_multiple_of(one) {
            return self.shown(name, spelt);
        }
        self.word(name, itoa::Buffer::new().format(units / one));
    }

    /// 64 bits as 16 hex digits.
    #[inline(always)]
    pub fn hex(&mut self, name: Member, value: u64) {
        self.name(name);
        write_hex64(self.out, value);
    }

    /// Something that spells itself without need of escaping, in quotes.
    pub fn shown(&mut self, name: Member, value: &impl std::fmt::Display) {
        use std::io::Write;
        self.name(name);
        // Writing into a Vec cannot fail.
        let _ = write!(self.out, "\"{value}\"");
    }

    /// An object inside.
    pub fn object(&mut self, name: Member, fill: impl FnOnce(&mut ObjectWriter<'_>)) {
        self.name(name);
        let mut inner = ObjectWriter::new(self.out);
        fill(&mut inner);
        inner.end();
    }

    /// A list of objects.
    pub fn objects<T>(
        &mut self,
        name: Member,
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
    pub fn integers<T: itoa::Integer + Copy>(&mut self, name: Member, items: &[T]) {
        self.list(name, items.iter(), |out, item| {
            out.extend_from_slice(itoa::Buffer::new().format(*item).as_bytes());
        });
    }

    /// A list of anything.
    pub fn list<T>(
        &mut self,
        name: Member,
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

/// A text whose opening quote is there already.
fn write_rest_of_text(out: &mut Vec<u8>, text: &str) {
    if needs_escape(text.as_bytes()) {
        out.pop();
        // A string always has a JSON form, and writing into a Vec cannot fail.
        let _ = serde_json::to_writer(out, text);
        return;
    }
    out.extend_from_slice(text.as_bytes());
    out.push(b'"');
}

/// Whether a quote, a backslash or a control character stands in it.
fn needs_escape(bytes: &[u8]) -> bool {
    bytes::any(bytes, are_special)
}

/// How many bytes come before the first quote, backslash or control character.
#[inline]
pub fn plain_bytes(bytes: &[u8]) -> usize {
    let mut rest = bytes;
    loop {
        let (found, next) = match rest.split_first_chunk::<16>() {
            Some((chunk, next)) => (special_bytes(*chunk), next),
            // The end of a document, which comes once.
            None => {
                let mut chunk = [b' '; 16];
                chunk.iter_mut().zip(rest).for_each(|(place, byte)| *place = *byte);
                (special_bytes(chunk) | 1 << rest.len(), &[][..])
            }
        };
        if found != 0 {
            return bytes.len() - rest.len() + found.trailing_zeros() as usize;
        }
        rest = next;
    }
}

/// Where special bytes stand: a bit for each, the first one lowest.
#[inline]
fn special_bytes(chunk: [u8; 16]) -> u32 {
    are_special(u8x16::new(chunk)).to_bitmask()
}

/// What a JSON string cannot hold as it is: quotes, backslashes and control characters.
#[inline(always)]
fn are_special(bytes: u8x16) -> u8x16 {
    bytes.simd_eq(u8x16::splat(b'"')) | bytes.simd_eq(u8x16::splat(b'\\')) | bytes.simd_lt(u8x16::splat(b' '))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn texts_and_hashes_are_written_as_serde_and_std_would() {
        for special in ['"', '\\', '\u{0}', '\u{1f}', '\u{7f}', 'ä', ' '] {
            for (length, place) in (0..40).flat_map(|length| (0..=length).map(move |place| (length, place))) {
                let mut text = "x".repeat(length);
                text.insert(place, special);
                let mut written = vec![b'"'];
                write_rest_of_text(&mut written, &text);
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

    #[test]
    fn plain_bytes_end_at_the_first_special_one_wherever_it_stands() {
        for special in [b'"', b'\\', 0, 0x1f] {
            for (length, place) in (1..40).flat_map(|length| (0..length).map(move |place| (length, place))) {
                let mut bytes = vec![b' '; length];
                bytes.splice(place.., std::iter::repeat_n(special, length - place));
                assert_eq!(plain_bytes(&bytes), place, "{special} at {place} of {length}");
            }
        }
        let all = ['ä', '\u{7f}', '~', '!', '#', '[', ']'].iter().collect::<String>().repeat(5);
        for length in 0..all.len() {
            assert_eq!(plain_bytes(&all.as_bytes()[..length]), length);
        }
    }
}
