"""What the contracts are told with: each edge in turn, a server, a clock that takes no time."""

from collections.abc import Iterator

import pytest

from ratekit.testing import ApiServer, FakeClock
from tests.contracts.edges import EDGES, Edge


@pytest.fixture(params=EDGES, ids=repr)
def edge(request: pytest.FixtureRequest) -> Edge:
    """Give each edge in turn."""
    one: Edge = request.param
    return one


@pytest.fixture(scope="session")
def unlimited_server() -> Iterator[ApiServer]:
    """Give one server without a limit, which all tests share."""
    with ApiServer(rate=None) as server:
        yield server


@pytest.fixture
def server(unlimited_server: ApiServer) -> ApiServer:
    """Give the same, as new."""
    unlimited_server.reset()
    return unlimited_server


@pytest.fixture
def clock() -> FakeClock:
    """Give a clock on which every wait is over at once."""
    return FakeClock()
