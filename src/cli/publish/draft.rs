//! An event about to be published: its id, the checks before it is sent, the way to its topic.

use std::time::Duration;

use rdkafka::producer::{BaseRecord, Producer};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::outlook::outlook;
use crate::app;
use crate::cli::exit::{self, Failure};
use crate::cli::lines::{check_time, priced};
use crate::cli::output::Output;
use crate::config::Config;
use crate::event::{EventRules, IncomingRecord, Rejection, SourceKind, decode};
use crate::kafka::{Clients, KafkaProducer, partition_for};
use crate::ledger::TimeRules;
use crate::time::Timestamp;

/// Source of events that are published by command.
const SOURCE: &str = "/creditstream/cli";
const TIMEOUT: Duration = Duration::from_secs(15);
/// Namespace of derived event ids; any constant will do, this one for ever.
const IDS: Uuid = Uuid::from_u128(0x6372_6564_6974_7374_7265_616d_2d69_6473);

/// An event about to be published.
pub struct Draft<'d> {
    /// Its type, without a configured prefix.
    pub kind: &'static str,
    /// The wallet.
    pub wallet: &'d str,
    /// What its id is derived from, beside wallet and type.
    pub id: &'d str,
    /// When it happened.
    pub time: Timestamp,
    /// The type's own fields.
    pub data: Map<String, Value>,
}

impl Draft<'_> {
    /// Checks it, and sends or prints it.
    pub fn publish(&self, config: &Config, is_dry_run: bool, output: Output) -> Result<u8, Failure> {
        let id =
            Uuid::new_v5(&IDS, format!("{}\n{}\n{}", self.wallet, self.kind, self.id).as_bytes()).to_string();
        let event = json!({
            "specversion": "1.0",
            "id": id,
            "source": SOURCE,
            "type": format!("{}{}", config.events.type_prefix, self.kind),
            "subject": self.wallet,
            "time": self.time,
            "datacontenttype": "application/json",
            "data": self.data,
        });
        let value = serde_json::to_vec(&event).map_err(|error| Failure::bug(&error))?;
        check(config, &value)?;
        if is_dry_run {
            output.object(&event, || serde_json::to_string_pretty(&event).unwrap_or_default())?;
            return Ok(exit::DONE);
        }
        let target = Target::connect(config, self.wallet)?;
        // Before it is sent: afterwards the wallet might have it already.
        let warning = outlook(config, self.wallet, &value);
        target.send(self.wallet, &value)?;
        if let Some(warning) = &warning {
            output.warning(warning);
        }
        let said = json!({
            "event_id": id, "source": SOURCE, "time": self.time, "topic": target.topic,
            "partition": target.partition, "warning": warning
        });
        output.object(&said, || {
            format!(
                "{} published for {} as event {id} at {} (topic {}, partition {})\n\
                 it counts once the ledger has read it: look with `creditstream wallet {}`",
                self.kind, self.wallet, self.time, target.topic, target.partition, self.wallet
            )
        })?;
        Ok(exit::DONE)
    }
}

/// What the ledger stage would refuse without knowing the wallet is refused here, before anything is sent.
fn check(config: &Config, value: &[u8]) -> Result<(), Failure> {
    let pricing = app::pricing(config).map_err(|error| Failure::config(format!("{error:#}")))?;
    let record = IncomingRecord { source_kind: SourceKind::Wallet, value: Some(value), headers: &[] };
    let rules = EventRules::new(&config.events);
    let time = TimeRules::new(&config.clock);
    let checked = decode(&record, &rules).and_then(|event| {
        check_time(event.time, Timestamp::now(), &time)?;
        priced(&event, &pricing)?;
        Ok(())
    });
    checked.map_err(|Rejection { reason, detail }| {
        Failure::usage(format!("this would be quarantined as {}: {detail}", reason.as_str()))
    })
}

/// Where an event goes.
struct Target {
    producer: KafkaProducer,
    topic: String,
    partition: i32,
}

impl Target {
    /// The partition of a wallet, whose broker answers.
    fn connect(config: &Config, wallet: &str) -> Result<Target, Failure> {
        let topic = config.topics.wallet_topics().into_iter().next().unwrap_or_default();
        let clients = Clients::new(std::sync::Arc::new(config.clone()));
        let producer: KafkaProducer = clients.producer().map_err(unreachable)?;
        let metadata = producer.client().fetch_metadata(Some(&topic), TIMEOUT).map_err(unreachable)?;
        let partitions = metadata.topics().first().map_or(0, |topic| topic.partitions().len());
        if partitions == 0 {
            return Err(Failure::unavailable(format!(
                "topic {topic} does not exist: run `creditstream init`"
            )));
        }
        let partition = partition_for(wallet.as_bytes(), i32::try_from(partitions).unwrap_or(1));
        Ok(Target { producer, topic, partition })
    }

    fn send(&self, wallet: &str, value: &[u8]) -> Result<(), Failure> {
        let record =
            BaseRecord::to(&self.topic).partition(self.partition).key(wallet.as_bytes()).payload(value);
        self.producer.send::<[u8], [u8]>(record).map_err(|(error, _)| unreachable(error))?;
        self.producer.flush(TIMEOUT).map_err(unreachable)?;
        if self.producer.in_flight_count() > 0 {
            return Err(Failure::unavailable(
                "the event was not acknowledged in time: repeat the command with the same --time",
            ));
        }
        Ok(())
    }
}

fn unreachable(error: rdkafka::error::KafkaError) -> Failure {
    Failure::unavailable(format!("kafka: {error}"))
}
