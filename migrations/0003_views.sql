-- Views for those who ask: each reads right without FINAL and without knowing of parts.
-- A view in brackets takes parameters: SELECT * FROM usage_daily(wallet = 'ws_42'). All of them must be given.
-- Who may read a view need not be allowed to read its tables: it runs with the rights of who made it.

CREATE VIEW IF NOT EXISTS usage_daily
(
    `wallet_id` String COMMENT 'The wallet',
    `day` Date COMMENT 'UTC day of the time of the events',
    `asset_type` LowCardinality(String) COMMENT 'image or video',
    `model` LowCardinality(String) COMMENT 'Model that made it',
    `plan` LowCardinality(String) COMMENT 'Plan in force at the time of the events',
    `jobs` UInt64 COMMENT 'Jobs charged',
    `images` UInt64 COMMENT 'Images charged',
    `video_seconds` Decimal(38, 3) COMMENT 'Seconds of video charged',
    `credits_charged` Int64 COMMENT 'Credits charged, positive',
    `credits_reversed` Int64 COMMENT 'Credits given back, positive',
    `credits_refused` Int64 COMMENT 'Credits refused, positive: never drawn'
)
SQL SECURITY DEFINER
AS SELECT
    u.wallet_id AS wallet_id,
    toDate(u.hour) AS day,
    u.asset_type AS asset_type,
    u.model AS model,
    u.plan AS plan,
    sum(u.jobs) AS jobs,
    sum(u.images) AS images,
    sum(u.video_seconds) AS video_seconds,
    sum(u.credits_charged) AS credits_charged,
    sum(u.credits_reversed) AS credits_reversed,
    sum(u.credits_refused) AS credits_refused
FROM usage_hourly AS u FINAL
WHERE u.wallet_id = {wallet:String}
GROUP BY wallet_id, day, asset_type, model, plan
COMMENT 'Usage of one wallet by UTC day. Parameter: wallet. By event_time: a day may change until the horizon. SELECT * FROM usage_daily(wallet = ''ws_42'') ORDER BY day';

CREATE VIEW IF NOT EXISTS usage_monthly
(
    `wallet_id` String COMMENT 'The wallet',
    `month_kind` String COMMENT 'calendar: UTC months; contract: months that begin on the day of the contract',
    `month` Date COMMENT 'First day of the month',
    `asset_type` LowCardinality(String) COMMENT 'image or video',
    `model` LowCardinality(String) COMMENT 'Model that made it',
    `plan` LowCardinality(String) COMMENT 'Plan in force at the time of the events',
    `jobs` UInt64 COMMENT 'Jobs charged',
    `images` UInt64 COMMENT 'Images charged',
    `video_seconds` Decimal(38, 3) COMMENT 'Seconds of video charged',
    `credits_charged` Int64 COMMENT 'Credits charged, positive',
    `credits_reversed` Int64 COMMENT 'Credits given back, positive',
    `credits_refused` Int64 COMMENT 'Credits refused, positive: never drawn'
)
SQL SECURITY DEFINER
AS WITH
    entries AS
    (
        SELECT
            e.entry_type, e.event_time, e.period_start, e.asset_type, e.model, e.plan, e.images, e.video_seconds, e.credits, e.amount,
            e.entry_type = 'charged' AND row_number() OVER (PARTITION BY e.entry_type, e.job_id ORDER BY e.seq) = 1 AS begins_job
        FROM ledger_entries AS e FINAL
        WHERE e.wallet_id = {wallet:String} AND e.entry_type IN ('charged', 'reversed', 'refused')
    ),
    months AS
    (
        SELECT entries.*, 'calendar' AS kind, toStartOfMonth(event_time) AS first_day FROM entries
        UNION ALL
        SELECT entries.*, 'contract' AS kind, assumeNotNull(period_start) AS first_day FROM entries WHERE period_start IS NOT NULL
    )
SELECT
    {wallet:String} AS wallet_id,
    m.kind AS month_kind,
    m.first_day AS month,
    m.asset_type AS asset_type,
    m.model AS model,
    m.plan AS plan,
    countIf(m.begins_job) AS jobs,
    toUInt64(sumIf(m.images, m.entry_type = 'charged')) AS images,
    sumIf(m.video_seconds, m.entry_type = 'charged') AS video_seconds,
    -sumIf(m.credits, m.entry_type = 'charged') AS credits_charged,
    sumIf(m.credits, m.entry_type = 'reversed') AS credits_reversed,
    sumIf(m.amount, m.entry_type = 'refused') AS credits_refused
FROM months AS m
GROUP BY month_kind, month, asset_type, model, plan
COMMENT 'Usage of one wallet by calendar month and by month of its contract (never add the two up). Parameter: wallet. By event_time: a month may change until the horizon. SELECT * FROM usage_monthly(wallet = ''ws_42'') WHERE month_kind = ''contract'' ORDER BY month';

CREATE VIEW IF NOT EXISTS plan_utilisation
(
    `wallet_id` String COMMENT 'The wallet',
    `plan` LowCardinality(String) COMMENT 'Plan in force now',
    `contract_id` String COMMENT 'Contract in force now',
    `month_starts_at` DateTime64(3, 'UTC') COMMENT 'First instant of the month of the contract',
    `month_ends_at` DateTime64(3, 'UTC') COMMENT 'First instant after it',
    `allocation` Int64 COMMENT 'Credits granted for this month, those of a plan change included',
    `used` Int64 COMMENT 'Credits charged in this month less those given back, whichever grants paid',
    `left` Int64 COMMENT 'Allocation less used; below 0 where earlier credits or top-ups paid too',
    `used_percent` Int64 COMMENT 'Used of the allocation, percent, rounded down',
    `month_percent` Int64 COMMENT 'Gone of the month at that instant, percent, rounded down',
    `projected` Int64 COMMENT 'Used by the end of the month at this pace, credits'
)
SQL SECURITY DEFINER
AS WITH
    allocations AS
    (
        SELECT
            max(g.granted_at) AS starts_at
        FROM grants AS g FINAL
        INNER JOIN (SELECT wallet_id, contract_id FROM wallets FINAL WHERE wallet_id = {wallet:String} AND contract_id != '') AS w
            ON w.wallet_id = g.wallet_id AND w.contract_id = g.contract_id
        WHERE g.wallet_id = {wallet:String} AND g.kind = 'plan' AND g.granted_at <= {at:DateTime64(3, 'UTC')}
            AND match(g.grant_id, ':[0-9]+$')
    ),
    granted AS
    (
        SELECT sum(g.credits_granted) AS credits
        FROM grants AS g FINAL
        WHERE g.wallet_id = {wallet:String} AND g.kind = 'plan'
            AND g.granted_at >= (SELECT starts_at FROM allocations) AND g.granted_at <= {at:DateTime64(3, 'UTC')}
    ),
    spent AS
    (
        SELECT -sum(e.credits) AS credits
        FROM ledger_entries AS e FINAL
        WHERE e.wallet_id = {wallet:String} AND e.entry_type IN ('charged', 'reversed')
            AND e.event_time >= (SELECT starts_at FROM allocations) AND e.event_time < {at:DateTime64(3, 'UTC')}
    )
SELECT
    w.wallet_id AS wallet_id,
    w.plan AS plan,
    w.contract_id AS contract_id,
    a.starts_at AS month_starts_at,
    assumeNotNull(coalesce(w.next_allocation_at, w.term_ends_at)) AS month_ends_at,
    g.credits AS allocation,
    s.credits AS used,
    allocation - used AS left,
    intDivOrZero(100 * used, allocation) AS used_percent,
    least(100, intDiv(100 * dateDiff('second', month_starts_at, {at:DateTime64(3, 'UTC')}), greatest(1, dateDiff('second', month_starts_at, month_ends_at)))) AS month_percent,
    intDiv(used * dateDiff('second', month_starts_at, month_ends_at), greatest(1, dateDiff('second', month_starts_at, {at:DateTime64(3, 'UTC')}))) AS projected
FROM wallets AS w FINAL
CROSS JOIN allocations AS a
CROSS JOIN granted AS g
CROSS JOIN spent AS s
WHERE w.wallet_id = {wallet:String} AND w.contract_id != ''
COMMENT 'How one wallet goes through the month of its contract that is under way. Parameters: wallet; at, normally now(). By event_time: may change until the horizon. No row without a contract. SELECT * FROM plan_utilisation(wallet = ''ws_42'', at = now())';

CREATE VIEW IF NOT EXISTS burn_rate
(
    `wallet_id` String COMMENT 'The wallet',
    `credits_1_day` Int64 COMMENT 'Credits charged on the whole UTC day before that instant',
    `credits_7_days` Int64 COMMENT 'Credits charged on the 7 whole UTC days before it',
    `credits_30_days` Int64 COMMENT 'Credits charged on the 30 whole UTC days before it',
    `per_day_7` Decimal(38, 2) COMMENT 'credits_7_days by 7, cut to hundredths',
    `per_day_30` Decimal(38, 2) COMMENT 'credits_30_days by 30, cut to hundredths'
)
SQL SECURITY DEFINER
AS SELECT
    u.wallet_id AS wallet_id,
    sumIf(u.credits_charged, u.hour >= toStartOfDay({at:DateTime64(3, 'UTC')}) - INTERVAL 1 DAY) AS credits_1_day,
    sumIf(u.credits_charged, u.hour >= toStartOfDay({at:DateTime64(3, 'UTC')}) - INTERVAL 7 DAY) AS credits_7_days,
    sum(u.credits_charged) AS credits_30_days,
    toDecimal128(intDiv(credits_7_days * 100, 7), 2) / 100 AS per_day_7,
    toDecimal128(intDiv(credits_30_days * 100, 30), 2) / 100 AS per_day_30
FROM usage_hourly AS u FINAL
WHERE u.wallet_id = {wallet:String}
    AND u.hour >= toStartOfDay({at:DateTime64(3, 'UTC')}) - INTERVAL 30 DAY AND u.hour < toStartOfDay({at:DateTime64(3, 'UTC')})
GROUP BY wallet_id
COMMENT 'What one wallet spends a day. Parameters: wallet; at, normally now(). By event_time: may change until the horizon. No row where nothing was used in these 30 days. SELECT * FROM burn_rate(wallet = ''ws_42'', at = now())';

CREATE VIEW IF NOT EXISTS runway
(
    `wallet_id` String COMMENT 'The wallet',
    `plan` LowCardinality(String) COMMENT 'Plan in force now',
    `level` LowCardinality(String) COMMENT 'Level now',
    `available` Int64 COMMENT 'Available now, credits',
    `credits_7_days` Int64 COMMENT 'Credits charged on the 7 whole UTC days before that instant',
    `days` Int64 COMMENT 'Days that they are divided by: since the first charge, at least 1, at most 7',
    `runway_days` Nullable(Decimal(38, 2)) COMMENT 'Days that what is available lasts at this rate, cut to hundredths; 0: nothing is available; NULL: nothing was charged'
)
SQL SECURITY DEFINER
AS SELECT
    w.wallet_id AS wallet_id,
    w.plan AS plan,
    w.level AS level,
    w.available AS available,
    u.credits AS credits_7_days,
    u.days_counted AS days,
    if(u.credits = 0, NULL, toDecimal128(intDiv(greatest(0, w.available) * u.days_counted * 100, u.credits), 2) / 100) AS runway_days
FROM wallets AS w FINAL
CROSS JOIN
(
    SELECT
        sumIf(h.credits_charged, h.hour >= toStartOfDay({at:DateTime64(3, 'UTC')}) - INTERVAL 7 DAY) AS credits,
        greatest(1, least(7, dateDiff('day', toDate(minIf(h.hour, h.jobs > 0)), toDate({at:DateTime64(3, 'UTC')})))) AS days_counted
    FROM usage_hourly AS h FINAL
    WHERE h.wallet_id = {wallet:String} AND h.hour < toStartOfDay({at:DateTime64(3, 'UTC')})
) AS u
WHERE w.wallet_id = {wallet:String}
COMMENT 'How long the credits of one wallet last. Parameters: wallet; at, normally now(); what is available is always the latest. By event_time: may change until the horizon. SELECT * FROM runway(wallet = ''ws_42'', at = now())';

CREATE VIEW IF NOT EXISTS expiring_credits
(
    `wallet_id` String COMMENT 'The wallet',
    `grant_id` String COMMENT 'The grant',
    `kind` LowCardinality(String) COMMENT 'plan or adjustment; top-ups never expire',
    `contract_id` String COMMENT 'Contract of a grant of a plan',
    `credits_granted` Int64 COMMENT 'Credits at the start',
    `credits_remaining` Int64 COMMENT 'Credits left now, which expire unless they are used',
    `expires_at` DateTime64(3, 'UTC') COMMENT 'First instant at which they pay no more',
    `days_left` Int64 COMMENT 'Whole days from that instant to the expiry'
)
SQL SECURITY DEFINER
AS SELECT
    g.wallet_id AS wallet_id,
    g.grant_id AS grant_id,
    g.kind AS kind,
    g.contract_id AS contract_id,
    g.credits_granted AS credits_granted,
    g.credits_remaining AS credits_remaining,
    assumeNotNull(g.expires_at) AS expires_at,
    intDiv(dateDiff('second', {at:DateTime64(3, 'UTC')}, expires_at), 86400) AS days_left
FROM grants AS g FINAL
WHERE g.credits_remaining > 0 AND g.expires_at > {at:DateTime64(3, 'UTC')}
    AND g.expires_at <= {at:DateTime64(3, 'UTC')} + toIntervalDay({days:UInt32})
COMMENT 'Credits of all wallets that expire soon. Parameters: days; at, normally now(); what is left is always the latest. By expires_at, which only changes with the contract. SELECT * FROM expiring_credits(days = 30, at = now()) ORDER BY expires_at';

CREATE VIEW IF NOT EXISTS usage_daily_all
(
    `day` Date COMMENT 'UTC day of the time of the events',
    `plan` LowCardinality(String) COMMENT 'Plan in force at the time of the events',
    `asset_type` LowCardinality(String) COMMENT 'image or video',
    `model` LowCardinality(String) COMMENT 'Model that made it',
    `jobs` UInt64 COMMENT 'Jobs charged',
    `images` UInt64 COMMENT 'Images charged',
    `video_seconds` Decimal(18, 3) COMMENT 'Seconds of video charged',
    `credits_charged` Int64 COMMENT 'Credits charged, positive',
    `credits_reversed` Int64 COMMENT 'Credits given back, positive',
    `credits_refused` Int64 COMMENT 'Credits refused, positive: never drawn'
)
SQL SECURITY DEFINER
AS SELECT day, plan, asset_type, model, jobs, images, video_seconds, credits_charged, credits_reversed, credits_refused
FROM usage_by_day FINAL
COMMENT 'Usage of all wallets by UTC day. By event_time: a day may change until the horizon; some seconds behind the entries. SELECT day, plan, sum(credits_charged) FROM usage_daily_all WHERE day >= today() - 30 GROUP BY ALL ORDER BY ALL';

CREATE VIEW IF NOT EXISTS credit_flow
(
    `day` Date COMMENT 'UTC day on which the ledger posted it',
    `plan` LowCardinality(String) COMMENT 'Plan in force at the time of the event; empty without one',
    `credits_granted` Int64 COMMENT 'Credits granted by plans and top-ups, positive',
    `credits_charged` Int64 COMMENT 'Credits charged, positive',
    `credits_reversed` Int64 COMMENT 'Credits given back, positive',
    `credits_expired` Int64 COMMENT 'Credits expired unused, positive',
    `credits_refused` Int64 COMMENT 'Credits refused, positive: never drawn, no part of the balance',
    `adjusted_up` Int64 COMMENT 'Credits given by people, positive',
    `adjusted_down` Int64 COMMENT 'Credits taken by people, positive',
    `balance_change` Int64 COMMENT 'Change of all balances: granted + reversed + adjusted up - charged - expired - adjusted down'
)
SQL SECURITY DEFINER
AS SELECT day, plan, credits_granted, credits_charged, credits_reversed, credits_expired, credits_refused, adjusted_up, adjusted_down, balance_change
FROM credits_by_day FINAL
COMMENT 'Credits that came and went, all wallets, by UTC day. By posted_at: a day that is over never changes; some seconds behind the entries. SELECT * FROM credit_flow WHERE day >= today() - 30 ORDER BY day, plan';

CREATE VIEW IF NOT EXISTS wallet_statement
(
    `wallet_id` String COMMENT 'The wallet',
    `seq` UInt64 COMMENT 'Number of the entry: 1, 2, 3 and so on',
    `posted_at` DateTime64(3, 'UTC') COMMENT 'When the ledger wrote it',
    `event_time` DateTime64(3, 'UTC') COMMENT 'When it happened',
    `entry_type` LowCardinality(String) COMMENT 'What the posting did',
    `credits` Int64 COMMENT 'Signed effect on the balance',
    `balance_after` Int64 COMMENT 'Balance after it',
    `held_credits` Int64 COMMENT 'Signed effect on what is held',
    `held_after` Int64 COMMENT 'Held after it',
    `overdraft_after` Int64 COMMENT 'Usage that no grant has paid yet after it',
    `amount` Int64 COMMENT 'Size where both effects are 0: the cost refused, the overdraft repaid',
    `plan` LowCardinality(String) COMMENT 'Plan in force at the time of the event',
    `asset_type` LowCardinality(String) COMMENT 'image or video; empty where it is not about usage',
    `model` LowCardinality(String) COMMENT 'Model that made it',
    `images` UInt32 COMMENT 'Images',
    `video_seconds` Decimal(9, 3) COMMENT 'Seconds of video',
    `rate` Decimal(18, 6) COMMENT 'Credits for one image or one second',
    `job_id` String COMMENT 'Job of the usage',
    `asset_id` String COMMENT 'Asset of the job, where a job names its assets',
    `user_id` String COMMENT 'User who asked for it',
    `project_id` String COMMENT 'Project that it is for',
    `amount_usd` Decimal(18, 2) COMMENT 'Price of a top-up, US dollars',
    `reason` String COMMENT 'Why, where somebody said so',
    `actor` String COMMENT 'Who did it, where a person did',
    `reference` String COMMENT 'An invoice or a ticket'
)
SQL SECURITY DEFINER
AS SELECT
    e.wallet_id AS wallet_id, e.seq AS seq, e.posted_at AS posted_at, e.event_time AS event_time, e.entry_type AS entry_type,
    e.credits AS credits, e.balance_after AS balance_after, e.held_credits AS held_credits, e.held_after AS held_after,
    e.overdraft_after AS overdraft_after, e.amount AS amount, e.plan AS plan, e.asset_type AS asset_type, e.model AS model,
    e.images AS images, e.video_seconds AS video_seconds, e.rate AS rate, e.job_id AS job_id, e.asset_id AS asset_id,
    e.user_id AS user_id, e.project_id AS project_id, e.amount_usd AS amount_usd, e.reason AS reason, e.actor AS actor,
    e.reference AS reference
FROM ledger_entries AS e FINAL
WHERE e.wallet_id = {wallet:String}
COMMENT 'Everything that was posted to one wallet. Parameter: wallet. By posted_at: never changes, only grows. SELECT * FROM wallet_statement(wallet = ''ws_42'') ORDER BY seq DESC LIMIT 100';

CREATE VIEW IF NOT EXISTS balance_daily
(
    `wallet_id` String COMMENT 'The wallet',
    `day` Date COMMENT 'UTC day, at its end; every day from the first entry to that instant',
    `balance` Int64 COMMENT 'Left in grants less overdraft, credits',
    `plan_credits` Int64 COMMENT 'Left in grants of plans',
    `topup_credits` Int64 COMMENT 'Left in grants of top-ups',
    `adjustment_credits` Int64 COMMENT 'Left in grants of adjustments',
    `overdraft` Int64 COMMENT 'Usage that no grant has paid yet'
)
SQL SECURITY DEFINER
AS WITH changes AS
(
    SELECT
        toDate(e.posted_at) AS day,
        sum(e.credits) AS balance,
        sum(arraySum((kind, credits) -> if(kind = 'plan', credits, 0), e.grant_effects.kind, e.grant_effects.credits)) AS plan,
        sum(arraySum((kind, credits) -> if(kind = 'topup', credits, 0), e.grant_effects.kind, e.grant_effects.credits)) AS topup,
        sum(arraySum((kind, credits) -> if(kind = 'adjustment', credits, 0), e.grant_effects.kind, e.grant_effects.credits)) AS adjustment
    FROM ledger_entries AS e FINAL
    WHERE e.wallet_id = {wallet:String} AND e.posted_at < {at:DateTime64(3, 'UTC')}
    GROUP BY day
),
days AS
(
    SELECT day, balance, plan, topup, adjustment FROM changes
    ORDER BY day WITH FILL TO toDate({at:DateTime64(3, 'UTC')}) + 1
)
SELECT
    {wallet:String} AS wallet_id,
    day,
    sum(d.balance) OVER (ORDER BY day) AS balance,
    sum(d.plan) OVER (ORDER BY day) AS plan_credits,
    sum(d.topup) OVER (ORDER BY day) AS topup_credits,
    sum(d.adjustment) OVER (ORDER BY day) AS adjustment_credits,
    plan_credits + topup_credits + adjustment_credits - balance AS overdraft
FROM days AS d
COMMENT 'Closing balance of one wallet on each UTC day, by kind of grant. Parameters: wallet; at, normally now(). By posted_at: a day that is over never changes. SELECT * FROM balance_daily(wallet = ''ws_42'', at = now()) ORDER BY day';

CREATE VIEW IF NOT EXISTS credits_outstanding
(
    `day` Date COMMENT 'UTC day, at its end',
    `balance` Int64 COMMENT 'Credits that all wallets together may still use, less overdraft',
    `plan_credits` Int64 COMMENT 'Left in grants of plans',
    `topup_credits` Int64 COMMENT 'Left in grants of top-ups: paid for and not yet delivered',
    `adjustment_credits` Int64 COMMENT 'Left in grants of adjustments',
    `overdraft` Int64 COMMENT 'Usage that no grant has paid yet'
)
SQL SECURITY DEFINER
AS SELECT
    {day:Date} AS day,
    sum(c.balance_change) AS balance,
    sum(c.plan_change) AS plan_credits,
    sum(c.topup_change) AS topup_credits,
    sum(c.adjustment_change) AS adjustment_credits,
    plan_credits + topup_credits + adjustment_credits - balance AS overdraft
FROM credits_by_day AS c FINAL
WHERE c.day <= {day:Date}
COMMENT 'Credits of all wallets that were outstanding at the end of a UTC day, by kind of grant. Parameter: day. By posted_at: for a day that is over it never changes; some seconds behind the entries. SELECT * FROM credits_outstanding(day = ''2026-11-30'')';

CREATE VIEW IF NOT EXISTS topup_revenue
(
    `day` Date COMMENT 'UTC day on which the ledger posted it',
    `plan` LowCardinality(String) COMMENT 'Plan in force at the time of the event; empty without one',
    `topups` UInt64 COMMENT 'Top-ups bought',
    `credits` Int64 COMMENT 'Credits that they brought',
    `revenue_usd` Decimal(18, 2) COMMENT 'What they cost, US dollars'
)
SQL SECURITY DEFINER
AS SELECT c.day AS day, c.plan AS plan, c.topups AS topups, c.topup_credits AS credits, c.topup_usd AS revenue_usd
FROM credits_by_day AS c FINAL
WHERE c.topups > 0
COMMENT 'Top-ups bought, all wallets, by UTC day and plan. By posted_at: a day that is over never changes; some seconds behind the entries. SELECT toStartOfMonth(day) AS month, sum(revenue_usd) FROM topup_revenue GROUP BY month ORDER BY month';

CREATE VIEW IF NOT EXISTS quarantine_summary
(
    `day` Date COMMENT 'UTC day on which it was quarantined last',
    `reason` LowCardinality(String) COMMENT 'Why, for machines',
    `origin_topic` LowCardinality(String) COMMENT 'Topic that the records were first written to',
    `records` UInt64 COMMENT 'Records',
    `wallets` UInt64 COMMENT 'Wallets that they name',
    `latest_at` DateTime64(3, 'UTC') COMMENT 'When the latest was quarantined',
    `latest_detail` String COMMENT 'Why, for people: of the latest'
)
SQL SECURITY DEFINER
AS SELECT
    toDate(q.quarantined_at) AS day,
    q.reason AS reason,
    q.origin_topic AS origin_topic,
    count() AS records,
    uniqExactIf(q.wallet_id, q.wallet_id != '') AS wallets,
    max(q.quarantined_at) AS latest_at,
    argMax(q.detail, q.quarantined_at) AS latest_detail
FROM quarantined_events AS q FINAL
GROUP BY day, reason, origin_topic
COMMENT 'What could not be applied. By quarantined_at: a record that is replayed in vain moves to its new day; kept for 400 days. SELECT * FROM quarantine_summary WHERE day >= today() - 7 ORDER BY day, records DESC';

CREATE VIEW IF NOT EXISTS upgrade_candidates
(
    `wallet_id` String COMMENT 'The wallet',
    `plan` LowCardinality(String) COMMENT 'Plan in force now',
    `allocation` Int64 COMMENT 'Credits of a month of the plan in force now',
    `months` UInt64 COMMENT 'Months of the three in which it ran dry or topped up',
    `months_dry` UInt64 COMMENT 'Months in which it stood at exhausted or overdrawn after an entry',
    `months_topped_up` UInt64 COMMENT 'Months in which it bought a top-up'
)
SQL SECURITY DEFINER
AS SELECT
    w.wallet_id AS wallet_id,
    w.plan AS plan,
    w.allocation AS allocation,
    toUInt64(s.in_all) AS months,
    toUInt64(s.dry) AS months_dry,
    toUInt64(s.topped_up) AS months_topped_up
FROM
(
    -- Without FINAL: a month is counted once however often an entry is stored. The months are those of the partitions, so
    -- that no time need be read; a bit for each, for three in a row never meet.
    WITH bitShiftLeft(toUInt16(1), e._partition_value.1 % 100) AS month
    SELECT
        e.wallet_id AS wallet_id,
        bitCount(groupBitOr(month)) AS in_all,
        bitCount(groupBitOrIf(month, e.level IN ('exhausted', 'overdrawn'))) AS dry,
        bitCount(groupBitOrIf(month, e.event_type = 'topup.purchased')) AS topped_up
    FROM ledger_entries AS e
    WHERE e._partition_value.1 BETWEEN toYYYYMM({at:DateTime64(3, 'UTC')} - INTERVAL 2 MONTH) AND toYYYYMM({at:DateTime64(3, 'UTC')})
        AND (e.level IN ('exhausted', 'overdrawn') OR e.event_type = 'topup.purchased')
    GROUP BY wallet_id
    HAVING in_all >= 2
) AS s
INNER JOIN (SELECT wallet_id, plan, allocation FROM wallets FINAL WHERE plan != '') AS w ON w.wallet_id = s.wallet_id
COMMENT 'Wallets with a plan that ran dry or topped up in 2 of 3 whole calendar months, the last of them that of the instant. Parameter: at, normally now(). By posted_at: never changes for months that are over, but for plan and allocation, which are the latest. SELECT * FROM upgrade_candidates(at = now()) ORDER BY months DESC, wallet_id';

CREATE VIEW IF NOT EXISTS freshness
(
    `table_name` String COMMENT 'The table',
    `ledger_partition` Nullable(Int32) COMMENT 'Partition of the ledger topic, where the table has them',
    `newest_at` DateTime64(3, 'UTC') COMMENT 'Newest posted_at, or what comes nearest to it: updated_at, granted_at, quarantined_at, start of the hour or day',
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
    UNION ALL SELECT 'quarantined_events', NULL, max(quarantined_at), NULL FROM quarantined_events HAVING count() > 0
    UNION ALL SELECT 'usage_by_day', NULL, toDateTime64(max(day), 3, 'UTC'), NULL FROM usage_by_day HAVING count() > 0
    UNION ALL SELECT 'credits_by_day', r.ledger_partition, d.newest, r.ledger_offset - 1
    FROM days_refreshed AS r FINAL CROSS JOIN (SELECT toDateTime64(max(day), 3, 'UTC') AS newest FROM credits_by_day) AS d
)
COMMENT 'How far each table has come; a table without rows is not there. Offsets are those of credits_by_day: a few seconds behind the entries. By posted_at for the entries. SELECT * FROM freshness ORDER BY table_name, ledger_partition';
