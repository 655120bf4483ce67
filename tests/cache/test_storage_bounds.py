"""How many answers are kept in this process, and which of them go first."""

from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ratekit import Cache, ConfigurationError
from ratekit.cache.storage import MemoryStorage, Page
from ratekit.http.reply import Reply
from ratekit.testing import FakeClock
from tests.cache.storing import MIB, URL, asked, body_of, entry, keep, storage_of


@pytest.fixture
def storage(clock: FakeClock) -> MemoryStorage:
    """Give an empty one with room for all that a test keeps."""
    return storage_of(clock)


def test_ten_thousand_urls_stay_within_their_bytes(clock: FakeClock) -> None:
    """The last ones are there, and the first ones are not; pages without answers go as well."""
    storage = storage_of(clock, size=MIB)
    for number in range(10_000):
        keep(storage, asked(f"/{number}"), b"x" * 1000)
    usage = storage.usage()
    assert MIB - 4000 < usage["bytes"] <= MIB
    assert usage["bytes"] >= usage["entries"] * 1000
    assert [body_of(storage, asked(f"/{number}")) is None for number in (0, 9_999)] == [True, False]
    assert len(storage._pages) <= 2 * (usage["entries"] + 256)


def test_ten_thousand_urls_stay_within_their_number(clock: FakeClock) -> None:
    """However small they are."""
    storage = storage_of(clock, entries=100)
    for number in range(10_000):
        assert keep(storage, asked(f"/{number}"), b"")
    assert storage.usage()["entries"] == 100
    seen = [body_of(storage, asked(f"/{number}")) for number in range(9_900, 10_000)]
    assert seen == [b""] * 100
    assert len(storage._pages) <= 2 * (100 + 256)


def test_ten_thousand_callers_of_one_url_stay_within_their_number(clock: FakeClock) -> None:
    """Each has an answer of his own there."""
    storage = storage_of(clock, entries=100)
    for number in range(10_000):
        keep(storage, asked(URL, str(number)))
    assert storage.usage()["entries"] == 100
    assert len(storage._pages) == 1


def test_ten_thousand_questions_without_an_answer_take_no_room(storage: MemoryStorage) -> None:
    """Of pages whose answers may be on their way so many stay, the last ones and those in use."""
    keep(storage, asked("/kept"))
    for number in range(10_000):
        storage.open(asked(f"/{number}"))
    assert len(storage._pages) <= 2 * (1 + 256)
    assert body_of(storage, asked("/kept")) == b"body"
    page = storage.find(asked("/9999"))[0]
    assert page is not None
    assert storage.keep(asked("/9999"), page, frozenset(), entry(storage))


def test_the_least_recently_used_goes_first(clock: FakeClock) -> None:
    """Looking at one is using it; replacing one makes nobody go."""
    storage = storage_of(clock, entries=3)
    for name in "abc":
        keep(storage, asked(name))
    assert body_of(storage, asked("a")) is not None
    keep(storage, asked("c"))
    keep(storage, asked("d"))
    assert [body_of(storage, asked(name)) is None for name in "abcd"] == [False, True, False, False]


def test_what_is_over_goes_before_what_is_of_use(clock: FakeClock) -> None:
    """Though it was used last."""
    storage = storage_of(clock, entries=2)
    keep(storage, asked("lasting"))
    keep(storage, asked("short"), fresh_for=1.0)
    clock.advance(2)
    keep(storage, asked("new"))
    assert body_of(storage, asked("lasting")) is not None


def test_an_answer_larger_than_all_the_room_is_not_kept(clock: FakeClock) -> None:
    """What it was to replace is gone, and the others stay."""
    storage = storage_of(clock, size=10_000)
    keep(storage, asked("/other"))
    keep(storage, asked())
    assert not keep(storage, asked(), b"x" * 10_000)
    assert body_of(storage, asked()) is None
    assert body_of(storage, asked("/other")) == b"body"


def test_fields_take_room_as_a_body_does(storage: MemoryStorage) -> None:
    """Nobody fills the memory with them."""
    fields = [(f"X-{number}", "v" * 1000) for number in range(100)]
    keep(storage, asked(), b"", reply=Reply(200, fields, b""))
    assert storage.usage()["bytes"] > 100_000


@pytest.mark.parametrize("name", ["max_bytes", "max_entries", "max_entry"])
@pytest.mark.parametrize("number", [0, -1, float("nan"), "1"])
def test_room_that_is_none_is_refused(name: str, number: Any) -> None:
    """When the cache is made."""
    with pytest.raises(ConfigurationError, match=name):
        Cache(**{name: number})


class Bounded(RuleBasedStateMachine):
    """Whatever is done with it: no more than it may hold, and nothing but what was kept last."""

    NAMES = st.sampled_from("abcdefgh")

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        self.storage = storage_of(self.clock, size=20_000, entries=5)
        self.last: dict[str, tuple[bytes, float]] = {}
        self.opened: dict[str, tuple[Page, int]] = {}
        self.dropped = 0

    @rule(name=NAMES, body=st.binary(max_size=9000), seconds=st.integers(1, 100))
    def keep(self, name: str, body: bytes, seconds: int) -> None:
        """Keep an answer."""
        if keep(self.storage, asked(name), body, fresh_for=float(seconds)):
            self.last[name] = body, self.storage.now() + seconds
        else:
            self.last.pop(name, None)

    @rule(name=NAMES)
    def look(self, name: str) -> None:
        """Find what was kept last or nothing, and nothing that is over."""
        body = body_of(self.storage, asked(name))
        expected, until = self.last.get(name, (None, 0.0))
        assert body is None or (body == expected and self.storage.now() < until)

    @rule(name=NAMES)
    def ask(self, name: str) -> None:
        """Begin to ask."""
        page = self.storage.open(asked(name))
        assert page is not None
        self.opened[name] = page, self.dropped

    @precondition(lambda self: self.opened)
    @rule(data=st.data())
    def answer(self, data: st.DataObject) -> None:
        """Keep what was asked for a while ago: only if nothing was dropped since."""
        name = data.draw(st.sampled_from(sorted(self.opened)))
        page, dropped = self.opened.pop(name)
        made = entry(self.storage, b"late")
        if self.storage.keep(asked(name), page, frozenset(), made):
            assert dropped == self.dropped or self.storage.open(asked(name)) == page
            self.last[name] = b"late", self.storage.now() + 60

    @rule(name=NAMES)
    def drop(self, name: str) -> None:
        """Drop a URL."""
        self.storage.drop(name)
        self.dropped += 1
        self.last.pop(name, None)
        assert self.storage.find(asked(name)) == (None, None)

    @rule(seconds=st.integers(0, 50))
    def pass_time(self, seconds: int) -> None:
        """Let time go by."""
        self.clock.advance(seconds)

    @invariant()
    def it_holds_no_more_than_it_may(self) -> None:
        """In number and in bytes."""
        usage = self.storage.usage()
        assert usage["entries"] <= 5
        assert usage["bytes"] <= 20_000


test_whatever_is_done_it_stays_within_its_bounds = Bounded.TestCase
