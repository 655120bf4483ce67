"""What is dropped takes nothing from others, and comes back in no process."""

import uuid

import pytest

from ratekit import Cache, Dedup, MemcachedStore, Pipeline
from ratekit.call import Call, Outcome, Proceed
from ratekit.policy import Policy
from ratekit.testing import Answer, ApiServer, FakeClock
from tests.cache.storing import asked, body_of, keep, storage_of
from tests.conftest import Memcached
from tests.contracts.edges import EDGES, Client

FRESH = [("Cache-Control", "max-age=60")]
REQUESTS = EDGES[0]


def test_what_is_dropped_again_and_again_makes_nobody_else_go(clock: FakeClock) -> None:
    """One URL is written and read by turns: what nobody can find any more is of no use."""
    storage = storage_of(clock, entries=10)
    names = [f"/{number}" for number in range(9)]
    for name in names:
        keep(storage, asked(name))
    for _ in range(20):
        keep(storage, asked("/written"))
        storage.drop("/written")
    assert [body_of(storage, asked(name)) for name in names] == [b"body"] * 9


def test_what_is_dropped_is_counted_no_more(clock: FakeClock) -> None:
    """Of what a storage holds."""
    storage = storage_of(clock)
    keep(storage, asked())
    storage.drop(asked().url)
    assert storage.usage() == {"entries": 0, "bytes": 0}


class _Meanwhile(Policy):
    """Lets another process write, after the server has answered and before that is known."""

    def __init__(self, writer: Client, url: str) -> None:
        self._writer = writer
        self._url = url

    def run(self, call: Call, proceed: Proceed) -> Outcome:
        outcome = proceed(call)
        self._writer.send("POST", self._url)
        return outcome


@pytest.mark.parametrize("behind", [(), (Dedup(),)], ids=["alone", "with Dedup"])
def test_a_first_answer_that_a_write_elsewhere_overtook_is_not_kept(
    memcached: Memcached, server: ApiServer, behind: tuple[Policy, ...]
) -> None:
    """Nothing was there to be dropped yet, and still what was read before is old."""
    url = f"{server.url}/a"
    server.script(
        "/a", Answer(200, FRESH, b"old"), Answer(200, [], b""), Answer(200, FRESH, b"new")
    )
    name = uuid.uuid4().hex
    one, other = (Cache(store=MemcachedStore(memcached.url, timeout=5), name=name) for _ in "ab")
    with (
        REQUESTS.client(Pipeline(other)) as writer,
        REQUESTS.client(Pipeline(one, *behind, _Meanwhile(writer, url))) as reader,
    ):
        assert reader.get(url).content == b"old"
        assert writer.get(url).content == b"new"
