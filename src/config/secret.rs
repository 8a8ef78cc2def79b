//! What must never be shown, and how to tell that it is one.

use std::fmt;

use serde::{Deserialize, Serialize, Serializer};

/// What stands for a secret wherever settings are shown.
pub(super) const MASK: &str = "***";

/// A setting that neither `Debug` nor `Serialize` shows. Empty: not set, which is shown.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// The value itself, for the client that needs it and nothing else.
    pub fn expose(&self) -> &str {
        &self.0
    }

    fn shown(&self) -> &str {
        if self.0.is_empty() { "" } else { MASK }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.shown())
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.shown())
    }
}

/// Whether the setting with this dotted name, `kafka.properties.…` included, holds a secret.
pub(super) fn is_secret(key: &str) -> bool {
    match key.strip_prefix("kafka.properties.") {
        Some(property) => is_secret_property(property),
        None => key == "clickhouse.password" || key == "dispatcher.endpoints",
    }
}

/// Whether a librdkafka setting holds a secret. By parts of names rather than by a list: a later librdkafka
/// may bring new ones, and hiding too much costs nothing.
pub(super) fn is_secret_property(name: &str) -> bool {
    const PARTS: [&str; 8] =
        ["password", "passphrase", "secret", "jaas", "token", "key.pem", "private.key", "oauthbearer.config"];
    let name = name.to_ascii_lowercase();
    PARTS.iter().any(|part| name.contains(part))
}
