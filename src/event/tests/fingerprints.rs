//! Who an event is and what it says: what counts, what does not, and that neither ever changes.

use super::*;

fn print(kind: &str, value: &str) -> Fingerprint {
    let event = read_text(topic_of(kind), value).unwrap();
    fingerprint(event.kind, event.time, &event.data.unwrap().unwrap())
}

/// A field, its value, and another value.
type Field = (&'static str, &'static str, &'static str);

/// All fields of each type.
const FULL: [(&str, &[Field]); 5] = [
    (
        "generation.completed",
        &[
            ("job_id", "\"j1\"", "\"j2\""),
            ("asset", "\"video\"", "\"video\""),
            ("seconds", "8", "8.001"),
            ("asset_id", "\"a1\"", "\"a2\""),
            ("model", "\"m1\"", "\"m2\""),
            ("user_id", "\"u1\"", "\"u2\""),
            ("project_id", "\"p1\"", "\"p2\""),
        ],
    ),
    (
        "generation.completed",
        &[("job_id", "\"j1\"", "\"j2\""), ("asset", "\"image\"", "\"image\""), ("images", "8", "9")],
    ),
    (
        "contract.started",
        &[
            ("contract_id", "\"c1\"", "\"c2\""),
            ("plan", "\"lite\"", "\"scale\""),
            ("starts_at", "\"2026-11-03T00:00:00Z\"", "\"2026-11-03T00:00:00.001Z\""),
            ("term_months", "12", "11"),
            ("reference", "\"r1\"", "\"r2\""),
        ],
    ),
    (
        "topup.purchased",
        &[("topup_id", "\"t1\"", "\"t2\""), ("amount_usd", "100", "250"), ("reference", "\"r1\"", "\"r2\"")],
    ),
    (
        "wallet.adjusted",
        &[
            ("adjustment_id", "\"a1\"", "\"a2\""),
            ("credits", "50", "51"),
            ("reason", "\"r1\"", "\"r2\""),
            ("actor", "\"k1\"", "\"k2\""),
            ("expires_at", "\"2027-01-01T00:00:00Z\"", "\"2027-01-01T00:00:00.001Z\""),
            ("reference", "\"r1\"", "\"r2\""),
        ],
    ),
];

fn object<'a>(fields: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let fields: Vec<String> = fields.map(|(name, value)| format!("\"{name}\":{value}")).collect();
    format!("{{{}}}", fields.join(","))
}

#[test]
fn every_field_that_is_read_counts() {
    for (kind, fields) in FULL {
        let base =
            print(kind, &event_with(kind, &object(fields.iter().map(|(name, value, _)| (*name, *value)))));
        let mut prints = vec![base];
        for (changed, value, other) in fields.iter().filter(|(_, value, other)| value != other) {
            let data = object(
                fields
                    .iter()
                    .map(|(name, value, other)| (*name, if name == changed { *other } else { *value })),
            );
            prints.push(print(kind, &event_with(kind, &data)));
            let is_optional = !["job_id", "images", "seconds", "contract_id", "plan", "starts_at"]
                .contains(changed)
                && !["topup_id", "amount_usd", "adjustment_id", "credits", "reason", "actor"]
                    .contains(changed);
            // A term of 12 months is what an absent one means.
            if is_optional && *changed != "term_months" {
                let data = object(
                    fields
                        .iter()
                        .filter(|(name, ..)| name != changed)
                        .map(|(name, value, _)| (*name, *value)),
                );
                prints.push(print(kind, &event_with(kind, &data)));
            }
            assert_ne!(value, other);
        }
        let other_time = event_with(kind, &object(fields.iter().map(|(name, value, _)| (*name, *value))));
        prints.push(print(kind, &other_time.replace("30.123Z", "30.124Z")));
        let count = prints.len();
        prints.sort_by_key(|print| print.0);
        prints.dedup();
        assert_eq!(prints.len(), count, "{kind}: two of them say the same");
    }
}

#[test]
fn images_and_video_of_the_same_number_are_not_the_same() {
    let of = |asset: &str, field: &str, number: &str| {
        print(
            "generation.completed",
            &event_with(
                "generation.completed",
                &format!(r#"{{"job_id":"j","asset":"{asset}","{field}":{number}}}"#),
            ),
        )
    };
    assert_ne!(of("image", "images", "8"), of("video", "seconds", "8"));
    assert_ne!(of("image", "images", "8"), of("video", "seconds", "0.008"));
}

#[test]
fn spelling_order_unknown_members_and_trace_attributes_do_not_count() {
    let base = print("generation.completed", VALID);
    for same in [
        VALID.replace("\"seconds\":8", "\"seconds\":8.0"),
        VALID.replace("\"seconds\":8", "\"seconds\":0.8e1"),
        VALID.replace("10:15:30.123Z", "10:15:30.123999Z"),
        VALID.replace("10:15:30.123Z", "11:15:30.123+01:00"),
        VALID.replace("\"j1\"", "\"\\u006a1\""),
        VALID.replace(USAGE, r#"{"seconds":8,"asset":"video","job_id":"j1"}"#),
        VALID.replace(USAGE, r#"{"job_id":"j1","asset":"video","seconds":8,"note":"a retry","images":7}"#),
        VALID.replace(USAGE, r#"{"job_id":"j1","asset":"video","seconds":8,"model":null,"asset_id":null}"#),
        VALID.replace("\"id\"", "\"traceparent\":\"00-1\",\"tracestate\":\"x\",\"id\""),
        VALID.replace("\"time\"", "\"dataschema\":\"s\",\"datacontenttype\":\"text/plain\",\"time\""),
        VALID.replace("\"e1\"", "\"e2\"").replace("\"/s\"", "\"/t\"").replace("\"w1\"", "\"w2\""),
    ] {
        assert_ne!(same, VALID);
        assert_eq!(print("generation.completed", &same), base, "{same}");
    }
    let contract = |rest: &str| {
        let data = format!(r#"{{"contract_id":"c","plan":"lite","starts_at":"2026-11-03T00:00:00Z"{rest}}}"#);
        print("contract.started", &event_with("contract.started", &data))
    };
    assert_eq!(contract(""), contract(",\"term_months\":1.2e1"));
    let topup = |amount: &str| {
        print(
            "topup.purchased",
            &event_with("topup.purchased", &format!(r#"{{"topup_id":"t","amount_usd":{amount}}}"#)),
        )
    };
    assert_eq!(topup("100"), topup("100.00"));
}

/// The same text in two neighbouring fields must not be the same as the other way round.
#[test]
fn no_byte_may_move_from_one_field_to_the_next() {
    let usage = |asset_id: &str, model: &str, user: &str| {
        let data = format!(
            r#"{{"job_id":"j","asset":"video","seconds":8,"asset_id":"{asset_id}","model":"{model}","user_id":"{user}"}}"#
        );
        print("generation.completed", &event_with("generation.completed", &data))
    };
    assert_ne!(usage("ab", "c", "d"), usage("a", "bc", "d"));
    assert_ne!(usage("a", "bc", "d"), usage("a", "b", "cd"));
    let adjusted = |reason: &str, actor: &str| {
        let data = format!(r#"{{"adjustment_id":"a","credits":5,"reason":"{reason}","actor":"{actor}"}}"#);
        print("wallet.adjusted", &event_with("wallet.adjusted", &data))
    };
    assert_ne!(adjusted("ab", "c"), adjusted("a", "bc"));
}

#[test]
fn identity_keys_do_not_collide_by_shifting_bytes() {
    let keys = [
        event_key("w", "s", "id"),
        event_key("ws", "", "id"),
        event_key("w", "si", "d"),
        event_key("", "ws", "id"),
        event_key("w", "s", "i"),
        event_key("s", "w", "id"),
        event_key("w\0s", "", "id"),
        job_key("w", "s", "id"),
        job_key("w", "sid", ""),
        job_key("ws", "id", ""),
        job_key("w", "s", ""),
        business_key("wsid"),
        business_key("topup:1"),
        business_key("adjustment:1"),
        business_key("contract:1"),
    ];
    let mut unique = keys.to_vec();
    unique.sort();
    unique.dedup();
    assert_eq!(unique.len(), keys.len());
}

/// Keys stand in checkpoints, fingerprints in the ledger: a change of either would charge everything twice.
#[test]
fn keys_and_fingerprints_are_what_they_have_always_been() {
    let shown = |key: IdentityKey| serde_json::to_string(&key).unwrap();
    let prints: Vec<String> = FULL
        .iter()
        .map(|(kind, fields)| {
            print(kind, &event_with(kind, &object(fields.iter().map(|(name, value, _)| (*name, *value)))))
                .to_string()
        })
        .collect();
    let always =
        ["3538a8d7472f00f6", "c7308b6fb058cb71", "f7b25fdb3d3adbbe", "802229cca0ea5771", "5b47f869d05d6e5a"];
    assert_eq!(prints, always);
    assert_eq!(shown(event_key("w1", "/s", "e1")), "\"231faf3619578536dde147c95e11a943\"");
    assert_eq!(shown(job_key("w1", "j1", "a1")), "\"669981c4ba3ebe8e5cec44f911e655c4\"");
    assert_eq!(shown(business_key("topup:t1")), "\"99ba4f5771a244940e5d1d84dab9800c\"");
}

#[test]
fn a_fingerprint_is_spelt_as_16_hex_digits_and_read_back() {
    let print = Fingerprint(0xab);
    let text = serde_json::to_string(&print).unwrap();
    assert_eq!(text, "\"00000000000000ab\"");
    assert_eq!(serde_json::from_str::<Fingerprint>(&text).unwrap(), print);
    assert!(serde_json::from_str::<Fingerprint>("\"xyz\"").is_err());
    let key = business_key("topup:1");
    assert_eq!(serde_json::from_str::<IdentityKey>(&serde_json::to_string(&key).unwrap()).unwrap(), key);
}
