"""The loopback API server under each rule: what it admits, what it says, over real sockets."""

import contextlib
import random
import threading
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import Any

import pytest

from ratekit.testing._rules import FixedWindow, Rule, SlidingLog, TokenBucket, TwoWindowEstimate
from ratekit.testing._service import Service
from ratekit.testing._wire import Request
from ratekit.testing.server import Answer, ApiServer, RetryAfter, RuleName
from tests.testing.client import client, connect, drain, get, send, until

HOUR = 3600.0
# Three, and then no more for about an hour.
THREE: dict[RuleName, dict[str, Any]] = {
    "token bucket": {"rate": 1, "burst": 3, "window": HOUR},
    "sliding log": {"rate": 3, "window": HOUR},
    "fixed window": {"rate": 3, "window": HOUR},
    "wall-clock window": {"rate": 3, "window": HOUR},
    "two-window estimate": {"rate": 3, "window": HOUR},
    "concurrency": {"rate": None, "in_flight": 3},
}
BY_TIME: list[RuleName] = [rule for rule in THREE if rule != "concurrency"]


# Without sockets, on a clock of the test's own


class Api:
    """A service whose clocks the test moves; it answers at once."""

    def __init__(self, **arguments: Any) -> None:
        self.counted_in: Any = None
        self.now, self.today = 10.0, 1_800_000_000.25
        settings = ApiServer(**arguments)._settings
        self.service = Service(settings, lambda: self.now, lambda: self.today)
        self.over: list[Callable[[bool], None]] = []

    def answer(
        self, request: Request, answer: Answer, after: float, done: Callable[[bool], None]
    ) -> None:
        """Keep the answer, and what to call when it went out."""
        self.last = answer
        self.over.append(done)

    def get(self) -> dict[str, str] | None:
        """Ask; give the headers of a refusal."""
        self.service.handle(Request("GET", "/", "", (), b"", http11=True, keep_alive=True), self)
        if self.last.status == 200:
            return None
        return {str(name): str(value) for name, value in self.last.headers}

    def finish(self, number: int) -> None:
        """Let an answer have gone out."""
        self.over[number](True)  # noqa: FBT003 (as a connection calls it)

    def wait(self, seconds: float) -> None:
        """Move both clocks."""
        self.now += seconds
        self.today += seconds


def seconds(headers: dict[str, str], today: float) -> float:
    """Read how long a refusal says to wait, in whatever form."""
    if "retry-after-ms" in headers:
        return int(headers["retry-after-ms"]) / 1000
    if "Date" in headers:
        # A float holds this year's instants to a quarter of a microsecond.
        return parsedate_to_datetime(headers["Retry-After"]).timestamp() - today + 1e-6
    return float(headers["Retry-After"])


@pytest.mark.parametrize("form", ["ceil", "exact", "date", "ms"])
@pytest.mark.parametrize("rule", BY_TIME)
def test_whoever_comes_back_when_told_is_admitted(rule: RuleName, form: RetryAfter) -> None:
    """Only "truncate" is ever early."""
    for seed in range(20):
        chance = random.Random(seed)
        window = chance.choice([0.1, 1.0, 7.0, 60.0])
        api = Api(rate=chance.randrange(1, 6), window=window, rule=rule, retry_after=form)
        api.wait(chance.uniform(0.0, 1e6))
        for _ in range(100):
            headers = api.get()
            if headers is None:
                api.wait(chance.choice([0.0, chance.expovariate(20 / window)]))
                continue
            wait = seconds(headers, api.today)
            assert 0 < wait < 2 * window + 1.01
            api.wait(wait)
            assert api.get() is None


@pytest.mark.parametrize("refusals", [True, False])
def test_an_estimate_is_told_apart_by_whether_refusals_count(*, refusals: bool) -> None:
    """A client that goes on asking twice as often as allowed never gets in again, or does."""
    api = Api(rate=5, rule="two-window estimate", count_refusals=refusals)
    admitted = 0
    for _ in range(100):
        admitted += api.get() is None
        api.wait(0.1)
    assert admitted == 5 if refusals else admitted >= 50


def test_a_wall_clock_window_follows_the_wall_clock() -> None:
    """Though the monotonic clock stands still; and the date of its end is that of the edge."""
    api = Api(rate=1, window=60.0, rule="wall-clock window", retry_after="date")
    assert api.get() is None
    headers = api.get()
    assert headers is not None
    assert parsedate_to_datetime(headers["Retry-After"]).timestamp() == 1_800_000_060
    api.today = 1_800_000_060.0
    assert api.get() is None
    assert api.get() is not None


@pytest.mark.parametrize("form", ["ceil", "truncate", "exact", "date", "ms", None])
def test_concurrency_never_says_when(form: RetryAfter | None) -> None:
    """Nobody knows when somebody else's request will be over."""
    api = Api(rate=None, rule="concurrency", in_flight=2, retry_after=form)
    assert [api.get(), api.get(), api.get()] == [None, None, {"Content-Type": "application/json"}]
    api.finish(2)  # the refusal, which had no place to give back
    assert api.get() is not None
    api.finish(0)
    assert api.get() is None


def test_a_reset_forgets_what_was_in_flight() -> None:
    """Whose places are not given back to the limit of after the reset."""
    api = Api(rate=None, rule="concurrency", in_flight=1)
    assert api.get() is None
    api.service.reset()
    assert api.get() is None
    api.finish(0)
    assert api.get() is not None
    api.finish(1)
    assert api.get() is None


# Over sockets


@pytest.mark.parametrize("process", [False, True])
@pytest.mark.parametrize("rule", BY_TIME)
def test_each_rule_refuses_what_is_too_much(rule: RuleName, *, process: bool) -> None:
    """In a thread and in a process, and says when to come back."""
    arguments = THREE[rule]
    if rule == "wall-clock window":
        # A window that has the present in its middle, so that none ends during the test.
        arguments = {**arguments, "window": time.time() / 1_000_000.5 * 2}
    with ApiServer(**arguments, rule=rule, process=process) as server, client(server) as one:
        replies = [send(one) for _ in range(5)]
        arrivals = server.arrivals()
        stats = server.stats()
        server.reset()
        assert send(one).status == 200

    assert [reply.status for reply in replies] == [200, 200, 200, 429, 429]
    assert [admitted for _, admitted in arrivals] == [True, True, True, False, False]
    assert (stats.admitted, stats.refused) == (3, 2)
    assert [1 < int(reply.headers["Retry-After"]) < 2 * HOUR for reply in replies[3:]] == [True] * 2


@pytest.mark.parametrize("process", [False, True])
def test_concurrency_is_held_until_the_answer_or_the_client_is_gone(*, process: bool) -> None:
    """By what was admitted, and by nothing else."""
    with (
        ApiServer(None, rule="concurrency", in_flight=2, status=503, process=process) as server,
        contextlib.ExitStack() as stack,
        client(server) as one,
    ):
        server.script("/hang", *[Answer(fault="hang")] * 2, limited=True)
        server.script("/free", Answer(200, delay=60), Answer(201))
        for path in ("/free", "/hang"):
            stack.enter_context(connect(server)).sendall(get(path))
        until(lambda: server.stats().in_flight == 2)
        assert send(one).status == 200  # one place was left, and is free again
        last = stack.enter_context(connect(server))
        last.sendall(get("/hang"))
        until(lambda: server.stats().in_flight == 3)
        refusal = send(one)
        assert (refusal.status, refusal.headers["Retry-After"]) == (503, None)
        assert send(one, "/free").status == 201
        last.close()
        until(lambda: server.stats().in_flight == 2)
        assert [send(one).status, send(one).status] == [200, 200]


def test_no_more_are_answered_at_once_than_concurrency_allows() -> None:
    """The rest is refused as it comes, though as late as everything else."""
    with (
        ApiServer(None, rule="concurrency", in_flight=3, latency=0.2) as server,
        contextlib.ExitStack() as stack,
    ):
        connections = [stack.enter_context(connect(server)) for _ in range(8)]
        for connection in connections:
            connection.sendall(get("/", "Connection: close"))
        answers = [drain(connection) for connection in connections]
        stats = server.stats()
    # A busy machine may have answered some before the last had come.
    assert sum(answer.startswith(b"HTTP/1.1 200 ") for answer in answers) == stats.ok >= 3
    assert sum(answer.startswith(b"HTTP/1.1 429 ") for answer in answers) == stats.refused
    assert (stats.ok + stats.refused, stats.in_flight) == (8, 0)


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        ({"rate": 20, "burst": 5}, TokenBucket(20 / 0.05, 5)),
        ({"rule": "sliding log"}, SlidingLog(20, 0.05)),
        ({"rule": "fixed window"}, FixedWindow(20, 0.05)),
        (
            {"rule": "two-window estimate"},
            TwoWindowEstimate(20, 0.05, time.time, count_refusals=True),
        ),
    ],
)
def test_a_stampede_is_decided_by_the_rule(arguments: dict[str, Any], rule: Rule) -> None:
    """Its record, instant by instant, held against the rule on its own."""
    with ApiServer(**{"rate": 20, "window": 0.05, **arguments}) as server:

        def stampede() -> None:
            with client(server) as one:
                while server.requests < 300:
                    send(one)

        threads = [threading.Thread(target=stampede) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        arrivals, stats = server.arrivals(), server.stats()

    assert [(now, rule.take(now) == 0.0) for now, _ in arrivals] == arrivals
    assert stats.admitted + stats.refused == len(arrivals)
