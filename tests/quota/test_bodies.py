"""What bodies say of limits, as each vendor writes them, and that no body can raise."""

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratekit.quota import BodyHint, Quota, read_body

THROTTLE = {"maximumAvailable": 2000.0, "currentlyAvailable": 1000, "restoreRate": 100.0}
RETRY_INFO = "type.googleapis.com/google.rpc.RetryInfo"
PROBLEM = "https://iana.org/assignments/http-problem-types#"


@pytest.mark.parametrize(
    ("status", "said", "expected"),
    [
        pytest.param(
            200,
            {"errors": [{"type": "RATE_LIMITED", "message": "API rate limit exceeded"}]},
            BodyHint(throttled=True),
            id="GitHub GraphQL",
        ),
        pytest.param(
            200,
            {"data": {}, "extensions": {"cost": {"throttleStatus": THROTTLE}}},
            BodyHint(
                throttled=False,
                quotas=(Quota(2000, 1000.0, 10.0, 20.0, unit="points"),),
            ),
            id="Shopify GraphQL",
        ),
        pytest.param(
            200,
            {
                "errors": [{"message": "Throttled", "extensions": {"code": "THROTTLED"}}],
                "extensions": {
                    "cost": {"requestedQueryCost": 1250, "throttleStatus": THROTTLE},
                },
            },
            BodyHint(
                throttled=True,
                retry_after=2.5,
                quotas=(Quota(2000, 1000.0, 10.0, 20.0, unit="points"),),
            ),
            id="Shopify GraphQL, throttled",
        ),
        pytest.param(
            429,
            {
                "error": {
                    "code": 429,
                    "status": "RESOURCE_EXHAUSTED",
                    "details": [
                        {"@type": "type.googleapis.com/google.rpc.QuotaFailure"},
                        {"@type": RETRY_INFO, "retryDelay": "34s"},
                    ],
                }
            },
            BodyHint(throttled=True, retry_after=34.0),
            id="Google",
        ),
        pytest.param(
            503,
            [{"error": {"details": [{"@type": RETRY_INFO, "retryDelay": "0.5s"}]}}],
            BodyHint(throttled=False, retry_after=0.5),
            id="Google, overloaded, in a stream",
        ),
        pytest.param(
            403,
            {"error": {"errors": [{"reason": "userRateLimitExceeded"}], "code": 403}},
            BodyHint(throttled=True),
            id="Google's older form",
        ),
        pytest.param(
            429,
            {"message": "You are being rate limited.", "retry_after": 64.57, "global": False},
            BodyHint(throttled=True, retry_after=64.57),
            id="Discord",
        ),
        pytest.param(
            429,
            {"retry_after": 65, "global": True},
            BodyHint(
                throttled=True,
                retry_after=65.0,
                quotas=(Quota(None, 0.0, 65.0, scope="global"),),
            ),
            id="Discord, everywhere",
        ),
        pytest.param(
            429,
            {"type": PROBLEM + "quota-exceeded", "violated-policies": ["daily", 7, "burst"]},
            BodyHint(
                throttled=True,
                quotas=(Quota(None, 0.0, name="daily"), Quota(None, 0.0, name="burst")),
            ),
            id="a problem of the standard",
        ),
        pytest.param(
            503,
            {"type": PROBLEM + "temporary-reduced-capacity"},
            BodyHint(throttled=True),
            id="another problem of the standard",
        ),
    ],
)
def test_every_hint_is_read(status: int, said: object, expected: BodyHint) -> None:
    """Whether this was a refusal, when to come back, and what is left."""
    assert read_body(status, json.dumps(said).encode()) == expected


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, b""),
        (200, b"{}"),
        (200, b'{"text": "RATE_LIMITED"}'),
        (200, b'{"errors": [{"type": "NOT_FOUND", "message": "RATE_LIMIT"}]}'),
        (200, b'{"retry_after": 5}'),
        (429, b'{"retry_after": -1}'),
        (429, b'{"retry_after": true}'),
        (429, b'{"retry_after": NaN}'),
        (429, b'{"retry_after": 1e300}'),
        (429, b'{"retry_after": "soon"}'),
        (429, b'"retry_after"'),
        (429, b"[]retry_after"),
        (429, b'["retry_after"]'),
        (429, b'{"retry_after": ' + b"9" * 5000 + b"}"),
        (429, b"[" * 100_000 + b'"retry_after"' + b"]" * 100_000),
        (429, b'{"retry_after": 5, "padding": "' + b"x" * 300_000 + b'"}'),
        (429, b'{"type": ["http-problem-types#quota-exceeded"]}'),
        (429, b'{"type": "http-problem-types#other"}'),
        (200, b'{"extensions": {"cost": {"throttleStatus": {"maximumAvailable": "x"}}}}'),
        (429, b'{"error": {"details": [{"@type": "google.rpc.RetryInfo", "retryDelay": 7}]}}'),
        (429, b'{"retry_after": \xff}'),
    ],
)
def test_what_says_nothing_is_none(status: int, body: bytes) -> None:
    """Another text, another type, nonsense, or more than is worth reading."""
    assert read_body(status, body) is None


WORDS = st.sampled_from([
    "errors", "type", "extensions", "code", "RATE_LIMITED", "THROTTLED", "cost", "throttleStatus",
    "maximumAvailable", "currentlyAvailable", "restoreRate", "requestedQueryCost", "error",
    "status", "details", "@type", RETRY_INFO, "retryDelay", "34s", "retry_after", "global",
    "reason", PROBLEM + "quota-exceeded", "violated-policies", "s",
])  # fmt: skip
LEAVES = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), WORDS)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=12,
)
NUMBERS = st.one_of(st.integers(), st.floats(), st.booleans())


@given(st.integers(100, 599), st.dictionaries(WORDS, VALUES, max_size=6))
def test_no_body_raises(status: int, said: dict[str, Any]) -> None:
    """Whatever is where another thing should be."""
    _check(read_body(status, json.dumps({**said, "x": "retry_after"}).encode()))


@given(NUMBERS, NUMBERS, NUMBERS, NUMBERS)
def test_no_number_in_a_body_is_out_of_range(
    most: float, left: float, rate: float, cost: float
) -> None:
    """Nor any that is made of several."""
    bucket = {"maximumAvailable": most, "currentlyAvailable": left, "restoreRate": rate}
    said = {
        "errors": [{"extensions": {"code": "THROTTLED"}}],
        "extensions": {"cost": {"requestedQueryCost": cost, "throttleStatus": bucket}},
    }
    _check(read_body(200, json.dumps(said).encode()))


def _check(hint: BodyHint | None) -> None:
    if hint is None:
        return
    numbers = [hint.retry_after]
    for quota in hint.quotas:
        numbers += [quota.limit, quota.remaining, quota.reset, quota.window]
    assert all(number is None or (math.isfinite(number) and number >= 0) for number in numbers)
    assert len(hint.quotas) <= 16
