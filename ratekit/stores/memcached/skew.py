"""How far this host's clock is from its fleet's, learned on round trips that are made anyway.

One long-lived key on the server has a remaining life, in whole seconds, that falls at the server's
second. An answer `remaining` to a question that was sent at one local instant and answered at
another says that the key's end lies between `sent + remaining` and `answered + remaining + 1`. A
few such answers around a tick leave some milliseconds. Two hosts see the end apart by exactly what
their clocks are apart. A reference beside the key says when the end is on the common clock: who
finds the end elsewhere corrects itself, who knows it better says so.

The server's second is no second: its timer is late by up to a millisecond each time, for good, so
the end moves away by up to 2 ms a second; about every quarter of an hour two ticks fall together
and it comes back by a second; and a server that stood still for 0.3 s is 0.3 s late from then on.
So what was seen ages, and when the end moves under one's own eyes while the reference stays where
it was, it is the reference that is outdated, not the clock that is wrong.
"""

from typing import NamedTuple

from ratekit.clock import SECOND

__all__ = ["Reference", "Skew", "read_reference", "write_reference"]

_MS = 1_000_000
_LONGEST = 10 * 366 * 86_400

# By how much the end may come nearer or move away in a second. Nobody's clock gains or loses more
# than half a millisecond (that is how fast ntp bends one); the server's timer is late besides.
_NEARER = _MS // 2
_FARTHER = 2 * _MS
# The timer's lateness never adds up to more than a second.
_MOST = SECOND

# A clock that is this far from the reference is right; two that are, are 20 ms apart at most.
_TOLERANCE = 10 * _MS
_SETTLED = 20 * _MS
# A reference is replaced by one half as wide, unless it is as narrow as this.
_NARROW = 5 * _MS
# A second holds a few milliseconds in which an answer says something new.
_SPACING = 3 * _MS
_MARGIN = 4 * _MS
_RARELY = SECOND // 2
_PROBATION = 10 * SECOND
_PATIENCE = 3 * SECOND

_Interval = tuple[int, int]


class Reference(NamedTuple):
    """The end of a key's life on the common clock, as it was seen when `remaining` s were left."""

    generation: bytes
    remaining: int
    low_ns: int
    high_ns: int


def read_reference(data: bytes) -> Reference | None:
    """Return what `write_reference` wrote, None for anything else."""
    parts = data.split(b" ")
    # The length first: turning digits into a number takes long when there are many.
    if len(data) > 200 or len(parts) != 4 or not parts[0] or not all(map(_is_number, parts[1:])):
        return None
    remaining, low, high = map(int, parts[1:])
    if remaining > _LONGEST or not 0 <= high - low <= 10 * SECOND:
        return None
    return Reference(parts[0], remaining, low, high)


def write_reference(reference: Reference) -> bytes:
    """Return `reference` as the server keeps it."""
    return b"%b %d %d %d" % reference


def _is_number(digits: bytes) -> bool:
    return digits.isdigit() and len(digits) <= 20


def _gap(one: _Interval, other: _Interval) -> int:
    """Return how far `one` lies above `other` (below it: negative); 0 where they meet."""
    return max(one[0] - other[1], 0) + min(one[1] - other[0], 0)


def _aged(seen: _Interval, age_ns: int) -> _Interval:
    age = max(age_ns, 0)
    nearer = min(_NEARER * age // SECOND, _MOST)
    farther = min(_FARTHER * age // SECOND, _MOST)
    return seen[0] - nearer, seen[1] + farther


class Skew:
    """What a process knows of its own clock beside that of the fleet, by one server.

    Guarded by its owner. Instants are nanoseconds of the process's own clock, which runs evenly.
    """

    correction_ns: int = 0
    """To be subtracted from the own clock."""

    def __init__(self) -> None:
        self._generation = b""
        # Where the end lies on the own clock, as of the instant `_seen_ns`.
        self._end: _Interval | None = None
        self._last: _Interval = (0, 0)
        self._seen_ns = 0
        self._remaining = 0
        self._shortest = SECOND
        self._reference: Reference | None = None
        # Where the end and the reference lay when they last agreed, and what was left then.
        self._agreed: tuple[_Interval, _Interval, int] | None = None
        self._offer: _Interval | None = None
        # Whether the last correction is good to some milliseconds only when more is known.
        self._is_rough = False
        # Whether the correction has stood its test; since when it is tested; since when it is
        # contradicted.
        self._is_sure = False
        self._began = 0
        self._doubted: int | None = None

    @property
    def is_settled(self) -> bool:
        """Whether the end is known about as well as it can be."""
        return self._end is not None and self._end[1] - self._end[0] <= self._enough

    def wants_sample(self, now_ns: int) -> bool:
        """Tell whether a question asked now may teach something; busy or idle, a few a second."""
        since = now_ns - self._seen_ns
        if self._end is None or not 0 <= since < _RARELY:
            return True
        low, high = self._end
        # Ticks are whole seconds before the end. Away from one, an answer says what is known.
        return since >= _SPACING and (now_ns - low + _MARGIN) % SECOND <= high - low + 2 * _MARGIN

    def observe(self, sent_ns: int, received_ns: int, remaining: int, generation: bytes) -> None:
        """Take in that the key `generation` had `remaining` whole seconds to live."""
        if not 0 <= remaining <= _LONGEST or received_ns < sent_ns:
            return
        if generation != self._generation:
            # Another key, perhaps another server: nothing is known but how wrong the clock is.
            self._generation = generation
            self._end = self._agreed = self._doubted = None
            self._began = remaining
        new = (sent_ns + remaining * SECOND, received_ns + (remaining + 1) * SECOND)
        self._shortest = min(self._shortest, received_ns - sent_ns)
        self._last = new
        if self._end is not None:
            new = self._narrowed(_aged(self._end, received_ns - self._seen_ns), new)
        self._end, self._seen_ns, self._remaining = new, received_ns, remaining

    def refer(self, reference: Reference | None) -> int:
        """Compare with the reference just read; return by how much the correction changed."""
        self._offer = None
        if self._end is None:
            return 0
        mine = self._mine(self._end)
        if reference is None or reference.generation != self._generation:
            self._offer = mine
            return 0
        stated = reference.low_ns, reference.high_ns
        there = _aged(stated, self._age(reference.remaining))
        gap = _gap(mine, there)
        if abs(gap) <= (0 if self._is_rough else self._tolerance):
            self._doubted = None
            self._agree(self._end, stated, there)
            return self._refined(mine, there)
        if self._doubted is None:
            self._doubted = self._seen_ns
        if self._is_sure:
            if self._insists(self._end, stated, self._seen_ns - self._doubted):
                return 0
        elif (
            not self.is_settled
            and self._seen_ns - self._doubted < _PATIENCE
            and not _gap(self._mine(self._last), there)
        ):
            return 0
        return self._corrected(mine, there)

    def offer(self) -> Reference | None:
        """Return a better reference than the one just read, if there is one to be written."""
        if self._offer is None:
            return None
        return Reference(self._generation, self._remaining, *self._offer)

    @property
    def _enough(self) -> int:
        return max(_SETTLED, 3 * self._shortest)

    @property
    def _tolerance(self) -> int:
        return max(_TOLERANCE, 3 * self._shortest // 2)

    def _mine(self, end: _Interval) -> _Interval:
        return end[0] - self.correction_ns, end[1] - self.correction_ns

    def _narrowed(self, known: _Interval, new: _Interval) -> _Interval:
        gap = _gap(new, known)
        if gap > 0 or -gap > self._tolerance:
            # The tick is late (how late, only its coming will tell), or all is different.
            return new
        # It came a little early: the newer is right, the older nearly.
        return max(known[0] + 2 * gap, new[0]), min(known[1], new[1])

    def _refined(self, mine: _Interval, there: _Interval) -> int:
        """Be exact once, after a correction that was not; or make the reference narrower."""
        width = there[1] - there[0]
        if self._is_rough and width + mine[1] - mine[0] <= self._enough:
            return self._corrected(mine, there)
        both = max(mine[0], there[0]), min(mine[1], there[1])
        if width > _NARROW and 0 <= both[1] - both[0] <= width // 2:
            self._offer = both
        return 0

    def _corrected(self, mine: _Interval, there: _Interval) -> int:
        change = (mine[0] + mine[1] - there[0] - there[1]) // 2
        if abs(self.correction_ns + change) > _LONGEST * SECOND:
            return 0
        self.correction_ns += change
        self._agreed = self._doubted = None
        self._is_sure = False
        self._began = self._remaining
        self._is_rough = there[1] - there[0] + mine[1] - mine[0] > self._enough
        return change

    def _agree(self, end: _Interval, stated: _Interval, there: _Interval) -> None:
        width = end[1] - end[0]
        if self._agreed is not None:
            then = _aged(self._agreed[0], self._age(self._agreed[2]))
            # What was known exactly is not forgotten for something vague.
            if width > 2 * (then[1] - then[0]):
                return
        self._agreed = end, stated, self._remaining
        if width + there[1] - there[0] <= self._enough or self._age(self._began) >= _PROBATION:
            self._is_sure = True

    def _insists(self, end: _Interval, stated: _Interval, doubted: int) -> bool:
        """Tell whether to keep the correction, though the reference contradicts; offer a better."""
        has_moved = self._agreed is None
        is_odd = True
        known = self._enough
        if self._agreed is not None:
            then = _aged(self._agreed[0], self._age(self._agreed[2]))
            known += 2 * (then[1] - then[0])
            has_moved = _gap(end, then) != 0
            is_odd = has_moved != (abs(_gap(stated, self._agreed[1])) > self._tolerance)
        if doubted > (_PATIENCE if has_moved else 2 * _PATIENCE):
            return False
        if is_odd and (end[1] - end[0] <= known or doubted > _PATIENCE // 2):
            self._offer = self._mine(end)
        return True

    def _age(self, remaining: int) -> int:
        return (remaining - self._remaining) * SECOND
