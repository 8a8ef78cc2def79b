//! The commands as a person or a script meets them: exit codes, stdout, stderr, and what they leave in the topics.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout)]

mod common;

use std::fs;
use std::io::Write;
use std::process::Stdio;
use std::time::{Duration, Instant};

use common::commands::{all_commands, help};
use common::deployment::{Answer, SHARDS, answer, binary};
use common::kafka::{self, Sent};
use common::ledger::Ledger;
use common::progress::Progress;
use common::{Deployment, tail};
use creditstream::generate::Books;
use creditstream::kafka::partition_for;
use creditstream::time::Timestamp;
use serde_json::Value;

fn run(arguments: &[&str]) -> Answer {
    answer(binary().args(arguments))
}

#[test]
fn every_command_explains_itself_with_an_example() {
    let commands = all_commands();
    assert!(commands.len() >= 12, "{commands:?}");
    for command in &commands {
        let text = help(command);
        let example = format!("Example: creditstream {}", command.join(" "));
        assert!(
            text.contains(&example) || text.contains("CREDITSTREAM__"),
            "{command:?} has no example:\n{text}"
        );
    }
    let version = run(&["--version"]).expect(0).stdout;
    assert!(
        version.contains(env!("CARGO_PKG_VERSION"))
            && version.contains("commit ")
            && version.contains("librdkafka 2."),
        "{version}"
    );
}

#[test]
fn what_is_not_understood_is_usage() {
    for arguments in [
        &["--nonsense"][..],
        &["nonsense"],
        &["run", "--role", "nonsense"],
        &["topup", "ws_1"],
        &["init", "extra"],
        &[],
    ] {
        let answer = run(arguments).expect(2);
        assert!(answer.stdout.is_empty() && !answer.stderr.is_empty(), "{arguments:?}");
        for format in [&["--format", "json"][..], &["--format=json"]] {
            let answer = run(&[arguments, format].concat()).expect(2);
            let said: serde_json::Value = serde_json::from_str(&answer.stderr).unwrap();
            assert_eq!(said["error"]["code"], "usage", "{arguments:?}");
        }
    }
}

#[test]
fn check_config_prints_the_defaults_and_no_secret() {
    let defaults: toml::Table = include_str!("../config/default.toml").parse().unwrap();
    let printed: toml::Table = run(&["check-config"]).expect(0).stdout.parse().unwrap();
    assert_eq!(printed, defaults);

    for format in ["table", "json"] {
        let mut command = binary();
        command
            .args(["check-config", "--format", format])
            .env("CREDITSTREAM__CLICKHOUSE__PASSWORD", "hunter2");
        command.env("CREDITSTREAM__KAFKA__PROPERTIES__SASL__PASSWORD", "hunter2");
        let answer = answer(&mut command).expect(0);
        assert!(
            !answer.stdout.contains("hunter2") && !answer.stderr.contains("hunter2"),
            "{}",
            answer.stdout
        );
        assert!(answer.stdout.contains("***"));
    }
}

#[test]
fn check_config_lists_every_fault_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bad.toml");
    fs::write(&path, "[topics]\nshards = 0\nshard = 4\n[alerts]\nlow_percent = 5\ncritical_percent = 20\n[ledger]\nworkers = \"two\"\n").unwrap();
    let checked = |format: &str| {
        let mut command = binary();
        command
            .args(["check-config", "--format", format, "--config"])
            .arg(&path)
            .env("CREDITSTREAM__CLICKHOUSE__URL", "nowhere");
        answer(&mut command).expect(78)
    };
    let said = checked("table");
    assert!(said.stdout.is_empty());
    for fault in [
        "topics.shards",
        "topics.shard:",
        "critical_percent",
        "ledger.workers",
        "CREDITSTREAM__CLICKHOUSE__URL",
    ] {
        assert!(said.stderr.contains(fault), "{fault} is not named:\n{}", said.stderr);
    }
    let error: Value = serde_json::from_str(checked("json").stderr.trim()).unwrap();
    assert_eq!(error["error"]["code"], "config");
    assert!(error["error"]["message"].as_str().unwrap().contains("topics.shards"));
}

#[test]
fn check_config_refuses_an_endpoint_that_wants_a_plan_that_does_not_exist() {
    let checked = |plans: &str| {
        let mut command = binary();
        let endpoint = format!(
            r#"[{{name="crm",url="https://example.com/",secrets=["whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="],plans={plans}}}]"#
        );
        answer(command.arg("check-config").env("CREDITSTREAM__DISPATCHER__ENDPOINTS", endpoint))
    };
    checked(r#"["lite", "scale", ""]"#).expect(0);
    let said = checked(r#"["lite", "lyte"]"#).expect(78).stderr;
    for words in ["dispatcher.endpoints: endpoint crm: plans has \"lyte\"", "(lite, performance, scale)"] {
        assert!(said.contains(words), "{words}: {said}");
    }
}

fn completed(id: &str, wallet: &str, images: u32) -> String {
    format!(
        r#"{{"specversion":"1.0","id":"{id}","source":"/e2e","type":"generation.completed","subject":"{wallet}","time":"{}","data":{{"job_id":"{id}","asset":"image","images":{images}}}}}"#,
        Timestamp::now()
    )
}

#[test]
fn check_events_says_what_would_become_of_each_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.jsonl");
    let good = completed("1", "ws_1", 4);
    let topup = format!(
        r#"{{"specversion":"1.0","id":"2","source":"/e2e","type":"topup.purchased","subject":"ws_1","time":"{}","data":{{"topup_id":"t","amount_usd":250}}}}"#,
        Timestamp::now()
    );
    let no_time = |line: &str| line.replacen("\"time\":\"2", "\"time\":\"x2", 1);
    let old = good.replace(&good[good.find("\"time\":\"2").unwrap() + 8..][..4], "2001");
    let lines = [
        good.clone(),
        topup.clone(),
        completed("3", "ws_1", 0),
        "{".to_owned(),
        topup.replace("250", "251"),
        old,
        no_time(&good),
    ];
    fs::write(&path, lines.join("\n")).unwrap();
    let file = path.display().to_string();

    let verdicts = run(&["check-events", &file, "--format", "json"]).expect(1).json_lines();
    let said: Vec<(u64, &str, Option<&str>)> = verdicts
        .iter()
        .map(|verdict| {
            (
                verdict["line"].as_u64().unwrap(),
                verdict["outcome"].as_str().unwrap(),
                verdict["reason"].as_str(),
            )
        })
        .collect();
    assert_eq!(
        said,
        [
            (1, "charged", None),
            (2, "granted", None),
            (3, "quarantined", Some("bad_value")),
            (4, "quarantined", Some("not_json")),
            (5, "quarantined", Some("unknown_topup")),
            (6, "quarantined", Some("too_old")),
            (7, "quarantined", Some("bad_value")),
        ]
    );
    let detail = verdicts[6]["detail"].as_str().unwrap();
    assert!(detail.starts_with("time is \"x2") && detail.contains("RFC 3339"), "{detail}");
    assert!(verdicts[0]["detail"].as_str().unwrap().contains("4 credits"), "{}", verdicts[0]);
    let table = run(&["check-events", &file]).expect(1).stdout;
    assert_eq!(table.lines().count(), lines.len(), "{table}");

    fs::write(&path, format!("{good}\n{topup}\n")).unwrap();
    run(&["check-events", &file]).expect(0);
    let wrong_topic =
        run(&["check-events", &file, "--topic", "generation", "--format", "json"]).expect(1).json_lines();
    assert_eq!(wrong_topic[1]["reason"], "unknown_type", "a topup on the topic of usage");
    run(&["check-events", "/does/not/exist"]).expect(2);

    let mut child =
        binary().args(["check-events", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(good.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && String::from_utf8_lossy(&output.stdout).starts_with("1: charged"));
}

/// Waits until so many records of a deployment are decided.
#[track_caller]
fn decided(deployment: &Deployment, records: u64) -> Progress {
    let books = Books { records, ..Books::default() };
    let mut progress = deployment.wait_until_processed(&books);
    progress.read(Duration::from_millis(200));
    assert_eq!(progress.decided(), records);
    progress
}

#[test]
fn a_published_event_counts_once_however_often_it_is_sent() {
    let deployment = Deployment::new();
    let wallet_topic = &deployment.config.topics.wallet;
    let now = Timestamp::now();
    let (time, later) = (now.plus_millis(-60_000).to_string(), now.plus_millis(-30_000).to_string());
    let commands: [&[&str]; 3] = [
        &["contract", "start", "ws_1", "--contract-id", "c_1", "--plan", "lite"],
        &["topup", "ws_1", "--topup-id", "t_1", "--amount-usd", "250", "--reference", "invoice 7"],
        &[
            "adjust",
            "ws_1",
            "--adjustment-id",
            "a_1",
            "--credits=-40",
            "--reason",
            "double render",
            "--actor",
            "jane",
        ],
    ];
    for command in commands {
        let with = |more: &[&'static str], time: &str| {
            let mut arguments = command.to_vec();
            arguments.extend(["--time", time]);
            arguments.extend(more);
            deployment.run(&arguments).expect(0)
        };
        let printed: Value = serde_json::from_str(&with(&["--dry-run"], &time).stdout).unwrap();
        assert_eq!((&printed["subject"], &printed["time"]), (&"ws_1".into(), &time.as_str().into()));
        let sent = with(&["--format", "json"], &time).json_lines();
        assert_eq!(sent[0]["event_id"], printed["id"], "the id follows from wallet, command and business id");
        with(&[], &time);
        with(&[], &later);
    }
    let sent = kafka::read_all(&deployment.config, wallet_topic);
    assert_eq!(sent.len(), 9, "a dry run sends nothing");
    assert!(sent.iter().all(|record| record.key.as_deref() == Some(b"ws_1")));
    assert!(sent.iter().all(|record| record.partition == partition_for(b"ws_1", SHARDS)));

    let mut instance = deployment.start(&["ledger"]);
    let outcomes = decided(&deployment, 9).outcomes();
    let expected = [("adjusted", 1), ("contract", 1), ("duplicate", 3), ("granted", 1), ("quarantined", 3)];
    assert_eq!(outcomes, expected.map(|(outcome, count)| (outcome.to_owned(), count)).into());
    let ledger = Ledger::read(&deployment.config);
    assert_eq!(ledger.reasons(), [("id_conflict".to_owned(), 3)].into());
    assert_eq!(ledger.wallets["ws_1"].balance, 200 + 1_388 - 40);
    instance.terminate();
}

#[test]
fn what_would_be_refused_is_not_sent() {
    let deployment = Deployment::new();
    let refused: [(&[&str], &str); 6] = [
        (&["topup", "ws_1", "--topup-id", "t", "--amount-usd", "251"], "unknown_topup"),
        (&["topup", "ws_1", "--topup-id", "t", "--amount-usd", "many"], "--amount-usd"),
        (
            &["adjust", "ws_1", "--adjustment-id", "a", "--credits", "0", "--reason", "r", "--actor", "a"],
            "bad_value",
        ),
        (&["contract", "start", "ws_1", "--contract-id", "c", "--plan", "gigantic"], "unknown_plan"),
        (&["topup", "no\nid", "--topup-id", "t", "--amount-usd", "250"], "bad_value"),
        (&["topup", "ws_1", "--topup-id", "t", "--amount-usd", "250", "--time", "yesterday"], "--time"),
    ];
    for (arguments, why) in refused {
        let answer = deployment.run(arguments).expect(2);
        assert!(answer.stderr.contains(why) && answer.stdout.is_empty(), "{arguments:?}: {}", answer.stderr);
    }
    assert!(kafka::read_all(&deployment.config, &deployment.config.topics.wallet).is_empty());
}

/// The wallet as it was saved last is looked at, and what speaks against an event is a warning: the ledger decides.
#[test]
fn what_the_wallet_speaks_against_is_published_with_a_warning() {
    let deployment = Deployment::new();
    let unknown = ["contract", "cancel", "ws_1", "--contract-id", "c_1", "--request-id", "r_1"];
    let answer = deployment.run(&unknown).expect(0);
    for expected in
        ["warning: ", "no record in", "quarantined as no_contract: the wallet has no contract c_1"]
    {
        assert!(answer.stderr.contains(expected), "{expected:?}: {}", answer.stderr);
    }
    assert!(answer.stdout.contains("look with `creditstream wallet ws_1`"), "{}", answer.stdout);

    let mut instance = deployment.start(&["ledger"]);
    let start = ["contract", "start", "ws_1", "--contract-id", "c_1", "--plan", "lite"];
    deployment.run(&start).expect(0);
    decided(&deployment, 2);
    instance.terminate();
    let again = deployment.run(&[&start[..], &["--format", "json"]].concat()).expect(0);
    let warning = again.json_lines()[0]["warning"].as_str().unwrap().to_owned();
    assert!(warning.contains("saved last (entry 2") && warning.contains("id_conflict"), "{warning}");
    let on_stderr: Value = serde_json::from_str(again.stderr.trim()).unwrap();
    assert_eq!(on_stderr["warning"]["message"], warning.as_str());

    let late = Timestamp::now().plus_months(13).unwrap().to_string();
    let late =
        ["contract", "change", "ws_1", "--contract-id", "c_1", "--plan", "scale", "--effective-at", &late];
    let answer = deployment.run(&[&late[..], &["--request-id", "r_2"]].concat()).expect(0);
    assert!(answer.stderr.contains("must be renewed before that"), "{}", answer.stderr);
    let good = deployment.run(&unknown).expect(0);
    assert!(good.stderr.is_empty(), "{}", good.stderr);

    // Without the wallets topic there is nothing to compare with, and the event goes out all the same.
    let elsewhere = [("topics.wallets", "no.such.topic")];
    let answer = deployment.run_with(&unknown, &elsewhere).expect(0);
    assert!(answer.stderr.contains("not compared with wallet ws_1"), "{}", answer.stderr);
    assert_eq!(kafka::read_all(&deployment.config, &deployment.config.topics.wallet).len(), 6);
}

/// Quarantined for a limit that was configured too low; mended by raising it; replayed twice; charged once.
#[test]
fn a_mended_record_is_replayed_and_charged_exactly_once() {
    let deployment = Deployment::new();
    let config = &deployment.config;
    deployment.run(&["quarantine", "list"]).expect(1);
    let mut instance = deployment.start_with(&["ledger"], &[("events.images_max", "10")]);
    let event = completed("large", "ws_7", 50);
    let elsewhere = (partition_for(b"ws_7", SHARDS) + 1) % SHARDS;
    let headers: Vec<(&str, Option<&[u8]>)> = vec![("trace", Some(b"\x01\xff"))];
    let sent =
        Sent { partition: Some(elsewhere), key: Some(b"other"), value: Some(event.as_bytes()), headers };
    kafka::send(config, &config.topics.generation, &sent).unwrap();
    kafka::send(
        config,
        &config.topics.generation,
        &Sent { value: Some(b"junk"), key: None, partition: Some(0), headers: vec![] },
    )
    .unwrap();
    decided(&deployment, 2);
    instance.terminate();

    let listed = deployment.run(&["quarantine", "list", "--format", "json"]).expect(0).json_lines();
    assert_eq!(listed.len(), 2);
    let mendable = deployment
        .run(&["quarantine", "list", "--reason", "bad_value", "--format", "json"])
        .expect(0)
        .json_lines();
    assert_eq!(
        (mendable.len(), &mendable[0]["key"], &mendable[0]["value"]),
        (1, &"other".into(), &event.as_str().into())
    );
    let place = mendable[0]["place"].as_str().unwrap();
    let shown = deployment.run(&["quarantine", "show", place]).expect(0).stdout;
    assert!(
        shown.contains(&event) && shown.contains("bad_value") && shown.contains("from 1 to 10"),
        "{shown}"
    );
    let table = deployment.run(&["quarantine", "list", "--limit", "1"]).expect(0).stdout;
    assert_eq!(table.lines().count(), 1);
    deployment.run(&["quarantine", "show", "0/999999"]).expect(1);
    deployment.run(&["quarantine", "replay"]).expect(2);
    deployment.run(&["quarantine", "list", "--reason", "no_such_reason"]).expect(2);

    let count = || kafka::read_all(config, &config.topics.generation).len();
    deployment.run(&["quarantine", "replay", place, "--dry-run"]).expect(0);
    assert_eq!(count(), 2, "a dry run sends nothing");
    deployment.run(&["quarantine", "replay", place]).expect(0);
    deployment.run(&["quarantine", "replay", "--reason", "bad_value"]).expect(0);
    let records = kafka::read_all(config, &config.topics.generation);
    let replayed: Vec<_> =
        records.iter().filter(|record| record.header("cs_replay_of").as_deref() == Some(place)).collect();
    assert_eq!((records.len(), replayed.len()), (4, 2));
    for record in replayed {
        assert_eq!(
            (record.key.as_deref(), record.partition),
            (Some(&b"other"[..]), elsewhere),
            "as it came, where it came"
        );
        assert_eq!(record.value.as_deref(), Some(event.as_bytes()));
        assert_eq!(record.headers.iter().filter(|(name, _)| !name.starts_with("cs_")).count(), 1);
    }

    let mut instance = deployment.start(&["ledger"]);
    let outcomes = decided(&deployment, 4).outcomes();
    assert_eq!((outcomes["charged"], outcomes["duplicate"], outcomes["quarantined"]), (1, 1, 2));
    assert_eq!(Ledger::read(config).wallets["ws_7"].charged, 50);
    instance.terminate();
}

/// Each try brings it back once more; sent is one record for it all the same, and the other one that is quarantined for that.
#[test]
fn a_record_whose_cause_is_not_mended_is_replayed_once_a_time() {
    let deployment = Deployment::new();
    let config = &deployment.config;
    let mut instance = deployment.start(&["ledger"]);
    for value in ["junk", "other junk"] {
        let sent =
            Sent { value: Some(value.as_bytes()), key: Some(b"k"), partition: Some(0), headers: vec![] };
        kafka::send(config, &config.topics.generation, &sent).unwrap();
    }
    decided(&deployment, 2);
    for tries in 1..=3 {
        let said = deployment.run(&["quarantine", "replay", "--reason", "not_json", "--format", "json"]);
        let said = &said.expect(0).json_lines()[0];
        assert_eq!((&said["selected"], &said["replayed"]), (&2.into(), &2.into()), "try {tries}");
        decided(&deployment, 2 + 2 * tries);
    }
    instance.terminate();
    let listed = deployment.run(&["quarantine", "list", "--format", "json"]).expect(0).json_lines();
    assert_eq!(listed.len(), 8, "all that was refused is told");
    // A place that is named is sent, whatever came of it.
    deployment.run(&["quarantine", "replay", listed[0]["place"].as_str().unwrap()]).expect(0);
    assert_eq!(kafka::read_all(config, &config.topics.generation).len(), 9);
}

#[test]
fn init_may_run_twice_and_twice_at_once() {
    let deployment = Deployment::without_init(&[]);
    let start =
        || deployment.command(&["init"], &[]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let both = [start(), start()].map(|child| child.wait_with_output().unwrap());
    for output in &both {
        assert!(output.status.success(), "{}", tail(&String::from_utf8_lossy(&output.stderr)));
    }
    let state = || {
        let topics = &deployment.config.topics;
        let client = kafka::reader(&deployment.config, "read_committed");
        let own = [
            &topics.generation,
            &topics.wallet,
            &topics.ledger,
            &topics.progress,
            &topics.intake,
            &topics.alerts_dead,
        ];
        let tables =
            "SELECT name, engine_full FROM system.tables WHERE database = currentDatabase() ORDER BY name";
        let applied =
            "SELECT version, count() FROM schema_migrations FINAL GROUP BY version ORDER BY version";
        (
            own.map(|topic| kafka::partitions(&client, topic)),
            deployment.clickhouse().rows(tables),
            deployment.clickhouse().rows(applied),
        )
    };
    let after_both = state();
    assert_eq!(after_both.0, [SHARDS; 6]);
    let third = deployment.run(&["init"]).expect(0);
    assert!(third.stdout.contains("nothing to do"), "{}", third.stdout);
    assert_eq!(state(), after_both);
    let fourth = deployment.run(&["init", "--format", "json"]).expect(0).json_lines();
    assert_eq!(fourth[0]["done"], Value::Array(vec![]));
    let other = deployment.run_with(&["init"], &[("topics.shards", "5")]).expect(78);
    assert!(other.stderr.contains("topics.shards = 4"), "it says what to set: {}", other.stderr);
}

#[test]
fn a_component_that_is_away_is_69_within_half_a_minute() {
    let deployment = Deployment::without_init(&[]);
    let no_kafka = [("kafka.brokers", "127.0.0.1:1")];
    let commands: [&[&str]; 6] = [
        &["init"],
        &["run", "--role", "ledger"],
        &["generate", "--events", "10", "--wallets", "2"],
        &["topup", "ws_1", "--topup-id", "t", "--amount-usd", "250"],
        &["quarantine", "list"],
        &["quarantine", "replay", "0/0"],
    ];
    std::thread::scope(|scope| {
        for command in commands {
            let deployment = &deployment;
            scope.spawn(move || {
                let begun = Instant::now();
                let answer = deployment.run_with(command, &no_kafka);
                println!("{command:?}: {} after {:?}", answer.code, begun.elapsed());
                assert_eq!(answer.code, 69, "{command:?}: {}", tail(&answer.stderr));
                let told = answer.stderr.lines().last().unwrap_or_default();
                assert!(told.contains("127.0.0.1:1"), "{command:?} does not say where: {told}");
                assert!(begun.elapsed() < Duration::from_secs(30), "{command:?} took {:?}", begun.elapsed());
            });
        }
    });
    let answer = deployment.run_with(&["init"], &[("clickhouse.url", "http://127.0.0.1:1")]).expect(69);
    assert!(answer.stderr.contains("clickhouse.url"), "it says what to look at: {}", answer.stderr);
    assert_eq!(answer.stderr.matches("Connection refused").count(), 1, "the cause once: {}", answer.stderr);
    let nobody = deployment.run_with(&["init"], &[("clickhouse.user", "nobody")]).expect(77);
    assert!(nobody.stderr.contains("check user, password and rights"), "{}", nobody.stderr);
}

#[test]
fn generate_gives_the_same_for_the_same_seed_and_books_to_hold_it_against() {
    let deployment = Deployment::new();
    let end = Timestamp::now().plus_millis(-60_000).to_string();
    let start = Timestamp::now().plus_millis(-3_600_000).to_string();
    let path = deployment.folder.path().join("books.json");
    let file = path.display().to_string();
    let window = ["--start", &start, "--end", &end];
    let generate = |more: &[&str]| {
        let mut arguments = vec!["generate", "--events", "2000", "--wallets", "50", "--seed", "7"];
        arguments.extend(window);
        arguments.extend(more);
        deployment.run(&arguments).expect(0)
    };
    let first = generate(&["--stdout"]);
    assert_eq!(first.stdout, generate(&["--stdout"]).stdout);
    let sent = generate(&["--books", &file, "--format", "json"]).json_lines();
    let books: Books = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    assert_eq!(sent[0]["records"].as_u64(), Some(books.records));
    assert_eq!(first.json_lines().len() as u64, books.records);
    let mut instance = deployment.start(&[]);
    deployment.assert_proof_with_clickhouse(&books);
    instance.terminate();
    deployment.run(&["generate", "--duplicates", "101"]).expect(2);
}
