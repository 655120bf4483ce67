"""From a `Config` to its pipeline; and the one that all clients of a process share."""

import logging
from collections.abc import Callable
from typing import Any
from weakref import WeakValueDictionary

from ratekit._options import Options
from ratekit.backoff import Backoff
from ratekit.breaker import CircuitBreaker
from ratekit.budget import RetryBudget
from ratekit.cache import Cache
from ratekit.concurrency import Concurrency
from ratekit.config.fields import Config
from ratekit.config.hosts import ByHost
from ratekit.config.texts import key_function
from ratekit.dedup import Dedup
from ratekit.limits.limiter import RateLimiter
from ratekit.policy import Pipeline, Policy, one_for
from ratekit.retry import Retry
from ratekit.stores import MemcachedStore

__all__ = ["build", "shared"]

_LONGEST_COOLDOWN = 300.0
_CACHE_BYTES = 64 << 20
_LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "off": logging.CRITICAL + 1,
}

# Configurations that name the same servers share connections, and what is known of them.
_stores: "WeakValueDictionary[tuple[Any, ...], MemcachedStore]" = WeakValueDictionary()


def shared(config: Config) -> Pipeline:
    """Return the pipeline of a configuration: the same one everywhere in this process."""
    from hashlib import blake2b  # slow to import, and not every program needs it

    digest = blake2b(config.canonical().encode(), digest_size=16).hexdigest()
    pipeline = one_for(f"config:{digest}", lambda: build(config))
    _set_log(config.log)
    return pipeline


def build(config: Config) -> Pipeline:
    """Return a new pipeline for a configuration; with sections for hosts one for each, in one."""
    _set_log(config.log)
    made: dict[tuple[Any, str], Policy | None] = {}
    default = _pipeline(config.for_host(""), "", made)
    if not config.hosts:
        return default
    hosts = {
        pattern: _pipeline(config.for_host(pattern), pattern, made) for pattern in config.hosts
    }
    return Pipeline(ByHost(default, hosts), options=default.options)


def _pipeline(config: Config, section: str, made: dict[tuple[Any, str], Policy | None]) -> Pipeline:
    """Return a pipeline in the design's order. What two sections say alike is one policy's."""
    name = config.name or ("ratekit" if config.is_shared else None)
    if name is not None and section:
        # State of another form needs a name of its own.
        name = f"{name} {section}"
    policies = []
    for make, settings in _PARTS:
        key = make, config.canonical(settings)
        if key not in made:
            made[key] = make(config, name)
        policy = made[key]
        if policy is not None:
            policies.append(policy)
    options = Options(
        max_wait=config.max_wait,
        deadline=config.deadline,
        timeout=config.timeout,
        throttle_statuses=frozenset(config.throttle_statuses) or None,
        read_bodies=config.read_bodies or None,
        max_retry_after=config.max_retry_after,
        refusal=config.refusal,
    )
    return Pipeline(*policies, options=options)


# One for each policy, None where that is off. `name` is whose state it is.


def _cache(config: Config, name: str | None) -> Policy | None:
    if not config.keeps_answers:
        return None
    return Cache(
        ttl=config.cache_ttl,
        override=config.cache == "ttl",
        stale_if_error=config.stale_if_error or 0,
        secret=_secret(config),
        store=_store_of(config),
        name=f"{name or 'ratekit'} cache",
        max_bytes=config.cache_size or _CACHE_BYTES,
    )


def _dedup(config: Config, name: str | None) -> Policy | None:
    return Dedup() if config.dedup else None


def _retry(config: Config, name: str | None) -> Policy | None:
    if not config.retry_attempts:
        return None
    return Retry(
        config.retry_attempts,
        backoff=Backoff(base=config.retry_base, cap=config.retry_cap),
        statuses=config.retry_statuses,
        methods=config.retry_methods,
        budget=None if config.retry_budget is None else RetryBudget(config.retry_budget),
    )


def _breaker(config: Config, name: str | None) -> Policy | None:
    if config.breaker is None:
        return None
    return CircuitBreaker(
        config.breaker,
        cooldown=config.breaker_cooldown,
        longest_cooldown=max(_LONGEST_COOLDOWN, config.breaker_cooldown),
        # Its circuits have the keys that the limiter's permits have: two names, two states.
        name=None if name is None else f"{name} circuits",
        store=_store_of(config),
    )


def _limiter(config: Config, name: str | None) -> Policy | None:
    if config.limit is None and config.tiers is None and config.adapt == "off":
        return None
    return RateLimiter(
        config.limit,
        name=name,
        key_of=key_function(config.key, _secret(config)),
        tiers=config.tiers,
        headroom=config.headroom,
        store=_store_of(config),
        adapt=config.adapt,
        spend=config.spend,
        warn_below=config.warn_below,
    )


def _concurrency(config: Config, name: str | None) -> Policy | None:
    return None if config.concurrency is None else Concurrency(config.concurrency)


_WHERE = ("name", "store", "namespace", "on_store_error")
_RETRY = (
    "retry_attempts", "retry_base", "retry_cap", "retry_budget", "retry_statuses", "retry_methods",
)  # fmt: skip
_PARTS: tuple[tuple[Callable[[Config, str | None], Policy | None], tuple[str, ...]], ...] = (
    (_cache, ("cache", "cache_ttl", "cache_size", "stale_if_error", "secret", *_WHERE)),
    (_dedup, ("dedup",)),
    (_retry, _RETRY),
    (_breaker, ("breaker", "breaker_cooldown", *_WHERE)),
    (
        _limiter,
        ("limit", "tiers", "key", "secret", "headroom", "adapt", "spend", "warn_below", *_WHERE),
    ),
    (_concurrency, ("concurrency",)),
)
"""In the order of the road, each with the settings that it is made of."""


def _secret(config: Config) -> bytes | None:
    # It was given as either, and read.
    return config.secret if isinstance(config.secret, bytes) else None


def _store_of(config: Config) -> MemcachedStore | None:
    if not config.is_shared:
        return None
    on_error: Any = config.on_store_error or "local"
    where = config.store, config.namespace or "", on_error
    store = _stores.get(where)
    if store is None:
        made = MemcachedStore(config.store, namespace=config.namespace or "", on_error=on_error)
        store = _stores.setdefault(where, made)
    return store


def _set_log(level: str | None) -> None:
    if level is None:
        return
    logger = logging.getLogger("ratekit")
    logger.setLevel(_LEVELS[level])
    if not logger.handlers:
        handler = logging.StreamHandler()
        # As long as the program has said nowhere where its logs go.
        handler.addFilter(lambda record: not logging.getLogger().handlers)
        handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
        logger.addHandler(handler)
