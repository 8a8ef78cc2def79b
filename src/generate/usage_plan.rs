//! What is sent to the usage topic, and in which order.
//!
//! **Invariant:** exactly as many items as asked for. What must come second refers only to items that were
//! delivered before and have the wallet's own key, and gets that key too.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet, VecDeque};

use rand_distr::{Distribution, Zipf};

use super::chance::Chance;
use super::curve::DayCurve;
use super::encode::{FREE_TYPES, IMAGE_MODELS, SOURCES, VIDEO_MODELS};
use super::faults::{Base, USAGE_FAULTS};
use super::item::{Body, Ended, Expected, Item, Key, Made, Usage};
use super::options::{GenerateOptions, millionths};
use super::output::GenerateError;
use super::population::mix;
use crate::event::Reason;
use crate::time::{HOUR_MS, Timestamp};

const PURPOSE: u64 = 1;
/// How much more the great wallets use than the small ones.
const ZIPF_EXPONENT: f64 = 0.8;
/// Events that may be sent again: the latest, and as many from long before.
const REMEMBERED: usize = 4_096;
/// One event in so many is remembered for long.
const LONG_REMEMBERED_ONE_IN: u32 = 64;
const LATE_MS_MAX: i64 = 30 * 60_000;
/// One bad record in so many is mended and sent again under the same id.
const MENDED_ONE_IN: u32 = 4;
const ASSETS_OF_A_SHOOT: u8 = 4;
/// Holds end by themselves after 24 hours: what is requested in the last 12 is held, whenever it is read soon.
const HELD_HOURS: i64 = 12;
/// No job of several events begins when so few are left: all of them are sent.
const LAST_EVENTS: u64 = 8;
/// Place of `generation.refunded` among [`super::encode::ENDINGS`]; those before it end jobs that were not charged.
const REFUNDED: u8 = 3;
/// One refund in so many comes before the completion.
const EARLY_REFUND_ONE_IN: u32 = 8;
/// Lengths that video models make, seconds.
const USUAL_SECONDS: [u64; 3] = [4, 8, 12];
const ODD_MILLIS: [u64; 6] = [7_250, 5_500, 334, 9_999, 10_001, 1];

/// Thresholds of the roll that decides what comes next, each above the one before.
struct Shares {
    duplicates: u32,
    id_conflicts: u32,
    job_conflicts: u32,
    bad: u32,
    refunds: u32,
}

/// What comes after an item of the same job, or of the same record.
struct FollowUp {
    item: Item,
    /// An event of its own; else a record that is sent again, mended.
    is_new: bool,
}

/// An item that waits: delivered at, number, item.
struct Delayed(Timestamp, u64, Item);

/// The stream of usage items.
pub(super) struct UsagePlan {
    chance: Chance,
    shares: Shares,
    zipf: Zipf<f64>,
    curve: DayCurve,
    options: GenerateOptions,
    planned: u64,
    delayed: BinaryHeap<Reverse<Delayed>>,
    /// An item planned already, that comes after those that waited for its time.
    ready: Option<(Timestamp, Item)>,
    /// The rest of jobs that began, and mended records.
    follow_ups: VecDeque<FollowUp>,
    /// Jobs that were given back, or will be: once is enough.
    refunded: HashSet<(u64, u8)>,
    /// The last event that was delivered and charges nothing.
    last_other: Option<Item>,
    recent: Remembered,
    old: Remembered,
    next_fault: usize,
}

impl UsagePlan {
    pub(super) fn new(options: &GenerateOptions) -> Result<UsagePlan, GenerateError> {
        let duplicates = millionths(options.duplicates_percent);
        let id_conflicts = duplicates + millionths(options.id_conflicts_percent);
        let job_conflicts = id_conflicts + millionths(options.job_conflicts_percent);
        let bad = job_conflicts + millionths(options.bad_percent);
        let refunds = bad + millionths(options.refunds_percent);
        let zipf = Zipf::new(f64::from(options.wallets), ZIPF_EXPONENT)
            .map_err(|error| GenerateError::Options(format!("{} wallets: {error}", options.wallets)))?;
        Ok(UsagePlan {
            chance: Chance::new(options.seed, PURPOSE),
            shares: Shares { duplicates, id_conflicts, job_conflicts, bad, refunds },
            zipf,
            curve: DayCurve::new(options.start, options.end, options.events),
            options: options.clone(),
            planned: 0,
            delayed: BinaryHeap::new(),
            ready: None,
            follow_ups: VecDeque::new(),
            refunded: HashSet::new(),
            last_other: None,
            recent: Remembered::default(),
            old: Remembered::default(),
            next_fault: 0,
        })
    }

    /// The next item, and when it is delivered.
    pub(super) fn next(&mut self) -> Option<(Timestamp, Item)> {
        let delivered = self.next_delivery()?;
        let (_, item) = delivered;
        match item.expected {
            Expected::Charged { .. } => {
                self.recent.add(item);
                if self.chance.one_in(LONG_REMEMBERED_ONE_IN) {
                    self.old.add(item);
                }
            }
            Expected::Held | Expected::Released | Expected::Reversed { .. } | Expected::Noted => {
                self.last_other = Some(item);
            }
            _ => {}
        }
        Some(delivered)
    }

    fn next_delivery(&mut self) -> Option<(Timestamp, Item)> {
        loop {
            if let Some((ready_at, item)) = self.ready.take() {
                let is_due = |delayed: &Reverse<Delayed>| delayed.0.0 <= ready_at;
                if !self.delayed.peek().is_some_and(is_due) {
                    return Some((ready_at, item));
                }
                self.ready = Some((ready_at, item));
                return self.next_delayed();
            }
            if self.planned == self.options.events {
                return self.next_delayed();
            }
            let jitter = self.chance.bits() as u16;
            let at = self.curve.time_of(self.planned, jitter);
            self.planned += 1;
            let item = self.plan(at);
            let is_late = item.fault.is_none()
                && !item.is_ordered
                && matches!(item.expected, Expected::Charged { .. } | Expected::Free)
                && self.chance.percent(self.options.late_percent);
            if is_late {
                let deliver_at = at.plus_millis(self.chance.between(1, LATE_MS_MAX));
                self.delayed.push(Reverse(Delayed(deliver_at, self.planned, item)));
            } else {
                self.ready = Some((at, item));
            }
        }
    }

    fn next_delayed(&mut self) -> Option<(Timestamp, Item)> {
        let Reverse(Delayed(deliver_at, _, item)) = self.delayed.pop()?;
        Some((deliver_at, item))
    }

    /// Events that are still to be planned, the one under way included.
    fn left(&self) -> u64 {
        self.options.events + 1 - self.planned
    }

    fn plan(&mut self, at: Timestamp) -> Item {
        if self.follow_ups.len() as u64 >= self.left()
            && let Some(item) = self.follow_up(at)
        {
            return item;
        }
        let roll = self.chance.roll();
        let second = if roll < self.shares.duplicates {
            self.duplicate()
        } else if roll < self.shares.id_conflicts {
            self.id_conflict(at)
        } else if roll < self.shares.job_conflicts {
            self.job_conflict(at)
        } else if roll < self.shares.bad {
            Some(self.bad(at))
        } else if roll < self.shares.refunds {
            self.refund(at)
        } else if !self.follow_ups.is_empty() && self.chance.one_in(2) {
            self.follow_up(at)
        } else {
            None
        };
        // Nothing was sent yet that it could refer to.
        second.unwrap_or_else(|| self.fresh(at))
    }

    fn fresh(&mut self, at: Timestamp) -> Item {
        let (made, is_shoot) = self.made();
        let item = self.good(at, made);
        let Body::Usage(usage) = item.body else { return item };
        let has_room = self.left() > self.follow_ups.len() as u64 + LAST_EVENTS;
        if made.credits() == 0 || !has_room {
            return item;
        }
        let is_requested = at.millis() >= self.options.end.millis() - HELD_HOURS * HOUR_MS
            && self.chance.percent(self.options.requests_percent);
        let is_by_asset = is_shoot && self.chance.one_in(4);
        if self.chance.percent(self.options.failures_percent) {
            let ending = self.chance.below(usize::from(REFUNDED)) as u8;
            let ended = Item { body: self.ended(usage, ending), expected: Expected::Noted, ..item };
            return if is_requested { self.requested(item, [ended]) } else { ended };
        }
        match (is_requested, is_by_asset) {
            (false, false) => item,
            (true, false) => self.requested(item, [item]),
            (false, true) => {
                let [first, others @ ..] = assets_of(item, usage);
                self.follow_up_with(others);
                first
            }
            (true, true) => self.requested(item, assets_of(item, usage)),
        }
    }

    /// A job is asked for; what becomes of it follows. The estimate may be wrong, but for a job that is delivered by
    /// assets, whose hold must be used up.
    fn requested<const N: usize>(&mut self, whole: Item, then: [Item; N]) -> Item {
        let Body::Usage(usage) = whole.body else { return whole };
        let made = match (usage.made, self.chance.below(10)) {
            (Made::Images(images), 0) if N == 1 => Made::Images(images + 2),
            (Made::VideoMillis(millis), 0) => Made::VideoMillis(millis + 4_000),
            (Made::VideoMillis(millis), 1) => Made::VideoMillis(millis.div_ceil(2)),
            (made, _) => made,
        };
        let released = |item: Item| match item.body {
            Body::Ended(_) => Item { expected: Expected::Released, ..item },
            _ => item,
        };
        let ordered = |item: Item| Item { key: Key::Wallet, is_ordered: true, ..item };
        self.follow_up_with(then.map(released).map(ordered));
        let body = Body::Usage(Usage { is_request: true, made, ..usage });
        ordered(Item { body, expected: Expected::from(body), ..whole })
    }

    fn follow_up_with<const N: usize>(&mut self, items: [Item; N]) {
        self.follow_ups.extend(items.map(|item| FollowUp { item, is_new: true }));
    }

    fn ended(&mut self, usage: Usage, ending: u8) -> Body {
        let reason = self.chance.below(4) as u8;
        Body::Ended(Ended { source: usage.source, job: usage.job, asset: usage.asset, ending, reason })
    }

    /// A charge is given back: of an event delivered before, or of one that comes only then.
    fn refund(&mut self, at: Timestamp) -> Option<Item> {
        let has_room = self.left() > self.follow_ups.len() as u64 + LAST_EVENTS;
        let is_early = has_room && self.chance.one_in(EARLY_REFUND_ONE_IN);
        let original =
            if is_early { self.good(at, Made::Images(4)) } else { self.remembered_with_own_key()? };
        let Body::Usage(usage) = original.body else { return None };
        // A failure or a rejection of what was charged is a refund too.
        let ending = if self.chance.one_in(2) { REFUNDED } else { self.chance.below(2) as u8 };
        if !self.refunded.insert((usage.job, usage.asset)) {
            return None;
        }
        let credits = usage.made.credits();
        let expected = if is_early { Expected::Noted } else { Expected::Reversed { credits } };
        let refund = Item {
            at,
            event_id: self.chance.event_id(at),
            body: self.ended(usage, ending),
            key: Key::Wallet,
            is_ordered: true,
            expected,
            ..original
        };
        if is_early {
            let expected = Expected::Charged { credits, is_given_back: true };
            self.follow_up_with([Item { key: Key::Wallet, is_ordered: true, expected, ..original }]);
        }
        Some(refund)
    }

    /// What is made, and whether it is a shoot of several images.
    fn made(&mut self) -> (Made, bool) {
        match self.chance.below(100) {
            0..40 => (Made::Images(1), false),
            40..60 => (Made::Images(u32::from(ASSETS_OF_A_SHOOT)), true),
            60..63 => (Made::Images(u32::try_from(self.chance.between(2, 40)).unwrap_or(2)), false),
            63..85 => {
                let place = self.chance.below(USUAL_SECONDS.len());
                (Made::VideoMillis(USUAL_SECONDS.get(place).map_or(8_000, |seconds| seconds * 1_000)), false)
            }
            85..90 => (Made::VideoMillis(self.odd_millis()), false),
            _ => (Made::Free(self.chance.below(FREE_TYPES.len()) as u8), false),
        }
    }

    fn odd_millis(&mut self) -> u64 {
        if self.chance.one_in(2) {
            return u64::try_from(self.chance.between(1, 60_000)).unwrap_or(1);
        }
        let place = self.chance.below(ODD_MILLIS.len());
        ODD_MILLIS.get(place).copied().unwrap_or(1)
    }

    fn good(&mut self, at: Timestamp, made: Made) -> Item {
        let wallet = self.zipf.sample(self.chance.rng()) as u32;
        let models =
            if matches!(made, Made::VideoMillis(_)) { VIDEO_MODELS.len() } else { IMAGE_MODELS.len() };
        let usage = Usage {
            source: self.chance.below(SOURCES.len()) as u8,
            is_request: false,
            made,
            // One to one with the number of the item: no two jobs have one id.
            job: mix(self.planned ^ mix(self.options.seed)),
            asset: 0,
            model: self.chance.below(models) as u8,
            user: self.chance.below(40) as u16,
            project: self.chance.below(12) as u16,
        };
        let mut item = Item::good(wallet, self.chance.event_id(at), at, Body::Usage(usage));
        item.key = self.chance.key(self.options.wrong_key_percent, self.options.wallets);
        item.binary = self.chance.percent(self.options.binary_percent);
        item
    }

    fn follow_up(&mut self, at: Timestamp) -> Option<Item> {
        let FollowUp { item, is_new } = self.follow_ups.pop_front()?;
        if !is_new {
            return Some(item);
        }
        let any_key = self.chance.key(self.options.wrong_key_percent, self.options.wallets);
        let key = if item.is_ordered { Key::Wallet } else { any_key };
        Some(Item { event_id: self.chance.event_id(at), at, key, ..item })
    }

    /// The same event again: the same bytes, or spelt differently, under any key.
    fn duplicate(&mut self) -> Option<Item> {
        let other = self.last_other.filter(|_| self.chance.one_in(8));
        let original = other.or_else(|| self.remembered())?;
        // Before its job's other events it would be another story.
        let key = if original.is_ordered {
            Key::Wallet
        } else if self.chance.percent(self.options.wrong_key_percent) {
            Key::Random(self.chance.bits())
        } else {
            original.key
        };
        let respelt = self.chance.percent(40.0);
        let binary = if respelt { self.chance.one_in(4) } else { original.binary };
        Some(Item { key, respelt, binary, expected: Expected::Duplicate, ..original })
    }

    /// The source and id of an event delivered before, with another payload.
    fn id_conflict(&mut self, at: Timestamp) -> Option<Item> {
        let original = self.remembered_with_own_key()?;
        let Body::Usage(usage) = original.body else {
            return None;
        };
        let other = if self.chance.one_in(2) {
            Usage { project: usage.project + 1, ..usage }
        } else {
            Usage { job: mix(self.planned ^ mix(self.options.seed)), made: Made::Images(3), ..usage }
        };
        let expected = Expected::Quarantined(Reason::IdConflict);
        Some(Item { at, body: Body::Usage(other), expected, ..original })
    }

    /// A job delivered before, under another event id: as it was, or as a whole where it came by assets.
    fn job_conflict(&mut self, at: Timestamp) -> Option<Item> {
        let original = self.remembered_with_own_key()?;
        let Body::Usage(usage) = original.body else {
            return None;
        };
        let asset = if self.chance.one_in(3) { u8::from(usage.asset == 0) } else { usage.asset };
        let body = Body::Usage(Usage { asset, ..usage });
        let event_id = self.chance.event_id(at);
        Some(Item { at, event_id, body, expected: Expected::Quarantined(Reason::JobConflict), ..original })
    }

    fn bad(&mut self, at: Timestamp) -> Item {
        let place = self.next_fault % USAGE_FAULTS.len();
        self.next_fault += 1;
        let base = USAGE_FAULTS.get(place).map(|fault| fault.base);
        let made = match base {
            Some(Base::Video) => Made::VideoMillis(8_000),
            Some(Base::Free) => Made::Free(0),
            _ => Made::Images(4),
        };
        let mut item = self.good(at, made);
        // What was refused took no identity: mended, it is charged under the same id.
        if made.credits() > 0 && base != Some(Base::Ended) && self.chance.one_in(MENDED_ONE_IN) {
            item.key = Key::Wallet;
            self.follow_ups.push_back(FollowUp { item, is_new: false });
        }
        if let (Some(Base::Ended), Body::Usage(usage)) = (base, item.body) {
            item.body = self.ended(usage, REFUNDED);
        }
        USAGE_FAULTS.get(place).map_or(item, |fault| item.with_fault(fault))
    }

    fn remembered(&mut self) -> Option<Item> {
        let number = self.chance.bits() as usize;
        if self.chance.one_in(4) { self.old.get(number) } else { self.recent.get(number) }
    }

    fn remembered_with_own_key(&mut self) -> Option<Item> {
        (0..16).find_map(|_| self.remembered().filter(|item| item.key == Key::Wallet))
    }
}

/// A shoot, image by image.
fn assets_of(whole: Item, shoot: Usage) -> [Item; ASSETS_OF_A_SHOOT as usize] {
    std::array::from_fn(|place| {
        let body = Body::Usage(Usage { made: Made::Images(1), asset: place as u8 + 1, ..shoot });
        Item { body, expected: Expected::from(body), ..whole }
    })
}

/// The last so many items.
#[derive(Default)]
struct Remembered {
    items: Vec<Item>,
    added: usize,
}

impl Remembered {
    fn add(&mut self, item: Item) {
        match self.items.get_mut(self.added % REMEMBERED) {
            Some(place) => *place = item,
            None => self.items.push(item),
        }
        self.added += 1;
    }

    fn get(&self, number: usize) -> Option<Item> {
        self.items.get(number % self.items.len().max(1)).copied()
    }
}

impl PartialEq for Delayed {
    fn eq(&self, other: &Delayed) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Delayed {}

impl PartialOrd for Delayed {
    fn partial_cmp(&self, other: &Delayed) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Delayed {
    fn cmp(&self, other: &Delayed) -> std::cmp::Ordering {
        (self.0, self.1).cmp(&(other.0, other.1))
    }
}
