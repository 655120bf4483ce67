"""Bodies on httpx and httpx2: which can be sent again, and how an answer's is read ahead."""

from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from typing import Any

from ratekit.clock import SECOND, SYSTEM
from ratekit.http.reply import Recording, Reply

__all__ = [
    "KeptStream",
    "RecordedStream",
    "body_of",
    "bytes_of",
    "record",
    "reply_of",
    "response_of",
]

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
        self._is_read = False
        self._inner = response.stream
        self._ahead: list[bytes] = []
        self._rest: Iterable[bytes] = self._inner

    def read_ahead(self, most: int, broken: type[Exception]) -> None:
        """Read the body now if it is no longer than `most` bytes, and free its connection."""
        if self._is_read:
            return
        self._is_read = True
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

    def decoded(self, library: Any) -> bytes:
        """Return what was read ahead, decoded; empty where that was not all of it."""
        if self._ended_ns is None:
            return b""
        headers = self._response.headers
        coding = {name: headers[name] for name in ("content-encoding",) if name in headers}
        try:
            content: bytes = library.Response(
                200, headers=coding, content=b"".join(self._ahead)
            ).content
        except library.DecodingError:
            return b""
        return content

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


class RecordedStream:
    """The body of an answer, recorded as its user reads it."""

    def __init__(self, inner: Any, recording: Recording) -> None:
        self._inner = inner
        self._recording = recording

    def __iter__(self) -> Iterator[bytes]:
        recording = self._recording
        try:
            for chunk in self._inner:
                recording.feed(chunk)
                yield chunk
            recording.finish()
        finally:
            # Whoever stops in the middle, and lets go of it, will not read the rest.
            recording.give_up()

    def close(self) -> None:
        """Close the connection's stream; what was not read by now never will be."""
        self._inner.close()
        self._recording.give_up()

    def __del__(self) -> None:
        # Nobody will read it any more.
        self._recording.give_up()


def record(response: Any, recording: Recording, library: Any, stream: type[RecordedStream]) -> bool:
    """Write the body down as it is read; return False where that cannot be done."""
    inner = response.stream
    if isinstance(inner, library.ByteStream):
        # A stand-in's answer, which is here already: perhaps nobody reads it from its stream.
        for chunk in inner:
            recording.feed(chunk)
        recording.finish()
        return True
    version: bytes = response.extensions.get("http_version", b"")
    if (
        "network_stream" in response.extensions
        and version.startswith(b"HTTP/1")
        and recording.expected is None
        and "chunked" not in response.headers.get("transfer-encoding", "").lower()
    ):
        # It ends where the connection does: nobody can tell whether that is all of it.
        return False
    response.stream = stream(inner, recording)
    return True


_VERSIONS = {b"HTTP/1.0": 10, b"HTTP/1.1": 11, b"HTTP/2": 20, b"HTTP/3": 30}
_NAMES = {number: name for name, number in _VERSIONS.items()}


def reply_of(response: Any, body: bytes) -> Reply:
    """Return an answer as a value."""
    extensions = response.extensions
    return Reply(
        response.status_code,
        [(name.decode("latin-1"), value.decode("latin-1")) for name, value in response.headers.raw],
        body,
        reason=extensions.get("reason_phrase", b"").decode("ascii", "replace"),
        version=_VERSIONS.get(extensions.get("http_version", b"HTTP/1.1"), 11),
    )


def response_of(reply: Reply, more: list[tuple[str, str]], method: str, library: Any) -> Any:
    """Return a kept answer as the library gives one, unread."""
    prepared = reply.prepared.get("httpx")
    if prepared is None:
        pairs = [(_bytes(name), _bytes(value)) for name, value in reply.headers]
        extensions = {"http_version": _NAMES.get(reply.version, b"HTTP/1.1")}
        if reply.reason:
            extensions["reason_phrase"] = reply.reason.encode("ascii", "replace")
        prepared = reply.prepared["httpx"] = pairs, extensions
    pairs, extensions = prepared
    return library.Response(
        reply.status,
        headers=[*pairs, *[(_bytes(name), _bytes(value)) for name, value in more]],
        stream=library.ByteStream(b"" if method == "HEAD" else reply.body),
        extensions=extensions.copy(),
    )


def _bytes(text: str) -> bytes:
    return text.encode("latin-1", "replace")


def bytes_of(request: Any) -> bytes | None:
    """Return a request's body where it is there as bytes."""
    content = getattr(request, "_content", None)
    return content if isinstance(content, bytes) else None


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
