//! The running totals of rollup buckets: (wallet, hour of the event's time, asset type, model, plan).

use super::*;

/// The totals after a charge: `HH:MM part jobs images seconds charged refused`.
fn totals(book: &mut Book, command: &str) -> String {
    let records = book.apply(&book::parse(command)).unwrap();
    let record: LedgerRecord<'_> = serde_json::from_str(&records[0]).unwrap();
    let bucket = record.entries[0].bucket.unwrap();
    assert_eq!(bucket.credits_reversed, 0);
    let hour = &bucket.hour.to_string()[11..16];
    format!(
        "{hour} part {} jobs {} images {} seconds {} charged {} refused {}",
        bucket.part,
        bucket.jobs,
        bucket.images,
        bucket.video_seconds,
        bucket.credits_charged,
        bucket.credits_refused
    )
}

fn check(book: &mut Book, table: &[(&str, &str)]) {
    for (command, expected) in table {
        assert_eq!(totals(book, command), *expected, "{command}");
    }
}

#[test]
fn totals_run_per_hour_asset_type_model_and_plan() {
    let mut book = play("topup t1 100 => granted +555 topup:t1(+555=555)");
    check(
        &mut book,
        &[
            ("charge j1 4 images", "10:00 part 2 jobs 1 images 4 seconds 0 charged 4 refused 0"),
            ("charge j2 2 images", "10:00 part 2 jobs 2 images 6 seconds 0 charged 6 refused 0"),
            ("charge j3 2 seconds", "10:00 part 4 jobs 1 images 0 seconds 2 charged 6 refused 0"),
            ("charge j4 0.5 seconds", "10:00 part 4 jobs 2 images 0 seconds 2.5 charged 8 refused 0"),
            ("charge j5 1 images model=m", "10:00 part 6 jobs 1 images 1 seconds 0 charged 1 refused 0"),
            (
                "charge j6 1 images at=11-03T10:59:59.999",
                "10:00 part 2 jobs 3 images 7 seconds 0 charged 7 refused 0",
            ),
            (
                "charge j7 1 images at=11-03T11:00",
                "11:00 part 8 jobs 1 images 1 seconds 0 charged 1 refused 0",
            ),
            (
                "charge j8 1 images at=11-03T10:00",
                "10:00 part 2 jobs 4 images 8 seconds 0 charged 8 refused 0",
            ),
            (
                "charge j9 1 images model=gratis",
                "10:00 part 10 jobs 1 images 1 seconds 0 charged 0 refused 0",
            ),
        ],
    );
    book.play("contract c1 lite 2026-11-01 => contract_started lite; granted +200 plan:c1:0(+200=200)");
    check(
        &mut book,
        &[("charge j10 1 images", "10:00 part 13 jobs 1 images 1 seconds 0 charged 1 refused 0")],
    );
}

#[test]
fn a_job_counts_at_its_first_charge() {
    let mut book = play("topup t1 100 => granted +555 topup:t1(+555=555)");
    check(
        &mut book,
        &[
            ("charge j1 1 images asset=a", "10:00 part 2 jobs 1 images 1 seconds 0 charged 1 refused 0"),
            ("charge j1 1 images asset=b", "10:00 part 2 jobs 1 images 2 seconds 0 charged 2 refused 0"),
            ("charge j2 1 images asset=a", "10:00 part 2 jobs 2 images 3 seconds 0 charged 3 refused 0"),
            (
                "charge j1 1 images asset=c at=11-03T11:00",
                "11:00 part 5 jobs 0 images 1 seconds 0 charged 1 refused 0",
            ),
        ],
    );
}

#[test]
fn a_refusal_counts_its_credits_and_neither_job_nor_quantity() {
    let mut book =
        play("contract c1 strict 2026-11-01 => contract_started strict; granted +100 plan:c1:0(+100=100)");
    check(
        &mut book,
        &[
            ("charge j1 101 images", "10:00 part 3 jobs 0 images 0 seconds 0 charged 0 refused 101"),
            ("charge j2 4 images", "10:00 part 3 jobs 1 images 4 seconds 0 charged 4 refused 101"),
            ("charge j3 200 images", "10:00 part 3 jobs 1 images 4 seconds 0 charged 4 refused 301"),
            // Its first asset was refused: the job is counted with the asset that is charged first.
            ("charge j4 200 images asset=a", "10:00 part 3 jobs 1 images 4 seconds 0 charged 4 refused 501"),
            ("charge j4 1 images asset=b", "10:00 part 3 jobs 2 images 5 seconds 0 charged 5 refused 501"),
            ("charge j4 1 images asset=c", "10:00 part 3 jobs 2 images 6 seconds 0 charged 6 refused 501"),
        ],
    );
}

/// A bucket stays open until one of two hours later is used; met again, it begins a new part.
#[test]
fn a_bucket_of_two_hours_before_the_newest_is_dropped() {
    let mut book = Book::new(&crate::config::Config::default());
    check(
        &mut book,
        &[
            (
                "charge j1 1 images at=11-03T00:00",
                "00:00 part 1 jobs 1 images 1 seconds 0 charged 1 refused 0",
            ),
            (
                "charge j2 1 images at=11-03T01:59:59.999",
                "01:00 part 2 jobs 1 images 1 seconds 0 charged 1 refused 0",
            ),
            (
                "charge j3 1 images at=11-03T00:59:59.999",
                "00:00 part 1 jobs 2 images 2 seconds 0 charged 2 refused 0",
            ),
            (
                "charge j4 1 images at=11-03T02:00",
                "02:00 part 4 jobs 1 images 1 seconds 0 charged 1 refused 0",
            ),
            (
                "charge j5 1 images at=11-03T01:00",
                "01:00 part 2 jobs 2 images 2 seconds 0 charged 2 refused 0",
            ),
            (
                "charge j6 1 images at=11-03T00:30",
                "00:00 part 6 jobs 1 images 1 seconds 0 charged 1 refused 0",
            ),
            (
                "charge j7 1 images at=11-03T02:30",
                "02:00 part 4 jobs 2 images 2 seconds 0 charged 2 refused 0",
            ),
            (
                "charge j8 1 images at=11-03T00:30",
                "00:00 part 8 jobs 1 images 1 seconds 0 charged 1 refused 0",
            ),
        ],
    );
}

/// Of one hour eight buckets stay open; the one unused for longest is dropped.
#[test]
fn a_ninth_bucket_drops_the_one_unused_for_longest() {
    let mut book = Book::new(&crate::config::Config::default());
    for model in 0..8 {
        totals(&mut book, &format!("charge j{model} 1 images model=m{model}"));
    }
    check(
        &mut book,
        &[
            ("charge k0 1 images model=m0", "10:00 part 1 jobs 2 images 2 seconds 0 charged 2 refused 0"),
            ("charge k8 1 images model=m8", "10:00 part 10 jobs 1 images 1 seconds 0 charged 1 refused 0"),
            ("charge k1 1 images model=m1", "10:00 part 11 jobs 1 images 1 seconds 0 charged 1 refused 0"),
            ("charge l0 1 images model=m0", "10:00 part 1 jobs 3 images 3 seconds 0 charged 3 refused 0"),
        ],
    );
}

#[test]
fn after_a_restart_from_a_snapshot_every_bucket_begins_a_new_part() {
    let mut book = Book::new(&crate::config::Config::default());
    check(&mut book, &[("charge j1 1 images", "10:00 part 1 jobs 1 images 1 seconds 0 charged 1 refused 0")]);
    let clock = crate::time::ShardClock(when("11-03"));
    book.wallet = WalletSnapshot::of("w1", &book.wallet, clock, &book.policy.pricing).into_wallet();
    check(&mut book, &[("charge j2 1 images", "10:00 part 2 jobs 1 images 1 seconds 0 charged 1 refused 0")]);
}
