"""How settings are read: text as a variable has it, or a value as a file or code has it.

A `Kind` reads one kind of setting and says what would be right. Whatever is read reads again as
itself, and `show` gives a text that reads as the same value.
"""

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

__all__ = [
    "METHODS",
    "SIZE",
    "SWITCH",
    "TEXT",
    "TIMEOUT",
    "Kind",
    "Wrong",
    "masked",
    "one_of",
    "seconds",
    "share",
    "shortened",
    "statuses",
    "whole",
    "word_of",
]

_ON, _OFF = ("on", "true", "yes", "1"), ("off", "false", "no", "0")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(|b|kb|kib|mb|mib|gb|gib)", re.IGNORECASE)
_SIZES = {"kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30}
_METHOD = re.compile(r"[A-Za-z]+(?:-[A-Za-z]+)*")
_MOST_SHOWN = 100


class Wrong(Exception):
    """A value is not what its kind takes; a parser may also say more, in an error of its own."""


@dataclass(frozen=True)
class Kind:
    """`read(value)` returns the value to use, or raises `Wrong` or `ConfigurationError`.

    `right`: what would be right, after "use". `show`: the text of a value that was read.
    """

    read: Callable[[Any], Any]
    right: str
    show: Callable[[Any], str] = str
    is_secret: bool = False


def masked(text: str) -> str:
    """Return a text without the name and the password in the URLs in it."""
    return re.sub(r"(?<=://)[^\s'\"]*@", "***@", text)


def shortened(value: object) -> str:
    """Return a value for a message: short, and without passwords."""
    text = masked(repr(value))
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}..."


# Numbers.


def _number(value: Any) -> float:
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            raise Wrong from None
        value = int(value) if value.is_integer() else value
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise Wrong
    return value


def seconds(*, above_0: bool = False, word: str | None = None, means: Any = None) -> Kind:
    """Return the kind of lengths of time; `word` stands for the value `means`."""

    def read(value: Any) -> Any:
        if value == means or (word is not None and word_of(value) == word):
            return means
        if isinstance(value, str):
            value = value.rstrip().removesuffix("s")
        number = _number(value)
        if number < 0 or (above_0 and not number):
            raise Wrong
        return number

    right = f"seconds {'above' if above_0 else 'from'} 0{'' if above_0 else ' up'}, such as 30"
    return Kind(
        read,
        right if word is None else f"{right}, or {word}",
        lambda value: str(word) if value == means else f"{value} s",
    )


def share(*, above_0: bool = False, off: bool = False) -> Kind:
    """Return the kind of shares of a whole: 0.1 or "10%"."""

    def read(value: Any) -> Any:
        if off and (value is None or word_of(value) == "off"):
            return None
        if isinstance(value, str) and value.rstrip().endswith("%"):
            number = _number(value.rstrip().removesuffix("%")) / 100
        else:
            number = _number(value)
        if not 0 <= number <= 1 or (above_0 and not number):
            raise Wrong
        return number

    bounds = "above 0, at most 1" if above_0 else "from 0 to 1"
    right = f"a share {bounds}, such as 0.1 or 10%"
    return Kind(
        read,
        f"{right}, or off" if off else right,
        lambda value: "off" if value is None else f"{100 * value:g}%",
    )


def whole(least: int, off: int | None) -> Kind:
    """Return the kind of whole numbers from `least` up; `off` is the value of "off"."""

    def read(value: Any) -> Any:
        if value == off or word_of(value) == "off":
            return off
        number = _number(value)
        if number != int(number) or number < least:
            raise Wrong
        return int(number)

    right = f"a whole number from {least} up, or off"
    return Kind(read, right, lambda value: "off" if value == off else str(value))


def _read_size(value: Any) -> int:
    if isinstance(value, str):
        match = _SIZE.fullmatch(value.strip())
        if match is None:
            raise Wrong
        value = float(match[1]) * _SIZES.get(match[2].lower(), 1)
    number = _number(value)
    if number < 1:
        raise Wrong
    return int(number)


def _show_size(value: int) -> str:
    return f"{value // (1 << 20)} MiB" if value % (1 << 20) == 0 else f"{value} B"


# Words and lists.


def word_of(value: object) -> str | None:
    """Return a text in small letters, None for any other value."""
    return value.strip().lower() if isinstance(value, str) else None


def one_of(*words: str) -> Kind:
    """Return the kind that is one of some words."""

    def read(value: Any) -> str:
        if word_of(value) not in words:
            raise Wrong
        return str(word_of(value))

    return Kind(read, f"{', '.join(words[:-1])} or {words[-1]}")


def _read_switch(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if word_of(value) not in (*_ON, *_OFF):
        raise Wrong
    return word_of(value) in _ON


def _items(value: Any) -> list[Any]:
    if isinstance(value, str):
        return [] if word_of(value) == "off" else value.replace(",", " ").split()
    if isinstance(value, (int, bool)) or not isinstance(value, Iterable):
        return [value]
    return list(value)


def statuses(least: int) -> Kind:
    """Return the kind of lists of status codes."""

    def read(value: Any) -> frozenset[int]:
        numbers = [_number(item) for item in _items(value)]
        if not all(number == int(number) and least <= number < 600 for number in numbers):
            raise Wrong
        return frozenset(map(int, numbers))

    right = f"status codes from {least} to 599, such as 502, 503, or off"
    return Kind(read, right, lambda value: ", ".join(map(str, sorted(value))) or "off")


def _read_methods(value: Any) -> frozenset[str]:
    methods = _items(value)
    if not all(isinstance(method, str) and _METHOD.fullmatch(method) for method in methods):
        raise Wrong
    return frozenset(method.upper() for method in methods)


def _read_timeout(value: Any) -> Any:
    if value is False or word_of(value) == "off":
        return False
    if isinstance(value, str) and "," in value:
        value = value.split(",")
    if isinstance(value, (list, tuple)):
        connect, read = map(_number, value) if len(value) == 2 else (0, 0)
        if connect <= 0 or read <= 0:
            raise Wrong
        return connect, read
    number = _number(value)
    if number <= 0:
        raise Wrong
    return number


def _show_timeout(value: Any) -> str:
    if value is False:
        return "off"
    return ", ".join(str(part) for part in (value if isinstance(value, tuple) else (value,)))


def _read_text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise Wrong
    return value.strip()


SIZE = Kind(_read_size, "a size such as 64 MiB, or bytes", _show_size)
SWITCH = Kind(_read_switch, "on or off", lambda value: "on" if value else "off")
METHODS = Kind(
    _read_methods,
    "methods such as GET, PUT, or off",
    lambda value: ", ".join(sorted(value)) or "off",
)
TIMEOUT = Kind(
    _read_timeout, "seconds above 0, such as 30, or connect, read, such as 5, 30, or off",
    _show_timeout,
)  # fmt: skip
TEXT = Kind(_read_text, "text")
