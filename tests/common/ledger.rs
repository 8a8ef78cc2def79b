//! The ledger topic, added up by itself: plain JSON and sums, none of the product's types.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use creditstream::config::Config;
use serde_json::Value;

use super::kafka::{self, Record};

/// Sums of a wallet's entries.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sums {
    pub seq: u64,
    pub granted: i64,
    pub adjusted: i64,
    pub charged: i64,
    pub reversed: i64,
    pub held: i64,
    pub balance: i64,
    pub charges: u64,
    pub images: u64,
    pub video_millis: i64,
    pub jobs: BTreeSet<String>,
}

/// Balance and seq.
pub type Latest = (i64, u64);

/// What the topic holds.
#[derive(Default)]
pub struct Ledger {
    pub wallets: BTreeMap<String, Sums>,
    pub entries: u64,
    /// Alerts that follow from it, by wallet, in order.
    pub alerts: BTreeMap<String, Vec<String>>,
    /// Those that the topic of alerts holds.
    pub found_alerts: BTreeMap<String, Vec<String>>,
    pub quarantine: Vec<Record>,
    /// Balance and seq of the latest snapshot of each wallet.
    pub snapshots: BTreeMap<String, Latest>,
}

impl Ledger {
    /// Reads the topics of a deployment, and checks what must hold whatever was sent: every entry follows its
    /// wallet's last one, sums close, no event and no record is there twice.
    #[track_caller]
    pub fn read(config: &Config) -> Ledger {
        let mut ledger = Ledger::default();
        let (mut origins, mut events) = (HashSet::new(), HashSet::new());
        let mut homes: HashMap<String, i32> = HashMap::new();
        let mut levels: HashMap<String, String> = HashMap::new();
        for record in kafka::read_all(config, &config.topics.ledger) {
            let value = record.json();
            let wallet_id = record.key_text().to_owned();
            assert_eq!(value["wallet_id"], wallet_id.as_str(), "key and value name one wallet");
            let home = *homes.entry(wallet_id.clone()).or_insert(record.partition);
            assert_eq!(home, record.partition, "{wallet_id} is in two partitions");
            let entries = value["entries"].as_array().unwrap();
            let level = levels.entry(wallet_id.clone()).or_insert_with(|| "ok".to_owned());
            let raised = alerts_of(&wallet_id, level, entries);
            if !raised.is_empty() {
                ledger.alerts.entry(wallet_id.clone()).or_default().extend(raised);
            }
            let first = &entries[0];
            // What fell due by itself has neither an event nor an origin.
            if first.get("event_id").is_none() {
                let sums = ledger.wallets.entry(wallet_id.clone()).or_default();
                ledger.entries += entries.len() as u64;
                entries.iter().for_each(|entry| sums.add(&wallet_id, entry));
                continue;
            }
            let origin =
                format!("{}/{}/{}", first["origin_topic"], first["origin_partition"], first["origin_offset"]);
            assert!(origins.insert(origin.clone()), "record {origin} was posted twice");
            let event = format!("{wallet_id} {} {}", first["source"], first["event_id"]);
            assert!(events.insert(event.clone()), "event {event} was posted twice");
            let sums = ledger.wallets.entry(wallet_id.clone()).or_default();
            for entry in entries {
                ledger.entries += 1;
                sums.add(&wallet_id, entry);
            }
        }
        for record in kafka::read_all(config, &config.topics.alerts) {
            let wallet_id = record.key_text().to_owned();
            assert_eq!(homes[&wallet_id], record.partition, "{wallet_id}: alerts are where its entries are");
            ledger.found_alerts.entry(wallet_id).or_default().push(shown(&record.json()));
        }
        ledger.read_snapshots(config);
        ledger.quarantine = kafka::read_all(config, &config.topics.quarantine);
        ledger
    }

    /// Reads the latest snapshot of each wallet.
    pub fn read_snapshots(&mut self, config: &Config) {
        for record in kafka::read_all(config, &config.topics.wallets) {
            if record.value.is_none() {
                self.snapshots.remove(record.key_text());
                continue;
            }
            let value = record.json();
            let latest = (number(&value, "balance"), value["seq"].as_u64().unwrap());
            self.snapshots.insert(record.key_text().to_owned(), latest);
        }
    }

    /// Wallets whose latest snapshot is not what their entries add up to: expected, found.
    pub fn stale_snapshots(&self) -> Vec<(&str, Latest, Option<Latest>)> {
        let wallets = self.wallets.iter().map(|(wallet_id, sums)| {
            (wallet_id.as_str(), (sums.balance, sums.seq), self.snapshots.get(wallet_id).copied())
        });
        wallets.filter(|(_, expected, found)| Some(*expected) != *found).collect()
    }

    /// Quarantined records by reason.
    pub fn reasons(&self) -> BTreeMap<String, u64> {
        let mut reasons = BTreeMap::new();
        for record in &self.quarantine {
            *reasons.entry(record.header("cs_reason").unwrap()).or_default() += 1;
        }
        reasons
    }
}

/// The alerts of one unit: of its level, where that is another one, then of what it warns of.
fn alerts_of(wallet_id: &str, level: &mut String, entries: &[Value]) -> Vec<String> {
    let last = entries.last().unwrap();
    let after = last["level"].as_str().unwrap();
    let alert = |kind: &str, name: &str, entry: &Value, more: Value| {
        let mut alert = serde_json::json!({
            "alert_id": format!("{wallet_id}:{name}:{}", entry["seq"]), "kind": kind, "level": after,
            "seq": entry["seq"], "raised_at": entry["posted_at"]
        });
        alert.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        shown(&alert)
    };
    let mut alerts = Vec::new();
    if after != level {
        alerts.push(alert("level", after, last, serde_json::json!({ "level_before": *level })));
        after.clone_into(level);
    }
    let is_warning = |entry: &&Value| entry["entry_type"] == "noted" && entry.get("event_id").is_none();
    for entry in entries.iter().filter(is_warning) {
        let kind = entry["reason"].as_str().unwrap();
        alerts.push(alert(kind, kind, entry, serde_json::json!({ "amount": entry["amount"] })));
    }
    alerts
}

/// What is compared of an alert.
fn shown(alert: &Value) -> String {
    let members = ["alert_id", "kind", "level", "level_before", "seq", "raised_at", "amount"];
    members.map(|member| alert[member].to_string()).join(" ")
}

impl Sums {
    fn add(&mut self, wallet_id: &str, entry: &Value) {
        let seq = entry["seq"].as_u64().unwrap();
        assert_eq!(seq, self.seq + 1, "{wallet_id}: every entry follows the last one");
        self.seq = seq;
        let credits = number(entry, "credits");
        self.balance += credits;
        assert_eq!(
            number(entry, "balance_after"),
            self.balance,
            "{wallet_id} seq {seq}: the sum of credits is the balance"
        );
        self.held += number(entry, "held_credits");
        assert_eq!(number(entry, "held_after"), self.held, "{wallet_id} seq {seq}: what is held closes too");
        match entry["entry_type"].as_str().unwrap() {
            "granted" => self.granted += credits,
            "reversed" => self.reversed += credits,
            "adjusted" => self.adjusted += credits,
            "charged" => {
                self.charged -= credits;
                self.charges += 1;
                self.images += entry["images"].as_u64().unwrap_or_default();
                self.video_millis += entry["video_seconds"].as_str().map_or(0, thousandths);
                self.jobs.insert(entry["job_id"].as_str().unwrap().to_owned());
            }
            _ => assert_eq!(credits, 0, "{wallet_id} seq {seq}"),
        }
    }
}

fn number(value: &Value, name: &str) -> i64 {
    value.get(name).map_or(0, |number| number.as_i64().unwrap())
}

/// A decimal with at most three places, in thousandths.
pub fn thousandths(text: &str) -> i64 {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    whole.parse::<i64>().unwrap() * 1_000 + format!("{part:0<3}").parse::<i64>().unwrap()
}
