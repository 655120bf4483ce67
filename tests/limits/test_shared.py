"""A limiter whose state is in a real memcached: several stores stand for several processes."""

import os
import threading
import time
import uuid
from collections.abc import Callable

import pytest

from ratekit import ConfigurationError, MemcachedStore, RateLimited, RateLimiter
from tests.conftest import Memcached
from tests.contracts.edges import until

Make = Callable[..., RateLimiter]


@pytest.fixture
def make(memcached: Memcached) -> Make:
    """Give limiters of one name that nobody else has, each as if in a process of its own."""
    name = uuid.uuid4().hex

    def limiter(limit: str, **settings: object) -> RateLimiter:
        settings.setdefault("headroom", 1.0)
        # However busy this machine is, the server is not taken for lost.
        store = MemcachedStore(memcached.url, timeout=5, connect_timeout=5)
        return RateLimiter(limit, name=name, store=store, **settings)  # type: ignore[arg-type]

    return limiter


def together(limiters: list[RateLimiter], threads: int, permits: int) -> list[float]:
    """Let so many threads of each acquire so many permits; return when each was granted."""
    granted: list[float] = []

    def work(limiter: RateLimiter) -> None:
        for _ in range(permits):
            limiter.acquire("k")
            granted.append(time.monotonic())

    workers = [
        threading.Thread(target=work, args=(one,)) for one in limiters for _ in range(threads)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return sorted(granted)


def most_within(seconds: float, instants: list[float]) -> int:
    """Return the most instants in any window of so many seconds."""
    return max(sum(begin <= one < begin + seconds for one in instants) for begin in instants)


def test_a_bucket_is_one_budget(make: Make) -> None:
    """What one process takes, the other has no more."""
    one, other = make("10/minute burst 4"), make("10/minute burst 4")
    taken = [limiter.check("k").allowed for limiter in (one, other) * 3]
    assert taken == [True] * 4 + [False] * 2
    assert other.peek("k").remaining == 0
    assert one.check("another key").allowed


@pytest.mark.parametrize(
    "limit",
    ["6/second window", "10/second burst 10; 6/second window", "60/minute window; 6/second window"],
)
def test_a_window_is_exact_among_processes(make: Make, limit: str) -> None:
    """No second ever sees more than its permits, and a whole second's worth goes at once."""
    granted = together([make(limit) for _ in range(3)], threads=2, permits=3)
    assert len(granted) == 18
    # An instant is noted a little after its permit was taken.
    assert most_within(0.97, granted) <= 6


def test_fixed_windows_count_together(make: Make) -> None:
    """Of a period's permits both processes take, and there are no more."""
    one, other = make("3/day fixed"), make("3/day fixed")
    assert [limiter.check("k").allowed for limiter in (one, other, one, other)] == [
        True, True, True, False,
    ]  # fmt: skip


@pytest.mark.parametrize("limit", ["50/second burst 5", "20/second; 50/second window"])
def test_a_hold_stops_everybody(make: Make, limit: str) -> None:
    """Nobody goes before its end, whoever set it, also those who slept when it was set."""
    one, other = make(limit), make(limit)
    together([one, other], threads=1, permits=3)
    ends = time.monotonic() + 0.4
    one.hold("k", 0.4)
    one.hold("k", 0.1)
    # What it saw a moment ago is good for a moment.
    until(lambda: not other.peek("k").allowed)
    assert together([one, other], threads=2, permits=1)[0] >= ends


def test_a_hold_moves_turns_and_keeps_their_spacing(make: Make) -> None:
    """After it those who waited go as far apart as they would have gone."""
    one, other = make("20/second burst 1"), make("20/second burst 1")
    granted: list[float] = []

    def go(limiter: RateLimiter) -> None:
        limiter.acquire("k")
        granted.append(time.monotonic())

    workers = [threading.Thread(target=go, args=(limiter,)) for limiter in (one, other) * 4]
    waiting = threading.Thread(target=one.hold, args=("k", 0.3))
    for worker in workers:
        worker.start()
    waiting.start()
    for worker in [*workers, waiting]:
        worker.join()
    assert most_within(0.09, granted) <= 3


def test_a_wait_that_would_be_too_long_is_refused_at_once(make: Make) -> None:
    """It costs nobody a turn, and says how long it would have been."""
    one, other = make("1/minute burst 1"), make("1/minute burst 1")
    one.acquire("k")
    with pytest.raises(RateLimited) as refused:
        other.acquire("k", max_wait=0.5)
    assert refused.value.retry_after == pytest.approx(60, abs=2)
    before = other.peek("k").retry_after
    for _ in range(20):
        assert not other.check("k").allowed
    assert other.peek("k").retry_after == pytest.approx(before, abs=1)


def test_the_higher_priority_goes_first_in_its_process(make: Make) -> None:
    """It has the turn of who came before it, and who was passed has the next."""
    limiter = make("5/second burst 1")
    limiter.acquire("k")
    gone: list[str] = []

    def go(name: str, priority: int) -> None:
        limiter.acquire("k", priority=priority)
        gone.append(name)

    workers = []
    for name, priority in (("first", 0), ("second", 0), ("urgent", 5)):
        workers.append(threading.Thread(target=go, args=(name, priority)))
        workers[-1].start()
        time.sleep(0.02)
    for worker in workers:
        worker.join()
    assert gone == ["urgent", "first", "second"]


def test_a_limit_that_changes_keeps_what_was_spent(make: Make) -> None:
    """Nothing in the key depends on the rate: a deploy does not double the budget."""
    make("10/minute burst 10").check("k", cost=10)
    assert not make("20/minute burst 10").check("k", cost=10).allowed
    assert not make("10/minute burst 10; 100/hour burst 100").check("k", cost=10).allowed


def test_a_permit_that_comes_back_is_the_next_ones(make: Make) -> None:
    """An attempt that was never made spends nothing."""
    limiter = make("1/minute burst 1")
    decision = limiter.acquire("k")
    rule = limiter._default.rule
    _, state, used, price = decision._taken
    limiter._waiting.give_back("k", rule, state, used, price)
    assert limiter.check("k").allowed


def test_a_limiter_without_a_name_is_refused(memcached: Memcached) -> None:
    """Nobody could tell whose budget it would be."""
    with pytest.raises(ConfigurationError, match="name"):
        RateLimiter("1/second", store=memcached.url)


def test_a_child_has_turns_and_connections_of_its_own(make: Make) -> None:
    """A fork shares the budget, and no socket."""
    limiter = make("1000/second burst 100")
    limiter.acquire("k")
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            for _ in range(20):
                limiter.acquire("k")
            os.write(theirs, b"done")
        finally:
            os._exit(0)
    for _ in range(20):
        limiter.acquire("k")
    os.close(theirs)
    assert os.read(ours, 10) == b"done"
    os.close(ours)
    os.waitpid(child, 0)


def test_threads_that_come_together_share_round_trips(make: Make) -> None:
    """A limit that never binds costs far less than a round trip for each permit."""
    limiter = make("1000000/second")
    together([limiter], threads=8, permits=100)
    assert isinstance(limiter.store, MemcachedStore)
    assert limiter.store.round_trips < 800
