"""What every algorithm of a limit answers: a `Rule`, pure functions on an immutable state.

A state says what was granted, in integers: one for a bucket, a tuple for the other forms. A rule
says when the next permit is due, and what the state is once it has been granted. A reservation is
the same with an instant that lies ahead. No function takes a lock, reads a clock or does I/O, so
a store may apply it wherever the state lives, and a test may step it through every instant.
"""

from abc import ABC, abstractmethod
from typing import Any, TypeAlias

from ratekit.limits.limit import Limit

__all__ = ["Price", "Rule", "State"]

State: TypeAlias = Any
"""An integer, or a tuple of integers and states: immutable."""

Price: TypeAlias = Any
"""What a cost takes, in the rule's own unit: an integer, or a tuple where a rule has parts."""


class Rule(ABC):
    """One promise, kept by pure functions. All instants are nanoseconds of the store's clock."""

    __slots__ = ()

    fresh: State
    """The state of a key that was granted nothing."""
    limit: Limit
    """What the user wrote."""
    is_punctual: bool
    """Whether a grant leaves the same state, however late its thread woke up for it."""
    burst: int
    """How many permits a bucket in it grants at once; 1 where there is no such bucket."""
    saved_ns: int
    """How many nanoseconds of turns may be made up for after the process was stopped."""

    @abstractmethod
    def price(self, cost: float) -> Price:
        """Return what `cost` permits take.

        Raises `ConfigurationError` for a cost that is not above 0, or can never be granted.
        """

    def reach_ns(self, price: Price) -> int | None:
        """Return how far ahead of the clock the state may lie after a grant, if it is an integer.

        None for the others. A store may use it to take the short way: the grant is due at
        `state + price - reach`, and the state is then max(state, instant) + price.
        """
        return None

    @abstractmethod
    def earliest(self, state: State, now: int, price: Price) -> int:
        """Return the first instant from `now` on at which `price` may be granted."""

    @abstractmethod
    def spend(self, state: State, at: int, now: int, price: Price) -> State:
        """Return the state after a grant that was due at `at` and is used at `now`."""

    def grant(self, state: State, now: int, price: Price) -> State | None:
        """Return the state after a grant now, None where that is not due.

        It is `earliest` and `spend` in one: every permit of a limiter goes through it.
        """
        if self.earliest(state, now, price) > now:
            return None
        return self.spend(state, now, now, price)

    @abstractmethod
    def unspend(self, state: State, after: State, used: int, price: Price, now: int) -> State:
        """Return the state after a permit came back unused.

        `after`: the state that its grant left. `used`: the `now` of that grant.
        """

    def answered(self, state: State, used: int, price: Price, now: int) -> State:
        """Return the state after the attempt that was granted at `used` was answered now."""
        return state

    @abstractmethod
    def hold(self, state: State, begin: int, until: int) -> State:
        """Return the state of a limiter whose clock stands from `begin` to `until`."""

    @abstractmethod
    def floor(self, until: int) -> State:
        """Return the state below which nothing brings a limiter that is held until then."""

    @abstractmethod
    def raised(self, state: State, floor: State) -> State:
        """Return the state in which at least what `floor` says is spent."""

    @abstractmethod
    def idle_at(self, state: State) -> int:
        """Return the instant from which the state says no more than a fresh one."""

    @abstractmethod
    def times(self, price: Price, number: int) -> Price:
        """Return `number` times the price."""

    @abstractmethod
    def was_full(self, after: State, used: int, price: Price) -> bool:
        """Return whether a grant at `used` that left `after` came out of a bucket that was full."""

    # What a `Decision` tells.

    @abstractmethod
    def tightest(self, state: State, now: int) -> tuple["Rule", State]:
        """Return the part that has the least left, with its state."""

    @abstractmethod
    def remaining(self, state: State, now: int) -> int:
        """Return how many permits could be granted now."""

    @abstractmethod
    def more_at(self, state: State, now: int) -> int:
        """Return the first instant at which more than `remaining` could have been granted.

        Until then no more than that can be used, from now on.
        """

    def front(self, state: State) -> int:
        """Return the instant before which nothing is granted, whatever remains."""
        return 0

    @abstractmethod
    def parts_of(self, state: State) -> tuple[tuple["Rule", State], ...]:
        """Return the rules of the single limits that are kept, each with its state."""
