"""The proxy that other tests put between a client and memcached."""

import contextlib
import socket
from collections.abc import Iterator

import pytest

from tests.conftest import Memcached
from tests.faults.proxy import Proxy

PATIENCE = 5.0
SHORT = 0.02  # seconds in which nothing is to come


@pytest.fixture
def proxy(memcached: Memcached) -> Iterator[Proxy]:
    """Give a proxy to a real memcached."""
    with Proxy(memcached.address) as one:
        yield one


@pytest.fixture
def connection(proxy: Proxy) -> Iterator[socket.socket]:
    """Give a connection through it that carries."""
    with socket.create_connection(proxy.address, PATIENCE) as one:
        assert ask(one) == b"MN\r\n"
        yield one


def ask(connection: socket.socket, command: bytes = b"mn\r\n", length: int = 4) -> bytes:
    """Send a command; return so many bytes of its reply, or fewer if the connection ends."""
    connection.sendall(command)
    return read(connection, length)


def read(connection: socket.socket, length: int) -> bytes:
    """Read so many bytes, or up to the end."""
    data = b""
    while len(data) < length and (more := connection.recv(length - len(data))):
        data += more
    return data


def silent(connection: socket.socket) -> bool:
    """Whether nothing comes for a moment."""
    connection.settimeout(SHORT)
    try:
        with contextlib.suppress(TimeoutError):
            connection.recv(1)
            return False
        return True
    finally:
        connection.settimeout(PATIENCE)


def test_it_carries_a_value_of_any_size_both_ways(connection: socket.socket) -> None:
    """Half a megabyte there, and back again."""
    value = bytes(range(256)) * 2048
    stored = ask(connection, b"ms proxy-large %d\r\n%b\r\n" % (len(value), value))
    got = ask(connection, b"mg proxy-large v\r\n", len(f"VA {len(value)}\r\n") + len(value) + 2)
    assert (stored, got) == (b"HD\r\n", b"VA %d\r\n%b\r\n" % (len(value), value))


def test_a_reset_reaches_every_connection_and_new_ones_are_carried(
    proxy: Proxy, connection: socket.socket
) -> None:
    """A client that waits for a reply sees the reset, not an end."""
    with socket.create_connection(proxy.address, PATIENCE) as second:
        assert ask(second) == b"MN\r\n"
        assert proxy.reset() == 2
        for one in (connection, second):
            with pytest.raises(ConnectionResetError):
                one.recv(1)
    with socket.create_connection(proxy.address, PATIENCE) as third:
        assert ask(third) == b"MN\r\n"
    assert proxy.accepted == 3


def test_what_is_sent_into_a_stall_arrives_after_it(
    proxy: Proxy, connection: socket.socket
) -> None:
    """Nothing is lost."""
    proxy.use(stall=True)
    connection.sendall(b"mn\r\n")
    assert silent(connection)
    proxy.use()
    assert read(connection, 4) == b"MN\r\n"


def test_a_delay_holds_back_and_keeps_the_order(proxy: Proxy, connection: socket.socket) -> None:
    """Also where it ends before what it held back has arrived."""
    proxy.use(delay=0.25)
    connection.sendall(b"mg proxy-missing v\r\n")
    assert silent(connection)
    proxy.use()
    assert ask(connection, length=8) == b"EN\r\nMN\r\n"


def test_a_reply_can_come_byte_by_byte(proxy: Proxy, connection: socket.socket) -> None:
    """One read gives one byte, and in the end all have come."""
    proxy.use(drip=0.001)
    assert ask(connection) == b"MN\r\n"
    proxy.use(drip=60)
    connection.sendall(b"mn\r\n")
    assert (connection.recv(100), silent(connection)) == (b"M", True)


@pytest.mark.parametrize("length", range(5))
def test_a_reply_can_be_cut_anywhere(proxy: Proxy, connection: socket.socket, length: int) -> None:
    """What arrived before the cut does not count."""
    proxy.use(cut=length)
    assert ask(connection, length=100) == b"MN\r\n"[:length]


def test_a_swallowed_reply_never_comes_though_the_server_acted(
    proxy: Proxy, connection: socket.socket
) -> None:
    """So a client cannot know what became of its command."""
    ask(connection, b"ms proxy-kept 1 T30\r\n1\r\n")
    proxy.use(swallow=True)
    connection.sendall(b"ma proxy-kept v\r\n")
    assert silent(connection)
    proxy.use()
    assert ask(connection, b"mg proxy-kept v\r\n", 9) == b"VA 1\r\n2\r\n"


def test_a_connection_ends_when_the_server_is_gone() -> None:
    """It is taken, because a proxy listens, and ended at once."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        address = closed.getsockname()
    with Proxy(address) as proxy, socket.create_connection(proxy.address, PATIENCE) as connection:
        assert connection.recv(1) == b""
