"""State in this process: dictionaries behind striped locks.

Memory is bounded. A key whose state says no more than an absent key would (a bucket that is full
again) may be dropped at any time, and is, when room is needed. A key that still binds is never
dropped: when every key binds, new ones share a strict state (each of the stripes has one) until
there is room again.
"""

import logging
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from ratekit import forks
from ratekit.clock import SYSTEM, Clock
from ratekit.errors import ConfigurationError
from ratekit.stores import Record, Space, Store, Taken, Update

__all__ = ["MemoryStore"]

T = TypeVar("T")
V = TypeVar("V")

_log = logging.getLogger("ratekit.stores")

_STRIPES = 16
_MASK = _STRIPES - 1
# Not a key that a user can write.
_OVERFLOW = "\0overflow"
_NEVER: Record = (0,)


class _Table(dict[str, V], Generic[V]):
    """One stripe's state, and the instant before which nothing in it can be dropped."""

    __slots__ = ("sweep_at",)

    def __init__(self) -> None:
        super().__init__()
        self.sweep_at = 0


class MemorySpace(Space):
    """The state of one name in this process."""

    def __init__(self, clock: Clock, max_keys: int) -> None:
        self.clock = clock
        self._room = max(1, max_keys // _STRIPES)
        self._told = False
        self._integers: list[_Table[int]] = [_Table() for _ in range(_STRIPES)]
        self._records: list[_Table[tuple[Record, int]]] = [_Table() for _ in range(_STRIPES)]
        self._set_locks()
        forks.renew_in_child(self)

    def _set_locks(self) -> None:
        # Lock i guards table i of the integers and table i of the records.
        self._locks = [threading.Lock() for _ in range(_STRIPES)]
        self._stripes = list(zip(self._locks, self._integers, strict=True))

    def after_fork(self) -> None:
        """In a child: its state is its own from here on, and nobody holds its locks."""
        self._set_locks()

    def __len__(self) -> int:
        return sum(map(len, self._integers)) + sum(map(len, self._records))

    def advance(self, key: str, by: int, at_least: int) -> int:
        """Move the integer of `key` to max(itself, `at_least`) + `by`; return where it stands."""
        lock, table = self._stripes[hash(key) & _MASK]
        with lock:
            held = table.get(key)
            if held is None:
                key, held = self._admit(table, key, _idle_integer), table.get(_OVERFLOW, 0)
            table[key] = stands = max(held, at_least) + by
            return stands

    def take(self, key: str, by: int, depth: int) -> Taken:
        """Advance `key` by `by` if it then lies at most `depth` ahead of the clock."""
        lock, table = self._stripes[hash(key) & _MASK]
        with lock:
            now = self.clock.now_ns()
            held = table.get(key)
            if held is None:
                key, held = self._admit(table, key, _idle_integer), table.get(_OVERFLOW, 0)
            # Not max(): it costs as much as all the rest.
            end = (held if held > now else now) + by  # noqa: FURB136
            if end - depth > now:
                return False, held, now
            table[key] = end
            return True, end, now

    def look(self, key: str) -> Taken:
        """Return where the integer of `key` stands, changing nothing."""
        lock, table = self._stripes[hash(key) & _MASK]
        with lock:
            stands = table.get(key)
            if stands is None:
                stands = table.get(_OVERFLOW, 0)
            return True, stands, self.clock.now_ns()

    def update(
        self, key: str, change: Callable[[Record | None, int], tuple[Update | None, T]]
    ) -> T:
        """Replace the record of `key` by what `change` makes of it; return its second value."""
        index = hash(key) & _MASK
        table = self._records[index]
        with self._locks[index]:
            now = self.clock.now_ns()
            held = table.get(key)
            if held is None:
                key = self._admit(table, key, _idle_record)
                held = table.get(_OVERFLOW, (_NEVER, 0))
            made, result = change(None if held[0] is _NEVER else held[0], now)
            if made is not None:
                table[key] = (made.record, made.idle_at_ns)
            return result

    def _admit(self, table: _Table[V], key: str, idle_at: Callable[[V], int]) -> str:
        """Return the key under which a new `key` is kept; it starts from the overflow's state.

        It does so even where it gets a place of its own: whoever shared the overflow state must
        not start afresh while that still binds. Called with the stripe's lock held.
        """
        if len(table) >= self._room:
            now = self.clock.now_ns()
            if now >= table.sweep_at:
                for name in [name for name, state in table.items() if idle_at(state) <= now]:
                    del table[name]
                # Nothing that is left can go before the first of it is back at full: until then
                # a new key costs no second look at all of them.
                table.sweep_at = min(map(idle_at, table.values()), default=0)
            if len(table) >= self._room:
                self._tell()
                return _OVERFLOW
        return key

    def _tell(self) -> None:
        if not self._told:
            self._told = True
            _log.warning(
                "all of %d keys are in use: new keys share budgets until some are back at full; "
                "give the MemoryStore a larger max_keys",
                self._room * _STRIPES,
            )


def _idle_integer(stands: int) -> int:
    return stands


def _idle_record(held: tuple[Record, int]) -> int:
    return held[1]


class MemoryStore(Store):
    """State in this process, bounded to `max_keys` keys for each name.

    It is thread-safe. A pickled copy in another process, and a forked child, has state of its own.
    """

    def __init__(self, *, max_keys: int = 250_000, clock: Clock = SYSTEM) -> None:
        if max_keys < _STRIPES:
            raise ConfigurationError(f"max_keys {max_keys!r}: use at least {_STRIPES}")
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
