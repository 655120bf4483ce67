"""What a server tells one process, or refuses it, is learned by all that share its limits."""

import math
import time
import uuid
from collections.abc import Mapping
from typing import Any

import pytest
from requests.structures import CaseInsensitiveDict

from ratekit import RateLimiter
from ratekit.call import Call, Outcome
from ratekit.clock import SECOND
from ratekit.limits.pace import FREE, Pace
from ratekit.limits.shared import paces
from ratekit.stores import MemcachedStore
from tests.conftest import Memcached, StartMemcached

HOST = "https://api.example.com"
ALICE = {"Authorization": "Bearer alice"}
BOB = {"Authorization": "Bearer bob"}


@pytest.fixture
def two(memcached: Memcached) -> tuple[RateLimiter, RateLimiter]:
    """Give limiters as two processes have them: of one name, with connections of their own."""
    name = uuid.uuid4().hex
    one, other = (MemcachedStore(memcached.url, timeout=5, connect_timeout=5) for _ in range(2))
    return RateLimiter(name=name, store=one), RateLimiter(name=name, store=other)


def ask(
    limiter: RateLimiter,
    status: int = 200,
    who: Mapping[str, str] = ALICE,
    **headers: str,
) -> Outcome:
    """Make a call that is answered so."""
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    call = Call("GET", f"{HOST}/items", who, key=HOST)
    return limiter.run(call, lambda call: Outcome(None, status, CaseInsensitiveDict(fields)))


def pace(limiter: RateLimiter, who: Mapping[str, str] = ALICE) -> float:
    """Return what was learned, in permits a second."""
    learning = limiter._learning
    assert learning is not None
    return learning.pace_of(Call("GET", HOST, who, key=HOST))


def test_what_is_told_is_kept_by_all_together(two: tuple[RateLimiter, RateLimiter]) -> None:
    """What is told is kept by all together."""
    told: dict[str, Any] = {"ratelimit_policy": '"a";q=50;w=1', "ratelimit": '"a";r=20;t=1'}
    for limiter in two:
        ask(limiter, **told)
    assert [pace(limiter) for limiter in two] == pytest.approx([49.5, 49.5], rel=0.01)
    began = time.monotonic()
    for _ in range(10):
        for limiter in two:
            ask(limiter, **told)
    # One would take 0.2 s for its ten.
    assert time.monotonic() - began > 18 / 49.5


def test_what_refusals_taught_one_is_what_the_other_hears_after_its_first(
    two: tuple[RateLimiter, RateLimiter],
) -> None:
    """What refusals taught one, the other hears of with its first."""
    one, other = two
    for _ in range(5):
        ask(one)
    ask(one, 429)
    ask(one)
    assert pace(one) < math.inf
    assert pace(other) == math.inf
    ask(other, 429)
    ask(other)
    learned = [pace(limiter) for limiter in two]
    # The event of the other lowered it further; who does not ask meanwhile does not know yet.
    assert learned[1] < learned[0]
    time.sleep(0.06)
    ask(one)
    assert pace(one) == pytest.approx(pace(other), rel=0.02)


def test_the_hold_of_a_bucket_is_everybodys(two: tuple[RateLimiter, RateLimiter]) -> None:
    """The hold of a bucket is everybodys."""
    one, other = two
    for limiter in two:
        ask(limiter, x_ratelimit_bucket="b", x_ratelimit_remaining="5", x_ratelimit_limit="9")
    ask(one, 429, x_ratelimit_bucket="b", retry_after="0.4", x_ratelimit_limit="9")
    began = time.monotonic()
    ask(other)
    assert time.monotonic() - began > 0.3


def test_another_credential_has_learned_nothing(two: tuple[RateLimiter, RateLimiter]) -> None:
    """Another credential has learned nothing."""
    one, other = two
    ask(one, ratelimit_policy='"a";q=50;w=1', ratelimit='"a";r=20;t=1')
    ask(other, who=BOB)
    assert pace(one) < math.inf
    assert pace(one, BOB) == pace(other, BOB) == math.inf


def test_a_store_that_is_gone_leaves_each_to_itself(start_memcached: StartMemcached) -> None:
    """A store that is gone leaves each to itself."""
    memcached = start_memcached()
    limiter = RateLimiter(name="alone", store=MemcachedStore(memcached.url))
    ask(limiter)
    memcached.stop()
    ask(limiter, 429)
    ask(limiter)
    assert pace(limiter) < math.inf


NOW = 1_800_000_000 * SECOND
SANE = Pace(50.0, 100.0, 10, SECOND, NOW - SECOND, 0, NOW - SECOND, 0, SECOND, NOW + SECOND, 2)


def test_a_record_says_what_was_written() -> None:
    """A record says what was written."""
    assert paces._read((7, *paces._written(SANE)), NOW) == (SANE, 7)
    assert paces._read((0, *paces._written(FREE._replace(begin=NOW))), NOW)[0].rate == math.inf


@pytest.mark.parametrize(
    "state",
    [
        None,
        5,
        (),
        (1,) * 5,
        (1,) * 12,
        ("x",) * 12,
        (0, *paces._written(SANE._replace(refused_at=NOW + 3600 * SECOND))),
        (0, *paces._written(SANE._replace(begin=NOW - 7200 * SECOND, refused_at=-1))),
    ],
)
def test_a_record_that_cannot_be_says_nothing(state: object) -> None:
    """A record that cannot be says nothing."""
    assert paces._read(state, NOW) == (FREE._replace(begin=NOW), 0)


def test_a_lie_in_a_record_stops_nobody() -> None:
    """A lie in a record stops nobody."""
    lie = SANE._replace(rate=1e-6, pause_ns=10**17, step_ns=10**17, step_at=NOW + 10**17)
    read, _ = paces._read((0, *paces._written(lie)), NOW)
    assert read.rate >= 1 / 3600
    assert read.pause_ns <= 30 * SECOND
    assert read.step_at <= NOW + 64 * SECOND
