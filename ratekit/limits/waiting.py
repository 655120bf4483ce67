"""Who goes next: the threads of this process that wait for a permit, key by key.

A thread that may not go at once reserves its permit, so that it owns an instant (its *turn*), and
sleeps until then: no polling, no timer thread. The turns of one key lie in a line, in order of
arrival, each its permit's price behind the one before. Two things move a line, by arithmetic
alone: a waiter that leaves gives its price to everybody behind it, and a hold stops the clock, so
that every turn not yet taken moves by the hold's length. Whoever wakes looks once more at its
turn before it goes.
"""

import logging
import threading
from collections.abc import Iterable
from itertools import islice
from typing import NamedTuple, cast

from cachetools import TTLCache

from ratekit import forks
from ratekit.clock import SECOND, new_gate, open_gate
from ratekit.errors import RateLimited
from ratekit.limits.gcra import Rule, give_back
from ratekit.stores import Space

__all__ = ["Granted", "Waiting", "line_of"]

_log = logging.getLogger("ratekit.limits")

# A wait worth a line in the log, and how often one key may have one.
_LONG_NS = 10 * SECOND
_SAY_EVERY = 60.0
# How late a thread may wake before its line is spaced anew.
_LATE_NS = SECOND // 20
# Further ahead than any turn.
_NO_END_NS = 2**62
# Beyond this many lines, those of holds that are over are looked for and dropped. Beyond the
# most, so are the oldest that are in force: the bucket keeps the hold itself, and a second one of
# the same event would then add to it.
_MANY = 1024
_MOST = 65_536


class Granted(NamedTuple):
    """A permit that was granted: the TAT that it made, the instant of its turn, and the wait."""

    end_ns: int
    turn_ns: int
    waited_ns: int


class _Ticket:
    """One waiting thread. Its fields belong to the `Waiting` whose lock guards them."""

    __slots__ = ("end_ns", "gate", "latest_ns", "patience_ns", "price_ns", "refused_ns", "turn_ns")

    def __init__(self, price_ns: int, patience_ns: int | None) -> None:
        self.price_ns = price_ns
        # How long a hold of the server's this one would sit out; None: however long.
        self.patience_ns = patience_ns
        self.gate = new_gate()
        self.turn_ns = 0
        self.end_ns = 0
        self.latest_ns: int | None = None
        self.refused_ns: int | None = None

    def move(self, by_ns: int, held_until_ns: int) -> None:
        # Where prices differ, the place of a dear permit would let a cheap one in too early.
        self.turn_ns = max(self.turn_ns + by_ns, held_until_ns)
        self.end_ns += by_ns


class _Line:
    """The waiters of one key in order of arrival, and the end of the hold that they obey."""

    __slots__ = ("empty_ns", "held_until_ns", "tickets")

    def __init__(self) -> None:
        self.tickets: dict[_Ticket, None] = {}
        self.held_until_ns = 0
        # The TAT of a bucket that is empty until the hold ends: nothing given back goes below it.
        self.empty_ns = 0


class Waiting:
    """The lines of one space. Use `line_of`: a space has one `Waiting` in a process."""

    def __init__(self, space: Space) -> None:
        self._space = space
        self._clock = space.clock
        # Guards everything below, and every field of a line and of a ticket.
        self._lock = threading.Lock()
        self._lines: dict[str, _Line] = {}
        self._tidy_at = _MANY
        self._said: TTLCache[str, bool] = TTLCache(_MANY, _SAY_EVERY)
        forks.renew_in_child(self)

    def after_fork(self) -> None:
        """In a child: nobody waits here, so what the waiters had reserved is given back."""
        self._lock = threading.Lock()
        now = self._clock.now_ns()
        for key, line in list(self._lines.items()):
            for ticket in line.tickets:
                back = give_back(ticket.end_ns, ticket.price_ns, now)
                self._space.advance(key, -back, 0)
            line.tickets.clear()
        forks.tell_own_limits()

    def wait(
        self,
        key: str,
        rule: Rule,
        price_ns: int,
        *,
        max_wait_ns: int | None = None,
        patience_ns: int | None = None,
    ) -> Granted:
        """Return when the caller's turn has come, in order of arrival.

        For who could not take a permit at once. Raises `RateLimited` the moment it is known that
        the wait would be longer than `max_wait_ns`, or that it is a hold with more than
        `patience_ns` to go; the permit is then the next one's. So it is when the waiting thread is
        interrupted.
        """
        ticket = _Ticket(price_ns, patience_ns)
        try:
            joined = self._join(key, ticket, rule, max_wait_ns)
            while (ahead := self._ahead(key, ticket, rule)) > 0:
                self._clock.wait(ticket.gate, ahead / SECOND)
        except BaseException:
            self._leave(key, ticket)
            raise
        return Granted(ticket.end_ns, ticket.turn_ns, self._clock.now_ns() - joined)

    def _join(self, key: str, ticket: _Ticket, rule: Rule, max_wait_ns: int | None) -> int:
        with self._lock:
            now = self._clock.now_ns()
            line = self._lines.get(key)
            if line is not None and ticket.patience_ns is not None:
                held_ns = line.held_until_ns - now
                if held_ns > ticket.patience_ns:
                    raise _refusal(key, held_ns, "the pause is longer than is waited for")
            reach_ns = rule.reach_ns(ticket.price_ns)
            # One step, so that nobody ever sees a reservation that is then refused.
            furthest_ns = _NO_END_NS if max_wait_ns is None else reach_ns + max_wait_ns
            allowed, end, now, _ = self._space.taker(ticket.price_ns, furthest_ns)(key)
            if not allowed:
                wait_ns = max(end, now) + ticket.price_ns - reach_ns - now
                most = f"{max_wait_ns / SECOND:g}" if max_wait_ns is not None else "some"
                raise _refusal(key, wait_ns, f"at most {most} s are accepted")
            wait_ns = end - reach_ns - now
            ticket.turn_ns = now + wait_ns
            ticket.end_ns = end
            if max_wait_ns is not None:
                ticket.latest_ns = now + max_wait_ns
            if line is None:
                line = self._lines[key] = _Line()
            line.tickets[ticket] = None
            loud = wait_ns >= _LONG_NS and key not in self._said
            if loud:
                self._said[key] = True
        if loud:
            _log.warning("%s: waiting %.1f s for a permit", key or "limiter", wait_ns / SECOND)
        return now

    def _ahead(self, key: str, ticket: _Ticket, rule: Rule) -> int:
        """Return nanoseconds until the turn; 0 when it has come, and then the ticket is used."""
        with self._lock:
            if ticket.refused_ns is not None:
                raise _refusal(key, ticket.refused_ns, "the turn moved beyond max_wait")
            now = self._clock.now_ns()
            if ticket.turn_ns > now:
                return ticket.turn_ns - now
            line = self._lines[key]
            self._catch_up(key, line, now, rule)
            if ticket.turn_ns > now:
                return ticket.turn_ns - now
            del line.tickets[ticket]
            self._tidy(key, line, now)
            return 0

    def _catch_up(self, key: str, line: _Line, now: int, rule: Rule) -> None:
        """Space the line anew where the whole process overslept: no turn is made up for in a herd.

        A thread that wakes a little late is a matter of course, and costs nobody anything. A
        process that was stopped for seconds has all its turns due at once: of those, as many go
        as a bucket would have saved up meanwhile.
        """
        # One late thread proves nothing (it may be in a debugger, or handle a signal); where the
        # second is late too, it is the process.
        first, *others = islice(line.tickets, 2)
        late_ns = now - first.turn_ns
        saved_ns = rule.depth_ns - rule.interval_ns
        if others and now - others[0].turn_ns > max(_LATE_NS, saved_ns):
            last = self._move(key, line.tickets, line, late_ns - saved_ns, now)
            if last is not None:
                self._space.advance(key, 0, last.end_ns)

    def _leave(self, key: str, ticket: _Ticket) -> None:
        with self._lock:
            line = self._lines.get(key)
            if line is None or ticket not in line.tickets:
                return
            behind = list(line.tickets)
            behind = behind[behind.index(ticket) + 1 :]
            del line.tickets[ticket]
            now = self._clock.now_ns()
            self._return(key, line, behind, give_back(ticket.end_ns, ticket.price_ns, now))
            self._tidy(key, line, now)

    def give_back(self, key: str, end_ns: int, price_ns: int) -> None:
        """Return a permit that was granted and not used: whoever waits goes that much earlier."""
        with self._lock:
            now = self._clock.now_ns()
            line = self._lines.get(key, _Line())
            back = give_back(end_ns, price_ns, now)
            self._return(key, line, list(line.tickets), back)

    def _return(self, key: str, line: _Line, behind: list[_Ticket], back_ns: int) -> None:
        self._space.advance(key, -back_ns, line.empty_ns + back_ns)
        for ticket in behind:
            ticket.move(-back_ns, line.held_until_ns)
            open_gate(ticket.gate)

    def hold(self, key: str, rule: Rule, length_ns: int) -> bool:
        """Grant nothing before `length_ns` from now; return whether that is news.

        Holds do not add up: one that begins during another only lengthens it, and one that would
        end earlier changes nothing. What a bucket had saved up is gone: whoever must be told to
        stop has no credit, and nobody is released as a herd at the end.
        """
        with self._lock:
            now = self._clock.now_ns()
            line = self._lines.get(key)
            if line is None:
                if len(self._lines) >= self._tidy_at:
                    self._tidy_all(now)
                line = self._lines[key] = _Line()
            begin = max(line.held_until_ns, now)
            longer_ns = now + length_ns - begin
            if longer_ns > 0:
                line.held_until_ns = begin + longer_ns
                # Empty, but for the permit that is due when the hold is over.
                empty_ns = begin + rule.depth_ns - rule.interval_ns
                line.empty_ns = empty_ns + longer_ns
                self._space.advance(key, longer_ns, empty_ns)
                first = next(iter(line.tickets), None)
                if first is not None:
                    # A turn that is due but not taken yet goes first when the hold is over, and
                    # the others keep their distance from it.
                    late_ns = max(0, begin - first.turn_ns)
                    last = self._move(key, line.tickets, line, longer_ns + late_ns, now)
                    if last is not None:
                        self._space.advance(key, 0, last.end_ns)
            self._tidy(key, line, now)
            return longer_ns > 0

    def not_before(self, key: str, tat_ns: int) -> None:
        """Stop the clock for as long as `tat_ns` lies ahead of where the bucket stands.

        `tat_ns` counts what was granted, and not the permits of those who wait: these come on top.
        """
        if key not in self._lines:
            # Nobody waits, and whoever begins to in this moment is no worse off.
            self._space.advance(key, 0, tat_ns)
            return
        with self._lock:
            line = self._lines.get(key, _Line())
            tat_ns += sum(ticket.price_ns for ticket in line.tickets)
            stands_ns, now = self._space.look(key)
            if tat_ns > stands_ns:
                self._space.advance(key, 0, tat_ns)
                ahead = [ticket for ticket in line.tickets if ticket.turn_ns > now]
                self._move(key, ahead, line, tat_ns - stands_ns, now)
                self._tidy(key, line, now)

    def _move(
        self, key: str, tickets: Iterable[_Ticket], line: _Line, by_ns: int, now: int
    ) -> _Ticket | None:
        """Move turns; whose turn is now too late for its thread is refused, and those behind gain.

        Returns the last ticket that still stands in the line.
        """
        held_ns = line.held_until_ns - now
        returned = 0
        last = None
        for ticket in list(tickets):
            ticket.move(by_ns - returned, line.held_until_ns)
            too_late = ticket.latest_ns is not None and ticket.turn_ns > ticket.latest_ns
            too_long = ticket.patience_ns is not None and held_ns > ticket.patience_ns
            if ticket.turn_ns > now and (too_late or too_long):
                ticket.refused_ns = ticket.turn_ns - now
                del line.tickets[ticket]
                returned += ticket.price_ns
                open_gate(ticket.gate)
            else:
                last = ticket
        if returned:
            self._space.advance(key, -returned, line.empty_ns + returned)
        return last

    def _tidy(self, key: str, line: _Line, now: int) -> None:
        if not line.tickets and line.held_until_ns <= now:
            self._lines.pop(key, None)

    def _tidy_all(self, now: int) -> None:
        for key, line in list(self._lines.items()):
            self._tidy(key, line, now)
        held = [key for key, line in self._lines.items() if not line.tickets]
        for key in held[: len(self._lines) - _MOST // 2 if len(self._lines) >= _MOST else 0]:
            del self._lines[key]
        # Looked at again when there are twice as many: so each line costs a look or two.
        self._tidy_at = min(_MOST, max(_MANY, 2 * len(self._lines)))


def _refusal(key: str, wait_ns: int, why: str) -> RateLimited:
    seconds = wait_ns / SECOND
    away = f"{seconds:.3f}".rstrip("0").rstrip(".")
    return RateLimited(
        f"{key or 'the limiter'}: the next permit is {away} s away; {why}",
        key=key,
        retry_after=seconds,
    )


def line_of(space: Space) -> Waiting:
    """Return the `Waiting` of this space: limiters that share a name share one line."""
    if "waiting" not in vars(space):
        # setdefault is atomic: two threads that ask at once get the same one.
        vars(space).setdefault("waiting", Waiting(space))
    return cast("Waiting", space.waiting)
