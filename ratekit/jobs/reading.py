"""How far ahead of its reader a bulk job runs, and in which order its results are read."""

from collections.abc import Callable, Iterator
from queue import SimpleQueue
from typing import Any

from ratekit.clock import Stop
from ratekit.jobs.work import Result

__all__ = ["Reading"]

Begin = Callable[[int, Any], Result | None]
"""Begins a job; returns its result where that is known already."""


class Reading:
    """The jobs of one iterable: at most `ahead` are begun and not read.

    Used by one thread, but for `deliver`. What the iterable raises is kept until the results of
    what was begun have been read.
    """

    def __init__(
        self, requests: Iterator[Any], begin: Begin, *, ahead: int, ordered: bool, stop: Stop
    ) -> None:
        self._requests = requests
        self._begin = begin
        self._ahead = ahead
        self._ordered = ordered
        self._stop = stop
        self._results: SimpleQueue[tuple[int, Result]] = SimpleQueue()
        # Results of jobs before which there is one that is not done.
        self._early: dict[int, Result] = {}
        self._begun = self._read = 0
        self._is_over = False
        self._error: Exception | None = None

    def deliver(self, number: int, result: Result) -> None:
        """Take in a result. Called by any thread."""
        self._results.put((number, result))

    @property
    def under_way(self) -> int:
        """How many jobs were begun whose results are not read."""
        return self._begun - self._read

    def fill(self) -> bool:
        """Begin as many jobs as there may be; return whether there is a result to read."""
        while not self._is_over and self.under_way < self._ahead and not self._stop.is_set:
            try:
                request = next(self._requests)
            except StopIteration:
                self._is_over = True
            except Exception as error:  # noqa: BLE001  (raised again, once the rest is read)
                self._is_over, self._error = True, error
            else:
                number = self._begun
                # Counted first: its result may be there before this returns.
                self._begun += 1
                known = self._begin(number, request)
                if known is not None:
                    self.deliver(number, known)
        return self.under_way > 0

    def read(self) -> Iterator[Result]:
        """Wait for a result; yield those that may be read now."""
        number, result = self._results.get()
        if not self._ordered:
            self._read += 1
            yield result
            return
        self._early[number] = result
        while self._read in self._early:
            result = self._early.pop(self._read)
            self._read += 1
            yield result

    def raise_error(self) -> None:
        """Raise what the iterable raised."""
        if self._error is not None:
            raise self._error
