"""Priorities, the bound of a line, and who is refused when: stepped through without a thread."""

import logging
import random
import threading

import pytest

from ratekit import ConfigurationError, MemoryStore, RateLimited, RateLimiter
from ratekit.limits.tiers import Tiers
from ratekit.testing import FakeClock
from tests.limits.lines import Line, bucket

SECOND = 1_000_000_000


def test_the_higher_priority_goes_first_and_within_one_who_came_first() -> None:
    """Whatever the order in which they came."""
    line = Line(bucket(100, 1))
    for priority in (0, 0, 5, 0, 9, 5, -1):
        line.arrive(priority=priority)
    line.run_dry()
    assert [number for number, _ in line.granted] == [0, 4, 2, 5, 1, 3, 6]
    assert [at for _, at in line.granted] == [0, 100, 200, 300, 400, 500, 600]


def test_an_urgent_call_waits_for_one_permit_at_most() -> None:
    """However many wait, the next permit is its own, and each of the others waits for one more."""
    line = Line(bucket(100, 1))
    for _ in range(20):
        line.arrive()
    line.clock.advance_ns(30)
    urgent = line.arrive(priority=10)
    assert line.turns()[-1] == 100
    assert line.turns()[:-1] == [200 + 100 * number for number in range(19)]
    line.run_dry()
    assert line.granted[1] == (urgent, 100)
    assert line.granted[-1][1] == 2000


def test_nobody_starves() -> None:
    """Behind urgent calls without end, every seventeenth permit is of who waits longest."""
    line = Line(bucket(100, 1))
    line.arrive()
    patient = [line.arrive() for _ in range(3)]
    line.arrive(priority=10)
    while any(number in line.inside for number in patient):
        line.clock.advance_ns(100)
        line.wake()
        line.arrive(priority=10)
        assert line.now < 100_000
    order = [number for number, _ in line.granted]
    assert [order.index(number) for number in patient] == [17, 34, 51]


def test_a_priority_that_passes_nobody_over_costs_no_promotion() -> None:
    """An urgent call now and then is always the next."""
    line = Line(bucket(100, 1))
    for _ in range(200):
        line.arrive()
    for _ in range(40):
        line.clock.advance_ns(50)
        urgent = line.arrive(priority=1)
        line.clock.advance_ns(50)
        line.wake()
        assert line.granted[-1][0] == urgent
        line.clock.advance_ns(100)
        line.wake()


def test_whoever_a_priority_pushes_past_its_max_wait_is_refused_at_once() -> None:
    """It need not wait for what can not be in time any more, and those behind it gain."""
    line = Line(bucket(100, 1))
    line.arrive()
    hurried = line.arrive(max_wait=100)
    patient = line.arrive()
    urgent = line.arrive(priority=1)
    line.wake()
    assert line.refused == [hurried]
    assert line.turns() == [200, 100]
    line.run_dry()
    assert [number for number, _ in line.granted] == [0, urgent, patient]


def test_an_urgent_call_that_is_refused_itself_pushes_nobody() -> None:
    """It was never in the line."""
    line = Line(bucket(100, 1))
    line.arrive()
    hurried = line.arrive(max_wait=100)
    line.arrive(priority=1, max_wait=99)
    assert line.refused == [2]
    line.run_dry()
    assert line.granted[1] == (hurried, 100)


def test_a_full_line_refuses_the_newcomer_with_the_truth(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """And says so, once a minute."""
    line = Line(bucket(100, 1), most=3)
    with caplog.at_level(logging.WARNING, "ratekit"):
        for _ in range(8):
            line.arrive()
    assert line.refused == [4, 5, 6, 7]
    (said,) = (record.getMessage() for record in caplog.records)
    assert said.startswith("k: waiting for a permit: 0.0 s, until ")
    assert said.endswith("(3 threads wait already)")
    line.run_dry()
    assert [number for number, _ in line.granted] == [0, 1, 2, 3]


def test_a_full_line_makes_room_for_a_higher_priority() -> None:
    """The last of the lowest goes, and hears why."""
    line = Line(bucket(100, 1), most=3)
    for priority in (0, 0, 1, 0):
        line.arrive(priority=priority)
    assert line.inside.keys() == {1, 2, 3}
    line.arrive(priority=1)
    line.wake()
    assert line.refused == [3]
    line.arrive(priority=1)
    line.arrive(priority=1)
    line.wake()
    assert line.refused == [3, 6, 1]


@pytest.mark.parametrize("text", ["100/second", "5/second window", "10/second fixed"])
def test_the_bound_is_the_users(text: str) -> None:
    """`max_waiting` threads for one key."""
    clock = FakeClock(manual=True)
    limiter = RateLimiter(text, max_waiting=2, store=MemoryStore(clock=clock))
    while limiter.check("k"):
        pass
    threads = [threading.Thread(target=limiter.acquire, args=("k",)) for _ in range(2)]
    for thread in threads:
        thread.start()
    clock.await_sleepers(2)
    with pytest.raises(RateLimited, match="2 wait already") as caught:
        limiter.acquire("k")
    assert caught.value.retry_after is not None
    assert caught.value.retry_after > 0
    for thread in threads:
        while thread.is_alive():
            clock.advance(1)
            thread.join(0.01)
    assert not any(thread.is_alive() for thread in threads)


@pytest.mark.parametrize("most", [0, -1, 1.5, None])
def test_a_bound_that_is_none_is_refused(most: object) -> None:
    """Nobody could ever wait."""
    with pytest.raises(ConfigurationError, match="max_waiting"):
        RateLimiter("1/second", max_waiting=most)  # type: ignore[arg-type]


def test_a_check_does_not_overtake_those_who_wait() -> None:
    """Also not a cheap one in front of a dear one that waits for more."""
    clock = FakeClock(manual=True)
    limiter = RateLimiter("10/second burst 10", store=MemoryStore(clock=clock))
    assert limiter.check("k", cost=5)
    thread = threading.Thread(target=limiter.acquire, args=("k", 10))
    thread.start()
    clock.await_sleepers(1)
    assert not limiter.peek("k")
    decision = limiter.check("k", cost=0.1)
    assert not decision
    assert decision.remaining == 0
    assert decision.retry_after > 0.5
    clock.advance(60)
    thread.join(10)
    assert not thread.is_alive()
    clock.advance(60)
    assert limiter.check("k")


TEXTS = [
    "1000000/second",
    "1000000/second burst 3",
    "3/5000 seconds window; 1000000/second",
    "7/5000 seconds window",
    "5/7000 seconds fixed",
]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("seed", range(150))
def test_whatever_happens_to_a_line_nobody_is_lost_and_nothing_is_too_early(
    text: str, seed: int
) -> None:
    """Priorities, costs, holds, cancellations, refusals and late threads, in random order."""
    chance = random.Random(f"{text} {seed}")
    clock = FakeClock()
    rule = Tiers(text, None, 0.99, MemoryStore(clock=clock).space(None)).default.rule
    pace = 1000 if rule.is_punctual else 1000 * SECOND
    line = Line(rule, clock)
    left: set[int] = set()
    held_until = 0
    for _ in range(chance.randrange(20, 120)):
        ahead = [turn for turn in line.turns() if turn > line.now]
        clock.advance_ns(
            chance.choice((0, 1, pace // 3, pace, *(turn - line.now for turn in ahead)))
        )
        if chance.random() < 0.8:
            before = len(line.granted)
            line.wake()
            assert all(at >= held_until for _, at in line.granted[before:])
        what = chance.random()
        if what < 0.6:
            line.arrive(
                priority=chance.choice((0, 0, 0, 1, 2)),
                max_wait=chance.choice((None, None, pace * 5)),
            )
        elif what < 0.7:
            line.wake()
            held_until = max(held_until, line.now + pace)
            line.hold(pace)
        elif what < 0.85 and line.inside:
            number = chance.choice(list(line.inside))
            left.add(number)
            line.leave(number)
    line.run_dry()
    granted = [number for number, _ in line.granted]
    assert sorted([*granted, *line.refused, *left]) == list(range(line.arrived))
    instants = [at for _, at in line.granted]
    if not rule.is_punctual:
        limit = rule.limit
        for first, begin in enumerate(instants):
            if limit.form == "window":
                inside = sum(at < begin + limit.period_ns for at in instants[first:])
            else:
                period = (begin + line.begin) // limit.period_ns
                inside = sum((at + line.begin) // limit.period_ns == period for at in instants)
            assert inside <= limit.count
    clock.advance_ns(20_000 * SECOND)
    assert line.take(rule.price(1))
    assert not any(line.order for line in line.waiting._lines.values())
