//! The latest state of a wallet as a record of `credits.wallets`: what a restart begins from, and what the
//! sink shows as a row of `wallets` and rows of `grants`.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::contract::{Contract, PlanSpan};
use super::entry::{GrantKind, PlanTerms, WalletLimits};
use super::grant::{Grant, GrantOrigin};
use super::hold::Holds;
use super::level::Level;
use super::state::{OwnLimits, Wallet};
use super::warning::{ExpiryWarning, Overdrawn, Pace};
use crate::event::IdentityKey;
use crate::rate::{Pricing, UsdCents};
use crate::time::{ShardClock, Timestamp};

/// Version of the format, `v` of a record.
pub const SNAPSHOT_FORMAT: u32 = 1;

/// The value of a record of `credits.wallets`; its key is the wallet id.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WalletSnapshot<'a> {
    /// Format version.
    pub v: u32,
    /// The wallet, as the key.
    #[serde(borrow)]
    pub wallet_id: Cow<'a, str>,
    /// Seq of the last entry that it covers.
    pub seq: u64,
    /// Plan in force by the shard clock, or empty.
    #[serde(borrow, default)]
    pub plan: Cow<'a, str>,
    /// Contract in force by the shard clock, or empty.
    #[serde(borrow, default)]
    pub contract_id: Cow<'a, str>,
    /// Credits left in grants less overdraft.
    pub balance: i64,
    /// Reserved by running jobs.
    pub held: i64,
    /// Balance less held.
    pub available: i64,
    /// Usage that no grant has paid yet.
    pub overdraft: i64,
    /// Left in grants of plans.
    pub plan_credits: i64,
    /// Left in grants of top-ups.
    pub topup_credits: i64,
    /// Left in grants of adjustments.
    pub adjustment_credits: i64,
    /// Credits of a month of the plan in force.
    pub allocation: i64,
    /// Level.
    pub level: Level,
    /// When the next month is granted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_allocation_at: Option<Timestamp>,
    /// First instant of the term in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub term_started_at: Option<Timestamp>,
    /// First instant after it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub term_ends_at: Option<Timestamp>,
    /// Posted time of the first entry.
    pub first_seen_at: Timestamp,
    /// Posted time of the last entry.
    pub updated_at: Timestamp,
    /// Day on which usage last went into overdraft, since the epoch.
    #[serde(default)]
    pub overdrawn_day: i32,
    /// Latest event or due time of its entries.
    pub latest_at: Timestamp,
    /// Since when it is overdrawn, and whether it was warned of that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overdrawn: Option<Overdrawn>,
    /// How fast it uses credits, and whether it was warned that they end soon; absent: nothing was charged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pace: Option<Pace>,
    /// Credits of its last top-up.
    #[serde(default)]
    pub last_topup: i64,
    /// Its own limits, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<WalletLimits>,
    /// Contracts, by start.
    #[serde(borrow, default, skip_serializing_if = "Vec::is_empty")]
    pub contracts: Vec<ContractState<'a>>,
    /// Grants, in burn-down order.
    #[serde(borrow, default, skip_serializing_if = "Vec::is_empty")]
    pub grants: Vec<GrantState<'a>>,
    /// Hashes of the contract, top-up and adjustment ids that it has used.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub business_ids: Vec<IdentityKey>,
}

/// A contract in a snapshot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ContractState<'a> {
    /// Unique per wallet.
    #[serde(borrow)]
    pub contract_id: Cow<'a, str>,
    /// First instant.
    pub starts_at: Timestamp,
    /// First instant after it.
    pub ends_at: Timestamp,
    /// Months of each term.
    pub terms: Vec<u32>,
    /// Plans, by the instant from which on they are in force.
    #[serde(borrow)]
    pub plans: Vec<PlanTerms<'a>>,
    /// Credits granted for each month so far.
    pub granted: Vec<i64>,
    /// Its plans are not those that it began with.
    #[serde(default, skip_serializing_if = "is_false")]
    pub is_changed: bool,
    /// No renewal is possible any more.
    #[serde(default, skip_serializing_if = "is_false")]
    pub is_cancelled: bool,
    /// Its end was posted.
    #[serde(default, skip_serializing_if = "is_false")]
    pub is_ended: bool,
    /// The last warning of credits of it that expire.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expiry_warned: Option<ExpiryWarning>,
}

/// A grant in a snapshot: a row of `grants`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GrantState<'a> {
    /// `plan:<contract>:<month>`, `topup:<id>` or `adjustment:<id>`.
    #[serde(borrow)]
    pub grant_id: Cow<'a, str>,
    /// Its kind.
    pub kind: GrantKind,
    /// Credits at the start.
    pub credits_granted: i64,
    /// Credits left.
    pub credits_remaining: i64,
    /// Credits of it that went into overdraft.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub credits_repaid: i64,
    /// Lower pays first.
    pub priority: u16,
    /// By the event's time, or when it was due.
    pub granted_at: Timestamp,
    /// Absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// Contract of a plan's grant.
    #[serde(borrow, default, skip_serializing_if = "is_empty")]
    pub contract_id: Cow<'a, str>,
    /// Price of a top-up.
    #[serde(default, skip_serializing_if = "is_no_amount")]
    pub amount_usd: UsdCents,
    /// Month of the contract, from 0, of a plan's grant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub month: Option<u32>,
    /// More for a month that was granted before.
    #[serde(default, skip_serializing_if = "is_false")]
    pub is_difference: bool,
    /// Seq of the entry that made it.
    pub made_seq: u64,
    /// Seq of the entry with which it last repaid overdraft.
    #[serde(default, skip_serializing_if = "is_never")]
    pub repaid_seq: u64,
    /// Seq of the last entry that touched it.
    pub seq: u64,
    /// Day of that entry, since the epoch.
    pub touched_day: i32,
}

impl<'a> WalletSnapshot<'a> {
    /// The snapshot of a wallet, as the shard clock sees its contracts.
    pub fn of(
        wallet_id: &'a str,
        wallet: &'a Wallet,
        clock: ShardClock,
        pricing: &Pricing,
    ) -> WalletSnapshot<'a> {
        let contract = wallet.contract_at(clock.0);
        let term = contract.map(|contract| contract.term_at(clock.0));
        WalletSnapshot {
            v: SNAPSHOT_FORMAT,
            wallet_id: Cow::Borrowed(wallet_id),
            seq: wallet.seq,
            plan: Cow::Borrowed(contract.map_or("", |contract| contract.plan_at(clock.0))),
            contract_id: Cow::Borrowed(contract.map_or("", |contract| &contract.contract_id)),
            balance: wallet.balance(),
            held: wallet.held,
            available: wallet.available(),
            overdraft: wallet.overdraft,
            plan_credits: wallet.credits_of(GrantKind::Plan),
            topup_credits: wallet.credits_of(GrantKind::Topup),
            adjustment_credits: wallet.credits_of(GrantKind::Adjustment),
            allocation: contract.map_or(0, |contract| contract.allocation_at(clock.0, pricing)),
            level: wallet.level,
            next_allocation_at: wallet.next_allocation_at(),
            term_started_at: term.map(|term| term.starts_at),
            term_ends_at: term.map(|term| term.ends_at),
            first_seen_at: wallet.first_seen_at,
            updated_at: wallet.updated_at,
            overdrawn_day: wallet.overdrawn_on,
            latest_at: wallet.latest_at,
            overdrawn: wallet.overdrawn,
            pace: wallet.pace.clone(),
            last_topup: wallet.last_topup,
            limits: Some(wallet.limits.terms()).filter(|limits| *limits != WalletLimits::default()),
            contracts: wallet.contracts.iter().map(ContractState::of).collect(),
            grants: wallet.grant_states().collect(),
            business_ids: wallet.business_ids.clone(),
        }
    }

    /// The wallet that it is a snapshot of, without its holds, which come from the ledger; its rollup buckets begin anew.
    pub fn into_wallet(self) -> Wallet {
        let contracts: SmallVec<[Contract; 1]> =
            self.contracts.into_iter().map(ContractState::into_contract).collect();
        let grants = self.grants.into_iter().map(|grant| grant.into_grant(&contracts)).collect();
        Wallet {
            seq: self.seq,
            first_seen_at: self.first_seen_at,
            updated_at: self.updated_at,
            latest_at: self.latest_at,
            contracts,
            grants,
            holds: Holds::default(),
            overdraft: self.overdraft,
            overdrawn_on: self.overdrawn_day,
            overdrawn: self.overdrawn,
            pace: self.pace,
            held: self.held,
            level: self.level,
            last_topup: self.last_topup,
            limits: self.limits.as_ref().map(OwnLimits::of).unwrap_or_default(),
            business_ids: self.business_ids,
            buckets: Default::default(),
        }
    }
}

impl Wallet {
    /// All grants that it remembers, as they stand in a snapshot.
    pub fn grant_states(&self) -> impl Iterator<Item = GrantState<'_>> {
        self.grants.iter().map(|grant| GrantState::of(self, grant))
    }
}

impl<'a> ContractState<'a> {
    fn of(contract: &'a Contract) -> ContractState<'a> {
        let span = |span: &'a PlanSpan| PlanTerms { from: span.from, plan: Cow::Borrowed(&*span.plan) };
        ContractState {
            contract_id: Cow::Borrowed(&contract.contract_id),
            starts_at: contract.starts_at,
            ends_at: contract.ends_at,
            terms: contract.terms.to_vec(),
            plans: contract.plans.iter().map(span).collect(),
            granted: contract.granted.to_vec(),
            is_changed: contract.is_changed,
            is_cancelled: contract.is_cancelled,
            is_ended: contract.is_ended,
            expiry_warned: contract.expiry_warned,
        }
    }

    fn into_contract(self) -> Contract {
        let span = |span: PlanTerms<'a>| PlanSpan { from: span.from, plan: span.plan.into() };
        Contract {
            contract_id: self.contract_id.into(),
            starts_at: self.starts_at,
            ends_at: self.ends_at,
            terms: self.terms.into(),
            plans: self.plans.into_iter().map(span).collect(),
            granted: self.granted.into(),
            is_changed: self.is_changed,
            is_cancelled: self.is_cancelled,
            is_ended: self.is_ended,
            expiry_warned: self.expiry_warned,
        }
    }
}

impl<'a> GrantState<'a> {
    fn of(wallet: &'a Wallet, grant: &'a Grant) -> GrantState<'a> {
        let (month, is_difference) = match grant.origin {
            GrantOrigin::Plan { month, is_difference, .. } => (Some(month), is_difference),
            _ => (None, false),
        };
        let amount_usd = match grant.origin {
            GrantOrigin::Topup { amount_usd, .. } => amount_usd,
            _ => UsdCents::default(),
        };
        GrantState {
            grant_id: Cow::Owned(wallet.grant_id(grant).into()),
            kind: grant.origin.kind(),
            credits_granted: grant.granted,
            credits_remaining: grant.remaining,
            credits_repaid: grant.repaid,
            priority: grant.priority,
            granted_at: grant.granted_at,
            expires_at: grant.expires_at,
            contract_id: Cow::Borrowed(wallet.contract_id_of(grant)),
            amount_usd,
            month,
            is_difference,
            made_seq: grant.made_at,
            repaid_seq: grant.repaid_at,
            seq: grant.seq,
            touched_day: grant.touched_on,
        }
    }

    fn into_grant(self, contracts: &[Contract]) -> Grant {
        let place = contracts.iter().position(|contract| *contract.contract_id == *self.contract_id);
        let own_id = |kind: &str| self.grant_id.strip_prefix(kind).unwrap_or_default().into();
        let origin = match self.kind {
            GrantKind::Plan => GrantOrigin::Plan {
                contract: place.and_then(|place| u16::try_from(place).ok()).unwrap_or(u16::MAX),
                month: self.month.unwrap_or_default(),
                is_difference: self.is_difference,
            },
            GrantKind::Topup => GrantOrigin::Topup { id: own_id("topup:"), amount_usd: self.amount_usd },
            GrantKind::Adjustment => GrantOrigin::Adjustment { id: own_id("adjustment:") },
        };
        Grant {
            origin,
            granted: self.credits_granted,
            remaining: self.credits_remaining,
            repaid: self.credits_repaid,
            repaid_at: self.repaid_seq,
            priority: self.priority,
            granted_at: self.granted_at,
            expires_at: self.expires_at,
            made_at: self.made_seq,
            seq: self.seq,
            touched_on: self.touched_day,
        }
    }
}

fn is_zero(value: &i64) -> bool {
    *value == 0
}

fn is_false(value: &bool) -> bool {
    !*value
}

fn is_never(seq: &u64) -> bool {
    *seq == 0
}

// serde hands over what the field holds.
#[allow(clippy::ptr_arg)]
fn is_empty(value: &Cow<'_, str>) -> bool {
    value.is_empty()
}

fn is_no_amount(value: &UsdCents) -> bool {
    value.0 == 0
}
