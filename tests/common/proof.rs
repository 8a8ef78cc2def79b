//! The proof: what the topics and tables hold is what the generator's books say, to the credit.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use creditstream::generate::{Books, OutcomeCounts};
use serde_json::Value;

use super::Deployment;
use super::ledger::{Ledger, Sums, thousandths};
use super::progress::{Outcomes, Progress};

/// How long snapshots may lag behind.
const SNAPSHOT_PATIENCE: Duration = Duration::from_secs(10);

/// How long the ledger stage may take for what a test sends.
pub const PATIENCE: Duration = Duration::from_secs(60);

impl Deployment {
    /// Waits until every record of the books is decided, and gives what progress says then.
    #[track_caller]
    pub fn wait_until_processed(&self, books: &Books) -> Progress {
        let mut progress = Progress::follow(&self.config);
        progress.wait_until_decided(books.records, PATIENCE);
        progress
    }

    /// Waits until all is processed, then holds topics against the books.
    #[track_caller]
    pub fn assert_proof(&self, books: &Books) -> Ledger {
        let mut progress = self.wait_until_processed(books);
        // What comes after the last expected record would be one too many.
        progress.read(Duration::from_millis(300));
        assert_outcomes(&progress, books);
        let mut ledger = Ledger::read(&self.config);
        // What falls due with the last record is posted after it.
        let deadline = Instant::now() + SNAPSHOT_PATIENCE;
        let is_behind = |ledger: &Ledger| {
            differing_wallet(ledger, books).is_some() || ledger.alerts != ledger.found_alerts
        };
        while is_behind(&ledger) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(200));
            ledger = Ledger::read(&self.config);
        }
        assert_eq!(differing_wallet(&ledger, books), None);
        assert_eq!(
            ledger.found_alerts, ledger.alerts,
            "alerts: those that follow from the ledger, each once"
        );
        self.wait_for_snapshots(&mut ledger);
        assert_eq!(ledger.reasons(), books.reasons, "quarantined records by reason");
        let mut origins: Vec<_> = ledger
            .quarantine
            .iter()
            .map(|record| {
                (record.header("cs_topic"), record.header("cs_partition"), record.header("cs_offset"))
            })
            .collect();
        origins.sort();
        origins.dedup();
        assert_eq!(origins.len(), ledger.quarantine.len(), "a record was quarantined twice");
        ledger
    }

    /// Snapshots follow the ledger within a second or so, while the ledger stage runs.
    #[track_caller]
    fn wait_for_snapshots(&self, ledger: &mut Ledger) {
        let deadline = Instant::now() + SNAPSHOT_PATIENCE;
        while !ledger.stale_snapshots().is_empty() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(200));
            ledger.read_snapshots(&self.config);
        }
        let stale = ledger.stale_snapshots();
        assert!(stale.is_empty(), "{} snapshots are not the latest state: {:?}", stale.len(), stale[0]);
        assert_eq!(ledger.snapshots.len(), ledger.wallets.len(), "a snapshot of a wallet without entries");
    }

    /// The same, and waits until ClickHouse holds it too.
    #[track_caller]
    pub fn assert_proof_with_clickhouse(&self, books: &Books) -> Ledger {
        let ledger = self.assert_proof(books);
        self.assert_clickhouse(&ledger);
        ledger
    }

    /// Waits until ClickHouse holds what the ledger holds.
    #[track_caller]
    pub fn assert_clickhouse(&self, ledger: &Ledger) {
        let deadline = Instant::now() + PATIENCE;
        let expected = expected_tables(ledger);
        loop {
            let found = self.tables();
            if found == expected {
                break;
            }
            if Instant::now() > deadline {
                for (name, rows) in &expected {
                    let found = &found[name];
                    let differs: Vec<_> =
                        rows.iter().filter(|(key, row)| found.get(*key) != Some(row)).take(3).collect();
                    assert_eq!(rows.len(), found.len(), "rows of {name}; {differs:?}");
                    assert!(
                        differs.is_empty(),
                        "{name} should hold {differs:?}, and holds {:?}",
                        found.get(differs[0].0)
                    );
                }
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// What the tables add up to.
    fn tables(&self) -> Tables {
        let clickhouse = self.clickhouse();
        let keyed = |query: &str| -> BTreeMap<String, Vec<String>> {
            let split = |mut row: Vec<String>| (row.remove(0), row);
            clickhouse.rows(query).into_iter().map(split).collect()
        };
        let decimal = |mut rows: BTreeMap<String, Vec<String>>, at: usize| {
            rows.values_mut().for_each(|row| row[at] = thousandths(&row[at]).to_string());
            rows
        };
        let entries = keyed(
            "SELECT wallet_id, max(seq), count(), sum(credits), sumIf(credits, entry_type = 'granted'), \
             sumIf(credits, entry_type = 'adjusted'), -sumIf(credits, entry_type = 'charged'), \
             sumIf(credits, entry_type = 'reversed'), sum(held_credits), \
             countIf(entry_type = 'charged'), sumIf(images, entry_type = 'charged'), \
             sumIf(video_seconds, entry_type = 'charged') FROM ledger_entries FINAL GROUP BY wallet_id",
        );
        let usage = keyed(
            "SELECT wallet_id, sum(jobs), sum(images), sum(video_seconds), sum(credits_charged), sum(credits_reversed) \
             FROM usage_hourly FINAL GROUP BY wallet_id HAVING sum(jobs) > 0",
        );
        let wallets = keyed("SELECT wallet_id, balance, held, seq FROM wallets FINAL");
        let grants = keyed(
            "SELECT w.wallet_id, sum(g.credits_remaining) - any(w.overdraft) FROM (SELECT * FROM wallets FINAL) AS w \
             LEFT JOIN (SELECT * FROM grants FINAL) AS g ON g.wallet_id = w.wallet_id GROUP BY w.wallet_id",
        );
        let reasons = keyed("SELECT reason, count() FROM quarantined_events FINAL GROUP BY reason");
        BTreeMap::from([
            ("ledger_entries", decimal(entries, 10)),
            ("usage_hourly", decimal(usage, 2)),
            ("wallets", wallets),
            ("grants", grants),
            ("quarantined_events", reasons),
        ])
    }
}

/// Rows by table and key.
type Tables = BTreeMap<&'static str, BTreeMap<String, Vec<String>>>;

fn expected_tables(ledger: &Ledger) -> Tables {
    let mut tables = Tables::new();
    for (wallet_id, sums) in &ledger.wallets {
        let mut put =
            |table, row: Vec<String>| drop(tables.entry(table).or_default().insert(wallet_id.clone(), row));
        let [seq, charges, images] = [sums.seq, sums.charges, sums.images].map(|count| count.to_string());
        let [balance, granted, adjusted, charged, reversed, held, video] = [
            sums.balance,
            sums.granted,
            sums.adjusted,
            sums.charged,
            sums.reversed,
            sums.held,
            sums.video_millis,
        ]
        .map(|sum| sum.to_string());
        let jobs = sums.jobs.len();
        put("wallets", vec![balance.clone(), held.clone(), seq.clone()]);
        put("grants", vec![balance.clone()]);
        if jobs > 0 {
            let (images, video) = (images.clone(), video.clone());
            put("usage_hourly", vec![jobs.to_string(), images, video, charged.clone(), reversed.clone()]);
        }
        put(
            "ledger_entries",
            vec![
                seq.clone(),
                seq,
                balance,
                granted,
                adjusted,
                charged,
                reversed,
                held,
                charges,
                images,
                video,
            ],
        );
    }
    for table in ["ledger_entries", "usage_hourly", "wallets", "grants", "quarantined_events"] {
        tables.entry(table).or_default();
    }
    for (reason, count) in ledger.reasons() {
        tables.entry("quarantined_events").or_default().insert(reason, vec![count.to_string()]);
    }
    tables
}

/// The generator's outcomes, those that occur.
pub fn expected_outcomes(books: &Books) -> Outcomes {
    let Value::Object(counts) = serde_json::to_value(books.outcomes).unwrap() else {
        panic!("outcomes are an object")
    };
    let counts = counts.into_iter().map(|(outcome, count)| (outcome, count.as_u64().unwrap()));
    counts.filter(|(_, count)| *count > 0).collect()
}

#[track_caller]
fn assert_outcomes(progress: &Progress, books: &Books) {
    let mut outcomes = progress.outcomes();
    let handed_over = outcomes.remove("handed_over").unwrap_or_default();
    outcomes.remove("skipped");
    assert_eq!(outcomes, expected_outcomes(books), "final outcomes, one for each record");
    let mut by_origin = progress.by_origin();
    by_origin.remove("skipped");
    assert_eq!(by_origin.values().sum::<u64>(), handed_over, "what was handed over has its outcome at home");
}

/// The first wallet that is not what the books say, and how it differs. What was held must be settled.
pub fn differing_wallet(ledger: &Ledger, books: &Books) -> Option<String> {
    let none = Sums::default();
    let names: BTreeSet<&String> = ledger.wallets.keys().chain(books.wallets.keys()).collect();
    names.into_iter().find_map(|wallet_id| {
        let sums = ledger.wallets.get(wallet_id).unwrap_or(&none);
        let book = books.wallets.get(wallet_id).cloned().unwrap_or_default();
        let found = [
            ("granted", sums.granted, book.granted),
            ("adjusted", sums.adjusted, book.adjusted),
            ("charged", sums.charged, book.charged),
            ("reversed", sums.reversed, book.reversed),
            ("balance", sums.balance, book.balance),
            ("held", sums.held, 0),
            ("charges", sums.charges as i64, book.charges as i64),
            ("images", sums.images as i64, book.images as i64),
            ("milliseconds of video", sums.video_millis, book.video_seconds.0 as i64),
        ];
        let differing: Vec<_> = found.into_iter().filter(|(_, found, expected)| found != expected).collect();
        let is_known = ledger.wallets.contains_key(wallet_id) == books.wallets.contains_key(wallet_id);
        (!is_known || !differing.is_empty())
            .then(|| format!("{wallet_id}: (what, found, expected) {differing:?}"))
    })
}

/// What is expected where the same records are sent once more: what was accepted is a duplicate now, the rest as before.
pub fn sent_again(books: &Books) -> Books {
    let mut again = books.clone();
    let outcomes = &mut again.outcomes;
    let before = *outcomes;
    *outcomes = OutcomeCounts {
        free: before.free,
        quarantined: before.quarantined,
        duplicate: books.records - before.free - before.quarantined,
        ..OutcomeCounts::default()
    };
    again.credits = Default::default();
    again.wallets.clear();
    again
}
