"""Who waits to be sent: items in the order of their arrival, equal ones as one."""

from collections.abc import Hashable
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from ratekit.batch.future import BatchFuture

__all__ = ["Entry", "Line"]

K = TypeVar("K")
V = TypeVar("V")


class Entry(Generic[K, V]):
    """One item, with the futures of all who asked for it."""

    __slots__ = ("due_ns", "futures", "item", "key", "priority", "serial", "weight")

    def __init__(self, item: K, key: Hashable, weight: float, priority: int, due_ns: int) -> None:
        self.item = item
        self.key = key
        self.weight = weight
        self.priority = priority
        self.due_ns = due_ns
        self.serial = 0
        self.futures: list[BatchFuture[V]] = []

    def rank(self) -> tuple[int, int]:
        """Say where it stands among those that wait: the smallest goes first."""
        return -self.priority, self.serial


class Line(Generic[K, V]):
    """The entries that wait. Whoever calls a method holds the Batcher's lock.

    A signal's handler may raise between any two steps. So an entry is found by its key only while
    it waits, is known to a batch before it waits no more, and the weight is counted anew each time.
    """

    def __init__(self) -> None:
        # By serial. They fall due in this order too, as all may wait for the same time.
        self._entries: dict[int, Entry[K, V]] = {}
        self._by_key: dict[Hashable, Entry[K, V]] = {}
        self._serial = 0
        self._weight = 0.0

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, entry: object) -> bool:
        return isinstance(entry, Entry) and self._entries.get(entry.serial) is entry

    def find(self, key: Hashable) -> Entry[K, V] | None:
        """Return the entry that waits for an equal item."""
        entry = self._by_key.get(key)
        return entry if entry in self else None

    def add(self, entry: Entry[K, V], *, mergeable: bool) -> None:
        """Let an entry wait; where it is mergeable, those of equal items find it."""
        self._serial += 1
        entry.serial = self._serial
        self._entries[entry.serial] = entry
        self._weight += entry.weight
        if mergeable:
            self._by_key[entry.key] = entry

    def remove(self, *entries: Entry[K, V]) -> None:
        """Let entries wait no more."""
        for entry in entries:
            self._unlist(entry)
        self._weigh()

    def is_ready(self, now: int | None, max_size: float) -> bool:
        """Return whether there is a full batch, or by `now` one that has waited for its time."""
        if self._weight >= max_size:
            return bool(self._entries)
        return now is not None and any(entry.due_ns <= now for entry in self._first())

    def take(self, into: list[Entry[K, V]], max_size: float) -> None:
        """Move a batch to `into`: highest priorities first, then who came first.

        What does not fit leaves its place to what does; the first goes whatever its weight, so that
        nobody is overtaken for ever. Nobody can cancel what was taken, and what all have cancelled
        is dropped.
        """
        weight = 0.0
        for entry in sorted(self._entries.values(), key=Entry.rank):
            if weight >= max_size:
                break
            if weight and weight + entry.weight > max_size:
                continue
            into.append(entry)
            self._unlist(entry)
            entry.futures = [one for one in entry.futures if one.set_running_or_notify_cancel()]
            if entry.futures:
                weight += entry.weight
            else:
                into.pop()
        self._weigh()

    def push(self, now: int) -> list[Entry[K, V]]:
        """Make all that wait due now, and return them."""
        entries = list(self._entries.values())
        for entry in entries:
            entry.due_ns = min(entry.due_ns, now)
        return entries

    def who_could_send(self) -> "BatchFuture[V] | None":
        """Return a future at which a thread waits: the one whose entry is the first to go."""
        watched = [
            (entry.rank(), future)
            for entry in self._entries.values()
            for future in entry.futures
            if future.watchers
        ]
        return min(watched, key=lambda each: each[0])[1] if watched else None

    def _first(self) -> list[Entry[K, V]]:
        return [next(iter(self._entries.values()))] if self._entries else []

    def _unlist(self, entry: Entry[K, V]) -> None:
        try:
            if self._by_key.get(entry.key) is entry:
                del self._by_key[entry.key]
        except TypeError:
            pass  # it cannot be hashed, and so was never found by its key
        self._entries.pop(entry.serial, None)

    def _weigh(self) -> None:
        self._weight = sum(entry.weight for entry in self._entries.values())
