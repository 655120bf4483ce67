"""The edge to httpx: `httpx.Client(transport=RateKitTransport(pipeline))`."""

import httpx

from ratekit import errors
from ratekit._httpx_family import KeptStream, Library, RecordedStream, SharedTransport

__all__ = [
    "CircuitOpen",
    "ConcurrencyFull",
    "DeadlineExceeded",
    "RateKitTransport",
    "RateLimited",
    "Rejected",
]


class RateLimited(errors.RateLimited, httpx.TransportError):
    """`ratekit.RateLimited`, as httpx's own exception."""


class DeadlineExceeded(errors.DeadlineExceeded, httpx.TransportError):
    """`ratekit.DeadlineExceeded`, as httpx's own exception."""


class CircuitOpen(errors.CircuitOpen, httpx.TransportError):
    """`ratekit.CircuitOpen`, as httpx's own exception."""


class ConcurrencyFull(errors.ConcurrencyFull, httpx.TransportError):
    """`ratekit.ConcurrencyFull`, as httpx's own exception."""


class Rejected(errors.Rejected, httpx.TransportError):
    """`ratekit.Rejected`, as httpx's own exception: a refusal of a policy of yours."""


class _KeptStream(KeptStream, httpx.SyncByteStream):
    """A body read ahead, as httpx's own stream."""


class _RecordedStream(RecordedStream, httpx.SyncByteStream):
    """A body that is recorded, as httpx's own stream."""


class RateKitTransport(SharedTransport, httpx.BaseTransport):
    """Sends the requests of a `httpx.Client` through a pipeline.

    `pipeline`: a `Pipeline` or a single policy; without one, what the environment says (`Config`),
    the same one for every client of this process. `transport`: another transport to send through;
    without one an `httpx.HTTPTransport` is made, which takes the other arguments (`verify`,
    `http2`, `proxy`, `limits`, ...; a client that is given a transport no longer looks at its own).
    The environment's proxies are used as a client would use them.

    Raises `ConfigurationError` where the transport is told to retry as well (`retries`): its
    repeats would pass by the limiter.
    """

    _library = Library(
        httpx,
        _KeptStream,
        _RecordedStream,
        {
            errors.Rejected: Rejected,
            errors.RateLimited: RateLimited,
            errors.CircuitOpen: CircuitOpen,
            errors.ConcurrencyFull: ConcurrencyFull,
            errors.DeadlineExceeded: DeadlineExceeded,
        },
    )
