"""What the tables take and how fast the views answer, on a ledger that ClickHouse makes itself. Run: make bench-clickhouse

Method: `numbers()` makes the entries of wallets that differ in size as customers do (a few large, most small), 60 days of
them up to now, with running balances that close. They are inserted in slices of time, as the sink does, so that parts
overlap. usage_hourly is their sum by hour, and the tables by day are refreshed with the sink's own statements. Asked are a
typical question to each view, and every query of the dashboards as Grafana sends it: over the range that a dashboard opens
with, all plans and models, the wallet in the middle of the table. Each runs several times; fastest, median and slowest are
told, once with the parts as merges left them, once merged to one per month. What takes longer than it should is marked.
`--codecs` fills copies of ledger_entries with other codecs and tells the bytes of each column. The database is dropped.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1] / "tests"
sys.path[:0] = [str(TESTS / "clickhouse"), str(TESTS / "dashboards")]
import boards  # noqa: E402
import grafana  # noqa: E402
from database import ROOT, Database  # noqa: E402

SLICES = 30
RUNS = 11
# What a dashboard's panel and a wallet's statement may take, milliseconds.
PANEL_MS_MAX, STATEMENT_MS_MAX = 500, 50
# One process serves others too: bounded.
LIMITS = "max_threads = 2, max_memory_usage = 6000000000, max_bytes_before_external_sort = 1500000000, max_bytes_before_external_group_by = 1500000000"

# One row an entry: wallet `w`, place `i` in it. The number of a wallet's entries falls with its rank.
RAW = """
CREATE TABLE raw ENGINE = MergeTree ORDER BY at AS
WITH {wallets} AS wallets, {entries} AS entries
SELECT w, i + 1 AS seq, now64(3, 'UTC') - toIntervalMillisecond(toUInt64((1 - (i + (h % 1000) / 1000) / n) * 60 * 86400000)) AS at,
    h, kind, credits, balance
FROM (
    SELECT number AS w, 3 + toUInt32(0.97 * entries * 0.4 / wallets * pow((number + 1) / wallets, -0.6)) AS n,
        arrayMap(i -> cityHash64(number, i), range(n)) AS hs,
        arrayMap((h, i) -> multiIf(i = 0, 'contract_started', i = 1 OR i % 40 = 39, 'granted', h % 100 < 12, 'held', h % 100 < 24, 'released',
            h % 100 < 27, 'reversed', h % 1000 < 272, 'refused', 'charged'), hs, range(n)) AS kinds,
        arrayMap((h, kind) -> multiIf(kind = 'granted', 1100, kind = 'reversed', 4,
            kind = 'charged', -if(h % 3 = 0, 12 + 12 * (h % 7 % 3), 1 + h % 4), 0)::Int64, hs, kinds) AS all_credits,
        arrayCumSum(all_credits) AS balances
    FROM numbers({wallets})
) ARRAY JOIN range(n) AS i, hs AS h, kinds AS kind, all_credits AS credits, balances AS balance
"""

ENTRIES = """
INSERT INTO ledger_entries (wallet_id, seq, entry_type, credits, held_credits, amount, posted_at, event_time, event_type, source, event_id,
    job_id, asset_type, model, user_id, project_id, images, video_seconds, rate_card, rate, grant_effects, balance_after, level, plan,
    contract_id, period_start, amount_usd, origin_topic, origin_partition, origin_offset, ledger_partition, ledger_offset, fingerprint)
SELECT concat('ws_', leftPad(toString(w), 6, '0')), seq, kind, credits, multiIf(kind = 'held', 4, kind = 'released', -4, 0), if(kind = 'refused', 12, 0),
    at + toIntervalMillisecond(300 + h % 700 + if(h % 50 = 0, 3600000, 0)), at,
    multiIf(is_usage, 'generation.completed', is_topup, 'topup.purchased', ''), if(is_usage, '/render/eu-1', ''), if(is_usage, concat(hex(h), hex(w)), ''),
    if(is_usage, concat('job_', hex(intHash64(h))), ''), multiIf(NOT is_usage, '', h % 3 = 0, 'video', 'image'),
    if(is_usage, ['veo-3', 'imagen-4', 'kling-2.1', 'flux-2'][1 + h % 4], ''), if(is_usage, concat('u_', toString(w * 8 + h % 8)), ''),
    if(is_usage, concat('p_', toString(w * 3 + h % 3)), ''), if(is_usage AND h % 3 != 0, 1 + h % 4, 0), if(is_usage AND h % 3 = 0, 4 + 4 * (h % 7 % 3), 0),
    if(is_usage, '2026-01', ''), multiIf(NOT is_usage, 0, h % 3 = 0, 3, 1),
    if(credits = 0, [], [(if(is_topup, concat('topup:t', toString(seq)), concat('plan:c_', toString(w), ':', toString(intDiv(seq, 40)))), if(is_topup, 'topup', 'plan'),
        credits, greatest(0, balance), if(is_topup, NULL, toDateTime64('2099-01-01', 3, 'UTC')))]),
    balance, multiIf(balance < 0, 'overdrawn', balance = 0, 'exhausted', balance < 55, 'critical', balance < 220, 'low', 'ok'),
    ['lite', 'lite', 'performance', 'scale'][1 + w % 4], concat('c_', toString(w)), toStartOfMonth(at), if(is_topup, 250, 0),
    if(is_usage, 'generation.events', ''), w % 12, if(is_usage, rowNumberInAllBlocks() + {offset}, 0), w % 12, rowNumberInAllBlocks() + {offset}, h
FROM (SELECT *, kind NOT IN ('contract_started', 'granted') AS is_usage, kind = 'granted' AND w % 5 = 0 AND seq > 2 AS is_topup FROM raw)
WHERE at >= {first} AND at < {last}
"""

USAGE = """
INSERT INTO usage_hourly
SELECT wallet_id, toStartOfHour(event_time) AS hour, asset_type, model, plan, countIf(entry_type = 'charged'), min(seq), sumIf(images, entry_type = 'charged'),
    sumIf(video_seconds, entry_type = 'charged'), -sumIf(credits, entry_type = 'charged'), sumIf(credits, entry_type = 'reversed'), sumIf(amount, entry_type = 'refused'), max(seq)
FROM ledger_entries WHERE entry_type IN ('charged', 'reversed', 'refused') AND event_time >= {first} AND event_time < {last}
GROUP BY wallet_id, hour, asset_type, model, plan
"""

WALLETS = """
INSERT INTO wallets
SELECT wallet_id, any(plan), any(contract_id), sum(credits), 0, sum(credits), 0, sum(credits), 0, 0, 1100, argMax(level, seq),
    now() + INTERVAL 10 DAY, now() - INTERVAL 60 DAY, now() + INTERVAL 300 DAY, min(posted_at), max(posted_at), max(seq)
FROM ledger_entries GROUP BY wallet_id
"""

GRANTS = """
INSERT INTO grants
SELECT wallet_id, e.grant_id, any(e.kind), maxIf(e.credits, entry_type = 'granted'), 100, 0, 10, min(event_time),
    if(any(e.expires_at) IS NULL, NULL, now() + toIntervalDay(cityHash64(wallet_id) % 365)), any(contract_id), max(amount_usd), max(seq)
FROM ledger_entries ARRAY JOIN grant_effects AS e GROUP BY wallet_id, e.grant_id
"""

# Every 40th entry changes the level; every 1,000th record cannot be applied.
ALERTS = """
INSERT INTO alerts (wallet_id, alert_id, kind, level, level_before, seq, raised_at, available, allocation, plan)
SELECT wallet_id, concat(wallet_id, ':', level, ':', toString(seq)), 'level', level, 'ok', seq, posted_at, balance_after, 1100, plan
FROM ledger_entries WHERE seq % 40 = 1
"""

QUARANTINED = """
INSERT INTO quarantined_events (origin_topic, origin_topic_id, origin_partition, origin_offset, record_time, quarantined_at, reason, detail,
    wallet_id, source, event_id, key, value, value_bytes)
SELECT 'generation.events', 't', ledger_partition, ledger_offset, event_time, posted_at, ['bad_value', 'not_json', 'id_conflict', 'unknown_type'][1 + seq % 4],
    'images: expected an integer from 1 to 10000', wallet_id, source, event_id, wallet_id, repeat('x', 400), 400
FROM ledger_entries WHERE cityHash64(event_id) % 1000 = 0
"""

# Grafana's letters.
SPANS = {"d": "days", "h": "hours"}

# A dashboard's typical question to each view; {w} is a wallet.
DASHBOARD = {
    "usage_daily": "SELECT day, sum(credits_charged) FROM usage_daily(wallet = '{w}') WHERE day >= today() - 30 GROUP BY day ORDER BY day",
    "usage_monthly": "SELECT month, sum(credits_charged) FROM usage_monthly(wallet = '{w}') WHERE month_kind = 'contract' GROUP BY month ORDER BY month",
    "plan_utilisation": "SELECT * FROM plan_utilisation(wallet = '{w}', at = now())",
    "burn_rate": "SELECT * FROM burn_rate(wallet = '{w}', at = now())",
    "runway": "SELECT * FROM runway(wallet = '{w}', at = now())",
    "balance_daily": "SELECT * FROM balance_daily(wallet = '{w}', at = now()) ORDER BY day",
    "expiring_credits": "SELECT wallet_id, sum(credits_remaining) AS c FROM expiring_credits(days = 30, at = now()) GROUP BY 1 ORDER BY c DESC LIMIT 20",
    "usage_daily_all": "SELECT day, plan, sum(credits_charged) FROM usage_daily_all WHERE day >= today() - 60 GROUP BY ALL ORDER BY ALL",
    "credit_flow": "SELECT * FROM credit_flow WHERE day >= today() - 60 ORDER BY day, plan",
    "credits_outstanding": "SELECT * FROM credits_outstanding(day = today())",
    "topup_revenue": "SELECT toStartOfMonth(day) AS month, sum(revenue_usd) FROM topup_revenue GROUP BY month ORDER BY month",
    "quarantine_summary": "SELECT * FROM quarantine_summary WHERE day >= today() - 7 ORDER BY day, records DESC",
    "upgrade_candidates": "SELECT * FROM upgrade_candidates(at = now()) ORDER BY months DESC, wallet_id LIMIT 100",
    "freshness": "SELECT * FROM freshness ORDER BY table_name, ledger_partition",
    "(wallets by level)": "SELECT plan, level, count() FROM wallets FINAL GROUP BY ALL ORDER BY ALL",
}
STATEMENT = "SELECT * FROM wallet_statement(wallet = '{w}') ORDER BY seq DESC LIMIT 100"

# Codecs that may suit a column better than what the migrations say, by kind of column.
CODECS = {
    "ZSTD(1)": lambda kind: "ZSTD(1)",
    "ZSTD(3)": lambda kind: "ZSTD(3)",
    "Delta, ZSTD(1)": lambda kind: "Delta, ZSTD(1)" if is_number(kind) else "ZSTD(1)",
    "T64, ZSTD(1)": lambda kind: "T64, ZSTD(1)" if is_number(kind) else "LZ4",
}


def is_number(kind: str) -> bool:
    return kind.startswith(("UInt", "Int", "DateTime64", "Decimal(9", "Decimal(18"))


def as_opened(board: str, wallet: str) -> grafana.Context:
    """What Grafana knows of a dashboard that was just opened."""
    now = datetime.now(UTC)
    count, unit = re.fullmatch(r"now-(\d+)([dh])", boards.board(board)["time"]["from"]).groups()
    chosen: dict[str, grafana.Value] = {"plan": grafana.ALL, "model": grafana.ALL, "wallet": wallet, "expire_days": "30"}
    return grafana.Context(now - timedelta(**{SPANS[unit]: int(count)}), now, chosen, {"plan": ".*", "model": ".*"})


class Bench:
    def __init__(self, entries: int, wallets: int) -> None:
        self.entries, self.wallets = entries, wallets
        self.database = Database(timeout_s=1800)

    def run(self, sql: str, **more: str) -> str:
        return self.database.execute(f"{sql} SETTINGS {LIMITS}" if "SETTINGS" not in sql else sql, **more)

    def timed(self, what: str, work: Callable[[], object]) -> None:
        begun = time.monotonic()
        work()
        print(f"  {time.monotonic() - begun:7.1f} s  {what}", flush=True)

    def fill(self) -> None:
        self.database.migrate()
        self.timed("raw entries made", lambda: self.run(RAW.format(wallets=self.wallets, entries=self.entries)))
        self.timed("ledger_entries, in slices of time", lambda: self.slices(ENTRIES))
        self.timed("usage_hourly, in slices of time", lambda: self.slices(USAGE))
        self.timed("wallets and grants", lambda: (self.run(WALLETS), self.run(GRANTS)))
        self.timed("alerts and quarantined events", lambda: (self.run(ALERTS), self.run(QUARANTINED)))
        self.database.execute("DROP TABLE raw SYNC")
        for table in ("usage_by_day", "credits_by_day"):
            sql = (ROOT / "src" / "sink" / f"{table}.sql").read_text()
            first, last = self.database.rows("SELECT toString(today() - 60), toString(today() + 1)")[0]
            self.timed(f"{table}, all days", lambda sql=sql: self.database.execute(sql, first=first, last=last))
            today = self.database.rows("SELECT toString(today())")[0][0]
            self.timed(f"{table}, one day", lambda sql=sql: self.database.execute(sql, first=today, last=today))

    def slices(self, sql: str) -> None:
        for number in range(SLICES):
            ends = [f"now() - toIntervalSecond(toUInt64({60 * 86400 * (SLICES - n) / SLICES}))" for n in (number, number + 1)]
            first = "toDateTime('2000-01-01')" if number == 0 else ends[0]
            last = "toDateTime('2099-01-01')" if number == SLICES - 1 else ends[1]
            self.run(sql.format(first=first, last=last, offset=number * self.entries))

    def sizes(self) -> None:
        sql = """SELECT table, sum(rows), count(), round(sum(bytes_on_disk) / sum(rows), 1), round(sum(data_uncompressed_bytes) / sum(data_compressed_bytes), 1)
            FROM system.parts WHERE database = currentDatabase() AND active GROUP BY table ORDER BY sum(rows) DESC"""
        print(f"\n  {'table':20} {'rows':>12} {'parts':>6} {'bytes/row':>10} {'compressed':>11}")
        for table, count, parts, per_row, ratio in self.database.rows(sql):
            print(f"  {table:20} {int(count):12,} {parts:>6} {per_row:>10} {ratio + ' x':>11}")

    def queries(self) -> None:
        middle = f"ws_{self.wallets // 2:06}"
        print(f"\n  load {os.getloadavg()[0]:.1f}\n  {'query':44} {'fastest':>9} {'median':>9} {'slowest':>9}")
        for name, sql in DASHBOARD.items():
            self.time_query(name, sql.format(w=middle), PANEL_MS_MAX)
        for name, wallet in (("wallet_statement", middle), ("wallet_statement, largest", "ws_000000")):
            self.time_query(name, STATEMENT.format(w=wallet), STATEMENT_MS_MAX)
        self.time_query("balance_daily, largest", DASHBOARD["balance_daily"].format(w="ws_000000"), PANEL_MS_MAX)
        for name, sql in boards.queries_of_clickhouse().items():
            self.time_query(name, grafana.sql(sql, as_opened(name.split(":")[0], middle)), PANEL_MS_MAX)

    def time_query(self, name: str, sql: str, ms_max: int) -> None:
        """Fastest, median and slowest: the fastest is what is left of the machine's other work."""
        took = []
        for _ in range(RUNS):
            begun = time.monotonic()
            self.run(sql)
            took.append((time.monotonic() - begun) * 1000)
        mark = f"  OVER {ms_max} ms" if statistics.median(took) >= ms_max else ""
        print(f"  {name:44} {min(took):6.0f} ms {statistics.median(took):6.0f} ms {max(took):6.0f} ms{mark}", flush=True)

    def merge(self) -> None:
        for table in ("ledger_entries", "usage_hourly", "wallets", "grants"):
            self.timed(f"OPTIMIZE TABLE {table} FINAL", lambda table=table: self.database.execute(f"OPTIMIZE TABLE {table} FINAL"))

    def codecs(self) -> None:
        columns = self.database.rows("SELECT name, type FROM system.columns WHERE database = currentDatabase() AND table = 'ledger_entries' ORDER BY position")
        sizes: dict[str, dict[str, int]] = {}
        for title, of in {"as it is": None, **CODECS}.items():
            if of is None:
                sizes[title] = self.column_bytes("ledger_entries")
                continue
            listed = ", ".join(f"`{name}` {kind} CODEC({of(kind)})" for name, kind in columns)
            self.database.execute(f"CREATE TABLE copy ({listed}) ENGINE = MergeTree PARTITION BY toYYYYMM(posted_at) ORDER BY (wallet_id, seq)")
            self.run("INSERT INTO copy SELECT * FROM ledger_entries")
            self.database.execute("OPTIMIZE TABLE copy FINAL")
            sizes[title] = self.column_bytes("copy")
            self.database.execute("DROP TABLE copy SYNC")
        print("\n  bytes per entry\n  " + f"{'column':18}" + "".join(f"{title:>16}" for title in sizes))
        count = int(self.database.rows("SELECT count() FROM ledger_entries")[0][0])
        for name, _ in columns:
            print(f"  {name:18}" + "".join(f"{of[name] / count:16.2f}" for of in sizes.values()))
        print(f"  {'all':18}" + "".join(f"{sum(of.values()) / count:16.2f}" for of in sizes.values()), flush=True)

    def column_bytes(self, table: str) -> dict[str, int]:
        sql = f"SELECT name, data_compressed_bytes FROM system.columns WHERE database = currentDatabase() AND table = '{table}'"
        return {name: int(size) for name, size in self.database.rows(sql)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=int, default=10_000_000)
    parser.add_argument("--wallets", type=int, default=100_000)
    parser.add_argument("--codecs", action="store_true", help="also fill copies with other codecs")
    options = parser.parse_args()
    bench = Bench(options.entries, options.wallets)
    try:
        print(f"ClickHouse {bench.database.rows('SELECT version()')[0][0]}, {options.entries:,} entries of {options.wallets:,} wallets")
        bench.fill()
        bench.sizes()
        bench.queries()
        bench.merge()
        bench.sizes()
        bench.queries()
        if options.codecs:
            bench.codecs()
    finally:
        bench.database.drop()


if __name__ == "__main__":
    main()
