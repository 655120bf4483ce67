"""Where servers are: every form of it, and every place that a name stands for."""

import socket
import ssl

import pytest
from pymemcache.client.base import Client, PooledClient

from ratekit import ConfigurationError, MemcachedStore
from ratekit.stores import open_store
from ratekit.stores.memcached.address import addresses_of
from ratekit.stores.memcached.connection import Address, Connection, _places
from ratekit.stores.memcached.wire import Get, Unavailable
from tests.conftest import Memcached


def addresses(servers: object) -> list[Address]:
    """Return the addresses that this names."""
    return addresses_of(servers, timeout=2, connect_timeout=3, tls=None)


def of(**place: object) -> Address:
    """Return an address with the timeouts from above."""
    return Address(**place, timeout=2, connect_timeout=3)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("servers", "expected"),
    [
        ("memcached://cache-1.example", [of(host="cache-1.example", port=11211)]),
        ("memcached://a:65535, b ,c:1/", [of(host=h, port=p) for h, p in
                                          (("a", 65535), ("b", 11211), ("c", 1))]),
        ("memcached://[::1],[fe80::1%eth0]:7", [of(host="::1"), of(host="fe80::1%eth0", port=7)]),
        ("memcached+unix:///run/a b,c.sock", [of(path="/run/a b,c.sock")]),
        (("memcached://a:1,b:1", "memcached://c:1"), [of(host=h, port=1) for h in "abc"]),
    ],
)  # fmt: skip
def test_a_url_names_hosts_or_a_path(servers: object, expected: list[Address]) -> None:
    """The port may be left out, IPv6 stands in brackets, and of several each has its place."""
    assert addresses(servers) == expected


@pytest.mark.parametrize(
    "servers",
    [
        "",
        "a:11211",
        "redis://a",
        "memcache://a",
        "memcached:a",
        "memcached:///a",
        "memcached://a,",
        "memcached://a:0",
        "memcached://a:65536",
        "memcached://a:123456",
        "memcached://a:-1",
        "memcached://user:secret@a",
        "memcached://a/0",
        "memcached://::1",
        "memcached://[::1",
        "memcached://a b",
        "memcached+unix://",
        "memcached+unix:///a\0b",
        ["memcached://a", "b"],
        ["memcached://a", "memcached://a:11211"],
        "memcached://a:1,b:1,a:1",
        ["memcached+unix:///a", "memcached+unix:///a"],
        [],
        ["memcached://a", 1],
        {"memcached://a"},
        None,
        b"memcached://a",
        ("127.0.0.1", 11211),
    ],
)
def test_anything_else_is_refused(servers: object) -> None:
    """With words about what would be right, at once and not when it is first needed."""
    with pytest.raises(ConfigurationError, match=r"use|named twice"):
        MemcachedStore(servers)


@pytest.mark.parametrize("kind", [Client, PooledClient])
def test_a_client_says_where_it_connects_to(kind: type[Client]) -> None:
    """With its timeouts and its TLS context, not the store's."""
    tls = ssl.create_default_context()
    client = kind(("h", 7), connect_timeout=4, timeout=5, tls_context=tls)
    expected = Address(host="h", port=7, connect_timeout=4, timeout=5, tls=getattr(
        client, "tls_context", None))  # fmt: skip
    assert addresses(client) == [expected]
    unix = kind("/run/m.sock", connect_timeout=4, timeout=5)
    assert addresses(unix) == [Address(path="/run/m.sock", connect_timeout=4, timeout=5)]


@pytest.mark.parametrize("missing", ["connect_timeout", "timeout"])
@pytest.mark.parametrize("value", [None, 0])
def test_a_client_that_may_wait_for_ever_is_refused(missing: str, value: object) -> None:
    """By the name of what it lacks."""
    client = Client(("h", 7), connect_timeout=1, timeout=1)
    setattr(client, missing, value)
    with pytest.raises(ConfigurationError, match=f"has no {missing}"):
        addresses(client)


def test_the_same_url_is_the_same_store() -> None:
    """Whoever names it shares its connections; what is a store is itself."""
    store = open_store("memcached://127.0.0.1:1")
    assert open_store("memcached://127.0.0.1:1") is store
    assert open_store("memcached://127.0.0.1:2") is not store
    assert open_store(store) is store
    for wrong in ("redis://a", "memory", 5, None):
        with pytest.raises(ConfigurationError):
            open_store(wrong)  # type: ignore[arg-type]


def test_every_place_of_a_name_is_tried(
    memcached: Memcached, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name may stand for an address where nobody listens, and for one where somebody does."""
    assert isinstance(memcached.address, tuple)
    port = memcached.address[1]
    found = socket.getaddrinfo("127.0.0.1", port, type=socket.SOCK_STREAM)
    both = [(socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", port, 0, 0)), *found]
    real = socket.getaddrinfo

    def resolve(host: str, *args: object, **kwargs: object) -> object:
        return both if host == "localhost" else real(host, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    connection = Connection(Address("localhost", port))
    assert connection.talk([Get(b"rk1:test:place")], meta=True)
    connection.close()


def test_a_name_without_an_address_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing was sent to anybody."""

    def resolve(*args: object, **kwargs: object) -> object:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with pytest.raises(Unavailable, match=r"nowhere\.example"):
        Connection(Address("nowhere.example"))


def test_a_link_local_address_keeps_its_link() -> None:
    """Without it nobody could say by which of its links the machine is to send."""
    assert _places(Address("::1%1", 5)) == [(("::1%1", 5), None)]
    assert _places(Address("::1", 5)) == [(("::1", 5), None)]
