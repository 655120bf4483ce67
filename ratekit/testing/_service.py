"""What the loopback API server decides: who is admitted, what is answered, what is remembered.

Everything here happens on one thread, the event loop's, so that no decision needs a lock. The limit
is a token bucket written apart from ratekit's own limiters, in floats on the loop's monotonic
clock: a mistake in the one cannot hide in the other.
"""

import ipaddress
import json
import math
import random
import re
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from email.utils import formatdate, localtime
from functools import partial
from typing import Final, Literal, Protocol, TypeAlias, TypeVar, get_args
from urllib.parse import parse_qs

from ratekit.testing._ledger import Ledger
from ratekit.testing._wire import Answer, Request, StreamAnswer

__all__ = ["Exchange", "RetryAfter", "Service", "Settings", "TokenBucket"]

T = TypeVar("T")
RetryAfter: TypeAlias = Literal["ceil", "truncate", "exact", "date", "ms"]

RETRY_AFTER_FORMS: Final[tuple[RetryAfter, ...]] = get_args(RetryAfter)
MAX_CHUNKS: Final = 10_000
MAX_INTERVAL: Final = 60.0
CONTROL: Final = {"/stats": ("GET", "HEAD"), "/arrivals": ("GET", "HEAD"), "/reset": ("POST",)}
JSON: Final = ("Content-Type", "application/json")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a server is told to be; `ApiServer` documents the fields.

    Raises ValueError for a wrong one.
    """

    rate: float | None
    burst: int
    status: int
    retry_after: RetryAfter | None
    noise: float
    noise_status: int
    latency: float
    jitter: float
    seed: int
    host: str
    port: int

    def __post_init__(self) -> None:
        rate, burst, forms = self.rate, self.burst, (None, *RETRY_AFTER_FORMS)
        a_status = "an HTTP status from 200 to 599, such as 429 or 503"
        for name, fulfilled, right in (
            (
                "rate",
                rate is None or (math.isfinite(rate) and rate > 0),
                "requests a second, above 0, or None for no limit",
            ),
            ("burst", burst >= 1 and burst % 1 == 0, "a whole number of requests, at least 1"),
            ("status", self.status in range(200, 600), a_status),
            ("retry_after", self.retry_after in forms, f"one of {forms}"),
            ("noise", 0 <= self.noise <= 1, "a fraction of the admitted requests, 0 to 1"),
            ("noise_status", self.noise_status in range(200, 600), a_status),
            ("latency", 0 <= self.latency < math.inf, "seconds, 0 or more"),
            ("jitter", 0 <= self.jitter < math.inf, "seconds, 0 or more"),
            ("host", _is_loopback(self.host), "a loopback address, such as 127.0.0.1 or ::1"),
            ("port", self.port in range(65536), "0 for any free port, or 1 to 65535"),
        ):
            if not fulfilled:
                raise ValueError(f"{name} must be {right}; not {getattr(self, name)!r}")

    def at_port(self, port: int | None) -> "Settings":
        """Give the same settings with another port, unless that is None."""
        return self if port is None else replace(self, port=port)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class TokenBucket:
    """`burst` tokens at most, `rate` a second flow in, and it starts full at `now`."""

    def __init__(self, rate: float, burst: int, now: float) -> None:
        self._rate = rate
        self._burst = float(burst)
        self._tokens = float(burst)
        self._filled_at = now

    def take(self, now: float) -> float:
        """Take a token and return 0.0, or return the seconds until there is one to take."""
        self._tokens = min(self._burst, self._tokens + (now - self._filled_at) * self._rate)
        self._filled_at = now
        # Rounding must not refuse whoever waited exactly as long as it was told.
        if self._tokens >= 1.0 - 1e-9:
            self._tokens -= 1.0
            return 0.0
        return (1.0 - self._tokens) / self._rate


class Exchange(Protocol):
    """The connection a request came on, as far as the service needs it."""

    counted_in: Ledger | None  # where this connection stands as one of `connections`

    def answer(
        self, request: Request, answer: Answer, after: float, done: Callable[[bool], None]
    ) -> None:
        """Send `answer` after so many seconds, then call `done` once with whether it went out."""


class Service:
    """The server without its sockets: one request in, one answer out, and the record of both."""

    def __init__(self, settings: Settings, clock: Callable[[], float]) -> None:
        self.ledger = Ledger()
        self._settings = settings
        self._clock = clock
        self.reset()

    def reset(self) -> None:
        """Be as new: bucket full, counters and records empty, seeds restarted, scripts dropped."""
        settings = self._settings
        going_on = self.ledger.in_flight
        self.ledger = Ledger(in_flight=going_on, max_in_flight=going_on)
        self._bucket = None
        if settings.rate is not None:
            self._bucket = TokenBucket(settings.rate, settings.burst, self._clock())
        # Two sequences: the jitter of a refusal must not change which admitted request fails.
        self._noise = random.Random(f"noise {settings.seed}")
        self._jitter = random.Random(f"jitter {settings.seed}")
        self._scripts: dict[str, deque[tuple[Answer, bool]]] = {}  # with whether it is limited

    def script(self, path: str, answers: tuple[Answer, ...], *, limited: bool) -> None:
        """Queue `answers` for the next requests to `path`."""
        if not path.startswith("/") or "?" in path:
            raise ValueError(
                f"path must start with / and have no query, as in '/items'; not {path!r}"
            )
        if path in CONTROL:
            raise ValueError(
                f"{path} is the server's own and is never scripted; choose another path"
            )
        self._scripts.setdefault(path, deque()).extend((answer, limited) for answer in answers)

    def read(self, question: Callable[[Ledger], T]) -> T:
        """Ask the ledger."""
        return question(self.ledger)

    def handle(self, request: Request, exchange: Exchange) -> None:
        """Decide about a request that has just arrived and let `exchange` answer it."""
        if request.path in CONTROL:
            exchange.answer(request, self._control(request), 0.0, _ignore)
            return
        now = self._clock()
        ledger = self.ledger
        ledger.arrived(request, now)
        if exchange.counted_in is not ledger:
            exchange.counted_in = ledger
            ledger.connections += 1
        answer, ordinary = self._decide(request, now)
        after = self._settings.latency + answer.delay
        if self._settings.jitter:
            after += self._jitter.uniform(0.0, self._settings.jitter)
        exchange.answer(request, answer, after, partial(self._done, ledger if ordinary else None))

    def _done(self, ledger: Ledger | None, sent: bool) -> None:  # noqa: FBT001
        self.ledger.in_flight -= 1
        # It is the ledger it was admitted in, which a reset may have replaced meanwhile.
        if sent and ledger is not None:
            ledger.ok += 1

    def _decide(self, request: Request, now: float) -> tuple[Answer, bool]:
        """Choose the answer, and say whether it is the ordinary one of an admitted request."""
        ledger = self.ledger
        script = self._scripts.get(request.path)
        answer, limited = script[0] if script else (None, True)
        wait = self._bucket.take(now) if self._bucket is not None and limited else 0.0
        ledger.decided(now, admitted=limited and not wait)
        if wait:
            ledger.refused += 1
            return self._refusal(wait), False
        ledger.admitted += limited
        if script and answer is not None:
            ledger.scripted += 1
            script.popleft()
            if not script:
                del self._scripts[request.path]
            return answer, False
        if self._settings.noise and self._noise.random() < self._settings.noise:
            ledger.noise += 1
            return _json(self._settings.noise_status, {"error": "noise"}), False
        return _ordinary(request, ledger.requests), True

    def _refusal(self, wait: float) -> Answer:
        headers: list[tuple[str, str]] = []
        match self._settings.retry_after:
            case "ceil":
                headers = [("Retry-After", str(math.ceil(wait)))]
            case "truncate":
                headers = [("Retry-After", str(math.floor(wait)))]
            case "exact":
                millis = f"{math.ceil(wait * 1000) / 1000:.3f}"
                headers = [("Retry-After", millis.rstrip("0").rstrip("."))]
            case "ms":
                headers = [("retry-after-ms", str(math.ceil(wait * 1000)))]
            case "date":
                today = localtime().timestamp()
                headers = [
                    ("Date", formatdate(math.floor(today), usegmt=True)),
                    ("Retry-After", formatdate(math.ceil(today + wait), usegmt=True)),
                ]
            case None:
                pass
        return _json(self._settings.status, {"error": "rate limited"}, *headers)

    def _control(self, request: Request) -> Answer:
        methods = CONTROL[request.path]
        if request.method not in methods:
            return _json(405, {"error": f"use {methods[0]}"}, ("Allow", ", ".join(methods)))
        if request.path == "/reset":
            self.reset()
            return _json(200, {"reset": True})
        if request.path == "/arrivals":
            return _json(200, {"arrivals": self.ledger.arrivals()})
        return _json(200, asdict(self.ledger.stats()))


def _ignore(_sent: bool) -> None:  # noqa: FBT001
    pass


def _json(status: int, content: object, *headers: tuple[str, str]) -> Answer:
    return Answer(status, (JSON, *headers), json.dumps(content).encode())


def _ordinary(request: Request, ordinal: int) -> Answer:
    counted = re.fullmatch("/(redirect|stream)/([0-9]{1,9})", request.path)
    kind, number = (counted[1], int(counted[2])) if counted else ("", 0)
    if kind == "redirect" and number:
        return Answer(302, [("Location", f"/redirect/{number - 1}")])
    if kind == "stream":
        return _stream(number, request.query)
    if request.path == "/echo":
        kept = request.header("content-type", "application/octet-stream")
        return Answer(200, [("Content-Type", kept)], request.body)
    content = {
        "path": request.path,
        "method": request.method,
        "query": request.query,
        "body_length": len(request.body),
        "n": ordinal,
    }
    if request.path == "/cookie":
        return _json(200, content, ("Set-Cookie", f"visit={ordinal}; Path=/"))
    return _json(200, content)


def _stream(chunks: int, query: str) -> Answer:
    try:
        interval = float(parse_qs(query).get("interval", ["0"])[-1])
    except ValueError:
        interval = math.nan
    if chunks > MAX_CHUNKS or not 0 <= interval <= MAX_INTERVAL:
        right = f"at most {MAX_CHUNKS} chunks, and an interval of 0 to {MAX_INTERVAL:g} seconds"
        return _json(400, {"error": right})
    return StreamAnswer(200, [("Content-Type", "text/plain")], chunks=chunks, interval=interval)
