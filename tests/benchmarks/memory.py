"""What a key costs: bytes of memory for each of 100 000 keys under a limit of 1000 an hour.

Every limiter is measured twice, each time in a fresh process: once by what Python allocated
(tracemalloc), once by what the process occupies (resident set size). The keys themselves are made
before and excluded, because the caller has them anyway; the last column includes them.

Promised: at most 150 bytes a key.
"""

import gc
import multiprocessing
import os
import tracemalloc
from pathlib import Path

from tests.benchmarks.limiters import KEYED, Terms
from tests.benchmarks.measure import Finding, Settings, load, print_table

__all__ = ["run"]

_KEYS = 100_000
_HOURLY = Terms(1000, 3600, 1000)
_PAGES = Path("/proc/self/statm")


def _resident() -> int:
    """Return the bytes that this process occupies, 0 where the system does not say."""
    if not _PAGES.exists():
        return 0
    return int(_PAGES.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _traced() -> int:
    return tracemalloc.get_traced_memory()[0]


def _weigh(name: str, count: int, way: str) -> tuple[float, float]:
    """Return bytes a key without and with the keys themselves; run in a process of its own."""
    size = {"traced": _traced, "resident": _resident}[way]
    check = KEYED[name](_HOURLY)
    for number in range(50):
        check(f"warm:{number}")
    gc.collect()
    if size is _traced:
        tracemalloc.start()
    empty = size()
    keys = [f"customer:{number:06}" for number in range(count)]
    gc.collect()
    before = size()
    for key in keys:
        check(key)
    gc.collect()
    after = size()
    return (after - before) / count, (after - empty) / count


def run(settings: Settings) -> list[Finding]:
    """Weigh the keys of every limiter."""
    count = settings.pick(_KEYS, _KEYS // 5)
    turns = [(name, count, way) for name in KEYED for way in ("traced", "resident")]
    # One turn to a process: nothing of another limiter, or of tracing, is in it.
    with multiprocessing.get_context("spawn").Pool(2, maxtasksperchild=1) as pool:
        weights = dict(zip(turns, pool.starmap(_weigh, turns, chunksize=1), strict=True))
    print(f"{count} keys, 1000/hour, bytes a key; load average {load()}")
    rows = []
    for name in sorted(KEYED, key=lambda name: weights[name, count, "traced"]):
        (bare, whole), (resident, _) = (
            weights[name, count, "traced"],
            weights[name, count, "resident"],
        )
        rows.append([name, f"{bare:.0f}", f"{resident:.0f}", f"{whole:.0f}"])
    print_table(["", "traced", "resident", "traced, with the key"], rows)
    return [
        Finding("bytes a key, traced", weights["ratekit", count, "traced"][0], 150, "B"),
        Finding("bytes a key, resident", weights["ratekit", count, "resident"][0], 150, "B"),
    ]
