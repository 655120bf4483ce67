"""What the tests stand on holds: real servers answer, and nothing reaches out of this machine."""

import os
import socket
from pathlib import Path

import pytest

from tests.conftest import Memcached, StartMemcached


def test_a_real_memcached_answers(memcached: Memcached) -> None:
    """What the tests call memcached is the program, asked here over a plain socket."""
    assert memcached.ask(b"version").startswith(b"VERSION ")


def test_a_memcached_that_was_stopped_comes_back_at_its_address_and_empty(
    start_memcached: StartMemcached,
) -> None:
    """So a test can restart its own, without a word to the others'."""
    first = start_memcached()
    assert first.ask(b"set k 0 0 1\r\nv") == b"STORED\r\n"
    first.stop()
    with pytest.raises(ConnectionRefusedError):
        first.ask(b"get k")
    again = start_memcached(port=int(first.address[1]))
    assert (again.url, again.ask(b"get k")) == (first.url, b"END\r\n")


def test_a_memcached_listens_at_a_path(start_memcached: StartMemcached, tmp_path: Path) -> None:
    """A unix socket stays on this machine, so the guard lets it pass."""
    server = start_memcached(unix=tmp_path / "socket")
    assert server.url == f"memcached+unix://{tmp_path}/socket"
    assert server.ask(b"version").startswith(b"VERSION ")


# Addresses and a name that are set aside for documentation: nobody has them.
@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1", "host.example", b"host.example"])
def test_no_test_reaches_another_machine(host: str) -> None:
    """It fails on the spot, and no `except Exception` on its way can hide that."""
    with pytest.raises(pytest.fail.Exception, match="is not this machine"):
        socket.create_connection((host, 80), timeout=1)


def test_no_test_sends_a_datagram_to_another_machine() -> None:
    """Without a connection there is no `connect` to forbid."""
    with socket.socket(type=socket.SOCK_DGRAM) as sender:
        with pytest.raises(pytest.fail.Exception, match="is not this machine"):
            sender.sendto(b"", ("192.0.2.1", 9))
        with pytest.raises(pytest.fail.Exception, match="is not this machine"):
            sender.connect_ex(("192.0.2.1", 9))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.10", "localhost"])
def test_loopback_is_open(host: str) -> None:
    """All of 127.0.0.0/8 is this machine."""
    with socket.create_server(("0.0.0.0", 0)) as server:  # noqa: S104 (for the length of a line)
        port = server.getsockname()[1]
        socket.create_connection((host, port), timeout=5).close()


def test_no_setting_of_whoever_runs_the_tests_is_seen() -> None:
    """A proxy or a RATEKIT_ variable of the shell would change what the tests test."""
    settings = {name.upper() for name in os.environ}
    assert not [name for name in settings if name.startswith("RATEKIT_") or "_PROXY" in name]
