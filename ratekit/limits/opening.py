"""The opening of a burst: what the server's bucket may have missed of ours.

The server's bucket stays full until an attempt *arrives*, ours begins to refill when it is *sent*.
While connections are set up and threads started, ours so counts refills that the server never
made, and a job that opens with a whole burst is refused a moment later. From the first attempt out
of a full bucket until a burst of attempts is answered, the bucket is therefore counted a second
time, as if each attempt had arrived only when its answer came: the server's cannot be emptier than
that. Where this count is behind, the limiter's clock is stopped for as long.

A key has one opening until nothing of it is under way, so a job that stays below the limit pays
once. A bucket that holds one permit is not counted twice: whatever its server is, it has more room
than that or none at all.
"""

import threading
from typing import TYPE_CHECKING

from ratekit import forks
from ratekit.clock import Clock
from ratekit.limits.rules import Price, Rule, State

if TYPE_CHECKING:
    from ratekit.limits.shared.waiting import SharedWaiting
    from ratekit.limits.waiting import Waiting

__all__ = ["Opening", "Openings"]


class Opening:
    """One key's opening: its second count, and what is on its way."""

    __slots__ = ("answers", "flying", "state")

    def __init__(self, rule: Rule) -> None:
        self.state: State = rule.fresh
        self.flying: dict[Price, int] = {}
        self.answers = 0


class Openings:
    """The openings of one limiter. A key has one only while it has attempts under way."""

    def __init__(self, waiting: "Waiting | SharedWaiting", clock: Clock) -> None:
        self._waiting = waiting
        self._clock = clock
        # Guards the dict and what an opening counts; that a key has none is seen without it.
        self._lock = threading.Lock()
        self._openings: dict[str, Opening] = {}
        forks.renew_in_child(self)

    def after_fork(self) -> None:
        """In a child: nothing is under way."""
        self._lock = threading.Lock()
        self._openings.clear()

    def sent(self, key: str, rule: Rule, price: Price, *, was_full: bool) -> Opening | None:
        """Note an attempt; return the opening that it belongs to, if there is one.

        `was_full`: whether the attempt's permit came out of a full bucket.
        """
        if not (was_full or key in self._openings):
            return None
        with self._lock:
            opening = self._openings.get(key)
            if opening is None:
                if not was_full:
                    return None
                opening = self._openings[key] = Opening(rule)
            opening.flying[price] = opening.flying.get(price, 0) + 1
            return opening

    def ended(self, key: str, rule: Rule, opening: Opening, price: Price, *, arrived: bool) -> None:
        """Note that an attempt was answered or failed, or (not `arrived`) was never made."""
        with self._lock:
            left = opening.flying.pop(price) - 1
            if left:
                opening.flying[price] = left
            elif not opening.flying:
                # Nothing is under way: what comes next is an opening of its own. (Who calls one at
                # a time ends here every time, and pays nothing.)
                self._openings.pop(key, None)
                return
            if not arrived or opening.answers >= rule.burst:
                return
            now = self._clock.now_ns()
            behind = opening.state = rule.spend(opening.state, now, now, price)
            opening.answers += 1
            for flying, number in opening.flying.items():
                behind = rule.spend(behind, now, now, rule.times(flying, number))
        self._waiting.raise_to(key, rule, behind)
