"""The edges to httpx and httpx2, where they differ from requests: streams, extensions, wrapping."""

import asyncio
import io
import threading
from typing import Any, Self

import pytest

import ratekit
import ratekit.httpx
import ratekit.httpx2
from ratekit import Backoff, ConfigurationError, Pipeline, RateLimited, RateLimiter, Retry
from ratekit.testing import Answer, ApiServer, FakeClock, instant
from tests.contracts.edges import EDGES, Edge, road


@pytest.fixture(params=EDGES[1:], ids=repr)
def edge(request: pytest.FixtureRequest) -> Edge:
    """Give httpx and httpx2."""
    one: Edge = request.param
    return one


def test_each_transport_descends_from_its_own_library_alone() -> None:
    """SDKs reject a transport that has the other one among its ancestors."""
    for ours, name in ((ratekit.httpx, "httpx"), (ratekit.httpx2, "httpx2")):
        for kind in (ours.RateKitTransport, ours.RateLimited, ours.DeadlineExceeded):
            packages = {ancestor.__module__.partition(".")[0] for ancestor in kind.__mro__}
            assert packages & {"httpx", "httpx2"} == {name}


def test_a_transport_of_the_other_library_is_refused(edge: Edge) -> None:
    """Its responses would be a bare AssertionError inside the client."""
    name = {"httpx": "httpx2", "httpx2": "httpx"}[edge.name]
    theirs = next(one for one in EDGES if one.name == name)
    for transport in (theirs.plain(), theirs.library.MockTransport(lambda request: None)):
        with pytest.raises(ConfigurationError, match=f"use it with ratekit.{name}$"):
            edge.around(transport)


def test_retries_below_the_limiter_are_refused(edge: Edge) -> None:
    """Those of the transport would pass by the limiter, given or wrapped."""
    with pytest.raises(ConfigurationError, match=r"retries=2.*Retry\(attempts="):
        edge.transport(None, retries=2)
    with pytest.raises(ConfigurationError, match=r"retries=2.*Retry\(attempts="):
        edge.around(edge.library.HTTPTransport(retries=2))
    edge.transport(None, retries=0).close()


def test_r5_a_generator_before_a_503_gives_back_the_503(
    edge: Edge, server: ApiServer, clock: FakeClock
) -> None:
    """httpx-retries raised StreamConsumed, and the answer was lost."""
    server.script("/items", Answer(503, body=b"busy"))
    with edge.client(road(clock)) as client:
        response = client.native.put(f"{server.url}/items", content=(p for p in (b"a", b"bc")))
    assert (response.status_code, response.content) == (503, b"busy")
    assert [seen.body for seen in server.seen("/items")] == [b"abc"]


def test_r18_retries_are_spread_out_by_default(edge: Edge, server: ApiServer) -> None:
    """httpx-retries made 4 hits in 6 ms; the default back-off waits, longer each time."""
    server.script("/items", *[Answer(503)] * 5)
    policy = Retry(backoff=Backoff(uniform=max))
    assert (policy.backoff, Retry().backoff) == (Backoff(uniform=max), Backoff())
    with instant(), edge.client(policy) as client:
        details = edge.details(client.get(f"{server.url}/items"))
    assert (details.attempts, details.waited) == (4, 0.5 + 1.0 + 2.0)


def test_the_last_refusal_is_unread_where_the_user_streams(
    edge: Edge, server: ApiServer, clock: FakeClock
) -> None:
    """SDKs look at `is_closed` and `is_stream_consumed` before they read an error body."""
    server.script("/items", *[Answer(503, body=b"busy, really")] * 4)
    with edge.client(road(clock)) as client, client.stream("GET", f"{server.url}/items") as answer:
        assert (answer.is_closed, answer.is_stream_consumed) == (False, False)
        assert answer.read() == b"busy, really"
        assert (answer.is_closed, answer.is_stream_consumed) == (True, True)


@pytest.mark.parametrize("size", [10, 200_000])
def test_an_answer_handed_back_in_place_of_a_refusal_is_unread_too(
    edge: Edge, server: ApiServer, clock: FakeClock, size: int
) -> None:
    """It was kept while the call waited, and read ahead if it was short: the user cannot tell."""
    body = b"x" * size
    server.script("/items", Answer(503, body=body))
    with (
        edge.client(road(clock, "1/minute", max_wait=1)) as client,
        client.stream("GET", f"{server.url}/items") as answer,
    ):
        assert (answer.is_closed, answer.is_stream_consumed) == (False, False)
        assert b"".join(answer.iter_raw()) == body
        assert answer.num_bytes_downloaded == size


def test_an_answer_that_broke_off_while_it_was_kept_breaks_off_for_the_user(
    edge: Edge, server: ApiServer, clock: FakeClock
) -> None:
    """The same bytes, then the library's own error."""
    server.script("/items", Answer(503, body=b"x" * 100, fault="truncate"))
    with (
        edge.client(road(clock, "1/minute", max_wait=1)) as client,
        client.stream("GET", f"{server.url}/items") as answer,
    ):
        assert answer.status_code == 503
        pieces: list[bytes] = []
        with pytest.raises(edge.library.RemoteProtocolError):
            pieces.extend(answer.iter_raw())
    assert b"".join(pieces) == b"x" * 50


def test_a_body_that_breaks_off_is_the_users(
    edge: Edge, server: ApiServer, clock: FakeClock
) -> None:
    """The transport has handed the answer over by then: httpx reads it itself."""
    server.script("/items", Answer(200, body=b"x" * 100, fault="truncate"))
    with edge.client(road(clock)) as client, pytest.raises(edge.library.RemoteProtocolError):
        client.get(f"{server.url}/items")
    assert server.requests == 1


def test_options_come_with_one_request(edge: Edge, server: ApiServer, clock: FakeClock) -> None:
    """`extensions={"ratekit": ...}` wins over the block around it."""
    with edge.client(road(clock)) as client, ratekit.options(key="block", max_wait=3):
        given = {"ratekit": ratekit.options(key="request")}
        response = client.native.get(f"{server.url}/items", extensions=given)
        assert edge.details(response).key == "request"
        assert edge.details(client.get(f"{server.url}/items")).key == "block"


def test_an_extension_that_is_no_options_says_what_would_be_right(
    edge: Edge, clock: FakeClock
) -> None:
    """Before anything is sent."""
    with (
        edge.client(road(clock)) as client,
        pytest.raises(ConfigurationError, match=r"use ratekit.options\(\.\.\.\)"),
    ):
        client.native.get("http://127.0.0.1:9/", extensions={"ratekit": {"key": "x"}})


class _Transport:
    """Stands for somebody's own transport: notes what each attempt was given."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.extensions: list[Any] = []
        self.closed = 0

    def handle_request(self, request: Any) -> Any:
        self.extensions.append(request.extensions)
        return self.answers.pop(0)

    def close(self) -> None:
        self.closed += 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def test_extensions_are_passed_by_reference(edge: Edge, clock: FakeClock) -> None:
    """Live objects in them are neither copied nor hashed."""
    live: Any = type("Unhashable", (), {"__hash__": None, "__deepcopy__": None})()
    response = edge.library.Response
    inner = _Transport(response(503), response(200), response(200))
    request = edge.library.Request("GET", "http://api/", extensions={"live": live})
    transport = edge.around(inner, road(clock))
    transport.handle_request(request)
    assert inner.extensions[0] is inner.extensions[1] is request.extensions
    with ratekit.options(deadline=3):
        transport.handle_request(request)
    assert inner.extensions[2]["live"] is request.extensions["live"] is live
    assert "timeout" not in request.extensions


def test_a_deadline_shortens_every_timeout_of_an_attempt(edge: Edge, clock: FakeClock) -> None:
    """Those that are longer, or not set; the shorter ones stay."""
    inner = _Transport(edge.library.Response(200))
    timeout = edge.library.Timeout(connect=1, read=50, write=None, pool=2).as_dict()
    request = edge.library.Request("GET", "http://api/", extensions={"timeout": timeout})
    with ratekit.options(deadline=3):
        edge.around(inner, road(clock)).handle_request(request)
    assert inner.extensions[0]["timeout"] == {"connect": 1, "read": 3.0, "write": 3.0, "pool": 2}
    assert request.extensions["timeout"] == {"connect": 1, "read": 50, "write": None, "pool": 2}


def test_answers_that_were_read_already_pass(edge: Edge, clock: FakeClock) -> None:
    """A mock's, or a cache's: also as rejected ones, and when tries run out."""
    replies = iter([503, 429, 200, *[503] * 4])

    def answer(request: Any) -> Any:
        return edge.library.Response(next(replies), content=b"read", headers={"X-A": "b"})

    with edge.on(edge.around(edge.library.MockTransport(answer), road(clock))) as client:
        response = client.get("http://api.example/items")
        assert (response.status_code, response.content) == (200, b"read")
        assert edge.details(response).attempts == 3
        last = client.get("http://api.example/items")
        assert (last.status_code, last.content) == (503, b"read")


@pytest.mark.parametrize(
    "length",
    [b"\xb2", b"9" * 5000, b"-1", b""],
    ids=["superscript", "5000 digits", "negative", "empty"],
)
def test_a_content_length_that_makes_no_sense_is_no_error(
    edge: Edge, clock: FakeClock, length: bytes
) -> None:
    """h11 refuses such a head itself; another transport may let it pass."""
    byte_stream = edge.library.ByteStream

    def respond(status: int) -> Any:
        headers = [(b"content-length", length)]
        return edge.library.Response(status, headers=headers, stream=byte_stream(b"body"))

    transport = edge.around(_Transport(respond(503), respond(200)), road(clock))
    with edge.on(transport) as client:
        assert client.get("http://api.example/").content == b"body"


def test_a_wsgi_application_can_be_wrapped(edge: Edge, clock: FakeClock) -> None:
    """Its errors are retried like a server's."""
    statuses = ["200 OK", "503 Busy"]

    def application(environ: dict[str, Any], start: Any) -> list[bytes]:
        start(statuses.pop(), [("Content-Type", "text/plain")])
        return [b"from ", environ["PATH_INFO"].encode()]

    inner = edge.library.WSGITransport(app=application)
    with edge.on(edge.around(inner, road(clock))) as client:
        response = client.get("http://testserver/items")
    assert (response.status_code, response.text) == (200, "from /items")
    assert edge.details(response).attempts == 2


def test_a_mocks_error_is_retried_and_then_the_users(edge: Edge, clock: FakeClock) -> None:
    """As raised, with its own cause."""
    cause = OSError("the cable")
    tries: list[int] = []

    def answer(request: Any) -> Any:
        tries.append(1)
        raise edge.library.ReadError("broken", request=request) from cause

    with (
        edge.on(edge.around(edge.library.MockTransport(answer), road(clock))) as client,
        pytest.raises(edge.library.ReadError, match="broken") as caught,
    ):
        client.get("http://api.example/items")
    assert caught.value.__cause__ is cause
    assert len(tries) == edge.details(caught.value).attempts == 4


@pytest.mark.parametrize("kind", ["UnsupportedProtocol", "LocalProtocolError"])
def test_a_mistake_of_the_user_is_not_repeated(edge: Edge, clock: FakeClock, kind: str) -> None:
    """No other attempt could fare better."""
    tries: list[int] = []

    def answer(request: Any) -> Any:
        tries.append(1)
        raise getattr(edge.library, kind)("no")

    with (
        edge.on(edge.around(edge.library.MockTransport(answer), road(clock))) as client,
        pytest.raises(getattr(edge.library, kind)),
    ):
        client.get("http://api.example/items")
    assert len(tries) == 1


def test_what_is_no_error_of_the_transport_passes_through(edge: Edge, clock: FakeClock) -> None:
    """A bug in somebody's handler is not retried, and not hidden."""

    def answer(request: Any) -> Any:
        raise ZeroDivisionError

    with (
        edge.on(edge.around(edge.library.MockTransport(answer), road(clock))) as client,
        pytest.raises(ZeroDivisionError),
    ):
        client.get("http://api.example/items")


def test_an_async_client_says_that_ratekit_is_synchronous(edge: Edge) -> None:
    """At its first use, with and without `async with`."""

    async def send() -> None:
        client = edge.library.AsyncClient(transport=edge.transport())
        try:
            await client.get("http://127.0.0.1:9/")
        finally:
            await client.aclose()

    async def enter() -> None:
        async with edge.library.AsyncClient(transport=edge.transport()):
            raise AssertionError("not reached")

    for use in (send, enter):
        with pytest.raises(ConfigurationError, match=f"with {edge.name}.Client, not AsyncClient"):
            asyncio.run(use())


def test_an_async_transport_cannot_be_wrapped(edge: Edge) -> None:
    """The message names one that can."""
    inner = edge.library.AsyncHTTPTransport()
    with pytest.raises(ConfigurationError, match=f"synchronous {edge.name} transport"):
        edge.around(inner)


def test_a_multipart_with_a_pipe_in_it_is_never_replayed(
    edge: Edge, server: ApiServer, clock: FakeClock
) -> None:
    """One part that can be read once makes the whole body one-shot."""

    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

        def seek(self, *_: Any) -> int:
            raise io.UnsupportedOperation("seek")

        def fileno(self) -> int:
            raise OSError("none")

    server.script("/items", Answer(429))
    files = {"a": ("a", io.BytesIO(b"content")), "b": ("b", Pipe(b"once"))}
    with edge.client(road(clock)) as client:
        response = client.send("POST", f"{server.url}/items", files=files)
    assert response.status_code == 429
    assert server.requests == 1


def test_a_body_that_was_read_can_be_replayed(
    edge: Edge, server: ApiServer, clock: FakeClock
) -> None:
    """`request.read()`, as some SDKs do, makes bytes of any body."""
    server.script("/items", Answer(429))
    with edge.client(road(clock)) as client:
        request = client.native.build_request(
            "POST", f"{server.url}/items", content=(piece for piece in (b"a", b"bc"))
        )
        request.read()
        assert client.native.send(request).status_code == 200
    assert [seen.body for seen in server.seen("/items")] == [b"abc", b"abc"]


def test_the_pool_is_large_enough_for_threads(edge: Edge) -> None:
    """And may be chosen as ever."""
    with edge.transport() as transport:
        assert transport.transport._pool._max_connections == 256
        assert transport.transport._pool._max_keepalive_connections == 256
    with edge.transport(None, limits=edge.library.Limits(max_connections=3)) as transport:
        assert transport.transport._pool._max_connections == 3


def test_a_pool_that_is_exhausted_is_never_sent(
    edge: Edge, server: ApiServer, clock: FakeClock
) -> None:
    """Also a POST tries again for a connection, and nothing arrived twice."""
    limits = edge.library.Limits(max_connections=1)
    with edge.client(road(clock), limits=limits) as client:
        with (
            client.stream("GET", f"{server.url}/stream/5"),
            pytest.raises(edge.library.PoolTimeout) as caught,
        ):
            client.send("POST", f"{server.url}/items", timeout=0.02)
        assert edge.details(caught.value).attempts == 4
        assert client.send("POST", f"{server.url}/items", timeout=5).status_code == 200
    assert len(server.seen("/items")) == 1


def test_event_hooks_and_auth_see_what_they_saw(
    edge: Edge, server: ApiServer, clock: FakeClock
) -> None:
    """Hooks run for each answer that leaves the transport, not for each attempt; each one pays."""
    seen: list[str] = []
    challenge = ("WWW-Authenticate", 'Digest realm="r", nonce="n", qop="auth"')
    server.script("/items", Answer(503), Answer(401, [challenge]))
    pipeline = road(clock)
    limiter = pipeline.policies[1]
    assert isinstance(limiter, RateLimiter)
    before = limiter.peek(server.url).remaining
    with edge.client(pipeline) as client:
        client.native.event_hooks = {
            "request": [lambda request: seen.append(request.method)],
            "response": [lambda response: seen.append(str(response.status_code))],
        }
        auth = edge.library.DigestAuth("user", "secret")
        response = client.native.get(f"{server.url}/items", auth=auth)
    assert response.status_code == 200
    assert seen == ["GET", "401", "GET", "200"]
    assert limiter.peek(server.url).remaining == before - 3


def test_one_transport_serves_many_threads(edge: Edge, server: ApiServer) -> None:
    """Each gets its own answers."""
    got: list[bool] = []
    with edge.client(Pipeline(Retry(), RateLimiter("1000000/second burst 1000"))) as client:

        def work(number: int) -> None:
            for turn in range(5):
                name = f"{number}-{turn}"
                response = client.send("POST", f"{server.url}/echo", body=name.encode())
                got.append(response.text == name)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert got == [True] * 40


def test_a_refusal_inside_a_context_closes_nothing(
    edge: Edge, server: ApiServer, clock: FakeClock
) -> None:
    """After `RateLimited` the client is as usable as before."""
    with edge.client(road(clock, "1/minute", max_wait=1)) as client:
        client.get(f"{server.url}/items")
        with pytest.raises(RateLimited):
            client.get(f"{server.url}/items")
        clock.advance(60)
        assert client.get(f"{server.url}/items").status_code == 200
    assert server.stats().connections == 1
