//! Owns the Kafka clients: their settings, the topics, and the few calls that the safe API lacks.
//!
//! **Invariant:** correctness does not rest on a client's default: what a transaction, an isolation level or a
//! partitioner must be is set here, and no configuration can override it. Nothing here knows credits.

mod clients;
mod log;
mod partition;
mod reader;
mod sys;
mod topics;

pub use clients::{Clients, KafkaConsumer, KafkaProducer, set_session, watermarks};
pub use log::{ConnectionLog, KafkaLog};
pub use partition::partition_for;
pub use reader::{ReadError, Stretch, TopicReader};
pub use sys::{
    BatchTopic, GroupMetadata, OutgoingRecord, Polled, PolledConsumer, RecordView, TopicDescription,
    TransactionError, TransactionalProducer, describe_topics, librdkafka_version, poll_events, serve_events,
    take_records,
};
pub use topics::{TopicError, init_topics};
