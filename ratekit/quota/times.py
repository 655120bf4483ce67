"""Times as servers write them: seconds, durations, dates and epochs, all made seconds from receipt.

A bare number is seconds unless it is too large for that; then it is an instant since 1970.
"""

import math
import re
from collections.abc import Mapping

from ratekit.clock import SYSTEM
from ratekit.http.dates import parse_http_date

__all__ = ["NUMBER", "Receipt", "reset_in", "sane", "seconds_in"]

# More than a year is no time to come back at.
_ABSURD = 366 * 86_400.0
# A number this large is no length of time but an instant: seconds, or milliseconds, since 1970.
_EPOCH = 1e9
_EPOCH_MS = 1e12
# An epoch of whole seconds has lost its fraction: the instant meant may be that much later.
_LOST = 1.0

NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)", re.ASCII)
"""A number as a header writes it: no exponent, no `nan`."""

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
# What JavaScript's `String(new Date())` gives: Tue Feb 16 2021 09:02:42 GMT+0100 (a zone's name)
_SCRIPT = re.compile(
    r"(?P<name>[A-Z][a-z]{2}) (?P<month>[A-Z][a-z]{2}) (?P<day>\d\d) (?P<year>\d{4}) "
    r"(?P<time>\d\d:\d\d:\d\d) GMT(?P<sign>[+-])(?P<hours>\d\d)(?P<minutes>\d\d)(?: \(.*\))?",
    re.ASCII,
)
_LONGEST_VALUE = 64
_LONGEST_DATE = 128


class Receipt:
    """When an answer was sent: by its own `Date`, else by the clock of whoever received it.

    An instant is measured from there, so that a client's wrong clock does not matter. It is read
    when first asked for, because most servers name no instants.
    """

    __slots__ = ("_headers", "_now", "_sent")

    def __init__(self, headers: Mapping[str, str], now: float | None) -> None:
        self._headers = headers
        self._now = now
        self._sent: float | None = None

    @property
    def now(self) -> float:
        """The wall clock's time of receipt."""
        if self._now is None:
            self._now = SYSTEM.wall()
        return self._now

    @property
    def sent(self) -> float:
        """The server's time of sending."""
        if self._sent is None:
            date = self._headers.get("date")
            sent = parse_http_date(date, self.now) if isinstance(date, str) else None
            # A date has lost its fraction: a clock that agrees with it knows better.
            agrees = sent is None or -_LOST <= self.now - sent <= 2 * _LOST
            self._sent = self.now if sent is None or agrees else sent
        return self._sent

    def until(self, instant: float) -> float:
        """Return the seconds to `instant`; one that is over is 0."""
        return max(0.0, instant - self.sent)


def seconds_in(value: str, at: Receipt) -> float | None:
    """Return the seconds that `value` says in any form, None where it says none."""
    if len(value) > _LONGEST_VALUE or not value:
        return None
    if NUMBER.fullmatch(value):
        number = float(value)
        if number < _EPOCH:
            return number
        return at.until(number / 1000 if number >= _EPOCH_MS else number)
    match = _DURATION.fullmatch(value)
    if match is not None:
        return sum(
            float(amount) * _DURATION_SECONDS[unit]
            for unit, amount in match.groupdict().items()
            if amount
        )
    instant = parse_http_date(value, at.now)
    if instant is None:
        instant = _parse_iso(value)
    return None if instant is None else at.until(instant)


def reset_in(value: str, at: Receipt, *, milliseconds: bool = False) -> float | None:
    """Return the seconds until a window resets, None where `value` makes no sense.

    `milliseconds`: what a bare number that is no epoch counts.
    """
    value = value.strip()
    if value.isdecimal() and value.isascii() and len(value) <= _LONGEST_VALUE:
        # By far the most usual form.
        number = float(value)
        if number < _EPOCH:
            return sane(number / 1000 if milliseconds else number)
        if number < _EPOCH_MS:
            return sane(at.until(number + _LOST))
    seconds = seconds_in(value, at)
    if seconds is None:
        instant = _parse_script_date(value, at.now)
        seconds = None if instant is None else at.until(instant)
    return sane(seconds)


def sane(seconds: float | None) -> float | None:
    """Return `seconds`, None where they are negative, not finite or more than a year."""
    if seconds is None or not math.isfinite(seconds) or not 0 <= seconds <= _ABSURD:
        return None
    return seconds


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


def _parse_script_date(value: str, now: float) -> float | None:
    match = _SCRIPT.fullmatch(value) if len(value) <= _LONGEST_DATE else None
    if match is None:
        return None
    instant = parse_http_date(
        f"{match['name']}, {match['day']} {match['month']} {match['year']} {match['time']} GMT", now
    )
    if instant is None:
        return None
    ahead = int(match["hours"]) * 3600.0 + int(match["minutes"]) * 60.0
    return instant - ahead if match["sign"] == "+" else instant + ahead
