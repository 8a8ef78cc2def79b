"""Every view on the real engine, against rows made by hand from the fixed ledger (see `database.py`).

Method: the data is inserted twice and not merged, so that a view that counts a row once for each copy fails. Each
expected line was worked out from the entries, not copied from an answer.
"""

from __future__ import annotations

import unittest

from database import Database, EngineError

AT = "at = '2026-12-02 12:00:00'"


class ViewsTest(unittest.TestCase):
    database: Database

    @classmethod
    def setUpClass(cls) -> None:
        cls.database = Database()
        cls.addClassCleanup(cls.database.drop)
        cls.database.migrate()
        cls.database.load()

    def expect(self, sql: str, *lines: str) -> None:
        """Columns are set apart by spaces here; `-` is an empty one."""
        found = [" ".join(value or "-" for value in row) for row in self.database.rows(sql)]
        self.assertEqual(found, list(lines))

    def test_the_fixed_ledger_closes(self) -> None:
        """Balances, holds, hourly usage, wallets and grants say the same as the entries."""
        self.expect("SELECT count(), uniqExact(wallet_id, seq) FROM ledger_entries", "76 38")
        self.expect("""SELECT countIf(balance_after != balance OR held_after != held OR seq != number) FROM (
            SELECT seq, balance_after, held_after, sum(credits) OVER w AS balance, sum(held_credits) OVER w AS held,
                row_number() OVER w AS number
            FROM ledger_entries FINAL WINDOW w AS (PARTITION BY wallet_id ORDER BY seq))""", "0")
        self.expect("""SELECT count() FROM (SELECT wallet_id, balance, held, seq FROM wallets FINAL EXCEPT
            SELECT wallet_id, sum(credits), sum(held_credits), max(seq) FROM ledger_entries FINAL GROUP BY wallet_id)""", "0")
        self.expect("""SELECT count() FROM (SELECT wallet_id, grant_id, credits_remaining FROM grants FINAL EXCEPT
            SELECT wallet_id, e.grant_id, sum(e.credits) FROM ledger_entries FINAL ARRAY JOIN grant_effects AS e GROUP BY ALL)""", "0")
        usage = "wallet_id, toStartOfHour(event_time), asset_type, model, plan"
        self.expect(f"""SELECT count() FROM (
            SELECT wallet_id, hour, asset_type, model, plan, images, credits_charged, credits_reversed, credits_refused
            FROM usage_hourly FINAL EXCEPT
            SELECT {usage}, sumIf(images, entry_type = 'charged'), -sumIf(credits, entry_type = 'charged'),
                sumIf(credits, entry_type = 'reversed'), sumIf(amount, entry_type = 'refused')
            FROM ledger_entries FINAL GROUP BY {usage})""", "0")

    def test_usage_daily(self) -> None:
        self.expect("SELECT * EXCEPT wallet_id FROM usage_daily(wallet = 'ws_ada') ORDER BY day",
                    "2026-09-20 image imagen-4 lite 1 4 0 4 0 0",
                    "2026-10-31 video veo-3 lite 1 0 12 36 0 0",  # posted in November
                    "2026-11-02 video veo-3 lite 0 0 0 0 36 0",
                    "2026-11-29 video veo-3 lite 1 0 8 24 0 0")
        # Two assets of one job.
        self.expect("SELECT day, jobs, images, credits_charged FROM usage_daily(wallet = 'ws_bob') WHERE asset_type = 'image'",
                    "2026-11-10 1 8 8")
        self.expect("SELECT * FROM usage_daily(wallet = 'nobody')")

    def test_usage_monthly(self) -> None:
        columns = "month, sum(jobs), sum(credits_charged), sum(credits_reversed), sum(credits_refused)"
        of = "FROM usage_monthly(wallet = '{}') WHERE month_kind = '{}' GROUP BY month ORDER BY month"
        # The charge of 31 October was given back on 2 November: one month of the contract, two of the calendar.
        self.expect(f"SELECT {columns} {of.format('ws_ada', 'calendar')}",
                    "2026-09-01 1 4 0 0", "2026-10-01 1 36 0 0", "2026-11-01 1 24 36 0")
        self.expect(f"SELECT {columns} {of.format('ws_ada', 'contract')}",
                    "2026-09-15 1 4 0 0", "2026-10-15 1 36 36 0", "2026-11-15 1 24 0 0")
        self.expect(f"SELECT {columns} {of.format('ws_dee', 'contract')}", "2026-10-01 1 400 0 12", "2026-11-01 1 200 200 0")
        # Without a contract there are no months of one.
        self.expect(f"SELECT {columns} {of.format('ws_cal', 'calendar')}", "2026-10-01 1 36 0 0", "2026-12-01 1 5 0 0")
        self.expect(f"SELECT {columns} {of.format('ws_cal', 'contract')}")
        self.expect("SELECT * FROM usage_monthly(wallet = 'ws_bob') WHERE month_kind = 'contract' ORDER BY ALL",
                    "ws_bob contract 2026-11-01 image imagen-4 performance 1 8 0 8 0 0",
                    "ws_bob contract 2026-11-01 video kling-2.1 performance 1 0 80 240 0 0",
                    "ws_bob contract 2026-11-01 video veo-3 performance 1 0 300 900 0 0")

    def test_plan_utilisation(self) -> None:
        # 24 of 200; 17.5 of 30 days are gone; 24 * 30 / 17.5 = 41.1.
        self.expect(f"SELECT * FROM plan_utilisation(wallet = 'ws_ada', {AT})",
                    "ws_ada lite c_ada 2026-11-15 00:00:00.000 2026-12-15 00:00:00.000 200 24 176 12 58 41")
        # The month of this contract begins at 08:00: 28 of 744 hours.
        self.expect(f"SELECT * FROM plan_utilisation(wallet = 'ws_bob', {AT})",
                    "ws_bob performance c_bob 2026-12-01 08:00:00.000 2027-01-01 08:00:00.000 1100 0 1100 0 3 0")
        self.expect(f"SELECT * FROM plan_utilisation(wallet = 'ws_cal', {AT})")

    def test_burn_rate(self) -> None:
        self.expect(f"SELECT * FROM burn_rate(wallet = 'ws_bob', {AT})", "ws_bob 0 1140 1148 162.85 38.26")
        self.expect(f"SELECT * FROM burn_rate(wallet = 'ws_cal', {AT})", "ws_cal 5 5 5 0.71 0.16")
        # The day under way does not count, nor what is older than 30 days.
        self.expect("SELECT * FROM burn_rate(wallet = 'ws_cal', at = '2026-12-01 23:59:59')")
        # What was given back is not taken off: it was spent.
        self.expect("SELECT credits_1_day, credits_30_days FROM burn_rate(wallet = 'ws_ada', at = '2026-11-30 00:00:00')", "24 60")

    def test_runway(self) -> None:
        # 2162 * 7 / 1140 = 13.27 days.
        self.expect(f"SELECT * FROM runway(wallet = 'ws_bob', {AT})", "ws_bob performance ok 2162 1140 7 13.27")
        # The first charge was two days before: 8 by 2.
        self.expect("SELECT credits_7_days, days, runway_days FROM runway(wallet = 'ws_bob', at = '2026-11-12 01:00:00')",
                    "8 2 540.5")
        self.expect("SELECT credits_7_days, days FROM runway(wallet = 'ws_bob', at = '2026-11-10 23:00:00')", "0 7")
        # The second asset of a job, charged an hour after the first, is in an hour that begins no job.
        self.expect(f"SELECT available, credits_7_days, days FROM runway(wallet = 'ws_cal', {AT})", "1387 5 7")
        # Nothing was charged in these days: no rate to divide by.
        self.expect(f"SELECT available, credits_7_days, days, isNull(runway_days) FROM runway(wallet = 'ws_dee', {AT})", "555 0 7 1")

    def test_expiring_credits(self) -> None:
        self.expect(f"SELECT * FROM expiring_credits(days = 18, {AT})",
                    "ws_cal adjustment:a_cal adjustment - 50 35 2026-12-20 00:00:00.000 17")
        self.expect(f"SELECT * FROM expiring_credits(days = 17, {AT})")
        self.expect(f"SELECT grant_id, credits_remaining FROM expiring_credits(days = 300, {AT}) WHERE kind = 'plan' ORDER BY grant_id",
                    "plan:c_ada:0 172", "plan:c_ada:1 200", "plan:c_ada:2 200")
        self.expect("SELECT * FROM expiring_credits(days = 1, at = '2026-12-20 00:00:00')")

    def test_usage_daily_all(self) -> None:
        self.expect("SELECT * FROM usage_daily_all WHERE day >= '2026-10-10' AND day < '2026-11-25' ORDER BY day, asset_type",
                    "2026-10-10 lite image imagen-4 1 400 0 400 0 0",
                    "2026-10-10 lite video veo-3 0 0 0 0 0 12",
                    "2026-10-31 lite video veo-3 1 0 12 36 0 0",
                    "2026-11-02 lite video veo-3 0 0 0 0 36 0",
                    "2026-11-10 performance image imagen-4 1 8 0 8 0 0",
                    "2026-11-20 lite image imagen-4 1 200 0 200 0 0")
        self.expect("SELECT sum(jobs), sum(credits_charged), sum(credits_reversed) FROM usage_daily_all", "10 1853 236")

    def test_credit_flow(self) -> None:
        columns = "day, plan, credits_granted, credits_charged, credits_reversed, credits_expired, credits_refused, adjusted_up, adjusted_down, balance_change"
        self.expect(f"SELECT {columns} FROM credit_flow WHERE day BETWEEN '2026-10-10' AND '2026-11-02' ORDER BY day, plan",
                    "2026-10-10 lite 0 400 0 0 12 0 0 -400",
                    "2026-10-15 lite 200 0 0 0 0 0 0 200",
                    "2026-11-01 lite 200 36 0 0 0 0 0 164",
                    "2026-11-01 performance 1100 0 0 0 0 0 0 1100",
                    "2026-11-02 lite 0 0 36 0 0 0 0 36")
        # What expires does so when no plan is in force any more.
        self.expect(f"SELECT {columns} FROM credit_flow WHERE day >= '2026-11-28' AND plan = '' ORDER BY day",
                    "2026-11-28 - 0 0 0 0 0 50 0 50",
                    "2026-11-29 - 0 0 0 0 0 0 10 -10",
                    "2026-12-01 - 0 5 0 200 0 0 0 -205")
        self.expect("SELECT countIf(balance_change != credits_granted + credits_reversed + adjusted_up - credits_charged"
                    " - credits_expired - adjusted_down), sum(balance_change) FROM credit_flow", "0 4676")

    def test_wallet_statement(self) -> None:
        columns = "seq, posted_at, entry_type, credits, balance_after, held_after, overdraft_after, amount, job_id, asset_id"
        self.expect(f"SELECT {columns} FROM wallet_statement(wallet = 'ws_bob') WHERE seq > 6 ORDER BY seq",
                    "7 2026-11-10 09:02:00.500 released 0 1092 0 0 0 j10 a2",
                    "8 2026-11-25 10:00:00.500 charged -900 192 0 0 0 j11 -",
                    "9 2026-11-27 10:00:00.500 charged -240 -48 0 48 0 j12 -",
                    "10 2026-11-27 11:00:00.500 granted 555 507 0 48 0 - -",
                    "11 2026-11-27 11:00:00.500 overdraft_repaid 0 507 0 0 48 - -",
                    "12 2026-12-01 08:00:00.500 granted 1100 1607 0 0 0 - -",
                    "13 2026-12-01 09:00:00.500 granted 555 2162 0 0 0 - -")
        rest = "event_time, plan, asset_type, model, images, video_seconds, rate, user_id, project_id, amount_usd, reason, actor, reference"
        self.expect(f"SELECT {rest} FROM wallet_statement(wallet = 'ws_cal') ORDER BY seq",
                    "2026-10-05 12:00:00.000 - - - 0 0 0 - - 250 - - inv-7",
                    "2026-10-06 08:30:00.000 - video kling-2.1 0 12 3 u_9 p_9 0 - - -",
                    "2026-11-28 16:00:00.000 - - - 0 0 0 - - 0 goodwill kim t-4",
                    "2026-11-29 16:00:00.000 - - - 0 0 0 - - 0 given twice kim t-5",
                    "2026-12-01 20:00:00.000 - image imagen-4 3 0 1 u_9 p_9 0 - - -",
                    "2026-12-01 21:05:00.000 - image imagen-4 2 0 1 u_9 p_9 0 - - -")

    def test_balance_daily(self) -> None:
        of = "FROM balance_daily(wallet = 'ws_bob', at = '2026-11-29 12:00:00')"
        # Days without an entry have a row too: November to the 29th.
        self.expect(f"SELECT count(), min(day), max(day) {of}", "29 2026-11-01 2026-11-29")
        self.expect(f"SELECT * EXCEPT wallet_id {of} WHERE day IN ('2026-11-09', '2026-11-24', '2026-11-26', '2026-11-28') ORDER BY day",
                    "2026-11-09 1100 1100 0 0 0",
                    "2026-11-24 1092 1092 0 0 0",
                    "2026-11-26 192 192 0 0 0",
                    "2026-11-28 507 0 507 0 0")
        # In the middle of a day with overdraft: what is posted later does not count yet.
        self.expect("SELECT * FROM balance_daily(wallet = 'ws_bob', at = '2026-11-27 10:30:00') WHERE day = '2026-11-27'",
                    "ws_bob 2026-11-27 -48 0 0 0 48")
        self.expect(f"SELECT * EXCEPT wallet_id FROM balance_daily(wallet = 'ws_cal', {AT}) WHERE day >= '2026-11-28' ORDER BY day",
                    "2026-11-28 1402 0 1352 50 0",
                    "2026-11-29 1392 0 1352 40 0",
                    "2026-11-30 1392 0 1352 40 0",
                    "2026-12-01 1387 0 1352 35 0",
                    "2026-12-02 1387 0 1352 35 0")

    def test_credits_outstanding(self) -> None:
        # ada 572; bob 507; cal 1392, of it 40 adjusted; dee 555.
        self.expect("SELECT * FROM credits_outstanding(day = '2026-11-30')", "2026-11-30 3026 572 2414 40 0")
        self.expect("SELECT * FROM credits_outstanding(day = '2026-12-31')", "2026-12-31 4676 1672 2969 35 0")
        self.expect("SELECT * FROM credits_outstanding(day = '2026-08-31')", "2026-08-31 0 0 0 0 0")

    def test_topup_revenue(self) -> None:
        self.expect("SELECT * FROM topup_revenue ORDER BY day",
                    "2026-10-05 - 1 1388 250", "2026-11-26 lite 1 555 100",
                    "2026-11-27 performance 1 555 100", "2026-12-01 performance 1 555 100")

    def test_quarantine_summary(self) -> None:
        self.expect("SELECT * FROM quarantine_summary ORDER BY day, reason",
                    "2026-11-28 bad_value generation.events 2 2 2026-11-28 11:00:00.000 images: expected an integer from 1 to 10000",
                    "2026-11-28 not_json generation.events 1 0 2026-11-28 12:00:00.000 expected a value at line 1 column 1",
                    '2026-12-01 unknown_plan wallet.events 1 1 2026-12-01 09:00:00.000 plan "gold" is not in force at that time')

    def test_open_alerts(self) -> None:
        of = "SELECT alert_id, kind, level, seq, raised_at, available, allocation, plan, amount FROM open_alerts(at = '{}') ORDER BY alert_id"
        # bob fell to 192 of 1100, and dee to 0 of 200 for the second time.
        self.expect(of.format("2026-11-25 20:00:00"),
                    "ws_bob:low:8 level low 8 2026-11-25 10:00:00.500 192 1100 performance 0",
                    "ws_dee:exhausted:7 level exhausted 7 2026-11-25 18:00:00.500 0 200 lite 0")
        # dee has topped up; what bob was before it was overdrawn is no more.
        self.expect(of.format("2026-11-27 10:30:00"),
                    "ws_bob:overdrawn:9 level overdrawn 9 2026-11-27 10:00:00.500 -48 1100 performance 0")
        self.expect(of.format("2026-12-02 12:00:00"))
        # The first time that dee was exhausted is long ago, and it stays so until the next month.
        self.expect(of.format("2026-10-31 23:59:59"),
                    "ws_dee:exhausted:4 level exhausted 4 2026-10-10 14:00:00.500 0 200 lite 0")

    def test_upgrade_candidates(self) -> None:
        # bob ran dry and topped up in November and topped up in December; dee has no plan any more.
        self.expect(f"SELECT * FROM upgrade_candidates({AT})", "ws_bob performance 1100 2 1 2")
        # Not in two months yet.
        self.expect("SELECT * FROM upgrade_candidates(at = '2026-11-30 23:59:59')")
        # Seen from January it is still two of three.
        self.expect("SELECT wallet_id, months FROM upgrade_candidates(at = '2027-01-31 00:00:00')", "ws_bob 2")
        # Three months later November is forgotten.
        self.expect("SELECT * FROM upgrade_candidates(at = '2027-02-01 00:00:00')")

    def test_freshness(self) -> None:
        self.expect("SELECT table_name, ifNull(toString(ledger_partition), '-'), newest_at, ifNull(toString(ledger_offset), '-') FROM freshness ORDER BY ALL",
                    "alerts - 2026-11-27 11:00:00.500 -",
                    "credits_by_day 0 2026-12-01 00:00:00.000 12",
                    "credits_by_day 1 2026-12-01 00:00:00.000 18",
                    "grants - 2026-12-01 09:00:00.000 -",
                    "ledger_entries - 2026-12-01 21:05:00.500 -",
                    "quarantined_events - 2026-12-01 09:00:00.000 -",
                    "usage_by_day - 2026-12-01 00:00:00.000 -",
                    "usage_hourly - 2026-12-01 21:00:00.000 -",
                    "wallets - 2026-12-01 21:05:00.500 -")
        self.expect("SELECT countIf(abs(lag_seconds - dateDiff('second', newest_at, now64())) > 5) FROM freshness", "0")

    def test_a_parameter_that_is_missing_is_an_error(self) -> None:
        with self.assertRaises(EngineError):
            self.database.rows("SELECT * FROM usage_daily")
        with self.assertRaises(EngineError):
            self.database.rows("SELECT * FROM runway(wallet = 'ws_bob')")


class OpenAlertsTest(unittest.TestCase):
    """Of every kind an alert that is open, and over once what it tells holds no more. None of it is in the fixed ledger.

    Method: alerts and entries made by hand, twice each and not merged; the same rows are asked for at several instants.
    """

    def setUp(self) -> None:
        self.database = Database()
        self.addCleanup(self.database.drop)
        self.database.migrate()
        for table in ("alerts", "ledger_entries"):
            self.database.execute(f"SYSTEM STOP MERGES {table}")

    def insert(self, table: str, columns: str, rows: str) -> None:
        for _ in range(2):
            self.database.execute(f"INSERT INTO {table} ({columns}) {rows}")

    def alerts(self, *rows: str) -> None:
        """Rows of wallet, kind, level, seq, raised_at, days, expires_at, contract."""
        columns = "wallet_id, kind, level, seq, raised_at, days, expires_at, contract_id"
        for row in rows:
            self.insert("alerts", f"{columns}, alert_id", f"WITH {row} AS t SELECT t.*, concat(t.1, ':', t.2, ':', toString(t.4))")

    def entries(self, *rows: str) -> None:
        """Rows of wallet, seq, type, posted_at, credits, balance after, held after, overdraft after; events happen when they are posted."""
        columns = "wallet_id, seq, entry_type, posted_at, credits, balance_after, held_after, overdraft_after"
        for row in rows:
            self.insert("ledger_entries", f"{columns}, event_time", f"WITH {row} AS t SELECT t.*, t.4")

    def open_at(self, at: str) -> str:
        """Alerts without their wallet, which the test names."""
        rows = self.database.rows(f"SELECT substring(alert_id, position(alert_id, ':') + 1) FROM open_alerts(at = '{at}') ORDER BY seq")
        return " ".join(row[0] for row in rows)

    def test_a_level_is_open_until_the_wallet_has_another_one(self) -> None:
        self.alerts("('w', 'level', 'low', 4, '2026-08-10 12:00:00', 0, NULL, '')",
                    "('w', 'level', 'critical', 6, '2026-11-10 12:00:00', 0, NULL, '')",
                    "('w', 'level', 'ok', 9, '2026-12-01 00:00:00', 0, NULL, '')")
        for at, expected in (("2026-08-10 11:59:59", ""), ("2026-08-10 12:00:00", "level:4"), ("2026-11-10 11:59:59", "level:4"),
                             ("2026-11-10 12:00:00", "level:6"), ("2026-11-30 23:59:59", "level:6"), ("2026-12-01 00:00:00", "")):
            self.assertEqual(self.open_at(at), expected, at)

    def test_an_unpaid_overdraft_is_open_until_it_is_paid_and_the_next_one_is_another_alert(self) -> None:
        self.alerts("('w', 'overdraft_unpaid', 'overdrawn', 3, '2026-11-10 12:00:00', 0, NULL, '')",
                    "('w', 'overdraft_unpaid', 'overdrawn', 9, '2026-12-20 12:00:00', 0, NULL, '')")
        self.entries("('w', 1, 'granted', '2026-11-01 12:00:00', 5, 5, 0, 0)",
                     "('w', 2, 'charged', '2026-11-03 12:00:00', -9, -4, 0, 4)",
                     "('w', 3, 'noted', '2026-11-10 12:00:00', 0, -4, 0, 4)",
                     # A part of it is not enough.
                     "('w', 4, 'adjusted', '2026-11-12 12:00:00', 3, -1, 0, 4)",
                     "('w', 5, 'overdraft_repaid', '2026-11-12 12:00:00', 0, -1, 0, 1)",
                     "('w', 6, 'adjusted', '2026-12-05 12:00:00', 3, 2, 0, 1)",
                     "('w', 7, 'overdraft_repaid', '2026-12-05 12:00:00', 0, 2, 0, 0)",
                     # Overdrawn again, and not for 7 days yet.
                     "('w', 8, 'charged', '2026-12-13 12:00:00', -9, -7, 0, 7)",
                     "('w', 9, 'noted', '2026-12-20 12:00:00', 0, -7, 0, 7)")
        for at, expected in (("2026-11-10 11:59:59", ""), ("2026-11-10 12:00:00", "overdraft_unpaid:3"),
                             ("2026-12-05 11:59:59", "overdraft_unpaid:3"), ("2026-12-05 12:00:00", ""), ("2026-12-20 11:59:59", ""),
                             ("2026-12-20 12:00:00", "overdraft_unpaid:9"), ("2027-06-01 00:00:00", "overdraft_unpaid:9")):
            self.assertEqual(self.open_at(at), expected, at)

    def test_a_runway_is_open_while_credits_are_left_that_last_less_than_3_days(self) -> None:
        # 70 of 7 whole days are 10 a day: 29 last less than 3 days, 30 do not.
        self.alerts("('topped', 'runway', 'low', 3, '2026-11-10 00:00:00', 0, NULL, '')")
        self.entries("('topped', 1, 'granted', '2026-11-01 12:00:00', 99, 99, 0, 0)",
                     "('topped', 2, 'charged', '2026-11-03 12:00:00', -70, 29, 0, 0)",
                     "('topped', 3, 'noted', '2026-11-10 00:00:00', 0, 29, 0, 0)",
                     "('topped', 4, 'granted', '2026-11-10 12:00:00', 1, 30, 0, 0)",
                     "('topped', 5, 'held', '2026-11-10 18:00:00', 0, 30, 1, 0)")
        for at, expected in (("2026-11-09 23:59:59", ""), ("2026-11-10 00:00:00", "runway:3"), ("2026-11-10 11:59:59", "runway:3"),
                             ("2026-11-10 12:00:00", ""),  # enough for 3 days
                             ("2026-11-10 18:00:00", "runway:3"),  # what is held is not available
                             ("2026-11-10 23:59:59", "runway:3"),
                             ("2026-11-11 00:00:00", "")):  # nothing was charged in the 7 days before
            self.assertEqual(self.open_at(at), expected, at)
        # Used for 2 days: 40 a day; and used up.
        self.alerts("('empty', 'runway', 'low', 3, '2026-12-03 00:00:00', 0, NULL, '')")
        self.entries("('empty', 1, 'granted', '2026-12-01 12:00:00', 199, 199, 0, 0)",
                     "('empty', 2, 'charged', '2026-12-01 12:00:00', -80, 119, 0, 0)",
                     "('empty', 3, 'noted', '2026-12-03 00:00:00', 0, 119, 0, 0)",
                     "('empty', 4, 'charged', '2026-12-03 10:00:00', -119, 0, 0, 0)")
        self.assertEqual([self.open_at("2026-12-03 09:59:59"), self.open_at("2026-12-03 10:00:00")], ["runway:3", ""])

    def test_expiring_is_open_until_the_credits_are_used_up_or_expired_and_only_the_latest_of_a_contract(self) -> None:
        self.alerts("('w', 'expiring', 'ok', 5, '2026-11-20 00:00:00', 30, '2026-12-20 00:00:00', 'c')",
                    "('w', 'expiring', 'ok', 6, '2026-12-13 00:00:00', 7, '2026-12-20 00:00:00', 'c')",
                    # Another one, whose name begins alike.
                    "('w', 'expiring', 'ok', 7, '2026-12-14 00:00:00', 30, '2027-01-13 00:00:00', 'c:1')")
        effects = "wallet_id, seq, entry_type, posted_at, grant_effects"
        self.insert("ledger_entries", effects, "VALUES "
                    "('w', 1, 'granted', '2026-10-20 00:00:00', [('plan:c:0', 'plan', 10, 10, '2026-12-20 00:00:00')]),"
                    "('w', 2, 'granted', '2026-11-20 00:00:00', [('plan:c:1+9', 'plan', 20, 20, '2026-12-20 00:00:00'), ('topup:t', 'topup', 5, 5, NULL)]),"
                    "('w', 3, 'granted', '2026-11-21 00:00:00', [('plan:c:1:0', 'plan', 7, 7, '2027-01-13 00:00:00')]),"
                    "('w', 8, 'charged', '2026-12-15 00:00:00', [('plan:c:0', 'plan', -10, 0, '2026-12-20 00:00:00'), ('plan:c:1+9', 'plan', -19, 1, '2026-12-20 00:00:00')]),"
                    "('w', 9, 'charged', '2027-01-02 00:00:00', [('plan:c:1:0', 'plan', -7, 0, '2027-01-13 00:00:00')])")
        for at, expected in (("2026-11-19 23:59:59", ""), ("2026-11-20 00:00:00", "expiring:5"), ("2026-12-12 23:59:59", "expiring:5"),
                             ("2026-12-13 00:00:00", "expiring:6"), ("2026-12-14 00:00:00", "expiring:6 expiring:7"),
                             ("2026-12-19 23:59:59", "expiring:6 expiring:7"), ("2026-12-20 00:00:00", "expiring:7"),
                             ("2027-01-01 23:59:59", "expiring:7"), ("2027-01-02 00:00:00", "")):
            self.assertEqual(self.open_at(at), expected, at)

    def test_a_hold_that_timed_out_has_happened_and_is_not_open(self) -> None:
        self.alerts("('w', 'hold_timed_out', 'ok', 9, '2026-11-10 12:00:00', 0, NULL, '')")
        self.assertEqual(self.open_at("2026-11-10 12:00:00"), "")


class DaysTest(unittest.TestCase):
    """The tables by day, as the sink's statements compute them."""

    def setUp(self) -> None:
        self.database = Database()
        self.addCleanup(self.database.drop)
        self.database.migrate()

    def test_an_empty_database_answers(self) -> None:
        self.database.refresh_days()
        self.assertEqual(self.database.rows("SELECT * FROM freshness"), [])
        self.assertEqual(self.database.rows("SELECT * FROM credits_outstanding(day = '2026-11-30')"),
                         [["2026-11-30", "0", "0", "0", "0", "0"]])
        for view in ("runway", "burn_rate", "plan_utilisation", "balance_daily"):
            self.assertEqual(self.database.rows(f"SELECT * FROM {view}(wallet = 'ws_1', {AT})"), [], view)

    def test_a_plan_change_raises_the_allocation_and_what_is_used_falls_by_refunds(self) -> None:
        self.database.load()
        self.database.execute("""INSERT INTO grants (wallet_id, grant_id, kind, credits_granted, granted_at, contract_id, seq)
            VALUES ('ws_ada', 'plan:c_ada:2+9', 'plan', 900, '2026-11-20 00:00:00', 'c_ada', 99)""")
        self.database.execute("""INSERT INTO ledger_entries (wallet_id, seq, entry_type, credits, posted_at, event_time, job_id)
            VALUES ('ws_ada', 9, 'reversed', 24, '2026-11-30 10:00:01', '2026-11-30 10:00:00', 'j3')""")
        query = "SELECT month_starts_at, allocation, used, left, projected FROM plan_utilisation(wallet = 'ws_ada', at = '{}')"
        self.assertEqual(self.database.rows(query.format("2026-12-02 12:00:00")), [["2026-11-15 00:00:00.000", "1100", "0", "1100", "0"]])
        # Before the change, and before the refund: 24 used after 15 of 30 days.
        self.assertEqual(self.database.rows(query.format("2026-11-30 00:00:00"))[0][1:], ["1100", "24", "1076", "48"])
        self.assertEqual(self.database.rows(query.format("2026-11-19 00:00:00"))[0][1:], ["200", "0", "200", "0"])

    def test_the_days_are_what_the_entries_say(self) -> None:
        self.database.load()
        of_entries = """SELECT toDate(event_time) AS day, plan, asset_type, model, uniqExactIf(job_id, entry_type = 'charged'),
            sumIf(images, entry_type = 'charged'), -sumIf(credits, entry_type = 'charged'), sumIf(credits, entry_type = 'reversed'),
            sumIf(amount, entry_type = 'refused')
            FROM ledger_entries FINAL WHERE entry_type IN ('charged', 'reversed', 'refused') GROUP BY ALL ORDER BY ALL"""
        of_days = "SELECT day, plan, asset_type, model, jobs, images, credits_charged, credits_reversed, credits_refused FROM usage_daily_all ORDER BY ALL"
        self.assertEqual(self.database.rows(of_days), self.database.rows(of_entries))
        balances = "SELECT sum(plan_credits), sum(topup_credits), sum(adjustment_credits), sum(balance), sum(overdraft) FROM wallets FINAL"
        outstanding = "SELECT plan_credits, topup_credits, adjustment_credits, balance, overdraft FROM credits_outstanding(day = '2026-12-31')"
        self.assertEqual(self.database.rows(outstanding), self.database.rows(balances))

    def test_a_computation_that_saw_less_does_not_win_though_it_is_written_later(self) -> None:
        self.database.load()
        query = "SELECT * FROM usage_daily_all ORDER BY ALL"
        flow = "SELECT * FROM credit_flow ORDER BY ALL"
        whole = self.database.rows(query), self.database.rows(flow)
        for table in ("usage_by_day", "credits_by_day"):
            column = "jobs" if table == "usage_by_day" else "credits_charged"
            self.database.execute(f"INSERT INTO {table} SELECT * REPLACE (toUInt64(version - 1) AS version, 0 AS {column}) FROM {table} FINAL")
        self.assertEqual((self.database.rows(query), self.database.rows(flow)), whole)


if __name__ == "__main__":
    unittest.main()
