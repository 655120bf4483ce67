"""What one process of a fleet does: it takes permits of one key, or does its part of a job.

Instants are those of `time.monotonic_ns`, which all processes of a machine share: a clock that
somebody sets meanwhile disturbs no figure, and nor does the one that a store is made to read wrong.
"""

import threading
import time
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

from ratekit import Pipeline, RateLimiter, Retry
from ratekit.clock import SystemClock
from tests.benchmarks.clients import do, requests_client
from tests.benchmarks.measure import hush

__all__ = ["Plan", "Report", "drive", "limiter_of", "take"]

NAME = "fleet"
_SECOND = 1_000_000_000


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What one process is to do.

    `url`: where the state lives, None for the process itself. `settings`: more arguments of the
    store. `ahead`: seconds by which the wall clock that the store reads is wrong. `hold`: when
    this process holds the key, in seconds after the beginning, and for how long. `jobs`, `site`:
    how many GETs, and of what.
    """

    limit: str | None
    url: str | None
    threads: int = 8
    seconds: float = 0.0
    headroom: float = 0.99
    settings: dict[str, Any] = field(default_factory=dict)
    ahead: float = 0.0
    hold: tuple[float, float] | None = None
    jobs: int = 0
    site: str = ""


@dataclass(frozen=True, kw_only=True)
class Report:
    """What came of it: instants of grants in their order, and what went wrong.

    `held`: the instant at which `hold` returned. `ended`: when the process had its last answer.
    """

    grants: "array[int]"
    longest: float = 0.0  # seconds of the longest wait for a permit
    errors: list[str] = field(default_factory=list)
    round_trips: int = 0
    held: int = 0
    ended: int = 0


class _WrongClock(SystemClock):
    """The machine's clock, with a wall clock that is ahead of everybody else's."""

    def __init__(self, ahead: float) -> None:
        self._ahead = ahead

    def wall(self) -> float:
        return time.time() + self._ahead


def limiter_of(plan: Plan) -> tuple[RateLimiter, Callable[[], int]]:
    """Return the limiter, and what tells how many conversations its store has had."""
    if plan.url is None:
        return RateLimiter(plan.limit, name=NAME, headroom=plan.headroom), lambda: 0
    from ratekit.stores.memcached import MemcachedStore

    settings = dict(plan.settings)
    if plan.ahead:
        settings["clock"] = _WrongClock(plan.ahead)
    store = MemcachedStore(plan.url, **settings)
    limiter = RateLimiter(plan.limit, name=NAME, headroom=plan.headroom, store=store)
    return limiter, lambda: store.round_trips


def _begin(connection: Connection) -> int:
    """Say that all is ready, wait for the common beginning, and return its instant."""
    hush()
    connection.send(None)
    began: int = connection.recv()
    time.sleep(max(0.0, (began - time.monotonic_ns()) / _SECOND))
    return began


def take(plan: Plan, connection: Connection) -> None:
    """Take permits with many threads for so many seconds; send a `Report`."""
    limiter, round_trips = limiter_of(plan)
    grants: list[list[int]] = [[] for _ in range(plan.threads)]
    longest = [0] * plan.threads
    errors: list[str] = []
    began = _begin(connection)
    until = began + int(plan.seconds * _SECOND)

    def work(thread: int) -> None:
        acquire, now, mine = limiter.acquire, time.monotonic_ns, grants[thread]
        after, most = now(), 0
        while (before := after) < until:
            try:
                acquire("k")
            except Exception as error:  # noqa: BLE001 (that none gets here is what is measured)
                errors.append(repr(error))
                time.sleep(0.01)
                after = now()
                continue
            after = now()
            mine.append(after)
            most = max(most, after - before)
        longest[thread] = most

    threads = [threading.Thread(target=work, args=(one,)) for one in range(plan.threads)]
    for thread in threads:
        thread.start()
    held = 0
    if plan.hold is not None:
        time.sleep(max(0.0, plan.hold[0] - (time.monotonic_ns() - began) / _SECOND))
        limiter.hold("k", plan.hold[1])
        held = time.monotonic_ns()
    for thread in threads:
        thread.join()
    report = Report(
        grants=array("q", sorted(instant for mine in grants for instant in mine)),
        longest=max(longest) / _SECOND,
        errors=errors,
        round_trips=round_trips(),
        held=held,
        ended=time.monotonic_ns(),
    )
    connection.send(report)


def drive(plan: Plan, connection: Connection) -> None:
    """Do this process's part of a job through requests; send a `Report`."""
    limiter, round_trips = limiter_of(plan)
    with requests_client(Pipeline(Retry(), limiter)) as send:
        _begin(connection)
        _, failures = do(send, plan.site, plan.jobs, plan.threads)
        ended = time.monotonic_ns()
    report = Report(grants=array("q"), errors=failures, round_trips=round_trips(), ended=ended)
    connection.send(report)
