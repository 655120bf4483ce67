"""A hold that a fleet obeys: the one record that says until when, and how long in all.

A bucket's integers are of a clock that stands still while a hold lasts: *running time*. It is the
common clock less the length of all holds so far, so that a hold moves every turn not yet taken, in
every process, without touching one: order and spacing are kept. Who has not heard of the hold yet
reads its record with every conversation, and has every instant right once it has.

The record may be lost. Whoever knows it then counts from zero anew: each instant it remembers
moves by what the holds so far came to.
"""

import secrets

from ratekit.clock import SECOND
from ratekit.stores.memcached.wire import Put, Reply

__all__ = ["LONGEST_NS", "Hold"]

# As long as memcached keeps anything that has an end.
_LIFE = 30 * 86_400
LONGEST_NS = 3700 * SECOND
"""Longer than any hold that a limiter sets: one that says more is not believed."""


class Hold:
    """What this process knows of a key's holds. All instants are nanoseconds."""

    __slots__ = ("epoch", "key", "token", "total_ns", "until_ns")

    def __init__(self, key: bytes) -> None:
        self.key = key
        # Until when nothing is granted, by the common clock.
        self.until_ns = 0
        # The length of all holds, the one in force included.
        self.total_ns = 0
        # Whose count that is.
        self.epoch = ""
        self.token = 0

    def running(self, now: int) -> int:
        """Return the running time at an instant of the common clock."""
        return max(now, self.until_ns) - self.total_ns

    def clock(self, running: int) -> int:
        """Return when that running time will be; the end of the hold for what lies behind it."""
        return max(running + self.total_ns, self.until_ns)

    def see(self, reply: Reply, now: int) -> int:
        """Take in the record as it is; return by how much every instant remembered has moved."""
        before = self.total_ns
        self.token = reply.cas if reply.done else 0
        read = _read(reply.value) if reply.done else None
        if read is None or read[0] > now + LONGEST_NS:
            # It is gone, or nonsense: from here on the count is another.
            if before:
                self.total_ns, self.epoch = 0, ""
            return before
        until, total, epoch = read
        if epoch == self.epoch or not self.epoch:
            # The first record since there was none: its holds are new.
            self.epoch = epoch
            if total >= before:
                self.until_ns, self.total_ns = until, total
            return 0
        self.until_ns = max(until, self.until_ns) if self.until_ns > now else until
        self.total_ns, self.epoch = total, epoch
        return before - total

    def is_unknown(self, now: int) -> bool:
        """Return whether a hold is in force that the record does not say, since it was lost."""
        return self.until_ns > now and not self.epoch

    def longer(self, until: int, now: int) -> "Longer | None":
        """Return what must be written for a hold until then; None where it changes nothing."""
        begin = max(self.until_ns, now)
        if until <= begin:
            return None
        return Longer(self, until, self.total_ns + until - begin)

    def again(self) -> "Longer":
        """Return what must be written to say a hold again that was lost."""
        return Longer(self, self.until_ns, self.total_ns)


class Longer:
    """A longer hold, not yet written."""

    __slots__ = ("_epoch", "_hold", "_total", "_until")

    def __init__(self, hold: Hold, until: int, total: int) -> None:
        self._hold = hold
        self._until = until
        self._total = total
        self._epoch = hold.epoch or secrets.token_hex(4)

    def command(self) -> Put:
        """Return the command that writes it, unless somebody else has written meanwhile."""
        text = f"{self._until} {self._total} {self._epoch}".encode()
        return Put(self._hold.key, text, _LIFE, cas=self._hold.token)

    def written(self) -> None:
        """Obey it, once it was written."""
        hold = self._hold
        hold.until_ns, hold.total_ns, hold.epoch = self._until, self._total, self._epoch
        hold.token = 0


def _read(text: bytes) -> tuple[int, int, str] | None:
    words = text.split(b" ")
    if len(words) != 3 or not (words[0].isdigit() and words[1].isdigit() and words[2].isalnum()):
        return None
    if any(len(word) > 19 for word in words):
        return None
    return int(words[0]), int(words[1]), words[2].decode()
