"""ratekit under the libraries that people mock HTTP with: which of them its edges run under."""

from pathlib import Path
from typing import Any

import httpx
import httpx2
import pytest
import requests
import requests_mock
import responses
import respx
import vcr
from pytest_httpx import HTTPXMock

from ratekit import RateLimited, RateLimiter
from ratekit.httpx import RateKitTransport
from ratekit.requests import RateKitAdapter
from ratekit.testing import Answer, ApiServer, FakeClock
from tests.contracts.edges import EDGES, Edge, road

URL = "https://api.example.com/items"


@pytest.fixture
def clock() -> FakeClock:
    """Give a clock on which every wait is over at once."""
    return FakeClock()


@pytest.fixture(params=EDGES, ids=repr)
def edge(request: pytest.FixtureRequest) -> Edge:
    """Give each edge in turn."""
    one: Edge = request.param
    return one


def permits_left(pipeline: Any) -> int:
    """Return how many of a thousand permits are left for the mocked API."""
    limiter = pipeline.policies[1]
    assert isinstance(limiter, RateLimiter)
    return limiter.peek("https://api.example.com").remaining


def test_r19_responses_sees_every_attempt(clock: FakeClock) -> None:
    """`responses` replaces `HTTPAdapter.send` below ours: retries and limits happen."""
    pipeline = road(clock)
    before = permits_left(pipeline)
    with responses.RequestsMock() as mock, requests.Session() as session:
        mock.get(URL, status=503)
        mock.get(URL, json={"a": 1})
        session.mount("https://", RateKitAdapter(pipeline))
        response = session.get(URL)
        assert len(mock.calls) == 2
    assert response.json() == {"a": 1}
    assert response.ratekit.attempts == 2  # type: ignore[attr-defined]
    assert permits_left(pipeline) == before - 2


def test_responses_errors_are_retried(clock: FakeClock) -> None:
    """What a mocked body raises is an error of the attempt."""
    with responses.RequestsMock() as mock, requests.Session() as session:
        mock.get(URL, body=requests.ConnectionError("broken"))
        mock.get(URL, body="fine")
        session.mount("https://", RateKitAdapter(road(clock)))
        assert session.get(URL).text == "fine"


def test_r19_requests_mock_puts_its_own_adapter_in_our_place(clock: FakeClock) -> None:
    """`requests_mock.Mocker()` replaces the adapter of the session: nothing of ratekit runs."""
    pipeline = road(clock)
    before = permits_left(pipeline)
    with requests_mock.Mocker() as mock, requests.Session() as session:
        mock.get(URL, status_code=503)
        session.mount("https://", RateKitAdapter(pipeline))
        response = session.get(URL)
        assert mock.call_count == 1
    assert response.status_code == 503
    assert not hasattr(response, "ratekit")
    assert permits_left(pipeline) == before


def test_r19_an_adapter_of_requests_mock_can_be_wrapped(clock: FakeClock) -> None:
    """That is the way to have both: ratekit around the mock's adapter."""
    mock = requests_mock.Adapter()
    mock.register_uri("GET", URL, [{"status_code": 503}, {"text": "fine"}])
    with requests.Session() as session:
        session.mount("https://", RateKitAdapter(road(clock), adapter=mock))
        assert session.get(URL).text == "fine"
    assert mock.call_count == 2


def test_r19_a_mock_transport_can_be_wrapped(edge: Edge, clock: FakeClock) -> None:
    """`MockTransport` under ours is called for every attempt."""
    if edge.name == "requests":
        pytest.skip("requests has no such thing")
    pipeline = road(clock)
    before = permits_left(pipeline)
    replies = [200, 429]

    def answer(request: Any) -> Any:
        return edge.library.Response(replies.pop(), json={"a": 1})

    with edge.on(edge.around(edge.library.MockTransport(answer), pipeline)) as client:
        assert client.get(URL).json() == {"a": 1}
    assert permits_left(pipeline) < before - 1


def test_r19_respx_sees_every_attempt(clock: FakeClock) -> None:
    """respx replaces httpcore, which is below our transport."""
    pipeline = road(clock)
    before = permits_left(pipeline)
    with respx.mock() as mock, httpx.Client(transport=RateKitTransport(pipeline)) as client:
        route = mock.get(URL)
        route.side_effect = [
            httpx.Response(503),
            httpx.ConnectError("broken"),
            httpx.Response(200, json={"a": 1}),
        ]
        response = client.get(URL)
        assert route.call_count == 3
    assert response.json() == {"a": 1}
    assert response.extensions["ratekit"].attempts == 3
    assert permits_left(pipeline) == before - 3


def test_respx_told_to_mock_httpx_puts_its_own_transport_in_our_place(clock: FakeClock) -> None:
    """With `using="httpx"` the client is given another transport: nothing of ratekit runs."""
    with respx.mock(using="httpx") as mock:
        route = mock.get(URL).respond(503)
        with httpx.Client(transport=RateKitTransport(road(clock))) as client:
            response = client.get(URL)
        assert route.call_count == 1
    assert "ratekit" not in response.extensions


def test_pytest_httpx_sees_every_attempt(httpx_mock: HTTPXMock, clock: FakeClock) -> None:
    """It replaces the send of httpx's own transport, which is below ours."""
    httpx_mock.add_response(status_code=503)
    httpx_mock.add_exception(httpx.ReadTimeout("slow"))
    httpx_mock.add_response(json={"a": 1})
    with httpx.Client(transport=RateKitTransport(road(clock))) as client:
        response = client.get(URL)
    assert response.json() == {"a": 1}
    assert len(httpx_mock.get_requests()) == 3


def test_pytest_httpx2_sees_every_attempt(httpx2_mock: respx.Router, clock: FakeClock) -> None:
    """It replaces httpcore2, far below."""
    edge = EDGES[2]
    route = httpx2_mock.get(URL)
    route.side_effect = [httpx.Response(503), httpx.Response(200, json={"a": 1})]
    with edge.client(road(clock)) as client:
        response = client.get(URL)
    assert type(response) is httpx2.Response
    assert response.json() == {"a": 1}
    assert route.call_count == 2


def test_a_cassette_records_and_plays_every_attempt(
    edge: Edge, clock: FakeClock, tmp_path: Path
) -> None:
    """vcrpy stands below ours: the refusal is on the tape too, and is retried when played."""
    tape = str(tmp_path / "tape.yaml")

    def play(url: str) -> Any:
        with vcr.use_cassette(tape, record_mode="once") as cassette:
            with edge.client(road(clock)) as client:
                response = client.get(url)
            return response, cassette.play_count

    with ApiServer(rate=None) as server:
        url = f"{server.url}/items"
        server.script("/items", Answer(503))
        recorded, _ = play(url)
        assert server.requests == 2
    played, count = play(url)
    assert count == 2
    assert (played.content, played.status_code) == (recorded.content, 200)
    assert edge.details(played).attempts == 2


def test_refusals_need_no_server_under_a_mock(clock: FakeClock) -> None:
    """A test of one's own code for `RateLimited` is a limiter that is empty."""
    with responses.RequestsMock() as mock, requests.Session() as session:
        mock.get(URL, body="fine")
        session.mount("https://", RateKitAdapter(road(clock, "1/hour", max_wait=0)))
        session.get(URL)
        with pytest.raises(RateLimited):
            session.get(URL)
