"""Instants as whole milliseconds since 1970 UTC, and calendar months (domain §2, §4)."""
import re
from datetime import date
from functools import lru_cache

SECOND = 1_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR

_EPOCH = date(1970, 1, 1).toordinal()
_RFC3339 = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt](\d\d):(\d\d):(\d\d)(?:\.(\d+))?(?:[Zz]|([+-])(\d\d):(\d\d))",
    re.ASCII,
)


def parse(text):
    """The instant a date-time with an offset names, cut to the millisecond; None if it is none."""
    return _parse(text) if isinstance(text, str) else None


@lru_cache(maxsize=1024)
def _parse(text):
    found = _RFC3339.fullmatch(text)
    if not found:
        return None
    year, month, day, hour, minute, second, fraction, sign, off_hour, off_minute = found.groups()
    if int(hour) > 23 or int(minute) > 59 or int(second) > 59:
        return None
    try:
        days = date(int(year), int(month), int(day)).toordinal() - _EPOCH
    except ValueError:
        return None
    ms = days * DAY + int(hour) * HOUR + int(minute) * MINUTE + int(second) * SECOND
    if fraction:
        ms += int((fraction + "00")[:3])
    if sign:
        if int(off_hour) > 23 or int(off_minute) > 59:
            return None
        offset = int(off_hour) * HOUR + int(off_minute) * MINUTE
        ms += offset if sign == "-" else -offset
    return ms


def text(ms):
    """2026-11-03T10:15:30.123Z"""
    days, rest = divmod(ms, DAY)
    hours, rest = divmod(rest, HOUR)
    minutes, rest = divmod(rest, MINUTE)
    seconds, millis = divmod(rest, SECOND)
    day = date.fromordinal(days + _EPOCH).isoformat()
    return "%sT%02d:%02d:%02d.%03dZ" % (day, hours, minutes, seconds, millis)


def hour_name(ms):
    """The UTC hour an instant falls in: 2026-11-03T10"""
    days, rest = divmod(ms, DAY)
    return "%sT%02d" % (date.fromordinal(days + _EPOCH).isoformat(), rest // HOUR)


def days_in_month(year, month):
    following = date(year + 1, 1, 1) if month == 12 else date(year, month + 1, 1)
    return (following - date(year, month, 1)).days


@lru_cache(maxsize=65536)
def plus_months(start_ms, months):
    """The first day plus so many calendar months, its day clipped to the month's length; the time of
    day stays. Always counted from the first day, so that a clipped month does not shorten later ones."""
    days, in_day = divmod(start_ms, DAY)
    first = date.fromordinal(days + _EPOCH)
    index = first.year * 12 + first.month - 1 + months
    year, month = divmod(index, 12)
    month += 1
    day = min(first.day, days_in_month(year, month))
    return (date(year, month, day).toordinal() - _EPOCH) * DAY + in_day


def day_of_month(ms):
    return date.fromordinal(ms // DAY + _EPOCH).day


def month_and_day(ms):
    day = date.fromordinal(ms // DAY + _EPOCH)
    return day.month, day.day
