//! Records in, verdicts out: every reason that a record alone can show, and the order in which they are looked
//! for. A verdict is what [`verdict`] makes of the decoder's answer, so that each test reads as a table.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::sync::LazyLock;

use super::*;
use crate::config::Config;

mod binary;
mod fields;
mod fingerprints;
mod properties;

static RULES: LazyLock<EventRules> = LazyLock::new(|| EventRules::new(&Config::default().events));

/// A valid event, the base of most tables.
const VALID: &str = r#"{"specversion":"1.0","id":"e1","source":"/s","type":"generation.completed","subject":"w1","time":"2026-11-03T10:15:30.123Z","data":{"job_id":"j1","asset":"video","seconds":8}}"#;
/// Its data.
const USAGE: &str = r#"{"job_id":"j1","asset":"video","seconds":8}"#;

fn topic_of(kind: &str) -> SourceKind {
    let is_wallet = ["contract.", "topup.", "wallet."].iter().any(|prefix| kind.starts_with(prefix));
    if is_wallet { SourceKind::Wallet } else { SourceKind::Generation }
}

/// A structured event of that type with that data.
fn event_with(kind: &str, data: &str) -> String {
    VALID.replace("generation.completed", kind).replace(USAGE, data)
}

/// [`VALID`] with one place changed.
fn changed(from: &str, to: &str) -> String {
    assert!(VALID.contains(from), "{from} does not stand in the valid event");
    VALID.replacen(from, to, 1)
}

fn read<'a>(
    source_kind: SourceKind,
    value: Option<&'a [u8]>,
    headers: &[(&'a str, &'a [u8])],
) -> Result<Event<'a>, Rejection> {
    decode(&IncomingRecord { source_kind, value, headers }, &RULES)
}

fn read_text(source_kind: SourceKind, value: &str) -> Result<Event<'_>, Rejection> {
    read(source_kind, Some(value.as_bytes()), &[])
}

/// One word or two: the type that came out; `free`; the reason of a refused envelope; `data` and the reason of
/// refused data, which is looked at after the time window and the identity.
fn verdict(answer: &Result<Event<'_>, Rejection>) -> String {
    match answer {
        Err(rejection) => rejection.reason.as_str().to_owned(),
        Ok(Event { data: None, kind, .. }) => kind.as_str().to_owned(),
        Ok(Event { data: Some(Ok(_)), kind, .. }) => kind.as_str().to_owned(),
        Ok(Event { data: Some(Err(rejection)), .. }) => format!("data {}", rejection.reason.as_str()),
    }
}

fn assert_verdict(value: &str, expected: &str) {
    let answer = read_text(SourceKind::Generation, value);
    assert_eq!(verdict(&answer), expected, "{}\n{answer:?}", shown(value));
}

/// The data of a valid event.
fn data_of(value: &str) -> Data<'_> {
    let kind = EventKind::NAMED.map(EventKind::as_str).into_iter().find(|kind| value.contains(kind));
    read_text(topic_of(kind.unwrap_or_default()), value).unwrap().data.unwrap().unwrap()
}

fn shown(value: &str) -> &str {
    value.get(..300).unwrap_or(value)
}

#[test]
fn a_valid_event_is_read_as_it_stands() {
    let event = read_text(SourceKind::Generation, VALID).unwrap();
    assert_eq!(event.kind, EventKind::GenerationCompleted);
    assert_eq!((&*event.wallet_id, &*event.source, &*event.id), ("w1", "/s", "e1"));
    assert_eq!(event.time.0.to_string(), "2026-11-03T10:15:30.123Z");
    let Some(Ok(Data::Completed(data))) = event.data else { panic!("{event:?}") };
    assert_eq!(&*data.job_id, "j1");
    assert_eq!(data.quantity, crate::rate::Quantity::Video(crate::rate::VideoMillis(8_000)));
    assert_eq!([&*data.asset_id, &*data.model, &*data.user_id, &*data.project_id], [""; 4]);
}

#[test]
fn what_is_no_json_in_utf8_is_not_json() {
    for value in [
        "",
        " ",
        "\n",
        "{",
        "nonsense",
        "{'id':1}",
        "{\"id\":}",
        "[1,2",
        "\u{feff}{}",
        "{} {}",
        "NaN",
        "Infinity",
        "{\"id\":\"\u{1}\"}",
        "{\"id\":\"\\x\"}",
        "{\"a\":01}",
        "{\"a\":+1}",
        "{\"a\":.5}",
        "{\"a\":1.}",
        "// {}",
    ] {
        assert_verdict(value, "not_json");
    }
    assert_verdict(&changed("\"time\"", "\"x\":tru,\"time\""), "not_json");
    assert_verdict(&format!("{VALID}x"), "not_json");
    let tombstone = read(SourceKind::Generation, None, &[]);
    assert_eq!(verdict(&tombstone), "not_json");
    for bytes in [&b"\xff\xfe"[..], b"{\"id\":\"\xc3\x28\"}", b"{\"id\":\"\xed\xa0\x80\"}"] {
        assert_eq!(verdict(&read(SourceKind::Generation, Some(bytes), &[])), "not_json", "{bytes:?}");
    }
}

#[test]
fn json_that_is_no_event_is_not_cloudevent() {
    for value in ["null", "true", "7", "\"text\"", "[]", "{}", "[{}]", USAGE] {
        assert_verdict(value, "not_cloudevent");
    }
    // serde would take an array as a struct whose fields stand in their order.
    assert_verdict(
        r#"["1.0","e1","/s","generation.completed","w1","2026-11-03T10:15:30.123Z",{}]"#,
        "not_cloudevent",
    );
    assert_verdict(&format!("[{VALID}]"), "not_cloudevent");
    for attribute in
        ["\"specversion\":\"1.0\"", "\"id\":\"e1\"", "\"source\":\"/s\"", "\"type\":\"generation.completed\""]
    {
        let name = attribute.split(':').next().unwrap();
        for instead in ["\"x\":1", &format!("{name}:null"), &format!("{name}:\"\""), &format!("{name}:7")] {
            assert_verdict(&changed(attribute, instead), "not_cloudevent");
        }
        for instead in ["{}", "[]", "true", "\"\\ud800\""] {
            assert_verdict(&changed(attribute, &format!("{name}:{instead}")), "not_cloudevent");
        }
        assert_verdict(&changed(attribute, &format!("{attribute},{attribute}")), "not_cloudevent");
    }
    for version in ["0.3", "1", "1.0.0", "2.0", " 1.0"] {
        assert_verdict(&changed("\"1.0\"", &format!("\"{version}\"")), "not_cloudevent");
    }
    for attribute in ["\"subject\":\"w1\"", "\"time\":\"2026-11-03T10:15:30.123Z\""] {
        assert_verdict(&changed(attribute, &format!("{attribute},{attribute}")), "not_cloudevent");
    }
}

#[test]
fn types_are_known_by_their_whole_name_on_their_own_topic() {
    for (kind, expected) in [
        ("generation.completed", "generation.completed"),
        ("ad.created", "free"),
        ("asset.edited", "free"),
        ("ad.published", "free"),
        ("insights.viewed", "free"),
        ("video.rendered", "unknown_type"),
        ("generation.complete", "unknown_type"),
        ("generation.completed ", "unknown_type"),
        ("Generation.Completed", "unknown_type"),
        ("generation", "unknown_type"),
        ("free", "unknown_type"),
        ("contract.started", "unknown_type"),
        ("topup.purchased", "unknown_type"),
        ("wallet.adjusted", "unknown_type"),
    ] {
        assert_verdict(&event_with(kind, USAGE), expected);
    }
    for kind in ["generation.completed", "ad.created", "insights.viewed"] {
        let value = event_with(kind, USAGE);
        assert_eq!(
            verdict(&read_text(SourceKind::Wallet, &value)),
            "unknown_type",
            "{kind} on the wallet topic"
        );
    }
    let minted =
        event_with("wallet.adjusted", r#"{"adjustment_id":"a","credits":5,"reason":"r","actor":"a"}"#);
    let rejection = read_text(SourceKind::Generation, &minted).unwrap_err();
    assert!(rejection.detail.contains("wallet topic"), "{}", rejection.detail);
}

/// A type on the other topic is unknown there, whatever its data: who reports usage must not mint credits.
#[test]
fn every_type_belongs_on_one_topic_alone() {
    for kind in EventKind::NAMED.map(EventKind::as_str) {
        let (right, wrong) = match topic_of(kind) {
            SourceKind::Generation => (SourceKind::Generation, SourceKind::Wallet),
            SourceKind::Wallet => (SourceKind::Wallet, SourceKind::Generation),
        };
        for (_, data) in fingerprints::full_data().iter().filter(|(of, _)| *of == kind) {
            let value = event_with(kind, data);
            assert_eq!(verdict(&read_text(right, &value)), kind, "{value}");
            let rejection = read_text(wrong, &value).unwrap_err();
            assert_eq!(rejection.reason, Reason::UnknownType, "{kind}");
            assert!(rejection.detail.contains("send it to the"), "{}", rejection.detail);
        }
        assert!(fingerprints::full_data().iter().any(|(of, _)| *of == kind), "{kind} has no data here");
    }
}

#[test]
fn a_configured_prefix_is_required_and_configured_free_types_replace_the_defaults() {
    let mut config = Config::default().events;
    config.type_prefix = "com.acme.".to_owned();
    config.free_types = "banner.drawn".to_owned();
    let rules = EventRules::new(&config);
    for (kind, expected) in [
        ("com.acme.generation.completed", "generation.completed"),
        ("com.acme.banner.drawn", "free"),
        ("com.acme.ad.created", "unknown_type"),
        ("generation.completed", "unknown_type"),
        ("banner.drawn", "unknown_type"),
        ("com.acme.com.acme.generation.completed", "unknown_type"),
        ("com.acme.", "unknown_type"),
    ] {
        let value = event_with(kind, USAGE);
        let record = IncomingRecord {
            source_kind: SourceKind::Generation,
            value: Some(value.as_bytes()),
            headers: &[],
        };
        assert_eq!(verdict(&decode(&record, &rules)), expected, "{kind}");
    }
}

#[test]
fn context_attributes_are_first_missing_and_then_bad() {
    for (from, to, expected) in [
        ("\"subject\":\"w1\"", "\"x\":1", "missing_field"),
        ("\"subject\":\"w1\"", "\"subject\":null", "missing_field"),
        ("\"time\":\"2026-11-03T10:15:30.123Z\"", "\"time\":null", "missing_field"),
        ("\"w1\"", "\"\"", "bad_value"),
        ("\"w1\"", "7", "bad_value"),
        ("\"w1\"", "{}", "bad_value"),
        ("\"w1\"", "\"w\u{e4}\"", "bad_value"),
        ("\"w1\"", "\"w\\n\"", "bad_value"),
        ("\"w1\"", "\"w\\u0000\"", "bad_value"),
        ("\"w1\"", "\"w\\u0031\"", "generation.completed"),
        ("\"w1\"", "\" ~\"", "generation.completed"),
        ("\"w1\"", "\"\\u007f\"", "bad_value"),
        ("\"e1\"", "\"\u{e4}\"", "bad_value"),
        ("\"/s\"", "\"\u{e4}\"", "bad_value"),
        ("\"2026-11-03T10:15:30.123Z\"", "\"2026-11-03T10:15:30\"", "bad_value"),
        ("\"2026-11-03T10:15:30.123Z\"", "\"2026-11-03\"", "bad_value"),
        ("\"2026-11-03T10:15:30.123Z\"", "\"2026-02-30T10:15:30Z\"", "bad_value"),
        ("\"2026-11-03T10:15:30.123Z\"", "\"\"", "bad_value"),
        ("\"2026-11-03T10:15:30.123Z\"", "1793700930123", "bad_value"),
        ("\"2026-11-03T10:15:30.123Z\"", "\"2026-11-03T11:15:30.123999+01:00\"", "generation.completed"),
        ("\"2026-11-03T10:15:30.123Z\"", "\"9999-12-31T23:59:59-14:00\"", "bad_value"),
    ] {
        assert_verdict(&changed(from, to), expected);
    }
    for (data, expected) in [
        ("null", "missing_field"),
        ("[]", "bad_value"),
        ("\"text\"", "bad_value"),
        ("7", "bad_value"),
        (r#"["j1","video"]"#, "bad_value"),
        ("{}", "data missing_field"),
    ] {
        assert_verdict(&event_with("generation.completed", data), expected);
    }
    assert_verdict(&changed(&format!(",\"data\":{USAGE}"), ""), "missing_field");
}

#[test]
fn an_id_has_at_most_128_bytes_and_a_source_256() {
    let cases = [("\"e1\"", 128), ("\"w1\"", 128), ("\"/s\"", 256)];
    for (place, longest) in cases {
        let filled = |length: usize| changed(place, &format!("\"{}\"", "x".repeat(length)));
        assert_verdict(&filled(longest), "generation.completed");
        assert_verdict(&filled(longest + 1), "bad_value");
        assert_verdict(&filled(300), "bad_value");
    }
}

#[test]
fn free_events_need_a_right_envelope_and_any_data_but_null() {
    for (data, expected) in [
        ("{}", "free"),
        ("[]", "free"),
        ("\"text\"", "free"),
        ("0", "free"),
        ("false", "free"),
        ("{\"seconds\":-1,\"seconds\":-1}", "free"),
        ("null", "missing_field"),
    ] {
        assert_verdict(&event_with("ad.created", data), expected);
    }
    let free = |from: &str, to: &str| changed(from, to).replace("generation.completed", "ad.created");
    assert_verdict(&free("\"w1\"", "null"), "missing_field");
    assert_verdict(&free("\"w1\"", "\"\""), "bad_value");
    assert_verdict(&free("2026-11-03", "2026-13-03"), "bad_value");
}

/// Goal: one order of checks. Method: a record with two faults names the one that is looked for earlier.
#[test]
fn the_first_fault_in_the_order_of_checks_names_the_reason() {
    let mut faults: Vec<(&str, &str, &str)> = vec![
        ("\"1.0\"", "\"0.3\"", "not_cloudevent"),
        ("generation.completed", "video.rendered", "unknown_type"),
        ("\"subject\":\"w1\",", "", "missing_field"),
        ("2026-11-03", "2026-13-03", "bad_value"),
        ("\"asset\":\"video\",", "", "data missing_field"),
        ("\"seconds\":8", "\"seconds\":-8", "data bad_value"),
    ];
    while let Some((from, to, reason)) = faults.first().copied() {
        assert_verdict(&changed(from, to), reason);
        for (later_from, later_to, _) in &faults[1..] {
            assert_verdict(&changed(from, to).replacen(later_from, later_to, 1), reason);
        }
        let unclosed = changed(from, to);
        assert_verdict(&unclosed[..unclosed.len() - 1], "not_json");
        let too_large = unclosed + &" ".repeat(65_536);
        assert_verdict(&too_large, "too_large");
        faults.remove(0);
    }
    assert_verdict(&"x".repeat(65_537), "too_large");
    // A type error before a fault of syntax: whether it is JSON is asked first.
    assert_verdict("[1, oops", "not_json");
    assert_verdict("\"text\" oops", "not_json");
    assert_verdict(r#"{"id":1,"id":2,oops"#, "not_json");
}

#[test]
fn a_value_of_the_limit_is_read_and_one_byte_more_is_too_large() {
    let filled = |bytes: usize| format!("{VALID}{}", " ".repeat(bytes - VALID.len()));
    assert_verdict(&filled(65_536), "generation.completed");
    assert_verdict(&filled(65_537), "too_large");
    assert_verdict(&filled(1 << 20), "too_large");
    let rejection = read_text(SourceKind::Generation, &filled(65_537)).unwrap_err();
    assert!(rejection.detail.contains("65537") && rejection.detail.contains("65536"), "{}", rejection.detail);
}

#[test]
fn what_is_not_read_may_be_nested_as_deep_as_it_likes() {
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let deep_object = format!("{}0{}", "{\"a\":".repeat(10_000), "}".repeat(10_000));
    assert_verdict(&changed("\"time\"", &format!("\"x\":{deep},\"time\"")), "generation.completed");
    assert_verdict(
        &changed("\"job_id\"", &format!("\"x\":{deep_object},\"job_id\"")),
        "generation.completed",
    );
    assert_verdict(&event_with("ad.created", &deep), "free");
    assert_verdict(&event_with("generation.completed", &deep), "bad_value");
    assert_verdict(&event_with("generation.completed", &deep_object), "data missing_field");
    assert_verdict(&changed("\"j1\"", &deep), "data bad_value");
    assert_verdict(&changed("\"e1\"", &deep), "not_cloudevent");
    assert_verdict(&deep, "not_cloudevent");
    assert_verdict(&"[".repeat(60_000), "not_json");
}

#[test]
fn unknown_members_are_ignored_even_twice_and_names_may_be_escaped() {
    assert_verdict(
        &changed("\"time\"", "\"traceparent\":\"00\",\"x\":1,\"x\":null,\"time\""),
        "generation.completed",
    );
    assert_verdict(&changed("\"job_id\"", "\"note\":{},\"note\":[],\"job_id\""), "generation.completed");
    assert_verdict(&changed("\"id\"", "\"\\u0069d\""), "generation.completed");
    assert_verdict(&changed("\"job_id\"", "\"job\\u005fid\""), "generation.completed");
    assert_verdict(&changed("\"job_id\"", "\"job_id\":\"j0\",\"job_id\""), "data bad_value");
    assert_verdict(&format!(" \r\n\t{VALID} \r\n\t"), "generation.completed");
    assert_verdict(&changed(",\"data\":", " , \"data\" :\n "), "generation.completed");
}

#[test]
fn escapes_in_strings_are_read_as_what_they_stand_for() {
    let value = VALID.replace("\"e1\"", r#""\u0065\/1\"\\""#).replace("\"j1\"", r#""j\u0031""#);
    let event = read_text(SourceKind::Generation, &value).unwrap();
    assert_eq!(&*event.id, "e/1\"\\");
    let Some(Ok(Data::Completed(data))) = event.data else { panic!("{event:?}") };
    assert_eq!(&*data.job_id, "j1");
}

/// A sentence goes into a header of the quarantine: however long the record, it must fit there.
#[test]
fn a_sentence_never_grows_with_the_record() {
    let long = "\u{200b}".repeat(20_000);
    for value in [
        changed("generation.completed", &long),
        changed("\"1.0\"", &format!("\"{long}\"")),
        changed("\"e1\"", &format!("\"{long}\"")),
        changed("\"j1\"", &format!("\"{long}\"")),
        format!("\"{long}\""),
        format!("{{\"{long}"),
    ] {
        let detail = match read_text(SourceKind::Generation, &value) {
            Ok(event) => event.data.unwrap().unwrap_err().detail,
            Err(rejection) => rejection.detail,
        };
        assert!(detail.len() <= 1_010, "{} bytes", detail.len());
    }
}
