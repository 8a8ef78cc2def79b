//! Sentences as tables: an entry as the ledger has it, and what is said of it.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use serde_json::{Value, json};

use super::{Before, before, details, grant_name, summary};
use crate::wallet::{Entry, EntryType, GrantKind};

/// Reads an entry: what is given, and the rest of what every entry has.
fn with_entry<R>(fields: Value, check: impl FnOnce(&Entry<'_>) -> R) -> R {
    let mut all = json!({
        "seq": 7, "posted_at": "2026-11-03T10:15:31Z", "event_time": "2026-11-03T10:15:30Z", "level": "ok",
        "origin_partition": 3, "origin_offset": 1207
    });
    all.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    let text = all.to_string();
    check(&serde_json::from_str(&text).unwrap())
}

fn effect(grant_id: &str, kind: &str, credits: i64, left: i64) -> Value {
    let expires_at = if kind == "topup" { Value::Null } else { json!("2027-11-01T00:00:00Z") };
    json!({"grant_id": grant_id, "kind": kind, "credits": credits, "remaining_after": left, "expires_at": expires_at})
}

fn video(entry_type: &str, event_type: &str) -> Value {
    json!({
        "entry_type": entry_type, "event_type": event_type, "source": "/render", "event_id": "e1", "job_id": "j1",
        "asset_type": "video", "video_seconds": "8.334", "model": "veo-3", "rate_card": "2024-01", "rate": "3"
    })
}

fn merged(mut base: Value, more: Value) -> Value {
    base.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    base
}

/// One line for each kind of entry, and for each event where that makes a difference.
fn sentences() -> Vec<(Value, &'static str)> {
    let month = |credits, left| json!([effect("plan:c_7:3", "plan", credits, left)]);
    let job = |entry_type: &str, event: &str, more: Value| {
        merged(
            json!({"entry_type": entry_type, "event_type": format!("generation.{event}"), "event_id": "e", "job_id": "j1"}),
            more,
        )
    };
    let contract = json!({
        "contract_id": "c_7", "plan": "lite", "starts_at": "2026-11-01T00:00:00Z", "ends_at": "2027-11-01T00:00:00Z",
        "terms": [12],
        "plans": [{"from": "2026-11-01T00:00:00Z", "plan": "lite"}, {"from": "2027-01-01T00:00:00Z", "plan": "scale"}]
    });
    let of_contract = |entry_type: &str, event: &str, terms: Value| {
        json!({
            "entry_type": entry_type, "event_type": event, "event_id": "e", "contract_id": "c_7", "plan": "lite",
            "contract": merged(contract.clone(), terms)
        })
    };
    let asked = |from: &str, plan: &str| json!({"asked_plan": {"from": from, "plan": plan}});
    vec![
        (
            merged(video("charged", "generation.completed"), json!({"credits": -26})),
            "26 credits charged for 8.334 seconds of video by veo-3, job j1",
        ),
        (
            job(
                "charged",
                "completed",
                json!({"credits": -1, "asset_type": "image", "images": 1, "asset_id": "a"}),
            ),
            "1 credit charged for 1 image, asset a of job j1",
        ),
        (
            merged(video("refused", "generation.completed"), json!({"amount": 26})),
            "26 credits not charged for 8.334 seconds of video by veo-3, job j1: that would have gone past the overdraft limit, so nothing was drawn",
        ),
        (
            job("reversed", "failed", json!({"credits": 26, "reason": "safety"})),
            "26 credits given back for job j1, it failed (safety)",
        ),
        (
            job("reversed", "completed", json!({"credits": 26})),
            "26 credits given back for job j1, it had been reported as failed, rejected or refunded before",
        ),
        (
            json!({"entry_type": "expired", "credits": -1100, "grant_effects": month(-1100, 0)}),
            "1,100 credits of month 4 of contract c_7 expired",
        ),
        (
            json!({"entry_type": "overdraft_repaid", "amount": 30, "grant_effects": month(-30, 70)}),
            "30 credits of month 4 of contract c_7 repaid overdraft",
        ),
        (
            json!({"entry_type": "granted", "credits": 200, "plan": "lite", "grant_effects": month(200, 200)}),
            "200 credits granted: month 4 of contract c_7, plan lite",
        ),
        (
            json!({"entry_type": "granted", "credits": 1388, "amount_usd": "250", "grant_effects": [effect("topup:t_1", "topup", 1388, 1388)]}),
            "1,388 credits bought: top-up t_1 for 250 US dollars",
        ),
        (
            json!({"entry_type": "adjusted", "credits": -40, "actor": "jane", "reason": "double\nrender"}),
            "40 credits taken away by jane: double\u{fffd}render",
        ),
        (
            json!({"entry_type": "adjusted", "credits": 40, "actor": "jane", "reason": "goodwill"}),
            "40 credits granted by jane: goodwill",
        ),
        (
            merged(video("held", "generation.requested"), json!({"held_credits": 26})),
            "26 credits reserved for 8.334 seconds of video by veo-3, job j1",
        ),
        (
            job("released", "completed", json!({"held_credits": -26})),
            "26 credits no longer reserved for job j1, it was completed",
        ),
        (
            json!({"entry_type": "released", "held_credits": -26, "job_id": "j1"}),
            "26 credits no longer reserved for job j1, nothing was heard of it for 24 hours",
        ),
        (
            of_contract("contract_started", "contract.started", json!({})),
            "contract c_7 began, plan lite, plan scale from 2027-01-01T00:00:00.000Z on; it runs from 2026-11-01T00:00:00.000Z to 2027-11-01T00:00:00.000Z",
        ),
        (
            json!({"entry_type": "contract_changed", "event_type": "contract.plan_changed", "contract_id": "c_7", "plan": "lite"}),
            "contract c_7 changed, plan lite in force then",
        ),
        (
            json!({"entry_type": "contract_changed", "event_type": "contract.cancelled", "contract_id": "c_7"}),
            "contract c_7 was cancelled",
        ),
        (
            json!({"entry_type": "contract_renewed", "event_type": "contract.renewed", "contract_id": "c_7"}),
            "contract c_7 was renewed",
        ),
        (
            of_contract(
                "contract_started",
                "contract.started",
                json!({"starts_at": "2026-11-03T10:15:30.001Z"}),
            ),
            "contract c_7 was booked, plan lite, plan scale from 2027-01-01T00:00:00.000Z on; it runs from 2026-11-03T10:15:30.001Z to 2027-11-01T00:00:00.000Z",
        ),
        (
            json!({"entry_type": "contract_started", "contract_id": "c_7", "plan": "lite", "period_start": "2026-11-04"}),
            "contract c_7 was booked, plan lite",
        ),
        (
            json!({"entry_type": "contract_started", "contract_id": "c_7", "plan": "lite", "period_start": "2026-11-03"}),
            "contract c_7 began, plan lite",
        ),
        (
            of_contract("contract_changed", "contract.plan_changed", asked("2027-01-01T00:00:00Z", "scale")),
            "contract c_7 changed to plan scale from 2027-01-01T00:00:00.000Z on; now plan lite; it runs from 2026-11-01T00:00:00.000Z to 2027-11-01T00:00:00.000Z",
        ),
        (
            of_contract("contract_changed", "contract.plan_changed", asked("2026-11-01T00:00:00Z", "lite")),
            "contract c_7 changed to plan lite from 2026-11-01T00:00:00.000Z on, plan scale from 2027-01-01T00:00:00.000Z on; it runs from 2026-11-01T00:00:00.000Z to 2027-11-01T00:00:00.000Z",
        ),
        (
            of_contract(
                "contract_changed",
                "contract.plan_changed",
                merged(asked("2027-11-01T00:00:00Z", "performance"), json!({"plans": []})),
            ),
            "contract c_7 changed to plan performance from 2027-11-01T00:00:00.000Z on, if it is renewed; now plan lite; it runs from 2026-11-01T00:00:00.000Z to 2027-11-01T00:00:00.000Z",
        ),
        (
            of_contract(
                "contract_changed",
                "contract.plan_changed",
                merged(
                    asked("2027-11-01T00:00:00Z", "performance"),
                    json!({"is_cancelled": true, "plans": []}),
                ),
            ),
            "contract c_7 changed to plan performance from 2027-11-01T00:00:00.000Z on, which never comes, as it was cancelled; now plan lite; it runs from 2026-11-01T00:00:00.000Z to 2027-11-01T00:00:00.000Z",
        ),
        (
            of_contract("contract_changed", "contract.cancelled", json!({"is_cancelled": true})),
            "contract c_7 was cancelled, plan lite; it ends at 2027-11-01T00:00:00.000Z",
        ),
        (
            of_contract(
                "contract_renewed",
                "contract.renewed",
                json!({"terms": [12, 6], "ends_at": "2028-05-01T00:00:00Z"}),
            ),
            "contract c_7 was renewed, plan scale from 2027-11-01T00:00:00.000Z to 2028-05-01T00:00:00.000Z",
        ),
        (
            merged(video("refused", "generation.completed"), json!({"amount": 26, "overdraft_limit": 1000})),
            "26 credits not charged for 8.334 seconds of video by veo-3, job j1: that would have gone past the overdraft limit of 1,000, so nothing was drawn",
        ),
        (json!({"entry_type": "contract_ended", "contract_id": "c_7"}), "contract c_7 ended"),
        (
            json!({"entry_type": "limits_changed", "limits": {"overdraft_limit": 500, "low_percent": 30}}),
            "the wallet's limits are now: overdraft up to 500 credits, low at 30 %, critical as configured",
        ),
        (
            json!({"entry_type": "limits_changed", "limits": {"is_unlimited": true}}),
            "the wallet's limits are now: overdraft without end, low as configured, critical as configured",
        ),
        (json!({"entry_type": "limits_changed"}), "the wallet's own limits were changed"),
        (
            video("noted", "generation.requested"),
            "nothing reserved for 8.334 seconds of video by veo-3, job j1: the job was over, charged or reserved for already, it was asked for 24 hours before or longer, the wallet had no room for more, or it costs nothing",
        ),
        (
            job("noted", "failed", json!({})),
            "noted that job j1 came to nothing; there was nothing to give back, and a charge that still comes will be",
        ),
        (
            job("noted", "cancelled", json!({"reason": "user"})),
            "noted that job j1 was cancelled: user; nothing was reserved for it",
        ),
        (
            job("noted", "refunded", json!({"reason": "unknown_job"})),
            "noted the refund of job j1, which nobody has heard of; a charge that still comes will be given back",
        ),
        (
            job("noted", "refunded", json!({})),
            "noted the refund of job j1; there was nothing, or nothing more, to give back, and a charge that still comes will be",
        ),
        (
            json!({"entry_type": "noted", "reason": "runway", "amount": 90}),
            "warned that 90 credits available last for less than 3 days at the pace of the last 7",
        ),
        (
            json!({"entry_type": "noted", "reason": "expiring", "amount": 60, "contract_id": "c_7",
                   "warning": {"days": 30, "expires_at": "2027-11-01T00:00:00Z"}}),
            "warned that 60 credits of contract c_7 expire at 2027-11-01T00:00:00.000Z",
        ),
        (
            json!({"entry_type": "noted", "reason": "overdraft_unpaid", "amount": 12}),
            "warned that an overdraft of 12 credits is not paid after 7 days",
        ),
        (
            json!({"entry_type": "noted", "reason": "hold_timed_out", "amount": 24, "job_id": "j1"}),
            "warned that 24 credits were reserved and neither used nor released in time, job j1",
        ),
    ]
}

#[test]
fn every_entry_has_its_sentence() {
    for (fields, expected) in sentences() {
        with_entry(fields, |entry| assert_eq!(summary(entry), expected));
    }
}

#[test]
fn no_type_of_entry_is_without_a_sentence_in_the_table() {
    let shown: Vec<Value> = sentences().into_iter().map(|(fields, _)| fields["entry_type"].clone()).collect();
    for entry_type in EntryType::ALL {
        assert!(shown.contains(&json!(entry_type.as_str())), "{entry_type:?}");
    }
}

fn told(fields: Value) -> Vec<(&'static str, String)> {
    with_entry(fields, |entry| {
        details(entry).into_iter().map(|detail| (detail.about, detail.sentence)).collect()
    })
}

#[track_caller]
fn assert_tells(told: &[(&str, String)], about: &str, sentences: &[&str]) {
    let found: Vec<&str> =
        told.iter().filter(|(of, _)| *of == about).map(|(_, sentence)| sentence.as_str()).collect();
    assert_eq!(found, sentences, "{about}");
}

/// 26 credits: 6 from the last of a month, 10 from a top-up, and 10 that no grant had.
#[test]
fn a_charge_is_explained_down_to_the_grants_and_the_overdraft() {
    let effects = json!([effect("plan:c_7:0", "plan", -6, 0), effect("topup:t_1", "topup", -10, 0)]);
    let fields = merged(
        video("charged", "generation.completed"),
        json!({
            "credits": -26, "grant_effects": effects, "balance_after": -10, "overdraft_after": 10, "held_after": 5,
            "level": "overdrawn", "plan": "lite", "contract_id": "c_7", "period_start": "2026-11-01",
            "user_id": "u_1", "origin_topic": "generation.events"
        }),
    );
    with_entry(fields.clone(), |entry| {
        assert_eq!(before(entry), Before { balance: 16, held: 5, overdraft: 0 });
    });
    let told = told(fields);
    assert_tells(&told, "event", &["generation.completed e1 from /render, of 2026-11-03T10:15:30.000Z"]);
    assert_tells(&told, "usage", &["job j1, model veo-3, user u_1"]);
    assert_tells(
        &told,
        "cost",
        &["8.334 seconds × 3 = 25.002, rounded up to 26 credits, by rate card 2024-01"],
    );
    assert_tells(
        &told,
        "grant",
        &[
            "6 credits out of month 1 of contract c_7, 0 left; valid until 2027-11-01T00:00:00.000Z",
            "10 credits out of top-up t_1, 0 left; never expires",
        ],
    );
    assert_tells(&told, "overdraft", &["10 credits not covered by any grant: 10 in all"]);
    assert_tells(&told, "balance", &["16 before, -10 after"]);
    assert_tells(&told, "held", &["5 by running jobs, as before"]);
    assert_tells(&told, "level", &["overdrawn once the whole event was posted"]);
    assert_tells(&told, "plan", &["lite, by contract c_7, month from 2026-11-01 on"]);
    assert_tells(&told, "came from", &["topic generation.events, partition 3, offset 1207"]);
}

#[test]
fn a_refusal_names_its_limit() {
    let refused = json!({"amount": 26, "balance_after": -10, "overdraft_after": 10, "overdraft_limit": 30});
    let told = told(merged(video("refused", "generation.completed"), refused));
    assert_tells(&told, "overdraft", &["10, as before; charges are refused beyond 30"]);
    assert_tells(
        &told,
        "cost",
        &["8.334 seconds × 3 = 25.002, rounded up to 26 credits, by rate card 2024-01"],
    );
}

/// 26 credits come back: 6 to the month, 20 against the overdraft of 30.
#[test]
fn a_reversal_says_what_went_into_the_overdraft() {
    let told = told(json!({
        "entry_type": "reversed", "event_type": "generation.failed", "event_id": "e", "source": "/r", "credits": 26,
        "grant_effects": [effect("plan:c_7:0", "plan", 6, 6)], "balance_after": -4, "overdraft_after": 10
    }));
    assert_tells(&told, "overdraft", &["less by 20 credits: 10 left"]);
    assert_tells(&told, "balance", &["-30 before, -4 after"]);
    let back = "6 credits back into month 1 of contract c_7, 6 left; valid until 2027-11-01T00:00:00.000Z";
    assert_tells(&told, "grant", &[back]);
    assert_tells(&told, "cost", &[]);
}

#[test]
fn what_time_alone_caused_has_no_event_and_no_origin() {
    let told = told(
        json!({"entry_type": "expired", "credits": -5, "grant_effects": [effect("topup:t", "topup", -5, 0)]}),
    );
    assert_tells(&told, "event", &["none: time alone caused it, it was due at 2026-11-03T10:15:30.000Z"]);
    assert_tells(&told, "came from", &[]);
    assert_tells(&told, "overdraft", &[]);
}

#[test]
fn what_a_plan_change_adds_to_a_month_was_not_caused_by_time_alone() {
    let told = told(json!({
        "entry_type": "granted", "credits": 900, "grant_effects": [effect("plan:c_7:0+9", "plan", 900, 900)],
        "grant": {"priority": 10, "granted_at": "2026-11-03T10:15:30.000Z", "contract_id": "c_7", "month": 0, "is_difference": true}
    }));
    let cause = "none: a change of the contract's plan caused it, in force from 2026-11-03T10:15:30.000Z on";
    assert_tells(&told, "event", &[cause]);
}

#[test]
fn a_whole_product_is_not_called_rounded() {
    let told = told(json!({
        "entry_type": "held", "held_credits": 18, "held_after": 20, "asset_type": "image", "images": 4, "rate": "4.5",
        "rate_card": "r", "hold_until": "2026-11-04T10:15:30Z"
    }));
    assert_tells(&told, "cost", &["4 images × 4.5 = 18 credits, by rate card r"]);
    let held = "2 by running jobs before, 20 after; by itself it ends at 2026-11-04T10:15:30.000Z";
    assert_tells(&told, "held", &[held]);
}

#[test]
fn grants_are_called_by_what_they_are() {
    for (grant_id, kind, name) in [
        ("plan:c_7:0", GrantKind::Plan, "month 1 of contract c_7"),
        ("plan:c:7:11", GrantKind::Plan, "month 12 of contract c:7"),
        ("plan:c_7:0+31", GrantKind::Plan, "rise of month 1 of contract c_7"),
        ("plan:odd", GrantKind::Plan, "plan:odd"),
        ("topup:t:1", GrantKind::Topup, "top-up t:1"),
        ("adjustment:reversal+9", GrantKind::Adjustment, "adjustment reversal+9"),
    ] {
        assert_eq!(grant_name(grant_id, kind), name);
    }
}
