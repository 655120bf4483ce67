"""Bodies on requests: how an answer's is recorded while it is read, and how a kept one is given."""

import io
from functools import lru_cache
from http.client import HTTPMessage
from http.client import HTTPResponse as WireResponse
from typing import Any

from requests import Response
from urllib3 import HTTPHeaderDict, HTTPResponse

from ratekit.http.reply import Recording, Reply

__all__ = ["pairs_of", "raw_of", "record"]

Pairs = list[tuple[str, str]]


def record(response: Response, recording: Recording) -> bool:
    """Write the body down as it is read; return False where that cannot be done."""
    that: Any = response  # the stubs do not know what is private
    raw = that.raw
    if that._content_consumed or raw is None:
        # A stand-in's answer, which is here already.
        content = that._content
        if not isinstance(content, bytes) or "content-encoding" in response.headers:
            return False
        recording.feed(content)
        recording.finish()
        return True
    if not isinstance(raw, HTTPResponse) or not hasattr(raw, "_fp_read"):
        return False
    wire: Any = raw._fp
    if isinstance(wire, WireResponse) and wire.length is None and not wire.chunked:
        # It ends where the connection does: nobody can tell whether that is all of it.
        return False
    that = raw
    that.__class__ = _recorded(type(raw))
    that._recording = recording
    return True


class _Recorded:
    """Put before the class of a urllib3 response: whatever is read from the wire is recorded."""

    _recording: Recording
    chunk_left: int | None

    def _fp_read(self, amt: int | None = None, **kwargs: Any) -> bytes:
        above: Any = super()
        data: bytes = above._fp_read(amt, **kwargs)
        recording = self._recording
        if data:
            recording.feed(data)
        if not data or (amt is None and not kwargs):
            recording.finish()
        return data

    def _handle_chunk(self, amt: int | None) -> bytes:
        above: Any = super()
        data: bytes = above._handle_chunk(amt)
        self._recording.feed(data)
        return data

    def _update_chunk_length(self) -> None:
        above: Any = super()
        above._update_chunk_length()
        if self.chunk_left == 0:
            self._recording.finish()

    def close(self) -> None:
        """Close the connection; what was not read by now never will be."""
        above: Any = super()
        above.close()
        recording = getattr(self, "_recording", None)
        if recording is not None:
            recording.give_up()


@lru_cache(maxsize=32)
def _recorded(kind: type) -> type:
    return kind if issubclass(kind, _Recorded) else type(kind.__name__, (_Recorded, kind), {})


def pairs_of(response: Response) -> Pairs:
    """Return every field of an answer, in order."""
    headers = getattr(response.raw, "headers", None)
    return list((headers if isinstance(headers, HTTPHeaderDict) else response.headers).items())


class _Body(io.BytesIO):
    """A body that closes itself at its end, as one on the wire does: who streams it stops there."""

    def __init__(self, body: bytes) -> None:
        super().__init__(body)
        self._left = len(body)
        if not body:
            self.close()

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self._left -= len(data)
        if self._left == 0:
            self.close()
        return data


class _Original:
    """In place of what http.client made: it has the fields in which cookies are looked for."""

    def __init__(self, pairs: Pairs) -> None:
        self.msg = HTTPMessage()
        for name, value in pairs:
            self.msg[name] = value

    def isclosed(self) -> bool:
        return True

    def close(self) -> None:
        pass


def raw_of(reply: Reply, more: Pairs, method: str | None) -> HTTPResponse:
    """Return a kept answer as urllib3 gives one."""
    headers = HTTPHeaderDict(reply.headers)
    for name, value in more:
        headers.add(name, value)
    original: Any = _Original(reply.headers) if "set-cookie" in headers else None
    return HTTPResponse(
        _Body(reply.body if method != "HEAD" else b""),
        headers,
        reply.status,
        version=reply.version,
        reason=reply.reason,
        preload_content=False,
        original_response=original,
        request_method=method,
    )
