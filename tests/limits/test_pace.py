"""The pace that a server accepts is found from its refusals."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratekit.clock import SECOND
from ratekit.limits.pace import FREE, PAUSE_NS, Pace, refused, reopened, risen

S = SECOND


def shut(pace: Pace, at: int, asked: int = 0) -> Pace:
    """Return `pace` after a refusal at `at` of what was sent just before."""
    after = refused(pace, at, at - 1, asked)
    assert after is not None
    return after


def test_what_was_sent_before_a_refusal_belongs_to_the_same_event() -> None:
    """Sixteen threads are refused at once, and the pace is lowered once."""
    pace = shut(FREE, S)
    assert refused(pace, S + 5, S - 1, 0) is None
    assert refused(pace, S + 5, S, 0) is None


def test_a_silent_server_is_asked_again_soon_and_then_less_often() -> None:
    """Nobody knows how long a window is: half as long again each time."""
    pace = shut(FREE, S)
    assert pace.pause_ns == PAUSE_NS
    pace = shut(pace, 2 * S)
    assert pace.pause_ns == PAUSE_NS * 1.5
    for second in range(3, 60):
        pace = shut(pace, second * S)
    assert pace.pause_ns == 30 * S


def test_what_the_server_asks_for_is_obeyed() -> None:
    """A hint is not stretched."""
    pace = shut(FREE, S, asked=7 * S)
    assert pace.pause_ns == 7 * S


def test_a_window_of_a_hundred_is_known_after_one_refusal() -> None:
    """A hundred were admitted until it was shut, and a second later it is open: 100 a second."""
    pace = shut(FREE, S // 50, asked=S)
    pace = reopened(pace, S, admitted=100, top=math.inf)
    assert pace.rate == pytest.approx(100)
    assert pace.shut_at == 0


def test_a_bucket_is_known_after_two() -> None:
    """The second time the first burst is taken off: what flowed in is left."""
    pace = shut(FREE, S // 100, asked=S)
    pace = reopened(pace, S, admitted=21, top=math.inf)
    assert pace.rate == pytest.approx(21)
    faster = pace._replace(rate=150.0)
    # 20 tokens and 100 a second, spent at 150 a second.
    pace = shut(faster, S + 2 * S // 5 + S // 100, asked=S)
    pace = reopened(pace, 2 * S + 2 * S // 5, admitted=61, top=math.inf)
    assert pace.rate == pytest.approx(100)


def test_a_limit_that_was_told_is_not_lowered_by_jitter() -> None:
    """Once in a while a server refuses what is exactly on time."""
    pace = shut(FREE, 60 * S)
    assert reopened(pace, 61 * S, admitted=6000, top=99.0).rate == 99.0


def test_a_limit_told_too_high_is_lowered_at_once() -> None:
    """A refusal after half a second is no jitter."""
    pace = shut(FREE, S // 2)
    assert reopened(pace, S // 2 + PAUSE_NS, admitted=70, top=198.0).rate < 190


def test_the_pace_rises_while_nothing_is_refused() -> None:
    """Doubled far from what was refused, a little near it."""
    pace = FREE._replace(rate=10.0, ceiling=1000.0)
    assert risen(pace, S, math.inf).rate == 20
    assert risen(pace, S, 15.0).rate == 15
    near = FREE._replace(rate=100.0, ceiling=104.0)
    assert risen(near, S, math.inf).rate == pytest.approx(105)


@given(
    st.lists(
        st.tuples(
            st.integers(1, 10 * S), st.integers(0, 20 * S), st.integers(0, 5000), st.booleans()
        ),
        max_size=40,
    ),
    st.sampled_from([math.inf, 5.0, 1000.0]),
)
def test_whatever_happens_the_pace_is_one(
    events: list[tuple[int, int, int, bool]], top: float
) -> None:
    """Positive, finite once refused, and never above what was told."""
    pace, now = FREE._replace(begin=1), 1
    for after, asked, admitted, rises in events:
        now += after
        if rises and pace.step_at and not pace.shut_at:
            pace = risen(pace, now, top)
        else:
            pace = reopened(shut(pace, now, asked), now + 1, admitted, top)
            assert 0 < pace.rate < math.inf
            assert pace.rate <= top
        now += 2
