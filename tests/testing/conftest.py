"""Servers of each kind, shared by the tests of a module."""

from collections.abc import Iterator

import pytest

from ratekit.testing import ApiServer


@pytest.fixture(scope="module")
def unlimited_server() -> Iterator[ApiServer]:
    """One server without a limit, on which no test of another module left a request in flight."""
    with ApiServer(rate=None) as server:
        yield server


@pytest.fixture(scope="module")
def process_server() -> Iterator[ApiServer]:
    """One server in a child process."""
    with ApiServer(rate=None, process=True) as server:
        yield server


@pytest.fixture(params=["thread", "process"])
def either(
    request: pytest.FixtureRequest, unlimited_server: ApiServer, process_server: ApiServer
) -> ApiServer:
    """A server of each kind, as new."""
    server = unlimited_server if request.param == "thread" else process_server
    server.reset()
    return server
