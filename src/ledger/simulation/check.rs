//! What is in the topics once everything is quiet, against the books.

use std::collections::{BTreeMap, BTreeSet};

use xxhash_rust::xxh3::Xxh3;

use super::scheduler::State;
use super::workload::Workload;
use crate::alert::Alert;
use crate::ledger::alerts::alerts_of;
use crate::ledger::books::{Books, Outcome};
use crate::ledger::headers;
use crate::ledger::progress::{PartitionProgress, ShardProgress};
use crate::rate::Pricing;
use crate::time::Timestamp;
use crate::wallet::{EntryType, Holds, LedgerRecord, Wallet, WalletSnapshot};

const HORIZON_DAYS: i32 = 35;

/// How much there was to compare.
pub struct Counted {
    pub entries: u64,
    pub alerts: u64,
}

/// Compares.
///
/// # Errors
/// The first difference, in words.
pub fn check(
    state: &State,
    workload: &Workload,
    pricing: &Pricing,
    until: Timestamp,
) -> Result<Counted, String> {
    let ledger = Ledger::read(state, pricing)?;
    ledger.compare(workload, until)?;
    check_quarantine(state, workload)?;
    check_books(state, workload)?;
    check_snapshots(state, &ledger)?;
    check_alerts(state, &ledger)?;
    check_forms(state)?;
    let alerts = ledger.alerts.values().map(|alerts| alerts.len() as u64).sum();
    Ok(Counted { entries: ledger.entries, alerts })
}

/// The ledger, folded.
#[derive(Default)]
struct Ledger {
    wallets: BTreeMap<String, Folded>,
    /// How often each event id was posted.
    posted: BTreeMap<String, u32>,
    /// Alerts that follow from it, by partition.
    alerts: BTreeMap<i32, Vec<String>>,
    entries: u64,
}

#[derive(Default)]
struct Folded {
    wallet: Wallet,
    charges: u64,
    charged: i64,
    reversed: i64,
}

impl Ledger {
    fn read(state: &State, pricing: &Pricing) -> Result<Ledger, String> {
        let mut ledger = Ledger::default();
        let logs = state.broker.logs.iter().filter(|((topic, _), _)| *topic == "credits.ledger");
        for ((_, partition), log) in logs {
            for (offset, stored) in log.committed() {
                let value = stored.value.as_deref().unwrap_or_default();
                let record: LedgerRecord<'_> = serde_json::from_slice(value)
                    .map_err(|error| format!("ledger {partition}/{offset}: {error}"))?;
                let folded = ledger.wallets.entry(record.wallet_id.to_string()).or_default();
                let level_before = folded.wallet.level;
                folded.wallet.fold_record(&record, HORIZON_DAYS).map_err(|error| {
                    format!("ledger {partition}/{offset}: wallet {}: {error}", record.wallet_id)
                })?;
                let alerts = alerts_of(&record, level_before, &folded.wallet, pricing);
                let alerts = alerts.iter().map(|alert| serde_json::to_string(alert).unwrap());
                ledger.alerts.entry(*partition).or_default().extend(alerts);
                if let Some(first) = record.entries.first().filter(|entry| !entry.event_id.is_empty()) {
                    *ledger.posted.entry(first.event_id.to_string()).or_default() += 1;
                }
                for entry in &record.entries {
                    ledger.entries += 1;
                    match entry.entry_type {
                        EntryType::Charged => {
                            folded.charges += 1;
                            folded.charged -= entry.credits;
                        }
                        EntryType::Reversed => folded.reversed += entry.credits,
                        _ => {}
                    }
                }
            }
        }
        Ok(ledger)
    }

    fn compare(&self, workload: &Workload, until: Timestamp) -> Result<(), String> {
        for id in &workload.to_be_posted {
            let times = self.posted.get(id).copied().unwrap_or(0);
            if times != 1 {
                return Err(format!("event {id} was posted {times} times"));
            }
        }
        if let Some(id) = self.posted.keys().find(|id| !workload.to_be_posted.contains(*id)) {
            return Err(format!("event {id} was posted, and must not be"));
        }
        let empty = Folded::default();
        for (id, book) in &workload.wallets {
            let folded = self.wallets.get(id).unwrap_or(&empty);
            let came = (
                folded.wallet.balance(),
                folded.wallet.held,
                folded.charges,
                folded.charged,
                folded.reversed,
            );
            let wanted = (book.balance_at(until), 0, book.charges, book.charged, book.reversed);
            if came != wanted {
                return Err(format!(
                    "wallet {id}: balance, held, charges, charged, reversed are {came:?}, the books say {wanted:?}"
                ));
            }
        }
        Ok(())
    }
}

fn check_quarantine(state: &State, workload: &Workload) -> Result<(), String> {
    let mut found = BTreeSet::new();
    let logs = state.broker.logs.iter().filter(|((topic, _), _)| *topic == "credits.quarantine");
    for (_, stored) in logs.flat_map(|(_, log)| log.committed()) {
        let header = |wanted: &str| {
            let header = stored.headers.iter().find(|(name, _)| name == wanted);
            header.map_or(String::new(), |(_, value)| String::from_utf8_lossy(value).into_owned())
        };
        let place =
            (super::client::topic(&header(headers::TOPIC)), header(headers::PARTITION).parse().unwrap_or(-1));
        let offset = header(headers::OFFSET).parse().unwrap_or(-1);
        if !found.insert((place, offset)) {
            return Err(format!("{place:?} offset {offset} was quarantined twice"));
        }
    }
    if found != workload.to_be_quarantined {
        let different: Vec<_> = found.symmetric_difference(&workload.to_be_quarantined).collect();
        return Err(format!("quarantined, or not: {different:?}"));
    }
    Ok(())
}

/// Progress and alerts, read and written again, are what they were, byte for byte.
fn check_forms(state: &State) -> Result<(), String> {
    for ((topic, partition), log) in &state.broker.logs {
        for (offset, stored) in log.committed() {
            let (key, value) = (stored.key.as_deref().unwrap_or_default(), stored.value.as_deref());
            let Some(value) = value else { continue };
            let again = match (*topic, key.starts_with(b"shard/")) {
                ("credits.progress", true) => serde_json::from_slice::<ShardProgress>(value)
                    .and_then(|progress| serde_json::to_vec(&progress)),
                ("credits.progress", false) => serde_json::from_slice::<PartitionProgress>(value)
                    .and_then(|progress| serde_json::to_vec(&progress)),
                ("credits.alerts", _) => {
                    serde_json::from_slice::<Alert<'_>>(value).and_then(|alert| serde_json::to_vec(&alert))
                }
                _ => continue,
            };
            let again =
                again.map_err(|error| format!("{topic}/{partition} {offset} cannot be read: {error}"))?;
            if again != value {
                return Err(format!(
                    "{topic}/{partition} {offset}: {} is written again as {}",
                    String::from_utf8_lossy(value),
                    String::from_utf8_lossy(&again)
                ));
            }
        }
    }
    Ok(())
}

/// Every record has exactly one outcome.
fn check_books(state: &State, workload: &Workload) -> Result<(), String> {
    let mut progress: BTreeMap<String, PartitionProgress> = BTreeMap::new();
    let logs = state.broker.logs.iter().filter(|((topic, _), _)| *topic == "credits.progress");
    for (_, stored) in logs.flat_map(|(_, log)| log.committed()) {
        let key = String::from_utf8_lossy(stored.key.as_deref().unwrap_or_default()).into_owned();
        if !key.starts_with("shard/") {
            let value = serde_json::from_slice(stored.value.as_deref().unwrap_or_default());
            progress.insert(key, value.map_err(|error| error.to_string())?);
        }
    }
    let counted = |books: &Books| {
        let all = Outcome::ALL.into_iter().filter(|outcome| *outcome != Outcome::Skipped);
        all.map(|outcome| books.get(outcome)).sum::<u64>()
    };
    let mut sums = Books::default();
    for (topic, partitions) in &state.broker.group.topics {
        for partition in 0..*partitions {
            let log = &state.broker.logs[&(*topic, partition)];
            let records = log.committed().count() as u64;
            let books =
                progress.get(&format!("{topic}/{partition}")).map(|known| known.outcomes).unwrap_or_default();
            if counted(&books) != records {
                return Err(format!(
                    "{topic}/{partition} has {records} records, {} outcomes are counted",
                    counted(&books)
                ));
            }
            sums.add(&books);
        }
    }
    let counts = &workload.counts;
    for (outcome, wanted) in [
        (Outcome::Free, counts.free),
        (Outcome::Duplicate, counts.duplicate),
        (Outcome::Quarantined, counts.quarantined),
    ] {
        if sums.get(outcome) != wanted {
            return Err(format!("{} {}, the books say {wanted}", sums.get(outcome), outcome.as_str()));
        }
    }
    let finally = counted(&sums) - sums.get(Outcome::HandedOver);
    if finally != counts.records {
        return Err(format!("{} records were sent, {finally} outcomes are final", counts.records));
    }
    Ok(())
}

/// The latest states of the wallets are the folds of their entries, whatever was restored in between: all of it, but for
/// holds, which no snapshot has.
fn check_snapshots(state: &State, ledger: &Ledger) -> Result<(), String> {
    let mut latest = BTreeMap::new();
    let logs = state.broker.logs.iter().filter(|((topic, _), _)| *topic == "credits.wallets");
    for (_, stored) in logs.flat_map(|(_, log)| log.committed()) {
        let snapshot: WalletSnapshot<'_> =
            serde_json::from_slice(stored.value.as_deref().unwrap_or_default())
                .map_err(|error| error.to_string())?;
        latest.insert(snapshot.wallet_id.to_string(), snapshot.into_wallet());
    }
    for (id, folded) in &ledger.wallets {
        let wanted = Wallet { holds: Holds::default(), ..folded.wallet.clone() };
        let came = latest.get(id);
        if came != Some(&wanted) {
            return Err(format!("wallet {id} is saved as {came:?}, the ledger makes it {wanted:?}"));
        }
    }
    Ok(())
}

/// The alerts are those that follow from the ledger, each once, in the order of what raised them.
fn check_alerts(state: &State, ledger: &Ledger) -> Result<(), String> {
    let logs = state.broker.logs.iter().filter(|((topic, _), _)| *topic == "credits.alerts");
    for ((_, partition), log) in logs {
        let text = |bytes: &Option<Vec<u8>>| String::from_utf8(bytes.clone().unwrap_or_default()).unwrap();
        let found: Vec<String> = log.committed().map(|(_, stored)| text(&stored.value)).collect();
        let wanted = ledger.alerts.get(partition).cloned().unwrap_or_default();
        if found == wanted {
            continue;
        }
        let place = found.iter().zip(&wanted).position(|(found, wanted)| found != wanted);
        let place = place.unwrap_or(found.len().min(wanted.len()));
        return Err(format!(
            "alerts {partition}/{place}: {:?}, the ledger says {:?} ({} alerts, expected {})",
            found.get(place),
            wanted.get(place),
            found.len(),
            wanted.len()
        ));
    }
    Ok(())
}

/// Hash of all that lies in the topics.
pub fn fingerprint(state: &State) -> u64 {
    let mut hash = Xxh3::new();
    for ((topic, partition), log) in &state.broker.logs {
        hash.update(topic.as_bytes());
        hash.update(&partition.to_le_bytes());
        for stored in &log.records {
            hash.update(&stored.timestamp.to_le_bytes());
            hash.update(stored.key.as_deref().unwrap_or_default());
            hash.update(stored.value.as_deref().unwrap_or_default());
        }
    }
    hash.update(&state.now.to_le_bytes());
    hash.digest()
}

/// Prints what the topics hold of a wallet: for whoever looks into a seed that failed.
pub fn show(state: &State, wallet: &str) {
    for ((topic, partition), log) in &state.broker.logs {
        for (offset, stored) in log.committed() {
            let value = String::from_utf8_lossy(stored.value.as_deref().unwrap_or_default()).into_owned();
            let is_of_wallet = value.contains(&format!("\"{wallet}\"")) || *topic == "credits.progress";
            if is_of_wallet {
                println!("{topic}/{partition} {offset} at {}: {value}", stored.timestamp);
            }
        }
    }
}
