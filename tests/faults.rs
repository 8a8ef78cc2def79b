//! What breaks in the field, done on purpose: processes killed, disks damaged, groups reset, ClickHouse away, wrong
//! deployments. Afterwards the proof must hold to the credit.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout)]

mod common;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use common::deployment::everything;
use common::progress::Progress;
use common::proof::PATIENCE;
use common::proxy::Proxy;
use common::{Deployment, Instance, kafka, tail, usage, wait_for};
use rdkafka::producer::{BaseRecord, Producer};

/// A restart takes its old place at once instead of after the session timeout of the one before.
const STATIC: (&str, &str) = ("ledger.static_membership", "true");

/// Killed again and again under load, each time at another moment of a batch.
#[test]
fn killed_at_random_moments_it_loses_and_doubles_nothing() {
    let deployment = Deployment::with(&[STATIC, ("ledger.batch_events_max", "200")]);
    let load = deployment.generate_slowly(&everything(14_000, 150), 1_800);
    let mut progress = Progress::follow(&deployment.config);
    let mut instance = deployment.start(&[]);
    for kill in 0..5 {
        let before = progress.decided();
        progress.wait_until_decided(before + 300, PATIENCE);
        std::thread::sleep(Duration::from_millis(u64::from(uuid::Uuid::new_v4().as_bytes()[0]) * 2));
        instance.kill_9();
        progress.read(Duration::from_millis(50));
        println!("kill {kill} after {} decided records", progress.decided());
        instance = deployment.start(&[]);
    }
    let books = load.join().unwrap();
    deployment.assert_proof_with_clickhouse(&books);
    instance.terminate();
}

/// Snapshots follow the ledger within a second. A kill in between leaves them behind; a restart brings them up, also
/// where no event comes any more, and whether there are checkpoints or not.
#[test]
fn snapshots_that_a_kill_left_behind_are_brought_up_by_the_restart() {
    let deployment = Deployment::with(&[STATIC]);
    let mut books = deployment.generate(&everything(1_000, 50));
    let mut instance = deployment.start(&[]);
    deployment.assert_proof(&books);
    for (seed, keeps_store) in [(2, true), (3, false)] {
        books.add(&deployment.generate(&usage(seed, 1_000, 50)));
        deployment.wait_until_processed(&books);
        instance.kill_9();
        if !keeps_store {
            fs::remove_dir_all(deployment.store()).unwrap();
        }
        instance = deployment.start(&[]);
        deployment.assert_proof_with_clickhouse(&books);
    }
    instance.terminate();
}

/// Another instance takes the shards of one that is gone without a word, once its session has run out.
#[test]
fn the_shards_of_a_killed_instance_go_to_another() {
    let deployment = Deployment::new();
    let load = deployment.generate_slowly(&everything(9_000, 100), 1_500);
    let mut first = deployment.start_with(&["ledger"], &[("ledger.instance", "first")]);
    let mut progress = Progress::follow(&deployment.config);
    progress.wait_until_decided(1_000, PATIENCE);
    let mut second = deployment.start_with(&["ledger"], &[("ledger.instance", "second")]);
    second.wait_until_ready();
    first.kill_9();
    deployment.assert_proof(&load.join().unwrap());
    second.terminate();
}

#[test]
fn a_second_instance_joins_under_load_and_the_first_leaves() {
    let deployment = Deployment::new();
    let mut first = deployment.start_with(&[], &[("ledger.instance", "first")]);
    first.wait_until_ready();
    let load = deployment.generate_slowly(&everything(16_000, 150), 2_000);
    let mut progress = Progress::follow(&deployment.config);
    progress.wait_until_decided(1_500, PATIENCE);
    let mut second = deployment.start_with(&[], &[("ledger.instance", "second")]);
    second.wait_until_ready();
    let begun = Instant::now();
    while second.metric("creditstream_shards_owned", &[]) == 0.0 {
        assert!(
            begun.elapsed() < PATIENCE,
            "the second instance never got a shard:\n{}",
            tail(&second.log())
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    let before = progress.decided();
    progress.wait_until_decided(before + 1_000, PATIENCE);
    first.terminate();
    assert!(!load.is_finished(), "load was on");
    deployment.assert_proof_with_clickhouse(&load.join().unwrap());
    assert_eq!(second.metric("creditstream_shards_owned", &[]) as i32, deployment.config.topics.shards);
    second.terminate();
}

/// A restore may take long: here a transaction that somebody left open has it wait. The group goes on meanwhile, and so
/// does the way out.
#[test]
fn the_group_is_heard_while_shards_are_restored() {
    let deployment = Deployment::new();
    let open = kafka::transactional_producer(&deployment.config, &format!("{}-open", deployment.name));
    open.begin_transaction().unwrap();
    let topic = &deployment.config.topics.ledger;
    for partition in 0..deployment.config.topics.shards {
        let record: BaseRecord<'_, str, str> =
            BaseRecord::to(topic).partition(partition).key("ws").payload("{}");
        open.send(record).map_err(|(error, _)| error).unwrap();
    }
    open.flush(PATIENCE).unwrap();
    let restoring = |instance: &Instance| {
        let answer = instance.get("/readyz")?;
        answer.1.contains("restoring the assigned shards").then_some(())
    };
    let ledger = |name: &str| deployment.start_with(&["ledger"], &[("ledger.instance", name)]);
    let mut first = ledger("first");
    wait_for("the first one's restore", PATIENCE, || restoring(&first));
    let mut second = ledger("second");
    wait_for("the second one's restore", PATIENCE, || restoring(&second));
    wait_for("the first one's share of the shards", PATIENCE, || restoring(&first));
    let mut third = ledger("third");
    wait_for("the third one's restore", PATIENCE, || restoring(&third));
    let time = third.terminate();
    assert!(time < Duration::from_secs(10), "it took {time:?} to stop");
    open.abort_transaction(PATIENCE).unwrap();
    first.wait_until_ready();
    second.wait_until_ready();
    deployment.assert_proof(&deployment.generate(&everything(1_000, 50)));
    first.terminate();
    second.terminate();
}

/// State comes back from checkpoints, from the topics alone, and from the topics where checkpoints are damaged;
/// each time what was remembered is remembered: the same records sent again are duplicates.
#[test]
fn a_restart_remembers_everything_with_checkpoints_without_and_with_damaged_ones() {
    let deployment = Deployment::with(&[STATIC]);
    let options = creditstream::generate::GenerateOptions { bad_percent: 0.0, ..everything(4_000, 100) };
    let mut books = deployment.generate(&options);
    let mut instance = deployment.start(&["ledger"]);
    deployment.assert_proof(&books);
    instance.terminate();
    let checkpoints = || -> Vec<_> {
        let files = fs::read_dir(deployment.store()).unwrap().map(|file| file.unwrap().path());
        files.filter(|path| path.extension().is_some_and(|extension| extension == "checkpoint")).collect()
    };
    assert_eq!(checkpoints().len(), deployment.config.topics.shards as usize, "a checkpoint for each shard");
    let again = common::proof::sent_again(&books);

    // From checkpoints: hardly anything of the ledger is read.
    let mut instance = deployment.start(&["ledger"]);
    instance.wait_until_ready();
    let read = entries_read(&instance.log());
    assert!(read < 200, "{read} entries were read although there are checkpoints");
    deployment.generate(&options);
    books.add(&again);
    books.add(&deployment.generate(&usage(2, 1_000, 100)));
    deployment.assert_proof(&books);
    instance.terminate();

    // Damaged: one byte of each is flipped, somewhere else in each.
    let damaged = checkpoints();
    for (number, path) in (1..).zip(&damaged) {
        let mut bytes = fs::read(path).unwrap();
        let place = bytes.len() * number / (damaged.len() + 1);
        bytes[place] ^= 0x10;
        fs::write(path, bytes).unwrap();
    }
    let mut instance = deployment.start(&["ledger"]);
    instance.wait_until_ready();
    assert_eq!(instance.log_count("the checkpoint is not good"), damaged.len(), "{}", tail(&instance.log()));
    assert!(entries_read(&instance.log()) > 2_000, "the ledger was read anew");
    deployment.generate(&options);
    books.add(&again);
    books.add(&deployment.generate(&usage(3, 1_000, 100)));
    deployment.assert_proof(&books);
    instance.terminate();

    // Without: the disk is a new one.
    fs::remove_dir_all(deployment.store()).unwrap();
    let mut instance = deployment.start(&["ledger"]);
    instance.wait_until_ready();
    deployment.generate(&options);
    books.add(&again);
    books.add(&deployment.generate(&usage(4, 1_000, 100)));
    deployment.assert_proof(&books);
    instance.terminate();
}

/// A file system of its own, which is soon full.
struct SmallDisk<'p>(&'p Path);

impl<'p> SmallDisk<'p> {
    fn mount(at: &'p Path, size: &str) -> SmallDisk<'p> {
        fs::create_dir_all(at).unwrap();
        let disk = SmallDisk(at);
        disk.run("mount", &["-t", "tmpfs", "-o", &format!("size={size}"), "creditstream-test"]);
        disk
    }

    fn grow(&self, size: &str) {
        self.run("mount", &["-o", &format!("remount,size={size}")]);
    }

    fn run(&self, program: &str, arguments: &[&str]) {
        let answer = Command::new(program).args(arguments).arg(self.0).output().unwrap();
        let said = String::from_utf8_lossy(&answer.stderr);
        assert!(
            answer.status.success(),
            "this test must be root and may mount a small tmpfs: {program}: {said}"
        );
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0).status();
    }
}

/// The disk of the local store is full: charging goes on, what is remembered stays in memory, and a restart reads what it
/// lacks from the topics. Once there is room all of it is written again.
#[test]
fn a_full_disk_of_the_local_store_costs_nothing_but_time() {
    // 2,500 identities of a shard stay in memory; the others, and four checkpoints, do not fit onto the disk.
    let deployment = Deployment::with(&[
        STATIC,
        ("store.checkpoint_seconds", "1"),
        ("store.identities_in_memory", "10000"),
    ]);
    let store = deployment.store();
    let disk = SmallDisk::mount(&store, "128k");
    let options = creditstream::generate::GenerateOptions { bad_percent: 0.0, ..everything(8_000, 100) };
    let mut books = deployment.generate(&options);
    let mut instance = deployment.start(&["ledger"]);
    deployment.assert_proof(&books);
    let is_full = |instance: &mut Instance| {
        instance.wait_for_log("the checkpoint was not written");
        instance.wait_for_log("remembered identities cannot be written");
    };
    is_full(&mut instance);
    let again = common::proof::sent_again(&books);
    deployment.generate(&options);
    books.add(&again);
    deployment.assert_proof(&books);

    instance.kill_9();
    let mut instance = deployment.start(&["ledger"]);
    instance.wait_until_ready();
    deployment.generate(&options);
    books.add(&again);
    books.add(&deployment.generate(&usage(2, 1_000, 100)));
    deployment.assert_proof(&books);
    is_full(&mut instance);

    disk.grow("64m");
    let shards = deployment.config.topics.shards as usize;
    let kept = |extension: &str| {
        let files = fs::read_dir(&store).unwrap().map(|file| file.unwrap().path());
        files.filter(|path| path.extension().is_some_and(|of| of == extension)).count()
    };
    wait_for("a checkpoint of each shard", PATIENCE, || (kept("checkpoint") == shards).then_some(()));
    instance.terminate();
    assert_eq!(kept("new"), 0, "nothing half written is left");
    let mut instance = deployment.start(&["ledger"]);
    instance.wait_until_ready();
    let read = entries_read(&instance.log());
    assert!(read < 200, "{read} entries were read although there are checkpoints");
    deployment.generate(&options);
    books.add(&again);
    deployment.assert_proof(&books);
    instance.terminate();
}

/// The sum of the entries that were read to restore, by the log.
fn entries_read(log: &str) -> u64 {
    let lines = log.lines().filter(|line| line.contains("\"ledger read\""));
    let entries = lines
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["entries"].as_u64().unwrap());
    entries.sum()
}

/// A group set back to the beginning, or lost: what is read again is skipped, and nothing is posted twice.
#[test]
fn a_consumer_group_that_is_reset_or_deleted_changes_nothing() {
    let deployment = Deployment::new();
    let config = &deployment.config;
    let mut instance = deployment.start(&["ledger"]);
    let mut books = deployment.generate(&everything(4_000, 100));
    deployment.assert_proof(&books);
    let mut progress = Progress::follow(config);
    progress.wait_until_decided(books.records, PATIENCE);
    let to_be_read_again = books.records + progress.outcomes()["handed_over"];
    instance.terminate();

    for topic in [&config.topics.generation, &config.topics.wallet, &config.topics.intake] {
        kafka::reset_group(config, &config.ledger.group, topic);
    }
    let mut instance = deployment.start(&["ledger"]);
    books.add(&deployment.generate(&usage(2, 1_000, 100)));
    deployment.assert_proof(&books);
    let skipped = || instance.metric("creditstream_events_total", &[("outcome", "skipped")]) as u64;
    wait_for("all to be skipped", PATIENCE, || (skipped() >= to_be_read_again).then_some(()));
    progress.read(Duration::from_millis(500));
    assert_eq!((skipped(), progress.outcomes()["skipped"]), (to_be_read_again, to_be_read_again));
    instance.terminate();

    kafka::delete_group(config, &config.ledger.group);
    let mut instance = deployment.start(&["ledger"]);
    books.add(&deployment.generate(&usage(3, 1_000, 100)));
    deployment.assert_proof(&books);
    instance.terminate();
}

/// Each shard's ledger has another fault; without a local store, so that all is read from the topics.
#[test]
fn a_torn_and_a_gapped_shard_stop_and_the_one_with_a_double_goes_on() {
    let deployment = Deployment::new();
    let (config, topics) = (&deployment.config, &deployment.config.topics);
    let mut instance = deployment.start(&["ledger"]);
    let books = deployment.generate(&everything(2_000, 60));
    deployment.assert_proof(&books);
    instance.terminate();
    fs::remove_dir_all(deployment.store()).unwrap();

    let send = |topic: &str, record: &kafka::Record, value: &serde_json::Value| {
        let value = value.to_string();
        let sent = kafka::Sent {
            partition: Some(record.partition),
            key: record.key.as_deref(),
            value: Some(value.as_bytes()),
            headers: vec![],
        };
        kafka::send(config, topic, &sent).unwrap();
    };
    let ledger = kafka::read_all(config, &topics.ledger);
    let last_of = |shard: i32| ledger.iter().rfind(|record| record.partition == shard).unwrap();
    // Shard 0: the last record twice. Shard 1: the one after the next, without the next.
    send(&topics.ledger, last_of(0), &last_of(0).json());
    let mut gap = last_of(1).json();
    let entry = gap["entries"].as_array().unwrap().last().unwrap().clone();
    gap["entries"] = serde_json::json!([entry]);
    gap["entries"][0]["seq"] = (entry["seq"].as_u64().unwrap() + 2).into();
    send(&topics.ledger, last_of(1), &gap);
    // Shard 2: a state that covers an entry which is not there.
    let states = kafka::read_all(config, &topics.wallets);
    let state = states.iter().rfind(|record| record.partition == 2).unwrap();
    let mut ahead = state.json();
    ahead["seq"] = (ahead["seq"].as_u64().unwrap() + 1).into();
    send(&topics.wallets, state, &ahead);

    let mut instance = deployment.start(&["ledger"]);
    instance.wait_until_ready();
    let stopped = |shard: &str| {
        instance.metric("creditstream_shard_stopped", &[("shard", shard), ("reason", "contradiction")])
    };
    assert_eq!([stopped("0"), stopped("1"), stopped("2"), stopped("3")], [0.0, 1.0, 1.0, 0.0]);
    assert_eq!(instance.metric("creditstream_shards_owned", &[]), 2.0);
    let said = instance.log();
    for (wallet, words) in
        [(last_of(1).key_text(), "entries are missing"), (state.key_text(), "the ledger ends before it")]
    {
        let says = |line: &str| line.contains(&format!("wallet {wallet}:")) && line.contains(words);
        assert!(said.lines().any(says), "{wallet} {words}: {}", tail(&said));
    }
    // The others go on: their wallets are granted what is bought now.
    let bought = |shard: i32| {
        let wallet = last_of(shard).key_text();
        deployment.run(&["topup", wallet, "--topup-id", "t_later", "--amount-usd", "100"]).expect(0);
    };
    (0..4).for_each(bought);
    wait_for("two top-ups", PATIENCE, || {
        let found = kafka::read_all(config, &topics.ledger);
        let granted = found.iter().filter(|record| record.json().to_string().contains("t_later"));
        let shards: std::collections::BTreeSet<i32> = granted.map(|record| record.partition).collect();
        (shards == [0, 3].into()).then_some(())
    });
    instance.terminate();
}

#[test]
fn a_second_deployment_on_the_same_topics_is_refused_by_name() {
    let deployment = Deployment::new();
    let mut instance = deployment.start(&["ledger"]);
    let books = deployment.generate(&everything(500, 20));
    deployment.assert_proof(&books);

    let other = [("ledger.group", "another-group"), ("ledger.instance", "another"), ("store.path", "")];
    let mut second = deployment.start_with(&["ledger"], &other);
    let (code, _) = second.wait_for_exit(Duration::from_secs(30));
    assert_eq!(code, 78, "{}", tail(&second.log()));
    let said = second.log();
    for name in [deployment.config.ledger.group.as_str(), "another-group"] {
        assert!(said.contains(name), "the message names group {name}: {}", tail(&said));
    }
    instance.assert_running();
    deployment.assert_proof(&books);
    instance.terminate();
}

const PRICING: &str = include_str!("../config/pricing.toml");

#[test]
fn another_past_of_prices_is_refused_and_a_version_ahead_is_taken() {
    let deployment = Deployment::new();
    let books = deployment.generate(&everything(500, 20));
    let mut instance = deployment.start(&["ledger"]);
    deployment.assert_proof(&books);
    instance.terminate();

    let file = deployment.folder.path().join("pricing.toml");
    let setting = file.display().to_string();
    let dearer = PRICING.replace("credits_per_month = 200", "credits_per_month = 201");
    fs::write(&file, dearer).unwrap();
    let mut refused = deployment.start_with(&["ledger"], &[("pricing.file", &setting)]);
    let (code, _) = refused.wait_for_exit(Duration::from_secs(30));
    assert_eq!(code, 78, "{}", tail(&refused.log()));
    assert!(refused.log().contains("the same pricing file"), "{}", tail(&refused.log()));

    let ahead = creditstream::time::Timestamp::now().plus_millis(86_400_000);
    let with_version_ahead = format!(
        "{PRICING}\n[[rate_card]]\nid = \"ahead\"\neffective_from = \"{ahead}\"\n[rate_card.rates.image]\ncredits = \"2\"\n[rate_card.rates.video]\ncredits = \"4\"\n"
    );
    fs::write(&file, with_version_ahead).unwrap();
    let mut taken = deployment.start_with(&["ledger"], &[("pricing.file", &setting)]);
    taken.wait_until_ready();
    deployment.assert_proof(&books);
    taken.terminate();
}

/// Nothing listens at first, and is gone for a while later: debits do not wait, the sink catches up by itself.
#[test]
fn clickhouse_away_at_the_start_and_in_the_middle_holds_up_nothing_but_the_sink() {
    let deployment = Deployment::new();
    let mut proxy = Proxy::to(deployment.clickhouse().address());
    let mut instance = deployment.start_with(&[], &[("clickhouse.url", &proxy.url())]);
    let mut books = deployment.generate(&everything(3_000, 100));
    let ledger = deployment.assert_proof(&books);
    instance.wait_until_ready();
    assert_eq!(deployment.clickhouse().number("SELECT count() FROM ledger_entries"), 0);
    assert!(instance.metric("creditstream_clickhouse_errors_total", &[("kind", "unreachable")]) > 0.0);
    proxy.switch_on();
    deployment.assert_clickhouse(&ledger);

    let load = deployment.generate_slowly(&usage(2, 6_000, 100), 2_000);
    std::thread::sleep(Duration::from_millis(700));
    proxy.switch_off();
    books.add(&load.join().unwrap());
    let ledger = deployment.assert_proof(&books);
    std::thread::sleep(Duration::from_secs(4));
    let behind = deployment.clickhouse().number("SELECT count() FROM ledger_entries FINAL") as u64;
    assert!(behind < ledger.entries, "the sink is cut off, and has {behind} of {} entries", ledger.entries);
    proxy.switch_on();
    deployment.assert_clickhouse(&ledger);
    instance.terminate();
}

#[test]
fn missing_topics_are_a_clear_error() {
    let deployment = Deployment::without_init(&[]);
    let answer = deployment.run(&["run", "--role", "ledger"]).expect(78);
    assert!(answer.stderr.contains("creditstream init"), "{}", answer.stderr);
    assert!(
        answer.stderr.contains(&deployment.config.topics.generation),
        "it names the topic: {}",
        answer.stderr
    );
}
