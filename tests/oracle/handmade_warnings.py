"""Alerts and warnings of lives made by hand; what must come of them is worked out from the domain, not from the oracle."""
import json
import unittest
from pathlib import Path

import generator
import times
from handmade import JOB, MINUTE, Hand, at, settings

SCHEMA = Path(__file__).parents[2] / "config" / "schemas" / "alert.schema.json"


class Warned(Hand):
    def kinds(self, result):
        """The alerts as (kind, its size), a level as its name."""
        return [(a["kind"], a["level"] if a["kind"] == "level" else a["amount"]) for a in result["alerts"]]

    def warnings(self, result):
        return [alert for alert in self.kinds(result) if alert[0] != "level"]

    def days(self, result):
        return [a["days"] for a in result["alerts"] if a["kind"] == "expiring"]


class Levels(Warned):
    def test_the_alert_has_the_seq_of_the_last_entry(self):
        result = self.images("j", "2025-01-01T01:00:00", 100)
        self.assertEqual(result["alerts"], [
            {"wallet_id": "ws_1", "alert_id": "ws_1:overdrawn:1", "kind": "level", "level": "overdrawn", "level_before": "ok",
             "seq": 1, "available": -100, "allocation": 0}])
        result = self.topup("t", "2025-01-01T02:00:00")   # granted 2, overdraft_repaid 3
        self.assertEqual(result["alerts"], [
            {"wallet_id": "ws_1", "alert_id": "ws_1:ok:3", "kind": "level", "level": "ok", "level_before": "overdrawn",
             "seq": 3, "available": 455, "allocation": 0}])

    def test_allocation_and_plan_of_a_contract(self):
        self.start("c", "2025-01-01")
        result = self.images("j", "2025-01-01T01:00:00", 160)
        self.assertEqual(result["alerts"], [
            {"wallet_id": "ws_1", "alert_id": "ws_1:low:3", "kind": "level", "level": "low", "level_before": "ok",
             "seq": 3, "available": 40, "allocation": 200, "plan": "lite"}])

    def test_only_the_final_level_of_an_event(self):
        self.adjust("a", "2025-01-01", 3)
        self.after("failed", "j", "2025-01-01T01:00:00")
        result = self.images("j", "2025-01-01T02:00:00", 9)
        self.assertEqual(self.short(result), [("charged", -9), ("reversed", 9)])   # overdrawn in between
        self.assertEqual(result["alerts"], [])

    def test_nothing_for_what_posts_nothing(self):
        self.assertEqual(self.send("ad.created", "2025-01-01", {})["alerts"], [])
        self.assertEqual(self.images("j", "2025-01-01", 0)["alerts"], [])


class CreditsDue(Warned):
    """While credits of a contract are due the level stays what it was."""

    def test_a_start_now_raises_nothing(self):
        result = self.start("c", "2025-01-01")
        self.assertEqual((result["alerts"], result["level"]), ([], "ok"))
        self.assertEqual([alert for step in self.life.results for alert in step["alerts"]], [])

    def test_until_a_start_in_the_future_there_is_nothing(self):
        for starts in ("2025-01-01T00:00:00.001", "2025-01-08T00:00:00"):
            self.begin(settings())
            self.assertEqual(self.kinds(self.start("c", "2025-01-01", starts=starts)), [("level", "exhausted")])
            self.assertEqual(self.kinds(self.tick(starts)), [("level", "ok")])

    def test_of_a_start_in_the_past_the_last_month_sets_it(self):
        self.assertEqual(self.start("c", "2025-04-02", starts="2025-01-31")["alerts"], [])
        self.begin(settings())
        self.images("j", "2025-04-01", 150)               # entry 1: overdrawn
        result = self.start("c", "2025-04-02", starts="2025-01-31")
        self.assertEqual(self.short(result), [("contract_started", 0), ("granted", 200), ("overdraft_repaid", 150),
                                              ("granted", 200), ("granted", 200)])
        self.assertEqual([a["alert_id"] for a in result["alerts"]], ["ws_1:ok:6"])

    def test_an_event_as_the_month_begins_and_one_just_before(self):
        for when, expected in ((at("2025-02-01"), []), (at("2025-02-01") - 1, [("level", "exhausted")])):
            self.begin(settings())
            self.start("c", "2025-01-01")
            self.assertEqual(self.kinds(self.images("j", when, 200)), expected)
            result = self.tick("2025-02-01T00:00:01")
            self.assertEqual([kind for kind in self.kinds(result) if kind[0] == "level"],
                             [("level", "ok")] if expected else [])       # the runway is another matter
            self.assertEqual((result["level"], result["balance"]), ("ok", 200))

    def test_a_month_that_waits_for_the_clock(self):
        self.start("c", "2025-01-01")
        result = self.images("j", at("2025-02-01") + 3 * MINUTE, 300, wall="2025-01-31T23:59:00")
        self.assertEqual((self.short(result), result["alerts"], result["level"]), ([("charged", -300)], [], "ok"))
        self.assertEqual(self.images("k", "2025-01-31", 5, wall=self.wall)["alerts"], [])   # late: it still waits
        result = self.tick("2025-02-01")                  # 200 - 300 - 5 + 200
        self.assertEqual((result["alerts"], result["level"], result["balance"]), ([], "ok", 95))

    def test_what_comes_may_be_too_little(self):
        self.start("c", "2025-01-01")
        result = self.images("j", at("2025-02-01") + 3 * MINUTE, 450, wall="2025-01-31T23:59:00")
        self.assertEqual((self.short(result), result["alerts"], result["level"]), ([("charged", -450)], [], "ok"))
        result = self.tick("2025-02-01")                  # 200 - 450 + 200
        self.assertEqual((self.kinds(result), result["balance"]), ([("level", "overdrawn")], -50))

    def test_a_difference_is_due_as_well(self):
        for day, expected in (("2025-01-10", []), ("2025-01-09", [("level", "exhausted")])):
            self.begin(settings())
            self.start("c", "2025-01-01")
            self.send("contract.plan_changed", "2025-01-02", {"contract_id": "c", "plan": "performance",
                                                              "effective_at": "2025-01-10T00:00:00Z"})
            self.assertEqual(self.kinds(self.images("j", day, 200)), expected)
            self.tick("2025-01-10")
            self.assertEqual((self.life.wallet.level, self.life.wallet.balance()), ("ok", 900))

    def test_a_change_that_brings_nothing_is_not_waited_for(self):
        self.start("c", "2025-01-01", plan="performance")
        self.send("contract.plan_changed", "2025-01-02", {"contract_id": "c", "plan": "lite",
                                                          "effective_at": "2025-01-10T00:00:00Z"})
        self.assertEqual(self.kinds(self.images("j", "2025-01-10", 1100)), [("level", "exhausted")])

    def test_a_month_that_grants_nothing_is_not_waited_for(self):
        """The plan is not in the file yet when the first month begins."""
        chosen = settings()
        plans = chosen["pricing"]["plans"]
        plans.append({"effective_from": "2025-02-01T00:00:00Z",
                      "plan": dict(plans[0]["plan"], nova={"credits_per_month": 90})})
        self.begin(chosen)
        result = self.start("c", "2025-02-10", plan="nova", starts="2025-01-20")
        self.assertEqual((self.short(result), self.kinds(result)), ([("contract_started", 0)], [("level", "exhausted")]))
        self.assertEqual(self.kinds(self.tick("2025-02-20")), [("level", "ok")])
        self.begin(chosen)                                # its second month is due and grants something
        result = self.start("c", "2025-02-25", plan="nova", starts="2025-01-20")
        self.assertEqual((self.short(result), result["alerts"]), ([("contract_started", 0), ("granted", 90)], []))


class Holds(Warned):
    def test_a_hold_that_times_out(self):
        self.images("j", "2025-01-01T01:00:00", 10, kind="requested")
        self.assertEqual(self.tick(at("2025-01-02T01:00:00") - 1)["alerts"], [])
        result = self.tick("2025-01-02T01:00:00")
        self.assertEqual(result["entries"], [["released", 0, -10, 0, 0, 0, 0], ["noted", 0, 0, 10, 0, 0, 0]])
        self.assertEqual(result["alerts"], [
            {"wallet_id": "ws_1", "alert_id": "ws_1:hold_timed_out:3", "kind": "hold_timed_out", "level": "exhausted",
             "seq": 3, "available": 0, "allocation": 0, "amount": 10, "job_id": "j"}])

    def test_its_size_is_what_is_released(self):
        self.topup("t", "2025-01-01")
        self.images("j", "2025-01-01T01:00:00", 10, kind="requested")
        self.images("j", "2025-01-01T02:00:00", 6, "a")
        self.assertEqual(self.kinds(self.tick("2025-01-02T01:00:00")), [("hold_timed_out", 4)])

    def test_the_level_comes_first(self):
        self.topup("t", "2025-01-01")
        self.assertEqual(self.kinds(self.images("j", "2025-01-01T01:00:00", 555, kind="requested")), [("level", "exhausted")])
        result = self.tick("2025-01-02T01:00:00")
        self.assertEqual([a["alert_id"] for a in result["alerts"]], ["ws_1:ok:4", "ws_1:hold_timed_out:4"])
        self.assertEqual([a["available"] for a in result["alerts"]], [555, 555])

    def test_no_warning_where_something_ends_it(self):
        self.topup("t", "2025-01-01")
        for kind in ("failed", "rejected", "cancelled"):
            self.images(kind, "2025-01-01T01:00:00", 10, kind="requested")
            self.assertEqual(self.after(kind, kind, "2025-01-01T02:00:00")["alerts"], [])
        self.images("j", "2025-01-01T03:00:00", 10, kind="requested")
        self.images("j", "2025-01-01T03:00:00", 10)
        self.assertEqual(self.tick("2025-01-01T23:59:59")["alerts"], [])


class Runway(Warned):
    def test_at_the_midnight_after_the_first_day(self):
        self.adjust("a", "2025-01-01T01:00:00", 400)
        self.assertEqual(self.images("j", "2025-01-01T12:00:00", 101)["alerts"], [])   # no whole day yet
        self.assertEqual(self.tick(at("2025-01-02") - 1)["entries"], [])
        result = self.tick("2025-01-02")                                               # 299 for 3 days at 101
        self.assertEqual(result["entries"], [["noted", 0, 0, 299, 0, 0, 299]])
        self.assertEqual(result["alerts"], [
            {"wallet_id": "ws_1", "alert_id": "ws_1:runway:3", "kind": "runway", "level": "ok", "seq": 3, "available": 299,
             "allocation": 0, "amount": 299}])
        self.assertEqual(self.tick("2025-03-01")["entries"], [])

    def test_three_days_exactly_are_enough(self):
        self.adjust("a", "2025-01-01T01:00:00", 400)
        self.images("j", "2025-01-01T12:00:00", 100)
        self.assertEqual(self.tick("2025-01-20")["entries"], [])

    def test_a_later_midnight_has_more_days(self):
        self.adjust("a", "2025-01-01T01:00:00", 100)
        self.images("j", "2025-01-01T12:00:00", 20)
        self.tick("2025-01-02T12:00:00")                  # 80 for 3 days at 20
        self.images("k", "2025-01-03T12:00:00", 26)       # Jan 3: 54 x 2 days, 3 x 20
        result = self.tick("2025-01-04")                  # Jan 4: 54 x 3 = 162 ≥ 3 x 46 = 138
        self.assertEqual(result["entries"], [])
        self.images("l", "2025-01-04T12:00:00", 4)        # Jan 4: 50 x 3 ≥ 138; Jan 5: 50 x 4 ≥ 3 x 50
        self.images("m", "2025-01-05T12:00:00", 14)       # Jan 5: 36 x 4 = 144 < 150
        self.assertEqual(self.life.results[-1]["alerts"][0]["amount"], 36)

    def test_armed_again_by_three_days_and_by_nothing_less(self):
        for extra, expected in ((4, [("runway", 302)]), (3, [])):
            self.begin(settings())
            self.adjust("a", "2025-01-01T01:00:00", 400)
            self.images("j", "2025-01-01T12:00:00", 101)
            self.assertEqual(self.kinds(self.tick("2025-01-02")), [("runway", 299)])
            self.assertEqual(self.adjust("b", "2025-01-02T01:00:00", extra)["alerts"], [])   # 303 = 3 x 101, or 302
            self.assertEqual(self.kinds(self.images("k", "2025-01-02T02:00:00", 1)), expected)

    def test_midnights_alone_arm_nothing(self):
        self.adjust("a", "2025-01-01T01:00:00", 100)
        self.images("j", "2025-01-01T12:00:00", 60)
        self.assertEqual(self.kinds(self.tick("2025-01-02")), [("runway", 40)])
        self.tick("2025-01-07T09:00:00")                                            # Jan 7: 40 x 6 ≥ 3 x 60
        self.assertEqual(self.images("k", "2025-01-07T10:00:00", 20)["alerts"], [])   # 20 x 6 < 180
        self.assertEqual(self.adjust("b", "2025-01-07T11:00:00", 10)["alerts"], [])   # 30 x 6 = 180: armed
        self.assertEqual(self.kinds(self.tick("2025-01-08")), [("runway", 30)])       # 30 x 7 < 3 x 80

    def test_the_seven_days_and_late_charges(self):
        for day, expected in (("2025-01-02", [("runway", 2)]), ("2025-01-01T23:59:59.999", [])):
            self.begin(settings())
            self.adjust("a", "2025-01-01T01:00:00", 100)
            self.images("j", "2025-01-01T12:00:00", 90)
            self.assertEqual(self.kinds(self.tick("2025-01-02")), [("runway", 10)])
            self.adjust("b", at("2025-01-09") - 1, 1)       # Jan 8: 11 x 7 < 3 x 90
            self.assertTrue(self.life.wallet.warnings.runway_warned)
            self.adjust("c", "2025-01-09", 1)               # Jan 9: Jan 1 counts no more, nothing does
            self.assertFalse(self.life.wallet.warnings.runway_warned)
            result = self.images("k", day, 10, wall="2025-01-09T00:00:00")   # 2 x 7 < 3 x 10
            self.assertEqual(self.kinds(result), expected)
            self.assertEqual(self.tick("2025-01-30")["alerts"], [])

    def test_a_late_charge_may_be_the_earliest(self):
        for day, expected in (("2025-01-10", [("runway", 24)]), ("2025-01-05", []), ("2024-12-20", [])):
            self.begin(settings())
            self.adjust("a", "2025-01-10T01:00:00", 40)
            self.images("j", "2025-01-10T12:00:00", 15)
            self.images("k", day, 1, wall="2025-01-10T13:00:00")
            self.assertEqual(self.kinds(self.tick("2025-01-11")), expected)   # 24 x 1 < 48; 24 x 6; 24 x 7

    def test_what_is_given_back_was_charged(self):
        self.adjust("a", "2025-01-01T01:00:00", 100)
        self.images("j", "2025-01-01T12:00:00", 60)
        self.after("refunded", "j", "2025-01-01T13:00:00")
        self.assertEqual(self.kinds(self.tick("2025-01-02")), [("runway", 100)])

    def test_what_is_refused_was_not(self):
        self.adjust("a", "2025-01-01T01:00:00", 100)
        self.send("wallet.limits_changed", "2025-01-01T01:00:00", {"overdraft_limit": 0})
        self.assertEqual(self.images("j", "2025-01-01T12:00:00", 101)["outcome"], "refused")
        self.assertEqual(self.tick("2025-01-02")["alerts"], [])

    def test_a_debit_is_no_charge(self):
        self.adjust("a", "2025-01-01T01:00:00", 100)
        self.adjust("b", "2025-01-01T12:00:00", -90)
        self.assertEqual(self.tick("2025-01-02")["alerts"], [])

    def test_nothing_available_is_the_levels_matter(self):
        self.images("j", "2025-01-01T12:00:00", 50)
        self.assertEqual(self.tick("2025-01-02")["alerts"], [])
        result = self.adjust("a", "2025-01-02T01:00:00", 60)
        self.assertEqual([entry[0] for entry in result["entries"]], ["adjusted", "overdraft_repaid", "noted"])
        self.assertEqual(self.kinds(result), [("level", "ok"), ("runway", 10)])
        self.images("k", "2025-01-02T02:00:00", 20)                                        # -10: arms nothing
        self.assertEqual(self.warnings(self.adjust("b", "2025-01-02T03:00:00", 20)), [])    # 10
        self.assertEqual(self.warnings(self.adjust("c", "2025-01-02T04:00:00", 140)), [])   # 150: armed
        self.assertEqual(self.warnings(self.adjust("d", "2025-01-02T05:00:00", -1)), [("runway", 149)])

    def test_nothing_available_and_nothing_charged_arm_nothing(self):
        self.adjust("a", "2025-01-01T01:00:00", 100)
        self.images("j", "2025-01-01T12:00:00", 60)
        self.assertEqual(self.warnings(self.tick("2025-01-02")), [("runway", 40)])
        self.images("k", "2025-01-20", 40)                                              # Jan 20: 0 left, 0 charged in the days before
        self.assertEqual(self.warnings(self.adjust("b", "2025-01-21", 10)), [])         # 10 for 3 days at 40 / 7

    def test_held_credits_are_not_available_and_come_after_their_timeout(self):
        self.adjust("a", "2025-01-01", 100)
        self.images("h", "2025-01-01", 10, kind="requested")
        self.images("j", "2025-01-01T12:00:00", 50)
        result = self.tick("2025-01-02")
        self.assertEqual(self.kinds(result), [("hold_timed_out", 10), ("runway", 50)])
        self.assertEqual([entry[0] for entry in result["entries"]], ["released", "noted", "noted"])

    def test_it_waits_until_the_clock_is_there(self):
        self.adjust("a", "2025-01-01T01:00:00", 100)
        self.images("j", "2025-01-01T12:00:00", 60)
        self.assertEqual(self.images("k", at("2025-01-02") + 3 * MINUTE, 1, wall="2025-01-01T23:59:00")["alerts"], [])
        self.assertEqual(self.tick(at("2025-01-02") + 3 * MINUTE - 1)["alerts"], [])
        self.assertEqual(self.kinds(self.tick(at("2025-01-02") + 3 * MINUTE)), [("runway", 39)])


class Expiring(Warned):
    def test_thirty_seven_and_one_day(self):
        self.start("c", "2025-01-01", months=3)           # until Apr 1
        self.topup("t", "2025-01-01")
        self.adjust("a", "2025-01-01", 70, "2025-03-03T00:00:00")
        self.assertEqual(self.short(self.tick(at("2025-03-02") - 1)), [("granted", 200), ("granted", 200)])
        result = self.tick("2025-03-02")
        self.assertEqual([entry[:4] for entry in result["entries"]], [["noted", 0, 0, 600]])
        self.assertEqual(result["alerts"], [
            {"wallet_id": "ws_1", "alert_id": "ws_1:expiring:7", "kind": "expiring", "level": "ok", "seq": 7,
             "available": 1225, "allocation": 200, "plan": "lite", "amount": 600, "days": 30, "expires_at": at("2025-04-01"),
             "contract_id": "c"}])
        self.images("j", "2025-03-20", 550)               # 70 are expired, 50 of the plan are left
        self.assertEqual(self.days(self.tick(at("2025-03-25") - 1)), [])
        self.assertEqual(self.warnings(self.tick("2025-03-25")), [("expiring", 50)])
        self.assertEqual(self.days(self.tick(at("2025-03-31") - 1)), [])
        self.assertEqual(self.days(self.tick("2025-03-31")), [1])
        self.assertEqual(self.days(self.tick("2025-06-01")), [])

    def test_one_step_over_all_of_them(self):
        self.start("c", "2025-01-01", months=1)
        result = self.tick("2025-02-01T01:00:00")
        self.assertEqual(self.days(result), [30, 7, 1])
        self.assertEqual([entry[0] for entry in result["entries"]], ["noted", "noted", "noted", "contract_ended", "expired"])

    def test_what_comes_back_finds_the_threshold_that_holds(self):
        for back, at_once, later in (
                (at("2025-01-25") - 1, [30], [7, 1]), (at("2025-01-25"), [7], [1]), (at("2025-01-25") + 1, [7], [1]),
                (at("2025-01-31") - 1, [7], [1]), (at("2025-01-31"), [1], []), (at("2025-02-01") - 1, [1], []),
                (at("2025-02-01"), [], [])):
            with self.subTest(back=times.text(back)):
                self.begin(settings())
                self.start("c", "2025-01-01", months=1)   # until Feb 1
                self.images("j", "2025-01-01T12:00:00", 200)
                self.assertEqual(self.days(self.tick(back - 1)), [])
                result = self.after("refunded", "j", back)
                self.assertEqual((result["outcome"], self.days(result)), ("reversed", at_once))
                self.assertEqual(self.days(self.tick("2025-02-02")), later)

    def test_a_term_shorter_than_thirty_days_warns_as_it_begins(self):
        result = self.start("c", "2025-02-01", months=1)
        self.assertEqual([entry[0] for entry in result["entries"]], ["contract_started", "granted", "noted"])
        self.assertEqual(self.days(result), [30])

    def test_the_larger_threshold_never_after_the_smaller(self):
        self.start("c", "2025-01-01", months=1)
        self.images("j", "2025-01-01T12:00:00", 150)
        self.assertEqual(self.days(self.tick("2025-01-25")), [30, 7])
        self.images("k", "2025-01-25T12:00:00", 50)
        self.assertEqual(self.days(self.after("refunded", "k", "2025-01-26")), [])
        self.assertEqual(self.warnings(self.tick("2025-01-31")), [("expiring", 50)])

    def test_another_end_is_warned_of_anew(self):
        self.start("c", "2025-01-01")
        cancel = lambda time, to: self.days(self.send("contract.cancelled", time, {"contract_id": "c", "effective_at": to + "T00:00:00Z"}))
        self.assertEqual(cancel("2025-01-10", "2025-02-09"), [30])
        self.assertEqual(cancel("2025-01-10T01:00:00", "2025-02-20"), [])      # the earlier end stands
        self.assertEqual(cancel("2025-01-20", "2025-01-27"), [7])
        self.assertEqual(cancel("2025-01-20T00:00:01", "2025-01-26"), [7])
        self.assertEqual(self.days(self.tick(at("2025-01-25") - 1)), [])
        self.assertEqual(self.days(self.tick("2025-01-25")), [1])
        self.assertEqual(self.days(self.tick("2025-02-01")), [])

    def test_each_term_has_its_own(self):
        self.start("c", "2025-01-01", months=1)
        self.send("contract.renewed", "2025-01-01T01:00:00", {"contract_id": "c"})
        self.assertEqual(self.days(self.tick(at("2025-02-01") - 1)), [30, 7, 1])
        result = self.tick("2025-02-01")                  # 200 of the first term still count until 01:00
        self.assertEqual([entry[0] for entry in result["entries"]], ["granted", "noted"])
        self.assertEqual([(a["amount"], a["days"], a["expires_at"]) for a in result["alerts"]], [(200, 30, at("2025-03-01"))])
        self.assertEqual(self.days(self.tick("2025-03-02")), [7, 1])

    def test_held_credits_are_unused_all_the_same(self):
        self.start("c", "2025-01-01", months=1)
        self.images("j", "2025-01-24T12:00:00", 150, kind="requested")
        result = self.tick("2025-01-25")
        self.assertEqual([(a["amount"], a["available"]) for a in result["alerts"] if a["kind"] == "expiring"], [(200, 50)])

    def test_contracts_one_after_the_other(self):
        self.start("c", "2025-01-01", months=1)
        self.start("d", "2025-01-02", starts="2025-02-01", months=2, plan="performance")
        result = self.tick("2025-04-02")
        self.assertEqual([(a["contract_id"], a["days"]) for a in result["alerts"] if a["kind"] == "expiring"],
                         [("c", 7), ("c", 1), ("d", 30), ("d", 7), ("d", 1)])
        self.assertEqual([(a["contract_id"], a["days"]) for a in self.life.results[1]["alerts"]], [("c", 30)])


class Unpaid(Warned):
    def test_after_seven_days(self):
        self.images("j", "2025-01-01T01:00:00", 100)
        self.assertEqual(self.images("k", "2025-01-03", 10)["alerts"], [])   # grows: its time runs on
        self.assertEqual(self.tick(at("2025-01-08T01:00:00") - 1)["entries"], [])
        result = self.tick("2025-01-08T01:00:00")
        self.assertEqual(result["entries"], [["noted", 0, 0, 110, 110, 0, -110]])
        self.assertEqual(result["alerts"], [
            {"wallet_id": "ws_1", "alert_id": "ws_1:overdraft_unpaid:3", "kind": "overdraft_unpaid", "level": "overdrawn",
             "seq": 3, "available": -110, "allocation": 0, "amount": 110}])
        self.assertEqual(self.tick("2025-03-01")["entries"], [])

    def test_paid_before_the_very_instant(self):
        for paid, expected in ((at("2025-01-08T01:00:00") - 1, []), (at("2025-01-08T01:00:00"), [("overdraft_unpaid", 100)])):
            self.begin(settings())
            self.images("j", "2025-01-01T01:00:00", 100)
            self.assertEqual(self.warnings(self.adjust("a", paid, 100)), expected)
            self.assertEqual(self.warnings(self.tick("2025-03-01")), [])

    def test_paid_in_that_instant_by_an_allocation_but_not_later(self):
        for starts, expected in (("2025-01-08T01:00:00", []), ("2025-01-08T01:00:00.001", [("overdraft_unpaid", 100)])):
            self.begin(settings())
            self.images("j", "2025-01-01T01:00:00", 100)
            self.start("c", "2025-01-02", starts=starts)
            result = self.tick("2025-01-09")
            self.assertEqual([alert for alert in self.warnings(result) if alert[0] == "overdraft_unpaid"], expected)

    def test_paid_in_part_it_is_still_the_same(self):
        self.images("j", "2025-01-01T01:00:00", 100)
        self.adjust("a", "2025-01-05", 99)
        self.assertEqual(self.kinds(self.tick("2025-01-08T01:00:00")), [("overdraft_unpaid", 1)])

    def test_paid_in_full_the_next_one_has_its_own_time(self):
        self.images("j", "2025-01-01T01:00:00", 100)
        self.adjust("a", "2025-01-05", 100)
        self.images("k", "2025-01-06", 5)
        self.assertEqual(self.warnings(self.tick(at("2025-01-13") - 1)), [])
        self.assertEqual(self.warnings(self.tick("2025-01-13")), [("overdraft_unpaid", 5)])
        self.adjust("b", "2025-01-14", 5)
        self.adjust("c", "2025-01-14T01:00:00", -2)
        self.assertEqual(self.warnings(self.tick("2025-01-21T01:00:00")), [("overdraft_unpaid", 2)])

    def test_since_the_latest_instant_of_the_wallet(self):
        self.adjust("a", "2025-01-05", 1)
        self.images("j", "2025-01-02", 10, wall="2025-01-05T00:00:01")
        self.assertEqual(self.tick(at("2025-01-12") - 1)["alerts"], [])
        self.assertEqual(self.warnings(self.tick("2025-01-12")), [("overdraft_unpaid", 9)])

    def test_an_expiry_moves_the_latest_instant_to_its_place(self):
        """An hour after it expires: that is the time of its entry."""
        self.adjust("a", "2025-01-01", 5, "2025-01-05T00:00:00")
        self.assertEqual(self.short(self.tick("2025-01-05T01:00:00")), [("expired", -5)])
        self.images("j", at("2025-01-04"), 10, wall="2025-01-05T01:00:00")
        self.assertEqual(self.warnings(self.tick(at("2025-01-12T01:00:00") - 1)), [])
        self.assertEqual(self.warnings(self.tick("2025-01-12T01:00:00")), [("overdraft_unpaid", 10)])


class Generated(unittest.TestCase):
    def test_alerts_are_as_their_schema_says_and_each_note_has_one(self):
        schema = json.loads(SCHEMA.read_text())
        known = set(schema["properties"]) - {"v", "raised_at"}
        required = set(schema["required"]) - {"v", "raised_at"}
        kinds, levels = schema["properties"]["kind"]["enum"], schema["$defs"]["level"]["enum"]
        for seed in range(500, 560):
            _, expected = generator.make_life(seed)
            ids, posted, level = set(), 0, "ok"
            for step in expected["steps"]:
                entries = step["entries"]
                warned = [posted + 1 + place for place, entry in enumerate(entries) if entry[0] == "noted" and entry[3]]
                self.assertEqual([a["seq"] for a in step["alerts"] if a["kind"] != "level"], warned)
                for alert in step["alerts"]:
                    self.assertLessEqual(required, set(alert))
                    self.assertLessEqual(set(alert), known)
                    self.assertIn(alert["kind"], kinds)
                    self.assertIn(alert["level"], levels)
                    self.assertNotIn(alert["alert_id"], ids)
                    ids.add(alert["alert_id"])
                    entry = entries[alert["seq"] - posted - 1]
                    self.assertEqual(alert["available"], entry[6] - entry[5])
                    if alert["kind"] == "level":
                        self.assertEqual(alert["level_before"], level)
                        level = alert["level"]
                    else:
                        self.assertEqual(alert["amount"], entry[3])
                self.assertEqual(level, step["level"])
                posted += len(entries)


if __name__ == "__main__":
    unittest.main()
