"""What went wrong at the edges once: proxies, trickling bodies, refusals, keys, budgets, forks."""

import os
import socket
import time
from pathlib import Path

import pytest

import ratekit
from ratekit import MemoryStore, Options, Pipeline, RateLimiter, Retry, RetryBudget, options
from ratekit.call import Call, Outcome, Proceed
from ratekit.policy import Policy
from ratekit.testing import Answer, ApiServer, FakeClock
from tests.contracts.edges import AMPLE, EDGES, Edge, road
from tests.contracts.wire import OK, read_head, serve
from tests.faults.scripts import run

BODY = b"money"
# Of no server: only a proxy could be asked for it.
FAR = "http://far.invalid/pay"


def read_whole(connection: socket.socket) -> bytes:
    """Read a request whose body is `BODY`; return its first line and its body."""
    head = read_head(connection)
    body = b""
    while len(body) < len(BODY) and (piece := connection.recv(len(BODY))):
        body += piece
    return head.partition(b"\r\n")[0] + b" " + body


def test_a_post_that_a_proxy_took_is_sent_once(
    edge: Edge, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy that hangs up after it read the request may have passed it on."""
    seen: list[bytes] = []
    with serve(lambda connection: seen.append(read_whole(connection))) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        with edge.client(road(clock)) as client, pytest.raises(edge.error) as caught:
            client.send("POST", FAR, body=BODY)
    assert seen == [b"POST http://far.invalid/pay HTTP/1.1 money"]
    assert edge.details(caught.value).attempts == 1


def test_a_get_that_a_proxy_took_is_sent_again(
    edge: Edge, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is harmed by that, and the second attempt may fare better."""
    answers = [OK, b""]

    def handle(connection: socket.socket) -> None:
        read_head(connection)
        connection.sendall(answers.pop())

    with serve(handle) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        with edge.client(road(clock)) as client:
            assert edge.details(client.get(FAR)).attempts == 2


def test_a_post_that_a_proxy_refused_to_connect_for_is_tried_again(
    edge: Edge, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing was sent. A port that is bound, and not listened on, refuses."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{bound.getsockname()[1]}")
        with edge.client(road(clock)) as client, pytest.raises(edge.error) as caught:
            client.send("POST", FAR, body=BODY)
    assert edge.details(caught.value).attempts == 4


@pytest.mark.parametrize("status", ["403 Forbidden", "502 Bad Gateway"])
def test_a_post_that_got_no_tunnel_is_tried_again(
    edge: Edge, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, status: str
) -> None:
    """The proxy refused the CONNECT, so the request itself was never sent."""
    heads: list[bytes] = []

    def handle(connection: socket.socket) -> None:
        heads.append(read_head(connection).partition(b" ")[0])
        connection.sendall(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode())

    with serve(handle) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        with edge.client(road(clock)) as client, pytest.raises(edge.error) as caught:
            client.send("POST", "https://far.invalid/pay", body=BODY)
    assert heads == [b"CONNECT"] * 4
    assert edge.details(caught.value).attempts == 4


def test_a_short_rejected_body_that_trickles_is_given_up(edge: Edge, clock: FakeClock) -> None:
    """It would take 60 s: the next attempt is made long before, on another connection."""
    sent = 0
    left_early: list[bool] = []

    def handle(connection: socket.socket) -> None:
        nonlocal sent
        read_head(connection)
        if left_early or sent:
            connection.sendall(OK)
            return
        connection.sendall(b"HTTP/1.1 503 Busy\r\nContent-Length: 600\r\n\r\n")
        try:
            # Broken off after a tenth of it, so that a client which waits ends too.
            for _ in range(60):
                sent += 1
                connection.sendall(b"x")
                time.sleep(0.1)
        except OSError:
            left_early.append(True)

    with (
        serve(handle) as wire,
        edge.client(road(clock)) as client,
        client.stream("GET", wire.url) as response,
    ):
        assert (response.status_code, b"".join(edge.chunks(response))) == (200, b"ok")
        assert edge.details(response).attempts == 2
    assert wire.accepted == 2
    assert left_early == [True]


class _TooManyCats(ratekit.RateLimited):
    """A refusal of the user's own kind."""


class _Refusing(Policy):
    """A policy of the user's that refuses everything."""

    def __init__(self, refusal: ratekit.Rejected) -> None:
        self.refusal = refusal

    def run(self, call: Call, proceed: Proceed) -> Outcome:
        """Refuse."""
        raise self.refusal


@pytest.mark.parametrize(
    ("refusal", "name"),
    [
        (ratekit.Rejected("not today", key="cats"), "Rejected"),
        (_TooManyCats("not today", key="cats", retry_after=7.0), "RateLimited"),
    ],
    ids=["Rejected", "a kind of RateLimited"],
)
def test_a_refusal_of_the_users_policy_is_the_librarys_error(
    edge: Edge, server: ApiServer, clock: FakeClock, refusal: ratekit.Rejected, name: str
) -> None:
    """It is ratekit's too, says the same, and comes of the user's own; nothing is sent."""
    pipeline = Pipeline(Retry(), _Refusing(refusal), clock=clock)
    with edge.client(pipeline) as client, pytest.raises(edge.error) as caught:
        client.get(f"{server.url}/items")
    error = caught.value
    assert type(error) is getattr(edge.ours, name)
    assert isinstance(error, getattr(ratekit, name))
    assert (str(error), error.key, error.retry_after) == (
        "not today", "cats", refusal.retry_after,
    )  # fmt: skip
    assert error.__cause__ is refusal
    assert edge.details(error).attempts == 0
    assert server.requests == 0


@pytest.mark.parametrize(
    ("chosen", "own", "key"),
    [(None, True, "search"), ("tenant", False, "tenant"), ("tenant", True, "tenant")],
    ids=["key_of", "option", "option over key_of"],
)
def test_the_details_name_the_key_that_was_counted_on(
    edge: Edge, server: ApiServer, clock: FakeClock, chosen: str | None, key: str, *, own: bool
) -> None:
    """On an answer and on an error; a limiter's `key_of` and `options(key=...)` choose it."""
    store = MemoryStore(clock=clock)
    key_of = (lambda call: "search") if own else None
    limiter = RateLimiter("1/hour", key_of=key_of, max_wait=0, headroom=1, store=store)
    pipeline = Pipeline(Retry(), limiter, options=Options(key=chosen), clock=clock)
    with edge.client(pipeline) as client:
        response = client.get(f"{server.url}/items")
        with pytest.raises(ratekit.RateLimited) as caught:
            client.get(f"{server.url}/items")
    assert (edge.details(response).key, edge.details(caught.value).key) == (key, key)
    untouched = {"search", "tenant", server.url} - {key}
    assert limiter.peek(key).remaining == 0
    assert {limiter.peek(other).remaining for other in untouched} == {1}


@pytest.mark.parametrize(
    ("named", "status", "attempts"),
    [({420}, 420, 4), ({420}, 429, 4), ({503}, 429, 4), ({503}, 503, 1), ({420, 503}, 503, 1)],
)
def test_a_post_refused_by_a_named_status_is_repeated_where_it_was_not_acted_on(
    edge: Edge, server: ApiServer, clock: FakeClock, named: set[int], status: int, attempts: int
) -> None:
    """A 4xx is a plain refusal, and no failure: it uses up no try. A 503 may have been acted on."""
    server.script("/pay", *[Answer(status)] * 3)
    pipeline = road(clock, options=options(throttle_statuses=named), attempts=2)
    with edge.client(pipeline) as client:
        response = client.send("POST", f"{server.url}/pay", body=BODY)
    assert response.status_code == (200 if attempts == 4 else status)
    assert edge.details(response).attempts == attempts
    assert [seen.body for seen in server.seen("/pay")] == [BODY] * attempts


def test_one_tenants_outage_spends_no_others_retries(
    edge: Edge, server: ApiServer, clock: FakeClock
) -> None:
    """The retry budget is that of `options(key=...)`, though the server is the same."""
    budget = RetryBudget(ratio=0, floor=2, per_second=0, cap=2)
    pipeline = road(clock, attempts=10, budget=budget)
    server.script("/items", *[Answer(503)] * 5)
    attempts = []
    with edge.client(pipeline) as client:
        for key in ("one", "one", "two"):
            with options(key=key):
                attempts.append(edge.details(client.get(f"{server.url}/items")).attempts)
    # Two repeats and none left; then no repeat; and the other's own first one, which succeeds.
    assert attempts == [3, 1, 2]


def test_the_retry_budget_is_the_origins_where_no_key_was_chosen(
    edge: Edge, server: ApiServer, clock: FakeClock
) -> None:
    """A limiter's `key_of` divides the limit, and not the server's outages."""
    paths = iter(["one", "two"])
    limiter = RateLimiter(AMPLE, key_of=lambda call: Path(call.url).name)
    budget = RetryBudget(ratio=0, floor=1, per_second=0, cap=1)
    pipeline = Pipeline(Retry(budget=budget), limiter, clock=clock)
    attempts = []
    with edge.client(pipeline) as client:
        for path in paths:
            server.script(f"/{path}", *[Answer(503)] * 2)
            attempts.append(edge.details(client.get(f"{server.url}/{path}")).attempts)
    assert attempts == [2, 1]


FORK = """
import traceback

library = sys.modules[name]
real = library.HTTPTransport
made = []

def noted(**arguments):
    made.append(arguments)
    return real(**arguments)

def in_child(function):
    pid = os.fork()
    if pid == 0:
        try:
            function()
        except BaseException:
            traceback.print_exc()
        os._exit(0)
    os.waitpid(pid, 0)

transport = transport_on(Pipeline(Retry()))
library.HTTPTransport = noted
client = client_on(transport)
client.get(url)
"""

USED = """
def use():
    say("before its first use:", transport._is_stale, len(made))
    say("got", client.get(url).status_code)
    say("after it:", transport._is_stale, len(made))
    client.get(url)
    say("after the next:", transport._is_stale, len(made))

in_child(use)
in_child(client.close)
say("in the parent:", transport._is_stale, len(made), client.get(url).status_code)
"""

USED_BY_TWO = """
def use():
    parents = transport.transport
    send = parents.handle_request
    taken = []
    parents.handle_request = lambda request: taken.append(request) or send(request)
    others = []

    def slow(**arguments):
        # While the first thread opens connections, another one comes.
        if not others:
            others.append(threading.Thread(target=client.get, args=(url,)))
            others[0].start()
            others[0].join(0.3)
        return noted(**arguments)

    library.HTTPTransport = slow
    client.get(url)
    others[0].join()
    say("sent on what the parent had opened:", len(taken))
    say("opened:", len(made))

in_child(use)
"""

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
httpx_family = pytest.mark.parametrize("edge", EDGES[1:], ids=repr)


@needs_fork
@httpx_family
def test_a_forked_child_opens_its_connections_when_it_first_sends(
    edge: Edge, server: ApiServer
) -> None:
    """A child that sends nothing makes no TLS context; closing there leaves the parent's alone."""
    code, out, err = run(FORK + USED, f"{server.url}/items", edge.name)
    assert out.splitlines() == [
        "before its first use: True 0",
        "got 200",
        "after it: False 1",
        "after the next: False 1",
        "in the parent: False 0 200",
    ], err
    assert code == 0
    # One of the parent's, which it goes on with, and one of the child's that sent something.
    assert (server.requests, server.stats().connections) == (4, 2)


@needs_fork
@httpx_family
def test_two_threads_of_a_forked_child_open_their_connections_once(
    edge: Edge, server: ApiServer
) -> None:
    """Neither sends on the parent's, also while the other is still opening the child's own."""
    code, out, err = run(FORK + USED_BY_TWO, f"{server.url}/items", edge.name)
    assert out.splitlines() == ["sent on what the parent had opened: 0", "opened: 1"], err
    assert code == 0
