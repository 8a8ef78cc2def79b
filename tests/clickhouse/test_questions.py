"""docs/clickhouse.md: each question is asked, and its answer is the one on the page.

After a change that is meant: python tests/clickhouse/test_questions.py --write, then read every answer that changed.
"""

from __future__ import annotations

import re
import sys
import unittest

from database import ROOT, Database

PAGE = ROOT / "docs" / "clickhouse.md"
QUESTION = re.compile(r"```sql\n(?P<sql>.*?)\n```\n```text\n(?P<answer>.*?)```", re.DOTALL)


def answer(database: Database, sql: str) -> str:
    """The answer as a person reads it: names, then rows, in columns."""
    rows = [line.split("\t") for line in database.execute(sql + "\nFORMAT TSVWithNames").replace("\\N", "NULL").splitlines()]
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "".join("  ".join(value.ljust(width) for value, width in zip(row, widths)).rstrip() + "\n" for row in rows)


class QuestionsTest(unittest.TestCase):
    def test_every_answer_is_the_one_on_the_page(self) -> None:
        database = Database()
        self.addCleanup(database.drop)
        database.migrate()
        database.load()
        page = PAGE.read_text()
        found = list(QUESTION.finditer(page))
        self.assertEqual(len(found), page.count("```sql"), "a question without its answer")
        self.assertGreaterEqual(len(found), 20)
        for question in found:
            with self.subTest(question["sql"]):
                self.assertEqual(answer(database, question["sql"]), question["answer"])


def write() -> None:
    database = Database()
    try:
        database.migrate()
        database.load()
        asked = QUESTION.sub(lambda found: f"```sql\n{found['sql']}\n```\n```text\n{answer(database, found['sql'])}```", PAGE.read_text())
    finally:
        database.drop()
    PAGE.write_text(asked)


if __name__ == "__main__":
    if sys.argv[1:] == ["--write"]:
        write()
    else:
        unittest.main()
