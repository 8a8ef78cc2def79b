"""Lives made by hand; what must come of them is worked out from the domain, not from the oracle."""
import json
import re
import unittest
from decimal import Decimal
from pathlib import Path

import generator
import reading
import rules
import times
from life import Life, expected_of

MINUTE, HOUR, DAY = times.MINUTE, times.HOUR, times.DAY
JOB = "generation."


def at(text):
    return times.parse(text + "Z" if "T" in text else text + "T00:00:00Z")


def settings(lite=None):
    plan = {"lite": {"credits_per_month": 200}, "performance": {"credits_per_month": 1100},
            "scale": {"credits_per_month": 3300}}
    if lite is not None:
        plan["lite"]["overdraft_limit"] = lite
    return {
        "pricing": {
            "rate_card": [{"id": "2024-01", "effective_from": "2020-01-01T00:00:00Z", "rates": {
                "image": {"credits": "1"},
                "video": {"credits": "3", "models": {"veo-3": {"credits": "4.5"}, "thin": {"credits": "0.333"}}}}}],
            "plans": [{"effective_from": "2020-01-01T00:00:00Z", "plan": plan}],
            "topups": [{"effective_from": "2020-01-01T00:00:00Z", "packs": [
                {"amount_usd": "100", "credits": 555}, {"amount_usd": "250", "credits": 1388}]}]},
        "plan_priority": 10, "adjustment_priority": 20, "topup_priority": 30,
        "low_percent": 20, "critical_percent": 5, "hysteresis_percent": 5,
        "allowed_lateness_ms": HOUR, "horizon_ms": 35 * DAY, "max_clock_skew_ms": 5 * MINUTE,
        "images_max": 10_000, "video_seconds_max": 36_000, "adjustment_credits_max": 1_000_000_000,
        "term_months_max": 120}


class Hand(unittest.TestCase):
    def setUp(self):
        self.begin(settings())

    def begin(self, chosen):
        self.life = Life("ws_1", chosen)
        self.number = 0
        self.wall = at("2025-01-01")

    def send(self, kind, time, data, wall=None, **other):
        self.number += 1
        time = at(time) if isinstance(time, str) else time
        wall = time if wall is None else at(wall) if isinstance(wall, str) else wall
        self.wall = max(self.wall, wall)
        event = {"specversion": "1.0", "id": "e%d" % self.number, "source": "/s", "type": kind, "subject": "ws_1",
                 "time": times.text(time), "data": data}
        event.update(other)
        topic = "generation" if kind.startswith("generation") or kind in reading.FREE else "wallet"
        return self.life.step({"topic": topic, "event": event, "wall_ms": self.wall, "record_ms": self.wall})

    def tick(self, to):
        to = at(to) if isinstance(to, str) else to
        self.wall = max(self.wall, to)
        return self.life.step({"tick_ms": to, "wall_ms": self.wall})

    def images(self, job, time, count, asset=None, wall=None, kind="completed"):
        data = {"job_id": job, "asset": "image", "images": count}
        if asset:
            data["asset_id"] = asset
        return self.send(JOB + kind, time, data, wall)

    def after(self, kind, job, time, asset=None, wall=None):
        return self.send(JOB + kind, time, dict({"job_id": job}, **({"asset_id": asset} if asset else {})), wall)

    def topup(self, name, time, amount=100, wall=None):
        return self.send("topup.purchased", time, {"topup_id": name, "amount_usd": amount}, wall)

    def adjust(self, name, time, credits, expires=None, wall=None):
        data = {"adjustment_id": name, "credits": credits, "reason": "r", "actor": "a"}
        if expires:
            data["expires_at"] = expires + "Z"
        return self.send("wallet.adjusted", time, data, wall)

    def start(self, name, time, plan="lite", starts=None, months=12, wall=None):
        return self.send("contract.started", time, {"contract_id": name, "plan": plan, "term_months": months,
                                                    "starts_at": times.text(at(starts or time))}, wall)

    def short(self, result):
        """The entries as (type, what it moved or its size); without the notes of warnings, which alone have a size and
        are worked out in handmade_warnings.py."""
        return [(e[0], e[1] or e[2] or e[3]) for e in result["entries"] if e[0] != "noted" or e[3] == 0]

    def grants(self):
        return [(g.kind, g.granted, g.remaining, g.repaid, g.expires_at) for g in self.life.wallet.all_grants]


class Tables(Hand):
    def test_usage_table(self):
        cost = self.life.prices.cost
        now = at("2025-01-01")
        self.assertEqual(cost("image", 4, None, now), 4)
        self.assertEqual([cost("video", s, None, now) for s in (4, 8, 12)], [12, 24, 36])
        self.assertEqual(cost("video", Decimal("0.5"), None, now), 2)
        self.assertEqual(cost("video", 8, "veo-3", now), 36)
        self.assertEqual(cost("video", Decimal("3.003"), "thin", now), 1)
        self.assertEqual(cost("video", Decimal("3.004"), "thin", now), 2)

    def test_estimates(self):
        for credits, shoots, seconds, clips in (
                (200, 50, 66, (16, 8, 5)), (1100, 275, 366, (91, 45, 30)), (3300, 825, 1100, (275, 137, 91)),
                (1388, 347, 462, (115, 57, 38)), (5555, 1388, 1851, (462, 231, 154))):
            self.assertEqual(credits // 4, shoots)
            self.assertEqual(credits // 3, seconds)
            self.assertEqual(tuple(credits // (3 * length) for length in (4, 8, 12)), clips)

    def test_months_clip_and_come_back(self):
        first = at("2024-01-31T10:15:00")
        self.assertEqual([times.text(times.plus_months(first, n))[:16] for n in (1, 2, 3, 13)],
                         ["2024-02-29T10:15", "2024-03-31T10:15", "2024-04-30T10:15", "2025-02-28T10:15"])

    def test_times(self):
        self.assertEqual(times.parse("2025-01-01T02:00:00.1239+02:00"), at("2025-01-01") + 123)
        for wrong in ("2025-01-01", "2025-02-29T00:00:00Z", "2025-01-01T24:00:00Z", "2025-01-01T00:00:00", 7, None):
            self.assertIsNone(times.parse(wrong))


class Money(Hand):
    def test_burn_down(self):
        self.topup("t", "2025-01-01T00:00:01")
        self.adjust("never", "2025-01-01T00:00:02", 10)
        self.adjust("soon", "2025-01-01T00:00:03", 10, "2025-02-01T00:00:00")
        self.images("j", "2025-01-01T00:00:04", 25)
        self.assertEqual([g[2] for g in self.grants()], [550, 0, 0])

    def test_overdraft_is_repaid_out_of_what_comes_in(self):
        result = self.images("j", "2025-01-01T01:00:00", 100)
        self.assertEqual(result["entries"], [["charged", -100, 0, 0, 100, 0, -100]])
        self.assertEqual(result["level"], "overdrawn")
        result = self.topup("t", "2025-01-01T02:00:00")
        self.assertEqual(result["entries"], [["granted", 555, 0, 0, 100, 0, 455], ["overdraft_repaid", 0, 0, 100, 0, 0, 455]])
        self.assertEqual(self.grants(), [("topup", 555, 455, 100, None)])
        self.assertEqual(result["level"], "ok")

    def test_reversal_of_overdraft_goes_to_the_grants_that_repaid_latest_first(self):
        self.images("j", "2025-01-01T01:00:00", 100)
        self.adjust("a", "2025-01-01T02:00:00", 30)
        self.adjust("b", "2025-01-01T03:00:00", 50)
        self.assertEqual(self.life.wallet.overdraft, 20)
        result = self.after("refunded", "j", "2025-01-01T04:00:00")
        self.assertEqual(result["entries"], [["reversed", 100, 0, 0, 0, 0, 80]])
        self.assertEqual([g[2:4] for g in self.grants()], [(30, 0), (50, 0)])
        self.assertEqual(self.short(self.after("failed", "j", "2025-01-01T05:00:00")), [("noted", 0)])

    def test_part_goes_to_the_latest_only(self):
        self.images("j", "2025-01-01T01:00:00", 40)
        self.images("k", "2025-01-01T01:30:00", 40)
        self.adjust("a", "2025-01-01T02:00:00", 30)
        self.adjust("b", "2025-01-01T03:00:00", 60)
        self.after("refunded", "j", "2025-01-01T04:00:00")
        self.assertEqual([g[2:4] for g in self.grants()], [(0, 30), (50, 10)])

    def test_reversal_into_expired_grant_expires_at_once(self):
        self.adjust("a", "2025-01-01T01:00:00", 30, "2025-01-02T00:00:00")
        self.images("j", "2025-01-01T02:00:00", 20)
        self.assertEqual(self.short(self.tick("2025-01-02T01:00:00")), [("expired", -10)])
        result = self.after("failed", "j", "2025-01-03T00:00:00")
        self.assertEqual(self.short(result), [("reversed", 20), ("expired", -20)])
        self.assertEqual((result["outcome"], result["balance"]), ("reversed", 0))

    def test_reversal_repays_from_what_came_back(self):
        self.adjust("a", "2025-01-01T01:00:00", 30)
        self.images("j", "2025-01-01T02:00:00", 20)
        self.images("k", "2025-01-01T03:00:00", 25)
        self.assertEqual(self.short(self.after("failed", "j", "2025-01-01T04:00:00")),
                         [("reversed", 20), ("overdraft_repaid", 15)])
        self.assertEqual(self.grants(), [("adjustment", 30, 5, 15, None)])

    def test_limit(self):
        self.begin(settings(lite=10))
        self.start("c", "2025-01-01")
        self.assertEqual(self.images("a", "2025-01-01T01:00:00", 205)["overdraft"], 5)
        self.assertEqual(self.images("b", "2025-01-01T01:01:00", 6)["entries"], [["refused", 0, 0, 6, 5, 0, -5]])
        self.assertEqual(self.images("c", "2025-01-01T01:02:00", 5)["outcome"], "charged")
        self.assertEqual(self.images("b", "2025-01-01T01:03:00", 1)["reason"], "job_conflict")
        self.assertEqual(self.short(self.after("refunded", "b", "2025-01-01T01:04:00")), [("noted", 0)])
        self.assertEqual(self.adjust("d", "2025-01-01T01:05:00", -7)["overdraft"], 17)
        self.send("wallet.limits_changed", "2025-01-01T01:06:00", {"overdraft_limit": "none"})
        self.assertEqual(self.images("e", "2025-01-01T01:07:00", 900)["outcome"], "charged")
        self.assertEqual(self.life.wallet.usage["2025-01-01T01|image||lite"],
                         {"jobs": 3, "images": 1110, "video_ms": 0, "credits_charged": 1110, "credits_reversed": 0,
                          "credits_refused": 6})

    def test_event_time_decides_which_grant_pays(self):
        self.topup("t", "2025-01-01T00:10:00")
        self.adjust("a", "2025-01-01T00:20:00", 100, "2025-01-02T00:00:00")
        self.tick("2025-01-02T00:59:59")
        self.assertEqual(self.life.wallet.balance(), 655)
        self.images("before", at("2025-01-02") - 1, 5, wall="2025-01-02T00:59:59")
        self.images("exactly", "2025-01-02T00:00:00", 7, wall="2025-01-02T00:59:59")
        self.assertEqual([g[2] for g in self.grants()], [548, 95])
        self.assertEqual(self.short(self.tick("2025-01-02T01:00:00")), [("expired", -95)])
        self.images("later", at("2025-01-02") - 1, 1, wall="2025-01-02T01:00:00")
        self.assertEqual([g[2] for g in self.grants()], [547, 0])


class Jobs(Hand):
    def test_hold_and_charge(self):
        self.topup("t", "2025-01-01T00:10:00")
        result = self.images("j", "2025-01-01T01:00:00", 9, kind="requested")
        self.assertEqual(result["entries"], [["held", 0, 9, 0, 0, 9, 555]])
        self.assertEqual(self.short(self.images("j", "2025-01-01T02:00:00", 4)), [("released", -9), ("charged", -4)])
        self.assertEqual(self.images("j", "2025-01-01T03:00:00", 9, kind="requested")["outcome"], "noted")

    def test_assets_draw_on_the_hold_of_their_job(self):
        self.images("j", "2025-01-01T01:00:00", 10, kind="requested")
        self.images("j", "2025-01-01T01:00:01", 2, "own", kind="requested")
        self.assertEqual(self.short(self.images("j", "2025-01-01T02:00:00", 3, "own")), [("released", -2), ("charged", -3)])
        self.assertEqual(self.short(self.images("j", "2025-01-01T02:00:00", 6, "b")), [("released", -6), ("charged", -6)])
        self.assertEqual(self.short(self.images("j", "2025-01-01T02:00:00", 6, "c")), [("released", -4), ("charged", -6)])
        self.assertEqual(self.short(self.images("j", "2025-01-01T02:00:00", 6, "d")), [("charged", -6)])

    def test_hold_times_out(self):
        self.images("j", "2025-01-01T01:00:00", 10, kind="requested")
        self.assertEqual(self.short(self.tick(at("2025-01-02T01:00:00") - 1)), [])
        self.assertEqual(self.short(self.tick("2025-01-02T01:00:00")), [("released", -10)])
        self.assertEqual(self.images("k", "2025-01-01T01:00:00", 1, wall=self.wall, kind="requested")["outcome"], "noted")
        self.assertEqual(self.images("j", "2025-01-02T02:00:00", 10)["outcome"], "charged")

    def test_failed_first(self):
        self.assertEqual(self.after("failed", "j", "2025-01-01T01:00:00")["outcome"], "noted")
        self.assertEqual(self.short(self.images("j", "2025-01-01T00:30:00", 4)), [("charged", -4), ("reversed", 4)])
        self.assertEqual(self.images("j", "2025-01-01T00:30:00", 4)["reason"], "job_conflict")

    def test_cancelled_reverses_nothing(self):
        self.images("j", "2025-01-01T01:00:00", 4, kind="requested")
        self.assertEqual(self.short(self.after("cancelled", "j", "2025-01-01T01:10:00")), [("released", -4)])
        self.assertEqual(self.short(self.images("j", "2025-01-01T01:20:00", 4)), [("charged", -4)])

    def test_whole_reversal_speaks_for_later_assets(self):
        self.images("j", "2025-01-01T01:00:00", 1, "a")
        self.images("j", "2025-01-01T01:00:00", 2, "b")
        self.after("rejected", "j", "2025-01-01T01:10:00", "a")
        self.assertEqual(self.short(self.after("failed", "j", "2025-01-01T01:20:00")), [("reversed", 2)])
        self.assertEqual(self.short(self.images("j", "2025-01-01T01:00:00", 3, "c")), [("charged", -3), ("reversed", 3)])
        self.assertEqual(self.images("j", "2025-01-01T01:00:00", 3)["reason"], "job_conflict")

    def test_identity(self):
        data = {"job_id": "j", "asset": "image", "images": 8}
        first = dict(wall="2025-01-01T01:00:01", id="x")
        self.assertEqual(self.send(JOB + "completed", "2025-01-01T01:00:00", data, **first)["outcome"], "charged")
        again = dict(data, images=Decimal("8.0"), colour="red", model=None)
        self.assertEqual(self.send(JOB + "completed", "2025-01-01T01:00:00", again, **first)["outcome"], "duplicate")
        self.assertEqual(self.send(JOB + "completed", "2025-01-01T01:00:00", dict(data, images=9), **first)["reason"], "id_conflict")
        self.assertEqual(self.send(JOB + "completed", "2025-01-01T01:00:00", data, id="y")["reason"], "job_conflict")

    def test_window(self):
        now = at("2025-03-01")
        self.tick(now)
        old = now - 35 * DAY
        self.assertEqual(self.images("a", old, 1, wall=now)["outcome"], "charged")
        self.assertEqual(self.images("b", old - 1, 1, wall=now)["reason"], "too_old")
        self.assertEqual(self.images("c", now + 5 * MINUTE, 1, wall=now)["outcome"], "charged")
        self.assertEqual(self.images("d", now + 5 * MINUTE + 1, 1, wall=now)["reason"], "too_far_ahead")

    def test_order_of_checks(self):
        data = {"job_id": "j", "asset": "image", "images": 0}
        now = "2025-01-01T01:00:00"
        self.assertEqual(self.send(JOB + "completed", now, data, type="topup.purchased")["reason"], "unknown_type")
        self.assertEqual(self.send(JOB + "completed", now, data, specversion=None, type="no.such")["reason"], "not_cloudevent")
        self.assertEqual(self.send(JOB + "completed", now, data, subject=None, id="x" * 200)["reason"], "missing_field")
        self.assertEqual(self.send(JOB + "completed", now, dict(data, job_id=None))["reason"], "missing_field")
        self.assertEqual(self.send(JOB + "completed", now, data)["reason"], "bad_value")
        self.assertEqual(self.send("ad.created", now, {})["outcome"], "free")


class Contracts(Hand):
    def test_a_past_start_is_granted_all_months(self):
        result = self.start("c", "2025-04-02", starts="2025-01-31", months=4)
        self.assertEqual(self.short(result), [("contract_started", 0), ("granted", 200), ("granted", 200), ("granted", 200)])
        self.assertEqual(result["level"], "ok")
        self.assertEqual([g.granted_at for g in self.life.wallet.all_grants], [at("2025-01-31"), at("2025-02-28"), at("2025-03-31")])
        self.assertEqual({g[4] for g in self.grants()}, {at("2025-05-31")})
        result = self.tick("2025-05-31T02:00:00")
        self.assertEqual(self.short(result), [("granted", 200), ("contract_ended", 0)] + [("expired", -200)] * 4)

    def test_up_down_up_pays_once(self):
        self.start("c", "2025-01-01")
        change = lambda day, plan, **more: self.short(self.send(
            "contract.plan_changed", day, dict({"contract_id": "c", "plan": plan}, **more)))
        self.assertEqual(change("2025-01-05", "performance"), [("contract_changed", 0), ("granted", 900)])
        self.assertEqual(change("2025-01-06", "lite"), [("contract_changed", 0)])
        self.assertEqual(change("2025-01-07", "performance"), [("contract_changed", 0)])
        self.assertEqual(change("2025-01-08", "scale"), [("contract_changed", 0), ("granted", 2200)])
        self.assertEqual(change("2025-01-09", "lite", effective_at="2025-02-01T00:00:00Z"), [("contract_changed", 0)])
        self.assertEqual(self.short(self.tick("2025-02-01")), [("granted", 200)])
        self.assertEqual({g[4] for g in self.grants()}, {at("2026-01-01")})

    def test_a_change_reaches_back_to_the_month_under_way(self):
        self.start("c", "2025-01-01")
        self.tick("2025-02-10")
        result = self.send("contract.plan_changed", "2025-02-10", {"contract_id": "c", "plan": "performance",
                                                                   "effective_at": "2025-01-10T00:00:00Z"})
        self.assertEqual(self.short(result), [("contract_changed", 0), ("granted", 900)])

    def test_a_late_change_raises_every_month_since(self):
        self.start("c", "2025-01-01")
        self.tick("2025-02-03")
        result = self.send("contract.plan_changed", "2025-01-20", {"contract_id": "c", "plan": "performance"}, wall="2025-02-03")
        self.assertEqual(self.short(result), [("contract_changed", 0), ("granted", 900), ("granted", 900)])

    def test_renewal(self):
        self.start("c", "2025-01-01", months=1)
        renew = lambda time, **more: self.send("contract.renewed", time, dict({"contract_id": "c"}, **more), wall=self.wall)
        self.tick("2025-02-02")
        self.assertEqual(self.short(renew(at("2025-02-01") - 1, plan="performance")), [("contract_renewed", 0), ("granted", 1100)])
        self.assertEqual(renew(at("2025-02-01") - 2)["reason"], "contract_conflict")
        self.assertEqual(self.short(renew("2025-02-01T00:00:00", term_months=2)), [("contract_renewed", 0)])
        self.assertEqual(self.short(self.tick("2025-03-01T01:00:00")), [("granted", 1100), ("expired", -1100)])
        self.tick("2025-05-03")
        self.assertEqual(renew("2025-05-02")["reason"], "no_contract")

    def test_cancellation(self):
        self.start("c", "2025-01-01", months=12)
        self.topup("t", "2025-01-02")
        cancel = lambda time, **more: self.send("contract.cancelled", time, dict({"contract_id": "c"}, **more))
        self.send("contract.renewed", "2025-01-03", {"contract_id": "c"})
        self.assertEqual(self.short(cancel("2025-01-04", effective_at="2025-01-20T00:00:00Z")), [("contract_changed", 0)])
        self.assertEqual(self.short(cancel("2025-01-05", effective_at="2025-01-25T00:00:00Z")), [("contract_changed", 0)])
        self.assertEqual(self.send("contract.renewed", "2025-01-06", {"contract_id": "c"})["reason"], "no_contract")
        self.assertEqual(self.short(self.tick("2025-01-20T02:00:00")), [("contract_ended", 0), ("expired", -200)])
        self.assertEqual(cancel("2025-01-20T03:00:00")["reason"], "no_contract")
        self.assertEqual(self.life.wallet.balance(), 555)
        self.assertEqual(self.start("d", "2025-01-21", starts="2025-01-19")["reason"], "contract_conflict")
        self.assertEqual(self.start("d", "2025-01-21", starts="2025-01-20")["outcome"], "contract")
        self.assertEqual(self.start("c", "2025-01-22", starts="2029-01-20")["reason"], "bad_value")
        self.assertEqual(self.start("c", "2025-01-22", starts="2025-03-20")["reason"], "id_conflict")

    def test_levels(self):
        self.start("c", "2025-01-01")
        use = lambda job, count: self.images(job, "2025-01-01T01:00:00", count)["level"]
        self.assertEqual(use("a", 159), "ok")        # 41 of 200
        self.assertEqual(use("b", 1), "low")         # 40
        self.assertEqual(self.after("failed", "b", "2025-01-01T01:00:00")["level"], "low")   # 41: not above 50
        self.assertEqual(use("c", 31), "critical")   # 10
        self.assertEqual(self.adjust("x", "2025-01-01T01:00:00", 10)["level"], "critical")   # 20: not above 20
        self.assertEqual(self.adjust("y", "2025-01-01T01:00:00", 1)["level"], "low")         # 21
        self.assertEqual(use("d", 21), "exhausted")
        self.assertEqual(use("e", 1), "overdrawn")
        self.assertEqual(self.adjust("z", "2025-01-01T01:00:00", 1)["level"], "overdrawn")   # 0: not above 0
        self.assertEqual(self.adjust("w", "2025-01-01T01:00:00", 60)["level"], "ok")


class Edges(Hand):
    """Where late events meet what has been posted."""

    def cancel(self, time, wall=None, **more):
        return self.send("contract.cancelled", time, dict({"contract_id": "c"}, **more), wall)

    def test_late_cancellation_drops_a_term_that_has_begun(self):
        self.start("c", "2025-01-01", months=1)
        self.send("contract.renewed", "2025-01-10", {"contract_id": "c"})
        self.assertEqual(self.short(self.tick("2025-02-01T01:00:00")), [("granted", 200), ("expired", -200)])
        self.images("j", "2025-02-02", 50)
        result = self.cancel("2025-01-31", wall="2025-02-03")
        self.assertEqual(self.short(result), [("contract_changed", 0), ("contract_ended", 0), ("expired", -150)])
        self.assertEqual([g[4] for g in self.grants()], [at("2025-02-01")] * 2)
        self.assertEqual(self.life.wallet.overdraft, 0)

    def test_cancelled_to_its_start(self):
        self.start("c", "2025-01-01", starts="2025-02-01")
        self.cancel("2025-01-02", effective_at="2024-06-01T00:00:00Z")
        self.assertEqual(self.short(self.tick("2025-03-01")), [("contract_ended", 0)])
        self.assertEqual(self.start("d", "2025-03-01", starts="2025-01-15", months=2)["outcome"], "contract")

    def test_change_past_the_end_waits_for_a_renewal(self):
        self.start("c", "2025-01-01", months=1)
        self.send("contract.plan_changed", "2025-01-10", {"contract_id": "c", "plan": "performance",
                                                          "effective_at": "2025-02-01T00:00:00Z"})
        self.assertEqual(self.short(self.tick("2025-02-05")), [("contract_ended", 0), ("expired", -200)])
        result = self.send("contract.renewed", "2025-01-31", {"contract_id": "c", "plan": "scale"}, wall="2025-02-05")
        self.assertEqual(self.short(result), [("contract_renewed", 0), ("granted", 1100)])

    def test_change_at_an_anniversary_counts_for_that_month(self):
        self.start("c", "2025-01-31")
        self.send("contract.plan_changed", "2025-02-10", {"contract_id": "c", "plan": "performance",
                                                          "effective_at": "2025-02-28T00:00:00Z"})
        self.send("contract.plan_changed", "2025-02-11", {"contract_id": "c", "plan": "scale",
                                                          "effective_at": "2025-03-10T00:00:00Z"})
        self.assertEqual(self.short(self.tick("2025-03-15")), [("granted", 1100), ("granted", 2200)])

    def test_hold_again_after_its_timeout(self):
        self.images("j", "2025-01-01T01:00:00", 5, kind="requested")
        self.assertEqual(self.images("j", "2025-01-01T02:00:00", 5, kind="requested")["outcome"], "noted")
        self.tick("2025-01-02T01:00:00")
        self.assertEqual(self.images("j", "2025-01-02T02:00:00", 5, kind="requested")["outcome"], "held")

    def test_refund_before_charge_keeps_the_hold(self):
        self.images("j", "2025-01-01T01:00:00", 5, kind="requested")
        self.assertEqual(self.after("refunded", "j", "2025-01-01T01:10:00")["held"], 5)
        self.assertEqual(self.short(self.images("j", "2025-01-01T01:20:00", 4)),
                         [("released", -5), ("charged", -4), ("reversed", 4)])

    def test_an_asset_undone_does_not_undo_the_whole(self):
        self.after("failed", "j", "2025-01-01T01:00:00", "a")
        self.assertEqual(self.short(self.images("j", "2025-01-01T01:20:00", 4)), [("charged", -4)])
        self.assertEqual(self.after("failed", "j", "2025-01-01T01:30:00", "a")["outcome"], "noted")
        self.assertEqual(self.after("failed", "j", "2025-01-01T01:40:00")["outcome"], "reversed")

    def test_forgotten_after_the_horizon(self):
        self.images("j", "2025-01-01", 4)
        self.images("k", "2025-01-01", 4)
        edge = at("2025-01-01") + 35 * DAY
        self.tick(edge)
        self.assertEqual(self.after("refunded", "j", edge)["outcome"], "reversed")
        self.tick(edge + DAY - 1)
        self.assertEqual(self.after("refunded", "j", edge + DAY - 1)["outcome"], "noted")
        self.images("l", edge + DAY - 1, 4)
        self.tick(edge + DAY)
        self.assertEqual(self.after("refunded", "k", edge + DAY)["outcome"], "noted")

    def test_clock_stays_at_the_wall(self):
        self.adjust("a", "2025-01-01", 5, "2025-01-01T01:00:00")
        self.after("failed", "j", "2025-01-01T02:03:00", wall="2025-01-01T01:59:59")
        self.assertEqual(self.life.clock, at("2025-01-01T01:59:59"))
        self.assertEqual(self.life.wallet.balance(), 5)
        self.assertEqual(self.short(self.send("ad.created", "2025-01-01T02:00:00", {})), [("expired", -5)])

    def test_an_allocation_due_by_the_event_is_posted_before_it(self):
        self.begin(settings(lite=0))
        self.start("c", "2025-01-01")
        self.images("a", "2025-01-02", 200)
        for event, due in (("b", "2025-02-01"), ("d", "2025-03-02")):
            result = self.images(event, due, 200)
            self.assertEqual(self.short(result), [("granted", 200), ("charged", -200)])
        self.assertEqual(self.images("c", "2025-03-02", 1)["outcome"], "refused")

    def test_an_allocation_due_after_the_wall_clock_waits_for_it(self):
        self.begin(settings(lite=0))
        self.start("c", "2025-01-01")
        self.images("a", "2025-01-02", 200)
        result = self.images("b", "2025-02-01T00:01:00", 1, wall="2025-01-31T23:59:59")
        self.assertEqual(self.short(result), [("refused", 1)])
        self.assertEqual(self.short(self.tick("2025-02-01")), [("granted", 200)])

    def test_a_rejected_event_posts_what_was_due_by_it(self):
        self.start("c", "2025-01-01")
        result = self.send("contract.renewed", "2025-02-01", {"contract_id": "other"})
        self.assertEqual((result["reason"], self.short(result)), ("no_contract", [("granted", 200)]))

    def test_what_other_wallets_made_due_is_posted_before_the_event(self):
        self.begin(settings(lite=0))
        self.start("c", "2025-01-01")
        self.images("a", "2025-01-02", 200)
        event = {"specversion": "1.0", "id": "b", "source": "/s", "type": JOB + "completed", "subject": "ws_1",
                 "time": "2025-02-02T00:00:00Z", "data": {"job_id": "b", "asset": "image", "images": 1}}
        result = self.life.step({"tick_ms": at("2025-02-01"), "topic": "generation", "event": event,
                                 "wall_ms": at("2025-02-02"), "record_ms": at("2025-02-02")})
        self.assertEqual(self.short(result), [("granted", 200), ("charged", -1)])
        self.assertEqual((result["outcome"], result["balance"]), ("charged", 199))

    def test_debit_and_covered_charge_past_the_limit(self):
        self.adjust("a", "2025-01-01", 20, "2025-01-02T00:00:00")
        self.send("wallet.limits_changed", "2025-01-01T01:00:00", {"overdraft_limit": 0})
        self.adjust("d", "2025-01-02T00:00:00", -9)
        self.assertEqual(self.life.wallet.overdraft, 9)
        result = self.images("j", at("2025-01-02") - 1, 3, wall="2025-01-02T00:00:01")
        # 8 for 3 days at 3 a day: the runway's warning.
        self.assertEqual(result["entries"], [["charged", -3, 0, 0, 9, 0, 8], ["noted", 0, 0, 8, 9, 0, 8]])
        result = self.after("failed", "j", "2025-01-02T00:00:02")   # back into a grant that is over: repays nothing
        self.assertEqual(result["entries"], [["reversed", 3, 0, 0, 9, 0, 11]])

    def test_two_percentages_in_one_event_are_in_order(self):
        def limits(hour, data):
            result = self.send("wallet.limits_changed", f"2025-01-01T0{hour}:00:00", data)
            return result.get("reason") or result["outcome"]

        self.assertEqual(limits(1, {"low_percent": 9, "critical_percent": 10}), "bad_value")
        self.assertEqual(limits(2, {"low_percent": 10, "critical_percent": 10}), "limits")
        self.assertEqual(limits(3, {"low_percent": 9}), "limits")   # alone: not held against the wallet's 10
        self.assertEqual(limits(4, {"low_percent": "plan", "critical_percent": 100}), "limits")

    def test_level_without_a_plan_follows_the_last_topup(self):
        self.assertEqual(self.topup("t", "2025-01-01")["level"], "ok")
        self.assertEqual(self.images("a", "2025-01-01T01:00:00", 444)["level"], "low")       # 111 of 555
        self.assertEqual(self.images("b", "2025-01-01T01:00:00", 84)["level"], "critical")   # 27: 2700 <= 2775
        self.assertEqual(self.images("c", "2025-01-01T01:00:00", 27, kind="requested")["level"], "exhausted")


class Generated(unittest.TestCase):
    def test_sums_close_and_reading_back_gives_the_same(self):
        for seed in range(60):
            made, expected = generator.make_life(seed)
            text = generator.to_json(made)
            self.assertEqual(expected_of(json.loads(text, parse_float=Decimal)), expected)
            balance = held = 0
            for step in expected["steps"]:
                for entry in step["entries"]:
                    balance += entry[1]
                    held += entry[2]
                    self.assertEqual(entry[5:], [held, balance])
                self.assertEqual((step["balance"], step["held"]), (balance, held))
            for grant in expected["grants"]:
                self.assertGreaterEqual(grant["remaining"], 0)
                self.assertGreaterEqual(grant["repaid"], 0)
                self.assertLessEqual(grant["remaining"] + grant["repaid"], grant["granted"])

    def test_every_rule_is_met(self):
        """A rule that no life meets would be counted nowhere, and be missed by nobody."""
        met = set()
        for seed in range(1, 501):
            met.update(generator.make_life(seed)[1]["rules"])
        self.assertEqual(set(rules.NAMES) - met, set())

    def test_no_rule_is_counted_that_is_not_named(self):
        with self.assertRaises(KeyError):
            rules.hit({}, "no-such-rule")
        sources = "".join(path.read_text() for path in Path(__file__).parent.glob("*.py"))
        named = set(re.findall(r'\bhit\("([a-z0-9-]+)"\)', sources))
        self.assertGreater(len(named), 100)
        self.assertEqual(named - set(rules.NAMES), set())

    def test_any_subset_of_steps_is_a_life(self):
        for seed in range(20):
            made, _ = generator.make_life(seed)
            expected_of(dict(made, steps=made["steps"][seed % 3::2]))


if __name__ == "__main__":
    unittest.main()
