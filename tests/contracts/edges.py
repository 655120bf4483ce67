"""The three edges in one vocabulary, so that one contract can be told of each of them.

An `Edge` stands for an HTTP library together with ratekit's edge to it. What a test says in its
words (`send`, `chunks`, `details`) is done with the library's own; what comes back is the
library's own too.
"""

import importlib
import ssl
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ratekit import MemoryStore, Options, Pipeline, RateLimiter, Retry
from ratekit.call import Details
from ratekit.clock import Clock
from ratekit.policy import Policy

__all__ = ["EDGES", "Client", "Edge", "road", "until"]

AMPLE = "1000/hour burst 1000"
PATIENCE = 10.0  # seconds for what takes milliseconds
# httpx would read the authorities of the world anew for each transport; no test needs them.
NOBODY_TRUSTED = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def road(
    clock: Clock,
    limit: str = AMPLE,
    *,
    options: Options = Options(),  # noqa: B008  (a frozen value)
    name: str | None = None,
    max_wait: float | None = None,
    **retry: Any,
) -> Pipeline:
    """Return `Retry(**retry)` around a limiter of `limit`, both on `clock`."""
    limiter = RateLimiter(
        limit, name=name, max_wait=max_wait, headroom=1, store=MemoryStore(clock=clock)
    )
    return Pipeline(Retry(**retry), limiter, options=options, clock=clock)


def until(condition: Callable[[], object]) -> None:
    """Return when `condition` holds; raise `TimeoutError` where it never does."""
    give_up = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > give_up:
            raise TimeoutError(f"not after {PATIENCE:g} s")
        time.sleep(0.002)


class Client:
    """A session or client of some library, by one set of words."""

    def __init__(self, edge: "Edge", native: Any) -> None:
        self.edge = edge
        self.native = native

    def send(self, method: str, url: str, **arguments: Any) -> Any:
        """Send a request and return the native answer; see `Edge.send`."""
        return self.edge.send(self.native, method, url, **arguments)

    def get(self, url: str, **arguments: Any) -> Any:
        """Send a GET."""
        return self.send("GET", url, **arguments)

    @contextmanager
    def stream(self, method: str, url: str, **arguments: Any) -> Iterator[Any]:
        """Send a request whose answer is read by the block, and closed after it."""
        response = self.send(method, url, stream=True, **arguments)
        try:
            yield response
        finally:
            response.close()


class Edge(ABC):
    """One HTTP library, and ratekit's edge to it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.library: Any = importlib.import_module(name)
        self.ours: Any = importlib.import_module(f"ratekit.{name}")

    def __repr__(self) -> str:
        return self.name

    @property
    @abstractmethod
    def error(self) -> type[Exception]:
        """What every error of a request is."""

    @property
    @abstractmethod
    def retried_by_others(self) -> tuple[type[Exception], ...]:
        """What programs above this library take for a failure of the network."""

    @property
    @abstractmethod
    def unreachable(self) -> type[Exception]:
        """What is raised where nobody listens."""

    @property
    @abstractmethod
    def timed_out(self) -> type[Exception]:
        """What is raised where no answer comes in time."""

    @abstractmethod
    def transport(self, pipeline: Policy | None = None, **arguments: Any) -> Any:
        """Return ratekit's adapter or transport."""

    @abstractmethod
    def around(self, inner: Any, pipeline: Policy | None = None) -> Any:
        """Return ratekit's adapter or transport around another one."""

    @abstractmethod
    def plain(self) -> Any:
        """Return the library's own adapter or transport."""

    @abstractmethod
    def picklable(self, pipeline: Policy) -> Any:
        """Return ratekit's adapter or transport with nothing in it that does not pickle."""

    @abstractmethod
    def native(self, transport: Any) -> Any:
        """Return a session or client on that adapter or transport, None for its own."""

    @abstractmethod
    def send(
        self,
        native: Any,
        method: str,
        url: str,
        *,
        stream: bool = False,
        body: Any = None,
        headers: dict[str, str] | None = None,
        timeout: float | None = None,
        **others: Any,
    ) -> Any:
        """Send a request, following redirects; `others` go to the library as they are."""

    @abstractmethod
    def details(self, seen: Any) -> Details:
        """Return what ratekit says of a response or an error."""

    @abstractmethod
    def chunks(self, response: Any) -> Iterator[bytes]:
        """Yield pieces of the body as they arrive."""

    @abstractmethod
    def face(self, response: Any) -> dict[str, Any]:
        """Return all that a user sees of a response, but for what differs between any two."""

    @abstractmethod
    def set_clock(self, patch: Any, read: Any) -> None:
        """Let the library measure elapsed time with `read() -> seconds`."""

    @contextmanager
    def on(self, transport: Any) -> Iterator[Client]:
        """Give a client on that adapter or transport."""
        native = self.native(transport)
        with native:
            yield Client(self, native)

    @contextmanager
    def client(self, pipeline: Policy | None = None, **arguments: Any) -> Iterator[Client]:
        """Give a client with `pipeline` under it."""
        with self.on(self.transport(pipeline, **arguments)) as client:
            yield client

    @contextmanager
    def bare(self) -> Iterator[Client]:
        """Give a client without ratekit."""
        with self.on(None) as client:
            yield client


class _RequestsEdge(Edge):
    """requests."""

    @property
    def error(self) -> type[Exception]:
        return self.library.RequestException  # type: ignore[no-any-return]

    @property
    def retried_by_others(self) -> tuple[type[Exception], ...]:
        return (self.library.Timeout, self.library.ConnectionError)

    @property
    def unreachable(self) -> type[Exception]:
        return self.library.ConnectionError  # type: ignore[no-any-return]

    @property
    def timed_out(self) -> type[Exception]:
        return self.library.Timeout  # type: ignore[no-any-return]

    def transport(self, pipeline: Policy | None = None, **arguments: Any) -> Any:
        return self.ours.RateKitAdapter(pipeline, **arguments)

    def around(self, inner: Any, pipeline: Policy | None = None) -> Any:
        return self.ours.RateKitAdapter(pipeline, adapter=inner)

    def plain(self) -> Any:
        return self.library.adapters.HTTPAdapter()

    def picklable(self, pipeline: Policy) -> Any:
        return self.transport(pipeline)

    def native(self, transport: Any) -> Any:
        session = self.library.Session()
        if transport is not None:
            session.mount("http://", transport)
            session.mount("https://", transport)
        return session

    def send(
        self,
        native: Any,
        method: str,
        url: str,
        *,
        stream: bool = False,
        body: Any = None,
        headers: dict[str, str] | None = None,
        timeout: float | None = None,
        **others: Any,
    ) -> Any:
        others.setdefault("data", body)
        return native.request(
            method, url, stream=stream, headers=headers, timeout=timeout, **others
        )

    def details(self, seen: Any) -> Details:
        return seen.ratekit  # type: ignore[no-any-return]

    def chunks(self, response: Any) -> Iterator[bytes]:
        yield from response.iter_content(chunk_size=None)

    def face(self, response: Any) -> dict[str, Any]:
        raw = response.raw
        return {
            "status": response.status_code,
            "headers": dict(response.headers),
            "url": response.url,
            "reason": response.reason,
            "encoding": response.encoding,
            "version": (raw.version, raw.status, raw.reason),
            "content": response.content,
            "cookies": dict(response.cookies),
            "history": [(one.status_code, one.url) for one in response.history],
            "links": response.links,
            "asked": (response.request.method, response.request.url, response.request.body),
            "hooks": response.request.hooks,
            "type": type(response),
        }

    def set_clock(self, patch: Any, read: Any) -> None:
        patch.setattr(self.library.sessions, "preferred_clock", read)


class _Time:
    """Stands in for the module `time` where a library measures with it."""

    def __init__(self, read: Any) -> None:
        self.perf_counter = read


class _HttpxEdge(Edge):
    """httpx and httpx2: one shape, no class in common."""

    @property
    def error(self) -> type[Exception]:
        return self.library.TransportError  # type: ignore[no-any-return]

    @property
    def retried_by_others(self) -> tuple[type[Exception], ...]:
        return (self.library.TimeoutException, self.library.NetworkError)

    @property
    def unreachable(self) -> type[Exception]:
        return self.library.ConnectError  # type: ignore[no-any-return]

    @property
    def timed_out(self) -> type[Exception]:
        return self.library.TimeoutException  # type: ignore[no-any-return]

    def transport(self, pipeline: Policy | None = None, **arguments: Any) -> Any:
        if "transport" not in arguments:
            arguments.setdefault("verify", NOBODY_TRUSTED)
        return self.ours.RateKitTransport(pipeline, **arguments)

    def around(self, inner: Any, pipeline: Policy | None = None) -> Any:
        return self.ours.RateKitTransport(pipeline, transport=inner)

    def plain(self) -> Any:
        return self.library.HTTPTransport(verify=NOBODY_TRUSTED)

    def picklable(self, pipeline: Policy) -> Any:
        # No SSLContext pickles.
        return self.transport(pipeline, verify=True)

    def native(self, transport: Any) -> Any:
        return self.library.Client(
            transport=transport, follow_redirects=True, verify=NOBODY_TRUSTED
        )

    def send(
        self,
        native: Any,
        method: str,
        url: str,
        *,
        stream: bool = False,
        body: Any = None,
        headers: dict[str, str] | None = None,
        timeout: float | None = None,
        **others: Any,
    ) -> Any:
        if timeout is not None:
            others["timeout"] = timeout
        if body is not None:
            others["content"] = body
        request = native.build_request(method, url, headers=headers, **others)
        return native.send(request, stream=stream)

    def details(self, seen: Any) -> Details:
        if isinstance(seen, BaseException):
            return seen.ratekit  # type: ignore[attr-defined, no-any-return]
        return seen.extensions["ratekit"]  # type: ignore[no-any-return]

    def chunks(self, response: Any) -> Iterator[bytes]:
        yield from response.iter_raw()

    def face(self, response: Any) -> dict[str, Any]:
        return {
            "status": response.status_code,
            "headers": dict(response.headers),
            "url": str(response.url),
            "reason": response.reason_phrase,
            "encoding": response.encoding,
            "version": response.http_version,
            "content": response.content,
            "cookies": dict(response.cookies),
            "history": [(one.status_code, str(one.url)) for one in response.history],
            "links": response.links,
            "asked": (response.request.method, str(response.request.url)),
            "extensions": set(response.extensions) - {"ratekit", "from_cache"},
            "type": type(response),
        }

    def set_clock(self, patch: Any, read: Any) -> None:
        patch.setattr(f"{self.name}._client.time", _Time(read))


EDGES: tuple[Edge, ...] = (_RequestsEdge("requests"), _HttpxEdge("httpx"), _HttpxEdge("httpx2"))
