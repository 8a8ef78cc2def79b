//! A restore upon a ledger with faults made by hand: torn, doubled, reordered, missing entries, and one that was cut.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use super::begun::Begun;
use crate::config::Config;
use crate::kafka::RecordView;
use crate::ledger::identity_store::{Maintenance, Recent};
use crate::ledger::shard::Handles;
use crate::ledger::store::LocalStore;
use crate::rate::Pricing;
use crate::time::Timestamp;
use crate::wallet::{Policy, Wallet};

const POSTED_AT: &str = "2026-11-03T10:15:31.000Z";

fn posted_at() -> Timestamp {
    Timestamp::parse(POSTED_AT).unwrap()
}

/// A fault, the snapshot's seq, the ledger's entries, and doubles and seq, or the words of the contradiction.
type Case = (&'static str, u64, &'static [u64], Result<(u64, u64), &'static str>);

/// A shard whose wallet `ws_1` has come to an entry, by its snapshot or by what was kept.
fn begun(maintenance: &Maintenance, seq: u64, needs_snapshots: bool) -> Begun {
    let store =
        LocalStore { folder: None, maintenance, recent_max: 1_000, horizon_days: 35, ledger_id: "ledger" };
    let mut state = store.empty_shard(3);
    let handle = state.wallets.handle("ws_1");
    state.wallets.put(handle, &Wallet { seq, updated_at: posted_at(), ..Wallet::default() });
    state.ledger_position = 42;
    Begun {
        state,
        needs_snapshots,
        shown: Handles::default(),
        read_since: Timestamp::from_millis(0),
        cut: None,
        recent: Recent::new(),
        first_day: 0,
        contradiction: None,
    }
}

/// Reads records with these entries, one each: doubles, and where `ws_1` has come to.
fn read(mut begun: Begun, seqs: &[u64]) -> Result<(u64, u64), String> {
    let mut doubles = 0;
    for (offset, seq) in (0..).zip(seqs) {
        let value = format!(
            r#"{{"v":1,"wallet_id":"ws_1","entries":[{{"seq":{seq},"entry_type":"noted","posted_at":"{POSTED_AT}",
            "event_time":"{POSTED_AT}","level":"ok"}}]}}"#
        );
        let parts = (Some(&b"ws_1"[..]), Some(value.as_bytes()));
        doubles += begun.fold_record(&RecordView::made("ledger", (3, offset), 0, parts, &[]), 35)?.doubles;
    }
    let policy = Policy::new(&Config::default(), Pricing::built_in().unwrap().into());
    let state = begun.finish(&policy)?;
    Ok((doubles, state.wallets.get_by_id("ws_1").unwrap().seq))
}

#[test]
fn a_restore_from_the_topics_names_what_is_torn_reordered_or_missing_and_passes_over_doubles() {
    let maintenance = Maintenance::start().unwrap();
    let table: [Case; 6] = [
        ("sound", 2, &[1, 2, 3], Ok((2, 3))),
        ("doubled", 2, &[1, 2, 3, 3, 4, 2], Ok((4, 4))),
        ("missing", 2, &[1, 2, 4], Err("ledger 3/2: wallet ws_1")),
        ("reordered", 2, &[1, 2, 4, 3], Err("ledger 3/2: wallet ws_1")),
        ("torn: the snapshot is there, its entry is not", 4, &[1, 2, 3], Err("ledger ends before it")),
        ("torn: nothing of the wallet is there", 1, &[], Err("latest state covers entry 1")),
    ];
    for (fault, snapshot, entries, expected) in table {
        let found = read(begun(&maintenance, snapshot, true), entries);
        match expected {
            Ok(expected) => assert_eq!(found, Ok(expected), "{fault}"),
            Err(words) => assert!(found.as_ref().is_err_and(|why| why.contains(words)), "{fault}: {found:?}"),
        }
    }
    // What is older than the stretch that is read need not be met.
    let old = Begun { read_since: posted_at().plus_millis(1), ..begun(&maintenance, 4, true) };
    assert_eq!(read(old, &[]), Ok((0, 4)));
}

#[test]
fn a_catch_up_names_what_is_torn_reordered_or_missing_and_passes_over_doubles() {
    let maintenance = Maintenance::start().unwrap();
    let kept = || begun(&maintenance, 2, false);
    assert_eq!(read(kept(), &[3, 3, 2, 4]), Ok((2, 4)));
    for missing_or_reordered in [&[4][..], &[4, 3]] {
        assert!(
            read(kept(), missing_or_reordered).is_err_and(|why| why.starts_with("ledger 3/0: wallet ws_1"))
        );
    }
    // Torn: of a batch that counts as committed nothing is there.
    let mut torn = kept();
    let handle = torn.state.wallets.handle("ws_1");
    torn.state.changed.insert(handle, 1);
    assert!(read(torn, &[]).is_err_and(|why| why.contains("entry 2 as it was kept")));
}

#[test]
fn a_ledger_that_ends_before_what_was_kept_stops_the_shard_and_is_not_read_anew() {
    let maintenance = Maintenance::start().unwrap();
    // First offset and end of the ledger; was it cut at its end, or must the shard be read from the topics?
    for (first, end, is_cut, is_read_anew) in
        [(0, 42, false, false), (0, 41, true, false), (42, 50, false, false), (43, 50, false, true)]
    {
        let mut kept = begun(&maintenance, 2, false);
        kept.compare_with_ends(first, end);
        let found = (kept.cut.is_some(), kept.contradiction.is_some());
        assert_eq!(found, (is_cut, is_read_anew), "{first} to {end}");
        let mut from_topics = begun(&maintenance, 2, true);
        from_topics.compare_with_ends(first, end);
        assert!(from_topics.cut.is_none() && from_topics.contradiction.is_none());
    }
}
