"""Bodies on httpx and httpx2: which can be sent again, and how an answer's is read ahead."""

from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from typing import Any

from ratekit.clock import SECOND, SYSTEM

__all__ = ["KeptStream", "body_of"]

# How long a body is read ahead.
_AHEAD_NS = SECOND


class KeptStream:
    """The body of an answer: what was read of it ahead of its user, and what was not.

    When it is closed, it sets the response's `elapsed` to that of the last attempt: the client
    has just set it to the time since the request began, waits included.
    """

    def __init__(self, response: Any, began_ns: int) -> None:
        self._response = response
        self._began_ns = began_ns
        self._ended_ns: int | None = None
        self._inner = response.stream
        self._ahead: list[bytes] = []
        self._rest: Iterable[bytes] = self._inner

    def read_ahead(self, most: int, broken: type[Exception]) -> None:
        """Read the body now if it is no longer than `most` bytes, and free its connection."""
        rest = iter(self._inner)
        size = 0
        # A body may trickle: what is not there by then stays unread.
        until_ns = SYSTEM.now_ns() + _AHEAD_NS
        self._rest = rest
        try:
            for chunk in rest:
                self._ahead.append(chunk)
                size += len(chunk)
                if size > most or SYSTEM.now_ns() > until_ns:
                    return
        except broken as error:
            # Whoever reads this body is to meet the same error at the same place.
            self._rest = _raising(error)
        else:
            self._rest = ()
        self._inner.close()
        self._ended_ns = SYSTEM.now_ns()

    def __iter__(self) -> Iterator[bytes]:
        yield from self._ahead
        yield from self._rest

    def close(self) -> None:
        """Close the connection's stream, and set `elapsed` right."""
        self._inner.close()
        ended_ns = SYSTEM.now_ns() if self._ended_ns is None else self._ended_ns
        self._response.elapsed = timedelta(microseconds=(ended_ns - self._began_ns) // 1000)


def _raising(error: Exception) -> Iterator[bytes]:
    raise error
    yield b""


def body_of(request: Any, library: Any) -> tuple[bool, Callable[[], object] | None]:
    """Return whether the request's body can be sent again, and what must be done first."""
    stream = request.stream
    if isinstance(stream, library.ByteStream):
        return True, None
    fields = getattr(stream, "fields", None)
    if fields is not None:
        # A multipart body takes its files back to their beginning by itself.
        return all(_is_seekable(getattr(field, "file", b"")) for field in fields), None
    source = getattr(stream, "_stream", None)
    if isinstance(source, (list, tuple)):
        return True, None
    if source is not None and hasattr(source, "read") and _is_seekable(source):
        position = source.tell()
        return True, lambda: source.seek(position)
    return False, None


def _is_seekable(source: Any) -> bool:
    if isinstance(source, (bytes, str)):
        return True
    seekable = getattr(source, "seekable", None)
    return bool(seekable()) if callable(seekable) else hasattr(source, "seek")
