"""The line of one key in one process: its threads that wait, and the turns reserved for them.

A turn is not one thread's: those who go first have the earliest of those that were reserved for
permits like theirs. So whoever comes with a higher priority, or leaves, changes who has which turn,
and nothing that is shared.
"""

from bisect import insort
from collections.abc import Iterator
from operator import attrgetter

from ratekit.clock import open_gate
from ratekit.limits.line import RANK, Ticket, in_turn, passed_over
from ratekit.limits.rules import Price, Rule

__all__ = ["SharedLine", "Turn", "Waiter"]

_KIND = tuple[int, Price]


class Turn:
    """One reserved permit. `at_ns` is in the ledger's own time."""

    __slots__ = ("after", "at_ns", "price", "rule", "was_due")

    def __init__(self, rule: Rule, price: Price, at_ns: int, after: object = None) -> None:
        self.rule = rule
        self.price = price
        self.at_ns = at_ns
        # What the state was once it was reserved; only where that says how to give it back.
        self.after = after
        # Whether it could be used at once: nobody slept until then.
        self.was_due = False


class Waiter(Ticket):
    """One waiting thread, and the turn that it has at present."""

    __slots__ = ("is_lost", "must_look", "turn", "why")

    def __init__(
        self,
        rule: Rule,
        price: Price,
        priority: int,
        latest_ns: int | None,
        patience_ns: int | None,
    ) -> None:
        super().__init__(rule, price, priority, latest_ns, patience_ns)
        self.turn: Turn | None = None
        # Whether it is to be seen first how far away its turn would be.
        self.must_look = False
        # Whether the server could not be asked for it, and why.
        self.is_lost = False
        self.why = ""

    @property
    def kind(self) -> _KIND:
        """What permits are like this one's."""
        return id(self.rule), self.price


class SharedLine:
    """The threads of this process that wait for one key. Its `SharedWaiting`'s lock guards it."""

    __slots__ = ("_passed", "order", "turns")

    def __init__(self) -> None:
        self.order: list[Waiter] = []
        self.turns: dict[_KIND, list[Turn]] = {}
        self._passed = 0

    def join(self, waiter: Waiter, serial: int) -> None:
        """Let a thread in."""
        waiter.serial = serial
        waiter.rank = (-waiter.priority, serial)
        last = not self.order or self.order[-1].priority >= waiter.priority
        insort(self.order, waiter, key=RANK)
        if not last:
            self.assign()

    def leave(self, waiter: Waiter) -> None:
        """Let a thread go that has no use for its turn: those behind it have."""
        if waiter in self.order:
            self.order.remove(waiter)
            self.assign()

    def use(self, waiter: Waiter) -> Turn:
        """Take the turn of a thread that goes now."""
        turn = waiter.turn
        if turn is None:
            raise LookupError(waiter)
        self._drop(waiter.kind, turn)
        self.order.remove(waiter)
        self._passed = passed_over(self.order, waiter, self._passed)
        return turn

    def reserved(self, turns: list[Turn]) -> None:
        """Add turns that were reserved."""
        for turn in turns:
            held = self.turns.setdefault((id(turn.rule), turn.price), [])
            insort(held, turn, key=_AT)
        self.assign()

    def assign(self) -> None:
        """Give every turn to whoever goes first of those who want the like of it."""
        free = {kind: iter(turns) for kind, turns in self.turns.items()}
        for waiter in in_turn(self.order, self._passed):
            before = waiter.turn
            waiter.turn = next(free.get(waiter.kind, _NONE), None)
            gains = waiter.turn is not None and (before is None or waiter.turn.at_ns < before.at_ns)
            if gains:
                open_gate(waiter.gate)

    def spare(self) -> list[Turn]:
        """Take out the turns that nobody has a use for: the last of their kind."""
        wanted: dict[_KIND, int] = {}
        for waiter in self.order:
            wanted[waiter.kind] = wanted.get(waiter.kind, 0) + 1
        spare = []
        for kind, turns in list(self.turns.items()):
            number = wanted.get(kind, 0)
            spare += turns[number:]
            del turns[number:]
            if not turns:
                del self.turns[kind]
        return spare

    def drop_before(self, at_ns: int) -> None:
        """Forget the turns before an instant: it is too late for them."""
        for kind, turns in list(self.turns.items()):
            left = [turn for turn in turns if turn.at_ns >= at_ns]
            if left:
                self.turns[kind] = left
            else:
                del self.turns[kind]
        self.assign()

    def take_all(self) -> list[Turn]:
        """Take out every turn."""
        turns = [turn for some in self.turns.values() for turn in some]
        self.turns.clear()
        self.assign()
        return turns

    def move(self, by_ns: int) -> None:
        """Move every turn: the ledger's time is another."""
        for turns in self.turns.values():
            for turn in turns:
                turn.at_ns += by_ns

    def _drop(self, kind: _KIND, turn: Turn) -> None:
        turns = self.turns[kind]
        turns.remove(turn)
        if not turns:
            del self.turns[kind]


_AT = attrgetter("at_ns")
_NONE: Iterator[Turn] = iter(())
