"""One connection to a memcached server. pymemcache opens it; what is said on it is ratekit's own.

Its public part is enough: `version()` connects with every timeout, TLS context and address family
that it knows how to handle, and leaves the socket to us.
"""

import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ratekit.clock import SECOND, SYSTEM
from ratekit.errors import ConfigurationError
from ratekit.stores.memcached.classic import talk_classic
from ratekit.stores.memcached.wire import (
    Command,
    Lost,
    Reader,
    Reply,
    Unavailable,
    talk_meta,
)

__all__ = ["Address", "Connection"]


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server is, and how to reach it. `path` is a unix socket's. Timeouts are seconds."""

    host: str = ""
    port: int = 11211
    path: str = ""
    connect_timeout: float = 0.25
    timeout: float = 0.25
    tls: ssl.SSLContext | None = None

    def __str__(self) -> str:
        if self.path:
            return self.path
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Connection:
    """An open connection. It is one thread's at a time, and of no use after any exception."""

    __slots__ = ("__weakref__", "_client", "_reader", "_socket", "_timeout_ns", "_until", "version")

    def __init__(self, address: Address) -> None:
        """Connect. Raises `Unavailable` when that cannot be done in time."""
        self._client: Any = None
        self._client, self.version = _open(address)
        self._socket: socket.socket = self._client.sock
        self._timeout_ns = int(address.timeout * SECOND)
        self._until = 0
        self._reader = Reader(self._receive)

    def talk(self, commands: Sequence[Command], *, meta: bool) -> list[Reply]:
        """Send commands and return their replies, all in the address's timeout.

        Raises `Lost` when nobody knows what became of them.
        """
        self._until = SYSTEM.now_ns() + self._timeout_ns
        talk = talk_meta if meta else talk_classic
        try:
            return talk(self._socket.sendall, self._reader, commands)
        except OSError as error:
            raise Lost(str(error) or type(error).__name__) from error

    def speaks_meta(self, key: bytes) -> bool:
        """Return whether the server has the meta commands as ratekit uses them.

        Some releases had earlier forms of them: what is needed is tried, on a key that is gone in
        a second. The connection is of no use after a False.
        """
        self._until = SYSTEM.now_ns() + self._timeout_ns
        said = b""
        try:
            self._socket.sendall(
                b"ms %b 1 T1\r\n1\r\nma %b D1 N1 J1 T1 v c\r\nmg %b v c t\r\nmn\r\n"
                % (key, key, key)
            )
            while not said.endswith(b"MN\r\n") and b"ERROR" not in said and len(said) < 200:
                part = self._receive(4096)
                if not part:
                    break
                said += part
        except OSError as error:
            raise Lost(str(error) or type(error).__name__) from error
        return (
            said.startswith(b"HD\r\nVA 1 c") and said.endswith(b"MN\r\n") and b"ERROR" not in said
        )

    def stats(self, *what: str) -> dict[str, str]:
        """Return what the server says of itself."""
        try:
            found = self._client.stats(*what)
        except Exception as error:
            raise Lost(str(error) or type(error).__name__) from error
        # pymemcache makes of some values what they mean, and leaves the others.
        return {_text(name): _text(value) for name, value in found.items()}

    def _receive(self, size: int) -> bytes:
        data = self._socket.recv(size)
        # A server may drip: each byte in time, and the whole of it never.
        if SYSTEM.now_ns() > self._until:
            raise TimeoutError("timed out")
        return data

    def close(self) -> None:
        """Close it; safe to repeat."""
        if self._client is not None:
            self._client.close()

    def __del__(self) -> None:
        # One that a signal took from its thread has no other owner.
        self.close()


def _open(address: Address) -> tuple[Any, str]:
    try:
        from pymemcache.client.base import Client
        from pymemcache.exceptions import MemcacheError
    except ImportError as missing:
        raise ConfigurationError(
            "shared state needs pymemcache; install it with: pip install 'ratekit[memcached]'"
        ) from missing

    problem: Exception | None = None
    for place, context in _places(address):
        client = Client(
            place,
            connect_timeout=address.connect_timeout,
            timeout=address.timeout,
            no_delay=not address.path,
            tls_context=context,
        )
        try:
            version = client.version()
        except (OSError, MemcacheError) as error:
            client.close()
            problem = error
        except BaseException:
            client.close()
            raise
        else:
            return client, version.decode("ascii", "replace")
    raise Unavailable(f"{problem or 'its name has no address'}") from problem


def _places(address: Address) -> list[tuple[Any, Any]]:
    """Return every address of the server, each to be tried in turn: pymemcache tries one only."""
    if address.path:
        return [(address.path, None)]
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise Unavailable(f"{address.host}: {error}") from error
    context = None if address.tls is None else _Named(address.tls, address.host)
    return [((_numeric(info[4]), address.port), context) for info in found]


def _numeric(place: tuple[Any, ...]) -> str:
    """Return an address with its link, which a link-local one is of no use without."""
    link = place[3] if len(place) == 4 else 0
    return f"{place[0]}%{link}" if link else str(place[0])


class _Named:
    """A TLS context that asks for the certificate of the host's name, not of its address."""

    def __init__(self, context: ssl.SSLContext, host: str) -> None:
        self._context = context
        self._host = host

    def wrap_socket(self, plain: socket.socket, server_hostname: str) -> socket.socket:
        return self._context.wrap_socket(plain, server_hostname=self._host)


def _text(value: object) -> str:
    return value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)
