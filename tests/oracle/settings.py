"""Random settings of a life: small plans, odd rates, versions that change on the way."""
import times

RATES = (
    {"image": {"credits": "1"}, "video": {"credits": "3", "models": {"veo-3": {"credits": "4.5"}}}},
    {"image": {"credits": "0.333", "models": {"flux": {"credits": "1.5"}}}, "video": {"credits": "0.1"}},
    {"image": {"credits": "2"}, "video": {"credits": "2.75", "models": {"veo-3": {"credits": "0.000001"}}}},
    {"image": {"credits": "1", "models": {"flux": {"credits": "0.75"}, "draft": {"credits": "0"}}},
     "video": {"credits": "1", "models": {"veo-3": {"credits": "3.333333"}}}},
)
ALLOCATIONS = ((20, 55, 150), (50, 120, 300), (200, 1100, 3300), (7, 8, 60), (40, 100, 100))
PLANS = ("lite", "performance", "scale")
OVERDRAFT_LIMITS = (None, None, 0, 1, 10, 25, 60, 500)
THRESHOLDS = ({}, {"low_percent": 50}, {"critical_percent": 0}, {"low_percent": 40, "critical_percent": 30})
PACKS = (
    [{"amount_usd": "100", "credits": 555}, {"amount_usd": "250", "credits": 1388}, {"amount_usd": "9.99", "credits": 30}],
    [{"amount_usd": "5", "credits": 25}, {"amount_usd": "10", "credits": 60}, {"amount_usd": "49.5", "credits": 180}],
    [{"amount_usd": "100", "credits": 40}, {"amount_usd": "250", "credits": 110}, {"amount_usd": "5", "credits": 12}],
)


def random_settings(rng, begin, finish):
    return {
        "pricing": {"rate_card": rate_cards(rng, begin, finish), "plans": plans(rng, begin, finish),
                    "topups": topups(rng, begin, finish)},
        "plan_priority": 10, "adjustment_priority": rng.choice((20, 20, 20, 5)),
        "topup_priority": rng.choice((30, 30, 30, 10)),
        "low_percent": rng.choice((20, 20, 30)), "critical_percent": rng.choice((5, 5, 10)), "hysteresis_percent": 5,
        "allowed_lateness_ms": rng.choice((times.HOUR, times.HOUR, times.HOUR, 6 * times.HOUR, 0)),
        "horizon_ms": 35 * times.DAY, "max_clock_skew_ms": 5 * times.MINUTE,
        "images_max": 10_000, "video_seconds_max": 36_000, "adjustment_credits_max": 1_000_000_000,
        "term_months_max": rng.choice((120, 120, 24)),
    }


def version_dates(rng, begin, finish):
    dates = ["2020-01-01T00:00:00Z"]
    at = begin
    for _ in range(rng.choice((0, 1, 1, 2))):
        at += rng.randrange(times.DAY, finish - begin)
        dates.append(times.text(at - at % times.DAY))
    return dates


def rate_cards(rng, begin, finish):
    return [{"id": "card-%d" % number, "effective_from": since, "rates": rng.choice(RATES)}
            for number, since in enumerate(version_dates(rng, begin, finish))]


def plans(rng, begin, finish):
    versions = []
    limited = rng.random() < 0.6
    own_thresholds = rng.random() < 0.3
    base = rng.choice(ALLOCATIONS)
    for since in version_dates(rng, begin, finish):
        plan = {}
        for name, credits in zip(PLANS, base):
            plan[name] = {"credits_per_month": credits}
            limit = rng.choice(OVERDRAFT_LIMITS) if limited else None
            if limit is not None:
                plan[name]["overdraft_limit"] = limit
            if own_thresholds:
                plan[name].update(rng.choice(THRESHOLDS))
        if versions and rng.random() < 0.5:
            del plan[rng.choice(PLANS)]
        if versions:
            plan["nova"] = {"credits_per_month": 90}
        versions.append({"effective_from": since, "plan": plan})
        base = tuple(max(1, credits + rng.choice((0, 0, 5, -3, credits // 2))) for credits in base)
    return versions


def topups(rng, begin, finish):
    return [{"effective_from": since, "packs": rng.choice(PACKS)} for since in version_dates(rng, begin, finish)]
