//! What the events of each type say, once it was read and found right.

use std::borrow::Cow;

use crate::rate::{Quantity, UsdCents};
use crate::time::Timestamp;

/// The validated data of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Data<'a> {
    /// An asset was asked for.
    Requested(Usage<'a>),
    /// An asset was made.
    Completed(Usage<'a>),
    /// A job, or one asset of it, came to an end that is not charged.
    JobEnded(JobEnded<'a>),
    /// A contract begins.
    ContractStarted(ContractStarted<'a>),
    /// A contract's plan changes.
    PlanChanged(PlanChanged<'a>),
    /// A contract goes on after its term.
    ContractRenewed(ContractRenewed<'a>),
    /// A contract ends before its time.
    ContractCancelled(ContractCancelled<'a>),
    /// Credits were bought.
    TopupPurchased(TopupPurchased<'a>),
    /// A person changed the balance.
    Adjusted(Adjusted<'a>),
    /// A person changed what the wallet may do.
    LimitsChanged(LimitsChanged<'a>),
}

impl Data<'_> {
    /// The job that it is about, and the asset of it (empty: the job as a whole, or its only asset).
    pub fn job(&self) -> Option<(&str, &str)> {
        match self {
            Data::Requested(usage) | Data::Completed(usage) => Some((&usage.job_id, &usage.asset_id)),
            Data::JobEnded(ended) => Some((&ended.job_id, &ended.asset_id)),
            Data::ContractStarted(_)
            | Data::PlanChanged(_)
            | Data::ContractRenewed(_)
            | Data::ContractCancelled(_)
            | Data::TopupPurchased(_)
            | Data::Adjusted(_)
            | Data::LimitsChanged(_) => None,
        }
    }
}

/// Data of `generation.requested` and `generation.completed`. Absent ids are empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usage<'a> {
    /// The job that delivers.
    pub job_id: Cow<'a, str>,
    /// The asset of the job, where it delivers several one by one.
    pub asset_id: Cow<'a, str>,
    /// What was made.
    pub quantity: Quantity,
    /// The model that made it.
    pub model: Cow<'a, str>,
    /// Who asked for it.
    pub user_id: Cow<'a, str>,
    /// What for.
    pub project_id: Cow<'a, str>,
}

/// Data of `generation.failed`, `.rejected`, `.cancelled` and `.refunded`. Absent texts are empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobEnded<'a> {
    /// How it ended.
    pub ending: JobEnding,
    /// The job.
    pub job_id: Cow<'a, str>,
    /// The asset of the job; empty: the whole job.
    pub asset_id: Cow<'a, str>,
    /// Why.
    pub reason: Cow<'a, str>,
}

/// How a job, or one asset of it, ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobEnding {
    /// Nothing was made.
    Failed,
    /// What was made was not accepted.
    Rejected,
    /// Nobody wants it any more; what was charged stays charged.
    Cancelled,
    /// Its charge is given back.
    Refunded,
}

/// Data of `contract.started`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContractStarted<'a> {
    /// Unique per wallet for ever.
    pub contract_id: Cow<'a, str>,
    /// The plan's name.
    pub plan: Cow<'a, str>,
    /// First instant.
    pub starts_at: Timestamp,
    /// First instant after the term.
    pub ends_at: Timestamp,
    /// Length.
    pub term_months: u32,
    /// An invoice or ticket.
    pub reference: Cow<'a, str>,
}

/// Data of `contract.plan_changed`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanChanged<'a> {
    /// The contract.
    pub contract_id: Cow<'a, str>,
    /// The new plan's name.
    pub plan: Cow<'a, str>,
    /// From when on; `None`: the event's time.
    pub effective_at: Option<Timestamp>,
    /// An invoice or ticket.
    pub reference: Cow<'a, str>,
}

/// Data of `contract.renewed`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContractRenewed<'a> {
    /// The contract.
    pub contract_id: Cow<'a, str>,
    /// The plan of the new term; empty: as before.
    pub plan: Cow<'a, str>,
    /// Length of the new term; `None`: as before.
    pub term_months: Option<u32>,
    /// An invoice or ticket.
    pub reference: Cow<'a, str>,
}

/// Data of `contract.cancelled`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContractCancelled<'a> {
    /// The contract.
    pub contract_id: Cow<'a, str>,
    /// When it ends; `None`: with the term under way.
    pub effective_at: Option<Timestamp>,
    /// An invoice or ticket.
    pub reference: Cow<'a, str>,
}

/// Data of `wallet.limits_changed`. At least one of the limits is there; `None` leaves one as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitsChanged<'a> {
    /// How far charges may overdraw.
    pub overdraft_limit: Option<Limit<OverdraftLimit>>,
    /// Threshold of level `low`, percent.
    pub low_percent: Option<Limit<u8>>,
    /// Threshold of level `critical`, percent.
    pub critical_percent: Option<Limit<u8>>,
    /// An invoice or ticket.
    pub reference: Cow<'a, str>,
}

/// A limit of a wallet: its own, or what its plan or the configuration says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit<T> {
    /// What the plan or the configuration says.
    Plan,
    /// Its own.
    Own(T),
}

/// How far charges may overdraw a wallet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OverdraftLimit {
    /// Without end.
    Unlimited,
    /// Up to so many credits.
    Credits(i64),
}

/// Data of `topup.purchased`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopupPurchased<'a> {
    /// Unique per wallet for ever.
    pub topup_id: Cow<'a, str>,
    /// The price; `None` where it is not even a whole number of cents, and so no pack's.
    pub amount_usd: Option<UsdCents>,
    /// The price as it was spelt.
    pub amount_text: &'a str,
    /// An invoice or ticket.
    pub reference: Cow<'a, str>,
}

/// Data of `wallet.adjusted`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Adjusted<'a> {
    /// Unique per wallet for ever.
    pub adjustment_id: Cow<'a, str>,
    /// Above 0: a grant. Below: a debit.
    pub credits: i64,
    /// Why.
    pub reason: Cow<'a, str>,
    /// Who.
    pub actor: Cow<'a, str>,
    /// When what is left of a grant expires.
    pub expires_at: Option<Timestamp>,
    /// An invoice or ticket.
    pub reference: Cow<'a, str>,
}
