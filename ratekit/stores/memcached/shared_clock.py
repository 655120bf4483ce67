"""The clock that all who share a memcached server go by.

It is this machine's wall clock as it was when the store was made, advanced by the monotonic one,
less what `Skew` finds it to be ahead of the others' by, on round trips that are made anyway.
"""

import logging
import secrets
import threading
from collections.abc import Sequence

from ratekit import forks
from ratekit.clock import SECOND, Clock
from ratekit.stores.memcached.skew import Skew, read_reference, write_reference
from ratekit.stores.memcached.wire import Command, Get, Put, Reply

__all__ = ["SharedClock"]

_log = logging.getLogger("ratekit.stores")

# As long as memcached keeps anything that has an end.
_LIFE = 30 * 86_400
# By so much it stands still rather than go back. A larger correction is that of a clock which was
# wrong from its beginning, and is not waited for.
_STANDS_NS = SECOND
# A clock that is wrong by more is worth a word.
_WORTH_A_WORD_NS = SECOND // 20


class SharedClock(Clock):
    """Nanoseconds since the epoch, as far as the fleet agrees on it."""

    def __init__(self, clock: Clock, prefix: bytes, where: str) -> None:
        self.own_clock = clock
        self._origin = int(clock.wall() * SECOND) - clock.now_ns()
        self._where = where
        self._ticks_key = prefix + b"clock:ticks"
        self._reference_key = prefix + b"clock:reference"
        # What the own clock is ahead of the common one.
        self.correction_ns = 0
        # It has been this late already.
        self._latest = 0
        # How often to ask for the clock before anything else: once to see it, once to be the one
        # who says what it is, or to see who does.
        self._introductions = 2
        # Guards the estimate.
        self._lock = threading.Lock()
        self._skew = Skew()
        self._reference_token = 0
        self._told = False
        forks.renew_in_child(self)

    def after_fork(self) -> None:
        """In a child: whoever held the lock does not exist here."""
        self._lock = threading.Lock()

    @property
    def is_new(self) -> bool:
        """Whether nothing is known of the others' clock yet."""
        return self._introductions > 0

    def own_ns(self) -> int:
        """Return this machine's opinion."""
        return self.own_clock.now_ns() + self._origin

    def now_ns(self) -> int:
        """Return the instant by the common clock."""
        return max(self._latest, self.own_clock.now_ns() + self._origin - self.correction_ns)

    def wall(self) -> float:
        """Return seconds since the epoch, by the common clock."""
        return self.now_ns() / SECOND

    def epoch_ns(self, now: int) -> int:
        """Return 0: it counts from the epoch."""
        return 0

    def sleep(self, seconds: float) -> None:
        """Sleep."""
        self.own_clock.sleep(seconds)

    def wait(self, gate: threading.Lock, seconds: float) -> None:
        """Wait at the gate."""
        self.own_clock.wait(gate, seconds)

    def questions(self) -> list[Command]:
        """Return what to ask the server beside anything else, to know its clock."""
        with self._lock:
            if not (self.is_new or self._skew.wants_sample(self.own_ns())):
                return []
            offer = self._skew.offer()
            asked: list[Command] = [
                # The first one makes the key; its value tells it from a later one.
                Put(self._ticks_key, secrets.token_hex(4).encode(), _LIFE, cas=0),
                Get(self._ticks_key, wants_life=True),
            ]
            if offer is not None:
                text = write_reference(offer)
                asked.append(Put(self._reference_key, text, _LIFE, cas=self._reference_token))
            return [*asked, Get(self._reference_key)]

    def learn(self, replies: Sequence[Reply], sent: int, received: int) -> None:
        """Take in what the server said to that, between these instants by the own clock."""
        ticks, reference = replies[1], replies[-1]
        self._introductions = 0 if reference.done else self._introductions - 1
        if not ticks.done or ticks.life <= 0:
            return
        with self._lock:
            self._skew.observe(sent, received, ticks.life, ticks.value[:16])
            self._reference_token = reference.cas if reference.done else 0
            found = read_reference(reference.value) if reference.done else None
            changed = self._skew.refer(found)
            back = self._skew.correction_ns - self.correction_ns
            if back > 0:
                self._latest = self.now_ns() if back <= _STANDS_NS else 0
            self.correction_ns = self._skew.correction_ns
            tell = abs(changed) >= _WORTH_A_WORD_NS and not self._told
            self._told |= tell
        if tell:
            seconds = self.correction_ns / SECOND
            _log.warning(
                "this machine's clock is %.2f s %s that of the others who share memcached at %s; "
                "ratekit goes by theirs",
                abs(seconds),
                "ahead of" if seconds > 0 else "behind",
                self._where,
            )
