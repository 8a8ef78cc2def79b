//! The one function that decides: [`apply`].
//!
//! Its order is always the same: what contradicts the wallet's state is refused before anything is posted; then
//! entries are made one by one, each folded into the wallet before the next is computed.

use std::borrow::Cow;

use thiserror::Error;

use super::Wallet;
use super::command::{Cause, Command, JobCharge, JobHistory};
use super::entry::{BucketTotals, ContractTerms, Entry, EntryType, GrantEffect, GrantKind, GrantTerms};
use super::fold::{Breach, FoldError, model_and_plan};
use super::policy::Policy;
use crate::event::{Adjusted, Completed, ContractStarted, Reason, Rejection, TopupPurchased, business_key};
use crate::rate::{Pack, Plan, Quantity, Rate, VideoMillis};
use crate::time::{ShardClock, Timestamp};

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
    check_state(wallet, command, policy).map_err(Refusal::Rejected)?;
    let mut posting = Posting { wallet, cause, policy, entries: Vec::with_capacity(2) };
    match command {
        Command::Charge { usage, cost, rate, rate_card, job } => {
            posting.charge(usage, *cost, *rate, rate_card, *job)?
        }
        Command::StartContract { terms, plan } => posting.start_contract(terms, *plan)?,
        Command::TopUp { purchase, pack } => posting.top_up(purchase, *pack)?,
        Command::Adjust(adjusted) => posting.adjust(adjusted)?,
    }
    Ok(posting.finish())
}

/// What the wallet's state forbids, in the order: business id, contract, job, bounds.
fn check_state(wallet: &Wallet, command: &Command<'_>, policy: &Policy) -> Result<(), Rejection> {
    let business_id = match command {
        Command::Charge { usage, job, .. } => return check_job(usage, *job),
        Command::StartContract { terms, .. } => contract_business_id(&terms.contract_id),
        Command::TopUp { purchase, .. } => grant_id(GrantKind::Topup, &purchase.topup_id),
        Command::Adjust(adjusted) => grant_id(GrantKind::Adjustment, &adjusted.adjustment_id),
    };
    if wallet.has_business_id(business_key(&business_id)) {
        let detail =
            format!("{business_id} was used before under another event id: each id is good once per wallet");
        return Err(Rejection::new(Reason::IdConflict, detail));
    }
    if let Command::StartContract { terms, .. } = command {
        let overlaps =
            |other: &&super::Contract| other.starts_at < terms.ends_at && terms.starts_at < other.ends_at;
        if let Some(other) = wallet.contracts.iter().find(overlaps) {
            let detail = format!(
                "contract {} ({} to {}) would overlap contract {} ({} to {})",
                terms.contract_id,
                terms.starts_at,
                terms.ends_at,
                other.contract_id,
                other.starts_at,
                other.ends_at
            );
            return Err(Rejection::new(Reason::ContractConflict, detail));
        }
    }
    if wallet.business_ids.len() >= policy.business_ids_max {
        let detail = format!(
            "the wallet has used {} contract, top-up and adjustment ids: no more are allowed",
            policy.business_ids_max
        );
        return Err(Rejection::new(Reason::BadValue, detail));
    }
    let is_debit = matches!(command, Command::Adjust(adjusted) if adjusted.credits < 0);
    if !is_debit && wallet.open_grants() >= policy.open_grants_max {
        let detail = format!(
            "the wallet has {} grants with credits left: no more are allowed",
            policy.open_grants_max
        );
        return Err(Rejection::new(Reason::BadValue, detail));
    }
    Ok(())
}

fn check_job(usage: &Completed<'_>, job: JobHistory) -> Result<(), Rejection> {
    let conflict = match (job.job, usage.asset_id.is_empty()) {
        (None, _) => return Ok(()),
        (Some(JobCharge::ByAsset), false) if !job.asset_charged => return Ok(()),
        (Some(JobCharge::ByAsset), false) => {
            format!("asset {} of job {} was charged before", usage.asset_id, usage.job_id)
        }
        (Some(JobCharge::ByAsset), true) => format!("job {} was charged asset by asset before", usage.job_id),
        (Some(JobCharge::Whole), _) => format!("job {} was charged as a whole before", usage.job_id),
    };
    Err(Rejection::new(
        Reason::JobConflict,
        format!("{conflict}, under another event id: a retry must repeat the event's id"),
    ))
}

fn contract_business_id(contract_id: &str) -> String {
    format!("contract:{contract_id}")
}

fn grant_id(kind: GrantKind, id: &str) -> String {
    format!("{}:{id}", kind.as_str())
}

/// Entries in the making. Every entry is folded into the wallet before the next is computed.
struct Posting<'w, 'a, 'p> {
    wallet: &'w mut Wallet,
    cause: &'p Cause<'a>,
    policy: &'p Policy,
    entries: Vec<Entry<'a>>,
}

/// A grant about to be made.
struct NewGrant<'a> {
    grant_id: String,
    kind: GrantKind,
    credits: i64,
    priority: u16,
    granted_at: Timestamp,
    expires_at: Option<Timestamp>,
    contract_id: Cow<'a, str>,
    month: Option<u32>,
}

impl<'a> Posting<'_, 'a, '_> {
    /// Sets the level once everything is posted.
    fn finish(mut self) -> Vec<Entry<'a>> {
        let as_of = ShardClock(self.cause.moment.clock.0.max(self.cause.moment.event_time.0));
        let base = self.wallet.level_base(as_of);
        let level =
            self.policy.levels.level(self.wallet.level, self.wallet.balance(), self.wallet.available(), base);
        self.wallet.level = level;
        for entry in &mut self.entries {
            entry.level = level;
        }
        self.entries
    }

    fn charge(
        &mut self,
        usage: &Completed<'a>,
        cost: i64,
        rate: Rate,
        card: &'a str,
        job: JobHistory,
    ) -> Result<(), Breach> {
        let event_time = self.cause.moment.event_time;
        let (effects, uncovered) = self.draw(cost);
        let overdraft_after = self.wallet.overdraft.saturating_add(uncovered);
        let limit = self.overdraft_limit();
        let is_refused = uncovered > 0 && limit.is_some_and(|limit| overdraft_after > limit);

        let mut entry = self.blank(if is_refused { EntryType::Refused } else { EntryType::Charged });
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
        entry.rate = Some(rate);
        entry.rate_card = Cow::Borrowed(card);
        let hour = event_time.0.hour();
        let kind = usage.quantity.asset_type();
        let open = self.wallet.buckets.open(hour, kind, model_and_plan(&entry.model, &entry.plan), entry.seq);
        if is_refused {
            entry.amount = cost;
            entry.bucket = Some(BucketTotals {
                credits_refused: open.totals.credits_refused.saturating_add(cost),
                ..open.totals
            });
        } else {
            entry.credits = -cost;
            entry.grant_effects = effects;
            entry.overdraft_after = overdraft_after;
            entry.bucket = Some(charged_totals(open.totals, usage.quantity, cost, !job.is_counted));
        }
        self.post(entry)
    }

    fn start_contract(&mut self, terms: &ContractStarted<'a>, plan: Plan) -> Result<(), Breach> {
        let mut entry = self.blank(EntryType::ContractStarted);
        entry.plan = terms.plan.clone();
        entry.contract_id = terms.contract_id.clone();
        entry.reference = terms.reference.clone();
        entry.business_id = Cow::Owned(contract_business_id(&terms.contract_id));
        entry.contract = Some(ContractTerms {
            contract_id: terms.contract_id.clone(),
            plan: terms.plan.clone(),
            starts_at: terms.starts_at,
            ends_at: terms.ends_at,
            term_months: terms.term_months,
            allocation: plan.credits_per_month,
        });
        self.post(entry)?;

        // The months after the first, and the first of a contract that begins later, are due later: the wallet
        // keeps how many it was granted.
        let moment = self.cause.moment;
        if terms.starts_at > moment.event_time.0.max(moment.clock.0) {
            return Ok(());
        }
        let mut entry = self.blank(EntryType::Granted);
        entry.plan = terms.plan.clone();
        entry.contract_id = terms.contract_id.clone();
        entry.period_start = terms.starts_at.date();
        entry.reference = terms.reference.clone();
        self.grant(
            entry,
            NewGrant {
                grant_id: format!("plan:{}:0", terms.contract_id),
                kind: GrantKind::Plan,
                credits: plan.credits_per_month,
                priority: self.policy.plan_priority,
                granted_at: terms.starts_at,
                expires_at: Some(terms.ends_at),
                contract_id: terms.contract_id.clone(),
                month: Some(0),
            },
        )
    }

    fn top_up(&mut self, purchase: &TopupPurchased<'a>, pack: Pack) -> Result<(), Breach> {
        let mut entry = self.blank(EntryType::Granted);
        let grant_id = grant_id(GrantKind::Topup, &purchase.topup_id);
        entry.business_id = Cow::Owned(grant_id.clone());
        entry.amount_usd = pack.amount_usd;
        entry.reference = purchase.reference.clone();
        self.grant(
            entry,
            NewGrant {
                grant_id,
                kind: GrantKind::Topup,
                credits: pack.credits,
                priority: self.policy.topup_priority,
                granted_at: self.cause.moment.event_time.0,
                expires_at: None,
                contract_id: Cow::Borrowed(""),
                month: None,
            },
        )
    }

    fn adjust(&mut self, adjusted: &Adjusted<'a>) -> Result<(), Breach> {
        let mut entry = self.blank(EntryType::Adjusted);
        let grant_id = grant_id(GrantKind::Adjustment, &adjusted.adjustment_id);
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
                grant_id,
                kind: GrantKind::Adjustment,
                credits: adjusted.credits,
                priority: self.policy.adjustment_priority,
                granted_at: self.cause.moment.event_time.0,
                expires_at: adjusted.expires_at,
                contract_id: Cow::Borrowed(""),
                month: None,
            },
        )
    }

    /// Takes credits from the grants that may pay at the event's time, in burn-down order. Returns the effects,
    /// and what they do not cover.
    fn draw(&self, cost: i64) -> (Vec<GrantEffect<'a>>, i64) {
        let event_time = self.cause.moment.event_time.0;
        let mut effects = Vec::with_capacity(1);
        let mut uncovered = cost;
        for grant in &self.wallet.grants {
            if uncovered == 0 {
                break;
            }
            if grant.remaining == 0 || !grant.is_valid_at(event_time) {
                continue;
            }
            let drawn = uncovered.min(grant.remaining);
            uncovered -= drawn;
            effects.push(GrantEffect {
                grant_id: Cow::Owned(grant.grant_id.to_string()),
                kind: grant.kind,
                credits: -drawn,
                remaining_after: grant.remaining - drawn,
                expires_at: grant.expires_at,
            });
        }
        (effects, uncovered)
    }

    /// Makes a grant, and repays the overdraft out of it.
    fn grant(&mut self, mut entry: Entry<'a>, grant: NewGrant<'a>) -> Result<(), Breach> {
        let effect = GrantEffect {
            grant_id: Cow::Owned(grant.grant_id),
            kind: grant.kind,
            credits: grant.credits,
            remaining_after: grant.credits,
            expires_at: grant.expires_at,
        };
        entry.credits = grant.credits;
        entry.grant_effects = vec![effect.clone()];
        entry.grant = Some(GrantTerms {
            priority: grant.priority,
            granted_at: grant.granted_at,
            contract_id: grant.contract_id,
            month: grant.month,
        });
        self.post(entry)?;

        let is_valid = effect.expires_at.is_none_or(|expiry| self.cause.moment.event_time.0 < expiry);
        let repaid = self.wallet.overdraft.min(effect.credits);
        if repaid == 0 || !is_valid {
            return Ok(());
        }
        let mut entry = self.blank(EntryType::OverdraftRepaid);
        entry.amount = repaid;
        entry.overdraft_after = self.wallet.overdraft - repaid;
        entry.grant_effects =
            vec![GrantEffect { credits: -repaid, remaining_after: effect.credits - repaid, ..effect }];
        self.post(entry)
    }

    /// The plan's limit at the event's time; none without a contract.
    fn overdraft_limit(&self) -> Option<i64> {
        let event_time = self.cause.moment.event_time;
        let contract = self.wallet.contract_at(event_time.0)?;
        self.policy.pricing.plan_at(&contract.plan, event_time)?.overdraft_limit
    }

    /// The next entry, with all that every entry of this event has.
    fn blank(&self, entry_type: EntryType) -> Entry<'a> {
        let cause = self.cause;
        let event_time = cause.moment.event_time.0;
        let contract = self.wallet.contract_at(event_time);
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
            grant_effects: Vec::new(),
            balance_after: 0,
            held_after: self.wallet.held,
            overdraft_after: self.wallet.overdraft,
            level: self.wallet.level,
            plan: contract.map_or(Cow::Borrowed(""), |contract| Cow::Owned(contract.plan.to_string())),
            contract_id: contract
                .map_or(Cow::Borrowed(""), |contract| Cow::Owned(contract.contract_id.to_string())),
            period_start: contract
                .and_then(|contract| contract.period_start(event_time))
                .and_then(Timestamp::date),
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
            bucket: None,
        }
    }

    /// Completes an entry's sums from its own effect, and folds it: the fold draws them up from the grants.
    fn post(&mut self, mut entry: Entry<'a>) -> Result<(), Breach> {
        let overflow =
            || Breach { seq: self.wallet.seq + 1, what: "the balance does not fit into 64 bits".to_owned() };
        entry.balance_after = self.wallet.balance().checked_add(entry.credits).ok_or_else(overflow)?;
        match self.wallet.fold(&entry) {
            Ok(()) => self.entries.push(entry),
            Err(FoldError::Breach(breach)) => return Err(breach),
            Err(other) => return Err(Breach { seq: entry.seq, what: other.to_string() }),
        }
        Ok(())
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
