"""So many attempts in flight at a time, and no more."""

import gc
import threading
from typing import Any

import pytest

from ratekit import (
    Concurrency,
    ConcurrencyFull,
    ConfigurationError,
    DeadlineExceeded,
    Pipeline,
    RateLimiter,
    Retry,
    options,
)
from ratekit.call import Call, Outcome
from ratekit.testing import Answer, ApiServer
from tests.contracts.edges import EDGES, Edge, until

BIG = 300_000


@pytest.fixture(params=EDGES, ids=str)
def edge(request: pytest.FixtureRequest) -> Edge:
    """Give each edge."""
    edge: Edge = request.param
    return edge


def test_no_more_are_in_flight_than_may_be() -> None:
    """Sixteen threads, three slots."""
    concurrency, lock = Concurrency(3), threading.Lock()
    now = most = 0

    def attempt(call: Call) -> Outcome:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        threading.Event().wait(0.002)
        with lock:
            now -= 1
        return Outcome(None, 200, {})

    def work() -> None:
        for _ in range(10):
            concurrency.run(Call("GET", "", {}, key="k"), attempt)

    threads = [threading.Thread(target=work) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 3
    assert concurrency._slots == {}


def test_higher_priorities_go_first_and_then_who_came_first() -> None:
    """One slot, five who wait for it."""
    concurrency, order = Concurrency(1), list[str]()
    threads = []
    with concurrency.slot("k"):
        for name, priority in (("a", 0), ("b", 0), ("urgent", 5), ("c", 0), ("low", -1)):

            def wait(name: str = name, priority: int = priority) -> None:
                with concurrency.slot("k", priority=priority):
                    order.append(name)

            threads.append(threading.Thread(target=wait))
            threads[-1].start()
            here = len(threads)
            until(lambda: len(concurrency._slots["k"].waiting) == here)  # noqa: B023
    for thread in threads:
        thread.join()
    assert order == ["urgent", "a", "b", "c", "low"]


def test_a_wait_that_is_too_long_is_refused() -> None:
    """By the limit's own setting, and by the call's."""
    concurrency = Concurrency(1, max_wait=0.01)
    with concurrency.slot("k"):
        with pytest.raises(ConcurrencyFull, match="all 1 slots are taken") as full:
            concurrency.run(Call("GET", "", {}, key="k"), lambda call: Outcome(None, 200, {}))
        assert full.value.key == "k"
        with pytest.raises(ConcurrencyFull), concurrency.slot("k", max_wait=0):
            pass
        call = Call("GET", "", {}, key="k", options=options(deadline=0.005))
        with pytest.raises(DeadlineExceeded):
            Concurrency.run(concurrency, call, lambda call: Outcome(None, 200, {}))
        with concurrency.slot("another key"):
            assert concurrency.in_flight("another key") == 1
    with concurrency.slot("k"):
        assert concurrency.in_flight("k") == 1


def test_the_line_is_bounded() -> None:
    """Whoever comes after the last place is told so at once."""
    concurrency = Concurrency(1, max_waiting=1)
    with concurrency.slot("k"):
        thread = threading.Thread(target=lambda: concurrency.slot("k").__enter__())
        thread.start()
        until(lambda: concurrency._slots["k"].waiting)
        with pytest.raises(ConcurrencyFull, match="1 wait already"), concurrency.slot("k"):
            pass
    thread.join()


def test_an_attempt_that_fails_gives_its_slot_back() -> None:
    """Whatever it raises."""
    concurrency = Concurrency(1)

    def interrupt(call: Call) -> Outcome:
        raise KeyboardInterrupt

    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            concurrency.run(Call("GET", "", {}, key="k"), interrupt)
    assert concurrency.in_flight("k") == 0


def test_it_stands_innermost() -> None:
    """A slot that waits for a permit is one that nobody can use."""
    with pytest.raises(ConfigurationError, match="further out"):
        Pipeline(Concurrency(8), RateLimiter("1/second"))
    with pytest.raises(ConfigurationError, match="further out"):
        Pipeline(Concurrency(8), Retry())
    Pipeline(Retry(), RateLimiter("1/second"), Concurrency(8))


@pytest.mark.parametrize("limit", [0, -1, 1.5, True, "8"])
def test_what_is_no_number_of_slots_says_so(limit: Any) -> None:
    """At construction."""
    with pytest.raises(ConfigurationError, match="whole number"):
        Concurrency(limit)


@pytest.mark.parametrize("kind", ["short", "long", "chunked", "empty", "head", "error"])
def test_a_slot_is_free_when_the_answer_was_read(edge: Edge, server: ApiServer, kind: str) -> None:
    """Whatever kind of body it had."""
    concurrency = Concurrency(1)
    answers = {
        "short": Answer(200, [], b"x"),
        "long": Answer(200, [], b"x" * BIG),
        "empty": Answer(204, [], b""),
        "head": Answer(200, [], b""),
        "error": Answer(500, [], b"x" * BIG),
    }
    with edge.client(Pipeline(concurrency)) as client:
        for _ in range(3):
            path = "/stream/5" if kind == "chunked" else "/a"
            if kind in answers:
                server.script(path, answers[kind])
            client.send("HEAD" if kind == "head" else "GET", server.url + path)
            assert concurrency.in_flight(server.url) == 0


def test_a_stream_keeps_its_slot_until_it_is_closed(edge: Edge, server: ApiServer) -> None:
    """It is in flight as long as its body comes."""
    concurrency = Concurrency(1)
    server.script("/a", *[Answer(200, [], b"x" * BIG)] * 3)
    with edge.client(Pipeline(concurrency)) as client:
        with client.stream("GET", f"{server.url}/a") as response:
            assert concurrency.in_flight(server.url) == 1
            assert response.status_code == 200
        assert concurrency.in_flight(server.url) == 0
        with client.stream("GET", f"{server.url}/a") as response:
            assert sum(map(len, edge.chunks(response))) == BIG
            assert concurrency.in_flight(server.url) == 0


def test_a_stream_that_is_dropped_unread_gives_its_slot_back(edge: Edge, server: ApiServer) -> None:
    """When it is collected."""
    concurrency = Concurrency(1)
    server.script("/a", Answer(200, [], b"x" * BIG))
    with edge.client(Pipeline(concurrency)) as client:
        response = client.send("GET", f"{server.url}/a", stream=True)
        assert concurrency.in_flight(server.url) == 1
        del response
        gc.collect()
        assert concurrency.in_flight(server.url) == 0


def test_a_refusal_is_the_librarys_own_exception(edge: Edge, server: ApiServer) -> None:
    """And none that is retried."""
    concurrency = Concurrency(1, max_wait=0)
    with edge.client(Pipeline(concurrency)) as client, concurrency.slot(server.url):
        with pytest.raises(ConcurrencyFull) as caught:
            client.get(f"{server.url}/a")
        assert isinstance(caught.value, edge.error)


def test_a_server_that_refuses_a_third_is_never_asked_for_one(edge: Edge) -> None:
    """As nginx's limit_conn does."""
    pipeline = Pipeline(Concurrency(2))
    with (
        ApiServer(None, rule="concurrency", in_flight=2, latency=0.002, status=503) as server,
        edge.client(pipeline) as client,
    ):
        seen: list[int] = []
        threads = [
            threading.Thread(
                target=lambda: seen.extend(
                    client.get(f"{server.url}/a").status_code for _ in range(5)
                )
            )
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert seen == [200] * 40
        assert server.stats().refused == 0
