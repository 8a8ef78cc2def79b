//! What is sealed, merged and forgotten.

use super::*;

#[test]
fn the_newest_memo_of_a_key_wins_through_sealing_and_merging() {
    let folder = tempfile::tempdir().unwrap();
    let maintenance = Maintenance::start().unwrap();
    let mut store = IdentityStore::new(settings(folder.path()), &maintenance);
    for day in 0..8 {
        let mut batch = Recent::new();
        batch.insert(key(1_000_000), day, format!("as of day {day}").as_bytes());
        store.absorb(&batch);
        remember(&mut store, 1_000 * day as u64..1_000 * day as u64 + 101, day);
        let expected = Some((day, format!("as of day {day}").into_bytes()));
        assert_eq!(day_and_value(&store, key(1_000_000)), expected, "in memory");
        store.maintain().unwrap();
        assert_eq!(day_and_value(&store, key(1_000_000)), expected, "frozen");
        settle(&mut store);
        assert_eq!(store.unsealed_len(), 0);
        assert_eq!(day_and_value(&store, key(1_000_000)), expected, "sealed");
    }
    assert!(store.work().merged > 0 && store.segments() < 8, "nothing was merged");
}

#[test]
fn a_wrong_yes_of_a_filter_is_not_believed() {
    let folder = tempfile::tempdir().unwrap();
    let maintenance = Maintenance::start().unwrap();
    let mut store = IdentityStore::new(settings(folder.path()), &maintenance);
    remember(&mut store, 0..10_000, 1);
    settle(&mut store);
    assert_eq!((store.segments(), store.unsealed_len()), (1, 0));
    for number in 10_000..2_010_000 {
        assert_eq!(day_and_value(&store, key(number)), None, "{number}");
    }
    let wrong = store.disk_lookups();
    assert!(wrong > 0, "no filter said yes wrongly: the test shows nothing");
    assert!(wrong < 200, "{wrong} of two million went to disk");
}

#[test]
fn keys_that_differ_only_in_their_second_half_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let maintenance = Maintenance::start().unwrap();
    let mut store = IdentityStore::new(settings(folder.path()), &maintenance);
    let twin = |low: u128| IdentityKey(7 << 64 | low);
    let mut batch = Recent::new();
    // Many blocks of one prefix, and others around them.
    (0..1_000).for_each(|low| batch.insert(twin(low * 2), 1, &low.to_le_bytes()));
    (0..1_000).for_each(|number| batch.insert(key(number), 1, b""));
    store.absorb(&batch);
    settle(&mut store);
    assert_eq!(store.unsealed_len(), 0);
    for low in 0..1_000_u128 {
        assert_eq!(day_and_value(&store, twin(low * 2)), Some((1, low.to_le_bytes().to_vec())));
        assert_eq!(day_and_value(&store, twin(low * 2 + 1)), None);
    }
}

#[test]
fn values_of_all_lengths_are_sealed_and_merged() {
    let folder = tempfile::tempdir().unwrap();
    let maintenance = Maintenance::start().unwrap();
    let mut store = IdentityStore::new(settings(folder.path()), &maintenance);
    let lengths = [0, 1, 8, 60, 127, 128, 4_000, 4_096, 20_000, MAX_VALUE_BYTES];
    for round in 0..2 {
        let mut batch = Recent::new();
        for number in 0..120 {
            let length = lengths[number as usize % lengths.len()];
            batch.insert(key(number + 1_000 * round), 1, &vec![number as u8; length]);
        }
        store.absorb(&batch);
        settle(&mut store);
    }
    assert_eq!((store.segments(), store.unsealed_len()), (1, 0));
    for number in (0..120).chain(1_000..1_120) {
        let length = lengths[number as usize % 1_000 % lengths.len()];
        assert_eq!(day_and_value(&store, key(number)), Some((1, vec![(number % 1_000) as u8; length])));
    }
}

#[test]
fn what_is_forgotten_goes_whole_or_with_the_next_merge() {
    let folder = tempfile::tempdir().unwrap();
    let maintenance = Maintenance::start().unwrap();
    let mut store = IdentityStore::new(settings(folder.path()), &maintenance);
    // Windows of two days: 20 and 21, 22 and 23.
    for day in 20..24 {
        remember(&mut store, day as u64 * 1_000..day as u64 * 1_000 + 150, day);
        settle(&mut store);
    }
    assert_eq!((store.segments(), store.len()), (2, 600));
    store.forget_before(21);
    assert_eq!((store.segments(), store.len()), (2, 600), "the first window lives on");
    store.forget_before(22);
    assert_eq!((store.segments(), store.len()), (1, 300), "it went whole");
    assert_eq!(day_and_value(&store, key(20_000)), None);
    store.forget_before(23);
    remember(&mut store, 30_000..30_150, 23);
    settle(&mut store);
    assert_eq!((store.segments(), store.len()), (1, 300), "the merge left day 22 out");
    assert_eq!(day_and_value(&store, key(22_000)), None);
    assert_eq!(day_and_value(&store, key(23_000)), Some((23, 23_000_u64.to_le_bytes().to_vec())));
    assert_eq!(files(folder.path()).len(), 8, "no checkpoint was made: every file may be named by one");
    store.manifest_is_durable(&store.manifest());
    wait_until("files that nothing names go", || files(folder.path()).len() == 1);
}

#[test]
fn memory_is_bounded_by_count_and_without_a_folder_nothing_is_sealed() {
    let folder = tempfile::tempdir().unwrap();
    let maintenance = Maintenance::start().unwrap();
    let sealing = StoreSettings { recent_max: 5_000, ..settings(folder.path()) };
    let in_memory = StoreSettings { folder: None, ..sealing.clone() };
    let mut sealing = IdentityStore::new(sealing, &maintenance);
    let mut in_memory = IdentityStore::new(in_memory, &maintenance);
    for batch in 0..400 {
        for store in [&mut sealing, &mut in_memory] {
            remember(store, batch * 1_000..(batch + 1) * 1_000, 1);
            store.maintain().unwrap();
        }
        wait_until("the disk catches up", || {
            sealing.maintain().unwrap();
            !sealing.is_behind()
        });
        assert!(sealing.unsealed_len() <= 4 * 6_000, "{} unsealed", sealing.unsealed_len());
    }
    settle(&mut sealing);
    assert_eq!((sealing.len(), in_memory.len()), (400_000, 400_000));
    assert!(sealing.heap_bytes() < 400_000 * 3 + 6_000 * 100, "{} bytes", sealing.heap_bytes());
    assert_eq!((in_memory.segments(), in_memory.unsealed_len()), (0, 400_000));
    for number in (0..400_000).step_by(997) {
        assert_eq!(day_and_value(&sealing, key(number)), day_and_value(&in_memory, key(number)));
    }
}

#[test]
fn a_disk_that_fails_loses_nothing_and_is_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    let maintenance = Maintenance::start().unwrap();
    let gone = folder.path().join("gone");
    let mut store = IdentityStore::new(settings(&gone), &maintenance);
    fs::remove_dir(&gone).unwrap();
    remember(&mut store, 0..150, 1);
    wait_until("the failure is told", || store.maintain().is_err());
    for batch in 1..4 {
        remember(&mut store, batch * 150..(batch + 1) * 150, 1);
        store.maintain().unwrap();
    }
    assert!(store.is_behind());
    assert_eq!(save(&store).unsealed.len(), 600);
    assert!((0..600).all(|number| day_and_value(&store, key(number)).is_some()));
    fs::create_dir(&gone).unwrap();
    store.retry_at = None;
    settle(&mut store);
    assert_eq!((store.unsealed_len(), store.len()), (0, 600));
    assert!((0..600).all(|number| day_and_value(&store, key(number)).is_some()));
}

#[test]
fn a_shard_that_leaves_stops_its_work_and_leaves_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let maintenance = Maintenance::start().unwrap();
    let mut store = IdentityStore::new(settings(folder.path()), &maintenance);
    remember(&mut store, 0..300_000, 1);
    store.maintain().unwrap();
    drop(store);
    drop(maintenance);
    assert_eq!(files(folder.path()), Vec::<PathBuf>::new());
}

#[test]
fn the_thread_ends_whenever_it_is_told_to() {
    let folder = tempfile::tempdir().unwrap();
    for _ in 0..2_000 {
        let maintenance = Maintenance::start().unwrap();
        let _store = IdentityStore::new(settings(folder.path()), &maintenance);
        drop(maintenance);
    }
}
