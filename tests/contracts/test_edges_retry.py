"""What every edge repeats, what it does not, and how long it waits in between."""

import socket
from typing import Any

import pytest

import ratekit
from ratekit import Backoff, RateLimiter
from ratekit.testing import Answer, ApiServer, FakeClock
from tests.contracts.edges import Edge, road

NO_BACKOFF = Backoff("constant", base=0)
RETRIED = [408, 425, 429, 502, 503, 504, 529]


def nobodys_url() -> str:
    """Return a URL at which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}/items"


@pytest.mark.parametrize("status", [500, *RETRIED])
def test_a_get_is_repeated_on_a_passing_status(
    edge: Edge, server: ApiServer, clock: FakeClock, status: int
) -> None:
    """The user gets the answer of the second attempt."""
    server.script("/items", Answer(status))
    with edge.client(road(clock)) as client:
        response = client.get(f"{server.url}/items")
    assert (response.status_code, edge.details(response).attempts) == (200, 2)


@pytest.mark.parametrize("status", [304, 400, 401, 403, 404, 409, 422, 501, 505])
def test_other_statuses_are_not_repeated(
    edge: Edge, server: ApiServer, clock: FakeClock, status: int
) -> None:
    """The user gets them as they are."""
    server.script("/items", Answer(status))
    with edge.client(road(clock)) as client:
        assert client.get(f"{server.url}/items").status_code == status
    assert server.requests == 1


@pytest.mark.parametrize("status", [408, 500, 502, 503, 504, 529])
def test_a_post_that_the_server_may_have_acted_on_is_not_repeated(
    edge: Edge, server: ApiServer, clock: FakeClock, status: int
) -> None:
    """A failure proves nothing about a write."""
    server.script("/items", Answer(status, body=b"failed"))
    with edge.client(road(clock)) as client:
        response = client.send("POST", f"{server.url}/items", body=b"x")
    assert (response.status_code, response.content) == (status, b"failed")
    assert server.requests == 1


def test_a_post_is_not_repeated_on_a_503_with_retry_after(
    edge: Edge, server: ApiServer, clock: FakeClock
) -> None:
    """Such a 503 is about pace, and still proves nothing about a write."""
    server.script("/items", Answer(503, [("Retry-After", "1")]))
    with edge.client(road(clock)) as client:
        assert client.send("POST", f"{server.url}/items", body=b"x").status_code == 503
    assert server.requests == 1


@pytest.mark.parametrize("status", [425, 429])
def test_a_post_that_was_refused_unprocessed_is_repeated(
    edge: Edge, server: ApiServer, clock: FakeClock, status: int
) -> None:
    """Too early and too many mean that the server did nothing."""
    server.script("/items", Answer(status))
    with edge.client(road(clock)) as client:
        response = client.send("POST", f"{server.url}/items", body=b"x")
    assert (response.status_code, edge.details(response).attempts) == (200, 2)
    assert [seen.body for seen in server.seen("/items")] == [b"x", b"x"]


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
def test_an_idempotent_write_is_repeated_but_not_on_a_500(
    edge: Edge, server: ApiServer, clock: FakeClock, method: str
) -> None:
    """A 500 may be for good; a 503 passes."""
    server.script("/items", Answer(503), Answer(500))
    with edge.client(road(clock)) as client:
        response = client.send(method, f"{server.url}/items", body=b"x")
    assert (response.status_code, edge.details(response).attempts) == (500, 2)


@pytest.mark.parametrize("method", ["GET", "POST", "PATCH"])
def test_a_refused_connection_is_tried_again_whatever_the_method(
    edge: Edge, clock: FakeClock, method: str
) -> None:
    """Nothing was sent. The last native error is the user's, and says what was tried."""
    with edge.client(road(clock)) as client, pytest.raises(edge.unreachable) as caught:
        client.send(method, nobodys_url(), body=b"x")
    assert edge.details(caught.value).attempts == 4
    assert edge.details(caught.value).waited > 0


def test_a_native_error_is_what_it_would_be_without_ratekit(edge: Edge, clock: FakeClock) -> None:
    """Its type, text, cause and context are the library's own; nothing wraps it."""
    url = nobodys_url()
    with edge.bare() as bare, edge.client(road(clock)) as rated:
        with pytest.raises(edge.error) as expected:
            bare.get(url)
        with pytest.raises(edge.error) as caught:
            rated.get(url)

    def family(error: BaseException | None) -> list[object]:
        line: list[object] = []
        while error is not None:
            line.append((type(error), error.__suppress_context__, type(error.__cause__)))
            error = error.__context__
        return line

    assert type(caught.value) is type(expected.value)
    assert family(caught.value) == family(expected.value)
    assert str(caught.value.request.url) == url  # type: ignore[attr-defined]


def test_every_attempt_pays_a_permit(edge: Edge, server: ApiServer, clock: FakeClock) -> None:
    """Retries pass the limiter like first attempts."""
    server.script("/items", Answer(503), Answer(502))
    pipeline = road(clock, backoff=NO_BACKOFF)
    limiter = pipeline.policies[1]
    assert isinstance(limiter, RateLimiter)
    before = limiter.peek(server.url).remaining
    with edge.client(pipeline) as client:
        client.get(f"{server.url}/items")
    assert limiter.peek(server.url).remaining == before - 3


def idempotency_keys(server: ApiServer, path: str = "/items") -> list[str]:
    """Return the `Idempotency-Key` of every request that arrived."""
    return [
        value
        for seen in server.seen(path)
        for name, value in seen.headers
        if name.lower() == "idempotency-key"
    ]


def test_the_users_idempotency_key_allows_repeats_and_stays_the_same(
    edge: Edge, server: ApiServer, clock: FakeClock
) -> None:
    """A POST that carries one is repeated, with the same key each time."""
    server.script("/items", Answer(503), Answer(500))
    with edge.client(road(clock)) as client:
        response = client.send(
            "POST", f"{server.url}/items", body=b"x", headers={"idempotency-key": "mine"}
        )
    assert response.status_code == 200
    assert idempotency_keys(server) == ["mine"] * 3


def test_an_idempotency_key_is_made_on_request(
    edge: Edge, server: ApiServer, clock: FakeClock
) -> None:
    """Each call gets its own, the same on every attempt."""
    server.script("/items", Answer(503))
    with edge.client(road(clock)) as client, ratekit.options(idempotency_key=True):
        for _ in range(2):
            assert client.send("POST", f"{server.url}/items", body=b"x").status_code == 200
    first, again, second = idempotency_keys(server)
    assert first == again != second
    assert len(first) == 36


def test_an_idempotency_key_may_be_given_as_an_option(
    edge: Edge, server: ApiServer, clock: FakeClock
) -> None:
    """It is sent as it is; a header that the user set wins."""
    with edge.client(road(clock)) as client, ratekit.options(idempotency_key="chosen"):
        client.send("POST", f"{server.url}/items")
        client.send("POST", f"{server.url}/items", headers={"Idempotency-Key": "mine"})
    assert idempotency_keys(server) == ["chosen", "mine"]


@pytest.mark.parametrize("name", ["x-should-retry", "Stripe-Should-Retry"])
def test_a_server_may_forbid_repeats(
    edge: Edge, server: ApiServer, clock: FakeClock, name: str
) -> None:
    """Its word counts for more than the status."""
    server.script("/items", Answer(503, [(name, "false")]))
    with edge.client(road(clock)) as client:
        assert client.get(f"{server.url}/items").status_code == 503
    assert server.requests == 1


def test_a_server_may_ask_for_repeats(edge: Edge, server: ApiServer, clock: FakeClock) -> None:
    """Of a status, and of a method, that are not repeated otherwise."""
    server.script("/items", Answer(409, [("X-Should-Retry", "true")]))
    with edge.client(road(clock)) as client:
        assert client.send("POST", f"{server.url}/items", body=b"x").status_code == 200
    assert server.requests == 2


@pytest.mark.parametrize("asked", [False, True])
def test_an_option_decides_about_repeats(
    edge: Edge, server: ApiServer, clock: FakeClock, *, asked: bool
) -> None:
    """`retry=False` never repeats, `retry=True` repeats also a POST."""
    server.script("/items", Answer(503))
    with edge.client(road(clock)) as client, ratekit.options(retry=asked):
        method = "POST" if asked else "GET"
        response = client.send(method, f"{server.url}/items")
    assert (response.status_code, server.requests) == ((200, 2) if asked else (503, 1))


def test_the_last_real_answer_is_the_users(edge: Edge, server: ApiServer, clock: FakeClock) -> None:
    """When tries run out, the user gets the last answer with its own body."""
    server.script("/items", *[Answer(503, body=b"%d" % n) for n in range(1, 6)])
    with edge.client(road(clock)) as client:
        response = client.get(f"{server.url}/items")
    assert (response.status_code, response.content) == (503, b"4")
    assert edge.details(response).attempts == 4


@pytest.mark.parametrize("size", [10, 200_000])
def test_a_rejected_streamed_answer_gives_its_connection_back(
    edge: Edge, server: ApiServer, clock: FakeClock, size: int
) -> None:
    """A pool of one connection is enough: what is rejected is drained or closed."""
    server.script("/items", *[Answer(503, body=b"x" * size)] * 3)
    pool: dict[str, Any] = {"pool_maxsize": 1, "pool_block": True}
    if edge.name != "requests":
        pool = {"limits": edge.library.Limits(max_connections=1)}
    with edge.client(road(clock), **pool) as client:
        with client.stream("GET", f"{server.url}/items", timeout=5) as response:
            assert response.status_code == 200
            assert b"".join(edge.chunks(response)).startswith(b"{")
        assert client.get(f"{server.url}/items", timeout=5).status_code == 200
    # A short answer is read to its end, and its connection carries the next attempt.
    assert server.stats().connections == (1 if size == 10 else 4)


def test_the_last_streamed_answer_is_still_to_be_read(
    edge: Edge, server: ApiServer, clock: FakeClock
) -> None:
    """When tries run out on a streamed call, the body is the user's, from its beginning."""
    server.script("/items", *[Answer(503, body=b"busy, really")] * 4)
    with (
        edge.client(road(clock)) as client,
        client.stream("GET", f"{server.url}/items") as response,
    ):
        assert response.status_code == 503
        assert b"".join(edge.chunks(response)) == b"busy, really"
