"""config/clickhouse/access.sql: parsed by the engine, which cannot run it, and equal to the tables and views there are."""

from __future__ import annotations

import re
import unittest

from database import ROOT, Database, EngineError, statements, views

ACCESS = (ROOT / "config" / "clickhouse" / "access.sql").read_text()


class AccessTest(unittest.TestCase):
    def setUp(self) -> None:
        self.database = Database()
        self.addCleanup(self.database.drop)
        self.database.migrate()

    def granted(self, right: str, role: str) -> list[str]:
        return sorted(re.findall(rf"^GRANT {right} ON credits\.(\w+) TO {role};$", ACCESS, re.MULTILINE))

    def test_the_engine_parses_every_statement(self) -> None:
        found = statements(ACCESS)
        self.assertGreater(len(found), 25)
        for statement in found:
            self.assertTrue(self.database.execute(f"EXPLAIN AST {statement}"), statement)
        with self.assertRaises(EngineError):
            self.database.execute(f"EXPLAIN AST {found[-1].replace('GRANT', 'GIVE')}")

    def test_a_reader_may_read_every_view_and_no_table(self) -> None:
        self.assertEqual(self.granted("SELECT", "creditstream_reader"), views(self.database))
        self.assertNotRegex(ACCESS, r"GRANT (?!SELECT ON credits\.\w+ TO creditstream_reader).*creditstream_reader")

    def test_a_writer_may_insert_into_every_table_and_do_nothing_else_to_it(self) -> None:
        sql = "SELECT name FROM system.tables WHERE database = currentDatabase() AND engine != 'View' ORDER BY name"
        tables = [name for [name] in self.database.rows(sql)]
        self.assertEqual(self.granted("INSERT", "creditstream_writer"), tables)
        rights = set(re.findall(r"GRANT (.*) ON \S+ TO creditstream_writer", ACCESS))
        self.assertEqual(rights, {"INSERT", "SELECT"})


if __name__ == "__main__":
    unittest.main()
