"""The retry budget: how much of a client's traffic may be repeats, so that no outage is fed.

The record of a key is two integers: thousandths of a retry that are left, and the instant at which
that was so. Every call earns a share of a retry, every repeat after a failure spends one, and time
alone refills up to the floor. Calls are only counted until a retry is asked for: most never are.
(Google SRE book, "Handling Overload": retries below 10 % of requests keep the worst case at 1.1
times the load instead of 3.)
"""

from dataclasses import dataclass

from ratekit.checks import check_number
from ratekit.clock import SECOND
from ratekit.errors import ConfigurationError

__all__ = ["RetryBudget"]

_MILLI = 1000

Record = tuple[int, int]


@dataclass(frozen=True, slots=True)
class RetryBudget:
    """Retries at most `ratio` of the calls, plus a small floor.

    `ratio`: retries earned by a call. `floor`: retries that are there at first, and to which time
    refills, at `per_second` retries a second. `cap`: the most that can be saved up.

    Raises `ConfigurationError` for a negative number, or a cap below the floor.
    """

    ratio: float = 0.1
    floor: float = 10.0
    per_second: float = 1.0
    cap: float = 500.0

    def __post_init__(self) -> None:
        for name in ("ratio", "floor", "per_second", "cap"):
            check_number(f"budget {name}", getattr(self, name))
        if self.cap < self.floor:
            raise ConfigurationError(
                f"budget cap {self.cap!r} is below its floor {self.floor!r}; use a larger cap"
            )

    def spend(self, record: Record | None, now: int, calls: int = 0) -> tuple[Record, bool]:
        """Return the record after one more retry, and whether there was enough left for it.

        `calls`: how many were made since the record was last looked at.
        """
        earned = self._left(record, now) + round(calls * self.ratio * _MILLI)
        left = min(earned, round(self.cap * _MILLI))
        allowed = left >= _MILLI
        return (left - _MILLI if allowed else left, now), allowed

    def idle_at(self, record: Record) -> int:
        """Return the instant at which time alone has refilled the floor.

        What was earned above it may be forgotten: that is the strict side.
        """
        left, since = record
        missing = self.floor * _MILLI - left
        if missing <= 0:
            return since
        if not self.per_second:
            return since + 3600 * SECOND
        return since + int(missing / _MILLI / self.per_second * SECOND)

    def left(self, record: Record | None, now: int) -> float:
        """Return how many retries there are, without those that calls have earned since."""
        return self._left(record, now) / _MILLI

    def _left(self, record: Record | None, now: int) -> int:
        floor = round(self.floor * _MILLI)
        if record is None:
            return floor
        left, since = record
        if left >= floor:
            return left
        return min(floor, left + int((now - since) * self.per_second * _MILLI / SECOND))
