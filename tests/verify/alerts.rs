//! Alerts that were lost, doubled, altered or invented, in their topic or in ClickHouse.

use serde_json::{Value, json};

use crate::common::Deployment;
use crate::common::kafka::{self, Sent};
use crate::{at_rest, compared, contents, differences, verify};

/// The last alert.
fn an_alert(deployment: &Deployment) -> kafka::Record {
    kafka::read_all(&deployment.config, &deployment.config.topics.alerts).pop().unwrap()
}

/// Writes where the wallet's records stand.
fn write(deployment: &Deployment, topic: &str, like: &kafka::Record, value: &Value) {
    let value = value.to_string();
    let sent = Sent {
        partition: Some(like.partition),
        key: like.key.as_deref(),
        value: Some(value.as_bytes()),
        headers: vec![],
    };
    kafka::send(&deployment.config, topic, &sent).unwrap();
}

#[track_caller]
fn says(found: &[(String, String, u64, String)], wallet: &str, seq: u64, words: &str) {
    let is_it =
        |(_, of, at, what): &(String, String, u64, String)| of == wallet && *at == seq && what == words;
    assert!(found.iter().any(is_it), "{wallet} {seq} {words}: {found:#?}");
}

#[test]
fn alerts_that_differ_in_clickhouse_are_named_and_repaired() {
    let deployment = at_rest();
    let clickhouse = deployment.clickhouse();
    let before = contents(&deployment);
    let alerts = kafka::read_all(&deployment.config, &deployment.config.topics.alerts);
    assert_eq!(compared(&verify(&deployment, &[], 0), 3), alerts.len() as u64, "every alert is compared");
    let [lost, altered, ..] = alerts.as_slice() else { panic!("too few alerts: {alerts:?}") };
    let (lost, altered) = (lost.json(), altered.json());
    let text = |alert: &Value, member: &str| alert[member].as_str().unwrap().to_owned();
    let execute = |statement: &str| {
        clickhouse.try_execute(&statement.replace("DB", &deployment.name)).unwrap();
    };
    execute(&format!("DELETE FROM DB.alerts WHERE alert_id = '{}'", text(&lost, "alert_id")));
    let of_altered = format!("FROM DB.alerts FINAL WHERE alert_id = '{}'", text(&altered, "alert_id"));
    execute(&format!("INSERT INTO DB.alerts SELECT * REPLACE (allocation + 1 AS allocation) {of_altered}"));
    let wallet = text(&altered, "wallet_id");
    let invented = format!("{wallet}:low:9999");
    execute(&format!(
        "INSERT INTO DB.alerts SELECT * REPLACE ('{invented}' AS alert_id, 9999 AS seq) FROM (SELECT * {of_altered})"
    ));

    let report = verify(&deployment, &[], 1);
    let found = differences(&report, "ledger_clickhouse");
    assert_eq!((found.len(), differences(&report, "ledger_alerts").len()), (3, 0), "{found:#?}");
    let seq = |alert: &Value| alert["seq"].as_u64().unwrap();
    let of = |alert: &Value, words: &str| format!("alert {}: {words}", text(alert, "alert_id"));
    says(&found, &text(&lost, "wallet_id"), seq(&lost), &of(&lost, "clickhouse does not have it"));
    says(&found, &wallet, seq(&altered), &of(&altered, "clickhouse has it otherwise"));
    says(&found, &wallet, 9_999, &format!("alert {invented}: clickhouse has it, the topic does not"));
    // A range looks at entries and states only.
    verify(&deployment, &["--from", "2026-01-01T00:00:00Z"], 0);

    verify(&deployment, &["--repair", "clickhouse"], 1);
    verify(&deployment, &[], 0);
    assert_eq!(contents(&deployment), before);
}

#[test]
fn alerts_that_are_missing_doubled_or_invented_in_their_topic_are_named() {
    let deployment = at_rest();
    let topics = &deployment.config.topics;
    let record = an_alert(&deployment);
    let (wallet, alert) = (record.key_text().to_owned(), record.json());
    let seq = alert["seq"].as_u64().unwrap();
    // The same once more, and one of which no entry tells.
    write(&deployment, &topics.alerts, &record, &alert);
    let again = kafka::read_all(&deployment.config, &topics.alerts);
    let again =
        again.iter().filter(|other| other.partition == record.partition).map(|other| other.offset).max();
    let mut invented = alert.clone();
    let kind = if alert["kind"] == "runway" { "hold_timed_out" } else { "runway" };
    let id = format!("{wallet}:{kind}:{seq}");
    (invented["alert_id"], invented["kind"]) = (json!(id), json!(kind));
    write(&deployment, &topics.alerts, &record, &invented);
    // Another entry: it warns, and the level is another one, but nobody raised the two alerts.
    let ledger = kafka::read_all(&deployment.config, &topics.ledger);
    let last = ledger.iter().rfind(|other| other.key == record.key).unwrap();
    let last_entry = last.json()["entries"].as_array().unwrap().last().unwrap().clone();
    let next = last_entry["seq"].as_u64().unwrap() + 1;
    let level = if last_entry["level"] == "low" { "critical" } else { "low" };
    let after = |sum: &str| last_entry[sum].as_i64().unwrap_or(0);
    let entry = json!({
        "seq": next, "entry_type": "noted", "reason": "overdraft_unpaid", "amount": 7, "level": level,
        "posted_at": last_entry["posted_at"], "event_time": last_entry["event_time"],
        "balance_after": after("balance_after"), "held_after": after("held_after"), "overdraft_after": after("overdraft_after")
    });
    write(&deployment, &topics.ledger, last, &json!({"v": 1, "wallet_id": wallet, "entries": [entry]}));

    let report = verify(&deployment, &[], 1);
    let found = differences(&report, "ledger_alerts");
    assert_eq!(found.len(), 4, "{found:#?}");
    let twice = format!("it stands in the topic twice, the second time at offset {}", again.unwrap());
    says(&found, &wallet, seq, &format!("alert {}: {twice}", alert["alert_id"].as_str().unwrap()));
    says(&found, &wallet, seq, &format!("alert {id}: the topic has it, but no entry tells of it"));
    for name in [level, "overdraft_unpaid"] {
        says(&found, &wallet, next, &format!("alert {wallet}:{name}:{next}: the topic does not have it"));
    }
    // The sink has not come to them, and would write the double over itself.
    assert_eq!(differences(&report, "ledger_clickhouse"), vec![]);
    let page = deployment.run(&["verify"]).expect(1).stdout;
    assert!(page.contains("ledger and alerts:") && page.contains(&id), "{page}");
    // Topics that contradict each other empty nothing.
    let repaired = verify(&deployment, &["--repair", "clickhouse"], 1);
    assert!(repaired["notes"].to_string().contains("nothing was deleted"), "{repaired}");
}
