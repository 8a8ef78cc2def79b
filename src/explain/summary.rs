//! One sentence for each entry: what happened.

use super::names::{because, credits, grant_name, job_name, quantity, quantity_name};
use crate::text::{printable, thousands};
use crate::time::Timestamp;
use crate::wallet::{ContractTerms, Entry, EntryType, WalletLimits, WarningKind};

/// What an entry did, in one sentence without a full stop.
pub fn summary(entry: &Entry<'_>) -> String {
    match entry.entry_type {
        EntryType::Charged => format!("{} charged{}", credits(-entry.credits), for_usage(entry)),
        EntryType::Refused => {
            let limit =
                entry.overdraft_limit.map_or(String::new(), |limit| format!(" of {}", thousands(limit)));
            format!(
                "{} not charged{}: that would have gone past the overdraft limit{limit}, so nothing was drawn",
                credits(entry.amount),
                for_usage(entry)
            )
        }
        EntryType::Reversed => {
            format!("{} given back for {}{}", credits(entry.credits), job_name(entry), why(entry))
        }
        EntryType::Expired => format!("{} of {} expired", credits(-entry.credits), grants(entry)),
        EntryType::OverdraftRepaid => {
            format!("{} of {} repaid overdraft", credits(entry.amount), grants(entry))
        }
        EntryType::Granted => granted(entry),
        EntryType::Adjusted => adjusted(entry),
        EntryType::Held => format!("{} reserved{}", credits(entry.held_credits), for_usage(entry)),
        EntryType::Released => released(entry),
        EntryType::ContractStarted => started(entry),
        EntryType::ContractChanged if entry.event_type == "contract.cancelled" => cancelled(entry),
        EntryType::ContractChanged => changed(entry),
        EntryType::ContractRenewed => renewed(entry),
        EntryType::ContractEnded => format!("contract {} ended", entry.contract_id),
        EntryType::LimitsChanged => limits(entry),
        EntryType::Noted => noted(entry),
    }
}

/// ` for 8 seconds of video by veo-3, job job_7`.
fn for_usage(entry: &Entry<'_>) -> String {
    let what = quantity(entry).map_or_else(|| "usage".to_owned(), quantity_name);
    let model = if entry.model.is_empty() { String::new() } else { format!(" by {}", entry.model) };
    let job = job_name(entry);
    let job = if job.is_empty() { job } else { format!(", {job}") };
    format!(" for {what}{model}{job}")
}

fn grants(entry: &Entry<'_>) -> String {
    let names: Vec<String> =
        entry.grant_effects.iter().map(|effect| grant_name(&effect.grant_id, effect.kind)).collect();
    if names.is_empty() { "no grant".to_owned() } else { names.join(" and ") }
}

fn granted(entry: &Entry<'_>) -> String {
    if entry.amount_usd.0 != 0 {
        return format!(
            "{} bought: {} for {} US dollars",
            credits(entry.credits),
            grants(entry),
            entry.amount_usd
        );
    }
    let plan = if entry.plan.is_empty() { String::new() } else { format!(", plan {}", entry.plan) };
    format!("{} granted: {}{plan}", credits(entry.credits), grants(entry))
}

fn adjusted(entry: &Entry<'_>) -> String {
    let by = if entry.actor.is_empty() { String::new() } else { format!(" by {}", printable(&entry.actor)) };
    let done = if entry.credits < 0 { "taken away" } else { "granted" };
    let number = entry.credits.checked_abs().unwrap_or(i64::MAX);
    format!("{} {done}{by}{}", credits(number), because(&entry.reason))
}

fn released(entry: &Entry<'_>) -> String {
    format!("{} no longer reserved for {}{}", credits(-entry.held_credits), job_name(entry), why(entry))
}

/// Why a job's reservation or charge came to its end.
fn why(entry: &Entry<'_>) -> String {
    let why = match &*entry.event_type {
        "generation.completed" if entry.entry_type == EntryType::Reversed => {
            "it had been reported as failed, rejected or refunded before"
        }
        "generation.completed" => "it was completed",
        "generation.failed" => "it failed",
        "generation.rejected" => "it was rejected",
        "generation.cancelled" => "it was cancelled",
        "generation.refunded" => "it was refunded",
        "" => "nothing was heard of it for 24 hours",
        other => other,
    };
    let own =
        if entry.reason.is_empty() { String::new() } else { format!(" ({})", printable(&entry.reason)) };
    format!(", {why}{own}")
}

fn started(entry: &Entry<'_>) -> String {
    let is_ahead = match &entry.contract {
        Some(terms) => terms.starts_at > entry.event_time,
        // Before it begins its month is the first one, which then lies ahead.
        None => entry.period_start > entry.event_time.date(),
    };
    let verb = if is_ahead { "was booked" } else { "began" };
    format!("contract {} {verb}, plan {}{}", entry.contract_id, entry.plan, runs(entry))
}

/// The plan that was asked for; ClickHouse alone does not know which one that was.
fn changed(entry: &Entry<'_>) -> String {
    let Some(terms) = &entry.contract else {
        return format!("contract {} changed, plan {} in force then", entry.contract_id, entry.plan);
    };
    let Some(asked) = &terms.asked_plan else {
        return format!("contract {} changed, plan {}{}", entry.contract_id, terms.plan, runs(entry));
    };
    let condition = match (asked.from >= terms.ends_at, terms.is_cancelled) {
        (false, _) => "",
        (true, false) => ", if it is renewed",
        (true, true) => ", which never comes, as it was cancelled",
    };
    let is_ahead = asked.from > entry.event_time && asked.from > terms.starts_at;
    let now = if is_ahead { format!("; now plan {}", terms.plan) } else { String::new() };
    format!(
        "contract {} changed to plan {} from {} on{condition}{now}{}",
        entry.contract_id,
        asked.plan,
        asked.from,
        runs(entry)
    )
}

fn cancelled(entry: &Entry<'_>) -> String {
    let plan = if entry.plan.is_empty() { String::new() } else { format!(", plan {}", entry.plan) };
    let ends =
        entry.contract.as_ref().map_or(String::new(), |terms| format!("; it ends at {}", terms.ends_at));
    format!("contract {} was cancelled{plan}{ends}", entry.contract_id)
}

fn renewed(entry: &Entry<'_>) -> String {
    let Some(terms) = &entry.contract else { return format!("contract {} was renewed", entry.contract_id) };
    let earlier = terms.terms.iter().rev().skip(1);
    let months_before = earlier.fold(0_u32, |sum, months| sum.saturating_add(*months));
    let seam = terms.starts_at.plus_months(months_before).unwrap_or(terms.ends_at);
    format!(
        "contract {} was renewed, plan {} from {seam} to {}",
        entry.contract_id,
        plan_at(terms, seam),
        terms.ends_at
    )
}

/// The plan in force at a time; before the start the first one.
fn plan_at<'t>(terms: &'t ContractTerms<'_>, at: Timestamp) -> &'t str {
    let span = terms.plans.iter().rev().find(|span| span.from <= at).or(terms.plans.first());
    span.map_or("", |span| &*span.plan)
}

/// `, plan scale from … on; it runs from … to …`, as far as it is known.
fn runs(entry: &Entry<'_>) -> String {
    let Some(terms) = &entry.contract else { return String::new() };
    let ContractTerms { starts_at, ends_at, plans, asked_plan, is_cancelled, .. } = &**terms;
    // A cancelled contract is not renewed any more: what was booked for after its end never comes.
    let comes = |from| !is_cancelled || from < *ends_at;
    let is_said = |from| asked_plan.as_ref().is_some_and(|asked| asked.from == from);
    let later: Vec<String> = plans
        .iter()
        .filter(|span| span.from > entry.event_time && span.from > *starts_at)
        .filter(|span| comes(span.from) && !is_said(span.from))
        .map(|span| format!(", plan {} from {} on", span.plan, span.from))
        .collect();
    format!("{}; it runs from {starts_at} to {ends_at}", later.concat())
}

fn limits(entry: &Entry<'_>) -> String {
    match &entry.limits {
        None => "the wallet's own limits were changed".to_owned(),
        Some(limits) => format!("the wallet's limits are now: {}", limits_name(limits)),
    }
}

/// `overdraft up to 500 credits, low at 30 %, critical as configured`.
fn limits_name(limits: &WalletLimits) -> String {
    let overdraft = match (limits.is_unlimited, limits.overdraft_limit) {
        (true, _) => "overdraft without end".to_owned(),
        (false, Some(limit)) => format!("overdraft up to {}", credits(limit)),
        (false, None) => "overdraft as the plan says".to_owned(),
    };
    let percent = |name: &str, percent: Option<u8>| match percent {
        Some(percent) => format!("{name} at {percent} %"),
        None => format!("{name} as configured"),
    };
    let low = percent("low", limits.low_percent);
    let critical = percent("critical", limits.critical_percent);
    format!("{overdraft}, {low}, {critical}")
}

fn warned(entry: &Entry<'_>, kind: WarningKind) -> String {
    let amount = credits(entry.amount);
    match kind {
        WarningKind::Runway => {
            format!("warned that {amount} available last for less than 3 days at the pace of the last 7")
        }
        WarningKind::Expiring => {
            let at = entry.warning.map_or(String::new(), |warning| format!(" at {}", warning.expires_at));
            format!("warned that {amount} of contract {} expire{at}", entry.contract_id)
        }
        WarningKind::OverdraftUnpaid => {
            format!("warned that an overdraft of {amount} is not paid after 7 days")
        }
        WarningKind::HoldTimedOut => {
            format!(
                "warned that {amount} were reserved and neither used nor released in time, {}",
                job_name(entry)
            )
        }
    }
}

fn noted(entry: &Entry<'_>) -> String {
    if let Some(kind) = entry.warning_kind() {
        return warned(entry, kind);
    }
    let job = job_name(entry);
    let own = because(&entry.reason);
    match &*entry.event_type {
        "generation.requested" => format!(
            "nothing reserved{}: the job was over, charged or reserved for already, it was asked for 24 hours before or longer, the wallet had no room for more, or it costs nothing",
            for_usage(entry)
        ),
        "generation.failed" | "generation.rejected" => format!(
            "noted that {job} came to nothing{own}; there was nothing to give back, and a charge that still comes will be"
        ),
        "generation.cancelled" => format!("noted that {job} was cancelled{own}; nothing was reserved for it"),
        "generation.refunded" if entry.is_unknown_refund() => format!(
            "noted the refund of {job}, which nobody has heard of; a charge that still comes will be given back"
        ),
        "generation.refunded" => {
            format!(
                "noted the refund of {job}{own}; there was nothing, or nothing more, to give back, and a charge that still comes will be"
            )
        }
        "" => format!("noted{own}"),
        other => format!("{other} noted{own}; nothing else changed"),
    }
}
