"""Whose answer is it: the request as a cache knows it.

Two requests are the same where their method and URL are (and the body, where there is one), who
asks is, and every field is that the server's `Vary` names. Who asks goes in as a keyed hash: no
credential is in a key.
"""

import os
import re
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import Any

from ratekit.call import Call
from ratekit.errors import ConfigurationError
from ratekit.http.fields import NOTHING, Directives, directives
from ratekit.keys.credential import CREDENTIAL_HEADERS

__all__ = ["API_KEY_PARAMS", "Asked", "Identity"]

API_KEY_PARAMS = (
    "access_token", "api-key", "api_key", "apikey", "auth_token", "client_secret", "id_token",
    "key", "password", "refresh_token", "session_id", "sig", "signature", "subscription-key",
    "token", "x-amz-security-token", "x-amz-signature",
)  # fmt: skip
"""The parameters of a query that are taken for credentials."""

# In a body it may stand for a GraphQL operation that must not be left out.
_WRITE = b"mutation"
_OF_THIS_PROCESS = os.urandom(32)
_SHORTEST_SECRET = 16

_CONDITIONS = frozenset({"if-none-match", "if-modified-since"})
# What asks for a part, or depends on a state that only the server knows.
_UNANSWERABLE = frozenset({"range", "if-range", "if-match", "if-unmodified-since"})
_SAID = frozenset({"cache-control", "pragma"})
# A request with one of these has a body, whatever its method.
_BODY = frozenset({"content-length", "transfer-encoding"})
# Whoever names a field so says who asks with it. To keep two answers where one would do costs
# little; to hand one to the wrong caller does not.
_TELLING = re.compile(
    r"token|auth|secret|session|key|pass|credential|user(?!-agent)|tenant|account|jwt|sudo|behalf"
    r"|impersonat|organi[sz]ation|identity|login|principal|member|signature|client-?id"
)
_MOST_NAMES = 1000
# What tells requests apart, and not callers.
_NO_SECRETS = frozenset({"body", "host"})
_LONGEST_URL = 1000
# The authority, the path, and the query with its mark.
_PARTS = re.compile(r"[^:/?#]*://([^/?#]*)([^?#]*)((?:\?[^#]*)?)")
_PERCENT = re.compile("%[0-9A-Fa-f]{2}")
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")


class Asked:
    """A request as the cache sees it. `said`: its directives; `who`: the hash of who asks.

    `authorized`: whether it says who asks, which is no part of what a shared cache keeps it under.
    """

    __slots__ = ("_headers", "authorized", "conditions", "said", "unanswerable", "url", "who")

    def __init__(self, url: str, who: str, headers: Mapping[str, str]) -> None:
        self.url = url
        self.who = who
        self._headers = headers
        self.said: Directives = NOTHING
        # The user's own conditions, by name; None where there are none.
        self.conditions: dict[str, str] | None = None
        self.unanswerable = False
        self.authorized = bool(who)

    def variant(self, vary: tuple[str, ...]) -> str:
        """Return which of the answers to this URL is meant, where it varies by these fields."""
        if not vary:
            return self.who
        headers = self._headers
        hashed = blake2b(digest_size=16)
        for name in vary:
            value = headers.get(name)
            # A field that is absent is like none that is there.
            said = "-" if value is None else "+" + _normal(value)
            text = f"{name}\0{len(said)}\0{said}"
            hashed.update(text.encode("utf-8", "surrogatepass"))
        return f"{self.who} {hashed.hexdigest()}"


def _normal(value: str | bytes) -> str:
    text = value.decode("latin-1") if isinstance(value, bytes) else value
    return ",".join(part.strip(" \t") for part in text.split(","))


class _Names(dict[str, str]):
    """The fields that matter, by their names in lower case; "" for one that does not."""

    def __init__(self, names: Iterable[str]) -> None:
        super().__init__((name, name) for name in names)

    def __missing__(self, name: str) -> str:
        # Looked at once for each name, and not for each request.
        matters = name if _TELLING.search(name) else ""
        if len(self) < _MOST_NAMES:
            self[name] = matters
        return matters


class _Wired(dict[bytes, str]):
    """The same by the names as they go over the wire, in whatever case: looked at once for each."""

    def __init__(self, names: _Names) -> None:
        super().__init__()
        self._names = names

    def __missing__(self, wired: bytes) -> str:
        matters = self._names[wired.lower().decode("latin-1")]
        if len(self) < _MOST_NAMES:
            self[wired] = matters
        return matters


def _listed(names: str | Iterable[str]) -> frozenset[str]:
    return frozenset([names] if isinstance(names, str) else names)


class Identity:
    """Describes requests. `headers`, `params`: more names that say who asks.

    Those of `CREDENTIAL_HEADERS` and `API_KEY_PARAMS` do anyway, and so do `Cookie` and every field
    whose name speaks of a token, a session, a secret and the like.
    """

    def __init__(
        self,
        headers: str | Iterable[str] = (),
        params: str | Iterable[str] = (),
        secret: bytes | None = None,
        *,
        shared: bool = False,
    ) -> None:
        if secret is not None and (not isinstance(secret, bytes) or len(secret) < _SHORTEST_SECRET):
            # Without what was given: it is one.
            raise ConfigurationError(
                f"secret: too short or not bytes; use {_SHORTEST_SECRET} random bytes or more, the "
                "same in all processes, such as those of secrets.token_bytes(32)"
            )
        self._shared = shared
        self._params = frozenset(name.lower() for name in _listed(params).union(API_KEY_PARAMS))
        names = "|".join(map(re.escape, self._params))
        self._has_param = re.compile(f"[?&](?:{names})(?:[=&]|$)", re.IGNORECASE).search
        own = _listed(headers).union(CREDENTIAL_HEADERS, ("authorization", "cookie"))
        self._credentials = frozenset(name.lower() for name in own)
        self._others = _CONDITIONS | _UNANSWERABLE | _SAID | _BODY | {"host"}
        self._names = _Names(self._credentials | self._others)
        self._on_wire = _Wired(self._names)
        self._key = None if secret is None else _hashed(secret)
        self._hash = blake2b(key=self._key or _OF_THIS_PROCESS, digest_size=16)

    def describe(self, call: Call, method: str, *, with_body: bool = False) -> Asked | None:
        """Return the request as the cache sees it; None where its body says too little."""
        found = self._found(call.headers)
        host = found.pop("host", "") if found else ""
        url, keys = self.normal(call.url, call.key)
        if with_body or (found and _has_body(found)):
            body = call.body() if call.body is not None else None
            if body is None or (with_body and _WRITE in body):
                return None
            keys.append(("body", f"{method} {blake2b(body, digest_size=16).hexdigest()}"))
        if host and not call.key.endswith(f"/{host.lower()}"):
            # Asked of another host than the URL names.
            keys.append(("host", host))
        if call.tls is not None:
            keys.append(("tls", call.tls))
        if not found and not keys:
            return Asked(url, "", call.headers)
        others = self._others
        secrets = sorted([*keys, *[one for one in found.items() if one[0] not in others]])
        # A shared cache keeps answers for all who ask, but still for what they ask for: what the
        # URL says stays apart.
        apart = keys if self._shared else secrets
        asked = Asked(url, self._who(apart) if apart else "", call.headers)
        asked.authorized = any(name not in _NO_SECRETS for name, _ in secrets)
        if len(found) != len(secrets) or keys:
            _read(asked, found)
        return asked

    def normal(self, url: str, origin: str) -> tuple[str, list[tuple[str, str]]]:
        """Return a URL in its normal form (RFC 3986, 6.2.2), and the credentials in its query."""
        match = _PARTS.match(url)
        if match is None:
            return url, []
        authority, path, query = match.groups()
        if "%" in path or "%" in query:
            path, query = (_PERCENT.sub(_normal_percent, part) for part in (path, query))
        secrets: list[tuple[str, str]] = []
        if query and self._params and self._has_param(query):
            kept = []
            for place, pair in enumerate(query[1:].split("&")):
                name, _, value = pair.partition("=")
                if name.lower() in self._params:
                    # With its place: the order of a query may matter.
                    secrets.append((f"?{place:04}{name}", value))
                else:
                    kept.append(pair)
            if secrets:
                query = f"?{'&'.join(kept)}" if kept else ""
        if "@" in authority:
            secrets.append(("@", authority.rpartition("@")[0]))
        url = f"{origin}{path or '/'}{query}"
        if len(url) > _LONGEST_URL:
            # Kept in many places: as its hash.
            hashed = blake2b(url.encode("utf-8", "surrogatepass"), digest_size=16)
            url = f"{url[:100]}... {hashed.hexdigest()}"
        return url, secrets

    def _found(self, headers: Mapping[str, str]) -> dict[str, str]:
        """Return the fields that matter, by their names in lower case."""
        raw = getattr(headers, "raw", None)
        if isinstance(raw, list):
            # httpx's headers give all pairs at once; one at a time they take several times as long.
            on_wire = self._on_wire
            found: dict[str, str] = {}
            for wired, value in raw:
                name = on_wire[wired]
                if name:
                    text = value.decode("latin-1")
                    found[name] = f"{found[name]}, {text}" if name in found else text
            return found
        names = self._names
        lower_items = getattr(headers, "lower_items", None)
        pairs = headers.items() if lower_items is None else lower_items()
        return {
            low: value.decode("latin-1") if isinstance(value, bytes) else value
            for name, value in pairs
            if names[low := name.lower()]
        }

    def _who(self, secrets: list[tuple[str, str]]) -> str:
        hashed = self._hash.copy()
        for name, value in secrets:
            text = f"{name}\0{len(value)}\0{value}"
            hashed.update(text.encode("utf-8", "surrogatepass"))
        return hashed.hexdigest()

    def __getstate__(self) -> dict[str, object]:
        # The key that was made of the secret travels, never the secret; without one each process
        # has its own.
        state = {"params": self._params, "credentials": self._credentials}
        return {**state, "shared": self._shared, "key": self._key}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(  # type: ignore[misc]
            state["credentials"], state["params"], shared=state["shared"]
        )
        self._key = state["key"]
        self._hash = blake2b(key=self._key or _OF_THIS_PROCESS, digest_size=16)


def _has_body(found: dict[str, str]) -> bool:
    return not _BODY.isdisjoint(found) and found.get("content-length") != "0"


def _read(asked: Asked, found: dict[str, str]) -> None:
    control = found.get("cache-control")
    if control is not None:
        asked.said = directives(control)
    elif "no-cache" in found.get("pragma", "").lower():
        asked.said = directives("no-cache")
    asked.unanswerable = not _UNANSWERABLE.isdisjoint(found)
    conditions = {name: found[name] for name in _CONDITIONS if name in found}
    if conditions:
        asked.conditions = conditions


def _hashed(secret: bytes) -> bytes:
    return blake2b(secret, digest_size=32, person=b"ratekit.cache").digest()


def _normal_percent(match: re.Match[str]) -> str:
    char = chr(int(match[0][1:], 16))
    return char if char in _UNRESERVED else match[0].upper()
