"""The clock that all who share a memcached server go by.

It is this machine's wall clock as it was when the store was made, advanced by the monotonic one.
"""

import threading
from collections.abc import Sequence

from ratekit.clock import SECOND, Clock
from ratekit.stores.memcached.wire import Command, Reply

__all__ = ["SharedClock"]


class SharedClock(Clock):
    """Nanoseconds since the epoch, as far as the fleet agrees on it."""

    def __init__(self, clock: Clock, prefix: bytes, where: str) -> None:
        self.own_clock = clock
        self._origin = int(clock.wall() * SECOND) - clock.now_ns()
        self.correction_ns = 0

    def own_ns(self) -> int:
        """Return this machine's opinion."""
        return self.own_clock.now_ns() + self._origin

    def now_ns(self) -> int:
        """Return the instant by the common clock."""
        return self.own_clock.now_ns() + self._origin - self.correction_ns

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
        return []

    def learn(self, replies: Sequence[Reply], sent: int, received: int) -> None:
        """Take in what the server said to that, between these instants by the own clock."""
