//! What came of a deployment's records, as far as it may not depend on who processed them, or beside what: plain JSON
//! of the ledger and of the wallets' snapshots, to be laid beside that of another deployment.

use std::collections::{BTreeMap, BTreeSet};

use creditstream::config::Config;
use creditstream::kafka::partition_for;
use serde_json::Value;

use super::kafka;

/// Wallet, job, asset; no asset: the whole job.
pub type JobId = (String, String, String);

/// What a job cost in the end, and how it came to that.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct JobOutcome {
    pub charged: i64,
    pub reversed: i64,
    pub entry_types: BTreeMap<String, u64>,
}

/// What a wallet has in the end.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WalletOutcome {
    pub balance: i64,
    pub overdraft: i64,
    pub held: i64,
}

/// Of all wallets.
#[derive(Default)]
pub struct Outcome {
    pub jobs: BTreeMap<JobId, JobOutcome>,
    pub wallets: BTreeMap<String, WalletOutcome>,
    /// What is left of each grant, by wallet and grant.
    pub grants: BTreeMap<String, BTreeMap<String, i64>>,
    /// Wallets of which a grant pays for one thing or another by the order of what is not ordered: a record that came
    /// by another partition than its wallet's and the others; a debit or a change of plan and the allocation that a
    /// clock brings.
    pub without_order: BTreeSet<String>,
}

impl Outcome {
    /// Reads the topics of a deployment. Its snapshots must have been waited for.
    #[track_caller]
    pub fn read(config: &Config) -> Outcome {
        let mut outcome = Outcome::default();
        for record in kafka::read_all(config, &config.topics.ledger) {
            let value = record.json();
            for entry in value["entries"].as_array().unwrap() {
                outcome.add(record.key_text(), entry, config.topics.shards);
            }
        }
        for record in kafka::read_all(config, &config.topics.wallets) {
            let value = record.json();
            let grants = value.get("grants").and_then(Value::as_array).into_iter().flatten();
            let left = grants.map(left_of).collect();
            outcome.grants.insert(record.key_text().to_owned(), left);
        }
        outcome
    }

    fn add(&mut self, wallet_id: &str, entry: &Value, shards: i32) {
        let text = |name: &str| entry.get(name).map_or("", |text| text.as_str().unwrap()).to_owned();
        let number = |name: &str| entry.get(name).map_or(0, |number| number.as_i64().unwrap());
        let wallet = self.wallets.entry(wallet_id.to_owned()).or_default();
        (wallet.balance, wallet.overdraft, wallet.held) =
            (number("balance_after"), number("overdraft_after"), number("held_after"));
        let entry_type = text("entry_type");
        // What fell due by itself has no origin.
        let is_handed_over = entry.get("event_id").is_some()
            && number("origin_partition") != i64::from(partition_for(wallet_id.as_bytes(), shards));
        let is_debit = entry_type == "adjusted" && number("credits") < 0;
        if is_handed_over || is_debit || entry_type == "contract_changed" {
            self.without_order.insert(wallet_id.to_owned());
        }
        // It tells of the wallet's overdraft, which is another one where another record came first.
        if text("job_id").is_empty() || entry_type == "overdraft_repaid" {
            return;
        }
        let job = self.jobs.entry((wallet_id.to_owned(), text("job_id"), text("asset_id"))).or_default();
        match entry_type.as_str() {
            "charged" => job.charged -= number("credits"),
            "reversed" => job.reversed += number("credits"),
            _ => {}
        }
        *job.entry_types.entry(entry_type).or_default() += 1;
    }

    /// Panics with the first few that differ.
    #[track_caller]
    pub fn assert_equals(&self, other: &Outcome) {
        assert_same("jobs", &self.jobs, &other.jobs);
        assert_same("wallets", &self.wallets, &other.wallets);
        assert_same("what is left of grants", &self.grants_in_order(other), &other.grants_in_order(self));
    }

    /// Grants of the wallets for which their order is certain, here and there.
    pub fn grants_in_order(&self, other: &Outcome) -> BTreeMap<&str, &BTreeMap<String, i64>> {
        let is_in_order = |wallet_id: &String| {
            ![self, other].iter().any(|outcome| outcome.without_order.contains(wallet_id))
        };
        let kept = self.grants.iter().filter(|(wallet_id, _)| is_in_order(wallet_id));
        kept.map(|(wallet_id, left)| (wallet_id.as_str(), left)).collect()
    }
}

fn left_of(grant: &Value) -> (String, i64) {
    (grant["grant_id"].as_str().unwrap().to_owned(), grant["credits_remaining"].as_i64().unwrap())
}

#[track_caller]
fn assert_same<K: Ord + std::fmt::Debug, V: PartialEq + std::fmt::Debug>(
    what: &str,
    one: &BTreeMap<K, V>,
    other: &BTreeMap<K, V>,
) {
    let keys: BTreeSet<&K> = one.keys().chain(other.keys()).collect();
    let differing: Vec<_> = keys
        .into_iter()
        .map(|key| (key, one.get(key), other.get(key)))
        .filter(|(_, one, other)| one != other)
        .collect();
    assert!(
        differing.is_empty(),
        "{what}: {} differ, of {}: {:#?}",
        differing.len(),
        one.len(),
        differing.iter().take(3).collect::<Vec<_>>()
    );
}
