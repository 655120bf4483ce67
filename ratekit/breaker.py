"""The circuit breaker: a server that fails is left alone for a while.

While a circuit is closed a call costs a look at it: no lock, no write, no I/O. What is counted on
that way is counted here, and goes into the shared record with the next failure. Everything else is
an update of the record (`ratekit.circuit`), which decides for the whole fleet.
"""

import functools
import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple, ParamSpec, TypeVar

from ratekit import events, forks
from ratekit.call import Call, Outcome, Proceed, SendFailed, Verdict
from ratekit.checks import check_positive
from ratekit.circuit import (
    CLOSED,
    DISABLED,
    FORCED,
    PARTS,
    Circuit,
    Trip,
    admit,
    circuit_of,
    close,
    counted,
    failed,
    idle_at,
    probed,
    set_until,
)
from ratekit.clock import SECOND, Clock, to_ns
from ratekit.errors import (
    CircuitOpen,
    ConfigurationError,
    RateKitError,
    StoreError,
)
from ratekit.events import CircuitChanged, Listener, tell
from ratekit.policy import Policy, outcome_of
from ratekit.stores import MemoryStore, Store, open_store
from ratekit.stores.memory import SHARED, MemorySpace

__all__ = ["CircuitBreaker", "CircuitStatus"]

P = ParamSpec("P")
T = TypeVar("T")

_log = logging.getLogger("ratekit.breaker")

# How long what was seen of a shared circuit is believed.
_STALE_NS = SECOND // 4
# A probe that has not come back by then costs time, and not the circuit.
_LEASE_NS = 60 * SECOND
# Keys of which a process remembers what it saw; a closed one that is dropped loses some successes.
_MOST_KEYS = 10_000
# What may be asked for by a server that is to be left alone.
_NOT_IMPLEMENTED, _UNAVAILABLE = 501, 503

IsFailure = Callable[[Outcome | Exception], bool]


class CircuitStatus(NamedTuple):
    """One circuit. `retry_after`: seconds until a probe may go; `failures`: of so many `calls`."""

    key: str
    state: str
    retry_after: float
    failures: int
    calls: int


class _View:
    """What a process has seen of one circuit, and the successes that it has not told yet.

    `ok` only grows; `marks` are what it was when each part of the window began. `clock` is that of
    the server which keeps the circuit.
    """

    __slots__ = (
        "circuit", "clock", "generation", "marks", "ok", "rolls_at", "seen_at", "told", "until",
    )  # fmt: skip

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.circuit = CLOSED
        # Two of its fields, for whoever has no time.
        self.generation = 0
        self.until = 0
        self.seen_at = -FORCED
        self.ok = 0
        self.told = 0
        self.rolls_at = 0
        self.marks: deque[tuple[int, int]] = deque(maxlen=PARTS)


class _Views:
    """The views of a space: breakers that share its circuits share these."""

    def __init__(self) -> None:
        # Guards all but `ok`: a success that two threads lose is one on the strict side.
        self.lock = threading.Lock()
        self.by_key: dict[str, _View] = {}
        forks.renew_in_child(self)

    def after_fork(self) -> None:
        """In a child: whoever held the lock does not exist here, and the parent tells its own."""
        self.lock = threading.Lock()
        for view in self.by_key.values():
            view.told = view.ok

    def add(self, key: str, clock: Clock) -> _View:
        """Return the view of a key that may have none."""
        with self.lock:
            if key not in self.by_key and len(self.by_key) >= _MOST_KEYS:
                self._make_room()
            return self.by_key.setdefault(key, _View(clock))

    def _make_room(self) -> None:
        """Drop the closed ones, or the older half: an open circuit is in its record, too."""
        closed = [key for key, view in self.by_key.items() if not view.until]
        for key in closed or list(self.by_key)[: _MOST_KEYS // 2]:
            del self.by_key[key]


class CircuitBreaker(Policy):
    """Fails at once while a server is down, and tests with few calls whether it is back.

    `trip`: when a circuit opens: "50% of 10 in 30" (half of at least 10 calls in 30 seconds), "5 in
    a row", or both. `slow`: an answer that takes more seconds is a failure. `cooldown`: seconds
    that it stays open, doubling each time up to `longest_cooldown`, and at least as long as the
    server says (`Retry-After`). Then `probes` calls at a time go through, in the whole fleet;
    `successes` of them close it, one failure opens it again.

    A failure is a connection that fails, a timeout, or a 5xx but 501. A 4xx is none: the server
    answers. A throttled answer tells nothing, and neither does a refusal of ours; but a 503 with
    `Retry-After`, while nothing succeeds, is an outage. For a decorated function it is any
    exception. `is_failure(outcome or exception) -> bool` replaces all that.

    `name`, `store`, `key_of`: whose circuits, as on `RateLimiter`; the key is the call's origin.
    Raises `CircuitOpen` while open, and `ConfigurationError` for what cannot be right.
    """

    per_attempt = True

    def __init__(
        self,
        trip: str = "50% of 10 in 30; 5 in a row",
        *,
        slow: float | None = None,
        cooldown: float = 30.0,
        longest_cooldown: float = 300.0,
        probes: int = 1,
        successes: int = 2,
        is_failure: IsFailure | None = None,
        name: str | None = None,
        key_of: Callable[[Call], str | None] | None = None,
        store: Store | str | None = None,
    ) -> None:
        check_positive("cooldown", cooldown)
        check_positive("longest_cooldown", longest_cooldown)
        for what, number in (("probes", probes), ("successes", successes)):
            if isinstance(number, bool) or not isinstance(number, int) or number < 1:
                raise ConfigurationError(f"{what} {number!r}: use a whole number from 1 up")
        if slow is not None:
            check_positive("slow", slow)
        if longest_cooldown < cooldown:
            raise ConfigurationError(
                f"longest_cooldown {longest_cooldown!r} is below the cooldown {cooldown!r}; use a "
                "larger one"
            )
        self._settings: dict[str, Any] = {
            "slow": slow, "cooldown": cooldown, "longest_cooldown": longest_cooldown,
            "probes": probes, "successes": successes, "is_failure": is_failure, "name": name,
            "key_of": key_of, "store": store,
        }  # fmt: skip
        self.trip = trip
        self._trip = Trip.read(
            trip,
            cooldown_ns=to_ns(cooldown),
            longest_ns=to_ns(longest_cooldown),
            probes=probes,
            successes=successes,
            lease_ns=max(_LEASE_NS, to_ns(cooldown)),
        )
        self._slow_ns = None if slow is None else to_ns(slow)
        self._is_failure = is_failure
        self._key_of = key_of
        opened = MemoryStore() if store is None else open_store(store)
        self._space: Any = (SHARED if store is None and name is not None else opened).space(name)
        self._is_shared = not isinstance(self._space, MemorySpace)
        # Where the shared state is while its store cannot be asked.
        self._alone: Any = self._space
        if self._is_shared:
            self._alone = MemorySpace(self._space.clock, _MOST_KEYS)
        # setdefault is atomic: breakers of one name and store see the same.
        self._views: _Views = self._space.beside.setdefault("circuits", _Views())

    # As a policy.

    def run(self, call: Call, proceed: Proceed) -> Outcome:
        """Let the call through, or raise `CircuitOpen`; learn from what came of it."""
        key = self._key(call)
        if key is None:
            return proceed(call)
        view = self._view(key)
        lease, generation = self._enter(key, view)
        others = call.circuits
        call.circuits = (*others, lambda: self._look_again(key, view, generation, lease))
        began, waited_ns = view.clock.now_ns(), call.waited_ns
        succeeded: bool | None = None
        least_ns = 0
        try:
            try:
                outcome = proceed(call)
            except Exception as error:
                succeeded = self._judge_error(error)
                raise
            # To wait for a permit is no slowness of the server's.
            took_ns = view.clock.now_ns() - began - (call.waited_ns - waited_ns)
            succeeded, least_ns = self._judge(outcome, call, view, took_ns)
        finally:
            call.circuits = others
            self._leave(key, view, lease, generation, succeeded, least_ns, call.listeners)
        return outcome

    def __call__(self, function: Callable[P, T]) -> Callable[P, T]:
        """Return `function` with this breaker around each of its calls."""
        slow = super().__call__(function)
        settings = self._settings
        if self._is_shared or any(settings[it] for it in ("slow", "is_failure", "key_of")):
            return slow
        views = self._views.by_key

        @functools.wraps(function)
        def surrounded(*args: P.args, **kwargs: P.kwargs) -> T:
            # The usual way, as short as it gets: closed before, and no failure after.
            view = views.get("") or self._view("")
            if view.until:
                return slow(*args, **kwargs)
            generation = view.generation
            try:
                result = function(*args, **kwargs)
            except Exception as error:
                self._leave("", view, 0, generation, self._judge_error(error), least_ns=0)
                raise
            if hasattr(result, "status_code"):
                call = Call(None, "", {}, key="", options=self.options_here())
                succeeded, least_ns = self._judge(outcome_of(result), call, view, 0)
                self._leave("", view, 0, generation, succeeded, least_ns)
                return result
            now = view.clock.now_ns()
            if now >= view.rolls_at:
                self._roll(view, now)
            if view.generation == generation:
                view.ok += 1
            return result

        return surrounded

    def about(self, key: str) -> dict[str, Any]:
        """Return the state of a key's circuit."""
        return {"circuit": self.state(key)}

    def _key(self, call: Call) -> str | None:
        return call.key if self._key_of is None else self._key_of(call)

    def _view(self, key: str) -> _View:
        view = self._views.by_key.get(key)
        if view is None:
            clock = self._space.place(key)[1].clock if self._is_shared else self._space.clock
            view = self._views.add(key, clock)
            if not self._is_shared:
                # It may have been dropped while it was open. A shared one is looked at anyway.
                self._see(view, self._ask(key, view))
        return view

    def _look(self, key: str, view: _View) -> None:
        """Look at a shared circuit, if that was long ago."""
        if self._is_shared and view.clock.now_ns() - view.seen_at > _STALE_NS:
            self._see(view, self._ask(key, view), asked=True)

    def _enter(self, key: str, view: _View) -> tuple[int, int]:
        """Return the lease of a probe, or 0, and the generation that the call begins in."""
        self._look(key, view)
        if not view.until or view.until == DISABLED:
            return 0, view.generation
        now, until = view.clock.now_ns(), view.until
        if now < until:
            # Known here; somebody may have closed it elsewhere, which is seen in a moment.
            raise _refusal(key, until, now)

        def change(state: Any, now: int) -> tuple[Any, tuple[Circuit, int]]:
            circuit, lease = admit(circuit_of(state), now, self._trip)
            return (circuit if lease else None), (circuit, lease)

        circuit, lease = self._update(key, view, change)
        self._see(view, circuit)
        if lease or not circuit.until or circuit.until == DISABLED:
            return lease, circuit.generation
        now = view.clock.now_ns()
        if now < circuit.until:
            raise _refusal(key, circuit.until, now)
        live = (one for one in circuit.leases if one > now)
        raise _refusal(key, min(live, default=now), now, probing=True)

    def _look_again(self, key: str, view: _View, generation: int, lease: int) -> None:
        """Raise `CircuitOpen` if, while the call waited for something, it opened or lost its turn.

        A probe whose lease has run out is no probe any more: another one goes in its place.
        """
        self._look(key, view)
        now, until = view.clock.now_ns(), view.until
        if until <= 0:
            return
        if view.generation != generation or (lease and now >= lease):
            raise _refusal(key, max(now, until), now)

    def _leave(
        self,
        key: str,
        view: _View,
        lease: int,
        generation: int,
        succeeded: bool | None,  # noqa: FBT001
        least_ns: int,
        listeners: tuple[Listener, ...] | None = None,
    ) -> None:
        """Note what came of a call; None: nothing that tells of the server."""
        trip = self._trip
        if lease:

            def back(circuit: Circuit, now: int) -> Circuit:
                return probed(
                    circuit, now, trip, generation=generation, lease=lease,
                    succeeded=succeeded, least_ns=least_ns,
                )  # fmt: skip

            self._change(key, view, back, listeners)
            return
        if succeeded is None or view.generation != generation or view.until:
            return
        now = view.clock.now_ns()
        if now >= view.rolls_at:
            self._roll(view, now)
        if succeeded:
            view.ok += 1
            return
        oks, after_success = self._untold(view)

        def fail(circuit: Circuit, now: int) -> Circuit:
            return failed(
                circuit, now, trip, generation=generation, oks=oks,
                after_success=after_success, least_ns=least_ns,
            )  # fmt: skip

        self._change(key, view, fail, listeners)

    def _roll(self, view: _View, now: int) -> None:
        """Begin the next part of the window."""
        part_ns = self._trip.part_ns
        with self._views.lock:
            part = now // part_ns
            if not view.marks or view.marks[-1][0] != part:
                view.marks.append((part, view.ok))
            view.rolls_at = (part + 1) * part_ns

    def _untold(self, view: _View) -> tuple[list[tuple[int, int]], bool]:
        """Return the successes since the last failure by part of the window, and if there was one.

        From now on they are told.
        """
        with self._views.lock:
            told, end = view.told, view.ok
            view.told = end
            oks = []
            for part, start in reversed(view.marks):
                number = end - max(start, told)
                if number > 0:
                    oks.append((part, number))
                end = min(end, start)
                if start <= told:
                    break
            return oks, view.ok > told

    def _judge(
        self, outcome: Outcome, call: Call, view: _View, took_ns: int
    ) -> tuple[bool | None, int]:
        """Return whether an answer is a success, and how long the server wants to be left alone.

        None where it tells nothing.
        """
        succeeded = self._is_success(outcome, call, view, took_ns)
        if succeeded is not False:
            return succeeded, 0
        return False, min(to_ns(outcome.retry_after() or 0.0), call.options.patience_ns())

    def _is_success(self, outcome: Outcome, call: Call, view: _View, took_ns: int) -> bool | None:
        if self._is_failure is not None:
            return not self._is_failure(outcome)
        status = outcome.status
        if outcome.is_error and outcome.verdict(call.options) is Verdict.THROTTLED:
            named = call.options.throttle_statuses or ()
            if status == _UNAVAILABLE and status not in named and not self._is_alive(view):
                return False
            return None
        if status is not None and status >= 500 and status != _NOT_IMPLEMENTED:
            return False
        return self._slow_ns is None or took_ns <= self._slow_ns

    def _is_alive(self, view: _View) -> bool:
        """Return whether there was a success in this window."""
        first = view.clock.now_ns() // self._trip.part_ns - PARTS + 1
        with self._views.lock:
            return any(part >= first and view.ok > ok for part, ok in view.marks)

    def _judge_error(self, error: Exception) -> bool | None:
        """Return the same for an attempt without an answer."""
        if isinstance(error, RateKitError):
            return None
        if self._is_failure is not None:
            return not self._is_failure(error.error if isinstance(error, SendFailed) else error)
        # What another attempt would meet as well (a bad URL, a certificate) tells nothing.
        return None if isinstance(error, SendFailed) and not error.passing else False

    # The record.

    def _change(
        self,
        key: str,
        view: _View,
        change: Callable[[Circuit, int], Circuit],
        listeners: tuple[Listener, ...] | None = None,
    ) -> None:
        """Change the record, and say so where it was this that opened or closed the circuit."""

        def step(state: Any, now: int) -> tuple[Any, tuple[Circuit, Circuit]]:
            before = circuit_of(state)
            after = change(before, now)
            return (None if after is before else after), (before, after)

        before, after = self._update(key, view, step)
        self._see(view, after)
        if before.until != after.until:
            now = view.clock.now_ns()
            seconds = (after.until - now) / SECOND
            state = _state(after, now)
            what = f"open for {seconds:.1f} s" if state == "open" else state
            event = CircuitChanged(key, state, max(0.0, seconds) if state == "open" else 0.0)
            to = events.everywhere if listeners is None else listeners
            tell(to, event, _log, logging.WARNING, "%s: circuit %s", key or "breaker", what)

    def _update(self, key: str, view: _View, change: Callable[[Any, int], tuple[Any, Any]]) -> Any:
        def idle(state: Any) -> int:
            return idle_at(state, self._trip)

        try:
            return self._space.update(key, change, idle)
        except StoreError:
            # It goes on by itself, from where it knows the fleet to be.
            seen = view.circuit
            return self._alone.update(
                key, lambda state, now: change(_newer(circuit_of(state), seen), now), idle
            )

    def _ask(self, key: str, view: _View) -> Circuit:
        """Return the circuit as it is now."""
        try:
            state, now = self._space.look(key)
        except StoreError:
            return _newer(circuit_of(self._alone.look(key)[0]), view.circuit)
        if state is None and now < view.circuit.until < FORCED:
            # A server that was restarted has forgotten it; the time is not over all the same.
            return view.circuit
        return circuit_of(state)

    def _see(self, view: _View, circuit: Circuit, *, asked: bool = False) -> None:
        """Take in what the circuit is now.

        What comes late must not hide what is newer. Only where the store was `asked` for nothing
        else may the generation be an earlier one: then a server has lost the record.
        """
        with self._views.lock:
            if circuit.generation < view.generation and not asked:
                return
            if circuit.generation != view.generation:
                # What succeeded before a change says nothing of what comes after it.
                view.told = view.ok
            view.circuit = circuit
            view.until, view.generation = circuit.until, circuit.generation
            view.seen_at = view.clock.now_ns()

    # What users do with it.

    def state(self, key: str = "") -> str:
        """Return "closed", "open", "half-open", "forced open" or "disabled"."""
        view = self._view(key)
        return _state(self._ask(key, view), view.clock.now_ns())

    def status(self) -> tuple[CircuitStatus, ...]:
        """Return every circuit that this process knows."""
        told = []
        for key, view in list(self._views.by_key.items()):
            circuit, now = self._ask(key, view), view.clock.now_ns()
            left = max(0, circuit.until - now) / SECOND if circuit.until < FORCED else float("inf")
            failures, calls = counted(circuit, now, self._trip)
            told.append(CircuitStatus(key, _state(circuit, now), left, failures, calls))
        return tuple(told)

    def force_open(self, key: str = "") -> None:
        """Let nothing through until `reset`."""
        self._change(key, self._view(key), lambda circuit, now: set_until(circuit, FORCED))

    def disable(self, key: str = "") -> None:
        """Let everything through until `reset`."""
        self._change(key, self._view(key), lambda circuit, now: set_until(circuit, DISABLED))

    def reset(self, key: str = "") -> None:
        """Close the circuit, and forget what was counted."""
        self._change(key, self._view(key), close)

    def __repr__(self) -> str:
        return f"CircuitBreaker({self.trip!r})"

    def __reduce__(self) -> tuple[object, ...]:
        # The configuration travels, the state does not: it is this process's own.
        return _rebuilt, (self.trip, self._settings)


def _state(circuit: Circuit, now: int) -> str:
    if circuit.until == DISABLED:
        return "disabled"
    if circuit.until >= FORCED:
        return "forced open"
    if not circuit.until:
        return "closed"
    return "open" if now < circuit.until else "half-open"


def _newer(one: Circuit, other: Circuit) -> Circuit:
    return one if one.generation >= other.generation else other


def _refusal(key: str, until: int, now: int, *, probing: bool = False) -> CircuitOpen:
    if until >= FORCED:
        return CircuitOpen(f"{key or 'the circuit'}: it is forced open until it is reset", key=key)
    seconds = (until - now) / SECOND
    what = "a probe is under way" if probing else "the server has failed too often"
    return CircuitOpen(
        f"{key or 'the circuit'}: open, {what}; the next probe may go in {seconds:.3g} s",
        key=key,
        retry_after=seconds,
    )


def _rebuilt(trip: str, settings: dict[str, Any]) -> CircuitBreaker:
    return CircuitBreaker(trip, **settings)
