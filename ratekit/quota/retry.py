"""When a server wants to be asked again: `retry_after`."""

from collections.abc import Mapping

from ratekit.quota.times import NUMBER, Receipt, sane, seconds_in

__all__ = ["retry_after"]

# In the order in which they win: the finer unit is the newer header, sent beside the old one.
_MILLISECONDS = ("retry-after-ms", "x-ms-retry-after-ms", "x-amz-retry-after")
_SECONDS = ("retry-after", "x-ratelimit-retry-after")


def retry_after(headers: Mapping[str, str], *, now: float | None = None) -> float | None:
    """Return the seconds, from receipt, after which the server wants to be asked again.

    Read are `retry-after-ms` and its kin (milliseconds), then `Retry-After` (RFC 9110, 10.2.3):
    whole or fractional seconds, the three HTTP-dates, and leniently ISO 8601 instants, durations
    such as `1m30s`, and epochs. An instant is measured from the response's own `Date`, so that a
    client's wrong clock does not matter. None where there is no such header, or none that makes
    sense (negative, not finite, more than a year). Never raises.

    `headers` is any mapping that ignores case; `now` stands in for the wall clock.
    """
    for name in _MILLISECONDS:
        value = _get(headers, name)
        if value is not None and NUMBER.fullmatch(value):
            return sane(float(value) / 1000.0)
    for name in _SECONDS:
        value = _get(headers, name)
        if value is not None:
            return sane(seconds_in(value, Receipt(headers, now)))
    return None


def _get(headers: Mapping[str, str], name: str) -> str | None:
    value = headers.get(name)
    if not isinstance(value, str):
        return None
    # Two values of one header come joined: the first is the server's, a proxy's is added behind.
    # The comma of a date follows a day's name.
    value = value.strip()
    head, comma, _ = value.partition(",")
    return head.strip() if comma and not head.isalpha() else value
