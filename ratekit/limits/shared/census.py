"""How many processes share a name: each counts itself once in ten seconds, on its way."""

from collections.abc import Sequence

from ratekit.clock import SECOND
from ratekit.stores.memcached.keys import key_of
from ratekit.stores.memcached.wire import Add, Command, Get, Reply

__all__ = ["Census"]

_WINDOW_NS = 10 * SECOND
_LIFE = 60
# Newcomers are heard of so soon.
_EVERY_NS = SECOND


class Census:
    """`processes`: how many have asked in this window or the one before."""

    def __init__(self, digest: str, known: int | None) -> None:
        self._digest = digest
        self._known = known
        self._window = 0
        self._counted = False
        self._asked_at = 0
        self._before = 1
        self._now = 1

    @property
    def processes(self) -> int:
        """How many share the name, as far as is known."""
        return self._known or max(self._before, self._now, 1)

    def ask(self, now: int) -> list[Command]:
        """Return what to ask beside anything else."""
        if self._known is not None or now - self._asked_at < _EVERY_NS:
            return []
        window = now // _WINDOW_NS
        if window != self._window:
            # After a lost state nobody has counted in the window before: what was known then stays.
            self._before = self._now if window == self._window + 1 else 1
            self._window, self._now, self._counted = window, 1, False
        self._asked_at = now
        key = key_of("census", self._digest, f":{window}")
        before = key_of("census", self._digest, f":{window - 1}")
        mine: Command = Get(key) if self._counted else Add(key, 1, _LIFE, first=1)
        return [mine, Get(before)]

    def hear(self, replies: Sequence[Reply]) -> None:
        """Take in the answers."""
        for reply in replies[:1]:
            if reply.number is not None:
                self._counted = True
                self._now = max(self._now, min(reply.number, _MOST))
        for reply in replies[1:]:
            if reply.number is not None:
                self._before = max(self._before, min(reply.number, _MOST))

    def after_fork(self) -> None:
        """In a child: it has not counted itself."""
        self._counted = False
        self._asked_at = 0


_MOST = 100_000
