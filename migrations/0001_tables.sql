-- The tables of the contract. Every one is an upsert by its key: writing a row again changes nothing.
-- A statement ends where a line ends with a semicolon. The database is the connection's.
-- A migration that has been released is never edited: add the next number instead.

CREATE TABLE IF NOT EXISTS ledger_entries
(
    `wallet_id` String COMMENT 'The wallet: subject of the event' CODEC(ZSTD(1)),
    `seq` UInt64 COMMENT 'Number of the entry within its wallet: 1, 2, 3 and so on without a gap' CODEC(Delta, ZSTD(1)),
    `entry_type` LowCardinality(String) COMMENT 'What the posting did: granted, charged, refused and so on' CODEC(ZSTD(1)),
    `credits` Int64 COMMENT 'Signed effect on the balance, credits; the sum over a wallet is its balance' CODEC(ZSTD(1)),
    `held_credits` Int64 COMMENT 'Signed effect on what is held, credits' CODEC(ZSTD(1)),
    `amount` Int64 COMMENT 'Size of the posting where both effects are 0, credits: the full cost of a refusal, the overdraft repaid' CODEC(ZSTD(1)),
    `posted_at` DateTime64(3, 'UTC') COMMENT 'When the ledger wrote it' CODEC(Delta, ZSTD(1)),
    `event_time` DateTime64(3, 'UTC') COMMENT 'When it happened, as the producer says' CODEC(Delta, ZSTD(1)),
    `event_type` LowCardinality(String) COMMENT 'Type of the event, without a configured prefix; empty for what time alone caused' CODEC(ZSTD(1)),
    `source` LowCardinality(String) COMMENT 'Producer of the event' CODEC(ZSTD(1)),
    `event_id` String COMMENT 'Id of the event, unique per wallet and source' CODEC(ZSTD(1)),
    `job_id` String COMMENT 'Job of the usage' CODEC(ZSTD(1)),
    `asset_id` String COMMENT 'Asset of the job, where a job names its assets' CODEC(ZSTD(1)),
    `asset_type` LowCardinality(String) COMMENT 'image or video; empty where it is not about usage' CODEC(ZSTD(1)),
    `model` LowCardinality(String) COMMENT 'Model that made it' CODEC(ZSTD(1)),
    `user_id` String COMMENT 'User who asked for it' CODEC(ZSTD(1)),
    `project_id` String COMMENT 'Project that it is for' CODEC(ZSTD(1)),
    `images` UInt32 COMMENT 'Images made' CODEC(ZSTD(1)),
    `video_seconds` Decimal(9, 3) COMMENT 'Seconds of video made' CODEC(ZSTD(1)),
    `rate_card` LowCardinality(String) COMMENT 'Rate card that priced it' CODEC(ZSTD(1)),
    `rate` Decimal(18, 6) COMMENT 'Credits for one image or one second' CODEC(ZSTD(1)),
    `grant_effects` Array(Tuple(grant_id String, kind LowCardinality(String), credits Int64, remaining_after Int64, expires_at Nullable(DateTime64(3, 'UTC')))) COMMENT 'Grants drawn from (-), made or returned to (+), in order; expires_at NULL: never' CODEC(ZSTD(1)),
    `balance_after` Int64 COMMENT 'Balance of the wallet after this entry, credits' CODEC(Delta, ZSTD(1)),
    `held_after` Int64 COMMENT 'Held by running jobs after this entry, credits' CODEC(ZSTD(1)),
    `overdraft_after` Int64 COMMENT 'Usage that no grant has paid yet after this entry, credits' CODEC(Delta, ZSTD(1)),
    `level` LowCardinality(String) COMMENT 'Level of the wallet once the whole event was posted: ok, low, critical, exhausted, overdrawn' CODEC(ZSTD(1)),
    `plan` LowCardinality(String) COMMENT 'Plan in force at the time of the event' CODEC(ZSTD(1)),
    `contract_id` String COMMENT 'Contract in force at the time of the event, or that it is about' CODEC(ZSTD(1)),
    `period_start` Nullable(Date) COMMENT 'First day of the month of the contract; NULL without a contract' CODEC(ZSTD(1)),
    `amount_usd` Decimal(18, 2) COMMENT 'Price of a top-up, US dollars' CODEC(ZSTD(1)),
    `reason` String COMMENT 'Why a person did it' CODEC(ZSTD(1)),
    `actor` String COMMENT 'Who did it' CODEC(ZSTD(1)),
    `reference` String COMMENT 'An invoice or a ticket' CODEC(ZSTD(1)),
    `origin_topic` LowCardinality(String) COMMENT 'Topic that the event was first written to' CODEC(ZSTD(1)),
    `origin_partition` Int32 COMMENT 'Its partition there' CODEC(ZSTD(1)),
    `origin_offset` Int64 COMMENT 'Its offset there' CODEC(Delta, ZSTD(1)),
    `ledger_partition` Int32 COMMENT 'Partition of the ledger topic that this entry stands in' CODEC(ZSTD(1)),
    `ledger_offset` Int64 COMMENT 'Offset there; entries of one event share it' CODEC(Delta, ZSTD(1)),
    `fingerprint` UInt64 COMMENT 'Hash of what the event says; lower(hex(fingerprint)) is its spelling elsewhere' CODEC(ZSTD(1)),
    `business_id` String COMMENT 'contract:, topup: or adjustment: and the id, where this entry uses one up for ever' CODEC(ZSTD(1)),
    INDEX event_time_range event_time TYPE minmax GRANULARITY 1,
    INDEX job_id_bloom job_id TYPE bloom_filter GRANULARITY 1
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(posted_at)
ORDER BY (wallet_id, seq)
SETTINGS index_granularity = 2048
COMMENT 'The ledger, one row per posting. Append-only; read with FINAL';

CREATE TABLE IF NOT EXISTS usage_hourly
(
    `wallet_id` String COMMENT 'The wallet' CODEC(ZSTD(1)),
    `hour` DateTime('UTC') COMMENT 'Start of the hour of the time of the events' CODEC(Delta, ZSTD(1)),
    `asset_type` LowCardinality(String) COMMENT 'image or video' CODEC(ZSTD(1)),
    `model` LowCardinality(String) COMMENT 'Model that made it' CODEC(ZSTD(1)),
    `plan` LowCardinality(String) COMMENT 'Plan in force at the time of the events' CODEC(ZSTD(1)),
    `jobs` UInt64 COMMENT 'Jobs charged' CODEC(ZSTD(1)),
    `part` UInt64 COMMENT 'Seq at which the totals of this row began; rows that differ only here add up' CODEC(ZSTD(1)),
    `images` UInt64 COMMENT 'Images charged' CODEC(ZSTD(1)),
    `video_seconds` Decimal(18, 3) COMMENT 'Seconds of video charged' CODEC(ZSTD(1)),
    `credits_charged` Int64 COMMENT 'Credits charged, positive' CODEC(ZSTD(1)),
    `credits_reversed` Int64 COMMENT 'Credits given back, positive' CODEC(ZSTD(1)),
    `credits_refused` Int64 COMMENT 'Credits refused, positive: never drawn' CODEC(ZSTD(1)),
    `seq` UInt64 COMMENT 'Entry that these totals include last: the greatest wins' CODEC(ZSTD(1))
)
ENGINE = ReplacingMergeTree(seq)
PARTITION BY toYYYYMM(hour)
ORDER BY (wallet_id, hour, asset_type, model, plan, part)
COMMENT 'Usage by wallet and hour: totals so far, not increments. Read with FINAL and sum over part';

CREATE TABLE IF NOT EXISTS wallets
(
    `wallet_id` String COMMENT 'The wallet' CODEC(ZSTD(1)),
    `plan` LowCardinality(String) COMMENT 'Plan in force; empty without one' CODEC(ZSTD(1)),
    `contract_id` String COMMENT 'Contract in force; empty without one' CODEC(ZSTD(1)),
    `balance` Int64 COMMENT 'Left in grants less overdraft, credits' CODEC(ZSTD(1)),
    `held` Int64 COMMENT 'Reserved by running jobs, credits' CODEC(ZSTD(1)),
    `available` Int64 COMMENT 'Balance less held, credits' CODEC(ZSTD(1)),
    `overdraft` Int64 COMMENT 'Usage that no grant has paid yet, credits' CODEC(ZSTD(1)),
    `plan_credits` Int64 COMMENT 'Left in grants of plans' CODEC(ZSTD(1)),
    `topup_credits` Int64 COMMENT 'Left in grants of top-ups' CODEC(ZSTD(1)),
    `adjustment_credits` Int64 COMMENT 'Left in grants of adjustments' CODEC(ZSTD(1)),
    `allocation` Int64 COMMENT 'Credits of a month of the plan in force' CODEC(ZSTD(1)),
    `level` LowCardinality(String) COMMENT 'ok, low, critical, exhausted or overdrawn' CODEC(ZSTD(1)),
    `next_allocation_at` Nullable(DateTime64(3, 'UTC')) COMMENT 'When the next month is granted; NULL: none to come' CODEC(ZSTD(1)),
    `term_started_at` Nullable(DateTime64(3, 'UTC')) COMMENT 'First instant of the term in force; NULL: no contract' CODEC(ZSTD(1)),
    `term_ends_at` Nullable(DateTime64(3, 'UTC')) COMMENT 'First instant after it; NULL: no contract' CODEC(ZSTD(1)),
    `first_seen_at` DateTime64(3, 'UTC') COMMENT 'Posted time of the first entry' CODEC(ZSTD(1)),
    `updated_at` DateTime64(3, 'UTC') COMMENT 'Posted time of the last entry' CODEC(ZSTD(1)),
    `seq` UInt64 COMMENT 'Last entry that this row covers: the greatest wins' CODEC(ZSTD(1))
)
ENGINE = ReplacingMergeTree(seq)
ORDER BY wallet_id
COMMENT 'Latest state of each wallet. Read with FINAL';

CREATE TABLE IF NOT EXISTS grants
(
    `wallet_id` String COMMENT 'The wallet' CODEC(ZSTD(1)),
    `grant_id` String COMMENT 'plan:<contract>:<month>, topup:<id> or adjustment:<id>' CODEC(ZSTD(1)),
    `kind` LowCardinality(String) COMMENT 'plan, topup or adjustment' CODEC(ZSTD(1)),
    `credits_granted` Int64 COMMENT 'Credits at the start' CODEC(ZSTD(1)),
    `credits_remaining` Int64 COMMENT 'Credits left' CODEC(ZSTD(1)),
    `credits_repaid` Int64 COMMENT 'Credits of it that went into overdraft' CODEC(ZSTD(1)),
    `priority` UInt16 COMMENT 'The lowest pays first' CODEC(ZSTD(1)),
    `granted_at` DateTime64(3, 'UTC') COMMENT 'When it was granted, by the time of the event or when it was due' CODEC(ZSTD(1)),
    `expires_at` Nullable(DateTime64(3, 'UTC')) COMMENT 'First instant at which it pays no more; NULL: never' CODEC(ZSTD(1)),
    `contract_id` String COMMENT 'Contract of a grant of a plan' CODEC(ZSTD(1)),
    `amount_usd` Decimal(18, 2) COMMENT 'Price of a top-up, US dollars' CODEC(ZSTD(1)),
    `seq` UInt64 COMMENT 'Entry of the wallet up to which this row is right: the greatest wins' CODEC(ZSTD(1))
)
ENGINE = ReplacingMergeTree(seq)
ORDER BY (wallet_id, grant_id)
COMMENT 'Latest state of each lot of credits. Read with FINAL';

CREATE TABLE IF NOT EXISTS quarantined_events
(
    `origin_topic` LowCardinality(String) COMMENT 'Topic that the record was first written to' CODEC(ZSTD(1)),
    `origin_topic_id` String COMMENT 'Id of that topic: a topic made anew has another one' CODEC(ZSTD(1)),
    `origin_partition` Int32 COMMENT 'Its partition there' CODEC(ZSTD(1)),
    `origin_offset` Int64 COMMENT 'Its offset there' CODEC(Delta, ZSTD(1)),
    `record_time` DateTime64(3, 'UTC') COMMENT 'Kafka timestamp of the record; 1970 where it has none' CODEC(Delta, ZSTD(1)),
    `quarantined_at` DateTime64(3, 'UTC') COMMENT 'When it was quarantined: the latest wins' CODEC(Delta, ZSTD(1)),
    `reason` LowCardinality(String) COMMENT 'Why, for machines' CODEC(ZSTD(1)),
    `detail` String COMMENT 'Why, for people' CODEC(ZSTD(1)),
    `wallet_id` String COMMENT 'Subject of the event, where it could be read' CODEC(ZSTD(1)),
    `source` String COMMENT 'Producer of the event, where it could be read' CODEC(ZSTD(1)),
    `event_id` String COMMENT 'Id of the event, where it could be read' CODEC(ZSTD(1)),
    `key` String COMMENT 'Key of the record; what is not UTF-8 is replaced' CODEC(ZSTD(1)),
    `value` String COMMENT 'Value of the record; what is not UTF-8 is replaced' CODEC(ZSTD(1)),
    `headers` Array(Tuple(name String, value String)) COMMENT 'Headers of the record, in order' CODEC(ZSTD(1)),
    `value_bytes` UInt32 COMMENT 'Length of the value in the quarantine topic, bytes' CODEC(ZSTD(1))
)
ENGINE = ReplacingMergeTree(quarantined_at)
PARTITION BY toYYYYMM(record_time)
ORDER BY (origin_topic, origin_topic_id, origin_partition, origin_offset)
TTL toDateTime(quarantined_at) + INTERVAL 400 DAY
COMMENT 'Records that could not be applied, as they came. Kept for 400 days; the topic keeps them for ever';
