"""What each vendor's headers say, each as its documentation, or an answer of it, has them."""

import calendar
from typing import Any

import http_sf
import pytest
from hypothesis import given
from hypothesis import strategies as st
from requests.structures import CaseInsensitiveDict

from ratekit.quota import Quota, read_quota

NOW = float(calendar.timegm((2026, 11, 23, 12, 0, 0)))
DAY = 86_400.0
NONE = None


def read(said: str, *, status: int = 200, now: float = NOW) -> tuple[Quota, ...]:
    """Read headers written as on the wire, one a line."""
    fields = (line.split(":", 1) for line in said.strip().splitlines())
    headers = CaseInsensitiveDict({name.strip(): value.strip() for name, value in fields})
    return read_quota(status, headers, now=now)


def at(instant: str) -> float:
    """Return an instant as seconds since the epoch."""
    numbers = [int(part) for part in instant.replace(":", "-").replace(" ", "-").split("-")]
    return float(calendar.timegm((*numbers, 0, 0, 0)[:6]))


GITLAB = """
    RateLimit-Limit: 600
    RateLimit-Observed: 6
    RateLimit-Remaining: 594
    RateLimit-Reset: 1563325137
    RateLimit-ResetTime: Wed, 17 Jul 2019 00:58:57 GMT
    RateLimit-Name: throttle_authenticated_web
"""
DISCORD = """
    X-RateLimit-Limit: 10
    X-RateLimit-Remaining: 0
    X-RateLimit-Reset: 1470173023.123
    X-RateLimit-Reset-After: 64.57
    X-RateLimit-Bucket: abcd1234
    X-RateLimit-Scope: user
    Retry-After: 65
"""
OPENAI = """
    x-ratelimit-limit-requests: 60
    x-ratelimit-limit-tokens: 150000
    x-ratelimit-remaining-requests: 59
    x-ratelimit-remaining-tokens: 149984
    x-ratelimit-reset-requests: 1s
    x-ratelimit-reset-tokens: 6m0s
"""
ANTHROPIC = """
    Date: Sat, 25 Oct 2025 11:59:00 GMT
    anthropic-ratelimit-requests-limit: 50
    anthropic-ratelimit-requests-remaining: 49
    anthropic-ratelimit-requests-reset: 2025-10-25T12:00:00Z
    anthropic-ratelimit-input-tokens-limit: 50000
    anthropic-ratelimit-input-tokens-remaining: 40000
    anthropic-ratelimit-input-tokens-reset: 2025-10-25T12:01:00Z
"""
HUBSPOT = """
    X-HubSpot-RateLimit-Daily: 250000
    X-HubSpot-RateLimit-Daily-Remaining: 249900
    X-HubSpot-RateLimit-Interval-Milliseconds: 10000
    X-HubSpot-RateLimit-Max: 100
    X-HubSpot-RateLimit-Remaining: 98
    X-HubSpot-RateLimit-Secondly: 10
    X-HubSpot-RateLimit-Secondly-Remaining: 9
"""
ZENDESK = """
    X-Rate-Limit: 700
    X-Rate-Limit-Remaining: 699
    ratelimit-limit: 700
    ratelimit-remaining: 699
    ratelimit-reset: 41
    zendesk-ratelimit-tickets-index: total=100; remaining=99; resets=41
"""
AZURE = """
    x-ms-ratelimit-remaining-resource: \
Microsoft.Compute/GetVMScaleSet3Min;197,Microsoft.Compute/GetVMScaleSet30Min;1297
"""
STRAVA = """
    X-RateLimit-Limit: 200,2000
    X-RateLimit-Usage: 34,200
    X-ReadRateLimit-Limit: 100,1000
    X-ReadRateLimit-Usage: 200,100
"""
DRAFT_6 = """
    RateLimit-Policy: 100;w=1
    RateLimit-Limit: 100
    RateLimit-Remaining: 99
    RateLimit-Reset: 1
    X-RateLimit-Limit: 100
    X-RateLimit-Remaining: 99
    X-RateLimit-Reset: 1795435201
"""
KONG = """
    X-RateLimit-Limit-Minute: 20
    X-RateLimit-Remaining-Minute: 19
    X-RateLimit-Limit-Hour: 500
    X-RateLimit-Remaining-Hour: 1
    X-RateLimit-Limit-Day: 10000
    X-RateLimit-Remaining-Day: 9000
"""

EXAMPLES: list[tuple[str, float, str, list[Quota]]] = [
    (
        "the newest draft, as at Cloudflare",
        NOW,
        """
        Ratelimit: "default";r=50;t=30
        Ratelimit-Policy: "burst";q=100;w=60
        """,
        [Quota(NONE, 50, 30, name="default"), Quota(100, NONE, NONE, 60, "burst")],
    ),
    (
        "several policies",
        NOW,
        """
        RateLimit-Policy: "burst";q=100;w=60,"daily";q=1000;w=86400
        RateLimit: "daily";r=50;t=30, "burst";r=99;t=2
        """,
        [Quota(1000, 50, 30, DAY, "daily"), Quota(100, 99, 2, 60, "burst")],
    ),
    (
        "a partition and a unit",
        NOW,
        """
        RateLimit-Policy: "peruser";q=65535;qu="content-bytes";w=10;pk=:sdfjLJUOUH==:
        RateLimit: "peruser";r=30000;t=3;pk=:sdfjLJUOUH==:
        """,
        [Quota(65535, 30000, 3, 10, "peruser", "sdfjLJUOUH==", "content-bytes")],
    ),
    (
        "requests at a time",
        NOW,
        'RateLimit-Policy: "slots";q=8;qu="concurrent-requests"',
        [Quota(8, NONE, name="slots", unit="concurrent-requests")],
    ),
    (
        "a bare token, and nothing left said",
        NOW,
        "RateLimit: quota;t=1",
        [Quota(NONE, NONE, 1, name="quota")],
    ),
    (
        "express-rate-limit, draft-8",
        NOW,
        """
        RateLimit: "100-in-1sec"; r=99; t=1
        RateLimit-Policy: "100-in-1sec"; q=100; w=1; pk=:MTJjYTE3YjQ5YWYy:
        """,
        [Quota(100, 99, 1, 1, "100-in-1sec", "MTJjYTE3YjQ5YWYy")],
    ),
    (
        "express-rate-limit, draft-7",
        NOW,
        """
        RateLimit-Policy: 100;w=1
        RateLimit: limit=100, remaining=99, reset=1
        """,
        [Quota(100, 99, 1, 1)],
    ),
    ("express-rate-limit, draft-6, which says it twice", NOW, DRAFT_6, [Quota(100, 99, 1, 1)]),
    ("draft-07", NOW, "RateLimit: limit=100, remaining=50, reset=5", [Quota(100, 50, 5)]),
    (
        "older drafts",
        NOW,
        """
        RateLimit-Limit: 100
        RateLimit-Remaining: 50
        RateLimit-Reset: 50
        """,
        [Quota(100, 50, 50)],
    ),
    (
        "the first drafts",
        NOW,
        """
        RateLimit-Limit: 100, 100;w=60, 5000;w=3600
        RateLimit-Remaining: 50
        RateLimit-Reset: 5
        """,
        [Quota(100, 50, 5, 60), Quota(5000, NONE, NONE, 3600)],
    ),
    (
        "Hugging Face, whose policy has two names",
        NOW,
        """
        ratelimit: "api";r=0;t=55
        ratelimit-policy: "fixed window";"api";q=500;w=300
        """,
        [Quota(500, 0, 55, 300, "api")],
    ),
    (
        "GitHub",
        1372700873.0 - 99,
        """
        x-ratelimit-limit: 5000
        x-ratelimit-remaining: 4999
        x-ratelimit-used: 1
        x-ratelimit-reset: 1372700873
        x-ratelimit-resource: core
        """,
        [Quota(5000, 4999, 100, NONE, "core")],
    ),
    ("GitLab", 1563325137.0 - 9, GITLAB, [Quota(600, 594, 10, name="throttle_authenticated_web")]),
    (
        "Twitch",
        1511282710.0 - 9,
        """
        Ratelimit-Limit: 800
        Ratelimit-Remaining: 799
        Ratelimit-Reset: 1511282710
        """,
        [Quota(800, 799, 10)],
    ),
    (
        "X",
        1705420800.0 - 9,
        """
        x-rate-limit-limit: 900
        x-rate-limit-remaining: 847
        x-rate-limit-reset: 1705420800
        """,
        [Quota(900, 847, 10)],
    ),
    (
        "Reddit",
        NOW,
        """
        X-Ratelimit-Used: 5
        X-Ratelimit-Remaining: 595.0
        X-Ratelimit-Reset: 423
        """,
        [Quota(600, 595.0, 423)],
    ),
    ("Slack", NOW, "Retry-After: 30", []),
    ("Shopify", NOW, "X-Shopify-Shop-Api-Call-Limit: 32/40", [Quota(40, 8, NONE, 20)]),
    ("Stripe", NOW, "Stripe-Rate-Limited-Reason: endpoint-rate", []),
    ("Discord", NOW, DISCORD, [Quota(10, 0, 64.57, name="abcd1234", scope="user")]),
    (
        "Discord, without seconds",
        1470173023.0 - 60,
        """
        X-RateLimit-Limit: 10
        X-RateLimit-Remaining: 9
        X-RateLimit-Reset: 1470173023.123
        X-RateLimit-Bucket: abcd1234
        X-RateLimit-Scope: shared
        """,
        [Quota(10, 9, 1470173023.123 - 1470172963, name="abcd1234", scope="shared")],
    ),
    (
        "Discord, everywhere",
        NOW,
        """
        Retry-After: 65
        X-RateLimit-Global: true
        X-RateLimit-Scope: global
        """,
        [Quota(NONE, 0, scope="global")],
    ),
    (
        "OpenAI",
        NOW,
        OPENAI,
        [
            Quota(60, 59, 1, name="requests"),
            Quota(150_000, 149_984, 360, name="tokens", unit="tokens"),
        ],
    ),
    (
        "Azure OpenAI, which does not know",
        NOW,
        """
        x-ratelimit-limit-requests: -1
        x-ratelimit-remaining-requests: -1
        x-ratelimit-reset-requests: 0
        """,
        [],
    ),
    (
        "Azure OpenAI",
        NOW,
        """
        x-ratelimit-limit-tokens: 1000
        x-ratelimit-remaining-tokens: 0
        x-ratelimit-reset-tokens: 12
        """,
        [Quota(1000, 0, 12, name="tokens", unit="tokens")],
    ),
    (
        "Anthropic",
        NOW,
        ANTHROPIC,
        [
            Quota(50_000, 40_000, 120, name="input-tokens", unit="tokens"),
            Quota(50, 49, 60, name="requests"),
        ],
    ),
    (
        "HubSpot",
        NOW,
        HUBSPOT,
        [
            Quota(10, 9, NONE, 1, "secondly"),
            Quota(100, 98, NONE, 10),
            Quota(250_000, 249_900, NONE, DAY, "daily"),
        ],
    ),
    (
        "Atlassian, whose minute is meant as a whole",
        at("2026-11-23 12:00"),
        """
        X-RateLimit-Limit: 350
        X-RateLimit-Remaining: 20
        X-RateLimit-Reset: 2026-11-23T12:05Z
        X-RateLimit-NearLimit: true
        RateLimit-Reason: jira-burst-based
        """,
        [Quota(350, 20, 360)],
    ),
    (
        "Atlassian Data Center, which fills up by the interval",
        NOW,
        """
        X-RateLimit-Limit: 180
        X-RateLimit-Remaining: 107
        X-RateLimit-FillRate: 2
        X-RateLimit-Interval-Seconds: 1
        """,
        [Quota(180, 107, NONE, 90)],
    ),
    ("Zendesk", NOW, ZENDESK, [Quota(100, 99, 41, name="tickets-index"), Quota(700, 699, 41)]),
    (
        "Salesforce",
        NOW,
        "Sforce-Limit-Info: api-usage=10018/100000; api-bursts=1/750",
        [Quota(100_000, 89_982, NONE, DAY, "api-usage"), Quota(750, 749, NONE, NONE, "api-bursts")],
    ),
    (
        "Salesforce, by app",
        NOW,
        "Sforce-Limit-Info: api-usage=25/5000; per-app-api-usage=17/250(appName=x)",
        [
            Quota(250, 233, NONE, DAY, "per-app-api-usage", "x"),
            Quota(5000, 4975, NONE, DAY, "api-usage"),
        ],
    ),
    (
        "Azure Resource Manager",
        NOW,
        "x-ms-ratelimit-remaining-subscription-reads: 11999",
        [Quota(NONE, 11_999, name="subscription-reads")],
    ),
    (
        "Azure Resource Manager, by resource",
        NOW,
        AZURE,
        [
            Quota(NONE, 197, NONE, 180, "Microsoft.Compute/GetVMScaleSet3Min"),
            Quota(NONE, 1297, NONE, 1800, "Microsoft.Compute/GetVMScaleSet30Min"),
        ],
    ),
    (
        "Strava, by the clock",
        at("2026-11-23 12:07"),
        STRAVA,
        [
            Quota(100, 0, 480, 900, "read-quarter-hour"),
            Quota(200, 166, 480, 900, "quarter-hour"),
            Quota(2000, 1800, 42_780, DAY, "day"),
            Quota(1000, 900, 42_780, DAY, "read-day"),
        ],
    ),
    (
        "Riot",
        NOW,
        """
        X-App-Rate-Limit: 10:10,100:120
        X-App-Rate-Limit-Count: 3:10,3:120
        """,
        [Quota(10, 7, NONE, 10, "app"), Quota(100, 97, NONE, 120, "app")],
    ),
    ("AWS", NOW, "x-amz-retry-after: 1500", []),
    (
        "mailerlite",
        at("2026-11-23 12:00"),
        """
        X-RateLimit-Limit: 60
        X-RateLimit-Remaining: 0
        X-RateLimit-Retry-After: 12
        X-RateLimit-Reset: 2026-11-23 12:00:12
        """,
        [Quota(60, 0, 12)],
    ),
    (
        "lemlist",
        at("2021-02-16 08:02"),
        """
        X-RateLimit-Limit: 20
        X-RateLimit-Remaining: 7
        X-RateLimit-Reset: Tue Feb 16 2021 09:02:42 GMT+0100 (Central European Standard Time)
        """,
        [Quota(20, 7, 42)],
    ),
    (
        "Rachio",
        at("2026-11-23 12:00"),
        """
        X-RateLimit-Limit: 1700
        X-RateLimit-Remaining: 1697
        X-RateLimit-Reset: 2026-11-24T00:00:00Z
        """,
        [Quota(1700, 1697, 43_200)],
    ),
    (
        "Akamai",
        at("2026-11-23 12:00"),
        """
        X-RateLimit-Limit: 60
        X-RateLimit-Remaining: 0
        X-RateLimit-Next: 2026-11-23T12:00:07.5Z
        """,
        [Quota(60, 0, 7.5)],
    ),
    (
        "Brevo",
        NOW,
        """
        x-sib-ratelimit-limit: 1000
        x-sib-ratelimit-remaining: 900
        x-sib-ratelimit-reset: 30
        """,
        [Quota(1000, 900, 30)],
    ),
    (
        "Kong",
        NOW,
        KONG,
        [
            Quota(500, 1, NONE, 3600, "hour"),
            Quota(10_000, 9000, NONE, DAY, "day"),
            Quota(20, 19, NONE, 60, "minute"),
        ],
    ),
    (
        "slowapi, whose epoch has a fraction",
        1795451513.0,
        """
        x-ratelimit-limit: 100
        x-ratelimit-remaining: 0
        x-ratelimit-reset: 1795451513.779126
        retry-after: 1
        """,
        [Quota(100, 0, 1795451513.779126 - 1795451513)],
    ),
    (
        "flask-limiter, whose epoch is cut off",
        1795451511.0,
        """
        X-Ratelimit-Limit: 100
        X-Ratelimit-Remaining: 99
        X-Ratelimit-Reset: 1795451512
        """,
        [Quota(100, 99, 2)],
    ),
    (
        "an epoch in milliseconds",
        NOW,
        f"""
        X-RateLimit-Limit: 100
        X-RateLimit-Remaining: 1
        X-RateLimit-Reset: {int(NOW) * 1000 + 2500}
        """,
        [Quota(100, 1, 2.5)],
    ),
    (
        "an HTTP-date",
        NOW,
        """
        X-RateLimit-Limit: 100
        X-RateLimit-Remaining: 1
        X-RateLimit-Reset: Mon, 23 Nov 2026 12:00:30 GMT
        """,
        [Quota(100, 1, 30)],
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("now", "said", "expected"),
    [pytest.param(*example[1:], id=example[0]) for example in EXAMPLES],
)
def test_every_vendor_is_read(now: float, said: str, expected: list[Quota]) -> None:
    """Each window with what was said of it, the tightest first."""
    assert list(read(said, now=now)) == expected


def test_a_server_that_counts_milliseconds_is_believed_only_by_who_knows_it() -> None:
    """As at prisjakt: 600000 is ten minutes, and looks like a week."""
    headers = {"x-rate-limit-limit": "9", "x-rate-limit-reset": "600000"}
    assert read_quota(200, headers, now=NOW) == (Quota(9, None, 600_000),)
    assert read_quota(200, headers, now=NOW, milliseconds=True) == (Quota(9, None, 600),)


NAMES = st.from_regex(r"[a-z][a-z0-9_-]{0,20}", fullmatch=True)
NUMBERS = st.integers(0, 10**9 - 1)


@given(
    st.lists(st.tuples(NAMES, NUMBERS, NUMBERS), min_size=1, max_size=5, unique_by=lambda x: x[0])
)
def test_what_a_parser_of_structured_fields_writes_is_read_alike(
    policies: list[tuple[str, int, int]],
) -> None:
    """Names, quotas and windows come back as they went in."""
    fields: Any = [(name, {"q": most, "w": length}) for name, most, length in policies]
    written = http_sf.ser(fields)
    found = read_quota(429, {"ratelimit-policy": written}, now=NOW)
    expected = {Quota(most, None, None, float(length), name) for name, most, length in policies}
    assert set(found) == expected


@pytest.mark.parametrize(
    "said",
    [
        'RateLimit: "default;r=50;t=30',
        'RateLimit: "default";r=-1;t=30',
        'RateLimit: "default";r=5x;t=30',
        'RateLimit: "default";r=50;t=soon',
        'RateLimit: "default"',
        "RateLimit: ;r=5",
        "RateLimit: limit=-1, remaining=many",
        'RateLimit-Policy: "default";q=-1;w=60',
        'RateLimit-Policy: "default";q=1;w=long',
        'RateLimit-Policy: "default";w=60',
        "X-RateLimit-Limit: unlimited",
        "X-RateLimit-Remaining: -3",
        "X-RateLimit-Limit: 1e5",
        "X-RateLimit-Reset: 30",
        "X-RateLimit-Limit: nan",
        "X-RateLimit-Limit: 99999999999999999999",
        "X-Shopify-Shop-Api-Call-Limit: 32",
        "Sforce-Limit-Info: api-usage",
        "x-ms-ratelimit-remaining-resource: Microsoft.Compute/X",
        "X-App-Rate-Limit: ten",
        "zendesk-ratelimit-tickets-index: all",
        "X-RateLimit-Limit: all, of, it",
    ],
)
def test_what_makes_no_sense_is_the_same_as_nothing(said: str) -> None:
    """Malformed, negative, not finite, absurd, or without any amount."""
    assert read(said, status=429) == ()
