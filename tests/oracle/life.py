"""A life from its first step to its last: clock, checks in their order, outcome (domain §4, §5)."""
import contract_events
import reading
import rules
import times
from prices import Prices
from things import Job
from wallet import Wallet

DAY = 86_400_000


class Life:
    def __init__(self, wallet_name, settings):
        self.name = wallet_name
        self.settings = settings
        self.rules = {}
        self.prices = Prices(settings["pricing"])
        self.wallet = Wallet(settings, self.prices, self.rules)
        self.lateness = settings["allowed_lateness_ms"]
        self.horizon = settings["horizon_ms"]
        self.clock = 0
        self.seen = {}                # (source, id) -> (event time, payload)
        self.results = []
        self.alerts = []              # of the step under way
        self.sums = [0, 0, 0]         # overdraft, held, balance after the last entry
        self.first_due = None         # earliest instant anything is due; None: to be looked up

    def hit(self, rule):
        rules.hit(self.rules, rule)

    # Steps

    def step(self, step):
        """The clock moves by the traffic of other wallets (`tick_ms`), or an event comes, or the one right after the
        other: then what the tick made due stands before what the event does."""
        self.wallet.entries = entries = []
        self.alerts = []
        outcome, reason = "tick", None
        if "tick_ms" in step:
            self.clock = max(self.clock, min(step["tick_ms"], step["wall_ms"]))
        self.settle()
        if "event" in step:
            if entries:
                self.hit("due-posted-before-the-event-of-one-step")
            outcome, reason, at = self.event(step)
            if outcome != "quarantined":
                if at > step["wall_ms"] > self.clock:
                    self.hit("clock-not-beyond-the-wall")
                self.clock = max(self.clock, min(at, step["wall_ms"]))
                if outcome not in ("free", "duplicate"):
                    self.first_due = None
                    self.settle(self.reached(at, step))
                self.settle()
        wallet = self.wallet
        if entries:
            self.sums = entries[-1][4:]
        overdraft, held, balance = self.sums
        result = {"outcome": outcome, "reason": reason, "entries": entries, "balance": balance,
                  "held": held, "overdraft": overdraft, "level": wallet.level, "alerts": self.alerts}
        self.results.append(result)
        self.note_alerts()
        return result

    def settle(self, until=None):
        """Posts whatever is due at the clock, or at a later instant that the wallet's own event has reached, one by one,
        always the earliest of what there then is."""
        wallet, until = self.wallet, self.clock if until is None else until
        while self.first_due is None or self.first_due <= until:
            self.first_due, items = contract_events.due(wallet, self.lateness, until)
            if not items:
                if self.first_due == wallet.seen_until > until:
                    self.hit("warning-waits-for-the-clock")
                return
            item = min(items, key=lambda entry: entry[:3])
            before = len(wallet.entries)
            warning = contract_events.post_due(wallet, item)
            self.first_due = None
            if len(wallet.entries) > before:
                self.end_unit(item[0], before, warning)
                self.note_ties(item, items)

    def reached(self, at, step):
        """How far time has come for this wallet: the clock, this event and those before it, up to the wall clock."""
        return max(self.clock, min(max(at, self.wallet.seen_until), step["wall_ms"]))

    def end_unit(self, at, before, warning=None):
        """After the last entry of an event or of a due posting: its level, its alerts, what warnings remember. While
        credits of a contract are due the level stays what it was: the unit that posts the last of them sets it."""
        wallet = self.wallet
        wallet.seen_until = max(wallet.seen_until, at)
        level_before = wallet.level
        if not contract_events.credits_due(wallet):
            wallet.evaluate_level()
        if wallet.level != level_before:
            self.alert({"kind": "level", "level_before": level_before}, wallet.level)
            if warning is not None:
                self.hit("alert-of-level-before-the-warning-of-one-unit")
        if warning is not None:
            self.alert(warning, warning["kind"])
        wallet.warnings.after_unit({entry[0] for entry in wallet.entries[before:]})

    def alert(self, said, name):
        wallet = self.wallet
        plan = wallet.plan_at(wallet.seen_until)
        alert = {"wallet_id": self.name, "alert_id": "%s:%s:%d" % (self.name, name, wallet.order), "level": wallet.level,
                 "seq": wallet.order, "available": wallet.available(), "allocation": 0}
        if plan is not None:
            alert.update(plan=plan, allocation=wallet.prices.allocation(plan, wallet.seen_until))
        self.alerts.append(dict(alert, **said))

    def note_alerts(self):
        kinds = [alert["kind"] for alert in self.alerts]
        if kinds.count("expiring") > 1:
            self.hit("expiring-several-thresholds-in-one-step")
        if kinds.count("level") > 1:
            self.hit("alerts-of-several-levels-in-one-step")
        if "expiring" in kinds and "runway" in kinds:
            self.hit("alerts-of-several-warnings-in-one-step")

    def note_ties(self, item, items):
        together = [other for other in items if other[0] == item[0] and other is not item]
        if any(other[1] == item[1] for other in together):
            self.hit("due-same-instant-same-kind-by-id")
        if any(other[1] > item[1] for other in together):
            self.hit("due-same-instant-by-kind")
        if any(other[1] > 5 for other in together):
            self.hit("warnings-of-one-instant" if item[1] > 5 else "warning-after-what-else-is-due")

    # Events

    def event(self, step):
        """(outcome, reason, event time)"""
        topic, event = step["topic"], step["event"]
        kind, reason = reading.kind_of(topic, event)
        if reason is None:
            at, reason = reading.envelope(event)
        if reason is None:
            if event["subject"] != self.name:
                raise ValueError("a life of %s has an event of %s" % (self.name, event["subject"]))
            reason = self.window(at, step)
        if reason is not None:
            return self.quarantine(reason)
        if kind in reading.FREE:
            self.hit("free-event")
            return "free", None, at

        # Identity: what is past the horizon is forgotten; what was not accepted has never been there.
        identity = (event["source"], event["id"])
        payload = reading.payload(event, at)
        known = self.seen.get(identity)
        if known is not None and known[0] < self.first_day():
            self.hit("identity-forgotten-after-horizon")
            known = None
        if known is not None:
            if known[1] == payload:
                self.hit("duplicate")
                if set(event["data"]) - set(payload[2]):
                    self.hit("duplicate-with-unknown-or-null-field")
                return "duplicate", None, at
            if known[1][0] != payload[0]:
                self.hit("id-conflict-by-type")
            elif known[1][1] == payload[1]:
                self.hit("id-conflict-by-data-alone")
            return self.quarantine("id_conflict")

        data = event["data"]
        if reading.data_missing(kind, data):
            return self.quarantine("missing_field")
        if reading.data_bad(kind, data, at, self.settings):
            return self.quarantine("bad_value")
        if kind.startswith("contract.") and data.get("plan") is not None \
                and self.prices.plan(data["plan"], at) is None:
            return self.quarantine("unknown_plan")
        if kind == "topup.purchased" and self.prices.pack(data["amount_usd"], at) is None:
            return self.quarantine("unknown_topup")

        entries_before = len(self.wallet.entries)
        empty = [grant for grant in self.wallet.open_grants if not grant.remaining]
        self.settle(self.reached(at, step))
        if len(self.wallet.entries) > entries_before:
            self.hit("due-by-its-time-posted-before-the-event")
        clock_before, before = self.clock, len(self.wallet.entries)
        if kind.startswith("generation."):
            outcome, reason = self.usage(kind, data, at)
        else:
            outcome, reason = self.wallet_event(kind, data, at)
        if reason is not None:
            # What was due and had entries stands. An expiry without one has left nothing by which it could be known.
            for grant in empty:
                if grant.expiry_posted:
                    grant.expiry_posted = False
                    self.wallet.open_grants.append(grant)
                    self.first_due = None
            return self.quarantine(reason)
        self.seen[identity] = (max(at, clock_before) // DAY, payload)
        if self.first_due is not None and self.first_due <= at:
            self.hit("event-before-what-is-due-at-its-time")
        if at < self.clock:
            self.hit("event-late-but-accepted")
        self.end_unit(at, before)
        return outcome, None, at

    def quarantine(self, reason):
        self.hit("quarantined-" + reason.replace("_", "-"))
        return "quarantined", reason, None

    def window(self, at, step):
        """Both edges are in time."""
        floor = max(self.clock, min(step["record_ms"], step["wall_ms"])) - self.horizon
        ceiling = step["wall_ms"] + self.settings["max_clock_skew_ms"]
        if at == floor:
            self.hit("exactly-at-horizon-is-in-time")
        if at == ceiling:
            self.hit("exactly-at-skew-is-in-time")
        if at < floor:
            if at >= self.clock - self.horizon:
                self.hit("too-old-by-record-time-alone")
            return "too_old"
        return "too_far_ahead" if at > ceiling else None

    def first_day(self):
        """Memory is kept by the day: this is the first one that is remembered."""
        return (self.clock - self.horizon) // DAY

    def job(self, job_id):
        """What is remembered of a job; when the horizon has passed its last day, nothing."""
        job = self.wallet.jobs.get(job_id)
        if job is None:
            return None
        if job.day < self.first_day():
            self.hit("job-forgotten-after-horizon")
            return None
        for asset_id in [asset_id for asset_id, day in job.asset_days.items() if day < self.first_day()]:
            job.forget(asset_id)
            self.hit("asset-forgotten-before-its-job")
        return job

    def usage(self, kind, data, at):
        wallet = self.wallet
        asset_id = data.get("asset_id")
        job = self.job(data["job_id"])
        if kind == "generation.completed" and job is not None and job.charges:
            if asset_id in job.charges:
                self.hit("job-conflict-after-refusal" if job.charges[asset_id].refused else "job-conflict-second-completion")
                return None, "job_conflict"
            if asset_id is None or None in job.charges:
                self.hit("job-conflict-kind-mixed")
                return None, "job_conflict"
        if kind == "generation.completed" and job is not None and job.by_asset and asset_id is None:
            return None, "job_conflict"
        if job is None:
            job = wallet.jobs[data["job_id"]] = Job()
        job.first_day = self.first_day()
        if kind != "generation.requested":
            job.remember(asset_id, max(at, self.clock) // DAY)
        if kind in reading.AFTERMATH:
            return wallet.aftermath(job, kind, data, at), None
        quantity = data["images"] if data["asset"] == "image" else data["seconds"]
        cost = self.prices.cost(data["asset"], quantity, data.get("model"), at)
        if kind == "generation.requested":
            return wallet.requested(job, data, cost, at, self.clock), None
        exact = quantity * self.prices.rate(data["asset"], data.get("model"), at)
        if exact != cost:
            self.hit("cost-rounded-up")
        if self.prices.rate(data["asset"], None, at) != self.prices.rate(data["asset"], data.get("model"), at):
            self.hit("cost-by-models-own-rate")
        if self.prices.version(self.prices.cards, at) > 0:
            self.hit("cost-by-later-rate-card")
            if at == self.prices.since(self.prices.cards, at):
                self.hit("cost-at-the-first-instant-of-a-rate-card")
        outcome = wallet.completed(job, data, quantity, cost, at)
        job.charges[asset_id].day = max(at, self.clock) // DAY
        return outcome, None

    def wallet_event(self, kind, data, at):
        wallet = self.wallet
        handler = {"contract.started": contract_events.started, "contract.plan_changed": contract_events.plan_changed,
                   "contract.renewed": contract_events.renewed, "contract.cancelled": contract_events.cancelled}.get(kind)
        if handler is not None:
            reason = handler(wallet, data, at)
            return "contract", reason
        if kind == "wallet.limits_changed":
            return wallet.limits(data), None
        name = "topup" if kind == "topup.purchased" else "adjustment"
        business_id = (name, data[name + "_id"])
        if business_id in wallet.business_ids:
            self.hit(name + "-id-used-again")
            return None, "id_conflict"
        if business_id[1] in wallet.contracts or any(used == business_id[1] for _, used in wallet.business_ids):
            self.hit("business-id-of-another-kind-is-free")
        wallet.business_ids.add(business_id)
        if name == "adjustment":
            return wallet.adjusted(data, at), None
        credits = self.prices.pack(data["amount_usd"], at)
        if at == self.prices.since(self.prices.topups, at):
            self.hit("topup-at-the-first-instant-of-its-packs")
        wallet.last_topup = credits
        wallet.grant("topup", ("topup", data["topup_id"]), credits, at, None)
        self.hit("topup-without-contract" if wallet.contract_at(at) is None else "topup-beside-contract")
        return "granted", None

    # Result

    def expected(self):
        grants = [{"kind": g.kind, "granted": g.granted, "remaining": g.remaining, "repaid": g.repaid,
                   "granted_at_ms": g.granted_at, "expires_at_ms": g.expires_at, "priority": g.priority}
                  for g in self.wallet.all_grants]
        grants.sort(key=lambda g: (g["kind"], g["granted"], g["remaining"], g["repaid"], g["granted_at_ms"],
                                   g["expires_at_ms"] is None, g["expires_at_ms"] or 0, g["priority"]))
        return {"steps": self.results, "grants": grants, "usage": self.wallet.usage,
                "rules": dict(sorted(self.rules.items()))}


def expected_of(life):
    whole = Life(life["wallet"], life["settings"])
    for step in life["steps"]:
        if not ({"tick_ms", "wall_ms"} == step.keys() or {"topic", "event", "wall_ms", "record_ms"} <= step.keys()):
            raise ValueError("a step is neither an event nor a tick: %r" % (step,))
        whole.step(step)
    return whole.expected()
