//! Ledger entries: one per posting, each complete in itself, and the record that carries those of one event.
//!
//! The JSON names are those of the ClickHouse columns. What is 0, empty or absent is left out and read back
//! as that. One event's entries are one record, so that nothing can tear an event.

use std::borrow::Cow;

use chrono::NaiveDate;
use compact_str::CompactString;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::Level;
use super::warning::ExpiryWarning;
use crate::event::Fingerprint;
use crate::rate::{AssetType, Rate, UsdCents, VideoMillis};
use crate::time::Timestamp;

/// Reason of the entry that notes a refund of a job that nobody has heard of.
pub(super) const UNKNOWN_JOB: &str = "unknown_job";

/// Version of the format, `v` of a record.
pub const LEDGER_FORMAT: u32 = 1;

/// The value of a record of `credits.ledger`; its key is the wallet id.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LedgerRecord<'a> {
    /// Format version.
    pub v: u32,
    /// The wallet, as the key.
    #[serde(borrow)]
    pub wallet_id: Cow<'a, str>,
    /// Day of the shard clock when it was posted, where that is not the day of the entries' event time. What is
    /// remembered of the event lives from the later of the two.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_day: Option<NaiveDate>,
    /// What one event, or one timer, posted; `seq` ascending without gap.
    pub entries: Vec<Entry<'a>>,
}

impl Entry<'_> {
    /// Whether it makes a reservation, or ends one.
    pub fn moves_hold(&self) -> bool {
        matches!(self.entry_type, EntryType::Held | EntryType::Released)
    }

    /// Whether it notes the refund of a job that nobody had heard of.
    pub fn is_unknown_refund(&self) -> bool {
        self.entry_type == EntryType::Noted
            && self.event_type == "generation.refunded"
            && self.reason == UNKNOWN_JOB
    }
}

impl LedgerRecord<'_> {
    /// Day of the shard clock when it was posted, since the epoch.
    pub fn clock_day(&self) -> i32 {
        let stated = self.clock_day.map(|day| day.signed_duration_since(NaiveDate::default()).num_days());
        let of_event = self.entries.first().map_or(0, |entry| entry.event_time.day());
        stated.and_then(|day| i32::try_from(day).ok()).unwrap_or(of_event)
    }
}

/// What a posting did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EntryType {
    /// A contract began; no credits by itself.
    ContractStarted,
    /// A contract's plan or end was changed, or is going to.
    ContractChanged,
    /// A contract goes on for another term.
    ContractRenewed,
    /// A contract came to its end.
    ContractEnded,
    /// Credits came in by plan or top-up.
    Granted,
    /// Credits came in or went out by a person.
    Adjusted,
    /// Usage was debited.
    Charged,
    /// Usage would have gone past the overdraft limit: nothing was drawn, `amount` is its full cost.
    Refused,
    /// A charge was given back.
    Reversed,
    /// What was left of a grant expired.
    Expired,
    /// `amount` of credits that came in went into the overdraft.
    OverdraftRepaid,
    /// Credits were reserved for a job.
    Held,
    /// A reservation ended, or a part of it.
    Released,
    /// What the wallet may do was changed.
    LimitsChanged,
    /// Accepted and remembered; nothing else.
    Noted,
}

impl EntryType {
    /// All types.
    pub const ALL: [EntryType; 15] = [
        EntryType::ContractStarted,
        EntryType::ContractChanged,
        EntryType::ContractRenewed,
        EntryType::ContractEnded,
        EntryType::Granted,
        EntryType::Adjusted,
        EntryType::Charged,
        EntryType::Refused,
        EntryType::Reversed,
        EntryType::Expired,
        EntryType::OverdraftRepaid,
        EntryType::Held,
        EntryType::Released,
        EntryType::LimitsChanged,
        EntryType::Noted,
    ];

    /// The name in entries and tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            EntryType::ContractStarted => "contract_started",
            EntryType::ContractChanged => "contract_changed",
            EntryType::ContractRenewed => "contract_renewed",
            EntryType::ContractEnded => "contract_ended",
            EntryType::Granted => "granted",
            EntryType::Adjusted => "adjusted",
            EntryType::Charged => "charged",
            EntryType::Refused => "refused",
            EntryType::Reversed => "reversed",
            EntryType::Expired => "expired",
            EntryType::OverdraftRepaid => "overdraft_repaid",
            EntryType::Held => "held",
            EntryType::Released => "released",
            EntryType::LimitsChanged => "limits_changed",
            EntryType::Noted => "noted",
        }
    }
}

/// Where credits of a grant come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GrantKind {
    /// A month of a contract.
    Plan,
    /// A top-up pack.
    Topup,
    /// A person.
    Adjustment,
}

impl GrantKind {
    /// The name in entries and tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            GrantKind::Plan => "plan",
            GrantKind::Topup => "topup",
            GrantKind::Adjustment => "adjustment",
        }
    }
}

/// One posting.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry<'a> {
    /// 1, 2, 3 … per wallet.
    pub seq: u64,
    /// What it did.
    pub entry_type: EntryType,
    /// Signed effect on the balance.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub credits: i64,
    /// Signed effect on what is held.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub held_credits: i64,
    /// Its size where both effects are 0.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub amount: i64,
    /// When the ledger wrote it.
    pub posted_at: Timestamp,
    /// When it happened.
    pub event_time: Timestamp,
    /// Type of the event, without a configured prefix.
    #[serde(borrow, default, skip_serializing_if = "is_empty")]
    pub event_type: Cow<'a, str>,
    /// Producer of the event.
    #[serde(borrow, default, skip_serializing_if = "is_empty")]
    pub source: Cow<'a, str>,
    /// Id of the event.
    #[serde(borrow, default, skip_serializing_if = "is_empty")]
    pub event_id: Cow<'a, str>,
    /// What the event said.
    #[serde(default)]
    pub fingerprint: Fingerprint,
    /// Job of the usage.
    #[serde(borrow, default, skip_serializing_if = "is_empty")]
    pub job_id: Cow<'a, str>,
    /// Asset of the job.
    #[serde(borrow, default, skip_serializing_if = "is_empty")]
    pub asset_id: Cow<'a, str>,
    /// Kind of asset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asset_type: Option<AssetType>,
    /// Model that made it.
    #[serde(borrow, default, skip_serializing_if = "is_empty")]
    pub model: Cow<'a, str>,
    /// User who asked for it.
    #[serde(borrow, default, skip_serializing_if = "is_empty")]
    pub user_id: Cow<'a, str>,
    /// Project that it is for.
    #[serde(borrow, default, skip_serializing_if = "is_empty")]
    pub project_id: Cow<'a, str>,
    /// Images made.
    #[serde(default, skip_serializing_if = "is_no_images")]
    pub images: u32,
    /// Seconds of video made.
    #[serde(default, skip_serializing_if = "is_no_video")]
    pub video_seconds: VideoMillis,
    /// Rate card that priced it.
    #[serde(borrow, default, skip_serializing_if = "is_empty")]
    pub rate_card: Cow<'a, str>,
    /// Credits per image or second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
    /// Grants drawn from (-), made or returned to (+).
    #[serde(default, skip_serializing_if = "SmallVec::is_empty")]
    pub grant_effects: GrantEffects,
    /// Balance after this entry.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub balance_after: i64,
    /// Held credits after this entry.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub held_after: i64,
    /// Overdraft after this entry.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub overdraft_after: i64,
    /// Level of the wallet once the whole event was posted.
    pub level: Level,
    /// Plan in force at the event's time.
    #[serde(default, skip_serializing_if = "CompactString::is_empty")]
    pub plan: CompactString,
    /// Contract in force at the event's time, or that it is about.
    #[serde(default, skip_serializing_if = "CompactString::is_empty")]
    pub contract_id: CompactString,
    /// First day of the contract's month.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub period_start: Option<NaiveDate>,
    /// Price of a top-up.
    #[serde(default, skip_serializing_if = "is_no_amount")]
    pub amount_usd: UsdCents,
    /// Why a person did it; of a warning: its kind.
    #[serde(borrow, default, skip_serializing_if = "is_empty")]
    pub reason: Cow<'a, str>,
    /// Who did it.
    #[serde(borrow, default, skip_serializing_if = "is_empty")]
    pub actor: Cow<'a, str>,
    /// An invoice or ticket.
    #[serde(borrow, default, skip_serializing_if = "is_empty")]
    pub reference: Cow<'a, str>,
    /// Topic that the event was first written to.
    #[serde(borrow, default, skip_serializing_if = "is_empty")]
    pub origin_topic: Cow<'a, str>,
    /// Its partition there.
    #[serde(default)]
    pub origin_partition: i32,
    /// Its offset there.
    #[serde(default)]
    pub origin_offset: i64,
    /// `contract:…`, `topup:…` or `adjustment:…` where this entry uses up such an id for ever.
    #[serde(borrow, default, skip_serializing_if = "is_empty")]
    pub business_id: Cow<'a, str>,
    /// Terms of the grant that it makes.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub grant: Option<GrantTerms<'a>>,
    /// Terms of the contract that it begins or changes.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub contract: Option<Box<ContractTerms<'a>>>,
    /// When what it holds is released by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_until: Option<Timestamp>,
    /// The overdraft that a refused charge would have gone past, credits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overdraft_limit: Option<i64>,
    /// Its event spoke for a whole job, also where this entry is about one asset of it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub whole_job: bool,
    /// The wallet's own limits after it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<WalletLimits>,
    /// Totals of its rollup bucket after it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bucket: Option<BucketTotals>,
    /// Of a warning of credits that expire: when, and how many days before that it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<ExpiryWarning>,
}

/// Where a record was first written, also if it was handed over since.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Origin<'a> {
    /// Topic.
    pub topic: &'a str,
    /// Partition.
    pub partition: i32,
    /// Offset.
    pub offset: i64,
}

/// What an entry did to grants: nearly always to one.
pub type GrantEffects = SmallVec<[GrantEffect; 1]>;

/// What an entry did to one grant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GrantEffect {
    /// `plan:<contract>:<month>`, `topup:<id>` or `adjustment:<id>`.
    pub grant_id: CompactString,
    /// Its kind.
    pub kind: GrantKind,
    /// Drawn (-) or added (+).
    pub credits: i64,
    /// Left in it after this entry.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub remaining_after: i64,
    /// How many of its credits went into overdraft, after this entry.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub repaid_after: i64,
    /// Its expiry; absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
}

/// Terms of a grant that cannot be told from its effect. Its id, kind, credits and expiry stand there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GrantTerms<'a> {
    /// Lower pays first.
    pub priority: u16,
    /// By the event's time, or when it was due.
    pub granted_at: Timestamp,
    /// Contract of a plan's grant.
    #[serde(borrow, default, skip_serializing_if = "is_empty")]
    pub contract_id: Cow<'a, str>,
    /// Month of the contract, from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub month: Option<u32>,
    /// More for a month that was granted before.
    #[serde(default, skip_serializing_if = "is_false")]
    pub is_difference: bool,
}

/// Terms of a contract: all that is needed to reckon its months.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ContractTerms<'a> {
    /// Unique per wallet.
    #[serde(borrow)]
    pub contract_id: Cow<'a, str>,
    /// Plan in force at the event's time; its first one before it starts.
    #[serde(borrow)]
    pub plan: Cow<'a, str>,
    /// First instant; the anchor of its months.
    pub starts_at: Timestamp,
    /// First instant after it.
    pub ends_at: Timestamp,
    /// Months of each term, the last one may be booked only.
    pub terms: Vec<u32>,
    /// Plans, by the instant from which on they are in force.
    #[serde(borrow)]
    pub plans: Vec<PlanTerms<'a>>,
    /// The plan that a change asks for, and from when on it is in force.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub asked_plan: Option<PlanTerms<'a>>,
    /// No renewal is possible any more.
    #[serde(default, skip_serializing_if = "is_false")]
    pub is_cancelled: bool,
}

/// A plan of a contract, from some instant on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlanTerms<'a> {
    /// First instant.
    pub from: Timestamp,
    /// The plan's name.
    #[serde(borrow)]
    pub plan: Cow<'a, str>,
}

/// A wallet's own limits. What is absent is as its plan or the configuration says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WalletLimits {
    /// How far charges may overdraw, credits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overdraft_limit: Option<i64>,
    /// Charges may overdraw without end, whatever the plan says.
    #[serde(default, skip_serializing_if = "is_false")]
    pub is_unlimited: bool,
    /// Threshold of level `low`, percent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub low_percent: Option<u8>,
    /// Threshold of level `critical`, percent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub critical_percent: Option<u8>,
}

/// Running totals of the rollup bucket (wallet, hour, asset type, model, plan) that an entry counts in.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct BucketTotals {
    /// Start of the hour of the event's time.
    pub hour: Timestamp,
    /// Seq at which these totals began; totals of several parts add up.
    pub part: u64,
    /// Jobs first charged.
    pub jobs: u64,
    /// Images charged.
    #[serde(default, skip_serializing_if = "is_no_total")]
    pub images: u64,
    /// Seconds charged.
    #[serde(default, skip_serializing_if = "is_no_video")]
    pub video_seconds: VideoMillis,
    /// Credits charged.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub credits_charged: i64,
    /// Credits given back.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub credits_reversed: i64,
    /// Credits refused.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub credits_refused: i64,
}

fn is_zero(value: &i64) -> bool {
    *value == 0
}

fn is_false(value: &bool) -> bool {
    !*value
}

fn is_no_total(value: &u64) -> bool {
    *value == 0
}

fn is_no_images(value: &u32) -> bool {
    *value == 0
}

fn is_no_video(value: &VideoMillis) -> bool {
    value.0 == 0
}

fn is_no_amount(value: &UsdCents) -> bool {
    value.0 == 0
}

// serde hands over what the field holds.
#[allow(clippy::ptr_arg)]
fn is_empty(value: &Cow<'_, str>) -> bool {
    value.is_empty()
}
