"""The loopback API server answers with what was asked, and remembers what arrived."""

import json

import pytest
import requests

from ratekit.testing.server import ApiServer
from tests.testing.client import SOON, ask, client, connect, drain, get, send, until


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
