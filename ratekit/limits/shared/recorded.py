"""The ledger of limits that are no buckets: one record, changed as the local state is.

The record says until when nothing is granted, the last turn that was given out, and the state of
the rule. A turn is counted at the instant it was reserved for, and a moment later than that is
still in time. Nobody has a turn before one that was given out.
"""

from collections.abc import Callable, Sequence
from typing import Any

from ratekit.clock import SECOND
from ratekit.limits.joint import Joint
from ratekit.limits.rules import Price, Rule, State
from ratekit.limits.shared.hold import LONGEST_NS
from ratekit.limits.shared.ledger import Conversation, Ledger, Want
from ratekit.limits.shared.turns import SharedLine, Turn
from ratekit.stores.memcached.keys import key_of
from ratekit.stores.memcached.record import Record, Update
from ratekit.stores.memcached.wire import Command, Get, Reply

__all__ = ["GRACE_NS", "RecordedLedger"]

GRACE_NS = SECOND // 500
"""A thread wakes so late: its permit is counted as if it had been used then."""


class RecordedLedger(Ledger):
    """Windows, and windows joined with buckets."""

    def __init__(self, digest: str, line: SharedLine, rule: Rule) -> None:
        self._line = line
        self.rule = rule
        self.record = Record(key_of("record", digest), self._idle_at, self._believed)
        # The hold by which the turns in hand were reserved.
        self.obeyed_ns = 0

    def _idle_at(self, record: State) -> int:
        until, front, state = record
        return int(max(until, front, self.rule.idle_at(state)))

    def _believed(self, record: State, now: int) -> State | None:
        """Return what is believed of a record that was read; None where it has another shape."""
        try:
            until, front, state = record
            self.rule.earliest(state, front, self.rule.price(1))
            if not _alike(state, self.rule.fresh) or until < 0 or front < 0:
                return None
            # Only a wrong clock can have written a hold so long, or a turn that nothing counts.
            until = until if until <= now + LONGEST_NS else 0
            return until, min(front, max(now, until, self._counted_at(state))), state
        except (TypeError, ValueError, IndexError, AttributeError):
            return None

    def _counted_at(self, state: State) -> int:
        """Return the latest instant at which a turn may lie that the state counts."""
        if not isinstance(self.rule, Joint):
            return self.rule.idle_at(state)
        # Every limit counts it.
        parts = zip(self.rule.parts, state[1:], strict=True)
        return min(part.rule.idle_at(one) for part, one in parts)

    def parts(self) -> tuple[int, int, State]:
        """Return the hold, the last turn and the rule's state, by what was seen last."""
        if self.record.state is None:
            return 0, 0, self.rule.fresh
        until, front, state = self.record.state
        return until, front, state

    @property
    def held_until_ns(self) -> int:
        """Until when nothing is granted."""
        return self.parts()[0]

    def time(self, now: int) -> int:
        """Return the instant: windows do not stand still."""
        return now

    def due(self, at_ns: int) -> int:
        """Return the instant, or the end of the hold."""
        return max(at_ns, self.held_until_ns)

    def estimate(self, rule: Rule, price: Price, before: Sequence[Want], now: int) -> int:
        """Return the earliest turn that a permit could have by what was seen last."""
        until, front, state = self.parts()
        at = max(now, until, front)
        for other, taken in before:
            at = other.earliest(state, at, taken)
            state = other.spend(state, at, at, taken)
        return rule.earliest(state, at, price)

    def empty(self, wants: Sequence[Want], now: int) -> None:
        """Count what was granted meanwhile: nothing is saved up in a window, but it may be used."""

    def reserve(self, wants: Sequence[Want]) -> Conversation:
        """Return a conversation that reserves a turn for each of `wants`."""
        if not wants:
            return self.look()

        def change(until: int, front: int, state: State, now: int) -> tuple[State, list[Turn]]:
            turns = []
            for rule, price in wants:
                at = rule.earliest(state, max(now, until, front), price)
                state = rule.spend(state, at, at, price)
                state = rule.answered(state, at, price, at + GRACE_NS)
                turns.append(Turn(rule, price, at, state))
                front = at
            return (until, front, state), turns

        return _Change(self, change)

    def look(self) -> Conversation:
        """Return a conversation that reads the record."""
        return _Look(self)

    def hold(self, rule: Rule, length_ns: int) -> Conversation:
        """Return a conversation that sets a hold; its `result` is whether that was news."""
        ends: list[int] = []

        def change(until: int, front: int, state: State, now: int) -> tuple[State | None, bool]:
            if not ends:
                ends.append(now + length_ns)
            begin = max(until, now)
            if ends[0] <= begin:
                return None, False
            # Who has a turn already takes another when it hears of this.
            return (ends[0], ends[0], rule.hold(state, begin, ends[0])), True

        return _Change(self, change)

    def raise_to(self, rule: Rule, floor: State) -> Conversation:
        """Return a conversation that counts at least what `floor` counts."""
        return _Change(self, lambda u, f, state, now: ((u, f, rule.raised(state, floor)), None))

    def give_back(self, turns: Sequence[Turn]) -> Conversation:
        """Return a conversation that gives turns back."""

        def change(until: int, front: int, state: State, now: int) -> tuple[State, None]:
            for turn in turns:
                counted = turn.at_ns + GRACE_NS
                state = turn.rule.unspend(state, turn.after, counted, turn.price, now)
            return (until, front, state), None

        return _Change(self, change)

    def answered(self, rule: Rule, price: Price, used_ns: int) -> Conversation | None:
        """Return a conversation that counts an attempt at its answer, where it may be counted."""

        def change(until: int, front: int, state: State, now: int) -> tuple[State, None]:
            return (until, front, rule.answered(state, used_ns + GRACE_NS, price, now)), None

        return _Change(self, change)

    def granted(self, turn: Turn, now: int) -> State:
        """Return the state that the turn's reservation left."""
        return turn.after

    def returned(self, rule: Rule, after: State, used_ns: int) -> object:
        """Return the state that the grant left."""
        return after

    def state(self, rule: Rule, now: int) -> State:
        """Return the rule's state; until the last turn that was given out there is none left."""
        until, front, state = self.parts()
        if isinstance(rule, Joint):
            return (max(until, front, state[0]), *state[1:])
        return state

    def obey(self) -> None:
        """Take other turns, where a hold was heard of since those in hand were reserved."""
        until = self.held_until_ns
        if until > self.obeyed_ns:
            self.obeyed_ns = until
            self._line.take_all()


class _Look(Conversation):
    def __init__(self, ledger: RecordedLedger) -> None:
        super().__init__()
        self._ledger = ledger

    def ask(self, now: int) -> list[Command]:
        return [Get(self._ledger.record.key)]

    def hear(self, replies: Sequence[Reply], now: int) -> bool:
        self._ledger.record.see(replies[0], now)
        self._ledger.obey()
        return True


_Changing = Callable[[int, int, State, int], tuple[State | None, Any]]


class _Change(Conversation):
    """Applies a function to the record's three parts."""

    def __init__(self, ledger: RecordedLedger, change: _Changing) -> None:
        super().__init__()
        self._ledger = ledger

        def step(record: State | None, now: int) -> tuple[State | None, Any]:
            until, front, state = (0, 0, ledger.rule.fresh) if record is None else record
            return change(until, front, state, now)

        self._step = step
        self._update: Update[Any] | None = None

    def ask(self, now: int) -> list[Command]:
        if self._update is None:
            self._update = Update(self._ledger.record, self._step)
        return self._update.ask(now)

    def hear(self, replies: Sequence[Reply], now: int) -> bool:
        done = self._update is not None and self._update.hear(list(replies), now)
        self._ledger.obey()
        if done and self._update is not None:
            self.result = self._update.result
        return done


def _alike(state: State, fresh: State) -> bool:
    if isinstance(fresh, tuple):
        return (
            isinstance(state, tuple)
            and len(state) == len(fresh)
            and all(_alike(one, other) for one, other in zip(state, fresh, strict=True))
        )
    return type(state) is type(fresh)
