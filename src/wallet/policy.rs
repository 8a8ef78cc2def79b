//! What the configuration decides about money.

use std::sync::Arc;

use super::entry::GrantKind;
use super::level::{Level, LevelRules};
use super::state::Wallet;
use crate::config::Config;
use crate::rate::Pricing;
use crate::time::{EventTime, ShardClock, Timestamp};

/// What deciding needs of the configuration.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Prices, plans, packs.
    pub pricing: Arc<Pricing>,
    /// Days for which events and jobs are remembered.
    pub horizon_days: i32,
    levels: LevelRules,
    priorities: Priorities,
    allowed_lateness_ms: i64,
    pub(super) open_grants_max: usize,
    pub(super) open_holds_max: usize,
    pub(super) business_ids_max: usize,
    /// Hash of everything that decides about money, from each instant on at which a version comes into force.
    hashes: Vec<(Timestamp, String)>,
}

/// Which kind of grant pays first: the lower.
#[derive(Clone, Copy, Debug)]
struct Priorities {
    plan: u16,
    adjustment: u16,
    topup: u16,
}

impl Policy {
    /// From the configuration and the pricing file.
    pub fn new(config: &Config, pricing: Arc<Pricing>) -> Policy {
        let priorities = Priorities {
            plan: config.pricing.plan_priority,
            adjustment: config.pricing.adjustment_priority,
            topup: config.pricing.topup_priority,
        };
        let allowed_lateness_ms = i64::from(config.clock.allowed_lateness_seconds) * 1_000;
        let settings = format!("{priorities:?} {allowed_lateness_ms}");
        let starts = std::iter::once(Timestamp::MIN).chain(pricing.version_starts());
        let hashes = starts.map(|start| (start, pricing.hash_up_to(start, &settings))).collect();
        Policy {
            horizon_days: i32::try_from(config.clock.horizon_days).unwrap_or(i32::MAX),
            levels: LevelRules::new(&config.alerts),
            priorities,
            allowed_lateness_ms,
            open_grants_max: config.limits.open_grants_max,
            open_holds_max: config.limits.open_holds_max,
            business_ids_max: config.limits.business_ids_max,
            pricing,
            hashes,
        }
    }

    /// When what is left of a grant is taken away: late usage of the time before its expiry is still paid from it.
    pub fn expiry_due(&self, expires_at: Timestamp) -> Timestamp {
        expires_at.plus_millis(self.allowed_lateness_ms)
    }

    pub(super) fn priority(&self, kind: GrantKind) -> u16 {
        match kind {
            GrantKind::Plan => self.priorities.plan,
            GrantKind::Topup => self.priorities.topup,
            GrantKind::Adjustment => self.priorities.adjustment,
        }
    }

    /// The level of a wallet as it stands.
    pub(super) fn level(&self, wallet: &Wallet) -> Level {
        let (base, plan) = wallet.level_base(&self.pricing);
        let of_plan = plan.map(|plan| (plan.low_percent, plan.critical_percent)).unwrap_or_default();
        let own = (wallet.limits.low_percent, wallet.limits.critical_percent);
        let rules = self.levels.with_own(own.0.or(of_plan.0), own.1.or(of_plan.1));
        rules.level(wallet.level, wallet.balance(), wallet.available(), base)
    }

    /// How far a charge may overdraw: the wallet's own limit, else its plan's at the event's time; none without either.
    pub(super) fn overdraft_limit(&self, wallet: &Wallet, at: EventTime) -> Option<i64> {
        if let Some(own) = wallet.limits.overdraft {
            return own;
        }
        let contract = wallet.contract_at(at.0)?;
        self.pricing.contract_plan(contract.plan_at(at.0), at)?.overdraft_limit
    }

    /// Hash of everything that decides about money, by the versions in force up to a clock.
    pub fn hash_up_to(&self, clock: ShardClock) -> &str {
        let in_force = self.hashes.iter().rev().find(|(start, _)| *start <= clock.0);
        in_force.map_or("", |(_, hash)| hash)
    }
}
