"""Servers for what `ratekit.testing.ApiServer` does not do: one function for each connection."""

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator

__all__ = ["OK", "Wire", "read_head", "serve"]

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"
PATIENCE = 10.0  # seconds for what takes milliseconds

Handler = Callable[[socket.socket], object]


class Wire:
    """A listening socket, whose connections are each given to `handle` in a thread."""

    def __init__(self, handle: Handler, context: ssl.SSLContext | None) -> None:
        self._handle = handle
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(PATIENCE)
        self._threads: list[threading.Thread] = []
        self._ended = False
        self.accepted = 0
        self.port: int = self._listener.getsockname()[1]
        scheme = "http" if context is None else "https"
        self.url = f"{scheme}://localhost:{self.port}"
        self._accepting = threading.Thread(target=self._accept)
        self._accepting.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            if self._ended:
                connection.close()
                return
            self.accepted += 1
            thread = threading.Thread(target=self._serve, args=(connection,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        connection.settimeout(PATIENCE)
        # A client that goes away, or refuses the certificate, is what some tests are about.
        with contextlib.suppress(OSError), contextlib.ExitStack() as closing:
            closing.enter_context(connection)
            if self._context is not None:
                connection = self._context.wrap_socket(connection, server_side=True)
                closing.enter_context(connection)
            self._handle(connection)

    def close(self) -> None:
        """Stop listening, and wait for the connections' ends."""
        self._ended = True
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        self._accepting.join()
        self._listener.close()
        for thread in self._threads:
            thread.join()


@contextlib.contextmanager
def serve(handle: Handler, context: ssl.SSLContext | None = None) -> Iterator[Wire]:
    """Run a `Wire` while the block does."""
    wire = Wire(handle, context)
    try:
        yield wire
    finally:
        wire.close()


def read_head(connection: socket.socket) -> bytes:
    """Read the head of a request."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        piece = connection.recv(1)
        if not piece:
            break
        head += piece
    return head
