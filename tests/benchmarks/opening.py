"""How often a job that opens with a whole burst is refused, with and without its second count.

100 GETs from 16 threads through one new session, so that every connection has still to be made, to
a server in a process of its own that admits 200 a second in bursts of 20; ratekit is told just
that. Once as ratekit is, once without counting the opening burst by its answers (see
docs/decisions/0004); each on a machine that does nothing else and beside four busy loops. The floor
is (100 - 20) / 200 = 0.4 seconds.
"""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import requests

from ratekit import Pipeline, RateLimiter, Retry
from ratekit.limits.opening import Opening, Openings
from ratekit.limits.rules import Price, Rule
from ratekit.requests import RateKitAdapter
from ratekit.testing import ApiServer
from tests.benchmarks.measure import Finding, Settings, load, middle, print_table

__all__ = ["run"]

_RATE, _BURST, _JOBS, _THREADS = 200, 20, 100, 16
_LIMIT = f"{_RATE}/second burst {_BURST}"


class _NoOpenings(Openings):
    """Counts nothing."""

    def sent(self, key: str, rule: Rule, price: Price, *, was_full: bool) -> Opening | None:
        """Know of no opening."""
        return None


@contextmanager
def _busy(loops: int) -> Iterator[None]:
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(loops)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _job(*, counts: bool) -> tuple[float, int]:
    """Return the wall time of one job, and how often it was refused."""
    limiter = RateLimiter(_LIMIT)
    if not counts:
        limiter._openings = _NoOpenings(limiter._waiting, limiter.store.clock)
    with ApiServer(_RATE, _BURST, process=True) as server, requests.Session() as session:
        session.mount("http://", RateKitAdapter(Pipeline(Retry(), limiter)))
        ready = threading.Barrier(_THREADS + 1)
        with ThreadPoolExecutor(_THREADS, initializer=ready.wait) as threads:
            futures = [
                threads.submit(session.get, f"{server.url}/{number}") for number in range(_JOBS)
            ]
            ready.wait()
            began = time.perf_counter()
            for future in futures:
                future.result()
            wall = time.perf_counter() - began
        return wall, server.stats().refused


def run(settings: Settings) -> list[Finding]:
    """Run the job again and again, in turns."""
    runs = settings.pick(20, 4)
    rows = []
    findings = []
    for loops in (0, 4):
        jobs: dict[bool, list[tuple[float, int]]] = {True: [], False: []}
        with _busy(loops):
            for number in range(2 * runs):
                counts = number % 2 == 0
                jobs[counts].append(_job(counts=counts))
        for counts, done in jobs.items():
            refused = sum(refusals > 0 for _, refusals in done)
            rows.append(
                [
                    f"{loops} busy loops",
                    "as it is" if counts else "without the second count",
                    f"{refused} of {runs}",
                    str(sum(refusals for _, refusals in done)),
                    f"{middle(wall for wall, _ in done):.2f}",
                ]
            )
        if loops == 0:
            refusals = sum(refusals for _, refusals in jobs[True])
            findings.append(Finding("idle machine: refusals a run", refusals / runs, 0.1))
    print(f"{_JOBS} GETs, {_THREADS} threads, {_LIMIT}; load average {load()}")
    print_table(["", "", "runs refused", "refusals", "median s"], rows)
    return findings
