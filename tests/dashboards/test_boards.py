"""The dashboards as files: the program's output, typed, laid out without overlaps, and explained."""

from __future__ import annotations

import re
import subprocess
import sys
import unittest
from itertools import combinations
from typing import Any

import boards
import build
from panels import LEVELS

# Kinds that Grafana draws as numbers; a table's units are given by column.
NUMERIC = {"timeseries", "stat", "bargauge", "piechart"}


def columns(sql: str) -> list[str]:
    """Names of what the outermost SELECT answers."""
    depth, begin, found = 0, 0, []
    text = re.sub(r"^WITH .*?\n\)\n", "", sql, flags=re.DOTALL)
    text = text.removeprefix("SELECT ")
    for at, character in enumerate(text):
        depth += {"(": 1, ")": -1}.get(character, 0)
        if depth == 0 and (character == "," or text.startswith("\nFROM", at)):
            found.append(text[begin:at].strip().split(" AS ")[-1].split(".")[-1])
            begin = at + 1
            if character != ",":
                return found
    raise AssertionError(f"no FROM: {sql}")


class ProgramTest(unittest.TestCase):
    def test_the_files_are_what_the_program_writes(self) -> None:
        written = build.texts()
        self.assertEqual(sorted(written), sorted(path.name for path in boards.FOLDER.glob("*.json")))
        for name, text in written.items():
            self.assertEqual((boards.FOLDER / name).read_text(), text, f"{name}: run python dashboards/build.py")

    def test_the_program_is_type_checked_against_grafanas_types(self) -> None:
        command = [sys.executable, "-m", "mypy", "--strict", "--no-incremental", "--cache-dir", "/dev/null"]
        done = subprocess.run([*command, *map(str, sorted(boards.FOLDER.glob("*.py")))], capture_output=True, text=True, check=False, cwd=boards.FOLDER)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        wrong = "from panels import number, now\nnumber('title', 'description', now('1'), 3, 'nothing')\n"
        done = subprocess.run([*command, "-c", wrong], capture_output=True, text=True, check=False, cwd=boards.FOLDER)
        self.assertIn('incompatible type "int"', done.stdout, "mypy does not see a wrong type")


class LayoutTest(unittest.TestCase):
    def test_no_two_panels_overlap_and_none_leaves_the_grid(self) -> None:
        for name in boards.NAMES:
            models = boards.board(name)["panels"]
            for model in models:
                place = model["gridPos"]
                self.assertLessEqual(place["x"] + place["w"], 24, model["title"])
            for one, other in combinations(models, 2):
                self.assertFalse(overlap(one["gridPos"], other["gridPos"]), f"{name}: {one['title']} and {other['title']}")

    def test_two_that_overlap_are_seen(self) -> None:
        place = {"x": 0, "y": 0, "w": 12, "h": 8}
        self.assertTrue(overlap(place, {**place, "x": 11, "y": 7}))
        self.assertFalse(overlap(place, {**place, "x": 12}))
        self.assertFalse(overlap(place, {**place, "y": 8}))

    def test_every_panel_has_a_number_of_its_own(self) -> None:
        for name in boards.NAMES:
            numbers = [model["id"] for model in boards.board(name)["panels"]]
            self.assertEqual(numbers, list(range(1, len(numbers) + 1)))


def overlap(one: dict[str, int], other: dict[str, int]) -> bool:
    return (one["x"] < other["x"] + other["w"] and other["x"] < one["x"] + one["w"]
            and one["y"] < other["y"] + other["h"] and other["y"] < one["y"] + one["h"])


class ExplainedTest(unittest.TestCase):
    def test_every_panel_has_title_description_unit_and_a_text_for_no_data(self) -> None:
        titles = [panel.name for panel in boards.all_panels()]
        self.assertEqual(len(titles), len(set(titles)), "two panels of one dashboard have one title")
        for panel in boards.all_panels():
            with self.subTest(panel.name):
                self.assertTrue(panel.title)
                self.assertRegex(panel.model["description"], r"^.{25,}\.$")
                self.assertRegex(panel.defaults["noValue"], r"^.{15,}[.?]$")
                self.assertTrue(panel.model["targets"])
                if panel.model["type"] in NUMERIC and panel.title != "Level":
                    self.assertNotIn(panel.defaults["unit"], ("", "none"))

    def test_every_numeric_column_of_a_table_has_a_unit(self) -> None:
        numeric = re.compile(r"credits|charged|amount|balance|overdraft|available|allocation|jobs|images|seconds|rate$|seq|days_left|offset|partition|bytes")
        for panel in boards.all_panels():
            if panel.model["type"] != "table":
                continue
            given = {override["matcher"]["options"] for override in panel.model["fieldConfig"]["overrides"]
                     for made in override["properties"] if made["id"] == "unit"}
            answered = columns(panel.sql[0])
            with self.subTest(panel.name):
                self.assertEqual({column for column in answered if numeric.search(column)}, given)

    def test_credits_are_whole_and_never_shortened(self) -> None:
        for panel in boards.all_panels():
            if "redits" in panel.title and panel.defaults["unit"] != "percent":
                self.assertEqual((panel.defaults["unit"], panel.defaults["decimals"]), ("locale", 0), panel.name)

    def test_every_dashboard_is_described_and_linked_to_the_others(self) -> None:
        for name in boards.NAMES:
            model = boards.board(name)
            self.assertGreater(len(model["description"]), 60)
            self.assertEqual(model["uid"], f"creditstream-{name}")
            self.assertEqual(model["timezone"], "utc", "days are those of UTC")
            urls = {link["url"] for link in model["links"]}
            self.assertEqual(urls, {f"/d/creditstream-{other}" for other in boards.NAMES if other != name})
            self.assertTrue(all(link["keepTime"] and link["includeVars"] for link in model["links"]))

    def test_levels_have_their_colours_everywhere(self) -> None:
        wallets = next(panel for panel in boards.panels("credits") if panel.title == "Wallets by level")
        fixed = {override["matcher"]["options"]: override["properties"][0]["value"]["fixedColor"]
                 for override in wallets.model["fieldConfig"]["overrides"]}
        self.assertEqual(fixed, LEVELS)
        level = next(panel for panel in boards.panels("customer") if panel.title == "Level")
        mapped = level.defaults["mappings"][0]["options"]
        self.assertEqual({name: result["color"] for name, result in mapped.items()}, LEVELS)
        for name in ("credits", "customer"):
            self.assertEqual({made["name"]: made["iconColor"] for made in boards.marks(name)}, {f"Level: {key}": colour for key, colour in LEVELS.items()})
        source = (boards.ROOT / "src" / "metrics.rs").read_text()
        exported = re.search(r"LEVELS: \[&str; 5\] = \[(.*?)\]", source)
        assert exported is not None
        self.assertEqual(list(LEVELS), re.findall(r'"(\w+)"', exported[1]))


class VariablesTest(unittest.TestCase):
    WANTED = {"credits": ["prometheus", "clickhouse", "plan", "model", "expire_days"], "customer": ["clickhouse", "wallet", "model"],
              "pipeline": ["prometheus", "clickhouse", "job"], "quality": ["prometheus", "clickhouse", "job", "model"]}

    def test_dashboards_have_their_variables_and_use_all_of_them(self) -> None:
        for name, wanted in self.WANTED.items():
            model = boards.board(name)
            self.assertEqual(list(boards.variables(name)), wanted)
            text = str([model["panels"], model.get("annotations"), [made for made in model["templating"]["list"]]])
            for variable in wanted:
                self.assertRegex(text, rf"\$\{{?{variable}\b", f"{name} does not use {variable}")
            self.assertTrue(all(made.get("label") and made.get("description") for made in boards.variables(name).values()))

    def test_no_query_uses_a_variable_that_its_dashboard_does_not_have(self) -> None:
        for name in boards.NAMES:
            known = set(boards.variables(name))
            for text in texts(boards.board(name)["panels"]) + texts(boards.board(name).get("annotations", {})):
                used = set(re.findall(r"\$\{(?!__)(\w+)|\$(?!_)([a-zA-Z]\w*)", text))
                self.assertLessEqual({one or other for one, other in used}, known, text)


def texts(model: Any) -> list[str]:
    """Every text in it."""
    if isinstance(model, str):
        return [model]
    inner = model.values() if isinstance(model, dict) else model if isinstance(model, list) else ()
    return [text for value in inner for text in texts(value)]


if __name__ == "__main__":
    unittest.main()
