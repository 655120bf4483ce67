"""An answer of the user's own in place of a refusal or a failure."""

import pickle
from typing import Any, cast

import pytest

from ratekit import (
    Cache,
    CircuitBreaker,
    ConfigurationError,
    Fallback,
    Pipeline,
    RateLimited,
    RateLimiter,
    Retry,
)
from ratekit.call import Call, Outcome
from ratekit.fallback import LET_THROUGH
from ratekit.http.reply import Reply
from ratekit.testing import Answer, ApiServer, FakeClock
from tests.contracts.edges import EDGES, Edge

FAILED = Answer(500, [("Content-Type", "text/plain")], b"broken")


@pytest.fixture(params=EDGES, ids=str)
def edge(request: pytest.FixtureRequest) -> Edge:
    """Give each edge."""
    edge: Edge = request.param
    return edge


@pytest.mark.parametrize(
    ("answer", "content", "kind"),
    [
        ({"items": []}, b'{"items": []}', "application/json"),
        ([1, 2], b"[1, 2]", "application/json"),
        ("nothing", b"nothing", "text/plain; charset=utf-8"),
        (b"\x00", b"\x00", "application/octet-stream"),
        (Reply(203, [("content-type", "a/b")], b"own"), b"own", "a/b"),
        (lambda call, cause: {"status": cause.status}, b'{"status": 500}', "application/json"),
    ],
)
def test_a_failure_is_answered(
    edge: Edge, server: ApiServer, answer: Any, content: bytes, kind: str
) -> None:
    """With a native answer that says so."""
    with edge.client(Pipeline(Fallback(answer), Retry(attempts=1))) as client:
        server.script("/a", FAILED)
        response = client.get(f"{server.url}/a")
    assert response.content == content
    assert response.headers["content-type"] == kind
    assert response.status_code in {200, 203}
    assert edge.details(response).fallback


def test_what_is_fine_is_left_alone(edge: Edge, server: ApiServer) -> None:
    """And so is the caller's own mistake."""
    with edge.client(Pipeline(Fallback("nothing"))) as client:
        for status in (200, 404):
            server.script("/a", Answer(status, [], b"x"))
            response = client.get(f"{server.url}/a")
            assert response.status_code == status
            assert not edge.details(response).fallback


def test_a_connection_that_fails_is_answered(edge: Edge) -> None:
    """Nobody listens there."""
    with edge.client(Pipeline(Fallback("nothing"), Retry(attempts=1))) as client:
        assert client.get("http://127.0.0.1:9/a").text == "nothing"


def test_a_refusal_of_ours_is_answered(edge: Edge, server: ApiServer) -> None:
    """The limiter's, and an open circuit's."""
    limited = Pipeline(Fallback("later"), RateLimiter("1/hour", max_wait=0))
    breaker = CircuitBreaker()
    with edge.client(limited) as client:
        assert client.get(f"{server.url}/a").status_code == 200
        assert client.get(f"{server.url}/a").text == "later"
    breaker.force_open(server.url)
    with edge.client(Pipeline(Fallback("down"), breaker)) as client:
        assert client.get(f"{server.url}/a").text == "down"


def test_a_function_may_have_no_answer(edge: Edge, server: ApiServer) -> None:
    """Then what happened is the user's to see."""

    def only_limits(call: Call, cause: object) -> object:
        return "later" if isinstance(cause, RateLimited) else LET_THROUGH

    with edge.client(Pipeline(Fallback(only_limits))) as client:
        server.script("/a", FAILED)
        response = client.get(f"{server.url}/a")
        assert (response.status_code, response.content) == (500, b"broken")
        with pytest.raises(edge.error):
            client.get("http://127.0.0.1:9/a")


def test_the_user_may_say_what_counts(edge: Edge, server: ApiServer) -> None:
    """A 404 of an API that has no answer, say."""
    missing = Fallback(
        {"found": False}, on=lambda cause: isinstance(cause, Outcome) and cause.status == 404
    )
    with edge.client(Pipeline(missing)) as client:
        server.script("/a", Answer(404, [], b"x"), FAILED)
        assert client.get(f"{server.url}/a").json() == {"found": False}
        assert client.get(f"{server.url}/a").status_code == 500


def test_a_stale_answer_comes_first(edge: Edge, server: ApiServer) -> None:
    """Where a cache has one, and it is not too old."""
    clock = FakeClock()
    pipeline = Pipeline(
        Cache(clock=clock), Fallback("nothing", stale=600), Retry(attempts=1), clock=clock
    )
    fields = [("Cache-Control", "max-age=60"), ("ETag", '"a"')]
    with edge.client(pipeline) as client:
        server.script("/a", Answer(200, fields, b"kept"), FAILED, FAILED)
        client.get(f"{server.url}/a")
        clock.advance(100)
        response = client.get(f"{server.url}/a")
        assert response.content == b"kept"
        assert edge.details(response).fallback
        clock.advance(1000)
        assert client.get(f"{server.url}/a").content == b"nothing"


def test_what_stands_in_is_never_kept(edge: Edge, server: ApiServer) -> None:
    """The next caller asks again."""
    pipeline = Pipeline(Cache(ttl=60), Fallback("nothing"), Retry(attempts=1))
    with edge.client(pipeline) as client:
        server.script("/a", FAILED, Answer(200, [], b"fine"))
        assert client.get(f"{server.url}/a").content == b"nothing"
        assert client.get(f"{server.url}/a").content == b"fine"


def test_no_connection_is_lost_with_a_replaced_answer(edge: Edge, server: ApiServer) -> None:
    """It is given back."""
    with edge.client(Pipeline(Fallback("nothing"), Retry(attempts=1))) as client:
        server.script("/a", *[FAILED] * 5)
        for _ in range(5):
            with client.stream("GET", f"{server.url}/a") as response:
                assert response.status_code == 200
    assert server.stats().connections == 1


def test_a_function_falls_back_to_any_value() -> None:
    """Of a refusal always; of its own errors where that is said."""

    @Fallback(object)
    @RateLimiter("1/hour", max_wait=0)
    def limited() -> str:
        return "fine"

    @Fallback(-1, on=lambda cause: isinstance(cause, ValueError))
    def broken(error: Exception) -> int:
        raise error

    assert broken(ValueError()) == -1
    with pytest.raises(KeyError):
        broken(KeyError())


def test_an_error_in_the_users_function_is_the_users() -> None:
    """With what led to it."""

    def wrong(call: Call, cause: object) -> object:
        raise LookupError("no answer either")

    @Fallback(wrong, on=lambda cause: True)
    def broken() -> None:
        raise ValueError("first")

    with pytest.raises(LookupError) as caught:
        broken()
    assert isinstance(caught.value.__context__, ValueError)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (Fallback, "nothing to answer with"),
        (lambda: Fallback(stale=-1), "stale"),
        (lambda: Fallback(1, on=cast("Any", 3)), "function of the cause"),
        (lambda: Pipeline(Retry(), Fallback(1)), "further out"),
        (lambda: Pipeline(RateLimiter("1/second"), Fallback(1)), "further out"),
        (lambda: Pipeline(Fallback(stale=60), Retry()), "no Cache"),
    ],
)
def test_what_cannot_be_right_says_so(make: Any, says: str) -> None:
    """At construction."""
    with pytest.raises(ConfigurationError, match=says):
        make()


def test_an_answer_that_is_none_says_so(edge: Edge, server: ApiServer) -> None:
    """What is no JSON."""
    with edge.client(Pipeline(Fallback(object()), Retry(attempts=1))) as client:
        server.script("/a", FAILED)
        with pytest.raises(ConfigurationError, match="json"):
            client.get(f"{server.url}/a")


def test_a_fallback_travels() -> None:
    """As every policy does."""
    copy = pickle.loads(pickle.dumps(Pipeline(Fallback({"a": 1}))))  # noqa: S301
    assert repr(copy) == "Pipeline(Fallback({'a': 1}))"
    assert pickle.loads(pickle.dumps(LET_THROUGH)) is LET_THROUGH  # noqa: S301
