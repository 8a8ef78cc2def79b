//! Files that are torn, flipped, of others or of another version are refused.

use super::*;

/// A folder with one segment of 2,000 identities, and what a checkpoint says of it.
fn sealed(maintenance: &Maintenance) -> (tempfile::TempDir, PathBuf, Saved) {
    let folder = tempfile::tempdir().unwrap();
    let mut store = IdentityStore::new(settings(folder.path()), maintenance);
    remember(&mut store, 0..2_000, 1);
    settle(&mut store);
    let saved = save(&store);
    let [file] = &files(folder.path())[..] else { panic!("not one file") };
    (folder, file.clone(), saved)
}

fn why_not(settings: StoreSettings, maintenance: &Maintenance, saved: &Saved) -> String {
    restart(settings, maintenance, saved).map(|_| ()).expect_err("it was opened").to_string()
}

fn header_of(bytes: &[u8]) -> header::Header {
    header::decode(&bytes[..header::HEADER_BYTES as usize]).unwrap()
}

#[test]
fn a_truncated_or_longer_file_is_refused() {
    let maintenance = Maintenance::start().unwrap();
    let (folder, file, saved) = sealed(&maintenance);
    let whole = fs::read(&file).unwrap();
    let lengths = [0, 7, 8, 100, 4_095, 4_096, 5_000, whole.len() / 2, whole.len() - 1];
    for length in lengths {
        fs::write(&file, &whole[..length]).unwrap();
        why_not(settings(folder.path()), &maintenance, &saved);
    }
    fs::write(&file, [&whole[..], b"more"].concat()).unwrap();
    assert!(
        why_not(settings(folder.path()), &maintenance, &saved)
            .ends_with("another length than it was written with")
    );
    fs::remove_file(&file).unwrap();
    assert!(why_not(settings(folder.path()), &maintenance, &saved).ends_with("cannot be read"));
    fs::write(&file, &whole).unwrap();
    assert_eq!(restart(settings(folder.path()), &maintenance, &saved).unwrap().len(), 2_000);
}

#[test]
fn a_flipped_bit_in_header_index_or_filter_is_refused() {
    let maintenance = Maintenance::start().unwrap();
    let (folder, file, saved) = sealed(&maintenance);
    let whole = fs::read(&file).unwrap();
    let header = header_of(&whole);
    let header_end = whole.iter().take(4_096).rposition(|byte| *byte != 0).unwrap() + 1;
    let loaded = (0..header_end).chain(header.index_start as usize..whole.len());
    for at in loaded.step_by(3) {
        let mut flipped = whole.clone();
        flipped[at] ^= 1 << (at % 8);
        fs::write(&file, &flipped).unwrap();
        why_not(settings(folder.path()), &maintenance, &saved);
    }
}

#[test]
fn a_flipped_bit_in_a_block_is_an_error_and_never_a_missing_identity() {
    let maintenance = Maintenance::start().unwrap();
    let (folder, file, saved) = sealed(&maintenance);
    let whole = fs::read(&file).unwrap();
    let header = header_of(&whole);
    for at in (header::HEADER_BYTES as usize..header.index_start as usize).step_by(617) {
        let mut flipped = whole.clone();
        flipped[at] ^= 1 << (at % 8);
        fs::write(&file, &flipped).unwrap();
        let mut store = restart(settings(folder.path()), &maintenance, &saved).unwrap();
        let found = (0..2_000)
            .map(|number| store.get(key(number)).map(|memo| memo.map(|memo| memo.value.into_owned())));
        let errors = found.enumerate().filter(|(number, found)| match found {
            Ok(value) => {
                assert_eq!(value.as_deref(), Some(&(*number as u64).to_le_bytes()[..]));
                false
            }
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::InvalidData);
                true
            }
        });
        assert!((1..=200).contains(&errors.count()), "byte {at}: not one block");
        // A merge does not launder it either.
        remember(&mut store, 2_000..4_000, 1);
        wait_until("the merge fails", || match store.maintain() {
            Ok(()) => false,
            Err(error) => error.kind() == io::ErrorKind::InvalidData,
        });
    }
}

#[test]
fn a_file_of_another_shard_ledger_version_or_name_is_refused() {
    let maintenance = Maintenance::start().unwrap();
    let (folder, file, saved) = sealed(&maintenance);
    let whole = fs::read(&file).unwrap();
    let other_shard = StoreSettings { shard: 4, ..settings(folder.path()) };
    assert!(why_not(other_shard.clone(), &maintenance, &saved).ends_with("cannot be read"));
    let name = file.file_name().unwrap().to_str().unwrap().replace("shard-3", "shard-4");
    fs::write(folder.path().join(name), &whole).unwrap();
    assert!(why_not(other_shard, &maintenance, &saved).ends_with("of another ledger or shard"));
    let other_ledger = StoreSettings { ledger_id: "another".to_owned(), ..settings(folder.path()) };
    assert!(why_not(other_ledger, &maintenance, &saved).ends_with("of another ledger or shard"));
    let in_memory = StoreSettings { folder: None, ..settings(folder.path()) };
    assert!(why_not(in_memory, &maintenance, &saved).contains("no folder"));

    let mut other_version = whole.clone();
    other_version[7] += 1;
    fs::write(&file, &other_version).unwrap();
    assert!(why_not(settings(folder.path()), &maintenance, &saved).ends_with("another format or version"));

    let (_other_folder, other_file, _) = sealed(&maintenance);
    fs::copy(other_file, &file).unwrap();
    assert!(
        why_not(settings(folder.path()), &maintenance, &saved).ends_with("another segment under this name")
    );
}

#[test]
fn a_segment_out_of_order_is_not_written() {
    let folder = tempfile::tempdir().unwrap();
    let target = writer::Target { folder: folder.path().to_owned(), shard: SHARD, ledger_id: String::new() };
    for second in [1, 2] {
        let mut writer = writer::SegmentWriter::create(&target, 2).unwrap();
        writer.push(&block::Record { key: IdentityKey(2), day: 1, value: b"" }).unwrap();
        assert!(writer.push(&block::Record { key: IdentityKey(second), day: 1, value: b"" }).is_err());
    }
    assert_eq!(files(folder.path()), Vec::<PathBuf>::new());
}
