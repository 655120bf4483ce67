"""`JsonBatch` over every client, at a bulk endpoint of a real server."""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest

from ratekit import ConfigurationError, Pipeline, RateLimiter, Retry
from ratekit.batch import BatchError, ItemError, JsonBatch, MissingAnswer
from ratekit.stores import MemoryStore
from ratekit.testing import FakeClock
from tests.contracts.edges import Edge


class Bulk:
    """A bulk endpoint: answers in another order than it was asked."""

    def __init__(self) -> None:
        self.calls: list[list[dict[str, Any]]] = []
        self.statuses: list[int] = []
        self.most = 1000
        self.change: Callable[[list[dict[str, Any]]], Any] = lambda responses: responses
        self.url = ""

    def answer(self, asked: Any) -> tuple[int, Any]:
        """Return the status and the body for what was asked."""
        requests = asked["requests"]
        self.calls.append(requests)
        if len(requests) > self.most:
            return 413, {}
        if self.statuses:
            return self.statuses.pop(0), {}
        responses = []
        for one in reversed(requests):
            said: dict[str, Any] = {"id": one["id"]}
            if one["endpoint"] == "broken":
                said["error"] = {"code": 7}
            else:
                said["data"] = {"endpoint": one["endpoint"], **one["params"]}
            responses.append(said)
        return 200, {"responses": self.change(responses)}


@pytest.fixture
def bulk() -> Iterator[Bulk]:
    """Give a server."""
    endpoint = Bulk()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            status, said = endpoint.answer(json.loads(body))
            text = json.dumps(said).encode() if said != "no json" else b"<html>"
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as site:
        thread = Thread(target=site.serve_forever, args=(0.01,))
        thread.start()
        endpoint.url = f"http://127.0.0.1:{site.server_port}/batch"
        yield endpoint
        site.shutdown()
        thread.join()


@pytest.fixture
def limiter(clock: FakeClock) -> RateLimiter:
    """Give a limiter that counts."""
    return RateLimiter("1000/hour burst 1000", headroom=1, store=MemoryStore(clock=clock))


@pytest.fixture
def client(edge: Edge, clock: FakeClock, limiter: RateLimiter) -> Iterator[Any]:
    """Give the library's own client, with a pipeline under it."""
    with edge.client(Pipeline(Retry(), limiter, clock=clock)) as one:
        yield one.native


def test_each_has_its_own_answer(client: Any, bulk: Bulk, limiter: RateLimiter) -> None:
    """In whatever order they come; a batch costs one permit."""
    batch = JsonBatch(client, bulk.url, max_delay=20)
    asked = [(f"users/{number}", {"page": number}) for number in range(300)]
    answers = batch.load_many(asked)
    assert answers == [{"endpoint": endpoint, **params} for endpoint, params in asked]
    assert [len(call) for call in bulk.calls] == [100, 100, 100]
    assert limiter.peek(bulk.url.removesuffix("/batch")).remaining == 997


def test_calls_of_many_threads(client: Any, bulk: Bulk) -> None:
    """Are few bulk calls."""
    batch = JsonBatch(client, bulk.url, max_size=8, max_delay=5)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(batch.load, [f"users/{number}" for number in range(64)]))
    assert [answer["endpoint"] for answer in answers] == [f"users/{n}" for n in range(64)]
    assert len(bulk.calls) == 8


def test_an_error_is_its_callers_alone(client: Any, bulk: Bulk) -> None:
    """With what the server said."""
    good, broken = JsonBatch(client, bulk.url, max_delay=0.03).load_many(
        ["good", "broken"], return_exceptions=True
    )
    assert good == {"endpoint": "good"}
    assert isinstance(broken, ItemError)
    assert broken.error == {"code": 7}
    assert "broken with" in str(broken)


@pytest.mark.parametrize(
    ("change", "kind", "said"),
    [
        (lambda responses: responses[1:], MissingAnswer, "no answer for b with"),
        (lambda responses: [responses[0], *responses], BatchError, "2 answers for b with"),
        (lambda responses: [{"id": "1"}, responses[1]], BatchError, "neither data nor error"),
    ],
)
def test_an_answer_that_is_not_there_is_named(
    client: Any, bulk: Bulk, change: Any, kind: type[Exception], said: str
) -> None:
    """The others have theirs."""
    bulk.change = change
    a, b = JsonBatch(client, bulk.url, max_delay=0.03).load_many(["a", "b"], return_exceptions=True)
    assert a == {"endpoint": "a"}
    assert isinstance(b, kind)
    assert said in str(b)


@pytest.mark.parametrize(
    ("change", "said"), [(lambda _: "no", "is expected"), (lambda _: {"a": 1}, "is expected")]
)
def test_another_shape_is_an_error_that_says_which_is_right(
    client: Any, bulk: Bulk, change: Any, said: str
) -> None:
    """To all of the batch."""
    bulk.change = change
    with pytest.raises(BatchError, match=said):
        JsonBatch(client, bulk.url, max_delay=0.03).load("a")


def test_one_that_is_too_large_is_halved(client: Any, bulk: Bulk) -> None:
    """A 413 loses nobody's answer."""
    bulk.most = 30
    batch = JsonBatch(client, bulk.url, max_delay=20)
    answers = batch.load_many([f"users/{number}" for number in range(100)])
    assert [answer["endpoint"] for answer in answers] == [f"users/{n}" for n in range(100)]
    assert [len(call) for call in bulk.calls] == [100, 50, 25, 25, 50, 25, 25]


def test_a_refused_call_is_retried_whole(client: Any, bulk: Bulk) -> None:
    """By the pipeline: a 429 says that nothing was done."""
    bulk.statuses = [429, 429]
    assert JsonBatch(client, bulk.url, max_delay=0.03).load_many(["a", "b"])[1] == {"endpoint": "b"}
    assert [len(call) for call in bulk.calls] == [2, 2, 2]


def test_a_bad_status_is_the_clients_own_error(edge: Edge, client: Any, bulk: Bulk) -> None:
    """For everybody in the batch."""
    bulk.statuses = [400]
    a, b = JsonBatch(client, bulk.url, max_delay=0.03).load_many(["a", "b"], return_exceptions=True)
    assert a.response.status_code == b.response.status_code == 400
    assert type(a).__name__ in {"HTTPError", "HTTPStatusError"}


def test_equal_ones_are_asked_once(client: Any, bulk: Bulk) -> None:
    """In whatever order the parameters are written; not where each is wanted."""
    asked: Any = [("a", {"x": 1, "y": 2}), ("a", {"y": 2, "x": 1})]
    JsonBatch(client, bulk.url, max_delay=0.03).load_many(asked)
    JsonBatch(client, bulk.url, merge=False, max_delay=0.03).load_many(asked)
    assert [len(call) for call in bulk.calls] == [1, 2]


def test_headers_and_the_end_of_a_block(client: Any, bulk: Bulk) -> None:
    """What waits is sent."""
    with JsonBatch(client, bulk.url, post={"headers": {"X-A": "b"}}, max_delay=60) as batch:
        future = batch.submit("a")
    assert future.result() == {"endpoint": "a"}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda: JsonBatch(5, "http://x"), "use a requests.Session"),
        (lambda: JsonBatch(_Client(), "http://x").load(5), "endpoint 5: use text"),  # type: ignore[arg-type]
        (lambda: JsonBatch(_Client(), "http://x").load("a", {"b": object()}), "params of 'a'"),
        (lambda: JsonBatch(_Client(), "http://x", options=5), "options 5"),  # type: ignore[arg-type]
    ],
)
def test_what_cannot_be_right(wrong: Callable[[], object], said: str) -> None:
    """Is said to whoever wrote it, and nothing is sent."""
    with pytest.raises(ConfigurationError, match=said):
        wrong()


class _Client:
    def post(self, *_: Any, **__: Any) -> None:
        raise AssertionError
