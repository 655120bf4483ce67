"""What a limiter learns of a server from its answers, and the pace that follows from it.

Learned state belongs to host and credential, whatever key the user chose for the limit. Attempts
that have their permit of the limit pass here; where a slower pace was learned they wait for it in a
line of their own, the last one before the wire.
"""

import logging
import math
import re
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from ratekit import forks
from ratekit.call import Call, Outcome, Proceed, Verdict
from ratekit.clock import SECOND, Clock, to_ns
from ratekit.errors import DeadlineExceeded, Rejected, StoreError
from ratekit.events import PaceLearned, QuotaLow, QuotaSeen, deliver, tell
from ratekit.keys import by_credential
from ratekit.limits import pace as paces
from ratekit.limits.gcra import Bucket
from ratekit.limits.limit import Limit
from ratekit.limits.pace import Pace
from ratekit.limits.tiers import Tier
from ratekit.limits.told import Lesson, Window, heard
from ratekit.limits.waiting import Granted, line_of
from ratekit.quota import Quota
from ratekit.stores import Take
from ratekit.stores.memory import MemorySpace

if TYPE_CHECKING:
    from ratekit.limits.shared.paces import FleetPaces
    from ratekit.limits.shared.waiting import SharedWaiting
    from ratekit.limits.waiting import Waiting

__all__ = ["Learning"]

_log = logging.getLogger("ratekit.limits")

# Of so many hosts and credentials it is remembered what they accept.
_MOST_KEYS = 10_000
# A pace so near to what was told is no other.
_NEAR = 0.99
# How many attempts a second find out whether a window that was shut is open again, at least: the
# first that is refused holds the others.
_TESTS = 10.0
# A change of pace worth a line in the log.
_WORTH_SAYING = 0.2
# One absurd answer does not end a process's work for days.
_LONGEST_HOLD = 3600.0
# What was sent before a pace was known delays the rest by so much at most.
_MOST_DEBT_NS = 2 * SECOND
# For those who still wait when there is no pace any more.
_AT_ONCE = Bucket(Limit("at once", 1, 1000), 1000, 1)
# After a hold nobody is released as a herd.
_GENTLE = Bucket(Limit("gently", 1, SECOND // 1000), SECOND // 1000, 1)
# How often a fleet is asked what it has learned, while it learns.
_ASK_NS = SECOND // 20
# What is left at least of the pace that a server told a fleet of, after a refusal.
_FLEET_FLOOR = 0.9
# Routes whose bucket is remembered for a host, and the longest name of one.
_MOST_ROUTES, _LONGEST_BUCKET = 1000, 100
# A part of a path that names one thing of many.
_ID = re.compile(r"/[^/]*\d[^/]*")

WaitIn = Callable[["Waiting | SharedWaiting", str, Bucket, int], Granted]
"""Waits in a line for a turn of this price, by the rules of one call."""


class _Known:
    """One host and credential. Its fields are guarded by the lock of its `Learning`."""

    __slots__ = (
        "admitted", "asked_at", "debt_ns", "flying", "held_until", "is_bucket", "is_low", "pace",
        "paced", "routes", "said", "told", "way", "windows",
    )  # fmt: skip

    def __init__(self, now: int) -> None:
        self.pace = paces.FREE._replace(begin=now)
        # Attempts admitted since the stretch began, and those under way. (A set: what is added to
        # it and taken from it needs no lock.)
        self.admitted = 0
        # When the fleet was asked last what it has learned.
        self.asked_at = 0
        self.flying: set[Call] = set()
        self.told = math.inf
        self.windows: dict[str, Window] = {}
        # The rule in force, and how to take by it; None while there is no pace but the limiter's.
        self.way: tuple[Bucket, Take | None] | None = None
        # The permits a second that the rule stands for, and what is to be paid before the first.
        self.paced = math.inf
        self.debt_ns = 0
        # Where the server names them: which of its buckets a route belongs to, and until when this
        # one is held.
        self.routes: dict[str, str] = {}
        self.held_until = 0
        self.is_bucket = False
        # What the log was told last.
        self.said = 0.0
        self.is_low = False


class Learning:
    """What one limiter has learned, by host and credential.

    `headers`: whether quota headers are read, or refusals alone count. `even`: whether what is
    left of a long window is spread over it. `warn`: the share of a quota below which a warning
    tells that little is left. `fleet`: the lines and the paces of a fleet that learns together,
    and what its credentials are hashed with.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        headers: bool,
        even: bool,
        warn: float,
        headroom: float,
        fleet: "tuple[SharedWaiting, FleetPaces, bytes] | None" = None,
    ) -> None:
        self._clock = clock
        self._headers = headers
        self._even = even
        self._warn = warn
        self._headroom = headroom
        self._by_credential = by_credential(secret=None if fleet is None else fleet[2])
        self._space = MemorySpace(clock, _MOST_KEYS)
        self._line: Waiting | SharedWaiting = line_of(self._space)
        self._paces: FleetPaces | None = None
        if fleet is not None:
            self._line, self._paces, _ = fleet
        self._lock = threading.Lock()
        self._known: dict[str, _Known] = {}
        forks.renew_in_child(self)

    def after_fork(self) -> None:
        """In a child: whoever held the lock, or was under way, does not exist here."""
        self._lock = threading.Lock()
        for known in self._known.values():
            known.flying = set()

    def pace_of(self, call: Call) -> float:
        """Return the permits a second that were learned for a call's host and credential."""
        known = self._known.get(self._key_of(call))
        return math.inf if known is None else known.paced

    def about(self, key: str) -> dict[str, Any]:
        """Return the pace and the quotas that were learned for an origin, whoever asked."""
        now = self._clock.now_ns() / SECOND
        with self._lock:
            # A credential's key begins with the origin.
            origin = key.partition(" ")[0]
            found = [one for name, one in self._known.items() if origin and origin in name]
            windows = [
                {"window": name, "left": window.remaining, "reset_in": window.reset_at - now}
                for one in found
                for name, window in one.windows.items()
                if window.reset_at > now
            ]
        paced = min((one.paced for one in found), default=math.inf)
        return {"pace": None if paced == math.inf else paced, "quota": windows}

    def _key_of(self, call: Call) -> str:
        key = self._by_credential(call) or call.key
        # The lines of a fleet are the limiter's own: these are not to be its keys too.
        return key if self._paces is None else f"learned {key}"

    def run(
        self, call: Call, proceed: Proceed, its: Tier, wait: WaitIn
    ) -> tuple[Outcome, int | None]:
        """Make the attempt at the learned pace, and learn from its answer.

        `its`: the limiter's own limits. Also returns for how many nanoseconds nothing should be
        sent to the host now, None where the answer does not say so.
        """
        key = self._key_of(call)
        # Most hosts tell nothing and refuse nothing: this way there is no lock.
        host = known = self._known.get(key) or self._begin(key)
        if host.routes:
            bucket = host.routes.get(_route_of(call))
            if bucket is not None:
                key = f"{key} {bucket}"
                known = self._of_bucket(key)
        way = known.way
        if way is not None and way[0] is _GENTLE and self._is_over(known):
            known.way = None
        granted = None if way is None else self._turn(call, key, *way, wait)
        known.flying.add(call)
        sent = self._clock.now_ns()
        try:
            outcome = proceed(call)
        except (Rejected, DeadlineExceeded):
            if granted is not None:
                self._line.give_back(key, *granted)
            raise
        finally:
            known.flying.discard(call)
        if host is known:
            bucket = self._bucket_of(host, call, outcome)
            if bucket:
                key = f"{key} {bucket}"
                known = self._of_bucket(key)
        hold_ns = self._learn(key, known, call, outcome, sent, its)
        if hold_ns is not None and known is not host:
            # Not the whole host: only what is of this bucket.
            outcome.held_ns = hold_ns
            return outcome, None
        return outcome, hold_ns

    def _of_bucket(self, key: str) -> _Known:
        known = self._known.get(key) or self._begin(key)
        if not known.is_bucket:
            known.is_bucket = True
            if self._paces is not None and known.way is None:
                # Where another process was refused, this one must hear of it.
                known.way = self._way(_GENTLE)
        return known

    def _way(self, rule: Bucket) -> tuple[Bucket, Take | None]:
        """Return a rule, and how to take by it without a wait, where that can be."""
        return rule, None if self._paces else self._space.taker(rule, rule.interval_ns)

    def _is_over(self, known: _Known) -> bool:
        """Return whether those who waited for the end of a hold are gone."""
        if self._paces is not None and known.is_bucket:
            return False
        return self._clock.now_ns() > known.held_until + SECOND

    def _bucket_of(self, host: _Known, call: Call, outcome: Outcome) -> str:
        """Return the bucket or resource that the server counts this call on, and note it."""
        headers = outcome.headers
        if not self._headers or not outcome.quotas() or headers.get("x-ratelimit-global"):
            return ""
        bucket = headers.get("x-ratelimit-bucket") or headers.get("x-ratelimit-resource") or ""
        if not bucket or len(bucket) > _LONGEST_BUCKET or len(host.routes) >= _MOST_ROUTES:
            return ""
        host.routes[_route_of(call)] = bucket
        return bucket

    def _begin(self, key: str) -> _Known:
        with self._lock:
            if len(self._known) >= _MOST_KEYS:
                # The oldest: if it is in use still, it is learned anew.
                del self._known[next(iter(self._known))]
            return self._known.setdefault(key, _Known(self._clock.now_ns()))

    def _turn(
        self, call: Call, key: str, rule: Bucket, take: Take | None, wait: WaitIn
    ) -> tuple[Bucket, int, int, int]:
        cost = call.options.cost
        if take is None:
            allowed, state, used_ns = False, 0, 0
            price = round(rule.interval_ns * (1 if cost is None else cost))
        elif cost is None or cost == 1:
            allowed, state, used_ns, price = take(key)
        else:
            price = round(rule.interval_ns * cost)
            allowed, state, used_ns, price = self._space.taker(rule, price)(key)
        if not allowed:
            state, used_ns, waited_ns = wait(self._line, key, rule, price)
            call.waited_ns += waited_ns
        return rule, state, used_ns, price

    def _learn(
        self, key: str, known: _Known, call: Call, outcome: Outcome, sent: int, its: Tier
    ) -> int | None:
        """Learn from an answer; return the nanoseconds for which nothing should be sent."""
        if outcome.status is None:
            return None
        if outcome.is_error and outcome.verdict(call.options) is Verdict.THROTTLED:
            return self._refused(key, known, call, outcome, sent, its)
        quotas = outcome.quotas() if self._headers else ()
        known.admitted += 1
        pace = known.pace
        if not quotas and not pace.shut_at and not pace.step_at:
            return None
        lesson = None
        if quotas:
            with self._lock:
                lesson = self._heard(known, quotas, self._clock.now_ns())
        is_open = False
        if pace.shut_at or pace.step_at:
            best = min(its.pace, known.told)
            is_open = self._change(key, known, sent, self._admitted(known, best))
        with self._lock:
            changed = self._plan(known, its.pace)
        if changed or is_open:
            # Whoever found out that it is open had the first turn of the new pace.
            self._follow(key, known, call, is_first=is_open)
        if lesson is None:
            return None
        if call.listeners:
            deliver(call.listeners, QuotaSeen(key, quotas))
        self._warn_of(key, known, lesson, call)
        if lesson.hold <= 0:
            return None
        hold_ns = to_ns(min(lesson.hold, _LONGEST_HOLD))
        self._hold(key, known, hold_ns)
        return hold_ns

    def _change(
        self, key: str, known: _Known, sent: int, make: Callable[[Pace, int, int, int], Pace]
    ) -> bool:
        """Replace a pace by `make(pace, now, sent, admitted)`; return whether it is open again."""
        if self._paces is not None:
            return self._change_together(key, known, sent, make)
        with self._lock:
            before = known.pace
            after = known.pace = make(before, self._clock.now_ns(), sent, known.admitted)
            if after.begin != before.begin:
                known.admitted = 0
        return bool(before.shut_at and not after.shut_at)

    def _change_together(
        self, key: str, known: _Known, sent: int, make: Callable[[Pace, int, int, int], Pace]
    ) -> bool:
        now = self._clock.now_ns()
        with self._lock:
            before = known.pace
            if not before.shut_at and now - known.asked_at < _ASK_NS:
                return False
            known.asked_at = now
            mine, known.admitted = known.admitted, 0
        paces = cast("FleetPaces", self._paces)
        try:
            # The store's clock counts, and by that one it was sent as long ago.
            after = paces.change(
                key, mine, lambda pace, at, counted: make(pace, at, at - (now - sent), counted)
            )
        except StoreError:
            after = make(before, now, sent, mine)
        with self._lock:
            known.pace = after
        return bool(before.shut_at and not after.shut_at)

    def _admitted(self, known: _Known, top: float) -> Callable[[Pace, int, int, int], Pace]:
        # Of a fleet only those count that have been refused: not all, where the server also tells.
        floor = _FLEET_FLOOR if self._paces is not None and known.told < math.inf else 0.0

        def make(pace: Pace, now: int, sent: int, count: int) -> Pace:
            after = paces.admitted_one(pace, now, sent, count, top)
            least = floor * min(pace.rate, top)
            return after._replace(rate=least) if after.rate < least else after

        return make

    def _heard(self, known: _Known, quotas: tuple[Quota, ...], now: int) -> Lesson:
        lesson = heard(
            known.windows,
            quotas,
            now / SECOND,
            len(known.flying),
            even=self._even,
            headroom=self._headroom,
        )
        if lesson.rate < math.inf:
            known.told = lesson.rate
        return lesson

    def _refused(
        self, key: str, known: _Known, call: Call, outcome: Outcome, sent: int, its: Tier
    ) -> int:
        asked_ns = to_ns(min(outcome.retry_after() or 0.0, _LONGEST_HOLD))
        # A limit that was told knows how soon there may be a permit.
        least_ns = its.pause_ns if its.pace < math.inf else paces.PAUSE_NS
        before = known.pace
        known.asked_at = 0
        self._change(
            key,
            known,
            sent,
            lambda pace, now, sent, _: paces.refused(pace, now, sent, asked_ns, least_ns) or pace,
        )
        is_news = known.pace is not before
        with self._lock:
            pause_ns = asked_ns or known.pace.pause_ns
            self._plan(known, its.pace)
        self._hold(key, known, pause_ns)
        if is_news:
            # Whoever was let go to see whether it is still shut spent a turn that was none.
            self._follow(key, known, call, next_ns=0)
        return pause_ns

    def _plan(self, known: _Known, top: float) -> bool:
        """Set the rule that follows from what is known; return whether it is another."""
        pace = known.pace
        # While the window is shut one attempt at a time finds out whether it still is.
        rate = max(_TESTS, SECOND / pace.pause_ns) if pace.shut_at else min(pace.rate, known.told)
        if rate >= _NEAR * top and not pace.shut_at:
            rate = math.inf
        if rate == known.paced or known.paced * _NEAR < rate < known.paced / _NEAR:
            return False
        is_first = known.paced == math.inf
        known.paced = rate
        if rate == math.inf:
            held = known.held_until > self._clock.now_ns()
            if self._paces is not None and known.is_bucket:
                held = True
            known.way = self._way(_GENTLE) if held else None
            return True
        one = max(1, round(SECOND / rate))
        known.way = self._way(Bucket(Limit(f"{rate:.4g}/second", 1, one), one, 1))
        if is_first and not pace.shut_at:
            # What went before there was a pace was spent of the same window.
            known.debt_ns = (known.admitted + len(known.flying)) * one
        return True

    def _follow(
        self,
        key: str,
        known: _Known,
        call: Call,
        *,
        next_ns: int | None = None,
        is_first: bool = False,
    ) -> None:
        """Let those who wait follow a new pace, after a first one that has just gone by it."""
        rule = _AT_ONCE if known.way is None else known.way[0]
        pace = known.paced
        if not known.pace.shut_at and abs(pace - known.said) > _WORTH_SAYING * known.said:
            known.said = pace
            if pace < math.inf:
                how = "the server tells of" if pace == known.told else "its answers come to"
                event = PaceLearned(key, pace, pace == known.told)
                text = "%s: %s %.4g a second; that is the pace now"
                tell(call.listeners, event, _log, logging.INFO, text, key, how, pace)
        self._line.repace(key, rule, rule.interval_ns if is_first else next_ns)
        debt_ns, known.debt_ns = known.debt_ns, 0
        if debt_ns and self._paces is not None:
            # What each process sent adds up.
            cast("SharedWaiting", self._line).spend(key, rule, min(debt_ns, _MOST_DEBT_NS))
        elif debt_ns:
            self._line.raise_to(key, rule, self._clock.now_ns() + min(debt_ns, _MOST_DEBT_NS))

    def _hold(self, key: str, known: _Known, length_ns: int) -> None:
        with self._lock:
            known.held_until = max(known.held_until, self._clock.now_ns() + length_ns)
            if known.way is None and not known.is_bucket:
                # The limiter's own line holds the whole host.
                return
            if known.way is None:
                # Without a pace there is nobody in this line but for the hold.
                known.way = self._way(_GENTLE)
            rule = known.way[0]
        if self._line.hold(key, rule, length_ns):
            _log.debug("%s: held for %.2f s", key, length_ns / SECOND)

    def _warn_of(self, key: str, known: _Known, lesson: Lesson, call: Call) -> None:
        """Warn once when little of a quota is left, and again only after it had recovered."""
        is_low = lesson.left < self._warn
        if is_low and not known.is_low:
            what = f"quota {lesson.name!r}" if lesson.name else "the quota"
            event = QuotaLow(key, lesson.name, lesson.left)
            text = "%s: %.0f %% of %s is left"
            share = 100 * lesson.left
            tell(call.listeners, event, _log, logging.WARNING, text, key, share, what)
        known.is_low = is_low


def _route_of(call: Call) -> str:
    """Return the method and the path, without what names one thing of many."""
    path = call.url.partition("?")[0].partition("#")[0]
    start = path.find("/", path.find("://") + 3)
    return f"{call.method} {_ID.sub('/*', path[start:] if start >= 0 else '/')}"
