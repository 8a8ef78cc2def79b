"""The frame of a dashboard: its variables, its links to the others, its annotations."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.cog import builder as cog
from grafana_foundation_sdk.models import dashboard as models

from panels import CLICKHOUSE, LEVELS, PROMETHEUS, SqlAnnotationBuilder, SqlBuilder

TITLES = {"credits": "Credits", "customer": "Customer", "pipeline": "Pipeline", "quality": "Data quality"}
TAG = "creditstream"


def frame(name: str, description: str, begin: str, refresh: str) -> dashboard.Dashboard:
    """A dashboard without panels. Days are those of UTC, as in ClickHouse."""
    made = dashboard.Dashboard(f"creditstream / {TITLES[name]}").uid(f"creditstream-{name}").description(description)
    made.tags([TAG]).timezone("utc").time(begin, "now").refresh(refresh).readonly()
    made.tooltip(models.DashboardCursorSync.CROSSHAIR)
    for other, title in TITLES.items():
        if other != name:
            made.link(dashboard.DashboardLink(title).type(models.DashboardLinkType.LINK).url(f"/d/creditstream-{other}")
                      .keep_time(True).include_vars(True).icon("dashboard").tooltip(f"The same range in {title}"))
    return made


def source_variable(kind: str, plugin: str, label: str) -> dashboard.DatasourceVariable:
    return dashboard.DatasourceVariable(kind).type(plugin).label(label).description(f"The data source of kind {label} to ask")


def prometheus_source() -> dashboard.DatasourceVariable:
    return source_variable("prometheus", "prometheus", "Prometheus")


def clickhouse_source() -> dashboard.DatasourceVariable:
    return source_variable("clickhouse", "grafana-clickhouse-datasource", "ClickHouse")


def many(name: str, label: str, description: str, sql: str) -> dashboard.QueryVariable:
    """Any number of values, at first all."""
    every = models.VariableOption(selected=True, text="All", value="$__all")
    made = dashboard.QueryVariable(name).label(label).description(description).datasource(CLICKHOUSE)
    made.query(SqlBuilder(sql).query.to_json()).refresh(models.VariableRefresh.ON_DASHBOARD_LOAD)
    # In Prometheus every value matches; in ClickHouse $__conditionalAll leaves the condition out.
    return made.multi(True).include_all(True).all_value(".*").current(every)


def plan_variable() -> dashboard.QueryVariable:
    return many("plan", "Plan", "Plan in force at the time of the event; none: without a contract",
                "SELECT DISTINCT if(plan = '', 'none', plan) AS plan_name FROM credit_flow ORDER BY plan_name")


def model_variable() -> dashboard.QueryVariable:
    return many("model", "Model", "Model that made it; none: the event named none",
                "SELECT DISTINCT if(model = '', 'none', model) AS model_name FROM usage_daily_all ORDER BY model_name")


def wallet_variable() -> dashboard.QueryVariable:
    made = dashboard.QueryVariable("wallet").label("Wallet").datasource(CLICKHOUSE)
    made.description("The 1,000 wallets that changed last are listed; type the id of any other")
    sql = SqlBuilder("SELECT wallet_id FROM wallets FINAL ORDER BY updated_at DESC, wallet_id LIMIT 1000")
    made.query(sql.query.to_json()).refresh(models.VariableRefresh.ON_DASHBOARD_LOAD)
    return made.multi(False).include_all(False).allow_custom_value(True)


def days_variable() -> dashboard.CustomVariable:
    made = dashboard.CustomVariable("expire_days").label("Expiring within days").values("1,7,30,90,365")
    made.description("How far ahead credits that expire are listed")
    return made.multi(False).include_all(False).current(models.VariableOption(selected=True, text="30", value="30"))


def job_variable() -> dashboard.QueryVariable:
    made = dashboard.QueryVariable("job").label("Job").datasource(PROMETHEUS)
    made.description("One deployment: the scrape job of its instances")
    made.query({"query": "label_values(creditstream_build_info, job)", "refId": "job"})
    return made.refresh(models.VariableRefresh.ON_DASHBOARD_LOAD).multi(False).include_all(False)


def level_changes(condition: str) -> list[cog.Builder[models.AnnotationQuery]]:
    """Marks where a wallet's level changed, in the colour of the level that it came to."""
    return [
        dashboard.AnnotationQuery().name(f"Level: {level}").datasource(CLICKHOUSE).enable(level != "ok").icon_color(colour)
        .target(SqlAnnotationBuilder(f"""
            SELECT raised_at AS time, concat(wallet_id, ': ', level_before, ' to ', level, ', ', toString(available), ' credits available') AS text,
            level AS tags
            FROM alerts FINAL
            WHERE $__timeFilter(raised_at) AND kind = 'level' AND level = '{level}' AND {condition}
            ORDER BY time DESC LIMIT 200"""))
        for level, colour in LEVELS.items()]
