"""What every edge leaves as it was: a user who removes ratekit gets the same responses."""

import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from ratekit import Backoff, Pipeline, RateLimiter
from ratekit.clock import SYSTEM
from ratekit.testing import Answer, ApiServer, FakeClock, instant
from tests.contracts.edges import Edge, road
from tests.contracts.wire import read_head, serve

JSON = ("Content-Type", "application/json; charset=latin-1")

ANSWERS = {
    "ordinary": Answer(200, [JSON, ("Link", '</next>; rel="next"')], b'{"name": "\xe9"}'),
    "cookie": Answer(200, [("Set-Cookie", "visit=1; Path=/"), ("Set-Cookie", "again=2")], b"x"),
    "created": Answer(201, [("Location", "/elsewhere")], b"made"),
    "no content": Answer(204),
    "not modified": Answer(304, [("ETag", '"1"')]),
    "mistake": Answer(404, [("Content-Type", "text/plain")], b"no such thing"),
    "odd status": Answer(418, [("X-Twice", "1"), ("X-Twice", "2")], b"short"),
    "empty": Answer(200),
}


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
def test_an_answer_is_what_it_would_be_without_ratekit(
    edge: Edge, server: ApiServer, clock: FakeClock, method: str, answer: Answer
) -> None:
    """Status, headers, url, reason, encoding, version, cookies, links and body are the same."""
    server.script("/items", answer, answer)
    url = f"{server.url}/items?q=1"
    with edge.bare() as bare, edge.client(road(clock)) as rated:
        expected = edge.face(bare.send(method, url))
        assert edge.face(rated.send(method, url)) == expected


def test_an_answer_after_retries_is_what_it_would_be_alone(
    edge: Edge, server: ApiServer, clock: FakeClock
) -> None:
    """What came before the last attempt leaves no trace on the answer."""
    last = ANSWERS["cookie"]
    server.script("/items", last, Answer(503, [("Set-Cookie", "bad=1")]), Answer(429), last)
    with edge.bare() as bare, edge.client(road(clock)) as rated:
        expected = edge.face(bare.get(f"{server.url}/items"))
        response = rated.get(f"{server.url}/items")
        assert edge.face(response) == expected
        assert edge.details(response).attempts == 3


def test_redirects_are_followed_and_each_hop_pays_a_permit(
    edge: Edge, server: ApiServer, clock: FakeClock
) -> None:
    """The history is complete, and four requests on the wire took four permits."""
    pipeline = road(clock)
    limiter = pipeline.policies[1]
    assert isinstance(limiter, RateLimiter)
    with edge.bare() as bare, edge.client(pipeline) as rated:
        before = limiter.peek(server.url).remaining
        response = rated.get(f"{server.url}/redirect/3")
        face = edge.face(response)
        assert limiter.peek(server.url).remaining == before - 4
        server.reset()
        expected = edge.face(bare.get(f"{server.url}/redirect/3"))
    assert face == expected
    assert [status for status, _ in face["history"]] == [302, 302, 302]
    assert edge.details(response).attempts == 1


def test_cookies_reach_the_session_and_the_next_request(
    edge: Edge, server: ApiServer, clock: FakeClock
) -> None:
    """A cookie of the answer is sent with the request after it."""
    with edge.client(road(clock)) as client:
        client.get(f"{server.url}/cookie")
        client.get(f"{server.url}/items")
        assert dict(client.native.cookies) == {"visit": "1"}
    assert ("cookie", "visit=1") in [
        (name.lower(), value) for name, value in server.seen("/items")[0].headers
    ]


@pytest.mark.parametrize("refusals", [0, 1])
def test_streaming_stays_streaming(edge: Edge, clock: FakeClock, refusals: int) -> None:
    """The first chunk is with the user before the server sends the last one."""
    got_first = threading.Event()
    left = [refusals]
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"

    def handle(connection: socket.socket) -> None:
        read_head(connection)
        if left[0]:
            left[0] -= 1
            connection.sendall(
                b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            )
            return
        connection.sendall(head + b"5\r\nfirst\r\n")
        if got_first.wait(5):
            connection.sendall(b"4\r\nlast\r\n0\r\n\r\n")

    with (
        serve(handle) as wire,
        edge.client(road(clock)) as client,
        client.stream("GET", wire.url) as response,
    ):
        chunks = edge.chunks(response)
        assert next(chunks) == b"first"
        got_first.set()
        assert b"".join(chunks) == b"last"


def test_an_unread_streamed_answer_frees_its_connection_when_it_is_closed(
    edge: Edge, server: ApiServer, clock: FakeClock
) -> None:
    """Closing early is harmless: the requests after it are served."""
    pool: dict[str, Any] = {"pool_maxsize": 1, "pool_block": True}
    if edge.name != "requests":
        pool = {"limits": edge.library.Limits(max_connections=1)}
    with edge.client(road(clock), **pool) as client:
        for _ in range(3):
            with client.stream("GET", f"{server.url}/stream/1000") as response:
                assert response.status_code == 200
        assert client.get(f"{server.url}/items").status_code == 200


def test_elapsed_leaves_out_what_ratekit_waited(
    edge: Edge, server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`elapsed` is the time of the last attempt, not of permits, pauses and other attempts."""
    server.script("/items", Answer(429, [("Retry-After", "100")]), Answer(503))
    pipeline = road(SYSTEM, "1/minute", backoff=Backoff("constant", base=50, cap=50))
    with instant(), edge.client(pipeline) as client:
        # Waits move this clock, and so the library counts them as time that has passed.
        edge.set_clock(monkeypatch, lambda: SYSTEM.now_ns() / 1e9)
        first = client.get(f"{server.url}/items")
        second = client.get(f"{server.url}/items")
    details = edge.details(first)
    assert details.attempts == 3
    assert details.waited > 150
    assert first.elapsed.total_seconds() < 30
    assert edge.details(second).waited > 30
    assert second.elapsed.total_seconds() < 30


def test_elapsed_of_a_streamed_answer_leaves_out_what_ratekit_waited(
    edge: Edge, server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same where the user reads the body."""
    server.script("/items", Answer(503))
    with (
        instant(),
        edge.client(road(SYSTEM, backoff=Backoff("constant", base=50, cap=50))) as client,
    ):
        edge.set_clock(monkeypatch, lambda: SYSTEM.now_ns() / 1e9)
        with client.stream("GET", f"{server.url}/items") as response:
            assert b"".join(edge.chunks(response)).startswith(b"{")
        assert edge.details(response).waited >= 50
        assert response.elapsed.total_seconds() < 30


def test_the_response_says_what_happened_to_it(
    edge: Edge, server: ApiServer, clock: FakeClock
) -> None:
    """`attempts`, `waited`, `from_cache` and `key` are on the response."""
    server.script("/items", Answer(503))
    with edge.client(road(clock, backoff=Backoff("constant", base=2))) as client:
        details = edge.details(client.get(f"{server.url}/items"))
    assert (details.attempts, details.waited, details.from_cache, details.key) == (
        2, 2.0, False, server.url,
    )  # fmt: skip


def test_large_bodies_pass_whole(edge: Edge, server: ApiServer, clock: FakeClock) -> None:
    """Eight megabytes go up and come down, the same after a refusal."""
    body = bytes(range(256)) * 32_768
    server.script("/echo", Answer(429))
    with edge.client(road(clock)) as client:
        response = client.send("POST", f"{server.url}/echo", body=body)
    assert response.content == body
    assert edge.details(response).attempts == 2


def test_a_generator_is_sent_once_and_whole(
    edge: Edge, server: ApiServer, clock: FakeClock
) -> None:
    """A body that is made while it is sent passes as it would without ratekit."""

    def pieces() -> Iterator[bytes]:
        yield b"one "
        yield b"two"

    with edge.client(road(clock)) as client:
        assert client.send("POST", f"{server.url}/echo", body=pieces()).content == b"one two"


def test_an_edge_without_a_pipeline_retries(edge: Edge, server: ApiServer) -> None:
    """The default is retries alone."""
    server.script("/items", Answer(503))
    with instant(), edge.client() as client:
        assert edge.details(client.get(f"{server.url}/items")).attempts == 2


def test_a_lone_policy_is_a_pipeline(edge: Edge, server: ApiServer) -> None:
    """A single policy may stand in place of a pipeline."""
    server.script("/items", Answer(503))
    with edge.client(RateLimiter("1000/second burst 10")) as client:
        response = client.get(f"{server.url}/items")
    assert (response.status_code, edge.details(response).attempts) == (503, 1)


def test_an_empty_pipeline_changes_nothing(edge: Edge, server: ApiServer) -> None:
    """Without policies there is one attempt."""
    server.script("/items", Answer(503))
    with edge.client(Pipeline()) as client:
        assert client.get(f"{server.url}/items").status_code == 503
    assert server.requests == 1
