"""Whose headers say what: one row for each family of names, one short reader for each form.

A row matches a header's name. What it calls `dimension` tells one window from another (requests,
tokens, an endpoint), `slot` which of the window's numbers the header holds. The headers of one
family and dimension are read together.
"""

import re
from collections.abc import Callable, Iterator
from functools import lru_cache

from ratekit.quota.fields import items, ratelimit
from ratekit.quota.times import Receipt, reset_in
from ratekit.quota.values import Quota, amount, limit_of

__all__ = ["Reader", "place_of"]

Reader = Callable[[dict[str, str], str, Receipt], Iterator[Quota]]
"""Reads the values of one window by slot, given its dimension."""

_DAY = 86_400.0
_QUARTER = 900.0

# The length of a window that is called so (Kong; HubSpot).
_PERIODS = {
    "second": 1.0,
    "secondly": 1.0,
    "minute": 60.0,
    "hour": 3600.0,
    "day": _DAY,
    "daily": _DAY,
}

# One name for what is called differently.
_SLOTS = {
    "observed": "used",  # GitLab
    "usage": "used",  # Strava
    "max": "limit",  # HubSpot
    "resettime": "next",  # GitLab
}


def _counters(said: dict[str, str], dimension: str, at: Receipt) -> Iterator[Quota]:
    """Yield the window of `-limit`, `-remaining` and `-reset`, in all spellings and units."""
    limit_said = said.get("limit", "")
    if "," in limit_said or ";" in limit_said:
        yield from _several(said, dimension, at)
        return
    limit, used = limit_of(limit_said), amount(said.get("used"))
    left = amount(said.get("remaining"))
    if left is None and limit is not None and used is not None:
        left = max(0.0, limit - used)
    elif limit is None and left is not None and used is not None:
        limit = round(left + used)  # Reddit
    scope = _scope(said) if "scope" in said or "global" in said else ""
    if limit is None and left is None:
        # Discord's global limit has no counters, and is named only when it is exhausted.
        if scope != "global":
            return
        left = 0.0
    yield Quota(
        limit,
        left,
        _reset(said, at),
        _window(said, dimension, limit),
        said.get("bucket") or said.get("resource") or said.get("name") or dimension,
        None,
        "tokens" if "token" in dimension else "requests",
        scope,
    )


def _scope(said: dict[str, str]) -> str:
    scope = "global" if said.get("global", "").lower() == "true" else said.get("scope", "").lower()
    return scope if scope in {"global", "shared", "user"} else ""


def _reset(said: dict[str, str], at: Receipt) -> float | None:
    # Discord's seconds are finer than its instant; Akamai says only when the next one is due.
    for slot in ("reset-after", "reset", "next"):
        if slot in said:
            seconds = reset_in(said[slot], at)
            if seconds is not None:
                return seconds
    # Prisjakt counts milliseconds and looks like everybody else: only who asks for it gets it.
    return reset_in(said["reset-ms"], at, milliseconds=True) if "reset-ms" in said else None


def _window(said: dict[str, str], dimension: str, limit: int | None) -> float | None:
    interval = amount(said.get("interval-seconds"))
    if interval is None:
        milliseconds = amount(said.get("interval-milliseconds"))
        if milliseconds is None:
            return _PERIODS.get(dimension)
        interval = milliseconds / 1000
    # Atlassian Data Center fills up so much in each interval, not the whole.
    filled = amount(said.get("fillrate"))
    return interval * limit / filled if filled and limit else interval or None


def _several(said: dict[str, str], dimension: str, at: Receipt) -> Iterator[Quota]:
    """Yield the windows of one header: `100, 100;w=60`, or pairs that belong by their places."""
    limits = items(said["limit"])
    if any(parameters for _, _, parameters in limits):
        # The first drafts: the counters are the first one's, which may stand there twice.
        first, *rest = ((limit_of(value), amount(more.get("w"))) for _, value, more in limits)
        limit, window = first
        if window is None and rest and rest[0][0] == limit:
            window = rest.pop(0)[1]
        yield Quota(limit, amount(said.get("remaining")), _reset(said, at), window, dimension)
        for limit, window in rest:
            if limit is not None:
                yield Quota(limit, None, None, window, dimension)
        return
    lefts, useds = _numbers(said.get("remaining")), _numbers(said.get("used"))
    reset = said.get("reset")
    resets = [] if reset is None else reset.split(",")
    # Strava's two windows are fixed, and begin with the clock's quarter and with the day in UTC.
    lengths = (_QUARTER, _DAY) if len(useds) == 2 and not lefts and not resets else ()
    for place, (_, value, _) in enumerate(limits):
        limit, left = limit_of(value), _at(lefts, place)
        if left is None and limit is not None and (used := _at(useds, place)) is not None:
            left = max(0.0, limit - used)
        if limit is None and left is None:
            continue
        length = lengths[place] if place < len(lengths) else None
        seconds = reset_in(resets[place], at) if place < len(resets) else None
        yield Quota(
            limit,
            left,
            length - at.sent % length if length else seconds,
            length,
            "-".join(filter(None, (dimension, ("quarter-hour", "day")[place] if length else ""))),
        )


def _numbers(text: str | None) -> list[float | None]:
    return [] if text is None else [amount(number) for number in text.split(",")]


def _at(numbers: list[float | None], place: int) -> float | None:
    return numbers[place] if place < len(numbers) else None


def _zendesk(said: dict[str, str], dimension: str, at: Receipt) -> Iterator[Quota]:
    """Yield an endpoint's window: `total=100; remaining=99; resets=41`."""
    numbers = dict(_PAIRS.findall(said["limit"]))
    limit, left = limit_of(numbers.get("total")), amount(numbers.get("remaining"))
    if limit is not None or left is not None:
        yield Quota(limit, left, reset_in(numbers.get("resets", ""), at), None, dimension)


_PAIRS = re.compile(r"([a-z-]+)=([^\s;,]+)", re.ASCII | re.IGNORECASE)


def _shopify(said: dict[str, str], _dimension: str, _at: Receipt) -> Iterator[Quota]:
    """Yield the bucket of `32/40`: whatever its size, it leaks empty in 20 seconds."""
    used, _, most = said["limit"].partition("/")
    yield from _used(used, most, 20.0, "", None)


def _salesforce(said: dict[str, str], _dimension: str, _at: Receipt) -> Iterator[Quota]:
    """Yield `api-usage=10018/100000` and its kin; usage is that of the last 24 hours."""
    for name, used, most, app in _SALESFORCE.findall(said["limit"]):
        yield from _used(used, most, _DAY if name.endswith("usage") else None, name, app or None)


_SALESFORCE = re.compile(r"([a-z-]+)=(\d+)/(\d+)(?:\(appName=([^)]*)\))?", re.ASCII)


def _used(
    used: str, most: str, window: float | None, name: str, partition: str | None
) -> Iterator[Quota]:
    limit, number = limit_of(most), amount(used)
    if limit is not None and number is not None:
        yield Quota(limit, max(0.0, limit - number), None, window, name, partition)


def _azure(said: dict[str, str], dimension: str, _at: Receipt) -> Iterator[Quota]:
    """Yield what is left, of a subscription (`11999`) or of several resources (`name;n,name;n`)."""
    for part in said["remaining"].split(","):
        name, _, number = part.rpartition(";")
        left = amount(number)
        if left is not None:
            minutes = _MINUTES.search(name)
            window = float(minutes[1]) * 60 if minutes else None
            yield Quota(None, left, None, window, name.strip() or dimension)


_MINUTES = re.compile(r"(\d{1,4})Min$", re.ASCII)


def _riot(said: dict[str, str], dimension: str, _at: Receipt) -> Iterator[Quota]:
    """Yield the windows of `10:10,100:120`, less what `-count` says of each length."""
    counts = {window: used for used, window in _RIOT.findall(said.get("-count", ""))}
    for most, window in _RIOT.findall(said.get("limit", "")):
        limit, length, used = limit_of(most), amount(window), amount(counts.get(window))
        if limit is not None:
            left = None if used is None else max(0.0, limit - used)
            yield Quota(limit, left, None, length, dimension)


_RIOT = re.compile(r"(\d+):(\d+)", re.ASCII)

_COUNTERS = (
    r"(?:x-)?(?:sib-)?(?P<before>read)?rate-?limit(?:-(?P<dimension>[a-z0-9_-]+?))??"
    r"-(?P<slot>limit|remaining|used|usage|observed|reset-after|resettime|reset|next"
    r"|bucket|resource|name|global|scope|interval-seconds|fillrate)"
    r"(?:-(?P<after>[a-z0-9_-]+))?"
)

_ROWS: tuple[tuple[re.Pattern[str], Reader], ...] = tuple(
    (re.compile(pattern, re.ASCII), reader)
    for pattern, reader in (
        # The standard from draft-07 on: Cloudflare, Hugging Face, express-rate-limit.
        (r"ratelimit(?:-(?P<slot>policy))?", ratelimit),
        # The drafts before it, and the many that it was made from: GitHub, GitLab, Twitch, X,
        # Reddit, Discord, OpenAI and Azure OpenAI (`-requests`), Kong (`-minute`), Atlassian,
        # Strava (`x-readratelimit-`), Brevo (`x-sib-`), Akamai (`-next`), Zendesk, Pexels.
        (_COUNTERS, _counters),
        (r"x-rate-limit", _counters),  # Zendesk: the limit under a bare name
        (
            r"anthropic-ratelimit-(?P<dimension>[a-z0-9-]+)-(?P<slot>limit|remaining|reset)",
            _counters,
        ),
        (
            r"x-hubspot-ratelimit-(?P<dimension>daily|secondly)(?:-(?P<slot>remaining))?",
            _counters,
        ),
        (r"x-hubspot-ratelimit-(?P<slot>max|remaining|interval-milliseconds)", _counters),
        (r"zendesk-ratelimit-(?P<dimension>[a-z0-9-]+)", _zendesk),
        (r"x-shopify-shop-api-call-limit", _shopify),
        (r"sforce-limit-info", _salesforce),
        (
            r"x-ms-ratelimit-(?P<slot>remaining)-(?P<dimension>[a-z0-9-]+)",
            _azure,
        ),
        (r"x-(?P<dimension>app|method|service)-rate-limit(?P<slot>-count)?", _riot),
    )
)

# Headers that are one family under two spellings would be two windows: the family's name is what
# stands before the dimension. Zendesk's bare name belongs to its longer ones.
_FAMILY = re.compile(r"[a-z-]*?rate-?limit", re.ASCII)


@lru_cache(maxsize=512)
def place_of(name: str) -> tuple[tuple[Reader, str, str], str] | None:
    """Return the window that the header `name` (small letters) tells of, and its slot in it.

    The window is its reader, its family and its dimension. None where no row matches.
    """
    for pattern, reader in _ROWS:
        match = pattern.fullmatch(name)
        if match is not None:
            parts = match.groupdict()
            given = (parts.get("before"), parts.get("dimension"), parts.get("after"))
            family = _FAMILY.match(name)
            window = (reader, family[0] if family else "", "-".join(filter(None, given)))
            slot = parts.get("slot") or ("" if reader is ratelimit else "limit")
            return window, _SLOTS.get(slot, slot)
    return None
