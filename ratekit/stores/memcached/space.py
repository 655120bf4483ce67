"""The state of one name in memcached."""

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from cachetools import LRUCache

from ratekit import forks
from ratekit.clock import SECOND
from ratekit.errors import StoreError
from ratekit.stores import FENCE, Grants, Space, State, Take, Taken
from ratekit.stores.memcached.keys import digest_of, key_of
from ratekit.stores.memcached.record import Record, Update
from ratekit.stores.memcached.server import Server
from ratekit.stores.memcached.wire import Add, Get

if TYPE_CHECKING:
    from ratekit.stores.memcached.store import MemcachedStore

__all__ = ["MemcachedSpace"]

T = TypeVar("T")

# Of how many keys a process remembers what it saw last.
_REMEMBERED = 10_000


class MemcachedSpace(Space):
    """The state of one name, by key. Every operation may raise `StoreError`."""

    def __init__(self, store: "MemcachedStore", name: str) -> None:
        self.store = store
        self.name = name
        self.clock = store.servers[0].clock
        self.beside: dict[str, Any] = {}
        # Guards what is remembered.
        self._lock = threading.Lock()
        self._records: LRUCache[str, Record] = LRUCache(_REMEMBERED)
        forks.renew_in_child(self)

    def after_fork(self) -> None:
        """In a child: whoever held the lock does not exist here."""
        self._lock = threading.Lock()

    def place(self, key: str) -> tuple[str, Server]:
        """Return the digest of a key, and the server that keeps all that is kept for it."""
        digest = digest_of(self.store.namespace, self.name, key)
        return digest, self.store.server_of(digest)

    def taker(self, rule: Grants, price: Any) -> Take:
        """Return a function that says no: a permit of these is asked for by joining the line.

        Who asks without waiting does so too, so that one conversation can serve many threads.
        """
        now_ns = self.clock.now_ns

        def take(key: str) -> Taken:
            return False, FENCE, now_ns(), price

        return take

    def look(self, key: str) -> tuple[State | None, int]:
        """Return what `update` keeps for `key` (None where nothing), and the instant."""
        digest, server = self.place(key)
        record = Record(key_of("state", digest), idle_at=lambda state: 0)
        (reply,) = server.talk([Get(record.key)])
        now = server.clock.now_ns()
        record.see(reply, now)
        return record.state, now

    def update(
        self,
        key: str,
        change: Callable[[State | None, int], tuple[State | None, T]],
        idle_at: Callable[[State], int],
    ) -> T:
        """Replace the state of `key` by what `change` makes of it; return its second value."""
        digest, server = self.place(key)
        with self._lock:
            record = self._records.get(key)
            if record is None:
                record = Record(key_of("state", digest), idle_at)
                self._records[key] = record
            update = Update(record, change)
            now = server.clock.now_ns()
            commands = update.ask(now)
        while True:
            replies = server.talk(commands)
            now = server.clock.now_ns()
            with self._lock:
                if update.hear(replies, now):
                    return update.result
                commands = update.ask(now)

    # For policies that count, or keep more than a state.

    def count(self, key: str, seconds: int, by: int = 1) -> int:
        """Add to what was counted for `key` in this period of so many seconds; return the sum."""
        return self._count("count", key, seconds, by)

    def take_slot(self, key: str, most: int, seconds: int) -> bool:
        """Take one of the `most` slots that `key` has in each period of so many seconds.

        Of all that ask, in whatever process, no more are told yes. A holder that dies costs the
        others the rest of the period, and nothing else.
        """
        return self._count("slot", key, seconds, 1) <= most

    def _count(self, kind: str, key: str, seconds: int, by: int) -> int:
        digest, server = self.place(key)
        period = server.clock.now_ns() // (seconds * SECOND)
        name = key_of(kind, digest, f":{seconds}:{period}")
        number = server.talk([Add(name, by, 2 * seconds, first=by)])[0].number
        if number is None:
            raise StoreError("the server could not keep a number")
        return number
