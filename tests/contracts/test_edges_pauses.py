"""How long every edge waits where a server says for how long."""

from datetime import UTC, datetime
from email.utils import format_datetime

import pytest

import ratekit
from ratekit import Backoff, Pipeline, Retry
from ratekit.testing import Answer, ApiServer, FakeClock
from tests.contracts.edges import Edge, road

NO_BACKOFF = Backoff("constant", base=0)


def http_date(seconds: float) -> str:
    """Return an instant as an HTTP-date."""
    return format_datetime(datetime.fromtimestamp(seconds, UTC), usegmt=True)


NOW = 1_700_000_000
FORMS: dict[str, tuple[list[tuple[str, str]], float]] = {
    "seconds": ([("Retry-After", "7")], 7),
    "fraction": ([("Retry-After", "1.5")], 1.5),
    "milliseconds": ([("Retry-After", "9"), ("retry-after-ms", "2500")], 2.5),
    "date": ([("Date", http_date(NOW)), ("Retry-After", http_date(NOW + 30))], 30),
    "duration": ([("Retry-After", "1m5s")], 65),
}


@pytest.mark.parametrize("status", [403, 429, 503])
@pytest.mark.parametrize(("headers", "seconds"), FORMS.values(), ids=FORMS)
def test_a_servers_pause_is_kept_to(
    edge: Edge,
    server: ApiServer,
    clock: FakeClock,
    status: int,
    headers: list[tuple[str, str]],
    seconds: float,
) -> None:
    """The next attempt is made when the server said: not earlier, and not twice as late."""
    server.script("/items", Answer(status, headers))
    began = clock.now_ns()
    with edge.client(road(clock, backoff=NO_BACKOFF)) as client:
        response = client.get(f"{server.url}/items")
    # The last attempt ends at the same instant at which it began: this clock stands still.
    waited = (clock.now_ns() - began) / 1e9
    assert response.status_code == 200
    assert waited == pytest.approx(edge.details(response).waited)
    # A limiter that was held lets one permit go at the end; here a permit takes 3.6 s.
    assert seconds <= waited <= seconds + 3.6


def test_a_servers_pause_holds_everybody_who_shares_the_limit(
    edge: Edge, server: ApiServer, clock: FakeClock
) -> None:
    """A call that comes after a refusal waits too, though nobody refused it."""
    server.script("/items", Answer(429, [("Retry-After", "60")]))
    with edge.client(road(clock)) as client:
        with ratekit.options(retry=False):
            assert client.get(f"{server.url}/items").status_code == 429
        response = client.get(f"{server.url}/others")
    assert edge.details(response).waited >= 60


def test_without_a_limiter_the_retry_sleeps_for_as_long_as_the_server_said(
    edge: Edge, server: ApiServer, clock: FakeClock
) -> None:
    """Retry alone obeys a Retry-After too, and only ever adds to it."""
    server.script("/items", Answer(429, [("Retry-After", "7")]))
    with edge.client(Pipeline(Retry(), clock=clock)) as client:
        waited = edge.details(client.get(f"{server.url}/items")).waited
    assert 7 <= waited <= 7.5


def test_a_longer_pause_than_is_accepted_hands_the_answer_back(
    edge: Edge, server: ApiServer, clock: FakeClock
) -> None:
    """Beyond `max_retry_after` nothing is slept: the user sees the refusal and its header."""
    server.script("/items", *[Answer(429, [("Retry-After", "301")])] * 2)
    began = clock.now_ns()
    with edge.client(road(clock)) as client:
        response = client.get(f"{server.url}/items")
    assert (response.status_code, response.headers["Retry-After"]) == (429, "301")
    assert clock.now_ns() == began
    assert server.requests == 1


def test_the_accepted_pause_can_be_chosen(edge: Edge, server: ApiServer, clock: FakeClock) -> None:
    """`max_retry_after` as an option: longer, or shorter."""
    server.script("/items", Answer(429, [("Retry-After", "400")]))
    server.script("/others", Answer(429, [("Retry-After", "4")]))
    with edge.client(road(clock)) as client:
        with ratekit.options(max_retry_after=500):
            assert client.get(f"{server.url}/items").status_code == 200
        with ratekit.options(max_retry_after=3):
            assert client.get(f"{server.url}/others").status_code == 429
