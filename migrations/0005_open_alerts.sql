-- An alert is open while what it tells still holds.

DROP VIEW IF EXISTS open_alerts;

CREATE VIEW IF NOT EXISTS open_alerts
(
    `wallet_id` String COMMENT 'The wallet',
    `alert_id` String COMMENT 'The alert, as in the table alerts',
    `kind` LowCardinality(String) COMMENT 'level, runway, expiring or overdraft_unpaid',
    `level` LowCardinality(String) COMMENT 'Level of the wallet after the entry; of kind level: the level that it still has',
    `seq` UInt64 COMMENT 'Entry of the wallet that it was posted with',
    `raised_at` DateTime64(3, 'UTC') COMMENT 'posted_at of that entry',
    `available` Int64 COMMENT 'Available after that entry, credits',
    `allocation` Int64 COMMENT 'Credits of a month of the plan then in force',
    `plan` LowCardinality(String) COMMENT 'Plan then in force; empty without one',
    `amount` Int64 COMMENT 'Credits that a warning was about when it was raised; 0 for kind level',
    `days` UInt16 COMMENT 'expiring: days before the expiry for which the warning is; else 0',
    `expires_at` Nullable(DateTime64(3, 'UTC')) COMMENT 'expiring: when the credits expire; else NULL',
    `contract_id` String COMMENT 'expiring: contract of the credits',
    `job_id` String COMMENT 'Always empty: a hold that timed out is over with it'
)
SQL SECURITY DEFINER
AS WITH
    -- What was said last takes the place of what was said before: a later level, the next days before the same expiry.
    -- Without FINAL: of what is stored twice one is taken.
    latest AS
    (
        SELECT a.*
        FROM alerts AS a
        WHERE a.raised_at <= {at:DateTime64(3, 'UTC')} AND a.kind IN ('level', 'runway', 'expiring', 'overdraft_unpaid')
        ORDER BY a.seq DESC
        LIMIT 1 BY a.wallet_id, a.kind, a.contract_id
    ),
    -- Where the wallets that were warned stood at that instant.
    warned AS
    (
        SELECT
            e.wallet_id AS wallet,
            argMax(e.balance_after - e.held_after, e.seq) AS left,
            maxIf(e.seq, e.overdraft_after = 0) AS paid_seq,
            -- As in the view runway.
            -sumIf(e.credits, e.entry_type = 'charged' AND e.event_time < toStartOfDay({at:DateTime64(3, 'UTC')})
                AND e.event_time >= toStartOfDay({at:DateTime64(3, 'UTC')}) - INTERVAL 7 DAY) AS charged,
            greatest(1, least(7, dateDiff('day', toDate(minIf(e.event_time, e.entry_type = 'charged')), toDate({at:DateTime64(3, 'UTC')})))) AS days_counted
        FROM ledger_entries AS e FINAL
        WHERE e.posted_at <= {at:DateTime64(3, 'UTC')}
            AND e.wallet_id IN (SELECT l.wallet_id FROM latest AS l WHERE l.kind IN ('runway', 'overdraft_unpaid'))
        GROUP BY wallet
    ),
    -- Contracts that credits were left of at that instant. A grant's id is plan:CONTRACT:MONTH, and more after the month.
    unused AS
    (
        SELECT g.wallet AS wallet, extract(g.id, '^plan:(.*):[0-9+]+$') AS contract
        FROM
        (
            SELECT e.wallet_id AS wallet, effect.grant_id AS id, argMax(effect.remaining_after, e.seq) AS remaining
            FROM ledger_entries AS e FINAL
            ARRAY JOIN e.grant_effects AS effect
            WHERE e.posted_at <= {at:DateTime64(3, 'UTC')} AND effect.kind = 'plan'
                AND e.wallet_id IN (SELECT l.wallet_id FROM latest AS l WHERE l.kind = 'expiring' AND l.expires_at > {at:DateTime64(3, 'UTC')})
            GROUP BY wallet, id
        ) AS g
        WHERE g.remaining > 0
    )
SELECT
    a.wallet_id AS wallet_id, a.alert_id AS alert_id, a.kind AS kind, a.level AS level, a.seq AS seq, a.raised_at AS raised_at,
    a.available AS available, a.allocation AS allocation, a.plan AS plan, a.amount AS amount, a.days AS days,
    a.expires_at AS expires_at, a.contract_id AS contract_id, a.job_id AS job_id
FROM latest AS a
LEFT JOIN warned AS w ON w.wallet = a.wallet_id
WHERE multiIf(
    a.kind = 'level', a.level != 'ok',
    a.kind = 'runway', w.left > 0 AND toInt128(w.left) * w.days_counted < 3 * toInt128(w.charged),
    a.kind = 'overdraft_unpaid', w.paid_seq < a.seq,
    a.expires_at > {at:DateTime64(3, 'UTC')} AND (a.wallet_id, a.contract_id) IN (SELECT u.wallet, u.contract FROM unused AS u))
COMMENT 'Alerts that still hold at an instant. level: of each wallet that is not ok the one that said so; runway: while credits are left and last less than 3 days; overdraft_unpaid: until the overdraft is 0; expiring: the latest of a contract, until its credits are used up or expired. Not hold_timed_out, which only happens. Parameter: at, normally now(). By posted_at, here raised_at: what was open at an instant never changes. SELECT * FROM open_alerts(at = now()) ORDER BY raised_at DESC';
