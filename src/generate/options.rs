//! What is to be generated.

use super::output::GenerateError;
use crate::time::{DAY_MS, Timestamp};

/// Longest window of event times, days: then the first month's allocation is the only one that is due.
const WINDOW_DAYS_MAX: i64 = 20;
/// Most wallets: their numbers have six digits in the ids, and more where needed.
const WALLETS_MAX: u32 = 10_000_000;

/// Which topics' events are generated. Each is the same in both phases together as by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// Contracts first, then usage, top-ups and adjustments in the order of their times.
    #[default]
    Both,
    /// Wallet events only.
    Setup,
    /// Usage only.
    Usage,
}

/// How much, when, and how unruly. The same options give the same records.
#[derive(Clone, Debug, PartialEq)]
pub struct GenerateOptions {
    /// Chooses everything that is random: ids too, so that runs with different seeds add up.
    pub seed: u64,
    /// Which topics' events.
    pub phase: Phase,
    /// Records for the usage topic: duplicates, conflicts and bad ones count.
    pub events: u64,
    /// Wallets. Their names and plans depend on nothing else.
    pub wallets: u32,
    /// What wallet ids begin with.
    pub wallet_prefix: String,
    /// What event types begin with (`events.type_prefix`).
    pub type_prefix: String,
    /// First event time of usage.
    pub start: Timestamp,
    /// Last event time. Not ahead of the clock of whoever reads the events.
    pub end: Timestamp,
    /// Of all wallets, those that buy top-ups.
    pub topups_percent: f64,
    /// Of all wallets, those that are adjusted, up or down.
    pub adjustments_percent: f64,
    /// Of all wallets, those whose contract is changed, renewed or cancelled.
    pub contract_changes_percent: f64,
    /// Of all wallets, those whose limits are changed.
    pub limits_percent: f64,
    /// Of the jobs of the last 12 hours, those that are requested before they end.
    pub requests_percent: f64,
    /// Of all jobs, those that fail, are rejected or cancelled.
    pub failures_percent: f64,
    /// Of the usage records, those that refund a job.
    pub refunds_percent: f64,
    /// Of all records, those sent again: the same bytes, or the same content spelt differently.
    pub duplicates_percent: f64,
    /// Of all records, those with the source and id of another one and another payload.
    pub id_conflicts_percent: f64,
    /// Of the usage records, those that deliver a charged job again under another event id.
    pub job_conflicts_percent: f64,
    /// Of all records, those that cannot be applied: every kind in turn.
    pub bad_percent: f64,
    /// Of good usage, what is delivered up to 30 minutes after its time.
    pub late_percent: f64,
    /// Of all records, those whose key is another wallet's, random, or absent.
    pub wrong_key_percent: f64,
    /// Of good records, those in CloudEvents' binary mode.
    pub binary_percent: f64,
}

impl GenerateOptions {
    /// The defaults: 100,000 events of 1,000 wallets in the two days that end at `end`.
    pub fn ending_at(end: Timestamp) -> GenerateOptions {
        GenerateOptions {
            seed: 1,
            phase: Phase::Both,
            events: 100_000,
            wallets: 1_000,
            wallet_prefix: "ws_".to_owned(),
            type_prefix: String::new(),
            start: end.plus_millis(-2 * DAY_MS),
            end,
            topups_percent: 30.0,
            adjustments_percent: 10.0,
            contract_changes_percent: 10.0,
            limits_percent: 5.0,
            requests_percent: 40.0,
            failures_percent: 2.0,
            refunds_percent: 1.0,
            duplicates_percent: 1.0,
            id_conflicts_percent: 0.1,
            job_conflicts_percent: 0.1,
            bad_percent: 0.5,
            late_percent: 2.0,
            wrong_key_percent: 5.0,
            binary_percent: 10.0,
        }
    }

    /// The defaults, ending a minute before now.
    pub fn ending_now() -> GenerateOptions {
        GenerateOptions::ending_at(Timestamp::now().plus_millis(-60_000))
    }

    /// Whether the books can be kept for these options.
    ///
    /// # Errors
    /// Names the option, its value and what is allowed.
    pub fn check(&self) -> Result<(), GenerateError> {
        let invalid = |fault: String| Err(GenerateError::Options(fault));
        let window_ms = self.end.millis().saturating_sub(self.start.millis());
        if !(0..=WINDOW_DAYS_MAX * DAY_MS).contains(&window_ms) {
            return invalid(format!(
                "events from {} to {}: expected a start before the end, and at most {WINDOW_DAYS_MAX} days (then a contract's second month would be due)",
                self.start, self.end
            ));
        }
        if !(1..=WALLETS_MAX).contains(&self.wallets) {
            return invalid(format!("{} wallets: allowed are 1 to {WALLETS_MAX}", self.wallets));
        }
        let prefix_fits = |prefix: &str| {
            prefix.len() <= 64
                && prefix.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-./:".contains(&byte))
        };
        if !prefix_fits(&self.wallet_prefix) || !prefix_fits(&self.type_prefix) {
            return invalid("a prefix may have up to 64 letters, digits and _-./:".to_owned());
        }
        let shares = [
            ("top-ups", self.topups_percent),
            ("adjustments", self.adjustments_percent),
            ("changes of contracts", self.contract_changes_percent),
            ("changes of limits", self.limits_percent),
            ("requests", self.requests_percent),
            ("failures", self.failures_percent),
            ("late events", self.late_percent),
            ("wrong keys", self.wrong_key_percent),
            ("binary mode", self.binary_percent),
            ("duplicates, conflicts, refunds and bad records together", self.unruly_percent()),
        ];
        for (name, percent) in shares {
            if !(0.0..=100.0).contains(&percent) {
                return invalid(format!("{name}: {percent} %: allowed are 0 to 100"));
            }
        }
        let parts = [
            self.duplicates_percent,
            self.id_conflicts_percent,
            self.job_conflicts_percent,
            self.bad_percent,
            self.refunds_percent,
        ];
        if parts.iter().any(|percent| !(0.0..=100.0).contains(percent)) {
            return invalid(
                "duplicates, conflicts, refunds, bad records: allowed are 0 to 100 % each".to_owned(),
            );
        }
        Ok(())
    }

    fn unruly_percent(&self) -> f64 {
        self.duplicates_percent
            + self.id_conflicts_percent
            + self.job_conflicts_percent
            + self.bad_percent
            + self.refunds_percent
    }
}

/// Percent as a number of millionths, to be compared with a random one.
pub(super) fn millionths(percent: f64) -> u32 {
    (percent * 10_000.0).round() as u32
}
