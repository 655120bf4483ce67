"""Where state lives: a store hands out a `Space` for each name, a space keeps state by key.

A space applies functions to small records atomically. Two operations carry everything: `advance`
moves an integer forward, `update` replaces a record by what a pure function makes of it. The
store owns the clock: a timestamp in a record means something only beside the store that holds it.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from ratekit.clock import Clock

__all__ = ["MemoryStore", "Space", "Store", "Take", "Taken", "Update"]

T = TypeVar("T")

Record = tuple[int, ...]


Taken = tuple[bool, int, int, int]
"""What came of a `take`: whether it was granted, where the integer stands now, the instant, and
the price. (A plain tuple: every permit makes one.)"""

Take = Callable[[str], Taken]
"""Takes from a key, if that is to be had now."""


class Update(NamedTuple):
    """What a function makes of a record.

    `idle_at_ns` is the instant from which the record says no more than an absent one would: from
    then on a bounded store may drop it, never before.
    """

    record: Record
    idle_at_ns: int


class Space(ABC):
    """The state of one name: a small record, or one integer, for each key."""

    clock: Clock
    waiting: object = None
    """What a process keeps beside the state: its threads that wait (see `limits.waiting`)."""

    @abstractmethod
    def advance(self, key: str, by: int, at_least: int) -> int:
        """Move the integer of `key` to max(itself, `at_least`) + `by`; return where it stands."""

    @abstractmethod
    def taker(self, by: int, reach: int) -> Take:
        """Return a function that advances a key by `by` if it then lies within reach.

        That is at most `reach` ahead of the clock: `advance(key, by, now)` for who will not wait.
        """

    @abstractmethod
    def look(self, key: str) -> tuple[int, int]:
        """Return where the integer of `key` stands, and the instant; change nothing."""

    @abstractmethod
    def update(
        self, key: str, change: Callable[[Record | None, int], tuple[Update | None, T]]
    ) -> T:
        """Replace the record of `key` by `change(record, now_ns)[0]`, return `change(...)[1]`.

        `change` must be pure: it may be called again when somebody else was faster. None in place
        of an `Update` leaves the record as it is.
        """


class Store(ABC):
    """Hands out spaces by name; the same name is the same state."""

    clock: Clock

    @abstractmethod
    def space(self, name: str | None) -> Space:
        """Return the space called `name`; None makes one that nobody else can have."""


# The class stands in its own file; it is imported last because that file needs the names above.
from ratekit.stores.memory import MemoryStore  # noqa: E402
