//! Files that must say the same as the code, held against it.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout)]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use common::commands::all_commands;
use creditstream::event::Reason;
use creditstream::ledger::Outcome;
use creditstream::metrics::{OUTCOMES, REASONS};

/// What people read; docs/runbooks.md is held to the rules by tests/alerting.
const PAGES: [&str; 10] = [
    "README.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "docs/alerts.md",
    "docs/events.md",
    "docs/clickhouse.md",
    "docs/performance.md",
    "docs/reliability.md",
    "docker/README.md",
];

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn defaults() -> toml::Table {
    read("config/default.toml").parse().unwrap()
}

/// Words of a text that begin with `prefix` and go on with `of` characters.
fn words(text: &str, prefix: &str, of: impl Fn(char) -> bool) -> BTreeSet<String> {
    let found = text
        .match_indices(prefix)
        .map(|(at, _)| text[at + prefix.len()..].split(|c| !of(c)).next().unwrap().to_owned());
    found.filter(|word| !word.is_empty()).collect()
}

/// What stands between backticks, and in fenced blocks line by line.
fn code(page: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut is_fenced = false;
    for line in page.lines() {
        if line.trim_start().starts_with("```") {
            is_fenced = !is_fenced;
        } else if is_fenced {
            found.push(line.to_owned());
        } else {
            found.extend(line.split('`').skip(1).step_by(2).map(str::to_owned));
        }
    }
    found
}

#[test]
fn every_environment_variable_that_is_named_is_a_setting() {
    let defaults = defaults();
    let files = ["docker/compose.yaml", "docker/Dockerfile"].into_iter().chain(PAGES);
    let mut seen = 0;
    for file in files {
        for name in words(&read(file), "CREDITSTREAM__", |c| c.is_ascii_uppercase() || c == '_') {
            let Some((section, key)) = name.split_once("__") else { continue };
            if (section, key) == ("SECTION", "KEY") || name.starts_with("KAFKA__PROPERTIES") {
                continue;
            }
            let table = defaults.get(&section.to_lowercase()).and_then(|section| section.as_table());
            let is_there = table.is_some_and(|table| table.contains_key(&key.to_lowercase()));
            assert!(is_there, "{file} names CREDITSTREAM__{name}, which is no setting");
            seen += 1;
        }
    }
    assert!(seen > 5);
}

#[test]
fn every_setting_that_a_page_names_is_a_setting() {
    let defaults = defaults();
    let mut seen = 0;
    for page in PAGES {
        for span in code(&read(page)) {
            let Some((section, key)) = span.split_once('.') else { continue };
            let Some(table) = defaults.get(section).and_then(|section| section.as_table()) else { continue };
            let key: String = key.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect();
            if key.is_empty() || span.ends_with(".toml") {
                continue;
            }
            assert!(table.contains_key(&key), "{page} names `{span}`, which is no setting");
            seen += 1;
        }
    }
    assert!(seen > 5, "{seen}");
}

/// The text after `before` up to the first of `ends`.
fn between<'t>(text: &'t str, before: &str, ends: &[char]) -> &'t str {
    let at = text.find(before).unwrap_or_else(|| panic!("{before:?} is not there"));
    text[at + before.len()..].split(ends).next().unwrap()
}

#[test]
fn containers_have_the_versions_that_the_tests_run_against() {
    let compose = read("docker/compose.yaml");
    let kafka = between(&compose, "image: apache/kafka:", &['\n']);
    let pom = read("stack/pins/pom.xml");
    for artifact in ["kafka_2.13", "kafka-tools"] {
        let version =
            between(&pom[pom.find(&format!("<artifactId>{artifact}<")).unwrap()..], "<version>", &['<']);
        assert_eq!(version, kafka, "{artifact}");
    }
    let engine = read("stack/pins/requirements.txt");
    let engine = between(&engine, "chdb-core==", &[' ', '\n']);
    let clickhouse = between(&compose, "image: clickhouse/clickhouse-server:", &['\n']);
    assert!(engine.starts_with(&format!("{clickhouse}.")), "engine {engine}, container {clickhouse}");

    let manifest: toml::Table = read("Cargo.toml").parse().unwrap();
    let rust = manifest["package"]["rust-version"].as_str().unwrap();
    assert_eq!(between(&read("docker/Dockerfile"), "FROM rust:", &['-']), rust);
    assert!(read("README.md").contains(&format!("Rust {rust} or newer")));
    let page = read("docker/README.md");
    assert!(
        page.contains(&format!("Kafka {kafka}")) && page.contains(&format!("ClickHouse engine {clickhouse}"))
    );
}

#[test]
fn containers_publish_the_ports_of_the_default_settings() {
    let (compose, defaults) = (read("docker/compose.yaml"), defaults());
    let brokers = defaults["kafka"]["brokers"].as_str().unwrap();
    let url = defaults["clickhouse"]["url"].as_str().unwrap().trim_start_matches("http://");
    let listen = defaults["http"]["listen"].as_str().unwrap();
    for address in [brokers, url, listen] {
        assert!(compose.contains(&format!("\"{address}:")), "{address} is not published");
    }
}

#[test]
fn every_metric_that_is_named_exists() {
    let source = read("src/metrics.rs");
    let declared: BTreeSet<String> =
        ["counter(", "counters(", "gauges(", "gauge(", "histogram(", "histograms("]
            .iter()
            .flat_map(|kind| words(&source, &format!("{kind}\""), |c| c.is_ascii_lowercase() || c == '_'))
            .collect();
    assert!(declared.contains("events_total") && declared.contains("lag_records"), "{declared:?}");
    let files = ["docker/prometheus.yml", "docker/compose.yaml"].into_iter().chain(PAGES);
    for file in files {
        for name in words(&read(file), "creditstream_", |c| c.is_ascii_lowercase() || c == '_') {
            let base = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|suffix| name.strip_suffix(suffix))
                .unwrap_or(&name);
            assert!(
                declared.contains(base) || declared.contains(&name),
                "{file} names creditstream_{name}, which does not exist"
            );
        }
    }
}

#[test]
fn metrics_know_every_outcome_and_every_reason() {
    let outcomes: BTreeSet<&str> = Outcome::ALL.iter().map(|outcome| outcome.as_str()).collect();
    assert_eq!(outcomes, OUTCOMES.into_iter().collect());
    let reasons: BTreeSet<&str> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
    assert_eq!(reasons, REASONS.into_iter().collect());
    let events = read("docs/events.md");
    for reason in reasons {
        assert!(events.contains(&format!("`{reason}`")), "docs/events.md does not explain {reason}");
    }
}

#[test]
fn every_topic_that_init_makes_is_explained() {
    let pages: String =
        ["README.md", "ARCHITECTURE.md", "docs/events.md", "docs/alerts.md"].map(read).concat();
    for (setting, name) in defaults()["topics"].as_table().unwrap() {
        let Some(name) = name.as_str() else { continue };
        assert!(pages.contains(name), "topics.{setting} = {name:?} is on no page");
    }
}

/// Commands of the table in README: `a b`, `c` in one row with a first word in common stand for `a b` and `a c`.
fn commands_of_readme() -> BTreeSet<Vec<String>> {
    let page = read("README.md");
    let section = &page[page.find("\n## Commands").unwrap()..];
    let groups: BTreeSet<String> = all_commands()
        .into_iter()
        .filter(|command| command.len() > 1)
        .map(|command| command[0].clone())
        .collect();
    let top: BTreeSet<String> = all_commands().into_iter().map(|command| command[0].clone()).collect();
    let mut found = BTreeSet::new();
    for row in section.lines().filter(|line| line.starts_with("| `")) {
        let mut group: Option<String> = None;
        for span in row.split('|').nth(1).unwrap().split('`').skip(1).step_by(2) {
            let names: Vec<String> = span
                .split(' ')
                .filter(|word| word.chars().all(|c| c.is_ascii_lowercase() || c == '-'))
                .map(str::to_owned)
                .collect();
            let command = match &group {
                Some(group) if names.len() == 1 && !top.contains(&names[0]) => {
                    vec![group.clone(), names[0].clone()]
                }
                _ => names,
            };
            group = command.first().filter(|name| groups.contains(*name)).cloned().or(group);
            found.insert(command);
        }
    }
    found
}

#[test]
fn readme_lists_exactly_the_commands_that_there_are() {
    let groups: BTreeSet<Vec<String>> = all_commands()
        .into_iter()
        .filter(|command| command.len() > 1)
        .map(|command| vec![command[0].clone()])
        .collect();
    let commands: BTreeSet<Vec<String>> =
        all_commands().into_iter().filter(|command| !groups.contains(command)).collect();
    assert_eq!(commands_of_readme(), commands);
}

#[test]
fn no_page_names_a_command_that_does_not_exist() {
    let commands = all_commands();
    let mut seen = 0;
    for page in PAGES {
        for span in code(&read(page)) {
            for (at, found) in span.match_indices("creditstream ") {
                let is_word = at == 0 || span[..at].ends_with([' ', '(']);
                let mut names =
                    span[at + found.len()..].split_whitespace().filter(|word| !word.starts_with('-'));
                let Some(first) = names.next().filter(|_| is_word) else { continue };
                if !first.chars().all(|c| c.is_ascii_lowercase() || c == '-') || span.contains("──") {
                    continue;
                }
                assert!(commands.contains(&vec![first.to_owned()]), "{page}: `{span}` is no command");
                let is_group = commands.iter().any(|command| command.len() > 1 && command[0] == first);
                if let Some(second) = names.next().filter(|_| is_group) {
                    let second = second.trim_end_matches(',');
                    assert!(
                        commands.contains(&vec![first.to_owned(), second.to_owned()]),
                        "{page}: `{span}` is no command"
                    );
                }
                seen += 1;
            }
        }
    }
    assert!(seen > 5, "{seen}");
}

#[test]
fn every_make_target_that_a_page_names_exists() {
    let makefile = read("Makefile");
    for page in PAGES {
        for span in code(&read(page)) {
            let Some(target) = span.strip_prefix("make ").and_then(|rest| rest.split_whitespace().next())
            else {
                continue;
            };
            assert!(
                makefile.lines().any(|line| line.starts_with(&format!("{target}:"))),
                "{page}: `make {target}` does not exist"
            );
        }
    }
}

#[test]
fn every_link_between_files_leads_somewhere() {
    for page in PAGES {
        let text = read(page);
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(page);
        let folder = folder.parent().unwrap();
        for (at, _) in text.match_indices("](") {
            let target = text[at + 2..].split([')', '#']).next().unwrap();
            if target.is_empty() || target.starts_with("http") {
                continue;
            }
            assert!(folder.join(target).exists(), "{page} links to {target}, which is not there");
        }
    }
}
