//! Makes clients: one place for the settings that correctness and speed rest on.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::AdminClient;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaResult;
use rdkafka::producer::{BaseProducer, NoCustomPartitioner, ProducerContext, ThreadedProducer};

use super::{ConnectionLog, KafkaLog, PolledConsumer};
use crate::config::Config;

/// A consumer of ours.
pub type KafkaConsumer = PolledConsumer<KafkaLog>;
/// A producer of ours.
pub type KafkaProducer = BaseProducer<KafkaLog>;

/// A member that does not poll for so long is out, and a rebalance waits so long for a member that does not join. Short,
/// for a broker (4.3) that comes back after a crash may keep members that are no more for all of it; members of ours poll
/// at all times, also while they restore.
const POLL_INTERVAL_MS_MAX: u32 = 30_000;

/// How long a question to the brokers may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Sets when a group takes a member for gone.
pub fn set_session(client: &mut ClientConfig, session_timeout_ms: u32) {
    client.set("session.timeout.ms", session_timeout_ms.to_string());
    client.set("heartbeat.interval.ms", (session_timeout_ms / 5).to_string());
    client.set("max.poll.interval.ms", POLL_INTERVAL_MS_MAX.max(session_timeout_ms).to_string());
}

/// Makes Kafka clients from the configuration.
#[derive(Clone)]
pub struct Clients {
    config: Arc<Config>,
}

impl Clients {
    /// For the configured cluster.
    pub fn new(config: Arc<Config>) -> Clients {
        Clients { config }
    }

    fn base(&self, role: &str) -> ClientConfig {
        let mut client = ClientConfig::new();
        for (name, value) in self.config.kafka.properties.as_map() {
            client.set(name, value);
        }
        client.set("bootstrap.servers", self.config.kafka.bootstrap_servers());
        client.set("client.id", format!("{}-{role}", self.config.kafka.client_id));
        client.set("log.connection.close", "false");
        client
    }

    fn consumer_base(&self, role: &str, group: &str) -> ClientConfig {
        let mut client = self.base(role);
        client.set("group.id", group);
        client.set("enable.auto.commit", "false");
        client.set("enable.auto.offset.store", "false");
        client.set("auto.offset.reset", "earliest");
        client.set("enable.partition.eof", "true");
        // The default back-off starves a fast poll loop. What is fetched ahead is bounded: a larger
        // queue is not faster, for then every record is read from memory instead of from the processor's cache.
        client.set("queued.min.messages", "50000");
        client.set("queued.max.messages.kbytes", self.config.ledger.fetch_queue_kib.to_string());
        client.set("fetch.queue.backoff.ms", "5");
        client.set("fetch.wait.max.ms", "50");
        client.set("fetch.max.bytes", "8388608");
        client.set("fetch.message.max.bytes", "1048576");
        client
    }

    /// A member of the ledger group. `range` gives one member the same partition of equally split topics.
    ///
    /// # Errors
    /// A setting that librdkafka refuses.
    pub fn ledger_consumer(&self, worker: usize) -> KafkaResult<KafkaConsumer> {
        let ledger = &self.config.ledger;
        let mut client = self.consumer_base(&format!("ledger-{worker}"), &ledger.group);
        client.set("isolation.level", "read_committed");
        client.set("partition.assignment.strategy", "range");
        set_session(&mut client, ledger.session_timeout_ms);
        if ledger.static_membership {
            client.set("group.instance.id", self.member_name(worker));
        }
        PolledConsumer::new(client.create_with_context(KafkaLog)?)
    }

    /// The producer of a worker. Its transactional id is stable over restarts, so that a restart settles what
    /// the last run left.
    ///
    /// # Errors
    /// A setting that librdkafka refuses.
    pub fn transactional_producer(&self, worker: usize) -> KafkaResult<BaseProducer<ConnectionLog>> {
        let timeout_ms = self.config.ledger.transaction_timeout_ms;
        let mut client = self.producer_base(&format!("ledger-{worker}"));
        client.set("transactional.id", self.member_name(worker));
        client.set("transaction.timeout.ms", timeout_ms.to_string());
        client.set("message.timeout.ms", timeout_ms.to_string());
        client.set("delivery.report.only.error", "true");
        // What `ConnectionLog` counts must be said, whatever else is silent and however little is logged.
        client.set("log.connection.close", "true");
        client.set_log_level(RDKafkaLogLevel::Info);
        client.create_with_context(ConnectionLog::default())
    }

    /// A producer for commands: no transactions, every record acknowledged by all replicas.
    ///
    /// # Errors
    /// A setting that librdkafka refuses.
    pub fn producer(&self) -> KafkaResult<KafkaProducer> {
        self.producer_base("producer").create_with_context(KafkaLog)
    }

    /// The same with a thread that serves its delivery reports, which go to the caller's context.
    ///
    /// # Errors
    /// A setting that librdkafka refuses.
    pub fn threaded_producer<C>(&self, context: C) -> KafkaResult<ThreadedProducer<C>>
    where
        C: ProducerContext<NoCustomPartitioner> + 'static,
    {
        self.producer_base("producer").create_with_context(context)
    }

    /// A member of a group that commits for itself, with the caller's own callbacks.
    ///
    /// # Errors
    /// A setting that librdkafka refuses.
    pub fn group_member<C: ConsumerContext>(
        &self,
        role: &str,
        group: &str,
        context: C,
    ) -> KafkaResult<BaseConsumer<C>> {
        let mut client = self.consumer_base(role, group);
        client.set("enable.partition.eof", "false");
        client.set("isolation.level", "read_committed");
        client.set("partition.assignment.strategy", "range");
        set_session(&mut client, self.config.ledger.session_timeout_ms);
        client.create_with_context(context)
    }

    fn producer_base(&self, role: &str) -> ClientConfig {
        let mut client = self.base(role);
        client.set("enable.idempotence", "true");
        client.set("acks", "all");
        client.set("compression.type", "lz4");
        client.set("linger.ms", "5");
        client.set("batch.size", "1000000");
        client.set("batch.num.messages", "10000");
        client.set("queue.buffering.max.messages", "2000000");
        client.set("queue.buffering.max.kbytes", "1048576");
        // Above what any source allows: a record must be able to reach the quarantine.
        client.set("message.max.bytes", "67108864");
        client
    }

    /// Reads partitions by assignment, without being a member of any group. `read_committed`.
    ///
    /// # Errors
    /// A setting that librdkafka refuses.
    pub fn committed_reader(&self, role: &str) -> KafkaResult<KafkaConsumer> {
        let mut client = self.consumer_base(role, &format!("{}-{role}", self.config.kafka.client_id));
        client.set("isolation.level", "read_committed");
        // An end is told by an empty answer: what is read to its end, many short partitions one after the other, does not
        // gain by answers that wait for more.
        client.set("fetch.wait.max.ms", "5");
        PolledConsumer::new(client.create_with_context(KafkaLog)?)
    }

    /// Asks for the true ends of partitions. `read_uncommitted`: a read_committed client is told the last
    /// stable offset, which can lie before a batch that is committed already.
    ///
    /// # Errors
    /// A setting that librdkafka refuses.
    pub fn watermark_reader(&self, role: &str) -> KafkaResult<BaseConsumer<KafkaLog>> {
        let mut client = self.base(role);
        client.set("isolation.level", "read_uncommitted");
        client.create_with_context(KafkaLog)
    }

    /// Asks for the committed positions of the ledger group, as [`Clients::group_reader`] does.
    ///
    /// # Errors
    /// A setting that librdkafka refuses.
    pub fn ledger_group_reader(&self) -> KafkaResult<BaseConsumer<KafkaLog>> {
        self.group_reader(&self.config.ledger.group)
    }

    /// Asks for the committed positions of a group, without being a member of it. Stable ones: it waits while a transaction
    /// that moves them is open.
    ///
    /// # Errors
    /// A setting that librdkafka refuses.
    pub fn group_reader(&self, group: &str) -> KafkaResult<BaseConsumer<KafkaLog>> {
        let mut client = self.base("positions");
        client.set("group.id", group);
        client.set("isolation.level", "read_committed");
        client.create_with_context(KafkaLog)
    }

    /// For topics and their settings.
    ///
    /// # Errors
    /// A setting that librdkafka refuses.
    pub fn admin(&self) -> KafkaResult<AdminClient<KafkaLog>> {
        self.base("admin").create_with_context(KafkaLog)
    }

    /// Unique among all workers of the deployment, stable over restarts.
    fn member_name(&self, worker: usize) -> String {
        format!("{}-{}-{worker}", self.config.ledger.group, self.config.instance_name())
    }
}

/// First and next offset of a partition, as that client's isolation sees it.
///
/// # Errors
/// The brokers do not answer, or do not know the partition.
pub fn watermarks(consumer: &BaseConsumer<KafkaLog>, topic: &str, partition: i32) -> KafkaResult<(i64, i64)> {
    consumer.client().fetch_watermarks(topic, partition, REQUEST_TIMEOUT)
}
