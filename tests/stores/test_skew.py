"""Hosts whose clocks disagree find out by how much, from one key's remaining life."""

import random

import pytest

from ratekit.clock import SECOND
from ratekit.stores.memcached.shared_clock import SharedClock
from ratekit.stores.memcached.skew import Reference, Skew, read_reference, write_reference
from ratekit.stores.memcached.wire import Reply
from ratekit.testing import FakeClock

LIFE = 30 * 86_400
START = 1_800_000_000 * SECOND


class Fleet:
    """A server whose second is not the wall's, and hosts that ask it now and then."""

    def __init__(self, offsets: list[int], seed: int) -> None:
        self.chance = random.Random(seed)
        self.now = START
        self.phase = self.chance.randrange(SECOND)
        self.offsets = offsets
        self.hosts = [Skew() for _ in offsets]
        self.reference: Reference | None = None
        # What each saw last: who does not see the newest writes nothing.
        self.seen: list[Reference | None] = [None] * len(offsets)
        self.generation = b"g1"
        self.changes = [0] * len(offsets)

    def remaining(self) -> int:
        """Return the life that the server says is left; its ticks come up to 1 ms late."""
        late = self.chance.randrange(SECOND // 1000)
        return LIFE - (self.now - START + self.phase - late) // SECOND

    def ask(self, index: int) -> None:
        """Let one host have a conversation that takes 0.1 to 2 ms."""
        host, offset = self.hosts[index], self.offsets[index]
        if not host.wants_sample(self.now + offset):
            return
        offer = host.offer()
        sent = self.now + offset
        self.now += self.chance.randrange(SECOND // 20_000, SECOND // 1000)
        if offer is not None and self.reference is self.seen[index]:
            self.reference = read_reference(write_reference(offer))
        remaining = self.remaining()
        self.now += self.chance.randrange(SECOND // 20_000, SECOND // 1000)
        host.observe(sent, self.now + offset, remaining, self.generation)
        self.changes[index] += host.refer(self.reference) != 0
        self.seen[index] = self.reference

    def run(self, seconds: float, spacing_ns: int) -> None:
        """Let hosts ask in turn, each after about so long."""
        end = self.now + int(seconds * SECOND)
        while self.now < end:
            self.ask(self.chance.randrange(len(self.hosts)))
            self.now += self.chance.randrange(2 * spacing_ns // len(self.hosts) + 1)

    def apart(self) -> int:
        """Return how far the hosts' corrected clocks are apart at most."""
        pairs = zip(self.offsets, self.hosts, strict=True)
        clocks = [offset - host.correction_ns for offset, host in pairs]
        return max(clocks) - min(clocks)


OFFSETS = [
    [0, 200_000_000, -200_000_000, 0],
    [5 * SECOND, 0, 0, 0],
    [0, 0, 3600 * SECOND, 0],
]


@pytest.mark.parametrize("offsets", OFFSETS, ids=["0.2 s", "5 s", "1 h"])
@pytest.mark.parametrize("seed", range(10))
def test_a_busy_fleet_agrees_within_seconds(offsets: list[int], seed: int) -> None:
    """Whoever is wrong, also who made the reference; and nobody changes every second."""
    fleet = Fleet(offsets, seed)
    fleet.run(6, 8_000_000)
    assert fleet.apart() <= 30_000_000
    assert max(fleet.changes) <= 5


@pytest.mark.parametrize("offsets", OFFSETS[1:], ids=["5 s", "1 h"])
def test_a_clock_that_is_far_off_is_corrected_at_once(offsets: list[int]) -> None:
    """Two conversations each are enough to be within little more than a second."""
    fleet = Fleet(offsets, 1)
    for _ in range(2):
        for index in range(len(offsets)):
            fleet.hosts[index]._seen_ns = 0
            fleet.ask(index)
    assert fleet.apart() <= 1.2 * SECOND


@pytest.mark.parametrize("spacing_ns", [2_000_000, 100_000_000, 2 * SECOND])
def test_clocks_that_agree_are_left_alone(spacing_ns: int) -> None:
    """Some milliseconds are no reason to change anything."""
    fleet = Fleet([0, 2_000_000, -1_000_000, 500_000], 3)
    fleet.run(20, spacing_ns)
    assert [host.correction_ns for host in fleet.hosts] == [0, 0, 0, 0]


def test_a_server_that_restarts_changes_nobodys_clock() -> None:
    """The key is another one then, and its end; the clocks are as right as before."""
    fleet = Fleet([0, 5 * SECOND], 4)
    fleet.run(6, 8_000_000)
    before = fleet.apart()
    fleet.generation, fleet.reference, fleet.phase = b"g2", None, fleet.phase + SECOND // 3
    fleet.run(6, 8_000_000)
    assert fleet.apart() <= max(before, 30_000_000)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"a b c d",
        b"g 1 2",
        b"g 1 9 2",
        b"g 5 0 99999999999999",
        b"g " + b"9" * 5000,
        b" 1 2 3",
    ],
)
def test_a_reference_that_is_none_reads_as_none(text: bytes) -> None:
    """What somebody else wrote there corrects nobody's clock."""
    assert read_reference(text) is None


def test_absurd_answers_teach_nothing() -> None:
    """A negative life, or one of a hundred years, and an answer before its question."""
    host = Skew()
    host.observe(START, START + 1, -1, b"g")
    host.observe(START, START + 1, 100 * 366 * 86_400, b"g")
    host.observe(START, START - 1, 5, b"g")
    assert host.offer() is None
    host.observe(START, START + 1_000_000, 5, b"g")
    assert host.refer(Reference(b"g", 5, 0, 0)) == 0
    assert host.correction_ns == 0


class _Told:
    """In place of an estimate: the correction that the test says."""

    correction_ns = 0

    def observe(self, *_: object) -> None:
        """Nothing is estimated."""

    def refer(self, _: object) -> int:
        """Nothing is referred to."""
        return 0


def test_the_common_clock_never_goes_back_by_a_little() -> None:
    """A small correction makes it stand still; one of a clock wrong from its beginning does not."""
    own = FakeClock()
    clock = SharedClock(own, b"rk1:", "here")
    told = _Told()
    clock._skew = told  # type: ignore[assignment]
    replies = [Reply(done=True), Reply(done=True, life=5), Reply(done=False)]

    def correct(seconds: float) -> None:
        told.correction_ns = int(seconds * SECOND)
        clock.learn(replies, 0, 0)

    begun = clock.now_ns()
    correct(-0.5)
    assert clock.now_ns() == begun + SECOND // 2
    correct(0.25)
    assert clock.now_ns() == begun + SECOND // 2
    own.advance(1)
    assert clock.now_ns() == begun + SECOND * 3 // 4
    correct(3600)
    assert clock.now_ns() == begun + SECOND - 3600 * SECOND
