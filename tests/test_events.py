"""What listeners are told of, on every edge; and that it costs nobody a call."""

import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ratekit import (
    Cache,
    CircuitBreaker,
    ConfigurationError,
    Dedup,
    Pipeline,
    RateLimited,
    RateLimiter,
    Retry,
    events,
)
from ratekit.events import (
    AttemptEnded,
    CacheUsed,
    CallEnded,
    CircuitChanged,
    Event,
    FollowerJoined,
    HoldReleased,
    HoldSet,
    PaceLearned,
    PermitWaited,
    QuotaLow,
    QuotaSeen,
    Refused,
    Retried,
    StoreFound,
    StoreLost,
)
from ratekit.stores import MemcachedStore, MemoryStore
from ratekit.testing import Answer, ApiServer, FakeClock
from tests.conftest import StartMemcached
from tests.contracts.edges import Edge, until

KEPT = ("Cache-Control", "max-age=60")


class Heard(list[Any]):
    """A listener that keeps what it hears."""

    def __call__(self, event: Event) -> None:
        """Keep it."""
        self.append(event)

    def of(self, kind: type[Event]) -> list[Any]:
        """Return those of one kind."""
        return [event for event in self if type(event) is kind]


@pytest.fixture
def heard() -> Heard:
    """Give a listener."""
    return Heard()


def pipeline(clock: FakeClock, heard: Heard, limit: str = "1000/second", **more: Any) -> Pipeline:
    """Return retry around a limiter, on this clock."""
    limiter = RateLimiter(limit, store=MemoryStore(clock=clock), **more)
    return Pipeline(Retry(), limiter, clock=clock, on_event=heard)


def test_a_call_and_its_attempts(
    edge: Edge, server: ApiServer, clock: FakeClock, heard: Heard
) -> None:
    """Each attempt, why there was another one, and the end."""
    server.script("/items", Answer(503))
    with edge.client(pipeline(clock, heard)) as client:
        client.get(f"{server.url}/items")
    first, second = heard.of(AttemptEnded)
    assert (first.status, first.verdict, first.number, first.is_failure) == (503, "failed", 1, True)
    assert (second.status, second.verdict, second.number) == (200, "ok", 2)
    (retried,) = heard.of(Retried)
    assert (retried.number, retried.why) == (1, "status 503")
    (ended,) = heard.of(CallEnded)
    assert ended.key == server.url
    assert (ended.status, ended.source, ended.attempts, ended.error) == (200, "server", 2, "")
    assert ended.seconds == pytest.approx(ended.waited) == pytest.approx(retried.delay)
    assert heard[-1] is ended


def test_a_failure_without_an_answer(
    edge: Edge, server: ApiServer, clock: FakeClock, heard: Heard
) -> None:
    """The error's name, and no message that could hold a URL."""
    server.script("/items", *[Answer(fault="reset")] * 4)
    with edge.client(pipeline(clock, heard)) as client, pytest.raises(edge.error):
        client.get(f"{server.url}/items")
    assert [one.status for one in heard.of(AttemptEnded)] == [None] * 4
    (ended,) = heard.of(CallEnded)
    assert (ended.status, ended.source, ended.attempts) == (None, "", 4)
    assert ended.error.isidentifier()


def test_a_wait_a_refusal_and_a_hold(
    edge: Edge, server: ApiServer, clock: FakeClock, heard: Heard
) -> None:
    """What keeps a call waiting, and what ends it."""
    server.script("/items", Answer(429, [("Retry-After", "3")]))
    with edge.client(pipeline(clock, heard, "1/second", max_wait=5)) as client:
        client.get(f"{server.url}/items")
        (held,) = heard.of(HoldSet)
        assert (held.seconds, held.status, held.key) == (3, 429, server.url)
        (released,), (waited,) = heard.of(HoldReleased), heard.of(PermitWaited)
        assert released.key == server.url
        # The hold, and then the turn.
        assert waited.seconds == pytest.approx(4, abs=0.1)
        server.script("/items", Answer(429, [("Retry-After", "100")]))
        client.get(f"{server.url}/items")
        with pytest.raises(RateLimited):
            client.get(f"{server.url}/items")
    refused = heard.of(Refused)[-1]
    assert refused.error == "RateLimited"
    assert refused.retry_after == pytest.approx(101, abs=1)


def test_what_the_server_tells(
    edge: Edge, server: ApiServer, clock: FakeClock, heard: Heard
) -> None:
    """Its quota, the pace that follows, and that little is left."""
    told = [("RateLimit-Policy", '"a";q=50;w=1'), ("RateLimit", '"a";r=2;t=1')]
    hourly = [
        ("X-RateLimit-Limit", "100"),
        ("X-RateLimit-Remaining", "5"),
        ("X-RateLimit-Reset", "900"),
    ]
    server.script("/items", Answer(200, told), Answer(200, hourly))
    learning = RateLimiter(store=MemoryStore(clock=clock))
    with edge.client(Pipeline(learning, clock=clock, on_event=heard)) as client:
        client.get(f"{server.url}/items")
        client.get(f"{server.url}/items")
    assert [one.quotas[0].limit for one in heard.of(QuotaSeen)] == [50, 100]
    assert [(one.per_second, one.told) for one in heard.of(PaceLearned)] == [(49.5, True)]
    assert [one.left for one in heard.of(QuotaLow)] == [0.05]


def test_a_circuit(edge: Edge, server: ApiServer, clock: FakeClock, heard: Heard) -> None:
    """That it opened, and for how long."""
    server.script("/items", *[Answer(500)] * 2)
    breaker = CircuitBreaker("2 in a row", cooldown=7, store=MemoryStore(clock=clock))
    with edge.client(Pipeline(breaker, clock=clock, on_event=heard)) as client:
        for _ in range(2):
            client.get(f"{server.url}/items")
    (changed,) = heard.of(CircuitChanged)
    assert (changed.state, changed.seconds) == ("open", pytest.approx(7))


def test_a_cache(edge: Edge, server: ApiServer, clock: FakeClock, heard: Heard) -> None:
    """What it did, and why it was no hit."""
    server.script(
        "/items",
        Answer(200, [KEPT]),
        Answer(200, [KEPT]),
        Answer(200, [("Cache-Control", "no-store")]),
    )
    cache = Cache(clock=clock)
    with edge.client(Pipeline(cache, clock=clock, on_event=heard)) as client:
        for _ in range(2):
            client.get(f"{server.url}/items")
        clock.sleep(61)
        client.get(f"{server.url}/items")
        client.get(f"{server.url}/other?x=1")
        client.send("POST", f"{server.url}/items")
    said = [(one.result, one.reason, one.stored) for one in heard.of(CacheUsed)]
    assert said[:3] == [("miss", "uri-miss", True), ("hit", "", False), ("miss", "stale", True)]
    assert said[3][0] == "miss"
    assert said[4] == ("bypass", "method", False)
    assert [one.source for one in heard.of(CallEnded)][:3] == ["server", "cache", "server"]


def test_followers(edge: Edge, server: ApiServer, heard: Heard) -> None:
    """Who waits for somebody else's answer."""
    server.script("/items", Answer(200, delay=0.2))
    with edge.client(Pipeline(Dedup(), on_event=heard)) as client:
        leader = threading.Thread(target=client.get, args=(f"{server.url}/items",))
        leader.start()
        until(lambda: server.requests == 1)
        client.get(f"{server.url}/items")
        leader.join()
    assert [one.key for one in heard.of(FollowerJoined)] == [server.url]
    assert sorted(one.source for one in heard.of(CallEnded)) == ["collapsed", "server"]
    assert server.requests == 1


@pytest.fixture
def everything(heard: Heard) -> Iterator[Heard]:
    """Give a listener to all that happens in this process."""
    end = events.listen(heard)
    yield heard
    end()


def test_a_store_that_is_lost_and_found(start_memcached: StartMemcached, everything: Heard) -> None:
    """Once each, whoever asks it."""
    memcached = start_memcached()
    limiter = RateLimiter("1000/second", name="events", store=MemcachedStore(memcached.url))
    limiter.acquire("k")
    memcached.stop()
    for _ in range(3):
        limiter.acquire("k")
    (lost,) = everything.of(StoreLost)
    assert str(memcached.address[1]) in lost.key
    start_memcached(port=memcached.address[1])

    def found() -> bool:
        limiter.acquire("k")
        return bool(everything.of(StoreFound))

    until(found)
    assert everything.of(StoreFound)[0].seconds > 0


def test_everybody_is_told_and_nobody_after_the_end(
    edge: Edge, server: ApiServer, clock: FakeClock, heard: Heard
) -> None:
    """The pipeline's listeners and those of the process."""
    everywhere = Heard()
    end = events.listen(everywhere)
    with edge.client(pipeline(clock, heard)) as client:
        client.get(f"{server.url}/items")
        end()
        client.get(f"{server.url}/items")
    assert (len(heard.of(CallEnded)), len(everywhere.of(CallEnded))) == (2, 1)


def test_a_listener_that_fails_fails_nothing(
    edge: Edge,
    server: ApiServer,
    clock: FakeClock,
    heard: Heard,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is said once in a while, and the others are told."""

    def broken(event: Event) -> None:
        raise ValueError(event.key)

    chosen = Pipeline(Retry(), clock=clock, on_event=[broken, heard])
    with edge.client(chosen) as client:
        for _ in range(3):
            assert client.get(f"{server.url}/items").status_code == 200
    assert len(heard.of(CallEnded)) == 3
    assert sum("broken" in record.getMessage() for record in caplog.records) == 1


def test_a_listener_may_use_what_it_is_told_of(
    edge: Edge, server: ApiServer, clock: FakeClock
) -> None:
    """No lock is held while it is called."""
    seen = []
    limiter = RateLimiter("5/second", store=MemoryStore(clock=clock))
    breaker = CircuitBreaker("1 in a row", store=MemoryStore(clock=clock))

    def ask(event: Event) -> None:
        seen.append((limiter.peek(event.key).remaining, breaker.state(event.key), chosen.stats()))

    chosen = Pipeline(Retry(), breaker, limiter, clock=clock, on_event=ask)
    server.script("/items", Answer(429), Answer(500))
    with edge.client(chosen) as client:
        client.get(f"{server.url}/items")
    assert len(seen) > 5


@pytest.mark.parametrize("given", [5, "print", [None]])
def test_what_cannot_be_called_is_no_listener(given: Any) -> None:
    """Said where it is given, and not with the first event."""
    with pytest.raises(ConfigurationError, match="use a function that takes one event"):
        Pipeline(Retry(), on_event=given)


def test_events_are_values() -> None:
    """They can be compared and kept, and not changed."""
    event = HoldSet("k", 1.0, 429)
    assert event == HoldSet("k", 1.0, 429)
    assert event.fields() == {"event": "HoldSet", "key": "k", "seconds": 1.0, "status": 429}
    with pytest.raises(AttributeError):
        event.key = "other"  # type: ignore[misc]


Log = Callable[[], list[logging.LogRecord]]


def test_a_log_line_says_host_what_how_long_and_why(
    edge: Edge, server: ApiServer, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    """And carries the same as fields, for whoever writes logs as data."""
    server.script("/items", Answer(429, [("Retry-After", "30")]))
    with caplog.at_level(logging.INFO, "ratekit"), edge.client(pipeline(clock, Heard())) as client:
        client.get(f"{server.url}/items")
    lines = {record.getMessage(): record for record in caplog.records}
    held = lines[f"{server.url}: refused (429); held for 30.00 s"]
    assert held.levelno == logging.WARNING
    assert vars(held)["ratekit"] == {
        "event": "HoldSet", "key": server.url, "seconds": 30.0, "status": 429,
    }  # fmt: skip
    (waiting,) = [line for line in lines if "waiting for a permit" in line]
    assert "30.0 s, until " in waiting
    assert waiting.endswith("(the server has asked for a pause)")
    assert lines[waiting].levelno == logging.WARNING
