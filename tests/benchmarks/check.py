"""What one permit costs that is there to be had: `RateLimiter(...).check("k")`.

The limit is a thousand million a second, so that nobody is ever refused and only the limiter's own
work is timed. Every limiter takes its turn in every round, a block of calls each; a figure is the
fastest or the median block, in nanoseconds a call. They are the CPU time of the calling thread, so
that other programs do not count, nor the threads that limits and pyrate-limiter keep running in
the background while others have their turn. The reference is a GCRA in ten lines around a dict
and a lock: not a library, but the floor. Then the same with 8 threads at once (thousand permits a
second by the clock, all threads together), and with 10 000 keys in turn.

Promised: at most twice the reference, and ahead of limits, pyrate-limiter, throttled-py and
nopanic. After these come windows and two limits at once (`check_forms.py`).
"""

import threading
import time
from functools import partial

from tests.benchmarks import check_forms
from tests.benchmarks.limiters import CHECKS, KEYED, REFERENCE, Check, Terms
from tests.benchmarks.measure import Finding, Settings, interleave, load, middle, print_table

__all__ = ["run"]

_ENDLESS = Terms(1_000_000_000, 1, 1000)
_THREADS = 8
_KEYS = 10_000


def _block(check: Check, calls: int) -> float:
    """Return the nanoseconds of one call, of `calls` of them."""
    turns = range(calls)
    began = time.thread_time_ns()
    for _ in turns:
        check("k")
    return (time.thread_time_ns() - began) / calls


def _together(check: Check, seconds: float) -> float:
    """Return how many thousand permits a second all threads get together."""
    taken: list[int] = []
    start = threading.Barrier(_THREADS + 1)

    def work() -> None:
        count = 0
        start.wait()
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            for _ in range(50):
                check("k")
            count += 50
        taken.append(count)

    threads = [threading.Thread(target=work) for _ in range(_THREADS)]
    for thread in threads:
        thread.start()
    start.wait()
    began = time.perf_counter()
    for thread in threads:
        thread.join()
    return sum(taken) / (time.perf_counter() - began) / 1000


def _many(check: Check, keys: list[str]) -> float:
    """Return the nanoseconds of one call, each for another key."""
    began = time.thread_time_ns()
    for key in keys:
        check(key)
    return (time.thread_time_ns() - began) / len(keys)


def run(settings: Settings) -> list[Finding]:
    """Time `check` of every limiter."""
    single = {name: build(_ENDLESS) for name, build in CHECKS.items()}
    calls = 2000
    blocks = interleave(
        {name: partial(_block, check, calls) for name, check in single.items()},
        settings.pick(150, 15),
    )
    threaded = interleave(
        {name: partial(_together, check, 0.2) for name, check in single.items()},
        settings.pick(5, 1),
    )
    keys = [f"customer:{number}" for number in range(_KEYS)]
    many = {name: build(_ENDLESS) for name, build in KEYED.items()}
    keyed = interleave(
        {name: partial(_many, check, keys) for name, check in many.items()},
        settings.pick(7, 2),
    )
    floor = middle(blocks[REFERENCE])
    print(f"check(), never refused, blocks of {calls} calls; load average {load()}")
    rows = []
    for name in sorted(
        blocks.keys() | keyed.keys(), key=lambda name: middle(blocks.get(name) or keyed[name])
    ):
        mine, theirs = blocks.get(name), keyed.get(name)
        rows.append([
            name,
            f"{min(mine):.0f}" if mine else "",
            f"{middle(mine):.0f}" if mine else "",
            f"{middle(mine) / floor:.2f}" if mine else "",
            f"{middle(threaded[name]):.0f}" if mine else "",
            f"{middle(theirs):.0f}" if theirs else "",
        ])  # fmt: skip
    print_table(["", "min ns", "median ns", "x reference", "8 threads k/s", "10k keys ns"], rows)
    others = [name for name in blocks if name not in {"ratekit", REFERENCE}]
    findings = [Finding("time / reference", middle(blocks["ratekit"]) / floor, 2)]
    if others:
        best = min(others, key=lambda name: middle(blocks[name]))
        share = middle(blocks["ratekit"]) / middle(blocks[best])
        findings.append(Finding(f"time / fastest peer ({best})", share, 1))
    return findings + check_forms.run(settings)
