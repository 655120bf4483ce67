"""One budget for processes that share a memcached: what they get, and what it costs.

4 processes of 8 threads do nothing but acquire one key; memcached is one of the benchmark's own.
Instants are taken right after each `acquire`, so lateness of a thread that was granted its turn
counts too. "Excess" is what any window saw beyond rate x its length + burst, "ideal" rate x the
seconds + burst, and a share is a process's grants over a quarter of all.

`fleet`: `500/second burst 50` for 10 s; and what a permit costs in round trips where two limits are
kept together, and where the limit never binds. Promised: an excess of at most 1 in any 0.1 s and
any 1 s, 99 % of the ideal, shares within 5 %; round trips for a permit at most 1.05, 1.05 and 0.2.

`fleet-hold`: one process holds the key for 0.5 s while all wait. "During" is how many were granted
between the instant at which `hold` returned and the end of the hold, "last" the latest of them.
"Lost" compares the pace's beat before the hold and after it: the permits by which the earliest
grants come later than the hold is long. Promised: none during it, at most 2 lost.

`fleet-clock`: the wall clock that one process's store reads is ahead. Promised: an excess of at
most one burst, and from the fourth second on at least 80 % of an equal share for every process.
"""

from typing import NamedTuple

from tests.benchmarks.fleet_worker import Plan
from tests.benchmarks.fleets import SECOND, Fleet, excess, run_fleet
from tests.benchmarks.measure import Finding, Settings, load, print_table
from tests.benchmarks.server import Memcached

__all__ = ["run", "run_clock", "run_hold"]

_PROCESSES, _THREADS = 4, 8
_RATE, _BURST = 500, 50
_LIMIT = f"{_RATE}/second burst {_BURST}"


class Subject(NamedTuple):
    """A limit that the whole fleet keeps, and how many round trips a permit may take."""

    text: str
    bound: float
    headroom: float = 0.99
    seconds: int = 10
    exact: bool = False


_SUBJECTS = (
    Subject(_LIMIT, 1.05, headroom=1.0, exact=True),
    Subject("60000/minute; 1000000/hour", 1.05, seconds=5),
    Subject("1000000/second", 0.2, seconds=2),
)


def run(settings: Settings) -> list[Finding]:
    """Saturate each limit with the whole fleet."""
    print(f"{_PROCESSES} processes, {_THREADS} threads each; load average {load()}")
    rows, findings = [], []
    for subject in _SUBJECTS:
        seconds = settings.pick(subject.seconds, 2)
        with Memcached() as server:
            plan = Plan(
                limit=subject.text,
                url=server.url,
                threads=_THREADS,
                seconds=seconds,
                headroom=subject.headroom,
            )
            fleet = run_fleet([plan] * _PROCESSES)
        fleet.print_errors()
        rows.append(_row(subject, fleet))
        findings += _findings(subject, fleet, judged=not settings.quick)
    columns = [
        "", "granted", "ideal", "excess 0.1 s", "1 s", "shares", "round trips", "longest s",
        "errors",
    ]  # fmt: skip
    print_table(columns, rows)
    return findings


def _row(subject: Subject, fleet: Fleet) -> list[str]:
    shares, counted = fleet.shares(), fleet.counted
    bounds = ["", "", ""]
    if subject.exact:
        over = [f"{excess(counted, _RATE, _BURST, window):+.0f}" for window in (0.1, 1)]
        bounds = [f"{_RATE * fleet.seconds + _BURST:.0f}", *over]
    return [
        subject.text,
        str(len(counted)),
        *bounds,
        f"{min(shares):.3f}-{max(shares):.3f}",
        f"{fleet.round_trips:.3f}",
        f"{fleet.longest:.3f}",
        str(len(fleet.errors)),
    ]


def _findings(subject: Subject, fleet: Fleet, *, judged: bool) -> list[Finding]:
    name = subject.text
    findings = [
        Finding(f"{name}: round trips for a permit", fleet.round_trips, subject.bound),
        Finding(f"{name}: errors", len(fleet.errors), 0),
    ]
    if subject.exact:
        counted = fleet.counted
        granted = 100 * len(counted) / (_RATE * fleet.seconds + _BURST)
        off = 100 * max(abs(share - 1) for share in fleet.shares())
        findings += [
            Finding(f"{name}: excess in 0.1 s", excess(counted, _RATE, _BURST, 0.1), 1),
            Finding(f"{name}: excess in 1 s", excess(counted, _RATE, _BURST, 1), 1),
            Finding(f"{name}: of the ideal", granted, 99, "%", at_least=True, judged=judged),
            Finding(f"{name}: shares off by", off, 5, "%", judged=judged),
        ]
    return findings


def _plan(url: str, seconds: float) -> Plan:
    return Plan(limit=_LIMIT, url=url, threads=_THREADS, seconds=seconds, headroom=1.0)


def _beat(grants: list[int], before: int = 0) -> float:
    """Return the pace's phase: the permits by which the earliest grants are ahead of the clock."""
    numbers = enumerate(grants, before + 1)
    return max(number - _RATE * instant / SECOND for number, instant in numbers)


def run_hold(settings: Settings) -> list[Finding]:
    """Hold the key of a fleet whose threads all wait."""
    length, before, seconds = 0.5, settings.pick(2, 1), settings.pick(5, 3)
    rows, findings = [], []
    for turn in range(1, settings.pick(3, 1) + 1):
        with Memcached() as server:
            plan = _plan(server.url, seconds)
            holder = Plan(**(vars(plan) | {"hold": (before, length)}))
            fleet = run_fleet([holder] + [plan] * (_PROCESSES - 1))
        fleet.print_errors()
        held = fleet.reports[0].held
        grants = [instant - held for instant in fleet.counted]
        end = int(length * SECOND)
        early = [instant for instant in grants if instant <= 0]
        # Whoever looked less than 2 ms before it goes: its request is as good as on the wire.
        during = [instant for instant in grants if 2_000_000 < instant < end]
        late = [instant - end for instant in grants if instant >= end]
        lost = _beat(early) - _beat(late, len(early) + len(during))
        rows.append(
            [
                f"turn {turn}",
                str(len(grants)),
                f"{_RATE * (seconds - length) + _BURST:.0f}",
                str(len(during)),
                f"{max(during, default=0) / 1e6:.1f}",
                f"{lost:.1f}",
                f"{excess(fleet.counted, _RATE, _BURST, 1):+.0f}",
                str(len(fleet.errors)),
            ]
        )
        findings += [
            Finding(f"turn {turn}: granted during the hold", len(during), 0),
            Finding(f"turn {turn}: permits lost", lost, 2),
            Finding(f"turn {turn}: errors", len(fleet.errors), 0),
        ]
    print(f"{_LIMIT}, held for {length} s; load average {load()}")
    columns = ["", "granted", "ideal", "during", "last ms", "lost", "excess 1 s", "errors"]
    print_table(columns, rows)
    return findings


def run_clock(settings: Settings) -> list[Finding]:
    """Give one process's store a clock that is ahead."""
    seconds, since = settings.pick(8, 5), 3
    rows, findings = [], []
    for name, ahead in (("0.2 s", 0.2), ("5 s", 5.0), ("1 h", 3600.0)):
        with Memcached() as server:
            plan = _plan(server.url, seconds)
            wrong = Plan(**(vars(plan) | {"ahead": ahead}))
            fleet = run_fleet([wrong] + [plan] * (_PROCESSES - 1))
        fleet.print_errors()
        over = [excess(fleet.counted, _RATE, _BURST, window) for window in (0.1, 1)]
        shares = fleet.shares(since)
        rows.append(
            [
                f"{name} ahead",
                str(len(fleet.counted)),
                f"{_RATE * seconds + _BURST}",
                *(f"{one:+.0f}" for one in over),
                " ".join(f"{share:.2f}" for share in shares),
                f"{fleet.longest:.3f}",
                str(len(fleet.errors)),
            ]
        )
        findings += [
            Finding(f"{name} ahead: excess", max(over), _BURST),
            Finding(f"{name} ahead: least share", 100 * min(shares), 80, "%", at_least=True),
            Finding(f"{name} ahead: errors", len(fleet.errors), 0),
        ]
    print(f"{_LIMIT}, the first process's clock is ahead; load average {load()}")
    columns = [
        "", "granted", "ideal", "excess 0.1 s", "1 s", f"shares after {since} s", "longest s",
        "errors",
    ]  # fmt: skip
    print_table(columns, rows)
    return findings
