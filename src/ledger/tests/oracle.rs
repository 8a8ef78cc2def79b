//! The ledger stage against the oracle: random lives of wallets, told by an independent program (tests/oracle, in
//! Python, written from the rules alone), step by step.
//!
//! Goal: what a life makes of a wallet is what the rules say. Method: every step of a life is a committed batch of its
//! own; outcome, reason, entries, sums, level and alerts must be the oracle's after each, and grants and usage in the end. A
//! life that differs is made as short as possible and printed.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::bench::Computed;
use super::*;
use crate::config::Config;
use crate::event::EventRules;
use crate::ledger::TimeRules;
use crate::ledger::books::Outcome;
use crate::ledger::clock::ClockState;
use crate::ledger::outbox::OutTopic;
use crate::rate::Pricing;
use crate::time::{DAY_MS, ShardClock, Timestamp};
use crate::verify::{told_by, told_in};
use crate::wallet::{LedgerRecord, Level, Policy};

/// Lives of a run where `CREDITSTREAM_ORACLE_LIVES` does not say how many.
const LIVES: u64 = 200;
/// Seeds begin here where `CREDITSTREAM_ORACLE_SEED` does not say where.
const FIRST_SEED: u64 = 1;

#[derive(Clone, Deserialize)]
struct Life {
    wallet: String,
    settings: Settings,
    steps: Vec<Step>,
}

#[derive(Clone, Deserialize)]
struct Settings {
    pricing: Value,
    plan_priority: u16,
    adjustment_priority: u16,
    topup_priority: u16,
    low_percent: u8,
    critical_percent: u8,
    hysteresis_percent: u8,
    allowed_lateness_ms: i64,
    horizon_ms: i64,
    max_clock_skew_ms: i64,
    images_max: u32,
    video_seconds_max: u32,
    adjustment_credits_max: i64,
    term_months_max: u32,
}

/// An event, or where other wallets move the clock to, or both in one batch.
#[derive(Clone, Deserialize)]
struct Step {
    #[serde(default)]
    topic: String,
    event: Option<Box<RawValue>>,
    #[serde(default)]
    record_ms: i64,
    tick_ms: Option<i64>,
    wall_ms: i64,
}

#[derive(Deserialize)]
struct Case {
    life: Box<RawValue>,
    expected: Value,
}

/// What is kept of a wallet while its life is played.
#[derive(Default)]
struct Played {
    grants: BTreeMap<String, PlayedGrant>,
    usage: BTreeMap<(String, u64), Value>,
    level: Level,
}

#[derive(Clone, Debug)]
struct PlayedGrant {
    kind: &'static str,
    granted: i64,
    remaining: i64,
    repaid: i64,
    granted_at_ms: i64,
    priority: u16,
}

fn config_of(settings: &Settings) -> (Config, Pricing) {
    let mut config = Config::default();
    config.pricing.plan_priority = settings.plan_priority;
    config.pricing.adjustment_priority = settings.adjustment_priority;
    config.pricing.topup_priority = settings.topup_priority;
    config.alerts.low_percent = settings.low_percent;
    config.alerts.critical_percent = settings.critical_percent;
    config.alerts.hysteresis_percent = settings.hysteresis_percent;
    config.clock.allowed_lateness_seconds = u32::try_from(settings.allowed_lateness_ms / 1_000).unwrap();
    config.clock.horizon_days = u32::try_from(settings.horizon_ms / DAY_MS).unwrap();
    config.clock.max_clock_skew_seconds = u32::try_from(settings.max_clock_skew_ms / 1_000).unwrap();
    config.events.images_max = settings.images_max;
    config.events.video_seconds_max = settings.video_seconds_max;
    config.events.adjustment_credits_max = settings.adjustment_credits_max;
    config.events.term_months_max = settings.term_months_max;
    let pricing = toml::to_string(&settings.pricing).unwrap();
    (config, Pricing::parse(&pricing).unwrap_or_else(|faults| panic!("{faults}\n{pricing}")))
}

/// Plays a life; the first difference to what is expected, in words.
fn play(life: &Life, expected: &Value) -> Result<(), String> {
    let (config, pricing) = config_of(&life.settings);
    let mut bench = Bench::new();
    bench.with_snapshots = false;
    bench.rules = EventRules::new(&config.events);
    bench.policy = Policy::new(&config, std::sync::Arc::new(pricing));
    bench.time = TimeRules::new(&config.clock);
    let mut clock = ShardClock(Timestamp::from_millis(0));
    let mut played = Played::default();
    for (number, step) in life.steps.iter().enumerate() {
        bench.wall = Timestamp::from_millis(step.wall_ms);
        if let Some(tick) = step.tick_ms {
            clock = clock.max(ShardClock(Timestamp::from_millis(tick.min(step.wall_ms))));
        }
        let topic = if step.topic == "wallet" { WALLET } else { GENERATION };
        // One source that is never at its end.
        let shard_clock = &mut bench.shards.get_mut(&0).unwrap().state.head.clock;
        *shard_clock = ClockState::new(clock);
        shard_clock.assign([topic]);
        let before = bench.counts();
        let made: Vec<Made> = step
            .event
            .iter()
            .map(|event| Made {
                timestamp: Timestamp::from_millis(step.record_ms),
                ..Made::new(topic, event.get().as_bytes())
            })
            .collect();
        let computed = bench.run(&made);
        clock = bench.clock();
        let wanted = &expected["steps"][number];
        let came = played.step(&bench, &computed, &before, &life.wallet);
        if let Some(differs) = difference(&came, wanted) {
            let what = step.event.as_ref().map_or("tick".to_owned(), |event| event.get().to_owned());
            let records = computed.records(OutTopic::Ledger).into_iter().map(|(_, _, value)| value);
            let records = records.collect::<Vec<_>>().join("\n");
            return Err(format!("step {number}: {differs}\n{what}\nclock {clock:?}\n{records}"));
        }
    }
    played.check_end(&bench, &life.wallet, expected)
}

impl Played {
    fn step(&mut self, bench: &Bench, computed: &Computed, before: &[u64], wallet_id: &str) -> Value {
        let after = bench.counts();
        let changed = Outcome::ALL
            .into_iter()
            .zip(before.iter().zip(after))
            .find(|(_, (before, after))| after > *before);
        let outcome = changed.map_or("tick", |(outcome, _)| outcome.as_str());
        let (mut entries, mut told) = (Vec::new(), Vec::new());
        for (_, _, value) in computed.records(OutTopic::Ledger) {
            let record: LedgerRecord<'_> = serde_json::from_str(&value).unwrap();
            told.extend(told_by(&value, self.level));
            self.level = record.entries.last().unwrap().level;
            for entry in &record.entries {
                entries.push(serde_json::json!([
                    entry.entry_type.as_str(),
                    entry.credits,
                    entry.held_credits,
                    entry.amount,
                    entry.overdraft_after,
                    entry.held_after,
                    entry.balance_after
                ]));
                self.learn(entry);
            }
        }
        // What `verify` expects of the topic by the entries alone.
        let raised = computed.records(OutTopic::Alerts);
        assert_eq!(told, raised.iter().map(|(_, _, alert)| told_in(alert)).collect::<Vec<_>>());
        let wallet = bench.wallet(wallet_id).unwrap_or_default();
        serde_json::json!({
            "outcome": outcome,
            "reason": computed.tally.reasons.first().map(|reason| reason.as_str()),
            "entries": entries,
            "balance": wallet.balance(),
            "held": wallet.held,
            "overdraft": wallet.overdraft,
            "level": wallet.level.as_str(),
            "alerts": alerts_of(computed),
        })
    }

    fn learn(&mut self, entry: &crate::wallet::Entry<'_>) {
        for effect in &entry.grant_effects {
            let id = effect.grant_id.to_string();
            if let Some(terms) = entry.grant.as_ref().filter(|_| !self.grants.contains_key(&id)) {
                self.grants.insert(
                    id.clone(),
                    PlayedGrant {
                        kind: effect.kind.as_str(),
                        granted: effect.credits,
                        remaining: 0,
                        repaid: 0,
                        granted_at_ms: terms.granted_at.millis(),
                        priority: terms.priority,
                    },
                );
            }
            let grant = self.grants.get_mut(&id).unwrap();
            (grant.remaining, grant.repaid) = (effect.remaining_after, effect.repaid_after);
        }
        if let Some(bucket) = &entry.bucket {
            let asset = entry.asset_type.unwrap().as_str();
            let hour = &bucket.hour.to_string()[..13];
            let key = format!("{hour}|{asset}|{}|{}", entry.model, entry.plan);
            let totals = serde_json::json!({
                "jobs": bucket.jobs, "images": bucket.images, "video_ms": bucket.video_seconds.0,
                "credits_charged": bucket.credits_charged, "credits_reversed": bucket.credits_reversed,
                "credits_refused": bucket.credits_refused
            });
            self.usage.insert((key, bucket.part), totals);
        }
    }

    fn check_end(&self, bench: &Bench, wallet_id: &str, expected: &Value) -> Result<(), String> {
        let wallet = bench.wallet(wallet_id).unwrap_or_default();
        let mut came: Vec<String> = self
            .grants
            .values()
            .map(|grant| {
                format!(
                    "{} {} {} {} {} {}",
                    grant.kind,
                    grant.granted,
                    grant.remaining,
                    grant.repaid,
                    grant.granted_at_ms,
                    grant.priority
                )
            })
            .collect();
        let list = |name: &str| expected[name].as_array().unwrap().clone();
        let mut wanted: Vec<String> = list("grants")
            .iter()
            .map(|grant| {
                let text = |name: &str| grant[name].as_str().map_or(grant[name].to_string(), str::to_owned);
                ["kind", "granted", "remaining", "repaid", "granted_at_ms", "priority"].map(text).join(" ")
            })
            .collect();
        came.sort();
        wanted.sort();
        if came != wanted {
            return Err(format!("grants in the end:\n{came:#?}\nexpected\n{wanted:#?}"));
        }
        let expiry = |at: Option<Timestamp>| at.map_or(Value::Null, |at| at.millis().into());
        let open = |grants: Vec<(Value, i64)>| {
            let mut open: Vec<String> = grants
                .into_iter()
                .filter(|(_, left)| *left > 0)
                .map(|(expiry, left)| format!("{left} until {expiry}"))
                .collect();
            open.sort();
            open
        };
        let came =
            open(wallet.grants.iter().map(|grant| (expiry(grant.expires_at), grant.remaining)).collect());
        let wanted = open(
            list("grants")
                .iter()
                .map(|grant| (grant["expires_at_ms"].clone(), grant["remaining"].as_i64().unwrap()))
                .collect(),
        );
        if came != wanted {
            return Err(format!("expiries in the end: {came:?}, expected {wanted:?}"));
        }
        let mut usage: BTreeMap<String, BTreeMap<String, i64>> = BTreeMap::new();
        for ((key, _), totals) in &self.usage {
            let sums = usage.entry(key.clone()).or_default();
            for (name, total) in totals.as_object().unwrap() {
                *sums.entry(name.clone()).or_default() += total.as_i64().unwrap();
            }
        }
        let came = serde_json::to_value(&usage).unwrap();
        if came != expected["usage"] {
            return Err(format!("usage in the end: {came:#}, expected {:#}", expected["usage"]));
        }
        Ok(())
    }
}

/// Alerts as the oracle tells them: it knows neither when they are written nor how times are spelt.
fn alerts_of(computed: &Computed) -> Vec<Value> {
    let told = |value: &str| {
        let mut alert: Value = serde_json::from_str(value).unwrap();
        let members = alert.as_object_mut().unwrap();
        assert_eq!((members.remove("v"), members.remove("raised_at").is_some()), (Some(1.into()), true));
        if let Some(time) = members.get_mut("expires_at") {
            *time = Timestamp::parse(time.as_str().unwrap()).unwrap().millis().into();
        }
        alert
    };
    computed.records(OutTopic::Alerts).iter().map(|(_, _, value)| told(value)).collect()
}

fn difference(came: &Value, wanted: &Value) -> Option<String> {
    let names = ["outcome", "reason", "entries", "balance", "held", "overdraft", "level", "alerts"];
    let name = names.into_iter().find(|name| came[*name] != wanted[*name])?;
    Some(format!("{name} is {}, expected {}", came[name], wanted[name]))
}

/// The oracle as a process that answers line by line.
struct Oracle {
    process: Child,
    answers: BufReader<std::process::ChildStdout>,
}

impl Oracle {
    fn start(arguments: &[&str]) -> Oracle {
        let main = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oracle/main.py");
        let mut process = Command::new("python3")
            .arg(main)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 is needed to run the oracle");
        let answers = BufReader::new(process.stdout.take().unwrap());
        Oracle { process, answers }
    }

    fn evaluate(&mut self, life: &str) -> Value {
        let input = self.process.stdin.as_mut().unwrap();
        writeln!(input, "{life}").unwrap();
        input.flush().unwrap();
        let mut answer = String::new();
        self.answers.read_line(&mut answer).unwrap();
        serde_json::from_str(&answer).unwrap_or_else(|error| panic!("the oracle failed: {error}"))
    }
}

impl Drop for Oracle {
    fn drop(&mut self) {
        // It may be waiting for somebody to read what it has to say.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Leaves out steps as long as the life still differs from what the oracle says of it.
fn shortest(life: &RawValue, oracle: &mut Oracle) -> (String, String) {
    let mut whole: BTreeMap<String, Box<RawValue>> = serde_json::from_str(life.get()).unwrap();
    let mut steps: Vec<Box<RawValue>> = serde_json::from_str(whole["steps"].get()).unwrap();
    let mut told = |steps: &[Box<RawValue>]| {
        whole.insert("steps".to_owned(), serde_json::value::to_raw_value(steps).unwrap());
        serde_json::to_string(&whole).unwrap()
    };
    let mut fails = |text: &str| {
        let expected = oracle.evaluate(text);
        let life: Life = serde_json::from_str(text).unwrap();
        std::panic::catch_unwind(|| play(&life, &expected))
            .unwrap_or_else(|_| Err("panicked".to_owned()))
            .err()
    };
    let mut why = fails(&told(&steps)).unwrap_or_else(|| "it does not fail again".to_owned());
    let mut size = (steps.len() / 2).max(1);
    loop {
        let mut place = 0;
        while place < steps.len() {
            let mut fewer = steps.clone();
            fewer.drain(place..(place + size).min(steps.len()));
            match fails(&told(&fewer)) {
                Some(still) => (steps, why) = (fewer, still),
                None => place += size,
            }
        }
        if size == 1 {
            return (told(&steps), why);
        }
        size /= 2;
    }
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// Every rule that lives are to meet, by its name.
fn rule_names() -> Vec<String> {
    let main = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oracle/main.py");
    let told = Command::new("python3").arg(main).arg("rules").output().expect("python3 runs the oracle");
    assert!(told.status.success(), "{told:?}");
    String::from_utf8(told.stdout).unwrap().lines().map(str::to_owned).collect()
}

/// What lives exercised.
#[derive(Default)]
struct Exercised {
    /// How often each rule was met.
    rules: BTreeMap<String, u64>,
    /// Events of each life.
    events: Vec<usize>,
    /// Days from the first to the last step of each.
    days: Vec<i64>,
}

/// Lives of seeds from `first` on, compared.
fn compare(first: u64, count: u64) -> Exercised {
    let mut exercised = Exercised::default();
    let (first, count) = (first.to_string(), count.to_string());
    let mut source = Oracle::start(&["generate", "--seed", &first, "--count", &count]);
    let mut told = 0;
    let mut line = String::new();
    while source.answers.read_line(&mut line).unwrap() > 0 {
        let case: Case = serde_json::from_str(&line).unwrap();
        let life: Life = serde_json::from_str(case.life.get()).unwrap();
        let result = std::panic::catch_unwind(|| play(&life, &case.expected));
        if let Err(_) | Ok(Err(_)) = result {
            let (life, why) = shortest(&case.life, &mut Oracle::start(&["evaluate"]));
            panic!(
                "{why}\n\nthe shortest life that differs (of seed {}, to be kept in tests/oracle/regressions):\n{life}",
                serde_json::from_str::<Value>(case.life.get()).unwrap()["seed"]
            );
        }
        for (rule, hits) in case.expected["rules"].as_object().unwrap() {
            *exercised.rules.entry(rule.clone()).or_default() += hits.as_u64().unwrap();
        }
        exercised.events.push(life.steps.iter().filter(|step| step.event.is_some()).count());
        let walls = || life.steps.iter().map(|step| step.wall_ms);
        exercised.days.push((walls().max().unwrap_or(0) - walls().min().unwrap_or(0)) / DAY_MS);
        told += 1;
        line.clear();
    }
    assert_eq!(told.to_string(), count, "the oracle ended early");
    exercised
}

fn median<T: Ord + Copy>(mut values: Vec<T>) -> T {
    values.sort_unstable();
    values[values.len() / 2]
}

#[test]
fn random_lives_come_out_as_the_oracle_says() {
    let lives = setting("CREDITSTREAM_ORACLE_LIVES", LIVES);
    let first = setting("CREDITSTREAM_ORACLE_SEED", FIRST_SEED);
    let half = lives / 2;
    let other = std::thread::spawn(move || compare(first + half, lives - half));
    let one = compare(first, half);
    let other = other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    // A rule that is never met stands among them too, with 0.
    let mut rules: BTreeMap<String, u64> = rule_names().into_iter().map(|rule| (rule, 0)).collect();
    for (rule, hits) in one.rules.into_iter().chain(other.rules) {
        *rules.get_mut(&rule).unwrap_or_else(|| panic!("the oracle does not name the rule {rule}")) += hits;
    }
    let rarest = rules.iter().min_by_key(|(_, hits)| **hits).unwrap();
    let events = median([one.events, other.events].concat());
    let days = median([one.days, other.days].concat());
    eprintln!(
        "{lives} lives, median {events} events over {days} days; {} rules, the rarest {rarest:?}",
        rules.len()
    );
    for (rule, hits) in rules.iter().filter(|_| std::env::var("CREDITSTREAM_ORACLE_RULES").is_ok()) {
        eprintln!("{hits:>9}  {rule}");
    }
    let at_least = if lives >= 10_000 { 100 } else { 0 };
    let rare: Vec<_> = rules.iter().filter(|(_, hits)| **hits < at_least).collect();
    assert!(rare.is_empty(), "rules that were hardly exercised: {rare:?}");
    // 60 events over 14 months.
    assert!(lives < 100 || (events >= 60 && days >= 428), "lives are too short");
}

#[test]
fn lives_that_once_differed_come_out_as_the_oracle_says() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oracle/regressions");
    let mut oracle = Oracle::start(&["evaluate"]);
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "json") {
            let text = std::fs::read_to_string(&path).unwrap();
            let expected = oracle.evaluate(text.trim());
            let life: Life = serde_json::from_str(&text).unwrap();
            play(&life, &expected).unwrap_or_else(|differs| panic!("{}: {differs}", path.display()));
        }
    }
}
