"""A whole job at a server that enforces its limit: how long it takes, and how often it is refused.

`road`: 1500 GETs from 16 threads through one shared session or client, to a server in a process
of its own that admits 100 a second in bursts of 20, answers at once, and fails 2 % of what it
admits with a 503. ratekit is told `100/second burst 20`. The floor is what no client can beat:
(jobs + failed attempts - burst) / rate seconds. Beside it, on the same server:

- nopanic: a retry decorator around a rate limit decorator around the GET, composed by hand
- requests-ratelimiter: `per_second=100`, and urllib3's Retry in the adapter below

Promised for each client: at most 1.03 times the floor, at most 2 refusals, no failed job.

`road-bare`: the same with the limit told as `100/second`, without the burst that the server would
grant. Promised: at most 1.05 times the floor, at most 1 % refused, no failed job.

The wall time runs from the start of the threads to the last answer. Each seed is another pattern
of failures; ratios and refusals are the worst of all seeds.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import httpx
import httpx2
import requests
from requests.adapters import HTTPAdapter

import ratekit.httpx
import ratekit.httpx2
from ratekit import Pipeline, RateLimiter, Retry
from ratekit.testing import ApiServer
from tests.benchmarks.clients import (
    Client,
    Send,
    do,
    httpx_client,
    requests_client,
    requests_ratelimiter,
)
from tests.benchmarks.measure import Finding, Settings, installed, load, middle, peer, print_table

__all__ = ["run", "run_bare"]

RATE, BURST, NOISE, THREADS = 100, 20, 0.02, 16
_QUICK_JOBS = 200
# Seconds. The time of so short a job is that of its last retry, not that of its pace.
_TOO_SHORT = 10


class Journey(NamedTuple):
    """One job that was done."""

    wall: float
    floor: float
    refused: int
    saw: int
    failed: int


class _Refused(Exception):
    def __init__(self, retry_after: float) -> None:
        super().__init__(retry_after)
        self.retry_after = retry_after


@contextmanager
def _nopanic() -> Iterator[Send]:
    nopanic = peer("nopanic")
    with requests.Session() as session:
        session.mount("http://", HTTPAdapter(pool_maxsize=64))

        def get(url: str) -> int:
            response = session.get(url, timeout=30)
            if response.status_code in {429, 503}:
                raise _Refused(float(response.headers.get("Retry-After", 0)))
            return response.status_code

        limited = nopanic.rate_limit(RATE, burst=BURST)(get)
        yield nopanic.retry(attempts=6, on=_Refused)(limited)


def _ours(limit: str) -> dict[str, Client]:
    def pipeline() -> Pipeline:
        return Pipeline(Retry(), RateLimiter(limit))

    return {
        "ratekit, requests": lambda: requests_client(pipeline()),
        "ratekit, httpx": lambda: httpx_client(httpx, ratekit.httpx, pipeline()),
        "ratekit, httpx2": lambda: httpx_client(httpx2, ratekit.httpx2, pipeline()),
    }


def _theirs() -> dict[str, Client]:
    clients: dict[str, tuple[str, Client]] = {
        "nopanic by hand, requests": ("nopanic", _nopanic),
        "requests-ratelimiter + urllib3 Retry": (
            "requests_ratelimiter",
            lambda: requests_ratelimiter(RATE),
        ),
    }
    return {name: client for name, (module, client) in clients.items() if installed(module)}


def _travel(client: Client, jobs: int, seed: int) -> Journey:
    with (
        ApiServer(RATE, BURST, noise=NOISE, seed=seed, process=True) as server,
        client() as send,
    ):
        wall, failures = do(send, f"{server.url}/items", jobs, THREADS)
        seen = server.stats()
    floor = (jobs + seen.noise - BURST) / RATE
    return Journey(wall, floor, seen.refused, seen.requests, len(failures))


def _measure(limit: str, settings: Settings, rivals: dict[str, Client]) -> dict[str, list[Journey]]:
    jobs = settings.jobs or settings.pick(1500, _QUICK_JOBS)
    seeds = settings.seeds or settings.pick(2, 1)
    print(f"{jobs} GETs told as {limit!r}, {THREADS} threads, {seeds} seed(s)")
    print(f"server {RATE}/second burst {BURST}, {NOISE:.0%} failures; load average {load()}")
    journeys: dict[str, list[Journey]] = {}
    for seed in range(seeds):
        for name, client in (_ours(limit) | rivals).items():
            # Minutes for a peer that only queues at the server: once is enough of that.
            if seed == 0 or not name.startswith("requests-ratelimiter"):
                journeys.setdefault(name, []).append(_travel(client, jobs, seed))
    _print(journeys)
    return journeys


def _print(journeys: dict[str, list[Journey]]) -> None:
    rows = [
        [
            name,
            f"{middle(one.wall for one in made):.2f}",
            f"{middle(one.floor for one in made):.2f}",
            f"{middle(one.wall / one.floor for one in made):.3f}",
            f"{max(one.wall / one.floor for one in made):.3f}",
            " ".join(str(one.refused) for one in made),
            " ".join(str(one.saw) for one in made),
            str(sum(one.failed for one in made)),
        ]
        for name, made in journeys.items()
    ]
    columns = ["", "wall s", "floor s", "ratio", "worst", "refused", "server saw", "failed jobs"]
    print_table(columns, rows)


def _findings(
    journeys: dict[str, list[Journey]],
    ratio: float,
    refused: Callable[[int], float],
) -> list[Finding]:
    return [
        finding
        for name, made in journeys.items()
        if name.startswith("ratekit")
        for finding in (
            Finding(
                f"{name}: wall / floor",
                max(one.wall / one.floor for one in made),
                ratio,
                judged=min(one.floor for one in made) > _TOO_SHORT,
            ),
            Finding(
                f"{name}: refused",
                max(one.refused for one in made),
                min(refused(one.saw) for one in made),
            ),
            Finding(f"{name}: failed jobs", sum(one.failed for one in made), 0),
        )
    ]


def run(settings: Settings) -> list[Finding]:
    """Do the job with the limit told as it is."""
    journeys = _measure(f"{RATE}/second burst {BURST}", settings, _theirs())
    return _findings(journeys, 1.03, lambda saw: 2)


def run_bare(settings: Settings) -> list[Finding]:
    """Do the job with a limit that does not name the burst."""
    journeys = _measure(f"{RATE}/second", settings, {})
    return _findings(journeys, 1.05, lambda saw: saw // 100)
