//! What is known of a wallet, and the questions that it answers. Only [`super::fold`] changes it.

use crate::event::IdentityKey;
use crate::rate::{AssetType, VideoMillis};
use crate::time::{ShardClock, Timestamp};

use super::{BucketTotals, GrantKind, Level};

/// Open rollup buckets kept per wallet. A bucket beyond is dropped, and begins a new part if it is met again.
const OPEN_BUCKETS_MAX: usize = 8;

/// A wallet: the fold of its entries.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Wallet {
    /// Seq of its last entry; 0: it has none.
    pub seq: u64,
    /// Posted time of its first entry.
    pub first_seen_at: Timestamp,
    /// Posted time of its last entry.
    pub updated_at: Timestamp,
    /// Contracts, by start.
    pub contracts: Vec<Contract>,
    /// Grants, in burn-down order.
    pub grants: Vec<Grant>,
    /// Usage that no grant has paid yet.
    pub overdraft: i64,
    /// Reserved by running jobs.
    pub held: i64,
    /// Level after its last entry.
    pub level: Level,
    /// Credits of its last top-up: the base of its level while it has no contract.
    pub last_topup: i64,
    /// Contracts, top-ups and adjustments that it has had, sorted: each id is good once.
    pub business_ids: Vec<IdentityKey>,
    /// Open rollup buckets. No part of snapshots, and none of equality: what is dropped begins a new part.
    pub buckets: Buckets,
}

/// A contract.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contract {
    /// Unique per wallet.
    pub contract_id: Box<str>,
    /// Plan.
    pub plan: Box<str>,
    /// First instant; the anchor of its months.
    pub starts_at: Timestamp,
    /// First instant after the term.
    pub ends_at: Timestamp,
    /// Months of the term.
    pub term_months: u32,
    /// Credits of a month.
    pub allocation: i64,
    /// Months granted so far.
    pub months_granted: u32,
}

/// A lot of credits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// `plan:<contract>:<month>`, `topup:<id>` or `adjustment:<id>`.
    pub grant_id: Box<str>,
    /// Where its credits come from.
    pub kind: GrantKind,
    /// Credits at the start.
    pub granted: i64,
    /// Credits left.
    pub remaining: i64,
    /// How many of them went into overdraft.
    pub repaid: i64,
    /// Lower pays first.
    pub priority: u16,
    /// By the event's time, or when it was due.
    pub granted_at: Timestamp,
    /// `None`: never.
    pub expires_at: Option<Timestamp>,
    /// Contract of a plan's grant, else empty.
    pub contract_id: Box<str>,
    /// Price of a top-up, US cents.
    pub amount_usd: crate::rate::UsdCents,
    /// Seq of the last entry that touched it.
    pub seq: u64,
}

/// A rollup bucket and its running totals.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bucket {
    /// Kind of asset.
    pub asset_type: AssetType,
    /// Hash of model and plan: enough to find it again.
    pub model_and_plan: u64,
    /// Totals so far.
    pub totals: BucketTotals,
}

/// The open buckets of a wallet, the latest used last.
#[derive(Clone, Debug, Default)]
pub struct Buckets(Vec<Bucket>);

impl PartialEq for Buckets {
    fn eq(&self, _: &Buckets) -> bool {
        true
    }
}

impl Buckets {
    /// The open bucket, or a new one that begins at `seq`.
    pub fn open(&self, hour: Timestamp, asset_type: AssetType, model_and_plan: u64, seq: u64) -> Bucket {
        let is_it = |bucket: &&Bucket| {
            bucket.totals.hour == hour
                && bucket.asset_type == asset_type
                && bucket.model_and_plan == model_and_plan
        };
        self.0.iter().find(is_it).copied().unwrap_or(Bucket {
            asset_type,
            model_and_plan,
            totals: BucketTotals {
                hour,
                part: seq,
                jobs: 0,
                images: 0,
                video_seconds: VideoMillis(0),
                credits_charged: 0,
                credits_reversed: 0,
                credits_refused: 0,
            },
        })
    }

    /// Puts a bucket back as the latest used.
    pub fn store(&mut self, bucket: Bucket) {
        self.0.retain(|other| {
            other.totals.hour != bucket.totals.hour
                || other.asset_type != bucket.asset_type
                || other.model_and_plan != bucket.model_and_plan
        });
        if self.0.len() >= OPEN_BUCKETS_MAX {
            self.0.remove(0);
        }
        self.0.push(bucket);
    }
}

impl Grant {
    /// Whether it may pay for what happened then.
    pub fn is_valid_at(&self, event_time: Timestamp) -> bool {
        self.expires_at.is_none_or(|expiry| event_time < expiry)
    }

    /// Burn-down order: priority, then the soonest expiry (never last), then the oldest, then the id.
    pub fn burn_down_key(&self) -> (u16, Timestamp, Timestamp, &str) {
        let expiry = self.expires_at.unwrap_or(Timestamp::from_millis(i64::MAX));
        (self.priority, expiry, self.granted_at, &self.grant_id)
    }
}

impl Contract {
    /// Whether it is in force at that time.
    pub fn covers(&self, at: Timestamp) -> bool {
        self.starts_at <= at && at < self.ends_at
    }

    /// Start of its month `month`, counted from 0.
    pub fn month_start(&self, month: u32) -> Option<Timestamp> {
        self.starts_at.plus_months(month)
    }

    /// Start of the month that a time inside its term falls into.
    pub fn period_start(&self, at: Timestamp) -> Option<Timestamp> {
        // Months are at most 31 days long: this many have passed for sure.
        let days = at.millis().saturating_sub(self.starts_at.millis()) / crate::time::DAY_MS;
        let mut month = u32::try_from(days / 31).ok()?;
        while self.month_start(month + 1).is_some_and(|next| next <= at) {
            month += 1;
        }
        self.month_start(month)
    }

    /// When its next allocation is due; `None` when all are granted.
    pub fn next_allocation_at(&self) -> Option<Timestamp> {
        let is_left = self.months_granted < self.term_months;
        is_left.then(|| self.month_start(self.months_granted)).flatten().filter(|due| *due < self.ends_at)
    }
}

impl Wallet {
    /// Credits left in its grants less its overdraft.
    pub fn balance(&self) -> i64 {
        self.credits_in_grants().saturating_sub(self.overdraft)
    }

    /// Balance less what is held.
    pub fn available(&self) -> i64 {
        self.balance().saturating_sub(self.held)
    }

    /// Credits left in all its grants.
    pub fn credits_in_grants(&self) -> i64 {
        self.grants.iter().map(|grant| grant.remaining).fold(0, i64::saturating_add)
    }

    /// Credits left in its grants of one kind.
    pub fn credits_of(&self, kind: GrantKind) -> i64 {
        self.grants
            .iter()
            .filter(|grant| grant.kind == kind)
            .map(|grant| grant.remaining)
            .fold(0, i64::saturating_add)
    }

    /// Grants that still hold credits.
    pub fn open_grants(&self) -> usize {
        self.grants.iter().filter(|grant| grant.remaining > 0).count()
    }

    /// The contract in force at a time.
    pub fn contract_at(&self, at: Timestamp) -> Option<&Contract> {
        self.contracts.iter().find(|contract| contract.covers(at))
    }

    /// When the next month of any contract is granted.
    pub fn next_allocation_at(&self) -> Option<Timestamp> {
        self.contracts.iter().filter_map(Contract::next_allocation_at).min()
    }

    /// What its level is measured against: its plan's allocation in force, without one its last top-up.
    pub fn level_base(&self, clock: ShardClock) -> i64 {
        self.contract_at(clock.0).map_or(self.last_topup, |contract| contract.allocation)
    }

    /// Whether it has used that business id.
    pub fn has_business_id(&self, key: IdentityKey) -> bool {
        self.business_ids.binary_search(&key).is_ok()
    }
}
