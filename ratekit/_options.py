"""How calls are to be made: one frozen value, for a pipeline, a `with` block or one request."""

from contextvars import ContextVar
from dataclasses import dataclass, fields
from types import TracebackType
from typing import Any, Self

from ratekit.checks import check_number
from ratekit.clock import to_ns
from ratekit.errors import ConfigurationError

__all__ = ["MAX_RETRY_AFTER", "NONE", "Options", "options"]

MAX_RETRY_AFTER = 300.0
"""Seconds that a server's own wait is obeyed for, where nothing else was said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How calls are to be made; None leaves a choice to whoever chose before (or the default).

    The defaults of a pipeline are overridden by `with ratekit.options(...)`, and both by an
    option given with one request (httpx's `extensions={"ratekit": ratekit.options(...)}`).

    `key`: whose limit state is used. `cost`: permits that an attempt takes. `max_wait`: seconds
    a permit may be waited for. `deadline`: seconds from its beginning in which the whole call
    must be over, waits and attempts included. `timeout`: seconds (or (connect, read)) for one
    attempt on requests where the user gave none; False for none at all. `retry`: False never
    repeats; True repeats also what is not idempotent. `idempotency_key`: the value of the
    `Idempotency-Key` header, the same on every attempt; True makes one. `throttle_statuses`: the
    statuses that mean "too fast". `max_retry_after`: the longest wait in seconds that a server may
    ask for. `refusal`: "raise" an error where ratekit refuses, or answer with a "response" 429.

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
    refusal: str | None = None

    def __post_init__(self) -> None:
        for name in ("max_wait", "deadline", "max_retry_after"):
            if getattr(self, name) is not None:
                check_number(name, getattr(self, name), unit="seconds")
        if self.key is not None and not isinstance(self.key, str):
            raise ConfigurationError(f"key {self.key!r}: use text")
        if self.refusal not in (None, "raise", "response"):
            raise ConfigurationError(f"refusal {self.refusal!r}: use 'raise' or 'response'")
        if self.retry not in (None, True, False):
            raise ConfigurationError(f"retry {self.retry!r}: use True, False or None")
        if self.timeout is not None and self.timeout is not False:
            pair = self.timeout if isinstance(self.timeout, tuple) else (self.timeout,)
            for seconds in pair:
                check_number("timeout", seconds, unit="seconds, (connect, read), or False")
        if self.throttle_statuses is not None:
            given = self.throttle_statuses
            statuses = frozenset([given] if isinstance(given, int) else given)
            if not all(400 <= status < 600 for status in statuses):
                raise ConfigurationError(
                    f"throttle_statuses {sorted(statuses, key=str)}: use status codes from 400 up"
                )
            object.__setattr__(self, "throttle_statuses", statuses)

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
        return _current.get()[-1]

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


_FIELDS = tuple(field.name for field in fields(Options))

NONE = Options()
"""Options that leave everything to the defaults."""

_current: ContextVar[tuple[Options, ...]] = ContextVar("ratekit.options", default=(NONE,))


def options(**chosen: Any) -> Options:
    """Return `Options`: a `with` block's, a pipeline's, or one httpx request's.

    Takes the fields of `Options`; a name it does not know is a `ConfigurationError`.
    """
    unknown = sorted(set(chosen) - set(_FIELDS))
    if unknown:
        raise ConfigurationError(f"unknown option {unknown[0]!r}: use one of {', '.join(_FIELDS)}")
    return Options(**chosen)
