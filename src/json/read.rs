//! Reads back what [`ObjectWriter`](super::ObjectWriter) writes, member by member in the same order.
//!
//! Several times faster than a generic parser, which must look for each name and may find anything. **Invariant:** what is read
//! here is what serde reads. Whatever is not exactly as it is written (another order, a space, an escape, a member that is
//! not asked for) is not read at all: `None` says that serde is to be asked.

use std::borrow::Cow;

use chrono::NaiveDate;

use super::{Member, plain_bytes};
use crate::time::Timestamp;

/// A place in a text.
pub struct ObjectReader<'t> {
    text: &'t str,
    at: usize,
    /// No member of the object was read yet: its brace stands where else a comma does.
    is_first: bool,
}

impl<'t> ObjectReader<'t> {
    /// Reads a text that is one object.
    pub fn read<T>(text: &'t str, fill: impl FnOnce(&mut ObjectReader<'t>) -> Option<T>) -> Option<T> {
        let mut reader = ObjectReader { text, at: 0, is_first: true };
        let value = fill(&mut reader)?;
        reader.end()?;
        (reader.at == text.len()).then_some(value)
    }

    #[inline(always)]
    fn rest(&self) -> &'t [u8] {
        self.text.as_bytes().get(self.at..).unwrap_or_default()
    }

    #[inline(always)]
    fn pass(&mut self, expected: u8) -> Option<()> {
        let is_it = self.rest().first() == Some(&expected);
        self.at += usize::from(is_it);
        is_it.then_some(())
    }

    fn end(&mut self) -> Option<()> {
        if std::mem::take(&mut self.is_first) {
            self.pass(b'{')?;
        }
        self.pass(b'}')
    }

    /// Passes the name of the next member, if it is this one. Inlined, as all that asks for a member by its name is: then the
    /// names are constants, and comparing them takes an instruction or two.
    #[inline(always)]
    fn has(&mut self, name: Member) -> bool {
        // `,"name":"`: the comma is a brace before the first member, and the last quote belongs to a text's value.
        let bytes = name.0.as_bytes();
        let name = bytes.get(1..bytes.len().saturating_sub(1)).unwrap_or_default();
        let before = if self.is_first { b'{' } else { b',' };
        let is_it = match self.rest().split_first() {
            Some((first, rest)) => *first == before && rest.starts_with(name),
            None => false,
        };
        if is_it {
            self.at += 1 + name.len();
            self.is_first = false;
        }
        is_it
    }

    /// A text without escapes.
    fn plain(&mut self) -> Option<&'t str> {
        self.pass(b'"')?;
        let start = self.at;
        self.at += plain_bytes(self.rest());
        let plain = self.text.get(start..self.at)?;
        self.pass(b'"')?;
        Some(plain)
    }

    fn digits(&mut self) -> Option<u64> {
        let rest = self.rest();
        let digit = |byte: &u8| Some(byte.wrapping_sub(b'0')).filter(|digit| *digit < 10);
        let first = digit(rest.first()?)?;
        let (mut count, mut value) = (1, u64::from(first));
        while let Some(digit) = rest.get(count).and_then(digit) {
            value = value.checked_mul(10)?.checked_add(u64::from(digit))?;
            count += 1;
        }
        self.at += count;
        (count == 1 || first > 0).then_some(value)
    }

    fn signed(&mut self) -> Option<i64> {
        if self.pass(b'-').is_none() {
            return i64::try_from(self.digits()?).ok();
        }
        // `-0` is no integer to serde.
        let digits = self.digits().filter(|digits| *digits > 0)?;
        0_i64.checked_sub_unsigned(digits)
    }

    /// A text.
    #[inline(always)]
    pub fn text(&mut self, name: Member) -> Option<&'t str> {
        if self.has(name) { self.plain() } else { None }
    }

    /// A text that may be absent: then it is empty.
    #[inline(always)]
    pub fn text_if_any(&mut self, name: Member) -> Option<Cow<'t, str>> {
        if self.has(name) { self.plain().map(Cow::Borrowed) } else { Some(Cow::Borrowed("")) }
    }

    /// What a text stands for, if it is there: the inner `None` says that it is not.
    #[inline(always)]
    pub fn spelt<T>(&mut self, name: Member, meaning: impl FnOnce(&str) -> Option<T>) -> Option<Option<T>> {
        if self.has(name) { self.plain().and_then(meaning).map(Some) } else { Some(None) }
    }

    /// An integer of 0 or more.
    #[inline(always)]
    pub fn natural<T: TryFrom<u64>>(&mut self, name: Member) -> Option<T> {
        if self.has(name) { T::try_from(self.digits()?).ok() } else { None }
    }

    /// An integer of 0 or more that may be absent: then it is 0.
    #[inline(always)]
    pub fn natural_if_any<T: TryFrom<u64> + Default>(&mut self, name: Member) -> Option<T> {
        if self.has(name) { T::try_from(self.digits()?).ok() } else { Some(T::default()) }
    }

    /// An integer of 0 or more, if it is there: the inner `None` says that it is not.
    #[inline(always)]
    pub fn natural_or_none<T: TryFrom<u64>>(&mut self, name: Member) -> Option<Option<T>> {
        if self.has(name) { T::try_from(self.digits()?).ok().map(Some) } else { Some(None) }
    }

    /// An integer.
    #[inline(always)]
    pub fn integer(&mut self, name: Member) -> Option<i64> {
        if self.has(name) { self.signed() } else { None }
    }

    /// An integer that may be absent: then it is 0.
    #[inline(always)]
    pub fn integer_if_any<T: TryFrom<i64> + Default>(&mut self, name: Member) -> Option<T> {
        if self.has(name) { T::try_from(self.signed()?).ok() } else { Some(T::default()) }
    }

    /// `true`, or nothing.
    #[inline(always)]
    pub fn flag_if_set(&mut self, name: Member) -> Option<bool> {
        if !self.has(name) {
            return Some(false);
        }
        let is_set = self.rest().starts_with(b"true");
        self.at += 4;
        is_set.then_some(true)
    }

    /// `true` or `false`.
    pub fn flag(&mut self, name: Member) -> Option<bool> {
        if !self.has(name) {
            return None;
        }
        let is_set = self.rest().starts_with(b"true");
        let word: &[u8] = if is_set { b"true" } else { b"false" };
        let is_flag = self.rest().starts_with(word);
        self.at += word.len();
        is_flag.then_some(is_set)
    }

    /// A list of integers of 0 or more.
    pub fn naturals<T: TryFrom<u64>>(&mut self, name: Member) -> Option<Vec<T>> {
        if self.has(name) { self.items(|json| T::try_from(json.digits()?).ok()) } else { None }
    }

    /// A list of integers.
    pub fn integers<C: Default + Extend<i64>>(&mut self, name: Member) -> Option<C> {
        if self.has(name) { self.items(ObjectReader::signed) } else { None }
    }

    /// What a list of texts stands for, if it is there; else nothing.
    pub fn spelt_list_if_any<T, C: Default + Extend<T>>(
        &mut self,
        name: Member,
        meaning: impl Fn(&str) -> Option<T>,
    ) -> Option<C> {
        if self.has(name) { self.items(|json| json.plain().and_then(&meaning)) } else { Some(C::default()) }
    }

    fn items<T, C: Default + Extend<T>>(
        &mut self,
        mut item: impl FnMut(&mut Self) -> Option<T>,
    ) -> Option<C> {
        self.pass(b'[')?;
        let mut items = C::default();
        if self.pass(b']').is_some() {
            return Some(items);
        }
        loop {
            items.extend([item(self)?]);
            if self.pass(b',').is_none() {
                self.pass(b']')?;
                return Some(items);
            }
        }
    }

    /// A time.
    #[inline(always)]
    pub fn time(&mut self, name: Member) -> Option<Timestamp> {
        Timestamp::parse(self.text(name)?)
    }

    /// A time, if there is one.
    #[inline(always)]
    pub fn time_if_any(&mut self, name: Member) -> Option<Option<Timestamp>> {
        self.spelt(name, Timestamp::parse)
    }

    /// A day, if there is one.
    #[inline(always)]
    pub fn date_if_any(&mut self, name: Member) -> Option<Option<NaiveDate>> {
        self.spelt(name, day)
    }

    /// An object, if there is one.
    pub fn object_if_any<T>(
        &mut self,
        name: Member,
        fill: impl FnOnce(&mut ObjectReader<'t>) -> Option<T>,
    ) -> Option<Option<T>> {
        if self.has(name) { self.inner(fill).map(Some) } else { Some(None) }
    }

    fn inner<T>(&mut self, fill: impl FnOnce(&mut ObjectReader<'t>) -> Option<T>) -> Option<T> {
        self.is_first = true;
        let value = fill(self)?;
        self.end()?;
        Some(value)
    }

    /// A list of objects that is not empty, if it is there; else none.
    pub fn objects_if_any<T>(
        &mut self,
        name: Member,
        mut fill: impl FnMut(&mut ObjectReader<'t>) -> Option<T>,
    ) -> Option<Vec<T>> {
        if !self.has(name) {
            return Some(Vec::new());
        }
        self.pass(b'[')?;
        let mut items = Vec::with_capacity(1);
        loop {
            items.push(self.inner(&mut fill)?);
            if self.pass(b',').is_none() {
                self.pass(b']')?;
                return Some(items);
            }
        }
    }
}

/// A day as it is written.
fn day(text: &str) -> Option<NaiveDate> {
    let [y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2] = text.as_bytes() else { return None };
    let number = |digits: &[&u8]| {
        digits
            .iter()
            .try_fold(0, |sum, digit| digit.is_ascii_digit().then(|| sum * 10 + u32::from(**digit - b'0')))
    };
    let year = i32::try_from(number(&[y1, y2, y3, y4])?).ok()?;
    NaiveDate::from_ymd_opt(year, number(&[m1, m2])?, number(&[d1, d2])?)
}
