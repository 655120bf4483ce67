"""The ledger of limits that are buckets: meters, and the hold that stops their time."""

from collections.abc import Sequence
from typing import Any

from ratekit.limits.gcra import Bucket
from ratekit.limits.joint import Joint
from ratekit.limits.rules import Price, Rule, State
from ratekit.limits.shared.hold import Hold
from ratekit.limits.shared.ledger import Conversation, Ledger, Want
from ratekit.limits.shared.meters import SLACK, Charge, Meter, Reserving, charges_of, early_ns
from ratekit.limits.shared.turns import SharedLine, Turn
from ratekit.stores.memcached.keys import key_of
from ratekit.stores.memcached.wire import Add, Command, Get, Put, Reply

__all__ = ["MeteredLedger"]

# A hold is written again when somebody else was faster, so often.
_TRIES = 10
# Kinds of permits whose price is remembered.
_MOST_KINDS = 64


class MeteredLedger(Ledger):
    """Buckets: an integer each. Its time stands still during a hold (see `hold`)."""

    def __init__(self, digest: str, line: SharedLine, periods: Sequence[int]) -> None:
        # The first limit's integer is named for none: a limit keeps it when others are joined.
        names = ["", *(f":{period}" for period in periods[1:])]
        self.meters = [Meter(key_of("limit", digest, name)) for name in names]
        self.holding = Hold(key_of("hold", digest))
        self._line = line
        self._charges: dict[tuple[int, Price], tuple[Charge, ...]] = {}
        self.rules: dict[int, Rule] = {}

    def charges(self, rule: Rule, price: Price) -> tuple[Charge, ...]:
        """Return what a permit takes of each meter."""
        kind = id(rule), price
        found = self._charges.get(kind)
        if found is None:
            if len(self._charges) >= _MOST_KINDS:
                # A learned pace changes with every answer. (Whoever waits keeps its own rule.)
                self._charges.clear()
                self.rules.clear()
            # The rule is kept, so that its id stays its own.
            self.rules[id(rule)] = rule
            found = self._charges[kind] = charges_of(rule, price)
        return found

    def time(self, now: int) -> int:
        """Return the running time."""
        return self.holding.running(now)

    def due(self, at_ns: int) -> int:
        """Return the instant of the common clock at which it is that time."""
        return self.holding.clock(at_ns)

    @property
    def held_until_ns(self) -> int:
        """Until when nothing is granted."""
        return self.holding.until_ns

    def estimate(self, rule: Rule, price: Price, before: Sequence[Want], now: int) -> int:
        """Return the earliest turn that a permit could have by what was seen last."""
        ahead = [0] * len(self.meters)
        for other, taken in before:
            for charge in self.charges(other, taken):
                ahead[charge.meter] += charge.by
        turn = time = self.time(now)
        for charge in self.charges(rule, price):
            if charge.binds:
                stands = max(self._seen(charge, time) + ahead[charge.meter], 0)
                turn = max(turn, stands + charge.by - charge.reach)
        return self.due(turn)

    def _seen(self, charge: Charge, time: int) -> int:
        """Return where a meter stood when it was last seen; 0 where that cannot be.

        A reservation is made then, which puts right what a wrong clock has written.
        """
        seen = self.meters[charge.meter].seen
        return 0 if seen > time + charge.horizon else seen

    def empty(self, wants: Sequence[Want], now: int) -> None:
        """Take every bucket to be empty: what it held may have been given out twice."""
        time = self.time(now)
        for rule, price in wants:
            for charge in self.charges(rule, price):
                meter = self.meters[charge.meter]
                meter.seen = max(meter.seen, time + charge.reach - charge.by)

    def reserve(self, wants: Sequence[Want]) -> Conversation:
        """Return a conversation that reserves a turn for each of `wants`."""
        return _Reserve(self, wants)

    def look(self) -> Conversation:
        """Return a conversation that brings what is known up to date."""
        return _Look(self)

    def hold(self, rule: Rule, length_ns: int) -> Conversation:
        """Return a conversation that sets a hold; its `result` is whether that was news."""
        return _SetHold(self, rule, length_ns)

    def raise_to(self, rule: Rule, floor: State) -> Conversation:
        """Return a conversation that counts at least what `floor` counts."""
        return _Raise(self, _tats_of(rule, floor, self.holding.total_ns))

    def give_back(self, turns: Sequence[Turn]) -> Conversation:
        """Return a conversation that gives turns back. It must not be repeated."""
        return _GiveBack(self, turns)

    def state(self, rule: Rule, now: int) -> State:
        """Return the state as the rule knows it, by what was seen last."""
        tats = []
        time = self.time(now)
        stands = [0] * len(self.meters)
        for charge in self.charges(rule, rule.price(1)):
            stands[charge.meter] = self._seen(charge, time)
        for index, seen in enumerate(stands):
            bucket = rule.parts[index].rule if isinstance(rule, Joint) else rule
            tat = seen + self.holding.total_ns if seen else 0
            if isinstance(bucket, Bucket):
                if tat > now:
                    # The slack is not to be had at once.
                    tat += bucket.burst // SLACK * bucket.interval_ns - early_ns(bucket)
                if self.holding.until_ns > now:
                    tat = max(tat, bucket.floor(self.holding.until_ns))
            tats.append(tat)
        return (0, *tats) if isinstance(rule, Joint) else tats[0]

    def see_hold(self, reply: Reply, now: int) -> None:
        """Take in the hold's record."""
        moved = self.holding.see(reply, now)
        if moved:
            for meter in self.meters:
                if meter.seen:
                    meter.seen += moved
                meter.token = 0
            self._line.move(moved)


def _tats_of(rule: Rule, state: State, total_ns: int) -> list[int]:
    parts: tuple[Any, ...] = state[1:] if isinstance(rule, Joint) else (state,)
    return [max(0, part - total_ns) for part in parts]


class _Look(Conversation):
    def __init__(self, ledger: MeteredLedger) -> None:
        super().__init__()
        self._ledger = ledger

    def ask(self, now: int) -> list[Command]:
        return [Get(self._ledger.holding.key), *(Get(meter.key) for meter in self._ledger.meters)]

    def hear(self, replies: Sequence[Reply], now: int) -> bool:
        self._ledger.see_hold(replies[0], now)
        for meter, reply in zip(self._ledger.meters, replies[1:], strict=True):
            number = reply.number
            if number is not None:
                meter.seen, meter.token = max(number, 0), reply.cas
        return True


class _Reserve(Conversation):
    def __init__(self, ledger: MeteredLedger, wants: Sequence[Want]) -> None:
        super().__init__()
        self._ledger = ledger
        self._wants = wants
        self._reserving: Reserving | None = None
        if wants:
            charges = [ledger.charges(rule, price) for rule, price in wants]
            self._reserving = Reserving(ledger.meters, charges)
        self._restores = False

    def ask(self, now: int) -> list[Command]:
        holding = self._ledger.holding
        commands: list[Command] = []
        self._restores = holding.is_unknown(now)
        if self._restores:
            commands.append(holding.again().command())
        commands.append(Get(holding.key))
        if self._reserving is not None:
            commands += self._reserving.ask(self._ledger.time(now))
        return commands

    def hear(self, replies: Sequence[Reply], now: int) -> bool:
        start = 1 if self._restores else 0
        self._ledger.see_hold(replies[start], now)
        if self._reserving is None:
            return True
        if not self._reserving.hear(replies[start + 1 :], self._ledger.time(now)):
            return False
        self.result = [
            Turn(rule, price, at_ns)
            for (rule, price), at_ns in zip(self._wants, self._reserving.turns, strict=True)
        ]
        return True


class _SetHold(Conversation):
    """Writes the record, then empties the buckets: whoever must be told to stop has no credit."""

    def __init__(self, ledger: MeteredLedger, rule: Rule, length_ns: int) -> None:
        super().__init__()
        self._ledger = ledger
        self._rule = rule
        self._length_ns = length_ns
        self._until_ns: int | None = None
        self._tries = 0
        self._longer: Any = None
        self._raise: _Raise | None = None
        self.result = False

    def ask(self, now: int) -> list[Command]:
        if self._raise is not None:
            return self._raise.ask(now)
        if self._until_ns is None:
            self._until_ns = now + self._length_ns
        holding = self._ledger.holding
        self._longer = holding.longer(self._until_ns, now)
        if self._longer is None:
            return [Get(holding.key)]
        return [self._longer.command(), Get(holding.key)]

    def hear(self, replies: Sequence[Reply], now: int) -> bool:
        if self._raise is not None:
            return self._raise.hear(replies, now)
        holding = self._ledger.holding
        self._tries += 1
        if self._longer is not None and replies[0].done:
            self._longer.written()
            self.result = True
            time = self._ledger.time(now)
            self._raise = _Raise(self._ledger, self._floors(time))
            return False
        self._ledger.see_hold(replies[-1], now)
        if self._longer is None or self._tries >= _TRIES:
            return True
        return holding.longer(self._until_ns or 0, now) is None

    def _floors(self, time: int) -> list[int]:
        rule = self._rule
        floors = [0] * len(self._ledger.meters)
        for charge in self._ledger.charges(rule, rule.price(1)):
            floors[charge.meter] = time + charge.reach - charge.interval
        return floors


class _Raise(Conversation):
    """Brings meters up, where they are behind."""

    def __init__(self, ledger: MeteredLedger, floors: list[int]) -> None:
        super().__init__()
        self._ledger = ledger
        self._floors = floors
        self._tries = 0

    def ask(self, now: int) -> list[Command]:
        commands: list[Command] = []
        for meter, floor in zip(self._ledger.meters, self._floors, strict=True):
            if self._tries:
                commands.append(Put(meter.key, b"%d" % floor, _LIFE, cas=meter.token))
            commands.append(Get(meter.key))
        return commands

    def hear(self, replies: Sequence[Reply], now: int) -> bool:
        self._tries += 1
        done = True
        found = replies[1::2] if self._tries > 1 else replies
        for meter, floor, reply in zip(self._ledger.meters, self._floors, found, strict=True):
            number = reply.number or 0
            meter.seen, meter.token = max(number, floor), reply.cas
            done &= number >= floor
        return done or self._tries > _TRIES


class _GiveBack(Conversation):
    again = False

    def __init__(self, ledger: MeteredLedger, turns: Sequence[Turn]) -> None:
        super().__init__()
        self._ledger = ledger
        by = [0] * len(ledger.meters)
        for turn in turns:
            for charge in ledger.charges(turn.rule, turn.price):
                by[charge.meter] += charge.by
        self._by = by

    def ask(self, now: int) -> list[Command]:
        meters = self._ledger.meters
        return [
            Add(meter.key, -by, _LIFE) for meter, by in zip(meters, self._by, strict=True) if by
        ]

    def hear(self, replies: Sequence[Reply], now: int) -> bool:
        changed = [meter for meter, by in zip(self._ledger.meters, self._by, strict=True) if by]
        for meter, reply in zip(changed, replies, strict=True):
            if reply.number is not None:
                meter.seen, meter.token = reply.number, reply.cas
        return True


# What is brought up outside a reservation is kept for a day; the next reservation says how long.
_LIFE = 86_400
