"""A few connections to one server, kept open.

The one used last is used next, so that few stay in use. When all are, the next caller waits, and
not for ever. The first one that breaks takes the idle ones with it: they are most likely as dead.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from weakref import WeakSet

from ratekit import forks
from ratekit.stores.memcached.connection import Connection
from ratekit.stores.memcached.wire import Unavailable

__all__ = ["Pool"]


class Pool:
    """At most `size` connections; `timeout` (seconds) is how long to wait for one to be free."""

    def __init__(self, connect: Callable[[], Connection], size: int, timeout: float) -> None:
        self._connect = connect
        self._size = size
        self._timeout = timeout
        # Guards what is below.
        self._free = threading.Condition(threading.Lock())
        self._idle: list[Connection] = []
        # Those that exist, idle or not. Weakly: one that an interrupt took from its thread is gone
        # from here as it is from there.
        self._all: WeakSet[Connection | _Place] = WeakSet()
        forks.renew_in_child(self)

    def after_fork(self) -> None:
        """In a child: every socket is the parent's, who goes on using it."""
        self._free = threading.Condition(threading.Lock())
        idle, self._idle = self._idle, []
        self._all = WeakSet()
        for connection in idle:
            connection.close()

    @contextmanager
    def connection(self, *, fresh: bool = False) -> Iterator[Connection]:
        """Lend a connection; it is closed if the block raises anything at all.

        `fresh`: not one that may have broken since it was used. Raises `Unavailable` when none
        can be had in time.
        """
        if fresh:
            self.drain()
        one = self._take()
        try:
            if isinstance(one, _Place):
                place, one = one, self._connect()
                with self._free:
                    self._all.discard(place)
                    self._all.add(one)
            yield one
        except BaseException:
            if isinstance(one, Connection):
                one.close()
            with self._free:
                self._all.discard(one)
                self._free.notify()
            self.drain()
            raise
        with self._free:
            if one in self._all:
                self._idle.append(one)
                self._free.notify()
                return
        # Everything was drained meanwhile by a fork's child.
        one.close()

    def drain(self) -> None:
        """Close what is idle."""
        with self._free:
            idle, self._idle = self._idle, []
            for connection in idle:
                self._all.discard(connection)
            self._free.notify_all()
        for connection in idle:
            connection.close()

    def _take(self) -> "Connection | _Place":
        with self._free:
            if not self._free.wait_for(self._is_room, self._timeout):
                raise Unavailable(f"all of {self._size} connections are in use")
            if self._idle:
                return self._idle.pop()
            place = _Place()
            self._all.add(place)
            return place

    def _is_room(self) -> bool:
        return bool(self._idle) or len(self._all) < self._size


class _Place:
    """Stands for a connection that is being opened."""

    __slots__ = ("__weakref__",)
