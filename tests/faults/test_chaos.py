"""A server in trouble, in random ways: every call ends, nothing leaks, everything recovers."""

import random

import pytest

from tests.faults.chaos import Job

SEEDS = 100


def test_a_minute_of_chaos_leaves_nothing_behind() -> None:
    """`python tests/benchmarks chaos` does it for thousands of seeds."""
    for seed in range(SEEDS):
        job = Job(seed)
        job.minute()
        job.recover()
        assert job.wrong() == [], f"seed {seed}"


@pytest.fixture(autouse=True)
def _as_before() -> object:
    """Leave the random numbers of other tests alone."""
    state = random.getstate()
    yield None
    random.setstate(state)
    return None
