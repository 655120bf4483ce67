"""Shared limits among processes that fork, and on servers that die, or are too old."""

import contextlib
import os
import socket
import socketserver
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, BinaryIO, Self

import pytest

from ratekit import Decision, MemcachedStore, RateLimiter, StoreError
from ratekit.clock import SECOND
from ratekit.stores.memcached.keys import digest_of, key_of
from tests.conftest import Memcached, StartMemcached
from tests.contracts.edges import until
from tests.faults.proxy import Proxy
from tests.faults.scripts import run

FORK = """
import multiprocessing, threading
from ratekit.stores.memcached.wire import Get

store = MemcachedStore(url, timeout=5, connect_timeout=5, on_error="closed")
server = store.servers[0]
limiter = RateLimiter("20/second burst 5", name=name, store=store, headroom=1.0)
alive = threading.Thread.is_alive
ports = lambda: {one._socket.getsockname()[1] for one in server._pool._idle}

def take(key, permits):
    taken = []
    while len(taken) < permits:
        try:
            taken.append(limiter.acquire(key)._taken[2])
        except StoreError:
            pass  # Another thread waits too long for an answer.
    return taken

def child(answers):
    inherited = ports()
    # A key that nobody waits for, and the one that the parent's threads wait for.
    limiter.acquire("other")
    waits = len(limiter._waiting._lines) - 1
    used = take("k", 4)
    answers.send((inherited, waits, used, ports()))
    answers.close()

used = []
threads = [threading.Thread(target=lambda: used.extend(take("k", 4))) for _ in range(4)]
for thread in threads:
    thread.start()
lines = limiter._waiting._lines
until(lambda: "k" in lines and len(lines["k"].order) == 4 or not any(map(alive, threads)))
fork = multiprocessing.get_context("fork")
answers, theirs = fork.Pipe(duplex=False)
# One connection is somebody's at that very moment, the others lie idle or carry a question.
with server._pool.connection() as mine:
    before = ports() | {mine._socket.getsockname()[1]}
    process = fork.Process(target=child, args=(theirs,))
    process.start()
    theirs.close()
    for _ in range(20):
        mine.talk([Get(b"nobody's")], meta=True)
    assert answers.poll(20)
    inherited, waits, its, its_ports = answers.recv()
process.join()
for thread in threads:
    thread.join()
say("the child ended with", process.exitcode)
say("it inherited", inherited, "and waited behind", waits)
say("permits", len(used), len(its), "and a connection in common", its_ports & (before | ports()))
used = sorted(used + its)
# Who is late for its turn makes this no more.
over = [n - 20 * (at - used[0]) / 1e9 - 5 for n, at in enumerate(used, 1)]
say("more than the limit", max(over) > 1)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_child_takes_permits_while_its_parents_threads_wait(memcached: Memcached) -> None:
    """It has connections and turns of its own, the parent's go on, and the budget is one."""
    code, out, err = run(FORK, memcached.url, uuid.uuid4().hex)
    assert out.splitlines() == [
        "the child ended with 0",
        "it inherited set() and waited behind 0",
        "permits 16 4 and a connection in common set()",
        "more than the limit False",
    ], err
    assert code == 0


STORES: list[MemcachedStore] = []


@pytest.fixture(autouse=True)
def close_stores() -> Iterator[None]:
    """Close the connections that a test has left open."""
    yield
    while STORES:
        STORES.pop().close()


def limiter_at(url: str, limit: str, name: str, **settings: Any) -> RateLimiter:
    """Return a limiter that shares its limit with another one, with a store of its own."""
    store = MemcachedStore(url, timeout=5, connect_timeout=5, processes=2, **settings)
    STORES.append(store)
    return RateLimiter(limit, name=name, store=store, headroom=1.0)


def server_of(limiter: RateLimiter) -> Any:
    """Return what it knows of its server."""
    assert isinstance(limiter.store, MemcachedStore)
    return limiter.store.servers[0]


def used_at(limiter: RateLimiter) -> int:
    """Acquire a permit; return when it was used, by the clock that all go by."""
    return limiter.acquire("k")._taken[2]


def most_within(period: int, used: list[int]) -> int:
    """Return the most instants in any period."""
    return max(sum(begin <= one < begin + period for one in used) for begin in used)


def most_in_one(period: int, used: list[int]) -> int:
    """Return the most instants in one of the periods that are counted from the epoch."""
    return max(sum(one // period == other // period for one in used) for other in used)


@pytest.mark.parametrize(
    ("limit", "count", "period", "most"),
    [
        ("20/second window", 20, SECOND, most_within),
        ("40/2 seconds fixed", 40, 2 * SECOND, most_in_one),
        ("1000/second burst 50; 20/second window", 20, SECOND, most_within),
    ],
)
def test_windows_outlive_their_server(
    start_memcached: StartMemcached, limit: str, count: int, period: int, most: Any
) -> None:
    """Each goes on alone at its share, evenly spaced, and both together once it is back."""
    memcached = start_memcached()
    assert isinstance(memcached.address, tuple)
    name = uuid.uuid4().hex
    both = [limiter_at(memcached.url, limit, name) for _ in range(2)]
    for limiter in both * 3:
        limiter.acquire("k")
    memcached.stop()
    share = period * 2 // count
    for limiter in both:
        server = server_of(limiter)
        used = [used_at(limiter) for _ in range(4)]
        assert server.is_lost
        lost_at = server.lost_ns - server.clock.correction_ns
        assert all(one >= lost_at + number * share for number, one in enumerate(used))
    again = start_memcached(port=memcached.address[1])
    until(lambda: [limiter.acquire("k") for limiter in both if server_of(limiter).is_lost] == [])
    record = key_of("record", digest_of("", name, "k"))
    until(lambda: both[0].check("k") and again.ask(b"me %b" % record).startswith(b"ME "))
    until(lambda: not any(server_of(limiter).is_settling for limiter in both))
    asked = [limiter.check("k") for limiter in both * count]
    assert not any(server_of(limiter).is_lost for limiter in both)
    assert most(period, [one._taken[2] for one in asked if one]) <= count


@pytest.mark.parametrize("limit", ["100/second burst 5", "100/second window"])
def test_a_hold_outlives_its_server(start_memcached: StartMemcached, limit: str) -> None:
    """Who has heard of it goes on alone when it is over, and not before."""
    memcached = start_memcached()
    limiter = limiter_at(memcached.url, limit, uuid.uuid4().hex)
    limiter.acquire("k")
    ends = server_of(limiter).clock.now_ns() + SECOND
    limiter.hold("k", 1)
    memcached.stop()
    assert used_at(limiter) >= ends


@pytest.mark.parametrize("limit", ["100/second burst 5", "100/second window"])
def test_a_hold_outlives_a_slow_answer(memcached: Memcached, limit: str) -> None:
    """Of the threads that want a permit one asks; the others do not go before the hold's end."""
    with Proxy(memcached.address) as proxy:
        limiter = limiter_at(proxy.url, limit, uuid.uuid4().hex)
        limiter.acquire("k")
        ends = server_of(limiter).clock.now_ns() + SECOND
        limiter.hold("k", 1)
        proxy.use(stall=True)
        with ThreadPoolExecutor(4) as pool:
            used = [pool.submit(used_at, limiter) for _ in range(4)]
            time.sleep(0.4)
            proxy.use()
        assert min(one.result() for one in used) >= ends


class Old(socketserver.ThreadingTCPServer):
    """A server in front of the real one that knows no meta commands, once it `is_old`."""

    daemon_threads = True

    def __init__(self, real: Any, *, is_old: bool = True) -> None:
        super().__init__(("127.0.0.1", 0), OldTalk)
        self.real = real
        self.is_old = is_old
        self.links: list[socket.socket] = []
        self._thread = threading.Thread(target=self.serve_forever, args=(0.01,))

    @property
    def url(self) -> str:
        """What a store is told to reach it."""
        return f"memcached://127.0.0.1:{self.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self.shutdown()
        self._thread.join()
        self.cut()
        self.server_close()

    def cut(self) -> None:
        """End every connection there is."""
        for link in self.links:
            with contextlib.suppress(OSError):
                link.shutdown(socket.SHUT_RDWR)


class OldTalk(socketserver.StreamRequestHandler):
    """One connection, and the one to the real server that was made for it."""

    server: Old
    disable_nagle_algorithm = True

    def handle(self) -> None:
        """Answer until the client goes away."""
        self.server.links.append(self.connection)
        with socket.create_connection(self.server.real) as real, contextlib.suppress(OSError):
            answers = real.makefile("rb")
            for line in self.rfile:
                words = line.split() or [b""]
                if self.server.is_old and words[0] not in CLASSIC:
                    # To such a server the value that follows is an unknown command as well.
                    self.wfile.write(b"ERROR\r\n")
                    continue
                place = LENGTHS.get(words[0])
                value = self.rfile.read(int(words[place]) + 2) if place else b""
                real.sendall(line + value)
                self.wfile.write(whole_answer(answers))


CLASSIC = {b"version", b"gets", b"set", b"add", b"cas", b"incr", b"decr", b"touch", b"delete"}
# Which word of a command says how long the value is that follows.
LENGTHS = {b"set": 4, b"add": 4, b"cas": 4, b"ms": 2}


def whole_answer(answers: BinaryIO) -> bytes:
    """Return the next answer of a real server."""
    line = answers.readline()
    words = line.split()
    if words[0] == b"VALUE":
        return line + answers.read(int(words[3]) + 2) + answers.readline()
    return line + (answers.read(int(words[1]) + 2) if words[0] == b"VA" else b"")


@pytest.mark.parametrize(
    "limit", ["40/day burst 40", "40/day burst 40; 1000/hour burst 1000", "40/day window"]
)
def test_old_and_new_servers_words_mean_the_same(memcached: Memcached, limit: str) -> None:
    """A process that must speak the classic protocol shares a limit with one that need not."""
    name = uuid.uuid4().hex
    granted: list[Decision] = []

    def work(limiter: RateLimiter) -> None:
        decision: Decision | bool = True
        while decision:
            # Raised where another thread waits too long for an answer.
            with contextlib.suppress(StoreError):
                decision = limiter.check("k")
                granted.extend([decision] * decision.allowed)

    with Old(memcached.address) as old:
        urls = [old.url, old.url, memcached.url]
        limiters = [limiter_at(url, limit, name, on_error="closed") for url in urls]
        with ThreadPoolExecutor(6) as pool:
            assert list(pool.map(work, limiters * 2))
        assert 30 <= len(granted) <= 40
        assert [server_of(limiter).speaks_meta for limiter in limiters] == [False, False, True]
        # A hold is heard of from one to the other.
        limiters[0].hold("k", 30)
        for limiter in limiters[1:]:
            while not limiter.held_for("k"):
                limiter.peek("k")


@pytest.mark.parametrize("limit", ["1000/second burst 50", "1000/day fixed"])
def test_a_server_that_an_old_one_replaces_is_used_again(memcached: Memcached, limit: str) -> None:
    """What it knows is asked anew once it was gone."""
    name = uuid.uuid4().hex
    with Old(memcached.address, is_old=False) as old:
        one, other = (limiter_at(old.url, limit, name) for _ in range(2))
        for limiter in (one, other):
            limiter.acquire("k")
            assert server_of(limiter).speaks_meta
        old.is_old = True
        old.cut()
        for limiter in (one, other):
            until(partial(is_back, limiter))
        one.hold("k", 30)
        assert 20 < other.check("k").retry_after < 31


def is_back(limiter: RateLimiter) -> bool:
    """Ask for a permit; return whether the server is used again, in the classic protocol."""
    limiter.check("k")
    server = server_of(limiter)
    return not (server.is_lost or server.is_settling or server.speaks_meta)
