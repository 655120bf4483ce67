"""What a few services say of their limits in the body of an answer: `read_body`.

A body is the caller's: reading it means keeping it, so nothing does unless it was asked to. The
words that a hint cannot do without are looked for first, and a body without them is not parsed.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from ratekit.quota.times import Receipt, sane, seconds_in
from ratekit.quota.values import Quota, amount

__all__ = ["NO_HINT", "BodyHint", "read_body"]

# A longer body is not read: no answer whose purpose is to refuse is.
_LONGEST = 256 * 1024
_MOST = 16

_WORDS = (
    b"RATE_LIMIT",
    b"THROTTLED",
    b"throttleStatus",
    b"RetryInfo",
    b"RESOURCE_EXHAUSTED",
    b"ateLimitExceeded",
    b"retry_after",
    b"http-problem-types#",
)


@dataclass(frozen=True, slots=True)
class BodyHint:
    """What a body says: whether the request was throttled, the wait in seconds, and the windows."""

    throttled: bool
    retry_after: float | None = None
    quotas: tuple[Quota, ...] = ()


NO_HINT = BodyHint(throttled=False)


def read_body(status: int, body: bytes) -> BodyHint | None:
    """Return what a decoded JSON body says of limits, None where it says nothing. Never raises.

    Read are GraphQL errors (GitHub's `RATE_LIMITED`, Shopify's `THROTTLED`, both with status 200),
    Shopify's `throttleStatus`, Google's `RetryInfo` and `RESOURCE_EXHAUSTED`, Discord's
    `retry_after`, and the problem types of the `RateLimit` draft. Bodies of more than 256 KiB are
    not read.
    """
    if len(body) > _LONGEST or not any(word in body for word in _WORDS):
        return None
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if isinstance(said, list) and said:
        said = said[0]  # Google's answer to a stream
    if not isinstance(said, dict):
        return None
    for read in _READERS:
        hint = read(status, said)
        if hint is not None:
            return hint
    return None


def _graphql(_status: int, said: dict[str, Any]) -> BodyHint | None:
    throttled = any(
        error.get("type") in _GRAPHQL_REFUSALS
        or _table(error, "extensions").get("code") in _GRAPHQL_REFUSALS
        for error in _tables(said.get("errors"))
    )
    cost = _table(said, "extensions", "cost")
    bucket = _table(cost, "throttleStatus")
    most, left = _number(bucket, "maximumAvailable"), _number(bucket, "currentlyAvailable")
    rate = _number(bucket, "restoreRate")
    if most is None or left is None:
        return BodyHint(throttled) if throttled else None
    wait = None
    wanted = _number(cost, "requestedQueryCost")
    if throttled and rate and wanted is not None:
        wait = sane(max(0.0, wanted - left) / rate)
    quota = Quota(
        int(most),
        left,
        sane(max(0.0, most - left) / rate) if rate else None,
        sane(most / rate) if rate else None,
        unit="points",
    )
    return BodyHint(throttled, wait, (quota,))


# GitHub, Shopify. Lists do not hash, so what a body says is compared and not looked up.
_GRAPHQL_REFUSALS = ("RATE_LIMITED", "RATE_LIMIT", "THROTTLED")


def _google(_status: int, said: dict[str, Any]) -> BodyHint | None:
    error = _table(said, "error")
    throttled = error.get("status") == "RESOURCE_EXHAUSTED" or any(
        reason.get("reason") in _GOOGLE_REFUSALS for reason in _tables(error.get("errors"))
    )
    wait = None
    for detail in _tables(error.get("details")):
        kind, delay = detail.get("@type"), detail.get("retryDelay")
        if isinstance(kind, str) and kind.endswith("google.rpc.RetryInfo"):
            # A protobuf Duration in JSON: "34s", "0.5s".
            wait = _duration(delay) if isinstance(delay, str) else None
    return BodyHint(throttled, wait) if throttled or wait is not None else None


_GOOGLE_REFUSALS = ("rateLimitExceeded", "userRateLimitExceeded", "dailyLimitExceeded")


def _duration(text: str) -> float | None:
    # Without a header there is no `Date` to measure from; a duration needs none.
    return sane(seconds_in(text, Receipt({}, 0.0))) if text.endswith("s") else None


def _discord(status: int, said: dict[str, Any]) -> BodyHint | None:
    wait = sane(_number(said, "retry_after"))
    if status < 400 or wait is None:
        return None
    everywhere = said.get("global") is True
    return BodyHint(
        throttled=True,
        retry_after=wait,
        quotas=(Quota(None, 0.0, wait, scope="global"),) if everywhere else (),
    )


def _problem(status: int, said: dict[str, Any]) -> BodyHint | None:
    kind = said.get("type")
    if not isinstance(kind, str) or status < 400:
        return None
    _, mark, kind = kind.rpartition("http-problem-types#")
    if not mark or kind not in _PROBLEMS:
        return None
    violated = said.get("violated-policies")
    policies = violated if isinstance(violated, list) else []
    names = [name for name in policies if isinstance(name, str)]
    return BodyHint(
        throttled=True,
        quotas=tuple(Quota(None, 0.0, name=name) for name in names[:_MOST])
        if kind == "quota-exceeded"
        else (),
    )


_PROBLEMS = ("quota-exceeded", "temporary-reduced-capacity", "abnormal-usage-detected")

_READERS: tuple[Callable[[int, dict[str, Any]], BodyHint | None], ...] = (
    _graphql,
    _google,
    _discord,
    _problem,
)


def _table(said: dict[str, Any], *names: str) -> dict[str, Any]:
    for name in names:
        inner = said.get(name)
        if not isinstance(inner, dict):
            return {}
        said = inner
    return said


def _tables(said: object) -> Iterator[dict[str, Any]]:
    if isinstance(said, list):
        yield from (inner for inner in said[:_MOST] if isinstance(inner, dict))


def _number(said: dict[str, Any], name: str) -> float | None:
    number = said.get(name)
    if isinstance(number, bool) or not isinstance(number, int | float):
        return None
    # The same bounds as in a header, also for a number that no float can hold.
    return amount(format(number, ".6f" if isinstance(number, float) else "d"))
