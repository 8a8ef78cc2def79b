#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use proptest::prelude::*;

use super::*;
use crate::time::{EventTime, Timestamp};

fn at(text: &str) -> EventTime {
    EventTime(Timestamp::parse(text).unwrap())
}

#[test]
fn the_published_usage_costs_what_is_published() {
    let pricing = Pricing::built_in().unwrap();
    let card = pricing.rate_card_at(at("2026-11-03T00:00:00Z")).unwrap();
    let cost = |quantity: Quantity| quantity.cost(card.rate(quantity.asset_type(), "any")).unwrap();
    assert_eq!(cost(Quantity::Images(4)), 4);
    assert_eq!(cost(Quantity::Video(VideoMillis(4_000))), 12);
    assert_eq!(cost(Quantity::Video(VideoMillis(8_000))), 24);
    assert_eq!(cost(Quantity::Video(VideoMillis(12_000))), 36);
}

#[test]
fn the_published_plans_and_packs_are_built_in() {
    let pricing = Pricing::built_in().unwrap();
    let now = at("2026-11-03T00:00:00Z");
    for (plan, credits) in [("lite", 200), ("performance", 1_100), ("scale", 3_300)] {
        assert_eq!(pricing.plan_at(plan, now).unwrap().credits_per_month, credits);
    }
    for (usd, credits) in [(100, 555), (250, 1_388), (500, 2_777), (1_000, 5_555), (2_000, 11_111)] {
        assert_eq!(pricing.pack_at(UsdCents(usd * 100), now).unwrap().credits, credits);
    }
    assert_eq!(pricing.pack_at(UsdCents(10_001), now), None);
}

#[test]
fn a_cost_is_rounded_up_once() {
    let rate = Rate(1_500_000);
    assert_eq!(Quantity::Images(3).cost(rate), Ok(5), "4.5 is 5, not 3 times 2");
    assert_eq!(
        Quantity::Video(VideoMillis(1)).cost(Rate(3_000_000)),
        Ok(1),
        "a thousandth of a second still costs"
    );
    assert_eq!(Quantity::Video(VideoMillis(8_334)).cost(Rate(3_000_000)), Ok(26), "25.002");
    assert_eq!(Quantity::Images(5).cost(Rate(0)), Ok(0));
    assert!(Quantity::Video(VideoMillis(u64::MAX)).cost(Rate(u64::MAX)).is_err());
}

#[test]
fn a_card_is_in_force_from_its_first_instant_on() {
    let pricing = Pricing::parse(
        r#"
        [[rate_card]]
        id = "new"
        effective_from = "2026-06-01T00:00:00Z"
        rates.image.credits = "2"
        rates.video.credits = "3"
        rates.video.models."veo-3".credits = "4.5"
        [[rate_card]]
        id = "old"
        effective_from = "2026-01-01T00:00:00Z"
        rates = { image = { credits = "1" }, video = { credits = "3" } }
        [[plans]]
        effective_from = "2026-01-01T00:00:00Z"
        plan.lite.credits_per_month = 200
        [[topups]]
        effective_from = "2026-01-01T00:00:00Z"
        packs = []
        "#,
    )
    .unwrap();
    assert_eq!(pricing.rate_card_at(at("2026-05-31T23:59:59.999Z")).unwrap().id, "old");
    let new = pricing.rate_card_at(at("2026-06-01T00:00:00.000Z")).unwrap();
    assert_eq!(new.id, "new");
    assert_eq!(new.rate(AssetType::Video, "veo-3"), Rate(4_500_000));
    assert_eq!(new.rate(AssetType::Video, "other"), Rate(3_000_000));
    assert!(pricing.rate_card_at(at("2025-12-31T23:59:59.999Z")).is_none());
}

#[test]
fn every_fault_of_a_pricing_file_is_named() {
    let faults = Pricing::parse(
        r#"
        [[rate_card]]
        id = ""
        effective_from = "2026-06-01T00:00:00Z"
        rates = { image = { credits = "1" }, video = { credits = "3" } }
        [[rate_card]]
        id = "b"
        effective_from = "2026-06-01T00:00:00Z"
        rates = { image = { credits = "1" }, video = { credits = "3" } }
        [[plans]]
        effective_from = "2026-01-01T00:00:00Z"
        plan.lite.credits_per_month = -5
        "#,
    )
    .unwrap_err()
    .to_string();
    for expected in
        ["two versions of rate_card", "rate_card.id", "credits_per_month = -5", "topups is missing"]
    {
        assert!(faults.contains(expected), "{expected} not in:\n{faults}");
    }
    let syntax = Pricing::parse("[[rate_card]]\nid = \"x\"\nprice = 3").unwrap_err().to_string();
    assert!(syntax.contains("price"), "{syntax}");
    assert!(Pricing::parse("[[rate_card]]\nid=\"a\"\neffective_from=\"2026-01-01T00:00:00Z\"\nrates.image.credits=\"1.0000001\"\nrates.video.credits=\"1\"").is_err(), "seven places");
}

/// A pricing file, with something else in the place of a part of it.
fn changed(part: &str, instead: &str) -> Result<Pricing, PricingErrors> {
    const FILE: &str = r#"
        [[rate_card]]
        id = "a"
        effective_from = "2026-01-01T00:00:00Z"
        rates.image.credits = "1"
        rates.video.credits = "3"
        [[plans]]
        effective_from = "2026-02-01T00:00:00Z"
        plan.lite = { credits_per_month = 200, overdraft_limit = 0 }
        [[topups]]
        effective_from = "2026-03-01T00:00:00Z"
        packs = [{ amount_usd = "1", credits = 10 }]
        "#;
    assert!(FILE.contains(part), "{part}");
    Pricing::parse(&FILE.replacen(part, instead, 1))
}

#[test]
fn each_value_of_a_pricing_file_has_its_bounds() {
    let longest = format!("id = \"{}\"", "x".repeat(128));
    let too_long = format!("id = \"{}\"", "x".repeat(129));
    for (part, instead, fault) in [
        ("", "", None),
        ("month = 200", "month = 0", Some("lite.credits_per_month = 0:")),
        ("month = 200", "month = 1", None),
        ("month = 200", "month = 1000000000", None),
        ("month = 200", "month = 1000000001", Some("lite.credits_per_month = 1000000001:")),
        ("limit = 0", "limit = -1", Some("lite.overdraft_limit:")),
        ("limit = 0", "limit = 1", None),
        ("limit = 0", "limit = 0, low_percent = 100, critical_percent = 100", None),
        ("limit = 0", "limit = 0, low_percent = 0, critical_percent = 0", None),
        ("limit = 0", "limit = 0, low_percent = 101", Some("lite.low_percent = 101:")),
        ("limit = 0", "limit = 0, critical_percent = 101", Some("lite.critical_percent = 101:")),
        ("limit = 0", "limit = 0, low_percent = 9, critical_percent = 10", Some("critical_percent (10)")),
        ("credits = 10", "credits = 0", Some("amount_usd = 1, credits = 0:")),
        ("credits = 10", "credits = 1", None),
        ("credits = 10", "credits = 1000000000", None),
        ("credits = 10", "credits = 1000000001", Some("amount_usd = 1, credits = 1000000001:")),
        ("amount_usd = \"1\"", "amount_usd = \"0.01\"", None),
        ("amount_usd = \"1\"", "amount_usd = \"0\"", Some("amount_usd = 0, credits = 10:")),
        ("amount_usd = \"1\"", "amount_usd = \"-0.01\"", Some("amount_usd = -0.01, credits = 10:")),
        ("id = \"a\"", "id = \"\"", Some("rate_card.id \"\":")),
        ("id = \"a\"", longest.as_str(), None),
        ("id = \"a\"", too_long.as_str(), Some("rate_card.id")),
        ("id = \"a\"", "id = \" ~\"", None),
        ("id = \"a\"", "id = \"\u{e9}\"", Some("rate_card.id")),
        ("plan.lite", "plan.\"\u{e9}\"", Some("plans.plan")),
        ("image.credits", "image.models.\"\u{e9}\".credits = \"1\"\nrates.image.credits", Some("models")),
        ("video.credits", "video.models.\"\u{e9}\".credits = \"1\"\nrates.video.credits", Some("models")),
    ] {
        let faults = changed(part, instead).err().map_or(Vec::new(), |faults| faults.0);
        assert_eq!(faults.len(), usize::from(fault.is_some()), "{instead}: {faults:?}");
        assert!(faults.iter().all(|named| named.contains(fault.unwrap())), "{instead}: {faults:?}");
    }
}

#[test]
fn each_version_has_an_instant_and_each_rate_card_an_id_of_its_own() {
    let card = |id: &str, month: u32| {
        format!(
            "[[rate_card]]\nid = \"{id}\"\neffective_from = \"2026-0{month}-01T00:00:00Z\"\nrates.image.credits = \"1\"\nrates.video.credits = \"3\"\n[[plans]]\n"
        )
    };
    let plans = |month: u32| {
        format!(
            "[[plans]]\neffective_from = \"2026-0{month}-01T00:00:00Z\"\nplan.lite.credits_per_month = 1\n[[topups]]\n"
        )
    };
    let packs = |month: u32| {
        format!("[[topups]]\neffective_from = \"2026-0{month}-01T00:00:00Z\"\npacks = []\n[[topups]]\n")
    };
    for (part, instead, fault) in [
        ("[[plans]]", card("b", 4), None),
        ("[[plans]]", card("a", 4), Some("two rate_cards have the same id")),
        ("[[plans]]", card("b", 1), Some("two versions of rate_card have effective_from = 2026-01-01")),
        ("[[topups]]", plans(4), None),
        ("[[topups]]", plans(2), Some("two versions of plans have effective_from = 2026-02-01")),
        ("[[topups]]", packs(4), None),
        ("[[topups]]", packs(3), Some("two versions of topups have effective_from = 2026-03-01")),
    ] {
        let faults = changed(part, &instead).err().map_or(Vec::new(), |faults| faults.0);
        assert_eq!(faults.len(), usize::from(fault.is_some()), "{instead}: {faults:?}");
        assert!(faults.iter().all(|named| named.contains(fault.unwrap())), "{instead}: {faults:?}");
    }
}

/// Of the file above: rate cards from January, plans from February, packs from March on.
#[test]
fn the_first_versions_must_be_as_old_as_the_horizon() {
    let pricing = changed("", "").unwrap();
    for (horizon_start, missing) in [
        ("2026-03-01T00:00:00.001Z", &[][..]),
        ("2026-03-01T00:00:00Z", &[]),
        ("2026-02-28T23:59:59.999Z", &["topups"]),
        ("2026-02-01T00:00:00Z", &["topups"]),
        ("2025-12-31T23:59:59.999Z", &["rate_card", "plans", "topups"]),
    ] {
        let covers = pricing.check_covers(Timestamp::parse(horizon_start).unwrap());
        let faults = covers.err().map_or(Vec::new(), |faults| faults.0);
        assert_eq!(faults.len(), missing.len(), "{horizon_start}: {faults:?}");
        for (fault, list) in faults.iter().zip(missing) {
            assert!(fault.contains(&format!("the first {list} has")), "{horizon_start}: {fault}");
        }
    }
}

#[test]
fn plans_and_the_instants_of_versions_are_listed_once_and_in_order() {
    let more = "[[plans]]\neffective_from = \"2026-01-01T00:00:00Z\"\nplan.lite.credits_per_month = 1\nplan.big.credits_per_month = 2\n[[topups]]";
    let pricing = changed("[[topups]]", more).unwrap();
    assert_eq!(pricing.plan_names(), ["big", "lite"]);
    let starts: Vec<String> = pricing.version_starts().iter().map(|start| start.to_string()).collect();
    assert_eq!(
        starts.iter().map(|start| &start[..10]).collect::<Vec<_>>(),
        ["2026-01-01", "2026-02-01", "2026-03-01"]
    );
}

/// Plans from January: lite and big; from February: lite alone, at 200.
#[test]
fn a_plan_off_sale_is_there_for_its_contracts_only_and_as_it_was_last() {
    let more = "[[plans]]\neffective_from = \"2026-01-01T00:00:00Z\"\nplan.lite.credits_per_month = 1\nplan.big.credits_per_month = 2\n[[topups]]";
    let pricing = changed("[[topups]]", more).unwrap();
    for (time, on_sale, lite, big) in [
        ("2025-12-31T23:59:59.999Z", &[][..], None, None),
        ("2026-01-01T00:00:00Z", &["big", "lite"], Some(1), Some(2)),
        ("2026-01-31T23:59:59.999Z", &["big", "lite"], Some(1), Some(2)),
        ("2026-02-01T00:00:00Z", &["lite"], Some(200), Some(2)),
    ] {
        let credits = |plan: Option<Plan>| plan.map(|plan| plan.credits_per_month);
        assert_eq!(pricing.plans_at(at(time)), on_sale, "{time}");
        for (name, of_contract) in [("lite", lite), ("big", big), ("other", None)] {
            let sold = of_contract.filter(|_| on_sale.contains(&name));
            assert_eq!(credits(pricing.plan_at(name, at(time))), sold, "{name} {time}");
            assert_eq!(credits(pricing.contract_plan(name, at(time))), of_contract, "{name} {time}");
            assert_eq!(pricing.allocation(name, at(time)), of_contract.unwrap_or(0), "{name} {time}");
        }
    }
}

#[test]
fn a_card_names_the_models_that_have_a_rate_of_their_own() {
    let of_image = "image.models.x.credits = \"2\"\nrates.image.credits";
    for (part, instead, names_it) in [
        ("", "", false),
        ("image.credits", of_image, true),
        ("video.credits", "video.models.x.credits = \"2\"\nrates.video.credits", true),
    ] {
        let pricing = changed(part, instead).unwrap();
        let card = pricing.rate_card_at(at("2026-11-03T00:00:00Z")).unwrap();
        assert_eq!((card.names_model("x"), card.names_model("y")), (names_it, false), "{instead}");
    }
}

#[test]
fn versions_ahead_of_the_clock_do_not_change_the_hash() {
    let now = Timestamp::parse("2026-11-03T00:00:00Z").unwrap();
    let base = include_str!("../../config/pricing.toml");
    let hash = |text: &str, clock| Pricing::parse(text).unwrap().hash_up_to(clock, "10 20 30");
    let start = Timestamp::parse("2027-01-01T00:00:00Z").unwrap();
    for version in [
        "[[rate_card]]\nid=\"n\"\neffective_from=\"2027-01-01T00:00:00Z\"\nrates.image.credits=\"2\"\nrates.video.credits=\"3\"\n",
        "[[plans]]\neffective_from=\"2027-01-01T00:00:00Z\"\nplan.lite.credits_per_month = 1\n",
        "[[topups]]\neffective_from=\"2027-01-01T00:00:00Z\"\npacks = []\n",
    ] {
        let ahead = format!("{base}\n{version}");
        assert_eq!(hash(base, now), hash(&ahead, now), "{version}");
        assert_eq!(hash(base, start.plus_millis(-1)), hash(&ahead, start.plus_millis(-1)), "{version}");
        assert_ne!(hash(base, start), hash(&ahead, start), "{version}");
    }
    // Thresholds of alerts decide about no money.
    let thresholds = base.replace("month = 200", "month = 200\nlow_percent = 50\ncritical_percent = 1");
    assert!(thresholds != base && hash(base, now) == hash(&thresholds, now));
    let limit = base.replace("month = 200", "month = 200\noverdraft_limit = 50");
    assert_ne!(hash(base, now), hash(&limit, now));
    let other_settings = Pricing::parse(base).unwrap().hash_up_to(now, "10 20 31");
    assert_ne!(hash(base, now), other_settings);
}

#[test]
fn numbers_are_read_exactly_or_not_at_all() {
    for (text, scale, expected) in [
        ("8", 3, Some(8_000)),
        ("8.0", 0, Some(8)),
        ("1e1", 0, Some(10)),
        ("1E+1", 0, Some(10)),
        ("1.5e0", 3, Some(1_500)),
        ("0.0010", 3, Some(1)),
        ("0.0001", 3, None),
        ("1e400", 3, None),
        ("1e-400", 3, None),
        ("-0", 0, Some(0)),
        ("-3", 0, Some(-3)),
        ("8.00000000000000000000000000001", 3, None),
        // 28 digits, and one more.
        ("0000000000000000000000000008", 3, Some(8_000)),
        ("00000000000000000000000000008", 3, None),
        ("", 3, None),
        ("NaN", 3, None),
    ] {
        assert_eq!(exact_scaled(text, scale), expected, "{text}");
    }
}

proptest! {
    #[test]
    fn a_cost_never_lies_below_the_exact_product_nor_a_credit_above(millis in 1_u64..36_000_000, rate in 0_u64..1_000_000_000) {
        let cost = i128::from(Quantity::Video(VideoMillis(millis)).cost(Rate(rate)).unwrap());
        let exact_billionths = i128::from(millis) * i128::from(rate);
        prop_assert!(cost * 1_000_000_000 >= exact_billionths);
        prop_assert!((cost - 1) * 1_000_000_000 < exact_billionths);
    }

    #[test]
    fn decimals_round_trip_through_their_spelling(millis in any::<u64>(), cents in any::<i64>()) {
        let millis = VideoMillis(millis);
        prop_assert_eq!(serde_json::from_str::<VideoMillis>(&serde_json::to_string(&millis).unwrap()).unwrap(), millis);
        let cents = UsdCents(cents);
        prop_assert_eq!(serde_json::from_str::<UsdCents>(&serde_json::to_string(&cents).unwrap()).unwrap(), cents);
    }
}
