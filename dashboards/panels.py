"""What the dashboards share: data sources, the colours of the levels, variables, and panels of each kind.

Every panel has a title, a description, a unit and a text for when there is nothing to show: no function here makes one
without. Credits are integers and never shortened (no "1.2 K").
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from grafana_foundation_sdk.builders import bargauge, common, dashboard, piechart, prometheus, stat, table, timeseries
from grafana_foundation_sdk.cog import builder as cog
from grafana_foundation_sdk.cog import variants
from grafana_foundation_sdk.models import common as common_models
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models import piechart as piechart_models
from grafana_foundation_sdk.models import units

PROMETHEUS = common_models.DataSourceRef(type_val="prometheus", uid="${prometheus}")
CLICKHOUSE = common_models.DataSourceRef(type_val="grafana-clickhouse-datasource", uid="${clickhouse}")
# The plugin that the queries are written for; docker/compose.yaml installs it.
CLICKHOUSE_PLUGIN = "4.21.2"

GREEN, YELLOW, ORANGE, RED, PURPLE, GREY = "green", "yellow", "orange", "red", "purple", "text"
LEVELS = {"ok": GREEN, "low": YELLOW, "critical": ORANGE, "exhausted": RED, "overdrawn": PURPLE}

# Units that Grafana has no name for stand behind the number as they are.
CREDITS, COUNT, DAYS, DOLLARS = units.LocaleFormat, units.LocaleFormat, "suffix: days", "currencyUSD"
# Where a column is text or a time.
NO_UNIT = units.NoUnit

# Lower bounds of values, and their colours.
Steps = Sequence[tuple[float | None, str]]
PLAIN: Steps = [(None, GREY)]
NONE_IS_GOOD: Steps = [(None, GREEN), (1, RED)]

PLAN = "$__conditionalAll(if(plan = '', 'none', plan) IN (${plan:singlequote}), $plan)"
MODEL = "$__conditionalAll(if(model = '', 'none', model) IN (${model:singlequote}), $model)"
WALLET = "${wallet:singlequote}"

Panel = TypeVar("Panel", timeseries.Panel, stat.Panel, table.Panel, bargauge.Panel, piechart.Panel)


class Sql(variants.Dataquery):
    """A query as grafana-clickhouse-datasource reads it; the SDK has no type for it."""

    def __init__(self, sql: str, is_series: bool) -> None:
        self.sql, self.is_series = sql, is_series

    def to_json(self) -> dict[str, object]:
        return {"refId": "A", "datasource": CLICKHOUSE, "editorType": "sql", "pluginVersion": CLICKHOUSE_PLUGIN,
                "queryType": "timeseries" if self.is_series else "table", "format": 0 if self.is_series else 1,
                "rawSql": self.sql}


class SqlBuilder(cog.Builder[variants.Dataquery]):
    def __init__(self, sql: str, is_series: bool = False) -> None:
        self.query = Sql("\n".join(line.strip() for line in sql.strip().splitlines()), is_series)

    def build(self) -> variants.Dataquery:
        return self.query


class SqlAnnotation(models.AnnotationTarget):
    """The SDK knows only Grafana's own annotations."""

    def __init__(self, sql: str) -> None:
        super().__init__()
        self.query = SqlBuilder(sql).query

    def to_json(self) -> dict[str, object]:
        return self.query.to_json()


class SqlAnnotationBuilder(cog.Builder[models.AnnotationTarget]):
    def __init__(self, sql: str) -> None:
        self.target = SqlAnnotation(sql)

    def build(self) -> models.AnnotationTarget:
        return self.target


def rows(sql: str) -> list[cog.Builder[variants.Dataquery]]:
    """A query whose answer is a table."""
    return [SqlBuilder(sql)]


def series(sql: str) -> list[cog.Builder[variants.Dataquery]]:
    """A query for a chart: `time`, then maybe a name, then values."""
    return [SqlBuilder(sql, is_series=True)]


def live(expression: str, legend: str = "") -> list[cog.Builder[variants.Dataquery]]:
    """A query to Prometheus over the range."""
    return lives((expression, legend))


def lives(*expressions: tuple[str, str]) -> list[cog.Builder[variants.Dataquery]]:
    """Several of them, each with its legend."""
    return [prometheus.Dataquery().expr(expression).range().legend_format(legend or "__auto").ref_id(ref_id)
            .datasource(PROMETHEUS) for ref_id, (expression, legend) in zip("ABCDEFG", expressions)]


def now(expression: str, legend: str = "") -> list[cog.Builder[variants.Dataquery]]:
    """A query to Prometheus for the end of the range only."""
    return [prometheus.Dataquery().expr(expression).instant().legend_format(legend or "__auto").ref_id("A")
            .datasource(PROMETHEUS)]


def thresholds(steps: Steps) -> dashboard.ThresholdsConfig:
    made = [models.Threshold(value=value, color=colour) for value, colour in steps]
    return dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(made)


def dressed(panel: Panel, title: str, description: str, queries: list[cog.Builder[variants.Dataquery]], unit: str,
            empty: str, width: int, height: int) -> Panel:
    """What every panel has."""
    source = CLICKHOUSE if isinstance(queries[0], SqlBuilder) else PROMETHEUS
    panel.title(title).description(description).datasource(source).targets(queries)
    panel.unit(unit).no_value(empty).span(width).height(height)
    if unit in (CREDITS, COUNT):
        panel.decimals(0)
    return panel


def number(title: str, description: str, queries: list[cog.Builder[variants.Dataquery]], unit: str, empty: str, *,
           steps: Steps = PLAIN, width: int = 4, height: int = 4, is_text: bool = False) -> stat.Panel:
    """One figure, coloured by its thresholds."""
    panel = dressed(stat.Panel(), title, description, queries, unit, empty, width, height)
    fields = "/.*/" if is_text else ""
    panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).fields(fields))
    panel.graph_mode(common_models.BigValueGraphMode.NONE).color_mode(common_models.BigValueColorMode.VALUE)
    return panel.thresholds(thresholds(steps))


def chart(title: str, description: str, queries: list[cog.Builder[variants.Dataquery]], unit: str, empty: str, *,
          name: str = "", bars: bool = False, stacked: bool = False, width: int = 12, height: int = 8,
          steps: Steps | None = None) -> timeseries.Panel:
    """Values over time. name: the label that tells the series of a ClickHouse query apart. bars: one a day."""
    panel = dressed(timeseries.Panel(), title, description, queries, unit, empty, width, height)
    panel.show_points(common_models.VisibilityMode.NEVER).fill_opacity(80 if bars else 15 if not stacked else 50)
    panel.line_width(0 if bars else 1).axis_soft_min(0)
    panel.draw_style(common_models.GraphDrawStyle.BARS if bars else common_models.GraphDrawStyle.LINE)
    panel.tooltip(common.VizTooltipOptions().mode(common_models.TooltipDisplayMode.MULTI).sort(common_models.SortOrder.DESCENDING))
    panel.legend(common.VizLegendOptions().display_mode(common_models.LegendDisplayMode.LIST)
                 .placement(common_models.LegendPlacement.BOTTOM).show_legend(True).calcs([]))
    if name:
        panel.display_name("${__field.labels." + name + "}")
    if stacked:
        panel.stacking(common.StackingConfig().mode(common_models.StackingMode.NORMAL).group("A"))
    if steps:
        panel.thresholds(thresholds(steps))
        panel.thresholds_style(common.GraphThresholdsStyleConfig().mode(common_models.GraphThresholdsStyleMode.DASHED))
    return panel


def listing(title: str, description: str, queries: list[cog.Builder[variants.Dataquery]], empty: str, *,
            column_units: dict[str, str], width: int = 24, height: int = 8) -> table.Panel:
    """A table; the unit of each numeric column is given by its name."""
    panel = dressed(table.Panel(), title, description, queries, NO_UNIT, empty, width, height)
    panel.cell_height(common_models.TableCellHeight.SM).filterable(True)
    for column, unit in column_units.items():
        places = [models.DynamicConfigValue("decimals", 0)] if unit in (CREDITS, COUNT) else []
        panel.override_by_name(column, [models.DynamicConfigValue("unit", unit), *places])
    return panel


def bar_list(title: str, description: str, queries: list[cog.Builder[variants.Dataquery]], unit: str, empty: str, *,
             steps: Steps = PLAIN, width: int = 8, height: int = 8, maximum: float | None = None) -> bargauge.Panel:
    """A bar a row: its name is the text, its length the number."""
    panel = dressed(bargauge.Panel(), title, description, queries, unit, empty, width, height)
    panel.reduce_options(common.ReduceDataOptions().values(True).calcs(["lastNotNull"]).fields("").limit(25))
    panel.orientation(common_models.VizOrientation.HORIZONTAL).display_mode(common_models.BarGaugeDisplayMode.BASIC)
    panel.show_unfilled(True).min(0)
    if maximum is not None:
        panel.max(maximum)
    return panel.thresholds(thresholds(steps))


def shares(title: str, description: str, queries: list[cog.Builder[variants.Dataquery]], unit: str, empty: str, *,
           width: int = 8, height: int = 8) -> piechart.Panel:
    """Parts of a whole: a slice a row."""
    panel = dressed(piechart.Panel(), title, description, queries, unit, empty, width, height)
    panel.reduce_options(common.ReduceDataOptions().values(True).calcs(["lastNotNull"]).fields(""))
    panel.pie_type(piechart_models.PieChartType.DONUT)
    legend = piechart.PieChartLegendOptions().display_mode(common_models.LegendDisplayMode.TABLE)
    legend.placement(common_models.LegendPlacement.RIGHT).show_legend(True)
    legend.values([piechart_models.PieChartLegendValues.VALUE, piechart_models.PieChartLegendValues.PERCENT])
    return panel.legend(legend)


def colour_levels(panel: timeseries.Panel) -> timeseries.Panel:
    """Series that are named for levels have their colours, in their order."""
    for level, colour in LEVELS.items():
        fixed = {"mode": "fixed", "fixedColor": colour}
        panel.override_by_name(level, [models.DynamicConfigValue("color", fixed)])
    return panel


def level_mapping() -> models.ValueMap:
    """The name of a level in its colour."""
    return models.ValueMap(options={
        level: models.ValueMappingResult(color=colour, index=index) for index, (level, colour) in enumerate(LEVELS.items())})


def level_column(panel: table.Panel) -> table.Panel:
    """Column `level` in the colours of the levels, and wallets that lead to their own dashboard."""
    cell = models.DynamicConfigValue("custom.cellOptions", {"type": "color-text"})
    return panel.override_by_name("level", [models.DynamicConfigValue("mappings", [level_mapping()]), cell])


def wallet_links(panel: table.Panel) -> table.Panel:
    """Column `wallet_id` leads to the wallet's dashboard, with the same range."""
    link = {"title": "Show this wallet", "url": "/d/creditstream-customer?var-wallet=${__value.raw:percentencode}&${__url_time_range}"}
    return panel.override_by_name("wallet_id", [models.DynamicConfigValue("links", [link])])
