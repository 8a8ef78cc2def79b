//! Owns connections to ClickHouse, for whoever asks or writes: time limits, TLS, compression, the settings of a cluster.
//!
//! **Invariant:** no request is without a bound in time. Must not try again: that is for the caller to decide.

use std::time::Duration;

use clickhouse::{Client, Compression};
use hyper_util::client::legacy::connect::HttpConnector;

use super::error::{ClickHouseError, VERSION_MIN};
use crate::config::ClickHouseConfig;
use crate::outgoing::http_client;

/// Idle connections are closed before the server does (it waits 3 s by default).
const IDLE_CONNECTION_MAX: Duration = Duration::from_secs(2);

/// Whether the server has what migrations and statements need.
///
/// # Errors
/// [`ClickHouseError::TooOld`], or what came instead of an answer.
pub async fn check_version(client: &Client, timeout: Duration) -> Result<(), ClickHouseError> {
    let version: String = bounded(timeout, client.query("SELECT version()").fetch_one()).await?;
    let year_and_release = |version: &str| -> Vec<u32> {
        version.split('.').take(2).map(|number| number.parse().unwrap_or(0)).collect()
    };
    match year_and_release(&version) < year_and_release(VERSION_MIN) {
        true => Err(ClickHouseError::TooOld(version)),
        false => Ok(()),
    }
}

/// A client that gives up connecting after the configured time. It names no database.
pub fn client(config: &ClickHouseConfig) -> Client {
    let http = http_client(HttpConnector::new(), config.connect_timeout(), IDLE_CONNECTION_MAX);
    let client = Client::with_http_client(http)
        .with_url(&config.url)
        .with_user(&config.user)
        .with_password(config.password.expose())
        .with_compression(Compression::Lz4);
    if config.cluster.is_empty() { client } else { for_cluster(client) }
}

fn for_cluster(client: Client) -> Client {
    client
        // An answer must mean that the shards have the rows, not that they are on their way.
        .with_setting("distributed_foreground_insert", "1")
        // Rows that were deleted or lost are written again with the same bytes: a replica must not take them for known.
        .with_setting("insert_deduplicate", "0")
        // The tables by day add up over all shards.
        .with_setting("parallel_distributed_insert_select", "0")
        .with_setting("distributed_product_mode", "global")
        // What was written is read: from the same replica as long as it lives.
        .with_setting("load_balancing", "in_order")
}

/// Bounds a request by the request timeout.
pub async fn bounded<T>(
    timeout: Duration,
    request: impl Future<Output = clickhouse::error::Result<T>>,
) -> Result<T, ClickHouseError> {
    let answered = tokio::time::timeout(timeout, request).await;
    Ok(answered.map_err(|_| ClickHouseError::Timeout(timeout))??)
}
