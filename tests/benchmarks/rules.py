"""One limit, and all the ways in which servers count it.

600 GETs from 16 threads through one Session (and one httpx Client), `Pipeline(Retry(),
RateLimiter(...))`, to a server in a process of its own that means by "100 a second" what real ones
do: one rule to a row, with the status and the header that such a server sends with a refusal.
Where that is a 403, or a 503 that says nothing, ratekit is told that it means "too fast"
(`throttle_statuses`).

- `100/second` at every rule. The floor is an even pace at the limit: (jobs - 1) / rate seconds
- `100/second window` at the two rules it is for. The floor is the least that the rule allows: a
  full window at once, the next when the first is over, and so on: (ceil(jobs / rate) - 1) seconds
- requests-ratelimiter's `per_second=100` above urllib3's Retry, at a bucket and at the log that it
  suits best, beside the first

Promised, each time: at most 1 % of the jobs refused, none failed, and the wall time at most 1.05
times the even pace, 1.10 times the least that the rule allows. Ratios are the median and the worst
of the turns; the worst counts.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import httpx

import ratekit.httpx
from ratekit import Pipeline, RateLimiter, Retry, options
from ratekit.testing import ApiServer
from tests.benchmarks.clients import Client, do, httpx_client, requests_client, requests_ratelimiter
from tests.benchmarks.measure import Finding, Settings, installed, load, middle, print_table

__all__ = ["run"]

_RATE, _THREADS = 100, 16

_SERVERS: dict[str, dict[str, Any]] = {
    "token bucket, burst 20": {"burst": 20},
    "nginx limit_req": {"burst": 21, "status": 503, "retry_after": None},
    "sliding log": {"rule": "sliding log"},
    "fixed from the first": {"rule": "fixed window", "retry_after": "truncate"},
    "wall-clock second": {"rule": "wall-clock window", "status": 403, "retry_after": None},
    "estimate, counts refusals": {"rule": "two-window estimate"},
    "estimate": {"rule": "two-window estimate", "count_refusals": False},
}
_EVEN, _GREEDY = f"{_RATE}/second", f"{_RATE}/second window"
_GREEDY_RULES = ("sliding log", "fixed from the first")
_PEER = "requests-ratelimiter"
_PEER_RULES = ("token bucket, burst 20", "sliding log")


class Turn(NamedTuple):
    """One job that was done."""

    wall: float
    refused: int
    failed: int


class Subject(NamedTuple):
    """Who does a job, and where."""

    limit: str
    client: str
    server: str

    def floor(self, jobs: int) -> float:
        """Return the seconds below which the promise does not look."""
        if self.limit == _GREEDY:
            return float(-(-jobs // _RATE) - 1)
        return (jobs - 1) / _RATE

    @property
    def bound(self) -> float:
        """The promised wall time over the floor."""
        return 1.10 if self.limit == _GREEDY else 1.05


def _subjects(settings: Settings) -> Iterator[Subject]:
    clients = ["requests"] if settings.quick else ["requests", "httpx"]
    for limit, servers in ((_EVEN, tuple(_SERVERS)), (_GREEDY, _GREEDY_RULES)):
        for server in servers:
            for client in clients:
                yield Subject(limit, client, server)
    if installed("requests_ratelimiter"):
        for server in _PEER_RULES:
            yield Subject(f"per_second={_RATE}", _PEER, server)


def _client(subject: Subject) -> Client:
    if subject.client == _PEER:
        return partial(requests_ratelimiter, _RATE)
    status = _SERVERS[subject.server].get("status", 429)
    pipeline = Pipeline(
        Retry(), RateLimiter(subject.limit), options=options(throttle_statuses=(status,))
    )
    if subject.client == "httpx":
        return partial(httpx_client, httpx, ratekit.httpx, pipeline)
    return partial(requests_client, pipeline)


def _turn(subject: Subject, jobs: int) -> Turn:
    client = _client(subject)
    with ApiServer(_RATE, process=True, **_SERVERS[subject.server]) as server, client() as send:
        wall, failures = do(send, server.url, jobs, _THREADS)
        return Turn(wall, server.stats().refused, len(failures))


def run(settings: Settings) -> list[Finding]:
    """Do the job at every server, in turns."""
    jobs = settings.jobs or settings.pick(600, 200)
    turns = settings.seeds or settings.pick(3, 1)
    print(f"{jobs} GETs, {_THREADS} threads, {turns} turn(s); servers admit {_RATE} a second;")
    print(f"load average {load()}")
    made: dict[Subject, list[Turn]] = {subject: [] for subject in _subjects(settings)}
    for turn in range(turns):
        for subject, done in made.items():
            # Minutes for a peer that only queues at the server: once is enough of that.
            if turn == 0 or subject.client != _PEER:
                done.append(_turn(subject, jobs))
    rows = [_row(subject, done, jobs) for subject, done in made.items()]
    columns = ["", "", "", "wall s", "floor s", "ratio", "worst", "refused", "failed jobs"]
    print_table(columns, rows)
    return _findings(made, jobs, judged=not settings.quick)


def _row(subject: Subject, done: list[Turn], jobs: int) -> list[str]:
    floor = subject.floor(jobs)
    return [
        subject.limit,
        subject.client,
        subject.server,
        f"{middle(turn.wall for turn in done):.2f}",
        f"{floor:.2f}",
        f"{middle(turn.wall for turn in done) / floor:.3f}",
        f"{max(turn.wall for turn in done) / floor:.3f}",
        " ".join(str(turn.refused) for turn in done),
        str(sum(turn.failed for turn in done)),
    ]


def _findings(made: dict[Subject, list[Turn]], jobs: int, *, judged: bool) -> list[Finding]:
    findings = []
    for subject, done in made.items():
        if subject.client == _PEER:
            continue
        what = f"{subject.limit}, {subject.client}, {subject.server}"
        worst = max(turn.wall for turn in done) / subject.floor(jobs)
        refused = max(turn.refused for turn in done)
        findings += [
            # So short a job is mostly its beginning and its end.
            Finding(f"{what}: wall / floor", worst, subject.bound, judged=judged),
            Finding(f"{what}: refused", 100 * refused / jobs, 1, "%"),
            Finding(f"{what}: failed jobs", sum(turn.failed for turn in done), 0),
        ]
    return findings
