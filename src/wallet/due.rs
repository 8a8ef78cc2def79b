//! What falls due by itself: expiries, ends of contracts, differences of plan changes, allocations, timeouts of holds,
//! warnings.
//!
//! Nothing is stored about it: what is due follows from the wallet and the prices, so that a restored wallet owes what
//! the one before it owed. One due posting is a record of its own, and the wallet's level is set after each
//! unless credits are due behind it.

use std::borrow::Cow;
use std::cmp::Ordering;

use compact_str::format_compact;

use super::command::{Cause, Moment};
use super::contract::DueMonth;
use super::entry::{Entry, EntryType, GrantKind};
use super::fold::Breach;
use super::grant::GrantOrigin;
use super::policy::Policy;
use super::posting::{NewGrant, Posting};
use super::state::Wallet;
use super::warning::ExpiryWarning;
use crate::rate::Pricing;
use crate::time::{EventTime, PostedAt, ShardClock, Timestamp};

/// Something that is due. At one instant they come in this order, then by id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    /// Place of the grant.
    Expiry(usize),
    /// Place of the contract.
    ContractEnd(usize),
    /// Place of the contract, and of the plan since which months of it are worth more.
    Difference(usize, usize),
    /// Place of the contract.
    Allocation(usize),
    /// The first hold.
    HoldTimeout,
    /// See [`Wallet::runway_due`].
    Runway,
    /// Place of the contract, and what to warn of.
    Expiring(usize, ExpiryWarning),
    /// See [`Wallet::overdraft_due`].
    OverdraftUnpaid,
}

impl Due {
    fn rank(&self) -> u8 {
        match self {
            Due::Expiry(_) => 0,
            Due::ContractEnd(_) => 1,
            Due::Difference(..) => 2,
            Due::Allocation(_) => 3,
            Due::HoldTimeout => 4,
            Due::Runway => 5,
            Due::Expiring(..) => 6,
            Due::OverdraftUnpaid => 7,
        }
    }

    /// Things of one kind that are due at one instant: by their ids.
    fn by_id(&self, other: &Due, wallet: &Wallet) -> Ordering {
        match (self, other) {
            (Due::Expiry(one), Due::Expiry(other)) => {
                let order = |place: &usize| wallet.grants.get(*place).map(|grant| wallet.id_order(grant));
                order(one).cmp(&order(other))
            }
            (Due::ContractEnd(one), Due::ContractEnd(other))
            | (Due::Difference(one, _), Due::Difference(other, _))
            | (Due::Allocation(one), Due::Allocation(other)) => {
                let id = |place: &usize| wallet.contracts.get(*place).map(|contract| &contract.contract_id);
                id(one).cmp(&id(other))
            }
            (Due::Expiring(one, warning), Due::Expiring(other, other_warning)) => {
                let id = |place: &usize| wallet.contracts.get(*place).map(|contract| &contract.contract_id);
                (id(one), warning.expires_at).cmp(&(id(other), other_warning.expires_at))
            }
            _ => Ordering::Equal,
        }
    }
}

/// When something is due next.
pub fn next_due(wallet: &Wallet, policy: &Policy) -> Option<Timestamp> {
    first_due(wallet, policy).map(|(at, _)| at)
}

/// Posts what is due first, if it is due by `until`. To be called until there is nothing: each call's entries are
/// a record of their own.
///
/// # Errors
/// Our own sums do not close.
pub fn post_due(
    wallet: &mut Wallet,
    until: Timestamp,
    clock: ShardClock,
    posted_at: PostedAt,
    policy: &Policy,
) -> Result<Option<Vec<Entry<'static>>>, Breach> {
    let Some((at, due)) = first_due(wallet, policy).filter(|(at, _)| *at <= until) else {
        return Ok(None);
    };
    let cause = Cause { moment: Moment { event_time: EventTime(at), clock, posted_at }, ..Cause::default() };
    let mut posting = Posting::new(wallet, &cause, policy);
    match due {
        Due::Expiry(place) => posting.expire(place)?,
        Due::ContractEnd(place) => posting.end_contract(place)?,
        Due::Difference(place, plan) => posting.raise(place, plan)?,
        Due::Allocation(place) => {
            let contract = posting.wallet.contracts.get(place);
            if let Some(month) = contract.and_then(|contract| contract.next_allocation(&policy.pricing)) {
                posting.allocate(place, month)?;
            }
        }
        Due::HoldTimeout => posting.time_out_hold()?,
        Due::Runway => posting.warn_of_runway()?,
        Due::Expiring(place, warning) => posting.warn_of_expiry(place, warning)?,
        Due::OverdraftUnpaid => posting.warn_of_overdraft()?,
    }
    Ok(Some(posting.finish()))
}

fn first_due(wallet: &Wallet, policy: &Policy) -> Option<(Timestamp, Due)> {
    let mut first: Option<(Timestamp, Due)> = None;
    let mut consider = |at: Timestamp, due: Due| {
        let is_first = first.is_none_or(|(first_at, first)| {
            let order = (at, due.rank()).cmp(&(first_at, first.rank()));
            order.then_with(|| due.by_id(&first, wallet)) == Ordering::Less
        });
        if is_first {
            first = Some((at, due));
        }
    };
    let mut last_warned_of = None;
    for (place, grant) in wallet.grants.iter().enumerate() {
        let Some(expiry) = grant.expires_at.filter(|_| grant.remaining > 0) else { continue };
        consider(policy.expiry_due(expiry), Due::Expiry(place));
        // The months of a term stand side by side, and are warned of as one.
        let GrantOrigin::Plan { contract, .. } = grant.origin else { continue };
        if last_warned_of.replace((contract, expiry)) == Some((contract, expiry)) {
            continue;
        }
        // Once credits of the next term are there, those of the last one have expired: a contract has never two to be
        // warned of, which would take turns for ever.
        let place = usize::from(contract);
        let contract = wallet.contracts.get(place);
        if let Some((at, warning)) =
            contract.and_then(|contract| contract.next_expiry_warning(expiry, wallet.latest_at))
        {
            consider(at, Due::Expiring(place, warning));
        }
    }
    for (place, contract) in wallet.contracts.iter().enumerate() {
        if !contract.is_ended {
            consider(contract.ends_at, Due::ContractEnd(place));
        }
        if let Some((at, plan)) = contract.next_change(&policy.pricing) {
            consider(at, Due::Difference(place, plan));
        }
        if let Some(at) = contract.next_allocation_at() {
            consider(at, Due::Allocation(place));
        }
    }
    if let Some(hold) = wallet.holds.iter().next() {
        consider(hold.deadline, Due::HoldTimeout);
    }
    if let Some(at) = wallet.runway_due() {
        consider(at, Due::Runway);
    }
    if let Some(at) = wallet.overdraft_due() {
        consider(at, Due::OverdraftUnpaid);
    }
    first
}

impl Wallet {
    /// Whether an allocation or a difference of any contract fell due by its latest time, and is still to be posted.
    pub(super) fn has_credits_due(&self, pricing: &Pricing) -> bool {
        let is_due = |at: Timestamp| at <= self.latest_at;
        self.contracts.iter().any(|contract| {
            contract.next_allocation_at().is_some_and(is_due)
                || contract.next_change(pricing).is_some_and(|(at, _)| is_due(at))
        })
    }
}

impl Posting<'_, '_, '_> {
    fn end_contract(&mut self, place: usize) -> Result<(), Breach> {
        let mut entry = self.blank(EntryType::ContractEnded);
        if let Some(contract) = self.wallet.contracts.get(place) {
            entry.contract_id = contract.contract_id.clone();
            entry.plan = contract.plan_at(contract.ends_at.plus_millis(-1)).into();
        }
        self.post(entry)
    }

    /// Every month that was granted before and is worth more by a plan gets the difference.
    fn raise(&mut self, place: usize, plan: usize) -> Result<(), Breach> {
        let pricing = &self.policy.pricing;
        let contract = self.wallet.contracts.get(place);
        let months: Vec<DueMonth> =
            contract.into_iter().flat_map(|contract| contract.differences(plan, pricing)).collect();
        months.into_iter().try_for_each(|month| self.allocate(place, month))
    }

    fn allocate(&mut self, place: usize, due: DueMonth) -> Result<(), Breach> {
        let mut entry = self.blank(EntryType::Granted);
        let Some(contract) = self.wallet.contracts.get(place) else { return Ok(()) };
        let contract_id = contract.contract_id.to_string();
        entry.contract_id = contract.contract_id.clone();
        entry.plan = contract.plan_at(due.granted_at).into();
        entry.period_start = contract.month_start(due.month).date();
        let expires_at = contract.month_expires_at(due.month);
        let seq = if due.is_difference { format!("+{}", entry.seq) } else { String::new() };
        self.grant(
            entry,
            NewGrant {
                grant_id: format_compact!("plan:{contract_id}:{}{seq}", due.month),
                kind: GrantKind::Plan,
                credits: due.credits,
                granted_at: due.granted_at,
                expires_at: Some(expires_at),
                contract_id: Cow::Owned(contract_id),
                month: Some(due.month),
                is_difference: due.is_difference,
            },
        )
    }

    fn time_out_hold(&mut self) -> Result<(), Breach> {
        let Some(hold) = self.wallet.holds.iter().next().cloned() else { return Ok(()) };
        self.release(&hold.job_id, &hold.asset_id, hold.credits)?;
        self.warn_of_hold(&hold.job_id, &hold.asset_id, hold.credits)
    }
}
