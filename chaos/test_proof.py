"""The proof must notice what it is there for: each test breaks one thing in a small world that is otherwise right."""

from __future__ import annotations

import sys
import unittest
from pathlib import Path
from typing import Any
from unittest import mock

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parent))

import json

import proof
from cluster import TOPICS

GENERATION, WALLET = TOPICS["generation"], TOPICS["wallet"]


class Record:
    """As much of confluent_kafka's Message as the proof uses."""

    def __init__(self, offset: int, value: bytes, key: bytes = b"", headers: dict[str, bytes] | None = None) -> None:
        self._offset, self._value, self._key, self._headers = offset, value, key, list((headers or {}).items())

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return self._offset

    def value(self) -> bytes:
        return self._value

    def key(self) -> bytes:
        return self._key

    def headers(self) -> list[tuple[str, bytes]]:
        return self._headers


def event(event_id: str, event_type: str = "generation.completed") -> bytes:
    return json.dumps({"specversion": "1.0", "id": event_id, "source": "/a", "type": event_type, "subject": "w",
                       "time": "2026-11-26T00:00:00Z", "data": {}}).encode()


def posting(seq: int, offset: int, event_id: str) -> bytes:
    return json.dumps({"wallet_id": "w", "entries": [{
        "seq": seq, "entry_type": "charged", "credits": -3, "balance_after": -3 * seq, "source": "/a",
        "event_id": event_id, "origin_topic": GENERATION, "origin_partition": 0, "origin_offset": offset}]}).encode()


class Proof(unittest.TestCase):
    """Four records: two charges, a copy of the first, one free, one in quarantine."""

    def setUp(self) -> None:
        self.topics: dict[str, list[Record]] = {
            GENERATION: [Record(0, event("1")), Record(1, event("2")), Record(2, event("1")),
                         Record(3, event("3", "ad.created")), Record(4, b"no json")],
            WALLET: [],
            TOPICS["ledger"]: [Record(0, posting(1, 0, "1")), Record(1, posting(2, 1, "2"))],
            TOPICS["quarantine"]: [Record(0, b"no json", headers={
                "cs_topic": GENERATION.encode(), "cs_partition": b"0", "cs_offset": b"4"})],
            TOPICS["progress"]: [Record(0, json.dumps({"outcomes": {
                "charged": 2, "duplicate": 1, "free": 1, "quarantined": 1, "skipped": 7}}).encode(),
                key=f"{GENERATION}/0".encode())],
            TOPICS["wallets"]: [Record(0, b'{"wallet_id":"w","balance":-6,"held":0,"seq":2}')],
        }
        self.books: dict[str, Any] = {"wallets": {"w": {"balance": -6, "charged": 6, "reversed": 0}}}
        self.tables = {
            "FROM quarantined_events": [["1"]],
            "FROM ledger_entries": [["w", "-6", "0", "6", "0", "2", "2", "2"]],
            "FROM wallets": [["w", "-6", "0", "2"]],
            "FROM usage_hourly": [["w", "6", "0"]],
        }

    def prove(self) -> proof.Result:
        def query(_: str, sql: str) -> list[list[str]]:
            return next(rows for table, rows in self.tables.items() if table in sql)

        with mock.patch.object(proof, "read_topic", lambda _, topic: iter(self.topics[topic])), \
                mock.patch.object(proof, "query", query):
            return proof.prove(mock.Mock(), self.books)

    def differs(self, doubles: int = 0, lost: int = 0) -> None:
        result = self.prove()
        self.assertTrue(result.faults)
        self.assertEqual((result.doubles > 0, result.lost > 0), (doubles > 0, lost > 0), result.faults)

    def test_a_right_world_is_proven(self) -> None:
        self.assertEqual(self.prove().faults, [])

    def test_an_entry_written_twice_is_a_double(self) -> None:
        self.topics[TOPICS["ledger"]].append(Record(2, posting(2, 1, "2")))
        self.differs(doubles=1)

    def test_a_copy_that_was_charged_is_a_double(self) -> None:
        self.topics[TOPICS["ledger"]].append(Record(2, posting(3, 2, "1")))
        self.differs(doubles=1)

    def test_a_record_both_posted_and_quarantined_is_a_double(self) -> None:
        self.topics[TOPICS["quarantine"]].append(Record(1, b"", headers={
            "cs_topic": GENERATION.encode(), "cs_partition": b"0", "cs_offset": b"1"}))
        self.differs(doubles=1)

    def test_a_charge_that_is_missing_is_lost(self) -> None:
        self.topics[TOPICS["ledger"]].pop()
        self.differs(lost=1)

    def test_a_bad_record_that_nobody_kept_is_lost(self) -> None:
        self.topics[TOPICS["quarantine"]].clear()
        self.differs(lost=1)

    def test_a_gap_between_entries_is_lost(self) -> None:
        self.topics[TOPICS["ledger"]][1] = Record(1, posting(3, 1, "2"))
        self.differs(lost=1)

    def test_an_entry_of_a_record_that_never_was_is_named(self) -> None:
        self.topics[TOPICS["ledger"]].append(Record(2, posting(3, 99, "9")))
        self.differs()

    def test_every_place_is_compared(self) -> None:
        changes: dict[str, list[list[str]]] = {
            "FROM quarantined_events": [["0"]],
            "FROM ledger_entries": [["w", "-6", "0", "6", "0", "2", "3", "2"]],
            "FROM wallets": [["w", "-3", "0", "2"]],
            "FROM usage_hourly": [["w", "9", "0"]],
        }
        for table, rows in changes.items():
            with self.subTest(table):
                self.setUp()
                self.tables[table] = rows
                self.differs()
        with self.subTest("wallets topic"):
            self.setUp()
            self.topics[TOPICS["wallets"]] = [Record(0, b'{"wallet_id":"w","balance":-6,"held":0,"seq":1}')]
            self.differs()
        with self.subTest("books"):
            self.setUp()
            self.books["wallets"]["w"]["charged"] = 7
            self.differs()
        with self.subTest("service's own count"):
            self.setUp()
            self.topics[TOPICS["progress"]].clear()
            self.differs()


if __name__ == "__main__":
    unittest.main()
