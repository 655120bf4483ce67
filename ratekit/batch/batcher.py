"""Batcher: what many threads ask for one by one is asked for in a few bulk calls.

Items wait in a line until there is a batch of them, or until the first has waited for `max_delay`.
No thread of its own sends them: whoever fills a batch does, or else the first who waits for an
answer when its time has come.
"""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from ratekit import forks
from ratekit.batch.dispatch import Dispatch
from ratekit.batch.errors import shown
from ratekit.batch.future import BatchFuture
from ratekit.checks import check_number, check_positive
from ratekit.clock import SECOND, SYSTEM, Clock, to_ns
from ratekit.errors import ConfigurationError

__all__ = ["Batcher"]

K = TypeVar("K")
V = TypeVar("V")


class Batcher(Generic[K, V]):
    """Makes one bulk call, `send_many(items)`, of what many threads ask for.

    `send_many` returns a list of one answer for each item, in their order, or a mapping
    `{item: answer}`; an answer that is an exception is that item's error. What it raises, all
    items of the batch get; but `TooLarge`, or a native error or response of status 413, has it
    called again with each half.

    - `max_size`: how many items are a full batch; with `weight(item) -> number`, their largest
      total weight. An item that is heavier goes alone
    - `max_delay`: seconds that an item waits for others
    - `key(item)`: what makes items equal, and is looked up in the mapping; by default the item
      itself. Of equal items that wait, one is asked for; `merge=False` asks for each
    - `max_parallel`: bulk calls under way at a time; None for any number. Above it items wait, and
      make fuller batches
    - `max_waiting`: items that may wait; one more is refused with `BatchFull`

    `send_many` is called on a caller's thread, with the `ratekit.options` that were in force where
    the Batcher was made. Raises `ConfigurationError` for what cannot be right.
    """

    def __init__(
        self,
        send_many: Callable[[list[K]], Sequence[V | Exception] | Mapping[Any, V | Exception]],
        *,
        max_size: float = 100,
        max_delay: float = 0.01,
        weight: Callable[[K], float] | None = None,
        key: Callable[[K], Hashable] | None = None,
        merge: bool = True,
        max_parallel: int | None = None,
        max_waiting: int = 10_000,
        clock: Clock = SYSTEM,
    ) -> None:
        for what, function in (("send_many", send_many), ("weight", weight), ("key", key)):
            if not callable(function) and (function is not None or what == "send_many"):
                raise ConfigurationError(f"{what} {function!r}: use a function")
        if weight is None:
            _check_count("max_size", max_size)
        else:
            check_positive("max_size", max_size)
        check_number("max_delay", max_delay, unit="seconds")
        if max_parallel is not None:
            _check_count("max_parallel", max_parallel)
        _check_count("max_waiting", max_waiting)
        self._max_size = max_size
        self._max_delay_ns = to_ns(max_delay)
        self._weight = weight
        self._key = key
        self._merge = merge
        self._clock = clock
        self._dispatch: Dispatch[K, V] = Dispatch(
            send_many, max_size, max_parallel, max_waiting, clock
        )
        forks.renew_in_child(self)

    def after_fork(self) -> None:
        """In a child: nobody waits here."""
        self._dispatch.renew()

    def load(self, item: K, timeout: float | None = None, priority: int = 0) -> V:
        """Return the answer for an item, or raise its error.

        Higher priorities go into the next batch first, and within one who came first. Raises
        `BatchTimeout` after `timeout` seconds; the item is not sent then, unless it is on the wire
        or another wants it. (A thread that sends is busy until its bulk call is over.)
        """
        until = self._until(timeout)
        future = self._add(item, priority)
        try:
            return future.result(self._left(until))
        except BaseException:
            future.cancel()
            raise

    def load_many(
        self,
        items: Iterable[K],
        timeout: float | None = None,
        priority: int = 0,
        *,
        return_exceptions: bool = False,
    ) -> list[Any]:
        """Return the answers for items, in their order.

        Raises the first error there is, and does not send what is not on the wire yet; with
        `return_exceptions=True` errors stand among the answers. `timeout` is for all together.
        """
        until = self._until(timeout)
        futures: list[Future[V]] = []
        answers: list[V | BaseException] = []
        try:
            for item in items:
                futures.append(self._add(item, priority))
                # Only what is full: the next item may go with those that are due.
                self._dispatch.send_ready(None)
            for future in futures:
                left = self._left(until)
                error = future.exception(left) if return_exceptions else None
                answers.append(future.result(left) if error is None else error)
        except BaseException:
            for future in futures:
                future.cancel()
            raise
        return answers

    def submit(self, item: K, priority: int = 0) -> Future[V]:
        """Return a future of the answer; send a batch first, if this fills it or one is due.

        Its `result()` and `exception()` send what is due. `concurrent.futures.wait` and
        `as_completed` only look: call `flush()` before them.
        """
        future = self._add(item, priority)
        self._dispatch.send_ready(self._clock.now_ns())
        return future

    def flush(self, timeout: float | None = None) -> None:
        """Send all that wait, at once; return when they, and what is on the wire, are answered.

        Errors are the futures' own. Raises `BatchTimeout` after so many seconds.
        """
        until = self._until(timeout)
        for future in self._dispatch.push() + self._dispatch.elsewhere():
            self._dispatch.attend(future, self._left(until))

    def close(self, *, cancel: bool = False) -> None:
        """Take no more items, and flush; with `cancel=True` what waits is cancelled instead."""
        futures = self._dispatch.push(close=True)
        if cancel:
            for future in futures:
                future.cancel()
        self.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close(cancel=error is not None)

    def info(self) -> dict[str, int]:
        """Return what was done in this process, and what waits now.

        `calls`: bulk calls; `items` in them; `merged`: times that an item was asked for which
        waited already; `splits`: bulk calls that were too large; `waiting` and `on_wire`: items.
        """
        return self._dispatch.info()

    def _add(self, item: K, priority: int) -> BatchFuture[V]:
        if isinstance(priority, bool) or not isinstance(priority, int):
            raise ConfigurationError(
                f"priority {priority!r}: use a whole number; higher ones go first"
            )
        key, mergeable = self._key_of(item)
        weight = 1 if self._weight is None else self._weight(item)
        check_positive(f"weight of {shown(item)}", weight)
        return self._dispatch.add(item, key, weight, priority, self._max_delay_ns, merge=mergeable)

    def _key_of(self, item: K) -> tuple[Hashable, bool]:
        """Return what an item is known by, and whether it may be merged."""
        key: Hashable = item if self._key is None else self._key(item)
        try:
            hash(key)
        except TypeError:
            if self._key is not None:
                raise ConfigurationError(
                    f"key({shown(item)}) is {shown(key)}: return what can be hashed"
                ) from None
            return key, False
        return key, self._merge

    def _until(self, timeout: float | None) -> int | None:
        if timeout is None:
            return None
        check_number("timeout", timeout, unit="seconds, or None")
        return self._clock.now_ns() + to_ns(timeout)

    def _left(self, until: int | None) -> float | None:
        return None if until is None else max(0, until - self._clock.now_ns()) / SECOND

    def __repr__(self) -> str:
        return f"Batcher(max_size={self._max_size}, max_delay={self._max_delay_ns / SECOND:g})"


def _check_count(what: str, number: object) -> None:
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        raise ConfigurationError(f"{what} {number!r}: use a whole number from 1 up")
