"""A database of a test's own on the real engine, with the migrations of this checkout and the fixed ledger of `data/`.

The data: four wallets from September to December 2026, written by hand. ws_ada (plan lite) has a late charge and a
refund, ws_bob (performance) goes into overdraft and tops up, ws_cal has top-ups and adjustments only, and ws_dee (a
term of three months that may not overdraw) has a refusal, a refund and credits that expire.
"""

from __future__ import annotations

import os
import re
import urllib.error
import urllib.request
import uuid
from pathlib import Path
from urllib.parse import urlencode

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(__file__).resolve().parent / "data"
URL = os.environ.get("CREDITSTREAM__CLICKHOUSE__URL") or "http://127.0.0.1:38123"
# What the fixed ledger's days span.
FIRST_DAY, LAST_DAY = "2026-09-01", "2026-12-01"

# What rows with a smaller seq said.
OLDER = {
    "usage_hourly": "credits_charged + 1 AS credits_charged, 0 AS jobs",
    "wallets": "'older' AS plan, 'c_older' AS contract_id, 'low' AS level, 7 AS available, updated_at - 3600 AS updated_at",
    "grants": "credits_granted + 1 AS credits_granted, credits_remaining + 1 AS credits_remaining",
}


class EngineError(Exception):
    """What ClickHouse answers instead of a result."""


def statements(sql: str) -> list[str]:
    """As the sink splits a migration: a statement ends where a line that is no comment ends with a semicolon."""
    found, lines = [], []
    for line in sql.splitlines():
        lines.append(line.rstrip("; "))
        if line.rstrip().endswith(";") and not line.lstrip().startswith("--"):
            found.append("\n".join(lines))
            lines = []
    return found


def migrations() -> list[Path]:
    return sorted((ROOT / "migrations").glob("*.sql"))


class Database:
    """Made empty; dropped by `drop`."""

    def __init__(self, timeout_s: int = 120) -> None:
        self.timeout_s = timeout_s
        self.name = "views_test_" + uuid.uuid4().hex[:12]
        self.execute(f"CREATE DATABASE {self.name}", database="default")

    def drop(self) -> None:
        self.execute(f"DROP DATABASE IF EXISTS {self.name} SYNC", database="default")

    def execute(self, sql: str, data: bytes | None = None, database: str | None = None, **parameters: str) -> str:
        """Runs one statement; with `data`, an insert of it."""
        url = {"database": database or self.name, **{f"param_{name}": value for name, value in parameters.items()}}
        if data is not None:
            url["query"] = sql
        request = urllib.request.Request(f"{URL}/?{urlencode(url)}", data=sql.encode() if data is None else data)
        request.add_header("X-ClickHouse-User", os.environ.get("CREDITSTREAM__CLICKHOUSE__USER") or "default")
        request.add_header("X-ClickHouse-Key", os.environ.get("CREDITSTREAM__CLICKHOUSE__PASSWORD") or "")
        try:
            with urllib.request.urlopen(request, timeout=self.timeout_s) as answer:
                return str(answer.read().decode())
        except urllib.error.HTTPError as error:
            raise EngineError(error.read().decode()) from None
        except urllib.error.URLError as error:
            raise AssertionError(f"ClickHouse at {URL} does not answer ({error}): run make stack-up") from None

    def rows(self, sql: str) -> list[list[str]]:
        """The answer as text, column by column. Without nulls or tabs in it, it is what a person reads."""
        return [line.split("\t") for line in self.execute(sql + "\nFORMAT TSVRaw").splitlines()]

    def migrate(self) -> None:
        for path in migrations():
            for statement in statements(path.read_text()):
                self.execute(statement)

    def load(self) -> None:
        """Inserts the fixed ledger twice, and before it an older state of what has states, in parts that are not merged:
        a view that forgets FINAL counts double, or shows what is no more."""
        for path in sorted(DATA.glob("*.jsonl")):
            self.execute(f"SYSTEM STOP MERGES {self.name}.{path.stem}")
            for _ in range(2):
                self.execute(f"INSERT INTO {path.stem} SETTINGS input_format_skip_unknown_fields = 0 FORMAT JSONEachRow",
                             path.read_bytes())
        for table, state in OLDER.items():
            self.execute(f"INSERT INTO {table} SELECT * REPLACE (seq - 1 AS seq, {state}) FROM {table}")
        self.refresh_days()
        self.refresh_days()

    def refresh_days(self) -> None:
        """As the sink does, for all days of the fixed ledger."""
        for table in ("usage_by_day", "credits_by_day"):
            sql = (ROOT / "src" / "sink" / f"{table}.sql").read_text()
            self.execute(sql, first=FIRST_DAY, last=LAST_DAY)
        self.execute("INSERT INTO days_refreshed SELECT ledger_partition, max(ledger_offset) + 1 FROM ledger_entries GROUP BY ALL")


def views(database: Database) -> list[str]:
    sql = "SELECT name FROM system.tables WHERE database = currentDatabase() AND engine = 'View' ORDER BY name"
    return [row[0] for row in database.rows(sql)]


def described(sql: str, view: str) -> list[tuple[str, str]]:
    """Columns of a view as its migration lists them: (name, type)."""
    found = re.search(rf"CREATE VIEW IF NOT EXISTS {view}\n\((.*?)\n\)", sql, re.DOTALL)
    assert found is not None, view
    return re.findall(r"`(\w+)` (.+?) COMMENT '", found[1])
