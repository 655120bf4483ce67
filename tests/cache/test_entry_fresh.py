"""How old a kept answer is, how long it is fresh, and for which request (RFC 9111, 4.2)."""

from typing import Any

import pytest

from ratekit.http.fields import FOREVER, directives
from ratekit.http.freshness import Rules
from tests.cache.entries import DAY, NOW, PRIVATE, SHARED, date, kept

# Age (RFC 9111, 4.2.3).


@pytest.mark.parametrize(
    ("fields", "took", "age"),
    [
        ({}, 0, 0),
        ({}, 5, 5),
        ({"date": date()}, 0, 0),
        ({"date": date(-30)}, 0, 30),
        ({"date": date(30)}, 0, 0),
        ({"age": "10"}, 0, 10),
        ({"age": "10"}, 5, 15),
        ({"age": "10", "date": date(-12)}, 5, 15),
        ({"age": "10", "date": date(-40)}, 5, 40),
        ({"age": "10, 99"}, 0, 10),
        ({"age": "-10"}, 0, 0),
        ({"age": "1.5"}, 0, 0),
        ({"age": "soon"}, 5, 5),
        ({"age": "9" * 30}, 0, FOREVER),
        ({"age": "10", "date": "never"}, 1, 11),
        ({}, -5, 0),
    ],
    ids=str,
)
def test_4_2_3_how_old_an_answer_is_when_it_comes(
    fields: dict[str, Any], took: float, age: float
) -> None:
    """The greater of what its date says, and of what its age and the way here say."""
    assert kept("max-age=60", took=took, **fields).age == age


def test_4_2_3_it_ages_where_it_is_kept() -> None:
    """By the clock of its storage, second by second."""
    entry = kept(age="10")
    assert [entry.age_at(NOW + later) for later in (0, 0.5, 100)] == [10, 10.5, 110]


@pytest.mark.parametrize(("behind", "is_fresh"), [(0.5, True), (0.999, True), (1, False)])
def test_what_another_clock_wrote_in_the_future_is_doubtful(
    behind: float, *, is_fresh: bool
) -> None:
    """Two hosts differ by a moment; by more, nobody knows how old it is."""
    entry = kept("max-age=60", age="10")
    age = entry.age_at(NOW - behind)
    assert entry.is_usable(age, directives("")) == is_fresh
    assert age == 10 if is_fresh else age > entry.fresh_for


# Freshness (RFC 9111, 4.2.1 and 4.2.2).


@pytest.mark.parametrize(
    ("rules", "status", "fields", "seconds"),
    [
        (PRIVATE, 200, {"cache_control": "max-age=60", "expires": date(9)}, 60),
        (PRIVATE, 200, {"cache_control": "s-maxage=9, max-age=60"}, 60),
        (SHARED, 200, {"cache_control": "s-maxage=9, max-age=60", "expires": date(7)}, 9),
        (SHARED, 200, {"cache_control": "max-age=60"}, 60),
        (SHARED, 200, {"cache_control": "s-maxage=x, max-age=60"}, 0),
        (PRIVATE, 200, {"expires": date(60), "date": date(-10)}, 70),
        (PRIVATE, 200, {"expires": date(60)}, 60),
        (PRIVATE, 200, {"expires": date(60), "date": "none"}, 60),
        (PRIVATE, 200, {"expires": date(-60)}, 0),
        (PRIVATE, 200, {"expires": "0", "last_modified": date(-1000)}, 0),
        (PRIVATE, 200, {"expires": f"{date(60)}, {date(90)}"}, 0),
        (PRIVATE, 200, {"cache_control": "max-age=60, max-age=30"}, 30),
        (PRIVATE, 200, {"cache_control": "max-age=1.5", "expires": date(60)}, 0),
        (PRIVATE, 200, {"cache_control": f"max-age={1 << 40}"}, FOREVER),
        (PRIVATE, 200, {"last_modified": date(-1000)}, 100),
        (PRIVATE, 200, {"last_modified": date(-1000), "date": date(-500)}, 50),
        (PRIVATE, 200, {"last_modified": date(1000)}, 0),
        (PRIVATE, 200, {"last_modified": date(-1e9)}, DAY),
        (PRIVATE, 200, {"last_modified": "x"}, 0),
        (PRIVATE, 302, {"last_modified": date(-1000)}, 0),
        (PRIVATE, 302, {"last_modified": date(-1000), "cache_control": "public"}, 100),
        (PRIVATE, 200, {}, 0),
    ],
    ids=str,
)
def test_4_2_1_up_to_which_age_it_is_fresh(
    rules: Rules, status: int, fields: dict[str, Any], seconds: float
) -> None:
    """s-maxage for all, max-age, Expires, and then a tenth of what went by unchanged."""
    assert kept(status=status, rules=rules, **fields).fresh_for == seconds


@pytest.mark.parametrize("status", [200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501])
def test_4_2_2_these_may_be_guessed(status: int) -> None:
    """RFC 9110, 15.1 lists them."""
    assert kept(status=status, last_modified=date(-1000)).fresh_for == 100


@pytest.mark.parametrize(
    ("ttl", "override", "control", "seconds"),
    [
        (300, False, "", 310),
        (300, False, "max-age=60", 60),
        (300, True, "max-age=60", 310),
        (300, True, "no-cache, no-store", 310),
        (0, True, "max-age=60", 10),
        (None, True, "max-age=60", 60),
    ],
)
def test_a_users_time_to_live_begins_when_it_comes(
    ttl: float | None, control: str, seconds: float, *, override: bool
) -> None:
    """However old an answer is by then; it holds against the server only where it is to."""
    entry = kept(control, rules=Rules(ttl=ttl, override=override), age="10")
    assert (entry.fresh_for, entry.always) == (seconds, False)


# Use (RFC 9111, 4.2 and 5.2.1).


@pytest.mark.parametrize(
    ("control", "asks", "age", "usable"),
    [
        ("max-age=60", "", 59.9, True),
        ("max-age=60", "", 60, False),
        ("max-age=60", "no-cache", 0, False),
        ("max-age=60", "max-age=10", 10, True),
        ("max-age=60", "max-age=10", 10.1, False),
        ("max-age=60", "min-fresh=50", 10, True),
        ("max-age=60", "min-fresh=50", 10.1, False),
        ("max-age=60", "max-stale", 1e9, True),
        ("max-age=60", "max-stale=10", 70, True),
        ("max-age=60", "max-stale=10", 70.1, False),
        ("max-age=60", "max-stale, min-fresh=0", 61, False),
        ("max-age=60", "max-stale, max-age=50", 61, False),
        ("max-age=60, must-revalidate", "", 59, True),
        ("max-age=60, must-revalidate", "max-stale", 61, False),
        ("max-age=60, no-cache", "", 0, False),
        ("max-age=60, no-cache", "max-stale", 61, False),
        ('max-age=60, no-cache="set-cookie"', "", 0, False),
    ],
)
def test_4_2_whether_it_may_be_used_as_it_is(
    control: str, asks: str, age: float, *, usable: bool
) -> None:
    """To the very instant."""
    assert kept(control).is_usable(age, directives(asks)) == usable


@pytest.mark.parametrize(
    ("control", "private", "shared"),
    [
        ("max-age=60", False, False),
        ("max-age=60, must-revalidate", True, True),
        ("max-age=60, proxy-revalidate", False, True),
        ("s-maxage=60", False, True),
    ],
)
def test_4_2_4_what_is_never_used_stale(control: str, *, private: bool, shared: bool) -> None:
    """What binds a shared cache binds no other; nor does anything where the user knows better."""
    assert kept(control).never_stale == private
    assert kept(control, rules=SHARED).never_stale == shared
    assert not kept(control, rules=Rules(shared=True, ttl=5, override=True)).never_stale
