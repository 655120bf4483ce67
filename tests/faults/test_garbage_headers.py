"""Headers that no server should send: nothing of them raises, or makes a call wait for ever."""

import pytest

from ratekit import Backoff, Pipeline, Retry
from ratekit.testing import Answer, ApiServer, FakeClock
from tests.contracts.edges import Edge, road

# What is sent, and how long it is obeyed: None where it says nothing, or more than is accepted.
VALUES: dict[str, tuple[str | bytes, float | None]] = {
    "0": ("0", 0),
    "-1": ("-1", None),
    "1.5": ("1.5", 1.5),
    "soon": ("soon", None),
    "empty": ("", None),
    "10^18": (str(10**18), None),
    "5000 digits": ("9" * 5000, None),
    "bytes": (b"\xff\xfe\x00"[:2], None),
    "superscript": (b"\xb2", None),
    "nan": ("nan", None),
    "inf": ("inf", None),
    "1e3": ("1e3", None),
    "two": ("1, 2", 1),
    "a date that is none": ("Mon, 99 Foo 2020 25:61:61 GMT", None),
    "year 0": ("Sat, 00 Jan 0000 00:00:00 GMT", None),
    "the past": ("Sun, 06 Nov 1994 08:49:37 GMT", 0),
}


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(("value", "obeyed"), VALUES.values(), ids=VALUES)
def test_a_garbage_retry_after_is_the_same_as_none(
    edge: Edge,
    server: ApiServer,
    clock: FakeClock,
    status: int,
    value: str | bytes,
    obeyed: float | None,
) -> None:
    """The attempt is repeated after the back-off's time, or the server's where it made sense."""
    server.script("/items", Answer(status, [("Retry-After", value)]))
    backoff = Backoff("constant", base=2)
    with edge.client(Pipeline(Retry(backoff=backoff), clock=clock)) as client:
        response = client.get(f"{server.url}/items")
    assert response.status_code == 200
    assert edge.details(response).waited == 2 + (obeyed or 0)


@pytest.mark.parametrize("status", [429, 503])
def test_an_hour_is_handed_back(
    edge: Edge, server: ApiServer, clock: FakeClock, status: int
) -> None:
    """With a limiter below and without: the user decides about so long a wait."""
    for pipeline in (Pipeline(Retry(), clock=clock), road(clock)):
        server.script("/items", Answer(status, [("Retry-After", "3600")]))
        with edge.client(pipeline) as client:
            response = client.get(f"{server.url}/items")
        assert (response.status_code, response.headers["Retry-After"]) == (status, "3600")
        assert edge.details(response).attempts == 1
        assert edge.details(response).waited == 0


@pytest.mark.parametrize("value", ["0", "-1", "soon", str(10**18)])
def test_a_limiter_is_not_held_for_ever_by_garbage(
    edge: Edge, server: ApiServer, clock: FakeClock, value: str
) -> None:
    """A refusal that says nothing of use costs a permit's time, and not less."""
    server.script("/items", Answer(429, [("Retry-After", value)]))
    with edge.client(road(clock, "10/second", backoff=Backoff("constant", base=0))) as client:
        response = client.get(f"{server.url}/items")
    assert 0.1 <= edge.details(response).waited < 1


def test_a_server_that_refuses_for_ever_is_given_up(
    edge: Edge, server: ApiServer, clock: FakeClock
) -> None:
    """Pauses add up: together no longer than one that the user would accept."""
    server.script("/items", *[Answer(429, [("Retry-After", "120")])] * 9)
    with edge.client(road(clock)) as client:
        response = client.get(f"{server.url}/items")
    details = edge.details(response)
    assert response.status_code == 429
    assert details.waited < 300
    assert details.attempts == server.requests == 3


def test_a_server_that_refuses_for_ever_without_a_pause_is_given_up_too(
    edge: Edge, server: ApiServer, clock: FakeClock
) -> None:
    """Where neither the server nor the back-off waits, somebody must stop."""
    server.script("/items", *[Answer(429, [("Retry-After", "0")])] * 1000)
    retry = Retry(backoff=Backoff("constant", base=0))
    with edge.client(Pipeline(retry, clock=clock)) as client:
        response = client.get(f"{server.url}/items")
    assert response.status_code == 429
    assert server.requests < 1000


@pytest.mark.parametrize(
    "headers",
    [
        [("x-should-retry", b"\xff")],
        [("x-should-retry", "maybe")],
        [("Date", "yesterday"), ("Retry-After", "Sun, 06 Nov 1994 08:49:37 GMT")],
        [("Date", b"\xff"), ("Retry-After", "99999999999999999999")],
        [("retry-after-ms", "soon"), ("Retry-After", "1")],
        [("retry-after-ms", "9" * 400), ("Retry-After", "1")],
        [("X-RateLimit-Reset", "\x01"), ("X-RateLimit-Remaining", "-5")],
    ],
)
def test_other_garbage_is_ignored(
    edge: Edge, server: ApiServer, clock: FakeClock, headers: list[tuple[str, str | bytes]]
) -> None:
    """What is not understood changes nothing, or a little."""
    server.script("/items", Answer(503, headers))
    with edge.client(road(clock)) as client:
        response = client.get(f"{server.url}/items")
    assert response.status_code == 200
    assert edge.details(response).waited < 10
