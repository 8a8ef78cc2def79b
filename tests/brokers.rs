//! What brokers answer when they do not do as they are asked: too large, not allowed, not the coordinator, not a member
//! any more. Each has its class (ARCHITECTURE.md): abort, the same call again, stop. Afterwards the proof must hold.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout)]

mod common;

use std::time::Duration;

use common::deployment::{SHARDS, everything};
use common::kafka::{self, Sent};
use common::kafka_proxy::{
    Act, Api, COORDINATOR_LOAD_IN_PROGRESS, COORDINATOR_NOT_AVAILABLE, INVALID_TXN_STATE, KafkaProxy,
    NOT_COORDINATOR, NOT_ENOUGH_REPLICAS, NOT_ENOUGH_REPLICAS_AFTER_APPEND, PRODUCER_FENCED,
    TOPIC_AUTHORIZATION_FAILED, TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
};
use common::ledger::Ledger;
use common::proof::PATIENCE;
use common::{Deployment, Instance, months_before, random_name, tail, usage, wait_for};
use creditstream::kafka::partition_for;
use creditstream::time::Timestamp;

/// So that what a zombie left in a request is not given up by the brokers or its client before the zombie wakes.
const PATIENT: (&str, &str) = ("ledger.transaction_timeout_ms", "30000");

fn transactions(instance: &Instance, outcome: &str) -> u64 {
    instance.metric("creditstream_transactions_total", &[("outcome", outcome)]) as u64
}

/// Among many top-ups one adjustment whose entry the ledger topic does not take. What aborts five times is halved, down
/// to that one record, which stops the worker by name. All before it are granted, none after it is, and it is itself
/// posted, with them, once the topic takes it.
#[test]
fn a_batch_with_a_record_too_large_for_the_ledger_is_halved_down_to_it_and_the_others_are_charged() {
    const BEFORE: usize = 40;
    const AFTER: usize = 20;
    let deployment = Deployment::with(&[("ledger.batch_events_max", "16")]);
    let (config, topics) = (&deployment.config, &deployment.config.topics);
    // The entry of the adjustment has three texts of 1 KiB that cannot be compressed much; 16 top-ups fit.
    kafka::set_topic(config, &topics.ledger, &[("max.message.bytes", "2600")]);
    let wallets = wallets_at_home_in(1);
    let event = |kind: &str, wallet: &str, id: &str, data: &str| {
        let time = Timestamp::now();
        format!(
            r#"{{"specversion":"1.0","id":"{id}","source":"/e2e","type":"{kind}","subject":"{wallet}","time":"{time}","data":{data}}}"#
        )
    };
    let topup = |number: usize| {
        let data = format!(r#"{{"topup_id":"t_{number}","amount_usd":100}}"#);
        let wallet = &wallets[number % wallets.len()];
        (wallet.clone(), event("topup.purchased", wallet, &format!("e_{number}"), &data))
    };
    let mut noise = noise();
    let mut text = || noise.by_ref().take(1_024).collect::<String>();
    let (reason, actor, reference) = (text(), text(), text());
    let data = format!(
        r#"{{"adjustment_id":"large","credits":5,"reason":"{reason}","actor":"{actor}","reference":"{reference}"}}"#
    );
    let large = (wallets[0].clone(), event("wallet.adjusted", &wallets[0], "large", &data));
    let all: Vec<(String, String)> =
        (0..BEFORE).map(topup).chain([large]).chain((BEFORE..BEFORE + AFTER).map(topup)).collect();
    let records: Vec<Sent<'_>> = all
        .iter()
        .map(|(wallet, event)| Sent {
            partition: Some(1),
            key: Some(wallet.as_bytes()),
            value: Some(event.as_bytes()),
            headers: vec![],
        })
        .collect();
    kafka::send_all(config, &topics.wallet, &records).unwrap();

    let mut instance = deployment.start(&["ledger"]);
    let (code, _) = instance.wait_for_exit(PATIENCE);
    let said = instance.log();
    assert_eq!(code, 70, "{}", tail(&said));
    let place =
        format!("a single record cannot be committed: {}/1 before offset {}", topics.wallet, BEFORE + 1);
    let stopped = said.lines().find(|line| line.contains("\"worker stopped\"")).unwrap();
    assert!(stopped.contains(&place) && stopped.contains("MessageSizeTooLarge"), "{stopped}");
    // From 16 to 8, 4, 2, 1, and the one five times more.
    assert!(instance.log_count("batch aborted") >= 25, "{}", tail(&said));
    let posted = || {
        let records = kafka::read_all(config, &topics.ledger);
        let ids =
            records.iter().map(|record| record.json()["entries"][0]["event_id"].as_str().unwrap().to_owned());
        ids.collect::<Vec<String>>()
    };
    let expected = |count: usize| all[..count].iter().map(|(_, event)| id_of(event)).collect::<Vec<_>>();
    assert_eq!(posted(), expected(BEFORE));

    kafka::set_topic(config, &topics.ledger, &[("max.message.bytes", "1048588")]);
    let mut instance = deployment.start(&["ledger"]);
    wait_for("all to be posted", PATIENCE, || (posted() == expected(all.len())).then_some(()));
    let ledger = Ledger::read(config);
    let granted: i64 = ledger.wallets.values().map(|sums| sums.granted).sum();
    let adjusted: i64 = ledger.wallets.values().map(|sums| sums.adjusted).sum();
    assert_eq!((granted % (BEFORE + AFTER) as i64, adjusted), (0, 5));
    instance.terminate();
}

/// Wallets that live in a shard.
fn wallets_at_home_in(shard: i32) -> Vec<String> {
    let names = std::iter::repeat_with(|| format!("ws_{}", random_name()));
    names.filter(|name| partition_for(name.as_bytes(), SHARDS) == shard).take(5).collect()
}

/// Printable characters in no order, none that JSON would escape.
fn noise() -> impl Iterator<Item = char> {
    let mut state = 1_u64;
    let next = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b'!' + (state >> 33) as u8 % 93)
    };
    std::iter::repeat_with(next).filter(|character| !matches!(character, '"' | '\\'))
}

fn id_of(event: &str) -> String {
    let event: serde_json::Value = serde_json::from_str(event).unwrap();
    event["id"].as_str().unwrap().to_owned()
}

/// The right to write a topic is taken away under load: nothing of the batch counts, and the instance stops at once with
/// what to do. It is no fault of a record, so nothing is halved and no record is named.
#[test]
fn a_topic_that_may_not_be_written_any_more_stops_the_instance_which_names_it() {
    let deployment = Deployment::new();
    let topics = &deployment.config.topics;
    let mut books = deployment.generate(&everything(1_000, 50));
    for topic in [&topics.ledger, &topics.wallets] {
        let proxy = KafkaProxy::to(&deployment.config.kafka.brokers);
        let mut instance = deployment.start_with(&["ledger"], &[("kafka.brokers", &proxy.address())]);
        deployment.wait_until_processed(&books);
        proxy.deny_writes(topic, TOPIC_AUTHORIZATION_FAILED);
        books.add(&deployment.generate(&usage(books.records, 500, 50)));
        let (code, _) = instance.wait_for_exit(PATIENCE);
        let said = instance.log();
        assert_eq!(code, 77, "{}", tail(&said));
        assert_eq!(instance.log_count("transaction aborted"), 1, "{}", tail(&said));
        let refused = said.lines().find(|line| line.contains("\"worker stopped\"")).unwrap();
        assert!(refused.contains(topic) && refused.contains("TopicAuthorizationFailed"), "{refused}");
    }
    let mut instance = deployment.start(&["ledger"]);
    deployment.assert_proof(&books);
    instance.terminate();
}

/// Brokers that lack replicas take nothing for longer than a transaction may last, again and again. It is no fault of a
/// record: nothing stops, and all goes on once there are enough. From 2 records a batch would be halved and then stop at the
/// tenth abort, if it were to blame.
#[test]
fn brokers_that_lack_replicas_are_waited_for_and_no_record_is_blamed() {
    let settings = [("ledger.transaction_timeout_ms", "1000"), ("ledger.batch_events_max", "2")];
    let deployment = Deployment::with(&settings);
    let proxy = KafkaProxy::to(&deployment.config.kafka.brokers);
    let mut instance = deployment.start_with(&["ledger"], &[("kafka.brokers", &proxy.address())]);
    let mut books = deployment.generate(&everything(100, 10));
    let mut progress = deployment.wait_until_processed(&books);
    for (number, code) in (1..).zip([NOT_ENOUGH_REPLICAS, NOT_ENOUGH_REPLICAS_AFTER_APPEND]) {
        proxy.deny_writes(&deployment.config.topics.ledger, code);
        books.add(&deployment.generate(&usage(number + 1, 20, 10)));
        wait_for("batches to be aborted", PATIENCE, || {
            (instance.log_count("\"batch aborted\"") >= 12 * number as usize).then_some(())
        });
        proxy.allow_all();
        progress.wait_until_decided(books.records, PATIENCE);
    }
    deployment.assert_proof(&books);
    let said = instance.log();
    assert!(!said.contains("a single record cannot be committed"), "{}", tail(&said));
    instance.terminate();
}

/// A commit that does not end keeps an instance from stopping in order: whoever has no time for that signals again.
#[test]
fn a_second_stop_signal_exits_at_once() {
    let deployment = Deployment::new();
    let proxy = KafkaProxy::to(&deployment.config.kafka.brokers);
    let mut instance = deployment.start_with(&["ledger"], &[("kafka.brokers", &proxy.address())]);
    instance.wait_until_ready();
    proxy.next(Api::EndTxn, Act::Hold, 0, 1);
    let books = deployment.generate(&everything(500, 50));
    proxy.wait_until_held("a commit to be under way");
    instance.signal("INT");
    instance.wait_for_log("stopping: a second signal exits at once");
    instance.signal("TERM");
    let (code, _) = instance.wait_for_exit(Duration::from_secs(3));
    assert_eq!(code, 130, "{}", tail(&instance.log()));
    proxy.release();
    let mut instance = deployment.start(&["ledger"]);
    deployment.assert_proof(&books);
    instance.terminate();
}

/// The right to the transactional id is taken away: the producer is done for, and no other one can be made.
#[test]
fn a_transactional_id_that_may_not_be_used_any_more_stops_the_instance_which_names_it() {
    let deployment = Deployment::new();
    let proxy = KafkaProxy::to(&deployment.config.kafka.brokers);
    let mut books = deployment.generate(&everything(1_000, 50));
    let start = || deployment.start_with(&["ledger"], &[("kafka.brokers", &proxy.address())]);
    let running = start();
    deployment.wait_until_processed(&books);
    proxy.next(Api::AddOffsetsToTxn, Act::Refuse, TRANSACTIONAL_ID_AUTHORIZATION_FAILED, usize::MAX);
    proxy.next(Api::InitProducerId, Act::Deny, TRANSACTIONAL_ID_AUTHORIZATION_FAILED, usize::MAX);
    books.add(&deployment.generate(&usage(2, 500, 50)));
    for (which, mut instance) in [("running", running), ("started", start())] {
        let (code, _) = instance.wait_for_exit(PATIENCE);
        assert_eq!(code, 77, "{which}: {}", tail(&instance.log()));
        assert!(instance.log().contains("TransactionalIdAuthorizationFailed"), "{}", tail(&instance.log()));
    }
    proxy.allow_all();
    let mut instance = start();
    deployment.assert_proof(&books);
    instance.terminate();
}

/// A commit of which nobody knows whether it happened, for the connection broke before or after the broker heard of it; and
/// a producer that is done for, before or after the broker did as it was asked. A new one takes its place, and the
/// topics say what is so.
#[test]
fn a_commit_of_unknown_outcome_and_a_fatal_error_are_settled_by_a_new_producer_and_the_topics() {
    // That a connection was lost is known from librdkafka's log, also where little is logged.
    let deployment = Deployment::with(&[("log.filter", "\"warn\"")]);
    let proxy = KafkaProxy::to(&deployment.config.kafka.brokers);
    let mut instance = deployment.start_with(&["ledger"], &[("kafka.brokers", &proxy.address())]);
    let mut books = deployment.generate(&everything(1_000, 50));
    let mut progress = deployment.wait_until_processed(&books);
    let faults = [
        (Api::EndTxn, Act::CutBefore, 0),
        (Api::EndTxn, Act::CutAfter, 0),
        (Api::EndTxn, Act::Refuse, PRODUCER_FENCED),
        (Api::EndTxn, Act::Deny, PRODUCER_FENCED),
        (Api::AddOffsetsToTxn, Act::Refuse, INVALID_TXN_STATE),
    ];
    for (number, (api, act, code)) in (1..).zip(faults) {
        proxy.next(api, act, code, 1);
        books.add(&deployment.generate(&usage(200 + number, 200, 50)));
        progress.wait_until_decided(books.records, PATIENCE);
        proxy.wait_until_used_up(&format!("{api:?} {act:?} {code}"));
        let unknown = instance.log_count("outcome of the batch unknown") as u64;
        assert_eq!(unknown, number, "{api:?} {act:?} {code}: {}", tail(&instance.log()));
        proxy.allow_all();
    }
    // Whatever the client was told in the end: it is this very commit that does not count as one, not the next.
    proxy.next(Api::EndTxn, Act::CutAfter, 0, 1);
    proxy.then_hold(Api::AddPartitionsToTxn);
    books.add(&deployment.generate(&usage(300, 200, 50)));
    proxy.wait_until_held("the transaction after that");
    let unknown = instance.log_count("outcome of the batch unknown");
    assert_eq!(unknown, faults.len() + 1, "{}", tail(&instance.log()));
    proxy.release();
    deployment.assert_proof(&books);
    instance.terminate();
}

/// The coordinators of transactions and of the group move, before and after they did what was asked, and the new one is not
/// ready at once; at last one takes longer than a call waits. It is the same call again each time: nothing is aborted,
/// nobody leaves the group, nothing is doubled.
#[test]
fn while_coordinators_move_the_same_call_is_made_again_and_nothing_is_doubled() {
    let deployment = Deployment::with(&[("ledger.transaction_timeout_ms", "4000")]);
    let proxy = KafkaProxy::to(&deployment.config.kafka.brokers);
    let mut instance = deployment.start_with(&["ledger"], &[("kafka.brokers", &proxy.address())]);
    let mut books = deployment.generate(&everything(1_000, 50));
    let mut progress = deployment.wait_until_processed(&books);
    let moves = [
        (Api::AddPartitionsToTxn, Act::Deny, NOT_COORDINATOR),
        (Api::AddPartitionsToTxn, Act::Deny, COORDINATOR_LOAD_IN_PROGRESS),
        (Api::AddOffsetsToTxn, Act::Refuse, NOT_COORDINATOR),
        (Api::AddOffsetsToTxn, Act::Deny, COORDINATOR_NOT_AVAILABLE),
        (Api::TxnOffsetCommit, Act::Deny, NOT_COORDINATOR),
        (Api::TxnOffsetCommit, Act::Deny, COORDINATOR_LOAD_IN_PROGRESS),
        (Api::EndTxn, Act::Refuse, NOT_COORDINATOR),
        (Api::EndTxn, Act::Deny, NOT_COORDINATOR),
        (Api::EndTxn, Act::Deny, COORDINATOR_NOT_AVAILABLE),
        (Api::EndTxn, Act::Refuse, COORDINATOR_LOAD_IN_PROGRESS),
        (Api::Heartbeat, Act::Refuse, NOT_COORDINATOR),
    ];
    for (number, (api, act, code)) in (1..).zip(moves) {
        proxy.next(api, act, code, 1);
        if code == NOT_COORDINATOR {
            proxy.next(Api::FindCoordinator, Act::Deny, COORDINATOR_NOT_AVAILABLE, 1);
        }
        books.add(&deployment.generate(&usage(100 + number, 50, 50)));
        progress.wait_until_decided(books.records, PATIENCE);
        proxy.wait_until_used_up(&format!("{api:?} {act:?} {code}"));
        proxy.allow_all();
    }
    proxy.next(Api::EndTxn, Act::Deny, COORDINATOR_LOAD_IN_PROGRESS, usize::MAX);
    books.add(&deployment.generate(&usage(200, 50, 50)));
    instance.wait_for_log("the commit is not settled yet: asking again");
    proxy.allow_all();
    deployment.assert_proof(&books);
    let outcomes = ["aborted", "fenced"].map(|outcome| transactions(&instance, outcome));
    assert_eq!(outcomes, [0, 0], "{}", tail(&instance.log()));
    assert_eq!(instance.log_count("partitions taken over"), 1, "{}", tail(&instance.log()));
    instance.terminate();
}

/// Credits of a month fall due and nothing else happens. The instance is frozen in the transaction that posts them, longer
/// than its session; another one posts them. Awake again, it commits what it had computed: it must not count.
#[test]
fn a_zombie_whose_next_act_is_a_due_posting_is_fenced_and_goes_on() {
    let deployment = Deployment::with(&[PATIENT, ("clock.idle_after_seconds", "1")]);
    let proxy = KafkaProxy::to(&deployment.config.kafka.brokers);
    let mut zombie = deployment
        .start_with(&["ledger"], &[("kafka.brokers", &proxy.address()), ("ledger.instance", "zombie")]);
    zombie.wait_until_ready();
    let begins = Timestamp::now().plus_millis(7_000);
    let (starts_at, months) = months_before(begins);
    let wallets: Vec<String> = (0..SHARDS).map(|shard| wallets_at_home_in(shard).remove(0)).collect();
    let event = |wallet: &String, kind: &str, id: &str, data: &str| {
        let event = format!(
            r#"{{"specversion":"1.0","id":"{id}","source":"/e2e","type":"{kind}","subject":"{wallet}","time":"{}","data":{data}}}"#,
            Timestamp::now()
        );
        (wallet.clone(), event)
    };
    let send = |topic: &str, events: &[(String, String)]| {
        let sent = events.iter().map(|(wallet, event)| Sent {
            partition: Some(partition_for(wallet.as_bytes(), SHARDS)),
            key: Some(wallet.as_bytes()),
            value: Some(event.as_bytes()),
            headers: vec![],
        });
        kafka::send_all(&deployment.config, topic, &sent.collect::<Vec<_>>()).unwrap();
    };
    let contract = format!(r#"{{"contract_id":"c","plan":"lite","starts_at":"{starts_at}"}}"#);
    let contracts: Vec<_> =
        wallets.iter().map(|wallet| event(wallet, "contract.started", "contract", &contract)).collect();
    send(&deployment.config.topics.wallet, &contracts);
    let granted =
        |instance: &Instance| instance.metric("creditstream_credits_total", &[("flow", "granted")]) as u32;
    let month = 200 * wallets.len() as u32;
    wait_for("the months before", PATIENCE, || (granted(&zombie) == months * month).then_some(()));
    // The latest states of the wallets follow within a second.
    std::thread::sleep(Duration::from_millis(1_500));
    assert!(Timestamp::now() < begins, "the month has begun already");
    proxy.next(Api::AddPartitionsToTxn, Act::Hold, 0, 1);
    proxy.wait_until_held("the transaction of the month's credits");
    assert!(Timestamp::now() >= begins, "another transaction is held");
    zombie.signal("STOP");

    let mut other = deployment.start_with(&["ledger"], &[("ledger.instance", "other")]);
    wait_for("the other one to post the month", PATIENCE, || (granted(&other) == month).then_some(()));
    zombie.signal("CONT");
    proxy.release();
    assert_fenced_and_back(&mut zombie);

    let images = r#"{"job_id":"job","asset":"image","images":150}"#;
    let used: Vec<_> =
        wallets.iter().map(|wallet| event(wallet, "generation.completed", "used", images)).collect();
    send(&deployment.config.topics.generation, &used);
    let sums = wait_for("usage of the month", PATIENCE, || {
        let ledger = Ledger::read(&deployment.config);
        let sums: Vec<_> = ledger.wallets.into_values().map(|sums| (sums.granted, sums.charged)).collect();
        sums.iter().all(|(_, charged)| *charged > 0).then_some(sums)
    });
    assert_eq!(sums, vec![(200 * i64::from(months + 1), 150); wallets.len()]);
    zombie.terminate();
    other.terminate();
}

/// Frozen in a commit for longer than its session; another instance charges the same records, and more, and is gone again
/// when the zombie wakes. It rejoins at once and is given every shard back, with a state that has grown old meanwhile.
#[test]
fn a_zombie_that_rejoins_at_once_drops_what_it_had_computed_and_catches_up() {
    let deployment = Deployment::with(&[PATIENT]);
    let proxy = KafkaProxy::to(&deployment.config.kafka.brokers);
    let mut zombie = deployment
        .start_with(&["ledger"], &[("kafka.brokers", &proxy.address()), ("ledger.instance", "zombie")]);
    let mut books = deployment.generate(&everything(1_000, 50));
    deployment.assert_proof(&books);
    proxy.next(Api::AddPartitionsToTxn, Act::Hold, 0, 1);
    books.add(&deployment.generate(&usage(2, 1_000, 50)));
    proxy.wait_until_held("a transaction");
    zombie.signal("STOP");

    let mut other = deployment.start_with(&["ledger"], &[("ledger.instance", "other")]);
    deployment.wait_until_processed(&books);
    other.terminate();
    zombie.signal("CONT");
    proxy.release();
    assert_fenced_and_back(&mut zombie);
    assert_eq!(zombie.metric("creditstream_shards_owned", &[]) as i32, SHARDS);
    books.add(&deployment.generate(&usage(3, 1_000, 50)));
    deployment.assert_proof(&books);
    zombie.terminate();
}

/// It says that its batch was dropped, and why; takes its shards again, reading what was posted meanwhile, and serves.
#[track_caller]
fn assert_fenced_and_back(zombie: &mut Instance) {
    let taken_over = "partitions taken over";
    let before = zombie.log_count(taken_over);
    wait_for("the zombie to have shards again", PATIENCE, || {
        (zombie.log_count(taken_over) > before).then_some(())
    });
    zombie.wait_until_ready();
    let said = zombie.log();
    let is_refused = |line: &&str| {
        line.contains("\"batch aborted\"")
            && ["UnknownMemberId", "IllegalGeneration"].iter().any(|code| line.contains(code))
    };
    assert_eq!(said.lines().filter(is_refused).count(), 1, "{}", tail(&said));
    assert_eq!(transactions(zombie, "aborted"), 1, "{}", tail(&said));
    // When it began there was nothing to be read.
    let lines = said.lines().filter(|line| line.contains("\"ledger read\""));
    let lines = lines.map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let entries: u64 = lines.map(|line| line["entries"].as_u64().unwrap()).sum();
    assert!(entries > 0, "{}", tail(&said));
}
