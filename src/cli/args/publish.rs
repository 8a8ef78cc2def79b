//! What the commands that publish an event take.

use clap::{Args, Subcommand};

/// `contract`
#[derive(Debug, Subcommand)]
pub enum Contract {
    /// Begin a contract.
    #[command(
        after_help = "Example: creditstream contract start ws_42 --contract-id c_7 --plan performance --starts-at 2026-12-01T00:00:00Z"
    )]
    Start(ContractStart),
    /// Put another plan into force.
    #[command(
        after_help = "Example: creditstream contract change ws_42 --contract-id c_7 --plan scale --request-id crm_5521"
    )]
    Change(ContractChange),
    /// Book another term, which begins where the one under way ends.
    #[command(
        after_help = "Example: creditstream contract renew ws_42 --contract-id c_7 --request-id renewal_2027"
    )]
    Renew(ContractRenew),
    /// End a contract: what is left of its plan credits expires with it.
    #[command(
        after_help = "Example: creditstream contract cancel ws_42 --contract-id c_7 --request-id crm_5530 --effective-at 2027-01-01T00:00:00Z"
    )]
    Cancel(ContractCancel),
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
    #[arg(long, value_name = "TIME")]
    pub starts_at: Option<String>,
    /// Length in months. Default: 12.
    #[arg(long)]
    pub term_months: Option<u32>,
    /// How to publish.
    #[command(flatten)]
    pub publish: Publish,
}

/// `contract change`
#[derive(Debug, Args)]
pub struct ContractChange {
    /// Wallet id.
    pub wallet: String,
    /// The contract.
    #[arg(long)]
    pub contract_id: String,
    /// The new plan, by its name in the pricing file.
    #[arg(long)]
    pub plan: String,
    /// From when on (RFC 3339). Default: the event's time. It reaches back at most to the start of the month under way.
    #[arg(long, value_name = "TIME")]
    pub effective_at: Option<String>,
    /// Names this change: see `--time`.
    #[arg(long, value_name = "ID")]
    pub request_id: String,
    /// How to publish.
    #[command(flatten)]
    pub publish: Publish,
}

/// `contract renew`
#[derive(Debug, Args)]
pub struct ContractRenew {
    /// Wallet id.
    pub wallet: String,
    /// The contract.
    #[arg(long)]
    pub contract_id: String,
    /// Plan of the new term. Default: as before.
    #[arg(long)]
    pub plan: Option<String>,
    /// Length of the new term in months. Default: as before.
    #[arg(long)]
    pub term_months: Option<u32>,
    /// Names this renewal: see `--time`.
    #[arg(long, value_name = "ID")]
    pub request_id: String,
    /// How to publish.
    #[command(flatten)]
    pub publish: Publish,
}

/// `contract cancel`
#[derive(Debug, Args)]
pub struct ContractCancel {
    /// Wallet id.
    pub wallet: String,
    /// The contract.
    #[arg(long)]
    pub contract_id: String,
    /// When it ends (RFC 3339). Default: with the term under way.
    #[arg(long, value_name = "TIME")]
    pub effective_at: Option<String>,
    /// Names this cancellation: see `--time`.
    #[arg(long, value_name = "ID")]
    pub request_id: String,
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
    #[arg(long, value_name = "TIME")]
    pub expires_at: Option<String>,
    /// How to publish.
    #[command(flatten)]
    pub publish: Publish,
}

/// `limits`
#[derive(Debug, Args)]
pub struct Limits {
    /// Wallet id.
    pub wallet: String,
    /// How far charges may overdraw, in credits; `none`: without end; `plan`: as the plan says.
    #[arg(long, value_name = "CREDITS|none|plan", allow_hyphen_values = true)]
    pub overdraft: Option<String>,
    /// Share of the allocation at or below which the wallet is low, percent; `plan`: as configured.
    #[arg(long, value_name = "PERCENT|plan", allow_hyphen_values = true)]
    pub low_percent: Option<String>,
    /// Share of the allocation at or below which it is critical, percent; `plan`: as configured.
    #[arg(long, value_name = "PERCENT|plan", allow_hyphen_values = true)]
    pub critical_percent: Option<String>,
    /// Names this change: see `--time`.
    #[arg(long, value_name = "ID")]
    pub request_id: String,
    /// How to publish.
    #[command(flatten)]
    pub publish: Publish,
}

/// How a command publishes its event.
#[derive(Debug, Args)]
pub struct Publish {
    /// An invoice or ticket.
    #[arg(long)]
    pub reference: Option<String>,
    /// The event's time (RFC 3339). Default: now. The event's id follows from the wallet, the command and the id that is
    /// given: repeated with the same time it counts once, with another one it ends in the quarantine as id_conflict.
    #[arg(long)]
    pub time: Option<String>,
    /// Print the event and send nothing.
    #[arg(long)]
    pub dry_run: bool,
}
