"""The errors ratekit raises.

* RateKitError
  x Rejected              ratekit refused to make the attempt; the server was not asked
    + RateLimited         the wait for a permit would be longer than the caller accepts
    + CircuitOpen         the server has failed too often, and is left alone for a while
    + ConcurrencyFull     as many attempts as may be are in flight already
    + StoreError          the shared state could not be asked, and nothing goes without it
  x DeadlineExceeded      the call cannot be over in time; the server was not asked
  x Cancelled             the job was cancelled while it waited; the server was not asked
  x ConfigurationError    something was set to what cannot be right

At an edge (`ratekit.requests`, `ratekit.httpx`, `ratekit.httpx2`) what is raised is also that HTTP
library's own exception, so the `except` clauses a program already has catch it.

Each takes one positional message and keywords with defaults: such an exception can be mixed with
another library's, and pickles.
"""

__all__ = [
    "Cancelled",
    "CircuitOpen",
    "ConcurrencyFull",
    "ConfigurationError",
    "DeadlineExceeded",
    "RateKitError",
    "RateLimited",
    "Rejected",
    "StoreError",
]


class RateKitError(Exception):
    """Whatever ratekit raises on its own account."""


class Rejected(RateKitError):
    """ratekit refused an attempt on its own account.

    `key` says whose state refused. `retry_after` is the number of seconds after which the same
    call would have been let through, as far as is known now; None where nobody can know.
    """

    def __init__(
        self, message: str = "", *, key: str = "", retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.key = key
        self.retry_after = retry_after


class RateLimited(Rejected):
    """The wait for a permit would be longer than `max_wait` (or than a server's hold may be)."""


class CircuitOpen(Rejected):
    """The circuit of this key is open. `retry_after`: seconds until a probe may go."""


class ConcurrencyFull(Rejected):
    """As many attempts as may be are in flight, and the wait for one to end would be too long."""


class StoreError(Rejected):
    """The store of shared state could not be asked.

    It reaches a caller only where the store was told to be strict (`on_error="closed"`).
    """


class DeadlineExceeded(RateKitError):
    """The call's deadline is over, or would be before its turn comes.

    `key` and `retry_after` (seconds) are as on `Rejected`.
    """

    def __init__(
        self, message: str = "", *, key: str = "", retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.key = key
        self.retry_after = retry_after


class Cancelled(RateKitError):
    """The job was cancelled before its next attempt was made (`Jobs.cancel`, Ctrl-C)."""


class ConfigurationError(RateKitError, ValueError):
    """Something was set to what cannot be right; the message says what would be."""
