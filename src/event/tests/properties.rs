//! Whatever comes, the decoder answers.

use proptest::prelude::*;
use proptest::sample::Index;

use super::*;

const VALIDS: [(&str, &str); 11] = [
    ("generation.completed", USAGE),
    ("ad.created", "{}"),
    (
        "contract.started",
        r#"{"contract_id":"c","plan":"lite","starts_at":"2026-11-03T00:00:00Z","term_months":12}"#,
    ),
    ("topup.purchased", r#"{"topup_id":"t","amount_usd":100.00,"reference":"\u00e4"}"#),
    ("wallet.adjusted", r#"{"adjustment_id":"a","credits":-5e1,"reason":"r","actor":"k"}"#),
    ("generation.requested", r#"{"job_id":"j","asset_id":"a","asset":"image","images":4,"model":"m"}"#),
    ("generation.refunded", r#"{"job_id":"j","asset_id":"a","reason":"\u00e4"}"#),
    (
        "contract.plan_changed",
        r#"{"contract_id":"c","plan":"lite","effective_at":"2026-11-03T00:00:00+01:00"}"#,
    ),
    ("contract.renewed", r#"{"contract_id":"c","plan":null,"term_months":1.2e1}"#),
    ("contract.cancelled", r#"{"contract_id":"c","effective_at":"2026-11-03T00:00:00Z"}"#),
    ("wallet.limits_changed", r#"{"overdraft_limit":"none","low_percent":20,"critical_percent":"plan"}"#),
];

/// One change of a record's bytes.
#[derive(Clone, Debug)]
enum Mutation {
    Replace(Index, u8),
    Insert(Index, u8),
    Remove(Index),
    Cut(Index),
    Repeat(Index, Index),
}

fn mutations() -> impl Strategy<Value = Vec<Mutation>> {
    // Bytes that mean something to JSON are as likely as all others together.
    let byte =
        || prop_oneof![any::<u8>(), proptest::sample::select(b"{}[]\",:\\-0eE.tfnu \x00\xff".to_vec())];
    let one = prop_oneof![
        (any::<Index>(), byte()).prop_map(|(at, byte)| Mutation::Replace(at, byte)),
        (any::<Index>(), byte()).prop_map(|(at, byte)| Mutation::Insert(at, byte)),
        any::<Index>().prop_map(Mutation::Remove),
        any::<Index>().prop_map(Mutation::Cut),
        (any::<Index>(), any::<Index>()).prop_map(|(from, to)| Mutation::Repeat(from, to)),
    ];
    proptest::collection::vec(one, 1..4)
}

fn mutated(value: &str, mutations: &[Mutation]) -> Vec<u8> {
    let mut bytes = value.as_bytes().to_vec();
    for mutation in mutations {
        let length = bytes.len().max(1);
        match mutation {
            Mutation::Replace(at, byte) => {
                bytes.iter_mut().skip(at.index(length)).take(1).for_each(|old| *old = *byte)
            }
            Mutation::Insert(at, byte) => bytes.insert(at.index(bytes.len() + 1), *byte),
            Mutation::Remove(at) if !bytes.is_empty() => drop(bytes.remove(at.index(length))),
            Mutation::Remove(_) => {}
            Mutation::Cut(at) => bytes.truncate(at.index(length)),
            Mutation::Repeat(from, to) => {
                let (from, to) = (from.index(length), to.index(length));
                let piece = bytes.get(from.min(to)..from.max(to)).unwrap_or_default().to_vec();
                bytes.extend_from_slice(&piece);
            }
        }
    }
    bytes
}

/// What an answer must be, whatever came.
fn check(value: &[u8], headers: &[(&str, &[u8])]) {
    for source_kind in [SourceKind::Generation, SourceKind::Wallet] {
        match read(source_kind, Some(value), headers) {
            Err(rejection) => {
                assert!(!rejection.detail.is_empty() && rejection.detail.len() <= 1_010, "{rejection:?}")
            }
            Ok(event) => {
                assert!(is_id(&event.wallet_id) && is_id(&event.id), "{event:?}");
                assert_eq!(event.data.is_none(), event.kind == EventKind::Free);
                if let Some(Ok(data)) = &event.data {
                    let print = fingerprint(event.kind, event.time, data);
                    assert_eq!(print, fingerprint(event.kind, event.time, &data.clone()));
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn arbitrary_bytes_never_panic(value in proptest::collection::vec(any::<u8>(), 0..300)) {
        check(&value, &[]);
    }

    #[test]
    fn mutations_of_valid_events_never_panic(valid in 0..VALIDS.len(), mutations in mutations()) {
        let (kind, data) = VALIDS[valid];
        check(&mutated(&event_with(kind, data), &mutations), &[]);
    }

    #[test]
    fn arbitrary_headers_never_panic(
        values in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 6),
        valid in 0..VALIDS.len(),
        mutations in mutations(),
        keep in any::<u8>(),
    ) {
        let (kind, data) = VALIDS[valid];
        let names = ["ce_specversion", "ce_id", "ce_source", "ce_type", "ce_subject", "ce_time"];
        let right: [&[u8]; 6] = [b"1.0", b"e1", b"/s", kind.as_bytes(), b"w1", b"2026-11-03T10:15:30.123Z"];
        let headers: Vec<(&str, &[u8])> = names
            .iter()
            .zip(right)
            .zip(&values)
            .enumerate()
            .map(|(index, ((name, right), wrong))| (*name, if keep & (1 << index) != 0 { right } else { wrong.as_slice() }))
            .collect();
        check(&mutated(data, &mutations), &headers);
    }

    /// Every whole number that fits is read as itself, whichever way it is spelt.
    #[test]
    fn numbers_are_read_exactly(images in 1_u32..=10_000, millis in 1_u64..=36_000_000, zeros in 0_usize..5) {
        let spelt = format!("{images}{}{}", if zeros == 0 { "" } else { "." }, "0".repeat(zeros));
        let value = event_with("generation.completed", &format!(r#"{{"job_id":"j","asset":"image","images":{spelt}}}"#));
        let Data::Completed(data) = data_of(&value) else { panic!() };
        prop_assert_eq!(data.quantity, crate::rate::Quantity::Images(images));
        for spelt in [format!("{}.{:03}", millis / 1_000, millis % 1_000), format!("{millis}e-3"), format!("{millis}0E-4")] {
            let value = event_with("generation.completed", &format!(r#"{{"job_id":"j","asset":"video","seconds":{spelt}}}"#));
            let Data::Completed(data) = data_of(&value) else { panic!() };
            prop_assert_eq!(data.quantity, crate::rate::Quantity::Video(crate::rate::VideoMillis(millis)));
        }
    }
}
