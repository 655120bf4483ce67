"""What the contracts of the cache are told with: a client, a server with a script, a fake clock."""

from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from typing import Any

from ratekit import Cache, MemcachedStore, Pipeline
from ratekit.policy import Policy
from ratekit.testing import Answer, ApiServer, FakeClock
from tests.contracts.edges import Client, Edge

__all__ = ["PATH", "Api", "Place", "api", "date", "reply", "said"]

PATH = "/a"
Place = MemcachedStore | None
"""Where a cache keeps its answers; None: in memory."""


def date(clock: FakeClock, seconds: float = 0.0) -> str:
    """Return the HTTP-date so many seconds from now."""
    return formatdate(clock.wall() + seconds, usegmt=True)


def reply(body: Any = b"1", status: Any = 200, **fields: str) -> Answer:
    """Return an answer; `cache_control="max-age=60"` is the field Cache-Control."""
    pairs = [(name.replace("_", "-").title(), value) for name, value in fields.items()]
    return Answer(status, pairs, body)


class Api:
    """One client of one URL, through a cache."""

    def __init__(self, edge: Edge, client: Client, server: ApiServer) -> None:
        self.edge = edge
        self.client = client
        self.server = server
        self.url = server.url + PATH

    def answers(self, *answers: Answer, path: str = PATH) -> None:
        """Let the server answer so, in this order."""
        self.server.script(path, *answers)

    def send(self, method: str = "GET", path: str = PATH, /, **fields: str) -> Any:
        """Send a request; `cache_control="no-cache"` is the field Cache-Control."""
        headers = {name.replace("_", "-").title(): value for name, value in fields.items()}
        return self.client.send(method, self.server.url + path, headers=headers)

    def get(self, **fields: str) -> tuple[bytes, str]:
        """Return the body of a GET, and what the cache says of it."""
        response = self.send(**fields)
        return response.content, said(response)

    def body(self, **fields: str) -> bytes:
        """Return the body of a GET."""
        return self.get(**fields)[0]

    @property
    def asked(self) -> int:
        """How many requests came to the server."""
        return len(self.server.seen(PATH))

    def fields(self, at: int = -1) -> dict[str, str]:
        """Return the fields of a request as the server saw it."""
        return {name.lower(): value for name, value in self.server.seen(PATH)[at].headers}


def said(response: Any) -> str:
    """Return what ratekit's cache says of an answer."""
    text: str = response.headers["cache-status"]
    return text.rpartition("ratekit; ")[2]


@contextmanager
def api(
    edge: Edge, server: ApiServer, clock: FakeClock, *policies: Policy, **cache: Any
) -> Iterator[Api]:
    """Give such a client; the policies are behind the cache."""
    pipeline = Pipeline(Cache(clock=clock, **cache), *policies, clock=clock)
    with edge.client(pipeline) as client:
        yield Api(edge, client, server)
