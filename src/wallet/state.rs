//! What is known of a wallet, and the questions that it answers. Only [`super::fold`] changes it.

use std::cmp::Ordering;

use compact_str::{CompactString, CompactStringExt};
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::contract::Contract;
use super::grant::{Grant, GrantOrigin};
use super::hold::Holds;
use super::warning::{Overdrawn, Pace};
use super::{BucketTotals, GrantKind, Level, WalletLimits};
use crate::event::{IdentityKey, business_key};
use crate::rate::{AssetType, Plan, Pricing, VideoMillis};
use crate::time::{EventTime, HOUR_MS, Timestamp};

/// Open rollup buckets kept per wallet. A bucket beyond is dropped, and begins a new part if it is met again.
const OPEN_BUCKETS_MAX: usize = 8;
/// Grants that repaid overdraft and are kept beyond the horizon for as long as some of it can be given back.
const REPAYING_GRANTS_MAX: usize = 200;
/// Buckets of hours that lie this far before the newest are dropped.
const OPEN_BUCKETS_MS: i64 = 2 * HOUR_MS;

/// A wallet: the fold of its entries. What nearly every wallet has few of lies in it: a batch unpacks and packs a wallet for
/// nearly every event, and each further allocation is one more place that is in no cache.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Wallet {
    /// Seq of its last entry; 0: it has none.
    pub seq: u64,
    /// Posted time of its first entry.
    pub first_seen_at: Timestamp,
    /// Posted time of its last entry.
    pub updated_at: Timestamp,
    /// Latest event or due time of its entries: the time by which its level is reckoned, so that it does not depend on
    /// other wallets.
    pub latest_at: Timestamp,
    /// Contracts, by start.
    pub contracts: SmallVec<[Contract; 1]>,
    /// Grants, in burn-down order.
    pub grants: SmallVec<[Grant; 2]>,
    /// Reservations of running jobs.
    pub holds: Holds,
    /// Usage that no grant has paid yet.
    pub overdraft: i64,
    /// Day on which usage last went into overdraft, since the epoch.
    pub overdrawn_on: i32,
    /// Reserved by running jobs: the sum of `holds`.
    pub held: i64,
    /// Since when it is overdrawn; `None`: it is not.
    pub overdrawn: Option<Overdrawn>,
    /// How fast it uses credits; `None`: nothing was ever charged.
    pub pace: Option<Pace>,
    /// Level after its last entry.
    pub level: Level,
    /// Credits of its last top-up: the base of its level while it has no contract.
    pub last_topup: i64,
    /// Its own limits.
    pub limits: OwnLimits,
    /// Contracts, top-ups and adjustments that it has had and of which nothing else is kept, sorted: each id is good
    /// once.
    pub business_ids: Vec<IdentityKey>,
    /// Open rollup buckets. No part of snapshots, and none of equality: what is dropped begins a new part.
    pub buckets: Buckets,
}

/// A wallet's own limits; what is not set is as its plan or the configuration says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnLimits {
    /// Charges may overdraw up to so many credits; `Some(None)`: without end.
    pub overdraft: Option<Option<i64>>,
    /// Threshold of level `low`, percent.
    pub low_percent: Option<u8>,
    /// Threshold of level `critical`, percent.
    pub critical_percent: Option<u8>,
}

/// A rollup bucket and its running totals.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bucket {
    /// Kind of asset.
    pub asset_type: AssetType,
    /// Hash of model and plan: enough to find it again.
    pub model_and_plan: u64,
    /// Start of the hour.
    pub hour: Timestamp,
    /// Seq at which these totals began.
    pub part: u64,
    /// Jobs first charged.
    pub jobs: u64,
    /// Images charged.
    pub images: u64,
    /// Seconds charged.
    pub video_seconds: VideoMillis,
    /// Credits charged.
    pub credits_charged: i64,
    /// Credits given back.
    pub credits_reversed: i64,
    /// Credits refused.
    pub credits_refused: i64,
}

/// The open buckets of a wallet, the latest used last.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Buckets(SmallVec<[Bucket; 2]>);

impl PartialEq for Buckets {
    fn eq(&self, _: &Buckets) -> bool {
        true
    }
}

impl OwnLimits {
    /// As an entry or a snapshot says them.
    pub fn terms(&self) -> WalletLimits {
        WalletLimits {
            overdraft_limit: self.overdraft.flatten(),
            is_unlimited: self.overdraft == Some(None),
            low_percent: self.low_percent,
            critical_percent: self.critical_percent,
        }
    }

    /// From an entry or a snapshot.
    pub fn of(terms: &WalletLimits) -> OwnLimits {
        let own = terms.overdraft_limit.map(Some);
        OwnLimits {
            overdraft: if terms.is_unlimited { Some(None) } else { own },
            low_percent: terms.low_percent,
            critical_percent: terms.critical_percent,
        }
    }
}

impl Bucket {
    /// A bucket in which the entry `seq` is the first.
    pub fn new(hour: Timestamp, asset_type: AssetType, model_and_plan: u64, seq: u64) -> Bucket {
        Bucket {
            asset_type,
            model_and_plan,
            hour,
            part: seq,
            jobs: 0,
            images: 0,
            video_seconds: VideoMillis(0),
            credits_charged: 0,
            credits_reversed: 0,
            credits_refused: 0,
        }
    }

    /// The bucket that an entry leaves behind.
    pub fn of(totals: &BucketTotals, asset_type: AssetType, model_and_plan: u64) -> Bucket {
        Bucket {
            asset_type,
            model_and_plan,
            hour: totals.hour,
            part: totals.part,
            jobs: totals.jobs,
            images: totals.images,
            video_seconds: totals.video_seconds,
            credits_charged: totals.credits_charged,
            credits_reversed: totals.credits_reversed,
            credits_refused: totals.credits_refused,
        }
    }

    /// Its totals, as an entry says them.
    pub fn totals(&self) -> BucketTotals {
        BucketTotals {
            hour: self.hour,
            part: self.part,
            jobs: self.jobs,
            images: self.images,
            video_seconds: self.video_seconds,
            credits_charged: self.credits_charged,
            credits_reversed: self.credits_reversed,
            credits_refused: self.credits_refused,
        }
    }

    fn is_same(&self, hour: Timestamp, asset_type: AssetType, model_and_plan: u64) -> bool {
        self.hour == hour && self.asset_type == asset_type && self.model_and_plan == model_and_plan
    }
}

impl Buckets {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The open bucket, or a new one that begins at `seq`.
    pub fn open(&self, hour: Timestamp, asset_type: AssetType, model_and_plan: u64, seq: u64) -> Bucket {
        let known = self.0.iter().find(|bucket| bucket.is_same(hour, asset_type, model_and_plan));
        known.copied().unwrap_or_else(|| Bucket::new(hour, asset_type, model_and_plan, seq))
    }

    /// Puts a bucket back as the latest used.
    pub fn store(&mut self, bucket: Bucket) {
        let newest = self.0.iter().map(|other| other.hour).fold(bucket.hour, Timestamp::max);
        self.0.retain(|other| {
            !other.is_same(bucket.hour, bucket.asset_type, bucket.model_and_plan)
                && other.hour > newest.plus_millis(-OPEN_BUCKETS_MS)
        });
        if self.0.len() >= OPEN_BUCKETS_MAX {
            self.0.remove(0);
        }
        self.0.push(bucket);
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
        let of_kind = self.grants.iter().filter(|grant| grant.origin.kind() == kind);
        of_kind.map(|grant| grant.remaining).fold(0, i64::saturating_add)
    }

    /// Grants that still hold credits.
    pub fn open_grants(&self) -> usize {
        self.grants.iter().filter(|grant| grant.remaining > 0).count()
    }

    /// The contract in force at a time.
    pub fn contract_at(&self, at: Timestamp) -> Option<&Contract> {
        self.contracts.iter().find(|contract| contract.covers(at))
    }

    /// A contract by its id.
    pub fn contract(&self, contract_id: &str) -> Option<&Contract> {
        self.contracts.iter().find(|contract| *contract.contract_id == *contract_id)
    }

    /// When the next month of any contract is granted.
    pub fn next_allocation_at(&self) -> Option<Timestamp> {
        self.contracts.iter().filter_map(Contract::next_allocation_at).min()
    }

    /// What its level is measured against: credits of its plan's allocation in force, without a contract those of its last
    /// top-up; and that plan, for its thresholds.
    pub fn level_base(&self, pricing: &Pricing) -> (i64, Option<Plan>) {
        let plan = self.contract_at(self.latest_at).map(|contract| {
            let name = contract.plan_at(self.latest_at);
            pricing.contract_plan(name, EventTime(self.latest_at)).unwrap_or_default()
        });
        (plan.map_or(self.last_topup, |plan| plan.credits_per_month), plan)
    }

    /// Whether it has used a business id, `contract:…`, `topup:…` or `adjustment:…`.
    pub fn has_business_id(&self, name: &str) -> bool {
        let is_contract = name.strip_prefix("contract:").is_some_and(|id| self.contract(id).is_some());
        is_contract
            || self.grant_place(name).is_some()
            || self.business_ids.binary_search(&business_key(name)).is_ok()
    }

    /// How many business ids it has used.
    pub fn business_id_count(&self) -> usize {
        let own_id = |grant: &&Grant| !matches!(grant.origin, GrantOrigin::Plan { .. });
        self.business_ids.len() + self.contracts.len() + self.grants.iter().filter(own_id).count()
    }

    /// The id of one of its grants: `plan:<contract>:<month>`, with `+<seq>` where it is more for a month that was
    /// granted before; `topup:<id>` or `adjustment:<id>`.
    pub fn grant_id(&self, grant: &Grant) -> CompactString {
        // Every charge names its grants, and the machinery of format! showed in its profile.
        match &grant.origin {
            GrantOrigin::Plan { month, is_difference, .. } => {
                let mut number = itoa::Buffer::new();
                let id = ["plan:", self.contract_id_of(grant), ":", number.format(*month)];
                let id = id.concat_compact();
                if *is_difference { id + "+" + number.format(grant.made_at) } else { id }
            }
            GrantOrigin::Topup { id, .. } => ["topup:", id].concat_compact(),
            GrantOrigin::Adjustment { id } => ["adjustment:", id].concat_compact(),
        }
    }

    /// The contract of a plan's grant; empty for others.
    pub fn contract_id_of(&self, grant: &Grant) -> &str {
        match grant.origin {
            GrantOrigin::Plan { contract, .. } => {
                self.contracts.get(usize::from(contract)).map_or("", |contract| &contract.contract_id)
            }
            _ => "",
        }
    }

    /// Place of the grant with that id.
    pub fn grant_place(&self, grant_id: &str) -> Option<usize> {
        let (kind, id) = grant_id.split_once(':')?;
        match kind {
            "plan" => {
                let (contract_id, month) = id.rsplit_once(':')?;
                let (month, seq) =
                    month.split_once('+').map_or((month, None), |(month, seq)| (month, Some(seq)));
                let (wanted, seq) = (month.parse::<u32>().ok()?, seq.and_then(|seq| seq.parse::<u64>().ok()));
                self.grants.iter().position(|grant| match grant.origin {
                    GrantOrigin::Plan { month, is_difference, .. } => {
                        month == wanted
                            && is_difference == seq.is_some()
                            && seq.is_none_or(|seq| seq == grant.made_at)
                            && self.contract_id_of(grant) == contract_id
                    }
                    _ => false,
                })
            }
            "topup" => self.grants.iter().position(
                |grant| matches!(&grant.origin, GrantOrigin::Topup { id: own, .. } if **own == *id),
            ),
            "adjustment" => self.grants.iter().position(
                |grant| matches!(&grant.origin, GrantOrigin::Adjustment { id: own } if **own == *id),
            ),
            _ => None,
        }
    }

    /// Burn-down order: priority, then the soonest expiry (never last), then the oldest, then the id.
    pub fn burn_down_order(&self, one: &Grant, other: &Grant) -> Ordering {
        let key =
            |grant: &Grant| (grant.priority, grant.expires_at.unwrap_or(Timestamp::MAX), grant.granted_at);
        key(one).cmp(&key(other)).then_with(|| self.id_order(one).cmp(&self.id_order(other)))
    }

    /// Grants by their ids: kind, then contract and month, a month's allocation before its differences; or the own id.
    pub fn id_order<'w>(&'w self, grant: &'w Grant) -> (&'static str, &'w str, u32, bool, u64) {
        let kind = grant.origin.kind().as_str();
        match &grant.origin {
            GrantOrigin::Plan { month, is_difference, .. } => {
                (kind, self.contract_id_of(grant), *month, *is_difference, grant.made_at)
            }
            GrantOrigin::Topup { id, .. } | GrantOrigin::Adjustment { id } => (kind, id, 0, false, 0),
        }
    }

    /// Frees grants without credits that no entry since `first_day` touched: nothing can come back to them any more. Their
    /// ids stay used. Contracts stay, for no other may ever overlap them.
    pub(super) fn prune(&mut self, first_day: i32) {
        // What repaid overdraft is given back as long as any charge that made some can be.
        let repaying = self.grants.iter().filter(|grant| grant.repaid > 0).count();
        let keeps_repaying = self.overdrawn_on >= first_day && repaying <= REPAYING_GRANTS_MAX;
        let is_over = |grant: &Grant| {
            grant.remaining == 0 && grant.touched_on < first_day && !(grant.repaid > 0 && keeps_repaying)
        };
        while let Some(place) = self.grants.iter().position(is_over) {
            let grant = self.grants.remove(place);
            let name = self.grant_id(&grant);
            if !name.starts_with("plan:") {
                self.use_business_id(&name);
            }
        }
    }

    /// A contract was put in at a place: those from there on are one further.
    pub(super) fn make_room_for_contract(&mut self, place: usize) {
        for grant in &mut self.grants {
            if let GrantOrigin::Plan { contract, .. } = &mut grant.origin
                && usize::from(*contract) >= place
            {
                *contract = contract.saturating_add(1);
            }
        }
    }

    pub(super) fn use_business_id(&mut self, name: &str) {
        let key = business_key(name);
        if let Err(place) = self.business_ids.binary_search(&key) {
            self.business_ids.insert(place, key);
        }
    }
}
