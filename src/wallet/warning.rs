//! Warnings: what a wallet is warned of, when that is due, and what arms it again.
//!
//! A warning is a due posting like others ([`super::due`]): one `noted` entry, whose reason is its kind. What was warned of
//! is part of the wallet and changed by the fold alone, so that no restart repeats a warning.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::contract::Contract;
use super::entry::{Entry, EntryType};
use super::fold::Breach;
use super::grant::GrantOrigin;
use super::posting::Posting;
use super::state::Wallet;
use crate::time::{DAY_MS, Timestamp};

/// A wallet is warned when what is available lasts for less.
const RUNWAY_DAYS: i128 = 3;
/// The pace of usage is that of so many whole days at most.
const PACE_DAYS: usize = 7;
/// Days before plan credits expire for which a wallet is warned, and the next ones, from whose time on the former are passed over.
const EXPIRY_DAYS: [(u16, u16); 3] = [(30, 7), (7, 1), (1, 0)];
/// An overdraft may be open for so long.
const OVERDRAFT_MS: i64 = 7 * DAY_MS;

/// What a wallet is warned of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WarningKind {
    /// At the present pace its credits end soon.
    Runway,
    /// Plan credits expire soon.
    Expiring,
    /// Its overdraft is not paid.
    OverdraftUnpaid,
    /// A reservation was neither used nor released in time.
    HoldTimedOut,
}

/// How fast a wallet uses credits.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pace {
    /// Day of the earliest charge ever, by its event's time, since the epoch.
    pub first_day: i32,
    /// Credits charged on the day of the wallet's `latest_at` and on each of the seven days before, the latest first;
    /// no zeros in the end.
    pub charged: SmallVec<[i64; PACE_DAYS + 1]>,
    /// The wallet was warned, and that is not armed again.
    pub is_warned: bool,
}

/// An open overdraft.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overdrawn {
    /// The wallet's `latest_at` when it was no longer 0.
    pub since: Timestamp,
    /// The wallet was warned of it.
    pub is_warned: bool,
}

/// A warning of plan credits that expire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExpiryWarning {
    /// So many days before.
    pub days: u16,
    /// When they expire.
    pub expires_at: Timestamp,
}

impl WarningKind {
    /// All kinds.
    pub const ALL: [WarningKind; 4] =
        [WarningKind::Runway, WarningKind::Expiring, WarningKind::OverdraftUnpaid, WarningKind::HoldTimedOut];

    /// The reason of its entry.
    pub const fn as_str(self) -> &'static str {
        match self {
            WarningKind::Runway => "runway",
            WarningKind::Expiring => "expiring",
            WarningKind::OverdraftUnpaid => "overdraft_unpaid",
            WarningKind::HoldTimedOut => "hold_timed_out",
        }
    }
}

impl Entry<'_> {
    /// What it warns of. A note of an event may give the same word as its reason, but a warning has no event.
    pub fn warning_kind(&self) -> Option<WarningKind> {
        if self.entry_type != EntryType::Noted || !self.event_type.is_empty() {
            return None;
        }
        WarningKind::ALL.into_iter().find(|kind| kind.as_str() == self.reason)
    }
}

impl Pace {
    fn since(first_day: i32) -> Pace {
        Pace { first_day, ..Pace::default() }
    }

    /// The days that are counted move on.
    fn pass_days(&mut self, days: i32) {
        let days = usize::try_from(days).unwrap_or_default().min(PACE_DAYS + 1);
        self.charged.insert_many(0, std::iter::repeat_n(0, days));
        self.charged.truncate(PACE_DAYS + 1);
        self.trim();
    }

    /// A charge of so many days ago. What is older than the days that are kept does not count any more.
    fn charge(&mut self, days_ago: i32, credits: i64) {
        let place = usize::try_from(days_ago).unwrap_or_default();
        if place <= PACE_DAYS && self.charged.len() <= place {
            self.charged.resize(place + 1, 0);
        }
        if let Some(charged) = self.charged.get_mut(place) {
            *charged = charged.saturating_add(credits);
        }
        self.trim();
    }

    fn trim(&mut self) {
        while self.charged.last() == Some(&0) {
            self.charged.pop();
        }
    }

    /// Whether so many credits, of which there are some, last for less than 3 days, today or (1) tomorrow, by the whole days
    /// before.
    fn is_short(&self, available: i64, today: i32, days_ahead: usize) -> bool {
        let counted = self.charged.iter().skip(1 - days_ahead.min(1)).take(PACE_DAYS);
        let charged: i128 = counted.map(|credits| i128::from(*credits)).sum();
        let days_since = i128::from(today) + days_ahead as i128 - i128::from(self.first_day);
        let days = days_since.clamp(1, PACE_DAYS as i128);
        i128::from(available) * days < RUNWAY_DAYS * charged
    }

    /// After how many days it is short first as things stand: after that of tomorrow no midnight makes it so, for days are
    /// only left out of the pace.
    fn first_short(&self, available: i64, today: i32) -> Option<usize> {
        let all: i128 = self.charged.iter().map(|credits| i128::from(*credits)).sum();
        // Nearly every wallet, and this is asked after every posting.
        if i128::from(available) >= RUNWAY_DAYS * all {
            return None;
        }
        (0..=1).find(|days_ahead| self.is_short(available, today, *days_ahead))
    }
}

impl Contract {
    /// The next warning of credits of it that expire then, and when it is due. One warning for each number of days; of those
    /// whose time has passed the last one only.
    pub(super) fn next_expiry_warning(
        &self,
        expires_at: Timestamp,
        latest: Timestamp,
    ) -> Option<(Timestamp, ExpiryWarning)> {
        let warned = self.expiry_warned.filter(|warned| warned.expires_at == expires_at);
        let time = |days: u16| expires_at.plus_millis(-i64::from(days) * DAY_MS);
        let is_next =
            |days: u16, after: u16| warned.is_none_or(|warned| days < warned.days) && latest < time(after);
        let (days, _) = EXPIRY_DAYS.into_iter().find(|(days, after)| is_next(*days, *after))?;
        Some((time(days).max(latest), ExpiryWarning { days, expires_at }))
    }
}

impl Wallet {
    /// When it is to be warned that its credits end soon: now, or at the next midnight.
    pub(super) fn runway_due(&self) -> Option<Timestamp> {
        let pace = self.pace.as_ref().filter(|pace| !pace.is_warned)?;
        let available = self.available();
        // That nothing is available is said by the level.
        let days_ahead = Some(available)
            .filter(|some| *some > 0)
            .and_then(|some| pace.first_short(some, self.latest_at.day()))?;
        if days_ahead == 0 {
            return Some(self.latest_at);
        }
        let day = self.latest_at.day_number() + days_ahead as i64;
        Some(Timestamp::from_millis(day * DAY_MS))
    }

    /// When it is to be warned that its overdraft is not paid.
    pub(super) fn overdraft_due(&self) -> Option<Timestamp> {
        let open = self.overdrawn.filter(|open| !open.is_warned)?;
        Some(open.since.plus_millis(OVERDRAFT_MS).max(self.latest_at))
    }

    /// Takes from an entry what warnings go by. `last_day`: that of `latest_at` before it.
    pub(super) fn fold_warnings(&mut self, entry: &Entry<'_>, last_day: i32) {
        let today = self.latest_at.day();
        if today > last_day
            && let Some(pace) = &mut self.pace
        {
            pace.pass_days(today.saturating_sub(last_day));
        }
        if entry.entry_type == EntryType::Charged {
            let day = entry.event_time.day();
            let pace = self.pace.get_or_insert_with(|| Pace::since(day));
            pace.first_day = pace.first_day.min(day);
            pace.charge(today.saturating_sub(day), entry.credits.saturating_neg());
        }
        match entry.warning_kind() {
            Some(WarningKind::Runway) => self.pace.iter_mut().for_each(|pace| pace.is_warned = true),
            Some(WarningKind::OverdraftUnpaid) => {
                self.overdrawn.iter_mut().for_each(|open| open.is_warned = true);
            }
            Some(WarningKind::Expiring) => {
                let contracts = self.contracts.iter_mut();
                let mut its_own = contracts.filter(|contract| *contract.contract_id == *entry.contract_id);
                its_own.next().into_iter().for_each(|contract| contract.expiry_warned = entry.warning);
            }
            Some(WarningKind::HoldTimedOut) | None => {}
        }
    }

    /// Ends a unit, all entries of one event or of one due posting: what it arms again, begins or ends, and what the wallet
    /// lets go of (see [`Wallet::prune`]). The same when it is posted and when it is read back.
    pub fn end_unit(&mut self, first_day: i32) {
        self.overdrawn = match self.overdrawn {
            _ if self.overdraft == 0 => None,
            None => Some(Overdrawn { since: self.latest_at, is_warned: false }),
            open => open,
        };
        if self.pace.as_ref().is_some_and(|pace| pace.is_warned) {
            let (available, today) = (self.available(), self.latest_at.day());
            let is_well = |pace: &Pace| available > 0 && !pace.is_short(available, today, 0);
            self.pace.iter_mut().filter(|pace| is_well(pace)).for_each(|pace| pace.is_warned = false);
        }
        self.prune(first_day);
    }
}

impl Posting<'_, '_, '_> {
    /// Warns that credits end soon.
    pub fn warn_of_runway(&mut self) -> Result<(), Breach> {
        let entry = self.warning(WarningKind::Runway, self.wallet.available());
        self.post(entry)
    }

    /// Warns that plan credits of the contract at that place expire soon.
    pub fn warn_of_expiry(&mut self, place: usize, warning: ExpiryWarning) -> Result<(), Breach> {
        let Some(contract) = self.wallet.contracts.get(place) else { return Ok(()) };
        let (contract_id, plan) = (contract.contract_id.clone(), contract.plan_at(self.event_time()).into());
        let unused = self.wallet.grants.iter().filter(|grant| {
            let is_its_own =
                matches!(grant.origin, GrantOrigin::Plan { contract, .. } if usize::from(contract) == place);
            is_its_own && grant.expires_at == Some(warning.expires_at)
        });
        let unused = unused.map(|grant| grant.remaining).fold(0, i64::saturating_add);
        let mut entry = self.warning(WarningKind::Expiring, unused);
        entry.contract_id = contract_id;
        entry.plan = plan;
        entry.warning = Some(warning);
        self.post(entry)
    }

    /// Warns that the overdraft is not paid.
    pub fn warn_of_overdraft(&mut self) -> Result<(), Breach> {
        let entry = self.warning(WarningKind::OverdraftUnpaid, self.wallet.overdraft);
        self.post(entry)
    }

    /// Warns that a reservation has timed out.
    pub fn warn_of_hold(&mut self, job_id: &str, asset_id: &str, credits: i64) -> Result<(), Breach> {
        let mut entry = self.warning(WarningKind::HoldTimedOut, credits);
        entry.job_id = Cow::Owned(job_id.to_owned());
        entry.asset_id = Cow::Owned(asset_id.to_owned());
        self.post(entry)
    }
}

impl<'a> Posting<'_, 'a, '_> {
    fn warning(&self, kind: WarningKind, credits: i64) -> Entry<'a> {
        let mut entry = self.blank(EntryType::Noted);
        entry.reason = Cow::Borrowed(kind.as_str());
        entry.amount = credits;
        entry
    }
}
