"""`Jobs`: threads that do many calls, each with a result of its own."""

import heapq
import threading
from collections.abc import Callable, Iterable, Iterator, Sized
from concurrent.futures import Future
from itertools import count
from pathlib import Path
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any, NamedTuple, Self

from ratekit._options import Options, in_force, options
from ratekit.checks import check_positive
from ratekit.clock import Stop, carrying
from ratekit.errors import Cancelled, ConfigurationError
from ratekit.jobs.journal import Journal
from ratekit.jobs.progress import Progress, Silence, progress_for
from ratekit.jobs.reading import Reading
from ratekit.jobs.work import Result, key_of, sender_of

__all__ = ["Jobs"]

# Background work: whoever asks without a word goes first.
_PRIORITY = -10
_FOREVER = 366 * 86_400.0
# Results that one commit of the journal takes at most.
_AT_ONCE = 500

Parse = Callable[[Any], Any]


class _Task(NamedTuple):
    number: int
    request: Any
    deliver: Callable[["_Task", Result], None]
    stop: Stop
    priority: int
    key: str = ""


class Jobs:
    """Does many calls over a client, and tells what came of each.

    `client`: a requests.Session or an httpx.Client, with a ratekit adapter or transport, or a
    function of one request. `workers`: threads, started with the first job. `parse`: makes the
    value of a result of an answer. `journal`: a file, or a `Journal`, in which what is done is
    kept: another run does not do it again. `progress`: True for a bar on a terminal, a line now
    and then elsewhere. `priority`: of these calls at the limiter, below 0 so that others go first.
    `ahead`: how many jobs are begun before their results are read, at most.

    A server's own pause is waited for, however long. Raises `ConfigurationError` for what cannot
    be right.
    """

    def __init__(
        self,
        client: Any,
        workers: int = 16,
        *,
        parse: Parse | None = None,
        journal: Journal | str | Path | None = None,
        progress: bool | Progress = False,
        priority: int = _PRIORITY,
        ahead: int | None = None,
    ) -> None:
        check_positive("workers", workers)
        check_positive("ahead", ahead if ahead is not None else 1)
        self._client = client
        self._send = sender_of(client)
        self._parse = parse
        self._workers = int(workers)
        self._ahead = int(ahead) if ahead is not None else 4 * self._workers
        # Those of the block that they are made in hold for these threads too.
        self._options = in_force().over(options(max_retry_after=_FOREVER, priority=priority))
        self._owns_journal = journal is not None and not isinstance(journal, Journal)
        self._journal = Journal(journal) if isinstance(journal, (str, Path)) else journal
        self._progress = _progress_of(progress, client)
        self._tasks: SimpleQueue[_Task | None] = SimpleQueue()
        self._numbers = count()
        # Guards what is below.
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._threads: list[threading.Thread] = []
        self._urgent: list[tuple[int, int, _Task]] = []
        self._open = 0
        # What ends the jobs that were submitted, and those of each `map`.
        self._stop = Stop()
        self._stops: set[Stop] = set()
        self._is_closed = False
        # Results on their way into the journal; whoever finds nobody at it writes them all.
        self._unkept: SimpleQueue[tuple[_Task, Result]] = SimpleQueue()
        self._keeping = threading.Lock()

    # What users do with it.

    def map(
        self,
        requests: Iterable[Any],
        *,
        ordered: bool = False,
        key: Callable[[Any], str] | None = None,
        total: int | None = None,
    ) -> Iterator[Result]:
        """Do a job for each request, and yield their results as they come, or in order.

        A request is a URL, `(method, url)`, a mapping of the arguments of `client.request`, or a
        native request. They are read as results are: at most `ahead` are under way, so a generator
        of a million takes no memory. `key(request)`: what makes it the same in another run, by
        default method, URL and body. `total`: how many there are, for the progress.

        One failure never stops the rest. What the iterable raises is raised once the results of
        what was begun have been read. To stop reading cancels what is under way.
        """
        if total is None and isinstance(requests, Sized):
            total = len(requests)
        return self._map(iter(requests), ordered=ordered, key=key or key_of, total=total)

    def _map(
        self,
        requests: Iterator[Any],
        *,
        ordered: bool,
        key: Callable[[Any], str],
        total: int | None,
    ) -> Iterator[Result]:
        def begin(number: int, request: Any) -> Result | None:
            name, known = self._known(request, key)
            if known is None:
                self._put(_Task(number, request, deliver, stop, 0, name))
            return known

        def deliver(task: _Task, result: Result) -> None:
            reading.deliver(task.number, result)

        stop, bar = Stop(), self._progress
        reading = Reading(requests, begin, ahead=self._ahead, ordered=ordered, stop=stop)
        bar.begin(total)
        self._stops.add(stop)
        try:
            while reading.fill():
                for result in reading.read():
                    if not isinstance(result.error, Cancelled):
                        bar.add(result)
                        yield result
            reading.raise_error()
        finally:
            # After Ctrl-C, or where nobody reads any further, what waits for its turn is given up.
            self._stops.discard(stop)
            stop.set()
            bar.end()

    def _known(self, request: Any, key: Callable[[Any], str]) -> tuple[str, Result | None]:
        """Return the name of a job in the journal, and what came of it in an earlier run."""
        if self._journal is None:
            return "", None
        name = key(request)
        return name, self._journal.find(name, request)

    def submit(self, request: Any, *, priority: int = 0) -> "Future[Result]":
        """Do one job; of those that wait for a worker the higher `priority` goes first."""
        future: Future[Result] = Future()

        def deliver(task: _Task, result: Result) -> None:
            if isinstance(result.error, Cancelled):
                future.cancel()
                future.set_running_or_notify_cancel()
            elif future.set_running_or_notify_cancel():
                future.set_result(result)

        name, known = self._known(request, key_of)
        if known is not None:
            future.set_result(known)
            return future
        number = next(self._numbers)
        with self._lock:
            task = _Task(number, request, deliver, self._stop, priority, name)
            heapq.heappush(self._urgent, (-priority, number, task))
        # The place in the queue is anybody's: whoever comes to it does what is most urgent.
        self._put(task, counts_only=True)
        return future

    def drain(self) -> None:
        """Wait until every job is done."""
        with self._idle:
            self._idle.wait_for(lambda: not self._open)

    def cancel(self) -> None:
        """Give up all jobs that have not been sent: those that wait for their turn too.

        What is on the wire is still answered. A `map` ends, a future is cancelled; work that is
        given afterwards is done.
        """
        with self._lock:
            stops = {self._stop, *self._stops}
            self._stop = Stop()
        for stop in stops:
            stop.set()

    def close(self) -> None:
        """End the threads, once every job is done or given up."""
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
            threads = list(self._threads)
        for _ in threads:
            self._tasks.put(None)
        for thread in threads:
            thread.join()
        if self._owns_journal and self._journal is not None:
            self._journal.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            self.cancel()
        self.close()

    # The workers.

    def _put(self, task: _Task, *, counts_only: bool = False) -> None:
        with self._lock:
            if self._is_closed:
                raise ConfigurationError("these Jobs are closed: make new ones for more work")
            self._open += 1
            starts = len(self._threads) < min(self._workers, self._open)
            if starts:
                thread = threading.Thread(
                    target=self._work, name=f"ratekit-jobs-{len(self._threads)}", daemon=True
                )
                self._threads.append(thread)
        self._tasks.put(task._replace(number=-1) if counts_only else task)
        if starts:
            thread.start()

    def _work(self) -> None:
        with self._options:
            while (task := self._tasks.get()) is not None:
                if self._urgent:
                    task = self._most_urgent(task)
                if task.number < 0:
                    # Its place was taken by a job that was more urgent, which is done by now.
                    continue
                with carrying(task.stop):
                    result = self._do(task)
                self._end(task, result)

    def _most_urgent(self, task: _Task) -> _Task:
        """Return the most urgent of those that were submitted; `task` keeps its place."""
        with self._lock:
            if not self._urgent:
                return task
            urgent = heapq.heappop(self._urgent)[2]
        if task.number >= 0:
            self._tasks.put(task)
        return urgent

    def _do(self, task: _Task) -> Result:
        request, value = task.request, None
        try:
            task.stop.check()
            if task.priority:
                with Options(priority=task.priority):
                    value = self._send(request)
            else:
                value = self._send(request)
            status = getattr(value, "status_code", None)
            attempts, waited = _details(value)
            ok = not isinstance(status, int) or status < 400
            if ok and self._parse is not None:
                value = self._parse(value)
        except BaseException as error:  # noqa: BLE001  (one failure never stops the rest)
            # Also a SystemExit: it would end this thread, and leave its reader waiting.
            attempts, waited = _details(error) if value is None else _details(value)
            return Result(request, False, value, error, attempts, waited)  # noqa: FBT003
        return Result(request, ok, value, None, attempts, waited)

    def _end(self, task: _Task, result: Result) -> None:
        if self._journal is None or isinstance(result.error, Cancelled):
            self._hand_out(task, result)
            return
        self._unkept.put((task, result))
        self._keep_all(self._journal)

    def _keep_all(self, journal: Journal) -> None:
        """Write what is on its way, unless somebody is at it, who will see this too."""
        while not self._unkept.empty() and self._keeping.acquire(blocking=False):
            try:
                batch: list[tuple[_Task, Result]] = []
                while len(batch) < _AT_ONCE:
                    try:
                        batch.append(self._unkept.get_nowait())
                    except Empty:
                        break
                for task, result in _kept(journal, batch):
                    self._hand_out(task, result)
            finally:
                self._keeping.release()

    def _hand_out(self, task: _Task, result: Result) -> None:
        task.deliver(task, result)
        with self._idle:
            self._open -= 1
            if not self._open:
                self._idle.notify_all()


def _progress_of(given: bool | Progress, client: Any) -> Progress | Silence:  # noqa: FBT001
    if given is True:
        return progress_for(client)
    return Silence() if given is False else given


def _kept(journal: Journal, batch: list[tuple[_Task, Result]]) -> list[tuple[_Task, Result]]:
    """Keep results; return them, or what kept them from being kept."""
    try:
        journal.keep([(task.key, result) for task, result in batch])
    except Exception as error:  # noqa: BLE001
        if len(batch) > 1:
            # One of them: the others are kept.
            return [one for each in batch for one in _kept(journal, [each])]
        task, result = batch[0]
        failed = Result(task.request, False, result.value, error, result.attempts, result.waited)  # noqa: FBT003
        return [(task, failed)]
    return batch


def _details(value: Any) -> tuple[int, float]:
    """Return the attempts and the seconds waited of an answer or an error."""
    details = getattr(value, "ratekit", None)
    if details is None:
        extensions = getattr(value, "extensions", None)
        details = extensions.get("ratekit") if isinstance(extensions, dict) else None
    if details is None:
        return 0, 0.0
    return details.attempts, details.waited
