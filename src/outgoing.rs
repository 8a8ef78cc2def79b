//! HTTP connections to others: to ClickHouse, to webhooks.
//!
//! **Invariant:** a connection that is not made in time is given up, and certificates are verified, always. Must not know what
//! is sent: addresses, time limits of requests and what an answer means are for the caller.

use std::time::Duration;

use hyper::body::Body;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connect, HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioTimer};

/// A client for `http` and `https`, with connections as the connector resolves them. Idle ones are closed after that time: before
/// the server does it, or a request would be sent into a connection that is about to end.
pub fn http_client<R, B>(
    mut connector: HttpConnector<R>,
    connect_timeout: Duration,
    idle_max: Duration,
) -> Client<HttpsConnector<HttpConnector<R>>, B>
where
    HttpsConnector<HttpConnector<R>>: Connect + Clone,
    B: Body + Send,
    B::Data: Send,
{
    connector.set_connect_timeout(Some(connect_timeout));
    connector.set_nodelay(true);
    connector.enforce_http(false);
    let connector = HttpsConnectorBuilder::new()
        .with_webpki_roots()
        .https_or_http()
        .enable_http1()
        .wrap_connector(connector);
    Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(idle_max)
        .build(connector)
}
