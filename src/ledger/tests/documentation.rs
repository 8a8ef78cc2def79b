//! Every example of docs/events.md, through the whole ledger stage: what the comment before it claims must come out.

use super::*;

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

fn outcome_of(kind: &str) -> &'static str {
    match kind {
        "generation.completed" => "charged",
        "contract.started" => "contract",
        "topup.purchased" => "granted",
        "wallet.adjusted" => "adjusted",
        _ => "free",
    }
}

#[test]
fn every_example_of_the_documentation_becomes_what_it_claims() {
    let mut seen = 0;
    for Example { line, claim, argument, records } in examples() {
        let mut bench = bench_of_the_examples();
        let mut outcomes: Vec<String> = records.iter().map(|record| bench.one(&made(record))).collect();
        let expected: Vec<String> = match claim.as_str() {
            "example" | "example-binary" => vec![outcome_of(&argument).to_owned()],
            "outcome-sequence" => argument.split_whitespace().map(str::to_owned).collect(),
            "quarantine" => vec![argument],
            "quarantine-padded" => vec![argument.split_whitespace().next().unwrap().to_owned()],
            "quarantine-sequence" => {
                assert_eq!(outcomes.len(), 2, "line {line}");
                assert_eq!(
                    outcomes.remove(0),
                    outcome_of(&records[0].kind()),
                    "line {line}: the first is accepted"
                );
                vec![argument]
            }
            other => panic!("line {line}: {other} is no claim that is known"),
        };
        assert_eq!(outcomes, expected, "line {line}");
        seen += 1;
    }
    assert!(seen >= 30, "only {seen} examples were found");
}

/// §1: "sent one after the other, the second is a duplicate". All accepted examples are one consistent story.
#[test]
fn the_accepted_examples_follow_each_other_and_their_binary_twins_are_duplicates() {
    let mut bench = bench_of_the_examples();
    let all: Vec<Example> =
        examples().into_iter().filter(|example| example.claim.starts_with("example")).collect();
    for kind in ["contract.started", "topup.purchased", "wallet.adjusted", "generation.completed"] {
        let mut accepted = 0;
        for example in all.iter().filter(|example| example.argument == kind) {
            let outcome = bench.one(&made(&example.records[0]));
            let expected = if example.claim == "example" { outcome_of(kind) } else { "duplicate" };
            assert_eq!(outcome, expected, "line {}", example.line);
            accepted += 1;
        }
        assert!(accepted >= 2, "{kind}: structured and binary");
    }
    // 1,100 by plan, 1,388 by pack, 50 by hand; 24 for the video, 4 for the shoot, 1 for the asset.
    assert_eq!(bench.balance("ws_42"), 1_100 + 1_388 + 50 - 24 - 4 - 1);
}
