//! The books: what a correct product must make of everything that was generated. Plain sums.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::item::{Body, Expected, Item, Made, Plan};
use super::options::GenerateOptions;
use super::population::last_plan_of;
use crate::event::Reason;
use crate::rate::VideoMillis;

/// What is expected of a run. Runs over the same wallets (setup, then usage) add up: [`Books::add`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Books {
    /// The seed of the first run.
    pub seed: u64,
    /// Records sent, each of which has one outcome.
    pub records: u64,
    /// Of those, records of the usage topic.
    pub usage_records: u64,
    /// Records by outcome, as `creditstream_events_total` has it.
    pub outcomes: OutcomeCounts,
    /// Quarantined records by reason.
    pub reasons: BTreeMap<String, u64>,
    /// Sums over all wallets.
    pub credits: CreditTotals,
    /// Every wallet that has at least one entry.
    pub wallets: BTreeMap<String, WalletBook>,
}

/// Records by outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names of the contract")]
pub struct OutcomeCounts {
    pub charged: u64,
    pub held: u64,
    pub released: u64,
    pub reversed: u64,
    pub noted: u64,
    pub granted: u64,
    pub contract: u64,
    pub adjusted: u64,
    pub limits: u64,
    pub free: u64,
    pub duplicate: u64,
    pub quarantined: u64,
}

/// Credits of all wallets. Flows are positive.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreditTotals {
    /// By plans and top-ups.
    pub granted: i64,
    /// Of those, by first months of contracts, by plan; what an upgrade adds counts for the greater plan.
    pub granted_by_plan: BTreeMap<String, i64>,
    /// Of those, by top-ups.
    pub granted_by_topups: i64,
    /// By usage.
    pub charged: i64,
    /// Of those, given back.
    pub reversed: i64,
    /// Charged, by the plan of the wallet's contract and by asset.
    pub charged_by_plan: BTreeMap<String, ChargedByAsset>,
    /// By adjustments above 0.
    pub adjusted_up: i64,
    /// By adjustments below 0.
    pub adjusted_down: i64,
}

/// Charged credits by asset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names of the assets")]
pub struct ChargedByAsset {
    pub image: i64,
    pub video: i64,
}

/// What is expected of a wallet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WalletBook {
    /// The plan of its contract; it has it once the contract, and its upgrade if any, is sent too.
    pub plan: String,
    /// Credits granted by plan and top-ups.
    pub granted: i64,
    /// Credits adjusted, signed.
    pub adjusted: i64,
    /// Credits charged.
    pub charged: i64,
    /// Of those, given back.
    pub reversed: i64,
    /// `granted + adjusted - charged + reversed`
    pub balance: i64,
    /// Charges.
    pub charges: u64,
    /// Images charged.
    pub images: u64,
    /// Seconds of video charged, exact decimal.
    pub video_seconds: VideoMillis,
}

impl Books {
    /// Adds the books of another run with other records for the same wallets.
    pub fn add(&mut self, other: &Books) {
        self.records += other.records;
        self.usage_records += other.usage_records;
        let (sum, more) = (&mut self.outcomes, &other.outcomes);
        sum.charged += more.charged;
        sum.held += more.held;
        sum.released += more.released;
        sum.reversed += more.reversed;
        sum.noted += more.noted;
        sum.granted += more.granted;
        sum.contract += more.contract;
        sum.adjusted += more.adjusted;
        sum.limits += more.limits;
        sum.free += more.free;
        sum.duplicate += more.duplicate;
        sum.quarantined += more.quarantined;
        for (reason, count) in &other.reasons {
            *self.reasons.entry(reason.clone()).or_default() += count;
        }
        let (sum, more) = (&mut self.credits, &other.credits);
        sum.granted += more.granted;
        sum.granted_by_topups += more.granted_by_topups;
        sum.charged += more.charged;
        sum.reversed += more.reversed;
        sum.adjusted_up += more.adjusted_up;
        sum.adjusted_down += more.adjusted_down;
        for (plan, credits) in &more.granted_by_plan {
            *sum.granted_by_plan.entry(plan.clone()).or_default() += credits;
        }
        for (plan, charged) in &more.charged_by_plan {
            let sum = sum.charged_by_plan.entry(plan.clone()).or_default();
            sum.image += charged.image;
            sum.video += charged.video;
        }
        for (wallet, more) in &other.wallets {
            let sum = self.wallets.entry(wallet.clone()).or_default();
            sum.plan.clone_from(&more.plan);
            sum.granted += more.granted;
            sum.adjusted += more.adjusted;
            sum.charged += more.charged;
            sum.reversed += more.reversed;
            sum.balance += more.balance;
            sum.charges += more.charges;
            sum.images += more.images;
            sum.video_seconds.0 += more.video_seconds.0;
        }
    }
}

/// Sums of one wallet while records are generated.
#[derive(Clone, Copy, Default)]
struct Sums {
    granted: i64,
    adjusted: i64,
    charged: i64,
    reversed: i64,
    charges: u64,
    images: u64,
    video_millis: u64,
    entries: u64,
}

/// Keeps the books.
pub(super) struct BookKeeper {
    options: GenerateOptions,
    /// Wallet 1 stands at place 0.
    wallets: Vec<Sums>,
    reasons: [u64; Reason::ALL.len()],
    totals: Books,
    granted: [i64; Plan::ALL.len()],
    charged: [ChargedByAsset; Plan::ALL.len()],
}

impl BookKeeper {
    pub(super) fn new(options: &GenerateOptions) -> BookKeeper {
        BookKeeper {
            options: options.clone(),
            wallets: vec![Sums::default(); options.wallets as usize],
            reasons: [0; Reason::ALL.len()],
            totals: Books { seed: options.seed, ..Books::default() },
            granted: [0; Plan::ALL.len()],
            charged: [ChargedByAsset::default(); Plan::ALL.len()],
        }
    }

    /// Enters an item that is sent.
    pub(super) fn enter(&mut self, item: &Item) {
        let totals = &mut self.totals;
        totals.records += 1;
        totals.usage_records += u64::from(item.source_kind == crate::event::SourceKind::Generation);
        let mut ignored = Sums::default();
        let place = item.wallet.checked_sub(1).map_or(usize::MAX, |place| place as usize);
        let sums = self.wallets.get_mut(place).unwrap_or(&mut ignored);
        match item.expected {
            Expected::Charged { credits, is_given_back } => {
                totals.outcomes.charged += 1;
                if is_given_back {
                    totals.credits.reversed += credits;
                    sums.reversed += credits;
                }
                totals.credits.charged += credits;
                sums.charged += credits;
                sums.charges += 1;
                sums.entries += 1;
                let plan = last_plan_of(&self.options, item.wallet) as usize;
                if let (Body::Usage(usage), Some(by_asset)) = (item.body, self.charged.get_mut(plan)) {
                    match usage.made {
                        Made::Images(images) => {
                            sums.images += u64::from(images);
                            by_asset.image += credits;
                        }
                        Made::VideoMillis(millis) => {
                            sums.video_millis += millis;
                            by_asset.video += credits;
                        }
                        Made::Free(_) => {}
                    }
                }
            }
            Expected::Reversed { credits } => {
                totals.outcomes.reversed += 1;
                totals.credits.reversed += credits;
                sums.reversed += credits;
            }
            Expected::Held => {
                totals.outcomes.held += 1;
                sums.entries += 1;
            }
            Expected::Released => totals.outcomes.released += 1,
            Expected::Noted => {
                totals.outcomes.noted += 1;
                sums.entries += 1;
            }
            Expected::Limits => {
                totals.outcomes.limits += 1;
                sums.entries += 1;
            }
            Expected::Granted { credits } => {
                totals.outcomes.granted += 1;
                totals.credits.granted += credits;
                totals.credits.granted_by_topups += credits;
                sums.granted += credits;
                sums.entries += 1;
            }
            Expected::Contract { plan, credits } => {
                totals.outcomes.contract += 1;
                totals.credits.granted += credits;
                sums.granted += credits;
                sums.entries += 1;
                if let Some(granted) = self.granted.get_mut(plan as usize) {
                    *granted += credits;
                }
            }
            Expected::Adjusted { credits } => {
                totals.outcomes.adjusted += 1;
                totals.credits.adjusted_up += credits.max(0);
                totals.credits.adjusted_down += (-credits).max(0);
                sums.adjusted += credits;
                sums.entries += 1;
            }
            Expected::Free => totals.outcomes.free += 1,
            Expected::Duplicate => totals.outcomes.duplicate += 1,
            Expected::Quarantined(reason) => {
                totals.outcomes.quarantined += 1;
                if let Some(count) = self.reasons.get_mut(reason as usize) {
                    *count += 1;
                }
            }
        }
    }

    /// The books so far.
    pub(super) fn books(&self) -> Books {
        let mut books = self.totals.clone();
        let counted = Reason::ALL.iter().zip(self.reasons).filter(|(_, count)| *count > 0);
        books.reasons = counted.map(|(reason, count)| (reason.as_str().to_owned(), count)).collect();
        for (plan, credits) in Plan::ALL.iter().zip(self.granted) {
            books.credits.granted_by_plan.insert(plan.as_str().to_owned(), credits);
        }
        for (plan, charged) in Plan::ALL.iter().zip(self.charged) {
            books.credits.charged_by_plan.insert(plan.as_str().to_owned(), charged);
        }
        for (number, sums) in (1_u32..).zip(&self.wallets).filter(|(_, sums)| sums.entries > 0) {
            let book = WalletBook {
                plan: last_plan_of(&self.options, number).as_str().to_owned(),
                granted: sums.granted,
                adjusted: sums.adjusted,
                charged: sums.charged,
                reversed: sums.reversed,
                balance: sums.granted + sums.adjusted - sums.charged + sums.reversed,
                charges: sums.charges,
                images: sums.images,
                video_seconds: VideoMillis(sums.video_millis),
            };
            books.wallets.insert(format!("{}{number:06}", self.options.wallet_prefix), book);
        }
        books
    }
}
