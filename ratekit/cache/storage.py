"""Where answers are kept: in this process, bounded by bytes and by number.

An answer is found in two steps. The *page* of a URL says by which fields the server's answers vary
and has a mark of its own; an answer is kept under that mark and its variant. So whoever drops the
page has dropped all that was kept for the URL, for whomever, and nobody who fetched an answer
before that can bring it back.
"""

import itertools
import threading
from abc import ABC, abstractmethod
from typing import NamedTuple

from cachetools import TLRUCache

from ratekit import forks
from ratekit.cache.entry import Entry
from ratekit.cache.identity import Asked
from ratekit.clock import SECOND, Clock

__all__ = ["Found", "MemoryStorage", "Page", "Storage"]

# What the table itself takes for an item, in bytes, about.
_OVERHEAD = 900
# By how many fields the answers to one URL may vary.
MOST_FIELDS = 32


class Page(NamedTuple):
    """What is known of a URL: the mark under which its answers are kept, and their `Vary`."""

    mark: str
    vary: tuple[str, ...] = ()


Found = tuple[Page | None, Entry | None]


class Storage(ABC):
    """Keeps answers. What goes wrong in it is a miss, and never an error."""

    @abstractmethod
    def now(self) -> float:
        """Return seconds by the clock that `Entry.stored_at` is measured by."""

    @abstractmethod
    def find(self, asked: Asked) -> Found:
        """Return the page of a URL, and the answer that is kept for this request."""

    @abstractmethod
    def open(self, asked: Asked) -> Page | None:
        """Return the page of a URL, a new one if need be, for an answer that is to come."""

    @abstractmethod
    def keep(self, asked: Asked, page: Page, vary: frozenset[str], entry: Entry) -> bool:
        """Keep an answer that was asked for when `page` was there; return whether it is kept."""

    @abstractmethod
    def drop(self, url: str) -> None:
        """Drop all that is kept for a URL."""

    @abstractmethod
    def clear(self) -> None:
        """Drop everything."""

    @abstractmethod
    def usage(self) -> dict[str, int]:
        """Return what it holds now, as far as that is known."""


def together(page: Page, vary: frozenset[str]) -> Page | None:
    """Return the page that knows these fields as well; None where there are too many of them."""
    if vary.issubset(page.vary):
        return page
    union = tuple(sorted(vary.union(page.vary)))
    return page._replace(vary=union) if len(union) <= MOST_FIELDS else None


class MemoryStorage(Storage):
    """Answers in this process: the least recently used go first, and those that are of no use."""

    def __init__(self, clock: Clock, max_bytes: int, max_entries: int) -> None:
        self._clock = clock
        self._max_bytes = max_bytes
        self._max_entries = max_entries
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._renew()
        forks.renew_in_child(self)

    def _renew(self) -> None:
        self._kept: TLRUCache[str, Page | Entry] = TLRUCache(
            self._max_bytes, _gone_at, timer=self.now, getsizeof=_size
        )

    def after_fork(self) -> None:
        """In a child: whoever held the lock does not exist here, and may have half done."""
        if self._lock.locked():
            self._renew()
        self._lock = threading.Lock()

    def now(self) -> float:
        return self._clock.now_ns() / SECOND

    def find(self, asked: Asked) -> Found:
        kept = self._kept
        with self._lock:
            page = kept.get(asked.url)
            if not isinstance(page, Page):
                return None, None
            entry = kept.get(f"{page.mark} {asked.variant(page.vary)}")
        return page, entry if isinstance(entry, Entry) else None

    def open(self, asked: Asked) -> Page | None:
        with self._lock:
            page = self._kept.get(asked.url)
            if not isinstance(page, Page):
                page = Page(f"#{next(self._numbers)}")
                self._put(asked.url, page)
        return page

    def keep(self, asked: Asked, page: Page, vary: frozenset[str], entry: Entry) -> bool:
        with self._lock:
            here = self._kept.get(asked.url)
            # Dropped meanwhile: what was asked for before that is not kept.
            if not isinstance(here, Page) or here.mark != page.mark:
                return False
            grown = together(here, vary)
            if grown is None:
                return False
            if grown is not here:
                self._put(asked.url, grown)
            return self._put(f"{grown.mark} {asked.variant(grown.vary)}", entry)

    def _put(self, key: str, what: Page | Entry) -> bool:
        kept = self._kept
        while key not in kept and len(kept) >= self._max_entries:
            kept.popitem()
        try:
            kept[key] = what
        except ValueError:
            # Larger than all the room there is. What it was to replace is older.
            kept.pop(key, None)
            return False
        return key in kept

    def drop(self, url: str) -> None:
        with self._lock:
            self._kept.pop(url, None)

    def clear(self) -> None:
        with self._lock:
            self._kept.clear()

    def usage(self) -> dict[str, int]:
        with self._lock:
            entries = sum(isinstance(one, Entry) for one in self._kept.values())
            return {"entries": entries, "bytes": int(self._kept.currsize)}

    def __getstate__(self) -> dict[str, object]:
        return {"clock": self._clock, "bytes": self._max_bytes, "entries": self._max_entries}

    def __setstate__(self, state: dict[str, object]) -> None:
        # A copy in another process begins empty.
        self.__init__(state["clock"], state["bytes"], state["entries"])  # type: ignore[misc]


def _gone_at(key: str, what: Page | Entry, now: float) -> float:
    return now + what.kept_for() if isinstance(what, Entry) else float("inf")


def _size(what: Page | Entry) -> float:
    return _OVERHEAD + (what.reply.size() if isinstance(what, Entry) else 0)
