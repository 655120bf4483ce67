"""`Concurrency(8)` at a server that refuses a ninth request in flight.

600 GETs from 16 threads; the server, in a process of its own, takes 20 ms for each. The least
possible is 8 threads without ratekit on the same server, interleaved. Promised: nothing refused, no
failed job, at most 1.05 times the least possible.
"""

import requests
from requests.adapters import HTTPAdapter

from ratekit import Concurrency, Pipeline
from ratekit.testing import ApiServer
from tests.benchmarks.clients import do, requests_client
from tests.benchmarks.measure import Finding, Settings, middle, print_table

__all__ = ["run"]

_SLOTS, _THREADS, _LATENCY = 8, 16, 0.02


def run(settings: Settings) -> list[Finding]:
    """Do the job with and without."""
    jobs = settings.jobs or settings.pick(600, 100)
    bare: list[float] = []
    ours: list[float] = []
    refused = failed = 0
    with ApiServer(
        None, rule="concurrency", in_flight=_SLOTS, latency=_LATENCY, status=503, process=True
    ) as server:
        for _ in range(settings.pick(3, 1)):
            server.reset()
            with requests.Session() as session:
                session.mount("http://", HTTPAdapter(pool_maxsize=_THREADS))
                bare.append(
                    do(lambda url: session.get(url).status_code, server.url, jobs, _SLOTS).wall
                )
            server.reset()
            with requests_client(Pipeline(Concurrency(_SLOTS))) as send:
                done = do(send, server.url, jobs, _THREADS)
            ours.append(done.wall)
            failed += len(done.failures)
            refused += server.stats().refused
    ratio = middle(ours) / middle(bare)
    print_table(
        ["", "wall s"],
        [
            ["8 threads, bare", f"{middle(bare):.3f}"],
            ["16 threads, Concurrency(8)", f"{middle(ours):.3f}"],
            ["jobs x latency / slots", f"{jobs * _LATENCY / _SLOTS:.3f}"],
        ],
    )
    return [
        Finding("wall / the least possible", ratio, 1.05),
        Finding("refused", refused, 0),
        Finding("failed jobs", failed, 0),
    ]
