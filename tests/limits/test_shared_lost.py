"""Shared state that is lost, pushed out, nonsense, or kept by an old server."""

import contextlib
import itertools
import logging
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from pymemcache.client.base import Client

from ratekit import MemcachedStore, RateLimited, RateLimiter
from ratekit.stores.memcached.space import MemcachedSpace
from tests.conftest import Memcached, StartMemcached
from tests.contracts.edges import until

KEY = "k"


def limiter_at(url: str, name: str, limit: str) -> RateLimiter:
    """Return a limiter as a process of its own would have it."""
    # However busy this machine is, the server is not taken for lost.
    store = MemcachedStore(url, timeout=5, connect_timeout=5)
    return RateLimiter(limit, name=name, store=store, headroom=1.0)


def client_of(memcached: Memcached) -> Client:
    """Return somebody else's client of the same server."""
    return Client(memcached.address, timeout=5, connect_timeout=5, no_delay=True)


def key_of(name: str, kind: str, part: str = "") -> bytes:
    """Return what is called so in memcached for `KEY`."""
    digest, _ = MemcachedSpace(MemcachedStore(), name).place(KEY)
    return f"rk1:{kind}:{digest}{part}".encode()


def keys_in(memcached: Memcached, kind: str) -> list[str]:
    """Return all keys of a kind that a server has."""
    words = memcached.ask(b"lru_crawler metadump all").decode().split()
    found = [word[4:].replace("%3A", ":") for word in words if word.startswith("key=")]
    return [key for key in found if key.startswith(f"rk1:{kind}:")]


def test_a_hold_that_is_lost_holds_all_the_same(memcached: Memcached) -> None:
    """Who knows it keeps it and says it again; a process that has just begun hears of it."""
    name = uuid.uuid4().hex
    one = limiter_at(memcached.url, name, "100/second burst 10")
    one.acquire(KEY)
    one.hold(KEY, 5)
    with contextlib.closing(client_of(memcached)) as client:
        assert client.delete(key_of(name, "hold"), noreply=False)
        assert not one.check(KEY)
        until(lambda: one.check(KEY) or client.get(key_of(name, "hold")))
    newcomer = limiter_at(memcached.url, name, "100/second burst 10")
    assert 3 < newcomer.check(KEY).retry_after < 6


def test_a_hold_that_only_the_record_knows_is_over_when_that_is_lost(memcached: Memcached) -> None:
    """A newcomer cannot know of it; it goes on by the limit, and nothing fails."""
    name = uuid.uuid4().hex
    one = limiter_at(memcached.url, name, "100/second burst 10")
    one.acquire(KEY)
    one.hold(KEY, 60)
    with contextlib.closing(client_of(memcached)) as client:
        client.delete(key_of(name, "hold"), noreply=False)
    newcomer = limiter_at(memcached.url, name, "100/second burst 10")
    granted = 0
    began = time.monotonic()
    while time.monotonic() - began < 0.3:
        granted += newcomer.check(KEY).allowed
    assert granted <= 10 + 100 * 0.35


@pytest.mark.parametrize("ahead", [3600, 10**9])
def test_an_integer_from_a_wrong_clock_stops_nobody(
    memcached: Memcached, caplog: pytest.LogCaptureFixture, ahead: int
) -> None:
    """Whoever wrote it: all others go on after no more than a full bucket, and one says so."""
    name = uuid.uuid4().hex
    limiters = [limiter_at(memcached.url, name, "100/second burst 10") for _ in range(3)]
    limiters[0].acquire(KEY)
    (meter,) = [key for key in keys_in(memcached, "limit") if key_of(name, "limit").decode() in key]
    with contextlib.closing(client_of(memcached)) as client:
        far = int(client.get(meter).split()[0]) + ahead * 10**9
        client.set(meter, b"%d" % far, noreply=False)
    with caplog.at_level(logging.WARNING, "ratekit"):
        began = time.monotonic()
        for limiter in limiters:
            limiter.acquire(KEY, max_wait=5)
        assert time.monotonic() - began < 5
    assert caplog.text.count("ahead of the clock") <= len(limiters)
    assert "ahead of the clock" in caplog.text


NUMBERS = itertools.count()


def test_who_would_not_wait_is_not_refused_because_of_a_wrong_clock(memcached: Memcached) -> None:
    """The first that asks puts it right, also one that only looks whether it could go at once."""
    name = uuid.uuid4().hex
    one, other = (limiter_at(memcached.url, name, "2/second burst 10") for _ in range(2))
    one.acquire(KEY)
    (meter,) = [key for key in keys_in(memcached, "limit") if key_of(name, "limit").decode() in key]
    with contextlib.closing(client_of(memcached)) as client:
        far = int(client.get(meter).split()[0]) + 3600 * 10**9
        client.set(meter, b"%d" % far, noreply=False)
        assert other.peek(KEY).retry_after < 10
        other.check(KEY)
        until(lambda: int(client.get(meter).split()[0]) < far - 3000 * 10**9)
    other.acquire(KEY, max_wait=2)
    one.acquire(KEY, max_wait=2)


def storm(client: Client, many: int) -> None:
    """Write so many values that nobody reads, of the size of ratekit's own."""
    client.set_many(
        {f"storm-key-{next(NUMBERS):012}": b"x" * 40 for _ in range(many)}, noreply=True
    )


def evictions(client: Client) -> int:
    """Return how many items the server has dropped to make room."""
    stats: dict[bytes, int] = client.stats()  # type: ignore[no-untyped-call]
    return stats[b"evictions"]


def test_state_that_is_used_outlives_a_full_server(start_memcached: StartMemcached) -> None:
    """Arithmetic alone does not count as a use there; ratekit's does."""
    memcached = start_memcached("-m", "2")
    name = uuid.uuid4().hex
    one = limiter_at(memcached.url, name, "5/day burst 5")
    while one.check(KEY):
        pass
    with contextlib.closing(client_of(memcached)) as client:
        while evictions(client) < 20_000:
            storm(client, 500)
            assert not one.check(KEY)
    # One that has seen nothing yet finds what was spent.
    newcomer = limiter_at(memcached.url, name, "5/day burst 5")
    assert not newcomer.check(KEY)


def test_state_that_is_gone_is_remembered(memcached: Memcached) -> None:
    """Who has seen it goes by what it saw: a key that is gone grants no burst."""
    name = uuid.uuid4().hex
    one = limiter_at(memcached.url, name, "1/minute burst 5")
    while one.check(KEY):
        pass
    (meter,) = [key for key in keys_in(memcached, "limit") if key_of(name, "limit").decode() in key]
    with contextlib.closing(client_of(memcached)) as client:
        assert client.delete(meter, noreply=False)
    assert not one.check(KEY)
    with pytest.raises(RateLimited) as refused:
        one.acquire(KEY, max_wait=1)
    assert refused.value.retry_after is not None
    assert 1 < refused.value.retry_after <= 60


@pytest.mark.parametrize("limit", ["20/second window", "1000/second burst 20; 20/second window"])
def test_windows_go_on_alone_while_the_server_is_gone(
    start_memcached: StartMemcached, limit: str
) -> None:
    """At this process's share, and together again once it is back."""
    memcached = start_memcached()
    assert isinstance(memcached.address, tuple)
    name = uuid.uuid4().hex
    one = limiter_at(memcached.url, name, limit)
    one.acquire(KEY)
    memcached.stop()
    for _ in range(3):
        one.acquire(KEY, max_wait=5)
    again = start_memcached(port=memcached.address[1])
    until(lambda: one.check(KEY) is not None and keys_in(again, "record"))
    other = limiter_at(again.url, name, limit)
    granted = sum(one.check(KEY).allowed + other.check(KEY).allowed for _ in range(60))
    assert granted <= 20


def _pass_on(source: socket.socket, target: socket.socket, *, asks: bool) -> None:
    with source, target, contextlib.suppress(OSError):
        while data := source.recv(65536):
            if asks and data[:2] in {b"mg", b"ms", b"ma", b"md", b"mn"}:
                source.sendall(b"ERROR\r\n")
            else:
                target.sendall(data)


@contextmanager
def without_meta(memcached: Memcached) -> Iterator[str]:
    """Give the URL of the same server, as one is that does not know the meta commands."""
    address = memcached.address
    assert isinstance(address, tuple)
    listening = socket.create_server(("127.0.0.1", 0))
    links: list[socket.socket] = [listening]

    def accept() -> None:
        while True:
            try:
                client, _ = listening.accept()
            except OSError:
                return
            server = socket.create_connection(address)
            links.extend((client, server))
            for ends in ((client, server, True), (server, client, False)):
                threading.Thread(
                    target=_pass_on, args=ends[:2], kwargs={"asks": ends[2]}, daemon=True
                ).start()

    acceptor = threading.Thread(target=accept, daemon=True)
    acceptor.start()
    try:
        yield f"memcached://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        for link in links:
            with contextlib.suppress(OSError):
                link.shutdown(socket.SHUT_RDWR)
            link.close()


@pytest.mark.parametrize("limit", ["100/second burst 10", "10/second window"])
def test_a_server_without_the_meta_commands_serves_too(memcached: Memcached, limit: str) -> None:
    """Found out when it is first connected to; with holds, waits and two processes."""
    name = uuid.uuid4().hex
    with without_meta(memcached) as url:
        one, other = (limiter_at(url, name, limit) for _ in range(2))
        allowed = sum(one.check(KEY).allowed + other.check(KEY).allowed for _ in range(10))
        assert 8 <= allowed <= 12
        other.acquire(KEY, max_wait=2)
        one.hold(KEY, 30)
        until(lambda: other.check(KEY).retry_after > 20)
        with pytest.raises(RateLimited):
            other.acquire(KEY, max_wait=1)
        assert one.peek(KEY).remaining == 0
        for limiter in (one, other):
            store = limiter.store
            assert isinstance(store, MemcachedStore)
            assert not store.servers[0].speaks_meta
            store.close()
