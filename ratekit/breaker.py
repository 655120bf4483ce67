"""The circuit breaker: a server that fails is left alone for a while.

While a circuit is closed a call costs a look at it: no lock, no write, no I/O. What is counted on
that way is counted here, and goes into the shared record with the next failure. Everything else is
an update of the record (`ratekit.circuit`), which decides for the whole fleet.
"""

import functools
import inspect
import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple, ParamSpec, TypeVar

from ratekit import forks
from ratekit.call import Call, Outcome, Proceed, SendFailed, Verdict
from ratekit.checks import check_positive
from ratekit.circuit import (
    DISABLED,
    FORCED,
    PARTS,
    Circuit,
    Trip,
    admit,
    circuit_of,
    close,
    failed,
    idle_at,
    probed,
    set_until,
)
from ratekit.clock import SECOND, to_ns
from ratekit.errors import (
    CircuitOpen,
    ConfigurationError,
    DeadlineExceeded,
    RateKitError,
    Rejected,
    StoreError,
)
from ratekit.policy import Policy
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

    `ok` only grows; `marks` are what it was when each part of the window began.
    """

    __slots__ = ("generation", "marks", "ok", "rolls_at", "seen_at", "told", "until")

    def __init__(self) -> None:
        self.generation = 0
        self.until = 0
        self.seen_at = -_STALE_NS
        self.ok = 0
        self.told = 0
        self.rolls_at = 0
        self.marks: deque[tuple[int, int]] = deque(maxlen=PARTS)


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
        self._clock = self._space.clock
        self._is_shared = not isinstance(self._space, MemorySpace)
        # Where the shared state is while its store cannot be asked.
        self._alone = MemorySpace(self._clock, _MOST_KEYS) if self._is_shared else self._space
        # setdefault is atomic: breakers of one name and store see the same.
        self._views: dict[str, _View] = self._space.beside.setdefault("circuits", {})
        # Guards the marks of all views.
        self._lock = threading.Lock()
        forks.renew_in_child(self)

    def after_fork(self) -> None:
        """In a child: whoever held the lock does not exist here."""
        self._lock = threading.Lock()

    # As a policy.

    def run(self, call: Call, proceed: Proceed) -> Outcome:
        """Let the call through, or raise `CircuitOpen`; learn from what came of it."""
        key = self._key(call)
        if key is None:
            return proceed(call)
        view = self._view(key)
        began = self._clock.now_ns()
        lease, generation = self._enter(key, view, began)
        others = call.circuits
        if not lease:
            call.circuits = (*others, lambda: self._look_again(key, view, generation))
        succeeded: bool | None = None
        least_ns = 0
        try:
            outcome = proceed(call)
            succeeded = self._judge(outcome, call, view, began)
            if succeeded is False:
                patience_ns = call.options.patience_ns()
                least_ns = min(to_ns(outcome.retry_after() or 0.0), patience_ns)
        except (Rejected, DeadlineExceeded):
            raise
        except SendFailed as error:
            succeeded = not self._counts(error)
            raise
        except Exception as error:
            succeeded = not self._counts(error)
            raise
        finally:
            call.circuits = others
            self._leave(key, view, lease, generation, succeeded, least_ns)
        return outcome

    def __call__(self, function: Callable[P, T]) -> Callable[P, T]:
        """Return `function` with this breaker around each of its calls."""
        slow = super().__call__(function)
        if self._is_shared or self._slow_ns is not None or self._is_failure is not None:
            return slow
        if inspect.iscoroutinefunction(function):
            raise ConfigurationError(f"{function!r}: ratekit is synchronous")
        view, now_ns = self._view(""), self._clock.now_ns

        @functools.wraps(function)
        def surrounded(*args: P.args, **kwargs: P.kwargs) -> T:
            # The usual way, as short as it gets: closed before, and no failure after.
            if view.until:
                return slow(*args, **kwargs)
            generation = view.generation
            try:
                result = function(*args, **kwargs)
            except Exception as error:
                if not isinstance(error, RateKitError):
                    self._leave("", view, 0, generation, succeeded=False, least_ns=0)
                raise
            if hasattr(result, "status_code"):
                self._leave("", view, 0, generation, self._judged(result, view), least_ns=0)
                return result
            now = now_ns()
            if now >= view.rolls_at:
                self._roll(view, now)
            view.ok += 1
            return result

        return surrounded

    def _judged(self, response: Any, view: _View) -> bool | None:
        from ratekit.policy import outcome_of

        call = Call(None, "", {}, key="", options=self.options_here())
        return self._judge(outcome_of(response), call, view, 0)

    def _key(self, call: Call) -> str | None:
        return call.key if self._key_of is None else self._key_of(call)

    def _view(self, key: str) -> _View:
        view = self._views.get(key)
        if view is None:
            with self._lock:
                if len(self._views) >= _MOST_KEYS:
                    for name in [name for name, one in self._views.items() if not one.until]:
                        del self._views[name]
                view = self._views.setdefault(key, _View())
        return view

    def _enter(self, key: str, view: _View, now: int) -> tuple[int, int]:
        """Return the lease of a probe, or 0, and the generation that the call begins in."""
        if self._is_shared and now - view.seen_at > _STALE_NS:
            self._see(view, self._ask(key), now)
        if not view.until or view.until == DISABLED:
            return 0, view.generation
        if now < view.until:
            # Known here; somebody may have closed it elsewhere, which is seen in a moment.
            raise _refusal(key, view.until - now)

        def change(state: Any, now: int) -> tuple[Any, tuple[Circuit, int]]:
            circuit, lease = admit(circuit_of(state), now, self._trip)
            return (circuit if lease else None), (circuit, lease)

        circuit, lease = self._update(key, change)
        self._see(view, circuit, now)
        if lease or not circuit.until:
            return lease, circuit.generation
        wait_ns = min(circuit.leases, default=circuit.until) - now
        raise _refusal(key, max(0, circuit.until - now) or max(0, wait_ns), probing=True)

    def _look_again(self, key: str, view: _View, generation: int) -> None:
        """Raise `CircuitOpen` if it opened while the call waited for something."""
        if view.generation != generation and view.until > 0:
            raise _refusal(key, max(0, view.until - self._clock.now_ns()))

    def _leave(
        self,
        key: str,
        view: _View,
        lease: int,
        generation: int,
        succeeded: bool | None,  # noqa: FBT001
        least_ns: int,
    ) -> None:
        """Note what came of a call; None: nothing that tells of the server."""
        trip = self._trip
        if lease:

            def back(state: Any, now: int) -> tuple[Any, Circuit]:
                circuit = probed(
                    circuit_of(state), now, trip, generation=generation, lease=lease,
                    succeeded=succeeded, least_ns=least_ns,
                )  # fmt: skip
                return circuit, circuit

            self._change(key, view, back)
            return
        if succeeded is None:
            return
        now = self._clock.now_ns()
        if now >= view.rolls_at:
            self._roll(view, now)
        if succeeded:
            view.ok += 1
            return
        if view.generation != generation or view.until:
            return
        oks, after_success = self._untold(view)

        def fail(state: Any, now: int) -> tuple[Any, Circuit]:
            circuit = failed(
                circuit_of(state), now, trip, generation=generation, oks=oks,
                after_success=after_success, least_ns=least_ns,
            )  # fmt: skip
            return circuit, circuit

        self._change(key, view, fail)

    def _roll(self, view: _View, now: int) -> None:
        """Begin the next part of the window."""
        part_ns = self._trip.part_ns
        with self._lock:
            part = now // part_ns
            if not view.marks or view.marks[-1][0] != part:
                view.marks.append((part, view.ok))
            view.rolls_at = (part + 1) * part_ns

    def _untold(self, view: _View) -> tuple[list[tuple[int, int]], bool]:
        """Return the successes since the last failure by part of the window, and if there was one.

        From now on they are told.
        """
        with self._lock:
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

    def _judge(self, outcome: Outcome, call: Call, view: _View, began: int) -> bool | None:
        """Return whether an answer is a success; None where it tells nothing."""
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
        return self._slow_ns is None or self._clock.now_ns() - began <= self._slow_ns

    def _is_alive(self, view: _View) -> bool:
        """Return whether there was a success in this window."""
        first = self._clock.now_ns() // self._trip.part_ns - PARTS + 1
        with self._lock:
            return any(part >= first and view.ok > ok for part, ok in view.marks)

    def _counts(self, error: Exception) -> bool:
        if isinstance(error, RateKitError):
            return False
        native = error.error if isinstance(error, SendFailed) else error
        if self._is_failure is not None:
            return self._is_failure(native)
        return not isinstance(error, SendFailed) or error.passing

    # The record.

    def _change(
        self, key: str, view: _View, change: Callable[[Any, int], tuple[Any, Circuit]]
    ) -> None:
        before = view.generation
        circuit = self._update(key, change)
        now = self._clock.now_ns()
        self._see(view, circuit, now)
        if circuit.generation == before:
            return
        if circuit.until == 0:
            _log.warning("%s: circuit closed", key or "breaker")
        elif circuit.until > now:
            seconds = (circuit.until - now) / SECOND
            _log.warning("%s: circuit open for %.1f s", key or "breaker", seconds)

    def _update(self, key: str, change: Callable[[Any, int], tuple[Any, Any]]) -> Any:
        trip = self._trip
        try:
            return self._space.update(key, change, lambda state: idle_at(state, trip))
        except StoreError:
            return self._alone.update(key, change, lambda state: idle_at(state, trip))

    def _ask(self, key: str) -> Circuit:
        try:
            return circuit_of(self._space.look(key)[0])
        except StoreError:
            return circuit_of(self._alone.look(key)[0])

    def _see(self, view: _View, circuit: Circuit, now: int) -> None:
        view.generation, view.until, view.seen_at = circuit.generation, circuit.until, now

    # What users do with it.

    def state(self, key: str = "") -> str:
        """Return "closed", "open", "half-open", "forced open" or "disabled"."""
        return _state(self._ask(key), self._clock.now_ns())

    def status(self) -> tuple[CircuitStatus, ...]:
        """Return every circuit that this process knows."""
        now = self._clock.now_ns()
        told = []
        for key in list(self._views):
            circuit = self._ask(key)
            bads = sum(bad for _, _, bad in circuit.parts)
            calls = bads + sum(ok for _, ok, _ in circuit.parts)
            left = max(0, circuit.until - now) / SECOND if circuit.until < FORCED else float("inf")
            told.append(CircuitStatus(key, _state(circuit, now), left, bads, calls))
        return tuple(told)

    def force_open(self, key: str = "") -> None:
        """Let nothing through until `reset`."""
        self._set(key, lambda circuit: set_until(circuit, FORCED))

    def disable(self, key: str = "") -> None:
        """Let everything through until `reset`."""
        self._set(key, lambda circuit: set_until(circuit, DISABLED))

    def reset(self, key: str = "") -> None:
        """Close the circuit, and forget what was counted."""
        self._set(key, close)

    def _set(self, key: str, change: Callable[[Circuit], Circuit]) -> None:
        def step(state: Any, now: int) -> tuple[Any, Circuit]:
            circuit = change(circuit_of(state))
            return circuit, circuit

        view = self._view(key)
        self._see(view, self._update(key, step), self._clock.now_ns())

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


def _refusal(key: str, wait_ns: int, *, probing: bool = False) -> CircuitOpen:
    seconds = wait_ns / SECOND
    if wait_ns > FORCED // 2:
        return CircuitOpen(f"{key or 'the circuit'}: it is forced open until it is reset", key=key)
    what = "a probe is under way" if probing else "the server has failed too often"
    return CircuitOpen(
        f"{key or 'the circuit'}: open, {what}; the next probe may go in {seconds:.3g} s",
        key=key,
        retry_after=seconds,
    )


def _rebuilt(trip: str, settings: dict[str, Any]) -> CircuitBreaker:
    return CircuitBreaker(trip, **settings)
