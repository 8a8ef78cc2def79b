//! Entries in the making: what all postings share. Every entry is folded into the wallet before the next is computed.

use std::borrow::Cow;

use compact_str::CompactString;

use super::command::Cause;
use super::contract::Contract;
use super::entry::{
    ContractTerms, Entry, EntryType, GrantEffect, GrantEffects, GrantKind, GrantTerms, PlanTerms,
};
use super::fold::{Breach, FoldError};
use super::grant::Grant;
use super::policy::Policy;
use super::state::Wallet;
use crate::rate::VideoMillis;
use crate::time::Timestamp;

/// The entries of one event or one timer.
pub(super) struct Posting<'w, 'a, 'p> {
    pub wallet: &'w mut Wallet,
    pub cause: &'p Cause<'a>,
    pub policy: &'p Policy,
    /// Why its job ended.
    pub reason: Cow<'a, str>,
    /// It speaks for a whole job.
    pub whole_job: bool,
    entries: Vec<Entry<'a>>,
}

/// A grant about to be made.
pub(super) struct NewGrant<'a> {
    pub grant_id: CompactString,
    pub kind: GrantKind,
    pub credits: i64,
    pub granted_at: Timestamp,
    pub expires_at: Option<Timestamp>,
    pub contract_id: Cow<'a, str>,
    pub month: Option<u32>,
    pub is_difference: bool,
}

/// Credits that a grant gives or gets back.
pub(super) struct Change {
    /// Place of the grant in its wallet.
    pub place: usize,
    /// Signed.
    pub credits: i64,
    /// What becomes of the credits of it that went into overdraft.
    pub repaid: i64,
}

impl<'w, 'a, 'p> Posting<'w, 'a, 'p> {
    pub fn new(wallet: &'w mut Wallet, cause: &'p Cause<'a>, policy: &'p Policy) -> Posting<'w, 'a, 'p> {
        let entries = Vec::with_capacity(1);
        Posting { wallet, cause, policy, reason: Cow::Borrowed(""), whole_job: false, entries }
    }

    /// Whether nothing was posted so far.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// When it happened.
    pub fn event_time(&self) -> Timestamp {
        self.cause.moment.event_time.0
    }

    /// Sets the level once everything is posted, and ends the unit.
    pub fn finish(mut self) -> Vec<Entry<'a>> {
        let clock = self.cause.moment.clock;
        let mut level = self.policy.level(self.wallet);
        // Nobody is exhausted whose credits are due: it is judged again after the last of them. Levels seldom change,
        // and only then the contracts are looked at.
        if level != self.wallet.level && self.wallet.has_credits_due(&self.policy.pricing) {
            level = self.wallet.level;
        }
        self.wallet.level = level;
        for entry in &mut self.entries {
            entry.level = level;
        }
        self.wallet.end_unit(clock.0.day().saturating_sub(self.policy.horizon_days));
        self.entries
    }

    /// Completes an entry's sums from its own effect, and folds it: the fold draws them up from the grants.
    pub fn post(&mut self, mut entry: Entry<'a>) -> Result<(), Breach> {
        let seq = entry.seq;
        let overflow = |what: &str| Breach { seq, what: format!("{what} does not fit into 64 bits") };
        let balance = self.wallet.balance().checked_add(entry.credits);
        entry.balance_after = balance.ok_or_else(|| overflow("the balance"))?;
        let held = self.wallet.held.checked_add(entry.held_credits);
        entry.held_after = held.ok_or_else(|| overflow("what is held"))?;
        match self.wallet.fold(&entry, self.cause.moment.clock.0.day()) {
            Ok(()) => self.entries.push(entry),
            Err(FoldError::Breach(breach)) => return Err(breach),
            Err(other) => return Err(Breach { seq, what: other.to_string() }),
        }
        Ok(())
    }

    /// What was done to a grant, as an entry says it.
    pub fn effect(&self, grant: &Grant, credits: i64, repaid: i64) -> GrantEffect {
        GrantEffect {
            grant_id: self.wallet.grant_id(grant),
            kind: grant.origin.kind(),
            credits,
            remaining_after: grant.remaining.saturating_add(credits),
            repaid_after: grant.repaid.saturating_add(repaid),
            expires_at: grant.expires_at,
        }
    }

    /// What is done to several grants, as an entry says it; each of them stands there once.
    pub fn effects(&self, changes: &[Change]) -> GrantEffects {
        let found = changes.iter().filter_map(|change| {
            let grant = self.wallet.grants.get(change.place)?;
            Some(self.effect(grant, change.credits, change.repaid))
        });
        found.collect()
    }

    /// Takes credits from the grants that may pay at the event's time, in burn-down order. Returns the effects,
    /// and what they do not cover.
    pub fn draw(&self, cost: i64) -> (GrantEffects, i64) {
        let mut effects = GrantEffects::new();
        let mut uncovered = cost;
        for grant in &self.wallet.grants {
            if uncovered == 0 {
                break;
            }
            if grant.remaining == 0 || !grant.is_valid_at(self.event_time()) {
                continue;
            }
            let drawn = uncovered.min(grant.remaining);
            uncovered -= drawn;
            effects.push(self.effect(grant, -drawn, 0));
        }
        (effects, uncovered)
    }

    /// Makes a grant, and repays the overdraft out of it.
    pub fn grant(&mut self, mut entry: Entry<'a>, grant: NewGrant<'a>) -> Result<(), Breach> {
        entry.credits = grant.credits;
        entry.grant = Some(GrantTerms {
            priority: self.policy.priority(grant.kind),
            granted_at: grant.granted_at,
            contract_id: grant.contract_id,
            month: grant.month,
            is_difference: grant.is_difference,
        });
        let effect = GrantEffect {
            grant_id: grant.grant_id,
            kind: grant.kind,
            credits: grant.credits,
            remaining_after: grant.credits,
            repaid_after: 0,
            expires_at: grant.expires_at,
        };
        let grant_id = effect.grant_id.clone();
        entry.grant_effects.push(effect);
        self.post(entry)?;
        let credits = grant.credits;
        self.repay(self.wallet.grant_place(&grant_id).map(|place| (place, credits)).into_iter())
    }

    /// Repays the overdraft out of credits that just came into grants: (place, credits), in order. Only grants that
    /// are valid at the event's time repay.
    pub fn repay(&mut self, came_in: impl Iterator<Item = (usize, i64)>) -> Result<(), Breach> {
        let mut open = self.wallet.overdraft;
        let mut changes = Vec::new();
        for (place, credits) in came_in {
            let Some(grant) = self.wallet.grants.get(place) else { continue };
            let repaid = open.min(credits).min(grant.remaining);
            if repaid > 0 && grant.is_valid_at(self.event_time()) {
                open -= repaid;
                changes.push(Change { place, credits: -repaid, repaid });
            }
        }
        if changes.is_empty() {
            return Ok(());
        }
        let mut entry = self.blank(EntryType::OverdraftRepaid);
        entry.amount = self.wallet.overdraft - open;
        entry.overdraft_after = open;
        entry.grant_effects = self.effects(&changes);
        self.post(entry)
    }

    /// The next entry, with all that every entry of this event has.
    pub fn blank(&self, entry_type: EntryType) -> Entry<'a> {
        let cause = self.cause;
        let event_time = cause.moment.event_time.0;
        let contract = self.wallet.contract_at(event_time);
        let period_start = |contract: &Contract| contract.month_start(contract.month_at(event_time)).date();
        Entry {
            seq: self.wallet.seq + 1,
            entry_type,
            credits: 0,
            held_credits: 0,
            amount: 0,
            posted_at: cause.moment.posted_at.0,
            event_time,
            event_type: Cow::Borrowed(cause.event_type),
            source: Cow::Borrowed(cause.source),
            event_id: Cow::Borrowed(cause.event_id),
            fingerprint: cause.fingerprint,
            job_id: Cow::Borrowed(""),
            asset_id: Cow::Borrowed(""),
            asset_type: None,
            model: Cow::Borrowed(""),
            user_id: Cow::Borrowed(""),
            project_id: Cow::Borrowed(""),
            images: 0,
            video_seconds: VideoMillis(0),
            rate_card: Cow::Borrowed(""),
            rate: None,
            grant_effects: GrantEffects::new(),
            balance_after: 0,
            held_after: 0,
            overdraft_after: self.wallet.overdraft,
            level: self.wallet.level,
            plan: contract.map(|contract| contract.plan_at(event_time).into()).unwrap_or_default(),
            contract_id: contract.map(|contract| contract.contract_id.clone()).unwrap_or_default(),
            period_start: contract.and_then(period_start),
            amount_usd: Default::default(),
            reason: Cow::Borrowed(""),
            actor: Cow::Borrowed(""),
            reference: Cow::Borrowed(""),
            origin_topic: Cow::Borrowed(cause.origin.topic),
            origin_partition: cause.origin.partition,
            origin_offset: cause.origin.offset,
            business_id: Cow::Borrowed(""),
            grant: None,
            contract: None,
            hold_until: None,
            overdraft_limit: None,
            whole_job: false,
            limits: None,
            bucket: None,
            warning: None,
        }
    }
}

impl Contract {
    /// Its terms, as an entry says them; `at` is the event's time.
    pub(super) fn to_terms(&self, at: Timestamp) -> ContractTerms<'static> {
        let owned = |text: &str| Cow::Owned(text.to_owned());
        ContractTerms {
            contract_id: owned(&self.contract_id),
            plan: owned(self.plan_at(at)),
            starts_at: self.starts_at,
            ends_at: self.ends_at,
            terms: self.terms.to_vec(),
            plans: self
                .plans
                .iter()
                .map(|span| PlanTerms { from: span.from, plan: owned(&span.plan) })
                .collect(),
            asked_plan: None,
            is_cancelled: self.is_cancelled,
        }
    }
}
