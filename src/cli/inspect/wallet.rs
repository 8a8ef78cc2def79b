//! `wallet`: how a wallet stands, from its latest record in the wallets topic; what it holds and what happened last,
//! from ClickHouse.

use serde::Serialize;

use super::ledger::LedgerValues;
use super::page;
use super::stored::{Store, StoredEntry, StoredHold};
use crate::app;
use crate::cli::args;
use crate::cli::exit::{self, Failure};
use crate::cli::output::Output;
use crate::cli::topic::latest;
use crate::config::Config;
use crate::rate::Pricing;
use crate::sink::error::ClickHouseError;
use crate::time::{EventTime, Timestamp};
use crate::wallet::{Contract, Entry, EntryType, Wallet, WalletSnapshot};

/// Of the entries that ClickHouse does not have whole, so many are read from the ledger: each is a look-up of its own.
const FROM_LEDGER_MAX: usize = 20;

/// Everything that is shown.
#[derive(Serialize)]
pub struct Shown<'a> {
    /// The latest record.
    #[serde(flatten)]
    pub snapshot: &'a WalletSnapshot<'a>,
    /// What the next allocation brings.
    pub next_allocation_credits: Option<i64>,
    /// Where the levels begin.
    pub thresholds: Thresholds,
    /// Open holds, the oldest first; `None`: ClickHouse is away.
    pub holds: Option<Vec<StoredHold>>,
    /// Last entries, the latest first; `None`: ClickHouse is away.
    pub entries: Option<Vec<Entry<'a>>>,
    /// Why ClickHouse did not answer.
    pub clickhouse: Option<String>,
    /// The contract in force, and those that are to come, each with the credits of a month of its plan.
    #[serde(skip)]
    pub contracts: Vec<(Contract, i64)>,
}

/// Where the levels begin, and how far charges may overdraw.
#[derive(Serialize)]
pub struct Thresholds {
    /// Credits of a full wallet: its plan's month, without a contract its last top-up.
    pub base: i64,
    /// Percent of the base at or below which it is low.
    pub low_percent: u8,
    /// Percent of the base at or below which it is critical.
    pub critical_percent: u8,
    /// How far charges may overdraw; `None`: without end.
    pub overdraft_limit: Option<i64>,
}

/// Shows a wallet.
pub async fn run(config: &Config, command: &args::Wallet, output: Output) -> Result<u8, Failure> {
    let pricing = app::pricing(config).map_err(|error| Failure::config(format!("{error:#}")))?;
    let latest = latest(config, &config.topics.wallets, command.wallet.as_bytes())?;
    let value = latest.ok_or_else(|| {
        Failure::no(format!(
            "wallet {} has no record in {}: mend the id, or wait until its first event is posted and saved",
            command.wallet, config.topics.wallets
        ))
    })?;
    let snapshot: WalletSnapshot<'_> = serde_json::from_slice(&value).map_err(|error| {
        Failure::bug(format!("the record of wallet {} cannot be read: {error}", command.wallet))
    })?;
    let now = Timestamp::now();
    let values;
    let mut shown = Shown::of(config, &pricing, &snapshot, now);

    let store = Store::new(&config.clickhouse);
    let answers = async {
        let holds = store.holds(&command.wallet).await?;
        let entries = store.last_entries(&command.wallet, command.entries).await?;
        Ok::<_, ClickHouseError>((holds, entries))
    };
    match &answers.await {
        Ok((holds, entries)) => {
            let entries = entries.entries().map_err(Failure::bug)?;
            shown.holds = Some(holds.holds().map_err(Failure::bug)?);
            let incomplete: Vec<&StoredEntry<'_>> =
                entries.iter().filter(|stored| says_more(&stored.entry)).take(FROM_LEDGER_MAX).collect();
            values = LedgerValues::of(config, &incomplete);
            let mut told = Vec::with_capacity(entries.len());
            for StoredEntry { entry, .. } in entries {
                told.push(values.entry(&command.wallet, entry.seq).unwrap_or(entry));
            }
            shown.entries = Some(told);
            output.object(&shown, || page::page(&shown, now))?;
        }
        Err(error) => {
            shown.clickhouse = Some(error.to_string());
            output.object(&shown, || page::page(&shown, now))?;
        }
    }
    Ok(exit::DONE)
}

/// Whether the ledger says more of an entry than ClickHouse has columns for, and its sentence needs it.
fn says_more(entry: &Entry<'_>) -> bool {
    use EntryType::{ContractChanged, ContractRenewed, ContractStarted, LimitsChanged, Refused};
    matches!(entry.entry_type, ContractStarted | ContractChanged | ContractRenewed | LimitsChanged | Refused)
}

impl<'a> Shown<'a> {
    /// What the wallet's record tells, with the prices and settings that are configured.
    pub fn of(
        config: &Config,
        pricing: &Pricing,
        snapshot: &'a WalletSnapshot<'a>,
        now: Timestamp,
    ) -> Shown<'a> {
        let wallet = snapshot.clone().into_wallet();
        let next = wallet.contracts.iter().filter_map(|contract| {
            let at = contract.next_allocation_at()?;
            Some((at, contract.allocation_at(at, pricing)))
        });
        let next_allocation_credits = next.min().map(|(_, credits)| credits);
        // One that was cancelled before it began has no instant.
        let is_to_come =
            |contract: &Contract| contract.starts_at > now && contract.starts_at < contract.ends_at;
        let is_shown = |contract: &&Contract| contract.covers(now) || is_to_come(contract);
        let with_credits = |contract: &Contract| {
            let credits = contract.allocation_at(now.max(contract.starts_at), pricing);
            (contract.clone(), credits)
        };
        Shown {
            snapshot,
            next_allocation_credits,
            thresholds: Thresholds::of(config, pricing, &wallet, now),
            holds: None,
            entries: None,
            clickhouse: None,
            contracts: wallet.contracts.iter().filter(is_shown).map(with_credits).collect(),
        }
    }
}

impl Thresholds {
    fn of(config: &Config, pricing: &Pricing, wallet: &Wallet, now: Timestamp) -> Thresholds {
        let limits = wallet.limits;
        let plan = wallet.contract_at(now).map(|contract| contract.plan_at(now));
        let of_plan = plan.and_then(|plan| pricing.contract_plan(plan, EventTime(now))).unwrap_or_default();
        Thresholds {
            base: wallet.level_base(pricing).0,
            low_percent: limits.low_percent.or(of_plan.low_percent).unwrap_or(config.alerts.low_percent),
            critical_percent: limits
                .critical_percent
                .or(of_plan.critical_percent)
                .unwrap_or(config.alerts.critical_percent),
            overdraft_limit: limits.overdraft.unwrap_or(of_plan.overdraft_limit),
        }
    }
}
