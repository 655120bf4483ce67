"""What every benchmark needs: whom it runs on, turns taken side by side, a table, a verdict.

Figures of two libraries are comparable only when both met the same noise. So subjects are never
measured one after the other: each round gives every subject a turn, in an order that changes.
"""

import importlib
import importlib.metadata
import importlib.util
import logging
import os
import platform
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = [
    "Finding", "Settings", "hush", "installed", "interleave", "load", "middle", "peer",
    "print_header", "print_table",
]  # fmt: skip

_LIBRARIES = (
    "ratekit", "cachetools", "requests", "httpx", "httpx2", "urllib3", "pymemcache",
    "limits", "pyrate-limiter", "throttled-py", "nopanic", "requests-ratelimiter",
    "hishel", "CacheControl", "requests-cache",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the command line asked for.

    `quick`: figures that are rough, in a tenth of the time. `jobs` and `seeds` of `road`: GETs in
    a job, and jobs in a row, each with another pattern of failures.
    """

    quick: bool = False
    jobs: int | None = None
    seeds: int | None = None

    def pick(self, full: int, quick: int) -> int:
        """Return how many of something to do."""
        return quick if self.quick else full


@dataclass(frozen=True)
class Finding:
    """One promised figure: what was measured, and the bound it must keep.

    `judged` is False where the run was too short for the figure to mean anything.
    """

    what: str
    figure: float
    bound: float
    unit: str = ""
    at_least: bool = False
    judged: bool = True

    @property
    def kept(self) -> bool:
        """Whether the figure is on the right side of the bound."""
        return self.figure >= self.bound if self.at_least else self.figure <= self.bound

    def row(self) -> list[str]:
        """Return the line of a table."""
        sign = ">=" if self.at_least else "<="
        verdict = ("kept" if self.kept else "MISSED") if self.judged else "too short a run"
        figure, bound = f"{self.figure:.4g} {self.unit}", f"{sign} {self.bound:g} {self.unit}"
        return [self.what, figure, bound, verdict]


def installed(module: str) -> bool:
    """Return whether another library is here to be measured."""
    return importlib.util.find_spec(module) is not None


def peer(module: str) -> Any:
    """Return a module of another library: of any type, because not every environment has it."""
    return importlib.import_module(module)


def interleave(subjects: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Give each subject a turn in each round, and return what its turns returned.

    The order moves on by one each round, and a first round warms up and does not count.
    """
    names = list(subjects)
    figures: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(-1, rounds):
        start = turn % len(names)
        for name in names[start:] + names[:start]:
            figure = subjects[name]()
            if turn >= 0:
                figures[name].append(figure)
    return figures


def middle(figures: Iterable[float]) -> float:
    """Return the median."""
    return statistics.median(figures)


def hush() -> None:
    """Print no warning of ratekit's: here long waits and full stores are what is measured."""
    logging.getLogger("ratekit").addHandler(logging.NullHandler())


def print_header() -> None:
    """Say on what machine, under what load and with which versions the figures were made."""
    print(f"{platform.python_implementation()} {platform.python_version()}, {platform.platform()}")
    print(f"{os.cpu_count()} CPUs, load average {load()}")
    print(", ".join(f"{name} {_version(name)}" for name in _LIBRARIES))


def load() -> str:
    """Return the load averages of the last 1, 5 and 15 minutes."""
    if not hasattr(os, "getloadavg"):
        return "unknown"
    return " ".join(f"{average:.2f}" for average in os.getloadavg())


def _version(library: str) -> str:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return "of this checkout" if installed(library) else "not installed"


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows under their columns: names to the left, figures to the right.

    Columns without a heading hold names, up to the first that has one.
    """
    names = next((at for at, column in enumerate(columns) if column), len(columns))
    lines = [list(columns), *map(list, rows)]
    widths = [max(len(line[at]) for line in lines) for at in range(len(columns))]
    lines.insert(1, ["-" * width for width in widths])
    for line in lines:
        cells = [
            cell.ljust(width) if at < names else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        print("  ".join(cells).rstrip())
