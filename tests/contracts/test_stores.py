"""What every store promises: atomic operations, and no binding state is ever dropped."""

import logging
import threading

import pytest

from ratekit import ConfigurationError, MemoryStore
from ratekit.stores import Record, Update
from ratekit.stores.memory import MemorySpace
from ratekit.testing import FakeClock

NAMES = [f"key {number}" for number in range(2000)]


@pytest.fixture
def clock() -> FakeClock:
    """A clock that stands still."""
    return FakeClock()


@pytest.fixture
def space(clock: FakeClock) -> MemorySpace:
    """A space of a small store."""
    return MemoryStore(max_keys=160, clock=clock).space(None)


def test_advance_moves_forward_from_where_it_stands_or_from_the_floor(space: MemorySpace) -> None:
    """max(itself, at least) + by, and the new place comes back."""
    assert space.advance("k", 10, 100) == 110
    assert space.advance("k", 10, 0) == 120
    assert space.advance("k", 10, 500) == 510
    assert space.advance("k", -10, 0) == 500
    assert space.advance("other", 1, 0) == 1


def test_take_is_advance_from_now_where_that_stays_in_reach(
    space: MemorySpace, clock: FakeClock
) -> None:
    """The specialised path agrees with the plain one, at the instant and beside it."""
    now = clock.now_ns()
    assert space.taker(100, 100)("k") == (True, now + 100, now, 100)
    assert space.taker(100, 199)("k") == (False, now + 100, now, 100)
    assert space.taker(100, 200)("k") == (True, now + 200, now, 100)
    assert space.look("k") == (now + 200, now)
    assert space.advance("k", 0, 0) == now + 200


def test_update_replaces_a_record_by_what_the_function_makes_of_it(space: MemorySpace) -> None:
    """The first call sees None, the next what the last one made; None leaves it as it is."""

    def count(record: Record | None, now: int) -> tuple[Update | None, int]:
        number = 1 if record is None else record[0] + 1
        return (Update((number,), now + 1) if number < 3 else None), number

    assert [space.update("k", count) for _ in range(4)] == [1, 2, 3, 3]


def test_updates_of_many_threads_lose_none(space: MemorySpace) -> None:
    """They are atomic."""

    def count(record: Record | None, now: int) -> tuple[Update | None, None]:
        return Update((1 if record is None else record[0] + 1,), now + 1), None

    threads = [
        threading.Thread(target=lambda: [space.update("k", count) for _ in range(500)])
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert space.update("k", lambda record, now: (None, record)) == (4000,)


def test_a_full_store_drops_what_is_back_at_full(space: MemorySpace, clock: FakeClock) -> None:
    """An idle key says no more than an absent one, so dropping it loosens nothing."""
    for name in NAMES:
        assert space.taker(100, 100)(name)[0]
        clock.advance_ns(100)
    assert len(space) <= 160


def test_a_binding_key_is_never_dropped(
    space: MemorySpace, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever else comes, its own state stays; new keys share one strict state meanwhile."""
    with caplog.at_level(logging.WARNING, "ratekit"):
        first = [name for name in NAMES if space.taker(1000, 1000)(name)[0]]
    assert len(first) == 161
    assert len(space) == 161
    for _ in range(3):
        assert not any(space.taker(1000, 1000)(name)[0] for name in NAMES)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "larger max_keys" in caplog.text
    # When they are back at full there is room for others again.
    clock.advance_ns(1000)
    assert space.taker(1000, 1000)("a new one")[0]


def test_a_key_that_shared_the_overflow_does_not_start_afresh_while_that_binds(
    clock: FakeClock,
) -> None:
    """Room that comes free is no way to a second budget."""
    space = MemoryStore(max_keys=16, clock=clock).space(None)
    for name in NAMES[:16]:
        assert space.taker(10, 10)(name)[0]
    assert space.taker(1000, 1000)("late")[0]
    clock.advance_ns(10)
    assert not space.taker(1000, 1000)("late")[0]
    assert not space.taker(1000, 1000)("later")[0]
    clock.advance_ns(990)
    assert space.taker(1000, 1000)("late")[0]


def test_keys_that_come_one_by_one_into_a_full_store_do_not_each_search_all_of_it(
    clock: FakeClock,
) -> None:
    """It is looked through when a good part can go, not whenever one key can."""
    space = MemoryStore(max_keys=1600, clock=clock).space(None)
    looked = 0

    def idle_at(stands: int) -> int:
        nonlocal looked
        looked += 1
        return stands

    space._integers._idle_at = idle_at
    for number in range(16_000):
        space.taker(1_600_000, 1_600_000)(f"key {number}")
        clock.advance_ns(1000)
    assert len(space) <= 1601
    assert looked < 40 * 16_000


def test_records_are_bounded_as_well(space: MemorySpace, clock: FakeClock) -> None:
    """Those that are idle go, those that are not share one."""

    def keep(record: Record | None, now: int) -> tuple[Update | None, bool]:
        return Update((1,), now + 1000), record is None

    fresh = sum(space.update(name, keep) for name in NAMES)
    assert fresh == 161
    assert len(space) == 161
    clock.advance_ns(1000)
    assert space.update("a new one", keep)


def test_a_name_is_one_space_and_no_name_is_a_space_of_its_own() -> None:
    """Also while that space is empty."""
    store = MemoryStore()
    assert store.space("a") is store.space("a")
    assert store.space("a") is not store.space("b")
    assert store.space(None) is not store.space(None)


def test_a_store_too_small_to_be_one_is_refused() -> None:
    """The error names the least that works."""
    with pytest.raises(ConfigurationError, match="max_keys 1: use at least 16"):
        MemoryStore(max_keys=1)


def test_no_key_of_a_users_is_the_shared_one(clock: FakeClock) -> None:
    """Whatever text a caller chooses, new keys are not its victims."""
    space = MemoryStore(clock=clock).space(None)
    for key in ("\0overflow", "overflow", ""):
        assert space.taker(10**9, 10**9)(key)[0]
    assert all(space.taker(10**9, 10**9)(name)[0] for name in NAMES)


def test_what_the_log_is_told_is_told_with_no_lock_held(clock: FakeClock) -> None:
    """A handler may use the very store that speaks."""
    space = MemoryStore(max_keys=16, clock=clock).space(None)
    heard: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            space.look("k")
            heard.append(record.getMessage())

    handler = Handler()
    logging.getLogger("ratekit.stores").addHandler(handler)
    try:
        for name in NAMES[:40]:
            space.taker(10**9, 10**9)(name)
    finally:
        logging.getLogger("ratekit.stores").removeHandler(handler)
    assert len(heard) == 1
