"""What is said to a memcached server: several commands in one message, a reply for each.

Replies are framed by their lengths, never by a token that a value might contain. The meta protocol
says all of it; a server that does not speak it is talked to in the classic one, more slowly
(`classic.py`). (https://github.com/memcached/memcached/blob/master/doc/protocol.txt)
"""

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from ratekit.errors import StoreError

__all__ = [
    "Add", "Bump", "Command", "Delete", "Garbled", "Get", "Lost", "Put", "Reader", "Reply",
    "Unavailable", "check_keys", "talk_meta",
]  # fmt: skip

# Longer than any reply's first line, shorter than what would fill the memory.
_LONGEST_LINE = 2048
# memcached's own limit for a value is 1 MB unless it is told otherwise.
_LONGEST_VALUE = 128 << 20
# A relative time to live ends here; what is larger would be taken for a date.
_LONGEST_LIFE = 30 * 86_400

# Whatever the rest of the program does, nothing else is ever sent as a key.
_KEY = re.compile(rb"[!-~]{1,250}")


class Unavailable(StoreError):
    """The server could not be asked; nothing was sent."""


class Lost(StoreError):
    """The command was sent, and nobody knows what became of it."""


class Garbled(Lost):
    """The server said what no memcached says."""


class Reply(NamedTuple):
    """`done`: whether it was found, stored or deleted. `cas` is 0 where the server gave none."""

    done: bool
    value: bytes = b""
    cas: int = 0
    life: int = 0
    """How many seconds it will still be kept (if asked for)."""
    differs: bool = False
    """Whether a `cas` was refused because somebody else has written meanwhile."""

    @property
    def number(self) -> int | None:
        """The value as a number; None where it is none (numbers may be padded)."""
        words = self.value.split()
        if len(words) != 1 or not words[0].isdigit() or len(words[0]) > 20:
            return None
        return int(words[0])


class Get(NamedTuple):
    """Ask for a value. It counts as a use, which arithmetic does not."""

    key: bytes
    wants_life: bool = False

    def message(self) -> bytes:
        """Return what is sent."""
        return b"mg %b v c%b\r\n" % (self.key, b" t" if self.wants_life else b"")


class Bump(NamedTuple):
    """Count a use: the server drops first what has not been used for long."""

    key: bytes
    life: int

    def message(self) -> bytes:
        """Return what is sent."""
        return b"mg %b\r\n" % self.key


class Add(NamedTuple):
    """Move a number by `by` and return it; where there is none, let it begin at `first`.

    Without `first` a number that is not there is `done=False`. Downwards it ends at 0.
    """

    key: bytes
    by: int
    life: int
    first: int | None = None

    def message(self) -> bytes:
        """Return what is sent."""
        life = _life(self.life)
        start = b"" if self.first is None else b" N%d J%d" % (life, self.first)
        mode = b" MD" if self.by < 0 else b""
        return b"ma %b%b D%d%b T%d v c\r\n" % (self.key, mode, abs(self.by), start, life)


class Put(NamedTuple):
    """Store a value: if `cas` is still its token, if it is new (`cas=0`), or in any case (None)."""

    key: bytes
    value: bytes
    life: int
    cas: int | None = None

    def message(self) -> bytes:
        """Return what is sent."""
        how = b"" if self.cas is None else b" C%d" % self.cas if self.cas else b" ME"
        size = len(self.value)
        return b"ms %b %d T%d%b\r\n%b\r\n" % (self.key, size, _life(self.life), how, self.value)


class Delete(NamedTuple):
    """Delete a value, if `cas` is still its token."""

    key: bytes
    cas: int | None = None

    def message(self) -> bytes:
        """Return what is sent."""
        return b"md %b%b\r\n" % (self.key, b" C%d" % self.cas if self.cas else b"")


Command = Get | Bump | Add | Put | Delete


class Reader:
    """Reads lines and blocks of known length from `receive(n) -> bytes`."""

    def __init__(self, receive: Callable[[int], bytes]) -> None:
        self._receive = receive
        self._data = b""

    def line(self) -> bytes:
        """Return the next line, without its end."""
        while (end := self._data.find(b"\r\n")) < 0:
            if len(self._data) > _LONGEST_LINE:
                raise Garbled("a reply's line is too long")
            self._more()
        if end > _LONGEST_LINE:
            raise Garbled("a reply's line is too long")
        line, self._data = self._data[:end], self._data[end + 2 :]
        return line

    def block(self, size: int) -> bytes:
        """Return the next `size` bytes, which an end of line follows."""
        if not 0 <= size <= _LONGEST_VALUE:
            raise Garbled(f"a value of {size} bytes was announced")
        parts = [self._data]
        missing = size + 2 - len(self._data)
        while missing > 0:
            parts.append(self._receive(min(missing, 65536)))
            if not parts[-1]:
                raise Lost("the connection ended within a value")
            missing -= len(parts[-1])
        data = b"".join(parts)
        block, end, self._data = data[:size], data[size : size + 2], data[size + 2 :]
        if end != b"\r\n":
            raise Garbled("a value is not as long as was announced")
        return block

    def is_at_end(self) -> bool:
        """Return whether everything that came has been read."""
        return not self._data

    def _more(self) -> None:
        data = self._receive(65536)
        if not data:
            raise Lost("the connection ended within a reply")
        self._data += data


def talk_meta(
    send: Callable[[bytes], object], reader: Reader, commands: Sequence[Command]
) -> list[Reply]:
    """Send all commands in one message; return their replies."""
    check_keys(commands)
    send(b"".join([command.message() for command in commands]))
    replies = [_reply(reader) for _ in commands]
    if not reader.is_at_end():
        raise Garbled("there were more replies than commands")
    return replies


def check_keys(commands: Sequence[Command]) -> None:
    """Raise `ValueError` for a key that memcached would take for something else."""
    for command in commands:
        if not _KEY.fullmatch(command.key):
            raise ValueError(f"{command.key!r} is no key: 1 to 250 printable ASCII bytes")


_DONE = Reply(done=True)
_NOT_DONE = Reply(done=False)
_DIFFERS = Reply(done=False, differs=True)
# What the server says of a command without a value.
_WORDS = {
    b"HD": _DONE, b"EN": _NOT_DONE, b"NF": _NOT_DONE, b"NS": _NOT_DONE, b"EX": _DIFFERS,
}  # fmt: skip


def _reply(reader: Reader) -> Reply:
    line = reader.line()
    reply = _WORDS.get(line)
    if reply is not None:
        return reply
    words = line.split()
    if not words:
        raise Garbled("an empty line is no reply")
    if words[0] == b"VA" and len(words) > 1 and words[1].isdigit() and len(words[1]) < 12:
        value = reader.block(int(words[1]))
        cas = life = 0
        for word in words[2:]:
            number = word[1:]
            if word[:1] == b"c" and number.isdigit():
                cas = int(number)
            elif word[:1] == b"t":
                # -1: for ever.
                life = int(number) if number.isdigit() else -1
        return Reply(done=True, value=value, cas=cas, life=life)
    if words[0] in _WORDS:
        return _WORDS[words[0]]
    if words[0] == b"SERVER_ERROR":
        # It is full, or the value too large: what was asked for was not done.
        return Reply(done=False, value=line)
    if words[0] == b"CLIENT_ERROR" and b"non-numeric" in line:
        return Reply(done=False, value=line)
    raise Garbled(f"{line[:80]!r} is no reply")


def _life(seconds: int) -> int:
    """Return a time to live; beyond 30 days, for ever."""
    return seconds if seconds <= _LONGEST_LIFE else 0
