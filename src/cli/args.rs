//! What may be asked.

use std::path::PathBuf;
use std::sync::LazyLock;

use clap::{Args, Parser, Subcommand};

use super::output::Format;
use crate::app::Role;

/// Turns generation events into credit charges, exactly once.
#[derive(Debug, Parser)]
#[command(name = "creditstream", version = VERSION.as_str(), max_term_width = 110, arg_required_else_help = true)]
pub struct Arguments {
    /// Settings that differ from the defaults (TOML). CREDITSTREAM__SECTION__KEY in the environment overrides both.
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Form of results on stdout.
    #[arg(long, global = true, value_enum, default_value_t = Format::Table)]
    pub format: Format,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

static VERSION: LazyLock<String> = LazyLock::new(|| {
    format!(
        "{} (commit {}, librdkafka {})",
        env!("CARGO_PKG_VERSION"),
        crate::metrics::REVISION,
        crate::kafka::librdkafka_version()
    )
});

/// A command.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run stages until stopped.
    #[command(after_help = "Example: creditstream run --role ledger --config prod.toml")]
    Run {
        /// Stage to run; may be given several times. Default: all.
        #[arg(long = "role", value_enum)]
        roles: Vec<Role>,
    },
    /// Create topics and tables, or bring them up to date. Twice is the same as once.
    #[command(after_help = "Example: creditstream init --config prod.toml")]
    Init,
    /// Check all settings and print those in force, secrets hidden.
    #[command(after_help = "Example: CREDITSTREAM__KAFKA__BROKERS=kafka:9092 creditstream check-config")]
    CheckConfig,
    /// Say for each line of a file what would become of the event.
    #[command(after_help = "Example: creditstream check-events events.jsonl --topic generation")]
    CheckEvents(CheckEvents),
    /// Make realistic events, seeded.
    #[command(
        after_help = "Example: creditstream generate --events 100000 --wallets 1000 --seed 7 --books books.json"
    )]
    Generate(Generate),
    /// Publish a contract event.
    #[command(
        subcommand,
        after_help = "Example: creditstream contract start ws_42 --contract-id c_7 --plan performance"
    )]
    Contract(Contract),
    /// Publish a top-up: credits that never expire.
    #[command(after_help = "Example: creditstream topup ws_42 --topup-id inv_981 --amount-usd 250")]
    Topup(Topup),
    /// Publish an adjustment: credits granted or debited by a person.
    #[command(
        after_help = "Example: creditstream adjust ws_42 --adjustment-id t_17 --credits=-40 --reason 'double render' --actor jane"
    )]
    Adjust(Adjust),
    /// Look at quarantined records, and send mended ones again.
    #[command(subcommand, after_help = "Example: creditstream quarantine list --reason unknown_plan")]
    Quarantine(Quarantine),
}

/// `check-events`
#[derive(Debug, Args)]
pub struct CheckEvents {
    /// File with one event a line; `-` is stdin.
    pub file: PathBuf,
    /// Kind of topic that the events are meant for; by default each line's type tells.
    #[arg(long, value_parser = ["generation", "wallet"])]
    pub topic: Option<String>,
    /// Read the clock as this instant (RFC 3339). Default: now.
    #[arg(long, value_name = "TIME")]
    pub now: Option<String>,
}

/// `generate`
#[derive(Debug, Args)]
pub struct Generate {
    /// Usage events, faults included.
    #[arg(long, default_value_t = 100_000)]
    pub events: u64,
    /// Wallets.
    #[arg(long, default_value_t = 1_000)]
    pub wallets: u32,
    /// The same seed and options give the same records.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// What to make: contracts and top-ups first, usage, or both.
    #[arg(long, value_parser = ["setup", "usage", "all"], default_value = "all")]
    pub phase: String,
    /// First instant of usage (RFC 3339). Default: two days before the end.
    #[arg(long)]
    pub start: Option<String>,
    /// Last instant of usage (RFC 3339). Default: a minute ago.
    #[arg(long)]
    pub end: Option<String>,
    /// Share of records sent twice, percent.
    #[arg(long, default_value_t = 1.0)]
    pub duplicates: f64,
    /// Share of records that cannot be applied, percent.
    #[arg(long, default_value_t = 0.5)]
    pub bad: f64,
    /// Share of events that arrive late, percent.
    #[arg(long, default_value_t = 2.0)]
    pub late: f64,
    /// Share of records with a key that is not the wallet's, percent.
    #[arg(long, default_value_t = 5.0)]
    pub wrong_keys: f64,
    /// Most events a second; 0: as fast as possible.
    #[arg(long, default_value_t = 0)]
    pub rate: u64,
    /// Write what was sent and what must come of it to this file.
    #[arg(long, value_name = "FILE")]
    pub books: Option<PathBuf>,
    /// Write records as JSON lines to stdout instead of Kafka.
    #[arg(long)]
    pub stdout: bool,
}

/// `contract`
#[derive(Debug, Subcommand)]
pub enum Contract {
    /// Begin a contract.
    #[command(
        after_help = "Example: creditstream contract start ws_42 --contract-id c_7 --plan performance --starts-at 2026-12-01T00:00:00Z"
    )]
    Start(ContractStart),
}

/// `contract start`
#[derive(Debug, Args)]
pub struct ContractStart {
    /// Wallet id.
    pub wallet: String,
    /// Unique per wallet for ever.
    #[arg(long)]
    pub contract_id: String,
    /// Plan, by its name in the pricing file.
    #[arg(long)]
    pub plan: String,
    /// First instant (RFC 3339). Default: the event's time.
    #[arg(long)]
    pub starts_at: Option<String>,
    /// Length in months.
    #[arg(long)]
    pub term_months: Option<u32>,
    /// An invoice or ticket.
    #[arg(long)]
    pub reference: Option<String>,
    /// How to publish.
    #[command(flatten)]
    pub publish: Publish,
}

/// `topup`
#[derive(Debug, Args)]
pub struct Topup {
    /// Wallet id.
    pub wallet: String,
    /// Unique per wallet for ever.
    #[arg(long)]
    pub topup_id: String,
    /// Price of a pack in the pricing file.
    #[arg(long)]
    pub amount_usd: String,
    /// An invoice or ticket.
    #[arg(long)]
    pub reference: Option<String>,
    /// How to publish.
    #[command(flatten)]
    pub publish: Publish,
}

/// `adjust`
#[derive(Debug, Args)]
pub struct Adjust {
    /// Wallet id.
    pub wallet: String,
    /// Unique per wallet for ever.
    #[arg(long)]
    pub adjustment_id: String,
    /// Credits; below 0 debits.
    #[arg(long, allow_hyphen_values = true)]
    pub credits: i64,
    /// Why.
    #[arg(long)]
    pub reason: String,
    /// Who.
    #[arg(long)]
    pub actor: String,
    /// When what is left of a grant expires (RFC 3339).
    #[arg(long)]
    pub expires_at: Option<String>,
    /// An invoice or ticket.
    #[arg(long)]
    pub reference: Option<String>,
    /// How to publish.
    #[command(flatten)]
    pub publish: Publish,
}

/// How a command publishes its event.
#[derive(Debug, Args)]
pub struct Publish {
    /// The event's time (RFC 3339). Default: now. Give it again to repeat a command safely.
    #[arg(long)]
    pub time: Option<String>,
    /// Print the event and send nothing.
    #[arg(long)]
    pub dry_run: bool,
}

/// `quarantine`
#[derive(Debug, Subcommand)]
pub enum Quarantine {
    /// List quarantined records: place, reason, sentence.
    #[command(after_help = "Example: creditstream quarantine list --reason unknown_plan")]
    List(QuarantineFilter),
    /// Show one record as it came.
    #[command(after_help = "Example: creditstream quarantine show 3/1207")]
    Show {
        /// PARTITION/OFFSET in the quarantine topic, as `list` prints it.
        place: String,
    },
    /// Send records to their topic again, once the cause is mended.
    #[command(after_help = "Example: creditstream quarantine replay --reason unknown_plan")]
    Replay {
        /// PARTITION/OFFSET of single records.
        places: Vec<String>,
        /// Which records, where no places are given.
        #[command(flatten)]
        filter: QuarantineFilter,
        /// Say what would be sent, and send nothing.
        #[arg(long)]
        dry_run: bool,
    },
}

/// Which quarantined records.
#[derive(Debug, Args)]
pub struct QuarantineFilter {
    /// Only those with this reason.
    #[arg(long)]
    pub reason: Option<String>,
    /// Only those quarantined at or after this instant (RFC 3339).
    #[arg(long)]
    pub since: Option<String>,
    /// At most this many.
    #[arg(long)]
    pub limit: Option<usize>,
}
