"""What every store promises: atomic operations, and no binding state is ever dropped."""

import logging
import random
import threading

import pytest

from ratekit import ConfigurationError, MemoryStore
from ratekit.limits.tiers import Tiers
from ratekit.stores import FENCE, State, Taken
from ratekit.stores.memory import MemorySpace
from ratekit.testing import FakeClock
from tests.limits.lines import bucket

NAMES = [f"key {number}" for number in range(2000)]


@pytest.fixture
def clock() -> FakeClock:
    """A clock that stands still."""
    return FakeClock()


@pytest.fixture
def space(clock: FakeClock) -> MemorySpace:
    """A space of a small store."""
    return MemoryStore(max_keys=160, clock=clock).space(None)


def take(space: MemorySpace, key: str, ns: int = 1000) -> Taken:
    """Take the one permit of a bucket that is full again after so many nanoseconds."""
    return space.taker(bucket(ns, 1), ns)(key)


@pytest.mark.parametrize(
    "text",
    [
        "100/second",
        "100/second burst 20",
        "5/second window",
        "60/minute fixed",
        "10/second; 20/minute window; 100/hour fixed",
    ],
)
@pytest.mark.parametrize("seed", range(30))
def test_a_take_is_what_the_rule_says_of_the_state(text: str, seed: int) -> None:
    """The short way of a store agrees with the pure functions, at the instant and beside it."""
    chance = random.Random(seed)
    clock = FakeClock()
    space = MemoryStore(clock=clock).space(None)
    rule = Tiers(text, None, 0.99, space).default.rule
    expected = rule.fresh
    for _ in range(200):
        price = rule.price(chance.choice((1, 1, 0.5)))
        now = clock.now_ns()
        due = rule.earliest(expected, now, price)
        allowed = due <= now
        if allowed:
            expected = rule.spend(expected, now, now, price)
        assert space.taker(rule, price)("k") == (allowed, expected, now, price)
        assert space.look("k") == (expected, now)
        gap = max(0, rule.earliest(expected, now, price) - now)
        clock.advance_ns(chance.choice((0, gap, max(0, gap - 1), gap // 2, 3 * gap)))


def test_a_fence_refuses_everybody_until_the_state_is_back(space: MemorySpace) -> None:
    """Whoever waits has the state, and nobody overtakes."""

    class Holder:
        base: State = None

    line = Holder()
    _, state, *_ = take(space, "k")
    cell = space.cell("k")
    space.lift(cell, line)
    space.lift(cell, line)
    assert line.base == state
    assert take(space, "k")[:2] == (False, FENCE)
    space.lower(cell, 0, bucket(10, 1).idle_at)
    assert take(space, "k")[0]


def test_who_waits_for_the_shared_state_is_not_overtaken_by_a_new_key(clock: FakeClock) -> None:
    """Room that comes free meanwhile is no way around the line."""

    class Holder:
        base: State = None

    space = MemoryStore(max_keys=16, clock=clock).space(None)
    for name in NAMES[:17]:
        assert take(space, name)[0]
    cell = space.cell("late")
    assert cell not in NAMES
    space.lift(cell, Holder())
    clock.advance_ns(5000)
    assert take(space, "new")[:2] == (False, FENCE)
    space.lower(cell, clock.now_ns() - 1, bucket(10, 1).idle_at)
    assert take(space, "new")[0]


def test_update_replaces_a_record_by_what_the_function_makes_of_it(space: MemorySpace) -> None:
    """The first call sees None, the next what the last one made; None leaves it as it is."""

    def count(state: State | None, now: int) -> tuple[State | None, int]:
        number = 1 if state is None else state[0] + 1
        return ((number,) if number < 3 else None), number

    assert [space.update("k", count, idle_at) for _ in range(4)] == [1, 2, 3, 3]


def idle_at(state: State) -> int:
    """Return an instant that never comes."""
    return 10**18


def test_updates_of_many_threads_lose_none(space: MemorySpace) -> None:
    """They are atomic."""

    def count(state: State | None, now: int) -> tuple[State | None, None]:
        return (1 if state is None else state[0] + 1,), None

    threads = [
        threading.Thread(target=lambda: [space.update("k", count, idle_at) for _ in range(500)])
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert space.look("k")[0] == (4000,)


def test_a_full_store_drops_what_is_back_at_full(space: MemorySpace, clock: FakeClock) -> None:
    """An idle key says no more than an absent one, so dropping it loosens nothing."""
    for name in NAMES:
        assert take(space, name, 100)[0]
        clock.advance_ns(100)
    assert len(space) <= 160


def test_a_binding_key_is_never_dropped(
    space: MemorySpace, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever else comes, its own state stays; new keys share one strict state meanwhile."""
    with caplog.at_level(logging.WARNING, "ratekit"):
        first = [name for name in NAMES if take(space, name, 1000)[0]]
    assert len(first) == 161
    assert len(space) == 161
    for _ in range(3):
        assert not any(take(space, name, 1000)[0] for name in NAMES)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "larger max_keys" in caplog.text
    # When they are back at full there is room for others again.
    clock.advance_ns(1000)
    assert take(space, "a new one", 1000)[0]


def test_a_key_that_shared_the_overflow_does_not_start_afresh_while_that_binds(
    clock: FakeClock,
) -> None:
    """Room that comes free is no way to a second budget."""
    space = MemoryStore(max_keys=16, clock=clock).space(None)
    for name in NAMES[:16]:
        assert take(space, name, 10)[0]
    assert take(space, "late", 1000)[0]
    clock.advance_ns(10)
    assert not take(space, "late", 1000)[0]
    assert not take(space, "later", 1000)[0]
    clock.advance_ns(990)
    assert take(space, "late", 1000)[0]


def test_keys_that_come_one_by_one_into_a_full_store_do_not_each_search_all_of_it(
    clock: FakeClock,
) -> None:
    """It is looked through when a good part can go, not whenever one key can."""
    space = MemoryStore(max_keys=1600, clock=clock).space(None)
    looked = 0

    def idle_at(state: State) -> int:
        nonlocal looked
        looked += 1
        return int(state[0]) + 1_600_000

    for number in range(16_000):
        space.update(f"key {number}", lambda state, now: ((now,), None), idle_at)
        clock.advance_ns(1000)
    assert len(space) <= 1601
    assert looked < 40 * 16_000


def test_nobody_waits_while_all_of_a_full_table_is_looked_through(clock: FakeClock) -> None:
    """A newcomer looks at a part of it, and the next one at the next part."""
    space = MemoryStore(max_keys=20_000, clock=clock).space(None)
    looked = 0

    def idle_at(state: State) -> int:
        nonlocal looked
        looked += 1
        return int(state[0])

    def keep(state: State | None, now: int) -> tuple[State, None]:
        return (now + 1000,), None

    for number in range(20_000):
        space.update(f"key {number}", keep, idle_at)
    for number in range(100):
        looked = 0
        space.update(f"late {number}", keep, idle_at)
        assert looked <= 2048
    clock.advance_ns(1000)
    for number in range(30_000):
        looked = 0
        space.update(f"new {number}", keep, idle_at)
        assert looked <= 2048
        clock.advance_ns(1)
    assert len(space) <= 20_001


def test_records_are_bounded_as_well(space: MemorySpace, clock: FakeClock) -> None:
    """Those that are idle go, those that are not share one."""

    def keep(state: State | None, now: int) -> tuple[State | None, bool]:
        return (now,), state is None

    def idle(state: State) -> int:
        return int(state[0]) + 1000

    fresh = sum(space.update(name, keep, idle) for name in NAMES)
    assert fresh == 161
    assert len(space) == 161
    clock.advance_ns(1000)
    assert space.update("a new one", keep, idle)


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
        assert take(space, key, 10**9)[0]
    assert all(take(space, name, 10**9)[0] for name in NAMES)


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
            take(space, name, 10**9)
    finally:
        logging.getLogger("ratekit.stores").removeHandler(handler)
    assert len(heard) == 1
