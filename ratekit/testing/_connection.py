"""One client's connection to the loopback API server: requests in, answers and faults out."""

import asyncio
import socket
import struct
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Final, cast

from ratekit.testing._service import Service
from ratekit.testing._wire import (
    BODILESS,
    MAX_HEAD,
    Answer,
    Malformed,
    Request,
    RequestParser,
    StreamAnswer,
    closes,
    encode,
)

if sys.platform == "linux":
    import fcntl
    import termios

if TYPE_CHECKING:
    from ratekit.testing._ledger import Ledger

__all__ = ["Connection"]

GARBAGE: Final = b"\x00\xff\x15\x03 this is not HTTP \x80\x81\r\n\r\n"
LINGER: Final = 1.0  # seconds a client may take to read why its request was malformed
FLUSH: Final = 0.01  # seconds for the client's side to take what comes before a reset


class Connection(asyncio.Protocol):
    """Requests are taken one after another, also when they were pipelined."""

    def __init__(self, service: Service, open_connections: set["Connection"]) -> None:
        self._service = service
        self._open = open_connections
        self.counted_in: Ledger | None = None
        self._loop = asyncio.get_running_loop()
        self._parser = RequestParser()
        self._timer: asyncio.TimerHandle | None = None
        self._done: Callable[[bool], None] | None = None  # of the request that waits for its answer
        self._ending = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._socket = cast("socket.socket", transport.get_extra_info("socket"))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._open.add(self)

    def data_received(self, data: bytes) -> None:
        if self._ending:
            return
        self._parser.feed(data)
        if self._done is None:
            self._take_requests()
        elif self._parser.buffered > MAX_HEAD:
            self._transport.pause_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._ending = True
        if self._timer is not None:
            self._timer.cancel()
        self._finish(sent=False)
        self._open.discard(self)

    def answer(
        self, request: Request, answer: Answer, after: float, done: Callable[[bool], None]
    ) -> None:
        """Send `answer` after so many seconds, then call `done` once with whether it went out."""
        self._done = done
        if answer.fault == "hang":
            return
        if after > 0:
            self._later(after, self._send, request, answer)
        else:
            self._send(request, answer)

    def abort(self) -> None:
        """Close at once, whatever is going on."""
        # A forked child may hold a copy of the socket; closing ours alone would then tell the
        # client nothing.
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._transport.abort()

    def _later(self, seconds: float, act: Callable[..., None], *args: object) -> None:
        self._timer = self._loop.call_later(seconds, self._on_time, act, *args)

    def _on_time(self, act: Callable[..., None], *args: object) -> None:
        act(*args)
        self._take_requests()

    def _take_requests(self) -> None:
        while self._done is None and not self._ending:
            try:
                request = self._parser.next_request()
            except Malformed as error:
                self._refuse(error)
                return
            if request is None:
                if self._parser.wants_continue:
                    self._parser.wants_continue = False
                    self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                return
            self._service.handle(request, self)

    def _refuse(self, error: Malformed) -> None:
        self._service.ledger.malformed += 1
        answer = Answer(error.status, [("Content-Type", "text/plain")], f"{error}\n".encode())
        self._transport.write(encode(answer, close=True) + answer.body)
        # Closing while the client still sends would reset the connection and lose the answer.
        self._end_sending()
        self._later(LINGER, self.abort)

    def _send(self, request: Request, answer: Answer) -> None:
        if answer.fault == "reset":
            self._reset()
        elif answer.fault == "close":
            self._finish_and_close()
        elif answer.fault == "garbage":
            self._transport.write(answer.body or GARBAGE)
            self._finish_and_close()
        else:
            self._send_http(request, answer)

    def _send_http(self, request: Request, answer: Answer) -> None:
        keep = request.keep_alive and not closes(answer)
        head = encode(
            answer, http11=request.http11, close=not request.keep_alive and not closes(answer)
        )
        body = answer.body if request.method != "HEAD" and answer.status not in BODILESS else b""
        if answer.fault is not None:
            self._transport.write(head + body[: len(answer.body) // 2])
            if answer.fault == "truncate":
                self._finish_and_close()
            else:
                self._later(FLUSH, self._reset_when_flushed)
            return
        self._transport.write(head + body)
        if isinstance(answer, StreamAnswer) and request.method != "HEAD":
            self._stream(answer, 0, request.http11, keep)
        elif keep:
            self._finish(sent=True)
        else:
            self._finish_and_close()

    def _stream(self, answer: StreamAnswer, sent: int, chunked: bool, keep: bool) -> None:  # noqa: FBT001
        while sent < answer.chunks:
            chunk = b"chunk %d\n" % sent
            self._transport.write(b"%x\r\n%b\r\n" % (len(chunk), chunk) if chunked else chunk)
            sent += 1
            if answer.interval and sent < answer.chunks:
                self._later(answer.interval, self._stream, answer, sent, chunked, keep)
                return
        if chunked:
            self._transport.write(b"0\r\n\r\n")
        if keep:
            self._finish(sent=True)
        else:
            self._finish_and_close()

    def _finish(self, *, sent: bool) -> None:
        done, self._done = self._done, None
        if done is not None:
            done(sent)
        if not self._ending:
            self._transport.resume_reading()

    def _finish_and_close(self) -> None:
        self._finish(sent=True)
        self._end_sending()
        self._transport.close()

    def _end_sending(self) -> None:
        self._ending = True
        with suppress(OSError):  # the client may be gone already
            self._transport.write_eof()

    def _reset_when_flushed(self) -> None:
        if self._unread():
            self._later(FLUSH, self._reset_when_flushed)
        else:
            self._reset()

    def _unread(self) -> int:
        """Count the bytes the client's side has not taken, as far as the system tells."""
        waiting = self._transport.get_write_buffer_size()
        if sys.platform == "linux":  # elsewhere a large body may lose its end to the reset
            queued = fcntl.ioctl(self._socket.fileno(), termios.TIOCOUTQ, bytes(4))
            waiting += int.from_bytes(queued, sys.byteorder)
        return waiting

    def _reset(self) -> None:
        # To linger for no time means that closing sends RST in place of FIN.
        linger = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)
        with suppress(OSError):
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self._ending = True
        self._transport.abort()
