"""How the loopback API server counts: a small class for each rule that real servers have.

They are written apart from ratekit's own limiters, in floats: a mistake in the one cannot hide in
the other. None reads a clock; those that depend on the time of day are given `wall`, which returns
it in seconds since the epoch.
"""

import math
from collections import deque
from collections.abc import Callable
from typing import Final

__all__ = [
    "Concurrency",
    "FixedWindow",
    "Rule",
    "SlidingLog",
    "TokenBucket",
    "TwoWindowEstimate",
    "WallClockWindow",
]

MOMENT: Final = 1e-6  # seconds; what rounding does to an instant is far less


class Rule:
    """What has been spent of a limit, and so who is admitted. This one admits everything."""

    def take(self, now: float) -> float:
        """Admit a request at `now` and return 0.0, or refuse it and return seconds, above 0.

        A request that comes so much later, and after no other, is admitted.
        """
        return 0.0

    def left(self, now: float) -> tuple[int, float]:
        """Return how many would be admitted now, and the seconds until there is more."""
        raise NotImplementedError

    def done(self) -> None:
        """Note that a request which was admitted is no longer in flight."""


class TokenBucket(Rule):
    """`burst` tokens at most, full at first; `rate` a second flow in, and a request takes one."""

    def __init__(self, rate: float, burst: int) -> None:
        self._rate = rate
        self._burst = self._tokens = float(burst)
        self._filled_at = -math.inf

    def take(self, now: float) -> float:
        """Take a token and return 0.0, or return the seconds until there is one to take."""
        self._tokens = min(self._burst, self._tokens + (now - self._filled_at) * self._rate)
        self._filled_at = now
        # Rounding, of the tokens or of the instant, must not refuse whoever waited exactly as long
        # as it was told.
        if self._tokens >= 1.0 - 1e-9 - self._rate * math.ulp(now):
            self._tokens -= 1.0
            return 0.0
        return (1.0 - self._tokens) / self._rate

    def left(self, now: float) -> tuple[int, float]:
        """Return the whole tokens, and the seconds until the bucket is full."""
        tokens = min(self._burst, self._tokens + (now - self._filled_at) * self._rate)
        return int(tokens), (self._burst - tokens) / self._rate


class SlidingLog(Rule):
    """At most `count` admitted in any `window` seconds; what was refused leaves no trace."""

    def __init__(self, count: int, window: float) -> None:
        self._window = window
        self._count = count
        # When the last `count` that were admitted will be out of the window, the oldest first.
        self._over_at: deque[float] = deque(maxlen=count)

    def take(self, now: float) -> float:
        """Take a place in the window, or return the seconds until the oldest one is free."""
        if len(self._over_at) == self._count and now < self._over_at[0]:
            return _until(self._over_at[0], now)
        self._over_at.append(now + self._window)
        return 0.0

    def left(self, now: float) -> tuple[int, float]:
        """Return the free places, and the seconds until the oldest one is free."""
        taken = [over for over in self._over_at if over > now]
        return self._count - len(taken), taken[0] - now if taken else 0.0


class FixedWindow(Rule):
    """`count` in a window, which begins with the first request after the last one ended."""

    def __init__(self, count: int, window: float) -> None:
        self._count = self._left = count
        self._window = window
        self._ends = -math.inf

    def take(self, now: float) -> float:
        """Take one of what is left of the window, or return the seconds until it ends."""
        if now >= self._ends:
            self._ends = now + self._window
            self._left = self._count
        if self._left:
            self._left -= 1
            return 0.0
        return _until(self._ends, now)

    def left(self, now: float) -> tuple[int, float]:
        """Return what is left of the window, and the seconds until it ends."""
        return self._left, max(0.0, self._ends - now)


class WallClockWindow(Rule):
    """`count` in each window of the wall clock, as in each minute or each hour."""

    def __init__(self, count: int, window: float, wall: Callable[[], float]) -> None:
        self._count = self._left = count
        self._window = window
        self._wall = wall
        self._number = -math.inf  # of the window, counted from the epoch

    def take(self, now: float) -> float:
        """Take one of what is left of the window, or return the seconds until the next."""
        wall = self._wall()
        number = wall // self._window
        if number != self._number:
            self._number = number
            self._left = self._count
        if self._left:
            self._left -= 1
            return 0.0
        ends = (number + 1) * self._window
        if ends // self._window == number:  # the product was rounded down
            ends = math.nextafter(ends, math.inf)
        return _until(ends, wall)

    def left(self, now: float) -> tuple[int, float]:
        """Return what is left of the window, and the seconds until it ends."""
        wall = self._wall()
        return self._left, (wall // self._window + 1) * self._window - wall


class TwoWindowEstimate(Rule):
    """This period's count and a share of the last one's are fewer than `count`.

    The share is what is left of this period, as if the last one's had come evenly. With
    `count_refusals` a refusal counts like any request, and a period begins with the first request
    or where the last one ended (HAProxy's `http_req_rate`). Without, it does not, and the periods
    lie on the wall clock (the sliding window counter of limits, and so of slowapi).
    """

    def __init__(
        self, count: int, window: float, wall: Callable[[], float], *, count_refusals: bool
    ) -> None:
        self._count = count
        self._window = window
        self._wall = wall
        self._count_refusals = count_refusals
        self._begins = -math.inf
        self._last = self._this = 0

    def take(self, now: float) -> float:
        """Count a request, or return the seconds until the estimate has fallen low enough."""
        if now - self._begins >= 2 * self._window:
            self._begins = now if self._count_refusals else now - self._wall() % self._window
            self._last = self._this = 0
        elif now - self._begins >= self._window:
            self._begins += self._window
            self._last, self._this = self._this, 0
        left = self._begins + self._window - now
        if self._last * left < (self._count - self._this) * self._window:
            self._this += 1
            return 0.0
        self._this += self._count_refusals
        # An estimate of exactly `count` still refuses.
        if self._this < self._count:
            return left - (self._count - self._this) * self._window / self._last + MOMENT
        return left + self._window - self._count * self._window / self._this + MOMENT

    def left(self, now: float) -> tuple[int, float]:
        """Return what the estimate leaves, and the seconds until this period ends."""
        left = max(0.0, self._begins + self._window - now)
        estimate = self._last * left / self._window + self._this
        return max(0, int(self._count - estimate)), left


class Concurrency(Rule):
    """At most `count` in flight. Nobody can say when there will be fewer, so a wait is infinite."""

    def __init__(self, count: int) -> None:
        self._free = count

    def take(self, now: float) -> float:
        """Take a place until `done`, or return infinity."""
        if not self._free:
            return math.inf
        self._free -= 1
        return 0.0

    def done(self) -> None:
        """Give the place back."""
        self._free += 1


def _until(then: float, now: float) -> float:
    """Return the seconds from `now` to `then`, and never so few that rounding falls short."""
    wait = then - now
    return wait if now + wait >= then else wait + math.ulp(then)
