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

    __slots__ = ("_chunks", "_most", "_then", "body", "expected", "is_over", "size")

    def __init__(self, most: int, expected: int | None) -> None:
        self._most = most
        self._chunks: list[bytes] = []
        self._then: list[Callable[[bytes | None], object]] = []
        self.expected = expected
        self.size = 0
        self.body: bytes | None = None
        self.is_over = False
        if expected == 0:
            self.finish()

    def feed(self, chunk: bytes) -> None:
        """Write down what was read."""
        if self.is_over:
            return
        self.size += len(chunk)
        if self.size > self._most:
            self.give_up()
            return
        self._chunks.append(bytes(chunk))
        if self.size == self.expected:
            self.finish()

    def finish(self) -> None:
        """Say that there is no more."""
        if self.is_over:
            return
        if self.expected is not None and self.size != self.expected:
            self.give_up()
            return
        self.body = b"".join(self._chunks)
        self._end()

    def give_up(self) -> None:
        """Say that the rest will never be read."""
        if not self.is_over:
            self._end()

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
