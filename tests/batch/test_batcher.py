"""`Batcher`: calls of many threads become a few, and each caller has its own answer."""

import contextvars
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor, as_completed
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratekit import ConfigurationError, Options, options
from ratekit.batch import (
    Batcher,
    BatchError,
    BatchFull,
    BatchInterrupted,
    BatchTimeout,
    MissingAnswer,
    TooLarge,
)
from tests.contracts.edges import until

LONG = 60.0
Loose = Batcher[Any, Any]


class Server:
    """Answers items with their doubles, and notes what it was asked."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []
        self.most = 10_000
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, items: list[int]) -> list[int]:
        """Make a bulk call."""
        self.calls.append(items)
        assert self.gate.wait(20)
        if len(items) > self.most:
            raise TooLarge
        return [2 * item for item in items]

    @property
    def items(self) -> list[int]:
        """What it was asked, all in all."""
        return [item for call in self.calls for item in call]


@pytest.fixture
def server() -> Server:
    """Give one that nobody has asked."""
    return Server()


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    """Give 32 threads."""
    with ThreadPoolExecutor(32) as threads:
        yield threads


def test_one_caller_alone(server: Server) -> None:
    """After a moment: nobody else has come."""
    batcher = Batcher(server)
    assert batcher.load(4) == 8
    assert server.calls == [[4]]


def test_a_batch_that_is_full_goes_at_once(server: Server, pool: ThreadPoolExecutor) -> None:
    """Whoever fills it sends it."""
    batcher = Batcher(server, max_size=32, max_delay=LONG)
    assert list(pool.map(batcher.load, range(32))) == [2 * item for item in range(32)]
    assert [sorted(call) for call in server.calls] == [list(range(32))]


def test_many_calls_become_few(server: Server, pool: ThreadPoolExecutor) -> None:
    """1000 items of 32 threads, each of which asks for its share at once."""
    batcher = Batcher(server, max_delay=0.2)
    shares = [range(start, 1000, 32) for start in range(32)]
    answers = list(pool.map(batcher.load_many, shares))
    assert answers == [[2 * item for item in share] for share in shares]
    assert sorted(server.items) == list(range(1000))
    assert len(server.calls) <= 15


def test_equal_items_are_asked_for_once(server: Server, pool: ThreadPoolExecutor) -> None:
    """While they wait."""
    batcher = Batcher(server, max_size=2, max_delay=0.2)
    assert list(pool.map(batcher.load, [7] * 20)) == [14] * 20
    assert server.calls == [[7]]
    assert batcher.info()["merged"] == 19


def test_items_that_cannot_be_hashed_are_not_merged() -> None:
    """They are told apart by their place."""
    batcher = Loose(lambda items: [item["a"] for item in items])
    assert batcher.load_many([{"a": 1}, {"a": 1}, {"a": 2}]) == [1, 1, 2]
    assert batcher.info()["items"] == 3


def test_a_key_says_what_is_equal() -> None:
    """And is looked up in a mapping."""
    asked: list[Any] = []

    def send(items: list[dict[str, int]]) -> dict[int, str]:
        asked.extend(items)
        return {item["id"]: f"user {item['id']}" for item in items}

    batcher = Batcher(send, key=lambda item: item["id"])
    assert batcher.load_many([{"id": 1}, {"id": 1}, {"id": 2}]) == ["user 1", "user 1", "user 2"]
    assert asked == [{"id": 1}, {"id": 2}]


def test_the_highest_priority_goes_into_the_next_batch(server: Server) -> None:
    """And within one who came first."""
    batcher = Batcher(server, max_size=2, max_delay=LONG, max_parallel=1)
    server.gate.clear()
    first = [threading.Thread(target=batcher.load, args=(item,)) for item in (1, 2)]
    for thread in first:
        thread.start()
    until(lambda: server.calls)
    futures = [
        batcher.submit(item, priority) for item, priority in ((3, 0), (4, 0), (5, 9), (6, 1))
    ]
    server.gate.set()
    assert [future.result(20) for future in futures] == [6, 8, 10, 12]
    for thread in first:
        thread.join()
    assert server.calls[1:] == [[5, 6], [3, 4]]


def test_a_weight_says_when_it_is_full(server: Server) -> None:
    """Who is heavier than all that fits goes alone."""
    batcher = Batcher(server, max_size=10, weight=lambda item: item, max_delay=0.01)
    assert batcher.load_many([4, 5, 30, 6, 1]) == [8, 10, 60, 12, 2]
    assert all(sum(call) <= 10 or call == [30] for call in server.calls)


def test_one_that_is_too_large_is_halved(server: Server) -> None:
    """Until it fits; one item alone that does not has the error."""
    server.most = 3
    batcher = Batcher(server, max_size=10, max_delay=LONG)
    assert batcher.load_many(range(10)) == [2 * item for item in range(10)]
    assert [len(call) for call in server.calls if len(call) <= 3] == [2, 3, 2, 3]
    assert batcher.info()["splits"] == 3
    server.most = 0
    with pytest.raises(TooLarge):
        Batcher(server).load(1)


def test_an_error_of_one_is_nobody_elses() -> None:
    """The others have their answers."""
    batcher = Loose(lambda items: [ValueError(item) if item == 2 else item for item in items])
    answers = batcher.load_many([1, 2, 3], return_exceptions=True)
    assert [answers[0], answers[2]] == [1, 3]
    assert repr(answers[1]) == "ValueError(2)"
    with pytest.raises(ValueError, match="2"):
        batcher.load_many([1, 2, 3])


def test_what_the_call_raises_all_get(pool: ThreadPoolExecutor) -> None:
    """And the next batch is another one."""
    calls = []

    def send(items: list[int]) -> list[int]:
        calls.append(items)
        if len(calls) == 1:
            raise ConnectionError("reset")
        return items

    batcher = Batcher(send, max_size=4, max_delay=LONG)
    failed = [pool.submit(batcher.load, item) for item in range(4)]
    assert [type(future.exception(20)) for future in failed] == [ConnectionError] * 4
    assert batcher.load_many(range(4)) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        ([1, 2], "returned 2 answers for 3 items: return a list of one answer for each item"),
        (None, "returned None: return a list"),
        ("abc", "returned 'abc': return a list"),
        ({1, 2, 3}, "or a mapping"),
    ],
)
def test_what_is_no_answer_says_what_would_be(returned: Any, said: str) -> None:
    """To everybody who asked."""
    with pytest.raises(BatchError, match=said):
        Loose(lambda items: returned).load_many([1, 2, 3])


def test_a_missing_answer_names_its_item() -> None:
    """Whoever asked for the others has them."""
    batcher = Loose(lambda items: {1: "one"})
    one, two = batcher.load_many([1, 2], return_exceptions=True)
    assert one == "one"
    assert isinstance(two, MissingAnswer)
    assert isinstance(two, LookupError)
    assert (str(two), two.item) == ("the bulk call has no answer for 2", 2)


def test_who_gives_up_is_not_asked_for(server: Server) -> None:
    """Unless somebody else wants it."""
    batcher = Batcher(server, max_delay=LONG)
    with pytest.raises(BatchTimeout, match=r"no answer after 0\.05 s"):
        batcher.load(1, timeout=0.05)
    future = batcher.submit(2)
    with pytest.raises(TimeoutError):
        batcher.load(2, timeout=0.05)
    batcher.flush()
    assert (future.result(), server.calls) == (4, [[2]])
    assert batcher.info()["waiting"] == 0


def test_a_future_can_be_cancelled(server: Server) -> None:
    """Before it is on the wire."""
    batcher = Batcher(server, max_delay=LONG)
    one, two = batcher.submit(1), batcher.submit(2)
    assert one.cancel()
    batcher.flush()
    assert (two.result(), server.calls) == (4, [[2]])
    assert not two.cancel()
    with pytest.raises(CancelledError):
        one.result()


def test_futures_are_told_and_waited_for(server: Server) -> None:
    """After a flush: nobody else sends what nobody waits for."""
    batcher = Batcher(server, max_delay=LONG)
    told: list[int] = []
    futures = [batcher.submit(item) for item in range(5)]
    futures[0].add_done_callback(lambda future: told.append(future.result()))
    # Of another one of the batch, whose answer is there by then.
    futures[1].add_done_callback(lambda _: told.append(futures[4].result()))
    assert server.calls == []
    batcher.flush()
    assert sorted(future.result() for future in as_completed(futures, 10)) == [0, 2, 4, 6, 8]
    assert told == [0, 8]


def test_to_wait_for_a_result_sends_what_is_due(server: Server) -> None:
    """Once its time has come."""
    batcher = Batcher(server, max_delay=0.2)
    one, two = batcher.submit(1), batcher.submit(2)
    assert one.result(10) == 2
    assert (two.done(), server.calls) == (True, [[1, 2]])


def test_the_end_of_a_block_sends_what_waits(server: Server) -> None:
    """And takes no more; after an error it is cancelled."""
    with Batcher(server, max_delay=LONG) as batcher:
        future = batcher.submit(3)
    assert future.result() == 6
    with pytest.raises(BatchError, match="closed"):
        batcher.submit(4)
    with pytest.raises(KeyError), Batcher(server, max_delay=LONG) as batcher:  # noqa: PT012
        future = batcher.submit(5)
        raise KeyError
    assert (future.cancelled(), server.items) == (True, [3])


def test_no_more_wait_than_may(server: Server) -> None:
    """The one too many is refused, and the others are not."""
    batcher = Batcher(server, max_delay=LONG, max_waiting=3)
    futures = [batcher.submit(item) for item in range(3)]
    with pytest.raises(BatchFull, match="3 items wait already"):
        batcher.submit(3)
    assert batcher.submit(1).result is not None
    batcher.flush()
    assert [future.result() for future in futures] == [0, 2, 4]


def test_no_more_calls_at_a_time_than_may(pool: ThreadPoolExecutor) -> None:
    """Meanwhile the next batch gets fuller."""
    now, most = 0, 0
    lock = threading.Lock()

    def send(items: list[int]) -> list[int]:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.02)
        with lock:
            now -= 1
        return items

    batcher = Batcher(send, max_size=8, max_delay=0.001, max_parallel=2)
    assert list(pool.map(batcher.load, range(200))) == list(range(200))
    assert most == 2
    assert batcher.info()["calls"] < 100


def test_batches_are_sent_side_by_side(server: Server, pool: ThreadPoolExecutor) -> None:
    """While one is on the wire another fills and goes."""
    server.gate.clear()
    batcher = Batcher(server, max_size=4, max_delay=LONG)
    futures = [pool.submit(batcher.load, item) for item in range(12)]
    until(lambda: len(server.calls) == 3)
    assert batcher.info()["on_wire"] == 12
    server.gate.set()
    assert [future.result() for future in futures] == [2 * item for item in range(12)]


def test_an_interrupted_sender_leaves_nobody_waiting(pool: ThreadPoolExecutor) -> None:
    """Ctrl-C in the middle of a bulk call is the sender's; the others get an error."""
    begun, here = threading.Event(), threading.get_ident()

    def send(items: list[int]) -> list[int]:
        begun.set()
        time.sleep(20)
        return items

    batcher = Batcher(send, max_size=2, max_delay=LONG)
    other = pool.submit(batcher.load, 1)
    until(lambda: batcher.info()["waiting"] == 1)

    def interrupt() -> None:
        begun.wait(10)
        # To this thread: another one's would not end its sleep.
        signal.pthread_kill(here, signal.SIGINT)

    helper = pool.submit(interrupt)
    with pytest.raises(KeyboardInterrupt):
        batcher.load(2)
    helper.result()
    assert isinstance(other.exception(10), BatchInterrupted)
    assert batcher.info()["on_wire"] == 0


def test_the_options_are_those_of_where_it_was_made(server: Server) -> None:
    """Whichever caller sends, its own go with nobody else's items."""
    here: contextvars.ContextVar[str] = contextvars.ContextVar("here", default="nowhere")
    seen = []

    def send(items: list[int]) -> list[int]:
        seen.append((here.get(), Options.current().key))
        return items

    here.set("at home")
    with options(key="made here"):
        batcher = Batcher(send)
    here.set("abroad")
    with options(key="asked there"):
        batcher.load(1)
    assert seen == [("at home", "made here")]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda make: make(5), "send_many 5: use a function"),
        (lambda make: make(list, max_size=0), "max_size 0"),
        (lambda make: make(list, max_size=2.5), r"max_size 2\.5: use a whole number"),
        (lambda make: make(list, max_delay=-1), "max_delay -1"),
        (lambda make: make(list, max_parallel=0), "max_parallel 0"),
        (lambda make: make(list, max_waiting=0), "max_waiting 0"),
        (lambda make: make(list, weight=lambda item: 0).load("a"), "weight of 'a'"),
        (lambda make: make(list, key=lambda item: []).load("a"), "return what can be hashed"),
        (lambda make: make(list).load("a", priority=1.5), r"priority 1\.5"),
    ],
)
def test_what_cannot_be_right(wrong: Callable[[Any], object], said: str) -> None:
    """Is said where it is written."""
    with pytest.raises(ConfigurationError, match=said):
        wrong(Batcher)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks here")
def test_a_child_sends_nothing_of_the_parents(server: Server) -> None:
    """What waits in the parent is sent there."""
    batcher = Batcher(server, max_delay=LONG)
    future = batcher.submit(1)
    child = os.fork()
    if not child:
        try:
            batcher.flush()
            mine = batcher.submit(5)
            batcher.flush()
            raised = False
            try:
                future.result(1)
            except BatchError:
                raised = True
            os._exit(0 if (server.calls == [[5]] and mine.result() == 10 and raised) else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    batcher.flush()
    assert (future.result(), server.calls) == (2, [[1]])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 9), st.integers(2, 8))
def test_whatever_happens_each_has_its_own(seed: int, size: int, count: int) -> None:
    """Random threads, failures and patience: nobody hangs, nobody has another's answer."""
    random = Random(seed)
    fails = {item for item in range(60) if random.random() < 0.1}
    lock, sent = threading.Lock(), []

    def send(items: list[int]) -> list[Any]:
        with lock:
            sent.append(list(items))
            dice = random.random()
        if dice < 0.1 and len(items) > 1:
            raise TooLarge
        if dice < 0.15:
            raise ConnectionError
        return [KeyError(item) if item in fails else -item for item in items]

    batcher = Batcher(send, max_size=size, max_delay=0.001)

    def work(items: list[int]) -> None:
        for item in items:
            try:
                assert batcher.load(item, timeout=20) == -item
                assert item not in fails
            except KeyError as error:
                assert error.args == (item,)  # noqa: PT017
                assert item in fails
            except (ConnectionError, TooLarge):
                pass

    shares = [[random.randrange(60) for _ in range(10)] for _ in range(count)]
    with ThreadPoolExecutor(count) as threads:
        for future in [threads.submit(work, share) for share in shares]:
            future.result(30)
    assert batcher.info()["waiting"] == batcher.info()["on_wire"] == 0
    assert all(1 <= len(call) <= size for call in sent)
