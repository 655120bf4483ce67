"""Where a fleet keeps answers: memcached.

Pages and answers are values with a frame (`stores.memcached.frame`); a look at both takes one
conversation, because a process remembers the pages that it saw last. What is read there is
untrusted, and what cannot be read is a miss. While a server does not answer there is nothing kept
by it; what was to be dropped meanwhile is dropped when it is back, before anything is read.
"""

import logging
import math
import secrets
import threading
from typing import Any

from cachetools import LRUCache

from ratekit import forks
from ratekit.cache.entry import Entry
from ratekit.cache.identity import Asked
from ratekit.cache.storage import Found, Page, Storage, together
from ratekit.errors import ConfigurationError, StoreError
from ratekit.http.fields import FOREVER
from ratekit.http.reply import Reply
from ratekit.stores.memcached.frame import Value, pack, unpack
from ratekit.stores.memcached.keys import digest_of, key_of
from ratekit.stores.memcached.server import Server
from ratekit.stores.memcached.store import MemcachedStore
from ratekit.stores.memcached.wire import Command, Delete, Get, Put
from ratekit.stores.memcached.wire import Reply as Told

__all__ = ["MemcachedStorage"]

_log = logging.getLogger("ratekit.cache")

_DAY = 86_400
_PAGE_LIFE = 30 * _DAY
_REMEMBERED = 10_000
# How long one process asks before another may take it for gone, in seconds.
_LEAD = 5
# How long all ask for themselves what could not be kept.
_PASS = 2
_MOST_TRIES = 100


class MemcachedStorage(Storage):
    """Answers in memcached, for every process that names the same servers, namespace and name."""

    def __init__(self, store: MemcachedStore, name: str) -> None:
        if not isinstance(name, str) or not name:
            raise ConfigurationError(f"name {name!r}: use text that says whose cache it is")
        self._store = store
        self._name = name
        self._epoch_key = self._key("epoch", "")
        self._renew()
        forks.renew_in_child(self)

    def _renew(self) -> None:
        # Guards what is remembered.
        self._lock = threading.Lock()
        self._pages: LRUCache[str, tuple[bytes, Page]] = LRUCache(_REMEMBERED)
        self._undone: LRUCache[str, bool] = LRUCache(_REMEMBERED)

    def after_fork(self) -> None:
        """In a child: whoever held the lock does not exist here."""
        self._renew()

    def now(self) -> float:
        """Return seconds since the epoch: what every host means by them."""
        return self._store.clock.wall()

    def wall(self) -> float:
        """Return the same."""
        return self._store.clock.wall()

    def find(self, asked: Asked) -> Found:
        """Return the page of a URL, and the answer that is kept for this request."""
        try:
            return self._find(asked)
        except StoreError:
            # Said once, by the server's own part.
            return None, None

    def _find(self, asked: Asked) -> Found:
        server, url = self._place(asked.url), asked.url
        with self._lock:
            is_undone = url in self._undone
            known = self._pages.get(url)
        if is_undone:
            self._drop(url)
        commands: list[Command] = [Get(self._epoch_key), Get(self._key("page", url))]
        if known is not None:
            commands.append(Get(self._answer_key(asked, known[1])))
        epoch, told, *more = server.talk(commands)
        page = self._page(url, epoch, told)
        if page is None:
            return None, None
        if known is None or known != (epoch.value, page):
            with self._lock:
                self._pages[url] = epoch.value, page
            more = server.talk([Get(self._answer_key(asked, page))])
        if not more[0].done:
            return page, None
        value = unpack(more[0].value, key=self._logical(asked, page))
        return page, None if value is None else _entry(value)

    def _page(self, url: str, epoch: Told, told: Told) -> Page | None:
        value = unpack(told.value, key=url.encode("utf-8", "surrogatepass")) if told.done else None
        match None if value is None else value.meta:
            case {"mark": str(mark), "epoch": str(of), "vary": list(names)} if all(
                isinstance(name, str) for name in names
            ):
                # Of before everything was dropped.
                return Page(mark, tuple(names)) if of == _text(epoch.value) else None
        return None

    opens_early = True

    def open(self, asked: Asked) -> Page | None:
        """Return the page of a URL, a new one if need be, for an answer that is to come."""
        server, key = self._place(asked.url), self._key("page", asked.url)
        try:
            (epoch,) = server.talk([Get(self._epoch_key)])
            frame = _page_frame(asked.url, Page(secrets.token_hex(8)), _text(epoch.value))
            # A page that is there stays; one of before everything was dropped does not.
            _, told = server.talk([Put(key, frame, _PAGE_LIFE, cas=0), Get(key)])
            page = self._page(asked.url, epoch, told)
            if page is None:
                _, told = server.talk([Put(key, frame, _PAGE_LIFE), Get(key)])
                page = self._page(asked.url, epoch, told)
        except StoreError:
            return None
        return page

    def keep(self, asked: Asked, page: Page, vary: frozenset[str], entry: Entry) -> bool:
        """Keep an answer that was asked for when `page` was there; return whether it is kept."""
        seconds = math.ceil(entry.kept_for())
        if seconds <= 0:
            return False
        try:
            grown = self._grow(asked.url, page, vary)
            if grown is None:
                return False
            key = self._answer_key(asked, grown)
            frame = pack(_value(entry), key=self._logical(asked, grown))
            if frame is None:
                # Too large. What it was to replace is older.
                self._place(asked.url).talk([Delete(key)])
                return False
            return self._place(asked.url).talk([Put(key, frame, seconds)])[0].done
        except (StoreError, ValueError, TypeError) as error:
            _log.debug("an answer could not be kept: %s", error)
            return False

    def _grow(self, url: str, page: Page, vary: frozenset[str]) -> Page | None:
        """Let the page know these fields as well; None where it was dropped meanwhile."""
        server, key = self._place(url), self._key("page", url)
        for _ in range(_MOST_TRIES):
            grown = together(page, vary)
            if grown is None or grown == page:
                return grown
            epoch, told = server.talk([Get(self._epoch_key), Get(key)])
            here = self._page(url, epoch, told)
            if here is None or here.mark != page.mark:
                return None
            page, grown = here, together(here, vary)
            if grown is None:
                return None
            frame = _page_frame(url, grown, _text(epoch.value))
            if server.talk([Put(key, frame, _PAGE_LIFE, cas=told.cas)])[0].done:
                return grown
        return None

    def take_lead(self, mark: str) -> bool:
        """Return whether this process is the one that asks for the answer with this name.

        (memcached stores of all that add at once the first one alone.)
        """
        key = self._key("lead", mark)
        try:
            put, told = self._place(mark).talk([Put(key, b"lead", _LEAD, cas=0), Get(key)])
        except StoreError:
            return True
        return put.done or told.value == b"pass"

    def give_up_lead(self, mark: str, *, for_all: bool) -> None:
        """Let another process ask: this one has nothing to keep; or all of them, `for_all`."""
        key = self._key("lead", mark)
        try:
            self._place(mark).talk([Put(key, b"pass", _PASS) if for_all else Delete(key)])
        except StoreError:
            # It ends by itself.
            return

    def drop(self, url: str) -> None:
        """Drop the page of a URL; if it cannot be now, then before it is read again."""
        self.drops += 1
        with self._lock:
            self._undone[url] = True
        try:
            self._drop(url)
        except StoreError as error:
            _log.warning("what was kept could not be dropped yet: %s", error)

    def _drop(self, url: str) -> None:
        self._place(url).talk([Delete(self._key("page", url))])
        with self._lock:
            self._undone.pop(url, None)
            self._pages.pop(url, None)

    def clear(self) -> None:
        """Drop everything, in every process. Raises `StoreError` where a server does not answer."""
        for server in self._store.servers:
            server.talk([Put(self._epoch_key, secrets.token_hex(8).encode(), _PAGE_LIFE)])

    def usage(self) -> dict[str, int]:
        """Return nothing: memcached does not say what of all it holds is whose."""
        return {}

    def _place(self, what: str) -> Server:
        return self._store.server_of(digest_of(self._store.namespace, self._name, what))

    def _key(self, kind: str, what: str) -> bytes:
        return key_of(f"cache-{kind}", digest_of(self._store.namespace, self._name, what))

    def _answer_key(self, asked: Asked, page: Page) -> bytes:
        return self._key("answer", f"{page.mark} {asked.variant(page.vary)}")

    def _logical(self, asked: Asked, page: Page) -> bytes:
        text = f"{asked.url}\0{page.mark}\0{asked.variant(page.vary)}"
        return text.encode("utf-8", "surrogatepass")

    def __getstate__(self) -> dict[str, object]:
        return {"store": self._store, "name": self._name}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["store"], state["name"])  # type: ignore[misc]


def _text(value: bytes) -> str:
    return value.decode("ascii", "replace")


def _page_frame(url: str, page: Page, epoch: str) -> bytes:
    meta = {"mark": page.mark, "vary": list(page.vary), "epoch": epoch}
    value = Value(meta=meta, body=b"", created_ms=0, fresh_until_ms=0, stale_until_ms=0)
    frame = pack(value, key=url.encode("utf-8", "surrogatepass"))
    if frame is None:
        raise StoreError("the page of a URL is too large to be kept")
    return frame


def _value(entry: Entry) -> Value:
    reply = entry.reply
    fresh_until = entry.stored_at + max(0.0, entry.fresh_for - entry.age)
    return Value(
        meta={
            "status": reply.status,
            "reason": reply.reason,
            "version": reply.version,
            "headers": [list(pair) for pair in reply.headers],
            "age": entry.age,
            "fresh_for": entry.fresh_for,
            "if_error": entry.if_error,
            "while_revalidate": entry.while_revalidate,
            "always": entry.always,
            "never_stale": entry.never_stale,
            "etag": entry.etag,
            "modified": entry.modified,
        },
        body=reply.body,
        created_ms=int(entry.stored_at * 1000),
        fresh_until_ms=int(fresh_until * 1000),
        stale_until_ms=int((entry.stored_at + entry.kept_for()) * 1000),
    )


def _entry(value: Value) -> Entry | None:
    """Return what a value says; None where that is no entry."""
    match value.meta:
        case {
            "status": int(status), "reason": str(reason), "version": int(version),
            "headers": list(pairs), "age": float() | int() as age,
            "fresh_for": float() | int() as fresh_for,
            "if_error": float() | int() as if_error,
            "while_revalidate": float() | int() as while_revalidate,
            "always": bool(always), "never_stale": bool(never_stale),
            "etag": str() | None as etag, "modified": str() | None as modified,
        } if (
            200 <= status < 600
            and all(0 <= one <= FOREVER for one in (age, fresh_for, if_error, while_revalidate))
            and all(map(_is_pair, [*pairs, ["etag", etag or ""], ["modified", modified or ""]]))
        ):  # fmt: skip
            reply = Reply(
                status,
                [(name, text) for name, text in pairs],
                value.body,
                reason=reason,
                version=version,
            )
            return Entry(
                reply=reply,
                stored_at=value.created_ms / 1000,
                age=age,
                fresh_for=fresh_for,
                always=always,
                never_stale=never_stale,
                if_error=if_error,
                while_revalidate=while_revalidate,
                etag=etag,
                modified=modified,
            )
    return None


def _is_pair(pair: object) -> bool:
    match pair:
        case [str(name), str(text)]:
            both = name + text
            return bool(name) and not any(end in both for end in "\r\n\0") and max(both) <= "\xff"
    return False
