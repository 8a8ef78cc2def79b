//! docs/events.md against the decoder, the JSON Schema and the list of reasons. What needs a clock, prices or the
//! state of a wallet is run through the ledger stage, in `src/ledger/tests/documentation.rs`.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod examples;

use std::collections::BTreeSet;

use creditstream::config::Config;
use creditstream::event::{
    Event, EventKind, EventRules, IncomingRecord, Reason, Rejection, SourceKind, decode, event_key,
    fingerprint,
};
use examples::{Example, Record, examples, is_wallet_type};
use serde_json::Value;

/// Calls `check` with what the decoder says of a record on the topic of its type.
fn decoded<R>(record: &Record, check: impl FnOnce(Result<Event<'_>, Rejection>) -> R) -> R {
    let rules = EventRules::new(&Config::default().events);
    let headers: Vec<(&str, &[u8])> =
        record.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
    let source_kind =
        if is_wallet_type(&record.kind()) { SourceKind::Wallet } else { SourceKind::Generation };
    check(decode(
        &IncomingRecord { source_kind, value: Some(record.value.as_bytes()), headers: &headers },
        &rules,
    ))
}

/// The reason that the record alone shows.
fn reason_of(record: &Record) -> Option<Reason> {
    decoded(record, |answer| match answer {
        Err(rejection) => Some(rejection.reason),
        Ok(event) => event.data.and_then(|data| data.err()).map(|rejection| rejection.reason),
    })
}

/// Reasons that the record alone does not show.
const NEED_MORE: [Reason; 8] = [
    Reason::TooOld,
    Reason::TooFarAhead,
    Reason::IdConflict,
    Reason::UnknownPlan,
    Reason::UnknownTopup,
    Reason::NoContract,
    Reason::ContractConflict,
    Reason::JobConflict,
];

fn reason_named(name: &str) -> Reason {
    Reason::ALL
        .into_iter()
        .find(|reason| reason.as_str() == name)
        .unwrap_or_else(|| panic!("{name} is no reason"))
}

#[test]
fn the_decoder_says_of_every_example_what_the_documentation_says() {
    for Example { line, claim, argument, records, .. } in examples() {
        let first_word = argument.split_whitespace().next().unwrap();
        match claim.as_str() {
            "example" | "example-binary" => {
                let is_free = decoded(&records[0], |answer| match answer.unwrap() {
                    Event { data: None, .. } => true,
                    Event { data: Some(data), kind, .. } => {
                        assert_eq!(kind.as_str(), argument, "line {line}");
                        data.unwrap();
                        false
                    }
                });
                assert_eq!(records[0].kind(), argument, "line {line}");
                let free_types = Config::default().events.free_types();
                assert_eq!(is_free, free_types.contains(&argument), "line {line}");
            }
            "quarantine" | "quarantine-padded" => {
                let expected = Some(reason_named(first_word)).filter(|reason| !NEED_MORE.contains(reason));
                assert_eq!(reason_of(&records[0]), expected, "line {line}");
            }
            "quarantine-sequence" | "outcome-sequence" => {
                assert!(records.len() >= 2, "line {line}");
                records.iter().for_each(|record| assert_eq!(reason_of(record), None, "line {line}"));
            }
            other => panic!("line {line}: {other} is no claim that is known"),
        }
    }
}

/// Identity and fingerprint of an event that is not free.
fn identity(record: &Record) -> String {
    decoded(record, |answer| {
        let event = answer.unwrap();
        let print = event.data.map(|data| fingerprint(event.kind, event.time, &data.unwrap()));
        format!("{:?} {print:?} {:?}", event_key(&event.wallet_id, &event.source, &event.id), event.time)
    })
}

#[test]
fn every_type_has_a_structured_and_a_binary_example_that_say_the_same() {
    let all = examples();
    let of = |claim: &str, kind: &str| {
        let of_kind = all.iter().filter(|example| example.claim == claim && example.argument == kind);
        of_kind.map(|example| identity(&example.records[0])).collect::<BTreeSet<_>>()
    };
    let mut types = Config::default().events.free_types();
    types.extend(EventKind::NAMED.map(|kind| kind.as_str().to_owned()));
    for kind in types {
        let (structured, binary) = (of("example", &kind), of("example-binary", &kind));
        assert!(!binary.is_empty(), "{kind} has no example in binary mode");
        assert!(binary.is_subset(&structured), "{kind}: the binary example says something else");
    }
}

#[test]
fn the_schema_accepts_every_structured_example_and_refuses_what_the_decoder_refuses() {
    let text = include_str!("../config/schemas/event.schema.json");
    let schema = jsonschema::options()
        .should_validate_formats(true)
        .build(&serde_json::from_str(text).unwrap())
        .unwrap();
    let mut accepted = 0;
    for Example { line, claim, records, .. } in
        examples().into_iter().filter(|example| example.claim != "example-binary")
    {
        for record in &records {
            let Ok(value) = serde_json::from_str(&record.value) else {
                continue;
            };
            let errors: Vec<String> = schema.iter_errors(&value).map(|error| error.to_string()).collect();
            // A size cannot be said in a schema.
            let is_refused = reason_of(record).is_some_and(|reason| reason != Reason::TooLarge);
            assert_eq!(!errors.is_empty(), is_refused, "line {line} ({claim}): {errors:?}");
            accepted += usize::from(errors.is_empty());
        }
    }
    assert!(accepted >= 50, "only {accepted} were accepted");
}

/// Names of members that the decoder looks at in the data of any type, from its own source.
fn members_of_the_decoder() -> BTreeSet<&'static str> {
    let source = include_str!("../src/event/members.rs");
    let members = source.split("struct Members<'a> {").nth(1).unwrap().split('}').next().unwrap();
    let name =
        |line: &'static str| line.trim().strip_prefix("pub(super) ")?.strip_suffix(": Option<Raw<'a>>,");
    members.lines().filter_map(name).collect()
}

/// Goal: a field that is added to the decoder or to the schema alone fails here. Method: in the example of each type
/// each member that the decoder knows is made an object, which no field may be: the type reads it if that is refused.
#[test]
fn decoder_and_schema_know_the_same_types_and_the_same_fields_of_each() {
    let schema: Value = serde_json::from_str(include_str!("../config/schemas/event.schema.json")).unwrap();
    let names =
        |object: &Value| -> BTreeSet<String> { object.as_object().unwrap().keys().cloned().collect() };
    let mut types: BTreeSet<String> = Config::default().events.free_types().into_iter().collect();
    types.extend(EventKind::NAMED.map(|kind| kind.as_str().to_owned()));
    let listed: Vec<String> = serde_json::from_value(schema["properties"]["type"]["enum"].clone()).unwrap();
    assert_eq!(listed.into_iter().collect::<BTreeSet<_>>(), types);

    let known = members_of_the_decoder();
    let mut in_schema = BTreeSet::new();
    let all = examples();
    for kind in EventKind::NAMED.map(EventKind::as_str) {
        let node = &schema["$defs"][kind];
        let node =
            node["$ref"].as_str().map_or(node, |reference| &schema["$defs"][&reference["#/$defs/".len()..]]);
        let described = names(&node["properties"]);
        // Images and videos have fields of their own: an example of each is asked.
        let mut read = BTreeSet::new();
        let mut asked = Vec::new();
        for example in all.iter().filter(|one| one.claim == "example" && one.argument == kind) {
            let event: Value = serde_json::from_str(&example.records[0].value).unwrap();
            if event["data"]["asset"] == "video" {
                let mut image = event.clone();
                (image["data"]["asset"], image["data"]["images"]) = ("image".into(), 4.into());
                asked.push(image);
            }
            asked.push(event);
        }
        for event in &asked {
            for name in &known {
                let mut event = event.clone();
                event["data"][name] = serde_json::json!({});
                let record = Record { headers: Vec::new(), value: event.to_string() };
                if reason_of(&record).is_some() {
                    read.insert((*name).to_owned());
                }
            }
        }
        assert_eq!(read, described, "{kind}: read by the decoder, described by the schema");
        in_schema.extend(described);
    }
    assert_eq!(in_schema, known.into_iter().map(str::to_owned).collect());
}

#[test]
fn every_reason_has_an_example_with_its_sentence_and_a_row() {
    let all = examples();
    let shown: BTreeSet<Reason> = all
        .iter()
        .filter(|example| example.claim.starts_with("quarantine") && example.sentence.is_some())
        .map(|example| reason_named(example.argument.split_whitespace().next().unwrap()))
        .collect();
    assert_eq!(shown, Reason::ALL.into());
    let rows: Vec<&str> = include_str!("../docs/events.md")
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .filter(|name| Reason::ALL.iter().any(|reason| reason.as_str() == *name))
        .collect();
    assert_eq!(rows, Reason::ALL.map(Reason::as_str), "the table has them in the order of the checks");
}

/// Names of all tests, in `src` and `tests`: what follows the attribute, other attributes passed over.
fn all_tests() -> BTreeSet<String> {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut open = vec![root.join("src"), root.join("tests")];
    let mut found = BTreeSet::new();
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(path).unwrap();
            let mut is_test = false;
            for line in text.lines().map(str::trim) {
                is_test |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
                if let Some((_, name)) = line.split_once("fn ").filter(|_| is_test) {
                    found.insert(name.split('(').next().unwrap().to_owned());
                    is_test = false;
                }
            }
        }
    }
    found
}

#[test]
fn every_row_of_the_failure_table_names_tests_that_exist_or_says_that_there_is_none() {
    let tests = all_tests();
    let page = include_str!("../ARCHITECTURE.md");
    let rows = |heads: &str| -> Vec<Vec<String>> {
        let table = page.split(heads).nth(1).unwrap().lines().skip(2);
        let rows = table.take_while(|line| line.starts_with('|'));
        rows.map(|row| row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect())
            .collect()
    };
    for (heads, columns) in [
        ("| fault | what happens | what the operator does | shown by |", 4),
        ("| reader | torn | doubled | reordered | missing | shown by |", 6),
    ] {
        let rows = rows(heads);
        assert!(rows.len() >= 4, "{heads}");
        for row in rows {
            assert_eq!(row.len(), columns, "{row:?}");
            let shown = row.last().unwrap();
            let named: Vec<&str> = shown.split('`').skip(1).step_by(2).collect();
            assert!(!named.is_empty() || shown.contains("no test yet"), "{row:?}");
            for name in named {
                assert!(tests.contains(name), "{name} is no test: {row:?}");
            }
        }
    }
}
