"""What happens to calls, as values: delivered to whoever listens, and told to the log.

A listener is any callable that takes an event. It is called in the thread in which the thing
happened, with no lock held; what it raises is logged and fails nothing. No event holds a URL, a
header or anything else in which a secret could be: a `key` is the limiter's or the origin.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

from ratekit.clock import SECOND, SYSTEM
from ratekit.errors import ConfigurationError
from ratekit.quota import Quota

__all__ = [
    "AttemptEnded", "CacheUsed", "CallEnded", "CircuitChanged", "Event", "FollowerJoined",
    "HoldReleased", "HoldSet", "Listener", "PaceLearned", "PermitWaited", "QuotaLow", "QuotaSeen",
    "Refused", "Retried", "StoreFound", "StoreLost", "deliver", "listen", "listeners_of", "tell",
]  # fmt: skip

_log = logging.getLogger("ratekit.events")


@dataclass(frozen=True, slots=True)
class Event:
    """Something happened. `key`: the limiter's key of the call, or its origin."""

    key: str

    def fields(self) -> dict[str, Any]:
        """Return the name of the event and its fields, for a log line."""
        said = {one.name: getattr(self, one.name) for one in fields(self)}
        return {"event": type(self).__name__, **said}


@dataclass(frozen=True, slots=True)
class CallEnded(Event):
    """A call of the user is over.

    `status`: of the answer, None where there was none; then `error` names the exception. `source`:
    "server", "cache", "collapsed" (another call's answer), "fallback", or "" without an answer.
    `seconds`: how long it took, of which `waited` were waits for permits, holds and back-off.
    """

    method: str
    status: int | None
    error: str
    source: str
    attempts: int
    seconds: float
    waited: float


@dataclass(frozen=True, slots=True)
class AttemptEnded(Event):
    """An attempt was answered, or failed. `verdict`: "ok", "failed", "throttled" or "ignored"."""

    method: str
    number: int
    status: int | None
    error: str
    verdict: str
    seconds: float

    @property
    def is_failure(self) -> bool:
        """Whether the server failed, or refused it."""
        return self.verdict in {"failed", "throttled"}


@dataclass(frozen=True, slots=True)
class Retried(Event):
    """Attempt `number` failed, and there will be another one `delay` seconds from now."""

    number: int
    why: str
    delay: float


@dataclass(frozen=True, slots=True)
class Refused(Event):
    """ratekit refused a call: `error` is the exception's name, `retry_after` seconds or None."""

    error: str
    retry_after: float | None


@dataclass(frozen=True, slots=True)
class PermitWaited(Event):
    """A call waited `seconds` for a permit."""

    seconds: float


@dataclass(frozen=True, slots=True)
class HoldSet(Event):
    """Nothing is sent for `seconds`, because an answer with this `status` said so."""

    seconds: float
    status: int | None


@dataclass(frozen=True, slots=True)
class HoldReleased(Event):
    """The first call after a hold has its permit."""


@dataclass(frozen=True, slots=True)
class PaceLearned(Event):
    """A server was found to accept `per_second`; `told`: it said so, and was not found out."""

    per_second: float
    told: bool


@dataclass(frozen=True, slots=True)
class QuotaSeen(Event):
    """An answer told what is left."""

    quotas: tuple[Quota, ...]


@dataclass(frozen=True, slots=True)
class QuotaLow(Event):
    """Only the share `left` (0 to 1) of the quota called `name` is left."""

    name: str
    left: float


@dataclass(frozen=True, slots=True)
class CircuitChanged(Event):
    """A circuit is `state` now: "closed", "open" for `seconds`, or "half-open"."""

    state: str
    seconds: float


@dataclass(frozen=True, slots=True)
class CacheUsed(Event):
    """A cache was asked.

    `result`: "hit", "stale", "revalidated", "miss" or "bypass"; `reason`: why it was not a plain
    hit, in the words of RFC 9211; `stored`: whether the answer is kept now, once it is read.
    """

    result: str
    reason: str
    stored: bool


@dataclass(frozen=True, slots=True)
class FollowerJoined(Event):
    """A call waits for the answer to an identical one that is under way."""


@dataclass(frozen=True, slots=True)
class StoreLost(Event):
    """A store does not answer. `key` is its address."""

    why: str


@dataclass(frozen=True, slots=True)
class StoreFound(Event):
    """A store answers again, after `seconds`. `key` is its address."""

    seconds: float


Listener = Callable[[Any], object]
"""Is called with every event."""

# Who listens to everything in this process. A new tuple with each change: read without a lock.
everywhere: tuple[Listener, ...] = ()

_MOST_SAID, _SAY_EVERY = 100, 60.0
# A listener that fails is worth a line in the log once a minute.
_said: dict[int, tuple[Listener, float]] = {}


def listen(listener: Listener) -> Callable[[], None]:
    """Call `listener` with every event of this process; return what ends that.

    Raises `ConfigurationError` for what cannot be called.
    """
    global everywhere  # noqa: PLW0603  (the one list of a process)
    everywhere += listeners_of(listener)

    def end() -> None:
        global everywhere  # noqa: PLW0603
        everywhere = tuple(one for one in everywhere if one is not listener)

    return end


def listeners_of(given: Listener | tuple[Listener, ...] | list[Listener] | None) -> tuple[Any, ...]:
    """Return one listener or several as a tuple. Raises `ConfigurationError`."""
    if given is None:
        return ()
    several = (given,) if callable(given) or not isinstance(given, (tuple, list)) else tuple(given)
    for one in several:
        if not callable(one):
            raise ConfigurationError(
                f"on_event {one!r}: use a function that takes one event, such as print"
            )
    return several


def deliver(listeners: tuple[Listener, ...], event: Event) -> None:
    """Call every listener with an event, whatever they raise."""
    for listener in listeners:
        try:
            listener(event)
        except Exception:  # noqa: BLE001  (whatever it was, it is logged)
            now = SYSTEM.now_ns() / SECOND
            known, at = _said.get(id(listener), (None, 0.0))
            if known is not listener or now - at >= _SAY_EVERY:
                if len(_said) >= _MOST_SAID:
                    _said.clear()
                _said[id(listener)] = listener, now
                _log.exception("the listener %r failed", listener)


def tell(
    listeners: tuple[Listener, ...],
    event: Event,
    log: logging.Logger,
    level: int,
    message: str,
    *args: object,
) -> None:
    """Write a line that has the event's fields with it (`record.ratekit`), and deliver it."""
    if log.isEnabledFor(level):
        log.log(level, message, *args, extra={"ratekit": event.fields()})
    if listeners:
        deliver(listeners, event)
