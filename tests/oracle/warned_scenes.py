"""Scenes about warnings: a pace of use, credits that expire, an overdraft that nobody pays; and the millisecond around
each instant that matters."""
import scenes
import times

DAY = times.DAY


def adjust(maker, credits, at=None):
    maker.send("wallet.adjusted", {"adjustment_id": maker.name("adj"), "credits": credits, "reason": "goodwill", "actor": "ann"},
               maker.wall if at is None else at)


def use(maker, images, at, job_id=None):
    return maker.send("generation.completed", {"job_id": job_id or maker.name("job"), "asset": "image",
                                               "images": max(1, min(images, maker.settings["images_max"]))}, at)


# Runway

def pace_story(maker):
    """Use on some days, then credits that last three days to the credit, or one more or less; usage of the days around
    the oldest that counts arrives late; days pass without an event, and credits come in."""
    begun, jobs = maker.wall, []

    def one():
        jobs.append(maker.name("job"))
        use(maker, maker.rng.randint(1, 40), maker.wall - maker.pick(0, 1000), jobs[-1])

    days = maker.pick(1, 1, 2, 3, 7, 9)
    for day in range(days):
        maker.later(begun + day * DAY, one)
    maker.later(begun + days * DAY + maker.pick(0, times.HOUR), lambda: three_days(maker))
    for number in range(maker.pick(0, 1, 2)):
        maker.later(begun + days * DAY + maker.pick(times.HOUR, DAY, 5 * DAY), lambda: late_use(maker))
    if maker.chance(0.5):
        maker.later(begun + days * DAY + 2 * times.HOUR, lambda: maker.send("generation.refunded", {"job_id": jobs[0]}, maker.wall))
    quiet = begun + (days + maker.pick(1, 2, 6, 8)) * DAY
    maker.later(quiet, lambda: quiet_days(maker))
    maker.later(quiet + maker.pick(0, times.HOUR), lambda: three_days(maker))
    if maker.chance(0.4):
        maker.later(quiet + DAY, one)
        maker.later(quiet + DAY + times.HOUR, lambda: three_days(maker))
    elif maker.chance(0.6):
        maker.later(quiet + DAY, lambda: three_days(maker))
        maker.later(quiet + 9 * DAY, lambda: used_up_while_warned(maker))


def three_days(maker):
    """What is available becomes what three days take, at the pace of today or of the next midnight."""
    wallet, warnings = maker.wallet, maker.wallet.warnings
    if warnings.first_day is None:
        return
    maker.tick(maker.wall)
    charged, days = warnings.pace(maker.wall // DAY + maker.pick(0, 0, 1))
    change = -(-3 * charged // days) + maker.pick(-1, -1, 0, 0, 0, 1) - wallet.available()
    if change:
        adjust(maker, change)


def used_up_while_warned(maker):
    """Days after a warning of the runway nothing that was charged counts any more, and now nothing is left either."""
    maker.tick(maker.wall)
    if not maker.wallet.warnings.runway_warned or maker.wallet.available() <= 0:
        return
    adjust(maker, -maker.wallet.available())
    use(maker, 9, maker.wall)
    maker.later(maker.wall + DAY, lambda: adjust(maker, max(0, -maker.wallet.available()) + 1))


def late_use(maker):
    """At a midnight 6 to 9 days ago, or a millisecond before it; or still earlier."""
    back = maker.pick(6, 7, 7, 7, 8, 8, 20)
    at = (maker.wall // DAY - back) * DAY + maker.pick(-1, 0, times.HOUR)
    use(maker, maker.rng.randint(1, 30), at)


def quiet_days(maker):
    """Other wallets move the clock over midnights, in one step, or to one and a millisecond beside it."""
    midnight = (maker.wall // DAY + 1) * DAY
    for to in maker.pick((midnight - 1, midnight), (midnight,), (midnight + 1,), (midnight + 9 * DAY,), (midnight + DAY, midnight + 2 * DAY)):
        maker.tick(to)


def first_weeks(maker):
    """The first charges of a wallet, a few days apart, with enough for a while and then not; one that is older than all
    of them arrives late."""
    if maker.wallet.warnings.first_day is None:
        adjust(maker, maker.pick(10, 30, 60))
    begun = maker.wall
    for day in sorted(maker.rng.sample(range(8), 3)):
        maker.later(begun + day * DAY, lambda: use(maker, maker.rng.randint(1, 12), maker.wall))
        maker.later(begun + day * DAY + times.HOUR, lambda: three_days(maker))
    if maker.chance(0.6):
        late = begun + maker.pick(1, 2, 4) * DAY
        maker.later(late, lambda: use(maker, 1, maker.wall - maker.pick(3, 5, 6, 12) * DAY))
        maker.later(late + 2 * times.HOUR, lambda: three_days(maker))
        maker.later(late + DAY + times.HOUR, lambda: three_days(maker))


# Credits that expire

def threshold_story(maker):
    """All is used up, and what was used comes back at the instant of a threshold, or a millisecond beside it."""
    lots = [(grant.contract, grant.expires_at) for grant in maker.wallet.open_grants
            if grant.contract is not None and grant.expires_at > maker.wall + 2 * DAY]
    if not lots:
        return scenes.start_contract(maker)
    contract, expiry = maker.pick(*lots)
    if expiry > maker.wall + 120 * DAY:
        return moved_end(maker, contract)
    ahead = [days for days in (30, 7, 1, 0) if expiry - days * DAY > maker.wall + times.HOUR]
    comes_back = expiry - maker.pick(*ahead) * DAY + maker.pick(-1, -1, 0, 0, 1)
    job_id = maker.name("job")

    def use_up():
        room = sum(grant.remaining for grant in maker.wallet.drawable(maker.wall))
        if room:
            use(maker, room, maker.wall, job_id)

    def come_back():
        if maker.chance(0.3):
            maker.tick(comes_back)
        maker.send("generation.refunded", {"job_id": job_id}, comes_back)
    maker.later(max(maker.wall, comes_back - maker.pick(2, 9, 33) * DAY), use_up)
    maker.later(comes_back, come_back)
    if maker.chance(0.4):
        maker.later(expiry - maker.pick(1, 2, 7) * DAY + maker.pick(-1, 0, 1), lambda: use(maker, 1, maker.wall))


def moved_end(maker, contract):
    """The contract is cancelled to an end near enough that thresholds of it have passed or are about to; perhaps twice."""
    def cancel():
        end = maker.wall + maker.pick(1, 7, 7, 30, 30) * DAY + maker.pick(-1, 0, 1, times.HOUR)
        maker.send("contract.cancelled", {"contract_id": contract.id, "effective_at": times.text(end)}, maker.wall)
    end = contract.end()
    maker.later(max(maker.wall, end - maker.pick(3, 20, 29, 45) * DAY) if maker.chance(0.6) else maker.wall, cancel)
    if maker.chance(0.4):
        maker.later(maker.wall + maker.pick(1, 3, 25) * DAY, cancel)


# Overdraft

def unpaid_story(maker):
    """An overdraft that is paid just before it has lasted seven days, in that instant, just after, or in parts, or never;
    it grows on the way, also by an event whose time is already past the seven days when it comes."""
    maker.tick(maker.wall)
    room = sum(grant.remaining for grant in maker.wallet.drawable(maker.wall))
    if maker.chance(0.5):
        adjust(maker, -(room + maker.rng.randint(1, 60)))
    else:
        use(maker, room + maker.rng.randint(1, 60), maker.wall)
    if maker.wallet.overdraft == 0:
        return
    since = maker.wallet.warnings.overdraft_since
    ends = since + 7 * DAY
    if maker.chance(0.3):
        maker.later(since + maker.pick(1, 3) * DAY, lambda: use(maker, 5, maker.wall))
    if maker.chance(0.2):
        maker.later(since + 3 * DAY, lambda: adjust(maker, 1))

    def pay(at):
        if maker.wallet.overdraft:
            adjust(maker, maker.wallet.overdraft + maker.pick(0, 0, 1, 40), at)
    for number in range(maker.pick(1, 1, 2)):
        at = ends + maker.pick(-1, 0, 0, 1, DAY) + number * DAY
        maker.later(at, lambda at=at: (maker.chance(0.3) and maker.tick(at), pay(at)))
    if maker.chance(0.45):
        maker.later(ends - maker.pick(1, 1000), lambda: use(maker, 1, ends + maker.pick(0, 1, 1000)))
    if maker.chance(0.4):
        maker.later(ends + 3 * DAY, lambda: adjust(maker, -(abs(maker.wallet.balance()) + 9)))
