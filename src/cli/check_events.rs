//! `check-events`: what would become of each line of a file, without Kafka and without any wallet's state.

use std::io::IsTerminal;

use serde::Serialize;

use super::args;
use super::exit::{self, Failure};
use super::lines::{Lines, check_time, decode_line, priced};
use super::output::Output;
use super::publish::instant;
use crate::app;
use crate::config::Config;
use crate::event::{
    ContractRenewed, EventRules, JobEnded, JobEnding, Limit, LimitsChanged, OverdraftLimit, Rejection,
    SourceKind,
};
use crate::ledger::TimeRules;
use crate::rate::Pricing;
use crate::time::Timestamp;
use crate::wallet::{Command, PricedUsage};

/// The answer for one line.
#[derive(Serialize)]
struct Verdict {
    line: usize,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    detail: String,
}

/// Checks a file. Exit 1 where any line would be quarantined.
pub fn run(config: &Config, command: &args::CheckEvents, output: Output) -> Result<u8, Failure> {
    let pricing = app::pricing(config).map_err(|error| Failure::config(format!("{error:#}")))?;
    let checker = Checker {
        rules: EventRules::new(&config.events),
        pricing,
        time: TimeRules::new(&config.clock),
        now: command.now.as_deref().map_or_else(|| Ok(Timestamp::now()), |now| instant("--now", now))?,
        kind: command
            .topic
            .as_deref()
            .map(|kind| if kind == "wallet" { SourceKind::Wallet } else { SourceKind::Generation }),
    };
    let mut refused = 0_usize;
    let lines = Lines::open(&command.file)?;
    // At a terminal the verdicts themselves show how far it has come.
    let mut lines = if std::io::stdout().is_terminal() { lines } else { lines.with_bar() };
    while let Some((number, line)) = lines.next()? {
        let verdict = checker.verdict(number, line);
        refused += usize::from(verdict.reason.is_some());
        output.object(&verdict, || match verdict.reason {
            Some(reason) => format!("{number}: quarantined, {reason}: {}", verdict.detail),
            None => format!(
                "{number}: {}{}{}",
                verdict.outcome,
                if verdict.detail.is_empty() { "" } else { ": " },
                verdict.detail
            ),
        })?;
    }
    Ok(if refused > 0 { exit::NO } else { exit::DONE })
}

struct Checker {
    rules: EventRules,
    pricing: Pricing,
    time: TimeRules,
    now: Timestamp,
    kind: Option<SourceKind>,
}

impl Checker {
    fn verdict(&self, line: usize, value: &[u8]) -> Verdict {
        match self.outcome(value) {
            Ok((outcome, detail)) => Verdict { line, outcome, reason: None, detail },
            Err(rejection) => Verdict {
                line,
                outcome: "quarantined",
                reason: Some(rejection.reason.as_str()),
                detail: rejection.detail,
            },
        }
    }

    fn outcome(&self, value: &[u8]) -> Result<(&'static str, String), Rejection> {
        let event = decode_line(value, self.kind, &self.rules)?;
        check_time(event.time, self.now, &self.time)?;
        let Some(asked) = priced(&event, &self.pricing)? else { return Ok(("free", String::new())) };
        Ok(match asked {
            Command::Charge(priced) => ("charged", priced_as(&priced)),
            Command::Hold(priced) => ("held", priced_as(&priced)),
            Command::EndJob { ended, .. } => ended_job(ended),
            Command::StartContract(terms) => (
                "contract",
                format!(
                    "{} credits a month from {} to {}",
                    self.pricing.allocation(&terms.plan, event.time),
                    terms.starts_at,
                    terms.ends_at
                ),
            ),
            Command::ChangePlan(change) => {
                let from = change.effective_at.unwrap_or(event.time.0);
                (
                    "contract",
                    format!("plan {} from {from} on, for contract {}", change.plan, change.contract_id),
                )
            }
            Command::RenewContract(renewal) => ("contract", renewed(renewal)),
            Command::CancelContract(cancellation) => {
                let end =
                    cancellation.effective_at.map_or("with its term".to_owned(), |at| format!("at {at}"));
                ("contract", format!("contract {} ends {end}", cancellation.contract_id))
            }
            Command::TopUp { pack, .. } => {
                ("granted", format!("{} credits for {} US dollars", pack.credits, pack.amount_usd))
            }
            Command::Adjust(adjusted) => ("adjusted", format!("{} credits", adjusted.credits)),
            Command::SetLimits(limits) => ("limits", set_limits(limits)),
        })
    }
}

fn priced_as(priced: &PricedUsage<'_>) -> String {
    format!("{} credits at {} by rate card {}", priced.cost, priced.rate, priced.rate_card)
}

fn ended_job(ended: &JobEnded<'_>) -> (&'static str, String) {
    let of = if ended.asset_id.is_empty() {
        format!("job {}", ended.job_id)
    } else {
        format!("asset {} of job {}", ended.asset_id, ended.job_id)
    };
    match ended.ending {
        JobEnding::Failed | JobEnding::Rejected => {
            ("reversed", format!("whatever {of} was charged comes back, and what it holds is released"))
        }
        JobEnding::Refunded => ("reversed", format!("whatever {of} was charged comes back")),
        JobEnding::Cancelled => {
            ("released", format!("whatever {of} holds; what it was charged stays charged"))
        }
    }
}

fn renewed(renewal: &ContractRenewed<'_>) -> String {
    let months = renewal.term_months.map_or(String::new(), |months| format!(" of {months} months"));
    let plan = if renewal.plan.is_empty() { String::new() } else { format!(", with plan {}", renewal.plan) };
    format!("another term{months} of contract {}{plan}", renewal.contract_id)
}

fn set_limits(limits: &LimitsChanged<'_>) -> String {
    let mut said = Vec::new();
    match limits.overdraft_limit {
        None => {}
        Some(Limit::Plan) => said.push("overdraft as the plan says".to_owned()),
        Some(Limit::Own(OverdraftLimit::Unlimited)) => said.push("overdraft without end".to_owned()),
        Some(Limit::Own(OverdraftLimit::Credits(credits))) => {
            said.push(format!("overdraft up to {credits} credits"));
        }
    }
    for (name, percent) in [("low", limits.low_percent), ("critical", limits.critical_percent)] {
        match percent {
            None => {}
            Some(Limit::Plan) => said.push(format!("{name} as configured")),
            Some(Limit::Own(percent)) => said.push(format!("{name} at {percent} %")),
        }
    }
    said.join(", ")
}
