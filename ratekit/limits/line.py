"""A line: the threads that wait for one key, in the order in which they go.

While anybody waits, the state of the key is here: `base` says what was granted, and every turn
follows from it by the rule alone, as if each in the line were granted in its order at the first
instant possible. So nothing is reserved that must be given back: whoever leaves, comes first or is
held is a change of the order or of `base`, and the turns behind it are worked out anew.

Higher priorities go first, and within a priority who came first. Who was passed over too often in
a row goes next all the same. The methods of a line are called with the lock of its `Waiting` held.
"""

from bisect import insort
from collections.abc import Sequence
from operator import attrgetter
from typing import TypeVar

from ratekit.clock import SECOND, new_gate, open_gate
from ratekit.limits.rules import Price, Rule, State

__all__ = ["RANK", "Line", "Ticket", "in_turn", "passed_over"]

# How often in a row the one who waits longest may be passed over by higher priorities.
_PASSED_OVER = 16
# A line is worked out anew when this share of it has gone at other instants than was foreseen.
_STALE_SHARE = 8
# How late a thread may wake before its line is spaced anew.
_LATE_NS = SECOND // 20


class Ticket:
    """One waiting thread. Its fields belong to the `Waiting` whose lock guards them."""

    __slots__ = (
        "cell", "gate", "latest_ns", "patience_ns", "price", "priority", "rank", "refusal", "rule",
        "serial", "turn_ns",
    )  # fmt: skip

    def __init__(
        self,
        rule: Rule,
        price: Price,
        priority: int,
        latest_ns: int | None,
        patience_ns: int | None,
    ) -> None:
        self.rule = rule
        self.price = price
        self.priority = priority
        # The last instant at which this one would still go.
        self.latest_ns = latest_ns
        # How long a hold of the server's this one would sit out; None: however long.
        self.patience_ns = patience_ns
        self.gate = new_gate()
        self.cell = ""
        self.serial = 0
        self.rank = (0, 0)
        self.turn_ns = 0
        # How far away the permit was when this one was refused, and why it was.
        self.refusal: tuple[int, str] | None = None


T = TypeVar("T", bound=Ticket)


class Line:
    """The waiters of one key, and the hold that they obey."""

    __slots__ = ("_passed", "base", "floor", "held_until_ns", "order", "stale", "tail")

    def __init__(self) -> None:
        # What was granted; None while nobody waits, and the state is in the space.
        self.base: State = None
        # What will have been when all who wait were granted.
        self.tail: State = None
        # How often `base` has become another than the turns were worked out from: they are too
        # early, if anything.
        self.stale = 0
        self.order: list[Ticket] = []
        self.held_until_ns = 0
        # While held: nothing given back brings the state below it.
        self.floor: State = None
        self._passed = 0

    def turn_for(self, ticket: Ticket, now: int) -> int:
        """Return the turn that `ticket` would have if it joined now."""
        state = self.tail
        if not self._goes_last(ticket):
            state = self.base
            for other in self.order:
                if other.priority < ticket.priority:
                    break
                state = other.rule.spend(state, other.turn_ns, other.turn_ns, other.price)
        return ticket.rule.earliest(state, max(now, self.held_until_ns), ticket.price)

    def join(self, ticket: Ticket, turn_ns: int, now: int) -> None:
        """Let `ticket` in; `turn_ns` is what `turn_for` said."""
        ticket.rank = (-ticket.priority, ticket.serial)
        ticket.turn_ns = turn_ns
        if self._goes_last(ticket):
            self.order.append(ticket)
            self.tail = ticket.rule.spend(self.tail, turn_ns, turn_ns, ticket.price)
        else:
            insort(self.order, ticket, key=RANK)
            self.plan(now)

    def has_room(self, ticket: Ticket, most: int, now: int) -> bool:
        """Return whether `ticket` may join a line of at most so many.

        Where the line is full, the last one makes room for a higher priority.
        """
        if len(self.order) < most:
            return True
        last = self.order[-1]
        if last.priority >= ticket.priority:
            return False
        self.refuse(last, last.turn_ns - now, f"{most} wait that go first")
        return True

    def _goes_last(self, ticket: Ticket) -> bool:
        return not self.order or self.order[-1].priority >= ticket.priority

    def grant(self, ticket: Ticket, now: int) -> State:
        """Let a ticket go whose turn has come; return the state after its grant.

        It takes the first turn there is: of two that are due, who wakes first goes first.
        """
        first = self.order[0]
        at = min(first.turn_ns, ticket.turn_ns)
        self.order.remove(ticket)
        if ticket.rule.is_punctual:
            self.stale += ticket is not first and ticket.price != first.price
        else:
            self.stale += now != ticket.turn_ns
        self.base = ticket.rule.spend(self.base, at, now, ticket.price)
        self._passed = passed_over(self.order, ticket, self._passed)
        return self.base

    def check(self, ticket: Ticket, now: int) -> None:
        """Make sure of the turn of a ticket that seems due: it may have been foreseen too early.

        If the next permit is there, and who is first wants the like of it, it is.
        """
        if self.stale:
            first = self.order[0]
            alike = first.priority == ticket.priority and first.price == ticket.price
            if not alike or ticket.rule.earliest(self.base, now, ticket.price) > now:
                self.plan(now)

    def refresh(self, now: int) -> None:
        """Work out all turns anew where enough has changed for the work to be worth it.

        Not at every change: a long line would cost every newcomer a look at all who wait.
        """
        if self.stale * _STALE_SHARE > len(self.order):
            self.plan(now)

    def catch_up(self, now: int) -> None:
        """Space the line anew where the whole process overslept: nobody goes in a herd.

        A thread that wakes a little late is a matter of course, and costs nobody anything. A
        process that was stopped for seconds has all its turns due at once: of those, as many go
        as a bucket has saved up meanwhile.
        """
        # One late thread proves nothing (it may be in a debugger, or handle a signal); where the
        # second is late too, it is the process.
        if len(self.order) > 1:
            first, second = self.order[:2]
            saved_ns = first.rule.saved_ns
            if now - max(first.turn_ns, second.turn_ns) > max(_LATE_NS, saved_ns):
                self.plan(now, since=now)

    def plan(self, now: int, since: int | None = None) -> None:
        """Work out the turns anew.

        Whose turn is now too late for its thread is refused, and those behind it gain. `since`:
        the instant from which turns may be made up for.
        """
        state = self.base
        held_ns = self.held_until_ns - now
        if since is None:
            due = min((ticket.turn_ns for ticket in self.order[:2]), default=now)
            since = min(now, max(due, now - _LATE_NS))
        since = max(since, self.held_until_ns)
        for ticket in in_turn(self.order, self._passed):
            turn_ns = ticket.rule.earliest(state, since, ticket.price)
            if turn_ns > now:
                if ticket.latest_ns is not None and turn_ns > ticket.latest_ns:
                    self.refuse(ticket, turn_ns - now, "the turn moved beyond max_wait")
                    continue
                if ticket.patience_ns is not None and held_ns > ticket.patience_ns:
                    self.refuse(ticket, turn_ns - now, "the pause is longer than is waited for")
                    continue
            if turn_ns < ticket.turn_ns:
                open_gate(ticket.gate)
            ticket.turn_ns = turn_ns
            state = ticket.rule.spend(state, turn_ns, turn_ns, ticket.price)
        self.tail = state
        self.stale = 0

    def refuse(self, ticket: Ticket, away_ns: int, why: str) -> None:
        """Send a ticket away."""
        self.order.remove(ticket)
        ticket.refusal = (away_ns, why)
        open_gate(ticket.gate)


def passed_over(order: Sequence[Ticket], gone: Ticket, passed: int) -> int:
    """Return how often in a row somebody was passed over, once `gone` has left `order` and gone."""
    if not order or order[-1].priority >= gone.priority:
        return 0
    over = any(other.serial < gone.serial and other.priority < gone.priority for other in order)
    return passed + 1 if over else 0


def in_turn(order: list[T], passed: int) -> list[T]:
    """Return the tickets of `order` in the order in which they will be granted."""
    if not order or order[0].priority == order[-1].priority:
        return order[:]
    waiting = dict.fromkeys(order)
    by_age = iter(sorted(order, key=attrgetter("serial")))
    oldest = next(by_age)
    turns = []
    while waiting:
        while oldest not in waiting:
            oldest = next(by_age)
        best = next(iter(waiting))
        chosen = oldest if passed >= _PASSED_OVER else best
        passed = passed + 1 if oldest.priority < chosen.priority else 0
        del waiting[chosen]
        turns.append(chosen)
    return turns


RANK = attrgetter("rank")
