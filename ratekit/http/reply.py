"""An answer as a value: what a cache keeps, and what several callers can be given."""

from collections.abc import Callable
from typing import Any

__all__ = ["Recording", "Reply"]

Pairs = list[tuple[str, str]]


class Reply:
    """An answer with its whole body, as it came over the wire: encoded as `Content-Encoding` says.

    `headers`: every field, in order. `version`: 10, 11, 20. Never changed once it is made.
    """

    __slots__ = ("body", "headers", "prepared", "reason", "status", "version")

    def __init__(
        self, status: int, headers: Pairs, body: bytes, *, reason: str = "", version: int = 11
    ) -> None:
        self.status = status
        self.headers = headers
        self.body = body
        self.reason = reason
        self.version = version
        # What an edge made of it, under the edge's name, so that the next hit costs less.
        self.prepared: dict[str, Any] = {}

    def with_body(self, body: bytes) -> "Reply":
        """Return this answer with a body."""
        return Reply(self.status, self.headers, body, reason=self.reason, version=self.version)

    def size(self) -> int:
        """Return about how many bytes of memory it takes."""
        return len(self.body) + sum(len(name) + len(value) + 200 for name, value in self.headers)

    def __repr__(self) -> str:
        return f"Reply({self.status}, {len(self.body)} bytes)"


class Recording:
    """The body of an answer, written down while its user reads it.

    It is whole or nothing: a body that breaks off, is longer than `most` bytes or not as long as
    `expected` leaves nothing behind.
    """

    __slots__ = ("_chunks", "_most", "_over", "_then", "body", "expected", "is_over", "size")

    def __init__(self, most: int, expected: int | None) -> None:
        self._most = most
        self._chunks: list[bytes] = []
        self._then: list[Callable[[bytes | None], object]] = []
        # To be called when it is over on the wire; None once it is.
        self._over: list[Callable[[], object]] | None = []
        self.expected = expected
        self.size = 0
        self.body: bytes | None = None
        self.is_over = False
        if expected == 0:
            self.finish()

    def feed(self, chunk: bytes) -> None:
        """Write down what was read."""
        self.size += len(chunk)
        if not self.is_over:
            if self.size > self._most:
                # Too long to be written down; its user goes on to read it.
                self._end()
            else:
                self._chunks.append(bytes(chunk))
        if self.size == self.expected:
            self.finish()

    def finish(self) -> None:
        """Say that there is no more."""
        if not self.is_over:
            if self.expected is None or self.size == self.expected:
                self.body = b"".join(self._chunks)
            self._end()
        self._close()

    def give_up(self) -> None:
        """Say that the rest will never be read."""
        if not self.is_over:
            self._end()
        self._close()

    def _close(self) -> None:
        over, self._over = self._over, None
        for what in over or ():
            what()

    def when_over(self, what: Callable[[], object]) -> None:
        """Call `what` once nothing is read from the wire any more: now or later."""
        over = self._over
        if over is None:
            what()
        else:
            over.append(what)

    def _end(self) -> None:
        self.is_over = True
        self._chunks.clear()
        waiting, self._then = self._then, []
        for then in waiting:
            then(self.body)

    def then(self, what: Callable[[bytes | None], object]) -> None:
        """Call `what` with the whole body, or with None where there will be none: now or later."""
        if self.is_over:
            what(self.body)
        else:
            self._then.append(what)
