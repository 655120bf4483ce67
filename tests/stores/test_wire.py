"""What is said to a server and heard from it: framed by lengths, whatever arrives when."""

from collections.abc import Callable

import pytest

from ratekit.stores.memcached.states import dump, load
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

TRICKY = b"a\r\nMN\r\nVA 3 c1\r\nHD"
COMMANDS: list[Command] = [Get(b"k", wants_life=True), Bump(b"k", 5), Add(b"n", 3, 60, first=7)]
SAID = b"VA %d c12 t99\r\n%b\r\nHD\r\nVA 4 c13\r\n10  \r\n" % (len(TRICKY), TRICKY)
MEANT = [
    Reply(done=True, value=TRICKY, cas=12, life=99),
    Reply(done=True),
    Reply(done=True, value=b"10  ", cas=13),
]


def in_parts(*parts: bytes) -> Callable[[int], bytes]:
    """Return a `receive` that brings these, and then the end of the connection."""
    left = [part for part in parts if part]

    def receive(size: int) -> bytes:
        if not left:
            return b""
        part = left.pop(0)
        if len(part) > size:
            left.insert(0, part[size:])
        return part[:size]

    return receive


def talk(*parts: bytes) -> list[Reply]:
    """Return what the commands' replies mean when they arrive like this."""
    return talk_meta(lambda message: None, Reader(in_parts(*parts)), COMMANDS)


def test_a_reply_may_be_cut_anywhere() -> None:
    """However the bytes are cut in two, or come one by one, they mean the same."""
    for cut in range(len(SAID) + 1):
        assert talk(SAID[:cut], SAID[cut:]) == MEANT
    assert talk(*[SAID[at : at + 1] for at in range(len(SAID))]) == MEANT
    assert MEANT[2].number == 10


def test_a_connection_that_ends_early_is_lost() -> None:
    """Nobody knows then what became of the commands."""
    for cut in range(len(SAID)):
        with pytest.raises(Lost):
            talk(SAID[:cut])


@pytest.mark.parametrize(
    "said",
    [
        SAID + b"HD\r\n",
        b"VA 2 c1\r\nabc\r\nHD\r\nHD\r\n",
        b"VA -1 c1\r\n\r\n",
        b"VA 99999999999 c1\r\n",
        b"VA x\r\n",
        b"\r\n\r\n\r\n",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"ERROR\r\n",
        b"x" * 5000,
        b"CLIENT_ERROR bad command line format\r\n",
    ],
)
def test_what_no_memcached_says_is_not_believed(said: bytes) -> None:
    """Garbage ends the conversation, and is not taken for an answer."""
    with pytest.raises(Garbled):
        talk(said)


@pytest.mark.parametrize("key", [b"", b"a b", b"a\r\nflush_all", b"k" * 251, b"\x7f", "é".encode()])
def test_no_other_key_is_ever_sent(key: bytes) -> None:
    """A key that could be a command is refused before anything is sent."""
    sent: list[bytes] = []
    for command in (Get(key), Bump(key, 1), Add(key, 1, 1), Put(key, b"flush_all", 1), Delete(key)):
        with pytest.raises(ValueError, match="no key"):
            talk_meta(sent.append, Reader(in_parts()), [command])
    assert sent == []


@pytest.mark.parametrize("value", [b"", b"1 2", b"-5", b"abc", b"1" * 21])
def test_only_a_number_is_a_number(value: bytes) -> None:
    """memcached would count on with some of these; nobody else should."""
    assert Reply(done=True, value=value).number is None


@pytest.mark.parametrize("meta", [True, False], ids=["meta", "classic"])
def test_both_protocols_say_the_same(memcached: Memcached, *, meta: bool) -> None:
    """Every command does in the one what it does in the other."""
    (server,) = MemcachedStore(memcached.url).servers
    server.talk([Bump(b"rk1:none", 1)])
    server._meta = meta
    key = b"rk1:test:both:%d" % meta

    def one(command: Command) -> Reply:
        return server.talk([command])[0]

    assert not one(Get(key)).done
    assert not one(Add(key, 5, 60)).done
    assert one(Add(key, 5, 60, first=7)).number == 7
    assert one(Add(key, 5, 60, first=7)).number == 12
    assert one(Add(key, -2, 60)).number == 10
    assert one(Add(key, -99, 60)).number == 0
    assert one(Bump(key, 60)).done
    assert not one(Put(key, b"1", 60, cas=0)).done
    token = one(Get(key)).cas
    assert one(Put(key, TRICKY, 60, cas=token)).done
    assert one(Put(key, b"other", 60, cas=token)).differs
    assert one(Get(key)).value == TRICKY
    assert one(Add(key, 1, 60)).number is None
    assert not one(Delete(key, cas=token)).done
    assert one(Delete(key, cas=one(Get(key)).cas)).done
    assert not one(Get(key)).done
    assert one(Put(key, b"", 60)).done
    assert one(Delete(key)).done


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[",
        b"null",
        b"1.5",
        b"true",
        b'"x"',
        b"[" * 99,
        b'{"a":[1.5]}',
        b'{"b":[1]}',
        b"9" * 40,
        b"\xff",
    ],
)
def test_a_state_that_is_none_reads_as_none(text: bytes) -> None:
    """What another program wrote, or a bit that flipped, is nobody's state."""
    assert load(text) is None


def test_a_state_comes_back_as_it_was() -> None:
    """Integers, tuples and arrays of them."""
    from array import array

    state = (5, (1, 2), array("q", [1000, 7, 1000]), -1)
    assert load(dump(state)) == state
