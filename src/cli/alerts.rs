//! `alerts replay`: alerts that an endpoint did not take in time, or those since a time, once more.
//!
//! A replay is a record in the topic of dead alerts that names the dead one, or the alert; the dispatcher sends it to that
//! endpoint, under the same id. Twice is harmless for receivers that know ids.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;

use super::args::Alerts;
use super::exit::{self, Failure};
use super::output::Output;
use super::topic::{Partitions, read_topic};
use super::verify::instant;
use crate::alert::Alert;
use crate::alert::dead::{DETAIL, DeadAlert, DeadLetters, ENDPOINT, REPLAY_OF};
use crate::alert::endpoint::fits;
use crate::config::{Config, EndpointConfig};
use crate::kafka::{Clients, RecordView};
use crate::time::Timestamp;

/// An alert that is sent again.
#[derive(Serialize)]
struct Dead {
    /// PARTITION/OFFSET in the topic of dead alerts, or TOPIC/PARTITION/OFFSET of an alert that is not dead.
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
    let Alerts::Replay { places, endpoint, from, to, dry_run } = command;
    let (from, to) = (instant("--from", from.as_deref())?, instant("--to", to.as_deref())?);
    let known: BTreeSet<&str> =
        config.dispatcher.endpoints.iter().map(|endpoint| endpoint.name.as_str()).collect();
    if let Some(name) = endpoint.as_deref()
        && !known.contains(name)
    {
        return Err(Failure::usage(format!(
            "--endpoint {name:?}: dispatcher.endpoints has none of that name"
        )));
    }
    let wanted = config.dispatcher.endpoints.iter().find(|one| Some(&one.name) == endpoint.as_ref());
    let found = match (from, wanted) {
        (Some(from), Some(endpoint)) => select_since(config, endpoint, from..to.unwrap_or(Timestamp::MAX))?,
        _ => select(config, &places, endpoint.as_deref())?,
    };
    if found.is_empty() {
        return Err(Failure::no(if from.is_some() { "no alert fits" } else { "no dead alert fits" }));
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

/// Headers of a record among the dead alerts.
#[derive(Default)]
struct Headers {
    endpoint: String,
    detail: String,
    /// Place of what is sent again.
    replay_of: Option<String>,
}

impl Headers {
    fn of(record: &RecordView<'_>) -> Headers {
        let mut headers = Headers::default();
        record.for_each_header(|name, value| {
            let value = String::from_utf8_lossy(value).into_owned();
            match name {
                ENDPOINT => headers.endpoint = value,
                DETAIL => headers.detail = value,
                REPLAY_OF => headers.replay_of = Some(value),
                _ => {}
            }
        });
        headers
    }
}

/// Alerts that were raised in a span of time and that the endpoint wants, but those that were selected before.
fn select_since(
    config: &Config,
    endpoint: &EndpointConfig,
    raised: Range<Timestamp>,
) -> Result<Vec<Dead>, Failure> {
    let mut replayed = BTreeSet::new();
    read_topic(config, &config.topics.alerts_dead, Partitions::All, |record| {
        let headers = Headers::of(record);
        if headers.endpoint == endpoint.name {
            replayed.extend(headers.replay_of);
        }
    })?;
    let topic = &config.topics.alerts;
    let mut found = Vec::new();
    read_topic(config, topic, Partitions::All, |record| {
        let place = format!("{topic}/{}/{}", record.partition, record.offset);
        let value = record.value.unwrap_or_default();
        // What cannot be read is of no time, and goes to the dead alerts when it is met.
        let Ok(alert) = serde_json::from_slice::<Alert<'_>>(value) else { return };
        if raised.contains(&alert.raised_at) && fits(endpoint, &alert) && !replayed.contains(&place) {
            found.push(Dead {
                place,
                wallet_id: alert.wallet_id.clone().into_owned(),
                endpoint: endpoint.name.clone(),
                detail: format!("raised at {}", alert.raised_at),
                partition: record.partition,
                body: Bytes::copy_from_slice(value),
            });
        }
    })?;
    Ok(found)
}

/// Dead alerts that fit: by their places, else all that were not replayed yet.
fn select(config: &Config, places: &[String], endpoint: Option<&str>) -> Result<Vec<Dead>, Failure> {
    let (mut found, mut replayed) = (Vec::new(), BTreeSet::new());
    read_topic(config, &config.topics.alerts_dead, Partitions::All, |record| {
        let Headers { endpoint: of, detail, replay_of } = Headers::of(record);
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
