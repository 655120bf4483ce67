"""A limiter learns from what a server answers."""

import logging
import math
from collections.abc import Mapping

import pytest
from requests.structures import CaseInsensitiveDict

from ratekit import RateLimiter, options
from ratekit.call import Call, Outcome
from ratekit.errors import ConfigurationError, RateLimited
from ratekit.limits.learning import Learning
from ratekit.stores import MemoryStore
from ratekit.testing import FakeClock

HOST = "https://api.example.com"
ALICE = {"Authorization": "Bearer alice"}
BOB = {"Authorization": "Bearer bob"}


@pytest.fixture
def clock() -> FakeClock:
    """Give a clock that moves only when somebody waits."""
    return FakeClock()


def limiter_on(clock: FakeClock, limit: str | None = None, **settings: str) -> RateLimiter:
    """Give a limiter on this clock."""
    return RateLimiter(limit, store=MemoryStore(clock=clock), **settings)  # type: ignore[arg-type]


def ask(
    limiter: RateLimiter,
    clock: FakeClock,
    status: int = 200,
    headers: Mapping[str, str] = {},
    *,
    who: Mapping[str, str] = ALICE,
    path: str = "/items",
    **chosen: object,
) -> Outcome:
    """Make a call that is answered so."""
    call = Call("GET", f"{HOST}{path}", who, key=HOST, clock=clock, options=options(**chosen))
    return limiter.run(call, lambda call: Outcome(None, status, CaseInsensitiveDict(headers)))


def seconds(clock: FakeClock) -> float:
    """Return what has passed on the clock."""
    return (clock.now_ns() - FakeClock().now_ns()) / 1e9


def learned(limiter: RateLimiter, who: Mapping[str, str] = ALICE) -> float:
    """Return the pace that was learned, in permits a second."""
    learning = limiter._learning
    assert isinstance(learning, Learning)
    return learning.pace_of(Call("GET", HOST, who, key=HOST))


def test_without_a_limit_nothing_waits(clock: FakeClock) -> None:
    """Until the server says something there is nothing to keep."""
    limiter = limiter_on(clock)
    for _ in range(100):
        ask(limiter, clock)
    assert seconds(clock) < 0.001
    assert learned(limiter) == math.inf


def test_the_servers_own_numbers_become_the_limit(clock: FakeClock) -> None:
    """Where none was told."""
    limiter = limiter_on(clock)
    headers = {"RateLimit-Policy": '"a";q=10;w=1', "RateLimit": '"a";r=9;t=1'}
    ask(limiter, clock, headers=headers)
    assert learned(limiter) == pytest.approx(9.9)
    began = clock.now_ns()
    for _ in range(100):
        ask(limiter, clock, headers=headers)
    assert (clock.now_ns() - began) / 1e9 == pytest.approx(10, rel=0.05)


def test_a_limit_told_too_high_is_lowered_to_what_the_server_says(clock: FakeClock) -> None:
    """Before it refuses anything."""
    limiter = limiter_on(clock, "20/second")
    ask(limiter, clock, headers={"RateLimit-Policy": "10;w=1", "RateLimit": "limit=10, r=9, t=1"})
    ask(limiter, clock, headers={"RateLimit-Policy": '"a";q=10;w=1'})
    assert learned(limiter) == pytest.approx(9.9)


def test_a_limit_that_is_lower_than_the_servers_stays(clock: FakeClock) -> None:
    """What the user chose is never raised."""
    limiter = limiter_on(clock, "5/second")
    ask(limiter, clock, headers={"RateLimit-Policy": '"a";q=10;w=1'})
    assert learned(limiter) == math.inf
    began = clock.now_ns()
    for _ in range(50):
        ask(limiter, clock)
    assert (clock.now_ns() - began) / 1e9 == pytest.approx(10, rel=0.05)


def test_a_spent_quota_is_waited_for_before_the_refusal_comes(clock: FakeClock) -> None:
    """An hour's quota is over: the next call goes when there is more."""
    limiter = limiter_on(clock)
    spent = {"X-RateLimit-Limit": "60", "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "90"}
    assert ask(limiter, clock, headers=spent).status == 200
    assert limiter.held_for(HOST) == pytest.approx(90)
    ask(limiter, clock)
    assert seconds(clock) == pytest.approx(90, abs=0.1)


def test_a_spent_quota_beyond_the_users_patience_is_refused_at_once(clock: FakeClock) -> None:
    """As a refusal of the server's is."""
    limiter = limiter_on(clock)
    spent = {"X-RateLimit-Limit": "60", "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "900"}
    ask(limiter, clock, headers=spent)
    with pytest.raises(RateLimited) as refusal:
        ask(limiter, clock)
    assert refusal.value.retry_after == pytest.approx(900)


def test_a_403_with_a_spent_quota_is_a_refusal(clock: FakeClock) -> None:
    """GitHub's primary limit: no 429, and no Retry-After."""
    limiter = limiter_on(clock)
    spent = {"x-ratelimit-limit": "60", "x-ratelimit-remaining": "0", "x-ratelimit-reset": "30"}
    outcome = ask(limiter, clock, 403, spent)
    assert outcome.held_ns == 30_000_000_000


def test_a_403_that_is_none_is_not(clock: FakeClock) -> None:
    """Not to be allowed is the caller's own matter."""
    limiter = limiter_on(clock)
    left = {"x-ratelimit-limit": "60", "x-ratelimit-remaining": "9", "x-ratelimit-reset": "30"}
    assert ask(limiter, clock, 403, left).held_ns is None


def test_a_pace_is_found_where_the_server_says_nothing(clock: FakeClock) -> None:
    """A bare 429 after 20 requests, of a server that admits 10 a second."""
    limiter = limiter_on(clock)
    tokens, filled = 20.0, 0.0
    refusals = 0

    def serve(call: Call) -> Outcome:
        nonlocal tokens, filled, refusals
        now = seconds(clock)
        tokens, filled = min(20.0, tokens + 10 * (now - filled)), now
        if tokens < 1:
            refusals += 1
            return Outcome(None, 429, {})
        tokens -= 1
        return Outcome(None, 200, {})

    admitted = 0
    while admitted < 300:
        call = Call("GET", HOST, ALICE, key=HOST, clock=clock)
        admitted += limiter.run(call, serve).status == 200
        clock.advance(0.001)
    assert seconds(clock) <= 1.4 * 28
    assert refusals <= 15


def test_what_was_learned_is_of_the_host_and_the_credential(clock: FakeClock) -> None:
    """Bob's quota is not Alice's, though they share a limiter."""
    limiter = limiter_on(clock)
    ask(limiter, clock, headers={"RateLimit-Policy": '"a";q=10;w=1'}, who=ALICE)
    assert learned(limiter, ALICE) == pytest.approx(9.9)
    assert learned(limiter, BOB) == math.inf


def test_a_spent_resource_holds_no_other_one(clock: FakeClock) -> None:
    """GitHub counts its search apart; Discord names buckets."""
    limiter = limiter_on(clock)

    def fields(resource: str, left: int) -> dict[str, str]:
        return {
            "x-ratelimit-limit": "30", "x-ratelimit-remaining": f"{left}",
            "x-ratelimit-reset": "40", "x-ratelimit-resource": resource,
        }  # fmt: skip

    ask(limiter, clock, headers=fields("core", 29), path="/users/1")
    ask(limiter, clock, headers=fields("search", 0), path="/search?q=a")
    ask(limiter, clock, headers=fields("core", 28), path="/users/2")
    assert seconds(clock) < 1
    ask(limiter, clock, headers=fields("search", 29), path="/search?q=b")
    assert seconds(clock) == pytest.approx(40, abs=0.5)


def test_headers_are_not_read_where_refusals_alone_count(clock: FakeClock) -> None:
    """For a server whose headers are wrong."""
    limiter = limiter_on(clock, adapt="aimd")
    ask(limiter, clock, headers={"RateLimit-Policy": '"a";q=10;w=1'})
    assert learned(limiter) == math.inf


def test_nothing_is_learned_where_that_is_off(clock: FakeClock) -> None:
    """A refusal still holds the key."""
    limiter = limiter_on(clock, "10/second", adapt="off")
    outcome = ask(limiter, clock, 429, {"Retry-After": "3"})
    assert outcome.held_ns == 3_000_000_000
    assert limiter.held_for(HOST) == pytest.approx(3)


def test_a_quota_can_be_spent_evenly(clock: FakeClock) -> None:
    """60 left for a minute: one a second."""
    limiter = limiter_on(clock, spend="even")
    left = {"X-RateLimit-Limit": "600", "X-RateLimit-Remaining": "60", "X-RateLimit-Reset": "60"}
    ask(limiter, clock, headers=left)
    assert learned(limiter) == pytest.approx(0.99)


def test_little_left_is_a_warning_once(clock: FakeClock, caplog: pytest.LogCaptureFixture) -> None:
    """And again only after there was more."""
    limiter = limiter_on(clock)

    def left(number: int) -> None:
        fields = {"Limit": "1000", "Remaining": str(number), "Reset": "3600"}
        ask(limiter, clock, headers={f"X-RateLimit-{k}": v for k, v in fields.items()})

    with caplog.at_level(logging.WARNING):
        for number in (500, 99, 98, 97, 900, 50):
            left(number)
    said = [record.getMessage() for record in caplog.records]
    assert [line.split(": ")[-1] for line in said] == [
        "10 % of the quota is left",
        "5 % of the quota is left",
    ]
    assert "alice" not in caplog.text


def test_a_limiter_with_nothing_to_do_says_so() -> None:
    """Neither a limit nor anything to learn."""
    with pytest.raises(ConfigurationError, match="name a limit"):
        RateLimiter(adapt="off")
    with pytest.raises(ConfigurationError, match="adapt 'fast'"):
        RateLimiter(adapt="fast")
    with pytest.raises(ConfigurationError, match="spend 'all'"):
        RateLimiter(spend="all")
