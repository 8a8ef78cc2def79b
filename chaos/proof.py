"""The proof: the generators' books, the ledger, the wallets and ClickHouse agree, and every record has one outcome.

The ledger is folded here anew from its topic. Invariant: it holds only if every comparison was made and none differs;
what differs is named. Must not: ask the instances anything, or believe the service's own counters beyond comparing them.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from cluster import TOPICS, Cluster
from reading import Envelope, query, read_topic

FREE_TYPES = {"ad.created", "asset.edited", "ad.published", "insights.viewed"}
# Not an outcome of the record: it is counted again where it goes, or was counted before.
NOT_FINAL = ("handed_over", "skipped")
NAMED_MAX = 5
Origin = tuple[str, int, int]


@dataclass
class WalletSum:
    """One wallet, as one place tells it."""

    balance: int = 0
    held: int = 0
    charged: int = 0
    reversed: int = 0
    seq: int = 0


@dataclass
class Ledger:
    """The fold of the ledger topic."""

    wallets: dict[str, WalletSum] = field(default_factory=dict)
    # How many records each source record came to; timers have no origin.
    origins: Counter[Origin] = field(default_factory=Counter)
    identities: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    entries: int = 0
    doubles: list[str] = field(default_factory=list)
    gaps: list[str] = field(default_factory=list)
    # Entries whose own sums contradict the fold.
    contradictions: list[str] = field(default_factory=list)

    def add(self, record: dict[str, Any]) -> None:
        wallet_id = record["wallet_id"]
        wallet = self.wallets.setdefault(wallet_id, WalletSum())
        first = record["entries"][0]
        for entry in record["entries"]:
            seq = entry["seq"]
            if seq <= wallet.seq:
                self.doubles.append(f"{wallet_id} seq {seq} after {wallet.seq}")
                return
            if seq != wallet.seq + 1:
                self.gaps.append(f"{wallet_id} seq {seq} after {wallet.seq}")
            wallet.seq = seq
            self.entries += 1
            credits = entry.get("credits", 0)
            wallet.balance += credits
            wallet.held += entry.get("held_credits", 0)
            if entry["entry_type"] == "charged":
                wallet.charged -= credits
            elif entry["entry_type"] == "reversed":
                wallet.reversed += credits
            if entry.get("balance_after", 0) != wallet.balance or entry.get("held_after", 0) != wallet.held:
                self.contradictions.append(f"{wallet_id} seq {seq}: balance {entry.get('balance_after', 0)}, "
                                           f"held {entry.get('held_after', 0)}; the fold has {wallet}")
        if first.get("origin_topic"):
            self.origins[first["origin_topic"], first.get("origin_partition", 0), first.get("origin_offset", 0)] += 1
            self.identities[wallet_id, first["source"], first["event_id"]] += 1


@dataclass
class Result:
    """What was compared, and what differs."""

    figures: dict[str, int] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    doubles: int = 0
    lost: int = 0

    def compare(self, what: str, expected: int, found: int) -> None:
        self.figures[what] = found
        if expected != found:
            self.faults.append(f"{what}: expected {expected:,}, found {found:,}")

    def name(self, what: str, faults: list[str]) -> None:
        self.faults += [f"{what}: {fault}" for fault in faults[:NAMED_MAX]]
        if len(faults) > NAMED_MAX:
            self.faults.append(f"{what}: and {len(faults) - NAMED_MAX:,} more")


def prove(cluster: Cluster, books: dict[str, Any]) -> Result:
    """Read everything, compare everything."""
    result, ledger = Result(), Ledger()
    for message in read_topic(cluster.brokers, TOPICS["ledger"]):
        ledger.add(json.loads(message.value()))
    result.figures["ledger entries"] = ledger.entries
    result.name("double in the ledger topic", ledger.doubles)
    result.name("gap in the ledger topic", ledger.gaps)
    result.name("contradiction in the ledger topic", ledger.contradictions)
    result.doubles += len(ledger.doubles)
    result.lost += len(ledger.gaps)
    _records(cluster, ledger, result)
    _wallets(cluster, ledger, books, result)
    return result


def _records(cluster: Cluster, ledger: Ledger, result: Result) -> None:
    """Every source record by itself: posted once, or quarantined once, or free, or a duplicate of one that was posted."""
    quarantined: Counter[Origin] = Counter()
    for message in read_topic(cluster.brokers, TOPICS["quarantine"]):
        headers = dict(message.headers() or [])
        origin = (headers["cs_topic"].decode(), int(headers["cs_partition"]), int(headers["cs_offset"]))
        quarantined[origin] += 1
    outcomes: Counter[str] = Counter()
    doubled, lost, known = [], [], set()
    for topic in (TOPICS["generation"], TOPICS["wallet"]):
        for message in read_topic(cluster.brokers, topic):
            origin = (topic, message.partition(), message.offset())
            known.add(origin)
            count = ledger.origins[origin] + quarantined[origin]
            if count > 1:
                doubled.append(f"{origin}: {ledger.origins[origin]} postings, {quarantined[origin]} in quarantine")
            elif count == 1:
                outcomes["posted" if ledger.origins[origin] else "quarantined"] += 1
            elif (event := Envelope.of(message)) is None:
                lost.append(f"{origin}: neither posted nor in quarantine")
            elif event.type in FREE_TYPES:
                outcomes["free"] += 1
            elif ledger.identities[event.wallet, event.source, event.id]:
                outcomes["duplicate"] += 1
            else:
                lost.append(f"{origin}: {event} has no outcome")
    doubled += [f"{identity} posted {count} times" for identity, count in ledger.identities.items() if count > 1]
    strange = [str(origin) for origin in {*ledger.origins, *quarantined} if origin not in known]
    result.doubles += len(doubled)
    result.lost += len(lost)
    result.name("doubled", doubled)
    result.name("lost", lost)
    result.name("an outcome without a record", strange)
    result.figures["source records"] = len(known)
    counted = _counted(cluster)
    posted = sum(count for name, count in counted.items() if name not in ("free", "duplicate", "quarantined"))
    result.compare("posted, in the service's books", outcomes["posted"], posted)
    for name in ("free", "duplicate", "quarantined"):
        result.compare(f"{name}, in the service's books", outcomes[name], counted[name])
    rows = query(cluster.clickhouse_url, "SELECT count() FROM quarantined_events FINAL")
    result.compare("quarantined, in ClickHouse", outcomes["quarantined"], int(rows[0][0]))


def _counted(cluster: Cluster) -> Counter[str]:
    """Final outcomes in the progress topic: its newest record of each partition."""
    newest = {message.key(): message.value() for message in read_topic(cluster.brokers, TOPICS["progress"])}
    counted: Counter[str] = Counter()
    for key, value in newest.items():
        if not key.startswith(b"shard/") and value is not None:
            counted.update({name: count for name, count in json.loads(value)["outcomes"].items()
                            if name not in NOT_FINAL})
    return counted


def _wallets(cluster: Cluster, ledger: Ledger, books: dict[str, Any], result: Result) -> None:
    expected = {wallet: WalletSum(balance=book["balance"], charged=book["charged"], reversed=book["reversed"])
                for wallet, book in books["wallets"].items()}
    money = ["balance", "charged", "reversed"]
    _equal("ledger topic against the books", expected, ledger.wallets, money, result)
    snapshots = {}
    for message in read_topic(cluster.brokers, TOPICS["wallets"]):
        state = json.loads(message.value())
        snapshots[state["wallet_id"]] = WalletSum(balance=state["balance"], held=state["held"], seq=state["seq"])
    _equal("wallets topic against the ledger", ledger.wallets, snapshots, ["balance", "held", "seq"], result)
    stored, doubles = {}, []
    for wallet, *texts in query(cluster.clickhouse_url, """
            SELECT wallet_id, sum(credits), sum(held_credits), -sumIf(credits, entry_type = 'charged'),
                   sumIf(credits, entry_type = 'reversed'), max(seq), count(), uniqExact(seq)
            FROM ledger_entries FINAL GROUP BY wallet_id"""):
        balance, held, charged, given_back, last, count, different = map(int, texts)
        stored[wallet] = WalletSum(balance, held, charged, given_back, last)
        if not last == count == different:
            doubles.append(f"{wallet}: {count} entries, {different} seqs, the last {last}")
    result.name("gap or double in ClickHouse ledger_entries", doubles)
    _equal("ClickHouse ledger_entries against the ledger", ledger.wallets, stored, [*money, "held", "seq"], result)
    states = {wallet: WalletSum(balance=int(balance), held=int(held), seq=int(seq)) for wallet, balance, held, seq
              in query(cluster.clickhouse_url, "SELECT wallet_id, balance, held, seq FROM wallets FINAL")}
    _equal("ClickHouse wallets against the ledger", ledger.wallets, states, ["balance", "held", "seq"], result)
    usage = {wallet: WalletSum(charged=int(charged), reversed=int(given_back)) for wallet, charged, given_back in query(
        cluster.clickhouse_url, "SELECT wallet_id, sum(credits_charged), sum(credits_reversed) FROM usage_hourly FINAL "
                                "GROUP BY wallet_id")}
    _equal("ClickHouse usage_hourly against the ledger", ledger.wallets, usage, ["charged", "reversed"], result)


def _equal(what: str, expected: dict[str, WalletSum], found: dict[str, WalletSum], fields: list[str],
           result: Result) -> None:
    """Wallet by wallet, those that only one side knows too, and in sum."""
    none, differing = WalletSum(), []
    for wallet in sorted({*expected, *found}):
        wanted, there = expected.get(wallet, none), found.get(wallet, none)
        differing += [f"{wallet} {name}: expected {getattr(wanted, name):,}, found {getattr(there, name):,}"
                      for name in fields if getattr(wanted, name) != getattr(there, name)]
    result.name(what, differing)
    for name in fields:
        result.compare(f"{what}: sum of {name}", *(sum(getattr(one, name) for one in side.values())
                                                   for side in (expected, found)))
