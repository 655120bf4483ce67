"""The cache: `Cache`, and what it is made of."""

from ratekit.cache.policy import Cache

__all__ = ["Cache"]
