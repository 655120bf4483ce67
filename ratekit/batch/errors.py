"""The errors of a batch.

* RateKitError
  x BatchError          there is no answer of a bulk call that could be used
    + MissingAnswer     it answered, but not this item (also a LookupError)
    + ItemError         it answered this item with an error
    + BatchInterrupted  the thread that made the bulk call was interrupted in it
  x TooLarge            for `send_many` to raise: a bulk call of fewer items could succeed
  x Rejected
    + BatchFull         as many items as may wait do so already
  x DeadlineExceeded
    + BatchTimeout      there was no answer in time (also a TimeoutError)
"""

import reprlib

from ratekit.errors import DeadlineExceeded, RateKitError, Rejected

__all__ = [
    "BatchError",
    "BatchFull",
    "BatchInterrupted",
    "BatchTimeout",
    "ItemError",
    "MissingAnswer",
    "TooLarge",
    "shown",
]

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 100


def shown(item: object) -> str:
    """Return how an error names an item: as `repr` does, but not at any length."""
    return _SHORT.repr(item)


class BatchError(RateKitError):
    """There is no answer of a bulk call that could be used: the message says why."""


class MissingAnswer(BatchError, LookupError):
    """The bulk call answered, but not this `item`."""

    def __init__(self, message: str = "", *, item: object = None) -> None:
        super().__init__(message)
        self.item = item


class ItemError(BatchError):
    """The server answered this `item` with an error: `error` is what it said, as it came."""

    def __init__(self, message: str = "", *, item: object = None, error: object = None) -> None:
        super().__init__(message)
        self.item = item
        self.error = error


class BatchInterrupted(BatchError):
    """The thread that made the bulk call was interrupted: nobody knows what came of it."""


class TooLarge(RateKitError):
    """A bulk call was too large: raised by `send_many`, it is made again as two halves."""


class BatchFull(Rejected):
    """As many items as may wait do so already; this one was not taken."""


class BatchTimeout(DeadlineExceeded, TimeoutError):
    """There was no answer in time."""
