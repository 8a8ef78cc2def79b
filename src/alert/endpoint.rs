//! One endpoint: from its consumer over the queue to requests, and back to positions. One task owns all of it, and no
//! endpoint knows another: a slow or dead one delays nobody else.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rdkafka::error::KafkaError;
use thiserror::Error;
use tokio::task::{JoinError, JoinSet};

use super::client::{Outcome, Sender};
use super::dead::{DETAIL, DeadAlert, DeadLetters};
use super::queue::{Answer, Decision, Item, Queue, Retry, Source};
use super::reader::{Event, PassedOver, Reader, Received};
use super::record::{ALERT_FORMAT, Alert};
use super::sign::webhook_id;
use crate::config::{Config, EndpointConfig};
use crate::fault::fault_point;
use crate::metrics::Metrics;
use crate::time::Timestamp;

/// How often the age of the oldest alert is said.
const GAUGE_EVERY: Duration = Duration::from_secs(1);
/// How long leaving the group may take at shutdown.
const LEAVE_WAIT_MAX: Duration = Duration::from_millis(1_500);

/// Why an endpoint's task ended.
#[derive(Debug, Error)]
pub enum EndpointError {
    /// The Kafka consumer cannot go on.
    #[error(
        "kafka: {0}; check kafka.properties and the rights on topics.alerts, topics.alerts_dead and the group"
    )]
    Kafka(#[from] KafkaError),
    /// Our bug.
    #[error("a request's task failed: {0}; please report this")]
    Bug(#[from] JoinError),
}

/// What a task that was started for an alert has to say.
enum Done {
    Answered { item: Item, outcome: Outcome, answer: Answer, seconds: f64 },
    Buried(Item),
}

/// The state of one endpoint.
pub struct Endpoint {
    config: Arc<Config>,
    endpoint: EndpointConfig,
    metrics: Metrics,
    sender: Arc<Sender>,
    dead: Arc<DeadLetters>,
    reader: Reader,
    queue: Queue,
    under_way: JoinSet<Done>,
}

impl Endpoint {
    /// Begins to read.
    ///
    /// # Errors
    /// Where the consumer cannot be made.
    pub fn start(
        config: &Arc<Config>,
        endpoint: &EndpointConfig,
        metrics: &Metrics,
        dead: &Arc<DeadLetters>,
    ) -> Result<Endpoint, EndpointError> {
        let settings = &config.dispatcher;
        let retry = Retry {
            min: Duration::from_millis(settings.retry_ms_min.into()),
            max: Duration::from_millis(settings.retry_ms_max.into()),
            give_up_after: Duration::from_secs(settings.give_up_after_seconds.into()),
        };
        Ok(Endpoint {
            config: Arc::clone(config),
            metrics: metrics.clone(),
            sender: Arc::new(Sender::new(settings, endpoint)),
            dead: Arc::clone(dead),
            reader: Reader::start(config, endpoint)?,
            endpoint: endpoint.clone(),
            queue: Queue::new(retry),
            under_way: JoinSet::new(),
        })
    }

    /// Runs until it cannot go on. The future may be dropped at any time, then [`Endpoint::stop`].
    ///
    /// # Errors
    /// See [`EndpointError`].
    pub async fn run(&mut self) -> Result<(), EndpointError> {
        let mut gauge = tokio::time::interval(GAUGE_EVERY);
        loop {
            self.begin_due();
            let positions = self.queue.take_positions();
            if !positions.is_empty() {
                fault_point!("dispatcher.settled");
                self.reader.commit(positions);
            }
            let has_room = self.under_way.len() < self.config.dispatcher.requests_max;
            let next_due = self.queue.next_due().filter(|_| has_room);
            tokio::select! {
                event = self.reader.next() => self.take(event)?,
                Some(done) = self.under_way.join_next() => self.finish(done?),
                () = until(next_due) => {}
                _ = gauge.tick() => self.say_age(),
            }
        }
    }

    /// Leaves the group. What is under way is abandoned, and sent again by the next one.
    pub async fn stop(self) {
        let Endpoint { reader, under_way, metrics, endpoint, .. } = self;
        drop(under_way);
        metrics.webhook_oldest_pending_seconds.with_label_values(&[&endpoint.name]).set(0.0);
        reader.stop(LEAVE_WAIT_MAX).await;
    }

    fn take(&mut self, event: Event) -> Result<(), EndpointError> {
        match event {
            Event::PassedOver(passed_over) => self.say_passed_over(passed_over),
            Event::Record(received) => self.take_record(received),
            Event::Revoked => {
                // Dropped, their requests end; whoever owns the partitions sends those alerts again.
                self.under_way = JoinSet::new();
                self.reader.release(self.queue.len());
                self.queue.clear();
            }
            Event::Ended(error) => return Err(error.into()),
        }
        Ok(())
    }

    fn say_passed_over(&self, passed_over: PassedOver) {
        let endpoint = self.endpoint.name.as_str();
        let PassedOver { alerts, oldest, newest } = passed_over;
        self.metrics.webhook_passed_over.with_label_values(&[endpoint]).inc_by(alerts);
        tracing::warn!(
            endpoint, alerts, %oldest, %newest,
            "the endpoint begins with the alerts that are not too old: earlier ones are passed over; if it is not new, and its \
             group's positions were lost, `creditstream alerts replay --endpoint {endpoint} --from TIME` has them sent"
        );
    }

    fn take_record(&mut self, received: Received) {
        match wanted(&self.endpoint, received) {
            Ok(item) => {
                self.queue.push(item);
                fault_point!("dispatcher.read");
            }
            Err(place) => {
                self.reader.release(1);
                self.queue.pass(place);
            }
        }
    }

    /// Starts what is due, as far as there is room.
    fn begin_due(&mut self) {
        while self.under_way.len() < self.config.dispatcher.requests_max {
            let Some(item) = self.queue.take_due(Timestamp::now()) else { return };
            if let Some(why) = item.unreadable.clone() {
                self.bury(item, why);
            } else if self.queue.is_gone() {
                self.bury(item, "the endpoint has answered 410 Gone".to_owned());
            } else {
                let sender = Arc::clone(&self.sender);
                self.under_way.spawn(async move {
                    let begun = Instant::now();
                    fault_point!("dispatcher.before_request");
                    let (outcome, answer) = sender.send(&item).await;
                    fault_point!("dispatcher.answered");
                    Done::Answered { item, outcome, answer, seconds: begun.elapsed().as_secs_f64() }
                });
            }
        }
    }

    fn finish(&mut self, done: Done) {
        match done {
            Done::Buried(item) => {
                self.queue.settle(&item, Timestamp::now());
                self.reader.release(1);
                self.count("dead");
            }
            Done::Answered { item, outcome, answer, seconds } => {
                self.count(outcome.as_str());
                let duration = &self.metrics.webhook_delivery_duration_seconds;
                duration.with_label_values(&[&self.endpoint.name]).observe(seconds);
                self.decide(item, answer);
            }
        }
    }

    fn decide(&mut self, item: Item, answer: Answer) {
        let endpoint = &self.endpoint.name;
        let detail = match &answer {
            Answer::Failed { detail, .. } => detail.clone(),
            Answer::Delivered | Answer::Gone => String::new(),
        };
        let was_gone = self.queue.is_gone();
        match self.queue.answered(&item, answer, Timestamp::now(), rand::random()) {
            Decision::Done => self.reader.release(1),
            Decision::Later(at) => {
                tracing::warn!(endpoint, wallet = &*item.wallet, id = item.id, detail, next_try = %at, "an alert was not taken");
            }
            Decision::GiveUp(why) => {
                if self.queue.is_gone() && !was_gone {
                    tracing::error!(
                        endpoint,
                        "the endpoint answered 410 Gone: nothing more is sent to it until a restart"
                    );
                }
                self.bury(item, why);
            }
        }
    }

    /// Writes an alert to the topic of dead ones; it is settled when Kafka has it.
    fn bury(&mut self, item: Item, why: String) {
        let (dead, endpoint) = (Arc::clone(&self.dead), self.endpoint.name.clone());
        tracing::error!(endpoint, wallet = &*item.wallet, id = item.id, why, "an alert is given up");
        self.under_way.spawn(async move {
            let record = DeadAlert {
                partition: item.place.partition,
                key: &item.wallet,
                body: &item.body,
                endpoint: &endpoint,
                why: (DETAIL, &why),
            };
            fault_point!("dispatcher.before_dead");
            dead.write(&record).await;
            fault_point!("dispatcher.dead_written");
            Done::Buried(item)
        });
    }

    fn count(&self, outcome: &str) {
        self.metrics.webhook_deliveries.with_label_values(&[&self.endpoint.name, outcome]).inc();
    }

    fn say_age(&self) {
        let now_ms = Timestamp::now().millis();
        let age_ms = self.queue.oldest().map_or(0, |since| now_ms.saturating_sub(since.millis()).max(0));
        let gauge = self.metrics.webhook_oldest_pending_seconds.with_label_values(&[&self.endpoint.name]);
        gauge.set(age_ms as f64 / 1_000.0);
    }
}

/// The alert on its way, or the place of a record that this endpoint does not want. One that cannot be read is wanted
/// by all: it must not vanish.
///
/// # Errors
/// The place.
pub fn wanted(endpoint: &EndpointConfig, received: Received) -> Result<Item, super::queue::Place> {
    let Received { place, timestamp, key, value, replay_for } = received;
    let is_replay = replay_for.as_deref() == Some(&endpoint.name);
    if place.source == Source::Dead && !is_replay {
        return Err(place);
    }
    let item = |wallet: &str, id: String, unreadable| Item {
        place,
        since: timestamp,
        wallet: wallet.into(),
        id,
        body: Bytes::from(value.clone()),
        unreadable,
    };
    match serde_json::from_slice::<Alert<'_>>(&value) {
        Ok(alert) if is_replay || fits(endpoint, &alert) => {
            // A later format may say things that this one does not know: it is not for us to judge what is in it.
            let unreadable = (alert.v > ALERT_FORMAT)
                .then(|| format!("format version {}, known is {ALERT_FORMAT}", alert.v));
            Ok(item(&alert.wallet_id, webhook_id(&alert.alert_id), unreadable))
        }
        Ok(_) => Err(place),
        Err(error) => {
            Ok(item(&String::from_utf8_lossy(&key), String::new(), Some(format!("not an alert: {error}"))))
        }
    }
}

/// Whether an endpoint wants an alert.
pub fn fits(endpoint: &EndpointConfig, alert: &Alert<'_>) -> bool {
    (endpoint.kinds.is_empty() || endpoint.kinds.contains(&alert.kind))
        && (endpoint.levels.is_empty() || endpoint.levels.contains(&alert.level))
        && (endpoint.plans.is_empty() || endpoint.plans.iter().any(|plan| *plan == alert.plan))
}

/// Waits until then; `None`: for ever.
async fn until(at: Option<Timestamp>) {
    let Some(at) = at else { return std::future::pending().await };
    let left_ms = u64::try_from(at.millis().saturating_sub(Timestamp::now().millis())).unwrap_or(0);
    tokio::time::sleep(Duration::from_millis(left_ms)).await;
}
