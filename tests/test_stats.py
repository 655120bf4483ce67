"""`pipeline.stats()`: what has happened, by key."""

import os
import threading
from typing import Any

import pytest

from ratekit import Cache, CircuitBreaker, Config, Dedup, Fallback, Pipeline, RateLimiter, Retry
from ratekit import options as ratekit_options
from ratekit.call import Call, Outcome
from ratekit.records import Records
from ratekit.stores import MemoryStore
from ratekit.testing import Answer, ApiServer, FakeClock
from tests.contracts.edges import Edge

KEPT = ("Cache-Control", "max-age=60")


def test_everything_of_a_key(edge: Edge, server: ApiServer, clock: FakeClock) -> None:
    """Calls, attempts, hits, retries, refusals, and what is left now."""
    told = [
        ("X-RateLimit-Limit", "100"),
        ("X-RateLimit-Remaining", "40"),
        ("X-RateLimit-Reset", "900"),
    ]
    server.script("/items", Answer(503), Answer(200, [KEPT, *told]))
    server.script("/gone", Answer(404))
    server.script("/busy", *[Answer(429, [("Retry-After", "1000")])])
    pipeline = Pipeline(
        Cache(clock=clock),
        Retry(),
        CircuitBreaker(store=MemoryStore(clock=clock)),
        RateLimiter("10/second burst 10", store=MemoryStore(clock=clock)),
        clock=clock,
    )
    with edge.client(pipeline) as client:
        for path in ("/items", "/items", "/gone", "/busy"):
            client.get(f"{server.url}{path}")
        with pytest.raises(edge.error):
            client.get(f"{server.url}/refused")
    (key,) = pipeline.stats()
    about = pipeline.stats()[key]
    counted = {name: about[name] for name in ("calls", "attempts", "retries", "errors", "refused")}
    assert key == server.url
    assert counted == {"calls": 5, "attempts": 4, "retries": 1, "errors": 2, "refused": 1}
    assert (about["cache_hits"], about["throttled"], about["collapsed"]) == (1, 1, 0)
    assert about["limit"] == "10/second burst 10"
    assert about["permits_left"] == 0
    assert about["held_for"] == pytest.approx(1000, abs=1)
    assert about["circuit"] == "closed"
    assert 0 < about["retry_budget"] <= 10
    (quota,) = about["quota"]
    assert (quota["left"], round(quota["reset_in"], -2)) == (40, 900)


def test_waits_are_quantiles(clock: FakeClock) -> None:
    """Of all calls, those included that did not wait."""
    records = Records()
    for number in range(100):
        call = Call("GET", "https://a.example/", {}, key="k", clock=clock)
        call.attempts = 1
        call.waited_ns = 0 if number < 60 else 2_000_000_000 if number < 95 else 90_000_000_000
        records.ended(call, Outcome(None, 200, {}))
    about = records.read()["k"]
    assert about["waited"] == pytest.approx(35 * 2 + 5 * 90)
    median, most, nearly_all = (about["wait_quantiles"][one] for one in (0.5, 0.9, 0.99))
    assert median == 0
    # A class is four to a decade: its bound is at most 1.8 times what was waited.
    assert 2 <= most <= 3.6
    assert 90 <= nearly_all <= 162
    assert about["wait_buckets"][1.0] == 60
    assert about["wait_buckets"][10.0] == 95
    assert about["wait_buckets"][1000.0] == 100


def test_a_bounded_number_of_keys_is_kept(clock: FakeClock) -> None:
    """What happened to the others is not lost."""
    records = Records()
    for number in range(2500):
        records.ended(Call("GET", "", {}, key=f"k{number % 2000}", clock=clock), None)
    read = records.read()
    assert len(read) <= 1001
    assert sum(about["calls"] for about in read.values()) == 2500
    assert read["other"]["errors"] > 0


def test_threads_lose_no_call(clock: FakeClock) -> None:
    """However they are switched."""
    records = Records()

    def work() -> None:
        for _ in range(2000):
            records.ended(Call("GET", "", {}, key="k", clock=clock), None, refused=True)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert records.read()["k"]["refused"] == 16_000


def test_what_others_answered(edge: Edge, server: ApiServer, clock: FakeClock) -> None:
    """A fallback is no answer of the server's."""
    server.script("/items", *[Answer(500)] * 4)
    pipeline = Pipeline(Fallback({"spare": True}), Retry(), clock=clock)
    with edge.client(pipeline) as client:
        client.get(f"{server.url}/items")
    (about,) = pipeline.stats().values()
    assert (about["fallbacks"], about["errors"], about["attempts"]) == (1, 0, 4)


def test_sections_for_hosts_are_told_together(edge: Edge, server: ApiServer) -> None:
    """Each host by the pipeline that it has."""
    host = server.url.partition("://")[2]
    pipeline = Config(hosts={host: {"limit": "500/second"}}, limit="5/second").pipeline()
    with edge.client(pipeline) as client:
        client.get(f"{server.url}/items")
    (about,) = pipeline.stats().values()
    assert (about["calls"], about["limit"]) == (1, "500/second")


def test_who_listens_hears_of_every_section(edge: Edge, server: ApiServer) -> None:
    """Also where the pipeline was made of settings."""
    heard: list[Any] = []
    host = server.url.partition("://")[2]
    made = Config(hosts={host: {"limit": "500/second"}}, limit="5/second").pipeline()
    pipeline = Pipeline(made, on_event=heard.append)
    with edge.client(pipeline) as client:
        client.get(f"{server.url}/items")
    assert [type(one).__name__ for one in heard][-1] == "CallEnded"
    assert pipeline.stats()[server.url]["limit"] == "500/second"
    assert pipeline.stats()[server.url]["calls"] == 1


def test_a_users_key_counts_on_its_own(edge: Edge, server: ApiServer, clock: FakeClock) -> None:
    """As it does at the limiter."""
    pipeline = Pipeline(RateLimiter("100/second", store=MemoryStore(clock=clock)), clock=clock)
    with edge.client(pipeline) as client, ratekit_options(key="tenant-7"):
        client.get(f"{server.url}/items")
    assert list(pipeline.stats()) == ["tenant-7"]


def test_a_decorated_function_has_no_key() -> None:
    """It is counted all the same."""
    pipeline = Pipeline(Retry(), Dedup())
    pipeline.policies = pipeline.policies[:1]

    @pipeline
    def work() -> int:
        return 5

    assert work() == 5
    stats: dict[str, dict[str, Any]] = pipeline.stats()
    assert stats[""]["calls"] == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks here")
def test_a_child_begins_anew(clock: FakeClock) -> None:
    """What the parent did is the parent's."""
    records = Records()
    records.ended(Call("GET", "", {}, key="k", clock=clock), None)
    child = os.fork()
    if not child:
        os._exit(len(records.read()))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert len(records.read()) == 1
