//! The way into `credits.alerts.dead`, and out of it again.
//!
//! A replay is a record in the same topic that names the dead one: `credits.alerts` holds what the ledger stage wrote
//! in its transactions and nothing else, each alert once.

use std::time::Duration;

use bytes::Bytes;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DeliveryResult, NoCustomPartitioner, ProducerContext, ThreadedProducer};
use tokio::sync::oneshot;

use crate::kafka::{Clients, KafkaLog};

/// Header: name of the endpoint that did not take it, or that is to get it again.
pub const ENDPOINT: &str = "cs_endpoint";
/// Header: why it was given up.
pub const DETAIL: &str = "cs_detail";
/// Header of a replay: PARTITION/OFFSET of the dead alert, or TOPIC/PARTITION/OFFSET of an alert that is not dead.
pub const REPLAY_OF: &str = "cs_replay_of";

/// Pause before a record that Kafka did not take is sent again.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Tells whoever waits for a record what became of it.
struct Reports;

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        KafkaLog.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        KafkaLog.error(error, reason);
    }
}

impl ProducerContext<NoCustomPartitioner> for Reports {
    type DeliveryOpaque = Box<oneshot::Sender<KafkaResult<()>>>;

    fn delivery(&self, result: &DeliveryResult<'_>, waits: Self::DeliveryOpaque) {
        // An error says that nobody waits any more.
        let _ = waits.send(result.as_ref().map(|_| ()).map_err(|(error, _)| error.clone()));
    }
}

/// A record of the topic of dead alerts.
pub struct DeadAlert<'a> {
    /// Partition: the one that the alert stands in among all alerts.
    pub partition: i32,
    /// Wallet.
    pub key: &'a str,
    /// The alert as it came.
    pub body: &'a Bytes,
    /// Endpoint.
    pub endpoint: &'a str,
    /// [`DETAIL`] or [`REPLAY_OF`], and its value.
    pub why: (&'static str, &'a str),
}

/// Writes dead alerts. Any number of tasks may use it.
pub struct DeadLetters {
    producer: ThreadedProducer<Reports>,
    topic: String,
}

impl DeadLetters {
    /// # Errors
    /// A setting that librdkafka refuses.
    pub fn new(clients: &Clients, topic: &str) -> KafkaResult<DeadLetters> {
        Ok(DeadLetters { producer: clients.threaded_producer(Reports)?, topic: topic.to_owned() })
    }

    /// Returns when all replicas have it; tries until then.
    pub async fn write(&self, dead: &DeadAlert<'_>) {
        while let Err(error) = self.try_write(dead).await {
            tracing::warn!(%error, topic = self.topic, "a dead alert was not written: trying again");
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    /// Returns when all replicas have it.
    ///
    /// # Errors
    /// Kafka did not take it; it may be there all the same.
    pub async fn try_write(&self, dead: &DeadAlert<'_>) -> KafkaResult<()> {
        let (name, value) = dead.why;
        let headers = OwnedHeaders::new()
            .insert(Header { key: ENDPOINT, value: Some(dead.endpoint) })
            .insert(Header { key: name, value: Some(value) });
        let (sender, report) = oneshot::channel();
        let record = BaseRecord::with_opaque_to(&self.topic, Box::new(sender))
            .partition(dead.partition)
            .key(dead.key.as_bytes())
            .payload(dead.body.as_ref())
            .headers(headers);
        self.producer.send(record).map_err(|(error, _)| error)?;
        report.await.map_err(|_| KafkaError::Canceled)?
    }
}
