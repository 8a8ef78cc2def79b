"""Variables and macros are replaced as documented: one line of each table a macro or format that a query may use."""

from __future__ import annotations

import unittest
from datetime import datetime, timezone

from grafana import ALL, FORMATS, MACROS, Context, promql, sql

# The instants of the plugin's own examples.
BEGIN, END = datetime.fromtimestamp(1415792726.123, timezone.utc), datetime.fromtimestamp(1447328726.456, timezone.utc)
CONTEXT = Context(BEGIN, END, {"plan": ["lite", "o'neil"], "model": ALL, "wallet": "ws_1", "empty": "", "dots": ["a.b", "c"], "one": ["x.y"]},
                  {"model": ".*"}, interval_seconds=20)

MACRO_TABLE = {
    "$__fromTime": "toDateTime(1415792726)",
    "$__toTime": "toDateTime(1447328726)",
    "$__fromTime_ms": "fromUnixTimestamp64Milli(1415792726123)",
    "$__toTime_ms": "fromUnixTimestamp64Milli(1447328726456)",
    "$__interval_s": "20",
    "$__timeFilter(t)": "t >= toDateTime(1415792726) AND t <= toDateTime(1447328726)",
    "$__timeFilter_ms(t)": "t >= fromUnixTimestamp64Milli(1415792726123) AND t <= fromUnixTimestamp64Milli(1447328726456)",
    "$__dateFilter(d)": "d >= toDate('2014-11-12') AND d <= toDate('2015-11-12')",
    "$__dateTimeFilter(d, t)": "(d >= toDate('2014-11-12') AND d <= toDate('2015-11-12')) AND "
                               "(t >= toDateTime(1415792726) AND t <= toDateTime(1447328726))",
    "$__timeInterval(t)": "toStartOfInterval(toDateTime(t), INTERVAL 20 second)",
    "$__timeInterval_ms(t)": "toStartOfInterval(toDateTime64(t, 3), INTERVAL 20000 millisecond)",
}
FORMAT_TABLE = {
    "${plan:singlequote}": "'lite','o\\'neil'",
    "${plan:sqlstring}": "'lite','o''neil'",
    "${plan:csv}": "lite,o'neil",
    "${plan:raw}": "lite,o'neil",
    "${plan:pipe}": "lite|o'neil",
    "${dots:regex}": "(a\\.b|c)",
}
OTHERS = {
    "$wallet": "ws_1",
    "${wallet}": "ws_1",
    "'${wallet:singlequote}'": "''ws_1''",
    "${model:regex}": ".*",
    "${one:regex}": "x\\.y",
    # With all chosen the condition goes, with its commas and brackets.
    "a AND $__conditionalAll(if(model = '', 'none', model) IN (${model:singlequote}), $model) AND b": "a AND 1=1 AND b",
    "$__conditionalAll(p IN (${plan:singlequote}), $plan)": "p IN ('lite','o\\'neil')",
    "$__conditionalAll(p = 1, ${empty})": "1=1",
    "$__conditionalAll($__timeFilter(t), $wallet)": "t >= toDateTime(1415792726) AND t <= toDateTime(1447328726)",
    "f($__toTime, 'UTC')": "f(toDateTime(1447328726), 'UTC')",
}
PROMETHEUS_TABLE = {
    'rate(m{plan=~"${plan:regex}"}[$__rate_interval])': "rate(m{plan=~\"(lite|o'neil)\"}[15s])",
    'm{job="$wallet"}[$__range]': 'm{job="ws_1"}[31536000s]',
    "m[$__interval]": "m[20s]",
}


class ReplacedTest(unittest.TestCase):
    def test_every_macro_becomes_what_the_plugin_documents(self) -> None:
        self.assertEqual({written.split("(")[0][3:] for written in MACRO_TABLE}, set(MACROS))
        for written, wanted in MACRO_TABLE.items():
            with self.subTest(written):
                self.assertEqual(sql(written, CONTEXT), wanted)
                self.assertEqual(sql(f"SELECT {written}\nFROM t", CONTEXT), f"SELECT {wanted}\nFROM t")

    def test_every_format_becomes_what_grafana_documents(self) -> None:
        self.assertEqual({written.split(":")[1][:-1] for written in FORMAT_TABLE}, set(FORMATS))
        for written, wanted in {**FORMAT_TABLE, **OTHERS}.items():
            with self.subTest(written):
                self.assertEqual(sql(written, CONTEXT), wanted)

    def test_expressions_of_prometheus(self) -> None:
        for written, wanted in PROMETHEUS_TABLE.items():
            with self.subTest(written):
                self.assertEqual(promql(written, CONTEXT, "15s"), wanted)

    def test_what_is_not_known_is_an_error(self) -> None:
        for written in ("$__unknown(t)", "$__timeFilter()", "$__dateTimeFilter(d)", "$nobody", "${plan:shouted}", "$__timeFilter(t"):
            with self.subTest(written), self.assertRaises((ValueError, KeyError)):
                sql(written, CONTEXT)
        with self.assertRaises(ValueError):
            promql("m[$__interval_ms]", CONTEXT, "15s")


if __name__ == "__main__":
    unittest.main()
