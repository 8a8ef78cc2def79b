//! Commands that answer questions: what a wallet has, why an entry is as it is, what credits buy, what events cost.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout)]

mod common;

use std::fs;
use std::time::Duration;

use common::deployment::{Answer, answer, binary};
use common::kafka::{self, Sent};
use common::{Deployment, wait_for};
use creditstream::generate::Books;
use creditstream::time::Timestamp;
use serde_json::{Value, json};

/// How long the sink may take to show what was posted.
const SINK_PATIENCE: Duration = Duration::from_secs(30);

fn run(arguments: &[&str]) -> Answer {
    answer(binary().args(arguments))
}

/// Sends an event of usage, as it happened so many seconds ago.
fn send(deployment: &Deployment, id: &str, kind: &str, seconds_ago: i64, data: &Value) {
    let time = Timestamp::now().plus_millis(-seconds_ago * 1_000).to_string();
    let event = json!({
        "specversion": "1.0", "id": id, "source": "/e2e", "type": format!("generation.{kind}"), "subject": "ws_1",
        "time": time, "data": data
    });
    let value = event.to_string();
    let sent = Sent { partition: None, key: Some(b"ws_1"), value: Some(value.as_bytes()), headers: vec![] };
    kafka::send(&deployment.config, &deployment.config.topics.generation, &sent).unwrap();
}

/// Waits until ClickHouse has so many entries of the wallet, and the wallets topic has them all.
#[track_caller]
fn wait_until_shown(deployment: &Deployment, entries: i64) -> Value {
    wait_for("the wallet as it stands", SINK_PATIENCE, || {
        let answer = deployment.run(&["wallet", "ws_1", "--format", "json"]);
        let wallet: Value = serde_json::from_str(&answer.stdout).ok()?;
        (wallet["seq"] == entries && wallet["entries"][0]["seq"] == entries).then_some(wallet)
    })
}

#[test]
fn a_wallet_is_shown_and_its_entries_are_explained() {
    let deployment = Deployment::new();
    deployment.run(&["wallet", "ws_1"]).expect(1);
    let mut instance = deployment.start(&[]);
    let starts_at = Timestamp::now().plus_millis(-3_600_000).to_string();
    deployment
        .run(&[
            "contract",
            "start",
            "ws_1",
            "--contract-id",
            "c_1",
            "--plan",
            "lite",
            "--starts-at",
            &starts_at,
        ])
        .expect(0);
    deployment.run(&["topup", "ws_1", "--topup-id", "t_1", "--amount-usd", "250"]).expect(0);
    // Contract, month, top-up: then the usage, whose order is its own topic's.
    wait_until_shown(&deployment, 3);
    let video = json!({"job_id": "j_1", "asset": "video", "seconds": 8.334, "model": "veo-3"});
    send(&deployment, "1", "requested", 50, &video);
    send(&deployment, "2", "completed", 40, &video);
    send(&deployment, "3", "completed", 30, &json!({"job_id": "j_2", "asset": "image", "images": 300}));
    send(&deployment, "4", "requested", 20, &json!({"job_id": "j_3", "asset": "image", "images": 4}));
    // Held, released, charged; charged; held.
    let wallet = wait_until_shown(&deployment, 8);
    assert_eq!(
        (&wallet["balance"], &wallet["held"], &wallet["available"]),
        (&json!(1_262), &json!(4), &json!(1_258))
    );
    assert_eq!((&wallet["plan"], &wallet["next_allocation_credits"]), (&json!("lite"), &json!(200)));
    assert_eq!(wallet["thresholds"]["base"], 200);
    assert_eq!((&wallet["holds"][0]["job_id"], &wallet["holds"][0]["credits"]), (&json!("j_3"), &json!(4)));
    assert_eq!((wallet["holds"].as_array().unwrap().len(), &wallet["clickhouse"]), (1, &Value::Null));

    let page = deployment.run(&["wallet", "ws_1", "--entries", "2"]).expect(0).stdout;
    for expected in [
        "1,258 credits: balance 1,262 less 4 held",
        "lite, 200 credits a month, by contract c_1",
        "low at 40 or less (20 % of 200)",
        "top-up t_1  1,262  1,388  never",
        "j_3",
        "4 credits reserved for 4 images, job j_3",
        "300 credits charged for 300 images, job j_2",
    ] {
        assert!(page.contains(expected), "{expected:?} is not in\n{page}");
    }
    assert!(!page.contains("veo-3"), "two entries, not more:\n{page}");

    let explained = deployment.run(&["explain", "ws_1", "6"]).expect(0).stdout;
    for expected in [
        "26 credits charged for 8.334 seconds of video by veo-3, job j_1",
        "8.334 seconds × 3 = 25.002, rounded up to 26 credits, by rate card 2024-01",
        "26 credits out of month 1 of contract c_1, 174 left",
        "1,588 before, 1,562 after",
        &format!("topic {}, partition ", deployment.config.topics.generation),
        &format!("topic {}, partition ", deployment.config.topics.ledger),
    ] {
        assert!(explained.contains(expected), "{expected:?} is not in\n{explained}");
    }
    for seq in 1..=8 {
        let document = &deployment
            .run(&["explain", "ws_1", &seq.to_string(), "--format", "json"])
            .expect(0)
            .json_lines()[0];
        let entry = &document["entry"];
        let credits = entry["credits"].as_i64().unwrap_or(0);
        let after = entry["balance_after"].as_i64().unwrap_or(0);
        assert_eq!(entry["seq"], seq);
        assert_eq!(document["balance_before"], after - credits);
        assert_eq!(entry["fingerprint"].as_str().unwrap().len(), 16);
    }
    assert!(deployment.run(&["explain", "ws_1", "9"]).expect(1).stderr.contains("the last one there is 8"));
    deployment.run(&["explain", "nobody", "1"]).expect(1);
    deployment.run(&["wallet", "nobody"]).expect(1);
    // What names no wallet and no entry is not looked for.
    let nowhere = [("kafka.brokers", "127.0.0.1:9"), ("clickhouse.url", "http://127.0.0.1:9")];
    for arguments in [&["wallet", "wé"][..], &["explain", "wé", "1"], &["explain", "ws_1", "0"]] {
        let answer = deployment.run_with(arguments, &nowhere).expect(2);
        assert!(answer.stderr.contains(if arguments[1] == "ws_1" { "1, 2, 3" } else { "printable ASCII" }));
    }

    // ClickHouse away: what Kafka has is shown all the same.
    let away = [("clickhouse.url", "http://127.0.0.1:9")];
    let page = deployment.run_with(&["wallet", "ws_1"], &away).expect(0).stdout;
    assert!(page.contains("ClickHouse does not answer") && page.contains("1,262"), "{page}");
    deployment.run_with(&["explain", "ws_1", "6"], &away).expect(69);
    // Kafka away: the entry is told from ClickHouse, whose columns have nothing of a contract's terms.
    let away = [("kafka.brokers", "127.0.0.1:9")];
    deployment.run_with(&["wallet", "ws_1"], &away).expect(69);
    instance.terminate();
}

#[test]
fn a_repeated_request_counts_once_and_another_value_under_its_id_is_a_conflict() {
    let deployment = Deployment::new();
    let time = Timestamp::now().plus_millis(-60_000).to_string();
    let send = |arguments: &[&str]| {
        let mut arguments = arguments.to_vec();
        arguments.extend(["--time", &time, "--format", "json"]);
        deployment.run(&arguments).expect(0).json_lines()[0]["event_id"].clone()
    };
    send(&["contract", "start", "ws_1", "--contract-id", "c_1", "--plan", "lite"]);
    let commands: [&[&str]; 4] = [
        &["contract", "change", "ws_1", "--contract-id", "c_1", "--plan", "performance"],
        &["contract", "renew", "ws_1", "--contract-id", "c_1"],
        &["contract", "cancel", "ws_1", "--contract-id", "c_1"],
        &["limits", "ws_1", "--overdraft", "500", "--low-percent", "30", "--critical-percent", "plan"],
    ];
    let other: [&[&str]; 4] =
        [&["--reference", "x"], &["--term-months", "6"], &["--effective-at", &time], &["--reference", "y"]];
    for (command, other) in commands.iter().zip(other) {
        let named: Vec<&str> = command.iter().copied().chain(["--request-id", "r_1"]).collect();
        let first = send(&named);
        assert_eq!(first, send(&named), "the id follows from wallet, command and request");
        let conflict: Vec<&str> = named.iter().chain(other).copied().collect();
        assert_eq!(first, send(&conflict), "and from nothing else");
    }
    let mut instance = deployment.start(&["ledger"]);
    let mut progress = deployment.wait_until_processed(&Books { records: 13, ..Books::default() });
    progress.read(Duration::from_millis(200));
    let outcomes = progress.outcomes();
    let expected = [("contract", 4), ("duplicate", 4), ("limits", 1), ("quarantined", 4)];
    assert_eq!(outcomes, expected.map(|(outcome, count)| (outcome.to_owned(), count)).into());
    let listed = deployment.run(&["quarantine", "list", "--reason", "id_conflict", "--format", "json"]);
    assert_eq!(listed.expect(0).json_lines().len(), 4);
    instance.terminate();

    let wallet = &deployment.run(&["wallet", "ws_1", "--format", "json"]).expect(0).json_lines()[0];
    assert_eq!(wallet["limits"], json!({"overdraft_limit": 500, "low_percent": 30}));
    assert_eq!(wallet["contracts"][0]["is_cancelled"], true);
    let page = deployment.run(&["wallet", "ws_1"]).expect(0).stdout;
    assert!(page.contains("its own: overdraft up to 500 credits, low at 30 %"), "{page}");
    assert!(page.contains("charges are refused beyond 500"), "{page}");
}

/// What ClickHouse has no columns for is read from the ledger: which plan was asked for, and when a contract ends.
#[test]
fn the_last_entries_name_plans_ends_and_limits() {
    let deployment = Deployment::new();
    let mut instance = deployment.start(&[]);
    let begun = Timestamp::now().plus_millis(-3_600_000);
    let at = |months: u32| begun.plus_months(months).unwrap().to_string();
    let contract = |command: &str, more: &[&str]| {
        let mut arguments = vec!["contract", command, "ws_1", "--contract-id", "c_1"];
        arguments.extend(more);
        deployment.run(&arguments).expect(0)
    };
    contract("start", &["--plan", "lite", "--starts-at", &at(0)]);
    wait_until_shown(&deployment, 2);
    contract("change", &["--plan", "scale", "--effective-at", &at(2), "--request-id", "r_1"]);
    contract("renew", &["--term-months", "6", "--request-id", "r_1"]);
    wait_until_shown(&deployment, 4);
    deployment.run(&["limits", "ws_1", "--overdraft", "7", "--request-id", "r_1"]).expect(0);
    contract("cancel", &["--effective-at", &at(3), "--request-id", "r_1"]);
    wait_until_shown(&deployment, 6);
    send(&deployment, "1", "completed", 30, &json!({"job_id": "j_1", "asset": "image", "images": 208}));
    let wallet = wait_until_shown(&deployment, 7);
    assert_eq!(wallet["entries"][0]["overdraft_limit"], 7);
    let page = deployment.run(&["wallet", "ws_1"]).expect(0).stdout;
    for expected in [
        &format!("contract c_1 changed to plan scale from {} on; now plan lite; it runs from", at(2)),
        &format!("contract c_1 was renewed, plan scale from {} to {}", at(12), at(18)),
        &format!("contract c_1 was cancelled, plan lite; it ends at {}", at(3)),
        "the wallet's limits are now: overdraft up to 7 credits",
        "208 credits not charged for 208 images, job j_1: that would have gone past the overdraft limit of 7",
    ] {
        assert!(page.contains(expected), "{expected:?} is not in\n{page}");
    }
    let refused = deployment.run(&["explain", "ws_1", "7"]).expect(0).stdout;
    assert!(refused.contains("0, as before; charges are refused beyond 7"), "{refused}");
    instance.terminate();
}

#[test]
fn what_would_be_refused_is_said_before_anything_is_sent() {
    for (arguments, why) in [
        (&["limits", "w", "--request-id", "r"][..], "missing_field"),
        (&["limits", "w", "--overdraft", "much", "--request-id", "r"], "\"none\" or \"plan\""),
        (&["limits", "w", "--overdraft", "-1", "--request-id", "r"], "bad_value"),
        (&["limits", "w", "--low-percent", "101", "--request-id", "r"], "from 0 to 100"),
        (&["limits", "w", "--low-percent", "10", "--request-id", ""], "--request-id"),
        (&["limits", "w", "--low-percent", "10"], "--request-id"),
        (
            &["limits", "w", "--low-percent", "10", "--critical-percent", "11", "--request-id", "r"],
            "data.low_percent is 10, below data.critical_percent (11)",
        ),
        (
            &["limits", "w", "--low-percent", "10", "--reference", " ", "--request-id", "r"],
            "1 to 1024 bytes, not blank",
        ),
        (
            &["contract", "change", "w", "--contract-id", "c", "--plan", "nope", "--request-id", "r"],
            "unknown_plan",
        ),
        (
            &["contract", "renew", "w", "--contract-id", "c", "--term-months", "0", "--request-id", "r"],
            "bad_value",
        ),
        (&["contract", "cancel", "w", "--contract-id", "", "--request-id", "r"], "bad_value"),
        (
            &["contract", "cancel", "w", "--contract-id", "c", "--effective-at", "soon", "--request-id", "r"],
            "--effective-at",
        ),
        (
            &["topup", "w", "--topup-id", "t", "--amount-usd", "250", "--time", "2025-01-01T00:00:00Z"],
            "too_old",
        ),
        (
            &["topup", "w", "--topup-id", "t", "--amount-usd", "250", "--time", "2199-01-01T00:00:00Z"],
            "too_far_ahead",
        ),
    ] {
        let answer = run(&[arguments, &["--dry-run"]].concat()).expect(2);
        assert!(answer.stderr.contains(why) && answer.stdout.is_empty(), "{arguments:?}: {}", answer.stderr);
    }
}

#[test]
fn an_estimate_is_the_published_one() {
    let buys = |arguments: &[&str]| {
        let answer = run(&[&["estimate", "--format", "json"], arguments].concat()).expect(0);
        let document = answer.json_lines().remove(0);
        let of = |name: &str| document["buys"][name].as_u64().unwrap();
        [
            document["credits"].as_u64().unwrap(),
            of("images"),
            of("shoots_of_4_images"),
            of("video_seconds"),
            of("clips_of_4_seconds"),
            of("clips_of_8_seconds"),
            of("clips_of_12_seconds"),
        ]
    };
    assert_eq!(buys(&["--plan", "lite"]), [200, 200, 50, 66, 16, 8, 5]);
    assert_eq!(buys(&["--plan", "performance"]), [1_100, 1_100, 275, 366, 91, 45, 30]);
    assert_eq!(buys(&["--plan", "scale"]), [3_300, 3_300, 825, 1_100, 275, 137, 91]);
    assert_eq!(buys(&["--pack", "250"]), [1_388, 1_388, 347, 462, 115, 57, 38]);
    assert_eq!(buys(&["--pack", "1000.00"]), [5_555, 5_555, 1_388, 1_851, 462, 231, 154]);
    assert_eq!(buys(&["--credits", "0"]), [0; 7]);
    let page = run(&["estimate", "--pack", "1000"]).expect(0).stdout;
    assert!(page.contains("shoot of 4 images      4  1,388"), "{page}");
    assert!(!page.contains("general rates"), "{page}");
    let unnamed = run(&["estimate", "--credits", "1", "--model", "veo-9"]).expect(0).stdout;
    assert!(unnamed.contains("1 credit buy") && unnamed.contains("does not name model veo-9"), "{unnamed}");
    for wrong in [
        &["--plan", "nope"][..],
        &["--pack", "251"],
        &["--credits", "-1"],
        &["--credits", "1.5"],
        &[],
        &["--plan", "lite", "--credits", "1"],
    ] {
        run(&[&["estimate"], wrong].concat()).expect(2);
    }
    for number in ["-5", "1.5", "many"] {
        let said = run(&["estimate", "--credits", number]).expect(2).stderr;
        assert!(said.contains("a whole number of credits, 0 or more"), "{said}");
    }
    run(&["estimate", "--credits", "1", "--at", "2020-01-01T00:00:00Z"]).expect(1);
    for (what, name) in [("--plan", "lite"), ("--pack", "250")] {
        let said = run(&["estimate", what, name, "--at", "2020-01-01T00:00:00Z"]).expect(2).stderr;
        assert!(said.contains("none is for sale then"), "{said}");
    }
    let said = run(&["estimate", "--plan", "nope"]).expect(2).stderr;
    assert!(said.contains("there are lite, performance, scale"), "{said}");
}

/// Images and seconds are counted at their exact rate, which is what is shown of each.
#[test]
fn an_estimate_shows_a_decimal_rate_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pricing.toml");
    let decimal = "credits = \"3\"\nmodels.\"veo-3\".credits = \"4.25\"";
    fs::write(&path, include_str!("../config/pricing.toml").replace("credits = \"3\"", decimal)).unwrap();
    let estimate = |format: &str| {
        let mut command = binary();
        command.args(["estimate", "--credits", "100", "--model", "veo-3", "--format", format]);
        answer(command.env("CREDITSTREAM__PRICING__FILE", &path)).expect(0)
    };
    let page = estimate("table").stdout;
    assert!(page.contains("second of video     4.25    23"), "{page}");
    assert!(page.contains("clip of 4 seconds     17     5") && page.contains("for model veo-3"), "{page}");
    assert_eq!(estimate("json").json_lines()[0]["has_own_rate"], true);
}

#[test]
fn events_are_priced_by_two_pricing_files() {
    let folder = tempfile::tempdir().unwrap();
    let (events, dearer) = (folder.path().join("events.jsonl"), folder.path().join("dearer.toml"));
    let built_in = include_str!("../config/pricing.toml");
    fs::write(&dearer, built_in.replace("credits = \"3\"", "credits = \"4\"")).unwrap();
    let video = |wallet: &str, seconds: u32| {
        json!({
            "specversion": "1.0", "id": "1", "source": "/e2e", "type": "generation.completed", "subject": wallet,
            "time": "2025-06-01T00:00:00Z",
            "data": {"job_id": "j", "asset": "video", "seconds": seconds, "model": "veo-3"}
        })
        .to_string()
    };
    fs::write(&events, [video("ws_1", 8), video("ws_2", 1_000), "{".to_owned()].join("\n")).unwrap();
    let (events, dearer) = (events.display().to_string(), dearer.display().to_string());

    let report =
        run(&["price", &events, "--against", &dearer, "--format", "json"]).expect(0).json_lines().remove(0);
    let total = &report["total"];
    assert_eq!((&total["credits"], &total["against_credits"]), (&json!(3_024), &json!(4_032)));
    assert_eq!((&total["difference"], &total["difference_percent"]), (&json!(1_008), &json!("33.3")));
    assert_eq!((&report["bad"]["lines"], &report["bad"]["first"][0]["line"]), (&json!(1), &json!(3)));
    assert_eq!(report["wallets"][0]["name"], "ws_2", "the dearest first, however old the events");
    let page = run(&["price", &events, "--against", &dearer]).expect(0).stdout;
    for expected in [
        "2 events, 2 of them charges: 3,024 credits; by the other prices 4,032 credits, 1,008 (33.3 %) more",
        "in no sum: 1 line that cannot be priced",
        "1 line cannot be priced: 1 not_json",
        "line 3: not_json",
    ] {
        assert!(page.contains(expected), "{expected:?} is not in\n{page}");
    }
    assert!(!run(&["price", &events]).expect(0).stdout.contains("difference"));
    run(&["price", "/does/not/exist"]).expect(2);
    run(&["price", &events, "--against", "/does/not/exist"]).expect(2);
}

/// `creditstream … | head -1`
#[test]
fn a_reader_that_goes_away_ends_a_command_quietly() {
    use std::process::Stdio;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.jsonl");
    fs::write(&path, "{\n".repeat(20_000)).unwrap();
    let mut child = binary()
        .args(["check-events", &path.display().to_string()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(0), ""));
}
