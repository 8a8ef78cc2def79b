//! A wallet on one page, for a person who has a customer on the line.

use super::stored::HOLDS_MAX;
use super::wallet::{Shown, Thresholds};
use crate::cli::output::Table;
use crate::explain::{grant_name, summary};
use crate::text::{counted, thousands};
use crate::time::{DAY_MS, HOUR_MS, Timestamp};
use crate::wallet::{Contract, Entry, GrantState, Level, Term};

/// A hold ends by itself this long after its event.
const HOLD_MS: i64 = 24 * HOUR_MS;
/// Grants that are shown; JSON has all.
const GRANTS_SHOWN: usize = 40;

/// The page.
pub fn page(shown: &Shown<'_>, now: Timestamp) -> String {
    let wallet = shown.snapshot;
    let mut parts =
        vec![format!("Wallet {}\n{}", wallet.wallet_id, facts(shown, now).render("  ")), grants(shown, now)];
    match &shown.clickhouse {
        Some(error) => parts.push(format!(
            "ClickHouse does not answer ({error}):\nopen holds and last entries cannot be shown now."
        )),
        None => parts.extend([holds(shown), entries(shown)]),
    }
    parts.retain(|part| !part.is_empty());
    parts.join("\n\n")
}

fn facts(shown: &Shown<'_>, now: Timestamp) -> Table {
    let wallet = shown.snapshot;
    let mut facts = Table::new(&["", ""]);
    let mut fact = |name: &str, what: String| facts.row(vec![name.to_owned(), what]);
    fact("as of", as_of(shown));
    fact("available", available(shown, now));
    fact("level", level(wallet.level, &shown.thresholds));
    fact("overdraft", overdraft(wallet.overdraft, &shown.thresholds));
    contracts(shown, now).into_iter().for_each(|(name, what)| fact(name, what));
    if let (Some(at), Some(credits)) = (wallet.next_allocation_at, shown.next_allocation_credits) {
        fact("next", format!("{} credits at {at}{}", thousands(credits), distance(now, at)));
    }
    if let Some(limits) = limits(shown) {
        fact("limits", limits);
    }
    fact("first seen", wallet.first_seen_at.to_string());
    facts
}

fn as_of(shown: &Shown<'_>) -> String {
    let wallet = shown.snapshot;
    let newest = shown.entries.as_ref().and_then(|entries| entries.first());
    let behind = newest.map_or(String::new(), |newest| match newest.seq.checked_sub(wallet.seq) {
        Some(0) => String::new(),
        Some(newer) => format!(
            "; ClickHouse has {} newer, after which the balance is {}",
            if newer == 1 { "one entry".to_owned() } else { format!("{} entries", thousands(newer)) },
            thousands(newest.balance_after)
        ),
        None => format!("; ClickHouse has come to entry {}", thousands(newest.seq)),
    });
    format!("{} (entry {}){behind}", wallet.updated_at, thousands(wallet.seq))
}

fn available(shown: &Shown<'_>, now: Timestamp) -> String {
    let wallet = shown.snapshot;
    let is_over = |grant: &&GrantState<'_>| grant.expires_at.is_some_and(|at| at <= now);
    let over: i64 = wallet.grants.iter().filter(is_over).map(|grant| grant.credits_remaining).sum();
    let over = if over == 0 {
        String::new()
    } else {
        format!("; {} of the balance are over, and pay for late usage only", thousands(over))
    };
    let held = if wallet.held == 0 {
        String::new()
    } else {
        format!(": balance {} less {} held", thousands(wallet.balance), thousands(wallet.held))
    };
    format!("{}{held}{over}", counted(wallet.available, "credit"))
}

fn level(level: Level, thresholds: &Thresholds) -> String {
    let Thresholds { base, low_percent, critical_percent, .. } = thresholds;
    let at = |percent: &u8| thousands(i128::from(*base) * i128::from(*percent) / 100);
    if low_percent < critical_percent {
        return format!(
            "{}; critical at {} or less ({critical_percent} % of {}), so never low ({low_percent} %)",
            level.as_str(),
            at(critical_percent),
            thousands(*base)
        );
    }
    format!(
        "{}; low at {} or less ({low_percent} % of {}), critical at {} ({critical_percent} %)",
        level.as_str(),
        at(low_percent),
        thousands(*base),
        at(critical_percent)
    )
}

fn overdraft(overdraft: i64, thresholds: &Thresholds) -> String {
    let limit = match thresholds.overdraft_limit {
        None => "charges are never refused".to_owned(),
        Some(limit) => format!("charges are refused beyond {}", thousands(limit)),
    };
    format!("{}; {limit}", thousands(overdraft))
}

/// What each contract says of itself: the one in force first, then those to come.
fn contracts(shown: &Shown<'_>, now: Timestamp) -> Vec<(&'static str, String)> {
    let mut said = Vec::new();
    if !shown.contracts.iter().any(|(contract, _)| contract.covers(now)) {
        said.push(("plan", "none: no contract is in force".to_owned()));
    }
    said.extend(
        shown.contracts.iter().flat_map(|(contract, allocation)| of_contract(contract, *allocation, now)),
    );
    said
}

fn of_contract(contract: &Contract, allocation: i64, now: Timestamp) -> Vec<(&'static str, String)> {
    let is_to_come = contract.starts_at > now;
    let at = now.max(contract.starts_at);
    let mut said = vec![(
        if is_to_come { "to come" } else { "plan" },
        format!(
            "{}, {} credits a month, by contract {}",
            contract.plan_at(at),
            thousands(allocation),
            contract.contract_id
        ),
    )];
    if is_to_come {
        said.push(("begins", format!("{}{}", contract.starts_at, distance(now, contract.starts_at))));
    }
    let term = contract.term_at(at);
    said.push((
        "term",
        format!(
            "{} to {}, {}{}",
            term.starts_at,
            term.ends_at,
            month(contract, &term, now),
            distance(now, term.ends_at)
        ),
    ));
    // A cancelled contract is not renewed any more: what was booked for after its end never comes.
    let comes = |from| !contract.is_cancelled || from < contract.ends_at;
    let later: Vec<String> = contract
        .plans
        .iter()
        .filter(|span| span.from > now && span.from > contract.starts_at && comes(span.from))
        .map(|span| {
            let condition = if span.from >= contract.ends_at { ", if it is renewed" } else { "" };
            format!("plan {} from {} on{condition}", span.plan, span.from)
        })
        .collect();
    if !later.is_empty() {
        said.push(("booked", later.join(", ")));
    }
    if contract.is_cancelled {
        said.push(("cancelled", format!("it ends at {}", contract.ends_at)));
    } else if contract.ends_at > term.ends_at {
        said.push(("renewed", format!("up to {}", contract.ends_at)));
    }
    said
}

/// `month 2 of 12`; grants are called by the month of the contract, which is another one in a later term.
fn month(contract: &Contract, term: &Term, now: Timestamp) -> String {
    if contract.starts_at > now {
        return counted(term.months, "month");
    }
    let (month, first) = (contract.month_at(now), contract.month_at(term.starts_at));
    let of_contract =
        if first == 0 { String::new() } else { format!(" (month {} of the contract)", month + 1) };
    format!("month {} of {}{of_contract}", month - first + 1, term.months)
}

fn limits(shown: &Shown<'_>) -> Option<String> {
    let limits = shown.snapshot.limits.as_ref()?;
    let mut said = Vec::new();
    if limits.is_unlimited {
        said.push("overdraft without end".to_owned());
    }
    said.extend(limits.overdraft_limit.map(|limit| format!("overdraft up to {} credits", thousands(limit))));
    said.extend(limits.low_percent.map(|percent| format!("low at {percent} %")));
    said.extend(limits.critical_percent.map(|percent| format!("critical at {percent} %")));
    Some(format!("its own: {}", said.join(", ")))
}

fn grants(shown: &Shown<'_>, now: Timestamp) -> String {
    let open: Vec<&GrantState<'_>> =
        shown.snapshot.grants.iter().filter(|grant| grant.credits_remaining > 0).collect();
    if open.is_empty() {
        return "Nothing is left of any grant.".to_owned();
    }
    let mut table = Table::new(&["grant", ">left", ">of", "expires"]);
    for grant in open.iter().take(GRANTS_SHOWN) {
        let expires = match grant.expires_at {
            None => "never".to_owned(),
            Some(at) if at <= now => format!("{at} (over: pays for late usage only)"),
            Some(at) => format!("{at}{}", distance(now, at)),
        };
        table.row(vec![
            grant_name(&grant.grant_id, grant.kind),
            thousands(grant.credits_remaining),
            thousands(grant.credits_granted),
            expires,
        ]);
    }
    let more = open.len().saturating_sub(GRANTS_SHOWN);
    let more = if more == 0 { String::new() } else { format!("\n  … and {} more", thousands(more as u64)) };
    format!("What is left, the first pays first\n{}{more}", table.render("  "))
}

fn holds(shown: &Shown<'_>) -> String {
    let holds = shown.holds.as_deref().unwrap_or_default();
    if holds.is_empty() {
        return "No job holds anything.".to_owned();
    }
    let mut table = Table::new(&["job", "asset", ">credits", "since", "ends by itself"]);
    for hold in holds.iter().take(HOLDS_MAX) {
        table.row(vec![
            hold.job_id.clone(),
            hold.asset_id.clone(),
            thousands(hold.credits),
            hold.since.to_string(),
            hold.since.plus_millis(HOLD_MS).to_string(),
        ]);
    }
    let more = if holds.len() > HOLDS_MAX { "\n  … and more" } else { "" };
    format!("Open holds\n{}{more}", table.render("  "))
}

fn entries(shown: &Shown<'_>) -> String {
    let entries = shown.entries.as_deref().unwrap_or_default();
    let Some(newest) = entries.first() else { return String::new() };
    let mut table = Table::new(&[">entry", "happened", "", ">balance"]);
    for entry in entries {
        table.row(vec![
            thousands(entry.seq),
            entry.event_time.to_string(),
            summary(entry),
            thousands(entry.balance_after),
        ]);
    }
    let faults: String = faults(entries).iter().map(|fault| format!("\n  {fault}")).collect();
    format!(
        "Last entries (creditstream explain {} {} tells more of one)\n{}{faults}",
        shown.snapshot.wallet_id,
        newest.seq,
        table.render("  ")
    )
}

/// Where entries, the latest first, do not follow upon each other.
fn faults(entries: &[Entry<'_>]) -> Vec<String> {
    let fault = |pair: &[Entry<'_>]| {
        let [newer, older] = pair else { return None };
        let missing = newer.seq.saturating_sub(older.seq + 1);
        let what = if missing > 0 {
            let (first, last) = (thousands(older.seq + 1), thousands(newer.seq - 1));
            format!("ClickHouse lacks entries {first} to {last}")
        } else if newer.balance_after != older.balance_after.saturating_add(newer.credits) {
            format!("entry {} does not follow from the one before it", thousands(newer.seq))
        } else {
            return None;
        };
        Some(format!("{what}: creditstream verify says what is wrong"))
    };
    entries.windows(2).filter_map(fault).collect()
}

/// `, in 12 days`; nothing for what is past.
fn distance(now: Timestamp, at: Timestamp) -> String {
    let millis = at.millis().saturating_sub(now.millis());
    match millis / DAY_MS {
        _ if millis <= 0 => String::new(),
        0 => ", within a day".to_owned(),
        1 => ", in 1 day".to_owned(),
        days => format!(", in {} days", thousands(days)),
    }
}
