"""What the reader promises whatever it reads, and what its windows mean for an answer."""

import calendar
import math
from email.message import Message
from typing import Any

import httpx
import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from requests.structures import CaseInsensitiveDict

from ratekit.quota import Quota, is_refusal, read_quota, wait_of

NOW = float(calendar.timegm((2026, 11, 23, 12, 0, 0)))
DATE = "Mon, 23 Nov 2026 12:00:00 GMT"
SAID = {
    "Date": DATE,
    "X-RateLimit-Limit": "100",
    "X-RateLimit-Remaining": "7",
    "X-RateLimit-Reset": f"{NOW:.0f}",
}
NONE = {"Date": DATE, "Content-Type": "text/plain", "Age": "7"}


@pytest.mark.parametrize(
    "kind", [CaseInsensitiveDict, httpx.Headers, httpx2.Headers, dict, "email"]
)
def test_the_headers_of_every_library_are_read_alike(kind: Any) -> None:
    """Whatever the case of the names; the answer's own `Date` stands in for a wrong clock."""

    def made(said: dict[str, str]) -> Any:
        if kind is dict:
            return {name.lower(): value for name, value in said.items()}
        if kind != "email":
            return kind(said)
        message = Message()
        for name, value in said.items():
            message[name.upper()] = value
        return message

    assert read_quota(200, made(SAID), now=NOW - 3600) == (Quota(100, 7, 1),)
    assert read_quota(200, made(NONE), now=NOW) == ()
    assert read_quota(200, made({}), now=NOW) == ()


@pytest.mark.parametrize("library", [httpx, httpx2])
def test_a_header_in_several_lines_is_one_list(library: Any) -> None:
    """As the standard has it: both windows are seen."""
    lines = [("RateLimit", '"a";r=2;t=1'), ("ratelimit", '"b";r=1;t=2')]
    found = read_quota(200, library.Headers(lines), now=NOW)
    assert found == (Quota(None, 1, 2, name="b"), Quota(None, 2, 1, name="a"))


@pytest.mark.parametrize("age", ["1", "60", " 10", "99999999999"])
@pytest.mark.parametrize("kind", [CaseInsensitiveDict, httpx.Headers])
def test_what_a_cache_has_kept_tells_nothing_of_now(kind: Any, age: str) -> None:
    """An answer with an `Age` was another's, and what was left then is long spent."""
    assert read_quota(200, kind({**SAID, "Age": age}), now=NOW) == ()


@pytest.mark.parametrize("age", ["0", " 0 ", "00", "new", ""])
def test_an_age_of_nothing_is_none(age: str) -> None:
    """A cache that passes an answer on at once says so."""
    assert len(read_quota(200, CaseInsensitiveDict({**SAID, "Age": age}), now=NOW)) == 1


def test_the_tightest_window_is_first() -> None:
    """Exhausted, the longest wait before; then the smallest share, the smallest rest, the rest."""
    said = (
        '"share";r=50;t=9, "rest";r=5;t=9, "unknown";t=9, "soon";r=0;t=1, "late";r=0;t=99,'
        ' "nearly";r=1;t=9'
    )
    policies = '"share";q=100;w=9, "nearly";q=100;w=9, "policy";q=1;w=9'
    found = read_quota(200, {"ratelimit": said, "ratelimit-policy": policies}, now=NOW)
    names = [quota.name for quota in found]
    assert names == ["late", "soon", "nearly", "share", "rest", "unknown", "policy"]


def test_work_is_bounded() -> None:
    """No more than 16 windows are read, no long value, no more than 64 fields."""
    many = ", ".join(f'"{number}";r=1' for number in range(60))
    assert len(read_quota(200, {"ratelimit": many}, now=NOW)) == 16
    assert read_quota(200, {"ratelimit": f'"{"x" * 1024}";r=1'}, now=NOW) == ()
    fields = {f"x-ratelimit-remaining-{number}": "1" for number in range(99)}
    assert len(read_quota(200, fields, now=NOW)) == 16
    assert read_quota(200, {f"x-ratelimit-remaining-{'x' * 99}": "1"}, now=NOW) == ()
    others = {f"limit-{number}": "1" for number in range(64)}
    assert read_quota(200, {**others, "x-ratelimit-remaining": "1"}, now=NOW) == ()


def test_a_limit_of_nothing_that_let_an_answer_through_is_none() -> None:
    """Some servers write 0 where they have no limit; on a refusal it may be meant."""
    said = {"x-ratelimit-limit": "0", "x-ratelimit-remaining": "0"}
    assert read_quota(200, said, now=NOW) == ()
    assert read_quota(403, said, now=NOW) == (Quota(0, 0),)


def test_pairs_belong_together_by_their_places() -> None:
    """A header with several numbers tells of several windows."""
    said = {
        "x-ratelimit-limit": "10, 5000, x",
        "x-ratelimit-remaining": "1, 4000, 3",
        "x-ratelimit-reset": "2, 100",
    }
    found = read_quota(200, said, now=NOW)
    assert found == (Quota(10, 1, 2), Quota(5000, 4000, 100), Quota(None, 3))


def test_the_same_window_under_two_names_is_one() -> None:
    """And two that only look alike are two."""
    two = {
        "ratelimit": '"minute";r=9;t=5',
        "ratelimit-policy": '"minute";q=10;w=60',
        "x-ratelimit-limit": "10",
        "x-ratelimit-remaining": "9",
    }
    assert read_quota(200, two, now=NOW) == (Quota(10, 9, 5, 60, "minute"),)
    assert len(read_quota(200, {**two, "x-ratelimit-remaining": "8"}, now=NOW)) == 2


@pytest.mark.parametrize(
    ("status", "headers", "text"),
    [
        (429, {}, b""),
        (503, {"retry-after": "7"}, b""),
        (403, {"retry-after": "7"}, b""),
        (403, {"x-ratelimit-remaining": "0"}, b""),
        (403, {}, b'{"message": "You have exceeded a secondary rate limit. Wait."}'),
        (403, {}, b"You have triggered an abuse detection mechanism."),
        (403, {}, b"API rate limit exceeded for 192.0.2.1."),
        (403, {}, b'{"error": {"errors": [{"reason": "userRateLimitExceeded"}]}}'),
        (403, {}, b"<h1>Request Rate Threshold Exceeded</h1>"),
        (400, {"x-amzn-errortype": "ThrottlingException"}, b""),
        (400, {"x-amzn-errortype": "com.amazon#TooManyRequestsException:http://x/"}, b""),
        (400, {}, b'{"__type":"com.amazonaws.x#ProvisionedThroughputExceededException"}'),
        (503, {}, b"<Error><Code>SlowDown</Code></Error>"),
    ],
)
def test_a_refusal_is_known_by_its_marks(status: int, headers: dict[str, str], text: bytes) -> None:
    """Whichever status a vendor gives it."""
    assert is_refusal(status, headers, text)


@pytest.mark.parametrize(
    ("status", "headers", "text"),
    [
        (200, {"retry-after": "1", "x-ratelimit-remaining": "0"}, b"rate limit exceeded"),
        (301, {"retry-after": "1"}, b""),
        (400, {"retry-after": "1", "x-amzn-errortype": "ValidationException"}, b""),
        (401, {"x-ratelimit-remaining": "0"}, b""),
        (403, {"x-ratelimit-remaining": "7", "retry-after": "soon"}, b"no such permission"),
        (403, {"x-ratelimit-remaining": "0", "age": "60"}, b""),
        (403, {}, b" " * 5000 + b"rate limit exceeded"),
        (500, {"retry-after": "1"}, b""),
        (503, {}, b"ThrottlingException"),
    ],
)
def test_what_has_no_mark_is_no_refusal(status: int, headers: dict[str, str], text: bytes) -> None:
    """A lack of permission, a mistake and an outage are not the limit's doing."""
    assert not is_refusal(status, headers, text)


def test_a_refusal_waits_as_it_says_and_else_for_the_window() -> None:
    """`Retry-After` first, then the longest of the exhausted windows, then nothing."""
    open_, shut, longer = Quota(9, 5, 99), Quota(9, 0, 5), Quota(9, 0, 7)
    assert wait_of(429, {"retry-after": "3"}, [shut]) == 3
    assert wait_of(429, {}, [open_, shut, longer]) == 7
    assert wait_of(429, {}, [open_, Quota(9, 0)]) is None
    assert wait_of(200, {"retry-after": "3"}, [shut]) is None


def test_a_wait_that_was_cut_off_to_nothing_is_the_windows() -> None:
    """flask-limiter says 0 for most of a second; where it names no window, 0 is what it says."""
    assert wait_of(429, {"retry-after": "0"}, [Quota(9, 0, 2)]) == 2
    assert wait_of(429, {"retry-after": "0"}, []) == 0


NAMES = st.one_of(
    st.sampled_from([
        "ratelimit", "ratelimit-policy", "ratelimit-limit", "ratelimit-remaining",
        "ratelimit-reset", "x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset",
        "x-ratelimit-usage", "x-ratelimit-used", "x-ratelimit-reset-after", "x-rate-limit",
        "x-ratelimit-fillrate", "x-ratelimit-interval-seconds", "x-ratelimit-global",
        "x-ratelimit-scope", "x-hubspot-ratelimit-max", "x-hubspot-ratelimit-remaining",
        "x-hubspot-ratelimit-interval-milliseconds", "zendesk-ratelimit-x",
        "x-shopify-shop-api-call-limit", "sforce-limit-info", "x-ms-ratelimit-remaining-resource",
        "x-app-rate-limit", "x-app-rate-limit-count", "anthropic-ratelimit-tokens-reset",
        "anthropic-ratelimit-tokens-limit", "x-amzn-errortype", "retry-after", "date", "age",
    ]),
    st.text(max_size=30).map("limit".__add__),
)  # fmt: skip
PIECES = st.sampled_from([
    "100", "0", "-1", "1.5", "nan", "1e999", "9" * 40, "1795435201", "1795435201000", ",", ";", "=",
    '"', ":", "/", " ", "(", "r=1", "t=5", "q=9", "w=60", "pk=:aa:", "limit=5", "remaining=0",
    "api-usage=1/2", "6m0s", "2026-11-23T12:00Z", DATE, "true", "10:10", "X;1", "\u0661", "\\",
])  # fmt: skip
VALUES = st.one_of(st.text(max_size=60), st.lists(PIECES, max_size=8).map("".join))


@given(st.dictionaries(NAMES, VALUES, max_size=8), st.integers(100, 599))
def test_nothing_raises_and_nothing_is_out_of_range(said: dict[str, str], status: int) -> None:
    """Whatever a server sends: numbers that are finite and not negative, and few of them."""
    for headers in (said, CaseInsensitiveDict(said), httpx.Headers(_encodable(said))):
        found = read_quota(status, headers, now=NOW, milliseconds=status % 2 == 0)
        assert len(found) <= 16
        for quota in found:
            for number in (quota.limit, quota.remaining, quota.reset, quota.window):
                assert number is None or (math.isfinite(number) and number >= 0)
        wait = wait_of(status, headers, found, now=NOW)
        assert wait is None or 0 <= wait <= 366 * 86_400
        is_refusal(status, headers, " ".join(said.values()).encode())


def _encodable(said: dict[str, str]) -> list[tuple[bytes, bytes]]:
    return [
        (name.encode(errors="replace"), value.encode(errors="replace"))
        for name, value in said.items()
    ]


def test_headers_that_are_no_text_are_no_headers() -> None:
    """As a careless stand-in of a server has them."""
    odd: Any = {"x-ratelimit-limit": 5, b"limit": "limit", "x-ratelimit-remaining": "1", "age": 0}
    assert read_quota(200, odd, now=NOW) == (Quota(None, 1),)
    assert read_quota(200, CaseInsensitiveDict(odd | {b"a": ""}), now=NOW) == (Quota(None, 1),)
