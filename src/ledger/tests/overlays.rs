//! Batches under way: what they see, what an abort drops, and that the same records give the same bytes.

use std::collections::HashSet;

use super::*;
use crate::ledger::outbox::OutTopic;
use crate::ledger::shard::ShardSlot;
use crate::wallet::{Breach, Wallet};

fn packed(slot: &ShardSlot) -> Vec<Vec<u8>> {
    let mut packed: Vec<Vec<u8>> = slot.state.wallets.iter_packed().map(<[u8]>::to_vec).collect();
    packed.sort();
    packed
}

/// All that is committed, of every shard.
fn committed(bench: &Bench) -> Vec<String> {
    let shown = |slot: &ShardSlot| {
        let state = &slot.state;
        let mut unsaved: Vec<&str> = state.unsaved.iter().map(|handle| state.wallets.id(*handle)).collect();
        unsaved.sort();
        let mut identities = Vec::new();
        state.identities.for_each_unsealed(|key, memo| identities.push((key, memo.day, memo.value.to_vec())));
        identities.sort();
        let due = state.wallets.first_due().map(|(due, handle)| (due, state.wallets.id(handle)));
        format!("{:?} {unsaved:?} {identities:?} {:?} {due:?}", packed(slot), state.head)
    };
    bench.shards.values().map(shown).collect()
}

/// Something of everything, for two shards.
fn mixed() -> Vec<Made> {
    let there = wallet_of(1, 2);
    let here = wallet_of(0, 2);
    let records = vec![
        contract("e1", "c1", "lite"),
        usage("e2", "j1", 4),
        usage("e2", "j1", 4),
        usage("e2", "j1", 5),
        usage("e3", "j1", 4),
        usage("e4", "j2/a", 900),
        topup("e5", "t1", 100),
        adjustment("e6", "a1", -7),
        free("f1"),
        usage("e7", "j3", 0),
        usage("e8", "j4", 1).at("2020-01-01T00:00:00.000Z"),
    ];
    let mut all: Vec<Made> = records.iter().map(|made| made.clone().of_wallet(&here)).collect();
    all.extend(records.into_iter().map(|made| made.of_wallet(&there).at_partition(1)));
    all.push(usage("e9", "j9", 1).of_wallet(&there));
    all.push(Made::new(GENERATION, "nonsense").keyed("k").header("h", "v"));
    all
}

#[test]
fn the_same_batch_computed_twice_gives_the_same_bytes() {
    let compute = || {
        let mut bench = Bench::with_shards(2);
        let batch = bench.batch(&mixed());
        bench.compute(&batch).bytes()
    };
    let once = compute();
    assert!(once.contains("nonsense") || once.contains("110,"), "{once}");
    for _ in 0..3 {
        assert_eq!(compute(), once);
    }
}

#[test]
fn after_an_abort_the_same_batch_gives_the_same_bytes() {
    let mut bench = Bench::with_shards(2);
    bench.run(&[contract("e0", "c0", "scale").of_wallet("w1")]);
    let before = committed(&bench);
    let batch = bench.batch(&mixed());
    let first = bench.compute(&batch).bytes();
    bench.abort();
    assert_eq!(before, committed(&bench), "an abort leaves what is committed as it was");
    assert_eq!(bench.compute(&batch).bytes(), first);
    bench.send();
    bench.abort();
    assert_eq!(bench.compute(&batch).bytes(), first, "aborted while it was being committed");
}

/// Goal: it does not matter how records are cut into batches. Method: the entries of one batch, and of batches of
/// one record of which each is computed while the one before is being committed.
#[test]
fn the_next_batch_sees_the_one_that_is_being_committed() {
    let records: Vec<Made> = mixed().into_iter().filter(|made| made.topic == GENERATION).collect();
    let entries_of = |computed: &bench::Computed| {
        computed.records(OutTopic::Ledger).into_iter().map(|(_, key, value)| (key, value)).collect::<Vec<_>>()
    };
    let mut at_once = Bench::with_shards(2);
    let mut expected = entries_of(&at_once.run(&records));
    let mut piped = Bench::with_shards(2);
    let mut found = Vec::new();
    for record in &records {
        let batch = piped.batch(std::slice::from_ref(record));
        found.extend(entries_of(&piped.compute(&batch)));
        piped.commit();
        piped.send();
    }
    piped.commit();
    expected.sort();
    found.sort();
    assert_eq!(found, expected);
    for (one, other) in at_once.shards.values().zip(piped.shards.values()) {
        assert_eq!(packed(one), packed(other));
        assert_eq!(one.state.identities.len(), other.state.identities.len());
        assert_eq!(one.state.head.clock.now(), other.state.head.clock.now());
    }
}

#[test]
fn an_abort_drops_the_batch_behind_as_well() {
    let mut bench = Bench::new();
    let first = bench.batch(&[usage("e1", "j1", 1)]);
    let second = bench.batch(&[usage("e1", "j1", 1), usage("e2", "j2", 1)]);
    bench.compute(&first);
    bench.send();
    let with_first = bench.compute(&second);
    assert_eq!(with_first.posted(), ["e2"]);
    bench.abort();
    assert_eq!(bench.balance("w1"), 0);
    // The first is read again; until then its event is not known.
    let alone = bench.compute(&second);
    assert_eq!(alone.posted(), ["e1", "e2"]);
}

#[test]
fn nothing_is_state_before_the_commit() {
    let mut bench = Bench::new();
    let batch = bench.batch(&[topup("e1", "t1", 100)]);
    bench.compute(&batch);
    assert_eq!(bench.wallet("w1"), None);
    bench.send();
    assert_eq!(bench.wallet("w1"), None);
    assert_eq!(bench.sources[&(WALLET, 0)].head.next, 0);
    bench.commit();
    assert_eq!(bench.wallet("w1").map(|wallet| wallet.balance()), Some(555));
    assert_eq!(bench.sources[&(WALLET, 0)].head.next, 1);
}

/// Ids of the wallets that a batch saves.
fn saved(computed: &bench::Computed) -> Vec<String> {
    let mut ids: Vec<String> =
        computed.records(OutTopic::Wallets).into_iter().map(|(_, wallet_id, _)| wallet_id).collect();
    ids.sort();
    ids
}

fn charge(id: &str, wallet_id: &str) -> Made {
    usage(id, id, 1).of_wallet(wallet_id)
}

/// Wallets are not saved with every batch: then the next one that saves has all that were changed since, once each,
/// as they are by then.
#[test]
fn a_batch_that_saves_wallets_saves_all_that_were_changed_since() {
    let mut bench = Bench::new();
    bench.with_snapshots = false;
    assert_eq!(saved(&bench.run(&[charge("e1", "w1"), charge("e2", "w2")])), [""; 0]);
    assert_eq!(saved(&bench.run(&[charge("e3", "w2"), charge("e4", "w3")])), [""; 0]);
    bench.with_snapshots = true;
    let computed = bench.run(&[charge("e5", "w3")]);
    assert_eq!(saved(&computed), ["w1", "w2", "w3"]);
    for (_, wallet_id, value) in computed.records(OutTopic::Wallets) {
        let snapshot: crate::wallet::WalletSnapshot<'_> = serde_json::from_str(&value).unwrap();
        assert_eq!(snapshot.into_wallet(), bench.wallet(&wallet_id).unwrap());
    }
    assert_eq!(saved(&bench.run(&[charge("e6", "w1")])), ["w1"]);
    // Nothing came, nothing is left: not even a position is written.
    let batch = bench.batch(&[]);
    let nothing = bench.compute(&batch);
    assert!(nothing.records(OutTopic::Progress).is_empty() && nothing.offsets.is_empty());
}

#[test]
fn what_is_unsaved_is_saved_without_any_record_too() {
    let mut bench = Bench::new();
    bench.with_snapshots = false;
    bench.run(&[charge("e1", "w1")]);
    bench.with_snapshots = true;
    let computed = bench.run(&[]);
    assert_eq!(saved(&computed), ["w1"]);
    // The offset fences an instance that has lost the shard.
    assert_eq!(computed.offsets, [("credits.intake".to_owned(), 0, 0)]);
    assert_eq!(saved(&bench.run(&[])), [""; 0]);
}

#[test]
fn a_wallet_is_unsaved_until_the_batch_that_saves_it_is_committed() {
    let mut bench = Bench::new();
    bench.with_snapshots = false;
    bench.run(&[charge("e1", "w1")]);
    let second = bench.batch(&[charge("e2", "w2")]);
    bench.compute(&second);
    bench.send();
    bench.with_snapshots = true;
    // Of w1 and w2 an earlier state waits as well: only the latest is written.
    let third = bench.batch(&[charge("e3", "w1"), charge("e4", "w2"), charge("e5", "w3")]);
    assert_eq!(saved(&bench.compute(&third)), ["w1", "w2", "w3"], "with the one that is being committed");
    bench.commit();
    bench.send();
    let fourth = bench.batch(&[charge("e6", "w2")]);
    assert_eq!(saved(&bench.compute(&fourth)), ["w2"], "the others are under way");
    // Nobody knows what became of them: all is said again.
    bench.abort();
    assert_eq!(saved(&bench.compute(&third)), ["w1", "w2", "w3"]);
}

/// Sums that do not close stop the shard and name it; nothing of the batch is sent.
#[test]
fn a_breach_names_the_shard() {
    let mut bench = Bench::with_shards(2);
    let wallet_id = wallet_of(1, 2);
    let spoilt = Wallet { overdraft: i64::MAX - 5, ..Wallet::default() };
    let wallets = &mut bench.shards.get_mut(&1).unwrap().state.wallets;
    let handle = wallets.handle(&wallet_id);
    wallets.put(handle, &spoilt);
    let batch = bench.batch(&[usage("e1", "j1", 100).of_wallet(&wallet_id).at_partition(1)]);
    let Err(breach) = bench.try_compute(&batch) else { panic!("the sums close") };
    assert_eq!(breach.shard, 1);
    assert!(matches!(breach.breach, Breach { seq: 1, .. }), "{}", breach.breach);
}

/// A wallet that has changed must be met in the ledger when the shard is read back: one that was only looked at would not be,
/// and the whole of the shard would be dropped for it.
#[test]
fn an_event_that_its_wallet_rejects_changes_nothing_of_it() {
    let mut bench = Bench::new();
    bench.run(&[usage("e1", "j1", 4)]);
    let changed =
        |bench: &mut Bench| std::mem::take(&mut bench.shards.get_mut(&0).unwrap().state.changed).len();
    assert_eq!(changed(&mut bench), 1);
    let conflict = bench.run(&[usage("e2", "j1", 5)]);
    assert_eq!(conflict.entries(), Vec::<String>::new(), "it is in the quarantine");
    assert_eq!(changed(&mut bench), 0);
}

#[test]
fn wallets_that_change_all_the_time_keep_no_others_from_being_saved() {
    let mut bench = Bench::new();
    bench.with_snapshots = false;
    let of_each = |round: i32| -> Vec<Made> {
        (0..5)
            .map(|n| usage(&format!("{round}-{n}"), &format!("{round}-{n}"), 1).of_wallet(&format!("w{n}")))
            .collect()
    };
    let mut saved = HashSet::new();
    for round in 0..3 {
        bench.run(&of_each(round));
        let next = bench.shards.get_mut(&0).unwrap().next_unsaved(2);
        assert_eq!(next.len(), 2);
        saved.extend(next);
    }
    assert_eq!(saved.len(), 5, "all had their turn");
}
