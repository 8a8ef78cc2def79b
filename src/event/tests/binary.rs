//! Binary mode: attributes are headers, the value is the data.

use super::*;

type Headers<'a> = Vec<(&'a str, &'a [u8])>;

fn headers() -> Headers<'static> {
    vec![
        ("ce_specversion", b"1.0"),
        ("ce_id", b"e1"),
        ("ce_source", b"/s"),
        ("ce_type", b"generation.completed"),
        ("ce_subject", b"w1"),
        ("ce_time", b"2026-11-03T10:15:30.123Z"),
    ]
}

fn with<'a>(name: &str, value: &'a [u8]) -> Headers<'a> {
    let mut headers: Headers<'a> = headers();
    headers.iter_mut().find(|(header, _)| *header == name).unwrap().1 = value;
    headers
}

fn without(name: &str) -> Headers<'static> {
    headers().into_iter().filter(|(header, _)| *header != name).collect()
}

fn and<'a>(name: &'a str, value: &'a [u8]) -> Headers<'a> {
    let mut headers: Headers<'a> = headers();
    headers.push((name, value));
    headers
}

fn assert_binary(headers: &Headers<'_>, value: &str, expected: &str) {
    let answer = read(SourceKind::Generation, Some(value.as_bytes()), headers);
    assert_eq!(verdict(&answer), expected, "{headers:?} {}\n{answer:?}", shown(value));
}

#[test]
fn a_binary_event_says_the_same_as_a_structured_one() {
    let headers = headers();
    let binary = read(SourceKind::Generation, Some(USAGE.as_bytes()), &headers).unwrap();
    let structured = read_text(SourceKind::Generation, VALID).unwrap();
    assert_eq!(format!("{binary:?}"), format!("{structured:?}"));
}

#[test]
fn the_mode_is_told_by_the_content_type_and_then_by_any_attribute() {
    for (headers, value, expected) in [
        (vec![], VALID, "generation.completed"),
        (vec![], USAGE, "not_cloudevent"),
        (headers(), USAGE, "generation.completed"),
        (headers(), VALID, "data missing_field"),
        (and("content-type", b"application/json"), USAGE, "generation.completed"),
        (and("content-type", b"application/cloudevents+json"), VALID, "generation.completed"),
        (and("content-type", b"application/cloudevents+json"), USAGE, "not_cloudevent"),
        (and("content-type", b"Application/CloudEvents+JSON; charset=utf-8"), VALID, "generation.completed"),
        (vec![("content-type", b"application/json" as &[u8])], VALID, "generation.completed"),
        (vec![("content-type", b"application/cloudevents-batch+json" as &[u8])], VALID, "not_cloudevent"),
        (and("content-type", b"application/cloudevents-batch+json"), USAGE, "not_cloudevent"),
        (vec![("ce_x", b"1" as &[u8])], VALID, "not_cloudevent"),
        (vec![("traceparent", b"\xff\xfe" as &[u8])], VALID, "generation.completed"),
        (vec![("id", b"e1" as &[u8])], VALID, "generation.completed"),
    ] {
        assert_binary(&headers, value, expected);
    }
    let batch = and("content-type", b"application/cloudevents-batch+json");
    let rejection = read(SourceKind::Generation, Some(b"[]"), &batch).unwrap_err();
    assert!(rejection.detail.contains("one event per record"), "{}", rejection.detail);
}

#[test]
fn every_fault_of_a_header_is_named() {
    for (headers, expected) in [
        (without("ce_specversion"), "not_cloudevent"),
        (without("ce_id"), "not_cloudevent"),
        (without("ce_source"), "not_cloudevent"),
        (without("ce_type"), "not_cloudevent"),
        (without("ce_subject"), "missing_field"),
        (without("ce_time"), "missing_field"),
        (with("ce_specversion", b"0.3"), "not_cloudevent"),
        (with("ce_specversion", b""), "not_cloudevent"),
        (with("ce_id", b""), "not_cloudevent"),
        (with("ce_id", b"\xff"), "not_cloudevent"),
        (with("ce_type", b"\xff"), "not_cloudevent"),
        (with("ce_type", b"contract.started"), "unknown_type"),
        (with("ce_type", b"generation.refunded"), "generation.refunded"),
        (with("ce_type", b"wallet.limits_changed"), "unknown_type"),
        (with("ce_subject", b""), "bad_value"),
        (with("ce_subject", b"\xff"), "bad_value"),
        (with("ce_subject", "\u{e4}".as_bytes()), "bad_value"),
        (with("ce_subject", b"\"w1\""), "generation.completed"),
        (with("ce_source", "\u{e4}".as_bytes()), "bad_value"),
        (with("ce_time", b"yesterday"), "bad_value"),
        (with("ce_time", b"\"2026-11-03T10:15:30.123Z\""), "bad_value"),
        (with("ce_type", b"ad.created"), "free"),
        (and("ce_id", b"e1"), "not_cloudevent"),
        (and("ce_time", b"2026-11-03T10:15:30.123Z"), "not_cloudevent"),
        (and("ce_traceparent", b"\xff"), "generation.completed"),
    ] {
        assert_binary(&headers, USAGE, expected);
    }
    let long = [b'x'; 300];
    assert_binary(&with("ce_id", &long), USAGE, "bad_value");
    assert_binary(&with("ce_subject", &long), USAGE, "bad_value");
    assert_binary(&with("ce_source", &long), USAGE, "bad_value");
}

#[test]
fn the_value_is_the_data_alone() {
    for (value, expected) in [
        ("", "missing_field"),
        ("  ", "missing_field"),
        ("null", "missing_field"),
        (" null\n", "missing_field"),
        ("{", "not_json"),
        ("{} {}", "not_json"),
        ("[]", "bad_value"),
        ("7", "bad_value"),
        ("{}", "data missing_field"),
        (" {\"job_id\":\"j1\",\"asset\":\"video\",\"seconds\":8.0}\n", "generation.completed"),
        (r#"{"job_id":"j1","asset":"video","seconds":8,"seconds":8}"#, "data bad_value"),
    ] {
        assert_binary(&headers(), value, expected);
    }
    assert_eq!(verdict(&read(SourceKind::Generation, None, &headers())), "missing_field", "a tombstone");
    assert_eq!(verdict(&read(SourceKind::Generation, Some(b"\xff"), &headers())), "not_json");
    assert_binary(&without("ce_id"), "{", "not_json");
    assert_binary(&headers(), &format!("{USAGE}{}", " ".repeat(65_536)), "too_large");
    assert_binary(&with("ce_type", b"ad.created"), "[1]", "free");
    assert_binary(&with("ce_type", b"ad.created"), "", "missing_field");
}

/// Headers are not bounded by the largest value, and the sentence goes into a header beside them.
#[test]
fn a_header_of_a_megabyte_makes_no_sentence_of_a_megabyte() {
    let long = "\u{200b}".repeat(300_000);
    for name in ["ce_type", "ce_specversion", "ce_id", "ce_time"] {
        let headers = with(name, long.as_bytes());
        let rejection = read(SourceKind::Generation, Some(USAGE.as_bytes()), &headers).unwrap_err();
        assert!(rejection.detail.len() <= 1_010, "{name}: {} bytes", rejection.detail.len());
    }
}
