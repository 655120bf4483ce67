"""More keys than there is room for: memory stays, and no limit that binds is loosened."""

import threading
import tracemalloc

import pytest

from ratekit import MemoryStore, RateLimiter
from ratekit.testing import FakeClock

FORMS = ["1/second", "1/second window", "1/second fixed", "1/second window; 2/minute"]
ROOM = 10_000


def test_any_number_of_keys_goes_through_a_store_of_ten_thousand() -> None:
    """Idle ones make room; a key that is over its limit all the while never gets more."""
    clock = FakeClock()
    limiter = RateLimiter("1/second", store=MemoryStore(max_keys=ROOM, clock=clock))
    busy = RateLimiter("1/hour", store=limiter.store)
    assert busy.check("busy")
    limiter.check("0")
    for number in range(200_000):
        if limiter.check(f"key {number}"):
            clock.advance_ns(200_000)
        if number % 10_000 == 0:
            assert not busy.check("busy")
    assert len(limiter._space) <= ROOM + 1


def test_memory_stays_where_it_is_when_keys_come_and_go() -> None:
    """What is dropped is really gone."""
    clock = FakeClock()
    limiter = RateLimiter("1/second window", store=MemoryStore(max_keys=1000, clock=clock))

    def many(first: int) -> None:
        for number in range(first, first + 20_000):
            limiter.check(f"key {number}")
            clock.advance_ns(2_000_000)

    many(0)
    tracemalloc.start()
    try:
        many(1_000_000)
        before, _ = tracemalloc.get_traced_memory()
        many(2_000_000)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after < before + 64 * 1024


@pytest.mark.parametrize("text", FORMS)
def test_no_key_gets_more_than_its_limit_however_many_others_come(text: str) -> None:
    """All of them ask in one instant, again and again: each is granted once at most."""
    clock = FakeClock(start=1_000_000.5)
    limiter = RateLimiter(text, store=MemoryStore(max_keys=100, clock=clock))
    granted: dict[str, int] = {}
    for _ in range(3):
        for number in range(1000):
            key = str(number)
            granted[key] = granted.get(key, 0) + bool(limiter.check(key))
    assert max(granted.values()) == 1
    assert sum(granted.values()) == 101
    assert len(limiter._space) == 101


@pytest.mark.parametrize("text", FORMS)
def test_those_who_share_the_last_state_wait_in_one_line(text: str) -> None:
    """Keys without room of their own go one after the other, and then there is room again."""
    clock = FakeClock(start=1_000_000.5, manual=True)
    limiter = RateLimiter(text, store=MemoryStore(max_keys=16, clock=clock))
    for number in range(17):
        assert limiter.check(str(number))
    order: list[str] = []

    def wait(key: str) -> None:
        limiter.acquire(key)
        order.append(key)

    threads = [threading.Thread(target=wait, args=(f"late {number}",)) for number in range(3)]
    for number, thread in enumerate(threads, 1):
        thread.start()
        clock.await_sleepers(number)
    assert not limiter.check("later still")
    while any(thread.is_alive() for thread in threads):
        clock.advance(0.1)
        for thread in threads:
            thread.join(0.001)
    assert sorted(order) == ["late 0", "late 1", "late 2"]
    assert not any(line.order for line in limiter._waiting._lines.values())
    clock.advance(120)
    assert limiter.check("later still")
