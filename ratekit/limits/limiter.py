"""The rate limiter: limits kept for many keys, as a policy or by direct calls."""

import logging
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

from ratekit.call import Call, Outcome, Proceed, Verdict
from ratekit.checks import check_number
from ratekit.clock import SECOND, to_ns
from ratekit.errors import (
    ConfigurationError,
    DeadlineExceeded,
    RateLimited,
    Rejected,
    StoreError,
)
from ratekit.events import HoldReleased, HoldSet, PermitWaited, deliver, tell
from ratekit.limits.decision import Decision
from ratekit.limits.learning import Learning
from ratekit.limits.limit import UNLIMITED, Limit
from ratekit.limits.opening import Openings
from ratekit.limits.rules import Price, Rule
from ratekit.limits.tiers import Tier, Tiers
from ratekit.limits.waiting import Granted, Waiting, line_of
from ratekit.policy import Policy
from ratekit.stores import FENCE, MemoryStore, Space, Store, Take, Taken, open_store
from ratekit.stores.memory import SHARED, MemorySpace

if TYPE_CHECKING:
    from ratekit.limits.shared.paces import FleetPaces
    from ratekit.limits.shared.waiting import SharedWaiting
    from ratekit.stores.memcached.space import MemcachedSpace

__all__ = ["RateLimiter"]

_log = logging.getLogger("ratekit.limits")

# A server may ask for a pause of any length. Beyond this its word is asked for again, so that one
# absurd answer does not end a process's work for days.
_LONGEST_HOLD_NS = 3600 * SECOND
# Of so many holds the end is told.
_MOST_HELD = 1000
# A hold worth a warning; a shorter one is all in a day's work.
_LONG_HOLD_NS = 10 * SECOND


class RateLimiter(Policy):
    """Keeps `limit` for every key; whoever may not go at once waits its turn.

    `limit`: the limit's text ("100/minute", "100/second burst 20", "300/15 minutes window"), or
    several joined with `;` and kept together ("10/second; 5000/hour fixed").
    `name`: whose budget: limiters with the same name and store share it; without a name the
    budget is this limiter's own. `key_of(call) -> str | None`: whose state within it; by default
    the call's origin (scheme, host, port); None: the call is not limited here.
    `tiers`: other limits by name ({"free": "60/minute", "premium": "1000/minute"}); `limit`, a
    limit or the name of one of them, is for whoever has none of these. `tier_of(call) -> str |
    None`: the tier of a call where `options(tier=...)` names none. A key that changes its tier
    keeps what it has spent.
    `max_wait`: the longest wait in seconds that a caller accepts, None for any. `max_waiting`:
    how many threads may wait for one key. `headroom`: the share of a bucket's pace that is used,
    0.99 because a client that runs exactly at the server's rate is refused now and then by jitter
    alone. `store`: where the state lives: a store, or the URL of one that is shared
    ("memcached://10.0.0.5:11211"), which needs a `name`; by default this process's memory.

    Raises `ConfigurationError` for a limit or a number that cannot be right.
    """

    per_attempt = True

    def __init__(
        self,
        limit: str | Limit | None = None,
        *,
        name: str | None = None,
        key_of: Callable[[Call], str | None] | None = None,
        tiers: Mapping[str, str] | None = None,
        tier_of: Callable[[Call], str | None] | None = None,
        max_wait: float | None = None,
        max_waiting: int = 10_000,
        headroom: float = 0.99,
        store: Store | str | None = None,
        adapt: str = "headers",
        spend: str = "greedy",
        warn_below: float = 0.1,
    ) -> None:
        _check_words("adapt", adapt, ("headers", "aimd", "off"))
        _check_words("spend", spend, ("greedy", "even"))
        check_number("warn_below", warn_below)
        if limit is None and adapt == "off":
            raise ConfigurationError(
                "a limiter without a limit that does not adapt does nothing; name a limit, such as "
                "'100/minute', or leave adapt='headers'"
            )
        if not isinstance(max_waiting, int) or max_waiting < 1:
            raise ConfigurationError(f"max_waiting {max_waiting!r}: use a whole number from 1 up")
        self.limit = limit
        self.name = name
        self.key_of = key_of
        self.tiers = None if tiers is None else dict(tiers)
        self.tier_of = tier_of
        self._max_wait_ns: int | None = None
        self._max_wait_ns = self._max_wait(max_wait)
        self.max_wait = max_wait
        self.max_waiting = max_waiting
        self.headroom = headroom
        self.store: Store
        if store is not None:
            self.store = open_store(store)
        elif name is not None:
            self.store = SHARED
        else:
            self.store = MemoryStore()
        # Which kind it is, only its own parts need to know.
        self._space: Any = self.store.space(name)
        self._waiting = waiting_of(self._space)
        self._tiers = Tiers(UNLIMITED if limit is None else limit, tiers, headroom, self._space)
        self.adapt = adapt
        self.spend = spend
        self.warn_below = warn_below
        self._learning: Learning | None = None
        if adapt != "off":
            self._learning = Learning(
                self._space.clock,
                headers=adapt == "headers",
                even=spend == "even",
                warn=warn_below,
                headroom=headroom,
                fleet=self._fleet(),
            )
        self._default = self._tiers.default
        # The usual way, which every permit goes: one attribute less to look up.
        self._take_one = self._default.take_one
        # The keys whose hold nobody has waited out yet.
        self._held: set[str] = set()
        self._openings = Openings(self._waiting, self._space.clock)

    def _fleet(self) -> "tuple[SharedWaiting, FleetPaces, bytes] | None":
        if isinstance(self._space, MemorySpace):
            return None
        from ratekit.limits.shared.paces import FleetPaces

        # The same credential must have the same key in every process.
        secret = f"ratekit limits of {self._space.store.namespace} {self.name}".encode()
        return cast("SharedWaiting", self._waiting), FleetPaces(self._space), secret

    @property
    def limits(self) -> tuple[Limit, ...]:
        """The limits of the default tier."""
        return self._default.limits

    # Direct calls.

    def check(self, key: str = "", cost: float = 1, *, tier: str | None = None) -> Decision:
        """Take `cost` permits if they are to be had now; never waits, never raises for a no."""
        if tier is None and cost == 1:
            its = self._default
            taken = self._take_one(key)
            if taken[0]:
                return Decision(its, taken)
        else:
            its = self._tiers.get(tier)
            taken = self._take(its, key, cost)
        return Decision(
            its, self._waiting.take(key, its.rule, taken[3]) if taken[1] is FENCE else taken
        )

    def peek(self, key: str = "", *, tier: str | None = None) -> Decision:
        """Say what `check(key)` would, and take nothing."""
        its = self._tiers.get(tier)
        state, now_ns = self._waiting.look(key, its.rule)
        allowed = its.rule.earliest(state, now_ns, its.one) <= now_ns
        return Decision(its, (allowed, state, now_ns, its.one))

    def acquire(
        self,
        key: str = "",
        cost: float = 1,
        max_wait: float | None = None,
        priority: int = 0,
        *,
        tier: str | None = None,
    ) -> Decision:
        """Wait for the turn of `cost` permits, and take them.

        The higher `priority` goes first among those who wait, and within one who came first.
        `max_wait`: seconds; None takes the limiter's own. Raises `RateLimited` with the true
        `retry_after` the moment it is known that the wait would be longer.
        """
        its = self._tiers.get(tier)
        granted, price = self._acquire(its, key, cost, max_wait, priority)
        return Decision(its, (True, granted.state, granted.used_ns, price))

    @contextmanager
    def permit(
        self,
        key: str = "",
        cost: float = 1,
        max_wait: float | None = None,
        priority: int = 0,
        *,
        tier: str | None = None,
    ) -> Iterator[Decision]:
        """Run the block when its turn has come. Raises as `acquire` does, before the block.

        The end of the block is the answer: in a sliding window the permit's place is free one
        period after it.
        """
        its = self._tiers.get(tier)
        granted, price = self._acquire(its, key, cost, max_wait, priority)
        try:
            yield Decision(its, (True, granted.state, granted.used_ns, price))
        finally:
            if not its.rule.is_punctual:
                self._waiting.answered(key, its.rule, granted.used_ns, price)

    def hold(self, key: str, seconds: float) -> None:
        """Grant nothing for `key` before `seconds` from now.

        Turns not yet taken move by the hold's length and keep their order and spacing. Holds do
        not add up, and a shorter one changes nothing. Raises `ConfigurationError` for a length
        that is negative or no number.
        """
        check_number("hold", seconds, unit="seconds")
        self._waiting.hold(key, self._default.rule, to_ns(seconds))

    def held_for(self, key: str = "") -> float:
        """Return how many seconds the hold of `key` still lasts, as far as is known here; or 0."""
        return self._waiting.held_ns(key, self._default.rule) / SECOND

    def _acquire(
        self, its: Tier, key: str, cost: float, max_wait: float | None, priority: int
    ) -> tuple[Granted, Price]:
        max_wait_ns = self._max_wait(max_wait)
        allowed, state, now_ns, price = self._take(its, key, cost)
        if allowed:
            return Granted(state, now_ns, 0), price
        granted = self._waiting.wait(
            key,
            its.rule,
            price,
            priority=priority,
            max_wait_ns=max_wait_ns,
            most=self.max_waiting,
        )
        return granted, price

    def _take(self, its: Tier, key: str, cost: float) -> Taken:
        if cost == 1:
            return its.take_one(key)
        taker: Callable[..., Take] = self._space.taker
        return taker(its.rule, its.rule.price(cost))(key)

    # As a policy.

    def run(self, call: Call, proceed: Proceed) -> Outcome:  # noqa: C901, PLR0912 (the hot path)
        """Wait for a permit, make the attempt, and learn from a refusal of the server's.

        Raises `RateLimited` when the wait would be longer than `max_wait`, or is a server's pause
        longer than `max_retry_after`; `DeadlineExceeded` when it would outlast the deadline.
        """
        options = call.options
        key = call.key if options.key is None and self.key_of is None else self._key(call)
        if key is None:
            return proceed(call)
        outermost = call.limiter is None
        if outermost:
            call.limited_key = key
        its = self._default if self.tiers is None else self._tier(call)
        rule = its.rule
        cost = options.cost
        taken = its.take_one(key) if cost is None else self._take(its, key, cost)
        allowed, state, used_ns, price = taken
        was_full = allowed and its.opens and rule.was_full(state, used_ns, price)
        if not allowed:
            state, used_ns, waited_ns = self._wait_turn(call, its, key, price)
            call.waited_ns += waited_ns
        opening = None
        if its.opens:
            opening = self._openings.sent(key, rule, price, was_full=was_full)
        if outermost:
            call.limiter = self
        arrived = True
        try:
            if not allowed:
                for look_again in call.circuits:
                    look_again()
            if outermost:
                outcome, hold_ns = self._attempt(key, call, proceed, its)
            else:
                # Of limiters inside each other the outermost learns: it is the narrowest.
                outcome, hold_ns = proceed(call), None
        except (Rejected, DeadlineExceeded):
            # Something further in refused: nothing was sent, so the permit is the next one's.
            arrived = False
            self._waiting.give_back(key, rule, state, used_ns, price)
            raise
        finally:
            if outermost:
                call.limiter = None
            if opening is not None:
                self._openings.ended(key, rule, opening, price, arrived=arrived)
            if arrived and not rule.is_punctual:
                self._waiting.answered(key, rule, used_ns, price)
        if hold_ns is not None:
            self._hold(key, its, outcome, hold_ns, call)
        return outcome

    def _attempt(
        self, key: str, call: Call, proceed: Proceed, its: Tier
    ) -> tuple[Outcome, int | None]:
        """Make an attempt; also return for how many nanoseconds there should be no other."""
        if self._learning is not None:

            def wait(line: Any, learned_key: str, rule: Rule, price: Price) -> Granted:
                granted = self._wait(call, line, learned_key, rule, price)
                if its.pace < math.inf:
                    # The permit is used only now: those behind it keep their distance from here.
                    now = granted.used_ns
                    late = its.rule.spend(its.rule.fresh, now, now, its.one)
                    self._waiting.raise_to(key, its.rule, late)
                return granted

            return self._learning.run(call, proceed, its, wait)
        outcome = proceed(call)
        if outcome.is_error and outcome.verdict(call.options) is Verdict.THROTTLED:
            return outcome, to_ns(outcome.retry_after() or 0.0)
        return outcome, None

    def _key(self, call: Call) -> str | None:
        key = call.key if self.key_of is None else self.key_of(call)
        if key is None:
            return None
        if not isinstance(key, str):
            raise ConfigurationError(
                f"key_of returned {key!r}: it must return text that names whose budget is meant, "
                "or None for a call that is not limited here"
            )
        return key if call.options.key is None else call.options.key

    def _tier(self, call: Call) -> Tier:
        name = call.options.tier
        if name is None and self.tier_of is not None:
            name = self.tier_of(call)
            if name is not None and not isinstance(name, str):
                raise ConfigurationError(
                    f"tier_of returned {name!r}: it must return a tier's name, or None"
                )
        return self._tiers.get(name)

    def _wait_turn(self, call: Call, its: Tier, key: str, price: Any) -> Granted:
        return self._wait(call, self._waiting, key, its.rule, price)

    def _wait(self, call: Call, line: Any, key: str, rule: Rule, price: Price) -> Granted:
        options = call.options
        max_wait_ns = self._max_wait(options.max_wait)
        remaining_ns = call.remaining_ns()
        hurried = remaining_ns is not None and (max_wait_ns is None or remaining_ns < max_wait_ns)
        try:
            granted: Granted = line.wait(
                key,
                rule,
                price,
                priority=options.priority or 0,
                max_wait_ns=remaining_ns if hurried else max_wait_ns,
                patience_ns=options.patience_ns(),
                most=self.max_waiting,
            )
        except RateLimited as refusal:
            if not hurried:
                raise
            raise DeadlineExceeded(
                f"{refusal}; the call's deadline comes first",
                key=key,
                retry_after=refusal.retry_after,
            ) from refusal
        if call.listeners:
            self._tell_of(call, key, granted)
        return granted

    def _tell_of(self, call: Call, key: str, granted: Granted) -> None:
        if key in self._held:
            self._held.discard(key)
            deliver(call.listeners, HoldReleased(key))
        deliver(call.listeners, PermitWaited(key, granted.waited_ns / SECOND))

    def _max_wait(self, max_wait: float | None) -> int | None:
        if max_wait is None:
            return self._max_wait_ns
        check_number("max_wait", max_wait, unit="seconds")
        return to_ns(max_wait)

    def _hold(self, key: str, its: Tier, outcome: Outcome, length_ns: int, call: Call) -> None:
        """Hold the key because of what the server answered."""
        if outcome.is_error and not outcome.retry_after():
            # Without a hint, or with "0", which servers say too early: one permit's time.
            length_ns = max(length_ns, its.pause_ns if its.pace < math.inf else 0)
        outcome.held_ns = min(length_ns, _LONGEST_HOLD_NS)
        if self._waiting.hold(key, its.rule, outcome.held_ns):
            level = logging.WARNING if outcome.held_ns >= _LONG_HOLD_NS else logging.INFO
            seconds = outcome.held_ns / SECOND
            why = "refused" if outcome.is_error else "its quota is spent"
            event = HoldSet(key, seconds, outcome.status)
            text = "%s: %s (%s); held for %.2f s"
            tell(call.listeners, event, _log, level, text, key, why, outcome.status, seconds)
            if call.listeners and len(self._held) < _MOST_HELD:
                self._held.add(key)

    def about(self, key: str) -> dict[str, Any]:
        """Return the limit of a key, what is left of it, and what the server said is left."""
        its = self._default
        try:
            decision = self.peek(key)
        except StoreError:
            return {"limit": self._text()}
        said = {
            "limit": self._text(),
            "per_second": None if its.pace == math.inf else its.pace,
            "permits_left": decision.remaining if its.pace < math.inf else None,
            "held_for": self.held_for(key),
        }
        if self._learning is not None:
            said.update(self._learning.about(key))
            if said["pace"] is not None:
                said["per_second"] = min(said["pace"], its.pace)
        return said

    def _text(self) -> str:
        return "" if self.limit is None else "; ".join(limit.text for limit in self.limits)

    def __repr__(self) -> str:
        given = "" if self.limit is None else f"{self._text()!r}, "
        return f"RateLimiter({given}name={self.name!r})"

    def __reduce__(self) -> tuple[object, ...]:
        # The configuration travels, the state does not: it is this process's own.
        return _rebuilt, (
            self.limit,
            {
                "name": self.name,
                "key_of": self.key_of,
                "tiers": self.tiers,
                "tier_of": self.tier_of,
                "max_wait": self.max_wait,
                "max_waiting": self.max_waiting,
                "headroom": self.headroom,
                "store": None if self.store is SHARED else self.store,
                "adapt": self.adapt,
                "spend": self.spend,
                "warn_below": self.warn_below,
            },
        )


def _check_words(name: str, value: object, words: tuple[str, ...]) -> None:
    if value not in words:
        raise ConfigurationError(f"{name} {value!r}: use one of {', '.join(words)}")


def waiting_of(space: Space) -> "Waiting | SharedWaiting":
    """Return who waits for what is in this space."""
    if isinstance(space, MemorySpace):
        return line_of(space)
    from ratekit.limits.shared.waiting import shared_line_of

    return shared_line_of(cast("MemcachedSpace", space))


def _rebuilt(limit: str | Limit | None, configuration: dict[str, Any]) -> RateLimiter:
    return RateLimiter(limit, **configuration)
