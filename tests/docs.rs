//! docs/events.md against the decoder, the JSON Schema and the list of reasons. What needs a clock, prices or the
//! state of a wallet is run through the ledger stage, in `src/ledger/tests/documentation.rs`.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod examples;

use std::collections::BTreeSet;

use creditstream::config::Config;
use creditstream::event::{
    Event, EventRules, IncomingRecord, Reason, Rejection, SourceKind, decode, event_key, fingerprint,
};
use examples::{Example, Record, examples, is_wallet_type};

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
    for Example { line, claim, argument, records } in examples() {
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
                assert_eq!(records.len(), 2, "line {line}");
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
    types.extend(
        ["generation.completed", "contract.started", "topup.purchased", "wallet.adjusted"].map(str::to_owned),
    );
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
    assert!(accepted >= 20, "only {accepted} were accepted");
}

#[test]
fn every_reason_but_one_of_later_releases_has_an_example_and_a_row() {
    let all = examples();
    let shown: BTreeSet<Reason> = all
        .iter()
        .filter(|example| example.claim.starts_with("quarantine"))
        .map(|example| reason_named(example.argument.split_whitespace().next().unwrap()))
        .collect();
    let expected: BTreeSet<Reason> =
        Reason::ALL.into_iter().filter(|reason| *reason != Reason::NoContract).collect();
    assert_eq!(shown, expected);
    let rows: Vec<&str> = include_str!("../docs/events.md")
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .filter(|name| Reason::ALL.iter().any(|reason| reason.as_str() == *name))
        .collect();
    assert_eq!(rows, Reason::ALL.map(Reason::as_str), "the table has them in the order of the checks");
}
