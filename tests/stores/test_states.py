"""States as text: each comes back as it was, and nothing else is taken for one."""

import json
from array import array

from hypothesis import given
from hypothesis import strategies as st

from ratekit.stores.memcached.states import dump, load

NUMBERS = st.integers(-(1 << 63), (1 << 63) - 1)
ARRAYS = st.lists(NUMBERS, max_size=20).map(lambda numbers: array("q", numbers))
FLAT = NUMBERS | ARRAYS


def tuples_of(inner: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    """Return tuples of a few of these, or one of them alone."""
    return st.lists(inner, max_size=4).map(tuple) | inner


STATES = tuples_of(tuples_of(tuples_of(FLAT)))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from("ab"), inner),
)


def is_state(thing: object) -> bool:
    """Tell whether a rule could have made this."""
    if isinstance(thing, tuple):
        return all(map(is_state, thing))
    return type(thing) is int or (isinstance(thing, array) and thing.typecode == "q")


@given(STATES)
def test_every_state_comes_back_as_it_was(state: object) -> None:
    """Also the largest numbers, empty tuples and empty arrays."""
    assert load(dump(state)) == state
    assert is_state(load(dump(state)))


@given(st.binary())
def test_bytes_of_anybody_raise_nothing(text: bytes) -> None:
    """They are a state or None."""
    found = load(text)
    assert found is None or is_state(found)


@given(JSON)
def test_json_of_anybody_is_a_state_or_none(thing: object) -> None:
    """No boolean, text or fraction passes for a number."""
    found = load(json.dumps(thing).encode())
    assert found is None or is_state(found)


def test_what_is_too_long_or_too_deep_is_no_state() -> None:
    """Reading it would take longer than it is worth."""
    assert load(b"1" + b" " * 65_535) == 1
    assert load(b"1" + b" " * 65_536) is None
    assert load(b"[[[[1]]]]") == ((((1,),),),)
    assert load(b"[[[[[1]]]]]") is None
    assert load(b"[" * 60_000) is None
    assert load(b"%d" % (1 << 63)) is None
    assert load(b'{"a":[%d]}' % (1 << 63)) is None
