"""What a server's quota headers mean for the pace: the windows that it tells of, answer by answer.

A short window is spent evenly, because many servers that tell of one are buckets inside and refuse
a burst; it would gain less than the window's length. Of a long one, what is left may be spent at
once (`greedy`), or evenly until it begins anew (`even`).
"""

import math
from typing import NamedTuple

from ratekit.quota import Quota

__all__ = ["Lesson", "Window", "heard"]

# A window up to so many seconds is short.
_SHORT = 10.0
# A window began anew where so much of it has come back at once.
_RENEWED = 0.3
# How far apart two resets are one: what rounding and two clocks do.
_SAME = 0.5


class Window(NamedTuple):
    """A window as it was told of last: its reset (seconds of our clock), and its length so far."""

    reset_at: float
    remaining: float
    length: float
    is_sure: bool


class Lesson(NamedTuple):
    """What follows: permits a second at most, and seconds in which nothing should be sent."""

    rate: float
    hold: float
    left: float
    """The smallest share of a window that is left, 1 where none is known."""
    name: str
    """Which window that is."""


def heard(
    known: dict[str, Window],
    quotas: tuple[Quota, ...],
    now: float,
    flying: int,
    *,
    even: bool,
    headroom: float,
) -> Lesson:
    """Return what `quotas` of an answer received at `now` mean; note their windows in `known`.

    `flying`: how many attempts are under way that the server may not have counted yet.
    """
    rate, hold, left, name = math.inf, 0.0, 1.0, ""
    for quota in quotas:
        remaining, reset = quota.remaining, quota.reset
        if quota.unit == "concurrent-requests":
            continue
        if remaining is not None and quota.limit:
            share = remaining / quota.limit
            if share < left:
                left, name = share, quota.name
        counts_requests = quota.unit == "requests"
        length = quota.window
        if reset is not None and remaining is not None:
            if length is None:
                length = _length(known, quota, remaining, now + reset, reset)
            short = length is not None and length <= _SHORT
            # Of a long window the last permits are those under way.
            if remaining <= (flying if counts_requests and not short else 0):
                hold = max(hold, reset)
            elif counts_requests and even and not short and reset > 0:
                rate = min(rate, headroom * (remaining - flying) / reset)
        if counts_requests and quota.limit and length is not None and length <= _SHORT:
            rate = min(rate, headroom * quota.limit / length)
    return Lesson(rate, hold, left, name)


def _length(
    known: dict[str, Window], quota: Quota, remaining: float, reset_at: float, reset: float
) -> float | None:
    """Return how long the window is, as far as its resets tell."""
    name = f"{quota.name} {quota.limit} {quota.partition}"
    before = known.get(name)
    if before is None:
        # An epoch of whole seconds is read a second late, to be on the safe side.
        length, is_sure = max(1.0, reset - 0.5), False
    else:
        length, is_sure = before.length, before.is_sure
        apart = reset_at - before.reset_at
        renewed = remaining - before.remaining >= _RENEWED * (quota.limit or math.inf)
        if apart > _SAME and renewed:
            # Windows without a request are not seen: the shortest distance is the length.
            length = min(length, apart) if is_sure else apart
            is_sure = True
        elif not is_sure:
            length = max(length, reset - 0.5)
        if apart <= _SAME:
            reset_at = before.reset_at
        if not renewed and apart <= _SAME:
            remaining = min(remaining, before.remaining)
    if len(known) < 64 or name in known:
        known[name] = Window(reset_at, remaining, length, is_sure)
    return length
