//! The packed form of what is remembered, wallets and memos of jobs: postcard, appended to a buffer that is there
//! already.

use postcard::ser_flavors::Flavor;
use serde::{Deserialize, Serialize};

/// Appends to a vector. Postcard's own flavour for what can be extended takes an iterator's bytes one by one.
struct Append<'o>(&'o mut Vec<u8>);

impl Flavor for Append<'_> {
    type Output = ();

    #[inline]
    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        // Most of what comes is a number of a few bytes; of a known length they are moved without a call.
        match *bytes {
            [a] => self.0.push(a),
            [a, b] => self.0.extend_from_slice(&[a, b]),
            [a, b, c] => self.0.extend_from_slice(&[a, b, c]),
            [a, b, c, d, e, f] => self.0.extend_from_slice(&[a, b, c, d, e, f]),
            _ => self.0.extend_from_slice(bytes),
        }
        Ok(())
    }

    #[inline]
    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.push(byte);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

/// Appends a value's packed form. Memory does not refuse, and no type of ours does; if one did, nothing that reads as a
/// value would be left behind.
pub fn append(out: &mut Vec<u8>, value: &impl Serialize) {
    let start = out.len();
    if postcard::serialize_with_flavor(value, Append(out)).is_err() {
        out.truncate(start);
    }
}

/// Reads a value; `None` where the bytes are none.
pub fn read<'b, T: Deserialize<'b>>(bytes: &'b [u8]) -> Option<T> {
    postcard::from_bytes(bytes).ok()
}

/// Reads the first field of a value; `None` where the bytes are none.
pub fn read_first<'b, T: Deserialize<'b>>(bytes: &'b [u8]) -> Option<T> {
    postcard::take_from_bytes(bytes).ok().map(|(first, _)| first)
}
