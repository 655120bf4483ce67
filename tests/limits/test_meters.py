"""Reserving in shared integers, with the processes' commands running into each other at random."""

import random
from collections.abc import Sequence

import pytest

from ratekit import MemoryStore
from ratekit.limits.gcra import Bucket
from ratekit.limits.shared.meters import Charge, Meter, Reserving, charges_of
from ratekit.limits.tiers import Tiers
from ratekit.stores.memcached.wire import Add, Bump, Command, Get, Put, Reply

START = 10**18


class Server:
    """What memcached does with these commands, one at a time."""

    def __init__(self) -> None:
        self.items: dict[bytes, tuple[bytes, int]] = {}
        self._tokens = 0

    def do(self, command: Command) -> Reply:
        """Return the reply to one command."""
        held = self.items.get(command.key)
        match command:
            case Bump() | Get():
                return (
                    Reply(done=False)
                    if held is None
                    else Reply(done=True, value=held[0], cas=held[1])
                )
            case Add(key, by, _, first):
                value = first if held is None else int(held[0]) + by
                return self._keep(key, b"%d" % (value or 0))
            case Put(key, value, _, cas):
                if (cas == 0 and held) or (cas and held is None):
                    return Reply(done=False)
                if cas and held and held[1] != cas:
                    return Reply(done=False, differs=True)
                return self._keep(key, value)._replace(value=b"", cas=0)
        raise AssertionError(command)

    def _keep(self, key: bytes, value: bytes) -> Reply:
        self._tokens += 1
        self.items[key] = value, self._tokens
        return Reply(done=True, value=value, cas=self._tokens)


class Process:
    """One process: what it knows, what it is asking, and the turns that it has."""

    def __init__(self, charges: Sequence[Charge]) -> None:
        self.meters = [Meter(b"%d" % number) for number in range(len(charges))]
        self.charges = charges
        self.visit: Reserving | None = None
        self.commands: list[Command] = []
        self.replies: list[Reply] = []
        self.turns: list[int] = []

    def begin(self, number: int, now: int) -> None:
        """Ask for so many turns."""
        self.visit = Reserving(self.meters, [self.charges] * number)
        self.commands, self.replies = self.visit.ask(now), []

    def hear(self, now: int) -> list[int]:
        """Take in the replies; return the instants at which the turns are used, if it has any."""
        visit = self.visit
        assert visit is not None
        if visit.hear(self.replies, now):
            self.visit = None
            self.turns = [max(turn, now) for turn in visit.turns]
            return self.turns
        self.commands, self.replies = visit.ask(now), []
        return []


def buckets(text: str) -> list[Bucket]:
    """Return the buckets of a limit that uses all of its pace."""
    rule = Tiers(text, None, 1.0, MemoryStore().space(None)).default.rule
    return [part for part, _ in rule.parts_of(rule.fresh) if isinstance(part, Bucket)]


def used_by_four(text: str, seed: int, *, stalls: bool, permits: int = 150) -> list[int]:
    """Return when permits were used by four processes whose commands interleave."""
    chance = random.Random(seed)
    rule = Tiers(text, None, 1.0, MemoryStore().space(None)).default.rule
    charges = charges_of(rule, rule.price(1))
    interval = max(charge.interval for charge in charges)
    load = chance.choice((0.3, 1, 3, 10))
    server, now, used = Server(), START, list[int]()
    processes = [Process(charges) for _ in range(4)]
    while len(used) < permits:
        one = chance.choice(processes)
        now += chance.randrange(1, int(interval / 8 / load) + 2)
        if one.visit is None:
            waiting = sum(turn > now for turn in one.turns)
            if waiting < 8 and chance.random() < 0.5:
                one.begin(chance.choice((1, 1, 2, 5)), now)
        elif one.commands:
            for _ in range(min(len(one.commands), chance.randrange(1, 4))):
                one.replies.append(server.do(one.commands.pop(0)))
            if stalls and not one.commands and chance.random() < 0.05:
                now += interval * chance.randrange(1, 100)
        else:
            used += one.hear(now)
    return sorted(used)


def excess(used: list[int], bucket: Bucket) -> int:
    """Return by how many permits the busiest window exceeds what the bucket grants in it."""
    worst = -bucket.burst
    for permits in (bucket.burst // 2, bucket.burst, bucket.burst + 7, 3 * bucket.burst):
        window = permits * bucket.interval_ns + 1
        first = 0
        for last, instant in enumerate(used):
            while used[first] <= instant - window:
                first += 1
            worst = max(worst, last - first + 1 - permits - bucket.burst)
    return worst


@pytest.mark.parametrize("stalls", [False, True], ids=["", "stalls"])
@pytest.mark.parametrize("text", [f"100/second burst {burst}" for burst in (1, 5, 50)])
def test_no_window_ever_sees_more_than_the_limit(text: str, *, stalls: bool) -> None:
    """Whatever the order of commands, and however late an answer is read."""
    (bucket,) = buckets(text)
    for seed in range(25):
        assert excess(used_by_four(text, seed, stalls=stalls), bucket) <= 0, seed


def test_limits_kept_together_hold_each_on_its_own() -> None:
    """Of two limits in one message neither is exceeded, though others' commands come between."""
    text = "20/second burst 20; 1200/minute burst 100"
    for seed in range(15):
        used = used_by_four(text, seed, stalls=True)
        assert max(excess(used, bucket) for bucket in buckets(text)) <= 0, seed


def test_a_lost_integer_begins_where_it_was_last_seen() -> None:
    """A key that was evicted does not give a second burst to who has seen it."""
    (bucket,) = buckets("100/second burst 50")
    server, one = Server(), Process(charges_of(bucket, bucket.price(1)))

    def reserve(number: int, now: int) -> list[int]:
        one.begin(number, now)
        turns: list[int] = []
        while not turns:
            one.replies = [server.do(command) for command in one.commands]
            turns = one.hear(now)
        return turns

    assert reserve(40, START) == [START] * 40
    server.items.clear()
    assert reserve(1, START)[0] >= START + bucket.interval_ns // 2


def test_an_integer_from_a_wrong_clock_is_not_waited_for() -> None:
    """What lies further ahead than any backlog is replaced by an empty bucket."""
    (bucket,) = buckets("100/second burst 50")
    server, one = Server(), Process(charges_of(bucket, bucket.price(1)))
    server.items[b"0"] = b"%d" % (START + 3600 * 10**9), 7
    one.begin(1, START)
    turns: list[int] = []
    while not turns:
        one.replies = [server.do(command) for command in one.commands]
        turns = one.hear(START)
    assert turns[0] <= START + bucket.depth_ns


@pytest.mark.parametrize("value", [b"", b"abc", b"1 2", b"9" * 40])
def test_what_is_no_number_is_written_over(value: bytes) -> None:
    """Nonsense in place of the integer costs a round trip, not the program."""

    class Refusing(Server):
        def do(self, command: Command) -> Reply:
            if isinstance(command, Add) and self.items[command.key][0] == value:
                return Reply(done=False, value=b"CLIENT_ERROR cannot increment non-numeric value")
            return super().do(command)

    (bucket,) = buckets("100/second burst 5")
    server, one = Refusing(), Process(charges_of(bucket, bucket.price(1)))
    server.items[b"0"] = value, 7
    one.begin(1, START)
    turns: list[int] = []
    while not turns:
        one.replies = [server.do(command) for command in one.commands]
        turns = one.hear(START)
    assert turns[0] >= START
