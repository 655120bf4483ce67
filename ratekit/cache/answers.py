"""The answers that a cache gives: what is kept, made native, with what became of the call.

(RFC 9211: `Cache-Status`.)
"""

from collections.abc import Mapping
from typing import Any

from ratekit.cache.entry import Entry
from ratekit.cache.identity import Asked
from ratekit.call import Call, Outcome
from ratekit.http.dates import parse_http_date
from ratekit.http.fields import is_listed
from ratekit.http.reply import Reply

__all__ = ["answer", "hit", "nothing_kept", "say"]

_OF_A_BODY = frozenset({"content-length", "content-encoding", "content-type", "content-range"})


def hit(call: Call, asked: Asked, entry: Entry, age: float, detail: str = "") -> Outcome:
    """Return what is kept, so many seconds old."""
    reply = entry.reply
    conditions = asked.conditions
    if conditions is not None and _is_known(conditions, entry):
        reply = _not_modified(reply)
    left = int((entry.fresh_for - age) // 1)
    return answer(call, reply, age, f"ratekit; hit; ttl={left}{detail}")


def answer(call: Call, reply: Reply, age: float, status: str) -> Outcome:
    """Return a kept answer in the caller's own library."""
    call.from_cache = True
    outcome = _native(call, reply, [("Cache-Status", status), ("Age", str(int(age)))])
    outcome.from_cache = True
    return outcome


def nothing_kept(call: Call, status: str) -> Outcome:
    """Return the 504 of a cache that may not ask (RFC 9111, 5.2.1.7)."""
    fields = [("Content-Type", "text/plain"), ("Content-Length", "0")]
    reply = Reply(504, fields, b"", reason="Gateway Timeout")
    return _native(call, reply, [("Cache-Status", status)])


def _native(call: Call, reply: Reply, more: list[tuple[str, str]]) -> Outcome:
    if call.respond is None:
        raise TypeError("a call without a native library has no native answer")
    return call.respond(reply, more)


def say(outcome: Outcome, what: str) -> Outcome:
    """Add to `Cache-Status` what this cache did."""
    headers: Any = outcome.headers  # a native answer's own fields can be changed
    before = headers.get("cache-status")
    headers["Cache-Status"] = f"{before}, ratekit; {what}" if before else f"ratekit; {what}"
    return outcome


def _is_known(conditions: Mapping[str, str], entry: Entry) -> bool:
    """Return whether the user has this answer already, by his own conditions (RFC 9110, 13.2.2)."""
    if entry.reply.status != 200:
        return False
    known = conditions.get("if-none-match")
    if known is not None:
        return is_listed(entry.etag, known)
    since = parse_http_date(conditions["if-modified-since"], 0.0)
    modified = None if entry.modified is None else parse_http_date(entry.modified, 0.0)
    return since is not None and modified is not None and modified <= since


def _not_modified(reply: Reply) -> Reply:
    """Return a 304 in the place of an answer (RFC 9110, 15.4.5)."""
    kept = [pair for pair in reply.headers if pair[0].lower() not in _OF_A_BODY]
    return Reply(304, kept, b"", reason="Not Modified", version=reply.version)
