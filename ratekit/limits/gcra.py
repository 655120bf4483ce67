"""The generic cell rate algorithm: every bucket form of a limit as one integer.

The integer is the *theoretical arrival time* (TAT), in nanoseconds of the store's clock: the
instant at which everything granted so far will have been paid for at the limit's pace, so that
the bucket is full again. A grant moves it forward by the permit's price; it never moves it past
`now + depth`, except by a reservation, whose turn comes when the clock has caught up.

TAT is time, not a count: a key whose limit changes keeps the share of it that it has spent.
(ITU-T I.371, annex A.)
"""

from ratekit.checks import check_positive
from ratekit.errors import ConfigurationError
from ratekit.limits.limit import Limit
from ratekit.limits.rules import Rule, State

__all__ = ["Bucket", "bucket_of"]

_MILLION = 1_000_000


class Bucket(Rule):
    """`burst` permits at once, then one each `interval_ns`."""

    __slots__ = ("burst", "depth_ns", "interval_ns", "limit", "saved_ns")

    fresh = 0
    is_punctual = True

    def __init__(self, limit: Limit, interval_ns: int, burst: int) -> None:
        self.limit = limit
        self.interval_ns = interval_ns
        self.burst = burst
        # How far the TAT may lie ahead of the clock: the price of a whole burst.
        self.depth_ns = interval_ns * burst
        self.saved_ns = self.depth_ns - interval_ns

    def price(self, cost: float) -> int:
        """Return what `cost` permits take, in nanoseconds of the TAT (rounded up).

        Raises `ConfigurationError` for a cost that is not above 0, or can never fit the burst.
        """
        check_positive("cost", cost)
        if cost > self.burst:
            raise ConfigurationError(
                f"cost {cost!r}: {self.limit.text!r} grants at most {self.burst} at once, so it "
                "would never be granted; name a burst in the limit "
                f"('... burst {-int(-cost // 1)}') or lower the cost"
            )
        return -int(-self.interval_ns * cost // 1)

    def reach_ns(self, price: int) -> int:
        """Return how far ahead of the clock the TAT may lie once `price` has been added.

        That is the depth; less for a fraction of a permit, which is granted when a whole one
        would be. So no cost slips through in the last instants of a hold.
        """
        return self.depth_ns - max(0, self.interval_ns - price)

    def earliest(self, state: int, now: int, price: int) -> int:
        """Return the first instant from `now` on at which `price` may be granted."""
        return max(now, state + price - self.reach_ns(price))

    def spend(self, state: int, at: int, now: int, price: int) -> int:
        """Return the TAT after a grant that was due at `at`."""
        return max(state, at) + price

    def grant(self, state: int, now: int, price: int) -> int | None:
        """Return the TAT after a grant now, None where that is not due."""
        end = (state if state > now else now) + price  # noqa: FURB136 (max() costs more)
        if end - self.depth_ns > now or (
            price < self.interval_ns and end - self.reach_ns(price) > now
        ):
            return None
        return end

    def charge(self, state: int, at: int, now: int, price: int) -> int:
        """Return the TAT after a grant of another limit's, whose key might come to this one.

        It empties the bucket at most: nobody gets into debt with a limit that was not in force.
        """
        return max(state, min(max(state, at) + price, at + self.depth_ns))

    def unspend(self, state: int, after: int, used: int, price: int, now: int) -> int:
        """Return the TAT after a permit came back.

        All of the price comes back while the clock has not passed the TAT before it; afterwards
        the bucket would have been full without it, and only what lies ahead of the clock is still
        the permit's.
        """
        return state - min(price, max(0, after - now))

    def hold(self, state: int, begin: int, until: int) -> int:
        """Return the TAT of a bucket whose clock stands from `begin` to `until`.

        It is empty then, but for the permit that is due when the hold is over: whoever must be
        told to stop has no credit.
        """
        return max(state + until - begin, self.floor(until))

    def floor(self, until: int) -> int:
        """Return the TAT of a bucket that is empty until then."""
        return until + self.saved_ns

    def raised(self, state: int, floor: int) -> int:
        """Return the larger TAT."""
        return max(state, floor)

    def idle_at(self, state: int) -> int:
        """Return the instant at which the bucket is full: the TAT itself."""
        return state

    def times(self, price: int, number: int) -> int:
        """Return `number` times the price."""
        return price * number

    def was_full(self, after: int, used: int, price: int) -> bool:
        """Return whether a burst began with the grant at `used` that left `after`."""
        return self.burst > 1 and after == used + price

    def tightest(self, state: int, now: int) -> tuple[Rule, int]:
        """Return itself."""
        return self, state

    def remaining(self, state: int, now: int) -> int:
        """Return how many permits are in the bucket."""
        return max(0, (self.depth_ns - max(0, state - now)) // self.interval_ns)

    def more_at(self, state: int, now: int) -> int:
        """Return the first instant at which more than `remaining` could have been granted."""
        more = (self.remaining(state, now) + 1) * self.interval_ns
        return max(state, now) + more - self.depth_ns

    def parts_of(self, state: int) -> tuple[tuple[Rule, State], ...]:
        """Return itself."""
        return ((self, state),)

    def __repr__(self) -> str:
        return f"Bucket({self.limit.text!r}, interval_ns={self.interval_ns}, burst={self.burst})"


def bucket_of(limit: Limit, headroom: float) -> Bucket:
    """Return the bucket that keeps the promise of `limit` at `headroom` times its pace.

    Headroom (0 < headroom <= 1) is what a client leaves of the server's rate: set exactly to it,
    jitter alone gets a request refused now and then. Where the limit names no burst, the bucket
    holds what the headroom leaves over, so that no window of the period, wherever it begins, ever
    sees more than `limit.count` permits: count - floor(headroom x count) at once and at most
    floor(headroom x count) in a period after that. (Fractions of a permit may add up to less than
    one permit more.)
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
    return Bucket(limit, interval_ns, burst)
