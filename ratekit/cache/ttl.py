"""Times to live that the user names, for all answers or by URL."""

import re
from collections.abc import Mapping

from ratekit.checks import check_number
from ratekit.errors import ConfigurationError
from ratekit.http.fields import FOREVER

__all__ = ["TtlRules"]


class TtlRules:
    """`of(...)` returns the seconds of the first pattern that a URL matches, else the general ones.

    In a pattern `*` stands for anything, also for nothing; without a `?` of its own it is compared
    to the URL up to its query.
    """

    def __init__(self, ttl: float | None, rules: Mapping[str, float]) -> None:
        if ttl is not None:
            check_number("ttl", ttl, unit="seconds")
        self._ttl = None if ttl is None else min(ttl, FOREVER)
        self._rules: list[tuple[re.Pattern[str], bool, float]] = []
        for pattern, seconds in rules.items():
            if not isinstance(pattern, str) or "://" not in pattern:
                raise ConfigurationError(
                    f"rules: {pattern!r} is no URL; use a whole one, with * for what may differ, "
                    'as in {"https://api.example.com/users/*": 600}'
                )
            check_number(f"rules[{pattern!r}]", seconds, unit="seconds")
            text = ".*".join(map(re.escape, pattern.split("*")))
            self._rules.append((re.compile(text, re.DOTALL), "?" in pattern, min(seconds, FOREVER)))

    def __bool__(self) -> bool:
        return self._ttl is not None or bool(self._rules)

    def of(self, origin: str, url: str) -> float | None:
        """Return the seconds that answers from a URL are fresh for, None where nothing was said."""
        if not self._rules:
            return self._ttl
        start = url.find("/", url.find("://") + 3)
        whole = f"{origin}{url[start:] if start >= 0 else '/'}".partition("#")[0]
        path = whole.partition("?")[0]
        for pattern, with_query, seconds in self._rules:
            if pattern.fullmatch(whole if with_query else path):
                return seconds
        return self._ttl
