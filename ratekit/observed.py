"""A call as its listeners see it: each attempt, what the cache did, and the end."""

import logging
from collections.abc import Callable

from ratekit.call import Call, Outcome, Proceed, SendFailed, Verdict
from ratekit.clock import SECOND
from ratekit.errors import DeadlineExceeded, Rejected
from ratekit.events import AttemptEnded, CacheUsed, CallEnded, Refused, deliver, tell

__all__ = ["observed", "told"]

_log = logging.getLogger("ratekit.calls")

_VERDICTS = {
    Verdict.OK: "ok", Verdict.FAILED: "failed", Verdict.THROTTLED: "throttled",
    Verdict.IGNORED: "ignored",
}  # fmt: skip


def key_of(call: Call) -> str:
    """Return whose call it is: the limiter's key, or the origin."""
    return call.limited_key or call.budget_key


def observed(attempt: Proceed) -> Proceed:
    """Return an attempt whose listeners are told how it ended."""

    def run(call: Call) -> Outcome:
        began = call.clock.now_ns()
        status, error, verdict = None, "", "failed"
        try:
            outcome = attempt(call)
            status, verdict = outcome.status, _VERDICTS[outcome.verdict(call.options)]
        except SendFailed as failed:
            error = type(failed.error).__name__
            raise
        except BaseException as raised:
            error = type(raised).__name__
            raise
        finally:
            seconds = (call.clock.now_ns() - began) / SECOND
            event = AttemptEnded(
                key_of(call), call.method or "", call.attempts, status, error, verdict, seconds
            )
            deliver(call.listeners, event)
        return outcome

    return run


def told(run: Proceed) -> Callable[[Call], Outcome]:
    """Return a run of a pipeline whose listeners are told how it ended."""

    def tell_of(call: Call) -> Outcome:
        began, error, outcome = call.clock.now_ns(), "", None
        try:
            outcome = run(call)
        except (Rejected, DeadlineExceeded) as refusal:
            error = type(refusal).__name__
            event = Refused(key_of(call), error, refusal.retry_after)
            # The message says why, and for how long.
            tell(call.listeners, event, _log, logging.INFO, "refused: %s", refusal)
            raise
        except SendFailed as failed:
            error = type(failed.error).__name__
            raise
        except BaseException as raised:
            error = type(raised).__name__
            raise
        finally:
            _tell_of_end(call, outcome, error, (call.clock.now_ns() - began) / SECOND)
        return outcome

    return tell_of


def _tell_of_end(call: Call, outcome: Outcome | None, error: str, seconds: float) -> None:
    key, status, source = key_of(call), None, ""
    if outcome is not None:
        status, source = outcome.status, source_of(call)
        used = _cache_use(key, outcome)
        if used is not None:
            deliver(call.listeners, used)
    waited = call.waited_ns / SECOND
    event = CallEnded(key, call.method or "", status, error, source, call.attempts, seconds, waited)
    deliver(call.listeners, event)


def source_of(call: Call) -> str:
    """Return where an answer came from."""
    if call.fallback:
        return "fallback"
    if call.collapsed:
        return "collapsed"
    return "cache" if call.from_cache else "server"


def _cache_use(key: str, outcome: Outcome) -> CacheUsed | None:
    """Return what our cache did, by what it said in `Cache-Status` (RFC 9211)."""
    said = outcome.headers.get("cache-status", "")
    _, ours, rest = said.rpartition("ratekit; ")
    if not ours:
        return None
    words = dict(part.strip().partition("=")[::2] for part in rest.split(";"))
    reason = words.get("detail") or words.get("fwd", "")
    if "hit" in words:
        result = "stale" if "detail" in words else "hit"
    elif words.get("fwd") in {"bypass", "method"}:
        result = "bypass"
    else:
        result = "revalidated" if words.get("fwd-status") == "304" else "miss"
    return CacheUsed(key, result, reason, "stored" in words)
