"""How long to wait before attempt n + 1, when the server did not say.

Full jitter is the default: of the strategies measured it makes contending clients do the least
work (M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015). A server's own
wait is never shortened by any of them.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass

from ratekit.checks import check_number
from ratekit.errors import ConfigurationError

__all__ = ["Backoff", "Delay"]

Delay = Callable[[int, float], float]
"""`(failures so far, the last delay) -> seconds`: what a user may supply in place of `Backoff`."""

_SHAPES = ("full", "equal", "decorrelated", "constant")
# 2 to this power times any base is beyond every cap; a larger exponent would only overflow.
_LARGEST_EXPONENT = 64


@dataclass(frozen=True, slots=True)
class Backoff:
    """Seconds to wait after the n-th failure of a call; v = min(cap, base x 2^(n-1)).

    `shape`: "full", uniform in [0, v]; "equal", v/2 + uniform in [0, v/2]; "decorrelated", uniform
    in [base, 3 x the last delay], at most cap; "constant", always base. `base` and `cap` are
    seconds. `uniform(a, b)` draws the random numbers.

    Raises `ConfigurationError` for an unknown shape or a length that is none.
    """

    shape: str = "full"
    base: float = 0.5
    cap: float = 30.0
    uniform: Callable[[float, float], float] = random.uniform

    def __post_init__(self) -> None:
        if self.shape not in _SHAPES:
            raise ConfigurationError(f"backoff {self.shape!r}: use one of {', '.join(_SHAPES)}")
        for name in ("base", "cap"):
            check_number(f"backoff {name}", getattr(self, name), unit="seconds")
        if self.cap < self.base:
            raise ConfigurationError(
                f"backoff cap {self.cap!r} is below the base {self.base!r}; use a larger cap"
            )

    def __call__(self, failures: int, last: float) -> float:
        """Return the delay in seconds after `failures` failures (from 1) and the delay `last`."""
        if self.shape == "constant":
            return self.base
        if self.shape == "decorrelated":
            return min(self.cap, self.uniform(self.base, max(self.base, 3 * last)))
        exponent = min(max(failures, 1) - 1, _LARGEST_EXPONENT)
        value = min(self.cap, self.base * 2.0**exponent)
        if self.shape == "equal":
            return value / 2 + self.uniform(0.0, value / 2)
        return self.uniform(0.0, value)
