"""Time, sleep and waiting: the only module of ratekit that touches them.

Everything that needs an instant or a pause asks a `Clock`. A timestamp is integer nanoseconds and
means something only beside the clock it came from. Tests hand in a `ratekit.testing.FakeClock`.
"""

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager

from ratekit.errors import Cancelled

__all__ = [
    "SECOND", "SYSTEM", "Clock", "Stop", "SystemClock", "carrying", "new_gate", "open_gate",
    "to_ns",
]  # fmt: skip

SECOND = 1_000_000_000
"""Nanoseconds in a second."""

# A year: no wait is longer, so that adding one to a timestamp can never overflow anything.
_LONGEST = 366 * 86_400.0


def to_ns(seconds: float) -> int:
    """Return `seconds` as whole nanoseconds, rounded up: a wait is never a moment too short."""
    ns = min(seconds, _LONGEST) * SECOND
    return -int(-ns // 1)


def new_gate() -> threading.Lock:
    """Return a closed gate: a lock that one thread waits on and any other may open."""
    gate = threading.Lock()
    gate.acquire()
    return gate


def open_gate(gate: threading.Lock) -> None:
    """Let whoever waits at `gate` go on; opening it twice is the same as once."""
    try:
        gate.release()
    except RuntimeError:
        # It was open already, and its thread has not passed it yet.
        return


class Clock(ABC):
    """What ratekit needs to know of time. Subclass it to stand in for the system's."""

    @abstractmethod
    def now_ns(self) -> int:
        """Return nanoseconds that never go backwards, from an arbitrary origin."""

    @abstractmethod
    def wall(self) -> float:
        """Return seconds since the epoch (for HTTP dates only; it may jump)."""

    _epoch_ns = -(1 << 62)

    _epoch_until = -1

    def epoch_ns(self, now: int) -> int:
        """Return how far the epoch lies before the zero of `now_ns`: their sum is wall time.

        It is read anew when `now` is a second later than when it was last read. It follows a wall
        clock that jumps forward, as after a suspend; one that is set back would make periods that
        have begun begin again, and is not followed.
        """
        if now > self._epoch_until:
            self._epoch_ns = max(self._epoch_ns, int(self.wall() * SECOND) - self.now_ns())
            self._epoch_until = now + SECOND
        return self._epoch_ns

    @abstractmethod
    def sleep(self, seconds: float) -> None:
        """Pause the calling thread; a signal's handler may raise out of it."""

    @abstractmethod
    def wait(self, gate: threading.Lock, seconds: float) -> None:
        """Pause the calling thread until `gate` is opened, at most `seconds`; it may wake early."""


class Stop:
    """Ends the waits of the threads that carry it: `with carrying(stop)`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._gates: set[threading.Lock] = set()
        self.is_set = False

    def set(self) -> None:
        """Let every wait of those threads raise `Cancelled`, now and from now on."""
        with self._lock:
            self.is_set = True
            gates = list(self._gates)
        for gate in gates:
            open_gate(gate)

    def check(self) -> None:
        """Raise `Cancelled` if it was set."""
        if self.is_set:
            raise Cancelled("cancelled while it waited; nothing was sent")

    def wait(self, gate: threading.Lock, seconds: float) -> None:
        """Wait at a gate."""
        with self._lock:
            self.check()
            self._gates.add(gate)
        try:
            gate.acquire(timeout=seconds)
        finally:
            with self._lock:
                self._gates.discard(gate)
        self.check()


class _Carried(threading.local):
    stop: Stop | None = None


_carried = _Carried()


@contextmanager
def carrying(stop: Stop) -> Iterator[None]:
    """Let the waits of this thread end when `stop` is set."""
    before, _carried.stop = _carried.stop, stop
    try:
        yield
    finally:
        _carried.stop = before


class SystemClock(Clock):
    """The monotonic clock of this machine."""

    # The built-in itself: one call less on the path that every permit takes.
    now_ns = staticmethod(time.monotonic_ns)

    def wall(self) -> float:
        """Return `time.time()`."""
        return time.time()

    def sleep(self, seconds: float) -> None:
        """Sleep."""
        seconds = min(max(seconds, 0.0), threading.TIMEOUT_MAX)
        stop = _carried.stop
        if stop is None:
            time.sleep(seconds)
            return
        stop.wait(new_gate(), seconds)

    def wait(self, gate: threading.Lock, seconds: float) -> None:
        """Wait at the gate."""
        seconds = min(max(seconds, 0.0), threading.TIMEOUT_MAX)
        stop = _carried.stop
        if stop is None:
            gate.acquire(timeout=seconds)
        else:
            stop.wait(gate, seconds)

    def __reduce__(self) -> str:
        # There is one: a copy would not follow `instant()`.
        return "SYSTEM"


SYSTEM = SystemClock()
"""The clock in use wherever none was given."""
