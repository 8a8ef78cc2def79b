"""What an event says, and the checks that need no wallet (domain §5, §7; contract §1)."""
from decimal import Decimal

import times

FREE = ("ad.created", "asset.edited", "ad.published", "insights.viewed")
USAGE = ("generation.requested", "generation.completed")
AFTERMATH = ("generation.failed", "generation.rejected", "generation.cancelled", "generation.refunded")
CONTRACT = ("contract.started", "contract.plan_changed", "contract.renewed", "contract.cancelled")
WALLET = CONTRACT + ("topup.purchased", "wallet.adjusted", "wallet.limits_changed")
TYPES = {"generation": USAGE + AFTERMATH + FREE, "wallet": WALLET}

# type -> (required, optional)
FIELDS = {
    "generation.requested": (("job_id", "asset"), ("images", "seconds", "asset_id", "model", "user_id", "project_id")),
    "generation.failed": (("job_id",), ("asset_id", "reason")),
    "contract.started": (("contract_id", "plan", "starts_at"), ("term_months", "reference")),
    "contract.plan_changed": (("contract_id", "plan"), ("effective_at", "reference")),
    "contract.renewed": (("contract_id",), ("plan", "term_months", "reference")),
    "contract.cancelled": (("contract_id",), ("effective_at", "reference")),
    "topup.purchased": (("topup_id", "amount_usd"), ("reference",)),
    "wallet.adjusted": (("adjustment_id", "credits", "reason", "actor"), ("expires_at", "reference")),
    "wallet.limits_changed": ((), ("overdraft_limit", "low_percent", "critical_percent", "reference")),
}
FIELDS["generation.completed"] = FIELDS["generation.requested"]
for _name in AFTERMATH:
    FIELDS[_name] = FIELDS["generation.failed"]

IDS = ("job_id", "asset_id", "contract_id", "topup_id", "adjustment_id")
TEXTS = ("model", "user_id", "project_id", "reason", "actor", "reference", "plan")
TIMES = ("starts_at", "effective_at", "expires_at")
LIMITS = ("overdraft_limit", "low_percent", "critical_percent")

START_AHEAD_MAX = 366 * times.DAY


def is_id(value):
    """1 to 128 characters of printable ASCII."""
    return isinstance(value, str) and 1 <= len(value) <= 128 and value.isascii() and value.isprintable()


def is_number(value):
    return isinstance(value, (int, Decimal)) and not isinstance(value, bool) \
        and (isinstance(value, int) or value.is_finite())


def is_whole(value):
    """Nothing we count comes near 10^18; beyond it no number is looked at closely."""
    return is_number(value) and abs(value) < 10**18 and value == int(value)


def kind_of(topic, event):
    """The event's type, or the reason why it has none that we know on this topic."""
    if not isinstance(event, dict):
        return None, "not_cloudevent"
    for name in ("specversion", "id", "source", "type"):
        if not isinstance(event.get(name), str) or not event[name]:
            return None, "not_cloudevent"
    if event["specversion"] != "1.0":
        return None, "not_cloudevent"
    if event["type"] not in TYPES[topic]:
        return None, "unknown_type"  # among them the types of the other topic
    return event["type"], None


def envelope(event):
    """Event time, or the reason: everything that is missing is named before anything malformed."""
    for name in ("subject", "time", "data"):
        if event.get(name) is None:
            return None, "missing_field"
    at = times.parse(event["time"])
    if at is None or not is_id(event["subject"]) or not is_id(event["id"]):
        return None, "bad_value"
    if event["type"] not in FREE and not isinstance(event["data"], dict):
        return None, "bad_value"
    return at, None


def payload(event, at):
    """What two events must have in common to be one event sent twice: type, time and the data fields that
    we read. Numbers compare as numbers (8 and 8.0), times as instants, null as absent."""
    required, optional = FIELDS[event["type"]]
    read = {}
    for name in required + optional:
        value = event["data"].get(name)
        if value is None:
            continue
        if name in TIMES and times.parse(value) is not None:
            value = ("instant", times.parse(value))
        elif isinstance(value, bool):
            value = ("truth", value)
        read[name] = value
    return event["type"], at, read


def data_missing(kind, data):
    for name in FIELDS[kind][0]:
        if data.get(name) is None:
            return True
    if kind in USAGE:
        if data["asset"] == "image":
            return data.get("images") is None
        if data["asset"] == "video":
            return data.get("seconds") is None
    if kind == "wallet.limits_changed":
        return all(data.get(name) is None for name in LIMITS)
    return False


def data_bad(kind, data, at, settings):
    """Something is malformed, out of its range, or of the wrong type."""
    required, optional = FIELDS[kind]
    for name in required + optional:
        value = data.get(name)
        if value is None:
            continue
        if name in IDS and not is_id(value):
            return True
        if name in TEXTS and not isinstance(value, str):
            return True
        if name in TIMES and times.parse(value) is None:
            return True
        if name == "term_months" and not (is_whole(value) and 1 <= value <= settings["term_months_max"]):
            return True
    if kind in USAGE:
        return usage_bad(data, settings)
    if kind == "contract.started":
        starts_at = times.parse(data["starts_at"])
        if starts_at > at + START_AHEAD_MAX:
            return True
        return times.plus_months(starts_at, int(data.get("term_months") or 12)) <= at
    if kind == "topup.purchased":
        return not (is_number(data["amount_usd"]) and data["amount_usd"] > 0)
    if kind == "wallet.adjusted":
        credits = data["credits"]
        if not is_whole(credits) or credits == 0 or abs(credits) > settings["adjustment_credits_max"]:
            return True
        expires_at = data.get("expires_at")
        if expires_at is not None:
            return credits < 0 or times.parse(expires_at) <= at
    if kind == "wallet.limits_changed":
        if any(limit_bad(name, data[name]) for name in LIMITS if data.get(name) is not None):
            return True
        percents = [data.get("low_percent"), data.get("critical_percent")]
        return all(is_number(percent) for percent in percents) and percents[0] < percents[1]
    return False


def usage_bad(data, settings):
    if data["asset"] == "image":
        return not (is_whole(data["images"]) and 1 <= data["images"] <= settings["images_max"])
    if data["asset"] == "video":
        seconds = data["seconds"]
        if not is_number(seconds) or not 0 < seconds <= settings["video_seconds_max"]:
            return True
        return not is_whole(seconds * 1000)  # at most three decimals
    return True


def limit_bad(name, value):
    if value == "plan" or (name == "overdraft_limit" and value == "none"):
        return False
    if not is_whole(value) or value < 0:
        return True
    return name != "overdraft_limit" and value > 100
