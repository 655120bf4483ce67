"""HTTP-dates: the three forms of RFC 9110, 5.6.7, and nothing else."""

import calendar
import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratekit.http.dates import parse_http_date

NOW = calendar.timegm((2026, 11, 23, 12, 0, 0))
SAMPLE = calendar.timegm((1994, 11, 6, 8, 49, 37))


@pytest.mark.parametrize(
    "text",
    [
        "Sun, 06 Nov 1994 08:49:37 GMT",
        "Sunday, 06-Nov-94 08:49:37 GMT",
        "Sun Nov  6 08:49:37 1994",
        "  Sun, 06 Nov 1994 08:49:37 GMT ",
    ],
)
def test_all_three_forms_name_the_same_instant(text: str) -> None:
    """The example of the RFC."""
    assert parse_http_date(text, NOW) == SAMPLE


@pytest.mark.parametrize(
    ("year", "expected"), [("94", 1994), ("26", 2026), ("76", 2076), ("77", 1977), ("00", 2000)]
)
def test_a_two_digit_year_more_than_fifty_years_ahead_is_the_pasts(
    year: str, expected: int
) -> None:
    """RFC 9110, 5.6.7."""
    seconds = parse_http_date(f"Sunday, 06-Nov-{year} 08:49:37 GMT", NOW)
    assert seconds == calendar.timegm((expected, 11, 6, 8, 49, 37))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "soon",
        "Sun, 6 Nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 08:49:37",
        "Sun, 06 Nov 1994 08:49:37 +0000",
        "Sun, 31 Feb 2026 08:49:37 GMT",
        "Sun, 06 Nov 1994 24:00:00 GMT",
        "Sun, 06 Nov 1994 08:60:00 GMT",
        "Sun, 06 Nov 0000 08:49:37 GMT",
        "1994-11-06T08:49:37Z",
        "Sun, \N{ARABIC-INDIC DIGIT ZERO}6 Nov 1994 08:49:37 GMT",
    ],
)
def test_what_is_no_http_date_is_none(text: str) -> None:
    """Strict: a form that is merely similar may mean something else."""
    assert parse_http_date(text, NOW) is None


@given(st.datetimes(min_value=dt.datetime(1, 1, 1), max_value=dt.datetime(9999, 12, 31)))  # noqa: DTZ001
def test_every_instant_comes_back(moment: dt.datetime) -> None:
    """To the second, over all years that the form can name."""
    moment = moment.replace(microsecond=0)
    days = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]
    months = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()  # noqa: SIM905
    text = (
        f"{days[moment.weekday()]}, {moment.day:02} {months[moment.month - 1]} "
        f"{moment.year:04} {moment:%H:%M:%S} GMT"
    )
    assert parse_http_date(text, NOW) == moment.replace(tzinfo=dt.UTC).timestamp()


@given(st.text(max_size=60))
def test_nothing_raises(text: str) -> None:
    """Whatever a server sends."""
    parse_http_date(text, NOW)
