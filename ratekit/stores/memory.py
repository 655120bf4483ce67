"""State in this process: dictionaries behind one lock for each space.

One lock, not stripes: it is held for well under a microsecond, and under the interpreter's own lock
threads hardly ever meet at it, while finding a stripe costs every permit as much as taking the
lock. (`docs/decisions/0008` has the figures.)

Memory is bounded. A key whose state says no more than an absent key would (a bucket that is full
again) may be dropped at any time, and is, when room is needed. A key that still binds is never
dropped: when every key binds, new ones share one strict state until there is room again.
"""

import logging
import threading
from collections.abc import Callable
from itertools import islice
from typing import Any, TypeVar

from ratekit import forks
from ratekit.clock import SYSTEM, Clock
from ratekit.errors import ConfigurationError
from ratekit.stores import FENCE, Grants, Space, State, Store, Take, Taken

__all__ = ["MemoryStore"]

T = TypeVar("T")

_log = logging.getLogger("ratekit.stores")

_FEWEST_KEYS = 16
# A full table is looked through in parts of so many keys: nobody waits long for it. It is looked
# through again when about this share of it can go, by so many samples.
_PART = 512
_SHARE = 16
_SAMPLES = 512
# Not text, so no key of a user's is ever this one.
_OVERFLOW: Any = object()

IdleAt = Callable[[State], int]
# What is kept for a key: an integer, which is idle at itself, or any other state with the function
# that says when it is. `FENCE` in place of either.
_Kept = int | tuple[State, IdleAt]


class MemorySpace(Space):
    """The state of one name in this process, bounded."""

    def __init__(self, clock: Clock, max_keys: int) -> None:
        self.clock = clock
        self.beside = {}
        self._room = max_keys
        # Guards all below. It is one object for ever: `taker` hands it out.
        self._lock = threading.Lock()
        self._states: dict[str, _Kept] = {}
        # Before this instant a look through the table would find too little to be worth it. What
        # has not been looked at in this one, and how much it found.
        self._sweep_at = 0
        self._unseen: list[str] = []
        self._dropped = 0
        self._is_crowded = False
        self._told = False
        forks.renew_in_child(self)

    def after_fork(self) -> None:
        """In a child: whoever held the lock does not exist here."""
        if self._lock.locked():
            self._lock.release()

    def __len__(self) -> int:
        return len(self._states)

    def taker(self, rule: Grants, price: Any) -> Take:
        """Return `take(key)`, made once for a price: every permit of a limiter goes through it."""
        reach = rule.reach_ns(price)
        if reach is not None:
            return self._integer_taker(rule, price, reach)
        lock, clock, states = self._lock, self.clock, self._states
        grant, idle_at = rule.grant, rule.idle_at

        def take(key: str) -> Taken:
            with lock:
                held: Any = states.get(key)
                if held is not None:
                    now = clock.now_ns()
                    if held is FENCE:
                        return False, FENCE, now, price
                    state = grant(held[0], now, price)
                    if state is None:
                        return False, held[0], now, price
                    states[key] = state, idle_at
                    return True, state, now, price
            return self._take(key, rule, price)

        return take

    def _integer_taker(self, rule: Grants, price: int, reach: int) -> Take:
        """Return the same for a rule whose state is an integer: the short way."""
        lock, clock, states = self._lock, self.clock, self._states

        def take(key: str) -> Taken:
            with lock:
                held: Any = states.get(key)
                if held is not None:
                    now = clock.now_ns()
                    # Not max(): it costs as much as all the rest.
                    end = (held if held > now else now) + price  # noqa: FURB136
                    if end - reach > now:
                        return False, held, now, price
                    states[key] = end
                    return True, end, now, price
            return self._take(key, rule, price)

        return take

    def _take(self, key: str, rule: Grants, price: Any) -> Taken:
        """Take from a key that had no state a moment ago."""
        with self._lock:
            now = self.clock.now_ns()
            cell = self._cell(key, now)
            state = self._state(cell)
            allowed = False
            if state is None:
                state = rule.fresh
            after = None if state is FENCE else rule.grant(state, now, price)
            if after is not None:
                allowed, state = True, after
                self._keep(cell, state, rule.idle_at)
        self._tell()
        return allowed, state, now, price

    def look(self, key: str) -> tuple[State | None, int]:
        """Return the state of `key` (None for a new one) and the instant; change nothing."""
        with self._lock:
            return self._state(key), self.clock.now_ns()

    def update(
        self,
        key: str,
        change: Callable[[State | None, int], tuple[State | None, T]],
        idle_at: IdleAt,
    ) -> T:
        """Replace the state of `key` by what `change` makes of it; return its second value."""
        with self._lock:
            now = self.clock.now_ns()
            cell = self._cell(key, now)
            state, result = change(self._state(cell), now)
            if state is not None:
                self._keep(cell, state, idle_at)
        self._tell()
        return result

    # For those who wait: while there are any, the state is with them.

    def cell(self, key: str) -> str:
        """Return the key under which the state of `key` is kept: its own, or one that is shared."""
        with self._lock:
            return self._cell(key, self.clock.now_ns())

    def lift(self, cell: str, line: Any) -> None:
        """Move the state to `line.base` (None where there is none) and put `FENCE` in its place.

        It does so in one step: a signal that comes now must not find the state in neither place.
        """
        with self._lock:
            state = self._state(cell)
            if state is not FENCE:
                line.base = state
            self._states[cell] = FENCE

    def lower(self, cell: str, state: State, idle_at: IdleAt) -> None:
        """Put the state back."""
        with self._lock:
            self._keep(cell, state, idle_at)

    # With the lock held.

    def _cell(self, key: str, now: int) -> str:
        """Return the key under which `key` is kept.

        A new one starts from the shared state: whoever used that must not start afresh while it
        still binds, nor overtake those who wait for it.
        """
        states = self._states
        if key in states:
            return key
        if len(states) < self._room and states.get(_OVERFLOW) is not FENCE:
            return key
        if now >= self._sweep_at:
            self._sweep(now)
            if len(states) < self._room and states.get(_OVERFLOW) is not FENCE:
                return key
        self._is_crowded = True
        shared: str = _OVERFLOW
        return shared

    def _sweep(self, now: int) -> None:
        """Drop what is idle in the next part of the table."""
        states = self._states
        if not self._unseen:
            # The oldest last, which are taken first.
            self._unseen = list(reversed(states))
            self._dropped = 0
        for name in self._unseen[-_PART:]:
            kept = states.get(name)
            if kept is not None and _idle_at(kept) <= now:
                del states[name]
                self._dropped += 1
        del self._unseen[-_PART:]
        if not self._unseen and self._dropped * _SHARE < self._room:
            some = islice(states.values(), 0, None, max(1, len(states) // _SAMPLES))
            when = sorted(map(_idle_at, some))
            self._sweep_at = when[len(when) // _SHARE] if when else 0

    def _state(self, cell: str) -> State | None:
        kept = self._states.get(cell)
        if kept is None:
            kept = self._states.get(_OVERFLOW)
        return kept[0] if isinstance(kept, tuple) else kept

    def _keep(self, cell: str, state: State, idle_at: IdleAt) -> None:
        self._states[cell] = state if isinstance(state, int) else (state, idle_at)

    def _tell(self) -> None:
        """Say once that keys had to share. Called with no lock held: a log handler may use us."""
        if self._is_crowded and not self._told:
            self._told = True
            _log.warning(
                "all of %d keys are in use: new keys share one budget until some are back at "
                "full; give the MemoryStore a larger max_keys",
                self._room,
            )


def _idle_at(kept: _Kept) -> int:
    return kept if isinstance(kept, int) else kept[1](kept[0])


class MemoryStore(Store):
    """State in this process, bounded to `max_keys` keys for each name.

    It is thread-safe. A pickled copy in another process, and a forked child, has state of its own.
    """

    def __init__(self, *, max_keys: int = 250_000, clock: Clock = SYSTEM) -> None:
        if max_keys < _FEWEST_KEYS:
            raise ConfigurationError(f"max_keys {max_keys!r}: use at least {_FEWEST_KEYS}")
        self.clock = clock
        self.max_keys = max_keys
        self._spaces: dict[str, MemorySpace] = {}

    def space(self, name: str | None) -> MemorySpace:
        """Return the space called `name`; None makes one that nobody else can have."""
        if name is None:
            return MemorySpace(self.clock, self.max_keys)
        space = self._spaces.get(name)
        if space is None:
            # setdefault is atomic: two threads that ask at once get the same space.
            space = self._spaces.setdefault(name, MemorySpace(self.clock, self.max_keys))
        return space

    def __repr__(self) -> str:
        return f"MemoryStore(max_keys={self.max_keys})"

    def __getstate__(self) -> dict[str, object]:
        return {"clock": self.clock, "max_keys": self.max_keys, "_spaces": {}}


SHARED = MemoryStore()
"""The store of every named limiter that was given none: the name alone decides who shares."""
