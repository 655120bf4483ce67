"""Shared limits whose memcached is too small, loses what it knows, says nonsense, or goes away."""

import json
import logging
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from ratekit import Decision, MemcachedStore, RateLimited, RateLimiter
from ratekit.clock import SECOND
from ratekit.stores.memcached.keys import digest_of, key_of
from tests.conftest import Memcached, StartMemcached
from tests.contracts.edges import until

SMALL = ("-m", "2")
"""As little memory as memcached takes: one page of items of each size."""
CHUNK = 1000
"""So many values are far less than a page of those that are as small as a limit's state."""
HORIZON = 120.0
"""How far ahead of the clock, in seconds, a limit is believed to be, beyond its burst."""


class Fleet:
    """Limiters of one name, each with a store of its own, as in so many processes."""

    def __init__(self, server: Memcached, limit: str, processes: int = 3) -> None:
        self.server = server
        self.name = uuid.uuid4().hex
        self.limiters = [
            RateLimiter(
                limit,
                name=self.name,
                headroom=1.0,
                store=MemcachedStore(server.url, processes=processes),
            )
            for _ in range(processes)
        ]

    def key(self, kind: str) -> bytes:
        """Return what is called so in memcached for "k"."""
        return key_of(kind, digest_of("", self.name, "k"))

    def now(self) -> int:
        """Return the instant by the clock that the first of them goes by."""
        return store_of(self.limiters[0]).servers[0].clock.now_ns()

    @contextmanager
    def working(self, threads: int, permits: int) -> Iterator[list[int]]:
        """Let so many threads of each acquire so many permits; give the instants of all, at the end.

        A process that a limit stops for ever is ended by the timeout of the test.
        """
        used: list[int] = []

        def work(limiter: RateLimiter) -> None:
            used.extend(used_at(limiter.acquire("k")) for _ in range(permits))

        workers = [
            threading.Thread(target=work, args=(one,)) for one in self.limiters for _ in range(threads)
        ]
        for worker in workers:
            worker.start()
        try:
            yield used
        finally:
            for worker in workers:
                worker.join()
            used.sort()


def store_of(limiter: RateLimiter) -> MemcachedStore:
    """Return its store."""
    assert isinstance(limiter.store, MemcachedStore)
    return limiter.store


def used_at(decision: Decision) -> int:
    """Return the instant at which a permit was used, by the clock that the fleet goes by."""
    return decision._taken[2]


def excess(used: list[int], rate: int, burst: int) -> float:
    """Return by how much any window, of whatever length, exceeds `rate` x its length + `burst`."""
    return max(
        last - first + 1 - rate * (used[last] - used[first]) / SECOND - burst
        for first in range(len(used))
        for last in range(first, len(used))
    )


def storm(server: Memcached, begin: int, size: int = 19) -> None:
    """Write many values that nobody reads, with keys as long as the limiter's."""
    sets = (
        b"set storm:%026d 0 600 %d noreply\r\n%0*d\r\n" % (number, size, size, number)
        for number in range(begin, begin + CHUNK)
    )
    assert server.ask(b"".join(sets) + b"mn") == b"MN\r\n"


def write(server: Memcached, key: bytes, value: bytes) -> None:
    """Write a value as somebody does who knows nothing of ratekit."""
    assert server.ask(b"ms %b %d T600\r\n%b" % (key, len(value), value)) == b"HD\r\n"


def read(server: Memcached, key: bytes) -> bytes | None:
    """Return a value without its being used; None where there is none."""
    # Whatever `me` says of a key, it does not count as a use of it.
    if server.ask(b"me %b" % key).startswith(b"EN"):
        return None
    return server.ask(b"mg %b v" % key).split(b"\r\n")[1]


def is_there(server: Memcached, key: bytes) -> bool:
    """Return whether the server has it; asking does not count as a use."""
    return server.ask(b"me %b" % key).startswith(b"ME")


@pytest.mark.parametrize(
    ("limit", "kind"), [("1000/hour burst 1000", "limit"), ("1000/hour fixed", "record")]
)
def test_a_storm_does_not_drop_what_a_limiter_uses(
    start_memcached: StartMemcached, limit: str, kind: str
) -> None:
    """What is only counted up is dropped in it, however often: arithmetic is no use of a key."""
    server = start_memcached(*SMALL)
    fleet = Fleet(server, limit, processes=2)
    one, other = fleet.limiters
    one.hold("k", 0.001)
    one.acquire("k")
    value = read(server, fleet.key(kind))
    assert value is not None
    counted = key_of(kind, digest_of("counted"))
    write(server, counted, b"1" * len(value))
    lost = False
    for number in range(30):
        assert (one, other)[number % 2].acquire("k")
        lost |= server.ask(b"incr %b 1" % counted) == b"NOT_FOUND\r\n"
        storm(server, number * CHUNK, len(value))
        assert is_there(server, fleet.key(kind))
        assert kind == "record" or is_there(server, fleet.key("hold"))
    assert lost
    # A process that has seen nothing yet finds what was spent.
    newcomer = RateLimiter(limit, name=fleet.name, store=MemcachedStore(server.url), headroom=1.0)
    assert newcomer.peek("k").remaining <= 1000 - 31


@pytest.mark.parametrize("deletes", [False, True], ids=["", "and its keys are dropped"])
def test_a_storm_is_no_second_budget(start_memcached: StartMemcached, *, deletes: bool) -> None:
    """Whatever is dropped in it, also by deleting: who has seen a limit's state remembers it."""
    server = start_memcached(*SMALL)
    fleet = Fleet(server, "200/second burst 20")
    dropped = 0
    with fleet.working(threads=2, permits=25) as used:
        for number in range(1_000_000):
            storm(server, number * CHUNK)
            if deletes and number % 8 == 4:
                dropped += server.ask(b"delete %b" % fleet.key("limit")) == b"DELETED\r\n"
            if len(used) > 120:
                break
    assert len(used) == 150
    print(dropped, excess(used, 200, 20))
    assert excess(used, 200, 20) <= 2
