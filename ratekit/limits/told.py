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
# Windows of one host and credential that are remembered.
_MOST_WINDOWS = 64


class Window(NamedTuple):
    """A window as it was told of last, in seconds of our clock.

    `began`: when it was first seen to be new, None where it was under way. `length`: how long it
    is, as far as its resets tell, and whether that `is_sure`.
    """

    reset_at: float
    remaining: float
    began: float | None
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
        share, is_long = _share(quota), True
        if quota.unit == "requests":
            pace, pause, is_long = _requests(known, quota, now, flying, even=even)
            rate = min(rate, headroom * pace)
            hold = max(hold, pause)
        elif quota.remaining == 0 and quota.unit != "concurrent-requests":
            hold = max(hold, quota.reset or 0.0)
        if is_long and share < left:
            left, name = share, quota.name
    return Lesson(rate, hold, left, name)


def _share(quota: Quota) -> float:
    return 1.0 if quota.remaining is None or not quota.limit else quota.remaining / quota.limit


def _requests(
    known: dict[str, Window], quota: Quota, now: float, flying: int, *, even: bool
) -> tuple[float, float, bool]:
    """Return the permits a second and the pause for a window of requests, and whether it is long.

    Of a long one the last permits are those under way.
    """
    remaining, reset, length = quota.remaining, quota.reset, quota.window
    window = None
    if remaining is not None and reset is not None:
        window = _seen(known, quota, remaining, reset, now)
        length = window.length
    is_short = length is not None and length <= _SHORT
    pace = quota.limit / length if is_short and length and quota.limit else math.inf
    if window is None or remaining is None or not reset:
        return pace, 0.0, not is_short
    if is_short:
        return pace, 0.0 if remaining else _rest(window, reset, pace, now), False
    if remaining <= flying:
        return pace, reset, True
    return (remaining - flying) / reset if even else pace, 0.0, True


def _rest(window: Window, reset: float, rate: float, now: float) -> float:
    """Return how long a short window that is spent still lasts.

    Its reset is rounded up, by as much as the whole window. Where it was seen to begin its end is
    known better; where nothing begins anew it is a bucket inside, or a log, and the next permit is
    one permit's time away.
    """
    if window.began is None or not window.is_sure:
        return min(reset, 1 / rate)
    return min(reset, max(0.0, window.began + window.length - now))


def _seen(
    known: dict[str, Window], quota: Quota, remaining: float, reset: float, now: float
) -> Window:
    """Return the window that `quota` tells of, and note it."""
    name = f"{quota.name} {quota.limit} {quota.partition}"
    reset_at, before = now + reset, known.get(name)
    # An epoch of whole seconds is read a second late, to be on the safe side.
    length, is_sure = quota.window or max(1.0, reset - 0.5), quota.window is not None
    began = now if before is None and remaining + 1 >= (quota.limit or math.inf) else None
    if before is not None:
        apart = reset_at - before.reset_at
        began = before.began
        if remaining - before.remaining >= _RENEWED * (quota.limit or math.inf):
            began = now
            if quota.window is None and apart > _SAME:
                # Windows without a request are not seen: the shortest distance is the length.
                length = min(before.length, apart) if before.is_sure else apart
                is_sure = True
        elif quota.window is None:
            length = before.length if before.is_sure else max(length, before.length)
            is_sure = before.is_sure
            # Answers overtake each other.
            remaining = min(remaining, before.remaining) if apart < _SAME else remaining
    window = Window(reset_at, remaining, began, length, is_sure)
    if before is not None or len(known) < _MOST_WINDOWS:
        known[name] = window
    return window
