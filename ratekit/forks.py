"""What a forked child must do: take new locks, and say that its limits are its own.

A lock that another thread held at the moment of the fork stays held in the child for ever, and
the threads that waited for their turn do not exist there. Whatever holds a lock registers here.
"""

import itertools
import logging
import os
import weakref
from typing import Protocol

__all__ = ["Renewable", "renew_in_child", "tell_own_limits"]

_log = logging.getLogger("ratekit")


class Renewable(Protocol):
    """Something that holds a lock, a socket or threads that wait."""

    def after_fork(self) -> None:
        """Become the child's own. Called in the child, where only one thread runs."""


# By number, so that what was built on top of another thing is renewed after it.
_known: "weakref.WeakValueDictionary[int, Renewable]" = weakref.WeakValueDictionary()
_numbers = itertools.count()
# The process that was told last; this one knows its limits to be its own.
_told = [os.getpid()]


def renew_in_child(thing: Renewable) -> None:
    """Call `thing.after_fork()` in every child forked from now on, while it is alive."""
    _known[next(_numbers)] = thing


def tell_own_limits() -> None:
    """Say, once in a process, that its limits are its own."""
    if _told[0] != os.getpid():
        _told[0] = os.getpid()
        _log.warning(
            "process %d was forked: limits kept in memory are its own from here on, so the "
            "processes together may exceed them",
            os.getpid(),
        )


def _after_fork_in_child() -> None:
    for _, thing in sorted(_known.items()):
        try:
            thing.after_fork()
        except Exception:  # noqa: BLE001  (whatever it was, it is logged)
            # The others must still be renewed, or the child waits for ever.
            _log.exception("after the fork: %r could not be renewed", thing)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
