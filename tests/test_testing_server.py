"""The loopback API server: real sockets against it, and its own record held against the rule."""

import contextlib
import gc
import http.client
import json
import math
import multiprocessing
import os
import pickle
import socket
import ssl
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from email.message import Message
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import pytest
import requests

from ratekit.testing import _wire
from ratekit.testing._service import TokenBucket
from ratekit.testing.server import Answer, ApiServer, Fault, RetryAfter

SOON = 5.0  # seconds for what takes milliseconds


@pytest.fixture(scope="module")
def unlimited_server() -> Iterator[ApiServer]:
    """One server for the tests that are not about the limit."""
    with ApiServer(rate=None) as server:
        yield server


@pytest.fixture
def server(unlimited_server: ApiServer) -> ApiServer:
    """The same, as new."""
    unlimited_server.reset()
    return unlimited_server


@pytest.fixture(scope="module")
def process_server() -> Iterator[ApiServer]:
    """One server in a child process."""
    with ApiServer(rate=None, process=True) as server:
        yield server


@pytest.fixture(params=["thread", "process"])
def either(
    request: pytest.FixtureRequest, unlimited_server: ApiServer, process_server: ApiServer
) -> ApiServer:
    """A server of each kind, as new."""
    server = unlimited_server if request.param == "thread" else process_server
    server.reset()
    return server


def connect(server: ApiServer) -> socket.socket:
    """Open a connection to `server`."""
    host, _, port = server.url.removeprefix("http://").rpartition(":")
    return socket.create_connection((host.strip("[]"), int(port)), timeout=SOON)


@contextlib.contextmanager
def client(server: ApiServer) -> Iterator[http.client.HTTPConnection]:
    """Give a client that keeps one connection."""
    one = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=SOON)
    with contextlib.closing(one):
        yield one


class Reply:
    """An answer, read."""

    def __init__(self, status: int, headers: Message, body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    def json(self) -> Any:
        """Read the body."""
        return json.loads(self.body)


def send(one: http.client.HTTPConnection, path: str = "/", method: str = "GET") -> Reply:
    """Send one request and read the answer whole."""
    one.request(method, path)
    response = one.getresponse()
    return Reply(response.status, response.headers, response.read())


def get(path: str = "/", *more: str) -> bytes:
    """Write a request as bytes."""
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: api", *more, "", ""]).encode("latin-1")


def drain(connection: socket.socket) -> bytes:
    """Read until the other side closes."""
    return b"".join(iter(lambda: connection.recv(65536), b""))


def ask(server: ApiServer, data: bytes) -> bytes:
    """Send bytes and read until the other side closes."""
    with connect(server) as connection:
        connection.sendall(data)
        return drain(connection)


def until(condition: Callable[[], bool]) -> None:
    """Wait for what is about to happen."""
    end = time.monotonic() + SOON
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.002)


# The limit


def test_a_bucket_grants_its_burst_and_then_one_token_per_interval() -> None:
    """Full at first, then a token every 1/rate seconds; a refusal takes nothing."""
    bucket = TokenBucket(rate=4.0, burst=2, now=10.0)

    assert [bucket.take(10.0), bucket.take(10.0), bucket.take(10.0)] == [0.0, 0.0, 0.25]
    assert bucket.take(10.125) == 0.125
    assert bucket.take(10.25 - 1e-6) > 0
    assert bucket.take(10.25) == 0.0
    assert bucket.take(10.25) == 0.25


def test_a_bucket_never_holds_more_than_its_burst() -> None:
    """Silence is not saved up."""
    bucket = TokenBucket(rate=4.0, burst=2, now=0.0)

    assert [bucket.take(1000.0) for _ in range(3)] == [0.0, 0.0, 0.25]


@pytest.mark.parametrize("process", [False, True])
def test_what_is_admitted_is_what_the_rule_admits(*, process: bool) -> None:
    """The server's record of a stampede, held against the rule computed in another way (GCRA)."""
    rate, burst = 400.0, 10
    with ApiServer(rate, burst, process=process) as server:

        def stampede() -> None:
            with client(server) as one:
                while time.monotonic() < end:
                    send(one)

        end = time.monotonic() + 0.25
        threads = [threading.Thread(target=stampede) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        arrivals, stats = server.arrivals(), server.stats()

    empty_until = -math.inf  # when the bucket would be full again
    for now, admitted in arrivals:
        early = empty_until - (burst - 1) / rate - now
        if abs(early) > 1e-6:  # nearer than that, rounding may decide
            assert admitted == (early < 0)
        if admitted:
            empty_until = max(empty_until, now) + 1 / rate
    assert stats.admitted == sum(admitted for _, admitted in arrivals) > burst
    assert stats.refused == len(arrivals) - stats.admitted > 0
    assert stats.requests == len(arrivals)
    assert (stats.first_arrival, stats.last_arrival) == (arrivals[0][0], arrivals[-1][0])


def test_without_a_rate_everything_is_admitted(server: ApiServer) -> None:
    """`rate=None` means no limit."""
    with client(server) as one:
        assert {send(one).status for _ in range(100)} == {200}
    assert (server.requests, server.admitted, server.refused) == (100, 100, 0)


@pytest.mark.parametrize("status", [429, 503, 403])
def test_a_refusal_has_the_status_that_was_chosen(status: int) -> None:
    """Not every API says 429."""
    with ApiServer(0.01, 1, status=status) as server, client(server) as one:
        assert [send(one).status for _ in range(3)] == [200, status, status]
        assert server.refused == 2


def refused(form: RetryAfter | None) -> tuple[float, Message]:
    """Be refused once; give the true wait in seconds and the headers of the refusal."""
    with ApiServer(1 / 3.05, 1, retry_after=form) as server, client(server) as one:
        assert send(one).status == 200
        reply = send(one)
        assert reply.status == 429
        (first, _), (second, _) = server.arrivals()
    return 3.05 - (second - first), reply.headers


def test_retry_after_in_whole_seconds_is_rounded_up() -> None:
    """The default is never early."""
    wait, headers = refused("ceil")
    assert headers["Retry-After"] == str(math.ceil(wait))


def test_retry_after_can_be_truncated() -> None:
    """As some frameworks do, and so too early."""
    wait, headers = refused("truncate")
    assert headers["Retry-After"] == str(math.floor(wait))


def test_retry_after_can_have_a_fraction() -> None:
    """To the millisecond above."""
    wait, headers = refused("exact")
    assert wait <= float(headers["Retry-After"]) < wait + 0.0011
    assert "." in headers["Retry-After"] or wait == pytest.approx(round(wait), abs=0.001)


def test_retry_after_can_be_in_milliseconds() -> None:
    """In a header of its own."""
    wait, headers = refused("ms")
    assert wait * 1000 <= int(headers["retry-after-ms"]) < wait * 1000 + 1.1
    assert "Retry-After" not in headers


def test_retry_after_can_be_a_date() -> None:
    """Read against the answer's own Date it is never early, and less than two seconds late."""
    wait, headers = refused("date")
    until_then = parsedate_to_datetime(headers["Retry-After"])
    assert headers["Retry-After"].endswith(" GMT")
    assert wait <= (until_then - parsedate_to_datetime(headers["Date"])).total_seconds() < wait + 2


def test_a_refusal_can_say_nothing_of_when() -> None:
    """As nginx does."""
    _, headers = refused(None)
    assert {name.lower() for name in headers} == {"content-type", "content-length"}


# Noise and latency


def statuses(server: ApiServer, count: int) -> list[int]:
    """Send so many requests, one after another."""
    with client(server) as one:
        return [send(one).status for _ in range(count)]


def test_noise_is_the_same_for_the_same_seed() -> None:
    """The order of admission and the seed decide, and a reset begins again."""
    with ApiServer(None, noise=0.3, seed=7) as server:
        first = statuses(server, 60)
        server.reset()
        assert statuses(server, 60) == first
        stats = server.stats()
    with ApiServer(None, noise=0.3, seed=8) as server:
        assert statuses(server, 60) != first

    assert set(first) == {200, 503}
    assert (stats.admitted, stats.noise, stats.ok) == (60, first.count(503), first.count(200))


def test_refusals_and_jitter_do_not_change_which_admitted_request_fails() -> None:
    """Only admitted requests take part in the draw."""
    with ApiServer(None, noise=0.5, seed=1) as server:
        alone = statuses(server, 20)
    with ApiServer(0.001, 15, noise=0.5, seed=1, jitter=0.0005, noise_status=500) as server:
        limited = statuses(server, 20)

    assert limited == [500 if status == 503 else 200 for status in alone[:15]] + [429] * 5


def test_noise_spends_its_token_and_names_no_time() -> None:
    """The request was admitted; it failed for another reason."""
    with ApiServer(0.001, 2, noise=1.0) as server, client(server) as one:
        replies = [send(one) for _ in range(3)]

    assert [reply.status for reply in replies] == [503, 503, 429]
    assert ["Retry-After" in reply.headers for reply in replies] == [False, False, True]


def test_latency_delays_each_answer_and_no_other_connection() -> None:
    """Requests on many connections are in flight together."""
    with ApiServer(None, latency=0.2, jitter=0.01) as server, contextlib.ExitStack() as stack:
        connections = [stack.enter_context(connect(server)) for _ in range(8)]
        begun = time.monotonic()
        for connection in connections:
            connection.sendall(get("/", "Connection: close"))
        for connection in connections:
            drain(connection)
            assert time.monotonic() - begun >= 0.199
        assert server.stats().max_in_flight == 8
        assert server.stats().in_flight == 0
        assert server.stats().ok == 8


# What it answers


def test_an_answer_tells_about_the_request(either: ApiServer) -> None:
    """Whatever the path and the method."""
    with client(either) as one:
        one.request("PUT", "/items/7?a=1&b=2", body=b"hello")
        response = one.getresponse()
        assert response.getheader("Content-Type") == "application/json"
        assert json.loads(response.read()) == {
            "path": "/items/7",
            "method": "PUT",
            "query": "a=1&b=2",
            "body_length": 5,
            "n": 1,
        }
        assert send(one).json()["n"] == 2


def test_each_hop_of_a_redirect_is_limited_and_counted() -> None:
    """/redirect/N leads to 200 in N hops."""
    with ApiServer(0.001, 4) as server, requests.Session() as session:
        response = session.get(server.url + "/redirect/3", timeout=SOON)
        assert [hop.status_code for hop in response.history] == [302, 302, 302]
        assert (response.status_code, response.json()["path"]) == (200, "/redirect/0")
        assert server.admitted == 4
        assert session.get(server.url + "/redirect/3", timeout=SOON).status_code == 429


def test_a_stream_arrives_in_chunks(server: ApiServer) -> None:
    """And with an interval the first is there before the last was sent."""
    with requests.Session() as session:
        response = session.get(server.url + "/stream/3?interval=0.1", stream=True, timeout=SOON)
        chunks = response.iter_content(None)
        assert next(chunks) == b"chunk 0\n"
        assert server.stats().in_flight == 1
        assert b"".join(chunks) == b"chunk 1\nchunk 2\n"
        assert response.headers["Transfer-Encoding"] == "chunked"
        assert session.get(server.url + "/stream/0", timeout=SOON).content == b""
        assert session.get(server.url + "/stream/99999", timeout=SOON).status_code == 400
        assert server.stats().connections == 1


def test_a_stream_to_an_old_client_ends_with_the_connection(server: ApiServer) -> None:
    """HTTP/1.0 knows no chunks."""
    head, _, body = ask(server, b"GET /stream/2 HTTP/1.0\r\n\r\n").partition(b"\r\n\r\n")
    assert (b"chunked" in head, body) == (False, b"chunk 0\nchunk 1\n")


def test_a_cookie_comes_back(server: ApiServer) -> None:
    """/cookie sets one for every path."""
    with requests.Session() as session:
        session.get(server.url + "/cookie", timeout=SOON)
        session.get(server.url + "/after", timeout=SOON)
    (record,) = server.seen("/after")
    assert ("Cookie", "visit=1") in record.headers


def test_echo_gives_back_the_body_and_its_type(either: ApiServer) -> None:
    """Also one that was sent in chunks of unknown number."""
    pieces = [b"a" * 100_000, b"b", b"c" * 7]
    with requests.Session() as session:
        for data in (b"".join(pieces), iter(pieces)):
            response = session.post(
                either.url + "/echo", data=data, headers={"Content-Type": "text/x"}, timeout=SOON
            )
            assert response.content == b"".join(pieces)
            assert response.headers["Content-Type"] == "text/x"
    plain, chunked = either.seen("/echo")
    assert ("Transfer-Encoding", "chunked") in chunked.headers
    assert plain.body == chunked.body == b"".join(pieces)


def test_head_is_answered_without_a_body(server: ApiServer) -> None:
    """With the headers a GET would have."""
    with client(server) as one:
        reply = send(one, "/echo", "HEAD")
        assert (reply.status, reply.body) == (200, b"")
        assert int(send(one, "/x", "HEAD").headers["Content-Length"]) > 0
        assert send(one).status == 200


# The record


def test_seen_is_what_arrived(either: ApiServer) -> None:
    """In the case and order of the wire, per path."""
    with connect(either) as connection:
        connection.sendall(get("/a?x=%20", "X-One: 1", "x-two:  two words ", "X-One: 3"))
        connection.recv(65536)
        connection.sendall(get("/b"))
        connection.recv(65536)
    (record,) = either.seen("/a")
    (other,) = either.seen("/b")

    assert (record.method, record.path, record.query, record.body) == ("GET", "/a", "x=%20", b"")
    assert record.headers[1:] == (("X-One", "1"), ("x-two", "two words"), ("X-One", "3"))
    assert [record.arrival, other.arrival] == [arrival for arrival, _ in either.arrivals()]
    assert either.seen("/c") == []


def test_the_record_is_bounded(server: ApiServer) -> None:
    """A thousand requests, and a mebibyte of each body."""
    with client(server) as one:
        one.request("POST", "/large", body=b"x" * (1024 * 1024 + 1))
        assert json.loads(one.getresponse().read())["body_length"] == 1024 * 1024 + 1
    assert len(server.seen("/large")[0].body) == 1024 * 1024
    with connect(server) as connection:
        connection.sendall(get("/small") * 1000 + get("/small", "Connection: close"))
        assert drain(connection).count(b"HTTP/1.1 200 OK") == 1001
    assert (len(server.seen("/large")), len(server.seen("/small"))) == (0, 1000)
    assert server.requests == 1002


def test_the_bodies_remembered_are_bounded_together(
    server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oldest records go first."""
    monkeypatch.setattr("ratekit.testing._ledger.MAX_SEEN_BYTES", 10)
    with client(server) as one:
        for number in range(4):
            one.request("POST", "/", body=b"%d" % number * 4)
            one.getresponse().read()
    assert [record.body for record in server.seen("/")] == [b"2222", b"3333"]


def test_other_processes_read_and_reset_it_over_http() -> None:
    """The control paths are neither limited nor counted."""
    with ApiServer(0.001, 1) as server, client(server) as one:
        assert [send(one).status, send(one).status] == [200, 429]
        stats = send(one, "/stats").json()
        assert [admitted for _, admitted in send(one, "/arrivals").json()["arrivals"]] == [
            True,
            False,
        ]
        assert send(one, "/stats", "HEAD").body == b""
        assert (stats["requests"], stats["admitted"], stats["refused"], stats["ok"]) == (2, 1, 1, 1)
        assert (stats["connections"], stats["in_flight"], stats["max_in_flight"]) == (1, 0, 1)
        assert stats["first_arrival"] < stats["last_arrival"]

        wrong = send(one, "/reset")
        assert (wrong.status, wrong.headers["Allow"]) == (405, "POST")
        assert send(one, "/reset", "POST").status == 200
        stats = server.stats()
        assert (stats.requests, stats.connections, stats.first_arrival) == (0, 0, None)
        assert send(one).status == 200


def test_the_control_paths_have_no_latency() -> None:
    """A slow API can be asked at once how it does."""
    with ApiServer(None, latency=60) as server, client(server) as one:
        assert send(one, "/stats").status == 200


def test_a_reset_leaves_what_is_in_flight_in_flight() -> None:
    """And counts its answer nowhere."""
    with ApiServer(None, latency=0.2) as server, connect(server) as connection:
        connection.sendall(get("/", "Connection: close"))
        until(lambda: server.stats().in_flight == 1)
        server.reset()
        assert (server.stats().in_flight, server.stats().max_in_flight) == (1, 1)
        drain(connection)
        assert (server.stats().in_flight, server.stats().ok) == (0, 0)


def test_an_answer_that_nobody_stays_for_is_not_counted_as_ok() -> None:
    """The client had gone before it was due."""
    with ApiServer(None, latency=60) as server:
        with connect(server) as connection:
            connection.sendall(get())
            until(lambda: server.stats().in_flight == 1)
        until(lambda: server.stats().in_flight == 0)
        assert (server.admitted, server.stats().ok) == (1, 0)


# Connections


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


# Scripts and faults


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


# Its life


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.0.1", "::", "api.example.com", ""])  # noqa: S104
def test_it_binds_to_loopback_only(host: str) -> None:
    """An API that fails on purpose is not for others to reach."""
    with pytest.raises(ValueError, match=r"host must be a loopback address, such as 127\.0\.0\.1"):
        ApiServer(host=host)


@pytest.mark.parametrize(
    ("arguments", "right"),
    [
        ({"rate": 0}, "above 0"),
        ({"rate": math.nan}, "above 0"),
        ({"burst": 0}, "at least 1"),
        ({"burst": 1.5}, "whole number"),
        ({"status": 20}, "200 to 599"),
        ({"noise_status": 1000}, "200 to 599"),
        ({"retry_after": "soon"}, "ceil"),
        ({"noise": 1.5}, "0 to 1"),
        ({"latency": -1}, "0 or more"),
        ({"jitter": math.inf}, "0 or more"),
        ({"port": 65536}, "65535"),
    ],
)
def test_a_wrong_setting_is_named_with_what_would_be_right(
    arguments: dict[str, Any], right: str
) -> None:
    """Before anything is started."""
    with pytest.raises(ValueError, match=f"{next(iter(arguments))} must be .*{right}"):
        ApiServer(**arguments)


def test_it_also_listens_on_ipv6() -> None:
    """Where this machine has it."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no IPv6 loopback here")
    with ApiServer(host="::1") as server:
        assert server.url.startswith("http://[::1]:")
        assert requests.get(server.url, timeout=SOON).status_code == 200


def test_localhost_is_its_ipv4_address() -> None:
    """So that a client finds it at the first address it tries."""
    with ApiServer(host="localhost") as server:
        assert server.url.startswith("http://127.0.0.1:")


@pytest.mark.parametrize("process", [False, True])
def test_after_stop_nothing_is_left_but_the_record(*, process: bool) -> None:
    """No thread, no process, no connection, no listener; and stopping again is nothing."""
    threads, children = threading.active_count(), multiprocessing.active_children()
    server = ApiServer(process=process)
    server.stop()
    server.start()
    with connect(server) as idle, connect(server) as hanging, connect(server) as late:
        server.script("/hang", Answer(fault="hang"))
        server.script("/late", Answer(delay=60))
        idle.sendall(get("/idle"))
        assert idle.recv(65536)
        hanging.sendall(get("/hang"))
        late.sendall(get("/late"))
        until(lambda: server.stats().in_flight == 2)
        server.stop()
        assert [drain(one) for one in (idle, hanging, late)] == [b"", b"", b""]
    server.stop()

    assert threading.active_count() == threads
    assert multiprocessing.active_children() == children
    with pytest.raises(ConnectionRefusedError):
        connect(server)
    assert server.requests == 3
    assert len(server.arrivals()) == 3
    assert len(server.seen("/late")) == 1
    assert server.stats().in_flight == 0
    with pytest.raises(RuntimeError, match="does not run"):
        server.script("/", Answer())
    gc.collect()  # a forgotten socket would warn, and warnings are errors


@pytest.mark.parametrize("process", [False, True])
def test_it_comes_back_at_the_same_address_as_new(*, process: bool) -> None:
    """An outage is a stop and a start."""
    server = ApiServer(process=process)
    with server:
        url = server.url
        assert statuses(server, 1) == [200]
    with server:
        assert server.url == url
        assert server.requests == 0
        assert statuses(server, 1) == [200]
        with pytest.raises(RuntimeError, match="already runs"):
            server.start()


@pytest.mark.parametrize("process", [False, True])
def test_a_port_that_is_taken_is_an_error_where_it_is_started(*, process: bool) -> None:
    """And nothing is left running."""
    children = multiprocessing.active_children()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        server = ApiServer(port=taken.getsockname()[1], process=process)
        with pytest.raises(OSError, match="in use"):
            server.start()
    assert multiprocessing.active_children() == children
    server.stop()


def test_before_it_starts_it_has_no_address() -> None:
    """And says what to do."""
    server = ApiServer(rate=None)
    with pytest.raises(RuntimeError, match="start"):
        _ = server.url
    with pytest.raises(RuntimeError, match="start"):
        server.stats()
    assert repr(server) == "<ApiServer, no limit, not started>"


def test_its_repr_says_where_it_is_and_what_it_allows() -> None:
    """Running or not."""
    with ApiServer(2.5, 3) as server:
        assert repr(server) == f"<ApiServer {server.url}, 2.5/second burst 3, running>"
    assert repr(server) == f"<ApiServer {server.url}, 2.5/second burst 3, stopped>"


def test_a_process_that_ends_by_itself_is_reported() -> None:
    """Not taken for a server that does not answer."""
    others = multiprocessing.active_children()
    server = ApiServer(process=True)
    server.start()
    (child,) = (one for one in multiprocessing.active_children() if one not in others)
    child.kill()
    child.join(SOON)
    with pytest.raises(RuntimeError, match="ended by itself, exit code -9"):
        server.stats()
    with pytest.raises(RuntimeError, match="ended by itself"):
        server.stop()
    server.stop()


@pytest.mark.parametrize("forks", [False, True])
def test_the_server_process_ends_with_its_parent(*, forks: bool) -> None:
    """However suddenly the parent goes, and also when a child it forked holds the pipe open."""
    program = f"""
import multiprocessing, os, sys, threading
from ratekit.testing.server import ApiServer
server = ApiServer(process=True)
server.start()
if not {forks} or os.fork():
    print(multiprocessing.active_children()[0].pid, server.url, flush=True)
    threading.Event().wait()
sys.stdin.read()
os._exit(0)
"""
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pid, url = parent.stdout.readline().split()
        assert requests.get(url, timeout=SOON).status_code == 200
        parent.kill()
        until(lambda: ended(int(pid)))


def ended(pid: int) -> bool:
    """Say whether a process that is no child of this one has ended."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    # A zombie has ended too, on a machine whose first process reaps none.
    with contextlib.suppress(FileNotFoundError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    return False


@pytest.mark.parametrize("process", [False, True])
def test_a_forked_child_leaves_the_server_to_its_parent(*, process: bool) -> None:
    """It cannot stop it or ask it, and the sockets it inherits keep nothing open."""
    server = ApiServer(None, process=process)
    with server, connect(server) as closed, connect(server) as stopped:
        for connection in (closed, stopped):
            connection.sendall(get())
            assert connection.recv(65536)  # so both are accepted, and the child has copies
        server.script("/", Answer(fault="close"))
        lives_r, lives_w = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # about forking beside threads
            pid = os.fork()
        if pid == 0:
            code = 1
            try:
                server.stats()
            except RuntimeError:
                server.stop()
                code = 0
            os.close(lives_w)
            os.read(lives_r, 1)  # until the parent has seen what it wants to see
            os._exit(code)
        closed.sendall(get())
        assert closed.recv(65536) == b""
        assert statuses(server, 1) == [200]
        server.stop()
        assert stopped.recv(65536) == b""
        with pytest.raises(ConnectionRefusedError):
            connect(server)
        os.close(lives_w)
        os.close(lives_r)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_a_script_without_the_guard_is_told_so(tmp_path: Path) -> None:
    """`multiprocessing` runs the script again in the child, which cannot start another."""
    script = tmp_path / "script.py"
    script.write_text(
        "from ratekit.testing.server import ApiServer\nApiServer(process=True).start()\n"
    )
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, timeout=SOON * 4, check=False
    )
    assert done.returncode == 1
    assert "under `if __name__ == '__main__':`" in done.stderr.splitlines()[-1]


def test_the_parser_is_bounded_however_its_input_is_cut() -> None:
    """It never keeps more than a head it will refuse."""
    parser = _wire.RequestParser()
    parser.feed(b"GET /" + b"x" * _wire.MAX_HEAD)
    with pytest.raises(_wire.Malformed, match="larger than 65536"):
        parser.next_request()
