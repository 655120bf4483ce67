"""Runs the processes of a fleet side by side, and counts what they were granted together.

The excess of a window is what was granted in it beyond rate x its length + burst; the greatest of
all windows counts. A window begins with any grant and is open at its end.
"""

import multiprocessing
import time
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from heapq import merge

from tests.benchmarks.fleet_worker import Plan, Report, take
from tests.benchmarks.measure import load

__all__ = ["SECOND", "Fleet", "excess", "run_fleet"]

SECOND = 1_000_000_000
_HEAD_START = 0.2  # seconds from the last process's word that it is ready to the beginning
_PATIENCE = 120.0


def excess(grants: Sequence[int], rate: float, burst: float, window: float) -> float:
    """Return the most that any window of so many seconds saw beyond its due."""
    length = int(window * SECOND)
    most = first = 0
    for last, instant in enumerate(grants):
        while instant - grants[first] >= length:
            first += 1
        most = max(most, last - first + 1)
    return most - (rate * window + burst)


@dataclass(frozen=True)
class Fleet:
    """What all processes reported."""

    began: int
    seconds: float
    reports: list[Report]

    @property
    def grants(self) -> "array[int]":
        """Return the instants of all grants, in their order."""
        return array("q", merge(*(report.grants for report in self.reports)))

    @property
    def counted(self) -> "array[int]":
        """Return those of the time that was measured, which begins with the first of them."""
        grants = self.grants
        if not grants:
            raise RuntimeError(f"nobody was granted anything: {sorted(set(self.errors))}")
        until = grants[0] + int(self.seconds * SECOND)
        return array("q", (instant for instant in grants if instant < until))

    @property
    def errors(self) -> list[str]:
        """Return what reached a caller."""
        return [error for report in self.reports for error in report.errors]

    @property
    def round_trips(self) -> float:
        """Return the round trips for each permit."""
        grants = sum(len(report.grants) for report in self.reports)
        return sum(report.round_trips for report in self.reports) / max(1, grants)

    @property
    def longest(self) -> float:
        """Return the longest wait for a permit, in seconds."""
        return max(report.longest for report in self.reports)

    @property
    def gap(self) -> float:
        """Return the longest time in which one process was granted nothing, in seconds."""
        gaps = [
            later - earlier
            for report in self.reports
            for earlier, later in zip(report.grants, report.grants[1:], strict=False)
        ]
        return max(gaps, default=0) / SECOND

    def shares(self, since: float = 0.0) -> list[float]:
        """Return each process's grants over an equal share, from so many seconds on."""
        start = self.began + int(since * SECOND)
        counts = [sum(instant >= start for instant in one.grants) for one in self.reports]
        return [count * len(counts) / max(1, sum(counts)) for count in counts]

    def print_errors(self) -> None:
        """Print a few of the errors, if there were any."""
        for error in sorted(set(self.errors))[:3]:
            print(f"  {error}")


def run_fleet(
    plans: Sequence[Plan],
    meanwhile: Callable[[Callable[[float], None]], None] | None = None,
    target: Callable[..., None] = take,
) -> Fleet:
    """Run a process for each plan. `meanwhile(until)` runs here; `until(seconds)` waits in it."""
    context = multiprocessing.get_context("spawn")
    pipes = [context.Pipe() for _ in plans]
    processes = [
        context.Process(target=target, args=(plan, theirs))
        for plan, (_, theirs) in zip(plans, pipes, strict=True)
    ]
    try:
        for process in processes:
            process.start()
        for _, theirs in pipes:
            # So that the end of a process is the end of its pipe.
            theirs.close()
        for ours, _ in pipes:
            ours.recv()
        began = time.monotonic_ns() + int(_HEAD_START * SECOND)
        for ours, _ in pipes:
            ours.send(began)
        if meanwhile is not None:
            meanwhile(lambda at: time.sleep(max(0.0, at - (time.monotonic_ns() - began) / SECOND)))
        reports = [_receive(ours.poll, ours.recv) for ours, _ in pipes]
        return Fleet(began, max(plan.seconds for plan in plans), reports)
    finally:
        for process in processes:
            if process.pid is not None:
                process.join(_HEAD_START)
                process.kill()
                process.join()
        for ours, _ in pipes:
            ours.close()


def _receive(poll: Callable[[float], bool], receive: Callable[[], Report]) -> Report:
    if not poll(_PATIENCE):
        raise TimeoutError(f"a process of the fleet says nothing; load average {load()}")
    return receive()
