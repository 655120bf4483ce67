"""Each rule of the loopback API server, step by step: at the instant and a nanosecond before."""

import math
from copy import deepcopy

import pytest

from ratekit.testing._rules import (
    Concurrency,
    FixedWindow,
    Rule,
    SlidingLog,
    TokenBucket,
    TwoWindowEstimate,
    WallClockWindow,
)

NS = 1e-9


class Wall:
    """A wall clock that a test sets."""

    def __init__(self, reading: float = 0.0) -> None:
        self.reading = reading

    def __call__(self) -> float:
        """Read it."""
        return self.reading


def never() -> float:
    """Stand in for a wall clock that is not to be read."""
    pytest.fail("it read the wall clock")


def after(rule: Rule, *instants: float) -> Rule:
    """Take once at each instant."""
    for instant in instants:
        rule.take(instant)
    return rule


def test_a_bucket_grants_its_burst_and_then_one_token_per_interval() -> None:
    """Full at first, then a token every 1/rate seconds; a refusal takes nothing."""
    bucket = TokenBucket(rate=4.0, burst=2)

    assert [bucket.take(10.0), bucket.take(10.0), bucket.take(10.0)] == [0.0, 0.0, 0.25]
    assert bucket.take(10.125) == 0.125
    assert bucket.take(10.25 - NS) > 0
    assert bucket.take(10.25) == 0.0
    assert bucket.take(10.25) == 0.25


def test_a_bucket_never_holds_more_than_its_burst() -> None:
    """Silence is not saved up."""
    bucket = after(TokenBucket(rate=4.0, burst=2), 0.0)

    assert [bucket.take(1000.0) for _ in range(3)] == [0.0, 0.0, 0.25]


def test_a_log_frees_each_place_one_window_after_it_was_taken() -> None:
    """In any window as many as promised; a refusal leaves no trace."""
    log = SlidingLog(2, 1.0)

    assert [log.take(10.0), log.take(10.25), log.take(10.5)] == [0.0, 0.0, 0.5]
    assert log.take(11.0 - NS) == pytest.approx(NS, rel=1e-6)
    assert [log.take(11.0), log.take(11.0)] == [0.0, 0.25]
    assert log.take(11.25 - NS) > 0
    assert [log.take(11.25), log.take(11.25)] == [0.0, 0.75]


def test_a_fixed_window_begins_with_its_first_request() -> None:
    """All of it may come at its end and all of the next right after, which is why it is gamed."""
    window = FixedWindow(2, 1.0)

    assert [window.take(10.25), window.take(11.0), window.take(11.0)] == [0.0, 0.0, 0.25]
    assert window.take(11.25 - NS) > 0
    assert [window.take(11.25), window.take(11.25), window.take(11.25)] == [0.0, 0.0, 1.0]
    assert [window.take(20.0), window.take(20.5), window.take(20.75)] == [0.0, 0.0, 0.25]


def test_a_wall_clock_window_ends_where_the_wall_clock_says() -> None:
    """Whatever the monotonic instant is, and whenever the first request came."""
    wall = Wall(100.75)
    window = WallClockWindow(2, 1.0, wall)

    assert [window.take(7.0), window.take(7.0), window.take(7.0)] == [0.0, 0.0, 0.25]
    wall.reading = 101.0 - NS
    assert window.take(7.0) > 0
    wall.reading = 101.0
    assert [window.take(7.0), window.take(7.0), window.take(7.0)] == [0.0, 0.0, 1.0]


def test_a_wall_clock_that_is_set_begins_another_window() -> None:
    """Forwards or backwards: a server counts under the name of the window."""
    wall = Wall(1000.0)
    window = WallClockWindow(1, 60.0, wall)

    assert [window.take(0.0), window.take(0.0)] == [0.0, 20.0]
    for reading in (5000.0, 900.0):
        wall.reading = reading
        assert window.take(0.0) == 0.0
        assert window.take(0.0) > 0


def test_a_wall_clock_window_is_waited_out_however_its_edge_is_rounded() -> None:
    """Three times 0.1 is not 0.3, and the edge that is told must be past the edge that is."""
    for number in range(1000):
        wall = Wall((number + 0.5) * 0.1)
        window = WallClockWindow(1, 0.1, wall)
        assert window.take(0.0) == 0.0
        wall.reading += window.take(0.0)
        assert wall.reading == pytest.approx((number + 1) * 0.1)
        assert window.take(0.0) == 0.0
        assert window.take(0.0) > 0


def test_an_estimate_weighs_the_last_period_by_what_is_left_of_this_one() -> None:
    """At the instant where it equals the limit it still refuses, and a nanosecond later not."""

    def full() -> Rule:
        """Have four in the first period, which began at 10, and none in the second."""
        return after(TwoWindowEstimate(4, 1.0, never, count_refusals=True), *[10.0] * 4)

    assert full().take(11.0) > 0
    assert full().take(11.0 + NS) == 0.0
    assert after(full(), 11.125).take(11.25) > 0
    assert after(full(), 11.125).take(11.25 + NS) == 0.0
    assert full().take(12.0) == 0.0  # the last period is forgotten


def test_a_refusal_counts_in_an_estimate() -> None:
    """Whoever keeps on asking keeps on being refused, and is told to wait for longer."""
    estimate = after(TwoWindowEstimate(4, 1.0, never, count_refusals=True), *[10.0] * 4)
    # Five in this period: the next begins with 5, and must fall below 4, which takes 1/5 of it.
    assert estimate.take(10.5) == pytest.approx(0.5 + 1 / 5, abs=1e-5)
    assert estimate.take(10.5) == pytest.approx(0.5 + 2 / 6, abs=1e-5)
    assert deepcopy(estimate).take(11 + 2 / 6 - 1e-5) > 0
    assert deepcopy(estimate).take(11 + 2 / 6 + 1e-5) == 0.0


def test_a_refusal_within_a_period_waits_for_the_last_one_to_fade() -> None:
    """As long as this period's own count leaves room."""
    estimate = after(TwoWindowEstimate(8, 1.0, never, count_refusals=True), *[10.0] * 8)
    # 8 x 0.75 left and 2 of this period are 8; the refusal makes it 3, so 8 x left must be below 5.
    after(estimate, 11.125, 11.25 - 1e-3)
    assert estimate.take(11.25 - 1e-3) == pytest.approx(0.125 + 1e-3, abs=1e-5)


def test_an_estimate_may_leave_refusals_out_and_lie_on_the_wall_clock() -> None:
    """The first period began before the first request, as its place on the wall clock says."""
    wall = Wall(1000.75)
    estimate = TwoWindowEstimate(4, 1.0, wall, count_refusals=False)
    assert [estimate.take(10.0) for _ in range(5)] == [
        0.0,
        0.0,
        0.0,
        0.0,
        pytest.approx(0.25, 1e-5),
    ]
    assert [estimate.take(10.0) > 0 for _ in range(100)] == [True] * 100
    assert deepcopy(estimate).take(10.25) > 0
    assert estimate.take(10.25 + NS) == 0.0
    assert estimate.take(10.25 + NS) == pytest.approx(0.25, abs=1e-5)


def test_a_period_begins_anew_after_a_silence() -> None:
    """With the first request, as the very first one did."""
    estimate = after(TwoWindowEstimate(1, 1.0, never, count_refusals=True), 10.0)
    assert estimate.take(12.5) == 0.0
    assert estimate.take(13.5) > 0
    estimate = after(TwoWindowEstimate(1, 1.0, never, count_refusals=True), 10.0, 12.5)
    assert estimate.take(13.5 + NS) == 0.0


def test_concurrency_frees_a_place_when_a_request_is_done() -> None:
    """Time changes nothing, and nobody knows when it will be."""
    places = Concurrency(2)

    assert [places.take(0.0), places.take(0.0), places.take(99.0)] == [0.0, 0.0, math.inf]
    places.done()
    assert [places.take(99.0), places.take(99.0)] == [0.0, math.inf]


def test_no_limit_is_the_rule_that_admits() -> None:
    """Everything, at once."""
    rule = Rule()
    assert [rule.take(0.0) for _ in range(1000)] == [0.0] * 1000
    rule.done()
