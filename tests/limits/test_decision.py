"""What a decision tells, and the headers that say it."""

import logging

import pytest

from ratekit import MemoryStore, RateLimiter
from ratekit.quota import retry_after
from ratekit.testing import FakeClock


def limiter_of(text: str, clock: FakeClock) -> RateLimiter:
    """Return a limiter on a clock that the test moves."""
    return RateLimiter(text, store=MemoryStore(clock=clock))


def test_a_window_says_when_more_than_what_is_left_can_be_used() -> None:
    """Half of the permits are free again before the other half."""
    clock = FakeClock()
    limiter = limiter_of("60/minute window", clock)
    assert limiter.peek().headers()["RateLimit"] == '"60/minute window";r=60;t=60'
    for _ in range(30):
        limiter.check()
    clock.advance(30)
    for _ in range(30):
        limiter.check()
    decision = limiter.check()
    assert (decision.remaining, decision.reset_after, decision.retry_after) == (0, 60.0, 30.0)
    assert decision.headers() == {
        "X-RateLimit-Limit": "60",
        "X-RateLimit-Remaining": "0",
        "X-RateLimit-Reset": "1000090",
        "RateLimit-Policy": '"60/minute window";q=60;w=60',
        "RateLimit": '"60/minute window";r=0;t=30',
        "Retry-After": "30",
    }


def test_a_bucket_and_a_fixed_window_say_the_same_of_themselves() -> None:
    """One permit a second, and a minute that ends in twenty seconds."""
    clock = FakeClock(start=40)
    bucket = limiter_of("1/second burst 3", clock)
    bucket.check()
    assert bucket.check().headers()["RateLimit"] == '"1/second burst 3";r=1;t=2'
    fixed = limiter_of("2/minute fixed", clock)
    assert fixed.check().headers()["RateLimit"] == '"2/minute fixed";r=1;t=20'
    fixed.check()
    assert fixed.check().headers()["Retry-After"] == "20"


@pytest.mark.parametrize("text", ["5/minute", "5/minute window", "5/minute window; 5/hour"])
def test_headers_know_of_a_hold(text: str) -> None:
    """A client that reads any of them does not come back too early."""
    clock = FakeClock()
    limiter = limiter_of(text, clock)
    limiter.hold("", 100)
    fields = limiter.check().headers()
    assert fields["X-RateLimit-Remaining"] == "0"
    assert int(fields["X-RateLimit-Reset"]) >= 1_000_100
    assert fields["Retry-After"] == "100"
    assert all(";r=0;t=100" in part for part in fields["RateLimit"].split(", "))
    assert retry_after({name.lower(): value for name, value in fields.items()}) == 100


def test_every_limit_is_named_and_the_tightest_is_the_one_told() -> None:
    """Old fields have room for one."""
    clock = FakeClock()
    limiter = limiter_of("2/second window; 3/0.5 seconds window; 10/day fixed", clock)
    limiter.check()
    fields = limiter.check().headers()
    assert fields["X-RateLimit-Limit"] == "2"
    assert fields["RateLimit-Policy"] == (
        '"2/second window";q=2;w=1, "3/0.5 seconds window";q=3, "10/day fixed";q=10;w=86400'
    )
    assert fields["RateLimit"].startswith('"2/second window";r=0;t=1, "3/0.5 seconds window";r=1;')


def test_those_who_wait_are_counted_in_what_others_are_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Whoever is refused hears when it would be its turn, behind all of them."""
    clock = FakeClock()
    limiter = limiter_of("1/minute smooth", clock)
    with caplog.at_level(logging.ERROR, "ratekit"):
        limiter.acquire()
        limiter.acquire()
    assert limiter.peek().retry_after == pytest.approx(60 / 0.99)
