"""Who waits: the threads of this process that have no permit yet, key by key.

A thread that may not go at once joins the line of its key, which tells it the instant of its turn,
and sleeps until then: no polling, no timer thread. While a line stands, the key's state is in it
and a fence in the space, so nobody overtakes it. Whoever wakes looks once more at its turn before
it goes.
"""

import logging
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import count
from typing import NamedTuple, TypeVar, cast

from cachetools import TTLCache

from ratekit import forks
from ratekit.clock import SECOND, Clock
from ratekit.errors import RateLimited
from ratekit.limits.gcra import Bucket
from ratekit.limits.line import Line, Ticket
from ratekit.limits.rules import Price, Rule, State
from ratekit.stores import FENCE, Taken
from ratekit.stores.memory import MemorySpace

__all__ = ["Granted", "Waiting", "line_of", "refusal", "say_wait", "why_waiting"]

T = TypeVar("T")

_log = logging.getLogger("ratekit.limits")

# A wait worth a line in the log, and how often one key may have one.
_LONG_NS = 10 * SECOND
_DAY = 43_200.0
_SAY_EVERY = 60.0
# Beyond this many lines, those of holds that are over are looked for and dropped. Beyond the
# most, so are the oldest that are in force: the state keeps the hold itself, and a second one of
# the same event would then add to it.
_MANY = 1024
_MOST = 65_536


class Granted(NamedTuple):
    """A permit that was granted: the state after it, the instant it was used, and the wait."""

    state: State
    used_ns: int
    waited_ns: int


class Waiting:
    """The lines of one space. Use `line_of`: a space has one `Waiting` in a process."""

    def __init__(self, space: MemorySpace) -> None:
        self._space = space
        self._clock = space.clock
        # Guards everything below, and all of a line and its tickets.
        self._lock = threading.Lock()
        self._lines: dict[str, Line] = {}
        self._serials = count()
        self._tidy_at = _MANY
        self._said: TTLCache[str, bool] = TTLCache(_MANY, _SAY_EVERY)
        forks.renew_in_child(self)

    def after_fork(self) -> None:
        """In a child: nobody waits here."""
        self._lock = threading.Lock()
        for cell, line in self._lines.items():
            if line.order:
                self._space.lower(cell, line.base, line.order[0].rule.idle_at)
                line.order.clear()
        forks.tell_own_limits()

    def wait(
        self,
        key: str,
        rule: Rule,
        price: Price,
        *,
        priority: int = 0,
        max_wait_ns: int | None = None,
        patience_ns: int | None = None,
        most: int = _MOST,
    ) -> Granted:
        """Return when the caller's turn has come.

        For who could not take a permit at once. Raises `RateLimited` the moment it is known that
        the wait would be longer than `max_wait_ns`, or that it is a hold with more than
        `patience_ns` to go, or when `most` threads wait already that go before this one; the
        permit is then the next one's. So it is when the waiting thread is interrupted.
        """
        ticket = Ticket(rule, price, priority, max_wait_ns, patience_ns)
        try:
            joined = self._join(key, ticket, most)
            while isinstance(step := self._step(key, ticket), int):
                self._clock.wait(ticket.gate, step / SECOND)
        except BaseException:
            self._leave(ticket)
            raise
        state, used_ns = step
        return Granted(state, used_ns, used_ns - joined)

    def _join(self, key: str, ticket: Ticket, most: int) -> int:
        """Take a place in the line; return the instant."""
        with self._lock:
            now = self._clock.now_ns()
            line = self._line_for(key, ticket, now)
            turn_ns = line.turn_for(ticket, now)
            wait_ns = turn_ns - now
            if ticket.latest_ns is not None:
                if wait_ns > ticket.latest_ns:
                    accepted = f"at most {ticket.latest_ns / SECOND:g} s are accepted"
                    raise refusal(key, wait_ns, accepted)
                ticket.latest_ns += now
            full = len(line.order) >= most
            joins = line.has_room(ticket, most, now)
            if joins:
                ticket.serial = next(self._serials)
                line.join(ticket, turn_ns, now)
            held = line.held_until_ns > now
            loud = (full or wait_ns >= _LONG_NS) and key not in self._said
            if loud:
                self._said[key] = True
        if loud:
            why = f"{most} threads wait already" if full else why_waiting(ticket.rule, held=held)
            say_wait(self._clock, key, wait_ns, why)
        if not joins:
            raise refusal(key, wait_ns, f"{most} wait already")
        return now

    def _line_for(self, key: str, ticket: Ticket, now: int) -> Line:
        """Return the line of a key, with its state in it and all turns as they are now."""
        ticket.cell = cell = self._space.cell(key)
        line = self._line(cell)
        held_ns = line.held_until_ns - now
        if ticket.patience_ns is not None and held_ns > ticket.patience_ns:
            raise refusal(key, held_ns, "the pause is longer than is waited for")
        if not line.order:
            self._space.lift(cell, line)
            if line.base is None:
                line.base = ticket.rule.fresh
            line.tail = line.base
            line.stale = 0
        else:
            line.refresh(now)
        return line

    def _step(self, key: str, ticket: Ticket) -> int | tuple[State, int]:
        """Return the nanoseconds until the turn, or when it has come the grant and its instant."""
        with self._lock:
            now = self._clock.now_ns()
            if ticket.refusal is None:
                if ticket.turn_ns > now:
                    return ticket.turn_ns - now
                line = self._lines[ticket.cell]
                line.catch_up(now)
                line.check(ticket, now)
            if ticket.refusal is not None:
                raise refusal(key, *ticket.refusal)
            if ticket.turn_ns > now:
                return ticket.turn_ns - now
            state = line.grant(ticket, now)
            self._tidy(ticket.cell, line, now, ticket.rule)
            return state, now

    def _leave(self, ticket: Ticket) -> None:
        with self._lock:
            line = self._lines.get(ticket.cell)
            if line is None:
                return
            now = self._clock.now_ns()
            if ticket in line.order:
                line.order.remove(ticket)
                line.plan(now)
            self._tidy(ticket.cell, line, now, ticket.rule)

    def hold(self, key: str, rule: Rule, length_ns: int) -> bool:
        """Grant nothing before `length_ns` from now; return whether that is news.

        Holds do not add up: one that begins during another only lengthens it, and one that would
        end earlier changes nothing. What a bucket had saved up is gone, and nobody is released
        as a herd at the end.
        """
        with self._lock:
            cell = self._space.cell(key)
            line = self._line(cell)
            now = self._clock.now_ns()
            begin = max(line.held_until_ns, now)
            until = now + length_ns
            is_news = until > begin
            if is_news:
                line.held_until_ns = until
                line.floor = rule.floor(until)
                self._change(cell, line, rule, lambda state, _: rule.hold(state, begin, until))
                line.plan(now)
            self._tidy(cell, line, now, rule)
            return is_news

    def repace(self, key: str, rule: Bucket, next_ns: int | None = None) -> None:
        """Let all who wait for `key`, and what was granted, be of `rule`: one of another pace.

        The next turn is `next_ns` away, or so long after the end of a hold; None leaves it where
        it is, unless a permit of the new pace is nearer.
        """
        with self._lock:
            cell = self._space.cell(key)
            line = self._lines.get(cell) or Line()
            now = self._clock.now_ns()
            begin = max(now, line.held_until_ns)
            nearest = begin + rule.interval_ns

            def move(state: State, _: int) -> State:
                return min(state, nearest) if next_ns is None else begin + next_ns

            self._change(cell, line, rule, move)
            if line.floor is not None:
                line.floor = rule.floor(line.held_until_ns)
            for ticket in line.order:
                cost = ticket.price / cast("Bucket", ticket.rule).interval_ns
                ticket.rule, ticket.price = rule, round(cost * rule.interval_ns)
            line.plan(now)

    def give_back(self, key: str, rule: Rule, after: State, used_ns: int, price: Price) -> None:
        """Return a permit that was granted and not used: whoever waits goes that much earlier.

        `after` and `used_ns` are the state that the grant left and its instant.
        """

        def unspend(state: State, now: int) -> State:
            state = rule.unspend(state, after, used_ns, price, now)
            return state if line.floor is None else rule.raised(state, line.floor)

        with self._lock:
            cell = self._space.cell(key)
            line = self._lines.get(cell) or Line()
            self._change(cell, line, rule, unspend)
            if line.order:
                line.plan(self._clock.now_ns())

    def answered(self, key: str, rule: Rule, used_ns: int, price: Price) -> None:
        """Note that the attempt whose permit was used at `used_ns` was answered."""
        self._note(key, rule, lambda state, now: rule.answered(state, used_ns, price, now))

    def raise_to(self, key: str, rule: Rule, floor: State) -> None:
        """Count at least what `floor` counts, beside what was granted."""
        self._note(key, rule, lambda state, _: rule.raised(state, floor), absent=rule.fresh)

    def _note(
        self,
        key: str,
        rule: Rule,
        change: Callable[[State, int], State],
        absent: State | None = None,
    ) -> None:
        """Change the state in a way that makes turns later, if anything.

        Those who wait learn of it when they wake. Where there is no state `absent` is changed.
        """

        def unless_fenced(state: State | None, now: int) -> tuple[State | None, bool]:
            state = absent if state is None else state
            if state is None:
                return None, True
            if state is FENCE:
                return None, False
            return change(state, now), True

        # Most often nobody waits, and one lock is enough.
        if not self._space.update(key, unless_fenced, rule.idle_at):
            with self._lock:
                cell = self._space.cell(key)
                line = self._lines.get(cell) or Line()
                self._change(cell, line, rule, change)
                line.stale += 1

    def _change(
        self, cell: str, line: Line, rule: Rule, change: Callable[[State, int], State]
    ) -> None:
        """Change the state, wherever it is now."""
        if line.order:
            line.base = change(line.base, self._clock.now_ns())
            return

        def step(state: State | None, now: int) -> tuple[State, None]:
            return change(rule.fresh if state is None else state, now), None

        self._space.update(cell, step, rule.idle_at)

    def take(self, key: str, rule: Rule, price: Price) -> Taken:
        """Refuse a permit to who does not wait, where others do; say when it could be had."""
        state, now = self.look(key, rule)
        return False, state, now, price

    def look(self, key: str, rule: Rule) -> tuple[State, int]:
        """Return the state of `key` as it will be when all who wait now were granted."""
        state, now = self._space.look(key)
        if state is FENCE:
            with self._lock:
                line = self._lines.get(self._space.cell(key))
                if line is not None and line.order:
                    line.refresh(now)
                    state = line.tail
                else:
                    state = self._space.look(key)[0]
        return rule.fresh if state is None else state, now

    def held_ns(self, key: str, rule: Rule) -> int:
        """Return how long the hold of `key` still lasts."""
        with self._lock:
            line = self._lines.get(self._space.cell(key))
            return 0 if line is None else max(0, line.held_until_ns - self._clock.now_ns())

    def _line(self, cell: str) -> Line:
        line = self._lines.get(cell)
        if line is None:
            if len(self._lines) >= self._tidy_at:
                self._tidy_all(self._clock.now_ns())
            line = self._lines[cell] = Line()
        return line

    def _tidy(self, cell: str, line: Line, now: int, rule: Rule) -> None:
        """Put the state of a line without waiters back, and drop it when it holds nobody."""
        if line.order:
            return
        if line.base is not None:
            self._space.lower(cell, line.base, rule.idle_at)
            line.base = line.tail = None
        if line.held_until_ns <= now:
            self._lines.pop(cell, None)

    def _tidy_all(self, now: int) -> None:
        for cell, line in list(self._lines.items()):
            if not line.order and line.held_until_ns <= now:
                del self._lines[cell]
        held = [cell for cell, line in self._lines.items() if not line.order]
        for cell in held[: len(self._lines) - _MOST // 2 if len(self._lines) >= _MOST else 0]:
            del self._lines[cell]
        # Looked at again when there are twice as many: so each line costs a look or two.
        self._tidy_at = min(_MOST, max(_MANY, 2 * len(self._lines)))


def refusal(key: str, wait_ns: int, why: str) -> RateLimited:
    """Return the refusal of a permit that is so far away."""
    seconds = wait_ns / SECOND
    away = f"{seconds:.3f}".rstrip("0").rstrip(".")
    return RateLimited(
        f"{key or 'the limiter'}: the next permit is {away} s away; {why}",
        key=key,
        retry_after=seconds,
    )


def why_waiting(rule: Rule, *, held: bool) -> str:
    """Return what a call waits for, for the log."""
    if held:
        return "the server has asked for a pause"
    if isinstance(rule, Bucket):
        return f"the limit is {rule.limit.text}"
    return "the limits are reached"


def say_wait(clock: Clock, key: str, wait_ns: int, why: str) -> None:
    """Warn of a long wait."""
    seconds = wait_ns / SECOND
    until = datetime.fromtimestamp(clock.wall() + seconds, UTC).astimezone()
    event = {"event": "LongWait", "key": key, "seconds": seconds, "why": why}
    _log.warning(
        "%s: waiting for a permit: %.1f s, until %s (%s)",
        key or "limiter",
        seconds,
        f"{until:%H:%M:%S}" if seconds < _DAY else f"{until:%Y-%m-%d %H:%M:%S}",
        why,
        extra={"ratekit": event},
    )


def line_of(space: MemorySpace) -> Waiting:
    """Return the `Waiting` of this space: limiters that share a name share their lines."""
    if "waiting" not in space.beside:
        # setdefault is atomic: two threads that ask at once get the same one.
        space.beside.setdefault("waiting", Waiting(space))
    return cast("Waiting", space.beside["waiting"])
