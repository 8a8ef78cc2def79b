//! Commands of an operator: one screen that says whether anything needs a person, and the ways out of a stop.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout)]

mod common;

use std::time::Duration;

use common::deployment::{SHARDS, everything};
use common::kafka::{self, Sent};
use common::proof::expected_outcomes;
use common::{Deployment, Instance, months_before, usage, wait_for};
use creditstream::generate::GenerateOptions;
use creditstream::kafka::partition_for;
use creditstream::time::Timestamp;
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn one_screen_says_whether_anything_needs_a_person() {
    let deployment = Deployment::with(&[("drift.interval_seconds", "1")]);
    let status = |listen: &str, code: i32| {
        let mut command = deployment.command(&["status", "--format", "json"], &[("http.listen", listen)]);
        common::deployment::answer(&mut command).expect(code).json_lines().remove(0)
    };
    let troubles = |report: &Value| -> Vec<String> {
        let listed = report["needs_attention"].as_array().unwrap();
        listed.iter().map(|trouble| trouble.as_str().unwrap().to_owned()).collect()
    };
    let report = status("127.0.0.1:1", 1);
    let found = troubles(&report);
    assert!(
        found.iter().any(|trouble| trouble.starts_with("no instance runs the ledger stage")),
        "{found:?}"
    );
    assert!(found.iter().any(|trouble| trouble.starts_with("no instance runs the sink")), "{found:?}");
    assert!(report["status"]["instance"]["Err"].is_string(), "nobody listens there: {report}");

    let mut instance = deployment.start(&[]);
    let books = deployment.generate(&everything(1_000, 30));
    deployment.assert_proof_with_clickhouse(&books);
    let address = instance.address();
    wait_for("nothing to need attention", PATIENCE, || {
        let mut command = deployment.command(&["status"], &[("http.listen", &address)]);
        let answer = common::deployment::answer(&mut command);
        let says = |words: &str| answer.stdout.contains(words);
        let all = says("Nothing needs attention.")
            && says("1 member (Stable)")
            && says("newest entry posted")
            && says("0 records, 0 credits, checked");
        (answer.code == 0 && all).then_some(())
    });
    let report = status(&address, 0);
    assert_eq!(report["status"]["last_commits"].as_object().unwrap().len(), SHARDS as usize);
    assert!(report["status"]["quarantined"].as_u64().unwrap() > 0);
    instance.terminate();

    deployment.generate(&usage(9, 200, 30));
    let report = status(&address, 1);
    assert!(report["status"]["ledger"]["behind"].as_i64().unwrap() >= 200, "{report}");
    assert!(!report["status"]["ledger"]["lagging"].as_array().unwrap().is_empty());
}

/// Without what a second deployment over the same wallets would have to know: only usage, nothing bad.
fn plain(seed: u64, events: u64) -> GenerateOptions {
    GenerateOptions {
        bad_percent: 0.0,
        duplicates_percent: 0.0,
        id_conflicts_percent: 0.0,
        job_conflicts_percent: 0.0,
        ..usage(seed, events, 40)
    }
}

fn wait_until_equal(deployment: &Deployment) {
    wait_for("verify to find everything equal", PATIENCE, || {
        let answer = deployment.run(&["verify", "--format", "json"]);
        println!("{}", answer.stdout);
        let report = answer.json_lines().pop()?;
        (answer.code == 0 && report["notes"] == serde_json::json!([])).then_some(())
    });
}

fn wait_until_gone(deployment: &Deployment, topic: &str) {
    let consumer = kafka::reader(&deployment.config, "read_committed");
    wait_for("the topic to be gone", PATIENCE, || {
        let metadata = rdkafka::consumer::Consumer::fetch_metadata(&consumer, None, PATIENCE).ok()?;
        metadata.topics().iter().all(|known| known.name() != topic).then_some(())
    });
}

/// Load goes on; neither the watch nor `verify` may see any difference, now and at the end.
fn assert_no_drift_under_load(deployment: &Deployment, instance: &Instance) {
    let checked = || {
        instance.metric("creditstream_drift_checked_timestamp_seconds", &[("between", "ledger_clickhouse")])
    };
    let drift = || instance.metric("creditstream_drift_records", &[]);
    let load = deployment.generate_slowly(&plain(14, 6_000), 500);
    let mut checks = 0;
    while !load.is_finished() || checks < 5 {
        let last = checked();
        wait_for("another check of the drift", PATIENCE, || (checked() > last).then_some(()));
        assert_eq!(drift(), 0.0, "{}", instance.log());
        deployment.run(&["verify"]).expect(0);
        checks += 1;
    }
    load.join().unwrap();
}

fn stopped_sources(instance: &Instance) -> f64 {
    instance.metric("creditstream_shard_stopped", &[("reason", "source_changed")])
}

#[test]
fn a_topic_that_was_made_anew_is_taken_up_once_it_is_accepted() {
    let deployment = Deployment::with(&[("clock.idle_after_seconds", "1"), ("drift.interval_seconds", "1")]);
    let topic = deployment.config.topics.generation.clone();
    let mut instance = deployment.start(&[]);
    let books = deployment.generate(&everything(1_500, 40));
    deployment.assert_proof_with_clickhouse(&books);
    let charged =
        |instance: &Instance| instance.metric("creditstream_events_total", &[("outcome", "charged")]);
    let refused = deployment.run(&["accept", "topic", &topic]).expect(75).stderr;
    assert!(refused.contains("1 members: stop all instances"), "{refused}");
    instance.terminate();
    deployment.run(&["accept", "topic", "acme.other"]).expect(1);
    let nothing = deployment.run(&["accept", "topic", &topic]).expect(0).stdout;
    assert!(nothing.contains("nothing to do"), "{nothing}");

    // With fewer partitions, so that it is at home no more.
    kafka::delete_topics(&deployment.config, &[&topic]);
    wait_until_gone(&deployment, &topic);
    kafka::create_topic(&deployment.config, &topic, 2, &[]);
    let sent = expected_outcomes(&deployment.generate(&plain(11, 300)))["charged"] as f64;
    let mut instance = deployment.start(&[]);
    instance.wait_until_ready();
    // It says so, reads nothing of it, and the other topics go on.
    assert!(stopped_sources(&instance) >= 1.0);
    assert!(instance.log().contains(&format!("creditstream accept topic {topic}")), "{}", instance.log());
    let stood_still = Timestamp::now();
    for topup in ["t_1", "t_2"] {
        // Silence for longer than the wall clock needs to take over.
        std::thread::sleep(Duration::from_secs(3));
        deployment.run(&["topup", "ws_900001", "--topup-id", topup, "--amount-usd", "250"]).expect(0);
        wait_for("the top-up", PATIENCE, || {
            let granted = instance.metric("creditstream_events_total", &[("outcome", "granted")]);
            (granted >= f64::from(topup == "t_2") + 1.0).then_some(())
        });
    }
    // What the topic's records would use must not expire while it waits to be accepted.
    for record in kafka::read_all(&deployment.config, &deployment.config.topics.progress) {
        let clock = record.json()["clock"].as_str().and_then(Timestamp::parse);
        assert!(
            clock.is_none_or(|clock| clock <= stood_still),
            "{} {clock:?} {stood_still}",
            record.key_text()
        );
    }
    assert_eq!(charged(&instance), 0.0);
    instance.terminate();

    let done = deployment.run(&["accept", "topic", &topic]).expect(0).stdout;
    assert_eq!(done.matches("read from offset 0 on").count(), SHARDS as usize, "of all that it had: {done}");
    let nothing = deployment.run(&["accept", "topic", &topic]).expect(0).stdout;
    assert!(nothing.contains("nothing to do"), "{nothing}");
    let mut instance = deployment.start(&[]);
    wait_for("the new records to be charged", PATIENCE, || (charged(&instance) == sent).then_some(()));
    assert_eq!(stopped_sources(&instance), 0.0);
    wait_until_equal(&deployment);
    assert_no_drift_under_load(&deployment, &instance);
    instance.terminate();
}

#[test]
fn a_topic_that_is_made_anew_under_a_running_instance_is_not_skipped() {
    let deployment = Deployment::new();
    let topic = deployment.config.topics.generation.clone();
    let mut instance = deployment.start(&[]);
    let books = deployment.generate(&everything(1_500, 40));
    deployment.wait_until_processed(&books);
    kafka::delete_topics(&deployment.config, &[&topic]);
    wait_until_gone(&deployment, &topic);
    deployment.run(&["init"]).expect(0);
    let sent = expected_outcomes(&deployment.generate(&plain(12, 300)))["charged"] as f64;
    let skipped =
        |instance: &Instance| instance.metric("creditstream_events_total", &[("outcome", "skipped")]);
    // Either the client does not find it any more and waits, or it begins anew: then it is said, and nothing is skipped.
    std::thread::sleep(Duration::from_secs(10));
    assert_eq!(skipped(&instance), 0.0, "{}", instance.log());
    instance.terminate();
    deployment.run(&["accept", "topic", &topic]).expect(0);
    let mut instance = deployment.start(&[]);
    wait_for("the new records to be charged", PATIENCE, || {
        (instance.metric("creditstream_events_total", &[("outcome", "charged")]) == sent).then_some(())
    });
    wait_until_equal(&deployment);
    instance.terminate();
}

#[test]
fn another_number_of_partitions_is_accepted_once_intake_is_empty() {
    let deployment = Deployment::new();
    let topic = deployment.config.topics.generation.clone();
    let mut instance = deployment.start(&[]);
    let books = deployment.generate(&everything(1_500, 40));
    deployment.assert_proof_with_clickhouse(&books);
    instance.terminate();
    kafka::grow_topic(&deployment.config, &topic, SHARDS as usize + 2);
    let sent = expected_outcomes(&deployment.generate(&plain(13, 300)))["charged"] as f64;
    let mut instance = deployment.start(&[]);
    instance.wait_until_ready();
    assert!(stopped_sources(&instance) >= 1.0);
    assert!(
        instance.log().contains(&format!("creditstream accept partitions {topic}")),
        "{}",
        instance.log()
    );
    instance.terminate();
    let refused = deployment.run(&["accept", "topic", &topic]).expect(0).stdout;
    assert!(refused.contains("nothing to do"), "it is the same topic: {refused}");
    deployment.run(&["accept", "partitions", &topic]).expect(0);
    let mut instance = deployment.start(&[]);
    wait_for("the new records to be charged", PATIENCE, || {
        (instance.metric("creditstream_events_total", &[("outcome", "charged")]) == sent).then_some(())
    });
    assert!(
        instance.metric("creditstream_events_total", &[("outcome", "handed_over")]) >= sent,
        "no record is at home now"
    );
    wait_until_equal(&deployment);
    instance.terminate();
}

#[test]
fn what_waits_in_intake_must_come_first_where_the_route_changes() {
    let deployment = Deployment::new();
    let topics = &deployment.config.topics;
    let mut instance = deployment.start(&[]);
    let books = deployment.generate(&everything(300, 20));
    deployment.wait_until_processed(&books);
    instance.terminate();
    kafka::grow_topic(&deployment.config, &topics.generation, SHARDS as usize + 1);
    let waiting = Sent { partition: Some(1), key: None, value: Some(b"{}"), headers: vec![] };
    kafka::send(&deployment.config, &topics.intake, &waiting).unwrap();
    let accept = || deployment.run(&["accept", "partitions", &topics.generation]);
    let refused = accept().expect(75).stderr;
    assert!(refused.contains("1 records wait in"), "{refused}");
    // An instance reads intake, though it does not read the topic.
    let mut instance = deployment.start(&[]);
    let read =
        |instance: &Instance| instance.metric("creditstream_events_total", &[("topic", &topics.intake)]);
    wait_for("intake to be read", PATIENCE, || (read(&instance) >= 1.0).then_some(()));
    assert!(stopped_sources(&instance) >= 1.0);
    instance.terminate();
    accept().expect(0);
}

/// A month begins while nothing runs, and usage of it waits. Read again, it finds the month's credits there, though no
/// clock of the shard has moved since.
#[test]
fn usage_of_a_month_that_began_while_nothing_ran_is_paid_by_it() {
    let deployment = Deployment::new();
    let begins = Timestamp::now().plus_millis(15_000);
    let wallets: Vec<String> = (0..6).map(|number| format!("ws_{number}")).collect();
    let send = |topic: &str, kind: &str, name: &str, time: Timestamp, data: &str| {
        let events: Vec<(&String, String)> = wallets
            .iter()
            .map(|wallet| {
                let event = format!(
                    r#"{{"specversion":"1.0","id":"{name}","source":"/s","type":"{kind}","subject":"{wallet}","time":"{time}","data":{data}}}"#
                );
                (wallet, event)
            })
            .collect();
        let records: Vec<Sent<'_>> = events
            .iter()
            .map(|(wallet, event)| Sent {
                partition: Some(partition_for(wallet.as_bytes(), SHARDS)),
                key: Some(wallet.as_bytes()),
                value: Some(event.as_bytes()),
                headers: vec![],
            })
            .collect();
        kafka::send_all(&deployment.config, topic, &records).unwrap();
    };
    let topics = &deployment.config.topics;
    let images =
        |job: &str, images: u32| format!(r#"{{"job_id":"{job}","asset":"image","images":{images}}}"#);
    let charged = |instance: &Instance| instance.metric("creditstream_credits_total", &[("flow", "charged")]);

    // The credits of the months before are used up, and nothing may be overdrawn.
    let now = Timestamp::now();
    let (starts_at, months) = months_before(begins);
    let before = f64::from(6 * 200 * months);
    let contract = format!(r#"{{"contract_id":"c","plan":"lite","starts_at":"{starts_at}"}}"#);
    let mut instance = deployment.start(&["ledger"]);
    send(&topics.wallet, "contract.started", "contract", now, &contract);
    send(&topics.wallet, "wallet.limits_changed", "limits", now, r#"{"overdraft_limit":0}"#);
    wait_for("the months before", PATIENCE, || {
        (instance.metric("creditstream_credits_total", &[("flow", "granted")]) == before).then_some(())
    });
    send(&topics.generation, "generation.completed", "all", Timestamp::now(), &images("all", 200 * months));
    wait_for("all of it to be used", PATIENCE, || (charged(&instance) == before).then_some(()));
    instance.terminate();

    assert!(Timestamp::now() < begins, "the month has begun before the instance ended");
    std::thread::sleep(Duration::from_millis((begins.millis() - Timestamp::now().millis()) as u64 + 50));
    send(&topics.generation, "generation.completed", "more", begins, &images("more", 150));
    let mut instance = deployment.start(&["ledger"]);
    wait_for("usage of the month", PATIENCE, || (charged(&instance) == 900.0).then_some(()));
    assert_eq!(instance.metric("creditstream_credits_total", &[("flow", "refused")]), 0.0);
    instance.terminate();
}

#[test]
fn topics_of_ours_with_another_number_of_partitions_are_refused() {
    let deployment = Deployment::new();
    let topics = &deployment.config.topics;
    let run = || deployment.run(&["run", "--role", "ledger"]).expect(78).stderr;
    // One of them; then the ledger too, which is another number of shards.
    kafka::grow_topic(&deployment.config, &topics.wallets, SHARDS as usize + 1);
    let said = run();
    assert!(said.contains(&format!("topic {} has {} partitions", topics.wallets, SHARDS + 1)), "{said}");
    kafka::grow_topic(&deployment.config, &topics.ledger, SHARDS as usize + 1);
    assert!(run().contains("must have one per shard"), "{}", run());
}

#[test]
fn intake_that_was_made_anew_stops_the_instance() {
    let deployment = Deployment::new();
    let intake = deployment.config.topics.intake.clone();
    let mut instance = deployment.start(&["ledger"]);
    let books = deployment.generate(&everything(500, 20));
    deployment.assert_proof(&books);
    instance.terminate();
    kafka::delete_topics(&deployment.config, &[&intake]);
    wait_until_gone(&deployment, &intake);
    deployment.run(&["init"]).expect(0);
    let mut refused = deployment.start(&["ledger"]);
    let (code, _) = refused.wait_for_exit(PATIENCE);
    assert_eq!(code, 78, "{}", refused.log());
    assert!(
        refused.log().contains(&format!("topic {intake} was deleted and made anew")),
        "{}",
        refused.log()
    );
    deployment.assert_proof(&books);
}
