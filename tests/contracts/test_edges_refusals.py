"""What every edge raises where ratekit refuses, and how a call is bounded in time."""

import pickle
import socket
import threading
from typing import Any

import pytest

import ratekit
from ratekit import DeadlineExceeded, Pipeline, RateLimited, RateLimiter, Rejected, Retry
from ratekit.clock import SYSTEM
from ratekit.testing import Answer, ApiServer, FakeClock
from tests.contracts.edges import Edge, road
from tests.contracts.wire import OK, read_head, serve


def test_a_wait_beyond_max_wait_is_refused_in_the_librarys_own_terms(
    edge: Edge, server: ApiServer, clock: FakeClock
) -> None:
    """Existing `except` clauses catch it, and nobody mistakes it for a failure of the network."""
    with edge.client(road(clock, "1/minute", max_wait=1)) as client:
        client.get(f"{server.url}/items")
        with pytest.raises(RateLimited) as caught:
            client.get(f"{server.url}/items")
    refusal = caught.value
    assert type(refusal) is edge.ours.RateLimited
    assert isinstance(refusal, edge.error)
    assert isinstance(refusal, Rejected)
    assert not isinstance(refusal, (*edge.retried_by_others, TimeoutError, ConnectionError))
    assert (refusal.key, refusal.retry_after) == (server.url, 60.0)
    assert server.requests == 1


def test_a_refusal_knows_its_request_and_what_happened(
    edge: Edge, server: ApiServer, clock: FakeClock
) -> None:
    """`request` is the native one; no attempt was made and nothing waited."""
    with edge.client(road(clock, "1/minute", max_wait=0)) as client:
        client.get(f"{server.url}/items")
        with pytest.raises(RateLimited) as caught:
            client.get(f"{server.url}/items?q=1")
    assert str(caught.value.request.url) == f"{server.url}/items?q=1"  # type: ignore[attr-defined]
    details = edge.details(caught.value)
    assert (details.attempts, details.waited, details.key) == (0, 0.0, server.url)


@pytest.mark.parametrize("kind", ["RateLimited", "DeadlineExceeded"])
def test_a_refusal_pickles(edge: Edge, kind: str) -> None:
    """Its type, text, key and wait arrive in another process."""
    refusal = getattr(edge.ours, kind)("too soon", key="https://api", retry_after=2.5)
    copy = pickle.loads(pickle.dumps(refusal))  # noqa: S301  (our own)
    assert type(copy) is type(refusal)
    assert (str(copy), copy.key, copy.retry_after) == ("too soon", "https://api", 2.5)


def test_a_refusal_that_was_raised_pickles(edge: Edge, server: ApiServer, clock: FakeClock) -> None:
    """Also with its request and details, as a worker process sends it home."""
    with edge.client(road(clock, "1/minute", max_wait=0)) as client:
        client.get(f"{server.url}/items")
        with pytest.raises(RateLimited) as caught:
            client.get(f"{server.url}/items")
    copy = pickle.loads(pickle.dumps(caught.value))  # noqa: S301  (our own)
    assert (str(copy), copy.key, copy.retry_after) == (str(caught.value), server.url, 60.0)
    assert edge.details(copy).attempts == 0


def test_a_refusal_is_not_repeated(edge: Edge, server: ApiServer, clock: FakeClock) -> None:
    """Asking again would be refused again: it spends no time and no permit."""
    began = clock.now_ns()
    with edge.client(road(clock, "1/minute", max_wait=1)) as client:
        client.get(f"{server.url}/items")
        for _ in range(3):
            with pytest.raises(RateLimited) as caught:
                client.get(f"{server.url}/items")
            assert caught.value.retry_after == 60.0
    assert clock.now_ns() == began


def test_a_refusal_may_be_a_response(edge: Edge, server: ApiServer, clock: FakeClock) -> None:
    """With `refusal="response"` the user gets a 429 that says when to come back."""
    options = ratekit.options(refusal="response")
    with edge.client(road(clock, "1/minute", max_wait=1, options=options)) as client:
        assert client.get(f"{server.url}/items").status_code == 200
        response = client.get(f"{server.url}/items")
    assert response.status_code == 429
    assert response.headers["Retry-After"] == "60"
    assert response.headers["X-Should-Retry"] == "false"
    assert response.content == b""
    face = edge.face(response)
    assert (face["url"], face["reason"]) == (f"{server.url}/items", "Too Many Requests")
    assert edge.details(response).attempts == 0
    assert response.elapsed.total_seconds() >= 0
    with pytest.raises(Exception, match="429"):
        response.raise_for_status()
    assert server.requests == 1


def test_a_refusal_as_a_response_streams(edge: Edge, server: ApiServer, clock: FakeClock) -> None:
    """Who reads it in pieces finds it empty."""
    options = ratekit.options(refusal="response")
    with edge.client(road(clock, "1/minute", max_wait=1, options=options)) as client:
        client.get(f"{server.url}/items")
        with client.stream("GET", f"{server.url}/items") as response:
            assert response.status_code == 429
            assert b"".join(edge.chunks(response)) == b""


def test_after_an_answer_the_answer_is_worth_more_than_a_refusal(
    edge: Edge, server: ApiServer, clock: FakeClock
) -> None:
    """A retry that may not wait for its permit hands back what the server said."""
    server.script("/items", Answer(503, body=b"busy"))
    with edge.client(road(clock, "1/minute", max_wait=1)) as client:
        response = client.get(f"{server.url}/items")
    assert (response.status_code, response.content) == (503, b"busy")
    assert edge.details(response).attempts == 1


def test_after_an_error_the_error_is_worth_more_than_a_refusal(
    edge: Edge, server: ApiServer, clock: FakeClock
) -> None:
    """The same where the attempt got no answer."""
    server.script("/items", Answer(fault="reset"))
    with (
        edge.client(road(clock, "1/minute", max_wait=1)) as client,
        pytest.raises(edge.retried_by_others) as caught,
    ):
        client.get(f"{server.url}/items")
    assert edge.details(caught.value).attempts == 1


def test_a_deadline_that_comes_before_the_turn_is_refused_at_once(
    edge: Edge, server: ApiServer, clock: FakeClock
) -> None:
    """`DeadlineExceeded` is the library's own too, no timeout, and nothing was slept for it."""
    began = clock.now_ns()
    with edge.client(road(clock, "1/minute")) as client, ratekit.options(deadline=30):
        client.get(f"{server.url}/items")
        with pytest.raises(DeadlineExceeded) as caught:
            client.get(f"{server.url}/items")
    assert type(caught.value) is edge.ours.DeadlineExceeded
    assert isinstance(caught.value, edge.error)
    assert not isinstance(caught.value, edge.retried_by_others)
    assert (caught.value.key, caught.value.retry_after) == (server.url, 60.0)
    assert clock.now_ns() == began


def test_a_deadline_bounds_attempts_and_pauses_together(
    edge: Edge, server: ApiServer, clock: FakeClock
) -> None:
    """A pause that would end after it is not begun: the answer is handed back."""
    server.script("/items", *[Answer(503, [("Retry-After", "20")])] * 9)
    with (
        edge.client(Pipeline(Retry(attempts=10), clock=clock)) as client,
        ratekit.options(deadline=50),
    ):
        response = client.get(f"{server.url}/items")
    details = edge.details(response)
    assert (response.status_code, details.attempts) == (503, 3)
    assert details.waited < 50


def test_a_deadline_ends_an_attempt_that_hangs(edge: Edge, server: ApiServer) -> None:
    """The attempt's own timeouts shrink to what is left, and the native timeout is the user's."""
    server.script("/items", *[Answer(fault="hang")] * 4)
    with (
        edge.client(road(SYSTEM)) as client,
        ratekit.options(deadline=0.3),
        pytest.raises(edge.timed_out) as caught,
    ):
        client.get(f"{server.url}/items", timeout=50)
    assert edge.details(caught.value).attempts == 1


def test_a_shorter_timeout_than_the_deadline_is_kept(edge: Edge, server: ApiServer) -> None:
    """A deadline only ever shortens what the user chose."""
    server.script("/items", *[Answer(fault="hang")] * 4)
    with (
        edge.client(road(SYSTEM)) as client,
        ratekit.options(deadline=50, retry=False),
        pytest.raises(edge.timed_out),
    ):
        client.get(f"{server.url}/items", timeout=0.1)


def test_a_rejected_answer_that_trickles_is_not_waited_for(edge: Edge, clock: FakeClock) -> None:
    """No call waits for the end of a body that nobody will read: the next attempt is made."""
    next_attempt = threading.Event()
    came_meanwhile: list[bool] = []
    first = threading.Lock()

    def handle(connection: socket.socket) -> None:
        read_head(connection)
        if not first.acquire(blocking=False):
            next_attempt.set()
            connection.sendall(OK)
            return
        connection.sendall(b"HTTP/1.1 503 Busy\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nslow\r\n")
        came_meanwhile.append(next_attempt.wait(2))

    with (
        serve(handle) as wire,
        edge.client(road(clock)) as client,
        client.stream("GET", wire.url) as response,
    ):
        assert response.status_code == 200
    assert came_meanwhile == [True]


def test_options_bind_what_is_called_inside_the_block(
    edge: Edge, server: ApiServer, clock: FakeClock
) -> None:
    """An inner block overrides an outer one, and each ends with its block."""
    pipeline = road(clock)
    limiter = pipeline.policies[1]
    assert isinstance(limiter, RateLimiter)
    with edge.client(pipeline) as client:
        with ratekit.options(key="theirs", cost=2):
            with ratekit.options(key="mine"):
                assert edge.details(client.get(f"{server.url}/items")).key == "mine"
            assert edge.details(client.get(f"{server.url}/items")).key == "theirs"
        assert edge.details(client.get(f"{server.url}/items")).key == server.url
    assert [limiter.peek(key).remaining for key in ("mine", "theirs", server.url)] == [
        998, 998, 999,
    ]  # fmt: skip


def test_options_of_the_pipeline_are_the_defaults(
    edge: Edge, server: ApiServer, clock: FakeClock
) -> None:
    """What a block says wins over what the pipeline says."""
    with edge.client(road(clock, options=ratekit.options(key="default"))) as client:
        assert edge.details(client.get(f"{server.url}/items")).key == "default"
        with ratekit.options(key="chosen"):
            assert edge.details(client.get(f"{server.url}/items")).key == "chosen"


def test_options_of_one_thread_are_not_anothers(
    edge: Edge, server: ApiServer, clock: FakeClock
) -> None:
    """A block binds only the thread that entered it."""
    keys: list[str] = []
    with edge.client(road(clock)) as client:

        def call() -> None:
            keys.append(edge.details(client.get(f"{server.url}/items")).key)

        with ratekit.options(key="mine"):
            thread = threading.Thread(target=call)
            thread.start()
            thread.join()
            call()
    assert keys == [server.url, "mine"]


def test_statuses_that_mean_too_fast_can_be_named(
    edge: Edge, server: ApiServer, clock: FakeClock
) -> None:
    """A 420 that is named as throttling is waited for, and repeated."""
    server.script("/items", Answer(420, [("Retry-After", "5")]))
    options: Any = ratekit.options(throttle_statuses=[420, 429])
    with edge.client(road(clock, statuses=[420], options=options)) as client:
        response = client.get(f"{server.url}/items")
    assert (response.status_code, edge.details(response).waited >= 5) == (200, True)
