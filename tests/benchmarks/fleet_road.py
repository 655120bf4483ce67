"""A whole job done by a fleet, and what one request of it costs.

`fleet-road`: 1500 GETs at a server in a process of its own that admits 100 a second in bursts of
20, answers at once, and fails 2 % of what it admits with a 503. 4 processes with 4 threads each do
it through requests, with `Pipeline(Retry(), RateLimiter("100/second burst 20"))` whose state lives
in a memcached of the benchmark's own. The work is split 1050/150/150/150, so a fleet that splits
the limit instead is slow. The floor is what no client can beat: (jobs + failed attempts - burst) /
rate seconds. Promised: at most 1.04 times the floor, at most 4 refusals, no failed job.

`fleet-cost`: GETs over one kept connection to a server without a limit, through the same pipeline
with a limit that is never reached, kept in the process or shared; beside them one bare round trip
to the same memcached over a socket. They alternate one by one. Promised: the shared one adds at
most two and a half bare round trips to the local one.
"""

import socket
import time
from collections.abc import Callable

import requests

from ratekit import Pipeline, Retry
from ratekit.requests import RateKitAdapter
from ratekit.testing import ApiServer
from tests.benchmarks.fleet_worker import Plan, drive, limiter_of
from tests.benchmarks.fleets import SECOND, run_fleet
from tests.benchmarks.measure import Finding, Settings, load, middle, print_table
from tests.benchmarks.server import Memcached, ask

__all__ = ["run", "run_cost"]

_RATE, _BURST, _NOISE, _THREADS = 100, 20, 0.02, 4
_SPLIT = (0.7, 0.1, 0.1, 0.1)
# Seconds. The time of so short a job is that of its last retry, not that of its pace.
_TOO_SHORT = 10

Do = Callable[[], object]


def run(settings: Settings) -> list[Finding]:
    """Do the job, once for each seed."""
    jobs = settings.jobs or settings.pick(1500, 400)
    seeds = settings.seeds or settings.pick(2, 1)
    limit = f"{_RATE}/second burst {_BURST}"
    rows, findings = [], []
    for seed in range(seeds):
        with (
            Memcached() as store,
            ApiServer(_RATE, _BURST, noise=_NOISE, seed=seed, process=True) as server,
        ):
            plans = [
                Plan(
                    limit=limit,
                    url=store.url,
                    threads=_THREADS,
                    jobs=round(part * jobs),
                    site=f"{server.url}/items",
                )
                for part in _SPLIT
            ]
            fleet = run_fleet(plans, target=drive)
            seen = server.stats()
        fleet.print_errors()
        wall = (max(report.ended for report in fleet.reports) - fleet.began) / SECOND
        floor = (jobs + seen.noise - _BURST) / _RATE
        failed = len(fleet.errors)
        trips = sum(report.round_trips for report in fleet.reports) / seen.requests
        figures = [wall, floor, wall / floor]
        counts = [seen.refused, seen.requests, failed]
        rows.append(
            [
                f"seed {seed}",
                *(f"{figure:.3f}" for figure in figures),
                *map(str, counts),
                f"{trips:.3f}",
            ]
        )
        name = f"seed {seed}"
        judged = floor > _TOO_SHORT
        findings += [
            Finding(f"{name}: wall / floor", wall / floor, 1.04, judged=judged),
            Finding(f"{name}: refused", seen.refused, 4),
            Finding(f"{name}: failed jobs", failed, 0),
        ]
    print(f"{jobs} GETs told as {limit!r}, {len(_SPLIT)} processes, {_THREADS} threads each")
    print(f"server {_RATE}/second burst {_BURST}, {_NOISE:.0%} failures; load average {load()}")
    columns = [
        "", "wall s", "floor s", "ratio", "refused", "server saw", "failed jobs", "round trips",
    ]  # fmt: skip
    print_table(columns, rows)
    return findings


def run_cost(settings: Settings) -> list[Finding]:
    """Alternate GETs with the local limiter, with the shared one, and bare round trips."""
    limit, count = "1000000/second burst 100000", settings.pick(3000, 400)
    times: dict[str, list[float]] = {"local": [], "shared": [], "round trip": []}
    with (
        Memcached() as store,
        ApiServer(rate=None, process=True) as server,
        requests.Session() as local,
        requests.Session() as shared,
        socket.create_connection(store.address, 5) as bare,
    ):
        limiter, trips = limiter_of(Plan(limit=limit, url=store.url))
        shared.mount("http://", RateKitAdapter(Pipeline(Retry(), limiter)))
        limiter, _ = limiter_of(Plan(limit=limit, url=None))
        local.mount("http://", RateKitAdapter(Pipeline(Retry(), limiter)))
        subjects: list[tuple[str, Do]] = [
            ("local", lambda: local.get(f"{server.url}/items")),
            ("shared", lambda: shared.get(f"{server.url}/items")),
            ("round trip", lambda: ask(bare, b"mg fleet-cost v\r\nmn", b"MN\r\n")),
        ]
        for turn in range(-(count // 10), count):
            subjects = subjects[1:] + subjects[:1]
            for name, do in subjects:
                before = time.perf_counter_ns()
                do()
                took = time.perf_counter_ns() - before
                if turn >= 0:
                    times[name].append(took / 1000)
        made = trips() / (count + count // 10)
    medians = {name: middle(one) for name, one in times.items()}
    added = medians["shared"] - medians["local"]
    print(f"GETs through requests, us; {made:.3f} round trips a GET; load average {load()}")
    rows = [[name, f"{median:.1f}"] for name, median in medians.items()]
    rows += [["shared over local", f"{added:.1f}"]]
    print_table(["", "median us"], rows)
    return [Finding("round trips a GET", made, 1.05)]
