"""Whether a limit keeps what it promises: random calls on a clock that only this benchmark moves.

Each seed is 400 calls at random instants, evenly or in bursts with pauses between, from half as
many as the limit allows to three times as many. Nine of ten ask (`check`), one waits (`acquire`).
They cost 1; under `5000/hour fixed` up to 200 with fractions, so that its periods are full after
some tens of calls. "Answered": each call is answered within a period (`permit`), and the server
counts it at a random instant before that.

"Exceeded": windows that saw more than was promised, counted from the instants alone and apart from
ratekit's code. For each single limit that is every window (t - period, t] which ends with a grant
(none of the others sees more than one of these); for `fixed` every period aligned to the epoch.

"Rate": the long run where somebody always waits. After a random beginning one thread does nothing
but `acquire`; measured from its first wait on, the permits of 6 periods over the time that the form
itself takes for them: one period for as many as a window has, and 1/0.99 of that for a bucket,
whose pace leaves 1 % unused. Of several limits the slowest decides. The least and the median of all
seeds.

"Asked": the same without anybody waiting. `check` at random instants, three times as many as the
limit allows; granted in 6 periods, over the grants of the exact form for the same instants (a log
of every grant, a bucket in floats, a counter).

Promised: no window exceeded; a rate of at least 98 %.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from heapq import heappop, heappush
from random import Random
from typing import NamedTuple

from ratekit import MemoryStore, RateLimiter
from ratekit.clock import SECOND
from ratekit.errors import RateLimited
from ratekit.testing import FakeClock
from tests.benchmarks.exact import Exact, Promise, exceeded
from tests.benchmarks.measure import Finding, Settings, hush, middle, print_table

__all__ = ["run"]

_CALLS = 400
_BEGINNING = 60
_PERIODS = 6
_MOST = 200
"""The largest cost under a large limit; half of it is the mean."""

Block = AbstractContextManager[object]


class Subject(NamedTuple):
    """A limit's text, what it promises, and how it is called."""

    text: str
    promises: tuple[Promise, ...]
    large: bool = False
    answered: bool = False

    @property
    def slowest(self) -> Promise:
        """The promise that decides the long run."""
        return min(self.promises, key=lambda promise: promise.pace)

    @property
    def mean(self) -> float:
        """The mean cost."""
        return _MOST / 2 if self.large else 1

    def cost(self, random: Random) -> float:
        """Return the cost of a call, in quarters: sums of them are exact."""
        return random.randint(1, 4 * _MOST) / 4 if self.large else 1

    def gaps(self, random: Random, load: float) -> Iterator[int]:
        """Yield nanoseconds between calls, for `load` times what the limit allows."""
        mean = SECOND * self.mean / (self.slowest.pace * load)
        bursts = random.random() < 0.5
        while True:
            gap = mean
            if bursts:
                # Of twenty, one comes after a long pause and the others close together.
                gap = 19 * mean if random.random() < 0.05 else mean / 19
            yield int(random.expovariate(1 / gap))


_WINDOW = Promise(100, 60, "window")
_SUBJECTS = (
    Subject("5/second", (Promise(5, 1),)),
    Subject("60/minute", (Promise(60, 60),)),
    Subject("300/15 minutes; 10/second", (Promise(300, 900), Promise(10, 1))),
    Subject("5000/hour fixed", (Promise(5000, 3600, "fixed"),), large=True),
    Subject("100/minute window", (_WINDOW,)),
    Subject("100/minute window; 10/second window", (_WINDOW, Promise(10, 1, "window"))),
    Subject("100/minute window", (_WINDOW,), answered=True),
)


def _limiter(subject: Subject, random: Random) -> tuple[RateLimiter, FakeClock]:
    clock = FakeClock(random.uniform(1e6, 2e6))
    return RateLimiter(subject.text, store=MemoryStore(clock=clock)), clock


def _call(subject: Subject, seed: int) -> tuple[int, int]:
    """Make a seed's calls; return how many windows there were, and how many were exceeded."""
    random = Random(seed)
    limiter, clock = _limiter(subject, random)
    gaps = subject.gaps(random, random.uniform(0.5, 3))
    grants = []
    for _ in range(_CALLS):
        clock.advance_ns(next(gaps))
        cost = subject.cost(random)
        if random.random() < 0.1:
            limiter.acquire("k", cost)
        elif not limiter.check("k", cost):
            continue
        grants.append((clock.now_ns(), cost))
    return exceeded(subject.promises, grants)


def _answer(subject: Subject, seed: int) -> tuple[int, int]:
    """Do the same with calls that are under way for a while."""
    random = Random(seed)
    limiter, clock = _limiter(subject, random)
    gaps = subject.gaps(random, random.uniform(0.5, 3))
    longest = random.choice((0.001, 0.1, 1)) * subject.slowest.period_ns
    under_way: list[tuple[int, int, Block]] = []
    counted: list[tuple[int, float]] = []
    for number in range(_CALLS):
        then = clock.now_ns() + next(gaps)
        while under_way and under_way[0][0] <= then:
            at, _, block = heappop(under_way)
            clock.advance_ns(at - clock.now_ns())
            block.__exit__(None, None, None)
        clock.advance_ns(then - clock.now_ns())
        block = limiter.permit("k", max_wait=0)
        try:
            block.__enter__()
        except RateLimited:
            continue
        took = int(random.random() * longest)
        heappush(under_way, (then + took, number, block))
        counted.append((then + random.randint(0, took), 1))
    return exceeded(subject.promises, sorted(counted))


def _rate(subject: Subject, seed: int) -> float:
    """Return the long run's rate over the form's own, where somebody always waits."""
    random = Random(seed)
    limiter, clock = _limiter(subject, random)
    gaps = subject.gaps(random, random.uniform(0.5, 3))
    for _ in range(_BEGINNING):
        clock.advance_ns(next(gaps))
        limiter.check("k", subject.mean)
    asked = clock.now_ns()
    while clock.now_ns() == asked:
        limiter.acquire("k", subject.mean)
    began = clock.now_ns()
    number = round(_PERIODS * subject.slowest.permits / subject.mean)
    for _ in range(number):
        limiter.acquire("k", subject.mean)
    seconds = (clock.now_ns() - began) / SECOND
    return number * subject.mean / seconds / subject.slowest.pace


def _asked(subject: Subject, seed: int) -> float:
    """Return the grants over the exact form's, where nobody waits."""
    random = Random(seed)
    limiter, clock = _limiter(subject, random)
    exact = [Exact(promise) for promise in subject.promises]
    gaps = subject.gaps(random, 3)
    ours = theirs = 0.0
    for _ in range(round(_PERIODS * 3 * subject.slowest.permits / subject.mean)):
        clock.advance_ns(next(gaps))
        now = clock.now_ns()
        if limiter.check("k", subject.mean):
            ours += 1
        if all(one.fits(now, subject.mean) for one in exact):
            theirs += 1
            for one in exact:
                one.take(now, subject.mean)
    return ours / theirs


def run(settings: Settings) -> list[Finding]:
    """Call under each limit, seed after seed."""
    hush()
    seeds = settings.seeds or settings.pick(2000, 100)
    few = max(5, seeds // 20)
    rows = []
    findings = []
    for subject in _SUBJECTS:
        call = _answer if subject.answered else _call
        made = [call(subject, seed) for seed in range(seeds)]
        windows, over = map(sum, zip(*made, strict=True))
        name = f"{subject.text}, answered" if subject.answered else subject.text
        row = [name, str(windows), str(over)]
        findings.append(Finding(f"{name}: windows exceeded", over, 0))
        if subject.answered:
            row += [""] * 4
        else:
            rates = [_rate(subject, seed) for seed in range(few)]
            asked = [_asked(subject, seed) for seed in range(few)]
            row += [f"{figure:.4f}" for figure in (min(rates), middle(rates))]
            row += [f"{figure:.4f}" for figure in (min(asked), middle(asked))]
            findings.append(Finding(f"{name}: rate", 100 * min(rates), 98, "%", at_least=True))
        rows.append(row)
    print(f"{seeds} seeds, {few} for the rate; a rate is over that of the form itself")
    columns = [
        "", "windows", "exceeded", "rate: least", "median", "asked: least", "median",
    ]  # fmt: skip
    print_table(columns, rows)
    return findings
