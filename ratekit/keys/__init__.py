"""Whose limit state a call counts on: `RateLimiter("100/minute", key_of=by_credential())`.

A key function takes a `Call` and returns the key as text, or None where the limiter is not meant
for the call. Keys stand in errors and in the log. So those made here are short and printable
whatever the URL, and hold no secret.
"""

from ratekit.keys.credential import CREDENTIAL_HEADERS, by_credential
from ratekit.keys.function import KeyFunction, by_each, by_origin
from ratekit.keys.route import by_route

__all__ = ["CREDENTIAL_HEADERS", "KeyFunction", "by_credential", "by_each", "by_origin", "by_route"]
