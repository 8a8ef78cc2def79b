-- Sums over all wallets by day, for questions about all of them: grouping the entries would take seconds.
-- Each row is absolute and computed anew from the tables (src/sink/days.rs). What it is computed from only grows, and
-- `version` grows with it: of two computations the one that saw more wins, whichever was written last.

CREATE TABLE IF NOT EXISTS usage_by_day
(
    `day` Date COMMENT 'UTC day of the time of the events' CODEC(Delta, ZSTD(1)),
    `plan` LowCardinality(String) COMMENT 'Plan in force at the time of the events' CODEC(ZSTD(1)),
    `asset_type` LowCardinality(String) COMMENT 'image or video' CODEC(ZSTD(1)),
    `model` LowCardinality(String) COMMENT 'Model that made it' CODEC(ZSTD(1)),
    `jobs` UInt64 COMMENT 'Jobs charged' CODEC(ZSTD(1)),
    `images` UInt64 COMMENT 'Images charged' CODEC(ZSTD(1)),
    `video_seconds` Decimal(18, 3) COMMENT 'Seconds of video charged' CODEC(ZSTD(1)),
    `credits_charged` Int64 COMMENT 'Credits charged, positive' CODEC(ZSTD(1)),
    `credits_reversed` Int64 COMMENT 'Credits given back, positive' CODEC(ZSTD(1)),
    `credits_refused` Int64 COMMENT 'Credits refused, positive: never drawn' CODEC(ZSTD(1)),
    `version` UInt64 COMMENT 'Sum of seq over the rows of usage_hourly that it adds up: the greatest wins' CODEC(ZSTD(1))
)
ENGINE = ReplacingMergeTree(version)
ORDER BY (day, plan, asset_type, model)
COMMENT 'Usage of all wallets by day of the events: totals so far. Read with FINAL, or view usage_daily_all';

CREATE TABLE IF NOT EXISTS credits_by_day
(
    `day` Date COMMENT 'UTC day on which the ledger posted it' CODEC(Delta, ZSTD(1)),
    `plan` LowCardinality(String) COMMENT 'Plan in force at the time of the event; empty without one' CODEC(ZSTD(1)),
    `credits_granted` Int64 COMMENT 'Credits granted by plans and top-ups, positive' CODEC(ZSTD(1)),
    `credits_charged` Int64 COMMENT 'Credits charged, positive' CODEC(ZSTD(1)),
    `credits_reversed` Int64 COMMENT 'Credits given back, positive' CODEC(ZSTD(1)),
    `credits_expired` Int64 COMMENT 'Credits expired unused, positive' CODEC(ZSTD(1)),
    `credits_refused` Int64 COMMENT 'Credits refused, positive: never drawn' CODEC(ZSTD(1)),
    `adjusted_up` Int64 COMMENT 'Credits given by people, positive' CODEC(ZSTD(1)),
    `adjusted_down` Int64 COMMENT 'Credits taken by people, positive' CODEC(ZSTD(1)),
    `balance_change` Int64 COMMENT 'Change of all balances, credits' CODEC(ZSTD(1)),
    `plan_change` Int64 COMMENT 'Change of what is left in grants of plans, credits' CODEC(ZSTD(1)),
    `topup_change` Int64 COMMENT 'Change of what is left in grants of top-ups, credits' CODEC(ZSTD(1)),
    `adjustment_change` Int64 COMMENT 'Change of what is left in grants of adjustments, credits' CODEC(ZSTD(1)),
    `topups` UInt64 COMMENT 'Top-ups bought' CODEC(ZSTD(1)),
    `topup_credits` Int64 COMMENT 'Credits of these top-ups' CODEC(ZSTD(1)),
    `topup_usd` Decimal(18, 2) COMMENT 'Price of these top-ups, US dollars' CODEC(ZSTD(1)),
    `version` UInt64 COMMENT 'Entries that it adds up: the greatest wins' CODEC(ZSTD(1))
)
ENGINE = ReplacingMergeTree(version)
ORDER BY (day, plan)
COMMENT 'What was posted for all wallets by day of posting: totals so far. Read with FINAL, or views credit_flow, credits_outstanding and topup_revenue';

CREATE TABLE IF NOT EXISTS days_refreshed
(
    `ledger_partition` Int32 COMMENT 'Partition of the ledger topic' CODEC(ZSTD(1)),
    `ledger_offset` Int64 COMMENT 'usage_by_day and credits_by_day count every entry before this offset: the greatest wins' CODEC(ZSTD(1))
)
ENGINE = ReplacingMergeTree(ledger_offset)
ORDER BY ledger_partition
COMMENT 'How far the tables by day have come. Read with FINAL';

-- Finds the entries that are new without reading the others: those in parts of before are all smaller.
ALTER TABLE ledger_entries ADD INDEX IF NOT EXISTS ledger_offset_range ledger_offset TYPE minmax GRANULARITY 1;
