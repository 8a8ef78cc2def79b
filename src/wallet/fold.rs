//! The one place where a wallet changes: an entry is folded into it, and must fit.
//!
//! The same code runs when an entry is made and when it is read back, and each time the sums are drawn up
//! anew from the grants and compared with what the entry says: conservation is checked, never assumed.

use std::cmp::Ordering;

use smallvec::SmallVec;
use thiserror::Error;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::contract::{Contract, PlanSpan};
use super::entry::{
    ContractTerms, Entry, EntryType, GrantEffect, GrantKind, GrantTerms, LedgerRecord, PlanTerms,
};
use super::grant::{Grant, GrantOrigin};
use super::hold::Hold;
use super::state::{Bucket, OwnLimits, Wallet};
use crate::time::Timestamp;

/// Sums that do not close. The shard stops rather than writing on.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("seq {seq} breaks conservation: {what}")]
pub struct Breach {
    /// The entry.
    pub seq: u64,
    /// What was expected and what came.
    pub what: String,
}

/// Why an entry was not folded.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum FoldError {
    /// Its seq is at or below the wallet's last: it is a double, harmless, to be passed over and counted.
    #[error("seq {seq} is a double: the wallet is at {last} already")]
    Double {
        /// Seq of the entry.
        seq: u64,
        /// Seq of the wallet.
        last: u64,
    },
    /// Entries before it are missing: a contradiction.
    #[error("seq {seq} does not follow {last}: entries are missing")]
    Gap {
        /// Seq of the entry.
        seq: u64,
        /// Seq of the wallet.
        last: u64,
    },
    /// It contradicts the wallet.
    #[error(transparent)]
    Breach(#[from] Breach),
}

impl Wallet {
    /// Folds the next entry in; `day` is that of the shard clock when it was posted, since the epoch.
    ///
    /// # Errors
    /// Leaves the wallet untouched on [`FoldError::Double`] and [`FoldError::Gap`]; after a
    /// [`FoldError::Breach`] the wallet must not be used any more.
    pub fn fold(&mut self, entry: &Entry<'_>, day: i32) -> Result<(), FoldError> {
        if entry.seq <= self.seq {
            return Err(FoldError::Double { seq: entry.seq, last: self.seq });
        }
        if entry.seq != self.seq + 1 {
            return Err(FoldError::Gap { seq: entry.seq, last: self.seq });
        }
        let before = Sums { balance: self.balance(), held: self.held };
        self.fold_terms(entry);
        for effect in &entry.grant_effects {
            self.fold_effect(entry, effect, entry.event_time.day().max(day))?;
        }
        self.fold_hold(entry)?;
        if entry.overdraft_after > self.overdraft {
            self.overdrawn_on = self.overdrawn_on.max(entry.event_time.day().max(day));
        }
        self.overdraft = entry.overdraft_after;
        self.level = entry.level;
        if let (Some(totals), Some(asset_type)) = (&entry.bucket, entry.asset_type) {
            self.buckets.store(Bucket::of(totals, asset_type, model_and_plan(&entry.model, &entry.plan)));
        }
        if self.seq == 0 {
            self.first_seen_at = entry.posted_at;
        }
        self.seq = entry.seq;
        let last_day = self.latest_at.day();
        self.latest_at = self.latest_at.max(entry.event_time);
        self.fold_warnings(entry, last_day);
        self.updated_at = entry.posted_at;
        self.check_conservation(entry, before).map_err(FoldError::from)
    }

    /// Folds a record that was read back, and ends it as a unit: the same as when it was posted.
    ///
    /// # Errors
    /// As [`Wallet::fold`]; entries before the fault are folded.
    pub fn fold_record(&mut self, record: &LedgerRecord<'_>, horizon_days: i32) -> Result<(), FoldError> {
        let day = record.clock_day();
        for entry in &record.entries {
            self.fold(entry, day)?;
        }
        self.end_unit(day.saturating_sub(horizon_days));
        Ok(())
    }

    /// Takes from an entry that the wallet already covers what a snapshot does not hold: its holds.
    pub fn fold_hold_of_known(&mut self, entry: &Entry<'_>) {
        match entry.entry_type {
            EntryType::Held => self.holds.insert(hold_of(entry)),
            EntryType::Released => {
                self.holds.release(&entry.job_id, &entry.asset_id, -entry.held_credits);
            }
            _ => {}
        }
    }

    /// Contracts, limits, grants and business ids that the entry brings.
    fn fold_terms(&mut self, entry: &Entry<'_>) {
        if let Some(terms) = &entry.contract {
            self.fold_contract(terms);
        }
        if entry.entry_type == EntryType::ContractEnded {
            let ended =
                self.contracts.iter_mut().find(|contract| *contract.contract_id == *entry.contract_id);
            ended.into_iter().for_each(|contract| contract.is_ended = true);
        }
        if let Some(limits) = &entry.limits {
            self.limits = OwnLimits::of(limits);
        }
        let makes_something = entry.contract.is_some() || entry.grant.is_some();
        if !entry.business_id.is_empty() && !makes_something {
            self.use_business_id(&entry.business_id);
        }
        if let (Some(terms), Some(effect)) = (&entry.grant, entry.grant_effects.first()) {
            self.fold_grant(entry, terms, effect);
        }
    }

    /// A contract as it is from now on. What it granted before never lasts longer than the contract.
    fn fold_contract(&mut self, terms: &ContractTerms<'_>) {
        let known = self.contracts.iter().position(|other| *other.contract_id == *terms.contract_id);
        let mut contract = terms.to_contract();
        if let Some(known) = known.and_then(|place| self.contracts.get_mut(place)) {
            contract.granted = std::mem::take(&mut known.granted);
            contract.is_changed = known.is_changed || contract.plans != known.plans;
            // An end that was posted is posted again only where the contract went on after it.
            contract.is_ended = known.is_ended && contract.ends_at <= known.ends_at;
            contract.expiry_warned = known.expiry_warned;
        }
        let place = known.unwrap_or_else(|| {
            let place = self.contracts.partition_point(|other| other.starts_at < contract.starts_at);
            self.make_room_for_contract(place);
            place
        });
        let ends_at = contract.ends_at;
        match self.contracts.get_mut(place).filter(|_| known.is_some()) {
            Some(known) => *known = contract,
            None => self.contracts.insert(place, contract),
        }
        for grant in &mut self.grants {
            let is_its_own =
                matches!(grant.origin, GrantOrigin::Plan { contract, .. } if usize::from(contract) == place);
            if is_its_own && grant.expires_at.is_some_and(|expiry| expiry > ends_at) {
                grant.expires_at = Some(ends_at);
            }
        }
        let mut grants = std::mem::take(&mut self.grants);
        grants.sort_by(|one, other| self.burn_down_order(one, other));
        self.grants = grants;
    }

    fn fold_grant(&mut self, entry: &Entry<'_>, terms: &GrantTerms<'_>, effect: &GrantEffect) {
        let own_id = |kind: &str| effect.grant_id.strip_prefix(kind).unwrap_or_default().into();
        let origin = match effect.kind {
            GrantKind::Plan => {
                let place =
                    self.contracts.iter().position(|contract| *contract.contract_id == *terms.contract_id);
                let month = terms.month.unwrap_or_default();
                if let Some(contract) = place.and_then(|place| self.contracts.get_mut(place)) {
                    contract.add_granted(month, effect.credits);
                }
                // Without its contract the grant cannot be found by its id, and its first effect is a breach.
                let contract = place.and_then(|place| u16::try_from(place).ok()).unwrap_or(u16::MAX);
                GrantOrigin::Plan { contract, month, is_difference: terms.is_difference }
            }
            GrantKind::Topup => {
                self.last_topup = effect.credits;
                GrantOrigin::Topup { id: own_id("topup:"), amount_usd: entry.amount_usd }
            }
            GrantKind::Adjustment => GrantOrigin::Adjustment { id: own_id("adjustment:") },
        };
        let grant = Grant {
            origin,
            granted: effect.credits,
            remaining: 0,
            repaid: 0,
            repaid_at: 0,
            priority: terms.priority,
            granted_at: terms.granted_at,
            expires_at: effect.expires_at,
            made_at: entry.seq,
            seq: entry.seq,
            touched_on: 0,
        };
        let place =
            self.grants.partition_point(|other| self.burn_down_order(other, &grant) == Ordering::Less);
        self.grants.insert(place, grant);
    }

    fn fold_effect(&mut self, entry: &Entry<'_>, effect: &GrantEffect, day: i32) -> Result<(), Breach> {
        let breach = |what: String| Breach { seq: entry.seq, what };
        let grant = self.grant_place(&effect.grant_id).and_then(|place| self.grants.get_mut(place));
        let grant = grant.ok_or_else(|| breach(format!("grant {} is not there", effect.grant_id)))?;
        let remaining = grant.remaining.checked_add(effect.credits);
        let remaining =
            remaining.filter(|remaining| (0..=grant.granted).contains(remaining)).ok_or_else(|| {
                breach(format!(
                    "grant {} has {} of {}, and {} more",
                    effect.grant_id, grant.remaining, grant.granted, effect.credits
                ))
            })?;
        let repaid = if entry.entry_type == EntryType::OverdraftRepaid {
            grant.repaid.saturating_sub(effect.credits)..=grant.repaid.saturating_sub(effect.credits)
        } else if entry.entry_type == EntryType::Reversed {
            grant.repaid.saturating_sub(effect.credits).max(0)..=grant.repaid
        } else {
            grant.repaid..=grant.repaid
        };
        if remaining != effect.remaining_after || !repaid.contains(&effect.repaid_after) {
            return Err(breach(format!(
                "grant {} has {remaining} left and repaid {repaid:?}, the entry says {} and {}",
                effect.grant_id, effect.remaining_after, effect.repaid_after
            )));
        }
        grant.remaining = remaining;
        grant.repaid = effect.repaid_after;
        grant.seq = entry.seq;
        grant.touched_on = grant.touched_on.max(day);
        if entry.entry_type == EntryType::OverdraftRepaid {
            grant.repaid_at = entry.seq;
        }
        Ok(())
    }

    fn fold_hold(&mut self, entry: &Entry<'_>) -> Result<(), Breach> {
        let is_complete = match entry.entry_type {
            EntryType::Held => {
                self.holds.insert(hold_of(entry));
                entry.held_credits > 0
            }
            EntryType::Released => {
                let left =
                    self.holds.release(&entry.job_id, &entry.asset_id, entry.held_credits.saturating_neg());
                entry.held_credits < 0 && left.is_some()
            }
            _ => entry.held_credits == 0,
        };
        self.held = self.held.saturating_add(entry.held_credits);
        if is_complete {
            return Ok(());
        }
        let what = format!(
            "{} of {} credits of job {} {}: no hold fits",
            entry.entry_type.as_str(),
            entry.held_credits,
            entry.job_id,
            entry.asset_id
        );
        Err(Breach { seq: entry.seq, what })
    }

    fn check_conservation(&self, entry: &Entry<'_>, before: Sums) -> Result<(), Breach> {
        let breach = |what: String| Err(Breach { seq: entry.seq, what });
        let balance = self.balance();
        if balance != entry.balance_after {
            return breach(format!(
                "the grants and overdraft make {balance}, the entry says {}",
                entry.balance_after
            ));
        }
        if before.balance.checked_add(entry.credits) != Some(balance) {
            return breach(format!("{} and {} do not make {balance}", before.balance, entry.credits));
        }
        if self.held != entry.held_after {
            return breach(format!(
                "{} held and {} do not make {}",
                before.held, entry.held_credits, entry.held_after
            ));
        }
        if self.overdraft < 0 || self.held < 0 {
            return breach(format!("overdraft {} and held {} may not be below 0", self.overdraft, self.held));
        }
        Ok(())
    }
}

/// The sums before an entry.
#[derive(Clone, Copy)]
struct Sums {
    balance: i64,
    held: i64,
}

fn hold_of(entry: &Entry<'_>) -> Hold {
    Hold {
        deadline: entry.hold_until.unwrap_or(Timestamp::MAX),
        job_id: entry.job_id.as_ref().into(),
        asset_id: entry.asset_id.as_ref().into(),
        credits: entry.held_credits,
    }
}

impl ContractTerms<'_> {
    /// The contract with these terms, before its first month was granted.
    pub(super) fn to_contract(&self) -> Contract {
        let span = |span: &PlanTerms<'_>| PlanSpan { from: span.from, plan: span.plan.as_ref().into() };
        Contract {
            contract_id: self.contract_id.as_ref().into(),
            starts_at: self.starts_at,
            ends_at: self.ends_at,
            terms: self.terms.as_slice().into(),
            plans: self.plans.iter().map(span).collect(),
            granted: SmallVec::new(),
            is_changed: false,
            is_cancelled: self.is_cancelled,
            is_ended: false,
            expiry_warned: None,
        }
    }
}

/// Names the model and plan of a bucket in memory and in stores.
pub(super) fn model_and_plan(model: &str, plan: &str) -> u64 {
    xxh3_64_with_seed(model.as_bytes(), xxh3_64(plan.as_bytes()))
}
