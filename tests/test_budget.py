"""The retry budget as pure functions of a record."""

import pytest

from ratekit import ConfigurationError, RetryBudget
from ratekit.budget import Record

SECOND = 1_000_000_000


def spend(
    budget: RetryBudget, record: Record | None, now: int, calls: int = 0
) -> tuple[Record, int]:
    """Spend until nothing is left; return the record and how many retries that were."""
    retries = 0
    while True:
        record, allowed = budget.spend(record, now, calls)
        if not allowed:
            return record, retries
        retries, calls = retries + 1, 0


def test_the_floor_is_there_at_first_and_then_nothing() -> None:
    """Ten retries without a single earned one."""
    assert spend(RetryBudget(), None, 0)[1] == 10


def test_time_refills_up_to_the_floor_and_no_further() -> None:
    """A client with little traffic may always retry a little."""
    budget = RetryBudget()
    record, _ = spend(budget, None, 0)
    assert spend(budget, record, SECOND - 1)[1] == 0
    assert spend(budget, record, SECOND)[1] == 1
    assert spend(budget, record, 3600 * SECOND)[1] == 10


@pytest.mark.parametrize("calls", [100, 1000, 100_000])
def test_retries_are_a_tenth_of_the_calls_plus_the_floor(calls: int) -> None:
    """However long an outage lasts, and never more than the cap at once."""
    budget = RetryBudget(per_second=0)
    assert spend(budget, None, 0, calls)[1] == min(500, 10 + calls // 10)


def test_calls_count_however_they_are_divided_among_retries() -> None:
    """What was earned is kept when it is not enough for a retry yet."""
    budget = RetryBudget(per_second=0)
    record, _ = spend(budget, None, 0)
    for _ in range(9):
        record, allowed = budget.spend(record, 0, 1)
        assert not allowed
    assert budget.spend(record, 0, 1)[1]


def test_a_record_is_idle_when_it_says_no_more_than_an_absent_one() -> None:
    """At the floor again, to the instant: dropping it then loosens nothing."""
    budget = RetryBudget()
    record, _ = budget.spend(None, 0)
    assert budget.idle_at(record) == SECOND
    assert budget._left(record, SECOND) == budget._left(None, SECOND)
    assert budget._left(record, SECOND - 1) < budget._left(None, 0)


@pytest.mark.parametrize("name", ["ratio", "floor", "per_second", "cap"])
@pytest.mark.parametrize("value", [-1, float("nan"), "1", True])
def test_what_is_no_number_is_refused(name: str, value: object) -> None:
    """The error names the field."""
    with pytest.raises(ConfigurationError, match=f"budget {name}"):
        RetryBudget(**{name: value})  # type: ignore[arg-type]


def test_a_cap_below_the_floor_is_refused() -> None:
    """It could never be reached."""
    with pytest.raises(ConfigurationError, match="use a larger cap"):
        RetryBudget(floor=10, cap=5)
