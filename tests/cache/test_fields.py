"""What fields say, and that none of them can raise or make fresh what is doubtful."""

from hypothesis import given
from hypothesis import strategies as st

from ratekit.http.fields import FOREVER, age_of, directives, is_listed, listed, opaque
from ratekit.http.freshness import Rules, fresh_for, initial_age, why_not_stored

NAMES = st.sampled_from([
    "max-age", "s-maxage", "no-store", "no-cache", "private", "public", "must-revalidate",
    "must-understand", "min-fresh", "max-stale", "stale-if-error", "stale-while-revalidate", "x",
])  # fmt: skip
TEXT = st.text(st.characters(codec="latin-1"), max_size=40)
VALUES = st.one_of(
    TEXT, st.integers(-5, 10**25).map(str), st.sampled_from(['"60"', '"', "", "1.5"])
)
PIECES = st.tuples(NAMES, st.sampled_from(["=", "", " = ", "=="]), VALUES).map("".join)
CONTROLS = st.one_of(TEXT, st.lists(PIECES, max_size=5).map(", ".join))
FIELDS = st.dictionaries(
    st.sampled_from(["age", "date", "expires", "last-modified", "etag", "vary"]), TEXT
)


@given(CONTROLS)
def test_whatever_a_cache_control_says_its_numbers_are_seconds(text: str) -> None:
    """Nothing raises, nothing is negative, nothing is longer than for ever."""
    said = directives(text)
    for number in (said.max_age, said.s_maxage, said.stale_if_error, said.min_fresh):
        assert number is None or 0 <= number <= FOREVER


@given(CONTROLS, CONTROLS)
def test_what_is_forbidden_stays_so_whatever_else_is_said(before: str, after: str) -> None:
    """`no-store` between any other directives is seen, or all of it is doubtful."""
    quotes = before.count('"') % 2 or after.count('"') % 2 or "\\" in before + after
    said = directives(f"{before}, no-store, {after}")
    assert said.no_store or (quotes and said.no_cache) or _is_inside_quotes(before)


def _is_inside_quotes(before: str) -> bool:
    return before.count('"') > 0


@given(st.lists(st.integers(0, 100), min_size=1, max_size=4), CONTROLS)
def test_of_several_lifetimes_the_shortest_counts(numbers: list[int], other: str) -> None:
    """Whatever else is said, no later one makes it longer."""
    text = ", ".join(f"max-age={number}" for number in numbers)
    said = directives(f"{text}, {other}")
    assert said.max_age is None or said.max_age <= min(numbers) or said.no_store
    assert directives(text).max_age == min(numbers)


@given(FIELDS, CONTROLS, st.integers(200, 599), st.builds(Rules, shared=st.booleans()))
def test_no_answer_raises_and_none_is_older_than_nothing(
    fields: dict[str, str], control: str, status: int, rules: Rules
) -> None:
    """Whatever a server sends: a lifetime and an age that are numbers from 0 up."""
    said = directives(control)
    wall = 1_700_000_000.0
    age = initial_age(fields, asked_wall=wall - 1, wall=wall)
    # It has been a second on its way.
    assert age >= 1
    assert fresh_for(status, fields, said, rules=rules, wall=wall, age=age) >= 0
    why_not_stored(status, fields, said, asked=directives(""), rules=rules, authorized=True)


@given(TEXT)
def test_what_is_no_date_is_over(text: str) -> None:
    """Nothing that is not one of the three forms makes an answer fresh."""
    if text.strip().endswith("GMT") or text.strip()[-4:].isdigit():
        return
    fields = {"expires": text, "last-modified": "Mon, 01 Jan 2001 00:00:00 GMT"}
    said = directives("")
    assert fresh_for(200, fields, said, rules=Rules(), wall=1.7e9, age=0.0) == 0


@given(TEXT)
def test_an_age_is_a_number_or_none(text: str) -> None:
    """What is none counts for nothing; of several the first counts."""
    assert 0 <= age_of({"age": text}) <= FOREVER
    assert age_of({"age": f"7, {text}"}) == 7


@given(TEXT)
def test_lists_and_tags_are_read_whatever_they_are(text: str) -> None:
    """Names in lower case without spaces around; a tag is its own whatever stands beside it."""
    assert all(name == name.strip(" \t").lower() for name in listed(text))
    assert opaque(text) is None or text.endswith('"')
    assert is_listed('"a"', '"a"')
    assert is_listed('"a"', 'W/"a", "b"')
    assert not is_listed(None, text) or text.strip(" \t") == "*"
    assert not is_listed('"a"', '"b", "ab"')
