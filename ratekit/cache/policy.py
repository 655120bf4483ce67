"""The cache: what was answered before is not asked again.

RFC 9111, as a private cache unless it is told to be a shared one, with RFC 5861's graces and the
`Cache-Status` of RFC 9211 on every answer that passed through.
"""

import threading
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from dataclasses import replace
from typing import ParamSpec, TypeVar

from ratekit import forks
from ratekit.cache.entry import Entry, Grace, entry_of, fields_of, freshened
from ratekit.cache.identity import API_KEY_PARAMS, Asked, Identity
from ratekit.cache.storage import MemoryStorage, Page, Storage
from ratekit.cache.ttl import TtlRules
from ratekit.call import Call, Outcome, Proceed, SendFailed
from ratekit.checks import check_number, check_positive
from ratekit.clock import SYSTEM, Clock
from ratekit.errors import ConfigurationError, DeadlineExceeded, Rejected
from ratekit.http.dates import parse_http_date
from ratekit.http.fields import directives, is_listed, listed, opaque
from ratekit.http.freshness import Rules, why_not_stored
from ratekit.http.origin import origin_of
from ratekit.http.reply import Reply
from ratekit.keys.credential import CREDENTIAL_HEADERS
from ratekit.policy import Policy

__all__ = ["Cache"]

P = ParamSpec("P")
T = TypeVar("T")

_SAFE = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
# RFC 5861, 4: the answers in whose place a stale one may stand.
_ERRORS = frozenset({500, 502, 503, 504})
_OF_A_BODY = frozenset({"content-length", "content-encoding", "content-type", "content-range"})
# Stale answers that are asked for anew at the same time.
_REVALIDATORS = 1024

MIB = 1 << 20


class Cache(Policy):
    """Answers what was answered before, as long as that is still true.

    Without arguments the server decides, by RFC 9111. `ttl`: seconds that an answer is fresh where
    the server says nothing; `rules`: the same by URL, `{"https://api.example.com/users/*": 600}`,
    the first that matches (0 keeps nothing); with `override` both hold whatever the server says.
    `stale_if_error`, `stale_while_revalidate`: seconds beyond its freshness that an answer may
    still be used, while the server fails, and while one caller asks for a new one.

    Whoever asks gets his own answers only: credentials (`Authorization`, `Cookie`, the fields in
    `headers`, the parameters of the query in `params`) are part of what an answer is kept under,
    as a hash. `shared=True` follows the rules of a shared cache instead (RFC 9111, 3.5).
    `methods`: with "POST" among them, requests of that kind are cached too, by their bodies.

    `max_bytes`, `max_entries`: how much is kept. `max_entry`: the longest body that is, in bytes.
    Raises `ConfigurationError` for what cannot be right.
    """

    def __init__(
        self,
        *,
        ttl: float | None = None,
        rules: Mapping[str, float] | None = None,
        override: bool = False,
        stale_if_error: float = 0,
        stale_while_revalidate: float = 0,
        shared: bool = False,
        methods: Iterable[str] = ("GET", "HEAD"),
        headers: Iterable[str] = CREDENTIAL_HEADERS,
        params: Iterable[str] = API_KEY_PARAMS,
        secret: bytes | None = None,
        max_bytes: int = 64 * MIB,
        max_entries: int = 100_000,
        max_entry: int = 4 * MIB,
        clock: Clock = SYSTEM,
    ) -> None:
        for name, seconds in (
            ("stale_if_error", stale_if_error),
            ("stale_while_revalidate", stale_while_revalidate),
        ):
            check_number(name, seconds, unit="seconds")
        for name, number in (
            ("max_bytes", max_bytes), ("max_entries", max_entries), ("max_entry", max_entry),
        ):  # fmt: skip
            check_positive(name, number)
        self._ttl = TtlRules(ttl, rules or {})
        if override and not self._ttl:
            raise ConfigurationError("override: give the ttl, or the rules, that are to hold")
        self._rules = Rules(shared=shared, ttl=ttl, override=override)
        self._grace = Grace(stale_if_error, stale_while_revalidate)
        self._identity = Identity(headers, params, secret)
        self._methods = frozenset(method.upper() for method in methods)
        self._max_entry = max_entry
        self.clock = clock
        self._storage: Storage = MemoryStorage(clock, max_bytes, max_entries)
        self._renew()
        forks.renew_in_child(self)

    def _renew(self) -> None:
        # Guards what is below.
        self._lock = threading.Lock()
        self._hits = self._misses = 0
        # Which stale answers somebody is asking for anew.
        self._revalidated: set[str] = set()

    def after_fork(self) -> None:
        """In a child: whoever held the lock, or was asking, does not exist here."""
        self._renew()

    def run(self, call: Call, proceed: Proceed) -> Outcome:
        """Answer from what is kept, or let the call go on and keep what comes of it."""
        method = call.method
        options = call.options
        if method not in self._methods or call.respond is None:
            return self._pass_by(call, proceed)
        if options.no_cache:
            return _say(proceed(call), "fwd=bypass")
        with_body = method not in {"GET", "HEAD"}
        asked = self._identity.describe(call, method or "", with_body=with_body)
        if asked is None or asked.unanswerable:
            return _say(proceed(call), "fwd=bypass")
        page, entry = self._storage.find(asked)
        if entry is not None:
            age = entry.age_at(self._storage.now())
            if not options.refresh and entry.is_usable(age, asked.said):
                return self._hit(call, asked, entry, age)
        return self._go(call, proceed, _Trip(self, call, asked, page, entry))

    def _hit(
        self, call: Call, asked: Asked | None, entry: Entry, age: float, why: str = ""
    ) -> Outcome:
        """Answer from what is kept."""
        self._hits += 1
        left = entry.fresh_for - age
        status = f"ratekit; hit; ttl={left.__floor__()}{why}"
        reply = entry.reply
        if (
            asked is not None
            and asked.conditions is not None
            and _is_known(asked.conditions, entry)
        ):
            reply = _not_modified(reply)
        return _answer(call, reply, age, status)

    def _pass_by(self, call: Call, proceed: Proceed) -> Outcome:
        """Let a call pass that is never answered from here, and drop what it may have changed."""
        if call.method is None or call.respond is None:
            return proceed(call)
        if call.method in _SAFE:
            return _say(proceed(call), "fwd=method")
        try:
            outcome = proceed(call)
        except SendFailed as failed:
            if failed.sent:
                # Nobody knows whether it was acted on.
                self._invalidate(call, {})
            raise
        if outcome.status is not None and 200 <= outcome.status < 400:
            self._invalidate(call, outcome.headers)
        return _say(outcome, "fwd=method")

    def _invalidate(self, call: Call, headers: Mapping[str, str]) -> None:
        """Drop what an unsafe request has changed (RFC 9111, 4.4)."""
        self._storage.drop(self._identity.locate(call)[0])
        for name in ("location", "content-location"):
            where = headers.get(name)
            if where:
                from urllib.parse import urljoin  # slow to import, and seldom needed

                url = urljoin(call.url, where)
                if url.startswith((f"{call.key}/", f"{call.key}?")):
                    self._storage.drop(self._identity.normal(url, call.key)[0])

    def _go(self, call: Call, proceed: Proceed, trip: "_Trip") -> Outcome:
        """Ask the server, or answer with what is stale where that is allowed."""
        asked, entry, options = trip.asked, trip.entry, call.options
        if asked.said.only_if_cached or options.cached_only:
            return _answer(
                call, _nothing_kept(), None, f"ratekit; fwd={trip.why}; detail=only-if-cached"
            )
        alone = self._begin(trip)
        if not alone and entry is not None:
            return self._hit(call, asked, entry, trip.age(), "; detail=stale-while-revalidate")
        self._misses += 1
        if call.method != "HEAD" and asked.conditions is None and entry is not None:
            call.added = entry.conditions()
        wanted, again = call.wanted, call.again
        if call.method != "HEAD":
            call.wanted = (*wanted, trip.wants)
            call.again = trip.look_again
        try:
            outcome = proceed(call)
        except (SendFailed, Rejected, DeadlineExceeded):
            if entry is None or not trip.is_graced():
                raise
            return self._hit(call, asked, entry, trip.age(), "; detail=stale-if-error")
        finally:
            call.added, call.wanted, call.again = None, wanted, again
            self._end(trip)
        return trip.end(outcome)

    def _rules_for(self, call: Call) -> Rules:
        """Return by which rules the answer to a call is kept."""
        ttl = call.options.ttl
        if ttl is not None:
            return replace(self._rules, ttl=ttl, override=True)
        ttl = self._ttl.of(call.key, call.url)
        return self._rules if ttl == self._rules.ttl else replace(self._rules, ttl=ttl)

    def _begin(self, trip: "_Trip") -> bool:
        """Return whether this call is to ask: of those that may use a stale answer one does."""
        entry = trip.entry
        if entry is None or trip.call.options.refresh or not entry.while_revalidate:
            return True
        if not entry.is_graced(trip.age(), trip.asked.said, entry.while_revalidate):
            return True
        mark = trip.mark()
        with self._lock:
            if mark in self._revalidated:
                return False
            if len(self._revalidated) < _REVALIDATORS:
                self._revalidated.add(mark)
                trip.is_revalidating = True
        return True

    def _end(self, trip: "_Trip") -> None:
        if trip.is_revalidating:
            with self._lock:
                self._revalidated.discard(trip.mark())

    # What users do with it.

    def forget(self, url: str) -> None:
        """Drop all that is kept for a URL, whoever asked for it."""
        self._storage.drop(self._identity.normal(url, origin_of(url))[0])

    def clear(self) -> None:
        """Drop everything."""
        self._storage.clear()

    def info(self) -> dict[str, int]:
        """Return `hits` and `misses` since this cache was made, and what it holds now."""
        return {"hits": self._hits, "misses": self._misses, **self._storage.usage()}

    def __call__(self, function: Callable[P, T]) -> Callable[P, T]:
        """Raise `ConfigurationError`: a plain function's arguments are not known here."""
        raise ConfigurationError(
            "Cache keeps HTTP answers: put it into a Pipeline; for a plain function use "
            "functools.lru_cache or cachetools.cached"
        )

    def __repr__(self) -> str:
        said = [f"ttl={self._rules.ttl}"] if self._rules.ttl is not None else []
        said += ["shared=True"] if self._rules.shared else []
        return f"Cache({', '.join(said)})"

    def __getstate__(self) -> dict[str, object]:
        state = vars(self).copy()
        for name in ("_lock", "_revalidated", "_hits", "_misses"):
            del state[name]
        return state

    def __setstate__(self, state: dict[str, object]) -> None:
        vars(self).update(state)
        self._renew()
        forks.renew_in_child(self)


class _Trip:
    """One call that goes to the server, and what is to be kept of it."""

    def __init__(
        self, cache: Cache, call: Call, asked: Asked, page: Page | None, entry: Entry | None
    ) -> None:
        self.cache = cache
        self.call = call
        self.asked = asked
        self.page = page
        self.entry = entry
        self.is_revalidating = False
        storage = cache._storage
        self.storage = storage
        self._found_at = storage.now()
        self._asked_wall = call.clock.wall()
        # Why it goes (RFC 9211, 2.2).
        if call.options.refresh or (entry is not None and self._is_demanded(entry)):
            self.why = "request"
        elif entry is not None:
            self.why = "stale"
        else:
            self.why = "uri-miss" if page is None else "vary-miss"
        self._received_at, self._received_wall = self._found_at, self._asked_wall
        self._refusal: str | None = None
        self._rules = cache._rules

    def _is_demanded(self, entry: Entry) -> bool:
        """Return whether it is the request that wants more than what is kept."""
        said = self.asked.said
        fresh = entry.age_at(self._found_at) < entry.fresh_for and not entry.always
        return fresh and (said.no_cache or said.max_age is not None or said.min_fresh is not None)

    def mark(self) -> str:
        """Return the name of the answer that is asked for."""
        page = self.page
        return "" if page is None else f"{page.mark} {self.asked.variant(page.vary)}"

    def age(self) -> float:
        """Return how old the kept answer is now."""
        return 0.0 if self.entry is None else self.entry.age_at(self.storage.now())

    def is_graced(self, status: int | None = None) -> bool:
        """Return whether the kept answer may stand in for an error."""
        entry = self.entry
        if entry is None or self.call.options.refresh:
            return False
        longest = max(entry.if_error, entry.while_revalidate)
        said = self.asked.said.stale_if_error
        if status == 429:
            # The user's own grace alone: RFC 5861 does not have it.
            longest = self.cache._grace.if_error
        elif said is not None:
            longest = max(longest, said)
        return longest > 0 and entry.is_graced(self.age(), self.asked.said, longest)

    def look_again(self) -> Outcome | None:
        """Answer from what somebody else has kept meanwhile."""
        if self.call.options.refresh:
            return None
        page, entry = self.storage.find(self.asked)
        if entry is None or entry is self.entry:
            return None
        age = entry.age_at(self.storage.now())
        if not entry.is_usable(age, self.asked.said):
            return None
        self.page = page
        return self.cache._hit(self.call, self.asked, entry, age, "; collapsed")

    def wants(self, outcome: Outcome) -> int:
        """Return how many bytes of an answer's body are kept at most; 0: none of it."""
        status = outcome.status
        self._received_at, self._received_wall = self.storage.now(), self.call.clock.wall()
        if status == 304:
            return 0
        self._rules = self.cache._rules_for(self.call)
        said = directives(outcome.headers.get("cache-control", ""))
        self._refusal = why_not_stored(
            status or 0,
            outcome.headers,
            said,
            asked=self.asked.said,
            rules=self._rules,
            authorized=bool(self.asked.who),
        )
        return 0 if self._refusal else self.cache._max_entry

    def end(self, outcome: Outcome) -> Outcome:
        """Keep what came of it, and hand it on."""
        if outcome.from_cache:
            return outcome
        status, entry = outcome.status, self.entry
        if status == 304 and entry is not None and self.asked.conditions is None:
            return self._validated(outcome, entry)
        if (status in _ERRORS or status == 429) and self.is_graced(status) and entry is not None:
            outcome.discard()
            return self.cache._hit(
                self.call, self.asked, entry, self.age(), "; detail=stale-if-error"
            )
        said = f"fwd={self.why}; fwd-status={status}"
        if self.call.collapsed:
            return _say(outcome, f"{said}; collapsed")
        if self.call.method == "HEAD":
            return _say(outcome, said)
        if status == 304 and entry is not None:
            # The user's own question; the answer is true of what is kept as well.
            self._freshen(outcome, entry)
            return _say(outcome, said)
        if outcome.recording is None or self._refusal is not None:
            if entry is not None and status is not None and status < 300:
                # What is kept is older than what will not be.
                self.storage.drop(self.asked.url)
            return _say(outcome, f"{said}; detail={self._refusal or 'length'}")
        page = self.storage.open(self.asked) if self.page is None else self.page
        if page is None:
            return _say(outcome, said)
        self._keep_when_whole(outcome, page)
        return _say(outcome, f"{said}; stored")

    def _keep_when_whole(self, outcome: Outcome, page: Page) -> None:
        recording = outcome.recording
        if recording is None:
            return
        # As the server sent them: the user's copy is the user's to change.
        sent = outcome.reply(b"")
        fields = fields_of(sent.headers)
        entry = entry_of(
            sent,
            fields,
            rules=self._rules,
            grace=self.cache._grace,
            asked_wall=self._asked_wall,
            wall=self._received_wall,
            now=self._received_at,
        )
        vary = listed(fields.get("vary"))
        asked, storage = self.asked, self.storage

        def keep(body: bytes | None) -> None:
            if body is not None:
                storage.keep(asked, page, vary, entry.with_body(body))

        recording.then(keep)

    def _validated(self, outcome: Outcome, entry: Entry) -> Outcome:
        """Answer with what is kept: the server has said that it still holds."""
        entry = self._freshen(outcome, entry)
        outcome.discard()
        status = f"ratekit; fwd={self.why}; fwd-status=304; stored"
        return _answer(self.call, entry.reply, entry.age_at(self.storage.now()), status)

    def _freshen(self, outcome: Outcome, entry: Entry) -> Entry:
        etag = outcome.headers.get("etag")
        if etag is not None and opaque(etag) != opaque(entry.etag):
            # Of another answer than the one that is kept.
            return entry
        fresh = freshened(
            entry,
            outcome.reply(b"").headers,
            rules=self.cache._rules_for(self.call),
            grace=self.cache._grace,
            asked_wall=self._asked_wall,
            wall=self._received_wall,
            now=self._received_at,
        )
        if self.page is not None:
            self.storage.keep(self.asked, self.page, frozenset(), fresh)
        return fresh


def _answer(call: Call, reply: Reply, age: float | None, status: str) -> Outcome:
    assert call.respond is not None
    more = [("Cache-Status", status)]
    if age is not None:
        more.append(("Age", str(int(age))))
        call.from_cache = True
    outcome = call.respond(reply, more)
    outcome.from_cache = call.from_cache
    return outcome


def _say(outcome: Outcome, what: str) -> Outcome:
    """Add to `Cache-Status` what this cache did (RFC 9211)."""
    headers = outcome.headers
    if isinstance(headers, MutableMapping) and not outcome.from_cache:
        before = headers.get("cache-status")
        headers["Cache-Status"] = f"{before}, ratekit; {what}" if before else f"ratekit; {what}"
    return outcome


def _nothing_kept() -> Reply:
    headers = [("Content-Type", "text/plain"), ("Content-Length", "0")]
    return Reply(504, headers, b"", reason="Gateway Timeout")


def _is_known(conditions: Mapping[str, str], entry: Entry) -> bool:
    """Return whether the user has this answer already, by his own conditions (RFC 9110, 13.2.2)."""
    if entry.reply.status != 200:
        return False
    known = conditions.get("if-none-match")
    if known is not None:
        return is_listed(entry.etag, known)
    since = parse_http_date(conditions["if-modified-since"], 0.0)
    modified = None if entry.modified is None else parse_http_date(entry.modified, 0.0)
    return since is not None and modified is not None and modified <= since


def _not_modified(reply: Reply) -> Reply:
    """Return a 304 in the place of an answer (RFC 9110, 15.4.5)."""
    kept = [pair for pair in reply.headers if pair[0].lower() not in _OF_A_BODY]
    return Reply(304, kept, b"", reason="Not Modified", version=reply.version)
