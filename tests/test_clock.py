"""Time: the system's, a fake one, and an instant one."""

import pickle
import threading
import time

import pytest

import ratekit
from ratekit.clock import SECOND, SYSTEM, new_gate, open_gate, to_ns
from ratekit.testing import FakeClock, instant


def test_seconds_are_rounded_up_to_a_nanosecond() -> None:
    """A wait is never a moment too short, and never longer than a year."""
    assert to_ns(1e-10) == 1
    assert to_ns(1.5) == 1_500_000_000
    assert to_ns(0) == 0
    assert to_ns(float("inf")) == 366 * 86_400 * SECOND


def test_an_open_gate_lets_its_thread_go_on_at_once() -> None:
    """Opening it twice is the same as once."""
    gate = new_gate()
    open_gate(gate)
    open_gate(gate)
    begin = time.monotonic()
    SYSTEM.wait(gate, 30)
    assert time.monotonic() - begin < 10
    SYSTEM.wait(gate, 0.001)


def test_the_system_clock_never_goes_back() -> None:
    """And its wall clock is the system's."""
    assert SYSTEM.now_ns() <= SYSTEM.now_ns()
    assert abs(SYSTEM.wall() - time.time()) < 60
    SYSTEM.sleep(-1)


def test_a_fake_clock_moves_by_exactly_what_was_slept() -> None:
    """And by nothing else."""
    clock = FakeClock(start=10)
    clock.sleep(1.5)
    clock.wait(new_gate(), 2)
    assert clock.now_ns() == 13_500_000_000
    assert clock.wall() == 13.5
    open_gate(gate := new_gate())
    clock.wait(gate, 100)
    assert clock.now_ns() == 13_500_000_000


def test_a_manual_clock_really_pauses_threads_until_it_is_moved() -> None:
    """Each until its own end."""
    clock = FakeClock(manual=True)
    awake: list[int] = []

    def pause(seconds: int) -> None:
        clock.sleep(seconds)
        awake.append(seconds)

    threads = [threading.Thread(target=pause, args=(seconds,)) for seconds in (1, 2)]
    for thread in threads:
        thread.start()
    clock.await_sleepers(2)
    clock.advance(1)
    threads[0].join(10)
    assert awake == [1]
    assert clock.sleepers == 1
    clock.advance(1)
    threads[1].join(10)
    assert awake == [1, 2]


def test_waiting_for_sleepers_that_never_come_is_an_error() -> None:
    """Not a test that hangs."""
    with pytest.raises(TimeoutError, match="0 of 1 threads"):
        FakeClock(manual=True).await_sleepers(1, timeout=0.01)


def test_instant_skips_waits_and_still_counts_them() -> None:
    """An hour of waiting takes no time, and is an hour on ratekit's clock."""
    limiter = ratekit.RateLimiter("1/minute", headroom=1.0)
    begin, began = time.monotonic(), SYSTEM.now_ns()
    with instant():
        for _ in range(61):
            limiter.acquire("k")
        SYSTEM.sleep(60)
    assert time.monotonic() - begin < 10
    assert SYSTEM.now_ns() - began >= 3660 * SECOND
    # Afterwards waits are real again, and nothing granted lies in the future.
    assert limiter.check("k")
    begin = time.monotonic()
    SYSTEM.sleep(0.01)
    assert time.monotonic() - begin >= 0.01


def test_the_system_clock_pickles_as_itself() -> None:
    """Also after `instant()`: whatever holds it may travel, and follows it wherever it is."""
    with instant():
        assert pickle.loads(pickle.dumps(SYSTEM)) is SYSTEM  # noqa: S301  (our own bytes)
    assert pickle.loads(pickle.dumps(SYSTEM)) is SYSTEM  # noqa: S301


def test_instant_may_be_used_again_and_within_itself() -> None:
    """Each block leaves the clock as it found it, but later."""
    began = SYSTEM.now_ns()
    with instant():
        SYSTEM.sleep(10)
        with instant():
            SYSTEM.sleep(10)
    with instant():
        SYSTEM.sleep(10)
    assert 30 * SECOND <= SYSTEM.now_ns() - began < 60 * SECOND
