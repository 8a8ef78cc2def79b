//! A crash between any two steps loses nothing that the durable checkpoint names.

use std::collections::HashMap;

use super::*;

/// A copy of the folder as it is at this moment, files that are being written with what they have by now.
fn copy(folder: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for file in files(folder) {
        // One that is renamed or removed meanwhile is none that the durable checkpoint names.
        let _ = fs::copy(&file, copy.path().join(file.file_name().unwrap()));
    }
    copy
}

/// Goal: whatever the background thread was doing, the folder and the last durable checkpoint are enough. Method:
/// the folder is copied between all calls, and while work is under way; each copy is opened as after a crash.
#[test]
fn a_crash_at_any_time_loses_nothing_that_the_checkpoint_names() {
    let folder = tempfile::tempdir().unwrap();
    let maintenance = Maintenance::start().unwrap();
    let mut store = IdentityStore::new(settings(folder.path()), &maintenance);
    let mut memos: HashMap<u64, i32> = HashMap::new();
    let (mut durable, mut durable_memos) = (save(&store), memos.clone());
    let (mut unnamed, mut whole) = (0, 0);
    for round in 0..60_u64 {
        let day = (round / 4) as i32;
        let numbers: Vec<u64> = (round * 60..round * 60 + 120).collect();
        remember(&mut store, numbers.iter().copied(), day);
        memos.extend(numbers.iter().map(|number| (*number, day)));
        if round % 3 == 0 {
            durable = save(&store);
            durable_memos.clone_from(&memos);
            store.manifest_is_durable(&serde_json::from_str(&durable.manifest).unwrap());
        }
        for pause_us in [0, 200, 2_000] {
            std::thread::sleep(Duration::from_micros(pause_us));
            store.maintain().unwrap();
            let crashed = copy(folder.path());
            let left = files(crashed.path()).len();
            let restarted = restart(settings(crashed.path()), &maintenance, &durable).unwrap();
            whole += files(crashed.path()).len();
            unnamed += left - files(crashed.path()).len();
            assert_eq!(files(crashed.path()).len(), restarted.segments());
            for (number, day) in &durable_memos {
                let expected = Some((*day, number.to_le_bytes().to_vec()));
                assert_eq!(day_and_value(&restarted, key(*number)), expected, "round {round}, key {number}");
            }
        }
    }
    assert!(unnamed > 20 && whole > 20, "{unnamed} files unnamed, {whole} named: the test shows nothing");
    assert!(store.work().merged > 0);
}

#[test]
fn torn_and_unnamed_files_of_the_shard_are_deleted_and_others_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let maintenance = Maintenance::start().unwrap();
    let mut store = IdentityStore::new(settings(folder.path()), &maintenance);
    remember(&mut store, 0..150, 1);
    settle(&mut store);
    let saved = save(&store);
    let named = files(folder.path());
    let whole = fs::read(&named[0]).unwrap();
    drop(store);
    let path = |name: &str| folder.path().join(name);
    for length in [0, 1, 4_096, whole.len() - 1, whole.len()] {
        fs::write(path("shard-3.0000000000000001.identities.new"), &whole[..length]).unwrap();
        fs::write(path("shard-3.0000000000000002.identities"), &whole[..length]).unwrap();
        let restarted = restart(settings(folder.path()), &maintenance, &saved).unwrap();
        assert_eq!(files(folder.path()), named);
        assert_eq!(restarted.len(), 150);
    }
    let others =
        ["shard-3.checkpoint", "shard-33.0000000000000001.identities", "shard-4.0000000000000001.identities"];
    others.iter().for_each(|name| fs::write(path(name), b"of others").unwrap());
    drop(restart(settings(folder.path()), &maintenance, &saved).unwrap());
    assert_eq!(files(folder.path()).len(), 4);
    drop(IdentityStore::new(settings(folder.path()), &maintenance));
    assert!(others.iter().all(|name| path(name).exists()) && files(folder.path()).len() == 3);
}

#[test]
fn a_replaced_file_stays_until_a_newer_checkpoint_is_durable() {
    let folder = tempfile::tempdir().unwrap();
    let maintenance = Maintenance::start().unwrap();
    let mut store = IdentityStore::new(settings(folder.path()), &maintenance);
    let earlier = store.manifest();
    remember(&mut store, 0..150, 1);
    settle(&mut store);
    let before = save(&store);
    let named = files(folder.path());
    remember(&mut store, 150..300, 1);
    settle(&mut store);
    assert_eq!(store.segments(), 1);
    // Reports of checkpoints that name it, or are older than it is, change nothing; the last one after all: a
    // removal is queued behind those before it.
    for manifest in [&earlier, &serde_json::from_str(&before.manifest).unwrap()] {
        store.manifest_is_durable(manifest);
        std::thread::sleep(Duration::from_millis(20));
        assert!(named[0].exists());
    }
    let restarted =
        restart(settings(copy(folder.path()).path()), &maintenance, &before).map(|store| store.len());
    assert_eq!(restarted.unwrap(), 150);
    store.manifest_is_durable(&store.manifest());
    wait_until("the replaced files go", || files(folder.path()).len() == 1);
    assert!(!named[0].exists());
    assert!(matches!(restart(settings(folder.path()), &maintenance, &before), Err(WhyNot::Disk { .. })));
}

#[test]
fn a_restarted_store_is_as_before() {
    let folder = tempfile::tempdir().unwrap();
    let maintenance = Maintenance::start().unwrap();
    let mut store = IdentityStore::new(settings(folder.path()), &maintenance);
    for round in 0..30 {
        remember(&mut store, round * 90..round * 90 + 100, round as i32 / 3);
        store.maintain().unwrap();
    }
    settle(&mut store);
    remember(&mut store, 10_000..10_050, 10);
    let restarted = restart(settings(folder.path()), &maintenance, &save(&store)).unwrap();
    assert_eq!(restarted.len(), store.len());
    assert_eq!(restarted.segments(), store.segments());
    assert_eq!(restarted.disk_bytes(), store.disk_bytes());
    assert_eq!(serde_json::to_string(&restarted.manifest()).unwrap(), save(&store).manifest);
    for number in (0..3_000).chain(10_000..10_100) {
        assert_eq!(day_and_value(&restarted, key(number)), day_and_value(&store, key(number)));
    }
}
