"""Concurrency: so many attempts in flight at a time, and no more.

A slot is taken when everything else is ready, and it is free again when the body of the answer is
over: read, closed, or dropped unread.
"""

import threading
from bisect import insort
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from operator import attrgetter

from ratekit import forks
from ratekit.call import Call, Outcome, Proceed
from ratekit.checks import check_number
from ratekit.clock import SECOND, SYSTEM, Clock, new_gate, open_gate, to_ns
from ratekit.errors import ConcurrencyFull, ConfigurationError, DeadlineExceeded
from ratekit.policy import Policy

__all__ = ["Concurrency"]


# How long a thread waits at a time: as good as for ever.
_LONG_NS = 3600 * SECOND


class _Ticket:
    """One thread that waits for a slot."""

    __slots__ = ("gate", "is_in", "rank")

    def __init__(self, priority: int, serial: int) -> None:
        self.rank = -priority, serial
        self.gate = new_gate()
        self.is_in = False


class _Slots:
    """The slots of one key that are taken, and who waits for one, first come first."""

    __slots__ = ("taken", "waiting")

    def __init__(self) -> None:
        self.taken = 0
        self.waiting: list[_Ticket] = []


class Concurrency(Policy):
    """At most `limit` attempts in flight for each key, in this process.

    For an API that counts the requests under way, as nginx's `limit_conn` does. `key_of(call) ->
    str | None`: whose slots; by default the call's origin; None: the call needs none. `max_wait`:
    the longest wait in seconds that a caller accepts, None for any (`options(max_wait=...)` goes
    first). `max_waiting`: how many threads may wait for one key. Higher priorities go first, and
    within one who came first.

    It stands innermost. Raises `ConcurrencyFull` the moment it is known that there will be no slot
    in time, `DeadlineExceeded` when the call's deadline comes before, and `ConfigurationError` for
    a number that cannot be right.
    """

    per_attempt = True
    innermost = True

    def __init__(
        self,
        limit: int,
        *,
        key_of: Callable[[Call], str | None] | None = None,
        max_wait: float | None = None,
        max_waiting: int = 10_000,
        clock: Clock = SYSTEM,
    ) -> None:
        for what, number in (("limit", limit), ("max_waiting", max_waiting)):
            if isinstance(number, bool) or not isinstance(number, int) or number < 1:
                raise ConfigurationError(f"{what} {number!r}: use a whole number from 1 up")
        if max_wait is not None:
            check_number("max_wait", max_wait, unit="seconds")
        self.limit = limit
        self.key_of = key_of
        self.max_wait = max_wait
        self.max_waiting = max_waiting
        self.clock = clock
        self._renew()
        forks.renew_in_child(self)

    def _renew(self) -> None:
        # Guards all slots.
        self._lock = threading.Lock()
        self._slots: dict[str, _Slots] = {}
        self._serial = 0

    def after_fork(self) -> None:
        """In a child: nothing is in flight here, and nobody waits."""
        self._renew()

    def in_flight(self, key: str = "") -> int:
        """Return how many slots of `key` are taken now."""
        with self._lock:
            slots = self._slots.get(key)
            return 0 if slots is None else slots.taken

    @contextmanager
    def slot(
        self, key: str = "", max_wait: float | None = None, priority: int = 0
    ) -> Iterator[None]:
        """Run the block in a slot. Raises as the policy does, before the block."""
        self._take(key, max_wait, priority, None)
        try:
            yield
        finally:
            self._free(key)

    def run(self, call: Call, proceed: Proceed) -> Outcome:
        """Wait for a slot, make the attempt, and keep the slot until the body is over."""
        key = call.key if self.key_of is None else self.key_of(call)
        if key is None:
            return proceed(call)
        options = call.options
        began = self.clock.now_ns()
        if self._take(key, options.max_wait, options.priority or 0, call):
            call.waited_ns += self.clock.now_ns() - began
        free = _once(lambda: self._free(key))
        call.watched = True
        try:
            outcome = proceed(call)
        except BaseException:
            free()
            raise
        if outcome.watch is None:
            free()
        else:
            outcome.watch.when_over(free)
        return outcome

    def _take(self, key: str, max_wait: float | None, priority: int, call: Call | None) -> bool:
        """Take a slot; return whether there was a wait for it."""
        with self._lock:
            slots = self._slots.get(key)
            if slots is None:
                slots = self._slots[key] = _Slots()
            if slots.taken < self.limit and not slots.waiting:
                slots.taken += 1
                return False
            max_wait = self.max_wait if max_wait is None else max_wait
            if max_wait == 0 or len(slots.waiting) >= self.max_waiting:
                raise self._full(key, len(slots.waiting))
            self._serial += 1
            ticket = _Ticket(priority, self._serial)
            insort(slots.waiting, ticket, key=attrgetter("rank"))
        try:
            self._wait(key, slots, ticket, max_wait, call)
            for look_again in call.circuits if call is not None else ():
                look_again()
        except BaseException:
            with self._lock:
                is_in = ticket.is_in
                if not is_in:
                    slots.waiting.remove(ticket)
            if is_in:
                self._free(key)
            raise
        return True

    def _wait(
        self, key: str, slots: _Slots, ticket: _Ticket, max_wait: float | None, call: Call | None
    ) -> None:
        clock = self.clock
        until = None if max_wait is None else clock.now_ns() + to_ns(max_wait)
        while not ticket.is_in:
            remaining_ns = None if call is None else call.remaining_ns()
            left = None if until is None else until - clock.now_ns()
            if remaining_ns == 0:
                raise DeadlineExceeded(
                    f"{key or 'concurrency'}: the call's deadline came before a slot", key=key
                )
            if left is not None and left <= 0:
                raise self._full(key, len(slots.waiting) - 1)
            times = [time for time in (remaining_ns, left) if time is not None]
            clock.wait(ticket.gate, min(times, default=_LONG_NS) / SECOND)

    def _full(self, key: str, waiting: int) -> ConcurrencyFull:
        return ConcurrencyFull(
            f"{key or 'concurrency'}: all {self.limit} slots are taken, and {waiting} wait already",
            key=key,
        )

    def _free(self, key: str) -> None:
        """Give a slot to who waits first, or back."""
        with self._lock:
            slots = self._slots.get(key)
            if slots is None:
                return
            if slots.waiting:
                ticket = slots.waiting.pop(0)
                ticket.is_in = True
                open_gate(ticket.gate)
                return
            slots.taken -= 1
            if not slots.taken:
                del self._slots[key]

    def __repr__(self) -> str:
        return f"Concurrency({self.limit})"

    def __getstate__(self) -> dict[str, object]:
        state = vars(self).copy()
        del state["_lock"], state["_slots"], state["_serial"]
        return state

    def __setstate__(self, state: dict[str, object]) -> None:
        vars(self).update(state)
        self._renew()
        forks.renew_in_child(self)


def _once(what: Callable[[], None]) -> Callable[[], None]:
    """Return what does this once, whichever thread calls it first, and then nothing."""
    left = [what]

    def once() -> None:
        try:
            # Taking from a list is atomic.
            first = left.pop()
        except IndexError:
            return
        first()

    return once
