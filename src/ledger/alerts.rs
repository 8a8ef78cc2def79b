//! The alerts of a unit: what the entries of one event, or of one due posting, have to tell somebody.
//!
//! **Invariant:** an alert follows from the ledger and from nothing else: the level before a unit, its entries, and the
//! wallet after it. So it goes out in the transaction of those entries, and can be told from them at any later time.

use std::borrow::Cow;

use crate::alert::{ALERT_FORMAT, Alert, AlertKind};
use crate::rate::Pricing;
use crate::wallet::{Entry, LedgerRecord, Level, Wallet, WarningKind};

/// Alerts of a record, in order. `level_before`: the wallet's level before it; `wallet`: as the record leaves it.
pub fn alerts_of<'r>(
    record: &'r LedgerRecord<'_>,
    level_before: Level,
    wallet: &Wallet,
    pricing: &Pricing,
) -> Vec<Alert<'r>> {
    let Some(last) = record.entries.last() else { return Vec::new() };
    let warnings = record.entries.iter().filter_map(|entry| Some((entry, entry.warning_kind()?)));
    let mut alerts = Vec::new();
    if last.level != level_before {
        let level = alert(record, last, AlertKind::Level, wallet, pricing);
        alerts.push(Alert { level_before: Some(level_before), ..level });
    }
    for (entry, kind) in warnings {
        let alert = alert(record, entry, kind_of(kind), wallet, pricing);
        alerts.push(Alert {
            amount: Some(entry.amount),
            days: entry.warning.map(|warning| warning.days),
            expires_at: entry.warning.map(|warning| warning.expires_at),
            contract_id: entry.warning.map_or("".into(), |_| Cow::Borrowed(&*entry.contract_id)),
            job_id: Cow::Borrowed(&entry.job_id),
            ..alert
        });
    }
    alerts
}

fn alert<'r>(
    record: &'r LedgerRecord<'_>,
    entry: &Entry<'_>,
    kind: AlertKind,
    wallet: &Wallet,
    pricing: &Pricing,
) -> Alert<'r> {
    let named = if kind == AlertKind::Level { entry.level.as_str() } else { kind.as_str() };
    // By the time that the level goes by: the shard clock would make it depend on other wallets.
    let at = wallet.latest_at;
    let contract = wallet.contract_at(at);
    Alert {
        v: ALERT_FORMAT,
        wallet_id: Cow::Borrowed(&record.wallet_id),
        alert_id: format!("{}:{named}:{}", record.wallet_id, entry.seq).into(),
        kind,
        level: entry.level,
        level_before: None,
        seq: entry.seq,
        raised_at: entry.posted_at,
        available: wallet.available(),
        allocation: contract.map_or(0, |contract| contract.allocation_at(at, pricing)),
        plan: contract.map_or("".into(), |contract| contract.plan_at(at).to_owned().into()),
        amount: None,
        days: None,
        expires_at: None,
        contract_id: "".into(),
        job_id: "".into(),
    }
}

fn kind_of(kind: WarningKind) -> AlertKind {
    match kind {
        WarningKind::Runway => AlertKind::Runway,
        WarningKind::Expiring => AlertKind::Expiring,
        WarningKind::OverdraftUnpaid => AlertKind::OverdraftUnpaid,
        WarningKind::HoldTimedOut => AlertKind::HoldTimedOut,
    }
}
