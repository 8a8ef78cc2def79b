//! The dispatcher as a process, between the real Kafka and receivers of every sort. Each signature is verified by an
//! implementation that is not ours: `standardwebhooks` of PyPI, in an environment of the test's own.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout)]

mod common;

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use common::alerts::{
    LOCAL, NEW_SECRET, OLD_SECRET, assert_in_order, by_wallet, endpoint, level_alert, lives, partition_of,
    post,
};
use common::receiver::{Receiver, Reply, Request};
use common::{Deployment, Instance, kafka, wait_for};
use serde_json::json;

const PATIENCE: Duration = Duration::from_secs(40);
/// One that no endpoint has.
const WRONG_SECRET: &str = "whsec_QEFCQ0RFRkdISUpLTE1OT1BRUlNUVVZXWFlaW1xdXl8=";

/// With quick retries; alerts are given up after so many seconds.
fn deployment(endpoints: &[String], give_up_s: u32) -> Deployment {
    Deployment::with(&[
        ("dispatcher.endpoints", &format!("[{}]", endpoints.join(", "))),
        ("dispatcher.retry_ms_min", "50"),
        ("dispatcher.retry_ms_max", "400"),
        ("dispatcher.request_timeout_ms", "1000"),
        ("dispatcher.give_up_after_seconds", &give_up_s.to_string()),
    ])
}

fn start(deployment: &Deployment) -> Instance {
    deployment.start(&["dispatcher"])
}

fn dead(deployment: &Deployment) -> Vec<kafka::Record> {
    kafka::read_all(&deployment.config, &deployment.config.topics.alerts_dead)
}

fn wait_for_dead(deployment: &Deployment, count: usize) -> Vec<kafka::Record> {
    wait_for(&format!("{count} dead alerts"), PATIENCE, || {
        let found = dead(deployment);
        (found.len() >= count).then_some(found)
    })
}

fn deliveries(instance: &Instance, endpoint: &str, outcome: &str) -> f64 {
    let labels = [("endpoint", endpoint), ("outcome", outcome)];
    instance.metric("creditstream_webhook_deliveries_total", &labels)
}

/// A Python with `standardwebhooks`, made once in the build's folder.
fn python() -> PathBuf {
    static MAKING: Mutex<()> = Mutex::new(());
    let _making = MAKING.lock().unwrap();
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("standardwebhooks-1.1.0");
    let python = folder.join("bin/python");
    let has_it = |python: &Path| {
        Command::new(python)
            .args(["-c", "import standardwebhooks"])
            .status()
            .is_ok_and(|status| status.success())
    };
    if !has_it(&python) {
        let made = Command::new("python3").args(["-m", "venv"]).arg(&folder).status().unwrap();
        assert!(made.success(), "python3 -m venv failed");
        let install = ["-m", "pip", "install", "--quiet", "standardwebhooks==1.1.0"];
        assert!(Command::new(&python).args(install).status().unwrap().success(), "pip cannot install it");
    }
    python
}

/// What the independent implementation says of each request with this secret.
fn verified(requests: &[Request], secret: &str) -> Vec<bool> {
    const CHECK: &str = r#"
import json, sys
from standardwebhooks.webhooks import Webhook
for line in sys.stdin:
    secret, headers, body = json.loads(line)
    try:
        Webhook(secret).verify(body, headers)
        print("yes")
    except Exception as error:
        print("no", error)
"#;
    let mut child = Command::new(python())
        .args(["-c", CHECK])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    for request in requests {
        writeln!(stdin, "{}", json!([secret, request.headers, request.body])).unwrap();
    }
    drop(stdin);
    let said = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
    let answers: Vec<bool> = said.lines().map(|line| line == "yes").collect();
    assert_eq!(answers.len(), requests.len(), "{said}");
    answers
}

/// An HTTPS server whose certificate nobody has signed but itself.
struct SelfSigned {
    child: std::process::Child,
    port: String,
    _folder: tempfile::TempDir,
}

impl SelfSigned {
    fn start() -> SelfSigned {
        const SERVE: &str = r#"
import http.server, ssl, sys
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("cert.pem", "key.pem")
server.socket = context.wrap_socket(server.socket, server_side=True)
print(server.server_address[1], flush=True)
server.serve_forever()
"#;
        let folder = tempfile::tempdir().unwrap();
        let made = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"])
            .args([
                "-addext",
                "subjectAltName=DNS:localhost",
                "-addext",
                "basicConstraints=critical,CA:FALSE",
            ])
            .args(["-keyout", "key.pem", "-out", "cert.pem"])
            .current_dir(&folder)
            .stderr(Stdio::null())
            .status()
            .unwrap();
        assert!(made.success(), "openssl req failed");
        let mut child = Command::new("python3")
            .args(["-c", SERVE])
            .current_dir(&folder)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut port = String::new();
        let mut said = std::io::BufReader::new(child.stdout.take().unwrap());
        std::io::BufRead::read_line(&mut said, &mut port).unwrap();
        SelfSigned { child, port: port.trim().to_owned(), _folder: folder }
    }

    fn url(&self) -> String {
        format!("https://localhost:{}/", self.port)
    }
}

impl Drop for SelfSigned {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// The whole way: events burn a wallet down, each level is told once, in order, and a top-up ends it.
#[test]
fn a_wallet_that_is_burnt_down_is_told_of_level_by_level_and_a_topup_ends_it() {
    let receiver = Receiver::start(|_, _| Reply::Status(204));
    let levels_only = format!("{LOCAL}, kinds = [\"level\"]");
    let deployment = deployment(&[endpoint("all", &receiver.url(), &levels_only)], 3_600);
    let mut instance = deployment.start(&["ledger", "dispatcher"]);
    let top_up = |id: &str| {
        deployment.run(&["topup", "ws_1", "--topup-id", id, "--amount-usd", "100"]).expect(0);
    };
    let posted = || kafka::read_all(&deployment.config, &deployment.config.topics.ledger);
    top_up("t1");
    wait_for("the first top-up", PATIENCE, || (!posted().is_empty()).then_some(()));
    // 555 credits: 111 are a fifth, 27 less than a twentieth.
    let burn = |job: &str, images: u32| {
        let time = creditstream::time::Timestamp::now();
        let event = json!({
            "specversion": "1.0", "id": job, "source": "/e2e", "type": "generation.completed", "subject": "ws_1",
            "time": time, "data": { "job_id": job, "asset": "image", "images": images }
        });
        let value = event.to_string();
        let sent =
            kafka::Sent { key: Some(b"ws_1"), value: Some(value.as_bytes()), ..kafka::Sent::default() };
        kafka::send_all(&deployment.config, &deployment.config.topics.generation, &[sent]).unwrap();
    };
    for (job, images) in [("j1", 443), ("j2", 1), ("j3", 80), ("j4", 4), ("j5", 20), ("j6", 7)] {
        burn(job, images);
    }
    receiver.wait_for_requests(3);
    top_up("t2");
    let requests = receiver.wait_for_requests(4);
    let told = |alerts: &[serde_json::Value]| -> Vec<String> {
        let shown = |alert: &serde_json::Value| {
            assert_eq!(alert["wallet_id"], "ws_1");
            format!(
                "{} {} {}",
                alert["level_before"].as_str().unwrap(),
                alert["alert_id"].as_str().unwrap(),
                alert["available"]
            )
        };
        alerts.iter().map(shown).collect()
    };
    let expected = [
        "ok ws_1:low:3 111",
        "low ws_1:critical:5 27",
        "critical ws_1:exhausted:7 0",
        "exhausted ws_1:ok:8 555",
    ];
    let delivered: Vec<serde_json::Value> = requests.iter().map(Request::json).collect();
    assert_eq!(told(&delivered), expected);
    assert!(verified(&requests, NEW_SECRET).iter().all(|answer| *answer));
    // A midnight that passes meanwhile would warn of the runway beside it.
    let in_topic: Vec<serde_json::Value> =
        kafka::read_all(&deployment.config, &deployment.config.topics.alerts)
            .iter()
            .map(kafka::Record::json)
            .filter(|alert| alert["kind"] == "level")
            .collect();
    assert_eq!(in_topic, delivered, "what was delivered is what the topic holds, each once");
    for level in ["low", "critical", "exhausted", "ok"] {
        let labels = [("kind", "level"), ("level", level)];
        assert_eq!(instance.metric("creditstream_alerts_total", &labels), 1.0, "{level}");
    }
    assert_eq!(instance.metric("creditstream_alerts_total", &[("kind", "level")]), 4.0);
    instance.terminate();
}

#[test]
fn every_alert_arrives_once_in_its_wallets_order_signed_with_each_secret() {
    let receiver = Receiver::start(|_, _| Reply::Status(204));
    let deployment = deployment(&[endpoint("all", &receiver.url(), LOCAL)], 3_600);
    let alerts = lives(6, 5);
    let mut instance = start(&deployment);
    post(&deployment, &alerts);
    let requests = receiver.wait_for_requests(30);
    assert!(by_wallet(&requests).values().all(|seqs| *seqs == [1, 2, 3, 4, 5]), "{:?}", by_wallet(&requests));
    let ids: BTreeSet<&str> = requests.iter().map(Request::id).collect();
    assert_eq!(ids.len(), 30);
    let bodies: BTreeSet<String> = requests.iter().map(|request| request.body.clone()).collect();
    assert_eq!(bodies, alerts.iter().map(ToString::to_string).collect(), "a body is the record's bytes");
    assert!(requests.iter().all(|request| request.headers["content-type"] == "application/json"));
    for (secret, expected) in [(OLD_SECRET, true), (NEW_SECRET, true), (WRONG_SECRET, false)] {
        assert!(verified(&requests, secret).iter().all(|answer| *answer == expected), "{secret}");
    }
    let mut forged = requests[0].clone();
    forged.body = forged.body.replace(":40", ":41");
    assert_eq!(verified(&[forged], NEW_SECRET), [false]);
    wait_for("the metric", PATIENCE, || (deliveries(&instance, "all", "delivered") == 30.0).then_some(()));
    assert_eq!(instance.metric("creditstream_webhook_oldest_pending_seconds", &[("endpoint", "all")]), 0.0);
    instance.terminate();
    // What is settled is not sent again.
    let mut instance = start(&deployment);
    post(&deployment, &[level_alert("w.0", 6, "low", "lite")]);
    assert_eq!(receiver.wait_for_requests(31).len(), 31);
    assert_eq!(receiver.requests()[30].wallet_and_seq(), ("w.0".to_owned(), 6));
    instance.terminate();
}

#[test]
fn an_endpoint_gets_only_the_kinds_levels_and_plans_that_it_wants() {
    let receiver = Receiver::start(|_, _| Reply::Status(200));
    let filter = r#", kinds = ["level"], levels = ["critical", "exhausted"], plans = ["lite"]"#;
    let deployment = deployment(&[endpoint("some", &receiver.url(), &format!("{filter}{LOCAL}"))], 3_600);
    let mut warning = level_alert("w", 5, "critical", "lite");
    warning["kind"] = json!("runway");
    let mut instance = start(&deployment);
    post(
        &deployment,
        &[
            level_alert("w", 1, "low", "lite"),
            level_alert("w", 2, "critical", "lite"),
            level_alert("w", 3, "critical", "scale"),
            level_alert("w", 4, "exhausted", "lite"),
            warning,
            level_alert("w", 6, "critical", "lite"),
        ],
    );
    let requests = receiver.wait_for_requests(3);
    assert_eq!(by_wallet(&requests)["w"], [2, 4, 6]);
    instance.terminate();
}

/// One wallet's second alert is refused four times: its later ones wait, another wallet's do not.
#[test]
fn a_refused_alert_comes_again_with_the_same_id_and_nothing_of_its_wallet_overtakes_it() {
    let refusals = Mutex::new(0);
    let receiver = Receiver::start(move |request, _| {
        let mut refusals = refusals.lock().unwrap();
        let is_refused = request.wallet_and_seq() == ("w.0".to_owned(), 2) && *refusals < 4;
        *refusals += usize::from(is_refused);
        Reply::Status(if is_refused { 500 } else { 200 })
    });
    let deployment = deployment(&[endpoint("picky", &receiver.url(), LOCAL)], 3_600);
    let mut instance = start(&deployment);
    post(&deployment, &lives(2, 3));
    let requests = receiver.wait_for_requests(10);
    let of = by_wallet(&requests);
    assert_eq!((of["w.0"].as_slice(), of["w.1"].as_slice()), (&[1, 2, 2, 2, 2, 2, 3][..], &[1, 2, 3][..]));
    let tries: Vec<&Request> =
        requests.iter().filter(|request| request.wallet_and_seq() == ("w.0".to_owned(), 2)).collect();
    assert!(tries.iter().all(|request| request.id() == tries[0].id() && request.body == tries[0].body));
    let last_of_other = requests.iter().position(|request| request.wallet_and_seq() == ("w.1".to_owned(), 3));
    let last = requests.iter().position(|request| request.wallet_and_seq() == ("w.0".to_owned(), 3));
    assert!(last_of_other < last, "the other wallet does not wait");
    assert!(verified(&requests, NEW_SECRET).iter().all(|answer| *answer));
    assert_eq!(deliveries(&instance, "picky", "rejected"), 4.0);
    instance.terminate();
}

#[test]
fn a_receiver_that_asks_for_a_pause_is_left_alone_for_so_long() {
    let receiver = Receiver::start(|_, before| match before {
        0 => Reply::With(429, "retry-after", "3".to_owned()),
        _ => Reply::Status(200),
    });
    let endpoints = [endpoint("busy", &receiver.url(), LOCAL)];
    let deployment = Deployment::with(&[
        ("dispatcher.endpoints", &format!("[{}]", endpoints.join(", "))),
        ("dispatcher.retry_ms_min", "50"),
        ("dispatcher.requests_max", "1"),
    ]);
    let mut instance = start(&deployment);
    post(&deployment, &lives(3, 1));
    let requests = receiver.wait_for_requests(4);
    let pause = requests[1].at - requests[0].at;
    assert!(pause >= Duration::from_millis(2_900) && pause < Duration::from_secs(8), "{pause:?}");
    instance.terminate();
}

/// Goal: what is wrong with one endpoint delays no other. Method: endpoints of every sort of trouble beside a good one.
#[test]
fn a_slow_a_down_an_endless_and_a_redirecting_endpoint_delay_nobody_and_their_alerts_end_up_dead() {
    let good = Receiver::start(|_, _| Reply::Status(200));
    let elsewhere = Receiver::start(|_, _| Reply::Status(200));
    let target = elsewhere.url();
    let redirecting = Receiver::start(move |_, _| Reply::With(307, "location", target.clone()));
    let slow = Receiver::start(|_, _| Reply::Slow(Duration::from_secs(30)));
    let endless = Receiver::start(|_, _| Reply::Endless(500));
    let endless_but_good = Receiver::start(|_, _| Reply::Endless(200));
    // Nobody listens there: receivers, also those of tests beside this one, are at 127.0.0.1.
    let down = "http://127.0.0.9:9/".to_owned();
    let private = Receiver::start(|_, _| Reply::Status(200));
    let self_signed = SelfSigned::start();
    let endpoints = [
        endpoint("slow", &slow.url(), LOCAL),
        endpoint("down", &down, LOCAL),
        endpoint("endless", &endless.url(), LOCAL),
        endpoint("endless-good", &endless_but_good.url(), LOCAL),
        endpoint("redirecting", &redirecting.url(), LOCAL),
        endpoint("private", &format!("https://127.0.0.1:{}/", private.port), ""),
        endpoint("private-name", &format!("https://localhost:{}/", private.port), ""),
        endpoint("private-number", &format!("https://0x7f.1:{}/", private.port), ""),
        endpoint("private-mapped", &format!("https://[::ffff:127.0.0.1]:{}/", private.port), ""),
        endpoint("not-tls", &format!("https://localhost:{}/", private.port), LOCAL),
        endpoint("self-signed", &self_signed.url(), LOCAL),
        endpoint("good", &good.url(), LOCAL),
    ];
    let deployment = deployment(&endpoints, 4);
    let mut instance = start(&deployment);
    wait_for("readers", PATIENCE, || {
        (instance.log_count("alerts are read") >= endpoints.len()).then_some(())
    });
    let posted = std::time::Instant::now();
    post(&deployment, &lives(2, 2));
    good.wait_for_requests(4);
    assert!(posted.elapsed() < Duration::from_secs(3), "{:?}", posted.elapsed());
    let dead = wait_for_dead(&deployment, 10 * 4);
    assert_eq!(dead.len(), 40);
    for (name, outcome, detail) in [
        ("slow", "timed_out", "no answer within 1000 ms"),
        ("down", "unreachable", "refused"),
        ("endless", "rejected", "status 500"),
        ("redirecting", "rejected", "status 307"),
        ("private", "blocked", "127.0.0.1 is not a public address"),
        ("private-name", "blocked", "is not a public address"),
        ("private-number", "blocked", "127.0.0.1 is not a public address"),
        ("private-mapped", "blocked", "::ffff:127.0.0.1 is not a public address"),
        ("not-tls", "unreachable", "tls"),
        ("self-signed", "unreachable", "invalid peer certificate: UnknownIssuer"),
    ] {
        let of: Vec<_> =
            dead.iter().filter(|record| record.header("cs_endpoint").as_deref() == Some(name)).collect();
        assert_eq!(of.len(), 4, "{name}");
        for record in of {
            let said = record.header("cs_detail").unwrap();
            assert!(said.contains(detail), "{name}: {said}");
            assert_eq!(record.partition, partition_of(record.key_text()));
        }
        assert!(deliveries(&instance, name, outcome) >= 4.0, "{name}");
        wait_for("the metric", PATIENCE, || (deliveries(&instance, name, "dead") == 4.0).then_some(()));
    }
    assert_eq!(elsewhere.requests().len(), 0, "a redirect is not followed");
    assert_eq!(private.requests().len(), 0);
    assert_eq!(endless_but_good.requests().len(), 4, "the status is the answer, whatever follows it");
    let per_answer = endless.endless_bytes() / endless.requests().len();
    assert!(per_answer < 16 << 20, "{per_answer} bytes of an endless answer were taken");
    assert_eq!(good.requests().len(), 4);
    instance.terminate();
}

#[test]
fn after_410_nothing_more_is_sent_and_a_replay_sends_it_to_that_endpoint_alone() {
    let is_mended = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let mended = std::sync::Arc::clone(&is_mended);
    let gone = Receiver::start(move |_, _| match mended.load(std::sync::atomic::Ordering::SeqCst) {
        true => Reply::Status(200),
        false => Reply::Status(410),
    });
    let good = Receiver::start(|_, _| Reply::Status(200));
    let endpoints = [endpoint("gone", &gone.url(), LOCAL), endpoint("good", &good.url(), LOCAL)];
    let deployment = deployment(&endpoints, 3_600);
    let mut instance = start(&deployment);
    post(&deployment, &[level_alert("w", 1, "low", "lite")]);
    let first = wait_for_dead(&deployment, 1);
    post(&deployment, &[level_alert("w", 2, "low", "lite"), level_alert("w", 3, "ok", "lite")]);
    let dead = wait_for_dead(&deployment, 3);
    assert_eq!(dead.len(), 3);
    assert_eq!(first[0].header("cs_detail").unwrap(), "410 Gone");
    assert_eq!(gone.requests().len(), 1);
    good.wait_for_requests(3);
    instance.terminate();

    is_mended.store(true, std::sync::atomic::Ordering::SeqCst);
    let mut instance = start(&deployment);
    let said = deployment.run(&["alerts", "replay", "--dry-run", "--format", "json"]).expect(0).json_lines();
    assert_eq!(said.len(), 3);
    assert_eq!(gone.requests().len(), 1);
    deployment.run(&["alerts", "replay", "--endpoint", "good"]).expect(1);
    deployment.run(&["alerts", "replay"]).expect(0);
    let requests = gone.wait_for_requests(4);
    assert_eq!(by_wallet(&requests)["w"], [1, 1, 2, 3]);
    assert_eq!(requests[0].id(), requests[1].id(), "the same alert, the same id");
    // Once is enough: a second replay finds nothing that was not sent again.
    deployment.run(&["alerts", "replay"]).expect(1);
    deployment.run(&["alerts", "replay", "--endpoint", "nobody"]).expect(2);
    assert_eq!(good.requests().len(), 3);
    instance.terminate();
}

#[test]
fn what_is_no_alert_goes_to_the_dead_ones_and_holds_up_nobody() {
    let receiver = Receiver::start(|_, _| Reply::Status(200));
    let deployment = deployment(&[endpoint("all", &receiver.url(), LOCAL)], 3_600);
    let mut instance = start(&deployment);
    let topic = &deployment.config.topics.alerts;
    let bad = kafka::Sent {
        partition: Some(partition_of("w")),
        key: Some(b"w"),
        value: Some(b"{\"v\":1}"),
        ..kafka::Sent::default()
    };
    kafka::send(&deployment.config, topic, &bad).unwrap();
    post(&deployment, &[level_alert("w", 1, "low", "lite")]);
    receiver.wait_for_requests(1);
    let dead = wait_for_dead(&deployment, 1);
    assert!(dead[0].header("cs_detail").unwrap().starts_with("not an alert"), "{dead:?}");
    instance.terminate();
}

/// Also one whose group's positions are gone: the two cannot be told apart.
#[test]
fn a_new_endpoint_begins_with_the_alerts_that_are_not_too_old_and_says_which_it_passes_over() {
    let receiver = Receiver::start(|_, _| Reply::Status(200));
    let only_lite = format!("{LOCAL}, plans = [\"lite\"]");
    let deployment = deployment(&[endpoint("new", &receiver.url(), &only_lite)], 10);
    let old = [("w", 1, "lite"), ("w", 2, "scale"), ("w", 3, "lite"), ("w.2", 1, "lite")];
    let mut old = old.map(|(wallet, seq, plan)| level_alert(wallet, seq, "low", plan));
    old[3]["raised_at"] = json!("2026-11-05T00:00:00.000Z");
    post(&deployment, &old);
    std::thread::sleep(Duration::from_secs(11));
    post(&deployment, &[level_alert("w", 4, "low", "lite")]);
    let mut instance = start(&deployment);
    receiver.wait_for_requests(1);
    post(&deployment, &[level_alert("w", 5, "low", "lite")]);
    assert_eq!(by_wallet(&receiver.wait_for_requests(2))["w"], [4, 5]);
    let passed_over = [("endpoint", "new")];
    assert_eq!(
        instance.metric("creditstream_webhook_passed_over_total", &passed_over),
        3.0,
        "those it wants"
    );
    assert_eq!(instance.log_count("alerts replay --endpoint new --from TIME"), 1);
    instance.terminate();

    // Its positions are known now, so nothing more is passed over, and one command has what was passed over sent.
    let mut instance = start(&deployment);
    let since = ["alerts", "replay", "--endpoint", "new", "--from", "2026-11-03T00:00:00Z"];
    let until = [&since[..], &["--to", "2026-11-04T00:00:00Z"]].concat();
    deployment.run(&["alerts", "replay", "--from", "2026-11-03T00:00:00Z"]).expect(2);
    deployment.run(&until).expect(0);
    assert_eq!(by_wallet(&receiver.wait_for_requests(6))["w"], [4, 5, 1, 3, 4, 5]);
    deployment.run(&until).expect(1);
    deployment.run(&since).expect(0);
    assert_eq!(receiver.wait_for_requests(7)[6].wallet_and_seq(), ("w.2".to_owned(), 1));
    // None of them is dead.
    deployment.run(&["alerts", "replay"]).expect(1);
    assert_eq!(instance.metric("creditstream_webhook_passed_over_total", &passed_over), 0.0);
    instance.terminate();
}

/// Goal: nothing is lost. Method: kill -9 again and again while alerts are under way to a receiver that refuses a third.
#[test]
fn killed_again_and_again_it_delivers_every_alert_at_least_once_and_in_order() {
    let receiver = Receiver::start(|_, before| Reply::Status(if before % 3 == 2 { 503 } else { 200 }));
    let deployment = deployment(&[endpoint("all", &receiver.url(), LOCAL)], 3_600);
    let alerts = lives(20, 10);
    // Fewer in memory than there are: reading stops and goes on, again and again.
    let start = || deployment.start_with(&["dispatcher"], &[("dispatcher.pending_max", "10")]);
    let mut instance = start();
    post(&deployment, &alerts);
    for part in [20, 60, 120] {
        receiver.wait_for_requests(part);
        instance.kill_9();
        instance = start();
    }
    let all: BTreeSet<String> = alerts.iter().map(ToString::to_string).collect();
    wait_for("every alert", PATIENCE, || {
        let came: BTreeSet<String> = receiver.requests().into_iter().map(|request| request.body).collect();
        (came == all).then_some(())
    });
    assert_in_order(&by_wallet(&receiver.requests()));
    instance.terminate();
}

/// Goal: dispatchers share the work, and one of them dying loses nothing. Method: two of the same group, one killed while
/// alerts are under way; the other has all partitions once the group has noticed.
#[test]
fn two_dispatchers_share_the_partitions_and_when_one_is_killed_the_other_goes_on() {
    let receiver = Receiver::start(|_, _| Reply::Slow(Duration::from_millis(20)));
    let deployment = deployment(&[endpoint("all", &receiver.url(), LOCAL)], 3_600);
    let mut one = start(&deployment);
    wait_for("a reader", PATIENCE, || (one.log_count("alerts are read") >= 1).then_some(()));
    let mut other = start(&deployment);
    let partitions = |instance: &Instance| -> i64 {
        let log = instance.log();
        let line = log.lines().rfind(|line| line.contains("alerts are read"));
        let fields = line.and_then(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        fields.and_then(|fields| fields["partitions"].as_i64()).unwrap_or(0)
    };
    // Of both topics.
    let all = 2 * i64::from(common::deployment::SHARDS);
    wait_for("both to have partitions", PATIENCE, || {
        let (ours, theirs) = (partitions(&one), partitions(&other));
        (ours > 0 && theirs > 0 && ours + theirs == all).then_some(())
    });
    let alerts = lives(20, 3);
    post(&deployment, &alerts);
    let requests = receiver.wait_for_requests(60);
    assert!(by_wallet(&requests).values().all(|seqs| *seqs == [1, 2, 3]), "{:?}", by_wallet(&requests));
    wait_for("the metrics", PATIENCE, || {
        let (ours, theirs) = (deliveries(&one, "all", "delivered"), deliveries(&other, "all", "delivered"));
        (ours > 0.0 && theirs > 0.0 && ours + theirs == 60.0).then_some(())
    });

    let more: Vec<serde_json::Value> = (4..=9)
        .flat_map(|seq| (0..20).map(move |wallet| level_alert(&format!("w.{wallet}"), seq, "low", "lite")))
        .collect();
    post(&deployment, &more);
    receiver.wait_for_requests(80);
    one.kill_9();
    let all: BTreeSet<String> = alerts.iter().chain(&more).map(ToString::to_string).collect();
    wait_for("every alert", PATIENCE, || {
        let came: BTreeSet<String> = receiver.requests().into_iter().map(|request| request.body).collect();
        (came == all).then_some(())
    });
    assert_in_order(&by_wallet(&receiver.requests()));
    other.assert_running();
    assert_eq!(partitions(&other), 2 * i64::from(common::deployment::SHARDS));
    other.terminate();
}
