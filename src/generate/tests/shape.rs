//! The run as a whole: determinism, sums, shares, times, options.

use std::collections::BTreeMap;

use super::*;
use crate::time::DAY_MS;

#[test]
fn the_same_options_give_the_same_bytes_and_another_seed_others() {
    let options = unruly(3_000);
    assert!(json_lines(&options) == json_lines(&options));
    assert!(json_lines(&options) != json_lines(&GenerateOptions { seed: 2, ..options }));
}

#[test]
fn both_phases_together_send_what_each_sends_by_itself() {
    let both = unruly(3_000);
    let lines = |phase| {
        let text = String::from_utf8(json_lines(&GenerateOptions { phase, ..both.clone() })).unwrap();
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort_unstable();
        lines
    };
    let mut apart = lines(Phase::Setup);
    apart.extend(lines(Phase::Usage));
    apart.sort_unstable();
    assert!(lines(Phase::Both) == apart);

    let books = |phase| all_records(&GenerateOptions { phase, ..both.clone() }).1;
    let mut sum = books(Phase::Setup);
    sum.add(&books(Phase::Usage));
    assert_eq!(sum, books(Phase::Both));
}

#[test]
fn even_a_small_run_shows_every_reason_of_the_wallet_topic() {
    let (_, books) = all_records(&GenerateOptions { wallets: 20, phase: Phase::Setup, ..unruly(1) });
    for reason in [
        Reason::ContractConflict,
        Reason::UnknownPlan,
        Reason::UnknownTopup,
        Reason::UnknownType,
        Reason::NoContract,
        Reason::IdConflict,
    ] {
        assert!(books.reasons.contains_key(reason.as_str()), "{}", reason.as_str());
    }
}

#[test]
fn the_books_close() {
    let options = unruly(20_000);
    let (records, books) = all_records(&options);
    let outcomes = books.outcomes;
    let counts = serde_json::to_value(outcomes).unwrap();
    let by_outcome: u64 = counts.as_object().unwrap().values().map(|count| count.as_u64().unwrap()).sum();
    assert_eq!(books.records, records.len() as u64);
    assert_eq!(books.usage_records, options.events);
    assert_eq!(by_outcome, books.records);
    assert_eq!(books.reasons.values().sum::<u64>(), outcomes.quarantined);
    assert!(outcomes.contract > u64::from(options.wallets), "contracts begin, and some change");

    let credits = &books.credits;
    let of_wallets = |field: fn(&WalletBook) -> i64| books.wallets.values().map(field).sum::<i64>();
    assert_eq!(of_wallets(|book| book.granted), credits.granted);
    assert_eq!(of_wallets(|book| book.charged), credits.charged);
    assert_eq!(of_wallets(|book| book.reversed), credits.reversed);
    assert!(0 < credits.reversed && credits.reversed < credits.charged);
    assert_eq!(of_wallets(|book| book.adjusted), credits.adjusted_up - credits.adjusted_down);
    assert_eq!(
        of_wallets(|book| book.balance),
        credits.granted + credits.adjusted_up - credits.adjusted_down - credits.charged + credits.reversed
    );
    assert_eq!(credits.granted_by_plan.values().sum::<i64>() + credits.granted_by_topups, credits.granted);
    assert_eq!(credits.charged_by_plan.values().map(|by| by.image + by.video).sum::<i64>(), credits.charged);
    let images: u64 = books.wallets.values().map(|book| book.images).sum();
    assert_eq!(images as i64, credits.charged_by_plan.values().map(|by| by.image).sum::<i64>());
    assert_eq!(books.wallets.values().map(|book| book.charges).sum::<u64>(), outcomes.charged);

    let text = serde_json::to_string(&books).unwrap();
    assert_eq!(serde_json::from_str::<Books>(&text).unwrap(), books);
}

#[test]
fn shares_are_what_was_asked_for() {
    let options = GenerateOptions { phase: Phase::Usage, ..unruly(50_000) };
    let (records, books) = all_records(&options);
    let near = |what: &str, count: usize, percent: f64| {
        let found = count as f64 * 100.0 / records.len() as f64;
        assert!((found - percent).abs() < percent * 0.15 + 0.1, "{what}: {found} % instead of {percent} %");
    };
    near("duplicates", books.outcomes.duplicate as usize, 3.0);
    near("id conflicts", books.reasons["id_conflict"] as usize, 1.0);
    near("job conflicts", books.reasons["job_conflict"] as usize, 1.0);
    near("bad", books.outcomes.quarantined as usize, 7.0);
    near("free", books.outcomes.free as usize, 7.4);
    near("reversed", books.outcomes.reversed as usize, 0.8);
    let fresh = records.len() - books.outcomes.duplicate as usize - books.outcomes.quarantined as usize;
    assert!(books.outcomes.held as usize * 25 > fresh, "{:?}", books.outcomes);
    let has_wrong_key = |record: &Record| {
        let subject = decoded(record, |event| event.map(|event| event.wallet_id.into_owned()));
        subject.is_ok_and(|subject| record.key() != Some(&subject))
    };
    near("wrong keys", records.iter().filter(|(record, _)| has_wrong_key(record)).count(), 9.5);
    let is_binary = |record: &Record| record.headers().iter().any(|(name, _)| *name == "ce_id");
    near("binary", records.iter().filter(|(record, _)| is_binary(record)).count(), 10.0);

    let plans = books.wallets.values().fold(BTreeMap::<&str, u32>::new(), |mut plans, book| {
        *plans.entry(&book.plan).or_default() += 1;
        plans
    });
    assert!((190..=230).contains(&plans["lite"]), "{plans:?}");
    assert!((5..=30).contains(&plans["scale"]), "{plans:?}");
}

#[test]
fn usage_is_late_by_half_an_hour_at_most_and_follows_the_day() {
    let options =
        GenerateOptions { phase: Phase::Usage, duplicates_percent: 0.0, bad_percent: 0.0, ..unruly(20_000) };
    let mut latest = options.start;
    let mut late = 0;
    let mut by_hour = [0_u32; 24];
    for (record, expected) in all_records(&options).0 {
        if !matches!(expected, Expected::Charged { .. }) {
            continue;
        }
        let at = decoded(&record, |event| event.unwrap().time.0);
        assert!(options.start <= at && at <= options.end);
        assert!(latest.millis() - at.millis() <= 31 * 60_000, "{at} after {latest}");
        late += u32::from(at < latest);
        latest = latest.max(at);
        by_hour[usize::try_from(at.millis() / 3_600_000 % 24).unwrap()] += 1;
    }
    assert!((600..=1_200).contains(&late), "{late} late of 5 %");
    assert!(by_hour[15] > 4 * by_hour[2], "{by_hour:?}");
}

#[test]
fn options_for_which_no_books_can_be_kept_are_refused() {
    let good = GenerateOptions::ending_at(end());
    assert!(good.check().is_ok());
    for bad in [
        GenerateOptions { wallets: 0, ..good.clone() },
        GenerateOptions { start: end().plus_millis(-21 * DAY_MS), ..good.clone() },
        GenerateOptions { start: end().plus_millis(1), ..good.clone() },
        GenerateOptions { bad_percent: 60.0, duplicates_percent: 60.0, ..good.clone() },
        GenerateOptions { late_percent: -1.0, ..good.clone() },
        GenerateOptions { late_percent: f64::NAN, ..good.clone() },
        GenerateOptions { wallet_prefix: "\"".to_owned(), ..good.clone() },
    ] {
        assert!(matches!(bad.check(), Err(GenerateError::Options(_))), "{bad:?}");
    }
}

#[test]
fn a_run_can_be_broken_off_and_its_books_hold() {
    let mut generator = Generator::new(&unruly(1_000)).unwrap();
    let mut out = Vec::new();
    let pace = Pace::RecordsPerSecond(200);
    let mut stop = |progress: Progress| {
        if progress.records >= 10 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let sent = to_json_lines(&mut generator, &topics(), pace, &mut out, &mut stop).unwrap();
    assert_eq!(out.iter().filter(|byte| **byte == b'\n').count() as u64, sent.records);
    assert_eq!(generator.books().records, sent.records);
    assert!(sent.records >= 10 && sent.records < 100 && sent.records_per_second() < 250.0, "{sent:?}");
}

/// Prints how fast records are made: `cargo test --release made_records_a_second -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
#[allow(clippy::print_stdout)]
fn made_records_a_second() {
    let mut generator =
        Generator::new(&GenerateOptions { events: 2_000_000, ..GenerateOptions::ending_now() }).unwrap();
    let begun = std::time::Instant::now();
    let mut record = Record::default();
    while generator.next_record(&mut record).is_some() {}
    println!("{:.0} records/s made", generator.records_total() as f64 / begun.elapsed().as_secs_f64());
}

#[test]
fn prefixes_reach_types_and_wallets() {
    let options = GenerateOptions {
        type_prefix: "com.acme.".to_owned(),
        wallet_prefix: "acme-".to_owned(),
        ..unruly(500)
    };
    let rules = EventRules::new(&crate::config::EventsConfig {
        type_prefix: "com.acme.".to_owned(),
        ..Config::default().events
    });
    let (records, books) = all_records(&options);
    assert!(books.wallets.contains_key("acme-000001"));
    for (record, expected) in records {
        let headers: Vec<(&str, &[u8])> =
            record.headers().iter().map(|(name, value)| (*name, value.as_bytes())).collect();
        let incoming =
            IncomingRecord { source_kind: record.source_kind(), value: record.value(), headers: &headers };
        if !matches!(expected, Expected::Quarantined(_)) {
            assert!(decode(&incoming, &rules).unwrap().wallet_id.starts_with("acme-"));
        }
    }
}
