"""A fleet that was told nothing, at servers that enforce a limit of their own.

4 processes with 4 threads each do 900 GETs through requests, with `Pipeline(Retry(),
RateLimiter(name=..., store=...))` whose state lives in a memcached of the benchmark's own. The
server is a process of its own that admits 100 a second by one of the rules that real servers have.
The work is split evenly, or 750/50/50/50. An even pace takes 9 s.

Promised where the server tells of its limit: at most 3 % refused, 1.15 times an even pace; where it
only refuses, with and without `Retry-After: 1`: 10 %, 1.5 times. No job fails in any.

Not kept: a token bucket with `Retry-After: 1`, about 1.9. Each of its refusals stops the fleet for
a second in which the bucket is full again after 0.2.
"""

from typing import Any, NamedTuple

from ratekit.testing import ApiServer
from tests.benchmarks.fleet_worker import Plan, drive
from tests.benchmarks.fleets import SECOND, run_fleet
from tests.benchmarks.measure import Finding, Settings, load, print_table
from tests.benchmarks.server import Memcached

__all__ = ["run"]

_RATE, _THREADS, _JOBS = 100, 4, 900
_EVEN, _UNEVEN = (0.25,) * 4, (0.8333, 0.0556, 0.0556, 0.0556)


class Case(NamedTuple):
    """One job: its server, how the work is split, and what is promised."""

    name: str
    server: dict[str, Any]
    split: tuple[float, ...]
    refused: float
    ratio: float


_CASES = (
    Case("ietf, fixed window", {"rule": "fixed window", "quota": "ietf"}, _EVEN, 0.03, 1.15),
    Case("ietf, token bucket", {"burst": 20, "quota": "ietf"}, _EVEN, 0.03, 1.15),
    Case("ietf, uneven work", {"rule": "fixed window", "quota": "ietf"}, _UNEVEN, 0.03, 1.15),
    Case("github, window", {"rule": "wall-clock window", "quota": "github"}, _EVEN, 0.03, 1.15),
    Case("x-ratelimit, log", {"rule": "sliding log", "quota": "x-ratelimit"}, _EVEN, 0.03, 1.15),
    Case("silent, fixed window", {"rule": "fixed window", "retry_after": None}, _EVEN, 0.1, 1.5),
    Case("silent, token bucket", {"burst": 20, "retry_after": None}, _EVEN, 0.1, 1.5),
    Case("silent, uneven work", {"burst": 20, "retry_after": None}, _UNEVEN, 0.1, 1.5),
    Case("Retry-After, fixed window", {"rule": "fixed window"}, _EVEN, 0.1, 1.5),
    Case("Retry-After, token bucket", {"burst": 20}, _EVEN, 0.1, 1.5),
)


def run(settings: Settings) -> list[Finding]:
    """Do the jobs."""
    jobs = settings.jobs or settings.pick(_JOBS, 300)
    rows, findings = [], []
    for case in _CASES:
        with Memcached() as store, ApiServer(_RATE, process=True, **case.server) as server:
            plans = [
                Plan(
                    limit=None,
                    url=store.url,
                    threads=_THREADS,
                    jobs=round(part * jobs),
                    site=f"{server.url}/items",
                )
                for part in case.split
            ]
            fleet = run_fleet(plans, target=drive)
            seen = server.stats()
        fleet.print_errors()
        wall = (max(report.ended for report in fleet.reports) - fleet.began) / SECOND
        pace, failed = jobs / _RATE, len(fleet.errors)
        trips = sum(report.round_trips for report in fleet.reports) / seen.requests
        rows.append(
            [
                case.name,
                f"{wall:.2f}",
                f"{wall / pace:.3f}",
                str(seen.refused),
                f"{seen.refused / jobs:.1%}",
                f"{trips:.2f}",
                str(failed),
            ]
        )
        findings += [
            Finding(f"{case.name}: wall / pace", wall / pace, case.ratio, judged=jobs >= _JOBS),
            Finding(f"{case.name}: refused", seen.refused, int(case.refused * jobs)),
            Finding(f"{case.name}: failed jobs", failed, 0),
        ]
    print(f"{jobs} GETs, {len(_EVEN)} processes, {_THREADS} threads each; load average {load()}")
    print_table(["", "wall s", "ratio", "refused", "share", "round trips", "failed"], rows)
    return findings
