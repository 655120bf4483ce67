"""How long an urgent call waits where others take all there is.

16 threads of priority 0 do nothing but acquire at 100/second. One more thread makes 60 calls of
priority 10, at random moments 50 to 150 ms apart. Three turns; and for comparison one in which the
urgent calls have no priority either. The waits are measured around `acquire`, so they hold all that
the machine adds; how late threads of this process wake meanwhile is beside them, by one that does
nothing but sleep 10 ms and look at the clock.

"Lost" is what the 16 threads did not get of the pace (99 a second, as ratekit leaves 1 % of the
server's rate unused) less what the urgent calls took: 1 - grants / (pace x seconds - urgent calls).
Jain's index is 1 for equal shares.

Promised: the longest wait is at most one permit's time (1/99 s) and 5 ms, and the others lose less
than 1 % beside the urgent permits.
"""

import threading
import time
from random import Random
from typing import NamedTuple

from ratekit import RateLimiter
from tests.benchmarks.measure import Finding, Settings, load, middle, print_table

__all__ = ["run"]

_THREADS = 16
_PACE = 99
_PERMIT_MS = 1000 / _PACE
_MARGIN_MS = 5
_PRIORITY = 10
_NAP = 0.01


class Turn(NamedTuple):
    """Milliseconds of each urgent wait and of each late waking, and the others' grants."""

    waits: list[float]
    lates: list[float]
    grants: list[int]
    seconds: float

    @property
    def lost(self) -> float:
        """The share that the others missed."""
        return 1 - sum(self.grants) / (_PACE * self.seconds - len(self.waits))

    @property
    def fairness(self) -> float:
        """Jain's index of the others' shares."""
        squares = sum(grants * grants for grants in self.grants)
        return sum(self.grants) ** 2 / (len(self.grants) * squares)


def _turn(calls: int, priority: int, seed: int) -> Turn:
    limiter = RateLimiter("100/second")
    random = Random(seed)
    over = threading.Event()
    stamps: list[list[float]] = [[] for _ in range(_THREADS)]
    lates: list[float] = []

    def work(mine: list[float]) -> None:
        while not over.is_set():
            limiter.acquire("k")
            mine.append(time.perf_counter())

    def sleep() -> None:
        while not over.is_set():
            began = time.perf_counter()
            time.sleep(_NAP)
            lates.append(1000 * (time.perf_counter() - began - _NAP))

    threads = [threading.Thread(target=work, args=(mine,)) for mine in stamps]
    threads.append(threading.Thread(target=sleep))
    for thread in threads:
        thread.start()
    # Until the line stands, an urgent call is one of seventeen that come at once.
    time.sleep(0.3)
    began = time.perf_counter()
    waits = []
    for _ in range(calls):
        time.sleep(random.uniform(0.05, 0.15))
        asked = time.perf_counter()
        limiter.acquire("k", priority=priority)
        waits.append(1000 * (time.perf_counter() - asked))
    ended = time.perf_counter()
    over.set()
    for thread in threads:
        thread.join()
    grants = [sum(began < stamp <= ended for stamp in mine) for mine in stamps]
    return Turn(waits, lates, grants, ended - began)


def run(settings: Settings) -> list[Finding]:
    """Make urgent calls beside a crowd, and calls without priority beside the same."""
    calls = settings.pick(60, 15)
    turns = [_turn(calls, _PRIORITY, seed) for seed in range(settings.pick(3, 1))]
    plain = _turn(calls // 2, 0, 0)
    print(f"{_THREADS} threads take all of 100/second, {calls} urgent calls; load average {load()}")
    rows = [
        *(_row(f"priority {_PRIORITY}", number, turn) for number, turn in enumerate(turns, 1)),
        _row("no priority", 1, plain),
    ]
    columns = [
        "", "turn", "median ms", "longest ms", "late: median ms", "late: longest ms", "grants",
        "lost", "Jain",
    ]  # fmt: skip
    print_table(columns, rows)
    longest = max(max(turn.waits) for turn in turns)
    lost = max(turn.lost for turn in turns)
    fairness = min(turn.fairness for turn in turns)
    judged = not settings.quick
    return [
        Finding("longest urgent wait", longest, round(_PERMIT_MS + _MARGIN_MS, 1), "ms"),
        Finding("lost by the others", 100 * lost, 1, "%", judged=judged),
        Finding("the others: Jain's index", fairness, 0.99, at_least=True, judged=judged),
    ]


def _row(what: str, number: int, turn: Turn) -> list[str]:
    return [
        what,
        str(number),
        f"{middle(turn.waits):.1f}",
        f"{max(turn.waits):.1f}",
        f"{middle(turn.lates):.2f}",
        f"{max(turn.lates):.2f}",
        str(sum(turn.grants)),
        f"{turn.lost:.2%}",
        f"{turn.fairness:.4f}",
    ]
