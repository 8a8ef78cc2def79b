"""Scenes about identity and time: the same again, the edges of the window, clocks."""
import reading
import scenes
import times


def repeat(maker, pair=None):
    """The same again: as it was, spelled anew, or not quite the same."""
    if pair is None:
        if not maker.sent:
            return scenes.one_job(maker)
        pair = maker.pick(*maker.sent[-12:]) if maker.chance(0.8) else maker.pick(*maker.sent)
        if maker.chance(0.4):  # the rarer types too
            kind = maker.pick(*sorted({event["type"] for _, event in maker.sent}))
            pair = maker.pick(*[pair for pair in maker.sent if pair[1]["type"] == kind][-3:])
    topic, event = pair
    event = dict(event, data=dict(event["data"]))
    draw = maker.rng.random()
    if draw < 0.3:
        pass
    elif draw < 0.5:
        event = dict(reversed(list(event.items())))
        event["data"] = dict(reversed(list(event["data"].items())))
    elif draw < 0.65:
        event["data"]["note_to_self"] = maker.number
        event["traceparent"] = "00-ab-cd-01"
    elif draw < 0.75:
        event["time"] = times.text(times.parse(event["time"]))
        event["data"]["model" if "asset" in event["data"] else "reference"] = event["data"].get("model" if "asset" in event["data"] else "reference")
    elif draw < 0.85:
        event["time"] = times.text(times.parse(event["time"]) + 1)
    elif draw < 0.93:
        required, optional = reading.FIELDS[event["type"]]
        names = [name for name in required + optional if event["data"].get(name) is not None]
        dates = [name for name in names if name in reading.TIMES]
        name = maker.pick(*dates) if dates and maker.chance(0.4) else maker.pick(*names)
        value = event["data"][name]
        if name in reading.TIMES:
            value = times.text(times.parse(value) + 1)
        else:
            value = value + "x" if isinstance(value, str) else value + 1
        event["data"][name] = value
    elif draw < 0.96:
        alike = [kind for kind in reading.FIELDS if reading.FIELDS[kind][0] == reading.FIELDS[event["type"]][0]]
        event["type"] = maker.pick(*alike)
    else:
        event["source"] = event["source"] + "/other"
    maker.resend(topic, event)


def same_id_long_after(maker):
    """An id used again when its first use is past the horizon, or just inside it."""
    old = [pair for pair in maker.sent[-60:] if times.parse(pair[1]["time"]) < maker.wall - 30 * times.DAY]
    if not old:
        return repeat(maker)
    maker.tick(maker.wall)
    topic, event = maker.pick(*old[-6:])
    at = maker.wall - maker.pick(0, 1000)
    horizon = maker.settings["horizon_ms"]
    if abs(maker.life.clock - horizon - times.parse(event["time"])) < 2 * times.DAY:
        return repeat(maker)
    maker.send("generation.completed", scenes.usage_data(maker, maker.name("job"), None, at), at, identity=(event["source"], event["id"]))


def out_of_window(maker):
    """Older than the horizon, ahead of the clock; and both edges, which are in time."""
    record = maker.wall - maker.pick(0, 0, 5000)
    floor = max(maker.life.clock, record) - maker.settings["horizon_ms"]
    ceiling = maker.wall + maker.settings["max_clock_skew_ms"]
    at = maker.pick(floor, floor - 1, floor + 1, floor - times.DAY, ceiling, ceiling, ceiling + 1, ceiling + times.DAY)
    job_id = maker.name("job")
    if maker.chance(0.7):
        maker.send("generation.completed", scenes.usage_data(maker, job_id, None, at), at, record=record)
    else:
        maker.send("generation.failed", {"job_id": job_id}, at, record=record)


def free(maker):
    maker.send(maker.pick("ad.created", "asset.edited", "ad.published", "insights.viewed"), {"anything": 1}, maker.wall - maker.delay())


def jump(maker):
    maker.tick(maker.wall + maker.pick(times.HOUR, times.DAY, 40 * times.DAY, 70 * times.DAY))
    if maker.chance(0.3):
        maker.tick(maker.wall - times.DAY)
    if maker.chance(0.3):
        maker.tick(maker.wall + times.DAY, maker.wall)


def at_the_horizon(maker):
    """An event's id comes again when its first use is exactly a horizon old, or a millisecond more."""
    first = maker.wall - maker.pick(0, 1000)
    identity = ("/render/eu-1", maker.name("edge"))
    data = {"job_id": maker.name("job"), "asset": "image", "images": 1}
    maker.send("generation.completed", data, first, identity=identity)

    def come_again():
        edge = first + maker.settings["horizon_ms"] + maker.pick(0, 0, 1)
        if maker.wall > edge:
            return
        maker.tick(edge)
        draw = maker.rng.random()
        if draw < 0.4:
            maker.send("generation.completed", data, first, identity=identity, record=edge)
        elif draw < 0.7:
            maker.send("generation.completed", dict(data, job_id=maker.name("job")), edge, identity=identity, record=edge)
        else:
            maker.send("generation.refunded", {"job_id": data["job_id"]}, edge, record=edge)
    maker.later(first + maker.settings["horizon_ms"], come_again)


def refund_after_the_horizon(maker):
    """A job that is remembered, for something happened to it since, and whose charge is too old to be given back."""
    first = maker.wall - maker.pick(0, 1000)
    job_id = maker.name("job")
    asset_id = maker.pick(None, None, "a1")
    maker.send("generation.completed", scenes.usage_data(maker, job_id, asset_id, first), first)
    named = {"job_id": job_id} if asset_id is None else {"job_id": job_id, "asset_id": asset_id}
    end = first + maker.settings["horizon_ms"] + maker.pick(0, 1, 2) * times.DAY
    maker.later(first + maker.pick(2, 20, 30) * times.DAY, lambda: maker.send("generation.cancelled", named, maker.wall))

    def refund():
        maker.tick(maker.wall)
        maker.send("generation.refunded", maker.pick(named, {"job_id": job_id}), maker.wall)
    maker.later(end, refund)


def hold_at_its_timeout(maker):
    """A request that arrives exactly when its own hold would end, or a millisecond beside it."""
    maker.tick(maker.wall)
    at = maker.life.clock - times.DAY + maker.pick(-1, 0, 0, 1)
    job_id = maker.name("job")
    scenes.act(maker, "Q", job_id, None, at)
    if maker.chance(0.5):
        scenes.act(maker, "C", job_id, None, maker.wall)


def duplicate_moves_clock(maker):
    """An event ahead of the wall clock holds the clock at the wall; its duplicate moves it on."""
    maker.tick(maker.wall)
    ahead = maker.wall + 4 * times.MINUTE
    identity = ("/billing", maker.name("ahead"))
    data = {"job_id": maker.name("job")}
    maker.send("generation.failed", data, ahead, identity=identity)
    granted = maker.wall - maker.settings["allowed_lateness_ms"]
    maker.send("wallet.adjusted", {"adjustment_id": maker.name("adj"), "credits": 9, "reason": "trial", "actor": "bob",
                                   "expires_at": times.text(granted + maker.pick(1, 200_000, 240_000, 240_001))}, granted)
    maker.wall += 5 * times.MINUTE
    maker.send("generation.failed", data, ahead, identity=identity)


def at_new_prices(maker):
    """Usage and top-ups in the first instant of another version of the prices, and a millisecond beside it."""
    prices = maker.life.prices
    versions = prices.cards + prices.plans + prices.topups
    ahead = sorted({version["since"] for version in versions if maker.wall < version["since"] < maker.finish})
    if not ahead:
        return scenes.one_job(maker)
    since = maker.pick(*ahead)

    def use():
        for _ in range(maker.pick(1, 2)):
            at = since + maker.pick(-1, 0, 0, 1)
            if maker.chance(0.35):
                scenes.topup(maker, at)
            else:
                scenes.act(maker, maker.pick("C", "C", "C", "Q"), maker.name("job"), None, at)
    maker.later(since + maker.pick(1, 1000, times.HOUR, times.DAY), use)


def job_over_midnight(maker):
    """One asset is of the next day, ahead of the wall clock, the other still of this one; and the job again on the last
    day that it is remembered."""
    midnight = (maker.wall // times.DAY + 1) * times.DAY
    job_id = maker.name("job")

    def begin():
        if maker.wall >= midnight:
            return
        maker.send("generation.completed", scenes.usage_data(maker, job_id, "a0", midnight), midnight + maker.pick(0, 1000))
        maker.send("generation.completed", scenes.usage_data(maker, job_id, "a1", maker.wall), maker.wall)
        maker.later(midnight + maker.settings["horizon_ms"] + maker.pick(0, times.HOUR), end)

    def end():
        maker.tick(maker.wall)
        scenes.act(maker, maker.pick("C", "R", "F"), job_id, None, maker.wall)
    maker.later(midnight - maker.pick(1000, 2 * times.MINUTE), begin)


def overdrafts_a_month_apart(maker):
    """Two charges go into overdraft, a month apart, each repaid to the credit; the first is given back, and the second
    when what repaid the first is older than the horizon."""
    first, second = maker.name("job"), maker.name("job")

    def overdraw(job_id):
        room = sum(grant.remaining for grant in maker.wallet.drawable(maker.wall))
        images = min(room + maker.rng.randint(5, 60), maker.settings["images_max"])
        maker.send("generation.completed", {"job_id": job_id, "asset": "image", "images": images}, maker.wall)
        if maker.wallet.overdraft:
            maker.send("wallet.adjusted", {"adjustment_id": maker.name("adj"), "credits": maker.wallet.overdraft,
                                           "reason": "goodwill", "actor": "ann"}, maker.wall)

    def again():
        overdraw(second)
        maker.send("generation.refunded", {"job_id": first}, maker.wall)

    def undo():
        maker.tick(maker.wall)
        maker.send("wallet.adjusted", {"adjustment_id": maker.name("adj"), "credits": 1, "reason": "goodwill", "actor": "ann"},
                   maker.wall)
        maker.send("generation.refunded", {"job_id": second}, maker.wall)
    begun = maker.wall
    overdraw(first)
    maker.later(begun + maker.pick(20, 30, 33) * times.DAY, again)
    maker.later(begun + maker.pick(37, 45, 52) * times.DAY, undo)
