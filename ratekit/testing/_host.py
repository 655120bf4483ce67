"""Where the loopback API server runs: a thread of this process, or a process of its own.

A host listens once it is constructed and answers questions until it is stopped, when it hands over
the ledger. `ThreadHost` runs an event loop in a thread. `ProcessHost` has a `ThreadHost` in a child
process at the other end of a pipe, and the child ends when the pipe does.
"""

import asyncio
import multiprocessing
import os
import signal
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from email.utils import localtime
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from ratekit.testing._connection import Connection
from ratekit.testing._ledger import Ledger
from ratekit.testing._service import Service
from ratekit.testing._settings import Settings

if TYPE_CHECKING:
    from multiprocessing.connection import Connection as Pipe

__all__ = ["Host", "ProcessHost", "ThreadHost"]

T = TypeVar("T")

BACKLOG: Final = 1024
PATIENCE: Final = 10.0  # seconds for what takes milliseconds: beyond, something is broken
SPAWN_PATIENCE: Final = 60.0
ORPHAN_CHECK: Final = 1.0  # seconds between two looks at whose child the server's process is


class Host(Protocol):
    """A running server as `ApiServer` sees it."""

    port: int

    def ask(self, question: Callable[[Service], T]) -> T:
        """Ask on the server's own thread; what the question raises is raised here."""

    def stop(self) -> Ledger:
        """Close every connection, end the thread or process, and give what was remembered."""


def _wall() -> float:
    # Not ratekit's own clock: a test may have moved that, and the server is apart from it.
    return localtime().timestamp()


class ThreadHost:
    """A server in a thread of this process.

    Raises OSError when it cannot listen.
    """

    def __init__(self, settings: Settings) -> None:
        family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
        address = (settings.host, settings.port)
        self._listener = socket.create_server(address, family=family, backlog=BACKLOG)
        self.port: int = self._listener.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._stopping = asyncio.Event()
        self._service = Service(settings, self._loop.time, _wall)
        self._thread = threading.Thread(
            target=self._run, name=f"ratekit-api-server-{self.port}", daemon=True
        )
        self._thread.start()

    def ask(self, question: Callable[[Service], T]) -> T:
        """Ask on the server's own thread; what the question raises is raised here."""
        answer: Future[T] = Future()

        def ask_there() -> None:
            try:
                answer.set_result(question(self._service))
            except Exception as error:  # noqa: BLE001 - it belongs to whoever asked
                answer.set_exception(error)

        self._loop.call_soon_threadsafe(ask_there)
        return answer.result(PATIENCE)

    def stop(self) -> Ledger:
        """Close every connection, end the thread, and give what was remembered."""
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(PATIENCE)
        return self._service.ledger

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            self._loop.close()

    async def _serve(self) -> None:
        connections: set[Connection] = set()
        server = await self._loop.create_server(
            lambda: Connection(self._service, connections), sock=self._listener, backlog=BACKLOG
        )
        await self._stopping.wait()
        # As for a connection: a copy of the socket in a forked child would go on listening.
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        server.close()
        # A connection that is just being accepted is a task of the loop and in no set yet.
        while connections or len(asyncio.all_tasks()) > 1:
            for connection in list(connections):
                connection.abort()
            await asyncio.sleep(0)
        await server.wait_closed()


class ProcessHost:
    """A server in a child process, whose clock no thread of this process disturbs.

    Raises OSError when it cannot listen, RuntimeError when the process does not come up.
    """

    def __init__(self, settings: Settings) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, childs_end = context.Pipe()
        self._lock = threading.Lock()  # guards the pipe: one question and its answer at a time
        self._process = context.Process(
            target=_serve_in_child, args=(childs_end, settings), name="ratekit-api-server"
        )
        self._process.daemon = True
        try:
            self._process.start()
            childs_end.close()  # or the end of the child would not end the pipe
            self.port: int = self._receive(SPAWN_PATIENCE)
        except BaseException:
            childs_end.close()
            self._end_process()
            raise

    def ask(self, question: Callable[[Service], T]) -> T:
        """Ask on the server's own thread; what the question raises is raised here."""
        with self._lock:
            self._send(question)
            answer: T = self._receive(PATIENCE)
            return answer

    def stop(self) -> Ledger:
        """Close every connection, end the process, and give what was remembered."""
        try:
            with self._lock:
                self._send(None)
                ledger: Ledger = self._receive(PATIENCE)
                return ledger
        finally:
            self._end_process()

    def _send(self, question: Callable[[Service], object] | None) -> None:
        try:
            self._pipe.send(question)
        except OSError as error:
            raise self._gone() from error

    def _receive(self, seconds: float) -> Any:
        try:
            if not self._pipe.poll(seconds):
                raise RuntimeError(f"the server's process did not answer within {seconds:g} s")
            failed, answer = self._pipe.recv()
        except (EOFError, OSError) as error:
            raise self._gone() from error
        if failed:
            raise answer
        return answer

    def _gone(self) -> RuntimeError:
        self._process.join(PATIENCE)
        return RuntimeError(
            f"the server's process ended by itself, exit code {self._process.exitcode}. A script "
            "must start it under `if __name__ == '__main__':`, and a program read from standard "
            "input can use only a server with process=False"
        )

    def _end_process(self) -> None:
        self._pipe.close()  # the child ends when it sees this
        if self._process.pid is None:
            return
        self._process.join(PATIENCE)
        for end in (self._process.terminate, self._process.kill):
            if self._process.exitcode is None:
                end()
                self._process.join(PATIENCE)
        self._process.close()


def _serve_in_child(pipe: "Pipe[Any, Any]", settings: Settings) -> None:
    """Answer the questions that come through `pipe` until it ends, None comes or we are orphaned.

    An answer is a pair: whether it is an exception to raise, and the answer or the exception.
    """
    # Ctrl-C reaches the whole process group; the parent decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = os.getppid()
    try:
        host = ThreadHost(settings)
    except OSError as error:
        pipe.send((True, error))
        return
    with suppress(EOFError, OSError):  # the parent is gone; so are its tests, and so are we
        pipe.send((False, host.port))
        # A process that the parent forked may hold its end open, so the pipe is not the only sign.
        while os.getppid() == parent:
            if not pipe.poll(ORPHAN_CHECK):
                continue
            question = pipe.recv()
            if question is None:
                pipe.send((False, host.stop()))
                return
            try:
                answer = (False, host.ask(question))
            except Exception as error:  # noqa: BLE001 - it belongs to whoever asked
                answer = (True, error)
            pipe.send(answer)
