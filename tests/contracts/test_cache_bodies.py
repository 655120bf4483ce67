"""Whose answer it is, and when: keys of one's own, and bodies on sockets that the test holds."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Any

import pytest

from ratekit import Cache, Pipeline
from ratekit.policy import Policy
from ratekit.testing import ApiServer, FakeClock
from tests.contracts.caching import PATH, Api, Place, api, reply, said
from tests.contracts.edges import Edge
from tests.contracts.wire import read_head, serve

MINUTE = "max-age=60"
PATIENCE = 10.0  # seconds for what takes milliseconds

Make = Callable[..., AbstractContextManager[Api]]


@pytest.fixture
def make(edge: Edge, server: ApiServer, clock: FakeClock, store: Place) -> Make:
    """Give a function that makes a client with these policies behind a cache so made."""

    def made(*policies: Policy, **arguments: Any) -> AbstractContextManager[Api]:
        return api(edge, server, clock, *policies, store=store, **arguments)

    return made


@pytest.fixture
def one(make: Make) -> Iterator[Api]:
    """Give a client with a cache of its own."""
    with make() as made:
        yield made


# Whose answer.


def test_names_of_ones_own_say_who_asks(make: Make) -> None:
    """Fields and parameters that no list knows."""
    with make(headers=["X-Who"], params=["who"]) as one:
        one.answers(*[reply(b"%d" % n, cache_control=MINUTE) for n in range(4)])
        for _ in range(2):
            seen = [one.body(x_who="a"), one.body(x_who="b")]
            seen += [one.send("GET", f"{PATH}?who={who}").content for who in "ab"]
            assert seen == [b"0", b"1", b"2", b"3"]


def test_a_key_in_the_url_is_in_no_status(one: Api) -> None:
    """Nothing that the cache says names it."""
    one.answers(*[reply(cache_control=MINUTE)] * 2)
    for _ in range(2):
        response = one.send("GET", f"{PATH}?api_key=geheim")
        assert "geheim" not in response.headers["cache-status"]
        assert "geheim" not in repr(one.edge.details(response))


def test_a_body_that_is_not_there_yet_passes_by(make: Make) -> None:
    """A generator can be read only once, and that is its server's."""
    with make(ttl=60, methods=["GET", "POST"]) as one:
        for _ in range(2):
            response = one.client.send("POST", f"{one.server.url}/echo", body=iter([b"x", b"y"]))
            assert (response.content, said(response)) == (b"xy", "fwd=bypass")


# Bodies, on sockets that the test holds.


@pytest.mark.parametrize("most", [1 << 20, 10], ids=["kept", "beyond the cap"])
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_a_body_reaches_its_reader_as_it_comes(
    edge: Edge, store: Place, most: int, *, chunked: bool
) -> None:
    """The server sends the second half only after the first was read."""
    read = threading.Event()
    half = b"x" * 20
    framing = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: 40"
    piece = b"14\r\n%b\r\n" % half if chunked else half

    def handle(connection: socket.socket) -> None:
        read_head(connection)
        head = b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nConnection: close\r\n"
        connection.sendall(head + framing + b"\r\n\r\n" + piece)
        if read.wait(PATIENCE):
            connection.sendall(piece + (b"0\r\n\r\n" if chunked else b""))

    with (
        serve(handle) as wire,
        edge.client(Pipeline(Cache(store=store, max_entry=most))) as client,
        client.stream("GET", f"{wire.url}/a") as response,
    ):
        pieces = pieces_of(edge, response)
        seen = next(pieces)
        read.set()
        assert seen + b"".join(pieces) == half * 2


def pieces_of(edge: Edge, response: Any) -> Iterator[bytes]:
    """Yield what has come, on requests 20 bytes at a time."""
    if edge.name == "requests":
        yield from response.iter_content(20)
    else:
        yield from response.iter_raw()


def test_what_is_read_halfway_is_nobodys_answer_yet(one: Api) -> None:
    """Whoever comes meanwhile asks the server, and each body is whole."""
    body = b"x" * 300_000
    one.answers(*[reply(body, cache_control=MINUTE)] * 2)
    with one.client.stream("GET", one.url) as response:
        pieces = pieces_of(one.edge, response)
        seen = next(pieces)
        assert one.get() == (body, "fwd=uri-miss; fwd-status=200; stored")
        assert seen + b"".join(pieces) == body
    assert one.get() == (body, "hit; ttl=60")


def test_a_hit_took_no_time(one: Api, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """`elapsed` is its own, and not that of the answer which was kept."""
    one.edge.set_clock(monkeypatch, clock.wall)
    one.answers(reply(cache_control=MINUTE))
    assert isinstance(one.send().elapsed, timedelta)
    assert one.send().elapsed == timedelta(0)
