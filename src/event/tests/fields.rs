//! The data of each type: what is required, what is a number, and every limit at its two sides.

use super::*;
use crate::rate::{Quantity, UsdCents, VideoMillis};

/// Asserts the verdict on an event of `kind` with that data: `ok` or the reason.
fn assert_data(kind: &str, data: &str, expected: &str) {
    let value = event_with(kind, data);
    let answer = read_text(topic_of(kind), &value).unwrap().data.unwrap();
    let verdict = answer.as_ref().map_or_else(|rejection| rejection.reason.as_str(), |_| "ok");
    assert_eq!(verdict, expected, "{kind} {}\n{answer:?}", shown(data));
}

/// Each field of a valid object: absent, null and of every wrong type.
fn assert_fields(kind: &str, fields: &[(&str, &str, bool)]) {
    let object = |skip: &str, instead: &str| {
        let fields = fields.iter().filter_map(|(name, value, _)| match *name == skip {
            true if instead.is_empty() => None,
            true => Some(format!("\"{name}\":{instead}")),
            false => Some(format!("\"{name}\":{value}")),
        });
        format!("{{{}}}", fields.collect::<Vec<_>>().join(","))
    };
    assert_data(kind, &object("", ""), "ok");
    for (name, _, is_required) in fields {
        let absent = if *is_required { "missing_field" } else { "ok" };
        assert_data(kind, &object(name, ""), absent);
        assert_data(kind, &object(name, "null"), absent);
        for wrong in ["true", "{}", "[]", "\"\"", "[1]", "\"\\ud800\""] {
            assert_data(kind, &object(name, wrong), "bad_value");
        }
    }
}

#[test]
fn usage_needs_its_job_its_asset_and_a_quantity() {
    let ids = [
        ("asset_id", "\"a1\"", false),
        ("model", "\"m\"", false),
        ("user_id", "\"u\"", false),
        ("project_id", "\"p\"", false),
    ];
    let video = [("job_id", "\"j1\"", true), ("asset", "\"video\"", true), ("seconds", "8", true)];
    let image = [("job_id", "\"j1\"", true), ("asset", "\"image\"", true), ("images", "4", true)];
    for kind in ["generation.requested", "generation.completed"] {
        assert_fields(kind, &[&video[..], &ids].concat());
        assert_fields(kind, &[&image[..], &ids].concat());
    }
    for (data, expected) in [
        (r#"{"job_id":"j","asset":"image","seconds":8}"#, "missing_field"),
        (r#"{"job_id":"j","asset":"video","images":8}"#, "missing_field"),
        (r#"{"job_id":"j","asset":"video","seconds":8,"images":"nonsense"}"#, "ok"),
        (r#"{"job_id":"j","asset":"audio","seconds":8}"#, "bad_value"),
        (r#"{"job_id":"j","asset":"Video","seconds":8}"#, "bad_value"),
        (r#"{"job_id":"j","asset":"vide\u006f","seconds":8}"#, "ok"),
        // First all that is missing, then what is bad.
        (r#"{"job_id":7,"asset":"video"}"#, "missing_field"),
        (r#"{"asset":"audio","seconds":-1}"#, "missing_field"),
        (r#"{"job_id":7,"asset":"video","seconds":-1}"#, "bad_value"),
    ] {
        assert_data("generation.completed", data, expected);
    }
}

#[test]
fn images_are_whole_numbers_from_1_to_10_000() {
    for (spelt, read_as) in [
        ("1", Some(1)),
        ("8", Some(8)),
        ("8.0", Some(8)),
        ("1e1", Some(10)),
        ("1E+1", Some(10)),
        ("0.1e1", Some(1)),
        ("10000", Some(10_000)),
        ("1e4", Some(10_000)),
        ("10000.000", Some(10_000)),
        ("0", None),
        ("-0", None),
        ("0.0", None),
        ("-0.0", None),
        ("0e5", None),
        ("-1", None),
        ("8.5", None),
        ("10001", None),
        ("1e400", None),
        ("1e-400", None),
        ("4294967297", None),
        ("18446744073709551617", None),
        ("99999999999999999999999999999999999999999999", None),
        ("\"8\"", None),
        ("\"\"", None),
        ("true", None),
        ("[8]", None),
    ] {
        let value = event_with(
            "generation.completed",
            &format!(r#"{{"job_id":"j","asset":"image","images":{spelt}}}"#),
        );
        let data = read_text(SourceKind::Generation, &value).unwrap().data.unwrap();
        let images = data.as_ref().ok().map(|data| match data {
            Data::Completed(Usage { quantity: Quantity::Images(images), .. }) => *images,
            other => panic!("{other:?}"),
        });
        assert_eq!(images, read_as, "{spelt}");
        assert!(data.is_ok_and(|_| true) || read_as.is_none());
    }
}

#[test]
fn seconds_are_above_0_and_have_at_most_3_decimals() {
    for (spelt, read_as) in [
        ("8", Some(8_000)),
        ("8.0", Some(8_000)),
        ("0.8e1", Some(8_000)),
        ("8.5", Some(8_500)),
        ("0.001", Some(1)),
        ("1e-3", Some(1)),
        ("8.0000", Some(8_000)),
        ("36000", Some(36_000_000)),
        ("36000.000", Some(36_000_000)),
        ("36000.001", None),
        ("36001", None),
        ("0.0001", None),
        ("8.0001", None),
        ("1e-4", None),
        ("0", None),
        ("-0", None),
        ("0.000", None),
        ("-8", None),
        ("1e400", None),
        ("1e9", None),
        ("\"8\"", None),
        ("\"8.0\"", None),
        ("null8", None),
    ] {
        let data = format!(r#"{{"job_id":"j","asset":"video","seconds":{spelt}}}"#);
        let value = event_with("generation.completed", &data);
        let Ok(event) = read_text(SourceKind::Generation, &value) else {
            assert_eq!(spelt, "null8", "not even JSON");
            continue;
        };
        let seconds = event.data.unwrap().ok().map(|data| match data {
            Data::Completed(Usage { quantity: Quantity::Video(VideoMillis(millis)), .. }) => millis,
            other => panic!("{other:?}"),
        });
        assert_eq!(seconds, read_as, "{spelt}");
    }
}

#[test]
fn every_id_of_the_data_is_1_to_128_bytes_of_printable_ascii() {
    let cases = [
        ("generation.completed", "job_id", r#""asset":"video","seconds":8"#),
        ("generation.completed", "asset_id", r#""job_id":"j","asset":"video","seconds":8"#),
        ("generation.completed", "model", r#""job_id":"j","asset":"video","seconds":8"#),
        ("generation.completed", "user_id", r#""job_id":"j","asset":"video","seconds":8"#),
        ("generation.completed", "project_id", r#""job_id":"j","asset":"video","seconds":8"#),
        ("contract.started", "contract_id", r#""plan":"lite","starts_at":"2026-11-03T00:00:00Z""#),
        ("contract.started", "plan", r#""contract_id":"c","starts_at":"2026-11-03T00:00:00Z""#),
        ("topup.purchased", "topup_id", r#""amount_usd":100"#),
        ("wallet.adjusted", "adjustment_id", r#""credits":5,"reason":"r","actor":"a""#),
        ("generation.requested", "asset_id", r#""job_id":"j","asset":"video","seconds":8"#),
        ("generation.failed", "job_id", r#""reason":"r""#),
        ("generation.rejected", "asset_id", r#""job_id":"j""#),
        ("generation.cancelled", "job_id", r#""asset_id":"a""#),
        ("generation.refunded", "asset_id", r#""job_id":"j""#),
        ("contract.plan_changed", "contract_id", r#""plan":"lite""#),
        ("contract.plan_changed", "plan", r#""contract_id":"c""#),
        ("contract.renewed", "contract_id", r#""plan":"lite""#),
        ("contract.renewed", "plan", r#""contract_id":"c""#),
        ("contract.cancelled", "contract_id", r#""reference":"r""#),
    ];
    for (kind, field, rest) in cases {
        let longest = "x".repeat(128);
        for (id, expected) in [
            ("x", "ok"),
            (" ~", "ok"),
            (longest.as_str(), "ok"),
            (&"x".repeat(129), "bad_value"),
            (&"x".repeat(300), "bad_value"),
            ("", "bad_value"),
            ("\u{e4}", "bad_value"),
            ("\\t", "bad_value"),
            ("\\u0000", "bad_value"),
            ("\\u007f", "bad_value"),
        ] {
            assert_data(kind, &format!("{{\"{field}\":\"{id}\",{rest}}}"), expected);
        }
        assert_data(kind, &format!("{{\"{field}\":7,{rest}}}"), "bad_value");
    }
}

#[test]
fn texts_for_people_are_any_utf8_of_1_to_1_024_bytes_that_is_not_blank() {
    let reference_of = |kind: &str, text: &str, expected: &str| {
        let rest = match kind {
            "contract.started" => r#""contract_id":"c","plan":"lite","starts_at":"2026-11-03T00:00:00Z""#,
            "topup.purchased" => r#""topup_id":"t","amount_usd":100"#,
            "contract.plan_changed" => r#""contract_id":"c","plan":"lite""#,
            "contract.renewed" | "contract.cancelled" => r#""contract_id":"c""#,
            "wallet.limits_changed" => r#""low_percent":20"#,
            _ => r#""adjustment_id":"a","credits":5,"reason":"r","actor":"a""#,
        };
        assert_data(kind, &format!("{{{rest},\"reference\":{text}}}"), expected);
    };
    let wallet_types = EventKind::NAMED.into_iter().filter(|kind| kind.source_kind() == SourceKind::Wallet);
    for kind in wallet_types.map(EventKind::as_str) {
        for (text, expected) in [
            ("\"invoice 4711\"".to_owned(), "ok"),
            ("\"\u{e4}\u{1f600}\\n\"".to_owned(), "ok"),
            (format!("\"{}\"", "x".repeat(1_024)), "ok"),
            (format!("\"{}\"", "\u{e4}".repeat(512)), "ok"),
            (format!("\"{}\"", "x".repeat(1_025)), "bad_value"),
            (format!("\"{}x\"", "\u{e4}".repeat(512)), "bad_value"),
            ("\"\"".to_owned(), "bad_value"),
            ("\" \\t\\n\"".to_owned(), "bad_value"),
            ("\"a\\u0000b\"".to_owned(), "bad_value"),
            ("7".to_owned(), "bad_value"),
            ("null".to_owned(), "ok"),
        ] {
            reference_of(kind, &text, expected);
        }
    }
    for field in ["reason", "actor"] {
        let other = if field == "reason" { "actor" } else { "reason" };
        for (text, expected) in
            [("\"\u{e4}\"", "ok"), ("\" \"", "bad_value"), ("null", "missing_field"), ("5", "bad_value")]
        {
            let data = format!(r#"{{"adjustment_id":"a","credits":5,"{other}":"x","{field}":{text}}}"#);
            assert_data("wallet.adjusted", &data, expected);
        }
    }
}

#[test]
fn a_contract_needs_its_id_its_plan_and_its_start() {
    let fields = [
        ("contract_id", "\"c1\"", true),
        ("plan", "\"lite\"", true),
        ("starts_at", "\"2026-11-03T00:00:00Z\"", true),
        ("term_months", "12", false),
        ("reference", "\"invoice\"", false),
    ];
    assert_fields("contract.started", &fields);
    assert_data("contract.started", r#"{"plan":7,"starts_at":"never"}"#, "missing_field");
    // Whether the plan exists is asked of the pricing file, later.
    assert_data(
        "contract.started",
        r#"{"contract_id":"c","plan":"gigantic","starts_at":"2026-11-03T00:00:00Z"}"#,
        "ok",
    );
}

/// The event's time is 2026-11-03T10:15:30.123Z.
#[test]
fn a_contract_starts_at_most_366_days_ahead_and_is_not_over() {
    for (starts_at, term_months, expected) in [
        ("2026-11-03T10:15:30.123Z", "12", "ok"),
        ("2027-11-04T10:15:30.123Z", "12", "ok"),
        ("2027-11-04T10:15:30.124Z", "12", "bad_value"),
        ("2025-11-03T10:15:30.124Z", "12", "ok"),
        ("2025-11-03T10:15:30.123Z", "12", "bad_value"),
        ("2025-11-03T10:15:30.122Z", "12", "bad_value"),
        ("2025-11-03T10:15:30.122Z", "13", "ok"),
        ("2016-11-03T10:15:30.124Z", "120", "ok"),
        ("0000-01-01T00:00:00Z", "120", "bad_value"),
        ("9999-12-31T00:00:00Z", "120", "bad_value"),
        ("2026-11-03T00:00:00Z", "1", "ok"),
        ("2026-11-03T00:00:00Z", "120", "ok"),
        ("2026-11-03T00:00:00Z", "1.2e1", "ok"),
        ("2026-11-03T00:00:00Z", "null", "ok"),
        ("2026-11-03T00:00:00Z", "0", "bad_value"),
        ("2026-11-03T00:00:00Z", "-1", "bad_value"),
        ("2026-11-03T00:00:00Z", "121", "bad_value"),
        ("2026-11-03T00:00:00Z", "12.5", "bad_value"),
        ("2026-11-03T00:00:00Z", "\"12\"", "bad_value"),
        ("2026-11-03", "12", "bad_value"),
        ("2026-11-03T00:00:00", "12", "bad_value"),
    ] {
        let data = format!(
            r#"{{"contract_id":"c","plan":"lite","starts_at":"{starts_at}","term_months":{term_months}}}"#
        );
        assert_data("contract.started", &data, expected);
    }
}

#[test]
fn a_term_is_counted_in_months_from_its_first_day_and_clipped() {
    for (starts_at, term, ends_at) in [
        ("2026-10-31T08:00:00Z", r#","term_months":4"#, "2027-02-28T08:00:00.000Z"),
        ("2026-11-01T00:00:00+02:00", "", "2027-10-31T22:00:00.000Z"),
        ("2026-11-01T00:00:00Z", r#","term_months":null"#, "2027-11-01T00:00:00.000Z"),
    ] {
        let data = format!(r#"{{"contract_id":"c","plan":"lite","starts_at":"{starts_at}"{term}}}"#);
        let value = event_with("contract.started", &data);
        let Data::ContractStarted(data) = data_of(&value) else { panic!() };
        assert_eq!(data.ends_at.to_string(), ends_at);
    }
}

#[test]
fn a_price_is_any_number_above_0() {
    assert_fields(
        "topup.purchased",
        &[("topup_id", "\"t1\"", true), ("amount_usd", "250", true), ("reference", "\"invoice\"", false)],
    );
    for (spelt, read_as) in [
        ("250", Ok(Some(25_000))),
        ("250.00", Ok(Some(25_000))),
        ("2.5e2", Ok(Some(25_000))),
        ("99.99", Ok(Some(9_999))),
        ("99.999", Ok(None)),
        ("1e20", Ok(None)),
        ("0", Err("bad_value")),
        ("-0", Err("bad_value")),
        ("-250", Err("bad_value")),
        ("\"250\"", Err("bad_value")),
        ("1e400", Err("bad_value")),
    ] {
        let value = event_with("topup.purchased", &format!(r#"{{"topup_id":"t","amount_usd":{spelt}}}"#));
        let data = read_text(SourceKind::Wallet, &value).unwrap().data.unwrap();
        let amount = data.as_ref().map(|data| match data {
            Data::TopupPurchased(data) => data.amount_usd.map(|UsdCents(cents)| cents),
            other => panic!("{other:?}"),
        });
        assert_eq!(amount.map_err(|rejection| rejection.reason.as_str()), read_as, "{spelt}");
    }
}

/// The event's time is 2026-11-03T10:15:30.123Z.
#[test]
fn an_adjustment_is_a_whole_number_but_0_and_only_a_grant_expires() {
    let fields = [
        ("adjustment_id", "\"a1\"", true),
        ("credits", "50", true),
        ("reason", "\"goodwill\"", true),
        ("actor", "\"kim\"", true),
        ("expires_at", "\"2027-02-01T00:00:00Z\"", false),
        ("reference", "\"ticket\"", false),
    ];
    assert_fields("wallet.adjusted", &fields);
    for (credits, expires_at, expected) in [
        ("1", "null", "ok"),
        ("-1", "null", "ok"),
        ("5e1", "null", "ok"),
        ("1000000000", "null", "ok"),
        ("-1000000000", "null", "ok"),
        ("-1e9", "null", "ok"),
        ("1000000001", "null", "bad_value"),
        ("-1000000001", "null", "bad_value"),
        ("0", "null", "bad_value"),
        ("-0", "null", "bad_value"),
        ("0.5", "null", "bad_value"),
        ("\"50\"", "null", "bad_value"),
        ("1e400", "null", "bad_value"),
        ("-1e400", "null", "bad_value"),
        ("50", "\"2026-11-03T10:15:30.124Z\"", "ok"),
        ("50", "\"2026-11-03T10:15:30.123Z\"", "bad_value"),
        ("50", "\"2026-11-03T10:15:30.122Z\"", "bad_value"),
        ("-50", "\"2027-02-01T00:00:00Z\"", "bad_value"),
        ("50", "\"2027-02-01\"", "bad_value"),
    ] {
        let data = format!(
            r#"{{"adjustment_id":"a","credits":{credits},"reason":"r","actor":"k","expires_at":{expires_at}}}"#
        );
        assert_data("wallet.adjusted", &data, expected);
    }
}

const ENDINGS: [&str; 4] =
    ["generation.failed", "generation.rejected", "generation.cancelled", "generation.refunded"];

#[test]
fn the_end_of_a_job_needs_its_job_and_nothing_else() {
    let fields =
        [("job_id", "\"j1\"", true), ("asset_id", "\"a1\"", false), ("reason", "\"no GPU \u{e4}\"", false)];
    for kind in ENDINGS {
        assert_fields(kind, &fields);
        // What was made, or how much it cost, is not its to say.
        assert_data(
            kind,
            r#"{"job_id":"j","asset":"audio","seconds":-1,"credits":"all","effective_at":7}"#,
            "ok",
        );
        let value = event_with(kind, r#"{"job_id":"j1","asset_id":"a1","reason":"r"}"#);
        let Data::JobEnded(ended) = data_of(&value) else { panic!("{kind}") };
        assert_eq!([&*ended.job_id, &*ended.asset_id, &*ended.reason], ["j1", "a1", "r"]);
        let expected = match kind {
            "generation.failed" => JobEnding::Failed,
            "generation.rejected" => JobEnding::Rejected,
            "generation.cancelled" => JobEnding::Cancelled,
            _ => JobEnding::Refunded,
        };
        assert_eq!(ended.ending, expected);
    }
    for (reason, expected) in [
        (format!("\"{}\"", "x".repeat(1_024)), "ok"),
        (format!("\"{}\"", "x".repeat(1_025)), "bad_value"),
        ("\" \"".to_owned(), "bad_value"),
        ("404".to_owned(), "bad_value"),
    ] {
        assert_data("generation.refunded", &format!(r#"{{"job_id":"j","reason":{reason}}}"#), expected);
    }
}

#[test]
fn changes_of_a_contract_need_its_id() {
    let contract_id = ("contract_id", "\"c1\"", true);
    let reference = ("reference", "\"invoice\"", false);
    let effective_at = ("effective_at", "\"2026-12-01T00:00:00+01:00\"", false);
    let plan = |is_required| ("plan", "\"lite\"", is_required);
    assert_fields("contract.plan_changed", &[contract_id, plan(true), effective_at, reference]);
    assert_fields("contract.renewed", &[contract_id, plan(false), ("term_months", "12", false), reference]);
    assert_fields("contract.cancelled", &[contract_id, effective_at, reference]);
    // Whether plan and contract are there is asked of the prices and of the wallet, later.
    assert_data("contract.plan_changed", r#"{"contract_id":"c","plan":"gigantic"}"#, "ok");
    // First all that is missing, then what is bad; what a type does not read is not looked at.
    assert_data("contract.plan_changed", r#"{"plan":7,"effective_at":"never"}"#, "missing_field");
    assert_data("contract.renewed", r#"{"contract_id":"c","effective_at":"never","starts_at":0}"#, "ok");
    assert_data("contract.cancelled", r#"{"contract_id":"c","plan":7,"term_months":-1}"#, "ok");
}

/// It may lie anywhere: a contract keeps it inside its bounds.
#[test]
fn effective_at_is_a_time_with_an_offset() {
    for (spelt, read_as) in [
        ("\"2026-12-01T00:00:00Z\"", Ok(Some("2026-12-01T00:00:00.000Z"))),
        ("\"2026-12-01t00:00:00.1239z\"", Ok(Some("2026-12-01T00:00:00.123Z"))),
        ("\"2026-12-01T00:00:00+02:00\"", Ok(Some("2026-11-30T22:00:00.000Z"))),
        ("\"1999-12-31T23:59:59Z\"", Ok(Some("1999-12-31T23:59:59.000Z"))),
        ("\"2199-01-01T00:00:00Z\"", Ok(Some("2199-01-01T00:00:00.000Z"))),
        ("null", Ok(None)),
        ("\"2026-12-01T00:00:00\"", Err("bad_value")),
        ("\"2026-12-01\"", Err("bad_value")),
        ("\"2026-02-30T00:00:00Z\"", Err("bad_value")),
        ("\"\"", Err("bad_value")),
        ("1793700930123", Err("bad_value")),
        ("\"plan\"", Err("bad_value")),
    ] {
        for kind in ["contract.plan_changed", "contract.cancelled"] {
            let data = format!(r#"{{"contract_id":"c","plan":"lite","effective_at":{spelt}}}"#);
            let value = event_with(kind, &data);
            let data = read_text(SourceKind::Wallet, &value).unwrap().data.unwrap();
            let effective_at = data.as_ref().map(|data| match data {
                Data::PlanChanged(change) => change.effective_at,
                Data::ContractCancelled(cancellation) => cancellation.effective_at,
                other => panic!("{other:?}"),
            });
            let shown = effective_at.map(|at| at.map(|at| at.to_string()));
            let expected = read_as.map(|at: Option<&str>| at.map(str::to_owned));
            assert_eq!(shown.map_err(|rejection| rejection.reason.as_str()), expected, "{kind} {spelt}");
        }
    }
}

#[test]
fn the_term_of_a_renewal_is_1_to_120_months_or_as_before() {
    for (spelt, read_as) in [
        ("1", Ok(Some(1))),
        ("12.0", Ok(Some(12))),
        ("1.2e1", Ok(Some(12))),
        ("120", Ok(Some(120))),
        ("null", Ok(None)),
        ("0", Err("bad_value")),
        ("-0", Err("bad_value")),
        ("-1", Err("bad_value")),
        ("121", Err("bad_value")),
        ("1.5", Err("bad_value")),
        ("1e400", Err("bad_value")),
        ("4294967308", Err("bad_value")),
        ("\"12\"", Err("bad_value")),
        ("\"plan\"", Err("bad_value")),
    ] {
        let value =
            event_with("contract.renewed", &format!(r#"{{"contract_id":"c","term_months":{spelt}}}"#));
        let data = read_text(SourceKind::Wallet, &value).unwrap().data.unwrap();
        let months = data.as_ref().map(|data| match data {
            Data::ContractRenewed(renewal) => renewal.term_months,
            other => panic!("{other:?}"),
        });
        assert_eq!(months.map_err(|rejection| rejection.reason.as_str()), read_as, "{spelt}");
    }
    let value = event_with("contract.renewed", r#"{"contract_id":"c"}"#);
    let Data::ContractRenewed(renewal) = data_of(&value) else { panic!() };
    assert_eq!(
        (&*renewal.plan, renewal.term_months),
        ("", None),
        "12 months is what a start means, not a renewal"
    );
}

/// What a limit is read as; `None`: it is refused as `bad_value`.
fn limit_of(field: &str, spelt: &str) -> Option<LimitsChanged<'static>> {
    let value = event_with("wallet.limits_changed", &format!("{{\"{field}\":{spelt}}}"));
    match read_text(SourceKind::Wallet, &value).unwrap().data.unwrap() {
        Ok(Data::LimitsChanged(limits)) => {
            Some(LimitsChanged { reference: limits.reference.into_owned().into(), ..limits })
        }
        Ok(other) => panic!("{other:?}"),
        Err(rejection) => {
            assert_eq!(rejection.reason, Reason::BadValue, "{field} {spelt}");
            assert!(rejection.detail.contains(field), "{}", rejection.detail);
            None
        }
    }
}

#[test]
fn an_overdraft_limit_is_a_whole_number_from_0_or_a_word() {
    let credits = |credits| Some(Limit::Own(OverdraftLimit::Credits(credits)));
    for (spelt, read_as) in [
        ("0", credits(0)),
        // A number that is 0, however it is spelt.
        ("-0", credits(0)),
        ("0.0", credits(0)),
        ("1", credits(1)),
        ("1e1", credits(10)),
        ("500.00", credits(500)),
        ("1000000000", credits(1_000_000_000)),
        ("\"none\"", Some(Limit::Own(OverdraftLimit::Unlimited))),
        ("\"n\\u006fne\"", Some(Limit::Own(OverdraftLimit::Unlimited))),
        ("\"plan\"", Some(Limit::Plan)),
        ("-1", None),
        ("0.5", None),
        ("1000000001", None),
        ("9223372036854775808", None),
        ("1e400", None),
        ("\"0\"", None),
        ("\"None\"", None),
        ("\"unlimited\"", None),
        ("\" plan\"", None),
        ("\"\"", None),
        ("true", None),
        ("[]", None),
        ("{}", None),
    ] {
        let limits = limit_of("overdraft_limit", spelt);
        assert_eq!(limits.as_ref().and_then(|limits| limits.overdraft_limit), read_as, "{spelt}");
        assert!(
            limits.is_none_or(|limits| limits.low_percent.is_none() && limits.critical_percent.is_none())
        );
    }
}

#[test]
fn a_threshold_is_a_whole_number_of_percent_or_the_plans() {
    for (spelt, read_as) in [
        ("0", Some(Limit::Own(0))),
        ("-0", Some(Limit::Own(0))),
        ("1", Some(Limit::Own(1))),
        ("1e1", Some(Limit::Own(10))),
        ("100", Some(Limit::Own(100))),
        ("100.0", Some(Limit::Own(100))),
        ("\"plan\"", Some(Limit::Plan)),
        ("-1", None),
        ("101", None),
        ("256", None),
        ("356", None),
        ("12.5", None),
        ("1e400", None),
        ("\"none\"", None),
        ("\"20\"", None),
        ("\"20 %\"", None),
        ("false", None),
    ] {
        let (low, critical) = (limit_of("low_percent", spelt), limit_of("critical_percent", spelt));
        assert_eq!(low.and_then(|limits| limits.low_percent), read_as, "{spelt}");
        assert_eq!(critical.and_then(|limits| limits.critical_percent), read_as, "{spelt}");
    }
}

#[test]
fn one_of_the_limits_must_be_there() {
    for (data, expected) in [
        ("{}", "missing_field"),
        (r#"{"reference":"ticket"}"#, "missing_field"),
        (r#"{"overdraft_limit":null,"low_percent":null,"critical_percent":null}"#, "missing_field"),
        (r#"{"limit":5}"#, "missing_field"),
        (r#"{"reference":7}"#, "missing_field"),
        (r#"{"overdraft_limit":null,"low_percent":5}"#, "ok"),
        (r#"{"overdraft_limit":1,"low_percent":3,"critical_percent":2,"reference":"r"}"#, "ok"),
        (r#"{"overdraft_limit":1,"low_percent":101}"#, "bad_value"),
        // Two thresholds in one event are in order; one alone, or beside "plan", has nothing to be held against.
        (r#"{"low_percent":5,"critical_percent":6}"#, "bad_value"),
        (r#"{"low_percent":5,"critical_percent":5}"#, "ok"),
        (r#"{"low_percent":0,"critical_percent":1}"#, "bad_value"),
        (r#"{"low_percent":"plan","critical_percent":100}"#, "ok"),
        (r#"{"low_percent":0,"critical_percent":"plan"}"#, "ok"),
        (r#"{"low_percent":5,"critical_percent":null}"#, "ok"),
        (r#"{"low_percent":5,"low_percent":5}"#, "bad_value"),
        (r#"{"low_percent":5,"note":1,"note":2,"plan":7,"credits":"x"}"#, "ok"),
    ] {
        assert_data("wallet.limits_changed", data, expected);
    }
}

#[test]
fn limits_are_those_of_the_configuration() {
    let mut config = Config::default().events;
    (config.images_max, config.video_seconds_max) = (5, 7);
    (config.adjustment_credits_max, config.term_months_max) = (9, 2);
    let rules = EventRules::new(&config);
    for (kind, data, is_ok) in [
        ("generation.completed", r#"{"job_id":"j","asset":"image","images":5}"#, true),
        ("generation.completed", r#"{"job_id":"j","asset":"image","images":6}"#, false),
        ("generation.completed", r#"{"job_id":"j","asset":"video","seconds":7}"#, true),
        ("generation.completed", r#"{"job_id":"j","asset":"video","seconds":7.001}"#, false),
        ("wallet.adjusted", r#"{"adjustment_id":"a","credits":-9,"reason":"r","actor":"k"}"#, true),
        ("wallet.adjusted", r#"{"adjustment_id":"a","credits":10,"reason":"r","actor":"k"}"#, false),
        (
            "contract.started",
            r#"{"contract_id":"c","plan":"p","starts_at":"2026-11-03T00:00:00Z","term_months":2}"#,
            true,
        ),
        (
            "contract.started",
            r#"{"contract_id":"c","plan":"p","starts_at":"2026-11-03T00:00:00Z","term_months":3}"#,
            false,
        ),
        ("generation.requested", r#"{"job_id":"j","asset":"image","images":6}"#, false),
        ("contract.renewed", r#"{"contract_id":"c","term_months":2}"#, true),
        ("contract.renewed", r#"{"contract_id":"c","term_months":3}"#, false),
        ("wallet.limits_changed", r#"{"overdraft_limit":9}"#, true),
        ("wallet.limits_changed", r#"{"overdraft_limit":10}"#, false),
    ] {
        let value = event_with(kind, data);
        let record =
            IncomingRecord { source_kind: topic_of(kind), value: Some(value.as_bytes()), headers: &[] };
        let data_read = decode(&record, &rules).unwrap().data.unwrap();
        assert_eq!(data_read.is_ok(), is_ok, "{data}");
    }
}
