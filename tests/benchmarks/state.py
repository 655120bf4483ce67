"""What is kept: of one key under a limit of a million an hour, and of a million keys in 10 000.

The first: `1000000/hour window` is granted a million permits at random instants of a clock that
only this benchmark moves, in two hours, so that half of them are freed again; evenly and in bursts.
And again with `permit`, each of which is answered at a random instant up to 2 seconds later, in any
order. "Integers" is the most that the state held at any instant, and so many times 8 bytes what
they come to. "Record" is what the limiter's dictionary holds for the key, by the `sys.getsizeof` of
all objects in it that are the key's own (tuples, arrays, integers), at its largest. And by what
tracemalloc sees: 1000 keys of that limiter, each with as large a state as 200 grants of up to
33 334 permits make it, with their entries in the dictionary and their own text.

The second: a million keys are asked for, one call each, through a `MemoryStore(max_keys=10_000)`,
while 400 others are asked for again and again: half of them had a state of their own before all
were taken, the others come when they have to share one. In nine of ten parts the keys come so fast
that all of them bind, in the tenth so slowly that most are idle. "Peak" is the traced memory of the
limiter with its store, at its highest; the keys' own text is in it. "Beyond" is how many of the 400
were granted more than their limit in any 60 seconds, counted over all windows.

Promised: at most 1 KiB; the peak of a million keys at most a quarter above that of the first
hundred thousand; nobody beyond the limit.
"""

import gc
import sys
import tracemalloc
from collections import deque
from contextlib import AbstractContextManager
from heapq import heappop, heappush
from random import Random
from typing import Any, NamedTuple

from ratekit import MemoryStore, RateLimiter
from ratekit.clock import SECOND
from ratekit.testing import FakeClock
from tests.benchmarks.measure import Finding, Settings, hush, print_table

__all__ = ["run"]

_LIMIT = "1000000/hour window"
_PERIOD_NS = 3600 * SECOND
_ANSWERED_NS = 2 * SECOND
_TRACED = 1000
_MOST = 1024

_ROOM = 10_000
_PER_MINUTE = 10
_ASKED_AGAIN = 400


Block = AbstractContextManager[object]


class Kept(NamedTuple):
    """What a limiter kept for one key."""

    granted: int
    integers: int
    sized: int


class _Key:
    """One key of a limiter that is asked for permits at random instants."""

    def __init__(self, random: Random, *, answers: bool) -> None:
        self._random = random
        self._answers = answers
        self._clock = FakeClock()
        self._limiter = RateLimiter(_LIMIT, store=MemoryStore(clock=self._clock))
        self._open: list[tuple[int, int, Block]] = []
        self._number = 0

    @property
    def record(self) -> Any:
        """What the limiter keeps for the key."""
        return self._limiter._space._states["k"]

    def ask(self, gap_ns: int) -> bool:
        """Answer what is to be answered until then, and ask once more; return whether it went."""
        clock = self._clock
        then = clock.now_ns() + gap_ns
        while self._open and self._open[0][0] <= then:
            at, _, block = heappop(self._open)
            clock.advance_ns(at - clock.now_ns())
            block.__exit__(None, None, None)
        clock.advance_ns(then - clock.now_ns())
        if not self._answers:
            return bool(self._limiter.check("k"))
        block = self._limiter.permit("k", max_wait=0)
        block.__enter__()
        self._number += 1
        answered = then + self._random.randrange(_ANSWERED_NS)
        heappush(self._open, (answered, self._number, block))
        return True


def _gap_ns(random: Random, mean: float, *, bursts: bool) -> int:
    if bursts:
        # Of a hundred, one comes after a long pause and the others close together.
        mean = 90.1 * mean if random.random() < 0.01 else mean / 10
    return int(random.expovariate(1 / mean))


def _keep(count: int, *, bursts: bool, answers: bool) -> Kept:
    random = Random(20)
    key = _Key(random, answers=answers)
    granted = integers = sized = 0
    for number in range(count):
        granted += key.ask(_gap_ns(random, 2 * _PERIOD_NS / count, bursts=bursts))
        if number % 20 == 0:
            integers = max(integers, _integers(key.record))
            sized = max(sized, _sized(key.record))
    return Kept(granted, integers, sized)


def _traced() -> float:
    """Return the bytes of a key whose state is as large as it gets."""
    random = Random(23)
    clock = FakeClock()
    gc.collect()
    tracemalloc.start()
    limiter = RateLimiter(_LIMIT, store=MemoryStore(clock=clock))
    limiter.check("another")
    before = tracemalloc.get_traced_memory()[0]
    for number in range(_TRACED):
        key = f"customer:{number:04}"
        for _ in range(200):
            clock.advance_ns(random.randrange(_PERIOD_NS // 50))
            limiter.check(key, cost=random.randint(1, 33_334))
    gc.collect()
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return (after - before) / _TRACED


def _integers(kept: Any) -> int:
    """Return how many integers there are in a record, and in its parts."""
    if callable(kept):
        return 0
    return 1 if isinstance(kept, int) else sum(map(_integers, kept))


def _sized(kept: Any) -> int:
    """Return the bytes of a record's own objects: tuples, arrays and integers, all the way down."""
    size = 0 if callable(kept) else sys.getsizeof(kept)
    return size + (sum(map(_sized, kept)) if isinstance(kept, tuple) else 0)


class Crowd(NamedTuple):
    """What became of many keys in little room."""

    peaks: dict[int, int]
    refused: int
    granted: int
    beyond: int


def _crowd(limit: str, idle_ns: int, count: int) -> Crowd:
    clock = FakeClock()
    random = Random(22)
    sample = [f"sample:{number:03}" for number in range(_ASKED_AGAIN)]
    # Of each key the grants of the last minute, and the most that there ever were.
    grants: dict[str, deque[int]] = {key: deque() for key in sample}
    most = dict.fromkeys(sample, 0)
    granted = 0
    peaks = {}
    refused = 0
    tracemalloc.start()
    limiter = RateLimiter(limit, store=MemoryStore(max_keys=_ROOM, clock=clock))

    def ask_again(keys: list[str]) -> None:
        nonlocal granted
        now = clock.now_ns()
        for key in keys:
            if limiter.check(key):
                granted += 1
                stamps = grants[key]
                stamps.append(now)
                while stamps[0] <= now - 60 * SECOND:
                    stamps.popleft()
                most[key] = max(most[key], len(stamps))

    early, late = sample[: _ASKED_AGAIN // 2], sample[_ASKED_AGAIN // 2 :]
    ask_again(early)
    for number in range(count):
        fast = number % (count // 10) < 9 * count // 100
        clock.advance_ns(SECOND // 10_000 if fast else idle_ns // (_ROOM // 3))
        refused += not limiter.check(f"customer:{number:07}")
        if number % 50 == 0:
            ask_again(random.sample(early, 5))
            if number > _ROOM:
                ask_again(random.sample(late, 5))
        if (number + 1) % (count // 10) == 0:
            peaks[number + 1] = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return Crowd(peaks, refused, granted, sum(each > _PER_MINUTE for each in most.values()))


def run(settings: Settings) -> list[Finding]:
    """Weigh one key after a million grants, and a million keys."""
    return [*_one_key(settings.pick(1_000_000, 100_000)), *_many_keys(settings.pick(10, 1))]


def _one_key(count: int) -> list[Finding]:
    kept = {
        "check, evenly": _keep(count, bursts=False, answers=False),
        "check, in bursts": _keep(count, bursts=True, answers=False),
        "permit, answered, in bursts": _keep(count, bursts=True, answers=True),
    }
    traced = _traced()
    print(f"one key under {_LIMIT}, {count} random instants")
    rows = [
        [name, *map(str, (one.granted, one.integers, 8 * one.integers, one.sized))]
        for name, one in kept.items()
    ]
    print_table(["", "granted", "integers", "x 8 bytes", "record"], rows)
    print(f"traced, each of {_TRACED} keys of the largest state: {traced:.0f} bytes")
    return [
        Finding("bytes of a key's record", max(one.sized for one in kept.values()), _MOST, "B"),
        Finding("bytes of a key, traced", traced, _MOST, "B"),
        Finding(
            "bytes as 8-byte integers", 8 * max(one.integers for one in kept.values()), _MOST, "B"
        ),
    ]


def _many_keys(tenths: int) -> list[Finding]:
    count = 100_000 * tenths
    # With the time after which a key that was granted one permit is idle.
    limits = {
        f"{_PER_MINUTE}/minute": 60 * SECOND // _PER_MINUTE,
        f"{_PER_MINUTE}/minute window": 60 * SECOND,
    }
    hush()
    crowds = {limit: _crowd(limit, idle_ns, count) for limit, idle_ns in limits.items()}
    print(f"\n{count} keys through MemoryStore(max_keys={_ROOM}), and {_ASKED_AGAIN} asked again")
    rows, findings = [], []
    for limit, crowd in crowds.items():
        first, last = min(crowd.peaks), max(crowd.peaks)
        rows.append([
            limit,
            str(crowd.refused),
            f"{crowd.peaks[first] / 1e6:.2f}",
            f"{crowd.peaks[last] / 1e6:.2f}",
            str(crowd.granted),
            str(crowd.beyond),
        ])  # fmt: skip
        growth = crowd.peaks[last] / crowd.peaks[first]
        findings += [
            Finding(f"{limit}: peak / peak of the first tenth", growth, 1.25),
            Finding(f"{limit}: keys beyond their limit", crowd.beyond, 0),
        ]
    columns = ["", "refused", "peak MB, a tenth", "peak MB, all", "granted to the 400", "beyond"]
    print_table(columns, rows)
    return findings
