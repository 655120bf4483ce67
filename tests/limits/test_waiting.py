"""Who goes next: turns, holds and cancellations, stepped through without a thread."""

import random

import pytest

from ratekit import RateLimited
from ratekit.limits.line import Ticket
from tests.limits.lines import KEY, Line, bucket


def test_turns_are_spaced_and_in_order_of_arrival() -> None:
    """Each waiter owns an instant one interval behind the one before."""
    line = Line(bucket(100, 2))
    for _ in range(5):
        line.arrive()
    assert line.granted == [(0, 0), (1, 0)]
    assert line.turns() == [100, 200, 300]


def test_a_hold_moves_every_turn_by_its_length_and_keeps_order_and_spacing() -> None:
    """The clock stands still during a hold; what was 30 ahead is 30 ahead afterwards."""
    line = Line(bucket(100, 1))
    for _ in range(4):
        line.arrive()
    line.clock.advance_ns(70)
    line.hold(1000)
    assert line.turns() == [1100, 1200, 1300]
    line.run_dry()
    assert line.granted == [(0, 0), (1, 1100), (2, 1200), (3, 1300)]


def test_holds_do_not_add_up() -> None:
    """Sixteen refusals of one event are one pause, and a shorter one changes nothing."""
    line = Line(bucket(100, 1))
    line.arrive()
    line.arrive()
    for _ in range(16):
        line.hold(1000)
    line.hold(10)
    assert line.turns() == [1100]
    line.clock.advance_ns(500)
    line.hold(1000)
    assert line.turns() == [1600]


def test_a_turn_that_was_due_but_not_taken_is_not_used_during_a_hold() -> None:
    """A thread that overslept its turn goes first when the hold is over, the rest behind it."""
    line = Line(bucket(100, 1))
    for _ in range(3):
        line.arrive()
    line.clock.advance_ns(150)
    line.hold(1000)
    line.wake()
    assert line.granted == [(0, 0)]
    line.run_dry()
    assert line.granted == [(0, 0), (1, 1150), (2, 1250)]


@pytest.mark.parametrize("burst", [1, 3])
def test_a_process_that_overslept_is_no_herd(burst: int) -> None:
    """Stopped for five seconds it goes on with what a bucket saves up, and then at its pace."""
    line = Line(bucket(100_000_000, burst))
    for _ in range(burst + 6):
        line.arrive()
    line.clock.advance(5)
    line.run_dry()
    after = [at // 1_000_000 for number, at in line.granted if number >= burst]
    assert after == ([5000] * burst + [5100, 5200, 5300, 5400, 5500])[:6]
    line.arrive()
    line.run_dry()
    assert line.granted[-1][1] // 1_000_000 == after[-1] + 100


def test_one_thread_that_does_not_come_holds_up_nobody() -> None:
    """It may stand in a debugger; the others keep their turns."""
    line = Line(bucket(100_000_000, 1))
    for _ in range(12):
        line.arrive()
    stuck = line.inside.pop(1)
    for _ in range(10):
        line.clock.advance(0.1)
        line.wake()
    line.inside[1] = stuck
    line.wake()
    assert [number for number, _ in line.granted] == [0, *range(2, 11), 1]


def test_a_cancelled_waiter_in_a_hold_lets_nobody_see_a_fuller_bucket() -> None:
    """Giving back is one step: no instant in which a check would be granted during the hold."""
    line = Line(bucket(100, 10))
    line.arrive(cost=10)
    line.arrive(cost=9)
    line.clock.advance_ns(800)
    line.hold(1000)
    line.leave(1)
    for later in (0, 1, 998):
        line.clock.advance_ns(later)
        assert not line.take(1)
    line.clock.advance_ns(1)
    assert line.take(1)


def test_a_refused_wait_is_never_seen_as_taken() -> None:
    """It is asked for and refused in one step, which changes nothing."""
    line = Line(bucket(100, 1))
    line.arrive()
    before = line.space.look(KEY)
    line.arrive(max_wait=50)
    assert line.refused == [1]
    assert line.space.look(KEY) == before


def test_a_stall_that_the_burst_covers_costs_no_permit() -> None:
    """What was missed in 90 ms is made up for: a bucket would have saved it up as well."""
    line = Line(bucket(10_000_000, 10))
    for _ in range(30):
        line.arrive()
    line.clock.advance_ns(95_000_000)
    line.run_dry()
    assert [at // 1_000_000 for _, at in line.granted][10:21] == [95] * 9 + [100, 110]


def test_whoever_overslept_with_a_max_wait_goes_or_is_refused_and_nobody_is_lost() -> None:
    """The first is due and goes; the others can not be in time any more."""
    line = Line(bucket(100_000_000, 1))
    for _ in range(4):
        line.arrive(max_wait=1_000_000_000)
    line.clock.advance(5)
    line.run_dry()
    assert [number for number, _ in line.granted] == [0, 1]
    assert line.refused == [2, 3]
    line.arrive()
    line.run_dry()
    assert line.granted[-1][1] == 5_100_000_000


def test_a_thread_that_wakes_a_little_late_costs_nobody_anything() -> None:
    """The turns behind it stay where they are."""
    line = Line(bucket(100_000_000, 1))
    for _ in range(4):
        line.arrive()
    line.clock.advance(0.15)
    line.run_dry()
    assert [at // 1_000_000 for _, at in line.granted] == [0, 150, 200, 300]


def test_a_hold_empties_the_bucket() -> None:
    """Nobody is released as a herd: one permit when the hold is over, then the pace."""
    line = Line(bucket(100, 20))
    line.hold(1000)
    for _ in range(5):
        line.arrive()
    assert line.granted == []
    line.run_dry()
    assert [at for _, at in line.granted] == [1000, 1100, 1200, 1300, 1400]


def test_nothing_is_granted_one_nanosecond_before_a_hold_ends() -> None:
    """Not even a fraction of a permit."""
    line = Line(bucket(100, 20))
    line.hold(1000)
    line.clock.advance_ns(999)
    for cost in (1, 0.5, 0.01):
        price = line.rule.price(cost)
        assert not line.take(price)
    line.clock.advance_ns(1)
    assert line.take(1)


def test_a_cancelled_waiters_permit_goes_to_the_next() -> None:
    """Everybody behind it moves up by one."""
    line = Line(bucket(100, 1))
    for _ in range(4):
        line.arrive()
    line.leave(1)
    assert line.turns() == [100, 200]
    line.arrive()
    assert line.turns() == [100, 200, 300]


def test_a_cancelled_last_waiter_leaves_no_debt() -> None:
    """What it had reserved is there for the next caller."""
    line = Line(bucket(100, 1))
    line.arrive()
    line.leave(line.arrive())
    line.clock.advance_ns(100)
    line.arrive()
    assert [at for _, at in line.granted] == [0, 100]


def test_a_cancelled_dear_permit_does_not_let_a_cheap_one_into_a_hold() -> None:
    """Where prices differ, nobody moves up to before the hold's end."""
    line = Line(bucket(100, 10))
    line.arrive(cost=10)
    line.arrive(cost=9)
    line.clock.advance_ns(500)
    line.hold(1000)
    line.leave(1)
    for cost in (1, 4):
        line.arrive(cost=cost)
    line.run_dry()
    assert all(at >= 1500 for number, at in line.granted if number)


def test_a_wait_that_cannot_fit_is_refused_at_once_with_the_truth() -> None:
    """The refused caller has spent nothing, and knows how long it would have been."""
    line = Line(bucket(100, 1))
    line.arrive()
    line.arrive()
    with pytest.raises(RateLimited) as caught:
        line.waiting._join(KEY, Ticket(line.rule, 100, 0, 199, None), 9)
    assert caught.value.retry_after == 200 / 1e9
    assert caught.value.key == KEY
    line.waiting._join(KEY, Ticket(line.rule, 100, 0, 200, None), 9)


def test_a_hold_refuses_at_once_whoever_it_pushes_past_max_wait_and_the_rest_moves_up() -> None:
    """The wait of the first can not fit any more; its place is the next one's."""
    line = Line(bucket(100, 1))
    line.arrive()
    hurried = line.arrive(max_wait=500)
    patient = line.arrive()
    line.hold(1000)
    line.wake()
    assert line.refused == [hurried]
    assert line.inside.keys() == {patient}
    assert line.turns() == [1100]


def test_a_pause_longer_than_a_waiter_would_sit_out_refuses_it() -> None:
    """A server that asks for an hour is not slept for by whoever accepts five minutes of it."""
    line = Line(bucket(100, 1))
    line.arrive()
    ticket = Ticket(line.rule, 100, 0, None, 5000)
    line.waiting._join(KEY, ticket, 9)
    line.hold(6000)
    with pytest.raises(RateLimited):
        line.waiting._step(KEY, ticket)
    with pytest.raises(RateLimited) as caught:
        line.waiting._join(KEY, Ticket(line.rule, 100, 0, None, 5000), 9)
    assert caught.value.retry_after == 6000 / 1e9


def test_stopping_the_clock_moves_what_lies_ahead() -> None:
    """What was counted as refilled and was not is taken back; whoever is due stays so."""
    line = Line(bucket(100, 2))
    for _ in range(4):
        line.arrive()
    line.clock.advance_ns(100)
    # Two were granted at 0, so the TAT was 200 before those who wait; had these two arrived at
    # 30 only, it would have been 230.
    line.waiting.raise_to(KEY, line.rule, line.begin + 230)
    line.waiting.raise_to(KEY, line.rule, line.begin + 200)
    line.wake()
    assert line.granted == [(0, 0), (1, 0)]
    line.arrive()
    assert line.turns() == [130, 230, 330]


def test_a_permit_given_back_is_everybodys_gain() -> None:
    """Whoever waits goes one interval earlier."""
    line = Line(bucket(100, 1))
    _, end, used, price = line.space.taker(line.rule, 100)(KEY)
    for _ in range(2):
        line.arrive()
    line.waiting.give_back(KEY, line.rule, end, used, price)
    assert line.turns() == [0, 100]


def test_a_line_that_nobody_needs_is_gone() -> None:
    """No memory is kept for a key where nobody waits and no hold is in force."""
    line = Line(bucket(100, 1))
    for _ in range(3):
        line.arrive()
    line.run_dry()
    assert line.waiting._lines == {}
    for number in range(3000):
        line.waiting.hold(f"key {number}", line.rule, 10)
        line.clock.advance_ns(20)
    assert len(line.waiting._lines) <= 1024


def test_holds_in_force_are_bounded_and_hold_all_the_same() -> None:
    """A hundred thousand held keys do not grow the lines without bound; the buckets remember."""
    line = Line(bucket(100, 1))
    for number in range(100_000):
        line.waiting.hold(f"key {number}", line.rule, 10**9)
    assert len(line.waiting._lines) <= 65_536
    for number in (0, 50_000, 99_999):
        assert not line.take(100, f"key {number}")


@pytest.mark.parametrize("seed", range(300))
def test_holds_among_waiters_lose_no_permit_and_break_no_order(seed: int) -> None:
    """At full demand every caller gets exactly its turn plus the time that was held."""
    chance = random.Random(seed)
    line = Line(bucket(chance.choice((100, 77)), chance.choice((1, 5))))
    held = held_until = 0
    for _ in range(40):
        line.arrive()
    while line.inside:
        until = min(line.turns()) - line.now
        if chance.random() < 0.3:
            line.clock.advance_ns(chance.randrange(until + 1))
            length = chance.choice((1, 50, 333, 1000))
            held += max(0, line.now + length - max(held_until, line.now))
            held_until = max(held_until, line.now + length)
            line.hold(length)
        else:
            line.clock.advance_ns(until)
        line.wake()
    assert [number for number, _ in line.granted] == list(range(40))
    waited = 40 - line.rule.burst
    assert line.granted[-1][1] == waited * line.rule.price(1) + held


@pytest.mark.parametrize("seed", range(600))
def test_no_window_is_exceeded_whatever_happens_to_the_line(seed: int) -> None:
    """Random arrivals, costs, holds, cancellations and refusals never break the promise."""
    chance = random.Random(seed)
    rule = bucket(chance.choice((1000, 777)), chance.choice((1, 3, 20)))
    line = Line(rule)
    costs: dict[int, int] = {}
    held_until = 0
    for _ in range(chance.randrange(20, 150)):
        ahead = [turn for turn in line.turns() if turn > line.now]
        if ahead and chance.random() < 0.6:
            early = chance.random() < 0.3
            line.clock.advance_ns(max(0, min(ahead) - line.now - early))
        else:
            # Never past a turn: every thread here wakes in time.
            gap = chance.choice((0, 1, rule.interval_ns // 3, rule.interval_ns * 5))
            line.clock.advance_ns(min([gap, *(turn - line.now for turn in ahead)]))
        line.wake()
        what = chance.random()
        if what < 0.6:
            cost = chance.randint(1, rule.burst)
            costs[line.arrived] = cost
            line.arrive(cost=cost, max_wait=chance.choice((None, None, rule.interval_ns * 30)))
        elif what < 0.7:
            length = chance.choice((1, rule.interval_ns // 2, rule.interval_ns * 7))
            held_until = max(held_until, line.now + length)
            line.hold(length)
        elif what < 0.8 and line.inside:
            line.leave(chance.choice(list(line.inside)))
        line.wake()
        for number, at in line.granted:
            # Whoever was granted something before a hold was set is none of its business.
            assert number < line.arrived
            assert at <= line.now
        assert all(
            ticket.refusal is not None or ticket.turn_ns - line.begin >= held_until
            for ticket in line.inside.values()
            if held_until > line.now
        )
        standing = [ticket.turn_ns for ticket in line.inside.values() if ticket.refusal is None]
        assert standing == sorted(standing)
    line.run_dry()
    granted = line.granted
    for first in range(len(granted)):
        spent = 0
        for number, at in granted[first:]:
            spent += rule.price(costs[number])
            assert spent <= at - granted[first][1] + rule.depth_ns
    assert line.waiting._lines.keys() <= {KEY}
