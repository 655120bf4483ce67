"""Calls to make keys of, and a policy that notes the keys."""

import re
from collections.abc import Callable
from typing import Any

from requests.structures import CaseInsensitiveDict

from ratekit import Policy
from ratekit.call import Call, Outcome, Proceed

__all__ = ["ORIGIN", "PLAIN", "SECRET", "TOKEN", "Noted", "a_call", "authorized"]

ORIGIN = "https://api.example.com"
SECRET = b"a secret of sixteen bytes or more"
TOKEN = "tok-5f2b8e"  # noqa: S105  (nobody's)
PLAIN = re.compile(r"[ !\"$-~]*#?[ !\"$-~]*")


def a_call(
    url: str = "/", method: str | None = "GET", *, key: str = ORIGIN, **headers: str | bytes
) -> Call:
    """Return a call to a URL or a path, with headers given by name, `_` for `-`."""
    named: Any = CaseInsensitiveDict(
        {name.replace("_", "-"): value for name, value in headers.items()}
    )
    return Call(method, ORIGIN + url if url.startswith("/") else url, named, key=key)


def authorized(value: str) -> Call:
    """Return a call with that `Authorization`."""
    return a_call(Authorization=value)


class Noted(Policy):
    """Notes the key of each attempt."""

    def __init__(self, key_of: Callable[[Call], str | None]) -> None:
        self.key_of = key_of
        self.keys: list[str | None] = []

    def run(self, call: Call, proceed: Proceed) -> Outcome:
        """Note the key, and go on."""
        self.keys.append(self.key_of(call))
        return proceed(call)
