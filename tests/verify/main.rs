//! `verify` finds every difference that is made on purpose, names it, and finds none where there is none.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout)]

mod alerts;
#[path = "../common/mod.rs"]
mod common;
mod rebuild;

use std::time::{Duration, Instant};

use common::deployment::everything;
use common::kafka::{self, Sent};
use common::{Deployment, usage};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer};
use serde_json::{Value, json};

/// What `verify` says, with its exit code.
#[track_caller]
fn verify(deployment: &Deployment, arguments: &[&str], code: i32) -> Value {
    let command = [&["verify", "--format", "json"], arguments].concat();
    let answer = deployment.run(&command);
    assert_eq!(answer.code, code, "{}\n{}", answer.stdout, answer.stderr);
    answer.json_lines().remove(0)
}

/// The differences of one check: place, wallet, entry, sentence.
fn differences(report: &Value, between: &str) -> Vec<(String, String, u64, String)> {
    let checks = report["checks"].as_array().unwrap();
    let check = checks.iter().find(|check| check["between"] == between).unwrap();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let read = |one: &Value| {
        (text(&one["place"]), text(&one["wallet_id"]), one["seq"].as_u64().unwrap_or(0), text(&one["what"]))
    };
    check["differences"].as_array().unwrap().iter().map(read).collect()
}

fn compared(report: &Value, place: usize) -> u64 {
    report["checks"][place]["compared"].as_u64().unwrap()
}

/// A deployment that has worked and stands still, all of it in ClickHouse.
fn at_rest() -> Deployment {
    let deployment = Deployment::new();
    let mut instance = deployment.start(&[]);
    let books = deployment.generate(&everything(6_000, 120));
    deployment.assert_proof_with_clickhouse(&books);
    instance.terminate();
    let report = verify(&deployment, &[], 0);
    assert_eq!(report["equal"], true);
    assert_eq!(report["notes"], json!([]));
    let records = compared(&report, 0);
    let sent = kafka::read_all(&deployment.config, &deployment.config.topics.generation).len()
        + kafka::read_all(&deployment.config, &deployment.config.topics.wallet).len();
    assert_eq!(records, sent as u64, "every record of the sources is compared");
    let wallets = kafka::read_all(&deployment.config, &deployment.config.topics.wallets);
    let known: std::collections::BTreeSet<_> = wallets.iter().map(|record| record.key.clone()).collect();
    assert_eq!(compared(&report, 1), known.len() as u64, "every wallet is compared");
    let entries = deployment.clickhouse().number("SELECT count() FROM ledger_entries FINAL");
    assert_eq!(compared(&report, 2), entries as u64, "every entry is compared");
    deployment
}

/// A wallet with several entries, and the last of them.
fn a_wallet(deployment: &Deployment) -> (String, u64) {
    let rows = deployment.clickhouse().rows(
        "SELECT wallet_id, max(seq) FROM ledger_entries FINAL WHERE entry_type = 'charged' GROUP BY wallet_id HAVING count() > 5 \
         ORDER BY wallet_id LIMIT 1",
    );
    (rows[0][0].clone(), rows[0][1].parse().unwrap())
}

#[test]
fn what_differs_in_clickhouse_is_named_and_repaired() {
    let deployment = at_rest();
    let clickhouse = deployment.clickhouse();
    let (wallet, seq) = a_wallet(&deployment);
    let execute = |statement: &str| {
        let statement = statement.replace("DB", &deployment.name);
        clickhouse.try_execute(&statement).unwrap();
    };
    // A row is gone, one says other credits, one was never posted, a balance is another, a grant, a sum of an hour.
    execute(&format!("DELETE FROM DB.ledger_entries WHERE wallet_id = '{wallet}' AND seq = 2"));
    let altered = format!(
        "INSERT INTO DB.ledger_entries SELECT * REPLACE (credits - 7 AS credits) FROM DB.ledger_entries FINAL \
         WHERE wallet_id = '{wallet}' AND seq = {seq}"
    );
    execute(&altered);
    let invented = format!(
        "INSERT INTO DB.ledger_entries SELECT * REPLACE (9999 AS seq) FROM \
         (SELECT * FROM DB.ledger_entries FINAL WHERE wallet_id = '{wallet}' AND seq = 3)"
    );
    execute(&invented);
    execute(&format!(
        "INSERT INTO DB.wallets SELECT * REPLACE (balance + 5 AS balance) FROM DB.wallets FINAL WHERE wallet_id = '{wallet}'"
    ));
    execute(&format!(
        "INSERT INTO DB.usage_hourly SELECT * REPLACE (credits_charged + 1 AS credits_charged) FROM DB.usage_hourly FINAL \
         WHERE wallet_id = '{wallet}' LIMIT 1"
    ));

    let report = verify(&deployment, &[], 1);
    assert_eq!(report["equal"], false);
    assert_eq!(
        (differences(&report, "source_ledger"), differences(&report, "ledger_wallets")),
        (vec![], vec![])
    );
    let found = differences(&report, "ledger_clickhouse");
    assert!(found.iter().all(|(_, of, _, _)| *of == wallet), "{found:#?}");
    let says = |entry: u64, words: &str| {
        assert!(
            found.iter().any(|(_, _, seq, what)| *seq == entry && what.contains(words)),
            "{entry} {words}: {found:#?}"
        );
    };
    says(2, "clickhouse does not have it");
    says(seq, "clickhouse has it otherwise");
    says(9999, "clickhouse has it, the ledger does not");
    says(0, "usage_hourly says");
    assert!(
        found
            .iter()
            .any(|(place, _, _, what)| place.starts_with("shard ") && what.starts_with("wallets says"))
    );
    let page = deployment.run(&["verify"]).expect(1).stdout;
    assert!(page.contains("NOT equal") && page.contains(&format!("wallet {wallet}, entry 9999")), "{page}");

    let repaired = verify(&deployment, &["--repair", "clickhouse"], 1);
    assert!(repaired["repaired"].as_u64().unwrap() >= 5, "{repaired}");
    verify(&deployment, &[], 0);
    let left = clickhouse.number("SELECT count() FROM ledger_entries FINAL WHERE seq = 9999");
    assert_eq!(left, 0);
}

#[test]
fn what_differs_in_the_topics_is_named() {
    let deployment = at_rest();
    let topics = &deployment.config.topics;
    let (wallet, seq) = a_wallet(&deployment);
    let ledger = kafka::read_all(&deployment.config, &topics.ledger);
    let of_wallet = |record: &&kafka::Record| record.key_text() == wallet;
    let last = ledger.iter().rfind(of_wallet).unwrap();
    let again = |value: &[u8], topic: &str| {
        let sent = Sent {
            partition: Some(last.partition),
            key: Some(wallet.as_bytes()),
            value: Some(value),
            headers: vec![],
        };
        kafka::send(&deployment.config, topic, &sent).unwrap();
    };
    // The same record twice: readers pass it over, and it is said.
    again(last.value.as_deref().unwrap(), &topics.ledger);
    let report = verify(&deployment, &[], 1);
    let found = differences(&report, "source_ledger");
    assert!(found.iter().all(|(_, of, _, what)| *of == wallet && what.contains("twice")), "{found:#?}");
    assert_eq!(found.len(), last.json()["entries"].as_array().unwrap().len());
    assert!(differences(&report, "ledger_clickhouse").is_empty());

    // An entry whose predecessor is missing, and whose sums do not close; its event is in nobody's books.
    let mut gap = last.json();
    let entry = gap["entries"][0].as_object_mut().unwrap();
    entry.insert("seq".to_owned(), json!(seq + 2));
    gap["entries"] = json!([gap["entries"][0]]);
    again(gap.to_string().as_bytes(), &topics.ledger);
    let found = differences(&verify(&deployment, &[], 1), "source_ledger");
    assert!(
        found.iter().any(|(_, of, at, what)| *of == wallet && *at == seq + 2 && what.contains("are missing")),
        "{found:#?}"
    );
    assert!(found.iter().any(|(_, _, _, what)| what.contains("by the books")), "{found:#?}");

    // A state that its entries do not say.
    let states = kafka::read_all(&deployment.config, &topics.wallets);
    let other = states.iter().rfind(|record| record.key_text() != wallet).unwrap();
    let mut state = other.json();
    state["balance"] = json!(state["balance"].as_i64().unwrap() + 3);
    let value = state.to_string();
    let sent = Sent {
        partition: Some(other.partition),
        key: other.key.as_deref(),
        value: Some(value.as_bytes()),
        headers: vec![],
    };
    kafka::send(&deployment.config, &topics.wallets, &sent).unwrap();
    let found = differences(&verify(&deployment, &[], 1), "ledger_wallets");
    let said = |(_, of, _, what): &(String, String, u64, String)| {
        of == other.key_text() && what.contains("its latest state says")
    };
    assert!(found.iter().any(said), "{found:#?}");

    // A record in the quarantine that no book knows.
    let headers = vec![
        ("cs_topic", Some(topics.generation.as_bytes())),
        ("cs_partition", Some(&b"0"[..])),
        ("cs_offset", Some(&b"1"[..])),
    ];
    let sent = Sent { partition: Some(0), key: None, value: Some(b"{}"), headers };
    kafka::send(&deployment.config, &topics.quarantine, &sent).unwrap();
    let found = differences(&verify(&deployment, &[], 1), "source_ledger");
    assert!(
        found.iter().any(|(_, _, _, what)| what.contains("were quarantined; the quarantine holds")),
        "{found:#?}"
    );
}

#[test]
fn what_an_open_transaction_writes_to_the_quarantine_is_not_counted_before_it_is_settled() {
    let deployment = at_rest();
    let topics = &deployment.config.topics;
    let producer = kafka::transactional_producer(&deployment.config, &format!("{}-open", deployment.name));
    let headers = [("cs_topic", topics.generation.as_str()), ("cs_partition", "0"), ("cs_offset", "1")];
    let headers = headers
        .iter()
        .fold(OwnedHeaders::new(), |all, (key, value)| all.insert(Header { key, value: Some(*value) }));
    let record: BaseRecord<'_, str, str> =
        BaseRecord::to(&topics.quarantine).partition(0).payload("{}").headers(headers);
    producer.begin_transaction().unwrap();
    producer.send(record).map_err(|(error, _)| error).unwrap();
    producer.flush(Duration::from_secs(20)).unwrap();
    std::thread::scope(|threads| {
        let verifying = threads.spawn(|| deployment.run(&["verify", "--format", "json"]));
        // It has read the books long since, and waits for the end of the quarantine.
        std::thread::sleep(Duration::from_secs(15));
        assert!(!verifying.is_finished());
        producer.commit_transaction(Duration::from_secs(20)).unwrap();
        let answer = verifying.join().unwrap().expect(0);
        assert_eq!(answer.json_lines()[0]["equal"], true);
    });
    verify(&deployment, &[], 1);
}

#[test]
fn beside_a_running_service_there_is_no_difference() {
    let deployment = Deployment::new();
    let mut instance = deployment.start(&[]);
    let books = deployment.generate(&everything(500, 50));
    deployment.wait_until_processed(&books);
    let load = deployment.generate_slowly(&usage(7, 12_000, 50), 1_500);
    let begun = Instant::now();
    let mut runs = 0;
    while !load.is_finished() || runs < 2 {
        let report = verify(&deployment, &[], 0);
        assert!(compared(&report, 0) > 0);
        runs += 1;
        assert!(begun.elapsed() < Duration::from_secs(120));
    }
    load.join().unwrap();
    assert!(runs >= 2, "{runs}");
    instance.terminate();
}

#[test]
fn a_range_looks_at_what_was_posted_in_it_only() {
    let deployment = at_rest();
    let clickhouse = deployment.clickhouse();
    let (wallet, seq) = a_wallet(&deployment);
    let delete = format!(
        "DELETE FROM {}.ledger_entries WHERE wallet_id = '{wallet}' AND seq = {seq}",
        deployment.name
    );
    clickhouse.try_execute(&delete).unwrap();
    verify(&deployment, &["--to", "2026-01-01T00:00:00Z"], 0);
    let report = verify(&deployment, &["--from", "2026-01-01T00:00:00Z"], 1);
    assert_eq!(differences(&report, "ledger_clickhouse")[0].2, seq);
    let refused = deployment.run(&["verify", "--from", "yesterday"]).expect(2).stderr;
    assert!(refused.contains("\"yesterday\" is no time"), "{refused}");
}

#[test]
fn a_range_that_ends_inside_an_hour_mends_what_lies_in_it_only() {
    let deployment = at_rest();
    let clickhouse = deployment.clickhouse();
    // All of it was posted within some seconds. The range has its ends among these entries.
    let times = clickhouse.rows("SELECT DISTINCT posted_at FROM ledger_entries FINAL ORDER BY posted_at");
    let (from, to) = (times[times.len() / 3][0].clone(), times[times.len() * 2 / 3][0].clone());
    let rfc3339 = |at: &str| format!("{}Z", at.replace(' ', "T"));
    assert!(from < to, "{from} {to}");
    let range = ["--from", &rfc3339(&from), "--to", &rfc3339(&to)];
    verify(&deployment, &range, 0);
    let before = contents(&deployment);

    // One in the middle of the range is lost.
    let lost = clickhouse.rows(&format!(
        "SELECT wallet_id, seq FROM ledger_entries FINAL WHERE posted_at >= '{from}' AND posted_at < '{to}' LIMIT 1"
    ));
    let delete = format!(
        "DELETE FROM {}.ledger_entries WHERE wallet_id = '{}' AND seq = {}",
        deployment.name, lost[0][0], lost[0][1]
    );
    clickhouse.try_execute(&delete).unwrap();
    let repaired = verify(&deployment, &[&range[..], &["--repair", "clickhouse"]].concat(), 1);
    assert_eq!(differences(&repaired, "ledger_clickhouse").len(), 1, "{repaired}");
    assert_eq!(contents(&deployment), before);
    verify(&deployment, &[], 0);
}

#[test]
fn what_came_after_a_range_is_no_difference() {
    let deployment = at_rest();
    let between = creditstream::time::Timestamp::now().to_string();
    let mut instance = deployment.start(&[]);
    deployment.generate(&usage(3, 2_000, 120));
    common::wait_for("the second load to be posted and written", Duration::from_secs(60), || {
        let report = &deployment.run(&["verify", "--format", "json"]).json_lines()[0];
        (report["equal"] == true && report["notes"] == json!([])).then_some(())
    });
    instance.terminate();
    // Nearly every wallet has a state that is newer than the range.
    verify(&deployment, &["--to", &between], 0);
    verify(&deployment, &["--from", &between], 0);
}

#[test]
fn drift_is_seen_beside_the_running_service() {
    let deployment = Deployment::with(&[("drift.interval_seconds", "1")]);
    let mut instance = deployment.start(&[]);
    let books = deployment.generate(&everything(3_000, 60));
    deployment.assert_proof_with_clickhouse(&books);
    let drift = |instance: &mut common::Instance, between: &str| {
        instance.metric("creditstream_drift_records", &[("between", between)]) as u64
    };
    let checked = |instance: &mut common::Instance| {
        instance.metric("creditstream_drift_checked_timestamp_seconds", &[("between", "ledger_clickhouse")])
    };
    // Looked at while it works, and twice more at rest: no drift.
    let patience = Duration::from_secs(60);
    let wait_for_checks = |instance: &mut common::Instance| {
        for _ in 0..2 {
            let last = checked(instance);
            common::wait_for("another check of the drift", patience, || {
                (checked(instance) > last).then_some(())
            });
        }
    };
    wait_for_checks(&mut instance);
    deployment.generate(&usage(3, 2_000, 60));
    wait_for_checks(&mut instance);
    for between in ["source_ledger", "ledger_wallets", "ledger_clickhouse"] {
        assert_eq!(drift(&mut instance, between), 0, "{between}\n{}", instance.log());
    }

    let (wallet, seq) = a_wallet(&deployment);
    let delete = format!(
        "DELETE FROM {}.ledger_entries WHERE wallet_id = '{wallet}' AND seq = {seq}",
        deployment.name
    );
    deployment.clickhouse().try_execute(&delete).unwrap();
    common::wait_for("the missing row to be seen", patience, || {
        (drift(&mut instance, "ledger_clickhouse") > 0).then_some(())
    });

    let topics = &deployment.config.topics;
    let ledger = kafka::read_all(&deployment.config, &topics.ledger);
    let last = ledger.iter().rfind(|record| record.json()["entries"][0]["entry_type"] == "charged").unwrap();
    let twice = Sent {
        partition: Some(last.partition),
        key: last.key.as_deref(),
        value: last.value.as_deref(),
        headers: vec![],
    };
    kafka::send(&deployment.config, &topics.ledger, &twice).unwrap();
    common::wait_for("the double to be seen", patience, || {
        (drift(&mut instance, "source_ledger") > 0).then_some(())
    });

    // The double does not forbid to write what is missing.
    let repaired = verify(&deployment, &["--repair", "clickhouse"], 1);
    assert!(repaired["notes"].to_string().contains("differ among themselves"), "{repaired}");
    common::wait_for("the repair to be seen", patience, || {
        (drift(&mut instance, "ledger_clickhouse") == 0).then_some(())
    });
    instance.terminate();
}

/// All that the tables say, in order; `seq` of a grant is that of the state that it was last part of.
fn contents(deployment: &Deployment) -> Vec<Vec<Vec<String>>> {
    let queries = [
        "SELECT * FROM ledger_entries FINAL ORDER BY wallet_id, seq",
        "SELECT * FROM usage_hourly FINAL ORDER BY wallet_id, hour, asset_type, model, plan, part",
        "SELECT * FROM wallets FINAL ORDER BY wallet_id",
        "SELECT * EXCEPT (seq) FROM grants FINAL ORDER BY wallet_id, grant_id",
        "SELECT * FROM alerts FINAL ORDER BY wallet_id, alert_id",
        "SELECT * FROM quarantined_events FINAL ORDER BY origin_topic, origin_topic_id, origin_partition, origin_offset",
    ];
    queries.map(|query| deployment.clickhouse().rows(query)).to_vec()
}
