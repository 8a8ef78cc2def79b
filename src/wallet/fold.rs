//! The one place where a wallet changes: an entry is folded into it, and must fit.
//!
//! The same code runs when an entry is made and when it is read back, and each time the sums are drawn up
//! anew from the grants and compared with what the entry says: conservation is checked, never assumed.

use std::hash::{DefaultHasher, Hash, Hasher};

use thiserror::Error;

use super::{Bucket, Contract, Entry, EntryType, Grant, GrantEffect, GrantKind, Wallet};
use crate::event::business_key;

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
    /// Folds the next entry in.
    ///
    /// # Errors
    /// Leaves the wallet untouched on [`FoldError::Double`] and [`FoldError::Gap`]; after a
    /// [`FoldError::Breach`] the wallet must not be used any more.
    pub fn fold(&mut self, entry: &Entry<'_>) -> Result<(), FoldError> {
        if entry.seq <= self.seq {
            return Err(FoldError::Double { seq: entry.seq, last: self.seq });
        }
        if entry.seq != self.seq + 1 {
            return Err(FoldError::Gap { seq: entry.seq, last: self.seq });
        }
        let balance_before = self.balance();
        self.fold_terms(entry);
        for effect in &entry.grant_effects {
            self.fold_effect(entry, effect)?;
        }
        self.overdraft = entry.overdraft_after;
        self.held = entry.held_after;
        self.level = entry.level;
        if let Some(bucket) = bucket_of(entry) {
            self.buckets.store(bucket);
        }
        if self.seq == 0 {
            self.first_seen_at = entry.posted_at;
        }
        self.seq = entry.seq;
        self.updated_at = entry.posted_at;
        self.check_conservation(entry, balance_before).map_err(FoldError::from)
    }

    /// Contracts, grants and business ids that the entry brings.
    fn fold_terms(&mut self, entry: &Entry<'_>) {
        if !entry.business_id.is_empty() {
            let key = business_key(&entry.business_id);
            if let Err(place) = self.business_ids.binary_search(&key) {
                self.business_ids.insert(place, key);
            }
        }
        if let Some(terms) = &entry.contract {
            let contract = Contract {
                contract_id: terms.contract_id.as_ref().into(),
                plan: terms.plan.as_ref().into(),
                starts_at: terms.starts_at,
                ends_at: terms.ends_at,
                term_months: terms.term_months,
                allocation: terms.allocation,
                months_granted: 0,
            };
            let place = self.contracts.partition_point(|other| other.starts_at < contract.starts_at);
            self.contracts.insert(place, contract);
        }
        let Some(terms) = &entry.grant else { return };
        let Some(effect) = entry.grant_effects.first() else { return };
        if let Some(month) = terms.month {
            let of_contract = |contract: &&mut Contract| *contract.contract_id == *terms.contract_id;
            if let Some(contract) = self.contracts.iter_mut().find(of_contract) {
                contract.months_granted = contract.months_granted.max(month.saturating_add(1));
            }
        }
        if effect.kind == GrantKind::Topup {
            self.last_topup = effect.credits;
        }
        let grant = Grant {
            grant_id: effect.grant_id.as_ref().into(),
            kind: effect.kind,
            granted: effect.credits,
            remaining: 0,
            repaid: 0,
            priority: terms.priority,
            granted_at: terms.granted_at,
            expires_at: effect.expires_at,
            contract_id: terms.contract_id.as_ref().into(),
            amount_usd: entry.amount_usd,
            seq: entry.seq,
        };
        let place = self.grants.partition_point(|other| other.burn_down_key() < grant.burn_down_key());
        self.grants.insert(place, grant);
    }

    fn fold_effect(&mut self, entry: &Entry<'_>, effect: &GrantEffect<'_>) -> Result<(), Breach> {
        let breach = |what: String| Breach { seq: entry.seq, what };
        let grant = self.grants.iter_mut().find(|grant| *grant.grant_id == *effect.grant_id);
        let grant = grant.ok_or_else(|| breach(format!("grant {} is not there", effect.grant_id)))?;
        let remaining = grant.remaining.checked_add(effect.credits);
        let remaining =
            remaining.filter(|remaining| (0..=grant.granted).contains(remaining)).ok_or_else(|| {
                breach(format!(
                    "grant {} has {} of {}, and {} more",
                    effect.grant_id, grant.remaining, grant.granted, effect.credits
                ))
            })?;
        if remaining != effect.remaining_after {
            return Err(breach(format!(
                "grant {} has {remaining} left, the entry says {}",
                effect.grant_id, effect.remaining_after
            )));
        }
        grant.remaining = remaining;
        grant.seq = entry.seq;
        if entry.entry_type == EntryType::OverdraftRepaid {
            grant.repaid = grant.repaid.saturating_sub(effect.credits);
        }
        Ok(())
    }

    fn check_conservation(&self, entry: &Entry<'_>, balance_before: i64) -> Result<(), Breach> {
        let breach = |what: String| Err(Breach { seq: entry.seq, what });
        let balance = self.balance();
        if balance != entry.balance_after {
            return breach(format!(
                "the grants and overdraft make {balance}, the entry says {}",
                entry.balance_after
            ));
        }
        if balance_before.checked_add(entry.credits) != Some(balance) {
            return breach(format!("{balance_before} and {} do not make {balance}", entry.credits));
        }
        if self.overdraft < 0 || self.held < 0 {
            return breach(format!("overdraft {} and held {} may not be below 0", self.overdraft, self.held));
        }
        Ok(())
    }
}

/// Names the model and plan of a bucket, in memory only.
pub(super) fn model_and_plan(model: &str, plan: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    model.hash(&mut hasher);
    plan.hash(&mut hasher);
    hasher.finish()
}

fn bucket_of(entry: &Entry<'_>) -> Option<Bucket> {
    let totals = entry.bucket?;
    Some(Bucket {
        asset_type: entry.asset_type?,
        model_and_plan: model_and_plan(&entry.model, &entry.plan),
        totals,
    })
}
