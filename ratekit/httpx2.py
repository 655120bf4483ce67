"""The edge to httpx2: `httpx2.Client(transport=RateKitTransport(pipeline))`."""

import httpx2

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


class RateLimited(errors.RateLimited, httpx2.TransportError):
    """`ratekit.RateLimited`, as httpx2's own exception."""


class DeadlineExceeded(errors.DeadlineExceeded, httpx2.TransportError):
    """`ratekit.DeadlineExceeded`, as httpx2's own exception."""


class CircuitOpen(errors.CircuitOpen, httpx2.TransportError):
    """`ratekit.CircuitOpen`, as httpx2's own exception."""


class ConcurrencyFull(errors.ConcurrencyFull, httpx2.TransportError):
    """`ratekit.ConcurrencyFull`, as httpx2's own exception."""


class Rejected(errors.Rejected, httpx2.TransportError):
    """`ratekit.Rejected`, as httpx2's own exception: a refusal of a policy of yours."""


class _KeptStream(KeptStream, httpx2.SyncByteStream):
    """A body read ahead, as httpx2's own stream."""


class _RecordedStream(RecordedStream, httpx2.SyncByteStream):
    """A body that is recorded, as httpx2's own stream."""


class RateKitTransport(SharedTransport, httpx2.BaseTransport):
    """Sends the requests of a `httpx2.Client` through a pipeline.

    `pipeline`: a `Pipeline` or a single policy; without one, what the environment says (`Config`),
    the same one for every client of this process. `transport`: another transport to send through;
    without one an `httpx2.HTTPTransport` is made, which takes the other arguments (`verify`,
    `http2`, `proxy`, `limits`, ...; a client that is given a transport no longer looks at its own).
    The environment's proxies are used as a client would use them.

    Raises `ConfigurationError` where the transport is told to retry as well (`retries`): its
    repeats would pass by the limiter.
    """

    _library = Library(
        httpx2,
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
