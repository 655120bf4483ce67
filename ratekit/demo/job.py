"""The job: distinct GETs, shared out among threads that all use one client."""

import threading
from collections.abc import Callable

from ratekit.clock import SECOND, SYSTEM
from ratekit.demo.clients import Get

__all__ = ["Job"]

_TICK = 0.1  # seconds between two looks at how far the job has come


class Job:
    """`total` GETs below `url`; one has failed when its last answer is not 200, or it raised."""

    def __init__(self, url: str, total: int, get: Get) -> None:
        self._url = url
        self._total = total
        self._get = get
        # Guards all that follows.
        self._lock = threading.Lock()
        self._given_out = 0
        self._ended_ns = 0
        self.done = 0
        self.failed = 0
        self._over = threading.Event()

    def run(self, threads: int, watch: Callable[[float], None]) -> float:
        """Do the job and return the seconds it took; meanwhile `watch(seconds so far)` is called.

        What interrupts it, such as Ctrl-C, ends it at once: the threads finish the requests they
        have begun on their own, and begin no other.
        """
        began_ns = SYSTEM.now_ns()
        # Daemons: a thread in the middle of a long back-off must not keep the program from ending.
        workers = [threading.Thread(target=self._work, daemon=True) for _ in range(threads)]
        try:
            for worker in workers:
                worker.start()
            while not self._over.wait(_TICK):
                watch((SYSTEM.now_ns() - began_ns) / SECOND)
        except BaseException:
            with self._lock:
                self._given_out = self._total
            raise
        for worker in workers:
            worker.join()
        return (self._ended_ns - began_ns) / SECOND

    def _work(self) -> None:
        while (number := self._take()) is not None:
            try:
                succeeded = self._get(f"{self._url}/items/{number}") == 200
            except Exception:  # noqa: BLE001 - whatever a client raises, that job has failed
                succeeded = False
            self._finished(succeeded)

    def _take(self) -> int | None:
        with self._lock:
            if self._given_out == self._total:
                return None
            self._given_out += 1
            return self._given_out

    def _finished(self, succeeded: bool) -> None:  # noqa: FBT001
        with self._lock:
            self.done += 1
            self.failed += not succeeded
            if self.done == self._total:
                self._ended_ns = SYSTEM.now_ns()
                self._over.set()
