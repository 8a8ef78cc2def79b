"""The proof: what was sent, what was decided, and what is stored agree to the record and to the credit.

Invariant: it holds only if every comparison was made and none differs. What differs is named, never rounded away.
"""

from __future__ import annotations

from typing import Any

import place as places
import sources
from place import Place
from show import Screen, table
from sources import WalletSum

FAULTS_SHOWN = 5


class Proof:
    """Comparisons, and what they found."""

    def __init__(self, place: Place, screen: Screen) -> None:
        self.place, self.screen = place, screen
        self.books: dict[str, Any] = sources.books(place)
        self.faults: list[str] = []

    def compare(self, what: str, expected: int, found: int) -> str:
        """The difference as it is printed; one that is not 0 is a fault."""
        if found != expected:
            self.faults.append(f"{what}: expected {expected:,}, found {found:,}")
        return f"difference {found - expected:,}"

    def prove(self, ledger: dict[str, WalletSum], progress: sources.Progress) -> bool:
        """All comparisons, printed."""
        self.screen.heading("Proof: every record has exactly one outcome")
        self._records(progress)
        self.screen.heading("Proof: each wallet's credits are the same everywhere")
        self._credits(ledger)
        if not self.faults:
            return True
        self.screen.heading(f"What differs ({len(self.faults)})")
        for fault in self.faults:
            self.screen.line(f"  {fault}")
        return False

    def outcomes(self, progress: sources.Progress) -> None:
        """Events by outcome, beside what the generator expects."""
        expected: dict[str, int] = self.books["outcomes"]
        names = sorted({*expected, *progress.outcomes}, key=lambda name: (-expected.get(name, 0), name))
        rows: list[list[str | int]] = []
        for name in names:
            wanted, found = expected.get(name, 0), progress.outcomes.get(name, 0)
            if wanted or found:
                rows.append([name, wanted, found, self.compare(f"outcome {name}", wanted, found)])
        self.screen.line(table(["outcome", "expected", "counted", ""], rows))

    def charged_by_plan(self) -> None:
        """Credits by plan and asset as ClickHouse has them, beside the books."""
        found = {(plan, asset): int(credits) for plan, asset, credits in sources.query(
            self.place, "SELECT plan, asset_type, -sum(credits) FROM ledger_entries FINAL "
                        "WHERE entry_type = 'charged' GROUP BY plan, asset_type")}
        expected = {(plan, asset): credits for plan, by_asset in self.books["credits"]["charged_by_plan"].items()
                    for asset, credits in by_asset.items()}
        rows: list[list[str | int]] = []
        for plan, asset in sorted({*expected, *found}):
            wanted, credits = expected.get((plan, asset), 0), found.get((plan, asset), 0)
            difference = self.compare(f"credits charged for {plan} {asset}", wanted, credits)
            rows.append([plan, asset, wanted, credits, difference])
        rows.append(["all", "", sum(expected.values()), sum(found.values()), ""])
        self.screen.line(table(["plan", "asset", "expected", "charged", ""], rows, texts=2))

    def reasons(self) -> None:
        """Quarantined records by reason as ClickHouse has them, beside the books."""
        found = {reason: int(count) for reason, count in sources.query(
            self.place, "SELECT reason, count() FROM quarantined_events FINAL GROUP BY reason")}
        expected: dict[str, int] = self.books["reasons"]
        rows: list[list[str | int]] = []
        for reason in sorted({*expected, *found}):
            wanted, count = expected.get(reason, 0), found.get(reason, 0)
            rows.append([reason, wanted, count, self.compare(f"quarantined as {reason}", wanted, count)])
        self.screen.line(table(["reason", "expected", "kept", ""], rows))

    def _records(self, progress: sources.Progress) -> None:
        sent: int = self.books["records"]
        in_sources = sources.records_in_sources(self.place)
        arrived = sum(in_sources.values())
        partitions = sorted({*in_sources, *progress.read})
        for name in partitions:
            self.compare(f"records read of {name}", in_sources.get(name, 0), progress.read.get(name, 0))
        agreeing = sum(in_sources.get(name) == progress.read.get(name, 0) for name in partitions)
        rows: list[list[str | int]] = [
            ["records sent, by the generator's books", sent, ""],
            ["records in the source topics, as Kafka counts", arrived,
             self.compare("records in the source topics", sent, arrived)],
            [f"final outcomes in {places.PROGRESS}", progress.final,
             self.compare("final outcomes", sent, progress.final)],
            ["    handed over to their wallet's shard", progress.handed_over, ""],
            ["    decided there", progress.taken_over,
             self.compare("handed-over records decided", progress.handed_over, progress.taken_over)],
            ["    read a second time, and skipped", progress.skipped, ""],
            ["source partitions of which every record was read", agreeing, f"of {len(partitions)}"],
        ]
        self.screen.line(table(["", "records", ""], rows))

    def _credits(self, ledger: dict[str, WalletSum]) -> None:
        expected = {wallet: WalletSum(balance=book["balance"], charged=book["charged"], reversed=book["reversed"])
                    for wallet, book in self.books["wallets"].items()}
        entries = sources.clickhouse_entries(self.place)
        wallets = sources.clickhouse_wallets(self.place)
        usage = sources.clickhouse_usage(self.place)
        rows: list[list[str | int]] = [
            ["generator's books", len(expected), _sum(expected, "charged"), _sum(expected, "reversed"),
             _sum(expected, "balance"), "", ""],
            self._place(f"{places.LEDGER}, read anew", expected, ledger, ["charged", "reversed", "balance"]),
            self._place("ClickHouse ledger_entries", expected, entries, ["charged", "reversed", "balance"]),
            self._place("ClickHouse usage_hourly", expected, usage, ["charged", "reversed"]),
            self._place("ClickHouse wallets", expected, wallets, ["balance"]),
        ]
        self.screen.line(table(["", "wallets", "charged", "given back", "balance", "wallets that differ", "in sum"],
                               rows))
        self.screen.line()
        seqs: list[list[str | int]] = [
            self._seqs(places.LEDGER, ledger, ledger),
            self._seqs("ClickHouse ledger_entries", ledger, entries),
            self._seqs("ClickHouse wallets (its last seq)", ledger, wallets),
        ]
        self.screen.line(table(["seq 1, 2, 3 ... per wallet", "entries", "gaps, doubles, other ends"], seqs))

    def _place(self, name: str, expected: dict[str, WalletSum], found: dict[str, WalletSum],
               fields: list[str]) -> list[str | int]:
        """A row of the table; wallets are compared one by one, those that only one side knows too."""
        none = WalletSum()
        differing = []
        for wallet in sorted({*expected, *found}):
            wanted, there = expected.get(wallet, none), found.get(wallet, none)
            for field in fields:
                if getattr(wanted, field) != getattr(there, field):
                    differing.append(f"{name}: {wallet} {field}: expected {getattr(wanted, field):,}, "
                                     f"found {getattr(there, field):,}")
                    break
        self._note(name, differing)
        sums = {field: _sum(found, field) for field in fields}
        difference = max((sums[field] - _sum(expected, field) for field in fields), key=abs)
        row: list[str | int] = [name, len(found)]
        row += [sums.get("charged", ""), sums.get("reversed", ""), sums.get("balance", "")]
        return [*row, len(differing), f"difference {difference:,}"]

    def _seqs(self, name: str, ledger: dict[str, WalletSum], found: dict[str, WalletSum]) -> list[str | int]:
        """Whether every wallet's entries are numbered without gap, up to the ledger topic's last one."""
        none = WalletSum()
        faults = []
        for wallet in sorted({*ledger, *found}):
            last, there = ledger.get(wallet, none).seq, found.get(wallet, none)
            if there.gap:
                faults.append(f"{name}: {wallet}: {there.gap}")
            elif there.seq != last:
                faults.append(f"{name}: {wallet} ends at seq {there.seq}, the ledger topic at {last}")
        self._note(name, faults)
        return [name, _sum(found, "seq"), len(faults)]

    def _note(self, name: str, faults: list[str]) -> None:
        self.faults += faults[:FAULTS_SHOWN]
        if len(faults) > FAULTS_SHOWN:
            self.faults.append(f"{name}: and {len(faults) - FAULTS_SHOWN:,} more wallets")


def _sum(wallets: dict[str, WalletSum], field: str) -> int:
    return sum(getattr(wallet, field) for wallet in wallets.values())
