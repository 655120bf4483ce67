"""The same commands for a server without the meta protocol, one round trip or more for each.

It has no token for what arithmetic made (`Reply.cas` is 0 then: ask with `Get`), and does not say
how long something will be kept.
"""

from collections.abc import Callable, Sequence

from ratekit.stores.memcached.wire import (
    Add,
    Bump,
    Command,
    Delete,
    Garbled,
    Get,
    Put,
    Reader,
    Reply,
    check_keys,
)

__all__ = ["talk_classic"]

_TRIES = 3


def talk_classic(
    send: Callable[[bytes], object], reader: Reader, commands: Sequence[Command]
) -> list[Reply]:
    """Send one command after the other; return their replies."""
    check_keys(commands)
    talk = _Classic(send, reader)
    replies = [talk.one(command) for command in commands]
    if not reader.is_at_end():
        raise Garbled("there were more replies than commands")
    return replies


class _Classic:
    def __init__(self, send: Callable[[bytes], object], reader: Reader) -> None:
        self._send = send
        self._reader = reader

    def one(self, command: Command) -> Reply:
        match command:
            case Get(key):
                return self._get(key)
            case Bump(key, life):
                return Reply(done=self._ask(b"touch %b %d" % (key, _life(life))) == b"TOUCHED")
            case Add():
                return self._add(command)
            case Put(key, value, life, cas):
                return self._put(key, value, _life(life), cas)
            case Delete(key, None):
                return Reply(done=self._ask(b"delete %b" % key) == b"DELETED")
            case Delete(key, cas):
                # There is no conditional delete, but one may store what is gone at once.
                return self._put(key, b"", -1, cas)

    def _get(self, key: bytes) -> Reply:
        words = self._ask(b"gets %b" % key).split()
        if words == [b"END"]:
            return Reply(done=False)
        sized = len(words) == 5 and words[3].isdigit() and words[4].isdigit()
        if not sized or words[:2] != [b"VALUE", key]:
            raise Garbled(f"{b' '.join(words)[:80]!r} is no value")
        value = self._reader.block(int(words[3]))
        if self._reader.line() != b"END":
            raise Garbled("a value is followed by another")
        return Reply(done=True, value=value, cas=int(words[4]))

    def _add(self, command: Add) -> Reply:
        verb = b"decr" if command.by < 0 else b"incr"
        for _ in range(_TRIES):
            said = self._ask(b"%b %b %d" % (verb, command.key, abs(command.by)))
            if said.isdigit():
                return Reply(done=True, value=said)
            if said != b"NOT_FOUND":
                return Reply(done=False, value=said)
            if command.first is None:
                break
            first = b"%d" % command.first
            if self._put(command.key, first, _life(command.life), 0).done:
                return Reply(done=True, value=first)
        return Reply(done=False)

    def _put(self, key: bytes, value: bytes, life: int, cas: int | None) -> Reply:
        verb, token = b"set", b""
        if cas is not None:
            verb, token = (b"cas", b" %d" % cas) if cas else (b"add", b"")
        head = b"%b %b 0 %d %d%b" % (verb, key, life, len(value), token)
        said = self._ask(b"%b\r\n%b" % (head, value))
        return Reply(done=said == b"STORED", differs=said == b"EXISTS")

    def _ask(self, message: bytes) -> bytes:
        self._send(message + b"\r\n")
        said = self._reader.line()
        known = said.isdigit() or said.split(b" ")[0] in _SAID
        if not known:
            raise Garbled(f"{said[:80]!r} is no reply")
        return said


_SAID = {
    b"VALUE", b"END", b"STORED", b"NOT_STORED", b"EXISTS", b"NOT_FOUND", b"DELETED", b"TOUCHED",
    b"SERVER_ERROR", b"CLIENT_ERROR",
}  # fmt: skip


def _life(seconds: int) -> int:
    return seconds if seconds <= 30 * 86_400 else 0
