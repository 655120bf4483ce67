"""Windows as pure functions, and what they promise: at the instant and a nanosecond before."""

import random
from array import array
from bisect import bisect_left
from collections.abc import Generator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratekit import ConfigurationError, Limit, MemoryStore, RateLimiter
from ratekit.limits.joint import Joint, Part
from ratekit.limits.windows import Fixed, Window
from ratekit.testing import FakeClock

SECOND = 1_000_000_000
MILLION = 1_000_000


def window(text: str) -> Window:
    """Return the rule of a limit in text."""
    return Window(Limit.parse(text))


def fixed(text: str) -> Fixed:
    """Return the rule of a limit in text, on a clock that counts from the epoch."""
    return Fixed(Limit.parse(text), lambda now: 0)


def limiter_of(text: str, clock: FakeClock) -> RateLimiter:
    """Return a limiter on a clock that the test moves."""
    return RateLimiter(text, store=MemoryStore(clock=clock))


def most_in(period_ns: int, grants: list[tuple[int, float]]) -> float:
    """Return the most that was granted in any half-open period; `grants` are in order."""
    instants = [at for at, _ in grants]
    return max(
        sum(cost for _, cost in grants[first : bisect_left(instants, at + period_ns)])
        for first, at in enumerate(instants)
    )


def test_a_window_grants_all_at_once_and_the_next_one_period_later() -> None:
    """Greedy: five, then none until the first is a second old, to the nanosecond."""
    clock = FakeClock()
    limiter = limiter_of("5/second window", clock)
    assert [bool(limiter.check()) for _ in range(6)] == [True] * 5 + [False]
    clock.advance_ns(SECOND - 1)
    assert not limiter.check()
    clock.advance_ns(1)
    assert [bool(limiter.check()) for _ in range(6)] == [True] * 5 + [False]


def test_a_small_window_is_exact() -> None:
    """Up to thirty permits each is freed at its own instant."""
    clock = FakeClock()
    limiter = limiter_of("30/second window", clock)
    for _ in range(30):
        assert limiter.check()
        clock.advance_ns(1000)
    assert limiter.check().retry_after == (SECOND - 30_000) / SECOND
    clock.advance_ns(SECOND - 30_000)
    for _ in range(30):
        assert limiter.check()
        assert not limiter.check()
        clock.advance_ns(1000)


@pytest.mark.parametrize("count", [1, 2, 31, 59, 1000, 1_000_000])
def test_a_window_is_few_integers_whatever_the_limit(count: int) -> None:
    """At most 64, and so it stays with answers and costs of every size."""
    chance = random.Random(count)
    rule = window(f"{count}/hour window")
    state, now = rule.fresh, 10**18
    pending: list[tuple[int, int]] = []
    for _ in range(3000):
        now += chance.randrange(1, 3 * 3600 * SECOND // 1000)
        cost = chance.choice((1, 0.25, max(1, count // 40), chance.randrange(1, count + 1)))
        price = rule.price(min(cost, count))
        if rule.earliest(state, now, price) <= now:
            state = rule.spend(state, now, now, price)
            pending.append((now, price))
        if pending and chance.random() < 0.6:
            state = rule.answered(state, *pending.pop(chance.randrange(len(pending))), now)
        assert len(state) + 1 <= 64
        assert state[0] == sum(state[2::2])
        assert list(state[1::2]) == sorted(state[1::2])


@pytest.mark.parametrize("text", ["5/second window", "100/second window", "1000/second window"])
@pytest.mark.parametrize("seed", range(60))
def test_no_period_ever_sees_more_than_a_window_allows(text: str, seed: int) -> None:
    """Random arrivals, costs, waits and answers: any period, wherever it begins."""
    chance = random.Random(f"{text} {seed}")
    clock = FakeClock()
    limiter = limiter_of(text, clock)
    limit = limiter.limits[0]
    pace = limit.period_ns // limit.count
    grants: list[tuple[int, float]] = []
    for _ in range(800):
        clock.advance_ns(chance.choice((0, 0, 1, pace // 3, pace, 9 * pace, limit.period_ns // 3)))
        cost = chance.choice((1, 1, 1, 0.5, 2.5, limit.count // 4))
        if chance.random() < 0.4:
            limiter.acquire("k", cost)
            grants.append((clock.now_ns(), cost))
        elif chance.random() < 0.5:
            with limiter.permit("k", cost):
                grants.append((clock.now_ns(), cost))
                clock.advance_ns(chance.choice((0, pace, limit.period_ns // 5)))
        elif limiter.check("k", cost):
            grants.append((clock.now_ns(), cost))
    assert most_in(limit.period_ns, grants) <= limit.count


@pytest.mark.parametrize("text", ["5/second window", "100/second window", "777/minute window"])
@pytest.mark.parametrize("seed", range(10))
def test_a_window_reaches_its_rate_from_any_beginning(text: str, seed: int) -> None:
    """However its first grants were spread: saturated, it grants 98 % of the limit and more."""
    chance = random.Random(seed)
    clock = FakeClock()
    limiter = limiter_of(text, clock)
    limit = limiter.limits[0]
    for _ in range(limit.count // 2):
        limiter.acquire()
        clock.advance_ns(chance.randrange(2 * limit.period_ns // limit.count))
    begin, wanted = clock.now_ns(), 40 * limit.count
    for _ in range(wanted):
        limiter.acquire()
    periods = (clock.now_ns() - begin) / limit.period_ns
    # The last grants may just have missed the end of a period.
    assert wanted / limit.count / (periods - 1) >= 0.98


def test_a_place_is_free_one_period_after_the_answer() -> None:
    """The server counted the request at some instant before that."""
    clock = FakeClock()
    limiter = limiter_of("1/second window", clock)
    with limiter.permit():
        clock.advance_ns(300)
    assert limiter.peek().retry_after == 1.0
    clock.advance_ns(SECOND - 1)
    assert not limiter.check()
    clock.advance_ns(1)
    assert limiter.check()


def test_an_answer_that_took_longer_than_the_period_takes_no_place_again() -> None:
    """Such a server counted it long ago: slow answers do not halve the rate."""
    clock = FakeClock()
    limiter = limiter_of("1/second window", clock)
    with limiter.permit():
        clock.advance(1)
    assert limiter.check()


def test_what_comes_back_unused_is_there_again() -> None:
    """Of its own group, and only while that is counted."""
    rule = window("5/second window")
    state = rule.fresh
    for at in (100, 200, 300):
        state = rule.spend(state, at, at, MILLION)
    assert list(rule.unspend(state, state, 200, MILLION, 400)) == [
        2 * MILLION, 100, MILLION, 300, MILLION,
    ]  # fmt: skip
    later = rule.spend(state, 2 * SECOND, 2 * SECOND, MILLION)
    assert rule.unspend(later, state, 200, MILLION, 2 * SECOND) != later
    assert rule.fresh == array("q", (0,))


@given(
    st.lists(
        st.tuples(st.integers(0, 10**9), st.integers(1, 5 * MILLION), st.booleans()), max_size=80
    )
)
def test_a_state_is_never_changed_in_place(steps: list[tuple[int, int, bool]]) -> None:
    """Others may hold on to it."""
    rule = window("40/second window")
    state, now = rule.fresh, 0
    for gap, price, answered in steps:
        before, copy = state, state[:]
        now += gap
        state = (
            rule.answered(state, now - gap, price, now)
            if answered
            else rule.spend(state, now, now, price)
        )
        rule.unspend(state, state, now, price, now)
        assert before == copy
    assert window("1/second window").fresh == array("q", (0,))


def test_turns_may_be_reserved_ahead_and_an_earlier_answer_finds_its_place() -> None:
    """The groups stay in order, whatever is counted when."""
    rule = window("3/second window")
    state = rule.spend(rule.fresh, 0, 0, MILLION)
    state = rule.spend(state, 700, 700, MILLION)
    state = rule.answered(state, 0, MILLION, 50)
    assert list(state[1::2]) == [50, 700]
    assert rule.earliest(state, 60, 2 * MILLION) == SECOND + 50
    assert rule.earliest(state, 60, 3 * MILLION) == SECOND + 700


def test_a_fixed_window_grants_its_count_in_each_period_of_the_epoch() -> None:
    """All at once, and all again when the next period begins: not a nanosecond before."""
    clock = FakeClock(start=7 * 60 - 0.5)
    limiter = limiter_of("3/minute fixed", clock)
    assert [bool(limiter.check()) for _ in range(4)] == [True] * 3 + [False]
    assert limiter.check().retry_after == 0.5
    clock.advance_ns(SECOND // 2 - 1)
    assert not limiter.check()
    clock.advance_ns(1)
    assert [bool(limiter.check()) for _ in range(4)] == [True] * 3 + [False]


def test_a_fixed_window_is_aligned_to_the_wall_clock_and_not_to_the_stores() -> None:
    """The store's clock may count from anywhere."""
    rule = Fixed(Limit.parse("1/minute fixed"), lambda now: 45 * SECOND)
    state = rule.spend(rule.fresh, 0, 0, MILLION)
    assert rule.earliest(state, 0, MILLION) == 15 * SECOND
    assert rule.idle_at(state) == 15 * SECOND


@pytest.mark.parametrize("seed", range(200))
def test_no_period_of_the_epoch_sees_more_than_a_fixed_window_allows(seed: int) -> None:
    """Random arrivals and waits, and requests on the edge are counted on both sides of it."""
    chance = random.Random(seed)
    clock = FakeClock()
    limiter = limiter_of("20/minute fixed", clock)
    periods: dict[int, float] = {}
    for _ in range(300):
        clock.advance_ns(chance.choice((0, 0, 1, SECOND, 7 * SECOND, 60 * SECOND)))
        cost = chance.choice((1, 1, 0.5, 7))
        if limiter.check("k", cost) or (chance.random() < 0.3 and limiter.acquire("k", cost)):
            period = clock.now_ns() // (60 * SECOND)
            periods[period] = periods.get(period, 0) + cost
    assert max(periods.values()) <= 20


def test_a_request_under_way_at_the_edge_is_counted_on_both_sides() -> None:
    """Nobody knows on which side the server saw it."""
    clock = FakeClock(start=59.9)
    limiter = limiter_of("2/minute fixed", clock)
    with limiter.permit():
        clock.advance(0.2)
    assert limiter.peek().remaining == 1
    with limiter.permit():
        clock.advance(0.2)
    assert not limiter.check()


def test_a_fixed_window_gives_back_only_within_its_period() -> None:
    """What was not used of the last hour is gone with it."""
    rule = fixed("2/minute fixed")
    one = rule.spend(rule.fresh, 0, 0, MILLION)
    two = rule.spend(one, 1, 1, MILLION)
    assert rule.unspend(two, one, 0, MILLION, 2) == one
    next_one = rule.spend(two, 60 * SECOND, 60 * SECOND, MILLION)
    assert rule.unspend(next_one, two, 1, MILLION, 60 * SECOND) == next_one


@pytest.mark.parametrize("text", ["5/second window", "5/second fixed"])
def test_a_cost_above_the_limit_is_refused_as_impossible(text: str) -> None:
    """It would never be granted."""
    with pytest.raises(ConfigurationError, match="at most 5 in a period"):
        RateLimiter(text).check("k", cost=5.5)


def test_fractions_add_up() -> None:
    """Three thirds and a hair are not one permit."""
    clock = FakeClock()
    limiter = limiter_of("1/second window", clock)
    assert limiter.check("k", cost=0.5)
    assert limiter.check("k", cost=0.5)
    assert not limiter.check("k", cost=1e-9)


def test_several_limits_spend_nothing_where_one_refuses() -> None:
    """The hour is not charged for what the second refused."""
    clock = FakeClock()
    limiter = limiter_of("2/second window; 10/hour window", clock)
    for _ in range(50):
        limiter.check()
    decision = limiter.peek()
    assert not decision
    clock.advance(1)
    assert limiter.peek().remaining == 2
    for _ in range(4):
        for _ in range(9):
            limiter.check()
        clock.advance(1)
    assert limiter.peek().remaining == 0
    assert limiter.peek().limit == 10
    assert limiter.peek().retry_after == 3600 - 5


@pytest.mark.parametrize("seed", range(100))
def test_joint_limits_keep_every_promise(seed: int) -> None:
    """Buckets, windows and fixed windows together, with waits, costs and holds in between."""
    chance = random.Random(seed)
    clock = FakeClock()
    texts = (
        "10/second; 30/5 seconds window; 100/minute fixed",
        "10/second window; 30/5 seconds; 100/minute fixed",
    )
    limiter = limiter_of(chance.choice(texts), clock)
    grants: list[tuple[int, float]] = []
    held_until = 0
    for _ in range(400):
        clock.advance_ns(chance.choice((0, 0, 1, SECOND // 10, SECOND, 3 * SECOND)))
        if chance.random() < 0.02:
            limiter.hold("k", 2)
            held_until = clock.now_ns() + 2 * SECOND
        if limiter.check("k") or (chance.random() < 0.5 and limiter.acquire("k")):
            grants.append((clock.now_ns(), 1))
            assert clock.now_ns() >= held_until
    assert most_in(SECOND, grants) <= 10
    assert most_in(5 * SECOND, grants) <= 30
    for period in {at // (60 * SECOND) for at, _ in grants}:
        assert sum(cost for at, cost in grants if at // (60 * SECOND) == period) <= 100


def test_a_part_that_does_not_bind_is_charged_and_never_refuses() -> None:
    """Another tier's limit is emptied at most: no debt grows in it."""
    bound, other = window("100/second window"), window("2/minute window")
    rule = Joint((Part(bound), Part(other, binds=False)))
    price = rule.price(1)
    state = rule.fresh
    for now in range(5):
        assert rule.earliest(state, now, price) == now
        state = rule.spend(state, now, now, price)
    assert rule.remaining(state, 5) == 95
    strict = Joint((Part(bound, binds=False), Part(other)))
    assert strict.remaining(state, 5) == 0
    assert strict.earliest(state, 5, price) == 60 * SECOND + 3


def test_a_closed_generator_is_an_answer() -> None:
    """Whoever stops reading gives the place free one period later, like everybody."""
    clock = FakeClock()
    limiter = limiter_of("1/second window", clock)

    def lines() -> Generator[int, None, None]:
        with limiter.permit():
            yield 1
            yield 2

    reading = lines()
    assert next(reading) == 1
    clock.advance(0.5)
    reading.close()
    assert limiter.peek().retry_after == 1.0
