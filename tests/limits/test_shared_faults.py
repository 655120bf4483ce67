"""Shared limits in a memcached that is too small, loses what it knew, or says nonsense."""

import contextlib
import json
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from ratekit import Decision, MemcachedStore, RateLimiter, StoreError
from ratekit.clock import SECOND
from ratekit.stores.memcached.keys import digest_of, key_of
from tests.conftest import Memcached, StartMemcached
from tests.contracts.edges import until

# As little memory as memcached takes: one page for all items of about one size.
SMALL = ("-m", "2")
# How far ahead of the clock, in seconds, a limit is believed to be, beyond its burst.
HORIZON = 120

STORES: list[MemcachedStore] = []


@pytest.fixture(autouse=True)
def close_stores() -> Iterator[None]:
    """Close the connections that a test has left open."""
    yield
    while STORES:
        STORES.pop().close()


class Fleet:
    """Limiters of one name, each with a store of its own, as in so many processes."""

    def __init__(self, server: Memcached, limit: str, processes: int = 3) -> None:
        self.server = server
        self.name = uuid.uuid4().hex
        self.limit = limit
        self.limiters = [self.another() for _ in range(processes)]

    def another(self) -> RateLimiter:
        """Return one that has seen nothing yet."""
        store = MemcachedStore(self.server.url, timeout=5, on_error="closed")
        STORES.append(store)
        return RateLimiter(self.limit, name=self.name, headroom=1.0, store=store)

    def key(self, kind: str) -> bytes:
        """Return what is called so in memcached for "k"."""
        return key_of(kind, digest_of("", self.name, "k"))

    def now(self) -> int:
        """Return the instant by the clock that they go by."""
        store = self.limiters[0].store
        assert isinstance(store, MemcachedStore)
        return store.servers[0].clock.now_ns()

    @contextlib.contextmanager
    def working(
        self, limiters: Sequence[RateLimiter], threads: int, permits: int
    ) -> Iterator[list[int]]:
        """Let so many threads of each acquire so many permits; give the instants of all."""
        used: list[int] = []

        def work(limiter: RateLimiter) -> None:
            for _ in range(permits):
                at = acquire(limiter)
                # One by one: how many there are is looked at meanwhile.
                used.append(at)

        with ThreadPoolExecutor(threads * len(limiters)) as pool:
            running = [pool.submit(work, one) for one in limiters for _ in range(threads)]
            yield used
            for one in running:
                one.result()
        used.sort()


def acquire(limiter: RateLimiter) -> int:
    """Return when a permit was used, asking again while others wait too long for an answer."""
    while True:
        with contextlib.suppress(StoreError):
            return used_at(limiter.acquire("k"))


def used_at(decision: Decision) -> int:
    """Return when a permit was used, or asked for, by the clock that all of them go by."""
    return decision._taken[2]


def until_used(used: list[int], permits: int) -> None:
    """Return when so many permits were used."""
    until(lambda: len(used) >= permits)


def excess(used: list[int], rate: int, burst: int) -> float:
    """Return by how much any window, of whatever length, exceeds `rate` x its length + `burst`."""
    return max(
        last - first + 1 - rate * (used[last] - used[first]) / SECOND - burst
        for first in range(len(used))
        for last in range(first, len(used))
    )


def storm(server: Memcached, numbers: range, size: int) -> None:
    """Write values that nobody reads, with keys as long as the limiter's."""
    one = b"set storm:%02d%024d 0 600 %d noreply\r\n%0*d\r\n"
    sets = [one % (size, number, size, size, number) for number in numbers]
    assert server.ask(b"".join([*sets, b"mn"])) == b"MN\r\n"


def write(server: Memcached, key: bytes, value: bytes) -> None:
    """Write a value, as somebody does who knows nothing of limits."""
    assert server.ask(b"ms %b %d T600\r\n%b" % (key, len(value), value)) == b"HD\r\n"


def read(server: Memcached, key: bytes) -> bytes:
    """Return a value. This is a use of it."""
    head, value, _ = server.ask(b"mg %b v" % key).split(b"\r\n")
    assert head.startswith(b"VA ")
    return value


def is_there(server: Memcached, key: bytes) -> bool:
    """Return whether the server has it. This is no use of it."""
    return server.ask(b"me %b" % key).startswith(b"ME ")


@pytest.mark.parametrize(
    ("limit", "kind"),
    [("1000/hour burst 1000", "limit"), ("10000/s burst 9", "hold"), ("1000/hour fixed", "record")],
)
def test_a_storm_does_not_drop_what_a_limiter_uses(
    start_memcached: StartMemcached, limit: str, kind: str
) -> None:
    """What is only counted up is dropped in it, however often: arithmetic is no use of a key."""
    server = start_memcached(*SMALL)
    fleet = Fleet(server, limit, processes=2)
    if kind == "hold":
        fleet.limiters[0].hold("k", 0.001)
    fleet.limiters[0].acquire("k")
    size = len(read(server, fleet.key(kind)))
    counted = key_of(kind, digest_of(fleet.name))
    write(server, counted, b"1" * min(size, 19))
    is_lost = False
    for number in range(30):
        fleet.limiters[number % 2].acquire("k")
        is_lost |= server.ask(b"incr %b 1" % counted) == b"NOT_FOUND\r\n"
        # A page holds several times as many.
        for width in {size, 19}:
            storm(server, range(number * 1000, (number + 1) * 1000), width)
        assert is_there(server, fleet.key(kind))
    assert is_lost
    if kind != "hold":
        # One that has seen nothing finds what was spent.
        assert fleet.another().peek("k").remaining <= 1000 - 31


def test_a_storm_is_no_second_budget(start_memcached: StartMemcached) -> None:
    """While somebody fills the server, several processes take what the limit says."""
    server = start_memcached(*SMALL)
    fleet = Fleet(server, "200/second burst 20")
    with fleet.working(fleet.limiters, threads=2, permits=25) as used:
        for part in range(10):
            until_used(used, part * 14)
            storm(server, range(part * 3000, part * 3000 + 3000), 19)
            assert part == 0 or is_there(server, fleet.key("limit"))
    assert len(used) == 150
    assert excess(used, 200, 20) <= 2


@pytest.mark.parametrize("processes", [1, 3])
def test_keys_that_are_dropped_are_no_second_budget(memcached: Memcached, processes: int) -> None:
    """Who has seen the state remembers it; who has seen less of it begins there.

    So the turns that others have reserved since may be given out again: those of threads that
    wait in other processes, and no burst.
    """
    threads = 6 // processes
    fleet = Fleet(memcached, "200/second burst 20", processes)
    with fleet.working(fleet.limiters, threads, permits=25) as used:
        for drop in (1, 2, 3):
            until_used(used, drop * 30)
            memcached.ask(b"delete %b" % fleet.key("limit"))
    assert len(used) == 150
    again = (processes - 1) * (threads + 1)
    assert excess(used, 200, 20) <= 3 * again + 1


def test_a_hold_outlives_its_record(memcached: Memcached) -> None:
    """Who knows it keeps it and writes it again, so that a newcomer hears of it too."""
    fleet = Fleet(memcached, "50/second burst 5", processes=2)
    one, other = fleet.limiters
    ends = fleet.now() + SECOND // 2
    one.hold("k", 0.5)
    asked: list[Decision] = []

    def is_written_again() -> bool:
        with contextlib.suppress(StoreError):
            asked.append(one.check("k"))
        return is_there(memcached, fleet.key("hold")) or fleet.now() >= ends

    with fleet.working([one, other], threads=2, permits=1) as used:
        until(lambda: other.held_for("k") or fleet.now() >= ends)
        assert memcached.ask(b"delete %b" % fleet.key("hold")) == b"DELETED\r\n"
        until(is_written_again)
        asked.append(fleet.another().check("k"))
    assert not [one for one in asked if one.allowed and used_at(one) < ends]
    assert used[0] >= ends
    # The lost record said by how much every turn had moved: none is nearer for that.
    with fleet.working(fleet.limiters, threads=2, permits=5) as more:
        pass
    assert excess(used + more, 50, 5) <= 2


@pytest.mark.parametrize("ahead", [10, HORIZON - 1])
def test_what_may_be_true_is_believed(memcached: Memcached, ahead: int) -> None:
    """A long line is no wrong clock; nobody is told a longer wait than that."""
    fleet = Fleet(memcached, "10/second burst 5")
    write(memcached, fleet.key("limit"), b"%d" % (fleet.now() + ahead * SECOND))
    for limiter in fleet.limiters:
        assert 0 < limiter.check("k").retry_after <= ahead


def look(limiter: RateLimiter) -> None:
    """Let a limiter see what the server says now."""
    store = limiter.store
    assert isinstance(store, MemcachedStore)
    trips = store.round_trips
    until(lambda: (limiter.peek("k"), store.round_trips > trips)[1])


@pytest.mark.parametrize("ahead", [HORIZON + 5, 3600, 9 * 10**9])
def test_a_limit_far_ahead_of_the_clock_is_mended_by_one(
    memcached: Memcached, caplog: pytest.LogCaptureFixture, ahead: int
) -> None:
    """Whoever is first says so; nobody waits for it, also who has seen it so."""
    fleet = Fleet(memcached, "50/second burst 5")
    for limiter in fleet.limiters:
        limiter.acquire("k")
    far = fleet.now() + ahead * SECOND
    write(memcached, fleet.key("limit"), b"%d" % far)
    look(fleet.limiters[-1])
    used = [used_at(limiter.acquire("k")) for limiter in fleet.limiters * 2]
    assert max(used) < far - HORIZON * SECOND
    # Nobody's memory of it has brought it back.
    assert int(read(memcached, fleet.key("limit"))) <= fleet.now() + SECOND
    assert caplog.text.count("ahead of the clock") == 1


def test_a_limit_that_goes_wrong_while_many_wait_stops_nobody(
    memcached: Memcached, caplog: pytest.LogCaptureFixture
) -> None:
    """Each process says it once at most, and keeps to the limit."""
    fleet = Fleet(memcached, "100/second burst 5")
    with fleet.working(fleet.limiters, threads=2, permits=8) as used:
        until_used(used, 12)
        write(memcached, fleet.key("limit"), b"%d" % (fleet.now() + 3600 * SECOND))
    assert len(used) == 48
    # What the others' threads had in hand is given out again, at most.
    assert excess(used, 100, 5) <= 6
    assert int(read(memcached, fleet.key("limit"))) <= fleet.now() + SECOND
    assert 1 <= caplog.text.count("ahead of the clock") <= 3


def test_who_will_not_wait_does_not_believe_it_either(memcached: Memcached) -> None:
    """Those who ask with a `max_wait` must mend it too: there may be nobody else."""
    fleet = Fleet(memcached, "10/second burst 5", processes=1)
    one = fleet.limiters[0]
    one.acquire("k")
    write(memcached, fleet.key("limit"), b"%d" % (fleet.now() + 3600 * SECOND))
    look(one)
    assert one.peek("k").retry_after < HORIZON
    one.acquire("k", max_wait=30)


@pytest.mark.parametrize("limit", ["20/second window", "100/second; 1000/hour fixed"])
@pytest.mark.parametrize(
    ("until_s", "front_s"),
    [(10**9, 0), (0, 3600)],
    ids=["a hold for thirty years", "a turn in an hour"],
)
def test_a_window_from_a_wrong_clock_is_not_waited_for(
    memcached: Memcached, limit: str, until_s: int, front_s: int
) -> None:
    """No hold lasts so long, and nobody has reserved so far ahead."""
    fleet = Fleet(memcached, limit, processes=1)
    (one,) = fleet.limiters
    one.acquire("k")
    _, front, state = json.loads(read(memcached, fleet.key("record")))
    far = [(fleet.now() + until_s * SECOND) * bool(until_s), front + front_s * SECOND, state]
    write(memcached, fleet.key("record"), json.dumps(far).encode())
    fleet.another().acquire("k", max_wait=30)


def test_a_hold_that_nobody_set_is_not_obeyed(memcached: Memcached) -> None:
    """One that ends later than any that a limiter sets, or that is no hold."""
    fleet = Fleet(memcached, "10/second burst 5")
    for record in (b"", b"1", b"a b c", b"-1 2 x", b"%d 5 x" % (fleet.now() + 10**9 * SECOND)):
        write(memcached, fleet.key("hold"), record)
        assert fleet.another().acquire("k", max_wait=30)
