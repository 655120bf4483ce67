"""Where a cache keeps its answers, so that the contracts of the cache are told of each place."""

import sys
import uuid
from collections.abc import Iterator

import pytest

from ratekit import MemcachedStore
from ratekit.testing import FakeClock
from tests.contracts.edges import EDGES

# On the first edge everything is told of memcached too. What an edge makes of an answer that was
# written down and read again is told of it on all of them.
_ON_EVERY_EDGE = ("test_cache_native", "test_cache_bodies")


@pytest.hookimpl(tryfirst=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Tell of memory on every edge what needs an `edge` and a `store`, and of memcached on some."""
    if not {"edge", "store"}.issubset(metafunc.fixturenames):
        return
    is_everywhere = metafunc.module.__name__.rpartition(".")[2] in _ON_EVERY_EDGE
    pairs = [(edge, "memory") for edge in EDGES]
    # Nothing of it depends on the version of Python: one of them is enough.
    if sys.version_info >= (3, 13):
        pairs += [(edge, "memcached") for edge in (EDGES if is_everywhere else EDGES[:1])]
    ids = [f"{edge}-{store}" for edge, store in pairs]
    # A mark, and not `metafunc.parametrize`: else the fixtures' own parameters come to these.
    both = pytest.mark.parametrize(("edge", "store"), pairs, ids=ids, indirect=True)
    metafunc.definition.add_marker(both)


@pytest.fixture(params=["memory", "memcached"])
def store(request: pytest.FixtureRequest, clock: FakeClock) -> Iterator[MemcachedStore | None]:
    """Give where a cache of one's own is to keep its answers: None for memory.

    memcached ends by real time what it keeps; how old an answer is, is said by `clock` all the
    same.
    """
    if request.param == "memory":
        yield None
        return
    memcached = request.getfixturevalue("memcached")
    made = MemcachedStore(memcached.url, timeout=5, namespace=uuid.uuid4().hex, clock=clock)
    yield made
    made.close()
