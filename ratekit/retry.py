"""Retry: make another attempt where one could fare better and none can do harm.

Three questions, in this order, each a pure function: could another attempt fare better
(`_worth`)? Can it do harm (`_safe`)? How long to wait before it (`Retry._delay`)? A throttled
attempt is not a failure: it waits its turn, is not charged to the budget, and uses up none of the
tries meant for failures.
"""

import logging
from collections.abc import Callable, Iterable
from typing import Any

from cachetools import TTLCache

from ratekit.backoff import Backoff, Delay
from ratekit.budget import RetryBudget
from ratekit.call import Call, Outcome, Proceed, SendFailed, Verdict
from ratekit.clock import SECOND, to_ns
from ratekit.errors import ConfigurationError, DeadlineExceeded, RateKitError, Rejected
from ratekit.events import Retried, tell
from ratekit.policy import Policy
from ratekit.stores import MemoryStore

__all__ = ["Retry"]

_log = logging.getLogger("ratekit.retry")

_SAFE = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
# RFC 9110, 9.2.2.
_IDEMPOTENT = _SAFE | {"PUT", "DELETE"}
_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504, 529})
# Refusals in one call. Their pauses are bounded too, but where neither the server nor the back-off
# waits there is no pause to add up.
_MOST_THROTTLED = 100
# Keys whose calls are counted; beyond this the counts are dropped, which is the strict side.
_MOST_COUNTED = 10_000
_MOST_SAID, _SAY_EVERY = 1024, 60.0
_SHOULD_RETRY = ("x-should-retry", "stripe-should-retry")

Matcher = type[Exception] | tuple[type[Exception], ...] | Callable[[Exception], bool]


class _Progress:
    """What a call has been through: the attempts that failed, and those that were throttled."""

    __slots__ = ("failures", "last_delay", "throttled", "throttled_ns")

    def __init__(self) -> None:
        self.failures = 0
        self.throttled = 0
        self.throttled_ns = 0
        self.last_delay = 0.0


class Retry(Policy):
    """Repeats attempts that failed for the moment, with back-off, within a budget.

    `attempts`: tries for failures, the first included. `backoff`: a `Backoff`, or any
    `(failures, last delay) -> seconds`. `statuses`: answers worth another attempt (500 only for
    safe methods). `methods`: those that may be repeated though the server may have acted on the
    first. `on`: for a decorated function, the exception types to retry, or a predicate; there is
    no default, because only you know which are passing. `budget`: None for no budget.

    What the user gets is the last real answer or error, never a wrapper around it. Raises
    `ConfigurationError` for a number that cannot be right.
    """

    retries = True

    def __init__(
        self,
        attempts: int = 4,
        *,
        backoff: Delay | None = None,
        statuses: Iterable[int] = _STATUSES,
        methods: Iterable[str] = _IDEMPOTENT,
        on: Matcher = (),
        budget: RetryBudget | None = RetryBudget(),  # noqa: B008  (a frozen value, no state)
    ) -> None:
        if isinstance(attempts, bool) or not isinstance(attempts, int) or attempts < 1:
            raise ConfigurationError(
                f"attempts {attempts!r}: use a whole number from 1 up (1 makes no retries)"
            )
        if backoff is not None and not callable(backoff):
            raise ConfigurationError(
                f"backoff {backoff!r}: use a Backoff(...) or a function of (failures, last delay)"
            )
        if budget is not None and not isinstance(budget, RetryBudget):
            raise ConfigurationError(f"budget {budget!r}: use a RetryBudget(...), or None")
        if not isinstance(on, (type, tuple)) and not callable(on):
            raise ConfigurationError(
                f"on {on!r}: use exception types, or a function of the exception"
            )
        self.attempts = attempts
        self.backoff: Delay = Backoff() if backoff is None else backoff
        self.statuses = frozenset(statuses)
        if not all(isinstance(status, int) for status in self.statuses):
            raise ConfigurationError(f"statuses {statuses!r}: use status codes, such as 503")
        self.methods = frozenset(method.upper() for method in methods)
        self.on = on
        self.budget = budget
        self._forget()

    def _forget(self) -> None:
        self._budgets = MemoryStore().space(None)
        # Calls since a key's budget was last asked. Not locked: a count that two threads lose is
        # one on the strict side, and every call passes here.
        self._calls: dict[str, int] = {}
        # A spent budget is worth a line in the log once a minute, and not with every failure.
        self._said: TTLCache[str, bool] = TTLCache(_MOST_SAID, _SAY_EVERY)

    def run(self, call: Call, proceed: Proceed) -> Outcome:
        """Make attempts until one is the user's: it succeeded, or another is not worth its wait."""
        self._count(call.budget_key)
        last: Outcome | SendFailed | None = None
        progress: _Progress | None = None
        try:
            while True:
                try:
                    last = self._attempt(call, proceed)
                except (Rejected, DeadlineExceeded):
                    # Ours, and so not repeated. What the server said last is worth more to the
                    # user than why there was no further attempt.
                    if last is None:
                        raise
                    return _final(call, last)
                if isinstance(last, Outcome) and self._is_fine(last):
                    if call.previous is not None:
                        # Answered without an attempt, which would have given it up.
                        call.previous.discard()
                        call.previous = None
                    return last
                if progress is None:
                    progress = _Progress()
                delay = self._next(call, last, progress)
                if delay is None:
                    return _final(call, last)
                _pause(call, last, delay)
        except BaseException:
            if call.previous is not None:
                call.previous.discard()
                call.previous = None
            raise

    def _count(self, key: str) -> None:
        calls = self._calls
        seen = calls.get(key)
        if seen is None and len(calls) >= _MOST_COUNTED:
            calls.clear()
        calls[key] = 1 if seen is None else seen + 1

    def _attempt(self, call: Call, proceed: Proceed) -> Outcome | SendFailed:
        try:
            return proceed(call)
        except SendFailed as failed:
            return failed
        except RateKitError:
            raise
        except Exception as error:
            if not self._matches(error):
                raise
            return SendFailed(error)

    def _is_fine(self, outcome: Outcome) -> bool:
        status = outcome.status
        return status is None or not (outcome.is_error or status in self.statuses)

    def _matches(self, error: Exception) -> bool:
        if isinstance(self.on, (type, tuple)):
            return isinstance(error, self.on)
        return self.on(error)

    def _next(self, call: Call, last: Outcome | SendFailed, progress: _Progress) -> float | None:
        """Return the seconds to sleep before another attempt; None where there is to be none."""
        throttled = isinstance(last, Outcome) and last.verdict(call.options) is Verdict.THROTTLED
        if call.options.retry is False or not self._may_repeat(call, last, throttled=throttled):
            return None
        if throttled:
            progress.throttled += 1
            if progress.throttled >= _MOST_THROTTLED:
                return None
        else:
            progress.failures += 1
            if progress.failures >= self.attempts:
                return None
        delay = self._delay(call, last, progress, throttled=throttled)
        remaining_ns = call.remaining_ns()
        if delay is None or (remaining_ns is not None and delay * SECOND >= remaining_ns):
            return None
        if not throttled and not self._afford(call):
            return None
        event = Retried(call.limited_key or call.budget_key, call.attempts, _why(last), delay)
        text = "%s: attempt %d: %s; next one in %.2f s"
        of = (call.key, call.attempts, event.why, delay)
        tell(call.listeners, event, _log, logging.INFO, text, *of)
        return delay

    def about(self, key: str) -> dict[str, Any]:
        """Return how many retries of failures a key has left."""
        if self.budget is None:
            return {"retry_budget": None}
        state, now = self._budgets.look(key)
        return {"retry_budget": self.budget.left(state, now)}

    def _afford(self, call: Call) -> bool:
        budget = self.budget
        if budget is None:
            return True
        key = call.budget_key
        calls = self._calls.pop(key, 0)
        if self._budgets.update(
            key, lambda record, now: budget.spend(record, now, calls), budget.idle_at
        ):
            return True
        if key not in self._said:
            self._said[key] = True
            _log.warning("%s: no retry: the retry budget is spent", key)
        return False

    def _may_repeat(self, call: Call, last: Outcome | SendFailed, *, throttled: bool) -> bool:
        if isinstance(last, SendFailed):
            # What never reached the server was not acted on, and none of its body was read.
            return last.passing and (not last.sent or self._harmless(call))
        wanted = _should_retry(last)
        if wanted is not None:
            return wanted and call.replayable
        if not (throttled or last.status in self.statuses) or not call.replayable:
            return False
        if last.status == 425 or (throttled and last.status is not None and last.status < 500):
            return True  # refused before it was acted on; a 503 proves nothing of the kind
        if last.status == 500:
            # An error of the server's own, maybe for good: repeated only where that is free.
            return call.method is None or call.method in _SAFE or _licensed(call)
        return self._harmless(call)

    def _harmless(self, call: Call) -> bool:
        """Return whether the request may be repeated though the server may have acted on it."""
        return call.replayable and (
            call.method is None or call.method in self.methods or _licensed(call)
        )

    def _delay(
        self, call: Call, last: Outcome | SendFailed, progress: _Progress, *, throttled: bool
    ) -> float | None:
        count = progress.throttled if throttled else progress.failures
        own = progress.last_delay = max(0.0, self.backoff(count, progress.last_delay))
        if isinstance(last, SendFailed):
            return own
        asked = last.retry_after() or 0.0
        held = None if last.held_ns is None else last.held_ns / SECOND
        # Jitter is only ever added to what the server asked for. Where a limiter below holds
        # everybody until then, and lets them go one by one, there is no herd to spread.
        wait = asked + own if held is None else max(held, own)
        patience_ns = call.options.patience_ns()
        if throttled:
            progress.throttled_ns += to_ns(wait)
        if asked * SECOND > patience_ns or progress.throttled_ns > patience_ns:
            return None
        # To sleep here through what the limiter holds would be to wait twice.
        return 0.0 if wait == held else wait

    def __repr__(self) -> str:
        return f"Retry(attempts={self.attempts})"

    def __getstate__(self) -> dict[str, object]:
        state = vars(self).copy()
        del state["_budgets"], state["_calls"], state["_said"]
        return state

    def __setstate__(self, state: dict[str, object]) -> None:
        vars(self).update(state)
        self._forget()


def _licensed(call: Call) -> bool:
    """Return whether the user said that the request may be repeated."""
    return call.options.retry is True or "Idempotency-Key" in call.headers


def _should_retry(outcome: Outcome) -> bool | None:
    """Return what the server itself says of a repeat, None where it says nothing."""
    for name in _SHOULD_RETRY:
        value = outcome.headers.get(name)
        if value is not None:
            word = str(value).strip().lower()
            if word in ("true", "false"):
                return word == "true"
    return None


def _pause(call: Call, last: Outcome | SendFailed, seconds: float) -> None:
    """Sleep before the next attempt; the answer so far is kept in case there will be none."""
    if isinstance(last, Outcome):
        last.settle()
        call.previous = last
    if seconds > 0:
        call.clock.sleep(seconds)
        call.waited_ns += to_ns(seconds)


def _final(call: Call, last: Outcome | SendFailed) -> Outcome:
    """Hand the last real answer to the user, or raise the last real error."""
    call.previous = None
    if isinstance(last, SendFailed):
        raise last from None
    return last


def _why(last: Outcome | SendFailed) -> str:
    if isinstance(last, SendFailed):
        return type(last.error).__name__
    return f"status {last.status}"
