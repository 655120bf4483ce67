"""Values with a frame: what goes in comes out, and nothing else is ever taken for a value."""

import json
import random
import struct
import tracemalloc
import zlib
from dataclasses import replace
from hashlib import blake2b
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratekit.stores.memcached.frame import LIMIT, MOST, Value, pack, unpack

KEY = b"the whole logical key"
VALUE = Value(
    meta={"status": 200, "headers": [["ETag", '"1"'], ["X-Caf\xe9", "\ud800"]], "vary": {}},
    body=b"a body",
    created_ms=1_790_000_000_000,
    fresh_until_ms=1_790_000_060_000,
    stale_until_ms=1_790_000_120_000,
)
LONG = replace(VALUE, body=b"a body that is said again. " * 100)
TIME = st.integers(0, 2**64 - 1)
LEAF = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    LEAF | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def framed(
    meta: bytes = b"{}",
    body: bytes = b"",
    *,
    key: bytes = KEY,
    magic: bytes = b"RK",
    version: int = 1,
    flags: int = 0,
    meta_length: int | None = None,
    raw_length: int | None = None,
    times: tuple[int, int, int] = (1, 2, 3),
) -> bytes:
    """Return a frame with a CRC that is right, written from the description of the format."""
    frame = struct.pack(
        ">2sBBII16sQQQ",
        magic,
        version,
        flags,
        len(meta) if meta_length is None else meta_length,
        len(body) if raw_length is None else raw_length,
        blake2b(key, digest_size=16).digest(),
        *times,
    )
    frame += meta + body
    return frame + struct.pack(">I", zlib.crc32(frame))


def packed(value: Value) -> bytes:
    """Return the frame of a value that is not too large."""
    frame = pack(value, key=KEY)
    assert frame is not None
    return frame


def zeros(length: int) -> bytes:
    """Return `length` zeros, compressed, without ever holding them."""
    stream = zlib.compressobj(9)
    piece = bytes(1 << 20)
    pieces = [stream.compress(piece) for _ in range(length >> 20)]
    return b"".join([*pieces, stream.flush()])


@given(
    meta=st.dictionaries(st.text(), JSON, max_size=4),
    body=st.binary() | st.builds(lambda part, times: part * times, st.binary(), st.integers(0, 99)),
    times=st.tuples(TIME, TIME, TIME),
    key=st.binary(),
)
def test_what_goes_in_comes_out(
    meta: dict[str, Any], body: bytes, times: tuple[int, int, int], key: bytes
) -> None:
    """Meta, body and times are the same, and types too."""
    value = Value(
        meta=meta,
        body=body,
        created_ms=times[0],
        fresh_until_ms=times[1],
        stale_until_ms=times[2],
    )
    frame = pack(value, key=key)
    assert frame is not None
    again = unpack(frame, key=key)
    assert again == value
    assert repr(again.meta) == repr(meta)


def test_the_format_is_the_one_described() -> None:
    """A frame written from the description is a value, and the same bytes are packed from it."""
    frame = framed(b'{"status":200}', b"a body", times=(10, 20, 30))
    value = Value(
        meta={"status": 200}, body=b"a body", created_ms=10, fresh_until_ms=20, stale_until_ms=30
    )
    assert unpack(frame, key=KEY) == value
    assert pack(value, key=KEY) == frame
    assert len(frame) == 52 + 14 + 6 + 4


def test_tuples_come_back_as_lists() -> None:
    """Headers may be given as they are at hand."""
    again = unpack(packed(replace(VALUE, meta={"headers": [("A", "1")]})), key=KEY)
    assert again is not None
    assert again.meta == {"headers": [["A", "1"]]}


@pytest.mark.parametrize("value", [VALUE, LONG], ids=["as it is", "compressed"])
def test_a_frame_cut_anywhere_is_no_value(value: Value) -> None:
    """Nor is one with a byte too many, at either end."""
    frame = packed(value)
    for length in range(len(frame)):
        assert unpack(frame[:length], key=KEY) is None
    assert unpack(frame + b"\0", key=KEY) is None
    assert unpack(b"\0" + frame, key=KEY) is None


@pytest.mark.parametrize("value", [VALUE, LONG], ids=["as it is", "compressed"])
def test_a_frame_with_one_bit_turned_is_no_value(value: Value) -> None:
    """Every bit, of the CRC too."""
    frame = bytearray(packed(value))
    for place in range(len(frame) * 8):
        frame[place // 8] ^= 1 << place % 8
        assert unpack(bytes(frame), key=KEY) is None
        frame[place // 8] ^= 1 << place % 8
    assert unpack(bytes(frame), key=KEY) == value


@given(frame=st.binary(max_size=200))
def test_no_bytes_make_it_raise(frame: bytes) -> None:
    """Not with our first bytes before them either."""
    assert unpack(frame, key=KEY) is None
    assert unpack(b"RK\x01\x00" + frame, key=KEY) is None
    assert unpack(b"RK\x01\x01" + frame, key=KEY) is None


@given(
    meta=st.binary(max_size=40) | st.text(max_size=20).map(str.encode) | st.just(b"{}"),
    body=st.binary(max_size=40) | st.binary(max_size=40).map(zlib.compress),
    flags=st.integers(0, 3),
    meta_length=st.none() | st.integers(0, 2**32 - 1) | st.integers(0, 60),
    raw_length=st.none() | st.integers(0, 2**32 - 1) | st.integers(0, 60),
)
def test_no_frame_with_a_right_crc_makes_it_raise(
    meta: bytes, body: bytes, flags: int, meta_length: int | None, raw_length: int | None
) -> None:
    """What is taken for a value has a meta and a body of the lengths that were stated."""
    frame = framed(meta, body, flags=flags, meta_length=meta_length, raw_length=raw_length)
    value = unpack(frame, key=KEY)
    if value is not None:
        assert isinstance(value.meta, dict)
        assert len(value.body) == (len(body) if raw_length is None else raw_length)


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"0",
        b"RK",
        b"12345678901234567890",
        b"\x80\x04K\x01.",
        bytes(56),
        framed(magic=b"rk"),
        framed(version=0),
        framed(version=2),
        framed(flags=2),
        framed(flags=3),
        framed(flags=128),
        framed(body=zlib.compress(LONG.body), flags=2, raw_length=len(LONG.body)),
        framed(body=zlib.compress(LONG.body), flags=3, raw_length=len(LONG.body)),
        framed(key=b"another key"),
        framed(key=b""),
    ],
)
def test_what_is_not_this_version_for_this_key_is_no_value(frame: bytes) -> None:
    """An empty item, a number, a pickle, other versions, flags yet unknown, another's answer."""
    assert unpack(frame, key=KEY) is None


@pytest.mark.parametrize(
    "meta",
    [
        b"",
        b"null",
        b"1",
        b'"text"',
        b"[]",
        b"[[]]",
        b"{",
        b"{}{}",
        b" {}",
        b"{ }",
        b'{"a": 1}',
        b'{"a":1,"a":1}',
        b'{"a":{"b":1,"b":2}}',
        b'{"a":NaN}',
        b'{"a":Infinity}',
        b'{"a":1e999}',
        b'{"a":1.0e0}',
        b'{"a":-0}',
        b'{"a":"\n"}',
        b'{"a":"\xff"}',
        '{"a":"é"}'.encode(),
        "{}".encode("utf-16"),
        "{}".encode("utf-8-sig"),
        b'{"a":' + b"9" * 5000 + b"}",
        b'{"a":' + b"[" * 17 + b"]" * 17 + b"}",
        b'{"a":' * 300 + b"1" + b"}" * 300,
        b"[" * 100_000,
        b'{"a":' * 20_000,
        b'{"a":' + b"[" * 60_000 + b"]" * 60_000 + b"}",
        b'{"a":"' + b"b" * (128 << 10) + b'"}',
    ],
    ids=lambda meta: f"{meta[:12]!r} of {len(meta)}",
)
def test_a_meta_we_would_not_write_is_no_value(meta: bytes) -> None:
    """No object, not JSON, said in other bytes, names twice, no numbers, nested deep, too long."""
    assert unpack(framed(meta), key=KEY) is None


@pytest.mark.parametrize(
    ("meta_length", "raw_length"),
    [
        *[(2, 0), (2, 5), (2, 7), (2, MOST), (2, MOST + 1), (2, 2**32 - 1)],
        *[(0, 6), (1, 6), (3, 6), (8, 6), (9, 6), (2**32 - 1, 6)],
        *[(0, 8), (8, 0), (2**32 - 1, 2**32 - 1)],
    ],
)
def test_lengths_that_lie_make_no_value(meta_length: int, raw_length: int) -> None:
    """Too short, too long, shifted, and as large as the field allows."""
    assert unpack(framed(b"{}", b"a body"), key=KEY) is not None
    lie = framed(b"{}", b"a body", meta_length=meta_length, raw_length=raw_length)
    assert unpack(lie, key=KEY) is None


def _with_dictionary(body: bytes) -> bytes:
    stream = zlib.compressobj(zdict=b"a body")
    return stream.compress(body) + stream.flush()


@pytest.mark.parametrize(
    ("stored", "length"),
    [
        (zlib.compress(LONG.body), len(LONG.body) - 1),
        (zlib.compress(LONG.body), len(LONG.body) + 1),
        (zlib.compress(LONG.body), 0),
        (zlib.compress(LONG.body) + b"more", len(LONG.body)),
        (zlib.compress(LONG.body) * 2, len(LONG.body)),
        (zlib.compress(LONG.body)[:-1], len(LONG.body)),
        (zlib.compress(LONG.body)[2:], len(LONG.body)),
        (zlib.compress(LONG.body, wbits=31), len(LONG.body)),
        (_with_dictionary(LONG.body), len(LONG.body)),
        (LONG.body, len(LONG.body)),
        (b"", 0),
        (b"", 5),
        (zlib.compress(b""), 0),
    ],
)
def test_a_stream_that_is_not_the_stated_body_is_no_value(stored: bytes, length: int) -> None:
    """Longer, shorter, followed by more, unfinished, another format, not compressed at all."""
    whole = framed(body=zlib.compress(LONG.body), flags=1, raw_length=len(LONG.body))
    assert unpack(whole, key=KEY) is not None
    assert unpack(framed(body=stored, flags=1, raw_length=length), key=KEY) is None


@pytest.mark.parametrize("stated", [1 << 20, 64 << 20, 2**32 - 1, 100_000, 0])
def test_a_bomb_takes_no_more_memory_than_the_reader_allows(stated: int) -> None:
    """64 MiB of zeros, whatever length is stated; pieces and whole are there at the same time."""
    most = 1 << 20
    bomb = framed(body=zeros(64 << 20), flags=1, raw_length=stated)
    assert len(bomb) < 70_000
    tracemalloc.start()
    try:
        value = unpack(bomb, key=KEY, most=most)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert value is None
    assert peak < 2 * most + (256 << 10)


def test_a_meta_takes_bounded_memory() -> None:
    """Small things in great number grow most; a meta above 128 KiB is not even read."""
    tracemalloc.start()
    try:
        assert unpack(framed(b'{"a":[' + b"[]," * 300_000 + b"[]]}"), key=KEY) is None
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        value = unpack(framed(b'{"a":[' + b"[]," * 40_000 + b"[]]}"), key=KEY)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert value is not None
    assert peak - before < 16 << 20


def test_a_body_is_compressed_if_it_is_long_and_that_saves_a_tenth() -> None:
    """At 1 KiB, one byte below it, and where there is nothing to save."""
    noise = random.Random(7).randbytes(5000)
    assert packed(replace(VALUE, body=b"a" * 1023))[3] == 0
    assert packed(replace(VALUE, body=b"a" * 1024))[3] == 1
    assert packed(replace(VALUE, body=noise))[3] == 0
    # What noise is followed by zeros for less than, and for more than, a tenth of the whole.
    assert packed(replace(VALUE, body=noise + bytes(400)))[3] == 0
    assert packed(replace(VALUE, body=noise + bytes(700)))[3] == 1


def test_a_value_too_large_for_the_server_is_not_packed() -> None:
    """To the byte, after compression."""
    for value in (VALUE, LONG):
        size = len(packed(value))
        assert pack(value, key=KEY, limit=size) == packed(value)
        assert pack(value, key=KEY, limit=size - 1) is None
    assert pack(replace(VALUE, body=random.Random(7).randbytes(LIMIT)), key=KEY) is None


def test_what_the_reader_would_not_take_is_not_packed() -> None:
    """A body that shrinks well but is longer than the reader allows, and a meta above 128 KiB."""
    whole = replace(VALUE, body=bytes(MOST))
    assert unpack(packed(whole), key=KEY) == whole
    assert pack(replace(VALUE, body=bytes(MOST + 1)), key=KEY) is None
    assert pack(whole, key=KEY, most=MOST - 1) is None
    assert unpack(packed(whole), key=KEY, most=MOST - 1) is None
    room = (128 << 10) - len(json.dumps({"a": ""}, separators=(",", ":")))
    full = replace(VALUE, meta={"a": "b" * room})
    assert unpack(packed(full), key=KEY) == full
    assert pack(replace(VALUE, meta={"a": "b" * (room + 1)}), key=KEY) is None


@pytest.mark.parametrize("time", [-1, 2**64])
@pytest.mark.parametrize("field", ["created_ms", "fresh_until_ms", "stale_until_ms"])
def test_a_time_that_does_not_fit_is_not_packed(field: str, time: Any) -> None:
    """A server may say any max-age: the value is not kept, and no call fails because of it."""
    assert pack(replace(VALUE, **dict[str, Any]({field: time})), key=KEY) is None


@pytest.mark.parametrize(
    ("meta", "error"),
    [
        ({"a": b"bytes"}, TypeError),
        ({"a": {1, 2}}, TypeError),
        ({b"a": 1}, TypeError),
        ({"a": float("nan")}, ValueError),
        ({"a": float("inf")}, ValueError),
        ({1: 1, "1": 2}, ValueError),
        ([], ValueError),
        ({"a": [[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]}, ValueError),
    ],
)
def test_a_meta_that_json_cannot_say_is_a_mistake_of_the_caller(
    meta: Any, error: type[Exception]
) -> None:
    """It is raised where it is made, not found later as a value that never comes back."""
    with pytest.raises(error):
        pack(replace(VALUE, meta=meta), key=KEY)


@pytest.mark.parametrize("time", ["1790000000000", 1.5, None])
def test_a_time_that_is_no_whole_number_is_a_mistake_of_the_caller(time: Any) -> None:
    """Milliseconds are integers."""
    with pytest.raises((TypeError, struct.error)):
        pack(replace(VALUE, created_ms=time), key=KEY)


def test_a_value_shows_neither_meta_nor_body() -> None:
    """They may hold what belongs into no log."""
    assert "body" not in repr(VALUE)
    assert "ETag" not in repr(VALUE)
