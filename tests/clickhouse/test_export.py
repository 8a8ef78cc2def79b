"""`creditstream export`: the files hold every row of their span once, and are read back by the engine as what was written."""

from __future__ import annotations

import csv
import io
import os
import subprocess
import tempfile
import unittest
from pathlib import Path

from database import ROOT, URL, Database

BINARY = os.environ.get("CREDITSTREAM_BIN") or str(ROOT / "target" / "release" / "creditstream")
OCTOBER, NOVEMBER = ("--from", "2026-10-01", "--to", "2026-11-01"), ("--from", "2026-11-01", "--to", "2026-12-01")
ALL = ("--from", "2026-01-01", "--to", "2027-01-01T00:00:00+01:00")


class ExportTest(unittest.TestCase):
    database: Database

    @classmethod
    def setUpClass(cls) -> None:
        cls.database = Database()
        cls.addClassCleanup(cls.database.drop)
        cls.database.migrate()
        cls.database.load()

    def export(self, *arguments: str, code: int = 0, database: str | None = None) -> tuple[bytes, str]:
        """What stands on stdout and stderr."""
        environment = {**os.environ, "CREDITSTREAM__CLICKHOUSE__URL": URL,
                       "CREDITSTREAM__CLICKHOUSE__DATABASE": database or self.database.name}
        ended = subprocess.run([BINARY, "export", *arguments], env=environment, capture_output=True, timeout=60, check=False)
        self.assertEqual(ended.returncode, code, ended.stderr.decode())
        return ended.stdout, ended.stderr.decode()

    def test_a_span_of_the_ledger_as_csv(self) -> None:
        for span, bounds in ((OCTOBER, "'2026-10-01' AND posted_at < '2026-11-01'"), (NOVEMBER, "'2026-11-01' AND posted_at < '2026-12-01'")):
            rows = list(csv.DictReader(io.StringIO(self.export("ledger", *span, "--format", "csv")[0].decode())))
            found = [[row["wallet_id"], row["seq"], row["credits"], row["reason"]] for row in rows]
            expected = self.database.rows(f"SELECT wallet_id, seq, credits, reason FROM ledger_entries FINAL WHERE posted_at >= {bounds} "
                                          "ORDER BY wallet_id, seq")
            self.assertGreater(len(expected), 3)
            self.assertEqual(found, expected)
        names = [name for [name] in self.database.rows("SELECT name FROM system.columns WHERE database = currentDatabase() "
                                                       "AND table = 'ledger_entries' ORDER BY position")]
        self.assertEqual(list(rows[0]), names)

    def test_parquet_is_read_back_as_what_was_written(self) -> None:
        parquet, _ = self.export("ledger", *ALL, "--format", "parquet")
        self.database.execute("CREATE TABLE copy AS ledger_entries")
        self.database.execute("INSERT INTO copy FORMAT Parquet", parquet)
        for one, other in (("copy", "ledger_entries FINAL"), ("ledger_entries FINAL", "copy")):
            self.assertEqual(self.database.rows(f"SELECT count() FROM (SELECT * FROM {one} EXCEPT SELECT * FROM {other})"), [["0"]])
        self.assertEqual(self.database.rows("SELECT count() FROM copy"), self.database.rows("SELECT count() FROM ledger_entries FINAL"))

    def test_usage_adds_up_to_the_entries(self) -> None:
        rows = list(csv.DictReader(io.StringIO(self.export("usage", *ALL, "--format", "csv")[0].decode())))
        keys = [(row["wallet_id"], row["hour"], row["asset_type"], row["model"], row["plan"]) for row in rows]
        self.assertEqual(len(set(keys)), len(keys), "each hour once")
        for column, sql in (("credits_charged", "-sumIf(credits, entry_type = 'charged')"), ("images", "sumIf(images, entry_type = 'charged')"),
                            ("credits_reversed", "sumIf(credits, entry_type = 'reversed')"), ("credits_refused", "sumIf(amount, entry_type = 'refused')")):
            self.assertEqual([[str(sum(int(row[column]) for row in rows))]], self.database.rows(f"SELECT {sql} FROM ledger_entries FINAL"))

    def test_a_file_is_there_once_it_is_complete(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "ledger.csv"
            _, said = self.export("ledger", *ALL, "--format", "csv", "--output", str(path))
            self.assertEqual(path.read_bytes(), self.export("ledger", *ALL, "--format", "csv")[0])
            self.assertIn("ledger.csv: ", said)
            self.assertEqual([found.name for found in Path(folder).iterdir()], ["ledger.csv"])
            lost = Path(folder) / "lost.csv"
            _, said = self.export("ledger", *ALL, "--format", "csv", "--output", str(lost), database="no_such_database", code=69)
            self.assertIn("no_such_database", said)
            self.assertEqual([found.name for found in Path(folder).iterdir()], ["ledger.csv"])

    def test_what_cannot_be_is_said(self) -> None:
        self.assertIn("--format parquet or --format csv", self.export("ledger", *ALL, code=2)[1])
        self.assertIn("is not before", self.export("usage", "--from", "2026-10-02", "--to", "2026-10-02", "--format", "csv", code=2)[1])
        self.assertIn("is no time", self.export("usage", "--from", "October", "--to", "2026-10-02", "--format", "csv", code=2)[1])


if __name__ == "__main__":
    unittest.main()
