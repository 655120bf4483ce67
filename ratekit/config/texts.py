"""The kinds of settings whose text means more: limits, keys, circuits, stores, secrets."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from ratekit.circuit import Trip
from ratekit.config.parsing import TEXT, Kind, Wrong, masked, word_of
from ratekit.errors import ConfigurationError
from ratekit.keys import by_credential, by_each, by_route
from ratekit.limits.limit import Limit
from ratekit.stores.memcached.address import addresses_of

__all__ = ["KEY", "LIMIT", "SECRET", "STORE", "TIERS", "TRIP", "key_function"]

_SHORTEST_SECRET = 16


def _read_limit(value: Any) -> str | None:
    text: str = TEXT.read(value)
    if word_of(value) == "off":
        return None
    if "/" in text:
        Limit.parse_all(text)
    return text  # a tier's name otherwise


def _read_tiers(value: Any) -> Mapping[str, str]:
    if isinstance(value, str):
        pairs = [part.partition("=") for part in value.split(",") if part.strip()]
        value = {name.strip(): text.strip() for name, _, text in pairs}
        if len(value) < len(pairs) or not all(equals for _, equals, _ in pairs):
            raise Wrong
    if not isinstance(value, Mapping) or not value:
        raise Wrong
    for name, text in value.items():
        if not isinstance(name, str) or not name or not isinstance(text, str):
            raise Wrong
        try:
            Limit.parse_all(text)
        except ConfigurationError as error:
            raise ConfigurationError(f"tier {name!r}: {error}") from error
    return MappingProxyType(dict(value))


def key_function(text: str, secret: bytes | None) -> Callable[[Any], str | None] | None:
    """Return the key function that a text names; None for the origin alone."""
    parts = [part.strip() for part in text.split(";")]
    routes = [part for part in parts if "/" in part]
    functions = [by_route(*routes)] if routes else []
    functions += [by_credential(secret=secret)] if "credential" in parts else []
    if len(functions) < 2:
        return functions[0] if functions else None
    return by_each(*functions)


def _read_key(value: Any) -> str:
    text: str = TEXT.read(value)
    for part in text.split(";"):
        if part.strip() not in ("origin", "credential") and "/" not in part:
            raise Wrong
    key_function(text, b"0" * _SHORTEST_SECRET)
    return text


def _read_trip(value: Any) -> str | None:
    if value is None or value is False or word_of(value) == "off":
        return None
    text: str = TEXT.read(value)
    Trip.read(text, cooldown_ns=1, longest_ns=1, probes=1, successes=1, lease_ns=1)
    return text


def _read_store(value: Any) -> str:
    text: str = TEXT.read(value)
    if text in ("memory", "memory:"):
        return "memory:"
    if "@" in text:
        # memcached is not asked for a password, and one must not be found in an error.
        raise Wrong
    addresses_of(text, timeout=1, connect_timeout=1, tls=None)
    return text


def _read_secret(value: Any) -> bytes:
    secret = value.encode() if isinstance(value, str) else value
    if not isinstance(secret, bytes) or len(secret) < _SHORTEST_SECRET:
        raise Wrong
    return secret


LIMIT = Kind(_read_limit, "a limit such as 100/minute, the name of a tier, or off")
TIERS = Kind(
    _read_tiers, "names and limits, such as free=60/minute, premium=1000/minute",
    lambda tiers: ", ".join(f"{name}={text}" for name, text in tiers.items()),
)  # fmt: skip
KEY = Kind(_read_key, "origin, credential, routes such as /users/{id}, or several joined with ;")
TRIP = Kind(_read_trip, "50% of 10 in 30, or 5 in a row, or both joined with ;, or off")
STORE = Kind(
    _read_store, "memory: or memcached://host:port,host:port or memcached+unix:///path", masked
)
SECRET = Kind(
    _read_secret, "16 random bytes or more, the same in every process", lambda _: "***",
    is_secret=True,
)  # fmt: skip
