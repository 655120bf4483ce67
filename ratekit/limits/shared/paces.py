"""The pace that a fleet has learned together: one record a host and credential, changed by cas.

Each process adds what it saw admitted since it looked last, so what follows is of all of them.
"""

import math
from collections.abc import Callable

from ratekit.clock import SECOND
from ratekit.limits import pace as paces
from ratekit.limits.pace import Pace
from ratekit.stores import State
from ratekit.stores.memcached.space import MemcachedSpace

__all__ = ["FleetPaces"]

_MICRO = 1_000_000
# What was learned so long ago says nothing any more.
_STALE_NS = 3600 * SECOND
# Clocks differ by less.
_AHEAD_NS = SECOND
_FIELDS = len(Pace._fields)

Make = Callable[[Pace, int, int], Pace]
"""Makes a pace of a pace, the instant, and how many were admitted since the stretch began."""


class FleetPaces:
    """The paces of one space, by key."""

    def __init__(self, space: MemcachedSpace) -> None:
        self._space = space

    def change(self, key: str, admitted: int, make: Make) -> Pace:
        """Add what this process saw admitted, replace the pace by what `make` says, return it.

        Raises `StoreError` where the store cannot be asked.
        """

        def changed(state: State | None, now: int) -> tuple[State, Pace]:
            before, counted = _read(state, now)
            counted += admitted
            after = make(before, now, counted)
            if after.begin != before.begin:
                counted = 0
            return (counted, *_written(after)), after

        pace: Pace = self._space.update(key, changed, _idle_at)
        return pace


def _idle_at(state: State) -> int:
    pace, _ = _read(state, None)
    return max(pace.begin, pace.refused_at, pace.step_at) + _STALE_NS


def _written(pace: Pace) -> list[int]:
    return [
        0 if pace.rate == math.inf else round(pace.rate * _MICRO),
        0 if pace.ceiling == math.inf else round(pace.ceiling * _MICRO),
        *pace[2:],
    ]


def _rate(micro: int) -> float:
    return micro / _MICRO if micro > 0 else math.inf


def _read(state: State | None, now: int | None) -> tuple[Pace, int]:
    """Return the pace and the count of a record; those of none where it says nothing sane."""
    fresh = paces.FREE._replace(begin=now or 0)
    if not isinstance(state, tuple) or len(state) != _FIELDS + 1:
        return fresh, 0
    if not all(isinstance(number, int) and number >= -1 for number in state):
        return fresh, 0
    counted, rate, ceiling, *rest = state
    pace = Pace(
        rate / _MICRO if rate > 0 else math.inf,
        ceiling / _MICRO if ceiling > 0 else math.inf,
        *rest,
    )
    latest = max(pace.begin, pace.shut_at, pace.refused_at)
    if now is not None and not now - _STALE_NS < latest < now + _AHEAD_NS:
        return fresh, 0
    # Nothing that anybody wrote makes the pace slower, or a pause longer, than what is learned can.
    longest = paces.LONGEST_PAUSE_NS
    return pace._replace(
        rate=max(pace.rate, paces.SLOWEST),
        pause_ns=min(pace.pause_ns, longest),
        step_ns=min(max(pace.step_ns, paces.FIRST_STEP_NS), paces.LONGEST_STEP_NS),
        step_at=pace.step_at if now is None else min(pace.step_at, now + paces.LONGEST_STEP_NS),
    ), max(0, counted)
