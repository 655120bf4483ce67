"""The loopback API server gives the answers that were scripted, whole or broken."""

import http.client
import math
import pickle
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

from ratekit.testing.server import Answer, ApiServer, Fault
from tests.testing.client import SOON, ask, client, connect, get, send, statuses, until


def test_scripted_answers_come_in_order_and_then_the_path_is_as_usual(either: ApiServer) -> None:
    """Other paths are not touched, and a second call queues up behind the first."""
    either.script("/a", Answer(500), Answer(503, [("Retry-After", "1")], b"later"))
    either.script("/a", Answer(404))
    with client(either) as one:
        replies = [send(one, path) for path in ("/a", "/b", "/a?x=1", "/a", "/a")]

    assert [reply.status for reply in replies] == [500, 200, 503, 404, 200]
    assert (replies[2].headers["Retry-After"], replies[2].body) == ("1", b"later")
    assert (either.requests, either.stats().scripted, either.stats().ok) == (5, 3, 2)
    assert len(either.seen("/a")) == 4


def test_a_script_does_not_touch_the_limit() -> None:
    """It takes no token and is not refused, but is on record."""
    with ApiServer(0.001, 1) as server:
        server.script("/", *[Answer(500)] * 3)
        assert statuses(server, 5) == [500, 500, 500, 200, 429]
        assert [admitted for _, admitted in server.arrivals()] == [False, False, False, True, False]
        assert (server.requests, server.admitted, server.refused) == (5, 1, 1)


def test_a_limited_script_waits_for_an_admitted_request() -> None:
    """A refusal leaves the answer for the next."""
    with ApiServer(100.0, 1) as server:
        server.script("/", Answer(418), Answer(500), limited=True)
        with client(server) as one:
            assert send(one).status == 418
            seen = [send(one).status for _ in range(3)]
            until(lambda: send(one).status == 500 or 500 in seen)
        stats = server.stats()
    assert stats.requests == stats.admitted + stats.refused
    assert stats.scripted == 2


def test_headers_are_sent_as_they_were_written(server: ApiServer) -> None:
    """Also what no server should send."""
    headers: list[tuple[str | bytes, str | bytes]] = [
        ("Retry-After", "soon, maybe"),
        ("X-Latin", "é"),
        (b"X-Raw", b"\xff\x01"),
        ("X", ""),
    ]
    server.script("/", Answer(429, headers))
    head = ask(server, get("/", "Connection: close"))
    for line in (b"Retry-After: soon, maybe", b"X-Latin: \xe9", b"X-Raw: \xff\x01", b"X: "):
        assert b"\r\n" + line + b"\r\n" in head


def test_a_scripted_answer_may_frame_its_own_body(server: ApiServer) -> None:
    """Content-Length is added only where nothing else says how long the body is."""
    server.script(
        "/",
        Answer(headers=[("transfer-encoding", "chunked")], body=b"2\r\nok\r\n0\r\n\r\n"),
        Answer(204, body=b"never sent"),
        Answer(299, headers=[("Connection", "close")], body=b"bye"),
    )
    with client(server) as one:
        assert [send(one).body, send(one).body, send(one).body] == [b"ok", b"", b"bye"]
        assert one.sock is None  # the answer closed the connection


def test_a_scripted_delay_comes_before_the_answer(server: ApiServer) -> None:
    """On top of the latency."""
    server.script("/", Answer(delay=0.05), Answer(fault="close", delay=0.05))
    for _ in range(2):
        begun = time.monotonic()
        ask(server, get("/", "Connection: close"))
        assert time.monotonic() - begun >= 0.049


HALF = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n01234"


@pytest.mark.parametrize(
    ("fault", "heard", "end"),
    [
        ("reset", b"", "reset"),
        ("close", b"", "closed"),
        ("truncate", HALF, "closed"),
        ("reset-body", HALF, "reset"),
        ("hang", b"", "nothing"),
        ("garbage", b"0123456789", "closed"),
    ],
)
def test_each_fault_is_what_it_is_called(
    either: ApiServer, fault: Fault, heard: bytes, end: str
) -> None:
    """What the client reads, and how it ends; the next request is answered as usual."""
    either.script("/", Answer(body=b"0123456789", fault=fault))
    with connect(either) as connection:
        connection.sendall(get())
        answer, ended = b"", "closed"
        try:
            connection.settimeout(0.1 if fault == "hang" else SOON)
            while data := connection.recv(65536):
                answer += data
        except TimeoutError:
            ended = "nothing"
            until(lambda: either.stats().in_flight == 1)
        except ConnectionResetError:
            ended = "reset"
    assert (answer, ended) == (heard, end)
    until(lambda: either.stats().in_flight == 0)
    assert statuses(either, 1) == [200]


def test_a_large_half_body_arrives_before_the_reset(server: ApiServer) -> None:
    """However slowly the client reads, the reset loses none of it."""
    if sys.platform != "linux":
        pytest.skip("only Linux says what the other side has not taken")
    server.script("/", Answer(body=b"x" * 1_000_000, fault="reset-body"))
    received = 0
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", int(server.url.rpartition(":")[2])))
        connection.sendall(get())
        until(lambda: server.requests == 1)
        time.sleep(0.05)
        try:
            while data := connection.recv(65536):
                received += len(data)
        except ConnectionResetError:
            pass
        else:
            pytest.fail("it was closed, not reset")
    assert received > 500_000


def test_garbage_is_not_http(server: ApiServer) -> None:
    """Whoever expects an answer says so."""
    server.script("/", Answer(fault="garbage"))
    with client(server) as one, pytest.raises(http.client.BadStatusLine):
        send(one)


@pytest.mark.parametrize(
    ("make", "error", "right"),
    [
        (lambda: Answer(100), ValueError, "200 to 999"),
        (lambda: Answer(fault="explode"), ValueError, "truncate"),  # type: ignore[arg-type]
        (lambda: Answer(fault="truncate"), ValueError, "give it a body"),
        (lambda: Answer(delay=-1), ValueError, "0 or more"),
        (lambda: Answer(delay=math.nan), ValueError, "0 or more"),
        (lambda: Answer(body="text"), TypeError, "encode it"),  # type: ignore[arg-type]
        (lambda: Answer(headers={"A": "b"}), TypeError, "pairs"),  # type: ignore[arg-type]
        (lambda: Answer(headers=[("A", 1)]), TypeError, "pairs"),  # type: ignore[list-item]
        (lambda: Answer(headers=[("A", "€")]), ValueError, "latin-1"),
    ],
)
def test_an_answer_that_cannot_be_sent_says_what_could(
    make: Callable[[], Answer], error: type[Exception], right: str
) -> None:
    """Checked where it is written, not where it is sent."""
    with pytest.raises(error, match=right):
        make()


def test_an_answer_is_a_value() -> None:
    """It can be compared, hashed, pickled and shared."""
    answer = Answer(429, [("Retry-After", "1")])
    assert answer == Answer(429, (("Retry-After", "1"),))
    assert pickle.loads(pickle.dumps(answer)) == answer  # noqa: S301 - pickled right here
    assert len({answer, Answer(429)}) == 2


@pytest.mark.parametrize(
    ("path", "answers", "error", "right"),
    [
        ("items", [Answer()], ValueError, "start with /"),
        ("/a?b", [Answer()], ValueError, "no query"),
        ("/stats", [Answer()], ValueError, "another path"),
        ("/a", [], ValueError, "at least one"),
        ("/a", [500], TypeError, "Answer"),
    ],
)
def test_a_script_that_cannot_be_says_what_could(
    either: ApiServer, path: str, answers: list[Any], error: type[Exception], right: str
) -> None:
    """In the caller's thread, wherever the server runs."""
    with pytest.raises(error, match=right):
        either.script(path, *answers)
