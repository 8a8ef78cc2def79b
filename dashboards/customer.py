"""Customer: one wallet, for whoever talks to the customer."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard

import shell
from panels import (COUNT, CREDITS, DAYS, GREEN, MODEL, NO_UNIT, ORANGE, PURPLE, RED, WALLET, YELLOW, bar_list, chart,
                    level_mapping, listing, number, rows, series)

NO_WALLET = "No such wallet, or no entry of it: check the id at the top. A wallet is there once something was posted to it."
NO_CONTRACT = "This wallet has no contract: no month and no allocation."
NO_USE = "Nothing was charged to this wallet in this range."
SECONDS = "s"

BALANCE = f"""
    SELECT toDateTime(day, 'UTC') AS time, balance, overdraft,
    (SELECT allocation FROM plan_utilisation(wallet = {WALLET}, at = $__toTime)) AS allocation
    FROM balance_daily(wallet = {WALLET}, at = $__toTime)
    WHERE $__dateFilter(day)
    ORDER BY time"""

# Every day of the range, also those on which nothing happened. The expiry is the one that is in force now: a
# cancellation moves it.
BURN_DOWN = f"""
    WITH effects AS (
    SELECT toDate(posted_at) AS changed_on, effect.grant_id AS id, sum(effect.credits) AS change
    FROM ledger_entries FINAL ARRAY JOIN grant_effects AS effect
    WHERE wallet_id = {WALLET} AND posted_at <= $__toTime
    GROUP BY changed_on, id
    )
    SELECT toDateTime(d.day, 'UTC') AS time,
    if(isNull(g.expires_at), 'never expires', concat('expires ', toString(toDate(assumeNotNull(g.expires_at))))) AS expiry,
    sum(e.change) AS credits
    FROM (SELECT arrayJoin(arrayMap(i -> toDate($__fromTime, 'UTC') + i, range(toUInt32(1 + dateDiff('day', $__fromTime, $__toTime, 'UTC'))))) AS day) AS d
    CROSS JOIN effects AS e
    LEFT JOIN (SELECT grant_id, expires_at FROM grants FINAL WHERE wallet_id = {WALLET}) AS g ON g.grant_id = e.id
    WHERE e.changed_on <= d.day
    GROUP BY time, expiry ORDER BY time, expiry"""


def charged_by(column: str, condition: str = "1") -> str:
    """Credits charged, most first."""
    return f"""
        SELECT if({column} = '', 'none', {column}) AS name, -sum(credits) AS charged
        FROM wallet_statement(wallet = {WALLET})
        WHERE $__timeFilter(posted_at) AND entry_type = 'charged' AND {condition}
        GROUP BY name ORDER BY charged DESC, name LIMIT 25"""


PER_DAY = f"""
    SELECT toDateTime(day, 'UTC') AS time, if(model = '', 'none', model) AS model_name, sum(credits_charged) AS value
    FROM usage_daily(wallet = {WALLET})
    WHERE $__dateFilter(day) AND {MODEL}
    GROUP BY time, model_name ORDER BY time, model_name"""

STATEMENT = f"""
    SELECT seq, posted_at, entry_type, credits, balance_after, overdraft_after, held_credits, amount, job_id, asset_id,
    asset_type, model, images, video_seconds, rate, user_id, project_id, amount_usd, reason, actor, reference, event_time
    FROM wallet_statement(wallet = {WALLET})
    WHERE $__timeFilter(posted_at)
    ORDER BY seq DESC LIMIT 500"""


def of_month(column: str) -> str:
    return f"SELECT {column} FROM plan_utilisation(wallet = {WALLET}, at = $__toTime)"


def build() -> dashboard.Dashboard:
    made = shell.frame("customer", "One wallet: what it has and how long that lasts, what it was granted and spent, by whom and for "
                       "what, and every posting. From ClickHouse, some seconds behind the ledger.", "now-90d", "1m")
    for variable in (shell.clickhouse_source(), shell.wallet_variable(), shell.model_variable()):
        made.with_variable(variable)
    made.annotations(shell.level_changes(f"wallet_id = {WALLET}"))

    made.with_row(dashboard.Row("Wallet ${wallet} now"))
    level = number("Level", "ok; low: 20 % of the month's allocation or less is available; critical: 5 %; exhausted: nothing; overdrawn: "
                   "the balance is below 0. Without a contract the last top-up stands for the allocation.",
                   rows(f"SELECT level FROM runway(wallet = {WALLET}, at = $__toTime)"), NO_UNIT, NO_WALLET, is_text=True)
    made.with_panel(level.mappings([level_mapping()]))
    made.with_panel(number("Available", "Balance less what running jobs hold, as of the latest entry.",
                           rows(f"SELECT available FROM runway(wallet = {WALLET}, at = $__toTime)"), CREDITS, NO_WALLET,
                           steps=[(None, PURPLE), (0, RED), (1, GREEN)]))
    made.with_panel(number("Runway", "Days that the available credits last at the pace of the 7 whole days before the end of the range. "
                           "A warning is raised below 3.",
                           rows(f"SELECT runway_days FROM runway(wallet = {WALLET}, at = $__toTime)"), DAYS,
                           "Nothing was charged in the last 7 days: there is no pace.", steps=[(None, RED), (3, YELLOW), (7, GREEN)]))
    made.with_panel(number("Used of the month", "Credits charged less refunded in the month of the contract, of what was granted for it; "
                           "percent, rounded down.", rows(of_month("used_percent")), "percent", NO_CONTRACT,
                           steps=[(None, GREEN), (80, YELLOW), (95, ORANGE), (100, RED)]))
    made.with_panel(number("Gone of the month", "How much of the month of the contract is over: to be compared with what is used.",
                           rows(of_month("month_percent")), "percent", NO_CONTRACT))
    made.with_panel(number("Expected by its end", "Credits used by the end of the month if this pace goes on.",
                           rows(of_month("projected")), CREDITS, NO_CONTRACT))

    made.with_row(dashboard.Row("Balance"))
    made.with_panel(chart("Balance and allocation", "Balance at the end of each UTC day, the overdraft in it, and a month's allocation of today's "
                          "contract beside it. By the day of posting: a day that is over never changes.",
                          series(BALANCE), CREDITS, NO_WALLET))
    made.with_panel(chart("Burn-down by expiry", "What is left in grants at the end of each day, stacked by the day on which they expire as it is now. "
                          "Overdraft is not taken off.", series(BURN_DOWN), CREDITS, NO_WALLET, name="expiry", stacked=True))

    made.with_row(dashboard.Row("Usage"))
    made.with_panel(bar_list("By user", "Credits charged in the range by the user who asked; none: the event named nobody.",
                             rows(charged_by("user_id")), CREDITS, NO_USE))
    made.with_panel(bar_list("By project", "Credits charged in the range by project; none: the event named none.",
                             rows(charged_by("project_id")), CREDITS, NO_USE))
    made.with_panel(bar_list("By model", "Credits charged in the range by model; none: the event named none.",
                             rows(charged_by("model", MODEL)), CREDITS, NO_USE))
    made.with_panel(chart("Usage per day by model", "Credits charged by the day on which it happened: may change for 35 days.",
                          series(PER_DAY), CREDITS, NO_USE, name="model_name", bars=True, stacked=True, width=24))

    made.with_row(dashboard.Row("Statement"))
    made.with_panel(listing("Statement", "Every posting in the range, the latest first, 500 at most. `credits` is the effect on the balance; "
                            "`amount` is the size where there is none: the full cost of a refusal, the overdraft repaid.",
                            rows(STATEMENT), "Nothing was posted to this wallet in this range.", height=14,
                            column_units={"seq": COUNT, "credits": CREDITS, "balance_after": CREDITS, "overdraft_after": CREDITS,
                                          "held_credits": CREDITS, "amount": CREDITS, "images": COUNT, "video_seconds": SECONDS,
                                          "rate": "suffix: credits", "amount_usd": "currencyUSD"}))
    return made
