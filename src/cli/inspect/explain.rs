//! `explain`: one entry in sentences.

use serde_json::json;

use super::ledger::LedgerValues;
use super::stored::{Store, StoredEntry};
use crate::cli::args;
use crate::cli::exit::{self, Failure};
use crate::cli::output::{Output, Table};
use crate::config::Config;
use crate::explain::{Before, Detail, before, details, summary};
use crate::text::thousands;
use crate::wallet::Entry;

/// Said where the ledger's own record could not be read.
const INCOMPLETE: &str = "\n\nThe ledger topic could not be read: told from ClickHouse alone, which has neither the terms of \
a contract nor limits.";

/// Explains an entry.
pub async fn run(config: &Config, command: &args::Explain, output: Output) -> Result<u8, Failure> {
    let store = Store::new(&config.clickhouse);
    let away =
        |error| Failure::unavailable(format!("clickhouse: {error}; check clickhouse.url and try again"));
    let answer = store.entry(&command.wallet, command.seq).await.map_err(away)?;
    let entries = answer.entries().map_err(Failure::bug)?;
    let Some(stored) = entries.into_iter().next() else {
        let last = store.last_seq(&command.wallet).await.map_err(away)?;
        return Err(not_there(command, last));
    };
    let values = LedgerValues::of(config, &[&stored]);
    let complete = values.entry(&command.wallet, command.seq);
    let entry = complete.as_ref().unwrap_or(&stored.entry);

    let told = details(entry);
    let Before { balance, held, overdraft } = before(entry);
    let document = json!({
        "wallet_id": command.wallet,
        "summary": summary(entry),
        "explanation": told,
        "balance_before": balance,
        "held_before": held,
        "overdraft_before": overdraft,
        "entry": entry,
        "is_complete": complete.is_some(),
        "ledger_topic": config.topics.ledger,
        "ledger_partition": stored.ledger_partition,
        "ledger_offset": stored.ledger_offset,
    });
    output.object(&document, || {
        let page = page(config, &command.wallet, entry, &told, &stored);
        let note = if complete.is_some() { "" } else { INCOMPLETE };
        format!("{page}{note}")
    })?;
    Ok(exit::DONE)
}

pub(super) fn not_there(command: &args::Explain, last: u64) -> Failure {
    let args::Explain { wallet, seq } = command;
    Failure::no(match last {
        0 => format!(
            "clickhouse has no entry of wallet {wallet}: mend the id, or wait until the sink has come that far"
        ),
        last if *seq < last => format!(
            "clickhouse has no entry {seq} of wallet {wallet}, though it has later ones: `creditstream verify` says what is wrong"
        ),
        _ => format!(
            "clickhouse has no entry {seq} of wallet {wallet}: the last one there is {}; if it is a new one, wait until the sink has come that far",
            thousands(last)
        ),
    })
}

fn page(
    config: &Config,
    wallet_id: &str,
    entry: &Entry<'_>,
    told: &[Detail],
    stored: &StoredEntry<'_>,
) -> String {
    let mut table = Table::new(&["", ""]);
    let mut last = "";
    for detail in told {
        let about = if detail.about == last { "" } else { detail.about };
        last = detail.about;
        table.row(vec![about.to_owned(), detail.sentence.clone()]);
    }
    table.row(vec![
        "ledger".to_owned(),
        format!(
            "topic {}, partition {}, offset {}",
            config.topics.ledger, stored.ledger_partition, stored.ledger_offset
        ),
    ]);
    format!(
        "Wallet {wallet_id}, entry {}, {}:\n{}\n\n{}",
        thousands(entry.seq),
        entry.entry_type.as_str(),
        summary(entry),
        table.render("  ")
    )
}
