"""State shared through memcached: `MemcachedStore`.

pymemcache connects and hashes; the conversation on the socket is ratekit's own (`wire`). It is
imported when the first connection is made.
"""

from ratekit.stores.memcached.store import MemcachedStore

__all__ = ["MemcachedStore"]
