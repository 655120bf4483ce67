"""Which settings do not go together. Nothing that was said is left without an effect."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from ratekit.config.texts import LIMIT, SECRET
from ratekit.errors import ConfigurationError

if TYPE_CHECKING:
    from ratekit.config.fields import Config

__all__ = ["check_together"]

_CACHING = ("cache", "rfc or ttl")
_SHARING = ("store", "a URL such as memcached://127.0.0.1:11211")
_NEEDS = {
    "cache_ttl": _CACHING,
    "cache_size": _CACHING,
    "stale_if_error": _CACHING,
    "namespace": _SHARING,
    "on_store_error": _SHARING,
}


def check_together(config: "Config", label: Callable[[str], str]) -> None:
    """Raise `ConfigurationError`; `label` returns how it calls a setting."""

    def wrong(name: str, what: str) -> ConfigurationError:
        return ConfigurationError(f"{label(name)} {config.shown(name)!r}: {what}")

    for name, (other, right) in _NEEDS.items():
        # What was said to be off (which is a word, and not None) may have its settings.
        if getattr(config, name) is not None and getattr(config, other) is None:
            raise wrong(
                name,
                f"nothing uses it, because {label(other)} is not set; set that to {right}, or "
                "leave this out",
            )
    limit, tiers = config.limit, config.tiers or {}
    if limit is not None and "/" not in limit and limit not in tiers:
        known = ", ".join(tiers) or "none is named"
        raise wrong("limit", f"neither a limit nor a tier ({known}); use {LIMIT.right}")
    if tiers and limit is None and config.adapt == "off":
        raise wrong(
            "tiers",
            f"no limit holds for a call of no tier, and with {label('adapt')} 'off' none is "
            f"learned; set {label('limit')}, to a limit or one of the tiers",
        )
    if config.cache == "ttl" and config.cache_ttl is None:
        raise wrong(
            "cache", f"for how long is not said; set {label('cache_ttl')} to seconds, such as 60"
        )
    if config.is_shared and config.keeps_answers and config.cache_size is not None:
        raise wrong(
            "cache_size",
            "in memcached the server's memory bounds what is kept (memcached -m); leave this out",
        )
    if config.is_shared and config.secret is None and config.counts_credentials:
        raise wrong(
            "key",
            "processes that share state need a secret in common for the keys of credentials; set "
            f"{label('secret')} to {SECRET.right}",
        )
    if config.retry_cap < config.retry_base:
        raise wrong(
            "retry_cap" if config.source("retry_cap") else "retry_base",
            f"the first pause, {label('retry_base')} of {config.shown('retry_base')}, is longer "
            f"than the longest, {label('retry_cap')} of {config.shown('retry_cap')}; use a lower "
            "base or a higher cap",
        )
