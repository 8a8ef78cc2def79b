"""Grafana's part of a query: variables and macros replaced, as Grafana and its ClickHouse plugin document it.

The plugin's macros are those of its page "ClickHouse query editor"; the order is its own too: conditions that depend on
a variable, then variables, then macros. What is not in the tables here is an error, so that no dashboard uses more.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timezone

Value = str | list[str]
ALL = "$__all"


@dataclass(frozen=True)
class Context:
    """What the page knows when it asks. A variable's value is a text, a list, or ALL."""

    begin: datetime
    end: datetime
    variables: dict[str, Value] = field(default_factory=dict)
    # What a variable stands for outside $__conditionalAll while all are chosen.
    all_values: dict[str, str] = field(default_factory=dict)
    interval_seconds: int = 60


def _seconds(at: datetime) -> str:
    return f"toDateTime({int(at.timestamp())})"


def _milliseconds(at: datetime) -> str:
    return f"fromUnixTimestamp64Milli({int(at.timestamp() * 1000)})"


def _date(at: datetime) -> str:
    return f"toDate('{at.astimezone(timezone.utc):%Y-%m-%d}')"


def _between(column: str, context: Context, spell: Callable[[datetime], str]) -> str:
    return f"{column} >= {spell(context.begin)} AND {column} <= {spell(context.end)}"


# Name: arguments that it takes, and what it becomes.
MACROS: dict[str, tuple[int, Callable[[list[str], Context], str]]] = {
    "fromTime": (0, lambda _, c: _seconds(c.begin)),
    "toTime": (0, lambda _, c: _seconds(c.end)),
    "fromTime_ms": (0, lambda _, c: _milliseconds(c.begin)),
    "toTime_ms": (0, lambda _, c: _milliseconds(c.end)),
    "interval_s": (0, lambda _, c: str(c.interval_seconds)),
    "timeFilter": (1, lambda a, c: _between(a[0], c, _seconds)),
    "timeFilter_ms": (1, lambda a, c: _between(a[0], c, _milliseconds)),
    "dateFilter": (1, lambda a, c: _between(a[0], c, _date)),
    "dateTimeFilter": (2, lambda a, c: f"({_between(a[0], c, _date)}) AND ({_between(a[1], c, _seconds)})"),
    "timeInterval": (1, lambda a, c: f"toStartOfInterval(toDateTime({a[0]}), INTERVAL {c.interval_seconds} second)"),
    "timeInterval_ms": (1, lambda a, c: f"toStartOfInterval(toDateTime64({a[0]}, 3), INTERVAL {c.interval_seconds * 1000} millisecond)"),
}

# ${name:format}, for a list of values.
FORMATS: dict[str, Callable[[list[str]], str]] = {
    "singlequote": lambda values: ",".join("'" + value.replace("'", "\\'") + "'" for value in values),
    "sqlstring": lambda values: ",".join("'" + value.replace("'", "''") + "'" for value in values),
    "raw": ",".join,
    "csv": ",".join,
    "pipe": "|".join,
    "regex": lambda values: (f"({'|'.join(map(_escaped, values))})" if len(values) > 1 else "".join(map(_escaped, values))),
}


def _escaped(text: str) -> str:
    return re.sub(r"([.*+?^${}()|\[\]\\/])", r"\\\1", text)


def arguments(text: str, opened: int) -> tuple[list[str], int]:
    """Arguments of a call whose bracket opens there, and where it ends. Commas inside brackets part nothing."""
    depth, begin, found = 0, opened + 1, []
    for at in range(opened, len(text)):
        depth += {"(": 1, ")": -1}.get(text[at], 0)
        if (text[at] == "," and depth == 1) or depth == 0:
            found.append(text[begin:at].strip())
            begin = at + 1
        if depth == 0:
            return found, at + 1
    raise ValueError(f"a bracket is not closed: {text[opened:]}")


def conditions(sql: str, context: Context) -> str:
    """$__conditionalAll(condition, $variable): the condition, or 1=1 while all are chosen."""
    call = "$__conditionalAll("
    while (at := sql.rfind(call)) >= 0:
        (condition, variable), end = arguments(sql, at + len(call) - 1)
        value = context.variables[re.sub(r"[${}]", "", variable)]
        sql = sql[:at] + ("1=1" if value in (ALL, "") else condition) + sql[end:]
    return sql


def variables(text: str, context: Context, default: str = "raw") -> str:
    """$name, ${name} and ${name:format}."""

    def replaced(found: re.Match[str]) -> str:
        name, form = found[1] or found[3], found[2] or default
        value = context.variables[name]
        if value == ALL:
            return context.all_values[name]
        return FORMATS[form](value if isinstance(value, list) else [value])

    return re.sub(r"\$\{(\w+)(?::(\w+))?\}|\$(?!__)([a-zA-Z]\w*)", replaced, text)


def macros(sql: str, context: Context) -> str:
    while (found := re.search(r"\$__(\w+)(\()?", sql)) is not None:
        if found[1] not in MACROS:
            raise ValueError(f"$__{found[1]} is in no table here")
        count, replacement = MACROS[found[1]]
        given, end = arguments(sql, found.end() - 1) if found[2] and count else ([], found.end(1))
        if len(given) != count or "" in given:
            raise ValueError(f"$__{found[1]} takes {count} arguments: {given}")
        sql = sql[:found.start()] + replacement(given, context) + sql[end:]
    return sql


def sql(text: str, context: Context) -> str:
    """A query as ClickHouse gets it."""
    return macros(variables(conditions(text, context), context), context)


def promql(text: str, context: Context, rate_interval: str) -> str:
    """An expression as Prometheus gets it."""
    seconds = int((context.end - context.begin).total_seconds())
    own = {"$__rate_interval": rate_interval, "$__range": f"{seconds}s", "$__interval": f"{context.interval_seconds}s"}
    for name, value in own.items():
        text = re.sub(re.escape(name) + r"\b", value, text)
    if "$__" in text:
        raise ValueError(f"a variable of Grafana that is in no table here: {text}")
    return variables(text, context, default="regex")
