//! Goal: who takes records in makes no difference, and how many at a time. Method: ledgers of more than one lot, of which each
//! but the first is read while the one before is taken in.

use std::time::{Duration, Instant};

use super::bench::{Bench, LEDGER, SHARDS, seq};
use super::{POSTED_AT, entry, posted_at};
use crate::ledger::shard::ShardState;

/// More than two lots.
const ENTRIES: u64 = 40_000;

/// An entry of a wallet, of an event and a job that come again and again.
fn put(bench: &Bench, shard: i32, wallet: u64, seq: u64) {
    let more = format!(
        r#","event_type":"generation.failed","event_id":"e{seq}","source":"/s","job_id":"j{}""#,
        seq % 9
    );
    let id = format!("ws_{wallet}");
    let entry = entry(seq, POSTED_AT, "noted", &more);
    let value = format!(r#"{{"v":1,"wallet_id":"{id}","entries":[{entry}]}}"#);
    bench.topics.put(LEDGER, shard, posted_at().millis(), &id, Some(&value));
}

fn shown(state: &ShardState) -> (Vec<Vec<u8>>, usize) {
    let mut wallets: Vec<Vec<u8>> = state.wallets.iter_packed().map(<[u8]>::to_vec).collect();
    wallets.sort();
    (wallets, state.identities.len() as usize)
}

#[test]
fn many_threads_take_in_what_one_would() {
    let mut together = Bench::new();
    let wallets = 7;
    for seq in 1..=ENTRIES / wallets / SHARDS as u64 {
        for (shard, wallet) in (0..SHARDS).flat_map(|shard| (0..wallets).map(move |wallet| (shard, wallet))) {
            put(&together, shard, wallet, seq);
        }
    }
    let all: Vec<i32> = (0..SHARDS).collect();
    let restored = together.restore(&all).unwrap();
    for (shard, state) in &restored.shards {
        // One shard has less than a lot, and no thread of its own.
        let alone = together.shard(*shard).unwrap();
        let (wallets_alone, identities_alone) = shown(&alone);
        let (wallets_together, identities_together) = shown(state.as_ref().unwrap());
        assert_eq!(wallets_together, wallets_alone, "shard {shard}");
        assert_eq!((wallets_alone.len(), identities_together), (wallets as usize, identities_alone));
    }
}

/// In their order, and none is left out.
#[test]
fn a_ledger_of_several_lots_is_folded_whole_and_in_order() {
    let mut bench = Bench::new();
    (1..=ENTRIES).for_each(|seq| bench.put_entry(1, seq));
    bench.put_entry(2, 1);
    let restored = bench.restore(&[1, 2]).unwrap();
    let seqs: Vec<_> = restored.shards.values().map(|state| seq(state.as_ref().unwrap())).collect();
    assert_eq!(seqs, [Some(ENTRIES), Some(1)]);
}

/// One that is missing in the second lot.
#[test]
fn a_fault_stops_its_shard_at_its_place_and_no_other() {
    let mut bench = Bench::new();
    (1..=ENTRIES).filter(|seq| *seq != 20_000).for_each(|seq| bench.put_entry(1, seq));
    (1..=ENTRIES).for_each(|seq| bench.put_entry(2, seq));
    let restored = bench.restore(&[1, 2]).unwrap();
    let why = restored.shards[&1].as_ref().err().unwrap();
    assert!(why.starts_with("ledger 1/19999: wallet ws_1: seq 20001 does not follow 19999"), "{why}");
    assert_eq!(seq(restored.shards[&2].as_ref().unwrap()), Some(ENTRIES));
}

/// Identities stay in memory then. It is tried again, but not waited for.
#[test]
fn a_disk_that_fails_keeps_no_restore_waiting() {
    let mut bench = Bench::new();
    (1..=ENTRIES).for_each(|seq| put(&bench, 1, 0, seq));
    std::fs::remove_dir(bench.folder.path()).unwrap();
    std::fs::write(bench.folder.path(), "no folder").unwrap();
    let begun = Instant::now();
    let state = bench.shard(1).unwrap();
    assert!(begun.elapsed() < Duration::from_secs(8), "it took {:?}", begun.elapsed());
    assert!(state.identities.is_behind() && state.identities.unsealed_len() as u64 > ENTRIES);
    std::fs::remove_file(bench.folder.path()).unwrap();
}
