//! The rest of the explanation: event, price, grants, sums, places.

use serde::Serialize;

use super::names::{because, before, credits, grant_name, in_grants, job_name, length_name, quantity};
use crate::rate::{Quantity, Rate, VideoMillis};
use crate::text::{counted, printable, thousands};
use crate::wallet::{Entry, EntryType, GrantEffect};

/// A sentence, and what it is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Detail {
    /// `cost`, `grant`, `balance` and so on.
    pub about: &'static str,
    /// The sentence, without a full stop.
    pub sentence: String,
}

/// Everything that an entry says beside its summary, in the order in which people ask.
pub fn details(entry: &Entry<'_>) -> Vec<Detail> {
    let mut told = Vec::new();
    let mut tell = |about, sentence: Option<String>| {
        told.extend(sentence.map(|sentence| Detail { about, sentence }));
    };
    tell("event", Some(event(entry)));
    tell("usage", usage(entry));
    tell("cost", cost(entry));
    for effect in &entry.grant_effects {
        tell("grant", Some(grant(entry.entry_type, effect)));
    }
    tell("overdraft", overdraft(entry));
    tell("balance", Some(balance(entry)));
    tell("held", held(entry));
    tell("level", Some(format!("{} once the whole event was posted", entry.level.as_str())));
    tell("plan", plan(entry));
    tell("by hand", by_hand(entry));
    tell("posted", Some(format!("at {}", entry.posted_at)));
    tell("came from", origin(entry));
    told
}

fn event(entry: &Entry<'_>) -> String {
    if entry.event_id.is_empty() && entry.grant.as_ref().is_some_and(|terms| terms.is_difference) {
        return format!(
            "none: a change of the contract's plan caused it, in force from {} on",
            entry.event_time
        );
    }
    if entry.event_id.is_empty() {
        return format!("none: time alone caused it, it was due at {}", entry.event_time);
    }
    format!("{} {} from {}, of {}", entry.event_type, entry.event_id, entry.source, entry.event_time)
}

fn usage(entry: &Entry<'_>) -> Option<String> {
    let mut said = vec![job_name(entry)];
    for (name, value) in [("model", &entry.model), ("user", &entry.user_id), ("project", &entry.project_id)] {
        if !value.is_empty() {
            said.push(format!("{name} {value}"));
        }
    }
    said.retain(|part| !part.is_empty());
    (!said.is_empty()).then(|| said.join(", "))
}

/// `8.334 seconds × 3 = 25.002, rounded up to 26 credits, by rate card 2024-01`.
fn cost(entry: &Entry<'_>) -> Option<String> {
    let (quantity, rate) = (quantity(entry)?, entry.rate?);
    let charged = match entry.entry_type {
        EntryType::Charged => -entry.credits,
        EntryType::Refused => entry.amount,
        EntryType::Held => entry.held_credits,
        _ => quantity.cost(rate).ok()?,
    };
    let amount = match quantity {
        Quantity::Images(images) => counted(images, "image"),
        Quantity::Video(length) => length_name(length),
    };
    let exact = exact_product(quantity, rate);
    let result = if exact == charged.to_string() {
        credits(charged)
    } else {
        format!("{exact}, rounded up to {}", credits(charged))
    };
    Some(format!("{amount} × {rate} = {result}, by rate card {}", entry.rate_card))
}

/// Quantity × rate without rounding: thousandths × millionths, as a decimal without trailing zeros.
fn exact_product(quantity: Quantity, rate: Rate) -> String {
    const BILLIONTHS: u128 = 1_000_000_000;
    let thousandths = match quantity {
        Quantity::Images(images) => u128::from(images) * 1_000,
        Quantity::Video(VideoMillis(millis)) => u128::from(millis),
    };
    let product = thousandths * u128::from(rate.0);
    let (whole, fraction) = (product / BILLIONTHS, product % BILLIONTHS);
    if fraction == 0 {
        return whole.to_string();
    }
    format!("{whole}.{}", format!("{fraction:09}").trim_end_matches('0'))
}

fn grant(entry_type: EntryType, effect: &GrantEffect) -> String {
    let number = credits(effect.credits.checked_abs().unwrap_or(i64::MAX));
    let verb = match (entry_type, effect.credits < 0) {
        (EntryType::Expired, _) => "expired of",
        (EntryType::OverdraftRepaid, _) => "for the overdraft out of",
        (EntryType::Reversed, false) => "back into",
        (_, true) => "out of",
        (_, false) => "into",
    };
    let expiry = effect.expires_at.map_or("never expires".to_owned(), |at| format!("valid until {at}"));
    format!(
        "{number} {verb} {}, {} left; {expiry}",
        grant_name(&effect.grant_id, effect.kind),
        thousands(effect.remaining_after)
    )
}

fn overdraft(entry: &Entry<'_>) -> Option<String> {
    let change = in_grants(entry) - entry.credits;
    let now = thousands(entry.overdraft_after);
    if let Some(limit) = entry.overdraft_limit {
        return Some(format!("{now}, as before; charges are refused beyond {}", thousands(limit)));
    }
    match change {
        0 if entry.overdraft_after == 0 => None,
        0 => Some(format!("{now}, as before")),
        1.. => Some(format!("{} not covered by any grant: {now} in all", credits(change))),
        _ => Some(format!("less by {}: {now} left", credits(-change))),
    }
}

fn balance(entry: &Entry<'_>) -> String {
    let was = before(entry);
    if entry.credits == 0 {
        return format!("{}, as before", thousands(entry.balance_after));
    }
    format!("{} before, {} after", thousands(was.balance), thousands(entry.balance_after))
}

fn held(entry: &Entry<'_>) -> Option<String> {
    if entry.held_credits == 0 {
        let has_any = entry.held_after != 0;
        return has_any.then(|| format!("{} by running jobs, as before", thousands(entry.held_after)));
    }
    let until = entry.hold_until.map_or(String::new(), |at| format!("; by itself it ends at {at}"));
    Some(format!(
        "{} by running jobs before, {} after{until}",
        thousands(before(entry).held),
        thousands(entry.held_after)
    ))
}

fn plan(entry: &Entry<'_>) -> Option<String> {
    if entry.contract_id.is_empty() {
        return None;
    }
    let month = entry.period_start.map_or(String::new(), |day| format!(", month from {day} on"));
    let plan = if entry.plan.is_empty() { "none" } else { &entry.plan };
    Some(format!("{plan}, by contract {}{month}", entry.contract_id))
}

fn by_hand(entry: &Entry<'_>) -> Option<String> {
    let mut said = Vec::new();
    if !entry.actor.is_empty() {
        said.push(format!("{}{}", printable(&entry.actor), because(&entry.reason)));
    }
    if !entry.reference.is_empty() {
        said.push(format!("reference {}", printable(&entry.reference)));
    }
    (!said.is_empty()).then(|| said.join(", "))
}

fn origin(entry: &Entry<'_>) -> Option<String> {
    (!entry.origin_topic.is_empty()).then(|| {
        format!(
            "topic {}, partition {}, offset {}",
            entry.origin_topic, entry.origin_partition, entry.origin_offset
        )
    })
}
