"""Who sends a batch: whoever fills it, or else the first who waits when its time has come.

No thread does this for a living, so what is to be sent is looked at wherever somebody comes by: an
item is added, an answer is waited for, a bulk call is over.
"""

import threading
from collections.abc import Callable, Hashable, Sequence
from contextlib import ExitStack
from contextvars import copy_context
from typing import Any, Generic, TypeVar

from ratekit.batch.answers import answers_of, is_too_large
from ratekit.batch.errors import BatchError, BatchFull, BatchInterrupted, BatchTimeout, shown
from ratekit.batch.future import BatchFuture
from ratekit.batch.line import Entry, Line
from ratekit.clock import SECOND, Clock, open_gate, to_ns

__all__ = ["Dispatch"]

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


class Dispatch(Generic[K, V]):
    """The items that wait, those on the wire, and who brings the ones to the other.

    The lock is held for arithmetic only, never while a bulk call or a callback runs.
    """

    def __init__(
        self,
        send_many: Callable[[list[K]], object],
        max_size: float,
        max_parallel: int | None,
        max_waiting: int,
        clock: Clock,
    ) -> None:
        self._send_many = send_many
        self._max_size = max_size
        self._max_parallel = max_parallel
        self._max_waiting = max_waiting
        self._clock = clock
        # Whichever caller sends, no option and no other variable of its own goes with the others.
        self._context = copy_context()
        self._closed = False
        self.renew()

    def renew(self) -> None:
        """Be as new: in a forked child nobody waits, and what waits in the parent is sent there."""
        # Guards all below, and the fields of entries and futures.
        self._lock = threading.Lock()
        self._line: Line[K, V] = Line()
        self._on_wire: list[_Batch[K, V]] = []
        self._era = object()
        self._calls = self._items = self._merged = self._splits = 0

    def info(self) -> dict[str, int]:
        """Return the counters, and what waits now."""
        with self._lock:
            return {
                "calls": self._calls,
                "items": self._items,
                "merged": self._merged,
                "splits": self._splits,
                "waiting": len(self._line),
                "on_wire": sum(len(batch.entries) for batch in self._on_wire),
            }

    def add(
        self, item: K, key: Hashable, weight: float, priority: int, delay_ns: int, *, merge: bool
    ) -> BatchFuture[V]:
        """Let an item wait; where it may be merged, an equal one that waits stands for it too."""
        due_ns = self._clock.now_ns() + delay_ns
        with self._lock:
            if self._closed:
                raise BatchError("the Batcher is closed: it takes no more items")
            future: BatchFuture[V] = BatchFuture(self, self._era)
            entry = self._line.find(key) if merge else None
            if entry is not None:
                self._merged += 1
                entry.priority = max(entry.priority, priority)
            elif len(self._line) >= self._max_waiting:
                raise BatchFull(f"{len(self._line)} items wait already: see max_waiting")
            else:
                entry = Entry(item, key, weight, priority, due_ns)
            future.entry = entry
            entry.futures.append(future)
            if entry not in self._line:
                self._line.add(entry, mergeable=merge)
        return future

    def push(self, *, close: bool = False) -> list[BatchFuture[V]]:
        """Make all that wait due now, and return their futures; with `close` take no more."""
        with self._lock:
            self._closed = self._closed or close
            entries = self._line.push(self._clock.now_ns())
            return [future for entry in entries for future in entry.futures]

    def elsewhere(self) -> list[BatchFuture[V]]:
        """Return the futures that other threads have on the wire."""
        here = threading.get_ident()
        with self._lock:
            batches = [batch for batch in self._on_wire if batch.thread != here]
            return [one for batch in batches for entry in batch.entries for one in entry.futures]

    def attend(self, future: BatchFuture[Any], timeout: float | None) -> None:
        """Return when the future is done; send what is due meanwhile."""
        until = None if timeout is None else self._clock.now_ns() + to_ns(timeout)
        if future.done():
            return
        if future.era is not self._era:
            raise BatchError(
                f"{_name(future)}: asked for before this process was forked; ask for it anew"
            )
        with self._lock:
            future.watchers += 1
        try:
            while not future.done():
                now = self._clock.now_ns()
                if not future.running() and self.send_ready(now):
                    continue
                if until is not None and now >= until:
                    raise BatchTimeout(f"{_name(future)}: no answer after {timeout:.2g} s")
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

    def send_ready(self, now: int | None) -> bool:
        """Send one batch, if there is one that is full or due and may go; return whether there was.

        `now` is None where only a full one should go.
        """
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
            try:
                self._end(batch)
            except BaseException:
                # A signal's handler raised in it: others would wait for ever for what is left.
                self._end(batch)
                raise

    def _may_send(self, now: int | None, thread: int | None) -> bool:
        if not self._line.is_ready(now, self._max_size):
            return False
        if self._max_parallel is None or len(self._on_wire) < self._max_parallel:
            return True
        # A `send_many` that itself asks for an item would wait for its own end.
        return any(batch.thread == thread for batch in self._on_wire)

    def _send(self, entries: list[Entry[K, V]]) -> None:
        """Make the bulk call, or several where it is too large, and hand out what came of it."""
        parts = [entries] if entries else []
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
        return answers_of(part, self._context.copy().run(self._send_many, items))

    def _end(self, batch: _Batch[K, V]) -> None:
        """Let nobody wait for a batch that is over, however it ended.

        To do it twice does no harm.
        """
        with self._lock:
            if batch in self._on_wire:
                self._on_wire.remove(batch)
        if not batch.entries:
            return
        futures = [future for entry in batch.entries for future in entry.futures]
        if not all(future.done() for future in futures):
            self._abandon(batch.entries)
        for future in futures:
            open_gate(future.gate)
        self._wake()
        with ExitStack() as all_of_them:
            # Also those after one that a signal interrupts.
            for future in reversed(futures):
                all_of_them.callback(future.tell)
        for entry in batch.entries:
            # A future knows its entry: no circle is left behind.
            entry.futures = []

    def _abandon(self, entries: list[Entry[K, V]]) -> None:
        """Tell those who have no answer that there will be none."""
        with self._lock:
            # It may be that not all had left the line.
            self._line.remove(*entries)
        for entry in entries:
            for future in entry.futures:
                future.settle(
                    BatchInterrupted(
                        f"{shown(entry.item)}: the thread that made the bulk call was interrupted; "
                        "nobody knows whether the server acted on it"
                    )
                )

    def _wake(self) -> None:
        """Wake a thread that waits for its turn to send, if there is something to send."""
        if self._max_parallel is None:
            # Nobody has to wait for that.
            return
        with self._lock:
            if self._may_send(self._clock.now_ns(), None):
                future = self._line.who_could_send()
                if future is not None:
                    open_gate(future.gate)


def _patience(future: BatchFuture[Any], now: int, until: int | None) -> int:
    """Return for how many nanoseconds there is nothing to do but to wait."""
    entry = future.entry
    due_ns = entry.due_ns if isinstance(entry, Entry) else now
    # What is due and still here is on the wire, or is sent by whoever is woken when there is room.
    times = [due_ns - now if due_ns > now else _LONG_NS]
    times += [] if until is None else [until - now]
    return min(times)


def _name(future: BatchFuture[Any]) -> str:
    return shown(future.entry.item) if isinstance(future.entry, Entry) else "an item"
