"""The books: what the panels must show, worked out in plain Python from the entries of the ledger file alone.

Nothing here asks ClickHouse. An entry counts once, by (wallet, seq); states are the last entry's, lots are summed up from
what each entry did to them.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

Entry = dict[str, Any]
Rows = list[list[str]]
# When the month of each contract that is in force ends; worked out from its first day.
MONTH_ENDS = {"ws_ada": "2026-12-15 00:00:00", "ws_bob": "2027-01-01 08:00:00", "ws_eve": "2026-12-20 00:00:00"}


@dataclass(frozen=True)
class Asked:
    """What is chosen on the page; None: all."""

    begin: datetime
    end: datetime
    plans: tuple[str, ...] | None = None
    models: tuple[str, ...] | None = None
    wallet: str = "ws_bob"
    expire_days: int = 30

    def has_day(self, day: date) -> bool:
        return self.begin.date() <= day <= self.end.date()

    def has(self, at: datetime) -> bool:
        return self.begin <= at <= self.end

    def of_plan(self, row: dict[str, Any]) -> bool:
        return self.plans is None or (row.get("plan") or "none") in self.plans

    def of_model(self, entry: Entry) -> bool:
        return self.models is None or (entry.get("model") or "none") in self.models


def instant(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=timezone.utc)


def posted(entry: Entry) -> datetime:
    return instant(entry["posted_at"])


def happened(entry: Entry) -> datetime:
    return instant(entry["event_time"])


def midnight(day: date) -> str:
    return f"{day} 00:00:00"


def effect(entry: Entry, *types: str) -> int:
    """Credits of an entry of these types, whatever their sign; else 0."""
    return abs(int(entry.get("credits", 0))) if entry["entry_type"] in types else 0


def charged(entry: Entry) -> int:
    return effect(entry, "charged")


class Books:
    def __init__(self, folders: Iterable[Path]) -> None:
        found: dict[tuple[str, int], Entry] = {}
        self.quarantined: list[dict[str, Any]] = []
        self.alerts: list[dict[str, Any]] = []
        for folder in folders:
            for line in (folder / "ledger_entries.jsonl").read_text().splitlines():
                entry = json.loads(line)
                found[entry["wallet_id"], entry["seq"]] = entry
            self.quarantined += [json.loads(line) for line in (folder / "quarantined_events.jsonl").read_text().splitlines() if line]
            if (folder / "alerts.jsonl").exists():
                self.alerts += [json.loads(line) for line in (folder / "alerts.jsonl").read_text().splitlines()]
        self.entries = [found[key] for key in sorted(found)]

    def of(self, wallet: str) -> list[Entry]:
        return [entry for entry in self.entries if entry["wallet_id"] == wallet]

    def flow(self, asked: Asked) -> list[Entry]:
        """Entries by day of posting."""
        return [entry for entry in self.entries if asked.has_day(posted(entry).date()) and asked.of_plan(entry)]

    def usage(self, asked: Asked) -> list[Entry]:
        """Entries of usage by day of the event."""
        return [entry for entry in self.entries if entry["entry_type"] in ("charged", "reversed", "refused")
                and asked.has_day(happened(entry).date()) and asked.of_plan(entry) and asked.of_model(entry)]

    def total(self, asked: Asked, value: Callable[[Entry], int]) -> Rows:
        return [[str(sum(map(value, self.flow(asked))))]]

    def by_day(self, entries: list[Entry], day_of: Callable[[Entry], datetime], label: str, value: Callable[[Entry], int]) -> Rows:
        """[day, label, sum], without zeros."""
        sums: dict[tuple[date, str], int] = defaultdict(int)
        for entry in entries:
            sums[day_of(entry).date(), entry.get(label) or ("none" if label != "asset_type" else "")] += value(entry)
        return [[midnight(day), name, str(sums[day, name])] for day, name in sorted(sums) if sums[day, name]]

    def by_name(self, entries: list[Entry], label: str) -> Rows:
        """[name, credits charged], most first, without zeros."""
        sums: dict[str, int] = defaultdict(int)
        for entry in entries:
            sums[entry.get(label) or "none"] += charged(entry)
        return [[name, str(sums[name])] for name in sorted(sums, key=lambda name: (-sums[name], name)) if sums[name]]

    def refunds(self, asked: Asked) -> Rows:
        days: dict[date, list[int]] = defaultdict(lambda: [0, 0, 0])
        for entry in self.flow(asked):
            of_day = days[posted(entry).date()]
            of_day[0] += effect(entry, "reversed")
            of_day[1] += int(entry.get("amount", 0)) if entry["entry_type"] == "refused" else 0
            of_day[2] += effect(entry, "expired")
        return [[midnight(day), *map(str, days[day])] for day in sorted(days) if any(days[day])]

    def utilisation(self, asked: Asked) -> Rows:
        used: dict[str, int] = defaultdict(int)
        granted: dict[str, int] = defaultdict(int)
        for entry in self.flow(asked):
            plan = entry.get("plan") or "none"
            used[plan] += charged(entry) - effect(entry, "reversed")
            if any(lot["kind"] == "plan" for lot in entry.get("grant_effects", [])):
                granted[plan] += effect(entry, "granted")
        return [[plan, str(100 * used[plan] // granted[plan])] for plan in sorted(used) if granted[plan]]

    def outstanding(self, asked: Asked) -> Rows:
        running, closing = 0, {}
        for entry in sorted(self.entries, key=posted):
            running += int(entry.get("credits", 0))
            closing[posted(entry).date()] = running
        return [[midnight(day), str(closing[day])] for day in sorted(closing) if asked.has_day(day)]

    def revenue(self, asked: Asked) -> list[Entry]:
        return [entry for entry in self.flow(asked) if entry["entry_type"] == "granted" and entry.get("event_type") == "topup.purchased"]

    def has_contract(self, wallet: str) -> bool:
        types = [entry["entry_type"] for entry in self.of(wallet)]
        return "contract_started" in types and "contract_ended" not in types

    def state(self, wallet: str) -> tuple[str, str, int]:
        """Plan now, level and available credits."""
        last = self.of(wallet)[-1]
        plan = next((entry["plan"] for entry in reversed(self.of(wallet)) if entry.get("plan")), "")
        return (plan if self.has_contract(wallet) else "", last.get("level", ""),
                int(last.get("balance_after", 0)) - int(last.get("held_after", 0)))

    def wallets(self) -> list[str]:
        return sorted({entry["wallet_id"] for entry in self.entries})

    def spenders(self, asked: Asked) -> Rows:
        sums: dict[str, int] = defaultdict(int)
        jobs: dict[str, set[str]] = defaultdict(set)
        for entry in self.entries:
            if charged(entry) and asked.has(posted(entry)) and asked.of_plan(entry) and asked.of_model(entry):
                sums[entry["wallet_id"]] += charged(entry)
                jobs[entry["wallet_id"]].add(entry["job_id"])
        ordered = sorted(sums, key=lambda wallet: (-sums[wallet], wallet))[:25]
        return [[wallet, str(sums[wallet]), str(len(jobs[wallet])), *map(str, self.state(wallet))] for wallet in ordered]

    def allocation(self, wallet: str, at: datetime) -> tuple[datetime, int] | None:
        """Begin of the month that is under way, and what was granted for it."""
        if not self.has_contract(wallet):
            return None
        granted = [(happened(entry), lot) for entry in self.of(wallet) if entry["entry_type"] == "granted"
                   for lot in entry["grant_effects"] if lot["kind"] == "plan" and happened(entry) <= at]
        begins = [when for when, lot in granted if re.search(r":\d+$", lot["grant_id"])]
        return (max(begins), sum(lot["credits"] for when, lot in granted if when >= max(begins))) if begins else None

    def month(self, asked: Asked) -> dict[str, int] | None:
        """Of the month under way: percent used, percent gone, expected by its end."""
        found = self.allocation(asked.wallet, asked.end)
        if found is None:
            return None
        begin, allocation = found
        used = sum(charged(entry) - effect(entry, "reversed") for entry in self.of(asked.wallet) if begin <= happened(entry) < asked.end)
        whole = int((instant(MONTH_ENDS[asked.wallet]) - begin).total_seconds())
        gone = int((asked.end - begin).total_seconds())
        return {"used": 100 * used // allocation, "gone": min(100, 100 * gone // whole), "expected": used * whole // gone}

    def exhausted(self, asked: Asked) -> Rows:
        found = []
        for wallet in self.wallets():
            plan, level, available = self.state(wallet)
            if level in ("exhausted", "overdrawn") and (plan or self.of(wallet)[-1].get("overdraft_after")) and asked.of_plan({"plan": plan}):
                allocation = self.allocation(wallet, asked.end)
                found.append([wallet, level, plan or "none", str(available), str(allocation[1] if allocation else 0)])
        return sorted(found, key=lambda row: (int(row[3]), row[0]))

    def expiring(self, asked: Asked) -> Rows:
        left: dict[tuple[str, str], int] = defaultdict(int)
        lots: dict[tuple[str, str], dict[str, Any]] = {}
        for entry in self.entries:
            for lot in entry.get("grant_effects", []):
                key = entry["wallet_id"], lot["grant_id"]
                left[key] += lot["credits"]
                lots.setdefault(key, lot)
        found = []
        for key, lot in lots.items():
            if lot["expires_at"] and left[key] > 0 and asked.end < instant(lot["expires_at"]) <= asked.end + timedelta(days=asked.expire_days):
                days = (instant(lot["expires_at"]) - asked.end).days
                found.append([lot["expires_at"], *key, lot["kind"], str(lot["credits"]), str(left[key]), str(days)])
        return [[*row[1:6], row[0], row[6]] for row in sorted(found)]

    def balance(self, asked: Asked) -> Rows:
        entries, allocation = self.of(asked.wallet), self.allocation(asked.wallet, asked.end)
        known = [entry for entry in entries if posted(entry) < asked.end]
        if not known:
            return []
        found, day = [], min(posted(entry).date() for entry in known)
        while day <= asked.end.date():
            balance = sum(int(entry.get("credits", 0)) for entry in known if posted(entry).date() <= day)
            in_grants = sum(lot["credits"] for entry in known if posted(entry).date() <= day for lot in entry.get("grant_effects", []))
            if asked.has_day(day):
                found.append([midnight(day), str(balance), str(in_grants - balance), str(allocation[1]) if allocation else "\\N"])
            day += timedelta(days=1)
        return found

    def burn_down(self, asked: Asked) -> Rows:
        found, day = [], asked.begin.date()
        while day <= asked.end.date():
            left: dict[str, int] = defaultdict(int)
            for entry in self.of(asked.wallet):
                if posted(entry).date() <= day and posted(entry) <= asked.end:
                    for lot in entry.get("grant_effects", []):
                        left[f"expires {lot['expires_at'][:10]}" if lot["expires_at"] else "never expires"] += lot["credits"]
            found += [[midnight(day), expiry, str(left[expiry])] for expiry in sorted(left)]
            day += timedelta(days=1)
        return found

    def runway(self, asked: Asked) -> str:
        today = asked.end.date()
        spent = [entry for entry in self.of(asked.wallet) if charged(entry) and happened(entry).date() < today]
        week = sum(charged(entry) for entry in spent if happened(entry).date() >= today - timedelta(days=7))
        if not week:
            return "\\N"
        days = max(1, min(7, (today - min(happened(entry).date() for entry in spent)).days))
        return f"{max(0, self.state(asked.wallet)[2]) * days * 100 // week / 100:g}"

    def in_range(self, asked: Asked) -> list[Entry]:
        return [entry for entry in self.of(asked.wallet) if asked.has(posted(entry))]

    def late(self, asked: Asked) -> Rows:
        days: dict[date, list[int]] = defaultdict(lambda: [0, 0])
        for entry in self.entries:
            late = posted(entry) - happened(entry) > timedelta(hours=1)
            if late and entry.get("event_type", "").startswith("generation.") and asked.has(posted(entry)):
                days[posted(entry).date()][0] += 1
                days[posted(entry).date()][1] += charged(entry)
        return [[midnight(day), *map(str, days[day])] for day in sorted(days)]

    def new_models(self, asked: Asked) -> Rows:
        found: dict[str, list[Entry]] = defaultdict(list)
        whole = Asked(datetime(1970, 1, 1, tzinfo=timezone.utc), asked.end, None, asked.models)
        for entry in self.usage(whole):
            found[entry.get("model") or "none"].append(entry)
        rows = [[model, str(min(happened(entry).date() for entry in entries)),
                 str(len({(entry["wallet_id"], entry["job_id"]) for entry in entries if charged(entry)})), str(sum(map(charged, entries)))]
                for model, entries in found.items()]
        kept = [row for row in rows if row[0] == "none" or date.fromisoformat(row[1]) >= asked.begin.date()]
        return sorted(sorted(kept), key=lambda row: row[1], reverse=True)

    def kept_by_day(self, asked: Asked) -> Rows:
        """Quarantined records: [day, reason, records]."""
        sums: dict[tuple[date, str], int] = defaultdict(int)
        for record in self.quarantined:
            day = instant(record["quarantined_at"]).date()
            if asked.has_day(day):
                sums[day, record["reason"]] += 1
        return [[midnight(day), reason, str(sums[day, reason])] for day, reason in sorted(sums)]
