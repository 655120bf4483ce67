"""The origin of a URL: scheme, host and port (RFC 9110, 4.3.1)."""

import functools
import re

__all__ = ["origin_of"]

_AUTHORITY = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(?:[^/?#\\]*@)?([^/?#\\]*)")
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}


def origin_of(url: str) -> str:
    """Return scheme, host and port of a URL, without the port that the scheme implies."""
    # Up to the path: so the few origins that a program talks to are read once each.
    end = url.find("/", 8)
    return _origin_of(url if end < 0 else url[:end])


@functools.lru_cache(maxsize=256)
def _origin_of(url: str) -> str:
    match = _AUTHORITY.match(url)
    if match is None:
        return ""
    scheme, host = match[1].lower(), match[2].lower()
    return f"{scheme}://{host.removesuffix(_DEFAULT_PORTS.get(scheme, ':'))}"
