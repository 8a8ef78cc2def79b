//! What librdkafka says, as log lines of ours: leveled by what an operator must do.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::KafkaError;
use rdkafka::producer::{DeliveryResult, NoCustomPartitioner, ProducerContext};

/// The same error of a client is said again after so long.
const SAID_AGAIN_AFTER: Duration = Duration::from_secs(5);

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

    /// A client whose brokers are away is told so hundreds of times in a moment.
    fn error(&self, error: KafkaError, reason: &str) {
        if LAST_SAID.is_news(format!("{error} {reason}"), Instant::now()) {
            tracing::warn!(%error, reason, "kafka client");
        }
    }
}

/// What was said last.
struct LastSaid(Mutex<Option<(String, Instant)>>);

static LAST_SAID: LastSaid = LastSaid(Mutex::new(None));

impl LastSaid {
    /// Whether this was not said a moment ago.
    fn is_news(&self, said: String, now: Instant) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if last.as_ref().is_some_and(|(before, at)| *before == said && now < *at + SAID_AGAIN_AFTER) {
            return false;
        }
        *last = Some((said, now));
        true
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
    fn the_same_error_is_said_every_few_seconds() {
        let (last, begin) = (LastSaid(Mutex::new(None)), Instant::now());
        let is_news =
            |said: &str, seconds| last.is_news(said.to_owned(), begin + Duration::from_secs(seconds));
        assert!(is_news("down", 0));
        assert!(!is_news("down", 4));
        assert!(is_news("down", 5));
        assert!(is_news("another one", 5));
    }

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
