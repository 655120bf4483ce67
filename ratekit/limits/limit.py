"""The language of limits: "100/minute", "100/second burst 20", "300/15 minutes; 5000/hour fixed".

A `Limit` is what a user wrote, checked and made exact. What it promises is computed from it by the
algorithm's own file.
"""

import re
from dataclasses import dataclass
from typing import Self

from ratekit.clock import SECOND
from ratekit.errors import ConfigurationError

__all__ = ["UNLIMITED", "Limit"]

_UNITS = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400}
_SHORT = {
    "s": "second", "sec": "second", "min": "minute", "h": "hour", "hr": "hour", "d": "day",
}  # fmt: skip
_SHAPE = re.compile(
    r"\s*(?P<count>[^\s/]+)\s*/\s*(?P<many>[\d.]+)?\s*(?P<unit>[^\W\d]+)?(?P<rest>.*?)\s*"
)
_FORMS = "nothing, 'burst <n>', 'smooth', 'window' or 'fixed'"
_WORDS = ("burst", "smooth", "window", "fixed")
_PERIODS = "second, minute, hour, day, a count of them ('300/15 minutes') or seconds ('300/900')"
_MOST_PER_SECOND = 1_000_000_000
_MOST_DIGITS = 15
_MOST_JOINED = 8


@dataclass(frozen=True, slots=True)
class Limit:
    """At most `count` permits in `period_ns` nanoseconds.

    `form` is the algorithm: "bucket", "window" (sliding) or "fixed" (aligned to the epoch).
    `burst` is how many a bucket grants at once: a number the user named, 1 for `smooth`, None
    where the limit does not say (the default form, which is safe for every kind of server).
    """

    text: str
    count: int
    period_ns: int
    burst: int | None = None
    form: str = "bucket"

    def __post_init__(self) -> None:
        for name in ("count", "period_ns", "burst"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < 1):
                raise ConfigurationError(f"limit's {name} {value!r}: use a whole number from 1 up")
        if self.form not in ("bucket", "window", "fixed"):
            raise ConfigurationError(
                f"limit's form {self.form!r}: use 'bucket', 'window' or 'fixed'"
            )
        if self.form != "bucket" and self.burst is not None:
            raise ConfigurationError(f"limit's form {self.form!r} takes no burst; leave it out")

    @property
    def label(self) -> str:
        """The limit in a normal form of plain ASCII: "300/15 minutes window"."""
        length = self.period_ns / SECOND
        unit = next((u for u in reversed(_UNITS) if length % _UNITS[u] == 0), None)
        many = length / _UNITS[unit or "second"]
        period = unit if unit and many == 1 else f"{many:g} {unit or 'second'}s"
        forms = {"bucket": "", "window": " window", "fixed": " fixed"}
        burst = f" burst {self.burst}" if self.burst is not None else ""
        return f"{self.count}/{period}{burst}{forms[self.form]}"

    @classmethod
    def parse_all(cls, text: str) -> tuple[Self, ...]:
        """Read limits joined with `;`, which are all kept at once: `10/second; 300/15 minutes`.

        Raises `ConfigurationError` as `parse` does, and for two limits of one form and period.
        """
        if not isinstance(text, str):
            raise _wrong(text, "it must be text", "a limit such as '100/minute'")
        parts = [part for part in text.split(";") if part.strip()] or [text]
        if len(parts) > _MOST_JOINED:
            raise _wrong(text[:40], f"{len(parts)} limits are joined", f"at most {_MOST_JOINED}")
        limits = tuple(cls.parse(part) for part in parts)
        seen: dict[tuple[str, int], Self] = {}
        for limit in limits:
            other = seen.setdefault((limit.form, limit.period_ns), limit)
            if other is not limit:
                what = f"{other.text!r} and {limit.text!r} count the same period in the same form"
                raise _wrong(text, what, "the lower of them")
        return limits

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `<n>/<period>`, optionally followed by `burst <n>`, `smooth`, `window` or `fixed`.

        Raises `ConfigurationError` naming what is wrong and what would be right.
        """
        if not isinstance(text, str):
            raise _wrong(text, "it must be text", "a limit such as '100/minute'")
        match = _SHAPE.fullmatch(text)
        if match is None:
            raise _wrong(text, "it has no form of a limit", "'<n>/<period>', such as '100/minute'")
        if ";" in text:
            raise _wrong(text, "it joins several limits", "Limit.parse_all, which reads them all")
        count = _whole(text, match["count"], "the number of permits")
        period_ns = _period(text, match["many"], match["unit"])
        words = match["rest"].split()
        # "100/60 burst 20" and "100/60 smooth": the word after bare seconds is not a unit.
        if match["unit"] in _WORDS:
            words.insert(0, match["unit"])
        if count * SECOND > _MOST_PER_SECOND * period_ns:
            raise _wrong(text, "that is more than one permit a nanosecond", "a lower limit")
        form, burst = _form(text, words)
        return cls(text.strip(), count, period_ns, burst, form)


UNLIMITED = Limit("no limit", 1_000_000_000, SECOND, burst=1_000_000_000)
"""As many as one likes: for a limiter that was told nothing, and learns."""


def _form(text: str, words: list[str]) -> tuple[str, int | None]:
    match words:
        case []:
            return "bucket", None
        case ["smooth"]:
            return "bucket", 1
        case ["burst", number]:
            return "bucket", _whole(text, number, "the burst")
        case ["window" | "fixed" as form]:
            return form, None
        case ["burst"]:
            raise _wrong(text, "the burst has no number", "'burst <n>', such as 'burst 20'")
        case _:
            raise _wrong(text, f"unknown form {' '.join(words)!r}", f"{_FORMS} after the period")


def _whole(text: str, number: str, what: str) -> int:
    if len(number) > _MOST_DIGITS:
        raise _wrong(text[:40], f"{what} has {len(number)} digits", "a smaller number")
    if not (number.isascii() and number.isdigit()) or int(number) == 0:
        hint = "a whole number from 1 up"
        if what == "the number of permits":
            hint += " (half a permit a second is '1/2 seconds')"
        raise _wrong(text, f"{what} is {number!r}", hint)
    return int(number)


def _period(text: str, many: str | None, unit: str | None) -> int:
    try:
        length = float(many) if many else 1.0
    except ValueError:
        raise _wrong(text, f"the period's length is {many!r}", "a number") from None
    name = (unit or "").lower()
    name = _SHORT.get(name, name.removesuffix("s") if name not in _SHORT else name)
    if name in _UNITS:
        seconds = length * _UNITS[name]
    elif many and (unit is None or unit in _WORDS):
        seconds = length
    else:
        raise _wrong(text, f"unknown period {(unit or '')!r}", _PERIODS)
    if not 0 < seconds <= 366 * 86_400:
        raise _wrong(text, "the period's length is out of range", "more than 0 s, at most a year")
    return round(seconds * SECOND)


def _wrong(text: object, what: str, right: str) -> ConfigurationError:
    return ConfigurationError(f"limit {text!r}: {what}; use {right}")
