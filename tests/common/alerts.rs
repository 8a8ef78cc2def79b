//! Alerts made by hand, posted as the ledger stage posts them, and what receivers got of them.

use std::collections::BTreeMap;

use serde_json::json;

use super::deployment::SHARDS;
use super::receiver::Request;
use super::{Deployment, kafka};

/// Two secrets of every endpoint: an old one and its successor.
pub const OLD_SECRET: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
pub const NEW_SECRET: &str = "whsec_ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8=";
/// More of an endpoint's settings: it is on this machine.
pub const LOCAL: &str = ", allow_private = true";

/// An endpoint as the configuration has it.
pub fn endpoint(name: &str, url: &str, more: &str) -> String {
    format!("{{ name = {name:?}, url = {url:?}, secrets = [{OLD_SECRET:?}, {NEW_SECRET:?}]{more} }}")
}

pub fn level_alert(wallet: &str, seq: u64, level: &str, plan: &str) -> serde_json::Value {
    json!({
        "v": 1, "wallet_id": wallet, "alert_id": format!("{wallet}:{level}:{seq}"), "kind": "level", "level": level,
        "level_before": "ok", "seq": seq, "raised_at": "2026-11-03T10:15:30.123Z", "available": 40,
        "allocation": 200, "plan": plan
    })
}

pub fn partition_of(wallet: &str) -> i32 {
    creditstream::kafka::partition_for(wallet.as_bytes(), SHARDS)
}

/// Posts alerts as the ledger stage does: key and partition are the wallet's.
pub fn post(deployment: &Deployment, alerts: &[serde_json::Value]) {
    let records: Vec<(String, String)> = alerts
        .iter()
        .map(|alert| (alert["wallet_id"].as_str().unwrap().to_owned(), alert.to_string()))
        .collect();
    let sent: Vec<kafka::Sent<'_>> = records
        .iter()
        .map(|(wallet, value)| kafka::Sent {
            partition: Some(partition_of(wallet)),
            key: Some(wallet.as_bytes()),
            value: Some(value.as_bytes()),
            ..kafka::Sent::default()
        })
        .collect();
    kafka::send_all(&deployment.config, &deployment.config.topics.alerts, &sent).unwrap();
}

pub fn lives(wallets: u64, alerts: u64) -> Vec<serde_json::Value> {
    let numbers = (1..=alerts).flat_map(|seq| (0..wallets).map(move |wallet| (wallet, seq)));
    numbers.map(|(wallet, seq)| level_alert(&format!("w.{wallet}"), seq, "low", "lite")).collect()
}

/// Of each wallet the numbers as they came.
pub fn by_wallet(requests: &[Request]) -> BTreeMap<String, Vec<u64>> {
    let mut found: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for request in requests {
        let (wallet, seq) = request.wallet_and_seq();
        found.entry(wallet).or_default().push(seq);
    }
    found
}

/// Of each wallet the first arrivals are in order, from 1 on without a gap: what comes again came before.
#[track_caller]
pub fn assert_in_order(by_wallet: &BTreeMap<String, Vec<u64>>) {
    for (wallet, seqs) in by_wallet {
        let mut next = 1;
        for seq in seqs {
            assert!(*seq <= next, "{wallet}: {seq} came before {next}");
            next = next.max(seq + 1);
        }
    }
}
