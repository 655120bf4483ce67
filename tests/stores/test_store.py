"""A store as a whole: over TLS, while its server stands still, and after it came back."""

import logging
import pickle
import signal
import socket
import ssl
import threading
import time
import uuid
from contextlib import suppress

import pytest
import trustme

from ratekit import ConfigurationError, MemcachedStore, RateLimited, RateLimiter, StoreError
from ratekit.stores.memcached.wire import Get, Put, Unavailable
from tests.conftest import Memcached, StartMemcached

NEVER = 1 << 62


def limiter_on(store: MemcachedStore, limit: str = "1000/second burst 100") -> RateLimiter:
    """Return a limiter whose name nobody else has."""
    return RateLimiter(limit, name=uuid.uuid4().hex, store=store)


class TlsBefore:
    """Speaks TLS, and hands on to `server` what it is told, inside a `with`."""

    def __init__(self, server: Memcached, context: ssl.SSLContext) -> None:
        self.server = server
        self.context = context
        self.ends: list[socket.socket] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.threads = [threading.Thread(target=self.accept)]

    def __enter__(self) -> str:
        """Return the URL of it."""
        self.threads[0].start()
        return f"memcached://localhost:{self.listener.getsockname()[1]}"

    def __exit__(self, *error: object) -> None:
        _shut(self.listener)
        self.threads[0].join()
        for end in self.ends:
            _shut(end)
        for thread in self.threads[1:]:
            thread.join()
        for end in (*self.ends, self.listener):
            end.close()

    def accept(self) -> None:
        """Take callers until the listener is shut."""
        with suppress(OSError):
            while True:
                self.join_up(self.listener.accept()[0])

    def join_up(self, plain: socket.socket) -> None:
        """Carry what a caller says to the server, and back."""
        plain.settimeout(10)
        try:
            caller = self.context.wrap_socket(plain, server_side=True)
        except OSError:
            plain.close()
            return
        beyond = socket.create_connection(self.server.address)  # type: ignore[arg-type]
        self.ends += [caller, beyond]
        for ends in ((caller, beyond), (beyond, caller)):
            self.threads.append(threading.Thread(target=_carry, args=ends))
            self.threads[-1].start()


def _carry(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    _shut(source)
    _shut(target)


def _shut(one: socket.socket) -> None:
    with suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)


def test_tls_is_spoken_with_the_hosts_name(memcached: Memcached) -> None:
    """Its certificate is of its name; who trusts another authority has no server."""
    authority = trustme.CA()
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(served)
    context = ssl.create_default_context()
    authority.configure_trust(context)
    with TlsBefore(memcached, served) as url:
        store = MemcachedStore(url, tls=context, timeout=5, connect_timeout=5)
        assert limiter_on(store).check("k")
        assert not store.servers[0].is_lost
        store.close()
        stranger = MemcachedStore(url, tls=ssl.create_default_context(), on_error="closed")
        with pytest.raises(StoreError, match=r"(?i)certificate"):
            stranger.servers[0].talk([Get(b"rk1:test:tls")])


def test_a_name_is_required(memcached: Memcached) -> None:
    """A budget that is shared says whose it is."""
    with pytest.raises(ConfigurationError, match="name"):
        RateLimiter("1/second", store=memcached.url)
    with pytest.raises(ConfigurationError, match="name"):
        MemcachedStore(memcached.url).space(None)


def test_the_same_name_is_the_same_space(memcached: Memcached) -> None:
    """In one store the very same; in another namespace another."""
    name = uuid.uuid4().hex
    store = MemcachedStore(memcached.url)
    other = MemcachedStore(memcached.url, namespace="other")
    assert store.space(name) is store.space(name)
    store.space(name).update("k", lambda state, now: (5, None), lambda state: NEVER)
    assert MemcachedStore(memcached.url).space(name).look("k")[0] == 5
    assert other.space(name).look("k")[0] is None
    assert store.space(name + "k").look("")[0] is None


def test_updates_of_one_spaces_threads_all_count(memcached: Memcached) -> None:
    """They share what was seen last, and nobody's change is lost."""
    space = MemcachedStore(memcached.url, timeout=10).space(uuid.uuid4().hex)
    results: list[int] = []

    def change(state: int | None, now: int) -> tuple[int, int]:
        return (state or 0) + 1, (state or 0) + 1

    def count() -> None:
        for _ in range(50):
            results.append(space.update("k", change, lambda state: NEVER))  # noqa: PERF401

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == list(range(1, 201))
    assert space.look("k")[0] == 200


def test_an_update_may_leave_all_as_it_is(memcached: Memcached) -> None:
    """It is told what is there now, not what was seen last."""
    name = uuid.uuid4().hex
    one, other = (MemcachedStore(memcached.url).space(name) for _ in range(2))
    one.update("k", lambda state, now: (1, None), lambda state: NEVER)
    other.update("k", lambda state, now: (2, None), lambda state: NEVER)
    assert one.update("k", lambda state, now: (None, state), lambda state: NEVER) == 2
    assert other.look("k")[0] == 2


def test_nonsense_in_place_of_a_state_is_replaced(memcached: Memcached) -> None:
    """What another program wrote there is nobody's state."""
    name = uuid.uuid4().hex
    store = MemcachedStore(memcached.url)
    space = store.space(name)
    space.update("k", lambda state, now: (1, None), lambda state: NEVER)
    (record,) = space._records.values()
    for value in (b"", b"nonsense", b'{"a":1}', b"x" * 100_000):
        store.servers[0].talk([Put(record.key, value, 60)])
        assert MemcachedStore(memcached.url).space(name).look("k")[0] is None
        # Who has seen it goes on from there.
        space.update("k", lambda state, now: ((state or 0) + 1, None), lambda state: NEVER)
    assert MemcachedStore(memcached.url).space(name).look("k")[0] == 5


def test_while_one_asks_the_others_do_not_wait(start_memcached: StartMemcached) -> None:
    """A server that stands still is asked by one thread; all others are told at once."""
    server = start_memcached()
    store = MemcachedStore(server.url, timeout=30)
    (asked,) = store.servers
    asked.talk([Get(b"k")])
    server.pause()
    try:
        # As after a failure, when it may be asked again.
        asked._failed(Unavailable("stands still"))
        asked._ask_at = 0
        asked._hurried = asked.address
        thread = threading.Thread(target=asked.talk, args=([Get(b"k")],))
        thread.start()
        give_up = time.monotonic() + 10
        while not asked._is_asked and time.monotonic() < give_up:
            time.sleep(0.001)
        # Each would wait 30 s, had it to wait.
        for _ in range(100):
            with pytest.raises(Unavailable, match="stands still"):
                asked.talk([Get(b"k")])
        assert thread.is_alive()
    finally:
        server.process.send_signal(signal.SIGCONT)
    thread.join()
    assert not asked.is_lost
    assert asked.talk([Get(b"k")])


def test_a_server_that_comes_back_is_found(
    start_memcached: StartMemcached, caplog: pytest.LogCaptureFixture
) -> None:
    """On the same port; it is said once that it went, and once that it is back."""
    server = start_memcached()
    assert isinstance(server.address, tuple)
    store = MemcachedStore(server.url, processes=1)
    limiter = limiter_on(store, "10000/second burst 100")
    limiter.acquire("k")
    with caplog.at_level(logging.INFO, "ratekit.stores"):
        server.stop()
        for _ in range(20):
            limiter.acquire("k")
        assert store.servers[0].is_lost
        start_memcached(port=server.address[1])
        give_up = time.monotonic() + 10
        while store.servers[0].is_lost and time.monotonic() < give_up:
            limiter.acquire("k")
    gone, back = (record.getMessage() for record in caplog.records)
    assert "no shared state" in gone
    assert "answers again" in back


def test_a_quick_restart_costs_no_call(start_memcached: StartMemcached) -> None:
    """Connections that broke while idle are opened again, and the command is sent again."""
    server = start_memcached()
    assert isinstance(server.address, tuple)
    store = MemcachedStore(server.url, on_error="closed")
    limiter = limiter_on(store, "1000/second burst 100")
    limiter.acquire("k")
    server.stop()
    start_memcached(port=server.address[1])
    limiter.acquire("k")
    assert not store.servers[0].is_lost


def test_keys_stay_where_they_are(start_memcached: StartMemcached, memcached: Memcached) -> None:
    """Whatever the order in which the servers are named, and though one of them is down."""
    other = start_memcached()
    digests = [uuid.uuid4().hex for _ in range(50)]
    urls = [memcached.url, other.url]

    def places(store: MemcachedStore) -> list[str]:
        return [str(store.server_of(digest).address) for digest in digests]

    store = MemcachedStore(urls)
    before = places(store)
    assert len(set(before)) == 2
    assert places(MemcachedStore(urls[::-1])) == before
    other.stop()
    with pytest.raises(StoreError):
        store.servers[1].talk([Get(b"k")])
    assert places(store) == before
    assert places(pickle.loads(pickle.dumps(store))) == before  # noqa: S301


def test_a_sliding_window_is_shared(memcached: Memcached) -> None:
    """Two stores of one server grant one budget, however many moments it remembers.

    Their clocks may be milliseconds apart: one that lags waits for so long.
    """
    name = uuid.uuid4().hex
    limiters = [
        RateLimiter("300/hour window", name=name, store=MemcachedStore(memcached.url, timeout=5))
        for _ in range(2)
    ]
    for _ in range(150):
        for limiter in limiters:
            limiter.acquire("k", max_wait=1)
    with pytest.raises(RateLimited):
        limiters[0].acquire("k", max_wait=0)
