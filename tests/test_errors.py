"""The errors: what they carry, and that they travel."""

import pickle

import httpx
import httpx2
import pytest
import requests

import ratekit
import ratekit.httpx
import ratekit.httpx2
import ratekit.requests

REFUSALS = [
    (ratekit.RateLimited, ()),
    (ratekit.DeadlineExceeded, ()),
    (ratekit.requests.RateLimited, (ratekit.RateLimited, requests.RequestException)),
    (ratekit.requests.DeadlineExceeded, (ratekit.DeadlineExceeded, requests.RequestException)),
    (ratekit.httpx.RateLimited, (ratekit.RateLimited, httpx.TransportError)),
    (ratekit.httpx.DeadlineExceeded, (ratekit.DeadlineExceeded, httpx.TransportError)),
    (ratekit.httpx2.RateLimited, (ratekit.RateLimited, httpx2.TransportError)),
    (ratekit.httpx2.DeadlineExceeded, (ratekit.DeadlineExceeded, httpx2.TransportError)),
]


@pytest.mark.parametrize(("kind", "bases"), REFUSALS)
def test_a_refusal_carries_its_key_and_time_also_through_pickle(
    kind: type[ratekit.Rejected], bases: tuple[type[Exception], ...]
) -> None:
    """In a worker's result as in its own process."""
    error = kind("too fast", key="https://a", retry_after=1.5)
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301  (our own bytes)
    for refusal in (error, copy):
        assert type(refusal) is kind
        assert (str(refusal), refusal.key, refusal.retry_after) == ("too fast", "https://a", 1.5)
        assert isinstance(refusal, ratekit.RateKitError)
        for base in bases:
            assert isinstance(refusal, base)


@pytest.mark.parametrize(("kind", "bases"), REFUSALS)
def test_a_refusal_is_no_timeout_and_no_connection_error(
    kind: type[Exception], bases: tuple[type[Exception], ...]
) -> None:
    """SDKs repeat those by themselves."""
    for repeated in (
        TimeoutError,
        ConnectionError,
        requests.ConnectionError,
        requests.Timeout,
        httpx.TimeoutException,
        httpx.NetworkError,
        httpx2.TimeoutException,
        httpx2.NetworkError,
    ):
        assert not issubclass(kind, repeated)


def test_a_configuration_error_is_a_value_error() -> None:
    """So that a program need not know ratekit to catch it."""
    assert issubclass(ratekit.ConfigurationError, ValueError)
