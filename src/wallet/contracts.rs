//! Postings of contracts, top-ups, adjustments and limits as they arrive. What falls due by them is posted by
//! [`super::due`].

use std::borrow::Cow;

use smallvec::{SmallVec, smallvec};

use super::contract::{Contract, PlanSpan};
use super::entry::{ContractTerms, EntryType, GrantKind, PlanTerms};
use super::fold::Breach;
use super::posting::{NewGrant, Posting};
use super::state::Wallet;
use crate::event::{
    Adjusted, ContractCancelled, ContractRenewed, ContractStarted, Limit, LimitsChanged, OverdraftLimit,
    PlanChanged, Reason, Rejection, TopupPurchased,
};
use crate::rate::Pack;
use crate::time::{DAY_MS, EventTime, Timestamp};

/// Plan changes of a contract that are kept at most.
const PLAN_CHANGES_MAX: usize = 100;
/// Plans that ended this long before the horizon are of no use any more: no month that a late event can reach knows them.
const PLAN_HISTORY_DAYS: i64 = 62;

/// The contract as a change leaves it.
///
/// # Errors
/// `no_contract`: it is not there or was over at the event's time; `bad_value`: too many changes.
pub(super) fn changed(
    wallet: &Wallet,
    change: &PlanChanged<'_>,
    at: EventTime,
    horizon_days: i32,
) -> Result<Contract, Rejection> {
    let mut contract = running(wallet, &change.contract_id, at)?.clone();
    let from = change_from(&contract, change, at);
    contract.change_plan(from, &change.plan);
    if contract.plans.len() > PLAN_CHANGES_MAX {
        let history_ms = (i64::from(horizon_days) + PLAN_HISTORY_DAYS) * DAY_MS;
        forget_plans_before(&mut contract, at.0.plus_millis(-history_ms));
    }
    if contract.plans.len() > PLAN_CHANGES_MAX {
        let detail = format!(
            "contract {} has {PLAN_CHANGES_MAX} plan changes on its books: no more are allowed",
            contract.contract_id
        );
        return Err(Rejection::new(Reason::BadValue, detail));
    }
    Ok(contract)
}

/// From when on a change is in force: it reaches back at most to the start of the month under way.
fn change_from(contract: &Contract, change: &PlanChanged<'_>, at: EventTime) -> Timestamp {
    let month_start = contract.month_start(contract.month_at(at.0));
    change.effective_at.unwrap_or(at.0).max(month_start).max(contract.starts_at)
}

fn forget_plans_before(contract: &mut Contract, first_kept: Timestamp) {
    // Months that are not granted yet are still to be reckoned by them.
    let months_granted = u32::try_from(contract.granted.len()).unwrap_or(u32::MAX);
    let first_kept = first_kept.min(contract.month_start(months_granted.saturating_sub(1)));
    let is_old = |pair: &[PlanSpan]| pair.last().is_some_and(|next| next.from <= first_kept);
    while contract.plans.get(..2).is_some_and(is_old) {
        contract.plans.remove(0);
    }
}

/// The contract as its renewal leaves it.
///
/// # Errors
/// `no_contract`: it is not there, was cancelled, or was over at the event's time; `contract_conflict`: a renewal is
/// booked, or another contract stands where the new term would.
pub(super) fn renewed(
    wallet: &Wallet,
    renewal: &ContractRenewed<'_>,
    at: EventTime,
) -> Result<Contract, Rejection> {
    let known = running(wallet, &renewal.contract_id, at)?;
    if known.is_cancelled {
        let detail = format!("contract {} was cancelled: start a new one", known.contract_id);
        return Err(Rejection::new(Reason::NoContract, detail));
    }
    let seam = known.ends_at;
    let term = known.term_at(at.0);
    if term.ends_at < seam {
        let detail =
            format!("contract {} has a renewal booked, up to {seam}: one at a time", known.contract_id);
        return Err(Rejection::new(Reason::ContractConflict, detail));
    }
    let mut contract = known.clone();
    contract.terms.push(renewal.term_months.unwrap_or(term.months));
    contract.ends_at = contract.terms_end();
    if contract.ends_at == Timestamp::MAX {
        let detail = format!("contract {}: the new term's end cannot be represented", known.contract_id);
        return Err(Rejection::new(Reason::BadValue, detail));
    }
    check_overlap(wallet, &contract.contract_id, seam, contract.ends_at)?;
    // A change that is booked for the seam comes after the renewal, and goes over its plan.
    let is_changed_then = contract.plans.iter().any(|span| span.from == seam);
    if !renewal.plan.is_empty() && !is_changed_then {
        contract.change_plan(seam, &renewal.plan);
    }
    Ok(contract)
}

/// The contract as its cancellation leaves it.
///
/// # Errors
/// `no_contract`: it is not there or was over at the event's time.
pub(super) fn cancelled(
    wallet: &Wallet,
    cancellation: &ContractCancelled<'_>,
    at: EventTime,
) -> Result<Contract, Rejection> {
    let mut contract = running(wallet, &cancellation.contract_id, at)?.clone();
    // A booked renewal falls away; of two cancellations the earlier end stands.
    let end = contract.term_at(at.0).ends_at;
    contract.ends_at = cancellation.effective_at.unwrap_or(end).clamp(contract.starts_at, end);
    contract.is_cancelled = true;
    Ok(contract)
}

/// A contract that is not over at the event's time.
fn running<'w>(wallet: &'w Wallet, contract_id: &str, at: EventTime) -> Result<&'w Contract, Rejection> {
    let no_contract = |detail: String| Rejection::new(Reason::NoContract, detail);
    let contract = wallet.contract(contract_id).ok_or_else(|| {
        no_contract(format!("the wallet has no contract {contract_id}: start it first, or mend the id"))
    })?;
    if at.0 >= contract.ends_at {
        let detail =
            format!("contract {contract_id} ended at {}, the event is of {}", contract.ends_at, at.0);
        return Err(no_contract(detail));
    }
    Ok(contract)
}

/// # Errors
/// `contract_conflict`: another contract has an instant of `[starts_at, ends_at)`.
pub(super) fn check_overlap(
    wallet: &Wallet,
    contract_id: &str,
    starts_at: Timestamp,
    ends_at: Timestamp,
) -> Result<(), Rejection> {
    let others = wallet.contracts.iter().filter(|other| *other.contract_id != *contract_id);
    let Some(other) = others.into_iter().find(|other| other.overlaps(starts_at, ends_at)) else {
        return Ok(());
    };
    let detail = format!(
        "contract {contract_id} ({starts_at} to {ends_at}) would overlap contract {} ({} to {})",
        other.contract_id, other.starts_at, other.ends_at
    );
    Err(Rejection::new(Reason::ContractConflict, detail))
}

impl<'a> Posting<'_, 'a, '_> {
    /// A contract begins; its months are granted as they fall due.
    pub fn start_contract(&mut self, terms: &ContractStarted<'a>) -> Result<(), Breach> {
        let contract = Contract {
            contract_id: terms.contract_id.as_ref().into(),
            starts_at: terms.starts_at,
            ends_at: terms.ends_at,
            terms: smallvec![terms.term_months],
            plans: smallvec![PlanSpan { from: terms.starts_at, plan: terms.plan.as_ref().into() }],
            granted: SmallVec::new(),
            is_changed: false,
            is_cancelled: false,
            is_ended: false,
            expiry_warned: None,
        };
        self.contract_entry(EntryType::ContractStarted, &contract, None, terms.reference.clone())
    }

    /// A contract's plan changes, now or later.
    pub fn change_plan(&mut self, contract: &Contract, change: &PlanChanged<'a>) -> Result<(), Breach> {
        let from = change_from(contract, change, EventTime(self.event_time()));
        let asked = PlanTerms { from, plan: change.plan.clone() };
        self.contract_entry(EntryType::ContractChanged, contract, Some(asked), change.reference.clone())
    }

    /// An entry that says how a contract stands from now on.
    pub fn contract_entry(
        &mut self,
        entry_type: EntryType,
        contract: &Contract,
        asked_plan: Option<PlanTerms<'a>>,
        reference: Cow<'a, str>,
    ) -> Result<(), Breach> {
        let mut entry = self.blank(entry_type);
        let terms = ContractTerms { asked_plan, ..contract.to_terms(self.event_time()) };
        if entry_type == EntryType::ContractStarted {
            entry.business_id = Cow::Owned(format!("contract:{}", contract.contract_id));
        }
        entry.plan = terms.plan.as_ref().into();
        entry.contract_id = terms.contract_id.as_ref().into();
        entry.period_start = contract.month_start(contract.month_at(self.event_time())).date();
        entry.reference = reference;
        entry.contract = Some(Box::new(terms));
        self.post(entry)
    }

    /// Grants a pack; it never expires.
    pub fn top_up(&mut self, purchase: &TopupPurchased<'a>, pack: Pack) -> Result<(), Breach> {
        let grant_id = format!("topup:{}", purchase.topup_id);
        let mut entry = self.blank(EntryType::Granted);
        entry.business_id = Cow::Owned(grant_id.clone());
        entry.amount_usd = pack.amount_usd;
        entry.reference = purchase.reference.clone();
        self.grant(
            entry,
            NewGrant {
                grant_id: grant_id.into(),
                kind: GrantKind::Topup,
                credits: pack.credits,
                granted_at: self.event_time(),
                expires_at: None,
                contract_id: Cow::Borrowed(""),
                month: None,
                is_difference: false,
            },
        )
    }

    /// Grants or debits by hand. What a debit finds no credits for becomes overdraft, whatever the limit.
    pub fn adjust(&mut self, adjusted: &Adjusted<'a>) -> Result<(), Breach> {
        let grant_id = format!("adjustment:{}", adjusted.adjustment_id);
        let mut entry = self.blank(EntryType::Adjusted);
        entry.business_id = Cow::Owned(grant_id.clone());
        entry.reason = adjusted.reason.clone();
        entry.actor = adjusted.actor.clone();
        entry.reference = adjusted.reference.clone();
        if adjusted.credits < 0 {
            let (effects, uncovered) = self.draw(adjusted.credits.saturating_neg());
            entry.credits = adjusted.credits;
            entry.grant_effects = effects;
            entry.overdraft_after = self.wallet.overdraft.saturating_add(uncovered);
            return self.post(entry);
        }
        self.grant(
            entry,
            NewGrant {
                grant_id: grant_id.into(),
                kind: GrantKind::Adjustment,
                credits: adjusted.credits,
                granted_at: self.event_time(),
                expires_at: adjusted.expires_at,
                contract_id: Cow::Borrowed(""),
                month: None,
                is_difference: false,
            },
        )
    }

    /// Sets the limits that the event names, and leaves the others.
    pub fn set_limits(&mut self, changed: &LimitsChanged<'a>) -> Result<(), Breach> {
        let mut limits = self.wallet.limits;
        match changed.overdraft_limit {
            None => {}
            Some(Limit::Plan) => limits.overdraft = None,
            Some(Limit::Own(OverdraftLimit::Unlimited)) => limits.overdraft = Some(None),
            Some(Limit::Own(OverdraftLimit::Credits(credits))) => limits.overdraft = Some(Some(credits)),
        }
        let percent = |own: &mut Option<u8>, change: Option<Limit<u8>>| match change {
            None => {}
            Some(Limit::Plan) => *own = None,
            Some(Limit::Own(percent)) => *own = Some(percent),
        };
        percent(&mut limits.low_percent, changed.low_percent);
        percent(&mut limits.critical_percent, changed.critical_percent);
        let mut entry = self.blank(EntryType::LimitsChanged);
        entry.limits = Some(limits.terms());
        entry.reference = changed.reference.clone();
        self.post(entry)
    }
}
