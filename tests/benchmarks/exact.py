"""What limits promise, in plain numbers and apart from ratekit's code: how to count, and who fits.

Instants are nanoseconds since the epoch.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from typing import NamedTuple

__all__ = ["Exact", "Promise", "exceeded"]

_SECOND = 1_000_000_000
_HEADROOM = 0.99
"""The share of a bucket's pace that ratekit uses where nobody says otherwise."""


class Promise(NamedTuple):
    """At most `permits` in each period; `form` says which periods, and what the pace is."""

    permits: int
    seconds: int
    form: str = "bucket"

    @property
    def period_ns(self) -> int:
        """The period's length."""
        return self.seconds * _SECOND

    @property
    def pace(self) -> float:
        """Permits a second in the long run."""
        return (_HEADROOM if self.form == "bucket" else 1) * self.permits / self.seconds


def exceeded(promises: Iterable[Promise], grants: Sequence[tuple[int, float]]) -> tuple[int, int]:
    """Return how many windows the grants fall into, and how many saw more than was promised.

    A grant is an instant and a cost; they are in order.
    """
    windows = over = 0
    for promise in promises:
        totals = (_aligned if promise.form == "fixed" else _sliding)(grants, promise.period_ns)
        windows += len(totals)
        over += sum(total > promise.permits for total in totals)
    return windows, over


def _aligned(grants: Sequence[tuple[int, float]], period_ns: int) -> list[float]:
    costs: dict[int, float] = {}
    for at, cost in grants:
        number = at // period_ns
        costs[number] = costs.get(number, 0) + cost
    return list(costs.values())


def _sliding(grants: Sequence[tuple[int, float]], period_ns: int) -> list[float]:
    totals = []
    total, first = 0.0, 0
    for at, cost in grants:
        total += cost
        while grants[first][0] <= at - period_ns:
            total -= grants[first][1]
            first += 1
        totals.append(total)
    return totals


class Exact:
    """The form itself, as exact as it can be: what a limiter grants that remembers everything."""

    def __init__(self, promise: Promise) -> None:
        self._promise = promise
        # A window's grants of the last period; of a fixed one those of this period.
        self._log: deque[tuple[int, float]] = deque()
        self._total = 0.0
        # A bucket's permits, as of an instant. It holds what the headroom leaves over.
        self._burst = max(1, promise.permits - int(promise.permits * _HEADROOM))
        self._level, self._at = float(self._burst), 0

    def fits(self, now: int, cost: float) -> bool:
        """Return whether `cost` may be granted now."""
        promise = self._promise
        if promise.form == "bucket":
            gained = (now - self._at) / _SECOND * promise.pace
            self._level, self._at = min(self._burst, self._level + gained), now
            return self._level >= cost - 1e-9
        length = now % promise.period_ns + 1 if promise.form == "fixed" else promise.period_ns
        while self._log and self._log[0][0] <= now - length:
            self._total -= self._log.popleft()[1]
        return self._total + cost <= promise.permits

    def take(self, now: int, cost: float) -> None:
        """Grant it."""
        self._level -= cost
        if self._promise.form != "bucket":
            self._total += cost
            self._log.append((now, cost))
