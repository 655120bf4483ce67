"""The header fields that decide about caching, parsed strictly (RFC 9111, 5; RFC 9110, 8.8).

Nothing here raises, whatever a server sends; and what is doubtful is read so that less is reused.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

__all__ = [
    "FOREVER",
    "NOTHING",
    "Directives",
    "age_of",
    "directives",
    "is_listed",
    "listed",
    "opaque",
]

FOREVER = 1 << 31
"""Seconds. Larger numbers are taken for this one (RFC 9111, 1.2.2)."""

_LONGEST = 4096
_PIECE = re.compile(r'(?:[^,"]++|"(?:[^"\\]|\\.)*+")++')
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*+"')
_ETAG = re.compile(r'(?:W/)?"[^"\x00-\x20\x7f]*"')


@dataclass(frozen=True, slots=True)
class Directives:
    """What a `Cache-Control` says; of a request or of a response. Numbers are seconds.

    A number that is none counts as 0 where it would allow reuse and is left out where it would
    extend it. Of two the stricter one holds.
    """

    no_store: bool = False
    no_cache: bool = False
    private: bool = False
    public: bool = False
    must_revalidate: bool = False
    proxy_revalidate: bool = False
    must_understand: bool = False
    only_if_cached: bool = False
    max_age: int | None = None
    s_maxage: int | None = None
    min_fresh: int | None = None
    max_stale: int | None = None
    stale_if_error: int | None = None
    stale_while_revalidate: int | None = None


NOTHING = Directives()
_DOUBTFUL = Directives(no_store=True, no_cache=True)
_FLAGS = frozenset(
    [
        "no_store",
        "no_cache",
        "private",
        "public",
        "must_revalidate",
        "proxy_revalidate",
        "must_understand",
        "only_if_cached",
    ]
)
# What is assumed of a number that is none; None: the directive was not there.
_NUMBERS: dict[str, int | None] = {
    "max_age": 0,
    "s_maxage": 0,
    "min_fresh": FOREVER,
    "max_stale": None,
    "stale_if_error": None,
    "stale_while_revalidate": None,
}


@lru_cache(maxsize=512)
def directives(text: str) -> Directives:
    """Return what a `Cache-Control` field says."""
    if not text:
        return NOTHING
    if len(text) > _LONGEST or '"' in _QUOTED.sub("", text):
        # A quote that does not end: what stands behind it may forbid what stands before it.
        return _DOUBTFUL
    said: dict[str, int | bool] = {}
    for piece in _PIECE.findall(text):
        name, equals, value = piece.partition("=")
        name = name.strip().lower().replace("-", "_")
        if name in _FLAGS:
            # With or without the names of fields: leaving out only those would be allowed, too.
            said[name] = True
        elif name in _NUMBERS:
            number = _seconds(value) if equals else None
            if number is None:
                number = FOREVER if name == "max_stale" and not equals else _NUMBERS[name]
            if number is not None:
                strict = max if name == "min_fresh" else min
                said[name] = strict(number, said.get(name, number))
    return Directives(**said)  # type: ignore[arg-type]


def _seconds(text: str) -> int | None:
    """Return delta-seconds (RFC 9111, 1.2.2), in quotes or not."""
    if len(text) > 1 and text[0] == text[-1] == '"':
        text = text[1:-1]
    text = text.rstrip(" \t")
    if not text.isascii() or not text.isdigit():
        return None
    return FOREVER if len(text) > 10 else min(int(text), FOREVER)


def age_of(headers: Mapping[str, str]) -> int:
    """Return the `Age` of a response in seconds; 0 where it has none, or none that is one."""
    text = headers.get("age")
    if not text:
        return 0
    # Of several the first counts (RFC 9111, 5.1).
    return _seconds(text.partition(",")[0].strip(" \t")) or 0


def listed(text: str | None) -> frozenset[str]:
    """Return the names in a field that lists some, in lower case: `Vary`, `Connection`."""
    if not text:
        return frozenset()
    return frozenset(name for part in text.split(",") if (name := part.strip(" \t").lower()))


def opaque(etag: str | None) -> str | None:
    """Return an entity tag without its weakness: what a weak comparison compares."""
    if etag is None or _ETAG.fullmatch(etag) is None:
        return None
    return etag.removeprefix("W/")


def is_listed(etag: str | None, text: str) -> bool:
    """Return whether an `If-None-Match` names this entity tag, by the weak comparison."""
    if text.strip(" \t") == "*":
        return True
    mine = opaque(etag)
    return mine is not None and mine in map(opaque, _ETAG.findall(text[:_LONGEST]))
