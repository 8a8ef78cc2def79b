//! Owns the way from `credits.alerts` to webhooks: what an alert looks like ([`record`]), and the dispatcher.
//!
//! Each endpoint has a task and a consumer group of its own ([`endpoint`]): its [`reader`] brings alerts, its [`queue`]
//! says whose turn it is, [`client`] sends them, signed ([`sign`]), to addresses that are allowed ([`address`]), and
//! what it does not take in time goes to `credits.alerts.dead` ([`dead`]).
//!
//! **Invariant:** an alert is settled (taken, not wanted, or in the topic of dead ones) before its position is
//! committed: it arrives at least once, always with the same id. Of one wallet the next is sent only when the one
//! before is settled. Must not write to `credits.alerts`, and must not let one endpoint wait for another.

pub mod address;
pub mod client;
pub mod dead;
pub mod endpoint;
pub mod queue;
#[cfg(test)]
mod queue_tests;
pub mod reader;
pub mod record;
pub mod sign;

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::error::KafkaError;
use tokio::sync::watch;

pub use record::{ALERT_FORMAT, Alert, AlertKind};
pub use sign::SigningKey;

use crate::config::{Config, EndpointConfig};
use crate::kafka::Clients;
use crate::metrics::Metrics;
use dead::DeadLetters;
use endpoint::{Endpoint, EndpointError};

/// An endpoint that cannot go on is started anew after this.
const RESTART_PAUSE: Duration = Duration::from_secs(30);

/// Runs the dispatcher until `shutdown`; what is under way then is abandoned, and sent again by the next one.
///
/// # Errors
/// Where a Kafka client cannot be made.
pub async fn run(
    config: Arc<Config>,
    metrics: Metrics,
    shutdown: impl Future<Output = ()>,
) -> Result<(), KafkaError> {
    let clients = Clients::new(Arc::clone(&config));
    let dead = Arc::new(DeadLetters::new(&clients, &config.topics.alerts_dead)?);
    let (stop, stopped) = watch::channel(false);
    let mut tasks = tokio::task::JoinSet::new();
    for endpoint in &config.dispatcher.endpoints {
        metrics.declare_endpoint(&endpoint.name);
        tasks.spawn(run_endpoint(
            Arc::clone(&config),
            endpoint.clone(),
            metrics.clone(),
            Arc::clone(&dead),
            stopped.clone(),
        ));
    }
    tracing::info!(endpoints = config.dispatcher.endpoints.len(), "the dispatcher begins");
    shutdown.await;
    stop.send_replace(true);
    tasks.join_all().await;
    Ok(())
}

/// Runs one endpoint until all stop. Trouble with Kafka that somebody has to mend is said again and again.
async fn run_endpoint(
    config: Arc<Config>,
    endpoint: EndpointConfig,
    metrics: Metrics,
    dead: Arc<DeadLetters>,
    mut stopped: watch::Receiver<bool>,
) {
    loop {
        let result = try_endpoint(&config, &endpoint, &metrics, &dead, stopped.clone()).await;
        let Err(error) = result else { return };
        tracing::error!(
            endpoint = endpoint.name, %error, retry_after_seconds = RESTART_PAUSE.as_secs(),
            "the endpoint stands still; the others go on"
        );
        let pause = tokio::time::timeout(RESTART_PAUSE, stopped.wait_for(|is_stopped| *is_stopped));
        if pause.await.is_ok() {
            return;
        }
    }
}

async fn try_endpoint(
    config: &Arc<Config>,
    endpoint: &EndpointConfig,
    metrics: &Metrics,
    dead: &Arc<DeadLetters>,
    mut stopped: watch::Receiver<bool>,
) -> Result<(), EndpointError> {
    let mut endpoint = Endpoint::start(config, endpoint, metrics, dead)?;
    let result = {
        let mut stopped = pin!(stopped.wait_for(|is_stopped| *is_stopped));
        tokio::select! {
            // Shutdown first: a busy loop must not starve it.
            biased;
            _ = &mut stopped => Ok(()),
            result = endpoint.run() => result,
        }
    };
    endpoint.stop().await;
    result
}
