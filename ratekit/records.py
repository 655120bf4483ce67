"""What a pipeline counts of its calls, by key: plain numbers, a few for each of a bounded number.

Counted with every call, so that `stats()` can be asked of a program that was not prepared for it.
"""

import threading
from bisect import bisect_left
from collections import OrderedDict
from itertools import accumulate
from typing import Any

from ratekit import forks
from ratekit.call import Call, Outcome
from ratekit.clock import SECOND

__all__ = ["Records"]

_MOST_KEYS = 1000
_OTHER = "other"
# Upper bounds in seconds of the classes that waits are counted in: four to a decade, so that a
# quantile is known within a factor of 1.8.
_BOUNDS = tuple(round(10 ** (step / 4), 4) for step in range(-12, 17))
_BOUNDS_NS = tuple(int(bound * SECOND) for bound in _BOUNDS)


class _Record:
    """One key. Guarded by the lock of its `Records`."""

    __slots__ = (
        "attempts", "calls", "collapsed", "errors", "fallbacks", "hits", "refused", "retries",
        "throttled", "waited_ns", "waits",
    )  # fmt: skip

    def __init__(self) -> None:
        self.calls = self.attempts = self.retries = self.errors = self.refused = 0
        self.throttled = self.hits = self.collapsed = self.fallbacks = 0
        self.waited_ns = 0
        # How many calls waited up to each bound, the last without one; none where nobody waited.
        self.waits: list[int] | None = None

    def count_wait(self, waited_ns: int) -> None:
        self.waited_ns += waited_ns
        if self.waits is None:
            self.waits = [0] * (len(_BOUNDS) + 1)
        self.waits[bisect_left(_BOUNDS_NS, waited_ns)] += 1

    def count_answer(self, call: Call, outcome: Outcome) -> None:
        if call.from_cache:
            self.hits += 1
        elif call.collapsed:
            self.collapsed += 1
        elif call.fallback:
            self.fallbacks += 1
        elif outcome.is_error:
            self.errors += 1
            self.throttled += outcome.status == 429

    def add(self, other: "_Record") -> None:
        for name in _COUNTS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        if other.waits is not None:
            mine = self.waits or [0] * (len(_BOUNDS) + 1)
            self.waits = [one + more for one, more in zip(mine, other.waits, strict=True)]

    def read(self) -> dict[str, Any]:
        waited = sum(self.waits or ())
        return {
            "calls": self.calls,
            "attempts": self.attempts,
            "retries": self.retries,
            "errors": self.errors,
            "refused": self.refused,
            "throttled": self.throttled,
            "cache_hits": self.hits,
            "collapsed": self.collapsed,
            "fallbacks": self.fallbacks,
            "waited": self.waited_ns / SECOND,
            "wait_buckets": self._buckets(),
            "wait_quantiles": {
                quantile: self._quantile(quantile, waited) for quantile in (0.5, 0.9, 0.99)
            },
        }

    def _buckets(self) -> dict[float, int]:
        """Return how many calls waited up to each bound, the shorter waits included."""
        waited = accumulate(self.waits or [0] * (len(_BOUNDS) + 1))
        none = self.calls - sum(self.waits or ())
        return {bound: none + count for bound, count in zip(_BOUNDS, waited, strict=False)}

    def _quantile(self, quantile: float, waited: int) -> float:
        """Return the seconds that this share of all calls waited at most."""
        left = quantile * self.calls - (self.calls - waited)
        if left <= 0 or self.waits is None:
            return 0.0
        for bound, count in zip(_BOUNDS, self.waits, strict=False):
            left -= count
            if left <= 0:
                return bound
        return _BOUNDS[-1]


_COUNTS = tuple(name for name in _Record.__slots__ if name != "waits")


class Records:
    """The records of a pipeline."""

    def __init__(self) -> None:
        self._renew()

    def _renew(self) -> None:
        self._lock = threading.Lock()
        self._by_key: OrderedDict[str, _Record] = OrderedDict()
        forks.renew_in_child(self)

    def after_fork(self) -> None:
        """In a child: it has made no calls yet."""
        self._lock = threading.Lock()
        self._by_key = OrderedDict()

    def ended(self, call: Call, outcome: Outcome | None, *, refused: bool = False) -> None:
        """Count a call that is over."""
        key = call.limited_key or call.budget_key
        attempts, waited_ns = call.attempts, call.waited_ns
        with self._lock:
            record = self._by_key.get(key) or self._begin(key)
            if len(self._by_key) > _MOST_KEYS // 2:
                self._by_key.move_to_end(key)
            record.calls += 1
            record.attempts += attempts
            if attempts > 1:
                record.retries += attempts - 1
            if waited_ns:
                record.count_wait(waited_ns)
            if outcome is None:
                record.refused += refused
                record.errors += not refused
            else:
                record.count_answer(call, outcome)

    def _begin(self, key: str) -> _Record:
        if len(self._by_key) >= _MOST_KEYS:
            _, oldest = self._by_key.popitem(last=False)
            self._by_key.setdefault(_OTHER, _Record()).add(oldest)
            self._by_key.move_to_end(_OTHER)
        record = self._by_key[key] = _Record()
        return record

    def read(self) -> dict[str, dict[str, Any]]:
        """Return a copy."""
        with self._lock:
            return {key: record.read() for key, record in self._by_key.items()}
