"""A storage in memory, and answers to keep in it."""

from typing import Any

from ratekit.cache.entry import Entry
from ratekit.cache.identity import Asked
from ratekit.cache.storage import MemoryStorage
from ratekit.http.reply import Reply
from ratekit.testing import FakeClock

__all__ = ["MIB", "URL", "asked", "body_of", "entry", "keep", "storage_of"]

URL = "https://api.example.com/a"
MIB = 1 << 20


def storage_of(clock: FakeClock, size: int = 64 * MIB, entries: int = 100_000) -> MemoryStorage:
    """Return an empty one with so much room."""
    return MemoryStorage(clock, size, entries)


def asked(url: str = URL, who: str = "", /, **headers: str) -> Asked:
    """Return a request as the cache sees it."""
    return Asked(url, who, headers)


def entry(storage: MemoryStorage, body: bytes = b"body", **changes: Any) -> Entry:
    """Return an answer that is fresh for a minute, and of no use after that."""
    fields: dict[str, Any] = {
        "reply": Reply(200, [("X", "1")], body),
        "stored_at": storage.now(),
        "age": 0.0,
        "fresh_for": 60.0,
        "always": False,
        "never_stale": True,
        "if_error": 0.0,
        "while_revalidate": 0.0,
        "etag": None,
        "modified": None,
    }
    return Entry(**{**fields, **changes})


def keep(
    storage: MemoryStorage, what: Asked, body: bytes = b"body", *vary: str, **changes: Any
) -> bool:
    """Keep an answer to a request, as one that was just asked for."""
    page = storage.open(what)
    assert page is not None
    return storage.keep(what, page, frozenset(vary), entry(storage, body, **changes))


def body_of(storage: MemoryStorage, what: Asked) -> bytes | None:
    """Return the body that is kept for a request."""
    found = storage.find(what)[1]
    return None if found is None else found.reply.body
