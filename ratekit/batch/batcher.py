"""Batcher: what many threads ask for one by one is asked for in a few bulk calls.

Items wait in a line until there is a batch of them, or until the first has waited for `max_delay`.
No thread of its own sends them: whoever fills a batch does, or else the first who waits for an
answer when its time has come.
"""

import threading
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from contextvars import copy_context
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from ratekit import forks
from ratekit.batch.answers import answers_of, is_too_large
from ratekit.batch.errors import BatchError, BatchFull, BatchInterrupted, BatchTimeout, shown
from ratekit.batch.future import BatchFuture
from ratekit.batch.line import Entry, Line
from ratekit.checks import check_number, check_positive
from ratekit.clock import SECOND, SYSTEM, Clock, open_gate, to_ns
from ratekit.errors import ConfigurationError

__all__ = ["Batcher"]

K = TypeVar("K")
V = TypeVar("V")

# How long a thread waits at a time: as good as for ever.
_LONG_NS = 3600 * SECOND


class _Batch(Generic[K, V]):
    """What one thread has taken out of the line, until all of it is answered."""

    __slots__ = ("entries", "thread")

    def __init__(self) -> None:
        self.thread = threading.get_ident()
        self.entries: list[Entry[K, V]] = []


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
        self._send_many = send_many
        self._max_size = max_size
        self._max_delay_ns = to_ns(max_delay)
        self._weight = weight
        self._key = key
        self._merge = merge
        self._max_parallel = max_parallel
        self._max_waiting = max_waiting
        self._clock = clock
        # Whichever caller sends, no option and no other variable of its own goes with the others.
        self._context = copy_context()
        self._closed = False
        self._renew()
        forks.renew_in_child(self)

    def _renew(self) -> None:
        # Guards all below.
        self._lock = threading.Lock()
        self._line: Line[K, V] = Line()
        self._on_wire: list[_Batch[K, V]] = []
        self._era = object()
        self._calls = self._items = self._merged = self._splits = 0

    def after_fork(self) -> None:
        """In a child: nobody waits here, and what waits in the parent is sent there."""
        self._renew()

    def load(self, item: K, timeout: float | None = None, priority: int = 0) -> V:
        """Return the answer for an item, or raise its error.

        Higher priorities go into the next batch first, and within one who came first. Raises
        `BatchTimeout` after `timeout` seconds; the item is not sent then, unless it is on the wire
        or another wants it. (A thread that sends is busy until its bulk call is over.)
        """
        future = self._add(item, priority)
        try:
            return future.result(timeout)
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
            futures.extend(self.submit(item, priority) for item in items)
            for future in futures:
                error = future.exception(self._left(until))
                if error is not None and not return_exceptions:
                    raise error  # noqa: TRY301  (all that wait are given up)
                answers.append(future.result(0) if error is None else error)
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
        self._send_ready(self._clock.now_ns())
        return future

    def flush(self, timeout: float | None = None) -> None:
        """Send all that wait, at once; return when they, and what is on the wire, are answered.

        Errors are the futures' own. Raises `BatchTimeout` after so many seconds.
        """
        until, here = self._until(timeout), threading.get_ident()
        with self._lock:
            entries = self._line.push(self._clock.now_ns())
            for batch in self._on_wire:
                if batch.thread != here:
                    entries += batch.entries
            futures = [future for entry in entries for future in entry.futures]
        for future in futures:
            self.attend(future, self._left(until))

    def close(self, *, cancel: bool = False) -> None:
        """Take no more items, and flush; with `cancel=True` what waits is cancelled instead."""
        with self._lock:
            self._closed = True
            entries = self._line.push(self._clock.now_ns()) if cancel else []
            futures = [future for entry in entries for future in entry.futures]
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
        with self._lock:
            return {
                "calls": self._calls,
                "items": self._items,
                "merged": self._merged,
                "splits": self._splits,
                "waiting": len(self._line),
                "on_wire": sum(len(batch.entries) for batch in self._on_wire),
            }

    def _add(self, item: K, priority: int) -> BatchFuture[V]:
        if isinstance(priority, bool) or not isinstance(priority, int):
            raise ConfigurationError(
                f"priority {priority!r}: use a whole number; higher ones go first"
            )
        key, mergeable = self._key_of(item)
        weight = 1 if self._weight is None else self._weight(item)
        check_positive(f"weight of {shown(item)}", weight)
        due_ns = self._clock.now_ns() + self._max_delay_ns
        with self._lock:
            if self._closed:
                raise BatchError("the Batcher is closed: it takes no more items")
            future: BatchFuture[V] = BatchFuture(self, self._era)
            entry = self._line.find(key) if mergeable else None
            if entry is not None:
                self._merged += 1
                entry.priority = max(entry.priority, priority)
            elif len(self._line) >= self._max_waiting:
                raise BatchFull(f"{len(self._line)} items wait already: see max_waiting")
            else:
                entry = Entry(item, key, weight, priority, due_ns)
                self._line.add(entry, mergeable=mergeable)
            future.entry = entry
            entry.futures.append(future)
        return future

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

    def attend(self, future: BatchFuture[Any], timeout: float | None) -> None:
        """Return when the future is done; send what is due meanwhile."""
        until = self._until(timeout)
        if future.done():
            return
        if future.era is not self._era:
            raise BatchError("this item was asked for before the process was forked: ask anew")
        with self._lock:
            future.watchers += 1
        try:
            while not future.done():
                now = self._clock.now_ns()
                if not future.running() and self._send_ready(now):
                    continue
                if until is not None and now >= until:
                    raise BatchTimeout(f"no answer after {timeout:g} s")
                self._clock.wait(future.gate, _patience(future, now, until) / SECOND)
        finally:
            with self._lock:
                future.watchers -= 1
            if future.done():
                # Others may wait at the same gate.
                open_gate(future.gate)
            self._wake()

    def drop(self, future: BatchFuture[Any]) -> None:
        """Forget a future that was cancelled, and its item where nobody else wants it."""
        with self._lock:
            entry = future.entry
            if not isinstance(entry, Entry) or entry not in self._line:
                return
            if future not in entry.futures:
                return
            entry.futures.remove(future)
            if not entry.futures:
                self._line.remove(entry)
        future.set_running_or_notify_cancel()

    def _send_ready(self, now: int) -> bool:
        """Send one batch, if there is one that is due and may go; return whether there was."""
        batch: _Batch[K, V] = _Batch()
        try:
            with self._lock:
                if not self._may_send(now, batch.thread):
                    return False
                self._on_wire.append(batch)
                self._line.take(batch.entries, self._max_size)
            self._wake()
            self._send(batch.entries)
            return True
        finally:
            self._end(batch)

    def _may_send(self, now: int, thread: int | None) -> bool:
        if not self._line.is_ready(now, self._max_size):
            return False
        if self._max_parallel is None or len(self._on_wire) < self._max_parallel:
            return True
        # A `send_many` that itself asks for an item would wait for its own end.
        return any(batch.thread == thread for batch in self._on_wire)

    def _send(self, entries: list[Entry[K, V]]) -> None:
        """Make the bulk call, or several where it is too large, and hand out what came of it."""
        parts = [entries]
        while parts:
            part = parts.pop()
            with self._lock:
                self._calls += 1
                self._items += len(part)
            answers: Sequence[V | BaseException]
            try:
                answers = self._ask(part)
            except Exception as error:  # noqa: BLE001  (whatever it is, it is theirs who asked)
                if len(part) > 1 and is_too_large(error):
                    half = len(part) // 2
                    parts += [part[half:], part[:half]]
                    with self._lock:
                        self._splits += 1
                    continue
                answers = [error] * len(part)
            for entry, answer in zip(part, answers, strict=True):
                for future in entry.futures:
                    future.settle(answer)

    def _ask(self, part: list[Entry[K, V]]) -> list[V | BaseException]:
        items = [entry.item for entry in part]
        return answers_of(part, self._context.copy().run(self._send_many, items)) if part else []

    def _end(self, batch: _Batch[K, V]) -> None:
        """Let nobody wait for a batch that is over, however it ended."""
        with self._lock:
            if batch not in self._on_wire:
                return
            self._on_wire.remove(batch)
        futures = [future for entry in batch.entries for future in entry.futures]
        for future in futures:
            if not future.done():
                future.settle(
                    BatchInterrupted(
                        "the thread that made the bulk call was interrupted, and nobody knows "
                        "whether the server acted on it"
                    )
                )
            open_gate(future.gate)
        self._wake()
        with ExitStack() as all_of_them:
            # Also those after one that a signal interrupts.
            for future in reversed(futures):
                all_of_them.callback(future.tell)

    def _wake(self) -> None:
        """Wake a thread that waits for its turn to send, if there is something to send."""
        if self._max_parallel is None:
            # Nobody has to wait for that.
            return
        with self._lock:
            if self._may_send(self._clock.now_ns(), None):
                gate = self._line.who_could_send()
                if gate is not None:
                    open_gate(gate)

    def _until(self, timeout: float | None) -> int | None:
        if timeout is None:
            return None
        check_number("timeout", timeout, unit="seconds, or None")
        return self._clock.now_ns() + to_ns(timeout)

    def _left(self, until: int | None) -> float | None:
        return None if until is None else max(0, until - self._clock.now_ns()) / SECOND

    def __repr__(self) -> str:
        return f"Batcher(max_size={self._max_size}, max_delay={self._max_delay_ns / SECOND:g})"


def _patience(future: BatchFuture[Any], now: int, until: int | None) -> int:
    """Return for how many nanoseconds there is nothing to do but to wait."""
    entry = future.entry
    due_ns = entry.due_ns if isinstance(entry, Entry) else now
    # What is due and still here is on the wire, or is sent by whoever is woken when there is room.
    times = [due_ns - now if due_ns > now else _LONG_NS]
    times += [] if until is None else [until - now]
    return min(times)


def _check_count(what: str, number: object) -> None:
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        raise ConfigurationError(f"{what} {number!r}: use a whole number from 1 up")
