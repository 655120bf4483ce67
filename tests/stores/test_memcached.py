"""A store that is not there, goes away, speaks nonsense, or is handed over wrongly."""

import logging
import os
import pickle
import signal
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from pymemcache.client.base import Client

from ratekit import ConfigurationError, MemcachedStore, RateLimited, RateLimiter, StoreError
from ratekit.stores.memcached.address import addresses_of
from ratekit.stores.memcached.pool import Pool
from ratekit.stores.memcached.wire import Command, Get, Unavailable
from tests.conftest import Memcached, StartMemcached
from tests.faults.proxy import Proxy


def limiter_on(store: MemcachedStore, limit: str = "1000/second burst 100") -> RateLimiter:
    """Return a limiter whose name nobody else has."""
    return RateLimiter(limit, name=uuid.uuid4().hex, store=store)


@pytest.fixture
def nobody() -> Iterator[str]:
    """Give a URL where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"memcached://127.0.0.1:{taken.getsockname()[1]}"


@pytest.mark.parametrize(
    ("servers", "expected"),
    [
        ("memcached://a", "a:11211"),
        ("memcached://a:1,b:2/", "a:1 b:2"),
        ("memcached://[::1]:5", "[::1]:5"),
        ("memcached+unix:///run/m.sock", "/run/m.sock"),
        (["memcached://a", "memcached+unix:///m"], "a:11211 /m"),
        (Client(("h", 7), connect_timeout=1, timeout=2), "h:7"),
    ],
)
def test_servers_are_named_by_url_or_client(servers: object, expected: str) -> None:
    """Each form names hosts and ports, or a socket's path."""
    found = addresses_of(servers, timeout=1, connect_timeout=1, tls=None)
    assert " ".join(map(str, found)) == expected


@pytest.mark.parametrize(
    ("servers", "said"),
    [
        ("redis://a", "unknown kind"),
        ("memcached://", "host:port"),
        ("memcached://a:b", "host:port"),
        ("memcached://a:99999", "host:port"),
        ("memcached+unix://relative", "path"),
        ("memcached://a,a", "twice"),
        ([], "use"),
        (5, "use"),
        (Client(("h", 7)), "connect_timeout"),
        (Client(("h", 7), connect_timeout=1), "for ever"),
    ],
)
def test_wrong_servers_are_refused_with_the_reason(servers: object, said: str) -> None:
    """The message says what is wrong, and what would be right."""
    with pytest.raises(ConfigurationError, match=said):
        MemcachedStore(servers)


@pytest.mark.parametrize(
    "settings",
    [
        {"timeout": 0},
        {"connect_timeout": -1},
        {"pool_size": 0},
        {"processes": 1.5},
        {"on_error": "x"},
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, object]) -> None:
    """There is no way to wait for ever, and none to have no connection."""
    with pytest.raises(ConfigurationError, match=next(iter(settings))):
        MemcachedStore(**settings)  # type: ignore[arg-type]


def test_without_a_server_a_process_goes_on_alone(
    nobody: str, caplog: pytest.LogCaptureFixture
) -> None:
    """At its share, and says so once."""
    limiter = limiter_on(MemcachedStore(nobody, processes=2), "40/second burst 20")
    with caplog.at_level(logging.INFO, "ratekit"):
        began = time.monotonic()
        for _ in range(6):
            limiter.acquire("k")
        assert time.monotonic() - began >= 5 * 2 / 40
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    with pytest.raises(RateLimited):
        limiter.acquire("k", max_wait=0)
    limiter.hold("k", 0.2)
    began = time.monotonic()
    limiter.acquire("k")
    assert time.monotonic() - began >= 0.19


def test_closed_and_open_are_what_they_say(nobody: str) -> None:
    """The one refuses every call, the other none."""
    with pytest.raises(StoreError, match="closed"):
        limiter_on(MemcachedStore(nobody, on_error="closed")).acquire("k")
    limiter = limiter_on(MemcachedStore(nobody, on_error="open"), "1/hour")
    for _ in range(5):
        limiter.acquire("k")


def test_a_server_that_speaks_garbage_is_no_server() -> None:
    """It is left alone like one that is not there."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def babble() -> None:
            while True:
                try:
                    caller, _ = listening.accept()
                except OSError:
                    return
                with caller:
                    caller.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=babble)
        thread.start()
        store = MemcachedStore(f"memcached://127.0.0.1:{listening.getsockname()[1]}")
        limiter_on(store).acquire("k")
        assert store.servers[0].is_lost
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.mark.parametrize("key", ["", "k" * 10_000, "a b\r\nflush_all\r\n", "\ud800", "ключ"])
def test_any_text_is_a_key(memcached: Memcached, key: str) -> None:
    """Nothing of it is sent but a digest."""
    limiter = limiter_on(MemcachedStore(memcached.url, timeout=5), "1/hour")
    assert limiter.check(key)
    assert not limiter.check(key)
    assert limiter.check(key + "x")


def test_a_unix_socket_is_a_server(start_memcached: StartMemcached, tmp_path: Path) -> None:
    """It is named by its path."""
    server = start_memcached(unix=tmp_path / "m.sock")
    assert limiter_on(MemcachedStore(server.url)).check("k")


def test_one_who_asks_is_enough(start_memcached: StartMemcached) -> None:
    """While a server stands still, one caller at a time waits for it, until it is back."""
    server = start_memcached()
    store = MemcachedStore(server.url, processes=1)
    limiter = limiter_on(store, "10000/second burst 100")
    limiter.acquire("k")
    server.pause()
    try:
        limiter.acquire("k")
        assert store.servers[0].is_lost
        tries = store.round_trips
        for _ in range(200):
            limiter.acquire("k")
        assert store.round_trips - tries < 20
    finally:
        server.process.send_signal(signal.SIGCONT)
    give_up = time.monotonic() + 10
    while store.servers[0].is_lost and time.monotonic() < give_up:
        limiter.acquire("k")
    assert not store.servers[0].is_lost


def test_broken_connections_are_replaced(memcached: Memcached) -> None:
    """A reset costs another try, not the call."""
    with Proxy(memcached.address) as proxy:
        store = MemcachedStore(proxy.url)
        limiter = limiter_on(store)
        for _ in range(5):
            limiter.acquire("k")
            proxy.reset()
        limiter.acquire("k")
        assert not store.servers[0].is_lost


def test_a_server_that_drips_is_left_alone(memcached: Memcached) -> None:
    """Each byte comes in time and the answer never: the timeout is for the whole of it."""
    with Proxy(memcached.address) as proxy:
        store = MemcachedStore(proxy.url, timeout=0.05)
        limiter = limiter_on(store)
        limiter.acquire("k")
        proxy.use(drip=True)
        for _ in range(3):
            limiter.acquire("k")
        assert store.servers[0].is_lost


def test_a_pool_is_bounded_and_loses_no_place(memcached: Memcached) -> None:
    """Who finds all in use waits, and not for ever; an interrupt in mid-read frees its place."""
    store = MemcachedStore(memcached.url)
    pool = Pool(store.servers[0]._connect, 1, 0.05)
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt), pool.connection() as used:
            raise KeyboardInterrupt
        with pool.connection() as fresh:
            assert fresh is not used
            with pytest.raises(Unavailable, match="in use"), pool.connection():
                pass
    with pool.connection() as again:
        assert again is fresh


def test_a_child_takes_connections_of_its_own(memcached: Memcached) -> None:
    """Two processes that read one socket would read each other's answers."""
    store = MemcachedStore(memcached.url)
    key = b"rk1:test:fork"
    store.servers[0].talk([Get(key)])
    child = os.fork()
    if child == 0:
        inherited = store.servers[0]._pool._idle
        os._exit(0 if not inherited and store.servers[0].talk([Get(key)]) else 1)
    _, status = os.waitpid(child, 0)
    assert status == 0
    assert len(store.servers[0]._pool._idle) == 1


def test_keys_are_spread_and_stay(memcached: Memcached, nobody: str) -> None:
    """Of two servers each keeps a share; a key whose server is down has no other."""
    store = MemcachedStore([memcached.url, nobody], on_error="closed")
    limiter = limiter_on(store)
    kept = 0
    for number in range(40):
        try:
            limiter.acquire(f"key {number}")
        except StoreError:
            continue
        kept += 1
    assert 0 < kept < 40


def test_a_store_travels_to_another_process(memcached: Memcached) -> None:
    """Its configuration does; the connections are made there."""
    store = MemcachedStore(memcached.url, namespace="n", pool_size=3)
    copy = pickle.loads(pickle.dumps(store))  # noqa: S301
    assert repr(copy) == repr(store)
    assert copy.space("x").update("k", lambda state, now: (7, state), lambda state: now_far) is None


now_far = 1 << 62


def test_updates_of_many_threads_all_count(memcached: Memcached) -> None:
    """`update` is atomic: nobody's change is lost."""
    name = uuid.uuid4().hex
    spaces = [MemcachedStore(memcached.url).space(name) for _ in range(4)]

    def count(space: object) -> None:
        for _ in range(25):
            space.update("k", lambda state, now: ((state or 0) + 1, None), lambda state: now_far)  # type: ignore[attr-defined]

    threads = [threading.Thread(target=count, args=(space,)) for space in spaces]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert spaces[0].look("k")[0] == 100


def test_counts_and_slots_are_everybodys(memcached: Memcached) -> None:
    """What one process counts the other sees; of a few slots no more are taken than there are."""
    name = uuid.uuid4().hex
    one, other = (MemcachedStore(memcached.url).space(name) for _ in range(2))
    assert [one.count("k", 1000), other.count("k", 1000, 5), one.count("k", 1000)] == [1, 6, 7]
    taken = [space.take_slot("k", 3, 100_000) for space in (one, other) * 3]
    assert taken == [True] * 3 + [False] * 3
    assert one.take_slot("another", 1, 60)


def test_two_threads_may_meet_the_server_at_once(
    memcached: Memcached, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever is told of its clock between another one's question and answer is in nobody's way."""
    store = MemcachedStore(memcached.url)
    clock = store.servers[0].clock
    limiter, questions = limiter_on(store), clock.questions
    others = [threading.Thread(target=limiter.check, args=("other",))]

    def overtaken() -> list[Command]:
        while others:
            other = others.pop()
            other.start()
            other.join()
        return questions()

    monkeypatch.setattr(clock, "questions", overtaken)
    assert limiter.check("mine")
