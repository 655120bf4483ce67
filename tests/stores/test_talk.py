"""The two protocols: what a server says in each, whole, in pieces, or wrongly."""

import uuid
from collections.abc import Callable

import pytest

from ratekit.stores.memcached.classic import talk_classic
from ratekit.stores.memcached.store import MemcachedStore
from ratekit.stores.memcached.wire import (
    Add,
    Bump,
    Command,
    Delete,
    Garbled,
    Get,
    Lost,
    Put,
    Reader,
    Reply,
    talk_meta,
)
from tests.conftest import Memcached

LONG = b"9" * 5000


class Server:
    """Says for each message the next of `replies`, one byte at a time."""

    def __init__(self, *replies: bytes, end_after: int | None = None) -> None:
        self.replies = list(replies)
        self.said = b""
        self.sent: list[bytes] = []
        self.left = end_after

    def send(self, message: bytes) -> None:
        """Take a message."""
        self.sent.append(message)
        if self.replies:
            self.said += self.replies.pop(0)

    def receive(self, size: int) -> bytes:
        """Return the next byte; none at the end of the connection."""
        if self.left is not None:
            if self.left == 0:
                return b""
            self.left -= 1
        byte, self.said = self.said[:1], self.said[1:]
        return byte


class Torrent(Server):
    """Says all at once what it says."""

    def receive(self, size: int) -> bytes:
        """Return as much as is wanted."""
        data, self.said = self.said[:size], self.said[size:]
        return data


def classic(server: Server, *commands: Command) -> list[Reply]:
    """Return what the commands' replies mean in the classic protocol."""
    return talk_classic(server.send, Reader(server.receive), commands)


def meta(server: Server, *commands: Command) -> list[Reply]:
    """Return what the commands' replies mean in the meta protocol."""
    return talk_meta(server.send, Reader(server.receive), commands)


SCRIPT = (
    b"VALUE k 0 9 77\r\nEND\r\nMN\r\n\r\nEND\r\n",
    b"TOUCHED\r\n",
    b"NOT_FOUND\r\n",
    b"NOT_STORED\r\n",
    b"12\r\n",
    b"EXISTS\r\n",
    b"DELETED\r\n",
)
ASKED: list[Command] = [
    Get(b"k"),
    Bump(b"k", 60),
    Add(b"n", 5, 60, first=7),
    Put(b"k", b"x", 60, cas=76),
    Delete(b"k"),
]
MEANT = [
    Reply(done=True, value=b"END\r\nMN\r\n", cas=77),
    Reply(done=True),
    Reply(done=True, value=b"12"),
    Reply(done=False, differs=True),
    Reply(done=True),
]


def test_classic_replies_mean_the_same_byte_by_byte() -> None:
    """A value may look like the end of one; a number that came meanwhile is counted on."""
    assert classic(Server(*SCRIPT), *ASKED) == MEANT


def test_a_classic_connection_may_end_anywhere() -> None:
    """Nobody knows then what became of the commands."""
    for end in range(sum(map(len, SCRIPT))):
        with pytest.raises(Lost):
            classic(Server(*SCRIPT, end_after=end), *ASKED)


@pytest.mark.parametrize(
    "said",
    [
        b"\r\n",
        b"ERROR\r\n",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"VALUE other 0 1 5\r\nx\r\nEND\r\n",
        b"VALUE k 0 1\r\nx\r\nEND\r\n",
        b"VALUE k 0 x 5\r\nx\r\nEND\r\n",
        b"VALUE k 0 -1 5\r\n\r\nEND\r\n",
        b"VALUE k 0 99999999999 5\r\nx\r\nEND\r\n",
        b"VALUE k 0 1 5\r\nxx\r\nEND\r\n",
        b"VALUE k 0 1 5\r\nx\r\nVALUE k 0 1 5\r\nx\r\nEND\r\n",
        b"STORED\r\n",
        b"END\r\nEND\r\n",
        b"VALUE k 0 1 " + LONG + b"\r\nx\r\nEND\r\n",
        b"VALUE k 0 " + LONG + b" 5\r\nx\r\nEND\r\n",
        b"E" * 5000,
    ],
)
def test_classic_garbage_is_not_believed(said: bytes) -> None:
    """It ends the conversation, and is not taken for an answer."""
    with pytest.raises(Garbled):
        classic(Torrent(said), Get(b"k"))


@pytest.mark.parametrize(
    "said",
    [
        b"VA 1 c" + LONG + b"\r\nx\r\n",
        b"VA 1 t" + LONG + b"\r\nx\r\n",
        b"VA " + LONG + b"\r\nx\r\n",
        LONG + b"\r\n",
        b"HD " + LONG + b"\r\n",
        b"EN\r\nEN\r\n",
        b"EN\r\nE",
        b"VA 134217729 c1\r\n",
        b"VA 1 c1\r\nx\n\n",
    ],
)
def test_meta_garbage_is_not_believed(said: bytes) -> None:
    """However long its numbers are, and however they arrive."""
    with pytest.raises(Garbled):
        meta(Torrent(said), Get(b"k"))


def test_an_announced_value_that_does_not_come_is_lost() -> None:
    """As much as was announced is waited for, and no more memory is taken than came."""
    with pytest.raises(Lost):
        meta(Torrent(b"VA 134217728 c1\r\nx"), Get(b"k"))


@pytest.mark.parametrize("said", [b"SERVER_ERROR out of memory storing object\r\n"])
def test_a_full_server_has_not_done_it(said: bytes) -> None:
    """It answers, so it is not lost; what it was asked for was not done."""
    for talk in (meta, classic):
        for command in (Put(b"k", b"x", 1), Add(b"k", 1, 1, first=1)):
            (reply,) = talk(Server(said), command)
            assert not reply.done
            assert reply.number is None


@pytest.mark.parametrize("talk", [meta, classic])
@pytest.mark.parametrize("key", [b"", b"a b", b"a\r\nflush_all", b"k\n", b"k" * 251, b"\x00"])
def test_a_wrong_key_keeps_all_from_being_sent(talk: Callable[..., object], key: bytes) -> None:
    """Also the commands before it."""
    server = Server(*SCRIPT)
    for command in (Get(key), Bump(key, 1), Add(key, 1, 1), Put(key, b"", 1), Delete(key)):
        with pytest.raises(ValueError, match="no key"):
            talk(server, Get(b"k"), command)
    assert server.sent == []


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (b"10  ", 10),
        (b"0 ", 0),
        (b" 7", 7),
        (b"18446744073709551615", (1 << 64) - 1),
        (b"+1", None),
    ],
)
def test_a_padded_number_is_a_number(value: bytes, number: int | None) -> None:
    """A server pads what became shorter."""
    assert Reply(done=True, value=value).number == number


def test_every_command_means_the_same_in_both(memcached: Memcached) -> None:
    """In one message or one after the other: each protocol brings the same of each command."""
    found = [conversation(memcached, is_meta=is_meta) for is_meta in (True, False)]
    assert found[0] == found[1]
    assert [number for _, number, _, _ in found[0][1:5]] == [7, 12, 10, 0]


def conversation(
    memcached: Memcached, *, is_meta: bool
) -> list[tuple[bool, int | None, bytes, bool]]:
    """Return what a real server says to every kind of command."""
    (server,) = MemcachedStore(memcached.url).servers
    n, k = (b"rk1:test:" + uuid.uuid4().hex.encode() for _ in range(2))
    server.talk([Get(n)])
    server._meta = is_meta
    replies = server.talk(
        [
            Add(n, 5, 60),
            Add(n, 5, 60, first=7),
            Add(n, 5, 60, first=7),
            Add(n, -2, 60),
            Add(n, -99, 60),
            Get(n),
            Bump(n, 60),
            Bump(k, 60),
            Get(k),
            Put(k, b"\r\nMN\r\nEND\r\n", 60, cas=0),
            Put(k, b"lost", 60, cas=0),
            Get(k),
            Add(k, 1, 60),
            Put(k, b"x" * 100_000, 90 * 86_400),
            Get(k),
            Put(k, b"1" * 250, 60),
            Add(k, 1, 60),
            Delete(b"k" * 250),
            Put(k, b"x" * 2_000_000, 60),
            Get(k),
            Put(k, b"", 60),
        ]
    )
    token = server.talk([Get(k)])[0].cas
    replies += server.talk([Put(k, b"5", 60, cas=token), Put(k, b"6", 60, cas=token), Get(k)])
    replies += server.talk([Put(n + b"-", b"6", 60, cas=token), Delete(k, cas=token), Get(k)])
    token = server.talk([Get(k)])[0].cas
    replies += server.talk([Delete(k, cas=token), Get(k), Delete(k, cas=token), Delete(k)])
    # A refusal is told in each protocol's own words.
    return [(r.done, r.number, r.value if r.done else b"", r.differs) for r in replies]
