"""A few events that cannot be applied, each for one reason."""
from decimal import Decimal

import times


def random_malformed(maker):
    at = maker.wall
    job = {"job_id": maker.name("job"), "asset": "image", "images": 2}
    start = {"contract_id": maker.name("ct"), "plan": "lite", "starts_at": times.text(at)}
    adjustment = {"adjustment_id": maker.name("adj"), "credits": 5, "reason": "r", "actor": "a"}
    adjustment_end = times.text(at + times.DAY)
    completed = "generation.completed"
    case = maker.rng.randrange(len(CASES))
    name, kind, base, edits = CASES[case]
    data = dict({"job": job, "start": start, "adjustment": adjustment, "topup": {"topup_id": maker.name("top"), "amount_usd": 7777},
                 "limits": {}, "contract": {"contract_id": "ct_nobody"}}[base])
    for key, value in edits.items():
        if value == "@tomorrow":
            value = adjustment_end
        elif value == "@long-over":
            value = times.text(at - 400 * times.DAY)
        elif value == "@just-over":
            value = times.text(times.plus_months(at, -12) + maker.pick(0, 0, -1, 1))
        elif value == "@too-far":
            value = times.text(at + 366 * times.DAY + maker.pick(0, 1))
        if value is DROP:
            data.pop(key, None)
        else:
            data[key] = value
    topic = None
    if name == "wrong-topic":
        topic = "generation" if kind.startswith(("topup", "contract")) else "wallet"
    edit = ENVELOPE.get(name)
    maker.send(kind or completed, data, at, topic=topic, edit=edit)


DROP = object()


def _without(name):
    return lambda event: event.pop(name)


def _with(name, value):
    return lambda event: event.update({name: value})


ENVELOPE = {
    "no-id": _without("id"), "no-source": _without("source"), "no-type": _without("type"), "no-version": _without("specversion"),
    "no-time": _without("time"), "no-subject": _with("subject", None), "no-data": _with("data", None),
    "bad-time": _with("time", "2026-13-01T00:00:00Z"), "no-offset": _with("time", "2026-01-01T00:00:00"),
    "list-data": _with("data", [1]), "unknown-type": _with("type", "generation.exploded"),
    "long-id": _with("id", "x" * 129),
}

COMPLETED = "generation.completed"
CASES = (
    [(name, COMPLETED, "job", {}) for name in sorted(ENVELOPE)] +
    [("wrong-topic", COMPLETED, "job", {}), ("wrong-topic", "topup.purchased", "topup", {}),
     ("wrong-topic", "contract.started", "start", {})] +
    [("", COMPLETED, "job", edits) for edits in (
        {"job_id": DROP}, {"job_id": None}, {"asset": DROP}, {"images": DROP}, {"images": 0}, {"images": -1}, {"images": "4"},
        {"images": Decimal("2.5")}, {"images": 10_001}, {"images": True}, {"asset": "audio"}, {"job_id": ""}, {"job_id": 7},
        {"job_id": "j\u00e9"}, {"asset": "video"}, {"asset": "video", "images": DROP, "seconds": Decimal("-0.0")},
        {"asset": "video", "images": DROP, "seconds": Decimal("1.2345")}, {"asset": "video", "images": DROP, "seconds": 36_001},
        {"images": Decimal("-0.0")}, {"images": Decimal("1E+30")}, {"asset_id": "x" * 129}, {"model": 3})] +
    [("", "contract.started", "start", edits) for edits in (
        {"plan": DROP}, {"plan": "gold"}, {"term_months": 0}, {"term_months": 121}, {"starts_at": "soon"},
        {"starts_at": "@long-over"}, {"starts_at": "@just-over"}, {"starts_at": "@just-over"}, {"starts_at": "@too-far"}, {"starts_at": None})] +
    [("", "wallet.adjusted", "adjustment", edits) for edits in (
        {"reason": DROP}, {"actor": None}, {"credits": 0}, {"credits": "5"}, {"credits": Decimal("1.5")},
        {"credits": 1_000_000_001}, {"credits": -5, "expires_at": "@tomorrow"}, {"expires_at": "@long-over"})] +
    [("", "topup.purchased", "topup", edits) for edits in ({}, {}, {}, {"amount_usd": "100"}, {"amount_usd": 0}, {"topup_id": DROP})] +
    [("", "wallet.limits_changed", "limits", edits) for edits in (
        {}, {"overdraft_limit": -1}, {"overdraft_limit": "lots"}, {"low_percent": "none"}, {"critical_percent": Decimal("2.5")},
        {"low_percent": 4, "critical_percent": 5})] +
    [("", "contract.renewed", "contract", {}), ("", "contract.cancelled", "contract", {}),
     ("", "contract.plan_changed", "contract", {"plan": "lite"}), ("", "contract.plan_changed", "contract", {"plan": "gold"})]
)
