//! What the configuration decides about money.

use std::sync::Arc;

use super::LevelRules;
use crate::config::Config;
use crate::rate::Pricing;
use crate::time::{ShardClock, Timestamp};

/// What deciding needs of the configuration.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Prices, plans, packs.
    pub pricing: Arc<Pricing>,
    pub(super) levels: LevelRules,
    pub(super) plan_priority: u16,
    pub(super) adjustment_priority: u16,
    pub(super) topup_priority: u16,
    pub(super) open_grants_max: usize,
    pub(super) business_ids_max: usize,
    /// Hash of everything that decides about money, from each instant on at which a version comes into force.
    hashes: Vec<(Timestamp, String)>,
}

impl Policy {
    /// From the configuration and the pricing file.
    pub fn new(config: &Config, pricing: Arc<Pricing>) -> Policy {
        let priorities = &config.pricing;
        let all = [priorities.plan_priority, priorities.adjustment_priority, priorities.topup_priority];
        let starts = std::iter::once(Timestamp::MIN).chain(pricing.version_starts());
        let hashes = starts.map(|start| (start, pricing.hash_up_to(start, all))).collect();
        Policy {
            levels: LevelRules::new(&config.alerts),
            plan_priority: priorities.plan_priority,
            adjustment_priority: priorities.adjustment_priority,
            topup_priority: priorities.topup_priority,
            open_grants_max: config.limits.open_grants_max,
            business_ids_max: config.limits.business_ids_max,
            pricing,
            hashes,
        }
    }

    /// Hash of everything that decides about money, by the versions in force up to a clock.
    pub fn hash_up_to(&self, clock: ShardClock) -> &str {
        let in_force = self.hashes.iter().rev().find(|(start, _)| *start <= clock.0);
        in_force.map_or("", |(_, hash)| hash)
    }
}
