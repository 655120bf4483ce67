"""De-duplication: identical requests under way at the same time are one request."""

import contextlib
import pickle
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from ratekit import (
    Cache,
    ConfigurationError,
    DeadlineExceeded,
    Dedup,
    Pipeline,
    RateLimited,
    RateLimiter,
    Retry,
    options,
)
from ratekit.testing import Answer, ApiServer
from tests.contracts.edges import EDGES, Client, Edge, until

MANY = 16
SLOW = 0.1
TEXT = (("Content-Type", "text/plain"),)


Clients = Callable[..., Client]


@pytest.fixture
def client_of() -> Iterator[Clients]:
    """Give a function that makes a client on some policies; all are closed afterwards."""
    with contextlib.ExitStack() as opened:

        def make(edge: Edge, *policies: Any) -> Client:
            return opened.enter_context(edge.client(Pipeline(*policies)))

        yield make


def at_once(*functions: Callable[[], Any]) -> list[Any]:
    """Call all of these at the same moment; return what they returned or raised, in order."""
    barrier = threading.Barrier(len(functions))

    def call(function: Callable[[], Any]) -> Any:
        barrier.wait()
        try:
            return function()
        except Exception as error:  # noqa: BLE001  (it is what the test looks at)
            return error

    with ThreadPoolExecutor(len(functions)) as pool:
        return list(pool.map(call, functions))


def herd(client: Client, url: str, **arguments: Any) -> list[Any]:
    """Send one GET from many threads at once."""
    return at_once(*[lambda: client.get(url, **arguments)] * MANY)


def asked(server: ApiServer, path: str) -> int:
    """Return how many requests for a path came to the server."""
    return len(server.seen(path))


def test_a_herd_makes_one_request_and_each_gets_the_answer(
    client_of: Clients, edge: Edge, server: ApiServer
) -> None:
    """16 threads, one URL: one fetch, and every body is whole, also without a cache."""
    client = client_of(edge, Dedup())
    server.script("/a", Answer(200, TEXT, b"body" * 1000, delay=SLOW))
    answers = herd(client, server.url + "/a")
    assert {answer.content for answer in answers} == {b"body" * 1000}
    assert asked(server, "/a") == 1
    assert sum(edge.details(answer).attempts for answer in answers) == 1


def test_a_herd_before_a_cold_cache_makes_one_request(
    client_of: Clients, edge: Edge, server: ApiServer
) -> None:
    """With a cache in front, who comes too late to follow finds the answer kept."""
    client = client_of(edge, Cache(), Dedup(), Retry(), RateLimiter("1000/second"))
    fresh = (("Cache-Control", "max-age=60"),)
    server.script("/a", Answer(200, fresh, b"x", delay=SLOW))
    answers = herd(client, server.url + "/a")
    said = sorted(answer.headers["cache-status"].partition("; ttl")[0] for answer in answers)
    assert asked(server, "/a") == 1
    assert sum("stored" in one for one in said) == 1
    assert all("stored" in one or "collapsed" in one or "hit" in one for one in said)


def test_clients_of_different_libraries_share_one_request(
    client_of: Clients, server: ApiServer
) -> None:
    """What is shared is a value: each gets a response of its own library."""
    dedup = Dedup()
    clients = [client_of(edge, dedup) for edge in EDGES] * 4
    server.script("/a", Answer(200, TEXT, b"x", delay=SLOW))
    answers = at_once(*[lambda one=one: one.get(server.url + "/a") for one in clients])
    assert [answer.content for answer in answers] == [b"x"] * len(clients)
    assert asked(server, "/a") == 1
    modules = {type(answer).__module__.partition(".")[0] for answer in answers}
    assert modules == {"requests", "httpx", "httpx2"}


@pytest.mark.parametrize(
    "differs",
    [
        {"headers": {"Authorization": "Bearer b"}},
        {"headers": {"Cookie": "session=b"}},
        {"headers": {"X-Api-Key": "b"}},
        {"headers": {"Range": "bytes=0-1"}},
        {"headers": {"Cache-Control": "no-cache"}},
        {"headers": {"If-None-Match": '"a"'}},
    ],
    ids=str,
)
def test_requests_that_differ_are_made_each(
    client_of: Clients, edge: Edge, server: ApiServer, differs: dict[str, Any]
) -> None:
    """Another caller, part or condition is another request."""
    client = client_of(edge, Dedup())
    slow = Answer(200, TEXT, b"x", delay=SLOW)
    server.script("/a", slow, slow)
    url = server.url + "/a"
    at_once(lambda: client.get(url), lambda: client.get(url, **differs))
    assert asked(server, "/a") == 2


def test_writes_are_made_each(client_of: Clients, edge: Edge, server: ApiServer) -> None:
    """A POST is never taken for another one."""
    client = client_of(edge, Dedup())
    slow = Answer(200, TEXT, b"x", delay=SLOW)
    server.script("/a", slow, slow)
    at_once(*[lambda: client.send("POST", server.url + "/a", body=b"x")] * 2)
    assert asked(server, "/a") == 2


@pytest.mark.parametrize("field", [("Cache-Control", "no-store"), ("Vary", "*")])
def test_an_answer_that_is_one_callers_alone_is_not_shared(
    client_of: Clients, edge: Edge, server: ApiServer, field: tuple[str, str]
) -> None:
    """After `no-store` everybody asks for himself, all at once."""
    client = client_of(edge, Dedup())
    server.script("/a", *[Answer(200, (field,), b"%d" % n, delay=SLOW) for n in range(MANY)])
    answers = herd(client, server.url + "/a")
    assert len({answer.content for answer in answers}) == MANY
    assert asked(server, "/a") == MANY


def test_an_answer_that_varies_is_shared_with_those_it_is_for(
    client_of: Clients, edge: Edge, server: ApiServer
) -> None:
    """A follower whose `Accept` differs goes on by itself."""
    client = client_of(edge, Dedup())
    by_accept = (("Vary", "Accept"),)
    first, second = (Answer(200, by_accept, body, delay=SLOW) for body in (b"1", b"2"))
    server.script("/a", first, second)
    url = server.url + "/a"
    accepts = ["text/plain"] * 3 + ["text/html"]
    at_once(
        *[lambda accept=accept: client.get(url, headers={"Accept": accept}) for accept in accepts]
    )
    assert asked(server, "/a") in {2, 4}  # 4 where the one that differs led
    assert asked(server, "/a") < 5


def test_a_failure_is_not_shared(client_of: Clients, edge: Edge, server: ApiServer) -> None:
    """The leader's failure is his own: the next one leads, and its answer is everybody's."""
    client = client_of(edge, Dedup())
    server.script("/a", Answer(fault="close", delay=SLOW), Answer(200, TEXT, b"x", delay=SLOW))
    answers = herd(client, server.url + "/a")
    failed = [answer for answer in answers if isinstance(answer, Exception)]
    assert len(failed) == 1
    assert {answer.content for answer in answers if answer not in failed} == {b"x"}
    assert asked(server, "/a") == 2


def test_after_two_failures_each_goes_on_by_itself(
    client_of: Clients, edge: Edge, server: ApiServer
) -> None:
    """Nobody waits for one after the other while the server is down."""
    client = client_of(edge, Dedup())
    server.script("/a", *[Answer(503, TEXT, b"down", delay=SLOW)] * MANY)
    began = time.monotonic()
    answers = herd(client, server.url + "/a")
    assert [answer.status_code for answer in answers] == [503] * MANY
    assert time.monotonic() - began < SLOW * MANY / 2


def test_an_error_that_is_an_answer_is_shared(
    client_of: Clients, edge: Edge, server: ApiServer
) -> None:
    """404 is what the server says to all of them."""
    client = client_of(edge, Dedup())
    server.script("/a", Answer(404, TEXT, b"none", delay=SLOW))
    assert {answer.status_code for answer in herd(client, server.url + "/a")} == {404}
    assert asked(server, "/a") == 1


def test_a_follower_keeps_its_own_deadline(
    client_of: Clients, edge: Edge, server: ApiServer
) -> None:
    """It does not wait longer than it may because somebody else does."""
    client = client_of(edge, Dedup())
    server.script("/a", Answer(200, TEXT, b"x", delay=0.4))
    url = server.url + "/a"

    def hurried() -> Any:
        until(lambda: asked(server, "/a"))
        with options(deadline=0.1):
            return client.get(url)

    leader, follower = at_once(lambda: client.get(url), hurried)
    assert leader.content == b"x"
    assert isinstance(follower, DeadlineExceeded)
    assert isinstance(follower, edge.error)


def test_a_follower_keeps_its_own_max_wait(
    client_of: Clients, edge: Edge, server: ApiServer
) -> None:
    """While the leader waits for a permit, who would not wait is refused by the limiter."""
    limiter = RateLimiter("3/second smooth", headroom=1)
    limiter.acquire(server.url)
    client = client_of(edge, Dedup(), limiter)
    url = server.url + "/a"

    def hurried() -> Any:
        time.sleep(0.1)
        with options(max_wait=0.05):
            return client.get(url)

    leader, follower = at_once(lambda: client.get(url), hurried)
    assert leader.status_code == 200
    assert isinstance(follower, RateLimited)


def test_a_stream_stays_a_stream(client_of: Clients, edge: Edge, server: ApiServer) -> None:
    """The leader's body reaches its user piece by piece; the follower's when it is whole."""
    client = client_of(edge, Dedup())
    url = server.url + "/stream/4?interval=0.1"
    first: list[float] = []

    def lead() -> bytes:
        with client.stream("GET", url) as response:
            pieces = []
            for piece in edge.chunks(response):
                pieces.append(piece)
                first.append(time.monotonic())
        return b"".join(pieces)

    def follow() -> bytes:
        until(lambda: first)
        return client.get(url).content  # type: ignore[no-any-return]

    led, followed = at_once(lead, follow)
    assert led == followed
    assert first[-1] - first[0] > 0.1
    assert asked(server, "/stream/4") == 1


def test_a_leader_that_stops_reading_strands_nobody(
    client_of: Clients, edge: Edge, server: ApiServer
) -> None:
    """Who closes a stream early, or leaves it open unread, is waited for no longer."""
    client = client_of(edge, Dedup())
    big = b"x" * 3_000_000
    server.script("/a", *[Answer(200, TEXT, big)] * 3)
    url = server.url + "/a"
    with client.stream("GET", url):
        # Left unread: the follower gives it a second or two, and then asks for itself.
        assert client.get(url).content == big
    with client.stream("GET", url):
        pass
    assert asked(server, "/a") == 3


def test_a_body_beyond_the_bound_is_not_kept_for_followers(
    client_of: Clients, edge: Edge, server: ApiServer
) -> None:
    """They ask for themselves, and memory stays bounded."""
    client = client_of(edge, Dedup(max_body=1000))
    server.script("/a", *[Answer(200, TEXT, b"x" * 1001, delay=SLOW)] * MANY)
    answers = herd(client, server.url + "/a")
    assert {len(answer.content) for answer in answers} == {1001}
    assert asked(server, "/a") == MANY


def test_heads_are_shared_too(client_of: Clients, edge: Edge, server: ApiServer) -> None:
    """A HEAD has no body to wait for."""
    client = client_of(edge, Dedup())
    server.script("/a", Answer(200, TEXT, delay=SLOW))
    answers = at_once(*[lambda: client.send("HEAD", server.url + "/a")] * MANY)
    assert {answer.status_code for answer in answers} == {200}
    assert asked(server, "/a") == 1


def test_nothing_stays_behind(client_of: Clients, edge: Edge, server: ApiServer) -> None:
    """The table of what is under way is empty once nothing is."""
    dedup = Dedup()
    client = client_of(edge, dedup)
    server.script("/a", Answer(fault="close"), Answer(500), Answer(200, TEXT, b"x"))
    for _ in range(3):
        at_once(*[lambda: client.get(server.url + "/a")] * 3)
    assert not dedup._flights


def test_a_table_that_is_full_lets_the_others_pass(
    client_of: Clients, edge: Edge, server: ApiServer
) -> None:
    """More URLs under way than the bound are asked for without being remembered."""
    client = client_of(edge, Dedup(max_flights=1))
    for path in ("/a", "/b"):
        server.script(path, *[Answer(200, TEXT, b"x", delay=SLOW)] * 2)
    urls = [server.url + path for path in ("/a", "/b", "/a", "/b")]
    answers = at_once(*[lambda url=url: client.get(url) for url in urls])
    assert [answer.content for answer in answers] == [b"x"] * 4
    assert asked(server, "/a") + asked(server, "/b") == 3


def test_a_plain_function_is_refused_with_the_remedy() -> None:
    """Its arguments are not known, so two calls could not be told apart."""
    with pytest.raises(ConfigurationError, match="Pipeline"):
        Dedup()(print)


def test_it_pickles_and_begins_empty() -> None:
    """A copy elsewhere has nothing under way."""
    copy = pickle.loads(pickle.dumps(Dedup(max_body=7)))  # noqa: S301  (made here)
    assert not copy._flights
    assert copy._max_body == 7
