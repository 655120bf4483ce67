"""The cache: what was answered before is not asked again.

RFC 9111, as a private cache unless it is told to be a shared one, with RFC 5861's graces and the
`Cache-Status` of RFC 9211 on every answer that passed through.
"""

import threading
from collections.abc import Callable, Iterable, Mapping
from typing import ParamSpec, TypeVar

from ratekit import forks
from ratekit.cache.answers import hit, nothing_kept, say
from ratekit.cache.entry import Grace
from ratekit.cache.identity import Identity
from ratekit.cache.storage import MemoryStorage, Storage
from ratekit.cache.trip import Keeping, Trip
from ratekit.cache.ttl import TtlRules
from ratekit.call import Call, Outcome, Proceed, SendFailed
from ratekit.checks import check_number, check_positive
from ratekit.clock import SYSTEM, Clock
from ratekit.errors import ConfigurationError, DeadlineExceeded, Rejected
from ratekit.http.fields import FOREVER
from ratekit.http.freshness import Rules
from ratekit.http.origin import origin_of
from ratekit.http.reply import Recording
from ratekit.policy import Policy
from ratekit.stores import MemcachedStore, Store, open_store

__all__ = ["Cache"]

P = ParamSpec("P")
T = TypeVar("T")

_SAFE = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
# Whose answers may be kept: the others change something each time.
_CACHEABLE = frozenset({"GET", "HEAD", "POST", "OPTIONS", "QUERY", "REPORT", "SEARCH", "PROPFIND"})
# In whose place a stale answer may stand.
_FAILURES = (SendFailed, Rejected, DeadlineExceeded)
# Stale answers that are asked for anew at the same time.
_REVALIDATORS = 1024
# How long one who asks, or reads what he was answered, keeps others from it, in seconds.
_LONGEST_REVALIDATION = 30.0

MIB = 1 << 20


class Cache(Policy):
    """Answers what was answered before, as long as that is still true.

    Without arguments the server decides, by RFC 9111. `ttl`: seconds that an answer is fresh where
    the server says nothing; `rules`: the same by URL, `{"https://api.example.com/users/*": 600}`,
    the first that matches (0 keeps nothing); with `override` both hold whatever the server says.
    `stale_if_error`, `stale_while_revalidate`: seconds beyond its freshness that an answer may
    still be used, while the server fails, and while one caller asks for a new one.

    Whoever asks gets his own answers only: credentials are part of what an answer is kept under, as
    a hash. They are `Authorization`, `Cookie`, every field whose name speaks of a token, a key or a
    session, the usual parameters of a query, and those that `headers` and `params` name besides.
    `shared=True` follows the rules of a shared cache instead (RFC 9111, 3.5). `methods`: with
    "POST" among them, requests of that kind are cached too, by their bodies; but not those whose
    body has the word "mutation" in it, which GraphQL says of a write.

    `max_bytes`, `max_entries`: how much is kept in memory. `max_entry`: the longest body that is
    kept, in bytes. `store`: memcached, or its URL, for answers that a fleet shares under `name`
    (a server keeps what fits into 1 MB, compressed). `secret`: what credentials are hashed with,
    16 bytes or more and the same in all processes; without one, as others could.
    Raises `ConfigurationError` for what cannot be right.
    """

    spares_attempts = True
    keeps_answers = True

    def __init__(
        self,
        *,
        ttl: float | None = None,
        rules: Mapping[str, float] | None = None,
        override: bool = False,
        stale_if_error: float = 0,
        stale_while_revalidate: float = 0,
        shared: bool = False,
        methods: str | Iterable[str] = ("GET", "HEAD"),
        headers: str | Iterable[str] = (),
        params: str | Iterable[str] = (),
        secret: bytes | None = None,
        store: Store | str | None = None,
        name: str = "cache",
        max_bytes: int = 64 * MIB,
        max_entries: int = 100_000,
        max_entry: int = 4 * MIB,
        clock: Clock = SYSTEM,
    ) -> None:
        check_number("stale_if_error", stale_if_error, unit="seconds")
        check_number("stale_while_revalidate", stale_while_revalidate, unit="seconds")
        for what, number in (
            ("max_bytes", max_bytes), ("max_entries", max_entries), ("max_entry", max_entry),
        ):  # fmt: skip
            check_positive(what, number)
        seconds_for = TtlRules(ttl, rules or {})
        if override and not seconds_for:
            raise ConfigurationError("override: give the ttl, or the rules, that are to hold")
        self._keeping = Keeping(
            Rules(shared=shared, ttl=None if ttl is None else min(ttl, FOREVER), override=override),
            seconds_for,
            Grace(min(stale_if_error, FOREVER), min(stale_while_revalidate, FOREVER)),
            max_entry,
        )
        self._storage = _storage_of(store, name, clock, int(max_bytes), int(max_entries))
        if secret is None and not isinstance(self._storage, MemoryStorage):
            # The same in every process; who reads the server's memory reads the answers, too.
            secret = f"ratekit cache of {name}".encode()
        self._identity = Identity(headers, params, secret, shared=shared)
        methods = [methods] if isinstance(methods, str) else methods
        self._methods = frozenset(method.upper() for method in methods)
        if not self._methods <= _CACHEABLE:
            wrong = ", ".join(sorted(self._methods - _CACHEABLE))
            raise ConfigurationError(
                f"methods: an answer to {wrong} must not stand for another; use some of "
                f"{', '.join(sorted(_CACHEABLE))}"
            )
        self.clock = clock
        self._renew()
        forks.renew_in_child(self)

    def _renew(self) -> None:
        # Guards what is below.
        self._lock = threading.Lock()
        self._hits = self._misses = 0
        # Which stale answers somebody is asking for anew, and until when he may be waited for.
        self._revalidated: dict[str, float] = {}

    def after_fork(self) -> None:
        """In a child: whoever held the lock, or was asking, does not exist here."""
        self._renew()

    def run(self, call: Call, proceed: Proceed) -> Outcome:
        """Answer from what is kept, or let the call go on and keep what comes of it."""
        method = call.method
        options = call.options
        if method not in self._methods or call.respond is None:
            return self._pass_by(call, proceed)
        asked = None
        if not options.no_cache:
            with_body = method not in {"GET", "HEAD"}
            asked = self._identity.describe(call, method or "", with_body=with_body)
        if asked is None or asked.unanswerable:
            if options.cached_only:
                return nothing_kept(call, "ratekit; fwd=bypass; detail=only-if-cached")
            return self._pass_by(call, proceed, "bypass")
        found = self._storage.find(asked)
        entry = found[1]
        if entry is not None:
            age = entry.age_at(self._storage.now())
            if not options.refresh and entry.is_usable(age, asked.said):
                self._hits += 1
                return hit(call, asked, entry, age)
        return self._go(call, proceed, Trip(call, asked, found, self._storage, self._keeping))

    def _pass_by(self, call: Call, proceed: Proceed, why: str = "method") -> Outcome:
        """Let a call pass that is never answered from here, and drop what it may have changed."""
        if call.method is None or call.respond is None:
            return proceed(call)
        if call.options.cached_only:
            return nothing_kept(call, "ratekit; fwd=method; detail=only-if-cached")
        if call.method in _SAFE:
            return say(proceed(call), f"fwd={why}")
        try:
            outcome = proceed(call)
        except SendFailed as failed:
            if failed.sent:
                # Nobody knows whether it was acted on.
                self._invalidate(call, {})
            raise
        if outcome.status is not None and 200 <= outcome.status < 400:
            self._invalidate(call, outcome.headers)
        return say(outcome, f"fwd={why}")

    def _invalidate(self, call: Call, headers: Mapping[str, str]) -> None:
        """Drop what an unsafe request has changed (RFC 9111, 4.4)."""
        self._storage.drop(self._identity.normal(call.url, call.key)[0])
        for name in ("location", "content-location"):
            where = headers.get(name)
            if where:
                from urllib.parse import urljoin  # slow to import, and seldom needed

                try:
                    url = urljoin(call.url, where)
                except ValueError:
                    # What a server sends here need not be a URL.
                    continue
                if url.startswith((f"{call.key}/", f"{call.key}?")):
                    self._storage.drop(self._identity.normal(url, call.key)[0])

    def _go(self, call: Call, proceed: Proceed, trip: Trip) -> Outcome:
        """Ask the server, or answer with what is stale where that is allowed."""
        asked, entry = trip.asked, trip.entry
        if asked.said.only_if_cached or call.options.cached_only:
            return nothing_kept(call, f"ratekit; fwd={trip.why}; detail=only-if-cached")
        mark = trip.mark() if entry is not None and trip.may_revalidate() else ""
        if mark and not self._begin(mark, trip):
            self._hits += 1
            return trip.stale("stale-while-revalidate")
        wanted = call.wanted
        if call.method != "HEAD":
            call.wanted = (*wanted, trip.wants)
            call.trip = trip
            if asked.conditions is None and entry is not None:
                call.added = entry.conditions()
        try:
            outcome = trip.end(proceed(call))
        except BaseException as error:
            trip.give_up()
            self._end(mark, None)
            if isinstance(error, _FAILURES) and trip.may_stand_in():
                self._hits += 1
                return trip.stale("stale-if-error")
            raise
        finally:
            call.added, call.wanted, call.trip = None, wanted, None
        self._end(mark, outcome.recording)
        if outcome.from_cache:
            self._hits += 1
        else:
            self._misses += 1
        return outcome

    def _begin(self, mark: str, trip: Trip) -> bool:
        """Return whether this call asks: of those that may use a stale answer one does."""
        now = self._storage.now()
        with self._lock:
            if self._revalidated.get(mark, 0.0) > now:
                return False
            if len(self._revalidated) >= _REVALIDATORS:
                # Those of answers that nobody read to their end.
                self._revalidated.clear()
            self._revalidated[mark] = now + _LONGEST_REVALIDATION
        if trip.take_lead():
            return True
        self._end(mark, None)
        return False

    def _end(self, mark: str, recording: Recording | None) -> None:
        """Let another one ask, once the new answer is kept or will never be."""
        if not mark:
            return
        if recording is not None:
            recording.then(lambda _: self._end(mark, None))
            return
        with self._lock:
            self._revalidated.pop(mark, None)

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
        rules = self._keeping.rules
        said = [f"ttl={rules.ttl}"] if rules.ttl is not None else []
        said += ["shared=True"] if rules.shared else []
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


def _storage_of(
    store: Store | str | None, name: str, clock: Clock, max_bytes: int, max_entries: int
) -> Storage:
    opened = None if store is None else open_store(store)
    if isinstance(opened, MemcachedStore):
        from ratekit.cache.shared import MemcachedStorage

        return MemcachedStorage(opened, name)
    return MemoryStorage(clock, max_bytes, max_entries)
