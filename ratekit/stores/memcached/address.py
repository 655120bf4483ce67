"""Where servers are, as text: `memcached://host:port,host:port`, `memcached+unix:///path`."""

import re
import ssl
from collections.abc import Sequence
from typing import Any

from ratekit.checks import check_positive
from ratekit.errors import ConfigurationError
from ratekit.stores.memcached.connection import Address

__all__ = ["addresses_of"]

_TCP = "memcached://"
_UNIX = "memcached+unix://"
_RIGHT = "'memcached://host:port,host:port' or 'memcached+unix:///path'"
_HOST = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:.%\w]+)\]|(?P<name>[\w.\-]+))(?::(?P<port>\d{1,5}))?")


def addresses_of(
    servers: Any, *, timeout: float, connect_timeout: float, tls: ssl.SSLContext | None
) -> list[Address]:
    """Return the addresses that `servers` names: a URL, several of them, or a pymemcache client.

    Raises `ConfigurationError` saying what is wrong with which.
    """
    check_positive("timeout", timeout)
    check_positive("connect_timeout", connect_timeout)
    if isinstance(servers, str):
        texts: Sequence[str] = [servers]
    elif isinstance(servers, Sequence) and servers and all(isinstance(s, str) for s in servers):
        texts = servers
    elif hasattr(servers, "server") and hasattr(servers, "connect_timeout"):
        return [_of_client(servers)]
    else:
        raise ConfigurationError(f"servers {servers!r}: use {_RIGHT}, a list of these, or a client")
    how: dict[str, Any] = {"connect_timeout": connect_timeout, "timeout": timeout, "tls": tls}
    found = [Address(**place, **how) for text in texts for place in _places(text)]
    names = [str(address) for address in found]
    for name in names:
        if names.count(name) > 1:
            raise ConfigurationError(f"server {name!r} is named twice; name each once")
    return found


def _places(text: str) -> list[dict[str, Any]]:
    if text.startswith(_UNIX):
        path = text.removeprefix(_UNIX)
        if not path.startswith("/") or "\0" in path:
            raise ConfigurationError(f"store {text!r}: use 'memcached+unix:///path/of/the/socket'")
        return [{"path": path}]
    if not text.startswith(_TCP):
        raise ConfigurationError(f"store {text!r}: unknown kind of store; use {_RIGHT}")
    hosts = text.removeprefix(_TCP).rstrip("/")
    return [_place(text, host.strip()) for host in hosts.split(",")]


def _place(text: str, host: str) -> dict[str, Any]:
    match = _HOST.fullmatch(host)
    port = int(match["port"] or 11211) if match else 0
    if match is None or not 0 < port < 65536:
        raise ConfigurationError(f"store {text!r}: {host!r} is not 'host:port'; use {_RIGHT}")
    return {"host": match["six"] or match["name"], "port": port}


def _of_client(client: Any) -> Address:
    """Return where a pymemcache client would connect. It must not be one that may wait for ever."""
    timeouts: dict[str, Any] = {
        name: getattr(client, name, None) for name in ("connect_timeout", "timeout")
    }
    for name, seconds in timeouts.items():
        if not seconds:
            raise ConfigurationError(
                f"{type(client).__name__} has no {name}: a server that does not answer would stop "
                f"the program for ever; make it with {name}=0.25, or give the server's URL"
            )
    where = client.server
    place: dict[str, Any] = (
        {"path": where} if isinstance(where, str) else {"host": where[0], "port": where[1]}
    )
    return Address(**place, **timeouts, tls=getattr(client, "tls_context", None))
