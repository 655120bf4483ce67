"""What may be stored and for how long it is fresh (RFC 9111, 3 and 4.2; RFC 5861): pure functions.

Seconds throughout. `wall` is time since the epoch, for what a server dates by its own clock.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from ratekit.http.dates import parse_http_date
from ratekit.http.fields import FOREVER, Directives, age_of, listed

__all__ = ["Rules", "date_of", "fresh_for", "initial_age", "stored_headers", "why_not_stored"]

# RFC 9110, 15.1, without 206: no parts are kept.
_HEURISTIC = frozenset({200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501})
# Where a plain time to live holds: what is missing today may be there in a moment.
_LASTING = frozenset({200, 203, 204, 300, 301, 308})
# RFC 6585 forbids to store some of these; none is an answer to the question that was asked.
_NEVER = frozenset({206, 304, 408, 421, 425, 428, 429, 431, 511})
_FRACTION = 10
_LONGEST_GUESS = 86_400.0

# RFC 9110, 7.6.1, and RFC 9111, 3.1: they belong to one connection.
_HOP_BY_HOP = frozenset({
    "connection", "keep-alive", "proxy-authenticate", "proxy-authentication-info",
    "proxy-authorization", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Rules:
    """By which rules to store: a shared cache's or a private one's, and what the user knows.

    `ttl`: seconds that an answer is fresh where the server says nothing; with `override` also
    where it does.
    """

    shared: bool = False
    ttl: float | None = None
    override: bool = False


def why_not_stored(
    status: int,
    headers: Mapping[str, str],
    said: Directives,
    *,
    asked: Directives,
    rules: Rules,
    authorized: bool,
) -> str | None:
    """Return why a response must not be stored, in one word for `Cache-Status`; None if it may.

    `said`: its directives; `asked`: those of the request, whose method is one that is cached.
    `authorized`: whether the request named who asks.
    """
    barred = _barred(status, headers, asked)
    if barred is not None:
        return barred
    ttl = rules.ttl if status in _LASTING else None
    if rules.override and rules.ttl is not None:
        # To override the server is to know better for how long, and not for whom.
        apart = "authorization" if authorized else "private" if said.private else None
        return apart if rules.shared and apart else None if ttl else "ttl"
    forbidden = _forbidden(status, said, shared=rules.shared, authorized=authorized)
    if forbidden is None and rules.shared and "set-cookie" in headers and not said.public:
        # One caller's session is nobody else's.
        forbidden = "set-cookie"
    if forbidden is not None or _explicit(headers, said, shared=rules.shared):
        return forbidden
    if ttl is not None:
        return None if ttl else "ttl"
    if not (status in _HEURISTIC or said.public or (said.private and not rules.shared)):
        return "status"
    # Without a date or a tag nobody could ever say that it still holds.
    return None if "etag" in headers or "last-modified" in headers else "no-freshness"


def _barred(status: int, headers: Mapping[str, str], asked: Directives) -> str | None:
    """Return why no rule at all allows to store a response."""
    if status < 200 or status in _NEVER or (status >= 500 and status != 501):
        return "status"
    if "*" in listed(headers.get("vary")):
        return "vary"
    return "request-no-store" if asked.no_store else None


def _forbidden(status: int, said: Directives, *, shared: bool, authorized: bool) -> str | None:
    """Return why the server forbids to store a response (RFC 9111, 3; 3.5; 5.2.2)."""
    if said.must_understand:
        if status not in _HEURISTIC:
            return "must-understand"
    elif said.no_store:
        return "no-store"
    if not shared:
        return None
    if said.private:
        return "private"
    is_open = said.public or said.must_revalidate or said.s_maxage is not None
    return "authorization" if authorized and not is_open else None


def _explicit(headers: Mapping[str, str], said: Directives, *, shared: bool) -> bool:
    """Return whether the server itself says until when the response is fresh."""
    return (
        said.max_age is not None
        or (shared and said.s_maxage is not None)
        or headers.get("expires") is not None
    )


def fresh_for(
    status: int,
    headers: Mapping[str, str],
    said: Directives,
    *,
    rules: Rules,
    wall: float,
    age: float,
) -> float:
    """Return up to which age a response is fresh (RFC 9111, 4.2.1 and 4.2.2).

    `wall`: when it was received; `age`: how old it was then. A user's time to live begins there.
    """
    ttl = None if rules.ttl is None or status not in _LASTING else rules.ttl + age
    if rules.override and ttl is not None:
        return min(ttl, FOREVER)
    if rules.shared and said.s_maxage is not None:
        return said.s_maxage
    if said.max_age is not None:
        return said.max_age
    dated = date_of(headers, "date", wall)
    dated = wall if dated is None else dated
    if "expires" in headers:
        until = date_of(headers, "expires", wall)
        # What is no date has passed.
        return 0.0 if until is None else min(max(0.0, until - dated), FOREVER)
    if ttl is not None:
        return min(ttl, FOREVER)
    return _guess(status, headers, said, dated=dated, wall=wall)


def _guess(
    status: int, headers: Mapping[str, str], said: Directives, *, dated: float, wall: float
) -> float:
    """Return how long what has not changed for long will not change (RFC 9111, 4.2.2)."""
    modified = date_of(headers, "last-modified", wall)
    if modified is None or not (status in _HEURISTIC or said.public):
        return 0.0
    return min(max(0.0, dated - modified) / _FRACTION, _LONGEST_GUESS)


def initial_age(headers: Mapping[str, str], *, asked_wall: float, wall: float) -> float:
    """Return how old a response was when it was received (RFC 9111, 4.2.3)."""
    dated = date_of(headers, "date", wall)
    apparent = 0.0 if dated is None else max(0.0, wall - dated)
    return max(apparent, age_of(headers) + max(0.0, wall - asked_wall))


def date_of(headers: Mapping[str, str], name: str, wall: float) -> float | None:
    """Return the date that a field holds; None where it holds none."""
    text = headers.get(name)
    return None if text is None else parse_http_date(text, wall)


def stored_headers(pairs: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the fields that are kept: all but those of one connection (RFC 9111, 3.1)."""
    dropped = _HOP_BY_HOP
    for name, value in pairs:
        if name.lower() == "connection":
            dropped |= listed(value)
    return [(name, value) for name, value in pairs if name.lower() not in dropped]
