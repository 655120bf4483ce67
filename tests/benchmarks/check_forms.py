"""What one permit costs where the limit is a window, or where there are two.

Every library that has the form takes its turn in every round, a block of calls each, in CPU time of
the calling thread, as in `check`. The first five are never refused, as there: at most ten thousand
calls, because a log of every grant grows without end under such a limit, and would measure that.
The last two are what a window is like in use: 1000 a second, of which one is taken every 1.1 ms, so
that each call finds some 900 grants in the last second, and as many of them end as begin. There
each call is timed by itself, and the time of timing nothing taken off.

Promised: faster than every other library with the same form.
"""

import time
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

from tests.benchmarks.forms import FORMS
from tests.benchmarks.limiters import Check, Terms
from tests.benchmarks.measure import Finding, Settings, interleave, load, middle, print_table

__all__ = ["run"]

_ENDLESS = Terms(1_000_000_000, 1, 1_000_000)
_ENDLESS_TOO = Terms(60_000_000_000, 60, 2_000_000)
_CALLS = 100
_BUSY = Terms(1000, 1, 1000)
_BUSY_TOO = Terms(58_000, 60, 58_000)
_TICK = 1 / 900
_NOTHING = "nothing"


class Case(NamedTuple):
    """What was measured of one form: each library's blocks, and how many calls were refused."""

    name: str
    blocks: dict[str, list[float]]
    refused: dict[str, int]


def _block(check: Check, calls: int, refused: list[int]) -> float:
    """Return the nanoseconds of one call, of `calls` of them."""
    answers = []
    began = time.thread_time_ns()
    for _ in range(calls):
        answers.append(check("k"))  # noqa: PERF401 (the same for all, and as a user calls it)
    spent = time.thread_time_ns() - began
    refused.append(sum(not answer for answer in answers))
    return spent / calls


def _never_refused(settings: Settings) -> Iterator[Case]:
    single, double = (_ENDLESS,), (_ENDLESS, _ENDLESS_TOO)
    for name, form, several in (
        ("window", "window", single),
        ("fixed", "fixed", single),
        ("bucket; bucket", "bucket", double),
        ("window; window", "window", double),
        ("fixed; fixed", "fixed", double),
    ):
        refused: dict[str, list[int]] = {library: [] for library in FORMS[form]}
        blocks = interleave(
            {
                library: partial(_block, build(several), _CALLS, refused[library])
                for library, build in FORMS[form].items()
            },
            settings.pick(100, 20),
        )
        yield Case(name, blocks, {library: sum(each) for library, each in refused.items()})


def _in_use(settings: Settings) -> Iterator[Case]:
    """Take a permit of every limiter, at a pace that is just below the limit."""
    for name, several in (
        ("window, in use", (_BUSY,)),
        ("window; window, in use", (_BUSY, _BUSY_TOO)),
    ):
        checks: dict[str, Check] = {
            library: build(several) for library, build in FORMS["window"].items()
        }
        checks[_NOTHING] = bool
        order = list(checks)
        blocks: dict[str, list[float]] = {library: [] for library in order}
        refused: dict[str, list[int]] = {library: [] for library in order}
        # The first 1.2 seconds fill the windows.
        for turn in range(-1080, settings.pick(4500, 900)):
            began = time.monotonic()
            start = turn % len(order)
            for library in order[start:] + order[:start]:
                figure = _block(checks[library], 1, refused[library])
                if turn >= 0:
                    blocks[library].append(figure)
            time.sleep(max(0.0, began + _TICK - time.monotonic()))
        nothing = middle(blocks.pop(_NOTHING))
        yield Case(
            name,
            {library: [figure - nothing for figure in each] for library, each in blocks.items()},
            {library: sum(each) for library, each in refused.items()},
        )


def run(settings: Settings) -> list[Finding]:
    """Time `check` of every limiter of every form."""
    cases = [*_never_refused(settings), *_in_use(settings)]
    print(f"\nwindows, and two limits; load average {load()}")
    rows, findings = [], []
    for name, blocks, refused in cases:
        ours = middle(blocks["ratekit"])
        for library in sorted(blocks, key=lambda library: middle(blocks[library])):
            median = middle(blocks[library])
            rows.append([
                name,
                library,
                f"{min(blocks[library]):.0f}",
                f"{median:.0f}",
                f"{median / ours:.2f}",
                str(refused[library]),
            ])  # fmt: skip
        others = {library: middle(each) for library, each in blocks.items() if library != "ratekit"}
        if others:
            best = min(others, key=lambda library: others[library])
            what = f"{name}: fastest peer ({best}) / ratekit"
            findings.append(Finding(what, others[best] / ours, 1, at_least=True))
    print_table(["", "", "min ns", "median ns", "x ratekit", "refused"], rows)
    return findings
