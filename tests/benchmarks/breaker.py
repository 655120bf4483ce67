"""What a closed breaker costs a call that succeeds, beside other libraries'.

Microseconds for a call of a function that returns at once, less the call itself; medians of rounds
that are interleaved. Promised: at most 1.2 us; and 8 threads whose calls take 50 ms are done in
60 ms, which they are not where a lock is held meanwhile.
"""

import threading
import time
from collections.abc import Callable
from typing import Any

from ratekit import CircuitBreaker
from tests.benchmarks.measure import (
    Finding,
    Settings,
    installed,
    interleave,
    middle,
    peer,
    print_table,
)

__all__ = ["run"]

_PAUSE = 0.05


def _work() -> int:
    return 1


def _subjects() -> dict[str, Callable[[], Any]]:
    subjects: dict[str, Callable[[], Any]] = {
        "bare": _work,
        "ratekit": CircuitBreaker()(_work),
        "ratekit, with slow=": CircuitBreaker(slow=60)(_work),
    }
    if installed("circuitbreaker"):
        subjects["circuitbreaker"] = peer("circuitbreaker").circuit(_work)
    if installed("pybreaker"):
        subjects["pybreaker"] = peer("pybreaker").CircuitBreaker()(_work)
    return subjects


def _time(work: Callable[[], Any], calls: int) -> float:
    began = time.perf_counter()
    for _ in range(calls):
        work()
    return (time.perf_counter() - began) / calls * 1e6


def _together() -> float:
    work = CircuitBreaker()(lambda: time.sleep(_PAUSE))
    threads = [threading.Thread(target=work) for _ in range(8)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - began


def run(settings: Settings) -> list[Finding]:
    """Measure the breakers."""
    calls = settings.pick(20_000, 2_000)
    subjects = _subjects()
    times = interleave(
        {name: lambda work=work: _time(work, calls) for name, work in subjects.items()},  # type: ignore[misc]
        settings.pick(15, 5),
    )
    floor = middle(times["bare"])
    print_table(
        ["", "us", "over bare"],
        [
            [name, f"{middle(times[name]):.3f}", f"{middle(times[name]) - floor:+.3f}"]
            for name in subjects
        ],
    )
    together = middle(_together() for _ in range(5))
    print(f"8 threads, calls of 50 ms: {together * 1000:.1f} ms")
    return [
        Finding("closed, over the bare call", middle(times["ratekit"]) - floor, 1.2, unit=" us"),
        Finding("8 threads of 50 ms", together, 0.06, unit=" s"),
    ]
