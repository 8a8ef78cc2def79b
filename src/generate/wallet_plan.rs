//! What is sent to the wallet topic, and in which order: every wallet's contract first, then top-ups,
//! adjustments and what is wrong with them, by time.
//!
//! **Invariant:** a contract is a function of seed and wallet: the events of a million wallets need no memory,
//! and what refers to a contract can make it again.

use super::chance::Chance;
use super::faults::{Base, Fault, WALLET_FAULTS};
use super::item::{Body, ChangeKind, Expected, Item, Key, Made, Overdraft, PACKS, Plan, Usage, WalletChange};
use super::options::GenerateOptions;
use super::population::{Fate, fate_of, mix, plan_of};
use crate::event::Reason;
use crate::time::{DAY_MS, HOUR_MS, Timestamp};

const PURPOSE: u64 = 2;
/// Streams of single contracts: this plus the wallet's number.
const CONTRACT_PURPOSE: u64 = 1 << 32;
/// Contracts are announced in the hour before usage begins.
const ANNOUNCED_MS: i64 = HOUR_MS;
/// They began before that, at most so long ago that a second month is not due.
const BEGAN_DAYS_MAX: i64 = 5;
const TOPUPS_OF_A_WALLET_MAX: i64 = 3;
const RESENT_MS_MAX: i64 = HOUR_MS;
/// Bad records even of a small run: one of each reason that only the wallet topic can show.
const FAULTS_MIN: usize = 5;
/// Adjustments that grant may expire, long after everything that is generated.
const EXPIRES_AFTER_DAYS: i64 = 400;

/// The stream of wallet items.
pub(super) struct WalletPlan {
    options: GenerateOptions,
    next_contract: u32,
    /// Everything but the contracts, by time of delivery.
    others: std::vec::IntoIter<(Timestamp, Item)>,
}

impl WalletPlan {
    pub(super) fn new(options: &GenerateOptions) -> WalletPlan {
        let mut planner = Planner {
            options,
            chance: Chance::new(options.seed, PURPOSE),
            changes: Vec::new(),
            others: Vec::new(),
        };
        planner.changes();
        planner.duplicates();
        planner.conflicts();
        planner.bad();
        let mut others = planner.others;
        // Stable: an original stays before what refers to it.
        others.sort_by_key(|(deliver_at, _)| *deliver_at);
        WalletPlan { options: options.clone(), next_contract: 1, others: others.into_iter() }
    }

    /// How many items are left.
    pub(super) fn len(&self) -> u64 {
        let contracts = u64::from(self.options.wallets) + 1 - u64::from(self.next_contract);
        contracts + self.others.len() as u64
    }

    /// The next item, and when it is delivered.
    pub(super) fn next(&mut self) -> Option<(Timestamp, Item)> {
        if self.next_contract <= self.options.wallets {
            let item = contract(&self.options, self.next_contract);
            self.next_contract += 1;
            return Some((item.at, item));
        }
        self.others.next()
    }
}

/// The contract of a wallet.
fn contract(options: &GenerateOptions, wallet: u32) -> Item {
    let mut chance = Chance::new(options.seed, CONTRACT_PURPOSE + u64::from(wallet));
    let announced = ANNOUNCED_MS * i64::from(wallet - 1) / i64::from(options.wallets);
    let at = options.start.plus_millis(announced - ANNOUNCED_MS);
    let began_ago = chance.between(ANNOUNCED_MS + 1, BEGAN_DAYS_MAX * DAY_MS);
    let starts_at = options.start.plus_millis(-began_ago);
    let kind = ChangeKind::Contract { plan: plan_of(wallet, options.wallets), starts_at };
    let body = Body::Wallet(WalletChange { business: chance.bits(), kind });
    let mut item = Item::good(wallet, chance.event_id(at), at, body);
    item.key = chance.key(options.wrong_key_percent, options.wallets);
    if fate_of(options, wallet).is_some() {
        (item.key, item.is_ordered) = (Key::Wallet, true);
    }
    item.binary = chance.percent(options.binary_percent);
    item
}

/// Plans everything but the contracts.
struct Planner<'a> {
    options: &'a GenerateOptions,
    chance: Chance,
    /// Good top-ups and adjustments, by wallet.
    changes: Vec<Item>,
    others: Vec<(Timestamp, Item)>,
}

impl Planner<'_> {
    fn changes(&mut self) {
        for wallet in 1..=self.options.wallets {
            if self.chance.percent(self.options.topups_percent) {
                for _ in 0..self.chance.between(1, TOPUPS_OF_A_WALLET_MAX) {
                    let kind = self.topup();
                    self.change(wallet, kind);
                }
            }
            if self.chance.percent(self.options.adjustments_percent) {
                let at = self.options.end;
                let expires_at = self.chance.one_in(4).then(|| at.plus_millis(EXPIRES_AFTER_DAYS * DAY_MS));
                let up = self.chance.one_in(2);
                let kind = if up { self.grant(expires_at) } else { self.debit() };
                self.change(wallet, kind);
            }
            if self.chance.percent(self.options.limits_percent) {
                let kind = self.limits();
                self.change(wallet, kind);
            }
            if let Some(fate) = fate_of(self.options, wallet) {
                self.contract_change(wallet, fate);
            }
        }
        self.others.extend(self.changes.iter().map(|item| (item.at, *item)));
    }

    fn topup(&mut self) -> ChangeKind {
        // Small packs sell better.
        let place = self.chance.below(PACKS.len()).min(self.chance.below(PACKS.len()));
        let (amount_usd, credits) = PACKS.get(place).copied().unwrap_or((100, 555));
        ChangeKind::Topup { amount_usd, credits }
    }

    fn grant(&mut self, expires_at: Option<Timestamp>) -> ChangeKind {
        ChangeKind::Adjustment { credits: self.chance.between(1, 500), expires_at }
    }

    fn debit(&mut self) -> ChangeKind {
        ChangeKind::Adjustment { credits: -self.chance.between(1, 200), expires_at: None }
    }

    fn limits(&mut self) -> ChangeKind {
        let overdraft = match self.chance.below(4) {
            0 => Overdraft::Absent,
            1 => Overdraft::Unlimited,
            2 => Overdraft::Plan,
            _ => Overdraft::Great,
        };
        let (low, critical) = (self.chance.between(10, 40), self.chance.between(1, 9));
        ChangeKind::Limits { overdraft, low_percent: low as u8, critical_percent: critical as u8 }
    }

    /// After the contract, on its partition. Nothing of it falls due while the events are read, but what an upgrade
    /// grants at once.
    fn contract_change(&mut self, wallet: u32, fate: Fate) {
        let contract = contract(self.options, wallet);
        let Body::Wallet(WalletChange { business, kind: ChangeKind::Contract { plan: from, starts_at } }) =
            contract.body
        else {
            return;
        };
        let kind = match fate {
            Fate::Upgrade(to) => ChangeKind::PlanChange { from, to, effective_at: starts_at },
            Fate::Downgrade => {
                let effective_at = starts_at.plus_months(1).unwrap_or(starts_at);
                ChangeKind::PlanChange { from, to: Plan::Lite, effective_at }
            }
            Fate::Renewal => ChangeKind::Renewal { term_months: if self.chance.one_in(2) { 12 } else { 6 } },
            Fate::Cancellation => ChangeKind::Cancellation,
        };
        let good = self.good(wallet, kind);
        let body = Body::Wallet(WalletChange { business, kind });
        self.changes.push(Item { body, key: Key::Wallet, is_ordered: true, ..good });
    }

    fn change(&mut self, wallet: u32, kind: ChangeKind) {
        let item = self.good(wallet, kind);
        self.changes.push(item);
    }

    fn good(&mut self, wallet: u32, kind: ChangeKind) -> Item {
        let at = self.time();
        let body = Body::Wallet(WalletChange { business: self.chance.bits(), kind });
        let mut item = Item::good(wallet, self.chance.event_id(at), at, body);
        item.key = self.chance.key(self.options.wrong_key_percent, self.options.wallets);
        item.binary = self.chance.percent(self.options.binary_percent);
        item
    }

    fn time(&mut self) -> Timestamp {
        Timestamp::from_millis(self.chance.between(self.options.start.millis(), self.options.end.millis()))
    }

    /// Any good item: contracts are as likely as all others together are many.
    fn any(&mut self) -> Item {
        let wallets = self.options.wallets;
        let place = self.chance.below(wallets as usize + self.changes.len());
        match place.checked_sub(wallets as usize).and_then(|place| self.changes.get(place)) {
            Some(item) => *item,
            None => contract(self.options, self.chance.wallet(wallets)),
        }
    }

    fn any_with_own_key(&mut self) -> Option<Item> {
        (0..64).map(|_| self.any()).find(|item| item.key == Key::Wallet)
    }

    fn contract_with_own_key(&mut self) -> Option<Item> {
        let wallets = self.options.wallets;
        (0..64)
            .map(|_| contract(self.options, self.chance.wallet(wallets)))
            .find(|item| item.key == Key::Wallet)
    }

    /// How many records a share of the good ones is.
    fn share(&self, percent: f64) -> usize {
        let good = self.options.wallets as usize + self.changes.len();
        (good as f64 * percent / 100.0).ceil() as usize
    }

    /// After the original: contracts were all delivered before `start`.
    fn later(&mut self, original: &Item) -> Timestamp {
        original.at.max(self.options.start).plus_millis(self.chance.between(1, RESENT_MS_MAX))
    }

    fn duplicates(&mut self) {
        for _ in 0..self.share(self.options.duplicates_percent) {
            let original = self.any();
            let any_key = self.chance.key(self.options.wrong_key_percent, self.options.wallets);
            let key = if original.is_ordered { Key::Wallet } else { any_key };
            let respelt = self.chance.one_in(2);
            let binary = if respelt { self.chance.one_in(4) } else { original.binary };
            let item = Item { key, respelt, binary, expected: Expected::Duplicate, ..original };
            let deliver_at = self.later(&original);
            self.others.push((deliver_at, item));
        }
    }

    /// The same event id with another content, or the same contract, top-up or adjustment under another one.
    fn conflicts(&mut self) {
        for _ in 0..self.share(self.options.id_conflicts_percent) {
            let Some(original) = self.any_with_own_key() else {
                return;
            };
            let deliver_at = self.later(&original);
            let at = original.at.plus_millis(1);
            let is_event_id = self.chance.one_in(2) || !names_something(original.body);
            let event_id = if is_event_id { original.event_id } else { self.chance.event_id(at) };
            let expected = Expected::Quarantined(Reason::IdConflict);
            self.others.push((deliver_at, Item { at, event_id, expected, ..original }));
        }
    }

    fn bad(&mut self) {
        let share = self.share(self.options.bad_percent);
        let count = if share == 0 { 0 } else { share.max(FAULTS_MIN) };
        for fault in WALLET_FAULTS.iter().cycle().take(count) {
            if let Some(item) = self.bad_one(fault) {
                self.others.push((item.at, item));
            }
        }
    }

    fn bad_one(&mut self, fault: &'static Fault) -> Option<Item> {
        let wallet = self.chance.wallet(self.options.wallets);
        let good = match fault.base {
            Base::Contract => {
                // It must come after the first contract: the same key, and later.
                let first = self.contract_with_own_key()?;
                let Body::Wallet(change) = first.body else {
                    return None;
                };
                Item { key: Key::Wallet, ..self.good(first.wallet, change.kind) }
            }
            Base::Topup => {
                let kind = self.topup();
                self.good(wallet, kind)
            }
            Base::Grant => {
                let kind = self.grant(None);
                self.good(wallet, kind)
            }
            Base::Debit => {
                let kind = self.debit();
                self.good(wallet, kind)
            }
            Base::Renewal => self.good(wallet, ChangeKind::Renewal { term_months: 12 }),
            Base::Limits => {
                let kind = self.limits();
                self.good(wallet, kind)
            }
            Base::Image | Base::Video | Base::Free | Base::Ended => self.usage(wallet),
        };
        Some(good.with_fault(fault))
    }

    /// Usage that somebody sent to the wrong topic.
    fn usage(&mut self, wallet: u32) -> Item {
        let at = self.time();
        let job = mix(self.chance.bits());
        let made = Made::Images(1);
        let usage =
            Usage { source: 0, is_request: false, made, job, asset: 0, model: 0, user: 1, project: 1 };
        let item = Item::good(wallet, self.chance.event_id(at), at, Body::Usage(usage));
        Item { source_kind: crate::event::SourceKind::Wallet, ..item }
    }
}

/// Whether it uses up a business id.
fn names_something(body: Body) -> bool {
    use ChangeKind::{Adjustment, Contract, Topup};
    matches!(body, Body::Wallet(change) if matches!(change.kind, Contract { .. } | Topup { .. } | Adjustment { .. }))
}
