//! Which topics are read, and whether their records stay where they are.
//!
//! A source with as many partitions as there are shards is read at home: a record whose key puts it onto the
//! partition of its wallet's shard stays there. Everything else is handed over through intake. What was decided
//! at the first start is recorded in progress and kept: a new route would overtake records still under way.

use std::time::{Duration, Instant};

use rdkafka::client::{Client, ClientContext};
use tracing::warn;

use super::stage::LedgerError;
use crate::config::TopicsConfig;
use crate::event::SourceKind;
use crate::kafka::describe_topics;

/// How long the brokers may take for an answer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Brokers that begin, or that begin again, are asked for so long, and the last answer is waited for: less than half a minute.
const PATIENCE: Duration = Duration::from_secs(15);

/// What a topic is to the ledger stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TopicRole {
    /// Events as producers send them.
    Source(SourceKind),
    /// Records on their way to the shard that owns their wallet.
    Intake,
}

/// A topic that is read.
#[derive(Clone, Debug)]
pub struct Topic {
    /// Name.
    pub name: String,
    /// Id: another one after it was deleted and made anew.
    pub topic_id: String,
    /// Number of partitions.
    pub partitions: i32,
    /// What it is.
    pub role: TopicRole,
}

/// The topics of the ledger stage.
#[derive(Clone, Debug)]
pub struct Routes {
    /// Topics that are read: sources, then intake. Elsewhere a topic is its index here.
    pub topics: Vec<Topic>,
    /// Number of shards: partitions of the ledger.
    pub shards: i32,
    /// Topics that are written.
    pub out: TopicsConfig,
    /// Id of the ledger topic: names the checkpoints that belong to it.
    pub ledger_id: String,
}

impl Routes {
    /// Whether records of a topic stay with the shard of their partition.
    pub fn is_at_home(&self, topic: &Topic) -> bool {
        topic.role == TopicRole::Intake || topic.partitions == self.shards
    }

    /// Asks the cluster about the configured topics. An instance that is started together with its brokers, or while they
    /// are away, waits for them: for 20 s, or until `is_over`.
    ///
    /// # Errors
    /// The brokers do not answer. A topic is missing, or a `credits.*` topic has another number of partitions than the ledger.
    pub fn discover<C: ClientContext>(
        client: &Client<C>,
        config: &TopicsConfig,
        is_over: impl Fn() -> bool,
    ) -> Result<Routes, LedgerError> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match Routes::read(client, config) {
                Err(LedgerError::Unreachable(why)) if Instant::now() < deadline && !is_over() => {
                    warn!(why, "kafka cannot be reached yet: asking again");
                }
                result => return result,
            }
        }
    }

    fn read<C: ClientContext>(client: &Client<C>, config: &TopicsConfig) -> Result<Routes, LedgerError> {
        let generation = config
            .generation_topics()
            .into_iter()
            .map(|name| (name, TopicRole::Source(SourceKind::Generation)));
        let wallet =
            config.wallet_topics().into_iter().map(|name| (name, TopicRole::Source(SourceKind::Wallet)));
        let read: Vec<(String, TopicRole)> =
            generation.chain(wallet).chain([(config.intake.clone(), TopicRole::Intake)]).collect();
        let own = [&config.ledger, &config.alerts, &config.wallets, &config.progress, &config.intake];
        let names: Vec<&str> = read
            .iter()
            .map(|(name, _)| name.as_str())
            .chain(own.iter().map(|name| name.as_str()))
            .chain([config.quarantine.as_str()])
            .collect();
        let mut unique = names.clone();
        unique.sort_unstable();
        unique.dedup();
        let found = describe_topics(client, &unique, TIMEOUT).map_err(LedgerError::Unreachable)?;
        let described = |name: &str| found.iter().find(|topic| topic.name == name && topic.partitions > 0);
        if let Some(missing) = names.iter().find(|name| described(name).is_none()) {
            return Err(LedgerError::Setup(format!(
                "topic {missing} does not exist: run `creditstream init`"
            )));
        }
        let ledger = described(&config.ledger).cloned();
        let ledger =
            ledger.ok_or_else(|| LedgerError::Setup(format!("topic {} does not exist", config.ledger)))?;
        for name in own {
            let partitions = described(name).map_or(0, |topic| topic.partitions);
            if partitions != ledger.partitions {
                return Err(LedgerError::Setup(format!(
                    "topic {name} has {partitions} partitions, {} has {}: both must have one per shard",
                    config.ledger, ledger.partitions
                )));
            }
        }
        let topics = read.into_iter().filter_map(|(name, role)| {
            let topic = described(&name)?;
            Some(Topic { topic_id: topic.topic_id.clone(), partitions: topic.partitions, name, role })
        });
        Ok(Routes {
            topics: topics.collect(),
            shards: ledger.partitions,
            out: config.clone(),
            ledger_id: ledger.topic_id,
        })
    }

    /// Index of a topic by its name.
    pub fn index_of(&self, name: &str) -> Option<usize> {
        self.topics.iter().position(|topic| topic.name == name)
    }

    /// The topic with that index.
    pub fn topic(&self, index: usize) -> Option<&Topic> {
        self.topics.get(index)
    }

    /// Index of intake.
    pub fn intake(&self) -> usize {
        self.topics.len().saturating_sub(1)
    }

    /// What kind of source a topic is, by its name; a handed-over record may come from one that is no longer
    /// configured, and is then taken for usage, which mints no credits.
    pub fn source_kind(&self, name: &str) -> SourceKind {
        let role = self.topics.iter().find(|topic| topic.name == name).map(|topic| topic.role);
        match role {
            Some(TopicRole::Source(kind)) => kind,
            _ => SourceKind::Generation,
        }
    }
}
