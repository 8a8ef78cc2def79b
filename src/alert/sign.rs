//! Signatures as Standard Webhooks 1.0.0 has them: HMAC-SHA256 over `{id}.{timestamp}.{body}`.
//!
//! **Invariant:** an id has no full stop and is not chosen by anybody outside, else two different contents could be
//! signed alike. Hence it is a hash of the alert's own id.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

const PREFIX: &str = "whsec_";
/// Bytes of the hash in an id: 128 bits.
const ID_BYTES: usize = 16;

/// A secret of an endpoint.
#[derive(Clone)]
pub struct SigningKey(Hmac<Sha256>);

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey(***)")
    }
}

impl SigningKey {
    /// From `whsec_` and 24 to 64 bytes in base64; `None`: it is not that.
    pub fn parse(text: &str) -> Option<SigningKey> {
        let bytes = STANDARD.decode(text.strip_prefix(PREFIX)?).ok()?;
        if !(24..=64).contains(&bytes.len()) {
            return None;
        }
        Some(SigningKey(Hmac::new_from_slice(&bytes).ok()?))
    }

    fn sign(&self, id: &str, timestamp_s: i64, body: &[u8]) -> String {
        let mut mac = self.0.clone();
        mac.update(format!("{id}.{timestamp_s}.").as_bytes());
        mac.update(body);
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    }
}

/// `webhook-id` of an alert: the same for every try and every endpoint.
pub fn webhook_id(alert_id: &str) -> String {
    let hash = Sha256::digest(alert_id.as_bytes());
    let hex: String = hash.iter().take(ID_BYTES).map(|byte| format!("{byte:02x}")).collect();
    format!("msg_{hex}")
}

/// `webhook-signature`: a signature with each key. `timestamp_s`: seconds since 1970, of the try.
pub fn signatures(keys: &[SigningKey], id: &str, timestamp_s: i64, body: &[u8]) -> String {
    let each: Vec<String> = keys.iter().map(|key| key.sign(id, timestamp_s, body)).collect();
    each.join(" ")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn keys_are_base64_of_24_to_64_bytes() {
        let of = |length: usize| format!("whsec_{}", STANDARD.encode(vec![7; length]));
        for (length, is_key) in [(23, false), (24, true), (64, true), (65, false)] {
            assert_eq!(SigningKey::parse(&of(length)).is_some(), is_key, "{length}");
        }
        for text in ["", "whsec_", "whsec_%%%", of(32).trim_start_matches("whsec_")] {
            assert!(SigningKey::parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn an_id_is_the_same_for_the_same_alert_and_has_no_full_stop() {
        assert_eq!(webhook_id("w.1:low:3"), webhook_id("w.1:low:3"));
        assert_ne!(webhook_id("w.1:low:3"), webhook_id("w.1:low:4"));
        assert!(!webhook_id("w.1:low:3").contains('.'));
    }
}
