"""A key for each credential: the origin, and a keyed hash of what the request identifies itself by.

No secret is in a key, and none stays behind: hashing one takes less time than looking up what it
was hashed to before would, so there is no table of them.
"""

import os
import re
from collections.abc import Iterable, Iterator, Mapping

from ratekit.call import Call
from ratekit.errors import ConfigurationError
from ratekit.keys.function import KeyFunction, by_origin

__all__ = ["CREDENTIAL_HEADERS", "by_credential"]

CREDENTIAL_HEADERS = (
    "Authorization",
    # In general use.
    "Api-Key", "ApiKey", "X-Access-Token", "X-Api-Key", "X-Api-Token", "X-ApiKey", "X-Auth-Key",
    "X-Auth-Token",
    # Azure, Google, RapidAPI, GitLab, Shopify, Figma, Datadog, Vault, Riot, Brave, Meraki,
    # CoinMarketCap, Binance, Fastly, Postmark, Redmine.
    "Ocp-Apim-Subscription-Key", "X-Functions-Key", "X-Goog-Api-Key", "X-RapidAPI-Key",
    "Private-Token", "Job-Token", "Deploy-Token", "X-Shopify-Access-Token", "X-Figma-Token",
    "DD-API-KEY", "X-Vault-Token", "X-Riot-Token", "X-Subscription-Token",
    "X-Cisco-Meraki-API-Key", "X-CMC_PRO_API_KEY", "X-MBX-APIKEY", "Fastly-Key",
    "X-Postmark-Server-Token", "X-Redmine-API-Key",
)  # fmt: skip
"""The headers that `by_credential()` looks at."""

_SHORTEST_SECRET = 16
# Made once, when nobody has forked yet: a child finds the same keys as its parent.
_OF_THIS_PROCESS = os.urandom(32)

# Compiled by whoever first uses it, as is the other one.
_HEADER = r"[A-Za-z0-9_!#$%&'*+.^`|~-]+"

# Schemes of `Authorization` that send the same with every request. Of all others what changes with
# the request must not count: each would have a key, and so a limit, of its own.
_CONSTANT = (b"Basic ", b"Bearer ")
# They name nobody.
_NAMELESS = frozenset((b"kerberos", b"negotiate", b"ntlm"))
# `<who>:<signature>`.
_NAME_FIRST = frozenset((b"aws", b"obs", b"oss", b"qbox", b"sharedkey", b"sharedkeylite"))
# Parameters that name the caller: Digest (RFC 7616), AWS, OAuth 1 (RFC 5849), Hawk, Signature,
# EdgeGrid.
_NAMES = frozenset(
    b"username username* credential oauth_consumer_key oauth_token id keyid client_token"
    b" access_token".split()
)
# `name=value` and `name="value"`, from left to right, so that nothing is read inside of quotes.
_PARAMETER = rb'(?s)(?:^|(?<=[\s,;]))([\w*.-]++)\s*+=\s*+("(?:[^"\\]|\\.)*+"|[^\s,;"]*+)'
_LONGEST_READ = 4096


def by_credential(
    headers: str | Iterable[str] = CREDENTIAL_HEADERS,
    *,
    params: str | Iterable[str] = (),
    cookies: str | Iterable[str] = (),
    secret: bytes | None = None,
) -> KeyFunction:
    """Return a key function: every credential counts on its own, at each origin.

    `headers`, `params` (of the query) and `cookies` are names. Whatever of these a request has
    identifies it, all together; requests that have none share the key of their origin. Where
    `Authorization` is made anew for each request (Digest, AWS, OAuth 1, Hawk and their like) only
    what names the caller counts.

    `secret`: 16 random bytes or more, the same wherever the same keys are to be found. Without one
    they mean something only in this process and in those forked from it; `portable` is False.

    Raises `ConfigurationError` for what is no name, and for a secret that is none.
    """
    named = _names("headers", headers)
    if any(re.fullmatch(_HEADER, name) is None for name in named):
        raise _wrong_names("headers")
    if "cookie" in (name.lower() for name in named):
        raise ConfigurationError(
            "by_credential: Cookie holds much besides a credential; use cookies=['<its name>']"
        )
    chosen = named, _names("params", params), _names("cookies", cookies)
    if not any(chosen):
        raise ConfigurationError(
            "by_credential has nothing to look at; use by_origin to count by origin alone"
        )
    return _ByCredential(*chosen, _hash_key(secret))


class _ByCredential(KeyFunction):
    __slots__ = ("_hash", "_key", "_names", "_on_wire", "cookies", "headers", "params", "portable")

    def __init__(
        self,
        headers: tuple[str, ...],
        params: tuple[str, ...],
        cookies: tuple[str, ...],
        key: bytes | None,
    ) -> None:
        from hashlib import blake2b  # slow to import, and not every program needs it

        self.headers = headers
        self.params = params
        self.cookies = cookies
        self.portable = key is not None
        self._key = key
        self._hash = blake2b(key=_OF_THIS_PROCESS if key is None else key, digest_size=8)
        read = {name.lower() for name in headers}
        if cookies:
            read.add("cookie")
        self._names = {name: name.encode() for name in read}
        self._on_wire = frozenset(self._names.values())

    def __call__(self, call: Call) -> str:
        found = self._in_headers(call.headers)
        if self.params:
            found += self._in_query(call.url)
        if not found:
            return by_origin(call)
        # In whatever order they were sent; with its length no value can pass for two.
        found.sort()
        hashed = self._hash.copy()
        for name, value in found:
            hashed.update(b"%b\0%d\0%b" % (name, len(value), value))
        return f"{by_origin(call)} {hashed.hexdigest()}"

    def _in_headers(self, headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
        """Return what identifies the caller, each with whence it is, as it goes over the wire."""
        # httpx's headers give all pairs at once; one at a time they take several times as long.
        raw = getattr(headers, "raw", None)
        if isinstance(raw, list):
            on_wire = self._on_wire
            pairs = [(low, value) for name, value in raw if (low := name.lower()) in on_wire]
        else:
            names = self._names
            pairs = [
                (low, _bytes(headers[name]))
                for name in headers
                if (low := names.get(name.lower())) is not None
            ]
        found: list[tuple[bytes, bytes]] = []
        for name, value in pairs:
            if name == b"cookie":
                found += self._in_cookies(value.decode("latin-1"))
            elif given := value.strip():
                found.append((name, _who(given) if name == b"authorization" else given))
        return found

    def _in_cookies(self, text: str) -> Iterator[tuple[bytes, bytes]]:
        for cookie in text.split(";"):
            name, _, value = cookie.strip().partition("=")
            if value and name in self.cookies:
                yield _bytes(f"cookie {name}"), _bytes(value)

    def _in_query(self, url: str) -> Iterator[tuple[bytes, bytes]]:
        query = url.partition("#")[0].partition("?")[2]
        unquoted = _unquote if "%" in query or "+" in query else str
        for pair in query.split("&"):
            name, _, value = pair.partition("=")
            if value and unquoted(name) in self.params:
                yield _bytes(f"?{unquoted(name)}"), _bytes(unquoted(value))

    def __repr__(self) -> str:
        # Names only.
        said = [] if self.headers == CREDENTIAL_HEADERS else [f"headers={list(self.headers)}"]
        said += [f"params={list(self.params)}"] if self.params else []
        said += [f"cookies={list(self.cookies)}"] if self.cookies else []
        said += ["secret=..."] if self.portable else []
        return f"by_credential({', '.join(said)})"

    def __reduce__(self) -> tuple[object, ...]:
        # Of a user's secret only the key that was made from it travels: it finds the same keys and
        # is good for nothing else. Without a secret nothing travels: in another process the keys
        # are that one's own, as `portable` says.
        return type(self), (self.headers, self.params, self.cookies, self._key)


def _who(value: bytes) -> bytes:
    """Return that part of `Authorization` which is the same with every request of a caller."""
    if value.startswith(_CONSTANT):
        return value
    scheme, _, rest = value.partition(b" ")
    name = scheme.lower()
    if not rest:
        return value
    if name in _NAMELESS:
        return name
    if name in _NAME_FIRST:
        return name + b" " + rest.partition(b":")[0]
    named = sorted(
        # A credential of AWS goes on with the day and the service.
        (known, given.partition(b"/")[0] if known == b"credential" else given.strip(b'"'))
        for parameter, given in re.findall(_PARAMETER, rest[:_LONGEST_READ])
        if (known := parameter.lower()) in _NAMES
    )
    # Whole where nothing in it is known; the scheme in one spelling.
    return name + b" " + repr(named).encode() if named else name.capitalize() + b" " + rest


def _unquote(text: str) -> str:
    from urllib.parse import unquote_plus  # slow to import, and seldom needed

    return unquote_plus(text, errors="surrogateescape")


def _bytes(text: str | bytes) -> bytes:
    """Return what goes over the wire; requests takes bytes for a header's value as they are."""
    if isinstance(text, bytes):
        return text
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")


def _names(what: str, given: object) -> tuple[str, ...]:
    if isinstance(given, str):
        given = (given,)
    names = tuple(given) if isinstance(given, Iterable) else (given,)
    if not all(isinstance(name, str) and name for name in names):
        raise _wrong_names(what)
    return names


def _wrong_names(what: str) -> ConfigurationError:
    # Without what was given: it may be the secret itself.
    return ConfigurationError(
        f"by_credential: {what} holds what is no name; use the names of {what}, not their values, "
        "as in key_of=by_credential(['X-Api-Key'], params=['api_key'])"
    )


def _hash_key(secret: bytes | None) -> bytes | None:
    if secret is None:
        return None
    if not isinstance(secret, bytes) or len(secret) < _SHORTEST_SECRET:
        raise ConfigurationError(
            f"by_credential: the secret is too short or not bytes; use {_SHORTEST_SECRET} random "
            "bytes or more, such as those of secrets.token_bytes(32), the same in all processes"
        )
    from hashlib import blake2b  # slow to import, and not every program needs it

    return blake2b(secret, digest_size=32, person=b"ratekit.keys").digest()
