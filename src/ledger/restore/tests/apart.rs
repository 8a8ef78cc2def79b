//! Goal: who takes records in makes no difference. Method: the same records of twelve shards are taken in a few at a time, by
//! one thread, and all at once, by as many as there are cores.

use std::collections::BTreeMap;

use crate::kafka::RecordView;
use crate::ledger::identity_store::Maintenance;
use crate::ledger::restore::begun::Begun;
use crate::ledger::restore::gathered::{Gathered, ReadRecord};

use super::bench::{Bench, seq};
use super::{POSTED_AT, begun, entry};

const SHARDS: i32 = 12;
const RECORDS_OF_EACH: i64 = 400;

fn all(maintenance: &Maintenance) -> BTreeMap<i32, Begun> {
    (0..SHARDS).map(|shard| (shard, begun(maintenance, 1, true))).collect()
}

fn push(gathered: &mut Gathered, shard: i32, offset: i64) {
    let event = format!(r#","event_id":"e{offset}","source":"/s""#);
    let entry = entry(offset as u64 + 1, POSTED_AT, "noted", &event);
    let value = format!(r#"{{"v":1,"wallet_id":"ws_1","entries":[{entry}]}}"#);
    gathered.push(&RecordView::made("ledger", (shard, offset), 0, (None, Some(value.as_bytes())), &[]));
}

fn shown(states: &BTreeMap<i32, Begun>) -> Vec<(u64, u64, u64, usize)> {
    let shown = |begun: &Begun| {
        let seq = begun.state.wallets.get_by_id("ws_1").unwrap().seq;
        (seq, begun.folded.entries, begun.folded.doubles, begun.state.identities.unsealed_len())
    };
    states.values().map(shown).collect()
}

#[test]
fn many_threads_take_in_what_one_would() {
    let maintenance = Maintenance::start().unwrap();
    let fold = |begun: &mut Begun, record: &ReadRecord<'_>| begun.fold_record(record, 35);
    let (mut one, mut many) = (all(&maintenance), all(&maintenance));
    let (mut few, mut whole) = (Gathered::default(), Gathered::default());
    for offset in 0..RECORDS_OF_EACH {
        (0..SHARDS).for_each(|shard| push(&mut few, shard, offset));
        few.take_in(&mut one, fold).unwrap();
        (0..SHARDS).for_each(|shard| push(&mut whole, shard, offset));
    }
    // A shard that is not restored here.
    push(&mut whole, SHARDS, 0);
    whole.take_in(&mut many, fold).unwrap();
    let expected = (RECORDS_OF_EACH as u64, RECORDS_OF_EACH as u64, 1, RECORDS_OF_EACH as usize);
    assert_eq!(shown(&one), vec![expected; SHARDS as usize]);
    assert_eq!(shown(&many), shown(&one));
    whole.take_in(&mut many, |_, record| Err(record.offset)).expect("all of them are forgotten");

    // A fault stops its shard at its place.
    (0..RECORDS_OF_EACH).for_each(|offset| (0..SHARDS).for_each(|shard| push(&mut whole, shard, offset)));
    push(&mut whole, 7, RECORDS_OF_EACH + 1);
    let why = whole.take_in(&mut many, fold).unwrap_err();
    assert!(why.starts_with("ledger 7/401: wallet ws_1: seq 402 does not follow 400"), "{why}");
}

/// Three lots, the last one not full, of which each but the first is read while the one before is taken in: in their order, and
/// none is left out.
#[test]
fn a_ledger_of_several_lots_is_folded_whole_and_in_order() {
    const ENTRIES: u64 = 40_000;
    let mut bench = Bench::new();
    (1..=ENTRIES).for_each(|seq| bench.put_entry(1, seq));
    bench.put_entry(2, 1);
    let restored = bench.restore(&[1, 2]).unwrap();
    let seqs: Vec<_> = restored.shards.values().map(|state| seq(state.as_ref().unwrap())).collect();
    assert_eq!(seqs, [Some(ENTRIES), Some(1)]);

    // One that is missing in the second lot.
    let mut bench = Bench::new();
    (1..=ENTRIES).filter(|seq| *seq != 20_000).for_each(|seq| bench.put_entry(1, seq));
    let why = bench.shard(1).unwrap_err();
    assert!(why.starts_with("ledger 1/19999: wallet ws_1: seq 20001 does not follow 19999"), "{why}");
}
