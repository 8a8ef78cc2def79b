//! Pages as a person sees them.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use serde_json::{Value, json};

use super::explain::not_there;
use super::page::page;
use super::stored::StoredHold;
use super::wallet::Shown;
use crate::cli::args;
use crate::config::Config;
use crate::rate::Pricing;
use crate::time::Timestamp;
use crate::wallet::{Entry, WalletSnapshot};

fn at(text: &str) -> Timestamp {
    Timestamp::parse(text).unwrap()
}

/// A wallet with one contract: a plan change is booked, and something is left of a month and of a top-up.
fn snapshot() -> Value {
    json!({
        "v": 1, "wallet_id": "ws_1", "seq": 1207, "plan": "lite", "contract_id": "c_1", "balance": 1500, "held": 24,
        "available": 1476, "overdraft": 0, "plan_credits": 112, "topup_credits": 1388, "adjustment_credits": 0,
        "allocation": 200, "level": "ok", "next_allocation_at": "2026-12-01T00:00:00Z",
        "first_seen_at": "2026-10-01T00:00:00Z", "updated_at": "2026-11-03T10:00:00Z", "latest_at": "2026-11-03T10:00:00Z",
        "limits": {"overdraft_limit": 500, "low_percent": 30},
        "contracts": [{
            "contract_id": "c_1", "starts_at": "2026-10-01T00:00:00Z", "ends_at": "2027-10-01T00:00:00Z", "terms": [12],
            "plans": [{"from": "2026-10-01T00:00:00Z", "plan": "lite"}, {"from": "2026-12-01T00:00:00Z", "plan": "scale"}],
            "granted": [200, 200]
        }],
        "grants": [
            {
                "grant_id": "plan:c_1:0", "kind": "plan", "credits_granted": 200, "credits_remaining": 0, "priority": 10,
                "granted_at": "2026-10-01T00:00:00Z", "expires_at": "2027-10-01T00:00:00Z", "contract_id": "c_1",
                "month": 0, "made_seq": 2, "seq": 900, "touched_day": 20758
            },
            {
                "grant_id": "plan:c_1:1", "kind": "plan", "credits_granted": 200, "credits_remaining": 112, "priority": 10,
                "granted_at": "2026-11-01T00:00:00Z", "expires_at": "2027-10-01T00:00:00Z", "contract_id": "c_1",
                "month": 1, "made_seq": 950, "seq": 1207, "touched_day": 20760
            },
            {
                "grant_id": "topup:t_1", "kind": "topup", "credits_granted": 1388, "credits_remaining": 1388,
                "priority": 30, "granted_at": "2026-10-05T00:00:00Z", "amount_usd": "250", "made_seq": 40, "seq": 40,
                "touched_day": 20731
            }
        ]
    })
}

fn shown(snapshot: &Value, now: &str, change: impl FnOnce(&mut Shown<'_>)) -> String {
    let text = snapshot.to_string();
    let snapshot: WalletSnapshot<'_> = serde_json::from_str(&text).unwrap();
    let pricing = Pricing::built_in().unwrap();
    let mut shown = Shown::of(&Config::default(), &pricing, &snapshot, at(now));
    change(&mut shown);
    page(&shown, at(now))
}

#[test]
fn a_wallet_on_one_page() {
    let page = shown(&snapshot(), "2026-11-03T12:00:00Z", |shown| {
        shown.entries = Some(Vec::new());
        shown.holds = Some(vec![StoredHold {
            job_id: "j_1".to_owned(),
            asset_id: String::new(),
            credits: 24,
            since: at("2026-11-03T09:00:00Z"),
        }]);
    });
    let expected = "\
Wallet ws_1
  as of       2026-11-03T10:00:00.000Z (entry 1,207)
  available   1,476 credits: balance 1,500 less 24 held
  level       ok; low at 60 or less (30 % of 200), critical at 10 (5 %)
  overdraft   0; charges are refused beyond 500
  plan        lite, 200 credits a month, by contract c_1
  term        2026-10-01T00:00:00.000Z to 2027-10-01T00:00:00.000Z, month 2 of 12, in 331 days
  booked      plan scale from 2026-12-01T00:00:00.000Z on
  next        3,300 credits at 2026-12-01T00:00:00.000Z, in 27 days
  limits      its own: overdraft up to 500 credits, low at 30 %
  first seen  2026-10-01T00:00:00.000Z

What is left, the first pays first
  grant                     left     of  expires
  month 2 of contract c_1    112    200  2027-10-01T00:00:00.000Z, in 331 days
  top-up t_1               1,388  1,388  never

Open holds
  job  asset  credits  since                     ends by itself
  j_1              24  2026-11-03T09:00:00.000Z  2026-11-04T09:00:00.000Z";
    assert_eq!(page, expected);
}

/// Neither folds the ledger: what it has twice the sink passes over, and after a gap the sink stops.
#[test]
fn what_is_torn_doubled_reordered_or_missing_is_said_by_wallet_and_explain() {
    let entries = |entries: &[(u64, i64)]| -> Vec<Entry<'static>> {
        let entry = |(seq, balance_after): &(u64, i64)| {
            let entry = json!({
                "seq": seq, "entry_type": "charged", "credits": -10, "balance_after": balance_after,
                "posted_at": "2026-11-03T10:00:00Z", "event_time": "2026-11-03T10:00:00Z", "level": "ok"
            });
            serde_json::from_str(entry.to_string().leak()).unwrap()
        };
        entries.iter().map(entry).collect()
    };
    let page = |of: &[(u64, i64)]| {
        shown(&snapshot(), "2026-11-03T12:00:00Z", |shown| shown.entries = Some(entries(of)))
    };
    let table = [
        ("sound", page(&[(1207, 1500), (1206, 1510)]), "(entry 1,207)\n"),
        ("torn", page(&[(1206, 1510), (1205, 1520)]), "(entry 1,207); ClickHouse has come to entry 1,206\n"),
        (
            "missing",
            page(&[(1207, 1500), (1204, 1530)]),
            "ClickHouse lacks entries 1,205 to 1,206: creditstream verify",
        ),
        ("other", page(&[(1207, 1500), (1206, 1520)]), "entry 1,207 does not follow from the one before it"),
    ];
    for (fault, page, words) in table {
        assert!(page.contains(words), "{fault}: {page}");
        assert_eq!(page.contains("creditstream verify"), ["missing", "other"].contains(&fault), "{page}");
    }
    let explained = |seq, last| {
        let asked = args::Explain { wallet: "ws_1".to_owned(), seq };
        not_there(&asked, last).message
    };
    assert!(explained(5, 4).contains("the last one there is 4; if it is a new one, wait"));
    assert!(explained(5, 7).contains("though it has later ones: `creditstream verify`"));
    assert!(explained(5, 0).contains("has no entry of wallet ws_1"));
}

#[test]
fn clickhouse_away_is_said_and_the_rest_is_shown() {
    let page =
        shown(&snapshot(), "2026-11-03T12:00:00Z", |shown| shown.clickhouse = Some("no route".to_owned()));
    assert!(page.contains("ClickHouse does not answer (no route)"), "{page}");
    assert!(page.contains("top-up t_1") && !page.contains("Open holds"), "{page}");
}

#[test]
fn a_contract_to_come_a_booked_renewal_and_a_cancellation_are_told_apart() {
    let page = shown(&snapshot(), "2026-09-29T12:00:00Z", |_| {});
    assert!(page.contains("begins      2026-10-01T00:00:00.000Z, in 1 day"), "{page}");
    assert!(page.contains("plan        none: no contract is in force"), "{page}");
    assert!(page.contains("to come     lite, 200 credits a month, by contract c_1"), "{page}");
    assert!(page.contains("to 2027-10-01T00:00:00.000Z, 12 months, in"), "no month is under way: {page}");
    assert!(!page.contains("are over"), "{page}");

    let mut renewed = snapshot();
    renewed["contracts"][0]["terms"] = json!([12, 6]);
    renewed["contracts"][0]["ends_at"] = json!("2028-04-01T00:00:00Z");
    let page = shown(&renewed, "2026-11-03T12:00:00Z", |_| {});
    assert!(page.contains("renewed     up to 2028-04-01T00:00:00.000Z"), "{page}");
    let page = shown(&renewed, "2027-12-03T12:00:00Z", |_| {});
    assert!(page.contains("2028-04-01T00:00:00.000Z, month 3 of 6 (month 15 of the contract)"), "{page}");
    assert!(page.contains("(over: pays for late usage only)"), "{page}");
    let over = "held; 112 of the balance are over, and pay for late usage only";
    assert!(page.contains(over), "{page}");

    let mut cancelled = snapshot();
    cancelled["contracts"][0]["is_cancelled"] = json!(true);
    let page = shown(&cancelled, "2026-11-03T12:00:00Z", |_| {});
    assert!(page.contains("cancelled   it ends at 2027-10-01T00:00:00.000Z"), "{page}");
    assert!(
        page.contains("booked      plan scale from 2026-12-01T00:00:00.000Z on"),
        "before its end: {page}"
    );
    cancelled["contracts"][0]["plans"][1]["from"] = json!("2027-10-01T00:00:00Z");
    let page = shown(&cancelled, "2026-11-03T12:00:00Z", |_| {});
    assert!(!page.contains("booked"), "what was booked for the renewal fell away: {page}");
    let page = shown(&cancelled, "2027-11-03T12:00:00Z", |_| {});
    assert!(page.contains("none: no contract is in force"), "{page}");

    let mut after_the_end = snapshot();
    after_the_end["contracts"][0]["plans"][1]["from"] = json!("2027-10-01T00:00:00Z");
    let page = shown(&after_the_end, "2026-11-03T12:00:00Z", |_| {});
    assert!(page.contains("plan scale from 2027-10-01T00:00:00.000Z on, if it is renewed"), "{page}");
}

#[test]
fn a_contract_that_begins_where_another_ends_is_shown_beside_it() {
    let mut both = snapshot();
    let mut second = both["contracts"][0].clone();
    second["contract_id"] = json!("c_2");
    (second["starts_at"], second["ends_at"]) = (json!("2027-10-01T00:00:00Z"), json!("2028-04-01T00:00:00Z"));
    second["terms"] = json!([6]);
    second["granted"] = json!([]);
    second["plans"] = json!([{"from": "2027-10-01T00:00:00Z", "plan": "performance"}]);
    both["contracts"].as_array_mut().unwrap().push(second);
    let page = shown(&both, "2026-11-03T12:00:00Z", |_| {});
    let expected = "
  plan        lite, 200 credits a month, by contract c_1
  term        2026-10-01T00:00:00.000Z to 2027-10-01T00:00:00.000Z, month 2 of 12, in 331 days
  booked      plan scale from 2026-12-01T00:00:00.000Z on
  to come     performance, 1,100 credits a month, by contract c_2
  begins      2027-10-01T00:00:00.000Z, in 331 days
  term        2027-10-01T00:00:00.000Z to 2028-04-01T00:00:00.000Z, 6 months, in 514 days
";
    assert!(page.contains(expected), "{page}");
    both["contracts"][1]["is_cancelled"] = json!(true);
    both["contracts"][1]["ends_at"] = json!("2027-10-01T00:00:00Z");
    let page = shown(&both, "2026-11-03T12:00:00Z", |_| {});
    assert!(!page.contains("c_2"), "cancelled before it began: {page}");
    both["contracts"][1]["ends_at"] = json!("2028-04-01T00:00:00Z");
    let page = shown(&both, "2027-10-01T00:00:00Z", |_| {});
    assert!(page.contains("plan        performance") && !page.contains("c_1\n  term"), "{page}");
}

#[test]
fn a_low_threshold_below_the_critical_one_is_never_reached() {
    let mut turned = snapshot();
    turned["limits"] = json!({"low_percent": 4});
    let page = shown(&turned, "2026-11-03T12:00:00Z", |_| {});
    assert!(page.contains("ok; critical at 10 or less (5 % of 200), so never low (4 %)"), "{page}");
}

/// Its own threshold goes before that of its plan, which goes before the configuration's; a plan off sale keeps its limit.
#[test]
fn thresholds_are_the_wallets_own_then_its_plans() {
    let plan = "month = 200\nlow_percent = 50\ncritical_percent = 10\noverdraft_limit = 7";
    let off_sale =
        "[[plans]]\neffective_from = \"2026-01-01T00:00:00Z\"\nplan.scale.credits_per_month = 3300\n";
    let built_in = include_str!("../../../config/pricing.toml");
    let pricing = Pricing::parse(&format!("{}{off_sale}", built_in.replace("month = 200", plan))).unwrap();
    let lines = |limits: Value| {
        let mut wallet = snapshot();
        wallet["limits"] = limits;
        let text = wallet.to_string();
        let snapshot: WalletSnapshot<'_> = serde_json::from_str(&text).unwrap();
        let now = at("2026-11-03T12:00:00Z");
        page(&Shown::of(&Config::default(), &pricing, &snapshot, now), now)
    };
    let own = lines(json!({"low_percent": 30}));
    assert!(own.contains("low at 60 or less (30 % of 200), critical at 20 (10 %)"), "{own}");
    let of_plan = lines(json!({}));
    assert!(of_plan.contains("low at 100 or less (50 % of 200), critical at 20 (10 %)"), "{of_plan}");
    assert!(of_plan.contains("charges are refused beyond 7"), "{of_plan}");
}
