"""What the loopback API server decides: who is admitted, what is answered, what is remembered.

Everything here happens on one thread, the event loop's, so that no decision needs a lock.
"""

import json
import math
import random
import re
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, replace
from email.utils import formatdate
from functools import partial
from typing import Final, Protocol, TypeVar
from urllib.parse import parse_qs

from ratekit.testing._ledger import Ledger
from ratekit.testing._rules import Rule
from ratekit.testing._settings import Settings
from ratekit.testing._wire import Answer, Request, StreamAnswer

__all__ = ["Exchange", "Service"]

T = TypeVar("T")

MAX_CHUNKS: Final = 10_000
MAX_INTERVAL: Final = 60.0
CONTROL: Final = {"/stats": ("GET", "HEAD"), "/arrivals": ("GET", "HEAD"), "/reset": ("POST",)}
JSON: Final = ("Content-Type", "application/json")


class Exchange(Protocol):
    """The connection a request came on, as far as the service needs it."""

    counted_in: Ledger | None  # where this connection stands as one of `connections`

    def answer(
        self, request: Request, answer: Answer, after: float, done: Callable[[bool], None]
    ) -> None:
        """Send `answer` after so many seconds, then call `done` once with whether it went out."""


class Service:
    """The server without its sockets: one request in, one answer out, and the record of both.

    `clock` is monotonic; `wall` gives seconds since the epoch.
    """

    def __init__(
        self, settings: Settings, clock: Callable[[], float], wall: Callable[[], float]
    ) -> None:
        self.ledger = Ledger()
        self._settings = settings
        self._clock = clock
        self._wall = wall
        self._today = 0.0  # the wall clock's time as of this request
        self.reset()

    def reset(self) -> None:
        """Be as new: limit unspent, counters and records empty, seeds restarted, scripts dropped.

        What is in flight goes on, and the limit no longer counts it.
        """
        settings = self._settings
        going_on = self.ledger.in_flight
        self.ledger = Ledger(in_flight=going_on, max_in_flight=going_on)
        self._rule = settings.new_rule(lambda: self._today)
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
        now, self._today = self._clock(), self._wall()
        ledger = self.ledger
        ledger.arrived(request, now)
        if exchange.counted_in is not ledger:
            exchange.counted_in = ledger
            ledger.connections += 1
        answer, done = self._decide(request, now)
        after = self._settings.latency + answer.delay
        if self._settings.jitter:
            after += self._jitter.uniform(0.0, self._settings.jitter)
        exchange.answer(request, answer, after, done)

    def _decide(self, request: Request, now: float) -> tuple[Answer, Callable[[bool], None]]:
        """Choose the answer, and what is to be done when it went out or cannot any more."""
        ledger = self.ledger
        script = self._scripts.get(request.path)
        outside = script is not None and not script[0][1]
        rule = None if outside else self._rule
        wait = 0.0 if rule is None else rule.take(now)
        ledger.decided(now, admitted=rule is not None and not wait)
        quota = () if rule is None else self._quota(rule, now)
        if wait:
            ledger.refused += 1
            return self._refusal(wait, quota), partial(self._done, None, None)
        ledger.admitted += rule is not None
        answer, ordinary = self._admit(request)
        if quota:
            answer = replace(answer, headers=(*answer.headers, *quota))
        # Both are those it was admitted by, which a reset may replace meanwhile.
        return answer, partial(self._done, rule, ledger if ordinary else None)

    def _done(self, rule: Rule | None, ledger: Ledger | None, sent: bool) -> None:  # noqa: FBT001
        self.ledger.in_flight -= 1
        if rule is not None:
            rule.done()
        if sent and ledger is not None:
            ledger.ok += 1

    def _admit(self, request: Request) -> tuple[Answer, bool]:
        """Choose the answer of an admitted request, and say whether it is the ordinary one."""
        ledger = self.ledger
        script = self._scripts.get(request.path)
        if script:
            ledger.scripted += 1
            answer, _ = script.popleft()
            if not script:
                del self._scripts[request.path]
            return answer, False
        if self._settings.noise and self._noise.random() < self._settings.noise:
            ledger.noise += 1
            return _json(self._settings.noise_status, {"error": "noise"}), False
        return _ordinary(request, ledger.requests), True

    def _quota(self, rule: Rule, now: float) -> tuple[tuple[str, str], ...]:
        """Return the fields that tell of the limit, after this request."""
        settings = self._settings
        if settings.quota is None or settings.rate is None:
            return ()
        limit = f"{settings.rate:g}"
        remaining, reset = rule.left(now)
        if settings.quota == "ietf":
            return (
                ("RateLimit-Policy", f'"default";q={limit};w={math.ceil(settings.window)}'),
                ("RateLimit", f'"default";r={remaining};t={math.ceil(reset)}'),
            )
        if settings.quota == "x-ratelimit":
            return (
                ("X-RateLimit-Limit", limit),
                ("X-RateLimit-Remaining", str(remaining)),
                ("X-RateLimit-Reset", str(math.ceil(reset))),
            )
        return (
            ("Date", formatdate(math.floor(self._today), usegmt=True)),
            ("x-ratelimit-limit", limit),
            ("x-ratelimit-remaining", str(remaining)),
            ("x-ratelimit-used", f"{settings.rate - remaining:g}"),
            ("x-ratelimit-reset", str(math.ceil(self._today + reset))),
            ("x-ratelimit-resource", "core"),
        )

    def _refusal(self, wait: float, quota: tuple[tuple[str, str], ...]) -> Answer:
        if self._settings.quota == "github":
            # Its primary limit: no Retry-After, and no 429.
            return _json(403, {"message": "API rate limit exceeded"}, *quota)
        headers: list[tuple[str, str]] = []
        # Of an infinite wait there is nothing to say.
        match self._settings.retry_after if math.isfinite(wait) else None:
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
                headers = [
                    ("Date", formatdate(math.floor(self._today), usegmt=True)),
                    ("Retry-After", formatdate(math.ceil(self._today + wait), usegmt=True)),
                ]
            case None:
                pass
        return _json(self._settings.status, {"error": "rate limited"}, *headers, *quota)

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
