"""De-duplication: who asks what is being asked already waits for that answer.

The first caller leads and makes the request; the others follow. What they share is an answer, never
a failure: where the leader comes back without one, the next of them leads, and after a second
failure each goes on by himself.
"""

import threading
from collections.abc import Callable, Iterable
from typing import ParamSpec, TypeVar

from ratekit import forks
from ratekit.cache.identity import Asked, Identity
from ratekit.call import Call, Outcome, Proceed, Verdict
from ratekit.checks import check_positive
from ratekit.clock import SECOND, SYSTEM, Clock, new_gate, open_gate, to_ns
from ratekit.errors import ConfigurationError, DeadlineExceeded
from ratekit.events import FollowerJoined, deliver
from ratekit.http.fields import directives, listed
from ratekit.http.reply import Recording, Reply
from ratekit.policy import Policy

__all__ = ["Dedup"]

P = ParamSpec("P")
T = TypeVar("T")

_METHODS = ("GET", "HEAD")
_SAFE = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
_STREAMS = ("text/event-stream", "application/x-ndjson", "multipart/")
_NO_ANSWERS = frozenset({Verdict.FAILED, Verdict.THROTTLED})
# After so many leaders in a row came back without an answer, the others stop waiting for one.
_MOST_FAILURES = 2
# A body that has not grown for so long may never be read to its end.
_STALLED_NS = SECOND
# How often somebody elsewhere is asked whether he is done: at first, and at most.
_FIRST_PAUSE = 0.01
_LONGEST_PAUSE = 0.1


class _Flight:
    """A request on its way, with those who wait for its answer."""

    __slots__ = ("asked", "failures", "gates", "is_over", "recording", "reply")

    def __init__(self, asked: Asked, failures: int) -> None:
        self.asked = asked
        # Leaders in a row that came back without an answer, before this one.
        self.failures = failures
        self.gates: list[threading.Lock] = []
        self.is_over = False
        self.reply: Reply | None = None
        # The body, while the leader's user reads it.
        self.recording: Recording | None = None

    def size(self) -> int:
        """Return how much of the body has come; -1 before its first part."""
        return -1 if self.recording is None else self.recording.size


class Dedup(Policy):
    """Makes one request of identical ones that are under way at the same time.

    Identical are those of the same method and URL by the same caller (as in `Cache`), with equal
    fields where the answer's `Vary` names them. An answer that says `no-store` is its caller's
    alone; so is one with a body longer than `max_body` bytes. Below a `Cache` that is shared
    through memcached, the processes of a fleet make one request of theirs.

    A follower's wait ends with its own deadline, and with its own `max_wait`, after which it goes
    on by itself. Raises `ConfigurationError` for what cannot be right.
    """

    spares_attempts = True

    def __init__(
        self,
        *,
        methods: str | Iterable[str] = _METHODS,
        headers: str | Iterable[str] = (),
        params: str | Iterable[str] = (),
        max_body: int = 4 << 20,
        max_flights: int = 10_000,
        clock: Clock = SYSTEM,
    ) -> None:
        check_positive("max_body", max_body)
        check_positive("max_flights", max_flights)
        methods = [methods] if isinstance(methods, str) else methods
        self._methods = frozenset(method.upper() for method in methods)
        self._identity = Identity(headers, params)
        self._max_body = max_body
        self._max_flights = max_flights
        self.clock = clock
        self._renew()
        forks.renew_in_child(self)

    def _renew(self) -> None:
        # Guards all flights.
        self._lock = threading.Lock()
        self._flights: dict[str, _Flight] = {}

    def after_fork(self) -> None:
        """In a child: nobody is under way here."""
        self._renew()

    def run(self, call: Call, proceed: Proceed) -> Outcome:
        """Lead, or follow whoever does."""
        key = self._key(call)
        if key is None:
            return self._alone(call, proceed)
        name, asked = key
        failures = 0
        while failures < _MOST_FAILURES:
            gate = None
            with self._lock:
                flight = self._flights.get(name)
                if flight is not None:
                    gate = new_gate()
                    flight.gates.append(gate)
                elif len(self._flights) < self._max_flights:
                    flight = self._flights[name] = _Flight(asked, failures)
            if flight is None:
                break
            if gate is None:
                return self._lead(name, flight, call, proceed)
            if not self._wait(name, flight, gate, call):
                break
            if flight.reply is not None:
                return self._share(flight, flight.reply, asked, call, proceed)
            failures = flight.failures + 1
            found = None if call.trip is None else call.trip.look_again()
            if found is not None:
                return found
        return proceed(call)

    def _alone(self, call: Call, proceed: Proceed) -> Outcome:
        """Let a call go by itself; after a write nobody joins what was asked for before it."""
        try:
            return proceed(call)
        finally:
            if call.method is not None and call.method not in _SAFE:
                self._detach(call)

    def _detach(self, call: Call) -> None:
        if self._flights:
            url = self._identity.normal(call.url, call.key)[0]
            with self._lock:
                for name, flight in list(self._flights.items()):
                    if flight.asked.url == url:
                        del self._flights[name]

    def _key(self, call: Call) -> tuple[str, Asked] | None:
        """Return what makes a request identical to another; None where it goes alone."""
        method, options = call.method, call.options
        if method not in self._methods or call.respond is None:
            return None
        if options.no_cache or options.refresh:
            # It wants an answer that was asked for after this moment.
            return None
        with_body = method not in _METHODS
        asked = self._identity.describe(call, method or "", with_body=with_body)
        if asked is None or asked.unanswerable or asked.said.no_store or asked.said.no_cache:
            return None
        conditions = {**(call.added or {}), **(asked.conditions or {})}
        parts = [method or "", asked.url, asked.who, *map(str, sorted(conditions.items()))]
        if call.trip is not None:
            # The cache further out may have been told of more fields that say who asks.
            parts.append(call.trip.who())
        return "\n".join(parts), asked

    def _lead(self, name: str, flight: _Flight, call: Call, proceed: Proceed) -> Outcome:
        landed = False
        wanted = call.wanted
        try:
            found = self._elsewhere(call)
            if found is not None:
                # Kept a moment ago: whoever follows finds it there as well.
                return found
            call.wanted = (*wanted, self._wants)
            try:
                outcome = proceed(call)
            finally:
                call.wanted = wanted
            landed = self._hand_on(name, flight, call, outcome)
            return outcome
        finally:
            if not landed:
                self._land(name, flight, None)

    def _elsewhere(self, call: Call) -> Outcome | None:
        """Return what another process was asking for; None once this one is to ask."""
        trip = call.trip
        if trip is None:
            return None
        pause, max_wait = _FIRST_PAUSE, call.options.max_wait
        until = None if max_wait is None else call.clock.now_ns() + to_ns(max_wait)
        while True:
            found = trip.look_again()
            if found is not None or trip.take_lead():
                return found
            if until is not None and call.clock.now_ns() >= until:
                return None
            remaining_ns = call.remaining_ns()
            if remaining_ns == 0:
                raise _too_late(call)
            if remaining_ns is not None:
                pause = min(pause, remaining_ns / SECOND)
            call.clock.sleep(pause)
            call.waited_ns += to_ns(pause)
            pause = min(pause * 1.5, _LONGEST_PAUSE)

    def _wants(self, outcome: Outcome) -> int:
        said = directives(outcome.headers.get("cache-control", ""))
        if said.no_store or "*" in listed(outcome.headers.get("vary")):
            return 0
        if outcome.headers.get("content-type", "").lower().startswith(_STREAMS):
            # It may never end, and its subscribers want each part when it comes.
            return 0
        if "set-cookie" in outcome.headers:
            # A session of its own for whoever asked.
            return 0
        return self._max_body

    def _hand_on(self, name: str, flight: _Flight, call: Call, outcome: Outcome) -> bool:
        """Let the followers have the answer, once it is whole; return False where they cannot."""
        if outcome.from_cache or outcome.verdict(call.options) in _NO_ANSWERS:
            return False
        if not self._wants(outcome):
            flight.failures = _MOST_FAILURES
            return False
        reply = outcome.reply(b"")
        if call.method == "HEAD" or outcome.status == 304:
            self._land(name, flight, reply)
            return True
        if outcome.recording is None:
            flight.failures = _MOST_FAILURES
            return False
        flight.recording = outcome.recording
        outcome.recording.then(
            lambda body: self._land(name, flight, None if body is None else reply.with_body(body))
        )
        return True

    def _land(self, name: str, flight: _Flight, reply: Reply | None) -> None:
        """Let everybody go who waits for this one."""
        with self._lock:
            if self._flights.get(name) is flight:
                del self._flights[name]
            if flight.is_over:
                return
            flight.is_over = True
            flight.reply = reply
            gates, flight.gates = flight.gates, []
        for gate in gates:
            open_gate(gate)

    def _wait(self, name: str, flight: _Flight, gate: threading.Lock, call: Call) -> bool:
        """Wait until the leader is back; return False where this call is to go on by itself."""
        clock, began = call.clock, call.clock.now_ns()
        max_wait = call.options.max_wait
        until = None if max_wait is None else began + to_ns(max_wait)
        size, grew_at = flight.size(), began
        if call.listeners:
            deliver(call.listeners, FollowerJoined(call.limited_key or call.budget_key))
        try:
            while not flight.is_over:
                now = clock.now_ns()
                if flight.size() != size or size < 0:
                    size, grew_at = flight.size(), now
                elif now - grew_at >= _STALLED_NS:
                    # Its user has stopped to read it.
                    self._land(name, flight, None)
                    break
                remaining_ns = call.remaining_ns()
                if remaining_ns == 0:
                    raise _too_late(call)
                if until is not None and now >= until:
                    return False
                left = [_STALLED_NS]
                left += [] if remaining_ns is None else [remaining_ns]
                left += [] if until is None else [until - now]
                clock.wait(gate, min(left) / SECOND)
            return True
        finally:
            call.waited_ns += clock.now_ns() - began

    def _share(
        self, flight: _Flight, reply: Reply, asked: Asked, call: Call, proceed: Proceed
    ) -> Outcome:
        """Answer with the leader's answer, if this request would have been answered by it too."""
        fields = ",".join(value for name, value in reply.headers if name.lower() == "vary")
        vary = tuple(sorted(listed(fields)))
        if call.respond is None or asked.variant(vary) != flight.asked.variant(vary):
            return proceed(call)
        call.collapsed = True
        return call.respond(reply, [])

    def __call__(self, function: Callable[P, T]) -> Callable[P, T]:
        """Raise `ConfigurationError`: a plain function's arguments are not known here."""
        raise ConfigurationError("Dedup makes one of equal HTTP requests: put it into a Pipeline")

    def __repr__(self) -> str:
        return "Dedup()"

    def __getstate__(self) -> dict[str, object]:
        state = vars(self).copy()
        del state["_lock"], state["_flights"]
        return state

    def __setstate__(self, state: dict[str, object]) -> None:
        vars(self).update(state)
        self._renew()
        forks.renew_in_child(self)


def _too_late(call: Call) -> DeadlineExceeded:
    return DeadlineExceeded(
        "the call's deadline came before the answer to an identical request that is under way",
        key=call.key,
    )
