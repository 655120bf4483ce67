"""The opening of a burst: what the server's bucket may have missed of ours.

The server's bucket stays full until an attempt *arrives*, ours begins to refill when it is *sent*.
While connections are set up and threads started, ours so counts refills that the server never
made, and a job that opens with a whole burst is refused a moment later. From the first attempt out
of a full bucket until a burst of attempts is answered, the bucket is therefore counted a second
time, as if each attempt had arrived only when its answer came: the server's cannot be emptier than
that. Where this count is behind, the limiter's clock is stopped for as long.

A bucket that holds one permit is not counted twice: whatever its server is, it has more room than
that or none at all, and a single thread would pay each answer's time again and again.
"""

import threading

from ratekit import forks
from ratekit.clock import Clock
from ratekit.limits.gcra import Rule
from ratekit.limits.waiting import Granted, Waiting

__all__ = ["Opening", "Openings"]


class Opening:
    """One key's opening: its second count, and how much is on its way."""

    __slots__ = ("answers", "flying_ns", "tat_ns")

    def __init__(self) -> None:
        self.tat_ns = 0
        self.flying_ns = 0
        self.answers = 0


class Openings:
    """The openings of one limiter. A key has one only while it has attempts under way."""

    def __init__(self, waiting: Waiting, rule: Rule, clock: Clock) -> None:
        self._waiting = waiting
        self._rule = rule
        self._clock = clock
        # Guards the dict and every opening in it.
        self._lock = threading.Lock()
        self._openings: dict[str, Opening] = {}
        forks.renew_in_child(self)

    def after_fork(self) -> None:
        """In a child: nothing is under way."""
        self._lock = threading.Lock()
        self._openings.clear()

    def sent(self, key: str, granted: Granted) -> Opening | None:
        """Note an attempt; return the opening that it belongs to, if there is one."""
        if self._rule.burst == 1:
            return None
        was_full = granted.waited_ns == 0 and granted.end_ns == granted.now_ns + granted.price_ns
        if not was_full and key not in self._openings:
            return None
        with self._lock:
            # What is still unanswered from before a bucket was full again no longer matters.
            opening = None if was_full else self._openings.get(key)
            if opening is None:
                opening = self._openings[key] = Opening()
            opening.flying_ns += granted.price_ns
            return opening

    def ended(self, key: str, opening: Opening, price_ns: int, *, arrived: bool) -> None:
        """Note that an attempt was answered or failed, or (not `arrived`) was never made."""
        with self._lock:
            if self._openings.get(key) is not opening:
                return
            opening.flying_ns -= price_ns
            if arrived:
                opening.tat_ns = max(opening.tat_ns, self._clock.now_ns()) + price_ns
                opening.answers += 1
            if opening.answers >= self._rule.burst or opening.flying_ns == 0:
                del self._openings[key]
            behind_ns = opening.tat_ns + opening.flying_ns
        self._waiting.not_before(key, behind_ns)
