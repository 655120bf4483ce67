"""What quota headers mean for the pace."""

import math

import pytest

from ratekit.limits.told import Lesson, Window, heard
from ratekit.quota import Quota


class Ear:
    """Hears answers at instants."""

    def __init__(self, *, even: bool = False) -> None:
        self.known: dict[str, Window] = {}
        self.even = even

    def __call__(self, now: float, *quotas: Quota, flying: int = 0) -> Lesson:
        """Hear these quotas."""
        return heard(self.known, quotas, now, flying, even=self.even, headroom=1.0)


def test_a_short_window_is_spent_evenly() -> None:
    """A burst would gain less than the window, and a bucket refuses it."""
    assert Ear()(0.0, Quota(100, 99, 1, 1.0)).rate == 100


def test_a_long_window_may_be_spent_at_once() -> None:
    """An hour's quota need not last an hour."""
    lesson = Ear()(0.0, Quota(5000, 4000, 1800))
    assert lesson.rate == math.inf
    assert lesson.hold == 0


def test_a_long_window_may_be_spent_evenly() -> None:
    """Then what is left lasts until it begins anew."""
    assert Ear(even=True)(0.0, Quota(5000, 3600, 1800)).rate == 2


def test_a_long_window_that_is_spent_is_held_until_it_begins_anew() -> None:
    """Before the refusal comes."""
    assert Ear()(0.0, Quota(5000, 0, 1800)).hold == 1800


def test_the_last_permits_of_a_long_window_are_those_under_way() -> None:
    """Sixteen threads must not fire sixteen more at the last one."""
    assert Ear()(0.0, Quota(5000, 3, 1800), flying=3).hold == 1800
    assert Ear()(0.0, Quota(5000, 3, 1800), flying=2).hold == 0


def test_the_length_of_a_window_is_the_distance_of_its_resets() -> None:
    """No header of this family says it."""
    ear = Ear()
    ear(0.0, Quota(100, 99, 2.0))
    assert ear(0.9, Quota(100, 20, 1.1)).rate < 100
    assert ear(1.0, Quota(100, 99, 2.0)).rate == pytest.approx(100)


def test_a_short_window_that_is_spent_is_held_until_its_end_was_seen_to_be() -> None:
    """Its reset is a whole second, though it is over in a tenth."""
    ear = Ear()
    ear(10.0, Quota(100, 99, 1, 1.0))
    assert ear(10.9, Quota(100, 0, 1, 1.0)).hold == pytest.approx(0.1)


def test_a_bucket_that_is_empty_is_not_held_for_a_second() -> None:
    """Nothing begins anew in it: the next permit is one permit's time away."""
    ear = Ear()
    ear(10.0, Quota(100, 19, 1, 1.0))
    assert ear(10.9, Quota(100, 0, 1, 1.0)).hold == pytest.approx(0.01)


def test_tokens_hold_when_they_are_spent_and_set_no_pace() -> None:
    """A request takes who knows how many."""
    ear = Ear()
    assert ear(0.0, Quota(1000, 900, 6, 6.0, "tokens", unit="tokens")).rate == math.inf
    assert ear(0.0, Quota(1000, 0, 6, 6.0, "tokens", unit="tokens")).hold == 6


def test_the_smallest_share_of_a_long_window_is_told() -> None:
    """A warning is due for it, and not for a window of a second."""
    lesson = Ear()(0.0, Quota(100, 1, 1, 1.0, "burst"), Quota(1000, 50, 3600, 3600.0, "hour"))
    assert lesson.left == 0.05
    assert lesson.name == "hour"


def test_windows_are_bounded() -> None:
    """A server may name them as it likes."""
    ear = Ear()
    for number in range(1000):
        ear(0.0, Quota(100, 99, 60, name=f"window {number}"))
    assert len(ear.known) <= 64
