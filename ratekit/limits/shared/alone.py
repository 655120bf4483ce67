"""What a process does while the shared state cannot be asked: it goes on at its share of the limit.

It takes one permit at a time, evenly spaced, at the limit's pace divided by the number of processes
that share it. The others do the same, so that together they stay within the limit. Nothing is saved
up: what the bucket held when the state was lost may be in use elsewhere.
"""

from typing import Any

from ratekit.limits.gcra import Bucket
from ratekit.limits.joint import Joint
from ratekit.limits.limit import Limit
from ratekit.limits.rules import Price, Rule
from ratekit.limits.waiting import Granted, Waiting, line_of
from ratekit.limits.windows import Fixed, Window
from ratekit.stores import MemoryStore
from ratekit.stores.memcached.shared_clock import SharedClock

__all__ = ["Alone"]

_MILLION = 1_000_000


class Alone:
    """The limits of one name, kept by this process alone."""

    def __init__(self, clock: SharedClock) -> None:
        self._clock = clock
        # Of this process, whatever the fleet's clock does meanwhile.
        self._space = MemoryStore(clock=clock.own_clock).space(None)
        self._waiting: Waiting = line_of(self._space)
        self._rules: dict[tuple[int, int], tuple[Rule, Bucket]] = {}

    def wait(self, key: str, rule: Rule, price: Price, processes: int, **how: Any) -> Granted:
        """Return when this process may go; `how` is as in `Waiting.wait`."""
        bucket = self._share(rule, processes)
        return self._waiting.wait(key, bucket, _spent(rule, price) * processes, **how)

    def begin(self, key: str, rule: Rule, processes: int, from_ns: int) -> None:
        """Grant the first permit one interval after `from_ns`, of the common clock."""
        bucket = self._share(rule, processes)
        ahead = max(0, from_ns - self._clock.now_ns())
        floor = self._space.clock.now_ns() + ahead + bucket.interval_ns
        self._waiting.raise_to(key, bucket, floor)

    def hold(self, key: str, rule: Rule, processes: int, length_ns: int) -> bool:
        """Hold this process alone."""
        return self._waiting.hold(key, self._share(rule, processes), length_ns)

    def _share(self, rule: Rule, processes: int) -> Bucket:
        kind = id(rule), processes
        found = self._rules.get(kind)
        if found is None:
            interval_ns = _spent(rule, rule.price(1)) * processes
            limit = Limit(
                f"1/{processes} of {rule.limit.text}",
                rule.limit.count,
                rule.limit.period_ns * processes,
                1,
            )
            # The rule is kept, so that its id stays its own.
            found = self._rules[kind] = rule, Bucket(limit, interval_ns, 1)
        return found[1]


def _spent(rule: Rule, price: Price) -> int:
    """Return how long the limits take to make up for a price, in nanoseconds."""
    if isinstance(rule, Joint):
        parts = zip(rule.parts, price, strict=True)
        return max(_spent(part.rule, taken) for part, taken in parts if part.binds)
    if isinstance(rule, Window | Fixed):
        return -(-rule.limit.period_ns * int(price) // (rule.limit.count * _MILLION))
    return int(price)
