//! The language of the tables. A line is a command and, after `=>`, what it must post; a line that begins with
//! `=` is what the wallet must then hold.
//!
//! ```text
//! contract ID PLAN START [months=12]             => contract_started PLAN; granted +200 plan:ID:0(+200=200)
//! topup ID USD                                   => granted +555 topup:ID(+555=555)
//! adjust ID CREDITS [expires=TIME]               => adjusted +5 adjustment:ID(+5=5)
//! charge JOB N images|seconds [asset=A] [model=M] => charged -4 topup:ID(-4=551)
//!                                                => refused 4      (nothing drawn)
//!                                                => ! job_conflict (rejected: nothing posted)
//! = BALANCE overdraft N LEVEL | GRANT REMAINING | …   grants in burn-down order
//! ```
//!
//! `at=TIME` is the event time (2026-11-03T10:15:30Z where it is not said) and `clock=TIME` the shard clock (the
//! event time). A TIME is `11-05` or `11-05T10:00` of 2026, or whole.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use super::*;
use crate::config::Config;
use crate::event::{
    Adjusted, Completed, ContractStarted, Data, EventKind, Reason, Rejection, TopupPurchased, fingerprint,
};
use crate::rate::{Pricing, Quantity, UsdCents, VideoMillis, exact_scaled};
use crate::time::{EventTime, PostedAt, ShardClock, Timestamp};

/// The wallet of the tables.
pub const WALLET_ID: &str = "w1";

/// A pricing file with small plans and packs, two versions of everything, and limits.
const PRICING: &str = r#"
[[rate_card]]
id = "card-1"
effective_from = "2024-01-01T00:00:00Z"
rates.image.credits = "1"
rates.image.models."gratis".credits = "0"
rates.image.models."half".credits = "1.5"
rates.video.credits = "3"
rates.video.models."veo-3".credits = "4.5"
[[rate_card]]
id = "card-2"
effective_from = "2026-11-10T00:00:00Z"
rates.image.credits = "2"
rates.video.credits = "3"

[[plans]]
effective_from = "2024-01-01T00:00:00Z"
plan.lite.credits_per_month = 200
plan.scale.credits_per_month = 3300
plan.capped = { credits_per_month = 100, overdraft_limit = 10 }
plan.strict = { credits_per_month = 100, overdraft_limit = 0 }
plan.old.credits_per_month = 5
[[plans]]
effective_from = "2026-11-10T00:00:00Z"
plan.lite.credits_per_month = 250
plan.scale.credits_per_month = 3300
plan.capped = { credits_per_month = 100, overdraft_limit = 20 }
plan.strict = { credits_per_month = 100, overdraft_limit = 0 }

[[topups]]
effective_from = "2024-01-01T00:00:00Z"
packs = [{ amount_usd = "1", credits = 10 }, { amount_usd = "100", credits = 555 }]
[[topups]]
effective_from = "2026-11-10T00:00:00Z"
packs = [{ amount_usd = "100", credits = 600 }]
"#;

/// A wallet, everything that was ever posted to it, and what a ledger would remember of its jobs.
pub struct Book {
    pub wallet: Wallet,
    pub policy: Policy,
    /// Ledger records as JSON, one per applied command.
    pub records: Vec<String>,
    /// The fold of `records`.
    replica: Wallet,
    jobs: HashMap<String, JobHistory>,
    assets: HashMap<(String, String), ()>,
    commands: usize,
}

/// A command, parsed.
#[derive(Clone, Debug)]
pub struct Line {
    pub data: Data<'static>,
    pub at: Timestamp,
    pub clock: Timestamp,
}

/// Plays a table on a new wallet.
pub fn play(table: &str) -> Book {
    play_with(|_| {}, table)
}

/// Plays a table on a new wallet, under a changed configuration.
pub fn play_with(change: impl FnOnce(&mut Config), table: &str) -> Book {
    let mut config = Config::default();
    change(&mut config);
    let mut book = Book::new(&config);
    book.play(table);
    book
}

/// A point in time, as the tables spell it.
pub fn when(text: &str) -> Timestamp {
    let has_year = text.len() > 4 && text.as_bytes()[4] == b'-';
    let dated = if has_year { text.to_owned() } else { format!("2026-{text}") };
    let whole = match dated.len() {
        10 => format!("{dated}T00:00:00Z"),
        16 => format!("{dated}:00Z"),
        _ => format!("{dated}Z"),
    };
    Timestamp::parse(&whole).unwrap_or_else(|| panic!("{text} is no time"))
}

impl Book {
    pub fn new(config: &Config) -> Book {
        let pricing = Pricing::parse(PRICING).unwrap();
        Book {
            wallet: Wallet::default(),
            policy: Policy::new(config, Arc::new(pricing)),
            records: Vec::new(),
            replica: Wallet::default(),
            jobs: HashMap::new(),
            assets: HashMap::new(),
            commands: 0,
        }
    }

    pub fn play(&mut self, table: &str) {
        for line in table.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            match line.strip_prefix("= ") {
                Some(expected) => {
                    assert_eq!(self.state(), squeezed(expected), "the state after\n{}", self.history())
                }
                None => {
                    let (command, expected) =
                        line.split_once("=>").unwrap_or_else(|| panic!("{line}: no =>"));
                    let came = self.enter(&parse(command));
                    assert_eq!(came, squeezed(expected), "{command}\nafter\n{}", self.history());
                }
            }
        }
    }

    /// Applies a command; what it posted, as a table says it.
    pub fn enter(&mut self, line: &Line) -> String {
        match self.apply(line) {
            Ok(record) => {
                let record: LedgerRecord<'_> = serde_json::from_str(&record).unwrap();
                record.entries.iter().map(shown).collect::<Vec<_>>().join("; ")
            }
            Err(reason) => format!("! {}", reason.as_str()),
        }
    }

    /// Applies a command, and checks all that must hold after any. The record that it posted, as JSON.
    pub fn apply(&mut self, line: &Line) -> Result<String, Reason> {
        self.commands += 1;
        let before = self.wallet.clone();
        let event_id = format!("e{}", self.commands);
        let job = match &line.data {
            Data::Completed(usage) => self.job(usage),
            _ => JobHistory::default(),
        };
        let applied = apply_line(&mut self.wallet, &self.policy, line, job, &event_id);
        let entries = match applied {
            Ok(entries) => entries,
            Err(rejection) => {
                assert_eq!(
                    format!("{:?}", self.wallet),
                    format!("{before:?}"),
                    "a rejection changed the wallet"
                );
                return Err(rejection.reason);
            }
        };
        if let Data::Completed(usage) = &line.data {
            self.remember(usage, &entries);
        }
        check_entries(&before, &entries, &self.wallet);
        let record = LedgerRecord { v: LEDGER_FORMAT, wallet_id: WALLET_ID.into(), entries };
        let json = serde_json::to_string(&record).unwrap();
        let read: LedgerRecord<'_> = serde_json::from_str(&json).unwrap();
        assert_eq!(read, record, "through JSON");
        let mut encoded = Vec::new();
        record.encode(&mut encoded);
        assert_eq!(String::from_utf8(encoded).unwrap(), json, "as it is written for every event");
        for entry in &read.entries {
            self.replica.fold(entry).unwrap();
            self.check_conservation(entry);
        }
        assert_eq!(self.replica, self.wallet, "the fold of all entries");
        check_snapshot(&self.wallet, ShardClock(line.clock));
        self.records.push(json.clone());
        Ok(json)
    }

    fn check_conservation(&self, entry: &Entry<'_>) {
        let wallet = &self.replica;
        let in_grants: i64 = wallet.grants.iter().map(|grant| grant.remaining).sum();
        assert_eq!(in_grants - wallet.overdraft, entry.balance_after, "{entry:?}");
        assert_eq!(wallet.balance(), entry.balance_after);
        assert_eq!((wallet.overdraft, wallet.held), (entry.overdraft_after, entry.held_after));
        for grant in &wallet.grants {
            assert!((0..=grant.granted).contains(&grant.remaining), "{grant:?}");
            assert!((0..=grant.granted - grant.remaining).contains(&grant.repaid), "{grant:?}");
        }
        let keys: Vec<_> = wallet.grants.iter().map(Grant::burn_down_key).collect();
        assert!(keys.is_sorted(), "grants in burn-down order: {keys:?}");
    }

    fn job(&self, usage: &Completed<'_>) -> JobHistory {
        let asset_charged = self.assets.contains_key(&(usage.job_id.to_string(), usage.asset_id.to_string()));
        JobHistory { asset_charged, ..self.jobs.get(&*usage.job_id).copied().unwrap_or_default() }
    }

    fn remember(&mut self, usage: &Completed<'_>, entries: &[Entry<'_>]) {
        let known = self.jobs.entry(usage.job_id.to_string()).or_default();
        known.job = Some(if usage.asset_id.is_empty() { JobCharge::Whole } else { JobCharge::ByAsset });
        known.is_counted |= entries.iter().any(|entry| entry.entry_type == EntryType::Charged);
        if !usage.asset_id.is_empty() {
            self.assets.insert((usage.job_id.to_string(), usage.asset_id.to_string()), ());
        }
    }

    fn state(&self) -> String {
        let grants =
            self.wallet.grants.iter().map(|grant| format!(" | {} {}", grant.grant_id, grant.remaining));
        let (balance, overdraft, level) =
            (self.wallet.balance(), self.wallet.overdraft, self.wallet.level.as_str());
        format!("{balance} overdraft {overdraft} {level}{}", grants.collect::<String>())
    }

    fn history(&self) -> String {
        self.records.join("\n")
    }
}

/// Prices and applies a command, as the ledger does.
pub fn apply_line<'a>(
    wallet: &mut Wallet,
    policy: &Policy,
    line: &'a Line,
    job: JobHistory,
    event_id: &'a str,
) -> Result<Vec<Entry<'a>>, Rejection> {
    let kind = match line.data {
        Data::Completed(_) => EventKind::GenerationCompleted,
        Data::ContractStarted(_) => EventKind::ContractStarted,
        Data::TopupPurchased(_) => EventKind::TopupPurchased,
        Data::Adjusted(_) => EventKind::WalletAdjusted,
    };
    let event_time = EventTime(line.at);
    let cause = Cause {
        event_type: kind.as_str(),
        source: "/s",
        event_id,
        fingerprint: fingerprint(kind, event_time, &line.data),
        origin: Origin { topic: "generation.events", partition: 3, offset: 42 },
        moment: Moment {
            event_time,
            clock: ShardClock(line.clock),
            posted_at: PostedAt(when("2026-11-03T10:15:31")),
        },
    };
    // A rate card's name is borrowed from the policy, which outlives no entry: the entry is made to own it.
    let pricing = Arc::clone(&policy.pricing);
    let command = Command::price(&line.data, event_time, job, &pricing)?;
    match apply(wallet, &cause, &command, policy) {
        Ok(entries) => Ok(entries.into_iter().map(|entry| owned(&entry)).collect()),
        Err(Refusal::Rejected(rejection)) => Err(rejection),
        Err(Refusal::Breach(breach)) => panic!("{breach}"),
    }
}

/// The entry without borrows.
fn owned(entry: &Entry<'_>) -> Entry<'static> {
    fn own(text: &str) -> Cow<'static, str> {
        Cow::Owned(text.to_owned())
    }
    Entry {
        event_type: own(&entry.event_type),
        source: own(&entry.source),
        event_id: own(&entry.event_id),
        job_id: own(&entry.job_id),
        asset_id: own(&entry.asset_id),
        model: own(&entry.model),
        user_id: own(&entry.user_id),
        project_id: own(&entry.project_id),
        rate_card: own(&entry.rate_card),
        grant_effects: entry
            .grant_effects
            .iter()
            .map(|effect| GrantEffect { grant_id: own(&effect.grant_id), ..*effect })
            .collect(),
        plan: own(&entry.plan),
        contract_id: own(&entry.contract_id),
        reason: own(&entry.reason),
        actor: own(&entry.actor),
        reference: own(&entry.reference),
        origin_topic: own(&entry.origin_topic),
        business_id: own(&entry.business_id),
        grant: entry
            .grant
            .as_ref()
            .map(|terms| GrantTerms { contract_id: own(&terms.contract_id), ..*terms }),
        contract: entry.contract.as_ref().map(|terms| ContractTerms {
            contract_id: own(&terms.contract_id),
            plan: own(&terms.plan),
            ..*terms
        }),
        ..*entry
    }
}

/// What holds for the entries of any event.
fn check_entries(before: &Wallet, entries: &[Entry<'_>], after: &Wallet) {
    assert!(!entries.is_empty(), "every accepted event posts something");
    let mut balance = before.balance();
    for (entry, seq) in entries.iter().zip(before.seq + 1..) {
        assert_eq!(entry.seq, seq, "seq without gap");
        balance += entry.credits;
        assert_eq!(entry.balance_after, balance, "the sum of credits is the balance");
        assert_eq!(entry.level, after.level, "the level is set once, by the last entry");
        assert!(!entry.event_id.is_empty() && entry.fingerprint.0 != 0);
        let in_effects: i64 = entry.grant_effects.iter().map(|effect| effect.credits).sum();
        let overdrawn = match entry.entry_type {
            EntryType::OverdraftRepaid => -entry.amount,
            _ => in_effects - entry.credits,
        };
        assert!(entry.entry_type == EntryType::OverdraftRepaid || overdrawn >= 0, "{entry:?}");
    }
    assert_eq!(after.seq, before.seq + entries.len() as u64);
}

fn check_snapshot(wallet: &Wallet, clock: ShardClock) {
    let snapshot = WalletSnapshot::of(WALLET_ID, wallet, clock);
    let json = serde_json::to_string(&snapshot).unwrap();
    let read: WalletSnapshot<'_> = serde_json::from_str(&json).unwrap();
    assert_eq!(read, snapshot);
    let mut encoded = Vec::new();
    encode_snapshot(WALLET_ID, wallet, clock, &mut encoded);
    assert_eq!(String::from_utf8(encoded).unwrap(), json, "as it is written");
    assert_eq!(
        read.balance,
        read.plan_credits + read.topup_credits + read.adjustment_credits - read.overdraft
    );
    assert_eq!(read.available, read.balance - read.held);
    assert_eq!(&read.into_wallet(), wallet, "through a snapshot");
}

/// An entry, as a table says it.
fn shown(entry: &Entry<'_>) -> String {
    let size = match entry.entry_type {
        EntryType::ContractStarted => entry.plan.to_string(),
        EntryType::Refused | EntryType::OverdraftRepaid => entry.amount.to_string(),
        EntryType::Charged if entry.credits == 0 => "0".to_owned(),
        _ => format!("{:+}", entry.credits),
    };
    let effect = |effect: &GrantEffect<'_>| {
        format!(" {}({:+}={})", effect.grant_id, effect.credits, effect.remaining_after)
    };
    let effects: String = entry.grant_effects.iter().map(effect).collect();
    format!("{} {size}{effects}", entry.entry_type.as_str())
}

fn squeezed(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Reads a command.
pub fn parse(command: &str) -> Line {
    let words: Vec<&str> = command.split_whitespace().collect();
    let option = |name: &str| {
        words.iter().find_map(|word| word.strip_prefix(name)?.strip_prefix('=')).map(|text| text.to_owned())
    };
    let own = |text: &str| Cow::<'static, str>::Owned(text.to_owned());
    let optional = |name: &str| option(name).map_or(Cow::Borrowed(""), Cow::Owned);
    let at = option("at").map_or_else(|| when("2026-11-03T10:15:30"), |text| when(&text));
    let clock = option("clock").map_or(at, |text| when(&text));
    let data = match words[..] {
        ["charge", job, number, unit, ..] => Data::Completed(Completed {
            job_id: own(job),
            asset_id: optional("asset"),
            quantity: match unit {
                "images" => Quantity::Images(number.parse().unwrap()),
                "seconds" => {
                    Quantity::Video(VideoMillis(exact_scaled(number, 3).unwrap().try_into().unwrap()))
                }
                _ => panic!("{command}: images or seconds?"),
            },
            model: optional("model"),
            user_id: own("u1"),
            project_id: own("p1"),
        }),
        ["contract", id, plan, start, ..] => {
            let term_months = option("months").map_or(12, |months| months.parse().unwrap());
            Data::ContractStarted(ContractStarted {
                contract_id: own(id),
                plan: own(plan),
                starts_at: when(start),
                ends_at: when(start).plus_months(term_months).unwrap(),
                term_months,
                reference: own("invoice"),
            })
        }
        ["topup", id, usd, ..] => Data::TopupPurchased(TopupPurchased {
            topup_id: own(id),
            amount_usd: exact_scaled(usd, 2).map(|cents| UsdCents(cents.try_into().unwrap())),
            amount_text: "as it was spelt",
            reference: own(""),
        }),
        ["adjust", id, credits, ..] => Data::Adjusted(Adjusted {
            adjustment_id: own(id),
            credits: credits.parse().unwrap(),
            reason: own("goodwill"),
            actor: own("kim"),
            expires_at: option("expires").map(|text| when(&text)),
            reference: own(""),
        }),
        _ => panic!("{command}: no command"),
    };
    Line { data, at, clock }
}
