"""Time under a test's control: a clock that only the test moves, and waits that take no time."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from ratekit.clock import SECOND, SYSTEM, Clock, open_gate, to_ns

__all__ = ["FakeClock", "instant"]


class FakeClock(Clock):
    """A clock that stands still until it is moved.

    With `manual=False` (the default) whoever sleeps or waits moves it to the end of the pause and
    goes on at once: right for a test of one thread. With `manual=True` threads really pause until
    another thread calls `advance`; `sleepers` says how many do.
    """

    def __init__(self, start: float = 1_000_000.0, *, manual: bool = False) -> None:
        self._now_ns = to_ns(start)
        self._manual = manual
        self._changed = threading.Condition()
        # Whoever pauses: the instant to be woken at, and the gate that wakes.
        self._paused: dict[threading.Lock, int] = {}

    def now_ns(self) -> int:
        """Return the instant at which the clock stands."""
        return self._now_ns

    def wall(self) -> float:
        """Return the same instant, taken as seconds since the epoch."""
        return self._now_ns / SECOND

    def epoch_ns(self, now: int) -> int:
        """Return 0: this clock counts from the epoch."""
        return 0

    @property
    def sleepers(self) -> int:
        """How many threads pause on this clock now."""
        with self._changed:
            return len(self._paused)

    def advance(self, seconds: float) -> None:
        """Move the clock on and wake whoever's pause is over."""
        self.advance_ns(to_ns(seconds))

    def advance_ns(self, ns: int) -> None:
        """Move the clock on by nanoseconds and wake whoever's pause is over."""
        with self._changed:
            self._now_ns += ns
            over = [gate for gate, until in self._paused.items() if until <= self._now_ns]
            for gate in over:
                open_gate(gate)

    def sleep(self, seconds: float) -> None:
        """Pause until the clock has moved on by `seconds`."""
        gate = threading.Lock()
        gate.acquire()
        end = self._now_ns + to_ns(seconds)
        while self._now_ns < end:
            self.wait(gate, (end - self._now_ns) / SECOND)

    def wait(self, gate: threading.Lock, seconds: float) -> None:
        """Pause until `gate` is opened or the clock has moved on by `seconds`."""
        if not self._manual:
            if not gate.acquire(blocking=False):
                self.advance(seconds)
            return
        with self._changed:
            self._paused[gate] = self._now_ns + to_ns(seconds)
            self._changed.notify_all()
        try:
            gate.acquire()
        finally:
            with self._changed:
                self._paused.pop(gate, None)

    def await_sleepers(self, count: int, timeout: float = 10.0) -> None:
        """Block until `count` threads pause on this clock; raise `TimeoutError` after `timeout`."""
        with self._changed:
            if not self._changed.wait_for(lambda: len(self._paused) >= count, timeout):
                raise TimeoutError(f"{len(self._paused)} of {count} threads pause on this clock")


@contextmanager
def instant() -> Iterator[None]:
    """Let every wait of ratekit in this process take no time while the block runs.

    Back-off, `Retry-After` and the wait for a permit still happen, in the same order and with the
    same length, on a clock that jumps over them: a test of retries ends at once and still sees
    what was waited. It is for the system's clock; a pipeline on a `FakeClock` is left alone.
    """
    clock = SYSTEM
    real_now, sleep, wait = clock.now_ns, clock.sleep, clock.wait
    skipped = 0
    lock = threading.Lock()

    def now_ns() -> int:
        return real_now() + skipped

    def skip(seconds: float) -> None:
        nonlocal skipped
        with lock:
            skipped += to_ns(max(seconds, 0.0))

    def skip_wait(gate: threading.Lock, seconds: float) -> None:
        if not gate.acquire(blocking=False):
            skip(seconds)

    # The jumped time stays after the block: going back would make every permit that was granted
    # in it a permit of the future.
    vars(clock).update(now_ns=now_ns, sleep=skip, wait=skip_wait)
    try:
        yield
    finally:
        vars(clock).update(sleep=sleep, wait=wait)
