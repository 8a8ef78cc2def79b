//! How full a wallet is.

use serde::{Deserialize, Serialize};

use crate::config::AlertsConfig;

/// Level of a wallet: available credits against its allocation. Ordered from best to worst.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Above the low threshold.
    #[default]
    Ok,
    /// At or below it.
    Low,
    /// At or below the critical threshold.
    Critical,
    /// Nothing available.
    Exhausted,
    /// The balance is below 0.
    Overdrawn,
}

impl Level {
    /// All levels, from best to worst.
    pub const ALL: [Level; 5] = [Level::Ok, Level::Low, Level::Critical, Level::Exhausted, Level::Overdrawn];

    /// The name in entries, tables and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Level::Ok => "ok",
            Level::Low => "low",
            Level::Critical => "critical",
            Level::Exhausted => "exhausted",
            Level::Overdrawn => "overdrawn",
        }
    }
}

/// Thresholds, percent of the base.
#[derive(Clone, Copy, Debug)]
pub struct LevelRules {
    low_percent: i64,
    critical_percent: i64,
    hysteresis_percent: i64,
}

impl LevelRules {
    /// From the `[alerts]` table.
    pub fn new(config: &AlertsConfig) -> LevelRules {
        LevelRules {
            low_percent: i64::from(config.low_percent),
            critical_percent: i64::from(config.critical_percent),
            hysteresis_percent: i64::from(config.hysteresis_percent),
        }
    }

    /// The same with thresholds of a wallet or of its plan.
    pub fn with_own(&self, low_percent: Option<u8>, critical_percent: Option<u8>) -> LevelRules {
        LevelRules {
            low_percent: low_percent.map_or(self.low_percent, i64::from),
            critical_percent: critical_percent.map_or(self.critical_percent, i64::from),
            ..*self
        }
    }

    /// The level after a change. A worse level is entered at its threshold; `low` and `critical` are left only
    /// above it by the hysteresis, `exhausted` and `overdrawn` as soon as anything is available.
    pub fn level(&self, before: Level, balance: i64, available: i64, base: i64) -> Level {
        if balance < 0 || (before == Level::Overdrawn && available <= 0) {
            return Level::Overdrawn;
        }
        if available <= 0 {
            return Level::Exhausted;
        }
        let is_at_most = |percent: i64| i128::from(available) * 100 <= i128::from(percent) * i128::from(base);
        let holds = |level: Level, percent: i64| {
            let stays = before == level && is_at_most(percent.saturating_add(self.hysteresis_percent));
            is_at_most(percent) || stays
        };
        if holds(Level::Critical, self.critical_percent) {
            Level::Critical
        } else if holds(Level::Low, self.low_percent) {
            Level::Low
        } else {
            Level::Ok
        }
    }
}
