"""ratekit: a synchronous program as a good and fast citizen of other people's HTTP APIs."""

from typing import TYPE_CHECKING, Any

from ratekit._options import Options, options
from ratekit.backoff import Backoff
from ratekit.breaker import CircuitBreaker
from ratekit.budget import RetryBudget
from ratekit.cache import Cache
from ratekit.concurrency import Concurrency
from ratekit.dedup import Dedup
from ratekit.errors import (
    Cancelled,
    CircuitOpen,
    ConcurrencyFull,
    ConfigurationError,
    DeadlineExceeded,
    RateKitError,
    RateLimited,
    Rejected,
    StoreError,
)
from ratekit.fallback import Fallback
from ratekit.limits.decision import Decision
from ratekit.limits.limit import Limit
from ratekit.limits.limiter import RateLimiter
from ratekit.policy import Pipeline, Policy
from ratekit.retry import Retry
from ratekit.stores import MemcachedStore, MemoryStore

if TYPE_CHECKING:
    from ratekit.config import Config

__version__ = "0.1.0"

__all__ = [
    "Backoff",
    "Cache",
    "Cancelled",
    "CircuitBreaker",
    "CircuitOpen",
    "Concurrency",
    "ConcurrencyFull",
    "Config",
    "ConfigurationError",
    "DeadlineExceeded",
    "Decision",
    "Dedup",
    "Fallback",
    "Limit",
    "MemcachedStore",
    "MemoryStore",
    "Options",
    "Pipeline",
    "Policy",
    "RateKitError",
    "RateLimited",
    "RateLimiter",
    "Rejected",
    "Retry",
    "RetryBudget",
    "StoreError",
    "options",
]

if not TYPE_CHECKING:  # a checker must not take every name for one of ours

    def __getattr__(name: str) -> Any:
        # A program that builds its pipeline itself does not pay for reading settings.
        if name == "Config":
            from ratekit.config import Config

            return Config
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
