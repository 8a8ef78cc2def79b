//! Duplicates and conflicts: within a batch, across batches, and across a restart.

use super::*;
use crate::ledger::books::Outcome;
use crate::ledger::headers;
use crate::ledger::identity_store::Recent;
use crate::ledger::memory::{day_of, event_of_record, job_of_record, remember_event, remember_job};
use crate::ledger::outbox::OutTopic;
use crate::wallet::{JobName, LedgerRecord, Wallet};

#[test]
fn the_same_event_again_is_a_duplicate_whatever_its_spelling() {
    let mut bench = Bench::new();
    let event = usage("e1", "j1", 4);
    let mut binary = Made::new(GENERATION, r#"{"images":4.0,"job_id":"j1","asset":"image"}"#);
    for (name, value) in [
        ("specversion", "1.0"),
        ("id", "e1"),
        ("source", "/s"),
        ("type", "generation.completed"),
        ("subject", "w1"),
    ] {
        binary = binary.header(&format!("ce_{name}"), value);
    }
    bench.table(&[
        (event.clone(), "charged"),
        (event.clone(), "duplicate"),
        (event.clone().with("\"images\":4", "\"images\":4.0,\"note\":1"), "duplicate"),
        (event.clone().with("10:15:30.000Z", "11:15:30.0009+01:00"), "duplicate"),
        (binary.header("ce_time", bench::NOW), "duplicate"),
    ]);
    assert_eq!((bench.balance("w1"), bench.wallet("w1").unwrap().seq), (-4, 1));
}

#[test]
fn the_same_id_with_another_content_is_a_conflict_and_changes_nothing() {
    let mut bench = Bench::new();
    bench.table(&[
        (usage("e1", "j1", 4), "charged"),
        (usage("e1", "j1", 5), "id_conflict"),
        (usage("e1", "j2", 4), "id_conflict"),
        (usage("e1", "j1", 4).at("2026-11-03T10:15:29.999Z"), "id_conflict"),
        (topup("e1", "t1", 100), "id_conflict"),
        // Data that is not valid is not looked at before the identity is.
        (usage("e1", "j1", 0), "id_conflict"),
        (usage("e1", "j1", 4).with("\"job_id\":\"j1\",", ""), "id_conflict"),
        // What was refused took no identity: the first is still the one that is known.
        (usage("e1", "j1", 4), "duplicate"),
        // The wallet and the source are part of an identity.
        (usage("e1", "j1", 4).of_wallet("w2"), "charged"),
        (usage("e1", "j2", 4).with("\"/s\"", "\"/t\""), "charged"),
    ]);
    assert_eq!((bench.balance("w1"), bench.balance("w2")), (-8, -4));
    let conflict = bench.run(&[usage("e1", "j1", 5)]);
    let detail = conflict.sent()[0].header(headers::DETAIL).to_owned();
    let digits = detail
        .split(|character: char| !character.is_ascii_hexdigit())
        .filter(|word| word.len() == 16)
        .count();
    assert_eq!(digits, 2, "both fingerprints: {detail}");
}

#[test]
fn what_was_quarantined_can_be_mended_and_sent_again_under_its_id() {
    let mut bench = Bench::new();
    bench.table(&[
        (usage("e1", "j1", 0), "bad_value"),
        (usage("e1", "j1", 4).with("generation.completed", "video.rendered"), "unknown_type"),
        (usage("e1", "j1", 4).at("2026-09-01T00:00:00.000Z"), "too_old"),
        (topup("e2", "t1", 99), "unknown_topup"),
        (usage("e1", "j1", 4), "charged"),
        (topup("e2", "t1", 100), "granted"),
        (usage("e3", "j1", 4), "job_conflict"),
        (usage("e3", "j3", 4), "charged"),
    ]);
    assert_eq!(bench.balance("w1"), 547);
}

#[test]
fn free_events_cost_nothing_make_no_wallet_and_take_no_identity() {
    let mut bench = Bench::new();
    bench.table(&[
        (free("e1"), "free"),
        (free("e1"), "free"),
        (free("e1").with("\"data\":{}", "\"data\":null"), "missing_field"),
        (free("e1").at("2026-09-01T00:00:00.000Z"), "too_old"),
    ]);
    assert_eq!(bench.wallet("w1"), None);
    assert_eq!(bench.shards[&0].state.identities.len(), 0);
    bench.table(&[(usage("e1", "j1", 4), "charged"), (free("e1"), "free")]);
    assert_eq!(bench.wallet("w1").unwrap().seq, 1);
}

#[test]
fn a_job_is_charged_once_whatever_the_event_id() {
    let mut bench = Bench::new();
    bench.table(&[
        (usage("e1", "j1", 4), "charged"),
        (usage("e2", "j1", 4), "job_conflict"),
        (usage("e3", "j1/a", 1), "job_conflict"),
        (usage("e4", "j2/a", 1), "charged"),
        (usage("e5", "j2/a", 1), "job_conflict"),
        (usage("e6", "j2/b", 1), "charged"),
        (usage("e7", "j2", 2), "job_conflict"),
        (usage("e8", "j1", 4).of_wallet("w2"), "charged"),
        // Another source is another producer of the same job.
        (usage("e1", "j1", 4).with("\"/s\"", "\"/t\""), "job_conflict"),
    ]);
    assert_eq!((bench.balance("w1"), bench.balance("w2")), (-6, -4));
}

#[test]
fn a_refusal_is_final() {
    let mut bench = Bench::with_limit(0);
    bench.table(&[
        (contract("e1", "c1", "lite"), "contract"),
        (usage("e2", "j1", 201), "refused"),
        (usage("e2", "j1", 201), "duplicate"),
        (usage("e3", "j1", 1), "job_conflict"),
        (usage("e4", "j2", 200), "charged"),
    ]);
    assert_eq!(bench.balance("w1"), 0);
}

/// The rollup counts a job at its first charge: a refusal makes it known, and does not count.
#[test]
fn a_job_counts_once_with_the_asset_that_is_charged_first() {
    let mut bench = Bench::with_limit(0);
    bench.run(&[contract("e1", "c1", "lite")]);
    for (record, jobs) in [
        (usage("e2", "j1/a", 900), 0),
        (usage("e3", "j1/b", 900), 0),
        (usage("e4", "j1/c", 1), 1),
        (usage("e5", "j1/d", 900), 1),
        (usage("e6", "j1/e", 1), 1),
        (usage("e7", "j2/a", 1), 2),
    ] {
        let computed = bench.run(&[record]);
        let (_, _, value) = computed.records(OutTopic::Ledger).remove(0);
        let record: LedgerRecord<'_> = serde_json::from_str(&value).unwrap();
        let entry = &record.entries[0];
        assert_eq!(entry.bucket.unwrap().jobs, jobs, "{}", entry.event_id);
    }
}

#[test]
fn business_ids_contracts_plans_and_packs_have_reasons_of_their_own() {
    let mut bench = Bench::new();
    bench.table(&[
        (contract("e1", "c1", "gigantic"), "unknown_plan"),
        (contract("e1", "c1", "lite"), "contract"),
        (contract("e1", "c1", "lite"), "duplicate"),
        (contract("e2", "c1", "lite"), "id_conflict"),
        (contract("e3", "c2", "lite"), "contract_conflict"),
        (topup("e4", "t1", 99), "unknown_topup"),
        (topup("e4", "t1", 100), "granted"),
        (topup("e5", "t1", 100), "id_conflict"),
        (adjustment("e6", "a1", 7), "adjusted"),
        (adjustment("e7", "a1", 7), "id_conflict"),
        (adjustment("e8", "a2", -7), "adjusted"),
        // An unknown plan comes before the state of the wallet.
        (contract("e9", "c1", "gigantic"), "unknown_plan"),
        (topup("e9", "t1", 99), "unknown_topup"),
    ]);
    assert_eq!(bench.balance("w1"), 755);
}

/// The same table, all in one batch, in batches of which one is being committed, and committed one by one.
#[test]
fn it_makes_no_difference_in_which_batch_the_first_one_was() {
    let first = [usage("e1", "j1", 4), topup("e2", "t1", 100)];
    let second = [
        usage("e1", "j1", 4),
        usage("e1", "j1", 5),
        usage("e3", "j1", 4),
        topup("e4", "t1", 100),
        topup("e2", "t1", 100),
    ];
    let expected =
        [(Outcome::Duplicate, 2), (Outcome::Quarantined, 3), (Outcome::Charged, 1), (Outcome::Granted, 1)];
    for way in ["one batch", "pending", "committed"] {
        let mut bench = Bench::new();
        match way {
            "one batch" => drop(bench.run(&[&first[..], &second].concat())),
            "committed" => {
                bench.run(&first);
                bench.run(&second);
            }
            _ => {
                let batch = bench.batch(&first);
                bench.compute(&batch);
                bench.send();
                let batch = bench.batch(&second);
                bench.compute(&batch);
                bench.commit();
                bench.send();
                bench.commit();
            }
        }
        for (outcome, count) in expected {
            let found: u64 =
                [GENERATION, WALLET].into_iter().map(|topic| bench.count(topic, 0, outcome)).sum();
            assert_eq!(found, count, "{way}: {outcome:?}");
        }
        assert_eq!(bench.balance("w1"), 551, "{way}");
    }
}

/// A job's memory lasts as long as its latest asset's, in whatever order the assets were reported: else a retry
/// under another id would be charged a second time.
#[test]
fn a_job_is_remembered_as_long_as_the_latest_of_its_assets() {
    let mut bench = Bench::new();
    bench.wall = crate::time::Timestamp::parse("2026-12-31T00:00:00Z").unwrap();
    let at = |made: Made, day: &str| made.at(day).written_at(day);
    bench.table(&[
        (at(usage("e1", "j1/a", 1), "2026-11-20T12:00:00.000Z"), "charged"),
        (at(usage("e2", "j1/b", 1), "2026-11-10T12:00:00.000Z"), "charged"),
        // The shard moves on: 10 November is beyond the horizon, the 20th is not.
        (at(free("f1"), "2026-12-20T00:00:00.000Z"), "free"),
        (at(usage("e3", "j1/a", 1), "2026-11-20T12:00:00.000Z"), "job_conflict"),
        (at(usage("e4", "j1", 1), "2026-11-20T12:00:00.000Z"), "job_conflict"),
        (at(usage("e5", "j1/c", 1), "2026-11-20T12:00:00.000Z"), "charged"),
    ]);
    assert_eq!(bench.balance("w1"), -3);
}

#[test]
fn what_lies_before_the_day_of_the_horizon_is_forgotten_and_too_old_at_once() {
    let mut bench = Bench::new();
    bench.wall = crate::time::Timestamp::parse("2026-12-31T00:00:00Z").unwrap();
    let event = usage("e1", "j1", 1).at("2026-11-10T12:00:00.000Z").written_at("2026-11-10T12:00:00Z");
    bench.table(&[
        (event.clone(), "charged"),
        (free("f1").at("2026-12-15T12:00:00.000Z").written_at("2026-12-15T12:00:00Z"), "free"),
        (event.clone(), "duplicate"),
        (free("f2").at("2026-12-15T12:00:00.001Z").written_at("2026-12-15T12:00:00Z"), "free"),
        (event.clone(), "too_old"),
        (free("f3").at("2026-12-16T00:00:00.000Z").written_at("2026-12-15T12:00:00Z"), "free"),
    ]);
    assert_eq!(bench.shards[&0].state.identities.len(), 0, "the day is over");
    bench.table(&[(event, "too_old")]);
}

/// Goal: a restored shard decides as the one that it replaces. Method: wallets and identities built from the
/// entries alone are those of the shard that made them.
#[test]
fn the_ledger_alone_gives_back_wallets_and_identities() {
    let mut bench = Bench::with_limit(0);
    let records = [
        contract("e1", "c1", "lite"),
        usage("e2", "j1", 4),
        usage("e3", "j2/a", 500),
        usage("e4", "j2/b", 1),
        usage("e5", "j2/c", 500),
        usage("e6", "j3/a", 500),
        usage("e7", "j3/b", 500).at("2026-11-01T00:00:00.000Z"),
        usage("e8", "j4/b", 1),
        usage("e9", "j4/a", 1).at("2026-10-20T00:00:00.000Z"),
        usage("e10", "j5", 500),
        topup("e11", "t1", 100),
        adjustment("e12", "a1", 7),
        adjustment("e13", "a2", -700),
        usage("e14", "j1", 4).of_wallet("w2"),
        usage("e2", "j1", 4),
        usage("e15", "j1", 4),
        free("f1"),
        usage("e16", "j6", 0),
    ];
    let mut wallets: std::collections::HashMap<String, Wallet> = Default::default();
    let mut identities = Recent::new();
    for record in records {
        let computed = bench.run(&[record]);
        for (_, _, value) in computed.records(OutTopic::Ledger) {
            let record: LedgerRecord<'_> = serde_json::from_str(&value).unwrap();
            let wallet = wallets.entry(record.wallet_id.to_string()).or_default();
            wallet.fold_record(&record, 35).unwrap();
            if let Some((key, fingerprint)) = event_of_record(&record) {
                remember_event(&mut identities, key, fingerprint, day_of(&record));
            }
            let Some((job_id, asset_id)) = job_of_record(&record) else { continue };
            let name = JobName::new(&record.wallet_id, job_id, asset_id);
            remember_job(&mut identities, &record, &name, None, i32::MIN, |known, key| {
                Ok(known.get(key).map(|memo| (memo.day, memo.value.into_owned())))
            })
            .unwrap();
        }
    }
    let state = &bench.shards[&0].state;
    assert_eq!(wallets.len(), 2);
    for (wallet_id, wallet) in &wallets {
        assert_eq!(state.wallets.get_by_id(wallet_id).as_ref(), Some(wallet));
    }
    let mut expected: Vec<_> =
        identities.iter().map(|(key, memo)| (key, memo.day, memo.value.to_vec())).collect();
    let mut found = Vec::new();
    state.identities.for_each_unsealed(|key, memo| found.push((key, memo.day, memo.value.to_vec())));
    expected.sort();
    found.sort();
    assert_eq!(found, expected);
}
