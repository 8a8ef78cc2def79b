//! `alerts replay`: alerts that an endpoint did not take in time, once more.
//!
//! A replay is a record in the topic of dead alerts that names the dead one; the dispatcher sends it to that endpoint,
//! under the same id. Twice is harmless for receivers that know ids.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;

use super::args::Alerts;
use super::exit::{self, Failure};
use super::output::Output;
use super::topic::{Partitions, read_topic};
use crate::alert::dead::{DETAIL, DeadAlert, DeadLetters, ENDPOINT, REPLAY_OF};
use crate::config::Config;
use crate::kafka::Clients;

/// A dead alert.
#[derive(Serialize)]
struct Dead {
    /// PARTITION/OFFSET in the topic of dead alerts.
    place: String,
    wallet_id: String,
    endpoint: String,
    detail: String,
    #[serde(skip)]
    partition: i32,
    #[serde(skip)]
    body: Bytes,
}

/// Replays.
pub async fn run(config: &Arc<Config>, command: Alerts, output: Output) -> Result<u8, Failure> {
    let Alerts::Replay { places, endpoint, dry_run } = command;
    let known: BTreeSet<&str> =
        config.dispatcher.endpoints.iter().map(|endpoint| endpoint.name.as_str()).collect();
    if let Some(name) = endpoint.as_deref()
        && !known.contains(name)
    {
        return Err(Failure::usage(format!(
            "--endpoint {name:?}: dispatcher.endpoints has none of that name"
        )));
    }
    let found = select(config, &places, endpoint.as_deref())?;
    if found.is_empty() {
        return Err(Failure::no("no dead alert fits"));
    }
    // Nobody would take them: they are left where they are, and said.
    let (mine, unknown): (Vec<Dead>, Vec<Dead>) =
        found.into_iter().partition(|dead| known.contains(dead.endpoint.as_str()));
    if !dry_run && !mine.is_empty() {
        send(config, &mine).await?;
    }
    for dead in &mine {
        output.object(dead, || {
            format!("{:<12} {}  {}  {}", dead.place, dead.endpoint, dead.wallet_id, dead.detail)
        })?;
    }
    for dead in &unknown {
        tracing::warn!(
            place = dead.place,
            endpoint = dead.endpoint,
            "left: there is no such endpoint any more"
        );
    }
    let done = if dry_run { "would be sent again" } else { "are sent again by the dispatcher" };
    tracing::info!(alerts = mine.len(), "{done}");
    Ok(if unknown.is_empty() { exit::DONE } else { exit::NO })
}

/// Dead alerts that fit: by their places, else all that were not replayed yet.
fn select(config: &Config, places: &[String], endpoint: Option<&str>) -> Result<Vec<Dead>, Failure> {
    let (mut found, mut replayed) = (Vec::new(), BTreeSet::new());
    read_topic(config, &config.topics.alerts_dead, Partitions::All, |record| {
        let (mut of, mut detail, mut replay_of) = (String::new(), String::new(), None);
        record.for_each_header(|name, value| {
            let value = String::from_utf8_lossy(value).into_owned();
            match name {
                ENDPOINT => of = value,
                DETAIL => detail = value,
                REPLAY_OF => replay_of = Some(value),
                _ => {}
            }
        });
        if let Some(place) = replay_of {
            replayed.insert(place);
        } else if endpoint.is_none_or(|endpoint| endpoint == of) {
            found.push(Dead {
                place: format!("{}/{}", record.partition, record.offset),
                wallet_id: String::from_utf8_lossy(record.key.unwrap_or_default()).into_owned(),
                endpoint: of,
                detail,
                partition: record.partition,
                body: Bytes::copy_from_slice(record.value.unwrap_or_default()),
            });
        }
    })?;
    found.retain(|dead| match places.is_empty() {
        true => !replayed.contains(&dead.place),
        false => places.contains(&dead.place),
    });
    Ok(found)
}

async fn send(config: &Arc<Config>, dead: &[Dead]) -> Result<(), Failure> {
    let unreachable = |error: rdkafka::error::KafkaError| {
        Failure::unavailable(format!("kafka: {error}; run it again: what was sent is not sent twice"))
    };
    let clients = Clients::new(Arc::clone(config));
    let letters = DeadLetters::new(&clients, &config.topics.alerts_dead).map_err(unreachable)?;
    // One after the other: a wallet's alerts keep their order.
    for dead in dead {
        let record = DeadAlert {
            partition: dead.partition,
            key: &dead.wallet_id,
            body: &dead.body,
            endpoint: &dead.endpoint,
            why: (REPLAY_OF, &dead.place),
        };
        letters.try_write(&record).await.map_err(unreachable)?;
    }
    Ok(())
}
