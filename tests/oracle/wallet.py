"""One wallet: grants, overdraft, holds, jobs, level (domain §2, §3, §6, §8). Plain objects, and every sum
worked out anew. Nothing here knows of topics, identities or clocks beyond the instants it is given."""
import rules
import times
from things import Charge, Grant, Hold
from warned import Warnings

HOLD_LASTS = 24 * times.HOUR
LEVELS = ("ok", "low", "critical", "exhausted", "overdrawn")


class Wallet:
    def __init__(self, settings, prices, hits):
        self.settings = settings
        self.prices = prices
        self.rules = hits
        self.entries = []             # of the step under way
        self.all_grants = []
        self.open_grants = []         # whose expiry is not posted
        self.overdraft = 0
        self.timed_out = set()        # only to count a rule
        self.holds = {}               # (job_id, asset_id or None) -> Hold, in order of making
        self.jobs = {}
        self.contracts = {}
        self.business_ids = set()
        self.limit = "plan"
        self.percent = {"low": "plan", "critical": "plan"}
        self.last_topup = 0
        self.level = "ok"
        self.seen_until = 0           # latest event time or due instant of its entries
        self.order = 0
        self.usage = {}
        self.warnings = Warnings(self)

    def hit(self, rule):
        rules.hit(self.rules, rule)

    # Sums and entries

    def balance(self):
        return sum(grant.remaining for grant in self.open_grants) - self.overdraft

    def held(self):
        return sum(hold.left for hold in self.holds.values())

    def available(self):
        return self.balance() - self.held()

    def post(self, kind, credits=0, held_credits=0, amount=0):
        self.order += 1
        self.entries.append([kind, credits, held_credits, amount, self.overdraft, self.held(), self.balance()])

    def bucket(self, at, asset_type, model, plan):
        name = "%s|%s|%s|%s" % (times.hour_name(at), asset_type, model or "", plan or "")
        if name not in self.usage:
            self.usage[name] = {"jobs": 0, "images": 0, "video_ms": 0, "credits_charged": 0,
                                "credits_reversed": 0, "credits_refused": 0}
        return self.usage[name]

    # Contracts as seen from the wallet

    def contract_at(self, at):
        for contract in self.contracts.values():
            if contract.runs_at(at):
                return contract
        return None

    def plan_at(self, at):
        contract = self.contract_at(at)
        return None if contract is None else contract.plan_at(at)

    # Credits that come in

    def grant(self, kind, key, credits, granted_at, expires_at, contract=None, entry="granted"):
        """A grant of nothing posts nothing. Whatever comes in repays overdraft at once, if valid then."""
        if credits == 0:
            return None
        grant = Grant(kind, key, credits, granted_at, expires_at, self.settings[kind + "_priority"], contract)
        self.all_grants.append(grant)
        self.open_grants.append(grant)
        self.post(entry, credits=credits)
        if self.repay([(grant, credits)], granted_at):
            self.hit("overdraft-repaid-by-" + kind)
        return grant

    def repay(self, incoming, at):
        """Overdraft is repaid out of the very credits that came in: [(grant, credits)]. One entry."""
        total = 0
        for place, (grant, credits) in enumerate(incoming):
            if not grant.valid_at(at):
                if self.overdraft and credits:
                    self.hit("overdraft-not-repaid-by-invalid-grant")
                continue
            part = min(credits, self.overdraft, grant.remaining)
            if part:
                grant.remaining -= part
                grant.repaid += part
                grant.repaid_order = (self.order + 1, place)   # of one entry the last is the latest
                grant.repaid_time = at
                self.overdraft -= part
                total += part
        if total:
            self.post("overdraft_repaid", amount=total)
            self.hit("overdraft-repaid-in-full" if self.overdraft == 0 else "overdraft-repaid-in-part")
        return total

    # Credits that go out

    def drawable(self, at):
        usable = [grant for grant in self.open_grants if grant.remaining and grant.valid_at(at)]
        usable.sort(key=lambda g: (g.priority, g.expiry(), g.granted_at, g.key))
        return usable

    def plan_draws(self, credits, at):
        """([(grant, part)], what no grant covers); nothing is drawn yet."""
        draws = []
        for grant in self.drawable(at):
            if credits == 0:
                break
            part = min(credits, grant.remaining)
            draws.append((grant, part))
            credits -= part
        return draws, credits

    def draw(self, draws, uncovered):
        for grant, part in draws:
            grant.remaining -= part
        self.overdraft += uncovered

    def limit_at(self, at):
        """(limit or None, where it comes from): the wallet's own word, else the plan's, by event time."""
        if self.limit == "none":
            return None, "none"
        if self.limit != "plan":
            return self.limit, "wallet"
        plan = self.plan_at(at)
        if plan is None:
            return None, "no-plan"
        return self.prices.overdraft_limit(plan, at), "plan"

    # Holds

    def release(self, key, credits=None):
        """Ends a hold, or takes a part of it; nothing left to release is no entry."""
        hold = self.holds[key]
        part = hold.left if credits is None else min(credits, hold.left)
        hold.left -= part
        if hold.left == 0:
            del self.holds[key]
        self.post("released", held_credits=-part)
        return part

    def release_all_of(self, job_id):
        keys = [key for key in self.holds if key[0] == job_id]
        for key in sorted(keys, key=lambda key: (self.holds[key].deadline, key[1] or "")):
            self.release(key)
        return len(keys)

    def requested(self, job, data, cost, at, clock):
        job_id, asset_id = data["job_id"], data.get("asset_id")
        key = (job_id, asset_id)
        if at + HOLD_LASTS <= clock:
            why = "hold-after-its-own-timeout"
        elif None in job.ended or asset_id in job.ended:
            why = "hold-after-job-ended"
        elif None in job.charges or asset_id in job.charges or (asset_id is None and (job.charges or job.by_asset)):
            why = "hold-after-charge"
        elif key in self.holds:
            why = "hold-second-for-job"
        elif cost == 0:
            why = "hold-of-zero"
        else:
            self.holds[key] = Hold(cost, at + HOLD_LASTS)
            self.post("held", held_credits=cost)
            self.hit("hold-made-for-asset" if asset_id else "hold-made-for-job")
            if key in self.timed_out:
                self.hit("hold-again-after-timeout")
            if job.undone:
                self.hit("hold-after-refund")
            if self.balance() - self.held() < 0:
                self.hit("hold-makes-available-negative")
            return "held"
        self.hit(why)
        self.post("noted")
        return "noted"

    def release_for_completion(self, job_id, asset_id, cost):
        """Whole job: every hold of it. One asset: its own hold; without one, as much of the job's as it costs."""
        if asset_id is None:
            if self.release_all_of(job_id) > 1:
                self.hit("hold-whole-completion-ends-several")
            return
        if (job_id, asset_id) in self.holds:
            self.release((job_id, asset_id))
            self.hit("hold-of-own-asset-released")
        elif (job_id, None) in self.holds and cost:
            if cost < self.holds[(job_id, None)].left:
                self.hit("hold-partial-by-asset")
            else:
                self.hit("hold-used-up-by-asset")
            self.release((job_id, None), cost)

    # Usage

    def completed(self, job, data, quantity, cost, at):
        """What has been made is charged, from grants and then overdraft; or refused whole by a limit."""
        asset_id, asset_type, model = data.get("asset_id"), data["asset"], data.get("model")
        job.by_asset = job.by_asset or asset_id is not None
        had_hold = any(key[0] == data["job_id"] for key in self.holds)
        self.release_for_completion(data["job_id"], asset_id, cost)
        self.hit("charge-with-hold" if had_hold else "charge-without-hold")
        plan = self.plan_at(at)
        draws, uncovered = self.plan_draws(cost, at)
        limit, limit_from = self.limit_at(at)
        bucket = self.bucket(at, asset_type, model, plan)
        # Only a charge that adds to the overdraft can take it past the limit.
        if uncovered and limit is not None and self.overdraft + uncovered > limit:
            job.charges[asset_id] = Charge(cost, [], 0, True, asset_type, model, plan)
            bucket["credits_refused"] += cost
            self.post("refused", amount=cost)
            self.hit("refused-by-zero-limit" if limit == 0 else "refused-by-%s-limit" % limit_from)
            return "refused"
        self.note_draws(draws, uncovered, cost, at, limit, limit_from)
        self.draw(draws, uncovered)
        charge = Charge(cost, draws, uncovered, False, asset_type, model, plan, at)
        job.charges[asset_id] = charge
        bucket["credits_charged"] += cost
        if asset_type == "image":
            bucket["images"] += int(quantity)
        else:
            bucket["video_ms"] += int(quantity * 1000)
        if not job.counted:
            job.counted = True
            bucket["jobs"] += 1
        self.post("charged", credits=-cost)
        self.warnings.charge(cost, at)
        if self.balance() - self.held() == 0:
            self.hit("charge-takes-available-to-zero")
        if None in job.undone or asset_id in job.undone:
            self.hit("undone-before-its-charge" if asset_id in job.undone else "undone-as-later-asset-of-job")
            self.reverse(charge, at)
        elif asset_id is None and job.undone:
            self.hit("undone-asset-does-not-undo-whole-charge")
        elif job.ended and job.ended.isdisjoint(job.undone):
            self.hit("charge-after-cancellation-stands")
        return "charged"

    def note_draws(self, draws, uncovered, cost, at, limit, limit_from):
        if cost == 0:
            self.hit("charge-of-zero-is-posted")
        if uncovered and draws:
            self.hit("charge-part-grants-part-overdraft")
        elif uncovered:
            self.hit("charge-all-overdraft")
        elif len(draws) == 1:
            self.hit("charge-from-one-grant")
        elif len(draws) == 2:
            self.hit("charge-from-two-grants")
        elif draws:
            self.hit("charge-from-three-grants-or-more")
        if uncovered and limit is not None and self.overdraft + uncovered == limit:
            self.hit("limit-exactly-reached")
        if uncovered and limit is None and limit_from == "none":
            self.hit("limit-none-lifts-the-plans")
        if not uncovered and limit is not None and self.overdraft > limit:
            self.hit("charge-covered-though-overdraft-past-limit")
        kinds = [grant.kind for grant, _ in draws]
        if "topup" in kinds and "plan" in kinds:
            self.hit("burn-plan-before-topup")
        if "adjustment" in kinds and "plan" in kinds:
            self.hit("burn-plan-before-adjustment")
        if "adjustment" in kinds and "topup" in kinds:
            self.hit("burn-adjustment-before-topup")
        for grant, _ in draws:
            if at < grant.granted_at:
                self.hit("grant-pays-for-usage-older-than-itself")
            if at == grant.expiry() - 1:
                self.hit("grant-pays-last-ms-before-expiry")
            if grant.expiry() <= self.seen_until and at < grant.expiry():
                self.hit("late-usage-paid-by-then-valid-grant")
        if uncovered and limit_from == "plan" and self.prices.version(self.prices.plans, at):
            self.hit("limit-of-later-plans-version")
            if limit is not None and self.prices.plan(self.plan_at(at), at) is None:
                self.hit("limit-of-a-plan-off-sale")
        if uncovered == 0 and limit_from == "plan" and limit == 0:
            self.hit("charge-covered-under-zero-limit")
        if at < self.seen_until and any(g.expiry_posted and g.granted_at <= at < g.expiry() for g in self.all_grants):
            self.hit("too-late-for-expired-grant-next-one-pays")
        for grant in self.open_grants:
            if grant.remaining and at >= grant.expiry():
                self.hit("charge-skips-expired-grant-still-in-balance")
                if at == grant.expiry():
                    self.hit("charge-at-exact-expiry-skips-grant")

    def reverse(self, charge, at):
        """Gives one charge back, once. The grants' share returns to them; the overdraft's share meets
        the overdraft of now, then the grants that repaid overdraft, the latest to do so first."""
        charge.reversed = True
        returned = list(charge.draws)
        for grant, part in charge.draws:
            grant.remaining += part
        against = min(charge.overdraft, self.overdraft)
        self.overdraft -= against
        rest = charge.overdraft - against
        touched = [grant for grant, _ in charge.draws]
        if against:
            self.hit("reversal-against-open-overdraft")
        if rest:
            repayers = sorted((grant for grant in self.all_grants if grant.repaid),
                              key=lambda grant: grant.repaid_order, reverse=True)
            for number, grant in enumerate(repayers):
                part = min(rest, grant.repaid)
                if part == 0:
                    break
                grant.repaid -= part
                grant.remaining += part
                rest -= part
                if grant not in touched:
                    touched.append(grant)
                if at - grant.repaid_time > self.settings["horizon_ms"] + times.DAY:
                    self.hit("reversal-to-grant-that-repaid-before-the-horizon")
                self.hit("reversal-to-repaying-grant" if number == 0 else "reversal-to-repaying-grants-latest-first")
        if rest:
            raise AssertionError("a reversal of overdraft found neither overdraft nor a grant that repaid it")
        asset_type, model, plan = charge.bucket
        self.bucket(at, asset_type, model, plan)["credits_reversed"] += charge.cost
        # The balance of the entry still has what goes into closed grants: their expiry follows at once.
        closed = [grant for grant in touched if grant.expiry_posted and grant.remaining]
        self.open_grants.extend(closed)
        self.post("reversed", credits=charge.cost)
        self.warnings.give_back(charge.cost, charge.at)
        for grant in closed:
            credits, grant.remaining = grant.remaining, 0
            self.open_grants.remove(grant)
            self.post("expired", credits=-credits)
            self.hit("reversal-into-expired-grant")
        if len(charge.draws) > 1:
            self.hit("reversal-to-several-grants")
        if any(grant.expiry() > at for grant in closed):
            self.hit("reversal-in-time-into-grant-already-closed")
        if any(not g.expiry_posted and at >= g.expiry() for g in touched):
            self.hit("reversal-into-grant-past-expiry-not-posted")
        if self.repay(returned, at):
            self.hit("reversal-repays-overdraft")

    def aftermath(self, job, kind, data, at):
        """failed, rejected, refunded, cancelled: holds end (not by a refund), charges go back (not by a
        cancellation); what is left to remember is noted."""
        job_id, asset_id = data["job_id"], data.get("asset_id")
        outcome = "noted"
        if kind != "generation.refunded":
            if asset_id is None:
                ended = self.release_all_of(job_id)
                if ended > 1:
                    self.hit("hold-several-released-with-job")
            else:
                ended = (job_id, asset_id) in self.holds
                if ended:
                    self.release((job_id, asset_id))
            job.ended.add(asset_id)
            if ended:
                outcome = "released"
                self.hit("hold-released-by-" + kind.split(".")[1])
        elif any(key[0] == job_id for key in self.holds):
            self.hit("refund-keeps-hold")
        if kind == "generation.cancelled":
            if outcome == "noted":
                self.hit("cancelled-keeps-charge" if job.charges else "cancelled-without-hold-noted")
                self.post("noted")
            return outcome
        again = asset_id in job.undone or None in job.undone
        job.undone.add(asset_id)
        if asset_id is None:
            named = list(job.charges.values())
            if len(named) > 1:
                self.hit("reversal-of-whole-job-with-several-assets")
        else:
            named = [job.charges[asset_id]] if asset_id in job.charges else []
            if named and len(job.charges) > 1:
                self.hit("reversal-of-one-asset-of-several")
            if None in job.charges:
                self.hit("reversal-of-asset-of-whole-charge-noted")
        for charge in named:
            if charge.refused:
                self.hit("reversal-of-refused-noted")
            elif charge.reversed:
                self.hit("reversal-second-noted")
            elif charge.day < job.first_day:
                self.hit("reversal-past-the-horizon-noted")
            elif charge.cost:
                for own, charged in job.charges.items():
                    if charged is charge and own is not None:
                        job.remember(own, job.day)
                self.reverse(charge, at)
                outcome = "reversed"
                self.hit("reversal-by-" + kind.split(".")[1])
        if not named and not again:
            self.hit("%s-before-charge" % kind.split(".")[1])
        if outcome == "noted":
            self.post("noted")
        return outcome

    # Adjustments and limits

    def adjusted(self, data, at):
        credits = int(data["credits"])
        expires_at = times.parse(data.get("expires_at"))
        if credits > 0:
            self.grant("adjustment", ("adjustment", data["adjustment_id"]), credits, at, expires_at, entry="adjusted")
            self.hit("adjustment-up-with-expiry" if expires_at is not None else "adjustment-up-for-ever")
            return "adjusted"
        draws, uncovered = self.plan_draws(-credits, at)
        limit, _ = self.limit_at(at)
        self.draw(draws, uncovered)
        self.post("adjusted", credits=credits)
        if uncovered and limit is not None and self.overdraft > limit:
            self.hit("debit-goes-past-the-limit")
        self.hit("debit-into-overdraft" if uncovered else "debit-drawn-from-grants")
        return "adjusted"

    def limits(self, data):
        value = data.get("overdraft_limit")
        if value is not None:
            self.limit = value if isinstance(value, str) else int(value)
            self.hit("limits-overdraft-" + (value if isinstance(value, str) else "number"))
        for name in ("low", "critical"):
            value = data.get(name + "_percent")
            if value is not None:
                self.percent[name] = value if isinstance(value, str) else int(value)
                self.hit("limits-percent-plan" if value == "plan" else "limits-percent-number")
        self.post("limits_changed")
        return "limits"

    # Level

    def level_base(self):
        """The allocation of the plan in force, else the last top-up, else nothing."""
        plan = self.plan_at(self.seen_until)
        if plan is not None:
            return self.prices.allocation(plan, self.seen_until)
        return self.last_topup

    def threshold(self, name, place):
        """Its own, else its plan's, else that of the configuration, percent."""
        own, plan = self.percent[name], self.plan_at(self.seen_until)
        if own != "plan":
            return own
        of_plan = None if plan is None else self.prices.thresholds(plan, self.seen_until)[place]
        if of_plan is None:
            return self.settings[name + "_percent"]
        self.hit("threshold-of-the-plan-" + name)
        return of_plan

    def evaluate_level(self):
        balance = self.balance()
        available = balance - self.held()
        base = self.level_base()
        low, critical = self.threshold("low", 0), self.threshold("critical", 1)
        margin = self.settings["hysteresis_percent"]
        if balance < 0:
            fits = "overdrawn"
        elif available <= 0:
            fits = "exhausted"
        elif available * 100 <= critical * base:
            fits = "critical"
        elif available * 100 <= low * base:
            fits = "low"
        else:
            fits = "ok"
        if LEVELS.index(fits) < LEVELS.index(self.level):
            left = {"low": available * 100 > (low + margin) * base,
                    "critical": available * 100 > (critical + margin) * base,
                    "exhausted": available > 0,
                    "overdrawn": available > 0}[self.level]
            if not left:
                self.hit("level-kept-by-hysteresis-" + self.level)
                return
        if fits != self.level:
            if base == self.last_topup and self.contract_at(self.seen_until) is None:
                self.hit("level-base-is-last-topup" if base else "level-base-is-nothing")
            self.hit("level-%s-%s" % ("worsens-to" if LEVELS.index(fits) > LEVELS.index(self.level) else "recovers-to", fits))
            self.level = fits
