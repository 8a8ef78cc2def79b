//! `contract start`, `topup`, `adjust`: publish an event, checked before it is sent.
//!
//! The event id is derived from the wallet, the command and the business id: the same command with the same
//! `--time` is a duplicate, and with another one an id conflict in the quarantine; never a second posting.

use std::time::Duration;

use rdkafka::producer::{BaseRecord, Producer};
use serde_json::{Value, json};
use uuid::Uuid;

use super::args::{Adjust, Contract, ContractStart, Publish, Topup};
use super::exit::{self, Failure};
use super::output::Output;
use crate::app;
use crate::config::Config;
use crate::event::{Event, EventRules, IncomingRecord, SourceKind, decode};
use crate::kafka::{Clients, KafkaProducer, partition_for};
use crate::rate::exact_scaled;
use crate::time::Timestamp;
use crate::wallet::{Command, JobHistory};

/// Source of events that are published by command.
const SOURCE: &str = "/creditstream/cli";
const TIMEOUT: Duration = Duration::from_secs(15);
/// Namespace of derived event ids; any constant will do, this one for ever.
const IDS: Uuid = Uuid::from_u128(0x6372_6564_6974_7374_7265_616d_2d69_6473);

/// Reads a time given on the command line.
pub fn instant(option: &str, text: &str) -> Result<Timestamp, Failure> {
    Timestamp::parse(text).ok_or_else(|| {
        Failure::usage(format!(
            "{option} {text:?}: expected an RFC 3339 date-time with an offset, like 2026-11-03T10:15:30Z"
        ))
    })
}

/// `contract start`
pub fn contract(config: &Config, command: Contract, output: Output) -> Result<u8, Failure> {
    let Contract::Start(ContractStart {
        wallet,
        contract_id,
        plan,
        starts_at,
        term_months,
        reference,
        publish,
    }) = command;
    let time = event_time(&publish)?;
    let starts_at = starts_at.as_deref().map_or(Ok(time), |at| instant("--starts-at", at))?;
    let mut data = json!({ "contract_id": contract_id, "plan": plan, "starts_at": starts_at });
    put(&mut data, "term_months", term_months.map(Value::from));
    put(&mut data, "reference", reference.map(Value::from));
    let event = Draft { kind: "contract.started", wallet: &wallet, business_id: &contract_id, time, data };
    event.send(config, &publish, output)
}

/// `topup`
pub fn topup(config: &Config, command: &Topup, output: Output) -> Result<u8, Failure> {
    let time = event_time(&command.publish)?;
    if exact_scaled(&command.amount_usd, 2).is_none() {
        return Err(Failure::usage(format!(
            "--amount-usd {:?}: expected a price like 250 or 99.50",
            command.amount_usd
        )));
    }
    let amount: Value = serde_json::from_str(&command.amount_usd).map_err(|_| {
        Failure::usage(format!("--amount-usd {:?}: expected a price like 250 or 99.50", command.amount_usd))
    })?;
    let mut data = json!({ "topup_id": command.topup_id, "amount_usd": amount });
    put(&mut data, "reference", command.reference.clone().map(Value::from));
    let event = Draft {
        kind: "topup.purchased",
        wallet: &command.wallet,
        business_id: &command.topup_id,
        time,
        data,
    };
    event.send(config, &command.publish, output)
}

/// `adjust`
pub fn adjust(config: &Config, command: &Adjust, output: Output) -> Result<u8, Failure> {
    let time = event_time(&command.publish)?;
    let mut data = json!({
        "adjustment_id": command.adjustment_id,
        "credits": command.credits,
        "reason": command.reason,
        "actor": command.actor,
    });
    put(&mut data, "expires_at", command.expires_at.clone().map(Value::from));
    put(&mut data, "reference", command.reference.clone().map(Value::from));
    let event = Draft {
        kind: "wallet.adjusted",
        wallet: &command.wallet,
        business_id: &command.adjustment_id,
        time,
        data,
    };
    event.send(config, &command.publish, output)
}

fn event_time(publish: &Publish) -> Result<Timestamp, Failure> {
    publish.time.as_deref().map_or_else(|| Ok(Timestamp::now()), |time| instant("--time", time))
}

fn put(data: &mut Value, name: &str, value: Option<Value>) {
    if let (Some(fields), Some(value)) = (data.as_object_mut(), value) {
        fields.insert(name.to_owned(), value);
    }
}

/// An event about to be published.
struct Draft<'d> {
    kind: &'static str,
    wallet: &'d str,
    business_id: &'d str,
    time: Timestamp,
    data: Value,
}

impl Draft<'_> {
    fn send(&self, config: &Config, publish: &Publish, output: Output) -> Result<u8, Failure> {
        let id =
            Uuid::new_v5(&IDS, format!("{}\n{}\n{}", self.wallet, self.kind, self.business_id).as_bytes())
                .to_string();
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
        if publish.dry_run {
            output.object(&event, || serde_json::to_string_pretty(&event).unwrap_or_default())?;
            return Ok(exit::DONE);
        }
        let place = produce(config, self.wallet, &value)?;
        let said = json!({ "event_id": id, "source": SOURCE, "time": self.time, "topic": place.0, "partition": place.1 });
        output.object(&said, || {
            format!(
                "{} published for {} as event {id} at {} (topic {}, partition {})",
                self.kind, self.wallet, self.time, place.0, place.1
            )
        })?;
        Ok(exit::DONE)
    }
}

/// What the ledger stage would refuse without knowing the wallet is refused here, before anything is sent.
fn check(config: &Config, value: &[u8]) -> Result<(), Failure> {
    let pricing = app::pricing(config).map_err(|error| Failure::config(format!("{error:#}")))?;
    let record = IncomingRecord { source_kind: SourceKind::Wallet, value: Some(value), headers: &[] };
    let refused = |rejection: &crate::event::Rejection| {
        Failure::usage(format!(
            "this would be quarantined as {}: {}",
            rejection.reason.as_str(),
            rejection.detail
        ))
    };
    let event: Event<'_> =
        decode(&record, &EventRules::new(&config.events)).map_err(|rejection| refused(&rejection))?;
    if let Some(data) = &event.data {
        let data = data.as_ref().map_err(refused)?;
        Command::price(data, event.time, JobHistory::default(), &pricing)
            .map_err(|rejection| refused(&rejection))?;
    }
    Ok(())
}

fn produce(config: &Config, wallet: &str, value: &[u8]) -> Result<(String, i32), Failure> {
    let topic = config.topics.wallet_topics().into_iter().next().unwrap_or_default();
    let clients = Clients::new(std::sync::Arc::new(config.clone()));
    let unreachable = |error: rdkafka::error::KafkaError| Failure::unavailable(format!("kafka: {error}"));
    let producer: KafkaProducer = clients.producer().map_err(unreachable)?;
    let metadata = producer.client().fetch_metadata(Some(&topic), TIMEOUT).map_err(unreachable)?;
    let partitions = metadata.topics().first().map_or(0, |topic| topic.partitions().len());
    if partitions == 0 {
        return Err(Failure::unavailable(format!("topic {topic} does not exist: run `creditstream init`")));
    }
    let partition = partition_for(wallet.as_bytes(), i32::try_from(partitions).unwrap_or(1));
    let record = BaseRecord::to(&topic).partition(partition).key(wallet.as_bytes()).payload(value);
    producer.send::<[u8], [u8]>(record).map_err(|(error, _)| unreachable(error))?;
    producer.flush(TIMEOUT).map_err(unreachable)?;
    if producer.in_flight_count() > 0 {
        return Err(Failure::unavailable(
            "the event was not acknowledged in time: repeat the command with the same --time",
        ));
    }
    Ok((topic, partition))
}
