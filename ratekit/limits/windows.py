"""Windows: so many permits in any period (`Window`), or in each one of the epoch's (`Fixed`).

A sliding window that is exact remembers every grant of the last period. This one remembers groups
of them, and frees a group as a whole, one period after its youngest grant: never too early, and
hardly ever late, because whoever waits takes a freed group at once, so that from then on its
grants are of one instant. Whatever the limit there are few groups: where there is one too many, two
neighbours become one, those for which that means the least delay.

Costs are counted in millionths of a permit, so that fractions add up.
"""

from array import array
from collections.abc import Callable

from ratekit.checks import check_positive
from ratekit.errors import ConfigurationError
from ratekit.limits.limit import Limit
from ratekit.limits.rules import Rule, State

__all__ = ["Fixed", "Window"]

_MILLION = 1_000_000
_GROUPS = 31
"""The most groups of a window: two integers each, and one for their sum."""
_CELLS = 256
"""Into how many parts a period is divided: the grants of one part are a group from the first."""


class _Counting(Rule):
    """What both kinds of window share: prices are counts, and a hold changes none."""

    __slots__ = ("_capacity", "limit")

    is_punctual = False
    burst = 1
    # What is counted at the instant of its use needs no spacing.
    saved_ns = 1 << 62

    def __init__(self, limit: Limit) -> None:
        self.limit = limit
        self._capacity = limit.count * _MILLION

    def price(self, cost: float) -> int:
        """Return `cost` in millionths of a permit (rounded up).

        Raises `ConfigurationError` for a cost that is not above 0, or more than the whole limit.
        """
        check_positive("cost", cost)
        if cost > self.limit.count:
            raise ConfigurationError(
                f"cost {cost!r}: {self.limit.text!r} grants at most {self.limit.count} in a "
                "period, so it would never be granted; raise the limit or lower the cost"
            )
        return -int(-_MILLION * cost // 1)

    def hold(self, state: State, begin: int, until: int) -> State:
        """Return the state: what was granted before a hold is freed at its time."""
        return state

    def floor(self, until: int) -> State:
        """Return the fresh state: a hold uses up nothing of a window."""
        return self.fresh

    def raised(self, state: State, floor: State) -> State:
        """Return the state."""
        return state

    def times(self, price: int, number: int) -> int:
        """Return `number` times the price."""
        return price * number

    def was_full(self, after: State, used: int, price: int) -> bool:
        """Return False: it is no bucket."""
        return False

    def tightest(self, state: State, now: int) -> tuple[Rule, State]:
        """Return itself."""
        return self, state

    def parts_of(self, state: State) -> tuple[tuple[Rule, State], ...]:
        """Return itself."""
        return ((self, state),)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.limit.text!r})"


class Window(_Counting):
    """At most `limit.count` permits in any period, as early as that allows.

    The state is an array that nobody changes: the sum of all that is counted, then for each group
    the instant of its youngest grant and how much it holds, the oldest group first.
    """

    __slots__ = ("_cell_ns", "_period_ns")

    fresh = array("q", (0,))

    def __init__(self, limit: Limit) -> None:
        super().__init__(limit)
        self._period_ns = limit.period_ns
        # Where there is a group for each permit, only those of one instant share one.
        self._cell_ns = 1 if limit.count < _GROUPS else -(-limit.period_ns // _CELLS)

    def earliest(self, state: "array[int]", now: int, price: int) -> int:
        """Return the first instant from `now` on at which `price` may be granted."""
        over = state[0] + price - self._capacity
        if over <= 0:
            return now
        index = 0
        while over > 0:
            index += 2
            over -= state[index]
        return max(now, state[index - 1] + self._period_ns)

    def spend(self, state: "array[int]", at: int, now: int, price: int) -> "array[int]":
        """Return the state after a grant that is used at `now`."""
        gone = now - self._period_ns
        freed = 1
        while freed < len(state) and state[freed] <= gone:
            freed += 2
        if freed == 1:
            spent = state[:]
        else:
            spent = state[freed - 1 :]
            spent[0] = state[0] - sum(state[2:freed:2])
        self._add(spent, now, price)
        return spent

    def grant(self, state: "array[int]", now: int, price: int) -> "array[int] | None":
        """Return the state after a grant now, None where that is not due."""
        if state[0] + price > self._capacity and self.earliest(state, now, price) > now:
            return None
        if (
            len(state) == 1
            or state[1] <= now - self._period_ns
            or state[-2] > now
            or state[-2] // self._cell_ns != now // self._cell_ns
        ):
            return self.spend(state, now, now, price)
        # Most often nothing is freed, and the last group is still open.
        spent = state[:]
        spent[0] += price
        spent[-2] = now
        spent[-1] += price
        return spent

    charge = spend

    def unspend(
        self,
        state: "array[int]",
        after: "array[int]",
        used: int,
        price: int,
        now: int,
    ) -> "array[int]":
        """Return the state after a permit that was granted at `used` came back."""
        left = state[:]
        _remove(left, used, price)
        return left

    def answered(self, state: "array[int]", used: int, price: int, now: int) -> "array[int]":
        """Return the state after an attempt granted at `used` was answered now.

        Its server counted it at some instant between these, so its place is free one period after
        the answer. Where the answer took longer than the period, nobody gains by that.
        """
        if used + self._period_ns <= now:
            return state
        moved = state[:]
        if still := _remove(moved, used, price):
            self._add(moved, now, still)
        return moved

    def idle_at(self, state: "array[int]") -> int:
        """Return the instant at which the last group is freed."""
        return state[-2] + self._period_ns if len(state) > 1 else 0

    def remaining(self, state: "array[int]", now: int) -> int:
        """Return how many permits could be granted now."""
        gone = now - self._period_ns
        spent = sum(
            count
            for youngest, count in zip(state[1::2], state[2::2], strict=True)
            if youngest > gone
        )
        return max(0, (self._capacity - spent) // _MILLION)

    def more_at(self, state: "array[int]", now: int) -> int:
        """Return the first instant at which more than `remaining` could have been granted."""
        more = (self.remaining(state, now) + 1) * _MILLION
        return self.earliest(state, now, more) if more <= self._capacity else now + self._period_ns

    def _add(self, state: "array[int]", now: int, price: int) -> None:
        """Count `price` at `now`."""
        state[0] += price
        index = len(state) - 2
        youngest = state[index] if index > 0 else -1
        if youngest <= now and youngest // self._cell_ns == now // self._cell_ns:
            # The group is freed later for it, and no grant in it too early.
            state[index] = now
            state[index + 1] += price
            return
        # Where turns are reserved that lie ahead, the place is before them.
        while index > 0 and state[index] > now:
            index -= 2
        state.insert(index + 2, price)
        state.insert(index + 2, now)
        while len(state) > 1 + 2 * _GROUPS:
            _merge(state)


def _merge(state: "array[int]") -> None:
    """Make one of the two neighbouring groups for which that means the least delay."""
    youngest, counts = state[1::2], state[2::2]
    delays = [
        (later - earlier) * count
        for earlier, later, count in zip(youngest, youngest[1:], counts, strict=False)
    ]
    place = 1 + 2 * delays.index(min(delays))
    state[place + 3] += state[place + 1]
    del state[place : place + 2]


def _remove(state: "array[int]", used: int, price: int) -> int:
    """Take what was counted at `used` out again; return how much of it was still there."""
    index = 1
    while index < len(state) and state[index] < used:
        index += 2
    missing = price
    while missing and index < len(state):
        part = min(missing, state[index + 1])
        missing -= part
        state[index + 1] -= part
        if state[index + 1]:
            index += 2
        else:
            del state[index : index + 2]
    state[0] -= price - missing
    return price - missing


class Fixed(_Counting):
    """At most `limit.count` permits in each period that is aligned to the epoch.

    The state is the number of the period, counted from the epoch, and what was spent in it.
    `epoch_ns(now)`: how far the epoch lies before the zero of the store's clock
    (`Clock.epoch_ns`); the one thing that such a rule has to be told from outside.
    """

    __slots__ = ("_epoch_ns", "_period_ns")

    fresh = (0, 0)

    def __init__(self, limit: Limit, epoch_ns: Callable[[int], int]) -> None:
        super().__init__(limit)
        self._period_ns = limit.period_ns
        self._epoch_ns = epoch_ns

    def earliest(self, state: tuple[int, int], now: int, price: int) -> int:
        """Return the first instant from `now` on at which `price` may be granted."""
        epoch_ns = self._epoch_ns(now)
        current = (now + epoch_ns) // self._period_ns
        period, spent = state
        if period < current:
            return now
        if spent + price > self._capacity:
            period += 1
        return now if period == current else period * self._period_ns - epoch_ns

    def spend(self, state: tuple[int, int], at: int, now: int, price: int) -> tuple[int, int]:
        """Return the state after a grant that is used at `now`."""
        period, spent = state
        current = (now + self._epoch_ns(now)) // self._period_ns
        return (current, price) if period < current else (period, spent + price)

    def grant(self, state: tuple[int, int], now: int, price: int) -> tuple[int, int] | None:
        """Return the state after a grant now, None where that is not due."""
        current = (now + self._epoch_ns(now)) // self._period_ns
        period, spent = state
        if period < current:
            return current, price
        if period > current or spent + price > self._capacity:
            return None
        return period, spent + price

    charge = spend

    def unspend(
        self,
        state: tuple[int, int],
        after: tuple[int, int],
        used: int,
        price: int,
        now: int,
    ) -> tuple[int, int]:
        """Return the state after a permit came back, while its period lasts."""
        period, spent = state
        return (period, max(0, spent - price)) if period == after[0] else state

    def answered(self, state: tuple[int, int], used: int, price: int, now: int) -> tuple[int, int]:
        """Return the state after an attempt granted at `used` was answered now.

        Where a period ended between these, nobody knows in which one the server counted it: it is
        counted in both.
        """
        epoch_ns = self._epoch_ns(now)
        if (used + epoch_ns) // self._period_ns == (now + epoch_ns) // self._period_ns:
            return state
        return self.spend(state, now, now, price)

    def idle_at(self, state: tuple[int, int]) -> int:
        """Return the instant at which the period ends."""
        return (state[0] + 1) * self._period_ns - self._epoch_ns(0) if state[1] else 0

    def remaining(self, state: tuple[int, int], now: int) -> int:
        """Return how many permits are left in this period."""
        if state[0] < (now + self._epoch_ns(now)) // self._period_ns:
            return self.limit.count
        return max(0, self._capacity - state[1]) // _MILLION

    def more_at(self, state: tuple[int, int], now: int) -> int:
        """Return the instant at which this period ends."""
        epoch_ns = self._epoch_ns(now)
        return ((now + epoch_ns) // self._period_ns + 1) * self._period_ns - epoch_ns
