"""A network that misbehaves: a TCP proxy between a client and a real server, on loopback.

One thread carries everything, so whoever changes how it behaves knows from when on: `use` and
`reset` return once that is so. What was read is delivered in order, each piece when it is due.

    with Proxy(("127.0.0.1", 11211)) as proxy:
        ...                     # a client of proxy.address
        proxy.use(delay=0.1)    # each direction, from now on
        proxy.use()             # as a network should
        proxy.reset()           # every connection there is, at once
"""

import contextlib
import heapq
import itertools
import queue
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

__all__ = ["Mode", "Proxy"]

Address = tuple[str, int] | str

_PATIENCE = 5.0  # seconds for what takes microseconds
_LINGER_NONE = struct.pack("ii", 1, 0)


@dataclass(frozen=True, kw_only=True)
class Mode:
    """How the network behaves; as it should, where nothing is said.

    `stall`: nothing is carried, and all of it later. `delay`: seconds, in each direction. `drip`:
    a reply comes one byte at a time, so many seconds apart. `cut`: so many bytes of a connection's
    replies arrive, then it ends. `swallow`: no reply arrives.
    """

    stall: bool = False
    delay: float = 0.0
    drip: float | None = None
    cut: int | None = None
    swallow: bool = False


@dataclass(eq=False)
class _Link:
    """A client's connection, and the one to the server that was made for it."""

    client: socket.socket
    server: socket.socket
    mode: Mode | None = None
    replied: int = 0  # bytes that arrived in this mode
    due: dict[socket.socket, float] = field(default_factory=dict)
    ended: bool = False

    def end(self, *, reset: bool = False) -> None:
        """Close both sides; the client's with a reset, if told so."""
        self.ended = True
        if reset:
            # The server may be gone already.
            with contextlib.suppress(OSError):
                self.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NONE)
        self.client.close()
        self.server.close()


class Proxy:
    """Listens on a free port between `__enter__` and `__exit__`; `server` is whom it speaks to.

    It takes a connection also while the server is down, and ends it at once.
    """

    def __init__(self, server: Address) -> None:
        self.server = server
        self.accepted = 0
        self._mode = Mode()
        self._links: list[_Link] = []
        self._due: list[tuple[float, int, _Link, socket.socket, bytes]] = []
        self._numbers = itertools.count()
        self._commands: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._ended = False
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self._bell, self._heard = socket.socketpair()
        self.address: tuple[str, int] = self._listener.getsockname()
        self._thread = threading.Thread(target=self._run, name="proxy")

    @property
    def url(self) -> str:
        """What a store is told to reach the server through this proxy."""
        return "memcached://{}:{}".format(*self.address)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._do(lambda: setattr(self, "_ended", True))
        self._thread.join()

    # What a test says.

    def use(
        self,
        *,
        stall: bool = False,
        delay: float = 0.0,
        drip: float | None = None,
        cut: int | None = None,
        swallow: bool = False,
    ) -> None:
        """Behave like this from now on (see `Mode`)."""
        mode = Mode(stall=stall, delay=delay, drip=drip, cut=cut, swallow=swallow)
        self._do(lambda: setattr(self, "_mode", mode))

    def reset(self) -> int:
        """Reset every connection there is; return how many."""
        number = 0

        def reset() -> None:
            nonlocal number
            number = len(self._links)
            for link in self._links:
                link.end(reset=True)

        self._do(reset)
        return number

    def _do(self, command: Callable[[], None]) -> None:
        done = threading.Event()

        def do() -> None:
            command()
            done.set()

        self._commands.put(do)
        self._bell.send(b"!")
        if not done.wait(_PATIENCE):
            raise TimeoutError("the proxy does not listen")

    # The one thread that carries.

    def _run(self) -> None:
        try:
            while not self._ended:
                for ready in self._wait():
                    self._attend(ready)
                self._deliver()
                self._links = [link for link in self._links if not link.ended]
        finally:
            for link in self._links:
                link.end()
            for one in (self._listener, self._bell, self._heard):
                one.close()

    def _wait(self) -> list[socket.socket]:
        watched = [self._heard, self._listener]
        timeout = None
        if not self._mode.stall:
            watched += itertools.chain.from_iterable(
                (one.client, one.server) for one in self._links
            )
            if self._due:
                timeout = max(0.0, self._due[0][0] - time.monotonic())
        return select.select(watched, [], [], timeout)[0]

    def _attend(self, ready: socket.socket) -> None:
        if ready is self._heard:
            self._heard.recv(1)
            self._commands.get()()
        elif ready is self._listener:
            self._accept()
        elif not self._mode.stall:
            # A command that came in the same moment may have ended the link, or stalled all.
            for link in self._links:
                if ready in {link.client, link.server} and not link.ended:
                    self._read(link, ready)

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        self.accepted += 1
        server = socket.socket(socket.AF_UNIX if isinstance(self.server, str) else socket.AF_INET)
        for one in (client, server):
            one.settimeout(_PATIENCE)
        link = _Link(client, server)
        try:
            server.connect(self.server)
        except OSError:
            link.end()
            return
        for one in (client, server):
            if one.family == socket.AF_INET:
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._links.append(link)

    def _read(self, link: _Link, source: socket.socket) -> None:
        try:
            data = source.recv(65536)
        except OSError:
            data = b""
        if source is link.client or not data:
            other = link.server if source is link.client else link.client
            self._send_later(link, other, data)
        else:
            for number, piece in enumerate(self._replies(link, data)):
                self._send_later(link, link.client, piece, self._mode.drip if number else None)

    def _replies(self, link: _Link, data: bytes) -> Iterator[bytes]:
        """Yield what becomes of a reply: pieces of it, b"" for an end."""
        mode = self._mode
        if mode is not link.mode:
            link.mode, link.replied = mode, 0
        if mode.swallow:
            return
        ends = mode.cut is not None and link.replied + len(data) >= mode.cut
        if ends and mode.cut is not None:
            data = data[: mode.cut - link.replied]
        link.replied += len(data)
        if mode.drip is None:
            if data:
                yield data
        else:
            yield from (data[at : at + 1] for at in range(len(data)))
        if ends:
            yield b""

    def _send_later(
        self, link: _Link, target: socket.socket, data: bytes, gap: float | None = None
    ) -> None:
        now = time.monotonic()
        last = link.due.get(target, now)
        due = max(now + self._mode.delay, last + (gap or 0.0))
        link.due[target] = due
        heapq.heappush(self._due, (due, next(self._numbers), link, target, data))

    def _deliver(self) -> None:
        while self._due and self._due[0][0] <= time.monotonic() and not self._mode.stall:
            _, _, link, target, data = heapq.heappop(self._due)
            if link.ended:
                continue
            if not data:
                link.end()
                continue
            try:
                target.sendall(data)
            except OSError:
                link.end()
