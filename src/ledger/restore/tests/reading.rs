//! What a restore reads, from where to where, what it waits for, and what of it becomes a shard.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use super::super::RestoreError;
use super::bench::{Bench, LEDGER, PROGRESS, SHARDS, WALLETS, refusal, seq, wallet};
use super::topics::error;
use super::{POSTED_AT, entry, posted_at};
use crate::event::job_key;
use crate::kafka::Polled;
use crate::ledger::progress::{OriginProgress, PartitionProgress, ShardProgress, partition_key};
use crate::time::{ShardClock, Timestamp};
use crate::wallet::{JobMemo, Wallet};

#[test]
fn progress_gives_a_shard_its_batch_its_clock_and_the_origins_of_what_was_handed_over() {
    let mut bench = Bench::new();
    let origin = OriginProgress {
        topic: "other.events".to_owned(),
        topic_id: "id".to_owned(),
        partition: 2,
        offset: 41,
    };
    let older = ShardProgress { batch: 6, ..bench.progress(posted_at()) };
    let clock = posted_at().plus_millis(1);
    let newest = ShardProgress { origins: vec![origin.clone()], ..bench.progress(clock) };
    bench.put_progress(1, &older);
    bench.put_progress(1, &newest);
    // Whether it begins with nothing or with what was kept, whose own head is another.
    for kept in [None, Some(bench.kept(1, 0, 0))] {
        bench.parked.extend(kept.map(|kept| (1, kept)));
        let head = bench.shard(1).unwrap().head;
        assert_eq!((head.batch, head.clock.now()), (7, ShardClock(clock)));
        assert_eq!(head.origins, std::slice::from_ref(&origin));
    }
    // A shard without progress has not begun.
    let head = bench.shard(2).unwrap().head;
    assert_eq!((head.batch, head.clock.now(), head.origins.len()), (0, ShardClock(Timestamp::MIN), 0));
}

/// A batch that only saved a wallet leaves nothing in the ledger by which its loss would show.
#[test]
fn what_batches_since_the_position_have_saved_counts_as_unsaved() {
    let mut bench = Bench::new();
    let mut kept = bench.kept(1, 1, 0);
    let handle = kept.wallets.handle("ws_1");
    kept.saved.insert(handle, 6);
    bench.put_entry(1, 1);
    bench.parked.insert(1, kept);
    let state = bench.shard(1).unwrap();
    assert!(state.unsaved.contains(&handle));
    assert!(state.saved.is_empty());
}

/// A job that was met once is looked for from then on, wherever its memos are by then.
#[test]
fn what_several_records_say_of_a_job_is_remembered_together() {
    let mut bench = Bench::new();
    let job = |seq: u64,
               (entry_type, event_type): (&str, &str),
               asset: &str,
               credits: i64,
               overdraft: i64| {
        let more = format!(
            r#","credits":{credits},"balance_after":-{overdraft},"overdraft_after":{overdraft},"event_type":"{event_type}","event_id":"e{seq}","source":"/s","job_id":"j","asset_id":"{asset}""#
        );
        let entry = entry(seq, POSTED_AT, entry_type, &more);
        bench.put(LEDGER, 1, "ws_1", &format!(r#"{{"v":1,"wallet_id":"ws_1","entries":[{entry}]}}"#));
    };
    let charged = ("charged", "generation.completed");
    job(1, charged, "a", -1, 1);
    job(2, charged, "b", -1, 2);
    job(3, ("reversed", "generation.refunded"), "a", 1, 1);
    let state = bench.shard(1).unwrap();
    let memo = |asset: &str| {
        let found = state.identities.get(job_key("ws_1", "j", asset)).unwrap().unwrap();
        *JobMemo::from_bytes(&found.value).unwrap()
    };
    let seq = |asset: &str| memo(asset).charge.map(|charge| (charge.seq, charge.is_reversed));
    assert_eq!((seq("a"), seq("b")), (Some((1, true)), Some((2, false))));
    assert_eq!(memo("").latest_asset, Some(job_key("ws_1", "j", "b")));
    assert_eq!(memo("b").latest_asset, Some(job_key("ws_1", "j", "a")));
}

/// It may cover entries beyond the end to which the ledger is read: another has the shard already.
#[test]
fn a_snapshot_beyond_the_end_that_was_taken_is_passed_over() {
    let mut bench = Bench::new();
    bench.put_entry(1, 1);
    for seq in [1, 2] {
        bench.put_snapshot(1, &wallet(seq));
    }
    bench.topics.lock().log(WALLETS, 1).end = Some(1);
    // The reader is not through with another partition when it has come to that end.
    bench.put_snapshot(2, &wallet(1));
    bench.put_entry(2, 1);
    bench.topics.lock().log(WALLETS, 2).end = Some(2);
    let restored = bench.restore(&[1, 2]).unwrap();
    for (shard, state) in restored.shards {
        assert_eq!(state.as_ref().map(seq), Ok(Some(1)), "shard {shard}");
    }
}

#[test]
fn a_wallet_whose_entries_were_all_cut_away_is_gone() {
    let mut bench = Bench::new();
    bench.put_snapshot(1, &wallet(1));
    bench.topics.put(WALLETS, 1, 0, "ws_1", None);
    bench.topics.put(WALLETS, 1, 0, "ws_never_met", None);
    assert_eq!(seq(&bench.shard(1).unwrap()), None);
}

/// What is named is where it began: what follows from it says less.
#[test]
fn once_a_shard_contradicts_nothing_more_of_it_is_folded() {
    let mut bench = Bench::new();
    for seq in [1, 3, 5] {
        bench.put_entry(1, seq);
    }
    bench.put_entry(2, 1);
    let shards = bench.restore(&[1, 2]).unwrap().shards;
    assert!(shards[&1].as_ref().is_err_and(|why| why.starts_with("ledger 1/1: wallet ws_1")));
    assert_eq!(shards[&2].as_ref().map(seq), Ok(Some(1)), "another shard");
}

#[test]
fn the_ledger_is_read_from_the_horizons_first_day_less_what_clocks_may_differ() {
    let first_day = Timestamp::parse("2026-09-29T00:00:00.000Z").unwrap();
    let from = first_day.plus_millis(-5 * 60 * 1_000).millis();
    for clock in ["2026-11-03T00:00:00.000Z", "2026-11-03T23:59:59.999Z"] {
        let mut bench = Bench::new();
        bench.put_progress(1, &bench.progress(Timestamp::parse(clock).unwrap()));
        for (timestamp, seq) in [(from - 1, 1), (from, 2), (posted_at().millis(), 3)] {
            let entry = entry(seq, POSTED_AT, "noted", "");
            let value = format!(r#"{{"v":1,"wallet_id":"ws_1","entries":[{entry}]}}"#);
            bench.topics.put(LEDGER, 1, timestamp, "ws_1", Some(&value));
        }
        bench.put_snapshot(1, &wallet(1));
        let state = bench.shard(1).unwrap();
        assert_eq!(bench.topics.lock().looked_for, [from], "{clock}");
        assert_eq!(bench.reads(LEDGER), [(1, 1)], "{clock}");
        assert_eq!((seq(&state), state.ledger_position), (Some(3), 3));
    }
    // The latest entry of a wallet must be met where it was posted on that day or later.
    for (updated_at, is_sound) in [(first_day.plus_millis(-1), true), (first_day, false)] {
        let mut bench = Bench::new();
        bench.put_progress(1, &bench.progress(posted_at()));
        bench.put_snapshot(1, &Wallet { updated_at, ..wallet(1) });
        assert_eq!(bench.shard(1).is_ok(), is_sound, "{updated_at}");
    }
    // Where nothing is as new as that there is nothing to be read.
    let mut bench = Bench::new();
    bench.put_progress(1, &bench.progress(posted_at()));
    bench.topics.put(LEDGER, 1, from - 1, "ws_1", Some("it would not be understood"));
    assert_eq!(bench.shard(1).unwrap().ledger_position, 1);
    assert!(bench.reads(LEDGER).is_empty());
}

#[test]
fn a_clock_that_has_not_begun_has_no_horizon_and_all_of_the_ledger_is_read() {
    for clock in [None, Some(0)] {
        let mut bench = Bench::new();
        if let Some(clock) = clock {
            bench.put_progress(1, &bench.progress(Timestamp::from_millis(clock)));
        }
        bench.topics.lock().log(LEDGER, 1).first = 5;
        bench.put_entry(1, 1);
        let state = bench.shard(1).unwrap();
        assert_eq!((seq(&state), state.ledger_position), (Some(1), 6));
        assert_eq!(bench.reads(LEDGER), [(1, 5)]);
        assert!(bench.topics.lock().looked_for.is_empty());
    }
    let mut bench = Bench::new();
    bench.put_progress(1, &bench.progress(Timestamp::from_millis(1)));
    bench.put_entry(1, 1);
    bench.shard(1).unwrap();
    assert_eq!(bench.topics.lock().looked_for.len(), 1, "it has begun");
}

/// A snapshot may be older than what was kept: it must not take its place.
#[test]
fn what_was_kept_is_read_from_its_position_and_without_snapshots() {
    let mut bench = Bench::new();
    for shard in [1, 2] {
        for seq in 1..=4 {
            bench.put_entry(shard, seq);
        }
        bench.put_snapshot(shard, &wallet(1));
    }
    bench.parked.insert(1, bench.kept(1, 2, 2));
    let restored = bench.restore(&[1, 2]).unwrap();
    for (shard, state) in restored.shards {
        let state = state.unwrap();
        assert_eq!((seq(&state), state.ledger_position), (Some(4), 4), "shard {shard}");
    }
    assert_eq!(bench.reads(LEDGER), [(1, 2), (2, 0)]);
    assert_eq!(bench.reads(WALLETS), [(2, 0)]);
    assert!(bench.parked.is_empty());
}

#[test]
fn a_checkpoint_serves_where_no_state_is_left_in_memory() {
    let mut bench = Bench::new();
    for seq in 1..=4 {
        bench.put_entry(1, seq);
    }
    bench.keep_on_disk(&bench.kept(1, 2, 2));
    assert_eq!(seq(&bench.shard(1).unwrap()), Some(4));
    bench.parked.insert(1, bench.kept(1, 3, 3));
    assert_eq!(seq(&bench.shard(1).unwrap()), Some(4));
    assert_eq!(bench.reads(LEDGER), [(1, 2), (1, 3)]);
}

#[test]
fn what_was_kept_before_a_cut_of_the_ledger_is_dropped() {
    for (cuts_before, is_kept) in [(0, false), (1, true), (2, false)] {
        let mut bench = Bench::new();
        bench.put_progress(1, &ShardProgress { cuts: 1, ..bench.progress(posted_at()) });
        bench.put_entry(1, 1);
        let mut kept = bench.kept(1, 1, 1);
        kept.head.cuts = cuts_before;
        bench.keep_on_disk(&kept);
        bench.parked.insert(1, kept);
        let state = bench.shard(1).unwrap();
        assert_eq!((seq(&state), state.head.cuts), (Some(1), 1));
        assert_eq!(bench.reads(LEDGER).is_empty(), is_kept, "cut {cuts_before} times before");
        assert_eq!(bench.is_on_disk(1), is_kept);
    }
}

#[test]
fn what_was_kept_and_contradicts_is_deleted_and_read_from_the_topics() {
    let mut bench = Bench::new();
    bench.put_entry(1, 1);
    let mut kept = bench.kept(1, 2, 0);
    let handle = kept.wallets.handle("ws_1");
    kept.changed.insert(handle, 6);
    bench.keep_on_disk(&kept);
    bench.parked.insert(1, kept);
    assert_eq!(seq(&bench.shard(1).unwrap()), Some(1));
    assert!(!bench.is_on_disk(1));
    // From the topics alone it stops the shard, and is not tried again.
    bench.put_entry(1, 4);
    assert!(bench.shard(1).is_err_and(|why| why.starts_with("ledger 1/1: wallet ws_1")));
}

/// What lies between was deleted: what was kept cannot be brought up to date, and nothing is read for it.
#[test]
fn what_was_kept_up_to_before_the_ledgers_beginning_is_dropped() {
    let mut bench = Bench::new();
    bench.put_progress(1, &bench.progress(Timestamp::from_millis(0)));
    bench.topics.lock().log(LEDGER, 1).first = 5;
    bench.put_entry(1, 1);
    bench.parked.insert(1, bench.kept(1, 7, 4));
    assert_eq!(seq(&bench.shard(1).unwrap()), Some(1));
    assert_eq!(bench.reads(LEDGER), [(1, 5)]);
}

#[test]
fn a_ledger_that_ends_before_what_was_kept_stops_the_shard_and_the_checkpoint_stays() {
    let mut bench = Bench::new();
    bench.put_entry(1, 1);
    let kept = bench.kept(1, 2, 2);
    bench.keep_on_disk(&kept);
    bench.parked.insert(1, kept);
    assert!(bench.shard(1).is_err_and(|why| why.contains("the ledger ends at offset 1")));
    assert!(bench.is_on_disk(1));
    assert!(bench.reads(LEDGER).is_empty());
}

#[test]
fn what_is_open_is_waited_for_and_not_for_ever() {
    for topic in [LEDGER, WALLETS, PROGRESS] {
        let mut bench = Bench::new();
        bench.put_progress(1, &bench.progress(posted_at()));
        bench.put_entry(1, 1);
        bench.put_snapshot(1, &wallet(1));
        bench.topics.lock().log(topic, 1).open_until = Duration::from_secs(50);
        assert_eq!(seq(&bench.shard(1).unwrap()), Some(1));
        assert!(bench.topics.lock().passed >= Duration::from_secs(50), "{topic} was not waited for");
        assert!(bench.asked.get() > 100, "nobody was told that it goes on");

        let now = bench.topics.lock().passed;
        bench.topics.lock().log(topic, 1).open_until = now + Duration::from_secs(62);
        bench.parked.insert(1, bench.kept(1, 1, 1));
        match refusal(bench.restore(&[1])) {
            RestoreError::TryAgain(why) => assert!(why.contains(&format!("{topic}/1 is open")), "{why}"),
            other => panic!("{other}"),
        }
        assert!(bench.topics.lock().passed > now + Duration::from_secs(60));
        assert!(bench.parked.contains_key(&1), "what was kept is kept");

        bench.wanted_until = Duration::ZERO;
        assert!(matches!(refusal(bench.restore(&[1])), RestoreError::Superseded));
    }
}

/// What was read into what was kept is true, and stays. Half of what a shard needs that had nothing is no state: another
/// restore would take it for one, and miss what it has not read.
#[test]
fn a_restore_that_is_given_up_keeps_what_was_kept_and_nothing_else() {
    let mut bench = Bench::new();
    for shard in [1, 2] {
        bench.put_entry(shard, 1);
        bench.put_entry(shard, 2);
        bench.put_snapshot(shard, &wallet(1));
    }
    bench.parked.insert(1, bench.kept(1, 1, 1));
    // Of this one nothing that was read shows that it is half.
    bench.put_entry(3, 1);
    for shard in [2, 3] {
        bench.topics.lock().log(LEDGER, shard).is_silent = true;
    }
    bench.wanted_until = Duration::from_secs(10);
    assert!(matches!(refusal(bench.restore(&[1, 2, 3])), RestoreError::Superseded));
    assert_eq!(bench.parked.keys().collect::<Vec<_>>(), [&1]);
    assert_eq!((seq(&bench.parked[&1]), bench.parked[&1].ledger_position), (Some(2), 1));
    let waited = bench.topics.lock().passed;
    assert!(waited < Duration::from_secs(11), "it heard of it after {waited:?} only");
}

#[test]
fn errors_that_the_client_mends_by_itself_are_waited_out_and_fatal_ones_are_not() {
    let mut bench = Bench::new();
    bench.put_entry(1, 1);
    bench.topics.lock().says.extend([error(false), Polled::Nothing, error(false)]);
    assert_eq!(seq(&bench.shard(1).unwrap()), Some(1));
    bench.topics.lock().says.push_back(error(true));
    assert!(matches!(refusal(bench.restore(&[1])), RestoreError::TryAgain(why) if why == "made by the test"));
}

/// A marker ends it, no record: only its end is told.
#[test]
fn a_partition_is_read_once_its_end_is_told() {
    let mut bench = Bench::new();
    bench.put_entry(1, 1);
    bench.topics.lock().log(LEDGER, 1).end = Some(2);
    let state = bench.shard(1).unwrap();
    assert_eq!((seq(&state), state.ledger_position), (Some(1), 2));
}

/// Patience is for what is still to be read: records of others are no sign that it comes.
#[test]
fn a_partition_of_which_nothing_comes_is_given_up_while_others_go_on() {
    let mut bench = Bench::new();
    for seq in 1..=200 {
        bench.put_entry(1, seq);
    }
    bench.put_entry(2, 1);
    bench.topics.lock().log(LEDGER, 1).end = Some(20);
    bench.topics.lock().log(LEDGER, 2).is_silent = true;
    bench.topics.lock().takes = Duration::from_secs(1);
    match refusal(bench.restore(&[1, 2])) {
        RestoreError::TryAgain(why) => {
            assert!(why.contains("1 partitions are not read to their end"), "{why}")
        }
        other => panic!("{other}"),
    }
    let passed = bench.topics.lock().passed.as_secs();
    assert!((80..=82).contains(&passed), "after {passed} s: 20 that were to be read, and a minute");
}

#[test]
fn what_cannot_be_read_of_progress_or_snapshots_is_refused_by_name() {
    let cases = [
        (PROGRESS, "shard/1", "progress record shard/1"),
        (PROGRESS, "generation.events/1", "progress record generation.events/1"),
        (WALLETS, "ws_1", "wallet snapshot 1/0"),
    ];
    for (topic, key, words) in cases {
        let mut bench = Bench::new();
        bench.put(topic, 1, key, "{}");
        match refusal(bench.restore(&[1])) {
            RestoreError::Refused(why) => assert!(why.starts_with(words), "{why}"),
            other => panic!("{other}"),
        }
    }
    let mut bench = Bench::new();
    bench.topics.put(PROGRESS, 1, 0, "shard/1", None);
    bench.shard(1).unwrap();
}

#[test]
fn progress_of_another_group_or_another_past_of_prices_is_refused() {
    type Change = fn(&mut ShardProgress);
    let cases: [(Change, &str); 2] = [
        (|progress| progress.group.push('2'), r#"shard 1 belongs to consumer group "group2""#),
        (|progress| progress.config_hash.push('2'), "shard 1 was priced with other"),
    ];
    for (change, words) in cases {
        let mut bench = Bench::new();
        let mut progress = bench.progress(posted_at());
        change(&mut progress);
        bench.put_progress(1, &progress);
        match refusal(bench.restore(&[1])) {
            RestoreError::Refused(why) => assert!(why.starts_with(words), "{why}"),
            other => panic!("{other}"),
        }
    }
}

/// Progress of a partition stands in the partition of progress that its number gives, modulo the shards.
#[test]
fn the_progress_of_partitions_is_read_where_it_stands() {
    let bench = Bench::new();
    let progress = |offset| PartitionProgress {
        v: 1,
        topic_id: "id".to_owned(),
        partitions: 6,
        at_home: false,
        offset,
        outcomes: Default::default(),
        by_origin: Vec::new(),
        earlier: Default::default(),
    };
    for partition in 0..6 {
        let value = serde_json::to_string(&progress(i64::from(partition))).unwrap();
        bench.put(PROGRESS, partition % SHARDS, &partition_key("other.events", partition), &value);
    }
    let offsets = |known: HashMap<String, PartitionProgress>| {
        let mut offsets: Vec<i64> = known.values().map(|progress| progress.offset).collect();
        offsets.sort_unstable();
        offsets
    };
    let of = |partitions: &[i32]| {
        let restored = bench.restorer(|restorer| restorer.restore(&[], &mut BTreeMap::new(), partitions));
        offsets(restored.unwrap().partitions)
    };
    assert_eq!(of(&[5]), [1, 5]);
    assert_eq!(of(&[2, 5]), [1, 2, 5]);
    assert_eq!(offsets(bench.restorer(|restorer| restorer.all_progress()).unwrap()), [0, 1, 2, 3, 4, 5]);
}
