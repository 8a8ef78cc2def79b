//! The language of the tables. A line is a command and, after `=>`, what it must post; a line that begins with
//! `=` is what the wallet must then hold.
//!
//! ```text
//! contract ID PLAN START [months=12]             => contract_started PLAN; granted +200 plan:ID:0(+200=200)
//! change ID PLAN [from=TIME]                     => contract_changed PLAN
//! renew ID [plan=PLAN] [months=N]                => contract_renewed PLAN
//! cancel ID [from=TIME]                          => contract_changed PLAN
//! topup ID USD                                   => granted +555 topup:ID(+555=555)
//! adjust ID CREDITS [expires=TIME]               => adjusted +5 adjustment:ID(+5=5)
//! limits [overdraft=N|none|plan] [low=N|plan] [critical=N|plan]  => limits_changed
//! hold JOB N images|seconds [asset=A] [model=M]  => held +4 JOB
//! charge JOB N images|seconds [asset=A] [model=M] => released -4 JOB; charged -4 topup:ID(-4=551)
//!                                                => refused 4      (nothing drawn)
//!                                                => ! job_conflict (rejected: nothing posted)
//! failed|rejected|cancelled|refunded JOB [asset=A] => reversed +4 topup:ID(+4=555)
//! tick                                           => granted +200 plan:ID:1(+200=200)   (the clock goes to at=TIME)
//! = BALANCE overdraft N [held N] LEVEL | GRANT REMAINING | …   grants in burn-down order
//! ```
//!
//! What falls due by a command's clock stands behind what it posts itself. `at=TIME` is the event time
//! (2026-11-03T10:15:30Z where it is not said) and `clock=TIME` where the shard clock goes to (the event time). A TIME
//! is `11-05` or `11-05T10:00` of 2026, or whole.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use super::*;
use crate::config::Config;
use crate::event::{
    Adjusted, ContractCancelled, ContractRenewed, ContractStarted, Data, EventKind, IdentityKey, JobEnded,
    JobEnding, Limit, LimitsChanged, OverdraftLimit, PlanChanged, Reason, Rejection, TopupPurchased, Usage,
    fingerprint, job_key,
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
plan.early = { credits_per_month = 100, overdraft_limit = 10, low_percent = 50, critical_percent = 10 }
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
    /// Ledger records as JSON, one per applied command and per timer.
    pub records: Vec<String>,
    /// The fold of `records`.
    replica: Wallet,
    jobs: HashMap<IdentityKey, JobMemo<'static>>,
    /// Charges before this day are beyond the horizon.
    pub first_day: i32,
    clock: Timestamp,
    commands: usize,
    /// Tables show what is warned of.
    pub shows_warnings: bool,
}

/// A command, parsed.
#[derive(Clone, Debug)]
pub struct Line {
    /// `None`: only the clock moves.
    pub data: Option<Data<'static>>,
    pub at: Timestamp,
    pub clock: Timestamp,
}

/// Plays a table on a new wallet.
pub fn play(table: &str) -> Book {
    play_with(|_| {}, table)
}

/// Plays a table that shows warnings too: `noted runway 90`, `noted expiring 60 in 30 days`, `noted overdraft_unpaid 5`,
/// `noted hold_timed_out 4 JOB`. Other tables leave them out.
pub fn play_warned(table: &str) -> Book {
    let mut book = Book::new(&Config::default());
    book.shows_warnings = true;
    book.play(table);
    book
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
            first_day: i32::MIN,
            clock: Timestamp::from_millis(0),
            commands: 0,
            shows_warnings: false,
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
            Ok(records) => {
                let shown_of = |record: &String| {
                    let record: LedgerRecord<'_> = serde_json::from_str(record).unwrap();
                    let is_shown = |entry: &&Entry<'_>| self.shows_warnings || entry.warning_kind().is_none();
                    record.entries.iter().filter(is_shown).map(shown).collect::<Vec<_>>()
                };
                records.iter().flat_map(shown_of).collect::<Vec<_>>().join("; ")
            }
            Err(reason) => format!("! {}", reason.as_str()),
        }
    }

    /// The sentence with which a command would be refused.
    pub fn refusal(&self, line: &Line) -> String {
        let data = line.data.as_ref().unwrap();
        let moment = self.moment(line.at);
        apply_line(&mut self.wallet.clone(), &self.policy, data, self.job(data), "e", moment)
            .unwrap_err()
            .detail
    }

    /// Applies a command, posts what is due then, and checks all that must hold after any. The records, as JSON.
    pub fn apply(&mut self, line: &Line) -> Result<Vec<String>, Reason> {
        self.commands += 1;
        let mut records = Vec::new();
        if let Some(data) = &line.data {
            let before = self.wallet.clone();
            let event_id = format!("e{}", self.commands);
            let job = self.job(data);
            let moment = self.moment(line.at);
            match apply_line(&mut self.wallet, &self.policy, data, job, &event_id, moment) {
                Ok(entries) => {
                    check_entries(&before, &entries, &self.wallet);
                    assert!(
                        entries.iter().all(|entry| !entry.event_id.is_empty() && entry.fingerprint.0 != 0)
                    );
                    records.push(self.keep(entries));
                }
                Err(rejection) => {
                    assert_eq!(
                        format!("{:?}", self.wallet),
                        format!("{before:?}"),
                        "a rejection changed the wallet"
                    );
                    return Err(rejection.reason);
                }
            }
        }
        self.clock = self.clock.max(line.clock);
        loop {
            let before = self.wallet.clone();
            let posted_at = self.moment(line.at).posted_at;
            let clock = ShardClock(self.clock);
            assert_eq!(
                next_due(&before, &self.policy).is_some_and(|due| due <= self.clock),
                post_due(&mut before.clone(), clock.0, clock, posted_at, &self.policy).unwrap().is_some()
            );
            let Some(entries) = post_due(&mut self.wallet, clock.0, clock, posted_at, &self.policy).unwrap()
            else {
                break;
            };
            check_entries(&before, &entries, &self.wallet);
            records.push(self.keep(entries));
        }
        Ok(records)
    }

    fn moment(&self, at: Timestamp) -> Moment {
        Moment {
            event_time: EventTime(at),
            clock: ShardClock(self.clock),
            posted_at: PostedAt(when("2026-11-03T10:15:31")),
        }
    }

    /// Writes a record, reads it back, and folds it into the replica.
    fn keep(&mut self, entries: Vec<Entry<'_>>) -> String {
        let day =
            Some(self.clock.date().unwrap()).filter(|_| self.clock.day() != entries[0].event_time.day());
        let record = LedgerRecord { v: LEDGER_FORMAT, wallet_id: WALLET_ID.into(), clock_day: day, entries };
        let json = serde_json::to_string(&record).unwrap();
        let read: LedgerRecord<'_> = serde_json::from_str(&json).unwrap();
        assert_eq!(read, record, "through JSON");
        let mut encoded = Vec::new();
        record.encode(&mut encoded);
        assert_eq!(String::from_utf8(encoded).unwrap(), json, "as it is written for every event");
        assert_eq!(read.clock_day(), self.clock.day());
        for entry in &read.entries {
            self.replica.fold(entry, read.clock_day()).unwrap();
            self.check_conservation(entry);
            let again = self.replica.fold(entry, read.clock_day());
            assert_eq!(again, Err(FoldError::Double { seq: entry.seq, last: entry.seq }), "a second time");
            let mut changes = Vec::new();
            let known = |key: IdentityKey| Ok::<_, ()>(self.jobs.get(&key).cloned().map(Box::new));
            let day = read.clock_day().max(entry.event_time.day());
            let name = JobName::new(WALLET_ID, &entry.job_id, &entry.asset_id);
            if !entry.job_id.is_empty() {
                remember(&name, entry, day, known, |key, memo| changes.push((key, memo.to_bytes()))).unwrap();
            }
            for (key, memo) in changes {
                let memo = *JobMemo::from_bytes(&memo).unwrap();
                assert_eq!(JobMemo::from_bytes(&memo.to_bytes()).as_deref(), Some(&memo));
                self.jobs.insert(key, memo);
            }
        }
        self.replica.end_unit(read.clock_day() - self.policy.horizon_days);
        assert_eq!(self.replica, self.wallet, "the fold of all entries");
        let packed = postcard::to_allocvec(&self.wallet).unwrap();
        assert_eq!(postcard::from_bytes::<Wallet>(&packed).unwrap(), self.wallet, "packed and unpacked");
        check_snapshot(&self.wallet, ShardClock(self.clock), &self.policy.pricing);
        self.records.push(json.clone());
        json
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
        assert_eq!(wallet.holds.sum(), wallet.held);
        let in_order = |pair: &[Grant]| wallet.burn_down_order(&pair[0], &pair[1]).is_lt();
        assert!(wallet.grants.windows(2).all(in_order), "grants in burn-down order: {:?}", wallet.grants);
    }

    fn job(&self, data: &Data<'_>) -> JobHistory {
        let (job, asset) = match data {
            Data::Requested(usage) | Data::Completed(usage) => (&usage.job_id, &usage.asset_id),
            Data::JobEnded(ended) => (&ended.job_id, &ended.asset_id),
            _ => return JobHistory::default(),
        };
        let known = |key: IdentityKey| Ok::<_, ()>(self.jobs.get(&key).cloned().map(Box::new));
        JobHistory::find(&JobName::new(WALLET_ID, job, asset), true, self.first_day, known).unwrap()
    }

    /// What is remembered of a job, or of one of its assets.
    pub fn memo(&self, job_id: &str, asset_id: &str) -> Option<&JobMemo<'static>> {
        self.jobs.get(&job_key(WALLET_ID, job_id, asset_id))
    }

    fn state(&self) -> String {
        let grants = self
            .wallet
            .grants
            .iter()
            .map(|grant| format!(" | {} {}", self.wallet.grant_id(grant), grant.remaining));
        let held = if self.wallet.held > 0 { format!("held {} ", self.wallet.held) } else { String::new() };
        let (balance, overdraft, level) =
            (self.wallet.balance(), self.wallet.overdraft, self.wallet.level.as_str());
        format!("{balance} overdraft {overdraft} {held}{level}{}", grants.collect::<String>())
    }

    fn history(&self) -> String {
        self.records.join("\n")
    }
}

/// Prices and applies a command, as the ledger does.
pub fn apply_line<'a>(
    wallet: &mut Wallet,
    policy: &Policy,
    data: &'a Data<'static>,
    job: JobHistory,
    event_id: &'a str,
    moment: Moment,
) -> Result<Vec<Entry<'static>>, Rejection> {
    let kind = kind_of(data);
    let cause = Cause {
        event_type: kind.as_str(),
        source: "/s",
        event_id,
        fingerprint: fingerprint(kind, moment.event_time, data),
        origin: Origin { topic: "generation.events", partition: 3, offset: 42 },
        moment,
    };
    // A rate card's name is borrowed from the policy, which outlives no entry: the entry is made to own it.
    let pricing = Arc::clone(&policy.pricing);
    let command = Command::price(data, moment.event_time, job, &pricing)?;
    match apply(wallet, &cause, &command, policy) {
        Ok(entries) => Ok(entries.into_iter().map(|entry| owned(&entry)).collect()),
        Err(Refusal::Rejected(rejection)) => Err(rejection),
        Err(Refusal::Breach(breach)) => panic!("{breach}"),
    }
}

fn kind_of(data: &Data<'_>) -> EventKind {
    match data {
        Data::Requested(_) => EventKind::GenerationRequested,
        Data::Completed(_) => EventKind::GenerationCompleted,
        Data::JobEnded(ended) => match ended.ending {
            JobEnding::Failed => EventKind::GenerationFailed,
            JobEnding::Rejected => EventKind::GenerationRejected,
            JobEnding::Cancelled => EventKind::GenerationCancelled,
            JobEnding::Refunded => EventKind::GenerationRefunded,
        },
        Data::ContractStarted(_) => EventKind::ContractStarted,
        Data::PlanChanged(_) => EventKind::ContractPlanChanged,
        Data::ContractRenewed(_) => EventKind::ContractRenewed,
        Data::ContractCancelled(_) => EventKind::ContractCancelled,
        Data::TopupPurchased(_) => EventKind::TopupPurchased,
        Data::Adjusted(_) => EventKind::WalletAdjusted,
        Data::LimitsChanged(_) => EventKind::WalletLimitsChanged,
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
        grant_effects: entry.grant_effects.clone(),
        plan: entry.plan.clone(),
        contract_id: entry.contract_id.clone(),
        reason: own(&entry.reason),
        actor: own(&entry.actor),
        reference: own(&entry.reference),
        origin_topic: own(&entry.origin_topic),
        business_id: own(&entry.business_id),
        grant: entry
            .grant
            .as_ref()
            .map(|terms| GrantTerms { contract_id: own(&terms.contract_id), ..*terms }),
        contract: entry.contract.as_ref().map(|terms| {
            Box::new(ContractTerms {
                contract_id: own(&terms.contract_id),
                plan: own(&terms.plan),
                terms: terms.terms.clone(),
                plans: terms
                    .plans
                    .iter()
                    .map(|span| PlanTerms { from: span.from, plan: own(&span.plan) })
                    .collect(),
                asked_plan: terms
                    .asked_plan
                    .as_ref()
                    .map(|span| PlanTerms { from: span.from, plan: own(&span.plan) }),
                ..**terms
            })
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
        let in_effects: i64 = entry.grant_effects.iter().map(|effect| effect.credits).sum();
        let into_overdraft = in_effects - entry.credits;
        match entry.entry_type {
            EntryType::OverdraftRepaid => assert_eq!(in_effects, -entry.amount),
            EntryType::Reversed => assert!(into_overdraft <= 0, "{entry:?}"),
            _ => assert!(into_overdraft >= 0, "{entry:?}"),
        }
    }
    assert_eq!(after.seq, before.seq + entries.len() as u64);
}

fn check_snapshot(wallet: &Wallet, clock: ShardClock, pricing: &Pricing) {
    let snapshot = WalletSnapshot::of(WALLET_ID, wallet, clock, pricing);
    let json = serde_json::to_string(&snapshot).unwrap();
    let read: WalletSnapshot<'_> = serde_json::from_str(&json).unwrap();
    assert_eq!(read, snapshot);
    let mut encoded = Vec::new();
    snapshot.encode(&mut encoded);
    assert_eq!(String::from_utf8(encoded).unwrap(), json, "as it is written");
    assert_eq!(
        read.balance,
        read.plan_credits + read.topup_credits + read.adjustment_credits - read.overdraft
    );
    assert_eq!(read.available, read.balance - read.held);
    let back = Wallet { holds: wallet.holds.clone(), ..read.into_wallet() };
    assert_eq!(&back, wallet, "through a snapshot, which leaves the holds to the ledger");
}

/// An entry, as a table says it.
fn shown(entry: &Entry<'_>) -> String {
    let size = match entry.entry_type {
        EntryType::ContractStarted
        | EntryType::ContractChanged
        | EntryType::ContractRenewed
        | EntryType::ContractEnded => format!(" {}", entry.plan),
        EntryType::LimitsChanged => String::new(),
        EntryType::Held | EntryType::Released => format!(" {:+}{}", entry.held_credits, job_of(entry)),
        EntryType::Noted => match (entry.warning_kind(), entry.warning) {
            (None, _) => job_of(entry),
            (Some(_), Some(warning)) => {
                format!(" {} {} in {} days", entry.reason, entry.amount, warning.days)
            }
            (Some(WarningKind::HoldTimedOut), None) => {
                format!(" {} {}{}", entry.reason, entry.amount, job_of(entry))
            }
            (Some(_), None) => format!(" {} {}", entry.reason, entry.amount),
        },
        EntryType::Refused | EntryType::OverdraftRepaid => format!(" {}", entry.amount),
        EntryType::Charged if entry.credits == 0 => " 0".to_owned(),
        _ => format!(" {:+}", entry.credits),
    };
    let effect = |effect: &GrantEffect| {
        format!(" {}({:+}={})", effect.grant_id, effect.credits, effect.remaining_after)
    };
    let effects: String = entry.grant_effects.iter().map(effect).collect();
    format!("{}{size}{effects}", entry.entry_type.as_str())
}

fn job_of(entry: &Entry<'_>) -> String {
    let asset = if entry.asset_id.is_empty() { String::new() } else { format!("/{}", entry.asset_id) };
    format!(" {}{asset}", entry.job_id)
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
    let usage = |job: &str, number: &str, unit: &str| Usage {
        job_id: own(job),
        asset_id: optional("asset"),
        quantity: match unit {
            "images" => Quantity::Images(number.parse().unwrap()),
            "seconds" => Quantity::Video(VideoMillis(exact_scaled(number, 3).unwrap().try_into().unwrap())),
            _ => panic!("{command}: images or seconds?"),
        },
        model: optional("model"),
        user_id: own("u1"),
        project_id: own("p1"),
    };
    let ended = |ending, job: &str| {
        Data::JobEnded(JobEnded { ending, job_id: own(job), asset_id: optional("asset"), reason: own("why") })
    };
    let percent = |name: &str| option(name).map(|text| text.parse().map_or(Limit::Plan, Limit::Own));
    let data = match words[..] {
        ["tick", ..] => return Line { data: None, at, clock },
        ["hold", job, number, unit, ..] => Data::Requested(usage(job, number, unit)),
        ["charge", job, number, unit, ..] => Data::Completed(usage(job, number, unit)),
        ["failed", job, ..] => ended(JobEnding::Failed, job),
        ["rejected", job, ..] => ended(JobEnding::Rejected, job),
        ["cancelled", job, ..] => ended(JobEnding::Cancelled, job),
        ["refunded", job, ..] => ended(JobEnding::Refunded, job),
        ["change", id, plan, ..] => Data::PlanChanged(PlanChanged {
            contract_id: own(id),
            plan: own(plan),
            effective_at: option("from").map(|text| when(&text)),
            reference: own(""),
        }),
        ["renew", id, ..] => Data::ContractRenewed(ContractRenewed {
            contract_id: own(id),
            plan: optional("plan"),
            term_months: option("months").map(|months| months.parse().unwrap()),
            reference: own(""),
        }),
        ["cancel", id, ..] => Data::ContractCancelled(ContractCancelled {
            contract_id: own(id),
            effective_at: option("from").map(|text| when(&text)),
            reference: own(""),
        }),
        ["limits", ..] => Data::LimitsChanged(LimitsChanged {
            overdraft_limit: option("overdraft").map(|text| match text.as_str() {
                "plan" => Limit::Plan,
                "none" => Limit::Own(OverdraftLimit::Unlimited),
                credits => Limit::Own(OverdraftLimit::Credits(credits.parse().unwrap())),
            }),
            low_percent: percent("low"),
            critical_percent: percent("critical"),
            reference: own(""),
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
    Line { data: Some(data), at, clock }
}
