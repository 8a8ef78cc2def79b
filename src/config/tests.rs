//! Settings as an operator meets them: what is taken, and what is said about what is not.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod endpoints;
mod properties;

use std::io::Write;
use std::time::Duration;

use toml::{Table, Value};

use super::load::{DEFAULT_TOML, dotted_keys};
use super::validate::INTEGER_BOUNDS;
use super::*;

/// A configuration file that vanishes with the test.
fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

fn load(text: &str, env: &[(&str, &str)]) -> Result<Config, ConfigErrors> {
    let file = file(text);
    let env = env.iter().map(|(name, value)| (name.to_string(), value.to_string()));
    Config::load(Some(file.path()), env)
}

/// The faults without where they stand.
fn faults(text: &str, env: &[(&str, &str)]) -> Vec<String> {
    let errors = load(text, env).expect_err("a fault was expected");
    let without_origin = |fault: &Fault| {
        let value = fault.value.as_ref().map(|value| format!(" = {value}")).unwrap_or_default();
        format!("{}{value}: {}", fault.key, fault.problem)
    };
    errors.faults().iter().map(without_origin).collect()
}

fn only_fault(text: &str) -> String {
    let mut faults = faults(text, &[]);
    assert_eq!(faults.len(), 1, "{faults:#?}");
    faults.remove(0)
}

#[test]
fn the_struct_and_default_toml_hold_the_same_settings_in_the_same_order() {
    let shown = Config::default().effective_toml();
    let schema: Table = DEFAULT_TOML.parse().unwrap();
    assert_eq!(dotted_keys(&shown.parse().unwrap()), dotted_keys(&schema));
    assert_eq!(shown.parse::<Table>().unwrap(), schema, "no default is changed on its way");

    let lines = |text: &str| -> Vec<String> {
        let is_setting = |line: &&str| !line.is_empty() && !line.starts_with('#');
        text.lines().filter(is_setting).map(str::to_owned).collect()
    };
    assert_eq!(lines(&shown), lines(DEFAULT_TOML), "line by line, comments aside");
}

#[test]
fn every_integer_has_bounds_and_no_bound_is_left_over() {
    let schema: Table = DEFAULT_TOML.parse().unwrap();
    let is_integer = |key: &String| {
        let (section, name) = key.split_once('.').unwrap();
        schema[section][name].is_integer()
    };
    let mut bounded: Vec<&str> = INTEGER_BOUNDS.iter().map(|(key, ..)| *key).collect();
    bounded.sort_unstable();
    let integers: Vec<String> = dotted_keys(&schema).into_iter().filter(is_integer).collect();
    assert_eq!(bounded, integers);
}

/// Every bound itself must be taken, or a type is too small for it, and the next integer must not.
#[test]
fn bounds_are_inclusive_and_fit_their_types() {
    for (key, least, most) in INTEGER_BOUNDS {
        let (section, name) = key.split_once('.').unwrap();
        for bound in [least, most] {
            let result = load(&format!("[{section}]\n{name} = {bound}"), &[]);
            let own =
                |errors: &ConfigErrors| errors.to_string().contains(&format!("must be {least} to {most}"));
            assert!(result.as_ref().err().is_none_or(|errors| !own(errors)), "{key} = {bound}: {result:?}");
            assert!(!format!("{result:?}").contains("invalid value"), "{key} = {bound}: {result:?}");
        }
        for beyond in [least - 1, most + 1] {
            let found = faults(&format!("[{section}]\n{name} = {beyond}"), &[]);
            assert_eq!(found, [format!("{key} = {beyond}: must be {least} to {most}")]);
        }
    }
}

/// One setting and the fault that it makes, a line.
#[test]
fn each_bad_setting_is_named_with_its_value_and_what_is_allowed() {
    let brokers = "must be one or more of host:port (port 1 to 65535), separated by commas";
    let topic = "must be a topic's name: 1 to 249 letters, digits, '.', '_' and '-'";
    let url = "must be http:// or https://, a host, and optionally :port and a path (user and password have \
               settings of their own)";
    let name = "must be 1 to 128 printable ASCII characters without spaces";
    let table = [
        ("[kafka]\nbrokers = ''", r#"kafka.brokers = "": "#, brokers),
        ("[kafka]\nbrokers = ' , '", r#"kafka.brokers = " , ": "#, brokers),
        ("[kafka]\nbrokers = 'a:1,b'", r#"kafka.brokers = "a:1,b": "#, brokers),
        ("[kafka]\nbrokers = 'a:0'", r#"kafka.brokers = "a:0": "#, brokers),
        ("[kafka]\nbrokers = 'a:65536'", r#"kafka.brokers = "a:65536": "#, brokers),
        ("[kafka]\nbrokers = 'a:+1'", r#"kafka.brokers = "a:+1": "#, brokers),
        ("[kafka]\nbrokers = ['a:1']", "kafka.brokers = […]: ", "must be a string"),
        ("[kafka]\nclient_id = 'a b'", r#"kafka.client_id = "a b": "#, name),
        ("[topics]\nledger = ''", r#"topics.ledger = "": "#, topic),
        ("[topics]\nledger = 'a,b'", r#"topics.ledger = "a,b": "#, topic),
        ("[topics]\nledger = '..'", r#"topics.ledger = "..": "#, topic),
        ("[topics]\nshards = 0", "topics.shards = 0: ", "must be 1 to 1000"),
        ("[topics]\nshards = 1001", "topics.shards = 1001: ", "must be 1 to 1000"),
        ("[topics]\nshards = '12'", r#"topics.shards = "12": "#, "must be an integer"),
        ("[topics]\nshards = 12.0", "topics.shards = 12.0: ", "must be an integer"),
        ("[ledger]\nbatch_events_max = 0", "ledger.batch_events_max = 0: ", "must be 1 to 1000000"),
        ("[ledger]\nworkers = -1", "ledger.workers = -1: ", "must be 1 to 64"),
        ("[ledger]\ngroup = ''", r#"ledger.group = "": "#, name),
        ("[ledger]\nstatic_membership = 1", "ledger.static_membership = 1: ", "must be true or false"),
        ("[sink]\nbatch_records_max = 0", "sink.batch_records_max = 0: ", "must be 1 to 10000000"),
        ("[clickhouse]\nurl = 'localhost:8123'", r#"clickhouse.url = "localhost:8123": "#, url),
        ("[clickhouse]\nurl = 'ftp://h'", r#"clickhouse.url = "ftp://h": "#, url),
        ("[clickhouse]\nurl = 'http://h:99999'", r#"clickhouse.url = "http://h:99999": "#, url),
        ("[clickhouse]\nurl = 'http://h/?a=b'", r#"clickhouse.url = "http://h/?a=b": "#, url),
        ("[clickhouse]\nurl = 'http://u:hidden@h'", "clickhouse.url = ***: ", url),
        (
            "[clickhouse]\ndatabase = 'a-b'",
            r#"clickhouse.database = "a-b": "#,
            "must be letters, digits and _, not beginning with a digit",
        ),
        ("[http]\nlisten = '9100'", r#"http.listen = "9100": "#, "must be host:port, or empty for no server"),
        ("[log]\nformat = 'xml'", r#"log.format = "xml": "#, r#"must be "auto", "human" or "json""#),
        (
            "[log]\nfilter = 'a=loud'",
            r#"log.filter = "a=loud": "#,
            r#"must be a filter as RUST_LOG has it, as "info" or "creditstream=debug,warn""#,
        ),
    ];
    for (text, setting, allowed) in table {
        assert_eq!(only_fault(text), format!("{setting}{allowed}"));
    }
}

#[test]
fn settings_that_contradict_each_other_are_faults() {
    let table = [
        ("[alerts]\nlow_percent = 4", "alerts.low_percent = 4: must be at least alerts.critical_percent (5)"),
        (
            "[ledger]\nbatch_bytes_max = 1000",
            "ledger.batch_bytes_max = 1000: must be at least events.value_bytes_max (65536)",
        ),
        (
            "[ledger]\nbatch_wait_ms_max = 10000",
            "ledger.batch_wait_ms_max = 10000: must be less than ledger.transaction_timeout_ms (10000)",
        ),
        ("[sink]\nretry_ms_max = 99", "sink.retry_ms_min = 100: must be at most sink.retry_ms_max (99)"),
        (
            "[sink]\ngroup = 'creditstream-ledger'",
            "sink.group = \"creditstream-ledger\": must be another than ledger.group: each stage has a group of its own",
        ),
        (
            "[topics]\ngeneration = 'a, credits.ledger'",
            "topics.ledger = \"credits.ledger\": must not name credits.ledger again: it stands in topics.generation",
        ),
    ];
    for (text, fault) in table {
        assert_eq!(only_fault(text), fault);
    }
}

/// A low_percent that was refused must not be compared by its default.
#[test]
fn a_refused_setting_is_not_also_said_to_contradict() {
    let fault = only_fault("[alerts]\nlow_percent = 200\ncritical_percent = 50");
    assert_eq!(fault, "alerts.low_percent = 200: must be 0 to 100");
}

#[test]
fn an_unknown_setting_is_refused_with_the_one_that_was_meant_and_without_its_value() {
    let table = [
        (
            "[ledger]\nbatch_event_max = 5",
            "ledger.batch_event_max: there is no such setting; did you mean ledger.batch_events_max?",
        ),
        (
            "[ledger]\nbrokers = 'a:1'",
            "ledger.brokers: there is no such setting; did you mean kafka.brokers?",
        ),
        (
            "[clickhouse]\npasword = 'hidden'",
            "clickhouse.pasword: there is no such setting; did you mean clickhouse.password?",
        ),
        ("[ledger]\nxyzzy = 5", "ledger.xyzzy: there is no such setting"),
        ("[topic]\nshards = 5", "topic: there is no such section; did you mean topics?"),
        ("brokers = 'a:1'", "brokers: there is no such section"),
        ("kafka = 'a:1'", "kafka: must be a section, [kafka]"),
    ];
    for (text, fault) in table {
        assert_eq!(only_fault(text), fault);
    }
}

#[test]
fn all_faults_are_listed_at_once_one_a_line_with_where_they_stand() {
    let file = file(
        "[kafka]\nbrokers = ''\nsasl = 'x'\n[ledger]\nworkers = 'two'\nbatch_bytes_max = 10\n[log]\nformat = 'x\ny'\n"
            .replace("'x\ny'", "\"x\\ny\"")
            .as_str(),
    );
    let env = [
        ("CREDITSTREAM__SINK__BATCH_RECORDS_MAX", "many"),
        ("CREDITSTREAM__LEDGER__STATIC_MEMBERSHIP", "yes"),
        ("CREDITSTREAM__HTTP__PORT", "1"),
        ("CREDITSTREAM__BROKERS", "a:1"),
        ("HOME", "/"),
    ];
    let env = env.iter().map(|(name, value)| (name.to_string(), value.to_string()));
    let errors = Config::load(Some(file.path()), env).unwrap_err();
    let path = file.path().display();
    let expected = [
        format!(
            "{path}: kafka.brokers = \"\": must be one or more of host:port (port 1 to 65535), separated by commas"
        ),
        format!("{path}: kafka.sasl: there is no such setting"),
        format!("{path}: ledger.workers = \"two\": must be an integer"),
        format!("{path}: log.format = \"x\\ny\": must be \"auto\", \"human\" or \"json\""),
        "CREDITSTREAM__BROKERS: must be CREDITSTREAM__SECTION__KEY".to_owned(),
        "CREDITSTREAM__HTTP__PORT: http.port: there is no such setting".to_owned(),
        "CREDITSTREAM__LEDGER__STATIC_MEMBERSHIP: ledger.static_membership = \"yes\": must be true or false"
            .to_owned(),
        "CREDITSTREAM__SINK__BATCH_RECORDS_MAX: sink.batch_records_max = \"many\": must be an integer"
            .to_owned(),
        format!("{path}: ledger.batch_bytes_max = 10: must be at least events.value_bytes_max (65536)"),
    ];
    assert_eq!(errors.to_string().lines().collect::<Vec<_>>(), expected);
}

#[test]
fn a_syntax_error_gives_line_and_column_and_never_quotes_the_line() {
    let file = file("[clickhouse]\npassword = hidden\n");
    let errors = Config::load(Some(file.path()), std::iter::empty()).unwrap_err();
    let line = errors.to_string();
    assert!(line.starts_with(&format!("{}:2:12: not TOML: ", file.path().display())), "{line}");
    assert!(!line.contains("hidden") && !line.contains('\n'), "{line}");
}

#[test]
fn a_file_that_cannot_be_read_is_a_fault_beside_others() {
    let env = [("CREDITSTREAM__LEDGER__WORKERS".to_owned(), "0".to_owned())];
    let errors = Config::load(Some(Path::new("no/such/file.toml")), env.into_iter()).unwrap_err();
    assert_eq!(errors.faults().len(), 2);
    assert!(errors.to_string().starts_with("no/such/file.toml: cannot be read: "), "{errors}");
}

#[test]
fn the_environment_overrides_the_file_and_the_file_the_defaults() {
    let text = "[ledger]\nworkers = 2\nbatch_events_max = 7\n[clickhouse]\npassword = 'from file'\n";
    let env = [
        ("CREDITSTREAM__LEDGER__WORKERS", "3"),
        ("CREDITSTREAM__LEDGER__STATIC_MEMBERSHIP", "true"),
        ("CREDITSTREAM__CLICKHOUSE__PASSWORD", "from env"),
        ("CREDITSTREAM__LOG__FORMAT", "json"),
        ("CREDITSTREAM__HTTP__LISTEN", ""),
        ("OTHER__LEDGER__WORKERS", "9"),
    ];
    let config = load(text, &env).unwrap();
    let ledger = &config.ledger;
    assert_eq!((ledger.workers, ledger.batch_events_max, ledger.static_membership), (3, 7, true));
    assert_eq!(config.clickhouse.password.expose(), "from env");
    assert_eq!(config.log.format, LogFormat::Json);
    assert_eq!(config.http.listen_address(), None);
    assert_eq!(config.sink, Config::default().sink);
}

#[test]
fn lists_and_durations_have_typed_accessors() {
    let config =
        load("[topics]\ngeneration = ' a , b,, '\n[kafka]\nbrokers = 'x:1, [::1]:2'\n", &[]).unwrap();
    assert_eq!(config.topics.generation_topics(), ["a", "b"]);
    assert_eq!(config.topics.wallet_topics(), ["wallet.events"]);
    assert_eq!(config.kafka.bootstrap_servers(), "x:1,[::1]:2");
    assert_eq!(config.events.free_types(), ["ad.created", "asset.edited", "ad.published", "insights.viewed"]);
    assert_eq!(config.clock.horizon(), Duration::from_secs(35 * 86_400));
    assert_eq!(config.clock.max_clock_skew(), Duration::from_secs(300));
    assert_eq!(config.clock.idle_after(), Duration::from_secs(60));
    assert_eq!(config.ledger.batch_wait_max(), Duration::from_millis(20));
    assert_eq!(config.sink.retry_max(), Duration::from_secs(10));
    assert_eq!(config.store.folder(), Some(Path::new("data")));
    assert_eq!(config.pricing.file_path(), None);
}

#[test]
fn a_charged_type_cannot_be_free() {
    let fault = only_fault("[events]\nfree_types = 'ad.created, generation.completed'");
    assert!(fault.contains("none of them generation.requested"), "{fault}");
}

#[test]
fn an_instance_without_a_name_has_the_hosts() {
    let configured = load("[ledger]\ninstance = 'ledger-0'\n", &[]).unwrap();
    assert_eq!(configured.instance_name(), "ledger-0");
    assert!(!Config::default().instance_name().is_empty());
}

#[test]
fn the_shown_value_of_a_fault_is_not_endless() {
    let fault = only_fault(&format!("[log]\nformat = '{}'", "x".repeat(10_000)));
    assert!(fault.len() < 300 && fault.contains('…'), "{fault}");
}

#[test]
fn every_setting_can_be_set_by_environment() {
    let schema: Table = DEFAULT_TOML.parse().unwrap();
    for key in dotted_keys(&schema).into_iter().filter(|key| key != "kafka.properties") {
        let (section, name) = key.split_once('.').unwrap();
        let variable = format!("CREDITSTREAM__{}__{}", section.to_uppercase(), name.to_uppercase());
        let default = match &schema[section][name] {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        assert_eq!(load("", &[(&variable, &default)]).unwrap(), Config::default(), "{variable}");
    }
}
