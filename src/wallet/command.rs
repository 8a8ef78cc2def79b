//! What is asked of a wallet: the event behind it, priced, with everything that deciding needs to know beside the
//! wallet itself.

use super::entry::Origin;
use crate::event::{
    Adjusted, Completed, ContractStarted, Data, Fingerprint, Reason, Rejection, TopupPurchased,
};
use crate::rate::{Pack, Plan, Pricing, Rate};
use crate::time::{EventTime, PostedAt, ShardClock};

/// What a wallet is asked to do: an event's data, priced.
#[derive(Clone, Debug)]
pub enum Command<'a> {
    /// Debit usage.
    Charge {
        /// The usage.
        usage: &'a Completed<'a>,
        /// Credits.
        cost: i64,
        /// Credits per image or second.
        rate: Rate,
        /// The card that says so.
        rate_card: &'a str,
        /// What is known of its job.
        job: JobHistory,
    },
    /// Begin a contract.
    StartContract {
        /// Its terms.
        terms: &'a ContractStarted<'a>,
        /// What its plan grants.
        plan: Plan,
    },
    /// Grant a pack.
    TopUp {
        /// The purchase.
        purchase: &'a TopupPurchased<'a>,
        /// What it brings.
        pack: Pack,
    },
    /// Grant or debit by hand.
    Adjust(&'a Adjusted<'a>),
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
            Data::Completed(usage) => {
                let card = pricing.rate_card_at(at).ok_or_else(|| {
                    Rejection::new(
                        Reason::BadValue,
                        format!("no rate card is in force at {}: add one to the pricing file", at.0),
                    )
                })?;
                let rate = card.rate(usage.quantity.asset_type(), &usage.model);
                let cost = usage
                    .quantity
                    .cost(rate)
                    .map_err(|error| Rejection::new(Reason::BadValue, error.to_string()))?;
                Ok(Command::Charge { usage, cost, rate, rate_card: &card.id, job })
            }
            Data::ContractStarted(terms) => {
                let plan = pricing.plan_at(&terms.plan, at).ok_or_else(|| {
                    let detail = format!(
                        "plan {:?} is not in the pricing file at {}: mend the name or add the plan",
                        terms.plan, at.0
                    );
                    Rejection::new(Reason::UnknownPlan, detail)
                })?;
                Ok(Command::StartContract { terms, plan })
            }
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

/// What is remembered of a job: jobs and their assets are charged once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JobHistory {
    /// The job was charged (or refused), as a whole or in part.
    pub job: Option<JobCharge>,
    /// This very asset of it was.
    pub asset_charged: bool,
    /// Some charge of it was posted, not only refused: it stands in the rollup's number of jobs.
    pub is_counted: bool,
}

/// How a job was charged: the two do not mix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobCharge {
    /// As a whole.
    Whole,
    /// Asset by asset.
    ByAsset,
}

/// The event behind a command.
#[derive(Clone, Copy, Debug)]
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

/// The three clocks, read once per event.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// When it happened.
    pub event_time: EventTime,
    /// How far the shard has come, this event included.
    pub clock: ShardClock,
    /// When it is written.
    pub posted_at: PostedAt,
}
