"""A line of waiters that a test steps through without a thread, on a clock that it moves."""

from dataclasses import dataclass, field

from ratekit import Limit, RateLimited
from ratekit.limits.gcra import Bucket
from ratekit.limits.line import Ticket
from ratekit.limits.rules import Price, Rule
from ratekit.limits.waiting import Waiting
from ratekit.stores.memory import MemoryStore
from ratekit.testing import FakeClock

__all__ = ["KEY", "Line", "bucket"]

KEY = "k"


def bucket(interval_ns: int, burst: int) -> Bucket:
    """Return a bucket of these nanoseconds."""
    return Bucket(Limit("by hand", 1, interval_ns, burst), interval_ns, burst)


@dataclass
class Line:
    """One line of waiters, to the nanosecond. Numbers stand for callers, in order of arrival."""

    rule: Rule
    clock: FakeClock = field(default_factory=FakeClock)
    granted: list[tuple[int, int]] = field(default_factory=list)
    most: int = 10_000

    def __post_init__(self) -> None:
        self.begin = self.clock.now_ns()
        self.space = MemoryStore(clock=self.clock).space(None)
        self.waiting = Waiting(self.space)
        self.inside: dict[int, Ticket] = {}
        self.refused: list[int] = []
        self.arrived = 0

    @property
    def now(self) -> int:
        """Nanoseconds since the test began."""
        return self.clock.now_ns() - self.begin

    def arrive(self, *, cost: float = 1, max_wait: int | None = None, priority: int = 0) -> int:
        """Let one more caller ask; return its number."""
        number = self.arrived
        self.arrived += 1
        price = self.rule.price(cost)
        if self.take(price):
            assert not self.inside
            self.granted.append((number, self.now))
            return number
        ticket = Ticket(self.rule, price, priority, max_wait, None)
        try:
            self.waiting._join(KEY, ticket, self.most)
        except RateLimited:
            self.waiting._leave(ticket)
            self.refused.append(number)
        else:
            self.inside[number] = ticket
        return number

    def take(self, price: Price, key: str = KEY) -> bool:
        """Take permits if they are to be had now."""
        return self.space.taker(self.rule, price)(key)[0]

    def leave(self, number: int) -> None:
        """Cancel a waiter."""
        self.waiting._leave(self.inside.pop(number))

    def hold(self, length: int) -> None:
        """Hold the line from now on."""
        self.waiting.hold(KEY, self.rule, length)

    def wake(self) -> None:
        """Let every waiter look at its turn, as its thread would when it wakes."""
        for number, ticket in list(self.inside.items()):
            try:
                if isinstance(self.waiting._step(KEY, ticket), int):
                    continue
                self.granted.append((number, self.now))
            except RateLimited:
                self.waiting._leave(ticket)
                self.refused.append(number)
            del self.inside[number]

    def turns(self) -> list[int]:
        """The turns of those inside, since the test began, in order of arrival."""
        return [ticket.turn_ns - self.begin for ticket in self.inside.values()]

    def run_dry(self) -> None:
        """Move the clock from turn to turn until nobody waits."""
        self.wake()
        while self.inside:
            self.clock.advance_ns(max(0, min(self.turns()) - self.now))
            self.wake()
