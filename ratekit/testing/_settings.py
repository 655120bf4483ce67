"""What a loopback API server is told to be: checked where it is written, and sent to a process."""

import ipaddress
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final, Literal, TypeAlias, get_args

from ratekit.testing._rules import (
    Concurrency,
    FixedWindow,
    Rule,
    SlidingLog,
    TokenBucket,
    TwoWindowEstimate,
    WallClockWindow,
)

__all__ = ["QuotaHeaders", "RetryAfter", "RuleName", "Settings"]

RetryAfter: TypeAlias = Literal["ceil", "truncate", "exact", "date", "ms"]
QuotaHeaders: TypeAlias = Literal["ietf", "github", "x-ratelimit"]
RuleName: TypeAlias = Literal[
    "token bucket",
    "sliding log",
    "fixed window",
    "wall-clock window",
    "two-window estimate",
    "concurrency",
]

RETRY_AFTER_FORMS: Final[tuple[RetryAfter, ...]] = get_args(RetryAfter)
QUOTA_FORMS: Final[tuple[QuotaHeaders, ...]] = get_args(QuotaHeaders)
RULES: Final[tuple[RuleName, ...]] = get_args(RuleName)
BURST: Final = 20
COUNT: Final = "a whole number of requests, at least 1"
Check: TypeAlias = tuple[str, bool, str]  # a field, whether it is right, and what would be


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a server is told to be; `ApiServer` documents the fields.

    Raises ValueError for a wrong one, and for one that the rule would not look at.
    """

    rate: float | None
    burst: int | None
    rule: RuleName
    window: float
    in_flight: int | None
    count_refusals: bool
    status: int
    retry_after: RetryAfter | None
    quota: QuotaHeaders | None
    noise: float
    noise_status: int
    latency: float
    jitter: float
    seed: int
    host: str
    port: int

    def __post_init__(self) -> None:
        for checks in (self._checks(), self._checks_of_rule()):
            for name, fulfilled, right in checks:
                if not fulfilled:
                    raise ValueError(f"{name} must be {right}; not {getattr(self, name)!r}")

    def _checks(self) -> Iterator[Check]:
        rate, forms = self.rate, (None, *RETRY_AFTER_FORMS)
        a_rate = "requests per window, above 0, or None for no limit"
        a_status = "an HTTP status from 200 to 599, such as 429 or 503"
        yield "rate", rate is None or (math.isfinite(rate) and rate > 0), a_rate
        yield "burst", self.burst is None or _counts(self.burst), COUNT
        yield "rule", self.rule in RULES, f"one of {RULES}"
        yield "window", 0 < self.window < math.inf, "seconds, above 0"
        yield "in_flight", self.in_flight is None or _counts(self.in_flight), COUNT
        yield "status", self.status in range(200, 600), a_status
        yield "retry_after", self.retry_after in forms, f"one of {forms}"
        quotas = (None, *QUOTA_FORMS)
        yield "quota", self.quota in quotas, f"one of {quotas}"
        yield "noise", 0 <= self.noise <= 1, "a fraction of the admitted requests, 0 to 1"
        yield "noise_status", self.noise_status in range(200, 600), a_status
        yield "latency", 0 <= self.latency < math.inf, "seconds, 0 or more"
        yield "jitter", 0 <= self.jitter < math.inf, "seconds, 0 or more"
        yield "host", _is_loopback(self.host), "a loopback address, such as 127.0.0.1 or ::1"
        yield "port", self.port in range(65536), "0 for any free port, or 1 to 65535"

    def _checks_of_rule(self) -> Iterator[Check]:
        rate, here = self.rate, f"with rule={self.rule!r}"
        if self.rule == "concurrency":
            yield "in_flight", self.in_flight is not None, f"{COUNT}, {here}"
            yield "rate", rate is None, f"None {here}, which knows no rate"
            yield "window", self.window == 1.0, f"left out {here}, which knows no window"
            yield "quota", self.quota is None, f"left out {here}, which knows no quota"
        else:
            right = f"left out {here}; it is for rule='concurrency'"
            yield "in_flight", self.in_flight is None, right
        if self.rule != "token bucket":
            yield "rate", rate is None or _counts(rate), f"{COUNT}, {here}, or None for no limit"
            right = f"left out {here}; it is for rule='token bucket'"
            yield "burst", self.burst is None, right
        if self.rule != "two-window estimate":
            right = f"left out {here}; it is for rule='two-window estimate'"
            yield "count_refusals", self.count_refusals, right

    @property
    def limit(self) -> str:
        """What is enforced, in a few words."""
        if self.in_flight is not None:
            return f"{self.rule} {self.in_flight}"
        if self.rate is None:
            return "no limit"
        period = "second" if self.window == 1 else f"{self.window:g} seconds"
        more = f" burst {self._burst}" if self.rule == "token bucket" else ""
        more += "" if self.count_refusals else ", refusals not counted"
        return f"{self.rule} {self.rate:g}/{period}{more}"

    @property
    def _burst(self) -> int:
        return BURST if self.burst is None else self.burst

    def new_rule(self, wall: Callable[[], float]) -> Rule:
        """Give what enforces it, as it is before the first request."""
        if self.in_flight is not None:
            return Concurrency(self.in_flight)
        if self.rate is None:
            return Rule()
        count, window = int(self.rate), self.window
        rule: Rule = TokenBucket(self.rate / window, self._burst)
        match self.rule:
            case "sliding log":
                rule = SlidingLog(count, window)
            case "fixed window":
                rule = FixedWindow(count, window)
            case "wall-clock window":
                rule = WallClockWindow(count, window, wall)
            case "two-window estimate":
                rule = TwoWindowEstimate(count, window, wall, count_refusals=self.count_refusals)
        return rule

    def at_port(self, port: int | None) -> "Settings":
        """Give the same settings with another port, unless that is None."""
        return self if port is None else replace(self, port=port)


def _counts(number: float) -> bool:
    return number >= 1 and number % 1 == 0


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
