"""State that a fleet of processes shares, in memcached."""

import ssl
from collections.abc import Sequence
from typing import Any, Literal, TypeVar

from ratekit.checks import check_positive
from ratekit.clock import SYSTEM, Clock
from ratekit.errors import ConfigurationError
from ratekit.stores import Store
from ratekit.stores.memcached.address import addresses_of
from ratekit.stores.memcached.keys import PREFIX
from ratekit.stores.memcached.server import Server
from ratekit.stores.memcached.space import MemcachedSpace

__all__ = ["MemcachedStore"]

T = TypeVar("T")

OnError = Literal["local", "closed", "open"]


class MemcachedStore(Store):
    """State in memcached, shared by every process that names the same servers.

    `servers`: `memcached://host:port,host:port` (of several each holds the state of its share of
    the keys; every process must name the same ones), `memcached+unix:///path`, a list of these, or
    a pymemcache client, for where it connects to. `timeout` and `connect_timeout`: seconds, for
    one conversation and for one connection. `tls`: the context to connect with. `pool_size`: the
    most connections to one server.
    `namespace`: who else names the same servers and must not share state names another.
    `on_error`: while a server does not answer, `"local"` goes on alone at this process's share of
    the limits, `"closed"` refuses with `StoreError`, `"open"` lets everything through.
    `processes`: how many share the limits, where that should not be found out by counting those
    that have asked of late.

    It is thread-safe, connects when it is first needed, and takes new connections after a fork.
    Raises `ConfigurationError` for what cannot be right.
    """

    def __init__(
        self,
        servers: str | Sequence[str] | Any = "memcached://127.0.0.1:11211",
        *,
        timeout: float = 0.25,
        connect_timeout: float = 0.25,
        tls: ssl.SSLContext | None = None,
        pool_size: int = 8,
        namespace: str = "",
        on_error: OnError = "local",
        processes: int | None = None,
        clock: Clock = SYSTEM,
    ) -> None:
        addresses = addresses_of(servers, timeout=timeout, connect_timeout=connect_timeout, tls=tls)
        for what, number in (("pool_size", pool_size), ("processes", processes)):
            if number is not None:
                check_positive(what, number)
                if number != int(number):
                    raise ConfigurationError(f"{what} {number!r}: use a whole number from 1 up")
        if on_error not in {"local", "closed", "open"}:
            raise ConfigurationError(f"on_error {on_error!r}: use 'local', 'closed' or 'open'")
        self.clock = clock
        self.namespace = namespace
        self.on_error = on_error
        self.processes = processes
        self.servers = tuple(Server(address, pool_size, clock, PREFIX) for address in addresses)
        self._by_name = {str(server.address): server for server in self.servers}
        self._spaces: dict[str, MemcachedSpace] = {}
        self._made_with = {
            "servers": servers, "timeout": timeout, "connect_timeout": connect_timeout,
            "pool_size": pool_size, "namespace": namespace, "on_error": on_error,
            "processes": processes, "clock": clock, "tls": tls,
        }  # fmt: skip

    @property
    def round_trips(self) -> int:
        """How many conversations with its servers this process has had."""
        return sum(server.round_trips for server in self.servers)

    def space(self, name: str | None) -> MemcachedSpace:
        """Return the space called `name`. Raises `ConfigurationError` for None."""
        if name is None:
            raise ConfigurationError(
                "what is shared through memcached needs a name that says whose budget it is: "
                "RateLimiter('100/minute', name='example-api', store=...)"
            )
        space = self._spaces.get(name)
        if space is None:
            # setdefault is atomic: two threads that ask at once get the same space.
            space = self._spaces.setdefault(name, MemcachedSpace(self, name))
        return space

    def server_of(self, digest: str) -> Server:
        """Return the server that keeps what is called so. It stays the same when that is down."""
        if len(self.servers) == 1:
            return self.servers[0]
        from pymemcache.client import rendezvous

        hashing: Any = rendezvous.RendezvousHash
        return self._by_name[hashing(sorted(self._by_name)).get_node(digest)]

    def close(self) -> None:
        """Close the idle connections. What is asked later opens new ones."""
        for server in self.servers:
            server.close()

    def __repr__(self) -> str:
        return f"MemcachedStore({', '.join(self._by_name)!r}, namespace={self.namespace!r})"

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuilt, (self._made_with,)


def _rebuilt(made_with: dict[str, Any]) -> MemcachedStore:
    return MemcachedStore(**made_with)
