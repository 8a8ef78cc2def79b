//! Wallets of one shard share its stream, clock, batches, table of wallets, timers and remembered identities, and nothing
//! comes of it.
//!
//! Goal: what is written of a wallet does not depend on the others. Method: lives of several wallets that use the same
//! ids, interleaved in one stream; then each of them alone, its records at the same offsets and with the same readings of
//! the clocks. Ledger, alerts, snapshots and quarantine of the wallet are compared byte for byte.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::ledger::outbox::OutTopic;
use crate::ledger::simulation::random::Random;
use crate::time::Timestamp;
use crate::wallet::{EntryType, LedgerRecord};

const WALLETS: [&str; 4] = ["w1", "w2", "w3", "w4"];
/// Batches of a stream, in pairs: the second is computed while the first is on its way.
const BATCHES: usize = 160;

/// A batch, and the time of the clocks.
struct Step {
    at: Timestamp,
    records: Vec<(&'static str, Made)>,
}

/// One event at a time, about few ids: of the two topics, and of every kind.
fn event_of(random: &mut Random, number: usize, at: Timestamp) -> Made {
    let mut id = |prefix: &str, most: u64| format!("{prefix}{}", random.below(most));
    let (job, asset) = (id("j", 30), id("a", 3));
    let (contract_id, topup_id, adjustment_id) = (id("c", 5), id("t", 40), id("d", 40));
    let event_id = if random.per_mille(60) { "again".to_owned() } else { format!("e{number}") };
    let later = at.plus_millis(i64::try_from(random.between(1, 40)).unwrap() * 86_400_000);
    let images = random.between(1, 60);
    let plan = random.one_of(&["lite", "lite", "performance"]);
    let usage = match random.below(3) {
        0 => format!(r#"{{"job_id":"{job}","asset_id":"{asset}","asset":"image","images":{images}}}"#),
        _ => format!(r#"{{"job_id":"{job}","asset":"image","images":{images}}}"#),
    };
    let (topic, kind, data) = match random.below(20) {
        0..=6 => (GENERATION, "generation.completed", usage),
        7..=9 => (GENERATION, "generation.requested", usage),
        10..=11 => {
            let kind = random.one_of(&["generation.failed", "generation.refunded", "generation.cancelled"]);
            (GENERATION, *kind, format!(r#"{{"job_id":"{job}"}}"#))
        }
        12..=13 => {
            let data = format!(
                r#"{{"contract_id":"{contract_id}","plan":"{plan}","starts_at":"{at}","term_months":2}}"#
            );
            (WALLET, "contract.started", data)
        }
        14 => {
            let data =
                format!(r#"{{"contract_id":"{contract_id}","plan":"scale","effective_at":"{later}"}}"#);
            (WALLET, "contract.plan_changed", data)
        }
        15 => (WALLET, "contract.renewed", format!(r#"{{"contract_id":"{contract_id}"}}"#)),
        16 if random.per_mille(300) => {
            (WALLET, "contract.cancelled", format!(r#"{{"contract_id":"{contract_id}"}}"#))
        }
        16 => {
            let limit = random.one_of(&["50", "\"none\""]);
            (WALLET, "wallet.limits_changed", format!(r#"{{"overdraft_limit":{limit},"low_percent":30}}"#))
        }
        17 => (WALLET, "topup.purchased", format!(r#"{{"topup_id":"{topup_id}","amount_usd":100}}"#)),
        18 => {
            let data = format!(
                r#"{{"adjustment_id":"{adjustment_id}","credits":{images},"reason":"r","actor":"a","expires_at":"{later}"}}"#
            );
            (WALLET, "wallet.adjusted", data)
        }
        _ => {
            let data = format!(
                r#"{{"adjustment_id":"{adjustment_id}","credits":-{images},"reason":"r","actor":"a"}}"#
            );
            (WALLET, "wallet.adjusted", data)
        }
    };
    let made = bench::event(topic, kind, &event_id, &data).at(&at.to_string());
    Made { timestamp: at, ..made }
}

/// A stream in which every record has its offset. Partitions go by event time, as does their merge: a record of one wallet
/// keeps no other waiting.
fn stream(seed: u64) -> Vec<Step> {
    let mut random = Random::new(seed);
    let mut at = Timestamp::parse("2026-01-29T22:00:00Z").unwrap();
    let mut numbers = BTreeMap::new();
    let mut offsets = BTreeMap::new();
    let mut steps = Vec::new();
    for batch in 0..BATCHES {
        // Both batches of a pair have one time.
        if batch % 2 == 0 {
            at = at.plus_millis(i64::try_from(random.between(1, 4_000)).unwrap() * 60_000);
        }
        let mut records = Vec::new();
        for wallet in WALLETS {
            for _ in 0..random.below(4) {
                let number = numbers.entry(wallet).or_insert(0);
                *number += 1;
                let time = at.plus_millis(-i64::try_from(random.below(90)).unwrap() * 60_000);
                let made = event_of(&mut random, *number, time);
                records.push((wallet, time, made.of_wallet(wallet)));
            }
        }
        let first = usize::try_from(random.next() % 4).unwrap();
        records.sort_by_key(|(wallet, time, _)| {
            let place = WALLETS.iter().position(|other| other == wallet).unwrap();
            (*time, (place + first) % WALLETS.len())
        });
        let with_offset = |(wallet, _, made): (&'static str, Timestamp, Made)| {
            let offset = offsets.entry(made.topic).or_insert(0);
            *offset += 1;
            (wallet, made.at_offset(*offset))
        };
        let records = records.into_iter().map(with_offset).collect();
        steps.push(Step { at, records });
    }
    steps
}

/// What is written of each wallet when these are the wallets of the shard.
fn written(steps: &[Step], wallets: &[&str]) -> BTreeMap<String, Vec<String>> {
    let mut bench = Bench::new();
    let mut written: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for pair in steps.chunks(2) {
        bench.wall = pair[0].at;
        bench.set_clock(&pair[0].at.to_string());
        for step in pair {
            let records: Vec<Made> = step
                .records
                .iter()
                .filter(|(wallet, _)| wallets.contains(wallet))
                .map(|(_, made)| made.clone())
                .collect();
            let batch = bench.batch(&records);
            let computed = bench.compute(&batch);
            bench.commit();
            bench.send();
            for topic in [OutTopic::Ledger, OutTopic::Alerts, OutTopic::Wallets] {
                for (_, key, value) in computed.records(topic) {
                    written.entry(key).or_default().push(value);
                }
            }
            for sent in computed.sent() {
                let value = String::from_utf8(sent.value.clone().unwrap()).unwrap();
                let event: serde_json::Value = serde_json::from_str(&value).unwrap();
                let wallet = event["subject"].as_str().unwrap().to_owned();
                written.entry(wallet).or_default().push(format!("{sent:?}"));
            }
        }
        bench.commit();
        assert_eq!(bench.clock().0, pair[0].at, "the same reading of the clock, whoever is there");
    }
    written
}

#[test]
fn what_is_written_of_a_wallet_is_the_same_to_the_byte_with_and_without_others_in_its_shard() {
    let mut met = BTreeSet::new();
    for seed in 1..=12 {
        let steps = stream(seed);
        let together = written(&steps, &WALLETS);
        assert_eq!(together.keys().collect::<Vec<_>>(), WALLETS, "seed {seed}");
        for (wallet, with_others) in &together {
            let alone = written(&steps, &[wallet.as_str()]);
            assert_eq!(alone.keys().collect::<Vec<_>>(), [wallet], "seed {seed}");
            for (place, (alone, with_others)) in alone[wallet].iter().zip(with_others).enumerate() {
                assert_eq!(alone, with_others, "seed {seed}: {wallet}, record {place}");
            }
            assert_eq!(alone[wallet].len(), with_others.len(), "seed {seed}: {wallet}");
            let records = with_others.iter().filter_map(|value| serde_json::from_str(value).ok());
            let entries = records.flat_map(|record: LedgerRecord<'_>| record.entries);
            met.extend(entries.map(|entry| {
                (entry.entry_type.as_str(), if entry.event_id.is_empty() { "due" } else { "event" })
            }));
        }
    }
    // The comparison is worth as much as happens in these lives.
    for kind in EntryType::ALL {
        assert!(met.iter().any(|(met, _)| *met == kind.as_str()), "{} is never posted", kind.as_str());
    }
    for due in ["granted", "expired", "contract_ended", "released", "noted"] {
        assert!(met.contains(&(due, "due")), "{due} is never due by itself: {met:?}");
    }
}
