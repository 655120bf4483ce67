"""Requests as a cache sees them, made of a URL and some fields."""

from collections.abc import Mapping
from typing import Any

import httpx
import pytest
from requests.structures import CaseInsensitiveDict

from ratekit.cache.identity import Asked, Identity
from ratekit.call import Call
from ratekit.http.origin import origin_of

__all__ = ["OF_BOTH", "ORIGIN", "PLAIN", "asked", "described", "key"]

ORIGIN = "https://api.example.com"
PLAIN = Identity()
OF_BOTH = pytest.mark.parametrize("kind", [CaseInsensitiveDict, httpx.Headers], ids=["dict", "raw"])


def described(
    url: str = "/a",
    headers: Mapping[str, str | bytes] | None = None,
    *,
    identity: Identity = PLAIN,
    kind: Any = CaseInsensitiveDict,
    method: str = "GET",
    body: bytes | None = None,
    tls: str | None = None,
    **arguments: Any,
) -> Asked | None:
    """Return a request to a path or a URL as the cache sees it, or None."""
    whole = ORIGIN + url if url.startswith("/") else url
    fields: Any = kind(headers or {})
    call = Call(method, whole, fields, key=origin_of(whole), body=lambda: body)
    call.tls = tls
    return identity.describe(call, method, **arguments)


def asked(
    url: str = "/a", headers: Mapping[str, str | bytes] | None = None, **others: Any
) -> Asked:
    """Return the same where it says enough."""
    found = described(url, headers, **others)
    assert found is not None
    return found


def key(url: str = "/a", headers: Mapping[str, str | bytes] | None = None, **others: Any) -> str:
    """Return all that an answer is kept under, where it varies by two fields."""
    found = asked(url, headers, **others)
    return f"{found.url} {found.variant(('accept', 'x-plain'))}"
