-- Alerts: a table of what the ledger stage raised, and a view of what is open.

CREATE TABLE IF NOT EXISTS alerts
(
    `wallet_id` String COMMENT 'The wallet' CODEC(ZSTD(1)),
    `alert_id` String COMMENT 'Wallet, kind or level, and seq: the same alert has the same id for ever, also as webhook-id' CODEC(ZSTD(1)),
    `kind` LowCardinality(String) COMMENT 'level: the level changed; runway, expiring, overdraft_unpaid, hold_timed_out: a warning' CODEC(ZSTD(1)),
    `level` LowCardinality(String) COMMENT 'Level of the wallet after the entry: ok, low, critical, exhausted or overdrawn' CODEC(ZSTD(1)),
    `level_before` LowCardinality(String) COMMENT 'Level before, where it changed' CODEC(ZSTD(1)),
    `seq` UInt64 COMMENT 'Entry of the wallet that it was posted with' CODEC(Delta, ZSTD(1)),
    `raised_at` DateTime64(3, 'UTC') COMMENT 'posted_at of that entry' CODEC(Delta, ZSTD(1)),
    `available` Int64 COMMENT 'Available after the entry, credits' CODEC(ZSTD(1)),
    `allocation` Int64 COMMENT 'Credits of a month of the plan then in force' CODEC(ZSTD(1)),
    `plan` LowCardinality(String) COMMENT 'Plan then in force; empty without one' CODEC(ZSTD(1)),
    `amount` Int64 COMMENT 'Credits that a warning is about: available, about to expire, in overdraft, or released; 0 where the level changed' CODEC(ZSTD(1)),
    `days` UInt16 COMMENT 'expiring: days before the expiry for which the warning is; else 0' CODEC(ZSTD(1)),
    `expires_at` Nullable(DateTime64(3, 'UTC')) COMMENT 'expiring: when the credits expire; else NULL' CODEC(ZSTD(1)),
    `contract_id` String COMMENT 'expiring: contract of the credits' CODEC(ZSTD(1)),
    `job_id` String COMMENT 'hold_timed_out: job of the reservation' CODEC(ZSTD(1))
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(raised_at)
ORDER BY (wallet_id, alert_id)
COMMENT 'Changes of level and warnings, one row each. Read with FINAL';

CREATE VIEW IF NOT EXISTS open_alerts
(
    `wallet_id` String COMMENT 'The wallet',
    `alert_id` String COMMENT 'The alert; webhook-id of its webhooks',
    `kind` LowCardinality(String) COMMENT 'level, runway, expiring, overdraft_unpaid or hold_timed_out',
    `level` LowCardinality(String) COMMENT 'Level of the wallet after the entry; of kind level: the level that it still has',
    `seq` UInt64 COMMENT 'Entry of the wallet that it was posted with',
    `raised_at` DateTime64(3, 'UTC') COMMENT 'posted_at of that entry',
    `available` Int64 COMMENT 'Available after that entry, credits',
    `allocation` Int64 COMMENT 'Credits of a month of the plan then in force',
    `plan` LowCardinality(String) COMMENT 'Plan then in force; empty without one',
    `amount` Int64 COMMENT 'Credits that a warning is about; 0 for kind level',
    `days` UInt16 COMMENT 'expiring: days before the expiry for which the warning is; else 0',
    `expires_at` Nullable(DateTime64(3, 'UTC')) COMMENT 'expiring: when the credits expire; else NULL',
    `contract_id` String COMMENT 'expiring: contract of the credits',
    `job_id` String COMMENT 'hold_timed_out: job of the reservation'
)
SQL SECURITY DEFINER
AS SELECT
    a.wallet_id AS wallet_id, a.alert_id AS alert_id, a.kind AS kind, a.level AS level, a.seq AS seq, a.raised_at AS raised_at,
    a.available AS available, a.allocation AS allocation, a.plan AS plan, a.amount AS amount, a.days AS days,
    a.expires_at AS expires_at, a.contract_id AS contract_id, a.job_id AS job_id
FROM alerts AS a FINAL
WHERE a.raised_at <= {at:DateTime64(3, 'UTC')} AND if(a.kind = 'level',
    -- Without FINAL: what is stored twice has the same seq.
    a.level != 'ok' AND (a.wallet_id, a.seq) IN (
        SELECT l.wallet_id, max(l.seq) FROM alerts AS l
        WHERE l.kind = 'level' AND l.raised_at <= {at:DateTime64(3, 'UTC')} GROUP BY l.wallet_id),
    a.raised_at > {at:DateTime64(3, 'UTC')} - INTERVAL 30 DAY AND (a.expires_at IS NULL OR a.expires_at > {at:DateTime64(3, 'UTC')}))
COMMENT 'Of each wallet that is not ok the alert that said so, and the warnings of the 30 days before that instant, but none of credits that have expired. Parameter: at, normally now(). By posted_at, here raised_at: what was open at an instant never changes. SELECT * FROM open_alerts(at = now()) ORDER BY raised_at DESC';

-- Made anew, with the table of alerts among the others.
DROP VIEW IF EXISTS freshness;

CREATE VIEW IF NOT EXISTS freshness
(
    `table_name` String COMMENT 'The table',
    `ledger_partition` Nullable(Int32) COMMENT 'Partition of the ledger topic, where the table has them',
    `newest_at` DateTime64(3, 'UTC') COMMENT 'Newest posted_at, or what comes nearest to it: updated_at, granted_at, raised_at, quarantined_at, start of the hour or day',
    `ledger_offset` Nullable(Int64) COMMENT 'Last offset of the partition that is counted, and so is in ledger_entries and usage_hourly too',
    `lag_seconds` Int64 COMMENT 'From newest_at to now, seconds: grows also while nothing happens'
)
SQL SECURITY DEFINER
AS SELECT
    name AS table_name,
    partition AS ledger_partition,
    at AS newest_at,
    last_offset AS ledger_offset,
    dateDiff('second', at, now64(3, 'UTC')) AS lag_seconds
FROM
(
    SELECT 'ledger_entries' AS name, CAST(NULL, 'Nullable(Int32)') AS partition, max(posted_at) AS at, CAST(NULL, 'Nullable(Int64)') AS last_offset
    FROM ledger_entries HAVING count() > 0
    -- Of the two large tables ClickHouse knows the greatest time without reading them.
    UNION ALL SELECT 'usage_hourly', NULL, toDateTime64(max(hour), 3, 'UTC'), NULL FROM usage_hourly HAVING count() > 0
    UNION ALL SELECT 'wallets', NULL, max(updated_at), NULL FROM wallets HAVING count() > 0
    UNION ALL SELECT 'grants', NULL, max(granted_at), NULL FROM grants HAVING count() > 0
    UNION ALL SELECT 'alerts', NULL, max(raised_at), NULL FROM alerts HAVING count() > 0
    UNION ALL SELECT 'quarantined_events', NULL, max(quarantined_at), NULL FROM quarantined_events HAVING count() > 0
    UNION ALL SELECT 'usage_by_day', NULL, toDateTime64(max(day), 3, 'UTC'), NULL FROM usage_by_day HAVING count() > 0
    UNION ALL SELECT 'credits_by_day', r.ledger_partition, d.newest, r.ledger_offset - 1
    FROM days_refreshed AS r FINAL CROSS JOIN (SELECT toDateTime64(max(day), 3, 'UTC') AS newest FROM credits_by_day) AS d
)
COMMENT 'How far each table has come; a table without rows is not there. Offsets are those of credits_by_day: a few seconds behind the entries. By posted_at for the entries. SELECT * FROM freshness ORDER BY table_name, ledger_partition';
