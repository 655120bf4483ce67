"""A small state in memcached, replaced by what a pure function makes of it.

Whoever wrote it last, or saw it last, tries with what it knows: one round trip where nobody else
has written meanwhile. Where somebody has, the same round trip brings what there is now.
"""

from collections.abc import Callable
from typing import Generic, TypeVar

from ratekit.clock import SECOND
from ratekit.errors import StoreError
from ratekit.stores import State
from ratekit.stores.memcached.states import dump, load
from ratekit.stores.memcached.wire import Command, Get, Put, Reply

__all__ = ["Record", "Update"]

T = TypeVar("T")

# Somebody always comes first, so it ends; this is for a server that says "changed" for ever.
_TRIES = 1000
# What is kept beyond the instant from which it says nothing: clocks differ.
_SPARE = 60

Change = Callable[[State | None, int], tuple[State | None, T]]


class Record:
    """What this process last saw of a state. `idle_at` is as in `Space.update`.

    `believed(state, now)` returns what is believed of a state that was read; None: nothing.
    """

    __slots__ = ("believed", "idle_at", "key", "state", "token")

    def __init__(
        self,
        key: bytes,
        idle_at: Callable[[State], int],
        believed: Callable[[State, int], State | None] = lambda state, now: state,
    ) -> None:
        self.key = key
        self.idle_at = idle_at
        self.believed = believed
        self.state: State | None = None
        # 0: it is not known.
        self.token = 0

    def see(self, reply: Reply, now: int) -> None:
        """Take in what is there now."""
        state = load(reply.value) if reply.done else None
        if state is not None:
            state = self.believed(state, now)
        if state is not None:
            self.state, self.token = state, reply.cas
            return
        # It was lost, or somebody wrote nonsense there: what was seen last is still true, as long
        # as it says anything.
        self.token = reply.cas if reply.done else 0
        if self.state is not None and self.idle_at(self.state) <= now:
            self.state = None


class Update(Generic[T]):
    """One change of a record: what to ask, and what the answers mean. `result` is there at the end.

    `change` may be called several times; the last call counts.
    """

    def __init__(self, record: Record, change: "Change[T]") -> None:
        self._record = record
        self._change = change
        self._tries = 0
        self._made: State | None = None
        # A look comes first unless there is something to try with.
        self._looks = record.token == 0
        self.result: T

    def ask(self, now: int) -> list[Command]:
        """Return what to send."""
        record = self._record
        if self._looks:
            return [Get(record.key)]
        self._made, self.result = self._change(record.state, now)
        if self._made is None:
            # It leaves the state as it is; whether it would, only a fresh look can tell.
            return [Get(record.key)]
        life = max(0, record.idle_at(self._made) - now) // SECOND + _SPARE
        return [Put(record.key, dump(self._made), life, cas=record.token), Get(record.key)]

    def hear(self, replies: list[Reply], now: int) -> bool:
        """Take in the replies; return whether it is done."""
        record = self._record
        self._tries += 1
        if self._tries > _TRIES:
            raise StoreError("too many others change the same state")
        if len(replies) == 2 and replies[0].done:
            record.state = self._made
            record.see(replies[1], now)
            return True
        record.see(replies[-1], now)
        was_look, self._looks = self._looks, False
        if not was_look and self._made is not None:
            return False
        made, result = self._change(record.state, now)
        if made is None:
            self.result = result
            return True
        return False
