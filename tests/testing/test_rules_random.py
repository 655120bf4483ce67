"""Each rule of the loopback API server, held against its definition on random arrivals."""

import random
from collections.abc import Callable
from copy import deepcopy

import pytest

from ratekit.testing._rules import (
    Concurrency,
    FixedWindow,
    Rule,
    SlidingLog,
    TokenBucket,
    TwoWindowEstimate,
    WallClockWindow,
)

# Arrivals are in 1024ths of a second: floats hold them exactly, so that the definitions below may
# decide to the instant.
COUNT, WINDOW, TICK = 4, 1024, 1024.0
RATE, BURST = 8, 3
History = list[tuple[int, bool]]  # the instant of each request before, and whether it was admitted


def bucket_allows(history: History, now: int) -> bool:
    """Since any request that was admitted, no more than the burst and what flowed in since."""
    admitted = [then for then, was in history if was]
    return all(
        (len(admitted) - index + 1 - BURST) * TICK <= RATE * (now - then)
        for index, then in enumerate(admitted)
    )


def log_allows(history: History, now: int) -> bool:
    """Fewer than the limit were admitted in the window that ends now."""
    return sum(was and then > now - WINDOW for then, was in history) < COUNT


def fixed_allows(history: History, now: int) -> bool:
    """Fewer than the limit were admitted since the window began, or it is over."""
    begins, used = -WINDOW, 0
    for then, was in history:
        if then >= begins + WINDOW:
            begins, used = then, 0
        used += was
    return now >= begins + WINDOW or used < COUNT


def wall_allows(history: History, now: int) -> bool:
    """Fewer than the limit were admitted in the window of the same number."""
    return sum(was and then // WINDOW == now // WINDOW for then, was in history) < COUNT


def estimate_allows(history: History, now: int, begins: int, *, refusals: bool) -> bool:
    """Weigh what was counted in the period that `begins` and in the one before it."""
    counted = [then for then, was in history if was or refusals]
    last = sum(begins - WINDOW <= then < begins for then in counted)
    this = sum(begins <= then for then in counted)
    return last * (begins + WINDOW - now) + this * WINDOW < COUNT * WINDOW


def haproxy_allows(history: History, now: int) -> bool:
    """Refusals count, and a period begins with a request or where the last one ended."""
    begins = history[0][0] if history else now
    for then in [*(then for then, _ in history), now]:
        if then >= begins + 2 * WINDOW:
            begins = then
        elif then >= begins + WINDOW:
            begins += WINDOW
    return estimate_allows(history, now, begins, refusals=True)


def slowapi_allows(history: History, now: int) -> bool:
    """Refusals do not count, and the periods lie on the wall clock."""
    return estimate_allows(history, now, now // WINDOW * WINDOW, refusals=False)


TODAY = [0.0]  # what the wall clock shows


def wall() -> float:
    """Read it."""
    return TODAY[0]


New = Callable[[float], Rule]  # with a window of so many seconds
BY_TIME: dict[str, tuple[New, Callable[[History, int], bool]]] = {
    "token bucket": (lambda window: TokenBucket(RATE / window, BURST), bucket_allows),
    "sliding log": (lambda window: SlidingLog(COUNT, window), log_allows),
    "fixed window": (lambda window: FixedWindow(COUNT, window), fixed_allows),
    "wall-clock window": (lambda window: WallClockWindow(COUNT, window, wall), wall_allows),
    "two-window estimate": (
        lambda window: TwoWindowEstimate(COUNT, window, wall, count_refusals=True),
        haproxy_allows,
    ),
    "two-window estimate of what was admitted": (
        lambda window: TwoWindowEstimate(COUNT, window, wall, count_refusals=False),
        slowapi_allows,
    ),
}


def ticks(seed: int) -> list[int]:
    """Arrivals in order: several at once, evenly, in bursts, and after a silence."""
    chance = random.Random(seed)
    now, arrivals = chance.randrange(WINDOW), []
    steps = chance.choice([(0, 0, 64), (0, 256), (0, 0, 0, 1024, 3000), (WINDOW // COUNT,)])
    for _ in range(25):
        now += chance.choice([*steps, chance.randrange(512)])
        arrivals.append(now)
    return arrivals


@pytest.mark.parametrize("name", BY_TIME)
def test_a_rule_admits_what_its_definition_allows_and_nothing_else(name: str) -> None:
    """Thousands of random runs."""
    new, allows = BY_TIME[name]
    for seed in range(2000):
        rule = new(1.0)
        history: History = []
        for now in ticks(seed):
            TODAY[0] = now / TICK
            admitted = rule.take(now / TICK) == 0.0
            assert admitted == allows(history, now), (seed, now, history)
            history.append((now, admitted))


@pytest.mark.parametrize("name", BY_TIME)
def test_a_wait_is_as_long_as_it_must_be_and_no_longer(name: str) -> None:
    """Whoever waits as told is admitted, and whoever comes ten microseconds earlier is not."""
    new, _ = BY_TIME[name]
    refusals = 0
    for seed in range(1000):
        chance = random.Random(seed)
        window = chance.choice([0.1, 1.0, 60.0, chance.uniform(0.05, 100.0)])
        rule = new(window)
        # Rounding has its part in each step, and another part in small numbers than in large ones.
        now = TODAY[0] = chance.choice([0.0, chance.random(), chance.uniform(0.0, 1e6)])
        for _ in range(25):
            asked, wait = deepcopy(rule), rule.take(now)
            if not wait:
                now = TODAY[0] = now + chance.choice([0.0, chance.expovariate(5.0 / window)])
                continue
            refusals += 1
            asked.take(now)
            if wait > 2e-5:
                TODAY[0] = now + wait - 1e-5
                assert asked.take(TODAY[0]) > 0, (seed, now, wait)
            now = TODAY[0] = now + wait
            assert rule.take(now) == 0.0, (seed, now, wait)
    assert refusals > 1000


def test_no_more_are_in_flight_than_concurrency_allows() -> None:
    """And no fewer, whoever comes and goes."""
    for seed in range(2000):
        chance, places, running = random.Random(seed), Concurrency(COUNT), 0
        for _ in range(50):
            if running and chance.random() < 0.5:
                places.done()
                running -= 1
            else:
                admitted = places.take(0.0) == 0.0
                assert admitted == (running < COUNT)
                running += admitted


def test_the_leaky_bucket_of_nginx_is_a_token_bucket_that_holds_one_more() -> None:
    """`rate=8r/s burst=2 nodelay`, in whole milliseconds and thousandths of a request."""
    for seed in range(2000):
        bucket = TokenBucket(rate=8.0, burst=3)
        excess, last = -1000, 0  # the very first request finds nothing to exceed
        for tick in ticks(seed):
            higher = max(0, excess - 8 * (tick - last) + 1000)
            admitted = higher <= 2000
            if admitted:
                excess, last = higher, tick
            assert (bucket.take(tick / 1000) == 0.0) == admitted
