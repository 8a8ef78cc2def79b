"""For every alert: series with which it fires, series with which it just does not, and when it resolves.

Values are in promtool's notation, a sample a minute (or a `step`): `0x9 5x20` is ten samples of 0 and 21 of 5; `0+6x20` rises by 6 a
minute; `_x20` and `stale` are a series that is gone. An alert may have several cases; at least one says what is just below.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Case:
    """At `quiet_at` the alert does not fire yet, at `fires_at` it does (once, with `labels`), at `resolves_at` no more.

    With the series of `below`, or of one of `never`, in place of those of the same name it does not fire at `fires_at`;
    with those of one of `also` it does.
    """

    alert: str
    labels: dict[str, str]
    series: dict[str, str]
    below: dict[str, str] = field(default_factory=dict)
    quiet_at: str = "9m"
    fires_at: str = "30m"
    resolves_at: str = "90m"
    step: str = "1m"
    why: str = ""
    never: list[dict[str, str]] = field(default_factory=list)
    also: list[dict[str, str]] = field(default_factory=list)


JOB = {"job": "creditstream"}
ONE = 'job="creditstream", instance="a"'
TWO = 'job="creditstream", instance="b"'
PLAN = {**JOB, "plan": "lite"}
BUMP = "0x9 {}x30 0x60"


def wallets(level: str, plan: str = "lite", where: str = ONE) -> str:
    return f'creditstream_wallets{{{where}, plan="{plan}", level="{level}"}}'


def metric(name: str, labels: str = "", where: str = ONE) -> str:
    return f"creditstream_{name}{{{where}{', ' + labels if labels else ''}}}"


def up_then_flat(step: float, minutes: int = 40) -> str:
    """A counter that stands for 10 minutes, rises by `step` a minute, and stands again."""
    return f"0x9 0+{step}x{minutes} {step * minutes}x200"


def late(share: float, steps: int, then: int) -> dict[str, str]:
    """100 events a step, of which `share` late for so many steps, then none."""
    good = 100 - 100 * share
    end = good * steps
    return {
        metric("event_to_balance_seconds_count"): f"0+100x{steps + then}",
        metric("event_to_balance_seconds_bucket", 'le="1"'): f"0+{good:g}x{steps} {end + 100:g}+100x{then}",
    }


BURNT = metric("credits_total", 'flow="charged"')
CUSTOMERS = [
    Case("CreditstreamWalletExhausted", {**PLAN, "wallet": "ws_1"},
         {metric("wallet_available_credits", 'wallet="ws_1", plan="lite", level="exhausted"'): "_x9 -3x30 stale"},
         {metric("wallet_available_credits", 'wallet="ws_1", plan="lite", level="exhausted"'): "_x60",
          metric("wallet_available_credits", 'wallet="ws_1", plan="lite", level="critical"'): "1x60",
          metric("wallet_available_credits", 'wallet="ws_9", plan="none", level="exhausted"'): "0x60"}),
    Case("CreditstreamWalletOverdrawn", {**PLAN, "wallet": "ws_1"},
         {metric("wallet_available_credits", 'wallet="ws_1", plan="lite", level="overdrawn"'): "_x9 -3x30 stale"},
         {metric("wallet_available_credits", 'wallet="ws_1", plan="lite", level="overdrawn"'): "_x60",
          metric("wallet_available_credits", 'wallet="ws_1", plan="lite", level="exhausted"'): "0x60"}),
    Case("CreditstreamWalletsExhausted", PLAN, {wallets("exhausted"): BUMP.format(1), wallets("exhausted", where=TWO): "0x99"},
         {wallets("exhausted"): "0x99", wallets("exhausted", "none"): "7x99", wallets("critical"): "7x99"}),
    Case("CreditstreamWalletsOverdrawn", PLAN, {wallets("overdrawn"): BUMP.format(1)},
         {wallets("overdrawn"): "0x99", wallets("exhausted"): "7x99"}),
    Case("CreditstreamWalletsLow", PLAN, {wallets("low"): BUMP.format(1), wallets("critical", where=TWO): BUMP.format(1)},
         {wallets("low"): "0x99", wallets("critical", where=TWO): "0x99", wallets("ok"): "9x99"}),
    Case("CreditstreamWalletsWithoutPlanExhausted", JOB, {wallets("exhausted", "none"): "5x99 6x200"},
         {wallets("exhausted", "none"): "5x79 0x20 5x300"}, quiet_at="99m", fires_at="160m", resolves_at="170m",
         why="an instance that is gone for a while, and back, brings no new ones"),
    Case("CreditstreamPlanExhausted", PLAN,
         {wallets("exhausted"): BUMP.format(2), wallets("overdrawn", where=TWO): BUMP.format(1),
          wallets("ok"): "18x99"},
         {wallets("overdrawn", where=TWO): "0x99"},
         never=[{wallets("exhausted"): "19x99", wallets("overdrawn", where=TWO): "0x99", wallets("ok"): "0x99"}],
         why="3 of 21 are more than 10 %, 2 of 20 are not, and 19 wallets are too few"),
    Case("CreditstreamSuddenBurn", JOB,
         {BURNT: "0+100x120 12301+301x40 24342+100x240"}, {BURNT: "0+100x120 12298+298x40 24218+100x240"},
         quiet_at="100m", fires_at="148m", resolves_at="230m", why="299 a minute are not three times 100, 301 are"),
    Case("CreditstreamSuddenBurn", JOB, {BURNT: "0x2000 201+201x40 8241x240"}, {BURNT: "0x2000 199+199x40 8159x240"},
         quiet_at="2000m", fires_at="2029m", resolves_at="2100m",
         never=[{BURNT: "0x2000 80+80x200"}, {BURNT: "0+200x100 20000x1900 20400+400x100"}],
         why="after a quiet day ordinary traffic is none: three times 1,000 in 15 minutes, or the most of a week"),
    Case("CreditstreamWalletsNotListed", JOB, {metric("wallet_series_omitted"): BUMP.format(1)},
         {metric("wallet_series_omitted"): "0x99"}),
]

# An instance that dies takes its series along after the 30th minute: what it said holds for 10 minutes, and no longer.
LISTED = 'wallet="ws_1", plan="lite", level='
DEAD = [Case(alert, labels, {name: f"{values} stale" for name, values in series.items()}, fires_at="39m", resolves_at="41m")
        for alert, labels, series in (
            ("CreditstreamWalletExhausted", {**PLAN, "wallet": "ws_1"},
             {metric("wallet_available_credits", f'{LISTED}"exhausted"'): "_x9 -3x20"}),
            ("CreditstreamWalletOverdrawn", {**PLAN, "wallet": "ws_1"},
             {metric("wallet_available_credits", f'{LISTED}"overdrawn"'): "_x9 -3x20"}),
            ("CreditstreamWalletsExhausted", PLAN, {wallets("exhausted"): "0x9 1x20"}),
            ("CreditstreamWalletsOverdrawn", PLAN, {wallets("overdrawn"): "0x9 1x20"}),
            ("CreditstreamWalletsLow", PLAN, {wallets("low"): "0x9 1x20"}),
            ("CreditstreamPlanExhausted", PLAN, {wallets("exhausted"): "0x9 3x20", wallets("ok"): "18x30"}),
            ("CreditstreamWalletsNotListed", JOB, {metric("wallet_series_omitted"): "0x9 1x20"}))]

LAG = metric("lag_records", 'stage="ledger", topic="generation.events", partition="0"')
SINK_LAG = metric("lag_records", 'stage="sink", topic="credits.ledger", partition="0"')
SINK_LAG_TWO = metric("lag_records", 'stage="sink", topic="credits.ledger", partition="1"', TWO)
AGE = metric("lag_seconds", 'stage="ledger", topic="generation.events", partition="0"')
ROWS = metric("clickhouse_rows_total", 'table="ledger_entries"')
COMMIT = metric("last_commit_timestamp_seconds")
BUILD = metric("build_info", 'version="0.1.0", revision="x"')
START = f"process_start_time_seconds{{{ONE}}}"
COMMITTED, ABORTED, FENCED = (metric("transactions_total", f'outcome="{o}"') for o in ("committed", "aborted", "fenced"))
CHARGED, HANDED = (metric("events_total", f'topic="generation.events", outcome="{o}"') for o in ("charged", "handed_over"))
BAD = metric("quarantined_events_total", 'reason="not_json"')
BETWEEN = {**JOB, "between": "source_ledger"}
CHECKED = metric("drift_checked_timestamp_seconds", 'between="source_ledger"')
HOOK = {**JOB, "endpoint": "crm"}
SENT = metric("webhook_deliveries_total", 'endpoint="crm", outcome="delivered"')
REFUSED = metric("webhook_deliveries_total", 'endpoint="crm", outcome="failed"')
PENDING = metric("webhook_oldest_pending_seconds", 'endpoint="crm"')
GONE, DEAD_LETTERS = (metric("webhook_deliveries_total", f'endpoint="crm", outcome="{o}"') for o in ("gone", "dead"))
RAISED = metric("alerts_total", 'kind="level", level="low"')
OWNED, OWNED_TWO = metric("shards_owned"), metric("shards_owned", where=TWO)
SHARDS = metric("shards")
PASSED_OVER = metric("webhook_passed_over_total", 'endpoint="crm"')
RESTORES, QUICK = metric("restore_duration_seconds_count"), metric("restore_duration_seconds_bucket", 'le="60"')
A = {**JOB, "instance": "a"}

SERVICE = [
    Case("CreditstreamMetricsAbsent", JOB, {BUILD: "1x9 stale _x40 1x60"}, {BUILD: "1x99"}),
    Case("CreditstreamInstanceDown", A, {f"up{{{ONE}}}": "1x9 0x30 1x60", f"up{{{TWO}}}": "1x99"},
         {f"up{{{ONE}}}": "1x20 0x1 1x60"}),
    Case("CreditstreamInstanceRestarting", A, {START: "0x9 600x3 840x3 1080x99"}, {START: "0x9 600x3 840x99"}),
    Case("CreditstreamPipelineStalled", JOB, {LAG: "0x9 5x30 0x60", COMMIT: "0+60x9 540x200"},
         {COMMIT: "-60+60x99"}, also=[{COMMIT: "-61+60x99", LAG: "0x9 1x30 0x60"}],
         never=[{LAG: "0x99"}, {COMMIT: "540x99", metric("last_commit_timestamp_seconds", where=TWO): "0+60x99"}],
         why="without anything waiting it is idle, and one instance that commits is enough"),
    Case("CreditstreamLedgerLag", {**JOB, "topic": "generation.events"}, {AGE: BUMP.format(61)},
         {AGE: BUMP.format(60)}),
    Case("CreditstreamEventToBalanceFastBurn", JOB, late(0.15, 120, 200), late(0.14, 120, 200),
         quiet_at="1m", fires_at="110m", resolves_at="140m",
         never=[late(0.3, 90, 200), {metric("event_to_balance_seconds_count"): "0+0.1x200",
                                     metric("event_to_balance_seconds_bucket", 'le="1"'): "0x200"}],
         why="what is over wakes nobody, nor do six late events in an hour"),
    Case("CreditstreamEventToBalanceBurn", JOB, late(0.07, 120, 80), late(0.05, 120, 80),
         quiet_at="5m", fires_at="500m", resolves_at="700m", step="5m", never=[late(0.15, 84, 200)]),
    Case("CreditstreamEventToBalanceSlowBurn", JOB, late(0.04, 400, 80), late(0.02, 400, 80),
         quiet_at="5m", fires_at="1900m", resolves_at="2200m", step="5m", never=[late(0.1, 340, 200)]),
    Case("CreditstreamEventToBalanceCreep", JOB, late(0.02, 1000, 180), late(0.009, 1000, 180),
         quiet_at="5m", fires_at="4900m", resolves_at="5800m", step="5m", never=[late(0.05, 880, 400)]),
    Case("CreditstreamDriftFound", BETWEEN, {metric("drift_credits", 'between="source_ledger"'): BUMP.format(-1),
                                             metric("drift_records", 'between="source_ledger"'): "0x99"},
         {metric("drift_credits", 'between="source_ledger"'): "0x99"},
         also=[{metric("drift_credits", 'between="source_ledger"'): "0x99",
                metric("drift_records", 'between="source_ledger"'): BUMP.format(1)}]),
    Case("CreditstreamDriftNotChecked", BETWEEN, {CHECKED: "600x100 6000x60", START: "0x200"}, {CHECKED: "0+60x200"},
         quiet_at="50m", fires_at="90m", resolves_at="110m", never=[{CHECKED: "0x200", START: "3600x200"}],
         why="an instance that has just started owes no comparison yet"),
    Case("CreditstreamDriftCheckAbsent", JOB, {BUILD: "1x200", CHECKED: "_x60 0x100"}, {CHECKED: "0x200"},
         quiet_at="20m", fires_at="50m"),
    Case("CreditstreamQuarantineRate", JOB, {CHARGED: "0+100x300", HANDED: "0+9000x300", BAD: up_then_flat(1.2)},
         {BAD: up_then_flat(0.9)}, never=[{CHARGED: "0x300", BAD: up_then_flat(0.5)}],
         why="what was handed over is decided elsewhere, and a few records are no rate"),
    Case("CreditstreamQuarantineFlood", JOB, {CHARGED: "0+100x300", BAD: up_then_flat(22)}, {BAD: up_then_flat(19)}),
    Case("CreditstreamTransactionsFailing", JOB, {COMMITTED: "0+20x300", ABORTED: up_then_flat(3), FENCED: "0x300"},
         {ABORTED: up_then_flat(2)}, never=[{COMMITTED: "0x300", ABORTED: up_then_flat(0.4)}]),
    Case("CreditstreamTransactionsFenced", JOB, {FENCED: up_then_flat(0.3)}, {FENCED: up_then_flat(0.19)}),
    Case("CreditstreamSinkBehind", JOB, {SINK_LAG: BUMP.format(60000), SINK_LAG_TWO: BUMP.format(40001)},
         {SINK_LAG_TWO: BUMP.format(40000)}),
    Case("CreditstreamSinkStalled", JOB, {SINK_LAG: "0x9 1x40 0x60", ROWS: "0+5x9 45x40 45+5x60"},
         {ROWS: "0+5x200"}, never=[{SINK_LAG: "0x200", ROWS: "0x200"}]),
    Case("CreditstreamClickHouseErrors", {**JOB, "kind": "timeout"},
         {metric("clickhouse_errors_total", 'kind="timeout"'): up_then_flat(0.6)},
         {metric("clickhouse_errors_total", 'kind="timeout"'): up_then_flat(0.5)}),
    Case("CreditstreamLedgerAbsent", JOB, {OWNED: "12x9 stale", OWNED_TWO: "0x39 1x60"}, {OWNED_TWO: "0x9 1x60"},
         also=[{OWNED: "0x99"}], resolves_at="45m", why="whether the ledger's target is gone, or never owned anything"),
    Case("CreditstreamShardsUnowned", JOB,
         {SHARDS: "12x200", OWNED: "6x200", OWNED_TWO: "6x99 stale _x30 6x100", metric("shards", where="job=\"creditstream\", instance=\"sink\""): "0x200"},
         {OWNED: "6x98 6x1 12x99", OWNED_TWO: "6x98 12x2 stale"},
         quiet_at="99m", fires_at="120m", resolves_at="140m", why="shards that move are unowned for moments only"),
    Case("CreditstreamShardsUnowned", JOB, {SHARDS: "2x200", OWNED: "1x50 2x200"}, {OWNED: "2x200"},
         quiet_at="4m", fires_at="30m", resolves_at="60m", why="nobody has ever owned the second one"),
    Case("CreditstreamShardStopped", {**JOB, "shard": "3", "reason": "contradiction"},
         {metric("shard_stopped", 'shard="3", reason="contradiction"'): "_x9 1x30 stale"},
         {metric("shard_stopped", 'shard="3", reason="contradiction"'): "_x99"},
         also=[{metric("shard_stopped", 'shard="3", reason="contradiction"', TWO): "_x9 1x30 stale"}]),
    Case("CreditstreamRestoreSlow", A, {RESTORES: "_x9 12x200", QUICK: "_x9 11x200", START: "_x9 600x200"},
         {QUICK: "_x9 12x200"}, why="it is there at the first scrape already, where increase() sees nothing"),
    Case("CreditstreamRestoreSlow", A, {RESTORES: "12x300", QUICK: "11x300", START: "0x100 6060x200"}, quiet_at="90m",
         fires_at="150m", resolves_at="165m", why="as many as before the restart, but of now"),
    Case("CreditstreamWebhookFailing", HOOK, {SENT: "0+1x300", REFUSED: up_then_flat(1.2)}, {REFUSED: up_then_flat(0.9)},
         never=[{SENT: "0x300", REFUSED: up_then_flat(0.3)}]),
    Case("CreditstreamWebhookOld", HOOK, {PENDING: BUMP.format(901)}, {PENDING: BUMP.format(900)}),
    Case("CreditstreamWebhookNearlyDead", HOOK, {PENDING: BUMP.format(172801)}, {PENDING: BUMP.format(172800)}),
    Case("CreditstreamWebhookGone", HOOK, {GONE: "0x9 1x30 0x60"}, {GONE: "0x99", REFUSED: "5x99", DEAD_LETTERS: "5x99"}),
    Case("CreditstreamWebhookDead", HOOK, {DEAD_LETTERS: "0x9 1x200"}, {DEAD_LETTERS: "0x300", REFUSED: up_then_flat(1)}),
    Case("CreditstreamWebhookDead", HOOK, {DEAD_LETTERS: "_x9 1x200"},
         {DEAD_LETTERS: "_x9 0x200"}, why="it is there at the first scrape already"),
    Case("CreditstreamWebhookDead", HOOK, {DEAD_LETTERS: "5x99 6x200"}, {DEAD_LETTERS: "5x65 _x20 5x200"}, quiet_at="99m",
         fires_at="142m", resolves_at="170m", why="a gap in the scrapes is no news"),
    Case("CreditstreamWebhookPassedOver", HOOK, {PASSED_OVER: "_x9 5x2000", START: "_x9 540x2000"}, {PASSED_OVER: "_x9 0x2000"},
         resolves_at="1450m", why="a day after the start it is known"),
    Case("CreditstreamDispatcherAbsent", JOB, {RAISED: "0+1x20 20x200", PENDING: "0x9 stale _x50 0x99"}, {PENDING: "0x99"},
         quiet_at="18m", fires_at="25m", never=[{RAISED: "20x200"}, {PENDING: "_x200"}],
         why="without alerts none is missed, nor by a deployment that never had a dispatcher"),
]

CASES = [*CUSTOMERS, *DEAD, *SERVICE]

# A deployment that works and has nothing to do: no alert may fire.
IDLE = {
    BUILD: "1x300", f"up{{{ONE}}}": "1x300", START: "0x300", COMMIT: "0x300", SHARDS: "12x300", OWNED: "12x300",
    LAG: "0x300", AGE: "0x300", SINK_LAG: "0x300", ROWS: "0x300", CHARGED: "0x300", BAD: "0x300",
    COMMITTED: "0x300", ABORTED: "0x300", FENCED: "0x300", RESTORES: "12x300", QUICK: "12x300",
    metric("event_to_balance_seconds_count"): "0x300", metric("event_to_balance_seconds_bucket", 'le="1"'): "0x300",
    metric("credits_total", 'flow="charged"'): "0x300", metric("clickhouse_errors_total", 'kind="timeout"'): "0x300",
    CHECKED: "0+60x300", metric("drift_credits", 'between="source_ledger"'): "0x300",
    metric("drift_records", 'between="source_ledger"'): "0x300", metric("wallet_series_omitted"): "0x300",
    SENT: "0x300", REFUSED: "0x300", PENDING: "0x300", GONE: "0x300", DEAD_LETTERS: "0x300", PASSED_OVER: "0x300", RAISED: "3x300",
    wallets("ok"): "9x300", wallets("exhausted"): "0x300", wallets("exhausted", "none"): "4x300",
}
# Counters that begin at 0 again, as after a restart, are no errors and no burn.
RESTARTED = {**IDLE, CHARGED: "0+100x150 0+100x150", COMMITTED: "0+50x150 0+50x150", ABORTED: "40x150 0x150",
             BAD: "500x150 0x150", metric("clickhouse_errors_total", 'kind="timeout"'): "90x150 0x150",
             metric("credits_total", 'flow="charged"'): "0+100x150 0+100x150",
             metric("event_to_balance_seconds_count"): "0+100x150 0+100x150",
             metric("event_to_balance_seconds_bucket", 'le="1"'): "0+100x150 0+100x150",
             START: "0x150 9060x150"}
