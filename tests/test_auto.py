"""A program that does not know of ratekit sends through it."""

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import httpx2
import pytest
import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry as Urllib3Retry

import ratekit.auto
import ratekit.httpx
from ratekit import Pipeline, RateLimiter, Retry
from ratekit.requests import RateKitAdapter
from ratekit.testing import Answer, ApiServer

Get = Callable[[str], Any]

# To import it is to install it; the other tests' clients are to be as they are.
ratekit.auto.uninstall()


@pytest.fixture
def pipeline() -> Iterator[Pipeline]:
    """Give the pipeline that is under every client during a test."""
    ratekit.auto.uninstall()
    chosen = Pipeline(Retry(), RateLimiter("1000/second"))
    assert ratekit.auto.install(chosen) is chosen
    yield chosen
    ratekit.auto.uninstall()


def calls(pipeline: Pipeline) -> int:
    """Return how many calls the pipeline has seen."""
    return sum(about["calls"] for about in pipeline.stats().values())


def session(url: str) -> Any:
    """Ask with a session."""
    with requests.Session() as one:
        return one.get(url)


def client(url: str) -> Any:
    """Ask with a client of httpx."""
    with httpx.Client() as one:
        return one.get(url)


def newer_client(url: str) -> Any:
    """Ask with a client of httpx2."""
    with httpx2.Client() as one:
        return one.get(url)


@pytest.mark.parametrize("get", [session, client, newer_client, requests.get, httpx.get])
def test_every_client_goes_through_it(get: Get, pipeline: Pipeline, server: ApiServer) -> None:
    """Whoever makes it, it is limited and retried."""
    server.script("/items", Answer(503))
    assert get(f"{server.url}/items").status_code == 200
    assert (calls(pipeline), server.requests) == (1, 2)


def test_a_session_that_was_there_before_goes_through_it_too(server: ApiServer) -> None:
    """A session is asked for its adapter with every request."""
    with requests.Session() as one:
        ratekit.auto.uninstall()
        chosen = ratekit.auto.install(Pipeline(Retry()))
        try:
            one.get(f"{server.url}/items")
        finally:
            ratekit.auto.uninstall()
        one.get(f"{server.url}/items")
    assert (calls(chosen), server.requests) == (1, 2)


def test_a_client_that_has_ratekit_is_left_alone(pipeline: Pipeline, server: ApiServer) -> None:
    """It would pass two pipelines."""
    own = Pipeline(Retry())
    with requests.Session() as one:
        one.mount("http://", RateKitAdapter(own))
        one.get(f"{server.url}/items")
    with httpx.Client(transport=ratekit.httpx.RateKitTransport(own)) as two:
        two.get(f"{server.url}/items")
    assert (calls(own), calls(pipeline)) == (2, 0)


def test_their_own_transports_stay_underneath(pipeline: Pipeline) -> None:
    """What was mounted answers, and not a connection of ours."""

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"path": request.url.path})

    mocked = httpx.MockTransport(answer)
    with httpx.Client(transport=mocked, mounts={"http://other": mocked}) as one:
        assert one.get("http://nowhere/a").json() == {"path": "/a"}
        assert one.get("http://other/b").json() == {"path": "/b"}
    assert calls(pipeline) == 2


def test_retries_below_are_switched_off_and_said(
    pipeline: Pipeline, server: ApiServer, caplog: pytest.LogCaptureFixture
) -> None:
    """They would pass by the limit; ours are there."""
    below = HTTPAdapter(max_retries=Urllib3Retry(5, status_forcelist=[503]))
    server.script("/items", Answer(503))
    with requests.Session() as one:
        one.mount("http://", below)
        response: Any = one.get(f"{server.url}/items")
    assert (response.status_code, response.ratekit.attempts) == (200, 2)
    assert "retries below ratekit" in caplog.text
    with httpx.Client(transport=httpx.HTTPTransport(retries=3)) as two:
        assert two.get(f"{server.url}/items").status_code == 200
        ratekit.auto.uninstall()
        transport: Any = two._transport
        assert transport._pool._retries == 3
    assert below.max_retries.total == 5


def test_undone_nothing_is_left(pipeline: Pipeline, server: ApiServer) -> None:
    """Clients that were made meanwhile send as if it had never been there."""
    with httpx.Client() as one, requests.Session() as two:
        one.get(f"{server.url}/items")
        two.get(f"{server.url}/items")
        ratekit.auto.uninstall()
        assert ratekit.auto.installed() is None
        one.get(f"{server.url}/items")
        two.get(f"{server.url}/items")
    assert (calls(pipeline), server.requests) == (2, 4)


def test_a_second_time_changes_nothing(pipeline: Pipeline) -> None:
    """Of two modules that import it, neither undoes the other's."""
    assert ratekit.auto.install(Pipeline(Retry())) is pipeline
    assert ratekit.auto.installed() is pipeline
