//! Commands of an operator.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// After the help of `status`.
pub const STATUS_HELP: &str = "\
Example: creditstream status --config prod.toml

Asks Kafka (who reads what, and how far behind), ClickHouse, and the instance at http.listen for its drift.
JSON, one document: needs_attention (sentences), status (at, ledger, last_commits, sink, clickhouse, quarantined,
last_quarantined, instance).";

/// After the help of `verify`.
pub const VERIFY_HELP: &str = "\
Example: creditstream verify --config prod.toml

Reads the topics and asks ClickHouse; it may run beside the service, and what is under way is no difference.
Exit 0: equal. 1: something differs, named down to the wallet and entry. Anything else: it cannot be told.
A range compares the ledger, wallets and ClickHouse for what was posted in it; sources and alerts are compared as a whole only.
JSON, one document: equal, from, to, checks (between, compared, drift_records, drift_credits, differences: place,
wallet_id, seq, what, records, credits), entries, notes, repaired.";

/// After the help of `export`.
pub const EXPORT_HELP: &str = "\
Example: creditstream export ledger --from 2026-10-01 --to 2026-11-01 --format parquet --output october.parquet

ledger: every entry posted in the span, all columns of ledger_entries, by wallet and seq. What was posted never changes.
usage: charged usage by wallet, UTC hour of the event, asset type, model and plan; an hour may change until the horizon.
The rows come from ClickHouse and pass through as they come. --output makes the file once it is complete.";

/// What `export` writes.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum Exported {
    /// Entries.
    Ledger,
    /// Totals by the hour.
    Usage,
}

/// What `export` is asked for.
#[derive(Debug, Args)]
pub struct Export {
    /// What to write.
    #[arg(value_enum)]
    pub what: Exported,
    /// First instant: a UTC day, or RFC 3339. Of the ledger by the time of posting, of usage by that of the event.
    #[arg(long, value_name = "TIME")]
    pub from: String,
    /// First instant that is no longer in it.
    #[arg(long, value_name = "TIME")]
    pub to: String,
    /// File to write; default: stdout.
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// What `accept` takes up.
#[derive(Debug, Subcommand)]
pub enum Accept {
    /// A topic that was deleted and made anew: it is read from its beginning; or whose log was cut: it is read from the cut
    /// on. What its old records made stays.
    Topic {
        /// Name of the topic.
        name: String,
    },
    /// The ledger, where entries were lost at its end. Latest states become what it says, and what was cut away is read from
    /// the sources again. Without --yes it only says what that would be, and exits with 1 if there is anything.
    Ledger {
        /// This partition, also where the topics show no loss. Default: all that hold less than latest states and books say.
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
        partition: Option<i32>,
        /// Accept it.
        #[arg(long)]
        yes: bool,
    },
    /// A topic that has another number of partitions now. Either way nothing may wait in intake where the route changes.
    Partitions {
        /// Name of the topic.
        name: String,
    },
}

/// What `verify` looks at.
#[derive(Debug, Args)]
pub struct Verify {
    /// Only entries posted from then on (RFC 3339).
    #[arg(long, value_name = "TIME")]
    pub from: Option<String>,
    /// Only entries posted before then (RFC 3339).
    #[arg(long, value_name = "TIME")]
    pub to: Option<String>,
    /// Write again what differs there: rows that are missing or other, and delete those that nothing in the topics says.
    #[arg(long, value_name = "WHAT", value_parser = ["clickhouse"])]
    pub repair: Option<String>,
}
