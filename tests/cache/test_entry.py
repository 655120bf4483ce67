"""What is kept of an answer: its grace, and what a 304 makes of it."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratekit.cache.entry import Grace, entry_of, fields_of
from ratekit.http.fields import FOREVER, directives
from ratekit.http.reply import Reply
from tests.cache.entries import DAY, ETAG, NONE, NOW, PRIVATE, WALL, date, kept, renewed

# What stays of an answer.


def test_what_came_stays_as_it_came() -> None:
    """Status, reason, version, body and every field, unknown ones and repeated ones too."""
    pairs = [("Date", date()), ("X-Any", "1"), ("Link", "<a>"), ("Link", "<b>"), ("ETag", '"e"')]
    entry = entry_of(
        Reply(404, pairs, b"", reason="Nope", version=10),
        fields_of(pairs),
        rules=PRIVATE,
        grace=NONE,
        asked_wall=WALL,
        wall=WALL,
        now=NOW,
    ).with_body(b"none")
    reply = entry.reply
    assert (reply.status, reply.reason, reply.version, reply.body) == (404, "Nope", 10, b"none")
    assert reply.headers == pairs
    assert (entry.stored_at, entry.etag, entry.modified) == (NOW, '"e"', None)


def test_what_belongs_to_one_connection_and_the_age_stay_out() -> None:
    """The fields of one connection, those that `Connection` names, and an age that is past."""
    entry = kept(
        date=date(), age="7", connection="X-Hop, close", x_hop="1", keep_alive="timeout=5", te="x",
        transfer_encoding="chunked", upgrade="h2c", trailer="x", proxy_authenticate="Basic", x="1",
    )  # fmt: skip
    assert entry.reply.headers == [("Date", date()), ("X", "1")]
    assert entry.age == 7


@pytest.mark.parametrize("fields", [{}, {"date": "yesterday"}, {"date": "0"}], ids=str)
def test_an_answer_without_a_date_gets_one(fields: dict[str, Any]) -> None:
    """RFC 9110, 6.6.1: that of its receipt."""
    entry = kept("max-age=60", **fields)
    dates = [value for name, value in entry.reply.headers if name == "Date"]
    assert dates == [date()]


def test_what_stands_several_times_is_joined() -> None:
    """By its name in lower case, in the order in which it came."""
    pairs = [("A", "1"), ("b", "2"), ("a", "3")]
    assert fields_of(pairs) == {"a": "1, 3", "b": "2"}


# Grace (RFC 5861).


@pytest.mark.parametrize(
    ("control", "grace", "if_error", "while_revalidate"),
    [
        ("", Grace(), 0, 0),
        ("stale-if-error=5", Grace(), 5, 0),
        ("stale-while-revalidate=5", Grace(), 0, 5),
        ("stale-if-error=5, stale-while-revalidate=6", Grace(3, 9), 5, 9),
        ("stale-if-error=x, stale-while-revalidate", Grace(3, 4), 3, 4),
        ("", Grace(if_error=7.5), 7.5, 0),
    ],
)
def test_the_longer_grace_holds(
    control: str, grace: Grace, if_error: float, while_revalidate: float
) -> None:
    """The server's or the user's."""
    entry = kept(control, grace=grace)
    assert (entry.if_error, entry.while_revalidate) == (if_error, while_revalidate)


@pytest.mark.parametrize(
    ("control", "asks", "age", "graced"),
    [
        ("max-age=600, stale-if-error=1200", "", 1800, True),
        ("max-age=600, stale-if-error=1200", "", 1800.1, False),
        ("max-age=600, stale-if-error=1200", "", 0, True),
        ("max-age=600, stale-if-error=1200, must-revalidate", "", 601, False),
        ("max-age=600, stale-if-error=1200, no-cache", "", 601, False),
        ("max-age=600, stale-if-error=1200", "no-cache", 601, False),
        ("max-age=600, stale-if-error=1200", "min-fresh=1", 601, False),
        ("max-age=600, stale-if-error=1200", "max-age=600", 601, False),
        ("max-age=600, stale-if-error=1200", "max-age=601", 601, True),
        ("max-age=600, stale-if-error=1200", "max-stale=1", 602, True),
    ],
)
def test_5861_4_for_how_long_it_may_be_used_though_it_is_stale(
    control: str, asks: str, age: float, *, graced: bool
) -> None:
    """The example of the RFC, and what forbids it."""
    entry = kept(control)
    assert entry.is_graced(age, directives(asks), entry.if_error) == graced


# For how long it is kept.


@pytest.mark.parametrize(
    ("control", "fields", "grace", "seconds"),
    [
        ("max-age=60", {}, NONE, 60 + DAY),
        ("max-age=60", {"age": "20"}, NONE, 40 + DAY),
        ("max-age=60", {"age": "90"}, NONE, DAY),
        ("max-age=60, must-revalidate", {}, NONE, 60),
        ("max-age=60, must-revalidate", ETAG, NONE, 60 + DAY),
        ("max-age=60, must-revalidate", {"last_modified": "x"}, NONE, 60 + DAY),
        ("max-age=60", {}, Grace(if_error=2 * DAY), 60 + 2 * DAY),
        ("max-age=60, stale-while-revalidate=172800", {}, NONE, 60 + 2 * DAY),
    ],
)
def test_it_is_kept_as_long_as_it_can_be_of_use(
    control: str, fields: dict[str, Any], grace: Grace, seconds: float
) -> None:
    """A day beyond its freshness, or its longer grace; neither where it is of no use."""
    assert kept(control, grace=grace, **fields).kept_for() == seconds


# Validation (RFC 9111, 4.3).


@pytest.mark.parametrize(
    ("fields", "conditions"),
    [
        ({}, {}),
        ({"etag": 'W/"a"'}, {"If-None-Match": 'W/"a"'}),
        ({"last_modified": "Mon"}, {"If-Modified-Since": "Mon"}),
        (
            {"etag": '"a"', "last_modified": date(-1)},
            {"If-None-Match": '"a"', "If-Modified-Since": date(-1)},
        ),
    ],
    ids=str,
)
def test_4_3_1_what_asks_whether_it_still_holds(
    fields: dict[str, Any], conditions: dict[str, Any]
) -> None:
    """What the server called it, to the letter."""
    assert kept(**fields).conditions() == conditions


def test_4_3_4_a_304_changes_fields_and_leaves_the_answer() -> None:
    """All that it names is new, all else stays; what describes the body describes the old one."""
    old = kept(
        "max-age=60", etag='"a"', x_a="1", x_b="1", content_type="a/b", content_length="4",
        content_encoding="gzip",
    )  # fmt: skip
    new = renewed(
        old, after=61, cache_control="max-age=90", x_a="2", x_c="2", content_type="c/d",
        content_length="0", content_encoding="br", content_range="x", connection="X-Hop", x_hop="1",
    )  # fmt: skip
    fields = fields_of(new.reply.headers)
    assert fields == {
        "etag": '"a"', "x-a": "2", "x-b": "1", "x-c": "2", "content-type": "a/b",
        "content-length": "4", "content-encoding": "gzip", "cache-control": "max-age=90",
        "date": date(61),
    }  # fmt: skip
    assert (new.reply.status, new.reply.body, new.etag) == (200, b"body", '"a"')
    assert (new.stored_at, new.fresh_for, new.age) == (NOW + 61, 90, 0)
    assert fields_of(old.reply.headers)["x-a"] == "1"


@pytest.mark.parametrize(
    ("first", "second", "age", "seconds"),
    [
        ({"age": "50"}, {"age": "20"}, 20, 60),
        ({"age": "50"}, {}, 0, 60),
        ({"date": date(-50)}, {}, 0, 60),
        ({}, {"date": date(70)}, 30, 60),
        ({}, {"cache_control": "max-age=5"}, 0, 5),
        ({"cache_control": "", "expires": date(60)}, {}, 0, 0),
        ({"cache_control": "", "expires": date(60)}, {"expires": date(130)}, 0, 30),
        ({"cache_control": "", "last_modified": date(-900)}, {}, 0, 100),
    ],
    ids=str,
)
def test_4_3_4_age_and_freshness_begin_anew(
    first: dict[str, Any], second: dict[str, Any], age: float, seconds: float
) -> None:
    """With the 304, a hundred seconds later, and with whatever it leaves as it was."""
    old = kept(**{"cache_control": "max-age=60", **first})
    new = renewed(old, after=100, **second)
    assert (new.age, new.fresh_for) == (age, seconds)


def test_4_3_4_a_304_may_forbid_and_allow() -> None:
    """What it says of stale use holds from then on, and what it does not say is over."""
    old = kept("max-age=60, stale-if-error=5", etag='"a"')
    strict = renewed(old, cache_control="no-cache, must-revalidate")
    assert (strict.always, strict.never_stale, strict.if_error) == (True, True, 0)
    loose = renewed(strict, cache_control="max-age=60", grace=Grace(7, 8))
    assert (loose.always, loose.never_stale) == (False, False)
    assert (loose.if_error, loose.while_revalidate) == (7, 8)


def test_4_3_4_another_name_of_the_same_answer_is_its_name_from_then_on() -> None:
    """A 304 that is weaker, or names a new date, is asked with the next time."""
    new = renewed(kept(etag='"a"', last_modified="x"), etag='W/"a"', last_modified="y")
    assert new.conditions() == {"If-None-Match": 'W/"a"', "If-Modified-Since": "y"}


# Whatever comes.

NUMBERS = st.floats(0, 1e10)
TEXT = st.text(st.characters(codec="latin-1"), max_size=20)
CONTROLS = st.lists(
    st.sampled_from([
        "max-age=60", "max-age=0", "max-age=9999999999", "no-cache", "must-revalidate", "max-stale",
        "s-maxage=5", "stale-if-error=30", "stale-while-revalidate=30", "min-fresh=5", "x=1",
    ]),
    max_size=4,
).map(", ".join)  # fmt: skip
FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "cache_control": CONTROLS,
        "date": st.one_of(TEXT, st.integers(-1000, 1000).map(date)),
        "expires": st.one_of(TEXT, st.integers(-1000, 1000).map(date)),
        "age": st.one_of(TEXT, st.integers(0, 1000).map(str)),
        "etag": TEXT,
        "last_modified": st.one_of(TEXT, st.integers(-1000, 1000).map(date)),
    },
)


@given(FIELDS, FIELDS, NUMBERS, CONTROLS)
def test_what_is_used_is_fresh_or_may_be_stale(
    first: dict[str, Any], second: dict[str, Any], later: float, asks: str
) -> None:
    """Whatever a server says, before and in a 304, and whatever a request asks for."""
    asked = directives(asks)
    old = kept(**first)
    for entry in (old, renewed(old, after=5, **second)):
        assert 0 <= entry.age <= FOREVER + 5
        assert 0 <= entry.fresh_for <= FOREVER
        age = entry.age_at(entry.stored_at + later)
        if entry.is_usable(age, asked):
            assert not entry.always
            assert not asked.no_cache
            assert age < entry.fresh_for or (asked.max_stale is not None and not entry.never_stale)
            # Who takes it is never later than it is kept.
            assert later <= entry.kept_for() + 1e-3 or asked.max_stale is not None


@given(FIELDS, NUMBERS, st.floats(0, 1e6), CONTROLS)
def test_what_was_over_stays_over(
    fields: dict[str, Any], later: float, more: float, asks: str
) -> None:
    """An answer that may not be used may not be used later either."""
    entry, asked = kept(**fields), directives(asks)
    usable = [entry.is_usable(entry.age_at(NOW + at), asked) for at in (later, later + more)]
    assert usable != [False, True]
    graced = [
        entry.is_graced(entry.age_at(NOW + at), asked, entry.if_error)
        for at in (later, later + more)
    ]
    assert graced != [False, True]


def test_an_entry_with_another_body_is_the_same_otherwise() -> None:
    """And the one before it is as it was."""
    entry = kept("max-age=60", etag='"a"')
    other = entry.with_body(b"other")
    assert (entry.reply.body, other.reply.body) == (b"body", b"other")
    assert replace(other, reply=entry.reply) == entry
