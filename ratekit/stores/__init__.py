"""Where state lives: a store hands out a `Space` for each name, a space keeps state by key.

A space applies pure functions to small immutable states, atomically. A `take` grants by a rule if
that is due, `update` replaces a state by what a function makes of it. The store owns the clock: a
timestamp in a state means something only beside the store that holds it.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Protocol, TypeAlias, TypeVar

from ratekit.clock import Clock
from ratekit.errors import ConfigurationError

__all__ = [
    "FENCE", "Grants", "MemcachedStore", "MemoryStore", "Space", "State", "Store", "Take", "Taken",
    "open_store",
]  # fmt: skip

T = TypeVar("T")

State: TypeAlias = Any
"""An integer, or a tuple of integers and states: immutable."""

FENCE = 1 << 62
"""In place of a state: threads wait for this key, and the state is with those who wait (see
`limits.waiting`). Read as an integer it lies further ahead than any."""

Taken = tuple[bool, State, int, Any]
"""What came of a `take`: whether it was granted, the state now, the instant, and the price. (A
plain tuple: every permit makes one.)"""

Take = Callable[[str], Taken]
"""Takes from a key, if that is to be had now."""


class Grants(Protocol):
    """What a space asks of a rule (`limits.rules.Rule` says what each of these means)."""

    @property
    def fresh(self) -> State: ...  # noqa: D102

    def reach_ns(self, price: Any) -> int | None: ...  # noqa: D102

    def grant(self, state: State, now: int, price: Any) -> State | None: ...  # noqa: D102

    def idle_at(self, state: State) -> int: ...  # noqa: D102


class Space(ABC):
    """The state of one name, by key."""

    clock: Clock
    beside: dict[str, Any]
    """What a process keeps beside the state: its threads that wait, the shape of its limits."""

    @abstractmethod
    def taker(self, rule: Grants, price: Any) -> Take:
        """Return a function that grants `price` of a key by `rule` if it is due at once."""

    @abstractmethod
    def look(self, key: str) -> tuple[State | None, int]:
        """Return the state of `key` (None for a new one) and the instant; change nothing."""

    @abstractmethod
    def update(
        self,
        key: str,
        change: Callable[[State | None, int], tuple[State | None, T]],
        idle_at: Callable[[State], int],
    ) -> T:
        """Replace the state of `key` by `change(state, now_ns)[0]`, return `change(...)[1]`.

        `change` must be pure: it may be called again when somebody else was faster. It is given
        None for a key without a state; None in place of the new state leaves the old one.
        `idle_at(state)` is the instant from which the state says no more than none would: from
        then on a bounded store may drop it, never before.
        """


class Store(ABC):
    """Hands out spaces by name; the same name is the same state."""

    clock: Clock

    @abstractmethod
    def space(self, name: str | None) -> Space:
        """Return the space called `name`; None makes one that nobody else can have."""


# The classes stand in their own files; they are imported last because those need the names above.
from ratekit.stores.memcached import MemcachedStore  # noqa: E402
from ratekit.stores.memory import MemoryStore  # noqa: E402

_opened: dict[str, Store] = {}


def open_store(where: Store | str) -> Store:
    """Return the store that a URL names; the same URL is the same store. A store is itself.

    "memory:" or `memcached://host:port,host:port` or `memcached+unix:///path`. Raises
    `ConfigurationError` for anything else.
    """
    if isinstance(where, Store):
        return where
    if not isinstance(where, str):
        raise ConfigurationError(f"store {where!r}: use a store or the URL of one")
    if where == "memory:":
        from ratekit.stores.memory import SHARED

        return SHARED
    store = _opened.get(where)
    if store is None:
        # setdefault is atomic: two threads that ask at once get the same one.
        store = _opened.setdefault(where, MemcachedStore(where))
    return store
