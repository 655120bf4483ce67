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

# What the tables themselves take for an answer and the page it stands on, in bytes, about.
_OVERHEAD = 1500
# So many pages may be there whose answers have not come yet.
_SPARE = 256
# Of a URL with more answers than this, those that are gone are forgotten.
_MANY = 1000
# By how many fields the answers to one URL may vary.
MOST_FIELDS = 32


class Page(NamedTuple):
    """What is known of a URL: the mark under which its answers are kept, and their `Vary`."""

    mark: str
    vary: tuple[str, ...] = ()


Found = tuple[Page | None, Entry | None]


class Storage(ABC):
    """Keeps answers. What goes wrong in it is a miss, and never an error."""

    opens_early = False
    """Whether a page is opened before the server is asked: others drop what is kept here, too."""
    drops = 0
    """How often this process has dropped what is kept for a URL."""

    @abstractmethod
    def now(self) -> float:
        """Return seconds by the clock that `Entry.stored_at` is measured by."""

    @abstractmethod
    def wall(self) -> float:
        """Return seconds since the epoch, to compare with what a server dates."""

    @abstractmethod
    def find(self, asked: Asked) -> Found:
        """Return the page of a URL, and the answer that is kept for this request."""

    @abstractmethod
    def open(self, asked: Asked) -> Page | None:
        """Return the page of a URL, a new one if need be, for an answer that is to come."""

    @abstractmethod
    def keep(self, asked: Asked, page: Page, vary: frozenset[str], entry: Entry) -> bool:
        """Keep an answer that was asked for when `page` was there; return whether it is kept."""

    def take_lead(self, mark: str) -> bool:
        """Return whether this process is the one that asks for the answer with this name."""
        return True

    def give_up_lead(self, mark: str, *, for_all: bool) -> None:  # noqa: B027  (nothing to do)
        """Let another process ask: this one has nothing to keep; or all of them, `for_all`."""

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
        self._answers: TLRUCache[str, Entry] = TLRUCache(
            self._max_bytes, _gone_at, timer=self.now, getsizeof=_size
        )
        self._pages: dict[str, Page] = {}
        # The answers that stand on a page, by its mark; some of them may be gone.
        self._under: dict[str, set[str]] = {}

    def after_fork(self) -> None:
        """In a child: whoever held the lock does not exist here, and may have half done."""
        if self._lock.locked():
            self._renew()
        self._lock = threading.Lock()

    def now(self) -> float:
        """Return seconds by this clock."""
        return self._clock.now_ns() / SECOND

    def wall(self) -> float:
        """Return this clock's time since the epoch."""
        return self._clock.wall()

    def find(self, asked: Asked) -> Found:
        """Return the page of a URL, and the answer that is kept for this request."""
        with self._lock:
            page = self._pages.get(asked.url)
            if page is None:
                return None, None
            try:
                return page, self._answers[f"{page.mark} {asked.variant(page.vary)}"]
            except KeyError:
                return page, None

    def open(self, asked: Asked) -> Page | None:
        """Return the page of a URL, a new one if need be."""
        with self._lock:
            page = self._pages.get(asked.url)
            if page is None:
                self._make_room()
                page = self._pages[asked.url] = Page(f"{next(self._numbers)}")
        return page

    def _make_room(self) -> None:
        """Drop the pages without an answer, when there are more of them than of the others."""
        if len(self._pages) >= 2 * (len(self._answers) + _SPARE):
            used = {key.partition(" ")[0] for key in self._answers}
            # The last ones stay: their answers may be on their way.
            last = dict(list(self._pages.items())[-_SPARE:])
            left = {url: page for url, page in self._pages.items() if page.mark in used}
            self._pages = left | last
            marks = {page.mark for page in self._pages.values()}
            self._under = {mark: keys for mark, keys in self._under.items() if mark in marks}

    def keep(self, asked: Asked, page: Page, vary: frozenset[str], entry: Entry) -> bool:
        """Keep an answer, and drop others until there is room for it."""
        answers = self._answers
        with self._lock:
            here = self._pages.get(asked.url)
            # Dropped meanwhile: what was asked for before that is not kept.
            if here is None or here.mark != page.mark:
                return False
            grown = together(here, vary)
            if grown is None:
                return False
            self._pages[asked.url] = grown
            key = f"{grown.mark} {asked.variant(grown.vary)}"
            if entry.kept_for() <= 0:
                answers.pop(key, None)
                return False
            while key not in answers and len(answers) >= self._max_entries:
                answers.popitem()
            try:
                answers[key] = entry
            except ValueError:
                # Larger than all the room there is. What it was to replace is older.
                answers.pop(key, None)
            under = self._under.setdefault(grown.mark, set())
            under.add(key)
            if len(under) > _MANY:
                under.intersection_update(list(answers))
            return key in answers

    def drop(self, url: str) -> None:
        """Drop the page of a URL."""
        self.drops += 1
        with self._lock:
            page = self._pages.pop(url, None)
            for key in self._under.pop(page.mark, ()) if page is not None else ():
                self._answers.pop(key, None)

    def clear(self) -> None:
        """Drop everything."""
        with self._lock:
            self._renew()

    def usage(self) -> dict[str, int]:
        """Return `entries` and `bytes`, as they are now."""
        with self._lock:
            return {"entries": len(self._answers), "bytes": int(self._answers.currsize)}

    def __getstate__(self) -> dict[str, object]:
        return {"clock": self._clock, "bytes": self._max_bytes, "entries": self._max_entries}

    def __setstate__(self, state: dict[str, object]) -> None:
        # A copy in another process begins empty.
        self.__init__(state["clock"], state["bytes"], state["entries"])  # type: ignore[misc]


def _gone_at(key: str, entry: Entry, now: float) -> float:
    return now + entry.kept_for()


def _size(entry: Entry) -> float:
    return _OVERHEAD + entry.reply.size()
