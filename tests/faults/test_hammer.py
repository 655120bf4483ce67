"""Many threads at once: no call is lost, no connection leaks, no limit is exceeded."""

import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from ratekit import Backoff, Pipeline, RateLimiter, Retry
from ratekit.testing import Answer, ApiServer
from tests.contracts.edges import EDGES, Client, Edge, until

THREADS = 16


def together(work: Callable[[int], object]) -> None:
    """Run `work(number)` in sixteen threads at once; raise what the first of them raised."""
    errors: list[BaseException] = []

    def one(number: int) -> None:
        try:
            work(number)
        except BaseException as error:  # noqa: BLE001  (it is raised in the test's thread)
            errors.append(error)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


@pytest.fixture
def frantic() -> Iterator[None]:
    """Let threads take turns as often as they can."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(usual)


def test_noise_loses_no_call_and_leaks_no_connection(edge: Edge) -> None:
    """A tenth of the answers are 503, a limit is kept, and everybody gets an own answer."""
    pipeline = Pipeline(
        Retry(attempts=20, backoff=Backoff("constant", base=0), budget=None),
        RateLimiter("500/second burst 50"),
    )
    right: list[bool] = []
    with ApiServer(rate=500, burst=50, noise=0.1) as server, edge.client(pipeline) as client:

        def work(number: int) -> None:
            for turn in range(10):
                name = f"{number}-{turn}"
                response = client.get(f"{server.url}/items?{name}")
                right.append(response.status_code == 200 and response.json()["query"] == name)

        together(work)
        stats = server.stats()
    assert right == [True] * THREADS * 10
    assert stats.noise > 0
    assert stats.in_flight == 0
    # A thread uses one at a time, and a rejected answer gives its own back.
    assert stats.connections <= THREADS


def test_faults_lose_no_call(edge: Edge, server: ApiServer) -> None:
    """Resets, closes, garbage and refusals in a row: everybody is served in the end."""
    faults = [
        Answer(fault="reset"),
        Answer(503, body=b"x" * 70_000),
        Answer(fault="close"),
        Answer(429, [("Retry-After", "0")]),
        Answer(fault="garbage"),
        Answer(503, body=b"x" * 100, fault="truncate"),
    ]
    server.script("/items", *faults * 8)
    pipeline = Pipeline(
        Retry(attempts=60, backoff=Backoff("constant", base=0), budget=None),
        RateLimiter("1000000/second burst 1000"),
    )
    statuses: list[int] = []
    with edge.client(pipeline) as client:
        together(
            lambda number: statuses.extend(
                client.get(f"{server.url}/items").status_code for _ in range(3)
            )
        )
    assert statuses == [200] * THREADS * 3
    assert server.requests == THREADS * 3 + len(faults) * 8


@pytest.mark.usefixtures("frantic")
def test_the_promise_is_kept_by_the_servers_own_record(edge: Edge, server: ApiServer) -> None:
    """The n-th request arrives no earlier than its permit was there, however threads race.

    The server's clock is this process's own; what is late on the way makes nothing early.
    """
    rate, burst = 400, 10
    limiter = RateLimiter(f"{rate}/second burst {burst}", headroom=1)
    with edge.client(limiter) as client:
        began = time.monotonic()
        together(lambda number: [client.get(f"{server.url}/items") for _ in range(8)])
    arrivals = [when for when, _ in server.arrivals()]
    assert len(arrivals) == THREADS * 8
    early = [
        number
        for number, when in enumerate(arrivals, start=1)
        if when < began + (number - burst) / rate - 1e-6
    ]
    assert early == []


@pytest.mark.usefixtures("frantic")
def test_one_budget_is_kept_by_clients_of_all_libraries_together(server: ApiServer) -> None:
    """Three libraries on one pipeline, sixteen threads: still one promise."""
    rate, burst = 400, 10
    pipeline = Pipeline(Retry(), RateLimiter(f"{rate}/second burst {burst}", headroom=1))
    clients: list[Client] = [Client(edge, edge.native(edge.transport(pipeline))) for edge in EDGES]
    began = time.monotonic()
    together(lambda number: [clients[number % 3].get(f"{server.url}/items") for _ in range(6)])
    for client in clients:
        client.native.close()
    arrivals = [when for when, _ in server.arrivals()]
    assert len(arrivals) == THREADS * 6
    assert all(
        when >= began + (number - burst) / rate - 1e-6
        for number, when in enumerate(arrivals, start=1)
    )


def test_a_refusal_among_many_holds_all_of_them(edge: Edge) -> None:
    """After a 429 nobody fires before the time that the server named, in order and one by one."""
    with ApiServer(rate=None) as server:
        server.script("/items", Answer(200), Answer(429, [("Retry-After", "0.5")]))
        limiter = RateLimiter("1000/second burst 1")
        pipeline = Pipeline(Retry(), limiter)
        with edge.client(pipeline) as client:
            client.get(f"{server.url}/items")
            refused = threading.Event()

            def work(number: int) -> None:
                if number == 0:
                    client.get(f"{server.url}/items")
                else:
                    refused.wait(10)
                    client.get(f"{server.url}/items")

            def watch() -> None:
                until(lambda: limiter.peek(server.url).reset_after > 0.1)
                refused.set()

            watching = threading.Thread(target=watch)
            watching.start()
            together(work)
            watching.join()
        arrivals = [when for when, _ in server.arrivals()]
    the_refusal = arrivals[1]
    assert len(arrivals) == 2 + THREADS
    assert all(when >= the_refusal + 0.5 for when in arrivals[2:])
