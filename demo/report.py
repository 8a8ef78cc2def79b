"""What came out, and where to look further. Says; decides nothing."""

from __future__ import annotations

import json
import urllib.parse
import urllib.request

import place as places
import sources
from place import Place
from proof import Proof
from show import Screen, table

# Each is printed as a curl line that works as it stands: no double quotes and no dollars. {wallet} is filled in.
QUERIES = (
    ("Credits by day, plan and asset",
     "SELECT toDate(hour) AS day, plan, asset_type, sum(jobs) AS jobs, sum(credits_charged) AS credits "
     "FROM usage_hourly FINAL GROUP BY ALL ORDER BY ALL"),
    ("The last entries of a wallet, and the grants that paid",
     "SELECT seq, entry_type, event_time, credits, grant_effects.grant_id AS paid_by, balance_after, level "
     "FROM ledger_entries FINAL WHERE wallet_id = '{wallet}' ORDER BY seq DESC LIMIT 5"),
    ("What could not be applied, and why",
     "SELECT reason, count() AS records, any(detail) AS for_example "
     "FROM quarantined_events FINAL GROUP BY reason ORDER BY records DESC"),
)


def results(place: Place, screen: Screen, proof: Proof, progress: sources.Progress,
            figures: list[list[str | int]]) -> None:
    """The run in tables. Comparisons in them count for the proof."""
    screen.heading("Events by outcome (generator's books, and the ledger stage's in Kafka)")
    proof.outcomes(progress)
    screen.heading("What could not be applied (ClickHouse, quarantined_events)")
    proof.reasons()
    screen.heading("Credits charged by plan and asset (ClickHouse, ledger_entries)")
    proof.charged_by_plan()
    screen.heading("The ten wallets lowest against their allocation (ClickHouse, wallets)")
    lowest = sources.query(place, "SELECT wallet_id, plan, level, allocation, available, "
                                  "round(100 * available / allocation) FROM wallets FINAL WHERE allocation > 0 "
                                  "ORDER BY available / allocation, wallet_id LIMIT 10")
    rows: list[list[str | int]] = [
        [wallet, plan, level, int(allocation), int(available), f"{float(percent):,.0f} %"]
        for wallet, plan, level, allocation, available, percent in lowest]
    screen.line(table(["wallet", "plan", "level", "allocation", "available", "of it"], rows, texts=3))
    screen.heading("Speed")
    screen.line(table(["", ""], figures).lstrip("\n"))
    screen.line("  From event to balance: from a record's Kafka timestamp to the return of the commit that posted it,\n"
                "  of the live events; quantiles of creditstream_event_to_balance_seconds, linear inside its buckets.")


def verdict(screen: Screen, is_proven: bool) -> None:
    screen.line()
    seconds = f"{screen.seconds():.0f} s"
    if is_proven:
        screen.line(f"PROVEN in {seconds}: every record accounted for once, every credit equal everywhere.")
    else:
        screen.line(f"NOT PROVEN after {seconds}: what differs stands above.")


def look_around(place: Place, screen: Screen) -> None:
    """Addresses, and commands that work as printed."""
    screen.heading("Look around")
    screen.line(f"  Kafka       {place.brokers}   topics demo.*")
    screen.line(f"  ClickHouse  {place.clickhouse_url}   database {places.DATABASE}")
    screen.line(f"  Prometheus  {place.prometheus_url}   {_scrapes(place, screen.seconds())}")
    screen.line(f"              {_graph(place)}")
    wallet = _busiest_solvent_wallet(place)
    for title, sql in QUERIES:
        screen.line(f"\n  {title}:")
        screen.line(_curl(place, sql.format(wallet=wallet) + " FORMAT PrettyCompact"))
    screen.line("\n  A quarantined record as it came:")
    screen.line(f"    {places.shown(place.binary)} --config {places.shown(place.config)} quarantine list --limit 3")
    screen.line("\n  To see the proof fail, delete a row, and prove again what is stored:")
    screen.line(_curl(place, f"DELETE FROM ledger_entries WHERE wallet_id = '{wallet}' AND seq = 7"))
    screen.line("    .stack/venv/bin/python demo/demo.py --prove")
    screen.line("\n  `make stack-down` stops Kafka, ClickHouse and Prometheus; "
                "`make stack-wipe` deletes their data too.")


def _busiest_solvent_wallet(place: Place) -> str:
    """One whose charges are still paid by grants, which is more to look at than an overdraft."""
    rows = sources.query(place, "SELECT wallet_id FROM wallets FINAL ORDER BY overdraft = 0 DESC, seq DESC LIMIT 1")
    return rows[0][0] if rows else ""


def _curl(place: Place, sql: str) -> str:
    return f"    curl -s '{place.clickhouse_url}/?database={places.DATABASE}' \\\n      -d \"{sql}\""


def _graph(place: Place) -> str:
    """The run as a graph in Prometheus' own page."""
    expression = 'sum by (outcome) (rate(creditstream_events_total[5s])) > 0'
    return f"{place.prometheus_url}/graph?" + urllib.parse.urlencode(
        {"g0.expr": expression, "g0.tab": 0, "g0.range_input": "5m"})


def _scrapes(place: Place, seconds: float) -> str:
    """Whether it saw this run: what the demo cannot do without Prometheus is nothing, so it may be away."""
    expression = f"sum(count_over_time(creditstream_build_info[{max(1, round(seconds))}s]))"
    url = f"{place.prometheus_url}/api/v1/query?" + urllib.parse.urlencode({"query": expression})
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            found = json.load(answer)["data"]["result"]
    except (OSError, ValueError, KeyError):
        return "does not answer"
    count = int(found[0]["value"][1]) if found else 0
    return f"{count} scrapes of this run"
