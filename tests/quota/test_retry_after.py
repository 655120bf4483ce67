"""Reading when to come back: every form in use, and whatever else a server may send."""

import calendar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from requests.structures import CaseInsensitiveDict

from ratekit.quota import retry_after

NOW = float(calendar.timegm((2026, 11, 23, 12, 0, 0)))
DATE = "Mon, 23 Nov 2026 12:00:00 GMT"


def read(**headers: str) -> float | None:
    """Read headers given by name, `_` for `-`."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return retry_after(CaseInsensitiveDict(named), now=NOW)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("1", 1.0),
        ("0", 0.0),
        ("120", 120.0),
        ("2.0", 2.0),
        ("1.5", 1.5),
        (".5", 0.5),
        ("64.57", 64.57),
        ("3600", 3600.0),
        (" 30 ", 30.0),
        ("+5", 5.0),
        # The three HTTP-dates.
        ("Mon, 23 Nov 2026 12:00:30 GMT", 30.0),
        ("Monday, 23-Nov-26 12:00:30 GMT", 30.0),
        ("Mon Nov 23 12:00:30 2026", 30.0),
        ("Mon, 23 Nov 2026 11:00:00 GMT", 0.0),
        # ISO 8601, with and without a zone, a fraction, or seconds (then the minute's end).
        ("2026-11-23T12:00:30Z", 30.0),
        ("2026-11-23T12:00:30.25Z", 30.25),
        ("2026-11-23 12:00:30", 30.0),
        ("2026-11-23T14:00:30+02:00", 30.0),
        ("2026-11-23T12:00Z", 60.0),
        # Durations.
        ("34s", 34.0),
        ("1m30s", 90.0),
        ("6m0s", 360.0),
        ("1h2m3.5s", 3723.5),
        ("120ms", 0.12),
        ("9ms", 0.009),
        ("1d", 86_400.0),
        # Epochs, in seconds and in milliseconds.
        (str(int(NOW) + 45), 45.0),
        (f"{NOW + 45.5}", 45.5),
        (str(int(NOW + 45) * 1000), 45.0),
        # A proxy's value behind the server's.
        ("7, 9", 7.0),
    ],
)
def test_every_form_of_retry_after_is_read(value: str, seconds: float) -> None:
    """Seconds from receipt."""
    assert read(Retry_After=value) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "value",
    [
        "-1",
        "-0.5",
        "soon",
        "",
        "nan",
        "inf",
        "1e3",
        "1000000000000000000",
        "99999999",
        "1" * 400,
        "Mon, 31 Feb 2026 12:00:00 GMT",
        "2026-13-45T99:99Z",
        "Mon, 23 Nov 9999 12:00:00 GMT",
        "ms",
        "5 apples",
        "\x00",
        "١٢",
        "0x10",
    ],
)
def test_what_makes_no_sense_is_the_same_as_nothing(value: str) -> None:
    """Negative, not finite, absurdly far, or no time at all."""
    assert read(Retry_After=value) is None


def test_no_header_is_none() -> None:
    """And so is a header that is no text."""
    assert read() is None
    assert retry_after({"retry-after": 5}) is None  # type: ignore[dict-item]


@pytest.mark.parametrize("name", ["retry-after-ms", "x-ms-retry-after-ms", "x-amz-retry-after"])
def test_milliseconds_win_over_seconds(name: str) -> None:
    """The finer header is the newer one; in its absence or nonsense the other counts."""
    headers = {name: "1500", "retry-after": "2"}
    assert retry_after(headers, now=NOW) == 1.5
    assert retry_after({**headers, name: "many"}, now=NOW) == 2.0


def test_seconds_may_stand_under_another_name() -> None:
    """As at mailerlite."""
    assert read(X_RateLimit_Retry_After="12") == 12.0


def test_an_instant_is_measured_by_the_servers_own_clock() -> None:
    """A client whose clock is an hour wrong waits as long as one whose clock is right."""
    assert (
        retry_after({"retry-after": "Mon, 23 Nov 2026 12:00:30 GMT", "date": DATE}, now=NOW - 3600)
        == 30.0
    )
    assert (
        retry_after({"retry-after": "Mon, 23 Nov 2026 12:00:30 GMT", "date": "today"}, now=NOW)
        == 30.0
    )


@given(st.text(max_size=80), st.text(max_size=40))
def test_nothing_raises_and_nothing_is_out_of_range(value: str, date: str) -> None:
    """Whatever a server sends."""
    seconds = retry_after({"retry-after": value, "date": date, "retry-after-ms": date}, now=NOW)
    assert seconds is None or 0 <= seconds <= 366 * 86_400


@given(st.floats(), st.integers())
def test_no_number_raises(number: float, whole: int) -> None:
    """Nor any that a program would print."""
    for value in (repr(number), str(whole), f"{whole}s"):
        seconds = retry_after({"retry-after": value}, now=NOW)
        assert seconds is None or 0 <= seconds <= 366 * 86_400
