"""Which proxy the environment names for a URL, read as httpx and httpx2 read it for themselves."""

import ipaddress
import re
from typing import Any
from urllib.request import getproxies

__all__ = ["Proxies"]


class Proxies:
    """The proxies of the environment; a client that is given a transport no longer looks at them.

    `by_scheme`: the proxy's URL for "http" and "https", where there is one.
    """

    def __init__(self, library: Any) -> None:
        found = getproxies()
        exempt = [entry.strip() for entry in found.get("no", "").split(",")]
        self.by_scheme: dict[str, str] = {}
        for scheme in ("http", "https"):
            proxy = found.get(scheme) or found.get("all")
            if proxy and "*" not in exempt:
                self.by_scheme[scheme] = proxy if "://" in proxy else f"http://{proxy}"
        self._exempt = [_rule(entry, library) for entry in exempt if entry and entry != "*"]

    def spare(self, url: Any) -> bool:
        """Return whether NO_PROXY names this URL's host."""
        return any(
            scheme in ("all", url.scheme)
            and port in (None, url.port)
            and hosts.fullmatch(url.host) is not None
            for scheme, hosts, port in self._exempt
        )


def _rule(entry: str, library: Any) -> tuple[str, re.Pattern[str], int | None]:
    """Return the scheme, hosts and port that an entry of NO_PROXY means.

    "example.org" is the host and what is below it, ".example.org" only what is below it;
    addresses and "localhost" are only themselves.
    """
    below = ""
    if "://" not in entry:
        if not _is_alone(entry):
            below = r".+\." if entry.startswith(".") else r"(?:.+\.)?"
        bare = entry.lstrip(".")
        entry = f"all://[{bare}]" if _is_ipv6(bare) else f"all://{bare}"
    url = library.URL(entry)
    return url.scheme, re.compile(below + re.escape(url.host)), url.port


def _is_alone(entry: str) -> bool:
    if entry.lower() == "localhost":
        return True
    try:
        ipaddress.ip_address(entry.partition("/")[0])
    except ValueError:
        return False
    return True


def _is_ipv6(entry: str) -> bool:
    return entry.count(":") > 1 and not entry.startswith("[")
