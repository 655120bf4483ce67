"""RFC 5861 through real clients: an answer that is stale, while the server fails or is asked."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any

import pytest

from ratekit import Cache, Dedup, Pipeline, RateLimited, RateLimiter, Retry, options
from ratekit.policy import Policy
from ratekit.testing import Answer, ApiServer, FakeClock
from tests.contracts.caching import PATH, Api, Place, api, reply, said
from tests.contracts.edges import Edge, until

STALE = "hit; ttl=-5; detail=stale-if-error"
MINUTE = "max-age=60"


@pytest.fixture
def make(edge: Edge, server: ApiServer, clock: FakeClock, store: Place) -> Callable[..., Any]:
    """Give a function that makes a client with these policies behind a cache."""

    def made(*policies: Policy, **arguments: Any) -> AbstractContextManager[Api]:
        return api(edge, server, clock, *policies, store=store, **arguments)

    return made


def has_one_that_is_stale(one: Api, clock: FakeClock, control: str, seconds: float = 65) -> None:
    """Let an answer be kept with this `Cache-Control`, and time go by."""
    one.answers(reply(b"old", cache_control=control, etag='"a"'))
    assert one.body() == b"old"
    clock.advance(seconds)


FAILURES: list[Answer] = [
    *[reply(b"no", status) for status in (500, 502, 503, 504)],
    Answer(fault="close"),
    Answer(fault="reset"),
]


@pytest.mark.parametrize("failure", FAILURES, ids=str)
@pytest.mark.parametrize("by", ["header", "setting", "request"])
def test_4_a_stale_answer_stands_in_for_a_failure(
    make: Callable[..., Any], clock: FakeClock, failure: Answer, by: str
) -> None:
    """Where the server, the user or the request allows it; it says how stale it is."""
    with make(stale_if_error=600 if by == "setting" else 0) as one:
        control = f"{MINUTE}, stale-if-error=600" if by == "header" else MINUTE
        has_one_that_is_stale(one, clock, control)
        one.answers(failure)
        asks = {"cache_control": "stale-if-error=600"} if by == "request" else {}
        response = one.send(**asks)
        assert (response.content, said(response)) == (b"old", STALE)
        assert response.headers["age"] == "65"
        assert one.edge.details(response).from_cache


@pytest.mark.parametrize("status", [400, 404, 429])
def test_4_what_is_no_failure_of_the_servers_is_the_answer(
    make: Callable[..., Any], clock: FakeClock, status: int
) -> None:
    """A header's grace is for 500, 502, 503 and 504."""
    with make() as one:
        has_one_that_is_stale(one, clock, f"{MINUTE}, stale-if-error=600")
        one.answers(reply(b"no", status))
        assert one.body() == b"no"


def test_a_users_own_grace_is_for_429_too(make: Callable[..., Any], clock: FakeClock) -> None:
    """Whoever is throttled would rather have the old answer."""
    with make(stale_if_error=600) as one:
        has_one_that_is_stale(one, clock, MINUTE)
        one.answers(reply(b"no", 429))
        assert one.get() == (b"old", STALE)


@pytest.mark.parametrize(
    ("control", "seconds"),
    [
        (f"{MINUTE}, stale-if-error=4", 65),
        (f"{MINUTE}, stale-if-error=600, must-revalidate", 65),
        ("no-cache, stale-if-error=600", 1),
        (f"{MINUTE}, stale-if-error=x", 65),
    ],
)
def test_4_beyond_its_grace_nothing_stands_in(
    make: Callable[..., Any], clock: FakeClock, control: str, seconds: float
) -> None:
    """The failure is the user's, as it came."""
    with make() as one:
        has_one_that_is_stale(one, clock, control, seconds)
        one.answers(reply(b"no", 503))
        assert one.body() == b"no"
        one.answers(Answer(fault="close"))
        with pytest.raises(one.edge.error):
            one.send()


def test_a_users_own_grace_ends_too(make: Callable[..., Any], clock: FakeClock) -> None:
    """Ten seconds are ten seconds."""
    with make(stale_if_error=10) as one:
        has_one_that_is_stale(one, clock, MINUTE, 70.5)
        one.answers(reply(b"no", 503))
        assert one.body() == b"no"


def test_our_own_refusal_is_stood_in_for(make: Callable[..., Any], clock: FakeClock) -> None:
    """Who would wait too long for a permit gets the old answer at once."""
    limiter = RateLimiter("1/hour smooth")
    with make(limiter, stale_if_error=600) as one:
        has_one_that_is_stale(one, clock, MINUTE)
        with options(max_wait=1):
            assert one.get() == (b"old", STALE)
            with pytest.raises(RateLimited):
                one.send("GET", "/another")


def test_a_retry_goes_first(make: Callable[..., Any], clock: FakeClock) -> None:
    """Only what is still a failure after its attempts is stood in for."""
    with make(Retry(attempts=2), stale_if_error=600) as one:
        has_one_that_is_stale(one, clock, MINUTE)
        one.answers(reply(b"no", 503), reply(b"new"))
        assert one.body() == b"new"


def test_whoever_wants_a_new_answer_gets_the_failure(
    make: Callable[..., Any], clock: FakeClock
) -> None:
    """`refresh`, and a request's `no-cache`, take nothing that is old."""
    with make(stale_if_error=600) as one:
        has_one_that_is_stale(one, clock, MINUTE)
        one.answers(*[reply(b"no", 503)] * 2)
        with options(refresh=True):
            assert one.body() == b"no"
        assert one.body(cache_control="no-cache") == b"no"


@pytest.mark.parametrize("by", ["header", "setting"])
def test_3_one_asks_while_the_others_get_the_stale_answer(
    edge: Edge, server: ApiServer, clock: FakeClock, store: Place, by: str
) -> None:
    """8 threads, with de-duplication behind: seven get the old answer, and follow nobody."""
    seconds = 600 if by == "setting" else 0
    cache = Cache(clock=clock, store=store, stale_while_revalidate=seconds)
    control = f"{MINUTE}, stale-while-revalidate=600" if by == "header" else MINUTE
    server.script(
        PATH,
        reply(b"old", cache_control=control),
        Answer(200, [("Cache-Control", MINUTE)], b"new", delay=0.1),
    )
    with edge.client(Pipeline(cache, Dedup())) as client:
        url = server.url + PATH
        client.get(url)
        clock.advance(65)
        barrier = threading.Barrier(8)

        def get(_: int) -> Any:
            barrier.wait()
            return client.get(url)

        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(get, range(8)))
        bodies = sorted(answer.content for answer in answers)
        assert bodies == [b"new"] + [b"old"] * 7
        stale = {said(answer) for answer in answers if answer.content == b"old"}
        assert stale == {"hit; ttl=-5; detail=stale-while-revalidate"}
        assert client.get(url).content == b"new"
        assert len(server.seen(PATH)) == 2


def test_3_who_asks_gets_the_stale_answer_where_that_fails(
    make: Callable[..., Any], clock: FakeClock
) -> None:
    """Within that time the old answer may be used anyway; and the next one asks again."""
    with make() as one:
        has_one_that_is_stale(one, clock, f"{MINUTE}, stale-while-revalidate=600")
        one.answers(reply(b"no", 503), reply(b"new"))
        assert one.get() == (b"old", STALE)
        assert one.body() == b"new"


def test_3_beyond_that_time_everybody_asks(make: Callable[..., Any], clock: FakeClock) -> None:
    """And so does whoever must not use what is stale."""
    with make() as one:
        has_one_that_is_stale(one, clock, f"{MINUTE}, stale-while-revalidate=4")
        one.answers(reply(b"new"))
        assert one.body() == b"new"


def test_a_reader_who_asks_and_fails_leaves_no_lock(
    edge: Edge, server: ApiServer, clock: FakeClock, store: Place
) -> None:
    """Whatever raises out of it: the next caller asks."""
    cache = Cache(clock=clock, store=store, stale_while_revalidate=600)
    with edge.client(Pipeline(cache)) as client:
        server.script(PATH, reply(cache_control=MINUTE), Answer(fault="close"), reply(b"new"))
        url = server.url + PATH
        client.get(url)
        clock.advance(65)
        client.get(url)
        assert client.get(url).content == b"new"
        until(lambda: not cache._revalidated)
