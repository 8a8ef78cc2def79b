//! What a wallet, as it was saved last, would make of an event about to be published: a look ahead for the person who
//! sends it. The ledger decides, by the wallet as it is then.

use std::sync::Arc;

use crate::app;
use crate::cli::exit::Failure;
use crate::cli::lines::priced;
use crate::cli::topic::latest;
use crate::config::Config;
use crate::event::{
    ContractCancelled, EventRules, IncomingRecord, LimitsChanged, PlanChanged, Reason, Rejection, SourceKind,
    decode,
};
use crate::rate::Pricing;
use crate::time::{PostedAt, ShardClock};
use crate::wallet::{
    Cause, Command, ContractTerms, Entry, Moment, PlanTerms, Policy, Refusal, Wallet, WalletSnapshot, apply,
};

/// What a person should know before relying on the event, in one sentence; `None`: nothing speaks against it.
pub fn outlook(config: &Config, wallet_id: &str, value: &[u8]) -> Option<String> {
    match look(config, wallet_id, value) {
        Ok(warning) => warning,
        Err(failure) => Some(format!("not compared with wallet {wallet_id}: {}", failure.message)),
    }
}

fn look(config: &Config, wallet_id: &str, value: &[u8]) -> Result<Option<String>, Failure> {
    let pricing = app::pricing(config).map_err(|error| Failure::config(format!("{error:#}")))?;
    let latest = latest(config, &config.topics.wallets, wallet_id.as_bytes())?;
    let snapshot = latest.as_deref().map(serde_json::from_slice::<WalletSnapshot<'_>>).transpose();
    let snapshot = snapshot.map_err(Failure::bug)?;
    let as_of = match &snapshot {
        Some(snapshot) => {
            format!("as wallet {wallet_id} was saved last (entry {}, {})", snapshot.seq, snapshot.updated_at)
        }
        None => format!("wallet {wallet_id} has no record in {} yet", config.topics.wallets),
    };
    let wallet = snapshot.map(WalletSnapshot::into_wallet).unwrap_or_default();
    Ok(remark(config, pricing, wallet, value).map(|remark| format!("{as_of}: {remark}")))
}

/// What the core says of the event by that wallet.
fn remark(config: &Config, pricing: Pricing, mut wallet: Wallet, value: &[u8]) -> Option<String> {
    let pricing = Arc::new(pricing);
    let rules = EventRules::new(&config.events);
    let record = IncomingRecord { source_kind: SourceKind::Wallet, value: Some(value), headers: &[] };
    // What is wrong with the event alone was refused before.
    let event = decode(&record, &rules).ok()?;
    let command = priced(&event, &pricing).ok().flatten()?;
    let moment =
        Moment { event_time: event.time, clock: ShardClock(event.time.0), posted_at: PostedAt(event.time.0) };
    let cause = Cause { moment, ..Cause::default() };
    let policy = Policy::new(config, Arc::clone(&pricing));
    match apply(&mut wallet, &cause, &command, &policy) {
        Ok(entries) => accepted(config, &wallet, &command, entries.first()?),
        Err(Refusal::Rejected(rejection)) => Some(refused(&rejection)),
        Err(Refusal::Breach(breach)) => Some(format!("it cannot be told what becomes of it: {breach}")),
    }
}

fn refused(Rejection { reason, detail }: &Rejection) -> String {
    let repetition = match reason {
        Reason::IdConflict | Reason::ContractConflict => {
            "; unless it repeats an earlier command with the same --time, which counts once"
        }
        _ => "",
    };
    format!(
        "this would be quarantined as {}: {detail}{repetition}. It was published: see `creditstream quarantine list`",
        reason.as_str()
    )
}

/// What is accepted may still come to something else than it says.
fn accepted(config: &Config, wallet: &Wallet, command: &Command<'_>, entry: &Entry<'_>) -> Option<String> {
    match command {
        Command::ChangePlan(change) => changed(change, entry.contract.as_ref()?),
        Command::CancelContract(cancelled) => ended(cancelled, entry.contract.as_ref()?),
        Command::SetLimits(limits) => in_order(config, wallet, limits),
        _ => None,
    }
}

fn changed(change: &PlanChanged<'_>, terms: &ContractTerms<'_>) -> Option<String> {
    let ContractTerms { contract_id, ends_at, is_cancelled, asked_plan, plans, .. } = terms;
    let from = asked_plan.as_ref()?.from;
    if from >= *ends_at {
        let comes = if *is_cancelled {
            "was cancelled, so the change never comes into force"
        } else {
            "must be renewed before that, or the change never comes into force"
        };
        return Some(format!("contract {contract_id} ends at {ends_at}: it {comes}"));
    }
    let earlier = change.effective_at.filter(|asked| *asked < from).map(|asked| {
        format!(
            "the change comes into force at {from}, not at {asked}: it reaches back to the start of the month under way and \
             of contract {contract_id}, and no further"
        )
    });
    let next = plans.iter().find(|span| span.from > from && span.from < *ends_at);
    let until = next.map(|PlanTerms { from, plan }| {
        format!("it stays in force until {from} only, when contract {contract_id} changes to plan {plan}")
    });
    both(earlier, until)
}

fn both(one: Option<String>, other: Option<String>) -> Option<String> {
    let sentences: Vec<String> = one.into_iter().chain(other).collect();
    Some(sentences.join("; ")).filter(|text| !text.is_empty())
}

fn ended(cancelled: &ContractCancelled<'_>, terms: &ContractTerms<'_>) -> Option<String> {
    let ContractTerms { contract_id, starts_at, ends_at, plans, .. } = terms;
    let moved = cancelled.effective_at.filter(|asked| asked != ends_at).map(|asked| {
        let bound = if asked > *ends_at {
            "the term under way, or an earlier cancellation, ends there".to_owned()
        } else {
            format!("it begins at {starts_at}")
        };
        format!("contract {contract_id} will end at {ends_at}, not at {asked}: {bound}")
    });
    let dropped = plans.iter().find(|span| span.from >= *ends_at && span.from > *starts_at);
    let dropped = dropped.map(|PlanTerms { from, plan }| {
        format!(
            "contract {contract_id} ends at {ends_at}: plan {plan}, booked for {from}, never comes into force"
        )
    });
    both(moved, dropped)
}

fn in_order(config: &Config, wallet: &Wallet, limits: &LimitsChanged<'_>) -> Option<String> {
    if limits.low_percent.is_none() && limits.critical_percent.is_none() {
        return None;
    }
    let low = wallet.limits.low_percent.unwrap_or(config.alerts.low_percent);
    let critical = wallet.limits.critical_percent.unwrap_or(config.alerts.critical_percent);
    (low < critical).then(|| {
        format!(
            "with this it is critical at {critical} % and never low, whose threshold ({low} %) lies below"
        )
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::{Value, json};

    use super::*;

    /// What is said of the last event to a wallet that had those before it.
    fn said(events: &[(&str, &str, Value)]) -> Option<String> {
        let config = Config::default();
        let pricing = || Pricing::built_in().unwrap();
        let mut wallet = Wallet::default();
        let mut said = None;
        for (kind, time, data) in events {
            let value = json!({
                "specversion": "1.0", "id": "e", "source": "/s", "type": kind, "subject": "ws_1", "time": time, "data": data
            })
            .to_string();
            said = remark(&config, pricing(), wallet.clone(), value.as_bytes());
            let record = IncomingRecord {
                source_kind: SourceKind::Wallet,
                value: Some(value.as_bytes()),
                headers: &[],
            };
            let rules = EventRules::new(&config.events);
            let event = decode(&record, &rules).unwrap();
            let pricing = Arc::new(pricing());
            let command = priced(&event, &pricing).unwrap().unwrap();
            let moment = Moment {
                event_time: event.time,
                clock: ShardClock(event.time.0),
                posted_at: PostedAt(event.time.0),
            };
            let policy = Policy::new(&config, Arc::clone(&pricing));
            let _ = apply(&mut wallet, &Cause { moment, ..Cause::default() }, &command, &policy);
        }
        said
    }

    fn start() -> (&'static str, &'static str, Value) {
        let terms = json!({"contract_id": "c_1", "plan": "lite", "starts_at": "2026-01-10T00:00:00Z"});
        ("contract.started", "2026-01-10T00:00:00Z", terms)
    }

    fn change(effective_at: &str) -> (&'static str, &'static str, Value) {
        let data = json!({"contract_id": "c_1", "plan": "scale", "effective_at": effective_at});
        ("contract.plan_changed", "2026-03-15T00:00:00Z", data)
    }

    fn cancel(effective_at: &str) -> (&'static str, &'static str, Value) {
        (
            "contract.cancelled",
            "2026-03-15T00:00:00Z",
            json!({"contract_id": "c_1", "effective_at": effective_at}),
        )
    }

    #[test]
    fn what_the_wallet_would_refuse_is_said_with_its_reason() {
        let unknown = said(&[change("2026-04-01T00:00:00Z")]).unwrap();
        assert!(unknown.contains("quarantined as no_contract: the wallet has no contract c_1"), "{unknown}");
        assert!(!unknown.contains("--time"), "{unknown}");
        let twice = said(&[start(), start()]).unwrap();
        assert!(twice.contains("id_conflict") && twice.contains("the same --time"), "{twice}");
        assert_eq!(said(&[start()]), None);
    }

    #[test]
    fn a_time_that_the_contract_cannot_keep_is_said() {
        let end = "2027-01-10T00:00:00.000Z";
        assert_eq!(said(&[start(), change("2027-01-09T23:59:59.999Z")]), None);
        let after = said(&[start(), change(end)]).unwrap();
        assert!(after.contains(&format!("ends at {end}: it must be renewed")), "{after}");
        let never = said(&[start(), cancel(end), change("2027-02-01T00:00:00Z")]).unwrap();
        assert!(never.contains("was cancelled, so the change never"), "{never}");
        assert_eq!(said(&[start(), change("2026-03-10T00:00:00Z")]), None);
        let back = said(&[start(), change("2026-03-09T23:59:59.999Z")]).unwrap();
        assert!(back.contains("at 2026-03-10T00:00:00.000Z, not at 2026-03-09T23:59:59.999Z"), "{back}");

        assert_eq!(said(&[start(), cancel(end)]), None);
        let late = said(&[start(), cancel("2027-02-01T00:00:00Z")]).unwrap();
        assert!(late.contains(&format!("will end at {end}, not at 2027-02-01T00:00:00.000Z")), "{late}");
        let early = said(&[start(), cancel("2026-01-09T00:00:00Z")]).unwrap();
        assert!(early.contains("it begins at 2026-01-10T00:00:00.000Z"), "{early}");
    }

    #[test]
    fn what_another_change_or_an_end_makes_of_a_change_is_said() {
        let (later, sooner) = ("2026-06-01T00:00:00.000Z", "2026-05-01T00:00:00Z");
        let until = said(&[start(), change(later), change(sooner)]).unwrap();
        assert!(
            until.contains(&format!("in force until {later} only, when contract c_1 changes to plan scale")),
            "{until}"
        );
        assert!(!until.contains("reaches back"), "{until}");
        assert_eq!(said(&[start(), change(sooner), change(later)]), None, "nothing comes after it");
        assert_eq!(said(&[start(), change(later), change(later)]), None, "it takes the other's place");
        let both = said(&[start(), change(later), change("2026-03-01T00:00:00Z")]).unwrap();
        assert!(both.contains("and no further; it stays in force until"), "{both}");
        // What would come after the end does not come.
        let beyond = [start(), change("2027-02-01T00:00:00Z"), change(sooner)];
        assert_eq!(said(&beyond), None);

        let never = said(&[start(), change(later), cancel(later)]).unwrap();
        assert!(
            never.contains(&format!("plan scale, booked for {later}, never comes into force")),
            "{never}"
        );
        assert_eq!(said(&[start(), change(later), cancel("2026-06-01T00:00:00.001Z")]), None);
        let both = said(&[start(), change(later), cancel("2026-01-09T00:00:00Z")]).unwrap();
        assert!(both.contains("it begins at") && both.contains("; contract c_1 ends at"), "{both}");
        assert_eq!(said(&[start(), cancel("2026-01-10T00:00:00Z")]), None, "its first plan was not booked");
    }

    /// As configured: low at 20 %, critical at 5 %.
    #[test]
    fn thresholds_out_of_order_are_said_where_one_comes_alone() {
        let limits = |data: Value| ("wallet.limits_changed", "2026-03-15T00:00:00Z", data);
        assert_eq!(said(&[limits(json!({"low_percent": 5}))]), None);
        let low = said(&[limits(json!({"low_percent": 4}))]).unwrap();
        assert!(low.contains("critical at 5 % and never low, whose threshold (4 %)"), "{low}");
        let own = [limits(json!({"low_percent": 30})), limits(json!({"critical_percent": 30}))];
        assert_eq!(said(&own), None);
        let own = [limits(json!({"low_percent": 30})), limits(json!({"critical_percent": 31}))];
        assert!(said(&own).is_some());
        let other = [limits(json!({"low_percent": 4})), limits(json!({"overdraft_limit": 4}))];
        assert_eq!(said(&other), None, "it says nothing of what it does not touch");
    }
}
