"""Options: one frozen value, in three places."""

import threading

import pytest

import ratekit
from ratekit import ConfigurationError, Options, options
from ratekit._options import NONE


def test_an_inner_block_overrides_the_outer_where_it_says_something() -> None:
    """And what was before is there again behind it."""
    with options(max_wait=5, key="a"):
        with options(max_wait=1, deadline=9):
            assert Options.current() == Options(max_wait=1, key="a", deadline=9)
        assert Options.current() == Options(max_wait=5, key="a")
    assert Options.current() is NONE


def test_a_block_that_raises_leaves_nothing_behind() -> None:
    """As every context manager should."""
    with pytest.raises(RuntimeError), options(max_wait=5):
        raise RuntimeError
    assert Options.current() is NONE


def test_one_value_may_be_entered_by_many_threads_and_twice_by_one() -> None:
    """It holds no state of its own."""
    shared = options(max_wait=5)
    seen: list[Options] = []

    def enter() -> None:
        with shared, shared:
            seen.append(Options.current())
        seen.append(Options.current())

    threads = [threading.Thread(target=enter) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen.count(shared) == 4
    assert seen.count(NONE) == 4


def test_a_thread_does_not_inherit_the_options_of_its_parent() -> None:
    """They belong to the context; a worker that shall have them enters them itself."""
    seen: list[Options] = []
    with options(max_wait=5):
        thread = threading.Thread(target=lambda: seen.append(Options.current()))
        thread.start()
        thread.join()
    assert seen == [NONE]


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"max_wiat": 3}, "unknown option 'max_wiat': use one of key, cost, max_wait"),
        ({"max_wait": -1}, "max_wait -1: use seconds"),
        ({"max_wait": "3"}, "max_wait '3': use seconds"),
        ({"deadline": float("nan")}, "deadline nan: use seconds"),
        ({"max_retry_after": True}, "max_retry_after True: use seconds"),
        ({"timeout": True}, "timeout True: use a number above 0"),
        ({"timeout": (1, -1)}, "timeout -1: use a number above 0"),
        ({"timeout": 0}, "timeout 0: use a number above 0"),
        ({"timeout": (1, 2, 3)}, r"timeout \(1, 2, 3\): use seconds, \(connect, read\)"),
        ({"timeout": ()}, r"timeout \(\): use seconds"),
        ({"key": 3}, "key 3: use text"),
        ({"retry": "yes"}, "retry 'yes': use True, False or None"),
        ({"refusal": "ignore"}, "refusal 'ignore': use 'raise' or 'response'"),
        ({"throttle_statuses": {200}}, "use status codes from 400 up"),
        ({"cost": 0}, "cost 0: use a number above 0"),
        ({"idempotency_key": 5}, "idempotency_key 5: use text, or True"),
    ],
)
def test_what_can_not_be_is_refused_when_it_is_written(
    chosen: dict[str, object], message: str
) -> None:
    """Not at the first request."""
    with pytest.raises(ConfigurationError, match=message):
        ratekit.options(**chosen)


def test_statuses_may_be_any_collection_or_one() -> None:
    """They are kept as a frozen set."""
    assert options(throttle_statuses=[429, 503]).throttle_statuses == frozenset({429, 503})
    assert options(throttle_statuses=503).throttle_statuses == frozenset({503})


def test_a_timeout_may_be_one_number_two_or_off() -> None:
    """As requests has it."""
    assert options(timeout=3).timeout == 3
    assert options(timeout=(3, 10)).timeout == (3, 10)
    assert options(timeout=False).timeout is False
    assert options(timeout=(5, None)).timeout is not None
