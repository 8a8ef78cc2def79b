//! The HTTP port: `/livez`, `/readyz`, `/metrics`.
//!
//! Owns [`Health`], to which stages report; it never asks a stage or a dependency, so that an answer takes
//! microseconds whatever stands still. Everything about a client is bounded: how many, how long one may take
//! over a request, how long a connection lives.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::metrics::Metrics;

/// Connections served at a time; more wait to be accepted.
const CONNECTIONS_MAX: usize = 64;
/// Longest time for a request's head to come, and for a kept connection to be silent.
const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest head of a request, bytes.
const HEADER_BYTES_MAX: usize = 16 << 10;
/// Largest answer of an instance that is read, bytes.
const ANSWER_BYTES_MAX: u64 = 16 << 20;
/// A connection is closed after this, for clients that do not read must not keep others out.
const CONNECTION_AGE_MAX: Duration = Duration::from_secs(600);
/// What a connection gets to end its current request, when it is to be closed.
const CONNECTION_GRACE: Duration = Duration::from_secs(2);
/// After a failed accept (no file descriptors, mostly): a loop without a pause would burn a core.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// What a prober is told, and by whom. Clones share the same state.
///
/// *Live*: every registered loop has turned lately. *Ready*: every registered component says so, and there is
/// at least one.
#[derive(Clone)]
pub struct Health(Arc<HealthState>);

struct HealthState {
    started: Instant,
    loops: Mutex<BTreeMap<String, Arc<LoopState>>>,
    /// Reasons why components are not ready; `None`: ready.
    components: Mutex<BTreeMap<String, Option<String>>>,
}

struct LoopState {
    /// Last turn, milliseconds since the start: monotonic, as a wall clock that is set is no reason to restart.
    turned_at_ms: AtomicI64,
    silence_ms_max: i64,
}

/// GET from an instance's port: the body of a 200.
///
/// # Errors
/// In words: no connection, no answer in time, another status.
pub async fn get_local(address: &str, path: &str, timeout: Duration) -> Result<String, String> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let asked = async {
        let mut stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
        let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.map_err(|error| error.to_string())?;
        let mut answer = Vec::new();
        stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await.map_err(|error| error.to_string())?;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let (head, body) = answer.split_once("\r\n\r\n").ok_or("the answer is not HTTP")?;
        match head.split(' ').nth(1) {
            Some("200") => Ok(body.to_owned()),
            _ => Err(head.lines().next().unwrap_or_default().to_owned()),
        }
    };
    tokio::time::timeout(timeout, asked).await.map_err(|_| format!("no answer within {timeout:?}"))?
}

impl Default for Health {
    fn default() -> Health {
        Health::new()
    }
}

impl Health {
    /// Nothing registered yet: live, and not ready.
    pub fn new() -> Health {
        Health(Arc::new(HealthState {
            started: Instant::now(),
            loops: Mutex::default(),
            components: Mutex::default(),
        }))
    }

    /// Registers a loop under a name of its own; it counts as turning from now on, and must say so at least
    /// once in `silence_max`.
    pub fn register_loop(&self, name: impl Into<String>, silence_max: Duration) -> Heartbeat {
        let silence_ms_max = i64::try_from(silence_max.as_millis()).unwrap_or(i64::MAX);
        let turned_at_ms = AtomicI64::new(self.0.now_ms());
        let state = Arc::new(LoopState { turned_at_ms, silence_ms_max });
        let name = name.into();
        lock(&self.0.loops).insert(name.clone(), Arc::clone(&state));
        Heartbeat { health: Arc::clone(&self.0), name, state }
    }

    /// Registers a component under a name of its own. It is not ready until it says so.
    pub fn register_component(&self, name: impl Into<String>) -> Readiness {
        let readiness = Readiness { health: Arc::clone(&self.0), name: name.into() };
        readiness.set_not_ready("starting");
        readiness
    }

    /// # Errors
    /// The loops that stand still, and for how long, one a line.
    pub fn live(&self) -> Result<(), String> {
        let now_ms = self.0.now_ms();
        let loops = lock(&self.0.loops);
        let silences =
            loops.iter().filter_map(|(name, state)| Some((name, state.silence_beyond_ms(now_ms)?)));
        let standing: Vec<String> =
            silences.map(|(name, silent_ms)| format!("{name} stands still for {silent_ms} ms")).collect();
        if standing.is_empty() { Ok(()) } else { Err(standing.join("\n")) }
    }

    /// # Errors
    /// The components that are not ready, and why, one a line.
    pub fn ready(&self) -> Result<(), String> {
        let components = lock(&self.0.components);
        if components.is_empty() {
            return Err("no stage has started".to_owned());
        }
        let reasons = components.iter().filter_map(|(name, reason)| Some((name, reason.as_ref()?)));
        let unready: Vec<String> = reasons.map(|(name, reason)| format!("{name}: {reason}")).collect();
        if unready.is_empty() { Ok(()) } else { Err(unready.join("\n")) }
    }
}

impl HealthState {
    fn now_ms(&self) -> i64 {
        i64::try_from(self.started.elapsed().as_millis()).unwrap_or(i64::MAX)
    }
}

impl LoopState {
    /// How long the loop has been silent, milliseconds, if that is too long.
    fn silence_beyond_ms(&self, now_ms: i64) -> Option<i64> {
        let silent_ms = now_ms.saturating_sub(self.turned_at_ms.load(Ordering::Relaxed));
        (silent_ms > self.silence_ms_max).then_some(silent_ms)
    }
}

/// By which a loop says that it turns. Dropped without [`Heartbeat::finish`], as by a panic, the loop stays
/// registered and soon stands still: that is how a dead task is found.
#[derive(Clone)]
pub struct Heartbeat {
    health: Arc<HealthState>,
    name: String,
    state: Arc<LoopState>,
}

impl Heartbeat {
    /// The loop has turned. An atomic store: cheap enough for every turn.
    pub fn beat(&self) {
        self.state.turned_at_ms.store(self.health.now_ms(), Ordering::Relaxed);
    }

    /// The loop ends as it should, and is no longer watched.
    pub fn finish(self) {
        lock(&self.health.loops).remove(&self.name);
    }
}

/// By which a component says whether it can do its work. Dropped without [`Readiness::finish`], as by a
/// panic, it is not ready.
pub struct Readiness {
    health: Arc<HealthState>,
    name: String,
}

impl Readiness {
    /// The component does its work.
    pub fn set_ready(&self) {
        lock(&self.health.components).insert(self.name.clone(), None);
    }

    /// The component cannot do its work, and why: one line for a person, as `restoring shard 3`.
    pub fn set_not_ready(&self, reason: impl Into<String>) {
        lock(&self.health.components).insert(self.name.clone(), Some(reason.into()));
    }

    /// The component ends as it should, and is no longer asked.
    pub fn finish(self) {
        lock(&self.health.components).remove(&self.name);
        // Its drop finds nothing left to change.
    }
}

impl Drop for Readiness {
    fn drop(&mut self) {
        if let Some(reason) = lock(&self.health.components).get_mut(&self.name) {
            *reason = Some("has ended".to_owned());
        }
    }
}

/// A panic under one of these locks leaves a map whole, so a poisoned one is as good.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the server answers from.
#[derive(Clone)]
pub struct HttpState {
    /// For `/livez` and `/readyz`.
    pub health: Health,
    /// For `/metrics`.
    pub metrics: Metrics,
}

/// Serves until `shutdown` completes, then gives open requests two seconds and returns. A client
/// cannot make it fail.
pub async fn serve(listener: TcpListener, state: HttpState, shutdown: impl Future<Output = ()>) {
    let router = router(state);
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let (stopping, stop) = watch::channel(());
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let accepted = async {
            // The semaphore is never closed: an error cannot be.
            let permit = Arc::clone(&permits).acquire_owned().await.ok();
            (permit, listener.accept().await)
        };
        tokio::select! {
            // First, or a flood of clients would keep us from stopping.
            biased;
            () = &mut shutdown => break,
            Some(_) = connections.join_next() => {}
            (permit, accepted) = accepted => match accepted {
                Ok((stream, _)) => {
                    let connection = serve_connection(stream, router.clone(), stop.clone());
                    connections.spawn(async move {
                        connection.await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "an HTTP connection cannot be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    drop(stopping);
    // Each ends within CONNECTION_GRACE.
    while connections.join_next().await.is_some() {}
}

async fn serve_connection(stream: TcpStream, router: Router, mut stop: watch::Receiver<()>) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_READ_TIMEOUT)
        .max_header_size(HEADER_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = pin!(connection);
    tokio::select! {
        // Whatever ends a connection is the client's affair: it will try again, or not.
        _ = &mut connection => return,
        // The sender is dropped at shutdown; nothing is ever sent.
        _ = stop.changed() => {}
        () = tokio::time::sleep(CONNECTION_AGE_MAX) => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = tokio::time::timeout(CONNECTION_GRACE, connection).await;
}

fn router(state: HttpState) -> Router {
    Router::new()
        .route("/livez", get(async |State(state): State<HttpState>| probe(state.health.live())))
        .route("/readyz", get(async |State(state): State<HttpState>| probe(state.health.ready())))
        .route("/metrics", get(async |State(state): State<HttpState>| exposition(&state.metrics)))
        .with_state(state)
}

fn probe(result: Result<(), String>) -> Response {
    match result {
        Ok(()) => "ok\n".into_response(),
        Err(reasons) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reasons}\n")).into_response(),
    }
}

fn exposition(metrics: &Metrics) -> Response {
    let content_type = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (content_type, metrics.encode()).into_response()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use std::io::{Read, Write};
    use std::net::SocketAddr;

    use tokio::sync::oneshot;

    use super::*;

    struct Server {
        address: SocketAddr,
        health: Health,
        metrics: Metrics,
        stop: Option<oneshot::Sender<()>>,
        thread: Option<std::thread::JoinHandle<()>>,
    }

    /// A server of its own, on a free port and in a thread, so that tests talk to it as any client does.
    fn server() -> Server {
        let (health, metrics) = (Health::new(), Metrics::new());
        let state = HttpState { health: health.clone(), metrics: metrics.clone() };
        let (stop, stopped) = oneshot::channel::<()>();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        listener.set_nonblocking(true).unwrap();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = TcpListener::from_std(listener).unwrap();
                serve(listener, state, async { stopped.await.unwrap_or(()) }).await;
            });
        });
        Server { address, health, metrics, stop: Some(stop), thread: Some(thread) }
    }

    impl Server {
        fn request(&self, method: &str, path: &str) -> (u16, String) {
            let mut stream = self.connect();
            write!(stream, "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
            (status, answer)
        }

        fn get(&self, path: &str) -> (u16, String) {
            let (status, answer) = self.request("GET", path);
            (status, answer.split_once("\r\n\r\n").unwrap().1.to_owned())
        }

        fn connect(&self) -> std::net::TcpStream {
            let stream = std::net::TcpStream::connect(self.address).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            stream
        }

        fn stop(&mut self) {
            self.stop.take();
            self.thread.take().unwrap().join().unwrap();
        }
    }

    #[test]
    fn livez_names_the_loops_that_stand_still() {
        let server = server();
        assert_eq!(server.get("/livez"), (200, "ok\n".to_owned()));

        let sink = server.health.register_loop("sink", Duration::from_secs(60));
        let ledger = server.health.register_loop("ledger 0", Duration::from_millis(30));
        std::thread::sleep(Duration::from_millis(60));
        let (status, body) = server.get("/livez");
        assert_eq!(status, 503);
        assert!(body.starts_with("ledger 0 stands still for ") && !body.contains("sink"), "{body}");

        ledger.beat();
        assert!(server.health.live().is_ok(), "it turns again");
        std::thread::sleep(Duration::from_millis(60));
        assert!(server.health.live().is_err());
        ledger.finish();
        assert_eq!(server.get("/livez").0, 200, "it ended as it should");
        sink.beat();
    }

    #[test]
    fn a_loop_whose_task_died_is_not_live() {
        let health = Health::new();
        let heartbeat = health.register_loop("ledger 0", Duration::from_millis(10));
        drop(heartbeat);
        std::thread::sleep(Duration::from_millis(30));
        assert!(health.live().is_err());
    }

    #[test]
    fn readyz_says_why_not_until_every_component_is_ready() {
        let server = server();
        assert_eq!(server.get("/readyz"), (503, "no stage has started\n".to_owned()));

        let ledger = server.health.register_component("ledger");
        let sink = server.health.register_component("sink");
        assert_eq!(server.get("/readyz"), (503, "ledger: starting\nsink: starting\n".to_owned()));
        ledger.set_not_ready("restoring shard 3");
        sink.set_ready();
        assert_eq!(server.get("/readyz"), (503, "ledger: restoring shard 3\n".to_owned()));
        ledger.set_ready();
        assert_eq!(server.get("/readyz"), (200, "ok\n".to_owned()));

        sink.finish();
        assert_eq!(server.get("/readyz").0, 200);
        drop(ledger);
        assert_eq!(server.get("/readyz"), (503, "ledger: has ended\n".to_owned()));
    }

    #[test]
    fn metrics_are_served_as_prometheus_text() {
        let server = server();
        server.metrics.shards_owned.set(12);
        let (status, answer) = server.request("GET", "/metrics");
        assert_eq!(status, 200);
        assert!(answer.contains("content-type: text/plain; version=0.0.4; charset=utf-8\r\n"), "{answer}");
        assert!(answer.contains("\ncreditstream_shards_owned 12\n"));
    }

    #[test]
    fn other_paths_and_methods_are_refused() {
        let server = server();
        assert_eq!(server.request("GET", "/").0, 404);
        assert_eq!(server.request("GET", "/livez/x").0, 404);
        assert_eq!(server.request("POST", "/metrics").0, 405);
    }

    /// The server may close the connection before all of it is sent: what counts is that it never answers with
    /// success, and goes on serving others.
    #[test]
    fn an_endless_request_head_is_refused() {
        let server = server();
        let mut stream = server.connect();
        let _ = write!(stream, "GET /livez?{} HTTP/1.1\r\nHost: x\r\n\r\n", "x".repeat(2 * HEADER_BYTES_MAX));
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(
            answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"),
            "{}",
            String::from_utf8_lossy(&answer)
        );
        assert_eq!(server.get("/livez").0, 200);
    }

    /// Clients that connect and say nothing must neither keep others out nor keep the server from stopping.
    #[test]
    fn silent_clients_hold_up_neither_a_probe_nor_the_end() {
        let mut server = server();
        let silent: Vec<_> = (0..CONNECTIONS_MAX - 1).map(|_| server.connect()).collect();
        assert_eq!(server.get("/livez").0, 200);
        let began = Instant::now();
        server.stop();
        assert!(began.elapsed() < 2 * CONNECTION_GRACE, "{:?}", began.elapsed());
        assert!(std::net::TcpStream::connect(server.address).is_err());
        drop(silent);
    }
}
