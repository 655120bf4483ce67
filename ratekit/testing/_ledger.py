"""What the loopback API server remembers: counters, instants of arrival, the requests themselves.

All of it is bounded, so that a server may run for days, and all of it pickles, so that it can be
read after the process that kept it has ended.
"""

from collections import deque
from dataclasses import dataclass, field, fields
from typing import Final

from ratekit.testing._wire import Request

__all__ = ["Ledger", "Seen", "Stats"]

MAX_ARRIVALS: Final = 200_000
MAX_SEEN: Final = 1000
MAX_SEEN_BODY: Final = 1024 * 1024
MAX_SEEN_BYTES: Final = 64 * 1024 * 1024  # of all the bodies kept together


@dataclass(frozen=True, slots=True)
class Stats:
    """What the server counted since it started or was last reset.

    `requests == admitted + refused + scripted outside the limit`, and once nothing is in flight
    `admitted == ok + noise + scripted inside the limit + answers the client did not stay for`.
    `scripted` counts both kinds. `connections` are those that carried one of the requests;
    `malformed` were no HTTP requests and count nowhere else. `in_flight` requests have arrived and
    are not answered yet. Instants are seconds of the server's monotonic clock, None before the
    first request.
    """

    requests: int
    admitted: int
    refused: int
    ok: int
    noise: int
    scripted: int
    malformed: int
    connections: int
    in_flight: int
    max_in_flight: int
    first_arrival: float | None
    last_arrival: float | None


@dataclass(frozen=True, slots=True)
class Seen:
    """One request as it arrived.

    `headers` are (name, value) pairs in the order and case of the wire; of `body` the first 1 MiB
    is kept; `arrival` is the instant its last byte was read, in seconds of the server's monotonic
    clock.
    """

    method: str
    path: str
    query: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    arrival: float


@dataclass(slots=True)
class Ledger:
    """What is remembered about the requests; bounded, so that a server may run for days."""

    requests: int = 0
    admitted: int = 0
    refused: int = 0
    ok: int = 0
    noise: int = 0
    scripted: int = 0
    malformed: int = 0
    connections: int = 0
    in_flight: int = 0
    max_in_flight: int = 0
    first_arrival: float | None = None
    last_arrival: float | None = None
    _arrivals: deque[tuple[float, bool]] = field(
        init=False, default_factory=lambda: deque(maxlen=MAX_ARRIVALS)
    )
    _seen: deque[Seen] = field(init=False, default_factory=deque)
    _seen_bytes: int = field(init=False, default=0)

    def arrived(self, request: Request, now: float) -> None:
        """Count a request that arrived whole at `now`."""
        self.requests += 1
        self.in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self.in_flight)
        self.last_arrival = now
        if self.first_arrival is None:
            self.first_arrival = now
        body = request.body[:MAX_SEEN_BODY]
        self._seen.append(
            Seen(request.method, request.path, request.query, request.headers, body, now)
        )
        self._seen_bytes += len(body)
        while len(self._seen) > MAX_SEEN or self._seen_bytes > MAX_SEEN_BYTES:
            self._seen_bytes -= len(self._seen.popleft().body)

    def decided(self, now: float, *, admitted: bool) -> None:
        """Note whether the limit admitted the request that arrived at `now`."""
        self._arrivals.append((now, admitted))

    def stats(self) -> Stats:
        """Copy the counters."""
        return Stats(**{counter.name: getattr(self, counter.name) for counter in fields(Stats)})

    def arrivals(self) -> list[tuple[float, bool]]:
        """List when each request arrived and whether the limit admitted it."""
        return list(self._arrivals)

    def seen(self, path: str) -> list[Seen]:
        """List what arrived at `path`."""
        return [record for record in self._seen if record.path == path]
