//! A contract's calendar: its months, its terms, and which plan is in force when.
//!
//! Months are counted from the first day of the contract, for ever, through renewals: month n begins at the first
//! instant plus n calendar months, clipped to the month's length. Pure arithmetic; nothing is posted here.

use compact_str::CompactString;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::warning::ExpiryWarning;
use crate::rate::Pricing;
use crate::time::{DAY_MS, EventTime, Timestamp};

/// A contract.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contract {
    /// Unique per wallet.
    pub contract_id: CompactString,
    /// First instant; the anchor of its months.
    pub starts_at: Timestamp,
    /// First instant after it: the end of its last term, or where it was cancelled.
    pub ends_at: Timestamp,
    /// Months of each of its terms; the last one may be booked only.
    pub terms: SmallVec<[u32; 4]>,
    /// Plans, by the instant from which on they are in force; the first from the start.
    pub plans: SmallVec<[PlanSpan; 1]>,
    /// Credits granted for each month so far.
    pub granted: SmallVec<[i64; 4]>,
    /// Its plans are not those that it began with: some month may be worth more than was granted for it.
    pub is_changed: bool,
    /// No renewal is possible any more.
    pub is_cancelled: bool,
    /// Its end was posted.
    pub is_ended: bool,
    /// The last warning of credits of it that expire.
    pub expiry_warned: Option<ExpiryWarning>,
}

/// A plan, from some instant on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanSpan {
    /// First instant.
    pub from: Timestamp,
    /// The plan's name.
    pub plan: CompactString,
}

/// A term of a contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Term {
    /// First instant.
    pub starts_at: Timestamp,
    /// First instant after it.
    pub ends_at: Timestamp,
    /// Its length.
    pub months: u32,
}

/// A month that must be granted, or granted more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DueMonth {
    /// Which, from 0.
    pub month: u32,
    /// Its start, or the change that made it worth more.
    pub granted_at: Timestamp,
    /// How much of it is missing.
    pub credits: i64,
    /// Whether something was granted for it before.
    pub is_difference: bool,
}

impl Contract {
    /// Whether it is in force at that time.
    pub fn covers(&self, at: Timestamp) -> bool {
        self.starts_at <= at && at < self.ends_at
    }

    /// Whether it would share an instant with `[starts_at, ends_at)`.
    pub fn overlaps(&self, starts_at: Timestamp, ends_at: Timestamp) -> bool {
        self.starts_at < self.ends_at && self.starts_at < ends_at && starts_at < self.ends_at
    }

    /// Start of its month `month`, counted from 0. What cannot be represented is never reached.
    pub fn month_start(&self, month: u32) -> Timestamp {
        self.starts_at.plus_months(month).unwrap_or(Timestamp::MAX)
    }

    /// The month that a time falls into; 0 for what is before the start.
    pub fn month_at(&self, at: Timestamp) -> u32 {
        // Months are at most 31 days long: this many have passed for sure.
        let days = at.millis().saturating_sub(self.starts_at.millis()).max(0) / DAY_MS;
        let mut month = u32::try_from(days / 31).unwrap_or(u32::MAX);
        while month < u32::MAX && self.month_start(month + 1) <= at {
            month += 1;
        }
        month
    }

    /// The term under way at a time: the first one before the start, the last one after the end.
    pub fn term_at(&self, at: Timestamp) -> Term {
        let mut months_before = 0;
        let mut term = Term { starts_at: self.starts_at, ends_at: self.ends_at, months: 0 };
        for months in &self.terms {
            let starts_at = self.month_start(months_before);
            if months_before > 0 && (at < starts_at || starts_at >= self.ends_at) {
                break;
            }
            months_before += months;
            let ends_at = self.month_start(months_before).min(self.ends_at);
            term = Term { starts_at, ends_at, months: *months };
        }
        term
    }

    /// The first instant after all its terms, wherever it was cancelled.
    pub fn terms_end(&self) -> Timestamp {
        self.month_start(self.terms.iter().fold(0, |sum, months| sum.saturating_add(*months)))
    }

    /// The plan in force at a time; before its start the first one.
    pub fn plan_at(&self, at: Timestamp) -> &str {
        let span = self.plans.iter().rev().find(|span| span.from <= at).or(self.plans.first());
        span.map_or("", |span| &*span.plan)
    }

    /// Puts a plan into force from an instant on, until the next change that is booked.
    pub fn change_plan(&mut self, from: Timestamp, plan: &str) {
        let place = self.plans.partition_point(|span| span.from < from);
        let span = PlanSpan { from, plan: plan.into() };
        match self.plans.get_mut(place).filter(|other| other.from == from) {
            Some(other) => *other = span,
            None => self.plans.insert(place, span),
        }
    }

    /// Credits that its plan grants a month, by the plan and the plans' version in force at a time.
    pub fn allocation_at(&self, at: Timestamp, pricing: &Pricing) -> i64 {
        pricing.allocation(self.plan_at(at), EventTime(at))
    }

    /// When its next month begins; `None` when all are granted.
    pub fn next_allocation_at(&self) -> Option<Timestamp> {
        let month = u32::try_from(self.granted.len()).unwrap_or(u32::MAX);
        Some(self.month_start(month)).filter(|starts_at| *starts_at < self.ends_at)
    }

    /// The next allocation. A month is worth what the plan in force at its start grants; what other plans add
    /// is a difference.
    pub fn next_allocation(&self, pricing: &Pricing) -> Option<DueMonth> {
        let granted_at = self.next_allocation_at()?;
        let month = u32::try_from(self.granted.len()).unwrap_or(u32::MAX);
        let credits = self.allocation_at(granted_at, pricing);
        Some(DueMonth { month, granted_at, credits, is_difference: false })
    }

    /// The first plan change since which some month was granted less than it is worth, and when it came into force.
    pub fn next_change(&self, pricing: &Pricing) -> Option<(Timestamp, usize)> {
        let mut changes = self.plans.iter().enumerate().filter(|_| self.is_changed);
        changes.find_map(|(place, span)| {
            self.differences(place, pricing).next().map(|_| (span.from.max(self.starts_at), place))
        })
    }

    /// The months that were granted less than the plan at that place of `plans` grants while it is in force.
    pub fn differences<'c>(
        &'c self,
        place: usize,
        pricing: &'c Pricing,
    ) -> impl Iterator<Item = DueMonth> + use<'c> {
        let until = self.plans.get(place + 1).map_or(self.ends_at, |next| next.from.min(self.ends_at));
        let months = self.plans.get(place).into_iter().flat_map(move |span| {
            let first = self.month_at(span.from);
            let granted = self.granted.iter().skip(first as usize);
            (first..).zip(granted).map(move |(month, granted)| (span, month, *granted))
        });
        let worth = months.map(move |(span, month, granted)| {
            let granted_at = span.from.max(self.month_start(month));
            let credits = pricing.allocation(&span.plan, EventTime(granted_at)) - granted;
            DueMonth { month, granted_at, credits, is_difference: true }
        });
        worth.take_while(move |due| due.granted_at < until).filter(|due| due.credits > 0)
    }

    /// So much more was granted for a month.
    pub fn add_granted(&mut self, month: u32, credits: i64) {
        let place = month as usize;
        if self.granted.len() <= place {
            self.granted.resize(place + 1, 0);
        }
        if let Some(granted) = self.granted.get_mut(place) {
            *granted = granted.saturating_add(credits);
        }
    }

    /// When credits of a month expire: with the term that it lies in.
    pub fn month_expires_at(&self, month: u32) -> Timestamp {
        self.term_at(self.month_start(month)).ends_at
    }
}
