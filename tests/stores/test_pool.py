"""A pool lends connections: few, the last one first, and none that may be broken."""

import os
import queue
import threading

import pytest

from ratekit.errors import StoreError
from ratekit.stores.memcached.connection import Address, Connection
from ratekit.stores.memcached.pool import Pool
from ratekit.stores.memcached.wire import Get, Lost, Unavailable
from tests.conftest import Memcached

KEY = Get(b"rk1:test:pool")


class Fake(Connection):
    """Connects to nobody."""

    def __init__(self) -> None:
        self.closed = 0

    def close(self) -> None:
        """Count it."""
        self.closed += 1


def pool_of(size: int, timeout: float = 0.01) -> Pool:
    """Return a pool of connections to nobody."""
    return Pool(Fake, size, timeout)


def is_closed(connection: object) -> bool:
    """Tell whether it was closed."""
    assert isinstance(connection, Fake)
    return connection.closed > 0


def test_no_more_are_lent_than_there_may_be() -> None:
    """Who finds all in use is told so in the end, and one that comes back is lent again."""
    pool = pool_of(2)
    with pool.connection() as first, pool.connection() as second:
        assert first is not second
        with pytest.raises(Unavailable, match="all of 2"), pool.connection():
            pass
    with pool.connection() as again:
        assert again in {first, second}


def test_who_waits_gets_the_next_that_is_free() -> None:
    """Also when it is free because it broke."""
    pool = pool_of(1, timeout=30)
    got: queue.SimpleQueue[object] = queue.SimpleQueue()

    def take() -> None:
        with pool.connection() as one:
            got.put(one)

    for error in (None, Lost("broken")):
        thread = threading.Thread(target=take)
        try:
            with pool.connection() as mine:
                thread.start()
                assert got.empty()
                if error is not None:
                    raise error
        except Lost:
            assert is_closed(mine)
        thread.join()
        assert (got.get() is mine) is (error is None)


def test_the_one_used_last_is_used_next() -> None:
    """So that few stay in use."""
    pool = pool_of(3)
    with pool.connection() as a, pool.connection() as b, pool.connection() as c:
        pass
    assert len({id(one) for one in (a, b, c)}) == 3
    for _ in range(3):
        with pool.connection() as one:
            assert one is a


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit, Lost, ValueError])
def test_whatever_is_raised_closes_it_and_frees_its_place(error: type[BaseException]) -> None:
    """Half an answer may still come, so nobody else may have it; its place is not lost."""
    pool = pool_of(1)
    for _ in range(3):
        with pytest.raises(error), pool.connection() as one:
            raise error
        assert is_closed(one)
    with pool.connection():
        pass


def test_the_first_that_breaks_takes_the_idle_ones_with_it() -> None:
    """Most likely they are as dead."""
    pool = pool_of(3)
    with pool.connection() as a, pool.connection() as b, pool.connection():
        pass
    with pytest.raises(Lost), pool.connection() as one:
        raise Lost
    assert is_closed(one)
    assert is_closed(a)
    assert is_closed(b)
    with pool.connection() as fresh:
        assert fresh not in {a, b, one}


def test_a_fresh_one_has_not_been_lent_before() -> None:
    """What is idle may have broken since."""
    pool = pool_of(1)
    with pool.connection() as old:
        pass
    with pool.connection(fresh=True) as new:
        assert new is not old
    assert is_closed(old)


@pytest.mark.parametrize("error", [Unavailable, KeyboardInterrupt])
def test_one_that_cannot_be_opened_takes_no_place(error: type[BaseException]) -> None:
    """Nor does one whose opening was interrupted."""

    def connect() -> Connection:
        raise error

    pool = Pool(connect, 1, 0.01)
    for _ in range(3):
        with pytest.raises(error), pool.connection():
            pass
    assert not pool._all


def test_a_lost_one_is_given_up_with_its_thread() -> None:
    """What an interrupt took between two lines, without a word to the pool, frees its place."""
    pool = pool_of(1)
    manager = pool.connection()
    manager.__enter__()
    with pytest.raises(Unavailable), pool.connection():
        pass
    del manager
    with pool.connection():
        pass


def test_many_threads_share_few(memcached: Memcached) -> None:
    """Each gets its own answers, and nobody is turned away."""
    assert isinstance(memcached.address, tuple)
    host, port = memcached.address
    address = Address(host, port, timeout=10, connect_timeout=10)
    opened: list[Connection] = []

    def connect() -> Connection:
        opened.append(Connection(address))
        return opened[-1]

    pool = Pool(connect, 3, 10)
    wrong: list[object] = []

    def ask(number: int) -> None:
        for _ in range(30):
            with pool.connection() as one:
                replies = one.talk([Get(b"rk1:test:%d" % number)] * (number + 1), meta=True)
                if len(replies) != number + 1:
                    wrong.append(replies)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert len(opened) <= 3
    pool.drain()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_child_leaves_the_parents_connections_alone(memcached: Memcached) -> None:
    """Idle or in use at the fork: the child opens its own, and the parent goes on."""
    assert isinstance(memcached.address, tuple)
    address = Address(*memcached.address)
    pool = Pool(lambda: Connection(address), 2, 1)
    with pool.connection() as idle, pool.connection() as used:
        idle.talk([KEY], meta=True)
        pool._free.acquire()
        child = os.fork()
        if child == 0:
            code = 1
            try:
                with pool.connection() as a, pool.connection() as b:
                    a.talk([KEY], meta=True)
                    b.talk([KEY], meta=True)
                    code = 0 if {idle, used}.isdisjoint({a, b}) else 2
            finally:
                os._exit(code)
        pool._free.release()
        _, status = os.waitpid(child, 0)
        assert status == 0
        assert len(used.talk([KEY], meta=True)) == 1
    with pool.connection() as again:
        assert again in {idle, used}
        assert len(again.talk([KEY], meta=True)) == 1
    pool.drain()


def test_a_closed_connection_is_lost_not_wrong(memcached: Memcached) -> None:
    """It says so in ratekit's own words."""
    assert isinstance(memcached.address, tuple)
    one = Connection(Address(*memcached.address))
    one._socket.close()
    with pytest.raises(StoreError):
        one.talk([KEY], meta=True)
    one.close()
    one.close()
