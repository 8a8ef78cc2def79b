//! What librdkafka says, as log lines of ours: leveled by what an operator must do.

use std::sync::atomic::{AtomicU64, Ordering};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::KafkaError;
use rdkafka::producer::{DeliveryResult, NoCustomPartitioner, ProducerContext};

/// Context of all clients.
#[derive(Clone, Copy, Debug, Default)]
pub struct KafkaLog;

impl ClientContext for KafkaLog {
    /// librdkafka mends nearly all that it calls an error by itself; what it cannot is returned by a call.
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
                tracing::error!(facility, message, "librdkafka")
            }
            RDKafkaLogLevel::Error | RDKafkaLogLevel::Warning => {
                tracing::warn!(facility, message, "librdkafka")
            }
            RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => {
                tracing::info!(facility, message, "librdkafka")
            }
            RDKafkaLogLevel::Debug => tracing::debug!(facility, message, "librdkafka"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::warn!(%error, reason, "kafka client");
    }
}

impl ConsumerContext for KafkaLog {}

impl ProducerContext<NoCustomPartitioner> for KafkaLog {
    type DeliveryOpaque = ();

    /// A failed delivery also fails the flush or the transaction that waits for it.
    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            tracing::warn!(%error, "a record was not delivered");
        }
    }
}

/// Context of transactional producers: the same, and how often a connection broke that had been up.
#[derive(Debug, Default)]
pub struct ConnectionLog {
    lost: AtomicU64,
}

impl ConnectionLog {
    /// Connections lost so far.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

impl ClientContext for ConnectionLog {
    /// librdkafka tells of a lost connection here only, at level info and with `log.connection.close`. One that could not be
    /// made, or that was idle, is none.
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        if facility == "FAIL" && message.contains(" in state UP") {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        KafkaLog.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        KafkaLog.error(error, reason);
    }
}

impl ProducerContext<NoCustomPartitioner> for ConnectionLog {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, opaque: ()) {
        KafkaLog.delivery(result, opaque);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_connection_that_had_been_up_counts_as_lost() {
        let context = ConnectionLog::default();
        let fail = |message| context.log(RDKafkaLogLevel::Info, "FAIL", message);
        fail(
            "[thrd:b/1]: b/1: Connect to ipv4#127.0.0.1:1 failed: Connection refused (after 0ms in state CONNECT)",
        );
        fail(
            "[thrd:b/1]: b/1: Disconnected: connection closed by peer (after 0ms in state APIVERSION_QUERY)",
        );
        context.log(
            RDKafkaLogLevel::Warning,
            "REQTMOUT",
            "[thrd:b/1]: timed out 1 in-flight (after 9ms in state UP)",
        );
        assert_eq!(context.lost(), 0);
        fail(
            "[thrd:b/1]: b/1: Disconnected: connection closed by peer: receive 0 (after 20182ms in state UP)",
        );
        assert_eq!(context.lost(), 1);
    }
}
