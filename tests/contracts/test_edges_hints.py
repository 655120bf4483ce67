"""What the body of an answer says of limits, on every edge."""

import gzip
import json

import httpx
import httpx2
import pytest
import requests

from ratekit import Pipeline, RateLimiter, Retry, options
from ratekit.stores import MemoryStore
from ratekit.testing import Answer, ApiServer, FakeClock
from tests.contracts.edges import Edge

LIMITED = json.dumps({"errors": [{"type": "RATE_LIMITED"}]}).encode()
RETRY_INFO = json.dumps(
    {
        "error": {
            "status": "RESOURCE_EXHAUSTED",
            "details": [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "7s"}],
        }
    }
).encode()
JSON = ("Content-Type", "application/json")
BROKEN = (requests.exceptions.ContentDecodingError, httpx.DecodingError, httpx2.DecodingError)
SECONDARY = b'{"message": "You have exceeded a secondary rate limit."}'


def reading(clock: FakeClock, *, read_bodies: bool = True) -> Pipeline:
    """Return a pipeline that learns on this clock."""
    limiter = RateLimiter(store=MemoryStore(clock=clock))
    return Pipeline(Retry(), limiter, clock=clock, options=options(read_bodies=read_bodies))


@pytest.mark.parametrize("coding", ["identity", "gzip"])
def test_a_200_that_says_it_was_throttled_is_repeated(
    edge: Edge, server: ApiServer, clock: FakeClock, coding: str
) -> None:
    """A GraphQL query is a POST, and was refused before it was run."""
    body = gzip.compress(LIMITED) if coding == "gzip" else LIMITED
    server.script("/graphql", Answer(200, [JSON, ("Content-Encoding", coding)], body))
    with edge.client(reading(clock)) as client:
        response = client.send("POST", f"{server.url}/graphql", body=b"{}")
    assert (response.status_code, edge.details(response).attempts) == (200, 2)
    assert response.content != LIMITED


def test_it_is_the_users_where_nobody_asked(
    edge: Edge, server: ApiServer, clock: FakeClock
) -> None:
    """A body is read for the caller alone."""
    server.script("/graphql", Answer(200, [JSON], LIMITED))
    with edge.client(reading(clock, read_bodies=False)) as client:
        response = client.send("POST", f"{server.url}/graphql", body=b"{}")
    assert (response.content, server.requests) == (LIMITED, 1)


def test_the_wait_that_a_body_asks_for_is_waited(
    edge: Edge, server: ApiServer, clock: FakeClock
) -> None:
    """Google says it in the body alone."""
    server.script("/items", Answer(429, [JSON], RETRY_INFO))
    began = clock.now_ns()
    with edge.client(reading(clock)) as client:
        assert client.get(f"{server.url}/items").status_code == 200
    assert 7 <= (clock.now_ns() - began) / 1e9 < 8


def test_a_403_in_words_alone_is_a_refusal(edge: Edge, server: ApiServer, clock: FakeClock) -> None:
    """As GitHub's secondary limits are; nobody has to ask for it."""
    server.script("/items", Answer(403, [JSON], SECONDARY))
    with edge.client(reading(clock, read_bodies=False)) as client:
        response = client.get(f"{server.url}/items")
    assert (response.status_code, edge.details(response).attempts) == (200, 2)


def test_another_403_is_handed_on_with_its_body(
    edge: Edge, server: ApiServer, clock: FakeClock
) -> None:
    """What was read ahead is the user's to read."""
    server.script("/items", Answer(403, [JSON], b'{"message": "no"}'))
    with edge.client(reading(clock)) as client:
        response = client.get(f"{server.url}/items")
    assert (response.status_code, response.content) == (403, b'{"message": "no"}')
    assert server.requests == 1


def test_a_body_without_end_is_not_waited_for(
    edge: Edge, server: ApiServer, clock: FakeClock
) -> None:
    """A long body is read as far as that is of use; the user gets all of it."""
    body = b"x" * 300_000
    server.script("/items", Answer(200, [JSON], body))
    with edge.client(reading(clock)) as client:
        assert client.get(f"{server.url}/items").content == body


def test_a_broken_coding_is_no_hint(edge: Edge, server: ApiServer, clock: FakeClock) -> None:
    """Whoever reads the body meets the error, and nobody else."""
    server.script("/items", Answer(403, [JSON, ("Content-Encoding", "gzip")], b"not gzip"))
    with edge.client(reading(clock)) as client, pytest.raises(BROKEN):
        client.get(f"{server.url}/items")
