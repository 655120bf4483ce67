"""`Jobs` over every client: a result for each job, whatever fails, and nothing stays behind."""

import gc
import signal
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import CancelledError, wait
from typing import Any

import httpx
import pytest
import requests

from ratekit import ConfigurationError, Pipeline, RateLimiter, Retry
from ratekit import options as ratekit_options
from ratekit.jobs import Jobs, Result
from ratekit.requests import RateKitAdapter
from ratekit.stores import MemoryStore
from ratekit.testing import Answer, ApiServer, FakeClock
from tests.contracts.edges import Edge, until


@pytest.fixture
def session() -> Iterator[requests.Session]:
    """Give a session that is never limited."""
    with requests.Session() as one:
        one.mount("http://", RateKitAdapter(Pipeline(Retry(), RateLimiter("100000/second"))))
        yield one


def urls(server: ApiServer, count: int) -> list[str]:
    """Return so many URLs."""
    return [f"{server.url}/items/{number}" for number in range(count)]


def threads() -> list[str]:
    """Return the names of our threads."""
    return [one.name for one in threading.enumerate() if one.name.startswith("ratekit-jobs")]


def test_every_job_has_a_result(server: ApiServer, session: requests.Session) -> None:
    """As they come, each beside its request."""
    asked = urls(server, 100)
    with Jobs(session) as jobs:
        results = list(jobs.map(asked))
    assert sorted(result.request for result in results) == sorted(asked)
    assert all(result.ok and result.value.status_code == 200 for result in results)
    assert all(result.attempts == 1 and not result.saved for result in results)
    assert threads() == []


def test_in_order(server: ApiServer, session: requests.Session) -> None:
    """Though a later one is done first."""
    server.script("/items/0", Answer(200, delay=0.2))
    asked = urls(server, 50)
    with Jobs(session) as jobs:
        assert [result.request for result in jobs.map(asked, ordered=True)] == asked


def test_one_failure_never_stops_the_rest(edge: Edge, server: ApiServer) -> None:
    """A status, a network's error and a refusal are results."""
    server.script("/items/1", Answer(404))
    server.script("/items/2", *[Answer(fault="reset")] * 9)
    server.script("/items/3", Answer(503), Answer(200))
    clock = FakeClock()
    pipeline = Pipeline(
        Retry(3), RateLimiter("1000/second", store=MemoryStore(clock=clock)), clock=clock
    )
    with edge.client(pipeline) as client, Jobs(client.native, workers=1) as jobs:
        results = list(jobs.map(urls(server, 5), ordered=True))
    assert [result.ok for result in results] == [True, False, False, True, True]
    assert results[1].value.status_code == 404
    assert results[1].error is None
    assert isinstance(results[2].error, edge.error)
    assert [result.attempts for result in results] == [1, 1, 3, 2, 1]


@pytest.mark.parametrize(
    ("make", "method", "body"),
    [
        (lambda url: url, "GET", b""),
        (lambda url: ("DELETE", url), "DELETE", b""),
        (lambda url: {"method": "POST", "url": url, "json": {"a": 1}}, "POST", b'{"a": 1}'),
        (lambda url: {"url": url}, "GET", b""),
        (lambda url: requests.Request("PUT", url, data="x"), "PUT", b"x"),
        (lambda url: requests.Request("PUT", url, data="x").prepare(), "PUT", b"x"),
    ],
)
def test_what_a_request_may_be(
    server: ApiServer, session: requests.Session, make: Any, method: str, body: bytes
) -> None:
    """A URL, a pair, arguments, or the library's own."""
    with Jobs(session) as jobs:
        (result,) = jobs.map([make(f"{server.url}/items")])
    assert result.ok
    (seen,) = server.seen("/items")
    assert (seen.method, seen.body) == (method, body)


def test_a_request_of_httpx(server: ApiServer) -> None:
    """Built by its client."""
    with httpx.Client() as client, Jobs(client) as jobs:
        (result,) = jobs.map([client.build_request("PATCH", f"{server.url}/items", json=[1])])
    assert result.ok
    assert server.seen("/items")[0].method == "PATCH"


def test_a_function_is_a_client_too() -> None:
    """For work of another kind."""

    def work(number: int) -> float:
        return 1 / number

    with Jobs(work, workers=2) as jobs:
        one, none = jobs.map([4, 0], ordered=True)
    assert (one.ok, one.value) == (True, 0.25)
    assert isinstance(none.error, ZeroDivisionError)


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_whatever_a_job_raises_is_its_own(error: type[BaseException]) -> None:
    """No thread ends by it, which would leave the reader waiting."""

    def work(number: int) -> int:
        if number in {2, 3}:
            raise error
        return number

    with Jobs(work, workers=2) as jobs:
        results = list(jobs.map(range(6), ordered=True))
    assert [result.ok for result in results] == [True, True, False, False, True, True]
    assert type(results[2].error) is error


def test_two_readers_at_the_same_time() -> None:
    """Each has its own results."""
    with Jobs(lambda number: number, workers=4) as jobs:
        pairs = zip(jobs.map(range(100)), jobs.map(range(100, 200)), strict=True)
        some, others = zip(*((one.value, other.value) for one, other in pairs), strict=True)
    assert sorted(some) == list(range(100))
    assert sorted(others) == list(range(100, 200))


@pytest.mark.parametrize("client", [5, None, "session"])
def test_what_is_no_client(client: object) -> None:
    """Said at once."""
    with pytest.raises(ConfigurationError, match=r"use a requests\.Session"):
        Jobs(client)


def test_parse_makes_the_value(server: ApiServer, session: requests.Session) -> None:
    """Of answers below 400; what it raises is the job's error."""
    server.script("/items/1", Answer(404))
    server.script("/items/2", Answer(200, body=b"no json"))
    with Jobs(session, workers=1, parse=lambda answer: answer.json()) as jobs:
        good, refused, broken = jobs.map(urls(server, 3), ordered=True)
    assert isinstance(good.value, dict)
    assert (refused.ok, refused.value.status_code) == (False, 404)
    assert isinstance(broken.error, requests.JSONDecodeError)


def test_a_reader_that_is_slow_holds_the_jobs_back(
    server: ApiServer, session: requests.Session
) -> None:
    """So many are begun ahead of it, and no more are read from the iterable."""
    read = []

    def asked() -> Iterator[str]:
        for url in urls(server, 1000):
            read.append(url)
            yield url

    with Jobs(session, workers=4, ahead=10) as jobs:
        results = jobs.map(asked())
        next(results)
        until(lambda: server.requests >= 10)
        time.sleep(0.05)
        assert server.requests == 10
        assert len(read) == 10
        results.close()  # type: ignore[attr-defined]


def test_what_the_iterable_raises_comes_after_the_results(
    server: ApiServer, session: requests.Session
) -> None:
    """Nothing that was begun is lost."""

    def asked() -> Iterator[str]:
        yield from urls(server, 7)
        raise LookupError("no more pages")

    seen = []
    with Jobs(session) as jobs, pytest.raises(LookupError, match="no more pages"):  # noqa: PT012
        for result in jobs.map(asked()):
            seen += [result]
    assert len(seen) == 7


def test_to_stop_reading_gives_up_what_waits(server: ApiServer) -> None:
    """Without a wait for its turn, an hour away."""
    pipeline = Pipeline(Retry(), RateLimiter("2/hour burst 2"))
    with requests.Session() as session:
        session.mount("http://", RateKitAdapter(pipeline))
        with Jobs(session, workers=4) as jobs:
            for result in jobs.map(urls(server, 100)):
                assert result.ok
                break
    assert server.requests <= 2
    assert threads() == []


def test_cancel_ends_a_map_and_cancels_futures(server: ApiServer) -> None:
    """From another thread."""
    limiter = RateLimiter("1/hour burst 1")
    with requests.Session() as session:
        session.mount("http://", RateKitAdapter(Pipeline(limiter)))
        with Jobs(session, workers=3) as jobs:
            futures = [jobs.submit(url) for url in urls(server, 5)]
            until(lambda: any(future.done() for future in futures))
            waiting = threading.Timer(0.1, jobs.cancel)
            waiting.start()
            results = list(jobs.map(urls(server, 5)))
            waiting.join()
            assert results == []
            wait(futures, 10)
            done = [future for future in futures if not future.cancelled()]
            assert [future.result().ok for future in done] == [True]
            with pytest.raises(CancelledError):
                next(future for future in futures if future.cancelled()).result()
    assert server.requests == 1


def test_submit_and_drain(server: ApiServer, session: requests.Session) -> None:
    """A future for each; drain waits for all."""
    with Jobs(session, workers=4) as jobs:
        futures = [jobs.submit(url) for url in urls(server, 30)]
        jobs.drain()
        assert all(future.done() for future in futures)
        assert {future.result().request for future in futures} == set(urls(server, 30))
    with pytest.raises(ConfigurationError, match="closed"):
        jobs.submit("http://127.0.0.1/")


def test_the_most_urgent_goes_first() -> None:
    """Of those that wait for a worker."""
    done: list[str] = []
    gate = threading.Event()

    def work(name: str) -> None:
        gate.wait(10)
        done.append(name)

    with Jobs(work, workers=1) as jobs:
        jobs.submit("first")
        until(lambda: not jobs._urgent)
        for name, priority in (("low", -1), ("usual", 0), ("high", 5), ("usual too", 0)):
            jobs.submit(name, priority=priority)
        gate.set()
    assert done == ["first", "high", "usual", "usual too", "low"]


def test_background_work_lets_others_go_first(server: ApiServer) -> None:
    """An interactive call is not behind the jobs that wait for the same permits."""
    limiter = RateLimiter("20/second burst 1")
    with requests.Session() as session:
        session.mount("http://", RateKitAdapter(Pipeline(limiter)))
        with Jobs(session, workers=8) as jobs:
            results = jobs.map(urls(server, 1000))
            for _ in range(3):
                next(results)
            before = server.requests
            session.get(f"{server.url}/items/urgent")
            meanwhile = server.requests - before - 1
            results.close()  # type: ignore[attr-defined]
    # Beside what was on the wire, at most one that had its turn already.
    assert meanwhile <= 2


def test_the_options_of_the_block_hold_in_the_threads(
    server: ApiServer, session: requests.Session
) -> None:
    """And another map works after one that was left."""
    server.script("/items/0", *[Answer(503)] * 3)
    with ratekit_options(retry=False), Jobs(session, workers=2) as jobs:
        for result in jobs.map(urls(server, 9), ordered=True):
            assert (result.ok, result.attempts) == (False, 1)
            break
        assert sum(result.ok for result in jobs.map(urls(server, 9)[1:])) == 8


def test_nothing_stays_behind(server: ApiServer, session: requests.Session) -> None:
    """Neither threads nor results."""

    class Big:
        pass

    alive: weakref.WeakSet[Big] = weakref.WeakSet()
    most = 0

    def make(_: Any) -> Big:
        big = Big()
        alive.add(big)
        return big

    with Jobs(session, workers=4, parse=make) as jobs:
        for result in jobs.map(urls(server, 300)):
            most = max(most, len(alive))
            assert result.ok
        del result
    gc.collect()
    assert most <= 4 * 4 + 8
    assert len(alive) == 0
    assert threads() == []


def test_no_threads_before_there_is_work() -> None:
    """And no more than there are jobs."""
    with Jobs(len, workers=8) as jobs:
        assert threads() == []
        list(jobs.map(["abc"] * 3))
        assert 1 <= len(threads()) <= 3


def test_ctrl_c_ends_it_cleanly(server: ApiServer) -> None:
    """Though all its threads wait for an hour."""
    program = """
        import sys, requests
        from ratekit import Pipeline, RateLimiter
        from ratekit.jobs import Jobs
        from ratekit.requests import RateKitAdapter

        session = requests.Session()
        session.mount("http://", RateKitAdapter(Pipeline(RateLimiter("3/hour burst 3"))))
        try:
            with Jobs(session) as jobs:
                for result in jobs.map(sys.argv[1] for _ in range(50)):
                    print(result.ok, flush=True)
        except KeyboardInterrupt:
            print("stopped", flush=True)
    """
    command = [sys.executable, "-c", textwrap.dedent(program), f"{server.url}/items"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for _ in range(3):
            assert process.stdout.readline() == "True\n"
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=20)
    assert (said, process.returncode) == ("stopped\n", 0)


def test_results_are_values() -> None:
    """Frozen, and comparable."""
    result = Result("a", ok=True, value=1)
    assert result == Result("a", ok=True, value=1)
    with pytest.raises(AttributeError):
        result.ok = False  # type: ignore[misc]
