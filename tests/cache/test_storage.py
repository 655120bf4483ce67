"""Answers in this process: whose they are, for how long, and in which process."""

import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from ratekit import Cache
from ratekit.cache.storage import MOST_FIELDS, MemoryStorage, Page, together
from ratekit.call import Call
from ratekit.clock import SYSTEM
from ratekit.testing import FakeClock
from tests.cache.storing import URL, asked, body_of, entry, keep, storage_of


@pytest.fixture
def storage(clock: FakeClock) -> MemoryStorage:
    """Give an empty one with room for all that a test keeps."""
    return storage_of(clock)


@pytest.fixture
def quick_switches() -> Iterator[None]:
    """Let threads take turns far more often than usual."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(usual)


# Finding.


def test_what_was_kept_is_found_and_nothing_else(storage: MemoryStorage) -> None:
    """The very entry, under its URL and for who asked."""
    assert storage.find(asked()) == (None, None)
    page = storage.open(asked())
    assert page is not None
    assert storage.find(asked()) == (page, None)
    made = entry(storage)
    assert storage.keep(asked(), page, frozenset(), made)
    assert storage.open(asked()) == page
    assert storage.find(asked())[1] is made
    assert body_of(storage, asked(URL, "ann")) is None
    assert body_of(storage, asked(URL + "/")) is None


def test_a_new_answer_takes_the_place_of_the_old_one(storage: MemoryStorage) -> None:
    """And its room."""
    keep(storage, asked(), b"x" * 5000)
    large = storage.usage()["bytes"]
    keep(storage, asked(), b"new")
    assert body_of(storage, asked()) == b"new"
    assert storage.usage() == {"entries": 1, "bytes": large - 5000 + 3}


def test_variants_and_callers_are_side_by_side(storage: MemoryStorage) -> None:
    """As soon as an answer says by which fields it varies; of two such lists all of them count."""
    for who in ("", "ann"):
        for accept in ("a", "b"):
            keep(storage, asked(URL, who, accept=accept), f"{who}{accept}".encode(), "accept")
    seen = [
        body_of(storage, asked(URL, who, accept=accept)) for who in ("", "ann") for accept in "ab"
    ]
    assert seen == [b"a", b"b", b"anna", b"annb"]
    keep(storage, asked(accept="a", lang="x"), b"AX", "lang")
    page, found = storage.find(asked(accept="a", lang="y"))
    assert page is not None
    assert (page.vary, found) == (("accept", "lang"), None)
    assert body_of(storage, asked(accept="a", lang="x")) == b"AX"


def test_fields_come_together_in_one_order() -> None:
    """Whatever the order in which answers name them; beyond so many nothing is kept."""
    page = Page("m", ("b",))
    assert together(page, frozenset("b")) is page
    assert together(page, frozenset("ca")) == Page("m", ("a", "b", "c"))
    names = [f"x-{number}" for number in range(MOST_FIELDS)]
    assert together(Page("m"), frozenset(names)) is not None
    assert together(page, frozenset(names)) is None


def test_an_answer_that_varies_by_too_much_is_not_kept(storage: MemoryStorage) -> None:
    """And what is there stays."""
    keep(storage, asked(), b"1", "accept")
    assert not keep(storage, asked(), b"2", *[f"x-{number}" for number in range(MOST_FIELDS)])
    assert body_of(storage, asked()) == b"1"


# Dropping.


def test_what_is_dropped_is_dropped_for_all(storage: MemoryStorage) -> None:
    """Every variant and caller of a URL, and of no other."""
    for who in ("", "ann"):
        keep(storage, asked(URL, who, accept="a"), b"1", "accept")
    keep(storage, asked("/other"))
    storage.drop(URL)
    storage.drop("/never seen")
    assert [body_of(storage, asked(URL, who, accept="a")) for who in ("", "ann")] == [None, None]
    assert body_of(storage, asked("/other")) == b"body"
    assert storage.drops == 2


def test_what_was_asked_for_before_it_was_dropped_is_not_kept(storage: MemoryStorage) -> None:
    """Also where another one has asked anew meanwhile, or everything was dropped."""
    page = storage.open(asked())
    assert page is not None
    storage.drop(URL)
    assert not storage.keep(asked(), page, frozenset(), entry(storage, b"old"))
    keep(storage, asked(), b"new")
    assert not storage.keep(asked(), page, frozenset(), entry(storage, b"old"))
    assert body_of(storage, asked()) == b"new"
    page = storage.open(asked())
    assert page is not None
    storage.clear()
    assert not storage.keep(asked(), page, frozenset(), entry(storage, b"old"))
    storage.open(asked())
    assert not storage.keep(asked(), page, frozenset(), entry(storage, b"old"))


def test_clear_leaves_nothing(storage: MemoryStorage) -> None:
    """And goes on as one that is new."""
    for number in range(10):
        keep(storage, asked(f"/{number}"))
    storage.clear()
    assert storage.usage() == {"entries": 0, "bytes": 0}
    assert storage.find(asked("/1")) == (None, None)
    assert keep(storage, asked("/1"))


# Time.


@pytest.mark.parametrize(
    ("changes", "seconds"),
    [
        ({}, 60),
        ({"age": 20.0}, 40),
        ({"never_stale": False}, 60 + 86_400),
        ({"etag": '"a"'}, 60 + 86_400),
        ({"if_error": 90.0}, 150),
    ],
    ids=str,
)
def test_what_can_be_of_no_use_any_more_is_gone(
    storage: MemoryStorage, clock: FakeClock, changes: dict[str, Any], seconds: float
) -> None:
    """To the moment, by the clock, and with its room."""
    keep(storage, asked(), **changes)
    clock.advance(seconds - 0.001)
    assert body_of(storage, asked()) == b"body"
    assert storage.usage()["entries"] == 1
    clock.advance(0.002)
    assert body_of(storage, asked()) is None
    assert storage.usage() == {"entries": 0, "bytes": 0}


def test_what_is_of_no_use_at_once_is_not_kept(storage: MemoryStorage) -> None:
    """Nor what it was to replace."""
    keep(storage, asked())
    assert not keep(storage, asked(), b"over", fresh_for=0.0)
    assert storage.usage()["entries"] == 0


def test_both_clocks_are_those_of_the_one_that_was_given(
    storage: MemoryStorage, clock: FakeClock
) -> None:
    """Seconds, and seconds since the epoch."""
    clock.advance(7.5)
    assert storage.now() == clock.now_ns() / 1e9
    assert storage.wall() == clock.wall()


# Threads, forks, copies.


@pytest.mark.usefixtures("quick_switches")
def test_eight_threads_keep_find_and_drop(clock: FakeClock) -> None:
    """Nobody finds what is another's, nothing raises, and the bounds hold."""
    storage = storage_of(clock, entries=20)
    wrong: list[object] = []

    def work(seed: int) -> None:
        try:
            for step in range(300):
                name = str((seed * 7 + step * 3) % 40)
                keep(storage, asked(name, accept="a"), name.encode(), "accept")
                body = body_of(storage, asked(name, accept="a"))
                if body not in {None, name.encode()}:
                    wrong.append((name, body))
                if step % 50 == seed:
                    storage.clear()
                elif step % 5 == 0:
                    storage.drop(name)
        except Exception as error:  # noqa: BLE001  (whatever it is, the test fails with it)
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert storage.usage()["entries"] <= 20
    assert keep(storage, asked("after"))


FORK = """
import os
from ratekit.call import Call
from ratekit.clock import SYSTEM
from ratekit.cache.identity import Asked
from ratekit.cache.storage import MemoryStorage

storage = MemoryStorage(SYSTEM, 1000000, 100)
one = Asked("/a", "", {})
storage.open(one)
for held in (False, True):
    if held:
        # As by a thread at the moment of the fork, who does not exist in the child.
        storage._lock.acquire()
    pid = os.fork()
    if pid == 0:
        print(held, storage.find(one)[0] is not None, storage.open(one) is not None, flush=True)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_goes_on_at_once() -> None:
    """With what was kept; with nothing, where somebody was at it."""
    done = subprocess.run(
        [sys.executable, "-c", FORK], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout.splitlines() == ["False True True", "True False True"]


def test_a_pickled_copy_begins_empty() -> None:
    """With the same bounds and the same clock."""
    storage = MemoryStorage(SYSTEM, 5000, 2)
    keep(storage, asked())
    copy = pickle.loads(pickle.dumps(storage))  # noqa: S301  (made here)
    assert copy.usage() == {"entries": 0, "bytes": 0}
    for name in "abc":
        keep(copy, asked(name))
    assert copy.usage()["entries"] == 2
    assert not keep(copy, asked(), b"x" * 5000)
    assert copy._clock is SYSTEM
    assert storage.usage()["entries"] == 1


# What a cache says of it, and lets users do.


def test_a_cache_forgets_a_url_however_it_is_written(clock: FakeClock) -> None:
    """Its host, its port, its fragment and its credentials are looked at as in a request."""
    cache = Cache(clock=clock)
    storage = cache._storage
    assert isinstance(storage, MemoryStorage)
    for url in (URL, "HTTPS://API.example.com:443/%61#top", f"{URL}?token=of-anybody"):
        kept = asked(f"{URL}?b=1" if "token" in url else URL, "ann")
        keep(storage, kept)
        cache.forget(url.replace("?", "?b=1&"))
        assert body_of(storage, kept) is None


@pytest.mark.parametrize(
    ("method", "fields"),
    [("POST", {}), ("GET", {"Content-Length": "4"}), ("GET", {"Host": "b.example"})],
)
def test_a_cache_forgets_what_was_asked_of_a_url_in_any_way(
    clock: FakeClock, method: str, fields: dict[str, str]
) -> None:
    """With a body or without, and of whichever host."""
    cache = Cache(clock=clock, methods=["GET", "POST"])
    call = Call(method, URL, fields, key="https://api.example.com", body=lambda: b"body")
    request = cache._identity.describe(call, method, with_body=method == "POST")
    storage = cache._storage
    assert request is not None
    assert isinstance(storage, MemoryStorage)
    keep(storage, request)
    cache.forget(URL)
    assert body_of(storage, request) is None


def test_a_cache_says_what_it_holds(clock: FakeClock) -> None:
    """Its hits and misses, and what is in its storage."""
    cache = Cache(clock=clock, max_entries=1)
    storage = cache._storage
    assert isinstance(storage, MemoryStorage)
    for name in "ab":
        keep(storage, asked(name))
    info = cache.info()
    assert (info["hits"], info["misses"], info["entries"]) == (0, 0, 1)
    assert info["bytes"] == storage.usage()["bytes"] > 0
    cache.clear()
    assert cache.info() == {"hits": 0, "misses": 0, "entries": 0, "bytes": 0}
