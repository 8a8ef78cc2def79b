//! The one function that decides: [`apply`].
//!
//! Its order is always the same: what contradicts the wallet's state is refused before anything is posted; then
//! entries are made one by one, each folded into the wallet before the next is computed.

use thiserror::Error;

use super::command::{Cause, Command};
use super::contracts::{cancelled, changed, check_overlap, renewed};
use super::entry::{Entry, EntryType};
use super::fold::Breach;
use super::job::{ChargeMemo, JobHistory};
use super::policy::Policy;
use super::posting::Posting;
use super::state::Wallet;
use crate::event::{ContractStarted, Reason, Rejection, Usage};

/// Most contracts of a wallet, ended ones included: they are kept, as no other may overlap them.
const CONTRACTS_MAX: usize = 1_000;

/// Why nothing was posted.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Refusal {
    /// The event cannot be applied: to the quarantine with it.
    #[error("{}: {}", .0.reason.as_str(), .0.detail)]
    Rejected(Rejection),
    /// Our own sums do not close: the shard stops.
    #[error(transparent)]
    Breach(#[from] Breach),
}

/// Applies a command to a wallet.
///
/// # Errors
/// [`Refusal::Rejected`] leaves the wallet as it was. After [`Refusal::Breach`] it must not be used any more.
pub fn apply<'a>(
    wallet: &mut Wallet,
    cause: &Cause<'a>,
    command: &Command<'a>,
    policy: &Policy,
) -> Result<Vec<Entry<'a>>, Refusal> {
    let at = cause.moment.event_time;
    let rejected = Refusal::Rejected;
    match command {
        Command::Charge(priced) => check_job(priced.usage, &priced.job).map_err(rejected)?,
        Command::StartContract(terms) => check_start(wallet, terms, policy).map_err(rejected)?,
        Command::TopUp { purchase, .. } => {
            check_new(wallet, &format!("topup:{}", purchase.topup_id), policy).map_err(rejected)?;
            check_room(wallet, policy).map_err(rejected)?;
        }
        Command::Adjust(adjusted) => {
            check_new(wallet, &format!("adjustment:{}", adjusted.adjustment_id), policy).map_err(rejected)?;
            if adjusted.credits > 0 {
                check_room(wallet, policy).map_err(rejected)?;
            }
        }
        _ => {}
    }
    let contract = match command {
        Command::ChangePlan(change) => {
            Some(changed(wallet, change, at, policy.horizon_days).map_err(rejected)?)
        }
        Command::RenewContract(renewal) => Some(renewed(wallet, renewal, at).map_err(rejected)?),
        Command::CancelContract(cancellation) => Some(cancelled(wallet, cancellation, at).map_err(rejected)?),
        _ => None,
    };
    let mut posting = Posting::new(wallet, cause, policy);
    match (command, &contract) {
        (Command::Hold(priced), _) => posting.hold(priced)?,
        (Command::Charge(priced), _) => posting.charge(priced)?,
        (Command::EndJob { ended, job }, _) => posting.end_job(ended, job)?,
        (Command::StartContract(terms), _) => posting.start_contract(terms)?,
        (Command::ChangePlan(change), Some(contract)) => posting.change_plan(contract, change)?,
        (Command::RenewContract(renewal), Some(contract)) => {
            posting.contract_entry(EntryType::ContractRenewed, contract, None, renewal.reference.clone())?
        }
        (Command::CancelContract(cancelled), Some(contract)) => {
            posting.contract_entry(EntryType::ContractChanged, contract, None, cancelled.reference.clone())?
        }
        (Command::ChangePlan(_) | Command::RenewContract(_) | Command::CancelContract(_), None) => {}
        (Command::TopUp { purchase, pack }, _) => posting.top_up(purchase, *pack)?,
        (Command::Adjust(adjusted), _) => posting.adjust(adjusted)?,
        (Command::SetLimits(limits), _) => posting.set_limits(limits)?,
    }
    Ok(posting.finish())
}

fn check_start(wallet: &Wallet, terms: &ContractStarted<'_>, policy: &Policy) -> Result<(), Rejection> {
    check_new(wallet, &format!("contract:{}", terms.contract_id), policy)?;
    if wallet.contracts.len() >= CONTRACTS_MAX {
        let detail =
            format!("the wallet has had {CONTRACTS_MAX} contracts: renew one, no more can be started");
        return Err(Rejection::new(Reason::BadValue, detail));
    }
    check_overlap(wallet, &terms.contract_id, terms.starts_at, terms.ends_at)
}

/// A business id is good once per wallet, and a wallet has a bounded number of them.
fn check_new(wallet: &Wallet, business_id: &str, policy: &Policy) -> Result<(), Rejection> {
    if wallet.has_business_id(business_id) {
        let detail =
            format!("{business_id} was used before under another event id: each id is good once per wallet");
        return Err(Rejection::new(Reason::IdConflict, detail));
    }
    if wallet.business_id_count() >= policy.business_ids_max {
        let detail = format!(
            "the wallet has used {} contract, top-up and adjustment ids: no more are allowed",
            policy.business_ids_max
        );
        return Err(Rejection::new(Reason::BadValue, detail));
    }
    Ok(())
}

fn check_room(wallet: &Wallet, policy: &Policy) -> Result<(), Rejection> {
    if wallet.open_grants() >= policy.open_grants_max {
        let detail = format!(
            "the wallet has {} grants with credits left: no more are allowed",
            policy.open_grants_max
        );
        return Err(Rejection::new(Reason::BadValue, detail));
    }
    Ok(())
}

/// A job is charged once: as a whole, or asset by asset.
fn check_job(usage: &Usage<'_>, job: &JobHistory) -> Result<(), Rejection> {
    let Usage { job_id, asset_id, .. } = usage;
    let done = |charge: &ChargeMemo<'_>| if charge.is_refused { "refused" } else { "charged" };
    let retry = |charge: &ChargeMemo<'_>| {
        let advice = "under another event id: a retry must repeat the event's id";
        let is_final = if charge.is_refused { ", and a refusal is final" } else { "" };
        format!("{advice}{is_final}")
    };
    let detail = if let Some(charge) = job.whole_charge() {
        let before = format!("job {job_id} was {} as a whole before", done(charge));
        if asset_id.is_empty() {
            format!("{before}, {}", retry(charge))
        } else {
            format!("{before}: nothing more is charged for it, what else was made is a job of its own")
        }
    } else if let Some(charge) = job.asset_charge() {
        format!("asset {asset_id} of job {job_id} was {} before, {}", done(charge), retry(charge))
    } else if asset_id.is_empty() && job.is_by_asset() {
        format!("job {job_id} was charged or refused asset by asset before: name the asset_id of each")
    } else {
        return Ok(());
    };
    Err(Rejection::new(Reason::JobConflict, detail))
}
