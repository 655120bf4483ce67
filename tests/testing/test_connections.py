"""The loopback API server speaks HTTP/1.1, and is not upset by whoever does not."""

import contextlib
import socket
import ssl

import pytest
import requests

from ratekit.testing import _wire
from ratekit.testing.server import Answer, ApiServer
from tests.testing.client import SOON, ask, client, connect, drain, get, send, until


def test_one_connection_serves_many_requests(server: ApiServer) -> None:
    """HTTP/1.1 keep-alive, also after an error of the application."""
    server.script("/bad", Answer(500, body=b"oops"))
    with client(server) as one:
        for path in ["/"] * 20 + ["/bad", "/redirect/1", "/stream/2", "/"]:
            send(one, path)
    assert (server.requests, server.stats().connections) == (24, 1)


def test_a_client_may_ask_for_the_connection_to_close(server: ApiServer) -> None:
    """And a client of HTTP/1.0 has not asked for anything else."""
    for data in (get("/", "Connection: Close"), b"GET / HTTP/1.0\r\n\r\n"):
        assert b"\r\nConnection: close\r\n" in ask(server, data)


def test_pipelined_requests_are_answered_in_order() -> None:
    """However many came in one piece, and however long each answer takes."""
    with ApiServer(None, latency=0.001) as server:
        data = b"".join(get(f"/{number}") for number in range(50))
        answers = ask(server, data + get("/last", "Connection: close"))
        assert [answer.split(b'"')[0] for answer in answers.split(b'"path": "/')[1:]] == [
            *(b"%d" % number for number in range(50)),
            b"last",
        ]
        assert server.stats().max_in_flight == 1


def test_a_client_that_does_not_wait_is_not_read_without_bound() -> None:
    """Reading stops while an answer is due and goes on after it."""
    with ApiServer(None) as server, connect(server) as connection:
        server.script("/slow", Answer(delay=0.1))
        big = b"POST /big HTTP/1.1\r\nHost: api\r\nContent-Length: 300000\r\n\r\n" + b"x" * 300_000
        connection.sendall(get("/slow") + big)
        connection.sendall(get("/last", "Connection: close"))
        assert drain(connection).count(b"HTTP/1.1 200 OK") == 3
    with ApiServer(None) as server, connect(server) as connection:
        server.script("/hang", Answer(fault="hang"))
        connection.sendall(get("/hang"))
        connection.settimeout(0.2)
        sent = 0
        with contextlib.suppress(TimeoutError):
            while sent < 64_000_000:
                sent += connection.send(b"x" * 65536)
        assert sent < 64_000_000


def test_a_request_may_arrive_byte_by_byte(server: ApiServer) -> None:
    """Also its chunks, with extensions and trailers."""
    data = (
        b"\r\nPOST /echo HTTP/1.1\r\nHost: api\r\nConnection: close\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\nA\r\n0123456789\r\n0\r\nT: x\r\n\r\n"
    )
    with connect(server) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in data:
            connection.sendall(bytes([byte]))
        assert drain(connection).endswith(b"\r\n\r\nabc0123456789")


def test_a_client_is_told_to_go_on_with_its_body(server: ApiServer) -> None:
    """Expect: 100-continue."""
    with connect(server) as connection:
        connection.sendall(get("/echo", "Expect: 100-continue", "Content-Length: 2"))
        assert connection.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"ok")
        assert connection.recv(65536).endswith(b"\r\n\r\nok")
        connection.sendall(get("/echo", "Expect: 100-continue", "Content-Length: 2") + b"ok")
        answer = connection.recv(65536)
        connection.sendall(get("/", "Connection: close"))
        assert b"100 Continue" not in answer + drain(connection)  # it did not wait


def test_it_answers_a_client_that_takes_it_for_its_proxy(server: ApiServer) -> None:
    """Such a client sends the whole URL."""
    with requests.Session() as session:
        proxies = {"http": server.url}
        response = session.get("http://api.test/items?x=1", proxies=proxies, timeout=SOON)
        assert (response.json()["path"], response.json()["query"]) == ("/items", "x=1")
        assert session.get("http://api.test", proxies=proxies, timeout=SOON).json()["path"] == "/"


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\nHost: api\r\n\r\n", 400),
        (b"GET  / HTTP/1.1\r\nHost: api\r\n\r\n", 400),
        (b"GET items HTTP/1.1\r\nHost: api\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (get("/", "Host: again"), 400),
        (get("/", "no colon"), 400),
        (get("/", "space : before"), 400),
        (get("/", "X: folded", " value"), 400),
        (get("/", "X: a\nb"), 400),
        (get("/", "Content-Length: two"), 400),
        (get("/", "Content-Length: -1"), 400),
        (get("/", "Content-Length: 1", "Content-Length: 2"), 400),
        (get("/", "Content-Length: 1", "Transfer-Encoding: chunked"), 400),
        (get("/", "Transfer-Encoding: gzip"), 400),
        (get("/", "Transfer-Encoding: chunked") + b"xyz\r\n", 400),
        (get("/", "Transfer-Encoding: chunked") + b"1\r\nab\r\n", 400),
        (get("/", "Transfer-Encoding: chunked") + b"FFFFFFFF\r\n", 413),
        (get("/", "Transfer-Encoding: chunked") + b"0\r\n" + b"T: x\r\n" * 20_000, 431),
        (get("/", "Content-Length: 67108865"), 413),
        (get("/", "X: " + "x" * 65536), 431),
        (b"GET /" + b"x" * 100_000, 431),
        (b"\x16\x03\x01", 400),
    ],
)
def test_what_is_no_request_is_refused_and_the_connection_closed(
    server: ApiServer, data: bytes, status: int
) -> None:
    """With what was wrong as the body; it counts as nothing else."""
    answer = ask(server, data)
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert b"\r\nConnection: close\r\n" in answer
    stats = server.stats()
    assert (stats.requests, stats.malformed) == (0, 1)


def test_a_client_that_never_stops_sending_is_cut_off(
    server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refused request may be read to its end, but not for ever."""
    monkeypatch.setattr("ratekit.testing._connection.LINGER", 0.05)
    with connect(server) as connection:
        connection.sendall(get("/", "Content-Length: 67108865"))

        def send_more() -> bool:
            try:
                connection.sendall(b"x" * 1000)
            except OSError:
                return True
            return False

        until(send_more)


def test_a_client_that_speaks_tls_hears_at_once_that_the_server_does_not(
    server: ApiServer,
) -> None:
    """It would wait for ever if the server waited for the rest of a request."""
    context = ssl.create_default_context()
    with connect(server) as connection, pytest.raises(ssl.SSLError):
        context.wrap_socket(connection, server_hostname="localhost")


def test_the_parser_is_bounded_however_its_input_is_cut() -> None:
    """It never keeps more than a head it will refuse."""
    parser = _wire.RequestParser()
    parser.feed(b"GET /" + b"x" * _wire.MAX_HEAD)
    with pytest.raises(_wire.Malformed, match="larger than 65536"):
        parser.next_request()
