//! `wallet`: how a wallet stands, from its latest record in the wallets topic; what it holds and what happened last,
//! from ClickHouse.

use serde::Serialize;

use super::page;
use super::stored::{Store, StoredHold};
use crate::app;
use crate::cli::args;
use crate::cli::exit::{self, Failure};
use crate::cli::output::Output;
use crate::cli::topic::{Partitions, read_topic};
use crate::config::Config;
use crate::rate::Pricing;
use crate::sink::insert::ClickHouseError;
use crate::time::{EventTime, Timestamp};
use crate::wallet::{Contract, Entry, Wallet, WalletSnapshot};

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
    /// The contract in force, or the one that is to come, and credits of a month of its plan.
    #[serde(skip)]
    pub contract: Option<(Contract, i64)>,
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
    let value = latest(config, &command.wallet)?.ok_or_else(|| {
        Failure::no(format!(
            "wallet {} has no record in {}: mend the id, or wait until its first event is posted and saved",
            command.wallet, config.topics.wallets
        ))
    })?;
    let snapshot: WalletSnapshot<'_> = serde_json::from_slice(&value).map_err(|error| {
        Failure::bug(format!("the record of wallet {} cannot be read: {error}", command.wallet))
    })?;
    let now = Timestamp::now();
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
            shown.entries = Some(entries.into_iter().map(|stored| stored.entry).collect());
            output.object(&shown, || page::page(&shown, now))?;
        }
        Err(error) => {
            shown.clickhouse = Some(error.to_string());
            output.object(&shown, || page::page(&shown, now))?;
        }
    }
    Ok(exit::DONE)
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
        let contract = contract_to_show(&wallet, now);
        Shown {
            snapshot,
            next_allocation_credits,
            thresholds: Thresholds::of(config, pricing, &wallet, now),
            holds: None,
            entries: None,
            clickhouse: None,
            contract: contract.map(|contract| {
                let credits = contract.allocation_at(now.max(contract.starts_at), pricing);
                (contract.clone(), credits)
            }),
        }
    }
}

/// The value of the wallet's last record; `None`: it has none, or was deleted.
fn latest(config: &Config, wallet_id: &str) -> Result<Option<Vec<u8>>, Failure> {
    let mut latest = None;
    let key = wallet_id.as_bytes();
    read_topic(config, &config.topics.wallets, Partitions::OfKey(key), |record| {
        if record.key == Some(key) {
            latest = record.value.map(<[u8]>::to_vec);
        }
    })?;
    Ok(latest)
}

fn contract_to_show(wallet: &Wallet, now: Timestamp) -> Option<&Contract> {
    let to_come = || wallet.contracts.iter().find(|contract| contract.starts_at > now);
    wallet.contract_at(now).or_else(to_come)
}

impl Thresholds {
    fn of(config: &Config, pricing: &Pricing, wallet: &Wallet, now: Timestamp) -> Thresholds {
        let limits = wallet.limits;
        let plan = wallet.contract_at(now).map(|contract| contract.plan_at(now));
        let of_plan = plan.and_then(|plan| pricing.plan_at(plan, EventTime(now))?.overdraft_limit);
        Thresholds {
            base: wallet.level_base(pricing),
            low_percent: limits.low_percent.unwrap_or(config.alerts.low_percent),
            critical_percent: limits.critical_percent.unwrap_or(config.alerts.critical_percent),
            overdraft_limit: limits.overdraft.unwrap_or(of_plan),
        }
    }
}
