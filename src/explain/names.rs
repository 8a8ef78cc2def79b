//! What things are called, and what an entry says of the time before it.

use crate::rate::{AssetType, Quantity, VideoMillis};
use crate::text::{counted, printable, thousands_decimal};
use crate::wallet::{Entry, GrantKind};

/// A wallet's sums before an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Before {
    /// Balance.
    pub balance: i64,
    /// Held credits.
    pub held: i64,
    /// Overdraft.
    pub overdraft: i64,
}

/// The sums before an entry follow from those after it and from its own effect: balance = what is left in grants -
/// overdraft, before and after.
pub fn before(entry: &Entry<'_>) -> Before {
    Before {
        balance: entry.balance_after - entry.credits,
        held: entry.held_after - entry.held_credits,
        overdraft: entry.overdraft_after - (in_grants(entry) - entry.credits),
    }
}

/// Signed effect of an entry on what is left in grants.
pub(super) fn in_grants(entry: &Entry<'_>) -> i64 {
    entry.grant_effects.iter().map(|effect| effect.credits).sum()
}

/// A grant as people call it: `month 4 of contract c_7`, `top-up t_1`, `adjustment a_3`.
pub fn grant_name(grant_id: &str, kind: GrantKind) -> String {
    let own_id = grant_id.strip_prefix(kind.as_str()).and_then(|rest| rest.strip_prefix(':'));
    let own_id = own_id.unwrap_or(grant_id);
    match kind {
        GrantKind::Topup => format!("top-up {own_id}"),
        GrantKind::Adjustment => format!("adjustment {own_id}"),
        GrantKind::Plan => {
            let month_of = |(contract, month): (&str, &str)| {
                let (month, rise) =
                    month.split_once('+').map_or((month, ""), |(month, _)| (month, "rise of "));
                let month: u32 = month.parse().ok()?;
                Some(format!("{rise}month {} of contract {contract}", month.checked_add(1)?))
            };
            own_id.rsplit_once(':').and_then(month_of).unwrap_or_else(|| grant_id.to_owned())
        }
    }
}

/// `1 credit`, `1,388 credits`.
pub(super) fn credits(number: i64) -> String {
    counted(number, "credit")
}

/// What was made, or asked for; `None` where the entry is not about usage with a quantity.
pub(super) fn quantity(entry: &Entry<'_>) -> Option<Quantity> {
    match entry.asset_type? {
        AssetType::Image if entry.images > 0 => Some(Quantity::Images(entry.images)),
        AssetType::Video if entry.video_seconds.0 > 0 => Some(Quantity::Video(entry.video_seconds)),
        _ => None,
    }
}

/// `4 images`, `8.5 seconds of video`.
pub(super) fn quantity_name(quantity: Quantity) -> String {
    match quantity {
        Quantity::Images(images) => counted(images, "image"),
        Quantity::Video(length) => format!("{} of video", length_name(length)),
    }
}

pub(super) fn length_name(length: VideoMillis) -> String {
    format!("{} second{}", thousands_decimal(length), if length.0 == 1_000 { "" } else { "s" })
}

/// `job job_7`, `asset a_1 of job job_7`; empty without a job.
pub(super) fn job_name(entry: &Entry<'_>) -> String {
    match (entry.job_id.is_empty(), entry.asset_id.is_empty()) {
        (true, _) => String::new(),
        (false, true) => format!("job {}", entry.job_id),
        (false, false) => format!("asset {} of job {}", entry.asset_id, entry.job_id),
    }
}

/// `: text`, or nothing.
pub(super) fn because(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(": {}", printable(text)) }
}
