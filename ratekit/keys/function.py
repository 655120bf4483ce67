"""What a key function is, the plainest one, and several as one."""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable

from ratekit.call import Call
from ratekit.errors import ConfigurationError

__all__ = ["KeyFunction", "by_each", "by_origin"]

# Longer than any origin whose host is a name of the DNS.
_LONGEST = 300
_JOINT = " + "
_UNPRINTABLE = r"[^!-~]|#"


class KeyFunction(ABC):
    """A key function made here; any function of a call that returns text or None is one too.

    `portable`: whether its keys mean the same in every process.
    """

    __slots__ = ()

    portable: bool

    @abstractmethod
    def __call__(self, call: Call) -> str | None:
        """Return the key of a call, None where the limiter does not apply to it."""


def by_origin(call: Call) -> str:
    """Return scheme, host and port, as in "https://api.example.com": what a limiter does itself."""
    origin = call.key
    return _stand_in(origin) if " " in origin else _plain(origin)


def by_each(*parts: Callable[[Call], str | None]) -> KeyFunction:
    """Return a key function: calls share a key where they share that of every part.

    `parts`: key functions, such as `by_route(...)` and `by_credential()`, or yours. Where one of
    them returns None the limiter does not apply.

    Raises `ConfigurationError` for what is no function, or returns what is no key.
    """
    return _ByEach(parts)


class _ByEach(KeyFunction):
    __slots__ = ("parts", "portable")

    def __init__(self, parts: tuple[Callable[[Call], str | None], ...]) -> None:
        for part in parts:
            if not callable(part):
                raise ConfigurationError(
                    f"by_each: {part!r} is no key function; use functions of a call, such as "
                    "by_route('/users/{id}'), by_credential()"
                )
        if not parts:
            raise ConfigurationError(
                "by_each has no parts; use by_each(by_route('/users/{id}'), by_credential())"
            )
        self.parts = parts
        self.portable = all(getattr(part, "portable", True) for part in parts)

    def __call__(self, call: Call) -> str | None:
        texts = []
        for part in self.parts:
            text = part(call)
            if text is None:
                return None
            if not isinstance(text, str):
                # Its type alone: who returns the wrong thing may have returned a secret.
                raise ConfigurationError(
                    f"by_each: {part!r} returned an object of type {type(text).__name__}; a key "
                    "function returns text, or None where the limiter does not apply"
                )
            texts.append(_stand_in(text) if _JOINT in text else _plain(text))
        origin = by_origin(call)
        first = texts[0]
        opening = f"{origin} "
        if first == origin or first.startswith(opening):
            # The origin is said once, and a part that says nothing else last need not be there.
            while len(texts) > 1 and texts[-1] == origin:
                del texts[-1]
            texts[1:] = [text.removeprefix(opening) for text in texts[1:]]
        return _JOINT.join(texts)

    def __repr__(self) -> str:
        names = (getattr(part, "__qualname__", None) or repr(part) for part in self.parts)
        return f"by_each({', '.join(names)})"

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.parts,)


def _plain(text: str) -> str:
    """Return `text`, or what stands for it where it is long or would not print."""
    if text.isascii() and text.isprintable() and len(text) <= _LONGEST and "#" not in text:
        return text
    return _stand_in(text)


def _stand_in(text: str) -> str:
    from hashlib import blake2b  # slow to import, and hardly ever needed

    # No other key has a "#", so this one cannot be asked for by its text.
    digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
    return f"{re.sub(_UNPRINTABLE, '?', text[:40])}#{digest}"
