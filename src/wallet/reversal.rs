//! Postings of a job's end that is not its completion: what it held is released, what it was charged is given back.

use std::borrow::Cow;

use compact_str::{CompactString, format_compact};
use std::cmp::Reverse;

use super::entry::{BucketTotals, EntryType, GrantEffect, GrantKind, GrantTerms, UNKNOWN_JOB};
use super::fold::{Breach, model_and_plan};
use super::job::{ChargeMemo, JobHistory, JobMemo};
use super::posting::{Change, Posting};
use crate::event::{JobEnded, JobEnding};

impl<'a> Posting<'_, 'a, '_> {
    /// Ends what the job holds; gives back what it was charged, but for a cancellation. Where there is nothing to do it
    /// is noted, for its completion may be still to come.
    pub fn end_job(&mut self, ended: &JobEnded<'a>, job: &JobHistory) -> Result<(), Breach> {
        self.reason = ended.reason.clone();
        self.whole_job = ended.asset_id.is_empty();
        let is_known = job.is_known() || self.wallet.holds.of_job(&ended.job_id).next().is_some();
        if ended.ending != JobEnding::Refunded {
            self.release_ended(ended)?;
        }
        if ended.ending != JobEnding::Cancelled {
            for (asset_id, charge) in charges_to_reverse(ended, job) {
                self.reverse(charge, &ended.job_id, asset_id)?;
            }
        }
        if !self.is_empty() {
            return Ok(());
        }
        let mut entry = self.blank(EntryType::Noted);
        entry.job_id = ended.job_id.clone();
        entry.asset_id = ended.asset_id.clone();
        entry.whole_job = self.whole_job;
        entry.reason = match ended.ending {
            JobEnding::Refunded if !is_known => Cow::Borrowed(UNKNOWN_JOB),
            _ => ended.reason.clone(),
        };
        self.post(entry)
    }

    fn release_ended(&mut self, ended: &JobEnded<'a>) -> Result<(), Breach> {
        if ended.asset_id.is_empty() {
            return self.release_job(&ended.job_id);
        }
        let held = self.wallet.holds.get(&ended.job_id, &ended.asset_id).map(|hold| hold.credits);
        held.map_or(Ok(()), |credits| self.release(&ended.job_id, &ended.asset_id, credits))
    }

    /// Gives a charge back: to the grants that paid it, with their own expiry; the share that went into overdraft first
    /// against the overdraft open now, then to the grants that repaid overdraft, the latest first. What comes into a
    /// grant whose expiry is over expires at once, the rest repays what is overdrawn.
    pub fn reverse(&mut self, charge: &ChargeMemo<'_>, job_id: &str, asset_id: &str) -> Result<(), Breach> {
        let mut entry = self.blank(EntryType::Reversed);
        let mut changes = Vec::with_capacity(charge.draws.len());
        let mut homeless = 0;
        for (grant_id, credits) in &charge.draws {
            match self.wallet.grant_place(grant_id) {
                Some(place) => changes.push(Change { place, credits: *credits, repaid: 0 }),
                None => homeless += credits,
            }
        }
        let overdrawn = charge.cost - charge.draws.iter().map(|(_, credits)| credits).sum::<i64>();
        let from_overdraft = overdrawn.min(self.wallet.overdraft);
        homeless += self.return_repaid(overdrawn - from_overdraft, &mut changes);

        entry.credits = charge.cost;
        entry.job_id = Cow::Owned(job_id.to_owned());
        entry.asset_id = Cow::Owned(asset_id.to_owned());
        entry.asset_type = charge.asset_type;
        entry.model = Cow::Owned(charge.model.to_string());
        entry.plan = charge.plan.as_ref().into();
        entry.contract_id = charge.contract_id.as_ref().into();
        entry.user_id = Cow::Owned(charge.user_id.to_string());
        entry.project_id = Cow::Owned(charge.project_id.to_string());
        entry.overdraft_after -= from_overdraft;
        entry.grant_effects = self.effects(&changes);
        if homeless > 0 {
            self.house(homeless, &mut entry);
        }
        entry.reason = self.reason.clone();
        entry.whole_job = self.whole_job;
        if let Some(asset_type) = charge.asset_type {
            let model_and_plan = model_and_plan(&entry.model, &entry.plan);
            let hour = self.event_time().hour();
            let before = self.wallet.buckets.open(hour, asset_type, model_and_plan, entry.seq).totals();
            let credits_reversed = before.credits_reversed.saturating_add(charge.cost);
            entry.bucket = Some(BucketTotals { credits_reversed, ..before });
        }
        let came_in: Vec<(CompactString, i64)> =
            entry.grant_effects.iter().map(|effect| (effect.grant_id.clone(), effect.credits)).collect();
        self.post(entry)?;
        for (grant_id, _) in &came_in {
            self.expire_if_over(grant_id)?;
        }
        let places: Vec<(usize, i64)> = came_in
            .into_iter()
            .filter_map(|(grant_id, credits)| Some((self.wallet.grant_place(&grant_id)?, credits)))
            .collect();
        self.repay(places.into_iter())
    }

    /// Gives credits back to the grants that repaid overdraft, the latest first. What no grant can take is left.
    fn return_repaid(&self, credits: i64, changes: &mut Vec<Change>) -> i64 {
        let mut left = credits;
        let grants = self.wallet.grants.iter().enumerate();
        let mut repaying: Vec<_> = grants.filter(|(_, grant)| grant.repaid > 0).collect();
        // Grants that repaid with one entry did so in burn-down order.
        repaying.sort_by_key(|(place, grant)| Reverse((grant.repaid_at, *place)));
        for (place, grant) in repaying {
            let returned = left.min(grant.repaid);
            if returned == 0 {
                break;
            }
            left -= returned;
            match changes.iter_mut().find(|change| change.place == place) {
                Some(change) => {
                    change.credits += returned;
                    change.repaid -= returned;
                }
                None => changes.push(Change { place, credits: returned, repaid: -returned }),
            }
        }
        left
    }

    /// Credits whose grant is forgotten (it was emptied before the horizon) come back as a grant of their own: nothing
    /// that was charged is ever kept.
    fn house(&self, credits: i64, entry: &mut super::Entry<'a>) {
        entry.grant = Some(GrantTerms {
            priority: self.policy.priority(GrantKind::Adjustment),
            granted_at: self.event_time(),
            contract_id: Cow::Borrowed(""),
            month: None,
            is_difference: false,
        });
        let effect = GrantEffect {
            grant_id: format_compact!("adjustment:reversal+{}", entry.seq),
            kind: GrantKind::Adjustment,
            credits,
            remaining_after: credits,
            repaid_after: 0,
            expires_at: None,
        };
        entry.grant_effects.insert(0, effect);
    }

    fn expire_if_over(&mut self, grant_id: &str) -> Result<(), Breach> {
        let Some(place) = self.wallet.grant_place(grant_id) else { return Ok(()) };
        let grant = self.wallet.grants.get(place);
        let due = grant.and_then(|grant| grant.expires_at).map(|expiry| self.policy.expiry_due(expiry));
        if due.is_some_and(|due| due <= self.cause.moment.reached(self.wallet)) {
            self.expire(place)
        } else {
            Ok(())
        }
    }

    /// Takes away what is left of a grant.
    pub fn expire(&mut self, place: usize) -> Result<(), Breach> {
        let Some(grant) = self.wallet.grants.get(place).filter(|grant| grant.remaining > 0) else {
            return Ok(());
        };
        let mut entry = self.blank(EntryType::Expired);
        entry.credits = -grant.remaining;
        entry.grant_effects.push(self.effect(grant, -grant.remaining, 0));
        // At the end of a contract it is not in force any more, but these were its credits.
        if let (Some(contract), Some(expiry)) =
            (self.wallet.contract(self.wallet.contract_id_of(grant)), grant.expires_at)
        {
            entry.plan = contract.plan_at(expiry.plus_millis(-1)).into();
            entry.contract_id = contract.contract_id.clone();
        }
        self.post(entry)
    }
}

/// The charges that the end of a job or of one of its assets gives back, in the order in which they were made.
fn charges_to_reverse<'j>(
    ended: &JobEnded<'_>,
    job: &'j JobHistory,
) -> Vec<(&'j str, &'j ChargeMemo<'static>)> {
    // A charge beyond the horizon stays: its grants are forgotten.
    let charge_of = |memo: &'j JobMemo<'static>| {
        let charge = memo.charge.as_ref()?;
        let is_open = !charge.is_refused && !charge.is_reversed && charge.cost > 0;
        (is_open && charge.day >= job.first_day).then_some((&*memo.asset_id, charge))
    };
    let memos: Vec<&'j JobMemo<'static>> = if ended.asset_id.is_empty() {
        job.job.as_deref().into_iter().chain(&job.assets).collect()
    } else {
        job.asset.as_deref().into_iter().collect()
    };
    let mut charges: Vec<_> = memos.into_iter().filter_map(charge_of).collect();
    charges.sort_by_key(|(_, charge)| charge.seq);
    charges
}
