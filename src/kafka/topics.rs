//! Makes the topics, and holds existing ones to what the product needs.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::error::RDKafkaErrorCode;
use thiserror::Error;

use super::{Clients, KafkaLog, TopicDescription, describe_topics};
use crate::config::Config;
use crate::time::DAY_MS;

const TIMEOUT: Duration = Duration::from_secs(20);
/// Room that the headers of a handed-over or quarantined record may need.
const HEADER_BYTES: u64 = 65_536;
const KAFKA_MAX_MESSAGE_BYTES: u64 = 1_048_588;
const KAFKA_RETENTION_MS: i64 = 7 * DAY_MS;

/// Why the topics are not as they must be.
#[derive(Debug, Error)]
pub enum TopicError {
    /// The cluster cannot be reached or refuses.
    #[error("kafka: {0}")]
    Kafka(#[from] rdkafka::error::KafkaError),
    /// The cluster's answer.
    #[error("kafka: {0}")]
    Answer(String),
    /// An existing topic does not fit.
    #[error(
        "topic {topic} has {found} partitions, expected {expected}: set topics.shards = {found}, or use another topic name"
    )]
    Partitions {
        /// Name.
        topic: String,
        /// As it is.
        found: i32,
        /// As configured.
        expected: i32,
    },
}

/// A topic as it should be.
struct Wanted {
    name: String,
    settings: Vec<(&'static str, String)>,
}

/// Creates what is missing and mends the settings of `credits.*` topics. Source topics are created only if
/// missing, and never altered. Twice is the same as once. Returns the topics that were created.
///
/// # Errors
/// The cluster does not answer, or an existing topic has another number of partitions.
pub async fn init_topics(config: &Config, clients: &Clients) -> Result<Vec<String>, TopicError> {
    let admin = clients.admin()?;
    let sources: Vec<String> =
        config.topics.generation_topics().into_iter().chain(config.topics.wallet_topics()).collect();
    let shards = config.topics.shards;
    let mut created = Vec::new();
    for source in &sources {
        let wanted = Wanted { name: source.clone(), settings: Vec::new() };
        if create(&admin, config, &wanted).await? {
            created.push(source.clone());
        }
    }
    let (source_bytes, source_retention) = source_limits(&admin, &sources).await?;
    let wanted = own_topics(config, source_bytes + HEADER_BYTES, source_retention);
    let names: Vec<&str> = wanted.iter().map(|topic| topic.name.as_str()).collect();
    for topic in &wanted {
        if create(&admin, config, topic).await? {
            created.push(topic.name.clone());
        } else {
            mend(&admin, topic).await?;
        }
    }
    for TopicDescription { name, partitions, .. } in settled(&admin, &names).await? {
        if partitions != shards {
            return Err(TopicError::Partitions { topic: name, found: partitions, expected: shards });
        }
    }
    Ok(created)
}

fn own_topics(config: &Config, message_bytes: u64, source_retention_ms: i64) -> Vec<Wanted> {
    let topics = &config.topics;
    let for_ever = || {
        vec![
            ("cleanup.policy", "delete".to_owned()),
            ("retention.ms", "-1".to_owned()),
            ("retention.bytes", "-1".to_owned()),
        ]
    };
    let compacted = || vec![("cleanup.policy", "compact".to_owned())];
    let horizon_ms = i64::from(config.clock.horizon_days) * DAY_MS;
    let intake_ms = if source_retention_ms < 0 { -1 } else { horizon_ms.max(source_retention_ms) };
    let large = |mut settings: Vec<(&'static str, String)>| {
        settings.push(("max.message.bytes", message_bytes.to_string()));
        settings
    };
    let topic = |name: &str, settings| Wanted { name: name.to_owned(), settings };
    vec![
        topic(&topics.ledger, for_ever()),
        topic(&topics.wallets, compacted()),
        topic(&topics.progress, compacted()),
        topic(&topics.alerts, for_ever()),
        topic(&topics.alerts_dead, for_ever()),
        topic(&topics.quarantine, large(for_ever())),
        topic(
            &topics.intake,
            large(vec![
                ("cleanup.policy", "delete".to_owned()),
                ("retention.ms", intake_ms.to_string()),
                ("retention.bytes", "-1".to_owned()),
            ]),
        ),
    ]
}

async fn create(admin: &AdminClient<KafkaLog>, config: &Config, topic: &Wanted) -> Result<bool, TopicError> {
    let replication = TopicReplication::Fixed(config.topics.replication_factor);
    let mut new = NewTopic::new(&topic.name, config.topics.shards, replication);
    for (name, value) in &topic.settings {
        new = new.set(name, value);
    }
    let options = admin_options().operation_timeout(Some(TIMEOUT));
    match admin.create_topics([&new], &options).await?.into_iter().next() {
        Some(Ok(_)) => Ok(true),
        Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists))) | None => Ok(false),
        Some(Err((name, code))) => Err(TopicError::Answer(format!("topic {name} was not created: {code}"))),
    }
}

/// Without a timeout of its own a request waits for a minute for brokers that are away.
fn admin_options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(TIMEOUT))
}

/// A new topic is known to every broker only a moment after its creation was acknowledged.
async fn settled(admin: &AdminClient<KafkaLog>, names: &[&str]) -> Result<Vec<TopicDescription>, TopicError> {
    let mut found = Vec::new();
    for _ in 0..100 {
        found = describe_topics(admin.inner(), names, TIMEOUT).map_err(TopicError::Answer)?;
        if found.iter().all(|topic| topic.partitions > 0) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(found)
}

/// Sets what differs from what is wanted, and keeps what an operator has set beside it.
async fn mend(admin: &AdminClient<KafkaLog>, topic: &Wanted) -> Result<(), TopicError> {
    let current = settings_of(admin, &topic.name).await?;
    let differs = topic.settings.iter().any(|(name, value)| current.all.get(*name) != Some(value));
    if !differs {
        return Ok(());
    }
    let mut settings = current.of_topic;
    settings.extend(topic.settings.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
    let resource = ResourceSpecifier::Topic(&topic.name);
    let change =
        settings.iter().fold(AlterConfig::new(resource), |change, (name, value)| change.set(name, value));
    for result in admin.alter_configs([&change], &admin_options()).await? {
        result.map_err(|(_, code)| {
            TopicError::Answer(format!("settings of topic {} were not altered: {code}", topic.name))
        })?;
    }
    Ok(())
}

struct TopicSettings {
    all: BTreeMap<String, String>,
    of_topic: BTreeMap<String, String>,
}

async fn settings_of(admin: &AdminClient<KafkaLog>, topic: &str) -> Result<TopicSettings, TopicError> {
    let resource = ResourceSpecifier::Topic(topic);
    let mut settings = TopicSettings { all: BTreeMap::new(), of_topic: BTreeMap::new() };
    for result in admin.describe_configs([&resource], &admin_options()).await? {
        let described =
            result.map_err(|code| TopicError::Answer(format!("settings of topic {topic}: {code}")))?;
        for entry in described.entries {
            let Some(value) = entry.value else { continue };
            if entry.source == rdkafka::admin::ConfigSource::DynamicTopic {
                settings.of_topic.insert(entry.name.clone(), value.clone());
            }
            settings.all.insert(entry.name, value);
        }
    }
    Ok(settings)
}

/// The largest message and the longest retention of any source; -1: for ever.
async fn source_limits(admin: &AdminClient<KafkaLog>, sources: &[String]) -> Result<(u64, i64), TopicError> {
    let (mut bytes, mut retention) = (KAFKA_MAX_MESSAGE_BYTES, 0);
    for source in sources {
        let settings = settings_of(admin, source).await?.all;
        let max_bytes = settings.get("max.message.bytes").and_then(|value| value.parse().ok());
        bytes = bytes.max(max_bytes.unwrap_or(KAFKA_MAX_MESSAGE_BYTES));
        let retention_ms =
            settings.get("retention.ms").and_then(|value| value.parse().ok()).unwrap_or(KAFKA_RETENTION_MS);
        retention = if retention_ms < 0 || retention < 0 { -1 } else { retention.max(retention_ms) };
    }
    Ok((bytes, retention))
}
