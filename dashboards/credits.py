"""Credits: what the business asks. Who spends what, who runs dry, what comes in, what is owed."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard

import shell
from panels import (COUNT, CREDITS, DAYS, DOLLARS, GREEN, MODEL, NONE_IS_GOOD, ORANGE, PLAN, RED, YELLOW, bar_list, chart,
                    colour_levels, level_column, listing, live, now, number, rows, series, shares, wallet_links)

NOTHING_POSTED = "Nothing was posted for these plans in this range. Is the range right, and does the Pipeline dashboard show a lag?"
NOTHING_USED = "Nothing was used in this range with these plans and models."
NOT_SCRAPED = "Prometheus has no such series in this range: does it scrape creditstream?"
BY_POSTED = " By the day on which the ledger posted it: a day that is over never changes."
BY_EVENT = " By the day on which it happened: may change for 35 days."


def total(column: str) -> str:
    return f"SELECT sum({column}) AS credits FROM credit_flow WHERE $__dateFilter(day) AND {PLAN}"


def by_day_and_plan(value: str, view: str = "credit_flow") -> str:
    """One series a plan."""
    return f"""
        SELECT toDateTime(day, 'UTC') AS time, if(plan = '', 'none', plan) AS plan_name, sum({value}) AS value
        FROM {view}
        WHERE $__dateFilter(day) AND {PLAN}
        GROUP BY time, plan_name ORDER BY time, plan_name"""


UTILISATION = f"""
    SELECT plan_name, intDivOrZero(100 * used, granted) AS percent
    FROM (
    SELECT if(plan = '', 'none', plan) AS plan_name, sum(credits_charged - credits_reversed) AS used,
    sum(credits_granted - topup_credits) AS granted
    FROM (
    SELECT plan, credits_charged, credits_reversed, credits_granted, 0 AS topup_credits FROM credit_flow WHERE $__dateFilter(day)
    UNION ALL
    SELECT plan, 0, 0, 0, credits FROM topup_revenue WHERE $__dateFilter(day)
    )
    WHERE {PLAN}
    GROUP BY plan_name
    )
    WHERE granted > 0
    ORDER BY plan_name"""

# Grouping all entries with FINAL takes seconds. What is stored twice until a merge can only change who is among the
# hundred that are looked at; their sums are exact. ClickHouse works out candidates wherever they are named: name them once.
SPENDERS = f"""
    WITH candidates AS (
    SELECT wallet_id FROM ledger_entries
    WHERE $__timeFilter(posted_at) AND entry_type = 'charged' AND {PLAN} AND {MODEL}
    GROUP BY wallet_id ORDER BY sum(credits), wallet_id LIMIT 100
    )
    SELECT s.wallet_id AS wallet_id, s.charged AS charged, s.jobs AS jobs, w.plan AS plan_now, w.level AS level, w.available AS available
    FROM (
    SELECT wallet_id, -sum(credits) AS charged, uniqExact(job_id) AS jobs
    FROM ledger_entries FINAL
    WHERE wallet_id IN candidates AND $__timeFilter(posted_at) AND entry_type = 'charged' AND {PLAN} AND {MODEL}
    GROUP BY wallet_id ORDER BY charged DESC, wallet_id LIMIT 25
    ) AS s
    LEFT JOIN (SELECT wallet_id, plan, level, available FROM wallets FINAL) AS w ON w.wallet_id = s.wallet_id
    ORDER BY charged DESC, wallet_id"""

EXHAUSTED = f"""
    SELECT wallet_id, level, if(plan = '', 'none', plan) AS plan_name, available, allocation, updated_at
    FROM wallets FINAL
    WHERE level IN ('exhausted', 'overdrawn') AND (plan != '' OR overdraft > 0) AND {PLAN}
    ORDER BY available, wallet_id LIMIT 100"""

EXPIRING = """
    SELECT wallet_id, grant_id, kind, credits_granted, credits_remaining, expires_at, days_left
    FROM expiring_credits(days = ${expire_days:raw}, at = $__toTime)
    ORDER BY expires_at, wallet_id, grant_id LIMIT 100"""

OUTSTANDING = """
    SELECT toDateTime(day, 'UTC') AS time, outstanding
    FROM (SELECT day, sum(sum(balance_change)) OVER (ORDER BY day) AS outstanding FROM credit_flow GROUP BY day)
    WHERE $__dateFilter(day)
    ORDER BY time"""

REVENUE = f"SELECT sum(revenue_usd) AS usd FROM topup_revenue WHERE $__dateFilter(day) AND {PLAN}"


def usage_by(column: str) -> str:
    """One series a value of the column."""
    return f"""
        SELECT toDateTime(day, 'UTC') AS time, {column}, sum(credits_charged) AS value
        FROM usage_daily_all
        WHERE $__dateFilter(day) AND {PLAN} AND {MODEL}
        GROUP BY time, {column} ORDER BY time, {column}"""


MODEL_MIX = f"""
    SELECT if(model = '', 'none', model) AS model_name, sum(credits_charged) AS credits
    FROM usage_daily_all
    WHERE $__dateFilter(day) AND {PLAN} AND {MODEL}
    GROUP BY model_name HAVING credits > 0 ORDER BY credits DESC, model_name"""

REFUNDS = f"""
    SELECT toDateTime(day, 'UTC') AS time, sum(credits_reversed) AS refunded, sum(credits_refused) AS refused, sum(credits_expired) AS expired
    FROM credit_flow
    WHERE $__dateFilter(day) AND {PLAN}
    GROUP BY time ORDER BY time"""

OF_PLANS = 'plan=~"${plan:regex}"'


def build() -> dashboard.Dashboard:
    made = shell.frame("credits", "What the business asks: credits charged and granted, who runs dry, what top-ups bring in, "
                       "what is still owed to customers. History is from ClickHouse, the counts of wallets from Prometheus.",
                       "now-30d", "1m")
    for variable in (shell.prometheus_source(), shell.clickhouse_source(), shell.plan_variable(), shell.model_variable(),
                     shell.days_variable()):
        made.with_variable(variable)
    made.annotations(shell.level_changes(PLAN))

    made.with_row(dashboard.Row("In this range"))
    made.with_panel(number("Credits charged", "Credits that generations cost, before refunds." + BY_POSTED,
                           rows(total("credits_charged")), CREDITS, NOTHING_POSTED))
    made.with_panel(number("Credits granted", "Credits that plans and top-ups brought." + BY_POSTED,
                           rows(total("credits_granted")), CREDITS, NOTHING_POSTED))
    made.with_panel(number("Credits refunded", "Charges that were given back." + BY_POSTED,
                           rows(total("credits_reversed")), CREDITS, NOTHING_POSTED))
    made.with_panel(number("Top-up revenue", "What top-ups cost the customers who bought them." + BY_POSTED,
                           rows(REVENUE), DOLLARS, NOTHING_POSTED))
    made.with_panel(number("Credits outstanding", "What all wallets together may still use, less overdraft, at the end of the last day "
                           "of the range. Of all plans: credits that expire with a contract stand under none.",
                           rows("SELECT balance FROM credits_outstanding(day = toDate($__toTime, 'UTC'))"), CREDITS, NOTHING_POSTED))
    made.with_panel(number("Wallets exhausted now", "Wallets with a contract that have nothing available, or are overdrawn. Live.",
                           now(f'sum(creditstream_wallets{{level=~"exhausted|overdrawn", plan!="none", {OF_PLANS}}})'), COUNT,
                           NOT_SCRAPED, steps=NONE_IS_GOOD))

    made.with_row(dashboard.Row("Day by day"))
    made.with_panel(chart("Charged per day by plan", "Credits charged a day, by the plan in force; none: without a contract." + BY_POSTED,
                          series(by_day_and_plan("credits_charged")), CREDITS, NOTHING_POSTED, name="plan_name", bars=True, stacked=True))
    made.with_panel(chart("Granted per day by plan", "Credits that plans and top-ups brought a day, by the plan in force." + BY_POSTED,
                          series(by_day_and_plan("credits_granted")), CREDITS, NOTHING_POSTED, name="plan_name", bars=True, stacked=True))
    made.with_panel(chart("Charged per day by asset", "Credits charged a day for images and for video." + BY_EVENT,
                          series(usage_by("asset_type")), CREDITS, NOTHING_USED, name="asset_type", bars=True, stacked=True))
    made.with_panel(chart("Refunds, refusals and expiry", "Credits given back, refused (never drawn) and expired unused, a day." + BY_POSTED,
                          series(REFUNDS), CREDITS, NOTHING_POSTED, bars=True))

    made.with_row(dashboard.Row("Plans and models"))
    made.with_panel(bar_list("Utilisation by plan", "Credits used (charged less refunded) of those that the plan granted in the range, "
                             "percent, rounded down. Over 100: earlier credits or top-ups paid too. Choose whole months." + BY_POSTED,
                             rows(UTILISATION), "percent", "No plan granted anything in this range: choose a longer one.",
                             steps=[(None, RED), (20, ORANGE), (50, YELLOW), (80, GREEN)], maximum=100))
    made.with_panel(shares("Model mix", "Credits charged by model." + BY_EVENT, rows(MODEL_MIX), CREDITS, NOTHING_USED))
    made.with_panel(colour_levels(chart(
        "Wallets by level", "Wallets that have a contract, by level: low is 20 % of the month's allocation or less, critical 5 %. Live.",
        live(f'sum by (level) (creditstream_wallets{{plan!="none", {OF_PLANS}}})', "{{level}}"), COUNT, NOT_SCRAPED,
        stacked=True, width=8)))

    made.with_row(dashboard.Row("Wallets"))
    made.with_panel(wallet_links(level_column(listing(
        "Top spenders", "The 25 wallets that were charged most in the range, with what they have now." + BY_POSTED, rows(SPENDERS),
        NOTHING_POSTED, column_units={"charged": CREDITS, "jobs": COUNT, "available": CREDITS}, width=12, height=9))))
    made.with_panel(wallet_links(level_column(listing(
        "Exhausted now", "Wallets without available credits, those deepest in overdraft first. As of the latest entry of each.",
        rows(EXHAUSTED), "No wallet of these plans is exhausted.",
        column_units={"available": CREDITS, "allocation": CREDITS}, width=12, height=9))))
    made.with_panel(wallet_links(listing(
        "Expiring soon", "Credits that expire within the chosen days after the end of the range, unless they are used. What is left is the latest.",
        rows(EXPIRING), "No credits expire within these days.",
        column_units={"credits_granted": CREDITS, "credits_remaining": CREDITS, "days_left": DAYS}, height=9)))

    made.with_row(dashboard.Row("Live"))
    made.with_panel(chart("Credits a minute", "Credits that flow a minute, by flow. Of all plans. Live.",
                          live("60 * sum by (flow) (rate(creditstream_credits_total[$__rate_interval])) > 0", "{{flow}}"), CREDITS,
                          "Nothing was posted in this range, or Prometheus does not scrape creditstream."))
    made.with_panel(colour_levels(chart(
        "Alerts", "Alerts raised, by the level that the wallet then had: a level changed, credits end or expire soon, and others. Of all plans. Live.",
        live("sum by (level) (increase(creditstream_alerts_total[$__rate_interval]))", "{{level}}"), COUNT, NOT_SCRAPED, bars=True, stacked=True)))

    made.with_row(dashboard.Row("Money"))
    made.with_panel(chart("Top-up revenue per day", "What top-ups cost, by plan, a day." + BY_POSTED,
                          series(by_day_and_plan("revenue_usd", "topup_revenue")), DOLLARS,
                          "No top-ups were bought in this range.", name="plan_name", bars=True, stacked=True))
    made.with_panel(chart("Credits outstanding by day", "What all wallets together may still use, less overdraft, at the end of each day on which "
                          "something was posted. Of all plans." + BY_POSTED, series(OUTSTANDING), CREDITS, NOTHING_POSTED))
    return made
