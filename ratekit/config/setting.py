"""One setting: a field of `Config`, with the kind of its values and a line about it."""

from collections.abc import Iterable, Mapping
from dataclasses import field
from typing import Any, NamedTuple

from ratekit.config.parsing import Kind, Wrong, masked, shortened
from ratekit.errors import ConfigurationError

__all__ = ["Setting", "Source", "nearest", "setting"]


class Source(NamedTuple):
    """Where a value came from (empty: nowhere, it is the default), and how an error names it."""

    where: str
    label: str


class Setting(NamedTuple):
    """One field of a `Config`. `unset`: what holds where its value is None."""

    name: str
    kind: Kind
    default: Any
    about: str
    unset: str
    process_wide: bool

    def read(self, value: object, label: str) -> Any:
        """Return the value to use. Raises `ConfigurationError` that calls it `label`."""
        if value is None and self.default is None:
            return None
        try:
            return self.kind.read(value)
        except Wrong:
            shown = "***" if self.kind.is_secret else shortened(value)
            raise ConfigurationError(f"{label} {shown}: use {self.kind.right}") from None
        except ConfigurationError as error:
            raise ConfigurationError(f"{label}: {error}") from error

    def show(self, value: object) -> str:
        """Return the text of a value that was read, without a secret."""
        return self.unset if value is None and self.unset else self.kind.show(value)

    def repr(self, value: Any) -> str:
        """Return a value that was read as code has it, without a secret."""
        if self.kind.is_secret:
            return "'***'"
        if isinstance(value, frozenset):
            value = sorted(value)
        return masked(repr(dict(value) if isinstance(value, Mapping) else value))


def setting(
    kind: Kind, about: str, *, default: Any = None, unset: str = "", process_wide: bool = False
) -> Any:
    """Return the dataclass field of a setting, as `Setting` describes it."""
    metadata = {"kind": kind, "about": about, "unset": unset, "process_wide": process_wide}
    return field(default=default, metadata=metadata)


def nearest(name: object, known: Iterable[str], prefix: str = "") -> str:
    """Return the end of an error about a name that is not known; both stand behind a prefix."""
    from difflib import get_close_matches  # slow to import, and for errors alone

    by_word = {word.lower(): f"{prefix}{word}" for word in known}
    near = get_close_matches(str(name).lower(), by_word, n=1)
    if near:
        return f"; did you mean {by_word[near[0]]}?"
    return f"; use one of {', '.join(by_word.values())}"
