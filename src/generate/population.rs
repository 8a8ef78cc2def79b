//! Who the wallets are: a function of their number, so that every phase and seed agrees about them.

use super::item::Plan;
use super::options::{GenerateOptions, millionths};

/// Shares of the plans, percent of all wallets, greatest users first.
const SCALE_PERCENT: u64 = 5;
const PERFORMANCE_PERCENT: u64 = 25;
/// One wallet in so many has a plan that does not fit its size: some large ones run dry.
const MISFIT_ONE_IN: u64 = 4;

/// Spreads the bits of a number (splitmix64): one to one, so that different numbers stay different.
pub(super) const fn mix(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// The plan of a wallet. Wallet 1 uses most, and the great ones are mostly on the great plans.
pub(super) const fn plan_of(wallet: u32, wallets: u32) -> Plan {
    let luck = mix(wallet as u64);
    let percentile = if luck.is_multiple_of(MISFIT_ONE_IN) {
        (luck >> 32) % 100
    } else {
        wallet.saturating_sub(1) as u64 * 100 / wallets as u64
    };
    if percentile < SCALE_PERCENT {
        Plan::Scale
    } else if percentile < SCALE_PERCENT + PERFORMANCE_PERCENT {
        Plan::Performance
    } else {
        Plan::Lite
    }
}

/// What happens to a contract after it began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// A greater plan, from the first day on.
    Upgrade(Plan),
    /// A smaller plan, from the second month on.
    Downgrade,
    Renewal,
    Cancellation,
}

/// The fate of a wallet's contract, if it has one: not a matter of the seed either.
pub(super) fn fate_of(options: &GenerateOptions, wallet: u32) -> Option<Fate> {
    let luck = mix(mix(u64::from(wallet)));
    if luck % 1_000_000 >= u64::from(millionths(options.contract_changes_percent)) {
        return None;
    }
    let plan = plan_of(wallet, options.wallets);
    Some(match (luck >> 32) % 4 {
        0 => plan.greater().map_or(Fate::Renewal, Fate::Upgrade),
        1 if plan != Plan::Lite => Fate::Downgrade,
        1 | 2 => Fate::Renewal,
        _ => Fate::Cancellation,
    })
}

/// The plan that a wallet has in the end, in force from its contract's first day on.
pub(super) fn last_plan_of(options: &GenerateOptions, wallet: u32) -> Plan {
    match fate_of(options, wallet) {
        Some(Fate::Upgrade(plan)) => plan,
        _ => plan_of(wallet, options.wallets),
    }
}
