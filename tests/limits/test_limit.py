"""The language of limits: what is read, and what is said of what cannot be."""

import pytest

from ratekit import ConfigurationError, Limit

SECOND = 1_000_000_000


@pytest.mark.parametrize(
    ("text", "count", "seconds", "burst"),
    [
        ("100/minute", 100, 60, None),
        ("100/second burst 20", 100, 1, 20),
        ("100/minute smooth", 100, 60, 1),
        ("300/15 minutes", 300, 900, None),
        ("300/900", 300, 900, None),
        ("300/900 burst 30", 300, 900, 30),
        ("300/900 smooth", 300, 900, 1),
        ("1/2 seconds", 1, 2, None),
        ("10/0.5", 10, 0.5, None),
        ("5000/hour", 5000, 3600, None),
        ("7/day", 7, 86_400, None),
        ("  100 / minute  ", 100, 60, None),
        ("100/min", 100, 60, None),
        ("100/s burst 100", 100, 1, 100),
        ("2/second burst 40", 2, 1, 40),
        ("100/Hours", 100, 3600, None),
    ],
)
def test_a_limit_is_read_as_written(
    text: str, count: int, seconds: float, burst: int | None
) -> None:
    """Count, period and burst are those of the text."""
    limit = Limit.parse(text)
    assert (limit.count, limit.period_ns, limit.burst) == (count, seconds * SECOND, burst)


@pytest.mark.parametrize(
    ("text", "wrong", "right"),
    [
        ("100/fortnight", "unknown period 'fortnight'", "second, minute, hour, day"),
        ("100/m", "unknown period 'm'", "minute"),
        ("0/second", "the number of permits is '0'", "a whole number from 1 up"),
        ("-5/second", "the number of permits is '-5'", "a whole number from 1 up"),
        ("0.5/second", "the number of permits is '0.5'", "'1/2 seconds'"),
        ("many/second", "the number of permits is 'many'", "a whole number"),
        ("100", "no form of a limit", "'<n>/<period>'"),
        ("", "no form of a limit", "'<n>/<period>'"),
        ("100/", "unknown period ''", "second, minute, hour, day"),
        ("100/0", "out of range", "more than 0 s"),
        ("100/1.2.3 seconds", "the period's length is '1.2.3'", "a number"),
        ("100/second burst", "the burst has no number", "'burst 20'"),
        ("100/second burst 0", "the burst is '0'", "a whole number from 1 up"),
        ("100/second burst x", "the burst is 'x'", "a whole number from 1 up"),
        ("100/second fast", "unknown form 'fast'", "'smooth'"),
        ("100/second smooth 3", "unknown form 'smooth 3'", "'smooth'"),
        ("100/400 days", "out of range", "at most a year"),
        ("2000000000/second", "more than one permit a nanosecond", "a lower limit"),
        ("१०/second", "the number of permits is", "a whole number"),
    ],
)
def test_a_limit_that_cannot_be_says_what_is_wrong_and_what_would_be_right(
    text: str, wrong: str, right: str
) -> None:
    """The error names the limit, the fault and the remedy."""
    with pytest.raises(ConfigurationError) as caught:
        Limit.parse(text)
    message = str(caught.value)
    assert repr(text) in message
    assert wrong in message
    assert right in message


def test_a_limit_must_be_text() -> None:
    """A number in place of the text is told so, not met with an AttributeError."""
    with pytest.raises(ConfigurationError, match=r"it must be text.*'100/minute'"):
        Limit.parse(100)  # type: ignore[arg-type]


def test_a_number_of_thousands_of_digits_is_refused() -> None:
    """Not met with the interpreter's own complaint."""
    with pytest.raises(ConfigurationError, match="has 5000 digits; use a smaller number"):
        Limit.parse("9" * 5000 + "/second")


@pytest.mark.parametrize("fields", [{"count": 0}, {"period_ns": -1}, {"burst": 0}, {"count": 1.5}])
def test_a_limit_built_by_hand_is_checked_as_well(fields: dict[str, int]) -> None:
    """Configuration is a value that can not be wrong."""
    with pytest.raises(ConfigurationError, match="use a whole number from 1 up"):
        Limit(**{"text": "own", "count": 1, "period_ns": SECOND, **fields})  # type: ignore[arg-type]
