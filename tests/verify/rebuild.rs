//! What is repaired, or rebuilt from the topics, is row by row what was there.

use std::time::Duration;

use serde_json::{Value, json};

use crate::common::deployment::SHARDS;
use crate::common::kafka::{self, Sent};
use crate::common::{Deployment, usage, wait_for};
use crate::{at_rest, contents, differences, verify};

/// Writes a wallet's latest state again, as it is once a spent grant has been forgotten. Its row in ClickHouse stays.
/// The wallet, and the grant.
fn leave_out_a_spent_grant(deployment: &Deployment) -> (String, String) {
    let topic = &deployment.config.topics.wallets;
    let states = kafka::read_all(&deployment.config, topic);
    let is_spent = |grant: &Value| grant["credits_remaining"] == 0;
    let mut latest = std::collections::BTreeMap::new();
    for record in &states {
        latest.insert(record.key_text(), record);
    }
    let spent = |record: &kafka::Record| {
        record.json()["grants"].as_array().is_some_and(|grants| grants.iter().any(is_spent))
    };
    let record = latest.into_values().find(|record| spent(record)).unwrap();
    let mut state = record.json();
    let grants = state["grants"].as_array_mut().unwrap();
    let place = grants.iter().position(is_spent).unwrap();
    let grant = grants.remove(place)["grant_id"].as_str().unwrap().to_owned();
    let value = state.to_string();
    let sent = Sent {
        partition: Some(record.partition),
        key: record.key.as_deref(),
        value: Some(value.as_bytes()),
        headers: vec![],
    };
    kafka::send(&deployment.config, topic, &sent).unwrap();
    (record.key_text().to_owned(), grant)
}

/// The record, to be sent once more.
fn copy_of(record: &kafka::Record) -> Sent<'_> {
    Sent {
        partition: Some(record.partition),
        key: record.key.as_deref(),
        value: record.value.as_deref(),
        headers: vec![],
    }
}

/// Leaves only the last state of each wallet, as the broker does in the end.
fn compact_states(deployment: &Deployment) {
    let (config, topic) = (&deployment.config, &deployment.config.topics.wallets);
    let states = kafka::read_all(config, topic);
    let mut latest = std::collections::BTreeMap::new();
    for record in &states {
        latest.insert(&record.key, record);
    }
    let kept: Vec<Sent<'_>> = latest.values().map(|record| copy_of(record)).collect();
    kafka::send_all(config, topic, &kept).unwrap();
    kafka::set_topic(config, topic, &[("cleanup.policy", "compact,delete"), ("retention.ms", "-1")]);
    for partition in 0..SHARDS {
        let of_partition = states.iter().filter(|record| record.partition == partition);
        if let Some(last) = of_partition.map(|record| record.offset).max() {
            kafka::delete_records(config, topic, partition, last + 1);
        }
    }
}

#[test]
fn what_was_repaired_is_as_it_was_before_the_damage() {
    let deployment = at_rest();
    let (spender, spent) = leave_out_a_spent_grant(&deployment);
    compact_states(&deployment);
    verify(&deployment, &[], 0);
    let before = contents(&deployment);
    let clickhouse = deployment.clickhouse();
    let execute = |statement: &str| {
        clickhouse.try_execute(&statement.replace("DB", &deployment.name)).unwrap();
    };
    // Of the wallet whose spent grant only the ledger has: a balance, that grant, and one that nobody made.
    let of_spender = format!("FINAL WHERE wallet_id = '{spender}'");
    execute(&format!(
        "INSERT INTO DB.wallets SELECT * REPLACE (balance + 5 AS balance) FROM DB.wallets {of_spender}"
    ));
    execute(&format!(
        "INSERT INTO DB.grants SELECT * REPLACE ('topup:nobody' AS grant_id, seq + 1000 AS seq) FROM DB.grants {of_spender} LIMIT 1"
    ));
    execute(&format!("DELETE FROM DB.grants WHERE wallet_id = '{spender}' AND grant_id = '{spent}'"));
    // Rows that no state says: of a wallet that is ahead, and of one that does not exist.
    let ahead = clickhouse.rows(&format!(
        "SELECT wallet_id FROM wallets FINAL WHERE wallet_id != '{spender}' ORDER BY wallet_id LIMIT 1"
    ))[0][0]
        .clone();
    execute(&format!(
        "INSERT INTO DB.wallets SELECT * REPLACE (seq + 100 AS seq) FROM DB.wallets FINAL WHERE wallet_id = '{ahead}'"
    ));
    execute(&format!(
        "INSERT INTO DB.wallets SELECT * REPLACE ('ws_nobody' AS wallet_id) FROM (SELECT * FROM DB.wallets {of_spender})"
    ));

    let found = differences(&verify(&deployment, &[], 1), "ledger_clickhouse");
    for (wallet, words) in
        [(&spender, "wallets says"), (&ahead, "the topic has come to"), (&"ws_nobody".to_owned(), "no state")]
    {
        let says = |(_, of, _, what): &(String, String, u64, String)| of == wallet && what.contains(words);
        assert!(found.iter().any(says), "{wallet} {words}: {found:#?}");
    }
    verify(&deployment, &["--repair", "clickhouse"], 1);
    for (before, after) in before.iter().zip(&contents(&deployment)) {
        assert_eq!(before, after);
    }
    verify(&deployment, &[], 0);
}

#[test]
fn a_ledger_that_was_cut_empties_no_table() {
    let deployment = at_rest();
    let before = contents(&deployment);
    let topic = &deployment.config.topics.ledger;
    let ends = kafka::settled_ends(&deployment.config, topic);
    let (partition, end) = (0..).zip(ends).max_by_key(|(_, end)| *end).unwrap();
    kafka::delete_records(&deployment.config, topic, partition, end / 2);
    let report = verify(&deployment, &["--repair", "clickhouse"], 1);
    let found = differences(&report, "ledger_clickhouse");
    assert!(found.iter().any(|(_, _, _, what)| what.contains("the ledger does not")), "{found:#?}");
    let notes = report["notes"].to_string();
    let says = format!(
        "nothing was deleted in ClickHouse, only written: the ledger of shard {partition} does not begin"
    );
    assert!(notes.contains(&says), "{notes}");
    assert_eq!(contents(&deployment), before);
}

#[test]
fn clickhouse_is_rebuilt_from_the_topics_row_by_row() {
    let deployment = at_rest();
    leave_out_a_spent_grant(&deployment);
    let before = contents(&deployment);
    assert!(before.iter().all(|rows| !rows.is_empty()));
    // All is lost but the names.
    for table in ["ledger_entries", "usage_hourly", "wallets", "grants", "alerts", "quarantined_events"] {
        deployment.clickhouse().try_execute(&format!("TRUNCATE TABLE {}.{table}", deployment.name)).unwrap();
    }
    verify(&deployment, &[], 1);
    let settings = [("clickhouse.request_timeout_ms", "2000")];
    let rebuild = |deployment: &Deployment| {
        deployment.run_with(&["rebuild-clickhouse", "--format", "json"], &settings).expect(0)
    };
    let written = rebuild(&deployment).json_lines().remove(0);
    assert_eq!(written["rows_written"]["ledger_entries"], before[0].len());
    let after = contents(&deployment);
    for (before, after) in before.iter().zip(&after) {
        assert_eq!(before.len(), after.len());
        for (one, other) in before.iter().zip(after) {
            assert_eq!(one, other);
        }
    }
    verify(&deployment, &[], 0);
    let tables = deployment.clickhouse().rows("SHOW TABLES");
    assert!(tables.iter().all(|table| !table[0].ends_with("_rebuild")), "{tables:?}");

    // Beside the sink and load: nobody sees fewer entries than before, and nothing is missing at the end.
    let mut instance = deployment.start(&[]);
    let load = deployment.generate_slowly(&usage(5, 8_000, 120), 800);
    let entries = || deployment.clickhouse().number("SELECT count() FROM ledger_entries FINAL");
    std::thread::scope(|threads| {
        let rebuilding = threads.spawn(|| rebuild(&deployment));
        let mut last = entries();
        while !rebuilding.is_finished() {
            let now = entries();
            // The new table is behind the old one by what the sink wrote in the last moments.
            assert!(now >= last - 2_000 && now > 0, "{now} after {last}");
            last = now;
        }
        rebuilding.join().unwrap();
    });
    load.join().unwrap();
    instance.wait_until_ready();
    wait_for("all to be written and equal", Duration::from_secs(60), || {
        let answer = deployment.run(&["verify", "--format", "json"]);
        let report = &answer.json_lines()[0];
        (answer.code == 0 && report["notes"] == json!([])).then_some(())
    });
    instance.terminate();
}

#[test]
fn a_rebuild_that_fails_after_the_exchange_says_so_and_runs_again() {
    let deployment = at_rest();
    let before = contents(&deployment);
    let clickhouse = deployment.clickhouse();
    // It is needed only once the tables are exchanged.
    let execute = |statement: String| clickhouse.try_execute(&statement).unwrap();
    execute(format!("RENAME TABLE {0}.days_refreshed TO {0}.away", deployment.name));
    let settings = [("clickhouse.request_timeout_ms", "2000")];
    let failed = deployment.run_with(&["rebuild-clickhouse"], &settings).expect(75).stderr;
    assert!(failed.contains("exchanged, but it is not complete: run it again; clickhouse: "), "{failed}");
    assert!(!failed.contains("nothing was exchanged"), "{failed}");
    execute(format!("RENAME TABLE {0}.away TO {0}.days_refreshed", deployment.name));
    deployment.run_with(&["rebuild-clickhouse"], &settings).expect(0);
    assert_eq!(contents(&deployment), before);
    let tables = clickhouse.rows("SHOW TABLES");
    assert!(tables.iter().all(|table| !table[0].ends_with("_rebuild")), "{tables:?}");
}
