"""The limiters that are measured side by side, each behind the same two plain functions.

`CHECKS` and `KEYED` hold functions that take a permit for a key and never wait; `WAITS` those that
wait for it. Each is set up as its own documentation says for speed, and made to hold what it is
asked to: throttled-py and nopanic keep 1024 keys unless they are told more, and then silently
forget limits that still bind.
"""

import threading
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any, NamedTuple

from ratekit import RateLimiter
from tests.benchmarks.measure import installed, peer

__all__ = ["CHECKS", "KEYED", "REFERENCE", "WAITS", "Check", "Terms"]

REFERENCE = "reference"
"""The floor: a GCRA in ten lines around a dict and a lock. No library, but what one may cost."""

_MANY = 2**20


class Terms(NamedTuple):
    """A limit that every library can be told: `permits` in `seconds`, `burst` of them at once."""

    permits: int
    seconds: int
    burst: int

    @property
    def rate(self) -> float:
        """Permits a second."""
        return self.permits / self.seconds


Check = Callable[[str], object]
"""Takes a permit for a key."""


class Reference:
    """What a programmer writes who wants a rate limit and no dependency."""

    def __init__(self, rate: float, burst: int) -> None:
        self.interval, self.depth = 1 / rate, burst / rate
        self.ends: dict[str, float] = {}
        self.lock = threading.Lock()

    def check(self, key: str) -> bool:
        """Take a permit if there is one."""
        with self.lock:
            now = time.monotonic()
            end = self.ends.get(key, now)
            # Not max(): it would double the time of the whole.
            end = (end if end > now else now) + self.interval  # noqa: FURB136
            if end - self.depth > now:
                return False
            self.ends[key] = end
            return True

    def wait(self, key: str) -> None:
        """Reserve a permit and sleep until it is due."""
        with self.lock:
            now = time.monotonic()
            end = self.ends[key] = max(self.ends.get(key, now), now) + self.interval
        if end - self.depth > now:
            time.sleep(end - self.depth - now)


def _text(terms: Terms) -> str:
    return f"{terms.permits}/{terms.seconds} seconds burst {terms.burst}"


def _ratekit(terms: Terms) -> Check:
    return RateLimiter(_text(terms)).check


def _reference(terms: Terms) -> Check:
    return Reference(terms.rate, terms.burst).check


def _limits(strategy: str, terms: Terms) -> Check:
    limits, strategies = peer("limits"), peer("limits.strategies")
    limiter = getattr(strategies, strategy)(peer("limits.storage").MemoryStorage())
    return partial(limiter.hit, limits.RateLimitItemPerSecond(terms.permits, terms.seconds))


def _pyrate_bucket(kind: str, terms: Terms) -> Any:
    pyrate = peer("pyrate_limiter")
    rates = [pyrate.Rate(terms.permits, terms.seconds * 1000, terms.burst)]
    if kind == "TokenBucket":
        return pyrate.StateBucket(rates, algorithm=pyrate.TokenBucket())
    return pyrate.InMemoryBucket(rates)


def _pyrate(kind: str, terms: Terms) -> Check:
    limiter = peer("pyrate_limiter").Limiter(_pyrate_bucket(kind, terms))
    return partial(limiter.try_acquire, blocking=False)


def _pyrate_keyed(kind: str, terms: Terms) -> Check:
    pyrate = peer("pyrate_limiter")

    # The library routes keys to buckets through a factory that its user writes.
    class BucketPerKey(pyrate.BucketFactory):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            self.by_key: dict[str, Any] = {}

        def wrap_item(self, name: str, weight: int = 1) -> Any:
            return pyrate.RateItem(name, self.get_named(name).now(), weight)

        def get(self, item: Any) -> Any:
            return self.get_named(item.name)

        def get_named(self, name: str) -> Any:
            bucket = self.by_key.get(name)
            if bucket is None:
                bucket = self.by_key[name] = _pyrate_bucket(kind, terms)
            return bucket

    return partial(pyrate.Limiter(BucketPerKey()).try_acquire, blocking=False)


def _throttled(algorithm: str, terms: Terms, timeout: float | None = None) -> Check:
    throttled = peer("throttled")
    period = timedelta(seconds=terms.seconds)
    limit: Check = throttled.Throttled(
        using=algorithm,
        quota=throttled.per_duration(period, terms.permits, burst=terms.burst),
        store=throttled.MemoryStore(options={"MAX_SIZE": _MANY}),
        timeout=timeout,
    ).limit
    return limit


def _nothing(key: str) -> None:
    """Be what is limited where a library only decorates."""


def _nopanic(terms: Terms, max_wait: float | None = 0) -> Check:
    limiter = peer("nopanic").rate_limit(
        terms.permits, terms.seconds, burst=terms.burst, max_wait=max_wait
    )
    decorated: Check = limiter(_nothing)
    return decorated


def _nopanic_keyed(terms: Terms) -> Check:
    nopanic = peer("nopanic")

    def limiter_of(key: str) -> Any:
        return nopanic.rate_limit(terms.permits, terms.seconds, burst=terms.burst, max_wait=0)

    decorated: Check = nopanic.keyed(limiter_of, key=str, maxsize=_MANY)(_nothing)
    return decorated


def _ratekit_wait(headroom: float, terms: Terms) -> Check:
    return RateLimiter(_text(terms), headroom=headroom).acquire


def _reference_wait(terms: Terms) -> Check:
    return Reference(terms.rate, terms.burst).wait


def _pyrate_wait(kind: str, terms: Terms) -> Check:
    return partial(peer("pyrate_limiter").Limiter(_pyrate_bucket(kind, terms)).try_acquire)


def _installed(all_of: dict[str, tuple[str, Any]]) -> dict[str, Callable[[Terms], Check]]:
    return {name: build for name, (module, build) in all_of.items() if installed(module)}


CHECKS = _installed({
    REFERENCE: ("ratekit", _reference),
    "ratekit": ("ratekit", _ratekit),
    "nopanic rate_limit": ("nopanic", _nopanic),
    "limits fixed": ("limits", partial(_limits, "FixedWindowRateLimiter")),
    "limits sliding": ("limits", partial(_limits, "SlidingWindowCounterRateLimiter")),
    "limits moving": ("limits", partial(_limits, "MovingWindowRateLimiter")),
    "throttled gcra": ("throttled", partial(_throttled, "gcra")),
    "throttled token bucket": ("throttled", partial(_throttled, "token_bucket")),
    "pyrate InMemoryBucket": ("pyrate_limiter", partial(_pyrate, "InMemoryBucket")),
    "pyrate TokenBucket": ("pyrate_limiter", partial(_pyrate, "TokenBucket")),
})  # fmt: skip
"""Each takes `Terms` and returns `check(key)`; those without keys take no notice of theirs."""

KEYED = {
    name: build for name, build in CHECKS.items() if not name.startswith(("pyrate", "nopanic"))
} | _installed({
    "nopanic keyed": ("nopanic", _nopanic_keyed),
    "pyrate InMemoryBucket": ("pyrate_limiter", partial(_pyrate_keyed, "InMemoryBucket")),
    "pyrate TokenBucket": ("pyrate_limiter", partial(_pyrate_keyed, "TokenBucket")),
})  # fmt: skip
"""Each takes `Terms` and returns a `check(key)` that keeps the keys apart."""

WAITS = _installed({
    "ratekit": ("ratekit", partial(_ratekit_wait, 0.99)),
    "ratekit, headroom=1": ("ratekit", partial(_ratekit_wait, 1.0)),
    REFERENCE: ("ratekit", _reference_wait),
    "nopanic rate_limit": ("nopanic", partial(_nopanic, max_wait=None)),
    "pyrate TokenBucket": ("pyrate_limiter", partial(_pyrate_wait, "TokenBucket")),
    "throttled gcra": ("throttled", partial(_throttled, "gcra", timeout=60)),
})  # fmt: skip
"""Each takes `Terms` and returns a function that waits for a permit of its key."""
