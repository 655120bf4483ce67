"""HTTP/1.1 as the loopback API server speaks it, without a socket.

Bytes go into a `RequestParser` and whole requests come out; an `Answer` goes into `encode` and
bytes come out. Nothing here waits, reads a clock or knows what a limit is. What is read is bounded
(`MAX_HEAD`, `MAX_BODY`) and checked by RFC 9112: what it calls invalid is `Malformed`, never
guessed at.
"""

import math
import re
from collections.abc import Generator, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass
from http import HTTPStatus
from typing import Final, Literal, TypeAlias, get_args

__all__ = [
    "Answer",
    "Fault",
    "Malformed",
    "Request",
    "RequestParser",
    "StreamAnswer",
    "closes",
    "encode",
]

Fault: TypeAlias = Literal["reset", "close", "truncate", "reset-body", "hang", "garbage"]
FAULTS: Final[tuple[Fault, ...]] = get_args(Fault)
HeaderText: TypeAlias = str | bytes

MAX_HEAD: Final = 64 * 1024
MAX_BODY: Final = 64 * 1024 * 1024
FINAL_STATUSES: Final = range(200, 1000)  # after a lower one a client waits for another
BODILESS: Final = frozenset({204, 304})

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_REQUEST_LINE = re.compile(rb"(%s) ([\x21-\x7e\x80-\xff]+) HTTP/1\.([01])" % _TOKEN)
_FIELD = re.compile(rb"(%s):[ \t]*([^\r\n\0]*?)[ \t]*" % _TOKEN)
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(?:;[^\r\n]*)?")
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#]*", re.IGNORECASE)
_PHRASES: Final = {status.value: status.phrase for status in HTTPStatus}


class Malformed(Exception):
    """What arrived is no request this server reads; `status` is the answer it deserves."""

    def __init__(self, reason: str, status: int = 400) -> None:
        super().__init__(reason)
        self.status = status


@dataclass(frozen=True, slots=True)
class Request:
    """One whole request: `path` and `query` as on the wire, still percent-encoded."""

    method: str
    path: str
    query: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    http11: bool
    keep_alive: bool

    def header(self, name: str, default: str = "") -> str:
        """Give the first header called `name` (any case), or `default`."""
        return next(
            (value for field, value in self.headers if field.lower() == name.lower()), default
        )


@dataclass(frozen=True, slots=True)
class Answer:
    """One scripted answer, sent as it is written here.

    `headers` are (name, value) pairs sent verbatim, `str` as latin-1 and `bytes` untouched, so that
    values no server should send can be sent. `Content-Length` is added unless the headers frame the
    body themselves. `delay` is the seconds before the answer (or fault), on top of the server's
    latency.

    `fault` breaks the answer on purpose:

    - `"reset"`: the connection is reset (RST) and nothing is answered
    - `"close"`: the connection is closed cleanly and nothing is answered
    - `"truncate"`: the whole head, half of the body, then a clean close
    - `"reset-body"`: the whole head, half of the body, then a reset
    - `"hang"`: nothing is ever answered, until the client closes or the server stops
    - `"garbage"`: `body` (or a default) is sent raw in place of an answer, then a clean close

    Raises ValueError or TypeError for what cannot be sent.
    """

    status: int = 200
    headers: Sequence[tuple[HeaderText, HeaderText]] = ()
    body: bytes = b""
    _: KW_ONLY
    fault: Fault | None = None
    delay: float = 0.0

    def __post_init__(self) -> None:
        if self.status not in FINAL_STATUSES:
            raise ValueError(f"status must be a final one, 200 to 999; not {self.status!r}")
        if self.fault is not None and self.fault not in FAULTS:
            raise ValueError(f"fault must be None or one of {FAULTS}; not {self.fault!r}")
        _check_body(self.body)
        if self.fault in ("truncate", "reset-body") and not self.body:
            raise ValueError(f"fault {self.fault!r} cuts the body in half; give it a body")
        if not 0 <= self.delay < math.inf:
            raise ValueError(f"delay must be seconds, 0 or more; not {self.delay!r}")
        object.__setattr__(self, "headers", tuple(self.headers))
        for pair in self.headers:
            _check_header(pair)


@dataclass(frozen=True, slots=True)
class StreamAnswer(Answer):
    """An answer in `chunks` pieces, `interval` seconds apart, none of them known beforehand."""

    chunks: int = 0
    interval: float = 0.0


def _check_body(body: object) -> None:
    if not isinstance(body, bytes):
        raise TypeError(f"body must be bytes, not {type(body).__name__}; encode it first")


def _check_header(pair: object) -> None:
    match pair:
        case (str() | bytes(), str() | bytes()):
            for text in pair:
                if isinstance(text, str) and not text.isascii() and max(text) > "\xff":
                    raise ValueError(f"header text must be latin-1; give {text!r} as bytes")
        case _:
            raise TypeError(
                f"headers must be (name, value) pairs such as ('Retry-After', '1'); not {pair!r}"
            )


class RequestParser:
    """Requests out of the bytes of one connection, in whatever pieces they arrive."""

    def __init__(self) -> None:
        self.wants_continue = False
        self._buffer = bytearray()
        self._requests = self._read()

    @property
    def buffered(self) -> int:
        """Bytes that arrived and belong to no finished request yet."""
        return len(self._buffer)

    def feed(self, data: bytes) -> None:
        """Add what the socket gave."""
        self._buffer += data

    def next_request(self) -> Request | None:
        """Take the next whole request, or None while bytes are missing.

        Raises Malformed for what is not one; the connection cannot be read any further then.
        """
        return next(self._requests)

    def _read(self) -> Iterator[Request | None]:
        while True:
            while not self._buffer:
                yield None
            if not _plausible(self._buffer[0]):
                raise Malformed("this server speaks plain HTTP/1.1; use http://, not https://")
            head = (yield from self._until(b"\r\n\r\n")).lstrip(b"\r\n")
            if not head:  # empty lines before a request are to be skipped (RFC 9112, 2.2)
                continue
            line, *fields = head.split(b"\r\n")
            method, target, minor = _request_line(line)
            headers = tuple(_field(field) for field in fields)
            named: dict[str, list[str]] = {}
            for name, value in headers:
                named.setdefault(name.lower(), []).append(value)
            http11 = minor == b"1"
            if http11 and len(named.get("host", ())) != 1:
                raise Malformed("an HTTP/1.1 request has exactly one Host header")
            length = _body_length(named)
            self.wants_continue = http11 and named.get("expect", [""])[0].lower() == "100-continue"
            body = yield from self._chunked() if length is None else self._exactly(length)
            self.wants_continue = False
            path, _, query = target.partition("?")
            close = "close" in ",".join(named.get("connection", ())).lower().replace(" ", "").split(
                ","
            )
            yield Request(method, path, query, headers, body, http11, http11 and not close)

    def _until(self, end: bytes) -> Generator[None, None, bytes]:
        """Take the bytes before `end`, which is taken too."""
        while (found := self._buffer.find(end)) < 0 and len(self._buffer) <= MAX_HEAD:
            yield
        if not 0 <= found <= MAX_HEAD:
            raise Malformed(f"the request head is larger than {MAX_HEAD} bytes", 431)
        taken = bytes(self._buffer[:found])
        del self._buffer[: found + len(end)]
        return taken

    def _exactly(self, size: int) -> Generator[None, None, bytes]:
        while len(self._buffer) < size:
            yield
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken

    def _chunked(self) -> Generator[None, None, bytes]:
        body = bytearray()
        while True:
            match = _CHUNK_SIZE.fullmatch((yield from self._until(b"\r\n")))
            if match is None:
                raise Malformed("a chunk starts with its size in hexadecimal")
            size = int(match[1], 16)
            if len(body) + size > MAX_BODY:
                raise _too_large()
            if size == 0:
                break
            body += yield from self._exactly(size)
            if (yield from self._exactly(2)) != b"\r\n":
                raise Malformed("a chunk ends with CRLF after as many bytes as it said")
        trailers = 0
        while line := (yield from self._until(b"\r\n")):
            trailers += len(line)
            if trailers > MAX_HEAD:
                raise Malformed(f"the trailers are larger than {MAX_HEAD} bytes", 431)
        return bytes(body)


def _plausible(first: int) -> bool:
    # A TLS hello never holds the end of a head: without this look its sender would wait for ever.
    return chr(first).isascii() and (chr(first).isprintable() or first in b"\r\n")


def _request_line(line: bytes) -> tuple[str, str, bytes]:
    match = _REQUEST_LINE.fullmatch(line)
    if match is None:
        raise Malformed("a request starts with: METHOD /target HTTP/1.1")
    target = match[2].decode("latin-1")
    if not target.startswith("/") and target != "*":
        # A client that takes this server for its proxy sends the whole URL (RFC 9112, 3.2.2).
        rest, found = _ORIGIN.subn("", target, count=1)
        if not found:
            raise Malformed("the target must start with / or be an absolute URL")
        target = rest if rest.startswith("/") else "/" + rest
    return match[1].decode("ascii"), target, match[3]


def _field(line: bytes) -> tuple[str, str]:
    match = _FIELD.fullmatch(line)
    if match is None:
        raise Malformed("a header is one line: a token, a colon and a value")
    return match[1].decode("ascii"), match[2].decode("latin-1")


def _body_length(named: dict[str, list[str]]) -> int | None:
    """How many bytes of body follow; None when it is chunked (RFC 9112, 6.3)."""
    lengths, codings = named.get("content-length", []), named.get("transfer-encoding", [])
    if codings:
        if lengths or [coding.lower() for coding in codings] != ["chunked"]:
            raise Malformed(
                "a body is framed by Content-Length or by Transfer-Encoding: chunked, not otherwise"
            )
        return None
    if not lengths:
        return 0
    if len(set(lengths)) != 1 or not re.fullmatch("[0-9]{1,18}", lengths[0]):
        raise Malformed("Content-Length must be one number")
    if int(lengths[0]) > MAX_BODY:
        raise _too_large()
    return int(lengths[0])


def _too_large() -> Malformed:
    return Malformed(f"the body is larger than {MAX_BODY} bytes", 413)


def encode(answer: Answer, *, http11: bool = True, close: bool = False) -> bytes:
    """Give the head of an answer as bytes, the empty line included; its body is sent apart."""
    status = answer.status
    lines = [f"HTTP/1.1 {status} {_PHRASES.get(status, 'Unknown')}".encode("ascii")]
    framed = status in BODILESS
    for name, value in answer.headers:
        raw_name, raw_value = _raw(name), _raw(value)
        framed = framed or raw_name.lower() in (b"content-length", b"transfer-encoding")
        lines.append(raw_name + b": " + raw_value)
    if isinstance(answer, StreamAnswer):
        if http11:
            lines.append(b"Transfer-Encoding: chunked")
    elif not framed:
        lines.append(b"Content-Length: %d" % len(answer.body))
    if close:
        lines.append(b"Connection: close")
    return b"\r\n".join(lines) + b"\r\n\r\n"


def closes(answer: Answer) -> bool:
    """Tell whether the answer's own headers end the connection."""
    return any(
        _raw(name).lower() == b"connection" and _raw(value).strip().lower() == b"close"
        for name, value in answer.headers
    )


def _raw(text: HeaderText) -> bytes:
    return text if isinstance(text, bytes) else text.encode("latin-1")
