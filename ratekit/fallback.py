"""Fallback: an answer of the user's own in place of a refusal or a failure."""

import json
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from ratekit.call import Call, Outcome, Proceed, SendFailed, Verdict
from ratekit.checks import check_number
from ratekit.errors import ConfigurationError, DeadlineExceeded, Rejected
from ratekit.http.reply import Reply
from ratekit.policy import Policy

__all__ = ["Fallback"]

P = ParamSpec("P")
T = TypeVar("T")

Cause = Outcome | Exception
"""Why there is no answer: a refusal of ours, a native error, or the server's last answer."""

_NOTHING: Any = object()
_FAILED = frozenset({Verdict.FAILED, Verdict.THROTTLED})


class Fallback(Policy):
    """Answers with something of the user's own where there would be a refusal or a failure.

    `answer`: what is answered then: a `Reply(status, headers, body)`, bytes or text, or anything
    that `json.dumps` takes, as a 200 with JSON; for a decorated function any value. Or a function
    of `(call, cause)` that returns such, and `ratekit.fallback.LET_THROUGH` where it has none.
    `cause` is a refusal of ratekit's (`RateLimited`, `CircuitOpen`, ...), the error that the
    attempt ended with, or the server's last answer. `stale`: seconds beyond its freshness that an
    answer of the `Cache` further out is used first. `on(cause) -> bool` says which causes count;
    without it all refusals, all failed connections, and the answers that a `Retry` would repeat.

    It stands outside of `Retry`, the breaker and the limiters, inside of a `Cache`. What it answers
    is never kept. Raises `ConfigurationError` where it has neither an answer nor `stale`.
    """

    spares_attempts = True
    stands_in = True

    def __init__(
        self,
        answer: Any = _NOTHING,
        *,
        stale: float | None = None,
        on: Callable[[Cause], bool] | None = None,
    ) -> None:
        if answer is _NOTHING and stale is None:
            raise ConfigurationError(
                "Fallback has nothing to answer with: give it a value, a function of (call, "
                "cause), or stale=<seconds> with a Cache further out"
            )
        if stale is not None:
            check_number("stale", stale, unit="seconds")
        if on is not None and not callable(on):
            raise ConfigurationError(f"on {on!r}: use a function of the cause")
        self.wants_kept = stale is not None
        self.answer = answer
        self.stale = stale
        self.on = on

    def run(self, call: Call, proceed: Proceed) -> Outcome:
        """Make the call; where it comes to nothing, answer in its place."""
        try:
            outcome = proceed(call)
        except SendFailed as failed:
            answer = self._instead(call, failed.error)
            if answer is None:
                raise
            return answer
        except (Rejected, DeadlineExceeded) as refusal:
            answer = self._instead(call, refusal)
            if answer is None:
                raise
            return answer
        except Exception as error:
            # Of a decorated function: there is nothing that tells a failure from a bug but `on`.
            if call.method is not None or self.on is None:
                raise
            answer = self._instead(call, error)
            if answer is None:
                raise
            return answer
        if not outcome.is_error or (
            self.on is None and outcome.verdict(call.options) not in _FAILED
        ):
            return outcome
        answer = self._instead(call, outcome)
        if answer is None:
            return outcome
        # Read to its end where it is short, so that its connection can serve another one.
        outcome.settle()
        outcome.discard()
        return answer

    def _instead(self, call: Call, cause: Cause) -> Outcome | None:
        """Return what is answered in place of this; None where that is to be seen."""
        if self.on is not None and not self.on(cause):
            return None
        if self.stale is not None and call.trip is not None:
            kept = call.trip.stale_within(self.stale)
            if kept is not None:
                call.fallback = True
                return kept
        answer = self.answer
        if callable(answer):
            answer = answer(call, cause)
        if answer is _NOTHING or answer is LET_THROUGH:
            return None
        call.fallback = True
        if call.respond is None:
            return Outcome(answer, None, {})
        outcome = call.respond(_reply_of(answer), [])
        # Nobody keeps it, and nobody learns from it.
        outcome.from_cache = True
        return outcome

    def __repr__(self) -> str:
        said = [] if self.answer is _NOTHING else [repr(self.answer)]
        said += [] if self.stale is None else [f"stale={self.stale}"]
        return f"Fallback({', '.join(said)})"


def _reply_of(answer: Any) -> Reply:
    if isinstance(answer, Reply):
        return answer
    kind = "application/json"
    if isinstance(answer, bytes):
        body, kind = answer, "application/octet-stream"
    elif isinstance(answer, str):
        body, kind = answer.encode(), "text/plain; charset=utf-8"
    else:
        try:
            body = json.dumps(answer).encode()
        except (TypeError, ValueError) as error:
            raise ConfigurationError(
                f"Fallback cannot answer with {answer!r}: use a Reply, bytes, text, or what "
                "json.dumps takes"
            ) from error
    headers = [("content-type", kind), ("content-length", str(len(body)))]
    return Reply(200, headers, body, reason="OK")


class _LetThrough:
    def __repr__(self) -> str:
        return "LET_THROUGH"

    def __reduce__(self) -> str:
        return "LET_THROUGH"


LET_THROUGH = _LetThrough()
"""What a function returns that has no answer: the refusal or failure is the user's to see."""
