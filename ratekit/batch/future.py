"""The future of one item: waiting for it is also what sends it."""

import logging
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import Any, Protocol, TypeVar

from ratekit.clock import new_gate, open_gate

__all__ = ["BatchFuture"]

_log = logging.getLogger("ratekit.batch")

V = TypeVar("V")


class Owner(Protocol):
    """The Batcher, as far as its futures need it."""

    def attend(self, future: "BatchFuture[Any]", timeout: float | None) -> None:
        """Return when the future is done; send what is due meanwhile."""

    def drop(self, future: "BatchFuture[Any]") -> None:
        """Forget a future that was cancelled."""


class BatchFuture(Future[V]):
    """A future whose `result()` and `exception()` send what is due, because nobody else may.

    Its callbacks are called when the whole batch is done, so that they may ask for each other's
    results.
    """

    def __init__(self, owner: Owner, era: object) -> None:
        super().__init__()
        self.owner = owner
        # Of which process it is.
        self.era = era
        # Opened when it is done, or when its thread should look whether it is to send something.
        self.gate = new_gate()
        # How many threads wait at the gate.
        self.watchers = 0
        # Its place in the line, while it has one.
        self.entry: object = None
        self._told = False
        self._callbacks: list[Callable[[Future[V]], object]] = []

    def result(self, timeout: float | None = None) -> V:
        """Return the answer, or raise the item's error; `BatchTimeout` after so many seconds."""
        self.owner.attend(self, timeout)
        return super().result(0)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return the item's error, None where there is an answer; wait as `result` does."""
        self.owner.attend(self, timeout)
        return super().exception(0)

    def cancel(self) -> bool:
        """Leave the batch; return False where it is on the wire already."""
        if not super().cancel():
            return False
        self.owner.drop(self)
        open_gate(self.gate)
        self.tell()
        return True

    def settle(self, value: V | BaseException) -> None:
        """Be done with a value, or with an error, unless it is done; wake who waits."""
        with suppress(InvalidStateError):
            if isinstance(value, BaseException):
                self.set_exception(value)
            else:
                self.set_result(value)
        open_gate(self.gate)

    def add_done_callback(self, fn: Callable[[Future[V]], object]) -> None:
        """Call `fn(self)` when it is done: at once if it is, else on the thread that sends it."""
        self._callbacks.append(fn)
        if self._told:
            self.tell()

    def tell(self) -> None:
        """Call those who wanted to be told; each is called once, by whichever thread."""
        self._told = True
        while self._callbacks:
            try:
                # Taking from a list is atomic.
                callback = self._callbacks.pop(0)
            except IndexError:
                return
            try:
                callback(self)
            except Exception:  # noqa: BLE001  (logged, as the library's futures do)
                _log.exception("a callback of %r failed", self)
