//! Postings of usage: what a request holds, what a completion settles and charges.

use std::borrow::Cow;

use compact_str::CompactString;

use super::command::PricedUsage;
use super::entry::{BucketTotals, Entry, EntryType};
use super::fold::{Breach, model_and_plan};
use super::job::charge_of;
use super::posting::Posting;
use crate::rate::{Quantity, VideoMillis};

/// A hold ends by itself this long after its event.
pub(super) const HOLD_MS: i64 = 24 * crate::time::HOUR_MS;

impl<'a> Posting<'_, 'a, '_> {
    /// Reserves the estimated cost, unless nothing may be held any more or there is nothing to hold.
    pub fn hold(&mut self, priced: &PricedUsage<'a>) -> Result<(), Breach> {
        let PricedUsage { usage, cost, job, .. } = priced;
        let deadline = self.event_time().plus_millis(HOLD_MS);
        let is_charged = job.whole_charge().is_some() || (usage.asset_id.is_empty() && job.is_by_asset());
        let is_too_late = job.is_over() || is_charged || deadline <= self.cause.moment.clock.0;
        let is_held = self.wallet.holds.get(&usage.job_id, &usage.asset_id).is_some();
        let is_full = self.wallet.holds.len() >= self.policy.open_holds_max;
        if is_too_late || is_held || is_full || *cost == 0 {
            let entry = self.usage_entry(EntryType::Noted, priced);
            return self.post(entry);
        }
        let mut entry = self.usage_entry(EntryType::Held, priced);
        entry.held_credits = *cost;
        entry.hold_until = Some(deadline);
        self.post(entry)
    }

    /// Settles what the job holds, and charges the actual cost: all of it or, past the limit, nothing. A job that
    /// failed before is given back at once.
    pub fn charge(&mut self, priced: &PricedUsage<'a>) -> Result<(), Breach> {
        let PricedUsage { usage, cost, job, .. } = priced;
        self.settle_hold(priced)?;
        let (effects, uncovered) = self.draw(*cost);
        let overdraft_after = self.wallet.overdraft.saturating_add(uncovered);
        let limit = (uncovered > 0)
            .then(|| self.policy.overdraft_limit(self.wallet, self.cause.moment.event_time))
            .flatten();
        let is_refused = limit.is_some_and(|limit| overdraft_after > limit);

        let mut entry =
            self.usage_entry(if is_refused { EntryType::Refused } else { EntryType::Charged }, priced);
        let kind = usage.quantity.asset_type();
        let model_and_plan = model_and_plan(&entry.model, &entry.plan);
        let before =
            self.wallet.buckets.open(self.event_time().hour(), kind, model_and_plan, entry.seq).totals();
        if is_refused {
            entry.amount = *cost;
            entry.overdraft_limit = limit;
            let credits_refused = before.credits_refused.saturating_add(*cost);
            entry.bucket = Some(BucketTotals { credits_refused, ..before });
        } else {
            entry.credits = -cost;
            entry.grant_effects = effects;
            entry.overdraft_after = overdraft_after;
            entry.bucket = Some(charged_totals(before, usage.quantity, *cost, !job.is_counted()));
        }
        if !job.is_void() || is_refused {
            return self.post(entry);
        }
        let charged = entry.clone();
        self.post(entry)?;
        let charge = charge_of(&charged, self.event_time().day());
        self.reverse(&charge, &usage.job_id, &usage.asset_id)
    }

    /// A completion ends its own hold; an asset without one draws from its job's.
    fn settle_hold(&mut self, priced: &PricedUsage<'a>) -> Result<(), Breach> {
        let PricedUsage { usage, cost, .. } = priced;
        if usage.asset_id.is_empty() {
            return self.release_job(&usage.job_id);
        }
        if let Some(hold) = self.wallet.holds.get(&usage.job_id, &usage.asset_id) {
            let credits = hold.credits;
            return self.release(&usage.job_id, &usage.asset_id, credits);
        }
        let of_job = self.wallet.holds.get(&usage.job_id, "").map_or(0, |hold| hold.credits);
        let credits = of_job.min(*cost);
        if credits > 0 { self.release(&usage.job_id, "", credits) } else { Ok(()) }
    }

    /// Ends all holds of a job.
    pub fn release_job(&mut self, job_id: &str) -> Result<(), Breach> {
        let holds: Vec<(CompactString, i64)> =
            self.wallet.holds.of_job(job_id).map(|hold| (hold.asset_id.clone(), hold.credits)).collect();
        for (asset_id, credits) in holds {
            self.release(job_id, &asset_id, credits)?;
        }
        Ok(())
    }

    /// Takes credits off a hold.
    pub fn release(&mut self, job_id: &str, asset_id: &str, credits: i64) -> Result<(), Breach> {
        let mut entry = self.blank(EntryType::Released);
        entry.held_credits = -credits;
        entry.job_id = Cow::Owned(job_id.to_owned());
        entry.asset_id = Cow::Owned(asset_id.to_owned());
        entry.reason = self.reason.clone();
        entry.whole_job = self.whole_job;
        self.post(entry)
    }

    /// An entry that says what was used, and at which price.
    fn usage_entry(&self, entry_type: EntryType, priced: &PricedUsage<'a>) -> Entry<'a> {
        let usage = priced.usage;
        let mut entry = self.blank(entry_type);
        entry.job_id = usage.job_id.clone();
        entry.asset_id = usage.asset_id.clone();
        entry.asset_type = Some(usage.quantity.asset_type());
        entry.model = usage.model.clone();
        entry.user_id = usage.user_id.clone();
        entry.project_id = usage.project_id.clone();
        match usage.quantity {
            Quantity::Images(images) => entry.images = images,
            Quantity::Video(length) => entry.video_seconds = length,
        }
        entry.rate = Some(priced.rate);
        entry.rate_card = Cow::Borrowed(priced.rate_card);
        entry
    }
}

fn charged_totals(
    before: BucketTotals,
    quantity: Quantity,
    cost: i64,
    is_first_of_job: bool,
) -> BucketTotals {
    let (images, video) = match quantity {
        Quantity::Images(images) => (u64::from(images), 0),
        Quantity::Video(VideoMillis(millis)) => (0, millis),
    };
    BucketTotals {
        jobs: before.jobs + u64::from(is_first_of_job),
        images: before.images.saturating_add(images),
        video_seconds: VideoMillis(before.video_seconds.0.saturating_add(video)),
        credits_charged: before.credits_charged.saturating_add(cost),
        ..before
    }
}
