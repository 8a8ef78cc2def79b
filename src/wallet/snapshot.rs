//! The latest state of a wallet as a record of `credits.wallets`: what a restart begins from, and what the
//! sink shows as a row of `wallets` and rows of `grants`.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::{Contract, Grant, GrantKind, Level, Wallet};
use crate::event::IdentityKey;
use crate::rate::UsdCents;
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
    /// Credits of its last top-up.
    #[serde(default)]
    pub last_topup: i64,
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
    /// Plan.
    #[serde(borrow)]
    pub plan: Cow<'a, str>,
    /// First instant.
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
    /// Seq of the last entry that touched it.
    pub seq: u64,
}

impl<'a> WalletSnapshot<'a> {
    /// The snapshot of a wallet, as the shard clock sees its contracts.
    pub fn of(wallet_id: &'a str, wallet: &'a Wallet, clock: ShardClock) -> WalletSnapshot<'a> {
        let contract = wallet.contract_at(clock.0);
        WalletSnapshot {
            v: SNAPSHOT_FORMAT,
            wallet_id: Cow::Borrowed(wallet_id),
            seq: wallet.seq,
            plan: contract.map_or(Cow::Borrowed(""), |contract| Cow::Borrowed(&contract.plan)),
            contract_id: contract.map_or(Cow::Borrowed(""), |contract| Cow::Borrowed(&contract.contract_id)),
            balance: wallet.balance(),
            held: wallet.held,
            available: wallet.available(),
            overdraft: wallet.overdraft,
            plan_credits: wallet.credits_of(GrantKind::Plan),
            topup_credits: wallet.credits_of(GrantKind::Topup),
            adjustment_credits: wallet.credits_of(GrantKind::Adjustment),
            allocation: contract.map_or(0, |contract| contract.allocation),
            level: wallet.level,
            next_allocation_at: wallet.next_allocation_at(),
            term_started_at: contract.map(|contract| contract.starts_at),
            term_ends_at: contract.map(|contract| contract.ends_at),
            first_seen_at: wallet.first_seen_at,
            updated_at: wallet.updated_at,
            last_topup: wallet.last_topup,
            contracts: wallet.contracts.iter().map(ContractState::of).collect(),
            grants: wallet.grants.iter().map(GrantState::of).collect(),
            business_ids: wallet.business_ids.clone(),
        }
    }

    /// The wallet that it is a snapshot of; its rollup buckets begin anew.
    pub fn into_wallet(self) -> Wallet {
        Wallet {
            seq: self.seq,
            first_seen_at: self.first_seen_at,
            updated_at: self.updated_at,
            contracts: self.contracts.into_iter().map(ContractState::into_contract).collect(),
            grants: self.grants.into_iter().map(GrantState::into_grant).collect(),
            overdraft: self.overdraft,
            held: self.held,
            level: self.level,
            last_topup: self.last_topup,
            business_ids: self.business_ids,
            buckets: Default::default(),
        }
    }
}

impl<'a> ContractState<'a> {
    fn of(contract: &'a Contract) -> ContractState<'a> {
        ContractState {
            contract_id: Cow::Borrowed(&contract.contract_id),
            plan: Cow::Borrowed(&contract.plan),
            starts_at: contract.starts_at,
            ends_at: contract.ends_at,
            term_months: contract.term_months,
            allocation: contract.allocation,
            months_granted: contract.months_granted,
        }
    }

    fn into_contract(self) -> Contract {
        Contract {
            contract_id: self.contract_id.into(),
            plan: self.plan.into(),
            starts_at: self.starts_at,
            ends_at: self.ends_at,
            term_months: self.term_months,
            allocation: self.allocation,
            months_granted: self.months_granted,
        }
    }
}

impl<'a> GrantState<'a> {
    fn of(grant: &'a Grant) -> GrantState<'a> {
        GrantState {
            grant_id: Cow::Borrowed(&grant.grant_id),
            kind: grant.kind,
            credits_granted: grant.granted,
            credits_remaining: grant.remaining,
            credits_repaid: grant.repaid,
            priority: grant.priority,
            granted_at: grant.granted_at,
            expires_at: grant.expires_at,
            contract_id: Cow::Borrowed(&grant.contract_id),
            amount_usd: grant.amount_usd,
            seq: grant.seq,
        }
    }

    fn into_grant(self) -> Grant {
        Grant {
            grant_id: self.grant_id.into(),
            kind: self.kind,
            granted: self.credits_granted,
            remaining: self.credits_remaining,
            repaid: self.credits_repaid,
            priority: self.priority,
            granted_at: self.granted_at,
            expires_at: self.expires_at,
            contract_id: self.contract_id.into(),
            amount_usd: self.amount_usd,
            seq: self.seq,
        }
    }
}

fn is_zero(value: &i64) -> bool {
    *value == 0
}

// serde hands over what the field holds.
#[allow(clippy::ptr_arg)]
fn is_empty(value: &Cow<'_, str>) -> bool {
    value.is_empty()
}

fn is_no_amount(value: &UsdCents) -> bool {
    value.0 == 0
}
