//! One pass over the JSON of a record: finds the members of its objects, and holds all of it to the grammar.
//!
//! Every record goes through here once. A generic parser would go through it twice, once for the envelope and once for
//! the data, and takes four times as long. **Invariant:** what is accepted is what serde_json accepts; a test compares
//! the two. Nothing here knows which members an event has.

use std::borrow::Cow;

use crate::json::plain_bytes;

/// A value where it stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Raw<'a> {
    /// As it is spelt.
    pub spelt: &'a str,
    /// Whether an escape stands in it.
    has_escape: bool,
}

impl<'a> Raw<'a> {
    /// An object that was read member by member.
    pub fn object(spelt: &'a str) -> Raw<'a> {
        Raw { spelt, has_escape: false }
    }

    /// The text of a string, borrowed where it has no escapes. `None` where it is no string, or an escape stands for no
    /// character.
    pub fn text(self) -> Option<Cow<'a, str>> {
        let inner = self.spelt.strip_prefix('"')?;
        let inner = inner.get(..inner.len().checked_sub(1)?)?;
        if self.has_escape {
            return serde_json::from_str::<String>(self.spelt).ok().map(Cow::Owned);
        }
        Some(Cow::Borrowed(inner))
    }

    /// Whether it is `null`.
    pub fn is_null(self) -> bool {
        self.spelt == "null"
    }

    /// Whether it is an object.
    pub fn is_object(self) -> bool {
        self.spelt.starts_with('{')
    }
}

/// Why a text is not read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// It is no JSON.
    Syntax,
    /// It is JSON, but not what the caller can take; the sentence says why.
    Content(String),
}

/// Reads a text that is one value, and nothing but space around it.
///
/// # Errors
/// What `read` says, or that something stands after the value.
pub(super) fn document<'a, T>(
    text: &'a str,
    read: impl FnOnce(&mut Scanner<'a>) -> Result<T, Fault>,
) -> Result<T, Fault> {
    let mut scanner = Scanner { text, at: 0 };
    scanner.space();
    let value = read(&mut scanner)?;
    scanner.space();
    if scanner.peek().is_some() { Err(Fault::Syntax) } else { Ok(value) }
}

/// A place in a text.
pub(super) struct Scanner<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Scanner<'a> {
    /// The byte here.
    #[inline]
    pub fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// Where it stands.
    pub fn place(&self) -> usize {
        self.at
    }

    /// What was passed over since a place.
    pub fn since(&self, place: usize) -> &'a str {
        self.text.get(place..self.at).unwrap_or_default()
    }

    /// Reads an object: `member` is called with the name of each member, before its value, and must read that.
    ///
    /// # Errors
    /// The syntax, or what `member` says.
    pub fn object(
        &mut self,
        mut member: impl FnMut(&mut Scanner<'a>, Raw<'a>) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        self.expect(b'{')?;
        self.space();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(());
        }
        loop {
            let name = self.name()?;
            member(self, name)?;
            self.space();
            match self.next() {
                Some(b',') => self.space(),
                Some(b'}') => return Ok(()),
                _ => return Err(Fault::Syntax),
            }
        }
    }

    /// Reads a value of any kind, nested as deep as it likes.
    ///
    /// # Errors
    /// The syntax.
    pub fn value(&mut self) -> Result<Raw<'a>, Fault> {
        if self.peek() == Some(b'"') {
            return self.string();
        }
        let begin = self.at;
        // What is open, innermost last, by the byte that closes it.
        let mut open: Vec<u8> = Vec::new();
        let mut has_escape = false;
        loop {
            match self.peek() {
                Some(b'"') => has_escape |= self.string()?.has_escape,
                Some(b'-' | b'0'..=b'9') => self.number()?,
                Some(b't') => self.word("true")?,
                Some(b'f') => self.word("false")?,
                Some(b'n') => self.word("null")?,
                Some(b'{') if !self.opens_empty(b'}') => {
                    open.push(b'}');
                    self.name()?;
                    continue;
                }
                Some(b'[') if !self.opens_empty(b']') => {
                    open.push(b']');
                    continue;
                }
                // Opened and closed.
                Some(b'{' | b'[') => {}
                _ => return Err(Fault::Syntax),
            }
            loop {
                let Some(closing) = open.last().copied() else {
                    return Ok(Raw { spelt: self.since(begin), has_escape });
                };
                self.space();
                let byte = self.next();
                if byte == Some(closing) {
                    open.pop();
                } else if byte == Some(b',') {
                    self.space();
                    if closing == b'}' {
                        self.name()?;
                    }
                    break;
                } else {
                    return Err(Fault::Syntax);
                }
            }
        }
    }

    /// Passes over an opening bracket; if nothing stands in it, leaves the closing one to be met, else stops at what
    /// stands in it.
    fn opens_empty(&mut self, closing: u8) -> bool {
        self.at += 1;
        self.space();
        let is_empty = self.peek() == Some(closing);
        if is_empty {
            self.at += 1;
        }
        is_empty
    }

    /// A member's name with its colon; stops at the value.
    #[inline]
    fn name(&mut self) -> Result<Raw<'a>, Fault> {
        if self.peek() != Some(b'"') {
            return Err(Fault::Syntax);
        }
        let name = self.string()?;
        self.space();
        self.expect(b':')?;
        self.space();
        Ok(name)
    }

    /// A string, of which the first quote was seen.
    #[inline]
    fn string(&mut self) -> Result<Raw<'a>, Fault> {
        let begin = self.at;
        let rest = self.text.as_bytes().get(begin + 1..).unwrap_or_default();
        let length = plain_bytes(rest);
        self.at = begin + 1 + length;
        if rest.get(length) == Some(&b'"') {
            self.at += 1;
            return Ok(Raw { spelt: self.since(begin), has_escape: false });
        }
        self.rest_of_string(begin)
    }

    /// The rest of a string, from the first byte on that is not as it is read.
    #[cold]
    fn rest_of_string(&mut self, begin: usize) -> Result<Raw<'a>, Fault> {
        loop {
            match self.next() {
                Some(b'"') => return Ok(Raw { spelt: self.since(begin), has_escape: true }),
                Some(b'\\') => self.escape()?,
                // A control character, or the end.
                _ => return Err(Fault::Syntax),
            }
            self.at += plain_bytes(self.text.as_bytes().get(self.at..).unwrap_or_default());
        }
    }

    fn escape(&mut self) -> Result<(), Fault> {
        match self.next() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Ok(()),
            Some(b'u') => {
                let digits = self.text.as_bytes().get(self.at..self.at + 4).ok_or(Fault::Syntax)?;
                self.at += 4;
                if digits.iter().all(u8::is_ascii_hexdigit) { Ok(()) } else { Err(Fault::Syntax) }
            }
            _ => Err(Fault::Syntax),
        }
    }

    fn number(&mut self) -> Result<(), Fault> {
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        match self.peek() {
            Some(b'0') => self.at += 1,
            _ => self.digits()?,
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(())
    }

    /// One digit or more.
    fn digits(&mut self) -> Result<(), Fault> {
        let begin = self.at;
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
        if self.at > begin { Ok(()) } else { Err(Fault::Syntax) }
    }

    fn word(&mut self, word: &str) -> Result<(), Fault> {
        let rest = self.text.as_bytes().get(self.at..).unwrap_or_default();
        if !rest.starts_with(word.as_bytes()) {
            return Err(Fault::Syntax);
        }
        self.at += word.len();
        Ok(())
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\n' | b'\t' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.peek();
        self.at += usize::from(byte.is_some());
        byte
    }

    fn expect(&mut self, wanted: u8) -> Result<(), Fault> {
        if self.next() == Some(wanted) { Ok(()) } else { Err(Fault::Syntax) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn accepts(text: &str) -> bool {
        document(text, Scanner::value).is_ok()
    }

    fn serde_accepts(text: &str) -> bool {
        serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]

        /// Pieces that mean something to JSON, in any order: most are no JSON, many nearly are, some are.
        #[test]
        fn the_grammar_is_that_of_serde_json(
            pieces in proptest::collection::vec(
                proptest::sample::select(vec![
                    "{", "}", "[", "]", ",", ":", "\"", "\"a\"", "\"a\":", "\\", "\\u00e4", "\\ud800", "\\n", "\\x", "null",
                    "true", "false", "nul", "-", "0", "1", "01", ".", "e", "E+", "5", " ", "\n", "\t", "\u{1}", "ä", "{}", "[]",
                    "\"\\u00\"", "[1,2]", "{\"b\":{\"c\":[]}}", "1e5", "-0.5E-3", "x",
                ]),
                0..9,
            ),
        ) {
            let text = pieces.concat();
            prop_assert_eq!(accepts(&text), serde_accepts(&text), "{}", text);
            let nested = format!("{{\"a\":{text}}}");
            prop_assert_eq!(accepts(&nested), serde_accepts(&nested), "{}", nested);
        }
    }
}
