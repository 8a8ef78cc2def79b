//! The tables that the sink writes, column by column. `migrations/` makes them; a test on the engine holds
//! the two equal.

use super::block::{Kind, Schema};

/// The ledger, one row per posting.
pub static LEDGER_ENTRIES: Schema = Schema {
    table: "ledger_entries",
    columns: &[
        ("wallet_id", Kind::Text),
        ("seq", Kind::U64),
        ("entry_type", Kind::Name),
        ("credits", Kind::I64),
        ("held_credits", Kind::I64),
        ("amount", Kind::I64),
        ("posted_at", Kind::Time),
        ("event_time", Kind::Time),
        ("event_type", Kind::Name),
        ("source", Kind::Name),
        ("event_id", Kind::Text),
        ("job_id", Kind::Text),
        ("asset_id", Kind::Text),
        ("asset_type", Kind::Name),
        ("model", Kind::Name),
        ("user_id", Kind::Text),
        ("project_id", Kind::Text),
        ("images", Kind::U32),
        ("video_seconds", Kind::Decimal(9, 3)),
        ("rate_card", Kind::Name),
        ("rate", Kind::Decimal(18, 6)),
        ("grant_effects", Kind::List(GRANT_EFFECT)),
        ("balance_after", Kind::I64),
        ("held_after", Kind::I64),
        ("overdraft_after", Kind::I64),
        ("level", Kind::Name),
        ("plan", Kind::Name),
        ("contract_id", Kind::Text),
        ("period_start", Kind::DayOrNull),
        ("amount_usd", Kind::Decimal(18, 2)),
        ("reason", Kind::Text),
        ("actor", Kind::Text),
        ("reference", Kind::Text),
        ("origin_topic", Kind::Name),
        ("origin_partition", Kind::I32),
        ("origin_offset", Kind::I64),
        ("ledger_partition", Kind::I32),
        ("ledger_offset", Kind::I64),
        ("fingerprint", Kind::U64),
        ("business_id", Kind::Text),
    ],
};

const GRANT_EFFECT: &[(&str, Kind)] = &[
    ("grant_id", Kind::Text),
    ("kind", Kind::Name),
    ("credits", Kind::I64),
    ("remaining_after", Kind::I64),
    ("expires_at", Kind::TimeOrNull),
];

/// Usage by wallet and hour: totals so far.
pub static USAGE_HOURLY: Schema = Schema {
    table: "usage_hourly",
    columns: &[
        ("wallet_id", Kind::Text),
        ("hour", Kind::Seconds),
        ("asset_type", Kind::Name),
        ("model", Kind::Name),
        ("plan", Kind::Name),
        ("jobs", Kind::U64),
        ("part", Kind::U64),
        ("images", Kind::U64),
        ("video_seconds", Kind::Decimal(18, 3)),
        ("credits_charged", Kind::I64),
        ("credits_reversed", Kind::I64),
        ("credits_refused", Kind::I64),
        ("seq", Kind::U64),
    ],
};

/// Latest state of each wallet.
pub static WALLETS: Schema = Schema {
    table: "wallets",
    columns: &[
        ("wallet_id", Kind::Text),
        ("plan", Kind::Name),
        ("contract_id", Kind::Text),
        ("balance", Kind::I64),
        ("held", Kind::I64),
        ("available", Kind::I64),
        ("overdraft", Kind::I64),
        ("plan_credits", Kind::I64),
        ("topup_credits", Kind::I64),
        ("adjustment_credits", Kind::I64),
        ("allocation", Kind::I64),
        ("level", Kind::Name),
        ("next_allocation_at", Kind::TimeOrNull),
        ("term_started_at", Kind::TimeOrNull),
        ("term_ends_at", Kind::TimeOrNull),
        ("first_seen_at", Kind::Time),
        ("updated_at", Kind::Time),
        ("seq", Kind::U64),
    ],
};

/// Latest state of each lot of credits.
pub static GRANTS: Schema = Schema {
    table: "grants",
    columns: &[
        ("wallet_id", Kind::Text),
        ("grant_id", Kind::Text),
        ("kind", Kind::Name),
        ("credits_granted", Kind::I64),
        ("credits_remaining", Kind::I64),
        ("credits_repaid", Kind::I64),
        ("priority", Kind::U16),
        ("granted_at", Kind::Time),
        ("expires_at", Kind::TimeOrNull),
        ("contract_id", Kind::Text),
        ("amount_usd", Kind::Decimal(18, 2)),
        ("seq", Kind::U64),
    ],
};

/// Changes of level and warnings, one row each.
pub static ALERTS: Schema = Schema {
    table: "alerts",
    columns: &[
        ("wallet_id", Kind::Text),
        ("alert_id", Kind::Text),
        ("kind", Kind::Name),
        ("level", Kind::Name),
        ("level_before", Kind::Name),
        ("seq", Kind::U64),
        ("raised_at", Kind::Time),
        ("available", Kind::I64),
        ("allocation", Kind::I64),
        ("plan", Kind::Name),
        ("amount", Kind::I64),
        ("days", Kind::U16),
        ("expires_at", Kind::TimeOrNull),
        ("contract_id", Kind::Text),
        ("job_id", Kind::Text),
    ],
};

/// Records that could not be applied, as they came.
pub static QUARANTINED_EVENTS: Schema = Schema {
    table: "quarantined_events",
    columns: &[
        ("origin_topic", Kind::Name),
        ("origin_topic_id", Kind::Text),
        ("origin_partition", Kind::I32),
        ("origin_offset", Kind::I64),
        ("record_time", Kind::Time),
        ("quarantined_at", Kind::Time),
        ("reason", Kind::Name),
        ("detail", Kind::Text),
        ("wallet_id", Kind::Text),
        ("source", Kind::Text),
        ("event_id", Kind::Text),
        ("key", Kind::Text),
        ("value", Kind::Text),
        ("headers", Kind::List(HEADER)),
        ("value_bytes", Kind::U32),
    ],
};

const HEADER: &[(&str, Kind)] = &[("name", Kind::Text), ("value", Kind::Text)];

/// All of them.
pub static ALL: [&Schema; 6] =
    [&LEDGER_ENTRIES, &USAGE_HOURLY, &WALLETS, &GRANTS, &ALERTS, &QUARANTINED_EVENTS];
