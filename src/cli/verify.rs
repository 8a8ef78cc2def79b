//! `verify`: is everything that came in charged, and does everybody say the same? And `rebuild-clickhouse`.

use std::io::IsTerminal;
use std::sync::Arc;

use indicatif::{ProgressBar, ProgressStyle};

use super::args;
use super::exit::{self, Failure};
use super::output::{Output, Table};
use crate::config::Config;
use crate::text::thousands;
use crate::time::Timestamp;
use crate::verify::{self, Between, Check, RebuildError, Report, Scope, Verification, VerifyError};

/// Differences that are shown of each check; JSON has more.
const SHOWN: usize = 20;

/// Compares, and says what differs.
pub async fn run(config: &Arc<Config>, command: &args::Verify, output: Output) -> Result<u8, Failure> {
    let scope = Scope {
        from: instant("--from", command.from.as_deref())?,
        to: instant("--to", command.to.as_deref())?,
    };
    if let (Some(from), Some(to)) = (scope.from, scope.to)
        && from >= to
    {
        return Err(Failure::usage(format!("--from {from} is not before --to {to}")));
    }
    let bar = spinner();
    let report = async {
        let verification = Verification::begin(config, scope)?;
        verification.run(command.repair.is_some(), &|sentence| bar.set_message(sentence.to_owned())).await
    };
    let report = report.await.map_err(failure)?;
    bar.finish_and_clear();
    output.object(&report, || page(&report))?;
    Ok(if report.equal { exit::DONE } else { exit::NO })
}

/// Fills ClickHouse anew.
pub async fn rebuild(config: &Arc<Config>, output: Output) -> Result<u8, Failure> {
    let bar = spinner();
    let rebuilt = verify::rebuild(config, &|sentence| bar.set_message(sentence.to_owned())).await;
    bar.finish_and_clear();
    let written = rebuilt.map_err(|error| match error {
        RebuildError::Record { .. } | RebuildError::Differs(_) => {
            Failure::no(format!("{error}; nothing was exchanged"))
        }
        RebuildError::OnCluster => Failure::config(error),
        RebuildError::Migration(error) => Failure::from_chain(error.into()),
        RebuildError::Kafka(_) | RebuildError::ClickHouse(_) | RebuildError::Refused(_) => {
            Failure::unavailable(format!("{error}; nothing was exchanged"))
        }
        RebuildError::Incomplete(_) => Failure::try_again(error),
    })?;
    let document = serde_json::json!({ "rows_written": written });
    output.object(&document, || {
        let mut table = Table::new(&["table", ">rows written"]);
        for (name, rows) in &written {
            table.row(vec![(*name).to_owned(), thousands(*rows)]);
        }
        table.render("")
    })?;
    Ok(exit::DONE)
}

/// A time that an option gives.
pub fn instant(option: &str, text: Option<&str>) -> Result<Option<Timestamp>, Failure> {
    let parse = |text: &str| {
        Timestamp::parse(text).ok_or_else(|| {
            Failure::usage(format!(
                "{option} {text:?} is no time: RFC 3339 is expected, such as 2026-11-01T00:00:00Z"
            ))
        })
    };
    text.map(parse).transpose()
}

fn failure(error: VerifyError) -> Failure {
    Failure::unavailable(format!("it cannot be told: {error}"))
}

/// For work of unknown length; nothing where stderr is no terminal.
pub(super) fn spinner() -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{elapsed} {msg}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(std::time::Duration::from_millis(200));
    bar
}

fn page(report: &Report) -> String {
    let mut table = Table::new(&["between", ">compared", "", ">differ", ">credits"]);
    for check in &report.checks {
        let (between, unit) = names(check.between);
        table.row(vec![
            between.to_owned(),
            thousands(check.compared),
            unit.to_owned(),
            thousands(check.drift_records),
            thousands(check.drift_credits),
        ]);
    }
    let mut parts = vec![table.render("")];
    parts.extend(report.checks.iter().filter(|check| !check.is_equal()).map(differences));
    if !report.notes.is_empty() {
        parts.push(report.notes.join("\n"));
    }
    if let Some(rows) = report.repaired {
        parts.push(format!(
            "repaired: {} rows written or deleted in ClickHouse; verify again to see",
            thousands(rows)
        ));
    }
    parts.push(if report.equal { "equal".to_owned() } else { "NOT equal".to_owned() });
    parts.join("\n\n")
}

fn names(between: Between) -> (&'static str, &'static str) {
    match between {
        Between::SourceLedger => ("sources and ledger", "records"),
        Between::LedgerWallets => ("ledger and wallets", "wallets"),
        Between::LedgerClickhouse => ("ledger and clickhouse", "entries"),
        Between::LedgerAlerts => ("ledger and alerts", "alerts"),
    }
}

fn differences(check: &Check) -> String {
    let mut lines = vec![format!("{}:", names(check.between).0)];
    for difference in check.differences.iter().take(SHOWN) {
        let wallet =
            difference.wallet_id.as_ref().map_or(String::new(), |wallet| format!(", wallet {wallet}"));
        let entry = difference.seq.map_or(String::new(), |seq| format!(", entry {seq}"));
        lines.push(format!("  {}{wallet}{entry}: {}", difference.place, difference.what));
    }
    let more = check.differences.len().saturating_sub(SHOWN);
    if more > 0 {
        lines.push(format!("  … and {more} more; --format json names up to {}", thousands(1_000_u64)));
    }
    lines.join("\n")
}
