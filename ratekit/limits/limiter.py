"""The rate limiter: one limit kept for many keys, as a policy or by direct calls."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ratekit.call import Call, Outcome, Proceed, Verdict
from ratekit.checks import check_number
from ratekit.clock import SECOND, to_ns
from ratekit.errors import ConfigurationError, DeadlineExceeded, RateLimited, Rejected
from ratekit.limits.gcra import Rule, rule_of
from ratekit.limits.limit import Limit
from ratekit.limits.opening import Openings
from ratekit.limits.waiting import line_of
from ratekit.policy import Policy
from ratekit.stores import MemoryStore, Store, Taken
from ratekit.stores.memory import SHARED

__all__ = ["Decision", "RateLimiter"]

_log = logging.getLogger("ratekit.limits")

# A server may ask for a pause of any length. Beyond this its word is asked for again, so that one
# absurd answer does not end a process's work for days.
_LONGEST_HOLD = 3600.0
# A hold worth a warning; a shorter one is all in a day's work.
_LONG_HOLD_NS = 10 * SECOND


class Decision:
    """What the limiter said of one key at one instant; true where it was a yes.

    Computed when asked for: making one costs as little as it can. All durations are seconds.
    """

    __slots__ = ("_limiter", "_taken")

    def __init__(self, limiter: "RateLimiter", taken: Taken) -> None:
        self._limiter = limiter
        self._taken = taken

    @property
    def allowed(self) -> bool:
        """Whether the permits were granted (`peek`: whether they would be)."""
        return self._taken[0]

    @property
    def limit(self) -> int:
        """Permits in a period, as the limit's text says."""
        return self._limiter.limit.count

    @property
    def remaining(self) -> int:
        """How many permits could be granted right now, after this decision."""
        rule = self._limiter.rule
        return max(0, (rule.depth_ns - self._ahead_ns()) // rule.interval_ns)

    @property
    def reset_after(self) -> float:
        """Seconds until everything that may be had at once is there again."""
        return self._ahead_ns() / SECOND

    @property
    def retry_after(self) -> float:
        """Seconds until the same question would be answered with yes; 0 where it was."""
        if self.allowed:
            return 0.0
        price_ns = self._taken[3]
        reach_ns = self._limiter.rule.reach_ns(price_ns)
        return max(0, self._ahead_ns() + price_ns - reach_ns) / SECOND

    def _ahead_ns(self) -> int:
        _, tat_ns, now_ns, _ = self._taken
        return max(0, tat_ns - now_ns)

    def __bool__(self) -> bool:
        return self.allowed

    def __repr__(self) -> str:
        return (
            f"Decision(allowed={self.allowed}, limit={self.limit}, remaining={self.remaining}, "
            f"reset_after={self.reset_after:.3f}, retry_after={self.retry_after:.3f})"
        )


class RateLimiter(Policy):
    """Keeps `limit` for every key; whoever may not go at once waits its turn.

    `limit`: the limit's text ("100/minute", "100/second burst 20", "10/second smooth").
    `name`: whose budget: limiters with the same name and store share it; without a name the
    budget is this limiter's own. `key_of(call) -> str`: whose state within it; by default the
    call's origin (scheme, host, port). `max_wait`: the longest wait in seconds that a caller
    accepts, None for any. `headroom`: the share of the limit's pace that is used, 0.99 because a
    client that runs exactly at the server's rate is refused now and then by jitter alone.

    Raises `ConfigurationError` for a limit or a number that cannot be right.
    """

    per_attempt = True

    def __init__(
        self,
        limit: str | Limit,
        *,
        name: str | None = None,
        key_of: Callable[[Call], str] | None = None,
        max_wait: float | None = None,
        headroom: float = 0.99,
        store: Store | None = None,
    ) -> None:
        self.limit = limit if isinstance(limit, Limit) else Limit.parse(limit)
        self.rule: Rule = rule_of(self.limit, headroom)
        self.headroom = headroom
        self.name = name
        self._max_wait_ns: int | None = None
        self._max_wait_ns = self._max_wait(max_wait)
        self.max_wait = max_wait
        self.key_of = key_of
        self.store: Store
        if store is not None:
            self.store = store
        elif name is not None:
            self.store = SHARED
        else:
            self.store = MemoryStore()
        self._space = self.store.space(name)
        self._waiting = line_of(self._space)
        # What one permit takes: the usual cost, worked out once.
        self._one_ns = self.rule.price_ns(1)
        self._take_one = self._space.taker(self._one_ns, self.rule.reach_ns(self._one_ns))
        self._openings = Openings(self._waiting, self.rule, self._space.clock)

    # Direct calls.

    def check(self, key: str = "", cost: float = 1) -> Decision:
        """Take `cost` permits if they are to be had now; never waits, never raises for a no."""
        if cost == 1:
            return Decision(self, self._take_one(key))
        return Decision(self, self._take(key, cost))

    def peek(self, key: str = "") -> Decision:
        """Say what `check(key)` would, and take nothing."""
        stands_ns, now_ns = self._space.look(key)
        end_ns = max(stands_ns, now_ns) + self._one_ns
        allowed = end_ns - self.rule.reach_ns(self._one_ns) <= now_ns
        return Decision(self, (allowed, stands_ns, now_ns, self._one_ns))

    def acquire(self, key: str = "", cost: float = 1, max_wait: float | None = None) -> Decision:
        """Wait for the turn of `cost` permits, first come first served, and take them.

        `max_wait`: seconds; None takes the limiter's own. Raises `RateLimited` with the true
        `retry_after` the moment it is known that the wait would be longer.
        """
        max_wait_ns = self._max_wait(max_wait)
        taken = self._take(key, cost)
        if not taken[0]:
            price_ns = taken[3]
            granted = self._waiting.wait(key, self.rule, price_ns, max_wait_ns=max_wait_ns)
            taken = (True, granted.end_ns, granted.turn_ns, price_ns)
        return Decision(self, taken)

    def _take(self, key: str, cost: float) -> Taken:
        if cost == 1:
            return self._take_one(key)
        price_ns = self.rule.price_ns(cost)
        return self._space.taker(price_ns, self.rule.reach_ns(price_ns))(key)

    @contextmanager
    def permit(
        self, key: str = "", cost: float = 1, max_wait: float | None = None
    ) -> Iterator[Decision]:
        """Run the block when its turn has come. Raises as `acquire` does, before the block."""
        yield self.acquire(key, cost, max_wait)

    def hold(self, key: str, seconds: float) -> None:
        """Grant nothing for `key` before `seconds` from now.

        Turns not yet taken move by the hold's length and keep their order and spacing. Holds do
        not add up, and a shorter one changes nothing. Raises `ConfigurationError` for a length
        that is negative or no number.
        """
        check_number("hold", seconds, unit="seconds")
        self._waiting.hold(key, self.rule, to_ns(seconds))

    # As a policy.

    def run(self, call: Call, proceed: Proceed) -> Outcome:
        """Wait for a permit, make the attempt, and learn from a refusal of the server's.

        Raises `RateLimited` when the wait would be longer than `max_wait`, or is a server's pause
        longer than `max_retry_after`; `DeadlineExceeded` when it would outlast the deadline.
        """
        options = call.options
        key = call.key if options.key is None and self.key_of is None else self._key(call)
        call.limited_key = key
        cost = options.cost
        allowed, end_ns, now_ns, price_ns = (
            self._take_one(key) if cost is None else self._take(key, cost)
        )
        was_full = allowed and end_ns == now_ns + price_ns
        if not allowed:
            end_ns = self._wait_turn(call, key, price_ns)
        opening = self._openings.sent(key, price_ns, was_full=was_full)
        arrived = True
        try:
            outcome = proceed(call)
        except (Rejected, DeadlineExceeded):
            # Something further in refused: nothing was sent, so the permit is the next one's.
            arrived = False
            self._waiting.give_back(key, end_ns, price_ns)
            raise
        finally:
            if opening is not None:
                self._openings.ended(key, opening, price_ns, arrived=arrived)
        if outcome.is_error and outcome.verdict(options) is Verdict.THROTTLED:
            self._refused(key, outcome)
        return outcome

    def _key(self, call: Call) -> str:
        if call.options.key is not None:
            return call.options.key
        key = call.key if self.key_of is None else self.key_of(call)
        if not isinstance(key, str):
            raise ConfigurationError(
                f"key_of returned {key!r}: it must return text that names whose budget is meant"
            )
        return key

    def _wait_turn(self, call: Call, key: str, price_ns: int) -> int:
        """Wait for a permit; return the TAT that it made."""
        options = call.options
        max_wait_ns = self._max_wait(options.max_wait)
        remaining_ns = call.remaining_ns()
        hurried = remaining_ns is not None and (max_wait_ns is None or remaining_ns < max_wait_ns)
        try:
            granted = self._waiting.wait(
                key,
                self.rule,
                price_ns,
                max_wait_ns=remaining_ns if hurried else max_wait_ns,
                patience_ns=options.patience_ns(),
            )
        except RateLimited as refusal:
            if not hurried:
                raise
            raise DeadlineExceeded(
                f"{refusal}; the call's deadline comes first",
                key=key,
                retry_after=refusal.retry_after,
            ) from refusal
        call.waited_ns += granted.waited_ns
        return granted.end_ns

    def _max_wait(self, max_wait: float | None) -> int | None:
        if max_wait is None:
            return self._max_wait_ns
        check_number("max_wait", max_wait, unit="seconds")
        return to_ns(max_wait)

    def _refused(self, key: str, outcome: Outcome) -> None:
        asked_ns = to_ns(min(outcome.retry_after() or 0.0, _LONGEST_HOLD))
        # Without a hint, or with "0", which servers say too early: one permit's time, or a moment.
        outcome.held_ns = asked_ns or min(self.rule.interval_ns, SECOND)
        if self._waiting.hold(key, self.rule, outcome.held_ns):
            level = logging.WARNING if outcome.held_ns >= _LONG_HOLD_NS else logging.INFO
            seconds = outcome.held_ns / SECOND
            _log.log(level, "%s: refused (%s); held for %.2f s", key, outcome.status, seconds)

    def __repr__(self) -> str:
        return f"RateLimiter({self.limit.text!r}, name={self.name!r})"

    def __reduce__(self) -> tuple[object, ...]:
        # The configuration travels, the state does not: it is this process's own.
        return _rebuilt, (
            self.limit, self.name, self.key_of, self.max_wait, self.headroom,
            None if self.store is SHARED else self.store,
        )  # fmt: skip


def _rebuilt(
    limit: Limit,
    name: str | None,
    key_of: Callable[[Call], str] | None,
    max_wait: float | None,
    headroom: float,
    store: Store | None,
) -> RateLimiter:
    return RateLimiter(
        limit, name=name, key_of=key_of, max_wait=max_wait, headroom=headroom, store=store
    )
