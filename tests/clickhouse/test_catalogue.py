"""The catalogue explains itself, and says the truth: comments, columns and examples of every table and view."""

from __future__ import annotations

import re
import unittest

from database import ROOT, Database, described, migrations, views

# Every view, by name.
VIEWS = ["balance_daily", "burn_rate", "credit_flow", "credits_outstanding", "expiring_credits", "freshness",
         "open_alerts", "plan_utilisation", "quarantine_summary", "runway", "topup_revenue", "upgrade_candidates",
         "usage_daily", "usage_daily_all", "usage_monthly", "wallet_statement"]


class CatalogueTest(unittest.TestCase):
    database: Database

    @classmethod
    def setUpClass(cls) -> None:
        cls.database = Database()
        cls.addClassCleanup(cls.database.drop)
        cls.database.migrate()
        cls.database.load()

    def comment(self, view: str) -> str:
        return self.database.execute(f"SELECT comment FROM system.tables WHERE database = currentDatabase() AND name = '{view}' FORMAT TSVRaw").strip()

    def test_the_views_are_those(self) -> None:
        self.assertEqual(views(self.database), VIEWS)

    def test_every_table_and_column_has_a_comment(self) -> None:
        sql = "SELECT name FROM system.tables WHERE database = currentDatabase() AND comment = ''"
        self.assertEqual(self.database.rows(sql), [])
        sql = "SELECT table, name FROM system.columns WHERE database = currentDatabase() AND comment = ''"
        self.assertEqual(self.database.rows(sql), [])

    def test_every_view_says_by_which_clock_it_is_and_its_example_runs(self) -> None:
        for view in VIEWS:
            comment = self.comment(view)
            self.assertRegex(comment, r"\. By (posted_at|event_time|quarantined_at|expires_at)\b", view)
            example = re.search(r"SELECT .*$", comment)
            assert example is not None, view
            self.assertIn(f"FROM {view}", example[0])
            self.database.rows(example[0].replace("ws_42", "ws_ada"))

    def test_the_columns_of_a_view_are_those_that_it_declares(self) -> None:
        """ClickHouse takes the list of a view with parameters without looking at it."""
        sql = "".join(path.read_text() for path in migrations())
        for view in VIEWS:
            call = re.search(rf"FROM ({view}(\([^)]*\))?)", self.comment(view).replace("now()", "'2026-12-02'"))
            assert call is not None, view
            found = [(row[0], row[1]) for row in self.database.rows(f"DESCRIBE (SELECT * FROM {call[1]})")]
            self.assertEqual(found, described(sql, view), view)

    def test_no_view_writes_and_no_migration_makes_a_materialized_view(self) -> None:
        """Nothing that adds up on insert may touch money: a batch that is inserted again would count twice."""
        for path in migrations():
            self.assertNotRegex(path.read_text(), r"(?i)materialized view|SummingMergeTree|AggregatingMergeTree")

    def test_the_page_explains_every_table_and_view(self) -> None:
        page = (ROOT / "docs" / "clickhouse.md").read_text()
        sql = "SELECT name FROM system.tables WHERE database = currentDatabase()"
        for [name] in self.database.rows(sql):
            self.assertTrue(re.search(rf"\b{name}\b", page), f"docs/clickhouse.md does not name {name}")


if __name__ == "__main__":
    unittest.main()
