"""What makes an answer a refusal, and how long a refusal says to wait."""

import re
from collections.abc import Iterable, Mapping

from ratekit.quota.retry import retry_after
from ratekit.quota.values import Quota
from ratekit.quota.windows import read_quota

__all__ = ["is_refusal", "wait_of"]

# What the text of a 403 says where its headers may say nothing: GitHub (also its older name for
# secondary limits), Google's reasons, the SEC's page, and the plainest words of all.
_WORDS = re.compile(
    rb"secondary rate limit|abuse detection|rate ?limit ?exceeded|quota ?exceeded"
    rb"|daily ?limit ?exceeded|request rate threshold exceeded",
    re.IGNORECASE,
)
# AWS: the codes on which its own SDK slows down.
_CODES = (
    rb"Throttling|ThrottlingException|ThrottledException|RequestThrottledException"
    rb"|RequestThrottled|TooManyRequestsException|ProvisionedThroughputExceededException"
    rb"|RequestLimitExceeded|BandwidthLimitExceeded|LimitExceededException|SlowDown"
    rb"|PriorRequestNotComplete|EC2ThrottledException"
)
# In a header the code may have a namespace before it and an address behind it.
_AWS_HEADER = re.compile(rf"(?:.*#)?(?:{_CODES.decode()})(?::.*)?", re.ASCII)
_AWS_BODY = re.compile(rb'(?:"__type"\s*:\s*"(?:[^"#]*#)?|<Code>)(?:' + _CODES + rb')["<]')
# Such words stand near the beginning or not at all.
_LONGEST_TEXT = 4096


def is_refusal(status: int, headers: Mapping[str, str], text: bytes = b"") -> bool:
    """Return whether a server refused a request because there were too many. Never raises.

    So does a 429; a 503 that says when to come back; a 403 that does, or names an exhausted
    quota, or says so in words; and a 400, 403 or 503 with one of the codes with which AWS
    throttles. `text` is the beginning of the body, where it is known.
    """
    if status == 429:
        return True
    if status not in {400, 403, 503}:
        return False
    text = text[:_LONGEST_TEXT]
    if _is_aws(headers.get("x-amzn-errortype"), text):
        return True
    if status == 400:
        return False
    return retry_after(headers) is not None or (
        status == 403
        and (
            _WORDS.search(text) is not None
            or any(quota.remaining == 0 for quota in read_quota(status, headers))
        )
    )


def _is_aws(code: str | None, text: bytes) -> bool:
    if isinstance(code, str) and len(code) <= _LONGEST_TEXT and _AWS_HEADER.fullmatch(code.strip()):
        return True
    return _AWS_BODY.search(text) is not None


def wait_of(
    status: int, headers: Mapping[str, str], quotas: Iterable[Quota], *, now: float | None = None
) -> float | None:
    """Return the seconds, from receipt, that a refusal says to wait; None where it says nothing.

    `Retry-After` and its kin come first, then the reset of the window that is exhausted; of
    several the longest, because all must have begun anew. `quotas` are those of `read_quota`. On
    an answer that is no failure there is nothing to wait for, whatever it says: some servers send
    `Retry-After` with all of them.
    """
    if status < 400:
        return None
    wait = retry_after(headers, now=now)
    if wait:
        return wait
    # "Now" beside an exhausted window is a fraction that was cut off (flask-limiter): the window
    # knows better.
    resets = [quota.reset for quota in quotas if quota.remaining == 0 and quota.reset is not None]
    return max(resets, default=wait)
