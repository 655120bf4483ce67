"""Reserving in shared integers: the generic cell rate algorithm, one round trip for many threads.

A `Meter` is a bucket's integer in memcached, its theoretical arrival time (see `limits.gcra`). To
reserve is to add the price to it: whatever it says afterwards, the turn is known, and nobody else
has the same one. That is right while the integer is not behind the clock (the bucket is not full).
Where it is, it is first brought up to the clock, by a write that fails if anybody came between;
who loses that race reserves again, since the winner's write has undone what the loser added.

Nobody is ever granted more than the limit, for whatever order the processes' commands come in: a
turn is used no earlier than the integer, before its price was added, is at the clock. So permits
used in any window are spaced by their prices from its beginning to the end of the depth.

Instants are of the running time (see `hold`).
"""

import logging
from collections.abc import Sequence
from typing import NamedTuple

from ratekit.clock import SECOND
from ratekit.errors import StoreError
from ratekit.limits.gcra import Bucket
from ratekit.limits.joint import Joint
from ratekit.limits.rules import Price, Rule
from ratekit.stores.memcached.wire import Add, Bump, Command, Get, Put, Reply

__all__ = ["SLACK", "Charge", "Meter", "Reserving", "charges_of", "early_ns"]

_log = logging.getLogger("ratekit.limits")

_MOST_ROUNDS = 24
# How far ahead of the clock an integer may be believed to lie: beyond the burst, so long, or the
# time of so many permits. More can only come of a wrong clock.
_BACKLOG_NS = 120 * SECOND
_BACKLOG_PERMITS = 1000
# By how much an integer may lie before what was seen of it last: permits come back.
_RETURNED = 2
_SPARE = 3600
SLACK = 5
"""One part in so many of a bucket is kept back. By as much may its integer lie behind the clock
before it must be brought up; and while a burst opens connections, the server's bucket, which is
full until the first request arrives, does not fill up as ours does."""
_LONGEST_LAG_NS = SECOND // 100
_EARLY = 64


class Charge(NamedTuple):
    """What one permit takes of one meter. All in nanoseconds of it."""

    meter: int
    by: int
    reach: int
    """How far ahead of the clock the meter may lie after the charge."""
    slack: int
    """How far it may lie behind the clock before: the reach is smaller by as much."""
    depth: int
    interval: int
    binds: bool = True

    @property
    def horizon(self) -> int:
        """How far ahead of the clock the meter may be believed to be."""
        return self.depth + max(_BACKLOG_NS, _BACKLOG_PERMITS * self.interval)


def charges_of(rule: Rule, price: Price) -> tuple[Charge, ...]:
    """Return what a price takes of each meter of a rule that consists of buckets."""
    if isinstance(rule, Joint):
        parts = zip(rule.parts, price, strict=True)
        return tuple(
            _charge(index, part.rule, taken, binds=part.binds)
            for index, (part, taken) in enumerate(parts)
            if isinstance(part.rule, Bucket)
        )
    if not isinstance(rule, Bucket):
        raise TypeError(rule)
    return (_charge(0, rule, price, binds=True),)


def _charge(meter: int, bucket: Bucket, price: int, *, binds: bool) -> Charge:
    slack = bucket.burst // SLACK * bucket.interval_ns
    reach = bucket.reach_ns(price) - slack + early_ns(bucket)
    return Charge(meter, price, reach, slack, bucket.depth_ns, bucket.interval_ns, binds)


def early_ns(bucket: Bucket) -> int:
    """Return how much too early a permit may be: a small part of its interval.

    An idle meter is brought up to when the answer will be there, and what comes right after should
    not have to wait for that.
    """
    return min(_LONGEST_LAG_NS, bucket.interval_ns // _EARLY)


class Meter:
    """What this process knows of one integer."""

    __slots__ = ("key", "seen", "token")

    def __init__(self, key: bytes) -> None:
        self.key = key
        # Where it stood when it was last seen, or farther ahead if it is to be brought there.
        self.seen = 0
        self.token = 0


class Reserving:
    """One reservation for several threads at once: what to ask, and what the answers mean.

    `wants`: the charges of each thread's permit, in the order in which they go. `turns` are their
    instants, in the same order, once `hear` has returned True.
    """

    def __init__(self, meters: Sequence[Meter], wants: Sequence[Sequence[Charge]]) -> None:
        self._wants = wants
        self._rounds = 0
        self._asked_at = 0
        # Until when the turns are right, if the meters are.
        self._planned_for = 0
        self.turns: list[int] = []
        by_meter: dict[int, list[Charge | None]] = {}
        for index, want in enumerate(wants):
            for charge in want:
                by_meter.setdefault(charge.meter, [None] * len(wants))[index] = charge
        self._counts = [_Count(meters[index], its) for index, its in by_meter.items()]

    def ask(self, now: int) -> list[Command]:
        """Return what to send."""
        self._asked_at = now
        return [command for count in self._counts for command in count.ask(now)]

    def hear(self, replies: Sequence[Reply], now: int) -> bool:
        """Take in the replies, which came by `now`; return whether all is reserved.

        Raises `StoreError` where the server has no room for an integer.
        """
        self._rounds += 1
        place = 0
        for count in self._counts:
            if count.asked:
                if not count.is_known:
                    self._planned_for = 0
                count.hear(replies[place : place + count.asked], now)
                place += count.asked
        if not all(count.is_known for count in self._counts):
            return False
        if now > self._planned_for:
            lag = min(2 * (now - self._asked_at), _LONGEST_LAG_NS)
            self._planned_for = now + lag
            self._plan(now, lag)
        # Where others are always faster, what was added counts, and is enough.
        return self._rounds >= _MOST_ROUNDS or not any(count.target for count in self._counts)

    def _plan(self, now: int, lag: int) -> None:
        """Work out the turns, and how far each meter must be brought up for them.

        `lag`: how much later the answer to the next question may come. A meter that is brought up
        only to now would be behind again by then.
        """
        at = [count.base for count in self._counts]
        self.turns = []
        for index in range(len(self._wants)):
            charges = [count.charges[index] for count in self._counts]
            turn = now
            for base, charge in zip(at, charges, strict=True):
                if charge is not None and charge.binds:
                    turn = max(turn, base + charge.by - charge.reach)
            for place, charge in enumerate(charges):
                if charge is not None:
                    is_behind = at[place] + charge.slack < turn
                    at[place] = (turn + lag if is_behind else at[place]) + charge.by
            self.turns.append(turn)
        for count, end in zip(self._counts, at, strict=True):
            count.aim(end)


class _Count:
    """One meter in one reservation."""

    def __init__(self, meter: Meter, charges: list[Charge | None]) -> None:
        self._meter = meter
        self.charges = charges
        known = [charge for charge in charges if charge is not None]
        self._by = sum(charge.by for charge in known)
        self._slack = min(charge.slack for charge in known)
        self._reach = max(charge.reach for charge in known)
        self._horizon = max(charge.horizon for charge in known)
        self._returned = min(min(charge.depth, _RETURNED * charge.interval) for charge in known)
        self._life = (known[0].depth + self._horizon) // SECOND + _SPARE
        self.asked = 0
        # Where the meter stood before our charges, and whether these are on it.
        self.base = 0
        self.is_known = False
        # Where it must be brought to; 0 where it stands right.
        self.target = 0
        self._token = 0
        self._stands = 0
        self._must_write = False

    def ask(self, now: int) -> list[Command]:
        """Return the commands of this round."""
        commands = self._commands(now)
        self.asked = len(commands)
        return commands

    def _commands(self, now: int) -> list[Command]:
        key, life, meter = self._meter.key, self._life, self._meter
        if not self.is_known:
            first = max(now, meter.seen) + self._by
            add: list[Command] = [Bump(key, life), Add(key, self._by, life, first=first)]
            if meter.token and meter.seen + self._slack // 2 < now:
                # It is behind, as far as is known. Most often nobody has moved it since, and it
                # is brought up in the same round trip.
                return [Put(key, b"%d" % now, life, cas=meter.token), *add]
            return add
        if not self.target:
            return []
        if not self._token:
            return [Get(key)]
        return [Put(key, b"%d" % self.target, life, cas=self._token), Get(key)]

    def hear(self, replies: Sequence[Reply], now: int) -> None:
        """Take in the replies of this round."""
        meter = self._meter
        if not self.is_known:
            self._added(replies[-1], now)
            return
        if len(replies) == 2 and replies[0].done:
            # Nobody came between, so nobody's charge was lost.
            meter.seen = self.target
            meter.token = replies[1].cas if replies[1].number == self.target else 0
            self._stands, self._token, self._must_write = self.target, meter.token, False
            self.base, self.target = self.target - self._by, 0
            return
        found = replies[-1]
        number = found.number
        if found.done and (number is None or number < self.target - self._by or self._must_write):
            self._token = found.cas
            return
        # Somebody else has brought it up, which undid our charges; or it is gone again.
        self.is_known, self.target, self._must_write, meter.token = False, 0, False, 0

    def _added(self, reply: Reply, now: int) -> None:
        meter = self._meter
        number = reply.number
        self.is_known = True
        if number is None:
            if not reply.value.startswith(b"CLIENT_ERROR"):
                raise StoreError(f"the server could not keep a number: {reply.value[:80]!r}")
            # What is there is no number: it is written over.
            self.base, self._token, self._must_write = max(now, meter.seen), 0, True
            return
        self._token = meter.token = reply.cas
        self._stands = number
        self.base = number - self._by
        if self.base > now + self._horizon:
            # Only a wrong clock can have brought it there. The bucket is taken to be empty.
            _log.warning("a limit was %.0f s ahead of the clock", (self.base - now) / SECOND)
            self.base, self._must_write, meter.seen = now + self._reach, True, 0
        elif self.base < meter.seen - self._returned and meter.seen <= now + self._horizon:
            # It was lost, and somebody began anew who had seen less of it.
            self.base = max(self.base, meter.seen)
            meter.seen = number
        else:
            meter.seen = number

    def aim(self, end: int) -> None:
        """Say where the meter must stand for the turns that were planned."""
        self.target = end if end > self._stands or self._must_write else 0
