//! `explain`: one entry in sentences.

use serde_json::json;

use super::stored::{Store, StoredEntry};
use crate::cli::args;
use crate::cli::exit::{self, Failure};
use crate::cli::output::{Output, Table};
use crate::cli::topic::{Partitions, read_topic};
use crate::config::Config;
use crate::explain::{Before, Detail, before, details, summary};
use crate::text::thousands;
use crate::wallet::{Entry, LedgerRecord};

/// Said where the ledger's own record could not be read.
const INCOMPLETE: &str = "\n\nThe ledger topic could not be read: told from ClickHouse alone, which has neither the terms of \
a contract nor a wallet's limits.";

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
    // ClickHouse has no columns for the terms of a contract, a wallet's limits and the end of a hold. The record in the
    // ledger does; where Kafka is away the rest is told without them.
    let record = ledger_record(config, &stored);
    let complete = record.as_deref().and_then(|value| in_record(value, &command.wallet, command.seq));
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

fn not_there(command: &args::Explain, last: u64) -> Failure {
    let args::Explain { wallet, seq } = command;
    Failure::no(match last {
        0 => format!(
            "clickhouse has no entry of wallet {wallet}: mend the id, or wait until the sink has come that far"
        ),
        _ => format!(
            "clickhouse has no entry {seq} of wallet {wallet}: the last one there is {}; if it is a new one, wait until the sink has come that far",
            thousands(last)
        ),
    })
}

/// The value of the ledger record that an entry stands in; `None` where it cannot be read now.
fn ledger_record(config: &Config, stored: &StoredEntry<'_>) -> Option<Vec<u8>> {
    let mut value = None;
    let place = Partitions::Record(stored.ledger_partition, stored.ledger_offset);
    let read = read_topic(config, &config.topics.ledger, place, |record| {
        value = record.value.map(<[u8]>::to_vec);
    });
    if let Err(failure) = read {
        tracing::debug!(error = failure.message, "the ledger cannot be read: told from clickhouse alone");
    }
    value
}

/// The entry, if that record is the wallet's and has it: a ledger that was made anew has another one there.
fn in_record<'r>(value: &'r [u8], wallet_id: &str, seq: u64) -> Option<Entry<'r>> {
    let record: LedgerRecord<'r> = serde_json::from_slice(value).ok()?;
    if record.wallet_id != wallet_id {
        return None;
    }
    record.entries.into_iter().find(|entry| entry.seq == seq)
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
