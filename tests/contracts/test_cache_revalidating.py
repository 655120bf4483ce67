"""RFC 5861, 3, with a request that the test holds: one asks, and nobody waits for him."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any

import pytest

from ratekit.call import Call, Outcome, Proceed
from ratekit.policy import Policy
from ratekit.testing import ApiServer, FakeClock
from tests.contracts.caching import PATH, Api, Place, api, reply
from tests.contracts.edges import Edge, until

MINUTE = "max-age=60"
KIND = "max-age=60, stale-if-error=30"
QUICK = "max-age=60, stale-while-revalidate=30"
MANY = 8
PATIENCE = 10.0  # seconds for what takes milliseconds
OLD = "hit; ttl=-1; detail=stale-if-error"
MEANWHILE = "hit; ttl=-1; detail=stale-while-revalidate"

Make = Callable[..., AbstractContextManager[Api]]


@pytest.fixture
def make(edge: Edge, server: ApiServer, clock: FakeClock, store: Place) -> Make:
    """Give a function that makes a client with these policies behind a cache so made."""

    def made(*policies: Policy, **arguments: Any) -> AbstractContextManager[Api]:
        return api(edge, server, clock, *policies, store=store, **arguments)

    return made


@pytest.fixture
def one(make: Make) -> Any:
    """Give a client with a cache of its own."""
    with make() as made:
        yield made


class _Gate(Policy):
    """Holds every GET until it is opened, once it is closed."""

    def __init__(self) -> None:
        self.came = 0
        self.opened = threading.Event()
        self.opened.set()

    def run(self, call: Call, proceed: Proceed) -> Outcome:
        if call.method != "GET":
            return proceed(call)
        self.came += 1
        if not self.opened.wait(PATIENCE):
            raise TimeoutError("nobody opened the gate")
        return proceed(call)


def herd(one: Api, gate: _Gate) -> tuple[list[tuple[bytes, str]], tuple[bytes, str]]:
    """Let one thread ask, and the others while it is under way: return theirs, and its answer."""
    gate.opened.clear()
    before = gate.came
    with ThreadPoolExecutor(MANY) as pool:
        asking = pool.submit(one.get)
        try:
            until(lambda: gate.came > before)
            # Nobody opens the gate: were any of them to wait for it, this would not return.
            others = [pool.submit(one.get) for _ in range(MANY - 1)]
            seen = [other.result(PATIENCE / 2) for other in others]
        finally:
            gate.opened.set()
        return seen, asking.result(PATIENCE)


@pytest.mark.parametrize("by", ["header", "setting"])
def test_3_one_asks_and_the_others_get_what_is_stale(make: Make, clock: FakeClock, by: str) -> None:
    """8 threads, one request, and nobody waits but the thread that makes it."""
    gate = _Gate()
    with make(gate, stale_while_revalidate=30 if by == "setting" else 0) as one:
        kept = reply(b"old", cache_control=QUICK if by == "header" else MINUTE)
        one.answers(kept, reply(b"new", cache_control=MINUTE))
        one.send()
        clock.advance(61)
        others, mine = herd(one, gate)
        assert others == [(b"old", MEANWHILE)] * (MANY - 1)
        assert mine == (b"new", "fwd=stale; fwd-status=200; stored")
        assert one.get() == (b"new", "hit; ttl=60")
        assert one.asked == 2


def test_3_a_validation_is_shared_as_well(make: Make, clock: FakeClock) -> None:
    """A 304 makes it fresh for all of them."""
    gate = _Gate()
    with make(gate) as one:
        one.answers(
            reply(b"old", etag='"a"', cache_control=QUICK),
            reply(b"", 304, etag='"a"', cache_control=QUICK),
        )
        one.send()
        clock.advance(61)
        others, mine = herd(one, gate)
        assert others == [(b"old", MEANWHILE)] * (MANY - 1)
        assert mine == (b"old", "fwd=stale; fwd-status=304; stored")
        assert one.get() == (b"old", "hit; ttl=60")


def test_3_an_error_that_is_an_answer_lets_the_next_one_ask(one: Api, clock: FakeClock) -> None:
    """A 404 is its caller's, and nobody is left waiting for it."""
    one.answers(reply(b"old", cache_control=QUICK), reply(status=404), reply(b"new"))
    one.send()
    clock.advance(61)
    assert one.send().status_code == 404
    assert one.body() == b"new"


@pytest.mark.parametrize(("after", "asked"), [(90, 2), (91, 3)])
def test_3_it_is_over_when_the_server_said(
    make: Make, clock: FakeClock, after: float, asked: int
) -> None:
    """Beyond it whoever comes asks."""
    gate = _Gate()
    with make(gate) as one:
        one.answers(reply(b"old", cache_control=QUICK), *[reply(cache_control=MINUTE)] * 2)
        one.send()
        clock.advance(after)
        gate.opened.clear()
        with ThreadPoolExecutor(2) as pool:
            first = pool.submit(one.send)
            until(lambda: gate.came == 2)
            second = pool.submit(one.send)
            until(lambda: gate.came == 3 or second.done())
            gate.opened.set()
            first.result(PATIENCE)
            second.result(PATIENCE)
        assert one.asked == asked


def test_3_must_revalidate_goes_before_it(make: Make, clock: FakeClock) -> None:
    """Both ask, whoever came first."""
    gate = _Gate()
    with make(gate, stale_while_revalidate=300) as one:
        kept = reply(b"old", cache_control=f"{QUICK}, must-revalidate")
        one.answers(kept, *[reply(b"new", cache_control=MINUTE)] * 2)
        one.send()
        clock.advance(61)
        gate.opened.clear()
        with ThreadPoolExecutor(2) as pool:
            both = [pool.submit(one.body) for _ in range(2)]
            until(lambda: gate.came == 3)
            gate.opened.set()
            assert [one.result(PATIENCE) for one in both] == [b"new"] * 2


def test_3_each_variant_is_asked_for_by_itself(make: Make, clock: FakeClock) -> None:
    """Who asks for one keeps nobody from asking for another."""
    gate = _Gate()
    with make(gate) as one:
        for body in (b"de", b"en", b"new", b"new"):
            one.answers(reply(body, vary="accept-language", cache_control=QUICK))
        for language in ("de", "en"):
            one.send(accept_language=language)
        clock.advance(61)
        gate.opened.clear()
        with ThreadPoolExecutor(2) as pool:
            both = [pool.submit(one.body, accept_language=language) for language in ("de", "en")]
            until(lambda: gate.came == 4)
            gate.opened.set()
            assert [one.result(PATIENCE) for one in both] == [b"new"] * 2


def test_a_user_who_drops_it_meanwhile_is_heard(make: Make, clock: FakeClock) -> None:
    """What was asked for before a POST is not kept after it."""
    gate = _Gate()
    with make(gate) as one:
        one.answers(
            reply(b"old", cache_control=QUICK),
            reply(b"done"),
            reply(b"between", cache_control=MINUTE),
            reply(b"new", cache_control=MINUTE),
        )
        one.send()
        clock.advance(61)
        gate.opened.clear()
        with ThreadPoolExecutor(1) as pool:
            asking = pool.submit(one.body)
            until(lambda: gate.came == 2)
            one.send("POST", PATH)
            gate.opened.set()
            assert asking.result(PATIENCE) == b"between"
        assert one.get() == (b"new", "fwd=uri-miss; fwd-status=200; stored")


def test_3_one_asks_until_the_new_answer_is_whole(one: Api, clock: FakeClock) -> None:
    """Its head is no answer yet: who comes while its body is read does not ask as well."""
    new = b"new" * 100_000
    one.answers(
        reply(b"old", cache_control=QUICK),
        reply(new, cache_control=MINUTE),
        reply(b"one too many", cache_control=MINUTE),
    )
    one.send()
    clock.advance(61)
    with one.client.stream("GET", one.url) as response:
        assert one.get() == (b"old", MEANWHILE)
        assert b"".join(one.edge.chunks(response)) == new
    assert one.get() == (new, "hit; ttl=60")
    assert one.asked == 2


def test_3_who_stops_reading_lets_the_next_one_ask(one: Api, clock: FakeClock) -> None:
    """A body that nobody wants any more keeps nobody from a new answer."""
    one.answers(
        reply(b"old", cache_control=QUICK),
        reply(b"x" * 300_000, cache_control=MINUTE),
        reply(b"new", cache_control=MINUTE),
    )
    one.send()
    clock.advance(61)
    with one.client.stream("GET", one.url):
        """Nothing is read."""
    assert one.body() == b"new"
