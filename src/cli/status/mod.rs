//! `status`: one screen that says whether anything needs a person.

mod gather;

use std::sync::Arc;

use super::exit::{self, Failure};
use super::output::{Output, Table};
use crate::config::Config;
use crate::text::thousands;
use crate::time::Timestamp;
use gather::{Stage, Status, gather};

/// Lines of one kind that are shown; JSON has all.
const SHOWN: usize = 8;
/// What waits for longer than this needs a look.
const OLD_MS: i64 = 60_000;

/// Shows it.
pub async fn run(config: &Arc<Config>, output: Output) -> Result<u8, Failure> {
    let status = gather(config).await.map_err(Failure::unavailable)?;
    let troubles = troubles(&status, config.drift.interval_seconds);
    let document = serde_json::json!({ "status": status, "needs_attention": troubles });
    output.object(&document, || page(config, &status, &troubles))?;
    Ok(if troubles.is_empty() { exit::DONE } else { exit::NO })
}

/// What needs a person.
fn troubles(status: &Status, drift_interval_s: u32) -> Vec<String> {
    let mut found = Vec::new();
    for (name, stage) in [("ledger stage", &status.ledger), ("sink", &status.sink)] {
        if stage.members.is_empty() {
            found.push(format!("no instance runs the {name} (group {} is {})", stage.group, stage.state));
        } else if !stage.unassigned.is_empty() {
            found.push(format!("{name}: nobody reads {}", few(&stage.unassigned)));
        }
        if let Some(first) = stage.lagging.first()
            && let Some(oldest) = first.oldest.filter(|oldest| age_ms(status.at, *oldest) > OLD_MS)
        {
            let behind = thousands(stage.behind);
            found.push(format!(
                "{name}: {behind} records behind, the oldest waits for {} in {}",
                span(age_ms(status.at, oldest)),
                first.partition
            ));
        }
    }
    if let Err(error) = &status.clickhouse {
        found.push(format!("clickhouse does not answer: {error}"));
    }
    let Ok(instance) = &status.instance else { return found };
    let gauges = |name: &str| instance.get(name).map_or(&[][..], Vec::as_slice);
    for gauge in gauges("shard_stopped").iter().filter(|gauge| gauge.value > 0.0) {
        found.push(format!("a shard stands still: {}; its log says what to do", gauge.labels));
    }
    for gauge in gauges("drift_records").iter().filter(|gauge| gauge.value > 0.0) {
        found.push(format!(
            "drift: {} records differ, {}; `creditstream verify` names them",
            gauge.value, gauge.labels
        ));
    }
    for gauge in gauges("drift_checked_timestamp_seconds") {
        let age_ms = age_ms(status.at, Timestamp::from_millis((gauge.value * 1_000.0) as i64));
        if drift_interval_s > 0 && gauge.value > 0.0 && age_ms > i64::from(drift_interval_s) * 10_000 {
            found.push(format!("drift was last checked {} ago, {}", span(age_ms), gauge.labels));
        }
    }
    found
}

fn few(names: &[String]) -> String {
    let shown = names.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    let more = names.len().saturating_sub(SHOWN);
    if more == 0 { shown } else { format!("{shown} and {more} more") }
}

fn page(config: &Config, status: &Status, troubles: &[String]) -> String {
    let mut facts = Table::new(&["", ""]);
    let mut fact = |name: &str, what: String| facts.row(vec![name.to_owned(), what]);
    fact("ledger stage", stage(&status.ledger, status.at));
    for member in status.ledger.members.iter().take(SHOWN) {
        fact("", format!("{} at {}: {} partitions", member.client, member.host, member.partitions));
    }
    fact("last commit", last_commit(status));
    fact("sink", stage(&status.sink, status.at));
    fact(
        "clickhouse",
        match &status.clickhouse {
            Ok(Some(newest)) => {
                format!("answers; newest entry posted {} ago", span(age_ms(status.at, *newest)))
            }
            Ok(None) => "answers; no entry was posted within a day".to_owned(),
            Err(error) => format!("does not answer: {error}"),
        },
    );
    fact("quarantine", quarantine(status));
    fact("drift", drift(config, status));
    let verdict = if troubles.is_empty() {
        "Nothing needs attention.".to_owned()
    } else {
        format!(
            "NEEDS ATTENTION\n{}",
            troubles.iter().map(|trouble| format!("  {trouble}")).collect::<Vec<_>>().join("\n")
        )
    };
    let mut parts = vec![format!("As of {}", status.at), facts.render("  ")];
    parts.extend([&status.ledger, &status.sink].into_iter().filter_map(|stage| lagging(stage, status.at)));
    parts.push(verdict);
    parts.join("\n\n")
}

fn stage(stage: &Stage, at: Timestamp) -> String {
    let members = match stage.members.len() {
        0 => return format!("nobody: group {} is {}", stage.group, stage.state),
        1 => "1 member".to_owned(),
        members => format!("{members} members"),
    };
    let unread = match stage.unassigned.len() {
        0 => "all partitions assigned".to_owned(),
        count => format!("{count} partitions that nobody reads"),
    };
    let behind = match stage.lagging.first().and_then(|lagging| lagging.oldest) {
        None => "nothing waits".to_owned(),
        Some(oldest) => {
            format!("{} records behind, the oldest by {}", thousands(stage.behind), span(age_ms(at, oldest)))
        }
    };
    format!("{members} ({}), {unread}, {behind}", stage.state)
}

fn last_commit(status: &Status) -> String {
    let newest = status.last_commits.values().flatten().max();
    let Some(newest) = newest else { return "none yet".to_owned() };
    let silent = status.last_commits.values().filter(|at| at.is_none()).count();
    let never = if silent == 0 { String::new() } else { format!("; {silent} shards have none yet") };
    format!("{} ago{never}", span(age_ms(status.at, *newest)))
}

fn quarantine(status: &Status) -> String {
    match status.last_quarantined {
        None => "empty".to_owned(),
        Some(at) => format!(
            "about {} records, the last {} ago: creditstream quarantine list",
            thousands(status.quarantined),
            span(age_ms(status.at, at))
        ),
    }
}

fn drift(config: &Config, status: &Status) -> String {
    let instance = match &status.instance {
        Ok(instance) => instance,
        Err(error) => {
            return format!(
                "not known, for the instance at {:?} does not answer ({error})",
                config.http.listen
            );
        }
    };
    let sum = |name: &str| {
        instance.get(name).map_or(0.0, |gauges| gauges.iter().map(|gauge| gauge.value).sum::<f64>())
    };
    let checked =
        instance.get("drift_checked_timestamp_seconds").into_iter().flatten().map(|gauge| gauge.value);
    match checked.fold(f64::INFINITY, f64::min) {
        oldest if oldest > 0.0 && oldest.is_finite() => {
            let age = span(age_ms(status.at, Timestamp::from_millis((oldest * 1_000.0) as i64)));
            format!(
                "{} records, {} credits, checked {age} ago by the instance at {}",
                sum("drift_records"),
                sum("drift_credits"),
                config.http.listen
            )
        }
        _ => format!("not checked yet by the instance at {}", config.http.listen),
    }
}

fn lagging(stage: &Stage, at: Timestamp) -> Option<String> {
    if stage.lagging.is_empty() {
        return None;
    }
    let mut table = Table::new(&["behind", ">records", ">oldest waits"]);
    for lagging in stage.lagging.iter().take(SHOWN) {
        let oldest = lagging.oldest.map_or(String::new(), |oldest| span(age_ms(at, oldest)));
        table.row(vec![lagging.partition.clone(), thousands(lagging.behind), oldest]);
    }
    let more = stage.lagging.len().saturating_sub(SHOWN);
    let more = if more == 0 { String::new() } else { format!("\n  … and {more} more") };
    Some(format!("{}{more}", table.render("  ")))
}

fn age_ms(at: Timestamp, then: Timestamp) -> i64 {
    (at.millis() - then.millis()).max(0)
}

/// `0.4 s`, `12 s`, `5 min`, `3 h`, `4 days`.
fn span(millis: i64) -> String {
    let seconds = millis / 1_000;
    match seconds {
        ..10 => format!("{:.1} s", millis as f64 / 1_000.0),
        10..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", thousands(seconds / 86_400)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_said_in_the_unit_that_fits() {
        let said = [0, 400, 9_999, 10_000, 119_999, 120_000, 7_199_999, 7_200_000, 172_800_000].map(span);
        assert_eq!(said, ["0.0 s", "0.4 s", "10.0 s", "10 s", "119 s", "2 min", "119 min", "2 h", "2 days"]);
    }
}
