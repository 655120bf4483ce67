"""Limiters of one form side by side: windows, and two limits at once, as each library has them.

`FORMS` names for each form who has it: functions that take the limits, and return one that takes a
permit for a key and never waits. Two limits are one text for ratekit and two rates in a bucket of
pyrate-limiter's; who uses limits or throttled-py asks for the one and then for the other. (So
permits of the first are lost where the second refuses; nobody is refused here.)
"""

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

from ratekit import RateLimiter
from tests.benchmarks.limiters import Check, Terms
from tests.benchmarks.measure import installed, peer

__all__ = ["FORMS", "Build"]

Build = Callable[[tuple[Terms, ...]], Check]


def _ratekit(form: str, several: tuple[Terms, ...]) -> Check:
    parts = (
        f"{terms.permits}/{terms.seconds} seconds "
        + (f"burst {terms.burst}" if form == "bucket" else form)
        for terms in several
    )
    return RateLimiter("; ".join(parts)).check


def _limits(strategy: str, several: tuple[Terms, ...]) -> Check:
    limits, strategies = peer("limits"), peer("limits.strategies")
    hit = getattr(strategies, strategy)(peer("limits.storage").MemoryStorage()).hit
    items = [limits.RateLimitItemPerSecond(terms.permits, terms.seconds) for terms in several]
    if len(items) == 1:
        return partial(hit, items[0])
    first, second = items
    return lambda key: hit(first, key) and hit(second, key)


def _pyrate(kind: str, several: tuple[Terms, ...]) -> Check:
    pyrate = peer("pyrate_limiter")
    rates = [pyrate.Rate(terms.permits, terms.seconds * 1000, terms.burst) for terms in several]
    bucket: Any
    if kind == "TokenBucket":
        bucket = pyrate.StateBucket(rates, algorithm=pyrate.TokenBucket())
    else:
        bucket = pyrate.InMemoryBucket(rates, algorithm=getattr(pyrate, kind)())
    return partial(pyrate.Limiter(bucket).try_acquire, blocking=False)


def _throttled(algorithm: str, several: tuple[Terms, ...]) -> Check:
    throttled = peer("throttled")
    checks = []
    for terms in several:
        period = timedelta(seconds=terms.seconds)
        checks.append(
            throttled.Throttled(
                using=algorithm,
                quota=throttled.per_duration(period, terms.permits, burst=terms.burst),
                store=throttled.MemoryStore(),
            ).limit
        )
    if len(checks) == 1:
        return partial(_throttled_one, checks[0])
    return partial(_throttled_two, *checks)


def _throttled_one(limit: Any, key: str) -> bool:
    return not limit(key).limited


def _throttled_two(first: Any, second: Any, key: str) -> bool:
    return not (first(key).limited or second(key).limited)


def _installed(builds: dict[str, tuple[str, Build]]) -> dict[str, Build]:
    return {name: build for name, (module, build) in builds.items() if installed(module)}


FORMS: dict[str, dict[str, Build]] = {
    "window": _installed({
        "ratekit": ("ratekit", partial(_ratekit, "window")),
        "limits moving": ("limits", partial(_limits, "MovingWindowRateLimiter")),
        "limits sliding": ("limits", partial(_limits, "SlidingWindowCounterRateLimiter")),
        "pyrate InMemoryBucket": ("pyrate_limiter", partial(_pyrate, "SlidingWindowLog")),
        "throttled sliding": ("throttled", partial(_throttled, "sliding_window")),
    }),
    "fixed": _installed({
        "ratekit": ("ratekit", partial(_ratekit, "fixed")),
        "limits fixed": ("limits", partial(_limits, "FixedWindowRateLimiter")),
        "pyrate FixedWindow": ("pyrate_limiter", partial(_pyrate, "FixedWindow")),
        "throttled fixed": ("throttled", partial(_throttled, "fixed_window")),
    }),
    "bucket": _installed({
        "ratekit": ("ratekit", partial(_ratekit, "bucket")),
        "pyrate TokenBucket": ("pyrate_limiter", partial(_pyrate, "TokenBucket")),
        "throttled gcra": ("throttled", partial(_throttled, "gcra")),
        "throttled token bucket": ("throttled", partial(_throttled, "token_bucket")),
    }),
}  # fmt: skip
"""Who has each form. What counts exactly keeps every grant (limits moving, pyrate) or groups of
them (ratekit); limits sliding and throttled sliding estimate from two counters."""
