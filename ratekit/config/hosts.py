"""Settings by host: which section a call belongs to, and the policy that sends it there.

A section is named "api.example.com", "*.example.com" (every name below it, at any depth, and not
itself), or either with a port. One holds for a call: the most specific of those that match.
"""

import re
from collections.abc import Iterable, Mapping

from ratekit.call import Call, Outcome, Proceed
from ratekit.errors import ConfigurationError
from ratekit.policy import Pipeline, Policy

__all__ = ["ByHost", "best", "pattern_of"]

_PATTERN = re.compile(r"((?:\*\.)?[a-z0-9_-]+(?:\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\])(?::(\d{1,5}))?")
_IMPLIED = {"https": "443", "http": "80"}
# Origins whose section is remembered.
_MOST_ORIGINS = 1000


def pattern_of(given: object) -> str:
    """Return the name of a section in its normal form. Raises `ConfigurationError`."""
    text = given.strip().lower().rstrip(".") if isinstance(given, str) else ""
    if not _PATTERN.fullmatch(text):
        raise ConfigurationError(
            f"host {given!r}: use a name such as 'api.example.com' or '*.example.com', a port "
            "behind it where one is meant ('localhost:8080'), and no scheme or path; of a name "
            "that is not ASCII, its form with 'xn--'"
        )
    return text


def best(patterns: Iterable[str], host: str) -> str | None:
    """Return the most specific pattern that matches a host, or the origin of a URL."""
    name, port = _split(host.lower())
    found = [pattern for pattern in patterns if _matches(pattern, name, port)]
    # A whole name before a wildcard, the longer wildcard first, and with a port before without.
    return max(found, key=_rank, default=None)


def _split(host: str) -> tuple[str, str]:
    scheme, separator, rest = host.partition("://")
    authority = re.split(r"[/?#]", rest if separator else host, maxsplit=1)[0].rpartition("@")[2]
    name, colon, port = authority.rpartition(":")
    if not colon or authority.endswith("]"):
        name, port = authority, _IMPLIED.get(scheme, "") if separator else ""
    return name.rstrip("."), port


def _matches(pattern: str, name: str, port: str) -> bool:
    match = _PATTERN.fullmatch(pattern)
    if match is None or (match[2] is not None and match[2] != port):
        return False
    if match[1].startswith("*."):
        return name.endswith(match[1][1:]) and len(name) > len(match[1][1:])
    return name == match[1]


def _rank(pattern: str) -> tuple[bool, int, bool]:
    name = pattern.rpartition(":")[0] if re.search(r":\d+$", pattern) else pattern
    return not name.startswith("*."), name.count("."), name != pattern


class ByHost(Policy):
    """Sends each call down the pipeline of its host.

    `default`: for the hosts that have none. `hosts`: pipelines by "api.example.com" or
    "*.example.com", with or without a port. (In another pipeline the options of these do not
    hold: that one has its own.)
    """

    chooses = True

    def __init__(self, default: Pipeline, hosts: Mapping[str, Pipeline]) -> None:
        self.default = default
        self.hosts = {pattern_of(pattern): pipeline for pattern, pipeline in hosts.items()}
        self._known: dict[str, Pipeline] = {}
        inner = [policy for one in (default, *self.hosts.values()) for policy in one.policies]
        # It stands where all that it holds would have to stand.
        self.retries = any(policy.retries for policy in inner)
        self.per_attempt = any(policy.per_attempt for policy in inner)
        self.keeps_answers = all(
            any(policy.keeps_answers for policy in one.policies)
            for one in (default, *self.hosts.values())
        )
        self.innermost = any(policy.innermost for policy in inner)
        self.spares_attempts = any(policy.spares_attempts for policy in inner)

    def at(self, origin: str) -> Pipeline:
        """Return the pipeline of an origin."""
        known = self._known.get(origin)
        if known is None:
            if len(self._known) >= _MOST_ORIGINS:
                self._known.clear()
            pattern = best(self.hosts, origin)
            known = self._known[origin] = self.default if pattern is None else self.hosts[pattern]
        return known

    def pipelines(self) -> tuple[Pipeline, ...]:
        """Return all of them."""
        return self.default, *self.hosts.values()

    def run(self, call: Call, proceed: Proceed) -> Outcome:
        """Run the call down the pipeline of its host."""
        return self.at(call.key).run(call, proceed)

    def __repr__(self) -> str:
        return f"ByHost({self.default!r}, {self.hosts!r})"
