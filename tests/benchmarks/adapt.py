"""A limiter that was told nothing, or a limit twice too high, at servers that enforce theirs.

600 GETs from 16 threads through one shared session, to a server in a process of its own that admits
100 a second by one of the rules that real servers have, and tells of it in one of the ways that
real servers do. An even pace takes 6 s.

- *nothing told, headers*: at most 3 % refused, 1.15 times an even pace
- *twice too high, headers*: at most 5 % refused, 1.25 times
- *nothing told, no headers* (only refusals, with and without `Retry-After: 1`): at most 10 %
  refused, 1.5 times
- `road-untold`: the road's job of 1500 GETs, nothing told: 1.25 times its floor

No job fails in any.
"""

from typing import Any, NamedTuple

from ratekit import Pipeline, RateLimiter, Retry
from ratekit import options as ratekit_options
from ratekit.testing import ApiServer
from tests.benchmarks.clients import do, requests_client
from tests.benchmarks.measure import Finding, Settings, load, print_table

__all__ = ["run"]

_RATE, _THREADS = 100, 16
_BUCKET: dict[str, Any] = {"burst": 20}
_RULES: dict[str, dict[str, Any]] = {
    "fixed window": {"rule": "fixed window"},
    "wall-clock window": {"rule": "wall-clock window"},
    "sliding log": {"rule": "sliding log"},
    "token bucket": _BUCKET,
}


class Case(NamedTuple):
    """One job: its server, what the limiter is told, and what is promised."""

    name: str
    server: dict[str, Any]
    limit: str | None
    refused: float
    ratio: float
    jobs: int = 600


def _cases() -> list[Case]:
    cases = []
    for limit, told, refused, ratio in (
        (None, "nothing told", 0.03, 1.15),
        (f"{2 * _RATE}/second", "twice too high", 0.05, 1.25),
    ):
        for quota, rules in (
            ("ietf", _RULES),
            ("github", ("fixed window", "wall-clock window")),
            ("x-ratelimit", ("fixed window", "sliding log")),
        ):
            cases += [
                Case(
                    f"{told}, {quota}, {rule}",
                    {**_RULES[rule], "quota": quota},
                    limit,
                    refused,
                    ratio,
                )
                for rule in rules
            ]
    for rule, server in _RULES.items():
        silent = {**server, "retry_after": None}
        cases += [
            Case(f"nothing told, silent 429, {rule}", silent, None, 0.1, 1.5),
            Case(f"nothing told, silent 503, {rule}", {**silent, "status": 503}, None, 0.1, 1.5),
            Case(f"nothing told, Retry-After, {rule}", server, None, 0.1, 1.5),
        ]
    road = {**_BUCKET, "noise": 0.02}
    cases.append(Case("nothing told, the road", road, None, 1.0, 1.25, 1500))
    return cases


def run(settings: Settings) -> list[Finding]:
    """Do the jobs."""
    print(f"{_THREADS} threads, servers of {_RATE}/second; load average {load()}")
    rows, findings = [], []
    for case in _cases():
        jobs = settings.jobs or settings.pick(case.jobs, 300)
        pipeline = Pipeline(
            Retry(),
            RateLimiter(case.limit),
            options=ratekit_options(throttle_statuses={429, 503})
            if case.server.get("status") == 503
            else ratekit_options(),
        )
        with (
            ApiServer(_RATE, process=True, **case.server) as server,
            requests_client(pipeline) as send,
        ):
            wall, failures = do(send, f"{server.url}/items", jobs, _THREADS)
            seen = server.stats()
        pace = jobs / _RATE
        if case.jobs != 600:
            pace = (jobs + seen.noise - _BUCKET["burst"]) / _RATE
        rows.append(
            [
                case.name,
                f"{wall:.2f}",
                f"{wall / pace:.3f}",
                str(seen.refused),
                f"{seen.refused / jobs:.1%}",
                str(len(failures)),
            ]
        )
        findings += [
            Finding(f"{case.name}: wall / pace", wall / pace, case.ratio, judged=jobs >= case.jobs),
            Finding(f"{case.name}: refused", seen.refused, int(case.refused * jobs)),
            Finding(f"{case.name}: failed jobs", len(failures), 0),
        ]
    print_table(["", "wall s", "ratio", "refused", "share", "failed"], rows)
    return findings
