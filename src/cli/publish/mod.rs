//! `contract`, `topup`, `adjust`, `limits`: publish an event, checked before it is sent.
//!
//! The event id is derived from the wallet, the command and an id: the business id where the event has one, else the
//! request id that is asked for. The same command with the same `--time` is a duplicate, and with another one an id
//! conflict in the quarantine; never a second posting.
//!
//! What the wallet, as it was saved last, speaks against is a warning and is sent all the same: the ledger may be further on,
//! and it decides.

mod draft;
mod outlook;

use serde_json::{Map, Value};

use super::args::{
    Adjust, Contract, ContractCancel, ContractChange, ContractRenew, ContractStart, Limits, Publish, Topup,
};
use super::exit::Failure;
use super::output::Output;
use crate::config::Config;
use crate::event::{ID_BYTES_MAX, is_id};
use crate::rate::exact_scaled;
use crate::time::Timestamp;
use draft::Draft;

/// Reads a time given on the command line.
pub fn instant(option: &str, text: &str) -> Result<Timestamp, Failure> {
    Timestamp::parse(text).ok_or_else(|| {
        Failure::usage(format!(
            "{option} {text:?}: expected an RFC 3339 date-time with an offset, like 2026-11-03T10:15:30Z"
        ))
    })
}

/// `contract start|change|renew|cancel`
pub fn contract(config: &Config, command: &Contract, output: Output) -> Result<u8, Failure> {
    match command {
        Contract::Start(start) => start_contract(config, start, output),
        Contract::Change(change) => change_contract(config, change, output),
        Contract::Renew(renewal) => renew_contract(config, renewal, output),
        Contract::Cancel(cancellation) => cancel_contract(config, cancellation, output),
    }
}

fn start_contract(config: &Config, command: &ContractStart, output: Output) -> Result<u8, Failure> {
    let time = event_time(&command.publish)?;
    let starts_at = command.starts_at.as_deref().map_or(Ok(time), |at| instant("--starts-at", at))?;
    let mut data = Data::new(&command.publish);
    data.put("contract_id", command.contract_id.as_str());
    data.put("plan", command.plan.as_str());
    data.put("starts_at", starts_at.to_string());
    data.put("term_months", command.term_months);
    let draft = Draft {
        kind: "contract.started",
        wallet: &command.wallet,
        id: &command.contract_id,
        time,
        data: data.0,
    };
    draft.publish(config, command.publish.dry_run, output)
}

fn change_contract(config: &Config, command: &ContractChange, output: Output) -> Result<u8, Failure> {
    let mut data = Data::new(&command.publish);
    data.put("contract_id", command.contract_id.as_str());
    data.put("plan", command.plan.as_str());
    data.put_instant("effective_at", "--effective-at", command.effective_at.as_deref())?;
    let draft = Draft {
        kind: "contract.plan_changed",
        wallet: &command.wallet,
        id: request_id(&command.request_id)?,
        time: event_time(&command.publish)?,
        data: data.0,
    };
    draft.publish(config, command.publish.dry_run, output)
}

fn renew_contract(config: &Config, command: &ContractRenew, output: Output) -> Result<u8, Failure> {
    let mut data = Data::new(&command.publish);
    data.put("contract_id", command.contract_id.as_str());
    data.put("plan", command.plan.as_deref());
    data.put("term_months", command.term_months);
    let draft = Draft {
        kind: "contract.renewed",
        wallet: &command.wallet,
        id: request_id(&command.request_id)?,
        time: event_time(&command.publish)?,
        data: data.0,
    };
    draft.publish(config, command.publish.dry_run, output)
}

fn cancel_contract(config: &Config, command: &ContractCancel, output: Output) -> Result<u8, Failure> {
    let mut data = Data::new(&command.publish);
    data.put("contract_id", command.contract_id.as_str());
    data.put_instant("effective_at", "--effective-at", command.effective_at.as_deref())?;
    let draft = Draft {
        kind: "contract.cancelled",
        wallet: &command.wallet,
        id: request_id(&command.request_id)?,
        time: event_time(&command.publish)?,
        data: data.0,
    };
    draft.publish(config, command.publish.dry_run, output)
}

/// `topup`
pub fn topup(config: &Config, command: &Topup, output: Output) -> Result<u8, Failure> {
    let amount = exact_scaled(&command.amount_usd, 2).and_then(|_| number(&command.amount_usd));
    let amount = amount.ok_or_else(|| {
        Failure::usage(format!("--amount-usd {:?}: expected a price like 250 or 99.50", command.amount_usd))
    })?;
    let mut data = Data::new(&command.publish);
    data.put("topup_id", command.topup_id.as_str());
    data.put("amount_usd", amount);
    let draft = Draft {
        kind: "topup.purchased",
        wallet: &command.wallet,
        id: &command.topup_id,
        time: event_time(&command.publish)?,
        data: data.0,
    };
    draft.publish(config, command.publish.dry_run, output)
}

/// `adjust`
pub fn adjust(config: &Config, command: &Adjust, output: Output) -> Result<u8, Failure> {
    let mut data = Data::new(&command.publish);
    data.put("adjustment_id", command.adjustment_id.as_str());
    data.put("credits", command.credits);
    data.put("reason", command.reason.as_str());
    data.put("actor", command.actor.as_str());
    data.put_instant("expires_at", "--expires-at", command.expires_at.as_deref())?;
    let draft = Draft {
        kind: "wallet.adjusted",
        wallet: &command.wallet,
        id: &command.adjustment_id,
        time: event_time(&command.publish)?,
        data: data.0,
    };
    draft.publish(config, command.publish.dry_run, output)
}

/// `limits`
pub fn limits(config: &Config, command: &Limits, output: Output) -> Result<u8, Failure> {
    let mut data = Data::new(&command.publish);
    data.put("overdraft_limit", command.overdraft.as_deref().map(limit));
    data.put("low_percent", command.low_percent.as_deref().map(limit));
    data.put("critical_percent", command.critical_percent.as_deref().map(limit));
    let draft = Draft {
        kind: "wallet.limits_changed",
        wallet: &command.wallet,
        id: request_id(&command.request_id)?,
        time: event_time(&command.publish)?,
        data: data.0,
    };
    draft.publish(config, command.publish.dry_run, output)
}

fn event_time(publish: &Publish) -> Result<Timestamp, Failure> {
    publish.time.as_deref().map_or_else(|| Ok(Timestamp::now()), |time| instant("--time", time))
}

/// Business ids are checked with the event that they are part of; a request id is part of none.
fn request_id(id: &str) -> Result<&str, Failure> {
    if is_id(id) {
        return Ok(id);
    }
    Err(Failure::usage(format!(
        "--request-id {id:?}: expected text of 1 to {ID_BYTES_MAX} bytes of printable ASCII"
    )))
}

/// A limit as JSON has it. What is no number stays text, and the decoder says whether that is a limit.
fn limit(text: &str) -> Value {
    number(text).unwrap_or_else(|| Value::from(text))
}

fn number(text: &str) -> Option<Value> {
    serde_json::from_str(text).ok().filter(Value::is_number)
}

/// The data of an event in the making. What is absent is left out.
struct Data(Map<String, Value>);

impl Data {
    fn new(publish: &Publish) -> Data {
        let mut data = Data(Map::new());
        data.put("reference", publish.reference.as_deref());
        data
    }

    fn put(&mut self, name: &str, value: impl Into<Value>) {
        let value = value.into();
        if !value.is_null() {
            self.0.insert(name.to_owned(), value);
        }
    }

    fn put_instant(&mut self, name: &str, option: &str, text: Option<&str>) -> Result<(), Failure> {
        let at = text.map(|text| instant(option, text)).transpose()?;
        self.put(name, at.map(|at| at.to_string()));
        Ok(())
    }
}
