"""RFC 5861, 4, at its edges: to the second, and against what forbids it."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest

from ratekit import MemoryStore, RateLimiter, Rejected, options
from ratekit.call import Call, Outcome, Proceed
from ratekit.policy import Policy
from ratekit.testing import Answer, ApiServer, FakeClock
from tests.contracts.caching import Api, Place, api, reply, said
from tests.contracts.edges import Edge

MINUTE = "max-age=60"
KIND = "max-age=60, stale-if-error=30"
QUICK = "max-age=60, stale-while-revalidate=30"
MANY = 8
PATIENCE = 10.0  # seconds for what takes milliseconds
OLD = "hit; ttl=-1; detail=stale-if-error"
MEANWHILE = "hit; ttl=-1; detail=stale-while-revalidate"

Make = Callable[..., AbstractContextManager[Api]]


@pytest.fixture
def make(edge: Edge, server: ApiServer, clock: FakeClock, store: Place) -> Make:
    """Give a function that makes a client with these policies behind a cache so made."""

    def made(*policies: Policy, **arguments: Any) -> AbstractContextManager[Api]:
        return api(edge, server, clock, *policies, store=store, **arguments)

    return made


@pytest.fixture
def one(make: Make) -> Any:
    """Give a client with a cache of its own."""
    with make() as made:
        yield made


class _Refusing(Policy):
    """Refuses whatever comes, once it is told to."""

    refusing = False

    def run(self, call: Call, proceed: Proceed) -> Outcome:
        if self.refusing:
            raise Rejected("not now", key=call.key)
        return proceed(call)


# 4: stale-if-error.


@pytest.mark.parametrize(
    ("after", "status"), [(599, 200), (601, 200), (1799, 200), (1800, 200), (1800.1, 503)]
)
def test_4_it_is_over_when_the_server_said(
    one: Api, clock: FakeClock, after: float, status: int
) -> None:
    """The example of RFC 5861: fresh for 600 seconds and usable for 1200 more."""
    one.answers(reply(cache_control="max-age=600, stale-if-error=1200"), reply(status=503))
    one.send()
    clock.advance(after)
    assert one.send().status_code == status


def test_4_a_server_that_is_gone_is_an_error(edge: Edge, clock: FakeClock, store: Place) -> None:
    """Nobody listens: what is stale is the answer, and without it the library's own error."""
    with (
        ApiServer(rate=None) as server,
        api(edge, server, clock, store=store, stale_if_error=30) as one,
    ):
        one.answers(reply(b"old", cache_control=MINUTE))
        one.send()
        server.stop()
        clock.advance(61)
        response = one.send()
        assert (response.content, said(response)) == (b"old", OLD)
        assert edge.details(response).from_cache
        clock.advance(30)
        with pytest.raises(edge.unreachable):
            one.send()


def test_4_every_refusal_of_a_policy_is_an_error(make: Make, clock: FakeClock) -> None:
    """Such as that of an open circuit, also where the server allows it alone."""
    refusing = _Refusing()
    with make(refusing) as one:
        one.answers(reply(b"old", cache_control=KIND))
        one.send()
        clock.advance(61)
        refusing.refusing = True
        assert one.get() == (b"old", OLD)


def test_4_a_deadline_that_is_over_is_an_error(make: Make, clock: FakeClock) -> None:
    """Its turn would come too late."""
    limiter = RateLimiter("1/hour window", store=MemoryStore(clock=clock))
    with make(limiter, stale_if_error=30) as one:
        one.answers(reply(b"old", cache_control=MINUTE))
        one.send()
        clock.advance(61)
        with options(deadline=1):
            assert one.get() == (b"old", OLD)


def test_4_an_error_leaves_what_is_kept(one: Api, clock: FakeClock) -> None:
    """It stands in again, and is validated when the server is back."""
    one.answers(
        reply(b"old", etag='"a"', cache_control=KIND),
        *[reply(b"error", 503)] * 2,
        reply(b"", 304, etag='"a"', cache_control=MINUTE),
    )
    one.send()
    clock.advance(61)
    assert [one.get() for _ in range(2)] == [(b"old", OLD)] * 2
    assert one.get() == (b"old", "fwd=stale; fwd-status=304; stored")
    assert one.get() == (b"old", "hit; ttl=60")


@pytest.mark.parametrize("forbids", ["must-revalidate", "no-cache"])
@pytest.mark.parametrize("error", [Answer(503), Answer(fault="reset")], ids=["503", "reset"])
def test_4_must_revalidate_goes_before_it(
    make: Make, clock: FakeClock, forbids: str, error: Answer
) -> None:
    """Before the server's own grace, the user's and the request's (RFC 9111, 5.2.2.2)."""
    with make(stale_if_error=300, stale_while_revalidate=300) as one:
        one.answers(reply(b"old", etag='"a"', cache_control=f"{KIND}, {forbids}"), error)
        one.send()
        clock.advance(61)
        if error.fault is None:
            assert one.send(cache_control="stale-if-error=300").status_code == 503
        else:
            with pytest.raises(one.edge.error):
                one.send(cache_control="stale-if-error=300")


@pytest.mark.parametrize("forbids", ["proxy-revalidate", "s-maxage=60"])
@pytest.mark.parametrize(("shared", "status"), [(True, 503), (False, 200)])
def test_4_what_binds_a_shared_cache_binds_no_other(
    make: Make, clock: FakeClock, forbids: str, status: int, *, shared: bool
) -> None:
    """`proxy-revalidate`, and `s-maxage` which implies it (RFC 9111, 5.2.2.8 and 5.2.2.10)."""
    with make(shared=shared) as one:
        one.answers(reply(cache_control=f"{KIND}, {forbids}"), reply(status=503))
        one.send()
        clock.advance(61)
        assert one.send().status_code == status


@pytest.mark.parametrize("asks", ["no-cache", "max-age=10", "min-fresh=1"])
def test_4_a_request_that_wants_better_gets_the_error(
    one: Api, clock: FakeClock, asks: str
) -> None:
    """What is stale is not what it asked for."""
    one.answers(reply(cache_control=KIND), reply(status=503))
    one.send()
    clock.advance(61)
    assert one.send(cache_control=asks).status_code == 503


def test_4_nobody_gets_what_is_stale_of_somebody_else(one: Api, clock: FakeClock) -> None:
    """A failure is no reason to mix users up."""
    one.answers(reply(b"a's", cache_control=KIND), *[reply(b"error", 503)] * 2)
    one.send(authorization="Bearer a")
    clock.advance(61)
    assert one.body(authorization="Bearer b") == b"error"
    assert one.body(authorization="Bearer a") == b"a's"
