"""The generic cell rate algorithm: every bucket form of a limit as one integer.

The integer is the *theoretical arrival time* (TAT), in nanoseconds of the store's clock: the
instant at which everything granted so far will have been paid for at the limit's pace, so that
the bucket is full again. A grant moves it forward by the permit's price; it never moves it past
`now + depth`, except by a reservation, whose turn comes when the clock has caught up.

The functions are pure: they take no lock, read no clock and do no I/O. (ITU-T I.371, annex A.)
"""

from typing import NamedTuple

from ratekit.checks import check_positive
from ratekit.errors import ConfigurationError
from ratekit.limits.limit import Limit

__all__ = ["Rule", "give_back", "rule_of"]

_MILLION = 1_000_000


class Rule(NamedTuple):
    """What a bucket promises: `burst` permits at once, then one each `interval_ns`."""

    interval_ns: int
    burst: int

    @property
    def depth_ns(self) -> int:
        """How far the TAT may lie ahead of the clock: the price of a whole burst."""
        return self.interval_ns * self.burst

    def reach_ns(self, price_ns: int) -> int:
        """Return how far ahead of the clock the TAT may lie once `price_ns` has been added.

        That is the depth; less for a fraction of a permit, which is granted when a whole one
        would be. So no cost slips through in the last instants of a hold.
        """
        return self.depth_ns - max(0, self.interval_ns - price_ns)

    def price_ns(self, cost: float) -> int:
        """Return what `cost` permits take, in nanoseconds of the TAT (rounded up).

        Raises `ConfigurationError` for a cost that is not above 0, or can never fit the burst.
        """
        check_positive("cost", cost)
        if cost > self.burst:
            raise ConfigurationError(
                f"cost {cost!r}: this limit grants at most {self.burst} at once, so it would "
                f"never be granted; name a burst in the limit ('... burst {-int(-cost // 1)}') "
                "or lower the cost"
            )
        return -int(-self.interval_ns * cost // 1)


def rule_of(limit: Limit, headroom: float) -> Rule:
    """Return the bucket that keeps the promise of `limit` at `headroom` times its pace.

    Headroom (0 < headroom <= 1) is what a client leaves of the server's rate: set exactly to it,
    jitter alone gets a request refused now and then. Where the limit names no burst, the bucket
    holds what the headroom leaves over, so that no window of the period, wherever it begins, ever
    sees more than `limit.count` permits: count - floor(headroom x count) at once and at most
    floor(headroom x count) in a period after that.
    """
    if (
        isinstance(headroom, bool)
        or not isinstance(headroom, (int, float))
        or not 0 < headroom <= 1
    ):
        raise ConfigurationError(f"headroom {headroom!r}: use a number above 0, at most 1")
    share = max(1, round(headroom * _MILLION))
    # Rounded up: an interval a nanosecond too long is safe, one too short is a broken promise.
    interval_ns = -(-limit.period_ns * _MILLION // (limit.count * share))
    burst = limit.burst
    if burst is None:
        burst = max(1, limit.count - limit.count * share // _MILLION)
    return Rule(interval_ns, burst)


def give_back(end_ns: int, price_ns: int, now: int) -> int:
    """Return by how much the TAT may move back when a permit is returned unused.

    `end_ns` is the TAT that its reservation made. All of the price comes back while the clock has
    not passed the TAT before it; afterwards the bucket would have been full without it, and only
    what lies ahead of the clock is still the permit's.
    """
    return min(price_ns, max(0, end_ns - now))
