"""What things are called in memcached: `rk1:<kind>:<digest>`.

No text of a user's is ever sent as a key: names and keys may be of any length and hold anything,
and a digest of them is 22 characters. (Its parts are told apart by their lengths, so that "a" and
"bc" are never taken for "ab" and "c".)
"""

from base64 import urlsafe_b64encode
from hashlib import blake2b

__all__ = ["PREFIX", "digest_of", "key_of"]

PREFIX = b"rk1:"
"""The version of what is stored: another one would be another program's."""


def digest_of(*parts: str) -> str:
    """Return 22 characters that stand for these texts in this order."""
    hasher = blake2b(digest_size=16)
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        hasher.update(b"%d:" % len(data))
        hasher.update(data)
    return urlsafe_b64encode(hasher.digest()).rstrip(b"=").decode()


def key_of(kind: str, digest: str, part: str = "") -> bytes:
    """Return the key of one thing; `part` is one of several that belong together."""
    return PREFIX + f"{kind}:{digest}{part}".encode()
