//! Who an event is and what it says: what counts, what does not, and that neither ever changes.

use super::*;

fn print(kind: &str, value: &str) -> Fingerprint {
    let event = read_text(topic_of(kind), value).unwrap();
    fingerprint(event.kind, event.time, &event.data.unwrap().unwrap())
}

/// A field, its value, and another value.
type Field = (&'static str, &'static str, &'static str);

/// All fields of each type.
const FULL: [(&str, &[Field]); 14] = [
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
    (
        "generation.requested",
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
    ("generation.failed", ENDED),
    ("generation.rejected", ENDED),
    ("generation.cancelled", ENDED),
    ("generation.refunded", ENDED),
    (
        "contract.plan_changed",
        &[
            ("contract_id", "\"c1\"", "\"c2\""),
            ("plan", "\"lite\"", "\"scale\""),
            ("effective_at", "\"2026-11-03T00:00:00Z\"", "\"2026-11-03T00:00:00.001Z\""),
            ("reference", "\"r1\"", "\"r2\""),
        ],
    ),
    (
        "contract.renewed",
        &[
            ("contract_id", "\"c1\"", "\"c2\""),
            ("plan", "\"lite\"", "\"scale\""),
            ("term_months", "12", "11"),
            ("reference", "\"r1\"", "\"r2\""),
        ],
    ),
    (
        "contract.cancelled",
        &[
            ("contract_id", "\"c1\"", "\"c2\""),
            ("effective_at", "\"2026-11-03T00:00:00Z\"", "\"2026-11-03T00:00:00.001Z\""),
            ("reference", "\"r1\"", "\"r2\""),
        ],
    ),
    (
        "wallet.limits_changed",
        &[
            ("overdraft_limit", "20", "21"),
            ("low_percent", "20", "21"),
            ("critical_percent", "20", "19"),
            ("reference", "\"r1\"", "\"r2\""),
        ],
    ),
];

const ENDED: &[Field] =
    &[("job_id", "\"j1\"", "\"j2\""), ("asset_id", "\"a1\"", "\"a2\""), ("reason", "\"r1\"", "\"r2\"")];

/// Every type with all its fields.
pub(super) fn full_data() -> Vec<(&'static str, String)> {
    FULL.iter()
        .map(|(kind, fields)| (*kind, object(fields.iter().map(|(name, value, _)| (*name, *value)))))
        .collect()
}

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
            let rest = fields.iter().filter(|(name, ..)| name != changed);
            let without = event_with(kind, &object(rest.map(|(name, value, _)| (*name, *value))));
            let is_optional = read_text(topic_of(kind), &without).unwrap().data.unwrap().is_ok();
            // A term of 12 months is what an absent one means where a contract begins.
            if is_optional && (kind, *changed) != ("contract.started", "term_months") {
                prints.push(print(kind, &without));
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

#[test]
fn the_same_data_under_two_types_is_not_the_same() {
    let endings = ["generation.failed", "generation.rejected", "generation.cancelled", "generation.refunded"];
    let ended = endings.map(|kind| print(kind, &event_with(kind, r#"{"job_id":"j"}"#)));
    let usage =
        ["generation.requested", "generation.completed"].map(|kind| print(kind, &event_with(kind, USAGE)));
    let contract = ["contract.renewed", "contract.cancelled"]
        .map(|kind| print(kind, &event_with(kind, r#"{"contract_id":"j"}"#)));
    let mut prints: Vec<u64> = ended.iter().chain(&usage).chain(&contract).map(|print| print.0).collect();
    prints.sort_unstable();
    prints.dedup();
    assert_eq!(prints.len(), 8);
}

/// Each of these is something else to ask for, and stays so under every spelling.
#[test]
fn limits_are_told_apart_by_what_they_mean() {
    let limits = |data: &str| print("wallet.limits_changed", &event_with("wallet.limits_changed", data));
    let different = [
        r#"{"overdraft_limit":0,"low_percent":0}"#,
        r#"{"overdraft_limit":1,"low_percent":0}"#,
        r#"{"overdraft_limit":"none","low_percent":0}"#,
        r#"{"overdraft_limit":"plan","low_percent":0}"#,
        r#"{"low_percent":0}"#,
        r#"{"critical_percent":0}"#,
        r#"{"low_percent":"plan"}"#,
        r#"{"critical_percent":"plan"}"#,
        r#"{"overdraft_limit":0}"#,
    ];
    let mut prints: Vec<u64> = different.iter().map(|data| limits(data).0).collect();
    prints.sort_unstable();
    prints.dedup();
    assert_eq!(prints.len(), different.len());
    for (one, other) in [
        (r#"{"overdraft_limit":0}"#, r#"{"low_percent":null,"overdraft_limit":-0.0,"note":1}"#),
        (r#"{"overdraft_limit":10,"low_percent":5}"#, r#"{"low_percent":5.0,"overdraft_limit":1e1}"#),
        (r#"{"overdraft_limit":"none"}"#, r#"{"overdraft_limit":"\u006eone"}"#),
    ] {
        assert_eq!(limits(one), limits(other), "{other}");
    }
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
    let ended = |asset_id: &str, reason: &str| {
        let data = format!(r#"{{"job_id":"j","asset_id":"{asset_id}","reason":"{reason}"}}"#);
        print("generation.failed", &event_with("generation.failed", &data))
    };
    assert_ne!(ended("ab", "c"), ended("a", "bc"));
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
    let always = [
        "3538a8d7472f00f6",
        "c7308b6fb058cb71",
        "f7b25fdb3d3adbbe",
        "802229cca0ea5771",
        "5b47f869d05d6e5a",
        "377a5084f2c70967",
        "f60be5778081df52",
        "ad7913767abe281e",
        "2411c6bbbb8d5fc3",
        "cde5caba80af8171",
        "e6f217481aefb357",
        "c53a5bec5ac49434",
        "276d1abe1e403af0",
        "3d176cce0a5b0798",
    ];
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
