//! `[kafka.properties]`: any librdkafka setting but those that correctness depends on.

use std::collections::BTreeMap;
use std::fmt;

use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;
use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};

use super::secret::{MASK, is_secret_property};

/// librdkafka settings by name. Neither `Debug` nor `Serialize` shows the values of secret ones.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct KafkaProperties(BTreeMap<String, String>);

impl KafkaProperties {
    /// Names and values, secrets included: for the client that needs them and nothing else.
    pub fn as_map(&self) -> &BTreeMap<String, String> {
        &self.0
    }

    fn shown(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| {
            let shown = if is_secret_property(name) { MASK } else { value.as_str() };
            (name.as_str(), shown)
        })
    }
}

impl fmt::Debug for KafkaProperties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.shown()).finish()
    }
}

impl Serialize for KafkaProperties {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in self.shown() {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

/// Settings that are not to be had here, aliases included, and why, or what to set instead.
const RESERVED: &[(&str, &str)] = &[
    ("bootstrap.servers", "set kafka.brokers"),
    ("metadata.broker.list", "set kafka.brokers"),
    ("client.id", "set kafka.client_id"),
    ("group.id", "set ledger.group and sink.group"),
    ("group.instance.id", "set ledger.instance and ledger.static_membership"),
    ("session.timeout.ms", "set ledger.session_timeout_ms"),
    ("max.poll.interval.ms", "members poll at all times, and a longer one has every rebalance wait longer"),
    ("transaction.timeout.ms", "set ledger.transaction_timeout_ms"),
    ("queued.max.messages.kbytes", "set ledger.fetch_queue_kib"),
    ("transactional.id", "it is made of the group, the instance and the worker, and fences a zombie"),
    ("group.protocol", "shards follow the classic protocol's range assignment"),
    ("group.remote.assignor", "shards follow the classic protocol's range assignment"),
    ("partition.assignment.strategy", "one member must be given the same partition of every topic"),
    ("enable.auto.commit", "offsets are committed with what was made of the records"),
    ("auto.commit.enable", "offsets are committed with what was made of the records"),
    ("enable.auto.offset.store", "offsets are committed with what was made of the records"),
    ("auto.offset.reset", "a position that is lost must stop the shard, never skip records"),
    ("isolation.level", "aborted batches must never be read"),
    ("enable.partition.eof", "a restore needs it"),
    ("enable.idempotence", "without it a retry can write a record twice"),
    ("enable.gapless.guarantee", "it would make an error that can be retried a fatal one"),
    ("acks", "an entry that a broker can lose is not posted"),
    ("request.required.acks", "an entry that a broker can lose is not posted"),
    ("max.in.flight", "idempotence sets it"),
    ("max.in.flight.requests.per.connection", "idempotence sets it"),
    ("retries", "idempotence sets it"),
    ("message.send.max.retries", "idempotence sets it"),
    ("message.timeout.ms", "it follows ledger.transaction_timeout_ms"),
    ("delivery.timeout.ms", "it follows ledger.transaction_timeout_ms"),
    ("message.max.bytes", "it follows the largest source topic's limit"),
    ("partitioner", "every record is given its partition by name"),
    ("allow.auto.create.topics", "topics are made by `creditstream init` alone"),
];

/// What is wrong with a property, or `None`. Never shows the value.
pub(super) fn fault_of(name: &str, value: &str) -> Option<String> {
    if let Some((_, why)) = RESERVED.iter().find(|(reserved, _)| *reserved == name) {
        return Some(format!("may not be set here: {why}"));
    }
    if is_secret_property(name) && value == MASK {
        return Some(format!("must be the secret itself; {MASK} is what check-config shows in its place"));
    }
    refusal_of_librdkafka(name, value)
}

/// librdkafka itself knows its names, types and what this build of it supports.
fn refusal_of_librdkafka(name: &str, value: &str) -> Option<String> {
    if value.contains('\0') || name.contains('\0') {
        return Some("must not contain a NUL character".to_owned());
    }
    match ClientConfig::new().set(name, value).create_native_config() {
        Ok(_) => None,
        Err(KafkaError::ClientConfig(_, description, _, _)) => Some(refusal(name, value, &description)),
        // No other kind comes from setting a value; if one does, it may show the value.
        Err(_) => Some("librdkafka does not take it".to_owned()),
    }
}

/// librdkafka's description of a bad value may repeat the value.
fn refusal(name: &str, value: &str, description: &str) -> String {
    if is_secret_property(name) && description.contains(value) {
        return "librdkafka does not take it".to_owned();
    }
    format!("librdkafka does not take it: {description}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// librdkafka 2 refuses no secret by its value; a later one may.
    #[test]
    fn a_description_that_repeats_a_secret_is_not_passed_on() {
        let description = "Invalid value \"hidden\"";
        assert_eq!(refusal("sasl.password", "hidden", description), "librdkafka does not take it");
        assert!(refusal("sasl.username", "hidden", description).ends_with(description));
        assert!(refusal("sasl.password", "other", description).ends_with(description));
    }
}
