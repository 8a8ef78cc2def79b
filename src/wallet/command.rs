//! What is asked of a wallet: the event behind it, priced, with everything that deciding needs to know beside the
//! wallet itself.

use super::entry::Origin;
use super::job::JobHistory;
use super::state::Wallet;
use crate::event::{
    Adjusted, ContractCancelled, ContractRenewed, ContractStarted, Data, Fingerprint, JobEnded,
    LimitsChanged, PlanChanged, Reason, Rejection, TopupPurchased, Usage,
};
use crate::rate::{Pack, Pricing, Rate};
use crate::time::{EventTime, PostedAt, ShardClock, Timestamp};

/// What a wallet is asked to do: an event's data, priced.
#[derive(Clone, Debug)]
pub enum Command<'a> {
    /// Reserve the estimated cost.
    Hold(PricedUsage<'a>),
    /// Debit usage.
    Charge(PricedUsage<'a>),
    /// End a job's reservation, and give back its charge.
    EndJob {
        /// What ended, and how.
        ended: &'a JobEnded<'a>,
        /// What is known of its job.
        job: JobHistory,
    },
    /// Begin a contract.
    StartContract(&'a ContractStarted<'a>),
    /// Put another plan into force.
    ChangePlan(&'a PlanChanged<'a>),
    /// Book another term.
    RenewContract(&'a ContractRenewed<'a>),
    /// End a contract before its time.
    CancelContract(&'a ContractCancelled<'a>),
    /// Grant a pack.
    TopUp {
        /// The purchase.
        purchase: &'a TopupPurchased<'a>,
        /// What it brings.
        pack: Pack,
    },
    /// Grant or debit by hand.
    Adjust(&'a Adjusted<'a>),
    /// Set what the wallet may do.
    SetLimits(&'a LimitsChanged<'a>),
}

/// Usage with its price and what is known of its job.
#[derive(Clone, Debug)]
pub struct PricedUsage<'a> {
    /// The usage.
    pub usage: &'a Usage<'a>,
    /// Credits.
    pub cost: i64,
    /// Credits per image or second.
    pub rate: Rate,
    /// The card that says so.
    pub rate_card: &'a str,
    /// What is known of its job.
    pub job: JobHistory,
}

impl<'a> Command<'a> {
    /// Prices an event's data by the versions in force at its time.
    ///
    /// # Errors
    /// `unknown_plan`, `unknown_topup`, or `bad_value` where a cost does not fit into 64 bits.
    pub fn price(
        data: &'a Data<'a>,
        at: EventTime,
        job: JobHistory,
        pricing: &'a Pricing,
    ) -> Result<Command<'a>, Rejection> {
        match data {
            Data::Requested(usage) => price_usage(usage, at, job, pricing).map(Command::Hold),
            Data::Completed(usage) => price_usage(usage, at, job, pricing).map(Command::Charge),
            Data::JobEnded(ended) => Ok(Command::EndJob { ended, job }),
            Data::ContractStarted(terms) => {
                check_plan(&terms.plan, at, pricing)?;
                Ok(Command::StartContract(terms))
            }
            Data::PlanChanged(change) => {
                check_plan(&change.plan, at, pricing)?;
                Ok(Command::ChangePlan(change))
            }
            Data::ContractRenewed(renewal) => {
                if !renewal.plan.is_empty() {
                    check_plan(&renewal.plan, at, pricing)?;
                }
                Ok(Command::RenewContract(renewal))
            }
            Data::ContractCancelled(cancellation) => Ok(Command::CancelContract(cancellation)),
            Data::LimitsChanged(limits) => Ok(Command::SetLimits(limits)),
            Data::TopupPurchased(purchase) => {
                let pack =
                    purchase.amount_usd.and_then(|amount| pricing.pack_at(amount, at)).ok_or_else(|| {
                        let detail = format!(
                            "no top-up pack costs {} US dollars at {}: mend the amount or add the pack",
                            purchase.amount_text, at.0
                        );
                        Rejection::new(Reason::UnknownTopup, detail)
                    })?;
                Ok(Command::TopUp { purchase, pack })
            }
            Data::Adjusted(adjusted) => Ok(Command::Adjust(adjusted)),
        }
    }
}

fn price_usage<'a>(
    usage: &'a Usage<'a>,
    at: EventTime,
    job: JobHistory,
    pricing: &'a Pricing,
) -> Result<PricedUsage<'a>, Rejection> {
    let card = pricing.rate_card_at(at).ok_or_else(|| {
        Rejection::new(
            Reason::BadValue,
            format!("no rate card is in force at {}: add one to the pricing file", at.0),
        )
    })?;
    let rate = card.rate(usage.quantity.asset_type(), &usage.model);
    let cost =
        usage.quantity.cost(rate).map_err(|error| Rejection::new(Reason::BadValue, error.to_string()))?;
    Ok(PricedUsage { usage, cost, rate, rate_card: &card.id, job })
}

fn check_plan(plan: &str, at: EventTime, pricing: &Pricing) -> Result<(), Rejection> {
    if pricing.plan_at(plan, at).is_some() {
        return Ok(());
    }
    let detail =
        format!("plan {plan:?} is not in the pricing file at {}: mend the name or add the plan", at.0);
    Err(Rejection::new(Reason::UnknownPlan, detail))
}

/// The event behind entries; for those of a timer everything but the moment is empty.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cause<'a> {
    /// Its type, without a configured prefix.
    pub event_type: &'a str,
    /// Its producer.
    pub source: &'a str,
    /// Its id.
    pub event_id: &'a str,
    /// What it says.
    pub fingerprint: Fingerprint,
    /// Where it came from.
    pub origin: Origin<'a>,
    /// When.
    pub moment: Moment,
}

/// The three clocks, read once per event or timer.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// When it happened, or was due.
    pub event_time: EventTime,
    /// How far the shard has come.
    pub clock: ShardClock,
    /// When it is written.
    pub posted_at: PostedAt,
}

impl Moment {
    /// How far time has come for the wallet of an event: as far as the shard clock, this event and those before it, never
    /// beyond the wall clock. The shard clock may stand behind them, for another source is behind or nothing was read yet
    /// since the assignment; what was due to this wallet by then is there all the same.
    pub fn reached(&self, wallet: &Wallet) -> Timestamp {
        self.clock.0.max(self.event_time.0.max(wallet.latest_at).min(self.posted_at.0))
    }
}

impl Default for Moment {
    fn default() -> Moment {
        let never = Timestamp::default();
        Moment { event_time: EventTime(never), clock: ShardClock(never), posted_at: PostedAt(never) }
    }
}
