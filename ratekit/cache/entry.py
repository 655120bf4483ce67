"""What is kept of an answer, and whether it may be used again (RFC 9111, 4): pure functions.

Seconds throughout. An entry's instants are by the clock of the storage that keeps it.
"""

from dataclasses import dataclass, replace
from email.utils import formatdate

from ratekit.http.fields import FOREVER, Directives, directives
from ratekit.http.freshness import (
    Rules,
    date_of,
    fresh_for,
    initial_age,
    stored_headers,
)  # fmt: skip
from ratekit.http.reply import Reply

__all__ = ["Entry", "Grace", "entry_of", "fields_of", "freshened"]

# For how long an answer is kept beyond its freshness: it can be validated, a request may take what
# is stale, or ask for it while the server fails.
_KEPT = 86_400.0
# By how much the clocks of two hosts may differ before an entry is doubtful.
_AHEAD = 1.0
# A cookie is whoever's who asked, and not everybody's who is answered so.
_NOT_UPDATED = frozenset(
    {"content-length", "content-encoding", "content-range", "content-type", "set-cookie"}
)


@dataclass(frozen=True, slots=True)
class Grace:
    """For how long beyond its freshness an answer may be used, where the user allows it."""

    if_error: float = 0.0
    while_revalidate: float = 0.0


@dataclass(frozen=True, slots=True)
class Entry:
    """A kept answer. `age`: how old it was at `stored_at`; `fresh_for`: the age it is fresh up to.

    `always`: every use must be validated. `never_stale`: no use beyond freshness.
    """

    reply: Reply
    stored_at: float
    age: float
    fresh_for: float
    always: bool
    never_stale: bool
    if_error: float
    while_revalidate: float
    etag: str | None
    modified: str | None

    def age_at(self, now: float) -> float:
        """Return how old the answer is (RFC 9111, 4.2.3)."""
        resident = now - self.stored_at
        if resident < 0:
            # Written by a clock that is ahead of this one. By much: nobody knows how old it is.
            return self.age if resident > -_AHEAD else self.fresh_for + self.age + 1.0
        return self.age + resident

    def is_usable(self, age: float, asked: Directives) -> bool:
        """Return whether it may be used as it is (RFC 9111, 4.2 and 5.2.1)."""
        if self.always or asked.no_cache:
            return False
        if asked.max_age is not None and age > asked.max_age:
            return False
        left = self.fresh_for - age
        if left > 0:
            return asked.min_fresh is None or left >= asked.min_fresh
        return (
            asked.max_stale is not None
            and not self.never_stale
            and asked.min_fresh is None
            and -left <= asked.max_stale
        )

    def is_graced(self, age: float, asked: Directives, seconds: float) -> bool:
        """Return whether it may be used though it has been stale for up to so many seconds."""
        return (
            not (self.always or self.never_stale or asked.no_cache)
            and (asked.max_age is None or age <= asked.max_age)
            and asked.min_fresh is None
            and age - self.fresh_for <= seconds
        )

    def with_body(self, body: bytes) -> "Entry":
        """Return this entry with its body."""
        return replace(self, reply=self.reply.with_body(body))

    def conditions(self) -> dict[str, str]:
        """Return the fields that ask whether it is still the answer (RFC 9111, 4.3.1)."""
        fields = {}
        if self.etag is not None:
            fields["If-None-Match"] = self.etag
        if self.modified is not None:
            fields["If-Modified-Since"] = self.modified
        return fields

    def kept_for(self) -> float:
        """Return for how many seconds from `stored_at` it can be of use."""
        is_of_use = not self.never_stale or self.etag is not None or self.modified is not None
        longest = max(self.if_error, self.while_revalidate, _KEPT if is_of_use else 0.0)
        return max(0.0, self.fresh_for - self.age) + longest


def entry_of(
    reply: Reply,
    headers: dict[str, str],
    *,
    rules: Rules,
    grace: Grace,
    asked_wall: float,
    wall: float,
    now: float,
) -> Entry:
    """Return what is kept of an answer that may be stored; `headers` are its fields by name."""
    said = directives(headers.get("cache-control", ""))
    own = rules.override and rules.ttl is not None
    age = initial_age(headers, asked_wall=asked_wall, wall=wall)
    kept = stored_headers(reply.headers)
    if date_of(headers, "date", wall) is None:
        # RFC 9110, 6.6.1: who keeps an answer without a date gives it one.
        kept = [pair for pair in kept if pair[0].lower() != "date"]
        kept.append(("Date", formatdate(wall, usegmt=True)))
    kept = [pair for pair in kept if pair[0].lower() != "age"]
    return Entry(
        reply=Reply(reply.status, kept, reply.body, reason=reply.reason, version=reply.version),
        stored_at=now,
        age=min(age, FOREVER),
        fresh_for=fresh_for(reply.status, headers, said, rules=rules, wall=wall, age=age),
        always=said.no_cache and not own,
        never_stale=not own
        and (
            said.must_revalidate
            or (rules.shared and (said.proxy_revalidate or said.s_maxage is not None))
        ),
        if_error=max(grace.if_error, said.stale_if_error or 0),
        while_revalidate=max(grace.while_revalidate, said.stale_while_revalidate or 0),
        etag=headers.get("etag"),
        modified=headers.get("last-modified"),
    )


def freshened(
    entry: Entry,
    pairs: list[tuple[str, str]],
    *,
    rules: Rules,
    grace: Grace,
    asked_wall: float,
    wall: float,
    now: float,
) -> Entry:
    """Return the entry after a 304 with these fields (RFC 9111, 4.3.4 and 3.2)."""
    new = [pair for pair in stored_headers(pairs) if pair[0].lower() not in _NOT_UPDATED]
    # A 304 without a date is as old as it was received, whatever the answer before it said.
    names = {name.lower() for name, _ in new} | {"date"}
    old = entry.reply
    merged = [pair for pair in old.headers if pair[0].lower() not in names] + new
    reply = Reply(old.status, merged, old.body, reason=old.reason, version=old.version)
    return entry_of(
        reply,
        fields_of(merged),
        rules=rules,
        grace=grace,
        asked_wall=asked_wall,
        wall=wall,
        now=now,
    )


def fields_of(pairs: list[tuple[str, str]]) -> dict[str, str]:
    """Return fields by their names in lower case; what stands several times is joined."""
    fields: dict[str, str] = {}
    for name, value in pairs:
        low = name.lower()
        fields[low] = f"{fields[low]}, {value}" if low in fields else value
    return fields
