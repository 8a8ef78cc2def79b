//! Commands of an operator: one screen that says whether anything needs a person, and the ways out of a stop.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout)]

mod common;

use std::time::Duration;

use common::deployment::{SHARDS, everything};
use common::proof::expected_outcomes;
use common::{Deployment, Instance, kafka, usage, wait_for};
use creditstream::generate::GenerateOptions;
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

fn stopped_sources(instance: &Instance) -> f64 {
    instance.metric("creditstream_shard_stopped", &[("reason", "source_changed")])
}

#[test]
fn a_topic_that_was_made_anew_is_taken_up_once_it_is_accepted() {
    let deployment = Deployment::new();
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

    kafka::delete_topics(&deployment.config, &[&topic]);
    wait_for("the topic to be gone and made anew", PATIENCE, || {
        let done = deployment.run(&["init"]);
        (done.code == 0 && done.stdout.contains(&topic)).then_some(())
    });
    let sent = expected_outcomes(&deployment.generate(&plain(11, 300)))["charged"] as f64;
    let mut instance = deployment.start(&[]);
    instance.wait_until_ready();
    // It says so, reads nothing of it, and the other topics go on.
    assert!(stopped_sources(&instance) >= 1.0);
    assert!(instance.log().contains(&format!("creditstream accept topic {topic}")), "{}", instance.log());
    deployment.run(&["topup", "ws_900001", "--topup-id", "t_1", "--amount-usd", "250"]).expect(0);
    wait_for("the top-up", PATIENCE, || {
        (instance.metric("creditstream_events_total", &[("outcome", "granted")]) >= 1.0).then_some(())
    });
    assert_eq!(charged(&instance), 0.0);
    instance.terminate();

    let done = deployment.run(&["accept", "topic", &topic]).expect(0).stdout;
    assert_eq!(done.matches("is read from its beginning").count(), SHARDS as usize, "{done}");
    let mut instance = deployment.start(&[]);
    wait_for("the new records to be charged", PATIENCE, || (charged(&instance) == sent).then_some(()));
    assert_eq!(stopped_sources(&instance), 0.0);
    wait_until_equal(&deployment);
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
    wait_for("the topic to be gone and made anew", PATIENCE, || {
        let done = deployment.run(&["init"]);
        (done.code == 0 && done.stdout.contains(&topic)).then_some(())
    });
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
