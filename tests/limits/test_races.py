"""Races, provoked: real threads, switched as often as the interpreter can."""

import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from ratekit import MemoryStore, RateLimited, RateLimiter
from ratekit.testing import FakeClock


@pytest.fixture(autouse=True)
def _switch_often() -> Iterator[None]:
    """Let threads interrupt each other everywhere."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def in_threads(count: int, work: Callable[[int], None]) -> None:
    """Run `work(number)` in so many threads at once; raise what one of them raised."""
    errors: list[BaseException] = []
    ready = threading.Barrier(count)

    def run(number: int) -> None:
        try:
            ready.wait()
            work(number)
        except BaseException as error:  # noqa: BLE001  (handed to the test)
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def test_checks_of_many_threads_never_grant_more_than_there_is() -> None:
    """On a clock that stands still exactly the burst is granted, however threads interleave."""
    for _ in range(10):
        limiter = RateLimiter("1000/minute burst 500", store=MemoryStore(clock=FakeClock()))
        granted = [0] * 8

        def work(number: int, limiter: RateLimiter = limiter, granted: list[int] = granted) -> None:
            granted[number] = sum(bool(limiter.check("k")) for _ in range(200))

        in_threads(8, work)
        assert sum(granted) == 500


def test_waiting_threads_are_granted_at_the_pace_and_never_faster() -> None:
    """The instants at which real threads were let go keep the promise, to the last permit."""
    limiter = RateLimiter("2000/second burst 20", headroom=1.0)
    at: list[int] = []

    def work(number: int) -> None:
        for _ in range(50):
            limiter.acquire("k")
            at.append(time.monotonic_ns())

    begin = time.monotonic_ns()
    in_threads(16, work)
    at.sort()
    assert len(at) == 800
    # Nothing is ever early; how late a thread is depends on the machine.
    for number, instant in enumerate(at):
        assert instant - begin >= (number + 1 - 20) * 500_000 - 1


def test_holds_and_refusals_among_real_threads_lose_no_caller() -> None:
    """Every call ends, granted or refused, whatever is done to the line meanwhile."""
    limiter = RateLimiter("5000/second burst 5")
    outcomes: list[str] = []

    def work(number: int) -> None:
        for turn in range(60):
            if number == 0 and turn % 10 == 0:
                limiter.hold("k", 0.002)
            try:
                limiter.acquire("k", max_wait=0.004 if number % 2 else None)
                outcomes.append("granted")
            except RateLimited:
                outcomes.append("refused")

    in_threads(12, work)
    assert len(outcomes) == 12 * 60
    assert outcomes.count("granted") >= 6 * 60
    assert limiter._waiting._lines.keys() <= {"k"}
    time.sleep(0.05)
    assert limiter.acquire("k")


def test_threads_that_wait_on_a_fake_clock_go_in_order_of_arrival() -> None:
    """First come first served, thread by thread."""
    clock = FakeClock(manual=True)
    limiter = RateLimiter("1/second", headroom=1.0, store=MemoryStore(clock=clock))
    limiter.acquire("k")
    order: list[int] = []

    def work(number: int) -> None:
        limiter.acquire("k")
        order.append(number)

    threads = []
    for number in range(5):
        threads.append(threading.Thread(target=work, args=(number,)))
        threads[-1].start()
        clock.await_sleepers(number + 1)
    for number in range(5):
        clock.advance(1)
        threads[number].join(10)
        assert order == list(range(number + 1))


def test_new_keys_from_many_threads_stay_within_the_bound() -> None:
    """The store is bounded also while everybody adds to it."""
    clock = FakeClock()
    store = MemoryStore(max_keys=256, clock=clock)
    limiter = RateLimiter("1/hour", store=store)

    def work(number: int) -> None:
        for index in range(500):
            limiter.check(f"{number} {index}")

    in_threads(8, work)
    assert len(limiter._space) <= 256 + 16
