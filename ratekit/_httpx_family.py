"""The one implementation behind `ratekit.httpx` and `ratekit.httpx2`.

The two libraries have the same shape and share no class, and some SDKs refuse a transport that
has the other one among its ancestors. So this file imports neither: each edge names its own
library in a `Library` and derives its classes from it.
"""

import threading
from collections.abc import Mapping
from types import TracebackType
from typing import Any, ClassVar, NamedTuple, Self

from ratekit import _edge, forks
from ratekit._httpx_bodies import (
    KeptStream,
    RecordedStream,
    body_of,
    bytes_of,
    record,
    reply_of,
    response_of,
)  # fmt: skip
from ratekit._httpx_proxies import Proxies
from ratekit.call import Call, Outcome, SendFailed
from ratekit.clock import SECOND, SYSTEM
from ratekit.errors import ConfigurationError
from ratekit.http.reply import Recording, Reply
from ratekit.policy import Policy

__all__ = ["KeptStream", "Library", "RecordedStream", "SharedTransport"]

_POOL_SIZE = 256
# A rejected answer that says it is no longer than this is read at once, so that its connection is
# free while the call waits for its next attempt; it is still unread for whoever gets it. One that
# does not say is not waited for: it may trickle for ever.
_KEEP = 64 * 1024


class Library(NamedTuple):
    """The parts of one library that the shared implementation needs by name."""

    module: Any
    kept_stream: type[KeptStream]
    recorded_stream: type[RecordedStream]
    refused: _edge.Refusals


class _Answer(Outcome):
    """An httpx answer, which holds its connection until its body was read."""

    __slots__ = ("_began_ns", "_library")

    def __init__(self, response: Any, library: Library, began_ns: int) -> None:
        super().__init__(response, response.status_code, response.headers)
        self._library = library
        self._began_ns = began_ns

    def keep(self) -> KeptStream:
        """Put a `KeptStream` in the place of the response's own stream."""
        stream = self.value.stream
        if not isinstance(stream, KeptStream):
            stream = self.value.stream = self._library.kept_stream(self.value, self._began_ns)
        return stream

    def record(self, recording: Recording) -> bool:
        library = self._library
        return record(self.value, recording, library.module, library.recorded_stream)

    def reply(self, body: bytes) -> Reply:
        return reply_of(self.value, body)

    def settle(self) -> None:
        response = self.value
        unread = not (response.is_closed or response.is_stream_consumed)
        if unread and _edge.is_short(response.headers, _KEEP):
            self.keep().read_ahead(_KEEP, self._library.module.TransportError)

    def text(self, *, short: bool) -> bytes:
        response = self.value
        if response.is_closed or (short and not _edge.is_short(response.headers, _KEEP)):
            content: bytes = getattr(response, "_content", b"")
            return content
        if response.headers.get("content-type", "").startswith("text/event-stream"):
            return b""
        stream = self.keep()
        stream.read_ahead(_KEEP, self._library.module.TransportError)
        return stream.decoded(self._library.module)

    def discard(self) -> None:
        self.value.close()


class SharedTransport:
    """Sends the requests of a client through a pipeline; see the edges' `RateKitTransport`."""

    _library: ClassVar[Library]
    # Set in a forked child until its own transports are made; only then is the lock there.
    _is_stale = False
    _reopening: threading.Lock
    _by_scheme: dict[str, Any]
    transport: Any

    def __init__(
        self, pipeline: Policy | None = None, *, transport: Any = None, **kwargs: Any
    ) -> None:
        self.pipeline = _edge.pipeline_of(pipeline)
        self._wrapped = transport
        self._kwargs = kwargs
        if transport is not None:
            self._check_wrapped(transport)
        if kwargs.get("retries"):
            raise _retries_below(kwargs["retries"])
        self._open()
        forks.renew_in_child(self)

    def _open(self) -> None:
        """Make the transports that requests are sent through."""
        by_scheme: dict[str, Any] = {}
        transport = self._wrapped
        if transport is None:
            library, kwargs = self._library.module, dict(self._kwargs)
            most = library.Limits(max_connections=_POOL_SIZE, max_keepalive_connections=_POOL_SIZE)
            kwargs.setdefault("limits", most)
            transport = library.HTTPTransport(**kwargs)
            # A client that is given a transport no longer looks at HTTP_PROXY and its kin itself.
            if kwargs.get("trust_env", True) and not kwargs.get("proxy") and not kwargs.get("uds"):
                self._proxies = Proxies(library)
                for scheme, proxy in self._proxies.by_scheme.items():
                    by_scheme[scheme] = library.HTTPTransport(**{**kwargs, "proxy": proxy})
        # Only now: another thread may be closing what was there before.
        self.transport, self._by_scheme = transport, by_scheme
        self._is_stale = False

    def _check_wrapped(self, transport: Any) -> None:
        name = self._library.module.__name__
        if self._kwargs:
            raise ConfigurationError(
                f"{', '.join(sorted(self._kwargs))}: give these to the wrapped transport"
            )
        if isinstance(transport, type) or not callable(getattr(transport, "handle_request", None)):
            raise ConfigurationError(
                f"transport {transport!r}: use a synchronous {name} transport, such as "
                f"{name}.HTTPTransport()"
            )
        if isinstance(transport, SharedTransport):
            raise ConfigurationError(
                "the wrapped transport is a RateKitTransport: each request would pass two "
                "pipelines; put all policies in one"
            )
        for ancestor in type(transport).__mro__:
            package = ancestor.__module__.partition(".")[0]
            if package in ("httpx", "httpx2") and package != name:
                raise ConfigurationError(
                    f"transport {transport!r} belongs to {package}: use it with ratekit.{package}"
                )
        retries = getattr(getattr(transport, "_pool", None), "_retries", 0)
        if retries:
            raise _retries_below(retries)

    def after_fork(self) -> None:
        """In a child: no connection of the parent's is used."""
        if self._wrapped is not None:
            _forget_connections(self._wrapped)
        # Opened when it is first used: most children never do, and a TLS context takes its time.
        self._is_stale = True
        self._reopening = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {"pipeline": self.pipeline, "_wrapped": self._wrapped, "_kwargs": self._kwargs}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._open()
        forks.renew_in_child(self)

    def handle_request(self, request: Any) -> Any:
        """Send a request down the pipeline; request and answer are the library's own.

        Raises what the library raises, and where ratekit refuses `RateLimited` or
        `DeadlineExceeded`, which are its `TransportError` too.
        """
        if self._is_stale:
            with self._reopening:
                if self._is_stale:
                    self._open()
        library = self._library
        replayable, rewind = body_of(request, library.module)
        answer: _Answer | None = None

        def respond(reply: Reply, more: list[tuple[str, str]]) -> Outcome:
            nonlocal answer
            answer = None
            response = response_of(reply, more, request.method, library.module)
            return _Answer(response, library, 0)

        origin = _origin_of(request.url)
        pipeline = self.pipeline.at(origin)
        call = Call(
            request.method,
            request.url,
            request.headers,
            key=origin,
            options=_edge.chosen_options(pipeline, request.extensions.get("ratekit")),
            replayable=replayable,
            clock=pipeline.clock,
            respond=respond,
            body=lambda: bytes_of(request),
        )
        transport = self._transport_for(request.url) if self._by_scheme else self.transport

        def attempt(call: Call) -> Outcome:
            nonlocal answer
            call.begin_attempt()
            if call.attempts > 1 and rewind is not None:
                rewind()
            began_ns = SYSTEM.now_ns()
            extensions = request.extensions
            remaining_ns = call.remaining_ns()
            if remaining_ns is not None:
                request.extensions = _within_deadline(extensions, remaining_ns)
            try:
                sent = _with_fields(request, call.added, library.module)
                response = transport.handle_request(sent)
            except library.module.TransportError as error:
                raise _failure(error, library.module) from error
            finally:
                request.extensions = extensions
            answer = _Answer(response, library, began_ns)
            answer.record_for(call)
            _edge.look_into(answer, call.options)
            return answer

        response = _edge.travel(
            pipeline, call, attempt, library.refused, request.headers.setdefault
        )
        extensions = response.extensions
        extensions["ratekit"] = call.details()
        extensions["from_cache"] = call.from_cache
        if answer is not None and (call.waited_ns or call.attempts > 1):
            answer.keep()
        return response

    def _transport_for(self, url: Any) -> Any:
        if self._proxies.spare(url):
            return self.transport
        return self._by_scheme.get(url.scheme, self.transport)

    def close(self) -> None:
        """Close the connections. The pipeline's state stays: others may be using it."""
        for transport in (self.transport, *self._by_scheme.values()):
            transport.close()

    def __enter__(self) -> Self:
        for transport in (self.transport, *self._by_scheme.values()):
            transport.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> None:
        for transport in (self.transport, *self._by_scheme.values()):
            transport.__exit__(kind, error, trace)

    async def __aenter__(self) -> Self:
        raise _not_async(self._library.module.__name__)

    async def __aexit__(self, *_: object) -> None:
        """Only here so that `async with` reaches the error of `__aenter__`."""

    async def handle_async_request(self, request: Any) -> Any:
        """Raise `ConfigurationError`: ratekit is synchronous."""
        raise _not_async(self._library.module.__name__)

    async def aclose(self) -> None:
        """Close the connections."""
        self.close()

    def __repr__(self) -> str:
        return f"RateKitTransport({self.pipeline!r})"


def _with_fields(request: Any, added: Mapping[str, str] | None, library: Any) -> Any:
    if not added:
        return request
    # A copy: the user's own may be on its way in another thread as well.
    headers = request.headers.copy()
    headers.update(added)
    return library.Request(
        request.method,
        request.url,
        headers=headers,
        stream=request.stream,
        extensions=request.extensions,
    )


def _retries_below(retries: object) -> ConfigurationError:
    return ConfigurationError(
        f"retries={retries}: the transport would retry below the limiter, unseen by it; leave "
        "retries at 0 and put Retry(attempts=...) into the pipeline"
    )


def _forget_connections(transport: Any) -> None:
    # The library has no public way to drop connections without writing to them.
    inside = getattr(getattr(transport, "_pool", None), "__dict__", {})
    lock = inside.get("_optional_thread_lock")
    if lock is not None:
        inside.update(_connections=[], _requests=[], _optional_thread_lock=type(lock)())


def _not_async(name: str) -> ConfigurationError:
    return ConfigurationError(
        f"ratekit is synchronous: use RateKitTransport with {name}.Client, not AsyncClient"
    )


def _origin_of(url: Any) -> str:
    # The URL's own parts are normalised already: lower case, no port that the scheme implies.
    host = url.raw_host.decode("ascii", "replace")
    if ":" in host:
        host = f"[{host}]"
    port = url.port
    return f"{url.scheme}://{host}" if port is None else f"{url.scheme}://{host}:{port}"


def _failure(error: Exception, library: Any) -> SendFailed:
    never_sent = (
        library.ConnectError, library.ConnectTimeout, library.PoolTimeout, library.ProxyError,
        library.UnsupportedProtocol,
    )  # fmt: skip
    lasting = (library.UnsupportedProtocol, library.LocalProtocolError)
    return SendFailed(
        error,
        sent=not isinstance(error, never_sent),
        passing=not isinstance(error, lasting) and "CERTIFICATE_VERIFY_FAILED" not in str(error),
    )


def _within_deadline(extensions: Mapping[str, Any], remaining_ns: int) -> dict[str, Any]:
    """Return the extensions with timeouts none of which outlasts the deadline."""
    remaining = max(remaining_ns / SECOND, 0.001)
    timeouts = extensions.get("timeout") or {}
    return {
        **extensions,
        "timeout": {
            part: _edge.shorter(timeouts.get(part), remaining)
            for part in ("connect", "read", "write", "pool")
        },
    }
