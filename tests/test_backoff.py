"""Back-off: how long each shape waits."""

import random
from collections.abc import Callable

import pytest

from ratekit import Backoff, ConfigurationError


def low(a: float, b: float) -> float:
    """The least that chance can give."""
    return a


def high(a: float, b: float) -> float:
    """The most that chance can give."""
    return b


@pytest.mark.parametrize(
    ("shape", "uniform", "expected"),
    [
        ("full", low, [0, 0, 0, 0, 0, 0, 0, 0]),
        ("full", high, [0.5, 1, 2, 4, 8, 16, 30, 30]),
        ("equal", low, [0.25, 0.5, 1, 2, 4, 8, 15, 15]),
        ("equal", high, [0.5, 1, 2, 4, 8, 16, 30, 30]),
        ("decorrelated", low, [0.5] * 8),
        ("decorrelated", high, [0.5, 1.5, 4.5, 13.5, 30, 30, 30, 30]),
        ("constant", high, [0.5] * 8),
    ],
)
def test_each_shape_keeps_its_bounds(
    shape: str, uniform: Callable[[float, float], float], expected: list[float]
) -> None:
    """At both ends of what chance can do, up to the cap."""
    backoff = Backoff(shape, base=0.5, cap=30, uniform=uniform)
    last, delays = 0.0, []
    for failures in range(1, 9):
        last = backoff(failures, last)
        delays.append(last)
    assert delays == expected


@pytest.mark.parametrize("shape", ["full", "equal", "decorrelated", "constant"])
def test_no_number_of_failures_overflows(shape: str) -> None:
    """The millionth failure waits the cap at the most."""
    backoff = Backoff(shape, uniform=random.Random(1).uniform)
    assert 0 <= backoff(1_000_000, 30.0) <= 30.0


def test_the_default_is_full_jitter() -> None:
    """Which makes contending clients do the least work."""
    assert (Backoff().shape, Backoff().base, Backoff().cap) == ("full", 0.5, 30.0)


def test_full_jitter_spreads_evenly() -> None:
    """Not all at one time: the mean of many is half the most."""
    backoff = Backoff(uniform=random.Random(7).uniform)
    delays = [backoff(3, 0.0) for _ in range(4000)]
    assert sum(delays) / len(delays) == pytest.approx(1.0, rel=0.05)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shape": "fibonacci"}, "use one of full, equal, decorrelated, constant"),
        ({"base": -1}, "backoff base -1: use seconds"),
        ({"cap": float("nan")}, "backoff cap nan: use seconds"),
        ({"base": 10, "cap": 5}, "below the base"),
    ],
)
def test_what_can_not_be_is_refused(arguments: dict[str, object], message: str) -> None:
    """The error names the value and the remedy."""
    with pytest.raises(ConfigurationError, match=message):
        Backoff(**arguments)  # type: ignore[arg-type]
