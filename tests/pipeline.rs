//! The whole pipeline on the real components: whatever is sent is accounted for exactly once.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout)]

mod common;

use std::collections::BTreeMap;

use common::deployment::{SHARDS, everything};
use common::kafka::{self, Sent};
use common::outcome::{JobOutcome, Outcome};
use common::progress::Progress;
use common::proof::{PATIENCE, expected_outcomes};
use common::{Deployment, Instance, random_name, usage, wait_for};
use creditstream::generate::{GenerateOptions, Phase};
use creditstream::kafka::partition_for;
use creditstream::time::{DAY_MS, Timestamp};
use serde_json::Value;
use sha2::Digest;

#[test]
fn everything_sent_is_accounted_for_exactly_once_and_the_metrics_say_so() {
    let deployment = Deployment::new();
    let mut instance = deployment.start(&[]);
    let books = deployment.generate(&everything(15_000, 300));
    deployment.assert_proof_with_clickhouse(&books);

    instance.wait_until_ready();
    for (outcome, count) in expected_outcomes(&books) {
        let counted = instance.metric("creditstream_events_total", &[("outcome", &outcome)]);
        assert_eq!(counted as u64, count, "events_total{{outcome={outcome:?}}}");
    }
    let intake = deployment.config.topics.intake.as_str();
    let handed_over = instance.metric("creditstream_events_total", &[("outcome", "handed_over")]);
    let at_intake = instance.metric("creditstream_events_total", &[("topic", intake)]);
    assert!(handed_over > 0.0, "wrongly keyed records are handed over");
    assert_eq!(handed_over, at_intake);
    for (reason, count) in &books.reasons {
        assert_eq!(
            instance.metric("creditstream_quarantined_events_total", &[("reason", reason)]) as u64,
            *count,
            "{reason}"
        );
    }
    let flows = [
        ("granted", books.credits.granted),
        ("charged", books.credits.charged),
        ("reversed", books.credits.reversed),
        ("adjusted_up", books.credits.adjusted_up),
        ("adjusted_down", books.credits.adjusted_down),
    ];
    for (flow, credits) in flows {
        assert_eq!(
            instance.metric("creditstream_credits_total", &[("flow", flow)]) as i64,
            credits,
            "{flow}"
        );
    }
    assert_eq!(instance.metric("creditstream_wallets", &[]) as usize, books.wallets.len());
    assert_eq!(instance.metric("creditstream_shards_owned", &[]), f64::from(SHARDS));
    wait_for("no lag", PATIENCE, || (instance.metric("creditstream_lag_records", &[]) == 0.0).then_some(()));
    instance.terminate();
}

#[test]
fn roles_work_apart_in_processes_of_their_own() {
    let deployment = Deployment::new();
    let mut ledger = deployment.start(&["ledger"]);
    let books = deployment.generate(&everything(5_000, 100));
    deployment.assert_proof(&books);
    assert_eq!(deployment.clickhouse().number("SELECT count() FROM ledger_entries"), 0, "no sink runs yet");
    ledger.terminate();

    let mut sink = deployment.start(&["sink"]);
    deployment.assert_proof_with_clickhouse(&books);
    assert_eq!(sink.metric("creditstream_events_total", &[]), 0.0, "the sink decides nothing");
    sink.terminate();
}

/// Sends adjustments to wallets, as a person would make them.
fn adjust(deployment: &Deployment, wallets: impl Iterator<Item = (impl Into<String>, i64)>) {
    let events: Vec<(String, String)> = wallets
        .map(|(wallet, credits)| {
            let (wallet, time) = (wallet.into(), Timestamp::now());
            let event = serde_json::json!({
                "specversion": "1.0", "id": random_name(), "source": "/t", "type": "wallet.adjusted", "subject": wallet,
                "time": time, "data": {"adjustment_id": random_name(), "credits": credits, "reason": "r", "actor": "a"}
            });
            (wallet, event.to_string())
        })
        .collect();
    let sent = events.iter().map(|(wallet, event)| Sent {
        key: Some(wallet.as_bytes()),
        value: Some(event.as_bytes()),
        ..Sent::default()
    });
    let topic = &deployment.config.topics.wallet;
    kafka::send_all(&deployment.config, topic, &sent.collect::<Vec<_>>()).unwrap();
}

/// Goal: the view `runway` in ClickHouse and the alert follow the same rule. Method: wallets on both sides of three days,
/// after a pace of one, five and seven days, and some without any pace or without credits.
#[test]
fn the_runway_in_clickhouse_is_below_three_days_for_exactly_the_wallets_that_an_alert_warns() {
    // Images charged so many days ago.
    type Usage = &'static [(i64, u32)];
    const FIVE_DAYS: Usage = &[(5, 10), (4, 10), (3, 10), (2, 10), (1, 10)];
    const ALL_ON_ONE: Usage = &[(20, 1), (3, 70)];
    let lives: [(&str, i64, Usage, &str); 10] = [
        ("five-days-and-enough", 80, FIVE_DAYS, "3"),
        ("five-days-and-one-less", 79, FIVE_DAYS, "2.9"),
        ("seven-days-and-enough", 101, ALL_ON_ONE, "3"),
        ("seven-days-and-one-less", 100, ALL_ON_ONE, "2.9"),
        ("one-day-and-enough", 40, &[(1, 10)], "3"),
        ("one-day-and-one-less", 39, &[(1, 10)], "2.9"),
        ("only-today", 11, &[(0, 10)], "\\N"),
        ("only-before", 11, &[(8, 10)], "\\N"),
        ("all-gone-at-once", 50, &[(5, 50)], "0"),
        ("overdrawn-at-once", 40, &[(5, 50)], "0"),
    ];
    // By the next day all would be otherwise.
    let day_left = |now: Timestamp| DAY_MS - now.millis().rem_euclid(DAY_MS);
    wait_for("a day that lasts", PATIENCE + PATIENCE, || {
        (day_left(Timestamp::now()) > PATIENCE.as_millis() as i64).then_some(())
    });
    let deployment = Deployment::new();
    let mut instance = deployment.start(&[]);
    let credited: Vec<(&str, i64)> = lives.iter().map(|(wallet, credits, ..)| (*wallet, *credits)).collect();
    adjust(&deployment, credited.into_iter());
    let now = Timestamp::now().millis();
    for (wallet, _, usage, _) in &lives {
        for (days_ago, images) in *usage {
            let time = Timestamp::from_millis(now - days_ago * DAY_MS);
            let id = random_name();
            let event = serde_json::json!({
                "specversion": "1.0", "id": id, "source": "/t", "type": "generation.completed", "subject": wallet,
                "time": time, "data": {"job_id": id, "asset": "image", "images": images}
            });
            let (key, value) = (Some(wallet.as_bytes()), event.to_string());
            let sent = Sent { key, value: Some(value.as_bytes()), ..Sent::default() };
            kafka::send(&deployment.config, &deployment.config.topics.generation, &sent).unwrap();
        }
    }
    let clickhouse = deployment.clickhouse();
    let charges: usize = lives.iter().map(|(_, _, usage, _)| usage.len()).sum();
    wait_for("all charges in ClickHouse", PATIENCE, || {
        let charged = "SELECT count() FROM ledger_entries FINAL WHERE entry_type = 'charged'";
        (clickhouse.number(charged) == charges as i64).then_some(())
    });
    wait_for("no lag", PATIENCE, || (instance.metric("creditstream_lag_records", &[]) == 0.0).then_some(()));

    let warned = clickhouse
        .rows("SELECT DISTINCT wallet_id FROM alerts FINAL WHERE kind = 'runway' ORDER BY wallet_id");
    let below_three_days =
        lives.iter().filter(|(_, _, _, runway)| matches!(*runway, "2.9")).map(|(wallet, ..)| *wallet);
    let mut expected: Vec<&str> = below_three_days.collect();
    expected.sort_unstable();
    assert_eq!(warned.iter().map(|row| row[0].as_str()).collect::<Vec<_>>(), expected);
    for (wallet, _, _, runway) in lives {
        let view = format!("SELECT runway_days FROM runway(wallet = '{wallet}', at = now())");
        assert_eq!(clickhouse.rows(&view), [[runway]], "{wallet}");
    }
    instance.terminate();
}

/// Wallets that an instance lists by name, with what they have; and how many it leaves out.
fn listed(instance: &Instance) -> (BTreeMap<String, i64>, i64) {
    let samples = instance.metrics();
    let of_wallets = samples.iter().filter(|sample| sample.name == "creditstream_wallet_available_credits");
    let listed = of_wallets.map(|sample| {
        assert_eq!((sample.labels["plan"].as_str(), sample.labels["level"].as_str()), ("none", "overdrawn"));
        (sample.labels["wallet"].clone(), sample.value as i64)
    });
    (listed.collect(), instance.metric("creditstream_wallet_series_omitted", &[]) as i64)
}

/// Goal: series by wallet are few, and those that matter, whoever has the shards. Method: 20 overdrawn wallets, two
/// workers, then a second instance; some wallets recover; an instance leaves.
#[test]
fn the_wallets_most_in_need_are_listed_by_name_until_they_recover_or_their_shard_leaves() {
    let deployment = Deployment::with(&[("alerts.series_limit", "5"), ("ledger.workers", "2")]);
    let mut one = deployment.start_with(&["ledger"], &[("ledger.instance", "one")]);
    one.wait_until_ready();
    let name = |number: u32| format!("w.{number:02}");
    let overdraws = |number: u32| (name(number), -100 - i64::from(number));
    adjust(&deployment, (0..20).map(overdraws));
    let of = |numbers: std::ops::Range<u32>| -> BTreeMap<String, i64> { numbers.map(overdraws).collect() };
    let worst = of(15..20);
    wait_for("the five worst", PATIENCE, || (listed(&one) == (worst.clone(), 15)).then_some(()));
    // What pays an overdraft takes the series away, and the next ones come.
    adjust(&deployment, (17..20).map(|number| (name(number), 1_000)));
    let next = of(12..17);
    wait_for("the next five", PATIENCE, || (listed(&one) == (next.clone(), 12)).then_some(()));

    let mut two = deployment.start_with(&["ledger"], &[("ledger.instance", "two")]);
    let sum_up = |one: &Instance, two: &Instance| {
        let ((mut all, of_one), (of_two, omitted)) = (listed(one), listed(two));
        let counts = (all.len(), of_two.len());
        all.extend(of_two);
        (counts, all.len(), of_one + omitted)
    };
    wait_for("both to list their own", PATIENCE, || {
        let ((ours, theirs), all, omitted) = sum_up(&one, &two);
        let is_apart = ours > 0 && theirs > 0 && ours.max(theirs) <= 5 && all == ours + theirs;
        (is_apart && all as i64 + omitted == 17).then_some(())
    });
    one.terminate();
    wait_for("the other to list the five worst", PATIENCE, || {
        (listed(&two) == (next.clone(), 12)).then_some(())
    });
    two.terminate();
}

#[test]
fn three_workers_share_the_shards_of_one_instance() {
    let deployment = Deployment::with(&[("ledger.workers", "3")]);
    let mut instance = deployment.start(&[]);
    let books = deployment.generate(&everything(10_000, 200));
    deployment.assert_proof_with_clickhouse(&books);
    instance.wait_until_ready();
    assert_eq!(instance.metric("creditstream_shards_owned", &[]), f64::from(SHARDS));
    instance.terminate();
}

/// The same records into empty topics, once for one worker and once for three. Contracts, top-ups and adjustments are
/// posted before usage is sent, for a grant that comes before a charge pays for it, and the order of topics is not
/// promised. No limits are set: whether one is passed depends on the order too.
#[test]
fn three_workers_charge_each_job_and_leave_each_wallet_what_one_does() {
    // Only jobs of the last hours are held, and by night those are few: all of them are requested.
    let options = GenerateOptions {
        limits_percent: 0.0,
        topups_percent: 60.0,
        requests_percent: 100.0,
        ..everything(8_000, 400)
    };
    let (of_one, of_three) = (outcome_with_workers(1, &options), outcome_with_workers(3, &options));
    of_one.assert_equals(&of_three);

    // What was compared is not next to nothing.
    let count = |is: fn(&JobOutcome) -> bool| of_one.jobs.values().filter(|job| is(job)).count();
    assert!(count(|job| job.charged > 0) > 3_000 && count(|job| job.reversed > 0) > 50);
    assert!(count(|job| job.entry_types.contains_key("held")) > 200);
    assert!(of_one.wallets.values().any(|wallet| wallet.overdraft > 0));
    let grants = of_one.grants_in_order(&of_three);
    assert!(grants.len() > 50 && grants.values().any(|of_wallet| of_wallet.len() > 2), "{}", grants.len());
}

/// What comes of generated records where so many workers share the shards.
fn outcome_with_workers(workers: usize, options: &GenerateOptions) -> Outcome {
    let shards = 12;
    let settings = [("topics.shards", shards.to_string()), ("ledger.workers", workers.to_string())];
    let deployment =
        Deployment::with(&settings.each_ref().map(|(setting, value)| (*setting, value.as_str())));
    let mut instance = deployment.start(&["ledger"]);
    let has_its_share = |worker: usize| {
        instance.log().lines().filter_map(|line| serde_json::from_str(line).ok()).any(|line: Value| {
            line["message"] == "partitions taken over"
                && line["worker"] == worker
                && line["shards"] == shards / workers
        })
    };
    wait_for("an equal share for each worker", PATIENCE, || (0..workers).all(has_its_share).then_some(()));
    let mut books = deployment.generate(&GenerateOptions { phase: Phase::Setup, ..options.clone() });
    wait_for("all contracts, top-ups and adjustments, and the allocations", PATIENCE, || {
        let granted = instance.metric("creditstream_credits_total", &[("flow", "granted")]);
        (granted as i64 == books.credits.granted).then_some(())
    });
    deployment.wait_until_processed(&books);
    books.add(&deployment.generate(&GenerateOptions { phase: Phase::Usage, ..options.clone() }));
    deployment.assert_proof(&books);
    let outcome = Outcome::read(&deployment.config);
    instance.terminate();
    outcome
}

#[test]
fn a_source_split_otherwise_than_the_shards_is_handed_over_whole() {
    let deployment = Deployment::without_init(&[]);
    let topics = &deployment.config.topics;
    kafka::create_topic(&deployment.config, &topics.generation, SHARDS - 1, &[]);
    deployment.run(&["init"]).expect(0);
    let mut instance = deployment.start(&[]);
    let books = deployment.generate(&everything(5_000, 100));
    deployment.assert_proof_with_clickhouse(&books);

    let progress = deployment.wait_until_processed(&books);
    let at_source = progress.outcomes_of(&topics.generation);
    let kinds: Vec<&str> = at_source.keys().map(String::as_str).collect();
    assert_eq!(kinds, ["handed_over", "quarantined"], "nothing else is decided where it was read");
    let first = progress.latest(&format!("{}/0", topics.generation)).unwrap();
    assert_eq!((&first["at_home"], &first["partitions"]), (&false.into(), &(SHARDS - 1).into()));
    instance.terminate();
}

#[test]
fn with_nothing_to_read_it_becomes_ready_and_ends_when_told() {
    let deployment = Deployment::new();
    let mut instance = deployment.start(&[]);
    instance.wait_until_ready();
    assert_eq!(instance.get("/livez").unwrap().0, 200);
    let outcome = [("outcome", "charged"), ("topic", deployment.config.topics.generation.as_str())];
    let is_there = |sample: &common::instance::Sample| {
        sample.name == "creditstream_events_total"
            && outcome.iter().all(|(label, value)| sample.labels[*label] == *value)
    };
    assert!(instance.metrics().iter().any(is_there), "closed label sets are there from the start, at 0");
    instance.terminate();
    assert!(kafka::read_all(&deployment.config, &deployment.config.topics.ledger).is_empty());
}

#[test]
fn a_stop_signal_under_load_ends_it_cleanly_and_loses_nothing() {
    let deployment = Deployment::new();
    let mut instance = deployment.start(&[]);
    instance.wait_until_ready();
    let load = deployment.generate_slowly(&everything(12_000, 100), 3_000);
    let mut progress = Progress::follow(&deployment.config);
    progress.wait_until_decided(1_000, PATIENCE);
    let took = instance.terminate();
    assert!(!load.is_finished(), "load was on");
    println!("ended in {took:?}");

    let mut second = deployment.start(&[]);
    deployment.assert_proof_with_clickhouse(&load.join().unwrap());
    second.terminate();
}

/// A value, key or header that came must be there again, byte for byte, with the place it came from.
#[test]
fn a_quarantined_record_is_kept_byte_for_byte_with_its_origin() {
    let source_bytes_max = 2_000_000;
    let deployment = Deployment::without_init(&[]);
    let config = &deployment.config;
    let topic = config.topics.generation.as_str();
    kafka::create_topic(config, topic, SHARDS, &[("max.message.bytes", &source_bytes_max.to_string())]);
    deployment.run(&["init"]).expect(0);

    let megabyte = vec![b'x'; 1_000_000];
    let largest = largest_accepted(&deployment, source_bytes_max);
    let wallet = random_name();
    let no_data = format!(
        r#"{{"specversion":"1.0","id":"1","source":"/e2e","type":"generation.completed","subject":"{wallet}","time":"{}","data":{{}}}}"#,
        Timestamp::now()
    );
    let headers: Vec<(&str, Option<&[u8]>)> =
        vec![("trace", Some(b"\x00\xff\xfe")), ("trace", Some(b"again")), ("empty", Some(b""))];
    let elsewhere = (partition_for(wallet.as_bytes(), SHARDS) + 1) % SHARDS;
    let cases = [
        (
            "too_large",
            Sent {
                partition: Some(0),
                key: Some(b"large"),
                value: Some(&megabyte),
                headers: headers.clone(),
            },
        ),
        (
            "not_json",
            Sent { partition: Some(1), key: None, value: Some(b"\x00\x01\xff"), headers: headers.clone() },
        ),
        ("not_json", Sent { partition: Some(1), key: Some(b"\xff\x00"), value: None, headers: vec![] }),
        ("not_json", Sent { partition: Some(2), key: Some(b""), value: Some(b""), headers: vec![] }),
        // Decided at home, after a way through intake: the key and headers are those of its producer all the same.
        (
            "missing_field",
            Sent {
                partition: Some(elsewhere),
                key: Some(b"not the wallet"),
                value: Some(no_data.as_bytes()),
                headers: headers.clone(),
            },
        ),
        (
            "missing_field",
            Sent { partition: Some(elsewhere), key: None, value: Some(no_data.as_bytes()), headers },
        ),
    ];
    for (_, sent) in &cases {
        kafka::send(config, topic, sent).unwrap();
    }
    let mut instance = deployment.start(&[]);
    let expected = cases.len() + 1;
    let mut progress = Progress::follow(config);
    progress.wait_until_decided(expected as u64, PATIENCE);

    let sources = kafka::read_all(config, topic);
    let kept = kafka::read_all(config, &config.topics.quarantine);
    assert_eq!((sources.len(), kept.len()), (expected, expected));
    for source in &sources {
        let is_it = |record: &&kafka::Record| {
            record.header("cs_partition") == Some(source.partition.to_string())
                && record.header("cs_offset") == Some(source.offset.to_string())
        };
        let found = kept.iter().find(is_it).expect("every record is in the quarantine");
        assert_eq!(found.key, source.key, "key of {source:?}");
        assert!(found.value == source.value, "value of the record at {}/{}", source.partition, source.offset);
        let own: Vec<_> =
            found.headers.iter().filter(|(name, _)| !name.starts_with("cs_")).cloned().collect();
        assert_eq!(own, source.headers, "headers");
        assert_eq!(found.header("cs_topic").as_deref(), Some(topic));
        assert!(
            !found.header("cs_topic_id").unwrap().is_empty()
                && !found.header("cs_detail").unwrap().is_empty()
        );
        let time = creditstream::time::Timestamp::parse(&found.header("cs_time").unwrap()).unwrap();
        assert_eq!(time.millis(), source.timestamp, "its Kafka timestamp");
        let reason = match &source.value {
            Some(value) if value.len() == largest => "too_large",
            value => {
                cases
                    .iter()
                    .find(|(_, sent)| sent.value == value.as_deref() && sent.key == source.key.as_deref())
                    .unwrap()
                    .0
            }
        };
        assert_eq!(found.header("cs_reason").as_deref(), Some(reason));
    }
    let largest_kept = "SELECT max(value_bytes) FROM quarantined_events FINAL";
    wait_for("all of them in ClickHouse", PATIENCE, || {
        let clickhouse = deployment.clickhouse();
        let count = clickhouse.number("SELECT count() FROM quarantined_events FINAL");
        (count == expected as i64 && clickhouse.number(largest_kept) == largest as i64).then_some(())
    });
    instance.terminate();
}

/// The limit of a source was raised after `init`: what the quarantine or intake does not take whole is cut, and says so.
/// The records beside it are dealt with as ever.
#[test]
fn a_record_too_large_for_the_quarantine_is_cut_and_says_what_it_was() {
    let deployment = Deployment::new();
    let config = &deployment.config;
    let topic = config.topics.generation.as_str();
    kafka::set_topic(config, topic, &[("max.message.bytes", "5000000")]);

    // Nothing that compression could make small.
    let mut state = 1_u64;
    let mut noise = |bytes: usize| -> Vec<u8> {
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        };
        (0..bytes).map(|_| next()).collect()
    };
    let (large, large_header) = (noise(2_000_000), noise(1_500_000));
    let wallet = random_name();
    let event = |id: &str| {
        format!(
            r#"{{"specversion":"1.0","id":"{id}","source":"/e2e","type":"generation.completed","subject":"{wallet}","time":"{}","data":{{"job_id":"{id}","asset":"image","images":1}}}}"#,
            Timestamp::now()
        )
    };
    let (home, charged, handed_over) = (partition_for(wallet.as_bytes(), SHARDS), event("1"), event("2"));
    let elsewhere = (home + 1) % SHARDS;
    for sent in [
        Sent {
            partition: Some(home),
            key: Some(b"k"),
            value: Some(&large),
            headers: vec![("trace", Some(b"t"))],
        },
        Sent {
            partition: Some(home),
            key: Some(wallet.as_bytes()),
            value: Some(charged.as_bytes()),
            headers: vec![],
        },
        Sent {
            partition: Some(elsewhere),
            key: None,
            value: Some(handed_over.as_bytes()),
            headers: vec![("noise", Some(&large_header))],
        },
    ] {
        kafka::send(config, topic, &sent).unwrap();
    }
    let mut instance = deployment.start(&[]);
    Progress::follow(config).wait_until_decided(3, PATIENCE);

    let mut kept = kafka::read_all(config, &config.topics.quarantine);
    kept.sort_by_key(|record| record.value.as_ref().map(Vec::len));
    let [small, cut] = kept.as_slice() else { panic!("two records, not {}", kept.len()) };
    assert_eq!(cut.value.as_deref(), Some(&large[..16_384]), "the beginning of its value");
    assert_eq!((cut.key_text(), cut.header("trace").as_deref()), ("k", Some("t")));
    assert_eq!(
        cut.header("cs_truncated").unwrap(),
        format!(
            "key_bytes=1 value_bytes=2000000 header_bytes=6 value_sha256={}",
            sha2::Sha256::digest(&large).iter().map(|byte| format!("{byte:02x}")).collect::<String>()
        )
    );
    assert_eq!(small.value.as_deref(), Some(handed_over.as_bytes()), "its value was not what is too large");
    assert!(small.header("cs_truncated").unwrap().contains("header_bytes=1500005"), "{small:?}");
    assert_eq!(small.header("noise"), None);
    for record in [small, cut] {
        assert_eq!(record.header("cs_reason").as_deref(), Some("too_large"));
        let place = format!("{}/{}", record.partition, record.offset);
        let refused = deployment.run(&["quarantine", "replay", &place]).expect(1);
        assert!(refused.stdout.starts_with("0 records sent again; "), "{}", refused.stdout);
        assert!(refused.stdout.trim_end().ends_with(&format!("smaller ones: {place}")), "{}", refused.stdout);
        assert!(deployment.run(&["quarantine", "show", &place]).expect(0).stdout.contains("cut, it had"));
    }
    let charges = kafka::read_all(config, &config.topics.ledger);
    assert!(charges.iter().any(|record| record.json()["entries"][0]["job_id"] == "1"), "{charges:?}");
    instance.terminate();
}

/// Sends the largest record that the source topic takes, and says how long its value is.
fn largest_accepted(deployment: &Deployment, message_bytes_max: usize) -> usize {
    let send = |length: usize| {
        let value = vec![b'y'; length];
        let sent = Sent { partition: Some(3), key: None, value: Some(&value), headers: vec![] };
        kafka::send(&deployment.config, &deployment.config.topics.generation, &sent)
    };
    // A batch's header has 61 bytes, a record's own at least 7.
    for length in (message_bytes_max - 90..message_bytes_max - 60).rev() {
        if send(length).is_ok() {
            assert!(send(length + 1).is_err());
            return length;
        }
    }
    panic!("the topic takes no record near max.message.bytes");
}

/// Sent twice in full: what was accepted is a duplicate, conflicts are conflicts again. Without bad records, for
/// some of those are mended later under the same id, and are conflicts then.
#[test]
fn the_same_records_sent_again_change_nothing() {
    let deployment = Deployment::new();
    let mut instance = deployment.start(&["ledger"]);
    let options = GenerateOptions { bad_percent: 0.0, ..everything(4_000, 100) };
    let mut books = deployment.generate(&options);
    deployment.assert_proof(&books);
    let again = common::proof::sent_again(&deployment.generate(&options));
    books.add(&again);
    deployment.assert_proof(&books);
    books.add(&deployment.generate(&usage(2, 2_000, 100)));
    deployment.assert_proof(&books);
    instance.terminate();
}
