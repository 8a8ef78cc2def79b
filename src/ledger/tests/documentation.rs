//! Every example of docs/events.md, through the whole ledger stage: what the comment before it claims must come out.

use super::*;
use crate::ledger::headers;

#[path = "../../../tests/examples/mod.rs"]
mod examples;

use examples::{Example, examples};

/// The clock of the examples.
fn bench_of_the_examples() -> Bench {
    let mut bench = Bench::new();
    bench.set_clock(bench::NOW);
    bench
}

fn made(record: &examples::Record) -> Made {
    let topic = if examples::is_wallet_type(&record.kind()) { WALLET } else { GENERATION };
    let headers = record.headers.iter().map(|(name, value)| (name.clone(), value.clone().into_bytes()));
    Made { headers: headers.collect(), ..Made::new(topic, record.value.clone()) }
}

/// What becomes of an event of that type that comes alone.
fn outcome_of(kind: &str) -> &'static str {
    match kind {
        "generation.requested" => "held",
        "generation.completed" => "charged",
        "generation.failed" | "generation.rejected" | "generation.cancelled" | "generation.refunded" => {
            "noted"
        }
        "contract.started" | "contract.plan_changed" | "contract.renewed" | "contract.cancelled" => {
            "contract"
        }
        "topup.purchased" => "granted",
        "wallet.adjusted" => "adjusted",
        "wallet.limits_changed" => "limits",
        _ => "free",
    }
}

/// Whether an event of that type is about a contract that must be there.
fn needs_contract(kind: &str) -> bool {
    kind.starts_with("contract.") && kind != "contract.started"
}

fn example_of<'e>(all: &'e [Example], kind: &str) -> &'e examples::Record {
    &all.iter().find(|example| example.claim == "example" && example.argument == kind).unwrap().records[0]
}

#[test]
fn every_example_of_the_documentation_becomes_what_it_claims() {
    let all = examples();
    for Example { line, claim, argument, records, .. } in &all {
        let mut bench = bench_of_the_examples();
        if claim.starts_with("example") && needs_contract(argument) {
            bench.one(&made(example_of(&all, "contract.started")));
        }
        let mut outcomes: Vec<String> = records.iter().map(|record| bench.one(&made(record))).collect();
        let first_word = || vec![argument.split_whitespace().next().unwrap().to_owned()];
        let expected: Vec<String> = match claim.as_str() {
            "example" | "example-binary" => vec![outcome_of(argument).to_owned()],
            "outcome-sequence" => argument.split_whitespace().map(str::to_owned).collect(),
            "quarantine" | "quarantine-padded" => first_word(),
            "quarantine-sequence" => {
                assert_eq!(outcomes.len(), 2, "line {line}");
                let first = outcomes.remove(0);
                assert_eq!(first, outcome_of(&records[0].kind()), "line {line}: the first is accepted");
                first_word()
            }
            other => panic!("line {line}: {other} is no claim that is known"),
        };
        assert_eq!(outcomes, expected, "line {line}");
    }
    assert!(all.len() >= 55, "only {} examples were found", all.len());
}

/// Goal: the sentences that people will read stand in the documentation as they are.
#[test]
fn every_quarantined_example_shows_its_sentence() {
    let mut wrong = Vec::new();
    for example in examples().iter().filter(|example| example.claim.starts_with("quarantine")) {
        let mut bench = bench_of_the_examples();
        let sent = example.records.iter().map(|record| bench.run(&[made(record)]).sent()).last().unwrap();
        let sentence = sent[0].header(headers::DETAIL);
        if example.sentence.as_deref() != Some(sentence) {
            wrong.push(format!("line {}: {sentence}", example.line));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// §1: "sent one after the other, the second is a duplicate". All accepted examples are one consistent story.
#[test]
fn the_accepted_examples_follow_each_other_and_their_binary_twins_are_duplicates() {
    let mut bench = bench_of_the_examples();
    let all = examples();
    for (kind, outcome) in [
        ("contract.started", "contract"),
        ("contract.plan_changed", "contract"),
        ("contract.renewed", "contract"),
        ("contract.cancelled", "contract"),
        ("topup.purchased", "granted"),
        ("wallet.adjusted", "adjusted"),
        ("wallet.limits_changed", "limits"),
        ("generation.requested", "held"),
        ("generation.completed", "charged"),
        ("generation.failed", "noted"),
        ("generation.rejected", "noted"),
        ("generation.cancelled", "noted"),
        ("generation.refunded", "reversed"),
    ] {
        let mut accepted = 0;
        let of_kind = all.iter().filter(|one| one.claim.starts_with("example") && one.argument == kind);
        for example in of_kind {
            let expected = if example.claim == "example" { outcome } else { "duplicate" };
            assert_eq!(bench.one(&made(&example.records[0])), expected, "line {}", example.line);
            accepted += 1;
        }
        assert!(accepted >= 2, "{kind}: structured and binary");
    }
    // 3,300 by the greater plan, 1,388 by pack, 50 by hand; 24 for the video, 1 for the asset; the shoot was refunded.
    assert_eq!(bench.balance("ws_42"), 3_300 + 1_388 + 50 - 24 - 1);
    assert_eq!(bench.wallet("ws_42").unwrap().held, 0);
}
