"""One memcached server: its connections, its clock, and whether it answers.

While it does not, one caller at a time asks again, at growing intervals; all others are told at
once, and wait for nobody.
"""

import logging
import secrets
import threading
from collections.abc import Sequence
from dataclasses import replace

from ratekit import events, forks
from ratekit.clock import SECOND, Clock
from ratekit.errors import StoreError
from ratekit.events import StoreFound, StoreLost, tell
from ratekit.stores.memcached.connection import Address, Connection
from ratekit.stores.memcached.pool import Pool
from ratekit.stores.memcached.shared_clock import SharedClock
from ratekit.stores.memcached.wire import Command, Lost, Reply, Unavailable

__all__ = ["Server"]

_log = logging.getLogger("ratekit.stores")

# How long to leave a server alone that did not answer: at first, and at most.
_HURRIED = 0.1
_FIRST_PAUSE_NS = SECOND // 20
_LONGEST_PAUSE_NS = SECOND // 2
# How long after the first answer the others may not have noticed that it answers.
_SETTLING_NS = _LONGEST_PAUSE_NS * 6 // 5


class Server:
    """Talks to one server. `round_trips` counts the conversations that were tried."""

    def __init__(self, address: Address, pool_size: int, clock: Clock, prefix: bytes) -> None:
        self.address = address
        # Who asks whether it is back has work to do.
        self._hurried = replace(
            address,
            timeout=min(address.timeout, _HURRIED),
            connect_timeout=min(address.connect_timeout, _HURRIED),
        )
        self.round_trips = 0
        self.clock = SharedClock(clock, prefix, str(address))
        self._pool = Pool(self._connect, pool_size, address.timeout)
        self._probe_key = prefix + b"probe:" + secrets.token_hex(8).encode()
        self._meta: bool | None = None
        # Guards what is below.
        self._lock = threading.Lock()
        self._lost_at: int | None = None
        # When it was last lost, and when it was last found again; by the own clock.
        self.lost_ns = 0
        self.found_ns = 0
        self._ask_at = 0
        self._pause_ns = _FIRST_PAUSE_NS
        self._is_asked = False
        self._why = ""
        forks.renew_in_child(self)

    def after_fork(self) -> None:
        """In a child: whoever held the lock does not exist here."""
        self._lock = threading.Lock()
        self._is_asked = False

    @property
    def is_lost(self) -> bool:
        """Whether it did not answer when it was last asked."""
        return self._lost_at is not None

    @property
    def is_settling(self) -> bool:
        """Whether other processes may still take it for lost."""
        return self.clock.own_ns() - self.found_ns < _SETTLING_NS

    @property
    def speaks_meta(self) -> bool:
        """Whether it has the meta protocol; it is taken to until it has been asked."""
        return self._meta is not False

    def talk(self, commands: Sequence[Command], *, again: bool = True) -> list[Reply]:
        """Send commands in one message; return their replies.

        `again`: whether they may be sent twice, where a connection broke before the reply. Raises
        `Unavailable` (nothing was sent) or `Lost` (nobody knows).
        """
        asks = self._enter()
        try:
            replies = self._talk(commands, again=again)
        except StoreError as error:
            self._failed(error)
            raise
        finally:
            if asks:
                self._is_asked = False
        if self._lost_at is not None:
            self._found()
            # They are in a hurry.
            self._pool.drain()
        return replies

    def version(self) -> str:
        """Return the version that the server says it is."""
        with self._pool.connection(fresh=True) as connection:
            return connection.version

    def stats(self, *what: str) -> dict[str, str]:
        """Return what the server says of itself. Raises `Unavailable` or `Lost`."""
        with self._pool.connection(fresh=True) as connection:
            return connection.stats(*what)

    def close(self) -> None:
        """Close the idle connections. The next conversation opens a new one."""
        self._pool.drain()

    def _talk(self, commands: Sequence[Command], *, again: bool) -> list[Reply]:
        clock = self.clock
        while clock.is_new and self._meta is not False:
            # Before anything is written by a clock that may be wrong by hours.
            asked = clock.questions()
            if not asked:
                # Another thread was told meanwhile.
                break
            clock.learn(*self._converse(asked, fresh=False))
        asked = clock.questions() if self._meta is not False else []
        try:
            replies, sent, received = self._converse([*commands, *asked], fresh=False)
        except Lost as error:
            if not again or isinstance(error.__cause__, TimeoutError):
                raise
            replies, sent, received = self._converse([*commands, *asked], fresh=True)
        if asked:
            clock.learn(replies[len(commands) :], sent, received)
            del replies[len(commands) :]
        return replies

    def _converse(self, commands: list[Command], *, fresh: bool) -> tuple[list[Reply], int, int]:
        with self._pool.connection(fresh=fresh) as connection:
            self.round_trips += 1
            sent = self.clock.own_ns()
            replies = connection.talk(commands, meta=self._meta is not False)
            return replies, sent, self.clock.own_ns()

    def _connect(self) -> Connection:
        connection = Connection(self._hurried if self.is_lost else self.address)
        if self._meta is None:
            self._meta = connection.speaks_meta(self._probe_key)
            if not self._meta:
                connection.close()
                connection = Connection(self._hurried if self.is_lost else self.address)
        return connection

    def _enter(self) -> bool:
        """Return whether the caller is the one who asks whether a lost server is back."""
        if self._lost_at is None:
            return False
        with self._lock:
            if self._lost_at is None:
                return False
            if self._is_asked or self.clock.own_ns() < self._ask_at:
                raise Unavailable(self._why)
            self._is_asked = True
            return True

    def _failed(self, error: StoreError) -> None:
        with self._lock:
            now = self.clock.own_ns()
            first = self._lost_at is None
            if first:
                self._lost_at = self.lost_ns = now
                self._pause_ns = _FIRST_PAUSE_NS
            elif now >= self._ask_at:
                self._pause_ns = min(2 * self._pause_ns, _LONGEST_PAUSE_NS)
            # Not all processes at the same instant.
            self._ask_at = now + self._pause_ns * (50 + secrets.randbelow(51)) // 100
            self._why = f"memcached at {self.address}: {error}"
            # Another one may come back in its place.
            self._meta = None
        if first:
            event = StoreLost(str(self.address), str(error))
            text = "%s: there is no shared state until it answers"
            tell(events.everywhere, event, _log, logging.WARNING, text, self._why)

    def _found(self) -> None:
        with self._lock:
            if self._lost_at is None:
                return
            now = self.clock.own_ns()
            seconds = (now - self._lost_at) / SECOND
            self._lost_at = None
            self.found_ns = now
        event = StoreFound(str(self.address), seconds)
        text = "memcached at %s answers again, after %.2f s"
        tell(events.everywhere, event, _log, logging.WARNING, text, self.address, seconds)
