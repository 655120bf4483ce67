"""A window as a server tells of it, and the numbers in it."""

from dataclasses import dataclass

from ratekit.quota.times import NUMBER

__all__ = ["Quota", "amount", "limit_of"]

# Whole up to here as a float; a server that means "no limit" says a larger one.
_MOST = 2.0**53
_LONGEST = 32


@dataclass(frozen=True, slots=True)
class Quota:
    """One window of one limit, as the server that counts it told of it. None: it did not say.

    `limit`: how much the window holds. `remaining`: how much of it is left. `reset`: seconds, from
    receipt, until the window begins anew; that need not be with the whole quota. `window`: its
    length in seconds. `name`: what tells it from others of this server: a policy, a resource, a
    bucket's id, `requests` or `tokens`. `partition`: whose share of it this is. `unit`: what is
    counted: `requests`, `tokens`, `points`, `content-bytes`, `concurrent-requests`. `scope`: whom
    it holds for, where a server says so: `global`, `shared`, `user`.
    """

    limit: int | None
    remaining: float | None
    reset: float | None = None
    window: float | None = None
    name: str = ""
    partition: str | None = None
    unit: str = "requests"
    scope: str = ""


def amount(text: str | None) -> float | None:
    """Return the number in `text`; None where there is none, or it is negative or absurd."""
    if text is None or len(text) > _LONGEST:
        return None
    # By far the most usual form is looked at first.
    if not (text.isdecimal() and text.isascii()):
        text = text.strip()
        if not NUMBER.fullmatch(text):
            return None
    number = float(text)
    return number if 0 <= number <= _MOST else None


def limit_of(text: str | None) -> int | None:
    """Return `amount(text)` as a whole number."""
    number = amount(text)
    return None if number is None else int(number)
