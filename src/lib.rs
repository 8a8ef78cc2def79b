//! creditstream turns generation events (an image rendered, a video finished) into credit charges, debits
//! wallets exactly once, and writes a ledger and rollups to ClickHouse.
//!
//! The tree tells the story of an event: [`event`] decodes it, [`rate`] prices it, [`wallet`] debits it,
//! [`ledger`] does both in one Kafka transaction per batch, [`sink`] carries the ledger to ClickHouse, [`explain`] tells a
//! person what it says, [`alert`] sends alerts to webhooks, [`verify`] proves that nothing was lost or doubled.
//! [`app`] alone knows every stage.

pub mod alert;
pub mod app;
mod bytes;
pub mod cli;
pub mod config;
pub mod event;
pub mod explain;
pub mod fault;
pub mod generate;
pub mod http;
pub mod json;
pub mod kafka;
pub mod ledger;
pub mod metrics;
pub mod outgoing;
pub mod packed;
pub mod rate;
pub mod sink;
pub mod telemetry;
pub mod text;
pub mod time;
pub mod verify;
pub mod wallet;
