//! Starts and stops the ledger stage.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rdkafka::consumer::Consumer;
use thiserror::Error;
use tracing::{error, info};

use super::TimeRules;
use super::routes::Routes;
use super::watch::{Board, watch};
use super::worker::{Setup, Worker};
use super::world::RealWorld;
use crate::config::Config;
use crate::event::EventRules;
use crate::http::{Health, Readiness};
use crate::kafka::Clients;
use crate::metrics::Metrics;
use crate::rate::Pricing;
use crate::time::Timestamp;
use crate::wallet::Policy;

/// A worker that shows no sign of life for this long makes `/livez` fail.
const SILENCE_MAX: Duration = Duration::from_secs(120);

/// Why the ledger stage ended.
#[derive(Debug, Error)]
pub enum LedgerError {
    /// The brokers cannot be reached.
    #[error("kafka cannot be reached: {0}")]
    Unreachable(String),
    /// Topics or settings do not fit: somebody has to act.
    #[error("{0}")]
    Setup(String),
    /// The brokers refuse for want of a right: somebody has to grant it.
    #[error("{0}")]
    Forbidden(String),
    /// A fault of ours, or of the data: a worker stopped.
    #[error("{0}")]
    Stopped(String),
}

impl From<rdkafka::error::KafkaError> for LedgerError {
    fn from(error: rdkafka::error::KafkaError) -> LedgerError {
        LedgerError::Unreachable(error.to_string())
    }
}

/// Runs the ledger stage until `stopping` is set, or a worker cannot go on. Blocks.
///
/// # Errors
/// The cluster stays away at the start, the topics do not fit, or a worker stopped.
pub fn run(
    config: &Arc<Config>,
    pricing: Arc<Pricing>,
    metrics: &Metrics,
    health: &Health,
    beginning: Readiness,
    stopping: &Arc<AtomicBool>,
) -> Result<(), LedgerError> {
    let clients = Clients::new(Arc::clone(config));
    let setup = match prepare(config, pricing, &clients, metrics, stopping) {
        Err(LedgerError::Unreachable(_)) if stopping.load(Ordering::Relaxed) => return Ok(()),
        prepared => Arc::new(prepared?),
    };
    let board = Arc::new(Board::default());
    let watcher = {
        let (clients, setup, board, stopping) =
            (clients.clone(), Arc::clone(&setup), Arc::clone(&board), Arc::clone(stopping));
        spawn("watch", move || watch(&clients, &setup.routes, &board, &setup.metrics, &stopping))?
    };
    let mut workers = Vec::new();
    for number in 0..config.ledger.workers {
        let (setup, board, stopping) = (Arc::clone(&setup), Arc::clone(&board), Arc::clone(stopping));
        let heartbeat = health.register_loop(format!("ledger worker {number}"), SILENCE_MAX);
        let readiness = health.register_component(format!("ledger worker {number}"));
        workers.push(spawn(&format!("ledger-{number}"), move || {
            let result = Worker::start(&setup, number, &board, &stopping, &heartbeat)
                .and_then(|mut worker| worker.run(&readiness));
            heartbeat.finish();
            readiness.finish();
            if let Err(error) = &result {
                error!(worker = number, %error, "worker stopped");
            }
            // One worker down takes the instance down: its shards go to others, and the operator sees it.
            stopping.store(true, Ordering::Relaxed);
            result
        })?);
    }
    // From here on the workers say whether they are ready.
    beginning.finish();
    let mut outcome = Ok(());
    for worker in workers {
        let result =
            worker.join().unwrap_or_else(|_| Err(LedgerError::Stopped("a worker panicked".to_owned())));
        outcome = outcome.and(result);
    }
    let _ = watcher.join();
    info!("ledger stage ended");
    outcome
}

fn spawn<T: Send + 'static>(
    name: &str,
    body: impl FnOnce() -> T + Send + 'static,
) -> Result<std::thread::JoinHandle<T>, LedgerError> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(body)
        .map_err(|error| LedgerError::Stopped(format!("thread {name} cannot be started: {error}")))
}

fn prepare(
    config: &Arc<Config>,
    pricing: Arc<Pricing>,
    clients: &Clients,
    metrics: &Metrics,
    stopping: &AtomicBool,
) -> Result<Setup<RealWorld>, LedgerError> {
    let time = TimeRules::new(&config.clock);
    let horizon_start = Timestamp::now().plus_millis(-time.horizon_ms);
    pricing.check_covers(horizon_start).map_err(|error| LedgerError::Setup(error.to_string()))?;
    let asker = clients.watermark_reader("routes")?;
    let routes = Routes::discover(asker.client(), &config.topics, || stopping.load(Ordering::Relaxed))?;
    metrics.shards.set(routes.shards.into());
    metrics.declare_topics(routes.topics.iter().map(|topic| topic.name.as_str()));
    let plans = pricing.plan_names();
    metrics.declare_plans(plans.iter().map(String::as_str));
    let policy = Policy::new(config, pricing);
    Ok(Setup {
        rules: EventRules::new(&config.events),
        config: Arc::clone(config),
        world: RealWorld(clients.clone()),
        metrics: metrics.clone(),
        routes,
        policy,
        time,
    })
}
