"""Servers that break off, reset, hang, or answer what is no HTTP."""

import socket
from typing import Any

import pytest

from ratekit.testing import Answer, ApiServer, FakeClock
from tests.contracts.edges import Edge, road
from tests.contracts.wire import OK, read_head, serve

BODY = b"x" * 100
LOST = {
    "reset": Answer(fault="reset"),
    "close": Answer(fault="close"),
    "garbage": Answer(fault="garbage"),
    "hang": Answer(fault="hang"),
}
CUT = {
    "truncate": Answer(200, body=BODY, fault="truncate"),
    "reset in the body": Answer(200, body=BODY, fault="reset-body"),
}


@pytest.mark.parametrize("fault", LOST.values(), ids=LOST)
def test_a_get_without_an_answer_is_repeated(
    edge: Edge, server: ApiServer, clock: FakeClock, fault: Answer
) -> None:
    """Twice in a row, then the answer comes."""
    server.script("/items", fault, fault)
    with edge.client(road(clock)) as client:
        response = client.get(f"{server.url}/items", timeout=0.2 if fault.fault == "hang" else 5)
    assert (response.status_code, edge.details(response).attempts) == (200, 3)


@pytest.mark.parametrize("fault", LOST.values(), ids=LOST)
def test_a_post_without_an_answer_is_not_repeated(
    edge: Edge, server: ApiServer, clock: FakeClock, fault: Answer
) -> None:
    """The server may have acted on it: the user gets the library's own error."""
    server.script("/items", fault)
    timeout = 0.1 if fault.fault == "hang" else 5
    with edge.bare() as bare, pytest.raises(edge.error) as expected:
        bare.send("POST", f"{server.url}/items", body=b"x", timeout=timeout)
    server.script("/items", fault)
    with edge.client(road(clock)) as client, pytest.raises(edge.error) as caught:
        client.send("POST", f"{server.url}/items", body=b"x", timeout=timeout)
    assert type(caught.value) is type(expected.value)
    assert edge.details(caught.value).attempts == 1
    assert server.requests == 2


@pytest.mark.parametrize("fault", LOST.values(), ids=LOST)
def test_when_no_attempt_gets_an_answer_the_last_error_is_the_users(
    edge: Edge, server: ApiServer, clock: FakeClock, fault: Answer
) -> None:
    """As often as tries are meant for failures, and no oftener."""
    server.script("/items", *[fault] * 9)
    with edge.client(road(clock)) as client, pytest.raises(edge.error) as caught:
        client.get(f"{server.url}/items", timeout=0.05 if fault.fault == "hang" else 5)
    assert edge.details(caught.value).attempts == server.requests == 4


@pytest.mark.parametrize("fault", CUT.values(), ids=CUT)
def test_an_answer_that_breaks_off(
    edge: Edge, server: ApiServer, clock: FakeClock, fault: Answer
) -> None:
    """On requests it is another attempt's; httpx reads the body itself, and raises."""
    server.script("/items", fault)
    with edge.client(road(clock)) as client:
        if edge.name == "requests":
            assert client.get(f"{server.url}/items").json()["path"] == "/items"
        else:
            with pytest.raises(edge.error):
                client.get(f"{server.url}/items")
        assert client.get(f"{server.url}/items").status_code == 200


@pytest.mark.parametrize("fault", CUT.values(), ids=CUT)
def test_a_post_whose_answer_breaks_off_is_not_repeated(
    edge: Edge, server: ApiServer, clock: FakeClock, fault: Answer
) -> None:
    """The server did act on it."""
    server.script("/items", fault)
    with edge.client(road(clock)) as client, pytest.raises(edge.error):
        client.send("POST", f"{server.url}/items", body=b"x")
    assert server.requests == 1


@pytest.mark.parametrize("fault", ["truncate", "reset-body"])
def test_a_rejected_answer_that_breaks_off_does_no_harm(
    edge: Edge, server: ApiServer, clock: FakeClock, fault: Any
) -> None:
    """Nobody needed its body: the next attempt is made, also where the user streams."""
    for stream in (False, True):
        server.script("/items", Answer(503, body=BODY, fault=fault))
        with edge.client(road(clock)) as client:
            response = client.send("GET", f"{server.url}/items", stream=stream)
            assert response.status_code == 200
            response.close()


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 999 What\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 503 \r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 503 Busy\r\nContent-Length: -5\r\nConnection: close\r\n\r\n",
        b"HTTP/1.1 503 Busy\r\nContent-Length: \xb2\r\nConnection: close\r\n\r\n",
        b"HTTP/1.1 503 Busy\r\nContent-Length: " + b"9" * 5000 + b"\r\nConnection: close\r\n\r\n",
        b"HTTP/1.1 503 Busy\r\nContent-Length: 1, 1\r\nConnection: close\r\n\r\nx",
        b"HTTP/1.1 503 Busy\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nnot",
        b"HTTP/1.1 503 Busy\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 503 Busy\r\n\xff\xfe: \x80\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"",
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_no_answer_raises_what_is_not_the_librarys(
    edge: Edge, clock: FakeClock, head: bytes, *, stream: bool
) -> None:
    """A head that makes no sense is an answer, or the library's own error; the next one is good."""
    first = [head]

    def handle(connection: socket.socket) -> None:
        read_head(connection)
        connection.sendall(first.pop() if first else OK)

    def outcome(client: Any, url: str) -> object:
        try:
            response = client.send("GET", url, stream=stream, timeout=5)
        except edge.error as error:
            return type(error)
        response.close()
        return response.status_code

    with serve(handle) as wire, edge.client(road(clock)) as client:
        got = outcome(client, wire.url)
        assert outcome(client, wire.url) == 200
    native = (edge.error,) if edge.name == "requests" else (edge.library.HTTPError,)
    assert got in (200, 999) or (isinstance(got, type) and issubclass(got, native))
