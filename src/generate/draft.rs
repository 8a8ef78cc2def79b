//! An event as a list of fields, each raw JSON, before it is put together: here it can still be altered.
//!
//! All values share one buffer, which is used again for the next event: nothing is allocated per field.

use std::fmt::{Arguments, Write};
use std::ops::Range;

/// The fields of a JSON object, in order.
#[derive(Default)]
pub(super) struct Fields {
    text: String,
    places: Vec<(&'static str, Range<usize>)>,
}

impl Fields {
    pub(super) fn clear(&mut self) {
        self.text.clear();
        self.places.clear();
    }

    /// Adds a field that is not there yet; the value is raw JSON.
    pub(super) fn raw(&mut self, name: &'static str, value: Arguments<'_>) {
        let place = self.write(value);
        self.places.push((name, place));
    }

    /// Adds a field that is not there yet; the value becomes a string, and needs no escapes.
    pub(super) fn string(&mut self, name: &'static str, value: Arguments<'_>) {
        self.raw(name, format_args!("\"{value}\""));
    }

    /// Replaces a field, or adds it.
    pub(super) fn set(&mut self, name: &'static str, value: Arguments<'_>) {
        let place = self.write(value);
        match self.places.iter_mut().find(|(known, _)| *known == name) {
            Some((_, old)) => *old = place,
            None => self.places.push((name, place)),
        }
    }

    pub(super) fn remove(&mut self, name: &str) {
        self.places.retain(|(known, _)| *known != name);
    }

    pub(super) fn reverse(&mut self) {
        self.places.reverse();
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.places.iter().map(|(name, place)| (*name, self.text.get(place.clone()).unwrap_or_default()))
    }

    /// Writes the fields as the inside of a JSON object; `spaced` with white space between the tokens.
    pub(super) fn write_json(&self, out: &mut Vec<u8>, spaced: bool) {
        let (colon, comma): (&[u8], &[u8]) = if spaced { (b" : ", b",\n  ") } else { (b":", b",") };
        for (index, (name, value)) in self.iter().enumerate() {
            if index > 0 {
                out.extend_from_slice(comma);
            }
            out.push(b'"');
            out.extend_from_slice(name.as_bytes());
            out.push(b'"');
            out.extend_from_slice(colon);
            out.extend_from_slice(value.as_bytes());
        }
    }

    fn write(&mut self, value: Arguments<'_>) -> Range<usize> {
        let from = self.text.len();
        // Writing to a String cannot fail.
        let _ = self.text.write_fmt(value);
        from..self.text.len()
    }
}

/// An event: the attributes of its envelope, and its data.
#[derive(Default)]
pub(super) struct Draft {
    pub attributes: Fields,
    pub data: Fields,
    /// Raw JSON that stands instead of the data.
    pub whole_data: Option<&'static str>,
}

impl Draft {
    pub(super) fn clear(&mut self) {
        self.attributes.clear();
        self.data.clear();
        self.whole_data = None;
    }

    /// The data as JSON.
    pub(super) fn write_data(&self, out: &mut Vec<u8>, spaced: bool) {
        if let Some(raw) = self.whole_data {
            out.extend_from_slice(raw.as_bytes());
            return;
        }
        out.push(b'{');
        self.data.write_json(out, spaced);
        out.push(b'}');
    }
}
