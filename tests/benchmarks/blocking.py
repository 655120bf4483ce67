"""Waiting for permits: 16 threads that do nothing but wait, 200 a second in bursts of 20, 5 s.

How many permits were granted, against the ideal (rate x seconds + burst) of the limit as it was
told and of the pace that the limiter keeps by itself (ratekit's default leaves 1 % of the server's
rate unused; `headroom=1` leaves none). Whether any window of one second saw more than rate + burst.
How evenly the threads were served: Jain's index is 1 for equal shares and 1/16 when one thread gets
all. What it costs in CPU seconds, less those of threads that do nothing. All limiters take three
turns; shares of the ideal and CPU are the median turn's, the rest is the worst of all.

Promised: at least 99 % of the ideal, no window above the promise, an index of at least 0.99, and at
most 0.15 s of CPU.
"""

import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from tests.benchmarks.limiters import WAITS, Terms
from tests.benchmarks.measure import Finding, Settings, load, middle, print_table

__all__ = ["run"]

_THREADS = 16
_TERMS = Terms(200, 1, 20)
_PACE = {"ratekit": 0.99}
"""The share of the told rate that a limiter uses on purpose."""


class Watch(NamedTuple):
    """One stretch of waiting: when each thread was granted its permits, and what it cost."""

    stamps: list[list[float]]
    cpu: float

    @property
    def admitted(self) -> int:
        """Permits of all threads."""
        return sum(map(len, self.stamps))

    @property
    def fairness(self) -> float:
        """Jain's index of the threads' shares."""
        shares = [len(stamps) for stamps in self.stamps]
        squares = sum(share * share for share in shares)
        return sum(shares) ** 2 / (len(shares) * squares) if squares else 0.0

    def worst(self, seconds: float) -> int:
        """Return the most permits that any window of so many seconds saw."""
        stamps = sorted(stamp for stamps in self.stamps for stamp in stamps)
        first = most = 0
        for at, stamp in enumerate(stamps):
            while stamps[first] <= stamp - seconds:
                first += 1
            most = max(most, at - first + 1)
        return most


def _watch(wait: Callable[[str], object] | None, seconds: float) -> Watch:
    stamps: list[list[float]] = [[] for _ in range(_THREADS)]
    begin = threading.Barrier(_THREADS + 1)
    end = 0.0

    def work(mine: list[float]) -> None:
        begin.wait()
        while wait is not None:
            wait("k")
            now = time.monotonic()
            if now >= end:
                return
            mine.append(now)

    threads = [threading.Thread(target=work, args=(mine,)) for mine in stamps]
    used = time.process_time()
    for thread in threads:
        thread.start()
    end = time.monotonic() + seconds
    begin.wait()
    for thread in threads:
        thread.join()
    return Watch(stamps, time.process_time() - used)


def run(settings: Settings) -> list[Finding]:
    """Watch every limiter in turn."""
    seconds = 1.5 if settings.quick else 5.0
    watches: dict[str, list[Watch]] = {name: [] for name in WAITS}
    idle = []
    for _ in range(settings.pick(3, 1)):
        idle.append(_watch(None, 0).cpu)
        for name, build in WAITS.items():
            watches[name].append(_watch(build(_TERMS), seconds))
    rows = [_row(name, made, seconds, min(idle)) for name, made in watches.items()]
    print(f"{_THREADS} threads, {_TERMS.permits}/s burst {_TERMS.burst}, {seconds:g} s;", end=" ")
    print(f"load average {load()}; the promise of any 1 s is {_TERMS.permits + _TERMS.burst}")
    columns = [
        "", "admitted", "of the told", "of its pace", "worst 1 s", "worst 50 ms", "Jain", "CPU s",
        "a thread",
    ]  # fmt: skip
    print_table(columns, rows)
    return _findings(watches, seconds, min(idle), judged=not settings.quick)


def _row(name: str, made: list[Watch], seconds: float, idle: float) -> list[str]:
    admitted = middle(watch.admitted for watch in made)
    shares = [len(stamps) for watch in made for stamps in watch.stamps]
    return [
        name,
        " ".join(str(watch.admitted) for watch in made),
        f"{admitted / _ideal(1, seconds):.2%}",
        f"{admitted / _ideal(_PACE.get(name, 1), seconds):.2%}",
        str(max(watch.worst(1) for watch in made)),
        str(max(watch.worst(0.05) for watch in made)),
        f"{min(watch.fairness for watch in made):.3f}",
        f"{middle(watch.cpu for watch in made) - idle:.3f}",
        f"{min(shares)}..{max(shares)}",
    ]


def _ideal(share: float, seconds: float) -> float:
    return _TERMS.rate * share * seconds + _TERMS.burst


def _findings(
    watches: dict[str, list[Watch]], seconds: float, idle: float, *, judged: bool
) -> list[Finding]:
    findings = []
    for name in ("ratekit", "ratekit, headroom=1"):
        made = watches[name]
        admitted = middle(watch.admitted for watch in made)
        pace = _PACE.get(name, 1.0)
        promise = _TERMS.permits + _TERMS.burst
        findings += [
            Finding(
                f"{name}: granted of its pace",
                100 * admitted / _ideal(pace, seconds), 99, "%", at_least=True, judged=judged,
            ),
            Finding(
                f"{name}: granted of the told rate",
                100 * admitted / _ideal(1, seconds), 99, "%", at_least=True, judged=judged,
            ),
            Finding(f"{name}: most in 1 s", max(watch.worst(1) for watch in made), promise),
            Finding(
                f"{name}: Jain's index",
                min(watch.fairness for watch in made), 0.99, at_least=True, judged=judged,
            ),
            Finding(f"{name}: CPU", middle(watch.cpu for watch in made) - idle, 0.15, "s"),
        ]  # fmt: skip
    return findings
