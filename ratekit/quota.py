"""What a server says of its limits in headers: when to come back (`retry_after`).

Whatever a server sends is read leniently and never raises: a value that makes no sense is the
same as none.
"""

import math
import re
from collections.abc import Mapping

from ratekit.clock import SYSTEM
from ratekit.http.dates import parse_http_date

__all__ = ["retry_after"]

# In the order in which they win: the finer unit is the newer header, sent beside the old one.
_MILLISECONDS = ("retry-after-ms", "x-ms-retry-after-ms", "x-amz-retry-after")
_SECONDS = ("retry-after", "x-ratelimit-retry-after")

# More than a year is no time to come back at.
_ABSURD = 366 * 86_400.0
# A number this large is no length of time but an instant: seconds, or milliseconds, since 1970.
_EPOCH = 1e9
_EPOCH_MS = 1e12

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)", re.ASCII)
_DURATION = re.compile(
    r"(?:(?P<d>\d+)d)?(?:(?P<h>\d+)h)?(?:(?P<m>\d+)m(?!s))?"
    r"(?:(?P<s>\d+(?:\.\d+)?)s)?(?:(?P<ms>\d+(?:\.\d+)?)ms)?",
    re.ASCII | re.IGNORECASE,
)
_DURATION_SECONDS = {"d": 86_400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_ISO = re.compile(
    r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d)(:\d\d)?(\.\d+)?\s*(Z|[+-]\d\d:?\d\d)?",
    re.ASCII | re.IGNORECASE,
)
_LONGEST_VALUE = 64


def retry_after(headers: Mapping[str, str], *, now: float | None = None) -> float | None:
    """Return the seconds, from receipt, after which the server wants to be asked again.

    Read are `retry-after-ms` and its kin (milliseconds), then `Retry-After` (RFC 9110, 10.2.3):
    whole or fractional seconds, the three HTTP-dates, and leniently ISO 8601 instants, durations
    such as `1m30s`, and epochs. An instant is measured from the response's own `Date`, so that a
    client's wrong clock does not matter. None where there is no such header, or none that makes
    sense (negative, not finite, more than a year). Never raises.

    `headers` is any mapping that ignores case; `now` stands in for the wall clock.
    """
    for name in _MILLISECONDS:
        value = _get(headers, name)
        if value is not None and _NUMBER.fullmatch(value):
            return _sane(float(value) / 1000.0)
    for name in _SECONDS:
        value = _get(headers, name)
        if value is not None:
            return _sane(_seconds(value, headers, SYSTEM.wall() if now is None else now))
    return None


def _get(headers: Mapping[str, str], name: str) -> str | None:
    value = headers.get(name)
    if not isinstance(value, str):
        return None
    # Two values of one header come joined: the first is the server's, a proxy's is added behind.
    # The comma of a date follows a day's name.
    value = value.strip()
    head, comma, _ = value.partition(",")
    return head.strip() if comma and not head.isalpha() else value


def _seconds(value: str, headers: Mapping[str, str], now: float) -> float | None:
    if len(value) > _LONGEST_VALUE or not value:
        return None
    if _NUMBER.fullmatch(value):
        number = float(value)
        if number < _EPOCH:
            return number
        return _from_receipt(number / 1000 if number >= _EPOCH_MS else number, headers, now)
    instant = parse_http_date(value, now)
    if instant is None:
        instant = _parse_iso(value)
    if instant is not None:
        return _from_receipt(instant, headers, now)
    match = _DURATION.fullmatch(value)
    if match is None:
        return None
    return sum(
        float(amount) * _DURATION_SECONDS[unit]
        for unit, amount in match.groupdict().items()
        if amount
    )


def _from_receipt(instant: float, headers: Mapping[str, str], now: float) -> float:
    """Return the seconds from the response's `Date` to `instant`; an instant that is over is 0."""
    date = headers.get("date")
    sent = parse_http_date(date, now) if isinstance(date, str) else None
    return max(0.0, instant - (now if sent is None else sent))


def _parse_iso(value: str) -> float | None:
    match = _ISO.fullmatch(value)
    if match is None:
        return None
    import datetime as dt  # slow to import, and few servers send this form

    day, minute, second, fraction, zone = match.groups()
    zone = "+00:00" if zone is None or zone in "Zz" else zone
    try:
        # Without seconds the minute is meant as a whole: wait for its end.
        moment = dt.datetime.fromisoformat(f"{day}T{minute}{second or ':00'}{zone}")
        return moment.timestamp() + (float(fraction or 0) if second else 60.0)
    except (ValueError, OverflowError):
        return None


def _sane(seconds: float | None) -> float | None:
    if seconds is None or not math.isfinite(seconds) or not 0 <= seconds <= _ABSURD:
        return None
    return seconds
