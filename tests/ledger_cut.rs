//! A ledger that was cut short, on the real broker: a clear stop, one command, and the service goes on.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout)]

mod common;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use common::deployment::{SHARDS, everything};
use common::kafka::{self, Record, Sent};
use common::ledger::Ledger;
use common::proof::differing_wallet;
use common::{Deployment, Instance, usage, wait_for};
use creditstream::generate::Books;
use creditstream::kafka::{describe_topics, partition_for};
use rdkafka::consumer::Consumer;
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(60);
/// The shards whose ledger is cut: what is kept of the first has read further than it goes now, what is kept of the second
/// has not.
const CUT: [i32; 2] = [1, 2];
/// What is left of them, of 10 records.
const LEFT_OF_TEN: usize = 6;
const CHECKSUM_BYTES: usize = 32;
const MAGIC_BYTES: usize = 8;

fn topic_id(deployment: &Deployment, topic: &str) -> String {
    let client = kafka::reader(&deployment.config, "read_committed");
    describe_topics(client.client(), &[topic], PATIENCE).unwrap().remove(0).topic_id
}

fn checkpoint(deployment: &Deployment, shard: i32) -> PathBuf {
    deployment.store().join(format!("shard-{shard}.checkpoint"))
}

/// A checkpoint as it would be had the ledger kept its topic: where a broker loses a log's end, it does.
fn of_topic(checkpoint: &[u8], ledger_id: &str, change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let (magic, body) = checkpoint[..checkpoint.len() - CHECKSUM_BYTES].split_at(MAGIC_BYTES);
    let (length, body) = body.split_first_chunk::<4>().unwrap();
    let (header, rest) = body.split_at(u32::from_le_bytes(*length) as usize);
    let mut header: Value = serde_json::from_slice(header).unwrap();
    header["ledger_id"] = ledger_id.into();
    change(&mut header);
    let header = serde_json::to_vec(&header).unwrap();
    let mut forged = [magic, &(header.len() as u32).to_le_bytes(), &header, rest].concat();
    forged.extend_from_slice(blake3::hash(&forged).as_bytes());
    forged
}

/// Makes the ledger topic anew, without the last records of some partitions.
fn cut_ledger(deployment: &Deployment) {
    let topic = &deployment.config.topics.ledger;
    let records = kafka::read_all(&deployment.config, topic);
    kafka::delete_topics(&deployment.config, &[topic]);
    let consumer = kafka::reader(&deployment.config, "read_committed");
    wait_for("the topic to be gone", PATIENCE, || {
        let metadata = consumer.fetch_metadata(None, PATIENCE).ok()?;
        metadata.topics().iter().all(|known| known.name() != topic).then_some(())
    });
    deployment.run(&["init"]).expect(0);
    for shard in 0..SHARDS {
        let of_shard: Vec<&Record> = records.iter().filter(|record| record.partition == shard).collect();
        let left = if CUT.contains(&shard) { of_shard.len() * LEFT_OF_TEN / 10 } else { of_shard.len() };
        let left: Vec<Sent<'_>> = of_shard[..left]
            .iter()
            .map(|record| Sent {
                partition: Some(shard),
                key: record.key.as_deref(),
                value: record.value.as_deref(),
                headers: Vec::new(),
            })
            .collect();
        kafka::send_all(&deployment.config, topic, &left).unwrap();
    }
}

/// A wallet of its own that lives in that shard.
fn wallet_in(shard: i32) -> String {
    let mut ids = (0..).map(|number| format!("ws_late_{number}"));
    ids.find(|id| partition_for(id.as_bytes(), SHARDS) == shard).unwrap()
}

fn top_up(deployment: &Deployment, instance: &Instance, wallet_id: &str, topup_id: &str) {
    let granted = || instance.metric("creditstream_events_total", &[("outcome", "granted")]);
    let before = granted();
    deployment.run(&["topup", wallet_id, "--topup-id", topup_id, "--amount-usd", "250"]).expect(0);
    wait_for("the top-up", PATIENCE, || (granted() > before).then_some(()));
}

fn last_state(deployment: &Deployment, wallet_id: &str) -> Option<Vec<u8>> {
    let states = kafka::read_all(&deployment.config, &deployment.config.topics.wallets);
    states.into_iter().rfind(|record| record.key_text() == wallet_id).unwrap().value
}

fn assert_books(deployment: &Deployment, books: &Books, own: &[String]) {
    wait_for("verify to find everything equal", PATIENCE, || {
        let answer = deployment.run(&["verify", "--format", "json"]);
        println!("{}", answer.stdout);
        let report = answer.json_lines().pop()?;
        let notes = CUT.map(|shard| {
            format!("the ledger of shard {shard} was cut, and that was accepted: its alerts are not compared")
        });
        (answer.code == 0 && report["notes"] == serde_json::json!(notes)).then_some(())
    });
    // Reading it checks that no record and no event was posted twice.
    let mut ledger = Ledger::read(&deployment.config);
    own.iter().for_each(|wallet_id| assert!(ledger.wallets.remove(wallet_id).is_some(), "{wallet_id}"));
    assert_eq!(differing_wallet(&ledger, books), None);
}

#[test]
fn a_ledger_that_was_cut_is_accepted_and_what_it_lost_is_charged_again() {
    let deployment = Deployment::new();
    let mut instance = deployment.start(&[]);
    let mut books = deployment.generate(&everything(1_500, 40));
    deployment.assert_proof_with_clickhouse(&books);
    // Wallets of which nothing will be left.
    let own = CUT.map(wallet_in);
    own.iter().for_each(|wallet_id| top_up(&deployment, &instance, wallet_id, "t_1"));
    let refused = deployment.run(&["accept", "ledger"]).expect(75).stderr;
    assert!(refused.contains("1 members: stop all instances"), "{refused}");
    instance.terminate();
    assert!(own.iter().all(|wallet_id| last_state(&deployment, wallet_id).is_some()));
    let nothing = deployment.run(&["accept", "ledger"]).expect(0).stdout;
    assert!(nothing.contains("nothing to do"), "{nothing}");

    let kept = CUT.map(|shard| fs::read(checkpoint(&deployment, shard)).unwrap());
    cut_ledger(&deployment);
    let ledger_id = topic_id(&deployment, &deployment.config.topics.ledger);
    fs::write(checkpoint(&deployment, CUT[0]), of_topic(&kept[0], &ledger_id, |_| ())).unwrap();

    // Both shards stop and say so, the others go on.
    let mut instance = deployment.start(&[]);
    instance.wait_until_ready();
    let stopped = instance.metric("creditstream_shard_stopped", &[("reason", "contradiction")]);
    assert_eq!(stopped, 2.0, "{}", instance.log());
    let says = |words: &str| assert!(instance.log().contains(words), "{words}: {}", instance.log());
    says("the ledger ends at offset");
    says("but the ledger ends before it");
    CUT.iter().for_each(|shard| says(&format!("creditstream accept ledger --partition {shard}`")));
    let other = wallet_in(3);
    top_up(&deployment, &instance, &other, "t_1");
    deployment.run(&["verify"]).expect(1);
    instance.terminate();

    let progress = || kafka::settled_ends(&deployment.config, &deployment.config.topics.progress);
    let before = progress();
    let said = deployment.run(&["accept", "ledger"]).expect(1).stdout;
    for words in ["shard 1: its ledger ends at", "shard 2: its ledger ends at", "nothing was changed"] {
        assert!(said.contains(words), "{said}");
    }
    assert!(!said.contains("shard 0") && !said.contains("shard 3"), "{said}");
    assert_eq!(progress(), before);
    let said = deployment.run(&["accept", "ledger", "--yes"]).expect(0).stdout;
    println!("{said}");
    assert!(said.contains("records that were posted are not in the ledger: read again from"), "{said}");
    assert!(said.contains("records that came through intake are not in the ledger"), "{said}");
    own.iter().for_each(|wallet_id| assert_eq!(last_state(&deployment, wallet_id), None));
    deployment.run(&["rebuild-clickhouse"]).expect(0);

    // What was kept before is not trusted, not even where it does not go beyond the ledger.
    let rewound = of_topic(&kept[1], &ledger_id, |header| header["ledger_position"] = 0.into());
    fs::write(checkpoint(&deployment, CUT[1]), rewound).unwrap();
    let mut instance = deployment.start(&[]);
    instance.wait_until_ready();
    assert_eq!(instance.log_count("from before its ledger was cut: dropped"), 2, "{}", instance.log());
    let own = [own[0].clone(), own[1].clone(), other];
    assert_books(&deployment, &books, &own);

    books.add(&deployment.generate(&usage(14, 500, 40)));
    assert_books(&deployment, &books, &own);
    instance.terminate();
    let nothing = deployment.run(&["accept", "ledger"]).expect(0).stdout;
    assert!(nothing.contains("nothing to do"), "{nothing}");
    // From the checkpoints of the life after the cut.
    let mut instance = deployment.start(&[]);
    instance.wait_until_ready();
    assert_eq!(instance.log_count("from before its ledger was cut: dropped"), 0, "{}", instance.log());
    instance.terminate();
}

/// A shard that stood still, is mended and is given to the same instance again is read again: its partitions were paused.
#[test]
fn a_shard_that_was_stopped_is_read_again_once_it_is_mended_and_given_again() {
    let deployment = Deployment::new();
    let topics = &deployment.config.topics;
    let shard = 2;
    let (served, never_posted) = (wallet_in(shard), format!("{}_x", wallet_in(shard)));
    let mut instance = deployment.start(&["ledger"]);
    let books = deployment.generate(&everything(300, 20));
    deployment.assert_proof(&books);
    top_up(&deployment, &instance, &served, "t_1");
    wait_for("its state", PATIENCE, || {
        let states = kafka::read_all(&deployment.config, &topics.wallets);
        states.iter().any(|record| record.key_text() == served).then_some(())
    });
    instance.terminate();

    // A state of a wallet that the ledger knows nothing of: with nothing on disk, it is met.
    let state = String::from_utf8(last_state(&deployment, &served).unwrap()).unwrap();
    let state = state.replace(&served, &never_posted);
    let write = |value: Option<&[u8]>| {
        let key = Some(never_posted.as_bytes());
        let record = Sent { partition: Some(shard), key, value, headers: vec![] };
        kafka::send(&deployment.config, &topics.wallets, &record).unwrap();
    };
    write(Some(state.as_bytes()));
    fs::remove_dir_all(deployment.store()).unwrap();
    let mut instance = deployment.start(&["ledger"]);
    instance.wait_until_ready();
    let stopped =
        |instance: &Instance| instance.metric("creditstream_shard_stopped", &[("reason", "contradiction")]);
    assert_eq!(stopped(&instance), 1.0, "{}", instance.log());

    // It is mended; another instance joins and leaves, and the first is given all shards again.
    write(None);
    let other = [("ledger.instance", "other"), ("store.path", "")];
    let mut other = deployment.start_with(&["ledger"], &other);
    other.wait_until_ready();
    other.terminate();
    wait_for("all shards to be back", PATIENCE, || {
        let owned = instance.metric("creditstream_shards_owned", &[]);
        (owned == f64::from(SHARDS)).then_some(())
    });
    assert_eq!(stopped(&instance), 0.0);
    top_up(&deployment, &instance, &served, "t_2");
    instance.terminate();
}
