"""Scenes of a random life: what people and programs do, and do wrong."""
from decimal import Decimal

import again
import malformed
import times
import warned_scenes
from settings import PLANS


def random_scene(maker):
    wallet = maker.wallet
    if wallet.warnings.first_day is None and maker.chance(0.12):
        return warned_scenes.first_weeks(maker)
    running = [c for c in wallet.contracts.values() if c.end() > maker.wall]
    if not running and maker.chance(0.45):
        return start_contract(maker)
    if wallet.overdraft > 400 and maker.chance(0.5):
        return topup(maker)
    draw = maker.rng.random()
    for share, scene in SCENES:
        draw -= share
        if draw < 0:
            return scene(maker)
    return one_job(maker)


# Usage

def quantity(maker, at):
    """Usage data, often sized so that a balance or a limit is met to the credit."""
    wallet = maker.wallet
    draw = maker.rng.random()
    room = sum(grant.remaining for grant in wallet.drawable(at))
    limit, _ = wallet.limit_at(at)
    size = None
    if draw < 0.10 and room:
        size = room + maker.pick(0, 0, 1, -1)
    elif draw < 0.22 and limit is not None:
        size = room + limit - wallet.overdraft + maker.pick(0, 0, 0, 1)
    elif draw < 0.32 and room > 4:
        size = room - wallet.level_base() * maker.pick(5, 10, 20, 24, 25) // 100
    elif draw < 0.40 and room:
        first = wallet.drawable(at)
        size = sum(grant.remaining for grant in first[:maker.pick(1, 2, 3)]) + maker.pick(0, 1, 2)
    elif draw < 0.7:
        size = maker.rng.randint(1, max(2, wallet.level_base() // 3, room // 3))
    if size is not None and size > 0:
        rate = wallet.prices.rate("image", None, at)
        images = min(maker.settings["images_max"], max(1, int(size / rate)))
        return {"asset": "image", "images": maker.pick(images, images, images, Decimal(images), Decimal("%d.0" % images))}
    if maker.chance(0.5):
        data = {"asset": "image", "images": maker.pick(1, 2, 4, 8, Decimal("8.0"), Decimal("1E+1"))}
        if maker.chance(0.4):
            data["model"] = maker.pick("flux", "draft", "other-one")
    else:
        data = {"asset": "video", "seconds": maker.pick(4, 8, 12, Decimal("2.5"), Decimal("0.001"), Decimal("7.333"), Decimal("6.0"))}
        if maker.chance(0.6):
            data["model"] = "veo-3"
    return data


def free_of_charge(maker, data, at):
    return maker.life.prices.rate(data["asset"], data.get("model"), at) == 0


def usage_data(maker, job_id, asset_id, at):
    data = dict(quantity(maker, at), job_id=job_id)
    if asset_id is not None:
        data["asset_id"] = asset_id
    if maker.chance(0.3):
        data.update(user_id="u_9", project_id="p_3")
    return data


KINDS = {"Q": "generation.requested", "C": "generation.completed", "F": "generation.failed",
         "J": "generation.rejected", "X": "generation.cancelled", "R": "generation.refunded"}


def act(maker, code, job_id, asset_id, at):
    kind = KINDS[code]
    if code in "QC":
        data = usage_data(maker, job_id, asset_id, at)
        while code == "Q" and free_of_charge(maker, data, at) and maker.chance(0.2):
            data = usage_data(maker, job_id, asset_id, at)
    else:
        data = {"job_id": job_id}
        if asset_id is not None:
            data["asset_id"] = asset_id
        if maker.chance(0.3):
            data["reason"] = "render node lost"
    result = maker.send(kind, data, at)
    if maker.chance(0.06):
        maker.later(maker.wall + maker.pick(0, 1000, times.HOUR, times.DAY), lambda: again.repeat(maker, maker.sent[-1] if maker.sent else None))
    return result


PATTERNS = ("C", "C", "QC", "QC", "QC", "QC", "CF", "CR", "FC", "RC", "JC", "CJ", "QX", "QXC", "QF", "QFC", "QCR", "CRR",
            "CFR", "CC", "QQC", "CQ", "FQ", "Q", "Q", "RQC", "XQC", "QJ", "QR", "QRC", "CX", "X", "R", "F", "QCC", "XC")


def one_job(maker):
    """A whole job in one of its orders, on time or shuffled, its end sometimes long after."""
    play(maker, [(code, None) for code in maker.pick(*PATTERNS)])


def asset_job(maker):
    """A job that delivers assets one by one, some with holds of their own, some undone, some mixed up."""
    assets = ["a%d" % number for number in range(maker.rng.randint(1, 4))]
    plot = []
    if maker.chance(0.08):  # holds of both kinds, and one end of the job for all
        return play(maker, [("Q", None), ("Q", "a0"), ("Q", "a1"), (maker.pick("C", "F", "X", "R"), None)], close=True)
    if maker.chance(0.05):  # an asset undone, then the job charged whole
        return play(maker, [(maker.pick("F", "R", "J"), "a0"), ("C", None), ("R", maker.pick("a0", None))])
    if maker.chance(0.6):
        plot.append(("Q", None))
    for asset in assets:
        if maker.chance(0.3):
            plot.append(("Q", asset))
    undo = maker.pick("", "", "one", "one", "whole", "whole-early", "both", "same-twice")
    if undo == "whole-early":
        plot.insert(min(len(plot), 2), (maker.pick("F", "R", "J"), None))
    for asset in assets:
        plot.append(("C", asset))
        if undo in ("one", "both") and maker.chance(0.6):
            plot.append((maker.pick("F", "R", "J", "R"), asset))
        if maker.chance(0.1):
            plot.append((maker.pick("C", "X", "Q"), asset))
    if undo in ("whole", "both"):
        plot.insert(max(0, len(plot) - maker.pick(0, 0, 1)), (maker.pick("F", "R", "J"), None))
    if undo == "same-twice":
        plot += [("R", assets[0]), ("R", assets[0])]
    if maker.chance(0.15):
        plot.insert(maker.rng.randint(0, len(plot)), ("C", None))
    if maker.chance(0.1):
        plot.append(("X", None))
    if maker.chance(0.1):
        plot.append(("Q", None))
    play(maker, plot)


def play(maker, plot, close=False):
    job_id = maker.name("job")
    arrival = maker.wall
    shuffled = not close and maker.chance(0.25)
    orders = list(plot)
    if shuffled:
        maker.rng.shuffle(orders)
    for code, asset in orders:
        def action(code=code, asset=asset):
            act(maker, code, job_id, asset, maker.wall - maker.delay())
        if arrival == maker.wall and not maker.waiting:
            action()
        else:
            maker.later(arrival, action)
        arrival += maker.rng.randrange(1, times.MINUTE) if close else gap_between(maker, code)


def gap_between(maker, code):
    draw = maker.rng.random()
    if draw < 0.70:
        return maker.rng.randrange(1, 20 * times.MINUTE)
    if draw < 0.80:
        return times.DAY + maker.pick(-1, 0, 1, 5000, times.HOUR)
    if draw < 0.95:
        return maker.rng.randrange(times.DAY, 25 * times.DAY)
    return maker.pick(36, 40, 60) * times.DAY


def repaying_story(maker):
    """Overdraft, credits that repay it, and then the charge is undone."""
    job_id = maker.name("job")
    at = maker.wall
    room = sum(grant.remaining for grant in maker.wallet.drawable(at))
    size = room + maker.rng.randint(5, 90)
    maker.send("generation.completed", {"job_id": job_id, "asset": "image", "images": min(size, 4000)}, at)
    between = maker.rng.randint(0, 3)
    for number in range(between):
        maker.wall += maker.rng.randrange(1, times.HOUR)
        if maker.chance(0.5):
            maker.send("wallet.adjusted", {"adjustment_id": maker.name("adj"), "credits": maker.rng.randint(1, 50),
                                           "reason": "goodwill", "actor": "ann",
                                           "expires_at": times.text(maker.wall + maker.rng.randint(1, 9) * times.DAY)}, maker.wall)
        else:
            topup(maker)

    def undo():
        act(maker, maker.pick("R", "F", "J"), job_id, None, maker.wall - maker.pick(0, 1000))
    maker.later(maker.wall + maker.pick(1000, times.HOUR, 3 * times.DAY, 12 * times.DAY, 30 * times.DAY), undo)


def expiry_story(maker):
    """Usage and its undoing just around the expiry of a grant, which may come soon."""
    dated = [g for g in maker.wallet.open_grants if g.expires_at is not None and g.remaining and g.expires_at > maker.wall]
    if not dated or maker.chance(0.3):
        expires = maker.wall + maker.rng.randrange(times.HOUR, 9 * times.DAY)
        maker.send("wallet.adjusted", {"adjustment_id": maker.name("adj"), "credits": maker.rng.randint(3, 40), "reason": "trial",
                                       "actor": "bob", "expires_at": maker.spell(expires)}, maker.wall)
    else:
        expires = min(g.expires_at for g in dated)
        if expires > maker.wall + 60 * times.DAY:
            return one_job(maker)
    lateness = maker.settings["allowed_lateness_ms"]
    before = maker.name("job")
    maker.later(maker.wall + 5000, lambda: act(maker, "C", before, None, maker.wall))
    for _ in range(maker.rng.randint(1, 3)):
        off = maker.pick(-1, 0, 1, -1, 0, -times.HOUR)
        arrival = expires + maker.pick(0, 1000, lateness - 1, lateness, lateness + 1, lateness + times.DAY)

        def use(off=off, job=maker.name("job")):
            if maker.chance(0.4):
                maker.tick(maker.wall)
            act(maker, "C", job, None, min(expires + off, maker.wall + 1))
        maker.later(max(arrival, expires + off), use)
    if maker.chance(0.35):
        maker.later(expires + lateness // 2, lambda: past_the_limit(maker, expires))
    undone = expires + maker.pick(-1, 0, 1000, lateness, times.DAY, 20 * times.DAY)
    in_time = maker.chance(0.3)

    def undo():
        if in_time:
            maker.tick(maker.wall)
            if maker.chance(0.5):
                room = sum(grant.remaining for grant in maker.wallet.drawable(maker.wall))
                maker.send("wallet.adjusted", {"adjustment_id": maker.name("adj"), "credits": -(room + 5),
                                               "reason": "correction", "actor": "ann"}, maker.wall)
        act(maker, maker.pick("R", "F"), before, None, expires - 1 if in_time else maker.wall - maker.pick(0, 0, 1000))
    maker.later(undone, undo)


def past_the_limit(maker, expires):
    """A debit after an expiry takes the overdraft past a limit; usage of before it is still covered."""
    maker.send("wallet.limits_changed", {"overdraft_limit": maker.pick(0, 3)}, maker.wall)
    room = sum(grant.remaining for grant in maker.wallet.drawable(maker.wall))
    maker.send("wallet.adjusted", {"adjustment_id": maker.name("adj"), "credits": -(room + maker.pick(4, 9)),
                                   "reason": "correction", "actor": "ann"}, maker.wall)
    maker.send("generation.completed", {"job_id": maker.name("job"), "asset": "image", "images": 1}, expires - maker.pick(1, 1000))
    if maker.chance(0.7):
        maker.later(maker.wall + times.DAY, lambda: maker.send("wallet.limits_changed", {"overdraft_limit": maker.pick("plan", "none")}, maker.wall))


# Contracts

def start_instant(maker):
    """Often an odd anchor: the 29th, 30th, 31st; midnight or any time of day."""
    offset = maker.pick(-150, -90, -40, -10, -1, 0, 0, 0, 1, 20, 60) * times.DAY
    at = maker.wall + offset
    if maker.chance(0.55):
        for back in range(40):
            if times.day_of_month(at - back * times.DAY) in (29, 30, 31):
                at -= back * times.DAY
                break
    if maker.chance(0.03):
        at = maker.wall + 366 * times.DAY + maker.pick(0, 1)
        return at
    return at - at % times.DAY if maker.chance(0.6) else at


def start_contract(maker):
    contract_id = maker.name("ct")
    if maker.wallet.contracts and maker.chance(0.08):
        contract_id = maker.pick(*sorted(maker.wallet.contracts))
    starts_at = start_instant(maker)
    others = [c for c in maker.wallet.contracts.values() if c.end() < maker.wall + 300 * times.DAY]
    if others and maker.chance(0.5):
        starts_at = max(c.end() for c in others) - maker.pick(0, 0, 0, 1)
    data = {"contract_id": contract_id, "plan": maker.pick(*PLANS), "starts_at": maker.spell(starts_at)}
    if maker.chance(0.85):
        data["term_months"] = maker.pick(1, 1, 2, 3, 3, 4, 6, 6, 12, 13, 24)
    if maker.chance(0.02):
        data["plan"] = "gold"
    if maker.chance(0.2):
        data["reference"] = "INV-7"
    at = maker.wall - maker.pick(0, 0, 1000, times.HOUR, 3 * times.DAY)
    if maker.chance(0.05):
        at = starts_at
        if abs(at - maker.wall) > 30 * times.DAY:
            at = maker.wall
    result = maker.send("contract.started", data, at)
    if result["outcome"] == "contract":
        plan_renewal(maker, contract_id)
    return result


def plan_renewal(maker, contract_id):
    """What will happen near the end of the term under way, as far as it is known now."""
    contract = maker.wallet.contracts[contract_id]
    end = contract.end()
    fate = maker.pick("none", "ahead", "ahead", "late", "late", "doubled", "too-late", "cancelled", "forgotten")
    data = {"contract_id": contract_id}
    if maker.chance(0.4):
        data["plan"] = maker.pick(*PLANS)
    if maker.chance(0.4):
        data["term_months"] = maker.pick(1, 2, 3, 6, 12)

    def renew(at=None):
        result = maker.send("contract.renewed", data, maker.wall if at is None else at)
        if result["outcome"] == "contract" and maker.chance(0.8):
            plan_renewal(maker, contract_id)

    if fate in ("ahead", "doubled"):
        maker.later(end - maker.pick(1, times.DAY, 20 * times.DAY, 45 * times.DAY), renew)
    if fate == "doubled":
        off = maker.pick(-2 * times.DAY, times.HOUR, times.DAY)
        maker.later(end + off, lambda: renew(min(maker.wall, end - maker.pick(1, times.HOUR))))
    if fate == "late":
        maker.later(end + maker.pick(1, times.MINUTE, 2 * times.HOUR, 3 * times.DAY, 30 * times.DAY),
                    lambda: (maker.tick(maker.wall), renew(end - maker.pick(1, 1, 1000, times.DAY))))
    if fate == "too-late":
        maker.later(end + maker.pick(0, 1, times.DAY), lambda: renew(maker.pick(end, maker.wall)))
    if fate == "cancelled":
        maker.later(end - maker.pick(3, 30) * times.DAY, renew)
        maker.later(end - maker.pick(1, 2) * times.DAY, lambda: cancel_contract(maker, contract_id))


def late_but_in_time(maker, contract, at):
    """Sometimes an event time just before a seam or an end that has passed already, if not too long ago."""
    if contract is None or maker.chance(0.6):
        return at
    seams = [contract.month(seam) for seam in contract.seams] + [contract.end()]
    passed = [seam for seam in seams if seam <= maker.wall < seam + 34 * times.DAY]
    if not passed:
        return at
    if maker.chance(0.5):
        maker.tick(maker.wall)
    return maker.pick(*passed) - maker.pick(1, 1, times.HOUR, times.DAY, 0)


def some_contract(maker):
    contracts = maker.wallet.contracts
    if not contracts or maker.chance(0.03):
        return "ct_nobody"
    running = [c.id for c in contracts.values() if c.end() > maker.wall]
    if running and maker.chance(0.85):
        return maker.pick(*running)
    recent = [c.id for c in contracts.values() if 0 <= maker.wall - c.end() < 34 * times.DAY]
    if recent and maker.chance(0.85):
        return maker.pick(*recent)
    return maker.pick(*sorted(contracts))


def change_plan(maker):
    """Up, down, up; ahead, back, at an anniversary."""
    contract_id = some_contract(maker)
    contract = maker.wallet.contracts.get(contract_id)
    for _ in range(maker.pick(1, 1, 2, 3)):
        maker.wall += maker.pick(0, 1, times.HOUR, 2 * times.DAY)
        data = {"contract_id": contract_id, "plan": maker.pick(*PLANS)}
        if maker.chance(0.04):
            data["plan"] = maker.pick("nova", "gold")
        at = maker.wall - maker.pick(0, 0, 1000, times.HOUR, 2 * times.DAY, 20 * times.DAY, 34 * times.DAY)
        at = late_but_in_time(maker, contract, at)
        draw = maker.rng.random()
        if contract is not None and data["plan"] in PLANS:
            month = contract.month_under_way(at)
            if draw < 0.2:
                data["effective_at"] = maker.spell(contract.month(month + maker.pick(0, 1, 1, 2)) - maker.pick(0, 0, 0, 1))
            elif draw < 0.35:
                data["effective_at"] = maker.spell(at - maker.rng.randrange(0, 50 * times.DAY))
            elif draw < 0.5:
                data["effective_at"] = maker.spell(at + maker.rng.randrange(0, 50 * times.DAY))
            elif draw < 0.55:
                seam = contract.end() if maker.chance(0.5) else contract.month(contract.seams[0])
                data["effective_at"] = maker.spell(seam + maker.pick(-1, 0, 0, 1, times.DAY))
        maker.send("contract.plan_changed", data, at)


def cancel_contract(maker, contract_id=None):
    contract_id = contract_id or some_contract(maker)
    contract = maker.wallet.contracts.get(contract_id)
    for number in range(maker.pick(1, 1, 2)):
        maker.wall += maker.pick(0, times.HOUR, 3 * times.DAY)
        data = {"contract_id": contract_id}
        at = late_but_in_time(maker, contract, maker.wall - maker.pick(0, 0, 0, 1000, times.HOUR, 2 * times.DAY))
        if contract is not None:
            to = maker.pick(None, None, at, at + maker.rng.randrange(0, 90 * times.DAY), contract.end() + times.DAY,
                            contract.start - times.DAY, at - maker.rng.randrange(0, 60 * times.DAY), contract.end() - 1)
            if to is not None:
                data["effective_at"] = maker.spell(to)
        maker.send("contract.cancelled", data, at)
    if maker.chance(0.3) and contract is not None:
        maker.send("contract.renewed", {"contract_id": contract_id}, maker.wall)


# Top-ups, adjustments, limits

def topup(maker, at=None):
    if at is None:
        at = maker.wall - maker.pick(0, 1000, times.HOUR, 3 * times.DAY)
    packs = [pack for version in maker.settings["pricing"]["topups"] for pack in version["packs"]]
    amount = Decimal(maker.pick(*packs)["amount_usd"])
    if amount == amount.to_integral_value():
        amount = maker.pick(int(amount), amount, Decimal("%d.00" % amount))
    topup_id = maker.name("top")
    used = sorted(name for kind, name in maker.wallet.business_ids if kind == "topup")
    if used and maker.chance(0.06):
        topup_id = maker.pick(*used)
    elif maker.chance(0.08):
        topup_id = id_of_another_kind(maker, "topup") or topup_id
    maker.send("topup.purchased", {"topup_id": topup_id, "amount_usd": amount}, at)


def id_of_another_kind(maker, own):
    """The id of a contract, a top-up or an adjustment, for something of another kind."""
    others = sorted(name for kind, name in maker.wallet.business_ids if kind != own) + sorted(maker.wallet.contracts)
    return maker.pick(*others) if others else None


def adjust(maker):
    at = maker.wall - maker.pick(0, 1000, times.HOUR, 3 * times.DAY)
    credits = maker.pick(1, 5, 20, 60, 100, -1, -10, -30, -80, Decimal("25.0"))
    if maker.chance(0.25):
        credits = -(abs(maker.wallet.balance()) + maker.pick(0, 0, 1, 30))
    if maker.wallet.level in ("low", "critical") and maker.chance(0.6):
        credits = to_leave_level(maker)
    if credits == 0:
        credits = -3
    data = {"adjustment_id": maker.name("adj"), "credits": credits, "reason": "goodwill", "actor": "ann"}
    used = sorted(name for kind, name in maker.wallet.business_ids if kind == "adjustment")
    if used and maker.chance(0.08):
        data["adjustment_id"] = maker.pick(*used)
    elif maker.chance(0.08):
        data["adjustment_id"] = id_of_another_kind(maker, "adjustment") or data["adjustment_id"]
    if credits > 0 and maker.chance(0.5):
        data["expires_at"] = maker.spell(at + maker.pick(1, 1000, times.HOUR, 4 * times.DAY, 40 * times.DAY, 0))
    elif maker.chance(0.05):
        data["expires_at"] = maker.spell(at + times.DAY)
    maker.send("wallet.adjusted", data, at)


def to_leave_level(maker):
    """What takes available just to, or just above, where the present level is left."""
    wallet = maker.wallet
    percent = wallet.percent[wallet.level]
    if percent == "plan":
        percent = maker.settings[wallet.level + "_percent"]
    target = (percent + maker.settings["hysteresis_percent"]) * wallet.level_base() // 100
    return target + maker.pick(0, 0, 1) - (wallet.balance() - wallet.held())


def limits(maker):
    data = {}
    if maker.chance(0.7):
        data["overdraft_limit"] = maker.pick(0, 0, 5, 20, 100, "none", "plan", "plan")
    if maker.chance(0.3) or not data:
        data["low_percent"] = maker.pick(15, 20, 30, 50, "plan")
    if maker.chance(0.3):
        data["critical_percent"] = maker.pick(1, 2, 8, 15, 16, "plan")
    maker.send("wallet.limits_changed", data, maker.wall - maker.pick(0, 1000, times.DAY))


SCENES = (
    (0.14, one_job), (0.12, asset_job), (0.07, repaying_story), (0.07, expiry_story), (0.05, start_contract),
    (0.06, change_plan), (0.03, cancel_contract), (0.05, topup), (0.06, adjust), (0.03, limits), (0.03, again.repeat),
    (0.02, again.out_of_window), (0.01, again.same_id_long_after), (0.01, again.free), (0.01, again.jump),
    (0.012, again.duplicate_moves_clock), (0.02, again.hold_at_its_timeout), (0.012, again.at_the_horizon),
    (0.012, again.refund_after_the_horizon), (0.025, again.at_new_prices), (0.01, again.job_over_midnight),
    (0.015, again.overdrafts_a_month_apart), (0.04, malformed.random_malformed),
    (0.02, warned_scenes.pace_story), (0.005, warned_scenes.first_weeks), (0.035, warned_scenes.threshold_story),
    (0.02, warned_scenes.unpaid_story),
)
assert sum(share for share, _ in SCENES) <= 1, "the last scenes would never be played"
