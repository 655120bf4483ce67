"""Several limits decided together: no permit is spent on one when another refuses.

The state is the last turn that was given out, and the state of each part. The last turn keeps the
order: nobody who comes later has a turn before it, whichever part it waits for.

Where a key may have one of several limits (its *tier*), all have the same parts, and a part that is
not in the tier's own limit is charged all the same: whoever changes tier keeps what it has spent.
"""

from typing import NamedTuple

from ratekit.limits.gcra import Bucket
from ratekit.limits.rules import Price, Rule, State
from ratekit.limits.windows import Fixed, Window

__all__ = ["Joint", "Part"]


class Part(NamedTuple):
    """A limit among others. `binds` is False where it is another tier's, and only charged."""

    rule: Bucket | Window | Fixed
    binds: bool = True


class Joint(Rule):
    """Keeps all of its parts at once."""

    __slots__ = (
        "_binding", "_grants", "_parts", "_rules", "_spends", "burst", "fresh", "is_punctual",
        "limit", "saved_ns",
    )  # fmt: skip

    def __init__(self, parts: tuple[Part, ...]) -> None:
        self._parts = parts
        self._rules = tuple(part.rule for part in parts)
        # What a decision looks through, and what a grant applies: the short form of `parts`.
        self._binding = tuple(
            (index, part.rule.earliest) for index, part in enumerate(parts) if part.binds
        )
        self._grants = tuple(
            (index, part.rule.grant) for index, part in enumerate(parts) if part.binds
        )
        self._spends = tuple(part.rule.spend if part.binds else part.rule.charge for part in parts)
        self.fresh = (0, *(rule.fresh for rule in self._rules))
        binding = [part.rule for part in parts if part.binds]
        self.limit = binding[0].limit
        # Also of those that are only charged: they bind others in the same line.
        self.is_punctual = all(rule.is_punctual for rule in self._rules)
        self.burst = max(rule.burst for rule in binding)
        self.saved_ns = min(rule.saved_ns for rule in binding)

    @property
    def parts(self) -> tuple[Part, ...]:
        """What is kept, also for other tiers."""
        return self._parts

    def price(self, cost: float) -> Price:
        """Return the price in each part."""
        return tuple(
            part.rule.price(cost) if part.binds else _price_elsewhere(part.rule, cost)
            for part in self._parts
        )

    def earliest(self, state: State, now: int, price: Price) -> int:
        """Return the first instant from `now` on at which every part grants."""
        # What a part grants at an instant it grants at every later one too: one round is enough.
        turn: int = max(state[0], now)
        for index, earliest in self._binding:
            turn = earliest(state[index + 1], turn, price[index])
        return turn

    def spend(self, state: State, at: int, now: int, price: Price) -> State:
        """Return the state after a grant that was due at `at` and is used at `now`."""
        parts = zip(self._spends, state[1:], price, strict=True)
        return (at, *[spend(part, at, now, taken) for spend, part, taken in parts])

    def grant(self, state: State, now: int, price: Price) -> State | None:
        """Return the state after a grant now, None where one of the parts has none."""
        if state[0] > now:
            return None
        spent: list[State] = [now]
        for index, grant in self._grants:
            part = grant(state[index + 1], now, price[index])
            if part is None:
                return None
            spent.append(part)
        if len(spent) < len(state):
            return self.spend(state, now, now, price)
        return tuple(spent)

    def unspend(self, state: State, after: State, used: int, price: Price, now: int) -> State:
        """Return the state after a permit came back unused."""
        parts = zip(self._rules, state[1:], after[1:], price, strict=True)
        return (
            state[0],
            *(rule.unspend(part, made, used, taken, now) for rule, part, made, taken in parts),
        )

    def answered(self, state: State, used: int, price: Price, now: int) -> State:
        """Return the state after the attempt that was granted at `used` was answered now."""
        parts = zip(self._rules, state[1:], price, strict=True)
        return state[0], *(rule.answered(part, used, taken, now) for rule, part, taken in parts)

    def hold(self, state: State, begin: int, until: int) -> State:
        """Return the state of a limiter whose clock stands from `begin` to `until`."""
        parts = zip(self._rules, state[1:], strict=True)
        return max(state[0], until), *(rule.hold(part, begin, until) for rule, part in parts)

    def floor(self, until: int) -> State:
        """Return the state below which nothing brings a limiter that is held until then."""
        return until, *(rule.floor(until) for rule in self._rules)

    def raised(self, state: State, floor: State) -> State:
        """Return the state in which at least what `floor` says is spent."""
        parts = zip(self._rules, state[1:], floor[1:], strict=True)
        return state[0], *(rule.raised(part, least) for rule, part, least in parts)

    def idle_at(self, state: State) -> int:
        """Return the instant from which no part says more than a fresh one."""
        parts = zip(self._rules, state[1:], strict=True)
        return max([int(state[0]), *(rule.idle_at(part) for rule, part in parts)])

    def times(self, price: Price, number: int) -> Price:
        """Return `number` times the price, part by part."""
        return tuple(part * number for part in price)

    def was_full(self, after: State, used: int, price: Price) -> bool:
        """Return whether a burst of one of the parts began with this grant."""
        parts = zip(self._parts, after[1:], price, strict=True)
        return any(
            part.binds and part.rule.was_full(state, used, taken) for part, state, taken in parts
        )

    def tightest(self, state: State, now: int) -> tuple[Rule, State]:
        """Return the part that has the least left; of those, the one that is full again last."""
        return min(
            self.parts_of(state),
            key=lambda part: (part[0].remaining(part[1], now), -part[0].idle_at(part[1])),
        )

    def remaining(self, state: State, now: int) -> int:
        """Return how many permits could be granted now."""
        rule, part = self.tightest(state, now)
        return rule.remaining(part, now) if now >= self.front(state) else 0

    def more_at(self, state: State, now: int) -> int:
        """Return the first instant at which more than `remaining` could have been granted."""
        rule, part = self.tightest(state, now)
        return max(self.front(state), rule.more_at(part, now))

    def front(self, state: State) -> int:
        """Return the last turn that was given out, or the end of a hold."""
        return int(state[0])

    def parts_of(self, state: State) -> tuple[tuple[Rule, State], ...]:
        """Return the rules that bind, each with its state."""
        parts = zip(self._parts, state[1:], strict=True)
        return tuple((part.rule, own) for part, own in parts if part.binds)

    def __repr__(self) -> str:
        return f"Joint({', '.join(repr(part.rule) for part in self._parts if part.binds)})"


def _price_elsewhere(rule: Bucket | Window | Fixed, cost: float) -> int:
    """Return the price in a part that does not bind: a cost too large for it takes all it has."""
    most = rule.burst if isinstance(rule, Bucket) else rule.limit.count
    return rule.price(min(cost, most))
