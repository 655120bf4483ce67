"""A value as bytes for memcached, and back: whatever is read there is untrusted input.

    "RK", version, flags, meta length, raw length, digest of the key, times, meta, body, CRC

The head has a fixed size, and numbers are big-endian. The times are created, fresh until and stale
until. The meta is JSON; the body is as it was given or, where that saves a tenth, compressed; the
raw length is its length before. The digest is of the whole logical key, for the key on the wire is
a digest itself, and the answer to one question must never pass for the answer to another. The CRC
finds damage, not forgery: who may write to the server may write a valid frame, with whatever meta
and body he likes.

Nothing is unpickled, nothing expands beyond what the reader allows, and what is not exactly as
`pack` would have written it is no value.
"""

import json
import struct
import zlib
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

__all__ = ["LIMIT", "MOST", "Value", "pack", "unpack"]

LIMIT = 1_000_000
"""The longest frame, in bytes: a server keeps items of up to 1 MiB, its own head included."""

MOST = 4 << 20
"""The longest body, in bytes before compression."""

_MAGIC = b"RK"
_VERSION = 1
_ZLIB = 1  # flag 2 is kept free for bodies in several pieces
_HEAD = struct.Struct(">2sBBII16sQQQ")
_TAIL = struct.Struct(">I")

_WORTH_TRYING = 1024  # below it compression costs more than it saves
_META_MOST = 128 << 10  # twice the headers that common servers and clients accept
_META_DEPTH = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """A body and what is to be known about it; the times are milliseconds since 1970.

    `meta` is anything that JSON can say; tuples come back as lists.
    """

    # Not shown: both may hold what belongs into no log.
    meta: dict[str, Any] = field(repr=False)
    body: bytes = field(repr=False)
    created_ms: int
    fresh_until_ms: int
    stale_until_ms: int


def pack(value: Value, *, key: bytes, limit: int = LIMIT, most: int = MOST) -> bytes | None:
    """Return `value` as a frame for `key`, or None if it is too large for one.

    After None the caller deletes what the key held: it is older than what was to replace it. Too
    large is a frame above `limit`, a body above `most`, a meta above 128 KiB, and a time that does
    not fit. Raises `TypeError` or `ValueError` for a meta that JSON cannot say.
    """
    times = (value.created_ms, value.fresh_until_ms, value.stale_until_ms)
    meta = _write(value.meta)
    if len(meta) > _META_MOST or len(value.body) > most or not all(0 <= t < 1 << 64 for t in times):
        return None
    if _read(meta) is None:
        raise ValueError("meta: use a dict with text for keys, nested at most 16 deep")
    flags, body = 0, value.body
    if len(body) >= _WORTH_TRYING:
        packed = zlib.compress(body, 1)
        if len(packed) * 10 <= len(body) * 9:
            flags, body = _ZLIB, packed
    if _HEAD.size + len(meta) + len(body) + _TAIL.size > limit:
        return None
    head = _HEAD.pack(_MAGIC, _VERSION, flags, len(meta), len(value.body), _digest(key), *times)
    frame = b"".join((head, meta, body))
    return frame + _TAIL.pack(zlib.crc32(frame))


def unpack(frame: bytes, *, key: bytes, most: int = MOST) -> Value | None:
    """Return what `frame` holds for `key`, or None if it is not exactly a frame of ours.

    Raises nothing, whatever the bytes are. Takes memory for a body of `most` bytes at the most.
    The times are as they were written; whether they can be is for the caller and his clock to say.
    """
    end = len(frame) - _TAIL.size
    if end < _HEAD.size:  # also the empty item that a server makes for whoever is to fill it
        return None
    view = memoryview(frame)
    magic, version, flags, meta_length, raw_length, digest, *times = _HEAD.unpack_from(view)
    start = _HEAD.size + meta_length
    if (magic, version, digest) != (_MAGIC, _VERSION, _digest(key)) or flags not in {0, _ZLIB}:
        return None
    # Compression never made a body longer. Before the CRC, so that only what may be is summed up.
    if meta_length > _META_MOST or raw_length > most or not 0 <= end - start <= raw_length:
        return None
    if _TAIL.unpack_from(view, end) != (zlib.crc32(view[:end]),):
        return None
    meta = _read(bytes(view[_HEAD.size : start]))
    body = _inflate(view[start:end], raw_length) if flags else bytes(view[start:end])
    if meta is None or body is None or len(body) != raw_length:
        return None
    created, fresh, stale = times
    return Value(
        meta=meta, body=body, created_ms=created, fresh_until_ms=fresh, stale_until_ms=stale
    )


def _digest(key: bytes) -> bytes:
    return blake2b(key, digest_size=16).digest()


def _write(meta: object) -> bytes:
    return json.dumps(meta, allow_nan=False, separators=(",", ":")).encode("ascii")


def _read(text: bytes) -> dict[str, Any] | None:
    """Return the object that `text` says, if `_write` would say it in these very bytes.

    That leaves out a name given twice, numbers that are none or turn into infinity, and other
    encodings, all of which the reader in the standard library takes.
    """
    try:
        meta = json.loads(text.decode("ascii"))
        canonical = isinstance(meta, dict) and _is_flat(meta) and _write(meta) == text
    except (ValueError, RecursionError):
        return None
    return meta if canonical else None


def _is_flat(meta: object) -> bool:
    """Tell whether `meta` is nested so little that any code may walk through it."""
    level: list[Any] = [meta]
    for _ in range(_META_DEPTH):
        inner = [one.values() if isinstance(one, dict) else one for one in level]
        level = [one for many in inner for one in many if isinstance(one, (dict, list))]
        if not level:
            return True
    return False


def _inflate(packed: memoryview, length: int) -> bytes | None:
    # One byte more than is due: 0 would mean "no bound", and a stream that fills its bound exactly
    # need not have been read to its end.
    stream = zlib.decompressobj()
    try:
        body = stream.decompress(packed, length + 1)
    except zlib.error:
        return None
    return body if stream.eof and not stream.unused_data else None
