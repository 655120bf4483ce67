"""The edge to requests: `session.mount("https://", RateKitAdapter(pipeline))`.

A real `HTTPAdapter`: whatever it does not concern itself with is requests' own doing.
"""

from contextlib import suppress
from datetime import timedelta
from typing import Any

import requests
from requests.adapters import BaseAdapter, HTTPAdapter
from requests.utils import rewind_body
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    MaxRetryError,
    NewConnectionError,
    ProxyError,
)
from urllib3.util import Timeout

from ratekit import _edge, errors, forks
from ratekit._requests_bodies import answer_of, pairs_of, record
from ratekit.call import Call, Outcome, SendFailed
from ratekit.clock import SECOND, SYSTEM
from ratekit.errors import ConfigurationError
from ratekit.http.origin import origin_of
from ratekit.http.reply import Recording, Reply
from ratekit.policy import Policy

__all__ = [
    "CircuitOpen",
    "ConcurrencyFull",
    "DeadlineExceeded",
    "RateKitAdapter",
    "RateLimited",
    "Rejected",
]

_POOL_SIZE = 64
# Seconds to connect and to read where the user gave none: no request hangs for ever.
_TIMEOUT = (5.0, 30.0)
# A rejected answer no longer than this is read to its end, so that its connection can serve the
# next attempt; a longer one costs more than a new connection.
_DRAIN = 64 * 1024
# And not for longer: a body may trickle.
_DRAIN_NS = SECOND

# A session's own measure of `elapsed` is as good as ours where nothing was waited for and the body
# took no longer than this.
_SHORT_READ_NS = SECOND // 1000

# Failures that another attempt may not meet. What is not among them (a bad URL, a certificate)
# is raised at once.
_PASSING = (
    requests.ConnectionError,
    requests.Timeout,
    requests.exceptions.ChunkedEncodingError,
)
_LASTING = (requests.exceptions.SSLError, requests.exceptions.InvalidProxyURL)


class RateLimited(errors.RateLimited, requests.RequestException):
    """`ratekit.RateLimited`, as requests' own exception."""


class DeadlineExceeded(errors.DeadlineExceeded, requests.RequestException):
    """`ratekit.DeadlineExceeded`, as requests' own exception."""


class CircuitOpen(errors.CircuitOpen, requests.RequestException):
    """`ratekit.CircuitOpen`, as requests' own exception."""


class ConcurrencyFull(errors.ConcurrencyFull, requests.RequestException):
    """`ratekit.ConcurrencyFull`, as requests' own exception."""


class Rejected(errors.Rejected, requests.RequestException):
    """`ratekit.Rejected`, as requests' own exception: a refusal of a policy of yours."""


_REFUSED: _edge.Refusals = {
    errors.Rejected: Rejected,
    errors.RateLimited: RateLimited,
    errors.CircuitOpen: CircuitOpen,
    errors.ConcurrencyFull: ConcurrencyFull,
    errors.DeadlineExceeded: DeadlineExceeded,
}


class _Answer(Outcome):
    """A requests answer; with `stream=True` it still holds its connection."""

    __slots__ = ()

    def record(self, recording: Recording) -> bool:
        return record(self.value, recording)

    def reply(self, body: bytes) -> Reply:
        response = self.value
        return Reply(
            response.status_code,
            pairs_of(response),
            body,
            reason=response.reason or "",
            version=getattr(response.raw, "version", None) or 11,
        )

    def text(self, *, short: bool) -> bytes:
        # With stream=True it is the user's to read.
        content = self.value._content
        return content if isinstance(content, bytes) else b""

    def discard(self) -> None:
        response: Any = self.value
        if not response._content_consumed and _edge.is_short(response.headers, _DRAIN):
            until_ns = SYSTEM.now_ns() + _DRAIN_NS
            with suppress(HTTPError, OSError, AttributeError):
                while response.raw.read1(_DRAIN) and SYSTEM.now_ns() < until_ns:
                    pass
        response.close()


class RateKitAdapter(HTTPAdapter):
    """Sends the requests of a session through a pipeline.

    `pipeline`: a `Pipeline` or a single policy; without one, what the environment says (`Config`),
    the same one for every client of this process. `adapter`: another
    adapter to send through (a toolbelt's, a mock's); without one it is itself the `HTTPAdapter`,
    and takes that one's own arguments (the connection pool is sized for 64 threads).

    Raises `ConfigurationError` where urllib3 is told to retry as well (`max_retries`): its repeats
    would pass by the limiter.
    """

    __attrs__: list[str] = [*HTTPAdapter.__attrs__, "pipeline", "adapter"]

    def __init__(
        self, pipeline: Policy | None = None, *, adapter: BaseAdapter | None = None, **kwargs: Any
    ) -> None:
        self.pipeline = _edge.pipeline_of(pipeline)
        self.adapter = adapter
        if adapter is not None:
            if kwargs:
                raise ConfigurationError(
                    f"{', '.join(sorted(kwargs))}: give these to the wrapped adapter"
                )
            if not isinstance(adapter, BaseAdapter):
                raise ConfigurationError(
                    f"adapter {adapter!r}: use a requests adapter, such as HTTPAdapter()"
                )
            if isinstance(adapter, RateKitAdapter):
                raise ConfigurationError(
                    "the wrapped adapter is a RateKitAdapter: each request would pass two "
                    "pipelines; put all policies in one"
                )
        kwargs.setdefault("pool_maxsize", _POOL_SIZE)
        super().__init__(**kwargs)
        _check_no_retries(self.max_retries if adapter is None else adapter)
        forks.renew_in_child(self)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        forks.renew_in_child(self)

    def after_fork(self) -> None:
        """In a child: no connection of the parent's is used."""
        inner = self if self.adapter is None else self.adapter
        if isinstance(inner, HTTPAdapter):
            # Dropped, not closed: closing would write to sockets that the parent still uses.
            that: Any = inner  # the stubs do not know the pool's settings
            that.proxy_manager = {}
            that.init_poolmanager(that._pool_connections, that._pool_maxsize, that._pool_block)

    def send(
        self,
        request: requests.PreparedRequest,
        stream: bool = False,
        timeout: Any = None,
        verify: Any = True,
        cert: Any = None,
        proxies: Any = None,
    ) -> requests.Response:
        """Send a prepared request down the pipeline; arguments and answer are `HTTPAdapter`'s.

        Raises what requests raises, and where ratekit refuses `RateLimited` or
        `DeadlineExceeded`, which are `requests.RequestException` too.
        """
        origin = origin_of(request.url or "")
        pipeline = self.pipeline.at(origin)
        options = _edge.chosen_options(pipeline, None)
        headers: Any = request.headers
        began = headed = read = 0

        def respond(reply: Reply, more: list[tuple[str, str]]) -> Outcome:
            nonlocal began, headed, read
            began = headed = read = 0
            response = answer_of(self, request, reply, more)
            return _Answer(response, response.status_code, response.headers)

        call = Call(
            request.method,
            request.url,
            headers,
            key=origin,
            options=options,
            replayable=request.body is None or _is_replayable(request.body, request),
            clock=pipeline.clock,
            respond=respond,
            body=lambda: _bytes_of(request.body),
        )
        call.tls = _tls(call.key, verify, cert)
        if timeout is None and options.timeout is not False:
            timeout = _TIMEOUT if options.timeout is None else options.timeout
        inner: Any = super().send if self.adapter is None else self.adapter.send

        def attempt(call: Call) -> Outcome:
            nonlocal began, headed, read
            call.begin_attempt()
            if call.attempts > 1:
                _rewind(request)
            sent = _with_fields(request, call.added)
            began = SYSTEM.now_ns()
            try:
                response = inner(
                    sent,
                    stream=stream,
                    timeout=timeout if call.deadline_ns is None else _within(timeout, call),
                    verify=verify,
                    cert=cert,
                    proxies=proxies,
                )
                headed = read = SYSTEM.now_ns()
                if call.added:
                    response.request = request
                answer = _Answer(response, response.status_code, response.headers)
                answer.record_for(call)
                if not stream:
                    # Read here, so that an answer which breaks off is another attempt's.
                    response.content  # noqa: B018
                    read = SYSTEM.now_ns()
                _edge.look_into(answer, options)
            except _PASSING as error:
                raise _failure(error) from error
            return answer

        try:
            response: requests.Response = _edge.travel(
                pipeline, call, attempt, _REFUSED, headers.setdefault
            )
        except (Rejected, RateLimited, CircuitOpen, ConcurrencyFull, DeadlineExceeded) as refusal:
            refusal.request = request
            raise
        response.ratekit = call.details()  # type: ignore[attr-defined]
        response.from_cache = call.from_cache  # type: ignore[attr-defined]
        # Where a digest's second request is sent: through the pipeline too.
        response.connection = self
        response.elapsed = timedelta(microseconds=(headed - began) // 1000)
        if call.waited_ns or call.attempts > 1 or read - headed > _SHORT_READ_NS:
            _keep_elapsed(request, response)
        return response

    def close(self) -> None:
        """Close the connections. The pipeline's state stays: others may be using it."""
        super().close()
        if self.adapter is not None:
            self.adapter.close()

    def __repr__(self) -> str:
        return f"RateKitAdapter({self.pipeline!r})"


def _tls(origin: str, verify: Any, cert: Any) -> str | None:
    """Return what of TLS says who asks, and whom: nothing, most often."""
    if (cert is None and verify is not False) or not origin.startswith("https:"):
        return None
    return f"{cert!r} {verify is not False}"


def _check_no_retries(where: Any) -> None:
    retries = getattr(where, "max_retries", where)
    total = getattr(retries, "total", 0)
    # With None for a total the other counts hold, and where they are None too there is no end.
    if total not in (0, False):
        raise ConfigurationError(
            f"max_retries={total}: urllib3 would retry below the limiter, unseen by it; leave "
            "max_retries at 0 and put Retry(attempts=...) into the pipeline"
        )


def _with_fields(
    request: requests.PreparedRequest, added: dict[str, str] | None
) -> requests.PreparedRequest:
    if not added:
        return request
    # A copy: the user's own may be on its way in another thread as well.
    request = request.copy()
    request.headers.update(added)
    return request


def _bytes_of(body: object) -> bytes | None:
    if body is None:
        return b""
    if isinstance(body, str):
        return body.encode()
    return body if isinstance(body, bytes) else None


def _is_replayable(body: object, request: requests.PreparedRequest) -> bool:
    return isinstance(body, (bytes, str)) or _has_begin(request)


def _has_begin(request: Any) -> bool:
    # requests notes where a file began; whatever has no position can be read only once.
    if not isinstance(request._body_position, int) or not hasattr(request.body, "seek"):
        return False
    seekable = getattr(request.body, "seekable", None)
    return bool(seekable()) if callable(seekable) else True


def _rewind(request: requests.PreparedRequest) -> None:
    if _has_begin(request):
        rewind_body(request)


def _failure(error: requests.RequestException) -> SendFailed:
    return SendFailed(
        error,
        sent=not _was_never_sent(error),
        passing=not isinstance(error, _LASTING),
    )


def _was_never_sent(error: requests.RequestException) -> bool:
    if isinstance(error, requests.exceptions.ConnectTimeout):
        return True
    reason: Any = error.args[0] if error.args else None
    if isinstance(reason, MaxRetryError):
        reason = reason.reason
    if isinstance(reason, ProxyError):
        # urllib3 also calls it so when the proxy took the request and then hung up.
        reason = reason.original_error
        if isinstance(reason, OSError) and str(reason).startswith("Tunnel connection failed"):
            return True
    return isinstance(reason, (NewConnectionError, ConnectTimeoutError))


def _within(timeout: Any, call: Call) -> Any:
    """Return the timeout of one attempt, none of whose parts outlasts the deadline."""
    # At 0 urllib3 would not wait at all, and fail in its own way.
    remaining = max((call.remaining_ns() or 0) / SECOND, 0.001)
    if isinstance(timeout, tuple):
        connect, read = timeout
        return _edge.shorter(connect, remaining), _edge.shorter(read, remaining)
    if isinstance(timeout, Timeout):
        return Timeout(
            total=_edge.shorter(timeout.total, remaining),  # type: ignore[arg-type]
            connect=timeout._connect,
            read=timeout._read,
        )
    return _edge.shorter(timeout, remaining)


def _keep_elapsed(request: requests.PreparedRequest, response: requests.Response) -> None:
    """Let `response.elapsed` be the time of the attempt, as without ratekit.

    The session sets it to the time spent in the adapter, waits included, and runs the request's
    hooks afterwards: the first hook sets it right and takes itself away.
    """
    hooks = request.hooks
    users = [hook for hook in hooks.get("response", ()) if not isinstance(hook, _SetRight)]
    hooks["response"] = [_SetRight(hooks, users, response), *users]


class _SetRight:
    """A hook. It stays where the adapter is called past a session: one at most, which pickles."""

    def __init__(self, hooks: Any, users: list[Any], response: requests.Response) -> None:
        self.hooks = hooks
        self.users = users
        self.response = response
        self.elapsed = response.elapsed

    def __call__(self, seen: requests.Response, *_: Any, **__: Any) -> None:
        """Set `elapsed` right, and leave."""
        self.hooks["response"] = self.users
        if seen is self.response:
            seen.elapsed = self.elapsed
