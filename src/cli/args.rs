//! What may be asked.

mod operate;
mod publish;

use std::path::PathBuf;
use std::sync::LazyLock;

use clap::{Args, Parser, Subcommand};

pub use operate::{Accept, Export, Exported, Verify};
use operate::{EXPORT_HELP, STATUS_HELP, VERIFY_HELP};
pub use publish::{
    Adjust, Contract, ContractCancel, ContractChange, ContractRenew, ContractStart, Limits, Publish, Topup,
};

use super::output::Form;
use crate::app::Role;
use crate::event::{ID_BYTES_MAX, is_id};

/// Turns generation events into credit charges, exactly once.
#[derive(Debug, Parser)]
#[command(name = "creditstream", version = VERSION.as_str(), max_term_width = 110, arg_required_else_help = true)]
pub struct Arguments {
    /// Settings that differ from the defaults (TOML). CREDITSTREAM__SECTION__KEY in the environment overrides both.
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Form of results on stdout.
    #[arg(long, global = true, value_enum, default_value_t = Form::Table)]
    pub format: Form,
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
    /// Say for each line of a file what would become of the event, were it the first of its wallet: what depends on others
    /// (repetitions, conflicts, limits) is not seen.
    #[command(after_help = "Example: creditstream check-events events.jsonl --topic generation")]
    CheckEvents(CheckEvents),
    /// Make realistic events, seeded.
    #[command(
        after_help = "Example: creditstream generate --events 100000 --wallets 1000 --seed 7 --books books.json"
    )]
    Generate(Generate),
    /// Say what a plan, a top-up pack or a number of credits buys.
    #[command(after_help = ESTIMATE_HELP)]
    Estimate(Estimate),
    /// Say what the events of a file would cost, and what they would cost by other prices.
    #[command(after_help = PRICE_HELP)]
    Price(Price),
    /// Show a wallet: what is left, what is held, what comes next, what happened last.
    #[command(after_help = WALLET_HELP)]
    Wallet(Wallet),
    /// Explain one entry of a wallet's ledger in sentences.
    #[command(after_help = EXPLAIN_HELP)]
    Explain(Explain),
    /// Say on one screen whether anything needs a person. Exit 1: something does.
    #[command(after_help = STATUS_HELP)]
    Status,
    /// Take up a source topic, or the ledger, that is not what it was. All instances of the ledger stage must be stopped; for
    /// the ledger those of the sink too.
    #[command(
        subcommand,
        after_help = "Example: creditstream accept topic acme.generation.events\n\nExit 75: an instance runs, or records wait in intake."
    )]
    Accept(Accept),
    /// Fill ClickHouse anew from the topics, and exchange the tables once they are right. The sink may run meanwhile.
    #[command(
        after_help = "Example: creditstream rebuild-clickhouse --config prod.toml\n\nQueries see the old rows or the new ones; the newest entries are missing for the moment of the exchange. The old tables\nare dropped at the end."
    )]
    RebuildClickhouse,
    /// Prove that nothing was lost or doubled: sources, ledger, wallets and ClickHouse compared.
    #[command(after_help = VERIFY_HELP)]
    Verify(Verify),
    /// Write a span of the ledger or of usage as a Parquet or CSV file.
    #[command(after_help = EXPORT_HELP)]
    Export(Export),
    /// Publish what becomes of a contract.
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
    /// Publish limits of a wallet's own, or return them to its plan's.
    #[command(
        after_help = "Example: creditstream limits ws_42 --overdraft 500 --low-percent 30 --request-id ticket_88\n\nWhat is not named stays as it is."
    )]
    Limits(Limits),
    /// Look at quarantined records, and send mended ones again.
    #[command(subcommand, after_help = "Example: creditstream quarantine list --reason unknown_plan")]
    Quarantine(Quarantine),
    /// Send alerts again: dead ones, or those since a time.
    #[command(subcommand, after_help = "Example: creditstream alerts replay --endpoint billing")]
    Alerts(Alerts),
}

const ESTIMATE_HELP: &str = "\
Example: creditstream estimate --plan performance

Each number is what all of the credits buy if nothing else is bought, rounded down.
JSON: credits, plan, amount_usd, at, rate_card, model, has_own_rate (the rate card names the model), image_rate, video_rate,
and under buys: images, shoots_of_4_images, video_seconds, clips_of_4_seconds, clips_of_8_seconds, clips_of_12_seconds
(null: it costs nothing).";

const PRICE_HELP: &str = "\
Example: creditstream price events.jsonl --against new-pricing.toml

Every generation.completed is priced as it stands; repeated events are not recognised, and reversals are counted but not
taken off. A wallet's plan follows from the contract events that stand before its usage in the file.
Lines that cannot be priced are counted, named and left out of every sum; exit 0 all the same, as with --against whatever
the difference (check-events exits 1 where a line would be refused).
JSON, one document: lines, priced, not_priced (by type), bad (lines, reasons, first), total, models, plans, wallets. Each
total has charges, images, video_seconds, credits and, with --against, against_credits, difference, difference_percent.";

const WALLET_HELP: &str = "\
Example: creditstream wallet ws_42

The wallet comes from its latest record in the wallets topic, holds and entries from ClickHouse. Exit 1 where there is none.
What was asked of contracts and limits, and what refusals went past, is read from the ledger topic for the latest 20 such
entries; ClickHouse has no columns for it.
JSON, one document: the fields of that record, next_allocation_credits, thresholds, holds, entries, clickhouse (null, or why
it did not answer; then holds and entries are null).";

const EXPLAIN_HELP: &str = "\
Example: creditstream explain ws_42 17

JSON, one document: wallet_id, summary, explanation (sentences), balance_before, held_before, overdraft_before, entry (as in
the ledger topic), is_complete (false: that could not be read, so what ClickHouse has no columns for is missing),
ledger_topic, ledger_partition, ledger_offset. Exit 1 where ClickHouse does not have the entry.";

/// What is no id names no wallet: it is not looked for.
fn id(text: &str) -> Result<String, String> {
    let fault = || format!("expected text of 1 to {ID_BYTES_MAX} bytes of printable ASCII");
    is_id(text).then(|| text.to_owned()).ok_or_else(fault)
}

fn seq(text: &str) -> Result<u64, String> {
    let number = text.parse().ok().filter(|seq| *seq > 0);
    number.ok_or_else(|| "expected the number of an entry: 1, 2, 3 …".to_owned())
}

fn credits(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| "expected a whole number of credits, 0 or more, like 1388".to_owned())
}

/// `estimate`
#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("what").required(true)))]
pub struct Estimate {
    /// A month of this plan.
    #[arg(long, value_name = "NAME", group = "what")]
    pub plan: Option<String>,
    /// The top-up pack with this price, US dollars.
    #[arg(long, value_name = "USD", group = "what")]
    pub pack: Option<String>,
    /// So many credits.
    #[arg(long, value_name = "N", group = "what", allow_hyphen_values = true, value_parser = credits)]
    pub credits: Option<u64>,
    /// By the rates of this model, where it has rates of its own.
    #[arg(long)]
    pub model: Option<String>,
    /// By the prices in force at this instant (RFC 3339). Default: now.
    #[arg(long, value_name = "TIME")]
    pub at: Option<String>,
}

/// `price`
#[derive(Debug, Args)]
pub struct Price {
    /// File with one event a line; `-` is stdin.
    pub file: PathBuf,
    /// Price by this pricing file too, and show the difference.
    #[arg(long, value_name = "PRICING_FILE")]
    pub against: Option<PathBuf>,
}

/// `wallet`
#[derive(Debug, Args)]
pub struct Wallet {
    /// Wallet id.
    #[arg(value_parser = id)]
    pub wallet: String,
    /// How many of its last entries are shown.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(0..=1_000))]
    pub entries: u32,
}

/// `explain`
#[derive(Debug, Args)]
pub struct Explain {
    /// Wallet id.
    #[arg(value_parser = id)]
    pub wallet: String,
    /// Number of the entry within its wallet: 1, 2, 3 …
    #[arg(value_parser = seq)]
    pub seq: u64,
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

/// `alerts`
#[derive(Debug, Subcommand)]
pub enum Alerts {
    /// Have the dispatcher send dead alerts again, each to the endpoint that did not take it, under the same id.
    #[command(after_help = "Example: creditstream alerts replay --endpoint billing")]
    Replay {
        /// PARTITION/OFFSET of single ones in the topic of dead alerts. Default: all that were not sent again yet.
        places: Vec<String>,
        /// Only those of this endpoint.
        #[arg(long)]
        endpoint: Option<String>,
        /// Instead of dead alerts all that were raised from then on (RFC 3339) and that the endpoint wants, whether it got
        /// them or not: for one whose positions were lost. Those that were sent again this way before are left out.
        #[arg(long, value_name = "TIME", requires = "endpoint", conflicts_with = "places")]
        from: Option<String>,
        /// With --from: only those that were raised before then.
        #[arg(long, value_name = "TIME", requires = "from")]
        to: Option<String>,
        /// Say what would be sent, and send nothing.
        #[arg(long)]
        dry_run: bool,
    },
}
