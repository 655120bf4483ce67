"""The bucket forms as a pure function: every promise at its instant and a nanosecond before."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratekit import ConfigurationError, Limit, MemoryStore, RateLimiter
from ratekit.limits.gcra import Bucket, bucket_of
from ratekit.testing import FakeClock
from tests.limits.lines import bucket

SECOND = 1_000_000_000


def bucket_in(limiter: RateLimiter) -> Bucket:
    """Return the one bucket that a limiter keeps."""
    rule = limiter._default.rule
    assert isinstance(rule, Bucket)
    return rule


FORMS = [
    "1/second",
    "5/second",
    "60/minute",
    "100/minute",
    "7/3 seconds",
    "5000/hour",
    "100/second burst 20",
    "60/minute burst 60",
    "10/second smooth",
    "1000/minute smooth",
]


@pytest.mark.parametrize(
    ("text", "headroom", "per_period", "burst"),
    [
        ("100/minute", 0.99, 99, 1),
        ("100/minute", 0.9, 90, 10),
        ("1000/minute", 0.99, 990, 10),
        ("100/minute", 1.0, 100, 1),
        ("5/second", 0.99, 4.95, 1),
        ("1/second", 0.99, 0.99, 1),
        ("100/second burst 20", 0.99, 99, 20),
        ("100/second burst 20", 1.0, 100, 20),
        ("100/minute smooth", 0.99, 99, 1),
    ],
)
def test_headroom_is_taken_from_the_pace(
    text: str, headroom: float, per_period: float, burst: int
) -> None:
    """The pace is headroom times the limit; the default form bursts what that leaves over."""
    limit = Limit.parse(text)
    rule = bucket_of(limit, headroom)
    assert rule.burst == burst
    assert rule.interval_ns == pytest.approx(limit.period_ns / per_period, abs=1)
    assert rule.interval_ns * per_period >= limit.period_ns


@pytest.mark.parametrize("headroom", [0, -0.5, 1.01, float("nan"), True, "0.9"])
def test_headroom_that_is_no_share_is_refused(headroom: object) -> None:
    """More than everything, or nothing at all, can not be used of a limit."""
    with pytest.raises(ConfigurationError, match="use a number above 0, at most 1"):
        RateLimiter("10/second", headroom=headroom)  # type: ignore[arg-type]


@pytest.mark.parametrize("text", FORMS)
def test_the_next_permit_comes_at_the_promised_instant_and_not_a_nanosecond_before(
    text: str,
) -> None:
    """`retry_after` is exact: refused one nanosecond earlier, granted then."""
    clock = FakeClock()
    limiter = RateLimiter(text, store=MemoryStore(clock=clock))
    for _ in range(5):
        while (decision := limiter.check("k")).allowed:
            pass
        wait_ns = round(decision.retry_after * SECOND)
        assert 0 < wait_ns <= bucket_in(limiter).interval_ns
        clock.advance_ns(wait_ns - 1)
        assert not limiter.check("k")
        clock.advance_ns(1)
        assert limiter.check("k")


@pytest.mark.parametrize("text", FORMS)
@pytest.mark.parametrize("seed", range(40))
def test_no_window_of_the_promise_is_ever_exceeded_by_random_arrivals(text: str, seed: int) -> None:
    """However calls arrive, a period sees no more permits than its form promises."""
    chance = random.Random(f"{text} {seed}")
    clock = FakeClock()
    limiter = RateLimiter(text, store=MemoryStore(clock=clock))
    limit, rule = limiter.limits[0], bucket_in(limiter)
    granted: list[int] = []
    for _ in range(400):
        gap = chance.choice(
            (0, 0, 1, rule.interval_ns // 7, rule.interval_ns, limit.period_ns // 3)
        )
        clock.advance_ns(gap)
        if limiter.check("k"):
            granted.append(clock.now_ns())
    # The default form: no more than the limit in any period. A named burst: that much on top of
    # the pace. Smooth: the pace alone.
    for first, begin in enumerate(granted):
        inside = sum(1 for at in granted[first:] if at < begin + limit.period_ns)
        assert inside <= rule.burst + limit.period_ns // rule.interval_ns
        if limit.burst is None:
            assert inside <= limit.count


@pytest.mark.parametrize("text", FORMS)
def test_a_saturated_limit_reaches_its_pace(text: str) -> None:
    """Over a long run at full demand the whole pace is granted, rounding aside."""
    clock = FakeClock()
    limiter = RateLimiter(text, store=MemoryStore(clock=clock))
    granted = 0
    begin = clock.now_ns()
    while granted < 2000:
        decision = limiter.check("k")
        if decision:
            granted += 1
        else:
            clock.advance_ns(round(decision.retry_after * SECOND))
    periods = (clock.now_ns() - begin) / limiter.limits[0].period_ns
    assert granted - bucket_in(limiter).burst == pytest.approx(
        0.99 * limiter.limits[0].count * periods, rel=1e-3, abs=1
    )


@pytest.mark.parametrize("cost", [0, -1, -0.5, float("nan"), float("inf"), True, "2", None])
def test_a_cost_that_is_no_positive_number_is_refused(cost: object) -> None:
    """The error says what a cost is."""
    with pytest.raises(ConfigurationError, match="use a number above 0"):
        bucket(1000, 5).price(cost)  # type: ignore[arg-type]


def test_a_cost_above_the_burst_is_refused_as_impossible() -> None:
    """It would never be granted; the error says which limit would grant it."""
    limiter = RateLimiter("100/second burst 20")
    with pytest.raises(ConfigurationError, match=r"at most 20 at once.*'\.\.\. burst 21'"):
        limiter.check("k", cost=20.5)


def test_a_cost_takes_that_many_permits() -> None:
    """A cost of 5 leaves 15 of 20."""
    limiter = RateLimiter("100/second burst 20", store=MemoryStore(clock=FakeClock()))
    assert limiter.check("k", cost=5).remaining == 15
    assert not limiter.check("k", cost=16)
    assert limiter.check("k", cost=15).remaining == 0


def test_a_fraction_of_a_permit_is_charged_as_such_and_granted_when_a_whole_one_would_be() -> None:
    """Two halves are one permit, and a half is no way in before the next whole one."""
    clock = FakeClock()
    limiter = RateLimiter("1/second burst 1", headroom=1.0, store=MemoryStore(clock=clock))
    assert limiter.check("k", cost=0.5)
    assert not limiter.check("k", cost=0.5)
    clock.advance(0.5)
    assert limiter.check("k", cost=0.5)


@given(
    tat=st.integers(0, 10**20),
    price=st.integers(1, 10**12),
    late=st.integers(-(10**13), 10**13),
)
def test_what_is_given_back_is_never_more_than_was_taken(tat: int, price: int, late: int) -> None:
    """A returned permit never makes the bucket fuller than it would be without it."""
    end = tat + price
    now = end + late
    back = end - bucket(1, 1).unspend(end, end, 0, price, now)
    assert 0 <= back <= price
    # Without the permit the bucket would stand at max(tat, now); it is never made to stand lower.
    assert end - back >= min(end, max(tat, now))
