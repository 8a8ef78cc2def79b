//! The two streams as one, and the books beside it.

use super::books::{BookKeeper, Books};
use super::encode::{Encoder, Record};
use super::item::{Expected, Item};
use super::options::{GenerateOptions, Phase};
use super::output::GenerateError;
use super::usage_plan::UsagePlan;
use super::wallet_plan::WalletPlan;
use crate::time::Timestamp;

/// Makes records one by one, and keeps the books of those that it made.
pub struct Generator {
    wallet_plan: Option<WalletPlan>,
    usage_plan: Option<UsagePlan>,
    wallet_next: Option<(Timestamp, Item)>,
    usage_next: Option<(Timestamp, Item)>,
    encoder: Encoder,
    books: BookKeeper,
    records_total: u64,
}

impl Generator {
    /// Plans the run.
    ///
    /// # Errors
    /// Options for which no books can be kept.
    pub fn new(options: &GenerateOptions) -> Result<Generator, GenerateError> {
        options.check()?;
        let mut wallet_plan = (options.phase != Phase::Usage).then(|| WalletPlan::new(options));
        let mut usage_plan = match options.phase {
            Phase::Setup => None,
            Phase::Both | Phase::Usage => Some(UsagePlan::new(options)?),
        };
        let usage_total = if usage_plan.is_some() { options.events } else { 0 };
        let records_total = usage_total + wallet_plan.as_ref().map_or(0, WalletPlan::len);
        Ok(Generator {
            wallet_next: wallet_plan.as_mut().and_then(WalletPlan::next),
            usage_next: usage_plan.as_mut().and_then(UsagePlan::next),
            wallet_plan,
            usage_plan,
            encoder: Encoder::new(options),
            books: BookKeeper::new(options),
            records_total,
        })
    }

    /// How many records there are in all, exactly.
    pub fn records_total(&self) -> u64 {
        self.records_total
    }

    /// Overwrites `record` with the next one, enters it into the books, and says what must become of it.
    /// `None`: there are no more, and `record` is as it was.
    pub fn next_record(&mut self, record: &mut Record) -> Option<Expected> {
        let item = self.next_item()?;
        self.encoder.encode(&item, record);
        self.books.enter(&item);
        Some(item.expected)
    }

    /// The books of the records made so far.
    pub fn books(&self) -> Books {
        self.books.books()
    }

    /// By time of delivery, wallet events first on ties.
    fn next_item(&mut self) -> Option<Item> {
        let is_wallets_turn = match (&self.wallet_next, &self.usage_next) {
            (Some((wallet_at, _)), Some((usage_at, _))) => wallet_at <= usage_at,
            (wallet_next, _) => wallet_next.is_some(),
        };
        let (_, item) = if is_wallets_turn {
            let next = self.wallet_plan.as_mut().and_then(WalletPlan::next);
            std::mem::replace(&mut self.wallet_next, next)
        } else {
            let next = self.usage_plan.as_mut().and_then(UsagePlan::next);
            std::mem::replace(&mut self.usage_next, next)
        }?;
        Some(item)
    }
}
