//! Reads the data of each type: which fields it has, which are required, what they may hold.

use std::borrow::Cow;

use super::data::{
    Adjusted, ContractCancelled, ContractRenewed, ContractStarted, Data, JobEnded, JobEnding, Limit,
    LimitsChanged, OverdraftLimit, PlanChanged, TopupPurchased, Usage,
};
use super::members::{Members, RawData};
use super::scan::Raw;
use super::{EventKind, ID_BYTES_MAX, Reason, Rejection, TEXT_BYTES_MAX, is_id};
use crate::rate::{Quantity, UsdCents, VideoMillis, exact_scaled};
use crate::time::{DAY_MS, EventTime, Timestamp};

/// Farthest start of a contract after its event, days.
const START_AHEAD_DAYS_MAX: i64 = 366;
/// Decimals that a price may have and still be called a number (of no pack).
const AMOUNT_SCALE: u32 = 9;
/// Term of a contract that names none, months.
const TERM_MONTHS: u32 = 12;

/// Upper limits, from the configuration.
#[derive(Clone, Copy, Debug)]
pub(super) struct DataLimits {
    pub images: u32,
    pub video_seconds: u32,
    pub adjustment_credits: i64,
    pub term_months: u32,
}

/// Reads the data of a type that has some.
///
/// # Errors
/// `missing_field` if any required field is absent or null, else `bad_value` for the first bad one.
pub(super) fn read<'a>(
    kind: EventKind,
    raw: &RawData<'a>,
    time: EventTime,
    limits: &DataLimits,
) -> Result<Data<'a>, Rejection> {
    if let Some(fault) = &raw.fault {
        return Err(bad(format!("data cannot be read: {fault}")));
    }
    let raw = &raw.members;
    match kind {
        EventKind::GenerationRequested => usage(raw, limits).map(Data::Requested),
        EventKind::GenerationCompleted => usage(raw, limits).map(Data::Completed),
        EventKind::GenerationFailed => job_ended(raw, JobEnding::Failed).map(Data::JobEnded),
        EventKind::GenerationRejected => job_ended(raw, JobEnding::Rejected).map(Data::JobEnded),
        EventKind::GenerationCancelled => job_ended(raw, JobEnding::Cancelled).map(Data::JobEnded),
        EventKind::GenerationRefunded => job_ended(raw, JobEnding::Refunded).map(Data::JobEnded),
        EventKind::ContractStarted => contract_started(raw, time, limits).map(Data::ContractStarted),
        EventKind::ContractPlanChanged => plan_changed(raw).map(Data::PlanChanged),
        EventKind::ContractRenewed => contract_renewed(raw, limits).map(Data::ContractRenewed),
        EventKind::ContractCancelled => contract_cancelled(raw).map(Data::ContractCancelled),
        EventKind::TopupPurchased => topup_purchased(raw).map(Data::TopupPurchased),
        EventKind::WalletAdjusted => adjusted(raw, time, limits).map(Data::Adjusted),
        EventKind::WalletLimitsChanged => limits_changed(raw, limits).map(Data::LimitsChanged),
        EventKind::Free => Err(bad("a free event has no data of its own".to_owned())),
    }
}

fn usage<'a>(raw: &Members<'a>, limits: &DataLimits) -> Result<Usage<'a>, Rejection> {
    let job_id = present("job_id", raw.job_id)?;
    let asset = present("asset", raw.asset)?;
    let quantity = match asset.text().as_deref() {
        Some("image") => Quantity::Images(images(present("images", raw.images)?.spelt, limits)?),
        Some("video") => Quantity::Video(seconds(present("seconds", raw.seconds)?.spelt, limits)?),
        _ => {
            return Err(bad(format!(
                "data.asset is {}: expected \"image\" or \"video\"",
                shown(asset.spelt)
            )));
        }
    };
    Ok(Usage {
        job_id: id("job_id", job_id)?,
        asset_id: optional_id("asset_id", raw.asset_id)?,
        quantity,
        model: optional_id("model", raw.model)?,
        user_id: optional_id("user_id", raw.user_id)?,
        project_id: optional_id("project_id", raw.project_id)?,
    })
}

fn images(raw: &str, limits: &DataLimits) -> Result<u32, Rejection> {
    let images = number(raw, 0).and_then(|images| u32::try_from(images).ok());
    images.filter(|images| (1..=limits.images).contains(images)).ok_or_else(|| {
        bad(format!("data.images is {}: expected a whole number from 1 to {}", shown(raw), limits.images))
    })
}

fn seconds(raw: &str, limits: &DataLimits) -> Result<VideoMillis, Rejection> {
    let longest = u64::from(limits.video_seconds) * 1_000;
    let millis = number(raw, 3).and_then(|millis| u64::try_from(millis).ok());
    millis.filter(|millis| (1..=longest).contains(millis)).map(VideoMillis).ok_or_else(|| {
        bad(format!(
            "data.seconds is {}: expected a number above 0, at most {}, with at most 3 decimals",
            shown(raw),
            limits.video_seconds
        ))
    })
}

fn contract_started<'a>(
    raw: &Members<'a>,
    time: EventTime,
    limits: &DataLimits,
) -> Result<ContractStarted<'a>, Rejection> {
    let contract_id = present("contract_id", raw.contract_id)?;
    let plan = present("plan", raw.plan)?;
    let starts_at = present("starts_at", raw.starts_at)?;

    let contract_id = id("contract_id", contract_id)?;
    let plan = id("plan", plan)?;
    let starts_at = instant("starts_at", starts_at)?;
    let term_months = optional_term(raw, limits)?.unwrap_or(TERM_MONTHS);
    let ends_at = starts_at.plus_months(term_months);
    let ends_at = ends_at
        .ok_or_else(|| bad(format!("data.starts_at is {starts_at}: the term's end cannot be represented")))?;
    if ends_at <= time.0 {
        return Err(bad(format!(
            "data.starts_at is {starts_at}: the term was over ({ends_at}) at the event's time"
        )));
    }
    if starts_at > time.0.plus_millis(START_AHEAD_DAYS_MAX * DAY_MS) {
        return Err(bad(format!(
            "data.starts_at is {starts_at}: more than {START_AHEAD_DAYS_MAX} days after the event"
        )));
    }
    let reference = optional_text("reference", raw.reference)?;
    Ok(ContractStarted { contract_id, plan, starts_at, ends_at, term_months, reference })
}

fn optional_term(raw: &Members<'_>, limits: &DataLimits) -> Result<Option<u32>, Rejection> {
    let Some(months) = given(raw.term_months) else { return Ok(None) };
    let number = number(months.spelt, 0).and_then(|months| u32::try_from(months).ok());
    let number = number.filter(|months| (1..=limits.term_months).contains(months));
    number.map(Some).ok_or_else(|| {
        bad(format!(
            "data.term_months is {}: expected a whole number from 1 to {}",
            shown(months.spelt),
            limits.term_months
        ))
    })
}

fn job_ended<'a>(raw: &Members<'a>, ending: JobEnding) -> Result<JobEnded<'a>, Rejection> {
    let job_id = present("job_id", raw.job_id)?;
    Ok(JobEnded {
        ending,
        job_id: id("job_id", job_id)?,
        asset_id: optional_id("asset_id", raw.asset_id)?,
        reason: optional_text("reason", raw.reason)?,
    })
}

fn plan_changed<'a>(raw: &Members<'a>) -> Result<PlanChanged<'a>, Rejection> {
    let contract_id = present("contract_id", raw.contract_id)?;
    let plan = present("plan", raw.plan)?;
    Ok(PlanChanged {
        contract_id: id("contract_id", contract_id)?,
        plan: id("plan", plan)?,
        effective_at: optional_instant("effective_at", raw.effective_at)?,
        reference: optional_text("reference", raw.reference)?,
    })
}

fn contract_renewed<'a>(raw: &Members<'a>, limits: &DataLimits) -> Result<ContractRenewed<'a>, Rejection> {
    let contract_id = present("contract_id", raw.contract_id)?;
    Ok(ContractRenewed {
        contract_id: id("contract_id", contract_id)?,
        plan: optional_id("plan", raw.plan)?,
        term_months: optional_term(raw, limits)?,
        reference: optional_text("reference", raw.reference)?,
    })
}

fn contract_cancelled<'a>(raw: &Members<'a>) -> Result<ContractCancelled<'a>, Rejection> {
    let contract_id = present("contract_id", raw.contract_id)?;
    Ok(ContractCancelled {
        contract_id: id("contract_id", contract_id)?,
        effective_at: optional_instant("effective_at", raw.effective_at)?,
        reference: optional_text("reference", raw.reference)?,
    })
}

fn limits_changed<'a>(raw: &Members<'a>, limits: &DataLimits) -> Result<LimitsChanged<'a>, Rejection> {
    let [overdraft, low, critical] = [raw.overdraft_limit, raw.low_percent, raw.critical_percent].map(given);
    if [overdraft, low, critical].iter().all(Option::is_none) {
        let detail = "none of data.overdraft_limit, data.low_percent and data.critical_percent is there";
        return Err(Rejection::new(Reason::MissingField, detail));
    }
    let changed = LimitsChanged {
        overdraft_limit: overdraft.map(|raw| overdraft_limit(raw, limits)).transpose()?,
        low_percent: low.map(|raw| percent("low_percent", raw)).transpose()?,
        critical_percent: critical.map(|raw| percent("critical_percent", raw)).transpose()?,
        reference: optional_text("reference", raw.reference)?,
    };
    // One alone is not held against what the wallet has: that would depend on the order in which two events arrive.
    if let (Some(Limit::Own(low)), Some(Limit::Own(critical))) =
        (changed.low_percent, changed.critical_percent)
        && low < critical
    {
        return Err(bad(format!(
            "data.low_percent is {low}, below data.critical_percent ({critical}): expected at least as much"
        )));
    }
    Ok(changed)
}

fn overdraft_limit(raw: Raw<'_>, limits: &DataLimits) -> Result<Limit<OverdraftLimit>, Rejection> {
    let most = limits.adjustment_credits;
    match raw.text().as_deref() {
        Some("plan") => return Ok(Limit::Plan),
        Some("none") => return Ok(Limit::Own(OverdraftLimit::Unlimited)),
        _ => {}
    }
    let credits = number(raw.spelt, 0).and_then(|credits| i64::try_from(credits).ok());
    let credits = credits.filter(|credits| (0..=most).contains(credits));
    credits.map(|credits| Limit::Own(OverdraftLimit::Credits(credits))).ok_or_else(|| {
        bad(format!(
            "data.overdraft_limit is {}: expected a whole number from 0 to {most}, \"none\" or \"plan\"",
            shown(raw.spelt)
        ))
    })
}

fn percent(name: &str, raw: Raw<'_>) -> Result<Limit<u8>, Rejection> {
    if raw.text().as_deref() == Some("plan") {
        return Ok(Limit::Plan);
    }
    let percent = number(raw.spelt, 0).and_then(|percent| u8::try_from(percent).ok());
    percent.filter(|percent| *percent <= 100).map(Limit::Own).ok_or_else(|| {
        bad(format!(
            "data.{name} is {}: expected a whole number from 0 to 100, or \"plan\"",
            shown(raw.spelt)
        ))
    })
}

fn topup_purchased<'a>(raw: &Members<'a>) -> Result<TopupPurchased<'a>, Rejection> {
    let topup_id = present("topup_id", raw.topup_id)?;
    let amount_text = present("amount_usd", raw.amount_usd)?.spelt;

    let topup_id = id("topup_id", topup_id)?;
    // Any positive number is well-formed; whether a pack has that price is asked of the pricing file.
    if number(amount_text, AMOUNT_SCALE).is_none_or(|amount| amount <= 0) {
        return Err(bad(format!(
            "data.amount_usd is {}: expected a number above 0 and below 1e29, with at most {AMOUNT_SCALE} decimals",
            shown(amount_text)
        )));
    }
    let amount_usd = number(amount_text, 2).and_then(|cents| i64::try_from(cents).ok()).map(UsdCents);
    let reference = optional_text("reference", raw.reference)?;
    Ok(TopupPurchased { topup_id, amount_usd, amount_text, reference })
}

fn adjusted<'a>(raw: &Members<'a>, time: EventTime, limits: &DataLimits) -> Result<Adjusted<'a>, Rejection> {
    let adjustment_id = present("adjustment_id", raw.adjustment_id)?;
    let credits_text = present("credits", raw.credits)?.spelt;
    let reason = present("reason", raw.reason)?;
    let actor = present("actor", raw.actor)?;

    let adjustment_id = id("adjustment_id", adjustment_id)?;
    let most = limits.adjustment_credits;
    let credits = number(credits_text, 0).and_then(|credits| i64::try_from(credits).ok());
    let credits =
        credits.filter(|credits| *credits != 0 && (-most..=most).contains(credits)).ok_or_else(|| {
            bad(format!(
                "data.credits is {}: expected a whole number but 0, from -{most} to {most}",
                shown(credits_text)
            ))
        })?;
    let reason = text("reason", reason)?;
    let actor = text("actor", actor)?;
    let expires_at = optional_instant("expires_at", raw.expires_at)?;
    if let Some(expiry) = expires_at {
        if credits < 0 {
            return Err(bad("data.expires_at: only a grant (credits above 0) can expire".to_owned()));
        }
        if expiry <= time.0 {
            return Err(bad(format!("data.expires_at is {expiry}: expected a time after the event's")));
        }
    }
    let reference = optional_text("reference", raw.reference)?;
    Ok(Adjusted { adjustment_id, credits, reason, actor, expires_at, reference })
}

fn bad(detail: String) -> Rejection {
    Rejection::new(Reason::BadValue, detail)
}

/// Raw JSON as a sentence may quote it.
fn shown(raw: &str) -> &str {
    raw.get(..40).unwrap_or(if raw.len() <= 40 { raw } else { "too long to show" })
}

/// What stands there, unless it is null.
fn given(raw: Option<Raw<'_>>) -> Option<Raw<'_>> {
    raw.filter(|raw| !raw.is_null())
}

fn present<'a>(name: &str, raw: Option<Raw<'a>>) -> Result<Raw<'a>, Rejection> {
    given(raw).ok_or_else(|| Rejection::new(Reason::MissingField, format!("data.{name} is absent or null")))
}

/// A JSON number, exactly, as a count of 10^-`scale`.
fn number(raw: &str, scale: u32) -> Option<i128> {
    let is_number = raw.starts_with(|first: char| first == '-' || first.is_ascii_digit());
    if !is_number {
        return None;
    }
    // Nearly every quantity is a short whole number.
    if raw.len() <= 9
        && let Ok(whole) = raw.parse::<u32>()
    {
        return Some(i128::from(whole) * 10_i128.pow(scale));
    }
    exact_scaled(raw, scale)
}

fn id<'a>(name: &str, raw: Raw<'a>) -> Result<Cow<'a, str>, Rejection> {
    raw.text().filter(|text| is_id(text)).ok_or_else(|| {
        bad(format!(
            "data.{name} is {}: expected text of 1 to {ID_BYTES_MAX} bytes of printable ASCII",
            shown(raw.spelt)
        ))
    })
}

fn optional_id<'a>(name: &str, raw: Option<Raw<'a>>) -> Result<Cow<'a, str>, Rejection> {
    given(raw).map_or(Ok(Cow::Borrowed("")), |raw| id(name, raw))
}

fn text<'a>(name: &str, raw: Raw<'a>) -> Result<Cow<'a, str>, Rejection> {
    let fits =
        |text: &Cow<str>| !text.trim().is_empty() && text.len() <= TEXT_BYTES_MAX && !text.contains('\0');
    raw.text().filter(fits).ok_or_else(|| {
        bad(format!(
            "data.{name} is {}: expected text of 1 to {TEXT_BYTES_MAX} bytes, not blank, without U+0000",
            shown(raw.spelt)
        ))
    })
}

fn optional_text<'a>(name: &str, raw: Option<Raw<'a>>) -> Result<Cow<'a, str>, Rejection> {
    given(raw).map_or(Ok(Cow::Borrowed("")), |raw| text(name, raw))
}

fn instant(name: &str, raw: Raw<'_>) -> Result<Timestamp, Rejection> {
    raw.text().and_then(|text| Timestamp::parse(&text)).ok_or_else(|| {
        bad(format!("data.{name} is {}: expected an RFC 3339 date-time with an offset", shown(raw.spelt)))
    })
}

fn optional_instant(name: &str, raw: Option<Raw<'_>>) -> Result<Option<Timestamp>, Rejection> {
    given(raw).map(|raw| instant(name, raw)).transpose()
}
