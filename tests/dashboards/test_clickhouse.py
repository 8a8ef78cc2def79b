"""Every query of the dashboards to ClickHouse, on the real engine: to the credit what the books say.

The data: the fixed ledger of tests/clickhouse, and two wallets of data/ beside it (one exhausted, one overdrawn). All of
it is inserted twice and not merged. Method: each query is asked for several ranges, plans, models and wallets; what it
answers is compared with what books.py works out from the ledger file. Then columns are renamed: each query must fail.
"""

from __future__ import annotations

import json
import re
import unittest
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import boards
from books import Asked, Books, Rows, charged, effect, happened, instant, posted
from database import DATA, Database, EngineError
from grafana import ALL, Context, sql

SEED = boards.ROOT / "tests" / "dashboards" / "data"

WHOLE = Asked(instant("2026-09-01 00:00:00"), instant("2026-12-02 12:00:00"))
ASKED = (
    WHOLE,
    replace(WHOLE, begin=instant("2026-11-01 06:00:00"), end=instant("2026-11-27 23:00:00")),
    replace(WHOLE, plans=("lite", "none"), wallet="ws_ada", expire_days=300),
    replace(WHOLE, plans=("performance",), models=("veo-3",), wallet="ws_cal"),
    replace(WHOLE, models=("none", "imagen-4"), wallet="ws_eve", expire_days=365),
    replace(WHOLE, plans=("scale",), wallet="ws_dee"),
    replace(WHOLE, wallet="ws_fay"),
    replace(WHOLE, wallet="nobody", plans=("it's",), models=("no\\such",)),
)

STATEMENT = ("seq", "entry_type", "credits", "balance_after", "overdraft_after", "amount")
Expected = Callable[[Books, Asked], Rows]


def one(value: object) -> Rows:
    return [] if value is None else [[str(value)]]


def of_month(name: str) -> Expected:
    return lambda b, a: one((b.month(a) or {}).get(name))


def known(of: Expected) -> Expected:
    """A wallet that is not there has no row."""
    return lambda b, a: of(b, a) if b.of(a.wallet) else []


def changes(board: str, level: str) -> Expected:
    """Level changes that are marked: [time, wallet, credits available]."""

    def expected(b: Books, a: Asked) -> Rows:
        found = [alert for alert in b.alerts if alert["kind"] == "level" and alert["level"] == level and a.has(instant(alert["raised_at"]))
                 and (a.of_plan(alert) if board == "credits" else alert["wallet_id"] == a.wallet)]
        return sorted(([alert["raised_at"], f"{alert['wallet_id']}: {alert['level_before']} to {level}, {alert['available']} credits available", level]
                       for alert in found), reverse=True)

    return expected


# What each query answers. Zeros, which only say that something else happened on the day, are left out on both sides.
EXPECTED: dict[str, Expected] = {
    "credits: Credits charged": lambda b, a: b.total(a, charged),
    "credits: Credits granted": lambda b, a: b.total(a, lambda e: effect(e, "granted")),
    "credits: Credits refunded": lambda b, a: b.total(a, lambda e: effect(e, "reversed")),
    "credits: Top-up revenue": lambda b, a: one(sum(int(e["amount_usd"]) for e in b.revenue(a))),
    "credits: Credits outstanding": lambda b, a: one(sum(int(e.get("credits", 0)) for e in b.entries if posted(e).date() <= a.end.date())),
    "credits: Charged per day by plan": lambda b, a: b.by_day(b.flow(a), posted, "plan", charged),
    "credits: Granted per day by plan": lambda b, a: b.by_day(b.flow(a), posted, "plan", lambda e: effect(e, "granted")),
    "credits: Charged per day by asset": lambda b, a: b.by_day(b.usage(a), happened, "asset_type", charged),
    "credits: Refunds, refusals and expiry": lambda b, a: b.refunds(a),
    "credits: Utilisation by plan": lambda b, a: b.utilisation(a),
    "credits: Model mix": lambda b, a: b.by_name(b.usage(a), "model"),
    "credits: Top spenders": lambda b, a: b.spenders(a),
    "credits: Exhausted now": lambda b, a: b.exhausted(a),
    "credits: Expiring soon": lambda b, a: b.expiring(a),
    "credits: Top-up revenue per day": lambda b, a: b.by_day(b.revenue(a), posted, "plan", lambda e: int(e["amount_usd"])),
    "credits: Credits outstanding by day": lambda b, a: b.outstanding(a),
    "customer: Level": known(lambda b, a: one(b.state(a.wallet)[1])),
    "customer: Available": known(lambda b, a: one(b.state(a.wallet)[2])),
    "customer: Runway": known(lambda b, a: one(b.runway(a))),
    "customer: Used of the month": of_month("used"),
    "customer: Gone of the month": of_month("gone"),
    "customer: Expected by its end": of_month("expected"),
    "customer: Balance and allocation": lambda b, a: b.balance(a),
    "customer: Burn-down by expiry": lambda b, a: b.burn_down(a),
    "customer: By user": lambda b, a: b.by_name(b.in_range(a), "user_id"),
    "customer: By project": lambda b, a: b.by_name(b.in_range(a), "project_id"),
    "customer: By model": lambda b, a: b.by_name([e for e in b.in_range(a) if a.of_model(e)], "model"),
    "customer: Usage per day by model": lambda b, a: b.by_day([e for e in b.usage(replace(a, plans=None)) if e["wallet_id"] == a.wallet],
                                                            happened, "model", charged),
    "customer: Statement": lambda b, a: [[str(e.get(column, 0)) for column in STATEMENT] for e in reversed(b.in_range(a))],
    "pipeline: Freshness": lambda b, a: [[name] for name in ("alerts", "credits_by_day", "credits_by_day", "grants", "ledger_entries", "quarantined_events",
                                                             "usage_by_day", "usage_hourly", "wallets")],
    "quality: Quarantined by day": lambda b, a: b.kept_by_day(a),
    "quality: Reasons": lambda b, a: reasons(b, a),
    "quality: Conflicts by day": lambda b, a: conflicts(b, a),
    "quality: Samples": lambda b, a: [[r["quarantined_at"], r["reason"], r["detail"], r.get("wallet_id", "")] for r in sorted(
        (r for r in b.quarantined if a.has(instant(r["quarantined_at"]))), key=lambda r: r["quarantined_at"], reverse=True)],
    "quality: Late events by day": lambda b, a: b.late(a),
    "quality: Models not seen before": lambda b, a: b.new_models(a),
    "credits: variable plan": lambda b, a: [[name] for name in sorted({e.get("plan") or "none" for e in b.entries})],
    "credits: variable model": lambda b, a: models(b),
    "customer: variable model": lambda b, a: models(b),
    "quality: variable model": lambda b, a: models(b),
    "customer: variable wallet": lambda b, a: [[wallet] for wallet in sorted(
        b.wallets(), key=lambda wallet: (-max(posted(e) for e in b.of(wallet)).timestamp(), wallet))],
    **{f"{board}: annotation Level: {level}": changes(board, level)
       for board in ("credits", "customer") for level in ("ok", "low", "critical", "exhausted", "overdrawn")},
}
# Of tables with more than the books hold: these columns.
COLUMNS = {"customer: Statement": [0, 2, 3, 4, 5, 7], "pipeline: Freshness": [0], "quality: Samples": [0, 1, 2, 3],
           "credits: Exhausted now": [0, 1, 2, 3, 4]}
# A row of these stands for the day also where its figures are 0.
WITH_ZEROS = {"customer: Balance and allocation", "customer: Burn-down by expiry", "customer: Statement", "credits: Credits outstanding by day"}


def models(b: Books) -> Rows:
    return [[name] for name in sorted({e.get("model") or "none" for e in b.entries if e["entry_type"] in ("charged", "reversed", "refused")})]


def reasons(b: Books, a: Asked) -> Rows:
    sums: dict[str, int] = {}
    for _, reason, records in b.kept_by_day(a):
        sums[reason] = sums.get(reason, 0) + int(records)
    return [[reason, str(sums[reason])] for reason in sorted(sums, key=lambda reason: (-sums[reason], reason))]


def conflicts(b: Books, a: Asked) -> Rows:
    kept = {(day, reason): records for day, reason, records in b.kept_by_day(a)}
    days = sorted({day for day, reason in kept if reason in ("id_conflict", "job_conflict")})
    return [[day, kept.get((day, "id_conflict"), "0"), kept.get((day, "job_conflict"), "0")] for day in days]


def context(asked: Asked) -> Context:
    chosen = {"plan": list(asked.plans or ()) or ALL, "model": list(asked.models or ()) or ALL, "wallet": asked.wallet, "expire_days": str(asked.expire_days)}
    return Context(asked.begin, asked.end, chosen, {"plan": ".*", "model": ".*"})


def without_zeros(rows: Rows) -> Rows:
    """Rows of a day all of whose figures are 0 are dropped."""
    return [row for row in rows if not re.match(r"\d{4}-", row[0]) or any(value not in ("0",) for value in row[1:] if re.fullmatch(r"-?\d+", value))
            or not any(re.fullmatch(r"-?\d+", value) for value in row[1:])]


def shown(name: str, found: Rows) -> Rows:
    """Of an answer, what the books have too."""
    if name in COLUMNS:
        found = [[row[column] for column in COLUMNS[name]] for row in found]
    return found if name in WITH_ZEROS else without_zeros(found)


def seeded() -> Database:
    database = Database()
    try:
        database.migrate()
        for _ in range(2):
            for path in sorted(SEED.glob("*.jsonl")):
                database.execute(f"SYSTEM STOP MERGES {database.name}.{path.stem}")
                database.execute(f"INSERT INTO {path.stem} FORMAT JSONEachRow", path.read_bytes())
        database.load()
    except BaseException:
        database.drop()
        raise
    return database


class QueriesTest(unittest.TestCase):
    books: Books
    answers: dict[tuple[str, Asked], Rows]

    @classmethod
    def setUpClass(cls) -> None:
        database = seeded()
        cls.addClassCleanup(database.drop)
        cls.books = Books([DATA, SEED])
        asked = {(name, of): sql(text, context(of)) for name, text in boards.queries_of_clickhouse().items() for of in ASKED}
        # Most queries do not depend on everything that is chosen: each is asked once.
        texts = sorted(set(asked.values()))
        with ThreadPoolExecutor(4) as pool:
            answers = dict(zip(texts, pool.map(database.rows, texts)))
        cls.answers = {(name, of): shown(name, answers[text]) for (name, of), text in asked.items()}

    def test_every_query_answers_what_the_books_say(self) -> None:
        self.assertEqual(sorted({name for name, _ in self.answers}), sorted(EXPECTED), "every query has books, and the books no others")
        for (name, asked), rows in self.answers.items():
            with self.subTest(name, asked=asked):
                self.assertEqual(rows, EXPECTED[name](self.books, asked))

    def test_every_query_is_asked_where_it_has_an_answer(self) -> None:
        """A comparison of nothing with nothing would show nothing. No wallet comes to critical in the data."""
        has_answer = {name for (name, _), rows in self.answers.items() if rows and rows != [["0"]]}
        self.assertEqual({name for name in EXPECTED if not name.endswith("Level: critical")} - has_answer, set())

    def test_the_books_close(self) -> None:
        for wallet in self.books.wallets():
            entries = self.books.of(wallet)
            self.assertEqual(sum(int(e.get("credits", 0)) for e in entries), int(entries[-1].get("balance_after", 0)), wallet)


# Columns of the tables that everything comes from; no key among them, for a key cannot be renamed.
ALTERED = (("ledger_entries", "credits"), ("ledger_entries", "amount"), ("usage_by_day", "credits_charged"), ("credits_by_day", "credits_granted"),
           ("credits_by_day", "balance_change"), ("credits_by_day", "topup_usd"), ("usage_hourly", "credits_charged"), ("wallets", "level"),
           ("wallets", "updated_at"), ("grants", "credits_granted"), ("grants", "expires_at"), ("quarantined_events", "reason"), ("alerts", "available"))
# What does not change when a wallet is charged one credit more.
NOT_ABOUT_CHARGES = re.compile(r"credits: (Credits (granted|refunded)|Granted|Refunds|Top-up|Exhausted|Expiring)"
                               r"|customer: (Level|Gone|Burn-down)|pipeline|quality|.*: (variable|annotation)")


class DifferenceTest(unittest.TestCase):
    def test_every_query_fails_where_a_column_has_another_name(self) -> None:
        """In tables without rows, for ClickHouse rewrites those that are there: a name is missed all the same."""
        database = Database()
        self.addCleanup(database.drop)
        database.migrate()
        queries = {name: sql(text, context(WHOLE)) for name, text in boards.queries_of_clickhouse().items()}
        self.assertEqual([name for name, text in queries.items() if self.fails(database, text)], [])
        for table, column in ALTERED:
            database.execute(f"ALTER TABLE {table} RENAME COLUMN {column} TO altered")
            queries = {name: text for name, text in queries.items() if not self.fails(database, text)}
            database.execute(f"ALTER TABLE {table} RENAME COLUMN altered TO {column}")
        self.assertEqual(sorted(queries), [], "these never failed")

    def fails(self, database: Database, text: str) -> bool:
        try:
            database.rows(text)
        except EngineError as error:
            self.assertRegex(str(error), r"UNKNOWN_IDENTIFIER|NO_SUCH_COLUMN_IN_TABLE|NOT_FOUND_COLUMN_IN_BLOCK")
            return True
        return False

    def test_one_credit_more_is_seen_by_every_query_about_charges(self) -> None:
        database = seeded()
        self.addCleanup(database.drop)
        queries = {name: sql(text, context(WHOLE)) for name, text in boards.queries_of_clickhouse().items() if not NOT_ABOUT_CHARGES.match(name)}
        self.assertGreater(len(queries), 15)
        before = {name: database.rows(text) for name, text in queries.items()}
        entry = {"wallet_id": "ws_bob", "seq": 14, "entry_type": "charged", "credits": -1, "posted_at": "2026-12-01 10:00:00.500",
                 "event_time": "2026-12-01 10:00:00.000", "event_type": "generation.completed", "job_id": "j60", "asset_type": "image", "model": "imagen-4",
                 "user_id": "u_3", "project_id": "p_2", "images": 1, "balance_after": 2161, "level": "ok", "plan": "performance", "contract_id": "c_bob"}
        hour = {"wallet_id": "ws_bob", "hour": "2026-12-01 10:00:00", "asset_type": "image", "model": "imagen-4", "plan": "performance", "jobs": 1,
                "part": 14, "images": 1, "credits_charged": 1, "seq": 14}
        for table, row in (("ledger_entries", entry), ("usage_hourly", hour)):
            database.execute(f"INSERT INTO {table} FORMAT JSONEachRow", json.dumps(row).encode())
        database.execute("INSERT INTO wallets SELECT * REPLACE (2161 AS balance, 2161 AS available, 14 AS seq) FROM wallets FINAL WHERE wallet_id = 'ws_bob'")
        database.refresh_days()
        # One credit is less than a percent.
        rounded = {"credits: Utilisation by plan", "customer: Used of the month", "customer: Runway"}
        same = {name for name, text in queries.items() if database.rows(text) == before[name]}
        self.assertLessEqual(same, rounded)


if __name__ == "__main__":
    unittest.main()
