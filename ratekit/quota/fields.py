r"""`RateLimit` and `RateLimit-Policy`, in every draft of the standard and leniently beside it.

The newest drafts (draft-ietf-httpapi-ratelimit-headers-08 and later) send lists of structured
fields (RFC 9651), `"burst";q=100;w=60`; draft-07 a dictionary, `limit=100, remaining=50, reset=5`;
the first ones a number with parameters, `100;w=60`. They are all pieces between `,` and `;`, and
one expression reads them. A parser of the RFC takes longer for these two fields than the whole
answer may, and refuses what servers really send: `"fixed window";"api";q=500;w=300`.
"""

import re
from collections.abc import Iterator
from functools import lru_cache

from ratekit.quota.times import Receipt, reset_in
from ratekit.quota.values import Quota, amount, limit_of

__all__ = ["Item", "items", "ratelimit"]

Item = tuple[str, str, dict[str, str]]
"""Its key in a dictionary or "", what it is called, its parameters."""

_PIECE = re.compile(
    r"""[ \t]*+(?P<before>[;,]?)[ \t]*+
    (?:(?P<key>[a-z*][\w.*-]*+)=)?+
    (?P<value>"(?:[^"\\]|\\.)*+"|:[a-z0-9+/=]*+:|[^\s;,="]*+)[ \t]*+""",
    re.ASCII | re.IGNORECASE | re.VERBOSE,
)
_MOST_ITEMS = 16


def items(text: str) -> list[Item]:
    """Return the items of a list or a dictionary; none where any part of it is malformed.

    A draft asks that what is malformed is ignored as a whole. No more than 16 are read.
    """
    found: list[Item] = []
    at, end = 0, len(text)
    while at < end:
        match = _PIECE.match(text, at)
        if match is None or match.end() == at:
            return []
        at = match.end()
        before, key, value = match.groups()
        key = key.lower() if key else ""
        if value[:1] in {'"', ":"}:
            value = value[1:-1]
            # A second name where a parameter should stand is the policy's: see the module.
            if before == ";" and not key:
                key = "name"
        if before != ";":
            if len(found) == _MOST_ITEMS:
                break
            found.append((key, value, {}))
        elif not found:
            return []
        elif key:
            found[-1][2].setdefault(key, value)
    return found


def ratelimit(said: dict[str, str], _name: str, at: Receipt) -> Iterator[Quota]:
    """Yield what `RateLimit` ("") and `RateLimit-Policy` ("policy") say, joined by their names."""
    policies = list(_policies(said["policy"])) if "policy" in said else []
    limits = items(said.get("", ""))
    if any(key for key, _, _ in limits):
        yield from _dictionary({key: value for key, value, _ in limits}, policies, at)
        limits = []
    for _, called, parameters in limits:
        left, reset = parameters.get("r"), parameters.get("t")
        remaining = amount(left)
        seconds = None if reset is None else reset_in(reset, at)
        # A part that makes no sense makes the item mean nothing.
        if not (left or reset) or not _is_whole((left, remaining), (reset, seconds)):
            continue
        name = parameters.get("name", called)
        partition = parameters.get("pk")
        policy = next((one for one in policies if _belongs(one, name, partition)), None)
        if policy is None:
            yield Quota(None, remaining, seconds, None, name, partition)
            continue
        policies.remove(policy)
        yield Quota(
            policy.limit,
            remaining,
            seconds,
            policy.window,
            name,
            partition or policy.partition,
            policy.unit,
        )
    yield from policies


# A server says the same of its policies in every answer.
@lru_cache(maxsize=128)
def _policies(text: str) -> tuple[Quota, ...]:
    return tuple(found for item in items(text) if (found := _policy(item)))


def _policy(item: Item) -> Quota | None:
    _, name, parameters = item
    # In the first drafts the quota itself stands where later the name does.
    quota, window = parameters.get("q"), parameters.get("w")
    if quota is None and name.isdecimal():
        quota, name = name, ""
    limit, length = limit_of(quota), amount(window)
    if limit is None or not _is_whole((window, length)):
        return None
    return Quota(
        limit,
        None,
        None,
        length,
        parameters.get("name", name),
        parameters.get("pk"),
        parameters.get("qu", "requests"),
    )


def _dictionary(said: dict[str, str], policies: list[Quota], at: Receipt) -> Iterator[Quota]:
    limit = limit_of(said.get("limit", said.get("q")))
    left = amount(said.get("remaining", said.get("r")))
    reset = said.get("reset", said.get("t"))
    if limit is None and left is None:
        return
    # Here a policy has no name, and is found by what it allows.
    policy = next((one for one in policies if not one.name and one.limit == limit), None)
    if policy is not None:
        policies.remove(policy)
    yield Quota(
        limit,
        left,
        None if reset is None else reset_in(reset, at),
        None if policy is None else policy.window,
    )


def _belongs(policy: Quota, name: str, partition: str | None) -> bool:
    return policy.name == name and (partition is None or policy.partition in {None, partition})


def _is_whole(*parts: tuple[str | None, float | None]) -> bool:
    return all(text is None or number is not None for text, number in parts)
