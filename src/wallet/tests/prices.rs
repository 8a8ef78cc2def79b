//! What a command costs or brings: by the version in force at the event's own time.

use super::*;

/// (rate card, rate, credits) of a charge.
fn charged(book: &mut Book, command: &str) -> (String, String, i64) {
    let records = book.apply(&book::parse(command)).unwrap();
    let record: LedgerRecord<'_> = serde_json::from_str(&records[0]).unwrap();
    let entry = &record.entries[0];
    (entry.rate_card.to_string(), entry.rate.unwrap().to_string(), entry.credits)
}

#[test]
fn usage_is_priced_by_the_card_in_force_at_its_own_time_and_by_its_model() {
    let mut book = Book::new(&crate::config::Config::default());
    for (command, card, rate, credits) in [
        ("charge j01 4 images", "card-1", "1", -4),
        ("charge j02 4 images model=other", "card-1", "1", -4),
        ("charge j03 3 images model=half", "card-1", "1.5", -5),
        ("charge j04 4 images model=gratis", "card-1", "0", 0),
        ("charge j05 8 seconds", "card-1", "3", -24),
        ("charge j06 8 seconds model=veo-3", "card-1", "4.5", -36),
        ("charge j07 0.001 seconds", "card-1", "3", -1),
        ("charge j08 8.334 seconds", "card-1", "3", -26),
        ("charge j09 4 images at=11-09T23:59:59.999", "card-1", "1", -4),
        ("charge j10 4 images at=11-10", "card-2", "2", -8),
        ("charge j11 4 images at=11-10 model=gratis", "card-2", "2", -8),
        // Late: the clock is past the new card, the event is not.
        ("charge j12 4 images at=11-09 clock=11-20", "card-1", "1", -4),
    ] {
        assert_eq!(charged(&mut book, command), (card.to_owned(), rate.to_owned(), credits), "{command}");
    }
}

/// Each asset of a job is a charge of its own, rounded up by itself.
#[test]
fn assets_are_rounded_up_one_by_one() {
    let mut book = Book::new(&crate::config::Config::default());
    for asset in ["a", "b", "c"] {
        let (_, _, credits) = charged(&mut book, &format!("charge j1 1 images model=half asset={asset}"));
        assert_eq!(credits, -2);
    }
    assert_eq!(charged(&mut book, "charge j2 3 images model=half").2, -5);
}

#[test]
fn plans_and_packs_are_those_in_force_at_the_events_time() {
    play(
        "contract c1 gigantic 2026-11-01       => ! unknown_plan
         contract c1 Lite 2026-11-01           => ! unknown_plan
         contract c1 old 2026-11-01 at=11-10   => ! unknown_plan
         contract c1 old 2026-11-01 at=11-09 months=1 => contract_started old; granted +5 plan:c1:0(+5=5)
         contract c2 lite 2026-12-01 at=11-10 clock=12-01 months=1 => contract_started lite; contract_ended old; granted +250 plan:c2:0(+250=250)
         topup t1 99                           => ! unknown_topup
         topup t1 100.01                       => ! unknown_topup
         topup t1 1.005                        => ! unknown_topup
         topup t1 1 at=11-10                   => ! unknown_topup
         topup t1 100 at=11-10                 => granted +600 topup:t1(+600=600)
         topup t2 100 at=11-09T23:59:59.999    => granted +555 topup:t2(+555=555)",
    );
}

#[test]
fn before_the_first_version_nothing_has_a_price() {
    play(
        "charge j1 4 images at=2023-12-31T23:59:59.999            => ! bad_value
         contract c1 lite 2023-12-31 at=2023-12-31T23:59:59.999   => ! unknown_plan
         topup t1 100 at=2023-12-31T23:59:59.999                  => ! unknown_topup
         charge j1 4 images at=2024-01-01                         => charged -4",
    );
}

/// Instances that share a shard compare it.
#[test]
fn the_hash_of_what_decides_about_money_follows_the_versions_and_the_settings() {
    let config = crate::config::Config::default();
    let hash = |config: &crate::config::Config, at: &str| {
        Book::new(config).policy.hash_up_to(crate::time::ShardClock(when(at))).to_owned()
    };
    let [before, first, first_end, second] =
        ["2023-12-31T23:59:59.999", "2024-01-01", "11-09T23:59:59.999", "11-10"].map(|at| hash(&config, at));
    assert_eq!(first, first_end);
    assert!(before != first && first != second && before != second);
    assert_eq!(before, hash(&config, "1970-01-01"));
    let mut other = config;
    other.pricing.topup_priority += 1;
    assert_ne!(hash(&other, "11-10"), second);
    other.pricing.topup_priority -= 1;
    other.clock.allowed_lateness_seconds += 1;
    assert_ne!(hash(&other, "11-10"), second);
}
