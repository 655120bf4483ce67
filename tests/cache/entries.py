"""Entries to tell of what is kept: made of an answer that came at `NOW`."""

from email.utils import formatdate
from typing import Any

from ratekit.cache.entry import Entry, Grace, entry_of, fields_of, freshened
from ratekit.http.freshness import Rules
from ratekit.http.reply import Reply

__all__ = ["DAY", "ETAG", "NONE", "NOW", "PRIVATE", "SHARED", "WALL", "date", "kept", "renewed"]

WALL = 1_700_000_000.0
NOW = 50.0
DAY = 86_400.0
PRIVATE = Rules()
SHARED = Rules(shared=True)
NONE = Grace()
ETAG = {"etag": '"a"'}


def date(seconds: float = 0.0) -> str:
    """Return the HTTP-date so many seconds from when the answer was received."""
    return formatdate(WALL + seconds, usegmt=True)


def pairs_of(fields: dict[str, Any]) -> list[tuple[str, str]]:
    """Return fields by their names on the wire: `cache_control` is Cache-Control."""
    return [(name.replace("_", "-").title(), value) for name, value in fields.items()]


def kept(
    control: str = "",
    *,
    status: int = 200,
    rules: Rules = PRIVATE,
    grace: Grace = NONE,
    took: float = 0.0,
    **fields: str,
) -> Entry:
    """Return what is kept of an answer that was `took` seconds on its way, and came at `NOW`."""
    pairs = pairs_of({**fields, **({"cache_control": control} if control else {})})
    return entry_of(
        Reply(status, pairs, b"body", reason="Fine", version=20),
        fields_of(pairs),
        rules=rules,
        grace=grace,
        asked_wall=WALL - took,
        wall=WALL,
        now=NOW,
    )


def renewed(
    entry: Entry, *, after: float = 0.0, rules: Rules = PRIVATE, grace: Grace = NONE, **fields: str
) -> Entry:
    """Return the entry after a 304 with these fields, received `after` seconds later."""
    return freshened(
        entry,
        pairs_of(fields),
        rules=rules,
        grace=grace,
        asked_wall=WALL + after,
        wall=WALL + after,
        now=NOW + after,
    )
