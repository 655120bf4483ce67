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
from typing import Any, Generic, TypeVar

from ratekit import forks
from ratekit.clock import SYSTEM, Clock
from ratekit.errors import ConfigurationError
from ratekit.stores import Record, Space, Store, Take, Taken, Update

__all__ = ["MemoryStore"]

T = TypeVar("T")
V = TypeVar("V")

_log = logging.getLogger("ratekit.stores")

_FEWEST_KEYS = 16
# A full table is looked through again when about this share of it can go, by this many samples.
_SHARE = 16
_SAMPLES = 512
# Not text, so no key of a user's is ever this one.
_OVERFLOW: Any = object()
_NEVER: Record = (0,)


class _Table(Generic[V]):
    """State by key, bounded. Its methods are called with the space's lock held."""

    def __init__(self, room: int, idle_at: Callable[[V], int]) -> None:
        self.states: dict[str, V] = {}
        self._room = room
        self._idle_at = idle_at
        # Before this instant a look through the table would find too little to be worth it.
        self._sweep_at = 0
        self.is_crowded = False
        self._told = False

    def admit(self, key: str, now: int) -> Any:
        """Return the key under which a new `key` is kept: its own, or the one that is shared.

        Either way it starts from the shared state: whoever used that must not start afresh while
        it still binds.
        """
        states = self.states
        if len(states) < self._room:
            return key
        if now >= self._sweep_at:
            idle_at = self._idle_at
            for name in [name for name, state in states.items() if idle_at(state) <= now]:
                del states[name]
            some = islice(states.values(), 0, None, max(1, len(states) // _SAMPLES))
            when = sorted(map(idle_at, some))
            self._sweep_at = when[len(when) // _SHARE] if when else 0
            if len(states) < self._room:
                return key
        self.is_crowded = True
        return _OVERFLOW

    def tell(self) -> None:
        """Say once that keys had to share. Called with no lock held: a log handler may use us."""
        if self.is_crowded and not self._told:
            self._told = True
            _log.warning(
                "all of %d keys are in use: new keys share one budget until some are back at "
                "full; give the MemoryStore a larger max_keys",
                self._room,
            )


class MemorySpace(Space):
    """The state of one name in this process."""

    def __init__(self, clock: Clock, max_keys: int) -> None:
        self.clock = clock
        self._integers = _Table[int](max_keys, _integer_idle_at)
        self._records = _Table[tuple[Record, int]](max_keys, _record_idle_at)
        # Guards both tables. It is one object for ever: `taker` hands it out.
        self._lock = threading.Lock()
        forks.renew_in_child(self)

    def after_fork(self) -> None:
        """In a child: whoever held the lock does not exist here."""
        if self._lock.locked():
            self._lock.release()

    def __len__(self) -> int:
        return len(self._integers.states) + len(self._records.states)

    def advance(self, key: str, by: int, at_least: int) -> int:
        """Move the integer of `key` to max(itself, `at_least`) + `by`; return where it stands."""
        table = self._integers
        with self._lock:
            held = table.states.get(key)
            if held is None:
                key = table.admit(key, self.clock.now_ns())
                held = table.states.get(_OVERFLOW, 0)
            table.states[key] = stands = max(held, at_least) + by
        table.tell()
        return stands

    def taker(self, by: int, reach: int) -> Take:
        """Return `take(key)`, made once for a price: every permit of a limiter goes through it."""
        lock, clock, states, take_new = self._lock, self.clock, self._integers.states, self._take

        def take(key: str) -> Taken:
            with lock:
                held = states.get(key)
                if held is not None:
                    now = clock.now_ns()
                    # Not max(): it costs as much as all the rest.
                    end = (held if held > now else now) + by  # noqa: FURB136
                    if end - reach > now:
                        return False, held, now, by
                    states[key] = end
                    return True, end, now, by
            return take_new(key, by, reach)

        return take

    def _take(self, key: str, by: int, reach: int) -> Taken:
        """Take from a key that had no state a moment ago."""
        table = self._integers
        with self._lock:
            now = self.clock.now_ns()
            held = table.states.get(key)
            if held is None:
                key = table.admit(key, now)
                held = table.states.get(_OVERFLOW, 0)
            end = max(held, now) + by
            allowed = end - reach <= now
            if allowed:
                table.states[key] = end
        table.tell()
        return allowed, end if allowed else held, now, by

    def look(self, key: str) -> tuple[int, int]:
        """Return where the integer of `key` stands, and the instant; change nothing."""
        states = self._integers.states
        with self._lock:
            stands = states.get(key)
            if stands is None:
                stands = states.get(_OVERFLOW, 0)
            return stands, self.clock.now_ns()

    def update(
        self, key: str, change: Callable[[Record | None, int], tuple[Update | None, T]]
    ) -> T:
        """Replace the record of `key` by what `change` makes of it; return its second value."""
        table = self._records
        with self._lock:
            now = self.clock.now_ns()
            held = table.states.get(key)
            if held is None:
                key = table.admit(key, now)
                held = table.states.get(_OVERFLOW, (_NEVER, 0))
            made, result = change(None if held[0] is _NEVER else held[0], now)
            if made is not None:
                table.states[key] = (made.record, made.idle_at_ns)
        table.tell()
        return result


def _integer_idle_at(stands: int) -> int:
    return stands


def _record_idle_at(held: tuple[Record, int]) -> int:
    return held[1]


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
