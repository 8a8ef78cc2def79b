//! Record by record, against the product's own decoder and price list.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::super::item::Made;
use super::*;
use crate::event::{
    Data, EventKind, Fingerprint, Identity, IdentityKey, JobEnding, Limit, OverdraftLimit, SourceKind,
};
use crate::rate::{Pricing, Quantity, VideoMillis};
use crate::time::{DAY_MS, EventTime};

/// Goal: the decoder and the generator agree about every record. Method: what a decoder can judge, it must judge
/// as expected; what needs a clock, prices or memory must be well-formed.
#[test]
fn the_decoder_agrees_about_every_record() {
    let (records, books) = all_records(&unruly(20_000));
    for (record, expected) in &records {
        decoded(record, |event| match (expected, event) {
            (Expected::Quarantined(reason), Err(found)) => {
                assert_eq!(*reason, found, "{}", shown(record));
            }
            (Expected::Quarantined(Reason::TooOld), Ok(event)) => {
                assert!(event.time.0 < end().plus_millis(-1_000 * DAY_MS));
            }
            (Expected::Quarantined(Reason::TooFarAhead), Ok(event)) => {
                assert!(event.time.0 > end().plus_millis(1_000 * DAY_MS));
            }
            (Expected::Quarantined(reason), Ok(event)) => {
                let found = event.data.and_then(|data| data.err()).map(|rejection| rejection.reason);
                let needs_state = [
                    Reason::IdConflict,
                    Reason::UnknownPlan,
                    Reason::UnknownTopup,
                    Reason::NoContract,
                    Reason::ContractConflict,
                    Reason::JobConflict,
                ];
                let expected = if needs_state.contains(reason) { None } else { Some(*reason) };
                assert_eq!(expected, found, "{}", shown(record));
            }
            (Expected::Free, Ok(event)) => assert_eq!(event.kind, EventKind::Free),
            (_, Ok(event)) => assert!(matches!(event.data, Some(Ok(_))), "{event:?}"),
            (_, Err(reason)) => panic!("{reason:?}: {}", shown(record)),
        });
    }
    let seen: HashSet<&str> = books.reasons.keys().map(String::as_str).collect();
    assert_eq!(seen, Reason::ALL.map(Reason::as_str).into());
}

/// Goal: a second opinion by other means, and none of it depends on how partitions are merged. Method: a reader that
/// remembers identities, jobs and contracts and prices by the product's price list reads the records as they were sent,
/// and partition after partition, forwards and backwards.
#[test]
fn an_independent_reader_comes_to_the_same_outcomes_and_sums_in_whatever_order_partitions_are_read() {
    let (records, books) = all_records(&unruly(20_000));
    let sent: Vec<&(Record, Expected)> = records.iter().collect();
    let partition = |record: &Record| (record.source_kind() == SourceKind::Wallet, record.key().map(key_sum));
    let mut forwards = sent.clone();
    forwards.sort_by_key(|(record, _)| partition(record));
    let mut backwards = sent.clone();
    backwards.sort_by_key(|(record, _)| std::cmp::Reverse(partition(record)));
    for (order, records) in [("as sent", sent), ("forwards", forwards), ("backwards", backwards)] {
        // Where a contract's partition comes after its wallet's usage nothing changes but what it is called.
        let mut reader = Reader::default();
        records.iter().for_each(|(record, expected)| reader.read(record, *expected));
        assert_eq!(reader.outcomes, counted(&books), "{order}");
        let balances: BTreeMap<String, i64> =
            books.wallets.iter().map(|(wallet, book)| (wallet.clone(), book.balance)).collect();
        assert_eq!(reader.balances, balances, "{order}");
        assert_eq!(reader.reversed, books.credits.reversed, "{order}");
        assert!(
            reader.jobs.values().all(|job| job.held == 0),
            "{order}: what is held is settled in the stream"
        );
    }
    let balances = || books.wallets.values().map(|book| book.balance);
    assert!(balances().any(|balance| balance < 0), "some wallets must run dry");
    assert!(balances().any(|balance| balance > 0), "not all wallets must run dry");
    let outcomes = counted(&books);
    for outcome in ["held", "released", "reversed", "noted", "limits", "contract"] {
        assert!(outcomes[outcome] >= 10, "{outcome}: {outcomes:?}");
    }
}

fn key_sum(key: &str) -> u32 {
    key.bytes().fold(0, |sum, byte| sum + u32::from(byte)) % 12
}

fn counted(books: &Books) -> BTreeMap<String, u64> {
    let counts = serde_json::to_value(books.outcomes).unwrap();
    let counts =
        counts.as_object().unwrap().iter().map(|(name, count)| (name.clone(), count.as_u64().unwrap()));
    counts.filter(|(_, count)| *count > 0).collect()
}

/// What is known of a job.
#[derive(Default)]
struct Job {
    /// Costs by asset; the whole job is the asset without a name.
    charges: HashMap<String, i64>,
    /// Assets that were given back, or will be.
    void: HashSet<String>,
    held: i64,
    is_over: bool,
}

static PRICING: LazyLock<Pricing> = LazyLock::new(|| Pricing::built_in().unwrap());

#[derive(Default)]
struct Reader {
    identities: HashMap<IdentityKey, Fingerprint>,
    business_ids: HashSet<(String, String)>,
    /// Credits granted for the first month, by wallet and contract.
    contracts: HashMap<(String, String), i64>,
    jobs: HashMap<(String, String), Job>,
    balances: BTreeMap<String, i64>,
    reversed: i64,
    outcomes: BTreeMap<String, u64>,
}

impl Reader {
    fn read(&mut self, record: &Record, expected: Expected) {
        let outcome = decoded(record, |event| {
            let Ok(Event { wallet_id, time, data, identity, .. }) = event else { return "quarantined" };
            let is_out_of_time =
                matches!(expected, Expected::Quarantined(Reason::TooOld | Reason::TooFarAhead));
            let Some(data) = data.filter(|_| !is_out_of_time) else {
                return if is_out_of_time { "quarantined" } else { "free" };
            };
            let Identity { key, fingerprint: print, .. } = identity;
            if let Some(known) = self.identities.get(&key) {
                return if Some(*known) == print { "duplicate" } else { "quarantined" };
            }
            let (Ok(data), Some(print)) = (data, print) else { return "quarantined" };
            let Some((outcome, credits)) = self.apply(&wallet_id, &data, time) else { return "quarantined" };
            self.identities.insert(key, print);
            *self.balances.entry(wallet_id.into_owned()).or_default() += credits;
            outcome
        });
        *self.outcomes.entry(outcome.to_owned()).or_default() += 1;
    }

    /// The outcome and what it does to the balance; `None`: it is refused.
    fn apply(&mut self, wallet: &str, data: &Data<'_>, at: EventTime) -> Option<(&'static str, i64)> {
        let pricing = &*PRICING;
        let allocation = |plan: &str| pricing.plan_at(plan, at).map(|plan| plan.credits_per_month);
        let contract = |id: &str| (wallet.to_owned(), id.to_owned());
        let second_month = |starts_at: Timestamp| starts_at.plus_months(1).unwrap();
        match data {
            Data::Requested(usage) => {
                let job = self.jobs.entry((wallet.to_owned(), usage.job_id.to_string())).or_default();
                assert!(job.held == 0 && !job.is_over && job.charges.is_empty(), "{usage:?}");
                job.held = cost(pricing, usage, at);
                Some(("held", 0))
            }
            Data::Completed(usage) => {
                let job = self.jobs.entry((wallet.to_owned(), usage.job_id.to_string())).or_default();
                let is_known = job.charges.contains_key("") || job.charges.contains_key(&*usage.asset_id);
                if is_known || (usage.asset_id.is_empty() && !job.charges.is_empty()) {
                    return None;
                }
                let cost = cost(pricing, usage, at);
                job.held = if usage.asset_id.is_empty() { 0 } else { (job.held - cost).max(0) };
                job.charges.insert(usage.asset_id.to_string(), cost);
                let is_void = job.void.contains("") || job.void.contains(&*usage.asset_id);
                self.reversed += if is_void { cost } else { 0 };
                Some(("charged", if is_void { 0 } else { -cost }))
            }
            Data::JobEnded(ended) => {
                let job = self.jobs.entry((wallet.to_owned(), ended.job_id.to_string())).or_default();
                let is_refund = ended.ending == JobEnding::Refunded;
                let released = if is_refund { 0 } else { std::mem::take(&mut job.held) };
                job.is_over |= !is_refund;
                let is_void =
                    ended.ending != JobEnding::Cancelled && job.void.insert(ended.asset_id.to_string());
                let charge = job.charges.get(&*ended.asset_id).copied().filter(|_| is_void);
                self.reversed += charge.unwrap_or(0);
                let outcome = if charge.is_some() {
                    "reversed"
                } else if released > 0 {
                    "released"
                } else {
                    "noted"
                };
                Some((outcome, charge.unwrap_or(0)))
            }
            Data::ContractStarted(start) => {
                let credits = allocation(&start.plan)?;
                let is_first = !self.contracts.keys().any(|(owner, _)| owner == wallet);
                if !is_first {
                    return None;
                }
                assert!(start.starts_at <= at.0 && second_month(start.starts_at) > end());
                self.contracts.insert(contract(&start.contract_id), credits);
                Some(("contract", credits))
            }
            Data::PlanChanged(change) => {
                let to = allocation(&change.plan)?;
                let granted = self.contracts.get_mut(&contract(&change.contract_id))?;
                let is_due = change.effective_at.unwrap() < unruly(1).start;
                assert!(is_due == (to > *granted) && (is_due || change.effective_at.unwrap() > end()));
                let more = if is_due { to - *granted } else { 0 };
                *granted += more;
                Some(("contract", more))
            }
            Data::ContractRenewed(renewal) => {
                allocation(if renewal.plan.is_empty() { "lite" } else { &renewal.plan })?;
                self.contracts.get(&contract(&renewal.contract_id)).map(|_| ("contract", 0))
            }
            Data::ContractCancelled(cancellation) => {
                self.contracts.get(&contract(&cancellation.contract_id)).map(|_| ("contract", 0))
            }
            Data::TopupPurchased(topup) => {
                let credits = pricing.pack_at(topup.amount_usd?, at)?.credits;
                let is_new = self.business_ids.insert((wallet.to_owned(), topup.topup_id.to_string()));
                is_new.then_some(("granted", credits))
            }
            Data::Adjusted(adjusted) => {
                let is_new =
                    self.business_ids.insert((wallet.to_owned(), adjusted.adjustment_id.to_string()));
                is_new.then_some(("adjusted", adjusted.credits))
            }
            Data::LimitsChanged(limits) => {
                assert!(!matches!(
                    limits.overdraft_limit,
                    Some(Limit::Own(OverdraftLimit::Credits(0..1_000_000)))
                ));
                Some(("limits", 0))
            }
        }
    }
}

fn cost(pricing: &Pricing, usage: &crate::event::Usage<'_>, at: EventTime) -> i64 {
    let card = pricing.rate_card_at(at).unwrap();
    usage.quantity.cost(card.rate(usage.quantity.asset_type(), &usage.model)).unwrap()
}

/// What must come second has the key of what must come first, and comes after it.
#[test]
fn conflicts_are_on_the_partition_of_what_they_contradict() {
    for (record, expected) in all_records(&unruly(20_000)).0 {
        let needs_order = [Reason::IdConflict, Reason::JobConflict, Reason::ContractConflict];
        let is_second = match expected {
            Expected::Quarantined(reason) => needs_order.contains(&reason),
            Expected::Held | Expected::Released | Expected::Reversed { .. } => true,
            _ => false,
        };
        if is_second {
            let wallet = decoded(&record, |event| event.unwrap().wallet_id.into_owned());
            assert_eq!(record.key(), Some(wallet.as_str()), "{}", shown(&record));
        }
    }
}

#[test]
fn prices_are_those_of_the_product() {
    for (made, quantity, credits) in [
        (Made::Images(4), Quantity::Images(4), 4),
        (Made::VideoMillis(4_000), Quantity::Video(VideoMillis(4_000)), 12),
        (Made::VideoMillis(7_250), Quantity::Video(VideoMillis(7_250)), 22),
        (Made::VideoMillis(1), Quantity::Video(VideoMillis(1)), 1),
        (Made::VideoMillis(334), Quantity::Video(VideoMillis(334)), 2),
    ] {
        let pricing = Pricing::built_in().unwrap();
        let card = pricing.rate_card_at(crate::time::EventTime(end())).unwrap();
        assert_eq!(made.credits(), credits);
        assert_eq!(quantity.cost(card.rate(quantity.asset_type(), "veo-3")).unwrap(), credits);
    }
}
