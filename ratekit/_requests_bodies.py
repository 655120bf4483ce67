"""Bodies on requests: how an answer's is recorded while it is read, and how a kept one is given."""

import io
from functools import lru_cache
from http.client import HTTPMessage
from http.client import HTTPResponse as WireResponse
from typing import Any, NamedTuple

from requests import PreparedRequest, Response
from requests.adapters import HTTPAdapter
from requests.structures import CaseInsensitiveDict
from requests.utils import get_encoding_from_headers
from urllib3 import HTTPHeaderDict, HTTPResponse

from ratekit.http.reply import Recording, Reply

__all__ = ["answer_of", "pairs_of", "record"]

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


class _Prepared(NamedTuple):
    """What every native answer that is made of one reply begins with."""

    on_wire: dict[str, list[str]]
    by_name: Any
    encoding: str | None
    original: _Original | None


def _prepare(reply: Reply) -> _Prepared:
    on_wire: Any = HTTPHeaderDict(reply.headers)
    by_name: Any = CaseInsensitiveDict(on_wire)
    original = _Original(reply.headers) if "set-cookie" in on_wire else None
    encoding = get_encoding_from_headers(by_name)
    return _Prepared(on_wire._container, by_name._store, encoding, original)


def answer_of(
    adapter: HTTPAdapter, request: PreparedRequest, reply: Reply, more: Pairs
) -> Response:
    """Return a kept answer as requests gives one, unread."""
    prepared: _Prepared | None = reply.prepared.get("requests")
    if prepared is None:
        prepared = reply.prepared["requests"] = _prepare(reply)
    body = reply.body if request.method != "HEAD" else b""
    original: Any = prepared.original
    raw = HTTPResponse(
        _Body(body),
        HTTPHeaderDict(),
        reply.status,
        version=reply.version,
        reason=reply.reason,
        preload_content=False,
        decode_content=False,
        original_response=original,
        request_method=request.method,
        request_url=request.url,
    )
    response = adapter.build_response(request, raw)
    # Its fields afterwards: both libraries take them one by one, which takes longer than the rest.
    on_wire = {name: field.copy() for name, field in prepared.on_wire.items()}
    by_name = prepared.by_name.copy()
    for name, value in more:
        field = on_wire.setdefault(name.lower(), [name])
        field.append(value)
        by_name[name.lower()] = name, ", ".join(field[1:])
    that: Any = raw.headers
    that._container = on_wire
    that = response.headers
    that._store = by_name
    raw.length_remaining = len(body)
    response.encoding = prepared.encoding
    return response
