"""HTTP-dates: the three forms that a recipient must accept, and nothing else (RFC 9110, 5.6.7)."""

import re

__all__ = ["parse_http_date"]

_NAMES = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
_MONTHS = {name: number for number, name in enumerate(_NAMES, start=1)}
_MONTH = f"(?P<month>{'|'.join(_MONTHS)})"
_TIME = r"(?P<hour>\d\d):(?P<minute>\d\d):(?P<second>\d\d)"
_DAY = "(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)"
_LONG_DAY = "(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day"
_FORMS = (
    # Sun, 06 Nov 1994 08:49:37 GMT
    re.compile(rf"{_DAY}, (?P<day>\d\d) {_MONTH} (?P<year>\d{{4}}) {_TIME} GMT", re.ASCII),
    # Sunday, 06-Nov-94 08:49:37 GMT
    re.compile(rf"{_LONG_DAY}, (?P<day>\d\d)-{_MONTH}-(?P<year>\d\d) {_TIME} GMT", re.ASCII),
    # Sun Nov  6 08:49:37 1994
    re.compile(rf"{_DAY} {_MONTH} (?P<day>[ \d]\d) {_TIME} (?P<year>\d{{4}})", re.ASCII),
)
_FAR = 50


def parse_http_date(text: str, now: float) -> float | None:
    """Return the seconds since the epoch that `text` names, None where it is no HTTP-date.

    `now` (seconds since the epoch) decides the century of a two-digit year: one that would lie
    more than 50 years ahead is the past's. Never raises.
    """
    text = text.strip()
    for form in _FORMS:
        match = form.fullmatch(text)
        if match is not None:
            break
    else:
        return None
    import calendar  # slow to import, and seldom needed

    year = int(match["year"])
    month, day = _MONTHS[match["month"]], int(match["day"])
    hour, minute, second = int(match["hour"]), int(match["minute"]), int(match["second"])
    if len(match["year"]) == 2:
        this_year = 1970 + int(now // (365.2425 * 86_400))
        year += this_year - this_year % 100
        if year > this_year + _FAR:
            year -= 100
    if year < 1 or not 1 <= day <= calendar.monthrange(year, month)[1]:
        return None
    # 60 is a leap second.
    if hour > 23 or minute > 59 or second > 60:
        return None
    return float(calendar.timegm((year, month, day, hour, minute, second)))
