"""Who waits for shared permits: the threads of this process, and the conversations they have.

A thread joins the line of its key. If it has no turn, and nobody else of the line is talking to the
server, it talks for all that have none: one round trip reserves a turn for each. It sleeps until
its turn, and before it goes makes sure that it has heard of every hold until a moment ago: whoever
wakes looks once more, and that same round trip reserves for those who came meanwhile.
"""

import logging
import threading
from itertools import count, islice
from typing import TYPE_CHECKING, Any, cast

from cachetools import TTLCache

from ratekit import forks
from ratekit.clock import SECOND, open_gate
from ratekit.errors import RateLimited, StoreError
from ratekit.limits.gcra import Bucket
from ratekit.limits.joint import Joint
from ratekit.limits.rules import Price, Rule, State
from ratekit.limits.shared.alone import Alone
from ratekit.limits.shared.census import Census
from ratekit.limits.shared.ledger import Conversation, Ledger
from ratekit.limits.shared.metered import MeteredLedger
from ratekit.limits.shared.recorded import GRACE_NS, RecordedLedger
from ratekit.limits.shared.turns import SharedLine, Turn, Waiter
from ratekit.limits.waiting import Granted, refusal, say_wait, why_waiting
from ratekit.stores import Taken
from ratekit.stores.memcached.keys import digest_of
from ratekit.stores.memcached.server import Server
from ratekit.stores.memcached.space import MemcachedSpace

if TYPE_CHECKING:
    from ratekit.stores.memcached.wire import Command

__all__ = ["SharedWaiting", "shared_line_of"]

_log = logging.getLogger("ratekit.limits")

# What was heard of holds is good for so long: as long as a request is on its way.
_FRESH_NS = SECOND // 500
# So long is another's conversation waited for.
_PATIENT_NS = SECOND // 10
# So long what was seen of a limit may be taken to say whether a permit is to be had.
_RECENT_NS = SECOND // 50
# Who comes while another of the same line goes within so long leaves the asking to it.
_SOON_NS = SECOND // 50
# Who waits longer looks for holds now and then.
_LOOK_NS = SECOND
# How late a turn may be used, or as late as the bucket has room for.
_LATE_NS = SECOND // 20
# How far ahead turns are reserved at most, and how many for one process at once.
_AHEAD_NS = 60 * SECOND
_AT_ONCE = 256
# By how much a clock may be set forward without a word.
_JUMP_NS = SECOND // 100
_LONG_NS = 10 * SECOND
_SAY_EVERY = 60.0
_MANY = 1024
_LINES = 10_000


class _Line(SharedLine):
    """One key here: who waits, what is known, and whether somebody is asking."""

    __slots__ = (
        "alone_since",
        "asked_at",
        "corrected_ns",
        "emptied_at",
        "full_until",
        "heard_at",
        "is_asking",
        "ledger",
        "server",
    )  # fmt: skip

    def __init__(self, digest: str, server: Server, rule: Rule) -> None:
        super().__init__()
        self.server = server
        self.ledger: Ledger
        if _is_metered(rule):
            self.ledger = MeteredLedger(digest, self, _periods(rule))
        else:
            self.ledger = RecordedLedger(digest, self, rule)
        self.is_asking = False
        self.asked_at = 0
        # When the last answer was asked for.
        self.heard_at = 0
        # Until when no more turns are reserved: there are enough.
        self.full_until = 0
        # When its buckets were last taken to be empty, and since when it is alone: own clock.
        self.emptied_at = 0 if server.is_lost or server.is_settling else server.clock.own_ns()
        self.alone_since = -1
        # The clock's correction by which its turns were reserved.
        self.corrected_ns = server.clock.correction_ns


class _LostError(Exception):
    """The shared state cannot be asked now: the caller goes on alone."""


class SharedWaiting:
    """The lines of one space. Use `shared_line_of`: a space has one in a process."""

    def __init__(self, space: MemcachedSpace) -> None:
        self._space = space
        self._on_error = space.store.on_error
        self._alone = Alone(space.store.servers[0].clock)
        # Guards everything below, and all of a line, its waiters and its ledger.
        self._lock = threading.Lock()
        self._lines: dict[str, _Line] = {}
        self._serials = count()
        self._said: TTLCache[str, bool] = TTLCache(_MANY, _SAY_EVERY)
        digest = digest_of(space.store.namespace, space.name)
        self._census = {
            server: Census(digest, space.store.processes) for server in space.store.servers
        }
        forks.renew_in_child(self)

    def after_fork(self) -> None:
        """In a child: nobody waits here, and the turns are the parent's."""
        self._lock = threading.Lock()
        self._lines.clear()
        for census in self._census.values():
            census.after_fork()

    def wait(
        self,
        key: str,
        rule: Rule,
        price: Price,
        *,
        priority: int = 0,
        max_wait_ns: int | None = None,
        patience_ns: int | None = None,
        most: int = _LINES,
    ) -> Granted:
        """Return when the caller's turn has come.

        Raises `RateLimited` as `Waiting.wait` does; `StoreError` where the state cannot be asked,
        and nothing may go without it.
        """
        with self._lock:
            line = self._line(key, rule)
        began = line.server.clock.now_ns()
        how: dict[str, Any] = {"priority": priority, "patience_ns": patience_ns, "most": most}
        if self._on_error == "local" and line.server.is_settling and not line.server.is_lost:
            # Others may still go on alone: for a moment, both gates hold.
            alone = self._go_alone(key, line, rule, price, max_wait_ns=max_wait_ns, **how)
            if max_wait_ns is not None:
                max_wait_ns = max(0, max_wait_ns - alone.waited_ns)
        waiter = Waiter(rule, price, priority, max_wait_ns, patience_ns)
        try:
            self._join(line, key, waiter, most)
            while not isinstance(step := self._step(line, key, waiter), Granted):
                if step:
                    line.server.clock.wait(waiter.gate, step / SECOND)
                else:
                    self._ask_for_all(line, key)
        except _LostError as lost:
            self._leave(line, waiter)
            if self._on_error != "local":
                return self._without(key, line, rule, str(lost), began)
            spent = line.server.clock.now_ns() - began
            if max_wait_ns is not None:
                max_wait_ns = max(0, max_wait_ns - spent)
            # Who has waited for the server goes before those who have not.
            how["priority"] += spent > _LATE_NS
            granted = self._go_alone(key, line, rule, price, max_wait_ns=max_wait_ns, **how)
            return granted._replace(waited_ns=line.server.clock.now_ns() - began)
        except BaseException:
            self._leave(line, waiter)
            raise
        if not rule.is_punctual and line.server.clock.now_ns() - step.used_ns > GRACE_NS:
            # It woke up too late for the instant at which its permit was counted.
            self.answered(key, rule, step.used_ns, price)
        return step._replace(waited_ns=step.used_ns - began)

    # With the lock held for a moment each.

    def _line(self, key: str, rule: Rule) -> _Line:
        line = self._lines.get(key)
        if line is None:
            if len(self._lines) >= _LINES:
                idle = (k for k, one in self._lines.items() if not (one.order or one.is_asking))
                for old in list(islice(idle, _LINES // 16)):
                    del self._lines[old]
            digest, server = self._space.place(key)
            line = self._lines[key] = _Line(digest, server, rule)
        return line

    def _join(self, line: _Line, key: str, waiter: Waiter, most: int) -> None:
        with self._lock:
            now = line.server.clock.now_ns()
            ledger = line.ledger
            held_ns = ledger.held_until_ns - now
            if waiter.patience_ns is not None and held_ns > waiter.patience_ns:
                raise refusal(key, held_ns, "the pause is longer than is waited for")
            if waiter.latest_ns is not None:
                away_ns = self._estimate(line, waiter, now) - now
                if away_ns > waiter.latest_ns:
                    if now - line.heard_at < _RECENT_NS:
                        accepted = f"at most {waiter.latest_ns / SECOND:g} s are accepted"
                        raise refusal(key, away_ns, accepted)
                    waiter.must_look = True
                waiter.latest_ns += now
            if len(line.order) >= most:
                last = line.order[-1]
                if last.priority >= waiter.priority:
                    raise refusal(key, ledger.held_until_ns - now, f"{most} wait already")
                last.refusal = (0, f"{most} wait that go first")
                line.leave(last)
                open_gate(last.gate)
            line.join(waiter, next(self._serials))

    def _estimate(self, line: _Line, waiter: Waiter, now: int) -> int:
        before = [
            (one.rule, one.price) for one in line.order if one.turn is None and one is not waiter
        ]
        return line.ledger.estimate(waiter.rule, waiter.price, before, now)

    def _step(self, line: _Line, key: str, waiter: Waiter) -> Granted | int:
        """Return the grant, or how many nanoseconds to sleep; 0: the caller must ask for all."""
        with self._lock:
            now = line.server.clock.now_ns()
            if waiter.refusal is not None:
                raise refusal(key, *waiter.refusal)
            self._follow_clock(line)
            if waiter.turn is None:
                return self._step_without_turn(line, waiter, now)
            ledger = line.ledger
            wait_ns = ledger.due(waiter.turn.at_ns) - now
            if wait_ns > 0:
                self._check_patience(line, key, waiter, now, wait_ns)
                if wait_ns > _LOOK_NS and now - line.heard_at >= _LOOK_NS:
                    return self._ask_or(line, now, _LOOK_NS)
                return min(wait_ns, _LOOK_NS)
            if self._drop_late(line, now):
                return self._step_without_turn(line, waiter, now)
            good_ns = _RECENT_NS if waiter.turn.was_due else _FRESH_NS
            if now - line.heard_at > good_ns and not line.server.is_lost:
                left_ns = _PATIENT_NS - (now - line.asked_at)
                if not line.is_asking or left_ns > 0:
                    return self._ask_or(line, now, left_ns)
            turn = line.use(waiter)
            self._wake_next(line, now)
            state = ledger.granted(turn, now)
            return Granted(state, now if turn.after is None else turn.at_ns, 0)

    def _step_without_turn(self, line: _Line, waiter: Waiter, now: int) -> int:
        if waiter.is_lost:
            raise _LostError(waiter.why)
        if line.is_asking:
            left_ns = _PATIENT_NS - (now - line.asked_at)
            if left_ns <= 0 or line.server.is_lost:
                raise _LostError("no answer from memcached")
            return left_ns
        if now < line.full_until:
            return line.full_until - now
        if waiter.latest_ns is None and self._goes_soon(line, now):
            # Who goes next asks anyway, or is about to come again: one asks for all of them.
            return _SOON_NS
        return self._ask_or(line, now, 0)

    def _ask_or(self, line: _Line, now: int, else_ns: int) -> int:
        """Return 0 if the caller is to ask for all, how long to sleep where somebody does."""
        if line.is_asking:
            return max(else_ns, 1)
        line.is_asking = True
        line.asked_at = now
        return 0

    def _check_patience(
        self, line: _Line, key: str, waiter: Waiter, now: int, wait_ns: int
    ) -> None:
        if waiter.latest_ns is not None and now + wait_ns > waiter.latest_ns:
            raise refusal(key, wait_ns, "the turn moved beyond max_wait")
        held_ns = line.ledger.held_until_ns - now
        if waiter.patience_ns is not None and held_ns > waiter.patience_ns:
            raise refusal(key, wait_ns, "the pause is longer than is waited for")
        if wait_ns >= _LONG_NS and key not in self._said:
            self._said[key] = True
            say_wait(line.server.clock, key, wait_ns, why_waiting(waiter.rule, held=held_ns > 0))

    def _drop_late(self, line: _Line, now: int) -> bool:
        """Forget the turns that are past using, where the whole process overslept."""
        time = line.ledger.time(now)
        some = [one for one in line.order[:8] if one.turn is not None]
        saved_ns = max(_LATE_NS, some[0].rule.saved_ns)
        late = sum(time - one.turn.at_ns > saved_ns for one in some if one.turn is not None)
        if late < 2:
            return False
        line.drop_before(time - saved_ns)
        return True

    def _follow_clock(self, line: _Line) -> None:
        """Forget the turns that a clock set forward would make due all at once."""
        correction_ns = line.server.clock.correction_ns
        if line.corrected_ns - correction_ns > _JUMP_NS:
            line.take_all()
        line.corrected_ns = correction_ns

    def _goes_soon(self, line: _Line, now: int) -> bool:
        """Return whether a thread of the line has its turn in a moment, or has it now."""
        return any(
            -_SOON_NS < line.ledger.due(turns[0].at_ns) - now < _SOON_NS
            for turns in line.turns.values()
        )

    def _wake_next(self, line: _Line, now: int) -> None:
        """Let somebody else ask for those who have no turn."""
        if line.is_asking or self._goes_soon(line, now):
            return
        for one in line.order:
            if one.turn is None and not one.is_lost:
                open_gate(one.gate)
                return

    def _leave(self, line: _Line, waiter: Waiter) -> None:
        """Give up a place, and the turn where nobody else here has a use for it."""
        with self._lock:
            line.leave(waiter)
            self._wake_next(line, line.server.clock.now_ns())
            spare = line.spare()
        if spare:
            self._try(line, line.ledger.give_back(spare))

    # Conversations, with no lock held while they last.

    def _ask_for_all(self, line: _Line, key: str) -> None:
        """Reserve a turn for all of the line that have none, and hear of holds."""
        try:
            with self._lock:
                looks = any(one.must_look and one.turn is None for one in line.order)
            if looks:
                self._converse(line, line.ledger.look())
                with self._lock:
                    self._refuse_late(line)
            with self._lock:
                wants = self._wants(line)
                conversation = line.ledger.reserve([(one.rule, one.price) for one in wants])
            turns = self._converse(line, conversation)
            with self._lock:
                now = line.server.clock.now_ns()
                for turn in turns or []:
                    turn.was_due = line.ledger.due(turn.at_ns) <= now
                line.reserved(turns or [])
                self._refuse_late(line)
                spare = line.spare()
            if spare:
                self._try(line, line.ledger.give_back(spare))
        except StoreError as error:
            with self._lock:
                for one in line.order:
                    if one.turn is None:
                        one.is_lost, one.why = True, str(error)
        finally:
            with self._lock:
                line.is_asking = False
                # Those who waited for this, and one to ask for whoever came meanwhile.
                now = line.server.clock.now_ns()
                for one in line.order:
                    if one.turn is None or line.ledger.due(one.turn.at_ns) <= now:
                        open_gate(one.gate)

    def _wants(self, line: _Line) -> list[Waiter]:
        """Return those to reserve for: who has no turn, while turns are not too far ahead."""
        now = line.server.clock.now_ns()
        waiting = [one for one in line.order if one.turn is None and not one.is_lost]
        if not waiting:
            return []
        first = waiting[0]
        ahead_ns = line.ledger.estimate(first.rule, first.price, (), now) - now
        if ahead_ns > _AHEAD_NS:
            line.full_until = now + _LOOK_NS
            waiting = waiting[: 0 if line.turns else 1]
        wants = waiting[:_AT_ONCE]
        server = line.server
        if server.is_lost or line.emptied_at < server.found_ns:
            # What was saved up when it was lost may have been given out by whoever went on alone.
            line.emptied_at = server.clock.own_ns()
            line.ledger.empty([(one.rule, one.price) for one in wants], now)
        return wants

    def _refuse_late(self, line: _Line) -> None:
        """Send away whose turn is too late for them."""
        now = line.server.clock.now_ns()
        for one in list(line.order):
            if one.latest_ns is None:
                continue
            if one.turn is not None:
                due_ns = line.ledger.due(one.turn.at_ns)
            elif one.must_look:
                one.must_look = False
                due_ns = self._estimate(line, one, now)
            else:
                continue
            if due_ns > max(one.latest_ns, now):
                one.refusal = (due_ns - now, "it would be too late for this caller")
                line.leave(one)
                open_gate(one.gate)

    def _converse(self, line: _Line, conversation: Conversation) -> Any:
        clock, census = line.server.clock, self._census[line.server]
        while True:
            with self._lock:
                now = clock.now_ns()
                beside: list[Command] = census.ask(now)
                commands = conversation.ask(now)
            if not commands and not beside:
                return conversation.result
            replies = line.server.talk([*commands, *beside], again=conversation.again)
            with self._lock:
                census.hear(replies[len(commands) :])
                line.heard_at = max(line.heard_at, now)
                if conversation.hear(replies[: len(commands)], clock.now_ns()):
                    return conversation.result

    def _try(self, line: _Line, conversation: Conversation) -> Any:
        """Have a conversation that may fail: then a little of the limit is lost, and no more."""
        try:
            return self._converse(line, conversation)
        except StoreError:
            return None

    # Without the shared state.

    def _go_alone(self, key: str, line: _Line, rule: Rule, price: Price, **how: Any) -> Granted:
        """Wait for a turn at this process's share of the limit."""
        processes = self._census[line.server].processes
        with self._lock:
            lost_ns = line.server.lost_ns
            # A server that is only slow was never lost, and a hold may have come since.
            is_held = line.ledger.held_until_ns > line.server.clock.now_ns()
            if is_held or line.alone_since != lost_ns:
                line.alone_since = lost_ns
                due = [line.ledger.due(turns[-1].at_ns) for turns in line.turns.values()]
                until = max([line.ledger.held_until_ns, line.server.clock.now_ns(), *due])
                self._alone.begin(key, rule, processes, until)
        granted = self._alone.wait(key, rule, price, processes, **how)
        with self._lock:
            now = line.server.clock.now_ns()
            return Granted(line.ledger.state(rule, now), now, granted.waited_ns)

    def _without(self, key: str, line: _Line, rule: Rule, why: str, began: int) -> Granted:
        if self._on_error == "closed":
            raise StoreError(f"{why}; nothing goes without it (on_error='closed')", key=key)
        with self._lock:
            now = line.server.clock.now_ns()
            return Granted(line.ledger.state(rule, now), now, now - began)

    # What else a limiter asks for.

    def hold(self, key: str, rule: Rule, length_ns: int) -> bool:
        """Grant nothing before `length_ns` from now, anywhere; return whether that is news."""
        with self._lock:
            line = self._line(key, rule)
            if line.ledger.held_until_ns >= line.server.clock.now_ns() + length_ns:
                return False
        try:
            is_news = bool(self._converse(line, line.ledger.hold(rule, length_ns)))
        except StoreError:
            processes = self._census[line.server].processes
            return self._alone.hold(key, rule, processes, length_ns)
        with self._lock:
            # Some of them may not want to wait that long.
            for one in line.order:
                open_gate(one.gate)
        return is_news

    def give_back(self, key: str, rule: Rule, after: State, used_ns: int, price: Price) -> None:
        """Return a permit that was granted and not used: whoever waits goes that much earlier."""
        with self._lock:
            line = self._line(key, rule)
            at_ns = line.ledger.time(line.server.clock.now_ns())
            line.reserved([Turn(rule, price, at_ns, line.ledger.returned(rule, after, used_ns))])
            spare = line.spare()
        if spare:
            self._try(line, line.ledger.give_back(spare))

    def answered(self, key: str, rule: Rule, used_ns: int, price: Price) -> None:
        """Note that the attempt whose permit was used at `used_ns` was answered."""
        with self._lock:
            line = self._line(key, rule)
            conversation = line.ledger.answered(rule, price, used_ns)
        if conversation is not None:
            self._try(line, conversation)

    def raise_to(self, key: str, rule: Rule, floor: State) -> None:
        """Count at least what `floor` counts, beside what was granted."""
        with self._lock:
            line = self._line(key, rule)
        self._try(line, line.ledger.raise_to(rule, floor))

    def spend(self, key: str, rule: Rule, price: Price) -> None:
        """Count what went without a turn."""
        with self._lock:
            line = self._line(key, rule)
            conversation = line.ledger.reserve([(rule, price)])
        self._try(line, conversation)

    def repace(self, key: str, rule: Bucket, next_ns: int | None = None) -> None:
        """Let those who wait for a turn by another pace have one by this one.

        `next_ns` is nothing to a fleet: nobody knows who else goes next.
        """
        with self._lock:
            line = self._lines.get(key)
            if line is None or not line.order:
                return
            turns = line.take_all()
            for one in line.order:
                if not isinstance(one.rule, Bucket):
                    continue
                one.price = round(one.price * rule.interval_ns / one.rule.interval_ns)
                one.rule = rule
        if turns:
            self._try(line, line.ledger.give_back(turns))
        with self._lock:
            for one in line.order:
                open_gate(one.gate)

    def take(self, key: str, rule: Rule, price: Price) -> Taken:
        """Take a permit if it is to be had now."""
        try:
            granted = self.wait(key, rule, price, max_wait_ns=0)
        except RateLimited:
            with self._lock:
                line = self._line(key, rule)
                now = line.server.clock.now_ns()
                return False, line.ledger.state(rule, now), now, price
        return True, granted.state, granted.used_ns, price

    def look(self, key: str, rule: Rule) -> tuple[State, int]:
        """Return the state of `key` as it is now, and the instant."""
        with self._lock:
            line = self._line(key, rule)
            is_recent = line.server.clock.now_ns() - line.heard_at < _RECENT_NS
        if not is_recent:
            self._try(line, line.ledger.look())
        with self._lock:
            now = line.server.clock.now_ns()
            return line.ledger.state(rule, now), now

    def held_ns(self, key: str, rule: Rule) -> int:
        """Return how long the hold of `key` still lasts."""
        with self._lock:
            line = self._line(key, rule)
            return max(0, line.ledger.held_until_ns - line.server.clock.now_ns())


def _is_metered(rule: Rule) -> bool:
    """Return whether a rule is made of buckets only."""
    parts = [part.rule for part in rule.parts] if isinstance(rule, Joint) else [rule]
    return all(isinstance(part, Bucket) for part in parts)


def _periods(rule: Rule) -> list[int]:
    return [one.rule.limit.period_ns for one in rule.parts] if isinstance(rule, Joint) else [0]


def shared_line_of(space: MemcachedSpace) -> SharedWaiting:
    """Return the `SharedWaiting` of this space: limiters that share a name share their lines."""
    if "waiting" not in space.beside:
        # setdefault is atomic: two threads that ask at once get the same one.
        space.beside.setdefault("waiting", SharedWaiting(space))
    return cast("SharedWaiting", space.beside["waiting"])
