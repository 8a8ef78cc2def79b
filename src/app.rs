//! Wires the stages together; the only file that knows all of them.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing::{error, info, warn};

use crate::config::{Config, check_plans};
use crate::http::{self, Health, HttpState};
use crate::kafka::{Clients, init_topics};
use crate::metrics::Metrics;
use crate::rate::Pricing;
use crate::{alert, ledger, sink, verify};

/// A sink that stopped beside a ledger stage is tried again after this.
const SINK_RETRY: Duration = Duration::from_secs(30);

/// A stage of the product. They share nothing but Kafka, and run together or apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Role {
    /// Events to entries.
    Ledger,
    /// Entries to ClickHouse.
    Sink,
    /// Alerts to webhooks.
    Dispatcher,
}

impl Role {
    /// All of them, which is what runs where none is named.
    pub const ALL: [Role; 3] = [Role::Ledger, Role::Sink, Role::Dispatcher];
}

/// The prices that are configured, or those compiled in.
///
/// # Errors
/// The file cannot be read, or has faults: all of them are listed.
pub fn pricing(config: &Config) -> anyhow::Result<Pricing> {
    let Some(path) = config.pricing.file_path() else { return Ok(Pricing::built_in()?) };
    pricing_file(path)
}

/// Prices from a file.
///
/// # Errors
/// The file cannot be read, or has faults: all of them are listed.
pub fn pricing_file(path: &Path) -> anyhow::Result<Pricing> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("pricing.file = {:?} cannot be read", path.display()))?;
    Pricing::parse(&text).with_context(|| format!("pricing.file = {:?} has faults", path.display()))
}

/// Creates or mends topics and tables. Twice is the same as once.
///
/// # Errors
/// A component cannot be reached, or what exists does not fit.
pub async fn init(config: &Arc<Config>) -> anyhow::Result<Vec<String>> {
    let clients = Clients::new(Arc::clone(config));
    let mut done: Vec<String> = init_topics(config, &clients)
        .await?
        .into_iter()
        .map(|topic| format!("topic {topic} created"))
        .collect();
    let report = sink::migrate(&config.clickhouse).await?;
    done.extend(report.applied.iter().map(|migration| format!("migration {migration} applied")));
    Ok(done)
}

/// Runs stages until SIGTERM or SIGINT, or until one of them fails. A second signal exits at once.
///
/// # Errors
/// What the first failing stage says.
pub async fn run(config: Arc<Config>, roles: &[Role]) -> anyhow::Result<()> {
    let pricing = Arc::new(pricing(&config)?);
    check_plans(&config.dispatcher.endpoints, &pricing.plan_names())?;
    let metrics = Metrics::new();
    let health = Health::new();
    let stopping = Arc::new(AtomicBool::new(false));
    let (stop, stopped) = watch::channel(false);
    on_signals(Arc::clone(&stopping), stop.clone())?;

    // Before anything is served: without it the instance would seem ready until the stage has begun.
    let beginning = roles.contains(&Role::Ledger).then(|| health.register_component("ledger stage"));
    if let Some(beginning) = &beginning {
        beginning.set_not_ready("not begun yet");
    }
    let server = match config.http.listen_address() {
        Some(address) => Some(serve(address, &metrics, &health, stopped.clone()).await?),
        None => None,
    };
    let mut stages = tokio::task::JoinSet::new();
    if let Some(beginning) = beginning {
        let (config, pricing, metrics, health, stopping) = (
            Arc::clone(&config),
            Arc::clone(&pricing),
            metrics.clone(),
            health.clone(),
            Arc::clone(&stopping),
        );
        stages.spawn(async move {
            let ledger = tokio::task::spawn_blocking(move || {
                ledger::run(&config, pricing, &metrics, &health, beginning, &stopping)
            });
            ledger.await.context("the ledger stage panicked")?.context("ledger stage")
        });
    }
    if roles.contains(&Role::Sink) {
        let is_alone = !roles.contains(&Role::Ledger);
        stages.spawn(run_sink(
            Arc::clone(&config),
            metrics.clone(),
            health.clone(),
            stopped.clone(),
            is_alone,
        ));
    }
    if roles.contains(&Role::Dispatcher) {
        stages.spawn(run_dispatcher(Arc::clone(&config), metrics.clone(), health.clone(), stopped.clone()));
    }
    if stages.is_empty() {
        bail!("no role given: nothing to run");
    }
    info!(?roles, instance = config.instance_name(), "running");
    let mut outcome = Ok(());
    while let Some(ended) = stages.join_next().await {
        let result = ended.unwrap_or_else(|panic| Err(panic.into()));
        if let Err(error) = &result {
            warn!(error = format!("{error:#}"), "a stage ended: stopping the others");
        }
        // One stage down takes the instance down: whoever supervises it sees that it is not whole.
        stopping.store(true, Ordering::Relaxed);
        stop.send_replace(true);
        outcome = outcome.and(result);
    }
    if let Some(server) = server {
        let _ = tokio::time::timeout(Duration::from_secs(3), server).await;
    }
    outcome
}

/// Runs the sink. A fault that somebody has to mend ends a sink that runs alone; beside the ledger stage it must not
/// take the debits down with it, so there it is said again and again until it is mended.
async fn run_sink(
    config: Arc<Config>,
    metrics: Metrics,
    health: Health,
    stopped: watch::Receiver<bool>,
    is_alone: bool,
) -> anyhow::Result<()> {
    let readiness = health.register_component("sink");
    // ClickHouse away does not make the instance unready: debits do not wait for it.
    readiness.set_ready();
    let (owned, watched) = watch::channel(BTreeSet::new());
    let drift = tokio::spawn(verify::watch(Arc::clone(&config), metrics.clone(), watched));
    let result = loop {
        let until = until_stopped(stopped.clone());
        let result = sink::run(Arc::clone(&config), metrics.clone(), owned.clone(), until).await;
        match result {
            Err(error) if !is_alone && !*stopped.borrow() => {
                error!(%error, retry_after_seconds = SINK_RETRY.as_secs(), "the sink stopped; debits go on");
                let _ = tokio::time::timeout(SINK_RETRY, until_stopped(stopped.clone())).await;
            }
            result => break result.context("sink"),
        }
    };
    drift.abort();
    readiness.finish();
    result
}

/// Runs the dispatcher, which mends itself or waits to be mended: debits never depend on it.
async fn run_dispatcher(
    config: Arc<Config>,
    metrics: Metrics,
    health: Health,
    stopped: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let readiness = health.register_component("dispatcher");
    readiness.set_ready();
    let result = alert::run(config, metrics, until_stopped(stopped)).await.context("dispatcher");
    readiness.finish();
    result
}

async fn serve(
    address: &str,
    metrics: &Metrics,
    health: &Health,
    stopped: watch::Receiver<bool>,
) -> anyhow::Result<tokio::task::JoinHandle<()>> {
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("http.listen = {address:?} cannot be bound"))?;
    let state = HttpState { health: health.clone(), metrics: metrics.clone() };
    info!(address = %listener.local_addr()?, "serving /metrics, /livez, /readyz");
    Ok(tokio::spawn(http::serve(listener, state, until_stopped(stopped))))
}

async fn until_stopped(mut stopped: watch::Receiver<bool>) {
    // An error means that the sender is gone: the instance is ending.
    let _ = stopped.wait_for(|is_stopped| *is_stopped).await;
}

fn on_signals(stopping: Arc<AtomicBool>, stop: watch::Sender<bool>) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        info!("stopping: a second signal exits at once");
        stopping.store(true, Ordering::Relaxed);
        stop.send_replace(true);
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        std::process::exit(130);
    });
    Ok(())
}
