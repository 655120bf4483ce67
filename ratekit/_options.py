"""How calls are to be made: one frozen value, for a pipeline, a `with` block or one request."""

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, fields
from types import TracebackType
from typing import Any, Self

from ratekit.checks import check_number, check_positive
from ratekit.clock import to_ns
from ratekit.errors import ConfigurationError

__all__ = ["MAX_RETRY_AFTER", "NONE", "Options", "in_force", "options"]

MAX_RETRY_AFTER = 300.0
"""Seconds that a server's own wait is obeyed for, where nothing else was said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How calls are to be made; None leaves a choice to whoever chose before (or the default).

    The defaults of a pipeline are overridden by `with ratekit.options(...)`, and both by an
    option given with one request (httpx's `extensions={"ratekit": ratekit.options(...)}`).

    `key`: whose limit state is used. `cost`: permits that an attempt takes. `max_wait`: seconds
    a permit may be waited for. `priority`: of the calls that wait for a permit the higher number
    goes first (0 where none is said). `tier`: the name of the limiter's tier. `deadline`: seconds
    from its beginning in which the whole call must be over, waits and attempts included.
    `timeout`: seconds (or (connect, read)) for one attempt on requests where the user gave none;
    False for none at all. `retry`: False never repeats; True repeats also what is not idempotent.
    `idempotency_key`: the value of the `Idempotency-Key` header, the same on every attempt; True
    makes one. `throttle_statuses`: the statuses besides 429 that mean "too fast".
    `read_bodies`: whether the body of an answer is read for what it says of limits too.
    `max_retry_after`: the longest wait in seconds that a server may ask for. `refusal`: "raise" an
    error where ratekit refuses, or answer with a "response" 429. Of the cache: `ttl`: seconds that
    the answer is kept for, whatever the server says. `refresh`: ask the server, and keep what it
    says. `cached_only`: a cached answer or a 504, no attempt. `no_cache`: pass by the cache.

    Raises `ConfigurationError` for a value that cannot be right.
    """

    key: str | None = None
    cost: float | None = None
    max_wait: float | None = None
    deadline: float | None = None
    timeout: float | tuple[float, float] | bool | None = None
    retry: bool | None = None
    idempotency_key: str | bool | None = None
    throttle_statuses: frozenset[int] | None = None
    max_retry_after: float | None = None
    read_bodies: bool | None = None
    priority: int | None = None
    tier: str | None = None
    refusal: str | None = None
    ttl: float | None = None
    refresh: bool | None = None
    cached_only: bool | None = None
    no_cache: bool | None = None

    def __post_init__(self) -> None:
        for name, check in _CHECKS.items():
            value = getattr(self, name)
            if value is not None:
                check(name, value)
        if self.throttle_statuses is not None:
            # Any collection may be given, or one status.
            object.__setattr__(self, "throttle_statuses", _statuses(self.throttle_statuses))

    def over(self, other: "Options") -> "Options":
        """Return these options, with `other`'s where these say nothing."""
        if other is NONE:
            return self
        if self is NONE:
            return other
        chosen = {
            name: mine if (mine := getattr(self, name)) is not None else getattr(other, name)
            for name in _FIELDS
        }
        return Options(**chosen)

    def patience_ns(self) -> int:
        """Return how long a pause that the server asked for is sat out, in nanoseconds."""
        return to_ns(MAX_RETRY_AFTER if self.max_retry_after is None else self.max_retry_after)

    @classmethod
    def current(cls) -> "Options":
        """Return the options in force here: those of the enclosing `with` blocks."""
        return in_force()

    def __enter__(self) -> Self:
        stack = _current.get()
        _current.set((*stack, self.over(stack[-1])))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _current.set(_current.get()[:-1])


def _check_seconds(name: str, value: object) -> None:
    check_number(name, value, unit="seconds")


def _check_text(name: str, value: object) -> None:
    if not isinstance(value, str):
        raise ConfigurationError(f"{name} {value!r}: use text")


def _check_timeout(name: str, value: object) -> None:
    if value is False:
        return
    if not isinstance(value, tuple):
        check_positive(name, value)
        return
    if len(value) != 2:
        raise ConfigurationError(f"{name} {value!r}: use seconds, (connect, read), or False")
    for seconds in value:
        if seconds is not None:
            check_positive(name, seconds)


def _check_flag(name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise ConfigurationError(f"{name} {value!r}: use True, False or None")


def _check_idempotency_key(name: str, value: object) -> None:
    if not isinstance(value, (str, bool)):
        raise ConfigurationError(f"{name} {value!r}: use text, or True for one made now")


def _check_priority(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigurationError(f"{name} {value!r}: use a whole number; higher ones go first")


def _check_refusal(name: str, value: object) -> None:
    if value not in ("raise", "response"):
        raise ConfigurationError(f"{name} {value!r}: use 'raise' or 'response'")


def _check_statuses(name: str, value: Any) -> None:
    if not all(isinstance(status, int) and 400 <= status < 600 for status in _statuses(value)):
        raise ConfigurationError(f"{name} {value!r}: use status codes from 400 up")


def _statuses(value: Any) -> frozenset[Any]:
    return frozenset([value] if isinstance(value, (int, str)) else value)


_CHECKS: dict[str, Callable[[str, Any], None]] = {
    "key": _check_text,
    "cost": check_positive,
    "max_wait": _check_seconds,
    "deadline": _check_seconds,
    "timeout": _check_timeout,
    "retry": _check_flag,
    "idempotency_key": _check_idempotency_key,
    "throttle_statuses": _check_statuses,
    "max_retry_after": _check_seconds,
    "read_bodies": _check_flag,
    "priority": _check_priority,
    "tier": _check_text,
    "refusal": _check_refusal,
    "ttl": _check_seconds,
    "refresh": _check_flag,
    "cached_only": _check_flag,
    "no_cache": _check_flag,
}

_FIELDS = tuple(field.name for field in fields(Options))

NONE = Options()
"""Options that leave everything to the defaults."""

_current: ContextVar[tuple[Options, ...]] = ContextVar("ratekit.options", default=(NONE,))


def in_force() -> Options:
    """Return the options of the enclosing `with` blocks."""
    return _current.get()[-1]


def options(**chosen: Any) -> Options:
    """Return `Options`: a `with` block's, a pipeline's, or one httpx request's.

    Takes the fields of `Options`; a name it does not know is a `ConfigurationError`.
    """
    unknown = sorted(set(chosen) - set(_FIELDS))
    if unknown:
        raise ConfigurationError(f"unknown option {unknown[0]!r}: use one of {', '.join(_FIELDS)}")
    return Options(**chosen)
