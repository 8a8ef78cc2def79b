"""What is made of given figures: rates, verdicts, tables and plots."""

from __future__ import annotations

import argparse
import sys
import unittest
import xml.etree.ElementTree as ElementTree
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.dont_write_bytecode = True
sys.path.append(str(Path(__file__).resolve().parent))

import growth
import soak
from deployment import BenchError
from document import between_markers, table
from load import Load, Reading, of_last, while_even
from plot import Panel, Series, decades, plot, short, top_of

SVG = "{http://www.w3.org/2000/svg}"


def reading(at: float, processed: int, of_wallets: int = 10, behind: int = 12) -> Reading:
    return Reading(at, processed, of_wallets, at / 2, at / 4, 500, 0, behind, int(at), at / 10, processed)


def sample(at: float, processed: int, rss_mb: int = 900, lag: int = 100, files: int = 200, behind: int = 12) -> dict[str, Any]:
    of = {**asdict(reading(at, processed, behind=behind)), "rss_mb": rss_mb, "lag": lag}
    return {**of, "files": files, "threads": 20, "store_bytes": processed * 70,
            "topics_bytes": {"ledger": processed * 200, "generation": processed * 100}}


def soaked(**live: Any) -> dict[str, Any]:
    """A run that is as it should be: 100,000 records a second, from 12 seconds on."""
    return {
        "date": "2026-11-27", "commit": "abc", "command": "make bench-soak",
        "machine": {"cores": 2, "processor": "x", "memory_gib": 24},
        "events": 57_000_000, "wallets": 10, "live_minutes": 10.0,
        "small": [[asdict(reading(0, 0)), asdict(reading(10, 1_000_000))]] * 2,
        "full": [sample(10 * number, 1_000_000 * number) for number in range(58)],
        "quiet": {"at": 0, "p50_ms": 40.0, "p99_ms": 100.0},
        "live": {
            "rate": 20_000, "samples": [sample(1000 + 10 * number, 57_000_000 + 200_000 * number) for number in range(60)],
            "minutes": [{"at": 60.0 * number, "p50_ms": 50.0, "p99_ms": None} for number in range(1, 11)],
            "end": sample(1600, 69_000_000), "drained_s": 1.0, **live},
        "restored": {"store": {"identities": 120_750_000, "restore_s": 5.0, "rss_mb": 800}},
    }


def row(**more: Any) -> dict[str, Any]:
    load = asdict(Load.between(reading(0, 0), reading(10, 1_000_000)))
    return {"loads": [load], "p50_ms": 40.2, "p99_ms": 90.0, "events": 1_000_000, "identities": 1_750_000, "topics_s": 4.0,
            "store_s": 1.0, "store_bytes": 70_000_000, **more}


class Loads(unittest.TestCase):
    def test_wallet_events_are_no_usage(self) -> None:
        load = Load.between(reading(0, 0, of_wallets=0), reading(10, 1_000, of_wallets=400))
        self.assertEqual((load.records_per_s, load.usage_per_s), (100, 60))

    def test_the_last_records_are_counted_from_the_reading_before_them(self) -> None:
        readings = [reading(0, 0), reading(10, 500), reading(20, 900), reading(30, 1_000)]
        self.assertEqual(of_last(readings, 300).records_per_s, 25)
        self.assertEqual(of_last(readings, 5_000).records, 1_000)

    def test_what_comes_after_the_first_partition_is_at_its_end_can_be_left_out(self) -> None:
        readings = [reading(0, 0, behind=3), reading(1, 1), reading(2, 2), reading(3, 3, behind=11), reading(4, 4, behind=0)]
        self.assertEqual([one.at for one in while_even(readings)], [0, 1, 2])


class Soaked(unittest.TestCase):
    def met(self, figures: dict[str, Any]) -> dict[str, bool]:
        return {verdict.what.split(",")[0]: verdict.is_met for verdict in soak.verdicts(figures)}

    def test_a_good_run_meets_all(self) -> None:
        self.assertTrue(all(self.met(soaked()).values()), self.met(soaked()))

    def test_what_grows_is_missed(self) -> None:
        end = sample(1600, 69_000_000, rss_mb=1_200, files=260)
        growing = [sample(1000 + 10 * number, 57_000_000 + 200_000 * number, lag=number * 1_000) for number in range(60)]
        met = self.met(soaked(end=end, samples=growing))
        missed = {what for what, is_met in met.items() if not is_met}
        self.assertEqual(missed, {"RSS at the end ÷ after 5 minutes", "lag", "file handles"})

    def test_rss_may_grow_by_the_filters_of_new_identities(self) -> None:
        # 6,000,000 records since then are 10.5 million identities of 3.5 bytes.
        rss = next(verdict for verdict in soak.verdicts(soaked()) if verdict.what.startswith("RSS at the end"))
        self.assertIn("take 37 MB", rss.found)

    def test_the_ratio_to_the_small_case(self) -> None:
        figures = soaked()
        figures["full"][-1]["at"] += 30
        ratio = soak.verdicts(figures)[0]
        self.assertIn("0.62 (62,500 ÷ 100,000 records/s", ratio.found)
        self.assertFalse(ratio.is_met)

    def test_the_full_run_is_planned_below_the_bound(self) -> None:
        options = argparse.Namespace(events=57_000_000, wallets=1_000_000, live_rate=20_000, live_minutes=30)
        planned = soak.planned_bytes(options)
        self.assertTrue(30e9 < planned < soak.DATA_BYTES_MAX, planned)

    def test_document_and_image(self) -> None:
        figures = soaked()
        text = soak.document(figures)
        self.assertIn("| 99.8 | 100,000 | 5.0 | 2.5 | 900 | 3,990 | 200 |", text)
        self.assertIn("| 5 | 900 | 100 | 200 | 20 | 4,410 | 18,900 | 50 |  |", text, "a minute in which nothing was charged")
        for growth_figures in ({}, {"identities": {"rows": [row(), row(identities=10_000_000)]}}):
            ElementTree.fromstring(soak.image(figures, growth_figures))


class Grown(unittest.TestCase):
    def figures(self) -> dict[str, Any]:
        facts = {"date": "2026-11-27", "commit": "abc", "command": "make bench-growth", "events": 1_000_000,
                 "machine": {"cores": 2, "processor": "x", "memory_gib": 24}}
        return {
            "wallets": {**facts, "rows": [row(wallets=wallets) for wallets in (1_000, 1_000_000)]},
            "batches": {**facts, "rows": [row(batch=batch) for batch in (1_000, 80_000)]}}

    def test_the_document_has_the_parts_that_were_measured(self) -> None:
        text = growth.document(self.figures())
        self.assertIn("| 1,000,000 | 1,000,000 | 100,000 | 100,000 | 5.0 | 2.5 | 500 | 4.0 | 1.0 | 70 | 40 | 90 |", text)
        self.assertIn("| 80,000 | 100,000 |", text)
        self.assertNotIn("identities.**", text)

    def test_of_more_rounds_the_median_and_the_ends_are_told(self) -> None:
        of_two = {"loads": [{"rss_mb": 500}, {"rss_mb": 700}]}
        self.assertEqual(growth.told(of_two, "rss_mb"), "600 (500 to 700)")

    def test_images_have_a_mark_for_each_figure(self) -> None:
        images = growth.images(self.figures())
        self.assertEqual(set(images), {"growth-wallets.svg", "growth-batches.svg"})
        root = ElementTree.fromstring(images["growth-wallets.svg"])
        # First curves of four panels, two figures each.
        self.assertEqual(len(root.findall(f"{SVG}circle")), 8)


class Plots(unittest.TestCase):
    def test_axes_have_round_steps(self) -> None:
        table_of = [(0, 4), (3.9, 4), (4.1, 6), (97_000, 100_000), (0.37, 0.4), (100, 100), (1_234, 1_600)]
        self.assertEqual([top_of(highest) for highest, _ in table_of], [top for _, top in table_of])

    def test_numbers_of_the_x_axis(self) -> None:
        self.assertEqual([short(value) for value in (10, 1_000, 20_000, 1e6, 1.75e6, 1e8)], ["10", "1k", "20k", "1M", "1.75M", "100M"])
        self.assertEqual(decades(900, 2e5), [1e3, 1e4, 1e5])
        self.assertEqual(decades(200, 900), [200, 900])

    def test_a_plot_without_figures_says_so(self) -> None:
        root = ElementTree.fromstring(plot("a < b", "c", "x", [Panel("p", "MB", [Series("s", [])])]))
        self.assertIn("not measured", [text.text for text in root.findall(f"{SVG}text")])


class Documents(unittest.TestCase):
    def test_only_what_is_between_the_markers_changes(self) -> None:
        document = "a\n<!-- make x: begin -->\nold\n<!-- make x: end -->\nb\n"
        changed = between_markers(document, "x", "new")
        self.assertEqual(changed, document.replace("old", "new"))
        self.assertEqual(between_markers(changed, "x", "new"), changed)
        with self.assertRaises(BenchError):
            between_markers("a\n<!-- make x: begin -->\n", "x", "new")

    def test_a_table(self) -> None:
        self.assertEqual(table(["a", "b"], [["1", "2"]]), ["| a | b |", "|---:|---:|", "| 1 | 2 |"])


if __name__ == "__main__":
    unittest.main()
