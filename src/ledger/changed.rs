//! Sources that are not what they were when they were first read. They are not read until a person accepts them
//! (`accept.rs`); the others go on.
//!
//! **Invariant:** nothing of such a source is passed over silently, and while it stands still it holds the clock of the
//! shards that read it at home: what its records would have used must not expire over it.

use std::collections::{BTreeMap, HashMap};

use rdkafka::TopicPartitionList;
use tracing::error;

use super::compute::SourceId;
use super::progress::PartitionProgress;
use super::routes::{Topic, TopicRole};
use super::stage::LedgerError;
use super::worker::Worker;
use super::world::{Member, World};

/// Reason of `shard_stopped` where a source is not what it was; the label `shard` is its partition.
const SOURCE_CHANGED: &str = "source_changed";

/// A source topic that is not what it was.
pub struct Changed {
    /// Why, and the way out.
    why: String,
    /// Whether its records stayed with the shards of their partitions.
    pub was_at_home: bool,
}

/// What of a topic is known from the progress of all its partitions; `None`: it is as it was, or new.
pub fn changed(topic: &Topic, known: &HashMap<String, PartitionProgress>) -> Option<Changed> {
    let name = &topic.name;
    let of_topic = |key: &str| key.rsplit_once('/').is_some_and(|(of, _)| of == name);
    let before: Vec<&PartitionProgress> =
        known.iter().filter(|(key, _)| of_topic(key)).map(|(_, progress)| progress).collect();
    let is_other = |progress: &&&PartitionProgress| {
        progress.topic_id != topic.topic_id || progress.partitions != topic.partitions
    };
    let other = before.iter().find(is_other)?;
    let why = if topic.role == TopicRole::Intake {
        format!(
            "topic {name} was deleted and made anew, or repartitioned (id {}, {} partitions before; id {}, {} now): records on their way to their shards may be lost with it; keep all topics as they are, and report it",
            other.topic_id, other.partitions, topic.topic_id, topic.partitions
        )
    } else if other.topic_id != topic.topic_id {
        format!(
            "topic {name} was deleted and made anew (id {} before, {} now), its offsets begin again: stop all instances, then `creditstream accept topic {name}` takes it up from its beginning",
            other.topic_id, topic.topic_id
        )
    } else {
        format!(
            "topic {name} had {} partitions when it was first read, now {}, and records under way would be overtaken: wait until no instance has anything of intake to read, stop all instances, then `creditstream accept partitions {name}`",
            other.partitions, topic.partitions
        )
    };
    Some(Changed { why, was_at_home: before.iter().any(|progress| progress.at_home) })
}

impl<W: World> Worker<W> {
    /// The topics that are not what they were, by index.
    ///
    /// # Errors
    /// Intake is one of them: without it no shard can be owned.
    pub(super) fn changed_topics(
        &self,
        known: &HashMap<String, PartitionProgress>,
    ) -> Result<BTreeMap<usize, Changed>, LedgerError> {
        let mut found = BTreeMap::new();
        for (index, topic) in self.setup.routes.topics.iter().enumerate() {
            match changed(topic, known) {
                Some(changed) if topic.role == TopicRole::Intake => {
                    return Err(LedgerError::Setup(changed.why));
                }
                Some(changed) => drop(found.insert(index, changed)),
                None => {}
            }
        }
        Ok(found)
    }

    /// Whether a source that the group gives must not be read: its topic has changed, or its offsets went back earlier.
    pub(super) fn refuses(&mut self, id: SourceId) -> bool {
        let why = self.changed.get(&id.0).map(|changed| &changed.why).or(self.went_back.get(&id)).cloned();
        let Some(why) = why else { return false };
        self.refuse(id, &why);
        true
    }

    fn refuse(&mut self, id: SourceId, why: &str) {
        let topic = self.setup.routes.topic(id.0).map_or("", |topic| topic.name.as_str());
        error!(topic, partition = id.1, why, "this source is not read until it is accepted");
        let labels = [id.1.to_string(), SOURCE_CHANGED.to_owned()];
        self.setup.metrics.shard_stopped.with_label_values(&labels).set(1);
        self.refused.insert(id);
    }

    /// Sources whose offsets went back within an assignment are read no more: it is another topic of that name, or a log
    /// that was cut, and what stands there now must not be taken for what was read before. Whether there were any; then
    /// the batch that met them must be dropped.
    ///
    /// # Errors
    /// It is intake, or seeking back fails.
    pub(super) fn refuse_gone_back(&mut self) -> Result<bool, LedgerError> {
        let came = |(id, source): (&SourceId, &super::compute::SourceSlot)| {
            Some((*id, source.went_back?, source.head.next))
        };
        let gone: Vec<(SourceId, i64, i64)> = self.sources.iter().filter_map(came).collect();
        if gone.is_empty() {
            return Ok(false);
        }
        self.apply_landed();
        let mut paused = TopicPartitionList::new();
        for (id, came, next) in gone {
            let Some(topic) = self.setup.routes.topic(id.0) else { continue };
            let (name, is_intake) = (topic.name.clone(), topic.role == TopicRole::Intake);
            let why = format!(
                "{name}/{}: offset {came} came where {next} or later was to come: the topic was deleted and made anew, or its log was cut; stop all instances, then `creditstream accept topic {name}`",
                id.1
            );
            if is_intake {
                return Err(LedgerError::Setup(why));
            }
            paused.add_partition(&name, id.1);
            self.refuse(id, &why);
            self.went_back.insert(id, why);
            self.sources.remove(&id);
            if let Some(slot) = self.shards.get_mut(&id.1) {
                // Not at its end: it holds the clock, where it is one of the shard's.
                slot.state.head.clock.record_read(id.0);
            }
        }
        self.member.pause(&paused)?;
        self.rewind()?;
        Ok(true)
    }

    /// What was exported of sources that are not read.
    pub(super) fn clear_refused(&mut self) {
        for (_, partition) in std::mem::take(&mut self.refused) {
            // An error says that there is none.
            let _ = self
                .setup
                .metrics
                .shard_stopped
                .remove_label_values(&[&partition.to_string(), SOURCE_CHANGED]);
        }
    }
}
